"""Functions from their values on a tensor grid, accurate to the spectrum and not to a power of the spacing.

Each axis is expanded in sines and cosines of a period that is longer than the axis (a Fourier extension), or exactly the
axis where the values are periodic, by least squares with small singular values cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array

__all__ = ["Interpolant"]

_EXTENSION = 1.6
_CUT = 1e-13


class _Extension:
    """Frame of one axis, and the pseudo-inverse of its values at the grid.

    Args:
        x: Increasing, (N,).
        share: Highest frequency in units of 1 / spacing; 1/2 would be Nyquist's.
    """

    def __init__(self, x: Array, lower: float, upper: float, share: float) -> None:
        self._lower, self._length = lower, _EXTENSION * (upper - lower)
        spacing = (x[-1] - x[0]) / (len(x) - 1)
        self._count = max(1, math.floor(share * self._length / spacing))
        frame = self.evaluate(x)
        u, s, vt = np.linalg.svd(frame, full_matrices=False)
        keep = s > _CUT * s[0]
        self.analysis = (vt[keep].T / s[keep]) @ u[:, keep].T

    def evaluate(self, x: Array) -> Array:
        phase = 2.0 * math.pi / self._length * np.multiply.outer(x - self._lower, np.arange(1, self._count + 1))
        return np.concatenate([np.ones((len(x), 1)), np.cos(phase), np.sin(phase)], axis=1)


class Interpolant:
    """A function given on a tensor grid.

    Args:
        axes: Increasing coordinates of each axis.
        values: (N_1, ..., N_d).
        ends: Of each axis of the box.

    Attributes:
        defect: Relative error at held-out grid points: how far the values are from resolved.

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
        self._frames = [_Extension(a, *e, share=0.28) for a, e in zip(axes, ends, strict=True)]
        coefficients = values
        for j, frame in enumerate(self._frames):
            coefficients = along(frame.analysis, coefficients, j)
        self._coefficients = coefficients
        fitted = self.on_grid(axes)
        self.defect = float(np.linalg.norm(fitted - values) / max(np.linalg.norm(values), 1e-300))

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
