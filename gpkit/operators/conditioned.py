"""Covariance of a process at new points given noisy data, for any operator with an exact solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from linear_operator.operators import LinearOperator, RootLinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.factorised import FactorisedLinearOperator
from gpkit.operators.memory import require_memory
from gpkit.operators.structured import StructuredLinearOperator, common_batch, refuse_gradient, warn_of_borrowed_noise

__all__ = ["ConditionedLinearOperator"]

_CHUNK = 128


class ConditionedLinearOperator(StructuredLinearOperator):
    """``K(s, s) - K(s, t) (K(t, t) + R)^-1 K(t, s) + diag(diagonal)``, never formed unless it has to be.

    The diagonal and products keep the structure of the data's operator. Draws do where the prior at new points and data
    together is structured (:attr:`joint_prior`); determinants, solves and other draws factor the M x M matrix.

    Args:
        diagonal: (*batch, M) absorbed diagonal (noise of new observations).
        prior: K(s, s), (*batch, M, M); may be a lazily evaluated kernel.
        cross: K(s, t), (*batch, M, N).
        data: K(t, t) + R, (*batch, N, N), R in its ``diagonal_values``; infinite in rows without information.
    """

    def __init__(
        self, diagonal: Tensor, prior: LinearOperator, cross: LinearOperator, data: FactorisedLinearOperator
    ) -> None:
        super().__init__(diagonal, prior, cross, data)
        self.diagonal_values = diagonal
        self.prior = prior
        self.cross = cross
        self.data = data
        self.joint_prior: Callable[[], Any] | None = None
        """Gives the prior covariance operator of new points and data together, new points first."""
        self.training_noise: Tensor | None = None
        self._variance: Tensor | None = None
        self._dense: DenseCovarianceLinearOperator | None = None

    def _size(self) -> torch.Size:
        return torch.Size((*self.diagonal_values.shape, self.diagonal_values.shape[-1]))

    def _transpose_nonbatch(self) -> ConditionedLinearOperator:
        return self

    def _expand_batch(self, batch_shape: torch.Size) -> ConditionedLinearOperator:
        tail = self.diagonal_values.shape[-1:]
        prior, cross, data = (p.expand(*batch_shape, *p.shape[-2:]) for p in (self.prior, self.cross, self.data))
        return self._with(self.diagonal_values.expand(*batch_shape, *tail), prior, cross, data)

    def _with(self, diagonal: Tensor, *parts: Any) -> ConditionedLinearOperator:
        new = type(self)(diagonal, *(parts or (self.prior, self.cross, self.data)))
        new.joint_prior = self.joint_prior
        new.training_noise = self.training_noise
        if not parts:
            new._variance = self._variance
        return new

    def evaluate_kernel(self) -> ConditionedLinearOperator:
        """Itself: what has been computed is kept, and the prior stays lazy."""
        return self

    # -- entries and products -------------------------------------------------------------------------------------

    def _needs_gradient(self) -> bool:
        parts = (self.cross, self.data)
        return torch.is_grad_enabled() and any(t.requires_grad for part in parts for t in part.representation())

    def _diagonal(self) -> Tensor:
        if self._needs_gradient():
            return self._latent_variance() + self.diagonal_values
        if self._variance is None:
            self._variance = self._latent_variance()
        return self._variance + self.diagonal_values

    def _latent_variance(self) -> Tensor:
        """Variance (*batch, M) without the absorbed diagonal."""
        if not self._needs_gradient():
            with torch.no_grad():
                explained = self.data.factorisation.explained(self.cross)
        else:
            pieces = []
            lead = (slice(None),) * len(self.cross.batch_shape)
            for start in range(0, self.shape[-1], _CHUNK):
                rows = self.cross[(*lead, slice(start, start + _CHUNK), slice(None))].to_dense().mT
                pieces.append((rows * self.data.solve(rows)).sum(-2))
            explained = torch.cat(pieces, dim=-1) if pieces else torch.zeros_like(self.diagonal_values)
        return self.prior.diagonal(dim1=-1, dim2=-2) - explained

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
        explained = self.cross @ self.data.solve(self.cross.mT @ columns)
        out = self.prior @ columns - explained + self.diagonal_values.unsqueeze(-1) * columns
        return out.squeeze(-1) if rhs.dim() == 1 else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, M, M): quadratic memory, on request only."""
        m, n = self.cross.shape[-2:]
        require_memory(
            8 * max(self.batch_shape.numel(), 1) * m * (3 * m + 2 * n),
            f"the covariance matrix of {m} predictions",
            "ask for variances, or for draws on a grid, or predict in parts",
        )
        cross = self.cross.to_dense()
        dense = self.prior.to_dense() - cross @ self.data.solve(cross.mT)
        return 0.5 * (dense + dense.mT) + torch.diag_embed(self.diagonal_values)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.to_dense()[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        same = isinstance(row_index, slice) and isinstance(col_index, slice) and row_index == col_index
        if same and all(isinstance(index, slice) and index == slice(None) for index in batch_indices):
            lead = (slice(None),) * len(batch_indices)
            diagonal = self.diagonal_values[..., row_index]
            prior = self.prior[(*lead, row_index, row_index)]
            part = type(self)(diagonal, prior, self.cross[(*lead, row_index, slice(None))], self.data)
            part._variance = None if self._variance is None else self._variance[..., row_index]
            return part
        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])

    # -- algebra --------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        """Absorb a diagonal; warn where a fixed-noise likelihood took the training points' noise for new points."""
        warn_of_borrowed_noise(self.training_noise, other)
        return super().__add__(other)

    def _add_diagonal_values(self, values: Tensor) -> ConditionedLinearOperator:
        batch = common_batch(self.batch_shape, values.shape[:-1])
        base = self if batch == self.batch_shape else self._expand_batch(batch)
        return base._with(base.diagonal_values + values.expand(base.diagonal_values.shape))

    def _mul_constant(self, other: Any) -> LinearOperator:
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense())._mul_constant(other)

    def _matrix(self) -> DenseCovarianceLinearOperator:
        if self._dense is None:
            self._dense = DenseCovarianceLinearOperator.from_matrix(self.to_dense())
        return self._dense

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``[left] S^-1 right`` by the dense Cholesky factor."""
        return self._matrix().solve(right_tensor, left_tensor)

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        return self.solve(rhs)

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T S^-1 rhs, log|S|)`` by the dense Cholesky factor."""
        return self._matrix().inv_quad_logdet(inv_quad_rhs, logdet, reduce_inv_quad)

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        return self._matrix().logdet()

    def _cholesky(self, upper: bool = False) -> Any:
        return self._matrix()._cholesky(upper)

    def cholesky(self, upper: bool = False) -> Any:
        """The dense triangular factor."""
        return self._cholesky(upper)

    def _root_decomposition(self) -> Any:
        return self._matrix()._root_decomposition()

    def root_decomposition(self, method: str | None = None) -> Any:
        """The dense triangular factor as a root."""
        return RootLinearOperator(self._root_decomposition())

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        return self._matrix()._root_inv_decomposition()

    def root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None, method: Any = None) -> Any:
        """Root of the inverse."""
        return RootLinearOperator(self._root_inv_decomposition())

    def diagonalization(self, method: str | None = None) -> Any:
        """Eigenvalues and eigenvectors of the dense matrix."""
        return self._matrix().diagonalization()

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, M): joint prior draws, conditioned, where the joint prior is structured."""
        with torch.no_grad():
            joint = None if self.joint_prior is None else self.joint_prior()
            if isinstance(joint, FactorisedLinearOperator):
                draws = self._condition(joint, num_samples)
                draws = draws + self.diagonal_values.sqrt() * torch.randn_like(draws)
            else:
                draws = self._matrix().zero_mean_mvn_samples(num_samples)
        tensors = tuple(t for part in (self.cross, self.data) for t in part.representation())
        return refuse_gradient(draws, "draws from a posterior", tensors)

    def _condition(self, joint: FactorisedLinearOperator, num_samples: int) -> Tensor:
        """Matheron's rule: a prior draw less what its own noisy data explain."""
        batch = self.batch_shape
        latent = joint._draw(num_samples).movedim(0, -1)
        latent = latent.expand(*batch, *latent.shape[-2:])
        m = self.shape[-1]
        noise = self.data.diagonal_values
        spread = noise.masked_fill(torch.isinf(noise), 0.0).sqrt().unsqueeze(-1)
        seen = latent[..., m:, :] + spread * torch.randn_like(latent[..., m:, :])
        return (latent[..., :m, :] - self.cross @ self.data.solve(seen)).movedim(-1, 0)
