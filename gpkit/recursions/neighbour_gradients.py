"""Leave-one-out density of rows given their nearest neighbours, with its derivatives.

The covariance and its parameters are those of :class:`gpkit.recursions.neighbour_lanes.Covariance`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.neighbour_lanes import assemble, distance, factor, solve
from gpkit.recursions.simd import LANES, aligned_start, broadcast, load, select_less, store, view, width_of, zero_lanes

__all__ = ["LeftOut", "leave_one_out_gradient"]


class LeftOut(NamedTuple):
    """Rows that are predicted without themselves.

    Attributes:
        points: all rows of the table, (N, D).
        relative: their relative noise variances, (N,).
        target: their values, (N,).
        rows: those that are predicted, (Q,).
        neighbours: what each is predicted from, (Q, m); -1 where there are fewer.
    """

    points: NDArray[Any]
    relative: NDArray[Any]
    target: NDArray[Any]
    rows: NDArray[Any]
    neighbours: NDArray[Any]


@uncounted
def _pull(x, a, b, covariance, pull, each, at, to_variance, to_rate, gaps, like):
    """Add ``pull`` times the derivatives of the covariance of a pair; ``to_variance`` is still times v."""
    terms, columns = covariance.rate.shape
    for k in range(columns):
        store(gaps, k, distance(load(x, a + k, like) - load(x, b + k, like), covariance.category[k], like))
    for t in range(terms):
        part = pull * load(each, at + t, like)
        store(to_variance, t, load(to_variance, t, like) + part)
        for k in range(columns):
            place = t * columns + k
            store(to_rate, place, load(to_rate, place, like) - part * load(gaps, k, like))


@uncounted
def _leave_one_out(left_out, covariance, level, degrees, to_variance, to_rate, out, room, like):
    points, relative, target = left_out.points, left_out.relative, left_out.target
    rows, neighbours = left_out.rows, left_out.neighbours
    variance = covariance.variance
    w = width_of(like)
    count, width = neighbours.shape
    terms, columns = covariance.rate.shape
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
        assemble(x, there, noise, width, m, covariance, gaps, each, terms, c, cross, like)
        for p in range(m):
            store(b, p, load(cross, p, like))
        factor(c, m, like)
        solve(c, m, b, like)
        solve(c, m, alpha, like)
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
            a, end = p * columns, width * columns
            _pull(x, a, end, covariance, pull, each, at, by_variance, by_rate, gaps, like)
            one = 2.0 * by_spread * mine - by_mean * other
            two = by_mean * mine
            for q in range(p):
                pull = one * load(b, q, like) - two * load(alpha, q, like)
                at = (p * (p + 1) // 2 + q) * terms
                _pull(x, a, q * columns, covariance, pull, each, at, by_variance, by_rate, gaps, like)
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
def leave_one_out_gradient(left_out, covariance, level, degrees, to_variance, to_rate):
    """Negative mean log-density of rows given their neighbours, with derivatives.

    The noise variance of row n is ``level * relative[n]``. The density is normal, or with finite ``degrees`` Student-t
    with the normal one's variance as its squared scale, in which rows far out decide less. Derivatives with respect to
    v and r are written to ``to_variance`` (T,) and ``to_rate`` (T, D).

    Returns:
        The value and the derivative with respect to ``level``.
    """
    width = left_out.neighbours.shape[1]
    terms, columns = covariance.rate.shape
    pairs = width * (width + 1) // 2
    words = (width + 1) * columns + 6 * width + columns + 6 + terms + terms * columns + pairs + (pairs + width) * terms
    room, out = np.empty((words + 1) * LANES), np.empty(2)
    _leave_one_out(left_out, covariance, level, degrees, to_variance, to_rate, out, room, zero_lanes())
    return out[0], out[1]
