"""Derivatives of stationary kernels of one input: a registry by kernel type, with closed forms where they are known."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import gpytorch
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.composite import ProductKernel, ScaleKernel, SumKernel
from gpkit.kernels.matern import DRWKernel, MaternKernel
from gpkit.kernels.oscillators import CosineKernel
from gpkit.kernels.spectral_mixture import SpectralMixtureKernel
from gpkit.kernels.stationary import Envelope, GaussianEnvelope, MaternEnvelope

__all__ = ["highest_order", "kernel_derivatives"]


@functools.singledispatch
def kernel_derivatives(kernel: Any, lag: Tensor, order: int) -> Tensor:
    """Derivatives of a stationary kernel of one input with respect to the signed lag ``z = x - x'``.

    Kernels without a closed form are differentiated automatically. That is wrong or not finite at z = 0 where a kernel
    is written in terms of ``|z|``; values at zero are compared with those beside it, and refused if they disagree.

    Args:
        kernel: the kernel; register a closed form with ``kernel_derivatives.register``.
        lag: z, (*s).
        order: the last order n.

    Returns:
        (n + 1, *batch, *s), differentiable in the kernel's parameters.

    Raises:
        InvalidDataError: if a derivative at zero lag does not exist or cannot be found automatically.
    """
    values = _automatic(kernel, lag, order)
    at_zero = lag == 0.0
    if order and bool(at_zero.any()):
        apart = lag[~at_zero].abs()
        scale = float(apart.min()) if apart.numel() else 1.0
        # At zero, and so near to it that a derivative that exists has hardly changed.
        zero, near = _automatic(kernel, torch.tensor([0.0, 1e-3 * scale], dtype=lag.dtype), order).detach().unbind(-1)
        largest = values.detach().reshape(*zero.shape, -1).abs().amax(-1)
        size = torch.maximum(torch.maximum(zero.abs(), near.abs()), largest)
        if not bool(((zero - near).abs() <= 1e-2 * size + 1e-300).all()):
            raise InvalidDataError(
                f"{type(kernel).__name__} cannot be differentiated {order} times automatically at zero lag; register a "
                "closed form with gpkit.kernels.kernel_derivatives.register, or take a smoother kernel"
            )
    return values


def _automatic(kernel: Any, lag: Tensor, order: int) -> Tensor:
    def covariance(z: Tensor) -> Tensor:
        value: Tensor = kernel(z.unsqueeze(-1), torch.zeros_like(z).unsqueeze(-1), diag=True)
        return value

    return _differentiated(covariance, kernel.batch_shape, lag, order)


def _differentiated(covariance: Callable[[Tensor], Tensor], batch: torch.Size, lag: Tensor, order: int) -> Tensor:
    """Derivatives by automatic differentiation of a function of lags (*batch, n)."""
    with torch.enable_grad():
        # Every element of a batch gets its own lags, so that one backward pass serves all.
        z = lag.detach().reshape(-1).expand(*batch, lag.numel()).clone().requires_grad_(True)
        row = covariance(z)
        rows = [row]
        for _ in range(order):
            if not row.requires_grad:
                row = torch.zeros_like(z)
            else:
                (row,) = torch.autograd.grad(row.sum(), z, create_graph=True, materialize_grads=True)
            rows.append(row)
    return torch.stack(rows).reshape(order + 1, *batch, *lag.shape)


def _through_envelope(envelope: Envelope, lengthscale: Tensor, batch: torch.Size, lag: Tensor, order: int) -> Tensor:
    scale = lengthscale.reshape(*batch, *([1] * lag.dim()))
    return envelope.derivatives(lag.expand(*batch, *lag.shape), scale, order)


@kernel_derivatives.register
def _(kernel: SpectralMixtureKernel, lag: Tensor, order: int) -> Tensor:
    return kernel.derivatives(lag, order)


@kernel_derivatives.register
def _(kernel: gpytorch.kernels.RBFKernel, lag: Tensor, order: int) -> Tensor:
    return _through_envelope(GaussianEnvelope(), kernel.lengthscale, kernel.batch_shape, lag, order)


@kernel_derivatives.register
def _(kernel: gpytorch.kernels.MaternKernel, lag: Tensor, order: int) -> Tensor:
    return _through_envelope(MaternEnvelope(kernel.nu), kernel.lengthscale, kernel.batch_shape, lag, order)


@kernel_derivatives.register
def _(kernel: MaternKernel, lag: Tensor, order: int) -> Tensor:
    return _through_envelope(MaternEnvelope(kernel.nu), kernel.lengthscale, kernel.batch_shape, lag, order)


@kernel_derivatives.register
def _(kernel: DRWKernel, lag: Tensor, order: int) -> Tensor:
    return _through_envelope(MaternEnvelope(0.5), kernel.timescale, kernel.batch_shape, lag, order)


@kernel_derivatives.register
def _(kernel: CosineKernel, lag: Tensor, order: int) -> Tensor:
    rate = (2.0 * math.pi / kernel.period).reshape(*kernel.batch_shape, *([1] * lag.dim()))
    cos, sin = torch.cos(rate * lag), torch.sin(rate * lag)
    return torch.stack([rate**o * (cos, -sin, -cos, sin)[o % 4] for o in range(order + 1)])


@kernel_derivatives.register
def _(kernel: gpytorch.kernels.PeriodicKernel, lag: Tensor, order: int) -> Tensor:
    def covariance(z: Tensor) -> Tensor:
        phase = math.pi * z / kernel.period_length.squeeze(-1)
        return torch.exp(-2.0 * torch.sin(phase).square() / kernel.lengthscale.squeeze(-1))

    return _differentiated(covariance, kernel.batch_shape, lag, order)


@kernel_derivatives.register
def _(kernel: gpytorch.kernels.RQKernel, lag: Tensor, order: int) -> Tensor:
    def covariance(z: Tensor) -> Tensor:
        alpha = kernel.alpha.unsqueeze(-1) if kernel.alpha.dim() == len(kernel.batch_shape) else kernel.alpha
        square = (z / kernel.lengthscale.squeeze(-1)).square()
        return torch.exp(-alpha * torch.log1p(square / (2.0 * alpha)))

    return _differentiated(covariance, kernel.batch_shape, lag, order)


def _scaled(kernel: Any, lag: Tensor, order: int) -> Tensor:
    base = kernel_derivatives(kernel.base_kernel, lag, order)
    scale = kernel.outputscale
    return base * scale.reshape(*scale.shape, *([1] * lag.dim()))


def _sum(kernel: Any, lag: Tensor, order: int) -> Tensor:
    parts = [kernel_derivatives(part, lag, order) for part in kernel.kernels]
    return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


def _product(kernel: Any, lag: Tensor, order: int) -> Tensor:
    total, *rest = (kernel_derivatives(part, lag, order) for part in kernel.kernels)
    for part in rest:
        rows = [sum(math.comb(o, j) * total[j] * part[o - j] for j in range(o + 1)) for o in range(order + 1)]
        total = torch.stack([torch.as_tensor(row) for row in rows])
    return total


for _kind in (ScaleKernel, gpytorch.kernels.ScaleKernel):
    kernel_derivatives.register(_kind, _scaled)
for _kind in (SumKernel, gpytorch.kernels.AdditiveKernel):
    kernel_derivatives.register(_kind, _sum)
for _kind in (ProductKernel, gpytorch.kernels.ProductKernel):
    kernel_derivatives.register(_kind, _product)


def highest_order(kernel: Any) -> int | None:
    """The last derivative with respect to the lag that is continuous at zero, where it is known; None if all are."""
    parts = list(getattr(kernel, "kernels", [])) or [getattr(kernel, "base_kernel", None)]
    if parts[0] is not None:
        known = [order for part in parts if (order := highest_order(part)) is not None]
        return min(known) if known else None
    if isinstance(kernel, SpectralMixtureKernel):
        return kernel.envelope.highest_order
    if isinstance(kernel, MaternKernel | gpytorch.kernels.MaternKernel):
        return MaternEnvelope(kernel.nu).highest_order
    return 0 if isinstance(kernel, DRWKernel) else None
