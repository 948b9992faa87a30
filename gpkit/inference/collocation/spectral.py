"""Weight-space spectral solver: picks a basis and its size from the data, solves directly, and checks itself off the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.dense import LeastSquares, gauss_newton
from gpkit.inference.collocation.discretisation import Discretisation
from gpkit.inference.collocation.forms import Problem
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.linearised import Collocation
from gpkit.inference.collocation.newton import NewtonReport, newton
from gpkit.inference.collocation.noisy import is_noisy, solve_noisy
from gpkit.inference.collocation.residuals import Residuals, measure
from gpkit.inference.collocation.resolution import Resolution, limits, resample, tails
from gpkit.inference.collocation.rows import Rows
from gpkit.inference.collocation.uncertainty import CoefficientVariances, DenseCovariance, Uncertainty
from gpkit.inference.collocation.weight_posterior import WeightPosterior

__all__ = ["solve"]

_MARGIN = 6
_BLIND = 16
_RESOLVED = 1e-12
_ROUNDING = 1e-14
_DENSE = 2500  # coefficients of dense least squares


def solve(
    problem: Problem,
    grid: tuple[int, ...],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    basis: str = "auto",
    kernel: Any = None,
    tolerance: float = 1e-8,
    progress: bool = False,
) -> WeightPosterior:
    """Solve a boundary value problem in weight space."""
    layout = Layout(problem, parameters)
    if len(grid) != layout.dim or min(grid) < 2:
        raise InvalidDataError(f"the grid {tuple(grid)} must have at least two points along each of {layout.dim} axes")
    if is_noisy(layout):
        return solve_noisy(layout, grid)
    resolution = Resolution.of(layout, grid)
    most = limits(grid, problem.periodic)
    # The source of a nonlinear equation has harmonics that its solution has not.
    needed = resolution.needed if problem.is_linear else resolution.significant
    sizes = tuple(min(max(n + _MARGIN + n // 20, _BLIND), m) for n, m in zip(needed, most, strict=True))
    attempt: _Attempt | None = None
    while True:
        attempt = _solve_at(layout, sizes, attempt)
        falls = np.max([tails(c) for c in attempt.state], axis=0)
        grown = tuple(
            min(m, int(1.2 * n) + 8) if t > _RESOLVED else n
            for n, m, t in zip(attempt.disc.sizes, most, falls, strict=True)
        )
        if grown == attempt.disc.sizes or (attempt.is_dense and _columns(layout, grown) > _DENSE):
            break
        sizes = grown
    residuals = measure(layout, attempt.disc.bases, attempt.state)
    diagnostics = _diagnostics(attempt, resolution, residuals, falls)
    return WeightPosterior(attempt.disc.bases, attempt.state, diagnostics, lambda: _spread(attempt, residuals))


@dataclass
class _Attempt:
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


def _spread(attempt: _Attempt, residuals: Residuals) -> Uncertainty:
    """Distribution of the discretisation error."""
    disc, layout = attempt.disc, attempt.disc.layout
    sizes = [float(np.abs(disc.values((0,) * layout.dim, c)).max()) for c in attempt.state]
    floors = [max(residuals.boundary, _ROUNDING) * size for size in sizes]
    if attempt.dense is not None:
        rows = Rows(disc)
        size = 3.0 * max(residuals.total, 1e-15) * attempt.dense.magnitude
        return DenseCovariance.of_factor(rows, attempt.dense.factor, attempt.dense.scales, size, floors)
    fine = Discretisation(layout, [int(1.25 * n) + 8 for n in disc.sizes])
    collocation = Collocation(fine)
    start, _ = _start(fine, attempt, anew=True)
    residual = collocation.residual(start)
    step, _ = collocation.linearise(start).solve(residual, 1e-3, 120)
    return CoefficientVariances.covering(fine.axes, step, floors)


def _columns(layout: Layout, sizes: Sequence[int]) -> int:
    return layout.count * int(np.prod(sizes))


def _solve_at(layout: Layout, sizes: Sequence[int], previous: _Attempt | None) -> _Attempt:
    """Directly or by Krylov where the problem has that form, by dense least squares where it has not."""
    reason = _needs_rows(layout)
    if reason is None and not (previous is not None and previous.is_dense):
        disc = Discretisation(layout, sizes)
        collocation = Collocation(disc)
        start, mismatch = _start(disc, previous)
        if collocation.linearise(start).assignment is None:
            reason = "orders and numbers of conditions do not match field by field"
        else:
            try:
                state, report = newton(collocation, start, linear=layout.problem.is_linear)
                return _Attempt(disc, state, report, mismatch, _sentence(layout, report))
            except (ConvergenceError, InvalidDataError) as error:
                if _columns(layout, sizes) > _DENSE:
                    raise
                reason = f"the iterative solver gave up ({error})"
    elif previous is not None and previous.is_dense:
        reason = previous.why
    shrink = min(1.0, (_DENSE / _columns(layout, sizes)) ** (1.0 / layout.dim))
    disc = Discretisation(layout, [max(4, int(shrink * n)) for n in sizes], oversampling=1.25)
    collocation = Collocation(disc)
    start, mismatch = _start(disc, previous)
    state, report, solved = gauss_newton(collocation, start, linear=layout.problem.is_linear)
    return _Attempt(disc, state, report, mismatch, str(reason), solved)


def _needs_rows(layout: Layout) -> str | None:
    if layout.others:
        return (
            f"a {layout.others[0][0].kind} condition has varying coefficients, tangential derivatives or several fields"
        )
    return None


def _sentence(layout: Layout, report: NewtonReport) -> str:
    if not layout.problem.is_linear:
        return f"Newton's iteration ({len(report.steps)} steps), each step by GMRES preconditioned by a direct solver"
    if not any(report.krylov):
        return "direct solution: constant coefficients, axis by axis"
    return f"GMRES ({max(report.krylov)} products) preconditioned by the direct solver of mean coefficients"


def _start(disc: Discretisation, previous: _Attempt | None, anew: bool = False) -> tuple[list[Array], float]:
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


def _diagnostics(attempt: _Attempt, resolution: Resolution, residuals: Residuals, falls: Array) -> dict[str, Any]:
    kinds = " x ".join(b.name for b in attempt.disc.bases)
    sizes = " x ".join(str(n) for n in attempt.disc.sizes)
    how = f"dense least squares, because {attempt.why}" if attempt.is_dense else attempt.why
    report = attempt.report
    found: dict[str, Any] = {
        "method": f"spectral: {kinds} basis of {sizes} functions; {how}",
        "sizes": attempt.disc.sizes,
        "points_per_period": resolution.points_per_period,
        "residual": residuals.total,
        "equation_residuals": residuals.equations,
        "worst_residual": residuals.worst,
        "boundary_residual": residuals.boundary,
        "coefficient_tails": tuple(float(t) for t in falls),
        "corner_mismatch": attempt.mismatch,
        "newton_steps": report.steps,
        "newton_damping": report.damping,
        "krylov_iterations": report.krylov,
    }
    if attempt.dense is not None:
        found["condition"] = attempt.dense.condition
    return found
