r"""Variances of a field by what left-out places nearby turned out to be: a factor that varies from place to place.

A stationary kernel has one amplitude and one length scale. A field that is rough in one place and smooth in another
gets a compromise: regions that are too wide nearly everywhere, and too narrow where it matters. Every observed place
that is left out says how large the error was there, relative to the variance that was predicted. With errors of
variance :math:`s_i V_i` of the field and :math:`\sigma^2` of the noise, the factors are

.. math:: s(x) = \frac{1 + \sum_i w_i(x)\, \hat s_i}{1 + \sum_i w_i(x)},

where :math:`\hat s_i` is what place i says of its own factor (expectation maximisation, which takes the noise's share
out) and :math:`w_i` falls with the distance. They are 1 where nothing was observed nearby. How far a neighbourhood
reaches is the choice whose log density of left-out places is highest, each judged by the others alone; where no choice
is better than factors of 1 by more than chance, there are none. A factor that is estimated from a few places makes a
Student-t law of a normal one, whose wider 95 % region a last factor keeps, or what 95 % of the left-out places need.

References:
    Lei, J. et al., Journal of the American Statistical Association 113, 1094 (2018).
    Papadopoulos, H., Gammerman, A. and Vovk, V., Normalized nonconformity measures (2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

__all__ = ["LocalScale", "local_scale"]

Array = NDArray[np.float64]

_LEAST_PLACES = 30
_REACHES = (8, 16, 32)
"""Neighbours within a neighbourhood's radius that are compared."""
_TRUNCATED = 4
"""Neighbours that are looked at, in units of those within the radius."""
_STEEPNESS = 1.5
_STEPS = 30
_GAIN = 0.25
"""Log density that factors must win to be used, in nats a place.

Errors of smooth fields are alike at neighbouring places: data simulated by the fitted kernel itself, for which all
factors are 1, win up to about this much.
"""
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class LocalScale:
    """Factors of the variances around the mean.

    Attributes:
        points: Observed places, (m, D).
        factors: What each place says of its own factor, (m,).
        reach: Neighbours within the radius of a neighbourhood.
        widest: Largest radius of a neighbourhood.
        spare: Last factor of all variances near observed places, at least 1.
        gain: Log density of the left-out places won over factors of 1, nats.
    """

    points: Array
    factors: Array
    reach: int
    widest: float
    spare: float
    gain: float

    def at(self, places: Array) -> Array:
        """Factors (n,) at places (n, D)."""
        index, weights = _neighbours(cKDTree(self.points), places, self.reach, self.widest)
        known = weights.sum(1) / (1.0 + weights.sum(1))
        return np.asarray(_smoothed(self.factors, index, weights) * self.spare**known)

    def __repr__(self) -> str:
        found = self.at(self.points)
        return (
            f"LocalScale(variances times {found.min():.2g} to {found.max():.2g}, {self.reach} neighbours, "
            f"{self.gain:.1f} nats won by left-out places)"
        )


def local_scale(points: Array, distances: Array, shares: Array, d: int) -> LocalScale | None:
    """Factors by place, or None where left-out places do not ask for any.

    Args:
        points: Observed places, (m, D).
        distances: Squared left-out errors in units of their predicted covariances, noise included, (m,).
        shares: Share of the field in those variances, in (0, 1], the rest being noise, (m,).
        d: Coordinates of a value.
    """
    usable = np.isfinite(distances) & np.isfinite(shares)
    if usable.sum() < _LEAST_PLACES:
        return None
    points, squares, shares = points[usable], distances[usable] / d, np.clip(shares[usable], 1e-6, 1.0)
    tree = cKDTree(points)
    best, alone = None, _log_density(np.ones(len(points)), squares, shares, d)
    for reach in _reaches(len(points)):
        index, weights = _neighbours(tree, points, reach)
        factors = np.ones(len(points))
        smooth = factors
        for _ in range(_STEPS):
            factors = _own_factors(smooth, squares, shares)
            smooth = _smoothed(factors, index, weights)
        gain = _log_density(smooth, squares, shares, d) - alone
        if gain > (best.gain if best is not None else _GAIN * len(points)):
            widest = float(tree.query(points, reach + 1)[0][:, -1].max())
            spare = _spare(smooth, squares, shares, float(weights.sum(1).mean()), d)
            best = LocalScale(points, factors, reach, widest, spare, gain)
    return best


def _spare(factors: Array, squares: Array, shares: Array, weight: float, d: int) -> float:
    """Factor of the 95 % regions for factors that are estimates, or what 95 % of the left-out places need if more."""
    normal = stats.chi2(d).ppf(_LEVEL)
    student = d * stats.f(d, d * (1.0 + weight)).ppf(_LEVEL)
    level = min(_LEVEL * (len(squares) + 1) / len(squares), 1.0)
    needed = np.quantile(d * squares / (factors * shares + 1.0 - shares), level)
    return float(max(student, needed) / normal)


def _reaches(m: int) -> Sequence[int]:
    return [reach for reach in _REACHES if reach < m // 2]


def _own_factors(factors: Array, squares: Array, shares: Array) -> Array:
    """Expected squared error of the field at each place (m,), in units of its variance, given the factors."""
    part = factors * shares / (factors * shares + 1.0 - shares)
    return np.asarray(factors * (1.0 - part) + np.square(part) * squares / shares)


def _log_density(factors: Array, squares: Array, shares: Array, d: int) -> float:
    """Of left-out places whose fields' variances are multiplied, up to what does not depend on the factors."""
    total = factors * shares + 1.0 - shares
    return float(-0.5 * d * (np.log(total) + squares / total).sum())


def _neighbours(
    tree: cKDTree, places: Array, reach: int, widest: float | None = None
) -> tuple[NDArray[np.int64], Array]:
    """Numbers (n, K) and weights (n, K) of the observed places around places, which do not count themselves.

    Args:
        tree: Of the observed places.
        places: (n, D).
        reach: Neighbours within a radius.
        widest: Largest radius; None if the places are the observed ones.
    """
    own = int(widest is None)
    away, index = tree.query(places, min(_TRUNCATED * reach + own, tree.n))
    away, index = away[:, own:], index[:, own:]
    radius = np.minimum(away[:, min(reach, away.shape[1]) - 1], np.inf if widest is None else widest)
    radius = np.maximum(radius, 1e-300)[:, None]
    return np.asarray(index, dtype=np.int64), np.exp(-0.5 * np.square(_STEEPNESS * away / radius))


def _smoothed(factors: Array, index: NDArray[np.int64], weights: Array) -> Array:
    return np.asarray((1.0 + (weights * factors[index]).sum(1)) / (1.0 + weights.sum(1)))
