"""The numbers of a report: the ranking, the findings, the headline in words, and ``summary.json``."""

from __future__ import annotations

import math
from typing import Any

from gpkit.diagnostics.findings import Finding, as_plain, sort_findings
from gpkit.diagnostics.information import best, compare_table
from gpkit.diagnostics.residuals import check_residuals
from gpkit.diagnostics.warnings import count_tiny_errors, data_findings, residual_findings
from gpkit.reports.content import KernelSection, Quantity, ReportContent

DECISIVE = 10.0
"""Differences of AICc above this leave essentially no support for the worse model (Burnham and Anderson 2002)."""
NOTABLE = 2.0
"""Differences of AICc below this say nothing."""


def ranking(content: ReportContent) -> list[dict[str, Any]]:
    """The ranking table by AICc; see :func:`gpkit.diagnostics.information.compare_table` for its columns."""
    n = content.light_curve.n
    return compare_table({kernel.name: kernel.score(n) for kernel in content.kernels})


def all_findings(content: ReportContent) -> list[Finding]:
    """Every finding, worst first.

    Findings about the data and about residuals are made here where the content does not bring them.
    """
    curve = content.light_curve
    found = list(content.findings)
    about_data = data_findings(
        n_upper_limits=curve.n_upper_limits,
        exclusions=curve.exclusions,
        n_repeated_times=curve.n_repeated_times,
        n_detections=curve.n,
        n_tiny_errors=count_tiny_errors(curve.error),
    )
    codes = {finding.code for finding in found}
    found += [finding for finding in about_data if finding.code not in codes]
    for row in ranking(content):
        if row["note"] and "aicc-undefined" not in codes:
            found.append(Finding("warning", "aicc-undefined", row["note"] + ".", row["name"]))
    for kernel in content.kernels:
        own = [_of(finding, kernel) for finding in kernel.findings]
        known = {finding.code for finding in own}
        if len(kernel.residuals):
            checks = check_residuals(kernel.residuals)
            own += [f for f in residual_findings(checks, kernel=kernel.name) if f.code not in known]
        if not kernel.converged and not any(finding.level == "error" for finding in own):
            own.append(Finding("error", "not-converged", "The fit did not converge: do not use.", kernel.name))
        found += own
    return sort_findings(found)


def headline(content: ReportContent) -> list[str]:
    """The result in a few sentences that claim no more than the numbers do."""
    table = ranking(content)
    titles = {kernel.name: kernel.called for kernel in content.kernels}
    bad = {kernel.name for kernel in content.kernels if not kernel.converged}
    sentences = []
    with_aicc = [row for row in table if math.isfinite(row["aicc"])]
    if len(table) == 1:
        sentences.append(f"One kernel was fitted, {titles[table[0]['name']]}; nothing is compared.")
    elif len(with_aicc) < 2:
        sentences.append("There are too few points for the number of parameters to compare the kernels by AICc.")
    else:
        sentences.append(_by_aicc(with_aicc, titles))
        sentences += _by_elpd(table, titles)
    if bad:
        names = ", ".join(titles[name] for name in titles if name in bad)
        sentences.append(f"Not converged, and not to be used: {names}.")
    return sentences


def _by_aicc(rows: list[dict[str, Any]], titles: dict[str, str]) -> str:
    first, others = rows[0], rows[1:]
    told = "; ".join(f"{titles[row['name']]} {row['delta_aicc']:.1f} behind" for row in others)
    second = others[0]
    lead, more = second["delta_aicc"], second["n_parameters"] - first["n_parameters"]
    name, other = titles[first["name"]], titles[second["name"]]
    if more > 0 and second["log_likelihood"] - first["log_likelihood"] < 0.5:
        which = "its additional parameter" if more == 1 else f"its {more} additional parameters"
        return f"{name} is preferred by AICc ({told}); {other} fits no better, so {which} only cost{'s' * (more == 1)}."
    if lead < NOTABLE:
        return f"No kernel is preferred by AICc: {name} is lowest, but by less than {NOTABLE:.0f} ({told})."
    strength = "" if lead >= DECISIVE else "; the preference is not decisive"
    return f"{name} is preferred by AICc ({told}){strength}."


def _by_elpd(rows: list[dict[str, Any]], titles: dict[str, str]) -> list[str]:
    scored = sorted((row for row in rows if math.isfinite(row["delta_elpd"])), key=lambda row: -row["elpd_loo"])
    if len(scored) < 2:
        return []
    first, second = scored[0], scored[1]
    gap, error = -second["delta_elpd"], second["delta_elpd_se"]
    told = f"{gap:.1f} ± {error:.1f}"
    if gap < 2 * error or gap < 4:
        return [
            f"Leave-one-out prediction does not separate {titles[first['name']]} from {titles[second['name']]} "
            f"(difference of elpd {told})."
        ]
    return [f"{titles[first['name']]} predicts left-out points best (elpd {told} above {titles[second['name']]})."]


def summary(content: ReportContent) -> dict[str, Any]:
    """The content of ``summary.json``: plain data in natural units, NaN where a number is not known."""
    curve = content.light_curve
    rows = ranking(content)
    by_name = {row["name"]: row for row in rows}
    return {
        "light_curve": {
            "name": curve.name,
            "n": curve.n,
            "n_upper_limits": curve.n_upper_limits,
            "n_dropped": curve.n_dropped,
            "baseline": curve.baseline,
        },
        "kernels": {kernel.name: _kernel(kernel, by_name[kernel.name]) for kernel in content.kernels},
        "best": {"aicc": best(rows, "aicc"), "elpd_loo": best(rows, "elpd_loo")},
        "warnings": [as_plain(finding) for finding in all_findings(content)],
    }


def _kernel(kernel: KernelSection, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "log_likelihood": kernel.log_likelihood,
        "n_parameters": kernel.n_parameters,
        "aicc": row["aicc"],
        "bic": row["bic"],
        "elpd_loo": row["elpd_loo"],
        "elpd_loo_se": row["elpd_loo_se"],
        "parameters": {q.name: _interval(q) | {"rhat": q.rhat, "ess": q.ess} for q in kernel.parameters},
        "timescales": {q.name: _interval(q) for q in kernel.timescales},
        "divergences": kernel.divergences,
        "converged": kernel.converged,
        "seconds": kernel.seconds,
    }


def _interval(quantity: Quantity) -> dict[str, float]:
    return {
        "map": quantity.map,
        "median": quantity.median,
        "hdi_low": quantity.hdi_low,
        "hdi_high": quantity.hdi_high,
    }


def _of(finding: Finding, kernel: KernelSection) -> Finding:
    """The finding, with the name of its kernel."""
    return finding if finding.kernel else Finding(finding.level, finding.code, finding.message, kernel.name)
