"""Stationary priors in weight space: sines and cosines on a lattice of frequencies, with variances from a spectrum.

The period is longer than the axis, so that the prior is stationary on it and not periodic. Frequencies that the
spectrum gives no weight are left out, and frequencies picked from the data are there themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpkit.inference.collocation.bases import Array, gauss_legendre

__all__ = ["LatticeBasis"]

STRETCH = 1.6


@dataclass(frozen=True)
class LatticeBasis:
    """Cosine and sine of chosen frequencies; the constant has no sine.

    Attributes:
        lower: Left end of the axis.
        upper: Right end.
        tones: Frequencies in cycles per unit, increasing, 0 first.
    """

    lower: float
    upper: float
    tones: tuple[float, ...]
    name: str = "harmonic"
    frequencies: Array = field(init=False, compare=False)

    def __post_init__(self) -> None:
        both = [tone for tone in self.tones for _ in range(1 if tone == 0.0 else 2)]
        object.__setattr__(self, "frequencies", np.asarray(both, dtype=np.float64))

    @property
    def size(self) -> int:
        """Number of functions."""
        return len(self.frequencies)

    @classmethod
    def around(
        cls, lower: float, upper: float, picks: Sequence[float], low: int, reach: int, most: int, periodic: bool
    ) -> LatticeBasis:
        """The lowest multiples of a base frequency, and picked frequencies with neighbours at its distance.

        Args:
            lower: Left end.
            upper: Right end.
            picks: Frequencies in cycles per unit.
            low: Multiples 0 ... low.
            reach: Neighbours on each side of a pick.
            most: Largest multiple of a periodic axis; picks and other axes reach further by the stretch of the period.
            periodic: Whether the axis is: then every frequency is a multiple.
        """
        base = 1.0 / ((1.0 if periodic else STRETCH) * (upper - lower))
        tones = [base * m for m in range(min(low, most if periodic else int(STRETCH * most)) + 1)]
        for pick in picks:
            centre = round(pick / base) * base if periodic else pick
            for k in sorted(range(-reach, reach + 1), key=abs):
                tone = centre + k * base
                near = min((abs(tone - other) for other in tones), default=math.inf)
                if 0.0 < tone <= STRETCH * most * base and near > 0.4 * base:
                    tones.append(tone)
        return cls(lower, upper, tuple(sorted(tones)))

    def evaluate(self, x: Array, order: int = 0) -> Array:
        """Derivatives of the functions at points: (m, size)."""
        m = 2.0 * math.pi * np.asarray(self.tones, dtype=np.float64)
        phase = np.multiply.outer(np.asarray(x, dtype=np.float64) - self.lower, m)
        cos, sin = np.cos(phase), np.sin(phase)
        turned = [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)][order % 4]
        out = np.empty((phase.shape[0], self.size))
        is_zero = m == 0.0
        starts = np.cumsum(np.where(is_zero, 1, 2)) - np.where(is_zero, 1, 2)
        out[:, starts] = turned[0] * m**order
        out[:, starts[~is_zero] + 1] = turned[1][:, ~is_zero] * m[~is_zero] ** order
        return out

    def nodes(self, count: int) -> tuple[Array, Array]:
        """Gauss-Legendre nodes and weights on the axis."""
        tau, weights = gauss_legendre(count)
        half = 0.5 * (self.upper - self.lower)
        return self.lower + half * (tau + 1.0), half * weights

    def at_nodes(self, count: int) -> Array:
        """Values at the nodes, (count, size)."""
        return self.evaluate(self.nodes(count)[0])

    def derivative(self, order: int) -> Array:
        """Coefficients of the derivative: (size, size)."""
        return self.differentiate(np.eye(self.size), 0, order)

    def differentiate(self, coefficients: Array, axis: int, order: int) -> Array:
        """Coefficients of a derivative along one axis of a tensor."""
        moved = np.moveaxis(coefficients, axis, 0)
        m = (2.0 * math.pi * self.frequencies).reshape(-1, *[1] * (moved.ndim - 1))
        start = 1 if self.tones and self.tones[0] == 0.0 else 0
        for _ in range(order):
            turned = np.zeros_like(moved)
            turned[start::2] = moved[start + 1 :: 2]  # sin' = m cos
            turned[start + 1 :: 2] = -moved[start::2]  # cos' = -m sin
            moved = turned * m
        return np.moveaxis(moved, 0, axis)

    def resized(self, size: int) -> LatticeBasis:
        """Itself: a lattice keeps its frequencies."""
        if size != self.size:
            raise ValueError(f"a lattice of {self.size} functions has no version of {size}")
        return self
