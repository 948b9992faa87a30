"""Held-out collocation: how far equations are from holding at new points, in units of what the posterior expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Data, Problem, evaluate
from gpkit.models.pde.gridded import Spline

if TYPE_CHECKING:
    from gpkit.models.pde.solution import Solution

__all__ = ["held_out_scores"]


def held_out_scores(solution: Solution, count: int = 200, draws: int = 100, seed: int = 0) -> Tensor:
    """Standardised residuals of every equation at random points inside the box.

    The residual of the posterior mean is divided by the standard deviation of the left side, linearised at the mean,
    over posterior draws; noise of the source is added to it. Scores far above 2 say that the posterior is too sure of
    itself, scores far below 1 that it is cautious.

    Args:
        solution: A solution with its problem.
        count: Number of points.
        draws: Number of draws.
        seed: Of both.

    Returns:
        Tensor (equations, count); infinite where there is a residual and no uncertainty.

    Raises:
        InvalidDataError: The solution was read from a file, without its problem.
    """
    if solution.problem is None:
        raise InvalidDataError("a solution that was read from a file has no equations to hold out points of")
    problem: Problem = solution.problem.form
    generator = torch.Generator().manual_seed(seed)
    lower, upper = (torch.tensor(ends, dtype=torch.float64) for ends in (problem.box.lower, problem.box.upper))
    points = lower + (upper - lower) * torch.rand(count, problem.box.dim, generator=generator, dtype=torch.float64)
    coordinates = list(points.T)
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in solution.parameters.items()}
    sampled = solution.posterior.sample(draws, generator)
    scores = []
    for equation in problem.equations:
        means = {jet: solution.posterior.mean(jet, points) for jet in equation.all_jets}
        right = _source(equation.source, coordinates)
        if equation.source.parametric is not None:
            right = right + equation.source.parametric(coordinates, given)
        residual = equation.left_side(coordinates, means, given) - right
        spread = torch.zeros(draws, count, dtype=torch.float64)
        for jet, slope in equation.linearised(coordinates, means, given).items():
            spread = spread + slope * (sampled(jet, points) - means[jet])
        std = torch.sqrt((spread**2).mean(0) + equation.source.noise**2)
        scores.append(torch.where(residual == 0.0, 0.0, residual / std))
    return torch.stack(scores)


def _source(data: Data, coordinates: list[Tensor]) -> Tensor:
    if data.values is not None:
        return Spline(data.values, data.axes)(coordinates, (0,) * len(coordinates))
    if data.function is not None:
        return evaluate(data.function, coordinates, "the source")
    return torch.full(coordinates[0].shape, data.constant, dtype=torch.float64)
