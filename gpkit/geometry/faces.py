"""Triangles of meshes: checks and repairs, winding, areas, normals, cotangents, nearest places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from gpkit.errors import InvalidDataError
from gpkit.geometry.checks import Floats, Integers, some
from gpkit.geometry.neighbours import component_labels

__all__ = [
    "Winding",
    "as_faces",
    "cotangent_edges",
    "face_areas",
    "nearest_on_triangles",
    "repaired",
    "vertex_normals",
    "wind",
]


def as_faces(faces: Any, n: int) -> Integers:
    """Triangles (F, 3) of vertex numbers.

    Raises:
        InvalidDataError: another shape, numbers that are not whole or out of range.
    """
    array = np.asarray(faces)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        raise InvalidDataError(f"faces must have shape (F, 3) with at least one triangle, got {array.shape}")
    if not np.issubdtype(array.dtype, np.number) or not np.array_equal(array, np.asarray(array, dtype=np.int64)):
        raise InvalidDataError("faces must hold whole vertex numbers")
    numbers = array.astype(np.int64)
    outside = (numbers < 0) | (numbers >= n)
    if outside.any():
        row = int(np.flatnonzero(outside.any(1))[0])
        raise InvalidDataError(
            f"face {row} names vertices {numbers[row].tolist()}, but there are vertices 0 to {n - 1}"
        )
    return numbers


def repaired(vertices: Floats, faces: Integers) -> tuple[Integers, Integers, Integers, list[str]]:
    """Merge copies of vertices, drop degenerate and repeated faces and vertices without a face.

    Returns:
        The vertices that stay (n,), the new number of every old vertex (-1 where it went), the faces (F, 3) in new
        numbers, and what was done, in words.
    """
    notes: list[str] = []
    size = max(float(np.ptp(vertices, axis=0).max()), 1e-300)
    _, first, group = np.unique(np.round(vertices / size, 9), axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    target = first[group]
    merged = int((target != np.arange(len(vertices))).sum())
    if merged:
        notes.append(f"{merged} vertices that coincide with another one were merged")
    moved = target[faces]
    corners = vertices[moved]
    doubled = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    flat = (np.sort(moved, axis=1)[:, 1:] == np.sort(moved, axis=1)[:, :-1]).any(1) | (doubled <= 1e-14 * size**2)
    if flat.any():
        notes.append(f"{int(flat.sum())} faces without area were dropped")
    moved = moved[~flat]
    _, unique = np.unique(np.sort(moved, axis=1), axis=0, return_index=True)
    if len(unique) < len(moved):
        notes.append(f"{len(moved) - len(unique)} repeated faces were dropped")
    moved = moved[np.sort(unique)]
    kept = np.unique(moved)
    lost = len(vertices) - merged - len(kept)
    if lost:
        notes.append(f"{lost} vertices that belong to no face were dropped")
    number = np.full(len(vertices), -1)
    number[kept] = np.arange(len(kept))
    return kept, number[target], number[moved], notes


@dataclass(frozen=True, eq=False)
class Winding:
    """Faces turned the same way round.

    Attributes:
        faces: (F, 3).
        flipped: number of faces that were turned.
        orientable: whether neighbouring faces agree everywhere.
        crowded_edges: number of edges with more than two faces (the mesh is not a manifold there).
        boundary_edges: number of edges with one face.
        pinched: vertices at which parts of the surface touch that share no edge there (no manifold either).
    """

    faces: Integers
    flipped: int
    orientable: bool
    crowded_edges: int
    boundary_edges: int
    pinched: Integers


def wind(faces: Integers) -> Winding:
    """Turn faces such that every edge of two faces is run through once in each direction, where this is possible."""
    count = len(faces)
    halves = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    owner = np.tile(np.arange(count), 3)
    forward = halves[:, 0] < halves[:, 1]
    size = int(faces.max()) + 1
    keys = halves.min(1) * size + halves.max(1)
    order = np.argsort(keys, kind="stable")
    _, starts, uses = np.unique(keys[order], return_index=True, return_counts=True)
    one, two = order[starts[uses == 2]], order[starts[uses == 2] + 1]
    a, b = owner[one], owner[two]
    agree = np.where(forward[one] != forward[two], 1.0, -1.0)
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count)).tocsr()
    relation = sparse.coo_matrix((agree, (a, b)), shape=(count, count)).tocsr()
    relation = (relation + relation.T).tocsr()
    sign = np.zeros(count)
    parts, labels = sparse.csgraph.connected_components(graph, directed=False)
    for root in np.unique(labels, return_index=True)[1]:
        walk, parents = sparse.csgraph.breadth_first_order(graph, root, directed=False)
        sign[root] = 1.0
        children = walk[1:]
        steps = np.asarray(relation[parents[children], children]).ravel() if children.size else np.zeros(0)
        for child, parent, step in zip(children.tolist(), parents[children].tolist(), steps.tolist(), strict=True):
            sign[child] = sign[parent] * (1.0 if step > 0.0 else -1.0)
    orientable = bool((sign[a] * agree * sign[b] > 0.0).all())
    # Few turned faces rather than many.
    for part in range(parts):
        members = labels == part
        if (sign[members] < 0.0).sum() > (sign[members] > 0.0).sum():
            sign[members] *= -1.0
    turned = np.where((sign < 0.0)[:, None], faces[:, ::-1], faces)
    return Winding(
        turned,
        int((sign < 0.0).sum()),
        orientable,
        int((uses > 2).sum()),
        int((uses == 1).sum()),
        _pinched(faces, halves, order, starts),
    )


def _pinched(faces: Integers, halves: Integers, order: Integers, starts: Integers) -> Integers:
    """Vertices whose faces are not all connected through edges at the vertex.

    Corners (face, vertex) of faces that share an edge are joined at both of its ends; a vertex whose corners fall into
    several groups is where parts of a surface touch.
    """
    count = len(faces)
    # The corner at which half-edge k of a face begins is its k-th corner, and it ends at the next.
    face, side = np.tile(np.arange(count), 3), np.repeat(np.arange(3), count)
    begins, ends = 3 * face + side, 3 * face + (side + 1) % 3
    low = np.where(halves[:, 0] < halves[:, 1], begins, ends)[order]
    high = np.where(halves[:, 0] < halves[:, 1], ends, begins)[order]
    same = np.ones(len(order), dtype=bool)
    same[starts] = False
    later = np.flatnonzero(same)
    joined = np.concatenate([np.stack([c[later - 1], c[later]], 1) for c in (low, high)])
    _, labels = component_labels(joined, 3 * count)
    first = np.unique(labels, return_index=True)[1]
    fans = np.bincount(faces.ravel()[first])
    return np.flatnonzero(fans > 1)


def _area_vectors(vertices: Floats, faces: Integers) -> Floats:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return 0.5 * np.cross(b - a, c - a)


def face_areas(vertices: Floats, faces: Integers) -> Floats:
    """Areas (F,)."""
    return np.linalg.norm(_area_vectors(vertices, faces), axis=1)


def vertex_normals(vertices: Floats, faces: Integers, orientable: bool) -> Floats:
    """Unit normals (n, 3) as area-weighted means of those of the faces.

    Where the faces have no common side, or cancel, the direction (of either sign) that is closest to all of them.

    Raises:
        InvalidDataError: vertices all of whose faces have no area.
    """
    n = len(vertices)
    vectors = _area_vectors(vertices, faces)
    areas = np.linalg.norm(vectors, axis=1)
    normals = np.zeros((n, 3))
    total = np.zeros(n)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], vectors)
        np.add.at(total, faces[:, corner], areas)
    bad = np.flatnonzero(total <= 0.0)
    if bad.size:
        raise InvalidDataError(
            f"vertices {some(bad)} belong to no face with an area: drop them, or pass repair=True to have it done"
        )
    length = np.linalg.norm(normals, axis=1)
    doubtful = length <= 1e-6 * total
    if not orientable or doubtful.any():
        outer = np.zeros((n, 3, 3))
        unit = vectors[:, :, None] * vectors[:, None, :] / np.where(areas > 0.0, areas, 1.0)[:, None, None]
        for corner in range(3):
            np.add.at(outer, faces[:, corner], unit)
        leading = np.linalg.eigh(outer)[1][:, :, -1]
        replace = doubtful if orientable else np.ones(n, dtype=bool)
        normals[replace], length[replace] = leading[replace], 1.0
    return normals / length[:, None]


def cotangent_edges(vertices: Floats, faces: Integers) -> tuple[Integers, Floats, Floats]:
    """Edges (E, 2), their weights ``(cot alpha + cot beta) / 2`` (E,), and a third of the areas around each (n,)."""
    n = len(vertices)
    areas = face_areas(vertices, faces)
    if not (areas > 0.0).all():
        raise InvalidDataError(
            f"faces {some(np.flatnonzero(areas <= 0.0))} have no area: use laplacian='robust' or repair=True"
        )
    pairs, weights = [], []
    for corner in range(3):
        i, j = faces[:, (corner + 1) % 3], faces[:, (corner + 2) % 3]
        tip = vertices[faces[:, corner]]
        dot = ((vertices[i] - tip) * (vertices[j] - tip)).sum(1)
        pairs.append(np.stack([np.minimum(i, j), np.maximum(i, j)], 1))
        weights.append(dot / (4.0 * areas))
    keys = np.concatenate(pairs) @ np.array([n, 1])
    unique, inverse = np.unique(keys, return_inverse=True)
    edges = np.stack([unique // n, unique % n], 1)
    mass = np.bincount(faces.ravel(), np.repeat(areas / 3.0, 3), n).astype(np.float64)
    return edges.astype(np.int64), np.bincount(inverse.reshape(-1), np.concatenate(weights)).astype(np.float64), mass


def _barycentric(p: Floats, a: Floats, b: Floats, c: Floats) -> Floats:
    """Barycentric coordinates (m, 3) of the points of triangles that are closest to p; all arguments (m, 3).

    References:
        Ericson (2005), Real-Time Collision Detection, section 5.1.5.
    """
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = (ab * ap).sum(1), (ac * ap).sum(1)
    bp, cp = p - b, p - c
    d3, d4 = (ab * bp).sum(1), (ac * bp).sum(1)
    d5, d6 = (ab * cp).sum(1), (ac * cp).sum(1)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2

    def ratio(x: Floats, y: Floats) -> Floats:
        return x / np.where(y != 0.0, y, 1.0)

    inside = va + vb + vc
    v, w = ratio(vb, inside), ratio(vc, inside)
    out = np.stack([1.0 - v - w, v, w], 1)
    zero, one = np.zeros(len(p)), np.ones(len(p))
    t = ratio(d4 - d3, (d4 - d3) + (d5 - d6))
    regions = [
        ((va <= 0.0) & (d4 - d3 >= 0.0) & (d5 - d6 >= 0.0), (zero, 1.0 - t, t)),
        ((vb <= 0.0) & (d2 >= 0.0) & (d6 <= 0.0), (1.0 - ratio(d2, d2 - d6), zero, ratio(d2, d2 - d6))),
        ((vc <= 0.0) & (d1 >= 0.0) & (d3 <= 0.0), (1.0 - ratio(d1, d1 - d3), ratio(d1, d1 - d3), zero)),
        ((d6 >= 0.0) & (d5 <= d6), (zero, zero, one)),
        ((d3 >= 0.0) & (d4 <= d3), (zero, one, zero)),
        ((d1 <= 0.0) & (d2 <= 0.0), (one, zero, zero)),
    ]
    for where, values in regions:  # corners last: they take precedence over edges, edges over the inside
        out[where] = np.stack(values, 1)[where]
    return out


def nearest_on_triangles(
    places: Floats, vertices: Floats, faces: Integers, candidates: int = 16
) -> tuple[Integers, Floats, Floats]:
    """Nearest triangle (m,), barycentric coordinates (m, 3) of the nearest place on it, and the distance (m,).

    Candidates are the triangles whose centres are nearest, and then all whose centre is near enough to matter.
    """
    centres = vertices[faces].mean(1)
    reach = np.linalg.norm(vertices[faces] - centres[:, None], axis=2).max(1)
    tree = cKDTree(centres)
    count = min(candidates, len(faces))
    face = np.zeros(len(places), dtype=np.int64)
    coordinates, distance = np.zeros((len(places), 3)), np.full(len(places), np.inf)
    todo = np.arange(len(places))
    while todo.size:
        away, near = tree.query(places[todo], count)
        away, near = away.reshape(len(todo), count), near.reshape(len(todo), count)
        repeated = np.repeat(places[todo], count, axis=0)
        corners = vertices[faces[near.ravel()]]
        found = _barycentric(repeated, corners[:, 0], corners[:, 1], corners[:, 2])
        gap = np.linalg.norm(repeated - np.einsum("mc,mcx->mx", found, corners), axis=1).reshape(near.shape)
        best = gap.argmin(1)
        rows = np.arange(len(todo))
        face[todo], distance[todo] = near[rows, best], gap[rows, best]
        coordinates[todo] = found.reshape(*near.shape, 3)[rows, best]
        # A triangle that was not looked at is at least this far away.
        unsure = (away[:, -1] - reach.max() < gap[rows, best]) & (count < len(faces))
        todo = todo[unsure]
        count = min(4 * count, len(faces))
    return face, coordinates, distance
