"""The rows of a table with the largest covariances with a query, by branch and bound on the covariance itself.

The covariance is :class:`gpkit.recursions.neighbour_lanes.Covariance`. A box of rows bounds every distance from below
and so every covariance from above; a box whose bound does not exceed the smallest covariance that is kept is passed
over. The answer is exact. Boxes split into eight, in three halvings along the column that the covariance feels most, so
that the bounds of all parts of a box are one evaluation over SIMD lanes, as are the covariances of eight rows.

Boxes are numbered level by level: the parts of box i are ``8 i + 1 .. 8 i + 8``. Those of the last level hold nearly
equal numbers of rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.neighbour_lanes import Covariance, distance, summed
from gpkit.recursions.simd import LANES, aligned_start, broadcast, load, select_less, store, view, width_of, zero_lanes

__all__ = ["largest_covariances"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_LEAF = 24


class _Tree(NamedTuple):
    """Boxes of rows.

    Attributes:
        order: of the rows, (N,).
        starts: where the rows of each box of the last level begin, (parts + 1,).
        low, high: corners of all boxes, (D, boxes).
        rows: coordinates in this order, (D, N).
    """

    order: NDArray[Any]
    starts: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    rows: NDArray[Any]


@numba.njit(inline="always")
def _widest(points, order, begin, end, covariance):
    """The column along which the covariance falls most from one end of some rows to the other."""
    best, column = -1.0, 0
    for k in range(points.shape[1]):
        low = high = points[order[begin], k]
        for i in range(begin + 1, end):
            value = points[order[i], k]
            low, high = min(low, value), max(high, value)
        gap = high - low
        if covariance.category[k]:
            gap = 1.0 if gap > 0.0 else 0.0
        fall = 0.0
        for t in range(covariance.variance.size):
            fall -= covariance.variance[t] * math.expm1(-covariance.rate[t, k] * gap)
        if fall > best:
            best, column = fall, k
    return column


@numba.njit(inline="always")
def _halve(key, order, begin, end, middle):
    """Reorder rows ``begin .. end - 1`` so that none before ``middle`` has a larger key than one from there on."""
    low, high = begin, end - 1
    while low < high:
        pivot = key[order[(low + high) // 2]]
        i, j = low, high
        while i <= j:
            while key[order[i]] < pivot:
                i += 1
            while key[order[j]] > pivot:
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            break


@numba.njit(**ENTRY)
def _build(points, covariance, levels):
    """Order of the rows, where each part of the last level begins, and the corners of the boxes (2, D, boxes)."""
    count, columns = points.shape
    parts = 8**levels
    order = np.arange(count)
    starts = np.zeros(parts + 1, np.int64)
    starts[parts] = count
    step = parts
    key = np.empty(count)
    while step > 1:
        for at in range(0, parts, step):
            begin, end = starts[at], starts[at + step]
            middle = (begin + end) // 2
            starts[at + step // 2] = middle
            if end - begin > 1:
                column = _widest(points, order, begin, end, covariance)
                for i in range(begin, end):
                    key[order[i]] = points[order[i], column]
                _halve(key, order, begin, end, middle)
        step //= 2
    boxes = (8 * parts - 1) // 7
    low, high = np.full((columns, boxes + LANES), np.inf), np.full((columns, boxes + LANES), -np.inf)
    first = boxes - parts
    for part in range(parts):
        for i in range(starts[part], starts[part + 1]):
            for k in range(columns):
                value = points[order[i], k]
                low[k, first + part] = min(low[k, first + part], value)
                high[k, first + part] = max(high[k, first + part], value)
    for box in range(boxes - 1, 0, -1):
        for k in range(columns):
            low[k, (box - 1) // 8] = min(low[k, (box - 1) // 8], low[k, box])
            high[k, (box - 1) // 8] = max(high[k, (box - 1) // 8], high[k, box])
    rows = np.empty((columns, count + LANES))
    for k in range(columns):
        for i in range(count + LANES):
            rows[k, i] = points[order[min(i, count - 1)], k]
    return _Tree(order, starts, low, high, rows)


@uncounted
def _covariances(low, high, at, query, covariance, gaps, each, out, like):
    """Covariances of a query with the nearest corners of eight boxes from ``at`` on; rows are boxes of no size."""
    for k in range(query.size):
        below = load(view(low[k], at), 0, like) - query[k]
        above = query[k] - load(view(high[k], at), 0, like)
        outside = select_less(below, above, above, below)
        outside = select_less(outside, 0.0, broadcast(0.0, like), outside)
        store(gaps, k, distance(outside, covariance.category[k], like))
    store(out, 0, summed(gaps, covariance, each, 0, like))


@uncounted
def _search(tree, query, own, covariance, room, stack, bound, kept, which, like):
    """Keep the largest covariances and their rows, in decreasing order; returns how many there are."""
    order, starts, low, high, rows = tree.order, tree.starts, tree.low, tree.high, tree.rows
    w = width_of(like)
    gaps = view(room, aligned_start(room))
    score = view(gaps, query.size * w)
    each = view(score, w)
    parts = starts.size - 1
    first = (8 * parts - 1) // 7 - parts
    keep = kept.size
    found, depth = 0, 1
    stack[0], bound[0] = 0, math.inf
    while depth > 0:
        depth -= 1
        if found == keep and bound[depth] <= kept[keep - 1]:
            continue
        box = stack[depth]
        if box < first:
            _covariances(low, high, 8 * box + 1, query, covariance, gaps, each, score, like)
            begin = depth
            for part in range(8):
                value = load(score, part, 0.0)
                if (found == keep and value <= kept[keep - 1]) or not value >= 0.0:
                    continue
                at = depth
                while at > begin and bound[at - 1] > value:  # the largest comes last, to be taken first
                    stack[at], bound[at] = stack[at - 1], bound[at - 1]
                    at -= 1
                stack[at], bound[at] = 8 * box + 1 + part, value
                depth += 1
            continue
        for i in range(starts[box - first], starts[box - first + 1], w):
            _covariances(rows, rows, i, query, covariance, gaps, each, score, like)
            for lane in range(min(w, starts[box - first + 1] - i)):
                value, j = load(score, lane, 0.0), order[i + lane]
                if j == own or (found == keep and value <= kept[keep - 1]):
                    continue
                at = min(found, keep - 1)
                while at > 0 and kept[at - 1] < value:
                    kept[at], which[at] = kept[at - 1], which[at - 1]
                    at -= 1
                kept[at], which[at] = value, j
                found = min(found + 1, keep)
    return found


@numba.njit(**ENTRY)
def _search_all(tree, queries, own, covariance, out):
    room = np.empty((queries.shape[1] + covariance.variance.size + 2) * LANES)
    levels = 1
    while 8**levels < tree.starts.size:
        levels += 1
    stack, bound = np.empty(8 * levels + 8, np.int64), np.empty(8 * levels + 8)
    kept = np.empty(out.shape[1])
    like = zero_lanes()
    for i in range(len(queries)):
        found = _search(tree, queries[i], own[i], covariance, room, stack, bound, kept, out[i], like)
        for p in range(found, out.shape[1]):
            out[i, p] = -1


def largest_covariances(points: Array, queries: Array, own: Rows, covariance: Covariance, out: Rows) -> None:
    """Rows of the data with the largest covariances with each query, in decreasing order.

    Args:
        points: rows of the data, (N, D).
        queries: (Q, D).
        own: row of the data that each query is, which is passed over, or -1, (Q,).
        covariance: of the process.
        out: the result (Q, m); -1 where there are fewer rows.
    """
    levels = max(0, round(math.log(max(len(points), 1) / _LEAF) / math.log(8.0)))
    _search_all(_build(points, covariance, levels), queries, own, covariance, out)
