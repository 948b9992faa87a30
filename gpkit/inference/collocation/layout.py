"""A problem sorted by what solvers can use: constant and variable terms, conditions along single axes and others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.axes import EndCondition
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.forms import (
    Coefficient,
    Condition,
    Data,
    Equation,
    Jet,
    Parameters,
    Problem,
    Term,
    evaluate,
    evaluate_on_grid,
)
from gpkit.inference.collocation.gridded import Interpolant

__all__ = ["Face", "Layout", "LinearPart", "RightSide", "open_grid"]


def open_grid(axes: Sequence[Array]) -> list[Tensor]:
    """Coordinates that broadcast to a tensor grid."""
    d = len(axes)
    return [
        torch.from_numpy(np.ascontiguousarray(x)).reshape([-1 if i == j else 1 for i in range(d)])
        for j, x in enumerate(axes)
    ]


class RightSide:
    """What an equation or a condition is equal to, anywhere on the box.

    Args:
        data: As the user gave it.
        box: Ends of the box along each axis.
        what: Its name in messages.
        parameters: Values of unknown parameters.
        fixed: The axis that is constant on a face, and its coordinate.
    """

    def __init__(
        self,
        data: Data,
        box: Sequence[tuple[float, float]],
        what: str,
        parameters: Parameters,
        fixed: tuple[int, float] | None = None,
    ) -> None:
        self.data, self._what, self._parameters, self._fixed = data, what, parameters, fixed
        self.is_zero = (
            data.function is None and data.values is None and data.parametric is None and data.constant == 0.0
        )
        self.is_constant = data.function is None and data.values is None and data.parametric is None
        self.interpolant: Interpolant | None = None
        if data.values is not None and data.noise == 0.0:
            ends = [e for j, e in enumerate(box) if fixed is None or j != fixed[0]]
            self.interpolant = Interpolant(
                [np.asarray(a, dtype=np.float64) for a in data.axes], np.asarray(data.values, dtype=np.float64), ends
            )

    def doubted(self) -> RightSide:
        """The same with gridded values that are expanded in another way."""
        if self.interpolant is None:
            return self
        other = copy.copy(self)
        other.interpolant = self.interpolant.doubted()
        return other

    def doubt(self) -> float:
        """How much the two expansions of gridded values disagree off their grid, relative to the values."""
        if self.interpolant is None:
            return 0.0
        middles = [0.5 * (x[1:] + x[:-1]) for x in (np.asarray(a, dtype=np.float64) for a in self.data.axes)]
        values = self.interpolant.on_grid(middles)
        difference = self.interpolant.doubted().on_grid(middles) - values
        return float(np.linalg.norm(difference)) / max(float(np.linalg.norm(values)), 1e-300)

    def on_grid(self, axes: Sequence[Array]) -> Array:
        """Values on a tensor grid of all axes (of a face: its constant axis has one point)."""
        shape = tuple(len(x) for x in axes)
        if self.is_zero:
            return np.zeros(shape)
        tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in axes]
        total = np.full(shape, float(self.data.constant)) if self.data.constant != 0.0 else np.zeros(shape)
        if self.data.function is not None:
            total += evaluate_on_grid(self.data.function, tensors, self._what).numpy()
        if self.data.parametric is not None:
            parametric = self.data.parametric
            values = parametric(open_grid(axes), self._parameters)
            total += torch.as_tensor(values, dtype=torch.float64).detach().expand(shape).numpy()
        if self.interpolant is not None:
            inner = [x for j, x in enumerate(axes) if self._fixed is None or j != self._fixed[0]]
            values_on = self.interpolant.on_grid(inner)
            if self._fixed is not None:
                values_on = np.expand_dims(values_on, self._fixed[0])
            total += values_on
        return np.asarray(total)

    def at(self, points: Array) -> Array:
        """Values at scattered points (m, d)."""
        coordinates = [torch.from_numpy(np.ascontiguousarray(points[:, j])) for j in range(points.shape[1])]
        total = np.full(len(points), float(self.data.constant))
        if self.data.function is not None:
            total += evaluate(self.data.function, coordinates, self._what).numpy()
        if self.data.parametric is not None:
            values = torch.as_tensor(self.data.parametric(coordinates, self._parameters), dtype=torch.float64)
            total += values.detach().expand(len(points)).numpy()
        if self.interpolant is not None:
            keep = [j for j in range(points.shape[1]) if self._fixed is None or j != self._fixed[0]]
            total += self.interpolant.at(points[:, keep])
        return total


@dataclass(frozen=True)
class Face:
    """A condition that involves one field and derivatives along its own axis only, with constant coefficients."""

    field: int
    axis: int
    end: EndCondition
    value: RightSide
    kind: str


@dataclass
class LinearPart:
    """Linear terms of one equation.

    Attributes:
        constant: Coefficient of each jet.
        variable: Functions of open grid coordinates, by jet.
    """

    constant: dict[Jet, float] = field(default_factory=dict)
    variable: list[tuple[Jet, Callable[[Sequence[Tensor]], Tensor]]] = field(default_factory=list)

    @classmethod
    def of(cls, terms: Sequence[Term], parameters: Parameters, probe: Sequence[Tensor]) -> LinearPart:
        """Sort terms; a coefficient that returns a scalar is constant."""
        part = cls()
        for term in terms:
            value = term.coefficient(probe, parameters).detach()
            if value.dim() == 0:
                part.constant[term.jet] = part.constant.get(term.jet, 0.0) + float(value)
            else:
                part.variable.append((term.jet, _at(term.coefficient, parameters)))
        return part


def _at(coefficient: Coefficient, parameters: Parameters) -> Callable[[Sequence[Tensor]], Tensor]:
    return lambda coordinates: coefficient(coordinates, parameters).detach()


class Layout:
    """A problem with its parameters given.

    Args:
        problem: What to solve.
        parameters: Values of unknown parameters.

    Attributes:
        linear: Linear part of each equation.
        sources: Right side of each equation.
        faces: Conditions that belong to one axis of one field.
        others: Conditions that do not, with their right sides.
    """

    def __init__(self, problem: Problem, parameters: Parameters | None = None) -> None:
        self.problem = problem
        self.parameters: Parameters = parameters or {}
        box = problem.box
        self.ends = list(zip(box.lower, box.upper, strict=True))
        self.dim, self.count = box.dim, len(problem.fields)
        probe = [torch.tensor([a + 0.37 * (b - a), a + 0.61 * (b - a)], dtype=torch.float64) for a, b in self.ends]
        self.linear = [LinearPart.of(e.terms, self.parameters, probe) for e in problem.equations]
        self.sources = [
            RightSide(e.source, self.ends, self._name("the source", i), self.parameters)
            for i, e in enumerate(problem.equations)
        ]
        self.faces: list[Face] = []
        self.others: list[tuple[Condition, RightSide]] = []
        for condition in problem.conditions:
            self._sort(condition, probe)

    def doubted(self) -> Layout:
        """The same problem with gridded sources that are expanded in another way; itself if there are none."""
        if all(s.interpolant is None for s in self.sources):
            return self
        other = copy.copy(self)
        other.sources = [s.doubted() for s in self.sources]
        return other

    @property
    def equations(self) -> tuple[Equation, ...]:
        """The equations of the problem."""
        return self.problem.equations

    @property
    def orders(self) -> NDArray[np.int64]:
        """Highest derivative of each field along each axis in the equations, (F, d)."""
        found = np.zeros((self.count, self.dim), dtype=int)
        for equation in self.equations:
            for jet in equation.all_jets:
                found[jet.field] = np.maximum(found[jet.field], jet.orders)
        return found

    def _name(self, what: str, i: int) -> str:
        return what if len(self.problem.equations) == 1 else f"{what} of equation {i + 1}"

    def _sort(self, condition: Condition, probe: Sequence[Tensor]) -> None:
        j, side = condition.axis, condition.side
        if j in self.problem.periodic:
            name = self.problem.box.names[j]
            raise InvalidDataError(
                f"a {condition.kind} condition on axis {name}, which is periodic: remove one of them"
            )
        where = f"{self.problem.box.names[j]} = {self.ends[j][side]:g}"
        right = RightSide(
            condition.value,
            self.ends,
            f"the {condition.kind} value at {where}",
            self.parameters,
            (j, self.ends[j][side]),
        )
        part = LinearPart.of(condition.terms, self.parameters, probe)
        jets = list(part.constant)
        own = not part.variable and len({jet.field for jet in jets}) == 1
        own = own and all(o == 0 for jet in jets for k, o in enumerate(jet.orders) if k != j)
        if own:
            end = EndCondition(side, tuple((jet.orders[j], c) for jet, c in part.constant.items()))
            self.faces.append(Face(jets[0].field, j, end, right, condition.kind))
        else:
            self.others.append((condition, right))

    def faces_of(self, which: int, axis: int) -> list[Face]:
        """Conditions on one axis of one field."""
        return [f for f in self.faces if f.field == which and f.axis == axis]
