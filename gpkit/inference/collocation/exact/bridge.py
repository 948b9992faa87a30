"""GPyTorch and gpkit kernels as mixtures along axes."""

from __future__ import annotations

from typing import Any

import gpytorch
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.kernels.grid import GridKernel
from gpkit.kernels.spectral_mixture import SpectralMixtureKernel
from gpkit.kernels.stationary import Envelope, GaussianEnvelope, MaternEnvelope

__all__ = ["kernel_axes"]


def kernel_axes(kernel: Any, dim: int) -> tuple[MixtureAxis, ...]:
    """One mixture per axis from a kernel whose covariance is a product over axes.

    Args:
        kernel: `SpectralMixtureKernel` (the same along every axis), `GridKernel` of such, `RBFKernel`, `MaternKernel`
            (a product over the axes, not a function of the distance, where there are several) or a `ScaleKernel` of
            these. Hyper-parameters are taken as they are.
        dim: Number of axes.

    Raises:
        InvalidDataError: Another kernel, batches of kernels, or another number of axes.
    """
    if isinstance(kernel, gpytorch.kernels.ScaleKernel):
        inner = kernel_axes(kernel.base_kernel, dim)
        scale = float(kernel.outputscale.detach())
        return (inner[0].times(scale), *inner[1:])
    if isinstance(kernel, GridKernel):
        if len(kernel.kernels) != dim:
            raise InvalidDataError(f"the grid kernel has {len(kernel.kernels)} axes for a problem of {dim}")
        return tuple(kernel_axes(k, 1)[0] for k in kernel.kernels)
    if len(getattr(kernel, "batch_shape", ())):
        raise InvalidDataError("conditioning on equations takes one kernel, not a batch of them")
    if isinstance(kernel, SpectralMixtureKernel):
        weights, lengths, frequencies = (t.detach() for t in (kernel.weights, kernel.lengthscales, kernel.frequencies))
        return (MixtureAxis(kernel.envelope, weights, lengths, frequencies),) * dim
    envelope: Envelope
    if isinstance(kernel, gpytorch.kernels.RBFKernel):
        envelope = GaussianEnvelope()
    elif isinstance(kernel, gpytorch.kernels.MaternKernel):
        envelope = MaternEnvelope(float(kernel.nu))
    else:
        raise InvalidDataError(
            f"a kernel of type {type(kernel).__name__} is not a product of stationary mixtures over axes: use a "
            "SpectralMixtureKernel, an RBFKernel, a MaternKernel or a GridKernel of these"
        )
    lengths = kernel.lengthscale.detach().reshape(-1).to(torch.float64)
    if len(lengths) not in (1, dim):
        raise InvalidDataError(f"the kernel has {len(lengths)} length scales for a problem of {dim} axes")
    return tuple(_single(envelope, one) for one in lengths.expand(dim))


def _single(envelope: Envelope, lengthscale: Tensor) -> MixtureAxis:
    one = torch.ones(1, dtype=torch.float64)
    return MixtureAxis(envelope, one, lengthscale.reshape(1), torch.zeros(1, dtype=torch.float64))
