"""Stationary covariances on a uniform periodic grid, with gaps, plus a diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.grid_factorisations import WholeFactorisation
from gpkit.operators.structured import common_batch
from gpkit.operators.toeplitz import ToeplitzLinearOperator

__all__ = ["CirculantFactorisation", "CirculantLinearOperator"]


def _filter(spectrum: Tensor, values: Tensor) -> Tensor:
    """Multiply the Fourier coefficients of (*batch, n, C) by a real spectrum (*batch, n // 2 + 1)."""
    if not values.numel():
        return values.expand(*common_batch(spectrum.shape[:-1], values.shape[:-2]), *values.shape[-2:])
    return torch.fft.irfft(spectrum.unsqueeze(-1) * torch.fft.rfft(values, dim=-2), n=values.shape[-2], dim=-2)


class CirculantFactorisation(WholeFactorisation):
    """The discrete Fourier transform diagonalises.

    Args:
        operator: the grid and its first column.
        noise: (*batch,) variance in every cell.

    Raises:
        NotPositiveDefiniteError: if an eigenvalue is not positive.
    """

    def __init__(self, operator: CirculantLinearOperator, noise: Tensor) -> None:
        super().__init__(operator)
        self.pivots = operator.spectrum().detach() + noise.unsqueeze(-1)
        if bool((self.pivots <= 0.0).any()):
            raise NotPositiveDefiniteError(
                f"the periodic covariance has the eigenvalue {float(self.pivots.min()):.3g}; add noise, or a period "
                "that is long beside the correlation"
            )

    def _sum(self, values: Tensor) -> Tensor:
        """Sum over all n eigenvalues of a function given at the n // 2 + 1 unlike ones."""
        n = self.operator.cells.count
        return 2.0 * values.sum(-1) - values[..., 0] - (values[..., -1] if n % 2 == 0 and n > 1 else 0.0)

    def well_conditioned(self) -> bool:
        """By the ratio of the eigenvalues."""
        return bool((self.pivots.amin(-1) > 1e-13 * self.pivots.amax(-1)).all())

    def solve_grid(self, rhs: Tensor) -> Tensor:
        """Two fast Fourier transforms."""
        return _filter(self.pivots.reciprocal(), rhs)

    def logdet(self) -> Tensor:
        """Sum over eigenvalues."""
        return self._sum(self.pivots.log()) if self.operator.cells.count else self.pivots.sum(-1)

    def _inverse_column(self) -> Tensor:
        return torch.fft.irfft(self.pivots.reciprocal().to(torch.complex128), n=self.operator.cells.count)

    def inverse_diagonal(self) -> Tensor:
        """The same for all cells."""
        n = self.operator.cells.count
        if not n:
            return self.pivots[..., :0]
        return self._inverse_column()[..., :1].expand(*self.pivots.shape[:-1], n)

    def factor_gradients(self) -> tuple[Tensor, ...]:
        """``n`` times the first column of the inverse."""
        n = self.operator.cells.count
        return (n * self._inverse_column() if n else self.pivots[..., :0],)


class CirculantLinearOperator(ToeplitzLinearOperator):
    """``P C P^T + diag(diagonal)`` with ``C_ij = column[(i - j) mod n]``, everything by fast Fourier transforms.

    Args:
        diagonal: (*batch, N) absorbed diagonal, ``inf`` in rows without information.
        column: (*batch, n) first column, symmetric: ``column[k] = column[n - k]`` (only this part is used).
        cells: which points of the grid the rows are; all in order if None.
    """

    @property
    def column(self) -> Tensor:
        """First column, made symmetric."""
        given = self.factors[0]
        return 0.5 * (given + torch.cat([given[..., :1], given[..., 1:].flip(-1)], dim=-1))

    def spectrum(self) -> Tensor:
        """The n // 2 + 1 unlike eigenvalues."""
        return torch.fft.rfft(self.column).real if self.cells.count else self.column.sum(-1, keepdim=True)

    def factorise_whole(self, noise: Tensor) -> WholeFactorisation:
        """The spectrum."""
        return CirculantFactorisation(self, noise)

    def solve_cost(self) -> float:
        """Two fast transforms."""
        n = max(self.cells.count, 2)
        return 20.0 * n * math.log2(n)

    def grid_matmul(self, values: Tensor) -> Tensor:
        """By fast Fourier transforms."""
        return _filter(self.spectrum(), values)

    def _draw(self, num_samples: int) -> Tensor:
        n = self.cells.count
        white = torch.randn(*self.batch_shape, n, num_samples, dtype=self.dtype, device=self.device)
        root = self.spectrum().detach().clamp_min(0.0).sqrt()
        return self.cells.gather(_filter(root, white)).movedim(-1, 0)
