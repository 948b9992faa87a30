"""Parallel transport between tangent frames, and their common orientation."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from gpkit.geometry.checks import Floats, Integers

__all__ = ["determinants", "orientation_signs", "polar", "transports"]

_CHUNK = 200_000


def polar(matrices: Floats, proper: bool = False) -> tuple[Floats, Floats]:
    """Nearest orthogonal matrices, and the smallest singular values, of (m, d, d).

    Closed forms for d = 1 and 2, singular value decompositions otherwise. A smallest singular value near zero means
    that the two tangent spaces are nearly orthogonal and their transport means nothing. With ``proper`` (d = 2 only)
    reflections are left out.
    """
    d = matrices.shape[-1]
    if d == 1:
        return np.where(matrices < 0.0, -1.0, 1.0), np.abs(matrices[:, 0, 0])
    if d == 2:
        a, b, c, f = (matrices[:, i, j] for i in range(2) for j in range(2))
        p, q, r, s = a + f, b - c, a - f, b + c
        turn, flip = np.hypot(p, q), np.hypot(r, s)
        rotation = np.full(len(matrices), True) if proper else turn >= flip
        length = np.where(rotation, turn, flip) + 1e-300
        x, y = np.where(rotation, p, r) / length, np.where(rotation, q, s) / length
        out = np.empty_like(matrices)
        out[:, 0, 0], out[:, 0, 1] = x, y
        sign = np.where(rotation, 1.0, -1.0)
        out[:, 1, 0], out[:, 1, 1] = -sign * y, sign * x
        return out, 0.5 * np.abs(turn - flip)
    left, singular, right = np.linalg.svd(matrices)
    return left @ right, singular[:, -1]


def transports(frames: Floats, edges: Integers, proper: bool = False) -> tuple[Floats, Floats]:
    """Transport (E, d, d) of coordinates at edges[:, 1] to edges[:, 0], and the smallest singular values (E,).

    The transport is the orthogonal factor of ``T_i^T T_j``: the rotation (or reflection) that brings the frames
    closest together; with ``proper``, the rotation only, for frames of surfaces that are known to be oriented alike.
    """
    d = frames.shape[2]
    out, smallest = np.empty((len(edges), d, d)), np.empty(len(edges))
    for start in range(0, len(edges), _CHUNK):
        part = slice(start, start + _CHUNK)
        i, j = edges[part, 0], edges[part, 1]
        out[part], smallest[part] = polar(np.einsum("eai,eaj->eij", frames[i], frames[j]), proper)
    return out, smallest


def determinants(rotations: Floats) -> Floats:
    """Signs +1 or -1 of orthogonal matrices (m, d, d)."""
    if rotations.shape[-1] == 2:  # a general determinant takes ten times as long
        return np.where(rotations[:, 0, 0] * rotations[:, 1, 1] < rotations[:, 0, 1] * rotations[:, 1, 0], -1.0, 1.0)
    return np.where(np.linalg.det(rotations) < 0.0, -1.0, 1.0)


def orientation_signs(
    edges: Integers, rotations: Floats, n: int, alignment: Floats | None = None
) -> tuple[Floats, int]:
    """Signs (n,) that make every transport proper where this is possible, and the number of edges that contradict.

    Signs spread from one node of each component along a tree; edges outside of the tree check them. With the
    alignment (E,) of the frames across edges (their smallest singular value), the tree takes the best aligned edges,
    and only edges that align better than 1/2 can contradict: across the others the sign of a transport means nothing.
    """
    signs_of_edges = determinants(rotations)
    graph = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
    if alignment is not None:
        steepness = sparse.coo_matrix((1.001 - alignment, (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
        graph = sparse.csgraph.minimum_spanning_tree(steepness)
    signed = sparse.coo_matrix((signs_of_edges, (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
    signed = (signed + signed.T).tocsr()
    signs = np.zeros(n)
    _, labels = sparse.csgraph.connected_components(graph, directed=False)
    for root in np.unique(labels, return_index=True)[1]:
        order, parents = sparse.csgraph.breadth_first_order(graph, root, directed=False)
        signs[root] = 1.0
        # A tree is consistent level by level: every parent comes before its children.
        children = order[1:]
        steps = np.asarray(signed[parents[children], children]).ravel() if children.size else np.zeros(0)
        for child, parent, step in zip(children.tolist(), parents[children].tolist(), steps.tolist(), strict=True):
            signs[child] = signs[parent] * step
    conflict = signs[edges[:, 0]] * signs_of_edges * signs[edges[:, 1]] < 0.0
    if alignment is not None:
        conflict &= alignment > 0.5
    return signs, int(conflict.sum())
