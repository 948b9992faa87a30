"""The spectral solver on problems with exact solutions, and what it says where it cannot solve them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import cos, exp, sin

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.forms import (
    Condition,
    Data,
    Equation,
    Jet,
    Observation,
    Problem,
    evaluate_on_grid,
)
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.spectral.discretisation import Discretisation
from gpkit.inference.collocation.spectral.engine import solve
from gpkit.inference.collocation.spectral.linearised import Collocation
from gpkit.inference.collocation.spectral.newton import continued, newton
from tests.inference.collocation.problems import (
    UNIT,
    box,
    derivative,
    dirichlet,
    face,
    laplacian,
    manufactured,
    others,
    poisson,
    published,
    smooth,
    term,
    unit_orders,
)

PUBLISHED, OTHERS = published(), others()
ASKED = {"P1": 1e-8, "P2": 1e-8, "P3": 1e-8, "P4": 1e-8, "P5": 1e-8, "P6": 1e-10, "P7": 1e-10}
ASKED |= {"A1": 1e-8, "A2": 1e-8, "A3": 1e-7, "V1": 1e-7}


def bump(x, y):
    return sin(3 * x + 1) * exp(y) + x * y**2


def zero(*x):
    return 0.0 * x[0]


def random_points(case, count=200, seed=0):
    rng = np.random.default_rng(seed)
    ends = zip(case.problem.box.lower, case.problem.box.upper, strict=True)
    return torch.from_numpy(np.stack([rng.uniform(a, b, count) for a, b in ends], axis=1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_problems(name):
    case = PUBLISHED[name]
    posterior = solve(case.problem, case.grid)
    assert case.error(posterior) < ASKED[name]
    assert posterior.diagnostics["trusted"] and posterior.diagnostics["reasons"] == []
    assert min(posterior.diagnostics["points_per_period"]) > 2.5


SLOW = {"burgers", "acoustics"}  # under the run-time checks of types, which hooks every call


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in OTHERS])
def test_other_problems_and_what_is_uncertain_of_them(name):
    case = OTHERS[name]
    posterior = solve(case.problem, case.grid)
    assert posterior.diagnostics["trusted"]
    x, zeros = random_points(case), (0,) * len(case.grid)
    for f in range(len(case.problem.fields)):
        assert case.error(posterior, field=f) < 1e-9
        exact = (case.exact[f] if isinstance(case.exact, tuple) else case.exact)(*x.T)
        mean, variance = posterior.mean(Jet(f, zeros), x), posterior.variance(Jet(f, zeros), x)
        assert bool(((mean - exact).abs() <= 3.0 * variance.sqrt()).all())


COARSE = {
    "P1": 220, "P5": 170, "P6": 200, "chirp": 55, "front": 100, "packet": 60, "packet 2-D": 30, "front 2-D": 30,
    "wave": 12, "variable 1-D": 60, "V1": 60, "helmholtz": 40, "oblique": 8,
}  # fmt: skip


@pytest.mark.parametrize("name", COARSE)
def test_the_standard_deviation_bounds_the_error_of_coarse_grids(name):
    case = {**PUBLISHED, **OTHERS}[name]
    posterior = solve(case.problem, (COARSE[name],) * len(case.grid))
    x, value = random_points(case), Jet(0, (0,) * len(case.grid))
    error = (posterior.mean(value, x) - case.exact(*x.T)).abs()
    spread = posterior.variance(value, x).sqrt()
    assert bool((error <= 2.0 * spread).double().mean() >= 0.98)
    # It is a bound and not a confession of ignorance: within two orders of magnitude of the error.
    assert float(spread.square().mean().sqrt()) < 300.0 * float(error.square().mean().sqrt())
    trusted = posterior.diagnostics["trusted"]
    relative = float(error.norm() / case.exact(*x.T).norm())
    assert not (trusted and relative > 1e-5)


@pytest.mark.parametrize(("name", "n"), [("P1", 150), ("P6", 120), ("chirp", 30), ("V1", 50), ("A1", 150)])
def test_grids_below_two_points_per_period_are_never_trusted(name, n):
    case = {**PUBLISHED, **OTHERS}[name]
    posterior = solve(case.problem, (n,) * len(case.grid))
    assert not posterior.diagnostics["trusted"]
    assert any("points per period" in reason for reason in posterior.diagnostics["reasons"])
    assert any("residual" in reason for reason in posterior.diagnostics["reasons"])


def test_derivatives_of_the_mean_are_those_of_the_solution():
    case = OTHERS["mixed conditions"]
    posterior = solve(case.problem, case.grid)
    x = random_points(case)
    for orders in ((1, 0), (0, 1), (2, 0), (1, 1)):
        expected = derivative(bump, *orders)(*x.T)
        torch.testing.assert_close(posterior.mean(Jet(0, orders), x), expected, atol=1e-7, rtol=1e-7)
    axes = [torch.linspace(0.0, 1.0, 5), torch.linspace(-1.0, 2.0, 4)]
    mesh = torch.stack([m.ravel() for m in torch.meshgrid(*axes, indexing="ij")], dim=1)
    value = Jet(0, (0, 1))
    torch.testing.assert_close(posterior.mean_on_grid(value, axes).ravel(), posterior.mean(value, mesh))
    torch.testing.assert_close(posterior.variance_on_grid(value, axes).ravel(), posterior.variance(value, mesh))


@pytest.mark.parametrize("name", ["packet 2-D", "oblique"], ids=["coefficients", "dense"])
def test_draws_have_the_mean_and_the_variance_of_the_posterior(name):
    case = OTHERS[name]
    posterior = solve(case.problem, (30, 30) if name == "packet 2-D" else (9, 9))
    x, value = random_points(case, 20), Jet(0, (0, 0))
    draws = posterior.sample(600, torch.Generator().manual_seed(1))(value, x)
    again = posterior.sample(600, torch.Generator().manual_seed(1))(value, x)
    assert torch.equal(draws, again)
    spread = posterior.variance(value, x).sqrt()
    z = (draws.mean(0) - posterior.mean(value, x)) / (spread / math.sqrt(600))
    assert float(z.abs().max()) < 4.5
    assert float((draws.std(0) / spread - 1.0).abs().max()) < 0.15


def test_sizes_are_found_and_do_not_depend_on_the_grid():
    case = PUBLISHED["P2"]
    sizes = {solve(case.problem, (n,)).diagnostics["sizes"] for n in (400, 900, 3000)}
    assert len({s[0] // 10 for s in sizes}) == 1 and max(sizes)[0] < 130


@pytest.mark.parametrize("name", ["P1", "P4", "P6", "chirp", "packet 2-D"])
def test_gridded_sources(name):
    case = {**PUBLISHED, **OTHERS}[name]
    ends = zip(case.problem.box.lower, case.problem.box.upper, case.grid, strict=True)
    axes = tuple(torch.linspace(a, b, n) for a, b, n in ends)
    equation = case.problem.equations[0]
    values = evaluate_on_grid(equation.source.function, axes, "the source")
    gridded = dataclasses.replace(equation, source=Data(values=values, axes=axes))
    posterior = solve(dataclasses.replace(case.problem, equations=(gridded,)), case.grid)
    assert case.error(posterior) < 1e-8


def test_unknown_parameters_are_given_by_value():
    from gpkit.inference.collocation.forms import Coefficient, Term

    scaled = Term(Coefficient(None, lambda x, p: p["D"], frozenset({"D"})), Jet(0, (2,)))
    problem = Problem(
        box(UNIT), ("u",), (Equation((scaled,), Data(lambda x: -2.0 * 9.0 * sin(3 * x))),),
        dirichlet(lambda x: sin(3 * x), 1), unknowns={"D": None},
    )  # fmt: skip
    posterior = solve(problem, (50,), parameters={"D": torch.tensor(2.0)})
    x = torch.linspace(0.0, 1.0, 7)[:, None]
    torch.testing.assert_close(posterior.mean(Jet(0, (0,)), x), sin(3 * x[:, 0]), atol=1e-12, rtol=0.0)
    assert "direct" in posterior.diagnostics["method"]


def test_continuation_finds_what_newton_alone_does_not():
    width = 0.05

    def front(x):
        return torch.tanh((x - 0.5) / (2.0 * width))

    value = (Jet(0, (0,)),)
    equation = Equation((term(2.0 * width**2, 2),), Data(), value, lambda x, j, p: j[0] - j[0] ** 3)
    disc = Discretisation(Layout(Problem(box(UNIT), ("u",), (equation,), dirichlet(front, 1))), (90,))
    problem, start = Collocation(disc), [disc.lift(0)[0]]
    with pytest.raises(ConvergenceError):
        newton(problem, start, linear=False)
    state, report = continued(problem, start)
    assert report.stages[0] == 0.0 and report.stages[-1] == 1.0 and problem.strength == 1.0
    x = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(disc.bases[0].evaluate(x) @ state[0], np.tanh((x - 0.5) / 0.1), atol=1e-9)


def test_exact_problems_with_observations_judge_these():
    case = OTHERS["packet"]
    x = torch.rand(40, 1, generator=torch.Generator().manual_seed(0))
    noise = torch.full((40,), 0.1)
    values = case.exact(x[:, 0]) + 0.1 * torch.randn(40, generator=torch.Generator().manual_seed(1))
    seen = Observation((term(1.0, 0),), x, values, noise)
    posterior = solve(dataclasses.replace(case.problem, observations=(seen,)), case.grid)
    assert case.error(posterior) < 1e-9
    assert 0.6 < posterior.diagnostics["observation_misfits"][0] < 1.4


def bratu(factor):
    equation = Equation((term(1.0, 2),), Data(), (Jet(0, (0,)),), lambda x, j, p: factor * exp(j[0]))
    return Problem(box(UNIT), ("u",), (equation,), dirichlet(zero, 1))


def test_a_nonlinear_problem_without_solution_is_an_error_with_its_history():
    assert solve(bratu(3.5), (100,)).diagnostics["trusted"]
    with pytest.raises(ConvergenceError, match=r"relative steps so far \["):
        solve(bratu(6.0), (100,))


def neumann(u, dim):
    return [face(j, s, derivative(u, *unit_orders(dim, j, 1)), dim, "neumann", 1) for j in range(dim) for s in (0, 1)]


def known(u, point, field=0):
    """The exact value of a field at one point."""
    x = torch.tensor([point])
    return Observation((term(1.0, *[0] * len(point), field=field),), x, u(*x.T), torch.zeros(1))


def test_a_gauge_makes_pure_neumann_and_periodic_problems_unique():
    case = smooth(bump, laplacian(2), neumann(bump, 2), [UNIT] * 2, (40, 40))
    gauged = dataclasses.replace(case.problem, observations=(known(bump, [0.3, 0.4]),))
    posterior = solve(gauged, case.grid)
    assert case.error(posterior) < 1e-10 and posterior.diagnostics["trusted"]

    def wave(x):
        return exp(sin(2.0 * math.pi * x))

    case = smooth(wave, laplacian(1), [], [UNIT], (60,), periodic=frozenset({0}))
    posterior = solve(dataclasses.replace(case.problem, observations=(known(wave, [0.3]),)), case.grid)
    assert case.error(posterior) < 1e-10


def test_stokes_equations_have_no_condition_on_the_pressure():
    def u(x, y):
        return -3.0 * sin(2 * x + 1) * sin(3 * y)

    def v(x, y):
        return -2.0 * cos(2 * x + 1) * cos(3 * y)

    def p(x, y):
        return x * y**2 + sin(x)

    equations = (
        manufactured([u, v, p], [*laplacian(2, -1.0), term(1.0, 1, 0, field=2)]),
        manufactured([u, v, p], [*laplacian(2, -1.0, field=1), term(1.0, 0, 1, field=2)]),
        Equation((term(1.0, 1, 0), term(1.0, 0, 1, field=1)), Data()),
    )
    walls = (*dirichlet(u, 2), *dirichlet(v, 2, field=1))
    problem = Problem(box(UNIT, UNIT), ("u", "v", "p"), equations, walls)
    with pytest.raises(InvalidDataError, match="gauge"):
        solve(problem, (16, 16))
    posterior = solve(dataclasses.replace(problem, observations=(known(p, [0.5, 0.5], field=2),)), (16, 16))
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    for f, (exact, tolerance) in enumerate(((u, 1e-10), (v, 1e-10), (p, 1e-5))):
        torch.testing.assert_close(posterior.mean(Jet(f, (0, 0)), x), exact(*x.T), atol=tolerance, rtol=0.0)


def test_a_condition_of_zero_slope_is_judged_by_slopes_inside():
    def standing(x, t):
        return sin(math.pi * x) * cos(3 * t)

    cubed = ((Jet(0, (0, 0)),), lambda x, j, p: j[0] ** 3)
    equation = manufactured([standing], [term(1.0, 0, 2), term(-1.0, 2, 0)], cubed[1], cubed[0])
    conditions = (
        *dirichlet(standing, 2, axes=[0]), face(1, 0, standing, 2, "initial"), face(1, 0, zero, 2, "initial", 1)
    )  # fmt: skip
    posterior = solve(Problem(box(UNIT, UNIT, names="xt"), ("u",), (equation,), conditions), (60, 60))
    assert posterior.diagnostics["trusted"] and posterior.diagnostics["boundary_residual"] < 1e-8


def line(x):
    return sin(3 * x) + x


@pytest.mark.parametrize(
    ("case", "match"),
    [
        (smooth(bump, laplacian(2), neumann(bump, 2), [UNIT] * 2, (40, 40)), "gauge"),
        (smooth(line, laplacian(1), neumann(line, 1), [UNIT], (40,)), "gauge"),
        (smooth(line, laplacian(1), [face(0, 0, line, 1)], [UNIT], (40,)), "gauge"),
        (smooth(bump, laplacian(2), [], [UNIT] * 2, (20, 20)), "gauge"),
        (smooth(line, [term(1.0, 2), term(math.pi**2, 0)], dirichlet(line, 1), [UNIT], (40,)), "gauge"),
        (poisson(line, lambda x: torch.log(x - 0.5), UNIT, 40), "must be finite"),
        (poisson(line, lambda x: torch.ones(3), UNIT, 40), "shape"),
        (poisson(line, zero, UNIT, 1), "at least two points"),
    ],
    ids=["neumann", "neumann 1-D", "one condition", "no condition", "resonance", "nan", "shape", "one point"],
)
def test_what_cannot_be_solved_is_refused(case, match):
    with pytest.raises(InvalidDataError, match=match):
        solve(case.problem, case.grid)


def test_near_resonance_the_error_is_known_to_be_larger():
    near = [term(1.0, 2), term(math.pi**2 + 1e-7, 0)]
    case = smooth(line, near, dirichlet(line, 1), [UNIT], (40,))
    posterior = solve(case.problem, case.grid)
    x = random_points(case)
    error = (posterior.mean(Jet(0, (0,)), x) - case.exact(*x.T)).abs()
    assert float(error.max()) > 1e-11  # rounding alone
    assert bool((error <= 3.0 * posterior.variance(Jet(0, (0,)), x).sqrt()).all())


def test_boundary_data_that_disagree_at_a_corner_are_reported():
    faces = (
        face(0, 0, lambda x, y: 0.0 * y + 1.0, 2), face(0, 1, zero, 2), face(1, 0, zero, 2), face(1, 1, zero, 2),
    )  # fmt: skip
    problem = Problem(box(UNIT, UNIT), ("u",), (Equation(tuple(laplacian(2)), Data()),), faces)
    posterior = solve(problem, (20, 20))
    assert not posterior.diagnostics["trusted"]
    assert posterior.diagnostics["corner_mismatch"] > 0.1
    assert any("corners" in reason for reason in posterior.diagnostics["reasons"])


def test_a_jump_in_the_source_is_not_trusted():
    problem = Problem(
        box(UNIT), ("u",), (Equation((term(1.0, 2),), Data(lambda x: (x > 0.37) * 1.0)),), dirichlet(zero, 1)
    )
    posterior = solve(problem, (100,))
    assert not posterior.diagnostics["trusted"]

    def exact(x):
        slope = 0.5 * (1.0 - 0.37) ** 2
        return 0.5 * torch.clamp(x - 0.37, min=0.0) ** 2 - slope * x

    x = torch.linspace(0.01, 0.99, 50)[:, None]
    error = (posterior.mean(Jet(0, (0,)), x) - exact(x[:, 0])).abs()
    assert float(error.max()) < 1e-3
    assert bool((error <= 3.0 * posterior.variance(Jet(0, (0,)), x).sqrt()).double().mean() > 0.9)


def test_memory_is_estimated_before_it_is_taken(monkeypatch):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 100}
    monkeypatch.setattr("gpkit.inference.collocation.spectral.attempts.os.sysconf", lambda name: sizes[name])
    case = PUBLISHED["P6"]
    with pytest.raises(InvalidDataError, match="GiB"):
        solve(case.problem, case.grid, basis="broadband")
    assert solve(case.problem, case.grid).diagnostics["basis"]["chosen"] == "picked"
    sizes["SC_PHYS_PAGES"] = 5
    with pytest.raises(InvalidDataError, match="GiB"):
        solve(case.problem, case.grid)


def test_arguments():
    case = PUBLISHED["P2"]
    with pytest.raises(InvalidDataError, match="kernel"):
        solve(case.problem, (100,), kernel="matern52")
    periodic = dataclasses.replace(case.problem, periodic=frozenset({0}))
    with pytest.raises(InvalidDataError, match="periodic"):
        solve(periodic, (100,))
    doubled = dataclasses.replace(case.problem, conditions=(*case.problem.conditions, case.problem.conditions[0]))
    with pytest.raises(InvalidDataError, match="contradict or repeat"):
        solve(doubled, (100,))
    oblique = Condition("robin", 0, 0, (term(lambda x, y: cos(y), 0, 0),), Data(bump))
    assert oblique.kind == "robin"


def test_what_a_finer_basis_changes_is_known_at_once_where_the_iterations_were_many():
    case = OTHERS["nonlinear gradient"]
    found = solve(case.problem, (24, 24))
    assert sum(found.diagnostics["krylov_iterations"]) >= 20
    assert found.diagnostics["refinement_error"] < 1e-10
    assert "refinement_error" not in solve(PUBLISHED["P1"].problem, (400,)).diagnostics
