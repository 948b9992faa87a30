"""ExactGP against a dense GPyTorch model with the same hyper-parameters, and what it must never do."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import gpytorch
import linear_operator
import pytest
import torch
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from gpytorch.priors import GammaPrior
from linear_operator.operators import DiagLinearOperator, LinearOperator

from gpkit.errors import InvalidDataError, StructureLostError
from gpkit.inference.prediction import SemiseparablePredictionStrategy, strategy_for
from gpkit.kernels import DRWKernel, MaternKernel, ScaleKernel, SHOKernel
from gpkit.models import ExactGP
from gpkit.operators import SemiseparableLinearOperator
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from tests.factories import KERNELS

KERNEL_NAMES = ["scaled", "nested", "product", "scaled by gpytorch", "user: state space"]


def data(n=25, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, generator=generator) * 8.0  # unsorted
    x[n // 2] = x[0]  # repeated
    return x, torch.sin(x) + 0.2 * torch.randn(n, generator=generator)


NEW = torch.tensor([3.3, -2.0, 0.1, 12.0, 3.3], dtype=torch.float64)


def build(name="scaled", n=25, likelihood=None, kernel=None, **options):
    x, y = data(n)
    likelihood = GaussianLikelihood().double() if likelihood is None else likelihood
    if isinstance(likelihood, GaussianLikelihood):
        likelihood.noise = 0.15
    kernel = KERNELS[name]() if kernel is None else kernel
    return ExactGP(x, y, likelihood, kernel, **options), likelihood


def dense_answers(model, likelihood, x, y, new, noise=None):
    """Evidence, posterior mean and covariance from dense matrices."""
    kernel = model.covar_module
    noise = likelihood.noise.expand(len(x)) if noise is None else noise
    k = kernel(x.unsqueeze(-1)).to_dense() + torch.diag(noise)
    cross = kernel(new.unsqueeze(-1), x.unsqueeze(-1)).to_dense()
    prior = kernel.autocovariance(new[:, None] - new[None])
    mean = model.mean_module(x.unsqueeze(-1))
    residual = y - mean
    evidence = -0.5 * (residual @ torch.linalg.solve(k, residual) + torch.logdet(k) + len(x) * math.log(2 * math.pi))
    posterior = model.mean_module(new.unsqueeze(-1)) + cross @ torch.linalg.solve(k, residual)
    return evidence, posterior, prior - cross @ torch.linalg.solve(k, cross.mT)


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


@pytest.mark.filterwarnings("ignore:The input matches the stored training data")
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


# ------------------------------------------------------------------------------------ nothing is dense


@contextmanager
def nothing_dense(monkeypatch, largest=100) -> Iterator[list[str]]:
    """Fail on conjugate gradients, Lanczos, dense factors, and any matrix above ``largest`` squared."""
    entered: list[str] = []

    def forbid(name):
        def call(*args, **kwargs):
            entered.append(name)
            raise AssertionError(f"{name} on the structured path")

        return call

    modules = [m for n, m in list(__import__("sys").modules.items()) if n.startswith(("linear_operator", "gpytorch"))]
    for name in ("linear_cg", "lanczos_tridiag", "psd_safe_cholesky"):
        for module in modules:
            if inspect.isfunction(vars(module).get(name)):
                monkeypatch.setattr(module, name, forbid(name))
    monkeypatch.setattr(torch.linalg, "cholesky", forbid("torch.linalg.cholesky"))
    monkeypatch.setattr(torch.linalg, "cholesky_ex", forbid("torch.linalg.cholesky_ex"))

    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor) and tensor.dim() >= 2 and min(tensor.shape[-2:]) > largest:
                    entered.append(f"{function} made {tuple(tensor.shape)}")
            return out

    with Watch():
        yield entered
    assert entered == []


@pytest.mark.parametrize("n", [300, 1000])
@pytest.mark.parametrize("name", ["nested", "user: state space"])
def test_no_dense_matrix_is_ever_formed(name, n, monkeypatch):
    model, likelihood = build(name, n)
    x, y = data(n)
    new = torch.linspace(-1.0, 9.0, n + 7)
    mll = ExactMarginalLogLikelihood(likelihood, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    with nothing_dense(monkeypatch):
        for _ in range(2):
            optimiser.zero_grad()
            loss = -mll(model(x), y)
            loss.backward()
            optimiser.step()
        model.eval(), likelihood.eval()
        with torch.no_grad():
            seen = likelihood(model(new))
            seen.mean, seen.variance, seen.confidence_region()
            assert torch.isfinite(seen.sample(torch.Size([2]))).all()
            assert torch.isfinite(seen.log_prob(torch.zeros_like(new)))
            fantasy = model.get_fantasy_model(new[:200], torch.zeros(200))
            fantasy(new).variance
            with gpytorch.settings.prior_mode(True):
                assert torch.isfinite(model(new).sample()).all()
        model(new).variance.sum()


def test_the_watch_sees_dense_matrices(monkeypatch):
    with pytest.raises(AssertionError):
        with nothing_dense(monkeypatch):
            torch.zeros(200, 1) + torch.zeros(1, 200)


# --------------------------------------------------------------------- other kernels, bad combinations


def test_other_kernels_follow_gpytorch():
    x, y = data()
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
    model = ExactGP(x, y, GaussianLikelihood(), kernel)
    assert not model.structured
    model.eval()
    with torch.no_grad():
        got = model(NEW)
        k = kernel(x.unsqueeze(-1)).to_dense() + model.likelihood.noise * torch.eye(25)
        cross = kernel(NEW.unsqueeze(-1), x.unsqueeze(-1)).to_dense()
        torch.testing.assert_close(got.mean, cross @ torch.linalg.solve(k, y), rtol=1e-7, atol=1e-8)
    plane = ExactGP(torch.randn(10, 2), torch.randn(10), GaussianLikelihood(), ScaleKernel(MaternKernel(1.5)))
    plane.eval()
    with torch.no_grad():
        assert torch.isfinite(plane(torch.randn(3, 2)).variance).all()


def test_adding_covariances_instead_of_kernels_is_refused():
    class Wrong(ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood, ScaleKernel(SHOKernel()))
            self.second = ScaleKernel(DRWKernel())

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x) + self.second(x))

    model = Wrong(*data(), GaussianLikelihood().double())
    with pytest.raises(StructureLostError, match="combine kernels"):
        model(data()[0])
    model.eval()
    with pytest.raises(StructureLostError, match="combine kernels"):
        model(NEW)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.tensor([0.0, torch.nan]), torch.zeros(2), "not finite at row 1"),
        (torch.zeros(3), torch.zeros(2), "3 points but train_y has 2"),
        (torch.zeros(2).double(), torch.zeros(2).float(), "same dtype"),
        (torch.zeros(2), torch.tensor([0.0, torch.inf]), "NaN for missing"),
    ],
)
def test_bad_training_data(x, y, message):
    with pytest.raises(InvalidDataError, match=message):
        ExactGP(x, y, GaussianLikelihood(), SHOKernel())


def test_priors_enter_the_evidence():
    plain, _ = build(kernel=ScaleKernel(SHOKernel(1.0, 0.7)))
    prior = GammaPrior(2.0, 1.0)
    kernel = gpytorch.kernels.ScaleKernel(SHOKernel(1.0, 0.7, quality_prior=prior), outputscale_prior=prior).double()
    kernel.outputscale = 1.0
    with_priors, _ = build(kernel=kernel)
    x, y = data()
    values = [ExactMarginalLogLikelihood(m.likelihood, m)(m(x), y) for m in (plain, with_priors)]
    want = (prior.log_prob(torch.tensor(0.7)) + prior.log_prob(torch.tensor(1.0))) / len(x)
    torch.testing.assert_close(values[1] - values[0], want.double(), rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------------------------------- contracts


def test_pinned_hooks_of_gpytorch():
    signature = inspect.signature(DefaultPredictionStrategy.exact_prediction)
    assert list(signature.parameters) == ["self", "test_mean", "test_test_covar", "test_train_covar"]
    hook = inspect.signature(gpytorch.models.ExactGP._get_test_prior_mean_and_covariances)
    assert list(hook.parameters)[:3] == ["self", "train_inputs", "test_inputs"]
    source = inspect.getsource(gpytorch.models.ExactGP.__call__)
    for name in ("test_mean=", "test_test_covar=", "test_train_covar=", "prediction_strategy is None"):
        assert name in source
    model, _ = build()
    model.eval()
    model(NEW)
    six = model._get_test_prior_mean_and_covariances(train_inputs=model.train_inputs, test_inputs=[NEW.unsqueeze(-1)])
    assert len(six) == 6
    upstream = super(ExactGP, model)._get_test_prior_mean_and_covariances(
        train_inputs=model.train_inputs, test_inputs=[NEW.unsqueeze(-1)]
    )
    assert len(upstream) == 6
    torch.testing.assert_close(six[0], upstream[0])
    torch.testing.assert_close(six[2].to_dense(), upstream[2].to_dense())
    assert six[3] == upstream[3] and six[4] == upstream[4]


def test_the_strategy_is_chosen_by_the_operator():
    x = data()[0].unsqueeze(-1)
    assert strategy_for(KERNELS["nested"]()(x).evaluate_kernel()) is SemiseparablePredictionStrategy
    assert strategy_for(gpytorch.kernels.RBFKernel()(x).evaluate_kernel()) is DefaultPredictionStrategy


def test_the_likelihood_is_absorbed():
    """Everything in training rests on ``evaluate_kernel`` adding the noise through our ``__add__``."""
    lazy = KERNELS["scaled"]()(data()[0].unsqueeze(-1))
    for noise in (
        DiagLinearOperator(torch.ones(25)),
        linear_operator.operators.ConstantDiagLinearOperator(torch.ones(1), 25),
    ):
        total = (lazy + noise).evaluate_kernel()
        assert isinstance(total, SemiseparableLinearOperator)
        torch.testing.assert_close(total.diagonal_values, torch.ones(25))
    model, likelihood = build()
    seen = likelihood(model(data()[0]))
    assert isinstance(seen.lazy_covariance_matrix.evaluate_kernel(), SemiseparableLinearOperator)
    assert isinstance(seen.lazy_covariance_matrix, LinearOperator)


def test_plain_gpytorch_models_train_with_the_structure():
    class Plain(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = KERNELS["nested"]()

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    x, y = data()
    likelihood = GaussianLikelihood().double()
    likelihood.noise = 0.15
    plain = Plain(x, y, likelihood)
    ours = ExactGP(x, y, likelihood, plain.covar_module, gpytorch.means.ZeroMean())
    values = [ExactMarginalLogLikelihood(likelihood, m)(m(x), y) for m in (plain, ours)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------ Pyro


def pyro_model(n=15):
    likelihood = GaussianLikelihood(noise_prior=GammaPrior(2.0, 10.0)).double()
    kernel = ScaleKernel(
        SHOKernel(frequency_prior=GammaPrior(2.0, 2.0), quality_prior=GammaPrior(2.0, 2.0)),
        outputscale_prior=GammaPrior(2.0, 2.0),
    )
    return build(n=n, likelihood=likelihood, kernel=kernel, mean=gpytorch.means.ZeroMean())


def test_samples_of_pyro_become_a_batch_of_models():
    import pyro
    from pyro.infer import MCMC, NUTS

    model, likelihood = pyro_model()
    x, y = data(15)

    def program(x, y):
        sampled = model.pyro_sample_from_prior()
        output = sampled.likelihood(sampled(x))
        pyro.sample("obs", output, obs=y)

    pyro.set_rng_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc = MCMC(NUTS(program, max_tree_depth=3), num_samples=4, warmup_steps=4, disable_progbar=True)
        mcmc.run(x.unsqueeze(-1), y)
    samples = mcmc.get_samples()
    model.pyro_load_from_samples(samples)
    model.eval()
    with torch.no_grad():
        got = model(NEW.unsqueeze(-1))
    assert got.mean.shape == (4, len(NEW))
    names = {n.split(".")[-1].removesuffix("_prior"): v for n, v in samples.items()}
    for k in range(4):
        kernel = ScaleKernel(
            SHOKernel(names["frequency"][k].item(), names["quality"][k].item()), names["outputscale"][k].item()
        )
        noise = names["noise"][k] if "noise" in names else names["raw_noise"][k]
        matrix = kernel(x.unsqueeze(-1)).to_dense() + noise.reshape(()) * torch.eye(15)
        cross = kernel(NEW.unsqueeze(-1), x.unsqueeze(-1)).to_dense()
        torch.testing.assert_close(got.mean[k], (cross @ torch.linalg.solve(matrix, y)).detach(), rtol=1e-7, atol=1e-8)
