"""Rectangular roots of covariances on grids."""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators.grid_cells import GridCells
from gpkit.operators.kronecker_products import kronecker_matmul

__all__ = ["GridRootLinearOperator"]


class GridRootLinearOperator(LinearOperator):
    """``R = [P (Q_1 x ... x Q_d) diag(s), diag(r)]``, so that ``R R^T = P Q diag(s^2) Q^T P^T + diag(r^2)``.

    Args:
        diagonal_root: r, (*batch, N).
        spectrum_root: s, (*batch, count).
        vectors: Q_j, (*batch, n_j, n_j).
        cells: P, the rows as cells of the grid.
    """

    def __init__(self, diagonal_root: Tensor, spectrum_root: Tensor, *vectors: Tensor, cells: GridCells) -> None:
        super().__init__(diagonal_root, spectrum_root, *vectors, cells=cells)
        self.diagonal_root = diagonal_root
        self.spectrum_root = spectrum_root
        self.vectors = vectors
        self.cells = cells

    def _size(self) -> torch.Size:
        n = self.diagonal_root.shape[-1]
        return torch.Size((*self.diagonal_root.shape, self.spectrum_root.shape[-1] + n))

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
        grid, own = columns.split([self.spectrum_root.shape[-1], self.diagonal_root.shape[-1]], dim=-2)
        out = self.cells.gather(kronecker_matmul(self.vectors, self.spectrum_root.unsqueeze(-1) * grid))
        out = out + self.diagonal_root.unsqueeze(-1) * own
        return out.squeeze(-1) if rhs.dim() == 1 else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
        grid = kronecker_matmul([q.mT for q in self.vectors], self.cells.scatter(columns))
        out = torch.cat([self.spectrum_root.unsqueeze(-1) * grid, self.diagonal_root.unsqueeze(-1) * columns], dim=-2)
        return out.squeeze(-1) if rhs.dim() == 1 else out

    def _transpose_nonbatch(self) -> LinearOperator:
        return to_linear_operator(self.to_dense().mT)

    def _expand_batch(self, batch_shape: torch.Size) -> GridRootLinearOperator:
        lead = len(self.batch_shape)
        return type(self)(*(t.expand(*batch_shape, *t.shape[lead:]) for t in self._args), cells=self.cells)

    def to_dense(self) -> Tensor:
        """The root as a matrix, (*batch, N, count + N); for small N and for tests."""
        eye = torch.eye(self.shape[-1], dtype=self.dtype, device=self.device)
        return self._matmul(eye.expand(*self.batch_shape, *eye.shape))

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.to_dense()[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])
