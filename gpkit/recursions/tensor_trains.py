"""Sufficient statistics of tensor trains: chains of first and second moments along the modes of an entry.

A mode is a matrix whose entries (components) are functions; the value at an entry of the table is the product of the
matrices of all modes, the first a row and the last a column. The components c of a mode are listed with the states
``left[c]`` and ``right[c]`` of the bonds that they join, so that sparse matrices cost what they hold.

From the left, the product of the modes before k is a row L; its moments obey ``E L'_b = sum_(c: right = b) E L_left
E u_c`` and ``E L'_b L'_b' = sum_(c, c') E L_left L_left' E u_c u_c'``, because modes are independent. Second moments
are packed (a <= b, row by row), so that a pair c <= c' of components moves ``source[q]`` of the old to ``goal[q]`` of
the new, ``factor[q]`` times: twice where two different components end in one state. The same holds from the right.
Nothing larger than a bond's second moment exists for an entry.
"""

from __future__ import annotations

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY

__all__ = ["accumulate_train", "evaluate_train"]


@numba.njit(inline="always")
def _step(flat, row, count, begin, pairs, enter, leave, source, goal, factor, size, first, second, out1, out2):
    """Moments of the product with one more mode, whose row of ``flat`` begins at ``row``, to ``out1`` and ``out2``."""
    for b in range(size):
        out1[b] = 0.0
    for b in range(size * (size + 1) // 2):
        out2[b] = 0.0
    for c in range(count):
        out1[leave[begin + c]] += first[enter[begin + c]] * flat[row + c]
    at = row + count
    for q in range(count * (count + 1) // 2):
        out2[goal[pairs + q]] += factor[pairs + q] * second[source[pairs + q]] * flat[at + q]


@numba.njit(**ENTRY)
def accumulate_train(starts, others, target, weight, mode, flat, base, plan, second, first):
    """Add up ``w E[L L^T] E[R R^T]`` and ``w y E[L] E[R]`` over the entries of every coordinate of a mode.

    Args:
        starts: where the entries of each coordinate begin, (J + 1,).
        others: coordinates of the entries in the other modes, ascending, (N, K - 1), grouped.
        target: y (N,), grouped.
        weight: w (N,), grouped, or (1,) for all.
        mode: which mode the entries are grouped by.
        flat: tables of all modes, rows ``[means, packed second moments]`` of the components.
        base: where the table of each mode begins, (K,).
        plan: ``(count, begin, pairs, left, right, left_pair, right_pair, to_right, to_left, bonds)``: components of
            each mode (K,); where they begin in the states ``left`` and ``right`` of all components, (K,); where their
            pairs begin in the packed positions ``left_pair`` and ``right_pair`` of the states and in the factors that
            pairs have when products are carried to the right and to the left, (K,); states of the bonds, (K + 1,).
        second: where the second moments go, (J, p_left, p_right).
        first: where the first moments go, (J, r_left, r_right).
    """
    count, begin, pairs, left, right, left_pair, right_pair, to_right, to_left, bonds = plan
    modes = count.size
    widest = bonds.max()
    packed = widest * (widest + 1) // 2
    a1, a2, b1, b2 = np.empty(widest), np.empty(packed), np.empty(widest), np.empty(packed)
    c1, c2, d1, d2 = np.empty(widest), np.empty(packed), np.empty(widest), np.empty(packed)
    r0, r1 = bonds[mode], bonds[mode + 1]
    p0, p1 = r0 * (r0 + 1) // 2, r1 * (r1 + 1) // 2
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
            a1[0] = 1.0
            a2[0] = 1.0
            for k in range(mode):
                row = base[k] + others[n, k] * (count[k] + count[k] * (count[k] + 1) // 2)
                _step(
                    flat, row, count[k], begin[k], pairs[k], left, right, left_pair, right_pair, to_right,
                    bonds[k + 1], a1, a2, b1, b2,
                )  # fmt: skip
                a1, b1 = b1, a1
                a2, b2 = b2, a2
            c1[0] = 1.0
            c2[0] = 1.0
            for k in range(modes - 1, mode, -1):
                row = base[k] + others[n, k - 1] * (count[k] + count[k] * (count[k] + 1) // 2)
                _step(
                    flat, row, count[k], begin[k], pairs[k], right, left, right_pair, left_pair, to_left,
                    bonds[k], c1, c2, d1, d2,
                )  # fmt: skip
                c1, d1 = d1, c1
                c2, d2 = d2, c2
            wy = w * target[n]
            for a in range(r0):
                z = wy * a1[a]
                for b in range(r1):
                    s1[a, b] += z * c1[b]
            for a in range(p0):
                z = w * a2[a]
                for b in range(p1):
                    s2[a, b] += z * c2[b]


@numba.njit(**ENTRY)
def evaluate_train(starts, others, mode, flat, base, plan, mean, square):
    """First and second moments of the whole product at every grouped entry, to ``mean`` (N,) and ``square`` (N,).

    Arguments are those of ``accumulate_train``.
    """
    count, begin, pairs, left, right, left_pair, right_pair, to_right, to_left, bonds = plan
    modes = count.size
    widest = bonds.max()
    packed = widest * (widest + 1) // 2
    a1, a2, b1, b2 = np.empty(widest), np.empty(packed), np.empty(widest), np.empty(packed)
    for j in range(starts.size - 1):
        for n in range(starts[j], starts[j + 1]):
            a1[0] = 1.0
            a2[0] = 1.0
            for k in range(modes):
                where = j if k == mode else others[n, k] if k < mode else others[n, k - 1]
                row = base[k] + where * (count[k] + count[k] * (count[k] + 1) // 2)
                _step(
                    flat, row, count[k], begin[k], pairs[k], left, right, left_pair, right_pair, to_right,
                    bonds[k + 1], a1, a2, b1, b2,
                )  # fmt: skip
                a1, b1 = b1, a1
                a2, b2 = b2, a2
            mean[n] = a1[0]
            square[n] = a2[0]
