"""Covariances on product grids: what Kronecker products and Kronecker sums have in common.

The rows are cells of a grid: all of them in order, or any subset in any order, with repetitions. The eigenvectors are
Kronecker products of those of the axes, so that all cells with one noise variance cost one small decomposition per axis
(see :mod:`gpkit.operators.grid_factorisations` for noise that differs and for missing cells).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators.conjugate_gradients import ConjugateGradients
from gpkit.operators.factorised import Factorisation, FactorisedLinearOperator
from gpkit.operators.grid_cells import GridCells
from gpkit.operators.grid_factorisations import SpectralFactorisation, WholeFactorisation, factorise_grid
from gpkit.operators.grid_roots import GridRootLinearOperator
from gpkit.operators.kronecker_products import kronecker_matmul
from gpkit.operators.structured import common_batch, refuse_gradient

__all__ = ["GridLinearOperator", "SpectralGridLinearOperator", "UniformGridLinearOperator"]


class GridLinearOperator(FactorisedLinearOperator):
    """A sum or product over axes of covariances along one axis each, at cells of a grid, plus a diagonal.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        factors: (*batch, n_j, n_j), one per axis (one per axis and term in a sum of products); only their symmetric
            part counts.
        cells: which cells the rows are; all in order if None.
        solver: what to do where no structured factorisation is exact: None for a dense one.
    """

    def __init__(
        self,
        diagonal: Tensor,
        *factors: Tensor,
        cells: GridCells | None = None,
        solver: ConjugateGradients | None = None,
    ) -> None:
        cells = GridCells([f.shape[-1] for f in factors]) if cells is None else cells
        super().__init__(diagonal, *factors, cells=cells, solver=solver)
        self.solver = solver
        self.diagonal_values = diagonal
        self.factors = tuple(self._symmetric(f) for f in factors)
        self.cells = cells

    @staticmethod
    def _symmetric(factor: Tensor) -> Tensor:
        """The symmetric part, so that gradients are symmetric, whichever triangle an algorithm reads."""
        return 0.5 * (factor + factor.mT)

    # -- to be given by the subclass ------------------------------------------------------------------------------

    def grid_matmul(self, values: Tensor) -> Tensor:
        """Product on the whole grid, (*batch, count, C), differentiable, without the diagonal."""
        raise NotImplementedError

    def entries(self, rows: Sequence[Tensor], columns: Sequence[Tensor], batch: tuple[Any, ...]) -> Tensor:
        """Entries between cells given by one position tensor per axis."""
        raise NotImplementedError

    # -- what follows ---------------------------------------------------------------------------------------------

    def _covariance_matmul(self, rhs: Tensor) -> Tensor:
        return self.cells.gather(self.grid_matmul(self.cells.scatter(rhs)))

    def _diagonal(self) -> Tensor:
        where = self.cells.coordinates
        lead = (slice(None),) * len(self.batch_shape)
        return self.entries(where, where, lead) + self.diagonal_values

    def _dense_covariance(self) -> Tensor:
        lead = (slice(None),) * len(self.batch_shape)
        where = self.cells.coordinates
        return self.entries([c.unsqueeze(-1) for c in where], [c.unsqueeze(-2) for c in where], lead)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        where = self.cells.coordinates
        value = self.entries([c[row_index] for c in where], [c[col_index] for c in where], batch_indices)
        noise = self.diagonal_values[(*batch_indices, row_index)]
        return value + torch.where(row_index == col_index, noise, torch.zeros_like(noise))

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if any(torch.is_tensor(index) for index in batch_indices):
            return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])
        args = [t[batch_indices] if batch_indices else t for t in self._args]
        rows = torch.arange(self.shape[-1])
        left, right = rows[row_index], rows[col_index]
        # The same rows on both sides, each once: a covariance matrix again.
        if torch.equal(left, right) and left.unique().numel() == left.numel():
            cells = self.cells.select(row_index)
            return type(self)(args[0][..., row_index], *args[1:], cells=cells, solver=self.solver)
        where = self.cells.coordinates
        lead = (slice(None),) * (args[0].dim() - 1)
        block = self._like(*args).entries([c[left, None] for c in where], [c[right] for c in where], lead)
        overlap = left.unsqueeze(-1) == right
        if overlap.any():
            noise = args[0][..., left].unsqueeze(-1)
            block = block + torch.where(overlap, noise, torch.zeros_like(noise))
        return to_linear_operator(block)

    def aligned(self, other: Any) -> tuple[Any, Any] | None:
        """Both operators with one batch shape, if they are of one type at the same cells."""
        if type(other) is not type(self) or not self.cells.same_as(other.cells):
            return None
        batch = common_batch(self.batch_shape, other.batch_shape)
        return self._in_batch(batch), other._in_batch(batch)


class UniformGridLinearOperator(GridLinearOperator):
    """Covariances with a fast exact solve when all cells have one noise variance.

    Other variances and missing cells are corrections of it, see :mod:`gpkit.operators.grid_factorisations`.
    """

    scalable = False
    """Whether scaling every axis from both sides keeps the form (a product does, a sum does not)."""

    def factorise_whole(self, noise: Tensor) -> WholeFactorisation:
        """Factorisation for the noise variance (*batch,) in every cell, without gradients."""
        raise NotImplementedError

    def solve_cost(self) -> float:
        """Operations of one solve on the whole grid."""
        raise NotImplementedError

    def _factorise(self) -> Factorisation:
        return factorise_grid(self)


class SpectralGridLinearOperator(UniformGridLinearOperator):
    """Covariances whose eigenvectors are Kronecker products: one small decomposition per axis answers."""

    def combine(self, eigenvalues: Sequence[Tensor]) -> Tensor:
        """Eigenvalues of the whole grid (*batch, count) from those of the axes (*batch, n_j)."""
        raise NotImplementedError

    def eigenvalue_weights(self, eigenvalues: Sequence[Tensor], inverse: Tensor) -> list[Tensor]:
        """Per axis ``sum over the others of (d combined / d eigenvalue) * inverse``, (*batch, n_j)."""
        raise NotImplementedError

    def factorise_whole(self, noise: Tensor) -> SpectralFactorisation:
        """One eigen-decomposition per axis."""
        return SpectralFactorisation(self, noise)

    def solve_cost(self) -> float:
        """Two products along every axis."""
        return 4.0 * self.cells.count * sum(self.cells.sizes)

    def spectral_root(self) -> tuple[list[Tensor], Tensor]:
        """Eigenvectors per axis and the square roots of the eigenvalues of the whole grid, rounding cut at zero."""
        pairs = [torch.linalg.eigh(f.detach()) for f in self.factors]
        return [p[1] for p in pairs], self.combine([p[0] for p in pairs]).clamp_min(0.0).sqrt()

    def _draw(self, num_samples: int) -> Tensor:
        vectors, root = self.spectral_root()
        white = torch.randn(*root.shape, num_samples, dtype=self.dtype, device=self.device)
        return self.cells.gather(kronecker_matmul(vectors, root.unsqueeze(-1) * white)).movedim(-1, 0)

    def _root_decomposition(self) -> Any:
        vectors, root = self.spectral_root()
        root = refuse_gradient(root, "a root of a structured covariance", tuple(self._args))
        return GridRootLinearOperator(self.diagonal_values.detach().sqrt(), root, *vectors, cells=self.cells)
