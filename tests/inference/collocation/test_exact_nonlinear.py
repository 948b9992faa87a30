"""Nonlinear equations on two axes, and least squares iterated from the factor of a part of the rows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.exact import engine as exact
from gpkit.inference.collocation.exact.forms import Form, _minus_lift
from gpkit.inference.collocation.exact.iterated import IteratedPosterior, VaryingDesign
from gpkit.inference.collocation.exact.linear import LinearEngine
from gpkit.inference.collocation.exact.problem import collocation_axes
from gpkit.inference.collocation.exact.rows import RowTerm, jet_rows
from gpkit.inference.collocation.exact.weights import FeaturePosterior, design
from gpkit.inference.collocation.forms import Jet
from tests.inference.collocation import problems

CASES = {**problems.published(), **problems.others()}
VALUE = Jet(0, (0, 0))


def inside(problem, count, seed=0):
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (problem.box.lower, problem.box.upper))
    uniform = torch.rand(count, problem.box.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * uniform


@pytest.mark.parametrize(
    ("name", "grid", "kernel", "error"),
    [("nonlinear gradient", (20, 20), "auto", 1e-9), ("burgers", (16, 16), "matern92", 0.1)],
)
def test_newton_on_two_axes_ends_within_its_deviations(name, grid, kernel, error):
    case = dataclasses.replace(CASES[name], grid=grid)
    found = exact.solve(case.problem, case.grid, kernel=kernel)
    assert case.error(found) < error
    assert found.diagnostics["newton_steps"][-1] < 1e-6
    points = inside(case.problem, 80)
    ratio = (found.mean(VALUE, points) - case.exact(*points.T)) / found.variance(VALUE, points).sqrt()
    assert float((ratio.abs() <= 2.0).double().mean()) >= 0.9


@pytest.mark.slow
def test_a_high_frequency_problem_of_newton_on_two_axes():
    case = dataclasses.replace(CASES["A3"], grid=(40, 40))
    found = exact.solve(case.problem, case.grid)
    assert case.error(found) < 1e-7
    assert len(found.diagnostics["newton_steps"]) <= 10


@pytest.fixture(scope="module")
def varying():
    """A linear problem with varying coefficients, conditioned with the whole design and iterated from a part of it."""
    case = dataclasses.replace(CASES["variable 2-D"], grid=(36, 36))
    engine = LinearEngine(case.problem, collocation_axes(case.problem.box, case.grid), {}, "auto", True, False)
    rows = engine.equation_rows(None)
    whole = engine.conditioner.posterior(Form("weights", 1e-8), engine.learner.learn(rows), rows)
    assert type(whole) is FeaturePosterior
    every = [_minus_lift(r, whole.lifts) for r in rows]
    return case, every, whole, IteratedPosterior(every, whole.fields, whole.lifts, True, 1e-8)


def test_a_design_is_multiplied_as_if_it_were_formed(varying):
    _, every, whole, _ = varying
    formed = design(every[0], whole.fields)
    product = VaryingDesign(every[0], whole.fields, 1.0)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(formed.shape[1], 2, generator=generator, dtype=torch.float64)
    r = torch.randn(formed.shape[0], 2, generator=generator, dtype=torch.float64)
    scale = float(formed.norm())
    torch.testing.assert_close(product(w), formed @ w, rtol=1e-10, atol=1e-12 * scale)
    torch.testing.assert_close(product.transposed(r), formed.T @ r, rtol=1e-10, atol=1e-12 * scale)


def test_iterating_from_a_part_of_the_rows_is_conditioning_on_all(varying):
    case, _, whole, iterated = varying
    points = inside(case.problem, 30)
    deviation = whole.variance(VALUE, points).sqrt()
    assert iterated.scale == pytest.approx(whole.scale, rel=0.5)
    assert float(((iterated.mean(VALUE, points) - whole.mean(VALUE, points)) / deviation).abs().max()) < 1.0
    # The noise of rounding is that of each row there and of the block here.
    mine = iterated.variance(VALUE, points).sqrt()
    torch.testing.assert_close(mine / iterated.scale**0.5, deviation / whole.scale**0.5, rtol=0.5, atol=0.0)
    draws = iterated.sample(400, torch.Generator().manual_seed(1))(VALUE, points)
    around = draws - iterated.mean(VALUE, points)
    own = iterated.row_variance(jet_rows(VALUE, points)).sqrt()
    assert float((around.std(0) / own - 1.0).abs().max()) < 0.2


def test_a_posterior_nearby_starts_the_next(varying):
    _, every, whole, iterated = varying
    for like in (whole, iterated):
        again = IteratedPosterior(every, like.fields, like.lifts, True, like.rounding, like)
        distance = float((again.mean_weights - iterated.mean_weights).norm())
        assert distance < 0.3 * len(again.mean_weights) ** 0.5
    assert again.iterations <= 2


def test_evidence_and_variance_with_noise_are_those_of_the_covariance(varying):
    """Against the normal density, with noise well above rounding."""
    case, every, whole, _ = varying
    part = blocks_of_grid(every[0], 3)
    a = design(part, whole.fields)
    noise = 1e-7 * float((a * a).sum(1).mean())
    noisy = dataclasses.replace(part, noise=torch.tensor(noise, dtype=torch.float64))
    found = IteratedPosterior([noisy], whole.fields, whole.lifts, False, 1e-13)
    gram = a @ a.T + noise * torch.eye(len(a), dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(a), dtype=torch.float64), gram)
    assert found.evidence(False)[0] == pytest.approx(float(normal.log_prob(part.values)), abs=0.01)
    b = design(jet_rows(VALUE, inside(case.problem, 10)), whole.fields)
    expected = b @ b.T - b @ a.T @ torch.linalg.solve(gram, a @ b.T)
    at = jet_rows(VALUE, inside(case.problem, 10))
    torch.testing.assert_close(found.row_variance(at), expected.diagonal(), rtol=1e-4, atol=0.0)


def blocks_of_grid(rows, step):
    """Every few lines of a grid."""
    index = [torch.arange(0, len(x), step) for x in rows.coordinates]
    mesh = torch.meshgrid(*index, indexing="ij")
    terms = tuple(RowTerm(t.jet, t.coefficient.expand(rows.shape)[mesh]) for t in rows.terms)
    coordinates = tuple(x[i] for x, i in zip(rows.coordinates, index, strict=True))
    values = rows.values.reshape(rows.shape)[mesh].reshape(-1)
    return dataclasses.replace(rows, terms=terms, coordinates=coordinates, values=values)


def test_a_factor_that_fits_nothing_is_an_error(varying):
    _, every, whole, _ = varying
    wrong = IteratedPosterior(every, whole.fields, whole.lifts, False, 1e-8)
    wrong._by_root = lambda v: v * 1e-9
    wrong._by_root_transposed = lambda v: v
    with pytest.raises(ConvergenceError, match="deviations per weight"):
        wrong._iterate(torch.zeros_like(wrong.mean_weights))
