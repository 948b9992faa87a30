"""Covariances of small sets of rows and their factors, a set in each SIMD lane, for conditioning on neighbours."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from gpkit.recursions.compilation import uncounted
from gpkit.recursions.elementary import exp_and_expm1
from gpkit.recursions.simd import broadcast, load, root, select_less, store

__all__ = ["Covariance", "assemble", "distance", "factor", "gather", "solve", "summed"]


class Covariance(NamedTuple):
    """``k(x, z) = sum_t v_t exp(-sum_k r_tk d_k(x, z))``.

    Attributes:
        category: which columns are categories, whose distance d is 1 for different levels; ``|x_k - z_k|`` else, (D,).
        variance: v, (T,).
        rate: r, (T, D).
    """

    category: NDArray[Any]
    variance: NDArray[Any]
    rate: NDArray[Any]


@uncounted
def distance(gap, categorical, like):
    """Of two values in one column, from their difference."""
    size = select_less(gap, 0.0, -gap, gap)
    if categorical:
        size = select_less(0.0, size, broadcast(1.0, like), broadcast(0.0, like))
    return size


@uncounted
def summed(gaps, covariance, each, at, like):
    """The covariance at these distances in all columns; the summands go to ``each`` from ``at`` on."""
    terms, columns = covariance.rate.shape
    total = broadcast(0.0, like)
    for t in range(terms):
        exponent = broadcast(0.0, like)
        for k in range(columns):
            exponent = exponent - covariance.rate[t, k] * load(gaps, k, like)
        value = covariance.variance[t] * exp_and_expm1(exponent)[0]
        store(each, at + t, value)
        total = total + value
    return total


@uncounted
def _pair(x, a, b, covariance, gaps, each, at, like):
    """Covariance of rows that begin at ``a`` and ``b`` of ``x``."""
    for k in range(covariance.category.size):
        store(gaps, k, distance(load(x, a + k, like) - load(x, b + k, like), covariance.category[k], like))
    return summed(gaps, covariance, each, at, like)


@uncounted
def factor(c, m, like):
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
def solve(c, m, b, like):
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
def gather(points, queries, i, neighbours, x, there, w):
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
def assemble(x, there, noise, width, m, covariance, gaps, each, stride, c, cross, like):
    """Packed covariance of the neighbours' observations, and covariances with the query.

    Summands of pair (p, q) go to place ``(p (p + 1) / 2 + q) stride`` of ``each``, those with the query after all.
    """
    columns = covariance.category.size
    prior = 0.0
    for t in range(covariance.variance.size):
        prior += covariance.variance[t]
    query = m * (m + 1) // 2
    for p in range(m):
        row = p * (p + 1) // 2
        mine = load(there, p, like)
        for q in range(p):
            value = _pair(x, p * columns, q * columns, covariance, gaps, each, (row + q) * stride, like)
            store(c, row + q, value * mine * load(there, q, like))
        store(c, row + p, (prior + load(noise, p, like)) * mine + (1.0 - mine))
        value = _pair(x, p * columns, width * columns, covariance, gaps, each, (query + p) * stride, like)
        store(cross, p, value * mine)
