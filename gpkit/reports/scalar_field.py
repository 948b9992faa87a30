"""The report about a function on a manifold or a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpkit.diagnostics.field_plots import View, eigenvalue_title, plot_field
from gpkit.diagnostics.network_plots import plot_node_values
from gpkit.diagnostics.style import label, new_figure
from gpkit.reports.document import Block, Picture, Report, Section, number, picture
from gpkit.reports.field_content import ScalarFieldContent
from gpkit.reports.field_sections import (
    COMPARED,
    LAID_OUT,
    field_numbers,
    field_report,
    shared_sections,
    spectrum_blocks,
    summary_section,
    two_sides,
)
from gpkit.reports.writing import write_report

__all__ = ["build_scalar_field_report", "scalar_field_report", "scalar_field_summary"]

METHOD = (
    "The values are a Gaussian process around a constant (or zero). Intrinsic kernels are functions of the Laplacian "
    "of the proximity graph, mesh or network; projected kernels are kernels of the surrounding space.",
    COMPARED,
)


def scalar_field_report(content: ScalarFieldContent, path: str | Path) -> tuple[Path, Path]:
    """Write the report and the numbers in it, as :func:`~gpkit.reports.writing.write_report` does."""
    return write_report(build_scalar_field_report(content).html(), scalar_field_summary(content), path)


def scalar_field_summary(content: ScalarFieldContent) -> dict[str, Any]:
    """The content of ``summary.json``: plain data in natural units."""
    return {
        **field_numbers(content),
        "nodes": len(content.points),
        "range_of_mean": [float(content.mean.min()), float(content.mean.max())],
    }


def build_scalar_field_report(content: ScalarFieldContent) -> Report:
    """Put the report together, figures included, without writing anything."""
    unit = content.value_unit
    low, high = float(content.mean.min()), float(content.mean.max())
    facts = [
        ("Values", str(content.observed)),
        ("Nodes", str(len(content.points))),
        ("Range of the mean", f"{number(low)} to {number(high)} {unit}".strip()),
    ]
    what = "network" if len(content.edges) else "manifold"
    sections = [
        summary_section(content, facts, f"The {what} as it was understood."),
        _maps(content),
        *shared_sections(content),
    ]
    if content.spectra:
        sections.append(_spectrum(content))
    subtitle = f"{content.observed} values on a {what} of {len(content.points)} nodes"
    return field_report(content, "function", subtitle, sections, METHOD)


def _draw(content: ScalarFieldContent, value: Any, view: View, ax: Any, **options: Any) -> None:
    """A value at all nodes as colours, on a surface, on a cloud, or over the edges of a network."""
    if len(content.edges):
        plot_node_values(content.points, content.edges, value, ax=ax, **options)
        return
    triangles = content.triangles if len(content.triangles) else None
    still = np.zeros_like(content.points)
    surface: dict[str, Any] = {"triangles": triangles, "normals": content.normals}
    plot_field(content.points, still, value=value, arrows=1, view=view, ax=ax, **surface, **options)


def _map(content: ScalarFieldContent, value: Any, text: str, *, signed: bool, observed: bool, **words: str) -> Picture:
    """A picture of a value at all nodes."""
    nodes = content.observed_nodes if observed and len(content.observed_nodes) else None

    def draw(ax: Any, view: View) -> None:
        named = label(text, content.value_unit)
        _draw(content, value, view, ax, value_label=named, diverging=signed, observed=nodes)

    return two_sides(content, draw, **words)


def _maps(content: ScalarFieldContent) -> Section:
    signed = bool(content.mean.min() < 0.0 < content.mean.max())
    dots = "dark rims" if len(content.edges) else "white dots"
    marked = f"; {dots}: observed nodes." if len(content.observed_nodes) else "."
    paper = LAID_OUT if content.laid_out else ""
    blocks: list[Block] = [
        _map(
            content,
            content.mean,
            "Mean",
            signed=signed,
            observed=True,
            alt="Posterior mean as colour.",
            caption=f"Posterior mean{marked}{paper}",
        ),
        _map(
            content,
            content.standard_deviation,
            "Standard deviation",
            signed=False,
            observed=False,
            alt="Posterior standard deviation as colour.",
            caption="Posterior standard deviation, noise not included.",
        ),
    ]
    return Section("field", "The function", blocks)


def _spectrum(content: ScalarFieldContent) -> Section:
    blocks = spectrum_blocks(content, "the Laplacian")
    if len(content.eigenfunctions):
        columns, eigenvalues = 4, content.spectra[0].eigenvalues
        figure = new_figure(9.6, 2.3 * -(-len(content.eigenfunctions) // columns))
        for place, function in enumerate(content.eigenfunctions):
            ax = figure.add_subplot(-(-len(content.eigenfunctions) // columns), columns, place + 1)
            view = View(90.0, -90.0) if content.points.shape[1] == 2 else View()
            _draw(content, function, view, ax, diverging=True)
            figure.axes[-1].remove()  # the colour bar: these have no unit
            ax.set_title(eigenvalue_title(eigenvalues[place], eigenvalues.max()), fontsize=8)
        caption = "The smoothest eigenfunctions with their eigenvalues; their sign means nothing."
        blocks.append(picture(figure, alt="Gallery of eigenfunctions.", caption=caption, crowded=True))
    return Section("spectrum", "Spectrum", blocks)
