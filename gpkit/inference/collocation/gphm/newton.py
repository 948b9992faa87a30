"""Gauss-Newton for the values of GP-HM, and precisions of largest evidence, for a given kernel.

For a fixed kernel the published objective is a sum of squares in the values: where the equations are linear one step
finds its minimum, elsewhere a few. The precisions are not those of the joint density, which has no maximum where the
equations can be satisfied; the values are integrated out of what they maximise (Laplace).

References:
    MacKay (1992), Bayesian Interpolation, Neural Computation 4: determined numbers and the gradient of the evidence.
    Chen, Hosseini, Owhadi & Stuart (2021), J. Comput. Phys. 447, 110668: Gauss-Newton for nonlinear equations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.gphm.evidence import (
    Precisions,
    log_evidence,
    most_likely_precisions,
    rows_of_zero,
    weighted,
)
from gpkit.inference.collocation.gphm.laplace import Laplace, LinearRows
from gpkit.inference.collocation.gphm.learning import LEFT_OUT, KernelSearch
from gpkit.inference.collocation.gphm.objective import GphmObjective, GphmState
from gpkit.inference.collocation.gphm.roots import Roots

__all__ = ["Optimum", "initial_precisions", "optimise", "optimise_values", "targets"]

_STEPS = 60
_SMALL_STEP = 1e-7
_ROUNDS = 6
_KERNEL_STEPS = 150
_ROUND_STEPS = 40
_SAME = 0.05
_FIRST_NOISE = 0.1
_TIGHTEST = 1e-7
_TIGHTEST_CONDITION = 1e-6
_CONSTRAINT = 1e-4
"""Standard deviations relative to the size of the rows: of equations and conditions at first, at their tightest, and of
exact equations beside noisy data."""


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where an iteration ended.

    Attributes:
        state: Whose kernels it is for.
        weights: Of the values, (W,).
        laplace: Distribution around them.
        precisions: That it is for.
        steps: Length of every Gauss-Newton step, in posterior standard deviations.
        objective: Minus the log density after every step, up to a constant.
        log_evidence: By Laplace's approximation; exact where the equations are linear.
        evidence: After every step of L-BFGS for the kernel.
    """

    state: GphmState
    weights: Tensor
    laplace: Laplace
    precisions: Precisions
    steps: tuple[float, ...]
    objective: tuple[float, ...]
    log_evidence: float
    evidence: tuple[float, ...] = ()


def initial_precisions(objective: GphmObjective, roots: Roots) -> Precisions:
    """Stated noise as it is; what has none is a constraint.

    Conditions are as tight as rounding lets them; equations are free, to be found by evidence, unless there are noisy
    data, beside which they are as tight as a kernel that is still to be learned can follow.
    """
    problem = objective.problem
    rows = objective.linear_rows(roots.jets(objective.all_jets, torch.zeros(len(roots), dtype=torch.float64)))
    data = [*[e.source for e in problem.equations], *[c.value for c in problem.conditions]]
    first, free, highest = [], [], []
    for i, (r, d) in enumerate(zip(rows, data, strict=True)):
        is_equation = i < len(problem.equations)
        size = max(_mean_square(r.residual), 1e-8 * _prior_variance(roots, r), 1e-300)
        tightest = _TIGHTEST if is_equation else _TIGHTEST_CONDITION
        if not is_equation or (objective.is_noisy and d.noise == 0.0):
            size = max(size, _prior_variance(roots, r))
        highest.append(1.0 / (tightest**2 * size))
        if d.noise > 0.0:
            first.append(1.0 / d.noise**2)
        elif is_equation and objective.is_noisy and d.noise == 0.0:
            first.append(1.0 / (_CONSTRAINT**2 * size))
        elif is_equation:
            free.append(i)
            first.append(1.0 / (_FIRST_NOISE**2 * size))
        else:
            first.append(highest[-1])
    return Precisions(tuple(first), tuple(free), tuple(highest), (1.0,) * len(problem.fields))


def _mean_square(values: Tensor) -> float:
    return float((values**2).mean())


def _prior_variance(roots: Roots, rows: LinearRows) -> float:
    """Sum of the mean variances of the terms of a row."""
    total = 0.0
    for jet, c in rows.slopes.items():
        tables = roots.fields[jet.field].tables(jet, rows.face)
        total += _mean_square(c) * math.prod(float((t**2).sum()) / len(t) for t in tables)
    return total


def optimise(objective: GphmObjective, state: GphmState, learn: bool, progress: bool) -> Optimum:
    """Values by Gauss-Newton, kernels and precisions by evidence, in turn until neither moves.

    Args:
        objective: Of the problem.
        state: To start from; its precisions are not used.
        learn: Whether kernels are learned; else only their scales.
        progress: Whether to show bars.

    Raises:
        ConvergenceError: The values do not converge.
        InvalidDataError: There are too many of them.
    """
    roots = Roots.of_covariances(objective.covariances(state.kernel()))
    given = initial_precisions(objective, roots)
    found = optimise_values(objective, state, roots, roots.weights(state.values), given, progress)
    steps, history = found.steps, found.objective
    evidence: list[float] = []
    for _ in range(_ROUNDS):
        before = found.precisions
        # A kernel that is not yet learned explains little: noise that is free would take the rest, and keep it.
        held = replace(before, free=()) if learn else before
        wanted = targets(objective, roots, found.laplace.rows, found.weights)
        space = rows_of_zero(objective, wanted, before)
        sized = most_likely_precisions(found.laplace, found.weights, held, space)
        found = replace(found, precisions=replace(sized, free=before.free))
        state = _with_scales(found.state, found.precisions.scales) if learn else found.state
        precisions = replace(found.precisions, scales=(1.0,) * len(before.scales)) if learn else found.precisions
        if learn:
            values = roots.values(found.weights)
            # Rows that are not linear are linearised again before the kernel is what fits them best.
            budget = _KERNEL_STEPS if objective.problem.is_linear else _ROUND_STEPS
            state, precisions, more = _learned(
                objective, state, found.laplace.rows, wanted, precisions, budget, progress
            )
            evidence += more
            roots = Roots.of_covariances(objective.covariances(state.kernel()))
            found = replace(found, weights=roots.weights(values))
        last = found.log_evidence
        found = optimise_values(objective, state, roots, found.weights, precisions, progress)
        steps, history = steps + found.steps, history + found.objective
        settled = abs(found.log_evidence - last) < _SAME
        if objective.problem.is_linear or settled:
            break
    return replace(found, steps=steps, objective=history, evidence=tuple(evidence))


def _learned(
    objective: GphmObjective,
    state: GphmState,
    rows: Sequence[LinearRows],
    wanted: Sequence[Tensor],
    given: Precisions,
    steps: int,
    progress: bool,
) -> tuple[GphmState, Precisions, list[float]]:
    """Kernel of largest evidence for linear rows; for noisy ones with no more components than these pay for."""
    stated = [i for i, noisy in enumerate(objective.noisy_rows) if noisy and i not in given.free]
    trace: list[float] = []
    if stated:
        # What the first kernel does not explain is noise to it: it finds its way while the noise may be larger.
        loose = [1.0 / (_FIRST_NOISE**2 * max(_mean_square(t), 1e-300)) for t in wanted]
        first = tuple(min(v, loose[i]) if i in stated else v for i, v in enumerate(given.rows))
        search = KernelSearch(
            objective, state, rows, wanted, replace(given, rows=first, free=(*given.free, *stated)), progress
        )
        search.maximise(steps)
        trace, state = search.trace, search.found()[0]
    search = KernelSearch(objective, state, rows, wanted, given, progress)
    search.maximise(steps)
    if objective.is_noisy:
        search.prune()
    return *search.found(), trace + search.trace


def targets(objective: GphmObjective, roots: Roots, rows: Sequence[LinearRows], weights: Tensor) -> list[Tensor]:
    """What the linear part of every row should be, as exactly as it is known.

    Args:
        objective: Of the problem.
        roots: Of the fields.
        rows: Linearised at the weights.
        weights: (W,).
    """
    linear = [e.is_linear for e in objective.problem.equations] + [True] * len(objective.problem.conditions)
    # Of what is linear it is the right side, without the rounding of any field: zeros are zero.
    at_zero = objective.linear_rows(roots.jets(objective.all_jets, torch.zeros_like(weights)))
    return [
        -zero.residual if own else _target(roots, r, weights)
        for r, zero, own in zip(rows, at_zero, linear, strict=True)
    ]


def _target(roots: Roots, rows: LinearRows, weights: Tensor) -> Tensor:
    total = -rows.residual
    for jet, c in rows.slopes.items():
        total = total + c * roots.jet(jet, weights, rows.face)
    return total


def _with_scales(state: GphmState, scales: Sequence[float]) -> GphmState:
    """A state whose kernels have other scales: all in the weights of the first axis."""
    logs = torch.tensor(scales, dtype=torch.float64).log()
    moved = state.log_weights.clone()
    moved[:, 0] += logs[:, None]
    return replace(state, log_weights=torch.where(state.log_weights > LEFT_OUT, moved, LEFT_OUT))


def optimise_values(
    objective: GphmObjective,
    state: GphmState,
    roots: Roots,
    weights: Tensor,
    precisions: Precisions,
    progress: bool,
) -> Optimum:
    """Values by Gauss-Newton for fixed precisions.

    Raises:
        ConvergenceError: They do not converge.
        InvalidDataError: There are too many of them.
    """
    steps: list[float] = []
    history: list[float] = []
    rows = objective.linear_rows(roots.jets(objective.all_jets, weights))
    value = weighted(weights, roots, rows, precisions)
    laplace: Laplace | None = None
    for _ in tqdm(range(_STEPS), desc="Gauss-Newton steps", disable=None if progress else True):
        if laplace is None or not objective.problem.is_linear:
            laplace = Laplace(roots, rows, precisions.rows, precisions.scales)
        laplace.rows = tuple(rows)
        gradient = laplace.gradient(weights)
        step = -laplace.solve(gradient)
        length = math.sqrt(max(-float(gradient @ step), 0.0))
        factor, moved, moved_rows, found = 1.0, weights, rows, math.inf
        while factor > 1e-4:
            moved = weights + factor * step
            moved_rows = objective.linear_rows(roots.jets(objective.all_jets, moved))
            found = weighted(moved, roots, moved_rows, precisions)
            if found <= value * (1.0 + 1e-12):
                break
            factor *= 0.5
        settled = length < _SMALL_STEP * math.sqrt(len(weights)) or (
            steps and length < 1e-3 and length > 0.3 * steps[-1]
        )
        if not found <= value * (1.0 + 1e-12):
            if settled or length < 1e-3:
                break
            raise ConvergenceError(
                f"Gauss-Newton found no smaller objective of gphm after {len(steps)} steps: the next one would be "
                f"{length:.1e} standard deviations long"
            )
        weights, rows, value = moved, moved_rows, found
        steps.append(length)
        history.append(value)
        if settled:
            break
    else:
        raise ConvergenceError(
            f"Gauss-Newton did not converge in {_STEPS} steps of gphm; the last was {steps[-1]:.1e} standard deviations"
        )
    laplace = Laplace(roots, rows, precisions.rows, precisions.scales)
    log = log_evidence(value, laplace, rows, precisions)
    return Optimum(state, weights, laplace, precisions, tuple(steps), tuple(history), log)
