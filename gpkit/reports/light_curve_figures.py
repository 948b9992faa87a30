"""The figures of a light-curve report, each with its description and the words that explain how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpkit.diagnostics import plots, posterior_plots, spectra
from gpkit.diagnostics.calibration import coverage
from gpkit.diagnostics.residuals import ResidualChecks
from gpkit.diagnostics.style import BLUE, INK, label, new_figure, plain, styled
from gpkit.reports.content import Band, KernelSection, LightCurveSection
from gpkit.reports.document import Picture, picture

CROWDED = 400
"""Points above which the fit is also shown enlarged."""
WIDE_RANGE = 30.0
"""Largest value over smallest from which a log-transformed light curve is shown on a logarithmic axis."""
CLOSER = 120
"""Points of that enlargement."""

AS_SAMPLED = (
    "Compare the periodogram (grey; black in logarithmic bins) with the orange line: the mean periodogram of series "
    "simulated from the model, noise included, at the times of the data. Where that lies above the model, the sampling "
    "makes power leak and the noise takes over."
)
NOT_AS_SAMPLED = (
    "Compare the periodogram (grey; black in logarithmic bins) with model + noise, not with the model alone. Uneven "
    "sampling makes power leak from low to high frequencies, where the periodogram of a steep spectrum then lies above "
    "the line: the model was not fitted to it, and the residuals are the better judge."
)


@dataclass(frozen=True)
class Spectrum:
    """The periodogram of the data, computed once for all kernels."""

    raw: spectra.Periodogram
    binned: spectra.BinnedPeriodogram
    limits: tuple[float, float]
    noise: float


def spectrum_of(curve: LightCurveSection) -> Spectrum | None:
    """Periodogram of the fitted values on the scale of the model; None where there are too few different times."""
    if curve.n < 8 or len(np.unique(curve.time)) < 8:
        return None
    raw = spectra.periodogram(curve.time, curve.model_value)
    noise = spectra.noise_floor(curve.model_error, curve.baseline)
    return Spectrum(raw, spectra.bin_periodogram(raw), spectra.frequency_limits(curve.time), noise)


@styled
def data_picture(curve: LightCurveSection) -> Picture:
    """The light curve alone."""
    figure = new_figure(7.6, 2.9)
    ax = figure.add_subplot()
    _draw_data(curve, ax)
    if curve.n_upper_limits:
        _legend(ax)
    many = "upper limit" if curve.n_upper_limits == 1 else "upper limits"
    limits = f" Triangles: {curve.n_upper_limits} {many}, not fitted." if curve.n_upper_limits else ""
    return picture(
        figure,
        alt=f"Light curve of {curve.name} with {curve.n} points and {curve.n_upper_limits} upper limits.",
        caption=f"The {curve.n} fitted points with their 1σ errors.{limits}",
        crowded=curve.n > CROWDED,
    )


@styled
def fit_picture(curve: LightCurveSection, kernel: KernelSection) -> Picture:
    """The fit with credible bands on the data, and the whitened residuals under it."""
    with_residuals = len(kernel.residuals) == curve.n
    figure = new_figure(7.6, 4.3 if with_residuals else 3.1)
    if with_residuals:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        plots.plot_residual_series(curve.time, kernel.residuals, time_label=_time_label(curve), ax=bottom)
    else:
        top = figure.add_subplot()
    if kernel.prediction is not None:
        _draw_band(kernel.prediction, top)
    _draw_data(curve, top)
    _legend(top)
    if with_residuals:
        bottom.set_ylabel("Residual / σ")
        top.set_xlabel("")
    residual_text = (
        " Below, the whitened residuals: each point minus its prediction from the points before it, in units of the "
        "predicted scatter. Under a correct model they are independent N(0, 1), so 95 % lie in the shaded strip."
        if with_residuals
        else ""
    )
    return picture(
        figure,
        alt=f"Light curve of {curve.name} with the {kernel.heading} fit, its 68 and 95 percent bands, and residuals.",
        caption=f"Line and bands: the fit and its 68 % and 95 % credible intervals for the noise-free curve, given all "
        f"points; they widen in gaps.{residual_text}",
        crowded=curve.n > CROWDED // 2,
    )


@styled
def closer_picture(curve: LightCurveSection, kernel: KernelSection) -> Picture | None:
    """The fit around the brightest point, for curves too long to be read as a whole; None for short ones."""
    band = kernel.prediction
    if band is None or curve.n <= CROWDED:
        return None
    peak = int(np.argmin(curve.value) if curve.in_magnitudes else np.argmax(curve.value))
    first = int(np.clip(peak - CLOSER // 2, 0, curve.n - CLOSER))
    start, end = float(curve.time[first]), float(curve.time[first + CLOSER - 1])
    chosen = slice(first, first + CLOSER)
    grid = (band.x >= start) & (band.x <= end)
    limits = (curve.upper_limit_time >= start) & (curve.upper_limit_time <= end)
    part = replace(
        curve,
        time=curve.time[chosen],
        value=curve.value[chosen],
        error=curve.error[chosen],
        upper_limit_time=curve.upper_limit_time[limits],
        upper_limit_value=curve.upper_limit_value[limits],
    )
    extreme = "brightest" if curve.in_magnitudes else "highest"
    figure = new_figure(7.6, 2.9)
    ax = figure.add_subplot()
    _draw_band(replace(band, **{key: array[grid] for key, array in vars(band).items()}), ax)
    _draw_data(part, ax)
    _legend(ax)
    return picture(
        figure,
        alt=f"The {kernel.heading} fit around the {extreme} point of {curve.name}.",
        caption=f"A closer look: the {CLOSER} points around the {extreme} one.",
    )


@styled
def residual_picture(kernel: KernelSection, checks: ResidualChecks) -> Picture:
    """Histogram, Q-Q plot, autocorrelations."""
    figure = new_figure(7.6, 5.0)
    axes = figure.subplots(2, 2, height_ratios=(1.15, 1))
    plots.plot_residual_histogram(kernel.residuals, ax=axes[0, 0])
    plots.plot_qq(kernel.residuals, ax=axes[0, 1])
    plots.plot_acf(checks, ax=axes[1, 0])
    plots.plot_acf(checks, squared=True, ax=axes[1, 1])
    outside = int((np.abs(checks.acf) > checks.white_noise_band).sum())
    outside_squared = int((np.abs(checks.acf_squared) > checks.white_noise_band).sum())
    return picture(
        figure,
        alt=f"Histogram, quantile plot and autocorrelations of the whitened residuals of {kernel.heading}; "
        f"{outside} of {len(checks.acf)} autocorrelations are outside the white-noise band.",
        caption="Top: distribution of the whitened residuals against N(0, 1); points outside the band of the quantile "
        "plot are more extreme than chance allows. Bottom: autocorrelation of the residuals (structure in time that "
        "the model misses) and of their squares (scatter that comes and goes, as in flares). About 1 in 20 lags is "
        f"outside the ±1.96/√N band by chance; here {outside} and {outside_squared} of {len(checks.acf)} are.",
        crowded=checks.n > CROWDED,
    )


@styled
def psd_picture(curve: LightCurveSection, kernel: KernelSection, spectrum: Spectrum | None) -> Picture | None:
    """The power spectrum of the kernel beside the periodogram of the data; None without one."""
    psd = kernel.psd
    if psd is None:
        return None
    noise = psd.noise_floor if np.isfinite(psd.noise_floor) else spectrum.noise if spectrum else None
    expected = None
    if spectrum is not None and len(psd.simulations):
        expected = spectra.bin_periodogram(spectra.expected_periodogram(curve.time, psd.simulations))
    figure = new_figure(7.6, 3.7)
    ax = plots.plot_psd(
        psd.frequency,
        psd.median,
        psd.low,
        psd.high,
        noise=noise,
        spectrum=spectrum.raw if spectrum else None,
        binned=spectrum.binned if spectrum else None,
        expected=expected,
        limits=spectrum.limits if spectrum else None,
        model_label=kernel.called,
        band_label=f"{100 * psd.probability:.0f} %",
        time_unit=curve.time_unit,
        value_unit=curve.model_unit,
        ax=figure.add_subplot(),
    )
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=6, columnspacing=1.0, fontsize=8)
    scale = " of ln(value)" if curve.transform == "log" else ""
    return picture(
        figure,
        alt=f"Power spectral density of {kernel.heading} with its credible band, the periodogram and the noise level.",
        caption=f"Power spectrum{scale}, one-sided in frequency and normalised so that its integral is the variance. "
        "The model is constrained by data between the dotted lines only, and above the dashed noise level only. "
        + (AS_SAMPLED if expected is not None else NOT_AS_SAMPLED),
        crowded=curve.n > CROWDED,
    )


@styled
def pit_picture(kernel: KernelSection) -> Picture | None:
    """Calibration of the leave-one-out predictions; None if they were not computed."""
    if len(kernel.loo_pit) < 8:
        return None
    figure = new_figure(7.6, 2.5)
    left, right = figure.subplots(1, 2)
    plots.plot_pit(kernel.loo_pit, ax=left)
    entries = coverage(kernel.loo_pit)
    expected = [entry.probability for entry in entries]
    right.plot([0.4, 1], [0.4, 1], color=BLUE, lw=0.9)
    right.vlines(expected, [e.low for e in entries], [e.high for e in entries], color=BLUE, alpha=0.3, lw=6)
    right.plot(expected, [entry.observed for entry in entries], "o", color=INK, ms=4)
    right.set_xlim(0.4, 1)
    right.set_xlabel("Probability of the interval")
    right.set_ylabel("Points inside")
    told = ", ".join(f"{100 * e.observed:.0f} % in the {100 * e.probability:.0f} % interval" for e in entries)
    return picture(
        figure,
        alt=f"Histogram of leave-one-out probability integral transforms of {kernel.heading}, and coverage: {told}.",
        caption="Calibration of leave-one-out predictions: where each point falls in the distribution predicted from "
        "all others. Flat: calibrated; a hump: intervals too wide; a bowl: too narrow; a slope: biased. Right: how "
        f"many points the central intervals hold ({told}); bars are the 95 % range of a calibrated model.",
    )


@styled
def comparison_picture(table: list[dict[str, Any]], titles: Mapping[str, str]) -> Picture | None:
    """Differences of AICc and elpd; None for fewer than two comparable kernels."""
    rows = [row for row in table if np.isfinite(row["delta_aicc"])][::-1]
    if len(rows) < 2:
        return None
    with_elpd = any(np.isfinite(row["delta_elpd"]) for row in rows)
    figure = new_figure(7.6, 0.9 + 0.34 * len(rows))
    axes = figure.subplots(1, 2 if with_elpd else 1, sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))
    axes[0].hlines(places, 0, [row["delta_aicc"] for row in rows], color=BLUE, lw=1.4)
    axes[0].plot([row["delta_aicc"] for row in rows], places, "o", color=BLUE, ms=5)
    axes[0].axvline(0, color=INK, lw=0.8)
    axes[0].set_xlabel("ΔAICc (best: 0; smaller is better)")
    axes[0].set_yticks(places, [plain(_short(titles[row["name"]])) for row in rows])
    axes[0].set_ylim(-0.6, len(rows) - 0.4)
    if with_elpd:
        for place, row in zip(places, rows, strict=True):
            if np.isfinite(row["delta_elpd"]):
                axes[1].errorbar(
                    row["delta_elpd"], place, xerr=row["delta_elpd_se"], fmt="o", color=BLUE, ms=5, elinewidth=1.2
                )
        axes[1].axvline(0, color=INK, lw=0.8)
        axes[1].set_xlabel("Δelpd (best: 0; larger is better)")
    for ax in axes:
        ax.tick_params(axis="y", which="both", length=0)
        ax.minorticks_off()
    return picture(
        figure,
        alt="Differences of AICc and of leave-one-out elpd between the kernels.",
        caption="Differences to the best kernel. Bars of Δelpd: one standard error of the paired difference; a "
        "difference of less than about two of them, or below 4, does not separate two kernels.",
    )


@styled
def posterior_pictures(kernel: KernelSection) -> list[Picture]:
    """Traces and ranks, pairs, and priors against posteriors; empty without draws."""
    if kernel.posterior is None:
        return []
    names = posterior_plots.scalar_names(kernel.posterior, kernel.plot_variables or None)
    if not names:
        return []
    pictures = [
        picture(
            posterior_plots.plot_trace_rank(kernel.posterior, names),
            alt=f"Densities, traces and rank histograms of {', '.join(names)}, one colour per chain.",
            caption="One row per parameter, one colour per chain. Left: density; middle: trace (ticks at the bottom: "
            "divergent draws); right: ranks among the draws of all chains. Chains that agree have the same density, a "
            "trace without drift, and ranks near the dashed line. Quantities that spread widely are shown as log₁₀.",
            crowded=True,
        )
    ]
    varying = [name for name in names if float(kernel.posterior.posterior[name].std()) > 0]
    if len(varying) > 1:
        pictures.append(
            picture(
                posterior_plots.plot_pairs(kernel.posterior, varying),
                alt=f"Pair plot of the posterior of {', '.join(varying[: posterior_plots.MAX_PAIRS])}.",
                caption="Joint posterior: contours hold 39 %, 68 % and 86 % of the draws (1σ, 1.5σ and 2σ in two "
                "dimensions). Long, bent or cut-off shapes say that two parameters cannot be told apart by these data.",
                crowded=True,
            )
        )
    priors = [name for name in varying if name in kernel.priors]
    if priors:
        pictures.append(_prior_picture(kernel, priors))
    return pictures


def _prior_picture(kernel: KernelSection, names: list[str]) -> Picture:
    units = {quantity.name: quantity.unit for quantity in kernel.parameters}
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(7.6, 1.75 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False)
    for name, ax in zip(names, axes.flat, strict=False):
        draws = np.asarray(kernel.posterior.posterior[name], dtype=np.float64)
        posterior_plots.plot_prior_posterior(draws, kernel.priors[name], name=name, unit=units.get(name, ""), ax=ax)
        ax.tick_params(labelsize=7.5)
        ax.xaxis.label.set_size(8.5)
        ax.locator_params(axis="x", nbins=4)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    axes[0, 0].legend(fontsize=7.5, loc="best", handlelength=1.2)
    return picture(
        figure,
        alt=f"Prior and posterior densities of {', '.join(names)}.",
        caption="Posterior (filled) and prior (dashed). Where the two agree, the data say nothing about the parameter.",
    )


def _draw_band(band: Band, ax: Any) -> None:
    plots.plot_band(
        band.x, band.center, band.low_68, band.high_68, band.low_95, band.high_95, center_label="fit", ax=ax
    )


def _draw_data(curve: LightCurveSection, ax: Any) -> None:
    plots.plot_light_curve(
        curve.time,
        curve.value,
        curve.error,
        upper_limit_time=curve.upper_limit_time,
        upper_limit_value=curve.upper_limit_value,
        time_label=_time_label(curve),
        value_label=label(curve.value_label, curve.value_unit),
        log_scale=curve.transform == "log" and float(curve.value.max()) > WIDE_RANGE * float(curve.value.min()),
        ax=ax,
    )
    if curve.in_magnitudes and not ax.yaxis_inverted():
        ax.invert_yaxis()


def _legend(ax: Any) -> None:
    """One row over the plot, the data first, so that nothing is covered."""
    order = ("data", "upper limits (not fitted)", "fit", "68 %", "95 %")
    handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    names = sorted(handles, key=order.index)
    ax.legend(
        [handles[name] for name in names],
        names,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=5,
        columnspacing=1.2,
        handlelength=1.4,
        borderaxespad=0.2,
    )


def _time_label(curve: LightCurveSection) -> str:
    return label(curve.time_label, curve.time_unit)


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
