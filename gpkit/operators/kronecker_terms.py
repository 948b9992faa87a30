"""Sums of Kronecker products that share no eigenvectors, plus a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.operators.conjugate_gradients import ConjugateGradients
from gpkit.operators.factorised import DenseFactorisation, Factorisation
from gpkit.operators.grid import GridLinearOperator
from gpkit.operators.grid_cells import GridCells
from gpkit.operators.grid_factorisations import iterate
from gpkit.operators.kronecker import KroneckerLinearOperator
from gpkit.operators.kronecker_products import kronecker_matmul
from gpkit.operators.structured import common_batch

__all__ = ["KroneckerTermsLinearOperator"]


class KroneckerTermsLinearOperator(GridLinearOperator):
    """``P (sum_t K_t1 x ... x K_td) P^T + diag(diagonal)``: the sum of several processes on one grid.

    Products and draws keep the structure. There is no exact structured solve of such a sum with noise; the observed
    cells are factored densely, or refused with the memory that it would take.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        factors: (*batch, n_j, n_j), d for the first term, d for the second, and so on.
        cells: which cells the rows are; this also tells d.
        solver: None for the dense factorisation, or conjugate gradients.
    """

    def __init__(
        self, diagonal: Tensor, *factors: Tensor, cells: GridCells, solver: ConjugateGradients | None = None
    ) -> None:
        super().__init__(diagonal, *factors, cells=cells, solver=solver)

    @property
    def terms(self) -> list[KroneckerLinearOperator]:
        """The terms, without the diagonal."""
        d = len(self.cells.sizes)
        zero = torch.zeros_like(self.diagonal_values)
        groups = [self.factors[k : k + d] for k in range(0, len(self.factors), d)]
        return [KroneckerLinearOperator(zero, *group, cells=self.cells) for group in groups]

    def _factorise(self) -> Factorisation:
        if self.solver is not None:
            # The term of the largest variance stands for all of them.
            terms = [term.detach() for term in self.terms]
            variances = [float(term._diagonal().mean()) for term in terms]
            return iterate(self, terms[max(range(len(terms)), key=variances.__getitem__)], self.solver)
        return DenseFactorisation(
            self, "use one product of kernels per axis, or a sum along one axis only, or solver=ConjugateGradients()"
        )

    def grid_matmul(self, values: Tensor) -> Tensor:
        """Sum of the terms' products."""
        parts = [kronecker_matmul(term.factors, values) for term in self.terms]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)

    def entries(self, rows: Sequence[Tensor], columns: Sequence[Tensor], batch: tuple[Any, ...]) -> Tensor:
        """Sums of the terms' entries."""
        parts = [term.entries(rows, columns, batch) for term in self.terms]
        return torch.stack(parts).sum(0)

    def _draw(self, num_samples: int) -> Tensor:
        """Independent draws of the terms, added."""
        return torch.stack([term._draw(num_samples) for term in self.terms]).sum(0)

    def _root_decomposition(self) -> Any:
        return self._dense_root(inverse=False)

    def _mul_constant(self, other: Any) -> KroneckerTermsLinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        base = self._in_batch(common_batch(self.batch_shape, factor.shape))
        d = len(self.cells.sizes)
        factors = [f * factor[..., None, None] if k % d == 0 else f for k, f in enumerate(base.factors)]
        return base._like(base.diagonal_values * factor.unsqueeze(-1), *factors)

    def _add_same(self, other: Any) -> KroneckerTermsLinearOperator | None:
        if not isinstance(other, KroneckerTermsLinearOperator | KroneckerLinearOperator):
            return None
        if not self.cells.same_as(other.cells):
            return None
        batch = common_batch(self.batch_shape, other.batch_shape)
        a, b = self._in_batch(batch), other._in_batch(batch)
        return self._like(a.diagonal_values + b.diagonal_values, *a.factors, *b.factors)
