"""The report about a vector field: sections, tables and words put together from its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpkit.diagnostics.calibration import coverage
from gpkit.diagnostics.field_plots import (
    View,
    plot_eigenfields,
    plot_field,
    plot_field_spectrum,
    plot_singularities,
    plot_streamlines,
    streamlines,
)
from gpkit.diagnostics.findings import as_plain, group_findings
from gpkit.diagnostics.plots import plot_pit, plot_qq
from gpkit.diagnostics.style import label, new_figure
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
from gpkit.reports.run import run_section
from gpkit.reports.vector_field_content import VectorFieldContent
from gpkit.reports.writing import write_report

__all__ = ["build_vector_field_report", "vector_field_report", "vector_field_summary"]

METHOD = (
    "The tangent coordinates of the vectors are a Gaussian process. Intrinsic kernels are functions of the connection "
    "Laplacian of the proximity graph or mesh; projected kernels are kernels of the surrounding space between tangent "
    "projections; Helmholtz kernels are sums of projected gradients of a potential and, on oriented surfaces, of such "
    "gradients turned by a right angle, each with its own amplitude.",
    "Kernels are compared by their evidence: the maximum of likelihood times prior with Laplace's approximation of the "
    "volume around it. elpd is the sum of log densities of each observed place given all the others.",
    "Divergence and curl come from weighted linear fits to transported neighbours, which are linear in the field: the "
    "standard deviations are exact for that estimate. The index of a triangle is the number of turns of the field "
    "around it; over a closed surface the indices add up to the Euler characteristic. The probability of a singular "
    "point is the share of posterior draws whose indices within three triangle sides of it add up to the same.",
)


_LISTED = 20
"""Singular points in the table."""


def vector_field_report(content: VectorFieldContent, path: str | Path) -> tuple[Path, Path]:
    """Write the report and the numbers in it.

    Args:
        content: What to report.
        path: The HTML file to write, or a folder (made if needed) for ``report.html``; the JSON file is written beside
            it, ``summary.json`` or ``<name>.json``.

    Returns:
        The paths of both files; they appear only when they are complete.
    """
    return write_report(build_vector_field_report(content).html(), vector_field_summary(content), path)


def vector_field_summary(content: VectorFieldContent) -> dict[str, Any]:
    """The content of ``summary.json``: plain data in natural units."""
    return {
        "title": content.title,
        "nodes": len(content.points),
        "observed": len(content.observed_points),
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
        "singularities": {
            "points": [
                {"location": s.location, "index": s.index, "probability": s.probability} for s in content.singular
            ],
            "sum": content.index_sum,
            "euler_characteristic": content.euler if content.index_sum is not None else None,
            "closed": content.closed,
        },
        "warnings": [as_plain(finding) for finding in content.findings],
    }


def build_vector_field_report(content: VectorFieldContent) -> Report:
    """Put the report together, figures included, without writing anything."""
    sections = [_summary(content), _field(content), _comparison(content), _parameters(content), _calibration(content)]
    if len(content.divergence):
        sections.append(_derivatives(content))
    if content.index_sum is not None:
        sections.append(_singular(content))
    if len(content.eigenvalues):
        sections.append(_spectrum(content))
    sections.append(Section("method", "Method and conventions", [Paragraph(text, "fine") for text in METHOD]))
    sections.append(run_section(content.run))
    versions = content.run.versions
    made = f"Made with gpkit {versions['gpkit']}." if "gpkit" in versions else "Made with gpkit."
    date = f" · {content.run.date}" if content.run.date else ""
    subtitle = f"{len(content.observed_points)} vectors on a manifold of {len(content.points)} nodes{date}"
    return Report(f"{content.title}: vector field report", subtitle, sections, footer=made)


def _summary(content: VectorFieldContent) -> Section:
    blocks: list[Block] = [FindingList(group_findings(content.findings))] if content.findings else []
    blocks.append(Paragraph(content.verdict, "lead"))
    unit = pretty_unit(content.value_unit)
    rms = float(np.sqrt(np.square(content.mean).sum(1).mean()))
    facts = [
        ("Vectors", str(len(content.observed_points))),
        ("Nodes", str(len(content.points))),
        ("Kernel", content.kernel),
        ("Root mean square of the mean", f"{number(rms)} {unit}".strip()),
        ("Median standard deviation", f"{number(float(np.median(content.standard_deviation)))} {unit}".strip()),
    ]
    if content.index_sum is not None:
        sure = sum(s.probability > 0.9 for s in content.singular)
        facts.append(("Singular points", f"{len(content.singular)}, {sure} with probability above 0.9"))
    blocks.append(Facts(facts))
    rows = list(content.geometry)
    blocks.append(Table(("Quantity", "Value"), rows, "The manifold as it was understood.", text_columns=(0, 1)))
    return Section("summary", "Summary", blocks)


def _two_sides(content: VectorFieldContent, draw: Any, *, alt: str, caption: str) -> Picture:
    """One picture of both sides of a surface, or of the only view that there is."""
    if content.normals is None:
        figure = new_figure(5.6, 4.6)
        draw(figure.add_subplot(), View(90.0, -90.0) if content.points.shape[1] == 2 else View())
    else:
        figure = new_figure(9.6, 4.4)
        for column, view in enumerate((View(), View().opposite())):
            draw(figure.add_subplot(1, 2, column + 1), view)
        caption += " Left: from the front; right: from behind."
    return picture(figure, alt=alt, caption=caption, crowded=len(content.points) > 400)


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
        _two_sides(
            content,
            mean,
            alt="Arrows of the posterior mean over colours of its standard deviation.",
            caption="Posterior mean (arrows) over its standard deviation per tangent coordinate (colour)"
            + ("; white dots: observed nodes." if len(content.observed_nodes) else "."),
        )
    ]
    if content.normals is not None:
        blocks.append(
            _two_sides(
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


def _comparison(content: VectorFieldContent) -> Section:
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


def _parameters(content: VectorFieldContent) -> Section:
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


def _calibration(content: VectorFieldContent) -> Section:
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
    return Section("calibration", "Calibration", blocks)


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
            _two_sides(
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
        (", ".join(number(float(x), 3) for x in s.location), f"{s.index:+d}".replace("-", "−"), fixed(s.probability, 2))
        for s in content.singular[:_LISTED]
    ]
    more = len(content.singular) - len(rows)
    rest = f" {more} less probable ones are in the JSON file." if more > 0 else ""
    blocks: list[Block] = [
        Paragraph(f"The indices add up to {content.index_sum}{', ' if content.closed else '; '}{words}"),
        _two_sides(
            content,
            draw,
            alt="Singular points of the mean field with index and probability.",
            caption="Singular points of the mean: discs are sources, sinks and vortices (+1), squares are saddles "
            "(−1); the number is the posterior probability.",
        ),
        Table(("Place", "Index", "Probability"), rows, f"Singular points, most probable first.{rest}"),
    ]
    return Section("singularities", "Singular points", blocks)


def _spectrum(content: VectorFieldContent) -> Section:
    figure = new_figure(6.4, 3.0)
    variances = content.variances if len(content.variances) == len(content.eigenvalues) else None
    plot_field_spectrum(content.eigenvalues, variances, unit=content.length_unit, ax=figure.add_subplot())
    whose = f" under {content.spectrum_of}" if content.spectrum_of else ""
    caption = f"Eigenvalues of the connection Laplacian by mode, and the share of variance{whose} in each (the filter)."
    blocks: list[Block] = [picture(figure, alt="Eigenvalues and variances by mode.", caption=caption)]
    if len(content.eigenfields):
        gallery = plot_eigenfields(
            content.points,
            list(content.eigenfields),
            list(content.eigenvalues[: len(content.eigenfields)]),
            **_surface(content),
        )
        caption = "The smoothest eigenfields, from the front, with their eigenvalues."
        crowded = len(content.points) > 400
        blocks.append(picture(gallery, alt="Gallery of eigenfields.", caption=caption, crowded=crowded))
    return Section("spectrum", "Spectrum", blocks)
