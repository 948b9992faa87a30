"""Plots of posterior draws: traces with ranks, pairs, and priors against posteriors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.style import (
    BLUE,
    CYCLE,
    GREY,
    INK,
    ORANGE,
    RASTER_ABOVE,
    axes_or_new,
    new_figure,
    plain,
    styled,
)
from gpkit.diagnostics.units import power_of_ten, pretty_unit, superscript
from gpkit.errors import InvalidDataError

WIDE = 10.0
"""A positive quantity whose central 95 % spans more than this factor is drawn on a logarithmic scale."""
MAX_PAIRS = 6
"""Variables that a pair plot has room for."""


def scalar_names(inference_data: Any, var_names: Sequence[str] | None = None) -> list[str]:
    """Names of the scalar variables of the posterior, which are those that the plots here can draw."""
    posterior = inference_data.posterior
    names = list(posterior.data_vars) if var_names is None else list(var_names)
    return [str(name) for name in names if set(posterior[name].dims) == {"chain", "draw"}]


@styled
def plot_trace_rank(inference_data: Any, var_names: Sequence[str] | None = None) -> Figure:
    """One row per scalar: the density of each chain, its trace with divergences, and its rank histogram.

    Chains that explore the same distribution have the same density, a trace without drift and flat ranks.

    Raises:
        InvalidDataError: If there is no scalar variable.
    """
    import arviz
    from scipy.stats import rankdata

    names = scalar_names(inference_data, var_names)
    if not names:
        raise InvalidDataError("the posterior has no scalar variable to plot")
    figure = new_figure(7.4, 1.25 * len(names) + 0.35)
    rows = figure.subplots(len(names), 3, squeeze=False, width_ratios=(1, 1.7, 1))
    diverging = _diverging(inference_data)
    for name, (density_ax, trace_ax, rank_ax) in zip(names, rows, strict=True):
        draws = np.asarray(inference_data.posterior[name].transpose("chain", "draw"), dtype=np.float64)
        shown, title = _maybe_log(draws, name)
        chains, length = shown.shape
        for chain in range(chains):
            color = CYCLE[chain % len(CYCLE)]
            if np.ptp(shown[chain]) > 0:
                grid, density = arviz.kde(shown[chain])
                density_ax.plot(grid, density, color=color, lw=1.0)
            trace_ax.plot(shown[chain], color=color, lw=0.4, alpha=0.8, rasterized=shown.size > RASTER_ABOVE)
        if diverging is not None and diverging.any():
            _, when = np.nonzero(diverging)
            trace_ax.plot(
                when, np.full(len(when), shown.min()), "|", color=INK, ms=5, mew=0.8, transform=trace_ax.transData
            )
        bins = int(np.clip(length * chains // 100, 5, 20))
        ranks = rankdata(draws).reshape(chains, length)
        for chain in range(chains):
            counts, edges = np.histogram(ranks[chain], bins, range=(0, chains * length))
            rank_ax.stairs(counts, edges, baseline=None, color=CYCLE[chain % len(CYCLE)], lw=1.0)
        rank_ax.axhline(length / bins, color=GREY, lw=0.8, ls="--")
        rank_ax.set_ylim(0, 2.2 * length / bins)
        density_ax.set_title(title)
        density_ax.set_yticks([])
        rank_ax.set_yticks([])
        for ax in (density_ax, trace_ax, rank_ax):
            ax.minorticks_off()
            ax.tick_params(labelsize=7.5)
        density_ax.locator_params(axis="x", nbins=4)
        rank_ax.locator_params(axis="x", nbins=3)
    rows[-1, 1].set_xlabel("Draw")
    rows[-1, 2].set_xlabel("Rank among all draws")
    for ax in rows[:-1, 1:].flat:
        ax.set_xticklabels([])
    return figure


@styled
def plot_pairs(inference_data: Any, var_names: Sequence[str] | None = None) -> Figure:
    """Joint and marginal densities of scalars, with divergent draws marked.

    Contours hold 39 %, 68 % and 86 % of the draws: one, one and a half, and two sigma in two dimensions.

    Args:
        inference_data: Draws.
        var_names: Scalar variables, at most `MAX_PAIRS` are drawn; None: the first ones.

    Raises:
        InvalidDataError: If fewer than two scalar variables vary.
    """
    import arviz

    posterior = inference_data.posterior
    names = [name for name in scalar_names(inference_data, var_names) if float(posterior[name].std()) > 0][:MAX_PAIRS]
    if len(names) < 2:
        raise InvalidDataError("a pair plot needs at least two scalar variables that vary")
    shown = [
        _maybe_log(np.asarray(posterior[name].transpose("chain", "draw"), dtype=np.float64), name) for name in names
    ]
    diverging = _diverging(inference_data)
    n = len(names)
    side = float(np.clip(1.5 * n + 0.5, 4.0, 7.6))
    figure = new_figure(side, side)
    axes: Any = figure.subplots(n, n, squeeze=False, sharex="col")
    for row, column in np.ndindex(n, n):
        ax = axes[row, column]
        (x, x_title), (y, y_title) = shown[column], shown[row]
        if column > row:
            ax.set_axis_off()
            continue
        if row == column:
            grid, density = arviz.kde(x.ravel())
            ax.fill_between(grid, density, color=BLUE, alpha=0.25, lw=0)
            ax.plot(grid, density, color=BLUE, lw=1.2)
            ax.set_ylim(bottom=0)
        else:
            _contours(x.ravel(), y.ravel(), ax)
            if diverging is not None and diverging.any():
                ax.plot(x[diverging], y[diverging], "o", color=ORANGE, ms=2.8, mew=0, zorder=3)
            if column == 0:
                ax.set_ylabel(y_title)
        if row == column or column > 0:
            ax.set_yticklabels([])
        if row == column:
            ax.set_yticks([])
        if row == n - 1:
            ax.set_xlabel(x_title)
        ax.minorticks_off()
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(labelsize=7.5)
    return figure


def _contours(x: FloatArray, y: FloatArray, ax: Axes) -> None:
    """Regions of highest density of a smoothed histogram."""
    from scipy.ndimage import gaussian_filter

    bins, smoothing = 60, 2.0
    (x_low, x_high), (y_low, y_high) = (np.quantile(v, [0.001, 0.999]) for v in (x, y))
    x_margin, y_margin = 0.15 * (x_high - x_low), 0.15 * (y_high - y_low)
    area = [[x_low - x_margin, x_high + x_margin], [y_low - y_margin, y_high + y_margin]]
    counts, x_edges, y_edges = np.histogram2d(x, y, bins, range=area)
    density = gaussian_filter(counts, smoothing)
    ordered = np.sort(density.ravel())[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    levels = np.unique([ordered[min(int(np.searchsorted(held, p)), len(held) - 1)] for p in (0.865, 0.675, 0.393)])
    x_centres, y_centres = 0.5 * (x_edges[1:] + x_edges[:-1]), 0.5 * (y_edges[1:] + y_edges[:-1])
    shades = ["#cfe1f0", "#86b8da", "#2f7fb8"][-len(levels) :]
    ax.contourf(x_centres, y_centres, density.T, levels=[*levels, density.max() * 1.001], colors=shades)
    ax.contour(x_centres, y_centres, density.T, levels=levels, colors=BLUE, linewidths=0.7)


@styled
def plot_prior_posterior(
    draws: npt.ArrayLike,
    log_prior: Callable[[FloatArray], FloatArray],
    *,
    name: str = "",
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Density of the posterior draws of one parameter and of its prior, on a common scale.

    Args:
        draws: Posterior draws of any shape.
        log_prior: Log density of the prior at values of the parameter, up to nothing: it must be normalised.
        name: Name of the parameter.
        unit: Its unit.
        ax: Where to draw.
    """
    import arviz

    ax = axes_or_new(ax, 2.4, 1.9)
    values = np.asarray(draws, dtype=np.float64).ravel()
    log_axis = _is_wide(values)
    shown = np.log10(values) if log_axis else values
    low, high = float(shown.min()), float(shown.max())
    margin = 0.4 * (high - low) or 1.0
    start = low - margin
    if not log_axis and low > 0:  # a positive parameter has no prior below zero
        start = max(start, 1e-6 * low)
    grid = np.linspace(start, high + margin, 400)
    at = 10.0**grid if log_axis else grid
    with np.errstate(all="ignore"):  # a density may end within the axis
        prior = np.exp(log_prior(at)) * (at * np.log(10.0) if log_axis else 1.0)
    if high > low:
        position, density = arviz.kde(shown)
        ax.fill_between(position, density, color=BLUE, alpha=0.3, lw=0)
        ax.plot(position, density, color=BLUE, lw=1.2, label="posterior")
    ax.plot(grid, np.where(np.isfinite(prior), prior, 0.0), color=ORANGE, lw=1.2, ls="--", label="prior")
    power = 0 if log_axis else power_of_ten(float(grid[0]), float(grid[-1]))
    if power:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 10.0**power:.3g}".replace("-", "−")))
    told, inside = plain(name), plain(pretty_unit(unit, power))
    told = rf"$\log_{{10}}$ {told}" if log_axis else told
    ax.set_xlabel(f"{told}\n({inside})" if inside else told)
    ax.set_yticks([])
    ax.set_ylim(bottom=0)
    return ax


def _diverging(inference_data: Any) -> npt.NDArray[np.bool_] | None:
    """Mask of divergent draws, ``chain draw``, or None if the sampler did not say."""
    if "sample_stats" not in inference_data.groups() or "diverging" not in inference_data.sample_stats:
        return None
    return np.asarray(inference_data.sample_stats["diverging"].transpose("chain", "draw"), dtype=np.bool_)


def _is_wide(values: FloatArray) -> bool:
    if not (values > 0).all():
        return False
    low, high = np.quantile(values, [0.025, 0.975])
    return bool(high > WIDE * low)


def _maybe_log(draws: FloatArray, name: str) -> tuple[FloatArray, str]:
    """The draws and their title, on a logarithmic scale if they are positive and spread widely."""
    if _is_wide(draws):
        return np.log10(draws), rf"$\log_{{10}}$ {plain(name)}"
    power = power_of_ten(*np.quantile(draws, [0.01, 0.99]))
    return draws / 10.0**power, plain(f"{name} (10{superscript(power)})" if power else name)
