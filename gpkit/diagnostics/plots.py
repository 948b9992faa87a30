"""Plots of data, fits, residuals and spectra.

Every function draws on the axes that it is given, or on those of a new figure, and returns the axes; ``ax.figure`` is
the figure. Nothing is shown and no pyplot state is touched.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gpkit.diagnostics.arrays import IntArray, as_vector, finite_part
from gpkit.diagnostics.calibration import pit_histogram
from gpkit.diagnostics.residuals import ResidualChecks
from gpkit.diagnostics.spectra import BinnedPeriodogram, Periodogram
from gpkit.diagnostics.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RASTER_ABOVE,
    SKY,
    axes_or_new,
    label,
    plain,
    styled,
)


@styled
def plot_light_curve(
    time: npt.ArrayLike,
    value: npt.ArrayLike,
    error: npt.ArrayLike | None = None,
    *,
    upper_limit_time: npt.ArrayLike | None = None,
    upper_limit_value: npt.ArrayLike | None = None,
    time_label: str = "Time",
    value_label: str = "Value",
    log_scale: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Points with error bars, and upper limits as downward triangles.

    Args:
        time: Times of detections, ``n``.
        value: Their values, ``n``.
        error: Their errors, ``n``, or None.
        upper_limit_time: Times of upper limits, ``m``.
        upper_limit_value: The limits, ``m``.
        time_label: Label of the horizontal axis, with unit.
        value_label: Label of the vertical axis, with unit.
        log_scale: Whether the vertical axis is logarithmic.
        ax: Where to draw.
    """
    ax = axes_or_new(ax)
    t, y = as_vector(time, "time"), as_vector(value, "value")
    n = len(t)
    size = float(np.clip(4.5 - 0.8 * np.log10(max(n, 10) / 100), 0.9, 4.5))
    if log_scale:
        ax.set_yscale("log")
    bars = None if error is None else as_vector(error, "error")
    many = n > RASTER_ABOVE
    if many and bars is not None:  # one broken line: a million separate bars take matplotlib a minute
        ends = np.stack([y - bars, y + bars, np.full(n, np.nan)], axis=1)
        ax.plot(np.repeat(t, 3), ends.ravel(), color=INK, lw=0.3, alpha=0.4, zorder=2.9, rasterized=True)
    ax.errorbar(
        t,
        y,
        yerr=None if many else bars,
        fmt="o",
        markersize=size,
        color=INK,
        markeredgewidth=0,
        elinewidth=0.7,
        alpha=0.4 if many else 0.85,
        zorder=3,
        label="data",
        rasterized=many,
    )
    limits = np.empty(0) if upper_limit_value is None else as_vector(upper_limit_value, "upper_limit_value")
    if len(limits) and upper_limit_time is not None:
        ax.plot(
            as_vector(upper_limit_time, "upper_limit_time"),
            limits,
            linestyle="none",
            marker="v",
            markersize=size + 1.5,
            markerfacecolor="none",
            markeredgecolor=GREY,
            markeredgewidth=0.8,
            zorder=2.5,
            label="upper limits (not fitted)",
        )
    if log_scale and (y > 0).any():  # an error bar that reaches zero would stretch a logarithmic axis for ever
        positive = np.concatenate([y[y > 0], limits[limits > 0]])
        ax.set_ylim(positive.min() / 1.4, positive.max() * 1.4)
    ax.set_xlabel(plain(time_label))
    ax.set_ylabel(plain(value_label))
    ax.margins(x=0.01)
    return ax


@styled
def plot_band(
    x: npt.ArrayLike,
    center: npt.ArrayLike,
    low_68: npt.ArrayLike,
    high_68: npt.ArrayLike,
    low_95: npt.ArrayLike,
    high_95: npt.ArrayLike,
    *,
    center_label: str = "median",
    color: str = BLUE,
    ax: Axes | None = None,
) -> Axes:
    """A line with its 68 % and 95 % bands, ``m`` each."""
    ax = axes_or_new(ax)
    grid = as_vector(x, "x")
    ax.fill_between(
        grid, as_vector(low_95, "low_95"), as_vector(high_95, "high_95"), color=color, alpha=0.16, lw=0, label="95 %"
    )
    ax.fill_between(
        grid, as_vector(low_68, "low_68"), as_vector(high_68, "high_68"), color=color, alpha=0.32, lw=0, label="68 %"
    )
    ax.plot(grid, as_vector(center, "center"), color=color, lw=1.1, label=plain(center_label), zorder=2)
    return ax


@styled
def plot_residual_series(
    time: npt.ArrayLike, residuals: npt.ArrayLike, *, time_label: str = "Time", ax: Axes | None = None
) -> Axes:
    """Whitened residuals against time, with lines at 0 and +-1.96."""
    ax = axes_or_new(ax, height=2.0)
    z = as_vector(residuals, "residuals")
    ax.axhspan(-1.96, 1.96, color=BLUE, alpha=0.08, lw=0)
    ax.axhline(0, color=BLUE, lw=0.9)
    size = float(np.clip(4 - 0.8 * np.log10(max(len(z), 10) / 100), 0.9, 4))
    many = len(z) > RASTER_ABOVE
    ax.plot(time, z, "o", ms=size, mew=0, color=INK, alpha=0.4 if many else 0.8, rasterized=many)
    ax.set_xlabel(plain(time_label))
    ax.set_ylabel("Whitened residual")
    ax.margins(x=0.01)
    return ax


@styled
def plot_residual_histogram(residuals: npt.ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Histogram of whitened residuals, with the density of N(0, 1)."""
    ax = axes_or_new(ax, 3.4, 3.0)
    z, _ = finite_part(residuals, "the residuals")
    reach = max(4.0, float(np.abs(z).max()) * 1.05) if len(z) else 4.0
    bins = int(np.clip(2 * np.sqrt(len(z)) * reach / 4, 9, 80)) | 1  # odd, so that one bin is centred on zero
    if len(z):
        ax.hist(
            z, np.linspace(-reach, reach, bins + 1).tolist(), density=True, color=SKY, alpha=0.75, ec="white", lw=0.4
        )
    grid = np.linspace(-reach, reach, 300)
    ax.plot(grid, np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), color=ORANGE, label="N(0, 1)")
    ax.set_xlabel("Whitened residual")
    ax.set_ylabel("Density")
    ax.legend(loc="upper right", handlelength=1.2)
    return ax


@styled
def plot_qq(residuals: npt.ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Quantiles of whitened residuals against those of N(0, 1), with the pointwise 95 % band of order statistics."""
    from scipy.special import betaincinv, ndtri

    ax = axes_or_new(ax, 3.4, 3.0)
    z = np.sort(finite_part(residuals, "the residuals")[0])
    n = len(z)
    if n:
        rank = _shown_ranks(n)
        z = z[rank - 1]
        expected = ndtri((rank - 0.375) / (n + 0.25))
        low, high = (ndtri(betaincinv(rank, n + 1 - rank, p)) for p in (0.025, 0.975))
        ax.fill_between(expected, low, high, color=BLUE, alpha=0.16, lw=0, label="95 % band")
        ends = [expected[0], expected[-1]]
        ax.plot(ends, ends, color=BLUE, lw=0.9)
        ax.plot(expected, z, "o", ms=2.6, mew=0, color=INK, alpha=0.8, rasterized=n > RASTER_ABOVE)
        ax.legend(loc="upper left", handlelength=1.2)
    ax.set_xlabel("Quantile of N(0, 1)")
    ax.set_ylabel("Residual quantile")
    return ax


def _shown_ranks(n: int, tail: int = 500, middle: int = 2000) -> IntArray:
    """Ranks 1 to n that a quantile plot shows: all, or the ends and an even choice between them."""
    if n <= 2 * tail + middle:
        return np.arange(1, n + 1)
    inner = np.linspace(tail + 1, n - tail, middle).astype(np.int64)
    return np.unique(np.concatenate([np.arange(1, tail + 1), inner, np.arange(n - tail + 1, n + 1)]))


@styled
def plot_acf(checks: ResidualChecks, *, squared: bool = False, ax: Axes | None = None) -> Axes:
    """Autocorrelation of residuals, or of their squares, with the 95 % band of white noise."""
    ax = axes_or_new(ax, 3.6, 2.4)
    acf = checks.acf_squared if squared else checks.acf
    lags = np.arange(1, len(acf) + 1)
    band = checks.white_noise_band
    if np.isfinite(band):
        ax.axhspan(-band, band, color=BLUE, alpha=0.14, lw=0, label="white noise, 95 %")
    outside = np.abs(acf) > band
    ax.axhline(0, color=INK, lw=0.7)
    ax.vlines(lags, 0, acf, color=np.where(outside, ORANGE, GREY).tolist(), lw=1.2)
    for chosen, color in ((~outside, GREY), (outside, ORANGE)):
        ax.plot(lags[chosen], acf[chosen], "o", ms=3, mew=0, color=color)
    largest = float(np.abs(acf).max()) if len(acf) else 0.0
    reach = 1.25 * max(largest, band if np.isfinite(band) else 0.0, 0.05)
    ax.set_ylim(-reach, reach)
    ax.set_xlim(0, len(acf) + 1)
    ax.set_xlabel("Lag (points)")
    ax.set_ylabel("Autocorrelation")
    ax.set_title("Squared residuals" if squared else "Residuals")
    return ax


@styled
def plot_psd(
    frequency: npt.ArrayLike,
    median: npt.ArrayLike,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    *,
    noise: float | None = None,
    spectrum: Periodogram | None = None,
    binned: BinnedPeriodogram | None = None,
    expected: BinnedPeriodogram | None = None,
    limits: tuple[float, float] | None = None,
    model_label: str = "model",
    band_label: str = "68 %",
    time_unit: str = "",
    value_unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Power spectrum of a model with its credible band, beside the periodogram of the data.

    One-sided in frequency, normalised to the variance (see `gpkit.diagnostics.spectra`).

    Args:
        frequency: Frequencies, ``f``.
        median: P(f) of the model, ``f``.
        low: Lower end of the band, ``f``, or None.
        high: Upper end of the band, ``f``, or None.
        noise: White noise level of the measurements.
        spectrum: Periodogram of the data.
        binned: The same in bins.
        expected: What that of the model and noise would be at the same times; None: their sum is drawn instead.
        limits: Frequencies 1 / T and 1 / (2 median dt) to mark.
        model_label: Name of the model in the legend.
        band_label: Name of the band in the legend.
        time_unit: Unit of time.
        value_unit: Unit of the values.
        ax: Where to draw.
    """
    ax = axes_or_new(ax, 7.4, 3.6)
    f, p = as_vector(frequency, "frequency"), as_vector(median, "median")
    ax.set_xscale("log")
    ax.set_yscale("log")
    seen = [p[p > 0]]
    if spectrum is not None:
        many = len(spectrum.frequency) > RASTER_ABOVE
        ax.plot(
            spectrum.frequency, spectrum.power, color=GREY, lw=0.5, alpha=0.45, label="periodogram", rasterized=many
        )
    if binned is not None and len(binned.power):
        ax.errorbar(
            binned.frequency,
            binned.power,
            yerr=np.minimum(binned.error, 0.9 * binned.power),
            fmt="o",
            ms=3.2,
            mew=0,
            elinewidth=0.8,
            color=INK,
            label="periodogram, binned",
            zorder=3,
        )
        seen.append(binned.power[binned.power > 0])
    if low is not None and high is not None:
        ax.fill_between(
            f, as_vector(low, "low"), as_vector(high, "high"), color=BLUE, alpha=0.28, lw=0, label=plain(band_label)
        )
    ax.plot(f, p, color=BLUE, lw=1.5, label=plain(model_label), zorder=2.5)
    if noise is not None and np.isfinite(noise) and noise > 0:
        ax.axhline(noise, color=GREEN, lw=1.1, ls="--", label="measurement noise")
        if expected is None:
            ax.plot(f, p + noise, color=ORANGE, lw=1.1, ls="-.", label="model + noise", zorder=2.4)
        seen.append(np.array([noise]))
    if expected is not None:
        ax.plot(
            expected.frequency,
            expected.power,
            color=ORANGE,
            lw=1.3,
            ls="-.",
            label="model + noise, as sampled",
            zorder=2.6,
        )
    for position, text in zip(limits or (), ("1/T", "1/(2 median Δt)"), strict=False):
        ax.axvline(position, color=PURPLE, lw=0.9, ls=":")
        ax.annotate(
            text,
            (position, 0.99),
            xycoords=ax.get_xaxis_transform(),
            xytext=(-3, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
            color=PURPLE,
        )
    powers = np.concatenate(seen)
    if len(powers):
        floor = noise / 30 if noise is not None and noise > 0 else powers.min() / 3
        ax.set_ylim(max(powers.min() / 3, floor), powers.max() * 6)
    ax.set_xlim(f[0], f[-1])
    ax.set_xlabel(label("Frequency f", f"1/{time_unit}" if time_unit else ""))
    unit = f"({value_unit})²" if value_unit else ""
    ax.set_ylabel(label("P(f)", f"{unit} {time_unit}".strip()))
    return ax


@styled
def plot_pit(pit_values: npt.ArrayLike, *, bins: int | None = None, ax: Axes | None = None) -> Axes:
    """Histogram of PIT values (of leave-one-out predictions), with the 95 % range of each bin if calibrated."""
    ax = axes_or_new(ax, 3.6, 2.6)
    u, _ = finite_part(pit_values, "pit_values")
    bins = int(np.clip(len(u) // 15, 5, 20)) if bins is None else bins
    histogram = pit_histogram(u, bins)
    ax.axhspan(histogram.low, histogram.high, color=BLUE, alpha=0.16, lw=0, label="calibrated, 95 %")
    ax.stairs(histogram.counts, histogram.edges, baseline=None, color=INK, lw=1.2)
    ax.axhline(histogram.expected, color=BLUE, lw=0.9)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, max(float(histogram.counts.max()), histogram.high) * 1.3 + 1e-9)
    ax.set_xlabel("Probability integral transform")
    ax.set_ylabel("Points per bin")
    ax.legend(loc="upper center")
    return ax
