"""What point clouds and meshes share: frames, transport, Laplacians, bases, places between the nodes, diagnostics."""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry.checks import Floats, Integers, as_indices, as_matrix, some
from gpkit.geometry.frames import DimensionEvidence
from gpkit.geometry.laplacian import Laplacian, connection_laplacian, scalar_laplacian
from gpkit.geometry.neighbours import component_labels
from gpkit.geometry.spectral_basis import SpectralBasis
from gpkit.geometry.transport import orientation_signs, transports

__all__ = ["Location", "Manifold", "ManifoldDiagnostics"]

_WEAK = 0.5
"""Smallest singular value of a product of frames below which tangent spaces are said to be badly aligned."""
_MUCH_WEAK = 0.05
"""Share of the weight on badly aligned edges above which the user is warned."""


@dataclass(frozen=True, eq=False)
class Location:
    """Places on or near a manifold, seen from its nodes.

    A field u at node j reaches place x as ``sum_j w_xj O_xj u_j / (sum_j w_xj - lam m_x)``, the row that x would
    have in the eigenvalue problem; on meshes the mass is zero and the weights interpolate.

    Attributes:
        points: (m, D), as given.
        neighbours: (m, K), nodes.
        weights: (m, K), in the units of the Laplacian's stiffness.
        frames: (m, D, d).
        transports: (m, K, d, d), coordinates at a node to those at the place.
        mass: (m,).
        distance: (m,), to the nearest node (to the surface on meshes), in units of the data.
        far: (m,), whether the place is too far from the nodes for them to say anything.
        nodes: (m,), the node that coincides with the place, or -1.
    """

    points: Floats
    neighbours: Integers
    weights: Floats
    frames: Floats
    transports: Floats
    mass: Floats
    distance: Floats
    far: np.ndarray[Any, np.dtype[np.bool_]]
    nodes: Integers

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class ManifoldDiagnostics:
    """Numbers that say whether the geometry can be trusted.

    Attributes:
        nodes, edges, dim, ambient_dim: sizes.
        components: number of connected components.
        component_sizes: nodes in each, largest first.
        edge_length: median length of an edge.
        frame_angle: (mean, largest) angle in degrees between tangent spaces across edges: large values mean that the
            sampling does not resolve the curvature.
        frame_residual: mean share of the local variance outside of the tangent space.
        weak_edges: number of edges across which the tangent spaces are so different that transport means little.
        orientable: whether one orientation fits all edges.
        conflicting_edges: number of edges that contradict it.
        dimension: evidence for the dimension, where it was looked at.
        repairs: what was changed or enlarged, in words.
    """

    nodes: int
    edges: int
    dim: int
    ambient_dim: int
    components: int
    component_sizes: Integers
    edge_length: float
    frame_angle: tuple[float, float]
    frame_residual: float
    weak_edges: int
    orientable: bool
    conflicting_edges: int
    dimension: DimensionEvidence | None = None
    repairs: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        mean, largest = self.frame_angle
        lines = [
            f"{self.nodes} nodes, {self.edges} edges (median length {self.edge_length:.4g}), dimension {self.dim} in "
            f"{self.ambient_dim}, {self.components} component(s)",
            f"tangent spaces turn by {mean:.2g} degrees along an edge on average, {largest:.3g} at most; "
            f"{self.weak_edges} edges are too steep for transport; "
            f"{'orientable' if self.orientable else f'not orientable ({self.conflicting_edges} edges contradict)'}",
        ]
        if self.dimension is not None:
            d, share = self.dimension, 100 * self.dimension.votes.max()
            lines.append(
                f"dimension {d.dim} by {share:.0f} % of local spectra, {d.likelihood:.2f} by neighbour distances "
                f"({d.neighbors} neighbours)"
            )
        return "\n".join([*lines, *self.repairs])


class Manifold(ABC):
    """A Riemannian manifold known at n nodes; build a :class:`PointCloud` or a :class:`Mesh`.

    Frames are oriented alike wherever the manifold is orientable.

    Attributes:
        points: (n, D).
        frames: (n, D, d), orthonormal columns that span the tangent space.
        edges: (E, 2), i < j.
        edge_weights: (E,), calibrated: the Laplacian has units 1 / length^2.
        transports: (E, d, d), tangent coordinates at j = edges[:, 1] to those at i = edges[:, 0]; the transpose
            goes back.
        mass: (n,), share of the manifold that each node stands for, mean 1.
        repairs: what was changed, enlarged or is doubtful, in words.
        orientable: whether one orientation fits all edges.
    """

    kind = "manifold"
    _parts_hint = "model each part by itself"

    def __init__(
        self,
        points: Floats,
        frames: Floats,
        edges: Integers,
        edge_weights: Floats,
        mass: Floats,
        *,
        components: str = "refuse",
        repairs: tuple[str, ...] = (),
        oriented: bool = False,
    ) -> None:
        self.points = points
        self.edges = edges
        self.edge_weights = edge_weights
        self.mass = mass
        self.repairs = repairs
        self._check_components(components)
        rotations, self._alignment = transports(frames, edges, proper=oriented)
        signs, self._conflicts = orientation_signs(edges, rotations, len(points), self._alignment)
        if oriented:
            signs = np.ones(len(points))
        self.orientable = self._conflicts == 0
        self.frames = frames.copy()
        self.frames[:, :, -1] *= signs[:, None]
        rotations[:, -1, :] *= signs[edges[:, 0], None]
        rotations[:, :, -1] *= signs[edges[:, 1], None]
        self.transports = rotations
        weak = self._alignment < _WEAK
        strength = np.abs(edge_weights)
        if strength[weak].sum() > _MUCH_WEAK * strength.sum():
            self.repairs += (
                f"tangent spaces differ by more than 60 degrees across {int(weak.sum())} of {len(edges)} edges, where "
                "vectors cannot be transported: nodes are too few for the curvature, or too noisy for the neighbours "
                "that make a frame (more frame neighbours even the noise of points out)",
            )

    @staticmethod
    def dim_of(frames: Floats) -> int:
        """Number of columns of frames."""
        return int(frames.shape[2])

    def _check_components(self, components: str) -> None:
        if components not in ("refuse", "keep"):
            raise InvalidDataError(f"components must be 'refuse' or 'keep', got {components!r}")
        count, labels = component_labels(self.edges, len(self.points))
        self.component_labels = labels
        self.components = count
        if count > 1 and components == "refuse":
            sizes = np.bincount(labels)
            smallest = int(sizes.argmin())
            raise InvalidDataError(
                f"the nodes fall into {count} disconnected parts of {some(np.sort(sizes)[::-1])} nodes (the smallest "
                f"holds node {int(np.flatnonzero(labels == smallest)[0])}): {self._parts_hint}, or pass "
                "components='keep'"
            )

    # -- sizes ----------------------------------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.points)

    @property
    def dim(self) -> int:
        """Dimension d of the manifold."""
        return self.dim_of(self.frames)

    @property
    def ambient_dim(self) -> int:
        """Dimension D of the space around it."""
        return self.points.shape[1]

    @functools.cached_property
    def scale(self) -> float:
        """Root mean square distance of the nodes from their centre, in units of the data."""
        return float(np.sqrt(((self.points - self.points.mean(0)) ** 2).sum(1).mean()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n} nodes, {len(self.edges)} edges, dim={self.dim} in {self.ambient_dim})"

    # -- vectors and indices --------------------------------------------------------------------------------------

    def where(self, index: Any) -> Integers:
        """Node numbers (m,) from a mask, integers of any kind, a list or a column; see :func:`as_indices`."""
        return as_indices(index, self.n)

    def to_tangent(self, vectors: Any, where: Any = None) -> tuple[Floats, Floats]:
        """Tangent coordinates (m, d) of ambient vectors (m, D) at nodes, and the lengths (m,) of what is left over.

        Raises:
            InvalidDataError: shapes that do not fit, or entries that are not finite.
        """
        nodes = self.where(where)
        values = as_matrix(vectors, "vectors", self.ambient_dim)
        if len(values) != len(nodes):
            raise InvalidDataError(f"{len(values)} vectors were given for {len(nodes)} nodes")
        frames = self.frames[nodes]
        coordinates = np.einsum("mad,ma->md", frames, values)
        rest = values - np.einsum("mad,md->ma", frames, coordinates)
        return coordinates, np.linalg.norm(rest, axis=1)

    def to_ambient(self, coordinates: Any, where: Any = None) -> Floats:
        """Ambient vectors (m, D) of tangent coordinates (m, d) at nodes."""
        return np.einsum("mad,md->ma", self.frames[self.where(where)], as_matrix(coordinates, "coordinates", self.dim))

    @property
    def normals(self) -> Floats:
        """Unit normals (n, 3) of an oriented surface in space: cross(first, second) tangent direction.

        Raises:
            InvalidDataError: not a surface in three dimensions.
        """
        if self.dim != 2 or self.ambient_dim != 3:
            raise InvalidDataError(
                f"normals belong to surfaces in 3 dimensions, not dim {self.dim} in {self.ambient_dim}"
            )
        return np.cross(self.frames[:, :, 0], self.frames[:, :, 1])

    # -- operators ------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _scalar(self) -> Laplacian:
        return scalar_laplacian(self.edges, self.edge_weights, self.mass)

    @functools.cached_property
    def _connection(self) -> Laplacian:
        return connection_laplacian(self.edges, self.edge_weights, self.transports, self.mass)

    def laplacian(self, kind: str = "connection") -> Laplacian:
        """The Laplacian of functions ("scalar") or of tangent vector fields ("connection").

        Raises:
            InvalidDataError: another kind.
        """
        if kind == "scalar":
            return self._scalar
        if kind == "connection":
            return self._connection
        raise InvalidDataError(f"kind must be 'scalar' or 'connection', got {kind!r}")

    def connection_basis(
        self, k: int = 300, solver: str = "auto", cut: str | None = "gap", cache: str | Path | None = None
    ) -> SpectralBasis:
        """The k smoothest vector fields; see :meth:`SpectralBasis.of`."""
        return self._basis("connection", k, solver, cut, cache)

    def scalar_basis(
        self, k: int = 300, solver: str = "auto", cut: str | None = "gap", cache: str | Path | None = None
    ) -> SpectralBasis:
        """The k smoothest functions; see :meth:`SpectralBasis.of`."""
        return self._basis("scalar", k, solver, cut, cache)

    def _basis(self, kind: str, k: int, solver: str, cut: str | None, cache: str | Path | None) -> SpectralBasis:
        return SpectralBasis.of(
            self.laplacian(kind),
            k,
            components=self.dim if kind == "connection" else 1,
            kind=kind,
            manifold=self,
            solver=solver,
            cut=cut,
            cache=cache,
        )

    @abstractmethod
    def locate(self, points: Any) -> Location:
        """Places (m, D) anywhere, seen from the nodes."""

    # -- diagnostics ----------------------------------------------------------------------------------------------

    dimension_evidence: DimensionEvidence | None = None
    frame_residual: float = 0.0

    def diagnostics(self) -> ManifoldDiagnostics:
        """Components, angles between tangent spaces, orientation and repairs."""
        lengths = np.linalg.norm(self.points[self.edges[:, 0]] - self.points[self.edges[:, 1]], axis=1)
        angles = np.degrees(np.arccos(np.clip(self._alignment, 0.0, 1.0)))
        empty = not len(self.edges)
        return ManifoldDiagnostics(
            nodes=self.n,
            edges=len(self.edges),
            dim=self.dim,
            ambient_dim=self.ambient_dim,
            components=self.components,
            component_sizes=np.sort(np.bincount(self.component_labels))[::-1],
            edge_length=0.0 if empty else float(np.median(lengths)),
            frame_angle=(0.0, 0.0) if empty else (float(angles.mean()), float(angles.max())),
            frame_residual=self.frame_residual,
            weak_edges=int((self._alignment < _WEAK).sum()),
            orientable=self.orientable,
            conflicting_edges=self._conflicts,
            dimension=self.dimension_evidence,
            repairs=self.repairs,
        )

    def _announce(self) -> None:
        """Warn once of everything that was repaired."""
        if self.repairs:
            warnings.warn("; ".join(self.repairs), DataWarning, stacklevel=4)
