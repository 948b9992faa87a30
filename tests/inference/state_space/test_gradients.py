"""Gradients of the evidence and of posterior moments: finite differences, dense autograd and the other backend."""

from __future__ import annotations

import pytest
import torch

from gpkit.errors import GpkitError
from gpkit.inference import state_space
from gpkit.kernels import DRWKernel, MaternKernel, SHOKernel
from tests.inference.state_space import dense
from tests.inference.state_space.problems import KERNELS, coordinates, sites


def scalar(result, generator):
    """A function of everything that has gradients in both backends."""
    weights = (
        torch.randn(result.mean.shape, generator=generator),
        torch.randn(result.covariance.shape, generator=generator),
    )
    return (
        0.7 * result.log_evidence.sum()
        + (weights[0] * result.mean.sin()).sum()
        + (weights[1] * result.covariance.square()).sum()
    )


def gradients(value, tensors):
    return torch.autograd.grad(value, tensors, allow_unused=True)


@pytest.mark.parametrize("kind", ["plain", "singular", "zero", "sparse"])
@pytest.mark.parametrize("name", KERNELS)
def test_dense_autograd_agrees(name, kind, generator):
    kernels = KERNELS[name]()
    x = coordinates("plain", 9, generator)
    precision, information = (t.requires_grad_() for t in sites(kind, 9, len(kernels), generator))
    parameters = list({id(p): p for kernel in kernels for p in kernel.parameters()}.values())
    tensors = [*parameters, precision, information]
    found, wanted = [], []
    for seed in (1, 2):
        ours = state_space.smooth(kernels, x, precision, information)
        theirs = dense.posterior(kernels, x, precision, information)
        found.append(gradients(scalar(ours, torch.Generator().manual_seed(seed)), tensors))
        wanted.append(gradients(scalar(theirs, torch.Generator().manual_seed(seed)), tensors))
    for one, other in zip(sum(found, ()), sum(wanted, ()), strict=True):
        if one.shape == precision.shape:
            other = 0.5 * (other + other.mT)
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["shared, blocks of two", "sums", "given state spaces"])
def test_backends_agree(name, generator):
    kernels = KERNELS[name]()
    x = coordinates("ties", 40, generator)
    precision, information = (t.requires_grad_() for t in sites("plain", 40, len(kernels), generator))
    tensors = [*{id(p): p for kernel in kernels for p in kernel.parameters()}.values(), precision, information]
    values = []
    for backend in ("sequential", "scan"):
        result = state_space.smooth(kernels, x, precision, information, backend=backend)
        values.append(gradients(scalar(result, torch.Generator().manual_seed(1)), tensors))
    for one, other in zip(*values, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_finite_differences_of_everything(generator):
    kernel = SHOKernel(1.3, 0.7)
    x = coordinates("plain", 5, generator).requires_grad_()
    precision, information = (t.requires_grad_() for t in sites("plain", 5, 2, generator))

    def run(frequency, quality, x, precision, information):
        with torch.no_grad():
            space = SHOKernel()
        space._parameters.pop("raw_frequency"), space._parameters.pop("raw_quality")
        space.raw_frequency, space.raw_quality = frequency, quality
        result = state_space.smooth(space, x, precision, information)
        return result.log_evidence, result.mean, result.covariance

    raw = [p.detach().clone().requires_grad_() for p in kernel.parameters()]
    assert torch.autograd.gradcheck(run, (*raw, x, precision, information), atol=1e-6, rtol=1e-5)


def test_batches_share_what_they_share(generator):
    """Gradients of tensors that the batch shares are sums over it."""
    kernel = MaternKernel(1.5)
    x = coordinates("plain", 7, generator)
    precision, _ = sites("plain", 7, 2, generator)
    precision.requires_grad_()
    informations = torch.randn(3, 7, 2, generator=generator).requires_grad_()
    tensors = [*kernel.parameters(), precision, informations]
    result = state_space.smooth(kernel, x, precision, informations)
    whole = gradients((result.log_evidence + result.mean.square().sum((-1, -2))).sum(), tensors)
    parts = [torch.zeros_like(t) for t in tensors]
    for information in informations:
        single = state_space.smooth(kernel, x, precision, information)
        found = gradients(single.log_evidence + single.mean.square().sum(), tensors)
        parts = [a + b for a, b in zip(parts, found, strict=True)]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backend", ["sequential", "scan"])
def test_filter_evidence_has_gradients(backend, generator):
    kernel = DRWKernel(0.8)
    x = coordinates("plain", 6, generator)
    precision, information = sites("plain", 6, 1, generator)
    found = gradients(
        state_space.filter(kernel, x, precision, information, backend=backend).log_evidence, list(kernel.parameters())
    )
    wanted = gradients(dense.posterior([kernel], x, precision, information).log_evidence, list(kernel.parameters()))
    torch.testing.assert_close(found, wanted)


def test_what_has_no_gradient_says_so(generator):
    kernel = DRWKernel(0.8)
    x = coordinates("plain", 6, generator)
    precision, information = sites("plain", 6, 1, generator)
    with pytest.raises(GpkitError, match="backend='scan' has its gradient"):
        state_space.smooth(kernel, x, precision, information, lag_one=True).lag_one.sum().backward()
    with pytest.raises(GpkitError, match="backend='scan' has its gradient"):
        state_space.filter(kernel, x, precision, information).mean.sum().backward()
    lag = state_space.smooth(kernel, x, precision, information, lag_one=True, backend="scan").lag_one
    oracle = dense.posterior([kernel], x, precision, information).lag_one
    torch.testing.assert_close(
        gradients(lag.square().sum(), list(kernel.parameters())),
        gradients(oracle.square().sum(), list(kernel.parameters())),
    )


def test_scan_has_second_derivatives(generator):
    kernel = MaternKernel(1.5)
    x = coordinates("plain", 4, generator)
    precision, information = (t.requires_grad_() for t in sites("plain", 4, 1, generator))

    def evidence(precision, information):
        return state_space.smooth(kernel, x, precision, information, backend="scan").log_evidence

    assert torch.autograd.gradgradcheck(evidence, (precision, information), atol=1e-6)
