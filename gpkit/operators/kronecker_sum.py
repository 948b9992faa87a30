"""Kronecker sums of matrices along axes, on whole or partly observed grids, plus a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.operators.grid import SpectralGridLinearOperator
from gpkit.operators.kronecker_products import mode_multiply, outer_sum
from gpkit.operators.structured import common_batch

__all__ = ["KroneckerSumLinearOperator"]


class KroneckerSumLinearOperator(SpectralGridLinearOperator):
    """``P (K_1 (+) ... (+) K_d) P^T + diag(diagonal)``, where ``K (+) L = K x 1 + 1 x L``.

    Separable differential operators (Laplacians) and precision matrices on grids have this form. The sum and the
    diagonal must be positive definite together; single axes need not be.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        factors: (*batch, n_j, n_j) symmetric, one per axis; the first axis varies slowest.
        cells: which cells the rows are; all in order if None.

    References:
        Lynch, Rice & Thomas (1964), Numerische Mathematik 6, 185 (fast diagonalisation).
    """

    def combine(self, eigenvalues: Sequence[Tensor]) -> Tensor:
        """Sums of the eigenvalues of the axes."""
        return outer_sum(eigenvalues)

    def eigenvalue_weights(self, eigenvalues: Sequence[Tensor], inverse: Tensor) -> list[Tensor]:
        """Sums of ``inverse`` over the other axes."""
        sizes = [e.shape[-1] for e in eigenvalues]
        grid = inverse.reshape(*inverse.shape[:-1], *sizes)
        lead = inverse.dim() - 1
        out = []
        for axis in range(len(sizes)):
            others = [lead + k for k in range(len(sizes)) if k != axis]
            out.append(grid.sum(others) if others else grid)
        return out

    def grid_matmul(self, values: Tensor) -> Tensor:
        """Sum of one product per axis."""
        sizes = self.cells.sizes
        total: Tensor | None = None
        for axis, factor in enumerate(self.factors):
            part = mode_multiply(factor, values, sizes, axis)
            total = part if total is None else total + part
        assert total is not None
        return total

    def entries(self, rows: Sequence[Tensor], columns: Sequence[Tensor], batch: tuple[Any, ...]) -> Tensor:
        """Entries of the axes where all other positions agree."""
        total: Tensor | None = None
        for axis, factor in enumerate(self.factors):
            entry = factor[(*batch, rows[axis], columns[axis])]
            for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
                if k != axis:
                    entry = torch.where(row == column, entry, torch.zeros_like(entry))
            total = entry if total is None else total + entry
        assert total is not None
        return total

    def _mul_constant(self, other: Any) -> KroneckerSumLinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        base = self._in_batch(common_batch(self.batch_shape, factor.shape))
        scaled = [f * factor[..., None, None] for f in base.factors]
        return base._like(base.diagonal_values * factor.unsqueeze(-1), *scaled)

    def _add_same(self, other: Any) -> KroneckerSumLinearOperator | None:
        pair = self.aligned(other)
        if pair is None:
            return None
        a, b = pair
        factors = [left + right for left, right in zip(a.factors, b.factors, strict=True)]
        return a._like(a.diagonal_values + b.diagonal_values, *factors)
