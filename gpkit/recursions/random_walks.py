"""Random walks on weighted graphs, and products with the sparse features that they leave."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY

__all__ = ["multiply", "multiply_transposed", "modulation_gradient", "walk"]

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_SCALE = 1.0 / 9007199254740992.0


@numba.njit(**ENTRY)
def _mixed(state: Any) -> Any:
    """Splitmix64's output function."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


@numba.njit(**ENTRY)
def walk(
    pointers: Any,
    neighbours: Any,
    weights: Any,
    first: int,
    last: int,
    walks: int,
    stop: float,
    longest: int,
    lattice: Any,
    by_length: bool,
    modulation: Any,
    seed: Any,
) -> Any:
    """Deposits of walks from nodes ``first`` to ``last - 1``.

    A walk leaves its load where it is, goes on with probability ``1 - stop`` to a neighbour chosen uniformly, and
    multiplies its load by the weight of the edge times the inverse of the probability of this step.

    Args:
        pointers: (n + 1,) row pointers of the walk matrix U.
        neighbours: column numbers.
        weights: values of U.
        first: first start node.
        last: one behind the last start node.
        walks: walks from each node.
        stop: probability to stop at each step.
        longest: steps after which a walk is cut.
        lattice: (2 s,) generators of the points that decide about stopping and turning in the first s steps, shifted
            at random for each start node: every walk by itself is as random as before, together they are spread evenly.
        by_length: keep deposits of different lengths apart; else weigh them by ``modulation`` and add.
        modulation: (longest + 1,) weights f of lengths.
        seed: of the streams; every start node has its own.

    Returns:
        Row pointers, nodes, lengths and loads of the deposits, merged within rows; and how many walks were cut.

    References:
        Choromanski (2023), NeurIPS 36; Reid et al. (2024), ICLR (general features); Reid et al. (2023), NeurIPS 36
        (quasi-Monte-Carlo walks); Cranley & Patterson (1976), SIAM J. Numer. Anal. 13, 904 (shifted lattices).
    """
    rows = last - first
    out_pointers = np.zeros(rows + 1, dtype=np.int64)
    capacity = max(1024, int(rows * walks * 2.0 / stop) // 2)
    nodes = np.empty(capacity, dtype=np.int32)
    lengths = np.empty(capacity if by_length else 0, dtype=np.int16)
    loads = np.empty(capacity)
    keys = np.empty(walks * (longest + 1), dtype=np.int64)
    values = np.empty(walks * (longest + 1))
    used, cut = 0, 0
    span = longest + 1
    dimensions = lattice.size
    shifts = np.empty(dimensions)
    for start in range(first, last):
        state = _mixed(np.uint64(seed) + np.uint64(start) * _INCREMENT) | np.uint64(1)
        for axis in range(dimensions):
            state += _INCREMENT
            shifts[axis] = float(_mixed(state) >> np.uint64(11)) * _SCALE
        count = 0
        for index in range(walks):
            node, load, length = start, 1.0 / walks, 0
            while True:
                keys[count] = node * span + length if by_length else node
                values[count] = load if by_length else load * modulation[length]
                count += 1
                degree = pointers[node + 1] - pointers[node]
                if degree == 0:
                    break
                if length == longest:
                    cut += 1
                    break
                axis = 2 * length
                if axis + 1 < dimensions:
                    chance = (shifts[axis] + index * lattice[axis]) % 1.0
                    choice = (shifts[axis + 1] + index * lattice[axis + 1]) % 1.0
                else:
                    state += _INCREMENT
                    chance = float(_mixed(state) >> np.uint64(11)) * _SCALE
                    state += _INCREMENT
                    choice = float(_mixed(state) >> np.uint64(11)) * _SCALE
                if chance < stop:
                    break
                place = pointers[node] + min(int(choice * degree), degree - 1)
                load *= weights[place] * degree / (1.0 - stop)
                node = neighbours[place]
                length += 1
        order = np.argsort(keys[:count])
        if used + count > loads.size:
            size = max(2 * loads.size, used + count)
            grown_nodes = np.empty(size, dtype=np.int32)
            grown_nodes[:used] = nodes[:used]
            nodes = grown_nodes
            grown_loads = np.empty(size)
            grown_loads[:used] = loads[:used]
            loads = grown_loads
            if by_length:
                grown_lengths = np.empty(size, dtype=np.int16)
                grown_lengths[:used] = lengths[:used]
                lengths = grown_lengths
        before = -1
        for position in range(count):
            p = order[position]
            if keys[p] == before:
                loads[used - 1] += values[p]
            else:
                before = keys[p]
                nodes[used] = before // span if by_length else before
                if by_length:
                    lengths[used] = before % span
                loads[used] = values[p]
                used += 1
        out_pointers[start - first + 1] = used
    return out_pointers, nodes[:used].copy(), lengths[: used if by_length else 0].copy(), loads[:used].copy(), cut


@numba.njit(**ENTRY)
def multiply(pointers: Any, nodes: Any, lengths: Any, loads: Any, modulation: Any, values: Any) -> Any:
    """``Phi values`` for the features of rows; values (n, C)."""
    rows, columns = pointers.size - 1, values.shape[1]
    out = np.zeros((rows, columns))
    for i in range(rows):
        for p in range(pointers[i], pointers[i + 1]):
            factor = loads[p] * modulation[lengths[p] if lengths.size else 0]
            for c in range(columns):
                out[i, c] += factor * values[nodes[p], c]
    return out


@numba.njit(**ENTRY)
def multiply_transposed(
    pointers: Any, nodes: Any, lengths: Any, loads: Any, modulation: Any, values: Any, size: int
) -> Any:
    """``Phi^T values``; values (rows, C), result (size, C)."""
    rows, columns = pointers.size - 1, values.shape[1]
    out = np.zeros((size, columns))
    for i in range(rows):
        for p in range(pointers[i], pointers[i + 1]):
            factor = loads[p] * modulation[lengths[p] if lengths.size else 0]
            for c in range(columns):
                out[nodes[p], c] += factor * values[i, c]
    return out


@numba.njit(**ENTRY)
def modulation_gradient(pointers: Any, nodes: Any, lengths: Any, loads: Any, left: Any, right: Any, span: int) -> Any:
    """Derivative (span,) of ``sum(left * (Phi right))`` with respect to the modulation f."""
    out = np.zeros(span)
    for i in range(pointers.size - 1):
        for p in range(pointers[i], pointers[i + 1]):
            total = 0.0
            for c in range(left.shape[1]):
                total += left[i, c] * right[nodes[p], c]
            out[lengths[p] if lengths.size else 0] += loads[p] * total
    return out
