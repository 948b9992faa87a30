"""One-dimensional bases of the weight-space view: orthonormal functions on an interval, with derivatives.

A field is a sum of products of these functions times Gaussian weights. Orthonormal means in L2 of the interval, so
that coefficients of a smooth function decay, and that a projection is a weighted transpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = [
    "Array",
    "Basis",
    "FourierBasis",
    "LegendreBasis",
    "evaluate_points",
    "gauss_legendre",
    "legendre_table",
]

_CHUNK = 4_000_000  # numbers at a time when points are many
_REMEMBERED = 400_000  # numbers in a table that is kept

Array = NDArray[np.float64]


@runtime_checkable
class Basis(Protocol):
    """Orthonormal functions on an interval."""

    @property
    def lower(self) -> float:
        """Left end."""
        ...

    @property
    def upper(self) -> float:
        """Right end."""
        ...

    @property
    def size(self) -> int:
        """Number of functions."""
        ...

    @property
    def name(self) -> str:
        """Of the family, for reports."""
        ...

    def evaluate(self, x: Array, order: int = 0) -> Array:
        """Derivatives of the functions at points: (m, size)."""
        ...

    def nodes(self, count: int) -> tuple[Array, Array]:
        """Nodes and weights of a quadrature that is exact for products when ``count`` >= ``size``."""
        ...

    def derivative(self, order: int) -> sparse.csr_matrix | Array:
        """Coefficients of the derivative in the same basis: (size, size)."""
        ...

    def differentiate(self, coefficients: Array, axis: int, order: int) -> Array:
        """Coefficients of a derivative along one axis of a tensor, in O(size) per line."""
        ...

    def at_nodes(self, count: int) -> Array:
        """Values at the ``count`` nodes, (count, size)."""
        ...

    def resized(self, size: int) -> Basis:
        """The same family with another number of functions."""
        ...


@lru_cache(maxsize=32)
def gauss_legendre(count: int) -> tuple[Array, Array]:
    """Nodes (increasing) and weights of Gauss-Legendre quadrature on [-1, 1].

    Newton's iteration from asymptotic guesses, O(count^2) and vectorised over the nodes.

    Args:
        count: Number of nodes, at least 1.

    Returns:
        Two read-only arrays (count,).

    References:
        Tricomi's asymptotic formula for zeros of Legendre polynomials, as in DLMF 18.16(iii).
    """
    if count == 1:
        nodes, weights = np.zeros(1), np.full(1, 2.0)
    else:
        k = np.arange(1, count // 2 + 1)
        angle = math.pi * (4.0 * k - 1.0) / (4.0 * count + 2.0)
        x = (1.0 - (count - 1.0) / (8.0 * count**3)) * np.cos(angle)
        slope = np.ones_like(x)
        for _ in range(8):
            previous, value = np.ones_like(x), x.copy()
            for n in range(1, count):
                previous, value = value, ((2 * n + 1) * x * value - n * previous) / (n + 1)
            slope = count * (previous - x * value) / (1.0 - x * x)
            step = value / slope
            x -= step
            if np.abs(step).max() < 1e-15:
                break
        half = 2.0 / ((1.0 - x * x) * slope**2)
        if count % 2:
            previous, value = 1.0, 0.0  # P_0 and P_1 at the middle node
            for n in range(1, count):
                previous, value = value, -n * previous / (n + 1)
            middle = 2.0 / (count * previous) ** 2
            nodes = np.concatenate([-x, [0.0], x[::-1]])
            weights = np.concatenate([half, [middle], half[::-1]])
        else:
            nodes, weights = np.concatenate([-x, x[::-1]]), np.concatenate([half, half[::-1]])
    nodes.flags.writeable = weights.flags.writeable = False
    return nodes, weights


def legendre_table(tau: Array, size: int, order: int = 0) -> Array:
    """Derivatives of the Legendre polynomials P_0 ... P_{size-1}, (size, m).

    Args:
        tau: Points in [-1, 1], (m,).
        size: Number of polynomials.
        order: Of the derivative with respect to tau.
    """
    table = np.empty((size, tau.size))
    table[0] = 1.0
    if size > 1:
        table[1] = tau
    work = np.empty_like(tau)
    for n in range(1, size - 1):
        np.multiply(tau, table[n], out=work)
        work *= (2 * n + 1) / (n + 1)
        np.multiply(table[n - 1], -n / (n + 1), out=table[n + 1])
        table[n + 1] += work
    for _ in range(order):
        # P'_k = sum of (2 i + 1) P_i over i = k - 1, k - 3, ...: running sums of each parity.
        table *= (2.0 * np.arange(size) + 1.0)[:, None]
        lifted = np.zeros_like(table)
        lifted[1::2] = np.cumsum(table[0::2], axis=0)[: size // 2]
        lifted[2::2] = np.cumsum(table[1::2], axis=0)[: (size - 1) // 2]
        table = lifted
    return table


@lru_cache(maxsize=16)
def _table_of(tau: bytes, size: int, order: int) -> Array:
    """The same of points that come again, as those of one grid do for every term and every face."""
    table = legendre_table(np.frombuffer(tau), size, order)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=12)
def _normalised_at_gauss(size: int, count: int) -> Array:
    """Legendre polynomials of unit norm on [-1, 1] at Gauss nodes, (size, count); read-only."""
    nodes, half = gauss_legendre(count)[0], count // 2
    table = np.empty((size, count))
    table[:, half:] = legendre_table(nodes[half:], size)
    table[:, half:] *= np.sqrt(np.arange(size) + 0.5)[:, None]
    table[0::2, :half] = table[0::2, : count - half - 1 : -1]  # nodes are symmetric, functions even or odd
    table[1::2, :half] = -table[1::2, : count - half - 1 : -1]
    table.flags.writeable = False
    return table


@dataclass(frozen=True)
class LegendreBasis:
    """Legendre polynomials scaled to unit L2 norm on [lower, upper].

    They resolve every smooth function once there are more than pi of them per wavelength, and then converge
    geometrically; nothing has to be known of its frequencies.
    """

    lower: float
    upper: float
    size: int
    name: str = "polynomial"

    @property
    def _scale(self) -> float:
        return 2.0 / (self.upper - self.lower)

    @property
    def norms(self) -> Array:
        """Values at the right end: sqrt((2 k + 1) / length)."""
        return np.sqrt((2.0 * np.arange(self.size) + 1.0) / (self.upper - self.lower))

    def evaluate(self, x: Array, order: int = 0) -> Array:
        """Derivatives of the functions at points: (m, size)."""
        tau = self._scale * (np.asarray(x, dtype=np.float64) - self.lower) - 1.0
        small = tau.size * self.size <= _REMEMBERED
        table = _table_of(tau.tobytes(), self.size, order) if small else legendre_table(tau, self.size, order)
        return (table * (self.norms * self._scale**order)[:, None]).T

    def nodes(self, count: int) -> tuple[Array, Array]:
        """Gauss-Legendre nodes and weights on the interval."""
        tau, weights = gauss_legendre(count)
        half = 0.5 * (self.upper - self.lower)
        return self.lower + half * (tau + 1.0), half * weights

    def at_nodes(self, count: int) -> Array:
        """Values at the ``count`` nodes, (count, size)."""
        return _normalised_at_gauss(self.size, count).T * math.sqrt(self._scale)

    def derivative(self, order: int) -> Array:
        """Coefficients of the derivative: upper triangular (size, size), exact sums without cancellation."""
        n = self.size
        if order == 0:
            return np.eye(n)
        j, k = np.arange(n)[:, None], np.arange(n)[None, :]
        norms = np.sqrt((2.0 * j + 1.0) * (2.0 * k + 1.0))
        odd = (k > j) & ((k + j) % 2 == 1)
        if order == 1:
            return np.asarray(np.where(odd, norms, 0.0) * self._scale)
        even = (k > j) & ((k + j) % 2 == 0)
        second = np.where(even, 0.5 * norms * (k * (k + 1.0) - j * (j + 1.0)), 0.0) * self._scale**2
        return second if order == 2 else second @ self.derivative(order - 2)

    def differentiate(self, coefficients: Array, axis: int, order: int) -> Array:
        """Running sums from the highest degree down, by parity."""
        if order == 0:
            return coefficients
        moved: Array = np.moveaxis(coefficients, axis, 0)
        norms: Array = self.norms.reshape(-1, *[1] * (moved.ndim - 1))
        for _ in range(order):
            weighted = moved[::-1] * norms[::-1]
            lowered = np.zeros_like(weighted)
            # c'_j = 2 norm_j times the sum of norm_k c_k over k = j + 1, j + 3, ...
            lowered[1::2] = np.cumsum(weighted[0::2], axis=0)[: len(weighted) // 2]
            lowered[2::2] = np.cumsum(weighted[1::2], axis=0)[: (len(weighted) - 1) // 2]
            moved = lowered[::-1] * (2.0 * norms)
        back: Array = np.moveaxis(moved, 0, axis)
        return back

    def resized(self, size: int) -> LegendreBasis:
        """The same family with another number of functions."""
        return LegendreBasis(self.lower, self.upper, size)


@dataclass(frozen=True)
class FourierBasis:
    """1, cos and sin of full periods on [lower, upper], of unit L2 norm: for periodic axes.

    Functions come in the order 1, cos 1, sin 1, cos 2, sin 2, ...; the size is odd.
    """

    lower: float
    upper: float
    size: int
    name: str = "trigonometric"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.size | 1)

    @property
    def wavenumbers(self) -> Array:
        """Angular frequency of each function."""
        full_periods = ((np.arange(self.size) + 1) // 2).astype(np.float64)
        return np.asarray(2.0 * math.pi / (self.upper - self.lower) * full_periods, dtype=np.float64)

    def evaluate(self, x: Array, order: int = 0) -> Array:
        """Derivatives of the functions at points: (m, size)."""
        length = self.upper - self.lower
        m = self.wavenumbers[1::2]
        # d^o cos = m^o cos(. + o pi / 2), and the same of sin: the quarter turns are done exactly.
        phase = np.multiply.outer(np.asarray(x, dtype=np.float64) - self.lower, m)
        cos, sin = np.cos(phase), np.sin(phase)
        turned = [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)][order % 4]
        out = np.empty((phase.shape[0], self.size))
        out[:, 0] = 1.0 / math.sqrt(length) if order == 0 else 0.0
        factor = math.sqrt(2.0 / length) * m**order
        out[:, 1::2], out[:, 2::2] = turned[0] * factor, turned[1] * factor
        return out

    def nodes(self, count: int) -> tuple[Array, Array]:
        """Equispaced nodes without the right end."""
        length = self.upper - self.lower
        return self.lower + length * np.arange(count) / count, np.full(count, length / count)

    def at_nodes(self, count: int) -> Array:
        """Values at the ``count`` nodes, (count, size)."""
        return self.evaluate(self.nodes(count)[0])

    def derivative(self, order: int) -> sparse.csr_matrix:
        """Coefficients of the derivative: diagonal for even orders, 2 x 2 blocks for odd ones."""
        m = self.wavenumbers[1::2]
        if order == 0:
            return sparse.identity(self.size, format="csr")
        power = m**order
        even = order % 2 == 0
        sign = (-1.0) ** (order // 2)
        matrix = sparse.lil_matrix((self.size, self.size))
        cos, sin = np.arange(1, self.size, 2), np.arange(2, self.size, 2)
        if even:
            matrix[cos, cos] = sign * power
            matrix[sin, sin] = sign * power
        else:  # cos' = -m sin and sin' = m cos
            matrix[sin, cos] = -sign * power
            matrix[cos, sin] = sign * power
        return matrix.tocsr()

    def differentiate(self, coefficients: Array, axis: int, order: int) -> Array:
        """Sines and cosines change places, with powers of the wavenumber."""
        if order == 0:
            return coefficients
        moved = np.moveaxis(coefficients, axis, 0)
        flat = self.derivative(order) @ moved.reshape(len(moved), -1)
        return np.moveaxis(np.asarray(flat).reshape(moved.shape), 0, axis)

    def resized(self, size: int) -> FourierBasis:
        """The same family with another number of functions."""
        return FourierBasis(self.lower, self.upper, size)


def evaluate_points(bases: Sequence[Basis], orders: Sequence[int], coefficients: Array, points: Array) -> Array:
    """A derivative of one or several tensor expansions at scattered points.

    Args:
        bases: Of each axis.
        orders: Of the derivative.
        coefficients: (*batch, r_1, ..., r_d).
        points: (m, d).

    Returns:
        (*batch, m).
    """
    d = len(bases)
    batch = coefficients.shape[: coefficients.ndim - d]
    # The point axis first, the batch last.
    flat = np.moveaxis(coefficients.reshape(-1, *coefficients.shape[len(batch) :]), 0, -1)
    out = np.empty((len(points), flat.shape[-1]))
    rows = max(16, _CHUNK // max(1, flat.size // flat.shape[0]))
    for start in range(0, len(points), rows):
        part = points[start : start + rows]
        values: Array = bases[0].evaluate(part[:, 0], orders[0]) @ flat.reshape(flat.shape[0], -1)
        for j in range(1, d):
            values = values.reshape(len(part), flat.shape[j], -1)
            values = np.einsum("mk,mkr->mr", bases[j].evaluate(part[:, j], orders[j]), values)
        out[start : start + rows] = values
    return out.T.reshape(*batch, len(points))
