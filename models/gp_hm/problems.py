"""The eleven problems of the paper: fields, equations, conditions and known solutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.models.pde import PDE, Box, Dirichlet, Field, Initial, d, dt, laplacian

Function = Callable[..., Tensor]
PERIOD = 2.0 * math.pi


@dataclass(frozen=True)
class Known:
    """A problem with its solution: the ends of its axes, u, and the right side of its linear part, L u."""

    text: str
    ends: tuple[tuple[float, float], ...]
    exact: Function
    linear: Function
    kind: str = "poisson"  # or "allen-cahn" or "advection"

    def problem(self) -> PDE:
        """Stated for gpkit, with Dirichlet data on the whole boundary, or initial and inflow data only."""
        names = "xt" if self.kind == "advection" else "xy"
        u = Field("u", Box(**dict(zip(names, self.ends, strict=False))))
        if self.kind == "advection":
            data = [Initial(u, "t=0", self.exact), Dirichlet(u.on("x=0"), self.exact)]
            return PDE(200 * d(u, "x") + dt(u) == 0, data)
        if self.kind == "allen-cahn":
            return PDE(laplacian(u) + u * (u**2 - 1) == self.source, Dirichlet(u, self.exact))
        return PDE(laplacian(u) == self.source, Dirichlet(u, self.exact))

    def source(self, *x: Tensor) -> Tensor:
        """The right side of the equation."""
        if self.kind != "allen-cahn":
            return self.linear(*x)
        u = self.exact(*x)
        return self.linear(*x) + u * (u**2 - 1)


def a(s: Tensor) -> Tensor:
    return torch.sin(s) + 0.1 * torch.sin(20 * s) + torch.cos(100 * s)


def a2(s: Tensor) -> Tensor:
    return -torch.sin(s) - 40 * torch.sin(20 * s) - 1e4 * torch.cos(100 * s)


def h(s: Tensor) -> Tensor:
    return torch.sin(6 * s) * torch.cos(20 * s)


def h2(s: Tensor) -> Tensor:
    return -0.5 * (676 * torch.sin(26 * s) - 196 * torch.sin(14 * s))


def modulated(x: Tensor) -> Tensor:
    return torch.sin(6 * x) * torch.cos(100 * x)


def modulated2(x: Tensor) -> Tensor:
    return -0.5 * (106**2 * torch.sin(106 * x) - 94**2 * torch.sin(94 * x))


LONG, UNIT = (0.0, PERIOD), (0.0, 1.0)
sin, cos = torch.sin, torch.cos

PROBLEMS = {
    "P1": Known("sin 100x", (LONG,), lambda x: sin(100 * x), lambda x: -1e4 * sin(100 * x)),
    "P2": Known(
        "sin x + 0.1 sin 20x + 0.05 sin 100x",
        (UNIT,),
        lambda x: sin(x) + 0.1 * sin(20 * x) + 0.05 * sin(100 * x),
        lambda x: -sin(x) - 40 * sin(20 * x) - 500 * sin(100 * x),
    ),
    "P3": Known("sin 6x cos 100x", (LONG,), modulated, modulated2),
    "P4": Known(
        "x sin 200x", (LONG,), lambda x: x * sin(200 * x), lambda x: 400 * cos(200 * x) - 4e4 * x * sin(200 * x)
    ),
    "P5": Known(
        "sin 500x - 2 (x - 1/2)^2",
        (UNIT,),
        lambda x: sin(500 * x) - 2 * (x - 0.5) ** 2,
        lambda x: -25e4 * sin(500 * x) - 4,
    ),
    "P6": Known(
        "sin 100x sin 100y",
        (LONG, LONG),
        lambda x, y: sin(100 * x) * sin(100 * y),
        lambda x, y: -2e4 * sin(100 * x) * sin(100 * y),
    ),
    "P7": Known("sin 6x cos 20x + sin 6y cos 20y", (LONG, LONG), lambda x, y: h(x) + h(y), lambda x, y: h2(x) + h2(y)),
    "A1": Known("sin 100x", (LONG,), lambda x: sin(100 * x), lambda x: -1e4 * sin(100 * x), "allen-cahn"),
    "A2": Known("sin 6x cos 100x", (LONG,), modulated, modulated2, "allen-cahn"),
    "A3": Known(
        "a(x) a(y)",
        (UNIT, UNIT),
        lambda x, y: a(x) * a(y),
        lambda x, y: a2(x) * a(y) + a(x) * a2(y),
        "allen-cahn",
    ),
    "V1": Known(
        "sin(x - 200t)", (UNIT, UNIT), lambda x, t: sin(x - 200 * t), lambda x, t: torch.zeros(()), "advection"
    ),
}
