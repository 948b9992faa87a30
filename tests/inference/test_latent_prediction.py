"""Exact Gaussian processes on modes and on sparse precisions: structured predictions are the dense ones."""

from __future__ import annotations

import warnings

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood

from gpkit.errors import DataWarning, GpkitError
from gpkit.geometry import Graph, PointCloud
from gpkit.inference.latent_prediction import EigenbasisPredictionStrategy, SparsePrecisionPredictionStrategy
from gpkit.inference.prediction import strategy_for
from gpkit.kernels import SpectralKernel
from gpkit.kernels.graph import GraphKernel
from gpkit.kernels.markov import MarkovKernel
from gpkit.models import ExactGP
from gpkit.operators import EigenbasisLinearOperator, SparsePrecisionLinearOperator
from tests.models.fields.conftest import fibonacci

STRATEGIES = {"modes": EigenbasisPredictionStrategy, "markov": SparsePrecisionPredictionStrategy}


@pytest.fixture(scope="module")
def cloud() -> PointCloud:
    return PointCloud(fibonacci(120), dim=2)


def _kernel(name: str, cloud: PointCloud) -> gpytorch.kernels.Kernel:
    if name == "modes":
        base = SpectralKernel(cloud.scalar_basis(20), "heat", lengthscale=0.4)
    else:
        base = MarkovKernel.on(cloud, "scalar", 2.0, 0.5)
    kernel = gpytorch.kernels.ScaleKernel(base).double()
    kernel.outputscale = 1.7
    return kernel


def _model(name: str, cloud: PointCloud, y: torch.Tensor, likelihood: GaussianLikelihood | None = None) -> ExactGP:
    x = torch.arange(0, 120, 2, dtype=torch.float64).unsqueeze(-1)
    likelihood = GaussianLikelihood().double() if likelihood is None else likelihood
    likelihood.noise = 0.05
    return ExactGP(x, y, likelihood, _kernel(name, cloud))


def _values(cloud: PointCloud) -> torch.Tensor:
    return torch.as_tensor(np.sin(2.0 * cloud.points[::2, 0]) + 0.1 * np.random.default_rng(0).standard_normal(60))


@pytest.mark.parametrize("name", ["modes", "markov"])
@pytest.mark.parametrize("places", ["nodes", "train"])
def test_predictions_are_the_dense_ones(name: str, places: str, cloud: PointCloud) -> None:
    y = _values(cloud)
    model = _model(name, cloud, y)
    x = model.train_inputs[0]
    new = torch.tensor([[1.0], [5.0], [77.0], [4.0]]).double() if places == "nodes" else x[10:25]
    model.eval(), model.likelihood.eval()
    with torch.no_grad():
        found = model(new)
        kernel = model.covar_module
        data = kernel(x).to_dense() + 0.05 * torch.eye(60, dtype=torch.float64)
        cross = kernel(new, x).to_dense()
        mean = model.mean_module.constant
        expected = mean + cross @ torch.linalg.solve(data, y - mean)
        covariance = kernel(new).to_dense() - cross @ torch.linalg.solve(data, cross.mT)
    assert isinstance(model.prediction_strategy, STRATEGIES[name])
    operator = found.lazy_covariance_matrix.evaluate_kernel()
    assert isinstance(operator, EigenbasisLinearOperator | SparsePrecisionLinearOperator)
    torch.testing.assert_close(found.mean, expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.variance, covariance.diagonal(), atol=1e-8, rtol=0)
    torch.testing.assert_close(operator.to_dense(), covariance, atol=1e-8, rtol=0)
    noisy = model.likelihood(found)
    torch.testing.assert_close(noisy.variance, covariance.diagonal() + 0.05, atol=1e-8, rtol=0)
    torch.manual_seed(0)
    draws = found.sample(torch.Size([4000]))
    np.testing.assert_allclose(np.cov(draws.T.numpy()), covariance.numpy(), atol=0.1 * float(covariance.max()))


@pytest.mark.parametrize("name", ["modes", "markov"])
def test_training_and_gradients_of_predictions(name: str, cloud: PointCloud) -> None:
    y = _values(cloud)
    model = _model(name, cloud, y)
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    model.train(), model.likelihood.train()
    value = mll(model(*model.train_inputs), y)
    value.backward()
    x, kernel = model.train_inputs[0], model.covar_module
    dense = torch.distributions.MultivariateNormal(
        model.mean_module(x).detach(), kernel(x).to_dense().detach() + 0.05 * torch.eye(60, dtype=torch.float64)
    )
    assert float(value.detach()) == pytest.approx(float(dense.log_prob(y)) / 60.0, rel=1e-8)
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    model.eval()
    raw = kernel.raw_outputscale
    new = torch.tensor([[7.0], [11.0]]).double()

    def total() -> torch.Tensor:
        found = model(new)
        return found.mean.sum() + found.variance.sum()

    (slope,) = torch.autograd.grad(total(), [raw])
    ends = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            raw += step
            ends.append(float(total().detach()))
            raw -= step
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("name", ["modes", "markov"])
def test_missing_targets_and_unequal_noise(name: str, cloud: PointCloud) -> None:
    y = _values(cloud)
    holes = y.clone()
    holes[[3, 40]] = torch.nan
    noise = torch.linspace(0.02, 0.2, 60).double()
    x = torch.arange(0, 120, 2, dtype=torch.float64).unsqueeze(-1)
    seen = ~torch.isnan(holes)
    whole = gpytorch.models.ExactGP
    assert issubclass(ExactGP, whole)
    model = ExactGP(x, y, FixedNoiseGaussianLikelihood(noise), _kernel(name, cloud))
    less = ExactGP(x[seen], y[seen], FixedNoiseGaussianLikelihood(noise[seen]), _kernel(name, cloud))
    model.train_targets = holes
    new = torch.tensor([[1.0], [80.0]]).double()
    model.eval(), less.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(new).mean, less(new).mean, atol=1e-8, rtol=0)
        torch.testing.assert_close(model(new).variance, less(new).variance, atol=1e-8, rtol=0)
    with pytest.raises(GpkitError, match="condition again"):
        model.prediction_strategy.get_fantasy_strategy()


def test_places_far_from_the_nodes_keep_the_prior(cloud: PointCloud) -> None:
    y = _values(cloud)
    model = _model("modes", cloud, y)
    points = torch.as_tensor(cloud.points[::2])
    model = ExactGP(points, y, model.likelihood, model.covar_module)
    model.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # one place is far, and modes are damped at the other
        found = model(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 9.0]]).double())
    assert float(found.variance[1]) == pytest.approx(1.7, rel=1e-6)
    assert float(found.variance[0]) < 0.2 * 1.7


def test_kernels_of_graphs_have_the_strategies() -> None:
    ring = np.eye(30, k=1) + np.eye(30, k=-1)
    graph = Graph(ring)
    x = torch.arange(30, dtype=torch.float64).unsqueeze(-1)
    for method, kind in (("spectral", EigenbasisPredictionStrategy), ("precision", SparsePrecisionPredictionStrategy)):
        operator = GraphKernel(graph, method=method)(x).evaluate_kernel()
        assert strategy_for(operator) is kind
