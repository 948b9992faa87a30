"""A covariance without structure, exact at every size: by Cholesky, never conjugate gradients, never jitter."""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import (
    DenseLinearOperator,
    LinearOperator,
    RootLinearOperator,
    TriangularLinearOperator,
    to_linear_operator,
)
from torch import Tensor

from gpkit.operators.factorised import DenseFactorisation, Factorisation, FactorisedLinearOperator, exact_cholesky
from gpkit.operators.structured import common_batch

__all__ = ["DenseCovarianceLinearOperator"]


class DenseCovarianceLinearOperator(FactorisedLinearOperator):
    """``matrix + diag(diagonal)``, solved by Cholesky whatever its size; what a structured kernel is without structure.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        matrix: (*batch, N, N), symmetric.
    """

    def __init__(self, diagonal: Tensor, matrix: Tensor) -> None:
        super().__init__(diagonal, matrix)
        self.diagonal_values = diagonal
        self.matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> DenseCovarianceLinearOperator:
        """The operator of a symmetric matrix (*batch, N, N), no diagonal added."""
        return cls(matrix.new_zeros(matrix.shape[:-1]), matrix)

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

    # -- closure --------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        if isinstance(other, DenseLinearOperator):
            return self._add_same(other)
        return super().__add__(other)

    def _add_same(self, other: LinearOperator) -> LinearOperator | None:
        batch = common_batch(self.batch_shape, other.batch_shape)
        base = self._in_batch(batch)
        if isinstance(other, FactorisedLinearOperator):  # its own diagonal, which may be infinite, stays apart
            other = other._in_batch(batch)
            return type(self)(base.diagonal_values + other.diagonal_values, base.matrix + other._dense_covariance())
        return type(self)(base.diagonal_values, base.matrix + other.to_dense())

    def _mul_constant(self, other: Any) -> DenseCovarianceLinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        base = self._in_batch(common_batch(self.batch_shape, factor.shape))
        return type(self)(base.diagonal_values * factor.unsqueeze(-1), base.matrix * factor[..., None, None])

    # -- roots and draws ------------------------------------------------------------------------------------------

    def _cholesky(self, upper: bool = False) -> Any:
        factor = TriangularLinearOperator(exact_cholesky(self.to_dense()))
        return factor._transpose_nonbatch() if upper else factor

    def _definite(self) -> bool:
        """Whether a triangular factor exists; a singular covariance has other roots."""
        with torch.no_grad():
            return not bool((torch.linalg.cholesky_ex(self.to_dense())[1] > 0).any())

    def root_decomposition(self, method: str | None = None) -> Any:
        """The Cholesky factor as a root; that of the eigenvalues where the matrix is singular."""
        return RootLinearOperator(self._root_decomposition())

    def _root_decomposition(self) -> Any:
        return self._cholesky() if self._definite() else super()._root_decomposition()

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        eye = torch.eye(self.shape[-1], dtype=self.dtype, device=self.device).expand(self.shape)
        return to_linear_operator(torch.linalg.solve_triangular(exact_cholesky(self.to_dense()), eye, upper=False).mT)

    def _draw(self, num_samples: int) -> Tensor:
        matrix = self._dense_covariance()
        factor, info = torch.linalg.cholesky_ex(matrix)
        if bool((info > 0).any()):  # singular without its noise
            values, vectors = torch.linalg.eigh(matrix)
            factor = vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)
        white = torch.randn(*self.shape[:-1], num_samples, dtype=self.dtype, device=self.device)
        return (factor @ white).movedim(-1, 0)
