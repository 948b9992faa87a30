"""What every kernel of the registry must satisfy."""

from __future__ import annotations

import copy
import io
import math
import pickle

import gpytorch
import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.kernels import SHOKernel, StateSpaceKernel, as_state_space
from gpkit.operators import CrossSemiseparableLinearOperator, SemiseparableLinearOperator
from tests import oracles
from tests.factories import KERNELS

NAMES = list(KERNELS)
LINE_SPECTRA = ("cosine", "periodic cosines")
X = torch.tensor([0.3, 2.0, -1.1, 0.3, 0.300001, 7.5, 4.0, 2.0], dtype=torch.float64).unsqueeze(-1)
Z = torch.tensor([1.0, 0.3, -4.0, 9.0, 2.0], dtype=torch.float64).unsqueeze(-1)


def lags(x, z):
    return (x - z.mT).abs()


def numpy_autocovariance(kernel, lag):
    """The oracle's covariance: closed forms, or an exponential of the state space's generator."""
    kernel = as_state_space(kernel)
    params, feedback = (None if v is None else v.detach().numpy() for v in kernel._generators())
    if feedback is None:
        return oracles.autocovariance(kernel.structure, params, lag.numpy())
    import scipy.linalg

    space = kernel.state_space()
    f, p, h = (v.detach().numpy() for v in (space.feedback, space.stationary_covariance, space.observation))
    return np.vectorize(lambda step: h @ scipy.linalg.expm(f * step) @ p @ h)(lag.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_gram_cross_autocovariance_and_state_space_agree(name):
    kernel = KERNELS[name]()
    want = torch.as_tensor(numpy_autocovariance(kernel, lags(X, X)))
    structured = as_state_space(kernel)
    gram = kernel(X).evaluate_kernel()
    assert isinstance(gram, SemiseparableLinearOperator)
    close = {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(gram.to_dense(), want, **close)
    torch.testing.assert_close(gram @ torch.eye(len(X)), want, **close)
    torch.testing.assert_close(structured.cross(X, X).to_dense(), want, **close)
    torch.testing.assert_close(structured.cross(X, X) @ torch.eye(len(X)), want, **close)
    torch.testing.assert_close(structured.autocovariance(X - X.mT), want, **close)
    torch.testing.assert_close(structured.state_space().autocovariance(X - X.mT), want, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(kernel(X, diag=True), want.diagonal(), **close)


@pytest.mark.parametrize("name", NAMES)
def test_cross_covariance_at_other_points(name):
    kernel = KERNELS[name]()
    want = torch.as_tensor(numpy_autocovariance(kernel, lags(X, Z)))
    operator = kernel(X, Z).evaluate_kernel()
    assert isinstance(operator, CrossSemiseparableLinearOperator)
    torch.testing.assert_close(operator.to_dense(), want, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(operator @ torch.eye(len(Z)), want, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(operator.mT @ torch.eye(len(X)), want.mT, rtol=1e-11, atol=1e-12)
    pairs = kernel(X[: len(Z)], Z, diag=True)
    torch.testing.assert_close(pairs, want[: len(Z)].diagonal(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_process_noise_is_positive_semidefinite(name):
    space = as_state_space(KERNELS[name]()).state_space()
    step = torch.tensor([0.0, 1e-9, 1e-3, 0.1, 1.0, 30.0])
    covariance = space.process_noise(step)
    scale = space.stationary_covariance.abs().max()
    assert torch.linalg.eigvalsh(covariance).min() > -1e-13 * scale
    drift = space.feedback @ space.stationary_covariance
    assert torch.linalg.eigvalsh(drift + drift.mT).max() < 1e-12 * scale * max(1.0, space.feedback.abs().max())
    torch.testing.assert_close(space.transition(torch.tensor(0.0)), torch.eye(space.dimension))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_batches_of_parameters_are_stacks_of_single_kernels(name, shape):
    batch = KERNELS[name](batch_shape=torch.Size(shape))
    assert batch.batch_shape == torch.Size(shape)
    dense = batch(X).evaluate_kernel()
    assert dense.shape == (*shape, len(X), len(X))
    structured = as_state_space(batch)
    cross = batch(X, Z).to_dense()
    for index in np.ndindex(*shape):
        single = batch[index]
        assert single.batch_shape == torch.Size()
        one = single(X).to_dense()
        torch.testing.assert_close(dense.to_dense()[index], one)
        torch.testing.assert_close(dense[index].to_dense(), one)
        torch.testing.assert_close(cross[index], single(X, Z).to_dense())
        torch.testing.assert_close(batch(X, diag=True)[index], one.diagonal())
        torch.testing.assert_close(
            structured.autocovariance(torch.tensor([0.0, 1.0]))[index],
            as_state_space(single).autocovariance(torch.tensor([0.0, 1.0])),
        )
    assert structured.psd(torch.tensor([0.1, 0.2, 0.4])).shape == (*shape, 3)
    # Selecting must leave the batch kernel as it was.
    assert batch.batch_shape == torch.Size(shape)
    torch.testing.assert_close(batch(X).to_dense(), dense.to_dense())


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_inputs(name):
    kernel = KERNELS[name]()
    x = torch.stack([X, X.flip(0) + 0.1, X * 1.3])
    dense = kernel(x).to_dense()
    for k in range(3):
        torch.testing.assert_close(dense[k], kernel(x[k]).to_dense())
    batch = KERNELS[name](batch_shape=torch.Size([3]))
    torch.testing.assert_close(batch(x).to_dense()[2], batch[2](x[2]).to_dense())
    wide = batch(x.unsqueeze(1)).to_dense()
    assert wide.shape == (3, 3, len(X), len(X))
    torch.testing.assert_close(wide[1, 2], batch[2](x[1]).to_dense())


@pytest.mark.parametrize("name", NAMES)
def test_active_dims_choose_the_time(name):
    x = torch.cat([torch.randn(len(X), 1), X, torch.randn(len(X), 1)], dim=-1)
    z = torch.cat([torch.randn(len(Z), 1), Z, torch.randn(len(Z), 1)], dim=-1)
    kernel, plain = KERNELS[name](active_dims=(1,)), KERNELS[name]()
    assert isinstance(kernel(x).evaluate_kernel(), SemiseparableLinearOperator)
    torch.testing.assert_close(kernel(x).to_dense(), plain(X).to_dense())
    torch.testing.assert_close(kernel(x, z).to_dense(), plain(X, Z).to_dense())
    torch.testing.assert_close(kernel(x, diag=True), plain(X, diag=True))


@pytest.mark.parametrize("name", NAMES)
def test_several_dimensions_are_isotropic_or_refused(name):
    kernel = as_state_space(KERNELS[name]())
    x = torch.randn(6, 3)
    if not kernel.isotropic:
        with pytest.raises(InvalidDataError, match="one-dimensional.*active_dims"):
            kernel(x).to_dense()
        return
    want = kernel.autocovariance((x[:, None] - x[None]).norm(dim=-1))
    torch.testing.assert_close(kernel(x).to_dense(), want)
    torch.testing.assert_close(kernel(x, diag=True), want.diagonal())
    assert torch.linalg.eigvalsh(want).min() > -1e-12


@pytest.mark.parametrize("name", NAMES)
def test_round_trips(name):
    kernel = KERNELS[name](batch_shape=torch.Size([2]))
    want = kernel(X).to_dense()
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        torch.testing.assert_close(other(X).to_dense(), want, rtol=0, atol=0)
        assert {n for n, _ in other.named_parameters()} == {n for n, _ in kernel.named_parameters()}
        with torch.no_grad():
            next(other.parameters()).add_(1.0)
        torch.testing.assert_close(kernel(X).to_dense(), want, rtol=0, atol=0)
    fresh = KERNELS[name](batch_shape=torch.Size([2]))
    for parameter in fresh.parameters():
        parameter.data.add_(0.3)
    file = io.BytesIO()
    torch.save(kernel.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file))
    torch.testing.assert_close(fresh(X).to_dense(), want, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    kernel = KERNELS[name]()
    weights = torch.randn(len(X), len(X))
    value = (kernel(X).to_dense() * weights).sum()
    parameters = list(kernel.parameters())
    dense = torch.autograd.grad(value, parameters)
    structured = torch.autograd.grad(((kernel(X).evaluate_kernel() @ weights.mT).diagonal()).sum(), parameters)
    for one, two in zip(dense, structured, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)
    assert sum(float(g.abs().sum()) for g in dense) > 0


@pytest.mark.parametrize("name", NAMES)
def test_one_sided_psd_integrates_to_the_variance(name):
    if name in LINE_SPECTRA:
        pytest.skip("a line spectrum")
    kernel = as_state_space(KERNELS[name]())
    # f = exp(u): the integrand is smooth and decays on both sides.
    u = torch.linspace(math.log(1e-9), math.log(1e8), 4001)
    density = kernel.psd(u.exp()).detach()
    assert density.min() >= 0.0
    total = torch.trapezoid(density * u.exp(), u)
    torch.testing.assert_close(total, kernel.autocovariance(torch.tensor(0.0)).detach(), rtol=2e-4, atol=0)
    both = kernel.psd(u.exp(), "two-sided").detach()
    torch.testing.assert_close(density, 2.0 * both)
    torch.testing.assert_close(density, 2.0 * math.sqrt(2.0 * math.pi) * kernel.psd(u.exp(), "celerite").detach())


@pytest.mark.parametrize("name", NAMES)
def test_psd_is_the_transform_of_the_autocovariance(name):
    if name in LINE_SPECTRA:
        pytest.skip("a line spectrum")
    kernel = as_state_space(KERNELS[name]())
    # The product with a damped random walk decays fast enough to be integrated.
    probe = StateSpaceKernel.__mul__(kernel, KERNELS["drw"]())
    lag = torch.linspace(0.0, 30.0, 30001)
    values = probe.autocovariance(lag).detach()
    for f in (0.01, 0.1, 0.5):
        want = 4.0 * torch.trapezoid(values * torch.cos(2.0 * math.pi * f * lag), lag)
        torch.testing.assert_close(probe.psd(torch.tensor(f)).detach(), want, rtol=1e-4, atol=1e-6)


def test_psd_refuses_an_unknown_convention():
    with pytest.raises(ValueError, match="one-sided, two-sided, celerite, got 'angular'"):
        SHOKernel().psd(torch.tensor([1.0]), "angular")


@pytest.mark.parametrize("name", NAMES)
def test_far_gaps_and_close_times(name):
    kernel = KERNELS[name]()
    x = torch.tensor([0.0, 1e-12, 1.0, 1.0, 1e6, 1e6 + 1.0, 1e12], dtype=torch.float64).unsqueeze(-1)
    operator = kernel(x).evaluate_kernel()
    dense = operator.to_dense()
    assert torch.isfinite(dense).all()
    noise = torch.full((len(x),), 0.1)
    quad, logdet = operator.add_diagonal(noise).inv_quad_logdet(torch.ones(len(x), 1), logdet=True)
    full = dense + torch.diag(noise)
    rtol = 1e-3 if "cosine" in name or "nested" in name else 1e-9
    torch.testing.assert_close(quad, torch.linalg.solve(full, torch.ones(len(x))).sum(), rtol=rtol, atol=1e-9)
    torch.testing.assert_close(logdet, torch.logdet(full), rtol=rtol, atol=1e-9)


def test_last_dim_is_batch_is_refused():
    with pytest.raises(NotImplementedError, match="active_dims"):
        SHOKernel().forward(X, X, last_dim_is_batch=True)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_parameters_with_double_precision_data_are_refused(name):
    kernel = KERNELS[name]().float()
    with pytest.raises(InvalidDataError, match="float32 parameters.*float64.*double"):
        kernel(X).evaluate_kernel()
    single = kernel(X.float()).evaluate_kernel()
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.to_dense().double(), KERNELS[name]()(X).to_dense(), rtol=1e-4, atol=1e-4)


def test_gpytorch_combinations_are_recognised():
    inner = gpytorch.kernels.ScaleKernel(SHOKernel()).double()
    kernel = gpytorch.kernels.AdditiveKernel(inner, gpytorch.kernels.ProductKernel(SHOKernel(2.0), SHOKernel(3.0)))
    converted = as_state_space(kernel)
    torch.testing.assert_close(converted(X).to_dense(), kernel(X).to_dense())
    assert as_state_space(gpytorch.kernels.RBFKernel()) is None
    assert as_state_space(SHOKernel() + gpytorch.kernels.RBFKernel()) is None
