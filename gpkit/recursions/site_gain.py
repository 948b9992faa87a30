"""What one Gaussian site does to the functions' predicted distribution: gain, weights and evidence of one node.

A site multiplies the density of the R values ``u ~ N(mu, S)`` by ``exp(eta^T u - u^T Lam u / 2)``. With
``r = eta - Lam mu`` everything that follows needs only::

    K = (I + Lam S)^-1 Lam,    w = (I + Lam S)^-1 r,    log|I + Lam S|

``Lam`` may be singular or zero and is never inverted: it is factored as ``C C^T`` with diagonal pivoting, so that what
is left out is rounding error, and ``B = I + C^T S C`` has no eigenvalue below one.

:func:`site_gain_dual` is the same for a value and one direction, held as the real and imaginary part of a complex
number whose imaginary part is so small that its square vanishes: a derivative without truncation error.
"""

from __future__ import annotations

import math

import numba

from gpkit.recursions.compilation import ENTRY

__all__ = ["site_gain", "site_gain_dual"]

_FLOOR = 4.0 * 2.220446049250313e-16


@numba.njit(**ENTRY)
def site_gain(lam, s, r, gain, weight, work):  # type: ignore[no-untyped-def]
    """Write K and w of one node; returns ``(log|I + Lam S|, whether Lam is positive semidefinite)``.

    Args:
        lam: precision (R, R), of which the lower triangle is read.
        s: predicted covariance (R, R).
        r: ``eta - Lam mu`` (R,).
        gain: K (R, R), written.
        weight: w (R,), written.
        work: room (3, R + 1, R), whatever its content.
    """
    n = r.shape[0]
    if n == 1:
        value = lam[0, 0]
        margin = 1.0 + value * s[0, 0]
        gain[0, 0] = value / margin
        weight[0] = r[0] / margin
        return math.log(margin) if margin > 0.0 else 0.0, value >= 0.0
    c, b, t = work[0], work[1], work[2]
    scale = 0.0
    for i in range(n):
        for k in range(n):
            c[i, k] = 0.0
            t[i, k] = lam[i, k] if k <= i else lam[k, i]
        scale = max(scale, t[i, i])
        b[n, i] = 0.0
    good = True
    rank = 0
    # Pivoted: t holds what is left of Lam, row n of b says which rows are done, column q of c is one factor.
    for q in range(n):
        pivot = -1
        largest = _FLOOR * n * scale
        for i in range(n):
            if b[n, i] == 0.0 and t[i, i] > largest:
                largest = t[i, i]
                pivot = i
        if pivot < 0:
            break
        root = math.sqrt(t[pivot, pivot])
        b[n, pivot] = 1.0
        c[n, q] = pivot
        c[pivot, q] = root
        for i in range(n):
            if b[n, i] == 0.0:
                c[i, q] = t[i, pivot] / root
        for i in range(n):
            if b[n, i] == 0.0:
                for k in range(n):
                    if b[n, k] == 0.0:
                        t[i, k] -= c[i, q] * c[k, q]
        rank += 1
    for i in range(n):
        if b[n, i] == 0.0:
            for k in range(n):
                if b[n, k] == 0.0 and abs(t[i, k]) > 1e-9 * scale:
                    good = False
        if lam[i, i] < -1e-9 * scale:
            good = False
    # z with C z = r on the pivot rows; what remains of r (rows outside the range of Lam) goes to weight.
    z = t[n]
    for i in range(n):
        weight[i] = r[i]
    for q in range(rank):
        pivot = int(c[n, q])
        z[q] = weight[pivot] / c[pivot, q]
        for i in range(n):
            weight[i] -= c[i, q] * z[q]
    # B = I + C^T S C, its Cholesky factor in place, T = L^-1 C^T.
    for q in range(rank):
        for i in range(n):
            total = 0.0
            for k in range(n):
                total += s[i, k] * c[k, q]
            t[i, q] = total
    logdet = 0.0
    for q in range(rank):
        for k in range(q + 1):
            total = 1.0 if k == q else 0.0
            for i in range(n):
                total += c[i, q] * t[i, k]
            for i in range(k):
                total -= b[q, i] * b[k, i]
            b[q, k] = math.sqrt(total) if k == q else total / b[k, k]
        logdet += 2.0 * math.log(b[q, q])
    for q in range(rank):
        total = z[q]
        for i in range(q):
            total -= b[q, i] * z[i]
        z[q] = total / b[q, q]
    for i in range(n):
        for q in range(rank):
            total = c[i, q]
            for k in range(q):
                total -= b[q, k] * t[i, k]
            t[i, q] = total / b[q, q]
    for i in range(n):
        for k in range(i + 1):
            total = 0.0
            for q in range(rank):
                total += t[i, q] * t[k, q]
            gain[i, k] = total
            gain[k, i] = total
    # w = C B^-1 z + (I - K S) (rest of r): the second part vanishes for eta in the range of Lam, and with it the
    # cancellation that (I - K S) r would have at high precision.
    rest = 0.0
    for i in range(n):
        rest = max(rest, abs(weight[i]))
    if rest > 0.0:
        for i in range(n):
            total = 0.0
            for k in range(n):
                total += s[i, k] * weight[k]
            b[n, i] = total
        for i in range(n):
            total = weight[i]
            for k in range(n):
                total -= gain[i, k] * b[n, k]
            c[n, i] = total
        for i in range(n):
            weight[i] = c[n, i]
    for i in range(n):
        total = weight[i]
        for q in range(rank):
            total += t[i, q] * z[q]
        weight[i] = total
    return logdet, good


@numba.njit(**ENTRY)
def site_gain_dual(lam, s, r, gain, weight, room, work):  # type: ignore[no-untyped-def]
    """:func:`site_gain` of complex arguments, their imaginary parts taken to first order.

    ``dK = F dLam F^T - K dS K`` and ``dw = F (dr - dLam S w) - K dS w`` with ``F = I - K S``.

    What it takes:

    * lam, s, r, gain, weight: as there, complex.
    * room: real room (5, R + 1, R).
    * work: real room (3, R + 1, R).
    """
    n = r.shape[0]
    lr, sr, k0, f = room[0], room[1], room[2], room[3]
    rr, w0, sw, v = room[0, n], room[1, n], room[2, n], room[3, n]
    half = room[4]
    for i in range(n):
        rr[i] = r[i].real
        for k in range(n):
            lr[i, k] = lam[i, k].real
            sr[i, k] = s[i, k].real
    logdet, good = site_gain(lr, sr, rr, k0, w0, work)
    slope = 0.0
    for i in range(n):
        for k in range(n):
            total = 1.0 if i == k else 0.0
            for q in range(n):
                total -= k0[i, q] * sr[q, k]
            f[i, k] = total
            slope += k0[i, k] * s[k, i].imag
    for i in range(n):
        total = 0.0
        for k in range(n):
            total += sr[i, k] * w0[k]
        sw[i] = total
    # half = F dLam, whose product with S has the trace of the log-determinant's derivative.
    for i in range(n):
        for k in range(n):
            total = 0.0
            for q in range(n):
                total += f[i, q] * (lam[q, k].imag if k <= q else lam[k, q].imag)
            half[i, k] = total
    for i in range(n):
        for k in range(n):
            slope += half[i, k] * sr[k, i]
    for i in range(n):
        total = r[i].imag
        for k in range(n):
            total -= (lam[i, k].imag if k <= i else lam[k, i].imag) * sw[k]
        v[i] = total
    for i in range(n):
        total = 0.0
        for k in range(n):
            total += f[i, k] * v[k]
            for q in range(n):
                total -= k0[i, q] * s[q, k].imag * w0[k]
        weight[i] = complex(w0[i], total)
    for i in range(n):
        for k in range(n):
            total = 0.0
            for q in range(n):
                total += half[i, q] * f[k, q]
                inner = 0.0
                for a in range(n):
                    inner += s[q, a].imag * k0[a, k]
                total -= k0[i, q] * inner
            gain[i, k] = complex(k0[i, k], total)
    return complex(logdet, slope), good
