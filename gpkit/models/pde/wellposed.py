"""Whether a problem is well posed as it is stated: what is not is refused with a sentence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Condition, Data, Equation, Jet, Problem, evaluate
from gpkit.models.pde.counting import check_counts, check_directions
from gpkit.models.pde.probing import face_name, face_points, jet_name, middle_of_priors, probe_points

__all__ = ["check_problem"]

_CORNER_TOLERANCE = 1e-6


def check_problem(problem: Problem) -> None:
    """Refuse what has no unique solution, or data that are not numbers.

    Raises:
        InvalidDataError: There are no data, too few or too many conditions along an axis, conditions on the wrong face,
            a constant that nothing determines, data that disagree at a corner, functions that are not finite, or a
            leading coefficient that vanishes.
    """
    _functions_are_numbers(problem)
    _faces_are_free(problem)
    _there_are_data(problem)
    if not problem.unknowns and not problem.free:
        _leading_coefficients(problem)
    check_counts(problem)
    check_directions(problem)
    _constants_are_determined(problem)
    _corners_agree(problem)


def _functions_are_numbers(problem: Problem) -> None:
    points = probe_points(problem)
    given = middle_of_priors(problem)
    for number, equation in enumerate(problem.equations):
        which = f" of equation {number + 1}" if len(problem.equations) > 1 else ""
        if equation.source.function is not None:
            evaluate(equation.source.function, points, f"the source{which}")
        parametric = equation.source.parametric
        if parametric is not None:
            evaluate(_bound(parametric, given), points, f"the source{which}")
        for term in equation.terms:
            if term.coefficient.function is not None:
                what = f"the coefficient of {jet_name(problem, term.jet)}{which}"
                evaluate(_bound(term.coefficient.function, given), points, what)
        _remainder_is_numeric(problem, equation, points, given)
    for condition in problem.conditions:
        if condition.value.function is not None:
            what = f"the {condition.kind} condition on {face_name(problem, (condition.axis, condition.side))}"
            evaluate(condition.value.function, face_points(problem, (condition.axis, condition.side)), what)


def _bound(
    function: Callable[[Sequence[Tensor], Mapping[str, Tensor]], Tensor], given: Mapping[str, Tensor]
) -> Callable[..., Tensor]:
    return lambda *coordinates: function(coordinates, given)


def _remainder_is_numeric(
    problem: Problem, equation: Equation, points: Sequence[Tensor], given: Mapping[str, Tensor]
) -> None:
    if equation.remainder is None:
        return
    values = [torch.full_like(points[0], 0.3 + 0.1 * k) for k, _ in enumerate(equation.jets)]
    try:
        found = torch.as_tensor(equation.remainder(points, values, given), dtype=torch.float64)
    except InvalidDataError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        first = str(error).splitlines()[0]
        raise InvalidDataError(f"the nonlinear part of {equation.text} cannot be computed: {first}") from None
    if found.dim() and found.shape != points[0].shape:
        raise InvalidDataError(
            f"the nonlinear part of {equation.text} has shape {tuple(found.shape)} for fields of shape "
            f"{tuple(points[0].shape)}: it must be pointwise"
        )


def _there_are_data(problem: Problem) -> None:
    if not problem.conditions and not problem.periodic and not problem.observations:
        raise InvalidDataError(
            "there are no boundary data: give conditions, such as Dirichlet(u, 0) or Periodic('x'), or observations"
        )


def _faces_are_free(problem: Problem) -> None:
    for condition in problem.conditions:
        if condition.axis in problem.periodic:
            raise InvalidDataError(
                f"{problem.box.names[condition.axis]} is periodic, so that there is no condition on "
                f"{face_name(problem, (condition.axis, condition.side))}"
            )
    seen: dict[Any, Condition] = {}
    for condition in problem.conditions:
        if all(t.coefficient.constant is not None for t in condition.terms):
            scale = max((abs(t.coefficient.constant or 0.0) for t in condition.terms), default=1.0)
            left = frozenset((t.jet, round((t.coefficient.constant or 0.0) / scale, 12)) for t in condition.terms)
            mirrored = frozenset((jet, -c) for jet, c in left)
            for key in ((condition.axis, condition.side, left), (condition.axis, condition.side, mirrored)):
                if key in seen:
                    what = " + ".join(jet_name(problem, t.jet) for t in condition.terms)
                    where = face_name(problem, (condition.axis, condition.side))
                    raise InvalidDataError(f"{what} is given twice on {where}")
            seen[condition.axis, condition.side, left] = condition


def _all_jets(problem: Problem) -> Iterable[Jet]:
    for equation in problem.equations:
        yield from equation.all_jets
    for terms in (*(c.terms for c in problem.conditions), *(o.terms for o in problem.observations)):
        yield from (t.jet for t in terms)


def _constants_are_determined(problem: Problem) -> None:
    for number, name in enumerate(problem.fields):
        if number in problem.free:
            continue
        if not any(jet.field == number and not any(jet.orders) for jet in _all_jets(problem)):
            raise InvalidDataError(
                f"{name} is determined only up to a constant: only its derivatives are given; fix it at a point, such "
                f"as Observe({name}, [[{', '.join(f'{a:.6g}' for a in problem.box.lower)}]], [0.0], noise=0)"
            )


def _leading_coefficients(problem: Problem) -> None:
    """Coefficients of the highest pure derivatives may not vanish inside the box."""
    if len(problem.fields) != 1:
        return
    d = problem.box.dim
    points = probe_points(problem, {1: 1001, 2: 41, 3: 11}[d])
    inside = torch.ones_like(points[0], dtype=torch.bool)
    for c, a, b in zip(points, problem.box.lower, problem.box.upper, strict=True):
        inside &= (c > a) & (c < b)
    for equation in problem.equations:
        nonlinear = {jet for jet in equation.jets}
        for axis in range(d):
            order = max(j.orders[axis] for j in equation.all_jets)
            leading = [t for t in equation.terms if t.jet.orders[axis] == order]
            if order < (1 if d == 1 else 2) or len(leading) != 1 or any(j.orders[axis] == order for j in nonlinear):
                continue
            coefficient = leading[0].coefficient
            if coefficient.function is None:
                continue
            values = coefficient(points, {}).expand(points[0].shape)
            scale = float(values.abs().max())
            low, high = float(values.min()), float(values.max())
            bad = inside & (values.abs() <= 1e-12 * scale)
            if low < -1e-12 * scale and high > 1e-12 * scale:
                bad = inside & (values.abs() == values[inside].abs().min())
            if bool(bad.any()):
                at = int(torch.nonzero(bad)[0])
                place = ", ".join(f"{n}={float(c[at]):.4g}" for n, c in zip(problem.box.names, points, strict=True))
                raise InvalidDataError(
                    f"the coefficient of {jet_name(problem, leading[0].jet)} vanishes inside the box, near {place}: "
                    "the equation is singular there"
                )


def _trace(problem: Problem, condition: Condition, at: Sequence[Tensor]) -> Tensor | None:
    """The field's values (m,) that a condition gives at points of its face; None if it gives anything else."""
    if len(condition.terms) != 1 or any(condition.terms[0].jet.orders) or condition.value.noise:
        return None
    factor = condition.terms[0].coefficient.constant
    if not factor or condition.value.parametric is not None:
        return None
    value = _data_at(condition.value, at, condition.axis)
    return None if value is None else value / factor


def _data_at(data: Data, at: Sequence[Tensor], leave_out: int) -> Tensor | None:
    if data.function is not None:
        return evaluate(data.function, at, "a condition")
    if data.values is None:
        return torch.full_like(at[0], data.constant)
    kept = [c for k, c in enumerate(at) if k != leave_out]
    index = []
    for axis, c in zip(data.axes, kept, strict=True):
        distance = (axis[:, None] - c[None, :]).abs()
        if float(distance.min(0).values.max()) > 1e-9 * float(axis[-1] - axis[0] + 1e-300):
            return None
        index.append(distance.argmin(0))
    return data.values[tuple(index)]


def _corners_agree(problem: Problem) -> None:
    box = problem.box
    for one, two in itertools.combinations(problem.conditions, 2):
        if one.axis == two.axis or one.terms[0].jet.field != two.terms[0].jet.field:
            continue
        ends = {c.axis: (box.upper if c.side else box.lower)[c.axis] for c in (one, two)}
        edge = [torch.linspace(a, b, 5, dtype=torch.float64) for a, b in zip(box.lower, box.upper, strict=True)]
        edge = [torch.full((5,), ends[k], dtype=torch.float64) if k in ends else e for k, e in enumerate(edge)]
        first, second = _trace(problem, one, edge), _trace(problem, two, edge)
        if first is None or second is None:
            continue
        scale = max(
            float(t.abs().max())
            for c in (one, two)
            for t in (_trace(problem, c, face_points(problem, (c.axis, c.side))), first, second)
            if t is not None
        )
        gap = (first - second).abs()
        if float(gap.max()) > _CORNER_TOLERANCE * max(scale, 1e-300):
            k = int(gap.argmax())
            corner = ", ".join(f"{n}={float(e[k]):.6g}" for n, e in zip(box.names, edge, strict=True))
            raise InvalidDataError(
                f"the conditions on {face_name(problem, (one.axis, one.side))} and "
                f"{face_name(problem, (two.axis, two.side))} disagree at the corner {corner}: "
                f"{float(first[k]):.6g} and {float(second[k]):.6g}"
            )
