"""Streamlines of tangent fields on clouds of points: evenly spaced, from upstream to downstream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from gpkit.diagnostics.arrays import FloatArray

__all__ = ["streamlines"]

_TOGETHER = 12
"""Trees of single curves before they are made one."""


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
    taken: list[cKDTree] = []  # of the curves so far, some of them together
    for ahead, behind in zip(down, up, strict=True):
        ahead, behind = (half[: _clear(half, taken, apart)] for half in (ahead, behind))
        path = np.concatenate([behind[:0:-1], ahead])
        path = path[: _open(path, apart)]
        if len(path) >= 4:
            drawn.append(path)
            taken.append(cKDTree(path))
            if len(taken) == _TOGETHER:
                taken = [cKDTree(np.concatenate(drawn))]
    return drawn


def _clear(path: FloatArray, taken: list[cKDTree], apart: float) -> int:
    """Number of steps before a curve comes close to others."""
    for others in taken:
        close = np.flatnonzero(others.query(path, distance_upper_bound=apart)[0] < apart)
        path = path[: close[0]] if close.size else path
    return len(path)


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
