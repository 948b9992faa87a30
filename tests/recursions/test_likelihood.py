"""Log-likelihood of every factor, sum and product against the dense and the Kalman oracle."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from gpkit.recursions.series import evidence, log_likelihood
from tests import oracles
from tests.recursions.cases import CASES, FEW, NAMES, make


@pytest.mark.parametrize("name", NAMES)
def test_oracle_covariance_agrees_with_high_precision(name: str) -> None:
    structure, params = CASES[name]
    with mpmath.workdps(50):
        for lag in (0.0, 1e-9, 0.3, 2.0, 11.0, 90.0):
            exact = float(oracles.mp_autocovariance(structure, params, lag))
            found = float(oracles.autocovariance(structure, params, np.array(lag)))
            at_zero = float(oracles.mp_autocovariance(structure, params, 0.0))
            assert abs(found - exact) <= 1e-14 * at_zero


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 5, 30, 130])
def test_quadratic_form_and_log_determinant_match_dense(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=1)
    dense = oracles.evidence(structure, params, data.times, data.values, data.noise)
    for gradient in (True, False):
        found = evidence(structure, params, data.times, data.values, data.noise, gradient=gradient)
        assert found.failed.tolist() == [-1]
        assert found.inv_quad[0] == pytest.approx(dense.inv_quad, rel=1e-12)
        assert found.logdet[0] == pytest.approx(dense.logdet, rel=1e-12, abs=1e-13 * n)
    value = log_likelihood(structure, params, data.times, data.values, data.noise)
    assert value.shape == (1,)
    assert value[0] == pytest.approx(dense.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_log_likelihood_matches_kalman_filter(name: str) -> None:
    structure, params = CASES[name]
    data = make(60, seed=2)
    filtered = oracles.kalman(oracles.state_space(structure, params), data.times, data.values, data.noise)
    found = log_likelihood(structure, params, data.times, data.values, data.noise)[0]
    assert found == pytest.approx(filtered.log_likelihood, rel=1e-11)


@pytest.mark.parametrize("name", FEW)
def test_log_likelihood_matches_high_precision(name: str) -> None:
    structure, params = CASES[name]
    data = make(9, seed=3)
    with mpmath.workdps(40):
        exact = float(oracles.mp_log_likelihood(structure, params, data.times, data.values, data.noise))
    found = log_likelihood(structure, params, data.times, data.values, data.noise)[0]
    assert found == pytest.approx(exact, rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("noise", [1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e8])
@pytest.mark.parametrize("name", FEW)
def test_accuracy_over_signal_to_noise(name: str, noise: float) -> None:
    """No worse than the condition number allows (dense float64 algebra loses a few times more)."""
    structure, params = CASES[name]
    data = make(30, seed=4)
    variances = noise * data.noise
    with mpmath.workdps(40):
        exact = float(oracles.mp_log_likelihood(structure, params, data.times, data.values, variances))
    found = log_likelihood(structure, params, data.times, data.values, variances)[0]
    signal = float(oracles.autocovariance(structure, params, np.array(0.0)))
    assert found == pytest.approx(exact, rel=1e-13 + 2e-16 * signal / variances.min())


@pytest.mark.parametrize("name", FEW)
def test_scales_of_values_and_times(name: str) -> None:
    """Fluxes of 1e-7, dates of 1e5: scaling everything shifts the log-likelihood by a known constant."""
    structure, params = CASES[name]
    data = make(100, seed=5)
    base = log_likelihood(structure, params, data.times, data.values, data.noise)[0]
    at, scaled = 0, list(params)
    for term in structure:
        scaled[at] *= 1e-14
        at += 1 + sum(oracles.PARAMETERS[factor] for factor in term)
    found = log_likelihood(structure, scaled, data.times, 1e-7 * data.values, 1e-14 * data.noise)[0]
    assert found == pytest.approx(base + 100 * np.log(1e7), rel=1e-12)
    moved = log_likelihood(structure, params, 55_000.0 + data.times, data.values, data.noise)[0]
    assert moved == pytest.approx(base, rel=1e-9)


def test_empty_series() -> None:
    for structure, params in (CASES["sho-under"], CASES["mixed-j10"]):
        empty = np.zeros((3, 0))
        found = evidence(structure, params, empty[0], empty, empty[0])
        assert found.inv_quad.tolist() == [0.0] * 3
        assert found.logdet.tolist() == [0.0] * 3
        assert found.failed.tolist() == [-1] * 3
        assert found.alpha.shape == (3, 0)
        assert found.params.shape == (3, len(params))
        assert not found.params.any()
        assert log_likelihood(structure, params, empty[0], empty, empty[0]).tolist() == [0.0] * 3


def test_one_point() -> None:
    found = evidence((("sho",),), [2.0, 1.0, 0.7], [3.0], [1.5], [0.25])
    assert found.inv_quad[0] == pytest.approx(1.5**2 / 2.25, rel=1e-15)
    assert found.logdet[0] == pytest.approx(np.log(2.25), rel=1e-15)
    assert found.alpha[0, 0] == pytest.approx(1.5 / 2.25, rel=1e-15)
    assert found.kappa[0, 0] == pytest.approx(1.0 / 2.25, rel=1e-15)
    assert found.params[0] == pytest.approx([0.5 * (1.5**2 / 2.25**2 - 1.0 / 2.25), 0.0, 0.0], rel=1e-15)
    assert found.times[0].tolist() == [0.0]


def test_long_series_does_not_lose_the_determinant() -> None:
    """Determinants of 1e-7 and 1e9 per point leave the range of a double long before N."""
    n = 3000
    rng = np.random.default_rng(6)
    times = np.arange(n) * 1e6
    values = rng.normal(size=n)
    for noise in (1e-7, 1e9):
        found = evidence((("exponential",),), [1e-9, 1.0], times, values, np.full(n, noise))
        assert found.logdet[0] == pytest.approx(n * np.log(noise + 1e-9), rel=1e-13)
        assert found.inv_quad[0] == pytest.approx(np.sum(values**2) / (noise + 1e-9), rel=1e-13)
