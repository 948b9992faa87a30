"""The figures of a report about a differential equation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.style import BLUE, CYCLE, GREY, INK, ORANGE, SKY, label, new_figure, styled
from gpkit.reports.document import Picture, picture
from gpkit.reports.pde_content import FieldSection, GridFunction

_NORMAL_95 = 1.959963984540054
_FLOOR = 1e-18


@styled
def field_picture(field: FieldSection) -> Picture:
    """The solution with its uncertainty: a curve with a band, or two maps."""
    if len(field.mean.axes) == 1:
        return _curve(field)
    panels = [("mean", field.mean, False)]
    if field.std is not None:
        panels.append(("standard deviation", field.std, True))
    figure = new_figure(7.6 if len(panels) > 1 else 4.6, 3.4)
    for ax, (what, function, logarithmic) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        _map(figure, ax, function, logarithmic=logarithmic)
        ax.set_title(f"{field.name}: {what}" + (f" ({function.note})" if function.note else ""))
    shape = " x ".join(str(len(a)) for a in field.mean.axes)
    return picture(
        figure,
        alt=f"Map of the field {field.name} on {shape} points.",
        caption=f"Posterior mean of {field.name}"
        + (", and its standard deviation on a logarithmic scale of colours." if field.std is not None else "."),
        crowded=True,
    )


def _curve(field: FieldSection) -> Picture:
    figure = new_figure(7.6, 5.0 if field.detail is not None else 3.2)
    rows = 2 if field.detail is not None else 1
    axes = np.atleast_1d(figure.subplots(rows, 1))
    (x,) = field.mean.axes
    if field.std is not None:
        half = _NORMAL_95 * np.interp(x, field.std.axes[0], field.std.values)
        axes[0].fill_between(x, field.mean.values - half, field.mean.values + half, color=SKY, alpha=0.5, lw=0)
    for draw in field.draws:
        axes[0].plot(x, draw, color=GREY, lw=0.5, alpha=0.6)
    axes[0].plot(x, field.mean.values, color=BLUE, lw=0.9 if len(x) > 1000 else 1.3)
    axes[0].set_ylabel(label(field.name))
    axes[0].set_xlabel(label(field.mean.names[0]))
    caption = f"Posterior mean of {field.name}"
    caption += ", with the central 95 % interval." if field.std is not None else "."
    if len(field.draws):
        caption += f" Grey: {len(field.draws)} draws."
    if field.detail is not None:
        axes[1].plot(field.detail.axes[0], field.detail.values, color=BLUE)
        axes[1].set_ylabel(label(field.name))
        axes[1].set_xlabel(label(field.mean.names[0]))
        caption += " Below: a piece of it, enlarged."
    return picture(figure, alt=f"The field {field.name}.", caption=caption, crowded=len(x) > 2000)


@styled
def map_picture(function: GridFunction, *, what: str, caption: str) -> Picture:
    """Absolute values on a logarithmic scale: a residual or an error."""
    figure = new_figure(7.6 if len(function.axes) == 1 else 4.8, 2.8 if len(function.axes) == 1 else 3.4)
    ax = figure.add_subplot()
    if len(function.axes) == 1:
        size = np.maximum(np.abs(function.values), _FLOOR)
        ax.semilogy(function.axes[0], size, color=BLUE, lw=0.8)
        ax.set_xlabel(label(function.names[0]))
        ax.set_ylabel(label(what))
    else:
        _map(figure, ax, function, logarithmic=True)
        ax.set_title(what + (f" ({function.note})" if function.note else ""))
    return picture(figure, alt=f"{what}.", caption=caption, crowded=len(function.axes) > 1)


def _map(figure: Figure, ax: Any, function: GridFunction, *, logarithmic: bool) -> None:
    x, y = function.axes
    values = function.values.T
    norm = None
    if logarithmic:
        values = np.maximum(np.abs(values), _FLOOR)
        low, high = float(values.min()), float(values.max())
        norm = LogNorm(max(low, high * 1e-8), max(high, low * 1.0001, 2 * _FLOOR))
    options: dict[str, Any] = {"norm": norm} if logarithmic else _symmetric(values)
    image = ax.pcolormesh(
        x, y, values, cmap="magma" if logarithmic else "RdBu_r", shading="nearest", rasterized=True, **options
    )
    figure.colorbar(image, ax=ax, pad=0.02)
    ax.set_xlabel(label(function.names[0]))
    ax.set_ylabel(label(function.names[1]))
    ratio = (x[-1] - x[0]) / (y[-1] - y[0])
    if 0.66 < ratio < 1.5 and "t" not in function.names:
        ax.set_aspect("equal")


def _symmetric(values: FloatArray) -> dict[str, float]:
    top = float(np.abs(values).max()) or 1.0
    if float(values.min()) >= 0.0:
        return {"vmin": -top, "vmax": top} if float(values.min()) < 0.2 * top else {}
    return {"vmin": -top, "vmax": top}


@styled
def spectrum_picture(field: FieldSection) -> Picture | None:
    """Power along each axis, with the limit of the grid and the frequencies that were picked."""
    if not field.spectra:
        return None
    figure = new_figure(7.6, 2.9)
    for ax, spectrum in zip(np.atleast_1d(figure.subplots(1, len(field.spectra))), field.spectra, strict=True):
        if len(spectrum.source):
            ax.semilogy(spectrum.frequency, np.maximum(spectrum.source, 1e-32), color=ORANGE, lw=0.9, label="source")
        ax.semilogy(spectrum.frequency, np.maximum(spectrum.solution, 1e-32), color=BLUE, lw=1.1, label="solution")
        ax.axvline(spectrum.nyquist, color=INK, lw=0.8, ls="--", label="half the grid")
        for k, frequency in enumerate(spectrum.picked):
            ax.axvline(frequency, color=CYCLE[2], lw=0.7, alpha=0.8, label="picked" if k == 0 else None)
        ax.set_xlabel(f"cycles per unit of {spectrum.axis}")
        ax.set_ylim(bottom=1e-24)
        ax.set_xlim(0.0, 1.3 * spectrum.nyquist)
        ax.set_ylabel(f"power of {field.name}")
    figure.axes[-1].legend(loc="upper right")
    return picture(
        figure,
        alt=f"Power spectra of the field {field.name}.",
        caption="Power along each axis, averaged over the others, relative to the largest. Dashed: the highest "
        "frequency of the collocation grid; power close to it says that the grid is too coarse.",
        crowded=True,
    )


@styled
def history_picture(histories: Mapping[str, Sequence[float]]) -> Picture | None:
    """How iterations went."""
    shown = {name: np.asarray(v, dtype=np.float64) for name, v in histories.items() if len(v) > 1}
    shown = {name: v for name, v in shown.items() if np.all(np.isfinite(v)) and np.any(v > 0)}
    if not shown:
        return None
    figure = new_figure(5.0, 2.8)
    ax = figure.add_subplot()
    for color, (name, values) in zip(CYCLE, shown.items(), strict=False):
        ax.semilogy(np.arange(1, len(values) + 1), np.maximum(values, _FLOOR), "o-", ms=3.5, color=color, label=name)
    ax.set_xlabel("iteration")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.minorticks_off()
    ax.set_ylabel("relative size")
    ax.legend()
    return picture(figure, alt="Histories of iterations.", caption="Each iteration, until it met its tolerance.")
