"""Which basis is taken for the solution, and what must not be taken for waves."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch
from torch import cos, sin

from gpkit.errors import ConvergenceWarning, InvalidDataError
from gpkit.inference.collocation import residuals as judge
from gpkit.inference.collocation.forms import Observation
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.picked.engine import pick
from gpkit.inference.collocation.resolution import Resolution
from gpkit.inference.collocation.spectral.candidates import choose
from gpkit.inference.collocation.spectral.engine import solve
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Noisy, laplacian
from tests.inference.collocation.problems import (
    FULL,
    UNIT,
    covered,
    derivative,
    dirichlet,
    face,
    line,
    others,
    poisson,
    published,
    smooth,
    sums,
    term,
    unit_orders,
)
from tests.inference.collocation.problems import laplacian as terms_of_laplacian

PUBLISHED, OTHERS = published(), others()


# ------------------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize("name", ["chirp", "front", "packet 2-D", "variable 2-D", "periodic"])
def test_what_is_no_few_waves_is_broadband(name):
    case = OTHERS[name]
    posterior = solve(case.problem, case.grid)
    assert posterior.diagnostics["basis"]["chosen"] == "broadband"
    assert case.error(posterior) < 1e-9


def test_large_broadband_problems_are_looked_at_for_waves_first():
    case = PUBLISHED["P6"]
    found = solve(case.problem, case.grid).diagnostics["basis"]
    assert found["chosen"] == "picked" and len(found["tried"]) == 1 and "operations" in found["why"]


def test_many_waves_are_broadband():
    def many(x, y):
        return sum(sin(w * x + k) * cos(1.3 * w % 400 * y) for k, w in enumerate(range(30, 430, 20)))

    case = smooth(many, terms_of_laplacian(2), dirichlet(many, 2), [UNIT] * 2, (350, 350))
    posterior = solve(case.problem, case.grid)
    found = posterior.diagnostics["basis"]
    assert found["chosen"] == "broadband" and len(found["tried"]) == 1 and "of the data" in found["why"]
    assert case.error(posterior) < 1e-10


def test_the_lower_residual_is_kept_where_the_first_is_not_small():
    """Three points per period: too few for polynomials, enough for a wave."""
    case = PUBLISHED["P1"]
    posterior = solve(case.problem, (220,))
    found = posterior.diagnostics["basis"]
    assert [t["basis"] for t in found["tried"]] == ["broadband", "picked"]
    assert found["tried"][0]["residual"] > 1e-6 > found["tried"][1]["residual"]
    assert found["chosen"] == "picked" and "lower residual" in found["why"]
    assert case.error(posterior) < 1e-9 and covered(case, posterior) == 1.0


def test_ten_thousand_periods_in_two_dimensions():
    """Broadband: a thousand million coefficients, refused. Picked: under a thousand."""

    def fast(x, y):
        return sin(1e4 * x + 1.0) * cos(8e3 * y) + sin(x) * y

    def source(x, y):
        return -1.64e8 * sin(1e4 * x + 1.0) * cos(8e3 * y) - sin(x) * y

    case = poisson(fast, source, FULL, 40_000, 2)
    with pytest.raises(InvalidDataError, match="GiB"):
        solve(case.problem, case.grid, basis="broadband")
    posterior = solve(case.problem, case.grid)
    assert posterior.diagnostics["basis"]["chosen"] == "picked"
    assert math.prod(posterior.diagnostics["sizes"]) < 1000
    assert case.error(posterior) < 1e-6 and covered(case, posterior) > 0.98


def test_grids_that_do_not_fit_are_for_few_waves_only():
    u = Field("u", Box(x=(0, 1), y=(0, 1)))

    def exact(x, y):
        return sin(9e3 * x) * sin(7e3 * y)

    problem = PDE(laplacian(u) == (lambda x, y: -1.3e8 * exact(x, y)), Dirichlet(u, exact))
    solution = problem.solve(60_000, progress=False)
    assert solution.is_trustworthy and "memory" in solution.diagnostics["basis"]["why"]
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(solution.mean(x), exact(*x.T), atol=1e-6, rtol=0.0)
    for keywords in ({"basis": "broadband"}, {"method": "exact"}):
        with pytest.raises(InvalidDataError, match="GiB"):
            problem.solve(60_000, progress=False, **keywords)


# ------------------------------------------------------------------------------------------------------- the traps


@pytest.mark.parametrize("basis", ["auto", "picked"])
@pytest.mark.parametrize("n", [100, 150, 200, 250, 318])
def test_waves_above_the_band_of_the_grid_are_warned_about(n, basis):
    """1000 radians per unit on grids that carry half of that and less: right or wrong, never without a warning."""
    case = line(sums((1, 1000.0, 0)), grid=n)
    posterior = solve(case.problem, case.grid, basis=basis)
    assert any("points per period" in reason for reason in posterior.diagnostics["reasons"])
    assert not (posterior.diagnostics["trusted"] and case.error(posterior) > 1e-8)
    assert covered(case, posterior) > 0.98


@pytest.mark.parametrize("amplitude", [1e-3, 1e-9])
def test_a_weak_wave_above_the_band_is_seen_in_the_residual(amplitude):
    case = line(sums((1, 50.0, 0), (amplitude, 2000.0, 0)), grid=300)
    posterior = solve(case.problem, case.grid, basis="picked")
    assert not posterior.diagnostics["trusted"]
    assert any("residual" in reason for reason in posterior.diagnostics["reasons"])
    assert covered(case, posterior) > 0.98


def test_the_public_api_warns():
    u = Field("u", Box(x=(0, 1)))
    problem = PDE(laplacian(u) == (lambda x: -1e6 * sin(1000 * x)), Dirichlet(u, lambda x: sin(1000 * x)))
    with pytest.warns(ConvergenceWarning, match="points per period"):
        problem.solve(200, basis="picked", progress=False)


RESONANT = [term(1.0, 2, 0), term(1.0, 0, 2), term(2.0, 0, 0)]


def fast(x, y):
    return sin(100 * x) * cos(90 * y)


def slopes(u, dim):
    return [face(j, s, derivative(u, *unit_orders(dim, j, 1)), dim, "neumann", 1) for j in range(dim) for s in (0, 1)]


@pytest.mark.parametrize(
    "case",
    [
        smooth(fast, terms_of_laplacian(2), slopes(fast, 2), [UNIT] * 2, (400, 400)),
        smooth(sin, [term(1.0, 2)], slopes(sin, 1), [UNIT], (400,)),
        smooth(fast, RESONANT, dirichlet(fast, 2), [(0.0, math.pi)] * 2, (400, 400)),
        line(sums((1, 100.0, 0)), term(49.0, 0), ends=(0.0, math.pi)),
    ],
    ids=["neumann", "neumann 1-D", "resonance", "resonance 1-D"],
)
@pytest.mark.parametrize("basis", ["auto", "picked"])
def test_singular_operators_are_refused(case, basis):
    with pytest.raises(InvalidDataError, match="gauge"):
        solve(case.problem, case.grid, basis=basis)


def test_a_gauge_makes_the_solution_unique():
    case = smooth(fast, terms_of_laplacian(2), slopes(fast, 2), [UNIT] * 2, (400, 400))
    at = torch.tensor([[0.3, 0.4]], dtype=torch.float64)
    gauge = Observation((term(1.0, 0, 0),), at, fast(*at.T), torch.zeros(1, dtype=torch.float64))
    posterior = solve(dataclasses.replace(case.problem, observations=(gauge,)), case.grid, basis="picked")
    assert case.error(posterior) < 1e-9 and covered(case, posterior) == 1.0


def test_noise_is_not_for_picked_waves():
    u = Field("u", Box(x=(0, 1)))
    x = torch.linspace(0.0, 1.0, 200, dtype=torch.float64)
    noisy = Noisy(-900.0 * sin(30 * x) + torch.randn(200, generator=torch.Generator().manual_seed(0)).double(), 1.0)
    problem = PDE(laplacian(u) == noisy, Dirichlet(u, lambda x: sin(30 * x)))
    with pytest.raises(InvalidDataError, match="have noise"):
        problem.solve(200, basis="picked", progress=False)


def test_arguments():
    case = PUBLISHED["P2"]
    with pytest.raises(InvalidDataError, match="no basis 'chosen'"):
        solve(case.problem, case.grid, basis="chosen")
    u = Field("u", Box(x=(0, 1)))
    problem = PDE(laplacian(u) == 1.0, Dirichlet(u, 0.0))
    with pytest.raises(InvalidDataError, match="no basis 'chosen'"):
        problem.solve(50, basis="chosen", progress=False)
    with pytest.raises(InvalidDataError, match='option of method="spectral"'):
        problem.solve(50, basis="picked", method="exact", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert problem.solve(50, basis="picked", progress=False).is_trustworthy


@pytest.mark.parametrize("basis", ["picked", "broadband"])
def test_a_finer_basis_says_how_much_it_changes(basis, tmp_path):
    """A grid of 2.2 points per period, on which polynomials leave some of the wave."""
    u = Field("u", Box(x=(0, 1)))

    def exact(x):
        return sin(500 * x) - 2.0 * (x - 0.5) ** 2

    problem = PDE(laplacian(u) == (lambda x: -25e4 * sin(500 * x) - 4.0), Dirichlet(u, exact))
    with pytest.warns(ConvergenceWarning, match="points per period"):
        solution = problem.solve(180, basis=basis, progress=False)
    assert "refinement_error" not in solution.diagnostics
    x = torch.linspace(0.0, 1.0, 301, dtype=torch.float64)
    solution.std(x)
    error = float((solution.mean(x) - exact(x)).norm() / exact(x).norm())
    found = solution.diagnostics["refinement_error"]
    assert found < 1e-10 if basis == "picked" else error / 3.0 < found < 3.0 * error
    html, numbers = solution.report(tmp_path)
    text = html.read_text(encoding="utf-8")
    assert f"Basis tried: {basis}" in text and "Change on a finer basis" in text
    assert json.loads(numbers.read_text(encoding="utf-8"))["diagnostics"]["basis"]["chosen"] == basis


def test_residual_lines_are_those_of_the_equation():
    case = PUBLISHED["P7"]
    layout = Layout(case.problem)
    resolution = Resolution.of(layout, case.grid)
    kept = choose(layout, case.grid, resolution, "picked", 1e-6, patient=False).kept
    x = np.linspace(0.0, 2.0 * math.pi, 30)
    wrong = [1.001 * c for c in kept.attempt.state]
    found = judge.lines(layout, kept.attempt.disc.bases, wrong, 0, x)
    assert found.shape == (30, 4) and 1e-5 < np.abs(found).max() < 1e-2
    assert [len(p.tones) for p in pick(layout, case.grid, resolution)] == [2, 2]
