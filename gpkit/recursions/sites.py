"""Filter, smoother and adjoint of independent Markov functions that are coupled by Gaussian sites.

R functions ``u_r(t)`` have states that are stacked from blocks of one size b, each with its own transition; function r
is the sum of the first components of the blocks that it owns. At node j (sorted coordinates) a site multiplies the
prior by ``exp(eta_j^T u_j - u_j^T Lam_j u_j / 2)``; a node with ``Lam_j = 0, eta_j = 0`` is a prediction. The evidence
is the logarithm of the integral of prior times sites.

As in :mod:`gpkit.recursions.order2` the recursion carries ``Delta = P_prior - P_predicted`` and the predicted mean m,
and the covariance of states and functions is ``W = P_prior H^T - Delta H^T``: process noise never appears, nothing is
inverted but ``I + Lam S``, and singular priors, repeated coordinates and gaps of any length need no care. The errors
are rounding errors of the prior variance. The way back is the Bryson-Frazier recursion: ``psi`` is the derivative of
the evidence with respect to the predicted mean and ``N`` the information of later sites about the state, from which
posterior moments and all derivatives follow.

Arrays of one series: transitions (N, nb, b, b), of which the last is not used; ``which`` (NB,) names the transition of
each block of the state and ``owner`` (NB,) its function; ``first`` (1 or N, NB * b) is the covariance of each block
with its first component. Complex sites carry a direction (see :mod:`gpkit.recursions.site_gain`): derivatives of
posterior moments are derivatives of the adjoint along a direction of the sites.

References:
    Bryson & Frazier (1963); de Jong (1989), Biometrika 76, 600 (covariances between times).
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from gpkit.recursions.compilation import ENTRY, selector
from gpkit.recursions.site_gain import site_gain, site_gain_dual

__all__ = ["backward", "forward", "means", "propagate"]


@numba.njit(**ENTRY)
def _gain_real(lam, s, r, gain, weight, room, work):  # type: ignore[no-untyped-def]
    return site_gain(lam, s, r, gain, weight, work)


_gain = selector(
    "gain",
    "The gain of a node for real sites or for sites with a direction.",
    lambda args: site_gain_dual if isinstance(args[2].dtype, types.Complex) else _gain_real,
)


@numba.njit(**ENTRY)
def _congruence(size, transitions, which, blocks, source, target, room):  # type: ignore[no-untyped-def]
    """``target = A source A^T`` for symmetric matrices and block-diagonal A, by pairs of blocks."""
    b = len(size)
    for k in range(blocks):
        left = transitions[which[k]]
        for q in range(k + 1):
            right = transitions[which[q]]
            for i in range(b):
                for h in range(b):
                    total = left[i, 0] * source[k * b, q * b + h]
                    for a in range(1, b):
                        total += left[i, a] * source[k * b + a, q * b + h]
                    room[i, h] = total
            for i in range(b):
                for h in range(b):
                    total = right[h, 0] * room[i, 0]
                    for a in range(1, b):
                        total += right[h, a] * room[i, a]
                    target[k * b + i, q * b + h] = total
            if q < k:
                for i in range(b):
                    for h in range(b):
                        target[q * b + h, k * b + i] = target[k * b + i, q * b + h]


@numba.njit(**ENTRY)
def _congruence_transposed(size, transitions, which, blocks, source, target, room):  # type: ignore[no-untyped-def]
    """``target = A^T source A``."""
    b = len(size)
    for k in range(blocks):
        left = transitions[which[k]]
        for q in range(k + 1):
            right = transitions[which[q]]
            for i in range(b):
                for h in range(b):
                    total = left[0, i] * source[k * b, q * b + h]
                    for a in range(1, b):
                        total += left[a, i] * source[k * b + a, q * b + h]
                    room[i, h] = total
            for i in range(b):
                for h in range(b):
                    total = right[0, h] * room[i, 0]
                    for a in range(1, b):
                        total += right[a, h] * room[i, a]
                    target[k * b + i, q * b + h] = total
            if q < k:
                for i in range(b):
                    for h in range(b):
                        target[q * b + h, k * b + i] = target[k * b + i, q * b + h]


@numba.njit(**ENTRY)
def forward(  # type: ignore[no-untyped-def]
    size, transitions, which, owner, first, lam, eta, w_rows, s_all, gains, weights, mus, m_plus, delta_plus
):
    """Filter one series; returns ``(evidence, first node whose precision is not positive semidefinite or -1)``.

    What it takes:

    * size: anything of length b; a tuple makes b a constant of the compiled code.
    * transitions, which, owner, first: the prior, see the module.
    * lam: precisions (N, R, R), lower triangles are read.
    * eta: information (N, R).
    * w_rows: transposed W of every node (N, R, D), written.
    * s_all, gains, weights, mus: S, K (N, R, R), w and mu (N, R) of every node, written.
    * m_plus, delta_plus: updated mean (N, D) and Delta (N, D, D), written, or with no rows not kept.
    """
    n, functions = eta.shape
    blocks = owner.shape[0]
    b = len(size)
    d = blocks * b
    keep = m_plus.shape[0] > 0
    m = np.zeros(d, eta.dtype)
    m2 = np.zeros(d, eta.dtype)
    delta = np.zeros((d, d), eta.dtype)
    delta2 = np.zeros((d, d), eta.dtype)
    kw = np.zeros((functions, d), eta.dtype)
    small = np.zeros((b, b), eta.dtype)
    r = np.zeros(functions, eta.dtype)
    work = np.empty((3, functions + 1, functions))
    room = np.empty((5, functions + 1, functions))
    evidence = np.zeros(1, eta.dtype)
    bad = -1
    for j in range(n):
        prior = first[j if first.shape[0] > 1 else 0]
        wt, s, gain, weight, mu = w_rows[j], s_all[j], gains[j], weights[j], mus[j]
        informed = False
        for i in range(functions):
            mu[i] = 0.0
            informed = informed or eta[j, i] != 0.0
            for k in range(i + 1):
                informed = informed or lam[j, i, k] != 0.0
            for k in range(d):
                wt[i, k] = 0.0
        for k in range(blocks):
            o = owner[k]
            mu[o] += m[k * b]
            row = delta[k * b]
            for i in range(d):
                wt[o, i] -= row[i]
            for i in range(b):
                wt[o, k * b + i] += prior[k * b + i]
        for i in range(functions):
            for k in range(functions):
                s[i, k] = 0.0
        for k in range(blocks):
            for i in range(functions):
                s[i, owner[k]] += wt[i, k * b]
        if informed:
            for i in range(functions):
                total = eta[j, i]
                for k in range(functions):
                    total -= (lam[j, i, k] if k <= i else lam[j, k, i]) * mu[k]
                r[i] = total
            logdet, good = _gain(lam[j], s, r, gain, weight, room, work)
            if not good and bad < 0:
                bad = j
            quad = 0.0 * logdet
            for i in range(functions):
                for k in range(functions):
                    quad += r[i] * s[i, k] * weight[k]
                quad += (eta[j, i] + r[i]) * mu[i]
            evidence[0] += 0.5 * (quad - logdet)
            for i in range(functions):
                for k in range(d):
                    m[k] += weight[i] * wt[i, k]
                    kw[i, k] = gain[i, 0] * wt[0, k]
                for q in range(1, functions):
                    for k in range(d):
                        kw[i, k] += gain[i, q] * wt[q, k]
            for i in range(functions):
                for k in range(d):
                    left = wt[i, k]
                    for q in range(k + 1):
                        delta[k, q] += left * kw[i, q]
            for k in range(d):
                for q in range(k):
                    delta[q, k] = delta[k, q]
        else:
            for i in range(functions):
                weight[i] = 0.0
                for k in range(functions):
                    gain[i, k] = 0.0
        if keep:
            for k in range(d):
                m_plus[j, k] = m[k]
                for q in range(d):
                    delta_plus[j, k, q] = delta[k, q]
        if j + 1 < n:
            step = transitions[j]
            _congruence(size, step, which, blocks, delta, delta2, small)
            delta, delta2 = delta2, delta
            for k in range(blocks):
                a = step[which[k]]
                for i in range(b):
                    total = a[i, 0] * m[k * b]
                    for q in range(1, b):
                        total += a[i, q] * m[k * b + q]
                    m2[k * b + i] = total
            m, m2 = m2, m
    return evidence[0], bad


@numba.njit(**ENTRY)
def backward(  # type: ignore[no-untyped-def]
    size,
    transitions,
    which,
    owner,
    w_rows,
    s_all,
    gains,
    weights,
    mus,
    m_plus,
    delta_plus,
    means,
    covariances,
    lag_one,
    transitions_bar,
    first_bar,
):
    """Posterior moments of one series after :func:`forward`, and derivatives of its evidence.

    What it takes:

    * size, transitions, which, owner: as there.
    * w_rows, s_all, gains, weights, mus, m_plus, delta_plus: what it wrote.
    * means: posterior means (N, R), written.
    * covariances: posterior covariances (N, R, R), written.
    * lag_one: covariances ``Cov(u_j, u_j+1)`` (N - 1, R, R), written, or with no rows left out.
    * transitions_bar: derivatives (N, nb, b, b), added to, or with no rows left out.
    * first_bar: derivatives (1 or N, NB * b), added to.
    """
    n, functions = mus.shape
    blocks = owner.shape[0]
    b = len(size)
    d = blocks * b
    dtype = mus.dtype
    psi = np.zeros(d, dtype)
    psi2 = np.zeros(d, dtype)
    info = np.zeros((d, d), dtype)
    info2 = np.zeros((d, d), dtype)
    small = np.zeros((b, b), dtype)
    yt = np.zeros((functions, d), dtype)
    ky = np.zeros((functions, d), dtype)
    kept = np.zeros((functions, d), dtype)
    moved = np.zeros((functions, d), dtype)
    e = np.zeros((functions, functions), dtype)
    z = np.zeros((functions, functions), dtype)
    ez = np.zeros((functions, functions), dtype)
    kz = np.zeros((functions, functions), dtype)
    v = np.zeros(functions, dtype)
    a = np.zeros(functions, dtype)
    product = np.zeros((d, b), dtype)
    wants_lag = lag_one.shape[0] > 0
    wants_gradient = transitions_bar.shape[0] > 0
    for j in range(n - 1, -1, -1):
        wt, s, gain, weight, mu = w_rows[j], s_all[j], gains[j], weights[j], mus[j]
        if j + 1 < n:
            step = transitions[j]
            if wants_gradient:
                # psi and info are those of the next node: d evidence / dA = psi m^T + (N - psi psi^T) A Delta.
                for k in range(blocks):
                    turn = step[which[k]]
                    bar = transitions_bar[j, which[k]]
                    # The columns of A Delta that belong to block k; only their product with row block k is needed.
                    for q in range(blocks):
                        left = step[which[q]]
                        for i in range(b):
                            for h in range(b):
                                total = left[i, 0] * delta_plus[j, q * b, k * b + h]
                                for g in range(1, b):
                                    total += left[i, g] * delta_plus[j, q * b + g, k * b + h]
                                product[q * b + i, h] = total
                    for i in range(b):
                        row = info[k * b + i]
                        for h in range(b):
                            total = psi[k * b + i] * m_plus[j, k * b + h]
                            for q in range(d):
                                total += (row[q] - psi[k * b + i] * psi[q]) * product[q, h]
                            bar[i, h] += total
            _congruence_transposed(size, step, which, blocks, info, info2, small)
            info, info2 = info2, info
            for k in range(blocks):
                turn = step[which[k]]
                for i in range(b):
                    total = turn[0, i] * psi[k * b]
                    for q in range(1, b):
                        total += turn[q, i] * psi[k * b + q]
                    psi2[k * b + i] = total
            psi, psi2 = psi2, psi
        for i in range(functions):
            for k in range(d):
                yt[i, k] = wt[i, 0] * info[0, k]
            for q in range(1, d):
                left = wt[i, q]
                row = info[q]
                for k in range(d):
                    yt[i, k] += left * row[k]
            total = wt[i, 0] * psi[0]
            for q in range(1, d):
                total += wt[i, q] * psi[q]
            v[i] = total
        for i in range(functions):
            for k in range(i + 1):
                total = yt[i, 0] * wt[k, 0]
                for q in range(1, d):
                    total += yt[i, q] * wt[k, q]
                z[i, k] = total
                z[k, i] = total
        for i in range(functions):
            for k in range(functions):
                total = gain[i, 0] * z[0, k]
                back = s[i, 0] * gain[0, k]
                for q in range(1, functions):
                    total += gain[i, q] * z[q, k]
                    back += s[i, q] * gain[q, k]
                kz[i, k] = total
                e[i, k] = (1.0 if i == k else 0.0) - back
        for i in range(functions):
            for k in range(functions):
                total = e[i, 0] * z[0, k]
                for q in range(1, functions):
                    total += e[i, q] * z[q, k]
                ez[i, k] = total
        for i in range(functions):
            total = mu[i]
            for q in range(functions):
                total += s[i, q] * weight[q] + e[i, q] * v[q]
            means[j, i] = total
            for k in range(i + 1):
                total = e[i, 0] * s[0, k] - ez[i, 0] * e[k, 0]
                for q in range(1, functions):
                    total += e[i, q] * s[q, k] - ez[i, q] * e[k, q]
                covariances[j, i, k] = total
                covariances[j, k, i] = total
        if wants_lag:
            if j + 1 < n:
                # kept is (H^T - N W)^T of the next node; Cov = E W^T A^T (H^T - N W).
                step = transitions[j]
                for i in range(functions):
                    for k in range(blocks):
                        turn = step[which[k]]
                        for h in range(b):
                            total = turn[0, h] * kept[i, k * b]
                            for q in range(1, b):
                                total += turn[q, h] * kept[i, k * b + q]
                            moved[i, k * b + h] = total
                for i in range(functions):
                    for k in range(functions):
                        total = wt[i, 0] * moved[k, 0]
                        for q in range(1, d):
                            total += wt[i, q] * moved[k, q]
                        lag_one[j, i, k] = total
                for k in range(functions):
                    for i in range(functions):
                        a[i] = lag_one[j, i, k]
                    for i in range(functions):
                        total = e[i, 0] * a[0]
                        for q in range(1, functions):
                            total += e[i, q] * a[q]
                        lag_one[j, i, k] = total
            for i in range(functions):
                for k in range(d):
                    total = e[i, 0] * yt[0, k]
                    for q in range(1, functions):
                        total += e[i, q] * yt[q, k]
                    kept[i, k] = -total
            for k in range(blocks):
                for i in range(functions):
                    total = 0.0 * v[0]
                    for q in range(functions):
                        total += (s[i, q] - ez[i, q]) * gain[q, owner[k]]
                    kept[i, k * b] += (1.0 if owner[k] == i else 0.0) - total
        for i in range(functions):
            total = weight[i]
            for q in range(functions):
                total -= gain[i, q] * v[q]
            a[i] = total
            for k in range(d):
                ky[i, k] = gain[i, 0] * yt[0, k]
            for q in range(1, functions):
                for k in range(d):
                    ky[i, k] += gain[i, q] * yt[q, k]
        if wants_gradient:
            bar = first_bar[j if first_bar.shape[0] > 1 else 0]
            for k in range(blocks):
                o = owner[k]
                for i in range(b):
                    bar[k * b + i] += psi[k * b + i] * a[o] + ky[o, k * b + i]
                total = a[o] * a[o] - gain[o, o]
                for q in range(functions):
                    total -= kz[o, q] * gain[q, o]
                bar[k * b] += 0.5 * total
        for k in range(blocks):
            o = owner[k]
            psi[k * b] += a[o]
            for i in range(d):
                info[k * b, i] -= ky[o, i]
                info[i, k * b] -= ky[o, i]
        for k in range(blocks):
            for i in range(blocks):
                total = gain[owner[k], owner[i]]
                for q in range(functions):
                    total += kz[owner[k], q] * gain[q, owner[i]]
                info[k * b, i * b] += total


@numba.njit(**ENTRY)
def means(size, transitions, which, owner, lam, eta, w_rows, s_all, gains, out):  # type: ignore[no-untyped-def]
    """Posterior means for other informations ``eta`` (C, N, R) and the same precisions, after :func:`forward`.

    What it takes:

    * size, transitions, which, owner, lam, w_rows, s_all, gains: as there.
    * eta: informations.
    * out: posterior means (C, N, R), written.
    """
    count, n, functions = eta.shape
    blocks = owner.shape[0]
    b = len(size)
    d = blocks * b
    m, m2 = np.zeros(d), np.zeros(d)
    r, mu, v = np.zeros(functions), np.zeros(functions), np.zeros(functions)
    weights = np.zeros((n, functions))
    for c in range(count):
        for k in range(d):
            m[k] = 0.0
        for j in range(n):
            wt, s, gain = w_rows[j], s_all[j], gains[j]
            for i in range(functions):
                mu[i] = 0.0
            for k in range(blocks):
                mu[owner[k]] += m[k * b]
            for i in range(functions):
                total = eta[c, j, i]
                for k in range(functions):
                    total -= (lam[j, i, k] if k <= i else lam[j, k, i]) * mu[k]
                r[i] = total
            for i in range(functions):
                total = 0.0
                for k in range(functions):
                    total += s[i, k] * r[k]
                v[i] = total
            for i in range(functions):
                total = r[i]
                for k in range(functions):
                    total -= gain[i, k] * v[k]
                weights[j, i] = total
                for k in range(d):
                    m[k] += total * wt[i, k]
            for i in range(functions):
                total = mu[i]
                for k in range(functions):
                    total += s[i, k] * weights[j, k]
                out[c, j, i] = total
            if j + 1 < n:
                for k in range(blocks):
                    a = transitions[j, which[k]]
                    for i in range(b):
                        total = 0.0
                        for q in range(b):
                            total += a[i, q] * m[k * b + q]
                        m2[k * b + i] = total
                m, m2 = m2, m
        for k in range(d):
            m[k] = 0.0
        for j in range(n - 1, -1, -1):
            wt, s, gain = w_rows[j], s_all[j], gains[j]
            if j + 1 < n:
                for k in range(blocks):
                    a = transitions[j, which[k]]
                    for i in range(b):
                        total = 0.0
                        for q in range(b):
                            total += a[q, i] * m[k * b + q]
                        m2[k * b + i] = total
                m, m2 = m2, m
            for i in range(functions):
                total = 0.0
                for k in range(d):
                    total += wt[i, k] * m[k]
                v[i] = total
            for i in range(functions):
                total = 0.0
                for k in range(functions):
                    total += gain[i, k] * v[k]
                r[i] = total
            for i in range(functions):
                total = v[i]
                for k in range(functions):
                    total -= s[i, k] * r[k]
                out[c, j, i] += total
            for k in range(blocks):
                m[k * b] += weights[j, owner[k]] - r[owner[k]]


@numba.njit(**ENTRY)
def propagate(size, transitions, which, owner, roots, white, out):  # type: ignore[no-untyped-def]
    """Paths of the prior from white noise.

    What it takes:

    * size, transitions, which, owner: as in :func:`forward`.
    * roots: roots of the covariances that enter at each node (N, nb, b, b).
    * white: (C, N, D).
    * out: functions (C, N, R), zeros, written.
    """
    count, n, d = white.shape
    blocks = owner.shape[0]
    b = len(size)
    x, x2 = np.zeros(d), np.zeros(d)
    for c in range(count):
        for j in range(n):
            for k in range(blocks):
                for i in range(b):
                    total = 0.0
                    for q in range(b):
                        total += roots[j, which[k], i, q] * white[c, j, k * b + q]
                        if j > 0:
                            total += transitions[j - 1, which[k], i, q] * x[k * b + q]
                    x2[k * b + i] = total
                out[c, j, owner[k]] += x2[k * b]
            x, x2 = x2, x
