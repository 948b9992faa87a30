"""Weight-space spectral solver: the cheapest basis first, sizes from the data, and a check off the grid.

The fields are Gaussian processes with independent weights, on Legendre polynomials (trigonometric functions along
periodic axes) or on waves of a few picked frequencies. Exact equations determine the weights; what is left uncertain is
the error of the discretisation. Noisy sources or observations make a regression, in
`gpkit.inference.collocation.noisy.engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import evaluate_points
from gpkit.inference.collocation.forms import Problem
from gpkit.inference.collocation.frequencies import clean
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.noisy.engine import is_noisy, solve_noisy
from gpkit.inference.collocation.picked.engine import pick
from gpkit.inference.collocation.resolution import Resolution
from gpkit.inference.collocation.spectral.attempts import Attempt
from gpkit.inference.collocation.spectral.candidates import BASES, Choice, choose
from gpkit.inference.collocation.spectral.marching import MarchedPosterior, evolution_axis, march
from gpkit.inference.collocation.spectral.weight_posterior import WeightPosterior
from gpkit.inference.collocation.uncertainty import Uncertainty

__all__ = ["shows_waves", "solve"]

_FEWEST = 2.5  # points per period
_MANY_PRODUCTS = 20  # of Krylov's iterations: a finer basis then costs less than a fifth of the solution


def solve(
    problem: Problem,
    grid: tuple[int, ...],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    kernel: Any = None,
    basis: str = "auto",
    tolerance: float = 1e-6,
    hidden: bool = False,
    progress: bool = False,
) -> WeightPosterior | MarchedPosterior:
    """Solve a boundary value problem in weight space.

    Args:
        problem: In normal form.
        grid: Points per axis of a uniform grid whose resolution is the most that is used: a polynomial basis has up to
            pi/2 times as many functions, and as few as the data and the solution need.
        parameters: Values of unknown parameters.
        kernel: None or "auto": the prior of this engine is found, not chosen.
        basis: "broadband" (polynomials, which hold every smooth function), "picked" (waves of frequencies that sources,
            boundary data and residuals show, few however high they are), or "auto": the one that needs fewer
            operations, then the other if the residual of the first is not small; ``diagnostics["basis"]`` says why.
        tolerance: Largest relative residual off the grid of a solution that is trusted.
        hidden: With noise, whether intervals count on slow parts of the fields that the noise could hide. The data of a
            few waves are the same with and without them; ``diagnostics["components"]["hidden"]`` says how large.
        progress: Accepted for the sake of other engines; solutions take less than a second.

    Returns:
        Posterior of the fields. ``diagnostics["trusted"]`` says whether it satisfies the problem off the grid, and
        ``diagnostics["reasons"]`` what speaks against it. ``diagnostics["refinement_error"]``, how much a finer basis
        changes the solution relative to it, is there at once where it costs little beside the solution (where the
        iterations were many), and else once a standard deviation, or a report, has been asked for.

    Raises:
        InvalidDataError: The problem is not well posed, needs more memory than there is, or has noise where picked
            waves are asked for.
        ConvergenceError: An iteration ended without an answer.
    """
    del progress
    if kernel not in (None, "auto"):
        raise InvalidDataError('the spectral engine finds its prior itself: choose kernels with method="exact"')
    if basis not in BASES:
        raise InvalidDataError(f"there is no basis {basis!r}: choose from {', '.join(BASES)}")
    layout = Layout(problem, parameters)
    if len(grid) != layout.dim or min(grid) < 2:
        raise InvalidDataError(f"the grid {tuple(grid)} must have at least two points along each of {layout.dim} axes")
    if is_noisy(layout):
        if basis != "auto":
            raise InvalidDataError(
                f'basis="{basis}" is for exact equations: these have noise, or a field without an equation, and are a'
                " regression on its own basis; leave basis out"
            )
        return solve_noisy(layout, grid, hidden=hidden)
    axis = None if problem.is_linear else evolution_axis(problem)
    if axis is not None and basis != "picked":
        try:
            return _solve_whole(layout, grid, basis, tolerance, patient=False)
        except ConvergenceError:
            marched = march(problem, grid, axis, partial(_slab, parameters, tolerance), tolerance)
            marched.diagnostics["basis"]["why"] = "the whole box did not converge, and slabs of time are short"
            return marched
    try:
        return _solve_whole(layout, grid, basis, tolerance, patient=True)
    except InvalidDataError:
        if problem.observations:
            return solve_noisy(layout, grid, hidden=hidden)  # observations have to say what the conditions do not
        raise


def shows_waves(problem: Problem, grid: tuple[int, ...], parameters: Mapping[str, Tensor] | None = None) -> bool:
    """Whether sources and boundary data are few waves along some axis, so that ``basis="picked"`` is worth trying."""
    layout = Layout(problem, parameters)
    return not is_noisy(layout) and any(p.is_picked for p in pick(layout, grid, Resolution.of(layout, grid)))


def _slab(
    parameters: Mapping[str, Tensor] | None, tolerance: float, problem: Problem, grid: tuple[int, ...]
) -> WeightPosterior:
    return _solve_whole(Layout(problem, parameters), grid, "broadband", tolerance, patient=False)


def _solve_whole(
    layout: Layout, grid: tuple[int, ...], basis: str, tolerance: float, *, patient: bool
) -> WeightPosterior:
    resolution = Resolution.of(layout, grid)
    choice = choose(layout, grid, resolution, basis, tolerance, patient=patient)
    kept = choice.kept
    diagnostics = _diagnostics(choice, grid, resolution, tolerance)

    def uncertainty() -> Uncertainty:
        made, changed = kept.spread(layout)
        if changed is not None:
            diagnostics["refinement_error"] = changed
        return made

    make: Callable[[], Uncertainty] = uncertainty
    if sum(kept.attempt.report.krylov) >= _MANY_PRODUCTS:
        # One more linearised solution is little beside so many: what it says of the discretisation is there at once.
        make = partial(_same, uncertainty())
    return WeightPosterior(kept.attempt.disc.bases, kept.attempt.state, diagnostics, make)


def _same(made: Uncertainty) -> Uncertainty:
    return made


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


def _diagnostics(choice: Choice, grid: tuple[int, ...], resolution: Resolution, tolerance: float) -> dict[str, Any]:
    kept = choice.kept
    attempt, residuals = kept.attempt, kept.residuals
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
    for name, fall in zip(names, kept.falls, strict=False):
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
        "frequencies": tuple(p.frequencies() for p in kept.plans) if kept.plans else _frequencies(layout, grid),
        "basis": choice.diagnostics(),
        "residual": residuals.total,
        "equation_residuals": residuals.equations,
        "worst_residual": residuals.worst,
        "boundary_residual": residuals.boundary,
        "coefficient_tails": kept.falls,
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
