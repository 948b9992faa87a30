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

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor
from tqdm import tqdm

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.gphm.laplace import Laplace, LinearRows, add_gram
from gpkit.inference.collocation.gphm.objective import GphmObjective
from gpkit.inference.collocation.gphm.roots import Roots

__all__ = ["Optimum", "Precisions", "initial_precisions", "optimise", "optimise_values"]

_STEPS = 60
_SMALL_STEP = 1e-7
_ROUNDS = 6
_SAME = 0.05
_TIGHTEST = 1e-7
_TIGHTEST_CONDITION = 1e-6


@dataclass(frozen=True)
class Precisions:
    """What the squares of equations and conditions are weighted with.

    Attributes:
        rows: Of every equation and then of every condition.
        free: Numbers of those that are learned.
        highest: Of every row's.
        scales: Of each field's kernel.
    """

    rows: tuple[float, ...]
    free: tuple[int, ...]
    highest: tuple[float, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where an iteration ended.

    Attributes:
        weights: Of the values, (W,).
        laplace: Distribution around them.
        precisions: That it is for.
        steps: Length of every Gauss-Newton step, in posterior standard deviations.
        objective: Minus the log density after every step, up to a constant.
        log_evidence: By Laplace's approximation; exact where the equations are linear.
    """

    weights: Tensor
    laplace: Laplace
    precisions: Precisions
    steps: tuple[float, ...]
    objective: tuple[float, ...]
    log_evidence: float


def initial_precisions(objective: GphmObjective, roots: Roots) -> Precisions:
    """Stated noise as it is; conditions without noise as tight as rounding lets them; equations without it free."""
    problem = objective.problem
    rows = objective.linear_rows(roots.jets(objective.all_jets, torch.zeros(len(roots), dtype=torch.float64)))
    data = [*[e.source for e in problem.equations], *[c.value for c in problem.conditions]]
    first, free, highest = [], [], []
    for i, (r, d) in enumerate(zip(rows, data, strict=True)):
        is_equation = i < len(problem.equations)
        size = max(_mean_square(r.residual), 1e-8 * _prior_variance(roots, r), 1e-300)
        tightest = _TIGHTEST if is_equation else _TIGHTEST_CONDITION
        if not is_equation:
            size = max(size, _prior_variance(roots, r))
        highest.append(1.0 / (tightest**2 * size))
        if d.noise > 0.0:
            first.append(1.0 / d.noise**2)
        elif is_equation:
            free.append(i)
            first.append(1.0 / (1e-3**2 * size))
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


def optimise(objective: GphmObjective, roots: Roots, weights: Tensor, given: Precisions, progress: bool) -> Optimum:
    """Values by Gauss-Newton and precisions by evidence, in turn until neither moves.

    Args:
        objective: Of the problem.
        roots: For the kernel.
        weights: To start from.
        given: Precisions to start from.
        progress: Whether to show a bar.

    Raises:
        ConvergenceError: The values do not converge.
        InvalidDataError: There are too many of them.
    """
    found = optimise_values(objective, roots, weights, given, progress)
    for _ in range(_ROUNDS):
        learned = _most_likely(found, [len(r.residual.reshape(-1)) for r in found.laplace.rows])
        moved = _distance(learned, found.precisions)
        again = optimise_values(objective, roots, found.weights, learned, progress)
        found = replace(again, steps=found.steps + again.steps, objective=found.objective + again.objective)
        if moved < _SAME or objective.problem.is_linear:
            break
    return found


def _distance(a: Precisions, b: Precisions) -> float:
    pairs = [*zip(a.rows, b.rows, strict=True), *zip(a.scales, b.scales, strict=True)]
    return max(abs(math.log(x / y)) for x, y in pairs)


def optimise_values(
    objective: GphmObjective, roots: Roots, weights: Tensor, precisions: Precisions, progress: bool
) -> Optimum:
    """Values by Gauss-Newton for fixed precisions.

    Raises:
        ConvergenceError: They do not converge.
        InvalidDataError: There are too many of them.
    """
    steps: list[float] = []
    history: list[float] = []
    rows = objective.linear_rows(roots.jets(objective.all_jets, weights))
    value = _value(weights, roots, rows, precisions)
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
            found = _value(moved, roots, moved_rows, precisions)
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
    evidence = _log_evidence(value, laplace, rows, precisions)
    return Optimum(weights, laplace, precisions, tuple(steps), tuple(history), evidence)


def _value(weights: Tensor, roots: Roots, rows: Sequence[LinearRows], precisions: Precisions) -> float:
    total = 0.0
    for f, scale in enumerate(precisions.scales):
        total += 0.5 * float((weights[roots.span(f)] ** 2).sum()) / scale
    for r, v in zip(rows, precisions.rows, strict=True):
        total += 0.5 * v * float((r.residual**2).sum())
    return total


def _log_evidence(value: float, laplace: Laplace, rows: Sequence[LinearRows], precisions: Precisions) -> float:
    total = -value - 0.5 * laplace.log_determinant
    for field, scale in zip(laplace.roots.fields, precisions.scales, strict=True):
        total -= 0.5 * math.prod(field.shape) * math.log(scale)
    for r, v in zip(rows, precisions.rows, strict=True):
        total += 0.5 * r.residual.numel() * math.log(v / (2.0 * math.pi))
    return total


def _most_likely(at: Optimum, counts: Sequence[int]) -> Precisions:
    """Precisions and scales of largest evidence for the rows as they are linearised."""
    laplace, given, roots = at.laplace, at.precisions, at.laplace.roots
    grams = []
    for r in laplace.rows:
        gram = torch.zeros(len(roots), len(roots), dtype=torch.float64)
        add_gram(gram, roots, r, 1.0)
        grams.append(gram)
    free, fields = given.free, len(given.scales)
    spans = [roots.span(f) for f in range(fields)]

    def with_logs(x: NDArray[np.float64]) -> Precisions:
        rows = list(given.rows)
        for i, value in zip(free, x, strict=False):
            rows[i] = math.exp(value)
        return replace(given, rows=tuple(rows), scales=tuple(math.exp(v) for v in x[len(free) :]))

    def objective(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = with_logs(x)
        own = Laplace(roots, laplace.rows, now.rows, now.scales, grams)
        step = -own.solve(own.gradient(at.weights))
        weights = at.weights + step
        rows = [_moved(roots, r, step) for r in laplace.rows]
        value = -_log_evidence(_value(weights, roots, rows, now), own, rows, now)
        inverse = own.inverse()
        slopes = []
        for i in free:
            determined = now.rows[i] * float((inverse * grams[i]).sum())
            slopes.append(-0.5 * (counts[i] - now.rows[i] * float((rows[i].residual ** 2).sum()) - determined))
        for span, scale in zip(spans, now.scales, strict=True):
            left = float(inverse.diagonal()[span].sum()) / scale
            square = float((weights[span] ** 2).sum()) / scale
            slopes.append(-0.5 * (square - ((span.stop - span.start) - left)))
        return value, np.array(slopes)

    start = [math.log(given.rows[i]) for i in free] + [math.log(s) for s in given.scales]
    bounds = [(math.log(given.highest[i]) - 32.0, math.log(given.highest[i])) for i in free]
    bounds += [(math.log(s) - 25.0, math.log(s) + 25.0) for s in given.scales]
    # Half a unit of log evidence is what a standard deviation of the precisions costs: a hundredth of it is enough.
    size = max(abs(at.log_evidence), 1.0)
    found = optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40, "ftol": 1e-2 / size}
    )
    return with_logs(found.x)


def _moved(roots: Roots, rows: LinearRows, step: Tensor) -> LinearRows:
    residual = rows.residual
    for jet, c in rows.slopes.items():
        residual = residual + c * roots.jet(jet, step, rows.face)
    return replace(rows, residual=residual)
