"""Checks of residuals and calibration, information criteria, spectra, posterior summaries, findings and plots.

Everything takes plain arrays (or an ArviZ InferenceData), so that it can be used with any model. The plots are in
`gpkit.diagnostics.plots` and `gpkit.diagnostics.posterior_plots`, which are imported on their own because they need
matplotlib.
"""

from gpkit.diagnostics.calibration import (
    Coverage,
    RankHistogram,
    coverage,
    crps_gaussian,
    pit,
    pit_histogram,
    rank_histogram,
    sbc_ranks,
)
from gpkit.diagnostics.findings import Finding, FindingGroup, group_findings, sort_findings
from gpkit.diagnostics.information import (
    Elpd,
    InformationCriteria,
    ModelScore,
    compare_table,
    elpd_difference,
    elpd_loo,
    gaussian_log_density,
    information_criteria,
    loo_from_solve,
)
from gpkit.diagnostics.posterior import ParameterSummary, PosteriorSummary, convergence_warnings, summarise
from gpkit.diagnostics.residuals import (
    ResidualChecks,
    TestResult,
    anderson_darling,
    autocorrelation,
    check_residuals,
    ljung_box,
    runs_test,
)
from gpkit.diagnostics.spectra import (
    BinnedPeriodogram,
    Periodogram,
    bin_periodogram,
    celerite_from_power,
    expected_periodogram,
    frequency_grid,
    frequency_limits,
    noise_floor,
    periodogram,
    power_from_celerite,
)
from gpkit.diagnostics.warnings import (
    collapse_findings,
    data_findings,
    jitter_findings,
    optimum_findings,
    residual_findings,
    sampler_findings,
    timescale_findings,
)

__all__ = [
    "BinnedPeriodogram",
    "Coverage",
    "Elpd",
    "Finding",
    "FindingGroup",
    "InformationCriteria",
    "ModelScore",
    "ParameterSummary",
    "Periodogram",
    "PosteriorSummary",
    "RankHistogram",
    "ResidualChecks",
    "TestResult",
    "anderson_darling",
    "autocorrelation",
    "bin_periodogram",
    "celerite_from_power",
    "check_residuals",
    "collapse_findings",
    "compare_table",
    "convergence_warnings",
    "coverage",
    "crps_gaussian",
    "data_findings",
    "elpd_difference",
    "elpd_loo",
    "expected_periodogram",
    "frequency_grid",
    "frequency_limits",
    "gaussian_log_density",
    "group_findings",
    "information_criteria",
    "jitter_findings",
    "ljung_box",
    "loo_from_solve",
    "noise_floor",
    "optimum_findings",
    "periodogram",
    "pit",
    "pit_histogram",
    "power_from_celerite",
    "rank_histogram",
    "residual_findings",
    "runs_test",
    "sampler_findings",
    "sbc_ranks",
    "sort_findings",
    "summarise",
    "timescale_findings",
]
