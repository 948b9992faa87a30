"""PIT, coverage, CRPS and simulation-based calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from gpkit.diagnostics import coverage, crps_gaussian, pit, pit_histogram, rank_histogram, sbc_ranks
from gpkit.errors import InvalidDataError


def test_pit_is_the_normal_distribution_function() -> None:
    np.testing.assert_allclose(pit([1.0, 3.0], [1.0, 1.0], [2.0, 2.0]), [0.5, stats.norm.cdf(1.0)])


def test_crps_is_the_integral_that_defines_it() -> None:
    for y, mu, sd in ((0.3, 0.0, 1.0), (-2.0, 1.0, 0.5), (4.0, 1.0, 3.0)):

        def squared(x: float, y: float = y, mu: float = mu, sd: float = sd) -> float:
            return float((stats.norm.cdf(x, mu, sd) - (x >= y)) ** 2)

        expected = integrate.quad(squared, -30, y, limit=200)[0] + integrate.quad(squared, y, 40, limit=200)[0]
        assert crps_gaussian([y], [mu], [sd])[0] == pytest.approx(expected, rel=1e-6)


def test_coverage_of_calibrated_and_overconfident_predictions() -> None:
    y = np.random.default_rng(0).normal(size=2000)
    good = coverage(pit(y, np.zeros(2000), np.ones(2000)))
    assert [entry.probability for entry in good] == [0.5, 0.8, 0.9, 0.95] and all(e.within_chance for e in good)
    bad = coverage(pit(y, np.zeros(2000), np.full(2000, 0.5)))
    assert not any(entry.within_chance for entry in bad) and bad[3].observed < 0.75
    low, high = stats.binom.interval(0.95, 2000, 0.5)
    assert (good[0].low, good[0].high) == pytest.approx((low / 2000, high / 2000))
    assert np.isnan(coverage([np.nan])[0].observed)


def test_ranks_are_uniform_for_an_exact_posterior_and_not_for_a_narrow_one() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=1000)
    data = truth + rng.normal(size=1000)
    draws = data[:, None] / 2 + rng.normal(size=(1000, 99)) / np.sqrt(2)
    good = rank_histogram(sbc_ranks(truth, draws), 99, bins=10)
    assert good.counts.sum() == 1000 and good.expected == 100 and good.p_value > 0.001
    narrow = data[:, None] / 2 + 0.3 * rng.normal(size=(1000, 99))
    assert rank_histogram(sbc_ranks(truth, narrow), 99, bins=10).p_value < 1e-10


def test_ranks_count_draws_below_and_bins_must_be_even() -> None:
    assert sbc_ranks([0.5, 9.0], [[0.1, 0.9], [1.0, 2.0]]).tolist() == [1, 2]
    assert len(rank_histogram(np.arange(100) % 20, 19).counts) == 20
    with pytest.raises(InvalidDataError, match="do not divide"):
        rank_histogram([1.0], 9, bins=3)
    with pytest.raises(InvalidDataError, match="between 0 and 9"):
        rank_histogram([10.0], 9)
    with pytest.raises(InvalidDataError, match="shape"):
        sbc_ranks([1.0], [1.0])
    assert pit_histogram([0.05, 0.95, np.nan], 2).counts.tolist() == [1, 1]
