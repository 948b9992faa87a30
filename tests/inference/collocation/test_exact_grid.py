"""Conjugate gradients on grids against dense conditioning on the same rows."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.exact import engine as exact
from gpkit.inference.collocation.exact.bordered import BorderedPosterior
from gpkit.inference.collocation.exact.dense import DensePosterior, assemble, factorise
from gpkit.inference.collocation.exact.forms import dense_refusal
from gpkit.inference.collocation.exact.grid import GridPosterior
from gpkit.inference.collocation.exact.krylov import conjugate_gradients
from gpkit.inference.collocation.exact.lift import Lift
from gpkit.inference.collocation.exact.priors import ConditionedAxis, Constraint, FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact.rows import Rows, RowTerm, chunks, dense, grid_rows, jet_rows, prior_variance
from gpkit.inference.collocation.forms import Jet
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope
from tests.inference.collocation import problems

ENDS = (Constraint((0.0,), (0,), (1.0,)), Constraint((1.0,), (0,), (1.0,)))
START = (Constraint((0.0,), (0,), (1.0,)),)
ONE = torch.ones((), dtype=torch.float64)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def axis(envelope, lengthscale, frequencies=(0.0,)):
    n = len(frequencies)
    return MixtureAxis(envelope, torch.ones(n, dtype=torch.float64), tensor(*[lengthscale] * n), tensor(*frequencies))


def laplace_rows(n, dim, constant=0.0):
    x = torch.linspace(0, 1, n + 2, dtype=torch.float64)[1:-1].contiguous()
    terms = [RowTerm(Jet(0, tuple(2 if k == j else 0 for k in range(dim))), ONE) for j in range(dim)]
    if constant:
        terms.append(RowTerm(Jet(0, (0,) * dim), torch.tensor(constant, dtype=torch.float64)))
    mesh = torch.meshgrid(*[x] * dim, indexing="ij")
    values = torch.sin(5 * math.pi * mesh[0]) * torch.exp(mesh[-1])
    return grid_rows(terms, [x] * dim, values)


def posterior(base, n, dim=2, constant=0.0, **keywords):
    conditioned = ConditionedAxis(base, ENDS)
    rows = laplace_rows(n, dim, constant)
    prior = FieldPrior((conditioned,) * dim)
    return GridPosterior([rows], [prior], [Lift((), 0.0, 0.0)], **keywords), rows, prior


@pytest.mark.parametrize("dim", [2, 3])
def test_the_covariance_of_grids_is_that_of_their_points(dim):
    """Two fields, coefficients that vary and that do not, grids of different shapes, against scattered rows."""
    generator, none = torch.Generator().manual_seed(0), (0,) * (dim - 1)
    priors = [FieldPrior((axis(MaternEnvelope(4.5), 0.3, (0.0, 1.5)),) * dim) for _ in range(2)]

    def grid(*shape):
        axes = [torch.rand(n, generator=generator, dtype=torch.float64) for n in shape]
        terms = [RowTerm(Jet(0, (*none, 0)), torch.randn(shape, generator=generator, dtype=torch.float64))]
        terms += [RowTerm(Jet(0, (*none, 2)), -0.3 * ONE), RowTerm(Jet(0, (1, *none)), 2.0 * ONE)]
        terms.append(RowTerm(Jet(1, (2, *none)), torch.randn(shape[:1] + (1,) * (dim - 1), dtype=torch.float64)))
        return grid_rows(terms, axes)

    a, b = grid(*(4, 3, 2)[:dim]), grid(*(1, 5, 3)[:dim])
    for left, right in ((a, a), (a, b), (b, a)):
        parts = [next(chunks(r, len(r) - 1))[1] for r in (left, right)]
        whole = dense(left, right, priors)
        torch.testing.assert_close(whole[:-1, :-1], dense(*parts, priors), rtol=1e-12, atol=1e-12)


def test_a_covariance_that_does_not_fit_is_refused_with_its_size():
    assert dense_refusal(5000) is None
    said = dense_refusal(200_000)
    assert said is not None and "1.19e+03 GiB" in said and "200000 rows" in said and "coarser grid" in said


@pytest.mark.parametrize(("dim", "n"), [(2, 14), (3, 6)])
def test_mean_and_variance_are_those_of_dense_conditioning(dim, n):
    found, rows, prior = posterior(axis(MaternEnvelope(2.5), 0.4, (0.0, 1.5)), n, dim, -2.0, tolerance=1e-12)
    factor = factorise(assemble([rows], [prior]), 1e-16)
    points = torch.rand(5, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for orders in ((0,) * dim, (1,) + (0,) * (dim - 1)):
        at = jet_rows(Jet(0, orders), points)
        cross = dense(rows, at, [prior])
        mean = cross.T @ factor.solve(rows.values[:, None])[:, 0]
        variance = prior_variance(at, [prior]) - (factor.whiten(cross) ** 2).sum(0)
        torch.testing.assert_close(found.mean(Jet(0, orders), points), mean, rtol=1e-7, atol=1e-9)
        got = found.variance(Jet(0, orders), points) / found.scale
        torch.testing.assert_close(got, variance, rtol=1e-5, atol=1e-8 * float(prior_variance(at, [prior]).max()))
    grid = [tensor(0.1, 0.6), tensor(0.3, 0.5, 0.9), tensor(0.2)][:dim]
    mesh = torch.stack([m.reshape(-1) for m in torch.meshgrid(*grid, indexing="ij")], dim=1)
    jet = Jet(0, (0,) * dim)
    torch.testing.assert_close(found.mean_on_grid(jet, grid).reshape(-1), found.mean(jet, mesh))


def test_log_evidence_is_that_of_the_dense_matrix():
    found, rows, prior = posterior(axis(MaternEnvelope(2.5), 0.3), 12)
    gram = found.scale * assemble([rows], [prior])
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(rows), dtype=torch.float64), gram)
    value, error = found.log_evidence()
    assert abs(value - float(normal.log_prob(rows.values))) < max(4.0 * error, 0.05)
    assert error < 2.0


@pytest.mark.parametrize("lengthscale", [0.3, 1.0])
def test_matern_needs_few_iterations_however_fine_the_grid(lengthscale):
    iterations = [
        posterior(axis(MaternEnvelope(2.5), lengthscale), n, tolerance=1e-8)[0].diagnostics["pcg_iterations"]
        for n in (30, 126)
    ]
    assert max(iterations) <= 8


@pytest.mark.parametrize(
    ("envelope", "lengthscale", "limit"),
    [(MaternEnvelope(2.5), 1.0, 60), (GaussianEnvelope(), 0.3, 150), (MaternEnvelope(4.5), 0.3, 60)],
)
def test_spectral_mixtures_converge_in_two_dimensions(envelope, lengthscale, limit):
    found, rows, prior = posterior(axis(envelope, lengthscale, (0.0, 3.0)), 40, tolerance=1e-8)
    assert found.diagnostics["pcg_residual"] <= 1e-8
    assert found.diagnostics["pcg_iterations"] <= limit


def test_draws_have_the_posterior_mean_and_variance():
    found, rows, prior = posterior(axis(MaternEnvelope(2.5), 0.4), 10, tolerance=1e-10)
    jet, points = Jet(0, (0, 0)), torch.rand(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    draws = found.sample(600, torch.Generator().manual_seed(4))
    values = draws(jet, points)
    assert values.shape == (600, 6)
    torch.testing.assert_close(draws(jet, points), values)
    sd = found.variance(jet, points).sqrt()
    assert float(((values.mean(0) - found.mean(jet, points)) / sd).abs().max()) < 5.0 / 600**0.5
    assert float((values.std(0) / sd - 1.0).abs().max()) < 0.15
    # The equations hold in every draw, up to what the prior leaves open between its points.
    node = torch.stack([rows.coordinates[0][[3]], rows.coordinates[1][[5]]], dim=1)
    left = sum(draws(Jet(0, o), node) for o in ((2, 0), (0, 2)))
    target = rows.values.reshape(rows.shape)[3, 5]
    assert float((left - target).abs().max()) < 1e-3 * float(rows.values.abs().max())


def test_an_iteration_that_cannot_converge_is_an_error():
    matrix = torch.diag(torch.logspace(0, -14, 60, dtype=torch.float64))
    result = conjugate_gradients(lambda v: matrix @ v, lambda v: v, torch.ones(60, 1, dtype=torch.float64), 1e-10, 30)
    assert result.residual > 1e-3
    found, *_ = posterior(axis(MaternEnvelope(2.5), 0.3), 8)
    found._preconditioner.solve = lambda v: v * 0.0
    with pytest.raises(ConvergenceError, match="residual"):
        found.solve(torch.ones(64, 1, dtype=torch.float64))


def test_transport_from_initial_and_inflow_data():
    """A first-order operator on two axes, whose eigenvectors need not be well conditioned."""
    case = problems.published()["V1"]
    case.grid = (60, 60)
    kernel = [axis(MaternEnvelope(2.5), 0.5), axis(MaternEnvelope(2.5), 0.5, (0.0, 31.83))]
    found = exact.solve(case.problem, case.grid, kernel=kernel)
    assert "conjugate gradients" in found.diagnostics["method"]
    assert found.diagnostics["pcg_residual"] < 1e-6
    assert case.error(found, 60) < 1e-2


def test_a_border_of_observations_is_conditioning_on_all_rows():
    """On a circle along the first axis; values and slopes with noise, against one dense factorisation."""
    circle = WaveAxis.wrapped(axis(MaternEnvelope(3.5), 0.2), 1.0, 24.0)
    prior = FieldPrior((circle, ConditionedAxis(axis(MaternEnvelope(3.5), 0.5), START)))
    x, t = torch.linspace(0, 1, 13, dtype=torch.float64)[:-1], torch.linspace(0, 1, 11, dtype=torch.float64)[1:]
    values = torch.sin(2 * math.pi * x)[:, None] * torch.cos(t)
    terms = [RowTerm(Jet(0, (0, 1)), ONE), RowTerm(Jet(0, (1, 0)), 0.3 * ONE), RowTerm(Jet(0, (2, 0)), -0.05 * ONE)]
    rows = grid_rows(terms, (x, t), values, tensor(0.04)[0])
    generator = torch.Generator().manual_seed(3)
    points, others = (torch.rand(m, 2, generator=generator, dtype=torch.float64) for m in (9, 5))
    seen = dataclasses.replace(jet_rows(Jet(0, (0, 0)), points), values=points.sum(1), noise=0.01 + 0.1 * points[:, 0])
    slope = RowTerm(Jet(0, (1, 0)), 1.0 + others[:, 1])
    slopes = Rows((slope,), (others[:, 0], others[:, 1]), False, others[:, 0], tensor(0.3)[0])
    inner = GridPosterior([rows], [prior], [Lift((), 0.0, 0.0)], tolerance=1e-12, fit_scale=False)
    found, whole = BorderedPosterior(inner, [seen, slopes]), DensePosterior([rows, seen, slopes], [prior])
    at, grid = torch.rand(6, 2, generator=generator, dtype=torch.float64), (tensor(0.1, 0.4), tensor(0.3, 0.8, 0.9))
    for jet in (Jet(0, (0, 0)), Jet(0, (1, 0))):
        torch.testing.assert_close(found.mean(jet, at), whole.mean(jet, at), rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(found.variance(jet, at), whole.variance(jet, at), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.mean_on_grid(jet, grid), whole.mean_on_grid(jet, grid), rtol=1e-7, atol=1e-8)
    jet, draws = Jet(0, (0, 0)), found.sample(1500, torch.Generator().manual_seed(0))
    values, deviation = draws(jet, at), found.variance(jet, at).sqrt()
    assert float(((values.mean(0) - found.mean(jet, at)) / deviation).abs().max()) < 5.0 / math.sqrt(1500)
    assert float((values.std(0) / deviation - 1.0).abs().max()) < 0.09
    # The same draws at other points are the same functions.
    torch.testing.assert_close(draws(jet, at[2:4]), values[:, 2:4], rtol=1e-9, atol=1e-9)
    assert found.diagnostics["observations"] == 14
