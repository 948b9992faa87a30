"""Regression on grids: exact where GPyTorch is not, above and below the sizes at which it changes its algorithms."""

from __future__ import annotations

import math
from unittest import mock

import gpytorch
import linear_operator
import pytest
import torch
from gpytorch.kernels import RBFKernel
from gpytorch.kernels import ScaleKernel as GPyTorchScale

from gpkit.errors import DataWarning, GpkitError, InvalidDataError
from gpkit.inference.derivatives import derivative_posterior
from gpkit.kernels import DifferentialOperator, GridKernel, MaternKernel, SpectralMixtureKernel
from gpkit.models import ExactGP
from gpkit.operators import ConditionedLinearOperator, ConjugateGradients

pytestmark = pytest.mark.filterwarnings("ignore:The input matches the stored training data")  # of GPyTorch; it is meant


def grid_inputs(n=(30, 30)):
    return torch.cartesian_prod(torch.linspace(0.0, 3.0, n[0]), torch.linspace(0.0, 2.0, n[1]).square())


def targets(x):
    generator = torch.Generator().manual_seed(3)
    return torch.sin(2.0 * x[:, 0]) * x[:, -1] + 0.5 + 0.1 * torch.randn(len(x), generator=generator)


def two_axes(first=0.8, second=0.6):
    kernel = GridKernel([RBFKernel(), MaternKernel(2.5, lengthscale=second)]).double()
    kernel.kernels[0].lengthscale = first
    return kernel


def scaled(kernel, value):
    wrapped = GPyTorchScale(kernel).double()
    wrapped.outputscale = value
    return wrapped


def spectral_line():
    kernel = SpectralMixtureKernel(2, "student-t", 5.0, weights_prior=None)
    kernel.lengthscales, kernel.frequencies = [0.7, 2.0], [0.2, 1.1]
    return kernel


MODELS = {
    "a kernel per axis": (two_axes, grid_inputs),
    "scaled": (lambda: scaled(two_axes(), 2.0), grid_inputs),
    "scaled inside an axis": (
        lambda: GridKernel([scaled(RBFKernel(), 3.0), MaternKernel(1.5)]).double(),
        grid_inputs,
    ),
    "sum": (lambda: scaled(two_axes(), 2.0) + scaled(two_axes(0.3, 2.0), 0.5), grid_inputs),
    "product": (lambda: two_axes() * two_axes(0.3, 2.0), grid_inputs),
    "spectral axes": (lambda: GridKernel([spectral_line(), spectral_line()]), grid_inputs),
    "uniform line": (spectral_line, lambda: torch.linspace(0.0, 20.0, 900)[:, None]),
    "scaled uniform line": (lambda: scaled(spectral_line(), 1.7), lambda: torch.linspace(0.0, 20.0, 900)[:, None]),
}


def dense_of(kernel, x1, x2):
    """Entry by entry: the diagonal path of every kernel, which knows no structure."""
    m, n = len(x1), len(x2)
    left = x1[:, None].expand(m, n, x1.shape[-1]).reshape(m * n, -1)
    right = x2[None].expand(m, n, x2.shape[-1]).reshape(m * n, -1)
    return kernel(left, right, diag=True).reshape(m, n)


def build(name, rows=None):
    make, inputs = MODELS[name]
    x = inputs()
    x = x if rows is None else x[rows]
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 0.05
    return ExactGP(x, targets(x), likelihood, make()), x, targets(x)


def gradients(value, model):
    parameters = list(model.parameters())
    return torch.autograd.grad(value, parameters)


@pytest.fixture
def _nothing_approximate():
    """Fail as soon as conjugate gradients, Lanczos, stochastic quadrature or a jittered factor are asked for."""
    names = (
        "linear_operator.utils.linear_cg",
        "linear_operator.utils.lanczos.lanczos_tridiag",
        "linear_operator.utils.cholesky.psd_safe_cholesky",
        "linear_operator.operators._linear_operator.psd_safe_cholesky",
    )
    assert linear_operator
    patches = [mock.patch(name, side_effect=AssertionError(f"{name} was called")) for name in names]
    for patch in patches:
        patch.start()
    yield
    for patch in patches:
        patch.stop()


@pytest.mark.usefixtures("_nothing_approximate")
@pytest.mark.parametrize("seen", ["all", "gaps"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_is_exact(name, seen):
    rows = None if seen == "all" else torch.randperm(900, generator=torch.Generator().manual_seed(2))[:850]
    model, x, y = build(name, rows)
    likelihood, kernel = model.likelihood, model.covar_module
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    value = objective(model(x), y)
    got = gradients(value, model)
    matrix = dense_of(kernel, x, x) + likelihood.noise * torch.eye(len(x))
    factor = torch.linalg.cholesky(matrix)
    residual = (y - model.mean_module(x))[:, None]
    quad = (residual * torch.cholesky_solve(residual, factor)).sum()
    want = -0.5 * (quad + 2.0 * factor.diagonal().log().sum() + len(x) * math.log(2.0 * math.pi)) / len(x)
    torch.testing.assert_close(value, want, rtol=1e-10, atol=1e-10)
    for a, b in zip(got, gradients(want, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    model.eval(), likelihood.eval()
    with torch.no_grad():
        new = torch.cat([x[:3], x[5:6] + 0.01, 0.5 * x[:4] - 0.3])
        cross = dense_of(kernel, new, x)
        mean = model.mean_module(new) + (cross @ torch.cholesky_solve(residual, factor)).squeeze(-1)
        covariance = dense_of(kernel, new, new) - cross @ torch.cholesky_solve(cross.mT, factor)
        prediction = model(new)
        torch.testing.assert_close(prediction.mean, mean, rtol=0.0, atol=1e-9)
        torch.testing.assert_close(prediction.variance, covariance.diagonal(), rtol=0.0, atol=1e-9)
        torch.testing.assert_close(prediction.covariance_matrix, covariance, rtol=0.0, atol=1e-9)
        noisy = likelihood(prediction)
        torch.testing.assert_close(noisy.variance, covariance.diagonal() + likelihood.noise)
        exact = torch.distributions.MultivariateNormal(mean, covariance + likelihood.noise * torch.eye(len(new)))
        torch.testing.assert_close(noisy.log_prob(mean + 0.1), exact.log_prob(mean + 0.1), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_nothing_approximate")
@pytest.mark.parametrize("where", ["grid", "scattered", "training points"])
def test_draws(where):
    model, x, y = build("scaled")
    x, y = x[:200], y[:200]
    model.set_train_data(x, y, strict=False)
    model.eval(), model.likelihood.eval()
    new = {"grid": grid_inputs((3, 4)), "scattered": torch.rand(12, 2), "training points": x[:12]}[where]
    with torch.no_grad():
        prediction = model(new)
        draws = prediction.sample(torch.Size([20000]))
    assert isinstance(prediction.lazy_covariance_matrix, ConditionedLinearOperator)
    want, scale = prediction.covariance_matrix, prediction.variance.max()
    assert ((draws.mean(0) - prediction.mean).abs() < 6.0 * (prediction.variance / 20000).sqrt() + 1e-6).all()
    assert (torch.cov(draws.T) - want).abs().max() < 0.06 * scale


@pytest.mark.usefixtures("_nothing_approximate")
def test_many_draws_on_a_grid_keep_the_structure():
    model, _, _ = build("scaled", slice(0, 450))
    model.eval(), model.likelihood.eval()
    with torch.no_grad(), mock.patch("torch.linalg.cholesky_ex", side_effect=AssertionError("a dense factor")):
        prediction = model(grid_inputs((32, 29)))
        draws = prediction.sample(torch.Size([500]))
        ratio = draws.var(0) / prediction.variance
    assert draws.shape == (500, 928) and abs(float(ratio.mean()) - 1.0) < 0.05


def test_prior_draws_have_the_prior_variance():
    model, x, _ = build("a kernel per axis")
    with torch.no_grad(), gpytorch.settings.prior_mode():
        draws = model.eval()(x).sample(torch.Size([2000]))
    assert abs(float(draws.var(0).mean()) - 1.0) < 0.05
    assert float(draws.var(0).min()) > 0.8


@pytest.mark.parametrize("kind", ["per point", "per row and column"])
def test_unequal_noise(kind):
    x = grid_inputs()
    y = targets(x)
    generator = torch.Generator().manual_seed(5)
    noise = 0.05 + torch.rand(len(x), generator=generator)
    if kind == "per row and column":
        noise = (
            (0.05 + torch.rand(30, 1, generator=generator)) * (0.5 + torch.rand(1, 30, generator=generator))
        ).flatten()
    likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise)
    model = ExactGP(x, y, likelihood, two_axes())
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    value = objective(model(x), y)
    matrix = dense_of(model.covar_module, x, x) + torch.diag(noise)
    want = torch.distributions.MultivariateNormal(model.mean_module(x), matrix).log_prob(y) / len(x)
    torch.testing.assert_close(value, want, rtol=1e-10, atol=1e-10)
    for a, b in zip(gradients(value, model), gradients(want, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    model.eval(), likelihood.eval()
    with torch.no_grad():
        new = torch.rand(5, 2)
        cross = dense_of(model.covar_module, new, x)
        variance = 1.0 - (cross @ torch.linalg.solve(matrix, cross.mT)).diagonal()
        torch.testing.assert_close(model(new).variance, variance, rtol=0.0, atol=1e-9)
        with pytest.warns(DataWarning, match="noise of the training points"):
            likelihood(model(x + 0.01))


def test_iterations_that_were_asked_for():
    x = grid_inputs()
    y = targets(x)
    noise = 0.05 + torch.rand(len(x), generator=torch.Generator().manual_seed(5))
    models = []
    for solver in (None, ConjugateGradients(tolerance=1e-12)):
        kernel = GridKernel([RBFKernel(), MaternKernel(2.5)], solver=solver).double()
        likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise)
        models.append(ExactGP(x, y, likelihood, scaled(kernel, 2.0)))
    with pytest.raises(GpkitError, match="no determinant"):
        models[1].likelihood(models[1](x)).log_prob(y)
    new = torch.rand(6, 2)
    with torch.no_grad():
        direct, iterated = (model.eval()(new) for model in models)
        torch.testing.assert_close(iterated.mean, direct.mean, rtol=0.0, atol=1e-8)
        torch.testing.assert_close(iterated.variance, direct.variance, rtol=0.0, atol=1e-8)
    assert models[1].prediction_strategy.covariance.factorisation.residual <= 1e-12


def test_missing_targets_are_missing_cells():
    model, x, y = build("scaled")
    hidden = torch.arange(0, 900, 45)
    holes = y.clone()
    holes[hidden] = torch.nan
    keep = torch.ones(900, dtype=torch.bool)
    keep[hidden] = False
    model.set_train_data(targets=holes, strict=False)
    other, x2, _ = build("scaled", keep)
    y2 = y[keep]
    other.set_train_data(targets=y2)
    got, want = (m.likelihood(m(i)).log_prob(t) for m, i, t in ((model, x, holes), (other, x2, y2)))
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-8)
    model.eval(), other.eval()
    with torch.no_grad():
        a, b = model(x[:50]), other(x[:50])
        torch.testing.assert_close(a.mean, b.mean, rtol=0.0, atol=1e-9)
        torch.testing.assert_close(a.variance, b.variance, rtol=0.0, atol=1e-9)


def test_no_stale_answers_and_copies():
    model, x, y = build("scaled")
    model.eval(), model.likelihood.eval()
    new = torch.rand(6, 2)
    with torch.no_grad():
        before = model(new).mean
        model.covar_module.base_kernel.kernels[0].lengthscale = 0.2
        after = model(new).mean
        fresh, *_ = build("scaled")
        fresh.load_state_dict(model.state_dict())
        torch.testing.assert_close(fresh.eval()(new).mean, after)
    assert (after - before).abs().max() > 1e-3


def test_fantasies_are_new_data():
    model, x, y = build("scaled", slice(0, 300))
    model.eval(), model.likelihood.eval()
    extra, values = torch.rand(3, 2), torch.randn(3)
    with torch.no_grad():
        got = model.get_fantasy_model(extra, values)(extra + 0.1)
        whole = ExactGP(torch.cat([x, extra]), torch.cat([y, values]), model.likelihood, model.covar_module).eval()
        whole.mean_module = model.mean_module
        want = whole(extra + 0.1)
    torch.testing.assert_close(got.mean, want.mean)
    torch.testing.assert_close(got.variance, want.variance)


def test_batches_of_kernels_are_stacks_of_models():
    x, scales = grid_inputs((6, 7)), torch.tensor([0.4, 0.9])
    y = targets(x)
    batched = GridKernel([RBFKernel(batch_shape=torch.Size([2])), RBFKernel(batch_shape=torch.Size([2]))]).double()
    batched.kernels[0].lengthscale = scales[:, None, None]
    likelihood = gpytorch.likelihoods.GaussianLikelihood(batch_shape=torch.Size([2])).double()
    model = ExactGP(x, y, likelihood, batched)
    value = model.likelihood(model(x)).log_prob(y)
    model.eval(), likelihood.eval()
    new = torch.rand(4, 2)
    with torch.no_grad():
        prediction = model(new)
    for k in range(2):
        single = ExactGP(x, y, gpytorch.likelihoods.GaussianLikelihood().double(), batched[k])
        torch.testing.assert_close(single.likelihood(single(x)).log_prob(y), value[k])
        with torch.no_grad():
            one = single.eval()(new)
        torch.testing.assert_close(one.mean, prediction.mean[k])
        torch.testing.assert_close(one.variance, prediction.variance[k])


@pytest.mark.parametrize("name", ["scaled", "uniform line"])
def test_posterior_of_derivatives(name):
    """Against finite differences of the posterior mean and of the posterior covariance."""
    model, x, _ = build(name, slice(0, 400))
    model.eval(), model.likelihood.eval()
    dims = x.shape[-1]
    new, step = torch.rand(5, dims) + 0.3, 1e-3
    shift = torch.zeros(dims)
    shift[0] = step
    with torch.no_grad():
        mean, covariance = derivative_posterior(model, DifferentialOperator.partial(0, dims=dims), new)
        pair = model(torch.cat([new + shift, new - shift]))
        torch.testing.assert_close(mean, (pair.mean[:5] - pair.mean[5:]) / (2.0 * step), rtol=1e-4, atol=1e-4)
        blocks = pair.covariance_matrix
        want = blocks[:5, :5] - blocks[:5, 5:] - blocks[5:, :5] + blocks[5:, 5:]
        torch.testing.assert_close(covariance.to_dense(), want / (4.0 * step**2), rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(covariance.diagonal(), covariance.to_dense().diagonal())
        same, _ = derivative_posterior(model, DifferentialOperator.identity(dims), new)
        torch.testing.assert_close(same, model(new).mean)
    with pytest.raises(InvalidDataError, match="call model.eval"):
        derivative_posterior(model.train(), DifferentialOperator.identity(dims), new)
