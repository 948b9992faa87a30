"""Averages over hyper-parameters that noisy data leave uncertain.

The most likely hyper-parameters are one choice of many that explain noisy data as well. Intervals of that choice alone
are too narrow: how smooth and how large the fields are between the data is itself known only so well. The posterior is
the mixture of those at a few hyper-parameters that stand for all that are likely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.inference.collocation.exact.coordinates import MixtureCoordinates
from gpkit.inference.collocation.exact.lbfgs import Slopes
from gpkit.inference.collocation.exact.priors import NO_FACTOR, MixtureAxis
from gpkit.inference.collocation.exact.rows import Rows
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.likely import likely_points
from gpkit.inference.collocation.posterior import FieldDraws, FieldPosterior

__all__ = ["MixturePosterior", "WeightedMixtures", "likely_mixtures"]

Array = NDArray[np.float64]

_COUNT = 16


class WeightedMixtures(NamedTuple):
    """Hyper-parameters and how likely they are.

    Attributes:
        share: Shares sum to one.
        mixtures: One per axis of every field.
    """

    share: float
    mixtures: list[MixtureAxis]


def likely_mixtures(
    evidence: Callable[[Sequence[MixtureAxis]], tuple[float, Slopes]],
    found: Sequence[MixtureAxis],
    lengths: Sequence[float],
    steps: Sequence[float],
    count: int = _COUNT,
    spread: float = 1.0,
    value: Callable[[Sequence[MixtureAxis]], float] | None = None,
) -> list[WeightedMixtures]:
    """Hyper-parameters that stand for all that are likely, of which the given ones are the most likely.

    Args:
        evidence: Of the rows, with its gradient.
        found: Where it is largest.
        lengths: Of the interval of every mixture.
        steps: Of the grid of every mixture.
        count: How many beside the most likely, a power of two.
        spread: Factor on what is thought of them before there are data: around what was found, logarithms of weights
            vary by 3, of length scales by 1.5 and frequencies by one wave per interval.
        value: The evidence without its gradient, where that costs less.
    """
    coordinates = MixtureCoordinates(found, lengths, steps)

    def evaluate(at: Array) -> tuple[float, Array] | None:
        try:
            found, slopes = evidence(coordinates.mixtures(at))
        except NO_FACTOR:
            return None
        return (found, coordinates.gradient(at, slopes)) if math.isfinite(found) else None

    def alone(at: Array) -> float | None:
        assert value is not None
        try:
            found = value(coordinates.mixtures(at))
        except NO_FACTOR:
            return None
        return found if math.isfinite(found) else None

    widths = spread * coordinates.widths
    likely = likely_points(evaluate, coordinates.start, widths, coordinates.bounded, count, alone if value else None)
    pairs = zip(likely.shares.tolist(), likely.points, strict=True)
    return [WeightedMixtures(share, coordinates.mixtures(at)) for share, at in pairs]


class MixturePosterior:
    """A mixture of posteriors: their mean and covariance, and draws of any of them.

    Args:
        parts: Posteriors of the same fields.
        shares: Of each, summing to one.
        centre: What is told as the mean, where the mean of the parts would not meet equations that are not linear;
            None for that. Variances are second moments about it.
    """

    def __init__(self, parts: Sequence[Any], shares: Sequence[float], centre: FieldPosterior | None = None) -> None:
        """Nothing is computed before it is asked for."""
        self.parts, self.shares, self.centre = list(parts), list(shares), centre
        self.diagnostics = (centre or self.parts[0]).diagnostics

    def _averaged(self, values: Sequence[Tensor]) -> Tensor:
        return (torch.tensor(self.shares, dtype=torch.float64) @ torch.stack([v.reshape(-1) for v in values])).reshape(
            values[0].shape
        )

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean (m,) of a jet at points (m, d)."""
        if self.centre is not None:
            return self.centre.mean(jet, points)
        return self._averaged([p.mean(jet, points) for p in self.parts])

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) of a jet on a tensor grid."""
        if self.centre is not None:
            return self.centre.mean_on_grid(jet, axes)
        return self._averaged([p.mean_on_grid(jet, axes) for p in self.parts])

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance (m,) of a jet at points (m, d)."""
        middle = self.mean(jet, points)
        return self._averaged([p.variance(jet, points) + (p.mean(jet, points) - middle) ** 2 for p in self.parts])

    def row_variance(self, at: Rows) -> Tensor:
        """Posterior variance (m,) of linear functionals at points or on one axis."""
        points = torch.stack(at.coordinates, dim=1)
        middle = self._rows(self, at, points)
        return self._averaged([p.row_variance(at) + (self._rows(p, at, points) - middle) ** 2 for p in self.parts])

    @staticmethod
    def _rows(part: Any, at: Rows, points: Tensor) -> Tensor:
        """Posterior mean (m,) of linear functionals."""
        total = torch.zeros(len(points), dtype=torch.float64)
        for t in at.terms:
            total = total + t.coefficient * part.mean(t.jet, points)
        return total

    def sample(self, n: int, generator: torch.Generator) -> FieldDraws:
        """N joint draws."""
        shares = torch.tensor(self.shares, dtype=torch.float64)
        which = torch.multinomial(shares, n, replacement=True, generator=generator)
        return _MixtureDraws([
            (torch.nonzero(which == k)[:, 0], part.sample(int((which == k).sum()), generator))
            for k, part in enumerate(self.parts)
            if bool((which == k).any())
        ])  # fmt: skip


class _MixtureDraws:
    def __init__(self, draws: list[tuple[Tensor, FieldDraws]]) -> None:
        self._draws = draws

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        out = torch.empty(sum(len(where) for where, _ in self._draws), len(points), dtype=torch.float64)
        for where, draws in self._draws:
            out[where] = draws(jet, points)
        return out
