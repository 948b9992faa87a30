"""Information criteria, exact leave-one-out and the ranking, against formulas worked out another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpkit.diagnostics import (
    ModelScore,
    compare_table,
    elpd_difference,
    elpd_loo,
    gaussian_log_density,
    information_criteria,
    loo_from_solve,
)
from gpkit.errors import InvalidDataError


def test_criteria_by_hand() -> None:
    got = information_criteria(-100.0, 3, 50)
    assert got.aic == 206.0
    assert got.aicc == pytest.approx(206 + 2 * 3 * 4 / 46)
    assert got.bic == pytest.approx(3 * np.log(50) + 200)
    assert got.note == ""


@pytest.mark.parametrize("n", [1, 4, 5])
def test_aicc_is_undefined_for_few_points(n: int) -> None:
    got = information_criteria(-1.0, 4, n)
    assert np.isnan(got.aicc) and np.isfinite(got.bic) and f"{n} points and 4 parameters" in got.note
    assert np.isfinite(information_criteria(-1.0, 4, 6).aicc)


def test_criteria_refuse_nonsense() -> None:
    with pytest.raises(InvalidDataError):
        information_criteria(0.0, 1, 0)


def test_leave_one_out_by_leaving_one_out() -> None:
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 10, 12))
    k = np.exp(-np.abs(t[:, None] - t)) + 0.1 * np.eye(12)
    y = 3 + np.linalg.cholesky(k) @ rng.normal(size=12)
    inverse = np.linalg.inv(k)
    mean, variance = loo_from_solve(y, inverse @ (y - 3), np.diag(inverse))
    for i in range(12):
        rest = np.delete(np.arange(12), i)
        weights = np.linalg.solve(k[np.ix_(rest, rest)], k[rest, i])
        assert mean[i] == pytest.approx(3 + weights @ (y[rest] - 3), rel=1e-10)
        assert variance[i] == pytest.approx(k[i, i] - weights @ k[rest, i], rel=1e-10)
    np.testing.assert_allclose(gaussian_log_density(y, mean, variance), stats.norm.logpdf(y, mean, np.sqrt(variance)))


def test_elpd_and_differences() -> None:
    a, b = np.array([-1.0, -2.0, -3.0]), np.array([-1.5, -2.0, -2.0])
    assert elpd_loo(a).elpd == -6.0
    assert elpd_loo(a).se == pytest.approx(np.sqrt(3 * np.var(a)))
    difference = elpd_difference(a, b)
    assert difference.elpd == pytest.approx(-0.5) and difference.se == pytest.approx(np.sqrt(3 * np.var(a - b)))
    assert np.isnan(elpd_loo([]).elpd) and np.isnan(elpd_loo([1.0]).se)
    with pytest.raises(InvalidDataError, match="first: 3, second: 2"):
        elpd_difference(a, b[:2])


def test_ranking() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=40)
    models = {
        "worse": ModelScore(-60.0, 3, 40, base - 0.5),
        "best": ModelScore(-50.0, 3, 40, base),
        "undefined": ModelScore(-49.0, 39, 40),
    }
    rows = compare_table(models)
    assert [row["name"] for row in rows] == ["best", "worse", "undefined"]
    assert rows[0]["delta_aicc"] == 0 and rows[1]["delta_aicc"] == pytest.approx(20.0)
    assert rows[1]["delta_elpd"] == pytest.approx(-20.0) and rows[1]["delta_elpd_se"] == pytest.approx(0, abs=1e-12)
    assert rows[0]["delta_elpd"] == 0 and np.isnan(rows[2]["delta_elpd"]) and rows[2]["note"]
    assert [row["name"] for row in compare_table(models, sort_by="elpd_loo")] == ["best", "worse", "undefined"]
    with pytest.raises(InvalidDataError, match="same data"):
        compare_table({"a": ModelScore(0.0, 1, 10), "b": ModelScore(0.0, 1, 11)})
    assert compare_table({}) == []
