"""Filter of independent Markov functions that are coupled by Gaussian sites; the way back is in `site_smoother`.

R functions ``u_r(t)`` have states that are stacked from blocks of one size b, each with its own transition; function r
is the sum of the first components of the blocks that it owns. At node j (sorted coordinates) a site multiplies the
prior by ``exp(eta_j^T u_j - u_j^T Lam_j u_j / 2)``; a node with ``Lam_j = 0, eta_j = 0`` is a prediction. The evidence
is the logarithm of the integral of prior times sites.

As in :mod:`gpkit.recursions.order2` the recursion carries ``Delta = P_prior - P_predicted`` and the predicted mean m,
and the covariance of states and functions is ``W = P_prior H^T - Delta H^T``: process noise never appears, nothing is
inverted but ``I + Lam S``, and singular priors, repeated coordinates and gaps of any length need no care. The errors
are rounding errors of the prior variance.

Arrays of one series: transitions (N, nb, b, b), of which the last is not used; ``which`` (NB,) names the transition of
each block of the state and ``owner`` (NB,) its function; ``first`` (1 or N, NB * b) is the covariance of each block
with its first component; precisions ``lam`` (N, R, R), symmetric, and information ``eta`` (N, R). Complex sites carry
a direction (see :mod:`gpkit.recursions.site_gain`): derivatives of posterior moments are derivatives of the adjoint
along a direction of the sites.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gpkit.recursions.compilation import ENTRY, uncounted
from gpkit.recursions.site_blocks import advance, congruence
from gpkit.recursions.site_gain import ROOM, gain

__all__ = ["Prior", "Stored", "forward", "room_for", "stored_for"]


class Prior(NamedTuple):
    """Prior of one series, see the module; ``size`` is anything of length b, a tuple makes b a constant."""

    shape: Any
    transitions: NDArray[Any]
    which: NDArray[Any]
    owner: NDArray[Any]
    first: NDArray[Any]


class Stored(NamedTuple):
    """What the forward pass leaves behind, by node.

    Attributes:
        w: W transposed, (N, R, D).
        s: predicted covariance of the functions, (N, R, R).
        k: gain K, (N, R, R).
        weights: w, (N, R).
        mu: predicted mean of the functions, (N, R).
        m: mean of the state after the site, (N, D), or no rows.
        delta: Delta after the site, (N, D, D), or no rows.
    """

    w: NDArray[Any]
    s: NDArray[Any]
    k: NDArray[Any]
    weights: NDArray[Any]
    mu: NDArray[Any]
    m: NDArray[Any]
    delta: NDArray[Any]


class _Room(NamedTuple):
    """Temporaries: states (4, D), matrices (2, D, D), rows (4, R, D), small (5, R, R), gain (ROOM, R + 2, R), ..."""

    states: NDArray[Any]
    matrices: NDArray[Any]
    rows: NDArray[Any]
    small: NDArray[Any]
    gain: NDArray[Any]
    block: NDArray[Any]
    columns: NDArray[Any]
    turned: NDArray[Any]


def stored_for(n: int, functions: int, d: int, keep_states: bool, dtype: Any) -> Stored:
    """Room for what the forward pass stores; ``keep_states`` for derivatives."""
    kept = n if keep_states else 0
    shapes = [(n, functions, d), (n, functions, functions), (n, functions, functions), (n, functions), (n, functions)]
    return Stored(*(np.empty(shape, dtype) for shape in [*shapes, (kept, d), (kept, d, d)]))


def room_for(functions: int, d: int, b: int, distinct: int, dtype: Any) -> Any:
    """Temporaries for both passes."""
    return _Room(
        np.empty((4, d), dtype),
        np.empty((2, d, d), dtype),
        np.empty((4, functions, d), dtype),
        np.empty((5, functions, functions), dtype),
        np.empty((ROOM, functions + 2, functions)),
        np.empty((b, b), dtype),
        np.empty((d, b), dtype),
        np.empty((distinct, b, b)),
    )


@uncounted
def _predict(shape, owner, prior, m, delta, wt, s, mu):
    """W^T, S and mu of a node from the predicted state."""
    functions = len(shape[1])
    d = len(shape[0]) * len(shape[2])
    b = len(shape[0])
    for i in range(functions):
        mu[i] = 0.0
        for k in range(d):
            wt[i, k] = 0.0
        for k in range(functions):
            s[i, k] = 0.0
    for k in range(len(shape[2])):
        o = owner[k]
        mu[o] += m[k * b]
        for i in range(d):
            wt[o, i] -= delta[k * b, i]
        for i in range(b):
            wt[o, k * b + i] += prior[k * b + i]
    for k in range(len(shape[2])):
        for i in range(functions):
            s[i, owner[k]] += wt[i, k * b]


@uncounted
def _update(shape, lam, eta, wt, s, k_out, weights, mu, m, delta, kw, r, room):
    """Take a site in; returns its evidence and whether its precision is positive semidefinite."""
    functions = len(shape[1])
    d = len(shape[0]) * len(shape[2])
    for i in range(functions):
        total = eta[i]
        for k in range(functions):
            total -= lam[i, k] * mu[k]
        r[i] = total
    logdet, good = gain(shape, lam, s, r, k_out, weights, room)
    value = -logdet
    for i in range(functions):
        for k in range(functions):
            value += r[i] * s[i, k] * weights[k]
        value += (eta[i] + r[i]) * mu[i]
    for i in range(functions):
        for k in range(d):
            m[k] += weights[i] * wt[i, k]
            kw[i, k] = k_out[i, 0] * wt[0, k]
        for q in range(1, functions):
            for k in range(d):
                kw[i, k] += k_out[i, q] * wt[q, k]
    for k in range(d):
        for q in range(k + 1):
            total = delta[k, q]
            for i in range(functions):
                total += wt[i, k] * kw[i, q]
            delta[k, q] = total
            delta[q, k] = total
    return 0.5 * value, good


@uncounted
def _forward(shape, transitions, which, owner, first, lam, eta, stored, room, evidence):
    n = eta.shape[0]
    functions = len(shape[1])
    m, m2 = room.states[0], room.states[1]
    delta, delta2 = room.matrices[0], room.matrices[1]
    d = len(shape[0]) * len(shape[2])
    bad = -1
    for k in range(d):
        m[k] = 0.0
        for q in range(d):
            delta[k, q] = 0.0
    for j in range(n):
        informed = False
        for i in range(functions):
            informed = informed or eta[j, i] != 0.0
            for k in range(i + 1):
                informed = informed or lam[j, i, k] != 0.0
        prior = first[j if first.shape[0] > 1 else 0]
        _predict(shape, owner, prior, m, delta, stored.w[j], stored.s[j], stored.mu[j])
        if informed:
            value, good = _update(
                shape,
                lam[j],
                eta[j],
                stored.w[j],
                stored.s[j],
                stored.k[j],
                stored.weights[j],
                stored.mu[j],
                m,
                delta,
                room.rows[0],
                room.states[2],
                room.gain,
            )
            evidence[0] += value
            if not good and bad < 0:
                bad = j
        else:
            for i in range(functions):
                stored.weights[j, i] = 0.0
                for k in range(functions):
                    stored.k[j, i, k] = 0.0
        if stored.m.shape[0] > 0:
            for k in range(d):
                stored.m[j, k] = m[k]
                for q in range(d):
                    stored.delta[j, k, q] = delta[k, q]
        if j + 1 < n:
            congruence(shape, transitions[j], which, delta, delta2, room.block)
            advance(shape, transitions[j], which, m, m2)
            delta, delta2 = delta2, delta
            m, m2 = m2, m
    return bad


@numba.njit(**ENTRY)
def forward(prior, lam, eta, stored, room, evidence):
    """Filter one series; adds to ``evidence`` (1,), fills ``stored``.

    Returns the first node whose precision is not positive semidefinite, or -1.
    """
    return _forward(
        prior.shape, prior.transitions, prior.which, prior.owner, prior.first, lam, eta, stored, room, evidence
    )
