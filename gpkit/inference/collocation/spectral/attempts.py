"""One solution at given sizes: directly, by Krylov or by dense least squares, and what is uncertain of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array, Basis
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.residuals import Residuals
from gpkit.inference.collocation.resolution import resample
from gpkit.inference.collocation.rows import Columns
from gpkit.inference.collocation.spectral.dense import LeastSquares, gauss_newton
from gpkit.inference.collocation.spectral.discretisation import Discretisation
from gpkit.inference.collocation.spectral.linearised import Collocation
from gpkit.inference.collocation.spectral.newton import NewtonReport, continued, newton
from gpkit.inference.collocation.uncertainty import CoefficientVariances, DenseCovariance, Uncertainty

__all__ = [
    "MOST_DENSE",
    "Attempt",
    "count_columns",
    "error_floors",
    "refuse_what_does_not_fit",
    "relative_size",
    "solve_at",
    "spread",
]

MOST_DENSE = 2500  # coefficients of dense least squares
_ROUNDING = 1e-14


@dataclass
class Attempt:
    """A solution at one size.

    Attributes:
        disc: Bases.
        state: Coefficients of each field.
        report: Iterations.
        mismatch: Of boundary data at corners.
        why: A sentence about the method.
        dense: The factored rows, where these were solved.
    """

    disc: Discretisation
    state: list[Array]
    report: NewtonReport
    mismatch: float
    why: str
    dense: LeastSquares | None = None

    @property
    def is_dense(self) -> bool:
        """Whether dense rows were solved."""
        return self.dense is not None


def spread(attempt: Attempt, residuals: Residuals) -> tuple[Uncertainty, float | None]:
    """Distribution of the discretisation error, and how much a finer basis changes the solution, relatively.

    Dense rows have their own covariance, and no finer basis is solved. What is not known of a gridded source between
    its points counts as discretisation.
    """
    disc, layout = attempt.disc, attempt.disc.layout
    floors = error_floors(attempt, residuals)
    if attempt.dense is not None:
        size = 3.0 * max(residuals.total, *[s.doubt() for s in layout.sources], 1e-15) * attempt.dense.magnitude
        columns = Columns(disc.bases, disc.axes)
        return DenseCovariance.of_factor(columns, attempt.dense.factor, attempt.dense.scales, size, floors), None
    fine = Discretisation(layout.doubted(), [int(1.25 * n) + 8 for n in disc.sizes])
    collocation = Collocation(fine)
    start, _ = _start(fine, attempt, anew=True)
    residual = collocation.residual(start)
    step, _ = collocation.linearise(start).solve(residual, 1e-3, 120)
    return CoefficientVariances.covering(fine.axes, step, floors), relative_size(step, start)


def error_floors(attempt: Attempt, residuals: Residuals) -> list[float]:
    """Errors of the values of each field that boundary data and rounding make."""
    zero = (0,) * attempt.disc.layout.dim
    sizes = [float(np.abs(attempt.disc.values(zero, c)).max()) for c in attempt.state]
    doubts = [_ROUNDING] * len(sizes)
    for face in attempt.disc.layout.faces:
        doubts[face.field] = max(doubts[face.field], face.value.doubt())
    return [max(residuals.boundary, doubt) * size for size, doubt in zip(sizes, doubts, strict=True)]


def relative_size(change: Sequence[Array], state: Sequence[Array]) -> float:
    """Largest L2 norm of a field's change relative to the field: coefficients are those of orthonormal functions."""
    pairs = zip(change, state, strict=True)
    return max((float(np.linalg.norm(c)) / max(float(np.linalg.norm(s)), 1e-300) for c, s in pairs), default=0.0)


def _numbers(sizes: Sequence[int | Basis]) -> list[int]:
    return [n.size if isinstance(n, Basis) else int(n) for n in sizes]


def count_columns(layout: Layout, sizes: Sequence[int | Basis]) -> int:
    """Number of coefficients of all fields."""
    return layout.count * math.prod(_numbers(sizes))


def solve_at(
    layout: Layout,
    sizes: Sequence[int | Basis],
    previous: Attempt | None,
    *,
    patient: bool = True,
    rows: str | None = None,
) -> Attempt:
    """Directly or by Krylov where the problem has that form, by dense least squares where it has not.

    Args:
        layout: The problem.
        sizes: Functions along each axis, or the basis of each.
        previous: The solution at smaller sizes.
        patient: Whether continuation and dense rows follow where Newton's iteration fails.
        rows: Why dense rows are to be solved whatever the problem, or None.

    Raises:
        ConvergenceError: Every way fails.
        InvalidDataError: The solution is not unique, or there are too many functions for this problem.
    """
    refuse_what_does_not_fit(layout, _numbers(sizes))
    reason = rows or _needs_rows(layout)
    if reason is None and not (previous is not None and previous.is_dense):
        disc = Discretisation(layout, sizes)
        collocation = Collocation(disc)
        start, mismatch = _start(disc, previous)
        if collocation.linearise(start).assignment is None:
            reason = "orders and numbers of conditions do not match field by field"
        else:
            try:
                if layout.problem.is_linear:
                    state, report = newton(collocation, start, linear=True)
                else:
                    iterate = continued if patient else partial(newton, linear=False)
                    state, report = iterate(collocation, start)
                return Attempt(disc, state, report, mismatch, _sentence(layout, report))
            except (ConvergenceError, InvalidDataError) as error:
                hopeless = isinstance(error, InvalidDataError) and _is_solved_exactly(layout)
                if count_columns(layout, sizes) > MOST_DENSE or hopeless or not patient:
                    raise
                reason = f"the iterative solver gave up ({error})"
    elif previous is not None and previous.is_dense:
        reason = previous.why
    shrink = min(1.0, (MOST_DENSE / count_columns(layout, sizes)) ** (1.0 / layout.dim))
    if shrink < 1.0 and any(isinstance(n, Basis) for n in sizes):
        raise InvalidDataError(
            f"{count_columns(layout, sizes)} picked functions are too many for dense rows ({reason}):"
            f" at most {MOST_DENSE}, use the broadband basis"
        )
    fitting = [n if isinstance(n, Basis) else max(4, int(shrink * n)) for n in sizes]
    disc = Discretisation(layout, fitting, oversampling=1.25)
    collocation = Collocation(disc)
    start, mismatch = _start(disc, previous)
    state, report, solved = gauss_newton(collocation, start, linear=layout.problem.is_linear)
    return Attempt(disc, state, report, mismatch, str(reason), solved)


def refuse_what_does_not_fit(layout: Layout, sizes: Sequence[int]) -> None:
    """Before anything is allocated: fields, jets and tables of a size against the memory that there is."""
    needed = 8.0 * (12.0 * count_columns(layout, sizes) + 6.0 * sum(float(n) ** 2 for n in sizes))
    try:
        present = float(os.sysconf("SC_PAGE_SIZE")) * float(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return  # a system that does not say
    if needed > 0.7 * present:
        raise InvalidDataError(
            f"{' x '.join(map(str, sizes))} functions need about {needed / 2**30:.3g} GiB, this machine has"
            f" {present / 2**30:.3g} GiB: choose a smaller grid"
        )


def _is_solved_exactly(layout: Layout) -> bool:
    """Whether the direct solver has the whole operator, so that what is singular to it is singular."""
    problem = layout.problem
    return (
        problem.is_linear
        and len(problem.fields) == len(problem.equations) == 1
        and not problem.observations
        and problem.equations[0].has_constant_coefficients
        and all(sum(o > 0 for o in t.jet.orders) <= 1 for t in problem.equations[0].terms)
    )


def _needs_rows(layout: Layout) -> str | None:
    if layout.others:
        return (
            f"a {layout.others[0][0].kind} condition has varying coefficients, tangential derivatives or several fields"
        )
    if any(bool((np.asarray(o.noise) == 0.0).any()) for o in layout.problem.observations):
        return "values inside the box are given exactly"
    return None


def _sentence(layout: Layout, report: NewtonReport) -> str:
    if not layout.problem.is_linear:
        return f"Newton's iteration ({len(report.steps)} steps), each step by GMRES preconditioned by a direct solver"
    if not any(report.krylov):
        return "direct solution: constant coefficients, axis by axis"
    return f"GMRES ({max(report.krylov)} products) preconditioned by the direct solver of mean coefficients"


def _start(disc: Discretisation, previous: Attempt | None, anew: bool = False) -> tuple[list[Array], float]:
    lifted = [disc.lift(f) for f in range(disc.layout.count)]
    start = [c for c, _ in lifted]
    if previous is not None and (anew or not disc.layout.problem.is_linear):
        # The previous solution, moved to the boundary data as they are resolved now.
        for f, old in enumerate(previous.state):
            start[f] = _with_boundary(disc, f, resample(old, disc.sizes), start[f])
    return start, max((m for _, m in lifted), default=0.0)


def _with_boundary(disc: Discretisation, which: int, guess: Array, lifted: Array) -> Array:
    total = guess
    for j, axis in enumerate(disc.axes[which]):
        if axis.conditions:
            target = along(axis.functional, lifted, j)
            total = total + along(axis.lift, target - along(axis.functional, total, j), j)
    return total
