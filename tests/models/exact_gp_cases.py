"""Data, models and dense answers that the tests of ExactGP share."""

from __future__ import annotations

import math

import torch
from gpytorch.likelihoods import GaussianLikelihood

from gpkit.models import ExactGP
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
