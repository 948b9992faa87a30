"""Conditioning of a Gaussian process on nearest neighbours; derivatives are in `neighbour_gradients`.

The covariance is a sum of products over columns, ``k(x, z) = sum_t v_t exp(-sum_k r_tk d_k(x, z))``, where d_k is the
distance ``|x_k - z_k|`` or, for a category, 1 for different levels and 0 for equal ones. Each query is conditioned on
its own m rows, whose observations have noise; a query's row is never its own neighbour unless the caller says so.

Queries are independent of each other: as many as there are SIMD lanes go through the same small Cholesky factorisation
at once, one query in each lane. A query with fewer neighbours than the others has rows of the unit matrix instead.

References:
    Vecchia (1988), JRSS B 50, 297; Datta et al. (2016), JASA 111, 800; Katzfuss & Guinness (2021), Stat. Sci. 36, 124.
"""

from __future__ import annotations

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.neighbour_lanes import assemble, factor, gather, pair, solve
from gpkit.recursions.simd import (
    LANES,
    aligned_start,
    broadcast,
    load,
    select_less,
    store,
    view,
    width_of,
    zero_lanes,
)

__all__ = ["condition", "rank_candidates"]


@uncounted
def _condition(points, noise, queries, neighbours, category, variance, rate, weights, left, room, like):  # type: ignore[no-untyped-def]  # noqa: E501
    w = width_of(like)
    count, width = neighbours.shape
    terms, columns = rate.shape
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
        prior += variance[t]
    for i in range(0, count, w):
        m = gather(points, queries, i, neighbours, x, there, w)
        for lane in range(w):
            own = min(i + lane, count - 1)
            for p in range(m):
                j = neighbours[own, p]
                store(level, p * w + lane, noise[j] if j >= 0 else 0.0)
        assemble(x, there, level, width, m, category, variance, rate, gaps, each, 0, c, cross, like)
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
def condition(points, noise, queries, neighbours, category, variance, rate, weights, left):  # type: ignore[no-untyped-def]
    """Kriging weights (Q, m) and conditional variances (Q,) of the noise-free process at the queries.

    Args:
        points: rows of the data, (N, D).
        noise: noise variances of the data, (N,).
        queries: (Q, D).
        neighbours: rows of the data for each query, (Q, m); -1 where there are fewer.
        category: which columns are categories, (D,).
        variance: v, (T,).
        rate: r, (T, D).
        weights: the result; zero where there is no neighbour.
        left: the result.
    """
    width = neighbours.shape[1]
    terms, columns = rate.shape
    words = (width + 1) * columns + 4 * width + columns + terms + 1 + width * (width + 1) // 2
    room = np.empty((words + 1) * LANES)
    _condition(points, noise, queries, neighbours, category, variance, rate, weights, left, room, zero_lanes())


@uncounted
def _scores(points, query, which, size, category, variance, rate, score, room, like):  # type: ignore[no-untyped-def]
    """Covariances of a query with rows ``which[:size]``, a candidate in each lane."""
    w = width_of(like)
    terms, columns = rate.shape
    x = view(room, aligned_start(room))
    gaps = view(x, 2 * columns * w)
    each = view(gaps, columns * w)
    last = view(each, terms * w)
    for k in range(columns):
        store(x, columns + k, broadcast(query[k], like))
    for i in range(0, size, w):
        for lane in range(w):
            j = which[min(i + lane, size - 1)]
            for k in range(columns):
                store(x, k * w + lane, points[j, k])
        store(last, 0, pair(x, 0, columns, category, variance, rate, gaps, each, 0, like))
        for lane in range(min(w, size - i)):
            score[i + lane] = load(last, lane, 0.0)


@numba.njit(**ENTRY)
def rank_candidates(points, queries, own, candidates, category, variance, rate, out):  # type: ignore[no-untyped-def]
    """The rows among the candidates (Q, C) with the largest covariance, each once, without the query's own row.

    ``own`` (Q,) is the row that each query is, or -1; the result (Q, m) has -1 where there are fewer.
    """
    count, width = candidates.shape
    keep = out.shape[1]
    terms, columns = rate.shape
    room = np.empty((3 * columns + terms + 2) * LANES)
    like = zero_lanes()
    last_seen = np.full(points.shape[0], -1, np.int64)
    which = np.empty(width, np.int64)
    score = np.empty(width)
    kept = np.empty(keep)
    for i in range(count):
        size = 0
        for p in range(width):
            j = candidates[i, p]
            if j < 0 or j == own[i] or last_seen[j] == i:
                continue
            last_seen[j] = i
            which[size] = j
            size += 1
        if size:
            _scores(points, queries[i], which, size, category, variance, rate, score, room, like)
        found = 0
        for p in range(size):  # candidates come nearly in order: insertion is short
            value, j = score[p], which[p]
            if found == keep and value <= kept[keep - 1]:
                continue
            at = min(found, keep - 1)
            while at > 0 and kept[at - 1] < value:
                kept[at] = kept[at - 1]
                out[i, at] = out[i, at - 1]
                at -= 1
            kept[at], out[i, at] = value, j
            found = min(found + 1, keep)
        for p in range(found, keep):
            out[i, p] = -1
