"""Checks of whitened residuals against hand formulas, scipy, and what they must and must not see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpkit.diagnostics import anderson_darling, autocorrelation, check_residuals, ljung_box, runs_test
from gpkit.errors import InvalidDataError


def test_autocorrelation_is_the_textbook_formula() -> None:
    x = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 0.0])
    c = x - x.mean()
    expected = [sum(c[i] * c[i + k] for i in range(6 - k)) / sum(c**2) for k in (1, 2, 3)]
    np.testing.assert_allclose(autocorrelation(x, 3), expected, rtol=1e-14)
    assert len(autocorrelation(x, 50)) == 5
    np.testing.assert_array_equal(autocorrelation(np.ones(5), 2), [0.0, 0.0])


def test_ljung_box_by_hand() -> None:
    x = np.random.default_rng(0).normal(size=60)
    rho = autocorrelation(x, 4)
    statistic = 60 * 62 * sum(rho[k - 1] ** 2 / (60 - k) for k in range(1, 5))
    got = ljung_box(x, 4)
    assert got[0] == pytest.approx(statistic, rel=1e-13)
    assert got[1] == pytest.approx(stats.chi2.sf(statistic, 4), rel=1e-12)
    assert ljung_box(x)[2] == 10 and ljung_box(x[:20])[2] == 4
    assert np.isnan(ljung_box(x[:3], 4)[1])


def test_anderson_darling_statistic_by_hand_and_published_critical_values() -> None:
    x = np.sort(np.random.default_rng(1).normal(size=30))
    u = stats.norm.cdf(x)
    by_hand = -30 - sum((2 * i - 1) * (np.log(u[i - 1]) + np.log(1 - u[30 - i])) for i in range(1, 31)) / 30
    assert anderson_darling(x)[0] == pytest.approx(by_hand, rel=1e-10)
    from gpkit.diagnostics.residuals import _anderson_darling_limit

    # Case 0 of D'Agostino and Stephens (1986), table 4.2.
    for statistic, level in ((1.933, 0.10), (2.492, 0.05), (3.070, 0.025), (3.857, 0.01)):
        assert 1 - _anderson_darling_limit(statistic) == pytest.approx(level, abs=3e-4)
    assert _anderson_darling_limit(0.0) == 0.0 and _anderson_darling_limit(50.0) == 1.0
    assert anderson_darling(np.full(20, 40.0))[1] == pytest.approx(0.0)


def test_p_values_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(2)
    p = {"ks": [], "anderson_darling": [], "ljung_box": [], "ljung_box_squared": [], "runs": []}
    for _ in range(400):
        for key, test in check_residuals(rng.normal(size=200)).tests.items():
            p[key].append(test.p_value)
    for key, values in p.items():
        rejected = np.mean(np.array(values) < 0.05)
        assert 0.02 < rejected < 0.09, key


def test_each_defect_is_seen_by_its_test() -> None:
    rng = np.random.default_rng(3)
    white = rng.normal(size=500)
    assert check_residuals(white).failed == [] and check_residuals(white).white is True
    red = np.convolve(white, [1, 0.6], "valid") / np.hypot(1, 0.6)
    assert {"ljung_box", "runs"} <= failed(red) and check_residuals(red).white is False
    flaring = white * np.repeat(rng.choice([0.3, 1.5], 50), 10)
    assert "ljung_box_squared" in failed(flaring)
    assert {"ks", "anderson_darling"} <= failed(2 * white)
    assert "anderson_darling" in failed(white + 0.5)


def failed(residuals: np.ndarray) -> set[str]:
    return {key for key, test in check_residuals(residuals).tests.items() if test.passed is False}


def test_runs_by_hand() -> None:
    x = np.array([1, 1, -1, -1, -1, 1, -1, 1, 1, 1], dtype=float)  # 5 runs of 6 and 4
    expected = 1 + 2 * 6 * 4 / 10
    variance = (expected - 1) * (expected - 2) / 9
    assert runs_test(x)[0] == pytest.approx((5 - expected) / np.sqrt(variance))
    assert np.isnan(runs_test(np.ones(9))[1])


def test_small_and_damaged_input() -> None:
    checks = check_residuals([0.1, np.nan, np.inf, -0.3])
    assert (checks.n, checks.n_dropped) == (2, 2) and checks.white is None and checks.failed == []
    assert all("fewer than 8" in test.verdict for test in checks.tests.values())
    empty = check_residuals([])
    assert empty.n == 0 and np.isnan(empty.mean) and len(empty.acf) == 0
    constant = check_residuals(np.zeros(20))
    assert constant.tests["runs"].passed is None and constant.tests["ks"].passed is False
    with pytest.raises(InvalidDataError, match="one dimension"):
        check_residuals(np.zeros((3, 3)))


def test_band_and_moments() -> None:
    x = np.random.default_rng(4).normal(size=100)
    checks = check_residuals(x)
    assert checks.white_noise_band == pytest.approx(0.196)
    assert checks.skewness == pytest.approx(stats.skew(x)) and checks.excess_kurtosis == pytest.approx(
        stats.kurtosis(x)
    )
    assert len(checks.acf) == 25 and len(check_residuals(x, acf_lags=7).acf_squared) == 7
