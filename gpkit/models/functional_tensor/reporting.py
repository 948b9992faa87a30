"""From a fitted tensor model to the content of its report, trivial predictors included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from gpkit.diagnostics import Finding
from gpkit.diagnostics.calibration import coverage
from gpkit.inference.inference_data import provenance
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.local_residual import LocalResidual
from gpkit.models.functional_tensor.modes import Categorical, Spatial
from gpkit.models.functional_tensor.result import OVERDISPERSED

if TYPE_CHECKING:
    from gpkit.models.functional_tensor.model import FunctionalTensor

__all__ = ["tensor_content", "write_report"]

Array = NDArray[np.float64]


def write_report(
    model: FunctionalTensor,
    path: str | Path,
    *,
    title: str = "Table",
    target: str = "y",
    command: str = "",
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write the HTML report and ``summary.json``.

    Args:
        model: fitted.
        path: HTML file or folder.
        title: name of the data.
        target: name of what was predicted.
        command: how it was made.
        seed: of everything random.
        settings: of the run, by name.

    Returns:
        Both paths.
    """
    from gpkit.reports import tensor_report

    return tensor_report(
        tensor_content(model, title=title, target=target, command=command, seed=seed, settings=settings or {}), path
    )


def tensor_content(
    model: FunctionalTensor, *, title: str, target: str, command: str, seed: int | None, settings: Mapping[str, Any]
) -> Any:
    """The content, as :class:`gpkit.reports.TensorContent`."""
    from gpkit.reports import ModeSection, RunSection, ScoreRow, TensorContent

    fit, state = model.fitted, model._fitted()
    y = state.centre + state.unit * state.y
    modes = []
    for spec in model.modes:
        found = model.functions(spec.name)
        kind = (
            "categorical" if isinstance(spec, Categorical) else "spatial" if isinstance(spec, Spatial) else "continuous"
        )
        own = {k.removeprefix(f"{spec.name}."): v for k, v in fit.parameters.items() if k.startswith(f"{spec.name}.")}
        modes.append(
            ModeSection(
                spec.name,
                kind,
                found.coordinates,
                found.main,
                found.main_sd,
                found.functions,
                found.functions_sd,
                found.share,
                own,
            )
        )
    extra: dict[str, Any] = {}
    scores = []
    if fit.left_out is not None:
        mean = fit.left_out.mean
        density = float(fit.left_out.log_density(y).mean())
        scores = [ScoreRow("gpkit", _rms(y - mean), float(np.abs(y - mean).mean()), density), *_trivial(model, y)]
        pit = _pit(model, y)
        extra = {"pit": pit, "predicted": mean, "standardised": ndtri(np.clip(pit, 1e-12, 1.0 - 1e-12))}
    parameters = {k: v for k, v in fit.parameters.items() if "." not in k}
    if isinstance(state.residual, LatentResidual):
        parameters |= {
            "belief in the local residual": state.residual.belief,
            "width of its standard deviations": state.residual.law.width,
        }
    elif state.residual is not None:
        law = state.residual.law
        parameters = {"weight of the process of the values": state.residual.weight}
        if np.isfinite(law.degrees):
            parameters["degrees of freedom"] = law.degrees
    attributes = provenance(command=command)
    versions = dict(json.loads(attributes["versions"]))
    versions["gpkit"] = versions.pop("gpkit-bayes", "unknown")
    return TensorContent(
        title=title,
        target=target,
        form=model.form,
        likelihood=model.likelihood,
        residual=model.residual or "",
        entries=fit.n,
        exclusions=fit.exclusions,
        repeated=fit.repeated,
        modes=modes,
        core=model.core,
        traces=fit.traces,
        converged=fit.converged,
        scores=scores,
        parameters=parameters,
        seconds=fit.seconds,
        findings=_findings(model, scores, extra.get("pit")),
        run=RunSection(
            command=command,
            seed=seed,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            versions=versions,
            settings=dict(settings),
        ),
        **extra,
    )


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _pit(model: FunctionalTensor, y: Array) -> Array:
    """Transforms of unseen entries; those of counts are spread evenly over the step of the distribution function."""
    law = model.fitted.left_out
    assert law is not None
    if model.likelihood in ("gaussian", "student-t"):
        return law.cdf(y)
    below = law.cdf(y - 1.0)
    return below + np.random.default_rng(0).uniform(size=len(y)) * (law.cdf(y) - below)


def _trivial(model: FunctionalTensor, y: Array) -> list[Any]:
    """Means of all other entries: of the table, at the same coordinate of a mode, at the same coordinates of all."""
    from gpkit.reports import ScoreRow

    state = model._fitted()
    joined = state.index[0].astype(np.int64)
    for column in state.index[1:]:
        joined = joined * (int(column.max()) + 1) + column
    everywhere = (y.sum() - y) / (len(y) - 1)
    rows = [ScoreRow("mean of the table", _rms(y - everywhere), float(np.abs(y - everywhere).mean()))]
    groups: list[tuple[str, NDArray[Any]]] = [
        (f"mean at the same {spec.name}", i) for spec, i in zip(model.modes, state.index, strict=True)
    ]
    groups.append(("mean at the same coordinates", np.unique(joined, return_inverse=True)[1].reshape(-1)))
    for name, group in groups:
        count, total = np.bincount(group), np.bincount(group, y)
        rest = count[group] - 1
        mean = np.where(rest > 0, (total[group] - y) / np.maximum(rest, 1), everywhere)
        rows.append(ScoreRow(name, _rms(y - mean), float(np.abs(y - mean).mean())))
    return rows


def _findings(model: FunctionalTensor, scores: list[Any], pit: Array | None) -> tuple[Finding, ...]:
    fit = model.fitted
    out = []
    if fit.exclusions:
        told = ", ".join(f"{count} ({reason})" for reason, count in fit.exclusions.items())
        out.append(Finding("note", "rows-left-out", f"Rows were left out: {told}."))
    if not all(fit.converged):
        missing = sum(not c for c in fit.converged)
        out.append(
            Finding(
                "note",
                "sweeps-limit",
                f"{missing} of {len(fit.converged)} starts ended at the limit of sweeps with a bound that still rose.",
            )
        )
    if pit is None:
        if any(member.part >= 0 for member in model._fitted().members):
            message = "Updates are seen by all starts: errors of unseen entries are those of the fit before them."
            out.append(Finding("note", "updated", message))
            return tuple(out)
        message = "No entries were left out: there are no honest errors. Use combine='stack' with two starts or more."
        out.append(Finding("warning", "no-left-out", message))
        return tuple(out)
    residual = model._fitted().residual
    if residual is not None and not residual.belief and not (isinstance(residual, LocalResidual) and residual.weight):
        message = "The local residual explains nothing of entries left out: means are those of the low-rank part."
        out.append(Finding("note", "no-residual", message))
    best = min((row.rmse for row in scores[1:]), default=np.inf)
    if scores[0].rmse > best:
        out.append(
            Finding(
                "warning", "worse-than-trivial", "A trivial predictor has a smaller error than the model (see below)."
            )
        )
    if model.likelihood == "poisson" and (ratio := fit.overdispersion(model._fitted().y)) > OVERDISPERSED:
        message = (
            f"Counts left out differ from their predictions with {ratio:.1f} times the variance of Poisson counts. "
            "Use likelihood='negative-binomial'."
        )
        out.append(Finding("warning", "overdispersed", message))
    for level in coverage(pit):
        if level.probability in (0.5, 0.9) and abs(level.observed - level.probability) > 0.05:
            message = f"Central {100 * level.probability:g} % intervals cover {100 * level.observed:.1f} %."
            advice = " Try likelihood='student-t', residual='local'." if model.likelihood == "gaussian" else ""
            out.append(Finding("warning", f"coverage-{level.probability:g}", message + advice))
    return tuple(out)
