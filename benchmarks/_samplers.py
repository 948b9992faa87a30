"""Effective draws per CPU second, on the problem and with the samplers of nuts.py, and numpyro on celerite2.jax."""

from __future__ import annotations

import numpy as np
import nuts
from _measure import Row, installed

SECTION = "NUTS (4-parameter SHO, N = 500; least bulk ESS per CPU second)"


def _numpyro(t, y, error, draws, tune, chains):
    import jax
    import numpyro
    from celerite2.jax import GaussianProcess, terms
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    arrays = [jax.numpy.asarray(a) for a in (t, y, error, nuts.PRIOR_MEAN, nuts.PRIOR_SD)]

    def potential(point):
        t, y, error, centre, sd = arrays
        z = point["z"]
        s = jax.numpy.exp(z)
        gp = GaussianProcess(terms.SHOTerm(sigma=s[0], w0=s[1], Q=s[2]))
        gp.compute(t, diag=error**2 + s[3] ** 2, check_sorted=False)
        return -gp.log_likelihood(y) + 0.5 * (((z - centre) / sd) ** 2).sum()

    kernel = NUTS(potential_fn=potential)
    start = {"z": jax.numpy.tile(jax.numpy.array([0.0, 0.0, -0.9, -3.0]), (chains, 1))}
    mcmc = MCMC(
        kernel, num_warmup=tune, num_samples=draws, num_chains=chains, chain_method="sequential", progress_bar=False
    )
    numpyro.set_host_device_count(1)
    # The first run compiles; the second is measured.
    compiled = [False]

    def run(seed):
        if not compiled[0]:
            mcmc.run(jax.random.PRNGKey(10_000), init_params=start)
            compiled[0] = True
        mcmc.run(jax.random.PRNGKey(seed), init_params=start, extra_fields=("num_steps",))
        steps = int(np.asarray(mcmc.get_extra_fields()["num_steps"]).sum())
        return np.asarray(mcmc.get_samples(group_by_chain=True)["z"]), steps

    return run


def rows(draws, tune, steps, repeats):
    t, y, error = nuts.simulate()
    spec = nuts.specification(t, y, error)
    nuts.run_nuts(spec, 10, 10, 0)
    start = np.array([0.0, 0.0, -0.9, -3.0])

    def text(row):
        rate, ess, cpu = row[:3]
        return f"{rate:.3g}/s (ESS {ess:.0f} in {cpu:.2f} s)"

    ours = nuts.measure(lambda seed: nuts.run_nuts(spec, draws, tune, seed), repeats)
    label = f"4 x ({tune} + {draws}) compiled NUTS"
    out = [Row(SECTION, label, ours[0], ours=text(ours), unit="/s")]

    def add(what, modules, make, asked, stretch=None, seeds=repeats):
        if not installed(*modules):
            out.append(Row(SECTION, what, None, asked, stretch))
            return
        run = make()
        if modules == ("numpyro", "celerite2", "jax"):
            run(10_001)
        row = nuts.measure(run, seeds)
        out.append(Row(SECTION, what, ours[0] / row[0], asked, stretch, text(ours), text(row)))

    add(
        f"against emcee 32 x ({steps // 4} + {steps}) + celerite2",
        ("emcee", "celerite2"),
        lambda: lambda seed: nuts.run_emcee(nuts.celerite_density(t, y, error), start, steps, seed),
        4.0,
        8.0,
    )
    add(
        f"against numpyro NUTS 4 x ({tune} + {draws}) + celerite2.jax, compilation excluded",
        ("numpyro", "celerite2", "jax"),
        lambda: _numpyro(t, y, error, draws, tune, 4),
        8.0,
        seeds=1,
    )
    add(
        "against Pyro NUTS 1 x (300 + 500) on gpkit's density",
        ("pyro",),
        lambda: lambda seed: nuts.run_pyro(spec, min(draws, 500), min(tune, 300), seed),
        25.0,
        seeds=1,
    )
    return out
