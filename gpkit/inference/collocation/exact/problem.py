"""From a problem in normal form to rows of a conditioning problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.exact.rows import Rows, RowTerm, grid_rows
from gpkit.inference.collocation.forms import (
    Box,
    Condition,
    Data,
    Equation,
    Jet,
    Parameters,
    Problem,
    Term,
    evaluate_on_grid,
)

__all__ = [
    "collocation_axes",
    "condition_rows",
    "data_values",
    "equation_axes",
    "equation_rows",
    "observation_rows",
    "open_mesh",
]


def collocation_axes(box: Box, grid: Sequence[int], periodic: frozenset[int] = frozenset()) -> tuple[Tensor, ...]:
    """Equispaced points along each axis, both ends included; without the upper end where the axis is periodic.

    Raises:
        InvalidDataError: The grid has not one number per axis, or fewer than two points along one.
    """
    if len(grid) != box.dim:
        raise InvalidDataError(f"the grid {tuple(grid)} has {len(grid)} numbers for {box.dim} axes {box.names}")
    axes = []
    for j, n in enumerate(grid):
        if n < 2:
            raise InvalidDataError(f"the grid needs at least two points along {box.names[j]!r}, got {n}")
        if j in periodic:
            axes.append(torch.linspace(box.lower[j], box.upper[j], n + 1, dtype=torch.float64)[:-1])
        else:
            axes.append(torch.linspace(box.lower[j], box.upper[j], n, dtype=torch.float64))
    return tuple(axes)


def open_mesh(axes: Sequence[Tensor]) -> list[Tensor]:
    """Coordinates of a tensor grid in shapes that broadcast to it."""
    d = len(axes)
    return [x.reshape([-1 if k == j else 1 for k in range(d)]) for j, x in enumerate(axes)]


def equation_axes(equation: Equation, axes: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Where an equation is collocated: on its source's own grid if it has one, else on the given axes."""
    return tuple(equation.source.axes) if equation.source.values is not None else tuple(axes)


def data_values(data: Data, axes: Sequence[Tensor], parameters: Parameters, what: str) -> Tensor:
    """Values of a source or of boundary data on a tensor grid, without values that are given on another grid."""
    shape = tuple(len(x) for x in axes)
    if data.values is not None:
        total = data.values.to(torch.float64)
        if total.shape != shape:
            raise InvalidDataError(f"{what} has values of shape {tuple(total.shape)} for a grid of {shape} points")
        if not bool(torch.isfinite(total).all()):
            raise InvalidDataError(f"{what} has values that are not finite")
    elif data.function is not None:
        total = evaluate_on_grid(data.function, axes, what)
    else:
        total = torch.full(shape, float(data.constant), dtype=torch.float64)
    if data.parametric is not None:
        total = total + data.parametric(open_mesh(axes), parameters)
    return total.expand(shape)


def _row_terms(terms: Sequence[Term], coordinates: Sequence[Tensor], parameters: Parameters) -> tuple[RowTerm, ...]:
    """Terms with evaluated coefficients; those of one jet are added."""
    total: dict[Jet, Tensor] = {}
    for t in terms:
        value = t.coefficient(coordinates, parameters)
        total[t.jet] = total[t.jet] + value if t.jet in total else value
    return tuple(RowTerm(jet, c) for jet, c in total.items())


def _noise_variance(data: Data) -> Tensor:
    return torch.tensor(float(data.noise) ** 2, dtype=torch.float64)


def equation_rows(
    equation: Equation,
    axes: Sequence[Tensor],
    parameters: Parameters,
    state: Mapping[Jet, Tensor] | None = None,
    label: str = "the equation",
) -> Rows:
    """Rows of an equation on a tensor grid, linearised at a state if it is nonlinear.

    The linearisation ``J u = f - N(u_0) + J u_0`` is a linear equation for the new state u.

    Args:
        equation: The equation.
        axes: Where it is collocated.
        parameters: Of unknown coefficients.
        state: Values of every jet of the equation on the grid; needed where it is nonlinear.
        label: Its name in messages.
    """
    coordinates = open_mesh(axes)
    source = data_values(equation.source, axes, parameters, f"the source of {label}")
    shape = tuple(len(x) for x in axes)
    if equation.is_linear or state is None:
        terms = _row_terms(equation.terms, coordinates, parameters)
        return grid_rows(terms, axes, source, _noise_variance(equation.source), label)
    slopes = equation.linearised(coordinates, state, parameters)
    moved: Tensor = torch.zeros(shape, dtype=torch.float64)
    for jet, slope in slopes.items():
        moved = moved + slope * state[jet]
    value = source - equation.left_side(coordinates, state, parameters) + moved
    terms = tuple(RowTerm(jet, c) for jet, c in slopes.items())
    return grid_rows(terms, axes, value.expand(shape), _noise_variance(equation.source), label)


def condition_rows(
    condition: Condition, box: Box, axes: Sequence[Tensor], parameters: Parameters, label: str | None = None
) -> Rows:
    """Rows of a condition on one face, at the collocation points of the face or where its values are given."""
    end = box.lower[condition.axis] if condition.side == 0 else box.upper[condition.axis]
    normal = torch.tensor([end], dtype=torch.float64)
    data = condition.value
    others = (
        list(data.axes)
        if data.values is not None and data.axes
        else [x for j, x in enumerate(axes) if j != condition.axis]
    )
    face = [*others[: condition.axis], normal, *others[condition.axis :]]
    name = label or f"the {condition.kind} data at {box.names[condition.axis]} = {end:g}"
    if data.values is not None:
        shape = tuple(len(x) for x in face)
        if data.values.numel() != torch.Size(shape).numel():
            raise InvalidDataError(f"{name} have {data.values.numel()} values for {shape} points")
        data = Data(values=data.values.reshape(shape), axes=tuple(face), parametric=data.parametric)
    values = data_values(data, face, parameters, name)
    terms = _row_terms(condition.terms, open_mesh(face), parameters)
    return grid_rows(terms, face, values, _noise_variance(condition.value), name)


def observation_rows(problem: Problem, parameters: Parameters) -> list[Rows]:
    """Rows of the observations, scattered."""
    rows = []
    for number, o in enumerate(problem.observations):
        coordinates = tuple(o.points[:, j].contiguous() for j in range(o.points.shape[1]))
        terms = _row_terms(o.terms, coordinates, parameters)
        noise = (o.noise**2).expand(len(o.values))
        one_axis = o.points.shape[1] == 1
        rows.append(Rows(terms, coordinates, one_axis, o.values, noise, f"observation set {number + 1}"))
    return rows
