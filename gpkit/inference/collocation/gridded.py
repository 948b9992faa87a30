"""Functions from their values on a tensor grid, accurate to the spectrum and not to a power of the spacing.

Two expansions are tried along each axis, by least squares with small singular values cut off: frequencies picked from
the values, each with a polynomial amplitude (few functions, good down to 2.5 points per period), and sines and cosines
whose period is longer than the axis (a Fourier extension, for what no few frequencies make).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import eval_legendre

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.frequencies import clean

__all__ = ["Interpolant"]

_EXTENSION = 1.6
_CUT = 1e-11
_SHARES = (0.1, 0.16, 0.22, 0.28)  # highest frequency of an extension in units of 1 / spacing; 1/2 is Nyquist's
_DEGREE = 8
_GOOD = 1e-10
_LINES = 50


class _Frame:
    """Functions of one axis with the pseudo-inverse of their values at the grid.

    Args:
        x: Increasing grid, (N,).
        ends: Of the axis.
        frequencies: In cycles per unit, 0 included.
        degree: Of the polynomial amplitude of each.
    """

    def __init__(self, x: Array, ends: tuple[float, float], frequencies: Sequence[float] | Array, degree: int) -> None:
        self._ends, self._frequencies, self._degree = ends, np.asarray(frequencies), degree
        frame = self.evaluate(x)
        u, s, vt = np.linalg.svd(frame, full_matrices=False)
        keep = s > _CUT * s[0]
        self.rank = int(keep.sum())
        # Two factors: their product would round at the size of the inverse of the smallest singular value.
        self._project, self._expand = u[:, keep].T, vt[keep].T / s[keep]

    @property
    def size(self) -> int:
        """Number of frequencies."""
        return len(self._frequencies)

    def lowered(self, x: Array) -> _Frame:
        """The frame without its highest frequency, on the same grid."""
        return _Frame(x, self._ends, self._frequencies[: max(1, self.size - 1)], self._degree)

    def analyse(self, values: Array, axis: int) -> Array:
        """Coefficients along one axis of a tensor."""
        return along(self._expand, along(self._project, values, axis), axis)

    def evaluate(self, x: Array) -> Array:
        """Values (m, functions)."""
        lower, upper = self._ends
        phase = 2.0 * math.pi * np.multiply.outer(x - lower, self._frequencies)
        waves = np.concatenate([np.cos(phase), np.sin(phase[:, self._frequencies > 0.0])], axis=1)
        tau = 2.0 * (x - lower) / (upper - lower) - 1.0
        powers = np.stack([eval_legendre(k, tau) for k in range(self._degree + 1)], axis=1)
        return (waves[:, :, None] * powers[:, None, :]).reshape(len(x), -1)


class Interpolant:
    """A function given on a tensor grid.

    Args:
        axes: Increasing coordinates of each axis.
        values: (N_1, ..., N_d).
        ends: Of each axis of the box.

    Attributes:
        defect: Relative misfit at the grid, corrected for the functions spent on it: how far the values are from
            resolved.
        how: "picked" or "extension".
        picks: Frequencies picked along each axis; empty for an extension.

    Raises:
        InvalidDataError: Shapes do not fit, or a value is not finite.
    """

    def __init__(self, axes: Sequence[Array], values: Array, ends: Sequence[tuple[float, float]]) -> None:
        if values.shape != tuple(len(a) for a in axes) or len(axes) != len(ends):
            raise InvalidDataError(
                f"gridded values have shape {values.shape} for axes of {tuple(len(a) for a in axes)} points"
            )
        if not np.isfinite(values).all():
            raise InvalidDataError(f"gridded values are not finite at {int((~np.isfinite(values)).sum())} points")
        if min(len(a) for a in axes) < 4:
            raise InvalidDataError("gridded values need at least four points along each axis")
        if any((np.diff(a) <= 0.0).any() for a in axes):
            raise InvalidDataError("the coordinates of gridded values must increase")
        self._axes, self._values, self._ends = axes, values, ends
        self._tried: list[tuple[float, Sequence[_Frame]]] = []
        self.how, self.defect = "extension", math.inf
        self.picks: tuple[tuple[float, ...], ...] = tuple(() for _ in axes)
        if not self._try_picked():
            for share in _SHARES:
                if self._try(self._extensions(share)) and self.defect < _GOOD:
                    break

    def _try(self, frames: Sequence[_Frame]) -> bool:
        """Keep an expansion if it is better than the one before."""
        coefficients = self._values
        for j, frame in enumerate(frames):
            coefficients = frame.analyse(coefficients, j)
        fitted = coefficients
        for j, (frame, x) in enumerate(zip(frames, self._axes, strict=True)):
            fitted = along(frame.evaluate(x), fitted, j)
        spent = max(frame.rank / len(x) for frame, x in zip(frames, self._axes, strict=True))
        misfit = float(np.linalg.norm(fitted - self._values)) / max(float(np.linalg.norm(self._values)), 1e-300)
        defect = misfit / max(1.0 - spent, 0.02)
        self._tried.append((defect, frames))
        if defect >= self.defect:
            return False
        self._frames, self._coefficients, self.defect = frames, coefficients, defect
        return True

    def _extensions(self, share: float) -> list[_Frame]:
        frames = []
        for x, (lower, upper) in zip(self._axes, self._ends, strict=True):
            length = _EXTENSION * (upper - lower)
            count = max(1, math.floor(share * length * (len(x) - 1) / (x[-1] - x[0])))
            frames.append(_Frame(x, (lower, upper), np.arange(count + 1) / length, 0))
        return frames

    def _try_picked(self) -> bool:
        picks = []
        for j, x in enumerate(self._axes):
            steps = np.diff(x)
            if np.ptp(steps) > 1e-9 * steps.mean():
                return False
            lines = np.moveaxis(self._values, j, 0).reshape(len(x), -1)
            found = clean(x, lines[:, :: max(1, lines.shape[1] // _LINES)], tolerance=1e-9)
            if (1 + 2 * len(found.frequencies)) * (_DEGREE + 1) > 0.8 * len(x):
                return False
            picks.append(found.frequencies)
        frames = [
            _Frame(x, ends, [0.0, *own], _DEGREE) for x, ends, own in zip(self._axes, self._ends, picks, strict=True)
        ]
        if not self._try(frames):
            return False
        if self.defect < _GOOD:
            self.how, self.picks = "picked", tuple(picks)
            return True
        return False

    def doubted(self) -> Interpolant:
        """The same values by the second best expansion: what the two disagree about is not known from the grid."""
        if self.how == "picked":
            pairs = zip(self._axes, self._ends, self.picks, strict=True)
            frames: Sequence[_Frame] = [_Frame(x, ends, [0.0, *own], _DEGREE - 2) for x, ends, own in pairs]
        else:
            others = [o for o in self._tried if [f.size for f in o[1]] != [f.size for f in self._frames]]
            if others:
                frames = min(others, key=lambda o: o[0])[1]
            else:
                frames = [frame.lowered(x) for x, frame in zip(self._axes, self._frames, strict=True)]
        coefficients = self._values
        for j, frame in enumerate(frames):
            coefficients = frame.analyse(coefficients, j)
        second = copy.copy(self)
        second._frames, second._coefficients = frames, coefficients
        return second

    def on_grid(self, axes: Sequence[Array]) -> Array:
        """Values on another tensor grid."""
        values = self._coefficients
        for j, (frame, x) in enumerate(zip(self._frames, axes, strict=True)):
            values = along(frame.evaluate(x), values, j)
        return np.ascontiguousarray(values)

    def at(self, points: Array) -> Array:
        """Values at scattered points (m, d)."""
        letters = "abcdefgh"[: points.shape[1]]
        features = [frame.evaluate(points[:, j]) for j, frame in enumerate(self._frames)]
        spec = ",".join("z" + c for c in letters) + "," + letters + "->z"
        return np.asarray(np.einsum(spec, *features, self._coefficients, optimize=True))
