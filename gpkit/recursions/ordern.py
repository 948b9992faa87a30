"""Filter, block element and adjoint for a state of any dimension with a block-diagonal transition.

Sums of kernels stack blocks; products are Kronecker products inside a block. All blocks are padded to one size ``b``
and ``h`` is the first unit vector of every block, so the state has ``J = nb * b`` dimensions. The recursion, the
element and the adjoint are those of :mod:`gpkit.recursions.order2`, written with loops over vectors of lanes in memory
(:mod:`gpkit.recursions.blockwise` describes the records). A sweep keeps its temporaries in slots of the row that it
has yet to write and in the spare rows after the last.
"""

from __future__ import annotations

from gpkit.recursions.blockwise import (
    SLOT_A,
    SLOT_INVD,
    SLOT_R,
    SLOT_U,
    SLOT_Y,
    advance,
    advance_transposed,
    congruence,
    downdate,
    entry,
    gain,
    multiply,
    offsets,
    rank_one,
    shape_n,
    sizes_n,
    triangle_words,
)
from gpkit.recursions.compilation import uncounted
from gpkit.recursions.elementary import pivot_margin
from gpkit.recursions.simd import broadcast, exponent_and_mantissa, load, select_less, store, view, width_of


@uncounted
def forward_n(order, ws, steps, prior, state, acc, like):
    """Filter ``steps`` rows from ``state`` (updated in place); adds inv_quad, exponent and mantissa to ``acc``."""
    nb, b = shape_n(order)
    j = nb * b
    slots = sizes_n(order)[0]
    slot_g, slot_m, slot_e, slot_w = offsets(nb, b)
    quad = load(acc, 0, like)
    exponent = load(acc, 1, like)
    mantissa = load(acc, 2, like)
    lowest = load(acc, 3, like)
    variance = load(prior, 0, like)
    for i in range(1, nb):
        variance = variance + load(prior, i * b, like)
    row = 0
    for _ in range(steps):
        v = load(ws, row + SLOT_Y, like)
        for i in range(nb):
            v = v - load(state, i * b, like)
        r = load(ws, row + SLOT_R, like)
        d = gain(prior, state, j, ws, row + slot_w, nb, b, like) + r
        inv = 1.0 / d
        u = v * inv
        quad = quad + v * u
        margin = pivot_margin(d, variance + r)
        lowest = select_less(lowest, margin, lowest, margin)
        power, fraction = exponent_and_mantissa(select_less(d, 1e300, d, 1.0))
        exponent = exponent + power
        mantissa = mantissa * fraction
        store(ws, row + SLOT_INVD, inv)
        store(ws, row + SLOT_U, u)
        for k in range(j):
            w = load(ws, row + slot_w + k, like)
            store(ws, row + slot_g + k, w * inv)
            store(ws, row + slot_m + k, load(state, k, like) + w * u)
        rank_one(state, j, row + slot_w, row + slot_g, ws, row + slot_e, ws, nb, b, like)
        advance(ws, row + SLOT_A, ws, row + slot_m, state, 0, 1, nb, b, like)
        congruence(ws, row + SLOT_A, ws, row + slot_e, state, j, nb, b, like)
        row += slots
    store(acc, 0, quad)
    store(acc, 1, exponent)
    store(acc, 2, mantissa)
    store(acc, 3, lowest)


@uncounted
def element_n(order, ws, steps, prior, element, like):
    """Map of a block of rows as a function of the state that enters it: m, Delta, T (J x J), J (J x J), eta."""
    nb, b = shape_n(order)
    j = nb * b
    slots = sizes_n(order)[0]
    slot_seen, slot_m, slot_e, slot_w = offsets(nb, b)
    response = j + triangle_words(nb, b)
    information = response + j * j
    eta = information + j * j
    for k in range(eta + j):
        store(element, k, broadcast(0.0, like))
    for k in range(j, response):
        store(element, k, load(prior, k, like))
    for k in range(j):
        store(element, response + k * j + k, broadcast(1.0, like))
    row = 0
    for _ in range(steps):
        v = load(ws, row + SLOT_Y, like)
        for i in range(nb):
            v = v - load(element, i * b, like)
        inv = 1.0 / (gain(prior, element, j, ws, row + slot_w, nb, b, like) + load(ws, row + SLOT_R, like))
        u = v * inv
        for k in range(j):
            total = load(element, response + k, like)
            for i in range(1, nb):
                total = total + load(element, response + i * b * j + k, like)
            store(ws, row + slot_seen + k, total)
            store(element, eta + k, load(element, eta + k, like) + total * u)
            scaled = total * inv
            for q in range(k + 1):
                at = information + k * j + q
                store(element, at, load(element, at, like) + scaled * load(ws, row + slot_seen + q, like))
        for k in range(j):
            value = load(element, k, like) + load(ws, row + slot_w + k, like) * u
            store(ws, row + slot_m + k, value)
        advance(ws, row + SLOT_A, ws, row + slot_m, element, 0, 1, nb, b, like)
        for q in range(j):
            seen = load(ws, row + slot_seen + q, like) * inv
            for k in range(j):
                value = load(element, response + k * j + q, like) - load(ws, row + slot_w + k, like) * seen
                store(ws, row + slot_m + k, value)
            store(ws, row + slot_seen + q, load(ws, row + slot_w + q, like) * inv)
            advance(ws, row + SLOT_A, ws, row + slot_m, element, response + q, j, nb, b, like)
        rank_one(element, j, row + slot_w, row + slot_seen, ws, row + slot_e, ws, nb, b, like)
        congruence(ws, row + SLOT_A, ws, row + slot_e, element, j, nb, b, like)
        row += slots


@uncounted
def reverse_n(order, ws, steps, weights, adjoint, grad_p, like):
    """Adjoint of ``steps`` rows, last to first; see :func:`gpkit.recursions.order2.reverse2`."""
    nb, b = shape_n(order)
    bb = b * b
    j = nb * b
    slots = sizes_n(order)[0]
    slot_g, slot_m, slot_e, slot_abar = offsets(nb, b)
    wq = load(weights, 0, like)
    wd = load(weights, 1, like)
    scratch = view(ws, steps * slots * width_of(like))
    smoothed = j
    product = 2 * j
    row = (steps - 1) * slots
    for _ in range(steps):
        transition = row + SLOT_A
        e_base = row + slot_e
        advance_transposed(ws, transition, adjoint, scratch, nb, b, like)
        multiply(ws, e_base, scratch, 0, scratch, smoothed, nb, b, like)
        for k in range(j):
            value = load(ws, row + slot_m + k, like) - load(scratch, smoothed + k, like)
            store(scratch, smoothed + k, wq * value)
        # product = Lam A, by blocks of columns
        for i in range(nb):
            for k in range(nb):
                for r in range(b):
                    for q in range(b):
                        total = broadcast(0.0, like)
                        for z in range(b):
                            total = total + entry(adjoint, j, i, r, k, z, b, like) * load(
                                ws, transition + k * bb + z * b + q, like
                            )
                        store(scratch, product + (i * b + r) * j + k * b + q, total)
        for i in range(nb):
            for r in range(b):
                lam = load(adjoint, i * b + r, like)
                for q in range(b):
                    total = broadcast(0.0, like)
                    place = product + (i * b + r) * j
                    for k in range(nb):
                        for z in range(b):
                            total = total + load(scratch, place, like) * entry(ws, e_base, k, z, i, q, b, like)
                            place += 1
                    value = lam * load(scratch, smoothed + i * b + q, like) + wd * total
                    store(ws, row + slot_abar + i * bb + r * b + q, value)
        # Lam <- A^T (Lam A)
        position = j
        for i in range(nb):
            for k in range(i + 1):
                for r in range(b):
                    for q in range(b):
                        total = broadcast(0.0, like)
                        for z in range(b):
                            total = total + load(ws, transition + i * bb + z * b + r, like) * load(
                                scratch, product + (i * b + z) * j + k * b + q, like
                            )
                        store(adjoint, position, total)
                        position += 1
        multiply(adjoint, j, ws, row + slot_g, scratch, smoothed, nb, b, like)
        alpha, kappa = leave_out(ws, row, slot_g, scratch, j, like)
        store(ws, row + SLOT_Y, alpha)
        store(ws, row + SLOT_R, kappa)
        for k in range(j):
            c = load(scratch, k, like)
            f = load(scratch, smoothed + k, like)
            if k % b == 0:
                store(adjoint, k, c + alpha)
                c = c + 0.5 * alpha
                f = f - 0.5 * kappa
            else:
                store(adjoint, k, c)
            store(grad_p, k, load(grad_p, k, like) + wq * alpha * c + wd * f)
        downdate(adjoint, j, scratch, smoothed, kappa, adjoint, j, nb, b, like)
        row -= slots


@uncounted
def leave_out(ws, row, slot_g, scratch, j, like):
    """``alpha`` and ``kappa`` of a row from c, then C g, in ``scratch``."""
    alpha = load(ws, row + SLOT_U, like)
    kappa = load(ws, row + SLOT_INVD, like)
    for k in range(j):
        g = load(ws, row + slot_g + k, like)
        alpha = alpha - g * load(scratch, k, like)
        kappa = kappa + g * load(scratch, j + k, like)
    return alpha, kappa


@uncounted
def smooth_n(order, ws, steps, prior, adjoint, like):
    """Posterior mean and variance of every row, last to first; see :func:`gpkit.recursions.order2.smooth2`."""
    nb, b = shape_n(order)
    bb = b * b
    j = nb * b
    slots = sizes_n(order)[0]
    slot_g, slot_m, slot_e, transposed = offsets(nb, b)
    scratch = view(ws, steps * slots * width_of(like))
    seen = j
    column = 2 * j
    information = 3 * j
    row = (steps - 1) * slots
    for _ in range(steps):
        for i in range(nb):
            for r in range(b):
                for q in range(b):
                    value = load(ws, row + SLOT_A + i * bb + r * b + q, like)
                    store(ws, row + transposed + i * bb + q * b + r, value)
        advance(ws, row + transposed, adjoint, 0, scratch, 0, 1, nb, b, like)
        congruence(ws, row + transposed, adjoint, j, scratch, information, nb, b, like)
        variance = gain(prior, ws, row + slot_e, scratch, column, nb, b, like)
        multiply(scratch, information, scratch, column, scratch, seen, nb, b, like)
        mean = broadcast(0.0, like)
        for k in range(j):
            s = load(scratch, column + k, like)
            mean = mean + s * load(scratch, k, like)
            variance = variance - s * load(scratch, seen + k, like)
            if k % b == 0:
                mean = mean + load(ws, row + slot_m + k, like)
        store(ws, row + SLOT_Y, mean)
        store(ws, row + SLOT_R, variance)
        multiply(scratch, information, ws, row + slot_g, scratch, seen, nb, b, like)
        alpha, kappa = leave_out(ws, row, slot_g, scratch, j, like)
        for k in range(j):
            value = load(scratch, k, like)
            store(adjoint, k, value + alpha if k % b == 0 else value)
        downdate(scratch, information, scratch, seen, kappa, adjoint, j, nb, b, like)
        row -= slots


@uncounted
def unpack_n(order, ws, row, flat, base, size):
    """Copy a row's transition (at word ``row``) to ``flat``."""
    for k in range(size):
        store(flat, base + k, load(ws, row + k, 0.0))


@uncounted
def pack_n(order, ws, row, first, flat, flat_bar, base, size, valid):
    """Copy a transition and its derivative into a row; the derivative is zero where not ``valid``."""
    nb, b = shape_n(order)
    bar = row + offsets(nb, b)[3]
    for k in range(size):
        store(ws, row + first + k, load(flat, base + k, 0.0))
        store(ws, bar + k, load(flat_bar, base + k, 0.0) if valid else 0.0)
