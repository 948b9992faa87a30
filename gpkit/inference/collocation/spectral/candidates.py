"""Which basis a solution is written in: the cheaper one first, the other where its residual is not good enough.

A broadband basis holds every smooth function once it is large enough; its cost grows with the highest frequency. Picked
waves cost as much as there are frequencies, however high, and hold nothing else. Neither is preferred: counts say what
each would cost, and the residual off the grid what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpkit.errors import ConvergenceError, GpkitError, InvalidDataError
from gpkit.inference.collocation import residuals as judge
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.picked.engine import pick, solve_picked, spread_picked
from gpkit.inference.collocation.picked.plan import Plan
from gpkit.inference.collocation.residuals import Residuals
from gpkit.inference.collocation.resolution import Resolution, limits, tails
from gpkit.inference.collocation.spectral.attempts import (
    MOST_DENSE,
    Attempt,
    count_columns,
    refuse_what_does_not_fit,
    solve_at,
    spread,
)
from gpkit.inference.collocation.uncertainty import Uncertainty

__all__ = ["BASES", "Candidate", "Choice", "broadband", "choose"]

BASES = ("auto", "picked", "broadband")
_MARGIN = 6
_BLIND = 16
_RESOLVED = 1e-12
_SURE = 1e-10  # residual of picked waves at which the broadband basis has nothing to add
_CHEAP = 4e7  # operations of a broadband solution that cost less than looking for frequencies
_WORTH = 0.5  # share of the broadband operations below which waves are the first to be tried
_EXPLAINED = 0.1  # share of the data that waves may leave if they are to be tried first
_ITERATIONS = 20  # linear solves of a nonlinear problem, Krylov's products included


@dataclass
class Candidate:
    """A solution in one basis.

    Attributes:
        basis: "picked" or "broadband".
        attempt: The solution.
        residuals: Off the nodes.
        offered: Functions per axis before dependent ones were left out.
        rounds: Residual of each round of the search for waves.
        falls: Size of the last coefficients along each axis of a broadband basis.
        plans: Waves of each axis, of picked ones.
    """

    basis: str
    attempt: Attempt
    residuals: Residuals
    offered: tuple[int, ...]
    rounds: list[float] = field(default_factory=list)
    falls: tuple[float, ...] = ()
    plans: list[Plan] = field(default_factory=list)

    def spread(self, layout: Layout) -> tuple[Uncertainty, float | None]:
        """Distribution of the discretisation error, and how much a finer basis changes the solution."""
        if self.basis == "picked":
            return spread_picked(layout, self.attempt, self.residuals)
        return spread(self.attempt, self.residuals)

    def facts(self) -> dict[str, Any]:
        """For diagnostics."""
        found: dict[str, Any] = {
            "basis": self.basis,
            "residual": self.residuals.total,
            "kept": self.attempt.disc.sizes,
            "offered": self.offered,
        }
        if self.rounds:
            found["rounds"] = self.rounds
        return found


@dataclass
class Choice:
    """The solution that was kept, and what came of the others.

    Attributes:
        kept: With the lowest residual.
        tried: Facts about each one, or the sentence with which it failed.
        why: A sentence.
    """

    kept: Candidate
    tried: list[dict[str, Any]]
    why: str

    def diagnostics(self) -> dict[str, Any]:
        """As plain data."""
        own = self.kept.facts()
        counts = {k: own[k] for k in ("kept", "offered")}
        return {"chosen": self.kept.basis, "why": self.why, **counts, "tried": self.tried}


def choose(
    layout: Layout, grid: tuple[int, ...], resolution: Resolution, basis: str, tolerance: float, *, patient: bool
) -> Choice:
    """Solve in one basis, or in two.

    Args:
        layout: The problem.
        grid: Points per axis.
        resolution: What the data need.
        basis: One of ``BASES``.
        tolerance: Residual of a broadband solution that is good enough.
        patient: Whether continuation and dense rows follow where Newton's iteration fails.

    Raises:
        ConvergenceError: No basis led to an answer.
        InvalidDataError: The problem has no unique solution, or none of the bases fits.
    """
    if basis == "broadband":
        kept = broadband(layout, grid, resolution, patient)
        return Choice(kept, [kept.facts()], "the broadband basis was asked for")
    if basis == "picked":
        kept = picked(layout, grid, pick(layout, grid, resolution), patient)
        return Choice(kept, [kept.facts()], "picked waves were asked for")
    sizes = _first_sizes(layout, grid, resolution)
    expected = _operations(layout, sizes)
    plans = pick(layout, grid, resolution) if expected > _CHEAP else None
    order, why = ["broadband", "picked"], f"the broadband basis needs few operations, about {expected:.0e}"
    if plans is not None:
        waves = _operations(layout, [plan.count for plan in plans])
        why = f"waves need about {waves:.0e} operations, broadband functions {expected:.0e}"
        unexplained = max(plan.unexplained for plan in plans)
        if unexplained > _EXPLAINED:
            why += f", and frequencies leave {unexplained:.0%} of the data"
        elif waves < _WORTH * expected:
            order.reverse()
    tried: list[dict[str, Any]] = []
    found: list[Candidate] = []
    errors: list[GpkitError] = []
    for name in order:
        fits = name == "picked"
        try:
            if name == "broadband":
                refuse_what_does_not_fit(layout, sizes)
                fits = True
                found.append(broadband(layout, grid, resolution, patient and not found))
            else:
                plans = pick(layout, grid, resolution) if plans is None else plans
                if not any(plan.is_picked for plan in plans):
                    continue  # the data show no frequencies
                found.append(picked(layout, grid, plans, patient=False))
        except (ConvergenceError, InvalidDataError) as error:
            if name == "broadband" and fits and isinstance(error, InvalidDataError):
                raise  # the problem is at fault, and not the basis
            errors.append(error)
            tried.append({"basis": name, "failed": str(error)})
            continue
        tried.append(found[-1].facts())
        limit = tolerance if name == "broadband" else _SURE
        if found[-1].residuals.total <= limit:
            break
    if not found:
        raise errors[0]
    kept = min(found, key=lambda c: c.residuals.total)
    if len(found) > 1:
        why += f"; of two solutions the {kept.basis} one leaves the lower residual"
    elif errors:
        why += "; the other basis failed"
    return Choice(kept, tried, why)


def _first_sizes(layout: Layout, grid: tuple[int, ...], resolution: Resolution) -> tuple[int, ...]:
    """Broadband functions that the data need, and a few for the solution."""
    # The source of a nonlinear equation has harmonics that its solution has not.
    needed = resolution.needed if layout.problem.is_linear else resolution.significant
    most = limits(grid, layout.problem.periodic)
    return tuple(min(max(n + _MARGIN + n // 20, _BLIND), m) for n, m in zip(needed, most, strict=True))


def _operations(layout: Layout, sizes: Sequence[int]) -> float:
    """Of a direct solution, or of the iterations of one that is not: transforms along axes, and their modes."""
    total, largest = float(math.prod(sizes)), max(sizes)
    once = 6.0 * total * sum(sizes) + 4.0 * sum(float(n) ** 3 for n in sizes) if len(sizes) > 1 else 20.0 * largest**2
    constant = layout.problem.is_linear and not any(part.variable for part in layout.linear)
    return layout.count * once * (1 if constant else _ITERATIONS)


def broadband(layout: Layout, grid: tuple[int, ...], resolution: Resolution, patient: bool) -> Candidate:
    """Solve at the sizes that the data need, and with more functions until the solution has them too."""
    most = limits(grid, layout.problem.periodic)
    sizes = _first_sizes(layout, grid, resolution)
    attempt: Attempt | None = None
    while True:
        attempt = solve_at(layout, sizes, attempt, patient=patient)
        falls = np.max([tails(c) for c in attempt.state], axis=0)
        grown = tuple(
            min(m, int((1.2 if t < 1e-4 else 1.6) * n) + 8) if t > _RESOLVED else n
            for n, m, t in zip(attempt.disc.sizes, most, falls, strict=True)
        )
        if grown == attempt.disc.sizes or (attempt.is_dense and count_columns(layout, grown) > MOST_DENSE):
            break
        sizes = grown
    residuals = judge.measure(layout, attempt.disc.bases, attempt.state)
    return Candidate("broadband", attempt, residuals, attempt.disc.sizes, falls=tuple(float(t) for t in falls))


def picked(layout: Layout, grid: tuple[int, ...], plans: list[Plan], patient: bool) -> Candidate:
    """Solve on waves."""
    found = solve_picked(layout, grid, plans, patient=patient)
    return Candidate("picked", found.attempt, found.residuals, found.offered, found.rounds, plans=plans)
