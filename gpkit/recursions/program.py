"""Sums of products of closed-form factors, described by a small integer program.

``program = [number of terms, then per term: number of factors, kinds...]``; the parameter vector lists, per term, the
variance and then the parameters of each factor (see :mod:`gpkit.recursions.transitions`; ``matern52`` has one, its
rate). Each term becomes one block of the state, the Kronecker product of its factors padded to the common block size.

A program ``[number of blocks, -1]`` says that transitions are given as data instead: the order marker then carries an
array (series, time, blocks * b * b) and one for its derivatives, and the parameters are ``p`` followed by the
block-triangular ``P_inf``.
"""

from __future__ import annotations

import numba
import numpy as np

from gpkit.recursions.compilation import OPTIONS
from gpkit.recursions.elementary import exp_and_expm1, sine_cosine
from gpkit.recursions.ordern import SLOT_A, SLOT_DT, SLOT_TDOT, _offsets, shape_n, sizes_n
from gpkit.recursions.simd import broadcast, load, store, width_of
from gpkit.recursions.transitions import (
    CELERITE,
    EXPONENTIAL,
    MATERN32,
    MATERN52,
    SHO,
    celerite_completion,
    sho_transition_dbeta,
    sho_transition_lanes,
)

FACTOR_DIMENSIONS = {EXPONENTIAL: 1, SHO: 2, MATERN32: 2, CELERITE: 2, MATERN52: 3}
FACTOR_PARAMETERS = {EXPONENTIAL: 1, SHO: 2, MATERN32: 1, CELERITE: 4, MATERN52: 1}


@numba.njit(**OPTIONS)
def _dimension(kind):  # type: ignore[no-untyped-def]
    if kind == EXPONENTIAL:
        return 1
    return 3 if kind == MATERN52 else 2


@numba.njit(**OPTIONS)
def _parameters(kind):  # type: ignore[no-untyped-def]
    if kind == SHO:
        return 2
    return 4 if kind == CELERITE else 1


@numba.njit(**OPTIONS)
def _factor(kind, par, at, dt, out, base, ld, like):  # type: ignore[no-untyped-def]
    """Write the transition of one factor (parameters from ``at``) as a matrix with leading dimension ``ld``."""
    w = width_of(like)
    if kind == EXPONENTIAL:
        a, _ = exp_and_expm1(-load(par, at * w, like) * dt)
        store(out, base, a)
    elif kind == MATERN52:
        x = load(par, at * w, like) * dt
        e, _ = exp_and_expm1(-x)
        y = 0.5 * x * x
        store(out, base, e * (1.0 + x + y))
        store(out, base + w, e * (x + 2.0 * y))
        store(out, base + 2 * w, e * y)
        store(out, base + ld * w, -e * y)
        store(out, base + (ld + 1) * w, e * (1.0 + x - 2.0 * y))
        store(out, base + (ld + 2) * w, e * (x - y))
        store(out, base + 2 * ld * w, e * (y - x))
        store(out, base + (2 * ld + 1) * w, e * (2.0 * y - 3.0 * x))
        store(out, base + (2 * ld + 2) * w, e * (1.0 - 2.0 * x + y))
    else:
        a = broadcast(0.0, like)
        s = a
        b = a
        if kind == SHO:
            x = load(par, at * w, like) * dt
            a, s, b = sho_transition_lanes(x, 0.5 / load(par, (at + 1) * w, like), par, at + 1, like)
        elif kind == MATERN32:
            x = load(par, at * w, like) * dt
            e, _ = exp_and_expm1(-x)
            s = e * x
            a = e + s
            b = e - s
        else:
            e, _ = exp_and_expm1(-load(par, (at + 2) * w, like) * dt)
            sine, cosine = sine_cosine(load(par, (at + 3) * w, like) * dt)
            a = e * cosine
            s = e * sine
            b = a
        store(out, base, a)
        store(out, base + w, s)
        store(out, base + ld * w, -s)
        store(out, base + (ld + 1) * w, b)


@numba.njit(**OPTIONS)
def _accumulate(grad, at, w, value, like):  # type: ignore[no-untyped-def]
    store(grad, at * w, load(grad, at * w, like) + value)


@numba.njit(**OPTIONS)
def _factor_adjoint(kind, par, at, dt, out, base, ld, bar, bar_base, bar_ld, grad, like):  # type: ignore[no-untyped-def]
    """Add the derivatives of one factor's parameters to ``grad``; returns the derivative with respect to dt."""
    w = width_of(like)
    if kind == EXPONENTIAL:
        rate = load(par, at * w, like)
        x = -load(out, base, like) * load(bar, bar_base, like)
        _accumulate(grad, at, w, x * dt, like)
        return x * rate
    if kind == MATERN52:
        rate = load(par, at * w, like)
        x = broadcast(0.0, like)
        for c in range(3):
            a0 = load(out, base + c * w, like)
            a1 = load(out, base + (ld + c) * w, like)
            a2 = load(out, base + (2 * ld + c) * w, like)
            x = x + load(bar, bar_base + c * w, like) * a1 + load(bar, bar_base + (bar_ld + c) * w, like) * a2
            x = x - load(bar, bar_base + (2 * bar_ld + c) * w, like) * (a0 + 3.0 * (a1 + a2))
        _accumulate(grad, at, w, x * dt, like)
        return x * rate
    a = load(out, base, like)
    s = load(out, base + w, like)
    b = load(out, base + (ld + 1) * w, like)
    abar = load(bar, bar_base, like)
    sbar = load(bar, bar_base + w, like) - load(bar, bar_base + bar_ld * w, like)
    bbar = load(bar, bar_base + (bar_ld + 1) * w, like)
    if kind == CELERITE:
        shrink = a * (abar + bbar) + s * sbar
        turn = a * sbar - s * (abar + bbar)
        _accumulate(grad, at + 2, w, -shrink * dt, like)
        _accumulate(grad, at + 3, w, turn * dt, like)
        return load(par, (at + 3) * w, like) * turn - load(par, (at + 2) * w, like) * shrink
    frequency = load(par, at * w, like)
    beta = broadcast(1.0, like)
    if kind == SHO:
        beta = 0.5 / load(par, (at + 1) * w, like)
    dx = sbar * b - abar * s - bbar * (s + 2.0 * beta * b)
    _accumulate(grad, at, w, dx * dt, like)
    if kind == SHO:
        da, ds, db = sho_transition_dbeta(frequency * dt, beta, a, s, b)
        _accumulate(grad, at + 1, w, -2.0 * beta * beta * (abar * da + sbar * ds + bbar * db), like)
    return dx * frequency


@numba.njit(**OPTIONS)
def _kronecker(left, left_base, m, right, d, out, out_base, b, like):  # type: ignore[no-untyped-def]
    """``out = left (m x m, leading b) x right (d x d, leading 3)``, leading dimension b."""
    w = width_of(like)
    for i in range(m):
        for k in range(m):
            value = load(left, left_base + (i * b + k) * w, like)
            for r in range(d):
                for q in range(d):
                    product = value * load(right, (r * 3 + q) * w, like)
                    store(out, out_base + ((i * d + r) * b + k * d + q) * w, product)


@numba.njit(**OPTIONS)
def fill_n(order, ws, steps, par, like):  # type: ignore[no-untyped-def]
    """Transitions of every term over each row's time step."""
    program = order[1]
    if program[1] < 0:
        return
    w = width_of(like)
    nb, b = shape_n(order)
    bb = b * b
    slots = sizes_n(order)[0]
    stack = np.zeros((8, bb * w))
    small = np.empty(9 * w)
    row = 0
    for _ in range(steps):
        dt = load(ws, row + SLOT_DT * w, like)
        position = 1
        at = 0
        for i in range(nb):
            base = row + (SLOT_A + i * bb) * w
            count = program[position]
            at += 1
            kind = program[position + 1]
            size = _dimension(kind)
            for k in range(bb):
                store(ws, base + k * w, broadcast(0.0, like))
            if count == 1:
                _factor(kind, par, at, dt, ws, base, b, like)
                at += _parameters(kind)
            else:
                _factor(kind, par, at, dt, stack[0], 0, b, like)
                at += _parameters(kind)
                for f in range(1, count):
                    kind = program[position + 1 + f]
                    d = _dimension(kind)
                    _factor(kind, par, at, dt, small, 0, 3, like)
                    at += _parameters(kind)
                    if f + 1 < count:
                        _kronecker(stack[f - 1], 0, size, small, d, stack[f], 0, b, like)
                    else:
                        _kronecker(stack[f - 1], 0, size, small, d, ws, base, b, like)
                    size *= d
            position += 1 + count
        row += slots * w


@numba.njit(**OPTIONS)
def contract_n(order, ws, steps, par, grad, like):  # type: ignore[no-untyped-def]
    """Pull transition derivatives back to the factor parameters; leaves d/d(dt) in each row."""
    program = order[1]
    if program[1] < 0:
        return
    w = width_of(like)
    nb, b = shape_n(order)
    bb = b * b
    slots = sizes_n(order)[0]
    slot_abar = _offsets(nb, b)[3]
    stack = np.zeros((8, bb * w))
    small = np.empty(9 * w)
    small_bar = np.empty(9 * w)
    bar = np.empty(bb * w)
    dims = np.empty(8, dtype=np.int64)
    starts = np.empty(8, dtype=np.int64)
    row = 0
    for _ in range(steps):
        dt = load(ws, row + SLOT_DT * w, like)
        tdot = broadcast(0.0, like)
        position = 1
        at = 0
        for i in range(nb):
            base = row + (SLOT_A + i * bb) * w
            bar_base = row + (slot_abar + i * bb) * w
            count = program[position]
            at += 1
            if count == 1:
                kind = program[position + 1]
                tdot = tdot + _factor_adjoint(kind, par, at, dt, ws, base, b, ws, bar_base, b, grad, like)
                at += _parameters(kind)
            else:
                kind = program[position + 1]
                dims[0] = _dimension(kind)
                starts[0] = at
                _factor(kind, par, at, dt, stack[0], 0, b, like)
                at += _parameters(kind)
                for f in range(1, count):
                    kind = program[position + 1 + f]
                    dims[f] = _dimension(kind)
                    starts[f] = at
                    if f + 1 < count:
                        size = 1
                        for k in range(f):
                            size *= dims[k]
                        _factor(kind, par, at, dt, small, 0, 3, like)
                        _kronecker(stack[f - 1], 0, size, small, dims[f], stack[f], 0, b, like)
                    at += _parameters(kind)
                for k in range(bb):
                    store(bar, k * w, load(ws, bar_base + k * w, like))
                for back in range(1, count):
                    f = count - back
                    kind = program[position + 1 + f]
                    d = dims[f]
                    size = 1
                    for k in range(f):
                        size *= dims[k]
                    _factor(kind, par, starts[f], dt, small, 0, 3, like)
                    for r in range(d):
                        for q in range(d):
                            total = broadcast(0.0, like)
                            for z in range(size):
                                for s in range(size):
                                    total = total + load(bar, ((z * d + r) * b + s * d + q) * w, like) * load(
                                        stack[f - 1], (z * b + s) * w, like
                                    )
                            store(small_bar, (r * 3 + q) * w, total)
                    # In ascending order each entry is read before the smaller matrix overwrites it.
                    for z in range(size):
                        for s in range(size):
                            total = broadcast(0.0, like)
                            for r in range(d):
                                for q in range(d):
                                    total = total + load(bar, ((z * d + r) * b + s * d + q) * w, like) * load(
                                        small, (r * 3 + q) * w, like
                                    )
                            store(bar, (z * b + s) * w, total)
                    tdot = tdot + _factor_adjoint(kind, par, starts[f], dt, small, 0, 3, small_bar, 0, 3, grad, like)
                kind = program[position + 1]
                tdot = tdot + _factor_adjoint(kind, par, starts[0], dt, stack[0], 0, b, bar, 0, b, grad, like)
            position += 1 + count
        store(ws, row + SLOT_TDOT * w, tdot)
        row += slots * w


@numba.njit(**OPTIONS)
def _factor_prior(kind, par, at, lane, w, covariance):  # type: ignore[no-untyped-def]
    """Stationary covariance of a factor with unit variance, in the leading corner of ``covariance``; its size."""
    for r in range(3):
        for q in range(3):
            covariance[r, q] = 0.0
    covariance[0, 0] = 1.0
    if kind == EXPONENTIAL:
        return 1
    if kind == MATERN52:
        covariance[1, 1] = 1.0 / 3.0
        covariance[2, 2] = 1.0
        covariance[0, 2] = -1.0 / 3.0
        covariance[2, 0] = -1.0 / 3.0
        return 3
    covariance[1, 1] = 1.0
    if kind == CELERITE:
        a = par[at * w + lane]
        b = par[(at + 1) * w + lane]
        covariance[0, 0] = a
        covariance[0, 1] = b
        covariance[1, 0] = b
        covariance[1, 1] = celerite_completion(a, b, par[(at + 2) * w + lane], par[(at + 3) * w + lane])
    return 2


@numba.njit(**OPTIONS)
def _enlarge(left, right, d):  # type: ignore[no-untyped-def]
    """Kronecker product of ``left`` with the leading (d, d) corner of ``right``."""
    n = left.shape[0]
    out = np.empty((n * d, n * d))
    for i in range(n):
        for k in range(n):
            for r in range(d):
                for q in range(d):
                    out[i * d + r, k * d + q] = left[i, k] * right[r, q]
    return out


@numba.njit(**OPTIONS)
def set_prior_n(order, par, prior, lane, w):  # type: ignore[no-untyped-def]
    """Write p and P_inf of one lane."""
    nb, b = shape_n(order)
    bb = b * b
    j = nb * b
    total = j + nb * (nb + 1) // 2 * bb
    program = order[1]
    if program[1] < 0:
        for k in range(total):
            prior[k * w + lane] = par[k * w + lane]
        return
    for k in range(total):
        prior[k * w + lane] = 0.0
    small = np.empty((3, 3))
    position = 1
    at = 0
    for i in range(nb):
        count = program[position]
        covariance = np.zeros((1, 1))
        covariance[0, 0] = par[at * w + lane]
        at += 1
        for f in range(count):
            kind = program[position + 1 + f]
            d = _factor_prior(kind, par, at, lane, w, small)
            covariance = _enlarge(covariance, small, d)
            at += _parameters(kind)
        base = j + (i * (i + 1) // 2 + i) * bb
        for r in range(covariance.shape[0]):
            prior[(i * b + r) * w + lane] = covariance[r, 0]
            for q in range(covariance.shape[0]):
                prior[(base + r * b + q) * w + lane] = covariance[r, q]
        position += 1 + count


@numba.njit(**OPTIONS)
def contract_prior_n(order, par, grad_p, grad, lane, w):  # type: ignore[no-untyped-def]
    """Pull the derivative with respect to p back to variances and celerite coefficients."""
    nb, b = shape_n(order)
    program = order[1]
    if program[1] < 0:
        for k in range(nb * b):
            grad[k * w + lane] += grad_p[k * w + lane]
        return
    small = np.empty((3, 3))
    position = 1
    at = 0
    for i in range(nb):
        count = program[position]
        variance_at = at
        variance = par[at * w + lane]
        at += 1
        first = at
        size = 1
        for f in range(count):
            size *= _dimension(program[position + 1 + f])
        # p is variance times the Kronecker product of the first columns; walk over its entries digit by digit.
        for entry in range(size):
            bar = grad_p[(i * b + entry) * w + lane]
            at = first
            stride = size
            product = 1.0
            for f in range(count):
                kind = program[position + 1 + f]
                d = _factor_prior(kind, par, at, lane, w, small)
                stride //= d
                product *= small[entry // stride % d, 0]
                at += _parameters(kind)
            grad[variance_at * w + lane] += bar * product
            at = first
            stride = size
            for f in range(count):
                kind = program[position + 1 + f]
                stride //= _dimension(kind)
                if kind == CELERITE:
                    digit = entry // stride % 2
                    others = variance
                    other_at = first
                    other_stride = size
                    for g in range(count):
                        d = _factor_prior(program[position + 1 + g], par, other_at, lane, w, small)
                        other_stride //= d
                        if g != f:
                            others *= small[entry // other_stride % d, 0]
                        other_at += _parameters(program[position + 1 + g])
                    grad[(at + digit) * w + lane] += bar * others
                at += _parameters(kind)
        position += 1 + count


@numba.njit(**OPTIONS)
def load_given(order, ws, steps, w, lane, series, start, n):  # type: ignore[no-untyped-def]
    """Copy given transitions into one lane (identity where there is no next datum)."""
    if order[1][1] >= 0:
        return
    nb, b = shape_n(order)
    size = nb * b * b
    slots = sizes_n(order)[0]
    given = order[2]
    source = given[series % given.shape[0]]
    row = SLOT_A * w + lane
    for k in range(start, start + steps):
        if k + 1 < n:
            for q in range(size):
                ws[row + q * w] = source[k, q]
        else:
            for q in range(size):
                ws[row + q * w] = 1.0 if q % (b * b) % (b + 1) == 0 else 0.0
        row += slots * w


@numba.njit(**OPTIONS)
def store_given(order, ws, steps, w, lane, series, start, n):  # type: ignore[no-untyped-def]
    """Copy the derivatives with respect to given transitions out of one lane."""
    if order[1][1] >= 0:
        return
    nb, b = shape_n(order)
    size = nb * b * b
    slots = sizes_n(order)[0]
    target = order[3][series]
    row = _offsets(nb, b)[3] * w + lane
    for k in range(start, min(start + steps, n - 1)):
        for q in range(size):
            target[k, q] = ws[row + q * w]
        row += slots * w
