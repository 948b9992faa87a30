"""Block Lanczos with full reorthogonalisation: many eigenpairs for few passes over a factor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpkit.errors import ConvergenceError
from gpkit.geometry.checks import Floats

__all__ = ["largest_eigenpairs"]


def largest_eigenpairs(
    apply: Callable[[Floats], Floats], size: int, k: int, tol: float = 1e-10, seed: int = 0
) -> tuple[Floats, Floats]:
    """The k largest eigenpairs of a symmetric positive definite operator that is applied to blocks of vectors.

    A triangular solve for many vectors at once costs little more than for one, and a block finds all copies of a
    multiple eigenvalue. The basis grows until the residuals are small, and is compressed to the best directions when it
    holds more than four times as many vectors as are wanted.

    Args:
        apply: the operator, (N, p) to (N, p).
        size: N.
        k: number of eigenpairs.
        tol: residual relative to the eigenvalue.
        seed: of the first block.

    Returns:
        Eigenvalues (k,), decreasing, and orthonormal eigenvectors (N, k).

    Raises:
        ConvergenceError: 60 blocks were not enough.

    References:
        Golub & Underwood (1977), Mathematical Software III; Wu & Simon (2000), SIAM J. Matrix Anal. Appl. 22, 602
        (thick restart).
    """
    block = int(np.clip(k // 12, 8, 32))
    block = min(block, max(1, (size - 1) // 3))
    most = min(size, max(4 * k, k + 12 * block))
    basis = np.empty((size, most + block))
    basis[:, :block] = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, block)))[0]
    images = np.zeros((most + block, most + block))
    filled, current = block, slice(0, block)
    for _ in range(200):
        width = current.stop - current.start
        fresh = apply(np.ascontiguousarray(basis[:, current]))
        known = basis[:, :filled]
        overlap = known.T @ fresh
        images[:filled, current] = overlap
        images[current, :filled] = overlap.T
        fresh -= known @ overlap
        fresh -= known @ (known.T @ fresh)
        following, rest = np.linalg.qr(fresh)
        projected = 0.5 * (images[:filled, :filled] + images[:filled, :filled].T)
        values, vectors = np.linalg.eigh(projected)
        values, vectors = values[::-1], vectors[:, ::-1]
        if filled >= k:
            residuals = np.linalg.norm(rest @ vectors[current, :k], axis=0)
            if (residuals <= tol * values[:k]).all() or filled + width > size:
                return values[:k].copy(), basis[:, :filled] @ vectors[:, :k]
        if filled + 2 * width > most + block:
            # Keep the best directions; the next block is coupled to all of them.
            kept = min(k + 2 * block, filled - width)
            basis[:, :kept] = basis[:, :filled] @ vectors[:, :kept]
            images[:] = 0.0
            images[np.arange(kept), np.arange(kept)] = values[:kept]
            filled = kept
        basis[:, filled : filled + width] = following
        current = slice(filled, filled + width)
        filled += width
    raise ConvergenceError(f"block Lanczos did not find {k} eigenpairs of {size} unknowns to {tol:g}")
