"""What reports about vector fields, functions and edge flows are made of, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpkit.diagnostics.arrays import FloatArray, IntArray
from gpkit.diagnostics.findings import Finding
from gpkit.errors import InvalidDataError
from gpkit.reports.content import RunSection

__all__ = [
    "EdgeFlowContent",
    "FieldContent",
    "FlowPart",
    "KernelRow",
    "ScalarFieldContent",
    "SingularPoint",
    "SpectrumPart",
    "VectorFieldContent",
]


def _empty() -> FloatArray:
    return np.empty(0)


def _none() -> IntArray:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class KernelRow:
    """A fitted kernel in the comparison.

    Attributes:
        name: Its name.
        log_evidence: Laplace's approximation of the log marginal likelihood.
        elpd: Leave-one-place-out log predictive density.
        n_parameters: Number of parameters.
        converged: Whether its fit ended at a maximum.
    """

    name: str
    log_evidence: float
    elpd: float
    n_parameters: int
    converged: bool


@dataclass(frozen=True)
class SingularPoint:
    """A singular point: place (D,), index, probability, and whether the mean field is singular there."""

    location: FloatArray
    index: int
    probability: float
    in_mean: bool = True


@dataclass(frozen=True)
class SpectrumPart:
    """Modes of one Laplacian.

    Attributes:
        name: What they are modes of, where there are several parts; else empty.
        eigenvalues: (k,).
        variances: Of the modes' weights under a kernel, (k,); empty if there is none.
    """

    name: str
    eigenvalues: FloatArray
    variances: FloatArray = field(default_factory=_empty)


@dataclass(frozen=True)
class FlowPart:
    """One part of an edge flow.

    Attributes:
        name: "gradient", "curl" or "harmonic".
        mean: (E,).
        standard_deviation: (E,).
        prior_share: Of the prior variance.
    """

    name: str
    mean: FloatArray
    standard_deviation: FloatArray
    prior_share: float


@dataclass(frozen=True, kw_only=True)
class FieldContent:
    """What all reports about fields have.

    Attributes:
        title: Name of the data.
        mean: Mean at all nodes or edges, (n, D) or (n,).
        standard_deviation: Of a tangent coordinate, or of the value, (n,).
        observed: Number of observed places.
        kernel: The kernel that is used.
        verdict: Who won the comparison, in a sentence.
        kernels: The comparison, best first.
        weights: Of the kernels in the predictions.
        left_out: Reasons of kernels that were not fitted.
        parameters: Name, value, unit, and (if sampled) median, low and high of each parameter.
        residuals: Leave-one-out residuals, standardised, one per coordinate.
        pit: Their probability integral transforms.
        calibrated: What factors of the variances the predictions have, which residuals and pit do without; empty if
            none.
        geometry: Facts about the manifold or network.
        spectra: Modes of the intrinsic kernel, if any was fitted.
        spectrum_of: Name of that kernel.
        length_unit: Of the points.
        value_unit: Of the values.
        findings: What the reader should know.
        posterior: An ``arviz.InferenceData``, or None.
        run: How it was made.
    """

    title: str
    mean: FloatArray
    standard_deviation: FloatArray
    observed: int
    kernel: str
    verdict: str
    kernels: Sequence[KernelRow]
    parameters: Sequence[Mapping[str, Any]]
    residuals: FloatArray
    pit: FloatArray
    geometry: Sequence[tuple[str, str]]
    calibrated: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    spectra: Sequence[SpectrumPart] = ()
    spectrum_of: str = ""
    length_unit: str = ""
    value_unit: str = ""
    findings: Sequence[Finding] = ()
    posterior: Any = None
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        """Check lengths, so that a report is not half written when it fails."""
        if not len(self.mean) or len(self.standard_deviation) != len(self.mean):
            raise InvalidDataError("mean and standard_deviation must have the same length, at least one")
        if not self.kernels:
            raise InvalidDataError("a report needs at least one fitted kernel")


@dataclass(frozen=True, kw_only=True)
class _PlacedContent(FieldContent):
    """Fields on nodes that have places.

    Attributes:
        points: Nodes, (n, D).
        observed_nodes: Numbers of the observed nodes; empty if what was observed are not nodes.
        triangles: Of an oriented surface, else empty.
        normals: (n, 3), else None.
    """

    points: FloatArray
    observed_nodes: IntArray = field(default_factory=_none)
    triangles: IntArray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    normals: FloatArray | None = None

    def __post_init__(self) -> None:
        """Check lengths."""
        super().__post_init__()
        if len(self.points) != len(self.mean):
            raise InvalidDataError(f"there are {len(self.points)} points and {len(self.mean)} means")


@dataclass(frozen=True, kw_only=True)
class VectorFieldContent(_PlacedContent):
    """A report about a tangent vector field, means (n, D).

    Attributes:
        divergence: Mean at all nodes, and standard deviation; empty if it was not computed.
        divergence_sd: See above.
        curl: The same of the curl; empty if there is none.
        curl_sd: See above.
        singular: Singular points.
        index_sum: Sum of the indices of the mean field; None where there is no triangulation.
        euler: Euler characteristic of the triangulation.
        closed: Whether it is closed.
        eigenfields: The smoothest eigenfields (k, n, D).
    """

    divergence: FloatArray = field(default_factory=_empty)
    divergence_sd: FloatArray = field(default_factory=_empty)
    curl: FloatArray = field(default_factory=_empty)
    curl_sd: FloatArray = field(default_factory=_empty)
    singular: Sequence[SingularPoint] = ()
    index_sum: int | None = None
    euler: int = 0
    closed: bool = False
    eigenfields: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))


@dataclass(frozen=True, kw_only=True)
class ScalarFieldContent(_PlacedContent):
    """A report about a function on nodes, means (n,).

    Attributes:
        edges: Of a graph, (E, 2); empty on manifolds.
        laid_out: Whether the points are places on paper only, found for the picture.
        eigenfunctions: The smoothest eigenfunctions (k, n).
    """

    edges: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    laid_out: bool = False
    eigenfunctions: FloatArray = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True, kw_only=True)
class EdgeFlowContent(FieldContent):
    """A report about a flow along the edges of a network, means (E,).

    Attributes:
        points: Places of the nodes, (n, 2) or (n, 3).
        edges: (E, 2).
        observed_edges: Their numbers.
        laid_out: Whether the points are places on paper only, found for the picture.
        parts: Of the flow, where the kernel tells them apart.
        divergence: Net flow out of every node, (n,).
        divergence_sd: Its standard deviation.
        circulation: Flow around every face, (F,).
        circulation_sd: Its standard deviation.
    """

    points: FloatArray
    edges: IntArray
    observed_edges: IntArray
    divergence: FloatArray
    divergence_sd: FloatArray
    laid_out: bool = False
    parts: Sequence[FlowPart] = ()
    circulation: FloatArray = field(default_factory=_empty)
    circulation_sd: FloatArray = field(default_factory=_empty)

    def __post_init__(self) -> None:
        """Check lengths."""
        super().__post_init__()
        if len(self.edges) != len(self.mean):
            raise InvalidDataError(f"there are {len(self.edges)} edges and {len(self.mean)} means")
