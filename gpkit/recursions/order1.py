"""Filter, block element and adjoint for a one-dimensional state: the damped random walk (Ornstein-Uhlenbeck).

The scalar counterpart of :mod:`gpkit.recursions.order2`, which explains the quantities.
"""

from __future__ import annotations

import numba

from gpkit.recursions.compilation import OPTIONS
from gpkit.recursions.simd import (
    broadcast,
    exponent_and_mantissa,
    load,
    select_less,
    store,
    width_of,
)

SLOT_DT, SLOT_Y, SLOT_R, SLOT_TDOT = 0, 1, 2, 3
SLOT_A, SLOT_G, SLOT_INVD, SLOT_U, SLOT_M, SLOT_E = 4, 5, 6, 7, 8, 9
SLOTS = 10
SLOT_ABAR = SLOT_G
SLOT_ALPHA, SLOT_KAPPA = SLOT_Y, SLOT_R

STATE = 2
"""m, d."""
ELEMENT = 5
"""b, c, t, j, eta."""
ADJOINT = 2
"""lam, Lam."""
PRIOR = 1
"""p."""


@numba.njit(**OPTIONS)
def sizes1(order):  # type: ignore[no-untyped-def]
    """``(slots, state, element, adjoint, prior)`` in words per lane."""
    return SLOTS, STATE, ELEMENT, ADJOINT, PRIOR


@numba.njit(**OPTIONS)
def dimension1(order):  # type: ignore[no-untyped-def]
    """State dimension."""
    return 1


@numba.njit(**OPTIONS)
def inverse_slot1(order):  # type: ignore[no-untyped-def]
    """Slot of the reciprocal innovation variance."""
    return SLOT_INVD


@numba.njit(**OPTIONS)
def transition_slot1(order):  # type: ignore[no-untyped-def]
    """First slot of the transition."""
    return SLOT_A


@numba.njit(**OPTIONS)
def forward1(order, ws, steps, prior, state, acc, like):  # type: ignore[no-untyped-def]
    """Filter ``steps`` rows from ``state`` (updated in place); adds inv_quad, exponent and mantissa to ``acc``."""
    w = width_of(like)
    p = load(prior, 0, like)
    m = load(state, 0, like)
    delta = load(state, w, like)
    quad = load(acc, 0, like)
    exponent = load(acc, w, like)
    mantissa = load(acc, 2 * w, like)
    lowest = load(acc, 3 * w, like)
    row = 0
    for _ in range(steps):
        y = load(ws, row + SLOT_Y * w, like)
        r = load(ws, row + SLOT_R * w, like)
        a = load(ws, row + SLOT_A * w, like)
        gain = p - delta
        d = gain + r
        inv = 1.0 / d
        v = y - m
        u = v * inv
        g = gain * inv
        n = m + gain * u
        e = delta + gain * g
        quad = quad + v * u
        lowest = select_less(lowest, d, lowest, d)
        power, fraction = exponent_and_mantissa(select_less(d, 1e300, d, 1.0))
        exponent = exponent + power
        mantissa = mantissa * fraction
        store(ws, row + SLOT_G * w, g)
        store(ws, row + SLOT_INVD * w, inv)
        store(ws, row + SLOT_U * w, u)
        store(ws, row + SLOT_M * w, n)
        store(ws, row + SLOT_E * w, e)
        m = a * n
        delta = a * (a * e)
        row += SLOTS * w
    store(state, 0, m)
    store(state, w, delta)
    store(acc, 0, quad)
    store(acc, w, exponent)
    store(acc, 2 * w, mantissa)
    store(acc, 3 * w, lowest)


@numba.njit(**OPTIONS)
def element1(order, ws, steps, prior, element, like):  # type: ignore[no-untyped-def]
    """Map of a block of rows as a function of the state that enters it (an associative-scan element)."""
    w = width_of(like)
    p = load(prior, 0, like)
    delta = p
    m = broadcast(0.0, like)
    t = broadcast(1.0, like)
    information = m
    eta = m
    row = 0
    for _ in range(steps):
        y = load(ws, row + SLOT_Y * w, like)
        r = load(ws, row + SLOT_R * w, like)
        a = load(ws, row + SLOT_A * w, like)
        gain = p - delta
        inv = 1.0 / (gain + r)
        u = (y - m) * inv
        g = gain * inv
        information = information + t * inv * t
        eta = eta + t * u
        m = a * (m + gain * u)
        t = a * (t - g * t)
        delta = a * (a * (delta + gain * g))
        row += SLOTS * w
    store(element, 0, m)
    store(element, w, delta)
    store(element, 2 * w, t)
    store(element, 3 * w, information)
    store(element, 4 * w, eta)


@numba.njit(**OPTIONS)
def combine1(order, prior, element, lane, w, state_in, state_out, lane_out):  # type: ignore[no-untyped-def]
    """State that leaves block ``lane`` given the one that enters; written to lane ``lane_out`` of ``state_out``."""
    e = load(prior, lane, 0.0) - load(state_in, w + lane, 0.0)
    t = load(element, 2 * w + lane, 0.0)
    closed = t / (1.0 + e * load(element, 3 * w + lane, 0.0))
    store(
        state_out,
        lane_out,
        load(element, lane, 0.0) + closed * (load(state_in, lane, 0.0) + e * load(element, 4 * w + lane, 0.0)),
    )
    store(state_out, w + lane_out, load(element, w + lane, 0.0) - closed * e * t)


@numba.njit(**OPTIONS)
def combine_adjoint1(order, prior, element, lane, w, state_in, adjoint, adjoint_out, lane_out):  # type: ignore[no-untyped-def]
    """Adjoint that leaves block ``lane`` backwards, given the one at its end."""
    information = load(element, 3 * w + lane, 0.0)
    e = load(prior, lane, 0.0) - load(state_in, w + lane, 0.0)
    scale = 1.0 / (1.0 + e * information)
    closed = load(element, 2 * w + lane, 0.0) * scale
    residual = load(element, 4 * w + lane, 0.0) - information * load(state_in, lane, 0.0)
    lam = load(adjoint, lane, 0.0)
    info = load(adjoint, w + lane, 0.0)
    store(adjoint_out, lane_out, scale * residual + closed * lam)
    store(adjoint_out, w + lane_out, scale * information + closed * closed * info)


@numba.njit(**OPTIONS)
def reverse1(order, ws, steps, weights, adjoint, grad_p, like):  # type: ignore[no-untyped-def]
    """Adjoint of ``steps`` rows, last to first; see :func:`gpkit.recursions.order2.reverse2`."""
    w = width_of(like)
    wq = load(weights, 0, like)
    wd = load(weights, w, like)
    lam = load(adjoint, 0, like)
    info = load(adjoint, w, like)
    p = load(grad_p, 0, like)
    row = (steps - 1) * SLOTS * w
    for _ in range(steps):
        a = load(ws, row + SLOT_A * w, like)
        g = load(ws, row + SLOT_G * w, like)
        inv = load(ws, row + SLOT_INVD * w, like)
        u = load(ws, row + SLOT_U * w, like)
        n = load(ws, row + SLOT_M * w, like)
        e = load(ws, row + SLOT_E * w, like)
        c = a * lam
        ra = info * a
        store(ws, row + SLOT_ABAR * w, wq * lam * (n - e * c) + wd * ra * e)
        cc = a * ra
        f = cc * g
        alpha = u - g * c
        kappa = inv + g * f
        store(ws, row + SLOT_ALPHA * w, alpha)
        store(ws, row + SLOT_KAPPA * w, kappa)
        p = p + wq * alpha * (c + 0.5 * alpha) + wd * (f - 0.5 * kappa)
        lam = c + alpha
        info = cc - 2.0 * f + kappa
        row -= SLOTS * w
    store(adjoint, 0, lam)
    store(adjoint, w, info)
    store(grad_p, 0, p)


@numba.njit(**OPTIONS)
def smooth1(order, ws, steps, prior, adjoint, like):  # type: ignore[no-untyped-def]
    """Posterior mean and variance of every row, last to first; see :func:`gpkit.recursions.order2.smooth2`."""
    w = width_of(like)
    lam = load(adjoint, 0, like)
    info = load(adjoint, w, like)
    variance = load(prior, 0, like)
    row = (steps - 1) * SLOTS * w
    for _ in range(steps):
        a = load(ws, row + SLOT_A * w, like)
        g = load(ws, row + SLOT_G * w, like)
        c = a * lam
        cc = a * (info * a)
        spread = variance - load(ws, row + SLOT_E * w, like)
        store(ws, row + SLOT_ALPHA * w, load(ws, row + SLOT_M * w, like) + spread * c)
        store(ws, row + SLOT_KAPPA * w, spread - spread * cc * spread)
        f = cc * g
        lam = c + load(ws, row + SLOT_U * w, like) - g * c
        info = cc - 2.0 * f + load(ws, row + SLOT_INVD * w, like) + g * f
        row -= SLOTS * w
    store(adjoint, 0, lam)
    store(adjoint, w, info)


@numba.njit(**OPTIONS)
def unpack1(order, ws, row, flat, base, size):  # type: ignore[no-untyped-def]
    """Copy a row's transition (at word ``row``) to ``flat``."""
    store(flat, base, load(ws, row, 0.0))


@numba.njit(**OPTIONS)
def pack1(order, ws, row, first, flat, flat_bar, base, size, valid):  # type: ignore[no-untyped-def]
    """Copy a transition and its derivative into a row; the derivative is zero where not ``valid``."""
    store(ws, row + SLOT_A, load(flat, base, 0.0))
    store(ws, row + SLOT_ABAR, load(flat_bar, base, 0.0) if valid else 0.0)
