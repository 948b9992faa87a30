"""Transitions given as data: a process that is not reversible, and transitions that are not even stationary.

A driver x decays and is kicked by noise; the response r follows it: x' = -x / tau1 + noise, r' = (x - r) / tau2. The
state is (r, x), and r is observed. With the transition transposed, or multiplied from the other side, every number
here changes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

from gpkit.recursions import linear
from gpkit.recursions.series import evidence, log_likelihood, merge_times, smooth
from gpkit.recursions.structure import GIVEN
from tests import oracles
from tests.recursions.cases import Array, close, make

TAU1, TAU2, SCALE = 1.7, 0.6, 1.2
DRIFT = np.array([[-1.0 / TAU2, 1.0 / TAU2], [0.0, -1.0 / TAU1]])


def stationary() -> Array:
    """From the Lyapunov equation; noise enters the driver only, whose variance is SCALE^2."""
    return scipy.linalg.solve_continuous_lyapunov(DRIFT, -np.diag([0.0, 2.0 * SCALE**2 / TAU1]))


def transitions(times: Array) -> Array:
    """Rows of exp(F dt), the last one not used."""
    steps = np.append(np.diff(times), 0.0)
    return np.stack([scipy.linalg.expm(DRIFT * step).reshape(-1) for step in steps])


def parameters(covariance: Array) -> Array:
    return np.concatenate([covariance[:, 0], covariance.reshape(-1)])


def response_covariance(lag: float) -> float:
    """Directly from the response function: r(t) is the integral of e^(-u / tau2) / tau2 x(t - u) over u > 0."""

    def inner(u: float) -> float:
        # Over the other delay v, split where the driver's covariance e^(-|lag - u + v| / tau1) has its kink.
        kink = max(u - lag, 0.0)
        rate1, rate2 = 1.0 / TAU1, 1.0 / TAU2
        start = lag - u
        before = 0.0
        if kink > 0.0:
            # For v < kink the argument start + v is negative.
            before = math.exp(start * rate1) * (1.0 - math.exp(-(rate2 - rate1) * kink)) / (rate2 - rate1)
        after = math.exp(-(start + kink) * rate1 - kink * rate2) / (rate1 + rate2)
        return rate2 * (before + after) * math.exp(-u * rate2) * rate2

    first, _ = scipy.integrate.quad(inner, 0.0, lag, epsabs=1e-13, epsrel=1e-12)
    second, _ = scipy.integrate.quad(inner, lag, lag + 60.0 * TAU2, epsabs=1e-13, epsrel=1e-12, limit=200)
    return SCALE**2 * (first + second)


def response_matrix(times: Array) -> Array:
    """From the closed form of the same integral, which the tests check first."""
    lag = np.abs(times[:, None] - times[None, :])
    return SCALE**2 * TAU1 * (TAU1 * np.exp(-lag / TAU1) - TAU2 * np.exp(-lag / TAU2)) / (TAU1**2 - TAU2**2)


def chain(covariance: Array, steps: Array) -> Array:
    """Dense k(t2, t1) = h^T A(t1, t2) P h for any transitions."""
    n, size = steps.shape[0], covariance.shape[0]
    out = np.zeros((n, n))
    for j in range(n):
        state = covariance[:, 0]
        for i in range(j, n):
            out[i, j] = out[j, i] = state[0]
            state = steps[i].reshape(size, size) @ state
    return out


@pytest.mark.parametrize("lag", [0.0, 0.2, 1.0, 4.0])
def test_convention_is_that_of_the_process(lag: float) -> None:
    direct = response_covariance(lag)
    closed = response_matrix(np.array([0.0, lag]))[0, 1]
    assert closed == pytest.approx(direct, rel=1e-9)
    covariance, step = stationary(), scipy.linalg.expm(DRIFT * lag)
    assert (step @ covariance)[0, 0] == pytest.approx(direct, rel=1e-9)
    if lag > 0.0:
        # The other orderings are different functions: the tests below can tell them apart.
        assert abs((step.T @ covariance)[0, 0] - direct) > 0.01


@pytest.mark.parametrize("n", [1, 2, 30, 49, 300])
def test_evidence_against_dense(n: int) -> None:
    data = make(n, seed=111)
    given, params = transitions(data.times)[None], parameters(stationary())
    found = evidence(GIVEN, params, data.times, data.values, data.noise, given=given, weights=(0.4, 1.7))
    matrix = response_matrix(data.times) + np.diag(data.noise)
    solved = np.linalg.solve(matrix, data.values)
    inverse = np.linalg.inv(matrix)
    assert found.failed.tolist() == [-1]
    assert found.inv_quad[0] == pytest.approx(data.values @ solved, rel=1e-12)
    assert found.logdet[0] == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-12)
    close(found.alpha[0], solved, 1e-12, "alpha")
    close(found.kappa[0], np.diag(inverse), 1e-12, "kappa")


@pytest.mark.parametrize("n", [20, 70])
def test_likelihood_and_posterior_against_kalman(n: int) -> None:
    data = make(n, seed=112)
    new_times = np.linspace(-1.0, data.times[-1] + 1.0, 23)
    union, old, _ = merge_times(data.times, new_times)
    values, noise = np.zeros(union.size), np.full(union.size, np.inf)
    values[old], noise[old] = data.values, data.noise
    model = oracles.StateSpace(DRIFT, np.array([1.0, 0.0]), stationary())
    smoothed = oracles.kalman(model, union, values, noise)
    given, params = transitions(union)[None], parameters(stationary())
    value = log_likelihood(GIVEN, params, union, values, noise, given=given)[0]
    assert value == pytest.approx(smoothed.log_likelihood, rel=1e-12)
    mean, variance, failed = smooth(GIVEN, params, union, values, noise, given=given)
    assert failed.tolist() == [-1]
    close(mean[0], smoothed.mean, 1e-9, "mean")
    close(variance[0], smoothed.variance, 1e-9, "variance")


@pytest.mark.parametrize("batch", [1, 7, 9, 20])
@pytest.mark.parametrize("n", [25, 60])
def test_batches_of_transitions(batch: int, n: int) -> None:
    """A transition per series and step, of no particular process, with ragged lengths."""
    rng = np.random.default_rng((113, batch, n))
    size = 3
    root = rng.normal(size=(size, size))
    covariance = root @ root.T + 0.5 * np.eye(size)
    # Contractions in the metric of the covariance, so that every series is a valid process.
    whitener = np.linalg.cholesky(covariance)
    orthogonal = np.linalg.qr(rng.normal(size=(batch, n, size, size)))[0]
    shrunk = orthogonal * rng.uniform(0.3, 0.95, (batch, n, 1, 1))
    given = np.ascontiguousarray((whitener @ shrunk @ np.linalg.inv(whitener)).reshape(batch, n, size * size))
    values, noise = rng.normal(size=(batch, n)), rng.uniform(0.05, 0.5, (batch, n))
    lengths = rng.integers(1, n + 1, batch)
    lengths[0] = n
    times = np.arange(float(n))
    found = evidence(GIVEN, parameters(covariance), times, values, noise, given=given, lengths=lengths)
    mean, variance, _ = smooth(GIVEN, parameters(covariance), times, values, noise, given=given, lengths=lengths)
    for b in range(batch):
        m = int(lengths[b])
        kernel = chain(covariance, given[b, :m])
        matrix = kernel + np.diag(noise[b, :m])
        solved = np.linalg.solve(matrix, values[b, :m])
        assert found.failed[b] == -1
        assert found.inv_quad[b] == pytest.approx(values[b, :m] @ solved, rel=1e-12)
        assert found.logdet[b] == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-12, abs=1e-12)
        close(found.alpha[b, :m], solved, 1e-11, "alpha")
        close(mean[b, :m], kernel @ solved, 1e-11, "mean")
        close(variance[b, :m], np.diag(kernel - kernel @ np.linalg.solve(matrix, kernel)), 1e-11, "variance")
        # Times only label the rows, and a transition behind the end is nobody's.
        assert found.given is not None
        assert not found.given[b, max(m - 1, 0) :].any()


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("n", [7, 52])
def test_derivatives_against_finite_differences(n: int, batch: int) -> None:
    data = make(n, seed=114)
    covariance = stationary()
    given = transitions(data.times)
    params = parameters(covariance)
    found = evidence(GIVEN, params, data.times, np.tile(data.values, (batch, 1)), data.noise, given=given[None].copy())
    assert found.given is not None
    assert found.given.shape == (batch, n, 4)

    def value(prior: Array, steps: Array) -> float:
        kernel = np.zeros((n, n))
        for j in range(n):
            state = prior
            for i in range(j, n):
                kernel[i, j] = kernel[j, i] = state[0]
                state = steps[i].reshape(2, 2) @ state
        matrix = kernel + np.diag(data.noise)
        return float(-0.5 * (data.values @ np.linalg.solve(matrix, data.values) + np.linalg.slogdet(matrix)[1]))

    for k in range(2):

        def along_p(x: float, k: int = k) -> float:
            prior = covariance[:, 0].copy()
            prior[k] = x
            return value(prior, given)

        expected = oracles.finite_difference(along_p, float(covariance[k, 0]), 2e-3)
        assert found.params[:, k] == pytest.approx(np.full(batch, expected), rel=1e-7, abs=1e-8)
    # The evidence depends on p = P h alone; the rest of P_inf is bookkeeping.
    assert not found.params[:, 2:].any()
    for k in (0, 1, n // 2, n - 2):
        for entry in range(4):

            def along(x: float, k: int = k, entry: int = entry) -> float:
                steps = given.copy()
                steps[k, entry] = x
                return value(covariance[:, 0], steps)

            expected = oracles.finite_difference(along, float(given[k, entry]), 2e-3)
            assert found.given[:, k, entry] == pytest.approx(np.full(batch, expected), rel=1e-7, abs=1e-8)
    assert not found.given[:, n - 1].any()


def test_linear_algebra_of_a_given_process() -> None:
    n = 40
    data = make(n, seed=115)
    blocks = transitions(data.times).reshape(n, 1, 2, 2)
    p = stationary()[:, 0].copy()
    kernel = response_matrix(data.times)
    rhs = np.random.default_rng(116).normal(size=(n, 2))
    close(linear.multiply(blocks, p, data.noise, rhs), (kernel + np.diag(data.noise)) @ rhs, 1e-12, "product")
    gains, d, bad = linear.factor(blocks, p, data.noise, False)
    assert bad == -1
    solved = linear.upper_solve(blocks, gains, linear.lower_solve(blocks, gains, rhs) / d[:, None])
    close(solved, np.linalg.solve(kernel + np.diag(data.noise), rhs), 1e-12, "solve")


def test_transitions_must_be_given() -> None:
    data = make(5, seed=117)
    with pytest.raises((ValueError, AssertionError)):
        evidence(GIVEN, parameters(stationary()), data.times, data.values, data.noise)


def test_given_transitions_have_no_derivative_with_respect_to_times() -> None:
    n = 64
    times = np.linspace(0.0, 10.0, n)
    given = np.full((1, n, 1), np.exp(-0.1))
    for _ in range(2):
        out = evidence(GIVEN, [1.0, 1.0], times, np.sin(times), np.full(n, 0.1), given=given)
        assert (out.times == 0.0).all()
