"""Averages over bins against quadrature of the process' covariance, dense and in the state-space engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.inference import state_space
from gpkit.kernels import BinAveragedKernel, DRWKernel, MaternKernel, ScaleKernel, SHOKernel
from tests.factories import DriverResponse
from tests.inference.state_space import dense
from tests.inference.state_space.problems import sites

BASES = {
    "drw": lambda: DRWKernel(0.7),
    "matern 3/2": lambda: ScaleKernel(MaternKernel(1.5, lengthscale=0.9), 1.7),
    "sum": lambda: SHOKernel(3.0, 4.0) + DRWKernel(2.0),
    "user": lambda: DriverResponse(1.0, 0.4, 0.8),
}
# Apart, touching, equal, nested, overlapping, points inside and outside.
BINS = torch.tensor(
    [[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.1, 0.2], [1.4, 0.9], [5.0, 0.5], [1.2, 0.0], [9.0, 0.0], [40.0, 3.0]],
    dtype=torch.float64,
)


def quadrature(kernel, one, other, order=60):
    """Double Gauss-Legendre integral, split where the lag changes its sign."""
    nodes, weights = np.polynomial.legendre.leggauss(order)

    def pieces(centre, width, splits):
        edges = sorted({centre - width / 2, centre + width / 2, *(s for s in splits if abs(s - centre) < width / 2)})
        if width == 0.0:
            return [(centre, centre)]
        return list(zip(edges[:-1], edges[1:], strict=True))

    def points(low, high):
        return (low + high) / 2 + (high - low) / 2 * nodes, weights * (high - low) / 2

    (c1, w1), (c2, w2) = one, other
    total = 0.0
    for low, high in pieces(c1, w1, [c2 - w2 / 2, c2 + w2 / 2]):
        x, v = points(low, high) if w1 else (np.array([c1]), np.ones(1))
        for x_i, v_i in zip(x, v, strict=True):
            for a, b in pieces(c2, w2, [x_i]):
                y, u = points(a, b) if w2 else (np.array([c2]), np.ones(1))
                k = kernel.autocovariance(torch.as_tensor(x_i - y)).detach().numpy()
                total += v_i * float((u * k).sum())
    return total / (w1 or 1.0) / (w2 or 1.0)


@pytest.mark.parametrize("name", BASES)
def test_dense_covariance_is_the_double_integral(name):
    base = BASES[name]()
    kernel = BinAveragedKernel(base)
    found = kernel(BINS).to_dense().detach()
    torch.testing.assert_close(found, found.mT, rtol=1e-11, atol=1e-13)
    for i in range(len(BINS)):
        for j in range(i + 1):
            want = quadrature(base, BINS[i].tolist(), BINS[j].tolist(), 14)
            assert float(found[i, j]) == pytest.approx(want, rel=1e-8, abs=1e-11)
    torch.testing.assert_close(kernel(BINS, diag=True).detach(), found.diagonal(), rtol=1e-11, atol=1e-13)
    assert torch.linalg.eigvalsh(found).min() > -1e-12
    torch.testing.assert_close(kernel(BINS[:3], BINS[3:]).to_dense().detach(), found[:3, 3:])


@pytest.mark.parametrize("name", BASES)
def test_points_have_the_covariance_of_the_process(name):
    base = BASES[name]()
    x = torch.tensor([0.0, 0.3, 2.0, 11.0])
    found = BinAveragedKernel(base)(torch.stack([x, torch.zeros(4)], -1)).to_dense()
    torch.testing.assert_close(found, base.autocovariance(x[:, None] - x[None, :]))
    narrow = BinAveragedKernel(base)(torch.stack([x, torch.full((4,), 1e-7)], -1)).to_dense()
    torch.testing.assert_close(narrow, found, rtol=1e-5, atol=1e-6)


def in_order(n, generator):
    """Bins that follow each other: some touch, some leave gaps, some are points."""
    width = torch.rand(n, generator=generator)
    width[::4] = 0.0
    gap = torch.rand(n, generator=generator) * (torch.arange(n) % 3 > 0)
    end = (gap + width).cumsum(0)
    return torch.stack([end - 0.5 * width, width], -1)


@pytest.mark.parametrize("backend", ["sequential", "scan"])
@pytest.mark.parametrize("name", BASES)
def test_engine_agrees_with_the_dense_process(name, backend, generator):
    kernel = BinAveragedKernel(BASES[name]())
    bins = in_order(13, generator)
    precision, information = sites("sparse", 13, 2, generator)
    result = state_space.smooth(kernel, bins, precision, information, lag_one=True, backend=backend)
    gram = kernel(bins).to_dense()
    oracle = dense.from_covariances([gram, gram], precision, information)
    for field in ("log_evidence", "mean", "covariance", "lag_one"):
        torch.testing.assert_close(getattr(result, field), getattr(oracle, field), rtol=1e-8, atol=1e-9)


def test_gradients_of_parameters_and_bins(generator):
    kernel = BinAveragedKernel(MaternKernel(1.5))
    bins = in_order(6, generator)
    bins[:, 1] += 0.3
    bins[:, 0] += torch.arange(6.0)
    bins.requires_grad_()
    precision, information = sites("plain", 6, 1, generator)
    tensors = [*kernel.parameters(), bins]
    found = torch.autograd.grad(state_space.smooth(kernel, bins, precision, information).log_evidence, tensors)
    oracle = dense.from_covariances([kernel(bins).to_dense()], precision, information).log_evidence
    torch.testing.assert_close(found, torch.autograd.grad(oracle, tensors), rtol=1e-8, atol=1e-9)


def test_draws_of_bins(generator):
    kernel = BinAveragedKernel(DRWKernel(1.0))
    bins = in_order(5, generator)
    draws = state_space.sample(kernel, bins, torch.zeros(5, 1, 1), torch.zeros(5, 1), 20_000, seed=3)[..., 0]
    assert (draws.mT @ draws / 20_000 - kernel(bins).to_dense()).abs().max() < 0.05


def test_batches(generator):
    kernel = BinAveragedKernel(DRWKernel(torch.tensor([0.5, 2.0]), batch_shape=torch.Size([2])))
    bins = in_order(7, generator)
    precision, information = sites("plain", 7, 1, generator)
    whole = state_space.smooth(kernel, bins, precision, information)
    gram = kernel(bins).to_dense()
    assert gram.shape == (2, 7, 7)
    for i in range(2):
        oracle = dense.from_covariances([gram[i]], precision, information)
        torch.testing.assert_close(whole.mean[i], oracle.mean, rtol=1e-9, atol=1e-10)
    empty = state_space.smooth(BinAveragedKernel(DRWKernel()), bins[:0], precision[:0], information[:0])
    assert empty.mean.shape == (0, 1)


def test_bad_bins(generator):
    kernel = BinAveragedKernel(DRWKernel())
    precision, information = sites("plain", 2, 1, generator)
    with pytest.raises(InvalidDataError, match="bins 0 and 1 overlap"):
        state_space.smooth(kernel, torch.tensor([[0.0, 1.0], [0.5, 1.0]]), precision, information)
    with pytest.raises(InvalidDataError, match="widths of bins must not be negative"):
        kernel(torch.tensor([[0.0, -1.0]])).to_dense()
    with pytest.raises(InvalidDataError, match="centre and width"):
        kernel(torch.tensor([[0.0]])).to_dense()
    with pytest.raises(InvalidDataError, match="has no state space"):
        import gpytorch

        BinAveragedKernel(gpytorch.kernels.RBFKernel())
