"""How wrong a solution is, seen where it was not fitted: residuals at random points between the nodes and on faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array, Basis
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.layout import Layout, open_grid
from gpkit.inference.collocation.picked.basis import reduced_order

__all__ = ["Residuals", "lines", "measure", "off_grid"]


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

    def __init__(self, bases: Sequence[Basis], axes: Sequence[Array], state: Sequence[Array]) -> None:
        self._bases, self._axes, self._state = bases, list(axes), state
        self._jets: dict[Jet, Array] = {}
        self._tables: dict[tuple[int, int], Array] = {}

    def _table(self, axis: int, order: int) -> Array:
        if (axis, order) not in self._tables:
            self._tables[axis, order] = self._bases[axis].evaluate(self._axes[axis], order)
        return self._tables[axis, order]

    def __call__(self, jet: Jet) -> Array:
        if jet not in self._jets:
            values, left = self._state[jet.field], []
            for j, order in enumerate(jet.orders):
                values, rest = reduced_order(self._bases[j], values, j, order)
                left.append(rest)
            for j, rest in enumerate(left):
                values = along(self._table(j, rest), values, j)
            self._jets[jet] = values
        return self._jets[jet]

    def on_face(self, axis: int, end: float) -> _Evaluator:
        """The same on the face where one axis is at an end."""
        axes = [np.array([end]) if j == axis else x for j, x in enumerate(self._axes)]
        face = _Evaluator(self._bases, axes, self._state)
        face._tables = {key: table for key, table in self._tables.items() if key[0] != axis}
        return face

    def normal(self, which: int, axis: int, end: float, order: int) -> Array:
        """A derivative along the normal on a face: the normal axis is summed first."""
        at_end: Array = self._bases[axis].evaluate(np.array([end]), order)
        values = along(at_end, self._state[which], axis)
        for j in range(len(self._axes)):
            if j != axis:
                values = along(self._table(j, 0), values, j)
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
    jets = _Evaluator(bases, axes, state)
    relative, worst = [], 0.0
    for total, scale in _equations(layout, jets, axes):
        scale = scale or 1.0
        relative.append(float(np.sqrt(np.mean(total**2))) / scale)
        worst = max(worst, float(np.abs(total).max()) / scale)
    shape = tuple(len(x) for x in axes)
    return Residuals(tuple(relative), worst, _boundary(layout, jets, axes), int(np.prod(shape)))


def lines(layout: Layout, bases: Sequence[Basis], state: Sequence[Array], axis: int, x: Array, count: int = 4) -> Array:
    """Residuals of all equations along a few lines parallel to an axis, each relative to its terms, (m, lines)."""
    generator = np.random.default_rng(11)
    axes = [x if j == axis else np.sort(generator.uniform(*ends, size=count)) for j, ends in enumerate(layout.ends)]
    jets = _Evaluator(bases, axes, state)
    found = [np.moveaxis(total / (scale or 1.0), axis, 0) for total, scale in _equations(layout, jets, axes)]
    return np.concatenate([f.reshape(len(x), -1) for f in found], axis=1)


def _equations(layout: Layout, jets: _Evaluator, axes: Sequence[Array]) -> Iterator[tuple[Array, float]]:
    """Right minus left side of each equation on a tensor grid, and the root mean square of its largest term."""
    shape = tuple(len(x) for x in axes)
    coordinates = open_grid(axes)
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
        yield total, scale


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
