"""The eleven published problems, and others, in normal form with exact solutions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import cos, exp, sin, tanh

from gpkit.inference.collocation.forms import Box, Coefficient, Condition, Data, Equation, Jet, Problem, Term

PI2 = 2.0 * math.pi
FULL, UNIT = (0.0, PI2), (0.0, 1.0)


def term(c, *orders, field=0):
    """A number or a function of the coordinates, times a derivative of a field."""
    if callable(c):
        return Term(Coefficient(None, lambda x, p: c(*x)), Jet(field, orders))
    return Term(Coefficient(float(c)), Jet(field, orders))


def box(*ends, names="xyz"):
    return Box(tuple(names[: len(ends)]), tuple(float(a) for a, _ in ends), tuple(float(b) for _, b in ends))


def unit_orders(dim, axis, order):
    return tuple(order if j == axis else 0 for j in range(dim))


def face(axis, side, value, dim, kind="dirichlet", order=0, field=0, factor=1.0):
    """factor * d^order u / dn^order = value on a face."""
    data = value if isinstance(value, Data) else Data(value)
    return Condition(kind, axis, side, (term(factor, *unit_orders(dim, axis, order), field=field),), data)


def dirichlet(u, dim, axes=None, field=0):
    return tuple(face(j, s, u, dim, field=field) for j in (range(dim) if axes is None else axes) for s in (0, 1))


def derivative(u, *orders):
    """The derivative of a torch function, by automatic differentiation at full coordinates."""

    def value(*x):
        shape = torch.broadcast_tensors(*x)[0].shape
        leaves = [c.expand(shape).clone().requires_grad_() for c in x]
        with torch.enable_grad():
            out = u(*leaves)
            for leaf, order in zip(leaves, orders, strict=True):
                for _ in range(order):
                    out = torch.autograd.grad(out.sum(), leaf, create_graph=True, materialize_grads=True)[0]
                    if not out.requires_grad:
                        out = out + 0.0 * leaf
        return out.detach()

    return value


def applied(fields, terms, remainder=None, jets=()):
    """The source that makes functions an exact solution of an equation."""

    def source(*x):
        total = 0.0
        for t in terms:
            total = total + t.coefficient(x, {}) * derivative(fields[t.jet.field], *t.jet.orders)(*x)
        if remainder is not None:
            total = total + remainder(x, [derivative(fields[j.field], *j.orders)(*x) for j in jets], {})
        return total

    return source


def manufactured(fields, terms, remainder=None, jets=()):
    """An equation that given functions solve."""
    return Equation(tuple(terms), Data(applied(fields, terms, remainder, jets)), tuple(jets), remainder)


@dataclass
class Case:
    """A problem with its exact solution, one function or one per field."""

    problem: Problem
    grid: tuple
    exact: object

    def error(self, posterior, count=None, field=0):
        """Relative L2 error on an equispaced grid that contains the ends."""
        count = count or (300 if len(self.grid) < 3 else 40)
        ends = zip(self.problem.box.lower, self.problem.box.upper, strict=True)
        axes = [torch.linspace(a, b, count, dtype=torch.float64) for a, b in ends]
        mesh = torch.meshgrid(*axes, indexing="ij")
        exact = (self.exact[field] if isinstance(self.exact, (list, tuple)) else self.exact)(*mesh)
        got = posterior.mean_on_grid(Jet(field, (0,) * len(self.grid)), axes)
        return float((got - exact).norm() / exact.norm())


def laplacian(dim, factor=1.0, field=0):
    return [term(factor, *unit_orders(dim, j, 2), field=field) for j in range(dim)]


def poisson(u, f, ends, n, dim=1, cubic=False):
    """Laplacian of u, plus u (u^2 - 1) if cubic, with Dirichlet data on a cube."""
    more = (((Jet(0, (0,) * dim),), lambda x, j, p: j[0] * (j[0] ** 2 - 1.0))) if cubic else ()
    equation = Equation(tuple(laplacian(dim)), Data(f), *more)
    return Case(Problem(box(*[ends] * dim), ("u",), (equation,), dirichlet(u, dim)), (n,) * dim, u)


def smooth(u, terms, conditions, ends, grid, **keywords):
    """A linear problem whose source comes from its solution."""
    names = keywords.pop("names", "xyz")
    problem = Problem(box(*ends, names=names), ("u",), (manufactured([u], terms),), tuple(conditions), **keywords)
    return Case(problem, grid, u)


def published():
    """P1-P7, A1-A3, V1 of the reference."""

    def cubic(u, lap):
        return lambda *x: lap(*x) + u(*x) * (u(*x) ** 2 - 1.0)

    def single(x):
        return sin(100 * x)

    def single_source(x):
        return -1e4 * sin(100 * x)

    def product(x):
        return sin(6 * x) * cos(100 * x)

    def product_source(x):
        return -0.5 * (106**2 * sin(106 * x) - 94**2 * sin(94 * x))

    def h(s):
        return -0.5 * (676 * sin(26 * s) - 196 * sin(14 * s))

    def a(s):
        return sin(s) + 0.1 * sin(20 * s) + cos(100 * s)

    def a2(s):
        return -sin(s) - 40 * sin(20 * s) - 1e4 * cos(100 * s)

    def three(x):
        return sin(x) + 0.1 * sin(20 * x) + 0.05 * sin(100 * x)

    def u3(x, y):
        return a(x) * a(y)

    def v(x, t):
        return sin(x - 200 * t)

    advection = Problem(
        box(UNIT, UNIT, names="xt"),
        ("u",),
        (Equation((term(200.0, 1, 0), term(1.0, 0, 1)), Data()),),
        (face(0, 0, v, 2), face(1, 0, v, 2, "initial")),
    )
    return {
        "P1": poisson(single, single_source, FULL, 400),
        "P2": poisson(three, lambda x: -sin(x) - 40 * sin(20 * x) - 500 * sin(100 * x), UNIT, 900),
        "P3": poisson(product, product_source, FULL, 400),
        "P4": poisson(lambda x: x * sin(200 * x), lambda x: 400 * cos(200 * x) - 4e4 * x * sin(200 * x), FULL, 900),
        "P5": poisson(lambda x: sin(500 * x) - 2 * (x - 0.5) ** 2, lambda x: -25e4 * sin(500 * x) - 4, UNIT, 400),
        "A1": poisson(single, cubic(single, single_source), FULL, 400, cubic=True),
        "A2": poisson(product, cubic(product, product_source), FULL, 400, cubic=True),
        "P6": poisson(
            lambda x, y: sin(100 * x) * sin(100 * y),
            lambda x, y: -2e4 * sin(100 * x) * sin(100 * y),
            FULL,
            400,
            2,
        ),  # fmt: skip
        "P7": poisson(
            lambda x, y: sin(6 * x) * cos(20 * x) + sin(6 * y) * cos(20 * y),
            lambda x, y: h(x) + h(y),
            FULL,
            200,
            2,
        ),  # fmt: skip
        "A3": poisson(u3, cubic(u3, lambda x, y: a2(x) * a(y) + a(x) * a2(y)), UNIT, 400, 2, cubic=True),
        "V1": Case(advection, (200, 200), v),
    }


def others():
    """Problems of other kinds: solutions that are not a few sinusoids, other equations and conditions."""
    cases = {}

    def chirp(x):
        return sin(40 * math.pi * x**2)

    def front(x):
        return tanh((x - 0.45) / 0.02)

    def packet(x):
        return exp(-(((x - 0.4) / 0.08) ** 2)) * sin(150 * x)

    def packet2(x, y):
        return exp(-(((x - 0.4) / 0.1) ** 2) - (((y - 0.6) / 0.12) ** 2)) * sin(60 * x + 50 * y)

    for name, u in (("chirp", chirp), ("front", front), ("packet", packet)):
        cases[name] = smooth(u, laplacian(1), dirichlet(u, 1), [UNIT], (400,))
    cases["packet 2-D"] = smooth(packet2, laplacian(2), dirichlet(packet2, 2), [UNIT] * 2, (400, 400))

    def front2(x, y):
        return tanh((x + 0.6 * y - 0.8) / 0.05)

    cases["front 2-D"] = smooth(front2, laplacian(2), dirichlet(front2, 2), [UNIT] * 2, (400, 400))

    def bump(x, y):
        return sin(3 * x + 1) * exp(y) + x * y**2

    both = [
        face(0, 0, derivative(bump, 1, 0), 2, "neumann", 1),
        Condition("robin", 0, 1, (term(2.0, 0, 0), term(1.0, 1, 0)),
                  Data(lambda x, y: 2 * bump(x, y) + derivative(bump, 1, 0)(x, y))),
        *dirichlet(bump, 2, axes=[1]),
    ]  # fmt: skip
    cases["mixed conditions"] = smooth(bump, laplacian(2), both, [UNIT, (-1.0, 2.0)], (60, 60))
    cases["neumann with reaction"] = smooth(
        bump, [*laplacian(2), term(-3.0, 0, 0)],
        [face(j, s, derivative(bump, *unit_orders(2, j, 1)), 2, "neumann", 1) for j in (0, 1) for s in (0, 1)],
        [UNIT, UNIT], (60, 60),
    )  # fmt: skip

    def wave_like(x, y):
        return exp(sin(2 * math.pi * x)) * cos(3 * y)

    cases["periodic"] = smooth(
        wave_like, laplacian(2), dirichlet(wave_like, 2, axes=[1]), [UNIT, UNIT], (60, 60), periodic=frozenset({0})
    )
    cases["periodic transport"] = smooth(
        lambda x, t: exp(sin(2 * math.pi * (x - t))), [term(1.0, 1, 0), term(1.0, 0, 1)],
        [face(1, 0, lambda x, t: exp(sin(2 * math.pi * (x - t))), 2, "initial")],
        [UNIT, UNIT], (80, 80), periodic=frozenset({0}), names="xt",
    )  # fmt: skip

    def heat(x, t):
        return exp(-t) * sin(math.pi * x) + 0.3 * exp(-9 * t) * sin(3 * math.pi * x)

    cases["heat"] = smooth(
        heat, [term(1.0, 0, 1), term(-0.1, 2, 0)],
        [*dirichlet(heat, 2, axes=[0]), face(1, 0, heat, 2, "initial")], [UNIT, UNIT], (60, 60), names="xt",
    )  # fmt: skip

    def travelling(x, t):
        return sin(5 * math.pi * (x - 2 * t)) + cos(3 * (x + 2 * t))

    cases["wave"] = smooth(
        travelling, [term(1.0, 0, 2), term(-4.0, 2, 0)],
        [*dirichlet(travelling, 2, axes=[0]), face(1, 0, travelling, 2, "initial"),
         face(1, 0, derivative(travelling, 0, 1), 2, "initial", 1)], [UNIT, UNIT], (80, 80), names="xt",
    )  # fmt: skip

    def beam(x):
        return sin(12 * x) * exp(-x) + x**3

    ends = [face(0, 0, beam, 1), face(0, 0, derivative(beam, 1), 1, "neumann", 1), face(0, 1, beam, 1),
            face(0, 1, derivative(beam, 2), 1, "neumann", 2)]  # fmt: skip
    cases["beam"] = smooth(beam, [term(1.0, 4), term(-2.0, 2)], ends, [UNIT], (200,))

    def plate(x, y):
        return sin(4 * x + 1) * cos(3 * y) + x * y

    biharmonic = [term(1.0, 4, 0), term(2.0, 2, 2), term(1.0, 0, 4)]
    clamped = [*dirichlet(plate, 2)] + [
        face(j, s, derivative(plate, *unit_orders(2, j, 1)), 2, "neumann", 1) for j in (0, 1) for s in (0, 1)
    ]
    cases["clamped plate"] = smooth(plate, biharmonic, clamped, [UNIT, UNIT], (60, 60))
    supported = [*dirichlet(plate, 2)] + [
        face(j, s, derivative(plate, *unit_orders(2, j, 2)), 2, "neumann", 2) for j in (0, 1) for s in (0, 1)
    ]
    cases["supported plate"] = smooth(plate, biharmonic, supported, [UNIT, UNIT], (60, 60))

    def layer(x):
        return (1 - exp((x - 1) / 0.02)) * sin(3 * x)

    cases["boundary layer"] = smooth(layer, [term(-0.02, 2), term(1.0, 1)], dirichlet(layer, 1), [UNIT], (400,))
    cases["variable 1-D"] = smooth(
        chirp, [term(lambda x: 1 + 0.9 * sin(8 * x), 2), term(lambda x: 7.2 * cos(8 * x), 1), term(exp, 0)],
        dirichlet(chirp, 1), [UNIT], (400,),
    )  # fmt: skip
    cases["variable 2-D"] = smooth(
        bump, [term(lambda x, y: 1 + 0.5 * sin(3 * x * y), 2, 0), term(lambda x, y: exp(x - y), 0, 2), term(0.4, 1, 1),
               term(lambda x, y: x + y, 0, 0)],
        dirichlet(bump, 2), [UNIT, UNIT], (80, 80),
    )  # fmt: skip
    cases["high contrast"] = smooth(
        packet2, [term(lambda x, y: exp(3 * sin(4 * x) * cos(5 * y)), 2, 0),
                  term(lambda x, y: exp(3 * sin(4 * x) * cos(5 * y)), 0, 2)],
        dirichlet(packet2, 2), [UNIT, UNIT], (200, 200),
    )  # fmt: skip
    cases["helmholtz"] = smooth(
        packet2, [*laplacian(2), term(900.0, 0, 0)], dirichlet(packet2, 2), [UNIT, UNIT], (200, 200)
    )

    def second(x):
        return exp(x) * cos(9 * x)

    coupled = (
        manufactured([chirp, second], [term(1.0, 2), term(5.0, 0, field=1)]),
        manufactured([chirp, second], [term(1.0, 2, field=1), term(-3.0, 1), term(lambda x: x, 0, field=1)]),
    )
    cases["coupled"] = Case(
        Problem(box(UNIT), ("u", "v"), coupled, (*dirichlet(chirp, 1), *dirichlet(second, 1, field=1))),
        (300,), (chirp, second),
    )  # fmt: skip
    first_order = (
        manufactured([travelling, plate], [term(1.0, 0, 1), term(-2.0, 1, 0, field=1)]),
        manufactured([travelling, plate], [term(1.0, 0, 1, field=1), term(-2.0, 1, 0)]),
    )
    cases["acoustics"] = Case(
        Problem(box(UNIT, UNIT, names="xt"), ("u", "v"), first_order,
                (*dirichlet(travelling, 2, axes=[0]), face(1, 0, travelling, 2, "initial"),
                 face(1, 0, plate, 2, "initial", field=1))),
        (40, 40), (travelling, plate),
    )  # fmt: skip

    def shock(x, t):
        return 1.0 - tanh((x - 0.3 - 0.4 * t) / 0.1)

    jets = (Jet(0, (0, 0)), Jet(0, (1, 0)))
    burgers = manufactured([shock], [term(1.0, 0, 1), term(-0.02, 2, 0)], lambda x, j, p: j[0] * j[1], jets)
    cases["burgers"] = Case(
        Problem(box(UNIT, UNIT, names="xt"), ("u",), (burgers,),
                (*dirichlet(shock, 2, axes=[0]), face(1, 0, shock, 2, "initial"))),
        (100, 100), shock,
    )  # fmt: skip
    liouville = manufactured(
        [bump], laplacian(2), lambda x, j, p: exp(0.3 * j[0]) + j[1] ** 2, (Jet(0, (0, 0)), Jet(0, (1, 0)))
    )
    cases["nonlinear gradient"] = Case(
        Problem(box(UNIT, UNIT), ("u",), (liouville,), dirichlet(bump, 2)), (60, 60), bump
    )
    cases["overdetermined transport"] = smooth(
        lambda x, t: sin(7 * (x - 2 * t)), [term(2.0, 1, 0), term(1.0, 0, 1)],
        dirichlet(lambda x, t: sin(7 * (x - 2 * t)), 2), [UNIT, UNIT], (60, 60), names="xt",
    )  # fmt: skip
    cases["oblique"] = smooth(
        bump, laplacian(2),
        [*dirichlet(bump, 2, axes=[1]), face(0, 0, bump, 2),
         Condition("robin", 0, 1, (term(lambda x, y: 1 + y**2, 0, 0), term(1.0, 1, 0), term(0.5, 0, 1)),
                   Data(applied([bump], [term(lambda x, y: 1 + y**2, 0, 0), term(1.0, 1, 0), term(0.5, 0, 1)])))],
        [UNIT, UNIT], (40, 40),
    )  # fmt: skip

    def cube(x, y, z):
        return sin(20 * x) * cos(15 * y) * sin(18 * z + 1) + x * y * z

    def cube_source(x, y, z):
        return -(400.0 + 225.0 + 324.0) * sin(20 * x) * cos(15 * y) * sin(18 * z + 1)

    cases["poisson 3-D"] = poisson(cube, cube_source, UNIT, 100, 3)

    def diffusing(x, y, t):
        return sin(math.pi * x) * sin(2 * math.pi * y) * exp(-t) + x * y

    cases["heat 2-D"] = smooth(
        diffusing, [term(1.0, 0, 0, 1), term(-0.1, 2, 0, 0), term(-0.1, 0, 2, 0)],
        [*dirichlet(diffusing, 3, axes=[0, 1]), face(2, 0, diffusing, 3, "initial")],
        [UNIT] * 3, (30, 30, 30), names="xyt",
    )  # fmt: skip
    return cases


def sums(*parts):
    return lambda x: sum(a * sin(w * x + p) for a, w, p in parts)


def line(u, *more, grid=400, ends=UNIT):
    return smooth(u, [term(1.0, 2), *more], dirichlet(u, 1), [ends], (grid,))


def points_of(case, count=200, seed=0):
    rng = np.random.default_rng(seed)
    ends = zip(case.problem.box.lower, case.problem.box.upper, strict=True)
    return torch.from_numpy(np.stack([rng.uniform(a, b, count) for a, b in ends], axis=1))


def covered(case, posterior, widths=2.0, field=0):
    """Share of points where the error is less than some standard deviations."""
    x, value = points_of(case), Jet(field, (0,) * len(case.grid))
    exact = (case.exact[field] if isinstance(case.exact, (tuple, list)) else case.exact)(*x.T)
    error = (posterior.mean(value, x) - exact).abs()
    return float((error <= widths * posterior.variance(value, x).sqrt()).double().mean())
