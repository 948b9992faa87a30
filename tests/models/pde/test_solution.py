"""Solutions through the public interface, against known solutions and an independent solver."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, ConvergenceWarning, InvalidDataError
from gpkit.models.pde import (
    PDE,
    Box,
    Dirichlet,
    Field,
    Initial,
    Neumann,
    Noisy,
    Observe,
    Periodic,
    Robin,
    Solution,
    biharmonic,
    coordinates,
    cos,
    d,
    divergence,
    dt,
    exp,
    gradient,
    laplacian,
    sin,
)
from tests.models.pde.reference import Dense


def relative_error(solution: Solution, exact, name: str | None = None, n: int = 41) -> float:
    axes = [torch.linspace(a, b, n) for a, b in zip(solution.box.lower, solution.box.upper, strict=True)]
    truth = exact(*torch.meshgrid(*axes, indexing="ij"))
    return float((solution[name or solution.names[0]].on_grid(axes) - truth).norm() / truth.norm())


def allen_cahn() -> tuple[PDE, object]:
    """The example of the documentation, at a size for tests."""
    u = Field("u", Box(x=(0, 2 * math.pi), y=(0, 2 * math.pi)))

    def exact(x: Tensor, y: Tensor) -> Tensor:
        return torch.sin(6 * x) * torch.cos(5 * y)

    def source(x: Tensor, y: Tensor) -> Tensor:
        u = exact(x, y)
        return -61.0 * u + u * (u**2 - 1)

    return PDE(laplacian(u) + u * (u**2 - 1) == source, [Dirichlet(u, exact)]), exact


def test_the_nonlinear_example_reads_and_solves() -> None:
    problem, exact = allen_cahn()
    solution = problem.solve(grid=(60, 60), kernel="auto", method="auto", progress=True)
    points = torch.rand(50, 2, dtype=torch.float64) * 2 * math.pi
    truth = exact(points[:, 0], points[:, 1])
    assert float((solution.mean(points) - truth).abs().max()) < 1e-8
    x, y = points.T
    slope = torch.stack([6 * torch.cos(6 * x) * torch.cos(5 * y), -5 * torch.sin(6 * x) * torch.sin(5 * y)], -1)
    torch.testing.assert_close(solution.gradient(points), slope, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(solution.derivative(points, "x", 2), -36 * truth, rtol=1e-5, atol=1e-5)
    error, std = (solution.mean(points) - truth).abs(), solution.std(points)
    assert bool((error <= 6 * std + 1e-12).all()) and float(std.max()) < 1e-3
    assert solution.sample(8, seed=0)(points).shape == (8, 50)
    low, high = solution.interval(points, 0.9)
    assert bool((low <= high).all())
    assert "method" in solution.diagnostics and solution.is_trustworthy and solution.residuals.worst < 1e-8
    u = problem.fields[0]
    torch.testing.assert_close(solution.value(u * d(u, "x"), points), truth * slope[:, 0], rtol=1e-6, atol=1e-6)


def test_variable_coefficients_match_an_independent_solver() -> None:
    u = Field("u", Box(x=(0, 2)))
    problem = PDE(
        divergence((lambda x: 1 + 0.5 * torch.sin(3 * x)) * gradient(u)) - 2 * d(u, "x") + (lambda x: x) * u
        == (lambda x: torch.exp(-x)),
        [Neumann(u.on("x=0"), 0.3), Robin(u.on("x=2"), 1.0, 0.5, 4.0)],
    )
    operator = {
        (2,): lambda x: 1 + 0.5 * np.sin(3 * x),
        (1,): lambda x: 1.5 * np.cos(3 * x) - 2.0,
        (0,): lambda x: x,
    }
    conditions = [(0, 0, {(1,): -1.0}, lambda x: 0.3), (0, 1, {(0,): 1.0, (1,): 0.5}, lambda x: 4.0)]
    dense = Dense([(0.0, 2.0)], operator, lambda x: np.exp(-x), conditions, 40)
    points = torch.linspace(0, 2, 77)
    expected = torch.from_numpy(dense(points.numpy()))
    solution = problem.solve(60)
    assert float((solution.mean(points) - expected).norm() / expected.norm()) < 1e-8


def known(name: str) -> tuple[PDE, object, object]:
    """Problems of every kind with a known solution: the problem, the grid and the solution."""
    T = torch
    square, moving = Box(x=(0, 1), y=(0, 1)), Box(x=(0, 1), t=(0, 0.5))
    u, w, line = Field("u", square), Field("w", moving), Field("b", Box(x=(0, 1)))
    x, y = coordinates(square)
    pi = math.pi
    if name == "heat":
        exact = lambda x, t: T.exp(-(pi**2) * t) * T.sin(pi * x)
        return PDE(dt(w) == laplacian(w), [Initial(w, "t=0", exact), Dirichlet(w, 0)]), (40, 40), exact
    if name == "wave":
        exact = lambda x, t: T.cos(2 * pi * t) * T.sin(2 * pi * x)
        return PDE(dt(w, 2) == laplacian(w), [Initial(w, "t=0", exact, velocity=0), Dirichlet(w, 0)]), (40, 40), exact
    if name == "advection":
        exact = lambda x, t: T.sin(9 * x - 45 * t)
        data = [Initial(w, "t=0", exact), Dirichlet(w.on("x=0"), exact)]
        return PDE(dt(w) + 5 * d(w, "x") == 0, data), (50, 60), exact
    if name == "Burgers":
        exact = lambda x, t: 0.5 - 0.5 * T.tanh((x - 0.5 * t - 0.3) / 0.4)
        equation = dt(w) + w * d(w, "x") == 0.1 * laplacian(w)
        return PDE(equation, [Initial(w, "t=0", exact), Dirichlet(w, exact)]), (40, 40), exact
    if name == "beam":
        exact = lambda x: T.sin(pi * x) ** 2 * T.exp(x)
        (s,) = coordinates(line)
        source = d(sin(pi * s) ** 2 * exp(s), "x", 4)
        return PDE(d(line, "x", 4) == source, [Dirichlet(line, 0), Neumann(line, 0)]), 60, exact
    if name == "plate":
        exact = lambda x, y: T.sin(2 * x + y) * T.exp(0.5 * y)
        e = sin(2 * x + y) * exp(0.5 * y)
        data = [Dirichlet(u, exact), Dirichlet(laplacian(u), laplacian(e))]
        return PDE(biharmonic(u) == biharmonic(e), data), (30, 30), exact
    if name == "periodic":
        exact = lambda x, y: T.sin(2 * pi * x) * T.exp(T.cos(2 * pi * y))
        e = sin(2 * pi * x) * exp(cos(2 * pi * y))
        return PDE(laplacian(u) - u == laplacian(e) - e, Periodic("x", "y")), (40, 40), exact
    assert name == "mixed derivatives"
    exact = lambda x, y: T.sin(3 * x + 2 * y)
    e = sin(3 * x + 2 * y)

    def operator(v):
        return d(v, "x", 2) + d(v, "x", 1, "y", 1) + 2 * d(v, "y", 2)

    return PDE(operator(u) == operator(e), Dirichlet(u, exact)), (30, 30), exact


@pytest.mark.parametrize(
    "name", ["heat", "wave", "advection", "Burgers", "beam", "plate", "periodic", "mixed derivatives"]
)
def test_equations_of_every_kind_are_solved_without_help(name: str) -> None:
    problem, grid, exact = known(name)
    solution = problem.solve(grid)
    assert relative_error(solution, exact) < 1e-7
    assert solution.is_trustworthy, solution.findings


def test_coupled_fields_are_found_by_name() -> None:
    box = Box(x=(0, 1), y=(0, 1))
    u, v = Field("u", box), Field("v", box)
    x, y = coordinates(box)
    eu, ev = sin(3 * x) * cos(y), exp(x) * sin(2 * y)
    problem = PDE(
        [laplacian(u) + v == laplacian(eu) + ev, laplacian(v) - u * v == laplacian(ev) - eu * ev],
        [Dirichlet(u, eu), Dirichlet(v, ev)],
    )
    solution = problem.solve((30, 30))
    assert solution.names == ("u", "v")
    assert relative_error(solution, lambda x, y: torch.sin(3 * x) * torch.cos(y), "u") < 1e-9
    assert relative_error(solution, lambda x, y: torch.exp(x) * torch.sin(2 * y), "v") < 1e-9
    with pytest.raises(InvalidDataError, match="no field 'w': the fields are u, v"):
        solution["w"]
    draws = solution.sample(3, seed=1)
    assert draws([[0.5, 0.5]], "v").shape == (3, 1)


def test_a_grid_that_is_too_coarse_is_said_to_be() -> None:
    u = Field("u", Box(x=(0, 2 * math.pi)))
    problem = PDE(d(u, "x", 2) == (lambda x: -1e4 * torch.sin(100 * x)), Dirichlet(u, 0))
    with pytest.warns(ConvergenceWarning, match="residual|points per period"):
        solution = problem.solve(120, method="spectral")
    assert not solution.is_trustworthy and "NOT TO BE TRUSTED" in repr(solution)


def test_a_problem_without_solution_ends_in_an_error_or_a_warning() -> None:
    u = Field("u", Box(x=(0, 1)))
    problem = PDE(d(u, "x", 2) + 10 * exp(u) == 0, Dirichlet(u, 0))  # Bratu's problem beyond its fold at 3.51
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            solution = problem.solve(40)
        except ConvergenceError:
            return
    assert not solution.is_trustworthy and any(issubclass(w.category, ConvergenceWarning) for w in caught)


def test_noisy_sources_leave_the_truth_inside_the_band(generator: torch.Generator) -> None:
    u = Field("u", Box(x=(0, 1)))
    grid = torch.linspace(0, 1, 120)
    noise = 0.5 * torch.randn(120, generator=generator)
    source = Noisy(-36 * torch.sin(6 * grid) + noise, 0.5, axes=[grid])
    solution = PDE(d(u, "x", 2) == source, Dirichlet(u, lambda x: torch.sin(6 * x))).solve(120)
    points = torch.linspace(0.05, 0.95, 19)
    z = (solution.mean(points) - torch.sin(6 * points)) / solution.std(points)
    assert float(z.abs().max()) < 4.0 and float(solution.std(points).mean()) < 0.1
    assert 0.6 < solution.residuals.standardised[0] < 1.4


def test_observations_inside_take_the_place_of_conditions(generator: torch.Generator) -> None:
    u = Field("u", Box(x=(0, 1)))
    points = torch.rand(40, generator=generator)
    values = torch.sin(6 * points) + 0.05 * torch.randn(40, generator=generator)
    solution = PDE(d(u, "x", 2) == (lambda x: -36 * torch.sin(6 * x)), Observe(u, points, values, 0.05)).solve(60)
    at = torch.linspace(0, 1, 11)
    z = (solution.mean(at) - torch.sin(6 * at)) / solution.std(at)
    assert float(z.abs().max()) < 4.0 and 0.5 < solution.residuals.observations[0] < 1.5


def test_gridded_sources_and_conditions() -> None:
    u = Field("u", Box(x=(0, 1), y=(0, 1)))
    axes = [torch.linspace(0, 1, 60), torch.linspace(0, 1, 50)]

    def exact(x: Tensor, y: Tensor) -> Tensor:
        return torch.sin(4 * x) * torch.cos(3 * y)

    values = -25 * exact(*torch.meshgrid(*axes, indexing="ij"))
    edge = torch.linspace(0, 1, 80)
    problem = PDE(
        laplacian(u) == values,
        [
            Dirichlet(u.on("x=0"), exact(torch.zeros(80), edge)),
            Dirichlet(u.on("x=1"), exact(torch.ones(80), edge)),
            Dirichlet(u.on("y=0"), exact),
            Dirichlet(u.on("y=1"), exact),
        ],
    )
    solution = problem.solve((60, 50))
    assert relative_error(solution, exact) < 1e-5


def test_solutions_are_written_and_read_without_their_problem(tmp_path: Path) -> None:
    problem, _ = allen_cahn()
    solution = problem.solve((50, 50))
    again = Solution.load(solution.save(tmp_path / "solution.gpkit"))
    points = torch.rand(9, 2, dtype=torch.float64)
    torch.testing.assert_close(again.mean(points), solution.mean(points))
    torch.testing.assert_close(again.std(points), solution.std(points))
    torch.testing.assert_close(again.sample(2, 3)(points), solution.sample(2, 3)(points))
    assert repr(again) == repr(solution)
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(InvalidDataError, match="is not a solution"):
        Solution.load(tmp_path / "other")
    with pytest.raises(InvalidDataError, match="no file"):
        Solution.load(tmp_path / "nothing")


def test_draws_as_inference_data() -> None:
    problem, _ = allen_cahn()
    solution = problem.solve((50, 50))
    data = solution.to_inference_data(draws=5, seed=2)
    assert data.posterior["u"].dims == ("chain", "draw", "x", "y")
    mean = solution.on_grid([data.posterior.x.values, data.posterior.y.values])
    np.testing.assert_allclose(data.posterior["u"].mean(("chain", "draw")), mean, atol=1e-3)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0.1, 0.2, 0.3]], r"\(m, 2\)"),
        ([0.1, 0.2], r"\(m, 2\)"),
        ([[0.1, 99.0]], "point 0 lies outside the box: y=99"),
        ([[0.1, float("nan")]], "must be finite"),
        ([["a", "b"]], "not an array of numbers"),
    ],
)
def test_points_that_cannot_be(points, message: str) -> None:
    problem, _ = allen_cahn()
    solution = problem.solve((50, 50), method="spectral")
    with pytest.raises(InvalidDataError, match=message):
        solution.mean(points)


def test_held_out_scores_are_cautious_and_tell_a_wrong_answer() -> None:
    u = Field("u", Box(x=(0, 1)))
    problem = PDE(d(u, "x", 2) == (lambda x: -400 * torch.sin(20 * x)), Dirichlet(u, lambda x: torch.sin(20 * x)))
    solution = problem.solve(80)
    scores = solution.held_out_scores(count=50)
    assert scores.shape == (1, 50) and float(scores.abs().median()) < 3.0
    other = PDE(d(u, "x", 2) == (lambda x: -300 * torch.sin(20 * x)), Dirichlet(u, lambda x: torch.sin(20 * x)))
    mistaken = replace(solution, problem=other)  # the right answer to another question
    assert float(mistaken.held_out_scores(count=50).abs().median()) > 100.0
    with pytest.raises(InvalidDataError, match="no equations to hold out"):
        replace(solution, problem=None).held_out_scores()


def test_exact_conditioning_and_the_papers_method_answer_the_same_questions() -> None:
    u = Field("u", Box(x=(0, 1)))
    problem = PDE(d(u, "x", 2) == (lambda x: -100 * torch.sin(10 * x)), Dirichlet(u, lambda x: torch.sin(10 * x)))
    exact = problem.solve(40, method="exact", progress=False)
    assert relative_error(exact, lambda x: torch.sin(10 * x)) < 1e-6 and exact.is_trustworthy
    with pytest.warns(ConvergenceWarning):
        paper = problem.solve(40, method="gphm", iterations=3, highest_frequency=5.0, progress=False)
    assert not paper.is_trustworthy and relative_error(paper, lambda x: torch.sin(10 * x)) < 1.1


def test_arrays_for_files_hold_means_and_standard_deviations() -> None:
    problem, exact = allen_cahn()
    solution = problem.solve((50, 50))
    arrays = solution.as_arrays()
    mesh = torch.stack([torch.from_numpy(a) for a in np.meshgrid(arrays["x"], arrays["y"], indexing="ij")], -1)
    std = solution.std(mesh[::7, ::5].reshape(-1, 2)).reshape(8, 10)
    np.testing.assert_allclose(arrays["u_std"][::7, ::5], std, rtol=1e-10)
    assert np.abs(arrays["u_mean"] - exact(*mesh.unbind(-1)).numpy()).max() < 1e-8
    with pytest.warns(ConvergenceWarning):
        paper = problem.solve((33, 34), method="gphm", iterations=1, mixtures=2, progress=False)
    arrays = paper.as_arrays()
    # A triangular system a point: on fewer points, with coordinates of their own.
    assert arrays["u_mean"].shape == (33, 34) and arrays["u_std"].shape == (31, 31)
    corner = torch.tensor([[arrays["std_x"][3], arrays["std_y"][-1]]])
    assert arrays["u_std"][3, -1] == pytest.approx(float(paper.std(corner)))
