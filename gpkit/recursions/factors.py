"""Transitions of the factors of a program, the pull-back of their derivatives, and their stationary covariances.

See :mod:`gpkit.recursions.program`; the formulas are those of :mod:`gpkit.recursions.transitions`, for factors that are
chosen at run time.
"""

from __future__ import annotations

from gpkit.recursions.compilation import uncounted
from gpkit.recursions.elementary import exp_and_expm1, sine_cosine
from gpkit.recursions.simd import broadcast, load, store
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


@uncounted
def dimension(kind):
    """State dimension of a factor."""
    if kind == EXPONENTIAL:
        return 1
    return 3 if kind == MATERN52 else 2


@uncounted
def parameters(kind):
    """Number of parameters of a factor."""
    if kind == SHO:
        return 2
    return 4 if kind == CELERITE else 1


@uncounted
def factor(kind, par, at, dt, out, base, ld, like):
    """Write the transition of one factor (parameters from ``at``) as a matrix with leading dimension ``ld``."""
    if kind == EXPONENTIAL:
        a, _ = exp_and_expm1(-load(par, at, like) * dt)
        store(out, base, a)
    elif kind == MATERN52:
        x = load(par, at, like) * dt
        e, _ = exp_and_expm1(-x)
        y = 0.5 * x * x
        store(out, base, e * (1.0 + x + y))
        store(out, base + 1, e * (x + 2.0 * y))
        store(out, base + 2, e * y)
        store(out, base + ld, -e * y)
        store(out, base + (ld + 1), e * (1.0 + x - 2.0 * y))
        store(out, base + (ld + 2), e * (x - y))
        store(out, base + 2 * ld, e * (y - x))
        store(out, base + (2 * ld + 1), e * (2.0 * y - 3.0 * x))
        store(out, base + (2 * ld + 2), e * (1.0 - 2.0 * x + y))
    else:
        a = broadcast(0.0, like)
        s = a
        b = a
        if kind == SHO:
            x = load(par, at, like) * dt
            a, s, b = sho_transition_lanes(x, 0.5 / load(par, (at + 1), like), par, at + 1, like)
        elif kind == MATERN32:
            x = load(par, at, like) * dt
            e, _ = exp_and_expm1(-x)
            s = e * x
            a = e + s
            b = e - s
        else:
            e, _ = exp_and_expm1(-load(par, (at + 2), like) * dt)
            sine, cosine = sine_cosine(load(par, (at + 3), like) * dt)
            a = e * cosine
            s = e * sine
            b = a
        store(out, base, a)
        store(out, base + 1, s)
        store(out, base + ld, -s)
        store(out, base + (ld + 1), b)


@uncounted
def _accumulate(grad, at, value, like):
    store(grad, at, load(grad, at, like) + value)


@uncounted
def factor_adjoint(kind, par, at, dt, out, base, ld, bar, bar_base, bar_ld, grad, like):
    """Add the derivatives of one factor's parameters to ``grad``; returns the derivative with respect to dt."""
    if kind == EXPONENTIAL:
        rate = load(par, at, like)
        x = -load(out, base, like) * load(bar, bar_base, like)
        _accumulate(grad, at, x * dt, like)
        return x * rate
    if kind == MATERN52:
        rate = load(par, at, like)
        x = broadcast(0.0, like)
        for c in range(3):
            a0 = load(out, base + c, like)
            a1 = load(out, base + (ld + c), like)
            a2 = load(out, base + (2 * ld + c), like)
            x = x + load(bar, bar_base + c, like) * a1 + load(bar, bar_base + (bar_ld + c), like) * a2
            x = x - load(bar, bar_base + (2 * bar_ld + c), like) * (a0 + 3.0 * (a1 + a2))
        _accumulate(grad, at, x * dt, like)
        return x * rate
    a = load(out, base, like)
    s = load(out, base + 1, like)
    b = load(out, base + (ld + 1), like)
    abar = load(bar, bar_base, like)
    sbar = load(bar, bar_base + 1, like) - load(bar, bar_base + bar_ld, like)
    bbar = load(bar, bar_base + (bar_ld + 1), like)
    if kind == CELERITE:
        shrink = a * (abar + bbar) + s * sbar
        turn = a * sbar - s * (abar + bbar)
        _accumulate(grad, at + 2, -shrink * dt, like)
        _accumulate(grad, at + 3, turn * dt, like)
        return load(par, (at + 3), like) * turn - load(par, (at + 2), like) * shrink
    frequency = load(par, at, like)
    beta = broadcast(1.0, like)
    if kind == SHO:
        beta = 0.5 / load(par, (at + 1), like)
    dx = sbar * b - abar * s - bbar * (s + 2.0 * beta * b)
    _accumulate(grad, at, dx * dt, like)
    if kind == SHO:
        da, ds, db = sho_transition_dbeta(frequency * dt, beta, a, s, b)
        _accumulate(grad, at + 1, -2.0 * beta * beta * (abar * da + sbar * ds + bbar * db), like)
    return dx * frequency


@uncounted
def kronecker(out, base, m, right, right_base, d, b, like):
    """``out = out (m x m) x right (d x d, leading dimension 3)`` in place; ``out`` has leading dimension b."""
    # From the last entry to the first, so that none is overwritten before it is read.
    for i in range(m - 1, -1, -1):
        for k in range(m - 1, -1, -1):
            value = load(out, base + i * b + k, like)
            for r in range(d):
                for q in range(d):
                    product = value * load(right, right_base + r * 3 + q, like)
                    store(out, base + (i * d + r) * b + k * d + q, product)


@uncounted
def prior_entry(kind, par, at, lane, w, r, q):
    """Entry of the stationary covariance of a factor with unit variance; parameters from ``at``."""
    if kind == CELERITE:
        a = load(par, at * w + lane, 0.0)
        b = load(par, (at + 1) * w + lane, 0.0)
        if r + q == 0:
            return a
        if r + q == 1:
            return b
        return celerite_completion(a, b, load(par, (at + 2) * w + lane, 0.0), load(par, (at + 3) * w + lane, 0.0))
    if kind == MATERN52 and r + q == 2:
        return 1.0 / 3.0 if r == q else -1.0 / 3.0
    return 1.0 if r == q else 0.0
