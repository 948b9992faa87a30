"""Conditions on whole faces as constraints of one-variable processes and a lift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.lift import Lift, Trace, boolean_sum, chebyshev_trace, gridded_trace
from gpkit.inference.collocation.exact.priors import AxisPrior, ConditionedAxis, Constraint, FieldPrior
from gpkit.inference.collocation.exact.problem import data_values
from gpkit.inference.collocation.forms import Condition, Parameters, Problem

__all__ = ["Separated", "conditioned", "lift_of", "separate"]


@dataclass(frozen=True, eq=False)
class Separated:
    """Conditions that are functionals of one axis, by field and axis.

    Attributes:
        constraints: For each field, for each axis, the functionals.
        data: The condition that each functional came from, in the same order.
    """

    constraints: list[list[list[Constraint]]]
    data: list[list[list[Condition]]]


def separate(problem: Problem) -> Separated | None:
    """Write every condition as a functional of one axis of one field.

    Returns:
        None if some condition is not one: several fields, tangential derivatives, variable coefficients, or noise.
    """
    dim = problem.box.dim
    out = Separated(
        [[[] for _ in range(dim)] for _ in problem.fields], [[[] for _ in range(dim)] for _ in problem.fields]
    )
    for c in problem.conditions:
        fields = {t.jet.field for t in c.terms}
        tangential = any(o for t in c.terms for j, o in enumerate(t.jet.orders) if j != c.axis)
        constants = [t.coefficient.constant for t in c.terms]
        if len(fields) != 1 or tangential or None in constants or c.value.noise > 0.0:
            return None
        end = problem.box.lower[c.axis] if c.side == 0 else problem.box.upper[c.axis]
        f = fields.pop()
        orders = tuple(t.jet.orders[c.axis] for t in c.terms)
        coefficients = tuple(float(v) for v in constants if v is not None)
        out.constraints[f][c.axis].append(Constraint((end,) * len(orders), orders, coefficients))
        out.data[f][c.axis].append(c)
    return out


def conditioned(prior: FieldPrior, constraints: Sequence[Sequence[Constraint]]) -> FieldPrior:
    """The product prior with all functionals zero."""
    axes: list[AxisPrior] = []
    for axis, own in zip(prior.axes, constraints, strict=True):
        axes.append(ConditionedAxis(axis, own) if own else axis)
    return FieldPrior(tuple(axes))


def lift_of(problem: Problem, field: int, prior: FieldPrior, separated: Separated, parameters: Parameters) -> Lift:
    """The mean of a field given the values of its conditions.

    Args:
        problem: For the box.
        field: Number of the field.
        prior: Its conditioned prior.
        separated: Conditions.
        parameters: Of unknown data.
    """
    traces: dict[tuple[int, int], Trace] = {}
    for axis, conditions in enumerate(separated.data[field]):
        for c, condition in enumerate(conditions):
            traces[axis, c] = _trace(problem, condition, prior, parameters)
    return boolean_sum(prior.axes, traces)


def _trace(problem: Problem, condition: Condition, prior: FieldPrior, parameters: Parameters) -> Trace:
    box, axis, data = problem.box, condition.axis, condition.value
    end = box.lower[axis] if condition.side == 0 else box.upper[axis]
    others = [j for j in range(box.dim) if j != axis]
    label = f"the {condition.kind} data at {box.names[axis]} = {end:g}"
    if data.values is not None:
        nodes = [x for x in data.axes if len(x) > 1 or len(others) == len(data.axes)]
        named = dict(zip(others, nodes, strict=True))
        values = data.values.to(torch.float64).reshape([len(x) for x in nodes])
        return gridded_trace(values, named, {j: prior.axes[j] for j in others}, 0.0)

    def on_face(nodes: Sequence[Tensor]) -> Tensor:
        face = list(nodes)
        face.insert(axis, torch.tensor([end], dtype=torch.float64))
        return data_values(data, face, parameters, label).squeeze(axis)

    return chebyshev_trace(on_face, others, [(box.lower[j], box.upper[j]) for j in others])
