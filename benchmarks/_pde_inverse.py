"""Problems with unknown numbers or an unknown coefficient; the data come from formulas and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpkit.models.pde import (
    PDE,
    Box,
    Dirichlet,
    Field,
    Initial,
    Observe,
    Unknown,
    d,
    divergence,
    dt,
    exp,
    gradient,
    laplacian,
)

PI = math.pi


@dataclass
class Inverse:
    """Unknown numbers: drawn from their prior, then the data from them."""

    name: str
    priors: dict[str, Any]
    state: Callable[[np.random.Generator, dict[str, float], dict[str, Unknown]], PDE]
    grid: tuple[int, ...]


def lognormal(median: float, spread: float) -> Any:
    return torch.distributions.LogNormal(torch.tensor(math.log(median)).double(), torch.tensor(spread).double())


def inverse_problems() -> Iterator[Inverse]:
    strip = Box(x=(0, 1), t=(0, 0.5))

    def diffusivity(count: int, noise: float) -> Callable[..., PDE]:
        def state(rng: np.random.Generator, truth: dict[str, float], k: dict[str, Unknown]) -> PDE:
            u, at = Field("u", strip), rng.uniform(size=(count, 2)) * [1.0, 0.5]
            y = np.exp(-truth["k"] * PI**2 * at[:, 1]) * np.sin(PI * at[:, 0]) + noise * rng.normal(size=count)
            start = Initial(u, "t=0", lambda x, t: torch.sin(PI * x))
            return PDE(dt(u) == k["k"] * laplacian(u), [start, Dirichlet(u, 0), Observe(u, at, y, noise)])

        return state

    def wave(rng: np.random.Generator, truth: dict[str, float], c: dict[str, Unknown]) -> PDE:
        u, at = Field("u", strip), rng.uniform(size=(20, 2)) * [1.0, 0.5]
        y = np.cos(truth["c"] * PI * at[:, 1]) * np.sin(PI * at[:, 0]) + 0.05 * rng.normal(size=20)
        start = Initial(u, "t=0", lambda x, t: torch.sin(PI * x), velocity=0)
        return PDE(d(u, "t", 2) == c["c"] ** 2 * d(u, "x", 2), [start, Dirichlet(u, 0), Observe(u, at, y, 0.05)])

    def strength(rng: np.random.Generator, truth: dict[str, float], k: dict[str, Unknown]) -> PDE:
        """A steady source of unknown strength and a reaction of unknown rate: u'' - a u + s = 0."""
        u, at = Field("u", Box(x=(0, 1))), rng.uniform(size=15)
        root = math.sqrt(truth["a"])
        exact = truth["s"] / truth["a"] * (1 - np.cosh(root * (at - 0.5)) / math.cosh(0.5 * root))
        y = exact + 0.02 * rng.normal(size=15)
        return PDE(d(u, "x", 2) - k["a"] * u + k["s"] == 0, [Dirichlet(u, 0), Observe(u, at, y, 0.02)])

    def decay(rng: np.random.Generator, truth: dict[str, float], k: dict[str, Unknown]) -> PDE:
        """Logistic growth in time, nonlinear: u' = r u (1 - u)."""
        u, at = Field("u", Box(t=(0, 4))), rng.uniform(size=15) * 4
        y = 1 / (1 + 9 * np.exp(-truth["r"] * at)) + 0.05 * rng.normal(size=15)
        return PDE(dt(u) == k["r"] * u * (1 - u), [Initial(u, "t=0", 0.1), Observe(u, at, y, 0.05)])

    yield Inverse("diffusivity, 25 data", {"k": lognormal(0.3, 0.7)}, diffusivity(25, 0.02), (14, 12))
    yield Inverse("diffusivity, 5 poor data", {"k": lognormal(0.3, 0.7)}, diffusivity(5, 0.1), (14, 12))
    yield Inverse("wave speed", {"c": lognormal(1.5, 0.3)}, wave, (12, 16))
    yield Inverse(
        "source strength and reaction rate", {"s": lognormal(3.0, 0.5), "a": lognormal(2.0, 0.5)}, strength, (16,)
    )
    yield Inverse("growth rate, nonlinear", {"r": lognormal(1.0, 0.5)}, decay, (24,))


def field_problem(rng: np.random.Generator) -> tuple[PDE, Callable[[np.ndarray], np.ndarray]]:
    """An unknown conductivity; the truth is a draw of its prior, the data from quadrature on 2000 cells."""
    x = np.linspace(0, 1, 2001)
    few = np.linspace(0, 1, 41)
    gram = np.exp(-0.5 * ((few[:, None] - few) / 0.3) ** 2) + 1e-10 * np.eye(41)
    log_k = (
        np.exp(-0.5 * ((x[:, None] - few) / 0.3) ** 2)
        @ np.linalg.solve(gram, np.linalg.cholesky(gram) @ rng.normal(size=41))
        * 0.7
    )
    # (k u')' = -10, so that k u' = c - 10 x and u(1) = 0 sets c.
    resistance = np.exp(-log_k)
    first, second = (
        np.concatenate([[0], np.cumsum(0.5 * (f[1:] + f[:-1]) * np.diff(x))]) for f in (resistance, resistance * x)
    )
    u_true = 10 * (second[-1] / first[-1] * first - second)
    at = rng.uniform(0.02, 0.98, size=40)
    y = np.interp(at, x, u_true) + 0.01 * rng.normal(size=40)
    box = Box(x=(0, 1))
    u, q = Field("u", box), Field("log_k", box, amplitude=0.7, lengthscale=0.3)
    problem = PDE(divergence(exp(q) * gradient(u)) == -10, [Dirichlet(u, 0), Observe(u, at, y, 0.01)])
    return problem, lambda where: np.interp(where, x, log_k)
