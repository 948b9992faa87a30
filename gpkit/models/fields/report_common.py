"""What reports about all kinds of field show: kernels, parameters, calibration, findings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from gpkit.diagnostics.findings import Finding
from gpkit.diagnostics.posterior import convergence_warnings, summarise
from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold
from gpkit.models.fields.field_gp import FieldGP
from gpkit.models.fields.spectral_term import SpectralTerm
from gpkit.models.fields.speed_term import speeds_among

__all__ = ["field_findings", "shared_content", "spectra_of"]

Array = NDArray[np.float64]


def shared_content(
    model: FieldGP, *, title: str, command: str, seed: int, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The arguments that all of ``gpkit.reports``' contents of fields have, but for means and deviations.

    Args:
        model: A fitted model.
        title: Name of the data.
        command: The command line, or the call.
        seed: Of what is random in the report.
        settings: Settings to record.

    Raises:
        InvalidDataError: the model has not been fitted.
    """
    from gpkit.inference.inference_data import provenance
    from gpkit.reports import KernelRow, RunSection

    result, observations = model.result, model.observations
    if result is None or observations is None:
        raise InvalidDataError("a report needs a fitted model: call fit first")
    best = model._fitted()
    left_out = model.leave_one_out()
    deviations = np.sqrt(np.einsum("smii->smi", left_out.component_covariances))
    each = ndtr((observations.coordinates - left_out.component_means) / deviations)
    pit = np.clip(np.tensordot(left_out.weights, each, 1).ravel(), 1e-16, 1.0 - 1e-16)
    versions = provenance()["versions"]
    versions = json.loads(versions) if isinstance(versions, str) else dict(versions)
    versions["gpkit"] = versions.pop("gpkit-bayes", "unknown")
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        "title": title,
        "observed": len(observations),
        "kernel": best.name,
        "verdict": result.comparison.verdict(),
        "kernels": tuple(
            KernelRow(c.name, c.fit.log_evidence, c.elpd, len(c.fit.theta), c.fit.converged)
            for c in result.comparison.candidates
        ),
        "left_out": result.comparison.left_out,
        "parameters": _parameters(model),
        "residuals": ndtri(pit),
        "pit": pit,
        "calibrated": _calibrated(model),
        "weights": result.comparison.weights if model.combine == "stacking" else {best.name: 1.0},
        "length_unit": model.length_unit,
        "value_unit": model.value_unit,
        "findings": tuple(field_findings(model)),
        "posterior": model.posterior,
        "run": RunSection(command=command, seed=seed, date=date, versions=versions, settings=dict(settings or {})),
    }


def spectra_of(model: FieldGP) -> tuple[str, dict[str, tuple[Array, Array]]]:
    """The intrinsic kernel that is used, or else the best one, and eigenvalues and variances of its modes by part.

    The name is empty, and there are no parts, if no intrinsic kernel was fitted.
    """
    best, result = model._fitted(), model.result
    assert result is not None
    for candidate in (best, *result.comparison.candidates):
        found = {}
        _, parts = candidate.regression.split(np.asarray(candidate.fit.theta))
        for term, theta in zip(candidate.regression.terms, parts, strict=True):
            if isinstance(term, SpectralTerm):
                spectrum = term.log_spectrum(torch.from_numpy(np.asarray(theta)))
                found[term.part.label] = (term.part.eigenvalues.numpy(), torch.exp(spectrum).numpy())
        if found:
            return candidate.name, found
    return "", {}


def _calibrated(model: FieldGP) -> str:
    """What factors of the variances there are, in a sentence."""
    found = model.calibration
    if found is None:
        return ""
    factors = found.at(found.points)
    return (
        "Predictions multiply the variances by factors that vary from place to place: "
        f"{np.median(factors):.2g} in the middle, {factors.min():.2g} to {factors.max():.2g} at the observed places. "
        f"Errors of left-out places ask for them, whose log density they raise by {found.gain:.1f}; the picture and "
        "the table above are without them."
    )


def _parameters(model: FieldGP) -> list[dict[str, Any]]:
    best = model._fitted()
    units = {"length": model.length_unit, "value": model.value_unit, "time": "", "": ""}
    out = []
    speeds = speeds_among(best.fit.values)
    # Of dozens of speeds the two ends say what there is to say.
    order = sorted(speeds, key=speeds.__getitem__)
    ends = {order[0]: "least", order[-1]: "largest"} if order else {}
    for p in best.regression.parameters:
        if p.name in speeds and p.name not in ends:
            continue
        row: dict[str, Any] = {
            "name": f"{p.name}, the {ends[p.name]} of {len(speeds)}" if p.name in ends else p.name,
            "value": best.fit.values[p.name],
            "unit": units[p.unit],
            "at_bound": p.name in best.fit.at_bound,
        }
        if model.posterior is not None:
            drawn = np.asarray(model.posterior.posterior[p.name]).ravel()
            row |= dict(zip(("low", "median", "high"), np.quantile(drawn, [0.025, 0.5, 0.975]).tolist(), strict=True))
        out.append(row)
    return out


def field_findings(model: FieldGP) -> list[Finding]:
    """What the reader of a fit should know about data, geometry and parameters."""
    result, observations = model.result, model.observations
    assert result is not None and observations is not None
    best = model._fitted()
    found = [Finding("warning", "field-note", note) for note in result.notes]
    found += [
        Finding("warning", "parameter-at-bound", f"{name} ended at a bound: the data give a limit only.", best.name)
        for name in best.fit.at_bound
    ]
    if observations.normal_share > 1e-6:
        share = f"{100 * observations.normal_share:.2g} %"
        found.append(
            Finding(
                "note",
                "normal-part",
                f"{share} of the vectors' root mean square was normal to the manifold and left out.",
            )
        )
    if observations.repeated:
        found.append(
            Finding("note", "repeated", f"{observations.repeated} observations are of places observed before.")
        )
    domain = getattr(model, "manifold", None)
    domain = getattr(model, "domain", None) if domain is None else domain
    found += [Finding("note", "geometry-repair", repair) for repair in getattr(domain, "repairs", ())]
    if isinstance(domain, Manifold) and not domain.orientable and model._what == "vectors":
        found.append(
            Finding(
                "note", "not-orientable", "No orientation fits all edges: there are no curl and no singular points."
            )
        )
    if model.posterior is not None:
        found += convergence_warnings(summarise(model.posterior, hdi_probability=0.95), kernel=best.name)
    return found
