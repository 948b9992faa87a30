"""Paths of the prior, and posterior means for many informations at once: what joint draws are made of.

Arrays are those of :mod:`gpkit.recursions.sites`.
"""

from __future__ import annotations

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY
from gpkit.recursions.site_blocks import advance, transpose

__all__ = ["means", "propagate"]


@numba.njit(**ENTRY)
def means(prior, lam, eta, stored, out):
    """Write the posterior means (C, N, R) for informations ``eta`` (C, N, R), after a forward pass with ``lam``."""
    count, n, functions = eta.shape
    which, owner = prior.which, prior.owner
    b = len(prior.shape[0])
    d = which.shape[0] * b
    m, m2 = np.zeros(d), np.zeros(d)
    turned = np.zeros(prior.transitions.shape[1:])
    r, v = np.zeros(functions), np.zeros(functions)
    weights = np.zeros((n, functions))
    for c in range(count):
        m[:] = 0.0
        for j in range(n):
            v[:] = 0.0
            for k in range(owner.shape[0]):
                v[owner[k]] += m[k * b]
            for i in range(functions):
                out[c, j, i] = v[i]
                r[i] = eta[c, j, i]
                for k in range(functions):
                    r[i] -= lam[j, i, k] * v[k]
            for i in range(functions):
                v[i] = 0.0
                for k in range(functions):
                    v[i] += stored.s[j, i, k] * r[k]
            for i in range(functions):
                weights[j, i] = r[i]
                for k in range(functions):
                    weights[j, i] -= stored.k[j, i, k] * v[k]
                for k in range(d):
                    m[k] += weights[j, i] * stored.w[j, i, k]
            for i in range(functions):
                for k in range(functions):
                    out[c, j, i] += stored.s[j, i, k] * weights[j, k]
            if j + 1 < n:
                advance(prior.shape, prior.transitions[j], which, m, m2)
                m, m2 = m2, m
        m[:] = 0.0
        for j in range(n - 1, -1, -1):
            if j + 1 < n:
                transpose(prior.shape, prior.transitions[j], turned)
                advance(prior.shape, turned, which, m, m2)
                m, m2 = m2, m
            for i in range(functions):
                v[i] = 0.0
                for k in range(d):
                    v[i] += stored.w[j, i, k] * m[k]
            for i in range(functions):
                r[i] = 0.0
                for k in range(functions):
                    r[i] += stored.k[j, i, k] * v[k]
            for i in range(functions):
                out[c, j, i] += v[i]
                for k in range(functions):
                    out[c, j, i] -= stored.s[j, i, k] * r[k]
            for k in range(owner.shape[0]):
                m[k * b] += weights[j, owner[k]] - r[owner[k]]


@numba.njit(**ENTRY)
def propagate(prior, roots, white, out):
    """Add paths of the prior to ``out`` (C, N, R), from white noise (C, N, D).

    ``roots`` (N, nb, b, b) are those of the covariances that enter at each node.
    """
    count, n, d = white.shape
    owner = prior.owner
    b = len(prior.shape[0])
    x, x2, enter = np.zeros(d), np.zeros(d), np.zeros(d)
    for c in range(count):
        x[:] = 0.0
        for j in range(n):
            advance(prior.shape, roots[j], prior.which, white[c, j], enter)
            if j > 0:
                advance(prior.shape, prior.transitions[j - 1], prior.which, x, x2)
                x, x2 = x2, x
            for k in range(d):
                x[k] += enter[k]
            for k in range(owner.shape[0]):
                out[c, j, owner[k]] += x[k * b]
