r"""Are the whitened residuals of a fit what they should be: independent draws from N(0, 1)?

The whitened residuals (innovations divided by their standard deviations) of the true model are exactly that. Parameters
that were fitted to the same data make the distribution tests somewhat lenient: their p-values are then too large, so a
small one still means what it says.

References:
    Ljung, G. M. and Box, G. E. P., Biometrika 65, 297 (1978).
    Marsaglia, G. and Marsaglia, J., Journal of Statistical Software 9(2) (2004), the limit distribution of A^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpkit.diagnostics.arrays import FloatArray, finite_part

MIN_POINTS = 8
"""Below this number of residuals no test is made."""


@dataclass(frozen=True)
class TestResult:
    """One hypothesis test.

    Attributes:
        name: Name of the test.
        statistic: Its statistic; NaN if it could not be made.
        p_value: Probability of a statistic at least as extreme under the null hypothesis; NaN if it could not be made.
        verdict: What that means, in words.
        passed: Whether the p-value is above the level; None if the test could not be made.
        lags: Number of lags, for tests that sum over lags.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    name: str
    statistic: float
    p_value: float
    verdict: str
    passed: bool | None
    lags: int | None = None


@dataclass(frozen=True)
class ResidualChecks:
    """Everything that was computed from one set of whitened residuals.

    Attributes:
        n: Number of finite residuals.
        n_dropped: Number of entries that were not finite and were left out.
        mean: Their mean, expected 0 within ``1 / sqrt(n)``.
        sd: Their standard deviation, expected 1.
        skewness: Expected 0.
        excess_kurtosis: Expected 0.
        largest: Largest absolute residual.
        level: Level of the tests.
        tests: The tests, by key: ks, anderson_darling, ljung_box, ljung_box_squared, runs.
        acf: Autocorrelation at lags 1, 2, ..., ``n_lags``.
        acf_squared: The same of the squared residuals.
        white_noise_band: Half-width of the 95 % band of the autocorrelation of white noise, ``1.96 / sqrt(n)``.
    """

    n: int
    n_dropped: int
    mean: float
    sd: float
    skewness: float
    excess_kurtosis: float
    largest: float
    level: float
    tests: dict[str, TestResult]
    acf: FloatArray
    acf_squared: FloatArray
    white_noise_band: float

    @property
    def failed(self) -> list[TestResult]:
        """The tests that were not passed."""
        return [test for test in self.tests.values() if test.passed is False]

    @property
    def white(self) -> bool | None:
        """Whether no correlation was found (residuals and squared residuals); None if too few points."""
        made = [self.tests[key].passed for key in ("ljung_box", "ljung_box_squared")]
        return None if None in made else all(made)


def autocorrelation(values: npt.ArrayLike, n_lags: int) -> FloatArray:
    """Sample autocorrelation at lags 1, 2, ..., about the sample mean; zeros for constant values.

    Args:
        values: Series, ``n``, in order; the lag counts points, not time.
        n_lags: Number of lags, cut at ``n - 1``.

    Returns:
        Autocorrelation, ``min(n_lags, n - 1)``.
    """
    series, _ = finite_part(values, "the series")
    n = len(series)
    n_lags = max(0, min(n_lags, n - 1))
    centred = series - series.mean() if n else series
    power = float(centred @ centred)
    if not power > 0:
        return np.zeros(n_lags)
    return np.array([centred[lag:] @ centred[: n - lag] for lag in range(1, n_lags + 1)], dtype=np.float64) / power


def ljung_box_lags(n: int) -> int:
    """Number of lags of the Ljung-Box test: the smaller of 10 and a fifth of the points."""
    return max(1, min(10, n // 5))


def ljung_box(values: npt.ArrayLike, lags: int | None = None) -> tuple[float, float, int]:
    """Ljung-Box test for correlation at any of the first lags.

    Args:
        values: Series, ``n``.
        lags: Number of lags; None: `ljung_box_lags`.

    Returns:
        The statistic, its p-value (chi-squared with `lags` degrees of freedom), and the number of lags.
    """
    from scipy.special import chdtrc

    series, _ = finite_part(values, "the series")
    n = len(series)
    lags = ljung_box_lags(n) if lags is None else lags
    if n <= lags + 1:
        return float("nan"), float("nan"), lags
    acf = autocorrelation(series, lags)
    statistic = float(n * (n + 2) * np.sum(acf**2 / (n - np.arange(1, lags + 1))))
    return statistic, float(chdtrc(lags, statistic)), lags


def anderson_darling(values: npt.ArrayLike) -> tuple[float, float]:
    """Anderson-Darling test against N(0, 1), nothing estimated.

    Returns:
        The statistic A^2 and its p-value, from the limit distribution (good to about 1e-3 from 8 points up).
    """
    from scipy.special import log_ndtr

    ordered = np.sort(finite_part(values, "the residuals")[0])
    n = len(ordered)
    if n == 0:
        return float("nan"), float("nan")
    odd = 2 * np.arange(1, n + 1) - 1
    statistic = float(-n - np.mean(odd * (log_ndtr(ordered) + log_ndtr(-ordered[::-1]))))
    return statistic, 1.0 - _anderson_darling_limit(statistic)


def _anderson_darling_limit(z: float) -> float:
    """Limit distribution of A^2 when nothing is estimated, Marsaglia and Marsaglia (2004)."""
    if z <= 0:
        return 0.0
    if z > 20:  # one minus this is below 1e-9; the polynomial is not meant for larger arguments
        return 1.0
    if z < 2:
        series = 2.00012 + z * (0.247105 - z * (0.0649821 - z * (0.0347962 - z * (0.011672 - z * 0.00168691))))
        return float(np.exp(-1.2337141 / z) / np.sqrt(z) * series)
    inner = 1.0776 - z * (2.30695 - z * (0.43424 - z * (0.082433 - z * (0.008056 - z * 0.0003146))))
    return float(np.exp(-np.exp(inner)))


def runs_test(values: npt.ArrayLike) -> tuple[float, float]:
    """Wald-Wolfowitz test on the number of runs above and below zero.

    Returns:
        The normal score (negative: too few runs, neighbours resemble each other) and its two-sided p-value; NaN where
        all residuals have the same sign.
    """
    from scipy.special import ndtr

    series, _ = finite_part(values, "the residuals")
    above = series > 0
    n_above, n_below = int(above.sum()), int((~above).sum())
    n = n_above + n_below
    if n_above == 0 or n_below == 0:
        return float("nan"), float("nan")
    runs = 1 + int((above[1:] != above[:-1]).sum())
    expected = 1 + 2 * n_above * n_below / n
    variance = (expected - 1) * (expected - 2) / (n - 1)
    if not variance > 0:
        return float("nan"), float("nan")
    score = (runs - expected) / float(np.sqrt(variance))
    return float(score), float(2 * ndtr(-abs(score)))


def check_residuals(
    residuals: npt.ArrayLike, *, level: float = 0.01, lags: int | None = None, acf_lags: int | None = None
) -> ResidualChecks:
    """Run every check on whitened residuals.

    Args:
        residuals: Whitened residuals in time order, ``n``; entries that are not finite are left out and counted.
        level: A test whose p-value is below this is not passed.
        lags: Lags of the Ljung-Box tests; None: `ljung_box_lags`.
        acf_lags: Lags of the autocorrelations that are kept; None: the smaller of 40 and a quarter of the points.

    Returns:
        Values and verdicts; with fewer than `MIN_POINTS` residuals the tests are listed as not made.
    """
    series, dropped = finite_part(residuals, "the residuals")
    n = len(series)
    acf_lags = min(40, max(1, n // 4)) if acf_lags is None else acf_lags
    mean = float(series.mean()) if n else float("nan")
    sd = float(series.std(ddof=1)) if n > 1 else float("nan")
    scaled = (series - mean) / series.std() if n > 1 and series.std() > 0 else np.full(n, np.nan)
    return ResidualChecks(
        n=n,
        n_dropped=dropped,
        mean=mean,
        sd=sd,
        skewness=float(np.mean(scaled**3)) if n else float("nan"),
        excess_kurtosis=float(np.mean(scaled**4) - 3) if n else float("nan"),
        largest=float(np.max(np.abs(series))) if n else float("nan"),
        level=level,
        tests=_tests(series, level=level, lags=lags),
        acf=autocorrelation(series, acf_lags),
        acf_squared=autocorrelation(series**2, acf_lags),
        white_noise_band=float(1.96 / np.sqrt(n)) if n else float("nan"),
    )


def _tests(series: FloatArray, *, level: float, lags: int | None) -> dict[str, TestResult]:
    enough = len(series) >= MIN_POINTS
    nothing = (float("nan"), float("nan"))
    ks = _kolmogorov_smirnov(series) if enough else nothing
    ad = anderson_darling(series) if enough else nothing
    box = ljung_box(series, lags) if enough else (*nothing, lags)
    square = ljung_box(series**2, lags) if enough else (*nothing, lags)
    runs = runs_test(series) if enough else nothing

    def result(name: str, statistic: float, p_value: float, good: str, bad: str, lags: int | None = None) -> TestResult:
        if not np.isfinite(p_value):
            why = f"not made: fewer than {MIN_POINTS} residuals" if not enough else "not made: not defined here"
            return TestResult(name, statistic, p_value, why, None, lags)
        passed = p_value >= level
        return TestResult(name, statistic, p_value, good if passed else bad, passed, lags)

    normal, not_normal = "compatible with N(0, 1)", "not distributed as N(0, 1)"
    return {
        "ks": result("Kolmogorov–Smirnov against N(0, 1)", *ks, normal, not_normal),
        "anderson_darling": result(
            "Anderson–Darling against N(0, 1)", *ad, normal, not_normal + ", with weight on the tails"
        ),
        "ljung_box": result(
            "Ljung–Box, residuals",
            box[0],
            box[1],
            "no correlation found",
            "correlated: the model misses structure in time",
            box[2],
        ),
        "ljung_box_squared": result(
            "Ljung–Box, squared residuals",
            square[0],
            square[1],
            "no change of variance found",
            "the variance changes with time: flares or misjudged errors",
            square[2],
        ),
        "runs": result(
            "Runs above and below zero",
            *runs,
            "signs alternate as they should",
            "signs come in too few or too many runs",
        ),
    }


def _kolmogorov_smirnov(series: FloatArray) -> tuple[float, float]:
    from scipy.stats import kstest

    outcome = kstest(series, "norm")
    return float(outcome.statistic), float(outcome.pvalue)
