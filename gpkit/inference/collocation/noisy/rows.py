"""Rows of noisy and of exact equations, conditions and observations, summed up for Gaussian linear models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.layout import Face, Layout, open_grid
from gpkit.inference.collocation.rows import Rows

__all__ = ["Statistics", "data_grid", "exact_rows", "noisy_rows"]


@dataclass
class Statistics:
    """What rows y = A w + noise say, in units of their noise: A^T A, A^T y, y^T y, rows, sum of log variances."""

    gram: Array
    projected: Array
    square: float
    count: int
    log_noise: float

    @classmethod
    def empty(cls, columns: int) -> Statistics:
        """No rows yet."""
        return cls(np.zeros((columns, columns)), np.zeros(columns), 0.0, 0, 0.0)

    def plus(self, other: Statistics) -> Statistics:
        """Rows of both."""
        return Statistics(
            self.gram + other.gram,
            self.projected + other.projected,
            self.square + other.square,
            self.count + other.count,
            self.log_noise + other.log_noise,
        )

    def rescaled(self, log_noise: float) -> Statistics:
        """The same rows where their noise is larger by a factor."""
        by = math.exp(-2.0 * log_noise)
        count = self.log_noise + 2.0 * log_noise * self.count
        return Statistics(by * self.gram, by * self.projected, by * self.square, self.count, count)

    def expected_square(self, mean: Array, root: Array) -> float:
        """Expected sum of squares of what Gaussian weights leave of the rows, in units of their noise."""
        return self.misfit(mean) * self.count + float(np.einsum("ik,ik->", self.gram @ root, root))

    def misfit(self, weights: Array) -> float:
        """Mean square of what weights leave of the rows, in units of their noise."""
        left = self.square - 2.0 * float(self.projected @ weights) + float(weights @ (self.gram @ weights))
        return max(left, 0.0) / max(self.count, 1)

    def add(self, rows: Array, rhs: Array, noise: float | Array) -> None:
        """Include dense rows."""
        scale = np.broadcast_to(np.asarray(noise, dtype=np.float64), rhs.shape)
        a, y = rows / scale[:, None], rhs / scale
        self.gram += a.T @ a
        self.projected += a.T @ y
        self.square += float(y @ y)
        self.count += len(y)
        self.log_noise += 2.0 * float(np.log(scale).sum())


def data_grid(layout: Layout, i: int, grid: Sequence[int]) -> list[Array]:
    """Where a noisy source is known."""
    data = layout.sources[i].data
    if data.values is not None:
        return [np.asarray(a, dtype=np.float64) for a in data.axes]
    return [np.linspace(*ends, n) for ends, n in zip(layout.ends, grid, strict=True)]


def noisy_rows(
    layout: Layout, rows: Rows, state: list[Array], grid: Sequence[int]
) -> tuple[Statistics, list[Statistics]]:
    """Sources, conditions and observations with noise.

    Returns:
        Those whose noise is known, and each of those whose noise is not (nan), as if it were one; sources come first,
        then conditions, then observations.
    """
    known, unknown = Statistics.empty(rows.columns), []

    def place(noise: float) -> tuple[Statistics, float]:
        if not math.isnan(noise):
            return known, noise
        unknown.append(Statistics.empty(rows.columns))
        return unknown[-1], 1.0

    for i, source in enumerate(layout.sources):
        if source.data.noise != 0.0:
            found, noise = place(source.data.noise)
            axes, values = data_grid(layout, i, grid), source.data.values
            rhs = np.asarray(values, dtype=np.float64) if values is not None else source.on_grid(axes)
            _add_equation(found, layout, rows, i, state, axes, rhs, noise)
    for face in layout.faces:
        if face.value.data.noise != 0.0:
            found, noise = place(face.value.data.noise)
            _add_face(found, layout, rows, face, noise)
    for condition, right in layout.others:
        if right.data.noise != 0.0:
            raise InvalidDataError(
                f"a {condition.kind} condition with varying coefficients or several fields cannot have noise: give its"
                " values as Observe(...)"
            )
    flat = np.concatenate([c.ravel() for c in state])
    for observation in layout.problem.observations:
        noise_of = np.broadcast_to(np.asarray(observation.noise, dtype=np.float64), (len(observation.points),))
        stated, missing = noise_of > 0.0, np.isnan(noise_of)
        if stated.any():
            block, lack = rows.of_observation(observation, state, stated)
            known.add(block, lack + block @ flat, noise_of[stated])
        if missing.any():
            block, lack = rows.of_observation(observation, state, missing)
            place(math.nan)[0].add(block, lack + block @ flat, 1.0)
    return known, unknown


def exact_rows(layout: Layout, rows: Rows, state: list[Array], scale: float, share: float) -> Statistics:
    """Equations and conditions without noise, as rows whose noise is a small share of fields of a size."""
    found = Statistics.empty(rows.columns)
    for i, source in enumerate(layout.sources):
        if source.data.noise == 0.0:
            axes = rows.disc.nodes
            _add_equation(found, layout, rows, i, state, axes, source.on_grid(axes), None, share, scale)
    for face in layout.faces:
        if face.value.data.noise == 0.0:
            _add_face(found, layout, rows, face, None, share, scale)
    for block, lack in (rows.of_conditions(state), rows.of_observations(state, exact=True)):
        found.add(block, lack + block @ np.concatenate([c.ravel() for c in state]), share * scale)
    return found


def _add_equation(
    found: Statistics,
    layout: Layout,
    rows: Rows,
    i: int,
    state: list[Array],
    axes: Sequence[Array],
    rhs: Array,
    noise: float | None,
    share: float = 0.0,
    scale: float = 1.0,
) -> None:
    slopes, offset = _linearised(layout, rows, i, state, axes)
    # The linearised equation: slopes times jets = right side - left side + slopes times present jets.
    rhs = rhs + offset
    if noise is None:
        noise = share * max(float(np.abs(rhs).max()), scale * _strength(slopes, layout))
    if all(np.ndim(c) == 0 for c in slopes.values()):
        _add_separable(found, rows, slopes, axes, rhs, noise)
    else:
        found.add(rows.of_equation(slopes, axes), rhs.ravel(), noise)


def _add_face(
    found: Statistics,
    layout: Layout,
    rows: Rows,
    face: Face,
    noise: float | None,
    share: float = 0.0,
    scale: float = 1.0,
) -> None:
    lower, upper = layout.ends[face.axis]
    axes = list(rows.disc.nodes)
    axes[face.axis] = np.array([upper if face.end.side else lower])
    if face.value.data.values is not None and noise is not None:  # known where it was measured, and only there
        given = iter(face.value.data.axes)
        axes = [x if j == face.axis else np.asarray(next(given), dtype=np.float64) for j, x in enumerate(axes)]
        rhs = np.asarray(face.value.data.values, dtype=np.float64)
    else:
        rhs = face.value.on_grid(axes)
    block, size = np.zeros((rhs.size, rows.columns)), 0.0
    for order, c in face.end.terms:
        jet = Jet(face.field, tuple(order if j == face.axis else 0 for j in range(layout.dim)))
        block[:, rows.span(face.field)] += c * rows.on_grid(jet, axes)
        size = max(size, abs(c) * scale * (2.0 * math.pi / (upper - lower)) ** order)
    found.add(block, rhs.ravel(), noise or share * max(size, float(np.abs(rhs).max())))


def _strength(slopes: dict[Jet, Any], layout: Layout) -> float:
    """Size of the left side for a field of size one that varies once over the box."""
    total = 0.0
    for jet, c in slopes.items():
        unit = math.prod(
            (2.0 * math.pi / (upper - lower)) ** o for (lower, upper), o in zip(layout.ends, jet.orders, strict=True)
        )
        total = max(total, float(np.abs(c).max()) * unit)
    return total


def _linearised(
    layout: Layout, rows: Rows, i: int, state: list[Array], axes: Sequence[Array]
) -> tuple[dict[Jet, Any], Array]:
    """Slopes of an equation on a grid, and slopes times jets minus left side at a state."""
    equation = layout.equations[i]
    shape = tuple(len(x) for x in axes)
    coordinates = open_grid(axes)
    slopes: dict[Jet, Any] = dict(layout.linear[i].constant)
    for jet, function in layout.linear[i].variable:
        slopes[jet] = slopes.get(jet, 0.0) + function(coordinates).expand(shape).numpy()
    if equation.remainder is None:
        return slopes, np.zeros(shape)
    leaves = []
    for jet in equation.jets:
        values = state[jet.field]
        for j, (order, x) in enumerate(zip(jet.orders, axes, strict=True)):
            values = along(rows.disc.bases[j].evaluate(x, order), values, j)
        leaves.append(torch.from_numpy(np.ascontiguousarray(values)).requires_grad_())
    with torch.enable_grad():
        left = equation.remainder(coordinates, leaves, layout.parameters)
        gradients = torch.autograd.grad(left.sum(), leaves, allow_unused=True)
    offset = -left.detach().expand(shape).numpy().copy()
    for jet, leaf, gradient in zip(equation.jets, leaves, gradients, strict=True):
        if gradient is not None:
            slopes[jet] = slopes.get(jet, 0.0) + gradient.numpy()
            offset += gradient.numpy() * leaf.detach().numpy()
    return slopes, offset


def _add_separable(
    found: Statistics, rows: Rows, slopes: dict[Jet, float], axes: Sequence[Array], rhs: Array, noise: float
) -> None:
    """Rows of constant coefficients on a tensor grid: products of one-dimensional Gram matrices."""
    bases = rows.disc.bases
    tables = {(j, o): bases[j].evaluate(x, o) for j, x in enumerate(axes) for o in {jet.orders[j] for jet in slopes}}
    for jet, c in slopes.items():
        projected = rhs
        for j, order in enumerate(jet.orders):
            projected = along(tables[j, order].T, projected, j)
        found.projected[rows.span(jet.field)] += c / noise**2 * projected.ravel()
        for other, k in slopes.items():
            gram: Array = np.ones((1, 1))
            for j in range(len(axes)):
                pair = tables[j, jet.orders[j]].T @ tables[j, other.orders[j]]
                gram = np.asarray(np.kron(gram, pair), dtype=np.float64)
            found.gram[rows.span(jet.field), rows.span(other.field)] += c * k / noise**2 * gram
    found.square += float(np.vdot(rhs, rhs)) / noise**2
    found.count += rhs.size
    found.log_noise += 2.0 * rhs.size * math.log(noise)
