"""How the drivers of :mod:`gpkit.recursions.evidence` cut series into segments, and move them into and out of lanes."""

from __future__ import annotations

import math

import numpy as np

from gpkit.recursions import dispatch
from gpkit.recursions.compilation import uncounted
from gpkit.recursions.simd import load, row_view, store

SINGLE_SEGMENT = 256
"""Rows of a lane that are kept at once when one segment holds the whole series; longer series have several."""
_SEGMENT = 128


@uncounted
def load_lane(ws, steps, slots, w, lane, t, y, r, start, n):
    """Copy ``steps`` points from ``start`` into one lane; rows past ``n`` carry no information."""
    row = lane
    for k in range(start, start + steps):
        if k < n:
            store(ws, row, load(t, k + 1, 0.0) - load(t, k, 0.0) if k + 1 < n else 0.0)
            store(ws, row + w, load(y, k, 0.0))
            store(ws, row + 2 * w, load(r, k, 0.0))
        else:
            store(ws, row, 0.0)
            store(ws, row + w, 0.0)
            store(ws, row + 2 * w, np.inf)
        row += slots * w


@uncounted
def store_lane(ws, steps, slots, w, lane, alpha, kappa, tbar, start, n):
    """Copy alpha, kappa and the derivative with respect to t of one lane to the outputs."""
    row = lane
    for k in range(start, min(start + steps, n)):
        store(alpha, k, load(ws, row + w, 0.0))
        store(kappa, k, load(ws, row + 2 * w, 0.0))
        if k + 1 < n:
            tdot = load(ws, row + 3 * w, 0.0)
            store(tbar, k, load(tbar, k, 0.0) - tdot)
            store(tbar, k + 1, load(tbar, k + 1, 0.0) + tdot)
        row += slots * w


@uncounted
def copy(source, target, size):
    """Copy ``size`` words."""
    for k in range(size):
        store(target, k, load(source, k, 0.0))


@uncounted
def fill_with(array, first, last, value):
    """Set words ``first`` to ``last``, exclusive."""
    for k in range(first, last):
        store(array, k, value)


@uncounted
def reset(acc, w):
    """Quadratic form and exponents 0, mantissas 1, lowest variances infinite."""
    fill_with(acc, 0, 2 * w, 0.0)
    fill_with(acc, 2 * w, 3 * w, 1.0)
    fill_with(acc, 3 * w, 4 * w, np.inf)


@uncounted
def fold_logdet(acc, lane, w):
    """Natural logarithm of one lane's determinant; empties the mantissa."""
    value = load(acc, w + lane, 0.0) * math.log(2.0) + math.log(load(acc, 2 * w + lane, 0.0))
    store(acc, w + lane, 0.0)
    store(acc, 2 * w + lane, 1.0)
    return value


@uncounted
def segmentation(n, w, longest):
    """``(steps, segments)``: rows of a lane per segment when w lanes share n points; ``longest`` for a single one."""
    steps = max((n + w - 1) // w, 1)
    if steps > longest:
        steps = _SEGMENT
    return steps, (n + w * steps - 1) // (w * steps)


@uncounted
def scratch_words(order, n, w, longest, n_params):
    """Room that a driver needs for series of up to n points."""
    slots, size_state, size_element, size_adjoint, size_prior = dispatch.sizes(order)
    steps = min(max((n + w - 1) // w, 1), longest)
    segments = max(n // (w * _SEGMENT) + 1, 1)
    once = 2 * n_params + 2 * size_prior + 2 * size_state + 3 * size_adjoint + 8
    return w * (once + segments * (size_element + size_state) + (steps + dispatch.SPARE_ROWS) * slots)


@uncounted
def load_blocks(order, ws, steps, slots, w, t, y, r, series, start, n):
    """Consecutive runs of ``steps`` points in the lanes, from ``start``."""
    for lane in range(w):
        load_lane(ws, steps, slots, w, lane, t, y, r, start + lane * steps, n)
        dispatch.load_rows(order, ws, steps, w, lane, series, start + lane * steps, n)


@uncounted
def load_series(order, ws, steps, slots, w, t, y, r, lengths, series, start):
    """The same ``steps`` points of one series per lane."""
    for lane in range(w):
        b = series[lane]
        n = lengths[b]
        load_lane(ws, steps, slots, w, lane, row_view(t, b), row_view(y, b), row_view(r, b), start, n)
        dispatch.load_rows(order, ws, steps, w, lane, b, start, n)


@uncounted
def longest_series(lengths):
    """Largest of the lengths."""
    longest = 0
    for k in range(lengths.shape[0]):
        longest = max(longest, load(lengths, k, 0))
    return longest
