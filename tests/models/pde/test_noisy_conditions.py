"""Noisy initial states: the equation is enforced, intervals hold the truth, and answers that ignore the data say so."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch

from gpkit.errors import ConvergenceWarning
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.kernels.stationary import GaussianEnvelope
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Initial, Noisy, dt, laplacian

NOISE, RATE = 0.1, 0.1


def temperature(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    first = torch.exp(-RATE * pi**2 * t) * torch.sin(pi * x)
    return first + 0.5 * torch.exp(-4 * RATE * pi**2 * t) * torch.sin(2 * pi * x)


def measured(seed: int) -> PDE:
    u, x = Field("u", Box(x=(0, 1), t=(0, 1))), np.linspace(0, 1, 40)
    start = np.sin(pi * x) + 0.5 * np.sin(2 * pi * x) + NOISE * np.random.default_rng(seed).normal(size=40)
    return PDE(dt(u) == RATE * laplacian(u), [Dirichlet(u, 0), Initial(u, "t=0", Noisy(start, NOISE))])


def test_the_equation_is_enforced_behind_a_noisy_start() -> None:
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = temperature(*points.T)
    covered, widths, errors = [], [], []
    for seed in (0, 1, 4, 5, 6):
        solution = measured(seed).solve(24, progress=False)
        off, std = (solution.mean(points) - truth).abs(), solution.std(points)
        covered.append(float((off <= 1.96 * std).double().mean()))
        widths.append(float(std.mean()))
        errors.append(float(off.square().mean().sqrt()))
    assert np.mean(covered) >= 0.8
    # forty values of noise 0.1 tell two waves to about 0.1 sqrt(2 / 40), and all other waves decay
    assert max(widths) < 0.03 and max(errors) < 0.04


def test_exact_conditioning_behind_a_noisy_start_is_as_good() -> None:
    """Equations that are exact and zero are constraints: counted as data they would make the field vanish."""
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solution = measured(4).solve(16, method="exact", progress=False)
    assert not solution.findings
    off, std = (solution.mean(points) - temperature(*points.T)).abs(), solution.std(points)
    assert float(off.square().mean().sqrt()) < 0.04 and float(std.mean()) < 0.03
    assert float((off <= 1.96 * std).double().mean()) >= 0.8
    assert "noisy rows given the exact ones" in solution.diagnostics["hyperparameters"]["evidence"]


def test_an_answer_that_ignores_a_noisy_condition_says_so() -> None:
    small = MixtureAxis(GaussianEnvelope(), torch.full((1,), 1e-4, dtype=torch.float64), torch.full((1,), 0.5).double())
    with pytest.warns(ConvergenceWarning, match="standard deviations away"):
        solution = measured(4).solve(16, method="exact", kernel=small, progress=False)
    assert solution.residuals.observations[0] > 2.0
    assert "NOT TO BE TRUSTED" in repr(solution)
