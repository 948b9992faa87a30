"""Conditioning of a Gaussian process on nearest neighbours; derivatives are in `neighbour_gradients`.

The covariance is a sum of products over columns, :class:`gpkit.recursions.neighbour_lanes.Covariance`. Each query is
conditioned on its own m rows, whose observations have noise; a query's row is never its own neighbour unless the caller
says so.

Queries are independent of each other: as many as there are SIMD lanes go through the same small Cholesky factorisation
at once, one query in each lane. A query with fewer neighbours than the others has rows of the unit matrix instead.

References:
    Vecchia (1988), JRSS B 50, 297; Datta et al. (2016), JASA 111, 800; Katzfuss & Guinness (2021), Stat. Sci. 36, 124.
"""

from __future__ import annotations

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.neighbour_lanes import assemble, factor, gather, solve
from gpkit.recursions.simd import LANES, aligned_start, broadcast, load, select_less, store, view, width_of, zero_lanes

__all__ = ["condition"]


@uncounted
def _condition(points, noise, queries, neighbours, covariance, weights, left, room, like):
    w = width_of(like)
    count, width = neighbours.shape
    terms, columns = covariance.rate.shape
    base = aligned_start(room)
    x = view(room, base)
    there = view(x, (width + 1) * columns * w)
    level = view(there, width * w)
    gaps = view(level, width * w)
    each = view(gaps, columns * w)
    cross = view(each, terms * w)
    b = view(cross, width * w)
    lane_left = view(b, width * w)
    c = view(lane_left, w)
    prior = 0.0
    for t in range(terms):
        prior += covariance.variance[t]
    for i in range(0, count, w):
        m = gather(points, queries, i, neighbours, x, there, w)
        for lane in range(w):
            own = min(i + lane, count - 1)
            for p in range(m):
                j = neighbours[own, p]
                store(level, p * w + lane, noise[j] if j >= 0 else 0.0)
        assemble(x, there, level, width, m, covariance, gaps, each, 0, c, cross, like)
        for p in range(m):
            store(b, p, load(cross, p, like))
        factor(c, m, like)
        solve(c, m, b, like)
        remaining = broadcast(prior, like)
        for p in range(m):
            remaining = remaining - load(cross, p, like) * load(b, p, like)
        store(lane_left, 0, select_less(remaining, 0.0, 0.0, remaining))
        for lane in range(min(w, count - i)):
            left[i + lane] = load(lane_left, lane, 0.0)
            for p in range(m):
                weights[i + lane, p] = load(b, p * w + lane, 0.0)
            for p in range(m, width):
                weights[i + lane, p] = 0.0


@numba.njit(**ENTRY)
def condition(points, noise, queries, neighbours, covariance, weights, left):
    """Kriging weights (Q, m) and conditional variances (Q,) of the noise-free process at the queries.

    Args:
        points: rows of the data, (N, D).
        noise: noise variances of the data, (N,).
        queries: (Q, D).
        neighbours: rows of the data for each query, (Q, m); -1 where there are fewer.
        covariance: of the process.
        weights: the result; zero where there is no neighbour.
        left: the result.
    """
    width = neighbours.shape[1]
    terms, columns = covariance.rate.shape
    words = (width + 1) * columns + 4 * width + columns + terms + 1 + width * (width + 1) // 2
    room = np.empty((words + 1) * LANES)
    _condition(points, noise, queries, neighbours, covariance, weights, left, room, zero_lanes())
