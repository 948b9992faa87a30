"""A basis of a few waves: cosines and sines of picked frequencies under polynomial amplitudes, and exponentials.

The functions are modulated polynomials, P_k(x) exp(rate (x - end)) cos or sin(omega x). In function space this is a
spectral mixture with long envelopes. They are made orthonormal in L2; functions that others nearly make are
left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from gpkit.inference.collocation.bases import Array, Basis, LegendreBasis, gauss_legendre, legendre_table

__all__ = ["PickedBasis", "Wave", "projection", "reduced_order"]

_DEPENDENT = 1e-8  # of a function's length is left by those before it: what rounding makes of its derivatives is kept
_BESIDE = 1e-3  # the same for functions beside those that are used
_WHOLE = 1500  # nodes of one rule for the whole axis
_PANEL = 16  # nodes of one panel of the inner product
_IN_LAYER = 6  # nodes for the sake of one exponential
_PERIODS = 1.2  # of the fastest function in a panel


@dataclass(frozen=True, order=True)
class Wave:
    """Carriers that polynomials modulate.

    Attributes:
        omega: Angular frequency.
        rate: Of an exponential: decaying from the lower end where negative, towards the upper end where positive.
        degree: Of the highest polynomial.
        start: Of the lowest.
    """

    omega: float = 0.0
    rate: float = 0.0
    degree: int = 0
    start: int = 0

    @property
    def count(self) -> int:
        """Number of functions."""
        return (self.degree - self.start + 1) * (1 if self.omega == 0.0 else 2)


@dataclass(frozen=True)
class PickedBasis:
    """Orthonormal combinations of modulated waves on [lower, upper].

    Attributes:
        lower: Left end.
        upper: Right end.
        waves: What the functions are made of.
        more: Waves whose functions are orthogonal to these and come after them, where the basis is larger.
        used: Number of functions, or None for all independent ones of ``waves``.
        density: Nodes per function.
    """

    lower: float
    upper: float
    waves: tuple[Wave, ...]
    more: tuple[Wave, ...] = ()
    used: int | None = None
    density: float = 3.0
    name: str = "picked"
    _mix: Array = field(init=False, repr=False, compare=False)
    _derivatives: dict[int, Array] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        mix = self._orthonormal()
        if self.used is not None and self.used > mix.shape[1]:
            mix = self._continued(mix)
        object.__setattr__(self, "_mix", mix[:, : self.used])

    @property
    def size(self) -> int:
        """Number of functions."""
        return int(self._mix.shape[1])

    @property
    def offered(self) -> int:
        """Number of functions before dependent ones were left out."""
        return sum(w.count for w in self.waves)

    @property
    def _all(self) -> tuple[Wave, ...]:
        """Waves that the functions are made of."""
        return self.waves if len(self._mix) == self.offered else self.waves + self.more

    @property
    def _length(self) -> float:
        return self.upper - self.lower

    def resized(self, size: int) -> PickedBasis:
        """The first functions of the list: the same ones to the last bit, whatever the size."""
        if size == self.size:
            return self
        return PickedBasis(self.lower, self.upper, self.waves, self.more, size, self.density)

    def grown(self) -> PickedBasis:
        """With the functions of all waves."""
        return self.resized(self.offered + sum(w.count for w in self.more))

    def _frame(self, x: Array, order: int, waves: tuple[Wave, ...]) -> Array:
        """Derivatives of modulated waves, (m, offered)."""
        tau = 2.0 * (x - self.lower) / self._length - 1.0
        top = max(w.degree for w in waves)
        scale = 2.0 / self._length
        tables = [legendre_table(tau, top + 1, k) * scale**k for k in range(order + 1)]
        blocks = []
        for wave in waves:
            rows = slice(wave.start, wave.degree + 1)
            if wave.omega == 0.0 and wave.rate == 0.0:
                blocks.append(tables[order][rows])
                continue
            s = complex(wave.rate, wave.omega)
            decay = np.exp(wave.rate * (x - (self.upper if wave.rate > 0.0 else self.lower)))
            phase = wave.omega * (x - self.lower)
            carrier = decay * (np.cos(phase) + 1j * np.sin(phase))
            terms = (math.comb(order, k) * s ** (order - k) * tables[k][rows] for k in range(order + 1))
            both = sum(terms) * carrier
            blocks.append(both.real if wave.omega == 0.0 else np.stack([both.real, both.imag], 1).reshape(-1, len(x)))
        return np.concatenate(blocks).T

    def _panels(self, waves: tuple[Wave, ...]) -> tuple[Array, Array]:
        """Nodes and weights that are exact for products of waves."""
        fastest = max(w.omega + abs(w.rate) for w in waves) * self._length / (2.0 * math.pi)
        return _inner_product(self.lower, self.upper, fastest, max(w.degree for w in waves))

    def _orthonormal(self) -> Array:
        """Coefficients of the orthonormal functions in those that were given, (offered, kept).

        Functions are taken in the order in which they add most.
        """
        x, weights = self._panels(self.waves)
        table = self._frame(x, 0, self.waves) * np.sqrt(weights)[:, None]
        lengths = np.linalg.norm(table, axis=0)
        inverse, kept = _pivoted(table / lengths)
        mix = np.zeros((table.shape[1], len(kept)))
        mix[kept] = inverse
        return np.asarray(mix / lengths[:, None])

    def _continued(self, mix: Array) -> Array:
        """The same, and then those of the other waves that are independent of all before."""
        x, weights = self._panels(self.waves + self.more)
        table = self._frame(x, 0, self.waves + self.more) * np.sqrt(weights)[:, None]
        own, basis = len(mix), table[:, : len(mix)] @ mix
        lengths = np.linalg.norm(table[:, own:], axis=0)
        rest = table[:, own:] / lengths
        share = basis.T @ rest
        left = rest - basis @ share
        again = basis.T @ left  # twice is enough
        inverse, kept = _pivoted(left - basis @ again, _BESIDE)
        outer = np.zeros((rest.shape[1], len(kept)))
        outer[kept] = inverse
        inner = mix @ ((share + again) @ outer)
        return np.block([[mix, -inner], [np.zeros((len(outer), mix.shape[1])), outer / lengths[:, None]]])

    def evaluate(self, x: Array, order: int = 0) -> Array:
        """Derivatives of the functions at points: (m, size)."""
        return np.asarray(self._frame(np.asarray(x, dtype=np.float64), order, self._all) @ self._mix)

    def nodes(self, count: int) -> tuple[Array, Array]:
        """Random points, one in each cell of a partition that is finer at the ends, and the sizes of the cells.

        They are far apart where waves are fast. No two waves look alike on random points, as they may on regular ones.
        """
        layers = [w.rate for w in self._all if w.rate != 0.0]
        inner = max(count - _IN_LAYER * len(layers), 2)
        share = (np.arange(inner) + np.random.default_rng(count).uniform(size=inner)) / inner
        at = [self.lower + self._length * (0.5 * share + 0.25 * (1.0 - np.cos(math.pi * share)))]
        for rate in layers:  # where a tenth, two tenths, ... of an exponential are
            depth = -np.log1p(-(np.arange(_IN_LAYER) + 0.5) / _IN_LAYER) / abs(rate)
            at.append(self.upper - depth if rate > 0.0 else self.lower + depth)
        x = np.sort(np.clip(np.concatenate(at), self.lower, self.upper))
        middles = np.concatenate([[self.lower], 0.5 * (x[1:] + x[:-1]), [self.upper]])
        return x, np.diff(middles)

    def at_nodes(self, count: int) -> Array:
        """Values at the ``count`` nodes, (count, size)."""
        return self.evaluate(self.nodes(count)[0])

    def derivative(self, order: int) -> Array:
        """Coefficients of the derivative, projected on the functions: (size, size)."""
        if order == 0:
            return np.eye(self.size)
        if order not in self._derivatives:
            x, weights = self._panels(self._all)
            self._derivatives[order] = (self.evaluate(x) * weights[:, None]).T @ self.evaluate(x, order)
        return self._derivatives[order]

    def differentiate(self, coefficients: Array, axis: int, order: int) -> Array:
        """Coefficients of a derivative along one axis of a tensor, projected on the functions."""
        if order == 0:
            return coefficients
        moved = np.moveaxis(coefficients, axis, 0)
        flat = self.derivative(order) @ moved.reshape(len(moved), -1)
        return np.moveaxis(flat.reshape(moved.shape), 0, axis)


def _inner_product(lower: float, upper: float, periods: float, degree: int) -> tuple[Array, Array]:
    """Nodes and weights for products of waves: Gauss's rule on panels of a period each, or one where degrees are high.

    Args:
        lower: Left end.
        upper: Right end.
        periods: Of the fastest carrier.
        degree: Of the polynomials, which are fastest near the ends.
    """
    length = upper - lower
    whole = math.ceil(math.pi * periods) + degree + _PANEL
    panels = max(1, math.ceil(periods / _PERIODS), math.ceil(degree**2 / 25.0))
    if panels * _PANEL > 4 * whole and whole <= _WHOLE:
        nodes, weights = gauss_legendre(whole)
        return lower + 0.5 * length * (nodes + 1.0), 0.5 * length * weights
    nodes, weights = gauss_legendre(_PANEL)
    width = length / panels
    starts = lower + width * np.arange(panels)
    return (starts[:, None] + 0.5 * width * (nodes + 1.0)).ravel(), np.tile(0.5 * width * weights, panels)


def projection(new: Basis, old: Basis) -> Array:
    """Coefficients in one basis of the functions of another of the same axis, (new size, old size)."""
    periods, degree = 0.0, 0
    for basis in (new, old):
        if isinstance(basis, PickedBasis):
            periods = max(
                periods, max(w.omega + abs(w.rate) for w in basis.waves) * (basis.upper - basis.lower) / (2.0 * math.pi)
            )
            degree = max(degree, max(w.degree for w in basis.waves))
        elif isinstance(basis, LegendreBasis):
            degree = max(degree, basis.size - 1)
        else:
            periods = max(periods, 0.5 * basis.size)
    x, weights = _inner_product(new.lower, new.upper, periods, degree)
    return np.asarray((new.evaluate(x) * weights[:, None]).T @ old.evaluate(x))


def _pivoted(table: Array, least: float = _DEPENDENT) -> tuple[Array, NDArray[np.intp]]:
    """Inverse of the triangle of the independent columns, and which these are, in order of what they add."""
    (triangle, order) = linalg.qr(table, mode="r", pivoting=True, check_finite=False)
    diagonal = np.diagonal(triangle)
    count = int(np.sum(np.abs(diagonal) > least))
    inverse = linalg.solve_triangular(triangle[:count, :count], np.diag(np.sign(diagonal[:count])), check_finite=False)
    return inverse, order[:count].astype(np.intp)


def reduced_order(basis: Basis, coefficients: Array, axis: int, order: int) -> tuple[Array, int]:
    """Coefficients of a derivative, and the order that is left to the functions' own derivatives.

    Polynomials and trigonometric functions are closed under differentiation, and nothing is left. Picked waves are so
    only up to the functions that were left out.
    """
    if isinstance(basis, PickedBasis):
        return coefficients, order
    return basis.differentiate(coefficients, axis, order), 0
