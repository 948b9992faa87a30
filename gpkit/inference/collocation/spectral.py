"""Weight-space spectral solver: picks a basis and its size from the data, solves directly, and checks itself off the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.discretisation import Discretisation
from gpkit.inference.collocation.forms import Problem
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.linearised import Collocation
from gpkit.inference.collocation.newton import NewtonReport, newton
from gpkit.inference.collocation.residuals import Residuals, measure
from gpkit.inference.collocation.resolution import Resolution, limits, resample, tails
from gpkit.inference.collocation.weight_posterior import WeightPosterior

__all__ = ["solve"]

_MARGIN = 6
_BLIND = 16
_RESOLVED = 1e-12


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
    resolution = Resolution.of(layout, grid)
    most = limits(grid, problem.periodic)
    # The source of a nonlinear equation has harmonics that its solution has not.
    needed = resolution.needed if problem.is_linear else resolution.significant
    sizes = tuple(min(max(n + _MARGIN + n // 20, _BLIND), m) for n, m in zip(needed, most, strict=True))
    state: list[Array] | None = None
    while True:
        disc = Discretisation(layout, sizes)
        state, report, mismatch = _attempt(disc, state)
        falls = np.max([tails(c) for c in state], axis=0)
        grown = tuple(
            min(m, int(1.2 * n) + 8) if t > _RESOLVED else n for n, m, t in zip(disc.sizes, most, falls, strict=True)
        )
        if grown == disc.sizes:
            break
        sizes = grown
    residuals = measure(layout, disc.bases, state)
    diagnostics = _diagnostics(disc, resolution, residuals, report, falls, mismatch)
    return WeightPosterior(disc.bases, state, diagnostics)


def _attempt(disc: Discretisation, previous: Sequence[Array] | None) -> tuple[list[Array], NewtonReport, float]:
    lifted = [disc.lift(f) for f in range(disc.layout.count)]
    start = [c for c, _ in lifted]
    if previous is not None and not disc.layout.problem.is_linear:
        # The previous solution, moved to the boundary data as they are resolved now.
        for f, old in enumerate(previous):
            guess = resample(old, disc.sizes)
            start[f] = _with_boundary(disc, f, guess, start[f])
    collocation = Collocation(disc)
    state, report = newton(collocation, start, linear=disc.layout.problem.is_linear)
    return state, report, max((m for _, m in lifted), default=0.0)


def _with_boundary(disc: Discretisation, which: int, guess: Array, lifted: Array) -> Array:
    from gpkit.inference.collocation.axes import along

    total = guess
    for j, axis in enumerate(disc.axes[which]):
        if axis.conditions:
            target = along(axis.functional, lifted, j)
            total = total + along(axis.lift, target - along(axis.functional, total, j), j)
    return total


def _diagnostics(
    disc: Discretisation,
    resolution: Resolution,
    residuals: Residuals,
    report: NewtonReport,
    falls: Array,
    mismatch: float,
) -> dict[str, Any]:
    return {
        "sizes": disc.sizes,
        "points_per_period": resolution.points_per_period,
        "residual": residuals.total,
        "equation_residuals": residuals.equations,
        "worst_residual": residuals.worst,
        "boundary_residual": residuals.boundary,
        "coefficient_tails": tuple(float(t) for t in falls),
        "corner_mismatch": mismatch,
        "newton_steps": report.steps,
        "newton_damping": report.damping,
        "krylov_iterations": report.krylov,
    }
