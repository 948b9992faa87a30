"""Fitting and sampling a handful of positive parameters whose log likelihood is known with its gradient.

The likelihood is any object with ``parameters`` and ``value_and_gradient(theta)``, theta being logarithms of natural
values. Maximisation is by L-BFGS-B from several starts inside the parameters' bounds; the density is then approximated
by Laplace's method, which gives the evidence that models are compared by, and whitens the coordinates for NUTS.
"""

from __future__ import annotations

import math
import sys
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy.stats import qmc
from tqdm import tqdm

from gpkit.errors import ConvergenceError, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.threads import one_blas_thread

__all__ = [
    "LogDensity",
    "LogFit",
    "LogParameter",
    "laplace_points",
    "log_prior",
    "maximise_log",
    "normal_draws",
    "sample_log",
]

Array = NDArray[np.float64]

_EDGE = 1e-6
_CLIMB = 1e3


@dataclass(frozen=True)
class LogParameter:
    """A positive parameter: its name, range and log-normal prior, in natural units.

    Attributes:
        name: Name in results.
        start: Where optimisation begins.
        low: Lower bound.
        high: Upper bound.
        centre: Median of the prior.
        width: Standard deviation of the logarithm under the prior.
        unit: What it is measured in: "length", "value", "time" or "".
    """

    name: str
    start: float
    low: float
    high: float
    centre: float
    width: float
    unit: str = ""

    def __post_init__(self) -> None:
        """Check the order of the numbers."""
        if not 0.0 < self.low <= self.start <= self.high < math.inf:
            raise InvalidDataError(
                f"parameter {self.name!r} must satisfy 0 < low <= start <= high, "
                f"got low={self.low:g}, start={self.start:g}, high={self.high:g}"
            )


@runtime_checkable
class LogDensity(Protocol):
    """What can be fitted here."""

    @property
    def parameters(self) -> tuple[LogParameter, ...]:
        """The parameters, in the order of theta."""
        ...

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Log likelihood and its gradient at logarithms ``theta`` (P,).

        Raises:
            NotPositiveDefiniteError: where there is no likelihood.
        """
        ...


@dataclass(frozen=True, eq=False)
class LogFit:
    """The best of several starts.

    Attributes:
        values: Best parameters, natural units.
        theta: Their logarithms, (P,).
        log_likelihood: There.
        log_posterior: With the priors of the logarithms.
        log_evidence: Laplace's approximation of the log marginal likelihood over the parameters.
        covariance: Laplace's covariance of theta, (P, P).
        converged: Whether the best start ended at a maximum.
        at_bound: Names of parameters that ended at a bound.
        agreeing: How many starts came within 0.05 of the best.
        starts: Number of starts.
        evaluations: Evaluations of value and gradient over all starts.
        trace: Log posterior after each iteration of the best start.
        seconds: Wall time.
    """

    values: dict[str, float]
    theta: Array
    log_likelihood: float
    log_posterior: float
    log_evidence: float
    covariance: Array
    converged: bool
    at_bound: tuple[str, ...]
    agreeing: int
    starts: int
    evaluations: int
    trace: Array
    seconds: float

    def __repr__(self) -> str:
        values = ", ".join(f"{k}={v:.4g}" for k, v in self.values.items())
        state = "converged" if self.converged else "NOT CONVERGED"
        return f"LogFit({state}, ln L = {self.log_likelihood:.2f}, ln evidence = {self.log_evidence:.2f}; {values})"


def log_prior(parameters: Sequence[LogParameter], theta: Array) -> tuple[float, Array]:
    """Log density of the priors of theta, and its gradient (P,)."""
    centre = np.log([p.centre for p in parameters])
    width = np.array([p.width for p in parameters])
    z = (np.asarray(theta) - centre) / width
    value = float(-0.5 * (z @ z) - np.log(width).sum() - 0.5 * len(z) * math.log(2.0 * math.pi))
    return value, -z / width


class _Objective:
    """Minus the log posterior, with a wall that a line search can step back from."""

    def __init__(self, density: LogDensity) -> None:
        self.density = density
        self.calls = 0
        self.worst = -math.inf
        self.trace: list[float] = []

    def __call__(self, theta: Array) -> tuple[float, Array]:
        self.calls += 1
        prior, slope = log_prior(self.density.parameters, theta)
        try:
            value, gradient = self.density.value_and_gradient(theta)
        except NotPositiveDefiniteError:
            value, gradient = math.nan, slope
        total = -(value + prior)
        if not math.isfinite(total):
            base = self.worst if math.isfinite(self.worst) else 1e6
            return base + _CLIMB * (1.0 + abs(base)), np.zeros_like(theta)
        self.worst = max(self.worst, total)
        return total, -(gradient + slope)

    def record(self, intermediate_result: optimize.OptimizeResult) -> None:
        self.trace.append(-float(intermediate_result.fun))


def maximise_log(
    density: LogDensity,
    *,
    starts: int = 1,
    seed: int = 0,
    init: Sequence[Array] | None = None,
    iterations: int = 200,
) -> LogFit:
    """Find the maximum of the posterior density of the logarithms of the parameters.

    Args:
        density: Log likelihood with gradient.
        starts: Number of starts: the given ones, then points drawn from the priors.
        seed: Of the drawn starts.
        init: Points (P,) to start from; the parameters' own starts if not given.
        iterations: Limit of each start.

    Raises:
        ConvergenceError: no start found a finite density.
    """
    begun = clock.perf_counter()
    parameters = density.parameters
    low, high = np.log([p.low for p in parameters]), np.log([p.high for p in parameters])
    points = [np.asarray(p, dtype=np.float64) for p in init] if init else [np.log([p.start for p in parameters])]
    rng = np.random.default_rng(seed)
    centre, width = np.log([p.centre for p in parameters]), np.array([p.width for p in parameters])
    while len(points) < starts:
        points.append(centre + width * rng.standard_normal(len(parameters)))
    # Factors of a few dozen to a few hundred rows: waking other BLAS threads costs more than they gain.
    with one_blas_thread():
        runs = [_run(density, point, low, high, iterations) for point in points]
    runs.sort(key=lambda run: run[0])
    value, theta, converged, best = runs[0]
    try:
        log_likelihood, _ = density.value_and_gradient(theta)
    except NotPositiveDefiniteError as error:
        raise ConvergenceError(f"none of {len(runs)} starts found parameters with a finite density: {error}") from None
    prior, _ = log_prior(parameters, theta)
    with one_blas_thread():
        covariance, log_volume = _laplace(density, theta, low, high)
    return LogFit(
        values={p.name: float(v) for p, v in zip(parameters, np.exp(theta), strict=True)},
        theta=theta,
        log_likelihood=float(log_likelihood),
        log_posterior=float(log_likelihood + prior),
        log_evidence=float(log_likelihood + prior + log_volume),
        covariance=covariance,
        converged=converged,
        at_bound=tuple(
            p.name
            for p, t, a, b in zip(parameters, theta, low, high, strict=True)
            if min(t - a, b - t) <= _EDGE * (b - a)
        ),
        agreeing=sum(run[0] < value + 0.05 for run in runs),
        starts=len(runs),
        evaluations=sum(run[3].calls for run in runs),
        trace=np.array(best.trace),
        seconds=clock.perf_counter() - begun,
    )


def _run(
    density: LogDensity, point: Array, low: Array, high: Array, iterations: int
) -> tuple[float, Array, bool, _Objective]:
    """Where one start ends: minus the log posterior, the parameters, whether that is a maximum, and the way there."""
    objective = _Objective(density)
    # Starts on the edge of the box have no slope to follow where a bound is active in the wrong direction.
    inside = np.clip(point, low + 1e-3 * (high - low), high - 1e-3 * (high - low))
    result = optimize.minimize(
        objective,
        inside,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        callback=objective.record,
        options={"maxiter": iterations, "maxfun": 4 * iterations, "ftol": 1e-10, "gtol": 1e-4},
    )
    value, gradient = objective(result.x)
    slope = np.abs(result.x - np.clip(result.x - gradient, low, high)).max(initial=0.0)
    # Rounding stops the optimiser where the likelihood is flat to its own precision, which is a maximum too.
    finite = objective.worst > -math.inf and value < math.inf
    return value, result.x, bool(finite and (result.success or slope < 1e-2)), objective


def _laplace(density: LogDensity, theta: Array, low: Array, high: Array, step: float = 1e-3) -> tuple[Array, float]:
    """Covariance (P, P) of theta at the mode, and the log of the Gaussian volume around it.

    Directions of curvature below that of the prior (numerical noise, or an active bound) get the prior's width: no
    parameter is known less well than before the data.
    """
    size = len(theta)
    if not size:
        return np.zeros((0, 0)), 0.0
    prior = np.array([p.width for p in density.parameters])
    hessian = np.zeros((size, size))
    for i in range(size):
        shift = np.zeros(size)
        shift[i] = step
        ends = []
        for sign in (1.0, -1.0):
            try:
                ends.append(density.value_and_gradient(np.clip(theta + sign * shift, low, high))[1])
            except NotPositiveDefiniteError:
                ends.append(np.zeros(size))
        hessian[i] = (ends[0] - ends[1]) / (2.0 * step)
    scaled = -0.5 * (hessian + hessian.T) * np.outer(prior, prior)
    values, vectors = np.linalg.eigh(scaled)
    precision = np.maximum(values, 0.0) + 1.0
    half = prior[:, None] * vectors / np.sqrt(precision)
    log_volume = 0.5 * size * math.log(2.0 * math.pi) + float(np.log(prior).sum() - 0.5 * np.log(precision).sum())
    return half @ half.T, log_volume


def normal_draws(density: LogDensity, theta: Array, root: Array, count: int) -> Array:
    """Parameters (count, P) of equal weight from a normal law, inside the bounds.

    Pairs of opposite points of a Sobol sequence. Unlike :func:`laplace_points` it needs no likelihoods, and is of use
    for many parameters, among whose points weights would leave one. The same law gives the same draws.

    Args:
        density: Whose parameters they are.
        theta: The mean, (P,).
        root: Of the covariance, (P, P), such as a Cholesky factor.
        count: How many, twice a power of 2.
    """
    z = special.ndtri(qmc.Sobol(len(theta), seed=0).random(count // 2))
    low, high = np.log([p.low for p in density.parameters]), np.log([p.high for p in density.parameters])
    return np.clip(theta + np.concatenate([z, -z]) @ root.T, low, high)


def laplace_points(density: LogDensity, fit: LogFit, count: int) -> tuple[Array, Array]:
    """A few parameters (S, P) with weights (S,) that stand for the posterior around a fit.

    Points of a Sobol sequence under Laplace's normal approximation, weighted by what the posterior density is there
    relative to that approximation; points outside of the bounds, or without a likelihood, are left out. The same fit
    gives the same points.

    Args:
        density: What was fitted.
        fit: Its mode and Laplace's covariance.
        count: How many, a power of 2.
    """
    size = len(fit.theta)
    if not size or count < 2:
        return fit.theta[None], np.ones(1)
    z = special.ndtri(qmc.Sobol(size, seed=0).random(count))
    factor = np.linalg.cholesky(fit.covariance + 1e-12 * np.eye(size))
    low, high = np.log([p.low for p in density.parameters]), np.log([p.high for p in density.parameters])
    points = fit.theta + z @ factor.T
    log_weights = np.full(count, -np.inf)
    for k in np.flatnonzero(((points >= low) & (points <= high)).all(1)):
        try:
            value = density.value_and_gradient(points[k])[0] + log_prior(density.parameters, points[k])[0]
        except NotPositiveDefiniteError:
            continue
        log_weights[k] = value + 0.5 * float(z[k] @ z[k])
    kept = np.isfinite(log_weights)
    if not kept.any():
        return fit.theta[None], np.ones(1)
    weights = np.exp(log_weights[kept] - log_weights[kept].max())
    return points[kept], weights / weights.sum()


def sample_log(
    density: LogDensity,
    fit: LogFit,
    *,
    draws: int = 500,
    tune: int = 300,
    chains: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Array, dict[str, NDArray[Any]]]:
    """No-U-turn draws of theta around a fit.

    The box of the bounds is mapped to all of space by a logistic function, with its Jacobian, and the result is
    whitened by the Laplace approximation.

    Args:
        density: Log likelihood with gradient.
        fit: The mode and Laplace's covariance.
        draws: Per chain, after tuning.
        tune: Draws per chain that adapt the sampler, and are discarded.
        chains: Number of chains.
        seed: Of everything random; the same seed gives the same draws.
        progress: Whether a bar is shown where stderr is a terminal.

    Returns:
        Draws of theta (chains, draws, P), and statistics (chains, draws) under ArviZ's names.

    Raises:
        InvalidDataError: if there is nothing to sample.
    """
    from gpkit.inference.nuts import sample_rows

    if not density.parameters or min(draws, chains) < 1 or tune < 1:
        raise InvalidDataError(
            f"sampling needs a parameter, a chain and a draw: got {len(density.parameters)} parameters, "
            f"{chains} chains, {draws} draws after {tune}"
        )
    with tqdm(
        total=chains * (draws + tune), unit="draw", desc="sampling", disable=not (progress and sys.stderr.isatty())
    ) as bar:
        transformed = _Transformed(density, fit, bar)
        u, statistics = sample_rows(transformed, draws=draws, tune=tune, chains=chains, seed=seed)
    return transformed.theta(u), statistics


class _Transformed:
    """The log posterior in whitened coordinates u: z = z0 + F u, theta = low + (high - low) logistic(z)."""

    def __init__(self, density: LogDensity, fit: LogFit, bar: Any) -> None:
        self.density, self.bar = density, bar
        self.low = np.log([p.low for p in density.parameters])
        self.high = np.log([p.high for p in density.parameters])
        self.span = self.high - self.low
        share = np.clip((fit.theta - self.low) / self.span, 1e-3, 1.0 - 1e-3)
        self.z0 = np.log(share) - np.log1p(-share)
        slope = self.span * share * (1.0 - share)
        self.factor = np.linalg.cholesky(fit.covariance / np.outer(slope, slope) + 1e-12 * np.eye(len(share)))

    @property
    def dimension(self) -> int:
        return len(self.z0)

    def theta(self, u: Array) -> Array:
        """Logarithms of the parameters at coordinates (..., P)."""
        z = self.z0 + u @ self.factor.T
        return self.low + self.span / (1.0 + np.exp(-z))

    def rows(self, points: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Values (S,), gradients (S, P) and status (S,) of rows (S, P)."""
        values, gradients = np.zeros(len(points)), np.zeros_like(points)
        status = np.zeros(len(points), dtype=np.int64)
        for row, point in enumerate(points):
            z = self.z0 + self.factor @ point
            share = 1.0 / (1.0 + np.exp(-z))
            theta = self.low + self.span * share
            try:
                value, gradient = self.density.value_and_gradient(theta)
            except NotPositiveDefiniteError:
                status[row] = 1
                continue
            prior, slope = log_prior(self.density.parameters, theta)
            with np.errstate(divide="ignore"):  # at an end of a range the density is zero
                jacobian = float(np.log(self.span * share * (1.0 - share)).sum())
            values[row] = value + prior + jacobian
            inner = (gradient + slope) * self.span * share * (1.0 - share) + (1.0 - 2.0 * share)
            gradients[row] = self.factor.T @ inner
            status[row] = 0 if np.isfinite(values[row]) else 1
        return values, gradients, status
