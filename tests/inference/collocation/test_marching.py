"""Evolution in slabs of time against the closed solution of Burgers' equation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.spectral import engine as spectral
from gpkit.inference.collocation.spectral import marching
from gpkit.inference.collocation.spectral.marching import MarchedPosterior, evolution_axis, march
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Initial, Observe, d, dt

VISCOSITY = 0.05


def start(x, t):
    return -torch.sin(math.pi * x) + 0.0 * t


def burgers(*extra, end=0.4):
    u = Field("u", Box(x=(-1, 1), t=(0, end)))
    sides = [Initial(u, "t=0", start), Dirichlet(u.on("x=-1"), 0), Dirichlet(u.on("x=1"), 0)]
    return PDE(dt(u) + u * d(u, "x") == VISCOSITY * d(u, "x", 2), [*sides, *[e(u) for e in extra]]).form


def cole_hopf(points):
    """u = -(int sin(pi y) f(y) w) / (int f(y) w), y = x - z sqrt(4 nu t): Cole 1951, Hopf 1950."""
    z, w = np.polynomial.hermite.hermgauss(120)
    y = points[:, :1] - np.sqrt(4.0 * VISCOSITY * points[:, 1:]) * z
    f = np.exp(-np.cos(math.pi * y) / (2.0 * math.pi * VISCOSITY)) * w
    return -(np.sin(math.pi * y) * f).sum(1) / f.sum(1)


@pytest.fixture(scope="module")
def solution():
    return march(burgers(), (48, 24), 1, spectral.solve, 1e-6)


def test_a_steepening_wave(solution):
    assert isinstance(solution, MarchedPosterior)
    assert len(solution.slabs) > 1
    assert solution.diagnostics["slabs"][0] == 0.0
    assert solution.diagnostics["slabs"][-1] == pytest.approx(0.4)
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-1, 1, 200), rng.uniform(0.02, 0.4, 200)], axis=1)
    truth = cole_hopf(points)
    mean = solution.mean(Jet(0, (0, 0)), torch.from_numpy(points)).numpy()
    assert np.linalg.norm(mean - truth) < 1e-6 * np.linalg.norm(truth)
    std = solution.variance(Jet(0, (0, 0)), torch.from_numpy(points)).sqrt().numpy()
    assert (np.abs(mean - truth) <= 3.0 * std + 1e-13).mean() > 0.95


def test_grids_are_points(solution):
    axes = [torch.linspace(-1, 1, 7).double(), torch.linspace(0, 0.4, 9).double()]
    mesh = torch.stack([m.reshape(-1) for m in torch.meshgrid(*axes, indexing="ij")], dim=1)
    for jet in (Jet(0, (0, 0)), Jet(0, (1, 0)), Jet(0, (0, 1))):
        torch.testing.assert_close(
            solution.mean_on_grid(jet, axes).reshape(-1), solution.mean(jet, mesh), rtol=1e-9, atol=1e-8
        )


def test_draws_have_the_moments(solution):
    points = torch.tensor([[0.1, 0.05], [0.3, 0.3], [-0.02, 0.39]], dtype=torch.float64)
    jet = Jet(0, (0, 0))
    draws = solution.sample(300, torch.Generator().manual_seed(0))(jet, points)
    std = solution.variance(jet, points).sqrt()
    assert draws.shape == (300, 3)
    assert ((draws.mean(0) - solution.mean(jet, points)).abs() < 0.25 * std).all()
    torch.testing.assert_close(draws.std(0), std, rtol=0.2, atol=0.0)


def test_what_can_be_marched():
    assert evolution_axis(burgers()) == 1
    point = torch.zeros(1, 2, dtype=torch.float64)
    assert evolution_axis(burgers(lambda u: Observe(u, point, torch.zeros(1).double(), 0.1))) is None
    u = Field("u", Box(x=(0, 1), y=(0, 1)))
    assert evolution_axis(PDE(d(u, "x", 2) + d(u, "y", 2) + u**3 == 1, Dirichlet(u, 0)).form) is None


def test_a_slab_that_never_converges_says_where(monkeypatch):
    def solve(problem, grid):
        raise ConvergenceError("no")

    monkeypatch.setattr(marching, "_SHORTEST", 0.1)
    with pytest.raises(ConvergenceError, match="cannot be continued beyond t = 0: no"):
        march(burgers(), (16, 16), 1, solve, 1e-6)


def test_an_oscillator_whose_whole_span_does_not_converge():
    """Relaxation oscillations of van der Pol, against an implicit Runge-Kutta method."""
    span, stiffness = 12.0, 10.0
    u = Field("u", Box(t=(0, span)))
    equation = dt(u, 2) - stiffness * (1 - u**2) * dt(u) + u == 0
    solution = PDE(equation, [Initial(u, "t=0", 2.0, velocity=0.0)]).solve(grid=200)
    assert "slabs of time" in solution.diagnostics["method"]

    def right(_, y):
        return [y[1], stiffness * (1 - y[0] ** 2) * y[1] - y[0]]

    times = np.linspace(0.0, span, 60)
    truth = solve_ivp(right, (0.0, span), [2.0, 0.0], "Radau", times, rtol=1e-11, atol=1e-11).y[0]
    mean = solution.mean(torch.from_numpy(times)[:, None]).numpy()
    assert np.linalg.norm(mean - truth) < 1e-6 * np.linalg.norm(truth)
