"""A report's content without any model: a damped random walk, filtered by hand, with made-up posterior draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

from gpkit.diagnostics.warnings import collapse_findings, sampler_findings, timescale_findings
from gpkit.reports import Band, KernelSection, LightCurveSection, PowerSpectrum, Quantity, ReportContent, RunSection


def drw_curve(
    n: int, *, tau: float = 30.0, sd: float = 1.0, seed: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times with gaps, values and errors of a damped random walk about 5."""
    rng = np.random.default_rng(seed)
    time = 54682.0 + np.cumsum(rng.choice([1.0, 2.0, 3.0, 20.0], size=n, p=[0.6, 0.25, 0.13, 0.02]))
    state, values = rng.normal() * sd, []
    for step in np.diff(time, prepend=time[0]):
        decay = np.exp(-step / tau)
        state = decay * state + np.sqrt(1 - decay**2) * sd * rng.normal()
        values.append(state)
    error = 0.15 * sd * rng.uniform(0.6, 1.6, n)
    return time, 5.0 + np.array(values) + error * rng.normal(size=n), error


def filtered(
    time: np.ndarray, value: np.ndarray, error: np.ndarray, tau: float, sd: float
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Whitened residuals, log-likelihood, and filtered mean and standard deviation, by a scalar Kalman filter."""
    mean, variance = 0.0, sd**2
    residuals, means, sds, log_likelihood = [], [], [], 0.0
    for step, y, noise in zip(np.diff(time, prepend=time[0]), value - 5.0, error**2, strict=True):
        decay = np.exp(-step / tau)
        mean, variance = decay * mean, decay**2 * variance + sd**2 * (1 - decay**2)
        total = variance + noise
        residuals.append((y - mean) / np.sqrt(total))
        log_likelihood -= 0.5 * (np.log(2 * np.pi * total) + residuals[-1] ** 2)
        mean, variance = mean + variance / total * (y - mean), variance * noise / total
        means.append(mean + 5.0)
        sds.append(np.sqrt(variance))
    return np.array(residuals), float(log_likelihood), np.array(means), np.array(sds)


def draws(center: dict[str, float], *, seed: int, chains: int = 4, length: int = 500) -> Any:
    """Independent log-normal draws, as an InferenceData with divergences."""
    import arviz

    rng = np.random.default_rng(seed)
    common = rng.normal(size=(chains, length))
    posterior = {
        name: value * np.exp(0.25 * rng.normal(size=(chains, length)) + 0.2 * (index + 1) * common)
        for index, (name, value) in enumerate(center.items())
    }
    diverging = rng.uniform(size=(chains, length)) < 0.003
    return arviz.from_dict(
        posterior=posterior, sample_stats={"diverging": diverging, "energy": rng.normal(size=(chains, length))}
    )


def log_normal(center: float) -> Callable[[np.ndarray], np.ndarray]:
    """Log density of a log-normal prior two wide."""
    return lambda x: -0.5 * (np.log(x / center) / 2) ** 2 - np.log(x * 2 * np.sqrt(2 * np.pi))


def kernel_section(
    curve: LightCurveSection, name: str, *, tau: float, sd: float, k: int, seed: int, sampled: bool, **options: Any
) -> KernelSection:
    """One fit; the quality factor is made up."""
    y = curve.value
    steps = np.exp(-np.diff(curve.time, prepend=curve.time[0]) / tau)
    rng = np.random.default_rng(seed)
    state, series = sd * rng.normal(size=30), []
    for decay in steps:
        state = decay * state + np.sqrt(1 - decay**2) * sd * rng.normal(size=30)
        series.append(state)
    simulations = np.array(series).T + curve.error * rng.normal(size=(30, curve.n))
    residuals, log_likelihood, mean, spread = filtered(curve.time, y, curve.error, tau, sd)
    values = {"sigma": sd, "tau": tau, "mean": 5.0, "jitter": 0.02}
    units = {"sigma": curve.value_unit, "tau": curve.time_unit, "mean": curve.value_unit, "jitter": curve.value_unit}
    inference = draws(values, seed=seed) if sampled else None

    def quantity(key: str, value: float, unit: str, note: str = "") -> Quantity:
        if inference is None:
            return Quantity(key, value, unit, note=note)
        low, median, high = np.quantile(np.asarray(inference.posterior[key]), [0.16, 0.5, 0.84])
        return Quantity(key, value, unit, median, low, high, 1.002, 1234.0, note=note)

    frequency = np.geomspace(1 / (3 * max(curve.baseline, 1.0)), 0.6, 200)
    power = 4 * sd**2 * tau / (1 + (2 * np.pi * frequency * tau) ** 2)
    findings = timescale_findings(slow=tau, baseline=curve.baseline, median_cadence=curve.median_cadence)
    if name == "sho":
        findings += collapse_findings(
            quality=0.013,
            fast=0.01,
            median_cadence=curve.median_cadence,
            log_likelihood=-10.0,
            drw_log_likelihood=-10.0,
        )
    if sampled:
        findings += sampler_findings(max_rhat=1.002, min_ess=1234.0, divergences=6, n_draws=2000, n_chains=4)
    settings: dict[str, Any] = {
        "title": {"drw": "Damped random walk (DRW)", "sho": "Damped harmonic oscillator (SHO)"}.get(name, ""),
        "label": {"drw": "DRW", "sho": "SHO"}.get(name, ""),
        "formula": "k(τ) = σ² exp(−τ/τ_d)",
        "regime": "overdamped, Q = 0.013" if name == "sho" else "",
        "parameters": tuple(quantity(key, value, units[key]) for key, value in values.items()),
        "timescales": (quantity("tau", tau, curve.time_unit, "decorrelation time"),),
        "loo_log_density": -0.5 * (np.log(2 * np.pi * 0.1) + residuals**2),
        "loo_pit": ndtr(residuals),
        "residuals": residuals,
        "prediction": Band.from_normal(curve.time, mean, spread),
        "psd": PowerSpectrum(
            frequency,
            power,
            power / 1.5 if sampled else None,
            power * 1.6 if sampled else None,
            simulations=simulations,
        ),
        "posterior": inference,
        "priors": {"tau": log_normal(tau), "sigma": log_normal(sd)} if sampled else {},
        "divergences": 6 if sampled else None,
        "seconds": 3.2,
        "findings": tuple(findings),
    }
    return KernelSection(name, log_likelihood, k, **(settings | options))


def content(
    n: int = 120, *, kernels: tuple[str, ...] = ("drw", "sho"), sampled: bool = True, n_limits: int = 3, **options: Any
) -> ReportContent:
    """A whole report's content."""
    time, value, error = drw_curve(n)
    settings: dict[str, Any] = {
        "name": "Simulated source",
        "time_unit": "d",
        "value_unit": "1e-6 ph cm-2 s-1",
        "time_label": "MJD",
        "value_label": "Flux",
        "upper_limit_time": time[:n_limits] + 0.5,
        "upper_limit_value": np.full(n_limits, 3.5),
        "exclusions": {"value not finite": 2},
        "source": "simulated.csv",
    }
    curve = LightCurveSection(time=time, value=value, error=error, **(settings | options))
    fits = tuple(
        kernel_section(curve, name, tau=30.0 * 1.4**index, sd=1.0, k=4 + index, seed=index, sampled=sampled)
        for index, name in enumerate(kernels)
    )
    run = RunSection(
        command="gpkit lightcurve simulated.csv --kernels drw,sho --draws 500 --seed 0",
        seed=0,
        date="2026-01-01 12:00 UTC",
        versions={"gpkit": "0.1.0", "numpy": np.__version__},
        settings={"draws": 500, "tune": 500, "chains": 4},
    )
    return ReportContent(curve, fits, run)
