"""The spectral solver on few functions: waves of picked frequencies, added where the residual shows more.

Frequencies are found in sources and boundary data by CLEAN. Then the problem is solved, the residual is looked at where
nothing was collocated, and what its spectrum shows is added, until nothing more is gained: homogeneous solutions that
boundary data need, frequencies that the source is too weak in to show, and the sums and differences that products in a
nonlinear equation make. The number of functions depends on that of the frequencies and not on how high they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation import residuals as judge
from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Basis
from gpkit.inference.collocation.frequencies import clean
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.picked.basis import PickedBasis, projection
from gpkit.inference.collocation.picked.plan import Plan, homogeneous
from gpkit.inference.collocation.residuals import Residuals
from gpkit.inference.collocation.resolution import Resolution, data_lines, limits, resample, tails
from gpkit.inference.collocation.rows import Columns
from gpkit.inference.collocation.spectral.attempts import Attempt, count_columns, error_floors, relative_size, solve_at
from gpkit.inference.collocation.uncertainty import CoefficientVariances, DenseCovariance, Uncertainty

__all__ = ["Picked", "pick", "solve_picked", "spread_picked"]

_MOST = 12  # frequencies of one axis
_MOST_FUNCTIONS = 100_000
_LONGEST = 131_072  # points of a line
_ROUNDS = 8
_DONE = 3e-12
_LARGE = 1e-6
_RESOLVED = 1e-12
_GAIN = 0.5  # a round that leaves more than this share of the residual has gained nothing
_DENSITY = {1: 6.0, 2: 3.0, 3: 2.0}
_FEWEST_ROWS = 120  # columns up to which dense rows are as quick as anything
_FLOOR = 1e-10
_BLIND = 16  # functions where data do not depend on a coordinate
_SMOOTH = 40  # functions up to which waves are not looked for


@dataclass
class Picked:
    """A solution on picked waves.

    Attributes:
        attempt: The solution.
        residuals: Off the nodes.
        rounds: Residual of every round.
    """

    attempt: Attempt
    residuals: Residuals
    rounds: list[float]

    @property
    def offered(self) -> tuple[int, ...]:
        """Functions along each axis before dependent ones were left out."""
        return tuple(b.offered if isinstance(b, PickedBasis) else b.size for b in self.attempt.disc.bases)


def pick(layout: Layout, grid: Sequence[int], resolution: Resolution) -> list[Plan]:
    """Functions for the frequencies that sources and boundary data have along each axis.

    Args:
        layout: The problem.
        grid: Points per axis; frequencies of less than two of them per period are left out.
        resolution: What a broadband basis needs.
    """
    plans = []
    linear = layout.problem.is_linear
    needed = resolution.needed if linear else resolution.significant
    for j, ((lower, upper), count) in enumerate(zip(layout.ends, _samples(grid), strict=True)):
        broadband = max(needed[j] + needed[j] // 20 + 6, _BLIND)
        plan = Plan(lower, upper, broadband, j in layout.problem.periodic, _DENSITY[layout.dim])
        plans.append(plan)
        if broadband < _SMOOTH:
            continue
        x = np.linspace(lower, upper, count)
        columns = data_lines(layout, j, x)
        largest = [float(np.abs(c).max(initial=0.0)) for c in columns]
        kept = [c / size for c, size in zip(columns, largest, strict=True) if size > _FLOOR * max(largest)]
        if kept:
            # What a nonlinear equation makes of its solution is in its source too: strong frequencies are enough.
            lines = np.concatenate(kept, axis=1)
            found = clean(x, lines, tolerance=1e-11 if linear else 1e-3, most=_MOST, refine=True)
            plan.unexplained = found.residual
            for frequency in found.frequencies:
                if frequency <= 0.5 * grid[j] / (upper - lower):
                    plan.add(frequency)
    return plans


def _samples(grid: Sequence[int]) -> list[int]:
    """Points of the lines on which frequencies are looked for: more than the grid's, whose own are then no aliases."""
    return [min(n, _LONGEST) for n in limits(grid, frozenset())]


def solve_picked(
    layout: Layout,
    grid: Sequence[int],
    plans: list[Plan],
    *,
    patient: bool,
) -> Picked:
    """Solve on picked waves, with more of them until the residual is that of rounding or no longer falls.

    Args:
        layout: The problem.
        grid: Points per axis; frequencies above half of them per length are not looked for.
        plans: Of :func:`pick`; more is added to them.
        patient: Whether continuation and dense rows follow where Newton's iteration fails.

    Raises:
        ConvergenceError: Even the first iteration ended without an answer.
        InvalidDataError: The solution is not unique, or needs too many functions.
    """
    best: Picked | None = None
    previous: Attempt | None = None
    rounds: list[float] = []
    if layout.dim == 1:
        plans[0].add_exponentials(homogeneous(layout, plans, 0))
    idle, tried_homogeneous = 0, layout.dim == 1
    for _ in range(_ROUNDS):
        bases = [plan.basis() for plan in plans]
        if count_columns(layout, bases) > _MOST_FUNCTIONS and best is not None:
            break
        try:
            attempt = solve_at(layout, bases, _moved(previous, bases), patient=patient, rows=_rows(layout, bases))
        except (ConvergenceError, InvalidDataError):
            if best is None:
                raise
            break
        previous = attempt
        residuals = judge.measure(layout, bases, attempt.state)
        rounds.append(residuals.total)
        gained = best is None or residuals.total < _GAIN * best.residuals.total
        if best is None or residuals.total < best.residuals.total:
            best = Picked(attempt, residuals, rounds)
        idle = 0 if gained else idle + 1
        # The phase of a wave is rounded, and with it the residual.
        phase = max(2.0 * math.pi * f * (p.upper - p.lower) for p in plans for f in (0.0, *p.frequencies()))
        if best.residuals.total < max(_DONE, 4e-16 * phase) or idle == (2 if best.residuals.total > _LARGE else 1):
            break
        if not tried_homogeneous:
            tried_homogeneous = True
            waves = [homogeneous(layout, plans, j) for j in range(layout.dim)]
            if any([plan.add_exponentials(w) for plan, w in zip(plans, waves, strict=True)]):
                continue
        _add_what_is_left(layout, grid, plans, attempt)
    assert best is not None
    return best


def _rows(layout: Layout, bases: Sequence[Basis]) -> str | None:
    if layout.dim == 1 or count_columns(layout, bases) <= _FEWEST_ROWS:
        return "the functions are few"
    return None


def _moved(previous: Attempt | None, bases: Sequence[Basis]) -> Attempt | None:
    """The solution before, in other functions."""
    if previous is None:
        return None
    state = previous.state
    for j, (old, new) in enumerate(zip(previous.disc.bases, bases, strict=True)):
        if isinstance(old, PickedBasis) or isinstance(new, PickedBasis):
            matrix = projection(new, old)
            state = [along(matrix, c, j) for c in state]
        else:
            state = [resample(c, [new.size if k == j else n for k, n in enumerate(c.shape)]) for c in state]
    return dataclasses.replace(previous, state=state)


def _add_what_is_left(layout: Layout, grid: Sequence[int], plans: Sequence[Plan], attempt: Attempt) -> None:
    """Add to each axis what it cannot make of the residual."""
    missing = []
    for j, (plan, basis, count) in enumerate(zip(plans, attempt.disc.bases, _samples(grid), strict=True)):
        x = np.linspace(plan.lower, plan.upper, max(count, 4 * basis.size))
        left = judge.lines(layout, attempt.disc.bases, attempt.state, j, x)
        table = basis.evaluate(x)
        rest = left - table @ linalg.lstsq(table, left, cond=1e-12, lapack_driver="gelsy", check_finite=False)[0]
        size = float(np.linalg.norm(left))
        missing.append((float(np.linalg.norm(rest)) / size if size > 0.0 else 0.0, x, rest))
    falls = np.max([tails(c) for c in attempt.state], axis=0)
    for plan, (share, x, rest), fall in zip(plans, missing, falls, strict=True):
        if not plan.is_picked and fall > _RESOLVED:
            plan.widen()  # coefficients of polynomials say themselves that there are more
            continue
        if share < 0.3 * max(m[0] for m in missing) or share < 1e-3:
            continue
        found = clean(x, rest, tolerance=0.1, most=3, refine=True).frequencies
        for frequency in found:
            plan.add(frequency, insist=True)
        if not found:
            plan.widen()
    if max(m[0] for m in missing) < 1e-3:  # every axis can make it: the conditions need more
        for plan in plans:
            plan.widen()


def spread_picked(layout: Layout, attempt: Attempt, residuals: Residuals) -> tuple[Uncertainty, float]:
    """Distribution of the discretisation error, and how much more functions change the solution, relatively.

    Both are from one more solution, with functions beside those that were used.
    """
    wider = [b.grown() if isinstance(b, PickedBasis) else b.resized(int(1.25 * b.size) + 8) for b in attempt.disc.bases]
    grown, floors = _grown(attempt, wider), error_floors(attempt, residuals)
    layout = layout.doubted()
    finer = solve_at(layout, wider, grown, patient=False, rows=_rows(layout, attempt.disc.bases))
    steps = [new - old for new, old in zip(finer.state, grown.state, strict=True)]
    changed = relative_size(steps, grown.state)
    if finer.dense is not None:
        size = 3.0 * max(residuals.total, *[s.doubt() for s in layout.sources], 1e-15) * finer.dense.magnitude
        columns = Columns(finer.disc.bases, finer.disc.axes)
        return DenseCovariance.of_factor(columns, finer.dense.factor, finer.dense.scales, size, floors), changed
    # Where the functions beside do not help either, their correction is only a part of the error.
    again = judge.measure(layout, finer.disc.bases, finer.state)
    share = min(again.total / max(residuals.total, 1e-300), 0.9)
    whole = [step / (1.0 - share) for step in steps]
    return CoefficientVariances.covering(finer.disc.axes, whole, floors), changed


def _grown(attempt: Attempt, wider: Sequence[Basis]) -> Attempt:
    """A solution with zeros for the functions beside."""
    state = []
    for c in attempt.state:
        out = np.zeros([b.size for b in wider])
        out[tuple(slice(0, n) for n in c.shape)] = c
        state.append(out)
    return dataclasses.replace(attempt, state=state)
