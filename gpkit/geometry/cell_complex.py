"""Nodes, edges and faces with weights: incidence matrices, Hodge Laplacians, and flows split into their three parts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from gpkit.checks import positive_integer
from gpkit.errors import InvalidDataError
from gpkit.geometry.checks import Floats, Integers, as_indices, some
from gpkit.geometry.laplacian import Laplacian
from gpkit.geometry.spectral_basis import SpectralBasis
from gpkit.operators.elimination import SymmetricFactor

__all__ = ["CellComplex", "HodgeBasis"]


@dataclass(frozen=True, eq=False)
class HodgeBasis:
    """The smoothest gradient, curl and harmonic flows on E edges.

    Functions are in the coordinates of the flows themselves, scaled like those of any :class:`SpectralBasis`.

    Attributes:
        gradient: flows down a potential on the nodes.
        curl: flows around faces.
        harmonic: flows without divergence or curl, around holes; eigenvalue 0.
    """

    gradient: SpectralBasis
    curl: SpectralBasis
    harmonic: SpectralBasis

    def __repr__(self) -> str:
        sizes = ", ".join(f"{basis.k} {name}" for name, basis in self.parts.items())
        return f"HodgeBasis({sizes or 'no'} modes on {self.n} edges)"

    @property
    def parts(self) -> dict[str, SpectralBasis]:
        """The parts that are there, by name."""
        found = {"gradient": self.gradient, "curl": self.curl, "harmonic": self.harmonic}
        return {name: basis for name, basis in found.items() if basis.k}

    @property
    def n(self) -> int:
        """Number of edges E."""
        return self.gradient.n


class CellComplex:
    r"""A two-dimensional complex of nodes, oriented edges and faces.

    In the coordinates :math:`\tilde f=M_1^{1/2}f` of a flow, with :math:`D_0=M_1^{1/2}B_1^\top M_0^{-1/2}` and
    :math:`D_1=M_2^{1/2}B_2^\top M_1^{-1/2}`, the Hodge Laplacians are :math:`L_0=D_0^\top D_0`,
    :math:`L_1=D_0D_0^\top+D_1^\top D_1` and :math:`L_2=D_1D_1^\top`.

    Args:
        nodes: number of nodes.
        edges: (E, 2) node numbers; a flow counts positive from the first to the second.
        faces: list of cycles of node numbers (triangles or longer), or (F, 3); every side must be an edge.
        node_weights: (nodes,), M_0, 1 by default.
        edge_weights: (E,), M_1.
        face_weights: (F,), M_2.

    Raises:
        InvalidDataError: node numbers out of range, loops, repeated edges, faces with sides that are no edges, weights
            that are not positive.

    References:
        Lim (2020), SIAM Review 62, 685; Yang et al. (2024), AISTATS (Hodge-compositional edge Gaussian processes).
    """

    kind = "cell complex"

    def __init__(
        self,
        nodes: int,
        edges: Any,
        faces: Any = None,
        *,
        node_weights: Any = None,
        edge_weights: Any = None,
        face_weights: Any = None,
    ) -> None:
        self.n_nodes = positive_integer(nodes, "nodes")
        self.edges = _as_edges(edges, self.n_nodes)
        self.faces = (
            [] if faces is None else [as_indices(face, self.n_nodes, f"faces[{i}]") for i, face in enumerate(faces)]
        )
        self.node_weights = _weights(node_weights, self.n_nodes, "node_weights")
        self.edge_weights = _weights(edge_weights, len(self.edges), "edge_weights")
        self.face_weights = _weights(face_weights, len(self.faces), "face_weights")
        self.boundary_2 = self._face_boundary()

    def __repr__(self) -> str:
        return f"CellComplex({self.n_nodes} nodes, {len(self.edges)} edges, {len(self.faces)} faces)"

    @property
    def n_edges(self) -> int:
        """Number of edges E."""
        return len(self.edges)

    def where(self, index: Any) -> Integers:
        """Edge numbers (m,) from a mask, integers of any kind, a list or a column."""
        return as_indices(index, self.n_edges, what="edge")

    @functools.cached_property
    def boundary_1(self) -> Any:
        """B_1 (nodes, E): -1 at the first node of an edge, +1 at the second."""
        count = self.n_edges
        values = np.tile([-1.0, 1.0], count)
        columns = np.repeat(np.arange(count), 2)
        return sparse.csr_matrix((values, (self.edges.ravel(), columns)), shape=(self.n_nodes, count))

    def _face_boundary(self) -> Any:
        """B_2 (E, F): the sides of each face, with the sign of their direction."""
        number = {(int(i), int(j)): e for e, (i, j) in enumerate(self.edges)}
        rows, columns, values = [], [], []
        for face, cycle in enumerate(self.faces):
            if len(cycle) < 3 or len(set(cycle.tolist())) < len(cycle):
                raise InvalidDataError(
                    f"face {face} must be a cycle of at least 3 different nodes, got {cycle.tolist()}"
                )
            for i, j in zip(cycle.tolist(), np.roll(cycle, -1).tolist(), strict=True):
                forward = number.get((i, j))
                edge = number.get((j, i)) if forward is None else forward
                if edge is None:
                    raise InvalidDataError(f"face {face} has the side ({i}, {j}), which is not an edge")
                rows.append(edge)
                columns.append(face)
                values.append(1.0 if forward is not None else -1.0)
        return sparse.csr_matrix((values, (rows, columns)), shape=(self.n_edges, len(self.faces)))

    @functools.cached_property
    def d0(self) -> Any:
        """Weighted gradient (E, nodes)."""
        return (
            sparse.diags(np.sqrt(self.edge_weights)) @ self.boundary_1.T @ sparse.diags(self.node_weights**-0.5)
        ).tocsr()

    @functools.cached_property
    def d1(self) -> Any:
        """Weighted curl (F, E)."""
        return (
            sparse.diags(np.sqrt(self.face_weights)) @ self.boundary_2.T @ sparse.diags(self.edge_weights**-0.5)
        ).tocsr()

    @functools.cached_property
    def l0(self) -> Any:
        """Hodge Laplacian of functions on nodes (nodes, nodes), symmetric coordinates."""
        return (self.d0.T @ self.d0).tocsr()

    @functools.cached_property
    def l1(self) -> Any:
        """Hodge Laplacian of flows on edges (E, E), symmetric coordinates."""
        return (self.d0 @ self.d0.T + self.d1.T @ self.d1).tocsr()

    @functools.cached_property
    def l2(self) -> Any:
        """Hodge Laplacian of functions on faces (F, F), symmetric coordinates."""
        return (self.d1 @ self.d1.T).tocsr()

    # -- decomposition --------------------------------------------------------------------------------------------

    def decompose(self, flow: Any) -> dict[str, Floats]:
        """Gradient, curl and harmonic parts of flows (E,) or (E, C); they sum to the flow, orthogonal in M_1.

        Raises:
            InvalidDataError: another number of rows.
        """
        values = np.asarray(flow, dtype=np.float64)
        if values.shape[:1] != (self.n_edges,):
            raise InvalidDataError(f"a flow has one row per edge ({self.n_edges}), got shape {values.shape}")
        scale = np.sqrt(self.edge_weights).reshape(-1, *[1] * (values.ndim - 1))
        symmetric = scale * values
        gradient = self.d0 @ _least_squares(self.l0, self.d0.T @ symmetric)
        curl = self.d1.T @ _least_squares(self.l2, self.d1 @ symmetric) if self.faces else np.zeros_like(symmetric)
        parts = {"gradient": gradient, "curl": curl, "harmonic": symmetric - gradient - curl}
        return {name: part / scale for name, part in parts.items()}

    # -- bases ----------------------------------------------------------------------------------------------------

    def hodge_basis(
        self,
        gradient: int = 100,
        curl: int = 100,
        harmonic: int | None = None,
        solver: str = "auto",
        cut: str | None = "gap",
        cache: str | Path | None = None,
    ) -> HodgeBasis:
        """The smoothest flows of each kind, without ever decomposing the E x E matrix.

        Gradient flows come from the eigenvectors of L0 and curl flows from those of L2; harmonic flows are random flows
        less their gradient and curl parts, as many as Euler's formula leaves room for.

        Args:
            gradient: number of gradient modes.
            curl: number of curl modes.
            harmonic: number of harmonic modes; all of them by default.
            solver: see :meth:`SpectralBasis.of`.
            cut: see :meth:`SpectralBasis.of`.
            cache: see :meth:`SpectralBasis.of`.

        Raises:
            InvalidDataError: fewer harmonic flows than asked for.
        """
        down = self._potential_modes(self.l0, gradient, self.d0, "gradient", solver, cut, cache)
        if self.faces:
            around = self._potential_modes(self.l2, curl, self.d1.T, "curl", solver, cut, cache)
        else:
            around = self._as_basis(np.zeros(0), np.zeros((self.n_edges, 0)), "curl", solver)
        flows = self._harmonic_modes(harmonic)
        return HodgeBasis(down, around, self._as_basis(np.zeros(flows.shape[1]), flows, "harmonic", "projection"))

    def _as_basis(
        self, eigenvalues: Floats, flows: Floats, kind: str, solver: str, following: float = float("nan")
    ) -> SpectralBasis:
        scale = np.sqrt(self.n_edges / self.edge_weights)[:, None]
        mass = self.edge_weights / self.edge_weights.mean()
        functions = (flows * scale * np.sqrt(self.edge_weights.mean())).reshape(self.n_edges, 1, -1)
        return SpectralBasis(eigenvalues, functions, mass, kind, 0, solver, next_eigenvalue=following)

    def _potential_modes(
        self, matrix: Any, k: int, lift: Any, kind: str, solver: str, cut: str | None, cache: str | Path | None
    ) -> SpectralBasis:
        """Flows ``lift u / sqrt(lam)`` of the eigenvectors u of a potential's Laplacian, without its null space."""
        size = matrix.shape[0]
        null = size - self._rank(kind)
        wanted = min(positive_integer(k, kind) + null, size)
        potentials = SpectralBasis.of(
            Laplacian(matrix, np.ones(size)), wanted, kind=kind, dim=0, solver=solver, cut=cut, cache=cache
        )
        values = potentials.eigenvalues[null:]
        vectors = potentials.functions[:, 0, null:] / np.sqrt(size)
        flows = lift @ (vectors / np.sqrt(values))
        return self._as_basis(values, flows, kind, potentials.solver, potentials.next_eigenvalue)

    def _rank(self, kind: str) -> int:
        return self.gradient_rank if kind == "gradient" else self.curl_rank

    @functools.cached_property
    def gradient_rank(self) -> int:
        """Rank of B_1: nodes less connected parts."""
        graph = sparse.csr_matrix(
            (np.ones(self.n_edges), (self.edges[:, 0], self.edges[:, 1])), shape=(self.n_nodes,) * 2
        )
        return self.n_nodes - int(sparse.csgraph.connected_components(graph, directed=False)[0])

    @functools.cached_property
    def curl_rank(self) -> int:
        """Rank of B_2, counted by elimination over whole numbers modulo a prime."""
        from gpkit.recursions.boundary_rank import rank_modulo

        matrix = self.boundary_2.tocsc()
        pointers, rows = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
        return int(rank_modulo(pointers, rows, matrix.data.astype(np.int64), self.n_edges))

    @property
    def harmonic_dimension(self) -> int:
        """Number of independent harmonic flows: E - rank B_1 - rank B_2."""
        return self.n_edges - self.gradient_rank - self.curl_rank

    def _harmonic_modes(self, count: int | None) -> Floats:
        available = self.harmonic_dimension
        if count is None:
            count = available
        if count > available:
            raise InvalidDataError(f"{count} harmonic flows were asked for, but there are {available}")
        if not count:
            return np.zeros((self.n_edges, 0))
        flows = np.random.default_rng(0).standard_normal((self.n_edges, available))
        scale = np.sqrt(self.edge_weights)[:, None]
        for _ in range(2):
            flows = np.linalg.qr(scale * self.decompose(flows / scale)["harmonic"])[0]
        return flows[:, :count]


def _least_squares(matrix: Any, rhs: Floats) -> Floats:
    """A solution of a consistent singular system: a shifted factor, corrected until the residual is at rounding."""
    if not matrix.shape[0]:
        return np.zeros(rhs.shape)
    shift = 1e-6 * float(matrix.diagonal().mean())
    if shift == 0.0:
        return np.zeros(rhs.shape)
    factor = SymmetricFactor((matrix + shift * sparse.identity(matrix.shape[0], format="csr")).tocsr())
    solution = factor.solve(rhs)
    for _ in range(8):
        misfit = rhs - matrix @ solution
        if np.abs(misfit).max() <= 1e-14 * max(float(np.abs(rhs).max()), 1e-300):
            break
        solution = solution + factor.solve(misfit)
    return solution


def _as_edges(edges: Any, nodes: int) -> Integers:
    array = np.asarray(edges)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise InvalidDataError(f"edges must have shape (E, 2) with at least one edge, got {array.shape}")
    numbers = np.stack([as_indices(array[:, end], nodes, f"edges[:, {end}]") for end in (0, 1)], axis=1)
    if (array < 0).any():
        raise InvalidDataError("edges must name nodes by numbers from 0 on")
    loops = np.flatnonzero(numbers[:, 0] == numbers[:, 1])
    if loops.size:
        raise InvalidDataError(f"edges {some(loops)} are loops")
    _, first, counts = np.unique(np.sort(numbers, 1), axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        raise InvalidDataError(f"edge {int(first[counts > 1][0])} is given more than once")
    return numbers


def _weights(weights: Any, count: int, name: str) -> Floats:
    if weights is None:
        return np.ones(count)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (count,):
        raise InvalidDataError(f"{name} must have shape ({count},), got {values.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0.0)))
    if bad.size:
        raise InvalidDataError(f"{name}[{bad[0]}] is {values[bad[0]]}: weights must be positive and finite")
    return values
