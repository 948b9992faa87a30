"""Unknown numbers and coefficient fields from noisy observations: posterior density and its mode.

The fields are eliminated: their equations and conditions make them functions of the unknowns, so that the posterior
is one of the unknowns alone, with exact gradients.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import linalg

from gpkit.errors import ConvergenceError, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.inverse.coordinates import coordinate_of
from gpkit.inference.collocation.inverse.fields import EliminatedFields, State
from gpkit.inference.collocation.inverse.reduced import ReducedFields

__all__ = ["InverseDensity", "Mode", "find_mode"]

_LARGEST_HESSIAN = 12
_NEAR = 1.0  # unconstrained units within which fields are moved to first order


class InverseDensity:
    """Minus the log posterior density of unknowns in unconstrained coordinates, with gradients.

    Coordinates are those of the unknown numbers, each mapped to the support of its prior (`coordinates`), and then the
    whitened ones of the free fields.

    Args:
        model: The fields as functions of the unknowns.

    Attributes:
        fields: What finds them: the model, or its reduction.

    Raises:
        InvalidDataError: There are no observations with noise.
    """

    def __init__(self, model: EliminatedFields) -> None:
        self.model = model
        self.fields: EliminatedFields | ReducedFields = model
        self.problem = model.problem
        self.priors = [self.problem.unknowns[name] for name in model.names]
        self._coordinates = [coordinate_of(p) for p in self.priors]
        rows, values, noise = [], [], []
        for observation in self.problem.observations:
            rows.append(model.observed(observation.terms, observation.points))
            values.append(observation.values.numpy())
            noise.append(observation.noise.numpy())
        if not values or min(n.min() for n in noise) <= 0.0:
            raise InvalidDataError("unknowns need observations with noise: Observe(u, points, values, noise)")
        self._values, self._noise = np.concatenate(values), np.concatenate(noise)
        self._observed = {
            k: np.concatenate(
                [r[k] if k in r else np.zeros((len(v), model.size)) for r, v in zip(rows, values, strict=True)]
            )
            for k in range(len(self.problem.fields))
            if any(k in r for r in rows)
        }
        self._last: tuple[Array, State, Array] | None = None

    @property
    def dimension(self) -> int:
        """Number of coordinates, D."""
        return len(self.priors) + sum(self.model.whitened.values())

    def natural(self, z: Array) -> Array:
        """Values of the unknown numbers (..., p) at coordinates (..., D)."""
        values = [own.number(np.asarray(z[..., k])) for k, own in enumerate(self._coordinates)]
        return np.stack(values, -1) if values else np.zeros((*z.shape[:-1], 0))

    def white(self, z: Array) -> Array:
        """Whitened coordinates of the free fields, one field after the other."""
        return np.asarray(z[len(self.priors) :])

    def start(self) -> Array:
        """The middle of the priors."""
        z = np.zeros(self.dimension)
        for k, (prior, own) in enumerate(zip(self.priors, self._coordinates, strict=True)):
            middle = _middle(prior)
            if middle is not None:
                z[k] = own.inverse(middle)
        return z

    def scatter(self, generator: np.random.Generator) -> Array:
        """A start elsewhere: each number between the tenths of its prior.

        Numbers whose prior has no quantiles (:attr:`without_quantiles`) move by one unit of their unconstrained
        coordinate, which is a factor of e for positive ones.
        """
        z = self.start()
        for k, (prior, own) in enumerate(zip(self.priors, self._coordinates, strict=True)):
            if self.model.names[k] in self.without_quantiles:
                z[k] += generator.normal()
            else:
                u = torch.tensor(generator.uniform(0.1, 0.9), dtype=torch.float64)
                z[k] = own.inverse(float(torch.as_tensor(prior.icdf(u))))
        return z

    @cached_property
    def without_quantiles(self) -> tuple[str, ...]:
        """Names of the unknown numbers whose prior is missing or has no quantile function."""
        half = torch.tensor(0.5, dtype=torch.float64)
        found = []
        for name, prior in zip(self.model.names, self.priors, strict=True):
            try:
                found += [name] if prior is None or not math.isfinite(float(prior.icdf(half))) else []
            except (AttributeError, NotImplementedError):
                found.append(name)
        return tuple(found)

    def _prior(self, z: Array, curved: bool) -> tuple[float, Array, Array, Array]:
        """Minus log prior with the Jacobian: value, gradient, curvature if asked for; and dx/dz of the numbers."""
        p = len(self.priors)
        value = 0.5 * float(z[p:] @ z[p:])
        gradient, curvature, slopes = z.copy(), np.ones(len(z)), np.ones(p)
        for k, own in enumerate(self._coordinates):
            slopes[k] = own.slope(float(z[k]))
            density, gradient[k], curvature[k] = own.prior(float(z[k]), curved)
            value += density
        return value, gradient, curvature, slopes

    def evaluate(self, z: Array, *, curved: bool = True) -> tuple[float, Array, Array, State, Array]:
        """Value, gradient (D,), Gauss-Newton curvature (D, D), the fields, and their sensitivities in z, (r, D).

        Args:
            z: Where, (D,).
            curved: Whether the curvature holds that of the priors; it is left out where only the gradient is used.

        Raises:
            ConvergenceError: The fields cannot be computed there.
        """
        theta, white = self.natural(z), self.white(z)
        if not np.isfinite(theta).all():
            raise ConvergenceError("an unknown is not finite")
        state = self._solved(z, theta, white)
        prior, gradient, curvature, slopes = self._prior(z, curved)
        sensitivity = state.sensitivities()
        sensitivity[:, : len(theta)] *= slopes
        self._last = z.copy(), state, sensitivity
        misfit, jacobian = self._misfit(state, white), np.zeros((len(self._values), len(z)))
        at = len(theta)
        for k, rows in self._observed.items():
            if k in self.model.whitened:
                before = at + sum(n for j, n in self.model.whitened.items() if j < k)
                jacobian[:, before : before + self.model.whitened[k]] += rows @ self.model.directions(k)
            else:
                span = slice(self.model.determined.index(k) * self.model.size, None)
                jacobian += rows @ sensitivity[span][: self.model.size]
        jacobian /= self._noise[:, None]
        value = prior + 0.5 * float(misfit @ misfit)
        gauss = jacobian.T @ jacobian + np.diag(curvature)
        return value, gradient + jacobian.T @ misfit, gauss, state, sensitivity

    def _misfit(self, state: State, white: Array) -> Array:
        misfit = -self._values / self._noise
        for k, rows in self._observed.items():
            misfit = misfit + rows @ self.model.field_coefficients(k, state.coefficients, white) / self._noise
        return np.asarray(misfit)

    def misfits(self, z: Array) -> Array:
        """What observations differ by, in units of their noise, and minus the log prior: (n + 1,).

        Raises:
            ConvergenceError: The fields cannot be computed there.
        """
        return np.append(self._misfit(self.fields_at(z), self.white(z)), self._prior(z, curved=False)[0])

    def fields_at(self, z: Array) -> State:
        """The fields; where the equations are not linear, the next are best asked for nearby.

        Raises:
            ConvergenceError: They cannot be computed there.
        """
        state = self._solved(z, self.natural(z), self.white(z))
        if not self.problem.is_linear:
            sensitivity = state.sensitivities()
            sensitivity[:, : len(self.priors)] *= self._prior(z, curved=False)[3]
            self._last = z.copy(), state, sensitivity
        return state

    def _solved(self, z: Array, theta: Array, white: Array) -> State:
        """The fields, from where they were last, moved to first order, if that leads to them."""
        if self._last is None or self.problem.is_linear:
            return self.fields.solve(theta, white)
        at, state, sensitivity = self._last
        near = float(np.abs(z - at).max()) < _NEAR
        try:
            return self.fields.solve(theta, white, state.coefficients + (sensitivity @ (z - at) if near else 0.0))
        except ConvergenceError:
            return self.fields.solve(theta, white)

    def starting_from(self, z: Array, state: State) -> None:
        """Search the fields from here next: a nonlinear problem may have several."""
        self._last = z.copy(), state, np.zeros((len(state.coefficients), len(z)))

    @property
    def solved(self) -> dict[str, int]:
        """How often fields were found in all functions, and in few, where that was counted."""
        return dict(self.fields.solved) if isinstance(self.fields, ReducedFields) else {}

    def reduced(self) -> InverseDensity:
        """The same density for many evaluations: fields are found in few functions where these are enough."""
        readings = np.zeros((len(self._values), self.model.size * len(self.model.determined)))
        for k, rows in self._observed.items():
            if k in self.model.determined:
                at = self.model.determined.index(k) * self.model.size
                readings[:, at : at + self.model.size] = rows / self._noise[:, None]
        other = copy.copy(self)
        other.fields = ReducedFields(self.model, readings)
        return other


@dataclass(frozen=True, eq=False)
class Mode:
    """Where the density of unknowns is largest, in unconstrained coordinates, with its normal approximation.

    Attributes:
        z: The mode, (D,).
        covariance: Of the normal approximation, (D, D).
        value: Minus the log density there.
        state: The fields there.
        sensitivity: Their derivatives with respect to z, (r, D).
        trace: Values of the best start after each iteration.
        converged: Whether the gradient vanishes there.
        exact: Whether the curvature is that of the density; else it is that of Gauss and Newton.
        agreeing: How many starts came to it, of how many.
    """

    z: Array
    covariance: Array
    value: float
    state: State
    sensitivity: Array
    trace: list[float] = field(default_factory=list)
    converged: bool = True
    exact: bool = True
    agreeing: tuple[int, int] = (1, 1)


def find_mode(density: InverseDensity, *, starts: int = 3, seed: int = 0, iterations: int = 100) -> Mode:
    """Maximise by Levenberg-Marquardt steps from several starts.

    Args:
        density: What is maximised.
        starts: The first is the middle of the priors, the others are drawn.
        seed: Of the starts.
        iterations: Of each start, at most.

    Raises:
        ConvergenceError: No start has a finite density.
        NotPositiveDefiniteError: The density does not fall in every direction around its maximum, so that there is no
            normal approximation.
    """
    generator = np.random.default_rng(seed)
    found: list[tuple[float, Array, list[float], bool, State]] = []
    failure: ConvergenceError | None = None
    for k in range(starts if density.priors else 1):
        begin = density.start() if k == 0 else density.scatter(generator)
        try:
            found.append(_climb(density, begin, iterations))
        except ConvergenceError as error:
            failure = error
    if not found:
        assert failure is not None
        raise failure
    value, z, trace, converged, reached = min(found, key=lambda f: f[0])
    agreeing = sum(f[0] < value + 0.01 for f in found)
    density.starting_from(z, reached)
    _, _, gauss, state, sensitivity = density.evaluate(z)
    hessian, exact = gauss, False
    if density.dimension <= _LARGEST_HESSIAN:
        own = _hessian(density, z, gauss)
        if np.linalg.eigvalsh(own).min() > 0.0:
            hessian, exact = own, True
    return Mode(
        z, _inverse_of(hessian, density), value, state, sensitivity, trace, converged, exact, (agreeing, len(found))
    )


def _inverse_of(hessian: Array, density: InverseDensity) -> Array:
    """Covariance of the normal approximation, by a Cholesky factor of the curvature in units of its diagonal."""
    diagonal = np.diagonal(hessian)
    names = [*density.model.names, *(f"coordinate {k} of the fields" for k in range(len(hessian)))]
    if not diagonal.min() > 0.0:
        raise NotPositiveDefiniteError(
            f"the posterior density does not fall on both sides of its maximum along {names[int(np.argmin(diagonal))]}:"
            " give it a narrower prior or more observations, or use method='nuts'"
        )
    scale = 1.0 / np.sqrt(diagonal)
    try:
        factor = linalg.cho_factor(hessian * scale[:, None] * scale, lower=True)
    except linalg.LinAlgError:
        raise NotPositiveDefiniteError(
            "the curvature of the posterior density at its maximum is not positive definite: some combination of"
            f" {', '.join(density.model.names) or 'the unknown fields'} is not determined by observations and priors"
        ) from None
    covariance = linalg.cho_solve(factor, np.diag(scale)) * scale[:, None]
    return np.asarray(0.5 * (covariance + covariance.T))


def _climb(density: InverseDensity, z: Array, iterations: int) -> tuple[float, Array, list[float], bool, State]:
    value, gradient, gauss, state, _ = density.evaluate(z)
    damping, trace = 1e-3, [value]
    for _ in range(iterations):
        curvature = np.maximum(np.diagonal(gauss), 1e-8)
        matrix = gauss + damping * np.diag(curvature)
        floor = np.linalg.eigvalsh(matrix).min()
        if floor <= 0.0:  # a prior that bends the wrong way
            matrix = matrix + (1e-6 * curvature.max() - floor) * np.eye(len(z))
        step = -np.linalg.solve(matrix, gradient)
        length = float(np.abs(step).max())
        step *= min(1.0, 3.0 / max(length, 1e-300))  # three units of an unconstrained coordinate at once are enough
        try:
            trial = density.evaluate(z + step)
            better = trial[0] < value
        except ConvergenceError:
            better = False
        if better:
            decrease = value - trial[0]
            z, value, gradient, gauss, state = z + step, trial[0], trial[1], trial[2], trial[3]
            trace.append(value)
            damping = max(damping / 5.0, 1e-12)
            if decrease < 1e-10 * (1.0 + abs(value)) and length < 1e-5:
                return value, z, trace, True, state
        else:
            if length < 1e-7:
                return value, z, trace, True, state
            damping = max(damping * 6.0, 1e-6)
            if damping > 1e12:
                return value, z, trace, length < 1e-4, state
    return value, z, trace, False, state


def _hessian(density: InverseDensity, z: Array, gauss: Array) -> Array:
    """Central differences of the exact gradient, at steps of a hundredth of a standard deviation.

    They are taken along the axes of the Gauss-Newton curvature: across a ridge it is so much larger than along it that
    errors of the one would hide the other.
    """
    values, axes = np.linalg.eigh(gauss)
    widths = 1.0 / np.sqrt(np.maximum(values, 1e-8))
    rows = []
    for axis, width in zip(axes.T, widths, strict=True):
        size = 1e-2 * min(width, 1.0)
        up, down = density.evaluate(z + size * axis)[1], density.evaluate(z - size * axis)[1]
        rows.append((up - down) / (2.0 * size))
    # Symmetric in units of the widths, where entries are as exact as each other.
    matrix = (np.array(rows) @ axes) * widths[:, None] * widths
    matrix = 0.5 * (matrix + matrix.T) / widths[:, None] / widths
    return np.asarray(axes @ matrix @ axes.T)


def _middle(prior: Any) -> float | None:
    for name in ("median", "mean", "mode"):
        try:
            value = float(torch.as_tensor(getattr(prior, name)))
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            return value
    return None
