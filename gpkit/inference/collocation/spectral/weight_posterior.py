"""Posterior of fields in weight space: Gaussian coefficients of tensor bases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array, Basis, evaluate_points
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.picked.basis import reduced_order
from gpkit.inference.collocation.resolution import resample
from gpkit.inference.collocation.uncertainty import Uncertainty

__all__ = ["WeightDraws", "WeightPosterior"]


class WeightDraws:
    """Joint draws of the fields, as functions.

    Args:
        bases: Of each axis.
        coefficients: Of each field, (n, r_1, ..., r_d).
    """

    def __init__(self, bases: Sequence[Basis], coefficients: Sequence[Array]) -> None:
        self._bases, self._coefficients = bases, coefficients

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        x = np.asarray(points, dtype=np.float64)
        return torch.from_numpy(evaluate_points(self._bases, jet.orders, self._coefficients[jet.field], x))


class WeightPosterior:
    """Fields with Gaussian weights.

    Args:
        bases: Of each axis.
        means: Coefficients of each field, (r_1, ..., r_d).
        diagnostics: What the engine knows.
        uncertainty: Makes the distribution around the mean when it is first asked for.

    Attributes:
        diagnostics: JSON-compatible.
    """

    def __init__(
        self,
        bases: Sequence[Basis],
        means: Sequence[Array],
        diagnostics: dict[str, Any],
        uncertainty: Callable[[], Uncertainty],
    ) -> None:
        self.bases, self.means, self.diagnostics = list(bases), list(means), diagnostics
        self._make = uncertainty
        self._made: Uncertainty | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For files: the distribution is made first, since what makes it holds the problem's functions."""
        return {**self.__dict__, "_made": self.uncertainty, "_make": None}

    @property
    def uncertainty(self) -> Uncertainty:
        """Distribution of the fields around their mean."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) of a jet on a tensor grid."""
        values, left = self.means[jet.field], []
        for j, (basis, order) in enumerate(zip(self.bases, jet.orders, strict=True)):
            values, rest = reduced_order(basis, values, j, order)
            left.append(rest)
        for j, (basis, x, rest) in enumerate(zip(self.bases, axes, left, strict=True)):
            values = along(basis.evaluate(np.asarray(x, dtype=np.float64), rest), values, j)
        return torch.from_numpy(np.ascontiguousarray(values))

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean (m,) of a jet at points (m, d)."""
        x = np.asarray(points, dtype=np.float64)
        return torch.from_numpy(evaluate_points(self.bases, jet.orders, self.means[jet.field], x))

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance (m,) of a jet at points (m, d)."""
        return torch.from_numpy(self.uncertainty.variance(jet, np.asarray(points, dtype=np.float64)))

    def variance_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior variance (N_1, ..., N_d) of a jet on a tensor grid."""
        points = [np.asarray(x, dtype=np.float64) for x in axes]
        return torch.from_numpy(np.ascontiguousarray(self.uncertainty.variance_on_grid(jet, points)))

    def sample(self, n: int, generator: torch.Generator) -> WeightDraws:
        """N joint draws of all fields."""
        seed = int(torch.randint(0, 2**62, (1,), generator=generator))
        drawn = self.uncertainty.draw(n, np.random.default_rng(seed))
        coefficients, bases = [], self.bases
        for mean, draws in zip(self.means, drawn, strict=True):
            sizes = tuple(max(a, b) for a, b in zip(mean.shape, draws.shape[1:], strict=True))
            bases = [b.resized(s) for b, s in zip(self.bases, sizes, strict=True)]
            total = np.zeros((n, *sizes))
            total[(slice(None), *[slice(0, s) for s in draws.shape[1:]])] = draws
            coefficients.append(total + resample(mean, sizes))
        return WeightDraws(bases, coefficients)
