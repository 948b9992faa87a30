"""Answers that must be refused, and right answers that must not be suspected."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.models.pde import PDE, Box, Dirichlet, Field, laplacian


@pytest.mark.parametrize("source", [lambda x: x, lambda x: torch.sin(2.0 * x)], ids=["no solution", "many solutions"])
def test_resonance_is_refused_on_an_interval(source):
    u = Field("u", Box(x=(0, math.pi)))
    with pytest.raises(InvalidDataError, match="singular"):
        PDE(laplacian(u) + u == source, Dirichlet(u, 0)).solve(grid=40, progress=False)


@pytest.mark.parametrize("source", [lambda x, y: x * y, lambda x, y: torch.sin(2.0 * x) * torch.sin(3.0 * y)])
def test_resonance_is_refused_on_a_square(source):
    u = Field("u", Box(x=(0, math.pi), y=(0, math.pi)))
    with pytest.raises(InvalidDataError, match="singular"):
        PDE(laplacian(u) + 2.0 * u == source, Dirichlet(u, 0)).solve(grid=30, progress=False)


def test_near_resonance_is_solved():
    u = Field("u", Box(x=(0, math.pi)))
    shift = 1.0 + 1e-4
    solution = PDE(laplacian(u) + shift * u == torch.sin, Dirichlet(u, 0)).solve(grid=40, progress=False)
    x = torch.linspace(0, math.pi, 50)
    torch.testing.assert_close(solution.mean(x[:, None]), torch.sin(x) / (shift - 1.0), rtol=1e-8, atol=1e-5)


def test_high_frequencies_on_a_grid_are_not_suspected():
    x = torch.linspace(0.0, 2.0 * math.pi, 400)
    u = Field("u", Box(x=(0, 2.0 * math.pi)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = PDE(laplacian(u) == -1e4 * torch.sin(100.0 * x), Dirichlet(u, lambda x: torch.sin(100.0 * x))).solve(
            grid=400, progress=False
        )
    new = torch.linspace(0.0, 2.0 * math.pi, 300)
    truth = torch.sin(100.0 * new)
    assert (solution.mean(new[:, None]) - truth).norm() < 1e-8 * truth.norm()
