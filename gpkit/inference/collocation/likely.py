"""Parameters that stand for all that an evidence leaves likely.

The evidence is taken as normal around its maximum (Laplace); points of that normal distribution are weighted by what
the evidence is there. Directions in which it hardly falls are no wider than what is thought before there are data.

References:
    Rue, Martino & Chopin (2009), J. R. Stat. Soc. B 71, 319 (integration over hyper-parameters).
    Ionides (2008), J. Comput. Graph. Stat. 17, 295 (truncated importance weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import qmc

__all__ = ["LikelyPoints", "likely_points"]

Array = NDArray[np.float64]

_STEP = 0.03
"""Of differences of the gradient, in widths."""
_NEGLIGIBLE = 1e-3
"""Share of a point, of that of the largest, below which it is left out."""
_USELESS = 3.0
"""Nats by which the evidence may fall below its normal approximation before a point is drawn in."""
_SHARES = (1.0, 0.5, 0.25)
"""Of the way to a point of the normal approximation."""


@dataclass(frozen=True, eq=False)
class LikelyPoints:
    """Weighted points around a maximum.

    Attributes:
        points: (S, P).
        shares: Summing to one, (S,).
        log_volume: Logarithm of the integral around the maximum, of evidence over its maximum times the prior.
    """

    points: Array
    shares: Array
    log_volume: float


def likely_points(
    evaluate: Callable[[Array], tuple[float, Array] | None],
    centre: Array,
    widths: Array,
    bounded: Callable[[Array], Array],
    count: int,
    value: Callable[[Array], float | None] | None = None,
) -> LikelyPoints:
    """The maximum and points around it.

    Args:
        evaluate: Log evidence and its gradient (P,); None where there is none.
        centre: Where it is largest, (P,).
        widths: Standard deviations of the parameters around it before there are data, (P,); those of zero are kept.
        bounded: The nearest point where there may be evidence.
        count: Points beside the maximum, a power of two.
        value: Log evidence alone where that costs less; None where there is none.
    """
    free = np.flatnonzero(widths > 0.0)
    top = evaluate(centre)
    if top is None or not len(free):
        return LikelyPoints(centre[None], np.ones(1), 0.0)
    root, log_volume = _laplace(evaluate, centre, widths, free)
    points, logs = [centre], [0.0]
    for z in special.ndtri(qmc.Sobol(len(free), seed=0).random(count)):
        for share in _SHARES:
            off = np.zeros(len(centre))
            off[free] = share * (root @ z)
            at, square = bounded(centre + off), share**2 * float(z @ z)
            found = _value(evaluate, at) if value is None else value(at)
            prior = float(np.sum((off[free] / widths[free]) ** 2))
            log = -math.inf if found is None else found - top[0] + 0.5 * (square - prior)
            if log > -_USELESS:
                break
        points.append(at)
        logs.append(log)
    ratios = np.exp(np.minimum(np.array(logs), 600.0))
    ratios = np.minimum(ratios, math.sqrt(len(ratios)) * ratios.mean())
    log_volume += math.log(ratios.mean())
    ratios[ratios < _NEGLIGIBLE * ratios.max()] = 0.0
    kept = ratios > 0.0
    return LikelyPoints(np.stack(points)[kept], ratios[kept] / ratios.sum(), log_volume)


def _value(evaluate: Callable[[Array], tuple[float, Array] | None], at: Array) -> float | None:
    found = evaluate(at)
    return None if found is None else found[0]


def _laplace(
    evaluate: Callable[[Array], tuple[float, Array] | None], centre: Array, widths: Array, free: NDArray[np.intp]
) -> tuple[Array, float]:
    """Root (f, f) of the covariance of free parameters, and the log of its volume relative to that of the prior."""
    hessian = np.zeros((len(free), len(free)))
    for row, i in enumerate(free):
        slopes, places = [], []
        for sign in (1.0, -1.0, 0.0):  # one-sided, against the middle, where one side has no evidence
            at = centre.copy()
            at[i] += sign * _STEP * widths[i]
            found = evaluate(at)
            if found is not None:
                slopes.append(found[1][free])
                places.append(at[i])
            if len(places) == 2:
                hessian[row] = (slopes[0] - slopes[1]) / (places[0] - places[1])
                break
    scaled = -0.5 * (hessian + hessian.T) * np.outer(widths[free], widths[free])
    values, vectors = np.linalg.eigh(scaled)
    precision = np.maximum(values, 0.0) + 1.0
    root = widths[free, None] * vectors / np.sqrt(precision)
    return np.asarray(root), -0.5 * float(np.log(precision).sum())
