"""Noisy problems with known solutions, each with a trivial baseline of the same data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator, make_smoothing_spline

from gpkit.models.pde import PDE, Box, Dirichlet, Field, Initial, Noisy, Observe, d, dt, laplacian

PI = math.pi
Function = Callable[..., Any]


def on_grid(function: Function, axes: list[np.ndarray]) -> np.ndarray:
    mesh = torch.meshgrid(*[torch.from_numpy(a) for a in axes], indexing="ij")
    return torch.as_tensor(function(*mesh)).expand(mesh[0].shape).numpy()


@dataclass
class Noise:
    """A problem with noise: its solution, and how to state it from a seed.

    Attributes:
        truth: Of the coordinates.
        box: Of the problem.
        grid: Points per axis.
        state: (generator) -> problem, and the baseline's prediction at points.
        seeds: How many are asked for.
        slow: Whether one seed takes seconds.
        options: Of the solution.
    """

    name: str
    truth: Function
    box: Box
    grid: int
    state: Callable[[np.random.Generator], tuple[PDE, Callable[[np.ndarray], np.ndarray]]]
    seeds: int
    slow: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def poisson(name: str, truth: Function, source: Function, end: float, n: int, level: float, seeds: int, dim: int = 1,
            stated: bool = True, slow: bool = False) -> Noise:  # fmt: skip
    box = Box(**{a: (0, end) for a in "xyz"[:dim]})
    u = Field("u", box)
    axes = [np.linspace(0, end, n)] * dim
    clean = on_grid(source, axes)
    noise = level * float(np.sqrt(np.mean(clean**2)))

    def state(rng: np.random.Generator) -> tuple[PDE, Callable[[np.ndarray], np.ndarray]]:
        values = clean + noise * rng.normal(size=clean.shape)
        problem = PDE(laplacian(u) == Noisy(values, noise if stated else None), Dirichlet(u, truth))
        return problem, ignoring(PDE(laplacian(u) == values, Dirichlet(u, truth)), n)

    return Noise(name, truth, box, n, state, seeds, slow)


def ignoring(problem: PDE, n: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: problem.solve(n, method="spectral", progress=False).mean(points).numpy()


def smoothed(points: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A spline whose smoothing is the best of seven by leave-one-out."""
    if points.shape[1] == 1:
        order = np.argsort(points[:, 0])
        spline = make_smoothing_spline(points[order, 0], values[order])
        return lambda at: spline(at[:, 0])
    best, chosen = math.inf, 0.0
    for smoothing in 10.0 ** np.arange(-5.0, 2.0):
        off = 0.0
        for k in range(0, len(values), 3):
            kept = np.arange(len(values)) != k
            off += (
                float(
                    RBFInterpolator(points[kept], values[kept], smoothing=smoothing)(points[k : k + 1])[0] - values[k]
                )
                ** 2
            )
        if off < best:
            best, chosen = off, smoothing
    return RBFInterpolator(points, values, smoothing=chosen)


def heat_observed() -> Noise:
    """Temperatures of a rod inside; its initial state is not known."""
    box, k, noise = Box(x=(0, 1), t=(0, 1)), 0.1, 0.05
    u = Field("u", box)

    def truth(x: Any, t: Any) -> Any:
        return torch.exp(-k * PI**2 * t) * torch.sin(PI * x) + 0.5 * torch.exp(-4 * k * PI**2 * t) * torch.sin(
            2 * PI * x
        )

    def state(rng: np.random.Generator) -> tuple[PDE, Callable[[np.ndarray], np.ndarray]]:
        points = rng.uniform(size=(60, 2))
        values = truth(*torch.from_numpy(points.T)).numpy() + noise * rng.normal(size=60)
        seen = [Dirichlet(u.on("x=0"), 0), Dirichlet(u.on("x=1"), 0), Observe(u, points, values, noise)]
        return PDE(dt(u) == k * laplacian(u), seen), smoothed(points, values)

    return Noise("heat, observed inside, no initial state", truth, box, 24, state, 40, slow=True)


def heat_start() -> Noise:
    """The rod's initial state is measured."""
    box, k, noise = Box(x=(0, 1), t=(0, 1)), 0.1, 0.1
    u, x = Field("u", box), np.linspace(0, 1, 40)

    def truth(x: Any, t: Any) -> Any:
        return torch.exp(-k * PI**2 * t) * torch.sin(PI * x) + 0.5 * torch.exp(-4 * k * PI**2 * t) * torch.sin(
            2 * PI * x
        )

    def state(rng: np.random.Generator) -> tuple[PDE, Callable[[np.ndarray], np.ndarray]]:
        values = np.sin(PI * x) + 0.5 * np.sin(2 * PI * x) + noise * rng.normal(size=40)
        problem = PDE(dt(u) == k * laplacian(u), [Dirichlet(u, 0), Initial(u, "t=0", Noisy(values, noise))])
        start = smoothed(x[:, None], values)
        frozen = lambda at: start(at[:, :1])  # noqa: E731 - the state that was measured, as if it stayed
        return problem, frozen

    return Noise("heat, noisy initial state", truth, box, 24, state, 40, slow=True)


def burgers() -> Noise:
    """Burgers' equation with a noisy source."""
    box, nu, n = Box(x=(0, 1), t=(0, 1)), 0.1, 20
    u, axes = Field("u", box), [np.linspace(0, 1, 20)] * 2

    def truth(x: Any, t: Any) -> Any:
        return torch.sin(PI * x) * torch.exp(-t) + 0.3 * x * t

    def source(x: Any, t: Any) -> Any:
        s, c, e = torch.sin(PI * x), torch.cos(PI * x), torch.exp(-t)
        return (-s * e + 0.3 * x) + (s * e + 0.3 * x * t) * (PI * c * e + 0.3 * t) + nu * PI**2 * s * e

    clean = on_grid(source, axes)
    noise = 0.1 * float(np.sqrt(np.mean(clean**2)))

    def state(rng: np.random.Generator) -> tuple[PDE, Callable[[np.ndarray], np.ndarray]]:
        values = clean + noise * rng.normal(size=clean.shape)
        sides = [Initial(u, "t=0", truth), Dirichlet(u, truth)]
        left = dt(u) + u * d(u, "x") - nu * d(u, "x", 2)
        return PDE(left == Noisy(values, noise), sides), ignoring(PDE(left == values, sides), n)

    return Noise("Burgers, nonlinear, noisy source", truth, box, n, state, 40, slow=True)


def missing_conditions() -> Noise:
    """No conditions at all: thirty noisy observations have to say the constant and the slope."""
    box, noise = Box(x=(0, 1)), 0.1
    u = Field("u", box)

    def truth(x: Any) -> Any:
        return torch.sin(5 * x) + 2 * x

    def state(rng: np.random.Generator) -> tuple[PDE, Callable[[np.ndarray], np.ndarray]]:
        points = np.sort(rng.uniform(size=(30, 1)), axis=0)
        values = truth(torch.from_numpy(points[:, 0])).numpy() + noise * rng.normal(size=30)
        problem = PDE(laplacian(u) == (lambda x: -25 * torch.sin(5 * x)), Observe(u, points, values, noise))
        return problem, smoothed(points, values)

    return Noise("u'' = f from observations, no conditions", truth, box, 60, state, 40)


def noisy_problems() -> Iterator[Noise]:
    sin, cos = torch.sin, torch.cos

    def beat(x: Any) -> Any:
        return sin(6 * x) * cos(100 * x)

    def beat_source(x: Any) -> Any:
        return -0.5 * (106**2 * sin(106 * x) - 94**2 * sin(94 * x))

    def h(s: Any) -> Any:
        return -0.5 * (676 * sin(26 * s) - 196 * sin(14 * s))

    def three(x: Any) -> Any:
        return sin(x) + 0.1 * sin(20 * x) + 0.05 * sin(100 * x)

    def three_source(x: Any) -> Any:
        return -sin(x) - 40 * sin(20 * x) - 500 * sin(100 * x)

    def one(x: Any) -> Any:
        return sin(100 * x)

    def wavy(x: Any) -> Any:
        return sin(5 * x) * x + x**2

    def wavy_source(x: Any) -> Any:
        return 10 * cos(5 * x) - 25 * x * sin(5 * x) + 2

    def squares(x: Any, y: Any) -> Any:
        return sin(100 * x) * sin(100 * y)

    def plane(x: Any, y: Any) -> Any:
        return sin(6 * x) * cos(20 * x) + sin(6 * y) * cos(20 * y)

    def smooth(x: Any, y: Any) -> Any:
        return sin(5 * x) * cos(4 * y) + x * y

    def bump(x: Any) -> Any:
        return sin(37 * x) + torch.exp(-100 * (x - 0.4) ** 2)

    def bump_source(x: Any) -> Any:
        return -(37**2) * sin(37 * x) + ((200 * (x - 0.4)) ** 2 - 200) * torch.exp(-100 * (x - 0.4) ** 2)

    def half(x: Any) -> Any:
        return sin(37 * x) + 0.5 * torch.exp(-100 * (x - 0.4) ** 2)

    def half_source(x: Any) -> Any:
        return 0.5 * (bump_source(x) - 37**2 * sin(37 * x))

    def chirp(x: Any) -> Any:
        return sin(20 * x + 30 * x**2)

    def chirp_source(x: Any) -> Any:
        return 60 * cos(20 * x + 30 * x**2) - (20 + 60 * x) ** 2 * chirp(x)

    full, third = 2 * PI, 2 * PI / 5
    yield poisson("P1, 1 % noise", one, lambda x: -1e4 * one(x), full, 400, 0.01, 40)
    yield poisson("P1, 1 %, noise not stated", one, lambda x: -1e4 * one(x), full, 400, 0.01, 40, stated=False)
    yield poisson("P2, 1 %", three, three_source, 1.0, 900, 0.01, 40)
    yield poisson("wave and bump, 2 %", bump, bump_source, 1.0, 200, 0.02, 40)
    yield poisson("wave and bump, 10 %", bump, bump_source, 1.0, 200, 0.1, 40)
    below = poisson("wave and half a bump, 20 %, hidden by noise", half, half_source, 1.0, 200, 0.2, 40)
    yield below
    yield replace(below, name="the same, hidden=True", options={"hidden": True})
    yield poisson("chirp, 5 %", chirp, chirp_source, 1.0, 200, 0.05, 40)
    yield poisson("P3, 1 %", beat, beat_source, full, 400, 0.01, 40)
    yield poisson("P3, 10 %", beat, beat_source, full, 400, 0.1, 40)
    yield poisson("smooth 1-D, 5 %", wavy, wavy_source, 1.0, 100, 0.05, 40)
    yield poisson("smooth 1-D, 5 %, noise not stated", wavy, wavy_source, 1.0, 100, 0.05, 40, stated=False)
    yield missing_conditions()
    yield poisson("P6 on a fifth of its box, 1 %", squares, lambda x, y: -2e4 * squares(x, y), third, 80, 0.01, 30, 2,
                  slow=True)  # fmt: skip
    yield poisson("P7 on 60 x 60, 1 %", plane, lambda x, y: h(x) + h(y), full, 60, 0.01, 30, 2, slow=True)
    yield poisson("smooth 2-D, 10 %", smooth, lambda x, y: -41 * sin(5 * x) * cos(4 * y), 1.0, 16, 0.1, 40, 2)
    yield heat_start()
    yield heat_observed()
    yield burgers()
