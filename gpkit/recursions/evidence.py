"""Gaussian evidence of a semiseparable covariance and its complete adjoint, in one compiled call.

Two drivers share the step functions. :func:`blocks_evidence` cuts one series into as many blocks as there are SIMD
lanes; the blocks are joined exactly by composing their associative elements, after which the ordinary recursion
runs in all of them at once. The state that leaves each block is compared with the one that was predicted for the
next, so that a loss of accuracy in the composition is noticed and the series is recomputed sequentially.
:func:`lanes_evidence` runs one series per lane (or one series in scalar registers).

Long series are processed in segments; the backward sweep recomputes a segment from its entering state instead of
storing every intermediate, so that memory beyond the outputs does not grow with N.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from gpkit.recursions import dispatch
from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.elementary import PIVOT_FLOOR
from gpkit.recursions.segments import (
    SINGLE_SEGMENT,
    copy,
    fill_with,
    fold_logdet,
    load_blocks,
    load_series,
    longest_series,
    reset,
    scratch_words,
    segmentation,
    store_lane,
)
from gpkit.recursions.simd import LANES, aligned_start, load, row_view, store, view, width_of, zero_lanes

__all__ = ["BLOCKS_MINIMUM", "groups_evidence", "sequential_evidence", "singles_evidence"]

BLOCKS_MINIMUM = 48
"""Below this many points one series is not worth cutting into blocks."""
_TOLERANCE = 1e-9
_ROUNDING = 4.0 * 2.220446049250313e-16
_SHARP_2, _SHARP = 1e-5, 1e-4
"""Share of a component's variance that data may leave, for two and for more dimensions, before blocks are given up.

At high signal to noise the derivatives are small differences of large numbers, in which the rounding of a composition,
unlike that of the sequential recursion, does not cancel: below these shares their errors would exceed about 1e-7.
"""


@uncounted
def _states_differ(order, prior, found, expected, w, lane_found, lane_expected, size, variance):
    """Whether two states differ by more than rounding.

    Each component is compared on its own scale, what is left of its variance (P = P_inf - Delta) after the data: at
    high signal to noise that is far smaller than the variance, and derivatives depend on it.
    """
    dimension = dispatch.dimension(order)
    for k in range(dimension, size):
        a = load(found, k * w + lane_found, 0.0)
        if not abs(a - load(expected, k * w + lane_expected, 0.0)) <= _TOLERANCE * variance:
            return True
    for c in range(dimension):
        word, prior_word = dispatch.diagonal(order, c)
        total = load(prior, prior_word * w + lane_found, 0.0)
        delta = load(found, word * w + lane_found, 0.0)
        left = abs(total - delta)
        if dimension > 1 and left < (_SHARP_2 if dimension == 2 else _SHARP) * abs(total):
            return True
        allowed = _TOLERANCE * left + _ROUNDING * abs(total)
        if not abs(delta - load(expected, word * w + lane_expected, 0.0)) <= allowed:
            return True
        mean = load(found, c * w + lane_found, 0.0)
        allowed = _TOLERANCE * (abs(mean) + math.sqrt(left)) + _ROUNDING * math.sqrt(abs(total))
        if not abs(mean - load(expected, c * w + lane_expected, 0.0)) <= allowed:
            return True
    return False


@uncounted
def _adjoints_differ(order, found, expected, w, lane, size):
    """Whether the adjoint that left a lane is not the one composed for the lane before, each entry by itself."""
    dimension = dispatch.dimension(order)
    largest = 0.0
    for c in range(dimension):
        word, _ = dispatch.diagonal(order, c)
        information = load(found, word * w + lane, 0.0)
        largest = max(largest, abs(information))
        if not abs(information - load(expected, word * w + lane - 1, 0.0)) <= _TOLERANCE * abs(information):
            return True
        slope = load(found, c * w + lane, 0.0)
        allowed = _TOLERANCE * (abs(slope) + math.sqrt(abs(information)))
        if not abs(slope - load(expected, c * w + lane - 1, 0.0)) <= allowed:
            return True
    for k in range(dimension, size):
        a = load(found, k * w + lane, 0.0)
        if not abs(a - load(expected, k * w + lane - 1, 0.0)) <= _TOLERANCE * (largest + abs(a)):
            return True
    return False


@uncounted
def _filter_segment(order, ws, steps, prior, entering, leaving, state, acc, variance, like):
    """Filter all lanes of a segment from the composed states ``entering``.

    Returns the sum of the lanes' log-determinants; ``nan`` where the state that leaves a lane is not the one that was
    composed for the next lane or, for the last, for the next segment (lane 0 of ``leaving``).
    """
    w = width_of(like)
    size_state = dispatch.sizes(order)[1]
    copy(entering, state, size_state * w)
    dispatch.forward(order, ws, steps, prior, state, acc, like)
    logdet = 0.0
    for lane in range(w):
        logdet += fold_logdet(acc, lane, w)
        target = entering if lane + 1 < w else leaving
        if _states_differ(order, prior, state, target, w, lane, (lane + 1) % w, size_state, variance):
            return np.nan
    return logdet


@uncounted
def blocks_evidence(order, task, series, params, t, y, r, n, weights, gradient, grad, alpha, kappa, tbar, scratch):
    """One series, its time blocks in SIMD lanes; returns ``(inv_quad, logdet)``.

    ``weights`` are the cotangents of ``-inv_quad/2`` and ``-logdet/2``; ``grad`` and ``tbar`` must be zero on entry.
    The result is ``nan`` when the composition was not accurate enough (nothing in the outputs is then valid).
    """
    like = zero_lanes()
    w = width_of(like)
    slots, size_state, size_element, size_adjoint, size_prior = dispatch.sizes(order)
    steps, segments = segmentation(n, w, SINGLE_SEGMENT)
    span = w * steps
    n_params = params.shape[0]
    par = scratch
    at = n_params * w
    lane_grad = view(scratch, at)
    at += n_params * w
    prior = view(scratch, at)
    at += size_prior * w
    grad_p = view(scratch, at)
    at += size_prior * w
    state = view(scratch, at)
    at += size_state * w
    carry = view(scratch, at)
    at += size_state * w
    adjoint = view(scratch, at)
    at += size_adjoint * w
    expected = view(scratch, at)
    at += size_adjoint * w
    later = view(scratch, at)
    at += size_adjoint * w
    acc = view(scratch, at)
    at += 4 * w
    lane_weights = view(scratch, at)
    at += 2 * w
    elements = view(scratch, at)
    at += segments * size_element * w
    entrances = view(scratch, at)
    at += segments * size_state * w
    ws = view(scratch, at)
    for lane in range(w):
        for k in range(n_params):
            store(par, k * w + lane, load(params, k, 0.0))
        dispatch.set_prior(order, par, prior, lane, w)
        store(lane_weights, lane, load(weights, 0, 0.0))
        store(lane_weights, w + lane, load(weights, 1, 0.0))
    fill_with(carry, 0, size_state * w, 0.0)
    reset(acc, w)
    logdet = 0.0
    variance = load(prior, 0, 0.0)
    for segment in range(segments):
        element = view(elements, segment * size_element * w)
        entering = view(entrances, segment * size_state * w)
        load_blocks(order, ws, steps, slots, w, t, y, r, series, segment * span, n)
        dispatch.fill(order, ws, steps, par, like)
        dispatch.element(order, ws, steps, prior, element, like)
        for k in range(size_state):
            store(entering, k * w, load(carry, k * w, 0.0))
        for lane in range(w):
            target = entering if lane + 1 < w else carry
            dispatch.combine(order, prior, element, lane, w, entering, target, (lane + 1) % w)
        if not gradient or segments == 1:
            logdet += _filter_segment(order, ws, steps, prior, entering, carry, state, acc, variance, like)
    if gradient and logdet == logdet:
        fill_with(lane_grad, 0, n_params * w, 0.0)
        fill_with(grad_p, 0, size_prior * w, 0.0)
        fill_with(later, 0, size_adjoint * w, 0.0)
        for back in range(segments):
            segment = segments - 1 - back
            element = view(elements, segment * size_element * w)
            entering = view(entrances, segment * size_state * w)
            if segments > 1:
                load_blocks(order, ws, steps, slots, w, t, y, r, series, segment * span, n)
                dispatch.fill(order, ws, steps, par, like)
                leaving = view(entering, size_state * w) if back > 0 else carry
                logdet += _filter_segment(order, ws, steps, prior, entering, leaving, state, acc, variance, like)
            for k in range(size_adjoint):
                store(adjoint, k * w + w - 1, load(later, k * w, 0.0))
            for skip in range(w - 1):
                lane = w - 1 - skip
                dispatch.combine_adjoint(order, prior, element, lane, w, entering, adjoint, adjoint, lane - 1)
            copy(adjoint, expected, size_adjoint * w)
            dispatch.backward(order, task, ws, steps, prior, par, lane_weights, adjoint, grad_p, lane_grad, like)
            for lane in range(w):
                start = segment * span + lane * steps
                store_lane(ws, steps, slots, w, lane, alpha, kappa, tbar, start, n)
                dispatch.store_rows(order, ws, steps, w, lane, series, start, n)
                if lane > 0 and _adjoints_differ(order, adjoint, expected, w, lane, size_adjoint):
                    return np.nan, np.nan
            for k in range(size_adjoint):
                store(later, k * w, load(adjoint, k * w, 0.0))
        for lane in range(w):
            dispatch.contract_prior(order, par, grad_p, lane_grad, lane, w)
            for k in range(n_params):
                store(grad, k, load(grad, k, 0.0) + load(lane_grad, k * w + lane, 0.0))
    quad = 0.0
    for lane in range(w):
        quad += load(acc, lane, 0.0)
        if not load(acc, 3 * w + lane, 0.0) > 0.0:
            return np.nan, np.nan
    return quad, logdet


@uncounted
def lanes_evidence(
    like, order, task, params, t, y, r, lengths, series, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad,
    scratch,
):  # fmt: skip
    """One series per lane (``like`` is a vector) or a single series (``like`` is 0.0), sequential in time.

    ``series`` names the rows of the (B, ...) arrays to run. Arrays of one row are shared by all series. ``bad``
    receives the first row at which the covariance is not positive definite, or -1.
    """
    w = width_of(like)
    slots, size_state, _, size_adjoint, size_prior = dispatch.sizes(order)
    n = 0
    for lane in range(w):
        n = max(n, lengths[series[lane]])
    steps, segments = segmentation(n, 1, 2 * SINGLE_SEGMENT)
    n_params = params.shape[1]
    par = scratch
    at = n_params * w
    lane_grad = view(scratch, at)
    at += n_params * w
    prior = view(scratch, at)
    at += size_prior * w
    grad_p = view(scratch, at)
    at += size_prior * w
    state = view(scratch, at)
    at += size_state * w
    adjoint = view(scratch, at)
    at += size_adjoint * w
    acc = view(scratch, at)
    at += 4 * w
    lane_weights = view(scratch, at)
    at += 2 * w
    entrances = view(scratch, at)
    at += segments * size_state * w
    ws = view(scratch, at)
    for lane in range(w):
        b = series[lane]
        for k in range(n_params):
            store(par, k * w + lane, params[b, k])
        dispatch.set_prior(order, par, prior, lane, w)
        for k in range(2):
            store(lane_weights, k * w + lane, load(row_view(weights, b), k, 0.0))
        store(logdet, b, 0.0)
        bad[b] = -1
    fill_with(state, 0, size_state * w, 0.0)
    reset(acc, w)
    for segment in range(segments):
        load_series(order, ws, steps, slots, w, t, y, r, lengths, series, segment * steps)
        dispatch.fill(order, ws, steps, par, like)
        copy(state, view(entrances, segment * size_state * w), size_state * w)
        dispatch.forward(order, ws, steps, prior, state, acc, like)
        for lane in range(w):
            b = series[lane]
            store(logdet, b, load(logdet, b, 0.0) + fold_logdet(acc, lane, w))
            if bad[b] < 0 and not (load(acc, 3 * w + lane, 0.0) > 0.0 and math.isfinite(load(acc, lane, 0.0))):
                bad[b] = segment * steps
                for k in range(steps):
                    row = k * slots * w + lane
                    inv = load(ws, row + dispatch.inverse_slot(order) * w, 0.0)
                    # As in the sweep: a pivot that is negative, or no larger than rounding.
                    scale = dispatch.total_variance(order, prior, lane, w) + load(ws, row + 2 * w, 0.0)
                    if not (inv >= 0.0 and math.isfinite(inv) and (inv == 0.0 or inv * PIVOT_FLOOR * scale < 1.0)):
                        bad[b] = segment * steps + k
                        break
    for lane in range(w):
        store(quad, series[lane], load(acc, lane, 0.0))
    if not gradient:
        return
    fill_with(adjoint, 0, size_adjoint * w, 0.0)
    fill_with(lane_grad, 0, n_params * w, 0.0)
    fill_with(grad_p, 0, size_prior * w, 0.0)
    for back in range(segments):
        segment = segments - 1 - back
        if segments > 1:
            load_series(order, ws, steps, slots, w, t, y, r, lengths, series, segment * steps)
            dispatch.fill(order, ws, steps, par, like)
            copy(view(entrances, segment * size_state * w), state, size_state * w)
            dispatch.forward(order, ws, steps, prior, state, acc, like)
            reset(acc, w)
        dispatch.backward(order, task, ws, steps, prior, par, lane_weights, adjoint, grad_p, lane_grad, like)
        for lane in range(w):
            b = series[lane]
            a, k, x = row_view(alpha, b), row_view(kappa, b), row_view(tbar, b)
            store_lane(ws, steps, slots, w, lane, a, k, x, segment * steps, lengths[b])
            dispatch.store_rows(order, ws, steps, w, lane, b, segment * steps, lengths[b])
    for lane in range(w):
        dispatch.contract_prior(order, par, grad_p, lane_grad, lane, w)
        out = row_view(grad, series[lane])
        for k in range(n_params):
            store(out, k, load(out, k, 0.0) + load(lane_grad, k * w + lane, 0.0))


@numba.njit(**ENTRY)
def sequential_evidence(
    order, task, params, t, y, r, lengths, series, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad
):
    """Each of ``series`` in scalar registers, one point after the other."""
    words = scratch_words(order, longest_series(lengths), 1, 2 * SINGLE_SEGMENT, params.shape[1])
    scratch = np.empty(words)
    for k in range(series.shape[0]):
        lanes_evidence(
            0.0, order, task, params, t, y, r, lengths, view(series, k), weights, gradient, grad, alpha, kappa, tbar,
            quad, logdet, bad, scratch,
        )  # fmt: skip


@numba.njit(**ENTRY)
def singles_evidence(
    order, task, params, t, y, r, lengths, series, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad
):
    """Each of ``series`` cut into time blocks; returns whether any was left for :func:`sequential_evidence`.

    Those that were not (too short, not positive definite, or composed with too little accuracy) have ``bad = -2``.
    """
    left = False
    words = scratch_words(order, longest_series(lengths), LANES, SINGLE_SEGMENT, params.shape[1])
    owner = np.empty(words + LANES)
    scratch = view(owner, aligned_start(owner))
    for k in range(series.shape[0]):
        b = series[k]
        bad[b] = -2
        if lengths[b] >= BLOCKS_MINIMUM:
            quad[b], logdet[b] = blocks_evidence(
                order, task, b, row_view(params, b), row_view(t, b), row_view(y, b), row_view(r, b), lengths[b],
                row_view(weights, b), gradient, row_view(grad, b), row_view(alpha, b), row_view(kappa, b),
                row_view(tbar, b), scratch,
            )  # fmt: skip
            if math.isfinite(quad[b] + logdet[b]):
                bad[b] = -1
            elif gradient:
                fill_with(row_view(grad, b), 0, grad.shape[1], 0.0)
                fill_with(row_view(tbar, b), 0, tbar.shape[1], 0.0)
        left = left or bad[b] == -2
    # Only now may the memory that the views borrow be released.
    store(owner, 0, 0.0)
    return left


@numba.njit(**ENTRY)
def groups_evidence(
    order, task, params, t, y, r, lengths, groups, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad
):
    """Groups of as many series as there are lanes (rows of ``groups``), one series per lane."""
    like = zero_lanes()
    words = LANES * scratch_words(order, longest_series(lengths), 1, 2 * SINGLE_SEGMENT, params.shape[1])
    owner = np.empty(words + LANES)
    scratch = view(owner, aligned_start(owner))
    for g in range(groups.shape[0]):
        lanes_evidence(
            like, order, task, params, t, y, r, lengths, view(groups, g * LANES), weights, gradient, grad, alpha, kappa,
            tbar, quad, logdet, bad, scratch,
        )  # fmt: skip
    store(owner, 0, 0.0)
