"""Filter, block element and adjoint for a two-dimensional state whose transition is ``[[a, s], [-s, b]]``.

SHO, Matern-3/2, cosine and celerite terms all have this form with ``h = (1, 0)``. The recursion carries
``Delta = P_inf - P_predicted`` (symmetric: d11, d12, d22) and the predicted mean (m1, m2); ``p = P_inf h``. Process
noise never appears, and ``Delta`` starts at zero. A datum with infinite noise carries no information.

Workspace rows (one per time step, every slot a scalar or a vector of lanes) are described by the ``SLOT_`` constants.
The adjoint is the Bryson-Frazier smoother: ``lam`` is the derivative of ``-(inv_quad + logdet) / 2`` with respect to
the predicted mean, ``Lam`` the information of later data, and all parameter derivatives follow from them.
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
SLOT_A, SLOT_S, SLOT_B = 4, 5, 6
SLOT_G1, SLOT_G2, SLOT_INVD, SLOT_U = 7, 8, 9, 10
SLOT_M1, SLOT_M2, SLOT_E11, SLOT_E12, SLOT_E22 = 11, 12, 13, 14, 15
SLOTS = 16
# After the adjoint has passed a row these slots hold the derivatives with respect to a, s, b.
SLOT_ABAR, SLOT_SBAR, SLOT_BBAR = SLOT_G1, SLOT_G2, SLOT_INVD
SLOT_ALPHA, SLOT_KAPPA = SLOT_Y, SLOT_R

STATE = 5
"""m1, m2, d11, d12, d22."""
ELEMENT = 14
"""b1, b2, c11, c12, c22, t11, t12, t21, t22, j11, j12, j22, eta1, eta2."""
ADJOINT = 5
"""lam1, lam2, Lam11, Lam12, Lam22."""
PRIOR = 5
"""p1, p2, then the rest x11 = p1, x12 = p2, x22 of P_inf stored as x11, x12, x22 at 2, 3, 4."""


@uncounted
def sizes2(order):
    """``(slots, state, element, adjoint, prior)`` in words per lane."""
    return SLOTS, STATE, ELEMENT, ADJOINT, PRIOR


@uncounted
def dimension2(order):
    """State dimension."""
    return 2


@uncounted
def total_variance2(order, prior, lane, w):
    """k(0) of one lane."""
    return load(prior, lane, 0.0)


@uncounted
def diagonal2(order, component):
    """Word of a state or adjoint record, and of the prior, that holds a diagonal entry."""
    return 2 + 2 * component, 2 + 2 * component


@uncounted
def inverse_slot2(order):
    """Slot of the reciprocal innovation variance."""
    return SLOT_INVD


@uncounted
def transition_slot2(order):
    """First slot of the transition."""
    return SLOT_A


@uncounted
def forward2(order, ws, steps, prior, state, acc, like):
    """Filter ``steps`` rows from ``state`` (updated in place); adds inv_quad, exponent and mantissa to ``acc``."""
    p1 = load(prior, 0, like)
    p2 = load(prior, 1, like)
    m1 = load(state, 0, like)
    m2 = load(state, 1, like)
    d11 = load(state, 2, like)
    d12 = load(state, 3, like)
    d22 = load(state, 4, like)
    quad = load(acc, 0, like)
    exponent = load(acc, 1, like)
    mantissa = load(acc, 2, like)
    lowest = load(acc, 3, like)
    row = 0
    for _ in range(steps):
        y = load(ws, row + SLOT_Y, like)
        r = load(ws, row + SLOT_R, like)
        a = load(ws, row + SLOT_A, like)
        s = load(ws, row + SLOT_S, like)
        b = load(ws, row + SLOT_B, like)
        w1 = p1 - d11
        w2 = p2 - d12
        d = w1 + r
        inv = 1.0 / d
        v = y - m1
        u = v * inv
        g1 = w1 * inv
        g2 = w2 * inv
        n1 = m1 + w1 * u
        n2 = m2 + w2 * u
        e11 = d11 + w1 * g1
        e12 = d12 + w1 * g2
        e22 = d22 + w2 * g2
        quad = quad + v * u
        margin = pivot_margin(d, p1 + r)
        lowest = select_less(lowest, margin, lowest, margin)
        power, fraction = exponent_and_mantissa(select_less(d, 1e300, d, 1.0))
        exponent = exponent + power
        mantissa = mantissa * fraction
        store(ws, row + SLOT_G1, g1)
        store(ws, row + SLOT_G2, g2)
        store(ws, row + SLOT_INVD, inv)
        store(ws, row + SLOT_U, u)
        store(ws, row + SLOT_M1, n1)
        store(ws, row + SLOT_M2, n2)
        store(ws, row + SLOT_E11, e11)
        store(ws, row + SLOT_E12, e12)
        store(ws, row + SLOT_E22, e22)
        m1 = a * n1 + s * n2
        m2 = b * n2 - s * n1
        t11 = a * e11 + s * e12
        t12 = a * e12 + s * e22
        t21 = b * e12 - s * e11
        t22 = b * e22 - s * e12
        d11 = t11 * a + t12 * s
        d12 = t12 * b - t11 * s
        d22 = t22 * b - t21 * s
        row += SLOTS
    store(state, 0, m1)
    store(state, 1, m2)
    store(state, 2, d11)
    store(state, 3, d12)
    store(state, 4, d22)
    store(acc, 0, quad)
    store(acc, 1, exponent)
    store(acc, 2, mantissa)
    store(acc, 3, lowest)


@uncounted
def element2(order, ws, steps, prior, element, like):
    """Map of a block of rows as a function of the state that enters it (an associative-scan element).

    The block is filtered from an exactly known entering state (Delta = P_inf), carrying its response T to that state,
    the information J, eta about it, and the outgoing mean b and Delta C.
    """
    p1 = load(prior, 0, like)
    p2 = load(prior, 1, like)
    d11 = load(prior, 2, like)
    d12 = load(prior, 3, like)
    d22 = load(prior, 4, like)
    m1 = broadcast(0.0, like)
    m2 = m1
    t11 = broadcast(1.0, like)
    t12 = m1
    t21 = m1
    t22 = t11
    j11 = m1
    j12 = m1
    j22 = m1
    h1 = m1
    h2 = m1
    row = 0
    for _ in range(steps):
        y = load(ws, row + SLOT_Y, like)
        r = load(ws, row + SLOT_R, like)
        a = load(ws, row + SLOT_A, like)
        s = load(ws, row + SLOT_S, like)
        b = load(ws, row + SLOT_B, like)
        w1 = p1 - d11
        w2 = p2 - d12
        inv = 1.0 / (w1 + r)
        u = (y - m1) * inv
        g1 = w1 * inv
        g2 = w2 * inv
        q1 = t11 * inv
        q2 = t12 * inv
        j11 = j11 + q1 * t11
        j12 = j12 + q1 * t12
        j22 = j22 + q2 * t12
        h1 = h1 + t11 * u
        h2 = h2 + t12 * u
        n1 = m1 + w1 * u
        n2 = m2 + w2 * u
        m1 = a * n1 + s * n2
        m2 = b * n2 - s * n1
        k11 = t11 - g1 * t11
        k12 = t12 - g1 * t12
        k21 = t21 - g2 * t11
        k22 = t22 - g2 * t12
        t11 = a * k11 + s * k21
        t12 = a * k12 + s * k22
        t21 = b * k21 - s * k11
        t22 = b * k22 - s * k12
        e11 = d11 + w1 * g1
        e12 = d12 + w1 * g2
        e22 = d22 + w2 * g2
        f11 = a * e11 + s * e12
        f12 = a * e12 + s * e22
        f21 = b * e12 - s * e11
        f22 = b * e22 - s * e12
        d11 = f11 * a + f12 * s
        d12 = f12 * b - f11 * s
        d22 = f22 * b - f21 * s
        row += SLOTS
    store(element, 0, m1)
    store(element, 1, m2)
    store(element, 2, d11)
    store(element, 3, d12)
    store(element, 4, d22)
    store(element, 5, t11)
    store(element, 6, t12)
    store(element, 7, t21)
    store(element, 8, t22)
    store(element, 9, j11)
    store(element, 10, j12)
    store(element, 11, j22)
    store(element, 12, h1)
    store(element, 13, h2)


@uncounted
def reverse2(order, ws, steps, weights, adjoint, grad_p, like):
    """Adjoint of ``steps`` rows, last to first, from ``adjoint`` (updated in place).

    ``weights`` holds the cotangents of ``-inv_quad / 2`` and ``-logdet / 2``. Rows receive alpha = K^-1 y,
    kappa = diag(K^-1) and the weighted derivatives with respect to a, s, b; ``grad_p`` accumulates those with
    respect to p.
    """
    wq = load(weights, 0, like)
    wd = load(weights, 1, like)
    l1 = load(adjoint, 0, like)
    l2 = load(adjoint, 1, like)
    q11 = load(adjoint, 2, like)
    q12 = load(adjoint, 3, like)
    q22 = load(adjoint, 4, like)
    p1 = load(grad_p, 0, like)
    p2 = load(grad_p, 1, like)
    row = (steps - 1) * SLOTS
    for _ in range(steps):
        a = load(ws, row + SLOT_A, like)
        s = load(ws, row + SLOT_S, like)
        b = load(ws, row + SLOT_B, like)
        g1 = load(ws, row + SLOT_G1, like)
        g2 = load(ws, row + SLOT_G2, like)
        inv = load(ws, row + SLOT_INVD, like)
        u = load(ws, row + SLOT_U, like)
        n1 = load(ws, row + SLOT_M1, like)
        n2 = load(ws, row + SLOT_M2, like)
        e11 = load(ws, row + SLOT_E11, like)
        e12 = load(ws, row + SLOT_E12, like)
        e22 = load(ws, row + SLOT_E22, like)
        # Pull back through the transition.
        c1 = a * l1 - s * l2
        c2 = s * l1 + b * l2
        k1 = wq * (n1 - e11 * c1 - e12 * c2)
        k2 = wq * (n2 - e12 * c1 - e22 * c2)
        r11 = q11 * a - q12 * s
        r12 = q11 * s + q12 * b
        r21 = q12 * a - q22 * s
        r22 = q12 * s + q22 * b
        x11 = r11 * e11 + r12 * e12
        x12 = r11 * e12 + r12 * e22
        x21 = r21 * e11 + r22 * e12
        x22 = r21 * e12 + r22 * e22
        store(ws, row + SLOT_ABAR, l1 * k1 + wd * x11)
        store(ws, row + SLOT_SBAR, l1 * k2 - l2 * k1 + wd * (x12 - x21))
        store(ws, row + SLOT_BBAR, l2 * k2 + wd * x22)
        c11 = a * r11 - s * r21
        c12 = a * r12 - s * r22
        c22 = s * r12 + b * r22
        # Pull back through the datum.
        f1 = c11 * g1 + c12 * g2
        f2 = c12 * g1 + c22 * g2
        alpha = u - (g1 * c1 + g2 * c2)
        kappa = inv + g1 * f1 + g2 * f2
        store(ws, row + SLOT_ALPHA, alpha)
        store(ws, row + SLOT_KAPPA, kappa)
        p1 = p1 + wq * alpha * (c1 + 0.5 * alpha) + wd * (f1 - 0.5 * kappa)
        p2 = p2 + wq * alpha * c2 + wd * f2
        l1 = c1 + alpha
        l2 = c2
        q11 = c11 - 2.0 * f1 + kappa
        q12 = c12 - f2
        q22 = c22
        row -= SLOTS
    store(adjoint, 0, l1)
    store(adjoint, 1, l2)
    store(adjoint, 2, q11)
    store(adjoint, 3, q12)
    store(adjoint, 4, q22)
    store(grad_p, 0, p1)
    store(grad_p, 1, p2)


@uncounted
def smooth2(order, ws, steps, prior, adjoint, like):
    """Posterior mean and variance of every row, last to first, from ``adjoint`` (updated in place).

    With the filtered covariance's column ``s = p - e h`` and the information of later data pulled back to the row
    (c, C), the mean is ``m' + s . c`` and the variance ``h . s - s^T C s``. They replace y and R.
    """
    p1 = load(prior, 0, like)
    p2 = load(prior, 1, like)
    l1 = load(adjoint, 0, like)
    l2 = load(adjoint, 1, like)
    q11 = load(adjoint, 2, like)
    q12 = load(adjoint, 3, like)
    q22 = load(adjoint, 4, like)
    row = (steps - 1) * SLOTS
    for _ in range(steps):
        a = load(ws, row + SLOT_A, like)
        s = load(ws, row + SLOT_S, like)
        b = load(ws, row + SLOT_B, like)
        g1 = load(ws, row + SLOT_G1, like)
        g2 = load(ws, row + SLOT_G2, like)
        c1 = a * l1 - s * l2
        c2 = s * l1 + b * l2
        r11 = q11 * a - q12 * s
        r12 = q11 * s + q12 * b
        r21 = q12 * a - q22 * s
        r22 = q12 * s + q22 * b
        c11 = a * r11 - s * r21
        c12 = a * r12 - s * r22
        c22 = s * r12 + b * r22
        s1 = p1 - load(ws, row + SLOT_E11, like)
        s2 = p2 - load(ws, row + SLOT_E12, like)
        spread = s1 * (s1 * c11 + 2.0 * (s2 * c12)) + s2 * c22 * s2
        store(ws, row + SLOT_ALPHA, load(ws, row + SLOT_M1, like) + s1 * c1 + s2 * c2)
        store(ws, row + SLOT_KAPPA, s1 - spread)
        f1 = c11 * g1 + c12 * g2
        f2 = c12 * g1 + c22 * g2
        l1 = c1 + load(ws, row + SLOT_U, like) - (g1 * c1 + g2 * c2)
        l2 = c2
        q11 = c11 - 2.0 * f1 + load(ws, row + SLOT_INVD, like) + g1 * f1 + g2 * f2
        q12 = c12 - f2
        q22 = c22
        row -= SLOTS
    store(adjoint, 0, l1)
    store(adjoint, 1, l2)
    store(adjoint, 2, q11)
    store(adjoint, 3, q12)
    store(adjoint, 4, q22)


@uncounted
def unpack2(order, ws, row, flat, base, size):
    """Copy a row's transition (a, s, b from word ``row``) to ``flat`` as a dense matrix."""
    s = load(ws, row + 1, 0.0)
    store(flat, base, load(ws, row, 0.0))
    store(flat, base + 1, s)
    store(flat, base + 2, -s)
    store(flat, base + 3, load(ws, row + 2, 0.0))


@uncounted
def pack2(order, ws, row, first, flat, flat_bar, base, size, valid):
    """Copy a dense transition and its derivative into a row; the derivative is zero where not ``valid``."""
    store(ws, row + SLOT_A, load(flat, base, 0.0))
    store(ws, row + SLOT_S, load(flat, base + 1, 0.0))
    store(ws, row + SLOT_B, load(flat, base + 3, 0.0))
    scale = 1.0 if valid else 0.0
    store(ws, row + SLOT_ABAR, scale * load(flat_bar, base, 0.0))
    store(ws, row + SLOT_SBAR, scale * (load(flat_bar, base + 1, 0.0) - load(flat_bar, base + 2, 0.0)))
    store(ws, row + SLOT_BBAR, scale * load(flat_bar, base + 3, 0.0))
