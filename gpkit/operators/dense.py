"""A dense covariance with exact algebra at every size: Cholesky, never conjugate gradients, never jitter."""

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

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.structured import StructuredLinearOperator, common_batch, refuse_gradient

__all__ = ["DenseCovarianceLinearOperator", "exact_cholesky"]


def exact_cholesky(matrix: Tensor, what: str = "the covariance") -> Tensor:
    """Lower Cholesky factor of (*batch, N, N), without jitter.

    Raises:
        NotPositiveDefiniteError: with the first row whose pivot is not positive.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    failed = info.reshape(-1)
    if bool((failed > 0).any()):
        row = int(failed[failed > 0][0]) - 1
        raise NotPositiveDefiniteError(f"{what} is not positive definite: add noise to the diagonal", row=row)
    return factor


class DenseCovarianceLinearOperator(StructuredLinearOperator):
    """A covariance matrix that has no structure left, solved by Cholesky whatever its size.

    Args:
        matrix: (*batch, N, N), symmetric.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix)
        self.matrix = matrix
        self._factor_cache: Tensor | None = None

    def _size(self) -> torch.Size:
        return self.matrix.shape

    def _transpose_nonbatch(self) -> DenseCovarianceLinearOperator:
        return type(self)(self.matrix.mT)

    def _expand_batch(self, batch_shape: torch.Size) -> DenseCovarianceLinearOperator:
        return type(self)(self.matrix.expand(*batch_shape, *self.matrix.shape[-2:]))

    def _diagonal(self) -> Tensor:
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    def _matmul(self, rhs: Tensor) -> Tensor:
        return self.matrix @ rhs

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self.matrix @ rhs

    def to_dense(self) -> Tensor:
        """The matrix itself."""
        return self.matrix

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.matrix[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        part = self.matrix[(*batch_indices, row_index, slice(None))][..., col_index]
        same = isinstance(row_index, slice) and isinstance(col_index, slice) and row_index == col_index
        return type(self)(part) if same else to_linear_operator(part)

    def _add_diagonal_values(self, values: Tensor) -> DenseCovarianceLinearOperator:
        n = self.shape[-1]
        return type(self)(self.matrix + torch.diag_embed(values.expand(*values.shape[:-1], n)))

    def _add_same(self, other: LinearOperator) -> LinearOperator | None:
        return type(self)(self.matrix + other.to_dense())

    def __add__(self, other: Any) -> Any:
        if isinstance(other, DenseLinearOperator):
            return type(self)(self.matrix + other.to_dense())
        return super().__add__(other)

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        return type(self)(self.matrix * factor[..., None, None])

    def _mul_matrix(self, other: Any) -> LinearOperator:
        return type(self)(self.matrix * to_linear_operator(other).to_dense())

    def _factor(self) -> Tensor:
        if self._factor_cache is None:
            self._factor_cache = exact_cholesky(self.matrix)
        return self._factor_cache

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        return torch.cholesky_solve(rhs, self._factor())

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``[left] K^-1 right``, exact."""
        vector = right_tensor.dim() == 1
        out = self._solve(right_tensor.unsqueeze(-1) if vector else right_tensor)
        if left_tensor is not None:
            out = left_tensor @ out
        return out.squeeze(-1) if vector else out

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T K^-1 rhs, log det K)``, exact."""
        empty = torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)
        quad = torch.zeros(0, dtype=self.dtype, device=self.device)
        if inv_quad_rhs is not None:
            rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
            batch = common_batch(self.batch_shape, rhs.shape[:-2])
            factor = self._factor().expand(*batch, *self.matrix.shape[-2:])
            each = torch.linalg.solve_triangular(factor, rhs, upper=False).square().sum(-2)
            quad = each.sum(-1) if reduce_inv_quad else each
        return quad, self.logdet() if logdet else empty

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        return 2.0 * self._factor().diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _cholesky(self, upper: bool = False) -> Any:
        factor = TriangularLinearOperator(self._factor())
        return factor._transpose_nonbatch() if upper else factor

    def cholesky(self, upper: bool = False) -> Any:
        """The triangular factor."""
        return self._cholesky(upper=upper)

    def diagonalization(self, method: str | None = None) -> Any:
        """Eigenvalues and eigenvectors by the dense solver."""
        return super().diagonalization(method="symeig")

    def root_decomposition(self, method: str | None = None) -> Any:
        """The Cholesky factor as a root."""
        return RootLinearOperator(self._cholesky())

    def _root_decomposition(self) -> Any:
        return self._cholesky()

    def root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None, method: Any = None) -> Any:
        """Root of the inverse: the inverse transposed factor."""
        return RootLinearOperator(self._root_inv_decomposition())

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        eye = torch.eye(self.shape[-1], dtype=self.dtype, device=self.device).expand(self.matrix.shape)
        return to_linear_operator(torch.linalg.solve_triangular(self._factor(), eye, upper=False).mT)

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, N); singular matrices are drawn from by their eigenvalues."""
        noise = torch.randn(*self.matrix.shape[:-1], num_samples, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            factor, info = torch.linalg.cholesky_ex(self.matrix)
            if bool((info > 0).any()):
                values, vectors = torch.linalg.eigh(self.matrix)
                factor = vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)
            draws = (factor @ noise).movedim(-1, 0)
        return refuse_gradient(draws, "draws from a dense covariance", self._args)
