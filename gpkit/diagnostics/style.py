"""How figures look: one palette, one typography, figures that belong to nobody's pyplot session."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import numpy.typing as npt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, ScalarFormatter

from gpkit.diagnostics.units import power_of_ten, pretty_unit, round_offset

P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito's palette, which people with any common colour vision can tell apart, and which survives a printer.
INK = "#1a1a1a"
GREY = "#7a7a7a"
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PURPLE = "#AA4499"
SKY = "#56B4E9"
GOLD = "#E69F00"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, GOLD)

LONGEST = 56
"""Characters of a label that fit beside an axis."""
RASTER_ABOVE = 2000
"""Marks above which a layer of points is drawn as pixels inside an otherwise scalable figure."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "normal",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "errorbar.capsize": 0.0,
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "gpkit",
    "mathtext.fontset": "dejavusans",
}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with the style on, and leave matplotlib's settings as they were."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapper


@styled
def new_figure(width: float = 7.4, height: float = 3.2) -> Figure:
    """An empty figure with a layout that keeps labels from overlapping; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def axes_or_new(ax: Axes | None, width: float = 7.4, height: float = 3.2) -> Axes:
    """The axes that were given, or those of a new figure."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def plain(text: str) -> str:
    """Text as it is, where matplotlib would take dollar signs for formulas."""
    return text.replace("$", r"\$")


def label(quantity: str, unit: str = "") -> str:
    """Label of an axis, with its unit, with real exponents, if it has one."""
    text = f"{quantity} ({pretty_unit(unit)})" if unit else quantity
    return plain(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


class _Plain(Formatter):
    """Numbers less an offset, in a power of ten; both are told by the label of the axis, not in a corner of it."""

    def __init__(self, power: int, offset: float) -> None:
        self._power, self._offset = power, offset

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self.format_ticks([x])[0]

    def format_ticks(self, values: npt.ArrayLike) -> list[str]:
        """All with the decimals that the longest needs."""
        scaled = (np.asarray(values, dtype=np.float64) - self._offset) / 10.0**self._power
        size = float(np.abs(scaled).max(initial=0.0))
        enough = (d for d in range(7) if np.all(np.abs(np.round(scaled, d) - scaled) <= 1e-6 * size))
        decimals = next(enough, 6)
        return [f"{value + 0.0:.{decimals}f}".replace("-", "−") for value in np.round(scaled, decimals)]


def tidy_axes(figure: Figure) -> None:
    """Move powers of ten and large offsets of linear axes into their labels; axes without a label stay as they are."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_label_text() and type(axis.get_major_formatter()) is ScalarFormatter:
                _tidy(axis)


def _tidy(axis: Axis) -> None:
    low, high = sorted(float(end) for end in axis.get_view_interval())
    margin = 0.05 * (high - low)
    offset = round_offset(low + margin, high - margin)
    power = power_of_ten(low - offset + margin, high - offset - margin)
    if not power and not offset:
        return
    axis.set_major_formatter(_Plain(power, offset))
    text = axis.get_label_text()
    quantity, bracket, unit = text.rpartition(" (")
    if not bracket or not text.endswith(")"):
        quantity, unit = text, ")"
    if offset:
        quantity += f" − {offset:.0f}"
    inside = pretty_unit(unit[:-1], power)
    axis.set_label_text(f"{quantity} ({inside})" if inside else quantity)
