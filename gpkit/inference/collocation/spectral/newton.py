"""Damped Newton-Krylov iteration on the coefficients of fields, with continuation where damping is not enough."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.spectral.linearised import Collocation, KrylovReport
from gpkit.inference.collocation.spectral.separable import SeparableSolver

__all__ = ["NewtonReport", "continued", "newton"]

Fields = list[Array]
_STEPS = 40
_SMALLEST = 1.0 / 1024.0
_ROUNDING = 1e-9
_SINGULAR = 1e-5
_SMALLEST_STAGE = 1.0 / 128.0


@dataclass
class NewtonReport:
    """History of one solve.

    Attributes:
        steps: Relative size of each correction.
        damping: Share of it that was taken.
        krylov: Products of each linear solve.
        stages: Strengths of the nonlinear terms that continuation went through.
        converged: Whether the last relative step was at rounding.
        rounding: Relative error that rounding of the right side makes in the first linear solve.
    """

    steps: list[float] = field(default_factory=list)
    damping: list[float] = field(default_factory=list)
    krylov: list[int] = field(default_factory=list)
    stages: list[float] = field(default_factory=list)
    converged: bool = False
    rounding: float = 0.0


def _norm(fields: Fields) -> float:
    return float(np.sqrt(sum(np.vdot(f, f) for f in fields)))


def newton(
    problem: Collocation, start: Fields, *, linear: bool, tolerance: float = 1e-12, krylov_limit: int = 180
) -> tuple[Fields, NewtonReport]:
    """Solve the equations of a collocation problem from fields that satisfy the boundary conditions.

    Args:
        problem: Equations at nodes.
        start: Coefficients; corrections satisfy homogeneous conditions.
        linear: Whether one accurate linear solve is all that is needed.
        tolerance: Relative correction at which to stop.
        krylov_limit: Products per linear solve.

    Raises:
        ConvergenceError: No step reduces the residual, or it is not finite.
    """
    report, state = NewtonReport(), start
    forcing = 1e-13 if linear else 1e-4
    for _ in range(4 if linear else _STEPS):
        residual = problem.residual(state)
        operator = problem.linearise(state)
        step, krylov = operator.solve(residual, forcing, krylov_limit)
        report.krylov.append(krylov.iterations)
        report.rounding = report.rounding or krylov.rounding
        size = _norm(step)
        if not np.isfinite(size):
            raise ConvergenceError(f"Newton's iteration left the finite numbers after steps {_text(report.steps)}")
        _check_krylov(krylov, report)
        share = 1.0
        if linear:
            candidate = [c + s for c, s in zip(state, step, strict=True)]
        else:
            candidate, share = _damped(
                problem, operator.preconditioners(), operator.assignment or [], state, step, report
            )
        state = candidate
        relative = share * size / max(_norm(state), 1e-300)
        report.steps.append(relative)
        report.damping.append(share)
        if linear:
            # A second solve refines the first; more would only repeat rounding where functions are closed under
            # differentiation.
            if report.rounding > _SINGULAR:
                raise InvalidDataError(
                    "the operator is singular under these conditions, or so near to it that rounding decides (by"
                    f" {min(report.rounding, 1.0):.0e} of the solution): give a gauge or another condition"
                )
            is_direct = krylov.iterations == 0
            if relative < tolerance or (problem.is_closed and (is_direct or len(report.steps) >= 2)):
                report.converged = True
                return state, report
            continue
        # What is left after a full step is what its linear solve left, and the square of the step.
        if share == 1.0 and relative * max(forcing, relative) < tolerance:
            report.converged = True
            return state, report
        if share == 0.0:
            report.converged = True  # corrections are rounding
            return state, report
        forcing = float(np.clip(0.01 * relative, 1e-9, 1e-4))
    if linear:
        report.converged = True
        return state, report
    raise ConvergenceError(
        f"Newton's iteration did not converge in {_STEPS} steps; relative steps were {_text(report.steps)}"
    )


def continued(problem: Collocation, start: Fields) -> tuple[Fields, NewtonReport]:
    """Newton's iteration; where it fails, the nonlinear terms are turned on step by step.

    Raises:
        ConvergenceError: As :func:`newton`, with the strength of the nonlinear terms that was reached.
    """
    try:
        return newton(problem, start, linear=False)
    except ConvergenceError as error:
        first = error
    reached, step, stages, state = 0.0, 0.25, [0.0], start
    try:
        problem.strength = 0.0
        state, report = newton(problem, start, linear=False)
        while reached < 1.0:
            problem.strength = min(1.0, reached + step)
            try:
                state, report = newton(problem, state, linear=False)
            except ConvergenceError:
                step *= 0.5
                if step < _SMALLEST_STAGE:
                    raise ConvergenceError(
                        f"{first}; turning the nonlinear terms on gradually ended at {reached:.0%} of them"
                    ) from first
                continue
            reached, step = problem.strength, 1.5 * step
            stages.append(reached)
    finally:
        problem.strength = 1.0
    report.stages = stages
    return state, report


def _check_krylov(krylov: KrylovReport, report: NewtonReport) -> None:
    if not krylov.converged and krylov.residual > 1e-2:
        raise ConvergenceError(
            f"GMRES stopped at a relative residual of {krylov.residual:.1e} after {krylov.iterations} products"
            f" (Newton's steps before: {_text(report.steps)})"
        )


def _damped(
    problem: Collocation,
    solvers: list[SeparableSolver],
    assignment: list[int],
    state: Fields,
    step: Fields,
    report: NewtonReport,
) -> tuple[Fields, float]:
    """The largest share of a step that reduces the preconditioned residual."""

    def merit(fields: Fields) -> float:
        residual = problem.residual(fields)
        parts = [solvers[f].solve(residual[assignment[f]]) for f in range(len(solvers))]
        return _norm(parts)

    before = merit(state)
    share = 1.0
    while share >= _SMALLEST:
        candidate = [c + share * s for c, s in zip(state, step, strict=True)]
        after = merit(candidate)
        if np.isfinite(after) and after <= (1.0 - 0.25 * share) * before:
            return candidate, share
        share *= 0.5
    if before < _ROUNDING * _norm(state):
        return state, 0.0
    raise ConvergenceError(
        "Newton's iteration diverges: no step along its direction reduces the residual"
        f" (relative steps so far {_text(report.steps)}); the problem may have no solution,"
        " or fronts that the grid cannot hold"
    )


def _text(steps: list[float]) -> str:
    return "[" + ", ".join(f"{s:.1e}" for s in steps) + "]"
