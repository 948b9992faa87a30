"""One axis of a field under its boundary conditions: constrained functions, lift and test functions.

The conditions at the two ends are linear functionals of the coefficients, B c = g. Constrained functions, B z = 0, are
short combinations of neighbouring Legendre polynomials, so that every matrix of a constant operator stays banded:
nothing is inverted and nothing is ill-conditioned. A self-adjoint operator becomes *diagonal* in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpkit.inference.collocation.bases import Array, Basis, LegendreBasis

__all__ = ["Axis", "EndCondition", "along", "dense"]


def along(matrix: Any, tensor: NDArray[Any], axis: int) -> NDArray[Any]:
    """Apply a matrix (dense, sparse, or anything that multiplies) to one axis of a tensor."""
    if axis == 0:
        flat = tensor.reshape(tensor.shape[0], -1)
        return np.asarray(matrix @ flat).reshape(-1, *tensor.shape[1:])
    if axis == tensor.ndim - 1 and isinstance(matrix, np.ndarray):
        return np.asarray(tensor @ matrix.T)
    moved = np.moveaxis(tensor, axis, 0)
    flat = np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    return np.moveaxis(np.asarray(matrix @ flat).reshape(-1, *moved.shape[1:]), 0, axis)


@dataclass(frozen=True)
class EndCondition:
    """A functional of one end: sum of coefficients times derivatives.

    Attributes:
        side: 0 lower, 1 upper.
        terms: (order, coefficient).
    """

    side: int
    terms: tuple[tuple[int, float], ...]

    def row(self, basis: Basis) -> Array:
        """Its values of the functions of a basis, (size,)."""
        end = np.array([basis.upper if self.side else basis.lower])
        return np.asarray(sum(c * basis.evaluate(end, o)[0] for o, c in self.terms))


@dataclass
class Axis:
    """A basis under conditions.

    Attributes:
        basis: Of the unconstrained coefficients, r functions.
        conditions: b of them.
        functional: B, (b, r), rows scaled to length one.
        scales: Length of the rows before scaling, (b,).
        constrained: Z, (r, r - b).
        lift: Y, (r, b), of low degree, with B Y = 1.
    """

    basis: Basis
    conditions: tuple[EndCondition, ...] = ()
    functional: Array = field(init=False)
    scales: Array = field(init=False)
    constrained: sparse.csr_matrix | Array = field(init=False)
    lift: Array = field(init=False)
    _tests: dict[int, sparse.csr_matrix] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        r, b = self.basis.size, len(self.conditions)
        rows = np.array([c.row(self.basis) for c in self.conditions]).reshape(b, r)
        self.scales = np.abs(rows[:, : b + 3]).max(axis=1, initial=0.0)
        self.scales[self.scales == 0.0] = 1.0
        self.functional = rows / self.scales[:, None]
        if b == 0:
            self.constrained, self.lift = sparse.identity(r, format="csr"), np.zeros((r, 0))
            return
        weights = (1.0 + np.arange(r)) ** -8.0
        gram = (self.functional * weights) @ self.functional.T
        self.lift = (weights[:, None] * self.functional.T) @ np.linalg.pinv(gram, rcond=1e-13, hermitian=True)
        self.lift = self.lift @ np.linalg.pinv(self.functional @ self.lift)
        self.constrained = self._recombined() if isinstance(self.basis, LegendreBasis) else self._null_space()

    @property
    def free(self) -> int:
        """Number of constrained functions."""
        return self.basis.size - len(self.conditions)

    @property
    def is_determined(self) -> bool:
        """Whether the conditions are independent."""
        b = len(self.conditions)
        return b == 0 or bool(np.abs(self.functional @ self.lift - np.eye(b)).max() < 1e-8)

    def _recombined(self) -> sparse.csr_matrix | Array:
        """Column k combines functions k ... k + b; of unit length."""
        r, b = self.functional.shape[1], len(self.conditions)
        count = r - b
        windows = np.lib.stride_tricks.sliding_window_view(self.functional, b + 1, axis=1)  # (b, count, b + 1)
        windows = np.moveaxis(windows, 1, 0)
        # Rows are scaled within each window: derivatives of high degrees are large.
        scaled = windows / np.maximum(np.abs(windows).max(axis=2, keepdims=True), 1e-300)
        vectors = _null_vectors(scaled)
        if np.abs(vectors[:, 0]).min() < 1e-9 * np.abs(vectors).max():
            return self._null_space()  # a window's first function satisfies nothing: columns may repeat
        vectors = vectors * np.sign(vectors[:, :1])
        vectors[np.abs(vectors) < 1e-15] = 0.0  # parity
        rows = np.arange(count)[:, None] + np.arange(b + 1)
        columns = np.repeat(np.arange(count), b + 1)
        return sparse.csr_matrix((vectors.ravel(), (rows.ravel(), columns)), shape=(r, count))

    def _null_space(self) -> Array:
        b = len(self.conditions)
        return np.linalg.svd(self.functional)[2][b:].T

    def scaled_values(self, values: Sequence[Array]) -> Array:
        """Right sides of the conditions in the scale of ``functional``: (b, ...)."""
        return np.stack([v / s for v, s in zip(values, self.scales, strict=True)])

    def symbol(self, symbol: Mapping[int, float]) -> Array | sparse.csr_matrix:
        """Matrix of sum_o symbol[o] d^o on unconstrained coefficients, (r, r)."""
        total = None
        for order, value in symbol.items():
            if value != 0.0:
                term = value * self.basis.derivative(order)
                total = term if total is None else total + term
        return sparse.csr_matrix((self.basis.size,) * 2) if total is None else total

    def galerkin(self, symbol: Mapping[int, float]) -> tuple[Array, Array]:
        """Operator and mass among constrained functions, dense (free, free): Z^T L Z and Z^T Z."""
        z = self.constrained
        image = self.symbol(symbol) @ z
        operator, mass = z.T @ image, z.T @ z
        return dense(operator), dense(mass)

    def test(self, order: int) -> sparse.csr_matrix:
        """Petrov test functions for an operator of an order: U, (r - order, r), banded with a unit diagonal.

        Row k takes the coefficients of a function in the polynomials whose ``order``-th antiderivatives are Legendre's;
        in these, every derivative up to the order is banded.
        """
        if order not in self._tests:
            basis = self.basis
            if not isinstance(basis, LegendreBasis):
                matrix = sparse.identity(basis.size, format="csr")
            else:
                matrix = _conversion(basis.size, 0, order) @ sparse.diags(basis.norms)
                matrix = sparse.diags(1.0 / matrix.diagonal()) @ matrix
                matrix = matrix.tocsr()[: basis.size - order]
            self._tests[order] = matrix
        return self._tests[order]

    def petrov(self, symbol: Mapping[int, float]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Operator and mass between constrained functions and the test functions of its order, banded."""
        m = max((o for o, v in symbol.items() if v != 0.0), default=0)
        basis = self.basis
        if not isinstance(basis, LegendreBasis):
            return sparse.csr_matrix(self.symbol(symbol)), sparse.identity(basis.size, format="csr")
        r = basis.size
        full = _conversion(r, 0, m) @ sparse.diags(basis.norms)
        rows = sparse.diags(1.0 / full.diagonal())
        operator = sparse.csr_matrix((r, r))
        for order, value in symbol.items():
            if value != 0.0:
                shifted = sparse.diags(
                    [
                        math.prod(range(1, 2 * order, 2))
                        * basis.norms[order:]
                        * (2.0 / (basis.upper - basis.lower)) ** order
                    ],
                    [order],
                    shape=(r, r),
                )
                operator = operator + value * (_conversion(r, order, m) @ shifted)
        keep = slice(0, r - m)
        left = (rows @ operator).tocsr()[keep] @ self.constrained
        return sparse.csr_matrix(left), sparse.csr_matrix(self.test(m) @ self.constrained)


def dense(matrix: Any) -> Array:
    """A matrix with all its entries."""
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=np.float64)


def _null_vectors(rows: Array) -> Array:
    """Unit vectors (count, b + 1) that are orthogonal to b rows each, (count, b, b + 1)."""
    if rows.shape[1] == 1:
        vectors = np.stack([-rows[:, 0, 1], rows[:, 0, 0]], axis=1)
    elif rows.shape[1] == 2:
        vectors = np.cross(rows[:, 0], rows[:, 1])
    else:
        return np.asarray(np.linalg.svd(rows)[2][:, -1, :])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300))


def _conversion(size: int, start: int, stop: int) -> sparse.csr_matrix:
    """From coefficients in Gegenbauer polynomials of parameter start + 1/2 to those of parameter stop + 1/2."""
    matrix = sparse.identity(size, format="csr")
    k = np.arange(size)
    for step in range(start, stop):
        share = (step + 0.5) / (k + step + 0.5)
        matrix = sparse.diags([share, -share[2:]], [0, 2], shape=(size, size)) @ matrix
    return matrix.tocsr()
