"""Descriptions of a posterior that compiled code evaluates: parameters, priors, kernel, noise, mean and data.

:func:`build_potential` runs the model's Python code once on symbolic numbers; every later evaluation of the log density
and its gradient is one call of :mod:`gpkit.recursions.potential`, for any model, without compiling anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpkit.errors import GpkitError, InvalidDataError
from gpkit.inference import priors
from gpkit.inference.bijections import Bijection
from gpkit.inference.expressions import Expression, Operations, Tape, ops, record
from gpkit.recursions import potential as _potential
from gpkit.recursions.structure import GIVEN, Structure, marker, parameter_count

__all__ = [
    "Compiled",
    "Components",
    "ParameterSpec",
    "PotentialSpec",
    "UnsupportedKernelError",
    "build_potential",
]

Array = NDArray[np.float64]
Recorded = Callable[[Mapping[str, Expression], Operations], Sequence[Any]]
"""Code ``(values, ops) -> numbers`` that is recorded: it may do arithmetic, and call ``ops``, on named values."""


class UnsupportedKernelError(GpkitError, TypeError):
    """A kernel is not a sum of products of the factors that can be compiled."""


@dataclass(frozen=True)
class ParameterSpec:
    """One real parameter in natural units.

    Attributes:
        name: Its name in results.
        prior: A torch or GPyTorch distribution of the natural value, or None for a flat one.
        lower: Lower end of the values allowed; the prior's support narrows it further.
        upper: Upper end.
        init: Where optimisation starts; the prior's mean, or the middle of the interval, if not given.
        spread: Typical uncertainty of the unconstrained coordinate, for scattering starts and scaling steps; by
            default the prior's standard deviation where the coordinate is the parameter itself, else 1.
    """

    name: str
    prior: Any = None
    lower: float = -math.inf
    upper: float = math.inf
    init: float | None = None
    spread: float | None = None

    def bijection(self) -> Bijection:
        """Map from the unconstrained coordinate to the values that both the bounds and the prior allow."""
        low, high = priors.support(self.prior)
        try:
            return Bijection(max(self.lower, low), min(self.upper, high))
        except InvalidDataError as error:
            raise InvalidDataError(f"parameter {self.name}: {error}") from None

    def start(self) -> float:
        """Unconstrained coordinate of ``init``."""
        bijection = self.bijection()
        if self.init is not None:
            return float(bijection.inverse(self.init, f"the initial value of {self.name}"))
        mean = _moment(self.prior, "mean")
        if mean is not None and bijection.lower < mean < bijection.upper:
            return float(bijection.inverse(mean))
        return 0.0

    def scatter(self) -> float:
        """``spread`` or its default."""
        if self.spread is not None:
            return self.spread
        deviation = _moment(self.prior, "stddev") if self.bijection().kind == "real" else None
        return deviation if deviation else 1.0


def _moment(prior: Any, name: str) -> float | None:
    try:
        value = float(getattr(prior, name))
    except (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError):
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class Components:
    """What a point in parameter space says about the data, for B points.

    Attributes:
        parameters: Structure parameters of the kernel, (B, P).
        noise: Variance of every observation, (B, N).
        mean: Mean of every observation, (B, N).
        noise_coefficients: (B, W).
        mean_coefficients: (B, K).
        log_prior: (B,).
        log_jacobian: (B,).
    """

    parameters: Array
    noise: Array
    mean: Array
    noise_coefficients: Array
    mean_coefficients: Array
    log_prior: Array
    log_jacobian: Array


class Compiled:
    """The log density over coordinates u with ``z = centre + factor u``, ready to be called from any thread.

    Attributes:
        integers: What compiled code reads (see :func:`gpkit.recursions.potential.pack`).
        reals: The numbers that ``integers`` points to.
        dimension: D.
    """

    def __init__(self, integers: NDArray[np.int64], reals: Array, dimension: int) -> None:
        """Keep both arrays alive."""
        self.integers = integers
        self.reals = reals
        self.dimension = dimension

    @property
    def address(self) -> int:
        """Address to hand to :func:`gpkit.recursions.potential.callback`'s function as ``data``."""
        return int(self.integers.ctypes.data)

    def rows(self, points: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Values (B,), gradients (B, D) and return codes (B,) at ``points`` (B, D)."""
        values = np.empty(points.shape[0])
        gradients = np.empty((points.shape[0], self.dimension))
        status = np.empty(points.shape[0], dtype=np.int64)
        _potential.evaluate_rows(self.integers, self.reals, points, values, gradients, status)
        return values, gradients, status


@dataclass(frozen=True, eq=False)
class PotentialSpec:
    """A posterior over D unconstrained coordinates z; made by :func:`build_potential`.

    Attributes:
        structure: Sum of products of kernel factors.
        parameters: D descriptions, in the order of z.
        tape: z to (structure parameters, noise coefficients, mean coefficients, log prior, log Jacobian).
        natural: z to the D natural values.
        t: (N,) sorted times.
        y: (N,) observations.
        variance: (N,) variances of the measurement errors; ``inf`` marks a missing observation.
        noise_basis: (N, W).
        mean_basis: (N, K).
    """

    structure: Structure
    parameters: tuple[ParameterSpec, ...]
    tape: Tape
    natural: Tape
    t: Array
    y: Array
    variance: Array
    noise_basis: Array
    mean_basis: Array
    _compiled: dict[Any, Compiled] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out addresses, which mean nothing in another process."""
        return {**self.__dict__, "_compiled": {}}

    @property
    def dimension(self) -> int:
        """Number of unconstrained coordinates D."""
        return len(self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def start(self) -> Array:
        """Unconstrained coordinates (D,) of the initial values."""
        return np.array([parameter.start() for parameter in self.parameters])

    @property
    def spread(self) -> Array:
        """Typical scale (D,) of each unconstrained coordinate."""
        return np.array([parameter.scatter() for parameter in self.parameters])

    def compiled(
        self,
        *,
        prior: bool = True,
        jacobian: bool = True,
        centre: Array | None = None,
        factor: Array | None = None,
    ) -> Compiled:
        """The compiled density, over z or over u with ``z = centre + factor u``.

        Args:
            prior: Whether the log prior is added to the log-likelihood.
            jacobian: Whether the density is one of z (True) or of the natural parameters.
            centre: (D,).
            factor: (D, D).
        """
        key = (prior, jacobian)
        if centre is None and factor is None and key in self._compiled:
            return self._compiled[key]
        integers, reals = _potential.pack(
            marker(self.structure),
            self.tape.codes,
            self.tape.constants,
            self.tape.outputs,
            self.dimension,
            parameter_count(self.structure),
            self.t,
            self.y,
            self.variance,
            self.noise_basis,
            self.mean_basis,
            np.zeros(self.dimension) if centre is None else centre,
            np.eye(self.dimension) if factor is None else factor,
            (float(prior), float(jacobian)),
        )
        compiled = Compiled(integers, reals, self.dimension)
        if centre is None and factor is None:
            self._compiled[key] = compiled
        return compiled

    def log_density(self, z: ArrayLike, *, prior: bool = True, jacobian: bool = True) -> tuple[float, Array]:
        """Log density and gradient (D,) at ``z`` (D,); ``(-inf, zeros)`` where there is no density.

        Args:
            z: (D,).
            prior: Whether the log prior is added to the log-likelihood.
            jacobian: Whether the density is one of z (True) or of the natural parameters.
        """
        values, gradients = self.log_density_batch(
            np.asarray(z, dtype=np.float64)[None], prior=prior, jacobian=jacobian
        )
        return float(values[0]), gradients[0]

    def log_density_batch(self, z: ArrayLike, *, prior: bool = True, jacobian: bool = True) -> tuple[Array, Array]:
        """As :meth:`log_density` for ``z`` (B, D): values (B,) and gradients (B, D)."""
        points = self._points(z)
        values, gradients, _ = self.compiled(prior=prior, jacobian=jacobian).rows(points)
        return values, gradients

    def _points(self, z: ArrayLike) -> Array:
        points = np.ascontiguousarray(z, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.dimension:
            raise InvalidDataError(f"points must have shape (B, {self.dimension}), got {points.shape}")
        return points

    def to_natural(self, z: ArrayLike) -> dict[str, Array]:
        """Natural values of each parameter, shape (...), at ``z`` (..., D)."""
        points = np.asarray(z, dtype=np.float64)
        flat, _ = self.natural.forward(self._points(points.reshape(math.prod(points.shape[:-1]), points.shape[-1])))
        return {name: flat[:, k].reshape(points.shape[:-1]) for k, name in enumerate(self.names)}

    def to_unconstrained(self, values: Mapping[str, Any]) -> Array:
        """Unconstrained coordinates (..., D) of natural values, each of shape (...).

        Raises:
            InvalidDataError: if a value is missing, unknown or outside its interval.
        """
        if set(values) != set(self.names):
            raise InvalidDataError(f"values are needed for {sorted(self.names)}, got {sorted(values)}")
        columns = [p.bijection().inverse(values[p.name], p.name) for p in self.parameters]
        return np.stack(np.broadcast_arrays(*columns), axis=-1) if columns else np.empty(0)

    def components(self, z: ArrayLike) -> Components:
        """Kernel parameters, noise, mean and log prior at ``z`` (B, D)."""
        results, _ = self.tape.forward(self._points(z))
        p, w = parameter_count(self.structure), self.noise_basis.shape[1]
        noise, mean = results[:, p : p + w], results[:, p + w : -2]
        return Components(
            parameters=np.ascontiguousarray(results[:, :p]),
            noise=self.variance + noise @ self.noise_basis.T,
            mean=mean @ self.mean_basis.T,
            noise_coefficients=noise,
            mean_coefficients=mean,
            log_prior=results[:, -2],
            log_jacobian=results[:, -1],
        )


def _basis(basis: ArrayLike | None, count: int, n: int, what: str) -> Array:
    if basis is None:
        if count > 1:
            raise InvalidDataError(f"{count} coefficients of the {what} need a basis of shape ({n}, {count})")
        return np.ones((n, count))
    out = np.ascontiguousarray(basis, dtype=np.float64)
    if out.shape != (n, count) or not np.all(np.isfinite(out)):
        raise InvalidDataError(f"the basis of the {what} must be finite with shape ({n}, {count}), got {out.shape}")
    return out


def build_potential(
    structure: Structure,
    structure_parameters: Recorded,
    parameters: Sequence[ParameterSpec],
    t: ArrayLike,
    y: ArrayLike,
    variance: ArrayLike | None = None,
    *,
    noise: Recorded | None = None,
    noise_basis: ArrayLike | None = None,
    mean: Recorded | None = None,
    mean_basis: ArrayLike | None = None,
    log_density: Callable[[Mapping[str, Expression], Operations], Any] | None = None,
) -> PotentialSpec:
    """Record a model once, so that its posterior density can be evaluated by compiled code.

    Args:
        structure: Sum of products of kernel factors.
        structure_parameters: Code that gives the P structure parameters from named natural values.
        parameters: The D parameters.
        t: (N,) sorted times.
        y: (N,) observations.
        variance: (N,) variances of the measurement errors, zero if not given; ``inf`` marks a missing observation.
        noise: Code that gives W variances added to the diagonal, such as ``lambda v, ops: [v["jitter"] ** 2]``.
        noise_basis: (N, W), how much of each variance every observation has; ones if not given.
        mean: Code that gives K coefficients of the mean.
        mean_basis: (N, K), such as columns of ones and of times; ones if not given.
        log_density: Code that gives a further term of the log prior, of several parameters together.

    Raises:
        InvalidDataError: if shapes disagree.
        UnsupportedPriorError: if a prior cannot be compiled.
        UnsupportedKernelError: if the kernel cannot.
    """
    t, y = (np.ascontiguousarray(a, dtype=np.float64) for a in (t, y))
    variance = np.zeros(t.shape) if variance is None else np.ascontiguousarray(variance, dtype=np.float64)
    if t.ndim != 1 or y.shape != t.shape or variance.shape != t.shape:
        raise InvalidDataError(f"t, y and variance must be (N,), got {t.shape}, {y.shape} and {variance.shape}")
    if structure == GIVEN:
        raise UnsupportedKernelError(
            "a kernel whose transitions are given as data is not known to the compiled sampler: use method='pyro'"
        )
    names = [parameter.name for parameter in parameters]
    if len(set(names)) != len(names):
        raise InvalidDataError(f"names of parameters must differ, got {names}")
    z = Expression.inputs(len(names))
    maps = [parameter.bijection() for parameter in parameters]
    naturals = [bijection.forward(x) for bijection, x in zip(maps, z, strict=True)]
    values = dict(zip(names, naturals, strict=True))
    kernel = list(structure_parameters(values, ops))
    if len(kernel) != parameter_count(structure):
        raise InvalidDataError(f"{structure} has {parameter_count(structure)} parameters, got {len(kernel)}")
    variances = list(noise(values, ops)) if noise is not None else []
    coefficients = list(mean(values, ops)) if mean is not None else []
    log_prior = sum((priors.log_density(p.prior, values[p.name]) for p in parameters), Expression.constant(0.0))
    if log_density is not None:
        log_prior = log_prior + log_density(values, ops)
    log_jacobian = sum((b.log_jacobian(x) for b, x in zip(maps, z, strict=True)), Expression.constant(0.0))
    return PotentialSpec(
        structure=structure,
        parameters=tuple(parameters),
        tape=record([*kernel, *variances, *coefficients, log_prior, log_jacobian], len(z)),
        natural=record(naturals, len(z)),
        t=t,
        y=y,
        variance=variance,
        noise_basis=_basis(noise_basis, len(variances), t.size, "noise"),
        mean_basis=_basis(mean_basis, len(coefficients), t.size, "mean"),
    )
