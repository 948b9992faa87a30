"""Averages over hyper-parameters that noisy data leave uncertain.

The most likely hyper-parameters are one choice of many that explain noisy data as well. Intervals of that choice alone
are too narrow: how smooth and how large the fields are between the data is itself known only so well. The evidence is
taken as normal around its maximum (Laplace), points of that normal distribution are weighted by what the evidence is
there, and the posterior is the mixture of theirs.

References:
    Rue, Martino & Chopin (2009), J. R. Stat. Soc. B 71, 319 (integration over hyper-parameters).
    Ionides (2008), J. Comput. Graph. Stat. 17, 295 (truncated importance weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from scipy.stats import qmc
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact.coordinates import MixtureCoordinates
from gpkit.inference.collocation.exact.lbfgs import Evidence
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.posterior import FieldDraws, FieldPosterior

__all__ = ["MixturePosterior", "WeightedMixtures", "likely_mixtures"]

Array = NDArray[np.float64]

_COUNT = 16
_STEP = 0.03
_NEGLIGIBLE = 1e-3
_USELESS = 3.0
"""Nats by which the evidence may fall below its normal approximation before a point is drawn in."""
_SHARES = (1.0, 0.5, 0.25)
"""Of the way to a point of the normal approximation."""


@dataclass(frozen=True, eq=False)
class WeightedMixtures:
    """Hyper-parameters and their share of the posterior.

    Attributes:
        share: Shares sum to one.
        mixtures: One per axis of every field.
    """

    share: float
    mixtures: list[MixtureAxis]


def likely_mixtures(
    evidence: Evidence,
    found: Sequence[MixtureAxis],
    lengths: Sequence[float],
    steps: Sequence[float],
    count: int = _COUNT,
) -> list[WeightedMixtures]:
    """Hyper-parameters that stand for all that are likely, of which the given ones are the most likely.

    Directions in which the evidence hardly falls are as wide as is thought before there are data: centred at what was
    found, logarithms of weights vary by 3, of length scales by 1.5 and frequencies by one wave per interval.

    Args:
        evidence: Of the rows.
        found: Where it is largest.
        lengths: Of the interval of every mixture.
        steps: Of the grid of every mixture.
        count: Number of points, a power of two.
    """
    coordinates = MixtureCoordinates(found, lengths, steps)
    centre, widths = coordinates.start, coordinates.widths
    top = _value(evidence, coordinates, centre)
    if not math.isfinite(top):
        return [WeightedMixtures(1.0, list(found))]
    root = _laplace_root(evidence, coordinates)
    nodes, logs = [centre], [0.0]
    for z in special.ndtri(qmc.Sobol(len(centre), seed=0).random(count)):
        for share in _SHARES:
            off = share * (root @ z)
            at = coordinates.bounded(centre + off)
            log = _value(evidence, coordinates, at) - top + 0.5 * share**2 * float(z @ z) - 0.5 * _square(off / widths)
            if log > -_USELESS:
                break
        nodes.append(at)
        logs.append(log)
    ratios = np.exp(np.minimum(np.array(logs), 600.0))
    ratios = np.minimum(ratios, math.sqrt(len(ratios)) * ratios.mean())
    ratios[ratios < _NEGLIGIBLE * ratios.sum()] = 0.0
    shares = ratios / ratios.sum()
    return [
        WeightedMixtures(float(share), coordinates.mixtures(node))
        for share, node in zip(shares, nodes, strict=True)
        if share > 0.0
    ]


def _square(x: Array) -> float:
    return float(x @ x)


def _value(evidence: Evidence, coordinates: MixtureCoordinates, at: Array) -> float:
    try:
        value = evidence(coordinates.mixtures(at))[0]
    except (NotPositiveDefiniteError, RuntimeError):
        return -math.inf
    return value if math.isfinite(value) else -math.inf


def _laplace_root(evidence: Evidence, coordinates: MixtureCoordinates) -> Array:
    """Root (P, P) of the covariance of a normal approximation, by central differences of the gradient."""
    centre, widths = coordinates.start, coordinates.widths
    size = len(centre)
    hessian = np.zeros((size, size))
    for i in range(size):
        shift = np.zeros(size)
        shift[i] = _STEP * widths[i]
        slopes, ends = [], []
        for sign in (1.0, -1.0, 0.0):
            at = centre + sign * shift
            try:
                slopes.append(coordinates.gradient(at, evidence(coordinates.mixtures(at))[1]))
            except (NotPositiveDefiniteError, RuntimeError):
                continue  # one-sided, against the middle
            ends.append(at[i])
            if len(ends) == 2:
                break
        if len(ends) == 2:
            hessian[i] = (slopes[0] - slopes[1]) / (ends[0] - ends[1])
    scaled = -0.5 * (hessian + hessian.T) * np.outer(widths, widths)
    values, vectors = np.linalg.eigh(scaled)
    return np.asarray(widths[:, None] * vectors / np.sqrt(np.maximum(values, 0.0) + 1.0))


class MixturePosterior:
    """A mixture of posteriors: their mean and covariance, and draws of any of them.

    Args:
        parts: Posteriors of the same fields.
        shares: Of each, summing to one.
        centre: What is told as the mean, where the mean of the parts would not meet equations that are not linear;
            None for that. Variances are second moments about it.
    """

    def __init__(
        self, parts: Sequence[FieldPosterior], shares: Sequence[float], centre: FieldPosterior | None = None
    ) -> None:
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
        """Mean of the variances (m,) of linear functionals of the parts, without how far these lie apart."""
        return self._averaged([p.row_variance(at) for p in self.parts])

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
