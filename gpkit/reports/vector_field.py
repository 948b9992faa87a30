"""The report about a vector field: sections, tables and words put together from its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpkit.diagnostics.field_plots import (
    View,
    plot_eigenfields,
    plot_field,
    plot_singularities,
    plot_streamlines,
    streamlines,
)
from gpkit.diagnostics.style import label
from gpkit.diagnostics.units import pretty_unit
from gpkit.reports.document import Block, Paragraph, Report, Section, Table, fixed, number, picture
from gpkit.reports.field_content import VectorFieldContent
from gpkit.reports.field_sections import (
    COMPARED,
    field_numbers,
    field_report,
    shared_sections,
    spectrum_blocks,
    summary_section,
    two_sides,
)
from gpkit.reports.writing import write_report

__all__ = ["build_vector_field_report", "vector_field_report", "vector_field_summary"]

METHOD = (
    "The tangent coordinates of the vectors are a Gaussian process. Intrinsic kernels are functions of the connection "
    "Laplacian of the proximity graph or mesh; projected kernels are kernels of the surrounding space between tangent "
    "projections; Helmholtz kernels are sums of projected gradients of a potential and, on oriented surfaces, of such "
    "gradients turned by a right angle, each with its own amplitude.",
    COMPARED,
    "Divergence and curl come from local polynomials through transported neighbours (cubic ones where there are "
    "neighbours enough), which are linear in the field: the standard deviations are exact for that estimate. The index "
    "of a triangle is the number of turns of the field around it; over a closed surface the indices add up to the "
    "Euler characteristic. The probability of a singular point is the share of posterior draws that have one of the "
    "same sign within three triangle sides of it. Points that the mean does not have, but draws do, are listed with "
    "what the ones before them do not explain.",
)


_LISTED = 20
"""Singular points in the table."""


def vector_field_report(content: VectorFieldContent, path: str | Path) -> tuple[Path, Path]:
    """Write the report and the numbers in it, as :func:`~gpkit.reports.writing.write_report` does."""
    return write_report(build_vector_field_report(content).html(), vector_field_summary(content), path)


def vector_field_summary(content: VectorFieldContent) -> dict[str, Any]:
    """The content of ``summary.json``: plain data in natural units."""
    points = [
        {"location": s.location, "index": s.index, "probability": s.probability, "in_mean": s.in_mean}
        for s in content.singular
    ]
    return {
        **field_numbers(content),
        "nodes": len(content.points),
        "singularities": {
            "points": points,
            "sum": content.index_sum,
            "euler_characteristic": content.euler if content.index_sum is not None else None,
            "closed": content.closed,
        },
    }


def build_vector_field_report(content: VectorFieldContent) -> Report:
    """Put the report together, figures included, without writing anything."""
    sections = [_summary(content), _field(content), *shared_sections(content)]
    if len(content.divergence):
        sections.append(_derivatives(content))
    if content.index_sum is not None:
        sections.append(_singular(content))
    if content.spectra:
        sections.append(_spectrum(content))
    subtitle = f"{content.observed} vectors on a manifold of {len(content.points)} nodes"
    return field_report(content, "vector field", subtitle, sections, METHOD)


def _summary(content: VectorFieldContent) -> Section:
    facts = [("Vectors", str(content.observed)), ("Nodes", str(len(content.points)))]
    if content.index_sum is not None:
        sure = sum(s.probability > 0.9 for s in content.singular)
        likely = sum(s.probability >= 0.5 for s in content.singular)
        facts.append(("Singular points, p ≥ 0.5 (p > 0.9)", f"{likely} ({sure})"))
    return summary_section(content, facts, "The manifold as it was understood.")


def _per_length(content: VectorFieldContent) -> str:
    """Unit of derivatives."""
    if not content.length_unit:
        return ""
    return f"{content.value_unit or '1'} / {content.length_unit}"


def _surface(content: VectorFieldContent) -> dict[str, Any]:
    return {
        "triangles": content.triangles if len(content.triangles) else None,
        "normals": content.normals,
    }


def _field(content: VectorFieldContent) -> Section:
    def mean(ax: Any, view: View) -> None:
        observed = content.observed_nodes if len(content.observed_nodes) else None
        plot_field(
            content.points,
            content.mean,
            value=content.standard_deviation,
            value_label=label("Standard deviation", content.value_unit),
            observed=observed,
            view=view,
            ax=ax,
            **_surface(content),
        )

    frames: Any = None if content.normals is None else _frames(content)
    paths = [] if frames is None else streamlines(content.points, content.mean, frames=frames, count=160, steps=160)

    def lines(ax: Any, view: View) -> None:
        plot_streamlines(
            content.points, content.mean, frames=frames, paths=paths, view=view, ax=ax, **_surface(content)
        )

    blocks: list[Block] = [
        two_sides(
            content,
            mean,
            alt="Arrows of the posterior mean over colours of its standard deviation.",
            caption="Posterior mean (arrows) over its standard deviation per tangent coordinate (colour)"
            + ("; white dots: observed nodes." if len(content.observed_nodes) else "."),
        )
    ]
    if content.normals is not None:
        blocks.append(
            two_sides(
                content,
                lines,
                alt="Streamlines of the posterior mean on the surface.",
                caption="Streamlines of the posterior mean; they darken along the flow.",
            )
        )
    return Section("field", "The field", blocks)


def _frames(content: VectorFieldContent) -> Any:
    """Any tangent frames of a surface with known normals."""
    normals = np.asarray(content.normals)
    helper = np.where(np.abs(normals[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(normals, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(normals, first)], axis=2)


def _derivatives(content: VectorFieldContent) -> Section:
    blocks: list[Block] = []
    for name, value in (("Divergence", content.divergence), ("Curl", content.curl)):
        if not len(value):
            continue

        def draw(ax: Any, view: View, value: Any = value, name: str = name) -> None:
            plot_field(
                content.points,
                content.mean,
                value=value,
                value_label=label(name, _per_length(content)),
                diverging=True,
                view=view,
                ax=ax,
                **_surface(content),
            )

        words = "sources are positive" if name == "Divergence" else "seen from outside, counter-clockwise is positive"
        blocks.append(
            two_sides(
                content, draw, alt=f"{name} of the posterior mean as colour.", caption=f"{name} of the mean; {words}."
            )
        )
    rows = []
    for name, value, deviation in (
        ("Divergence", content.divergence, content.divergence_sd),
        ("Curl", content.curl, content.curl_sd),
    ):
        if len(value):
            sure = int((np.abs(value) > 1.959963984540054 * deviation).sum())
            rms = float(np.sqrt(np.square(value).mean()))
            rows.append((name, number(rms), number(float(np.median(deviation))), f"{sure} of {len(value)}"))
    columns = ("Quantity", "Root mean square", "Median standard deviation", "Nodes where the sign is sure (95 %)")
    unit = pretty_unit(_per_length(content))
    caption = f"Divergence and curl at all nodes{', in ' + unit if unit else ''}."
    blocks.append(Table(columns, rows, caption, text_columns=(0,)))
    return Section("derivatives", "Divergence and curl", blocks)


def _singular(content: VectorFieldContent) -> Section:
    def draw(ax: Any, view: View) -> None:
        plot_singularities(
            content.points,
            [s.location for s in content.singular] or np.zeros((0, content.points.shape[1])),
            [s.index for s in content.singular],
            [s.probability for s in content.singular],
            in_mean=[s.in_mean for s in content.singular],
            vectors=content.mean,
            view=view,
            ax=ax,
            **_surface(content),
        )

    if content.closed:
        agrees = "equal" if content.index_sum == content.euler else "not equal"
        words = f"{agrees} to the Euler characteristic {content.euler} of the closed surface."
    else:
        words = "the surface has a boundary, so that nothing fixes this sum."
    rows = [
        (
            ", ".join(number(float(x), 3) for x in s.location),
            f"{s.index:+d}".replace("-", "−"),
            fixed(s.probability, 2),
            "" if s.in_mean else "draws only",
        )
        for s in content.singular[:_LISTED]
    ]
    more = len(content.singular) - len(rows)
    rest = f" {more} less probable ones are in the JSON file." if more > 0 else ""
    blocks: list[Block] = [
        Paragraph(
            f"The indices of the mean field add up to {content.index_sum}{', ' if content.closed else '; '}{words}"
        ),
        two_sides(
            content,
            draw,
            alt="Singular points with index and probability.",
            caption="Singular points: discs are sources, sinks and vortices (+1), squares are saddles (−1), hollow "
            "where the mean has none; the number is the posterior probability.",
        ),
        Table(
            ("Place", "Index", "Probability", "Note"),
            rows,
            "Singular points, most probable first; draws only: the mean field, which averages over where they are, has "
            f"none there.{rest}",
            text_columns=(0, 3),
        ),
    ]
    return Section("singularities", "Singular points", blocks)


def _spectrum(content: VectorFieldContent) -> Section:
    blocks = spectrum_blocks(content, "the connection Laplacian")
    if len(content.eigenfields):
        gallery = plot_eigenfields(
            content.points,
            list(content.eigenfields),
            list(content.spectra[0].eigenvalues[: len(content.eigenfields)]),
            **_surface(content),
        )
        caption = "The smoothest eigenfields, from the front, with their eigenvalues."
        crowded = len(content.points) > 400
        blocks.append(picture(gallery, alt="Gallery of eigenfields.", caption=caption, crowded=crowded))
    return Section("spectrum", "Spectrum", blocks)
