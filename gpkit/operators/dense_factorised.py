"""A covariance matrix without structure, with its diagonal kept apart."""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators.factorised import DenseFactorisation, Factorisation, FactorisedLinearOperator
from gpkit.operators.structured import common_batch

__all__ = ["DenseFactorisedLinearOperator"]


class DenseFactorisedLinearOperator(FactorisedLinearOperator):
    """``matrix + diag(diagonal)`` by Cholesky at every size; what a structured kernel is at inputs without structure.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        matrix: (*batch, N, N) symmetric.
    """

    def __init__(self, diagonal: Tensor, matrix: Tensor) -> None:
        super().__init__(diagonal, matrix)
        self.diagonal_values = diagonal
        self.matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> DenseFactorisedLinearOperator:
        """The operator of a matrix (*batch, N, N), no diagonal added."""
        return cls(
            torch.zeros_like(matrix[..., 0]) if matrix.shape[-1] else matrix.new_zeros(matrix.shape[:-1]), matrix
        )

    def _factorise(self) -> Factorisation:
        return DenseFactorisation(self, "use fewer points, or inputs on a grid")

    def _dense_covariance(self) -> Tensor:
        return 0.5 * (self.matrix + self.matrix.mT)

    def _covariance_matmul(self, rhs: Tensor) -> Tensor:
        return self._dense_covariance() @ rhs

    def _diagonal(self) -> Tensor:
        return self.matrix.diagonal(dim1=-2, dim2=-1) + self.diagonal_values

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        noise = self.diagonal_values[(*batch_indices, row_index)]
        own = torch.where(row_index == col_index, noise, torch.zeros_like(noise))
        return self.matrix[(*batch_indices, row_index, col_index)] + own

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        same = isinstance(row_index, slice) and isinstance(col_index, slice) and row_index == col_index
        if same and not any(torch.is_tensor(index) for index in batch_indices):
            part = self.matrix[(*batch_indices, row_index, slice(None))][..., col_index]
            return type(self)(self.diagonal_values[(*batch_indices, row_index)], part)
        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])

    def _draw(self, num_samples: int) -> Tensor:
        values, vectors = torch.linalg.eigh(self._dense_covariance().detach())
        white = torch.randn(*values.shape, num_samples, dtype=self.dtype, device=self.device)
        return (vectors @ (values.clamp_min(0.0).sqrt().unsqueeze(-1) * white)).movedim(-1, 0)

    def _mul_constant(self, other: Any) -> DenseFactorisedLinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        base = self._in_batch(common_batch(self.batch_shape, factor.shape))
        return type(self)(base.diagonal_values * factor.unsqueeze(-1), base.matrix * factor[..., None, None])

    def _add_same(self, other: Any) -> DenseFactorisedLinearOperator | None:
        if not isinstance(other, FactorisedLinearOperator) or other.shape[-1] != self.shape[-1]:
            return None
        batch = common_batch(self.batch_shape, other.batch_shape)
        a, b = self._in_batch(batch), other._in_batch(batch)
        return type(self)(a.diagonal_values + b.diagonal_values, a.matrix + b._dense_covariance())
