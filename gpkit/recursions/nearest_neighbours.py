"""Conditioning of a Gaussian process on nearest neighbours, with derivatives of the leave-one-out density.

The covariance is a sum of products over columns, ``k(x, z) = sum_t v_t exp(-sum_k r_tk d_k(x, z))``, where d_k is the
distance ``|x_k - z_k|`` or, for a category, 1 for different levels and 0 for equal ones. Each query is conditioned on
its own m rows, whose observations have noise; a query's row is never its own neighbour unless the caller says so.

Queries are independent of each other: as many as there are SIMD lanes go through the same small Cholesky factorisation
at once, one query in each lane. A query with fewer neighbours than the others has rows of the unit matrix instead.

References:
    Vecchia (1988), JRSS B 50, 297; Datta et al. (2016), JASA 111, 800; Katzfuss & Guinness (2021), Stat. Sci. 36, 124.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.elementary import exp_and_expm1
from gpkit.recursions.simd import (
    LANES,
    aligned_start,
    broadcast,
    load,
    root,
    select_less,
    store,
    view,
    width_of,
    zero_lanes,
)

__all__ = ["condition", "leave_one_out_gradient", "rank_candidates"]


@uncounted
def _pair(x, a, b, category, variance, rate, gaps, each, at, like):  # type: ignore[no-untyped-def]
    """Covariance of rows that begin at ``a`` and ``b`` of ``x``; the summands go to ``each`` from ``at`` on."""
    terms, columns = rate.shape
    for k in range(columns):
        gap = load(x, a + k, like) - load(x, b + k, like)
        gap = select_less(gap, 0.0, -gap, gap)
        if category[k]:
            gap = select_less(0.0, gap, broadcast(1.0, like), broadcast(0.0, like))
        store(gaps, k, gap)
    total = broadcast(0.0, like)
    for t in range(terms):
        exponent = broadcast(0.0, like)
        for k in range(columns):
            exponent = exponent - rate[t, k] * load(gaps, k, like)
        value = variance[t] * exp_and_expm1(exponent)[0]
        store(each, at + t, value)
        total = total + value
    return total


@uncounted
def _factor(c, m, like):  # type: ignore[no-untyped-def]
    """Cholesky factor of a packed lower triangle (row by row) in place; the diagonal becomes its reciprocal."""
    for q in range(m):
        own = q * (q + 1) // 2
        total = load(c, own + q, like)
        for r in range(q):
            part = load(c, own + r, like)
            total = total - part * part
        inverse = 1.0 / root(select_less(total, 1e-300, 1e-300, total))
        store(c, own + q, inverse)
        p = q + 1
        while p + 4 <= m:  # four rows at once: independent chains, which share what they multiply
            at0 = p * (p + 1) // 2
            at1 = at0 + p + 1
            at2 = at1 + p + 2
            at3 = at2 + p + 3
            t0, t1 = load(c, at0 + q, like), load(c, at1 + q, like)
            t2, t3 = load(c, at2 + q, like), load(c, at3 + q, like)
            for r in range(q):
                part = load(c, own + r, like)
                t0 = t0 - part * load(c, at0 + r, like)
                t1 = t1 - part * load(c, at1 + r, like)
                t2 = t2 - part * load(c, at2 + r, like)
                t3 = t3 - part * load(c, at3 + r, like)
            store(c, at0 + q, t0 * inverse)
            store(c, at1 + q, t1 * inverse)
            store(c, at2 + q, t2 * inverse)
            store(c, at3 + q, t3 * inverse)
            p += 4
        while p < m:
            at0 = p * (p + 1) // 2
            t0 = load(c, at0 + q, like)
            for r in range(q):
                t0 = t0 - load(c, own + r, like) * load(c, at0 + r, like)
            store(c, at0 + q, t0 * inverse)
            p += 1


@uncounted
def _solve(c, m, b, like):  # type: ignore[no-untyped-def]
    """``b`` becomes the solution with the factor and its transpose."""
    for p in range(m):
        own = p * (p + 1) // 2
        even, odd = load(b, p, like), broadcast(0.0, like)
        for r in range(0, p - 1, 2):
            even = even - load(c, own + r, like) * load(b, r, like)
            odd = odd - load(c, own + r + 1, like) * load(b, r + 1, like)
        if p % 2:
            even = even - load(c, own + p - 1, like) * load(b, p - 1, like)
        store(b, p, (even + odd) * load(c, own + p, like))
    for p in range(m - 1, -1, -1):
        own = p * (p + 1) // 2
        value = load(b, p, like) * load(c, own + p, like)
        store(b, p, value)
        for r in range(p):
            store(b, r, load(b, r, like) - load(c, own + r, like) * value)


@uncounted
def _gather(points, queries, i, neighbours, x, there, w):  # type: ignore[no-untyped-def]
    """Rows of the neighbours and the query, lane by lane; how many neighbours the lane with most has.

    Lanes beyond the last query repeat it; a neighbour that is not there stands where the query does.
    """
    count, width = neighbours.shape
    columns = points.shape[1]
    most = 0
    for lane in range(w):
        own = min(i + lane, count - 1)
        for p in range(width):
            j = neighbours[own, p]
            store(there, p * w + lane, 1.0 if j >= 0 else 0.0)
            if j >= 0 and p + 1 > most:
                most = p + 1
            for k in range(columns):
                store(x, (p * columns + k) * w + lane, points[j, k] if j >= 0 else queries[own, k])
        for k in range(columns):
            store(x, (width * columns + k) * w + lane, queries[own, k])
    return most


@uncounted
def _assemble(x, there, noise, width, m, category, variance, rate, gaps, each, stride, c, cross, like):  # type: ignore[no-untyped-def]  # noqa: E501
    """Packed covariance of the neighbours' observations, and covariances with the query.

    Summands of pair (p, q) go to place ``(p (p + 1) / 2 + q) stride`` of ``each``, those with the query after all.
    """
    terms, columns = rate.shape
    prior = 0.0
    for t in range(terms):
        prior += variance[t]
    query = m * (m + 1) // 2
    for p in range(m):
        row = p * (p + 1) // 2
        mine = load(there, p, like)
        for q in range(p):
            at = (row + q) * stride
            value = _pair(x, p * columns, q * columns, category, variance, rate, gaps, each, at, like)
            store(c, row + q, value * mine * load(there, q, like))
        store(c, row + p, (prior + load(noise, p, like)) * mine + (1.0 - mine))
        at = (query + p) * stride
        value = _pair(x, p * columns, width * columns, category, variance, rate, gaps, each, at, like)
        store(cross, p, value * mine)


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
        m = _gather(points, queries, i, neighbours, x, there, w)
        for lane in range(w):
            own = min(i + lane, count - 1)
            for p in range(m):
                j = neighbours[own, p]
                store(level, p * w + lane, noise[j] if j >= 0 else 0.0)
        _assemble(x, there, level, width, m, category, variance, rate, gaps, each, 0, c, cross, like)
        for p in range(m):
            store(b, p, load(cross, p, like))
        _factor(c, m, like)
        _solve(c, m, b, like)
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
def _pull(x, a, b, category, terms, columns, pull, each, at, to_variance, to_rate, gaps, like):  # type: ignore[no-untyped-def]
    """Add ``pull`` times the derivatives of the covariance of a pair; ``to_variance`` is still times v."""
    for k in range(columns):
        gap = load(x, a + k, like) - load(x, b + k, like)
        gap = select_less(gap, 0.0, -gap, gap)
        if category[k]:
            gap = select_less(0.0, gap, broadcast(1.0, like), broadcast(0.0, like))
        store(gaps, k, gap)
    for t in range(terms):
        part = pull * load(each, at + t, like)
        store(to_variance, t, load(to_variance, t, like) + part)
        for k in range(columns):
            place = t * columns + k
            store(to_rate, place, load(to_rate, place, like) - part * load(gaps, k, like))


@uncounted
def _leave_one_out(  # type: ignore[no-untyped-def]
    points,
    relative,
    target,
    rows,
    neighbours,
    category,
    variance,
    rate,
    level,
    degrees,
    to_variance,
    to_rate,
    out,
    room,
    like,
):
    w = width_of(like)
    count, width = neighbours.shape
    terms, columns = rate.shape
    base = aligned_start(room)
    x = view(room, base)
    there = view(x, (width + 1) * columns * w)
    share = view(there, width * w)  # relative noise variances
    noise = view(share, width * w)
    gaps = view(noise, width * w)
    cross = view(gaps, columns * w)
    b = view(cross, width * w)
    alpha = view(b, width * w)
    ends = view(alpha, width * w)  # spread, error, and what they are multiplied by
    by_variance = view(ends, 6 * w)
    by_rate = view(by_variance, terms * w)
    c = view(by_rate, terms * columns * w)
    each = view(c, width * (width + 1) // 2 * w)
    prior = 0.0
    for t in range(terms):
        prior += variance[t]
        store(by_variance, t, broadcast(0.0, like))
        for k in range(columns):
            store(by_rate, t * columns + k, broadcast(0.0, like))
    heavy = degrees < 1e8
    constant = 0.5 * math.log(2.0 * math.pi)
    if heavy:
        constant = math.lgamma(0.5 * degrees) - math.lgamma(0.5 * (degrees + 1.0)) + 0.5 * math.log(math.pi * degrees)
    value = 0.0
    to_level = broadcast(0.0, like)
    whole = broadcast(0.0, like)
    for i in range(0, count, w):
        m = 0
        for lane in range(w):
            own = min(i + lane, count - 1)
            store(ends, 2 * w + lane, target[rows[own]])
            store(ends, 3 * w + lane, relative[rows[own]])
            for p in range(width):
                j = neighbours[own, p]
                here = j >= 0
                if here and p + 1 > m:
                    m = p + 1
                store(there, p * w + lane, 1.0 if here else 0.0)
                store(share, p * w + lane, relative[j] if here else 0.0)
                store(noise, p * w + lane, level * relative[j] if here else 0.0)
                store(alpha, p * w + lane, target[j] if here else 0.0)
                for k in range(columns):
                    store(x, (p * columns + k) * w + lane, points[j, k] if here else points[rows[own], k])
            for k in range(columns):
                store(x, (width * columns + k) * w + lane, points[rows[own], k])
        _assemble(x, there, noise, width, m, category, variance, rate, gaps, each, terms, c, cross, like)
        for p in range(m):
            store(b, p, load(cross, p, like))
        _factor(c, m, like)
        _solve(c, m, b, like)
        _solve(c, m, alpha, like)
        spread = prior + level * load(ends, 3, like)
        error = load(ends, 2, like)
        for p in range(m):
            spread = spread - load(cross, p, like) * load(b, p, like)
            error = error - load(cross, p, like) * load(alpha, p, like)
        spread = select_less(spread, 1e-12 * prior, 1e-12 * prior, spread)
        store(ends, 0, spread)
        store(ends, 1, error)
        for lane in range(w):
            inside = i + lane < count
            s, e = load(ends, lane, 0.0), load(ends, w + lane, 0.0)
            # With z = e^2 / s the loss is ln(s) / 2 + h(z); `bend` is 2 h'(z).
            z = e * e / s
            loss, bend = 0.5 * z, 1.0
            if heavy:
                loss, bend = 0.5 * (degrees + 1.0) * math.log1p(z / degrees), (degrees + 1.0) / (degrees + z)
            if inside:
                value += constant + 0.5 * math.log(s) + loss
            store(ends, 4 * w + lane, -bend * e / s if inside else 0.0)
            store(ends, 5 * w + lane, 0.5 * (1.0 - bend * z) / s if inside else 0.0)
        by_mean, by_spread = load(ends, 4, like), load(ends, 5, like)
        to_level = to_level + by_spread * load(ends, 3, like)
        whole = whole + by_spread
        query = m * (m + 1) // 2
        for p in range(m):
            mine, other = load(b, p, like), load(alpha, p, like)
            diagonal = by_spread * mine * mine - by_mean * mine * other
            to_level = to_level + diagonal * load(share, p, like)
            whole = whole + diagonal
            at = (query + p) * terms
            pull = by_mean * other - 2.0 * by_spread * mine
            _pull(
                x,
                p * columns,
                width * columns,
                category,
                terms,
                columns,
                pull,
                each,
                at,
                by_variance,
                by_rate,
                gaps,
                like,
            )
            one = 2.0 * by_spread * mine - by_mean * other
            two = by_mean * mine
            for q in range(p):
                pull = one * load(b, q, like) - two * load(alpha, q, like)
                at = (p * (p + 1) // 2 + q) * terms
                _pull(
                    x,
                    p * columns,
                    q * columns,
                    category,
                    terms,
                    columns,
                    pull,
                    each,
                    at,
                    by_variance,
                    by_rate,
                    gaps,
                    like,
                )
    store(ends, 0, whole)
    store(ends, 1, to_level)
    noise_slope = everywhere = 0.0
    for lane in range(w):
        everywhere += load(ends, lane, 0.0)
        noise_slope += load(ends, w + lane, 0.0)
    for t in range(terms):
        total = 0.0
        for lane in range(w):
            total += load(by_variance, t * w + lane, 0.0)
        to_variance[t] = (everywhere + total / variance[t]) / count
        for k in range(columns):
            total = 0.0
            for lane in range(w):
                total += load(by_rate, (t * columns + k) * w + lane, 0.0)
            to_rate[t, k] = total / count
    out[0], out[1] = value / count, noise_slope / count


@numba.njit(**ENTRY)
def leave_one_out_gradient(  # type: ignore[no-untyped-def]
    points, relative, target, rows, neighbours, category, variance, rate, level, degrees, to_variance, to_rate
):
    """Negative mean log-density of rows given their neighbours, with derivatives.

    The noise variance of row n is ``level * relative[n]``. The density is normal, or with finite ``degrees`` Student-t
    with the normal one's variance as its squared scale, in which rows far out decide less. Derivatives with respect to
    v and r are written to ``to_variance`` (T,) and ``to_rate`` (T, D).

    Returns:
        The value and the derivative with respect to ``level``.
    """
    width = neighbours.shape[1]
    terms, columns = rate.shape
    pairs = width * (width + 1) // 2
    words = (width + 1) * columns + 6 * width + columns + 6 + terms + terms * columns + pairs + (pairs + width) * terms
    room = np.empty((words + 1) * LANES)
    out = np.empty(2)
    _leave_one_out(
        points,
        relative,
        target,
        rows,
        neighbours,
        category,
        variance,
        rate,
        level,
        degrees,
        to_variance,
        to_rate,
        out,
        room,
        zero_lanes(),
    )
    return out[0], out[1]


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
        store(last, 0, _pair(x, 0, columns, category, variance, rate, gaps, each, 0, like))
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
