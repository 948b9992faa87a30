"""The report about a tensor: sections, tables and words put together from its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpkit.diagnostics.calibration import coverage
from gpkit.diagnostics.findings import as_plain, group_findings
from gpkit.diagnostics.plots import plot_pit
from gpkit.diagnostics.style import new_figure
from gpkit.diagnostics.tensor_plots import plot_bounds, plot_core, plot_errors, plot_levels, plot_mode_functions
from gpkit.reports.document import (
    Block,
    Facts,
    FindingList,
    Paragraph,
    Report,
    Section,
    Table,
    fixed,
    number,
    picture,
)
from gpkit.reports.run import run_section
from gpkit.reports.tensor_content import ModeSection, TensorContent
from gpkit.reports.writing import write_report

__all__ = ["build_tensor_report", "tensor_report", "tensor_summary"]

METHOD = (
    "The value at an entry is a sum of products of one latent function per mode, weighted by a core. Functions of a "
    "continuous mode are Gaussian processes run as state-space models; main effects are products in which all other "
    "modes have the constant function. Inference is structured variational Bayes; the bound never decreases from sweep "
    "to sweep.",
    "Every start left out its own part of the entries; scores and calibration are for entries predicted by what had "
    "not seen them. Main effects and principal functions are of the start with the largest bound; principal functions "
    "are centred, have unit mean square over the entries and are ordered by the variance that they carry.",
    "A local residual predicts each entry from its nearest neighbours, itself left out, by two Gaussian processes over "
    "all modes jointly: one of the values themselves, one of what the low-rank part leaves. The law of the noise, and "
    "how its scale follows the prediction, are fitted to these errors. Counts and binary values are first replaced by "
    "the Gaussian sites of their likelihood; belief and width of the residual are then fitted to their probabilities.",
)


def tensor_report(content: TensorContent, path: str | Path) -> tuple[Path, Path]:
    """Write the report and the numbers in it, as :func:`~gpkit.reports.writing.write_report` does."""
    return write_report(build_tensor_report(content).html(), tensor_summary(content), path)


def tensor_summary(content: TensorContent) -> dict[str, Any]:
    """The content of ``summary.json``: plain data in natural units."""
    return {
        "title": content.title,
        "target": content.target,
        "form": content.form,
        "likelihood": content.likelihood,
        "residual": content.residual or None,
        "entries": content.entries,
        "exclusions": dict(content.exclusions),
        "repeated": content.repeated,
        "modes": {
            m.name: {
                "kind": m.kind,
                "coordinates": len(m.coordinates),
                "rank": m.functions.shape[1],
                "share": [float(v) for v in m.share],
                "effective_rank": int((m.share > 1e-3).sum()),
                "parameters": dict(m.parameters),
            }
            for m in content.modes
        },
        "elbo": [float(trace[-1]) for trace in content.traces],
        "converged": [bool(c) for c in content.converged],
        "scores": {
            row.name: {"rmse": row.rmse, "mae": row.mae, "mean_log_density": row.log_density} for row in content.scores
        },
        "coverage": {f"{level.probability:g}": level.observed for level in coverage(content.pit)},
        "parameters": dict(content.parameters),
        "cpu_seconds": content.seconds,
        "warnings": [as_plain(finding) for finding in content.findings],
    }


def build_tensor_report(content: TensorContent) -> Report:
    """Put the report together, figures included, without writing anything."""
    sections = [_summary(content)]
    if len(content.pit):
        sections.append(_calibration(content))
    sections += [_functions(content), _core(content), _bounds(content)]
    sections.append(Section("method", "Method and conventions", [Paragraph(text, "fine") for text in METHOD]))
    sections.append(run_section(content.run))
    versions = content.run.versions
    made = f"Made with gpkit {versions['gpkit']}." if "gpkit" in versions else "Made with gpkit."
    date = f" · {content.run.date}" if content.run.date else ""
    names = ", ".join(mode.name for mode in content.modes)
    return Report(f"{content.title}: tensor report", f"{content.target} over {names}{date}", sections, footer=made)


def _summary(content: TensorContent) -> Section:
    blocks: list[Block] = [FindingList(group_findings(content.findings))] if content.findings else []
    ours = content.scores[0] if content.scores else None
    trivial = min((row.rmse for row in content.scores[1:]), default=float("nan"))
    if ours is not None and np.isfinite(trivial):
        change = 100.0 * (ours.rmse / trivial - 1.0)
        best = min(content.scores[1:], key=lambda row: row.rmse)
        blocks.append(
            Paragraph(
                f"For entries that it had not seen the model has a root-mean-square error of {number(ours.rmse)}, "
                f"{fixed(abs(change), 0)} % {'below' if change < 0 else 'above'} the best trivial predictor "
                f"({best.name}).",
                "lead",
            )
        )
    facts = [
        ("Entries", str(content.entries)),
        ("Form", {"tucker": "Tucker", "cp": "CP", "tensor-train": "Tensor train"}[content.form]),
        ("Noise", content.likelihood),
        ("Residual", content.residual or "none"),
        ("Starts", f"{len(content.traces)}, {sum(content.converged)} converged"),
        ("CPU time", f"{number(content.seconds, 3)} s"),
        ("Repeated coordinates", str(content.repeated)),
    ]
    facts += [(f"Left out: {reason}", str(count)) for reason, count in content.exclusions.items()]
    blocks.append(Facts(facts))
    if content.scores:
        scores = [(r.name, number(r.rmse), number(r.mae), number(r.log_density)) for r in content.scores]
        caption = (
            "Errors for unseen entries, model first. Trivial predictors are means of all other entries at the same "
            "coordinate; the model's errors are of predictors that left out the entry or its part of the table."
        )
        blocks.append(Table(("Predictor", "RMSE", "MAE", "mean log density"), scores, caption, best=(0,)))
    rows = [
        (
            m.name,
            m.kind,
            str(len(m.coordinates)),
            str(m.functions.shape[1]),
            str(int((m.share > 1e-3).sum())),
            ", ".join(f"{name.rpartition('.')[2]} {number(value, 3)}" for name, value in m.parameters.items()) or "–",
        )
        for m in content.modes
    ]
    caption = "Effective rank: functions that carry at least a thousandth of the low-rank variance."
    columns = ("Mode", "Kind", "Coordinates", "Rank", "Effective", "Learned parameters")
    blocks.append(Table(columns, rows, caption, text_columns=(0, 1, 5)))
    if content.parameters:
        values = [(name.replace("_", " "), number(value)) for name, value in content.parameters.items()]
        blocks.append(Table(("Parameter", "Value"), values, "Noise and residual, in the unit of the target."))
    return Section("summary", "Summary", blocks)


def _calibration(content: TensorContent) -> Section:
    levels = coverage(content.pit)
    rows = [
        (f"{100 * c.probability:g} %", f"{100 * c.observed:.1f} %", f"{100 * c.low:.1f} to {100 * c.high:.1f} %")
        for c in levels
    ]
    blocks: list[Block] = [
        Table(
            ("Interval", "Covered", "By chance"),
            rows,
            "Entries inside central intervals, predicted unseen; by chance: 95 % range of a calibrated model with "
            "independent entries.",
        )
    ]
    figure = new_figure(7.4, 2.8)
    plot_pit(content.pit, ax=figure.add_subplot())
    blocks.append(
        picture(
            figure,
            alt="Histogram of probability integral transforms.",
            caption="Probability integral transforms of unseen entries: flat if the predictive law is right.",
        )
    )
    figure = new_figure(7.4, 2.8)
    plot_errors(
        content.predicted, content.standardised, value_label=f"Predicted {content.target}", ax=figure.add_subplot()
    )
    blocks.append(
        picture(
            figure,
            alt="Standardised errors against predictions.",
            caption="Errors as normal scores against predictions; lines: quartiles of twentieths of the entries, at "
            "-0.67, 0 and 0.67 everywhere if location and scale are right.",
            crowded=True,
        )
    )
    return Section("calibration", "Calibration", blocks)


def _functions(content: TensorContent) -> Section:
    return Section("functions", "Functions of the modes", sections=[_mode(content, mode) for mode in content.modes])


def _mode(content: TensorContent, mode: ModeSection) -> Section:
    # Functions that carry nothing have bands that would hide the others.
    kept = np.flatnonzero(mode.share > 1e-3) if (mode.share > 1e-3).any() else np.arange(min(1, len(mode.share)))
    functions, functions_sd = mode.functions[:, kept], mode.functions_sd[:, kept]
    names = [f"{k + 1}: {100 * mode.share[k]:.1f} %" for k in kept]
    blocks: list[Block] = []
    if mode.kind == "spatial":
        rows = [
            (str(tuple(np.round(place, 4).tolist())), number(value), number(sd))
            for place, value, sd in zip(mode.coordinates[:50], mode.main[:50], mode.main_sd[:50], strict=True)
        ]
        blocks.append(Table(("Place", "Main effect", "sd"), rows, "Main effect at the first 50 places."))
        return Section(f"mode-{mode.name}", mode.name, blocks)
    if mode.kind == "categorical":
        shown = mode.coordinates if len(mode.coordinates) <= 40 else mode.coordinates[:40]
        count = len(shown)
        figure = new_figure(7.4, 0.8 + 0.2 * count)
        plot_levels(
            [str(level) for level in shown],
            mode.main[:count],
            mode.main_sd[:count],
            value_label=f"Effect on {content.target}",
            ax=figure.add_subplot(),
        )
        caption = "Main effect of each level with two standard deviations" + (
            f"; the first {count} of {len(mode.coordinates)} levels." if count < len(mode.coordinates) else "."
        )
        blocks.append(picture(figure, alt=f"Main effect of {mode.name}.", caption=caption))
        levels = [
            (str(level), *(f"{fixed(v, 2)} ± {fixed(sd, 2)}" for v, sd in zip(values, sds, strict=True)))
            for level, values, sds in zip(shown, functions[:count], functions_sd[:count], strict=True)
        ]
        columns = (mode.name, *(f"Function {name}" for name in names))
        blocks.append(Table(columns, levels, "Principal functions, with the variance that they carry."))
        return Section(f"mode-{mode.name}", mode.name, blocks)
    figure = new_figure(7.4, 5.0)
    plot_mode_functions(
        mode.coordinates,
        mode.main,
        mode.main_sd,
        mode_label=mode.name,
        value_label=f"Effect on {content.target}",
        ax=figure.add_subplot(2, 1, 1),
    )
    plot_mode_functions(
        mode.coordinates,
        functions,
        functions_sd,
        names=names,
        mode_label=mode.name,
        value_label="Principal functions",
        ax=figure.add_subplot(2, 1, 2),
    )
    blocks.append(
        picture(
            figure,
            alt=f"Main effect and principal functions of {mode.name} with bands.",
            caption="Above: main effect. Below: principal functions that carry at least a thousandth of the variance, "
            "with what they carry. Bands: two standard deviations.",
            crowded=len(mode.coordinates) > 400,
        )
    )
    return Section(f"mode-{mode.name}", mode.name, blocks)


def _core(content: TensorContent) -> Section:
    core = content.core
    if content.form == "tensor-train":
        return _bonds(content)
    if core.ndim < 2:
        rows = [(str(k + 1), number(float(v))) for k, v in enumerate(np.atleast_1d(core))]
        table = Table(("Component", "Weight"), rows, "Posterior mean of the weights of components.")
        return Section("core", "The core", [table])
    flat = core.reshape(*core.shape[:2], -1)
    names = [mode.name for mode in content.modes]
    shown = min(flat.shape[2], 8)
    order = np.argsort(np.abs(flat).max((0, 1)))[::-1][:shown]
    figure = new_figure(9.6, 2.6 * ((shown + 3) // 4))
    for place, k in enumerate(order):
        at = np.unravel_index(int(k), core.shape[2:]) if core.ndim > 2 else ()
        title = ", ".join(f"{name} {i}" for name, i in zip(names[2:], at, strict=True))
        ax = figure.add_subplot((shown + 3) // 4, min(shown, 4), place + 1)
        plot_core(flat[:, :, k], row_label=names[0], column_label=names[1], title=title, ax=ax)
    caption = (
        "Posterior mean of the core: areas are absolute values, blue positive, orange negative, each slice to its own "
        "scale; the slices with the largest entries. With main effects, component 0 of a mode is the constant."
    )
    return Section("core", "The core", [picture(figure, alt="Slices of the core.", caption=caption)])


def _bonds(content: TensorContent) -> Section:
    """Singular values across the bonds of a train, of which the squares are parts of the variance."""
    names = [mode.name for mode in content.modes]
    rows = [
        (f"{a} | {b}", ", ".join(number(float(v)) for v in values if v > 0.0))
        for a, b, values in zip(names[:-1], names[1:], content.core, strict=True)
    ]
    caption = (
        f"Singular values across the bonds, in the unit of {content.target}: orthonormal functions of the modes before "
        "a bond times those of the modes after it, main effects included."
    )
    return Section("core", "The bonds", [Table(("Bond", "Singular values"), rows, caption)])


def _bounds(content: TensorContent) -> Section:
    figure = new_figure(7.4, 2.6)
    plot_bounds(content.traces, ax=figure.add_subplot())
    caption = "Evidence lower bound after each sweep, the first two left out. Starts that left out different parts of "
    caption += "the entries have bounds of different data."
    blocks: list[Block] = [picture(figure, alt="Bounds of the starts.", caption=caption)]
    rows = [
        (f"{k + 1}", number(float(trace[-1]), 7), str(len(trace)), "yes" if ok else "no")
        for k, (trace, ok) in enumerate(zip(content.traces, content.converged, strict=True))
    ]
    blocks.append(
        Table(("Start", "Bound", "Sweeps", "Converged"), rows, "Converged: by the tolerance, not by the limit.")
    )
    return Section("starts", "Starts", blocks)
