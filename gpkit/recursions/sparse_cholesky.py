"""Cholesky factors of sparse symmetric matrices by dense blocks: factor, solve, inverse on the factor's pattern.

Columns of the factor with the same rows below them form a *supernode*; its rows are stored once and its values as one
dense block (rows x width), so that nearly all of the work is products of dense matrices. Unknowns are taken to be in
the order of elimination.

References:
    Ng & Peyton (1993), SIAM J. Sci. Comput. 14, 1034 (supernodal factors); Takahashi, Fagan & Chin (1973), PICA;
    Erisman & Tinney (1975), Comm. ACM 18, 177 (inverse on the pattern).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY

__all__ = ["backward", "block_entries", "block_inverse", "factor_blocks", "forward", "postorder", "symbolic_blocks"]

_WIDEST = 96


@numba.njit(**ENTRY)
def postorder(pointers: Any, rows: Any) -> Any:
    """Order of the columns of a symmetric pattern in which every column comes right after its subtree.

    References:
        Liu (1990), SIAM J. Matrix Anal. Appl. 11, 134 (elimination trees).
    """
    n = pointers.size - 1
    parent = np.full(n, -1, dtype=np.int64)
    ancestor = np.full(n, -1, dtype=np.int64)
    for j in range(n):
        for p in range(pointers[j], pointers[j + 1]):
            i = rows[p]
            while i >= 0 and i < j:
                following = ancestor[i]
                ancestor[i] = j
                if following < 0:
                    parent[i] = j
                i = following
    child = np.full(n, -1, dtype=np.int64)
    sibling = np.full(n, -1, dtype=np.int64)
    for j in range(n - 1, -1, -1):
        if parent[j] >= 0:
            sibling[j] = child[parent[j]]
            child[parent[j]] = j
    out = np.empty(n, dtype=np.int64)
    stack = np.empty(n, dtype=np.int64)
    done = 0
    for root in range(n):
        if parent[root] >= 0:
            continue
        stack[0] = root
        depth = 1
        while depth:
            j = stack[depth - 1]
            c = child[j]
            if c >= 0:
                child[j] = sibling[c]
                stack[depth] = c
                depth += 1
            else:
                out[done] = j
                done += 1
                depth -= 1
    return out


@numba.njit(**ENTRY)
def symbolic_blocks(pointers: Any, rows: Any) -> Any:
    """Supernodes of the Cholesky factor of a symmetric pattern, columns in elimination order.

    Args:
        pointers: (N + 1,) column pointers of the symmetric pattern.
        rows: (nnz,) row numbers.

    Returns:
        First column of each supernode, with N at the end (S + 1,); pointers (S + 1,) into the row numbers that follow,
        which are increasing in each supernode and begin with its own columns.
    """
    n = pointers.size - 1
    first = np.empty(n + 1, dtype=np.int64)
    starts = np.empty(n + 1, dtype=np.int64)
    stored = np.empty(max(16, 2 * rows.size), dtype=np.int64)
    used, count = 0, 0
    owner = np.empty(n, dtype=np.int64)
    child = np.full(n, -1, dtype=np.int64)
    sibling = np.full(n, -1, dtype=np.int64)
    mark = np.full(n, -1, dtype=np.int64)
    found = np.empty(n, dtype=np.int64)
    length_before, parent_before = 0, -1
    for j in range(n):
        size = 0
        mark[j] = j
        for p in range(pointers[j], pointers[j + 1]):
            i = rows[p]
            if i > j and mark[i] != j:
                mark[i] = j
                found[size] = i
                size += 1
        c = child[j]
        while c >= 0:
            s = owner[c]
            stop = starts[s + 1] if s + 1 < count else used
            for p in range(starts[s] + (c - first[s]) + 1, stop):
                i = stored[p]
                if i > j and mark[i] != j:
                    mark[i] = j
                    found[size] = i
                    size += 1
            c = sibling[c]
        below = np.sort(found[:size])
        parent = below[0] if size else -1
        if parent >= 0:
            sibling[j] = child[parent]
            child[parent] = j
        joins = j > 0 and parent_before == j and size == length_before - 1 and j - first[count - 1] < _WIDEST
        if not joins:
            if used + size + 1 > stored.size:
                larger = np.empty(max(2 * stored.size, used + size + 1), dtype=np.int64)
                larger[:used] = stored[:used]
                stored = larger
            first[count], starts[count] = j, used
            stored[used] = j
            stored[used + 1 : used + 1 + size] = below
            used += size + 1
            count += 1
        owner[j] = count - 1
        length_before, parent_before = size, parent
    first[count], starts[count] = n, used
    return first[: count + 1].copy(), starts[: count + 1].copy(), stored[:used].copy()


@numba.njit(**ENTRY)
def _owners(first: Any) -> Any:
    """Supernode of each column."""
    owner = np.empty(first[-1], dtype=np.int64)
    for s in range(first.size - 1):
        owner[first[s] : first[s + 1]] = s
    return owner


@numba.njit(**ENTRY)
def _factor_corner(block: Any, width: Any) -> Any:
    """Cholesky factor of the first rows of a block in place; the column that fails, or -1."""
    for j in range(width):
        pivot = block[j, j]
        for k in range(j):
            pivot -= block[j, k] * block[j, k]
        if not pivot > 0.0:
            return j
        root = np.sqrt(pivot)
        block[j, j] = root
        for i in range(j + 1, width):
            value = block[i, j]
            for k in range(j):
                value -= block[i, k] * block[j, k]
            block[i, j] = value / root
            block[j, i] = 0.0
    return -1


@numba.njit(**ENTRY)
def _inverse_corner(block: Any, width: Any) -> Any:
    """Inverse of the lower triangle in the first rows of a block."""
    out = np.zeros((width, width))
    for j in range(width):
        out[j, j] = 1.0 / block[j, j]
        for i in range(j + 1, width):
            value = 0.0
            for k in range(j, i):
                value -= block[i, k] * out[k, j]
            out[i, j] = value / block[i, i]
    return out


@numba.njit(**ENTRY)
def factor_blocks(first: Any, starts: Any, stored: Any, pointers: Any, rows: Any, values: Any) -> Any:
    """Cholesky factor ``A = L L^T`` in dense blocks, one after the other and row by row.

    Args:
        first: first column of each supernode, see :func:`symbolic_blocks`.
        starts: pointers into ``stored``.
        stored: row numbers of the supernodes.
        pointers: column pointers of A.
        rows: its row numbers.
        values: its values; the upper triangle is not read.

    Returns:
        Offsets (S + 1,) of the blocks, the blocks, and the column whose pivot is not positive, or -1.
    """
    count = first.size - 1
    owner = _owners(first)
    offsets = np.zeros(count + 1, dtype=np.int64)
    for s in range(count):
        offsets[s + 1] = offsets[s] + (starts[s + 1] - starts[s]) * (first[s + 1] - first[s])
    blocks = np.zeros(offsets[count])
    place = np.zeros(first[count], dtype=np.int64)
    for s in range(count):
        width = first[s + 1] - first[s]
        for p in range(starts[s], starts[s + 1]):
            place[stored[p]] = p - starts[s]
        for j in range(first[s], first[s + 1]):
            for p in range(pointers[j], pointers[j + 1]):
                if rows[p] >= j:
                    blocks[offsets[s] + place[rows[p]] * width + j - first[s]] = values[p]
    for s in range(count):
        width = first[s + 1] - first[s]
        size = starts[s + 1] - starts[s]
        below = stored[starts[s] + width : starts[s + 1]]
        block = blocks[offsets[s] : offsets[s + 1]].reshape(size, width)
        failed = _factor_corner(block, width)
        if failed >= 0:
            return offsets, blocks, first[s] + failed
        m = below.size
        if not m:
            continue
        scaled = np.dot(np.ascontiguousarray(block[width:]), _inverse_corner(block, width).T)
        block[width:] = scaled
        at = np.empty(m, dtype=np.int64)
        stop = 0
        while stop < m:
            begin = stop  # some columns of the update at a time, and only the rows below their first
            while stop < m and stop - begin < _WIDEST:
                last = first[owner[below[stop]] + 1]
                while stop < m and below[stop] < last:
                    stop += 1
            update = np.dot(scaled[begin:], scaled[begin:stop].T)
            c = begin
            while c < stop:
                k = owner[below[c]]
                other = first[k + 1] - first[k]
                q = starts[k]
                for r in range(c, m):
                    while stored[q] != below[r]:
                        q += 1
                    at[r] = q - starts[k]
                e = c
                while e < m and below[e] < first[k + 1]:
                    e += 1
                for r in range(c, m):
                    base = offsets[k] + at[r] * other - first[k]
                    for column in range(c, min(e, r + 1)):
                        blocks[base + below[column]] -= update[r - begin, column - begin]
                c = e
    return offsets, blocks, -1


@numba.njit(**ENTRY)
def forward(first: Any, starts: Any, stored: Any, offsets: Any, blocks: Any, rhs: Any) -> Any:
    """``L^-1 rhs`` in place; rhs (N, C)."""
    for s in range(first.size - 1):
        begin, end = first[s], first[s + 1]
        width = end - begin
        block = blocks[offsets[s] : offsets[s + 1]].reshape(starts[s + 1] - starts[s], width)
        for a in range(width):
            for b in range(a):
                factor = block[a, b]
                for c in range(rhs.shape[1]):
                    rhs[begin + a, c] -= factor * rhs[begin + b, c]
            for c in range(rhs.shape[1]):
                rhs[begin + a, c] /= block[a, a]
        below = stored[starts[s] + width : starts[s + 1]]
        if below.size:
            change = np.dot(block[width:], rhs[begin:end])
            for r in range(below.size):
                for c in range(rhs.shape[1]):
                    rhs[below[r], c] -= change[r, c]


@numba.njit(**ENTRY)
def backward(first: Any, starts: Any, stored: Any, offsets: Any, blocks: Any, rhs: Any) -> Any:
    """``L^-T rhs`` in place; rhs (N, C)."""
    for s in range(first.size - 2, -1, -1):
        begin, end = first[s], first[s + 1]
        width = end - begin
        block = blocks[offsets[s] : offsets[s + 1]].reshape(starts[s + 1] - starts[s], width)
        below = stored[starts[s] + width : starts[s + 1]]
        if below.size:
            known = np.empty((below.size, rhs.shape[1]))
            for r in range(below.size):
                for c in range(rhs.shape[1]):
                    known[r, c] = rhs[below[r], c]
            rhs[begin:end] -= np.dot(block[width:].T, known)
        for a in range(width - 1, -1, -1):
            for b in range(a + 1, width):
                factor = block[b, a]
                for c in range(rhs.shape[1]):
                    rhs[begin + a, c] -= factor * rhs[begin + b, c]
            for c in range(rhs.shape[1]):
                rhs[begin + a, c] /= block[a, a]


@numba.njit(**ENTRY)
def block_inverse(first: Any, starts: Any, stored: Any, offsets: Any, blocks: Any) -> Any:
    """Takahashi's recurrence by blocks: entries of ``(L L^T)^-1`` where L may have entries.

    Returns:
        The inverse in blocks like those of L; diagonal blocks are symmetric.
    """
    owner = _owners(first)
    inverse = np.zeros(blocks.size)
    for s in range(first.size - 2, -1, -1):
        width = first[s + 1] - first[s]
        size = starts[s + 1] - starts[s]
        below = stored[starts[s] + width : starts[s + 1]]
        block = blocks[offsets[s] : offsets[s + 1]].reshape(size, width)
        corner = _inverse_corner(block, width)
        result = inverse[offsets[s] : offsets[s + 1]].reshape(size, width)
        top = np.dot(corner.T, corner)
        m = below.size
        if m:
            known = np.empty((m, m))
            at = np.empty(m, dtype=np.int64)
            c = 0
            while c < m:
                k = owner[below[c]]
                other = first[k + 1] - first[k]
                q = starts[k]
                for r in range(c, m):
                    while stored[q] != below[r]:
                        q += 1
                    at[r] = q - starts[k]
                e = c
                while e < m and below[e] < first[k + 1]:
                    e += 1
                for r in range(c, m):
                    base = offsets[k] + at[r] * other - first[k]
                    for column in range(c, min(e, r + 1)):
                        value = inverse[base + below[column]]
                        known[r, column] = value
                        known[column, r] = value
                c = e
            lower = np.dot(np.ascontiguousarray(block[width:]), corner)
            part = -np.dot(known, lower)
            result[width:] = part
            top -= np.dot(lower.T, part)
        for a in range(width):
            for b in range(width):
                result[a, b] = 0.5 * (top[a, b] + top[b, a])
    return inverse


@numba.njit(**ENTRY)
def block_entries(
    first: Any, starts: Any, stored: Any, offsets: Any, blocks: Any, wanted_rows: Any, wanted_columns: Any
) -> Any:
    """Values at given places of a symmetric matrix stored in blocks; nan where nothing is stored."""
    owner = _owners(first)
    out = np.empty(wanted_rows.size)
    for w in range(wanted_rows.size):
        i, j = max(wanted_rows[w], wanted_columns[w]), min(wanted_rows[w], wanted_columns[w])
        s = owner[j]
        low, high = starts[s], starts[s + 1]
        while low < high:
            middle = (low + high) // 2
            if stored[middle] < i:
                low = middle + 1
            else:
                high = middle
        width = first[s + 1] - first[s]
        inside = low < starts[s + 1] and stored[low] == i
        out[w] = blocks[offsets[s] + (low - starts[s]) * width + j - first[s]] if inside else np.nan
    return out
