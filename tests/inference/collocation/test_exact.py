"""The exact engine end to end: errors, intervals that hold the truth, coverage with noise, refusals."""

from __future__ import annotations

import dataclasses
import math

import gpytorch
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.exact import engine as exact
from gpkit.inference.collocation.exact.bridge import kernel_axes
from gpkit.inference.collocation.exact.dense import DensePosterior
from gpkit.inference.collocation.exact.kernels import mixtures_for
from gpkit.inference.collocation.exact.linear import LinearEngine
from gpkit.inference.collocation.exact.priors import FieldPrior, MixtureAxis
from gpkit.inference.collocation.exact.problem import collocation_axes
from gpkit.inference.collocation.forms import Data, Jet, Observation
from gpkit.kernels import GridKernel, SpectralMixtureKernel
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope
from tests.inference.collocation import problems

CASES = {**problems.published(), **problems.others()}


def inside(problem, count, seed=0):
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (problem.box.lower, problem.box.upper))
    uniform = torch.rand(count, problem.box.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * uniform


def truth(case, points):
    u = case.exact[0] if isinstance(case.exact, list | tuple) else case.exact
    return u(*[points[:, j] for j in range(points.shape[1])])


ERRORS = {
    "P1": 1e-9,
    "P3": 1e-9,
    "P5": 1e-9,
    "A1": 1e-9,
    "chirp": 1e-9,
    "packet": 1e-10,
    "beam": 1e-10,
    "mixed conditions": 1e-9,
    "neumann with reaction": 1e-9,
    "heat": 1e-10,
    "oblique": 1e-10,
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_small_and_within_the_posterior_deviation(name):
    case = CASES[name]
    found = exact.solve(case.problem, case.grid)
    assert case.error(found) < ERRORS[name]
    jet = Jet(0, (0,) * len(case.grid))
    points = inside(case.problem, 60)
    deviation = found.variance(jet, points).sqrt()
    assert float(((found.mean(jet, points) - truth(case, points)).abs() / deviation).max()) < 4.0
    assert math.isfinite(found.diagnostics["log_evidence"])


def test_a_rough_kernel_bounds_its_discretisation_error():
    """The truth is a chirp, no draw of the prior; the deviation must not be far too small or meaninglessly large."""
    case = CASES["chirp"]
    found = exact.solve(case.problem, (200,), kernel="matern52")
    points = inside(case.problem, 200)
    ratio = (found.mean(Jet(0, (0,)), points) - truth(case, points)) / found.variance(Jet(0, (0,)), points).sqrt()
    assert "Cholesky" in found.diagnostics["method"]
    assert 0.003 < float(ratio.pow(2).mean().sqrt()) < 1.5
    assert float((ratio.abs() < 2.0).double().mean()) > 0.95


def test_a_kernel_that_cannot_represent_the_solution_says_so():
    case = CASES["P1"]
    smooth = MixtureAxis(
        GaussianEnvelope(), *(torch.full((1,), v, dtype=torch.float64) for v in (1.0, 3.0)), torch.zeros(1).double()
    )
    found = exact.solve(case.problem, case.grid, kernel=smooth)
    points = inside(case.problem, 50)
    error = (found.mean(Jet(0, (0,)), points) - truth(case, points)).abs()
    assert float(error.max()) > 1e-4
    assert float((error / found.variance(Jet(0, (0,)), points).sqrt()).mean()) < 5.0


def noisy(case, seed, source_noise, observation_noise, count=25):
    """The same problem with noise on its source and a few noisy observations."""
    generator = torch.Generator().manual_seed(seed)
    (equation,) = case.problem.equations
    x = torch.linspace(case.problem.box.lower[0], case.problem.box.upper[0], case.grid[0], dtype=torch.float64)
    clean = equation.source.function(x)
    source = clean + source_noise * torch.randn(len(x), generator=generator, dtype=torch.float64)
    points = inside(case.problem, count, seed)
    values = truth(case, points) + observation_noise * torch.randn(count, generator=generator, dtype=torch.float64)
    one = case.problem.conditions[0].terms
    observed = Observation(one, points, values, torch.full((count,), observation_noise, dtype=torch.float64))
    equation = dataclasses.replace(equation, source=Data(values=source, axes=(x,), noise=source_noise))
    return dataclasses.replace(case.problem, equations=(equation,), observations=(observed,))


@pytest.mark.parametrize("name", ["chirp", "variable 1-D"])
def test_intervals_cover_with_noisy_sources_and_observations(name):
    """Solutions that are no draws of the prior, 8 data sets each."""
    case = dataclasses.replace(CASES[name], grid=(150,))
    size = float(case.problem.equations[0].source.function(torch.linspace(0, 1, 99, dtype=torch.float64)).abs().max())
    inside_interval = []
    for seed in range(8):
        problem = noisy(case, seed, 0.02 * size, 0.05)
        found = exact.solve(problem, case.grid)
        points = inside(problem, 40, seed + 1000)
        z = (found.mean(Jet(0, (0,)), points) - truth(case, points)) / found.variance(Jet(0, (0,)), points).sqrt()
        inside_interval.append(float((z.abs() < 1.96).double().mean()))
    coverage = sum(inside_interval) / len(inside_interval)
    assert 0.90 <= coverage <= 0.98


def test_draws_have_the_posterior_moments():
    case = dataclasses.replace(CASES["chirp"], grid=(100,))
    problem = noisy(case, 0, 2000.0, 0.05)
    found = exact.solve(problem, case.grid)
    points = inside(problem, 12)
    draws = found.sample(1500, torch.Generator().manual_seed(5))
    for jet in (Jet(0, (0,)), Jet(0, (1,))):
        values = draws(jet, points)
        deviation = found.variance(jet, points).sqrt()
        assert float(((values.mean(0) - found.mean(jet, points)) / deviation).abs().max()) < 5.0 / 1500**0.5
        assert float((values.std(0) / deviation - 1.0).abs().max()) < 0.12
    again = found.sample(1500, torch.Generator().manual_seed(5))(Jet(0, (0,)), points)
    torch.testing.assert_close(again, draws(Jet(0, (0,)), points))


def test_weights_and_covariances_give_the_same_posterior():
    """The same Gaussian mixture with noise, in the space of weights and by dense conditioning."""
    case = CASES["variable 1-D"]
    size = float(case.problem.equations[0].source.function(torch.linspace(0, 1, 99, dtype=torch.float64)).abs().max())
    problem = noisy(case, 1, 0.3 * size, 0.3)
    axes = collocation_axes(problem.box, (80,))
    kernel = MixtureAxis(
        GaussianEnvelope(), *(torch.tensor(v, dtype=torch.float64) for v in ([1.0, 1.0], [0.1, 0.1], [0.0, 5.0]))
    )
    engine = LinearEngine(problem, axes, {}, kernel, False, False)
    weights = engine.condition()
    assert "weights" in weights.diagnostics["method"]
    rows = [*engine.conditions, *engine.equation_rows(None), *engine.observations]
    dense = DensePosterior(rows, [FieldPrior((kernel,))])
    points = inside(problem, 30)
    for jet in (Jet(0, (0,)), Jet(0, (2,))):
        scale = float(dense.mean(jet, points).abs().max())
        torch.testing.assert_close(weights.mean(jet, points), dense.mean(jet, points), rtol=1e-5, atol=1e-6 * scale)
        torch.testing.assert_close(weights.variance(jet, points), dense.variance(jet, points), rtol=1e-4, atol=1e-7)
    # In the space of weights the evidence is that of the noisy rows given the conditions.
    conditions = DensePosterior(engine.conditions, [FieldPrior((kernel,))]).diagnostics["log_evidence"]
    expected = dense.diagnostics["log_evidence"] - conditions
    assert weights.diagnostics["log_evidence"] == pytest.approx(expected, abs=0.02)


def test_kernels_of_gpytorch_are_read_with_their_parameters():
    case = CASES["P1"]
    kernel = SpectralMixtureKernel(2, envelope="student-t", degrees_of_freedom=9.0)
    kernel.lengthscales, kernel.frequencies = [6.0, 6.0], [0.0, 15.9155]
    by_kernel = exact.solve(case.problem, case.grid, kernel=kernel)
    six = torch.full((2,), 6.0, dtype=torch.float64)
    mixture = MixtureAxis(MaternEnvelope(4.5), six / 12.0, six, kernel.frequencies.detach())
    by_mixture = exact.solve(case.problem, case.grid, kernel=mixture)
    points = inside(case.problem, 20)
    jet = Jet(0, (0,))
    torch.testing.assert_close(by_kernel.mean(jet, points), by_mixture.mean(jet, points))
    assert case.error(by_kernel) < 1e-4
    rbf = gpytorch.kernels.RBFKernel(ard_num_dims=2)
    rbf.lengthscale = torch.tensor([0.2, 0.5])
    first, second = kernel_axes(gpytorch.kernels.ScaleKernel(rbf), 2)
    assert float(second.lengthscales) == pytest.approx(0.5) and float(second.weights) == 1.0
    lag = torch.tensor([0.3], dtype=torch.float64)
    scale = float(gpytorch.kernels.ScaleKernel(rbf).outputscale.detach())
    assert float(first.table(lag, 0)) == pytest.approx(scale * math.exp(-0.5 * (0.3 / 0.2) ** 2), rel=1e-6)
    grid = GridKernel([gpytorch.kernels.MaternKernel(nu=2.5), rbf.__class__()])
    assert isinstance(kernel_axes(grid, 2)[0].envelope, MaternEnvelope)
    for wrong, match in ((gpytorch.kernels.LinearKernel(), "LinearKernel"), (grid, "axes")):
        with pytest.raises(InvalidDataError, match=match):
            kernel_axes(wrong, 3)


def test_kernels_are_refused_with_a_sentence():
    problem = CASES["P6"].problem
    with pytest.raises(InvalidDataError, match="unknown"):
        exact.solve(problem, (10, 10), kernel="rbf")
    with pytest.raises(InvalidDataError, match="per axis"):
        mixtures_for(problem, [], [])
    with pytest.raises(InvalidDataError, match="'u'"):
        mixtures_for(problem, {"v": "auto"}, [])
    with pytest.raises(InvalidDataError, match="derivative of order 8"):
        exact.solve(CASES["beam"].problem, (20,), kernel="matern72")
    with pytest.raises(InvalidDataError, match="two points"):
        exact.solve(problem, (10, 1))
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(InvalidDataError, match="mixtures, got 1"):
        exact.solve(problem, (10, 10), kernel=[MixtureAxis(MaternEnvelope(2.5), one, one, one)])
