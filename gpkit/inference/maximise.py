"""Multi-start maximisation of a compiled posterior or likelihood, and its Laplace approximation.

L-BFGS-B (SciPy) moves in unconstrained coordinates with exact gradients. Each coordinate is scaled by its spread, and
bounded ones may move by a factor of e^15 from where they start, so that a likelihood without a maximum ends at a
bound, which the result names, instead of wandering off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from gpkit.errors import ConvergenceError
from gpkit.inference.potential import Compiled, PotentialSpec
from gpkit.inference.threads import one_blas_thread
from gpkit.recursions import potential as _potential

__all__ = ["Laplace", "MaximiseResult", "Start", "laplace", "maximise"]

Array = NDArray[np.float64]

_REACH = 15.0
_GRADIENT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Start:
    """One run of the optimiser.

    Attributes:
        initial: Where it started, (D,).
        z: Where it ended, (D,).
        log_density: Value there; -inf if no point with a density was found.
        converged: Whether it ended at a maximum.
        reason: Why it ended, in the optimiser's words.
        evaluations: Number of evaluations of value and gradient.
        trace: Log density after each iteration.
    """

    initial: Array
    z: Array
    log_density: float
    converged: bool
    reason: str
    evaluations: int
    trace: Array


@dataclass(frozen=True, eq=False)
class MaximiseResult:
    """The best of several starts.

    Attributes:
        z: Unconstrained coordinates of the best point, (D,).
        values: The same in natural units.
        log_density: Maximum of what was asked for (log-likelihood, plus log prior, plus log Jacobian).
        converged: Whether the best start ended at a maximum.
        at_bound: Names of parameters that ended at a bound, so that the data do not determine them.
        starts: Every start, best first.
        agreeing: How many starts came within 0.01 of the best.
    """

    z: Array
    values: dict[str, float]
    log_density: float
    converged: bool
    at_bound: tuple[str, ...]
    starts: tuple[Start, ...]
    agreeing: int

    @property
    def trace(self) -> Array:
        """Log density after each iteration of the best start."""
        return self.starts[0].trace

    @property
    def reason(self) -> str:
        """Why the best start ended."""
        return self.starts[0].reason


class _Objective:
    """Minus the log density for the optimiser, with everything allocated once."""

    def __init__(self, compiled: Compiled) -> None:
        self.arguments = (compiled.integers, compiled.reals)
        self.values = np.empty(1)
        self.gradients = np.empty((1, compiled.dimension))
        self.status = np.empty(1, dtype=np.int64)
        self.worst = np.inf
        self.trace: list[float] = []

    def __call__(self, u: Array) -> tuple[float, Array]:
        _potential.evaluate_rows(*self.arguments, u.reshape(1, -1), self.values, self.gradients, self.status)
        if self.status[0] != 0:
            # A wall that the line search steps back from: high, but finite, so that it can interpolate.
            wall = 1e10 if not np.isfinite(self.worst) else self.worst + 1e3 * (1.0 + abs(self.worst))
            return wall, np.zeros(u.shape)
        value = -float(self.values[0])
        self.worst = value if not np.isfinite(self.worst) else max(self.worst, value)
        return value, -self.gradients[0]

    def record(self, intermediate_result: optimize.OptimizeResult) -> None:
        self.trace.append(-float(intermediate_result.fun))


def _bounds(spec: PotentialSpec, centre: Array, scale: Array) -> list[tuple[float | None, float | None]]:
    bounded = [parameter.bijection().kind != "real" for parameter in spec.parameters]
    return [(-_REACH / s, _REACH / s) if b else (None, None) for b, s in zip(bounded, scale, strict=True)]


def maximise(
    spec: PotentialSpec,
    *,
    starts: int = 5,
    seed: int = 0,
    prior: bool = True,
    jacobian: bool = False,
    init: ArrayLike | None = None,
    iterations: int = 500,
) -> MaximiseResult:
    """Find the highest point of a likelihood (``prior=False``) or a posterior density.

    The first start is at the initial values, the others are scattered around them by the parameters' spreads; the same
    seed gives the same starts.

    Args:
        spec: The posterior.
        starts: Number of starts.
        seed: Seed of the scattered starts.
        prior: Whether the log prior is added: maximum a posteriori instead of maximum likelihood.
        jacobian: Whether the density is one of the unconstrained coordinates (as a Laplace approximation needs)
            instead of the natural parameters.
        init: Unconstrained coordinates to start from instead of the initial values: (D,), or (S, D) for S given starts.
        iterations: Limit of each start.

    Raises:
        ConvergenceError: if no start found a point with a finite density.
    """
    given = np.atleast_2d(spec.start if init is None else np.asarray(init, dtype=np.float64))
    centre, scale = given[0], spec.spread
    if given.shape[0] == 1:
        scatter = np.random.default_rng(seed).standard_normal((max(starts, 1) - 1, spec.dimension))
        given = np.concatenate([given, centre + scale * scatter])
    compiled = spec.compiled(prior=prior, jacobian=jacobian, centre=centre, factor=np.diag(scale))
    bounds = _bounds(spec, centre, scale)
    # L-BFGS-B solves triangles of a dozen rows, for which BLAS would wake its threads: a hundred times slower.
    with one_blas_thread():
        runs = [_run(compiled, initial, centre, scale, bounds, iterations) for initial in given]
    runs.sort(key=lambda run: -run.log_density)
    best = runs[0]
    if not np.isfinite(best.log_density):
        raise ConvergenceError(
            f"none of {len(runs)} starts found parameters with a finite density: check the data's scale"
        )
    natural = spec.to_natural(best.z)
    edge = np.abs(best.z - centre) >= _REACH * (1.0 - 1e-9)
    at_bound = tuple(
        parameter.name
        for parameter, e in zip(spec.parameters, edge, strict=True)
        if e and parameter.bijection().kind != "real"
    )
    return MaximiseResult(
        z=best.z,
        values={name: float(value) for name, value in natural.items()},
        log_density=best.log_density,
        converged=best.converged,
        at_bound=at_bound,
        starts=tuple(runs),
        agreeing=sum(run.log_density > best.log_density - 0.01 for run in runs),
    )


def _run(
    compiled: Compiled,
    initial: Array,
    centre: Array,
    scale: Array,
    bounds: list[tuple[float | None, float | None]],
    iterations: int,
) -> Start:
    objective = _Objective(compiled)
    first = (initial - centre) / scale
    if compiled.dimension == 0:
        value = -objective(first)[0]
        return Start(initial, initial, value, True, "there is nothing to optimise", 1, np.array([value]))
    result = optimize.minimize(
        objective,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        callback=objective.record,
        options={"maxiter": iterations, "maxfun": 10 * iterations, "ftol": 1e-12, "gtol": 1e-5, "maxcor": 12},
    )
    value, gradient = objective(result.x)
    finite = objective.status[0] == 0
    low = np.array([-np.inf if b[0] is None else b[0] for b in bounds])
    high = np.array([np.inf if b[1] is None else b[1] for b in bounds])
    # The optimiser also stops where rounding keeps it from improving, which is a maximum if the slope is gone.
    slope = np.abs(result.x - np.clip(result.x - gradient, low, high)).max()
    converged = bool(finite and (slope <= _GRADIENT_TOLERANCE))
    return Start(
        initial=initial,
        z=centre + scale * result.x,
        log_density=-value if finite else -np.inf,
        converged=converged,
        reason=str(result.message).strip().capitalize(),
        evaluations=int(result.nfev),
        trace=np.array(objective.trace),
    )


@dataclass(frozen=True, eq=False)
class Laplace:
    """Gaussian approximation of a posterior in unconstrained coordinates.

    Attributes:
        centre: Mode, (D,).
        covariance: (D, D).
        factor: Lower Cholesky factor of the covariance, (D, D).
        exact: Whether minus the Hessian was positive definite; if not, directions of the wrong sign or without
            curvature were given a wide but finite scale.
    """

    centre: Array
    covariance: Array
    factor: Array
    exact: bool


def laplace(spec: PotentialSpec, z: ArrayLike, *, step: float = 1e-4) -> Laplace:
    """Approximate the posterior of z around a mode, by central differences of exact gradients.

    Args:
        spec: The posterior, prior and Jacobian included.
        z: The mode (D,): ``maximise(spec, jacobian=True).z``.
        step: Of the differences, relative to the parameters' spreads.
    """
    centre, scale = np.asarray(z, dtype=np.float64), spec.spread
    d = spec.dimension
    shifts = np.concatenate([np.diag(step * scale), -np.diag(step * scale)])
    _, gradients = spec.log_density_batch(centre + shifts)
    hessian = (gradients[:d] - gradients[d:]) / (2.0 * step * scale[:, None])
    precision = -0.5 * (hessian + hessian.T) * np.outer(scale, scale)
    # In units of the spreads; a unit diagonal makes the floor of the eigenvalues independent of units.
    diagonal = np.sqrt(np.maximum(np.abs(np.diag(precision)), 1e-2))
    eigenvalues, vectors = np.linalg.eigh(precision / np.outer(diagonal, diagonal))
    floor = 1e-3
    exact = bool(np.all(eigenvalues > floor) and np.all(np.diag(precision) >= 1e-2))
    half = (scale / diagonal)[:, None] * vectors / np.sqrt(np.maximum(np.abs(eigenvalues), floor))
    covariance = half @ half.T
    return Laplace(centre, covariance, np.linalg.cholesky(covariance), exact)
