"""Gaussian processes on grids beside GPyTorch's grid kernels: how far from exact, and how long.

    python benchmarks/grids.py [--quick] [--only exactness,times,toeplitz,large] [--json FILE]

Exactness: the log-likelihood per datum, its gradient, the predictive mean and variance of both, against a dense float64
Cholesky computation of the same model, at a size where GPyTorch has switched to its iterative methods. Time: one
training step (value and gradient) and one prediction, in one process on one thread; gpkit and GPyTorch take turns.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import functools
import math
import warnings

import _measure
import gpytorch
import torch
from _measure import Row, duration, timings
from gpytorch.kernels import RBFKernel, ScaleKernel
from gpytorch.utils.grid import create_data_from_grid
from scipy.linalg import solve_toeplitz

from gpkit.kernels import GridKernel, MaternKernel, SpectralMixtureKernel
from gpkit.models import ExactGP
from gpkit.operators import ToeplitzLinearOperator

EXACT = "Error against a dense Cholesky computation (gpkit's; GPyTorch's beside it)"
TIME = "CPU time: training step and prediction"
TOEPLITZ = "Toeplitz systems"
LARGE = "Sizes that a dense matrix would not allow"
TOLERANCE = 1e-8


class Peer(gpytorch.models.ExactGP):
    def __init__(self, x, y, likelihood, kernel):
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = kernel

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def _axes(n):
    return [torch.linspace(0.0, 4.0, n[0]), torch.linspace(0.0, 5.0, n[1])]


def _targets(x, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.sin(3.0 * x[:, 0]) * torch.cos(2.0 * x[:, 1]) + 0.2 * torch.randn(len(x), generator=generator)


def _rbf(lengthscale):
    kernel = RBFKernel()
    kernel.lengthscale = lengthscale
    return kernel


def _scaled(kernel, value=2.0):
    wrapped = ScaleKernel(kernel)
    wrapped.outputscale = value
    return wrapped


def _likelihood(noise, size):
    if noise == "one variance":
        likelihood = gpytorch.likelihoods.GaussianLikelihood()
        likelihood.noise = 0.05
        return likelihood
    generator = torch.Generator().manual_seed(9)
    return gpytorch.likelihoods.FixedNoiseGaussianLikelihood(0.03 + 0.1 * torch.rand(size, generator=generator))


def _grid(lengthscale=0.5):
    """One kernel for both axes, as the peers have it."""
    kernel = _rbf(lengthscale)
    return GridKernel([kernel, kernel])


def _peer_grid(axes, lengthscale=0.5):
    return gpytorch.kernels.GridKernel(_rbf(lengthscale), axes)


CASES = {
    "grid kernel": (lambda axes: _grid(), lambda axes: _peer_grid(axes), "one variance"),
    "scaled grid kernel": (
        lambda axes: _scaled(_grid()),
        lambda axes: _scaled(_peer_grid(axes)),
        "one variance",
    ),
    "sum of two grid kernels": (
        lambda axes: _grid() + _grid(1.5),
        lambda axes: _peer_grid(axes) + _peer_grid(axes, 1.5),
        "one variance",
    ),
    "grid kernel, noise per point": (
        lambda axes: _grid(),
        lambda axes: _peer_grid(axes),
        "per point",
    ),
    "interpolated grid kernel (KISS-GP)": (
        lambda axes: _grid(),
        lambda axes: gpytorch.kernels.GridInterpolationKernel(_rbf(0.5), grid_size=60, num_dims=2),
        "one variance",
    ),
}


def _models(case, n):
    axes = _axes(n)
    # The order in which GPyTorch recognises its grid; gpkit takes any.
    x = create_data_from_grid(axes)
    y = _targets(x)
    ours, theirs, noise = CASES[case]
    mine = ExactGP(x, y, _likelihood(noise, len(x)), ours(axes), gpytorch.means.ZeroMean())
    peer = Peer(x, y, _likelihood(noise, len(x)), theirs(axes))
    return x, y, mine, peer


def _step(model, x, y):
    """Log-likelihood per datum and its gradient."""
    model.train()
    model.likelihood.train()
    model.zero_grad()
    value = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)(model(x), y)
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def _predict(model, new):
    model.eval()
    model.likelihood.eval()
    with torch.no_grad():
        prediction = model(new)
        return prediction.mean, prediction.variance


def _dense(kernel, x1, x2):
    m, n = len(x1), len(x2)
    left = x1[:, None].expand(m, n, -1).reshape(m * n, -1)
    return kernel(left, x2[None].expand(m, n, -1).reshape(m * n, -1), diag=True).reshape(m, n)


def _reference(model, x, y, new):
    kernel, likelihood = model.covar_module, model.likelihood
    model.zero_grad()
    noise = likelihood.noise.expand(len(x)) if likelihood.noise.numel() == 1 else likelihood.noise
    matrix = _dense(kernel, x, x) + torch.diag(noise)
    factor = torch.linalg.cholesky(matrix)
    half = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
    logdet = 2.0 * factor.diagonal().log().sum()
    value = -0.5 * (half.square().sum() + logdet + len(x) * math.log(2.0 * math.pi)) / len(x)
    value.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    with torch.no_grad():
        cross = torch.linalg.solve_triangular(factor, _dense(kernel, x, new), upper=False)
        variance = _dense(kernel, new, new).diagonal() - cross.square().sum(0)
        mean = (cross * half).sum(0)
    return value.detach(), gradient, mean, variance


def exactness(n):
    rows = []
    new = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([4.0, 5.0])
    for case in CASES:
        x, y, mine, peer = _models(case, n)
        want = _reference(mine, x, y, new)
        errors = []
        for model in (mine, peer):
            torch.manual_seed(0)
            value, gradient = _step(model, x, y)
            mean, variance = _predict(model, new)
            scales = (1.0, want[1].abs().max(), want[2].abs().max(), want[3].abs().max())
            pairs = zip((value, gradient, mean, variance), want, scales, strict=True)
            errors.append([float((a - b).abs().max() / s) for a, b, s in pairs])
        names = ("log-likelihood per datum", "gradient, relative", "mean, relative", "variance, relative")
        for name, ours, theirs in zip(names, *errors, strict=True):
            what = f"{case}, N = {len(x):,}: {name}"
            rows.append(Row(EXACT, what, ours, TOLERANCE, None, f"{ours:.0e}", f"{theirs:.0e}", "", upper=True))
    return rows


def times(n, rounds):
    rows = []
    new = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([4.0, 5.0])
    for case in CASES:
        x, y, mine, peer = _models(case, n)

        def prediction(model, new=new):
            model.prediction_strategy = None
            return _predict(model, new)

        for what, call in (
            ("training step", lambda model, x=x, y=y: _step(model, x, y)),
            ("prediction, 200 points", prediction),
        ):
            functions = {"ours": functools.partial(call, mine), "peer": functools.partial(call, peer)}
            found = timings(functions, rounds=rounds)
            ratio = found["peer"] / found["ours"]
            label = f"{case}, N = {len(x):,}: {what}"
            rows.append(Row(TIME, label, ratio, None, None, duration(found["ours"]), duration(found["peer"])))
    return rows


def toeplitz(sizes, rounds):
    """Value and gradient of the evidence on a uniform line; scipy's Levinson solve and a dense Cholesky beside it."""
    rows = []
    for n in sizes:
        lag = torch.arange(float(n))
        column = torch.exp(-0.5 * (lag / 4.0) ** 2).requires_grad_(True)
        noise, y = torch.full((n,), 0.1), torch.sin(0.05 * lag)

        def ours(n=n, column=column, noise=noise, y=y):
            quad, logdet = ToeplitzLinearOperator(noise, column).inv_quad_logdet(y[:, None], logdet=True)
            return torch.autograd.grad(quad + logdet, column)[0]

        def dense(column=column, noise=noise, y=y, lag=lag):
            index = (lag[:, None] - lag).abs().long()
            factor = torch.linalg.cholesky(column[index] + torch.diag(noise))
            value = (
                y * torch.cholesky_solve(y[:, None], factor).squeeze(-1)
            ).sum() + 2.0 * factor.diagonal().log().sum()
            return torch.autograd.grad(value, column)[0]

        def levinson(column=column, noise=noise, y=y):
            first = column.detach().numpy().copy()
            first[0] += float(noise[0])
            return solve_toeplitz(first, y.numpy())

        functions = {"ours": ours, "levinson": levinson}
        if n <= 4000:
            functions["dense"] = dense
        found = timings(functions, rounds=rounds)
        for peer, name in (("dense", "dense Cholesky with autograd"), ("levinson", "scipy's solve alone")):
            if peer in found:
                label = f"N = {n:,}: evidence and gradient, beside {name}"
                ratio = found[peer] / found["ours"]
                rows.append(Row(TOEPLITZ, label, ratio, None, None, duration(found["ours"]), duration(found[peer])))
        if "dense" in found:
            error = float((ours() - dense()).abs().max() / dense().abs().max())
            rows.append(
                Row(
                    TOEPLITZ,
                    f"N = {n:,}: gradient, relative error",
                    error,
                    TOLERANCE,
                    None,
                    f"{error:.0e}",
                    "",
                    "",
                    True,
                )
            )
    return rows


def large(n, rounds):
    """Grids of a size where the peers' iterative methods, or a dense matrix, are the alternative."""
    rows = []
    axes = _axes(n)
    x = torch.cartesian_prod(*axes)
    y = _targets(x)
    gaps = torch.rand(len(x), generator=torch.Generator().manual_seed(2)) > 0.002
    cases = {
        "all cells, a kernel per axis": (x, GridKernel([MaternKernel(2.5, lengthscale=0.5), _rbf(0.5)])),
        f"{int((~gaps).sum())} cells missing": (x[gaps], GridKernel([MaternKernel(2.5, lengthscale=0.5), _rbf(0.5)])),
        "spectral-mixture axes": (x, GridKernel([SpectralMixtureKernel(3), SpectralMixtureKernel(3)])),
    }
    for name, (inputs, kernel) in cases.items():
        values = y[: len(inputs)]
        model = ExactGP(inputs, values, _likelihood("one variance", 0), kernel, gpytorch.means.ZeroMean())
        new = torch.cartesian_prod(*_axes((60, 60)))
        found = timings({"step": lambda m=model, i=inputs, v=values: _step(m, i, v)}, rounds=rounds)
        _predict(model, new)
        found |= timings({"predict": lambda m=model, new=new: _predict(m, new)}, rounds=rounds)
        for key, what in (("step", "training step"), ("predict", "mean and variance at 60 x 60 new cells")):
            label = f"{name}, N = {len(inputs):,}: {what}"
            rows.append(Row(LARGE, label, found[key], None, None, duration(found[key]), "", "s"))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--only", default="exactness,times,toeplitz,large", help="parts to run, separated by commas")
    parser.add_argument("--rounds", type=int, help="rounds in which gpkit and its peers take turns")
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")  # of peers about their own dependencies
    facts = _measure.header()
    print(_measure.markdown_header(facts), flush=True)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    small = (30, 30) if arguments.quick else (40, 50)
    parts = {
        "exactness": lambda: exactness(small),
        "times": lambda: times(small, rounds),
        "toeplitz": lambda: toeplitz((500,) if arguments.quick else (1000, 2000, 10_000), rounds),
        "large": lambda: large((40, 40) if arguments.quick else (300, 300), rounds),
    }
    rows = []
    for part in arguments.only.split(","):
        found = parts[part]()
        print("\n" + _measure.markdown(found, found[0].section), flush=True)
        rows += found
    print("\n" + _measure.summary(rows))
    if arguments.json:
        _measure.write_json(arguments.json, facts, rows)


if __name__ == "__main__":
    main()
