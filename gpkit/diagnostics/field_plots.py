"""Plots of fields on surfaces and point clouds: arrows, colours, singular points, streamlines, eigenfields, spectra.

A surface is seen from one side at a time, in parallel projection; what faces away is not drawn. Every function draws on
the axes that it is given, or on those of a new figure, and returns the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.style import BLUE, GREY, INK, ORANGE, RASTER_ABOVE, axes_or_new, label, new_figure, styled
from gpkit.errors import InvalidDataError

__all__ = [
    "View",
    "plot_eigenfields",
    "plot_field",
    "plot_field_spectrum",
    "plot_singularities",
    "plot_streamlines",
    "streamlines",
]


@dataclass(frozen=True)
class View:
    """A direction to look from, in degrees; points are seen as (right, up, towards the eye).

    Attributes:
        elevation: Above the plane of the first two coordinates.
        azimuth: From the first axis towards the second.
    """

    elevation: float = 20.0
    azimuth: float = -60.0

    @property
    def axes(self) -> FloatArray:
        """(3, 3), rows right, up and towards the eye."""
        e, a = np.radians([self.elevation, self.azimuth])
        towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([-np.sin(a), np.cos(a), 0.0])
        return np.stack([right, np.cross(towards, right), towards])

    def opposite(self) -> View:
        """From behind."""
        return View(-self.elevation, self.azimuth + 180.0)


def _in_space(points: npt.ArrayLike, *vectors: npt.ArrayLike) -> list[FloatArray]:
    """Points and vectors in three dimensions: padded with zeros, or on the three widest directions of the cloud."""
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] < 2:
        raise InvalidDataError(f"points must be (n, D) with D of at least 2, got {x.shape}")
    centred = x - x.mean(0)
    basis = np.eye(3, x.shape[1]) if x.shape[1] <= 3 else np.linalg.svd(centred, full_matrices=False)[2][:3]
    return [centred @ basis.T] + [np.asarray(v, dtype=np.float64) @ basis.T for v in vectors]


def _visible(points: FloatArray, normals: FloatArray | None, view: View) -> npt.NDArray[np.bool_]:
    if normals is None:
        return np.ones(len(points), dtype=np.bool_)
    return np.asarray(normals @ view.axes[2] > 0.05)


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
    x, v = _in_space(points, vectors)
    n = None if normals is None else np.asarray(normals, dtype=np.float64)
    seen = _visible(x, n, view)
    at, arrow = x @ view.axes.T, v @ view.axes.T
    shown = None if value is None else np.asarray(value, dtype=np.float64)
    artist: Any = None
    if shown is not None:
        low, high = (float(shown.min()), float(shown.max())) if limits is None else limits
        if diverging:
            low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
        palette = "RdBu_r" if diverging else "YlOrBr"
        colours: dict[str, Any] = {"cmap": palette, "vmin": low, "vmax": max(high, low + 1e-300)}
    if triangles is not None:
        tri = np.asarray(triangles)
        front = tri[seen[tri].sum(1) >= 2]
        order = np.argsort(at[front, 2].mean(1))
        polygons = at[front[order]][:, :, :2]
        artist = PolyCollection(list(polygons), edgecolor="face", linewidth=0.2, rasterized=True)
        if shown is None:
            artist.set_facecolor("0.93")
        else:
            artist.set(array=shown[front[order]].mean(1), cmap=colours["cmap"], clim=(colours["vmin"], colours["vmax"]))
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
        true = _in_space(points, truth)[1] @ view.axes.T
        ax.quiver(*at[chosen, :2].T, *true[chosen, :2].T, color=GREY, alpha=0.9, label="truth", **quiver)
    chosen = chosen[length[chosen] > 0.0]
    ax.quiver(*at[chosen, :2].T, *arrow[chosen, :2].T, color=INK, label="mean", **quiver)
    if artist is not None and shown is not None and ax.figure is not None:
        bar = ax.figure.colorbar(artist, ax=ax, shrink=0.75, pad=0.02)
        bar.set_label(label(value_label))
    _bare(ax, at)
    return ax


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
    vectors: npt.ArrayLike | None = None,
    triangles: npt.ArrayLike | None = None,
    normals: npt.ArrayLike | None = None,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Singular points over a field: discs for positive indices, squares for negative ones, labelled by probability.

    Args:
        points: (n, D).
        locations: (s, D).
        indices: (s,).
        probabilities: (s,), written beside the marks and their opacity.
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
    at = _in_space(raw, where - raw.mean(0))[1] @ view.axes.T
    index = np.asarray(indices)
    chance = np.ones(len(index)) if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    nearest = cKDTree(raw).query(where)[1] if len(where) else np.zeros(0, dtype=np.int64)
    seen = np.ones(len(index), dtype=np.bool_)
    if normals is not None:
        seen = np.asarray(np.asarray(normals)[nearest] @ view.axes[2] > 0.05)
    for row in np.flatnonzero(seen):
        mark, colour = ("o", ORANGE) if index[row] > 0 else ("s", BLUE)
        ax.plot(*at[row, :2], mark, ms=7, mfc=colour, mec="white", mew=0.8, alpha=0.35 + 0.65 * chance[row], zorder=4)
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


def streamlines(
    points: npt.ArrayLike,
    vectors: npt.ArrayLike,
    *,
    frames: npt.ArrayLike,
    count: int = 60,
    steps: int = 60,
    seed: int = 0,
) -> list[FloatArray]:
    """Evenly spaced curves (each (steps, D) at most) along a tangent field, from upstream to downstream.

    They are followed both ways from starts that are far from each other. Between nodes the field is the mean of the
    nearest ones, weighted by distance; every step is brought back to the tangent plane of the nearest node. A curve
    ends where it leaves the cloud, reaches a singular point, closes, or comes close to a curve that was drawn before.

    Args:
        points: (n, D).
        vectors: (n, D).
        frames: Tangent frames (n, D, d).
        count: Number of curves at most.
        steps: Steps of each, half a spacing of the nodes long.
        seed: Of the first start.

    References:
        Jobard & Lefer (1997), Visualization in Scientific Computing (evenly spaced streamlines).
    """
    x = np.asarray(points, dtype=np.float64)
    tree = cKDTree(x)
    count = min(count, len(x))
    starts = [int(np.random.default_rng(seed).integers(len(x)))]
    reach = np.linalg.norm(x - x[starts[0]], axis=1)
    while len(starts) < count:
        starts.append(int(reach.argmax()))
        reach = np.minimum(reach, np.linalg.norm(x - x[starts[-1]], axis=1))
    down, up = (_followed(tree, vectors, frames, x[starts], steps // 2, way) for way in (1.0, -1.0))
    apart = 0.5 * float(reach.max())
    drawn: list[FloatArray] = []
    taken: cKDTree | None = None
    for ahead, behind in zip(down, up, strict=True):
        if taken is not None:
            ahead, behind = (half[: _clear(half, taken, apart)] for half in (ahead, behind))
        path = np.concatenate([behind[:0:-1], ahead])
        path = path[: _open(path, apart)]
        if len(path) >= 4:
            drawn.append(path)
            taken = cKDTree(np.concatenate(drawn))
    return drawn


def _clear(path: FloatArray, taken: cKDTree, apart: float) -> int:
    """Number of steps before a curve comes close to others."""
    close = np.flatnonzero(taken.query(path)[0] < apart)
    return int(close[0]) if close.size else len(path)


def _open(path: FloatArray, apart: float) -> int:
    """Number of steps before a curve comes back to itself."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    gap = np.linalg.norm(path[:, None] - path[None], axis=2)
    back = np.flatnonzero(((gap < 0.5 * apart) & (along[:, None] - along[None] > 2.0 * apart)).any(1))
    return int(back[0]) if back.size else len(path)


def _followed(
    tree: cKDTree, vectors: npt.ArrayLike, frames: npt.ArrayLike, starts: FloatArray, steps: int, way: float
) -> list[FloatArray]:
    """Curves from places along a field (way 1) or against it (-1)."""
    x, v = np.asarray(tree.data), way * np.asarray(vectors, dtype=np.float64)
    t = np.asarray(frames, dtype=np.float64)
    spacing = float(np.median(tree.query(x, 2)[0][:, 1])) if len(x) > 1 else 1.0

    length = np.linalg.norm(v, axis=1)

    def along(at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Directions, and how much the nearest vectors agree about them (1 if they are parallel)."""
        distance, near = (found.reshape(len(at), -1) for found in tree.query(at, min(6, len(x))))
        weight = 1.0 / (distance**2 + (0.3 * spacing) ** 2)
        mean = np.einsum("mk,mkD->mD", weight, v[near])
        size = np.linalg.norm(mean, axis=1)
        agreement = size / np.maximum((weight * length[near]).sum(1), 1e-300)
        return mean / np.maximum(size, 1e-300)[:, None], agreement

    now, paths, alive = starts, [starts], np.ones(len(starts), dtype=np.bool_)
    before, _ = along(now)
    for _ in range(steps):
        after = now + 0.5 * spacing * along(now + 0.25 * spacing * before)[0]
        distance, near = tree.query(after)
        after = x[near] + np.einsum("mDa,mEa,mE->mD", t[near], t[near], after - x[near])
        ahead, agreement = along(after)
        # Around singular points the vectors point every way, and curves turn back on themselves.
        alive = alive & (distance < 3.0 * spacing) & (agreement > 0.5) & ((before * ahead).sum(1) > 0.0)
        paths.append(np.where(alive[:, None], after, np.nan))
        now, before = np.where(alive[:, None], after, starts), ahead
    return [path[np.isfinite(path[:, 0])] for path in np.stack(paths, axis=1)]


@styled
def plot_streamlines(
    points: npt.ArrayLike,
    vectors: npt.ArrayLike,
    *,
    frames: npt.ArrayLike,
    normals: npt.ArrayLike | None = None,
    triangles: npt.ArrayLike | None = None,
    count: int = 90,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Streamlines of a tangent field seen from one side; they darken along the flow."""
    view = View() if view is None else view
    field = np.zeros_like(np.asarray(points, dtype=np.float64))
    ax = plot_field(points, field, triangles=triangles, normals=normals, view=view, arrows=1, ax=ax)
    raw = np.asarray(points, dtype=np.float64)
    tree = cKDTree(raw)
    for path in streamlines(points, vectors, frames=frames, count=count, steps=160):
        at = _in_space(raw, path - raw.mean(0))[1] @ view.axes.T
        pieces = np.stack([at[:-1, :2], at[1:, :2]], axis=1)
        keep = np.ones(len(pieces), dtype=np.bool_)
        if normals is not None and len(path) > 1:
            keep = np.asarray(np.asarray(normals)[tree.query(path[1:])[1]] @ view.axes[2] > 0.05)
        shade = np.linspace(0.15, 1.0, max(len(pieces), 1))[: len(pieces)][keep]
        ax.add_collection(LineCollection(list(pieces[keep]), colors=[(0.0, 0.2, 0.45, a) for a in shade], lw=0.9))
    return ax


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
        ax.set_title(f"λ = {eigenvalue:.3g}", fontsize=8)
    return figure


@styled
def plot_field_spectrum(
    eigenvalues: npt.ArrayLike,
    variances: npt.ArrayLike | None = None,
    *,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Eigenvalues by number, and the share of the variance that a filter gives to each mode.

    Args:
        eigenvalues: (k,).
        variances: (k,), of the weights under the fitted kernel.
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
        twin = ax.twinx()
        twin.plot(number, share / share.sum(), color=BLUE, lw=1.1)
        twin.set_yscale("log")
        twin.set_ylim(max(float((share / share.sum()).max()) * 1e-6, 1e-12), None)
        twin.set_ylabel("Share of variance", color=BLUE)
    return ax
