"""Plots of fields on surfaces and point clouds: arrows, colours, singular points, streamlines, eigenfields, spectra.

A surface is seen from one side at a time, in parallel projection; arrows and marks that face away or are behind another
part of it are not drawn. Every function draws on the axes that it is given, or on those of a new figure, and returns
the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from gpkit.diagnostics.arrays import FloatArray, IntArray
from gpkit.diagnostics.field_views import Horizon, View, in_space, lit
from gpkit.diagnostics.streamlines import streamlines
from gpkit.diagnostics.style import BLUE, GREY, INK, ORANGE, RASTER_ABOVE, axes_or_new, label, new_figure, styled

__all__ = [
    "View",
    "eigenvalue_title",
    "plot_eigenfields",
    "plot_field",
    "plot_field_spectrum",
    "plot_singularities",
    "plot_streamlines",
    "streamlines",
]


_LABELLED = 15
"""Singular points on one side up to which their labels can be read."""


@styled
def plot_field(
    points: npt.ArrayLike,
    vectors: npt.ArrayLike,
    *,
    triangles: npt.ArrayLike | None = None,
    normals: npt.ArrayLike | None = None,
    value: npt.ArrayLike | None = None,
    value_label: str = "",
    truth: npt.ArrayLike | None = None,
    observed: npt.ArrayLike | None = None,
    diverging: bool = False,
    arrows: int = 350,
    limits: tuple[float, float] | None = None,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Arrows of a field seen from one side, over colours of a number such as its standard deviation.

    Args:
        points: (n, D).
        vectors: (n, D); None entries are not allowed, zeros draw no arrow.
        triangles: Node numbers (T, 3) of the surface, filled with the colours of the value.
        normals: Outward normals (n, 3), by which the far side is hidden.
        value: (n,), shown as colour.
        value_label: Label of the colour bar.
        truth: True vectors (n, D), drawn in grey under the others.
        observed: Node numbers of observed points, marked by dots.
        diverging: Whether the value has a sign: colours are then symmetric about zero.
        arrows: About how many arrows to draw.
        limits: Range of the colours; that of the values if not given.
        view: Direction to look from.
        ax: Where to draw.
    """
    ax = axes_or_new(ax, 4.4, 4.0)
    view = View() if view is None else view
    x, v = in_space(points, vectors)
    at, arrow = x @ view.axes.T, v @ view.axes.T
    seen = _horizon(at, triangles, normals, view).shows(at, np.arange(len(at)))
    shown = None if value is None else np.asarray(value, dtype=np.float64)
    artist: Any = None
    if shown is not None:
        # A few extreme nodes do not take the colours from all the others.
        low, high = (float(q) for q in np.quantile(shown, (0.002, 0.998))) if limits is None else limits
        if diverging:
            low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
        palette = "RdBu_r" if diverging else "YlOrBr"
        colours: dict[str, Any] = {"cmap": palette, "vmin": low, "vmax": max(high, low + 1e-300)}
    if triangles is not None:
        tri = np.asarray(triangles)
        tri = tri[np.argsort(at[tri, 2].mean(1))]  # the nearest last, over what it hides
        corners = at[tri]
        artist = PolyCollection(list(corners[:, :, :2]), edgecolor="face", linewidth=0.2, rasterized=True)
        if shown is None:
            plain = np.tile(to_rgba("0.95"), (len(tri), 1))
            artist.set_facecolor(lit(plain, corners, 0.75))
        else:
            artist.set(cmap=colours["cmap"], clim=(colours["vmin"], colours["vmax"]))
            shade = Normalize(colours["vmin"], colours["vmax"])(shown[tri].mean(1))
            artist.set_facecolor(lit(colormaps[colours["cmap"]](shade), corners, 0.85))
        ax.add_collection(artist)
    elif shown is not None:
        order = np.flatnonzero(seen)[np.argsort(at[seen, 2])]
        size = 12.0 * min(1.0, (600.0 / max(len(x), 1)) ** 0.5)
        artist = ax.scatter(at[order, 0], at[order, 1], c=shown[order], s=size, lw=0, rasterized=True, **colours)
    if observed is not None:
        dots = np.asarray(observed)[seen[np.asarray(observed)]]
        size = 4.0 * min(1.0, (300.0 / max(len(dots), 1)) ** 0.5)
        ax.plot(at[dots, 0], at[dots, 1], "o", ms=size, mfc="white", mec=INK, mew=0.6, zorder=2.2, label="observed")
    chosen = np.flatnonzero(seen)
    step = max(1, len(chosen) // max(arrows, 1))
    chosen = chosen[::step]
    length = np.linalg.norm(arrow[:, :2], axis=1)
    reach = 1.6 * float(np.ptp(at[:, :2], axis=0).max()) / np.sqrt(max(len(chosen), 1))
    scale = max(float(np.quantile(length, 0.95)), 1e-300) / reach
    quiver: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": scale, "width": 0.0035, "zorder": 3}
    if truth is not None:
        true = in_space(points, truth)[1] @ view.axes.T
        ax.quiver(*at[chosen, :2].T, *true[chosen, :2].T, color=GREY, alpha=0.9, label="truth", **quiver)
    chosen = chosen[length[chosen] > 0.0]
    ax.quiver(*at[chosen, :2].T, *arrow[chosen, :2].T, color=INK, label="mean", **quiver)
    if artist is not None and shown is not None and ax.figure is not None:
        bar = ax.figure.colorbar(artist, ax=ax, shrink=0.75, pad=0.02)
        bar.set_label(label(value_label))
    _bare(ax, at)
    return ax


def _horizon(at: FloatArray, triangles: Any, normals: Any, view: View) -> Horizon:
    """What can be seen, for nodes (n, 3) in the axes of a view."""
    turned = None if normals is None else np.asarray(normals, dtype=np.float64) @ view.axes.T
    return Horizon(at, None if triangles is None else np.asarray(triangles), turned)


def _bare(ax: Axes, at: FloatArray) -> None:
    margin = 0.04 * float(np.ptp(at[:, :2], axis=0).max())
    ax.set_xlim(at[:, 0].min() - margin, at[:, 0].max() + margin)
    ax.set_ylim(at[:, 1].min() - margin, at[:, 1].max() + margin)
    ax.set_aspect("equal")
    ax.set_axis_off()


@styled
def plot_singularities(
    points: npt.ArrayLike,
    locations: npt.ArrayLike,
    indices: npt.ArrayLike,
    probabilities: npt.ArrayLike | None = None,
    *,
    in_mean: npt.ArrayLike | None = None,
    vectors: npt.ArrayLike | None = None,
    triangles: npt.ArrayLike | None = None,
    normals: npt.ArrayLike | None = None,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Singular points over a field: discs for positive indices, squares for negative ones, labelled by probability.

    Hollow marks are of points that draws have and the mean field does not. Where more than fifteen can be seen, their
    marks have no labels.

    Args:
        points: (n, D).
        locations: (s, D).
        indices: (s,).
        probabilities: (s,), written beside the marks and their opacity.
        in_mean: (s,), whether the mean field has them; all if not given.
        vectors: Field (n, D), drawn as arrows; none if not given.
        triangles: Of the surface.
        normals: Outward normals (n, 3), by which the far side is hidden.
        view: Direction to look from.
        ax: Where to draw.
    """
    view = View() if view is None else view
    field = np.zeros_like(np.asarray(points, dtype=np.float64)) if vectors is None else vectors
    ax = plot_field(points, field, triangles=triangles, normals=normals, view=view, arrows=250, ax=ax)
    raw = np.asarray(points, dtype=np.float64)
    where = np.asarray(locations, dtype=np.float64).reshape(-1, raw.shape[1])
    nodes, at = (found @ view.axes.T for found in in_space(raw, where - raw.mean(0)))
    index = np.asarray(indices)
    chance = np.ones(len(index)) if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    nearest = cKDTree(raw).query(where)[1] if len(where) else np.zeros(0, dtype=np.int64)
    seen = np.flatnonzero(_horizon(nodes, triangles, normals, view).shows(at, nearest))
    filled = np.ones(len(index), dtype=np.bool_) if in_mean is None else np.asarray(in_mean, dtype=np.bool_)
    for row in seen:
        mark, colour = ("o", ORANGE) if index[row] > 0 else ("s", BLUE)
        look: Any = (
            {"mfc": colour, "mec": "white", "mew": 0.8} if filled[row] else {"mfc": "white", "mec": colour, "mew": 1.3}
        )
        ax.plot(*at[row, :2], mark, ms=7, alpha=0.35 + 0.65 * chance[row], zorder=4, **look)
        if len(seen) > _LABELLED:
            continue
        text = f"{index[row]:+d}" + (f"  {chance[row]:.2f}" if probabilities is not None else "")
        ax.annotate(
            text.replace("-", "−"),
            (float(at[row, 0]), float(at[row, 1])),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=7.5,
            zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
        )
    return ax


@styled
def plot_streamlines(
    points: npt.ArrayLike,
    vectors: npt.ArrayLike,
    *,
    frames: npt.ArrayLike,
    normals: npt.ArrayLike | None = None,
    triangles: npt.ArrayLike | None = None,
    count: int = 160,
    paths: Sequence[FloatArray] | None = None,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Streamlines of a tangent field seen from one side; they darken along the flow, and have an arrow head each.

    Args:
        points: (n, D).
        vectors: (n, D).
        frames: Tangent frames (n, D, d).
        normals: Outward normals (n, 3), by which the far side is hidden.
        triangles: Of the surface.
        count: Number of curves at most.
        paths: The curves, if :func:`streamlines` has made them before, for another side.
        view: Direction to look from.
        ax: Where to draw.
    """
    view = View() if view is None else view
    field = np.zeros_like(np.asarray(points, dtype=np.float64))
    ax = plot_field(points, field, triangles=triangles, normals=normals, view=view, arrows=1, ax=ax)
    raw = np.asarray(points, dtype=np.float64)
    tree = cKDTree(raw)
    horizon = _horizon(in_space(raw)[0] @ view.axes.T, triangles, normals, view)
    curves = streamlines(points, vectors, frames=frames, count=count, steps=160) if paths is None else paths
    for path in curves:
        at = in_space(raw, path - raw.mean(0))[1] @ view.axes.T
        pieces = np.stack([at[:-1, :2], at[1:, :2]], axis=1)
        keep = horizon.shows(at, tree.query(path)[1])[1:]
        shade = np.linspace(0.15, 1.0, max(len(pieces), 1))[: len(pieces)][keep]
        ax.add_collection(LineCollection(list(pieces[keep]), colors=[(0.0, 0.2, 0.45, a) for a in shade], lw=0.9))
        _head(ax, at, np.flatnonzero(keep))
    return ax


def _head(ax: Axes, at: FloatArray, visible: IntArray) -> None:
    """An arrow head in the middle of what can be seen of a curve (m, 3)."""
    if len(visible) < 4:
        return
    step = int(visible[2 * len(visible) // 3])
    turn = float(np.degrees(np.arctan2(*(at[step + 1] - at[step])[1::-1])))
    ax.plot(*at[step, :2], marker=(3, 0, turn - 90.0), ms=4.5, mfc=(0.0, 0.2, 0.45), mec="none", zorder=3)


@styled
def plot_eigenfields(
    points: npt.ArrayLike,
    fields: Sequence[npt.ArrayLike],
    eigenvalues: Sequence[float],
    *,
    normals: npt.ArrayLike | None = None,
    triangles: npt.ArrayLike | None = None,
    columns: int = 4,
    view: View | None = None,
) -> Figure:
    """A gallery of eigenfields (each (n, D)) with their eigenvalues."""
    rows = -(-len(fields) // columns)
    figure = new_figure(2.0 * columns, 2.1 * rows)
    for number, (field, eigenvalue) in enumerate(zip(fields, eigenvalues, strict=True)):
        ax = figure.add_subplot(rows, columns, number + 1)
        plot_field(points, field, normals=normals, triangles=triangles, view=view, arrows=160, ax=ax)
        ax.set_title(eigenvalue_title(eigenvalue, max(eigenvalues)), fontsize=8)
    return figure


def eigenvalue_title(eigenvalue: float, largest: float) -> str:
    """An eigenvalue for the title of a picture, zero where it is that but for rounding."""
    return f"λ = {0.0 if abs(eigenvalue) < 1e-9 * largest else eigenvalue:.3g}"


@styled
def plot_field_spectrum(
    eigenvalues: npt.ArrayLike,
    variances: npt.ArrayLike | None = None,
    *,
    total: float | None = None,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Eigenvalues by number, and the share of the variance that a filter gives to each mode.

    Args:
        eigenvalues: (k,).
        variances: (k,), of the weights under the fitted kernel.
        total: Variance of which they are shares; their sum if not given.
        unit: Unit of length.
        ax: Where to draw.
    """
    ax = axes_or_new(ax, 5.2, 2.8)
    values = np.asarray(eigenvalues, dtype=np.float64)
    number = np.arange(1, len(values) + 1)
    ax.plot(number, values, ".", ms=3, color=INK, rasterized=len(values) > RASTER_ABOVE)
    ax.set_xlabel("Mode")
    ax.set_ylabel(label("Eigenvalue λ", f"1/{unit}^2" if unit else ""))
    if variances is not None:
        share = np.asarray(variances, dtype=np.float64)
        share = share / (share.sum() if total is None else total)
        twin = ax.twinx()
        twin.plot(number, share, color=BLUE, lw=1.1)
        twin.set_yscale("log")
        twin.set_ylim(max(float(share.max()) * 1e-6, 1e-12), None)
        twin.set_ylabel("Share of variance", color=BLUE)
    return ax
