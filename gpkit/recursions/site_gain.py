"""What one Gaussian site does to the functions' predicted distribution: gain, weights and evidence of one node.

A site multiplies the density of the R values ``u ~ N(mu, S)`` by ``exp(eta^T u - u^T Lam u / 2)``. With
``r = eta - Lam mu`` everything that follows needs only::

    K = (I + Lam S)^-1 Lam,    w = (I + Lam S)^-1 r,    log|I + Lam S|

``Lam = L D L^T`` may be singular, zero or graded over many orders of magnitude, and is never inverted. With
``r = L y`` the site is R scalar ones, of precision d_q and information y_q for ``l_q . u``, which are taken in one
after the other, the most precise first::

    t_q = (I - K_q S) l_q,    alpha_q = 1 + d_q l_q . S t_q >= 1
    w <- w + t_q (y_q - d_q l_q . S w) / alpha_q,    K <- K + t_q t_q^T d_q / alpha_q

:func:`gain_dual` is the same for a value and one direction, held as the real and imaginary part of a complex number
whose imaginary part is so small that its square vanishes: a derivative without truncation error.
"""

from __future__ import annotations

import math

from numba import types

from gpkit.recursions.compilation import selector, uncounted

__all__ = ["ROOM", "gain"]

ROOM = 8
"""Matrices (R + 2, R) of room that the functions of this module need."""

_FLOOR = 2.0 * 2.220446049250313e-16
_ROUNDING = 16.0 * 2.220446049250313e-16
_NEGATIVE = 1e-7
_SMALLEST = 1e-300  # below it products round like denormal numbers
_PLAIN = 1e-2


@uncounted
def _plain_factor(n, lam, lower, d, order):
    """``lam = L D L^T`` in the order as it is; False unless pivots are of a size, and far from rounding errors."""
    largest = lam[0, 0]
    for q in range(1, n):
        largest = max(largest, lam[q, q])
    for q in range(n):
        order[q] = q
        total = lam[q, q]
        for i in range(q):
            lower[q, i] = 0.0
            total -= lower[i, q] * lower[i, q] * d[i]
        if not total > _PLAIN * largest:
            return False
        lower[q, q] = 1.0
        d[q] = total
        inverse = 1.0 / total
        for k in range(q + 1, n):
            total = lam[k, q]
            for i in range(q):
                total -= lower[i, k] * lower[i, q] * d[i]
            lower[q, k] = total * inverse
    return True


@uncounted
def _factor(n, lam, lower, d, rest, order):
    """``lam = L D L^T``, the largest pivot first, columns of L as rows of ``lower``; False if it is not semidefinite.

    Largest first keeps the scalar updates accurate, whatever the sizes of the precisions. A pivot is rounding error in
    relation to its own diagonal entry, so that small precisions beside large ones count; it is zero then, or what the
    rest of its column requires.
    """
    for i in range(n):
        lower[n, i] = 0.0
        for k in range(n):
            lower[i, k] = 0.0
            rest[i, k] = lam[i, k]
    good = True
    for q in range(n):
        pivot = -1
        for i in range(n):
            if lower[n, i] == 0.0:
                pivot = i if pivot < 0 or rest[i, i] > rest[pivot, pivot] else pivot
        lower[n, pivot] = 1.0
        order[q] = pivot
        lower[q, pivot] = 1.0
        value = rest[pivot, pivot]
        if not value > _FLOOR * n * abs(lam[pivot, pivot]):
            good = good and value >= -_NEGATIVE * abs(lam[pivot, pivot]) - _SMALLEST
            value = 0.0
            for i in range(n):
                scale = math.sqrt(abs(lam[i, i] * lam[pivot, pivot]))
                if lower[n, i] == 0.0 and abs(rest[i, pivot]) > _ROUNDING * n * scale:
                    if rest[i, i] > _FLOOR * n * abs(lam[i, i]):
                        value = max(value, rest[i, pivot] * rest[i, pivot] / rest[i, i])
                    else:
                        good = good and abs(rest[i, pivot]) <= _NEGATIVE * scale + math.sqrt(_SMALLEST)
            good = good and value <= _NEGATIVE * abs(lam[pivot, pivot]) + _SMALLEST
        d[q] = value
        if value > 0.0:
            for i in range(n):
                if lower[n, i] == 0.0:
                    lower[q, i] = rest[i, pivot] / value
            for i in range(n):
                if lower[n, i] == 0.0:
                    for k in range(n):
                        if lower[n, k] == 0.0:
                            rest[i, k] -= lower[q, i] * lower[q, k] * value
    return good


@uncounted
def _gain(shape, lam, s, r, k_out, w_out, room):
    """Write K (R, R) and w (R,) of one node; returns ``(log|I + Lam S|, whether Lam is positive semidefinite)``."""
    n = len(shape[1])
    if n == 1:
        value = lam[0, 0]
        margin = 1.0 + value * s[0, 0]
        if not value >= 0.0:
            margin = 1.0
        k_out[0, 0] = value / margin
        w_out[0] = r[0] / margin
        return math.log(margin), value >= 0.0
    lower, t, d, order, y, u = room[0], room[1], room[1, n], room[1, n + 1], room[2, n], room[2, n + 1]
    good = _plain_factor(n, lam, lower, d, order)
    if not good:
        good = _factor(n, lam, lower, d, room[2], order)
    for i in range(n):
        y[i] = r[i]
        w_out[i] = 0.0
        for k in range(n):
            k_out[i, k] = 0.0
    margins = 1.0
    logdet = 0.0
    for q in range(n):
        pivot = int(order[q])
        information = y[pivot]
        for i in range(n):
            y[i] -= lower[q, i] * information
        if d[q] == 0.0 and information == 0.0:
            for i in range(n):
                t[q, i] = 0.0
            continue
        # u = S l_q and t = l_q - K u, K so far.
        for i in range(n):
            total = s[i, 0] * lower[q, 0]
            for k in range(1, n):
                total += s[i, k] * lower[q, k]
            u[i] = total
        onto = 0.0
        gained = 0.0
        for i in range(n):
            total = lower[q, i]
            for k in range(n):
                total -= k_out[i, k] * u[k]
            t[q, i] = total
            onto += u[i] * total
            gained += u[i] * w_out[i]
        margin = 1.0 + d[q] * max(onto, 0.0)
        margins *= margin
        if margins > 1e200:
            logdet += math.log(margins)
            margins = 1.0
        step = (information - d[q] * gained) / margin
        share = d[q] / margin
        for i in range(n):
            w_out[i] += step * t[q, i]
            for k in range(i + 1):
                total = k_out[i, k] + share * t[q, i] * t[q, k]
                k_out[i, k] = total
                k_out[k, i] = total
    return logdet + math.log(margins), good


@uncounted
def _gain_dual(shape, lam, s, r, k_out, w_out, room):
    """The same for complex arguments, imaginary parts to first order.

    ``dK = F dLam F^T - K dS K`` and ``dw = F (dr - dLam S w) - K dS w`` with ``F = I - K S``.
    """
    n = len(shape[1])
    lr, sr, kr, f, half = room[3], room[4], room[5], room[6], room[7]
    rr, wr, sw, v = room[3, n], room[4, n], room[5, n], room[6, n]
    for i in range(n):
        rr[i] = r[i].real
        for k in range(n):
            lr[i, k] = lam[i, k].real
            sr[i, k] = s[i, k].real
    logdet, good = _gain(shape, lr, sr, rr, kr, wr, room)
    slope = 0.0
    for i in range(n):
        total = 0.0
        for k in range(n):
            total += sr[i, k] * wr[k]
        sw[i] = total
        for k in range(n):
            total = 1.0 if i == k else 0.0
            for q in range(n):
                total -= kr[i, q] * sr[q, k]
            f[i, k] = total
            slope += kr[i, k] * s[k, i].imag
    for i in range(n):
        total = r[i].imag
        for k in range(n):
            total -= lam[i, k].imag * sw[k]
        v[i] = total
        for k in range(n):
            total = 0.0
            for q in range(n):
                total += f[i, q] * lam[q, k].imag
            half[i, k] = total
    for i in range(n):
        total = 0.0
        for k in range(n):
            slope += half[i, k] * sr[k, i]
            total += f[i, k] * v[k]
            for q in range(n):
                total -= kr[i, q] * s[q, k].imag * wr[k]
        w_out[i] = complex(wr[i], total)
        for k in range(n):
            total = 0.0
            for q in range(n):
                total += half[i, q] * f[k, q]
                product = 0.0
                for a in range(n):
                    product += s[q, a].imag * kr[a, k]
                total -= kr[i, q] * product
            k_out[i, k] = complex(kr[i, k], total)
    return complex(logdet, slope), good


gain = selector(
    "gain",
    "K, w and log|I + Lam S|: ``gain(shape, lam, s, r, K, w, room (ROOM, R + 2, R))``, real or with a direction.",
    lambda args: _gain_dual if isinstance(args[3].dtype, types.Complex) else _gain,
)
