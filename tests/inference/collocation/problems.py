"""The eleven published problems, and others, in normal form with exact solutions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import cos, sin

from gpkit.inference.collocation.forms import Box, Coefficient, Condition, Data, Equation, Jet, Problem, Term

PI2 = 2.0 * math.pi


def term(c, *orders, field=0):
    if callable(c):
        return Term(Coefficient(None, lambda x, p: c(*x)), Jet(field, orders))
    return Term(Coefficient(float(c)), Jet(field, orders))


def box(*ends, names="xyz"):
    return Box(tuple(names[: len(ends)]), tuple(float(a) for a, _ in ends), tuple(float(b) for _, b in ends))


def face(axis, side, value, dim, kind="dirichlet", orders=None, field=0, sign=1.0):
    orders = (0,) * dim if orders is None else orders
    return Condition(kind, axis, side, (term(sign, *orders, field=field),), Data(value))


def dirichlet(u, dim, axes=None, field=0):
    return tuple(face(j, s, u, dim, field=field) for j in (axes or range(dim)) for s in (0, 1))


@dataclass
class Case:
    problem: Problem
    grid: tuple
    exact: object  # callable, or one per field

    def error(self, posterior, count=None, field=0):
        axes = [
            torch.linspace(a, b, count or (300 if len(self.grid) < 3 else 40), dtype=torch.float64)
            for a, b in zip(self.problem.box.lower, self.problem.box.upper)
        ]
        mesh = torch.meshgrid(*axes, indexing="ij")
        exact = (self.exact[field] if isinstance(self.exact, (list, tuple)) else self.exact)(*mesh)
        got = posterior.mean_on_grid(Jet(field, (0,) * len(self.grid)), axes)
        return float((got - exact).norm() / exact.norm())


def _poisson(u, f, ends, n, d=1, nonlinear=False):
    orders = [tuple(2 if i == j else 0 for i in range(d)) for j in range(d)]
    eq = Equation(
        tuple(term(1.0, *o) for o in orders),
        Data(f),
        *(((Jet(0, (0,) * d),), lambda x, j, p: j[0] * (j[0] ** 2 - 1.0)) if nonlinear else ()),
    )
    return Case(Problem(box(*[ends] * d), ("u",), (eq,), dirichlet(u, d)), (n,) * d, u)


def published():
    def allen(u, lap):
        return lambda *x: lap(*x) + u(*x) * (u(*x) ** 2 - 1.0)

    cases = {}
    full, unit = (0.0, PI2), (0.0, 1.0)
    s100 = lambda x: sin(100 * x)
    cases["P1"] = _poisson(s100, lambda x: -1e4 * sin(100 * x), full, 400)
    cases["P2"] = _poisson(
        lambda x: sin(x) + 0.1 * sin(20 * x) + 0.05 * sin(100 * x),
        lambda x: -sin(x) - 40 * sin(20 * x) - 500 * sin(100 * x),
        unit,
        900,
    )
    u3, f3 = lambda x: sin(6 * x) * cos(100 * x), lambda x: -0.5 * (106**2 * sin(106 * x) - 94**2 * sin(94 * x))
    cases["P3"] = _poisson(u3, f3, full, 400)
    cases["P4"] = _poisson(lambda x: x * sin(200 * x), lambda x: 400 * cos(200 * x) - 4e4 * x * sin(200 * x), full, 900)
    cases["P5"] = _poisson(lambda x: sin(500 * x) - 2 * (x - 0.5) ** 2, lambda x: -25e4 * sin(500 * x) - 4, unit, 400)
    cases["A1"] = _poisson(s100, allen(s100, lambda x: -1e4 * sin(100 * x)), full, 400, nonlinear=True)
    cases["A2"] = _poisson(u3, allen(u3, f3), full, 400, nonlinear=True)
    cases["P6"] = _poisson(
        lambda x, y: sin(100 * x) * sin(100 * y), lambda x, y: -2e4 * sin(100 * x) * sin(100 * y), full, 400, 2
    )
    h = lambda s: -0.5 * (676 * sin(26 * s) - 196 * sin(14 * s))
    cases["P7"] = _poisson(
        lambda x, y: sin(6 * x) * cos(20 * x) + sin(6 * y) * cos(20 * y), lambda x, y: h(x) + h(y), full, 200, 2
    )
    a = lambda s: sin(s) + 0.1 * sin(20 * s) + cos(100 * s)
    a2 = lambda s: -sin(s) - 40 * sin(20 * s) - 1e4 * cos(100 * s)
    u = lambda x, y: a(x) * a(y)
    cases["A3"] = _poisson(u, allen(u, lambda x, y: a2(x) * a(y) + a(x) * a2(y)), unit, 400, 2, nonlinear=True)
    v = lambda x, t: sin(x - 200 * t)
    cases["V1"] = Case(
        Problem(
            box(unit, unit, names="xt"),
            ("u",),
            (Equation((term(200.0, 1, 0), term(1.0, 0, 1)), Data()),),
            (face(0, 0, v, 2), face(1, 0, v, 2, "initial")),
        ),
        (200, 200),
        v,
    )
    return cases
