"""Full-rank covariances by sparse precision: ``E Q^-1 E^T + diag(D)`` with a sparse Q, exact by sparse Cholesky."""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import DenseLinearOperator, LinearOperator, RootLinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import InvalidDataError, StructureLostError
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.markov_posterior import MarkovPosterior
from gpkit.operators.precision_layout import PrecisionLayout
from gpkit.operators.sparse_symmetric import SparseMatrix
from gpkit.operators.structured import StructuredLinearOperator, common_batch, refuse_gradient

__all__ = ["SparsePrecisionLinearOperator"]


class SparsePrecisionLinearOperator(StructuredLinearOperator):
    """``E Q^-1 E^T + diag(D)`` for a sparse precision matrix Q.

    Solves factor ``Q + E^T D^-1 E`` and need a positive diagonal; determinants also factor Q, unless its own is given,
    as it can be where Q is a power of a matrix that fills in less. Gradients come from the inverse on the pattern, at
    the cost of about one more factorisation.

    Args:
        values: (*batch, nnz), Q on the layout's pattern.
        diagonal: (*batch, m), absorbed diagonal (noise).
        log_determinant: (*batch,), of Q; with gradients like those of ``values``. Found from ``values`` by default.
        layout: pattern and selection; one object for all operators that share them, so that the elimination order is
            found once.

    References:
        Rue & Held (2005), Gaussian Markov Random Fields; Lindgren, Rue & Lindstrom (2011), JRSS B 73, 423.
    """

    def __init__(
        self, values: Tensor, diagonal: Tensor, log_determinant: Tensor | None = None, *, layout: PrecisionLayout
    ) -> None:
        super().__init__(values, diagonal, *(() if log_determinant is None else (log_determinant,)), layout=layout)
        self.values = values
        self.diagonal_values = diagonal
        self.log_determinant = log_determinant
        self.layout = layout
        self._matrices: list[tuple[SparseMatrix, SparseMatrix]] | None = None

    # -- shape, entries -------------------------------------------------------------------------------------------

    def _size(self) -> torch.Size:
        m = self.layout.selection.shape[0]
        return torch.Size((*self.diagonal_values.shape[:-1], m, m))

    def _transpose_nonbatch(self) -> SparsePrecisionLinearOperator:
        return self

    def _rebuild(
        self, values: Tensor, diagonal: Tensor, log_determinant: Tensor | None = None
    ) -> SparsePrecisionLinearOperator:
        return type(self)(values, diagonal, log_determinant, layout=self.layout)

    def _expand_batch(self, batch_shape: torch.Size) -> SparsePrecisionLinearOperator:
        if batch_shape == self.batch_shape:
            return self
        values, diagonal = (t.expand(*batch_shape, t.shape[-1]) for t in (self.values, self.diagonal_values))
        own = self.log_determinant
        return self._rebuild(values, diagonal, None if own is None else own.expand(batch_shape))

    def _each(self) -> list[tuple[Tensor, Tensor]]:
        """Values and diagonal of every batch element."""
        count = self.batch_shape.numel()
        values = self.values.reshape(count, self.values.shape[-1])
        diagonal = self.diagonal_values.reshape(count, self.diagonal_values.shape[-1])
        return list(zip(values.unbind(0), diagonal.unbind(0), strict=True))

    def _pairs(self) -> list[tuple[SparseMatrix, SparseMatrix]]:
        """Q and ``Q + E^T D^-1 E`` of every batch element."""
        if self._matrices is None:
            pattern, places, at, row, weight = self.layout.posterior
            self._matrices = []
            for values, diagonal in self._each():
                precision = 1.0 / diagonal
                total = values.new_zeros(pattern.nnz).index_add(0, places, values)
                total = total.index_add(0, at, weight.to(values.dtype) * precision[row])
                self._matrices.append((SparseMatrix(self.layout.pattern, values), SparseMatrix(pattern, total)))
        return self._matrices

    def _noisy_pairs(self) -> list[tuple[SparseMatrix, SparseMatrix]]:
        if not bool((self.diagonal_values > 0.0).all()):
            raise StructureLostError(
                "solves and determinants of a sparse-precision covariance need a positive diagonal: add noise"
            )
        return self._pairs()

    def _stack(self, pieces: list[Tensor]) -> Tensor:
        return torch.stack(pieces).reshape((*self.batch_shape, *pieces[0].shape))

    def _columns(self, rhs: Tensor) -> list[Tensor]:
        batch = self.batch_shape
        return list(rhs.expand(*batch, *rhs.shape[-2:]).reshape(batch.numel(), *rhs.shape[-2:]).unbind(0))

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        base = self._expand_batch(common_batch(self.batch_shape, columns.shape[:-2]))
        out = base._stack(
            [
                self.layout.up(SparseMatrix(self.layout.pattern, values).solve(self.layout.down(right)))
                + diagonal.unsqueeze(-1) * right
                for (values, diagonal), right in zip(base._each(), base._columns(columns), strict=True)
            ]
        )
        return out.squeeze(-1) if vector else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, m, m)."""
        eye = torch.eye(self.shape[-1], dtype=self.dtype)
        dense = self._matmul(eye.expand(*self.batch_shape, *eye.shape))
        return 0.5 * (dense + dense.mT)

    def _diagonal(self) -> Tensor:
        if torch.is_grad_enabled() and self.values.requires_grad:
            return self.to_dense().diagonal(dim1=-2, dim2=-1)
        pattern, places, at, row, weight = self.layout.posterior
        pieces = []
        for values, diagonal in self._each():
            total = values.new_zeros(pattern.nnz).index_add(0, places, values.detach())
            inverse = SparseMatrix(pattern, total).factor.inverse_entries(
                pattern.rows[at.numpy()], pattern.columns[at.numpy()]
            )
            pieces.append(diagonal.index_add(0, row, weight.to(values.dtype) * torch.as_tensor(inverse).to(values)))
        return self._stack(pieces)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.to_dense()[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        same = isinstance(row_index, slice) and isinstance(col_index, slice) and row_index == col_index
        if same and not any(torch.is_tensor(index) for index in batch_indices):
            values, own = self.values, self.log_determinant
            if batch_indices:
                values, own = values[batch_indices], None if own is None else own[batch_indices]
            layout = self.layout
            if row_index != slice(None):
                layout = PrecisionLayout(layout.pattern, layout.selection.tocsr()[row_index])
            return type(self)(values, self.diagonal_values[(*batch_indices, row_index)], own, layout=layout)
        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])

    # -- closure --------------------------------------------------------------------------------------------------

    def _add_diagonal_values(self, values: Tensor) -> SparsePrecisionLinearOperator:
        base = self._expand_batch(common_batch(self.batch_shape, values.shape[:-1]))
        return base._rebuild(base.values, base.diagonal_values + values, base.log_determinant)

    def _add_same(self, other: LinearOperator) -> LinearOperator | None:
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense() + other.to_dense())

    def __add__(self, other: Any) -> Any:
        if isinstance(other, DenseLinearOperator):
            return DenseCovarianceLinearOperator.from_matrix(self.to_dense() + other.to_dense())
        return super().__add__(other)

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = common_batch(self.batch_shape, factor.shape)
        base = self._expand_batch(batch)
        factor = factor.expand(batch)
        own = base.log_determinant
        scaled = None if own is None else own - self.layout.pattern.size * factor.log()
        return base._rebuild(base.values / factor.unsqueeze(-1), base.diagonal_values * factor.unsqueeze(-1), scaled)

    def _mul_matrix(self, other: Any) -> LinearOperator:
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense() * to_linear_operator(other).to_dense())

    # -- algebra --------------------------------------------------------------------------------------------------

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        base = self._expand_batch(common_batch(self.batch_shape, rhs.shape[:-2]))
        pieces = []
        for (_, posterior), (_, diagonal), right in zip(
            base._noisy_pairs(), base._each(), base._columns(rhs), strict=True
        ):
            scaled = right / diagonal.unsqueeze(-1)
            inner = self.layout.up(posterior.solve(self.layout.down(scaled)))
            pieces.append(scaled - inner / diagonal.unsqueeze(-1))
        return base._stack(pieces)

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T K^-1 rhs, log det K)``, exact."""
        quad: Tensor = torch.zeros(0, dtype=self.dtype, device=self.device)
        if inv_quad_rhs is not None:
            rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
            base = self._expand_batch(common_batch(self.batch_shape, rhs.shape[:-2]))
            pieces = [
                self._quadratic(pair, diagonal, right)
                for pair, (_, diagonal), right in zip(
                    base._noisy_pairs(), base._each(), base._columns(rhs), strict=True
                )
            ]
            each = base._stack(pieces)
            quad = each.sum(-1) if reduce_inv_quad else each
        empty = torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)
        return quad, self.logdet() if logdet else empty

    def _quadratic(self, pair: tuple[SparseMatrix, SparseMatrix], diagonal: Tensor, right: Tensor) -> Tensor:
        """A sum of squares: misfit in units of the noise, plus the prior's energy of the fit; (C,)."""
        prior, posterior = pair
        fit = posterior.solve(self.layout.down(right / diagonal.unsqueeze(-1)))
        misfit = right - self.layout.up(fit)
        rows, columns = torch.as_tensor(prior.pattern.rows), torch.as_tensor(prior.pattern.columns)
        energy = (prior.values.unsqueeze(-1) * fit[rows] * fit[columns]).sum(0)
        return (misfit.square() / diagonal.unsqueeze(-1)).sum(0) + energy

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        pairs = self._noisy_pairs()
        own = self.log_determinant
        if own is None:
            own = self._stack([prior.logdet() for prior, _ in pairs])
        return self._stack([posterior.logdet() for _, posterior in pairs]) - own + self.diagonal_values.log().sum(-1)

    def condition(self, targets: Tensor) -> MarkovPosterior:
        """All N unknowns given targets (m,); no batch.

        Raises:
            InvalidDataError: a batch of operators.
        """
        if self.batch_shape:
            raise InvalidDataError(f"condition one operator at a time, not a batch of shape {tuple(self.batch_shape)}")
        ((_, posterior),) = self._noisy_pairs()
        scaled = (targets.detach() / self.diagonal_values.detach()).unsqueeze(-1)
        mean = posterior.factor.solve(self.layout.down(scaled).numpy())[:, 0]
        return MarkovPosterior(mean, posterior)

    def _dense(self) -> DenseCovarianceLinearOperator:
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense())

    def _cholesky(self, upper: bool = False) -> Any:
        return self._dense()._cholesky(upper)

    def cholesky(self, upper: bool = False) -> Any:
        """The dense triangular factor: asked for by name, since no structure survives in it."""
        return self._cholesky(upper=upper)

    def diagonalization(self, method: str | None = None) -> Any:
        """Eigenvalues and eigenvectors by the dense solver."""
        return super().diagonalization(method="symeig")

    def root_decomposition(self, method: str | None = None) -> Any:
        """The dense Cholesky factor as a root."""
        return RootLinearOperator(self._cholesky())

    def _root_decomposition(self) -> Any:
        return self._cholesky()

    def root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None, method: Any = None) -> Any:
        """Dense root of the inverse."""
        return self._dense().root_inv_decomposition()

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        return self._dense()._root_inv_decomposition()

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, m), from the sparse factor of Q; a zero diagonal is allowed."""
        pieces = []
        with torch.no_grad():
            for values, diagonal in self._each():
                noise = torch.randn(self.layout.pattern.size, num_samples, dtype=torch.float64)
                draw = SparseMatrix(self.layout.pattern, values).factor.draw(noise.numpy())
                white = torch.randn(diagonal.shape[-1], num_samples, dtype=self.dtype)
                pieces.append(self.layout.up(torch.as_tensor(draw)).to(self.dtype) + diagonal.sqrt()[:, None] * white)
            draws = self._stack(pieces).movedim(-1, 0)
        return refuse_gradient(draws, "draws from a sparse-precision covariance", self._args)
