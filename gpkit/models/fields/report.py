"""From a fitted vector-field model to a report: everything the report shows is computed here, once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from gpkit.diagnostics.findings import Finding
from gpkit.diagnostics.posterior import convergence_warnings, summarise
from gpkit.errors import InvalidDataError
from gpkit.models.fields.spectral_term import SpectralTerm
from gpkit.models.fields.vector_field_gp import VectorFieldGP

__all__ = ["field_findings", "vector_field_content", "write_vector_field_report"]


def write_vector_field_report(model: VectorFieldGP, path: str | Path, **run: Any) -> tuple[Path, Path]:
    """Write the HTML report and the JSON beside it; returns both paths.

    Args:
        model: A fitted model.
        path: HTML file, or a folder for ``report.html`` and ``summary.json``.
        run: See :func:`vector_field_content`.
    """
    from gpkit.reports import vector_field_report

    return vector_field_report(vector_field_content(model, **run), path)


def vector_field_content(
    model: VectorFieldGP,
    *,
    title: str = "Vector field",
    command: str = "",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    draws: int = 100,
) -> Any:
    """Everything that a report shows, as plain data (a ``gpkit.reports.VectorFieldContent``).

    Args:
        model: A fitted model.
        title: Name of the data.
        command: The command line, or the call.
        seed: Of the posterior draws.
        settings: Settings to record.
        draws: Posterior draws for the probabilities of singular points.

    Raises:
        InvalidDataError: the model has not been fitted.
    """
    from gpkit.inference.inference_data import provenance
    from gpkit.reports import KernelRow, RunSection, SingularPoint, VectorFieldContent

    result, observations, manifold = model.result, model.observations, model.manifold
    if result is None or observations is None:
        raise InvalidDataError("a report needs a fitted model: call fit(where, vectors) first")
    best = model._fitted()
    prediction = model.predict()
    surface = manifold.dim == 2 and manifold.orientable
    extra: dict[str, Any] = {}
    if manifold.dim >= 2:
        divergence = model.divergence()
        extra |= {"divergence": divergence.mean, "divergence_sd": divergence.standard_deviation}
    if surface:
        curl = model.curl()
        found = model.singularities(draws=draws, seed=seed)
        extra |= {
            "curl": curl.mean,
            "curl_sd": curl.standard_deviation,
            "triangles": found.triangles,
            "singular": tuple(SingularPoint(s.location, s.index, s.probability) for s in found.found),
            "index_sum": found.total,
            "euler": found.euler_characteristic,
            "closed": found.closed,
        }
        if manifold.ambient_dim == 3:
            outward = manifold.normals
            if found.closed and float((outward * (manifold.points - manifold.points.mean(0))).sum()) < 0.0:
                outward, extra["curl"] = -outward, -curl.mean
            extra["normals"] = outward
    extra |= _spectrum(model)
    left_out = model.leave_one_out()
    deviations = np.sqrt(np.einsum("smii->smi", left_out.component_covariances))
    each = ndtr((observations.coordinates - left_out.component_means) / deviations)
    pit = np.clip(np.tensordot(left_out.weights, each, 1).ravel(), 1e-16, 1.0 - 1e-16)
    attributes = provenance()
    versions = attributes["versions"]
    versions = json.loads(versions) if isinstance(versions, str) else dict(versions)
    versions["gpkit"] = versions.pop("gpkit-bayes", "unknown")
    at_nodes = observations.at_nodes
    return VectorFieldContent(
        title=title,
        points=manifold.points,
        mean=prediction.mean,
        standard_deviation=prediction.standard_deviation,
        observed_points=manifold.points[observations.where] if at_nodes else np.asarray(observations.where),
        observed_nodes=np.asarray(observations.where) if at_nodes else np.zeros(0, dtype=np.int64),
        kernel=best.name,
        verdict=result.comparison.verdict(),
        kernels=tuple(
            KernelRow(c.name, c.fit.log_evidence, c.elpd, len(c.fit.theta), c.fit.converged)
            for c in result.comparison.candidates
        ),
        left_out=result.comparison.left_out,
        parameters=_parameters(model),
        residuals=ndtri(pit),
        pit=pit,
        weights=result.comparison.weights if model.combine == "stacking" else {best.name: 1.0},
        geometry=_geometry(model),
        length_unit=model.length_unit,
        value_unit=model.value_unit,
        findings=tuple(field_findings(model)),
        posterior=model.posterior,
        run=RunSection(
            command=command,
            seed=seed,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            versions=versions,
            settings=dict(settings or {}),
        ),
        **extra,
    )


def _spectrum(model: VectorFieldGP) -> dict[str, Any]:
    """Eigenvalues, filter and first eigenfields of the kernel that is used, or of the best one that has any."""
    import torch

    best, result = model._fitted(), model.result
    assert result is not None
    for candidate in (best, *result.comparison.candidates):
        terms = candidate.regression.terms
        number = next((i for i, term in enumerate(terms) if isinstance(term, SpectralTerm)), None)
        if number is None:
            continue
        term: Any = terms[number]
        _, parts = candidate.regression.split(np.asarray(candidate.fit.theta))
        variances = torch.exp(term.log_spectrum(torch.from_numpy(np.asarray(parts[number])))).numpy()
        return {
            "spectrum_of": candidate.name,
            "eigenvalues": model.basis.eigenvalues,
            "variances": variances,
            "eigenfields": np.moveaxis(model.basis.truncate(min(8, model.basis.k)).ambient(), 2, 0),
        }
    return {}


def _parameters(model: VectorFieldGP) -> list[dict[str, Any]]:
    best = model._fitted()
    units = {"length": model.length_unit, "value": model.value_unit, "time": "", "": ""}
    out = []
    for p in best.regression.parameters:
        row: dict[str, Any] = {
            "name": p.name,
            "value": best.fit.values[p.name],
            "unit": units[p.unit],
            "at_bound": p.name in best.fit.at_bound,
        }
        if model.posterior is not None:
            drawn = np.asarray(model.posterior.posterior[p.name]).ravel()
            row |= dict(zip(("low", "median", "high"), np.quantile(drawn, [0.025, 0.5, 0.975]).tolist(), strict=True))
        out.append(row)
    return out


def _geometry(model: VectorFieldGP) -> list[tuple[str, str]]:
    d = model.manifold.diagnostics()
    mean, largest = d.frame_angle
    rows = [
        ("Kind", type(model.manifold).__name__),
        ("Dimension", f"{d.dim} in {d.ambient_dim}"),
        ("Edges", f"{d.edges}, median length {d.edge_length:.3g} {model.length_unit}".strip()),
        ("Components", str(d.components)),
        ("Orientable", "yes" if d.orientable else f"no ({d.conflicting_edges} edges contradict)"),
        ("Turn of tangent spaces along an edge", f"{mean:.2g}° on average, {largest:.3g}° at most"),
    ]
    if d.dimension is not None:
        rows.append(("Evidence for the dimension", f"{100 * d.dimension.votes.max():.0f} % of the local spectra"))
    return rows


def field_findings(model: VectorFieldGP) -> list[Finding]:
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
        found.append(Finding("note", "repeated", f"{observations.repeated} observations are of nodes observed before."))
    found += [Finding("note", "geometry-repair", repair) for repair in model.manifold.repairs]
    if not model.manifold.orientable:
        found.append(
            Finding(
                "note", "not-orientable", "No orientation fits all edges: there are no curl and no singular points."
            )
        )
    if model.posterior is not None:
        found += convergence_warnings(summarise(model.posterior, hdi_probability=0.95), kernel=best.name)
    return found
