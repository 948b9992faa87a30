"""What a careful colleague would say about a fit, as data.

Every function looks at a few numbers and returns the findings that apply, possibly none. The rules, with their limits,
are written down here and nowhere else; each has a `code` that does not change, for programs that read reports.

References:
    Kozlowski, S., Astronomy and Astrophysics 597, A128 (2017): a decorrelation time is recovered without bias only if
    the light curve is at least ten times as long.
    Vehtari, A. et al., Bayesian Analysis 16, 667 (2021): R-hat below 1.01, effective sample size above 400.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gpkit.diagnostics.findings import Finding
from gpkit.diagnostics.residuals import ResidualChecks

RHAT_LIMIT = 1.01
ESS_LIMIT = 400.0
BFMI_LIMIT = 0.3
BASELINES_NEEDED = 10.0
"""Length of the light curve, in decorrelation times, from which these are recovered without bias."""
TINY_ERROR = 0.001
"""Fraction of the median error below which a measurement error is remarked upon."""
COLLAPSED_QUALITY = 0.1
"""Quality factor below which an SHO whose fast time is not resolved is a DRW."""


def data_findings(
    *,
    n_upper_limits: int = 0,
    exclusions: Mapping[str, int] | None = None,
    n_repeated_times: int = 0,
    n_detections: int | None = None,
    n_tiny_errors: int = 0,
) -> list[Finding]:
    """Findings about the data.

    Args:
        n_upper_limits: Upper limits that were left out of the fit.
        exclusions: Rows that were dropped, by reason.
        n_repeated_times: Points at exactly the time of the point before.
        n_detections: Points in the fit; fewer than 30 are remarked upon.
        n_tiny_errors: Points whose error is far below the usual one, see `count_tiny_errors`.
    """
    found = []
    if n_upper_limits:
        found.append(
            Finding(
                "warning",
                "upper-limits-left-out",
                f"{_count(n_upper_limits, 'upper limit was', 'upper limits were')} left out of the Gaussian fit: faint "
                "states are under-represented, so mean and amplitude may be biased.",
            )
        )
    dropped = {reason: count for reason, count in (exclusions or {}).items() if count}
    if dropped:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in dropped.items())
        found.append(
            Finding(
                "warning",
                "rows-dropped",
                f"{_count(sum(dropped.values()), 'row was', 'rows were')} dropped while reading ({reasons}).",
            )
        )
    if n_repeated_times:
        found.append(
            Finding(
                "note",
                "repeated-times",
                f"{_count(n_repeated_times, 'point has', 'points have')} the same time as the point before; they are "
                "fitted as independent measurements of one value.",
            )
        )
    if n_tiny_errors:
        found.append(
            Finding(
                "warning",
                "tiny-errors",
                f"{_count(n_tiny_errors, 'point has an error', 'points have errors')} below "
                f"{TINY_ERROR:g} of the median error and can outweigh all others: failed measurements often look like "
                "this; check or remove such rows.",
            )
        )
    if n_detections is not None and n_detections < 30:
        found.append(
            Finding(
                "warning",
                "few-points",
                f"Only {n_detections} points were fitted: "
                "information criteria and tests of residuals have little power.",
            )
        )
    return found


def count_tiny_errors(error: npt.ArrayLike) -> int:
    """Number of points whose error is below `TINY_ERROR` times the median error."""
    sizes = np.asarray(error, dtype=np.float64)
    return int((sizes < TINY_ERROR * np.median(sizes)).sum()) if sizes.size else 0


def timescale_findings(
    *, slow: float, baseline: float, median_cadence: float, fast: float | None = None, unit: str = "d", kernel: str = ""
) -> list[Finding]:
    """Findings about time scales that the sampling cannot support.

    Error where the slow time is longer than the light curve; warning where the light curve is shorter than
    `BASELINES_NEEDED` slow times; warning where the slow time is below the median cadence. A fast time (of an
    overdamped SHO) below the median cadence is a note.

    Args:
        slow: Slowest decay or decorrelation time of the model.
        baseline: Length of the light curve.
        median_cadence: Median time between points.
        fast: Fastest decay time, where the model has two.
        unit: Unit of all of them.
        kernel: Name of the kernel.
    """
    found = []
    if slow > baseline:
        found.append(
            Finding(
                "error",
                "timescale-longer-than-baseline",
                f"The time scale ({_time(slow, unit)}) is longer than the light curve ({_time(baseline, unit)}): "
                "it is a lower limit at best.",
                kernel,
            )
        )
    elif slow * BASELINES_NEEDED > baseline:
        found.append(
            Finding(
                "warning",
                "timescale-poorly-covered",
                f"The light curve covers only {baseline / slow:.1f} time scales of {_time(slow, unit)}; below about "
                f"{BASELINES_NEEDED:.0f} the fitted time scale is biased, usually low (Kozłowski 2017).",
                kernel,
            )
        )
    if slow < median_cadence:
        found.append(
            Finding(
                "warning",
                "timescale-shorter-than-sampling",
                f"The time scale ({_time(slow, unit)}) is shorter than the median sampling "
                f"({_time(median_cadence, unit)}): the variability is not resolved and looks like white noise.",
                kernel,
            )
        )
    elif fast is not None and fast < median_cadence:
        found.append(
            Finding(
                "note",
                "fast-timescale-unresolved",
                f"The fast time scale ({_time(fast, unit)}) is below the median sampling "
                f"({_time(median_cadence, unit)}): only an upper limit to it is known.",
                kernel,
            )
        )
    return found


def collapse_findings(
    *,
    quality: float,
    fast: float,
    median_cadence: float,
    log_likelihood: float | None = None,
    drw_log_likelihood: float | None = None,
    unit: str = "d",
    kernel: str = "sho",
) -> list[Finding]:
    """Whether an SHO has collapsed to a DRW: overdamped, with a fast time that the data do not resolve.

    It fires where ``quality < 1/2``, where ``fast < median_cadence`` or ``quality < COLLAPSED_QUALITY``, and where, if
    the log-likelihoods of both are given, the SHO gains less than 1 over the DRW.

    Args:
        quality: Quality factor Q.
        fast: Fast decay time ``1 / (w0 (b + r))``.
        median_cadence: Median time between points.
        log_likelihood: Maximum of the SHO's log-likelihood.
        drw_log_likelihood: The same of a DRW on the same data.
        unit: Unit of the times.
        kernel: Name of the kernel.
    """
    overdamped = quality < 0.5 and (fast < median_cadence or quality < COLLAPSED_QUALITY)
    if not overdamped:
        return []
    evidence = ""
    if log_likelihood is not None and drw_log_likelihood is not None:
        gain = log_likelihood - drw_log_likelihood
        if gain >= 1:
            return []
        more = f"only {gain:.2f} higher than" if gain > 0.005 else "not higher than"
        evidence = f" Its log-likelihood is {more} that of the DRW."
    if fast < median_cadence:
        why = f"its fast time scale ({_time(fast, unit)}) is below the median sampling ({_time(median_cadence, unit)})"
    else:
        why = f"it is far into the overdamped regime (Q below {COLLAPSED_QUALITY})"
    return [
        Finding(
            "warning",
            "sho-collapsed-to-drw",
            f"SHO has collapsed to DRW: Q = {quality:.2g} and {why}.{evidence} Quote the slow time scale, not Q or the "
            "frequency.",
            kernel,
        )
    ]


def jitter_findings(*, jitter: float, median_error: float, kernel: str = "") -> list[Finding]:
    """Whether the fitted white noise is larger than the median measurement error."""
    if not jitter > median_error:
        return []
    times = jitter / median_error if median_error > 0 else math.inf
    ratio = f"{times:.1f} times" if times < 1000.0 else "more than 1000 times"
    return [
        Finding(
            "warning",
            "jitter-dominates",
            f"Jitter dominates the measurement errors ({jitter:.3g}, {ratio} the median error of {median_error:.3g}): "
            "errors are underestimated, or there is variability faster than the sampling.",
            kernel,
        )
    ]


def residual_findings(checks: ResidualChecks, *, kernel: str = "") -> list[Finding]:
    """Findings from the checks of whitened residuals."""
    failed = {key for key, test in checks.tests.items() if test.passed is False}
    p_value = {
        key: "p < 0.0001" if test.p_value < 1e-4 else f"p = {test.p_value:.2g}" for key, test in checks.tests.items()
    }
    found = []
    if "ljung_box" in failed:
        found.append(
            Finding(
                "warning",
                "residuals-not-white",
                f"The residuals are not white (Ljung–Box over {checks.tests['ljung_box'].lags} lags, "
                f"{p_value['ljung_box']}): the model misses correlation in time.",
                kernel,
            )
        )
    if "ljung_box_squared" in failed:
        found.append(
            Finding(
                "warning",
                "residual-variance-changes",
                f"The squared residuals are correlated (Ljung–Box, {p_value['ljung_box_squared']}): the variability is "
                "not stationary, or not Gaussian on this scale.",
                kernel,
            )
        )
    if failed & {"ks", "anderson_darling"}:
        found.append(
            Finding(
                "warning",
                "residuals-not-normal",
                f"The residuals are not distributed as N(0, 1) (Anderson–Darling {p_value['anderson_darling']}, "
                f"Kolmogorov–Smirnov {p_value['ks']}; standard deviation {checks.sd:.2f}, excess kurtosis "
                f"{checks.excess_kurtosis:.1f}).",
                kernel,
            )
        )
    if checks.n_dropped:
        found.append(
            Finding(
                "error",
                "residuals-not-finite",
                f"{_count(checks.n_dropped, 'residual is', 'residuals are')} not finite.",
                kernel,
            )
        )
    return found


def optimum_findings(*, on_bound: Sequence[str] = (), converged: bool = True, kernel: str = "") -> list[Finding]:
    """Findings about the maximum-likelihood fit.

    Args:
        on_bound: Names of parameters whose best value is a bound.
        converged: Whether the optimiser reached its tolerance.
        kernel: Name of the kernel.
    """
    found = []
    if not converged:
        found.append(
            Finding(
                "error", "fit-not-converged", "The fit did not converge: its parameters are not the optimum.", kernel
            )
        )
    if on_bound:
        plural = len(on_bound) > 1
        found.append(
            Finding(
                "warning",
                "optimum-on-bound",
                f"The best {'values' if plural else 'value'} of {', '.join(on_bound)} {'are' if plural else 'is'} on "
                "the bound of the allowed range: read as a limit.",
                kernel,
            )
        )
    return found


def sampler_findings(
    *,
    max_rhat: float,
    min_ess: float,
    divergences: int,
    n_draws: int,
    n_chains: int,
    min_bfmi: float = float("nan"),
    kernel: str = "",
) -> list[Finding]:
    """Whether the posterior draws may be used.

    Error where R-hat is above `RHAT_LIMIT`, or an effective sample size (bulk or tail) below `ESS_LIMIT`, or more than
    1 % of the draws diverged. Warning where fewer diverged, where the energy was explored badly, or with one chain.

    Args:
        max_rhat: Largest rank-normalised R-hat; NaN if there is one chain.
        min_ess: Smallest bulk or tail effective sample size.
        divergences: Number of divergent transitions.
        n_draws: Number of draws, all chains together.
        n_chains: Number of chains.
        min_bfmi: Smallest Bayesian fraction of missing information, where known.
        kernel: Name of the kernel.
    """
    problems = []
    if max_rhat > RHAT_LIMIT or (math.isnan(max_rhat) and n_chains > 1):
        problems.append(f"R-hat is {max_rhat:.3f}, above {RHAT_LIMIT}")
    if not min_ess >= ESS_LIMIT:
        problems.append(f"the effective sample size is {min_ess:.0f}, below {ESS_LIMIT:.0f}")
    many = divergences > 0.01 * n_draws
    if many:
        problems.append(f"{divergences} of {n_draws} draws diverged")
    found = []
    if problems:
        told = "; ".join(problems)
        found.append(
            Finding("error", "sampler-not-converged", f"The sampler did not converge: do not use ({told}).", kernel)
        )
    if divergences and not many:
        found.append(
            Finding(
                "warning",
                "divergences",
                f"{divergences} of {n_draws} draws diverged: the posterior may be biased near sharp corners.",
                kernel,
            )
        )
    if n_chains == 1:
        found.append(
            Finding("warning", "one-chain", "There is only one chain: convergence cannot be judged by R-hat.", kernel)
        )
    if min_bfmi < BFMI_LIMIT:
        found.append(
            Finding(
                "warning",
                "low-bfmi",
                f"The energy was explored badly (BFMI {min_bfmi:.2f}, below {BFMI_LIMIT}): heavy tails; sample longer.",
                kernel,
            )
        )
    return found


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _time(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".strip()
