"""How many functions per axis the data of a problem need, seen before anything is solved.

Sources and boundary data are looked at along lines. A function is resolved where its coefficients have fallen to
rounding; the degree at which they fall is also its highest frequency: points per period come from the same look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.layout import Layout, LinearPart, RightSide

__all__ = ["Resolution", "data_lines", "limits", "resample", "tails"]

_LINES = 5
_NOTHING = 1e-14


def limits(grid: Sequence[int], periodic: frozenset[int]) -> tuple[int, ...]:
    """Largest number of functions per axis that a grid stands for.

    A uniform grid of N points carries frequencies up to N/2 periods; polynomials need pi functions per period, so the
    same band takes pi/2 N of them.
    """
    return tuple(n | 1 if j in periodic else math.ceil(0.5 * math.pi * n) + 8 for j, n in enumerate(grid))


@dataclass(frozen=True)
class Resolution:
    """What the data need along each axis.

    Attributes:
        needed: Functions until the data have fallen to rounding; the limit where they have not.
        significant: Functions that matter to a thousandth.
        points_per_period: Grid points per period of the highest frequency that matters.
        unresolved: Relative size of what is left at the limit.
    """

    needed: tuple[int, ...]
    significant: tuple[int, ...]
    points_per_period: tuple[float, ...]
    unresolved: tuple[float, ...]

    @classmethod
    def of(cls, layout: Layout, grid: Sequence[int], tolerance: float = 1e-13, significant: float = 1e-3) -> Resolution:
        """Look at sources and boundary data.

        Args:
            layout: The problem.
            grid: Points per axis that the user asked for.
            tolerance: What counts as rounding.
            significant: Relative size of coefficients that make a frequency matter.
        """
        periodic = layout.problem.periodic
        needed, matters, points, left = [], [], [], []
        for j, limit in enumerate(limits(grid, periodic)):
            need, top, rest, size_at = _look(layout, j, limit, tolerance, significant)
            if j in periodic:
                needed.append(min(2 * need + 1, size_at))
                matters.append(min(2 * top + 3, size_at))
                points.append(grid[j] / max(top, 1))
            else:
                needed.append(min(need, limit))
                matters.append(min(top + 1, limit))
                # Coefficients of sin(k tau) fall a little after degree k.
                wave = max(top - 2.5 * (0.5 * top) ** (1.0 / 3.0), 0.5 * top, 1.0)
                points.append(math.pi * grid[j] / wave)
            left.append(rest)
        return cls(tuple(needed), tuple(matters), tuple(points), tuple(left))


def _look(layout: Layout, axis: int, count: int, tolerance: float, significant: float) -> tuple[int, int, float, int]:
    """Functions needed, the last one that matters, what is left at the end, and how many were tried.

    Chebyshev coefficients stand for Legendre's, which fall alike, because a fast transform gives them.
    """
    lower, upper = layout.ends[axis]
    is_periodic = axis in layout.problem.periodic
    if is_periodic:
        x = lower + (upper - lower) * np.arange(count) / count
    else:
        x = lower + 0.5 * (upper - lower) * (1.0 - np.cos(math.pi * (np.arange(count) + 0.5) / count))
    need, top, rest = 1, 1, 0.0
    for lines in data_lines(layout, axis, x):
        # Nodes run from left to right: odd coefficients change sign, which their size does not show.
        found = fft.rfft(lines, axis=0) if is_periodic else fft.dct(lines, axis=0)
        size = np.abs(found).max(axis=1)
        if size.max() > 0.0:
            need = max(need, _last(size, tolerance) + 1)
            top = max(top, _last(size, significant))
            rest = max(rest, float(size[-max(2, len(size) // 50) :].max() / size.max()))
    return need, top, rest, count


def _last(size: Array, level: float) -> int:
    """Index of the last entry above a level of the largest."""
    return int(np.flatnonzero(size > level * size.max())[-1])


def data_lines(layout: Layout, axis: int, x: Array) -> list[Array]:
    """Values of every source and boundary function along lines parallel to an axis: (points, lines) each."""
    generator = np.random.default_rng(12345)
    found = []

    def look(side: RightSide, fixed: int | None = None, at: float = 0.0) -> None:
        if side.is_constant:
            return
        others = [k for k in range(layout.dim) if k not in (axis, fixed)]
        columns = []
        for line in range(_LINES if others else 1):
            grid: list[Array] = [x] * layout.dim
            for k in others:
                lower, upper = layout.ends[k]
                share = (line + generator.uniform(0.2, 0.8)) / _LINES
                grid[k] = np.array([lower + (upper - lower) * share])
            if fixed is not None:
                grid[fixed] = np.array([at])
            columns.append(side.on_grid(grid).ravel())
        found.append(np.array(columns).T)

    for source, linear in zip(layout.sources, layout.linear, strict=True):
        if source.is_constant:
            continue
        look(source)
        size = float(np.abs(found[-1]).max())
        # What a manufactured source of zero leaves of its terms; these are looked at only where it may be that.
        if size < _NOTHING * _size_of_terms(layout, linear, [len(x)] * layout.dim) and (
            size < _NOTHING * _size_of_terms(layout, linear, [_top(layout, j, len(x)) for j in range(layout.dim)])
        ):
            found.pop()
    for face in layout.faces:
        if face.axis != axis:
            look(face.value, face.axis, layout.ends[face.axis][face.end.side])
    return found


def _top(layout: Layout, axis: int, count: int) -> int:
    """Degree of the highest polynomial that matters in boundary data along an axis."""
    lower, upper = layout.ends[axis]
    x = lower + 0.5 * (upper - lower) * (1.0 - np.cos(math.pi * (np.arange(count) + 0.5) / count))
    top = 1
    for face in layout.faces:
        if face.axis != axis and not face.value.is_constant:
            grid = [np.array([a + 0.37 * (b - a)]) for a, b in layout.ends]
            grid[axis], grid[face.axis] = x, np.array([layout.ends[face.axis][face.end.side]])
            size = np.abs(fft.dct(face.value.on_grid(grid).ravel()))
            top = max(top, _last(size, 1e-3) if size.max() > 0.0 else 1)
    return top


def _size_of_terms(layout: Layout, linear: LinearPart, degrees: Sequence[int]) -> float:
    """Size of the left side of an equation for fields as large as their boundary data, of degrees along the axes."""
    middle = [np.linspace(*ends, 7) for ends in layout.ends]
    largest = 0.0
    for face in layout.faces:
        if all(order == 0 for order, _ in face.end.terms):
            grid = list(middle)
            grid[face.axis] = np.array([layout.ends[face.axis][face.end.side]])
            largest = max(largest, float(np.abs(face.value.on_grid(grid)).max()))
    rates = [2.0 * n / (upper - lower) for n, (lower, upper) in zip(degrees, layout.ends, strict=True)]
    strength = 1.0
    for jet, c in linear.constant.items():
        strength = max(strength, abs(c) * math.prod(r**o for r, o in zip(rates, jet.orders, strict=True)))
    return largest * strength


def tails(coefficients: Array) -> tuple[float, ...]:
    """Size of the last twentieth of the coefficients along each axis, relative to the largest."""
    largest = float(np.abs(coefficients).max(initial=0.0))
    if largest == 0.0:
        return (0.0,) * coefficients.ndim
    found = []
    for j in range(coefficients.ndim):
        size = np.abs(coefficients).max(axis=tuple(k for k in range(coefficients.ndim) if k != j))
        found.append(float(size[-max(2, len(size) // 20) :].max()) / largest)
    return tuple(found)


def resample(coefficients: Array, sizes: Sequence[int]) -> Array:
    """Coefficients in a larger or smaller basis of the same families."""
    out = np.zeros(sizes)
    box = tuple(slice(0, min(a, b)) for a, b in zip(coefficients.shape, sizes, strict=True))
    out[box] = coefficients[box]
    return out
