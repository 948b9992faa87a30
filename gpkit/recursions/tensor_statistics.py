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

from gpkit.recursions.compilation import ENTRY

__all__ = ["accumulate", "accumulate_diagonal", "evaluate", "evaluate_diagonal", "group_entries", "pack_moments"]


@numba.njit(**ENTRY)
def group_entries(index, size):  # type: ignore[no-untyped-def]
    """Counting sort: entries n in the order of ``index`` (N,), and where each of ``size`` groups begins (size + 1,)."""
    starts = np.zeros(size + 1, np.int64)
    for n in range(index.size):
        starts[index[n] + 1] += 1
    for j in range(size):
        starts[j + 1] += starts[j]
    at = starts[:-1].copy()
    order = np.empty(index.size, np.int64)
    for n in range(index.size):
        j = index[n]
        order[at[j]] = n
        at[j] += 1
    return order, starts


@numba.njit(**ENTRY)
def pack_moments(mean, covariance, out):  # type: ignore[no-untyped-def]
    """Rows ``[m, packed (V + m m^T)]`` from means (J, R) and covariances (J, R, R) into ``out``."""
    rank = mean.shape[1]
    for j in range(mean.shape[0]):
        at = rank
        for a in range(rank):
            out[j, a] = mean[j, a]
            for b in range(a, rank):
                out[j, at] = covariance[j, a, b] + mean[j, a] * mean[j, b]
                at += 1


def _outer_product(rank):  # type: ignore[no-untyped-def]
    """An entry's addition for a right mode of a rank known when compiled: twice as fast as with a variable one."""
    packed = rank * (rank + 1) // 2

    @numba.njit(inline="always")
    def add(s1, s2, flat, u, v, r0, p0, w, wy):  # type: ignore[no-untyped-def]
        for a in range(r0):
            z = wy * flat[u + a]
            for b in range(rank):
                s1[a, b] += z * flat[v + b]
        for a in range(p0):
            z = w * flat[u + r0 + a]
            for b in range(packed):
                s2[a, b] += z * flat[v + rank + b]

    return add


_add2, _add3, _add4, _add5, _add6 = (_outer_product(rank) for rank in (2, 3, 4, 5, 6))  # type: ignore[no-untyped-call]


@numba.njit(inline="always")
def _kronecker(flat, rows, first, last, widths, shifts, out):  # type: ignore[no-untyped-def]
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


@numba.njit(inline="always")
def _lengths(rank, split):  # type: ignore[no-untyped-def]
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
def accumulate(starts, others, target, weight, flat, base, rank, split, second, first):  # type: ignore[no-untyped-def]
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
    packed, full, left, right, left_packed, right_packed = _lengths(rank, split)
    modes = rank.size
    each = weight.size > 1
    w = weight[0]
    if modes == 2 and split == 1:
        r0, r1, p0, p1 = rank[0], rank[1], packed[0], packed[1]
        f0, f1, b0, b1 = full[0], full[1], base[0], base[1]
        for j in range(starts.size - 1):
            s2 = second[j]
            s1 = first[j]
            s2[:] = 0.0
            s1[:] = 0.0
            for n in range(starts[j], starts[j + 1]):
                if each:
                    w = weight[n]
                u = b0 + others[n, 0] * f0
                v = b1 + others[n, 1] * f1
                wy = w * target[n]
                if r1 == 2:
                    _add2(s1, s2, flat, u, v, r0, p0, w, wy)
                elif r1 == 3:
                    _add3(s1, s2, flat, u, v, r0, p0, w, wy)
                elif r1 == 4:
                    _add4(s1, s2, flat, u, v, r0, p0, w, wy)
                elif r1 == 5:
                    _add5(s1, s2, flat, u, v, r0, p0, w, wy)
                elif r1 == 6:
                    _add6(s1, s2, flat, u, v, r0, p0, w, wy)
                else:
                    for a in range(r0):
                        z = wy * flat[u + a]
                        for b in range(r1):
                            s1[a, b] += z * flat[v + b]
                    for a in range(p0):
                        z = w * flat[u + r0 + a]
                        for b in range(p1):
                            s2[a, b] += z * flat[v + r1 + b]
        return
    shifts = rank.copy()
    zeros = np.zeros_like(rank)
    rows = np.empty(modes, np.int64)
    one, two = np.empty(max(left_packed, left)), np.empty(max(right_packed, right))
    for j in range(starts.size - 1):
        s2 = second[j]
        s1 = first[j]
        s2[:] = 0.0
        s1[:] = 0.0
        for n in range(starts[j], starts[j + 1]):
            if each:
                w = weight[n]
            for mode in range(modes):
                rows[mode] = base[mode] + others[n, mode] * full[mode]
            _kronecker(flat, rows, 0, split, rank, zeros, one)
            _kronecker(flat, rows, split, modes, rank, zeros, two)
            wy = w * target[n]
            for a in range(left):
                z = wy * one[a]
                for b in range(right):
                    s1[a, b] += z * two[b]
            _kronecker(flat, rows, 0, split, packed, shifts, one)
            _kronecker(flat, rows, split, modes, packed, shifts, two)
            for a in range(left_packed):
                z = w * one[a]
                for b in range(right_packed):
                    s2[a, b] += z * two[b]


@numba.njit(**ENTRY)
def evaluate(starts, others, flat, base, rank, split, first, second, mean, square):  # type: ignore[no-untyped-def]
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
def accumulate_diagonal(starts, others, target, weight, flat, base, rank, second, first):  # type: ignore[no-untyped-def]
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
def evaluate_diagonal(starts, others, flat, base, rank, first, second, mean, square):  # type: ignore[no-untyped-def]
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
