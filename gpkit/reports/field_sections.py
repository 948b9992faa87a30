"""Sections that reports about vector fields, functions and edge flows share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpkit.diagnostics.calibration import coverage
from gpkit.diagnostics.field_plots import View, plot_field_spectrum
from gpkit.diagnostics.field_views import in_space
from gpkit.diagnostics.findings import as_plain, group_findings
from gpkit.diagnostics.plots import plot_pit, plot_qq
from gpkit.diagnostics.style import new_figure
from gpkit.diagnostics.units import pretty_unit
from gpkit.reports.document import (
    Block,
    Facts,
    FindingList,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
    fixed,
    number,
    picture,
)
from gpkit.reports.field_content import FieldContent, ScalarFieldContent, VectorFieldContent
from gpkit.reports.run import run_section

__all__ = ["field_numbers", "field_report", "shared_sections", "spectrum_blocks", "summary_section", "two_sides"]

COMPARED = (
    "Kernels are compared by their evidence: the maximum of likelihood times prior with Laplace's approximation of the "
    "volume around it. elpd is the sum of log densities of each observed place given all the others. A kernel times "
    "speed has an amplitude that varies from place to place: speeds are its factors at landmarks among the observed "
    "places, as uncertain as their scatter says when places are left out."
)
"""How kernels are compared, for sections on the method."""
LAID_OUT = " The nodes have no coordinates: their places on paper come from edges or modes alone."
"""For captions of networks without places."""


def field_report(
    content: FieldContent, kind: str, subtitle: str, sections: Sequence[Section], method: Sequence[str]
) -> Report:
    """A whole report.

    Args:
        content: What it is about.
        kind: Of the report, for its title.
        subtitle: What was observed, in words.
        sections: All but the method and the run.
        method: Paragraphs about the method.
    """
    versions = content.run.versions
    made = f"Made with gpkit {versions['gpkit']}." if "gpkit" in versions else "Made with gpkit."
    date = f" · {content.run.date}" if content.run.date else ""
    last = [
        Section("method", "Method and conventions", [Paragraph(text, "fine") for text in method]),
        run_section(content.run),
    ]
    return Report(f"{content.title}: {kind} report", subtitle + date, [*sections, *last], footer=made)


def field_numbers(content: FieldContent) -> dict[str, Any]:
    """What the ``summary.json`` of all reports about fields has, in natural units."""
    return {
        "title": content.title,
        "observed": content.observed,
        "kernel": content.kernel,
        "verdict": content.verdict,
        "parameters": {p["name"]: {k: v for k, v in p.items() if k != "name"} for p in content.parameters},
        "kernels": {
            k.name: {
                "log_evidence": k.log_evidence,
                "elpd_loo": k.elpd,
                "weight": content.weights.get(k.name, 0.0),
                "n_parameters": k.n_parameters,
                "converged": k.converged,
            }
            for k in content.kernels
        },
        "left_out": dict(content.left_out),
        "coverage": {f"{level.probability:g}": level.observed for level in coverage(content.pit)},
        "warnings": [as_plain(finding) for finding in content.findings],
    }


def summary_section(content: FieldContent, facts: Sequence[tuple[str, str]], caption: str) -> Section:
    """Findings, the verdict, the numbers that a reader looks for, and what the manifold or network is."""
    blocks: list[Block] = [FindingList(group_findings(content.findings))] if content.findings else []
    blocks.append(Paragraph(content.verdict, "lead"))
    unit = pretty_unit(content.value_unit)
    squares = np.square(content.mean).reshape(len(content.mean), -1).sum(1)
    common = [
        ("Kernel", content.kernel),
        ("Root mean square of the mean", f"{number(float(np.sqrt(squares.mean())))} {unit}".strip()),
        ("Median standard deviation", f"{number(float(np.median(content.standard_deviation)))} {unit}".strip()),
    ]
    blocks.append(Facts([*facts[:2], *common, *facts[2:]]))
    blocks.append(Table(("Quantity", "Value"), list(content.geometry), caption, text_columns=(0, 1)))
    return Section("summary", "Summary", blocks)


def two_sides(content: VectorFieldContent | ScalarFieldContent, draw: Any, *, alt: str, caption: str) -> Picture:
    """One picture of both sides of a surface, or of the only view that there is."""
    view = View(90.0, -90.0) if content.points.shape[1] == 2 else View()
    across, up = np.ptp(in_space(content.points)[0] @ view.axes.T, axis=0)[:2]
    upright = min(float(up) / max(float(across), 1e-300), 1.0)  # a flat shape takes no more paper than it needs
    if content.normals is None:
        figure = new_figure(5.6, 1.0 + 3.6 * upright)
        draw(figure.add_subplot(), view)
    else:
        figure = new_figure(9.6, 1.0 + 3.4 * upright)
        for column, side in enumerate((view, view.opposite())):
            draw(figure.add_subplot(1, 2, column + 1), side)
        caption += " Left: from the front; right: from behind."
    return picture(figure, alt=alt, caption=caption, crowded=len(content.points) > 400)


def shared_sections(content: FieldContent) -> list[Section]:
    """Comparison of kernels, parameters, calibration."""
    return [_comparison(content), _parameters(content), _calibration(content)]


def _comparison(content: FieldContent) -> Section:
    top = content.kernels[0].log_evidence
    rows = [
        (
            row.name + ("" if row.converged else " (not converged)"),
            str(row.n_parameters),
            fixed(row.log_evidence, 1),
            fixed(row.log_evidence - top, 1),
            fixed(row.elpd, 1),
            fixed(100.0 * content.weights[row.name], 0) if row.name in content.weights else "",
        )
        for row in content.kernels
    ]
    used = [i for i, row in enumerate(content.kernels) if row.name == content.kernel]
    blocks: list[Block] = [
        Table(
            ("Kernel", "k", "ln evidence", "Δ", "elpd (LOO)", "Weight (%)"),
            rows,
            "Sorted by evidence, best first; parameters below are those of the first. k: number of parameters. Weight: "
            "share in the predictions, a mixture that predicts left-out places best.",
            best=used,
        )
    ]
    if content.left_out:
        reasons = list(content.left_out.items())
        blocks.append(Table(("Kernel", "Reason"), reasons, "Kernels that were not fitted.", text_columns=(0, 1)))
    return Section("comparison", "Comparison of kernels", blocks)


def _parameters(content: FieldContent) -> Section:
    sampled = any("median" in p for p in content.parameters)
    columns = ["Parameter", "Unit", "Optimum", *(["Median", "95 % interval"] if sampled else []), "Note"]
    rows = []
    for p in content.parameters:
        cells = [p["name"], pretty_unit(p["unit"]), number(p["value"])]
        if sampled:
            known = "median" in p
            cells += [number(p["median"]), f"{number(p['low'])} to {number(p['high'])}"] if known else ["–", "–"]
        rows.append([*cells, "on the bound" if p.get("at_bound") else ""])
    caption = (
        "Parameters at the maximum of likelihood times prior, in natural units; amplitudes are standard deviations."
    )
    return Section("parameters", "Parameters", [Table(columns, rows, caption, text_columns=(0, 1, len(columns) - 1))])


def _calibration(content: FieldContent) -> Section:
    figure = new_figure(7.4, 3.0)
    plot_qq(content.residuals, ax=figure.add_subplot(1, 2, 1))
    plot_pit(content.pit, ax=figure.add_subplot(1, 2, 2))
    blocks: list[Block] = [
        picture(
            figure,
            alt="Quantiles of leave-one-out residuals against a normal distribution, and their histogram.",
            caption="Each observed place is predicted from all the others; standardised residuals of its coordinates "
            "against the normal distribution, and their probability integral transform.",
        )
    ]
    rows = [
        (
            f"{100 * level.probability:.0f} %",
            fixed(100 * level.observed, 1),
            f"{fixed(100 * level.low, 1)} to {fixed(100 * level.high, 1)}",
        )
        for level in coverage(content.pit)
    ]
    caption = "Share of left-out coordinates inside the central intervals, and the range expected if calibrated."
    blocks.append(Table(("Interval", "Observed (%)", "Expected (%)"), rows, caption))
    if content.calibrated:
        blocks.append(Paragraph(content.calibrated))
    return Section("calibration", "Calibration", blocks)


def spectrum_blocks(content: FieldContent, of: str) -> list[Block]:
    """Eigenvalues by mode with the filter of the kernel, a panel a part.

    Args:
        content: Of the report.
        of: What the eigenvalues are of, for the caption.
    """
    shown = [part for part in content.spectra if len(part.eigenvalues) and np.ptp(part.eigenvalues) > 0.0]
    shown = shown or list(content.spectra)
    figure = new_figure(6.4 if len(shown) == 1 else 4.6 * len(shown), 3.0)
    total = sum(float(part.variances.sum()) for part in content.spectra)
    for column, part in enumerate(shown):
        ax = figure.add_subplot(1, len(shown), column + 1)
        known = len(part.variances) == len(part.eigenvalues) and total > 0.0
        plot_field_spectrum(
            part.eigenvalues, part.variances if known else None, total=total, unit=content.length_unit, ax=ax
        )
        ax.set_title(part.name.capitalize())
    whose = f" under {content.spectrum_of}" if content.spectrum_of else ""
    caption = f"Eigenvalues of {of} by mode, and the share of the variance{whose} in each (the filter)."
    for part in content.spectra:
        if part not in shown and total > 0.0:
            share = 100.0 * float(part.variances.sum()) / total
            alike = "one mode" if len(part.eigenvalues) == 1 else f"{len(part.eigenvalues)} alike modes"
            caption += f" The {part.name} part has {alike} of eigenvalue zero, with {share:.2g} % of the variance."
    return [picture(figure, alt="Eigenvalues and variances by mode.", caption=caption)]
