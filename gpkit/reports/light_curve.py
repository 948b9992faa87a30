"""The report about one light curve: sections, tables and words put together from its content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gpkit.diagnostics.findings import group_findings
from gpkit.diagnostics.residuals import ResidualChecks, check_residuals
from gpkit.diagnostics.units import pretty_unit
from gpkit.reports import light_curve_figures as figures
from gpkit.reports.content import KernelSection, LightCurveSection, Quantity, ReportContent
from gpkit.reports.document import Block, Facts, FindingList, Paragraph, Report, Section, Table, fixed, number
from gpkit.reports.run import run_section
from gpkit.reports.summary import all_findings, headline, ranking, summary
from gpkit.reports.writing import write_report

METHOD = (
    "Each kernel was fitted by maximising the exact likelihood of a Gaussian process with the stated covariance, white "
    "noise of the given errors, and the parameters in the tables.",
    "AICc = 2k − 2 ln L + 2k(k + 1)/(n − k − 1) with k free parameters and n points (Hurvich and Tsai 1989); "
    "BIC = k ln n − 2 ln L. Smaller is better; differences below 2 say nothing.",
    "elpd is the sum of the log densities of each point given all the others, from the exact leave-one-out formulas of "
    "a Gaussian process (Sundararajan and Keerthi 2001); larger is better. Its standard error, and that of differences "
    "(paired by points), treat the points as exchangeable (Vehtari, Gelman and Gabry 2017).",
    "Power spectra are one-sided in frequency f and normalised to the variance: ∫ P(f) df = σ². In the two-sided "
    "convention of celerite, P(f) = 2 √(2π) S(2πf). The level of white noise is 2⟨σ²⟩T/N. The periodogram is that of "
    "Lomb and Scargle with a floating mean, at multiples of 1/T up to 1/(2 median Δt).",
    "Residuals are tested at the 1 % level. Parameters were fitted to the same points, which makes the tests of the "
    "distribution lenient. A sampler counts as converged with R̂ ≤ 1.01, bulk and tail effective sample sizes of at "
    "least 400 and at most 1 % divergent draws.",
)


def light_curve_report(content: ReportContent, path: str | Path, *, progress: bool = False) -> tuple[Path, Path]:
    """Write the report and the numbers in it.

    Args:
        content: What to report.
        path: The HTML file to write, or a folder (made if needed) for ``report.html``. The JSON file
            ``summary.json`` is written beside ``report.html``; beside any other name, ``<name>.json``.
        progress: Whether a bar is shown where stderr is a terminal.

    Returns:
        The paths of the HTML file and of the JSON file; both appear only when they are complete.
    """
    return write_report(build_report(content, progress=progress).html(), summary(content), path)


def build_report(content: ReportContent, *, progress: bool = False) -> Report:
    """Put the report together, figures included, without writing anything."""
    curve, table = content.light_curve, ranking(content)
    spectrum = figures.spectrum_of(curve)
    kernels = {kernel.name: kernel for kernel in content.kernels}
    name = curve.name or "light curve"
    sections = [_summary_section(content, table), _data_section(curve)]
    if len(table) > 1:
        sections.append(_comparison_section(table, content))
    rows = tqdm(table, desc="report", unit="kernel", leave=False, disable=None if progress else True)
    for index, row in enumerate(rows):
        sections.append(_kernel_section(index, kernels[row["name"]], curve, spectrum))
    sections.append(Section("method", "Method and conventions", [Paragraph(text, "fine") for text in METHOD]))
    sections.append(run_section(content.run))
    versions = content.run.versions
    made = f"Made with gpkit {versions['gpkit']}." if "gpkit" in versions else "Made with gpkit."
    about = " · ".join(part for part in (curve.source, content.run.date) if part)
    subtitle = f"Gaussian process analysis of {curve.n} points" + (f" · {about}" if about else "")
    return Report(f"{name}: variability report", subtitle, sections, footer=made)


def _summary_section(content: ReportContent, table: list[dict[str, Any]]) -> Section:
    curve = content.light_curve
    findings = all_findings(content)
    called = {kernel.name: kernel.called for kernel in content.kernels}
    findings = [replace(finding, kernel=called.get(finding.kernel, finding.kernel)) for finding in findings]
    blocks: list[Block] = [FindingList(group_findings(findings))] if findings else []
    blocks += [
        Paragraph(sentence, "lead" if index == 0 else "text") for index, sentence in enumerate(headline(content))
    ]
    facts = [
        ("Points fitted", str(curve.n)),
        ("Upper limits", f"{curve.n_upper_limits} (not fitted)" if curve.n_upper_limits else "0"),
        ("Rows dropped", str(curve.n_dropped)),
        ("Baseline", f"{number(curve.baseline)} {curve.time_unit}"),
        ("Median sampling", f"{number(curve.median_cadence, 3)} {curve.time_unit}"),
        ("Scale of the model", "ln(value)" if curve.transform == "log" else "value"),
    ]
    best = next(kernel for kernel in content.kernels if kernel.name == table[0]["name"])
    leading = f"{best.called}: " if len(table) > 1 else ""
    facts += [(f"{leading}{q.name}", _with_interval(q)) for q in best.timescales[:2]]
    blocks.append(Facts(facts))
    return Section("summary", "Summary", blocks)


def _data_section(curve: LightCurveSection) -> Section:
    ratio = np.median(np.abs(curve.value) / np.where(curve.error > 0, curve.error, np.nan))
    rows = [
        ("First time", f"{number(float(curve.time[0]), 9)} {curve.time_unit}"),
        ("Last time", f"{number(float(curve.time[-1]), 9)} {curve.time_unit}"),
        ("Median value", _with_unit(float(np.median(curve.value)), curve.value_unit)),
        ("Standard deviation of the values", _with_unit(float(np.std(curve.value)), curve.value_unit)),
        ("Median error", _with_unit(float(np.median(curve.error)), curve.value_unit)),
        ("Median of value / error", number(float(ratio), 3)),
        ("Longest gap", f"{number(float(np.max(np.diff(curve.time), initial=0.0)))} {curve.time_unit}"),
        ("Points at the time of the one before", str(curve.n_repeated_times)),
        ("Upper limits left out of the fit", str(curve.n_upper_limits)),
        *((f"Rows dropped: {reason}", str(count)) for reason, count in curve.exclusions.items()),
    ]
    table = Table(("Quantity", "Value"), rows, "The data, and every row that was left out.", text_columns=(0,))
    return Section("data", "Data", [figures.data_picture(curve), table])


def _comparison_section(table: list[dict[str, Any]], content: ReportContent) -> Section:
    titles = {kernel.name: kernel.heading for kernel in content.kernels}
    bad = {kernel.name for kernel in content.kernels if not kernel.converged}
    rows = [
        (
            titles[row["name"]] + (" (not converged)" if row["name"] in bad else ""),
            str(row["n_parameters"]),
            fixed(row["log_likelihood"], 2),
            fixed(row["aicc"], 1),
            fixed(row["delta_aicc"], 1),
            fixed(row["bic"], 1),
            fixed(row["delta_bic"], 1),
            _plus_minus(row["elpd_loo"], row["elpd_loo_se"]),
            _plus_minus(row["delta_elpd"], row["delta_elpd_se"]),
        )
        for row in table
    ]
    blocks: list[Block] = [
        Table(
            ("Kernel", "k", "ln L", "AICc", "ΔAICc", "BIC", "ΔBIC", "elpd (LOO)", "Δelpd"),
            rows,
            "Sorted by AICc, best first. Δ: difference to the best of each column; ± one standard error. All scores "
            "are about the values as measured"
            + (", the Jacobian of the logarithm included." if content.light_curve.transform == "log" else "."),
            best=(0,),
        )
    ]
    chart = figures.comparison_picture(table, {kernel.name: kernel.called for kernel in content.kernels})
    if chart is not None:
        blocks.append(chart)
    return Section("comparison", "Comparison of kernels", blocks)


def _kernel_section(
    index: int, kernel: KernelSection, curve: LightCurveSection, spectrum: figures.Spectrum | None
) -> Section:
    anchor = f"kernel-{index + 1}"
    intro: list[Block] = []
    if kernel.formula:
        intro.append(Paragraph(kernel.formula, "code"))
    about = [f"Regime: {kernel.regime}." if kernel.regime else "", _sampling_words(kernel)]
    intro.append(Paragraph(" ".join(part for part in about if part)))
    intro.append(figures.fit_picture(curve, kernel))
    closer = figures.closer_picture(curve, kernel)
    if closer is not None:
        intro.append(closer)
    sections = []
    tables = _quantity_tables(kernel)
    if tables:
        sections.append(Section(f"{anchor}-parameters", "Parameters and time scales", tables))
    if len(kernel.residuals):
        checks = check_residuals(kernel.residuals)
        blocks: list[Block] = [figures.residual_picture(kernel, checks), _test_table(checks)]
        calibration = figures.pit_picture(kernel)
        if calibration is not None:
            blocks.append(calibration)
        sections.append(Section(f"{anchor}-residuals", "Residuals and calibration", blocks))
    psd = figures.psd_picture(curve, kernel, spectrum)
    if psd is not None:
        sections.append(Section(f"{anchor}-psd", "Power spectrum", [psd]))
    posterior = figures.posterior_pictures(kernel)
    if posterior:
        sections.append(Section(f"{anchor}-posterior", "Posterior draws", posterior))
    return Section(anchor, kernel.heading, intro, sections)


def _sampling_words(kernel: KernelSection) -> str:
    seconds = f" Time taken: {number(kernel.seconds, 2)} s." if np.isfinite(kernel.seconds) else ""
    if not kernel.sampled:
        return "Maximum likelihood only: no posterior was sampled, so there are no intervals." + seconds
    divergences = kernel.divergences or 0
    draws = ""
    if kernel.posterior is not None:
        sizes = kernel.posterior.posterior.sizes
        draws = f": {sizes['chain']} chains of {sizes['draw']} draws, {divergences} divergent"
    return f"Sampled{draws}." + seconds


def _quantity_tables(kernel: KernelSection) -> list[Block]:
    interval = f"{100 * kernel.hdi_probability:.0f} % HDI"
    tables: list[Block] = []
    for quantities, name, what in (
        (kernel.parameters, "Parameter", "Parameters in natural units."),
        (kernel.timescales, "Time scale", "Time scales that follow from the parameters."),
    ):
        if not quantities:
            continue
        diagnosed = any(np.isfinite(q.rhat) or np.isfinite(q.ess) for q in quantities)
        columns = [name, "Unit", "Optimum"]
        columns += ["Median", interval] if kernel.sampled else []
        columns += ["R̂", "ESS"] if diagnosed else []
        columns += ["Note"] if any(q.note or q.on_bound for q in quantities) else []
        rows = []
        for q in quantities:
            cells = [q.name, pretty_unit(q.unit), number(q.map)]
            cells += [number(q.median), _interval(q)] if kernel.sampled else []
            cells += [fixed(q.rhat, 3), fixed(q.ess, 0)] if diagnosed else []
            note = "; ".join(part for part in ("on the bound" if q.on_bound else "", q.note) if part)
            rows.append((cells + [note])[: len(columns)])
        meaning = f" HDI: the shortest interval that holds {100 * kernel.hdi_probability:.0f} % of the posterior."
        words = (0, 1, len(columns) - 1) if columns[-1] == "Note" else (0, 1)
        caption = what + (" Optimum: where the likelihood (times prior, if any) is largest.")
        tables.append(Table(columns, rows, caption + (meaning if kernel.sampled else ""), text_columns=words))
    return tables


def _test_table(checks: ResidualChecks) -> Table:
    rows = []
    for test in checks.tests.values():
        lags = f" ({test.lags} lags)" if test.lags is not None else ""
        p_value = "< 0.0001" if test.p_value < 1e-4 else number(test.p_value, 3)
        rows.append((test.name + lags, number(test.statistic, 3), p_value, test.verdict))
    dropped = f"; {checks.n_dropped} not finite and left out" if checks.n_dropped else ""
    caption = (
        f"Tests of {checks.n} whitened residuals{dropped}. Mean {fixed(checks.mean, 3)}, standard deviation "
        f"{fixed(checks.sd, 3)}, skewness {fixed(checks.skewness, 2)}, excess kurtosis "
        f"{fixed(checks.excess_kurtosis, 2)}, largest {fixed(checks.largest, 1)}. Level of the verdicts: "
        f"{100 * checks.level:.0f} %."
    )
    return Table(("Test", "Statistic", "p-value", "Verdict"), rows, caption, text_columns=(0, 3))


def _with_interval(quantity: Quantity) -> str:
    value = quantity.median if np.isfinite(quantity.median) else quantity.map
    spread = (
        f" [{number(quantity.hdi_low, 3)}, {number(quantity.hdi_high, 3)}]" if np.isfinite(quantity.hdi_low) else ""
    )
    return f"{number(value, 3)}{spread} {pretty_unit(quantity.unit)}".strip()


def _interval(quantity: Quantity) -> str:
    if not np.isfinite(quantity.hdi_low):
        return "–"
    return f"{number(quantity.hdi_low)} to {number(quantity.hdi_high)}"


def _with_unit(value: float, unit: str) -> str:
    """A number with its unit, kept apart where the unit itself begins with a number ("1e-6 ph")."""
    shown = pretty_unit(unit)
    return f"{number(value)} × {shown}" if shown[:1].isdigit() else f"{number(value)} {shown}".strip()


def _plus_minus(value: float, error: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{fixed(value, 1)} ± {fixed(error, 1)}" if np.isfinite(error) and error > 0 else fixed(value, 1)
