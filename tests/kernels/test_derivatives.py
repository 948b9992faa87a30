"""The registry of derivatives: closed forms, automatic ones, refusals; covariances of differential operators."""

from __future__ import annotations

import math

import gpytorch
import pytest
import torch
from gpytorch.kernels import PeriodicKernel, RBFKernel, RQKernel
from gpytorch.kernels import ScaleKernel as GPyTorchScale

from gpkit.errors import InvalidDataError
from gpkit.kernels import (
    CosineKernel,
    DifferentialOperator,
    DRWKernel,
    GridKernel,
    MaternKernel,
    ScaleKernel,
    SpectralMixtureKernel,
    derivative_covariance,
    derivative_variance,
    kernel_derivatives,
)
from gpkit.kernels.stationary_derivatives import highest_order
from gpkit.operators import KroneckerCrossLinearOperator


class Quartic(gpytorch.kernels.Kernel):
    """A smooth kernel that no registry knows."""

    def forward(self, x1, x2, diag=False, **params):
        z = (x1 - x2)[..., 0] if diag else x1 - x2.mT
        return 1.0 / (1.0 + z**2) ** 2


class Kinked(gpytorch.kernels.Kernel):
    """Matern-3/2 written in terms of the distance: not differentiable automatically at zero."""

    def forward(self, x1, x2, diag=False, **params):
        r = (x1 - x2)[..., 0].abs() if diag else (x1 - x2.mT).abs()
        return (1.0 + r) * torch.exp(-r)


def mixture():
    kernel = SpectralMixtureKernel(2, "student-t", 7.0)
    kernel.frequencies = [0.0, 0.8]
    return kernel


BATCH = torch.Size([2])
KERNELS = {
    "squared exponential": (lambda: RBFKernel(), None),
    "matern 5/2, gpytorch": (lambda: gpytorch.kernels.MaternKernel(nu=2.5), 4),
    "matern 5/2": (lambda: MaternKernel(2.5, lengthscale=0.7), 4),
    "spectral mixture": (mixture, 6),
    "periodic": (lambda: PeriodicKernel(), None),
    "rational quadratic": (lambda: RQKernel(), None),
    "cosine": (lambda: CosineKernel(1.3), None),
    "scaled": (lambda: GPyTorchScale(RBFKernel()), None),
    "sum": (lambda: ScaleKernel(MaternKernel(2.5), 2.0) + CosineKernel(2.0), 4),
    "product": (lambda: ScaleKernel(MaternKernel(2.5), 2.0) * CosineKernel(2.0), 4),
    "product, gpytorch": (lambda: RBFKernel() * PeriodicKernel(), None),
    "unknown": (Quartic, None),
    "batch": (lambda: RBFKernel(batch_shape=BATCH) * RBFKernel(batch_shape=BATCH), None),
}


@pytest.mark.parametrize("name", KERNELS)
def test_derivatives_are_those_of_the_kernel(name):
    make, highest = KERNELS[name]
    kernel = make().double()
    assert highest_order(kernel) == highest
    lag = torch.linspace(-2.0, 2.0, 9)
    values = kernel_derivatives(kernel, lag, 3)
    assert values.shape == (4, *kernel.batch_shape, 9)
    zero = torch.zeros_like(lag)[:, None]
    torch.testing.assert_close(values[0], kernel(lag[:, None], zero, diag=True))
    step = 1e-4
    above, below = (kernel_derivatives(kernel, lag + s, 2) for s in (step, -step))
    inside = lag.abs() > 1e-3
    difference = (above - below) / (2.0 * step)
    torch.testing.assert_close(difference[..., inside], values[1:][..., inside], rtol=1e-5, atol=1e-5)
    assert (values[1::2][..., 4].abs() < 1e-12).all()
    parameters = [p for p in kernel.parameters()]
    if parameters:
        grads = torch.autograd.grad(values[2].sum(), parameters, allow_unused=True)
        assert all(g is None or torch.isfinite(g).all() for g in grads) and any(g is not None for g in grads)


def test_automatic_derivatives_that_do_not_exist_are_refused():
    kernel = Kinked()
    with pytest.raises(InvalidDataError, match="Kinked cannot be differentiated 2 times automatically at zero lag"):
        kernel_derivatives(kernel, torch.tensor([0.0, 1.0]), 2)
    away = kernel_derivatives(kernel, torch.tensor([1.0]), 2)
    assert math.isclose(away[2].item(), 0.0, abs_tol=1e-12)


def grid_kernel():
    kernel = GPyTorchScale(GridKernel([RBFKernel(), mixture()])).double()
    kernel.outputscale = 2.0
    return kernel


def test_covariances_of_differential_operators():
    kernel, x = grid_kernel(), torch.cartesian_prod(torch.linspace(0.0, 1.0, 4), torch.linspace(0.0, 2.0, 5))
    first, laplacian = DifferentialOperator.partial(0, dims=2), DifferentialOperator.laplacian(2)
    operator = laplacian + 0.3 * first
    covariance = derivative_covariance(kernel, operator, x, operator, x)
    assert isinstance(covariance, KroneckerCrossLinearOperator)
    dense = covariance.to_dense()
    torch.testing.assert_close(dense, dense.mT)
    assert torch.linalg.eigvalsh(dense.detach()).min() > -1e-8 * dense.diagonal().max()
    torch.testing.assert_close(dense.diagonal(), derivative_variance(kernel, operator, x))
    # Coefficients that are functions but constant: the same, by the dense path.
    same = DifferentialOperator({(2, 0): lambda p: 1.0 + 0.0 * p[:, 0], (0, 2): 1.0, (1, 0): 0.3})
    other = derivative_covariance(kernel, same, x, same, x)
    assert not isinstance(other, KroneckerCrossLinearOperator)
    torch.testing.assert_close(other.to_dense(), dense)
    # Against automatic differentiation of the kernel in both arguments.
    points = torch.rand(2, 2)

    def covariance_at(a, b):
        return kernel(a[None], b[None]).to_dense()[0, 0]

    def laplace(function, at):
        hessian = torch.autograd.functional.hessian(function, at, create_graph=True)
        gradient = torch.autograd.functional.jacobian(function, at, create_graph=True)
        return hessian.diagonal().sum() + 0.3 * gradient[0]

    want = laplace(lambda a: covariance_at(a, points[1]), points[0])
    identity = DifferentialOperator.identity(2)
    got = derivative_covariance(kernel, operator, points[:1], identity, points[1:]).to_dense()[0, 0]
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_variable_coefficients():
    kernel, x = grid_kernel(), torch.rand(7, 2)
    operator = DifferentialOperator({(1, 0): lambda p: 1.0 + p[:, 0], (0, 0): 2.0})
    first, identity = DifferentialOperator.partial(0, dims=2), DifferentialOperator.identity(2)
    c = (1.0 + x[:, 0])[:, None]
    dense = {
        (a, b): derivative_covariance(kernel, left, x, right, x).to_dense()
        for a, left in (("d", first), ("u", identity))
        for b, right in (("d", first), ("u", identity))
    }
    want = c * dense["d", "d"] * c.mT + 2.0 * c * dense["d", "u"] + 2.0 * dense["u", "d"] * c.mT + 4.0 * dense["u", "u"]
    torch.testing.assert_close(derivative_covariance(kernel, operator, x, operator, x).to_dense(), want)
    torch.testing.assert_close(derivative_variance(kernel, operator, x), want.diagonal())


def test_operators_are_algebra():
    first, second = DifferentialOperator.partial(0, dims=2), DifferentialOperator.partial(1, dims=2)
    assert (first @ first + second @ second).terms == DifferentialOperator.laplacian(2).terms
    assert (first + 2.0 * first - second).terms == {(1, 0): 3.0, (0, 1): -1.0}
    assert ((first + second) @ (first - second)).terms == {(2, 0): 1.0, (1, 1): 0.0, (0, 2): -1.0}
    assert (2.0 * first).order == (1, 0) and repr(2.0 * first) == "DifferentialOperator(2 d^(1, 0))"
    varying = DifferentialOperator({(0, 0): lambda p: p[:, 0]})
    x = torch.rand(3, 2)
    doubled = (varying + varying).terms[(0, 0)]
    torch.testing.assert_close(doubled(x), 2.0 * x[:, 0])
    with pytest.raises(InvalidDataError, match="constant coefficients"):
        first @ varying


def test_what_cannot_be_is_refused():
    kernel, x = grid_kernel(), torch.rand(3, 2)
    identity, plate = DifferentialOperator.identity(2), DifferentialOperator.partial(1, 4, dims=2)
    rough = GridKernel([RBFKernel(), DRWKernel()]).double()
    for call, message in (
        (lambda: derivative_covariance(kernel, plate, x, plate, x), "order 8 along axis 1.*exists to order 6"),
        (lambda: derivative_variance(rough, DifferentialOperator.partial(1, dims=2), x), "exists to order 0"),
        (lambda: derivative_covariance(kernel, identity, x, DifferentialOperator.identity(1), x), "2 and 1 axes"),
        (lambda: derivative_covariance(RBFKernel(), identity, x, identity, x), "use a GridKernel"),
        (lambda: DifferentialOperator({}), "at least one term"),
        (lambda: DifferentialOperator({(1,): 1.0, (1, 0): 1.0}), "one length"),
        (
            lambda: derivative_variance(kernel, DifferentialOperator({(0, 0): lambda p: p}), x),
            "a coefficient returned shape",
        ),
    ):
        with pytest.raises(InvalidDataError, match=message):
            call()
