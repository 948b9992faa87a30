"""Rank of a sparse matrix of small whole numbers by column reduction modulo a prime."""

from __future__ import annotations

import heapq
from typing import Any

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY

__all__ = ["rank_modulo"]

_PRIME = 2_147_483_647


@numba.njit(**ENTRY)
def _power(base: Any, exponent: Any) -> Any:
    result = np.int64(1)
    base = base % _PRIME
    while exponent:
        if exponent & 1:
            result = result * base % _PRIME
        base = base * base % _PRIME
        exponent >>= 1
    return result


@numba.njit(**ENTRY)
def rank_modulo(pointers: Any, rows: Any, values: Any, count: int) -> Any:
    """Rank over the field of 2^31 - 1 elements: that over the rationals, but for torsion of exactly this order.

    Columns are reduced by earlier ones with the same last row, as in persistent homology; boundary matrices of
    complexes stay sparse under this.

    Args:
        pointers: (columns + 1,) column pointers.
        rows: row numbers.
        values: whole numbers.
        count: number of rows.

    References:
        Edelsbrunner & Harer (2010), Computational Topology, chapter VII.
    """
    columns = pointers.size - 1
    owner = np.full(count, -1, dtype=np.int64)
    starts = np.zeros(columns + 1, dtype=np.int64)
    stored_rows = np.empty(max(16, 2 * rows.size), dtype=np.int64)
    stored_values = np.empty(stored_rows.size, dtype=np.int64)
    work = np.zeros(count, dtype=np.int64)
    inside = np.zeros(count, dtype=np.bool_)
    used, rank = 0, 0
    pivot: Any
    for j in range(columns):
        heap = [np.int64(1)]
        heap.clear()
        for p in range(pointers[j], pointers[j + 1]):
            i = rows[p]
            work[i] = (work[i] + values[p]) % _PRIME
            if not inside[i]:
                inside[i] = True
                heapq.heappush(heap, -i)
        pivot = -1
        while len(heap):
            i = -heap[0]
            if work[i] == 0:
                heapq.heappop(heap)
                inside[i] = False
                continue
            other = owner[i]
            if other < 0:
                pivot = i
                break
            factor = work[i]  # reduced columns end in 1
            for p in range(starts[other], starts[other + 1]):
                r = stored_rows[p]
                work[r] = (work[r] - factor * stored_values[p]) % _PRIME
                if not inside[r]:
                    inside[r] = True
                    heapq.heappush(heap, -r)
        if pivot >= 0:
            inverse = _power(work[pivot], _PRIME - 2)
            need = used + len(heap)
            if need > stored_rows.size:
                larger_rows = np.empty(2 * need, dtype=np.int64)
                larger_values = np.empty(2 * need, dtype=np.int64)
                larger_rows[:used] = stored_rows[:used]
                larger_values[:used] = stored_values[:used]
                stored_rows, stored_values = larger_rows, larger_values
            starts[rank] = used
            for negative in heap:
                i = -negative
                if work[i] != 0:
                    stored_rows[used] = i
                    stored_values[used] = work[i] * inverse % _PRIME
                    used += 1
                work[i] = 0
                inside[i] = False
            owner[pivot] = rank
            rank += 1
            starts[rank] = used
    return rank
