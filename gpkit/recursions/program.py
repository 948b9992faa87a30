"""Sums of products of closed-form factors, described by a small integer program.

``program = [number of terms, then per term: number of factors, kinds...]``; the parameter vector lists, per term, the
variance and then the parameters of each factor (see :mod:`gpkit.recursions.transitions`; ``matern52`` has one, its
rate). Each term becomes one block of the state, the Kronecker product of its factors padded to the common block size.

A program ``[number of blocks, -1]`` says that transitions are given as data instead: the order marker then carries an
array (series, time, blocks * b * b) and one for its derivatives, and the parameters are ``p`` followed by the
block-triangular ``P_inf``.
"""

from __future__ import annotations

from gpkit.recursions.blockwise import SLOT_A, SLOT_DT, SLOT_TDOT, offsets, shape_n, sizes_n, triangle_words
from gpkit.recursions.compilation import uncounted
from gpkit.recursions.factors import dimension, factor, factor_adjoint, kronecker, parameters, prior_entry
from gpkit.recursions.simd import broadcast, load, store, view, width_of
from gpkit.recursions.transitions import CELERITE


@uncounted
def _given(order):
    """Whether transitions are data."""
    return load(order[1], 1, 0) < 0


@uncounted
def _fill_term(program, position, count, par, at, dt, out, base, small, small_base, b, like):
    """Transition of the product of the first ``count`` factors of a term; returns its size."""
    kind = load(program, position, 0)
    factor(kind, par, at, dt, out, base, b, like)
    size = dimension(kind)
    for f in range(1, count):
        at += parameters(kind)
        kind = load(program, position + f, 0)
        d = dimension(kind)
        factor(kind, par, at, dt, small, small_base, 3, like)
        kronecker(out, base, size, small, small_base, d, b, like)
        size *= d
    return size


@uncounted
def _count_parameters(program, position, count):
    """Number of parameters of the first ``count`` factors of a term."""
    total = 0
    for f in range(count):
        total += parameters(load(program, position + f, 0))
    return total


@uncounted
def fill_n(order, ws, steps, par, like):
    """Transitions of every term over each row's time step."""
    if _given(order):
        return
    program = order[1]
    nb, b = shape_n(order)
    slots = sizes_n(order)[0]
    spare = steps * slots
    row = 0
    for _ in range(steps):
        dt = load(ws, row + SLOT_DT, like)
        for k in range(SLOT_A, SLOT_A + nb * b * b):
            store(ws, row + k, broadcast(0.0, like))
        position = 1
        at = 1
        for i in range(nb):
            count = load(program, position, 0)
            base = row + SLOT_A + i * b * b
            _fill_term(program, position + 1, count, par, at, dt, ws, base, ws, spare, b, like)
            at += 1 + _count_parameters(program, position + 1, count)
            position += 1 + count
        row += slots


@uncounted
def _contract_last(bar, left, size, small, small_bar, d, b, like):
    """Split the derivative ``bar`` of ``left (size x size) x small (d x d)``; that of ``left`` replaces ``bar``."""
    for r in range(d):
        for q in range(d):
            total = broadcast(0.0, like)
            for z in range(size):
                for s in range(size):
                    outer = load(bar, (z * d + r) * b + s * d + q, like)
                    total = total + outer * load(bar, left + z * b + s, like)
            store(bar, small_bar + r * 3 + q, total)
    # In ascending order each entry is read before the smaller matrix overwrites it.
    for z in range(size):
        for s in range(size):
            total = broadcast(0.0, like)
            for r in range(d):
                for q in range(d):
                    outer = load(bar, (z * d + r) * b + s * d + q, like)
                    total = total + outer * load(bar, small + r * 3 + q, like)
            store(bar, z * b + s, total)


@uncounted
def contract_n(order, ws, steps, par, grad, like):
    """Pull transition derivatives back to the factor parameters; leaves d/d(dt) in each row."""
    slots = sizes_n(order)[0]
    if _given(order):
        for k in range(steps):
            store(ws, k * slots + SLOT_TDOT, broadcast(0.0, like))
        return
    program = order[1]
    nb, b = shape_n(order)
    bb = b * b
    slot_abar = offsets(nb, b)[3]
    scratch = view(ws, steps * slots * width_of(like))
    left, small, small_bar = bb, 2 * bb, 2 * bb + 9
    row = 0
    for _ in range(steps):
        dt = load(ws, row + SLOT_DT, like)
        tdot = broadcast(0.0, like)
        position = 1
        at = 1
        for i in range(nb):
            count = load(program, position, 0)
            bar = row + slot_abar + i * bb
            if count > 1:
                for k in range(bb):
                    store(scratch, k, load(ws, bar + k, like))
            for back in range(1, count):
                f = count - back
                kind = load(program, position + 1 + f, 0)
                here = at + _count_parameters(program, position + 1, f)
                size = _fill_term(program, position + 1, f, par, at, dt, scratch, left, scratch, small, b, like)
                factor(kind, par, here, dt, scratch, small, 3, like)
                _contract_last(scratch, left, size, small, small_bar, dimension(kind), b, like)
                tdot = tdot + factor_adjoint(kind, par, here, dt, scratch, small, 3, scratch, small_bar, 3, grad, like)
            kind = load(program, position + 1, 0)
            if count > 1:
                tdot = tdot + factor_adjoint(kind, par, at, dt, scratch, left, b, scratch, 0, b, grad, like)
            else:
                base = row + SLOT_A + i * bb
                tdot = tdot + factor_adjoint(kind, par, at, dt, ws, base, b, ws, bar, b, grad, like)
            at += 1 + _count_parameters(program, position + 1, count)
            position += 1 + count
        store(ws, row + SLOT_TDOT, tdot)
        row += slots


@uncounted
def set_prior_n(order, par, prior, lane, w):
    """Write p and P_inf of one lane."""
    program = order[1]
    nb, b = shape_n(order)
    j = nb * b
    given = _given(order)
    for k in range(j + triangle_words(nb, b)):
        store(prior, k * w + lane, load(par, k * w + lane, 0.0) if given else 0.0)
    if given:
        return
    position = 1
    at = 0
    for i in range(nb):
        count = load(program, position, 0)
        base = j + (i * (i + 1) // 2 + i) * b * b
        store(prior, base * w + lane, load(par, at * w + lane, 0.0))
        at += 1
        size = 1
        for f in range(count):
            kind = load(program, position + 1 + f, 0)
            d = dimension(kind)
            # The Kronecker product in place, from the last entry to the first.
            for r in range(size - 1, -1, -1):
                for q in range(size - 1, -1, -1):
                    value = load(prior, (base + r * b + q) * w + lane, 0.0)
                    for y in range(d):
                        for z in range(d):
                            place = base + (r * d + y) * b + q * d + z
                            store(prior, place * w + lane, value * prior_entry(kind, par, at, lane, w, y, z))
            size *= d
            at += parameters(kind)
        for r in range(size):
            store(prior, (i * b + r) * w + lane, load(prior, (base + r * b) * w + lane, 0.0))
        position += 1 + count


@uncounted
def _first_column(program, position, count, skip, par, at, lane, w, size, index):
    """Entry ``index`` of the first column of a term's covariance per unit variance, leaving out factor ``skip``."""
    product = 1.0
    for f in range(count):
        kind = load(program, position + f, 0)
        size //= dimension(kind)
        if f != skip:
            product *= prior_entry(kind, par, at, lane, w, index // size % dimension(kind), 0)
        at += parameters(kind)
    return product


@uncounted
def contract_prior_n(order, par, grad_p, grad, lane, w):
    """Pull the derivative with respect to p back to variances and celerite coefficients."""
    program = order[1]
    nb, b = shape_n(order)
    if _given(order):
        for k in range(nb * b):
            store(grad, k * w + lane, load(grad, k * w + lane, 0.0) + load(grad_p, k * w + lane, 0.0))
        return
    position = 1
    at = 0
    for i in range(nb):
        count = load(program, position, 0)
        first = position + 1
        variance = load(par, at * w + lane, 0.0)
        size = 1
        for f in range(count):
            size *= dimension(load(program, first + f, 0))
        for index in range(size):
            bar = load(grad_p, (i * b + index) * w + lane, 0.0)
            place = at * w + lane
            column = _first_column(program, first, count, -1, par, at + 1, lane, w, size, index)
            store(grad, place, load(grad, place, 0.0) + bar * column)
            here = at + 1
            stride = size
            for f in range(count):
                kind = load(program, first + f, 0)
                stride //= dimension(kind)
                if kind == CELERITE:
                    others = _first_column(program, first, count, f, par, at + 1, lane, w, size, index)
                    place = (here + index // stride % 2) * w + lane
                    store(grad, place, load(grad, place, 0.0) + bar * variance * others)
                here += parameters(kind)
        at += 1 + _count_parameters(program, first, count)
        position += 1 + count


@uncounted
def load_given(order, ws, steps, w, lane, series, start, n):
    """Copy given transitions into one lane (identity where there is no next datum)."""
    if not _given(order):
        return
    nb, b = shape_n(order)
    size = nb * b * b
    slots = sizes_n(order)[0]
    given = order[2]
    base = (series % given.shape[0]) * given.shape[1]
    row = SLOT_A * w + lane
    for k in range(start, start + steps):
        for q in range(size):
            if k + 1 < n:
                value = load(given, (base + k) * size + q, 0.0)
            else:
                value = 1.0 if q % (b * b) % (b + 1) == 0 else 0.0
            store(ws, row + q * w, value)
        row += slots * w


@uncounted
def store_given(order, ws, steps, w, lane, series, start, n):
    """Copy the derivatives with respect to given transitions out of one lane."""
    if not _given(order):
        return
    nb, b = shape_n(order)
    size = nb * b * b
    slots = sizes_n(order)[0]
    given_bar = order[3]
    base = series * given_bar.shape[1]
    row = offsets(nb, b)[3] * w + lane
    for k in range(start, min(start + steps, n - 1)):
        for q in range(size):
            store(given_bar, (base + k) * size + q, load(ws, row + q * w, 0.0))
        row += slots * w
