"""Dense rows of a problem: what equations, conditions and observations say about the coefficients of all fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from scipy import sparse

from gpkit.inference.collocation.axes import Axis, along
from gpkit.inference.collocation.bases import Array, Basis
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.layout import Layout, open_grid

__all__ = ["Frame", "Rows", "along_free", "evaluate_at"]

Fields = list[Array]


@runtime_checkable
class Frame(Protocol):
    """Bases and constrained axes, with the problem that they are for."""

    layout: Layout
    bases: list[Basis]
    axes: list[list[Axis]]
    nodes: list[Array]
    weights: list[Array]


@dataclass
class _Bare:
    """A frame without its problem, whose functions cannot be written to files."""

    bases: list[Basis]
    axes: list[list[Axis]]


def along_free(disc: Frame, which: int, free: Array) -> Array:
    """Coefficients of a field from its free ones."""
    for j, axis in enumerate(disc.axes[which]):
        free = along(axis.constrained, free, j)
    return free


class Rows:
    """Free coefficients of every field as one vector, and rows of linear functionals of them.

    Args:
        disc: Bases and constrained axes.

    Attributes:
        columns: Number of free coefficients.
    """

    def __init__(self, disc: Frame) -> None:
        self.disc = disc
        self.shapes = [tuple(axis.free for axis in axes) for axes in disc.axes]
        self._starts = np.concatenate([[0], np.cumsum([int(np.prod(s)) for s in self.shapes])])
        self.columns = int(self._starts[-1])

    def bare(self) -> Rows:
        """The same without the problem: enough for values of jets."""
        return Rows(cast(Frame, _Bare(self.disc.bases, self.disc.axes)))

    def span(self, which: int) -> slice:
        """Where a field's coefficients are."""
        return slice(int(self._starts[which]), int(self._starts[which + 1]))

    def fields(self, vector: Array) -> Fields:
        """Coefficients of each field, of tensor bases, from the free ones."""
        return [along_free(self.disc, f, vector[self.span(f)].reshape(shape)) for f, shape in enumerate(self.shapes)]

    def _table(self, which: int, axis: int, x: Array, order: int) -> Array:
        z = self.disc.axes[which][axis].constrained
        table = self.disc.bases[axis].evaluate(x, order)
        return np.asarray(table @ z) if not sparse.issparse(z) else np.asarray((z.T @ table.T).T)

    def on_grid(self, jet: Jet, axes: Sequence[Array]) -> Array:
        """A jet on a tensor grid: (points, free coefficients of its field)."""
        out: Array = np.ones((1, 1))
        for j, (x, order) in enumerate(zip(axes, jet.orders, strict=True)):
            out = np.asarray(np.kron(out, self._table(jet.field, j, x, order)), dtype=np.float64)
        return out

    def at(self, jet: Jet, points: Array) -> Array:
        """A jet at scattered points: (m, free coefficients of its field)."""
        out = np.ones((len(points), 1))
        for j, order in enumerate(jet.orders):
            table = self._table(jet.field, j, points[:, j], order)
            out = (out[:, :, None] * table[:, None, :]).reshape(len(points), -1)
        return out

    def of_equation(self, slopes: dict[Jet, float | Array], axes: Sequence[Array]) -> Array:
        """Rows of one linearised equation on a tensor grid: (points, columns)."""
        out = np.zeros((int(np.prod([len(x) for x in axes])), self.columns))
        for jet, c in slopes.items():
            values = np.asarray(c)
            factor = values if values.ndim == 0 else values.reshape(-1, 1)
            out[:, self.span(jet.field)] += factor * self.on_grid(jet, axes)
        return out

    def of_conditions(self, state: Fields) -> tuple[Array, Array]:
        """Rows of the conditions that belong to no single axis, scaled to their data, and what they lack at a state."""
        disc, layout = self.disc, self.disc.layout
        rows, lacks = [np.zeros((0, self.columns))], [np.zeros(0)]
        for condition, right in layout.others:
            grid = list(disc.nodes)
            grid[condition.axis] = np.array([layout.ends[condition.axis][condition.side]])
            coordinates = open_grid(grid)
            data = right.on_grid(grid)
            block, found = np.zeros((data.size, self.columns)), np.zeros_like(data)
            for part in condition.terms:
                c = part.coefficient(coordinates, layout.parameters).detach().expand(data.shape).numpy()
                block[:, self.span(part.jet.field)] += c.reshape(-1, 1) * self.on_grid(part.jet, grid)
                values = state[part.jet.field]
                for j, (order, x) in enumerate(zip(part.jet.orders, grid, strict=True)):
                    values = along(disc.bases[j].evaluate(x, order), values, j)
                found += c * values
            weights = np.ones(1)
            for j, w in enumerate(disc.weights):
                weights = np.multiply.outer(weights, [1.0] if j == condition.axis else w).ravel()
            rows.append(np.sqrt(weights)[:, None] * block)
            lacks.append(np.sqrt(weights) * (data - found).ravel())
        return np.concatenate(rows), np.concatenate(lacks)

    def of_observations(self, state: Fields) -> tuple[Array, Array]:
        """Rows of noisy observations in units of their noise, and what they lack at a state."""
        layout = self.disc.layout
        rows, lacks = [np.zeros((0, self.columns))], [np.zeros(0)]
        for observation in layout.problem.observations:
            points = np.asarray(observation.points, dtype=np.float64)
            coordinates = [torch.from_numpy(np.ascontiguousarray(points[:, j])) for j in range(points.shape[1])]
            block, found = np.zeros((len(points), self.columns)), np.zeros(len(points))
            for part in observation.terms:
                c = part.coefficient(coordinates, layout.parameters).detach().expand(len(points)).numpy()
                block[:, self.span(part.jet.field)] += c[:, None] * self.at(part.jet, points)
                found += c * evaluate_at(self.disc, part.jet, state[part.jet.field], points)
            noise = np.broadcast_to(np.asarray(observation.noise, dtype=np.float64), (len(points),))
            rows.append(block / noise[:, None])
            lacks.append((np.asarray(observation.values, dtype=np.float64) - found) / noise)
        return np.concatenate(rows), np.concatenate(lacks)


def evaluate_at(disc: Frame, jet: Jet, coefficients: Array, points: Array) -> Array:
    """Values of a jet at scattered points from the coefficients of its field."""
    values: Array = disc.bases[0].evaluate(points[:, 0], jet.orders[0]) @ coefficients.reshape(len(coefficients), -1)
    for j in range(1, len(disc.bases)):
        values = values.reshape(len(points), disc.bases[j].size, -1)
        values = np.einsum("mk,mkr->mr", disc.bases[j].evaluate(points[:, j], jet.orders[j]), values)
    return values.reshape(len(points))
