"""Kronecker products of covariances along axes, on whole or partly observed grids, plus a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from linear_operator.operators import KroneckerProductTriangularLinearOperator, TriangularLinearOperator
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.grid import SpectralGridLinearOperator
from gpkit.operators.kronecker_products import kronecker_matmul, outer_product
from gpkit.operators.structured import common_batch

__all__ = ["KroneckerLinearOperator"]


class KroneckerLinearOperator(SpectralGridLinearOperator):
    """``P (K_1 x ... x K_d) P^T + diag(diagonal)`` where P selects the observed cells of the grid.

    With one noise variance, or one that is a product over axes, every question costs ``O(sum n_j^3 + N sum n_j)``.
    Missing cells and single cells with another noise are corrected for exactly while they are few; beyond, the observed
    cells are factored densely, or refused with the memory that it would take.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        factors: (*batch, n_j, n_j) positive semidefinite, one per axis; the first axis varies slowest.
        cells: which cells the rows are; all in order if None.

    References:
        Saatci (2012), Scalable inference for structured Gaussian process models, chapter 5.
    """

    scalable = True

    def combine(self, eigenvalues: Sequence[Tensor]) -> Tensor:
        """Products of the eigenvalues of the axes."""
        return outer_product(eigenvalues)

    def eigenvalue_weights(self, eigenvalues: Sequence[Tensor], inverse: Tensor) -> list[Tensor]:
        """Sums over the other axes of their eigenvalues' product times ``inverse``."""
        rest = inverse.unsqueeze(-1)
        out = []
        for axis in range(len(eigenvalues)):
            rows = [e.unsqueeze(-2) for e in eigenvalues]
            rows[axis] = torch.eye(eigenvalues[axis].shape[-1], dtype=rest.dtype, device=rest.device)
            # The identity keeps one axis; all others are contracted.
            out.append(kronecker_matmul(rows, rest).squeeze(-1))
        return out

    def grid_matmul(self, values: Tensor) -> Tensor:
        """One axis at a time."""
        return kronecker_matmul(self.factors, values)

    def entries(self, rows: Sequence[Tensor], columns: Sequence[Tensor], batch: tuple[Any, ...]) -> Tensor:
        """Products of the entries of the axes."""
        out: Tensor | None = None
        for factor, row, column in zip(self.factors, rows, columns, strict=True):
            entry = factor[(*batch, row, column)]
            out = entry if out is None else out * entry
        assert out is not None
        return out

    def _mul_constant(self, other: Any) -> KroneckerLinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        base = self._in_batch(common_batch(self.batch_shape, factor.shape))
        first, *rest = base.factors
        return base._like(base.diagonal_values * factor.unsqueeze(-1), first * factor[..., None, None], *rest)

    def _mul_matrix(self, other: Any) -> Any:
        pair = self.aligned(other)
        if pair is None:
            return super()._mul_matrix(other)
        a, b = pair
        latent = a.without_diagonal()._diagonal() * b.without_diagonal()._diagonal()
        factors = [left * right for left, right in zip(a.factors, b.factors, strict=True)]
        return a._like(a._diagonal() * b._diagonal() - latent, *factors)

    def _add_same(self, other: Any) -> Any:
        from gpkit.operators.kronecker_terms import KroneckerTermsLinearOperator

        if isinstance(other, KroneckerTermsLinearOperator):
            return other._add_same(self)
        pair = self.aligned(other)
        if pair is None:
            return None
        a, b = pair
        diagonal = a.diagonal_values + b.diagonal_values
        unlike = [k for k, (x, y) in enumerate(zip(a.factors, b.factors, strict=True)) if not _equal(x, y)]
        if len(unlike) <= 1:
            # All axes but one agree: the sum is a product again.
            axis = unlike[0] if unlike else 0
            factors = list(a.factors)
            factors[axis] = a.factors[axis] + b.factors[axis]
            return a._like(diagonal, *factors)
        return KroneckerTermsLinearOperator(diagonal, *a.factors, *b.factors, cells=a.cells, solver=a.solver)

    def _cholesky(self, upper: bool = False) -> Any:
        if self.cells.index is not None or bool((self.diagonal_values != 0.0).any()):
            return super()._cholesky(upper)
        factors = []
        for axis, factor in enumerate(self.factors):
            lower, info = torch.linalg.cholesky_ex(factor)
            if bool((info > 0).any()):
                raise NotPositiveDefiniteError(
                    f"the covariance along axis {axis} is not positive definite; add noise", row=int(info.max()) - 1
                )
            factors.append(TriangularLinearOperator(lower))
        root = KroneckerProductTriangularLinearOperator(*factors)
        return root._transpose_nonbatch() if upper else root


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or bool(torch.equal(a, b))
