"""An independent solver: Chebyshev collocation by dense least squares, in numpy, from textbook formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

Array = NDArray[np.float64]
Operator = Mapping[tuple[int, ...], Callable[..., Array] | float]


def table(x: Array, ends: tuple[float, float], size: int, order: int) -> Array:
    """Derivatives of the Chebyshev polynomials of an interval, (m, size)."""
    scale = 2.0 / (ends[1] - ends[0])
    t = scale * (x - ends[0]) - 1.0
    columns = [chebyshev.chebval(t, chebyshev.chebder(row, order) if order else row) for row in np.eye(size)]
    return np.stack(columns, -1) * scale**order


class Dense:
    """Solution of L u = f in a box with linear conditions on faces.

    Args:
        ends: Of each axis.
        operator: Coefficients by orders of derivatives, numbers or functions of the coordinates.
        source: Function of the coordinates.
        conditions: (axis, side, operator, value) each.
        size: Polynomials per axis.
    """

    def __init__(
        self,
        ends: Sequence[tuple[float, float]],
        operator: Operator,
        source: Callable[..., Array],
        conditions: Sequence[tuple[int, int, Operator, Callable[..., Array]]],
        size: int,
    ) -> None:
        self.ends, self.size = list(ends), size
        nodes = [0.5 * (a + b) - 0.5 * (b - a) * np.cos(np.pi * (np.arange(size) + 0.5) / size) for a, b in ends]
        inside = self._mesh(nodes)
        rows, values = [self._rows(operator, inside)], [np.broadcast_to(source(*inside), inside[0].shape)]
        for axis, side, own, value in conditions:
            face = self._mesh([np.array([ends[k][side]]) if k == axis else x for k, x in enumerate(nodes)])
            rows.append(self._rows(own, face))
            values.append(np.broadcast_to(value(*face), face[0].shape))
        scaled = [1.0 / np.abs(r).max() for r in rows]
        matrix = np.concatenate([r * s for r, s in zip(rows, scaled, strict=True)])
        right = np.concatenate([v * s for v, s in zip(values, scaled, strict=True)])
        columns = np.linalg.norm(matrix, axis=0)
        self.coefficients = np.linalg.lstsq(matrix / columns, right, rcond=1e-15)[0] / columns

    @staticmethod
    def _mesh(axes: Sequence[Array]) -> list[Array]:
        return [m.ravel() for m in np.meshgrid(*axes, indexing="ij")]

    def _table(self, orders: Sequence[int], points: Sequence[Array]) -> Array:
        total: Any = np.ones((len(points[0]), 1))
        for x, ends, order in zip(points, self.ends, orders, strict=True):
            own = table(x, ends, self.size, order)
            total = (total[:, :, None] * own[:, None, :]).reshape(len(x), -1)
        return total

    def _rows(self, operator: Operator, points: Sequence[Array]) -> Array:
        total: Any = 0.0
        for orders, c in operator.items():
            value = c(*points) if callable(c) else c
            total = total + np.broadcast_to(value, points[0].shape)[:, None] * self._table(orders, points)
        return total

    def __call__(self, *points: Array) -> Array:
        """Values at points."""
        return self._table([0] * len(self.ends), points) @ self.coefficients
