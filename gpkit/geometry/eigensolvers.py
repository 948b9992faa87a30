"""Smallest eigenpairs of large sparse symmetric matrices; the solver is chosen by argument, and named."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg

from gpkit.errors import ConvergenceError, InvalidDataError, MissingDependencyError
from gpkit.geometry.block_lanczos import largest_eigenpairs
from gpkit.geometry.checks import Floats
from gpkit.operators.elimination import SymmetricFactor

__all__ = ["SOLVERS", "Eigenpairs", "choose_solver", "smallest_eigenpairs"]

SOLVERS = ("auto", "dense", "shift-invert", "lobpcg")
_DENSE = 1_200
_SEED = 20_240_401


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """The k smallest eigenpairs.

    Attributes:
        values: (k,), increasing, not below zero.
        vectors: (N, k), orthonormal columns.
        solver: which solver found them.
        residual: largest ``|A v - lam v|`` relative to the largest eigenvalue of A (a bound).
    """

    values: Floats
    vectors: Floats
    solver: str
    residual: float


def choose_solver(size: int, k: int) -> str:
    """The solver that "auto" stands for: dense where a good part of the spectrum of a small matrix is wanted."""
    if size <= _DENSE or (k > size // 6 and size <= 8_000) or k >= size - 1:
        return "dense"
    return "shift-invert"


def smallest_eigenpairs(matrix: Any, k: int, solver: str = "auto", block: int = 1) -> Eigenpairs:
    """The k smallest eigenpairs of a sparse symmetric positive semidefinite matrix (N, N).

    Args:
        matrix: the matrix.
        k: how many; at most N.
        solver: "dense" (LAPACK), "shift-invert" (block Lanczos around a sparse Cholesky factor), "lobpcg"
            (preconditioned by algebraic multigrid; needs pyamg) or "auto" (see :func:`choose_solver`).
        block: unknowns that belong together (d per node).

    Raises:
        InvalidDataError: an unknown solver, or k out of range.
        ConvergenceError: the iteration did not converge.
    """
    size = matrix.shape[0]
    if solver not in SOLVERS:
        raise InvalidDataError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    if not 1 <= k <= size:
        raise InvalidDataError(f"k must lie between 1 and the {size} unknowns, got {k}")
    name = choose_solver(size, k) if solver == "auto" else solver
    if name != "dense" and k >= size - 1:
        raise InvalidDataError(f"the {name} solver finds fewer than N - 1 = {size - 1} eigenpairs, {k} were asked for")
    if name == "dense":
        values, vectors = scipy.linalg.eigh(matrix.toarray(), subset_by_index=(0, k - 1))
    elif name == "shift-invert":
        values, vectors = _shift_invert(matrix, k, block)
    else:
        values, vectors = _lobpcg(matrix, k)
    order = np.argsort(values, kind="stable")
    values, vectors = values[order], np.ascontiguousarray(vectors[:, order])
    bound = max(float(abs(matrix).sum(1).max()), 1e-300)
    residual = 0.0
    for start in range(0, k, 50):
        part = slice(start, start + 50)
        misfit = matrix @ vectors[:, part] - vectors[:, part] * values[part]
        residual = max(residual, float(np.sqrt((misfit**2).sum(0)).max()) / bound)
    return Eigenpairs(np.maximum(values, 0.0), vectors, name, residual)


def _shift_invert(matrix: Any, k: int, block: int) -> tuple[Floats, Floats]:
    size = matrix.shape[0]
    shift = -1e-5 * float(matrix.diagonal().mean())  # well below the eigenvalues that are wanted
    factor = SymmetricFactor((matrix - shift * sparse.identity(size, format="csr")).tocsr(), block=block)
    inverses, vectors = largest_eigenpairs(factor.solve, size, k, seed=_SEED)
    return 1.0 / inverses + shift, vectors


def _lobpcg(matrix: Any, k: int) -> tuple[Floats, Floats]:
    try:
        import pyamg
    except ImportError:
        raise MissingDependencyError.for_extra("pyamg", extra="manifold", purpose="solver='lobpcg'") from None
    size = matrix.shape[0]
    if 5 * k > size:
        raise InvalidDataError(f"lobpcg needs at least five unknowns per mode, got {size} for {k}; use 'dense'")
    shift = 1e-3 * float(matrix.diagonal().mean())
    shifted = (matrix + shift * sparse.identity(size, format="csr")).tocsr()
    state = np.random.get_state()  # noqa: NPY002 - pyamg draws from the global generator
    np.random.seed(_SEED)  # noqa: NPY002
    try:
        hierarchy = pyamg.smoothed_aggregation_solver(shifted, symmetry="symmetric", strength="symmetric")
    finally:
        np.random.set_state(state)  # noqa: NPY002
    guard = k + max(8, k // 6)
    start = np.random.default_rng(_SEED).standard_normal((size, guard))
    with warnings.catch_warnings():
        # It prints the residuals of all columns if guards are left, which nobody wants; those of the k modes are below.
        warnings.filterwarnings("ignore", "Exited", UserWarning)
        values, vectors, history = sparse_linalg.lobpcg(
            shifted,
            start,
            M=hierarchy.aspreconditioner(),
            largest=False,
            tol=1e-8 * float(shifted.diagonal().mean()),
            maxiter=200,
            retResidualNormsHistory=True,
        )
    order = np.argsort(values)[:k]
    last = float(np.max(np.asarray(history[-1])[order]))
    if not np.isfinite(values).all() or last > 1e-4 * float(shifted.diagonal().mean()):
        raise ConvergenceError(f"lobpcg stopped at a residual of {last:.1e}; use solver='shift-invert'")
    return values[order] - shift, vectors[:, order]
