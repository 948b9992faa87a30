"""From a fitted model of a field to a report: everything the report shows is computed here, once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.geometry import Graph, Manifold, SpectralBasis
from gpkit.models.fields.edge_flow_gp import EdgeFlowGP
from gpkit.models.fields.field_gp import FieldGP
from gpkit.models.fields.report_common import shared_content, spectra_of
from gpkit.models.fields.scalar_field_gp import ScalarFieldGP
from gpkit.models.fields.spectral_term import SpectralTerm
from gpkit.models.fields.triangulation import euler_characteristic, surface_triangles
from gpkit.models.fields.vector_field_gp import VectorFieldGP

__all__ = ["field_content", "write_field_report"]

Array = NDArray[np.float64]

_TITLES = {"vectors": "Vector field", "values": "Function", "flows": "Edge flow"}
_GALLERY = 8
"""Eigenfunctions that are shown."""


def write_field_report(model: FieldGP, path: str | Path, **options: Any) -> tuple[Path, Path]:
    """Write the HTML report and the JSON beside it; returns both paths.

    Args:
        model: A fitted model.
        path: HTML file, or a folder for ``report.html`` and ``summary.json``.
        options: See :func:`field_content`.
    """
    from gpkit.reports import edge_flow_report, scalar_field_report, vector_field_report

    writers = {"vectors": vector_field_report, "values": scalar_field_report, "flows": edge_flow_report}
    writer: Any = writers[model._what]
    paths: tuple[Path, Path] = writer(field_content(model, **options), path)
    return paths


def field_content(
    model: FieldGP,
    *,
    title: str = "",
    command: str = "",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Everything that a report shows, as plain data (a ``gpkit.reports`` content).

    Args:
        model: A fitted model.
        title: Name of the data.
        command: The command line, or the call.
        seed: Of the posterior draws.
        settings: Settings to record.
        options: For vector fields ``draws``, the number of posterior draws for the probabilities of singular points
            (100); for functions on graphs and for edge flows ``positions``, places (n, 2) or (n, 3) of the nodes for
            the pictures, which are laid out by the numbers of edges between them if they are not given.

    Raises:
        InvalidDataError: the model has not been fitted, or positions that are none.
    """
    shared = shared_content(model, title=title or _TITLES[model._what], command=command, seed=seed, settings=settings)
    return _content(model, shared, **options)


@functools.singledispatch
def _content(model: Any, shared: dict[str, Any]) -> Any:
    raise InvalidDataError(f"there is no report about a {type(model).__name__}")


@_content.register
def _vectors(model: VectorFieldGP, shared: dict[str, Any], *, draws: int = 100) -> Any:
    from gpkit.reports import SingularPoint, VectorFieldContent

    manifold, observations = model.manifold, model.observations
    assert observations is not None
    prediction = model.predict()
    extra: dict[str, Any] = {}
    if manifold.dim >= 2:
        divergence = model.divergence()
        extra |= {"divergence": divergence.mean, "divergence_sd": divergence.standard_deviation}
    if manifold.dim == 2 and manifold.orientable:
        curl = model.curl()
        found = model.singularities(draws=draws, seed=shared["run"].seed)
        extra |= {
            "curl": curl.mean,
            "curl_sd": curl.standard_deviation,
            "triangles": found.triangles,
            "singular": tuple(SingularPoint(s.location, s.index, s.probability, s.in_mean) for s in found.found),
            "index_sum": found.total,
            "euler": found.euler_characteristic,
            "closed": found.closed,
        }
        if manifold.ambient_dim == 3:
            extra["normals"], outwards = _outward(manifold, found.closed)
            extra["curl"] = curl.mean if outwards else -curl.mean
    extra |= _spectra(model)
    if extra.get("spectra"):
        extra["eigenfields"] = np.moveaxis(model.basis.truncate(min(_GALLERY, model.basis.k)).ambient(), 2, 0)
    return VectorFieldContent(
        **shared,
        points=manifold.points,
        mean=prediction.mean,
        standard_deviation=prediction.standard_deviation,
        observed_nodes=np.asarray(observations.where) if observations.at_nodes else np.zeros(0, dtype=np.int64),
        geometry=_manifold_facts(manifold, model.length_unit),
        **extra,
    )


@_content.register
def _values(model: ScalarFieldGP, shared: dict[str, Any], *, positions: Any = None) -> Any:
    from gpkit.reports import ScalarFieldContent

    observations, domain = model.observations, model.domain
    assert observations is not None
    manifold = getattr(domain, "manifold", None) if model.manifold is None else model.manifold
    prediction = model.predict()
    extra = _spectra(model)
    if extra.get("spectra") and len(next(iter(extra["spectra"])).eigenvalues):
        extra["eigenfunctions"] = np.asarray(model.basis.functions[:, 0, :_GALLERY].T)
    if manifold is not None:
        points, geometry = manifold.points, _manifold_facts(manifold, model.length_unit)
        if manifold.dim == 2 and manifold.orientable:
            extra["triangles"] = surface_triangles(manifold)
            if manifold.ambient_dim == 3:
                extra["normals"], _ = _outward(manifold, euler_characteristic(extra["triangles"])[1])
    else:
        edges = domain.edges if isinstance(domain, Graph) else np.zeros((0, 2), dtype=np.int64)
        points, extra["laid_out"] = _places(positions, model.n, edges, None if len(edges) else model.basis)
        extra["edges"] = edges
        geometry = _network_facts(domain, model.n, len(edges))
    return ScalarFieldContent(
        **shared,
        points=points,
        mean=prediction.mean,
        standard_deviation=np.sqrt(np.maximum(prediction.variance, 0.0)),
        observed_nodes=np.asarray(observations.where) if observations.at_nodes else np.zeros(0, dtype=np.int64),
        geometry=geometry,
        **extra,
    )


@_content.register
def _flows(model: EdgeFlowGP, shared: dict[str, Any], *, positions: Any = None) -> Any:
    from gpkit.reports import EdgeFlowContent, FlowPart

    observations, domain = model.observations, model.domain
    assert observations is not None
    prediction, divergence = model.predict(), model.divergence()
    extra = _spectra(model)
    if all(isinstance(term, SpectralTerm) for term in model._fitted().regression.terms):
        shares = model.shares()
        extra["parts"] = tuple(
            FlowPart(name, part.mean, np.sqrt(np.maximum(part.variance, 0.0)), shares[name])
            for name, part in model.decompose().items()
        )
    if len(domain.faces):
        circulation = model.circulation()
        extra |= {"circulation": circulation.mean, "circulation_sd": circulation.standard_deviation}
    points, laid_out = _places(positions, domain.n_nodes, domain.edges)
    return EdgeFlowContent(
        **shared,
        points=points,
        laid_out=laid_out,
        edges=domain.edges,
        mean=prediction.mean,
        standard_deviation=np.sqrt(np.maximum(prediction.variance, 0.0)),
        observed_edges=np.asarray(observations.where),
        divergence=divergence.mean,
        divergence_sd=divergence.standard_deviation,
        geometry=[
            ("Kind", "CellComplex"),
            ("Nodes, edges, faces", f"{domain.n_nodes}, {domain.n_edges}, {len(domain.faces)}"),
            ("Modes", ", ".join(f"{basis.k} {name}" for name, basis in model.bases.items())),
        ],
        **extra,
    )


def _spectra(model: FieldGP) -> dict[str, Any]:
    from gpkit.reports import SpectrumPart

    name, parts = spectra_of(model)
    several = len(parts) > 1
    spectra = tuple(SpectrumPart(label if several else "", *values) for label, values in parts.items())
    return {"spectrum_of": name, "spectra": spectra} if spectra else {}


def _outward(manifold: Manifold, closed: bool) -> tuple[Array, bool]:
    """Normals that point outwards where a surface is closed, and whether those of the frames do."""
    normals = manifold.normals
    inwards = closed and float((normals * (manifold.points - manifold.points.mean(0))).sum()) < 0.0
    return (-normals if inwards else normals), not inwards


def _places(
    positions: Any, nodes: int, edges: NDArray[np.int64], basis: SpectralBasis | None = None
) -> tuple[Array, bool]:
    """Places of the nodes of a network for pictures, and whether they were laid out: by edges, or by slow modes.

    Raises:
        InvalidDataError: positions that are not finite, or not (nodes, 2) or (nodes, 3).
    """
    if positions is None and basis is not None:
        slow = np.zeros((nodes, 2))
        slow[:, : max(min(basis.k - 1, 2), 0)] = basis.functions[:, 0, 1:3]
        return slow, True
    if positions is None:
        from gpkit.diagnostics.network_plots import network_layout

        return network_layout(nodes, edges), True
    places = np.asarray(positions, dtype=np.float64)
    if places.shape not in ((nodes, 2), (nodes, 3)) or not np.isfinite(places).all():
        raise InvalidDataError(f"positions must be finite, ({nodes}, 2) or ({nodes}, 3), got {places.shape}")
    return places, False


def _network_facts(domain: Any, nodes: int, edges: int) -> list[tuple[str, str]]:
    rows = [("Kind", type(domain).__name__), ("Nodes, edges", f"{nodes}, {edges}")]
    if isinstance(domain, Graph):
        degrees = np.bincount(domain.edges.ravel(), minlength=nodes)
        rows.append(("Components", str(domain.components)))
        rows.append(("Edges at a node", f"{np.median(degrees):g} (median), {degrees.max()} at most"))
    return rows


def _manifold_facts(manifold: Manifold, unit: str) -> list[tuple[str, str]]:
    d = manifold.diagnostics()
    mean, largest = d.frame_angle
    rows = [
        ("Kind", type(manifold).__name__),
        ("Dimension", f"{d.dim} in {d.ambient_dim}"),
        ("Edges", f"{d.edges}, median length {d.edge_length:.3g} {unit}".strip()),
        ("Components", str(d.components)),
        ("Orientable", "yes" if d.orientable else f"no ({d.conflicting_edges} edges contradict)"),
        ("Turn of tangent spaces along an edge", f"{mean:.2g}° on average, {largest:.3g}° at most"),
    ]
    if d.dimension is not None:
        rows.append(("Evidence for the dimension", f"{100 * d.dimension.votes.max():.0f} % of the local spectra"))
    return rows
