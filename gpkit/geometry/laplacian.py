"""Scalar and connection Laplacians of weighted graphs as sparse matrices."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from gpkit.geometry.checks import Floats, Integers

__all__ = ["Laplacian", "connection_laplacian", "scalar_laplacian"]


@dataclass(frozen=True, eq=False)
class Laplacian:
    r"""The generalised eigenvalue problem :math:`S u = \lambda M u` of a Laplacian, eigenvalues in 1 / length^2.

    Unknowns are ordered point by point: entry ``i d + a`` is coordinate a at point i.

    Args:
        stiffness: (N, N) sparse, symmetric, positive semidefinite.
        mass: (N,) positive, mean 1.
    """

    stiffness: sparse.csr_matrix
    mass: Floats

    @property
    def size(self) -> int:
        """Number of unknowns N."""
        return len(self.mass)

    @functools.cached_property
    def symmetric(self) -> sparse.csr_matrix:
        """``M^-1/2 S M^-1/2``: the same eigenvalues, eigenvectors ``M^1/2 u``."""
        scale = sparse.diags(1.0 / np.sqrt(self.mass))
        return (scale @ self.stiffness @ scale).tocsr()

    def energy(self, values: Floats) -> float:
        """``u^T S u``, the Dirichlet energy of values (N,)."""
        return float(values @ (self.stiffness @ values))


def _blocks(edges: Integers, values: Any, diagonal: Any, n: int, d: int) -> sparse.csr_matrix:
    """Symmetric block matrix from blocks (E, d, d) above the diagonal and multiples (n,) of the identity on it."""
    count = len(edges)
    nodes = np.arange(n, dtype=np.int32)
    first, second = (edges[:, end].astype(np.int32) for end in (0, 1))
    # Of sorted edges, what is left of the diagonal, on it and right of it comes in the order of the columns.
    rows: Any = np.concatenate([second, nodes, first])
    columns: Any = np.concatenate([first, nodes, second])
    blocks = np.empty((n + 2 * count, d, d))
    blocks[:count] = values.swapaxes(1, 2)
    blocks[count : count + n] = diagonal[:, None, None] * np.eye(d)
    blocks[count + n :] = values
    order = np.argsort(rows, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    matrix = sparse.bsr_matrix((blocks[order], columns[order], starts), shape=(n * d, n * d)).tocsr()
    matrix.sort_indices()
    return matrix


def connection_laplacian(edges: Integers, weights: Floats, rotations: Floats, mass: Floats) -> Laplacian:
    """Laplacian of tangent vector fields: energy ``sum_ij w_ij |v_i - O_ij v_j|^2``.

    Args:
        edges: (E, 2), i < j.
        weights: (E,), calibrated (1 / length^2 times the mass).
        rotations: (E, d, d), transport from j to i.
        mass: (n,).
    """
    n, d = len(mass), rotations.shape[-1]
    degree = np.bincount(edges[:, 0], weights, n) + np.bincount(edges[:, 1], weights, n)
    stiffness = _blocks(edges, -weights[:, None, None] * rotations, degree, n, d)
    return Laplacian(stiffness, np.repeat(mass, d))


def scalar_laplacian(edges: Integers, weights: Floats, mass: Floats) -> Laplacian:
    """Laplacian of functions: energy ``sum_ij w_ij (f_i - f_j)^2``; arguments as of :func:`connection_laplacian`."""
    return connection_laplacian(edges, weights, np.ones((len(edges), 1, 1)), mass)
