"""ExactGP against a dense GPyTorch model with the same hyper-parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood

from gpkit.inference.prediction import SemiseparablePredictionStrategy
from gpkit.models import ExactGP
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from tests.factories import KERNELS
from tests.models.exact_gp_cases import KERNEL_NAMES, NEW, build, data, dense_answers


@pytest.mark.parametrize("name", KERNEL_NAMES)
def test_training_agrees_with_dense_matrices(name):
    model, likelihood = build(name)
    x, y = data()
    mll = ExactMarginalLogLikelihood(likelihood, model)
    value = mll(model(x), y)
    parameters = [p for p in model.parameters() if p.requires_grad]
    want, _, _ = dense_answers(model, likelihood, x, y, NEW)
    torch.testing.assert_close(value, want / len(x), rtol=1e-10, atol=1e-10)
    got = torch.autograd.grad(value, parameters, allow_unused=True)
    expected = torch.autograd.grad(want / len(x), parameters, allow_unused=True)
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", KERNEL_NAMES)
def test_predictions_agree_with_dense_matrices(name):
    model, likelihood = build(name)
    model.eval(), likelihood.eval()
    x, y = data()
    _, mean, covariance = dense_answers(model, likelihood, x, y, NEW)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            latent, seen = model(NEW), likelihood(model(NEW))
            noisy = covariance + 0.15 * torch.eye(len(NEW))
            torch.testing.assert_close(latent.mean, mean, rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(latent.variance, covariance.diagonal(), rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(latent.covariance_matrix, covariance, rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(seen.variance, noisy.diagonal(), rtol=1e-8, atol=1e-9)
            y_new = torch.cos(NEW)
            want = torch.distributions.MultivariateNormal(mean, noisy).log_prob(y_new)
            torch.testing.assert_close(seen.log_prob(y_new), want, rtol=1e-8, atol=1e-8)
    assert isinstance(latent.lazy_covariance_matrix, PosteriorCovarianceLinearOperator)
    with torch.no_grad():
        draws = seen.sample(torch.Size([20000]))
    assert (torch.cov(draws.mT) - noisy).abs().max() < 0.05 * noisy.diagonal().max()


@pytest.mark.parametrize("points", [[2.0], [-50.0, 60.0], []])
def test_few_points_and_points_outside(points):
    model, likelihood = build()
    model.eval()
    points = torch.tensor(points)
    _, mean, covariance = dense_answers(model, likelihood, *data(), points)
    with torch.no_grad():
        got = model(points)
        torch.testing.assert_close(got.mean, mean, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(got.variance, covariance.diagonal(), rtol=1e-8, atol=1e-9)


@pytest.mark.filterwarnings("ignore:The input matches the stored training data")  # of GPyTorch; it is meant
def test_predicting_at_the_training_points():
    model, likelihood = build()
    model.eval()
    x, y = data()
    _, mean, covariance = dense_answers(model, likelihood, x, y, x)
    with torch.no_grad():
        torch.testing.assert_close(model(x).mean, mean, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(model(x).covariance_matrix, covariance, rtol=1e-7, atol=1e-9)


def test_missing_targets():
    model, likelihood = build()
    x, y = data()
    y[[2, 7]] = torch.nan
    model.set_train_data(targets=y, strict=False)
    keep = ~torch.isnan(y)
    want, mean, _ = dense_answers(model, likelihood, x[keep], y[keep], NEW)
    got = likelihood(model(x)).log_prob(y)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(NEW).mean, mean, rtol=1e-8, atol=1e-9)


# --------------------------------------------------------------------------------------- stale answers


def assert_fresh(model, new=NEW):
    """The answer is that of a model with cold caches."""
    with torch.no_grad():
        got = model(new)
        cold = copy.deepcopy(model)
        cold.train(), cold.eval()
        want = cold(new)
        torch.testing.assert_close(got.mean, want.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(got.variance, want.variance, rtol=0, atol=1e-12)
    return got.mean


def test_no_stale_answers():
    model, likelihood = build()
    model.eval()
    seen = [assert_fresh(model)]
    model.covar_module.base_kernel.lengthscale = 3.0
    seen.append(assert_fresh(model))
    likelihood.noise = 1.5
    seen.append(assert_fresh(model))
    with torch.no_grad():
        model.mean_module.constant.fill_(4.0)
    seen.append(assert_fresh(model))
    model.set_train_data(targets=torch.cos(data()[0]), strict=False)
    seen.append(assert_fresh(model))
    model.train_targets.mul_(2.0)
    seen.append(assert_fresh(model))
    state = copy.deepcopy(model.state_dict())
    model.covar_module.outputscale = 9.0
    seen.append(assert_fresh(model))
    model.load_state_dict(state)
    torch.testing.assert_close(assert_fresh(model), seen[-2])
    for one, two in zip(seen, seen[1:], strict=False):
        assert (one - two).abs().max() > 1e-3


def test_caches_are_used_where_nothing_changed():
    model, _ = build()
    model.eval()
    with torch.no_grad():
        model(NEW)
        first = model.prediction_strategy
        model(NEW + 1.0)
    assert model.prediction_strategy is first
    assert isinstance(first, SemiseparablePredictionStrategy)
    model.train()
    assert model.prediction_strategy is None


def test_fixed_noise_that_changes_is_seen():
    likelihood = FixedNoiseGaussianLikelihood(torch.full((25,), 0.1))
    model, _ = build(likelihood=likelihood)
    model.eval()
    before = assert_fresh(model)
    likelihood.noise = torch.full((25,), 2.0)
    assert (assert_fresh(model) - before).abs().max() > 1e-3


# ----------------------------------------------------------------------------------------- derivatives


def test_derivatives_of_predictions():
    model, _ = build()
    model.eval()
    new = NEW.clone().requires_grad_(True)
    parameters = [model.covar_module.raw_outputscale, model.covar_module.base_kernel.raw_lengthscale]

    def answers():
        posterior = model(new)
        return (posterior.mean.sin() + posterior.variance**2).sum()

    for _ in range(2):  # a second backward pass must not meet a freed graph
        grads = torch.autograd.grad(answers(), [new, *parameters])
    with torch.no_grad():
        model(NEW)  # a cache made without gradients must not be used where they are wanted
    again = torch.autograd.grad(answers(), [new, *parameters])
    for one, two in zip(grads, again, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    step = 1e-6
    for tensor, grad in zip([new, *parameters], grads, strict=True):
        flat = tensor.data.view(-1)
        for k in range(flat.numel()):
            # Coinciding times have a kink in neither mean nor variance of this kernel.
            old = flat[k].item()
            values = []
            for sign in (1.0, -1.0):
                flat[k] = old + sign * step
                with torch.no_grad():
                    values.append(answers().item())
            flat[k] = old
            want = (values[0] - values[1]) / (2.0 * step)
            assert grad.view(-1)[k].item() == pytest.approx(want, rel=1e-4, abs=1e-6)


# ------------------------------------------------------------------------------ fixed noise, fantasies


def test_fixed_noise_per_point():
    noise = torch.linspace(0.05, 0.6, 25)
    likelihood = FixedNoiseGaussianLikelihood(noise)
    model, _ = build(likelihood=likelihood)
    x, y = data()
    want, mean, covariance = dense_answers(model, likelihood, x, y, NEW, noise)
    value = ExactMarginalLogLikelihood(likelihood, model)(model(x), y)
    torch.testing.assert_close(value, want / 25, rtol=1e-10, atol=1e-10)
    model.eval(), likelihood.eval()
    extra = torch.linspace(0.1, 0.2, len(NEW))
    with torch.no_grad():
        seen = likelihood(model(NEW), noise=extra)
    torch.testing.assert_close(seen.mean, mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(seen.variance, covariance.diagonal() + extra, rtol=1e-8, atol=1e-9)
    with pytest.warns(Warning, match="did not match the size"), torch.no_grad():
        likelihood(model(NEW))


def test_training_noise_is_not_silently_used_elsewhere():
    likelihood = FixedNoiseGaussianLikelihood(torch.linspace(0.05, 0.6, 25))
    model, _ = build(likelihood=likelihood)
    model.eval(), likelihood.eval()
    elsewhere = torch.linspace(20.0, 30.0, 25)
    with torch.no_grad():
        with pytest.warns(UserWarning, match="noise of the training points.*noise="):
            likelihood(model(elsewhere))
        likelihood(model(elsewhere), noise=torch.full((25,), 0.3))


@pytest.mark.parametrize("fixed", [False, True])
def test_fantasies_are_new_data(fixed):
    noise = torch.linspace(0.05, 0.6, 25)
    likelihood = FixedNoiseGaussianLikelihood(noise) if fixed else None
    model, likelihood = build(likelihood=likelihood)
    model.eval()
    with torch.no_grad():
        before = model(NEW).mean
    extra = {"noise": torch.tensor([0.3, 0.2])} if fixed else {}
    x_new, y_new = torch.tensor([4.0, -1.0]), torch.tensor([2.0, -1.0])
    fantasy = model.get_fantasy_model(x_new, y_new, **extra)
    x, y = torch.cat([data()[0], x_new]), torch.cat([data()[1], y_new])
    all_noise = torch.cat([noise, extra["noise"]]) if fixed else None
    _, mean, covariance = dense_answers(model, likelihood, x, y, NEW, all_noise)
    with torch.no_grad():
        torch.testing.assert_close(fantasy(NEW).mean, mean, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(fantasy(NEW).variance, covariance.diagonal(), rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(model(NEW).mean, before, rtol=0, atol=1e-14)
    batch = torch.stack([y_new, y_new + 1.0, y_new - 3.0])
    extra = {"noise": torch.tensor([0.3, 0.2]).expand(3, 2)} if fixed else {}
    many = model.get_fantasy_model(x_new, batch, **extra)
    with torch.no_grad():
        assert many(NEW).mean.shape == (3, len(NEW))
        torch.testing.assert_close(many(NEW).mean[0], mean, rtol=1e-8, atol=1e-9)


# --------------------------------------------------------------------------------------------- batches


def test_batches_are_stacks_of_models():
    shape = torch.Size([3])
    x = torch.stack([data(20, s)[0] for s in range(3)]).unsqueeze(-1)
    y = torch.stack([data(20, s)[1] for s in range(3)])
    kernel = KERNELS["sum"](batch_shape=shape)
    likelihood = GaussianLikelihood(batch_shape=shape).double()
    likelihood.noise = torch.tensor([[0.1], [0.2], [0.3]])
    model = ExactGP(x, y, likelihood, kernel)
    value = ExactMarginalLogLikelihood(likelihood, model)(model(x), y)
    assert value.shape == shape
    model.eval()
    with torch.no_grad():
        together = model(NEW.expand(3, -1).unsqueeze(-1))
    for k in range(3):
        lik = GaussianLikelihood().double()
        lik.noise = likelihood.noise[k]
        single = ExactGP(x[k], y[k], lik, kernel[k])
        one = ExactMarginalLogLikelihood(lik, single)(single(x[k]), y[k])
        torch.testing.assert_close(value[k], one)
        single.eval()
        with torch.no_grad():
            torch.testing.assert_close(together.mean[k], single(NEW).mean)
            torch.testing.assert_close(together.variance[k], single(NEW).variance)
