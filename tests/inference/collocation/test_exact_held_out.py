"""Deviations cover errors off the grid, whether the grid resolves a solution or not."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gpkit.inference.collocation.exact import engine as exact
from gpkit.inference.collocation.exact.held_out import (
    CoveringPosterior,
    held_out_points,
    off_grid_residual,
)
from gpkit.inference.collocation.forms import Data, Jet
from tests.inference.collocation import problems

CASES = {**problems.published(), **problems.others()}


def inside(problem, count, seed=0):
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (problem.box.lower, problem.box.upper))
    uniform = torch.rand(count, problem.box.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * uniform


def scores(case, found, count=200):
    points = inside(case.problem, count)
    jet = Jet(0, (0,) * len(case.grid))
    error = (found.mean(jet, points) - case.exact(*points.T)).abs()
    return error, found.variance(jet, points).sqrt()


def poisson(u, n, dim=1):
    return problems.smooth(u, problems.laplacian(dim), problems.dirichlet(u, dim), [(0.0, 1.0)] * dim, (n,) * dim)


def front(place, width):
    return lambda x: torch.tanh((x - place) / width)


def chirp(rate):
    return lambda x: torch.sin(rate * math.pi * x**2)


def packet(place, frequency):
    return lambda x: torch.exp(-(((x - place) / 0.08) ** 2)) * torch.sin(frequency * x)


LINES = {
    "front, unresolved": poisson(front(0.45, 0.02), 30),
    "front, two points wide": poisson(front(0.61, 0.02), 60),
    "front, resolved": poisson(front(0.38, 0.05), 120),
    "step below the grid": poisson(front(0.503, 0.004), 50),
    "chirp, too fine": poisson(chirp(40.0), 60),
    "chirp, barely resolved": poisson(chirp(30.0), 100),
    "packet, too fine": poisson(packet(0.4, 150.0), 40),
    "packet, resolved": poisson(packet(0.6, 120.0), 100),
}


@pytest.mark.parametrize("name", LINES)
def test_deviations_cover_errors_on_a_line(name):
    case = LINES[name]
    found = exact.solve(case.problem, case.grid)
    error, deviation = scores(case, found)
    assert float((error <= 2.0 * deviation).double().mean()) >= 0.9
    # Not by saying nothing: no wider than a thousand times the error, or than a few times the solution.
    size = float(case.exact(torch.linspace(0, 1, 500, dtype=torch.float64)).abs().max())
    assert float(deviation.median()) < max(1e3 * float(error.pow(2).mean().sqrt()), 1e-12 * size)


@pytest.mark.parametrize(("name", "grid"), [("front 2-D", (16, 16)), ("wave", (20, 20))])
def test_deviations_cover_errors_on_a_square(name, grid):
    """A front that the grid does not hold, and a smooth wave."""
    case = dataclasses.replace(CASES[name], grid=grid)
    found = exact.solve(case.problem, case.grid)
    error, deviation = scores(case, found)
    assert float((error <= 2.0 * deviation).double().mean()) >= 0.9


def test_frequencies_above_those_of_the_grid_are_found_between_its_points():
    case = dataclasses.replace(CASES["P1"], grid=(180,))
    found = exact.solve(case.problem, case.grid)
    assert case.error(found) < 1e-8


def test_the_error_is_small_where_the_residual_is():
    case = LINES["packet, resolved"]
    found = exact.solve(case.problem, case.grid)
    points = held_out_points(case.problem.box, [torch.linspace(0, 1, 100, dtype=torch.float64)])
    residual = off_grid_residual(case.problem, found, {}, points)
    assert residual == pytest.approx(found.diagnostics["held_out_residual"])
    assert residual < 1e-3
    assert float(points.min()) >= 0.0 and float(points.max()) <= 1.0
    assert int((points < 1.0 / 99.0).sum()) > 30


def test_draws_have_the_covering_moments():
    case = LINES["front, two points wide"]
    found = exact.solve(case.problem, case.grid)
    assert isinstance(found, CoveringPosterior)
    points = inside(case.problem, 15)
    draws = found.sample(2000, torch.Generator().manual_seed(2))
    for jet in (Jet(0, (0,)), Jet(0, (1,))):
        values, deviation = draws(jet, points), found.variance(jet, points).sqrt()
        assert float(((values.mean(0) - found.mean(jet, points)) / deviation).abs().max()) < 5.0 / 2000**0.5
        assert float((values.std(0) / deviation - 1.0).abs().max()) < 0.12
    grid = torch.linspace(0, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(found.mean_on_grid(Jet(0, (0,)), [grid]), found.mean(Jet(0, (0,)), grid[:, None]))


def test_a_source_that_is_known_on_the_grid_only_is_not_judged_between():
    case = LINES["front, resolved"]
    x = torch.linspace(0, 1, 120, dtype=torch.float64)
    (equation,) = case.problem.equations
    values = equation.source.function(x)
    gridded = dataclasses.replace(equation, source=Data(values=values, axes=(x,)))
    found = exact.solve(dataclasses.replace(case.problem, equations=(gridded,)), case.grid)
    assert not isinstance(found, CoveringPosterior)
    assert "held_out_residual" not in found.diagnostics
    assert case.error(found) < 1e-3
