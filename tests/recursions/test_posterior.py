"""Posterior mean and variance inside, outside, between and at the data."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.recursions.series import evidence, merge_times, posterior, smooth
from tests import oracles
from tests.recursions.cases import CASES, FEW, NAMES, close, make


@pytest.mark.parametrize("n", [1, 20, 150])
@pytest.mark.parametrize("name", NAMES)
def test_everywhere_against_dense(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=81)
    rng = np.random.default_rng(82)
    first, last = data.times[0], data.times[-1]
    new_times = np.sort(
        np.concatenate(
            [
                rng.uniform(first, last, 40),
                first - rng.uniform(0, 20, 10),
                last + rng.uniform(0, 20, 10),
                data.times[::3],
                data.times[:1],
                [first - 1e9, last + 1e9, last + 1e9],
            ]
        )
    )
    mean, covariance = oracles.posterior(structure, params, data.times, data.values, data.noise, new_times)
    found_mean, found_variance, failed = posterior(structure, params, data.times, data.values, data.noise, new_times)
    assert failed.tolist() == [-1]
    assert found_mean.shape == found_variance.shape == (1, new_times.size)
    close(found_mean[0], mean, 1e-12, "mean")
    variance = np.diag(covariance)
    assert np.max(np.abs(found_variance[0] - variance)) <= 1e-12 * variance.max()
    assert np.max(np.abs(found_variance[0] / variance - 1.0)) <= 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_against_the_kalman_smoother(name: str) -> None:
    structure, params = CASES[name]
    data = make(40, seed=83)
    times = data.times + np.arange(40) * 1e-2  # without ties the smoother's gains are regular
    new_times = np.linspace(times[0] - 2.0, times[-1] + 2.0, 37)
    union, old, new = merge_times(times, new_times)
    values, noise = np.zeros(union.size), np.full(union.size, np.inf)
    values[old], noise[old] = data.values, data.noise
    smoothed = oracles.kalman(oracles.state_space(structure, params), union, values, noise)
    mean, variance, _ = posterior(structure, params, times, data.values, data.noise, new_times)
    # The textbook smoother inverts predicted covariances, which costs it digits at small steps.
    close(mean[0], smoothed.mean[new], 1e-8, "mean")
    close(variance[0], smoothed.variance[new], 1e-8, "variance")
    filtered_mean, filtered_variance, _ = smooth(structure, params, union, values, noise)
    close(filtered_mean[0], smoothed.mean, 1e-8, "mean at all rows")
    close(filtered_variance[0], smoothed.variance, 1e-8, "variance at all rows")


@pytest.mark.parametrize("n", [5, 60, 700])
@pytest.mark.parametrize("name", FEW)
def test_at_the_data(name: str, n: int) -> None:
    """Mean y - R alpha and variance R - R^2 kappa, where the evidence gives alpha and kappa."""
    structure, params = CASES[name]
    data = make(n, seed=84)
    found = evidence(structure, params, data.times, data.values, data.noise)
    mean, variance, failed = smooth(structure, params, data.times, data.values, data.noise)
    assert failed.tolist() == [-1]
    close(mean[0], data.values - data.noise * found.alpha[0], 1e-12, "mean")
    close(variance[0], data.noise - data.noise**2 * found.kappa[0], 1e-12, "variance")


@pytest.mark.parametrize("batch", [7, 8, 20])
@pytest.mark.parametrize("name", FEW)
def test_batches_of_chains_and_values(name: str, batch: int) -> None:
    structure, params = CASES[name]
    data = make(30, seed=85)
    rng = np.random.default_rng(86)
    chain = np.tile(params, (batch, 1))
    chain[:, 0] *= rng.uniform(0.5, 2.0, batch)
    values = rng.normal(size=(batch, 30))
    noise = rng.uniform(0.05, 1.0, (batch, 30))
    new_times = np.linspace(-3.0, data.times[-1] + 3.0, 25)
    mean, variance, failed = posterior(structure, chain, data.times, values, noise, new_times)
    assert failed.tolist() == [-1] * batch
    shared, _, _ = posterior(structure, chain, data.times, values[0], noise[0], new_times)
    assert shared.shape == (batch, 25)
    for b in range(batch):
        expected, covariance = oracles.posterior(structure, chain[b], data.times, values[b], noise[b], new_times)
        close(mean[b], expected, 1e-12, "mean")
        close(variance[b], np.diag(covariance), 1e-12, "variance")
        expected, _ = oracles.posterior(structure, chain[b], data.times, values[0], noise[0], new_times)
        close(shared[b], expected, 1e-12, "mean of shared values")


@pytest.mark.parametrize("name", FEW)
def test_missing_rows_inform_nothing(name: str) -> None:
    structure, params = CASES[name]
    data = make(40, seed=87)
    noise = data.noise.copy()
    noise[::4] = np.inf
    new_times = np.sort(np.concatenate([data.times[::2], [-1.0, 5.5, 90.0]]))
    values = np.where(np.isinf(noise), 1e9, data.values)
    mean, variance, _ = posterior(structure, params, data.times, values, noise, new_times)
    expected, covariance = oracles.posterior(structure, params, data.times, data.values, noise, new_times)
    close(mean[0], expected, 1e-12, "mean")
    close(variance[0], np.diag(covariance), 1e-12, "variance")


@pytest.mark.parametrize("name", FEW)
def test_interpolation_without_noise(name: str) -> None:
    structure, params = CASES[name]
    times = np.cumsum(np.random.default_rng(88).uniform(1.5, 3.0, 15))
    values = np.random.default_rng(89).normal(size=15)
    mean, variance, failed = posterior(structure, params, times, values, np.zeros(15), times)
    assert failed.tolist() == [-1]
    signal = float(oracles.autocovariance(structure, params, np.array(0.0)))
    close(mean[0], values, 1e-9, "mean")
    assert np.all(variance >= 0.0)
    assert np.max(variance) <= 1e-10 * signal


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("name", ["sho-under", "mixed-j10"])
def test_no_new_times(name: str, batch: int) -> None:
    structure, params = CASES[name]
    data = make(10, seed=90)
    chain = np.tile(params, (batch, 1))
    mean, variance, failed = posterior(structure, chain, data.times, data.values, data.noise, np.zeros(0))
    assert mean.shape == variance.shape == (batch, 0)
    assert failed.tolist() == [-1] * batch


@pytest.mark.parametrize("name", ["sho-under", "mixed-j10"])
def test_no_data_gives_the_prior(name: str) -> None:
    structure, params = CASES[name]
    empty = np.zeros(0)
    mean, variance, failed = posterior(structure, params, empty, empty, empty, np.array([0.0, 0.0, 2.0]))
    signal = float(oracles.autocovariance(structure, params, np.array(0.0)))
    assert mean.tolist() == [[0.0] * 3]
    assert variance[0] == pytest.approx(np.full(3, signal), rel=1e-15)
    assert failed.tolist() == [-1]
    mean, variance, failed = posterior(structure, params, empty, empty, empty, empty)
    assert mean.shape == variance.shape == (1, 0)


@pytest.mark.parametrize("n", [0, 1, 6, 50])
@pytest.mark.parametrize("m", [0, 1, 4, 70])
def test_merge_times(n: int, m: int) -> None:
    rng = np.random.default_rng((91, n, m))
    times = np.sort(np.round(rng.uniform(0, 20, n)))
    new_times = np.sort(np.round(rng.uniform(-2, 22, m)))
    union, old, new = merge_times(times, new_times)
    assert np.array_equal(union, np.sort(np.concatenate([times, new_times])))
    assert np.array_equal(union[old], times)
    assert np.array_equal(union[new], new_times)
    assert sorted([*old, *new]) == list(range(n + m))
    assert np.all(np.diff(old) > 0)
    assert np.all(np.diff(new) > 0)
