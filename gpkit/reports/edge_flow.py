"""The report about a flow along the edges of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpkit.diagnostics.network_plots import plot_flow, plot_node_values
from gpkit.diagnostics.style import label, new_figure
from gpkit.diagnostics.units import pretty_unit
from gpkit.reports.document import Block, Report, Section, Table, fixed, number, picture
from gpkit.reports.field_content import EdgeFlowContent
from gpkit.reports.field_sections import (
    COMPARED,
    LAID_OUT,
    field_numbers,
    field_report,
    shared_sections,
    spectrum_blocks,
    summary_section,
)
from gpkit.reports.writing import write_report

__all__ = ["build_edge_flow_report", "edge_flow_report", "edge_flow_summary"]

METHOD = (
    "Flows along edges are a Gaussian process. Intrinsic kernels are functions of the Hodge Laplacian, whose modes are "
    "flows down a potential of the nodes (gradient), flows around faces (curl), and flows with neither sources nor "
    "circulation, around holes (harmonic); each part has its own amplitude and length scale.",
    COMPARED,
    "The divergence of a node is the flow out of it less the flow into it; the circulation of a face is the flow along "
    "its sides in the order of its nodes. Both are sums of flows: their means and standard deviations are exact.",
)
_LISTED = 10
"""Nodes in the table of sources and sinks."""
_NORMAL_95 = 1.959963984540054


def edge_flow_report(content: EdgeFlowContent, path: str | Path) -> tuple[Path, Path]:
    """Write the report and the numbers in it, as :func:`~gpkit.reports.writing.write_report` does."""
    return write_report(build_edge_flow_report(content).html(), edge_flow_summary(content), path)


def edge_flow_summary(content: EdgeFlowContent) -> dict[str, Any]:
    """The content of ``summary.json``: plain data in natural units."""
    return {
        **field_numbers(content),
        "nodes": len(content.points),
        "edges": len(content.edges),
        "parts": {
            part.name: {"rms": _rms(part.mean), "share": share, "prior_share": part.prior_share}
            for part, share in zip(content.parts, _shares(content), strict=True)
        },
        "sure_sources": int(_sure(content.divergence, content.divergence_sd).sum()),
        "sure_circulations": int(_sure(content.circulation, content.circulation_sd).sum()),
    }


def build_edge_flow_report(content: EdgeFlowContent) -> Report:
    """Put the report together, figures included, without writing anything."""
    facts = [("Flows observed", str(content.observed)), ("Edges", str(len(content.edges)))]
    facts += [
        (f"{part.name.capitalize()} share of the mean's square", f"{fixed(100.0 * share, 0)} %")
        for part, share in zip(content.parts, _shares(content), strict=True)
    ]
    sections = [summary_section(content, facts, "The network as it was understood."), _flow(content)]
    if content.parts:
        sections.append(_parts(content))
    sections += [*shared_sections(content), _derivatives(content)]
    if content.spectra:
        sections.append(Section("spectrum", "Spectrum", spectrum_blocks(content, "the Hodge Laplacian")))
    subtitle = f"{content.observed} flows on a network of {len(content.edges)} edges"
    return field_report(content, "edge flow", subtitle, sections, METHOD)


def _rms(values: Any) -> float:
    return float(np.sqrt(np.square(values).mean())) if len(values) else 0.0


def _shares(content: EdgeFlowContent) -> list[float]:
    """Of the square of the mean flow, which the parts share without a rest: they are orthogonal."""
    squares = np.array([np.square(part.mean).sum() for part in content.parts])
    total = float(squares.sum())
    return [float(square) / total if total else 0.0 for square in squares]


def _sure(mean: Any, deviation: Any) -> Any:
    return np.abs(mean) > _NORMAL_95 * np.asarray(deviation)


def _flow(content: EdgeFlowContent) -> Section:
    figure = new_figure(7.2, 5.4)
    plot_flow(
        content.points,
        content.edges,
        content.mean,
        value=content.standard_deviation,
        value_label=label("Standard deviation", content.value_unit),
        observed=content.observed_edges,
        ax=figure.add_subplot(),
    )
    paper = LAID_OUT if content.laid_out else ""
    block = picture(
        figure,
        alt="Arrows along the edges of the network.",
        caption="Posterior mean (widths and arrow heads) and its standard deviation (colour); white dots: observed "
        f"edges.{paper}",
        crowded=len(content.edges) > 300,
    )
    return Section("flow", "The flow", [block])


def _parts(content: EdgeFlowContent) -> Section:
    count = len(content.parts)
    figure = new_figure(4.4 * count, 3.8)
    for column, part in enumerate(content.parts):
        ax = figure.add_subplot(1, count, column + 1)
        plot_flow(
            content.points,
            content.edges,
            part.mean,
            value=part.standard_deviation,
            value_label=label("Standard deviation", content.value_unit),
            ax=ax,
        )
        ax.set_title(part.name.capitalize())
    rows = [
        (
            part.name,
            number(_rms(part.mean)),
            fixed(100.0 * share, 1),
            number(float(np.median(part.standard_deviation))),
            fixed(100.0 * part.prior_share, 1),
        )
        for part, share in zip(content.parts, _shares(content), strict=True)
    ]
    columns = ("Part", "Root mean square", "Share (%)", "Median standard deviation", "Share of the prior (%)")
    unit = pretty_unit(content.value_unit)
    blocks: list[Block] = [
        picture(
            figure,
            alt="The parts of the flow.",
            caption="Posterior means of the parts; widths are relative to the largest flow of each.",
            crowded=len(content.edges) > 300,
        ),
        Table(
            columns,
            rows,
            "Share: of the sum of squares of the mean flow; of the prior: of its variance"
            f"{', in ' + unit if unit else ''}.",
        ),
    ]
    return Section("parts", "Gradient, curl and harmonic parts", blocks)


def _derivatives(content: EdgeFlowContent) -> Section:
    figure = new_figure(6.4, 4.8)
    plot_node_values(
        content.points,
        content.edges,
        content.divergence,
        value_label=label("Divergence", content.value_unit),
        diverging=True,
        ax=figure.add_subplot(),
    )
    order = np.argsort(-np.abs(content.divergence))[:_LISTED]
    sure = _sure(content.divergence, content.divergence_sd)
    rows = [
        (
            str(node),
            number(float(content.divergence[node])),
            number(float(content.divergence_sd[node])),
            ("source" if content.divergence[node] > 0.0 else "sink") if sure[node] else "",
        )
        for node in order
    ]
    caption = (
        f"The {len(rows)} largest; the sign of {int(sure.sum())} of {len(content.divergence)} nodes is sure (95 %)."
    )
    blocks: list[Block] = [
        picture(
            figure,
            alt="Divergence of the mean flow at the nodes as colour.",
            caption="Net flow out of every node: sources are positive.",
            crowded=len(content.points) > 400,
        ),
        Table(
            ("Node", "Divergence", "Standard deviation", "Surely a"),
            rows,
            caption,
            text_columns=(0, 3),
        ),
    ]
    if len(content.circulation):
        turning = _sure(content.circulation, content.circulation_sd)
        order = np.argsort(-np.abs(content.circulation))[:_LISTED]
        rows = [
            (
                str(face),
                number(float(content.circulation[face])),
                number(float(content.circulation_sd[face])),
                "yes" if turning[face] else "",
            )
            for face in order
        ]
        caption = (
            f"Flow around faces, the {len(rows)} largest; the sign of {int(turning.sum())} of {len(turning)} is sure "
            "(95 %)."
        )
        columns = ("Face", "Circulation", "Standard deviation", "Sure")
        blocks.append(Table(columns, rows, caption, text_columns=(0, 3)))
    return Section("derivatives", "Sources and circulation", blocks)
