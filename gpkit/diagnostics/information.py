r"""Scores by which fitted models are compared, and the table that ranks them.

All of them are meaningful only between models of the same data on the same scale: a fit to ``ln y`` is comparable with
one to ``y`` after the Jacobian has entered its evidence.

References:
    Hurvich, C. M. and Tsai, C.-L., Biometrika 76, 297 (1989), AICc.
    Sundararajan, S. and Keerthi, S. S., Neural Computation 13, 1103 (2001), exact leave-one-out of a Gaussian process.
    Vehtari, A., Gelman, A. and Gabry, J., Statistics and Computing 27, 1413 (2017), elpd and its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpkit.diagnostics.arrays import FloatArray, as_vector, same_length
from gpkit.errors import InvalidDataError

SortKey = Literal["aicc", "bic", "elpd_loo"]


@dataclass(frozen=True)
class InformationCriteria:
    """AIC, AICc and BIC of one fit; smaller is better.

    Attributes:
        aic: ``2 k - 2 lnL``.
        aicc: AIC with the correction for small samples; NaN where it is not defined.
        bic: ``k ln n - 2 lnL``.
        note: Why `aicc` is NaN, or empty.
    """

    aic: float
    aicc: float
    bic: float
    note: str = ""


@dataclass(frozen=True)
class Elpd:
    """Expected log predictive density by leave-one-out; larger is better.

    Attributes:
        elpd: Sum of the pointwise values.
        se: Its standard error, ``sqrt(n var(pointwise))``; NaN for one point.
        n: Number of points.
    """

    elpd: float
    se: float
    n: int


@dataclass(frozen=True)
class ModelScore:
    """What the ranking table needs to know about one fit.

    Attributes:
        log_likelihood: Maximum of the log-likelihood.
        n_parameters: Number of free parameters.
        n: Number of data points.
        loo_log_density: Pointwise leave-one-out log densities, ``n``; empty if they were not computed.
    """

    log_likelihood: float
    n_parameters: int
    n: int
    loo_log_density: FloatArray = field(default_factory=lambda: np.empty(0))


def information_criteria(log_likelihood: float, n_parameters: int, n: int) -> InformationCriteria:
    """AIC, AICc and BIC.

    Args:
        log_likelihood: Maximum of the log-likelihood.
        n_parameters: Number of free parameters, k.
        n: Number of data points.

    Raises:
        InvalidDataError: If `n` is not positive or `n_parameters` is negative.
    """
    if n < 1 or n_parameters < 0:
        raise InvalidDataError(f"information criteria need n > 0 and k >= 0, not n = {n} and k = {n_parameters}")
    aic = 2 * n_parameters - 2 * log_likelihood
    bic = n_parameters * math.log(n) - 2 * log_likelihood
    if n <= n_parameters + 1:
        note = f"AICc is not defined for {n} points and {n_parameters} parameters: it needs more than k + 1 points"
        return InformationCriteria(aic, float("nan"), bic, note)
    return InformationCriteria(aic, aic + 2 * n_parameters * (n_parameters + 1) / (n - n_parameters - 1), bic)


def loo_from_solve(
    value: npt.ArrayLike, solve: npt.ArrayLike, inverse_diagonal: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Exact leave-one-out means and variances of a Gaussian process.

    Args:
        value: Observations y, ``n``.
        solve: ``K^-1 (y - mean)``, ``n``, where K includes the noise.
        inverse_diagonal: Diagonal of ``K^-1``, ``n``.

    Returns:
        Mean and variance of each observation given all the others, ``n`` each.
    """
    y, alpha, precision = as_vector(value, "value"), as_vector(solve, "solve"), as_vector(inverse_diagonal, "diagonal")
    same_length(value=y, solve=alpha, inverse_diagonal=precision)
    return y - alpha / precision, 1.0 / precision


def gaussian_log_density(value: npt.ArrayLike, mean: npt.ArrayLike, variance: npt.ArrayLike) -> FloatArray:
    """Pointwise log densities of normal distributions, ``n``; of leave-one-out predictions: the terms of elpd."""
    y, mu, var = as_vector(value, "value"), as_vector(mean, "mean"), as_vector(variance, "variance")
    same_length(value=y, mean=mu, variance=var)
    return -0.5 * (np.log(2 * np.pi * var) + (y - mu) ** 2 / var)


def elpd_loo(pointwise: npt.ArrayLike) -> Elpd:
    """Sum of pointwise leave-one-out log densities, with its standard error; NaN for an empty vector."""
    terms = as_vector(pointwise, "pointwise")
    n = len(terms)
    if n == 0:
        return Elpd(float("nan"), float("nan"), 0)
    return Elpd(float(terms.sum()), float(np.sqrt(n * terms.var())) if n > 1 else float("nan"), n)


def elpd_difference(first: npt.ArrayLike, second: npt.ArrayLike) -> Elpd:
    """Difference of elpd, first minus second, with the standard error of the paired differences.

    The scores of two models at one point move together, so this error is usually much smaller than that of either
    elpd. It assumes many points and can be too small when the models are nearly the same.

    Raises:
        InvalidDataError: If the two are not about the same points.
    """
    a, b = as_vector(first, "first"), as_vector(second, "second")
    same_length(first=a, second=b)
    return elpd_loo(a - b)


def compare_table(models: Mapping[str, ModelScore], *, sort_by: SortKey = "aicc") -> list[dict[str, Any]]:
    """Rank models.

    Args:
        models: Scores by name.
        sort_by: Column to sort by, best first; NaN comes last.

    Returns:
        One dictionary per model with the keys name, log_likelihood, n_parameters, n, aic, aicc, delta_aicc, bic,
        delta_bic, elpd_loo, elpd_loo_se, delta_elpd (to the best elpd, at most 0), delta_elpd_se and note;
        ``pandas.DataFrame(table)`` makes a frame of it.

    Raises:
        InvalidDataError: If the models are not about the same number of points.
    """
    if len({score.n for score in models.values()}) > 1:
        told = ", ".join(f"{name}: {score.n}" for name, score in models.items())
        raise InvalidDataError(f"models can be compared only on the same data; numbers of points: {told}")
    rows: list[dict[str, Any]] = []
    for name, score in models.items():
        criteria = information_criteria(score.log_likelihood, score.n_parameters, score.n)
        elpd = elpd_loo(score.loo_log_density)
        rows.append(
            {
                "name": name,
                "log_likelihood": float(score.log_likelihood),
                "n_parameters": score.n_parameters,
                "n": score.n,
                "aic": criteria.aic,
                "aicc": criteria.aicc,
                "bic": criteria.bic,
                "elpd_loo": elpd.elpd,
                "elpd_loo_se": elpd.se,
                "note": criteria.note,
            }
        )
    best_by_elpd = best(rows, "elpd_loo")
    for row in rows:
        for key in ("aicc", "bic"):
            lowest = min((r[key] for r in rows if math.isfinite(r[key])), default=float("nan"))
            row[f"delta_{key}"] = row[key] - lowest
        row["delta_elpd"] = row["delta_elpd_se"] = float("nan")
        if best_by_elpd is not None and math.isfinite(row["elpd_loo"]):
            difference = elpd_difference(models[row["name"]].loo_log_density, models[best_by_elpd].loo_log_density)
            row["delta_elpd"], row["delta_elpd_se"] = difference.elpd, difference.se
    sign = -1.0 if sort_by == "elpd_loo" else 1.0
    return sorted(rows, key=lambda row: sign * row[sort_by] if math.isfinite(row[sort_by]) else math.inf)


def best(rows: Sequence[Mapping[str, Any]], key: SortKey) -> str | None:
    """Name of the best row of a ranking table by one column, or None if it is NaN everywhere."""
    finite = [row for row in rows if math.isfinite(row[key])]
    if not finite:
        return None
    chosen = max(finite, key=lambda row: row[key]) if key == "elpd_loo" else min(finite, key=lambda row: row[key])
    return str(chosen["name"])
