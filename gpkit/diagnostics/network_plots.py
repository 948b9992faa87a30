"""Plots of networks: values on nodes, flows along edges, and places on paper for nodes that have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.field_views import View, in_space
from gpkit.diagnostics.style import GREY, INK, axes_or_new, label, styled
from gpkit.errors import InvalidDataError

__all__ = ["network_layout", "plot_flow", "plot_node_values"]

_LANDMARKS = 200
"""Nodes from which distances are computed for a layout."""
_ARROWS = 600
"""Edges up to which each has an arrow head; beyond, as many with the largest flows."""


def network_layout(nodes: int, edges: npt.ArrayLike) -> FloatArray:
    """Places (nodes, 2) for a picture, at distances like the numbers of edges between nodes.

    Classical scaling of the shortest paths from a few landmarks, each as far as can be from those before it. The same
    network always gets the same places. Parts that are not connected are put side by side.

    Args:
        nodes: Number of nodes.
        edges: (E, 2).

    References:
        de Silva, V. and Tenenbaum, J. B., Sparse multidimensional scaling using landmark points, Stanford (2004).
    """
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    graph = sparse.csr_matrix((np.ones(len(pairs)), pairs.T), shape=(nodes, nodes))
    rows = [dijkstra(graph, directed=False, indices=0, unweighted=True)]
    landmarks = [0]
    nearest = rows[0].copy()
    while len(landmarks) < min(_LANDMARKS, nodes):
        pick = int(nearest.argmax())
        if nearest[pick] == 0.0:
            break
        landmarks.append(pick)
        rows.append(dijkstra(graph, directed=False, indices=pick, unweighted=True))
        nearest = np.minimum(nearest, rows[-1])
    distance = np.stack(rows)
    finite = distance[np.isfinite(distance)]
    distance[~np.isfinite(distance)] = 1.5 * float(finite.max(initial=1.0)) + 1.0
    squares = np.square(distance)
    among = squares[:, landmarks]
    centre = among.mean(1)
    gram = -0.5 * (among - centre[:, None] - centre[None, :] + among.mean())
    values, vectors = np.linalg.eigh(gram)
    top = np.argsort(values)[::-1][:2]
    wide = values[top] > 1e-9 * max(float(values.max()), 1e-300)  # a path has one direction only
    scaled = np.where(wide, vectors[:, top] / np.sqrt(np.where(wide, values[top], 1.0)), 0.0)
    places = -0.5 * (squares - centre[:, None]).T @ scaled
    if places.shape[1] < 2:
        places = np.concatenate([places, np.zeros((nodes, 2 - places.shape[1]))], axis=1)
    signs = np.where(places[np.abs(places).argmax(0), [0, 1]] < 0.0, -1.0, 1.0)
    return np.asarray(places * signs)


def _seen(points: npt.ArrayLike, view: View | None) -> FloatArray:
    """Places (n, 2) on paper."""
    raw = np.asarray(points, dtype=np.float64)
    direction = (View(90.0, -90.0) if raw.shape[1] == 2 else View()) if view is None else view
    return np.asarray((in_space(raw)[0] @ direction.axes.T)[:, :2])


def _range(values: FloatArray, diverging: bool) -> tuple[str, float, float]:
    """Colours, and the values at their ends."""
    low, high = (float(q) for q in np.quantile(values, (0.002, 0.998)))
    if diverging:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    return "RdBu_r" if diverging else "YlOrBr", low, max(high, low + 1e-300)


def _finish(ax: Axes, at: FloatArray, artist: Any, text: str) -> None:
    margin = 0.05 * max(float(np.ptp(at, axis=0).max()), 1e-300)
    ax.set_xlim(at[:, 0].min() - margin, at[:, 0].max() + margin)
    ax.set_ylim(at[:, 1].min() - margin, at[:, 1].max() + margin)
    ax.set_aspect("equal")
    ax.set_axis_off()
    if artist is not None and ax.figure is not None:
        ax.figure.colorbar(artist, ax=ax, shrink=0.75, pad=0.02).set_label(label(text))


@styled
def plot_node_values(
    points: npt.ArrayLike,
    edges: npt.ArrayLike,
    value: npt.ArrayLike,
    *,
    value_label: str = "",
    diverging: bool = False,
    observed: npt.ArrayLike | None = None,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Nodes coloured by a value over the edges of their network; observed nodes have a dark rim.

    Args:
        points: Places of the nodes, (n, 2) or (n, 3).
        edges: (E, 2).
        value: (n,).
        value_label: Label of the colour bar.
        diverging: Whether the value has a sign: colours are then symmetric about zero.
        observed: Node numbers.
        view: Direction to look from, for places in space.
        ax: Where to draw.
    """
    ax = axes_or_new(ax, 4.6, 4.0)
    at = _seen(points, view)
    shown = np.asarray(value, dtype=np.float64)
    if len(shown) != len(at):
        raise InvalidDataError(f"there are {len(at)} nodes and {len(shown)} values")
    lines = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    width = 0.8 * min(1.0, (800.0 / max(len(lines), 1)) ** 0.5)
    ax.add_collection(LineCollection(list(at[lines]), colors=[GREY], alpha=0.5, lw=width, zorder=1, rasterized=True))
    palette, low, high = _range(shown, diverging)
    size = 34.0 * min(1.0, (200.0 / max(len(at), 1)) ** 0.7)
    rim = np.zeros(len(at), dtype=np.bool_)
    if observed is not None:
        rim[np.asarray(observed, dtype=np.int64)] = True
    edge = np.where(rim, 0.9, 0.15)
    colours: dict[str, Any] = {"cmap": palette, "vmin": low, "vmax": high, "edgecolors": INK, "rasterized": True}
    artist = ax.scatter(at[:, 0], at[:, 1], c=shown, s=size, lw=edge * min(1.0, size / 12.0), zorder=2, **colours)
    _finish(ax, at, artist, value_label)
    return ax


@styled
def plot_flow(
    points: npt.ArrayLike,
    edges: npt.ArrayLike,
    flow: npt.ArrayLike,
    *,
    value: npt.ArrayLike | None = None,
    value_label: str = "",
    observed: npt.ArrayLike | None = None,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Flow along the edges: width is its size, an arrow head its direction, colour a number such as its deviation.

    Args:
        points: Places of the nodes, (n, 2) or (n, 3).
        edges: (E, 2).
        flow: (E,), positive from the first to the second node.
        value: (E,), not negative, shown as colour; the size of the flow if not given.
        value_label: Label of the colour bar.
        observed: Edge numbers, marked by a dot at a quarter of the edge.
        view: Direction to look from, for places in space.
        ax: Where to draw.
    """
    ax = axes_or_new(ax, 4.6, 4.0)
    at = _seen(points, view)
    lines = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    size = np.abs(np.asarray(flow, dtype=np.float64))
    if len(size) != len(lines):
        raise InvalidDataError(f"there are {len(lines)} edges and {len(size)} flows")
    start = np.where(np.asarray(flow) >= 0.0, lines[:, 0], lines[:, 1])
    end = np.where(np.asarray(flow) >= 0.0, lines[:, 1], lines[:, 0])
    shown = size if value is None else np.asarray(value, dtype=np.float64)
    name, low, high = _range(shown, False)
    palette = ListedColormap(colormaps[name](np.linspace(0.15, 1.0, 256)))  # its palest are lost on white
    dense = min(1.0, (400.0 / max(len(lines), 1)) ** 0.5)
    share = size / max(float(np.quantile(size, 0.98)), 1e-300)
    segments = list(np.stack([at[start], at[end]], axis=1))
    width = dense * (0.5 + 3.0 * np.minimum(share, 1.2))
    # A rim, without which the palest colours cannot be seen on white.
    ax.add_collection(
        LineCollection(segments, colors=[GREY], linewidths=width + 0.9 * dense, zorder=0.9, rasterized=True)
    )
    artist = LineCollection(segments, linewidths=width, cmap=palette, zorder=1, rasterized=True)
    artist.set_array(shown)
    artist.set_clim(low, high)
    ax.add_collection(artist)
    for edge in np.argsort(-size)[:_ARROWS]:
        if share[edge] < 0.03:
            break
        step = at[end[edge]] - at[start[edge]]
        turn = float(np.degrees(np.arctan2(step[1], step[0])))
        place = at[start[edge]] + 0.62 * step
        mark = dense * (2.0 + 4.5 * min(float(share[edge]), 1.2))
        ax.plot(*place, marker=(3, 0, turn - 90.0), ms=mark, mfc=INK, mec="none", zorder=2)
    if observed is not None:
        chosen = np.asarray(observed, dtype=np.int64)
        quarter = 0.75 * at[lines[chosen, 0]] + 0.25 * at[lines[chosen, 1]]
        ax.plot(*quarter.T, "o", ms=3.2 * dense, mfc="white", mec=INK, mew=0.5, ls="none", zorder=2.5)
    _finish(ax, at, artist, value_label)
    return ax
