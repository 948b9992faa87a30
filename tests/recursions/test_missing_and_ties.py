"""Infinite noise, repeated times, extreme gaps and zero noise."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from gpkit.recursions.series import evidence, log_likelihood
from tests import oracles
from tests.recursions.cases import CASES, FEW, NAMES, Data, close, make, sequential


@pytest.mark.parametrize("n", [12, 200])
@pytest.mark.parametrize("name", NAMES)
def test_infinite_noise_is_deletion(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=41)
    rng = np.random.default_rng(42)
    noise = data.noise.copy()
    gone = rng.random(n) < 0.4
    gone[[0, n - 1]] = True
    noise[gone] = np.inf
    values = np.where(gone, 1e6, data.values)  # whatever stands there
    found = evidence(structure, params, data.times, values, noise)
    kept = Data(data.times[~gone], data.values[~gone], data.noise[~gone])
    expected = sequential(structure, params, kept)
    assert found.failed.tolist() == [-1]
    assert found.inv_quad[0] == pytest.approx(expected.inv_quad[0], rel=1e-12)
    assert found.logdet[0] == pytest.approx(expected.logdet[0], rel=1e-12)
    for key in ("alpha", "kappa", "times"):
        full = getattr(found, key)[0]
        close(full[~gone], getattr(expected, key)[0], 1e-11, key)
        assert np.max(np.abs(full[gone])) <= 1e-12 * np.max(np.abs(full)), key
    close(found.params[0] * params, expected.params[0] * params, 1e-11, "parameters")
    likelihood = log_likelihood(structure, params, data.times, values, noise)[0]
    assert likelihood == pytest.approx(
        log_likelihood(structure, params, kept.times, kept.values, kept.noise)[0], rel=1e-12
    )


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("n", [1, 6, 100])
@pytest.mark.parametrize("name", FEW)
def test_nothing_but_infinite_noise(name: str, n: int, batch: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=43)
    noise = np.full((batch, n), np.inf)
    found = evidence(structure, params, data.times, data.values, noise)
    for array in (found.inv_quad, found.logdet, found.alpha, found.kappa, found.params, found.times):
        assert not array.any()
    assert found.failed.tolist() == [-1] * batch
    assert log_likelihood(structure, params, data.times, data.values, noise).tolist() == [0.0] * batch


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [15, 90])
def test_repeated_times(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=44)
    times = np.repeat(data.times[::3], 3)[:n]
    dense = oracles.evidence(structure, params, times, data.values, data.noise)
    found = evidence(structure, params, times, data.values, data.noise)
    assert found.inv_quad[0] == pytest.approx(dense.inv_quad, rel=1e-12)
    assert found.logdet[0] == pytest.approx(dense.logdet, rel=1e-12, abs=1e-12)
    close(found.alpha[0], dense.alpha, 1e-12, "alpha")
    close(found.kappa[0], dense.kappa, 1e-12, "kappa")
    close(found.params[0] * params, dense.params * params, 1e-11, "parameters")
    close(found.times[0], dense.times, 1e-11, "times")


@pytest.mark.parametrize("name", FEW)
def test_ties_are_weighted_means(name: str) -> None:
    """Two values at one time equal their inverse-variance mean, up to a known constant."""
    structure, params = CASES[name]
    data = make(40, seed=45, span=300.0)
    weight = 1.0 / data.noise
    pair = weight[19] + weight[20]
    assert data.times[19] == data.times[20]
    merged = Data(np.delete(data.times, 20), np.delete(data.values, 20).copy(), np.delete(data.noise, 20).copy())
    merged.values[19] = (weight[19] * data.values[19] + weight[20] * data.values[20]) / pair
    merged.noise[19] = 1.0 / pair
    gap = data.values[19] - data.values[20]
    spread = data.noise[19] + data.noise[20]
    constant = -0.5 * (gap**2 / spread + np.log(2 * np.pi * spread))
    whole = log_likelihood(structure, params, data.times, data.values, data.noise)[0]
    parts = log_likelihood(structure, params, merged.times, merged.values, merged.noise)[0] + constant
    assert whole == pytest.approx(parts, rel=1e-12)


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("n", [4, 60])
@pytest.mark.parametrize("name", NAMES)
def test_all_times_equal(name: str, n: int, batch: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=46)
    times = np.full(n, 3.0)
    dense = oracles.evidence(structure, params, times, data.values, data.noise)
    found = evidence(structure, params, times, np.tile(data.values, (batch, 1)), data.noise)
    for b in range(batch):
        assert found.inv_quad[b] == pytest.approx(dense.inv_quad, rel=1e-12)
        assert found.logdet[b] == pytest.approx(dense.logdet, rel=1e-12)
        close(found.alpha[b], dense.alpha, 1e-12, "alpha")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gaps", [(1e-12,), (1e12,), (1e-12, 1e12, 0.7), (1e-300, 1e15, 1.0, 0.0)])
@pytest.mark.parametrize("n", [9, 70])
def test_extreme_gaps(name: str, gaps: tuple[float, ...], n: int) -> None:
    structure, params = CASES[name]
    steps = np.resize(gaps, n - 1)
    # Time runs from zero, where small gaps are exact; a gap that rounds to nothing is a tie.
    times = np.concatenate([[0.0], np.cumsum(steps)])
    data = make(n, seed=47)
    dense = oracles.evidence(structure, params, times, data.values, data.noise)
    found = evidence(structure, params, times, data.values, data.noise)
    assert found.failed.tolist() == [-1]
    assert found.inv_quad[0] == pytest.approx(dense.inv_quad, rel=1e-11)
    assert found.logdet[0] == pytest.approx(dense.logdet, rel=1e-11)
    close(found.alpha[0], dense.alpha, 1e-11, "alpha")
    close(found.kappa[0], dense.kappa, 1e-11, "kappa")
    # With all points (nearly) at one time the derivatives are small differences of large sums.
    close(found.params[0] * params, dense.params * params, 1e-9, "parameters")
    assert np.max(np.abs(found.times[0] - dense.times)) <= 1e-10 * max(1.0, np.abs(dense.times).max())


@pytest.mark.parametrize("name", NAMES)
def test_gap_beyond_all_memory_splits_the_series(name: str) -> None:
    structure, params = CASES[name]
    first, second = make(30, seed=48), make(41, seed=49)
    times = np.concatenate([first.times, 1e7 + second.times])
    whole = log_likelihood(
        structure,
        params,
        times,
        np.concatenate([first.values, second.values]),
        np.concatenate([first.noise, second.noise]),
    )[0]
    second_times = times[30:] - 1e7  # with the rounding they suffered
    parts = log_likelihood(structure, params, first.times, first.values, first.noise)[0]
    parts += log_likelihood(structure, params, second_times, second.values, second.noise)[0]
    assert whole == pytest.approx(parts, rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_zero_noise(name: str) -> None:
    """Interpolation: strictly increasing times, values drawn from the process itself."""
    structure, params = CASES[name]
    n = 12
    # Far enough apart for a well-conditioned matrix: a sixth of a decade per step of the smoothest.
    times = np.cumsum(np.random.default_rng(50).uniform(1.5, 3.0, n))
    with mpmath.workdps(40):
        lower = np.array(
            [
                [float(x) for x in row] + [0.0] * (n - len(row))
                for row in oracles.mp_cholesky(structure, params, times, np.zeros(n))
            ]
        )
        values = lower @ np.random.default_rng(51).normal(size=n)
        exact = float(oracles.mp_log_likelihood(structure, params, times, values, np.zeros(n)))
    pivots = np.diag(lower) ** 2
    signal = float(oracles.autocovariance(structure, params, np.array(0.0)))
    allowed = 1e-13 + 1e-14 * signal / pivots.min()
    found = evidence(structure, params, times, values, np.zeros(n))
    assert found.failed.tolist() == [-1]
    value = -0.5 * (found.inv_quad[0] + found.logdet[0] + n * np.log(2 * np.pi))
    assert value == pytest.approx(exact, abs=allowed * max(1.0, abs(exact)))
    dense = oracles.evidence(structure, params, times, values, np.zeros(n))
    close(found.alpha[0], dense.alpha, 100 * allowed, "alpha")
    close(found.kappa[0], dense.kappa, 100 * allowed, "kappa")


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("n", [6, 80])
def test_random_walk_without_noise_at_tiny_gaps(n: int, batch: int) -> None:
    """A Markov process in one dimension: the exact answer is a product of two-point conditionals."""
    rate, variance = 0.7, 1.3
    rng = np.random.default_rng(52)
    times = np.concatenate([[0.0], np.cumsum(10.0 ** rng.uniform(-6, 1, n - 1))])
    step = np.diff(times)
    values = np.zeros(n)
    spread = -variance * np.expm1(-2 * rate * step)
    values[0] = np.sqrt(variance)
    for k in range(1, n):
        values[k] = np.exp(-rate * step[k - 1]) * values[k - 1] + np.sqrt(spread[k - 1]) * rng.normal()
    residual = values[1:] - np.exp(-rate * step) * values[:-1]
    quad = values[0] ** 2 / variance + np.sum(residual**2 / spread)
    logdet = np.log(variance) + np.sum(np.log(spread))
    found = evidence((("exponential",),), [variance, rate], times, np.tile(values, (batch, 1)), np.zeros(n))
    assert found.failed.tolist() == [-1] * batch
    # Innovation variances near 1e-6 carry ten digits, since they are differences of order one.
    assert found.inv_quad == pytest.approx(np.full(batch, quad), rel=1e-8)
    assert found.logdet == pytest.approx(np.full(batch, logdet), rel=1e-8)
