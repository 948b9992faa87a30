"""Figures of the site, drawn when it is built: draws and spectra of every kernel, and the prior predictive plot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpkit.datasets import load_example
from gpkit.diagnostics.style import CYCLE, new_figure, styled
from gpkit.kernels import (
    CeleriteKernel,
    CosineKernel,
    DRWKernel,
    LorentzianKernel,
    MaternKernel,
    PeriodicKernel,
    RotationKernel,
    SHOKernel,
)
from gpkit.models import LightCurveGP

KERNELS: dict[str, dict[str, Any]] = {
    "sho": {
        "Q = 0.1": SHOKernel(frequency=1.0, quality=0.1),
        "Q = 1/2": SHOKernel(frequency=1.0, quality=0.5),
        "Q = 5": SHOKernel(frequency=1.0, quality=5.0),
    },
    "drw": {"τ = 1": DRWKernel(1.0), "τ = 10": DRWKernel(10.0)},
    "matern": {
        "ν = 1/2": MaternKernel(0.5, 3.0),
        "ν = 3/2": MaternKernel(1.5, 3.0),
        "ν = 5/2": MaternKernel(2.5, 3.0),
    },
    "lorentzian": {"Q = 1": LorentzianKernel(1.0, 1.0), "Q = 10": LorentzianKernel(1.0, 10.0)},
    "celerite": {
        "a = 1, b = 0": CeleriteKernel(1.0, 0.0, 0.3, 1.0),
        "a = 1, b = 0.3": CeleriteKernel(1.0, 0.299, 0.3, 1.0),
    },
    "rotation": {"period 8, mix 0.5": RotationKernel(8.0, 5.0, 3.0, 0.5)},
    "cosine": {"period 8": CosineKernel(8.0)},
    "periodic": {"l = 2": PeriodicKernel(8.0, 2.0), "l = 0.5": PeriodicKernel(8.0, 0.5)},
}


def write_figures(folder: Path) -> None:
    """Write the SVG files that the pages show; files that would not change are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kernels in KERNELS.items():
        _write(kernel_figure(kernels), folder / f"kernel_{name}.svg")
    _write(prior_predictive_figure(), folder / "prior_predictive.svg")


@styled
def kernel_figure(kernels: dict[str, Any]) -> Any:
    """Draws from unit-variance kernels, one under the other, and their power spectra."""
    figure = new_figure(7.4, 2.5)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    time = torch.linspace(0.0, 40.0, 401, dtype=torch.float64)
    frequency = torch.logspace(-2.5, 0.7, 300, dtype=torch.float64)
    for k, (name, kernel) in enumerate(kernels.items()):
        noise = np.random.default_rng(3).standard_normal(len(time))
        with torch.no_grad():
            covariance = kernel.autocovariance(time[:, None] - time[None, :]).numpy()
            power = kernel.psd(frequency).numpy()
        # The symmetric root also exists where the covariance is singular, as that of the cosine is.
        values, vectors = np.linalg.eigh(covariance)
        draw = vectors @ (np.sqrt(np.maximum(values, 0.0)) * (vectors.T @ noise))
        left.plot(time, draw - 5.0 * k, color=CYCLE[k], label=name)
        if power.max() > 1e-8:
            right.loglog(frequency, power, color=CYCLE[k], label=name)
        else:
            count = getattr(kernel, "terms", 1)
            for line in range(1, count + 1):
                weight = float(kernel._weights(kernel.lengthscale, torch)[line].detach()) if count > 1 else 1.0
                place = line / float(kernel.timescales()["period"].detach())
                if weight > 1e-9:
                    right.axvline(place, ymax=1.0 + 0.1 * np.log10(weight), color=CYCLE[k], zorder=2 - 0.1 * k)
            right.plot([], [], color=CYCLE[k], label=f"{name}: {'lines' if count > 1 else 'a line'}")
            right.set(xscale="log", xlim=(frequency[0], frequency[-1]), yticks=[])
    left.set(xlabel="Time", ylabel="Draws (shifted)", yticks=[], xlim=(0.0, 40.0))
    right.set(xlabel="Frequency f", ylabel="P(f), one-sided")
    right.legend()
    return figure


@styled
def prior_predictive_figure() -> Any:
    """Light curves from the default priors beside three data sets of very different units."""
    figure = new_figure(7.4, 3.0)
    curves = {
        "as measured (days, magnitudes)": (1.0, 1.0),
        "in years and millimagnitudes": (1.0 / 365.25, 1000.0),
    }
    example = load_example()
    for ax, (title, (per_day, per_mag)) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        from gpkit.datasets import LightCurve

        time = (example.time - example.time[0]) * per_day
        model = LightCurveGP(LightCurve(time, example.value * per_mag, example.error * per_mag), "sho")
        torch.manual_seed(4)
        for k in range(3):
            values = {spec.name: float(spec.prior.sample()) for spec in model.specs}
            ax.plot(time, model.simulate(1, seed=k, parameters=values)[0], ".", ms=2.0, color=CYCLE[k + 1])
        ax.plot(time, example.value * per_mag, ".", ms=3.5, color="black", label="data")
        ax.plot([], [], ".", color=CYCLE[1], label="draws from the priors")
        ax.set(title=title, xlabel="Time")
    figure.axes[0].set_ylabel("Value")
    figure.axes[0].legend(loc="best")
    return figure


def _write(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    if not path.exists() or path.read_bytes() != buffer.getvalue():
        path.write_bytes(buffer.getvalue())
