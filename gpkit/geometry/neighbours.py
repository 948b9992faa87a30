"""Nearest neighbours of points, the symmetric proximity graph that they make, and its self-tuned weights."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from gpkit.errors import InvalidDataError
from gpkit.geometry.checks import Floats, Integers

__all__ = [
    "Neighbourhoods",
    "bandwidths",
    "component_labels",
    "gaussian_weights",
    "joined_edges",
    "undirected_edges",
]

_NEGLIGIBLE = math.log(1e3)
"""Square of an edge's length, in products of the bandwidths at its ends, from which its weight joins nothing."""


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """A search tree over n points, and the nearest neighbours of each of them.

    Args:
        points: (n, D).
    """

    points: Floats

    @functools.cached_property
    def tree(self) -> cKDTree:
        """The search tree."""
        return cKDTree(self.points)

    @functools.cached_property
    def _leaf_order(self) -> Integers:
        """Place of each point (n,) in the leaves of the tree."""
        return np.argsort(self.tree.indices)

    def of_nodes(self, count: int) -> tuple[Floats, Integers]:
        """Distances and numbers (n, count) of the nearest other points, nearest first.

        Raises:
            InvalidDataError: there are not that many other points.
        """
        n = len(self.points)
        if count >= n:
            raise InvalidDataError(
                f"{count} neighbours were asked for, but {n} points have at most {n - 1}: give more points or a "
                "smaller n_neighbors"
            )
        return self.around(np.arange(n), count)

    def around(self, nodes: Integers, count: int) -> tuple[Floats, Integers]:
        """The same for some of the points: (m, count), with count below the number of points."""
        m = len(nodes)
        # Asked in the order of the tree's leaves, neighbours find the same part of it in the cache: half the time.
        by_leaf = np.argsort(self._leaf_order[nodes])
        found = self.tree.query(self.points[nodes[by_leaf]], count + 1)
        back = np.argsort(by_leaf)
        distances, indices = (values[back] for values in found)
        own = indices == nodes[:, None]
        # Among more copies of a point than neighbours, the point itself may not be listed: drop the last instead.
        own[~own.any(1), -1] = True
        return distances[~own].reshape(m, count), indices[~own].reshape(m, count).astype(np.int64)

    def of_points(self, queries: Floats, count: int) -> tuple[Floats, Integers]:
        """Distances and numbers (m, count) of the nodes that are nearest to other places (m, D)."""
        count = min(count, len(self.points))
        distances, indices = self.tree.query(queries, count)
        return distances.reshape(len(queries), count), indices.reshape(len(queries), count).astype(np.int64)


def undirected_edges(neighbours: Integers) -> Integers:
    """Pairs (E, 2), i < j, each once, sorted: j is a neighbour of i or i one of j."""
    n, count = neighbours.shape
    rows = np.repeat(np.arange(n), count)
    columns = neighbours.ravel()
    keys = np.sort(np.minimum(rows, columns) * n + np.maximum(rows, columns))
    keys = keys[np.flatnonzero(np.diff(keys, prepend=-1))]
    return np.stack([keys // n, keys % n], axis=1)


def bandwidths(distances: Floats) -> Floats:
    """Length h (m,) of each point: the distance to the neighbour in the middle of its list, positive.

    Where this many neighbours are copies of the point, the first positive distance is taken; 0 where there is none.
    """
    middle = distances[:, min(distances.shape[1] // 2, distances.shape[1] - 1)].copy()
    for row in np.flatnonzero(middle == 0.0):
        positive = distances[row][distances[row] > 0.0]
        middle[row] = positive[0] if positive.size else 0.0
    return middle


def gaussian_weights(squared: Floats, h_rows: Floats, h_columns: Floats, dim: int) -> Floats:
    r"""Self-tuned Gaussian weights ``(h h')^((d - 2) / 2) exp(-r^2 / (h h'))`` of edges.

    The bandwidth follows the density q of the points as :math:`h\sim q^{-1/d}`. With the prefactor the energy
    :math:`\sum w (f_i - f_j)^2` tends to a multiple of :math:`\int |\nabla f|^2 (q h^d)^2\,dx`, in which the density
    cancels in every dimension (for d = 2 the plain Gaussian does).
    """
    product = h_rows * h_columns
    safe = np.where(product > 0.0, product, 1.0)
    return safe ** (0.5 * (dim - 2)) * np.exp(-squared / safe)


def joined_edges(points: Floats, edges: Integers, bandwidth: Floats) -> Integers:
    """The edges (E, 2) inside of parts of a cloud (n, D) that hang together by more than edges of no weight.

    Every point has its neighbours, an outlier also: its edges are so long for the points at their other ends that
    their Gaussian weights vanish, and the point would be a part by itself that is not known to be one.
    """
    i, j = edges[:, 0], edges[:, 1]
    squared = ((points[i] - points[j]) ** 2).sum(1)
    product = bandwidth[i] * bandwidth[j]
    strong = (squared <= _NEGLIGIBLE * product) | (product == 0.0)
    if strong.all():
        return edges
    count, labels = component_labels(edges[strong], len(points))
    return edges if count == 1 else edges[labels[i] == labels[j]]


def component_labels(edges: Integers, n: int) -> tuple[int, Integers]:
    """Number of connected components, and that of each node (n,)."""
    graph = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    count, labels = sparse.csgraph.connected_components(graph, directed=False)
    return int(count), labels.astype(np.int64)
