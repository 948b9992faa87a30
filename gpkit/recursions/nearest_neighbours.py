"""Conditioning of a Gaussian process on nearest neighbours, with derivatives of the leave-one-out density.

The covariance is a sum of products over columns, ``k(x, z) = sum_t v_t exp(-sum_k r_tk d_k(x, z))``, where d_k is the
distance ``|x_k - z_k|`` or, for a category, 1 for different levels and 0 for equal ones. Each query is conditioned on
its own m rows, whose observations have noise; a query's row is never its own neighbour unless the caller says so.

References:
    Vecchia (1988), JRSS B 50, 297; Datta et al. (2016), JASA 111, 800; Katzfuss & Guinness (2021), Stat. Sci. 36, 124.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY

__all__ = ["condition", "leave_one_out_gradient", "rank_candidates"]


@numba.njit(inline="always")
def _terms(x, z, category, variance, rate, each):  # type: ignore[no-untyped-def]
    """Covariance of two rows; the summands go to ``each``."""
    total = 0.0
    for t in range(variance.size):
        exponent = 0.0
        for k in range(x.size):
            gap = abs(x[k] - z[k])
            if category[k] and gap != 0.0:
                gap = 1.0
            exponent += rate[t, k] * gap
        value = variance[t] * math.exp(-exponent)
        each[t] = value
        total += value
    return total


@numba.njit(inline="always")
def _factor(c, m):  # type: ignore[no-untyped-def]
    """Cholesky factor in the lower triangle."""
    for p in range(m):
        for q in range(p):
            total = c[p, q]
            for r in range(q):
                total -= c[p, r] * c[q, r]
            c[p, q] = total / c[q, q]
        total = c[p, p]
        for r in range(p):
            total -= c[p, r] * c[p, r]
        c[p, p] = math.sqrt(max(total, 1e-300))


@numba.njit(inline="always")
def _solve(c, m, b):  # type: ignore[no-untyped-def]
    """``b`` becomes the solution with the factor and its transpose."""
    for p in range(m):
        total = b[p]
        for r in range(p):
            total -= c[p, r] * b[r]
        b[p] = total / c[p, p]
    for p in range(m - 1, -1, -1):
        b[p] /= c[p, p]
        for r in range(p):
            b[r] -= c[p, r] * b[p]


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
    count, width = neighbours.shape
    c = np.empty((width, width))
    each = np.empty(variance.size)
    b = np.empty(width)
    cross = np.empty(width)
    prior = variance.sum()
    for i in range(count):
        m = 0
        while m < width and neighbours[i, m] >= 0:
            m += 1
        for p in range(m):
            x = points[neighbours[i, p]]
            for q in range(p):
                c[p, q] = _terms(x, points[neighbours[i, q]], category, variance, rate, each)
            c[p, p] = prior + noise[neighbours[i, p]]
            cross[p] = _terms(x, queries[i], category, variance, rate, each)
            b[p] = cross[p]
        _factor(c, m)
        _solve(c, m, b)
        remaining = prior
        for p in range(m):
            remaining -= cross[p] * b[p]
            weights[i, p] = b[p]
        for p in range(m, width):
            weights[i, p] = 0.0
        left[i] = max(remaining, 0.0)


@numba.njit(**ENTRY)
def leave_one_out_gradient(  # type: ignore[no-untyped-def]
    points, relative, target, rows, neighbours, category, variance, rate, level, to_variance, to_rate
):
    """Negative mean log-density of rows given their neighbours, with derivatives.

    The noise variance of row n is ``level * relative[n]``. Derivatives with respect to v and r are written to
    ``to_variance`` (T,) and ``to_rate`` (T, D).

    Returns:
        The value and the derivative with respect to ``level``.
    """
    count, width = neighbours.shape
    terms, columns = rate.shape
    c = np.empty((width, width))
    each = np.empty(terms)
    alpha, b, cross = np.empty(width), np.empty(width), np.empty(width)
    prior = variance.sum()
    to_variance[:] = 0.0
    to_rate[:] = 0.0
    value = to_level = 0.0
    for i in range(count):
        m = 0
        while m < width and neighbours[i, m] >= 0:
            m += 1
        own = rows[i]
        for p in range(m):
            x = points[neighbours[i, p]]
            for q in range(p):
                c[p, q] = _terms(x, points[neighbours[i, q]], category, variance, rate, each)
            c[p, p] = prior + level * relative[neighbours[i, p]]
            cross[p] = _terms(x, points[own], category, variance, rate, each)
            b[p] = cross[p]
            alpha[p] = target[neighbours[i, p]]
        _factor(c, m)
        _solve(c, m, b)
        _solve(c, m, alpha)
        spread = prior + level * relative[own]
        error = target[own]
        for p in range(m):
            spread -= cross[p] * b[p]
            error -= cross[p] * alpha[p]
        spread = max(spread, 1e-12 * prior)
        value += 0.5 * (math.log(2.0 * math.pi * spread) + error * error / spread)
        by_mean = -error / spread
        by_spread = 0.5 / spread - 0.5 * (error / spread) ** 2
        to_level += by_spread * relative[own]
        for t in range(terms):
            to_variance[t] += by_spread
        for p in range(m):
            at = points[neighbours[i, p]]
            diagonal = by_spread * b[p] * b[p] - by_mean * b[p] * alpha[p]
            to_level += diagonal * relative[neighbours[i, p]]
            for t in range(terms):
                to_variance[t] += diagonal
            for q in range(-1, p):
                if q < 0:
                    other = points[own]
                    pull = by_mean * alpha[p] - 2.0 * by_spread * b[p]
                else:
                    other = points[neighbours[i, q]]
                    pull = 2.0 * by_spread * b[p] * b[q] - by_mean * (b[p] * alpha[q] + b[q] * alpha[p])
                _terms(at, other, category, variance, rate, each)
                for t in range(terms):
                    part = pull * each[t]
                    to_variance[t] += part / variance[t]
                    for k in range(columns):
                        gap = abs(at[k] - other[k])
                        if category[k] and gap != 0.0:
                            gap = 1.0
                        to_rate[t, k] -= part * gap
    for t in range(terms):
        to_variance[t] /= count
        for k in range(columns):
            to_rate[t, k] /= count
    return value / count, to_level / count


@numba.njit(**ENTRY)
def rank_candidates(points, queries, own, candidates, category, variance, rate, out):  # type: ignore[no-untyped-def]
    """The rows among the candidates (Q, C) with the largest covariance, each once, without the query's own row.

    ``own`` (Q,) is the row that each query is, or -1; the result (Q, m) has -1 where there are fewer.
    """
    count, width = candidates.shape
    keep = out.shape[1]
    each = np.empty(variance.size)
    score = np.empty(width)
    for i in range(count):
        ordered = np.sort(candidates[i])
        size = 0
        last = -1
        for p in range(width):
            j = ordered[p]
            if j == last or j < 0 or j == own[i]:
                continue
            last = j
            ordered[size] = j
            score[size] = -_terms(points[j], queries[i], category, variance, rate, each)
            size += 1
        best = np.argsort(score[:size])
        for p in range(keep):
            out[i, p] = ordered[best[p]] if p < size else -1
