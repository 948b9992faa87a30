"""The report about a differential equation: sections, tables and words put together from its content."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpkit.diagnostics.findings import group_findings
from gpkit.reports import pde_figures as figures
from gpkit.reports.document import Block, Facts, FindingList, Paragraph, Report, Section, Table, number
from gpkit.reports.pde_content import FieldSection, PDEContent
from gpkit.reports.run import run_section
from gpkit.reports.writing import write_report

METHOD = (
    "A Gaussian process prior over the fields is conditioned on the equations at collocation points, on the "
    "conditions, and on observations where there are any. The answer is its posterior: mean and standard deviation.",
    "Residuals are measured between the collocation points, where nothing was fitted, by code that shares nothing "
    "with the solver. They are relative to the size of the terms of the equation: 1 means that nothing is satisfied.",
    "A small residual is necessary, not sufficient: how much of it is left in the solution depends on the equation. A "
    "large one is always a reason not to use the solution.",
)


def pde_report(content: PDEContent, path: str | Path) -> tuple[Path, Path]:
    """Write the report and the numbers in it, as :func:`~gpkit.reports.writing.write_report` does."""
    return write_report(build_pde_report(content).html(), dict(content.numbers), path)


def build_pde_report(content: PDEContent) -> Report:
    """Put the report together, figures included, without writing anything."""
    sections = [_summary(content)]
    if content.unknowns:
        sections.append(_unknowns(content))
    sections += [_field(field, index) for index, field in enumerate(content.fields)]
    sections.append(_accuracy(content))
    sections.append(
        Section("method", "Method", [Paragraph(text, "fine") for text in (content.method, *METHOD) if text])
    )
    sections.append(run_section(content.run))
    grid = " × ".join(map(str, content.grid))
    versions = content.run.versions
    made = f"Made with gpkit {versions['gpkit']}." if "gpkit" in versions else "Made with gpkit."
    subtitle = f"Differential equation on {content.domain}, grid {grid}"
    subtitle += f" · {content.run.date}" if content.run.date else ""
    return Report(content.title, subtitle, sections, footer=made)


def _summary(content: PDEContent) -> Section:
    blocks: list[Block] = []
    if content.findings:
        blocks.append(FindingList(group_findings(content.findings)))
        blocks.append(Paragraph("This solution should not be used as it is: see the findings above.", "lead"))
    else:
        blocks.append(Paragraph("Nothing that was checked speaks against this solution.", "lead"))
    blocks.append(Paragraph("\n".join(content.equations), "code"))
    if content.conditions:
        blocks.append(Paragraph("with " + "; ".join(content.conditions) + "."))
    blocks.append(Facts(list(content.facts)))
    return Section("summary", "Summary", blocks)


def _unknowns(content: PDEContent) -> Section:
    rows = [
        (u.name, number(u.mode), number(u.mean), number(u.std, 2), f"{number(u.low)} to {number(u.high)}")
        for u in content.unknowns
    ]
    caption = "Numbers that were inferred from the observations. Interval: central, 95 % of the posterior."
    table = Table(("Unknown", "Mode", "Mean", "Standard deviation", "Interval"), rows, caption)
    return Section("unknowns", "Unknown numbers", [table])


def _field(field: FieldSection, index: int) -> Section:
    blocks: list[Block] = [figures.field_picture(field)]
    if field.error is not None:
        blocks.append(
            figures.map_picture(
                field.error,
                what="|error|",
                caption=f"Distance to the known solution; relative root mean square {number(field.relative_error, 2)}.",
            )
        )
    spectrum = figures.spectrum_picture(field)
    if spectrum is not None:
        blocks.append(spectrum)
    title = f"Unknown coefficient {field.name}" if field.is_unknown else f"Field {field.name}"
    return Section(f"field-{index + 1}", title, blocks)


def _accuracy(content: PDEContent) -> Section:
    blocks: list[Block] = [
        Table(
            ("Check", "Value", "Good"),
            [list(row) for row in content.checks],
            "What is known about the accuracy, without knowing the solution.",
            text_columns=(0, 2),
        )
    ]
    for index, residual in enumerate(content.residuals):
        which = f" of equation {index + 1}" if len(content.residuals) > 1 else ""
        top = float(np.abs(residual.values).max())
        blocks.append(
            figures.map_picture(
                residual,
                what=f"|residual|{which}",
                caption=f"Residual{which} off the grid, relative to the size of its terms; largest {number(top, 2)}.",
            )
        )
    history = figures.history_picture(content.histories)
    if history is not None:
        blocks.append(history)
    return Section("accuracy", "Accuracy", blocks)
