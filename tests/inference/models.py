"""Small posteriors that several tests sample or maximise."""

from __future__ import annotations

import numpy as np
from torch import distributions as td

from gpkit.inference.potential import ParameterSpec, PotentialSpec, build_potential

MATERN32 = (("matern32",),)


def matern32(lag, variance, rate):
    return variance * (1.0 + rate * np.abs(lag)) * np.exp(-rate * np.abs(lag))


def simulate(n=60, *, variance=1.5, rate=0.6, error=0.2, jitter=0.1, mean=0.0, seed=3):
    """Times, values and variances of the errors of one series."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0.0, 40.0, n))
    sd = rng.uniform(0.5 * error, 1.5 * error, n)
    covariance = matern32(t[:, None] - t, variance, rate) + np.diag(sd**2 + jitter**2)
    return t, mean + np.linalg.cholesky(covariance) @ rng.standard_normal(n), sd**2


def matern_potential(n=60, *, mean=True, **options) -> PotentialSpec:
    """Variance, rate, jitter and, if asked for, a constant mean."""
    t, y, variance = simulate(n, mean=0.7 if mean else 0.0, **options)
    parameters = [
        ParameterSpec("variance", td.LogNormal(0.0, 1.0)),
        ParameterSpec("rate", td.Gamma(2.0, 2.0)),
        ParameterSpec("jitter", td.HalfNormal(0.3)),
    ]
    if mean:
        parameters.append(ParameterSpec("mean", td.Normal(0.0, 2.0)))
    return build_potential(
        MATERN32,
        lambda v, ops: [v["variance"], v["rate"]],
        parameters,
        t,
        y,
        variance,
        noise=lambda v, ops: [v["jitter"] ** 2],
        mean=(lambda v, ops: [v["mean"]]) if mean else None,
    )


def two_parameter_potential(n=30) -> PotentialSpec:
    """Logarithms of variance and rate: small enough for a grid."""
    t, y, variance = simulate(n)
    return build_potential(
        MATERN32,
        lambda v, ops: [ops.exp(v["ln_variance"]), ops.exp(v["ln_rate"])],
        [ParameterSpec("ln_variance", td.Normal(0.0, 1.0)), ParameterSpec("ln_rate", td.Normal(0.0, 1.0))],
        t,
        y,
        variance + 0.01,
    )


def prior_only() -> PotentialSpec:
    """Priors of every kind of support and no data."""
    return build_potential(
        MATERN32,
        lambda v, ops: [v["gamma"], v["half"]],
        [
            ParameterSpec("normal", td.Normal(1.0, 2.0)),
            ParameterSpec("gamma", td.Gamma(3.0, 1.5)),
            ParameterSpec("uniform", td.Uniform(-1.0, 4.0)),
            ParameterSpec("half", td.HalfNormal(0.5)),
        ],
        np.empty(0),
        np.empty(0),
    )
