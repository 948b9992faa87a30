"""Whether the conditions are as many as the equations need along every axis, and on the right faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Equation, Jet, Problem
from gpkit.models.pde.probing import face_name, face_points, middle_of_priors, probe_points

__all__ = ["check_counts", "check_directions"]


def _slopes(problem: Problem, equation: Equation, points: Sequence[Tensor]) -> dict[Jet, Tensor]:
    """Coefficients of the linearisation at a state without special values, (m,) each."""
    values = {}
    for k, jet in enumerate(equation.all_jets):
        phase = sum(
            (1.3 + j) * c / length for j, (c, length) in enumerate(zip(points, problem.box.lengths, strict=True))
        )
        values[jet] = torch.sin(torch.as_tensor(phase) + 0.7 * k) + 0.3
    slopes = equation.linearised(points, values, middle_of_priors(problem))
    return {jet: torch.as_tensor(s, dtype=torch.float64).detach().expand(points[0].shape) for jet, s in slopes.items()}


def _order_along(problem: Problem, axis: int) -> int | None:
    """Number of conditions that the equations need along an axis; None if it cannot be said.

    For one equation it is its order along the axis. For a square system it is the degree, in the symbol of that
    derivative, of the determinant of the matrix of symbols.
    """
    determined = [k for k in range(len(problem.fields)) if k not in problem.free]
    if len(problem.equations) != len(determined):
        return None
    if len(determined) == 1:
        (equation,) = problem.equations
        return max(jet.orders[axis] for jet in equation.all_jets if jet.field == determined[0])
    points = [c[1:2] for c in probe_points(problem, 3)]
    generic = np.exp(1j * np.array([0.4, 1.1, 2.3]))[: problem.box.dim]
    rows = [_slopes(problem, e, points) for e in problem.equations]
    highest = sum(max((j.orders[axis] for e in rows for j in e if j.field == k), default=0) for k in determined)
    samples = np.exp(2j * np.pi * np.arange(highest + 1) / (highest + 1))
    determinants = []
    for s in samples:
        symbol = generic.copy()
        symbol[axis] = s
        matrix = np.zeros((len(rows), len(determined)), dtype=complex)
        for i, row in enumerate(rows):
            largest = max(abs(float(c)) for c in row.values()) or 1.0
            for jet, c in row.items():
                if jet.field in determined:
                    matrix[i, determined.index(jet.field)] += (
                        float(c) / largest * np.prod(symbol ** np.array(jet.orders))
                    )
        determinants.append(np.linalg.det(matrix))
    coefficients = np.abs(np.fft.fft(np.array(determinants))) / len(samples)
    present = np.flatnonzero(coefficients > 1e-11 * max(coefficients.max(), 1e-300))
    return int(present.max()) if coefficients.max() > 0.0 else None


def check_counts(problem: Problem) -> None:
    """Refuse more conditions along an axis than the equations have room for, and fewer where nothing is observed.

    Raises:
        InvalidDataError: With the number that is needed, and the faces.
    """
    for axis in range(problem.box.dim):
        if axis in problem.periodic:
            continue
        order = _order_along(problem, axis)
        if order is None:
            continue
        own = [
            c for c in problem.conditions if c.axis == axis and not all(t.jet.field in problem.free for t in c.terms)
        ]
        name = problem.box.names[axis]
        faces = f"the faces {face_name(problem, (axis, 0))} and {face_name(problem, (axis, 1))}"
        what = "the equation is" if len(problem.equations) == 1 else "the equations are together"
        if _is_transport(problem, axis):
            continue
        if len(own) > order:
            raise InvalidDataError(
                f"{what} of order {order} along {name}, which allows {order} condition{'s' * (order != 1)} on {faces}; "
                f"there are {len(own)} (a condition that names no face holds on all: name those that are meant, "
                f'as in u.on("{name}={problem.box.lower[axis]:g}"))'
            )
        if len(own) < order and not problem.observations:
            raise InvalidDataError(
                f"{what} of order {order} along {name}, which needs {order} condition{'s' * (order != 1)} on {faces}; "
                f"there {'is' if len(own) == 1 else 'are'} {len(own)}"
            )


def _is_transport(problem: Problem, axis: int) -> bool:
    """Whether an axis is the space of a scalar first-order equation, where it is the flow that asks for conditions."""
    if len(problem.fields) != 1 or len(problem.equations) != 1 or problem.box.dim == 1:
        return False
    jets = problem.equations[0].all_jets
    first = max(sum(j.orders) for j in jets) == 1
    initial = any(c.kind == "initial" for c in problem.conditions if c.axis == axis)
    return first and not initial


def check_directions(problem: Problem) -> None:
    """Refuse conditions of one equation that are on the wrong faces.

    Raises:
        InvalidDataError: Values are given where a flow leaves or missing where it enters, diffusion runs backwards, or
            an elliptic equation has all its data on one side.
    """
    if len(problem.fields) != 1 or len(problem.equations) != 1:
        return
    (equation,) = problem.equations
    for axis in range(problem.box.dim):
        if axis not in problem.periodic and _is_transport(problem, axis):
            _inflow(problem, equation, axis)
    if not equation.is_linear or problem.observations:
        return
    slopes = _slopes(problem, equation, [c.clone() for c in probe_points(problem)])
    pure = {
        axis: c
        for jet, c in slopes.items()
        for axis in range(problem.box.dim)
        if jet.orders == tuple(2 if k == axis else 0 for k in range(problem.box.dim))
    }
    _not_backwards(problem, slopes, pure)
    _not_from_one_side(problem, slopes, pure)


def _inflow(problem: Problem, equation: Equation, axis: int) -> None:
    """Conditions of a transport equation belong on the faces where its characteristics enter."""
    clock = next(
        (k for k in range(problem.box.dim) if any(c.kind == "initial" for c in problem.conditions if c.axis == k)), None
    )
    if clock is None:
        clock = next((k for k, name in enumerate(problem.box.names) if name == "t" and k != axis), None)
    own = {c.side for c in problem.conditions if c.axis == axis}
    if clock is None or any(sum(j.orders) for j in equation.jets):
        return  # without a clock, or with a flow that depends on the solution, entering cannot be told beforehand
    start = {c.side for c in problem.conditions if c.axis == clock}
    if len(start) > 1:
        raise InvalidDataError(
            f"the equation is of order 1 along {problem.box.names[clock]}, which allows 1 condition; there are 2: "
            f"leave that on {face_name(problem, (clock, 1))} out"
        )
    zero = tuple(0 for _ in range(problem.box.dim))
    unit = {k: Jet(0, tuple(int(j == k) for j in range(len(zero)))) for k in (axis, clock)}
    for side in (0, 1):
        slopes = _slopes(problem, equation, face_points(problem, (axis, side)))
        if unit[axis] not in slopes or unit[clock] not in slopes:
            return
        speed = slopes[unit[axis]] / slopes[unit[clock]]
        inward = speed if side == 0 else -speed
        if start == {1}:
            inward = -inward
        face = face_name(problem, (axis, side))
        if bool((inward < 0.0).all()) and side in own:
            raise InvalidDataError(
                f"{face} is where the solution flows out: give values on {face_name(problem, (axis, 1 - side))} instead"
            )
        if bool((inward > 0.0).all()) and side not in own and not problem.observations:
            raise InvalidDataError(f"{face} is where the solution flows in: a condition is needed there")


def _not_backwards(problem: Problem, slopes: dict[Jet, Tensor], pure: dict[int, Tensor]) -> None:
    d = problem.box.dim
    for clock in range(d):
        first = slopes.get(Jet(0, tuple(int(k == clock) for k in range(d))))
        if first is None or clock in problem.periodic or any(j.orders[clock] > 1 for j in slopes):
            continue
        own = {c.side for c in problem.conditions if c.axis == clock}
        if len(own) != 1 or any(j.orders[clock] and sum(j.orders) > 1 for j in slopes):
            continue
        if max(sum(j.orders) for j in slopes) != 2:
            continue
        (side,) = own
        for axis, diffusion in pure.items():
            sign = (diffusion / first) * (1.0 if side == 0 else -1.0)
            if bool((sign > 0.0).all()):
                raise InvalidDataError(
                    f"diffusion along {problem.box.names[axis]} runs backwards from "
                    f"{face_name(problem, (clock, side))}: such a problem has no solution "
                    "that depends on its data continuously (check the sign)"
                )


def _not_from_one_side(problem: Problem, slopes: dict[Jet, Tensor], pure: dict[int, Tensor]) -> None:
    d = problem.box.dim
    if d == 1 or len(pure) != d or max(sum(j.orders) for j in slopes) != 2:
        return
    mixed = any(sum(j.orders) == 2 and max(j.orders) == 1 for j in slopes)
    signs = {bool((c > 0.0).all()) for c in pure.values()} | {not bool((c < 0.0).all()) for c in pure.values()}
    if mixed or len(signs) != 1:
        return
    for axis in range(d):
        own = [c.side for c in problem.conditions if c.axis == axis]
        if len(own) == 2 and len(set(own)) == 1:
            raise InvalidDataError(
                f"both conditions along {problem.box.names[axis]} are on {face_name(problem, (axis, own[0]))}: an "
                f"elliptic equation needs one of them on {face_name(problem, (axis, 1 - own[0]))}"
            )
