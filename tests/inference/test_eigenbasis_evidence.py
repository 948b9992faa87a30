"""The O(k^3) evidence against dense algebra, finite differences and its own batches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gpkit.errors import InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.eigenbasis_evidence import EigenbasisStatistics

Array = NDArray[np.float64]


def problem(n: int, k: int, sets: int = 1, seed: int = 0) -> tuple[Array, Array, Array, float]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, k)), rng.standard_normal((n, sets)), rng.uniform(-3.0, 1.0, k), -1.3


def dense(phi: Array, y: Array, log_s: Array, log_noise: float) -> float:
    covariance = (phi * np.exp(log_s)) @ phi.T + np.exp(log_noise) * np.eye(len(phi))
    return float(sum(stats.multivariate_normal(np.zeros(len(phi)), covariance).logpdf(column) for column in y.T))


@pytest.mark.parametrize(("n", "k", "sets"), [(40, 7, 1), (7, 40, 1), (12, 12, 3), (1, 3, 1), (30, 1, 2)])
def test_matches_dense(n: int, k: int, sets: int) -> None:
    phi, y, log_s, log_noise = problem(n, k, sets)
    value, slope, noise_slope = EigenbasisStatistics.of(phi, y).log_likelihood(log_s, log_noise)
    assert value == pytest.approx(dense(phi, y, log_s, log_noise), rel=1e-11)
    step = 1e-5
    for mode in range(min(k, 5)):
        shift = step * np.eye(k)[mode]
        expected = (dense(phi, y, log_s + shift, log_noise) - dense(phi, y, log_s - shift, log_noise)) / (2 * step)
        assert slope[mode] == pytest.approx(expected, rel=1e-5, abs=1e-7)
    expected = (dense(phi, y, log_s, log_noise + step) - dense(phi, y, log_s, log_noise - step)) / (2 * step)
    assert noise_slope == pytest.approx(expected, rel=1e-6)


def test_small_noise_does_not_cancel() -> None:
    phi, _, log_s, _ = problem(200, 5)
    y = phi @ np.arange(1.0, 6.0)[:, None] * 1e3
    value, _, noise_slope = EigenbasisStatistics.of(phi, y).log_likelihood(log_s, np.log(1e-10))
    assert np.isfinite(value) and noise_slope == pytest.approx(-0.5 * 195, rel=1e-3)


def test_batches_add_up() -> None:
    phi, y, log_s, log_noise = problem(9000, 6, 2)
    whole = EigenbasisStatistics.of(phi, y)
    parts = EigenbasisStatistics.of(phi[:3], y[:3]).update(phi[3:5], y[3:5]).update(phi[5:], y[5:])
    assert parts.n_rows == whole.n_rows == 9000 and len(whole.factor) == 6
    for one, other in zip(whole.log_likelihood(log_s, log_noise), parts.log_likelihood(log_s, log_noise), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("n", "k"), [(25, 6), (6, 25), (0, 4)])
def test_posterior_matches_dense(n: int, k: int) -> None:
    phi, y, log_s, log_noise = problem(n, k)
    found = EigenbasisStatistics.of(phi, y).posterior(log_s, log_noise)
    precision = np.diag(np.exp(-log_s)) + phi.T @ phi / np.exp(log_noise)
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(found.root @ found.root.T, covariance, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.mean, covariance @ phi.T @ y[:, 0] / np.exp(log_noise), rtol=1e-8, atol=1e-10)
    draws = found.sample(4000, np.random.default_rng(0))
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.mean(0), found.mean, atol=0.1 * float(spread.max()))
    np.testing.assert_allclose(draws.std(0), spread, rtol=0.1)


def test_bad_input() -> None:
    with pytest.raises(InvalidDataError, match="targets"):
        EigenbasisStatistics.of(np.ones((3, 2)), np.ones(4))
    with pytest.raises(InvalidDataError, match="finite"):
        EigenbasisStatistics.of(np.array([[np.nan]]), np.ones(1))
    statistics = EigenbasisStatistics.of(np.ones((3, 2)), np.ones(3))
    with pytest.raises(InvalidDataError, match="2 features"):
        statistics.update(np.ones((3, 3)), np.ones(3))
    with pytest.raises(NotPositiveDefiniteError):
        EigenbasisStatistics.of(np.ones((3, 4)), np.ones(3)).log_likelihood(np.full(4, 700.0), -700.0)
