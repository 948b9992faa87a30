"""Filter, block element and adjoint for a state of any dimension with a block-diagonal transition.

Sums of kernels stack blocks; products are Kronecker products inside a block. All blocks are padded to one size ``b``
(known while compiling, from the length of the marker tuple) and ``h`` is the first unit vector of every block, so the
state has ``J = nb * b`` dimensions. Symmetric matrices are kept as their lower block triangle: block ``(I, K)`` with
``I >= K`` starts at ``(I (I + 1) / 2 + K) b^2`` and is stored by rows, diagonal blocks in full.

The recursion, the element and the adjoint are those of :mod:`gpkit.recursions.order2`, written with loops over
vectors of lanes in memory. Rows hold: dt, y/alpha, R/kappa, d/d(dt), 1/D, v/D, then A, g, m', e and A-bar.
"""

from __future__ import annotations

import numba
import numpy as np

from gpkit.recursions.compilation import OPTIONS
from gpkit.recursions.simd import (
    broadcast,
    exponent_and_mantissa,
    load,
    select_less,
    store,
    width_of,
)

SLOT_DT, SLOT_Y, SLOT_R, SLOT_TDOT, SLOT_INVD, SLOT_U, SLOT_A = 0, 1, 2, 3, 4, 5, 6


@numba.njit(**OPTIONS)
def shape_n(order):  # type: ignore[no-untyped-def]
    """Number of blocks and their size."""
    return load(order[1], 0, 0), order[0]


@numba.njit(**OPTIONS)
def dimension_n(order):  # type: ignore[no-untyped-def]
    """State dimension J."""
    nb, b = shape_n(order)
    return nb * b


@numba.njit(**OPTIONS)
def inverse_slot_n(order):  # type: ignore[no-untyped-def]
    """Slot of the reciprocal innovation variance."""
    return SLOT_INVD


@numba.njit(**OPTIONS)
def transition_slot_n(order):  # type: ignore[no-untyped-def]
    """First slot of the transition."""
    return SLOT_A


@numba.njit(**OPTIONS)
def sizes_n(order):  # type: ignore[no-untyped-def]
    """``(slots, state, element, adjoint, prior)`` in words per lane."""
    nb, b = shape_n(order)
    j = nb * b
    triangle = nb * (nb + 1) // 2 * b * b
    slots = SLOT_A + 2 * nb * b * b + 2 * j + triangle
    return slots, j + triangle, 2 * j + triangle + 2 * j * j, j + triangle, j + triangle


@numba.njit(**OPTIONS)
def _offsets(nb, b):  # type: ignore[no-untyped-def]
    """Slots of g, m', e and A-bar."""
    g = SLOT_A + nb * b * b
    m = g + nb * b
    e = m + nb * b
    abar = e + nb * (nb + 1) // 2 * b * b
    return g, m, e, abar


@numba.njit(**OPTIONS)
def _gain(prior, matrix, gains, nb, block, like):  # type: ignore[no-untyped-def]
    """``w = p - Delta h`` into ``gains``; returns ``h . w``."""
    w = width_of(like)
    b = block
    bb = b * b
    total = broadcast(0.0, like)
    for i in range(nb):
        for r in range(b):
            value = load(prior, (i * b + r) * w, like)
            base = i * (i + 1) // 2 * bb
            for k in range(i + 1):
                value = value - load(matrix, (base + k * bb + r * b) * w, like)
            for k in range(i + 1, nb):
                value = value - load(matrix, ((k * (k + 1) // 2 + i) * bb + r) * w, like)
            store(gains, (i * b + r) * w, value)
        total = total + load(gains, i * b * w, like)
    return total


@numba.njit(**OPTIONS)
def _congruence(transition, offset, matrix, start, out, nb, block, like):  # type: ignore[no-untyped-def]
    """``out = A matrix[start:] A^T`` by blocks; ``transition[offset:]`` holds the diagonal blocks of A."""
    w = width_of(like)
    b = block
    bb = b * b
    for i in range(nb):
        ai = offset + i * bb * w
        for k in range(i + 1):
            ak = offset + k * bb * w
            base = (i * (i + 1) // 2 + k) * bb * w
            source = start + base
            for r in range(b):
                for q in range(b):
                    total = broadcast(0.0, like)
                    for s in range(b):
                        inner = broadcast(0.0, like)
                        for z in range(b):
                            inner = inner + load(transition, ai + (r * b + z) * w, like) * load(
                                matrix, source + (z * b + s) * w, like
                            )
                        total = total + inner * load(transition, ak + (q * b + s) * w, like)
                    store(out, base + (r * b + q) * w, total)


@numba.njit(**OPTIONS)
def _advance(transition, offset, vector, start, stride, out, out_start, nb, block, like):  # type: ignore[no-untyped-def]
    """``out = A vector`` for one vector whose entries are ``stride`` words apart."""
    w = width_of(like)
    b = block
    for i in range(nb):
        for r in range(b):
            total = broadcast(0.0, like)
            for z in range(b):
                total = total + load(transition, offset + ((i * b + r) * b + z) * w, like) * load(
                    vector, start + (i * b + z) * stride, like
                )
            store(out, out_start + (i * b + r) * stride, total)


@numba.njit(**OPTIONS)
def forward_n(order, ws, steps, prior, state, acc, like):  # type: ignore[no-untyped-def]
    """Filter ``steps`` rows from ``state`` (updated in place); adds inv_quad, exponent and mantissa to ``acc``."""
    w = width_of(like)
    nb, b = shape_n(order)
    bb = b * b
    j = nb * b
    slots = sizes_n(order)[0]
    slot_g, slot_m, slot_e, _ = _offsets(nb, b)
    gains = np.empty(j * w)
    quad = load(acc, 0, like)
    exponent = load(acc, w, like)
    mantissa = load(acc, 2 * w, like)
    lowest = load(acc, 3 * w, like)
    delta = state[j * w :]
    row = 0
    for _ in range(steps):
        v = load(ws, row + SLOT_Y * w, like)
        for i in range(nb):
            v = v - load(state, i * b * w, like)
        d = _gain(prior, delta, gains, nb, b, like) + load(ws, row + SLOT_R * w, like)
        inv = 1.0 / d
        u = v * inv
        quad = quad + v * u
        lowest = select_less(lowest, d, lowest, d)
        power, fraction = exponent_and_mantissa(select_less(d, 1e300, d, 1.0))
        exponent = exponent + power
        mantissa = mantissa * fraction
        store(ws, row + SLOT_INVD * w, inv)
        store(ws, row + SLOT_U * w, u)
        for k in range(j):
            gain = load(gains, k * w, like)
            store(ws, row + (slot_g + k) * w, gain * inv)
            store(ws, row + (slot_m + k) * w, load(state, k * w, like) + gain * u)
        position = 0
        e_base = row + slot_e * w
        for i in range(nb):
            for k in range(i + 1):
                for r in range(b):
                    gain = load(gains, (i * b + r) * w, like)
                    for q in range(b):
                        value = load(delta, position * w, like) + gain * load(ws, row + (slot_g + k * b + q) * w, like)
                        store(ws, e_base + position * w, value)
                        position += 1
        a_base = row + SLOT_A * w
        _advance(ws, a_base, ws, row + slot_m * w, w, state, 0, nb, b, like)
        _congruence(ws, a_base, ws, e_base, delta, nb, b, like)
        row += slots * w
    store(acc, 0, quad)
    store(acc, w, exponent)
    store(acc, 2 * w, mantissa)
    store(acc, 3 * w, lowest)


@numba.njit(**OPTIONS)
def element_n(order, ws, steps, prior, element, like):  # type: ignore[no-untyped-def]
    """Map of a block of rows as a function of the state that enters it: m, Delta, T (J x J), J (J x J), eta."""
    w = width_of(like)
    nb, b = shape_n(order)
    j = nb * b
    triangle = nb * (nb + 1) // 2 * b * b
    slots = sizes_n(order)[0]
    mean = element[: j * w]
    delta = element[j * w : (j + triangle) * w]
    response = element[(j + triangle) * w : (j + triangle + j * j) * w]
    information = element[(j + triangle + j * j) * w : (j + triangle + 2 * j * j) * w]
    eta = element[(j + triangle + 2 * j * j) * w :]
    for k in range(element.shape[0]):
        element[k] = 0.0
    for k in range(triangle):
        store(delta, k * w, load(prior, (j + k) * w, like))
    for k in range(j):
        store(response, (k * j + k) * w, broadcast(1.0, like))
    gains = np.empty(j * w)
    seen = np.empty(j * w)
    updated = np.empty(triangle * w)
    moved = np.empty(j * j * w)
    row = 0
    for _ in range(steps):
        v = load(ws, row + SLOT_Y * w, like)
        for i in range(nb):
            v = v - load(mean, i * b * w, like)
        inv = 1.0 / (_gain(prior, delta, gains, nb, b, like) + load(ws, row + SLOT_R * w, like))
        u = v * inv
        for k in range(j):
            total = load(response, k * w, like)
            for i in range(1, nb):
                total = total + load(response, (i * b * j + k) * w, like)
            store(seen, k * w, total)
            store(eta, k * w, load(eta, k * w, like) + total * u)
        for k in range(j):
            scaled = load(seen, k * w, like) * inv
            for q in range(k + 1):
                at = (k * j + q) * w
                store(information, at, load(information, at, like) + scaled * load(seen, q * w, like))
        for k in range(j):
            gain = load(gains, k * w, like)
            store(moved, k * w, load(mean, k * w, like) + gain * u)
        a_base = row + SLOT_A * w
        _advance(ws, a_base, moved, 0, w, mean, 0, nb, b, like)
        for k in range(j):
            g = load(gains, k * w, like) * inv
            for q in range(j):
                at = (k * j + q) * w
                store(moved, at, load(response, at, like) - g * load(seen, q * w, like))
        for q in range(j):
            _advance(ws, a_base, moved, q * w, j * w, response, q * w, nb, b, like)
        position = 0
        for i in range(nb):
            for k in range(i + 1):
                for r in range(b):
                    g = load(gains, (i * b + r) * w, like) * inv
                    for q in range(b):
                        value = load(delta, position * w, like) + g * load(gains, (k * b + q) * w, like)
                        store(updated, position * w, value)
                        position += 1
        _congruence(ws, a_base, updated, 0, delta, nb, b, like)
        row += slots * w


@numba.njit(**OPTIONS)
def _dense(matrix, lane, w, nb, b):  # type: ignore[no-untyped-def]
    """One lane of a block-triangular record as a dense symmetric matrix."""
    j = nb * b
    out = np.empty((j, j))
    position = 0
    for i in range(nb):
        for k in range(i + 1):
            for r in range(b):
                for q in range(b):
                    value = load(matrix, position * w + lane, 0.0)
                    out[i * b + r, k * b + q] = value
                    out[k * b + q, i * b + r] = value
                    position += 1
    return out


@numba.njit(**OPTIONS)
def _undense(dense, matrix, lane, w, nb, b):  # type: ignore[no-untyped-def]
    position = 0
    for i in range(nb):
        for k in range(i + 1):
            for r in range(b):
                for q in range(b):
                    value = 0.5 * (dense[i * b + r, k * b + q] + dense[k * b + q, i * b + r])
                    store(matrix, position * w + lane, value)
                    position += 1


@numba.njit(**OPTIONS)
def _solve_small(matrix, right):  # type: ignore[no-untyped-def]
    """``matrix^-1 right`` by Gaussian elimination with partial pivoting; both arguments are overwritten."""
    n = matrix.shape[0]
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(matrix[i, k]) > abs(matrix[pivot, k]):
                pivot = i
        if pivot != k:
            for c in range(n):
                matrix[k, c], matrix[pivot, c] = matrix[pivot, c], matrix[k, c]
            for c in range(right.shape[1]):
                right[k, c], right[pivot, c] = right[pivot, c], right[k, c]
        scale = 1.0 / matrix[k, k]
        for c in range(k, n):
            matrix[k, c] *= scale
        for c in range(right.shape[1]):
            right[k, c] *= scale
        for i in range(n):
            if i != k:
                factor = matrix[i, k]
                for c in range(k, n):
                    matrix[i, c] -= factor * matrix[k, c]
                for c in range(right.shape[1]):
                    right[i, c] -= factor * right[k, c]
    return right


@numba.njit(**OPTIONS)
def _multiply(x, y):  # type: ignore[no-untyped-def]
    out = np.zeros((x.shape[0], y.shape[1]))
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            for c in range(y.shape[1]):
                out[i, c] += x[i, k] * y[k, c]
    return out


@numba.njit(**OPTIONS)
def _closed_loop_n(block, nb, prior, element, lane, w, delta):  # type: ignore[no-untyped-def]
    """``E = P_inf - Delta``, ``J``, ``M = (I + E J)^-1`` and ``T`` of one lane, dense."""
    b = block
    j = nb * b
    triangle = nb * (nb + 1) // 2 * b * b
    e = _dense(prior[j * w :], lane, w, nb, b) - _dense(delta, lane, w, nb, b)
    t = np.empty((j, j))
    information = np.empty((j, j))
    t_base = j + triangle
    j_base = t_base + j * j
    for i in range(j):
        for k in range(j):
            t[i, k] = load(element, (t_base + i * j + k) * w + lane, 0.0)
            information[i, k] = load(element, (j_base + max(i, k) * j + min(i, k)) * w + lane, 0.0)
    closed = _multiply(e, information)
    inverse = np.zeros((j, j))
    for i in range(j):
        closed[i, i] += 1.0
        inverse[i, i] = 1.0
    return e, information, _solve_small(closed, inverse), t


@numba.njit(**OPTIONS)
def combine_n(order, prior, element, lane, w, state_in, state_out, lane_out):  # type: ignore[no-untyped-def]
    """State that leaves block ``lane`` given the one that enters; written to lane ``lane_out`` of ``state_out``."""
    nb, b = shape_n(order)
    j = nb * b
    triangle = nb * (nb + 1) // 2 * b * b
    e, _, inverse, t = _closed_loop_n(b, nb, prior, element, lane, w, state_in[j * w :])
    closed = _multiply(t, inverse)
    eta = (j + triangle + 2 * j * j) * w + lane
    mean = np.empty((j, 1))
    for i in range(j):
        value = load(state_in, i * w + lane, 0.0)
        for k in range(j):
            value += e[i, k] * load(element, eta + k * w, 0.0)
        mean[i, 0] = value
    mean = _multiply(closed, mean)
    delta = _dense(element[j * w :], lane, w, nb, b) - _multiply(_multiply(closed, e), t.T)
    for i in range(j):
        store(state_out, i * w + lane_out, load(element, i * w + lane, 0.0) + mean[i, 0])
    _undense(delta, state_out[j * w :], lane_out, w, nb, b)


@numba.njit(**OPTIONS)
def combine_adjoint_n(order, prior, element, lane, w, state_in, adjoint, adjoint_out, lane_out):  # type: ignore[no-untyped-def]
    """Adjoint that leaves block ``lane`` backwards, given the one at its end."""
    nb, b = shape_n(order)
    j = nb * b
    triangle = nb * (nb + 1) // 2 * b * b
    _, information, inverse, t = _closed_loop_n(b, nb, prior, element, lane, w, state_in[j * w :])
    closed = _multiply(t, inverse)
    later = _dense(adjoint[j * w :], lane, w, nb, b)
    eta = (j + triangle + 2 * j * j) * w + lane
    residual = np.empty(j)
    for i in range(j):
        value = load(element, eta + i * w, 0.0)
        for k in range(j):
            value -= information[i, k] * load(state_in, k * w + lane, 0.0)
        residual[i] = value
    lam = np.empty(j)
    for i in range(j):
        value = 0.0
        for k in range(j):
            value += inverse[k, i] * residual[k] + closed[k, i] * load(adjoint, k * w + lane, 0.0)
        lam[i] = value
    result = _multiply(information, inverse) + _multiply(closed.T, _multiply(later, closed))
    for i in range(j):
        store(adjoint_out, i * w + lane_out, lam[i])
    _undense(result, adjoint_out[j * w :], lane_out, w, nb, b)


@numba.njit(**OPTIONS)
def _symmetric(matrix, base, i, r, k, q, b, w, like):  # type: ignore[no-untyped-def]
    """Entry ((i, r), (k, q)) of a block-triangular record that starts at ``base`` words."""
    bb = b * b
    if i >= k:
        return load(matrix, base + ((i * (i + 1) // 2 + k) * bb + r * b + q) * w, like)
    return load(matrix, base + ((k * (k + 1) // 2 + i) * bb + q * b + r) * w, like)


@numba.njit(**OPTIONS)
def _downdate(source, source_base, seen, kappa, out, base, nb, b, like):  # type: ignore[no-untyped-def]
    """``out = C - h f^T - f h^T + kappa h h^T`` for a block-triangular C."""
    w = width_of(like)
    position = 0
    for i in range(nb):
        for k in range(i + 1):
            for r in range(b):
                for q in range(b):
                    value = load(source, source_base + position, like)
                    if r == 0:
                        value = value - load(seen, (k * b + q) * w, like)
                    if q == 0:
                        value = value - load(seen, (i * b + r) * w, like)
                    if r == 0 and q == 0:
                        value = value + kappa
                    store(out, base + position, value)
                    position += w


@numba.njit(**OPTIONS)
def reverse_n(order, ws, steps, weights, adjoint, grad_p, like):  # type: ignore[no-untyped-def]
    """Adjoint of ``steps`` rows, last to first; see :func:`gpkit.recursions.order2.reverse2`."""
    w = width_of(like)
    nb, b = shape_n(order)
    bb = b * b
    j = nb * b
    slots = sizes_n(order)[0]
    slot_g, slot_m, slot_e, slot_abar = _offsets(nb, b)
    wq = load(weights, 0, like)
    wd = load(weights, w, like)
    pulled = np.empty(j * w)
    smoothed = np.empty(j * w)
    product = np.empty(j * j * w)
    info_base = j * w
    row = (steps - 1) * slots * w
    for _ in range(steps):
        a_base = row + SLOT_A * w
        e_base = row + slot_e * w
        for i in range(nb):
            for q in range(b):
                total = broadcast(0.0, like)
                for r in range(b):
                    total = total + load(ws, a_base + (i * bb + r * b + q) * w, like) * load(
                        adjoint, (i * b + r) * w, like
                    )
                store(pulled, (i * b + q) * w, total)
        for i in range(nb):
            for r in range(b):
                total = load(ws, row + (slot_m + i * b + r) * w, like)
                for k in range(nb):
                    for q in range(b):
                        total = total - _symmetric(ws, e_base, i, r, k, q, b, w, like) * load(
                            pulled, (k * b + q) * w, like
                        )
                store(smoothed, (i * b + r) * w, wq * total)
        # product = Lam A, by blocks of columns
        for i in range(nb):
            for k in range(nb):
                for r in range(b):
                    for q in range(b):
                        total = broadcast(0.0, like)
                        for z in range(b):
                            total = total + _symmetric(adjoint, info_base, i, r, k, z, b, w, like) * load(
                                ws, a_base + (k * bb + z * b + q) * w, like
                            )
                        store(product, ((i * b + r) * j + k * b + q) * w, total)
        for i in range(nb):
            for r in range(b):
                lam = load(adjoint, (i * b + r) * w, like)
                for q in range(b):
                    total = broadcast(0.0, like)
                    for k in range(nb):
                        for z in range(b):
                            total = total + load(product, ((i * b + r) * j + k * b + z) * w, like) * _symmetric(
                                ws, e_base, k, z, i, q, b, w, like
                            )
                    value = lam * load(smoothed, (i * b + q) * w, like) + wd * total
                    store(ws, row + (slot_abar + i * bb + r * b + q) * w, value)
        # Lam <- A^T (Lam A)
        position = info_base
        for i in range(nb):
            for k in range(i + 1):
                for r in range(b):
                    for q in range(b):
                        total = broadcast(0.0, like)
                        for z in range(b):
                            total = total + load(ws, a_base + (i * bb + z * b + r) * w, like) * load(
                                product, ((i * b + z) * j + k * b + q) * w, like
                            )
                        store(adjoint, position, total)
                        position += w
        alpha = load(ws, row + SLOT_U * w, like)
        kappa = load(ws, row + SLOT_INVD * w, like)
        for i in range(nb):
            for r in range(b):
                total = broadcast(0.0, like)
                for k in range(nb):
                    for q in range(b):
                        total = total + _symmetric(adjoint, info_base, i, r, k, q, b, w, like) * load(
                            ws, row + (slot_g + k * b + q) * w, like
                        )
                g = load(ws, row + (slot_g + i * b + r) * w, like)
                alpha = alpha - g * load(pulled, (i * b + r) * w, like)
                kappa = kappa + g * total
                store(smoothed, (i * b + r) * w, total)
        store(ws, row + SLOT_Y * w, alpha)
        store(ws, row + SLOT_R * w, kappa)
        for i in range(nb):
            for r in range(b):
                at = (i * b + r) * w
                c = load(pulled, at, like)
                f = load(smoothed, at, like)
                if r == 0:
                    store(adjoint, at, c + alpha)
                    c = c + 0.5 * alpha
                    f = f - 0.5 * kappa
                else:
                    store(adjoint, at, c)
                store(grad_p, at, load(grad_p, at, like) + wq * alpha * c + wd * f)
        _downdate(adjoint, info_base, smoothed, kappa, adjoint, info_base, nb, b, like)
        row -= slots * w


@numba.njit(**OPTIONS)
def smooth_n(order, ws, steps, prior, adjoint, like):  # type: ignore[no-untyped-def]
    """Posterior mean and variance of every row, last to first; see :func:`gpkit.recursions.order2.smooth2`."""
    w = width_of(like)
    nb, b = shape_n(order)
    bb = b * b
    j = nb * b
    slots = sizes_n(order)[0]
    slot_g, slot_m, slot_e, _ = _offsets(nb, b)
    info_base = j * w
    pulled = np.empty(j * w)
    column = np.empty(j * w)
    seen = np.empty(j * w)
    product = np.empty(nb * (nb + 1) // 2 * bb * w)
    transposed = np.empty(nb * bb * w)
    row = (steps - 1) * slots * w
    for _ in range(steps):
        a_base = row + SLOT_A * w
        e_base = row + slot_e * w
        for i in range(nb):
            for r in range(b):
                for q in range(b):
                    store(transposed, (i * bb + q * b + r) * w, load(ws, a_base + (i * bb + r * b + q) * w, like))
        _advance(transposed, 0, adjoint, 0, w, pulled, 0, nb, b, like)
        _congruence(transposed, 0, adjoint, info_base, product, nb, b, like)
        mean = broadcast(0.0, like)
        variance = mean
        for i in range(nb):
            mean = mean + load(ws, row + (slot_m + i * b) * w, like)
            for r in range(b):
                value = load(prior, (i * b + r) * w, like)
                for k in range(nb):
                    value = value - _symmetric(ws, e_base, i, r, k, 0, b, w, like)
                store(column, (i * b + r) * w, value)
            variance = variance + load(column, i * b * w, like)
        for i in range(nb):
            for r in range(b):
                s = load(column, (i * b + r) * w, like)
                mean = mean + s * load(pulled, (i * b + r) * w, like)
                total = broadcast(0.0, like)
                for k in range(nb):
                    for q in range(b):
                        total = total + _symmetric(product, 0, i, r, k, q, b, w, like) * load(
                            column, (k * b + q) * w, like
                        )
                variance = variance - s * total
        store(ws, row + SLOT_Y * w, mean)
        store(ws, row + SLOT_R * w, variance)
        alpha = load(ws, row + SLOT_U * w, like)
        kappa = load(ws, row + SLOT_INVD * w, like)
        for i in range(nb):
            for r in range(b):
                total = broadcast(0.0, like)
                for k in range(nb):
                    for q in range(b):
                        total = total + _symmetric(product, 0, i, r, k, q, b, w, like) * load(
                            ws, row + (slot_g + k * b + q) * w, like
                        )
                g = load(ws, row + (slot_g + i * b + r) * w, like)
                alpha = alpha - g * load(pulled, (i * b + r) * w, like)
                kappa = kappa + g * total
                store(seen, (i * b + r) * w, total)
        for k in range(j):
            value = load(pulled, k * w, like)
            store(adjoint, k * w, value + alpha if k % b == 0 else value)
        _downdate(product, 0, seen, kappa, adjoint, info_base, nb, b, like)
        row -= slots * w


@numba.njit(**OPTIONS)
def unpack_n(order, ws, row, flat, base, size):  # type: ignore[no-untyped-def]
    """Copy a row's transition (at word ``row``) to ``flat``."""
    for k in range(size):
        store(flat, base + k, load(ws, row + k, 0.0))


@numba.njit(**OPTIONS)
def pack_n(order, ws, row, first, flat, flat_bar, base, size, valid):  # type: ignore[no-untyped-def]
    """Copy a transition and its derivative into a row; the derivative is zero where not ``valid``."""
    bar = row + _offsets(*shape_n(order))[3]
    for k in range(size):
        store(ws, row + first + k, load(flat, base + k, 0.0))
        store(ws, bar + k, load(flat_bar, base + k, 0.0) if valid else 0.0)
