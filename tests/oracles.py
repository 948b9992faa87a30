"""Independent oracles, written from the formulas and not from the library.

* Dense covariances in numpy, with derivatives by the complex step, so that they are good to machine precision.
* State-space matrices with process noise, a textbook Kalman filter and a Rauch-Tung-Striebel smoother.
* The same covariances and log-likelihoods in mpmath, at as many digits as asked for.
* Finite differences with Richardson extrapolation.

A structure is a sum (outer tuple) of products (inner tuples) of factor names; parameters are listed per term, the
variance first, then those of each factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[Any]
Structure = tuple[tuple[str, ...], ...]

PARAMETERS = {"exponential": 1, "sho": 2, "matern32": 1, "matern52": 1, "celerite": 4}
DIMENSIONS = {"exponential": 1, "sho": 2, "matern32": 2, "matern52": 3, "celerite": 2}
_COMPLEX_STEP = 1e-30


def terms(structure: Structure, params: Sequence[Any]) -> Iterator[tuple[Any, list[tuple[str, list[Any]]]]]:
    """Variance and named factor parameters of every term."""
    at = 0
    for term in structure:
        variance = params[at]
        at += 1
        factors = []
        for name in term:
            factors.append((name, list(params[at : at + PARAMETERS[name]])))
            at += PARAMETERS[name]
        yield variance, factors
    assert at == len(params)


# ---------------------------------------------------------------------------------------------------- dense, in numpy


def _sho(lag: Array, frequency: Any, quality: Any) -> Array:
    """Correlation ``e^(-beta x) (cosh(r x) + beta sinh(r x) / r)``, ``r^2 = beta^2 - 1``, for complex arguments too."""
    x = frequency * lag
    beta = 0.5 / quality
    mu = (beta - 1.0) * (beta + 1.0)
    z = mu * x * x
    near = np.abs(z) < 0.5
    inner = np.where(near, z, 0.0)
    even = sum(inner**k / math.factorial(2 * k) for k in range(10))
    odd = sum(inner**k / math.factorial(2 * k + 1) for k in range(10))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        inside = np.exp(-beta * x) * (even + beta * x * odd)
        if np.real(mu) > 0.0:
            r = np.sqrt(mu)
            lost = -np.expm1(-2.0 * r * x)
            outside = np.exp(-x / (beta + r)) * (1.0 - 0.5 * lost + 0.5 * beta * lost / r)
        else:
            r = np.sqrt(-mu)
            outside = np.exp(-beta * x) * (np.cos(r * x) + beta * np.sin(r * x) / r)
    return np.where(near, inside, outside)


def _factor(name: str, lag: Array, values: Sequence[Any]) -> Array:
    if name == "exponential":
        return np.exp(-values[0] * lag)
    if name == "sho":
        return _sho(lag, values[0], values[1])
    if name == "matern32":
        return (1.0 + values[0] * lag) * np.exp(-values[0] * lag)
    if name == "matern52":
        x = values[0] * lag
        return (1.0 + x + x * x / 3.0) * np.exp(-x)
    a, b, c, d = values
    return np.exp(-c * lag) * (a * np.cos(d * lag) + b * np.sin(d * lag))


def autocovariance(structure: Structure, params: Sequence[Any], lag: Array) -> Array:
    """Covariance at lags >= 0."""
    total: Any = 0.0
    for variance, factors in terms(structure, params):
        product: Any = variance
        for name, values in factors:
            product = product * _factor(name, lag, values)
        total = total + product
    return np.asarray(total)


def covariance(structure: Structure, params: Sequence[Any], first: Array, second: Array) -> Array:
    """Covariance matrix between two sets of times, without noise."""
    return autocovariance(structure, params, np.abs(first[:, None] - second[None, :]))


@dataclass(frozen=True)
class DenseEvidence:
    """What the fast evidence should return, computed from the dense matrix."""

    inv_quad: float
    logdet: float
    alpha: Array
    kappa: Array
    params: Array
    times: Array
    log_likelihood: float


def evidence(
    structure: Structure,
    params: Sequence[float],
    times: Array,
    values: Array,
    noise: Array,
    weights: tuple[float, float] = (1.0, 1.0),
) -> DenseEvidence:
    """Quadratic form, log-determinant and derivatives of ``-(w_q inv_quad + w_d logdet) / 2``.

    Rows with infinite noise are deleted. The derivative with respect to repeated times is the one-sided one that
    keeps their order.
    """
    seen = np.flatnonzero(np.isfinite(noise))
    n = seen.size
    t, y = times[seen], values[seen]
    lag = np.abs(t[:, None] - t[None, :])
    matrix = autocovariance(structure, np.asarray(params, dtype=float), lag) + np.diag(noise[seen])
    factor = scipy.linalg.cho_factor(matrix, lower=True)
    inverse = scipy.linalg.cho_solve(factor, np.eye(n))
    solved = scipy.linalg.cho_solve(factor, y)
    quad = float(y @ solved)
    logdet = float(2.0 * np.log(np.diag(factor[0])).sum())
    cotangent = 0.5 * (weights[0] * np.outer(solved, solved) - weights[1] * inverse)
    grad = np.zeros(len(params))
    for k in range(len(params)):
        moved = np.asarray(params, dtype=complex)
        moved[k] += 1j * _COMPLEX_STEP
        grad[k] = np.sum(cotangent * np.imag(autocovariance(structure, moved, lag)) / _COMPLEX_STEP)
    slope = np.imag(autocovariance(structure, np.asarray(params, dtype=float), lag + 1j * _COMPLEX_STEP))
    slope = slope / _COMPLEX_STEP
    later = np.sign(np.arange(n)[:, None] - np.arange(n)[None, :])
    out = DenseEvidence(
        inv_quad=quad,
        logdet=logdet,
        alpha=np.zeros(times.size),
        kappa=np.zeros(times.size),
        params=grad,
        times=np.zeros(times.size),
        log_likelihood=-0.5 * (quad + logdet + n * math.log(2.0 * math.pi)),
    )
    out.alpha[seen] = solved
    out.kappa[seen] = np.diag(inverse)
    out.times[seen] = 2.0 * np.sum(cotangent * slope * later, axis=1)
    return out


def posterior(
    structure: Structure, params: Sequence[float], times: Array, values: Array, noise: Array, new_times: Array
) -> tuple[Array, Array]:
    """Mean and full covariance of the latent function at new times."""
    seen = np.isfinite(noise)
    matrix = covariance(structure, params, times[seen], times[seen]) + np.diag(noise[seen])
    cross = covariance(structure, params, new_times, times[seen])
    factor = scipy.linalg.cho_factor(matrix, lower=True)
    mean = cross @ scipy.linalg.cho_solve(factor, values[seen])
    half = scipy.linalg.solve_triangular(factor[0], cross.T, lower=True)
    return mean, covariance(structure, params, new_times, new_times) - half.T @ half


# -------------------------------------------------------------------------------------------------------- state space


@dataclass(frozen=True)
class StateSpace:
    """``dx = F x dt + noise``, observed as ``h^T x``, with stationary covariance ``P``."""

    drift: Array
    h: Array
    stationary: Array


def _factor_state_space(name: str, values: Sequence[float]) -> StateSpace:
    one = np.array([1.0])
    if name == "exponential":
        return StateSpace(np.array([[-values[0]]]), one, np.eye(1))
    if name in ("sho", "matern32"):
        frequency, quality = (values[0], values[1]) if name == "sho" else (values[0], 0.5)
        drift = np.array([[0.0, 1.0], [-(frequency**2), -frequency / quality]])
        return StateSpace(drift, np.array([1.0, 0.0]), np.diag([1.0, frequency**2]))
    if name == "matern52":
        rate = values[0]
        drift = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-(rate**3), -3.0 * rate**2, -3.0 * rate]])
        second = rate**2 / 3.0
        stationary = np.array([[1.0, 0.0, -second], [0.0, second, 0.0], [-second, 0.0, rate**4]])
        return StateSpace(drift, np.array([1.0, 0.0, 0.0]), stationary)
    # A celerite term as the rational spectrum (b0^2 + b1^2 w^2) / |(iw)^2 + 2 c iw + c^2 + d^2|^2.
    a, b, c, d = values
    square = c * c + d * d
    drift = np.array([[0.0, 1.0], [-square, -2.0 * c]])
    h = np.array([math.sqrt(2.0 * (a * c + b * d) * square), math.sqrt(2.0 * (a * c - b * d))])
    return StateSpace(drift, h, np.diag([1.0 / (4.0 * c * square), 1.0 / (4.0 * c)]))


def state_space(structure: Structure, params: Sequence[float]) -> StateSpace:
    """Companion-form state space: Kronecker products of factors, block-diagonal sums of terms."""
    blocks = []
    for variance, factors in terms(structure, params):
        drift, h, stationary = np.zeros((1, 1)), np.ones(1), np.full((1, 1), variance)
        for name, values in factors:
            factor = _factor_state_space(name, values)
            drift = np.kron(drift, np.eye(factor.h.size)) + np.kron(np.eye(h.size), factor.drift)
            h, stationary = np.kron(h, factor.h), np.kron(stationary, factor.stationary)
        blocks.append((drift, h, stationary))
    return StateSpace(
        scipy.linalg.block_diag(*(block[0] for block in blocks)),
        np.concatenate([block[1] for block in blocks]),
        scipy.linalg.block_diag(*(block[2] for block in blocks)),
    )


@dataclass(frozen=True)
class Kalman:
    """Output of the filter and the smoother."""

    log_likelihood: float
    innovations: Array
    variances: Array
    mean: Array
    variance: Array


def kalman(model: StateSpace, times: Array, values: Array, noise: Array) -> Kalman:
    """Textbook filter and Rauch-Tung-Striebel smoother; rows with infinite noise are predicted, not used."""
    n, size = times.size, model.h.size
    mean, cov = np.zeros(size), model.stationary
    predicted, filtered, steps = [], [], []
    innovations, variances = np.full(n, np.nan), np.full(n, np.inf)
    total = 0.0
    for k in range(n):
        if k > 0:
            step = scipy.linalg.expm(model.drift * (times[k] - times[k - 1]))
            mean = step @ mean
            cov = step @ cov @ step.T + (model.stationary - step @ model.stationary @ step.T)
            steps.append(step)
        predicted.append((mean, cov))
        if np.isfinite(noise[k]):
            innovations[k] = values[k] - model.h @ mean
            variances[k] = model.h @ cov @ model.h + noise[k]
            gain = cov @ model.h / variances[k]
            mean = mean + gain * innovations[k]
            joseph = np.eye(size) - np.outer(gain, model.h)
            cov = joseph @ cov @ joseph.T + noise[k] * np.outer(gain, gain)
            total -= 0.5 * (innovations[k] ** 2 / variances[k] + math.log(2.0 * math.pi * variances[k]))
        filtered.append((mean, cov))
    out_mean, out_variance = np.zeros(n), np.zeros(n)
    for k in range(n - 1, -1, -1):
        if k < n - 1:
            gain = filtered[k][1] @ steps[k].T @ np.linalg.pinv(predicted[k + 1][1], hermitian=True)
            mean = filtered[k][0] + gain @ (mean - predicted[k + 1][0])
            cov = filtered[k][1] + gain @ (cov - predicted[k + 1][1]) @ gain.T
        out_mean[k], out_variance[k] = model.h @ mean, model.h @ cov @ model.h
    return Kalman(total, innovations, variances, out_mean, out_variance)


# ------------------------------------------------------------------------------------------------------ high precision


def mp_sho_transition(x: Any, quality: Any) -> Any:
    """``exp(x [[0, 1], [-1, -1/Q]])`` in the working precision of mpmath."""
    beta = 1 / (2 * mpmath.mpf(quality))
    mu = (beta - 1) * (beta + 1)
    x = mpmath.mpf(x)
    if mu == 0:
        c, s = mpmath.exp(-beta * x), x * mpmath.exp(-beta * x)
    else:
        r = mpmath.sqrt(mu)
        c = mpmath.re((mpmath.exp((r - beta) * x) + mpmath.exp(-(r + beta) * x)) / 2)
        s = mpmath.re((mpmath.exp((r - beta) * x) - mpmath.exp(-(r + beta) * x)) / (2 * r))
    return mpmath.matrix([[c + beta * s, s], [-s, c - beta * s]])


def _mp_factor(name: str, lag: Any, values: Sequence[Any]) -> Any:
    if name == "sho":
        return mp_sho_transition(values[0] * lag, values[1])[0, 0]
    if name == "celerite":
        a, b, c, d = values
        return mpmath.exp(-c * lag) * (a * mpmath.cos(d * lag) + b * mpmath.sin(d * lag))
    x = values[0] * lag
    polynomial = {"exponential": 1, "matern32": 1 + x, "matern52": 1 + x + x * x / 3}[name]
    return polynomial * mpmath.exp(-x)


def mp_autocovariance(structure: Structure, params: Sequence[Any], lag: Any) -> Any:
    """Covariance at one lag >= 0 in the working precision of mpmath."""
    total = mpmath.mpf(0)
    for variance, factors in terms(structure, [mpmath.mpf(p) for p in params]):
        product = variance
        for name, values in factors:
            product *= _mp_factor(name, mpmath.mpf(lag), values)
        total += product
    return total


def mp_cholesky(
    structure: Structure, params: Sequence[Any], times: Sequence[Any], noise: Sequence[Any]
) -> list[list[Any]]:
    """Lower Cholesky factor of ``K + diag(noise)`` in the working precision of mpmath."""
    t = [mpmath.mpf(x) for x in times]
    lower: list[list[Any]] = []
    for i in range(len(t)):
        row: list[Any] = []
        for j in range(i + 1):
            entry = mp_autocovariance(structure, params, t[i] - t[j])
            if i == j:
                entry += mpmath.mpf(noise[i])
            for k in range(j):
                entry -= row[k] * (lower[j][k] if j < i else row[k])
            row.append(mpmath.sqrt(entry) if i == j else entry / lower[j][j])
        lower.append(row)
    return lower


def mp_log_likelihood(
    structure: Structure, params: Sequence[Any], times: Sequence[Any], values: Sequence[Any], noise: Sequence[Any]
) -> Any:
    """Gaussian log-density in the working precision of mpmath."""
    lower = mp_cholesky(structure, params, times, noise)
    total = -mpmath.log(2 * mpmath.pi) * len(lower) / 2
    white: list[Any] = []
    for row, value in zip(lower, values, strict=True):
        residual = mpmath.mpf(value) - sum((a * b for a, b in zip(row, white, strict=False)), mpmath.mpf(0))
        white.append(residual / row[-1])
        total -= white[-1] ** 2 / 2 + mpmath.log(row[-1])
    return total


def mp_derivative(function: Callable[[Any], Any], at: float) -> Any:
    """Central difference whose step is a third of the working precision, so that no digit of a float is lost."""
    step = mpmath.mpf(10) ** (-mpmath.mp.dps // 3)
    at = mpmath.mpf(at)
    return (function(at + step) - function(at - step)) / (2 * step)


# ------------------------------------------------------------------------------------------------- finite differences


def finite_difference(function: Callable[[float], float], at: float, step: float) -> float:
    """Central differences at three steps, extrapolated: the error is of sixth order in the step."""
    slopes = [(function(at + h) - function(at - h)) / (2.0 * h) for h in (step, step / 2.0, step / 4.0)]
    first = [(4.0 * slopes[k + 1] - slopes[k]) / 3.0 for k in range(2)]
    return (16.0 * first[1] - first[0]) / 15.0
