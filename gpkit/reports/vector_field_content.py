"""What a report about a vector field is made of, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpkit.diagnostics.arrays import FloatArray, IntArray
from gpkit.diagnostics.findings import Finding
from gpkit.errors import InvalidDataError
from gpkit.reports.content import RunSection

__all__ = ["KernelRow", "SingularPoint", "VectorFieldContent"]


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
    """A singular point of the mean field: place (D,), index, probability."""

    location: FloatArray
    index: int
    probability: float


@dataclass(frozen=True)
class VectorFieldContent:
    """A whole report.

    Attributes:
        title: Name of the data.
        points: Nodes, (n, D).
        mean: Mean vectors at all nodes, (n, D).
        standard_deviation: Of a tangent coordinate, (n,).
        observed_points: Observed places, (m, D).
        observed_nodes: Their node numbers; empty if they are not nodes.
        kernel: The kernel that is used.
        verdict: Who won the comparison, in a sentence.
        kernels: The comparison, best first.
        weights: Of the kernels in the predictions.
        left_out: Reasons of kernels that were not fitted.
        parameters: Name, value, unit, and (if sampled) median, low and high of each parameter.
        residuals: Leave-one-out residuals, standardised, one per coordinate.
        pit: Their probability integral transforms.
        geometry: Facts about the manifold.
        triangles: Of an oriented surface, else empty.
        normals: (n, 3), else None.
        divergence: Mean at all nodes, and standard deviation; empty if it was not computed.
        divergence_sd: See above.
        curl: The same of the curl; empty if there is none.
        curl_sd: See above.
        singular: Singular points.
        index_sum: Sum of the indices; None where there is no triangulation.
        euler: Euler characteristic of the triangulation.
        closed: Whether it is closed.
        eigenvalues: Of the intrinsic basis, if it was used.
        variances: Of its modes under the kernel.
        spectrum_of: Name of that kernel.
        eigenfields: The smoothest eigenfields (k, n, D).
        length_unit: Of the points.
        value_unit: Of the vectors.
        findings: What the reader should know.
        posterior: An ``arviz.InferenceData``, or None.
        run: How it was made.
    """

    title: str
    points: FloatArray
    mean: FloatArray
    standard_deviation: FloatArray
    observed_points: FloatArray
    observed_nodes: IntArray
    kernel: str
    verdict: str
    kernels: Sequence[KernelRow]
    parameters: Sequence[Mapping[str, Any]]
    residuals: FloatArray
    pit: FloatArray
    geometry: Sequence[tuple[str, str]]
    weights: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    triangles: IntArray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    normals: FloatArray | None = None
    divergence: FloatArray = field(default_factory=lambda: np.empty(0))
    divergence_sd: FloatArray = field(default_factory=lambda: np.empty(0))
    curl: FloatArray = field(default_factory=lambda: np.empty(0))
    curl_sd: FloatArray = field(default_factory=lambda: np.empty(0))
    singular: Sequence[SingularPoint] = ()
    index_sum: int | None = None
    euler: int = 0
    closed: bool = False
    eigenvalues: FloatArray = field(default_factory=lambda: np.empty(0))
    variances: FloatArray = field(default_factory=lambda: np.empty(0))
    spectrum_of: str = ""
    eigenfields: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))
    length_unit: str = ""
    value_unit: str = ""
    findings: Sequence[Finding] = ()
    posterior: Any = None
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        """Check lengths, so that a report is not half written when it fails."""
        n = len(self.points)
        if not n or len(self.mean) != n or len(self.standard_deviation) != n:
            raise InvalidDataError("points, mean and standard_deviation must have the same length, at least one")
        if not self.kernels:
            raise InvalidDataError("a report needs at least one fitted kernel")
