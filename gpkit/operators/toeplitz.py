"""Stationary covariances on a uniform one-dimensional grid, with gaps, plus a diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.grid import UniformGridLinearOperator
from gpkit.operators.grid_factorisations import WholeFactorisation
from gpkit.operators.structured import common_batch
from gpkit.operators.toeplitz_products import toeplitz_matmul

__all__ = ["ToeplitzFactorisation", "ToeplitzLinearOperator"]

_REFINEMENTS = 4


class ToeplitzFactorisation(WholeFactorisation):
    """Schur's algorithm for the determinant, Levinson's recursion for the inverse.

    The inverse is known by its first column x (Gohberg and Semencul): ``x_0 T^-1 = X X^T - Y Y^T`` with lower
    triangular Toeplitz matrices X of x and Y of x reversed and shifted. A solve is four products by fast transforms,
    refined until the residual no longer falls.

    Args:
        operator: the grid and its first column.
        noise: (*batch,) variance in every cell.

    Raises:
        NotPositiveDefiniteError: naming the row.

    References:
        Gohberg & Semencul (1972), Mat. Issled. 7, 201; Heinig & Rost (1984), Algebraic Methods for Toeplitz-like
        Matrices and Operators.
    """

    def __init__(self, operator: ToeplitzLinearOperator, noise: Tensor) -> None:
        from gpkit.recursions import toeplitz as recursions

        super().__init__(operator)
        column = operator.column.detach().clone()
        if column.shape[-1]:
            column[..., 0] += noise
        self.column = column
        n = column.shape[-1]
        logdet, worst = [], 1.0
        flat = column.reshape(math.prod(column.shape[:-1]), n).numpy().astype(np.float64)
        inverse = np.zeros_like(flat)
        nothing = np.zeros((0, n)), np.zeros((0, 0))
        for series in range(flat.shape[0]):
            reflections, pivots, _, bad = recursions.schur_sweep(np.ascontiguousarray(flat[series]), *nothing)
            if bad >= 0:
                raise NotPositiveDefiniteError(
                    "the Toeplitz covariance is not positive definite to rounding; add noise", row=int(bad)
                )
            inverse[series] = recursions.inverse_column(reflections, pivots)
            logdet.append(float(np.log(pivots).sum()))
            worst = min(worst, float(pivots.min() / pivots.max())) if n else worst
        shape = column.shape[:-1]
        self.inverse = torch.from_numpy(inverse).to(column.dtype).reshape(column.shape)
        self.determinant = torch.tensor(logdet, dtype=column.dtype).reshape(shape)
        self.worst = worst

    def well_conditioned(self) -> bool:
        """Whether no pivot is lost to rounding."""
        return self.worst > 1e-13

    def _apply_inverse(self, rhs: Tensor) -> Tensor:
        x = self.inverse
        first = torch.zeros_like(x)
        first[..., 0] = x[..., 0]
        y = torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:].flip(-1)], dim=-1)
        zero = torch.zeros_like(x)
        plus = toeplitz_matmul(x, first, toeplitz_matmul(first, x, rhs))
        minus = toeplitz_matmul(y, zero, toeplitz_matmul(zero, y, rhs))
        return (plus - minus) / x[..., :1].unsqueeze(-1)

    def solve_grid(self, rhs: Tensor) -> Tensor:
        """Refined until the residual stops falling."""
        if not rhs.numel():
            return rhs.expand(*common_batch(self.column.shape[:-1], rhs.shape[:-2]), *rhs.shape[-2:])
        out = self._apply_inverse(rhs)
        residual = rhs - toeplitz_matmul(self.column, None, out)
        size = residual.norm()
        for _ in range(_REFINEMENTS):
            better = out + self._apply_inverse(residual)
            residual = rhs - toeplitz_matmul(self.column, None, better)
            if not residual.norm() < 0.5 * size:
                return better if residual.norm() < size else out
            out, size = better, residual.norm()
        return out

    def logdet(self) -> Tensor:
        """From the pivots."""
        return self.determinant

    def inverse_diagonal(self) -> Tensor:
        """Running sums of the squares of x and of its reverse."""
        x = self.inverse
        shifted = torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:].flip(-1)], dim=-1)
        return (x.square() - shifted.square()).cumsum(-1) / x[..., :1]

    def factor_gradients(self) -> tuple[Tensor, ...]:
        """Sums along the diagonals of the inverse: ``sum_i (N - k - 2 i) x_i x_(i+k) / x_0``."""
        x = self.inverse
        n = x.shape[-1]
        if not n:
            return (x,)
        place = torch.arange(n, dtype=x.dtype, device=x.device)
        length = 2 * n
        transformed = torch.fft.rfft(x, n=length)
        plain = torch.fft.irfft(transformed * torch.fft.rfft(x, n=length).conj(), n=length)[..., :n]
        weighted = torch.fft.irfft(transformed * torch.fft.rfft(place * x, n=length).conj(), n=length)[..., :n]
        sums = ((n - place) * plain - 2.0 * weighted) / x[..., :1]
        return (torch.cat([sums[..., :1], 2.0 * sums[..., 1:]], dim=-1),)


class ToeplitzLinearOperator(UniformGridLinearOperator):
    """``P T P^T + diag(diagonal)`` with ``T_ij = column[|i - j|]``, P the observed points of the uniform grid.

    With one noise variance a determinant costs O(N^2) and a solve O(N log N) beyond it, in O(N) memory. Gaps and single
    points with another noise are corrected for exactly while they are few; beyond, the observed points are factored
    densely, or refused with the memory that it would take.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        column: (*batch, n) first column of T, the covariance at lags 0, 1, ... steps.
        cells: which points of the grid the rows are; all in order if None.
    """

    @staticmethod
    def _symmetric(factor: Tensor) -> Tensor:
        return factor

    @property
    def column(self) -> Tensor:
        """First column of T."""
        return self.factors[0]

    def factorise_whole(self, noise: Tensor) -> WholeFactorisation:
        """Schur's algorithm."""
        return ToeplitzFactorisation(self, noise)

    def solve_cost(self) -> float:
        """About ten fast transforms of twice the length."""
        n = max(self.cells.count, 2)
        return 200.0 * n * math.log2(n)

    def grid_matmul(self, values: Tensor) -> Tensor:
        """By fast Fourier transforms."""
        return toeplitz_matmul(self.column, None, values)

    def entries(self, rows: Sequence[Tensor], columns: Sequence[Tensor], batch: tuple[Any, ...]) -> Tensor:
        """Covariance at the lag between two points."""
        return self.column[(*batch, (rows[0] - columns[0]).abs())]

    def _draw(self, num_samples: int) -> Tensor:
        from gpkit.recursions import toeplitz as recursions

        column = self.column.detach()
        n, count = column.shape[-1], math.prod(column.shape[:-1])
        flat = column.reshape(count, n).numpy().astype(np.float64)
        white = torch.randn(count, num_samples, n, dtype=torch.float64).numpy()
        nothing = np.zeros((0, 0))
        draws = [recursions.schur_sweep(np.ascontiguousarray(flat[k]), white[k], nothing)[2] for k in range(count)]
        out = torch.from_numpy(np.stack(draws) if draws else np.zeros((0, num_samples, n))).to(column.dtype)
        return self.cells.gather(out.mT.reshape(*column.shape[:-1], n, num_samples)).movedim(-1, 0)

    def _mul_constant(self, other: Any) -> ToeplitzLinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        base = self._in_batch(common_batch(self.batch_shape, factor.shape)) if factor.dim() else self
        scale = factor.unsqueeze(-1) if factor.dim() else factor
        return base._like(base.diagonal_values * scale, base.column * scale)

    def _mul_matrix(self, other: Any) -> Any:
        pair = self.aligned(other)
        if pair is None:
            return super()._mul_matrix(other)
        a, b = pair
        latent = (a.column[..., :1] * b.column[..., :1]).expand(a.diagonal_values.shape)
        return a._like(a._diagonal() * b._diagonal() - latent, a.column * b.column)

    def _add_same(self, other: Any) -> ToeplitzLinearOperator | None:
        pair = self.aligned(other)
        if pair is None:
            return None
        a, b = pair
        return a._like(a.diagonal_values + b.diagonal_values, a.column + b.column)
