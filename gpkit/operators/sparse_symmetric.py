"""Sparse symmetric positive definite matrices in torch: solves and determinants with gradients, one factorisation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.operators.elimination import Supernodes, SymmetricFactor, elimination_order

__all__ = ["SparseMatrix", "SparsePattern"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_CHUNK = 16


@dataclass(frozen=True, eq=False)
class SparsePattern:
    """Places of the entries of symmetric N x N matrices, and the order in which such matrices are eliminated.

    Args:
        pointers: (N + 1,) column pointers.
        rows: (nnz,) row numbers, increasing in each column; the pattern is symmetric and holds the diagonal.
        block: unknowns that belong together (d per node), for the elimination order.
        parts: patterns one after the other on the diagonal, where it is made of such.
    """

    pointers: Integers
    rows: Integers
    block: int = 1
    parts: tuple[SparsePattern, ...] = ()

    @classmethod
    def of(cls, matrix: Any, block: int = 1) -> SparsePattern:
        """The pattern of a sparse matrix, with the diagonal and made symmetric.

        Raises:
            InvalidDataError: not square.
        """
        if matrix.shape[0] != matrix.shape[1]:
            raise InvalidDataError(f"a precision matrix is square, got {matrix.shape}")
        marks = sparse.csc_matrix((np.ones(matrix.nnz), *_csc_parts(matrix)), shape=matrix.shape) + sparse.identity(
            matrix.shape[0], format="csc"
        )
        marks = (marks + marks.T).tocsc()
        marks.sort_indices()
        return cls(marks.indptr.astype(np.int64), marks.indices.astype(np.int64), block)

    @classmethod
    def block_diagonal(cls, patterns: Sequence[SparsePattern]) -> SparsePattern:
        """Patterns one after the other on the diagonal; values are those of the parts, one after the other."""
        sizes = np.cumsum([0, *(pattern.size for pattern in patterns)])
        filled = np.cumsum([0, *(pattern.nnz for pattern in patterns)])
        pointers = [pattern.pointers[:-1] + start for pattern, start in zip(patterns, filled[:-1], strict=True)]
        rows = [pattern.rows + start for pattern, start in zip(patterns, sizes[:-1], strict=True)]
        blocks = {pattern.block for pattern in patterns}
        block = blocks.pop() if len(blocks) == 1 else 1
        return cls(np.concatenate([*pointers, filled[-1:]]), np.concatenate(rows), block, tuple(patterns))

    @property
    def size(self) -> int:
        """Number of rows N."""
        return len(self.pointers) - 1

    @property
    def nnz(self) -> int:
        """Number of places."""
        return len(self.rows)

    @functools.cached_property
    def columns(self) -> Integers:
        """Column number of each place."""
        return np.repeat(np.arange(self.size), np.diff(self.pointers))

    @functools.cached_property
    def diagonal_places(self) -> Integers:
        """Places of the diagonal (N,)."""
        return np.flatnonzero(self.rows == self.columns)

    def values_of(self, matrix: Any) -> Array:
        """Values (nnz,) of a sparse matrix whose entries all lie on the pattern.

        Raises:
            InvalidDataError: an entry elsewhere.
        """
        entries = matrix.tocoo()
        keys = self.columns * self.size + self.rows
        wanted = entries.col.astype(np.int64) * self.size + entries.row
        at = np.minimum(np.searchsorted(keys, wanted), self.nnz - 1)
        if not np.array_equal(keys[at], wanted):
            raise InvalidDataError("the matrix has entries outside of the pattern")
        return np.bincount(at, entries.data, self.nnz).astype(np.float64)

    def matrix(self, values: Array) -> sparse.csc_matrix:
        """The scipy matrix of values (nnz,)."""
        return sparse.csc_matrix((values, self.rows, self.pointers), shape=(self.size, self.size))

    @functools.cached_property
    def supernodes(self) -> Supernodes:
        """Elimination order and symbolic factorisation; of parts that are the same pattern once."""
        if self.parts:
            return Supernodes.side_by_side([part.supernodes for part in self.parts])
        ones = self.matrix(np.ones(self.nnz))
        return Supernodes.of(ones, elimination_order(ones.tocsr(), self.block))


def _csc_parts(matrix: Any) -> tuple[Any, Any]:
    found = matrix.tocsc()
    return found.indices, found.indptr


class SparseMatrix:
    """A symmetric positive definite matrix: a pattern with values (nnz,) that may need gradients.

    The factorisation is made once, when it is first needed.
    """

    def __init__(self, pattern: SparsePattern, values: Tensor) -> None:
        self.pattern = pattern
        self.values = values
        self._factor: SymmetricFactor | None = None

    @property
    def numbers(self) -> Array:
        """The values in numpy."""
        return np.asarray(self.values.detach().cpu().numpy(), dtype=np.float64)

    @property
    def factor(self) -> SymmetricFactor:
        """The Cholesky factor."""
        if self._factor is None:
            self._factor = SymmetricFactor(self.pattern.matrix(self.numbers), self.pattern.supernodes)
        return self._factor

    def solve(self, rhs: Tensor) -> Tensor:
        """``A^-1 rhs`` (N, C), differentiable in the values and the right-hand side."""
        out: Tensor = _Solve.apply(self.values, rhs, self)
        return out

    def logdet(self) -> Tensor:
        """log det A, differentiable in the values."""
        out: Tensor = _LogDet.apply(self.values, self)
        return out


class _Solve(torch.autograd.Function):
    """Sparse solve; the adjoint is another solve and an outer product on the pattern."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rhs: Tensor, matrix: SparseMatrix) -> Tensor:
        solution = torch.as_tensor(matrix.factor.solve(rhs.detach().cpu().double().numpy())).to(rhs)
        ctx.matrix = matrix
        ctx.save_for_backward(solution)
        return solution

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (solution,) = ctx.saved_tensors
        pattern = ctx.matrix.pattern
        adjoint = torch.as_tensor(ctx.matrix.factor.solve(grad.detach().cpu().double().numpy())).to(grad)
        wrt_values = None
        if ctx.needs_input_grad[0]:
            rows, columns = torch.as_tensor(pattern.rows), torch.as_tensor(pattern.columns)
            wrt_values = adjoint.new_zeros(len(rows))
            for first in range(0, adjoint.shape[1], _CHUNK):  # never all columns at all places
                part = slice(first, first + _CHUNK)
                wrt_values -= (adjoint[:, part][rows] * solution[:, part][columns]).sum(-1)
        return wrt_values, adjoint, None


class _LogDet(torch.autograd.Function):
    """Log-determinant; its derivative is the inverse on the pattern, by Takahashi's recurrence."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        return torch.as_tensor(matrix.factor.logdet(), dtype=values.dtype, device=values.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        pattern = ctx.matrix.pattern
        inverse = ctx.matrix.factor.inverse_entries(pattern.rows, pattern.columns)
        return grad * torch.as_tensor(inverse).to(grad), None
