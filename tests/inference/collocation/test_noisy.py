"""Regression in weight space: evidence and posterior against dense formulas, coverage over seeds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import cos, sin

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Data, Equation, Jet, Observation, Problem
from gpkit.inference.collocation.noisy.evidence import Evidence
from gpkit.inference.collocation.noisy.lattice import LatticeBasis
from gpkit.inference.collocation.noisy.rows import Statistics
from gpkit.inference.collocation.noisy.spectrum import TensorSpectrum
from gpkit.inference.collocation.spectral.engine import solve
from tests.inference.collocation.problems import UNIT, box, dirichlet, face, laplacian, published, smooth, term


def wavy(x):
    return sin(5 * x) * x + x**2


THETA = np.array([0.3, -0.5, -0.4, 0.0, 1.4, 0.3, 2.1, 2.0])


def rows(seed=0, exact=None, free=False):
    basis = LatticeBasis.around(0.0, 1.0, [], 6, 0, 20, periodic=False)
    spectrum = TensorSpectrum([basis], [[0.0, 2.0]])
    rng = np.random.default_rng(seed)
    design, noise = basis.evaluate(rng.uniform(size=15), 1), rng.uniform(0.5, 2.0, 15)
    y = rng.standard_normal(15)
    statistics = Statistics.empty(basis.size)
    statistics.add(design, y, noise)
    if free:
        return Evidence([spectrum], Statistics.empty(basis.size), exact, [statistics]), design, noise, y
    return Evidence([spectrum], statistics, exact), design, noise, y


def test_the_evidence_is_that_of_the_dense_gaussian():
    evidence, design, noise, y = rows()
    variances = evidence.variances(THETA)
    found = evidence.posterior(THETA)
    covariance = (design * variances) @ design.T + np.diag(noise**2)
    expected = stats.multivariate_normal(np.zeros(15), covariance).logpdf(y)
    assert found.density == pytest.approx(expected, rel=1e-9)
    gain = (variances[:, None] * design.T) @ np.linalg.inv(covariance)
    np.testing.assert_allclose(found.mean, gain @ y, atol=1e-9)
    expected = np.diag(variances) - gain @ (design * variances)
    np.testing.assert_allclose(found.root @ found.root.T, expected, atol=1e-9 * variances.max())


def test_exact_rows_are_conditions_and_no_data():
    """The evidence is p(noisy | exact): that of all rows over that of the exact ones, each by the dense formula."""
    _, design, noise, y = rows(2)
    conditions = np.array([[1.0] + [1.0, 0.0] * 6, [1.0] + [0.5, -0.5] * 6, [2.0] + [2.0, 0.0] * 6])
    exact = Statistics.empty(design.shape[1])
    exact.add(conditions, np.array([0.3, 0.1, 0.6]), 1e-2)  # the third says what the first says
    evidence = rows(2, exact)[0]
    variances = evidence.variances(THETA)

    def density(a, b, sd):
        return stats.multivariate_normal(np.zeros(len(b)), (a * variances) @ a.T + np.diag(sd**2)).logpdf(b)

    both, right = np.concatenate([design, conditions]), np.concatenate([y, [0.3, 0.1, 0.6]])
    expected = density(both, right, np.concatenate([noise, np.full(3, 1e-2)]))
    expected -= density(conditions, right[-3:], np.full(3, 1e-2))
    assert evidence.value(THETA) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("conditioned", "free"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_gradient_of_the_evidence_is_that_of_finite_differences(conditioned, free):
    exact = None
    if conditioned:
        design = rows(1)[1]
        exact = Statistics.empty(design.shape[1])
        exact.add(design[:3] + 0.5, np.array([0.3, 0.0, -0.2]), 1e-2)
    evidence = rows(1, exact, free)[0]
    theta = np.append(THETA, 0.2) if free else THETA
    _, gradient = evidence.objective(theta)
    for k in range(len(theta)):
        step = np.zeros_like(theta)
        step[k] = 1e-4
        slope = (evidence.objective(theta + step)[0] - evidence.objective(theta - step)[0]) / 2e-4
        assert gradient[k] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_spectra_over_two_axes_are_sums_of_products():
    first = LatticeBasis.around(0.0, 1.0, [], 5, 0, 20, periodic=False)
    second = LatticeBasis.around(0.0, 2.0, [], 4, 0, 20, periodic=False)
    spectrum = TensorSpectrum([first, second], [[0.0, 3.0], [0.0, 1.0, 2.0]])
    rng = np.random.default_rng(0)
    theta = spectrum.start + 0.3 * rng.standard_normal(len(spectrum.start))
    assert spectrum.variances(theta).sum() == pytest.approx(spectrum.weights(theta).sum(), rel=1e-12)
    spectrum.alive[1, 2] = False
    assert spectrum.weights(theta)[1, 2] == 0.0
    slopes = rng.standard_normal(spectrum.functions)
    gradient = spectrum.gradient(theta, slopes)
    for k in range(len(theta)):
        step = np.zeros_like(theta)
        step[k] = 1e-6
        change = (spectrum.variances(theta + step) - spectrum.variances(theta - step)) / 2e-6
        assert gradient[k] == pytest.approx(float(slopes @ change), rel=1e-6, abs=1e-8)


def test_components_that_the_data_do_not_ask_for_are_left_out():
    """A function of x plus one of y: no product of their frequencies is kept."""
    axes = (torch.linspace(0.0, 1.0, 20), torch.linspace(0.0, 1.0, 20))
    x, y = torch.meshgrid(*axes, indexing="ij")
    clean = -((15.0) ** 2) * (sin(15 * x) + sin(15 * y))
    noise = 0.02 * float(clean.square().mean().sqrt())
    values = clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    equation = Equation(tuple(laplacian(2)), Data(values=values, axes=axes, noise=noise))
    problem = Problem(
        box(UNIT, UNIT), ("u",), (equation,), dirichlet(lambda x, y: sin(15 * x) + sin(15 * y) + 0.0 * x * y, 2)
    )
    posterior = solve(problem, (20, 20))
    kept = posterior.diagnostics["components"]
    assert kept["offered"] == 4 and kept["kept"] < 4
    assert all(min(abs(f) for f in place) < 1.5 for place in kept["frequencies"])


def test_statistics_of_tensor_grids_are_those_of_dense_rows():
    def plane(x, y):
        return sin(3 * x) * cos(2 * y)

    rng = np.random.default_rng(3)
    axes = (torch.linspace(0.0, 1.0, 12), torch.linspace(0.0, 1.0, 9))
    noisy = Data(values=torch.from_numpy(rng.standard_normal((12, 9))), axes=axes, noise=0.3)
    constant = Problem(box(UNIT, UNIT), ("u",), (Equation(tuple(laplacian(2)), noisy),), dirichlet(plane, 2))
    # The same coefficients as functions: no products of one-dimensional matrices are taken.
    varying = [term(lambda x, y: 1.0 + 0.0 * x * y, *orders) for orders in ((2, 0), (0, 2))]
    general = dataclasses.replace(constant, equations=(Equation(tuple(varying), noisy),))
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    first, second = solve(constant, (12, 9)), solve(general, (12, 9))
    value = Jet(0, (0, 0))
    assert first.diagnostics["log_evidence"] == pytest.approx(second.diagnostics["log_evidence"], rel=1e-4)
    torch.testing.assert_close(first.mean(value, x), second.mean(value, x), atol=2e-3, rtol=0.0)


def covered(case, relative, seeds, count=100):
    """Share of points inside the 95 % intervals, and the mean square of standardised errors, over noise."""
    problem, d = case.problem, len(case.grid)
    ends = zip(problem.box.lower, problem.box.upper, case.grid, strict=True)
    axes = tuple(torch.linspace(a, b, n) for a, b, n in ends)
    equation = problem.equations[0]
    clean = equation.source.function(*torch.meshgrid(*axes, indexing="ij"))
    noise = relative * float(clean.square().mean().sqrt())
    x = torch.rand(count, d, generator=torch.Generator().manual_seed(9))
    x = x * torch.tensor(problem.box.lengths) + torch.tensor(problem.box.lower)
    inside, squares = [], []
    for seed in range(seeds):
        values = clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        source = Data(values=values, axes=axes, noise=noise)
        one = dataclasses.replace(problem, equations=(dataclasses.replace(equation, source=source),))
        posterior = solve(one, case.grid)
        value = Jet(0, (0,) * d)
        z = (posterior.mean(value, x) - case.exact(*x.T)) / posterior.variance(value, x).sqrt()
        inside.append(float((z.abs() <= 1.96).double().mean()))
        squares.append(float(z.square().mean()))
    return np.mean(inside), np.mean(squares)


def test_intervals_cover_with_noisy_sources():
    case = smooth(wavy, laplacian(1), dirichlet(wavy, 1), [UNIT], (100,))
    share, square = covered(case, 0.05, 30)
    assert 0.9 <= share <= 0.98 and 0.5 < square < 1.6


def test_a_noisy_high_frequency_source_gives_its_solution_and_a_width():
    case = published()["P3"]
    share, square = covered(case, 0.01, 24)
    assert 0.9 <= share <= 0.98 and 0.6 < square < 1.5


def test_intervals_cover_in_two_dimensions():
    def plane(x, y):
        return sin(5 * x) * cos(4 * y) + x * y

    case = smooth(plane, laplacian(2), dirichlet(plane, 2), [UNIT, UNIT], (16, 16))
    share, square = covered(case, 0.1, 24)
    assert 0.9 <= share <= 0.98 and 0.5 < square < 1.6


def test_observations_stand_in_for_missing_conditions():
    def source(x):
        return -25.0 * sin(5 * x)

    def exact(x):
        return sin(5 * x) + 2.0 * x

    inside, errors = [], []
    for seed in range(100, 130):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(30, 1, generator=generator)
        values = exact(x[:, 0]) + 0.1 * torch.randn(30, generator=generator)
        seen = Observation((term(1.0, 0),), x, values, torch.full((30,), 0.1))
        equation = Equation((term(1.0, 2),), Data(source))
        problem = Problem(box(UNIT), ("u",), (equation,), (), observations=(seen,))
        posterior = solve(problem, (60,))
        at = torch.linspace(0.0, 1.0, 50)[:, None]
        z = (posterior.mean(Jet(0, (0,)), at) - exact(at[:, 0])) / posterior.variance(Jet(0, (0,)), at).sqrt()
        inside.append(float((z.abs() <= 1.96).double().mean()))
        errors.append(float((posterior.mean(Jet(0, (0,)), at) - exact(at[:, 0])).abs().mean()))
    # Two numbers are unknown, a constant and a slope; thirty observations of noise 0.1 tell them to about 0.03.
    assert 0.88 <= np.mean(inside) <= 1.0
    assert np.mean(errors) < 0.05


def test_noisy_boundary_values_are_smoothed():
    generator = torch.Generator().manual_seed(3)
    t = torch.linspace(0.0, 1.0, 60)

    def heat(x, time):
        return torch.exp(-(math.pi**2) * 0.1 * time) * sin(math.pi * x)

    start = Data(values=sin(math.pi * t) + 0.05 * torch.randn(60, generator=generator), axes=(t,), noise=0.05)
    equation = Equation((term(1.0, 0, 1), term(-0.1, 2, 0)), Data())
    sides = dirichlet(lambda x, time: 0.0 * x * time, 2, axes=[0])
    problem = Problem(box(UNIT, UNIT, names="xt"), ("u",), (equation,), (*sides, face(1, 0, start, 2, "initial")))
    posterior = solve(problem, (30, 30))
    x = torch.rand(100, 2, generator=generator)
    value = Jet(0, (0, 0))
    error, spread = posterior.mean(value, x) - heat(*x.T), posterior.variance(value, x).sqrt()
    assert float(error.abs().max()) < 0.05
    assert float((error / spread).square().mean()) < 4.0


def test_a_nonlinear_equation_with_noise():
    def truth(x):
        return sin(4 * x)

    axes = (torch.linspace(0.0, 1.0, 80),)
    clean = -16.0 * sin(4 * axes[0]) + truth(axes[0]) ** 3
    values = clean + 0.3 * torch.randn(80, generator=torch.Generator().manual_seed(0))
    equation = Equation(
        (term(1.0, 2),), Data(values=values, axes=axes, noise=0.3), (Jet(0, (0,)),), lambda x, j, p: j[0] ** 3
    )
    posterior = solve(Problem(box(UNIT), ("u",), (equation,), dirichlet(truth, 1)), (80,))
    at = torch.linspace(0.05, 0.95, 40)[:, None]
    error = posterior.mean(Jet(0, (0,)), at) - truth(at[:, 0])
    assert float((error / posterior.variance(Jet(0, (0,)), at).sqrt()).abs().max()) < 4.0
    assert posterior.diagnostics["newton_steps"][-1] < 1e-4


def test_too_many_weights_are_refused_with_their_number():
    axes = tuple(torch.linspace(0.0, 1.0, 40) for _ in range(3))
    mesh = torch.meshgrid(*axes, indexing="ij")
    values = sum(sin((40.0 + 30.0 * k) * m) for k, m in enumerate(mesh)) * 1.0
    for k in range(3):
        values = values * (1.0 + sin((55.0 + 20.0 * k) * mesh[k]))
    noisy = Data(values=values, axes=axes, noise=1e-3)
    problem = Problem(
        box(UNIT, UNIT, UNIT), ("u",), (Equation(tuple(laplacian(3)), noisy),), dirichlet(lambda x, y, z: 0.0 * x, 3)
    )
    with pytest.raises(InvalidDataError, match="weights"):
        solve(problem, (40, 40, 40))


@pytest.mark.parametrize("name", ["smooth", "oscillating"])
def test_noise_that_nobody_stated_is_found(name):
    case = (
        published()["P1"] if name == "oscillating" else smooth(wavy, laplacian(1), dirichlet(wavy, 1), [UNIT], (100,))
    )
    axis = torch.linspace(case.problem.box.lower[0], case.problem.box.upper[0], case.grid[0])
    equation = case.problem.equations[0]
    clean = equation.source.function(axis)
    level = 0.05 * float(clean.square().mean().sqrt())
    found, inside = [], []
    for seed in range(12):
        values = clean + level * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        source = Data(values=values, axes=(axis,), noise=math.nan)
        posterior = solve(
            dataclasses.replace(case.problem, equations=(dataclasses.replace(equation, source=source),)), case.grid
        )
        found.append(posterior.diagnostics["noise_levels"][0] / level)
        x = axis[1:-1:3, None] + 0.01
        z = (posterior.mean(Jet(0, (0,)), x) - case.exact(x[:, 0])) / posterior.variance(Jet(0, (0,)), x).sqrt()
        inside.append(float((z.abs() <= 1.96).double().mean()))
    assert np.mean(found) == pytest.approx(1.0, abs=0.07) and np.std(found) < 0.15
    assert 0.85 <= np.mean(inside) <= 0.995


def test_the_levels_that_were_found_are_put_where_they_belong():
    from gpkit.inference.collocation.noisy.levels import has_unknown_noise, with_noise

    noisy = Data(values=torch.zeros(9), axes=(torch.linspace(0.0, 1.0, 9),), noise=math.nan)
    seen = Observation((term(1.0, 0),), torch.rand(3, 1), torch.zeros(3), torch.tensor([0.1, math.nan, math.nan]))
    problem = Problem(box(UNIT), ("u",), (Equation((term(1.0, 2),), noisy),), dirichlet(wavy, 1), observations=(seen,))
    assert has_unknown_noise(problem)
    told = with_noise(problem, [0.5, 0.25])
    assert told.equations[0].source.noise == 0.5 and told.observations[0].noise.tolist() == [0.1, 0.25, 0.25]
    assert not has_unknown_noise(told)
