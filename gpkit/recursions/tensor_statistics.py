"""Sufficient statistics of low-rank tensor models: one pass over the entries, one writer per coordinate.

A mode of rank R has a table with a row per coordinate: the mean m (R,) of its functions and their packed second moment
(R (R + 1) / 2 numbers, a <= b, row by row). Entries are grouped by their coordinate in one mode; the *others* are split
into a left and a right group, and the vector of a group is the Kronecker product of the rows of its modes. Nothing of
size R^(2K) exists per entry: an entry adds the outer product of its left and right vectors to its coordinate's
statistics.

Tables of all modes lie in one flat array: the row of coordinate i of other mode l begins at
``base[mode] + i * (rank[mode] + rank[mode] (rank[mode] + 1) / 2)``.
"""

from __future__ import annotations

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.simd import LANES, aligned_start, load, store, view, zero_lanes

__all__ = [
    "accumulate",
    "accumulate_diagonal",
    "evaluate",
    "evaluate_diagonal",
    "fold_core",
    "group_entries",
    "pack_moments",
    "unfold_core",
]

_TOGETHER = 32


@numba.njit(**ENTRY)
def group_entries(index, size):
    """Counting sort: entries in the order of ``index`` (N,), int32, and where each of the groups begins (size + 1,)."""
    starts = np.zeros(size + 1, np.int64)
    for n in range(index.size):
        starts[index[n] + 1] += 1
    for j in range(size):
        starts[j + 1] += starts[j]
    at = starts[:-1].copy()
    order = np.empty(index.size, np.int32)
    for n in range(index.size):
        j = index[n]
        order[at[j]] = n
        at[j] += 1
    return order, starts


@numba.njit(**ENTRY)
def pack_moments(mean, covariance, out):
    """Rows ``[m, packed (V + m m^T)]`` from means (J, R) and covariances (J, R, R) into ``out``."""
    rank = mean.shape[1]
    for j in range(mean.shape[0]):
        at = rank
        for a in range(rank):
            out[j, a] = mean[j, a]
            for b in range(a, rank):
                out[j, at] = covariance[j, a, b] + mean[j, a] * mean[j, b]
                at += 1


@numba.njit(inline="always")
def _kronecker(flat, rows, first, last, widths, shifts, out):
    """Kronecker product of parts of rows ``first .. last - 1`` (each from its shift on); returns its length."""
    out[0] = 1.0
    size = 1
    for mode in range(first, last):
        width = widths[mode]
        at = rows[mode] + shifts[mode]
        for s in range(size - 1, -1, -1):
            value = out[s]
            for t in range(width):
                out[s * width + t] = value * flat[at + t]
        size *= width
    return size


@uncounted
def _spread(flat, at, width, factor, out, e):
    """A row times a factor as column e of ``out``."""
    for a in range(width):
        out[a * _TOGETHER + e] = factor * flat[at + a]


@uncounted
def _times_row(head, size, row, width, out, like):
    """Kronecker product of ``head[:size]`` with a row, whole vectors at a time: what spills over is written next."""
    vectors = (width + LANES - 1) // LANES
    for s in range(size):
        factor = load(head, s, 0.0)
        to = view(out, s * width)
        for b in range(vectors):
            store(to, b, factor * load(row, b, like))


@numba.njit(**ENTRY)
def fold_core(mean, covariance, left, right, out):
    """Sums of ``E[g_i g_h]`` over all (i, h) with the same packed pair of components in every mode.

    Args:
        mean: of the coefficients, (A B,).
        covariance: the same, (A B, A B).
        left: packed places of pairs of the first modes' components, (A, A).
        right: packed places of pairs of the last modes' components, (B, B); the place of a pair is the sum of both.
        out: the result, flat.
    """
    out[:] = 0.0
    inner = len(right)
    for i in range(len(mean)):
        a, b = divmod(i, inner)
        for c in range(len(left)):
            base = left[a, c]
            for d in range(inner):
                h = c * inner + d
                out[base + right[b, d]] += covariance[i, h] + mean[i] * mean[h]


@numba.njit(**ENTRY)
def unfold_core(packed, left, right, out):
    """The matrix (I, I) whose entry (i, h) is that of the packed pairs of all modes; see :func:`fold_core`."""
    inner = len(right)
    for i in range(len(out)):
        a, b = divmod(i, inner)
        for c in range(len(left)):
            base = left[a, c]
            for d in range(inner):
                out[i, c * inner + d] = packed[base + right[b, d]]


@uncounted
def _outer_sums(one, two, entries, left, vectors, out, like):
    """Add ``sum_e one[a, e] two[e, :]`` to the rows of ``out`` (left, vectors), in tiles that stay in registers."""
    for a in range(0, left, 2):
        z, x = a * _TOGETHER, min(a + 1, left - 1) * _TOGETHER  # an odd last row is done twice, with one result
        u, v = a * vectors, min(a + 1, left - 1) * vectors
        b = 0
        while b + 4 <= vectors:
            u0, u1 = load(out, u + b, like), load(out, u + b + 1, like)
            u2, u3 = load(out, u + b + 2, like), load(out, u + b + 3, like)
            v0, v1 = load(out, v + b, like), load(out, v + b + 1, like)
            v2, v3 = load(out, v + b + 2, like), load(out, v + b + 3, like)
            for e in range(entries):
                f, g = load(one, z + e, 0.0), load(one, x + e, 0.0)
                at = e * vectors + b
                t0, t1, t2, t3 = (
                    load(two, at, like),
                    load(two, at + 1, like),
                    load(two, at + 2, like),
                    load(two, at + 3, like),
                )
                u0, u1, u2, u3 = u0 + f * t0, u1 + f * t1, u2 + f * t2, u3 + f * t3
                v0, v1, v2, v3 = v0 + g * t0, v1 + g * t1, v2 + g * t2, v3 + g * t3
            store(out, u + b, u0)
            store(out, u + b + 1, u1)
            store(out, u + b + 2, u2)
            store(out, u + b + 3, u3)
            store(out, v + b, v0)
            store(out, v + b + 1, v1)
            store(out, v + b + 2, v2)
            store(out, v + b + 3, v3)
            b += 4
        while b + 2 <= vectors:
            u0, u1 = load(out, u + b, like), load(out, u + b + 1, like)
            v0, v1 = load(out, v + b, like), load(out, v + b + 1, like)
            for e in range(entries):
                f, g = load(one, z + e, 0.0), load(one, x + e, 0.0)
                t0, t1 = load(two, e * vectors + b, like), load(two, e * vectors + b + 1, like)
                u0, u1, v0, v1 = u0 + f * t0, u1 + f * t1, v0 + g * t0, v1 + g * t1
            store(out, u + b, u0)
            store(out, u + b + 1, u1)
            store(out, v + b, v0)
            store(out, v + b + 1, v1)
            b += 2
        if b < vectors:
            u0, v0 = load(out, u + b, like), load(out, v + b, like)
            for e in range(entries):
                t0 = load(two, e * vectors + b, like)
                u0, v0 = u0 + load(one, z + e, 0.0) * t0, v0 + load(one, x + e, 0.0) * t0
            store(out, u + b, u0)
            store(out, v + b, v0)


@numba.njit(inline="always")
def _lengths(rank, split):
    packed = np.empty(rank.size, np.int64)
    full = np.empty(rank.size, np.int64)
    left = right = left_packed = right_packed = 1
    for mode in range(rank.size):
        packed[mode] = rank[mode] * (rank[mode] + 1) // 2
        full[mode] = rank[mode] + packed[mode]
        if mode < split:
            left *= rank[mode]
            left_packed *= packed[mode]
        else:
            right *= rank[mode]
            right_packed *= packed[mode]
    return packed, full, left, right, left_packed, right_packed


@numba.njit(**ENTRY)
def accumulate(starts, others, target, weight, flat, base, rank, split, second, first):
    """Add up ``w P_left P_right^T`` and ``w y m_left m_right^T`` over the entries of every coordinate.

    Args:
        starts: where the entries of each coordinate begin, (J + 1,).
        others: coordinates of the entries in the other modes, (N, L), grouped.
        target: y (N,), grouped.
        weight: w (N,), grouped, or (1,) for all.
        flat: tables.
        base: where the table of each other mode begins, (L,).
        rank: ranks of the other modes, (L,).
        split: number of modes in the left group.
        second: where ``w P_left P_right^T`` goes, (J, p_left, p_right).
        first: where ``w y m_left m_right^T`` goes, (J, r_left, r_right).
    """
    # The layout of the statistics is that of all modes one after the other, wherever they are split: one mode against
    # the rest makes rows long.
    split = min(split, 1)
    packed, full, left, right, left_packed, right_packed = _lengths(rank, split)
    modes = rank.size
    each = weight.size > 1
    w = weight[0]
    shifts = rank.copy()
    zeros = np.zeros_like(rank)
    rows = np.empty(modes, np.int64)
    vectors, vectors_packed = (right + LANES - 1) // LANES, (right_packed + LANES - 1) // LANES
    wide, wide_packed = vectors * LANES, vectors_packed * LANES
    room = np.zeros(
        3 * LANES
        + (left + left_packed) * _TOGETHER
        + (wide + wide_packed) * (_TOGETHER + 1)
        + left * wide
        + left_packed * wide_packed
    )
    at = aligned_start(room)
    two1 = room[at:]
    two2 = two1[wide * _TOGETHER + LANES :]  # room for what spills over
    sum1 = two2[wide_packed * _TOGETHER + LANES :]
    sum2 = sum1[left * wide :]
    one1 = sum2[left_packed * wide_packed :]
    one2 = one1[left * _TOGETHER :]
    head = np.empty(max(left_packed, right_packed))
    padded = np.zeros(flat.size + LANES)  # vectors may reach beyond the last row
    padded[: flat.size] = flat
    flat1, flat2 = first.reshape(first.shape[0], -1), second.reshape(second.shape[0], -1)
    like = zero_lanes()
    for j in range(starts.size - 1):
        sum1[: left * wide] = 0.0
        sum2[: left_packed * wide_packed] = 0.0
        for begin in range(starts[j], starts[j + 1], _TOGETHER):
            count = min(_TOGETHER, starts[j + 1] - begin)
            for e in range(count):
                n = begin + e
                if each:
                    w = weight[n]
                wy = w * target[n]
                for mode in range(modes):
                    rows[mode] = base[mode] + others[n, mode] * full[mode]
                at = rows[0] if modes else 0  # without other modes the table is a one
                _spread(flat, at, left, wy, one1, e)
                _spread(flat, at + left if modes else 0, left_packed, w, one2, e)
                if modes == split:
                    two1[e * wide] = two2[e * wide_packed] = 1.0
                    continue
                last = view(padded, rows[modes - 1])
                if modes == 2:
                    for b in range(vectors):
                        store(two1, e * vectors + b, load(last, b, like))
                    last = view(last, right)
                    for b in range(vectors_packed):
                        store(two2, e * vectors_packed + b, load(last, b, like))
                    continue
                width, width_packed = rank[modes - 1], packed[modes - 1]
                if modes == 3:
                    middle = view(padded, rows[1])
                    _times_row(middle, rank[1], last, width, view(two1, e * wide), like)
                    last, middle = view(last, width), view(middle, rank[1])
                    _times_row(middle, packed[1], last, width_packed, view(two2, e * wide_packed), like)
                    continue
                size = _kronecker(flat, rows, split, modes - 1, rank, zeros, head)
                _times_row(head, size, last, width, view(two1, e * wide), like)
                size = _kronecker(flat, rows, split, modes - 1, packed, shifts, head)
                _times_row(head, size, view(last, width), width_packed, view(two2, e * wide_packed), like)
            _outer_sums(one1, two1, count, left, vectors, sum1, like)
            _outer_sums(one2, two2, count, left_packed, vectors_packed, sum2, like)
        for a in range(left):
            for b in range(right):
                flat1[j, a * right + b] = sum1[a * wide + b]
        for a in range(left_packed):
            for b in range(right_packed):
                flat2[j, a * right_packed + b] = sum2[a * wide_packed + b]


@numba.njit(**ENTRY)
def evaluate(starts, others, flat, base, rank, split, first, second, mean, square):
    """Bilinear forms ``m_left^T first_j m_right`` and ``P_left^T second_j P_right`` of every entry.

    ``first`` (J, r_left, r_right) and ``second`` (J, p_left, p_right) hold what is contracted with the grouping mode
    already; the results, of the grouped entries, go to ``mean`` (N,) and ``square`` (N,).
    """
    packed, full, left, right, left_packed, right_packed = _lengths(rank, split)
    modes = rank.size
    shifts = rank.copy()
    zeros = np.zeros_like(rank)
    rows = np.empty(modes, np.int64)
    one, two = np.empty(max(left_packed, left)), np.empty(max(right_packed, right))
    for j in range(starts.size - 1):
        s1 = first[j]
        s2 = second[j]
        for n in range(starts[j], starts[j + 1]):
            for mode in range(modes):
                rows[mode] = base[mode] + others[n, mode] * full[mode]
            _kronecker(flat, rows, 0, split, rank, zeros, one)
            _kronecker(flat, rows, split, modes, rank, zeros, two)
            total = 0.0
            for a in range(left):
                part = 0.0
                for b in range(right):
                    part += s1[a, b] * two[b]
                total += one[a] * part
            mean[n] = total
            _kronecker(flat, rows, 0, split, packed, shifts, one)
            _kronecker(flat, rows, split, modes, packed, shifts, two)
            total = 0.0
            for a in range(left_packed):
                part = 0.0
                for b in range(right_packed):
                    part += s2[a, b] * two[b]
                total += one[a] * part
            square[n] = total


@numba.njit(**ENTRY)
def accumulate_diagonal(starts, others, target, weight, flat, base, rank, second, first):
    """As ``accumulate`` for CP: products of the rows instead of outer products; second (J, p), first (J, R)."""
    modes = base.size
    packed = rank * (rank + 1) // 2
    full = rank + packed
    row = np.empty(full)
    each = weight.size > 1
    w = weight[0]
    for j in range(starts.size - 1):
        s2 = second[j]
        s1 = first[j]
        s2[:] = 0.0
        s1[:] = 0.0
        for n in range(starts[j], starts[j + 1]):
            if each:
                w = weight[n]
            for a in range(full):
                row[a] = w
            for mode in range(modes):
                at = base[mode] + others[n, mode] * full
                for a in range(full):
                    row[a] *= flat[at + a]
            y = target[n]
            for a in range(rank):
                s1[a] += y * row[a]
            for a in range(packed):
                s2[a] += row[rank + a]


@numba.njit(**ENTRY)
def evaluate_diagonal(starts, others, flat, base, rank, first, second, mean, square):
    """As ``evaluate`` for CP: ``first`` (J, R) and ``second`` (J, p) are contracted with products of rows."""
    modes = base.size
    packed = rank * (rank + 1) // 2
    full = rank + packed
    row = np.empty(full)
    for j in range(starts.size - 1):
        s1 = first[j]
        s2 = second[j]
        for n in range(starts[j], starts[j + 1]):
            for a in range(full):
                row[a] = 1.0
            for mode in range(modes):
                at = base[mode] + others[n, mode] * full
                for a in range(full):
                    row[a] *= flat[at + a]
            total = 0.0
            for a in range(rank):
                total += s1[a] * row[a]
            mean[n] = total
            total = 0.0
            for a in range(packed):
                total += s2[a] * row[rank + a]
            square[n] = total
