"""Weighted undirected graphs: Laplacians, adjacency, and their spectral bases."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from gpkit.errors import InvalidDataError
from gpkit.geometry.checks import Floats, Integers, as_indices, some
from gpkit.geometry.laplacian import Laplacian
from gpkit.geometry.neighbours import component_labels
from gpkit.geometry.spectral_basis import SpectralBasis

__all__ = ["Graph"]


class Graph:
    """An undirected graph of n nodes with positive edge weights.

    Args:
        adjacency: scipy sparse or dense symmetric matrix (n, n), or a networkx graph (edge attribute "weight", 1 where
            there is none). Loops are dropped and counted.
        components: "refuse" or "keep" a graph that falls into disconnected parts.

    Attributes:
        adjacency: (n, n) csr, symmetric, zero diagonal.
        labels: node names in the order of the rows (those of networkx), else 0, 1, ...
        repairs: what was changed, in words.

    Raises:
        InvalidDataError: a matrix that is not square or not symmetric (a directed graph), weights that are negative or
            not finite, isolated nodes and disconnected parts unless they are kept.
    """

    kind = "graph"

    def __init__(self, adjacency: Any, *, components: str = "refuse") -> None:
        matrix, self.labels = _as_matrix(adjacency)
        self.repairs: tuple[str, ...] = ()
        loops = int((matrix.diagonal() != 0.0).sum())
        if loops:
            matrix = (matrix - sparse.diags(matrix.diagonal())).tocsr()
            self.repairs = (f"{loops} loops were dropped",)
        matrix.eliminate_zeros()
        matrix.sort_indices()
        self.adjacency = matrix
        if components not in ("refuse", "keep"):
            raise InvalidDataError(f"components must be 'refuse' or 'keep', got {components!r}")
        self.components, self.component_labels = component_labels(self.edges, self.n)
        if self.components > 1 and components == "refuse":
            sizes = np.sort(np.bincount(self.component_labels))[::-1]
            isolated = np.flatnonzero(self.degrees == 0.0)
            hint = f"; nodes {some(isolated)} have no edge" if isolated.size else ""
            raise InvalidDataError(
                f"the graph falls into {self.components} disconnected parts of {some(sizes)} nodes{hint}: model each "
                "part by itself, or pass components='keep'"
            )

    @property
    def n(self) -> int:
        """Number of nodes."""
        return int(self.adjacency.shape[0])

    @functools.cached_property
    def edges(self) -> Integers:
        """Edges (E, 2), i < j, sorted."""
        upper = sparse.triu(self.adjacency, k=1).tocoo()
        order = np.lexsort((upper.col, upper.row))
        return np.stack([upper.row, upper.col], 1).astype(np.int64)[order]

    @functools.cached_property
    def edge_weights(self) -> Floats:
        """Weights (E,) of the edges."""
        return np.asarray(self.adjacency[self.edges[:, 0], self.edges[:, 1]], dtype=np.float64).ravel()

    @functools.cached_property
    def degrees(self) -> Floats:
        """Sum of the weights at each node (n,)."""
        return np.asarray(self.adjacency.sum(1), dtype=np.float64).ravel()

    def __repr__(self) -> str:
        return f"Graph({self.n} nodes, {len(self.edges)} edges)"

    def where(self, index: Any) -> Integers:
        """Node numbers (m,) from a mask, integers of any kind, a list or a column."""
        return as_indices(index, self.n)

    def laplacian(self, normalised: bool = False) -> Laplacian:
        """``D - A``, or with ``normalised`` ``I - D^-1/2 A D^-1/2`` (eigenvalues in [0, 2]).

        Rows of nodes without edges are zero in both: such a node is a part by itself.
        """
        if not normalised:
            stiffness = (sparse.diags(self.degrees) - self.adjacency).tocsr()
            return Laplacian(stiffness, np.ones(self.n))
        joined = sparse.diags((self.degrees > 0.0).astype(np.float64))
        return Laplacian((joined - self._scaled_adjacency()).tocsr(), np.ones(self.n))

    def _scaled_adjacency(self) -> Any:
        scale = sparse.diags(1.0 / np.sqrt(np.where(self.degrees > 0.0, self.degrees, np.inf)))
        return (scale @ self.adjacency @ scale).tocsr()

    def walk_matrix(self, decay: float) -> Any:
        """``decay D^-1/2 A D^-1/2`` (n, n): spectral radius ``decay``.

        Raises:
            InvalidDataError: a decay outside of (0, 1).
        """
        if not 0.0 < decay < 1.0:
            raise InvalidDataError(f"decay must lie in (0, 1) for the series of walks to converge, got {decay}")
        return decay * self._scaled_adjacency()

    def basis(
        self,
        k: int = 300,
        operator: str = "normalised",
        solver: str = "auto",
        cut: str | None = "gap",
        cache: str | Path | None = None,
    ) -> SpectralBasis:
        """The k smoothest functions on the nodes.

        Args:
            k: how many.
            operator: "normalised" or "combinatorial" Laplacian, or "adjacency": the largest eigenvalues mu of the
                adjacency matrix, given as ``rho - mu`` with rho the largest row sum.
            solver: see :meth:`SpectralBasis.of`.
            cut: see :meth:`SpectralBasis.of`.
            cache: see :meth:`SpectralBasis.of`.

        Raises:
            InvalidDataError: an unknown operator.
        """
        if operator == "adjacency":
            top = float(self.degrees.max()) if self.n else 0.0
            laplacian = Laplacian((sparse.diags(np.full(self.n, top)) - self.adjacency).tocsr(), np.ones(self.n))
        elif operator in ("normalised", "combinatorial"):
            laplacian = self.laplacian(operator == "normalised")
        else:
            raise InvalidDataError(f"operator must be 'normalised', 'combinatorial' or 'adjacency', got {operator!r}")
        return SpectralBasis.of(laplacian, k, kind="graph", dim=0, solver=solver, cut=cut, cache=cache)


def _as_matrix(adjacency: Any) -> tuple[Any, list[Any]]:
    """A checked csr matrix and the names of its rows."""
    if hasattr(adjacency, "nodes") and hasattr(adjacency, "is_directed"):
        if adjacency.is_directed():
            raise InvalidDataError("the graph is directed: make it undirected first (to_undirected)")
        import networkx

        labels = list(adjacency.nodes)
        if not labels:
            raise InvalidDataError("the graph has no nodes: a graph has one node at least")
        matrix = networkx.to_scipy_sparse_array(adjacency, nodelist=labels, weight="weight", dtype=np.float64)
        matrix = sparse.csr_matrix(matrix)
    else:
        try:
            matrix = sparse.csr_matrix(adjacency, dtype=np.float64, copy=True)
        except (TypeError, ValueError) as error:
            raise InvalidDataError(f"a graph is given by its adjacency matrix or by networkx: {error}") from None
        labels = list(range(matrix.shape[0]))
    if matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise InvalidDataError(f"an adjacency matrix is square with at least one node, got {matrix.shape}")
    matrix.sum_duplicates()
    entries = matrix.tocoo()
    for wrong, what in ((~np.isfinite(entries.data), "not finite"), (entries.data < 0.0, "negative")):
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise InvalidDataError(
                f"the weight of edge ({entries.row[at]}, {entries.col[at]}) is {entries.data[at]}, {what} "
                f"({int(wrong.sum())} such entries)"
            )
    difference = abs(matrix - matrix.T).tocoo()
    largest = float(matrix.data.max()) if matrix.nnz else 0.0
    off = np.flatnonzero(difference.data > 1e-12 * largest)
    if off.size:
        i, j = int(difference.row[off[0]]), int(difference.col[off[0]])
        raise InvalidDataError(
            f"the graph is directed: edge ({i}, {j}) weighs {matrix[i, j]:g} and ({j}, {i}) {matrix[j, i]:g}; "
            "symmetrise it first ((A + A.T) / 2)"
        )
    return (0.5 * (matrix + matrix.T)).tocsr(), labels
