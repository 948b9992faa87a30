"""Periodograms against scipy, Parseval and the noise level; conventions against integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from gpkit.diagnostics import (
    bin_periodogram,
    celerite_from_power,
    expected_periodogram,
    frequency_grid,
    frequency_limits,
    noise_floor,
    periodogram,
    power_from_celerite,
)
from gpkit.errors import InvalidDataError


@pytest.fixture
def series() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(100, 200, 150))
    return t, 3 + np.sin(0.7 * t) + 0.3 * rng.normal(size=150)


@pytest.mark.parametrize("uniform", [True, False])
def test_agrees_with_scipy(series: tuple[np.ndarray, np.ndarray], uniform: bool) -> None:
    t, y = series
    f = frequency_grid(t) if uniform else np.geomspace(0.02, 0.5, 40)
    scipys = signal.lombscargle(t - t[0], y, 2 * np.pi * f, floating_mean=True)
    np.testing.assert_allclose(periodogram(t, y, f).power, 2 * np.ptp(t) / len(t) * scipys, rtol=1e-7, atol=1e-9)


def test_integral_is_the_variance_on_an_even_grid() -> None:
    t = np.arange(1001.0)
    y = np.random.default_rng(1).normal(size=1001).cumsum()
    got = periodogram(t, y)
    assert np.sum(got.power) * got.frequency[0] == pytest.approx(np.var(y), rel=0.03)


def test_white_noise_has_the_level_of_the_floor() -> None:
    rng = np.random.default_rng(2)
    t = np.sort(rng.uniform(0, 500, 1000))
    sigma = rng.uniform(0.5, 1.5, 1000)
    got = periodogram(t, sigma * rng.normal(size=1000), 0.002 * np.arange(1, 2000))
    assert np.mean(got.power) == pytest.approx(noise_floor(sigma, float(np.ptp(t))), rel=0.1)


def test_expectation_is_the_mean_of_periodograms_and_knows_the_leakage() -> None:
    rng = np.random.default_rng(4)
    t = np.cumsum(rng.choice([1.0, 3.0, 15.0], size=300))
    steps = np.exp(-np.diff(t, prepend=t[0] - 1e3) / 40)
    walks = np.zeros((40, 300))
    for i, decay in enumerate(steps):
        walks[:, i] = decay * walks[:, i - 1] + np.sqrt(1 - decay**2) * rng.normal(size=40)
    got = expected_periodogram(t, walks)
    one_by_one = np.mean([periodogram(t, walk, got.frequency).power for walk in walks], axis=0)
    np.testing.assert_allclose(got.power, one_by_one, rtol=1e-9)
    truth = 4 * 40 / (1 + (2 * np.pi * got.frequency * 40) ** 2)
    assert np.mean(got.power[-100:]) > 5 * np.mean(truth[-100:])
    with pytest.raises(InvalidDataError, match="shape"):
        expected_periodogram(t, walks[:, 1:])


def test_a_sinusoid_is_found_with_its_power() -> None:
    t = np.sort(np.random.default_rng(3).uniform(0, 100, 300))
    got = periodogram(t, 2 * np.sin(2 * np.pi * 0.2 * t) + 50, np.array([0.2]))
    variance = np.var(2 * np.sin(2 * np.pi * 0.2 * t))  # all of it is explained
    assert got.power[0] == pytest.approx(np.ptp(t) * variance, rel=1e-10)


def test_nyquist_frequency_and_repeated_times_are_finite() -> None:
    t = np.arange(64.0)
    got = periodogram(t, np.cos(np.pi * t), np.array([0.25, 0.5]))
    assert got.power[1] == pytest.approx(63.0, rel=1e-6) and np.isfinite(got.power).all()
    doubled = np.repeat(np.arange(20.0), 2)
    assert np.isfinite(periodogram(doubled, np.random.default_rng(0).normal(size=40)).power).all()
    assert frequency_limits(doubled) == pytest.approx((1 / 19, 0.5))


def test_grid() -> None:
    t = np.arange(0.0, 101.0)
    grid = frequency_grid(t)
    assert grid[0] == pytest.approx(0.01) and grid[-1] == pytest.approx(0.5) and len(grid) == 50
    assert len(frequency_grid(np.arange(200_000.0))) == 400
    with pytest.raises(InvalidDataError, match="two different times"):
        frequency_limits([3.0, 3.0])


def test_convention_against_the_variance_of_a_damped_random_walk() -> None:
    sd, tau = 1.7, 12.0
    f = np.geomspace(1e-7, 1e4, 400_000)
    celerite = np.sqrt(2 / np.pi) * sd**2 * tau / (1 + (2 * np.pi * f * tau) ** 2)
    power = power_from_celerite(celerite)
    assert np.trapezoid(power, f) == pytest.approx(sd**2, rel=1e-4)
    np.testing.assert_allclose(celerite_from_power(power), celerite)


def test_bins_are_means() -> None:
    got = periodogram(np.arange(400.0), np.random.default_rng(0).normal(size=400))
    binned = bin_periodogram(got, per_decade=5)
    assert binned.count.sum() == len(got.frequency)
    first = got.power[: binned.count[0]]
    assert binned.power[0] == pytest.approx(first.mean())
    np.testing.assert_allclose(binned.error, binned.power / np.sqrt(binned.count))
    assert (bin_periodogram(got, smallest=5).count >= 5).all()


def test_bad_input_is_named(series: tuple[np.ndarray, np.ndarray]) -> None:
    t, y = series
    with pytest.raises(InvalidDataError, match="same length"):
        periodogram(t, y[:-1])
    with pytest.raises(InvalidDataError, match="four points"):
        periodogram(t[:3], y[:3])
    with pytest.raises(InvalidDataError, match="finite"):
        periodogram(t, np.where(t > 150, np.nan, y))
    assert np.isnan(noise_floor([np.nan], 1.0))
