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
from gpkit.recursions.compilation import ENTRY, OPTIONS
from gpkit.recursions.simd import load, store, width_of, zero_lanes

__all__ = ["BLOCKS_MINIMUM", "groups_evidence", "sequential_evidence", "singles_evidence"]

BLOCKS_MINIMUM = 48
"""Below this many points one series is not worth cutting into blocks."""
_SINGLE_SEGMENT = 256
_SEGMENT = 128
_TOLERANCE = 1e-9


@numba.njit(**OPTIONS)
def _load_lane(ws, steps, slots, w, lane, t, y, r, start, n):  # type: ignore[no-untyped-def]
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


@numba.njit(**OPTIONS)
def _store_lane(ws, steps, slots, w, lane, alpha, kappa, tbar, start, n):  # type: ignore[no-untyped-def]
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


@numba.njit(**OPTIONS)
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Element by element: slice assignment would compile its shape check, which takes longer than all of this."""
    for k in range(source.shape[0]):
        target[k] = source[k]


@numba.njit(**OPTIONS)
def _reset(acc, w):  # type: ignore[no-untyped-def]
    for lane in range(w):
        acc[lane] = 0.0
        acc[w + lane] = 0.0
        acc[2 * w + lane] = 1.0
        acc[3 * w + lane] = np.inf


@numba.njit(**OPTIONS)
def _fold_logdet(acc, lane, w):  # type: ignore[no-untyped-def]
    """Natural logarithm of one lane's determinant; empties the mantissa."""
    value = acc[w + lane] * math.log(2.0) + math.log(acc[2 * w + lane])
    acc[w + lane] = 0.0
    acc[2 * w + lane] = 1.0
    return value


@numba.njit(**OPTIONS)
def _disagree(found, expected, w, lane_found, lane_expected, size, dimension, variance):  # type: ignore[no-untyped-def]
    """Whether two states differ by more than rounding: means against their size, Delta against the variance."""
    for k in range(size):
        a = found[k * w + lane_found]
        b = expected[k * w + lane_expected]
        scale = abs(a) + math.sqrt(variance) if k < dimension else variance
        if not abs(a - b) <= _TOLERANCE * scale:
            return True
    return False


@numba.njit(**OPTIONS)
def blocks_evidence(order, task, series, params, t, y, r, n, weights, gradient, grad, alpha, kappa, tbar):  # type: ignore[no-untyped-def]
    """One series, its time blocks in SIMD lanes; returns ``(inv_quad, logdet, status)``.

    ``weights`` are the cotangents of ``-inv_quad/2`` and ``-logdet/2``; ``grad`` and ``tbar`` must be zero on entry.
    ``status`` is 0, or 2 when the composition was not accurate enough (nothing in the outputs is then valid).
    """
    like = zero_lanes()
    w = width_of(like)
    slots, size_state, size_element, size_adjoint, size_prior = dispatch.sizes(order)
    dimension = dispatch.dimension(order)
    if n <= w * _SINGLE_SEGMENT:
        steps = (n + w - 1) // w
    else:
        steps = _SEGMENT
    span = w * steps
    segments = (n + span - 1) // span
    n_params = params.shape[0]
    ws = np.empty(steps * slots * w)
    par = np.empty(n_params * w)
    prior = np.empty(size_prior * w)
    for lane in range(w):
        for k in range(n_params):
            par[k * w + lane] = params[k]
        dispatch.set_prior(order, par, prior, lane, w)
    elements = np.empty((segments, size_element * w))
    entering = np.empty((segments, size_state * w))
    state = np.zeros(size_state * w)
    carry = np.zeros(size_state * w)
    acc = np.empty(4 * w)
    _reset(acc, w)
    logdet = 0.0
    variance = prior[0]
    for segment in range(segments):
        for lane in range(w):
            start = segment * span + lane * steps
            _load_lane(ws, steps, slots, w, lane, t, y, r, start, n)
            dispatch.load_rows(order, ws, steps, w, lane, series, start, n)
        dispatch.fill(order, ws, steps, par, like)
        dispatch.element(order, ws, steps, prior, elements[segment], like)
        for k in range(size_state):
            entering[segment, k * w] = carry[k * w]
        for lane in range(w - 1):
            dispatch.combine(order, prior, elements[segment], lane, w, entering[segment], entering[segment], lane + 1)
        dispatch.combine(order, prior, elements[segment], w - 1, w, entering[segment], carry, 0)
        if not gradient or segments == 1:
            _copy(entering[segment], state)
            dispatch.forward(order, ws, steps, prior, state, acc, like)
            for lane in range(w):
                logdet += _fold_logdet(acc, lane, w)
                target = entering[segment] if lane + 1 < w else carry
                if _disagree(state, target, w, lane, (lane + 1) % w, size_state, dimension, variance):
                    return np.nan, np.nan, 2
    if gradient:
        lane_weights = np.empty(2 * w)
        for lane in range(w):
            lane_weights[lane] = weights[0]
            lane_weights[w + lane] = weights[1]
        adjoint = np.zeros(size_adjoint * w)
        expected = np.zeros(size_adjoint * w)
        later = np.zeros(size_adjoint * w)
        lane_grad = np.zeros(n_params * w)
        grad_p = np.zeros(size_prior * w)
        for back in range(segments):
            segment = segments - 1 - back
            if segments > 1:
                for lane in range(w):
                    start = segment * span + lane * steps
                    _load_lane(ws, steps, slots, w, lane, t, y, r, start, n)
                    dispatch.load_rows(order, ws, steps, w, lane, series, start, n)
                dispatch.fill(order, ws, steps, par, like)
                _copy(entering[segment], state)
                dispatch.forward(order, ws, steps, prior, state, acc, like)
                for lane in range(w):
                    logdet += _fold_logdet(acc, lane, w)
                    if lane + 1 < w:
                        target = entering[segment]
                    elif segment + 1 < segments:
                        target = entering[segment + 1]
                    else:
                        target = carry
                    if _disagree(state, target, w, lane, (lane + 1) % w, size_state, dimension, variance):
                        return np.nan, np.nan, 2
            for k in range(size_adjoint):
                adjoint[k * w + w - 1] = later[k * w]
            for skip in range(w - 1):
                lane = w - 1 - skip
                dispatch.combine_adjoint(
                    order, prior, elements[segment], lane, w, entering[segment], adjoint, adjoint, lane - 1
                )
            _copy(adjoint, expected)
            dispatch.backward(order, task, ws, steps, prior, par, lane_weights, adjoint, grad_p, lane_grad, like)
            for lane in range(w):
                start = segment * span + lane * steps
                _store_lane(ws, steps, slots, w, lane, alpha, kappa, tbar, start, n)
                dispatch.store_rows(order, ws, steps, w, lane, series, start, n)
                if lane > 0:
                    information = abs(adjoint[dimension * w + lane])
                    for k in range(size_adjoint):
                        a = adjoint[k * w + lane]
                        b = expected[k * w + lane - 1]
                        scale = information if k >= dimension else math.sqrt(information)
                        if not abs(a - b) <= _TOLERANCE * (scale + abs(a)):
                            return np.nan, np.nan, 2
            for k in range(size_adjoint):
                later[k * w] = adjoint[k * w]
        for lane in range(w):
            dispatch.contract_prior(order, par, grad_p, lane_grad, lane, w)
            for k in range(n_params):
                grad[k] += lane_grad[k * w + lane]
    quad = 0.0
    for lane in range(w):
        quad += acc[lane]
        if not acc[3 * w + lane] > 0.0:
            return np.nan, np.nan, 2
    if not math.isfinite(quad + logdet):
        return np.nan, np.nan, 2
    return quad, logdet, 0


@numba.njit(**OPTIONS)
def lanes_evidence(
    like, order, task, params, t, y, r, lengths, series, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad
):  # type: ignore[no-untyped-def]
    """One series per lane (``like`` is a vector) or a single series (``like`` is 0.0), sequential in time.

    ``series`` names the rows of the (B, ...) arrays to run. Arrays of one row are shared by all series. ``bad``
    receives the first row at which the covariance is not positive definite, or -1.
    """
    w = width_of(like)
    slots, size_state, _, size_adjoint, size_prior = dispatch.sizes(order)
    n = 0
    for lane in range(w):
        n = max(n, lengths[series[lane]])
        bad[series[lane]] = -1
    steps = max(1, min(n, 2 * _SINGLE_SEGMENT))
    if n > 2 * _SINGLE_SEGMENT:
        steps = _SEGMENT
    segments = (n + steps - 1) // steps
    n_params = params.shape[1]
    ws = np.empty(steps * slots * w)
    par = np.empty(n_params * w)
    prior = np.empty(size_prior * w)
    for lane in range(w):
        for k in range(n_params):
            par[k * w + lane] = params[series[lane], k]
        dispatch.set_prior(order, par, prior, lane, w)
        quad[series[lane]] = 0.0
        logdet[series[lane]] = 0.0
    entering = np.empty((max(segments, 1), size_state * w))
    state = np.zeros(size_state * w)
    acc = np.empty(4 * w)
    _reset(acc, w)
    for segment in range(segments):
        for lane in range(w):
            b = series[lane]
            _load_lane(
                ws, steps, slots, w, lane, t[b % t.shape[0]], y[b % y.shape[0]], r[b % r.shape[0]],
                segment * steps, lengths[b],
            )  # fmt: skip
            dispatch.load_rows(order, ws, steps, w, lane, b, segment * steps, lengths[b])
        dispatch.fill(order, ws, steps, par, like)
        _copy(state, entering[segment])
        dispatch.forward(order, ws, steps, prior, state, acc, like)
        for lane in range(w):
            b = series[lane]
            logdet[b] += _fold_logdet(acc, lane, w)
            if bad[b] < 0 and not (acc[3 * w + lane] > 0.0 and math.isfinite(acc[lane])):
                bad[b] = segment * steps
                for k in range(steps):
                    inv = ws[(k * slots + dispatch.inverse_slot(order)) * w + lane]
                    if not (inv >= 0.0 and math.isfinite(inv)):
                        bad[b] = segment * steps + k
                        break
    for lane in range(w):
        quad[series[lane]] = acc[lane]
    if not gradient:
        return
    lane_weights = np.empty(2 * w)
    for lane in range(w):
        lane_weights[lane] = weights[series[lane] % weights.shape[0], 0]
        lane_weights[w + lane] = weights[series[lane] % weights.shape[0], 1]
    adjoint = np.zeros(size_adjoint * w)
    lane_grad = np.zeros(n_params * w)
    grad_p = np.zeros(size_prior * w)
    for back in range(segments):
        segment = segments - 1 - back
        if segments > 1:
            for lane in range(w):
                b = series[lane]
                _load_lane(
                    ws, steps, slots, w, lane, t[b % t.shape[0]], y[b % y.shape[0]], r[b % r.shape[0]],
                    segment * steps, lengths[b],
                )  # fmt: skip
                dispatch.load_rows(order, ws, steps, w, lane, b, segment * steps, lengths[b])
            dispatch.fill(order, ws, steps, par, like)
            _copy(entering[segment], state)
            dispatch.forward(order, ws, steps, prior, state, acc, like)
            _reset(acc, w)
        dispatch.backward(order, task, ws, steps, prior, par, lane_weights, adjoint, grad_p, lane_grad, like)
        for lane in range(w):
            b = series[lane]
            _store_lane(ws, steps, slots, w, lane, alpha[b], kappa[b], tbar[b], segment * steps, lengths[b])
            dispatch.store_rows(order, ws, steps, w, lane, b, segment * steps, lengths[b])
    for lane in range(w):
        dispatch.contract_prior(order, par, grad_p, lane_grad, lane, w)
        for k in range(n_params):
            grad[series[lane], k] += lane_grad[k * w + lane]


@numba.njit(**OPTIONS)
def _clear(b, grad, alpha, kappa, tbar):  # type: ignore[no-untyped-def]
    for k in range(grad.shape[1]):
        grad[b, k] = 0.0
    for k in range(tbar.shape[1]):
        alpha[b, k] = 0.0
        kappa[b, k] = 0.0
        tbar[b, k] = 0.0


@numba.njit(**ENTRY)
def sequential_evidence(order, task, params, t, y, r, lengths, series, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad):  # type: ignore[no-untyped-def]  # fmt: skip
    """Each of ``series`` in scalar registers, one point after the other."""
    for k in range(series.shape[0]):
        lanes_evidence(
            0.0, order, task, params, t, y, r, lengths, series[k : k + 1], weights, gradient, grad, alpha, kappa, tbar,
            quad, logdet, bad,
        )  # fmt: skip


@numba.njit(**ENTRY)
def singles_evidence(order, task, params, t, y, r, lengths, series, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad):  # type: ignore[no-untyped-def]  # fmt: skip
    """Each of ``series`` cut into time blocks; returns whether any was left for :func:`sequential_evidence`.

    Those that were not (too short, not positive definite, or composed with too little accuracy) have ``bad = -2``.
    """
    left = False
    for k in range(series.shape[0]):
        b = series[k]
        bad[b] = -2
        if lengths[b] >= BLOCKS_MINIMUM:
            quad[b], logdet[b], status = blocks_evidence(
                order, task, b, params[b], t[b % t.shape[0]], y[b % y.shape[0]], r[b % r.shape[0]], lengths[b],
                weights[b % weights.shape[0]], gradient, grad[b], alpha[b], kappa[b], tbar[b],
            )  # fmt: skip
            if status == 0:
                bad[b] = -1
            elif gradient:
                _clear(b, grad, alpha, kappa, tbar)
        left = left or bad[b] == -2
    return left


@numba.njit(**ENTRY)
def groups_evidence(order, task, params, t, y, r, lengths, groups, weights, gradient, grad, alpha, kappa, tbar, quad, logdet, bad):  # type: ignore[no-untyped-def]  # fmt: skip
    """Groups of as many series as there are lanes (rows of ``groups``), one series per lane."""
    like = zero_lanes()
    for g in range(groups.shape[0]):
        lanes_evidence(
            like, order, task, params, t, y, r, lengths, groups[g], weights, gradient, grad, alpha, kappa, tbar, quad,
            logdet, bad,
        )  # fmt: skip
