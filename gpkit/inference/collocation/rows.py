"""Dense rows of a problem: what equations, conditions and observations say about the coefficients of all fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from gpkit.inference.collocation.axes import Axis, along
from gpkit.inference.collocation.bases import Array, Basis, evaluate_points
from gpkit.inference.collocation.forms import Jet, Observation
from gpkit.inference.collocation.layout import Layout, open_grid

__all__ = ["Columns", "Frame", "Rows"]

Fields = list[Array]


@runtime_checkable
class Frame(Protocol):
    """Bases and constrained axes, with nodes and the problem that they are for."""

    layout: Layout
    bases: list[Basis]
    axes: list[list[Axis]]
    nodes: list[Array]
    weights: list[Array]


class Columns:
    """Free coefficients of every field as one vector, and values of jets as linear functionals of it.

    Args:
        bases: Of each axis.
        axes: Constrained axes of each field, [field][axis].

    Attributes:
        shapes: Of the free coefficients of each field.
        columns: Number of free coefficients.
    """

    def __init__(self, bases: list[Basis], axes: list[list[Axis]]) -> None:
        self.bases, self.axes = bases, axes
        self.shapes = [tuple(axis.free for axis in own) for own in axes]
        self._starts = np.concatenate([[0], np.cumsum([int(np.prod(s)) for s in self.shapes])])
        self.columns = int(self._starts[-1])

    def span(self, which: int) -> slice:
        """Where a field's coefficients are."""
        return slice(int(self._starts[which]), int(self._starts[which + 1]))

    def fields(self, vector: Array) -> Fields:
        """Coefficients of each field, of tensor bases, from the free ones."""
        found = []
        for f, (shape, own) in enumerate(zip(self.shapes, self.axes, strict=True)):
            values = vector[self.span(f)].reshape(shape)
            for j, axis in enumerate(own):
                values = along(axis.constrained, values, j)
            found.append(values)
        return found

    def _table(self, which: int, axis: int, x: Array, order: int) -> Array:
        z = self.axes[which][axis].constrained
        table = self.bases[axis].evaluate(x, order)
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
            out = (out[:, :, None] * table[:, None, :]).reshape(len(points), out.shape[1] * table.shape[1])
        return out

    def of_equation(self, slopes: dict[Jet, float | Array], axes: Sequence[Array]) -> Array:
        """Rows of one linearised equation on a tensor grid: (points, columns)."""
        out = np.zeros((int(np.prod([len(x) for x in axes])), self.columns))
        for jet, c in slopes.items():
            values = np.asarray(c)
            factor = values if values.ndim == 0 else values.reshape(-1, 1)
            out[:, self.span(jet.field)] += factor * self.on_grid(jet, axes)
        return out


class Rows(Columns):
    """Rows that the conditions and observations of a problem put on the coefficients.

    Args:
        disc: Bases, constrained axes, nodes and the problem.
    """

    def __init__(self, disc: Frame) -> None:
        super().__init__(disc.bases, disc.axes)
        self.disc = disc

    def bare(self) -> Columns:
        """The columns without the problem, whose functions cannot be written to files."""
        return Columns(self.bases, self.axes)

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

    def of_observations(self, state: Fields, *, exact: bool = False) -> tuple[Array, Array]:
        """Rows of observations and what they lack at a state.

        Args:
            state: Coefficients of each field.
            exact: Take those without noise, such as a gauge, as they are; or else those with noise, in units of it.
        """
        rows, lacks = [np.zeros((0, self.columns))], [np.zeros(0)]
        for observation in self.disc.layout.problem.observations:
            noise = np.broadcast_to(np.asarray(observation.noise, dtype=np.float64), (len(observation.points),))
            kept = noise == 0.0 if exact else noise > 0.0
            block, lack = self.of_observation(observation, state, kept)
            scale = np.where(noise[kept] == 0.0, 1.0, noise[kept])
            rows.append(block / scale[:, None])
            lacks.append(lack / scale)
        return np.concatenate(rows), np.concatenate(lacks)

    def of_observation(self, observation: Observation, state: Fields, kept: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Rows of some of the points of one observation, and what they lack at a state."""
        points = np.asarray(observation.points, dtype=np.float64)[kept]
        coordinates = [torch.from_numpy(np.ascontiguousarray(points[:, j])) for j in range(points.shape[1])]
        block, found = np.zeros((len(points), self.columns)), np.zeros(len(points))
        for part in observation.terms:
            c = part.coefficient(coordinates, self.disc.layout.parameters).detach().expand(len(points)).numpy()
            block[:, self.span(part.jet.field)] += c[:, None] * self.at(part.jet, points)
            found += c * evaluate_points(self.bases, part.jet.orders, state[part.jet.field], points)
        return block, np.asarray(observation.values, dtype=np.float64)[kept] - found
