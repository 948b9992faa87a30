"""Waves of picked frequencies: the basis, the search for them, and solutions on them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import cos, exp, sin

from gpkit.inference.collocation.bases import LegendreBasis
from gpkit.inference.collocation.forms import Data, Equation, Jet, Problem, evaluate_on_grid
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.picked.basis import PickedBasis, Wave, projection
from gpkit.inference.collocation.picked.plan import Plan, homogeneous
from gpkit.inference.collocation.spectral.engine import solve
from tests.inference.collocation.problems import (
    FULL,
    UNIT,
    box,
    covered,
    derivative,
    dirichlet,
    face,
    line,
    others,
    points_of,
    published,
    smooth,
    sums,
    term,
    unit_orders,
)
from tests.inference.collocation.problems import laplacian as terms_of_laplacian

PUBLISHED, OTHERS = published(), others()
WAVES = (Wave(degree=6), Wave(40.0, degree=3), Wave(0.0, -30.0), Wave(25.0, 12.0, 1))


# ------------------------------------------------------------------------------------------------------- the basis


def test_functions_are_orthonormal_and_span_the_waves():
    basis = PickedBasis(-1.0, 2.0, WAVES)
    x, w = np.polynomial.legendre.leggauss(400)
    x, w = 0.5 + 1.5 * x, 1.5 * w
    table = basis.evaluate(x)
    np.testing.assert_allclose(table.T @ (w[:, None] * table), np.eye(basis.size), atol=1e-11)
    assert basis.size == basis.offered == 7 + 8 + 1 + 4
    for function in (
        x**6,
        x**3 * np.sin(40.0 * x),
        np.exp(-30.0 * (x + 1.0)),
        np.exp(12.0 * (x - 2.0)) * np.cos(25.0 * x),
    ):
        left = function - table @ (table.T @ (w * function))
        assert np.abs(left).max() < 1e-10 * np.abs(function).max()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_the_functions(order):
    basis = PickedBasis(-1.0, 2.0, WAVES)
    x = np.linspace(-1.0, 2.0, 41)
    # A polynomial through Chebyshev points is an oracle that knows nothing of waves.
    nodes = np.polynomial.chebyshev.chebpts1(220)
    fitted = np.polynomial.chebyshev.chebfit(nodes, basis.evaluate(0.5 + 1.5 * nodes), 219)
    expected = (
        np.polynomial.chebyshev.chebval((x - 0.5) / 1.5, np.polynomial.chebyshev.chebder(fitted, order)).T / 1.5**order
    )
    got = basis.evaluate(x, order)
    assert np.abs(got - expected).max() < 1e-11 * 220.0 ** (2 * order)
    closed = basis.evaluate(x) @ basis.derivative(order)
    assert np.abs(got - closed).max() < 1e-9 * np.abs(got).max()


def test_larger_bases_begin_with_the_same_functions():
    basis = PickedBasis(0.0, 1.0, (Wave(degree=8), Wave(300.0, degree=4)), (Wave(300.0, 0.0, 7, 5), Wave(90.0)))
    x = np.linspace(0.0, 1.0, 50)
    larger = basis.grown()
    assert larger.size == basis.size + 6 + 2
    assert np.array_equal(larger.resized(basis.size).evaluate(x), basis.evaluate(x))
    np.testing.assert_allclose(larger.evaluate(x)[:, : basis.size], basis.evaluate(x), atol=1e-12)
    assert np.array_equal(basis.resized(5).evaluate(x), basis.evaluate(x)[:, :5])
    np.testing.assert_allclose(projection(larger, basis), np.eye(larger.size, basis.size), atol=1e-12)


def test_functions_that_others_nearly_make_are_left_out():
    twice = PickedBasis(0.0, 1.0, (Wave(degree=8), Wave(50.0, degree=2), Wave(50.0 + 1e-9, degree=2)))
    assert twice.offered == 21 and twice.size == 15
    polynomials, same = LegendreBasis(0.0, 1.0, 9), PickedBasis(0.0, 1.0, (Wave(degree=8),))
    matrix = projection(same, polynomials)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(9), atol=1e-13)


@pytest.mark.parametrize(
    "waves", [WAVES, (Wave(degree=8), Wave(6e4, degree=4)), (Wave(degree=30), Wave(500.0, degree=12))]
)
def test_nodes_tell_waves_apart(waves):
    basis = PickedBasis(0.0, 1.0, waves)
    x, weights = basis.nodes(3 * basis.size)
    assert (np.diff(x) > 0.0).all() and weights.sum() == pytest.approx(1.0)
    assert np.linalg.cond(basis.evaluate(x) * np.sqrt(weights)[:, None]) < 10.0


# -------------------------------------------------------------------------------------------------------- the plan


def test_frequencies_that_are_close_share_a_carrier():
    plan = Plan(0.0, 1.0, broadband=500)
    for frequency in (80.0, 80.6, 20.0):
        plan.add(frequency)
    assert plan.is_picked and len(plan.frequencies()) == 2
    assert sorted(plan.frequencies())[1] == pytest.approx(80.3)
    before = plan.count
    plan.add(80.2)  # is there
    assert plan.count == before
    plan.add(80.2, insist=True)
    assert plan.count > before
    plan.add(1.0)  # polynomials hold it
    assert len(plan.frequencies()) == 2


def test_polynomials_are_taken_where_they_are_fewer():
    plan = Plan(0.0, 1.0, broadband=30)
    plan.add(4.0)
    assert not plan.is_picked and plan.frequencies() == () and isinstance(plan.basis(), LegendreBasis)


def test_solutions_of_the_equation_without_source_are_waves():
    decaying = Problem(box(UNIT), ("u",), (Equation((term(1.0, 2), term(-900.0, 0)), Data()),), dirichlet(sin, 1))
    found = homogeneous(Layout(decaying), [Plan(0.0, 1.0)], 0)
    assert sorted(w.rate for w in found) == pytest.approx([-30.0, 30.0]) and {w.omega for w in found} == {0.0}
    heat = Problem(
        box(UNIT, UNIT, names="xt"), ("u",), (Equation((term(1.0, 0, 1), term(-0.01, 2, 0)), Data()),),
        dirichlet(lambda x, t: 0.0 * x, 2, axes=[0]),
    )  # fmt: skip
    plans = [Plan(0.0, 1.0, broadband=900), Plan(0.0, 1.0)]
    plans[0].add(50.0 / math.pi)
    (wave,) = homogeneous(Layout(heat), plans, 1)
    assert wave.rate == pytest.approx(-100.0) and wave.omega == 0.0


# ------------------------------------------------------------------------------------------------------ solutions


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_problems_on_picked_waves(name):
    case = PUBLISHED[name]
    posterior = solve(case.problem, case.grid, basis="picked")
    assert case.error(posterior) < 2e-9
    found = posterior.diagnostics["basis"]
    assert found["chosen"] == "picked" and found["tried"][0]["residual"] < 1e-11
    assert max(found["kept"]) < 60 and all(k <= o for k, o in zip(found["kept"], found["offered"], strict=True))
    assert posterior.diagnostics["trusted"] and posterior.diagnostics["reasons"] == []
    assert covered(case, posterior) == 1.0


@pytest.mark.parametrize("name", ["P2", "P7"])
def test_the_solution_is_that_of_plain_least_squares_on_the_same_functions(name):
    """Oracle: rows of equation and conditions at points of its own, and numpy's solver."""
    case = PUBLISHED[name]
    posterior = solve(case.problem, case.grid, basis="picked")
    rng = np.random.default_rng(3)
    dim, bases = len(case.grid), posterior.bases
    functions = math.prod(b.size for b in bases)

    def rows(points, orders):
        out = np.ones((len(points), 1))
        for j, basis in enumerate(bases):
            out = (out[:, :, None] * basis.evaluate(points[:, j], orders[j])[:, None, :]).reshape(len(points), -1)
        return out

    lower, upper = np.array(case.problem.box.lower), np.array(case.problem.box.upper)
    inside = rng.uniform(lower, upper, (3 * functions, dim))
    left = sum(rows(inside, unit_orders(dim, j, 2)) for j in range(dim))
    right = case.problem.equations[0].source.function(*torch.from_numpy(inside.T)).numpy()
    scale = np.abs(right).max()
    blocks, values = [left / scale], [right / scale]
    for j in range(dim):
        for end in (lower[j], upper[j]):
            face_points = rng.uniform(lower, upper, (200 if dim > 1 else 1, dim))
            face_points[:, j] = end
            blocks.append(rows(face_points, (0,) * dim))
            values.append(case.exact(*torch.from_numpy(face_points.T)).numpy())
    solution = np.linalg.lstsq(np.concatenate(blocks), np.concatenate(values), rcond=1e-14)[0]
    x = points_of(case)
    got = posterior.mean(Jet(0, (0,) * dim), x).numpy()
    np.testing.assert_allclose(got, rows(x.numpy(), (0,) * dim) @ solution, atol=1e-9)


def standing(x, t):
    return sin(200 * math.pi * x) * cos(400 * math.pi * t)


def decaying(x, t):
    return sin(200 * math.pi * x) * exp(-0.001 * (200 * math.pi) ** 2 * t)


def moving(x, t):
    return sin(2 * math.pi * 150 * (x - t))


def half(x, y):
    return cos(300 * x) * exp(sin(2 * math.pi * y)) + sin(5 * y)


def plane(x, y):
    return sin(200 * x + 170 * y) + cos(150 * x - 90 * y)


def cube(x, y, z):
    return sin(300 * x) * cos(250 * y) * sin(200 * z + 1)


HARD = {
    "frequencies 1 % apart": line(sums((1, 2 * math.pi * 80, 0), (1, 2 * math.pi * 80.8, 1))),
    "frequencies 1.00 and 1.01": line(sums((1, 2 * math.pi, 0), (1, 2 * math.pi * 1.01, 1))),
    "no common period": line(sums((1, 99.0, 0), (0.3, 346.4, 1), (1, 27.2, 0)), grid=500, ends=(0.0, 1.7)),
    "homogeneous solution of another frequency": line(sums((1, 100, 0), (0.5, 300, 0.3)), term(9e4, 0)),
    "frequency that the source is weak in": line(sums((1, 3000, 0), (1, 40, 0)), grid=4000),
    "wave": smooth(
        standing, [term(1.0, 0, 2), term(-4.0, 2, 0)],
        [*dirichlet(standing, 2, axes=[0]), face(1, 0, standing, 2, "initial"),
         face(1, 0, derivative(standing, 0, 1), 2, "initial", 1)], [UNIT, UNIT], (500, 1000), names="xt",
    ),
    "heat": smooth(
        decaying, [term(1.0, 0, 1), term(-0.001, 2, 0)],
        [*dirichlet(decaying, 2, axes=[0]), face(1, 0, decaying, 2, "initial")], [UNIT, (0.0, 0.05)], (600, 400),
        names="xt",
    ),
    "periodic transport": smooth(
        moving, [term(1.0, 1, 0), term(1.0, 0, 1)], [face(1, 0, moving, 2, "initial")], [UNIT, UNIT], (600, 600),
        periodic=frozenset({0}), names="xt",
    ),
    "waves along one axis": smooth(half, terms_of_laplacian(2), dirichlet(half, 2), [UNIT] * 2, (800, 100)),
    "oblique waves": smooth(plane, terms_of_laplacian(2), dirichlet(plane, 2), [UNIT] * 2, (400, 400)),
    "three dimensions": smooth(cube, terms_of_laplacian(3), dirichlet(cube, 3), [UNIT] * 3, (300, 300, 300)),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_what_few_waves_hold(name):
    case = HARD[name]
    posterior = solve(case.problem, case.grid, basis="picked")
    assert case.error(posterior) < 2e-10
    assert posterior.diagnostics["trusted"] and posterior.diagnostics["residual"] < 1e-11
    assert covered(case, posterior) == 1.0
    assert math.prod(posterior.diagnostics["basis"]["kept"]) < 7000


@pytest.mark.parametrize(
    "name", ["coupled", "nonlinear gradient", "mixed conditions", "variable 2-D", "oblique", "beam", "heat 2-D"]
)
def test_smooth_problems_of_every_kind_are_polynomials_of_the_same_engine(name):
    case = OTHERS[name]
    posterior = solve(case.problem, case.grid, basis="picked")
    assert posterior.diagnostics["trusted"]
    for f in range(len(case.problem.fields)):
        assert case.error(posterior, field=f) < 1e-8
        assert covered(case, posterior, widths=3.0, field=f) == 1.0


def cubic(amplitude, frequency, strength):
    value = (Jet(0, (0,)),)
    equation = Equation(
        (term(1.0, 2),), Data(lambda x: amplitude * sin(frequency * x)), value, lambda x, j, p: strength * j[0] ** 3
    )
    return Problem(box(FULL), ("u",), (equation,), dirichlet(lambda x: 0.0 * x, 1))


def test_harmonics_that_products_make_are_picked_from_the_residual():
    problem = cubic(3e4, 100.0, 1.0)
    found = solve(problem, (1200,), basis="picked")
    other = solve(problem, (1200,), basis="broadband")
    rounds = found.diagnostics["basis"]["tried"][0]["rounds"]
    assert len(rounds) > 1 and rounds[0] > 1e-5 and found.diagnostics["residual"] < 1e-11
    frequencies = np.array(found.diagnostics["frequencies"][0]) * 2.0 * math.pi
    assert np.abs(frequencies - 100.0).min() < 5.0 and np.abs(frequencies - 300.0).min() < 5.0
    assert found.diagnostics["sizes"][0] < 0.1 * other.diagnostics["sizes"][0]
    x, value = torch.linspace(0.0, 2.0 * math.pi, 301)[:, None], Jet(0, (0,))
    apart = (found.mean(value, x) - other.mean(value, x)).abs()
    assert bool((apart <= 3.0 * (found.variance(value, x) + other.variance(value, x)).sqrt()).all())
    assert float(apart.max()) < 1e-8 * float(other.mean(value, x).abs().max())


def test_draws_and_derivatives():
    case = HARD["oblique waves"]
    posterior = solve(case.problem, case.grid, basis="picked")
    x = points_of(case, 20)
    for orders in ((1, 0), (0, 2), (1, 1)):
        expected = derivative(plane, *orders)(*x.T)
        size = float(expected.abs().max())
        torch.testing.assert_close(posterior.mean(Jet(0, orders), x), expected, atol=1e-9 * size, rtol=0.0)
    axes = [torch.linspace(0.0, 1.0, 5), torch.linspace(0.0, 1.0, 4)]
    mesh = torch.stack([m.ravel() for m in torch.meshgrid(*axes, indexing="ij")], dim=1)
    jet, value = Jet(0, (0, 1)), Jet(0, (0, 0))
    torch.testing.assert_close(posterior.mean_on_grid(jet, axes).ravel(), posterior.mean(jet, mesh))
    draws = posterior.sample(400, torch.Generator().manual_seed(1))(value, x)
    spread = posterior.variance(value, x).sqrt()
    assert float((draws.std(0) / spread - 1.0).abs().max()) < 0.2
    z = (draws.mean(0) - posterior.mean(value, x)) / (spread / 20.0)
    assert float(z.abs().max()) < 4.5


@pytest.mark.parametrize("name", ["P1", "P6"])
def test_gridded_sources_are_picked_from_their_interpolant(name):
    case = PUBLISHED[name]
    ends = zip(case.problem.box.lower, case.problem.box.upper, case.grid, strict=True)
    axes = tuple(torch.linspace(a, b, n) for a, b, n in ends)
    equation = case.problem.equations[0]
    values = evaluate_on_grid(equation.source.function, axes, "the source")
    gridded = dataclasses.replace(equation, source=Data(values=values, axes=axes))
    posterior = solve(dataclasses.replace(case.problem, equations=(gridded,)), case.grid, basis="picked")
    assert case.error(posterior) < 1e-8 and covered(case, posterior, widths=3.0) > 0.98
