"""Symmetric positive definite Toeplitz matrices in O(N^2) time and O(N) memory.

The Schur algorithm makes the columns of the Cholesky factor L one after the other from two generators; nothing but the
generators is kept. It is as stable as a dense Cholesky factorisation (mixed hyperbolic rotations). Levinson's
recursion turns its reflection coefficients into the first column of the inverse, which holds the whole inverse.

References:
    Bojanczyk, Brent, de Hoog & Sweet (1995), SIAM J. Matrix Anal. Appl. 16, 40 (stability of the Schur algorithm);
    Golub & Van Loan (2013), Matrix Computations, section 4.7 (Levinson's recursion).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from gpkit.recursions.compilation import ENTRY

__all__ = ["inverse_column", "schur_sweep"]

Array = NDArray[np.float64]


@numba.njit(**ENTRY)
def schur_sweep(column: Array, white: Array, factor: Array) -> tuple[Array, Array, Array, int]:
    """Factor a Toeplitz matrix by columns.

    Args:
        column: first column (N,).
        white: (K, N) to be multiplied by L; K may be zero.
        factor: (N, N) zeros to be filled with L, or (0, 0) if L is not wanted.

    Returns:
        Reflection coefficients (N,), the first of them unused; squared diagonal of L, (N,); ``white L^T``, (K, N),
        where columns of L beyond a pivot that vanishes are zero; the first row whose pivot is not positive, or -1.
    """
    n = column.shape[0]
    draws = white.shape[0]
    reflections, pivots = np.zeros(n), np.ones(n)
    out = np.zeros_like(white)
    if n == 0:
        return reflections, pivots, out, -1
    if not column[0] > 0.0:
        return reflections, pivots, out, 0
    root = np.sqrt(column[0])
    u, v = column / root, column / root
    for k in range(n):
        if k > 0:
            rho = v[k] / u[k - 1]
            left = (1.0 - rho) * (1.0 + rho)
            if not left > 0.0:
                return reflections, pivots, out, k
            reflections[k] = rho
            c = np.sqrt(left)
            # The first generator moves down by one: its entry i is u[i - 1].
            for i in range(n - 1, k - 1, -1):
                new = (u[i - 1] - rho * v[i]) / c
                v[i] = c * v[i] - rho * new
                u[i] = new
        pivots[k] = u[k] * u[k]
        for j in range(draws):
            for i in range(k, n):
                out[j, i] += u[i] * white[j, k]
        if factor.shape[0] > 0:
            for i in range(k, n):
                factor[i, k] = u[i]
    return reflections, pivots, out, -1


@numba.njit(**ENTRY)
def inverse_column(reflections: Array, pivots: Array) -> Array:
    """First column (N,) of the inverse, from the output of :func:`schur_sweep`."""
    n = reflections.shape[0]
    a = np.zeros(n)
    if n == 0:
        return a
    a[0] = 1.0
    for k in range(1, n):
        rho = reflections[k]
        # a <- [a, 0] - rho [0, reversed a], in place from both ends.
        i, j = 0, k
        while i < j:
            low, high = a[i], a[j]
            a[i] = low - rho * high
            a[j] = high - rho * low
            i += 1
            j -= 1
        if i == j:
            a[i] -= rho * a[i]
    return a / pivots[n - 1]
