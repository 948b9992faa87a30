"""Filter, block element and adjoint for a one-dimensional state: the damped random walk (Ornstein-Uhlenbeck).

The scalar counterpart of :mod:`gpkit.recursions.order2`, which explains the quantities.
"""

from __future__ import annotations

from gpkit.recursions.compilation import uncounted
from gpkit.recursions.elementary import pivot_margin
from gpkit.recursions.simd import (
    broadcast,
    exponent_and_mantissa,
    load,
    select_less,
    store,
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


@uncounted
def sizes1(order):
    """``(slots, state, element, adjoint, prior)`` in words per lane."""
    return SLOTS, STATE, ELEMENT, ADJOINT, PRIOR


@uncounted
def dimension1(order):
    """State dimension."""
    return 1


@uncounted
def total_variance1(order, prior, lane, w):
    """k(0) of one lane."""
    return load(prior, lane, 0.0)


@uncounted
def diagonal1(order, component):
    """Word of a state or adjoint record, and of the prior, that holds a diagonal entry."""
    return 1, 0


@uncounted
def inverse_slot1(order):
    """Slot of the reciprocal innovation variance."""
    return SLOT_INVD


@uncounted
def transition_slot1(order):
    """First slot of the transition."""
    return SLOT_A


@uncounted
def forward1(order, ws, steps, prior, state, acc, like):
    """Filter ``steps`` rows from ``state`` (updated in place); adds inv_quad, exponent and mantissa to ``acc``."""
    p = load(prior, 0, like)
    m = load(state, 0, like)
    delta = load(state, 1, like)
    quad = load(acc, 0, like)
    exponent = load(acc, 1, like)
    mantissa = load(acc, 2, like)
    lowest = load(acc, 3, like)
    row = 0
    for _ in range(steps):
        y = load(ws, row + SLOT_Y, like)
        r = load(ws, row + SLOT_R, like)
        a = load(ws, row + SLOT_A, like)
        gain = p - delta
        d = gain + r
        inv = 1.0 / d
        v = y - m
        u = v * inv
        g = gain * inv
        n = m + gain * u
        e = delta + gain * g
        quad = quad + v * u
        margin = pivot_margin(d, p + r)
        lowest = select_less(lowest, margin, lowest, margin)
        power, fraction = exponent_and_mantissa(select_less(d, 1e300, d, 1.0))
        exponent = exponent + power
        mantissa = mantissa * fraction
        store(ws, row + SLOT_G, g)
        store(ws, row + SLOT_INVD, inv)
        store(ws, row + SLOT_U, u)
        store(ws, row + SLOT_M, n)
        store(ws, row + SLOT_E, e)
        m = a * n
        delta = a * (a * e)
        row += SLOTS
    store(state, 0, m)
    store(state, 1, delta)
    store(acc, 0, quad)
    store(acc, 1, exponent)
    store(acc, 2, mantissa)
    store(acc, 3, lowest)


@uncounted
def element1(order, ws, steps, prior, element, like):
    """Map of a block of rows as a function of the state that enters it (an associative-scan element)."""
    p = load(prior, 0, like)
    delta = p
    m = broadcast(0.0, like)
    t = broadcast(1.0, like)
    information = m
    eta = m
    row = 0
    for _ in range(steps):
        y = load(ws, row + SLOT_Y, like)
        r = load(ws, row + SLOT_R, like)
        a = load(ws, row + SLOT_A, like)
        gain = p - delta
        inv = 1.0 / (gain + r)
        u = (y - m) * inv
        g = gain * inv
        information = information + t * inv * t
        eta = eta + t * u
        m = a * (m + gain * u)
        t = a * (t - g * t)
        delta = a * (a * (delta + gain * g))
        row += SLOTS
    store(element, 0, m)
    store(element, 1, delta)
    store(element, 2, t)
    store(element, 3, information)
    store(element, 4, eta)


@uncounted
def combine1(order, prior, element, lane, w, state_in, state_out, lane_out):
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


@uncounted
def combine_adjoint1(order, prior, element, lane, w, state_in, adjoint, adjoint_out, lane_out):
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


@uncounted
def reverse1(order, ws, steps, weights, adjoint, grad_p, like):
    """Adjoint of ``steps`` rows, last to first; see :func:`gpkit.recursions.order2.reverse2`."""
    wq = load(weights, 0, like)
    wd = load(weights, 1, like)
    lam = load(adjoint, 0, like)
    info = load(adjoint, 1, like)
    p = load(grad_p, 0, like)
    row = (steps - 1) * SLOTS
    for _ in range(steps):
        a = load(ws, row + SLOT_A, like)
        g = load(ws, row + SLOT_G, like)
        inv = load(ws, row + SLOT_INVD, like)
        u = load(ws, row + SLOT_U, like)
        n = load(ws, row + SLOT_M, like)
        e = load(ws, row + SLOT_E, like)
        c = a * lam
        ra = info * a
        store(ws, row + SLOT_ABAR, wq * lam * (n - e * c) + wd * ra * e)
        cc = a * ra
        f = cc * g
        alpha = u - g * c
        kappa = inv + g * f
        store(ws, row + SLOT_ALPHA, alpha)
        store(ws, row + SLOT_KAPPA, kappa)
        p = p + wq * alpha * (c + 0.5 * alpha) + wd * (f - 0.5 * kappa)
        lam = c + alpha
        info = cc - 2.0 * f + kappa
        row -= SLOTS
    store(adjoint, 0, lam)
    store(adjoint, 1, info)
    store(grad_p, 0, p)


@uncounted
def smooth1(order, ws, steps, prior, adjoint, like):
    """Posterior mean and variance of every row, last to first; see :func:`gpkit.recursions.order2.smooth2`."""
    lam = load(adjoint, 0, like)
    info = load(adjoint, 1, like)
    variance = load(prior, 0, like)
    row = (steps - 1) * SLOTS
    for _ in range(steps):
        a = load(ws, row + SLOT_A, like)
        g = load(ws, row + SLOT_G, like)
        c = a * lam
        cc = a * (info * a)
        spread = variance - load(ws, row + SLOT_E, like)
        store(ws, row + SLOT_ALPHA, load(ws, row + SLOT_M, like) + spread * c)
        store(ws, row + SLOT_KAPPA, spread - spread * cc * spread)
        f = cc * g
        lam = c + load(ws, row + SLOT_U, like) - g * c
        info = cc - 2.0 * f + load(ws, row + SLOT_INVD, like) + g * f
        row -= SLOTS
    store(adjoint, 0, lam)
    store(adjoint, 1, info)


@uncounted
def unpack1(order, ws, row, flat, base, size):
    """Copy a row's transition (at word ``row``) to ``flat``."""
    store(flat, base, load(ws, row, 0.0))


@uncounted
def pack1(order, ws, row, first, flat, flat_bar, base, size, valid):
    """Copy a transition and its derivative into a row; the derivative is zero where not ``valid``."""
    store(ws, row + SLOT_A, load(flat, base, 0.0))
    store(ws, row + SLOT_ABAR, load(flat_bar, base, 0.0) if valid else 0.0)
