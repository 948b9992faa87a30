"""Sparse Cholesky factors: the order of elimination, the blocks of the factor, and what is solved with it."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg

from gpkit.errors import NotPositiveDefiniteError

__all__ = ["Supernodes", "SymmetricFactor", "elimination_order"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def elimination_order(matrix: Any, block: int = 1) -> Integers:
    """Which unknown goes first, second, ...: nested dissection where pymetis is installed, else minimum degree.

    The order changes the cost, never the answer.

    Args:
        matrix: symmetric pattern (N, N), scipy sparse.
        block: unknowns that belong together (d per node) and are ordered as one.
    """
    marks = (np.ones(matrix.nnz), matrix.indices.copy(), matrix.indptr.copy())  # the caller keeps its own
    graph = sparse.csr_matrix(marks, shape=matrix.shape)
    if block > 1:
        nodes = matrix.shape[0] // block
        gather = sparse.csr_matrix(
            (np.ones(matrix.shape[0]), (np.arange(matrix.shape[0]) // block, np.arange(matrix.shape[0]))),
            shape=(nodes, matrix.shape[0]),
        )
        graph = (gather @ graph @ gather.T).tocsr()
    if importlib.util.find_spec("pymetis") is not None and graph.shape[0] > 1:
        order = _dissection(graph)
    else:
        # SuperLU's minimum degree needs numbers to factor: those of a graph Laplacian.
        values = -np.abs(graph) + sparse.diags(np.asarray(np.abs(graph).sum(1)).ravel() + 1.0)
        factor = sparse_linalg.splu(
            values.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        order = np.argsort(factor.perm_c).astype(np.int64)
    return (order[:, None] * block + np.arange(block)).ravel()


def _dissection(graph: Any) -> Integers:
    import pymetis

    graph = graph.tocsr()
    graph.setdiag(0.0)
    graph.eliminate_zeros()
    adjacency = pymetis.CSRAdjacency(graph.indptr.astype(np.int64), graph.indices.astype(np.int64))
    order, _ = pymetis.nested_dissection(adjacency=adjacency)
    return np.asarray(order, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Supernodes:
    """Blocks of columns of the factor of a symmetric pattern, in an elimination order.

    Args:
        order: (N,), which unknown goes first, second, ...
        first: (S + 1,) first column of each block.
        starts: (S + 1,) pointers into ``stored``.
        stored: row numbers of each block.
    """

    order: Integers
    first: Integers
    starts: Integers
    stored: Integers

    @classmethod
    def of(cls, matrix: Any, order: Integers) -> Supernodes:
        """Symbolic factorisation of a symmetric pattern (N, N), scipy sparse."""
        from gpkit.recursions.sparse_cholesky import symbolic_blocks

        # Elimination along the tree keeps columns of a block together; the fill stays what it is.
        order = order[_postorder(_permuted(matrix, order))]
        permuted = _permuted(matrix, order)
        return cls(order, *symbolic_blocks(permuted.indptr.astype(np.int64), permuted.indices.astype(np.int64)))

    @classmethod
    def side_by_side(cls, parts: Sequence[Supernodes]) -> Supernodes:
        """Of a block-diagonal matrix, from those of its blocks."""
        sizes, filled = (
            np.cumsum([0, *(len(values) for values in each)])
            for each in ([part.order for part in parts], [part.stored for part in parts])
        )
        return cls(
            np.concatenate([part.order + start for part, start in zip(parts, sizes[:-1], strict=True)]),
            np.concatenate([*(part.first[:-1] + k for part, k in zip(parts, sizes[:-1], strict=True)), sizes[-1:]]),
            np.concatenate([*(part.starts[:-1] + k for part, k in zip(parts, filled[:-1], strict=True)), filled[-1:]]),
            np.concatenate([part.stored + start for part, start in zip(parts, sizes[:-1], strict=True)]),
        )

    @functools.cached_property
    def rank(self) -> Integers:
        """Place of each unknown in the order."""
        return np.argsort(self.order)

    @property
    def nonzeros(self) -> int:
        """Number of stored entries of the factor."""
        return int((np.diff(self.first) * np.diff(self.starts)).sum())


def _permuted(matrix: Any, order: Integers) -> Any:
    return matrix.tocsr()[order].tocsc()[:, order]


def _postorder(permuted: Any) -> Integers:
    """Children right before their parents in the elimination tree of a symmetric pattern."""
    from gpkit.recursions.sparse_cholesky import postorder

    found: Integers = postorder(permuted.indptr.astype(np.int64), permuted.indices.astype(np.int64))
    return found


class SymmetricFactor:
    """``P A P^T = L L^T`` of a sparse symmetric positive definite matrix.

    Args:
        matrix: (N, N), scipy sparse.
        nodes: symbolic factorisation of its pattern; found here by default.
        block: unknowns that belong together, for the elimination order.

    Raises:
        NotPositiveDefiniteError: a pivot is not positive; with its row.
    """

    def __init__(self, matrix: Any, nodes: Supernodes | None = None, block: int = 1) -> None:
        from gpkit.recursions.sparse_cholesky import factor_blocks

        if nodes is None:
            nodes = Supernodes.of(matrix, elimination_order(matrix.tocsr(), block))
        permuted = _permuted(matrix, nodes.order)
        self.nodes = nodes
        self._parts = (nodes.first, nodes.starts, nodes.stored)
        self._offsets, self._blocks, failed = factor_blocks(
            *self._parts, permuted.indptr.astype(np.int64), permuted.indices.astype(np.int64), permuted.data
        )
        if failed >= 0:
            raise NotPositiveDefiniteError("the sparse matrix is not positive definite", row=int(nodes.order[failed]))
        self._inverse: Array | None = None

    def solve(self, rhs: Array) -> Array:
        """``A^-1 rhs``, (N,) or (N, C)."""
        from gpkit.recursions.sparse_cholesky import backward, forward

        columns = np.ascontiguousarray((rhs[:, None] if rhs.ndim == 1 else rhs)[self.nodes.order])
        forward(*self._parts, self._offsets, self._blocks, columns)
        backward(*self._parts, self._offsets, self._blocks, columns)
        return self._unsorted(columns, rhs.shape)

    def whiten(self, rhs: Array) -> Array:
        """``L^-1 P rhs`` (N, C), in the order of elimination: its squares add up to ``rhs^T A^-1 rhs``."""
        from gpkit.recursions.sparse_cholesky import forward

        columns = np.ascontiguousarray(rhs[self.nodes.order], dtype=np.float64)
        forward(*self._parts, self._offsets, self._blocks, columns)
        return columns

    def draw(self, noise: Array) -> Array:
        """``P^T L^-T noise`` (N, C): covariance ``A^-1`` from standard normal noise."""
        from gpkit.recursions.sparse_cholesky import backward

        columns = np.array(noise, dtype=np.float64, order="C")
        backward(*self._parts, self._offsets, self._blocks, columns)
        return self._unsorted(columns, noise.shape)

    def _unsorted(self, columns: Array, shape: tuple[int, ...]) -> Array:
        out = np.empty_like(columns)
        out[self.nodes.order] = columns
        return out.reshape(shape)

    def logdet(self) -> float:
        """log det A."""
        first, starts = self.nodes.first, self.nodes.starts
        total = 0.0
        for s in range(len(first) - 1):
            width = first[s + 1] - first[s]
            block = self._blocks[self._offsets[s] : self._offsets[s + 1]].reshape(starts[s + 1] - starts[s], width)
            total += float(np.log(np.diagonal(block)).sum())
        return 2.0 * total

    def inverse_entries(self, rows: Integers, columns: Integers) -> Array:
        """Entries of the inverse at places of the pattern of L; nan elsewhere."""
        from gpkit.recursions.sparse_cholesky import block_entries, block_inverse

        if self._inverse is None:
            self._inverse = block_inverse(*self._parts, self._offsets, self._blocks)
        rank = self.nodes.rank
        found: Array = block_entries(*self._parts, self._offsets, self._inverse, rank[rows], rank[columns])
        return found
