"""Which waves an axis gets: frequencies that data and residuals show, homogeneous solutions, polynomials for the rest.

Polynomials under a carrier reach frequencies near it. Where two carriers are so close that what they reach overlaps,
the functions of one nearly are functions of the other: such carriers are joined to one with more polynomials. Every
plan has polynomials without a carrier, which hold trends and boundary data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gpkit.inference.collocation.bases import Array, Basis, FourierBasis, LegendreBasis
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.picked.basis import PickedBasis, Wave

__all__ = ["Plan", "homogeneous"]

_TREND = 8  # degree of the polynomials without a carrier
_TONE = 4  # of those under one
_GUARD = 2
_BESIDE = 3  # degrees, and periods, beyond what is used that say what is uncertain of it
_SLOW = 1.0  # exponentials that change by less than this over the axis are polynomials
_MOST_EXPONENTIALS = 8
_WORTHWHILE = 0.7  # waves are fewer than this share of broadband functions, or these are taken


@dataclass(frozen=True)
class _Band:
    """Frequencies that share a carrier, in radians per half axis.

    Attributes:
        low: Lowest.
        high: Highest.
        extra: Polynomials beyond those that frequencies between need.
    """

    low: float
    high: float
    extra: int

    @property
    def centre(self) -> float:
        return 0.5 * (self.low + self.high)

    @property
    def degree(self) -> int:
        """Of the highest polynomial."""
        reach = 0.5 * (self.high - self.low)
        return self.extra if reach == 0.0 else _resolving(reach) + self.extra

    def holds(self, frequency: float) -> bool:
        """Whether the polynomials resolve a frequency already."""
        return _resolving(abs(frequency - self.centre)) + 2 <= self.degree

    def meets(self, other: _Band) -> bool:
        """Whether what the two reach overlaps."""
        return abs(self.centre - other.centre) <= self.degree + other.degree + _GUARD


def _resolving(reach: float) -> int:
    """Degree from which on polynomials resolve exp(i reach x) on [-1, 1] to rounding."""
    return math.ceil(reach + 6.5 * reach ** (1.0 / 3.0))


@dataclass
class Plan:
    """Functions of one axis: waves, or the broadband basis where that is smaller.

    Args:
        lower: Left end.
        upper: Right end.
        broadband: Number of broadband functions that would do.
        periodic: Whether only full periods are functions of the axis.
        density: Nodes per function of a basis of waves.

    Attributes:
        tones: Frequencies that were added, in cycles per unit.
        unexplained: Relative size of what they leave of the data.
    """

    lower: float
    upper: float
    broadband: int = _TREND
    periodic: bool = False
    density: float = 3.0
    tones: list[float] = field(default_factory=list)
    unexplained: float = 0.0
    _bands: list[_Band] = field(default_factory=lambda: [_Band(0.0, 0.0, _TREND)])
    _exponentials: list[Wave] = field(default_factory=list)

    @property
    def _half(self) -> float:
        """Radians per half axis of one cycle per unit."""
        return math.pi * (self.upper - self.lower)

    @property
    def exponentials(self) -> int:
        """Number of waves with a rate."""
        return len(self._exponentials)

    def add(self, frequency: float, *, insist: bool = False) -> None:
        """Let a frequency in cycles per unit be a function of the axis.

        Args:
            frequency: Of data, or of a residual.
            insist: Whether more polynomials are wanted where it is a function already.
        """
        at = self._half * frequency
        if self.periodic:
            at = math.pi * round(at / math.pi)
        self.tones.append(frequency)
        needed = 2 * round(at / math.pi) + 1 if self.periodic else _resolving(at)
        self.broadband = max(self.broadband, needed + _TREND, int(1.3 * self.broadband) + 8 if insist else 0)
        for k, band in enumerate(self._bands):
            if abs(at - band.centre) <= max(band.degree + _GUARD, 0.5):
                if band.holds(at):
                    self._bands[k] = replace(band, extra=2 * band.extra) if insist else band
                elif k == 0 and not self.periodic:
                    self._bands[0] = replace(band, low=-max(at, band.high), high=max(at, band.high))
                else:
                    self._bands[k] = _Band(min(at, band.low), max(at, band.high), max(band.extra, _TREND))
                break
        else:
            self._bands.append(_Band(at, at, _TONE))
        self._join()

    def widen(self) -> None:
        """More polynomials under every carrier."""
        self._bands = [replace(b, extra=2 * b.extra) for b in self._bands]
        self.broadband = int(1.3 * self.broadband) + 8
        self._join()

    def add_exponentials(self, waves: Sequence[Wave]) -> bool:
        """Let homogeneous solutions be functions of the axis; whether there is a new one."""
        length, new = self.upper - self.lower, False
        for wave in waves:
            if abs(wave.rate) * length <= _SLOW:
                frequency = wave.omega / (2.0 * math.pi)
                if all(abs(self._half * frequency - b.centre) > 0.5 * b.degree for b in self._bands):
                    self.add(frequency)
                    new = True
                continue
            known = any(
                abs(complex(w.rate - wave.rate, w.omega - wave.omega)) * length < 1e-3 for w in self._exponentials
            )
            if not known and len(self._exponentials) < _MOST_EXPONENTIALS and not self.periodic:
                self._exponentials.append(wave)
                new = True
        return new

    def _join(self) -> None:
        """Join bands until none meets another; the first is that without a carrier, and mirrors itself."""
        joined = True
        while joined:
            joined = False
            first, *rest = self._bands
            rest.sort(key=lambda b: b.centre)
            if rest and rest[0].meets(first) and not self.periodic:
                reach = max(first.high, rest[0].high)
                first, rest, joined = _Band(-reach, reach, max(first.extra, rest[0].extra)), rest[1:], True
            for k in range(len(rest) - 1):
                if rest[k].meets(rest[k + 1]):
                    low, high = min(rest[k].low, rest[k + 1].low), max(rest[k].high, rest[k + 1].high)
                    rest[k : k + 2] = [_Band(low, high, max(_TREND, rest[k].extra, rest[k + 1].extra))]
                    joined = True
                    break
            self._bands = [first, *rest]

    @property
    def is_picked(self) -> bool:
        """Whether waves are fewer than broadband functions."""
        has_waves = len(self._bands) > 1 or bool(self._exponentials)
        return has_waves and sum(w.count for w in self._waves()[0]) < _WORTHWHILE * self.broadband

    @property
    def count(self) -> int:
        """Number of functions."""
        return sum(w.count for w in self._waves()[0]) if self.is_picked else self.broadband

    def basis(self) -> Basis:
        """The functions of the plan; a larger one has functions of higher degree beside them."""
        if self.is_picked:
            return PickedBasis(self.lower, self.upper, *self._waves(), None, self.density)
        family = FourierBasis if self.periodic else LegendreBasis
        return family(self.lower, self.upper, self.broadband)

    def _waves(self) -> tuple[tuple[Wave, ...], tuple[Wave, ...]]:
        """Waves, and waves beside them."""
        scale = 2.0 / (self.upper - self.lower)
        if not self.periodic:
            own = [Wave(scale * b.centre, 0.0, b.degree) for b in self._bands] + self._exponentials
            more = [Wave(scale * b.centre, 0.0, b.degree + _BESIDE, b.degree + 1) for b in self._bands]
            return tuple(own), tuple(more)
        numbers: dict[int, None] = {}
        wider: dict[int, None] = {}
        for b in self._bands:
            low, high = round(b.low / math.pi), round(b.high / math.pi)
            numbers |= dict.fromkeys(range(max(low - b.extra, 0), high + b.extra + 1))
            wider |= dict.fromkeys(range(max(low - b.extra - _BESIDE, 0), high + b.extra + _BESIDE + 1))
        waves = tuple(Wave(scale * math.pi * n) for n in numbers)
        return waves, tuple(Wave(scale * math.pi * n) for n in wider if n not in numbers)

    def frequencies(self) -> tuple[float, ...]:
        """Carriers in cycles per unit."""
        return tuple(b.centre / self._half for b in self._bands[1:]) if self.is_picked else ()


def homogeneous(layout: Layout, plans: Sequence[Plan], axis: int) -> list[Wave]:
    """Solutions of the equation without source that are exponentials along an axis and carriers along the others.

    Args:
        layout: A problem; only one equation of one field with constant coefficients has any.
        plans: Of every axis.
        axis: Along which exponentials are looked for.
    """
    if layout.count != 1 or len(layout.linear) != 1 or layout.linear[0].variable:
        return []
    terms = layout.linear[0].constant
    top = max((jet.orders[axis] for jet in terms), default=0)
    found: list[Wave] = []
    carriers = [
        [0.0] if j == axis else [0.0, *(2.0 * math.pi * f for f in plan.tones[:_MOST_EXPONENTIALS])]
        for j, plan in enumerate(plans)
    ]
    length = plans[axis].upper - plans[axis].lower
    for omegas in np.array(np.meshgrid(*carriers)).T.reshape(-1, len(plans)):
        symbol: Array = np.zeros(top + 1, dtype=complex)
        for jet, c in terms.items():
            others = [(1j * w) ** o for k, (w, o) in enumerate(zip(omegas, jet.orders, strict=True)) if k != axis]
            symbol[jet.orders[axis]] += c * np.prod(others)
        largest = np.abs(symbol).max(initial=0.0)
        if top == 0 or largest == 0.0 or abs(symbol[-1]) < 1e-14 * largest:
            continue
        for root in np.roots(symbol[::-1]):
            if abs(root) * length > _SLOW:
                rate = float(root.real) if abs(root.real) * length > _SLOW else 0.0
                omega = abs(float(root.imag)) if abs(root.imag) * length > 1e-6 else 0.0
                found.append(Wave(omega, rate, 0))
    return sorted(set(found), key=lambda w: (abs(w.rate), w.omega))
