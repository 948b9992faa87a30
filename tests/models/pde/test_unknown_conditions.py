"""Unknowns that stand in conditions and not in equations, against closed solutions."""

from __future__ import annotations

import math

import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.models.pde import (
    PDE,
    Box,
    Dirichlet,
    Field,
    Initial,
    Observe,
    Robin,
    Unknown,
    coordinates,
    dt,
    laplacian,
    sin,
)

NORMAL = torch.distributions.Normal(0.0, 5.0)
POSITIVE = torch.distributions.LogNormal(0.0, 1.0)


def test_an_end_value_and_a_source() -> None:
    u, source, end = Field("u", Box(x=(0, 1))), Unknown("s", prior=NORMAL), Unknown("g", prior=NORMAL)
    x = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    seen = Observe(u, x, 1 + 2 * x - 1.5 * (x**2 - x), 0.01)
    problem = PDE(laplacian(u) == source, [Dirichlet(u.on("x=0"), 1), Dirichlet(u.on("x=1"), end), seen])
    found = problem.infer(progress=False)
    assert abs(found.mean("g") - 3.0) < 0.03 and abs(found.mean("s") + 3.0) < 0.3
    given = problem.solve(20, parameters={"s": -3.0, "g": 3.0}, progress=False)
    assert float(given.mean([1.0])) == pytest.approx(3.0, abs=1e-8)
    with pytest.raises(InvalidDataError, match="g is unknown: use infer"):
        problem.solve(20, parameters={"s": -3.0}, progress=False)


def test_an_initial_amplitude() -> None:
    u, amplitude = Field("u", Box(x=(0, 1), t=(0, 1))), Unknown("a", prior=NORMAL)
    x, _ = coordinates(u)
    points = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = 2 * torch.exp(-0.2 * math.pi**2 * points[:, 1]) * torch.sin(math.pi * points[:, 0])
    start = Initial(u, "t=0", amplitude * sin(math.pi * x))
    found = PDE(dt(u) == 0.2 * laplacian(u), [start, Dirichlet(u, 0), Observe(u, points, values, 0.01)]).infer()
    low, high = found.interval("a", 0.99)
    assert low < 2.0 < high and high - low < 0.1


def test_a_rate_of_exchange() -> None:
    """u'' = -2, u(0) = 0, u' + h u = 0 at 1: u = (2 + h) / (1 + h) x - x^2."""
    u, rate = Field("u", Box(x=(0, 1))), Unknown("h", prior=POSITIVE)
    x = torch.linspace(0.2, 1.0, 9, dtype=torch.float64)
    seen = Observe(u, x, 3.5 / 2.5 * x - x**2, 0.005)
    found = PDE(laplacian(u) == -2, [Dirichlet(u.on("x=0"), 0), Robin(u.on("x=1"), rate, 1, 0), seen]).infer()
    low, high = found.interval("h", 0.99)
    assert low < 1.5 < high and high - low < 0.2


def test_one_name_is_one_unknown() -> None:
    u, one, other = Field("u", Box(x=(0, 1))), Unknown("k", prior=POSITIVE), Unknown("k", prior=NORMAL)
    with pytest.raises(InvalidDataError, match="two different unknowns are called 'k'"):
        PDE(one * laplacian(u) == 1, [Dirichlet(u.on("x=0"), other), Dirichlet(u.on("x=1"), 0)])
