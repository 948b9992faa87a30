"""Posterior draws summarised, by ArviZ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.findings import Finding
from gpkit.diagnostics.warnings import sampler_findings
from gpkit.errors import InvalidDataError

HDI_PROBABILITY = 0.68
"""Probability of the highest-density intervals that are quoted by default: that of one sigma."""


@dataclass(frozen=True)
class ParameterSummary:
    """One scalar of the posterior.

    Attributes:
        name: Name, with an index for entries of arrays ("offset[2]").
        median: Posterior median.
        hdi_low: Lower end of the highest-density interval.
        hdi_high: Its upper end.
        mean: Posterior mean.
        sd: Posterior standard deviation.
        rhat: Rank-normalised split R-hat; NaN with one chain.
        ess_bulk: Effective sample size in the bulk.
        ess_tail: Effective sample size in the tails.
        mcse_median: Monte Carlo standard error of the median.
    """

    name: str
    median: float
    hdi_low: float
    hdi_high: float
    mean: float
    sd: float
    rhat: float
    ess_bulk: float
    ess_tail: float
    mcse_median: float


@dataclass(frozen=True)
class PosteriorSummary:
    """The whole posterior.

    Attributes:
        parameters: One entry per scalar.
        hdi_probability: Probability of the intervals.
        n_chains: Number of chains.
        n_draws: Number of draws, all chains together.
        divergences: Number of divergent transitions; 0 where the sampler does not say.
        bfmi: Bayesian fraction of missing information, one per chain; empty where the sampler gives no energies.
    """

    parameters: tuple[ParameterSummary, ...]
    hdi_probability: float
    n_chains: int
    n_draws: int
    divergences: int
    bfmi: FloatArray

    @property
    def max_rhat(self) -> float:
        """Largest R-hat of parameters that vary; NaN with one chain."""
        return max((p.rhat for p in self._varying if np.isfinite(p.rhat)), default=float("nan"))

    @property
    def min_ess(self) -> float:
        """Smallest bulk or tail effective sample size of parameters that vary."""
        sizes = [size for p in self._varying for size in (p.ess_bulk, p.ess_tail)]
        return min(sizes, default=float("nan")) if not np.isnan(sizes).any() else float("nan")

    @property
    def converged(self) -> bool:
        """Whether no finding says that the draws must not be used."""
        return not any(finding.level == "error" for finding in convergence_warnings(self))

    @property
    def _varying(self) -> list[ParameterSummary]:
        return [p for p in self.parameters if p.sd > 0 or np.isnan(p.sd)]


def summarise(
    inference_data: Any,
    var_names: Sequence[str] | None = None,
    *,
    hdi_probability: float = HDI_PROBABILITY,
) -> PosteriorSummary:
    """Summarise the posterior group: medians, intervals, R-hat, effective sample sizes, divergences.

    Args:
        inference_data: An `arviz.InferenceData`; `diverging` and `energy` of its `sample_stats` are used if there.
        var_names: Variables to look at; None: all of the group.
        hdi_probability: Probability of the highest-density intervals.

    Raises:
        InvalidDataError: If there is no posterior group, or a variable is not in it.
    """
    import arviz

    if "posterior" not in inference_data.groups():
        raise InvalidDataError(f"no posterior group; groups: {', '.join(inference_data.groups()) or 'none'}")
    posterior = inference_data.posterior
    names = list(posterior.data_vars) if var_names is None else list(var_names)
    unknown = [name for name in names if name not in posterior.data_vars]
    if unknown:
        raise InvalidDataError(
            f"no variable {unknown[0]!r} in the posterior; there are {', '.join(posterior.data_vars)}"
        )
    n_chains, n_draws = int(posterior.sizes["chain"]), int(posterior.sizes["draw"])
    entries = []
    for name, draws in _scalars(posterior, names).items():
        low, high = arviz.hdi(draws.reshape(-1), hdi_prob=hdi_probability)
        enough = n_draws >= 4 and np.ptp(draws) > 0  # ArviZ splits chains, and divides by their variance
        entries.append(
            ParameterSummary(
                name=name,
                median=float(np.median(draws)),
                hdi_low=float(low),
                hdi_high=float(high),
                mean=float(draws.mean()),
                sd=float(draws.std()),
                rhat=float(arviz.rhat(draws)) if enough and n_chains > 1 else float("nan"),
                ess_bulk=float(arviz.ess(draws, method="bulk")) if enough else float("nan"),
                ess_tail=float(arviz.ess(draws, method="tail")) if enough else float("nan"),
                mcse_median=float(arviz.mcse(draws, method="median")) if enough else float("nan"),
            )
        )
    statistics: Mapping[str, Any] = (
        inference_data.sample_stats.data_vars if "sample_stats" in inference_data.groups() else {}
    )
    energy = np.asarray(statistics["energy"], dtype=np.float64) if "energy" in statistics else None
    return PosteriorSummary(
        parameters=tuple(entries),
        hdi_probability=hdi_probability,
        n_chains=n_chains,
        n_draws=n_chains * n_draws,
        divergences=int(np.sum(statistics["diverging"])) if "diverging" in statistics else 0,
        bfmi=np.empty(0) if energy is None else np.atleast_1d(arviz.bfmi(energy)).astype(np.float64),
    )


def convergence_warnings(summary: PosteriorSummary, *, kernel: str = "") -> list[Finding]:
    """Findings about the sampler; see :func:`gpkit.diagnostics.warnings.sampler_findings` for the rules."""
    return sampler_findings(
        max_rhat=summary.max_rhat,
        min_ess=summary.min_ess,
        divergences=summary.divergences,
        n_draws=summary.n_draws,
        n_chains=summary.n_chains,
        min_bfmi=float(np.min(summary.bfmi)) if len(summary.bfmi) else float("nan"),
        kernel=kernel,
    )


def _scalars(posterior: Any, names: Sequence[str]) -> dict[str, FloatArray]:
    """Draws of every scalar, ``chain draw``, by name."""
    scalars = {}
    for name in names:
        variable = posterior[name].transpose("chain", "draw", ...)
        values = np.asarray(variable, dtype=np.float64)
        for index in np.ndindex(values.shape[2:]):
            label = f"{name}[{', '.join(str(i) for i in index)}]" if index else name
            scalars[label] = values[(..., *index)]
    return scalars
