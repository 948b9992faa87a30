"""Weight-space spectral solver: sizes from the data, the most direct solver that fits, and a check off the grid.

The fields are Gaussian processes with independent weights on Legendre polynomials (trigonometric functions along
periodic axes). Exact equations determine the weights; what is left uncertain is the error of the discretisation. Noisy
sources or observations make a regression, in `gpkit.inference.collocation.noisy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.attempts import MOST_DENSE, Attempt, count_columns, solve_at, spread
from gpkit.inference.collocation.bases import Array, evaluate_points
from gpkit.inference.collocation.forms import Problem
from gpkit.inference.collocation.frequencies import clean
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.marching import MarchedPosterior, evolution_axis, march
from gpkit.inference.collocation.noisy import is_noisy, solve_noisy
from gpkit.inference.collocation.residuals import Residuals, measure
from gpkit.inference.collocation.resolution import Resolution, limits, tails
from gpkit.inference.collocation.weight_posterior import WeightPosterior

__all__ = ["solve"]

_MARGIN = 6
_BLIND = 16
_RESOLVED = 1e-12
_FEWEST = 2.5  # points per period


def solve(
    problem: Problem,
    grid: tuple[int, ...],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    kernel: Any = None,
    tolerance: float = 1e-6,
    progress: bool = False,
) -> WeightPosterior | MarchedPosterior:
    """Solve a boundary value problem in weight space.

    Args:
        problem: In normal form.
        grid: Points per axis of a uniform grid whose resolution is the most that is used: a polynomial basis has up to
            pi/2 times as many functions, and as few as the data and the solution need.
        parameters: Values of unknown parameters.
        kernel: None or "auto": the prior of this engine is found, not chosen.
        tolerance: Largest relative residual off the grid of a solution that is trusted.
        progress: Accepted for the sake of other engines; solutions take less than a second.

    Returns:
        Posterior of the fields. ``diagnostics["trusted"]`` says whether it satisfies the problem off the grid, and
        ``diagnostics["reasons"]`` what speaks against it.

    Raises:
        InvalidDataError: The problem is not well posed, or needs more memory than there is.
        ConvergenceError: An iteration ended without an answer.
    """
    del progress
    if kernel not in (None, "auto"):
        raise InvalidDataError('the spectral engine finds its prior itself: choose kernels with method="exact"')
    layout = Layout(problem, parameters)
    if len(grid) != layout.dim or min(grid) < 2:
        raise InvalidDataError(f"the grid {tuple(grid)} must have at least two points along each of {layout.dim} axes")
    if is_noisy(layout):
        return solve_noisy(layout, grid)
    axis = None if problem.is_linear else evolution_axis(problem)
    if axis is not None:
        try:
            return _solve_whole(layout, grid, tolerance, patient=False)
        except ConvergenceError:
            return march(problem, grid, axis, partial(_slab, parameters, tolerance), tolerance)
    try:
        return _solve_whole(layout, grid, tolerance, patient=True)
    except InvalidDataError:
        if problem.observations:
            return solve_noisy(layout, grid)  # observations have to say what the conditions do not
        raise


def _slab(
    parameters: Mapping[str, Tensor] | None, tolerance: float, problem: Problem, grid: tuple[int, ...]
) -> WeightPosterior:
    return _solve_whole(Layout(problem, parameters), grid, tolerance, patient=False)


def _solve_whole(layout: Layout, grid: tuple[int, ...], tolerance: float, *, patient: bool) -> WeightPosterior:
    attempt, resolution, falls = _grow(layout, grid, patient)
    residuals = measure(layout, attempt.disc.bases, attempt.state)
    diagnostics = _diagnostics(attempt, grid, resolution, residuals, falls, tolerance)
    return WeightPosterior(attempt.disc.bases, attempt.state, diagnostics, lambda: spread(attempt, residuals))


def _grow(layout: Layout, grid: tuple[int, ...], patient: bool) -> tuple[Attempt, Resolution, Array]:
    """Solve at the sizes that the data need, and with more functions until the solution has them too."""
    problem = layout.problem
    resolution = Resolution.of(layout, grid)
    most = limits(grid, problem.periodic)
    # The source of a nonlinear equation has harmonics that its solution has not.
    needed = resolution.needed if problem.is_linear else resolution.significant
    sizes = tuple(min(max(n + _MARGIN + n // 20, _BLIND), m) for n, m in zip(needed, most, strict=True))
    attempt: Attempt | None = None
    while True:
        attempt = solve_at(layout, sizes, attempt, patient=patient)
        falls = np.max([tails(c) for c in attempt.state], axis=0)
        grown = tuple(
            min(m, int((1.2 if t < 1e-4 else 1.6) * n) + 8) if t > _RESOLVED else n
            for n, m, t in zip(attempt.disc.sizes, most, falls, strict=True)
        )
        if grown == attempt.disc.sizes or (attempt.is_dense and count_columns(layout, grown) > MOST_DENSE):
            return attempt, resolution, falls
        sizes = grown


def _frequencies(layout: Layout, grid: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """Frequencies of the sources along each axis, in cycles per unit, for reports."""
    found = []
    for j, (lower, upper) in enumerate(layout.ends):
        x = np.linspace(lower, upper, min(max(grid[j], 16), 1000))
        picks: list[float] = []
        for source in layout.sources:
            if source.is_constant:
                continue
            axes = [np.linspace(a, b, 5)[1:-1] for a, b in layout.ends]
            axes[j] = x
            values = np.moveaxis(source.on_grid(axes), j, 0).reshape(len(x), -1)
            picks += clean(x, values, tolerance=1e-3, most=6).frequencies
        found.append(tuple(sorted(picks)))
    return tuple(found)


def _diagnostics(
    attempt: Attempt,
    grid: tuple[int, ...],
    resolution: Resolution,
    residuals: Residuals,
    falls: Array,
    tolerance: float,
) -> dict[str, Any]:
    layout, report = attempt.disc.layout, attempt.report
    kinds = " x ".join(b.name for b in attempt.disc.bases)
    sizes = " x ".join(str(n) for n in attempt.disc.sizes)
    how = f"dense least squares, because {attempt.why}" if attempt.is_dense else attempt.why
    reasons = []
    if residuals.total > tolerance:
        reasons.append(f"the relative residual off the grid is {residuals.total:.1e}")
    names = layout.problem.box.names
    for name, points in zip(names, resolution.points_per_period, strict=True):
        if points < _FEWEST:
            reasons.append(f"the grid has {points:.2g} points per period along {name}")
    for name, fall in zip(names, falls, strict=True):
        if fall > 1e-4:
            reasons.append(f"the coefficients along {name} have only fallen to {fall:.1e}")
    if report.rounding > tolerance:
        reasons.append(f"the operator is nearly singular: rounding alone changes the solution by {report.rounding:.1e}")
    if attempt.mismatch > tolerance:
        reasons.append(f"boundary data disagree at corners by {attempt.mismatch:.1e} of their size")
    found: dict[str, Any] = {
        "method": f"spectral: {kinds} basis of {sizes} functions; {how}",
        "trusted": max(residuals.total, report.rounding) <= tolerance,
        "reasons": reasons,
        "sizes": attempt.disc.sizes,
        "points_per_period": resolution.points_per_period,
        "frequencies": _frequencies(layout, grid),
        "residual": residuals.total,
        "equation_residuals": residuals.equations,
        "worst_residual": residuals.worst,
        "boundary_residual": residuals.boundary,
        "coefficient_tails": tuple(float(t) for t in falls),
        "corner_mismatch": attempt.mismatch,
        "rounding": report.rounding,
        "newton_steps": report.steps,
        "newton_damping": report.damping,
        "krylov_iterations": report.krylov,
    }
    if report.stages:
        found["continuation"] = report.stages
    if attempt.dense is not None:
        found["condition"] = attempt.dense.condition
    if layout.problem.observations:
        found["observation_misfits"] = _misfits(attempt)
    return found


def _misfits(attempt: Attempt) -> list[float]:
    """Root mean square of each set of observations' misfits, in units of their noise."""
    layout, found = attempt.disc.layout, []
    for observation in layout.problem.observations:
        noise = np.broadcast_to(np.asarray(observation.noise, dtype=np.float64), (len(observation.points),))
        noisy = noise > 0.0
        if not noisy.any():
            continue
        at = np.asarray(observation.points, dtype=np.float64)
        coordinates = [observation.points[:, j] for j in range(at.shape[1])]
        values = np.zeros(len(at))
        for part in observation.terms:
            factor = part.coefficient(coordinates, layout.parameters).detach().numpy()
            values += factor * evaluate_points(attempt.disc.bases, part.jet.orders, attempt.state[part.jet.field], at)
        standard = (np.asarray(observation.values) - values)[noisy] / noise[noisy]
        found.append(float(np.sqrt(np.mean(standard**2))))
    return found
