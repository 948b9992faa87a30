"""The published differential equations and a few of other kinds, in normal form with exact solutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, cos, exp, sin, tanh

from gpkit.inference.collocation.forms import Box, Coefficient, Condition, Data, Equation, Jet, Problem, Term

Function = Callable[..., Tensor]
FULL, UNIT = (0.0, 2.0 * math.pi), (0.0, 1.0)


@dataclass
class Task:
    """A problem, its grid, its solution, and what was asked: relative L2 error and CPU seconds."""

    name: str
    problem: Problem
    grid: tuple[int, ...]
    exact: Function
    source: Function
    error: float | None
    seconds: float | None
    kind: str = "poisson"

    def relative_error(self, values: Function) -> float:
        """Of values on the 300-point test grid (40 points per axis in three dimensions), given its axes."""
        count = 300 if len(self.grid) < 3 else 40
        ends = zip(self.problem.box.lower, self.problem.box.upper, strict=True)
        axes = [torch.linspace(a, b, count, dtype=torch.float64) for a, b in ends]
        exact = self.exact(*torch.meshgrid(*axes, indexing="ij"))
        return float((torch.as_tensor(values(axes)) - exact).norm() / exact.norm())


def _orders(dim: int, axis: int, order: int) -> tuple[int, ...]:
    return tuple(order if j == axis else 0 for j in range(dim))


def _term(c: float, *orders: int) -> Term:
    return Term(Coefficient(c), Jet(0, orders))


def _face(axis: int, side: int, value: Function, dim: int, kind: str = "dirichlet") -> Condition:
    return Condition(kind, axis, side, (_term(1.0, *_orders(dim, axis, 0)),), Data(value))


def poisson(name, u, f, ends, n, error, seconds, dim=1, cubic=False):
    jets = (Jet(0, (0,) * dim),) if cubic else ()
    remainder = (lambda x, j, p: j[0] * (j[0] ** 2 - 1.0)) if cubic else None
    terms = tuple(_term(1.0, *_orders(dim, j, 2)) for j in range(dim))
    box = Box(("x", "y", "z")[:dim], (ends[0],) * dim, (ends[1],) * dim)
    faces = tuple(_face(j, s, u, dim) for j in range(dim) for s in (0, 1))
    problem = Problem(box, ("u",), (Equation(terms, Data(f), jets, remainder),), faces)
    return Task(name, problem, (n,) * dim, u, f, error, seconds, "cubic" if cubic else "poisson")


def laplacian_of(u: Function, dim: int) -> Function:
    """By automatic differentiation at full coordinates."""

    def value(*x):
        shape = torch.broadcast_tensors(*x)[0].shape
        leaves = [c.expand(shape).clone().requires_grad_() for c in x]
        with torch.enable_grad():
            first = torch.autograd.grad(u(*leaves).sum(), leaves, create_graph=True)
            parts = [torch.autograd.grad(g.sum(), x, retain_graph=True)[0] for g, x in zip(first, leaves, strict=True)]
        return torch.stack(parts[:dim]).sum(0).detach()

    return value


def _cubic(u: Function, lap: Function) -> Function:
    return lambda *x: lap(*x) + u(*x) * (u(*x) ** 2 - 1.0)


def published() -> list[Task]:
    """P1-P7, A1-A3 and V1."""

    def a(s):
        return sin(s) + 0.1 * sin(20 * s) + cos(100 * s)

    def a2(s):
        return -sin(s) - 40 * sin(20 * s) - 1e4 * cos(100 * s)

    def h(s):
        return -0.5 * (676 * sin(26 * s) - 196 * sin(14 * s))

    def one(x):
        return sin(100 * x)

    def one_source(x):
        return -1e4 * sin(100 * x)

    def beat(x):
        return sin(6 * x) * cos(100 * x)

    def beat_source(x):
        return -0.5 * (106**2 * sin(106 * x) - 94**2 * sin(94 * x))

    def three(x):
        return sin(x) + 0.1 * sin(20 * x) + 0.05 * sin(100 * x)

    def three_source(x):
        return -sin(x) - 40 * sin(20 * x) - 500 * sin(100 * x)

    def growing_source(x):
        return 400 * cos(200 * x) - 4e4 * x * sin(200 * x)

    def product(x, y):
        return a(x) * a(y)

    def shift(x, t):
        return sin(x - 200 * t)

    def plane(x, y):
        return sin(6 * x) * cos(20 * x) + sin(6 * y) * cos(20 * y)

    advection = Problem(
        Box(("x", "t"), (0.0, 0.0), (1.0, 1.0)),
        ("u",),
        (Equation((_term(200.0, 1, 0), _term(1.0, 0, 1)), Data()),),
        (_face(0, 0, shift, 2), _face(1, 0, shift, 2, "initial")),
    )
    waves = _cubic(product, lambda x, y: a2(x) * a(y) + a(x) * a2(y))
    return [
        poisson("P1", one, one_source, FULL, 400, 1e-8, 0.05),
        poisson("P2", three, three_source, UNIT, 900, 1e-8, 0.05),
        poisson("P3", beat, beat_source, FULL, 400, 1e-8, 0.05),
        poisson("P4", lambda x: x * sin(200 * x), growing_source, FULL, 900, 1e-8, 0.05),
        poisson(
            "P5", lambda x: sin(500 * x) - 2 * (x - 0.5) ** 2, lambda x: -25e4 * sin(500 * x) - 4, UNIT, 400, 1e-8, 0.05
        ),
        poisson("P6", lambda x, y: one(x) * one(y), lambda x, y: -2e4 * one(x) * one(y), FULL, 400, 1e-10, 0.1, dim=2),
        poisson("P7", plane, lambda x, y: h(x) + h(y), FULL, 200, 1e-10, 0.1, dim=2),
        poisson("A1", one, _cubic(one, one_source), FULL, 400, 1e-8, 0.1, cubic=True),
        poisson("A2", beat, _cubic(beat, beat_source), FULL, 400, 1e-8, 0.1, cubic=True),
        poisson("A3", product, waves, UNIT, 400, 1e-7, 0.5, dim=2, cubic=True),
        Task("V1", advection, (200, 200), shift, lambda x, t: 0.0 * x * t, 1e-7, 0.05, "advection"),
    ]


def broadband() -> list[Task]:
    """Solutions that are not a few sinusoids."""
    lines = {
        "chirp sin(40 pi x^2)": lambda x: sin(40 * math.pi * x**2),
        "front tanh((x - .45) / .02)": lambda x: tanh((x - 0.45) / 0.02),
        "packet of width .08": lambda x: exp(-(((x - 0.4) / 0.08) ** 2)) * sin(150 * x),
    }
    planes = {
        "packet 2-D": lambda x, y: exp(-(((x - 0.4) / 0.1) ** 2) - ((y - 0.6) / 0.12) ** 2) * sin(60 * x + 50 * y),
        "front 2-D": lambda x, y: tanh((x + 0.6 * y - 0.8) / 0.05),
        "chirp 2-D": lambda x, y: sin(30 * (x + 0.5 * y) ** 2),
    }
    tasks = [poisson(k, u, laplacian_of(u, 1), UNIT, 400, 1e-4, 0.5) for k, u in lines.items()]
    return tasks + [poisson(k, u, laplacian_of(u, 2), UNIT, 400, 1e-6, 0.5, dim=2) for k, u in planes.items()]


def large(side: int, cube: int) -> list[Task]:
    """Poisson's equation at sizes where memory counts."""

    def dense(x, y):
        return sin(1500 * x) * cos(1400 * y)

    def cubes(x, y, z):
        return sin(80 * x) * cos(75 * y) * sin(70 * z + 1)

    scale = side / 1000.0

    def scaled(x, y):
        return dense(scale * x, scale * y)

    return [
        poisson(
            f"Poisson {side} x {side}, full band", scaled,
            lambda x, y: -(1500.0**2 + 1400.0**2) * scale**2 * scaled(x, y), UNIT, side, 1e-6, 1.0, dim=2,
        ),
        poisson(
            f"Poisson {cube}^3", cubes, lambda x, y, z: -(6400.0 + 5625.0 + 4900.0) * cubes(x, y, z), UNIT, cube,
            1e-8, 1.0, dim=3,
        ),
    ]  # fmt: skip


def few_waves(fastest: float) -> list[Task]:
    """Solutions of few frequencies, up to where a broadband basis no longer fits.

    Args:
        fastest: Radians per unit of the last two problems.
    """

    def cubes(x, y, z):
        return sin(300 * x) * cos(250 * y) * sin(200 * z + 1)

    def standing(x, t):
        return sin(200 * math.pi * x) * cos(400 * math.pi * t)

    def velocity(x, t):
        return 0.0 * x * t

    def square(x, y):
        return sin(1500 * x) * cos(1400 * y)

    def line(x):
        return sin(fastest * x) + x**2

    def plane(x, y):
        return sin(fastest * x + 1.0) * cos(0.8 * fastest * y) + sin(x) * y

    def plane_source(x, y):
        return -1.64 * fastest**2 * sin(fastest * x + 1.0) * cos(0.8 * fastest * y) - sin(x) * y

    ends = (_face(0, 0, standing, 2), _face(0, 1, standing, 2), _face(1, 0, standing, 2, "initial"))
    start = Condition("initial", 1, 0, (_term(1.0, 0, 1),), Data(velocity))
    wave = Problem(
        Box(("x", "t"), (0.0, 0.0), (1.0, 1.0)),
        ("u",),
        (Equation((_term(1.0, 0, 2), _term(-4.0, 2, 0)), Data()),),
        (*ends, start),
    )
    grid = int(4 * fastest)
    return [
        poisson(
            "Poisson 1500 radians", square, lambda x, y: -(1500.0**2 + 1400.0**2) * square(x, y), UNIT, 1000,
            1e-8, 1.0, dim=2,
        ),
        Task("wave equation 100 modes", wave, (500, 1000), standing, velocity, 1e-8, 1.0, "wave"),
        poisson(
            "Poisson 3-D 300 radians", cubes, lambda x, y, z: -(9e4 + 6.25e4 + 4e4) * cubes(x, y, z), UNIT, 200, 1e-8,
            1.0, dim=3,
        ),
        poisson("1-D fast", line, lambda x: -(fastest**2) * sin(fastest * x) + 2.0, FULL, grid, 1e-8, 1.0),
        poisson("2-D fast", plane, plane_source, FULL, grid, 1e-6, 2.0, dim=2),
    ]  # fmt: skip
