"""The GPyTorch path: an ExactGP with ExactMarginalLogLikelihood, value and gradient, against a dense ExactGP."""

from __future__ import annotations

import gpytorch
import torch
from _measure import Row, duration, slope, timings

from gpkit.kernels import ScaleKernel, SHOKernel
from gpkit.models import ExactGP

SECTION = "GPyTorch path (ExactGP + ExactMarginalLogLikelihood, value + gradient)"


class _Dense(gpytorch.models.ExactGP):
    def __init__(self, x, y, likelihood):
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(1.5))

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def _step(model, x, y):
    model.double().train()
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)

    def step():
        model.zero_grad()
        loss = -mll(model(x), y)
        loss.backward()
        return loss

    return step


def rows(sizes, dense_size, rounds):
    steps = {}
    for n in (dense_size, *sizes):
        generator = torch.Generator().manual_seed(n)
        x = (torch.rand(n, generator=generator, dtype=torch.float64) * n / 5).sort().values
        y = torch.randn(n, generator=generator, dtype=torch.float64)
        model = ExactGP(x, y, gpytorch.likelihoods.GaussianLikelihood(), ScaleKernel(SHOKernel(1.0, 0.4)))
        steps[n] = _step(model, x, y)
        if n == dense_size:
            dense = _step(_Dense(x[:, None], y, gpytorch.likelihoods.GaussianLikelihood()), x[:, None], y)
    small = timings({"ours": steps[dense_size], "dense": dense}, rounds)
    times = timings({str(n): steps[n] for n in sizes}, rounds)
    out = []
    limits = {500: 0.4e-3, 100_000: 6e-3}
    for n, seconds in ((dense_size, small["ours"]), *((n, times[str(n)]) for n in sizes)):
        asked = limits.get(n)
        asked = None if asked is None else 1e3 * asked
        out.append(Row(SECTION, f"N = {n:,}", 1e3 * seconds, asked, ours=duration(seconds), unit="ms", upper=True))
    ratio = small["dense"] / small["ours"]
    what = f"N = {dense_size:,} against dense Matern-3/2 of GPyTorch"
    asked = 50.0 if dense_size == 500 else None
    out.insert(1, Row(SECTION, what, ratio, asked, ours=duration(small["ours"]), peer=duration(small["dense"])))
    long = [n for n in sizes if n >= 10_000]
    if len(long) > 1:
        exponent = slope(long, [times[str(n)] for n in long])
        what = f"exponent of N from {long[0]:,} to {long[-1]:,}"
        out.append(Row(SECTION, what, exponent, 1.1, ours=f"N^{exponent:.2f}", unit="", upper=True))
    return out
