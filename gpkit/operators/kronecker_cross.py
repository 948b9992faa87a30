"""Rectangular covariances between any points and the cells of a grid, for kernels that are products over axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from linear_operator.operators import LinearOperator, ZeroLinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators.grid_cells import GridCells
from gpkit.operators.kronecker_products import kronecker_matmul
from gpkit.operators.structured import common_batch

__all__ = ["KroneckerCrossLinearOperator"]

_CHUNK_ENTRIES = 2**22
_FULL_ROWS = 4
"""The rows are taken from their own grid as long as it has at most this many times as many cells as there are rows."""
_LARGEST_GRID = 64
"""A grid with more than so many times as many cells as there are points is never filled."""


class KroneckerCrossLinearOperator(LinearOperator):
    """``C[i, r] = sum_t prod_j F_tj[row_j(i), column_j(r)]``.

    Rows that fill most of a grid of their own cost ``O(N sum)`` as a Kronecker product does; scattered rows cost
    ``O(M N)`` time and little memory.

    Args:
        factors: F, (*batch, u_j, n_j), d for the first term, d for the second, and so on.
        rows: the rows as cells of the grid (u_1, ..., u_d) of their coordinates.
        columns: the columns as cells of the grid (n_1, ..., n_d).
    """

    def __init__(self, *factors: Tensor, rows: GridCells, columns: GridCells) -> None:
        super().__init__(*factors, rows=rows, columns=columns)
        self.factors = factors
        self.rows = rows
        self.columns = columns

    @property
    def terms(self) -> list[Sequence[Tensor]]:
        """The factors of each term."""
        d = len(self.columns.sizes)
        return [self.factors[k : k + d] for k in range(0, len(self.factors), d)]

    def _like(self, *factors: Tensor) -> KroneckerCrossLinearOperator:
        return type(self)(*factors, rows=self.rows, columns=self.columns)

    def _size(self) -> torch.Size:
        return torch.Size((*self.factors[0].shape[:-2], self.rows.rows, self.columns.rows))

    def _transpose_nonbatch(self) -> KroneckerCrossLinearOperator:
        return type(self)(*(f.mT for f in self.factors), rows=self.columns, columns=self.rows)

    def _expand_batch(self, batch_shape: torch.Size) -> KroneckerCrossLinearOperator:
        return self._like(*(f.expand(*batch_shape, *f.shape[-2:]) for f in self.factors))

    @staticmethod
    def _scattered(cells: GridCells) -> bool:
        return cells.count > _FULL_ROWS * max(cells.rows, 1)

    def _matmul(self, rhs: Tensor) -> Tensor:
        values = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
        product = self._way()
        total: Tensor | None = None
        for factors in self.terms:
            part = product(factors, values)
            total = part if total is None else total + part
        assert total is not None
        return total.squeeze(-1) if rhs.dim() == 1 else total

    def _way(self) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
        """The cheapest of four ways to multiply, all exact."""
        rows, columns = self.rows, self.columns
        if not (self._scattered(rows) or self._scattered(columns)):
            return self._between_grids
        if min(rows.count, columns.count) > _LARGEST_GRID * max(rows.rows, columns.rows, 1):
            return self._between_points
        return self._to_scattered if columns.count <= rows.count else self._from_scattered

    def _between_grids(self, factors: Sequence[Tensor], values: Tensor) -> Tensor:
        return self.rows.gather(kronecker_matmul(factors, self.columns.scatter(values)))

    def _between_points(self, factors: Sequence[Tensor], values: Tensor) -> Tensor:
        """Neither side is a grid: rows of the dense matrix, some at a time."""
        single = self._like(*factors)
        lead = (slice(None),) * (factors[0].dim() - 2)
        step = max(1, _CHUNK_ENTRIES // max(self.columns.rows, 1))
        pieces = []
        for start in range(0, self.rows.rows, step):
            rows = [c[start : start + step].unsqueeze(-1) for c in self.rows.coordinates]
            pieces.append(single._entries(rows, list(self.columns.coordinates), lead) @ values)
        return torch.cat(pieces, dim=-2)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._matmul(rhs)

    def _to_scattered(self, factors: Sequence[Tensor], values: Tensor) -> Tensor:
        """Rows one by one: the first axis by one product, the others row-wise."""
        values = self.columns.scatter(values)
        sizes, count = self.columns.sizes, values.shape[-1]
        grid = values.reshape(*values.shape[:-2], sizes[0], math.prod(sizes[1:]) * count)
        step = max(1, _CHUNK_ENTRIES // max(grid.shape[-1], 1))
        pieces = []
        for start in range(0, self.rows.rows, step):
            where = [c[start : start + step] for c in self.rows.coordinates]
            part = factors[0][..., where[0], :] @ grid
            for axis in range(1, len(sizes)):
                part = part.reshape(*part.shape[:-1], sizes[axis], math.prod(sizes[axis + 1 :]) * count)
                part = (factors[axis][..., where[axis], :].unsqueeze(-2) @ part).squeeze(-2)
            pieces.append(part.reshape(*part.shape[:-1], count))
        if not pieces:
            batch = common_batch(self.batch_shape, values.shape[:-2])
            return values.new_zeros(*batch, 0, count)
        return torch.cat(pieces, dim=-2)

    def _from_scattered(self, factors: Sequence[Tensor], values: Tensor) -> Tensor:
        """Sum over scattered columns of outer products of their factors."""
        count, sizes = values.shape[-1], self.rows.sizes
        width = max(self.rows.count // max(sizes[0], 1), 1) * count
        step = max(1, _CHUNK_ENTRIES // width)
        batch = common_batch(self.batch_shape, values.shape[:-2])
        total = values.new_zeros(*batch, self.rows.count, count)
        for start in range(0, self.columns.rows, step):
            where = [c[start : start + step] for c in self.columns.coordinates]
            part = values[..., start : start + step, :]
            for axis in reversed(range(1, len(sizes))):
                columns = factors[axis].mT[..., where[axis], :]
                part = (columns.unsqueeze(-1) * part.unsqueeze(-2)).flatten(-2)
            total = total + (factors[0][..., where[0]] @ part).reshape(total.shape)
        return self.rows.gather(total)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, M, N)."""
        lead = (slice(None),) * len(self.batch_shape)
        rows, columns = self.rows.coordinates, self.columns.coordinates
        return self._entries([r.unsqueeze(-1) for r in rows], list(columns), lead)

    def _entries(self, rows: Sequence[Tensor], columns: Sequence[Tensor], batch: tuple[Any, ...]) -> Tensor:
        total: Tensor | None = None
        for factors in self.terms:
            product: Tensor | None = None
            for factor, row, column in zip(factors, rows, columns, strict=True):
                entry = factor[(*batch, row, column)]
                product = entry if product is None else product * entry
            assert product is not None
            total = product if total is None else total + product
        assert total is not None
        return total

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        rows = [c[row_index] for c in self.rows.coordinates]
        return self._entries(rows, [c[col_index] for c in self.columns.coordinates], batch_indices)

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if any(torch.is_tensor(index) for index in batch_indices):
            return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])
        factors = [f[batch_indices] if batch_indices else f for f in self.factors]
        return type(self)(*factors, rows=self.rows.select(row_index), columns=self.columns.select(col_index))

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = common_batch(self.batch_shape, factor.shape)
        base = self if batch == self.batch_shape else self._expand_batch(batch)
        d = len(self.columns.sizes)
        scaled = [f * factor[..., None, None] if k % d == 0 else f for k, f in enumerate(base.factors)]
        return self._like(*scaled)

    def _mul_matrix(self, other: Any) -> LinearOperator:
        pair = self._aligned(other)
        if pair is None:
            return super()._mul_matrix(other)
        a, b = pair
        return self._like(*(x * y for s in a.terms for t in b.terms for x, y in zip(s, t, strict=True)))

    def _aligned(self, other: Any) -> tuple[KroneckerCrossLinearOperator, KroneckerCrossLinearOperator] | None:
        same = isinstance(other, KroneckerCrossLinearOperator) and self.rows.same_as(other.rows)
        if not (same and self.columns.same_as(other.columns)):
            return None
        batch = common_batch(self.batch_shape, other.batch_shape)
        # Type: a pair, which a generator does not tell.
        return tuple(o if o.batch_shape == batch else o._expand_batch(batch) for o in (self, other))  # type: ignore[return-value]

    def __add__(self, other: Any) -> Any:
        if isinstance(other, ZeroLinearOperator):
            return self
        pair = self._aligned(other)
        return super().__add__(other) if pair is None else self._like(*pair[0].factors, *pair[1].factors)
