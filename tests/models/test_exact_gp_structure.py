"""What ExactGP must never do: densify, lose the structure in silence, miss a change of its data or hooks."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import gpytorch
import linear_operator
import pytest
import torch
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from gpytorch.priors import GammaPrior
from linear_operator.operators import DiagLinearOperator, LinearOperator

from gpkit.errors import InvalidDataError, StructureLostError
from gpkit.inference.prediction import SemiseparablePredictionStrategy, strategy_for
from gpkit.kernels import DRWKernel, MaternKernel, ScaleKernel, SHOKernel
from gpkit.models import ExactGP
from gpkit.operators import SemiseparableLinearOperator
from tests.factories import KERNELS
from tests.models.exact_gp_cases import NEW, build, data

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
        warnings.simplefilter("ignore")  # of torch's and Pyro's own code
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
