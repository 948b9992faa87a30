"""Effective draws per CPU second: compiled NUTS against the samplers that astronomers use.

One simulated light curve (SHO kernel, sigma = 1, omega0 = 1, Q = 0.4, N = 500 over 120 time units), four parameters
(ln sigma, ln omega0, ln Q, ln jitter) with normal priors, zero mean. The figure is the smallest bulk effective sample
size (ArviZ) over the parameters per CPU second of the whole process, compilation and imports excluded, warm-up
included.

    python benchmarks/nuts.py [--quick] [--repeats 3]
"""

from __future__ import annotations

import argparse
import math
import os
import time
import warnings
from importlib import metadata, util

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from gpkit.inference.nuts import sample_nuts
from gpkit.inference.potential import ParameterSpec, build_potential

warnings.simplefilter("ignore")  # of peers about their own dependencies
NAMES = ("ln_sigma", "ln_omega0", "ln_quality", "ln_jitter")
PRIOR_MEAN = np.array([0.0, 0.0, 0.0, -3.0])
PRIOR_SD = np.array([2.0, 2.0, 1.5, 1.5])


def simulate(n=500, span=120.0, sigma=1.0, omega0=1.0, quality=0.4, jitter=0.05, seed=1):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0.0, span, n))
    error = rng.uniform(0.08, 0.18, n)
    lag = np.abs(t[:, None] - t)
    root = math.sqrt(1.0 - 4.0 * quality**2)
    x = 0.5 * omega0 * lag / quality
    covariance = sigma**2 * np.exp(-x) * (np.cosh(root * x) + np.sinh(root * x) / root)
    factor = np.linalg.cholesky(covariance + np.diag(error**2 + jitter**2))
    return t, factor @ rng.standard_normal(n), error


def specification(t, y, error):
    return build_potential(
        (("sho",),),
        lambda v, ops: [ops.exp(2.0 * v["ln_sigma"]), ops.exp(v["ln_omega0"]), ops.exp(v["ln_quality"])],
        [
            ParameterSpec(name, torch.distributions.Normal(float(m), float(s)))
            for name, m, s in zip(NAMES, PRIOR_MEAN, PRIOR_SD, strict=True)
        ],
        t,
        y,
        error**2,
        noise=lambda v, ops: [ops.exp(2.0 * v["ln_jitter"])],
    )


def log_prior(z):
    return -0.5 * np.sum(((z - PRIOR_MEAN) / PRIOR_SD) ** 2)


def celerite_density(t, y, error):
    from celerite2 import GaussianProcess, terms

    gp = GaussianProcess(terms.SHOTerm(sigma=1.0, w0=1.0, Q=0.4), mean=0.0)

    def density(z):
        try:
            gp.kernel = terms.SHOTerm(sigma=math.exp(z[0]), w0=math.exp(z[1]), Q=math.exp(z[2]))
            gp.compute(t, diag=error**2 + math.exp(2.0 * z[3]), quiet=True)
            value = gp.log_likelihood(y) + log_prior(z)
        except (OverflowError, ValueError):
            return -np.inf
        return value if np.isfinite(value) else -np.inf

    return density


def fused_density(spec):
    compiled = spec.compiled()

    def density(z):
        values, _, _ = compiled.rows(z.reshape(1, -1))
        return values[0]

    return density


def run_emcee(density, start, steps, seed):
    import emcee

    rng = np.random.default_rng(seed)
    np.random.seed(seed)  # noqa: NPY002  (emcee draws from the global generator)
    walkers = emcee.EnsembleSampler(32, 4, density)
    state = walkers.run_mcmc(start + 0.1 * rng.standard_normal((32, 4)), steps // 4)
    walkers.reset()
    walkers.run_mcmc(state, steps)
    return np.swapaxes(walkers.get_chain(), 0, 1), 32 * (steps + steps // 4)


def run_nuts(spec, draws, tune, seed, **options):
    u, statistics = sample_nuts(spec, draws=draws, tune=tune, seed=seed, progress=False, **options)
    return u, int(statistics["n_steps"].sum())


def run_pyro(spec, draws, tune, seed):
    """Pyro's own NUTS on the compiled density behind one torch function."""
    import pyro
    from pyro.infer import MCMC, NUTS

    class Density(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            value, gradient = spec.log_density(z.detach().numpy())
            ctx.save_for_backward(torch.from_numpy(gradient))
            return torch.tensor(value)

        @staticmethod
        def backward(ctx, cotangent):
            return cotangent * ctx.saved_tensors[0]

    pyro.set_rng_seed(seed)
    calls = [0]

    def potential(point):
        calls[0] += 1
        return -Density.apply(point["z"])

    kernel = NUTS(potential_fn=potential)
    start = {"z": torch.tensor(spec.start)}
    mcmc = MCMC(kernel, num_samples=draws, warmup_steps=tune, initial_params=start, disable_progbar=True)
    mcmc.run()
    return mcmc.get_samples()["z"].numpy()[None], calls[0]


def measure(function, repeats):
    """The run of median efficiency among several seeds."""
    import arviz

    rows = []
    for seed in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        draws, calls = function(seed)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        ess = min(float(arviz.ess(draws[:, :, k])) for k in range(draws.shape[2]))
        rhat = max(float(arviz.rhat(draws[:, :, k])) for k in range(draws.shape[2])) if len(draws) > 1 else math.nan
        rows.append((ess / cpu, ess, cpu, wall, calls, rhat, draws[:, :, 2].mean(), draws[:, :, 2].std()))
    rows.sort()
    return rows[len(rows) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps of the slow samplers, one seed each")
    parser.add_argument("--repeats", type=int, default=3, help="seeds per sampler; the median is shown")
    options, _ = parser.parse_known_args()
    repeats = 1 if options.quick else options.repeats
    steps = 500 if options.quick else 2000
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    t, y, error = simulate()
    spec = specification(t, y, error)
    run_nuts(spec, 10, 10, 0)  # compile and import
    start = np.array([0.0, 0.0, -0.9, -3.0])

    samplers = {
        "NUTS 4 x (500 + 1000)": lambda seed: run_nuts(spec, 1000, 500, seed),
        "NUTS, low-rank metric": lambda seed: run_nuts(spec, 1000, 500, seed, low_rank=True),
        "NUTS, not whitened": lambda seed: run_nuts(spec, 1000, 500, seed, init=spec.start),
    }
    if util.find_spec("emcee"):
        label = f"emcee 32 x ({steps // 4} + {steps})"
        samplers[f"{label} + gpkit"] = lambda seed: run_emcee(fused_density(spec), start, steps, seed)
        if util.find_spec("celerite2"):
            samplers[f"{label} + celerite2"] = lambda seed: run_emcee(celerite_density(t, y, error), start, steps, seed)
    if not options.quick:
        samplers["Pyro NUTS 1 x (300 + 500) + gpkit"] = lambda seed: run_pyro(spec, 500, 300, seed)

    results = {}
    for name, sampler in samplers.items():
        results[name] = measure(sampler, 1 if name.startswith("Pyro") else repeats)
    reference = next((row[0] for name, row in results.items() if name.endswith("celerite2")), None)
    print(f"N = {t.size}, {os.cpu_count()} processors; median of {repeats} seed(s); calls of NUTS exclude warm-up")
    modules = {**{n: n for n in ("nutpie", "numba", "emcee", "celerite2", "numpyro")}, "pyro-ppl": "pyro"}
    versions = {
        name: metadata.version(name) if util.find_spec(module) else "not installed" for name, module in modules.items()
    }
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    columns = ("calls", "min ESS", "CPU s", "wall s", "ESS/CPU s", "ratio", "R-hat")
    print(f"{'sampler':42s} " + " ".join(f"{column:>9s}" for column in columns) + "  ln Q")
    for name, (rate, ess, cpu, wall, calls, rhat, mean, sd) in results.items():
        ratio = f"{rate / reference:.1f}" if reference else "-"
        figures = (f"{calls:d}", f"{ess:.0f}", f"{cpu:.2f}", f"{wall:.2f}", f"{rate:.1f}", ratio, f"{rhat:.3f}")
        print(f"{name:42s} " + " ".join(f"{figure:>9s}" for figure in figures) + f"  {mean:.2f} +- {sd:.2f}")
    if not util.find_spec("numpyro"):
        print(f"{'numpyro NUTS + celerite2.jax':42s} not installed")


if __name__ == "__main__":
    main()
