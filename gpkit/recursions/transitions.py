"""State transitions of the closed-form kernels, and the pull-back of their derivatives to kernel parameters.

``fill`` writes the transition over each row's time step into the workspace; ``contract`` turns the derivatives that
the adjoint left there into derivatives of the parameters and of the time step. Factor parameters are

=============  ==================  ===========================================================
kind           parameters          transition
=============  ==================  ===========================================================
exponential    rate                exp(-rate dt)
sho            frequency, quality  one entire function of mu = 1/(4 Q^2) - 1 (exact at Q = 1/2)
matern32       rate                e^-x [[1+x, x], [-x, 1-x]], x = rate dt
celerite       a, b, c, d          e^(-c dt) rotation(d dt)
=============  ==================  ===========================================================
"""

from __future__ import annotations

import math

from gpkit.recursions import order1, order2
from gpkit.recursions.compilation import uncounted
from gpkit.recursions.elementary import exp_and_expm1, sine_cosine
from gpkit.recursions.simd import broadcast, load, root, select_less, store, width_of

EXPONENTIAL, SHO, MATERN32, CELERITE, MATERN52 = 1, 2, 3, 4, 5
"""Codes of the factor kinds. For the first four the code is also the length of the order marker."""


@uncounted
def sho_transition(x, beta, overdamped):
    """``(a, s, b)`` of ``exp(x [[0, 1], [-1, -2 beta]]) = [[a, s], [-s, b]]``, ``beta = 1/(2Q)``.

    ``S = e^(-beta x) sinh(r x) / r`` with ``r^2 = mu = (beta - 1)(beta + 1)`` is evaluated as
    ``x e^(-c x) expm1(-2 r x) / (-2 r x)`` (or with a sine for mu < 0), which has no singular point; the decay rate
    ``c = 1/(beta + r)`` never suffers the cancellation of ``beta - r``.
    """
    mu = (beta - 1.0) * (beta + 1.0)
    if overdamped:
        r = root(select_less(mu, 0.0, 0.0, mu))
        slow = 1.0 / (beta + r)
        decay, _ = exp_and_expm1(-slow * x)
        z = -2.0 * r * x
        _, lost = exp_and_expm1(z)
        tiny = select_less(-1e-300, z, 1.0, 0.0)
        s = decay * x * (lost + tiny) / (z + tiny)
        a = decay + slow * s
        b = decay - (beta + r) * s
    else:
        r = root(select_less(0.0, mu, 0.0, -mu))
        decay, _ = exp_and_expm1(-beta * x)
        z = r * x
        sine, cosine = sine_cosine(z)
        tiny = select_less(z, 1e-300, 1.0, 0.0)
        s = decay * x * (sine + tiny) / (z + tiny)
        a = decay * cosine + beta * s
        b = decay * cosine - beta * s
    return a, s, b


@uncounted
def sho_transition_dbeta(x, beta, a, s, b):
    """Derivatives of ``(a, s, b)`` with respect to beta at fixed x, from the values themselves."""
    mu = (beta - 1.0) * (beta + 1.0)
    c = 0.5 * (a + b)
    z = mu * x * x
    size = select_less(z, 0.0, -z, z)
    safe = select_less(size, 1e-4, 1.0, mu)
    direct = 0.5 * (x * c - s) / safe
    # The same quantity over C = e^(-beta x) cosh(x sqrt(mu)), as a series in z = mu x^2.
    series = c * x * x * x * (1.0 / 6.0 - z * (1.0 / 15.0 - z * (17.0 / 630.0)))
    d = select_less(size, 1e-4, series, direct)
    dc = x * s * beta
    ds = 2.0 * beta * d
    return dc + s + beta * ds - x * a, ds - x * s, dc - s - beta * ds - x * b


@uncounted
def sho_transition_lanes(x, beta, par, at, like):
    """:func:`sho_transition` where lanes may differ in regime; the quality of each lane is ``par[at]``."""
    w = width_of(like)
    over = False
    under = False
    for lane in range(w):
        if load(par, at * w + lane, 0.0) > 0.5:
            under = True
        else:
            over = True
    a = s = b = broadcast(0.0, like)
    if over:
        a, s, b = sho_transition(x, beta, True)
    if under:
        a2, s2, b2 = sho_transition(x, beta, False)
        a = select_less(beta, 1.0, a2, a)
        s = select_less(beta, 1.0, s2, s)
        b = select_less(beta, 1.0, b2, b)
    return a, s, b


@uncounted
def fill_exponential(order, ws, steps, par, like):
    """Transitions of the damped random walk; parameters variance, rate."""
    rate = load(par, 1, like)
    row = 0
    for _ in range(steps):
        dt = load(ws, row + order1.SLOT_DT, like)
        a, _ = exp_and_expm1(-rate * dt)
        store(ws, row + order1.SLOT_A, a)
        row += order1.SLOTS


@uncounted
def contract_exponential(order, ws, steps, par, grad, like):
    """Pull transition derivatives back to the rate; leaves d/d(dt) in each row."""
    rate = load(par, 1, like)
    total = load(grad, 1, like)
    row = 0
    for _ in range(steps):
        dt = load(ws, row + order1.SLOT_DT, like)
        x = -load(ws, row + order1.SLOT_A, like) * load(ws, row + order1.SLOT_ABAR, like)
        store(ws, row + order1.SLOT_TDOT, x * rate)
        total = total + x * dt
        row += order1.SLOTS
    store(grad, 1, total)


@uncounted
def _store_transition(ws, row, a, s, b):
    store(ws, row + order2.SLOT_A, a)
    store(ws, row + order2.SLOT_S, s)
    store(ws, row + order2.SLOT_B, b)


@uncounted
def fill_sho(order, ws, steps, par, like):
    """Transitions of the stochastic harmonic oscillator; parameters variance, frequency, quality."""
    frequency = load(par, 1, like)
    beta = 0.5 / load(par, 2, like)
    row = 0
    for _ in range(steps):
        x = frequency * load(ws, row + order2.SLOT_DT, like)
        a, s, b = sho_transition_lanes(x, beta, par, 2, like)
        _store_transition(ws, row, a, s, b)
        row += order2.SLOTS


@uncounted
def contract_sho(order, ws, steps, par, grad, like):
    """Pull transition derivatives back to frequency and quality; leaves d/d(dt) in each row."""
    frequency = load(par, 1, like)
    beta = 0.5 / load(par, 2, like)
    total_x = broadcast(0.0, like)
    total_beta = total_x
    row = 0
    for _ in range(steps):
        dt = load(ws, row + order2.SLOT_DT, like)
        a = load(ws, row + order2.SLOT_A, like)
        s = load(ws, row + order2.SLOT_S, like)
        b = load(ws, row + order2.SLOT_B, like)
        abar = load(ws, row + order2.SLOT_ABAR, like)
        sbar = load(ws, row + order2.SLOT_SBAR, like)
        bbar = load(ws, row + order2.SLOT_BBAR, like)
        dx = sbar * b - abar * s - bbar * (s + 2.0 * beta * b)
        store(ws, row + order2.SLOT_TDOT, dx * frequency)
        total_x = total_x + dx * dt
        da, ds, db = sho_transition_dbeta(frequency * dt, beta, a, s, b)
        total_beta = total_beta + (abar * da + sbar * ds + bbar * db)
        row += order2.SLOTS
    store(grad, 1, load(grad, 1, like) + total_x)
    store(grad, 2, load(grad, 2, like) - 2.0 * beta * beta * total_beta)


@uncounted
def fill_matern32(order, ws, steps, par, like):
    """Transitions of Matern-3/2 (the oscillator at quality 1/2); parameters variance, rate."""
    rate = load(par, 1, like)
    row = 0
    for _ in range(steps):
        x = rate * load(ws, row + order2.SLOT_DT, like)
        e, _ = exp_and_expm1(-x)
        s = e * x
        _store_transition(ws, row, e + s, s, e - s)
        row += order2.SLOTS


@uncounted
def contract_matern32(order, ws, steps, par, grad, like):
    """Pull transition derivatives back to the rate; leaves d/d(dt) in each row."""
    rate = load(par, 1, like)
    total = load(grad, 1, like)
    row = 0
    for _ in range(steps):
        s = load(ws, row + order2.SLOT_S, like)
        b = load(ws, row + order2.SLOT_B, like)
        bbar = load(ws, row + order2.SLOT_BBAR, like)
        dx = load(ws, row + order2.SLOT_SBAR, like) * b - load(ws, row + order2.SLOT_ABAR, like) * s
        dx = dx - bbar * (s + 2.0 * b)
        store(ws, row + order2.SLOT_TDOT, dx * rate)
        total = total + dx * load(ws, row + order2.SLOT_DT, like)
        row += order2.SLOTS
    store(grad, 1, total)


@uncounted
def fill_celerite(order, ws, steps, par, like):
    """Transitions of a celerite term; parameters variance, a, b, c, d."""
    c = load(par, 3, like)
    d = load(par, 4, like)
    row = 0
    for _ in range(steps):
        dt = load(ws, row + order2.SLOT_DT, like)
        e, _ = exp_and_expm1(-c * dt)
        sine, cosine = sine_cosine(d * dt)
        _store_transition(ws, row, e * cosine, e * sine, e * cosine)
        row += order2.SLOTS


@uncounted
def contract_celerite(order, ws, steps, par, grad, like):
    """Pull transition derivatives back to c and d; leaves d/d(dt) in each row."""
    c = load(par, 3, like)
    d = load(par, 4, like)
    total_c = load(grad, 3, like)
    total_d = load(grad, 4, like)
    row = 0
    for _ in range(steps):
        dt = load(ws, row + order2.SLOT_DT, like)
        a = load(ws, row + order2.SLOT_A, like)
        s = load(ws, row + order2.SLOT_S, like)
        trace = load(ws, row + order2.SLOT_ABAR, like) + load(ws, row + order2.SLOT_BBAR, like)
        sbar = load(ws, row + order2.SLOT_SBAR, like)
        shrink = a * trace + s * sbar
        turn = a * sbar - s * trace
        store(ws, row + order2.SLOT_TDOT, d * turn - c * shrink)
        total_c = total_c - shrink * dt
        total_d = total_d + turn * dt
        row += order2.SLOTS
    store(grad, 3, total_c)
    store(grad, 4, total_d)


@uncounted
def celerite_completion(a, b, c, d):
    """Lower right entry that completes ``[[a, b], [b, .]]`` to a stationary covariance of a celerite term.

    Any symmetric completion serves the algebra; this one (the term's spectral factor) is positive semidefinite with
    positive semidefinite process noise whenever the term is a valid covariance by itself.
    """
    below = c * c * a + math.sqrt((c * c + d * d) * max(c * c * a * a - d * d * b * b, 0.0))
    if below > 0.0:
        return a + 2.0 * (b * b * (c * c + d * d) - c * c * a * a) / below
    return a


@uncounted
def prior1(order, par, prior, lane, w):
    """p of one lane; a one-dimensional state."""
    store(prior, lane, load(par, lane, 0.0))


@uncounted
def prior2(order, par, prior, lane, w):
    """p and P_inf of one lane; a two-dimensional state with P_inf = variance times the identity."""
    variance = load(par, lane, 0.0)
    store(prior, lane, variance)
    store(prior, w + lane, 0.0)
    store(prior, 2 * w + lane, variance)
    store(prior, 3 * w + lane, 0.0)
    store(prior, 4 * w + lane, variance)


@uncounted
def prior_celerite(order, par, prior, lane, w):
    """p and P_inf of one lane; a celerite term."""
    variance = load(par, lane, 0.0)
    a = load(par, w + lane, 0.0)
    b = load(par, 2 * w + lane, 0.0)
    corner = celerite_completion(a, b, load(par, 3 * w + lane, 0.0), load(par, 4 * w + lane, 0.0))
    store(prior, lane, variance * a)
    store(prior, w + lane, variance * b)
    store(prior, 2 * w + lane, variance * a)
    store(prior, 3 * w + lane, variance * b)
    store(prior, 4 * w + lane, variance * corner)


@uncounted
def contract_prior_variance(order, par, grad_p, grad, lane, w):
    """Pull the derivative with respect to p back to the variance."""
    store(grad, lane, load(grad, lane, 0.0) + load(grad_p, lane, 0.0))


@uncounted
def contract_prior_celerite(order, par, grad_p, grad, lane, w):
    """Pull the derivative with respect to p back to variance, a and b."""
    variance = load(par, lane, 0.0)
    first = load(grad_p, lane, 0.0)
    second = load(grad_p, w + lane, 0.0)
    change = first * load(par, w + lane, 0.0) + second * load(par, 2 * w + lane, 0.0)
    store(grad, lane, load(grad, lane, 0.0) + change)
    store(grad, w + lane, load(grad, w + lane, 0.0) + first * variance)
    store(grad, 2 * w + lane, load(grad, 2 * w + lane, 0.0) + second * variance)


@uncounted
def nothing(order, ws, steps, w, lane, series, start, n):
    """Closed forms neither read nor write transitions given as data."""
