"""How well a solution satisfies its problem, at points where nothing was collocated: the judge of every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.inference.collocation.forms import Condition, Data, Equation, Jet, Problem, evaluate_on_grid
from gpkit.inference.collocation.gridded import Interpolant
from gpkit.inference.collocation.posterior import FieldPosterior
from gpkit.models.pde.gridded import Spline
from gpkit.models.pde.probing import face_name

__all__ = ["Residuals", "measure", "off_grid_axes", "residual_on"]

_FEWEST_FOR_WAVES = 16
_AGREES = 1e-8
_POINTS = {1: (201, 4001), 2: (61, 127), 3: (21, 31)}


@dataclass(frozen=True)
class Residuals:
    """Residuals of a solution, each relative to the size of what it is made of.

    Attributes:
        equations: Root mean square over points off the grid, of each equation, relative to the largest of its terms.
        largest: Largest absolute value of the same, relative to the largest value of the same terms.
        at: Where that is, for each equation.
        conditions: Of each condition, by name.
        standardised: Root mean square of the residual at measured values in units of their noise, for equations whose
            right side is noisy, NaN for the others.
        observations: The same for sets of observations, by number, and then for conditions whose values are noisy.
        points: Number of points per axis.
    """

    equations: tuple[float, ...]
    largest: tuple[float, ...]
    at: tuple[tuple[float, ...], ...]
    conditions: tuple[tuple[str, float], ...]
    standardised: tuple[float, ...]
    observations: tuple[float, ...]
    points: tuple[int, ...]

    @property
    def equation(self) -> float:
        """The largest residual of an equation."""
        return max(self.equations, default=0.0)

    @property
    def condition(self) -> float:
        """The largest residual of a condition."""
        return max((value for _, value in self.conditions), default=0.0)

    @property
    def worst(self) -> float:
        """The largest of all."""
        return max(self.equation, self.condition)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "equations": list(self.equations),
            "largest": list(self.largest),
            "at": [list(place) for place in self.at],
            "conditions": dict(self.conditions),
            "standardised": list(self.standardised),
            "observations": list(self.observations),
            "points": list(self.points),
        }


def off_grid_axes(problem: Problem, grid: Sequence[int]) -> list[Tensor]:
    """Coordinates strictly inside, one in each cell of a uniform partition, not in step with any uniform grid."""
    fewest, most = _POINTS[problem.box.dim]
    axes = []
    for n, a, b in zip(grid, problem.box.lower, problem.box.upper, strict=True):
        m = min(max(2 * n + 1, fewest), most)
        cell = torch.arange(m, dtype=torch.float64)
        axes.append(a + (b - a) * (cell + 0.5 + 0.4 * torch.sin(2.399963 * cell + 0.5)) / m)
    return axes


def _open(axes: Sequence[Tensor]) -> list[Tensor]:
    d = len(axes)
    return [x.reshape([-1 if k == j else 1 for k in range(d)]) for j, x in enumerate(axes)]


def _data_on(
    data: Data, axes: Sequence[Tensor], parameters: Mapping[str, Tensor], what: str, leave_out: int | None = None
) -> Tensor:
    """A right side on a tensor grid; exact gridded values are interpolated.

    The spline of high frequencies errs where their expansion in waves does not: where one is found that the values
    agree with, it is taken.
    """
    shape = tuple(len(x) for x in axes)
    if data.values is not None:
        kept = [k for k in range(len(axes)) if k != leave_out]
        values = _interpolated(data.values, data.axes, [axes[k] for k in kept], bool(data.noise))
        if leave_out is not None:
            values = values.unsqueeze(leave_out)
        return values.expand(shape)
    total = torch.full(shape, data.constant, dtype=torch.float64)
    if data.function is not None:
        total = evaluate_on_grid(data.function, axes, what)
    if data.parametric is not None:
        total = total + data.parametric(_open(axes), parameters)
    return total


def _interpolated(values: Tensor, own: Sequence[Tensor], axes: Sequence[Tensor], noisy: bool) -> Tensor:
    """Gridded values on another tensor grid."""
    if not noisy and min(values.shape) >= _FEWEST_FOR_WAVES:
        places = [x.numpy() for x in own]
        waves = Interpolant(places, values.numpy(), [(float(x[0]), float(x[-1])) for x in places])
        if waves.defect < _AGREES:
            return torch.from_numpy(waves.on_grid([x.numpy() for x in axes]))
    return Spline(values, own)(_open(axes), (0,) * len(axes))


def residual_on(
    problem: Problem,
    equation: Equation,
    posterior: FieldPosterior,
    axes: Sequence[Tensor],
    parameters: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Left side minus right side on a tensor grid, and the size of the terms there.

    Returns:
        Two tensors (N_1, ..., N_d): the residual, and the root of the sum of the squares of source and linear terms.
    """
    given = parameters or {}
    coordinates = _open(axes)
    values = {jet: posterior.mean_on_grid(jet, axes) for jet in equation.all_jets}
    left = equation.left_side(coordinates, values, given)
    right = _data_on(equation.source, axes, given, "the source")
    square = right**2
    for term in equation.terms:
        square = square + (term.coefficient(coordinates, given) * values[term.jet]) ** 2
    if equation.remainder is not None:
        linear: Any = 0.0
        for term in equation.terms:
            linear = linear + term.coefficient(coordinates, given) * values[term.jet]
        square = square + (left - linear) ** 2
    return (left - right).expand(square.shape), torch.sqrt(square)


def _rms(values: Tensor) -> float:
    return float(torch.sqrt((values**2).mean())) if values.numel() else 0.0


def _ratio(value: float, scale: float) -> float:
    return 0.0 if value == 0.0 else value / max(scale, 1e-300)


def measure(
    problem: Problem,
    posterior: FieldPosterior,
    grid: Sequence[int],
    parameters: Mapping[str, Tensor] | None = None,
) -> Residuals:
    """Residuals of the posterior mean.

    Args:
        problem: What was solved.
        posterior: The solution.
        grid: The grid that it was solved on.
        parameters: Values of unknowns.
    """
    axes = off_grid_axes(problem, grid)
    relative, largest, places, standardised = [], [], [], []
    for equation in problem.equations:
        noise = equation.source.noise
        own = list(equation.source.axes) if noise and equation.source.values is not None else axes
        residual, size = residual_on(problem, equation, posterior, own, parameters)
        relative.append(_ratio(_rms(residual), _rms(size)))
        where = np.unravel_index(int(residual.abs().argmax()), residual.shape)
        largest.append(_ratio(float(residual.abs().max()), float(size.max())))
        places.append(tuple(float(x[i]) for x, i in zip(own, where, strict=True)))
        standardised.append(_rms(residual) / noise if noise else float("nan"))
    return Residuals(
        tuple(relative),
        tuple(largest),
        tuple(places),
        tuple(_condition_residuals(problem, posterior, axes, parameters or {})),
        tuple(standardised),
        (
            *_observation_residuals(problem, posterior, parameters or {}),
            *(
                _on_face(problem, condition, posterior, axes, parameters or {})[0] / condition.value.noise
                for condition in problem.conditions
                if condition.value.noise
            ),
        ),
        tuple(len(x) for x in axes),
    )


def _condition_residuals(
    problem: Problem, posterior: FieldPosterior, axes: Sequence[Tensor], parameters: Mapping[str, Tensor]
) -> list[tuple[str, float]]:
    found: list[Any] = []
    for condition in problem.conditions:
        face = (condition.axis, condition.side)
        residual, scale = _on_face(problem, condition, posterior, axes, parameters)
        name = f"{condition.kind} on {face_name(problem, face)}"
        relative = 0.0 if condition.value.noise else _ratio(residual, scale)  # what is noisy is judged by its noise
        found.append((_distinct(name, [n for n, _ in found]), relative))
    for axis in problem.periodic:
        for k, name in enumerate(problem.fields):
            jet = Jet(k, (0,) * problem.box.dim)
            ends = []
            for end in (problem.box.lower[axis], problem.box.upper[axis]):
                on = [torch.tensor([end], dtype=torch.float64) if j == axis else x for j, x in enumerate(axes)]
                ends.append(posterior.mean_on_grid(jet, on))
            gap = _ratio(_rms(ends[0] - ends[1]), _size(posterior, jet, axes))
            found.append((f"{name} periodic along {problem.box.names[axis]}", gap))
    return found


def _distinct(name: str, taken: Sequence[str]) -> str:
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name} ({number})", number + 1
    return unique


def _size(posterior: FieldPosterior, jet: Jet, axes: Sequence[Tensor]) -> float:
    """Root mean square of a jet inside the box."""
    step = [x[:: max(1, len(x) // (200 if len(axes) == 1 else 24))] for x in axes]
    return _rms(posterior.mean_on_grid(jet, step))


def _on_face(
    problem: Problem,
    condition: Condition,
    posterior: FieldPosterior,
    axes: Sequence[Tensor],
    parameters: Mapping[str, Tensor],
) -> tuple[float, float]:
    """Root mean square of the residual of a condition, and that of its terms, on the face or inside."""
    end = (problem.box.upper if condition.side else problem.box.lower)[condition.axis]
    noisy = condition.value.noise and condition.value.values is not None
    others = iter(condition.value.axes) if noisy else None
    on = []
    for k, x in enumerate(axes):
        if k == condition.axis:
            on.append(torch.tensor([end], dtype=torch.float64))
        else:
            on.append(x if others is None else next(others))
    value = _data_on(condition.value, on, parameters, f"the {condition.kind} condition", condition.axis)
    total, scale = -value, _rms(value)
    for term in condition.terms:
        coefficient = term.coefficient(_open(on), parameters)
        part = coefficient * posterior.mean_on_grid(term.jet, on)
        total = total + part
        scale = max(scale, _rms(part), _rms(coefficient) * _size(posterior, term.jet, axes))
    return _rms(total), scale


def _observation_residuals(
    problem: Problem, posterior: FieldPosterior, parameters: Mapping[str, Tensor]
) -> list[float]:
    """Root mean square of each set of observations in units of their noise; of exact ones, relative to the values."""
    found: list[Any] = []
    for observation in problem.observations:
        coordinates = list(observation.points.T)
        total = -observation.values
        for term in observation.terms:
            total = total + term.coefficient(coordinates, parameters) * posterior.mean(term.jet, observation.points)
        noisy = observation.noise > 0.0
        found.append(_rms(total[noisy] / observation.noise[noisy]) if bool(noisy.any()) else 0.0)
    return found
