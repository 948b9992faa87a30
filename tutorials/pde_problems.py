# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Differential equations, one of each kind
#
# A boundary value problem is stated as mathematics, a Gaussian process is conditioned on it, and what comes back is a
# posterior: a mean, a standard deviation that bounds the error, and draws. This notebook solves one problem of each
# kind: high frequency, nonlinear, time-dependent, fourth order, coupled, three-dimensional, noisy, and inverse.
#
# With the environment variable `GPKIT_SMOKE=1` the sizes are small, to be a quick test.

# %%
# %matplotlib inline
import os
import time
import warnings
from math import pi

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, about a widget that is not needed

import torch
from matplotlib import pyplot as plt

from gpkit.models.pde import (
    PDE,
    Box,
    Dirichlet,
    Field,
    Initial,
    Neumann,
    Noisy,
    Observe,
    Unknown,
    coordinates,
    cos,
    d,
    divergence,
    dt,
    exp,
    gradient,
    laplacian,
    sin,
)

SMOKE = os.environ.get("GPKIT_SMOKE") == "1"
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## A high frequency
#
# `u'' = f` with the solution `sin 100x`: a hundred periods on 400 points, four points per period. Functions take one
# tensor per axis.

# %%
u = Field("u", Box(x=(0, 2 * pi)))
problem = PDE(d(u, "x", 2) == (lambda x: -1e4 * torch.sin(100 * x)), [Dirichlet(u, 0)])
begun = time.process_time()
solution = problem.solve(grid=400)
print(f"{time.process_time() - begun:.3f} CPU s")
print(solution)
print(solution.diagnostics["method"])

x = torch.linspace(0, 2 * pi, 3001)
error = (solution.mean(x) - torch.sin(100 * x)).abs()
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
left.plot(x[:400], solution.mean(x[:400]))
left.set(xlabel="x", ylabel="u", title="the first periods")
right.semilogy(x, error + 1e-18, lw=0.7, label="error")
right.semilogy(x, solution.std(x), label="standard deviation")
right.set(xlabel="x", title="the error and what the posterior says of it")
right.legend()
# %% [markdown]
# A grid that is too coarse for the data is not a silent failure: residuals are measured between the collocation points,
# where nothing was fitted, and the solution says so.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    coarse = problem.solve(grid=150, method="spectral")
print(caught[0].category.__name__, "-", caught[0].message)
print(coarse)

# %% [markdown]
# ## Nonlinear: Allen-Cahn with two scales
#
# The equation reads as on paper. Coordinates can be expressions too, so that the right side of a manufactured problem
# is derived and not typed.

# %%
N = 120 if SMOKE else 400
square = Box(x=(0, 1), y=(0, 1))
u = Field("u", square)
x, y = coordinates(square)


def several_scales(s):
    return sin(s) + 0.1 * sin(20 * s) + cos((30 if SMOKE else 100) * s)


known = several_scales(x) * several_scales(y)
source = laplacian(known) + known * (known**2 - 1)
problem = PDE(laplacian(u) + u * (u**2 - 1) == source, [Dirichlet(u, known)])
begun = time.process_time()
solution = problem.solve(grid=(N, N))
print(f"{time.process_time() - begun:.2f} CPU s; Newton steps {solution.diagnostics['newton_steps']}")
print(solution)

axes = [torch.linspace(0, 1, 301)] * 2
mean = solution.on_grid(axes)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
image = left.imshow(mean.T, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r")
figure.colorbar(image, ax=left)
left.set(title="posterior mean", xlabel="x", ylabel="y")
truth = solution.value(known * (u**0), torch.cartesian_prod(*axes)).reshape(301, 301)
image = right.imshow((mean - truth).abs().log10().clamp_min(-16).T, origin="lower", extent=(0, 1, 0, 1), cmap="magma")
figure.colorbar(image, ax=right)
right.set(title="log10 of the error", xlabel="x", ylabel="y")
# %% [markdown]
# ## Time as an axis: advection, heat, wave, Burgers
#
# An axis called `t` is time: Laplacians leave it out, and `Initial` gives values where it begins. A wave needs its
# velocity too, and a flow only the values where it enters: what is missing, or too much, is said.

# %%
moving = Box(x=(0, 1), t=(0, 1))
u = Field("u", moving)


def pulse(x, t):
    return torch.exp(-300 * (x - 0.4) ** 2)


problems = {
    "advection": PDE(
        dt(u) + 0.5 * d(u, "x") == 0,
        [Initial(u, "t=0", pulse), Dirichlet(u.on("x=0"), lambda x, t: torch.exp(-300 * (0.4 + 0.5 * t) ** 2))],
    ),  # noqa: E501
    "heat": PDE(dt(u) == 0.02 * laplacian(u), [Initial(u, "t=0", pulse), Neumann(u, lambda x, t: 0 * x)]),
    "wave": PDE(
        dt(u, 2) == laplacian(u),
        [Initial(u, "t=0", lambda x, t: torch.sin(2 * pi * x) ** 3, velocity=0), Dirichlet(u, 0)],
    ),  # noqa: E501
    "Burgers": PDE(
        dt(u) + u * d(u, "x") == 0.02 * laplacian(u),
        [Initial(u, "t=0", lambda x, t: torch.sin(2 * pi * x)), Dirichlet(u, 0)],
    ),  # noqa: E501
}
figure, panels = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained", sharey=True)
axes = [torch.linspace(0, 1, 201)] * 2
for ax, (name, problem) in zip(panels, problems.items(), strict=True):
    solution = problem.solve(grid=(100, 100))
    print(f"{name:10} residual {solution.residuals.equation:.0e}, conditions {solution.residuals.condition:.0e}")
    ax.imshow(solution.on_grid(axes).T, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r")
    ax.set(title=name, xlabel="x")
panels[0].set_ylabel("t")
# %% [markdown]
# A statement that has no unique solution is refused with a sentence.

# %%
from gpkit.errors import InvalidDataError

v = Field("v", square)
for what, make in {
    "a value where the flow leaves": lambda: PDE(dt(u) + d(u, "x") == 0, [Initial(u, "t=0", 0), Dirichlet(u, 0)]),
    "only derivatives": lambda: PDE(laplacian(v) == 0, [Neumann(v, 0)]),
    "diffusion of the wrong sign": lambda: PDE(dt(u) == -laplacian(u), [Initial(u, "t=0", 0), Dirichlet(u, 0)]),
}.items():
    try:
        make()
    except InvalidDataError as error:
        print(f"{what}: {error}")

# %% [markdown]
# ## Fourth order: a clamped beam on an uneven foundation

# %%
u = Field("u", Box(x=(0, 1)))
stiffness = lambda x: 1 + 0.8 * torch.sin(6 * x)  # noqa: E731
problem = PDE(d(stiffness * d(u, "x", 2), "x", 2) + 200 * u == 1, [Dirichlet(u, 0), Neumann(u, 0)])
solution = problem.solve(grid=100)
print(problem)
print(solution)
x = torch.linspace(0, 1, 400)
figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
ax.plot(x, solution.mean(x), label="deflection")
ax.plot(x, solution.derivative(x, "x", 2) / 50, label="curvature / 50")
ax.set(xlabel="x")
ax.legend()
# %% [markdown]
# ## Coupled fields: a reaction and its heat
#
# Fields of a system are found by name, `solution["T"]`.

# %%
c, T = Field("c", square), Field("T", square)
problem = PDE(
    [laplacian(c) - 4 * c * exp(T) == 0, laplacian(T) + c * exp(T) == 0],
    [Dirichlet(c, 1.0), Dirichlet(T, 0.0)],
)
solution = problem.solve(grid=(60, 60))
print(solution)
axes = [torch.linspace(0, 1, 101)] * 2
figure, panels = plt.subplots(1, 2, figsize=(8, 3.3), layout="constrained")
for ax, name in zip(panels, solution.names, strict=True):
    image = ax.imshow(solution[name].on_grid(axes).T, origin="lower", extent=(0, 1, 0, 1))
    figure.colorbar(image, ax=ax)
    ax.set(title=name, xlabel="x", ylabel="y")

# %% [markdown]
# ## Three dimensions

# %%
N = 24 if SMOKE else 100
u = Field("u", Box(x=(0, 1), y=(0, 1), z=(0, 1)))
exact = lambda x, y, z: torch.sin(20 * x) * torch.cos(15 * y) * torch.exp(z)  # noqa: E731
problem = PDE(laplacian(u) == (lambda x, y, z: -624 * exact(x, y, z)), [Dirichlet(u, exact)])
begun = time.process_time()
solution = problem.solve(grid=(N, N, N))
points = torch.rand(2000, 3)
wrong = solution.mean(points) - exact(*points.T)
print(f"{N}^3 points, {time.process_time() - begun:.2f} CPU s, error {wrong.norm() / exact(*points.T).norm():.1e}")

# %% [markdown]
# ## Noise: a source that was measured
#
# The right side is known only through noisy values. The answer is a band, not a line, and it should hold the truth.

# %%
u = Field("u", Box(x=(0, 1)))
grid = torch.linspace(0, 1, 200)
measured = -36 * torch.sin(6 * grid) + 4.0 * torch.randn(200)
solution = PDE(
    d(u, "x", 2) == Noisy(measured, noise=4.0, axes=[grid]), [Dirichlet(u, lambda x: torch.sin(6 * x))]
).solve(200)  # noqa: E501
x = torch.linspace(0, 1, 300)
low, high = solution.interval(x, 0.95)
inside = ((torch.sin(6 * x) >= low) & (torch.sin(6 * x) <= high)).double().mean()
print(f"{100 * inside:.0f} % of the truth is inside the band; {solution.diagnostics['method']}")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
left.plot(grid, measured, ".", ms=2)
left.set(title="the measured source", xlabel="x")
right.fill_between(x, low, high, alpha=0.3)
right.plot(x, solution.sample(5, seed=0)(x).T, lw=0.5, color="grey")
right.plot(x, torch.sin(6 * x), "k--", lw=0.8, label="truth")
right.set(title="95 % band and draws", xlabel="x")
right.legend()
# %% [markdown]
# ## Inverse: a diffusivity from a few temperatures
#
# An `Unknown` may stand anywhere in an equation. The fields are eliminated by the equation; the posterior is one of the
# unknown alone, with exact gradients: its mode and normal approximation, or NUTS.

# %%
u, k = (
    Field("u", Box(x=(0, 1), t=(0, 0.5))),
    Unknown("k", prior=torch.distributions.LogNormal(torch.tensor(-1.0), torch.tensor(1.0))),
)  # noqa: E501
points = torch.rand(25, 2) * torch.tensor([1.0, 0.5])
values = torch.exp(-0.3 * pi**2 * points[:, 1]) * torch.sin(pi * points[:, 0]) + 0.02 * torch.randn(25)
problem = PDE(
    dt(u) == k * laplacian(u),
    [Initial(u, "t=0", lambda x, t: torch.sin(pi * x)), Dirichlet(u, 0), Observe(u, points, values, noise=0.02)],
)
laplace = problem.infer()
sampled = problem.infer(method="nuts", draws=50 if SMOKE else 400, tune=50 if SMOKE else 200, chains=2, progress=False)
print("truth 0.3, Laplace", laplace, laplace.interval("k"))
print("           NUTS   ", sampled, sampled.interval("k"))
figure, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
ax.hist(laplace.draws["k"].ravel(), 60, density=True, alpha=0.5, label="Laplace")
ax.hist(sampled.draws["k"].ravel(), 30, density=True, histtype="step", color="k", label="NUTS")
ax.axvline(0.3, color="C3", label="truth")
ax.set(xlabel="k")
ax.legend()
# %% [markdown]
# ## Inverse: an unknown coefficient field
#
# A field that no equation determines is an unknown coefficient with a Gaussian process prior. Its logarithm is taken as
# the field, so that the conductivity stays positive.

# %%
line = Box(x=(0, 1))
u, log_a = Field("u", line), Field("log_a", line, amplitude=1.0, lengthscale=0.3)
truth = lambda x: 0.7 * torch.tanh(6 * (x - 0.5))  # noqa: E731
forward = PDE(divergence((lambda x: torch.exp(truth(x))) * gradient(u)) == -10, [Dirichlet(u, 0)]).solve(200)
at = torch.linspace(0.02, 0.98, 50)
values = forward.mean(at) + 0.01 * torch.randn(50)
problem = PDE(divergence(exp(log_a) * gradient(u)) == -10, [Dirichlet(u, 0), Observe(u, at, values, noise=0.01)])
solution = problem.solve()
x = torch.linspace(0, 1, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
left.plot(at, values, ".", ms=3)
left.plot(x, solution.mean(x))
left.set(title="u and its observations", xlabel="x")
low, high = solution["log_a"].interval(x, 0.95)
right.fill_between(x, low, high, alpha=0.3)
right.plot(x, solution["log_a"].mean(x))
right.plot(x, truth(x), "k--", lw=0.8)
right.set(title="log of the conductivity: band, mean, truth", xlabel="x")
# %% [markdown]
# ## The report
#
# Every solution writes one HTML file with the fields, spectra, residuals and checks; `gpkit pde PROBLEM.toml` does all
# of this from a file.

# %%
import tempfile

with tempfile.TemporaryDirectory() as folder:
    html, numbers = solution.report(folder)
    print(html.name, f"{html.stat().st_size / 1e3:.0f} kB;", numbers.name, f"{numbers.stat().st_size / 1e3:.0f} kB")
