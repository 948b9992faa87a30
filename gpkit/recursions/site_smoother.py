"""Smoother and adjoint of Markov functions that are coupled by Gaussian sites, after the filter of `sites`.

It is the Bryson-Frazier recursion: ``psi`` is the derivative of the evidence with respect to the predicted mean and
``N`` the information of later sites about the state, from which posterior moments and all derivatives follow. Nothing
is inverted. Names and arrays are those of :mod:`gpkit.recursions.sites`.

References:
    Bryson & Frazier (1963); de Jong (1989), Biometrika 76, 600 (covariances between times).
"""

from __future__ import annotations

import numba

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.site_blocks import advance, congruence, transpose

__all__ = ["backward"]


@uncounted
def _transition_derivatives(shape, step, which, m, delta, psi, info, columns, bar):
    """Add ``psi m^T + (N - psi psi^T) A Delta``, its diagonal blocks, to ``bar`` (nb, b, b)."""
    b = len(shape[0])
    d = len(shape[0]) * len(shape[2])
    for k in range(len(shape[2])):
        for q in range(len(shape[2])):
            for i in range(b):
                for h in range(b):
                    total = step[which[q], i, 0] * delta[q * b, k * b + h]
                    for g in range(1, b):
                        total += step[which[q], i, g] * delta[q * b + g, k * b + h]
                    columns[q * b + i, h] = total
        for i in range(b):
            at = k * b + i
            for h in range(b):
                total = psi[at] * m[k * b + h]
                for q in range(d):
                    total += (info[at, q] - psi[at] * psi[q]) * columns[q, h]
                bar[which[k], i, h] += total


@uncounted
def _multiply(shape, left, right, out):
    """``out = left right`` of small square matrices."""
    n = len(shape[1])
    for i in range(n):
        for k in range(n):
            total = left[i, 0] * right[0, k]
            for q in range(1, n):
                total += left[i, q] * right[q, k]
            out[i, k] = total


@uncounted
def _look_back(shape, wt, s, gains, weights, mu, psi, info, yt, v, e, z, ez, kz, mean, covariance):
    """Posterior moments of a node; leaves ``Y^T = W^T N``, ``v = W^T psi``, E, Z, E Z and K Z."""
    functions = len(shape[1])
    d = len(shape[0]) * len(shape[2])
    for i in range(functions):
        for k in range(d):
            yt[i, k] = wt[i, 0] * info[0, k]
        for q in range(1, d):
            for k in range(d):
                yt[i, k] += wt[i, q] * info[q, k]
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
    _multiply(shape, s, gains, e)
    for i in range(functions):
        for k in range(functions):
            e[i, k] = (1.0 if i == k else 0.0) - e[i, k]
    _multiply(shape, e, z, ez)
    _multiply(shape, gains, z, kz)
    for i in range(functions):
        total = mu[i]
        for q in range(functions):
            total += s[i, q] * weights[q] + e[i, q] * v[q]
        mean[i] = total
        for k in range(i + 1):
            total = e[i, 0] * s[0, k] - ez[i, 0] * e[k, 0]
            for q in range(1, functions):
                total += e[i, q] * s[q, k] - ez[i, q] * e[k, q]
            covariance[i, k] = total
            covariance[k, i] = total


@uncounted
def _between(shape, turned, which, wt, e, later, moved, room, out):
    """``Cov(u_j, u_j+1) = E W^T A^T (H^T - N W)``, with the last factor, of node j + 1, transposed in ``later``."""
    functions = len(shape[1])
    d = len(shape[0]) * len(shape[2])
    for i in range(functions):
        advance(shape, turned, which, later[i], moved[i])
    for i in range(functions):
        for k in range(functions):
            total = wt[i, 0] * moved[k, 0]
            for q in range(1, d):
                total += wt[i, q] * moved[k, q]
            room[i, k] = total
    _multiply(shape, e, room, out)


@uncounted
def _later(shape, owner, s, gains, e, ez, yt, room, later):
    """``(H^T - N W)^T = H - (S - E Z) K H - E Y^T`` of a node."""
    functions = len(shape[1])
    d = len(shape[0]) * len(shape[2])
    b = len(shape[0])
    for i in range(functions):
        for k in range(functions):
            room[i, k] = s[i, k] - ez[i, k]
        for k in range(d):
            total = e[i, 0] * yt[0, k]
            for q in range(1, functions):
                total += e[i, q] * yt[q, k]
            later[i, k] = -total
    for k in range(len(shape[2])):
        for i in range(functions):
            total = room[i, 0] * gains[0, owner[k]]
            for q in range(1, functions):
                total += room[i, q] * gains[q, owner[k]]
            later[i, k * b] += (1.0 if owner[k] == i else 0.0) - total


@uncounted
def _absorb(shape, owner, gains, weights, yt, v, kz, ky, a, psi, info, bar, derivatives):
    """Take the node's site into psi and N; adds derivatives with respect to ``first`` to ``bar``."""
    functions = len(shape[1])
    d = len(shape[0]) * len(shape[2])
    b = len(shape[0])
    for i in range(functions):
        total = weights[i]
        for q in range(functions):
            total -= gains[i, q] * v[q]
        a[i] = total
        for k in range(d):
            ky[i, k] = gains[i, 0] * yt[0, k]
        for q in range(1, functions):
            for k in range(d):
                ky[i, k] += gains[i, q] * yt[q, k]
    if derivatives:
        for k in range(len(shape[2])):
            o = owner[k]
            for i in range(b):
                bar[k * b + i] += psi[k * b + i] * a[o] + ky[o, k * b + i]
            total = a[o] * a[o] - gains[o, o]
            for q in range(functions):
                total -= kz[o, q] * gains[q, o]
            bar[k * b] += 0.5 * total
    for k in range(len(shape[2])):
        o = owner[k]
        psi[k * b] += a[o]
        for i in range(d):
            info[k * b, i] -= ky[o, i]
            info[i, k * b] -= ky[o, i]
    for k in range(len(shape[2])):
        for i in range(len(shape[2])):
            total = gains[owner[k], owner[i]]
            for q in range(functions):
                total += kz[owner[k], q] * gains[q, owner[i]]
            info[k * b, i * b] += total


@uncounted
def _backward(shape, transitions, which, owner, stored, room, means, covariances, lag_one, transitions_bar, first_bar):
    n = means.shape[0]
    psi, psi2 = room.states[0], room.states[1]
    info, info2 = room.matrices[0], room.matrices[1]
    yt, ky, later, moved = room.rows[0], room.rows[1], room.rows[2], room.rows[3]
    e, z, ez, kz, spare = room.small[0], room.small[1], room.small[2], room.small[3], room.small[4]
    v, a = room.states[2], room.states[3]
    d = len(shape[0]) * len(shape[2])
    wants_lag = lag_one.shape[0] > 0
    derivatives = transitions_bar.shape[0] > 0
    for k in range(d):
        psi[k] = 0.0
        for q in range(d):
            info[k, q] = 0.0
    for j in range(n - 1, -1, -1):
        wt, s, gains, weights = stored.w[j], stored.s[j], stored.k[j], stored.weights[j]
        if j + 1 < n:
            step = transitions[j]
            if derivatives:
                _transition_derivatives(
                    shape, step, which, stored.m[j], stored.delta[j], psi, info, room.columns, transitions_bar[j]
                )
            transpose(shape, step, room.turned)
            congruence(shape, room.turned, which, info, info2, room.block)
            advance(shape, room.turned, which, psi, psi2)
            info, info2 = info2, info
            psi, psi2 = psi2, psi
        _look_back(shape, wt, s, gains, weights, stored.mu[j], psi, info, yt, v, e, z, ez, kz, means[j], covariances[j])
        if wants_lag:
            if j + 1 < n:
                _between(shape, room.turned, which, wt, e, later, moved, spare, lag_one[j])
            _later(shape, owner, s, gains, e, ez, yt, spare, later)
        bar = first_bar[j if first_bar.shape[0] > 1 else 0]
        _absorb(shape, owner, gains, weights, yt, v, kz, ky, a, psi, info, bar, derivatives)


@numba.njit(**ENTRY)
def backward(prior, stored, room, means, covariances, lag_one, transitions_bar, first_bar):
    """Posterior moments of one series after :func:`gpkit.recursions.sites.forward`, and derivatives of its evidence.

    Writes means (N, R), covariances (N, R, R) and, unless it has no rows, lag_one (N - 1, R, R), which are
    ``Cov(u_j, u_j+1)``. Unless transitions_bar (N, nb, b, b) has no rows, adds the derivatives to it and to first_bar
    (1 or N, NB * b).
    """
    _backward(
        prior.shape,
        prior.transitions,
        prior.which,
        prior.owner,
        stored,
        room,
        means,
        covariances,
        lag_one,
        transitions_bar,
        first_bar,
    )
