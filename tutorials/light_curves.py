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
# # A light curve, from the file to the report
#
# A real light curve goes in; a fitted, sampled, checked and compared set of Gaussian-process models comes out. Every
# step here is exact and costs a number of operations that is proportional to the number of points.
#
# With the environment variable `GPKIT_SMOKE=1` the notebook draws few samples, to be a quick test.

# %%
# %matplotlib inline
import os
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, about a widget that is not needed

import gpytorch
import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy import stats

from gpkit.datasets import load_example
from gpkit.diagnostics import (
    bin_periodogram,
    check_residuals,
    convergence_warnings,
    coverage,
    expected_periodogram,
    frequency_limits,
    noise_floor,
    periodogram,
    summarise,
)
from gpkit.diagnostics.plots import plot_acf, plot_band, plot_light_curve, plot_pit, plot_psd, plot_qq
from gpkit.diagnostics.posterior_plots import plot_pairs, plot_trace_rank
from gpkit.kernels import ScaleKernel, SHOKernel
from gpkit.models import ExactGP, LightCurveGP, compare_kernels

SMOKE = os.environ.get("GPKIT_SMOKE") == "1"
DRAWS, TUNE, CHAINS = (100, 100, 2) if SMOKE else (1000, 500, 4)
SEED = 0

# %% [markdown]
# ## The data
#
# A star of the MACHO survey that ships with gpkit. Your own file is read by `gpkit.datasets.read_light_curve(path)`:
# text tables, exports of the Fermi-LAT Light Curve Repository, ECSV and FITS. Rows that cannot be used are counted,
# never silently lost, and upper limits are kept apart.

# %%
curve = load_example("macho-58.6272.729-B")
curve

# %%
ax = plot_light_curve(curve.time, curve.value, curve.error, time_label="MJD", value_label="Magnitude")
ax.invert_yaxis()
ax.figure

# %% [markdown]
# ## A model, and what it believes before it has seen the data
#
# The stochastically driven oscillator (SHO) with a constant mean and *jitter*, white noise beyond the error bars.
# Default priors are weak and scale with the data, so that units do not matter: time scales lie between the cadence and
# the baseline, the amplitude is near the standard deviation of the values. Below: median and 90 % interval of each
# prior.

# %%
model = LightCurveGP(curve, kernel="sho")
torch.manual_seed(SEED)
for spec in model.specs:
    low, middle, high = torch.quantile(spec.prior.sample((4000,)).double(), torch.tensor([0.05, 0.5, 0.95]).double())
    print(f"{spec.name:10s} {middle:9.3g}  [{low:.3g}, {high:.3g}] {model.units()[spec.name]}")

# %% [markdown]
# A prior predictive plot shows what these priors mean: light curves drawn from the model, parameters from the priors,
# beside the data. They should be wider than the data, and not absurd.

# %%
torch.manual_seed(SEED)
prior_draws = [{spec.name: float(spec.prior.sample()) for spec in model.specs} for _ in range(40)]
simulated = np.concatenate([model.simulate(1, seed=k, parameters=values) for k, values in enumerate(prior_draws)])

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=(2, 1), layout="constrained")
for row in simulated[:4]:
    left.plot(curve.time, row, ".", ms=2.5, alpha=0.7)
left.plot(curve.time, curve.value, ".", ms=3.5, color="black", label="data")
left.set(xlabel="MJD", ylabel="Magnitude")
left.legend()
right.hist(np.log10(simulated.std(axis=1)), bins=12, alpha=0.5, label="prior")
right.axvline(np.log10(curve.value.std()), color="black", label="data")
right.set(xlabel="log10 standard deviation of a curve")
right.legend()
# %% [markdown]
# ## The fit
#
# Maximum likelihood from several starts, with exact gradients. `agreeing` says how many starts reached the same
# maximum.

# %%
fit = model.fit("ml", seed=SEED)
print(fit)
print(f"{fit.agreeing} of {fit.starts} starts agree; {fit.seconds:.2f} s")

# %%
grid = np.linspace(curve.time[0], curve.time[-1], 1500)
prediction = model.predict(grid)
ax = plot_light_curve(curve.time, curve.value, curve.error, time_label="MJD", value_label="Magnitude")
plot_band(grid, prediction.median, *prediction.interval(0.68), *prediction.interval(0.95), ax=ax)
ax.invert_yaxis()
ax.figure

# %% [markdown]
# ## The posterior
#
# The whole potential (likelihood, priors, changes of variables) is one compiled function; nutpie's NUTS drives it. The
# result is an `arviz.InferenceData`.

# %%
posterior = model.sample(DRAWS, TUNE, CHAINS, SEED, progress=False)
summary = summarise(posterior)
for p in summary.parameters:
    print(
        f"{p.name:10s} {p.median:9.4g}  [{p.hdi_low:.4g}, {p.hdi_high:.4g}]  R-hat {p.rhat:.3f}  ESS {p.ess_bulk:.0f}"
    )
print(f"{summary.divergences} divergences")
for finding in convergence_warnings(summary):
    print(finding.level, finding.message)

# %%
plot_trace_rank(posterior)

# %%
plot_pairs(posterior, ["amplitude", "frequency", "quality", "jitter"])

# %% [markdown]
# $Q$ and $\omega_0$ run along a ridge: in the overdamped regime the data know little more than their product. The time
# scales are what to report.

# %%
for name, value in model.timescales().items():
    if isinstance(value, str):
        print(f"{name:10s} {value}")
    elif np.isfinite(value).all():
        print(f"{name:10s} {np.median(value):8.4g} d  [{np.quantile(value, 0.16):.4g}, {np.quantile(value, 0.84):.4g}]")

# %% [markdown]
# ## Checks
#
# Whitened one-step-ahead residuals are independent standard normals if the model is right, and so are the residuals of
# leave-one-out prediction, point by point.

# %%
residuals = model.residuals()
checks = check_residuals(residuals)
loo = model.leave_one_out()
fig, axes = plt.subplots(1, 4, figsize=(12, 2.8), layout="constrained")
plot_qq(residuals, ax=axes[0])
plot_acf(checks, ax=axes[1])
plot_acf(checks, squared=True, ax=axes[2])
plot_pit(loo.pit, ax=axes[3])
for level in coverage(loo.pit):
    range_expected = f"{level.low:.0%} to {level.high:.0%} expected"
    print(f"{level.probability:.0%} intervals hold {level.observed:.0%} of the points; {range_expected}")

# %% [markdown]
# ## Is it the right kernel?
#
# AICc and BIC at the maximum of the likelihood, and the exact leave-one-out predictive density (`elpd_loo`).

# %%
comparison = compare_kernels(curve, ["sho", "drw", "matern32", "matern52"], seed=SEED)
comparison.table[["log_likelihood", "n_parameters", "aicc", "delta_aicc", "bic", "elpd_loo", "elpd_loo_se"]].round(2)

# %% [markdown]
# ## The power spectrum
#
# One-sided in ordinary frequency and normalised to the variance. At irregular times a periodogram is not an estimate of
# the spectrum: its expectation under the model, at the same times, is what to compare it with.

# %%
frequency = np.geomspace(0.3 / curve.baseline, 1.0 / curve.median_cadence, 200)
power = model.psd(frequency)
raw = periodogram(curve.time, curve.value)
ax = plot_psd(
    frequency,
    np.median(power, axis=0),
    *np.quantile(power, [0.16, 0.84], axis=0),
    noise=noise_floor(np.hypot(curve.error, fit.parameters["jitter"]), curve.baseline),
    spectrum=raw,
    binned=bin_periodogram(raw),
    expected=bin_periodogram(expected_periodogram(curve.time, model.simulate(20, seed=SEED))),
    limits=frequency_limits(curve.time),
    time_unit="d",
    value_unit="mag",
)
ax.legend(ncols=2)
ax.figure

# %% [markdown]
# ## What comes next
#
# A forecast is a prediction after the last point; its interval returns to that of the stationary process.

# %%
forecast = model.forecast(200.0, n=200)
recent = curve.select(curve.time > curve.time[-1] - 200.0)
ax = plot_light_curve(recent.time, recent.value, recent.error, time_label="MJD", value_label="Magnitude")
plot_band(forecast.time, forecast.median, *forecast.interval(0.68), *forecast.interval(0.95), ax=ax)
for path in forecast.sample(3, seed=SEED):
    ax.plot(forecast.time, path, lw=0.6, color="grey")
ax.invert_yaxis()
ax.figure

# %% [markdown]
# ## The report
#
# One self-contained HTML file with all of the above, and a JSON file beside it. On the command line the same is
# `gpkit lightcurve FILE --kernels sho,drw,matern32 --out DIR`.

# %%
with tempfile.TemporaryDirectory() as folder:
    html, numbers = model.report(Path(folder), seed=SEED)
    print(html.name, f"{html.stat().st_size / 1e6:.1f} MB;", numbers.name)

# %% [markdown]
# ## The same kernel in a GPyTorch model
#
# Kernels are ordinary GPyTorch kernels. `ExactGP` is a `gpytorch.models.ExactGP`: write the training loop that you
# want, or put it into a larger model. Times are measured from the first one.

# %%
x = torch.as_tensor(curve.time - curve.time[0])
y = torch.as_tensor(curve.value.copy())
noise = torch.as_tensor(curve.error**2)

likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise, learn_additional_noise=True)
kernel = ScaleKernel(SHOKernel(frequency=0.05, quality=0.3), outputscale=float(y.var()))
mean = gpytorch.means.ConstantMean()
gp = ExactGP(x, y, likelihood, kernel, mean)
mean.initialize(constant=float(y.mean()))
likelihood.second_noise = 1e-3

mll = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, gp)
optimizer = torch.optim.LBFGS(gp.parameters(), max_iter=20, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    loss = -mll(gp(x), y)
    loss.backward()
    return loss


for _ in range(3 if SMOKE else 15):
    loss = optimizer.step(closure)
print(f"ln L = {-loss.item() * len(y):.4f}; LightCurveGP found {fit.log_likelihood:.4f}")

# %%
gp.eval()
likelihood.eval()
with torch.no_grad():
    latent = gp(torch.as_tensor(grid - curve.time[0]))
print("mean and variance at", latent.mean.shape[0], "new times; largest sd", float(latent.variance.max().sqrt()))

# %% [markdown]
# ## A known number
#
# The log-likelihood of the fit, computed once more from the dense covariance matrix with SciPy.

# %%
values = fit.parameters
lag = torch.as_tensor(np.abs(curve.time[:, None] - curve.time[None, :]))
with torch.no_grad():
    correlation = SHOKernel(frequency=values["frequency"], quality=values["quality"]).autocovariance(lag).numpy()
covariance = values["amplitude"] ** 2 * correlation + np.diag(curve.error**2 + values["jitter"] ** 2)
dense = stats.multivariate_normal(np.full(curve.n, values["mean"]), covariance).logpdf(curve.value)
print(dense, fit.log_likelihood)
assert abs(dense - fit.log_likelihood) < 1e-7
KNOWN_LOG_LIKELIHOOD = 220.4132
assert abs(fit.log_likelihood - KNOWN_LOG_LIKELIHOOD) < 1e-3
