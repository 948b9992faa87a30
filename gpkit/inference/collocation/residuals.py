"""How wrong a solution is, seen where it was not fitted: residuals at random points between the nodes and on faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array, Basis
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.layout import Layout, open_grid

__all__ = ["Residuals", "measure", "off_grid"]


@dataclass(frozen=True)
class Residuals:
    """Relative residuals off the collocation points.

    Attributes:
        equations: Root mean square of right minus left side, relative to the largest term, per equation.
        worst: Largest pointwise one relative to the same.
        boundary: Largest mismatch of a condition, relative to the largest value of its terms or data.
        points: Number of points per equation.
    """

    equations: tuple[float, ...]
    worst: float
    boundary: float
    points: int

    @property
    def total(self) -> float:
        """The largest relative residual."""
        return max((*self.equations, self.boundary))


def off_grid(layout: Layout, seed: int = 7, largest: int = 150) -> list[Array]:
    """Random stratified points of each axis, which with probability one are no nodes."""
    generator = np.random.default_rng(seed)
    count = {1: 2 * largest, 2: largest}.get(layout.dim, 32)
    return [
        lower + (upper - lower) * (np.arange(count) + generator.uniform(size=count)) / count
        for lower, upper in layout.ends
    ]


class _Evaluator:
    """Jets of fields on one tensor grid, or on a face of it; each jet is made once."""

    def __init__(self, bases: Sequence[Basis], tables: Sequence[Array], state: Sequence[Array]) -> None:
        self._bases, self._tables, self._state = bases, tables, state
        self._jets: dict[Jet, Array] = {}

    def __call__(self, jet: Jet) -> Array:
        if jet not in self._jets:
            values = self._state[jet.field]
            for j, order in enumerate(jet.orders):
                values = self._bases[j].differentiate(values, j, order)
            for j, table in enumerate(self._tables):
                values = along(table, values, j)
            self._jets[jet] = values
        return self._jets[jet]

    def on_face(self, axis: int, end: float) -> _Evaluator:
        """The same on the face where one axis is at an end."""
        at_end: Array = self._bases[axis].evaluate(np.array([end]))
        tables = [at_end if j == axis else t for j, t in enumerate(self._tables)]
        return _Evaluator(self._bases, tables, self._state)

    def normal(self, which: int, axis: int, end: float, order: int) -> Array:
        """A derivative along the normal on a face: the normal axis is summed first."""
        at_end: Array = self._bases[axis].evaluate(np.array([end]), order)
        values = along(at_end, self._state[which], axis)
        for j, table in enumerate(self._tables):
            if j != axis:
                values = along(table, values, j)
        return values


def measure(
    layout: Layout, bases: Sequence[Basis], state: Sequence[Array], axes: Sequence[Array] | None = None
) -> Residuals:
    """Residuals of fields given by coefficients.

    Args:
        layout: The problem.
        bases: Of each axis.
        state: Coefficients of each field.
        axes: Points of each axis; random ones if not given.
    """
    axes = off_grid(layout) if axes is None else axes
    jets = _Evaluator(bases, [b.evaluate(x) for b, x in zip(bases, axes, strict=True)], state)
    shape = tuple(len(x) for x in axes)
    coordinates = open_grid(axes)
    relative, worst = [], 0.0
    for i, equation in enumerate(layout.equations):
        total = layout.sources[i].on_grid(axes)
        scale = float(np.sqrt(np.mean(total**2)))
        for jet, c in layout.linear[i].constant.items():
            term = c * jets(jet)
            scale = max(scale, float(np.sqrt(np.mean(term**2))))
            total = total - term
        for jet, function in layout.linear[i].variable:
            term = function(coordinates).expand(shape).numpy() * jets(jet)
            scale = max(scale, float(np.sqrt(np.mean(term**2))))
            total = total - term
        if equation.remainder is not None:
            values = [torch.from_numpy(np.ascontiguousarray(jets(j))) for j in equation.jets]
            term = equation.remainder(coordinates, values, layout.parameters).detach().expand(shape).numpy()
            scale = max(scale, float(np.sqrt(np.mean(term**2))))
            total = total - term
        scale = scale or 1.0
        relative.append(float(np.sqrt(np.mean(total**2))) / scale)
        worst = max(worst, float(np.abs(total).max()) / scale)
    return Residuals(tuple(relative), worst, _boundary(layout, jets, axes), int(np.prod(shape)))


def _boundary(layout: Layout, jets: _Evaluator, axes: Sequence[Array]) -> float:
    mismatch = 0.0
    for face in layout.faces:
        end = layout.ends[face.axis][face.end.side]
        grid = list(axes)
        grid[face.axis] = np.array([end])
        data = face.value.on_grid(grid)
        found = np.zeros_like(data)
        scale = float(np.abs(data).max())
        for order, c in face.end.terms:
            term = c * jets.normal(face.field, face.axis, end, order)
            scale = max(scale, float(np.abs(term).max()))
            found = found + term
        # A function that is zero on a face is compared with its size inside the box.
        for order, c in face.end.terms:
            orders = tuple(order if j == face.axis else 0 for j in range(layout.dim))
            scale = max(scale, float(np.abs(c * jets(Jet(face.field, orders))).max()))
        mismatch = max(mismatch, float(np.abs(found - data).max()) / (scale or 1.0))
    for condition, right in layout.others:
        end = layout.ends[condition.axis][condition.side]
        grid = list(axes)
        grid[condition.axis] = np.array([end])
        on_face = jets.on_face(condition.axis, end)
        coordinates = open_grid(grid)
        data = right.on_grid(grid)
        found, scale = np.zeros_like(data), float(np.abs(data).max())
        for part in condition.terms:
            factor = part.coefficient(coordinates, layout.parameters).detach().numpy()
            values = factor * on_face(part.jet)
            scale = max(scale, float(np.abs(values).max()))
            found = found + values
        mismatch = max(mismatch, float(np.abs(found - data).max()) / (scale or 1.0))
    return mismatch
