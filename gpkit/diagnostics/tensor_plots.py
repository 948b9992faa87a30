"""Plots of low-rank tensor models: functions of a mode, cores, bounds of sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.style import BLUE, GREEN, GREY, INK, ORANGE, axes_or_new, label, styled

__all__ = ["plot_bounds", "plot_core", "plot_errors", "plot_levels", "plot_mode_functions"]

_COLOURS = (BLUE, ORANGE, GREEN, "#8a5fb0", "#9c6b30", GREY)


@styled
def plot_mode_functions(
    coordinates: npt.ArrayLike,
    functions: npt.ArrayLike,
    deviations: npt.ArrayLike,
    *,
    names: Sequence[str] = (),
    mode_label: str = "",
    value_label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Functions (J, R) of an ordered coordinate (J,) with bands of two standard deviations (J, R)."""
    ax = axes_or_new(ax, 7.4, 2.6)
    x, f, sd = (np.asarray(v, dtype=np.float64) for v in (coordinates, functions, deviations))
    f, sd = f.reshape(len(x), -1), sd.reshape(len(x), -1)
    for r in range(f.shape[1]):
        colour = _COLOURS[r % len(_COLOURS)]
        name = names[r] if r < len(names) else None
        ax.fill_between(
            x, f[:, r] - 2 * sd[:, r], f[:, r] + 2 * sd[:, r], color=colour, alpha=0.2, lw=0, rasterized=True
        )
        ax.plot(x, f[:, r], color=colour, lw=1.1, label=name, rasterized=len(x) > 2000)
    ax.set_xlabel(label(mode_label))
    ax.set_ylabel(label(value_label))
    if len(names):
        ax.legend(loc="best", ncols=min(len(names), 4))
    return ax


@styled
def plot_levels(
    levels: Sequence[str],
    values: npt.ArrayLike,
    deviations: npt.ArrayLike,
    *,
    value_label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Values (J,) at the levels of a category with bars of two standard deviations, largest on top."""
    v, sd = np.asarray(values, dtype=np.float64), np.asarray(deviations, dtype=np.float64)
    order = np.argsort(v)
    ax = axes_or_new(ax, 7.4, 0.6 + 0.2 * len(v))
    at = np.arange(len(v))
    ax.errorbar(v[order], at, xerr=2 * sd[order], fmt="o", ms=3.5, color=BLUE, ecolor=BLUE, elinewidth=1.1)
    ax.set_yticks(at, [label(str(levels[i])) for i in order])
    ax.tick_params(axis="y", which="minor", left=False, right=False)
    ax.axvline(0.0, color=GREY, lw=0.8)
    ax.set_xlabel(label(value_label))
    return ax


@styled
def plot_core(
    matrix: npt.ArrayLike, *, row_label: str = "", column_label: str = "", title: str = "", ax: Axes | None = None
) -> Axes:
    """Absolute values of a slice (A, B) of a core as squares whose area is the value."""
    ax = axes_or_new(ax, 2.4, 2.4)
    values = np.asarray(matrix, dtype=np.float64)
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    rows, columns = np.indices(values.shape)
    colours = np.where(values.reshape(-1) >= 0, BLUE, ORANGE)
    ax.scatter(columns, rows, s=220.0 * np.abs(values) / largest, c=colours, marker="s", lw=0)
    ax.set_xlim(-0.6, values.shape[1] - 0.4)
    ax.set_ylim(values.shape[0] - 0.4, -0.6)
    ax.set_xticks(np.arange(values.shape[1]))
    ax.set_yticks(np.arange(values.shape[0]))
    ax.tick_params(which="minor", bottom=False, left=False, top=False, right=False)
    ax.set_aspect("equal")
    ax.set_xlabel(label(column_label))
    ax.set_ylabel(label(row_label))
    if title:
        ax.set_title(label(title), fontsize=8.5)
    return ax


@styled
def plot_bounds(traces: Sequence[FloatArray], *, ax: Axes | None = None) -> Axes:
    """Bounds after each sweep of every start, from the third sweep on."""
    ax = axes_or_new(ax, 7.4, 2.4)
    for k, trace in enumerate(traces):
        skip = min(2, len(trace) - 1)
        sweeps = np.arange(1, len(trace) + 1)[skip:]
        ax.plot(sweeps, np.asarray(trace)[skip:], color=_COLOURS[k % len(_COLOURS)], lw=1.1, label=f"start {k + 1}")
    ax.set_xlabel("Sweep")
    ax.set_ylabel("Evidence lower bound")
    ax.legend(loc="lower right", ncols=min(len(traces), 4))
    return ax


@styled
def plot_errors(mean: npt.ArrayLike, z: npt.ArrayLike, *, value_label: str = "", ax: Axes | None = None) -> Axes:
    """Standardised errors against predictions, with the central half of each twentieth of the entries."""
    ax = axes_or_new(ax, 7.4, 2.6)
    m, e = np.asarray(mean, dtype=np.float64), np.asarray(z, dtype=np.float64)
    ax.scatter(m, e, s=3, color=GREY, alpha=0.35, lw=0, rasterized=True)
    order = np.array_split(np.argsort(m), min(20, max(len(m) // 25, 1)))
    middle = [float(np.median(m[part])) for part in order]
    quartiles: Any = np.array([np.quantile(e[part], [0.25, 0.5, 0.75]) for part in order])
    for k in range(3):
        ax.plot(middle, quartiles[:, k], color=INK if k == 1 else BLUE, lw=1.3)
    ax.axhline(0.0, color=GREY, lw=0.8)
    ax.set_ylim(-5.0, 5.0)
    if len(m):  # a few predicted counts far above all others would leave no room for these
        low, high = np.quantile(m, [0.002, 0.998])
        margin = 0.05 * (high - low) or 0.5
        ax.set_xlim(max(low - margin, m.min() - margin), min(high + margin, m.max() + margin))
    ax.set_xlabel(label(value_label))
    ax.set_ylabel("Standardised error")
    return ax
