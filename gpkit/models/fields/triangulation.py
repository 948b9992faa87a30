"""Triangles of oriented surfaces that are known by points only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, cKDTree

from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold, Mesh

__all__ = ["euler_characteristic", "surface_triangles"]

Integers = NDArray[np.int64]

_LARGEST_HOLE = 10
"""Edges of a gap between triangles that is closed; longer ones are borders of the surface."""


def surface_triangles(manifold: Manifold) -> Integers:
    """Oriented triangles (T, 3) of a surface: the faces of a mesh; for a cloud, those that tangent planes agree on.

    For each node of a cloud its neighbours are projected to its tangent plane and triangulated (Delaunay). Triangles
    enter in the order of the number of their corners that found them, as long as every edge is used once in each
    direction; small gaps that are left are closed. Where the cloud is well sampled the surface is covered once.

    Raises:
        InvalidDataError: not an oriented surface.
    """
    if manifold.dim != 2 or not manifold.orientable:
        what = f"dimension {manifold.dim}" if manifold.dim != 2 else "no orientation that fits all edges"
        raise InvalidDataError(f"triangles belong to oriented surfaces, and this manifold has {what}")
    if isinstance(manifold, Mesh):
        return _oriented(manifold, np.asarray(manifold.faces, dtype=np.int64))
    kept, votes = _proposed(manifold)
    return _close_gaps(_assemble(_oriented(manifold, kept), votes))


def _proposed(manifold: Manifold, neighbours: int = 24) -> tuple[Integers, Integers]:
    """Triangles (T, 3) of all tangent planes, and how many of their corners found each."""
    count = min(neighbours, manifold.n - 1)
    if count < 3:
        return np.zeros((0, 3), dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, near = cKDTree(manifold.points).query(manifold.points, count + 1)
    found = []
    for node in range(manifold.n):
        local = near[node][near[node] != node][:count]
        steps = manifold.points[local] - manifold.points[node]
        flat = steps @ manifold.frames[node]
        # What lies on another sheet is nearer in space than along the tangent plane.
        height = np.linalg.norm(steps - flat @ manifold.frames[node].T, axis=1)
        same = height < np.linalg.norm(flat, axis=1)
        local, flat = local[same], flat[same]
        if len(local) < 3:
            continue
        simplices = Delaunay(np.concatenate([np.zeros((1, 2)), flat]), qhull_options="Qbb Qc QJ Pp").simplices
        around = simplices[(simplices == 0).any(1)]
        found.append(np.sort(np.concatenate([[node], local])[around], axis=1))
    if not found:
        return np.zeros((0, 3), dtype=np.int64), np.zeros(0, dtype=np.int64)
    kept, votes = np.unique(np.concatenate(found), axis=0, return_counts=True)
    return kept.astype(np.int64), votes.astype(np.int64)


def _assemble(triangles: Integers, votes: Integers) -> Integers:
    """Triangles that use each edge at most once in each direction, those of most votes first."""
    used: set[tuple[int, int]] = set()
    out = []
    for number in np.argsort(-votes, kind="stable"):
        a, b, c = triangles[number].tolist()
        sides = ((a, b), (b, c), (c, a))
        if votes[number] > 1 and not used.intersection(sides):
            used.update(sides)
            out.append((a, b, c))
    return np.array(out, dtype=np.int64).reshape(-1, 3)


def _close_gaps(triangles: Integers) -> Integers:
    """Fill short loops of edges that have a triangle on one side only by fans."""
    used = {pair for a, b, c in triangles.tolist() for pair in ((a, b), (b, c), (c, a))}
    # A gap lies on the other side of these edges: it is walked against their direction.
    following: dict[int, list[int]] = {}
    for a, b in used:
        if (b, a) not in used:
            following.setdefault(b, []).append(a)
    extra = []
    while following:
        start = next(iter(following))
        loop = [start]
        while True:
            ends = following.get(loop[-1])
            if not ends:
                break
            nearest = ends.pop()
            if not ends:
                del following[loop[-1]]
            if nearest in loop:
                gap = loop[loop.index(nearest) :]
                if 3 <= len(gap) <= _LARGEST_HOLE:
                    fan = _fan(gap, used)
                    extra += fan
                    used |= {pair for a, b, c in fan for pair in ((a, b), (b, c), (c, a))}
                loop = loop[: loop.index(nearest) + 1]
                if nearest not in following:
                    break
                continue
            loop.append(nearest)
    return np.concatenate([triangles, np.array(extra, dtype=np.int64).reshape(-1, 3)])


def _fan(gap: list[int], used: set[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Triangles that fill a loop of nodes, from the first corner whose diagonals are no edges yet."""
    for shift in range(len(gap)):
        loop = gap[shift:] + gap[:shift]
        diagonals = [(loop[0], node) for node in loop[2:-1]]
        if not any(pair in used or pair[::-1] in used for pair in diagonals):
            return [(loop[0], loop[k], loop[k + 1]) for k in range(1, len(loop) - 1)]
    return []


def _oriented(manifold: Manifold, triangles: Integers) -> Integers:
    """Corners in the positive sense of the frames, by the sign of the area in the first corner's tangent plane."""
    if not len(triangles):
        return triangles
    a, b, c = (manifold.points[triangles[:, k]] for k in range(3))
    frames = manifold.frames[triangles[:, 0]]
    u, v = np.einsum("tDa,tD->ta", frames, b - a), np.einsum("tDa,tD->ta", frames, c - a)
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    out = triangles.copy()
    out[area < 0.0, 1:] = triangles[area < 0.0][:, [2, 1]]
    return out


def euler_characteristic(triangles: Integers) -> tuple[int, bool]:
    """Vertices minus edges plus triangles, and whether every edge has two triangles."""
    if not len(triangles):
        return 0, False
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return int(len(np.unique(triangles)) - len(unique) + len(triangles)), bool((count == 2).all())
