r"""Slopes at the nodes of a manifold by local polynomials, as sparse functionals of values at nodes around.

At each node, differences to its neighbours (of vectors, transported into its frame) are fitted by a polynomial without
constant of their tangent positions. Its linear part is the slope:

.. math:: \min_{J, \dots} \sum_j w_{ij} \big| O_{ij} v_j - v_i - J \xi_{ij} - \tfrac12 H(\xi_{ij}, \xi_{ij}) - \dots
   \big|^2, \qquad w_{ij} = e^{-|\xi_{ij}|^2 / h_i^2}

with h the distance to the middle neighbour. In tangent coordinates of an orthogonal projection the metric has no first
derivatives at the node, and neither has the transport: the slopes are covariant derivatives whatever the curvature.
Linear fits have errors of first order in the distance of neighbours wherever these lie unevenly; each degree more takes
an order away. What it costs is noise, and neighbours: a node has the highest degree up to three for which there are
twice as many neighbours as unknowns, and at a few times the noise of the linear fit. Clouds of noisy points have larger
neighbourhoods, as their frames have.

References:
    Cazals & Pouget (2005), Computer Aided Geometric Design 22, 121 (local polynomials on surfaces and their orders);
    Fan & Gijbels (1996), Local Polynomial Modelling and Its Applications, ch. 3 (bias and variance of slopes).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpkit.checks import positive_integer
from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold, PointCloud
from gpkit.geometry.transport import transports

__all__ = ["LocalSlopes"]

Array = NDArray[np.float64]

_SPARE = 2
"""Neighbours for each unknown."""
_MOST = 60
"""Neighbours of a node that are used, the nearest ones; a degree that needs more is not used."""
_NOISE = 12.0
"""A degree is used where it makes at most this many times the noise of the linear fit (about 3 are usual)."""
_CHUNK = 2000
"""Nodes that are fitted at once."""


@dataclass(frozen=True, eq=False)
class LocalSlopes:
    """The slope at node i of a function f is ``sum over pairs of coefficients (f_j - f_i)``, of fields in its frame.

    Attributes:
        manifold: Where the nodes are.
        rows: Node i of each pair, (E,).
        columns: Node j of each pair, (E,).
        coefficients: (E, d), in units of 1 / length.
        degree: Of the polynomial at each node, (n,); 0 where there is no neighbour.
    """

    manifold: Manifold
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    coefficients: Array
    degree: NDArray[np.int64]

    @classmethod
    def of(cls, manifold: Manifold, degree: int = 3) -> LocalSlopes:
        """Fit all nodes of a manifold.

        Args:
            manifold: Where the nodes are.
            degree: Largest degree; slopes of smooth fields have errors of its order in the distance of neighbours.

        Raises:
            InvalidDataError: the degree is no positive integer.
        """
        top = _top_degree(manifold.dim, positive_integer(degree, "degree"))
        wanted = _SPARE * _unknowns(manifold.dim, top)
        if isinstance(manifold, PointCloud):
            wanted = max(wanted, manifold.frame_neighbors)
        near = _neighbourhoods(manifold, wanted)
        rows, columns, coefficients = [], [], []
        degrees = np.zeros(manifold.n, dtype=np.int64)
        for first in range(0, manifold.n, _CHUNK):
            nodes = np.arange(first, min(first + _CHUNK, manifold.n))
            around, there, steps = _steps(manifold, near, nodes, max(wanted, _MOST))
            if not around.shape[1]:
                continue
            found, degrees[nodes] = _fit(steps, there, top)
            rows.append(np.broadcast_to(nodes[:, None], around.shape)[there])
            columns.append(around[there])
            coefficients.append(found[there])
        none = np.zeros(0, dtype=np.int64)
        return cls(
            manifold,
            np.concatenate([none, *rows]),
            np.concatenate([none, *columns]),
            np.concatenate([np.zeros((0, manifold.dim)), *coefficients]),
            degrees,
        )

    def gradient(self) -> Any:
        """Sparse (n d, n): tangent coordinates of the gradient of a function given at all nodes."""
        n, d = self.manifold.n, self.manifold.dim
        rows = (self.rows[:, None] * d + np.arange(d)).ravel()
        return _differences(
            (n * d, n), rows, np.repeat(self.columns, d), np.repeat(self.rows, d), self.coefficients, self.coefficients
        )

    def divergence(self) -> Any:
        """Sparse (n, n d): divergence of a field of tangent coordinates given at all nodes."""
        return self._contraction(np.eye(self.manifold.dim))

    def curl(self) -> Any:
        """Sparse (n, 2 n): curl of a field of tangent coordinates on an oriented surface.

        Raises:
            InvalidDataError: not a surface, or one without orientation.
        """
        if self.manifold.dim != 2:
            raise InvalidDataError(f"the curl is a number on surfaces only, not in dimension {self.manifold.dim}")
        if not self.manifold.orientable:
            raise InvalidDataError("the curl needs an orientation, and no orientation fits all edges of this surface")
        return self._contraction(np.array([[0.0, -1.0], [1.0, 0.0]]))

    def _contraction(self, pattern: Array) -> Any:
        """Sparse (n, n d): sum over a, b of pattern[a, b] dv_a / dx_b of a field of tangent coordinates."""
        n, d = self.manifold.n, self.manifold.dim
        pairs = np.stack([self.rows, self.columns], axis=1)
        # Frames of oriented surfaces are oriented alike: no transport between them is a reflection.
        turns, _ = transports(self.manifold.frames, pairs, proper=d == 2 and self.manifold.orientable)
        here = self.coefficients @ pattern.T
        there = np.einsum("ea,eab->eb", here, turns)
        components = np.arange(d)
        return _differences(
            (n, n * d),
            np.repeat(self.rows, d),
            (self.columns[:, None] * d + components).ravel(),
            (self.rows[:, None] * d + components).ravel(),
            there,
            here,
        )


def _differences(
    shape: tuple[int, int], rows: NDArray[Any], columns: NDArray[Any], own: NDArray[Any], there: Array, here: Array
) -> Any:
    values = np.concatenate([there.ravel(), -here.ravel()])
    places = np.concatenate([rows, rows]), np.concatenate([columns, own])
    return sparse.csr_matrix((values, places), shape=shape)


def _unknowns(dim: int, degree: int) -> int:
    """Monomials of degrees one to ``degree`` in ``dim`` variables."""
    return math.comb(dim + degree, degree) - 1


def _top_degree(dim: int, asked: int) -> int:
    """The highest degree up to the one asked for whose neighbourhoods are not too large; one at least."""
    return max([1, *(g for g in range(1, asked + 1) if _SPARE * _unknowns(dim, g) <= _MOST)])


def _neighbourhoods(manifold: Manifold, wanted: int) -> Any:
    """Neighbours of each node in the graph, sparse (n, n); neighbours of these where there are fewer than wanted."""
    i, j = manifold.edges.T
    ring = sparse.coo_matrix((np.ones(len(i)), (i, j)), shape=(manifold.n, manifold.n)).tocsr()
    ring = (ring + ring.T).tocsr()
    near = ring
    for _ in range(2):
        short = np.diff(near.indptr) < wanted
        if not short.any():
            break
        grown = (near + sparse.diags(short.astype(np.float64)) @ near @ ring).tocsr()
        near = (grown - sparse.diags(grown.diagonal())).tocsr()
        near.eliminate_zeros()
        near.data[:] = 1.0
    return near


def _steps(
    manifold: Manifold, near: Any, nodes: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[Any], Array]:
    """Neighbours (m, K) of nodes, which of these there are (m, K), and tangent positions (m, K, d), zero elsewhere."""
    part = near[nodes]
    counts = np.diff(part.indptr)
    width = int(counts.max(initial=0))
    there = np.arange(width) < counts[:, None]
    around = np.zeros((len(nodes), width), dtype=np.int64)
    around[there] = part.indices
    steps = manifold.points[around] - manifold.points[nodes][:, None]
    steps = np.einsum("mDa,mkD->mka", manifold.frames[nodes], steps)
    steps[~there] = 0.0
    if width > most:
        distance = np.where(there, np.square(steps).sum(2), np.inf)
        nearest = np.argpartition(distance, most, axis=1)[:, :most]
        around, there = (np.take_along_axis(values, nearest, 1) for values in (around, there))
        steps = np.take_along_axis(steps, nearest[..., None], 1)
    return around, there, steps


def _fit(steps: Array, there: NDArray[Any], top: int) -> tuple[Array, NDArray[np.int64]]:
    """Coefficients (m, K, d) of the slopes, and the degree at each node (m,).

    Args:
        steps: Tangent positions of neighbours, (m, K, d).
        there: Which of these there are, (m, K).
        top: Highest degree.
    """
    counts = there.sum(1)
    squared = np.square(steps).sum(2)
    reach = np.sqrt(squared.max(1, initial=0.0))
    reach = np.where(reach > 0.0, reach, 1.0)
    ordered = np.sort(np.where(there, squared, np.inf), axis=1)
    middle = np.take_along_axis(ordered, np.maximum((counts[:, None] - 1) // 2, 0), 1)
    middle = np.where((middle > 0.0) & np.isfinite(middle), middle, reach[:, None] ** 2)
    weights = np.where(there, np.exp(-squared / middle), 0.0)
    flat = steps / reach[:, None, None]
    d = steps.shape[2]
    found = _slopes(flat, weights, 1)
    degree = np.where(counts > 0, 1, 0)
    allowed = _NOISE**2 * _noise(found)
    for g in range(2, top + 1):
        enough = np.flatnonzero(counts >= _SPARE * _unknowns(d, g))
        higher = _slopes(flat[enough], weights[enough], g)
        fine = _noise(higher) <= allowed[enough]
        found[enough[fine]], degree[enough[fine]] = higher[fine], g
    return found / reach[:, None, None], degree


def _slopes(flat: Array, weights: Array, degree: int) -> Array:
    """Coefficients (m, K, d) of weighted least squares; infinite where a higher degree than one is not determined."""
    d = flat.shape[2]
    monomials = [
        flat[..., list(factors)].prod(2)
        for power in range(1, degree + 1)
        for factors in itertools.combinations_with_replacement(range(d), power)
    ]
    design = np.stack(monomials, axis=2)
    weighted = (design * weights[..., None]).swapaxes(1, 2)
    moments = weighted @ design
    # A node whose neighbours lie on a line knows no slope across it: the pseudo-inverse leaves that direction out.
    inverse = np.linalg.pinv(moments, rcond=1e-8 if degree == 1 else 1e-12, hermitian=True)
    out: Array = (inverse[:, :d] @ weighted).swapaxes(1, 2)
    if degree > 1:
        complete = np.abs(np.einsum("mij,mji->m", inverse, moments) - design.shape[2]) < 1e-3
        out[~complete] = np.inf
    return out


def _noise(coefficients: Array) -> Array:
    """Variance (m,) of a slope where values at neighbours and at the node have independent noise of variance one."""
    return np.asarray(np.square(coefficients).sum((1, 2)) + np.square(coefficients.sum(1)).sum(1))
