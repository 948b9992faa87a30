"""Posterior of fields in weight space: Gaussian coefficients of tensor bases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array, Basis
from gpkit.inference.collocation.forms import Jet

__all__ = ["WeightPosterior"]

_CHUNK = 4_000_000


class WeightPosterior:
    """Fields with Gaussian weights.

    Args:
        bases: Of each axis.
        means: Coefficients of each field, (r_1, ..., r_d).
        diagnostics: What the engine knows.
    """

    def __init__(self, bases: Sequence[Basis], means: Sequence[Array], diagnostics: dict[str, Any]) -> None:
        self.bases, self.means, self.diagnostics = list(bases), list(means), diagnostics

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) of a jet on a tensor grid."""
        values = self.means[jet.field]
        for j, (basis, order) in enumerate(zip(self.bases, jet.orders, strict=True)):
            values = basis.differentiate(values, j, order)
        for j, (basis, x) in enumerate(zip(self.bases, axes, strict=True)):
            values = along(basis.evaluate(np.asarray(x, dtype=np.float64)), values, j)
        return torch.from_numpy(np.ascontiguousarray(values))

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean (m,) of a jet at points (m, d)."""
        x = np.asarray(points, dtype=np.float64)
        out = np.empty(len(x))
        rows = max(
            1, _CHUNK // max(1, sum(m.size for m in self.bases) * max(1, self.means[0].size // self.bases[-1].size))
        )
        rows = max(rows, 64)
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            values: Array = self.bases[0].evaluate(part[:, 0], jet.orders[0]) @ self.means[jet.field].reshape(
                self.bases[0].size, -1
            )
            for j in range(1, len(self.bases)):
                values = values.reshape(len(part), self.bases[j].size, -1)
                values = np.einsum("mk,mkr->mr", self.bases[j].evaluate(part[:, j], jet.orders[j]), values)
            out[start : start + rows] = values.reshape(len(part))
        return torch.from_numpy(out)
