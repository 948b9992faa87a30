"""Posterior of fields whose coefficients are a linear function of a few random numbers, or are given as draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array, FourierBasis, LegendreBasis
from gpkit.inference.collocation.forms import Jet

__all__ = ["CoefficientPosterior"]

_CHUNK = 2_000_000


class CoefficientPosterior:
    """Fields with coefficients m + L e.

    Args:
        bases: Of each axis.
        means: m of each field, (r,).
        factors: L of each field, (r, q); e is common to all fields and standard normal, or, with ``drawn``, takes each
            of the q unit directions times sqrt(q - 1) with equal probability, so that L holds centred draws.
        diagnostics: What the engine knows.
        drawn: Whether the columns are draws.
    """

    def __init__(
        self,
        bases: Sequence[LegendreBasis | FourierBasis],
        means: Sequence[Array],
        factors: Sequence[Array],
        diagnostics: dict[str, Any],
        *,
        drawn: bool = False,
    ) -> None:
        self.bases, self.means, self.factors = list(bases), list(means), list(factors)
        self.diagnostics, self.drawn = diagnostics, drawn

    def _table(self, jet: Jet, points: Tensor) -> Array:
        total: Array | None = None
        for j, (basis, order) in enumerate(zip(self.bases, jet.orders, strict=True)):
            own = basis.evaluate(np.asarray(points[:, j], dtype=np.float64), order)
            total = own if total is None else (total[:, :, None] * own[:, None, :]).reshape(len(own), -1)
        assert total is not None
        return total

    def _in_chunks(self, jet: Jet, points: Tensor, columns: Array) -> Array:
        """Functions with the given coefficients (r, q) at points, (m, q)."""
        rows = max(64, _CHUNK // max(1, len(columns)))
        parts = [self._table(jet, points[k : k + rows]) @ columns for k in range(0, len(points), rows)]
        return np.concatenate(parts) if parts else np.zeros((0, columns.shape[1]))

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean (m,) of a jet at points (m, d)."""
        return torch.from_numpy(self._in_chunks(jet, points, self.means[jet.field][:, None])[:, 0])

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) of a jet on a tensor grid."""
        values = self.means[jet.field].reshape([b.size for b in self.bases])
        for j, (basis, order, x) in enumerate(zip(self.bases, jet.orders, axes, strict=True)):
            values = along(basis.evaluate(np.asarray(x, dtype=np.float64), order), values, j)
        return torch.from_numpy(np.ascontiguousarray(values))

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance (m,) of a jet at points (m, d)."""
        return torch.from_numpy((self._in_chunks(jet, points, self.factors[jet.field]) ** 2).sum(1))

    def sample(self, n: int, generator: torch.Generator) -> _Draws:
        """N joint draws."""
        q = self.factors[0].shape[1]
        if self.drawn:
            picked = torch.randint(q, (n,), generator=generator).numpy()
            directions = np.zeros((q, n))
            directions[picked, np.arange(n)] = np.sqrt(max(q - 1, 1))
        else:
            directions = torch.randn(q, n, generator=generator, dtype=torch.float64).numpy()
        return _Draws(self, [m[:, None] + f @ directions for m, f in zip(self.means, self.factors, strict=True)])


class _Draws:
    """Draws of the coefficients of every field, (r, n)."""

    def __init__(self, posterior: CoefficientPosterior, coefficients: list[Array]) -> None:
        self._posterior, self._coefficients = posterior, coefficients

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m)."""
        values = self._posterior._in_chunks(jet, points, self._coefficients[jet.field])
        return torch.from_numpy(np.ascontiguousarray(values.T))
