"""Linear algebra with a semiseparable matrix ``K + diag(r)`` given by its generators, one series at a time.

The generators are transitions ``A`` (N, nb, b, b; the last is not used), the vector ``p`` (J,) and the diagonal ``r``
(N,); ``h`` is the first unit vector of every block, so that ``K_ij = h^T A_{i-1} ... A_j p`` for ``i >= j``. The
factorisation ``K + diag(r) = L D L^T`` is kept as ``gains = w / D`` (N, J) and ``D`` (N,). Every routine is O(N J b)
per right-hand side; right-hand sides are (N, C).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from gpkit.recursions import dispatch
from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.elementary import PIVOT_FLOOR
from gpkit.recursions.simd import load, store

__all__ = [
    "bilinear",
    "factor",
    "lower_multiply",
    "lower_solve",
    "multiply",
    "pull_back",
    "transition_blocks",
    "upper_multiply",
    "upper_solve",
]

_CHUNK = 256


@numba.njit(**ENTRY)
def transition_blocks(order, params, t, nb, b):
    """Transitions (N, nb, b, b) between consecutive times and ``p`` (nb * b,) of a closed-form structure."""
    n = t.shape[0]
    slots, _, _, _, size_prior = dispatch.sizes(order)
    ws = np.zeros((_CHUNK + dispatch.SPARE_ROWS) * slots)
    prior = np.zeros(size_prior)
    dispatch.set_prior(order, params, prior, 0, 1)
    p = prior[: nb * b].copy()
    out = np.zeros((n, nb, b, b))
    flat = out.reshape(-1)
    size = nb * b * b
    first = dispatch.transition_slot(order)
    for start in range(0, n, _CHUNK):
        steps = min(_CHUNK, n - start)
        for k in range(steps):
            at = start + k
            store(ws, k * slots, load(t, at + 1, 0.0) - load(t, at, 0.0) if at + 1 < n else 0.0)
        dispatch.fill(order, ws, steps, params, 0.0)
        for k in range(steps):
            row = k * slots + first
            base = (start + k) * size
            dispatch.unpack_transition(order, ws, row, flat, base, size)
    return out, p


@numba.njit(**ENTRY)
def pull_back(order, params, t, nb, b, blocks, blocks_bar, p_bar):
    """Derivatives with respect to parameters and times from those with respect to the generators."""
    n = t.shape[0]
    slots, _, _, _, size_prior = dispatch.sizes(order)
    ws = np.zeros((_CHUNK + dispatch.SPARE_ROWS) * slots)
    grad = np.zeros(params.shape[0])
    tbar = np.zeros(n)
    flat = blocks.reshape(-1)
    flat_bar = blocks_bar.reshape(-1)
    size = nb * b * b
    first = dispatch.transition_slot(order)
    for start in range(0, n, _CHUNK):
        steps = min(_CHUNK, n - start)
        for k in range(steps):
            at = start + k
            store(ws, k * slots, load(t, at + 1, 0.0) - load(t, at, 0.0) if at + 1 < n else 0.0)
            dispatch.pack_transition(order, ws, k * slots, first, flat, flat_bar, at * size, size, at + 1 < n)
        dispatch.contract(order, ws, steps, params, grad, 0.0)
        for k in range(steps):
            at = start + k
            if at + 1 < n:
                tdot = load(ws, k * slots + 3, 0.0)
                tbar[at] -= tdot
                tbar[at + 1] += tdot
    grad_p = np.zeros(size_prior)
    for k in range(nb * b):
        grad_p[k] = p_bar[k]
    dispatch.contract_prior(order, params, grad_p, grad, 0, 1)
    return grad, tbar


@uncounted
def _apply(block, vector, out):
    """``out = A vector``; block (nb, b, b), vectors (J, C)."""
    nb, b, _ = block.shape
    for i in range(nb):
        for r in range(b):
            for c in range(vector.shape[1]):
                total = 0.0
                for q in range(b):
                    total += block[i, r, q] * vector[i * b + q, c]
                out[i * b + r, c] = total


@uncounted
def _apply_transpose(block, vector, out):
    """``out = A^T vector``."""
    nb, b, _ = block.shape
    for i in range(nb):
        for r in range(b):
            for c in range(vector.shape[1]):
                total = 0.0
                for q in range(b):
                    total += block[i, q, r] * vector[i * b + q, c]
                out[i * b + r, c] = total


@numba.njit(**ENTRY)
def factor(blocks, p, r, floor):
    """``(gains, D, bad)``: gains w/D (N, J), innovation variances D, first row where D is not positive (or -1).

    With ``floor`` a pivot below a few units in the last place of the variance counts as zero and is skipped, which
    gives the factor of a positive semidefinite matrix (its D and gains are zero there).
    """
    n = r.shape[0]
    nb, b = blocks.shape[1], blocks.shape[2]
    j = nb * b
    gains = np.zeros((n, j))
    d = np.zeros(n)
    delta = np.zeros((j, j))
    moved = np.zeros((j, j))
    w = np.empty(j)
    prior = 0.0
    for i in range(nb):
        prior += p[i * b]
    for k in range(n):
        total = r[k]
        for i in range(j):
            value = p[i]
            for s in range(nb):
                value -= delta[i, s * b]
            w[i] = value
        for s in range(nb):
            total += w[s * b]
        negligible = total <= PIVOT_FLOOR * (prior + r[k]) and not math.isinf(r[k])
        if not (floor and negligible):
            if negligible or not total > 0.0:
                return gains, d, k
            d[k] = total
            if not math.isinf(total):
                for i in range(j):
                    gains[k, i] = w[i] / total
                for i in range(j):
                    for q in range(j):
                        delta[i, q] += w[i] * gains[k, q]
        if k + 1 < n:
            for i in range(nb):
                for row in range(b):
                    for col in range(j):
                        value = 0.0
                        for q in range(b):
                            value += blocks[k, i, row, q] * delta[i * b + q, col]
                        moved[i * b + row, col] = value
            for i in range(nb):
                for row in range(j):
                    for col in range(b):
                        value = 0.0
                        for q in range(b):
                            value += moved[row, i * b + q] * blocks[k, i, col, q]
                        delta[row, i * b + col] = value
    return gains, d, -1


@numba.njit(**ENTRY)
def lower_solve(blocks, gains, rhs):
    """Innovations ``v = L^-1 rhs`` for unit lower triangular L."""
    n, columns = rhs.shape
    b = blocks.shape[2]
    j = gains.shape[1]
    out = np.empty((n, columns))
    m = np.zeros((j, columns))
    moved = np.zeros((j, columns))
    for k in range(n):
        for c in range(columns):
            v = rhs[k, c]
            for i in range(0, j, b):
                v -= m[i, c]
            out[k, c] = v
            for i in range(j):
                moved[i, c] = m[i, c] + gains[k, i] * v
        _apply(blocks[k], moved, m)
    return out


@numba.njit(**ENTRY)
def upper_solve(blocks, gains, rhs):
    """``L^-T rhs`` for unit lower triangular L."""
    n, columns = rhs.shape
    b = blocks.shape[2]
    j = gains.shape[1]
    out = np.empty((n, columns))
    lam = np.zeros((j, columns))
    moved = np.zeros((j, columns))
    for back in range(n):
        k = n - 1 - back
        _apply_transpose(blocks[k], lam, moved)
        for c in range(columns):
            value = rhs[k, c]
            for i in range(j):
                value -= gains[k, i] * moved[i, c]
            out[k, c] = value
            for i in range(j):
                lam[i, c] = moved[i, c]
            for i in range(0, j, b):
                lam[i, c] += value
    return out


@numba.njit(**ENTRY)
def lower_multiply(blocks, gains, rhs):
    """``L rhs`` for unit lower triangular L."""
    n, columns = rhs.shape
    b = blocks.shape[2]
    j = gains.shape[1]
    out = np.empty((n, columns))
    m = np.zeros((j, columns))
    moved = np.zeros((j, columns))
    for k in range(n):
        for c in range(columns):
            v = rhs[k, c]
            value = v
            for i in range(0, j, b):
                value += m[i, c]
            out[k, c] = value
            for i in range(j):
                moved[i, c] = m[i, c] + gains[k, i] * v
        _apply(blocks[k], moved, m)
    return out


@numba.njit(**ENTRY)
def upper_multiply(blocks, gains, rhs):
    """``L^T rhs`` for unit lower triangular L."""
    n, columns = rhs.shape
    b = blocks.shape[2]
    j = gains.shape[1]
    out = np.empty((n, columns))
    s = np.zeros((j, columns))
    moved = np.zeros((j, columns))
    for back in range(n):
        k = n - 1 - back
        _apply_transpose(blocks[k], s, moved)
        for c in range(columns):
            value = rhs[k, c]
            for i in range(j):
                value += gains[k, i] * moved[i, c]
            out[k, c] = value
            for i in range(j):
                s[i, c] = moved[i, c]
            for i in range(0, j, b):
                s[i, c] += rhs[k, c]
    return out


@numba.njit(**ENTRY)
def multiply(blocks, p, r, rhs):
    """``(K + diag(r)) rhs``."""
    n, columns = rhs.shape
    b = blocks.shape[2]
    j = p.shape[0]
    out = np.empty((n, columns))
    q = np.zeros((j, columns))
    moved = np.zeros((j, columns))
    variance = 0.0
    for i in range(0, j, b):
        variance += p[i]
    for k in range(n):
        for c in range(columns):
            value = (variance + r[k]) * rhs[k, c]
            for i in range(0, j, b):
                value += q[i, c]
            out[k, c] = value
            for i in range(j):
                moved[i, c] = q[i, c] + p[i] * rhs[k, c]
        _apply(blocks[k], moved, q)
    back_state = np.zeros((j, columns))
    for back in range(n):
        k = n - 1 - back
        _apply_transpose(blocks[k], back_state, moved)
        for c in range(columns):
            value = 0.0
            for i in range(j):
                value += p[i] * moved[i, c]
                back_state[i, c] = moved[i, c]
            out[k, c] += value
            for i in range(0, j, b):
                back_state[i, c] += rhs[k, c]
    return out


@numba.njit(**ENTRY)
def bilinear(blocks, p, left, right):
    """Derivatives of ``sum_c left_c^T K right_c`` with respect to the transitions and p."""
    n, columns = right.shape
    nb, b = blocks.shape[1], blocks.shape[2]
    j = nb * b
    blocks_bar = np.zeros(blocks.shape)
    p_bar = np.zeros(j)
    # States before each transition, for both orderings of the (symmetric) pair.
    ahead = np.zeros((n, j, columns))
    behind = np.zeros((n, j, columns))
    moved = np.zeros((j, columns))
    q = np.zeros((j, columns))
    z = np.zeros((j, columns))
    for k in range(n):
        for i in range(j):
            for c in range(columns):
                ahead[k, i, c] = q[i, c] + p[i] * right[k, c]
                behind[k, i, c] = z[i, c] + p[i] * left[k, c]
        _apply(blocks[k], ahead[k], q)
        _apply(blocks[k], behind[k], z)
    x = np.zeros((j, columns))
    y = np.zeros((j, columns))
    for back in range(n):
        k = n - 1 - back
        if k + 1 < n:
            for i in range(nb):
                for row in range(b):
                    for col in range(b):
                        total = 0.0
                        for c in range(columns):
                            total += x[i * b + row, c] * ahead[k, i * b + col, c]
                            total += y[i * b + row, c] * behind[k, i * b + col, c]
                        blocks_bar[k, i, row, col] = total
            _apply_transpose(blocks[k], x, moved)
            for i in range(j):
                for c in range(columns):
                    x[i, c] = moved[i, c]
            _apply_transpose(blocks[k], y, moved)
            for i in range(j):
                for c in range(columns):
                    y[i, c] = moved[i, c]
        for c in range(columns):
            for i in range(j):
                p_bar[i] += x[i, c] * right[k, c] + y[i, c] * left[k, c]
            for i in range(0, j, b):
                p_bar[i] += left[k, c] * right[k, c]
                x[i, c] += left[k, c]
                y[i, c] += right[k, c]
    return blocks_bar, p_bar
