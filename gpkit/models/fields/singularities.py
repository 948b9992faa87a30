r"""Singularities of tangent fields on oriented surfaces: where, of which index, how probable.

The index of a triangle is the number of turns that the field makes against parallel transport along its border,

.. math:: \mathrm{index} = \frac{1}{2\pi}\Big(\sum \omega_{ij} + \mathrm{wrap}\big(\sum \rho_{ij}\big)\Big),
   \qquad \omega_{ij} = \mathrm{wrap}(\theta_j - \theta_i - \rho_{ij})

with angles :math:`\theta` of the field in the frames and :math:`\rho` of the transport. It is an integer for every
field, and over a closed surface the integers add up to the Euler characteristic.

References:
    Crane, K., Desbrun, M. and Schroeder, P., Computer Graphics Forum 29, 1525 (2010).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold
from gpkit.models.fields.triangulation import euler_characteristic, surface_triangles

__all__ = ["Singularities", "Singularity", "find_singularities", "triangle_indices"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_AT_ONCE = 25
"""Draws held at once."""


@dataclass(frozen=True)
class Singularity:
    """A singular point of the mean field, or a place where posterior draws have one.

    Attributes:
        location: (D,), centre of its triangle, weighted towards the corner where the mean field is smallest.
        index: +1 for sources, sinks and vortices, -1 for saddles.
        probability: That the field has a singular point of this sign within ``radius``: the share of posterior draws
            that have one. Where the mean is not singular, places are chosen by one half of the draws, and the share is
            that of the other half: among many places, those that some draws happen to agree on would seem likelier
            than they are.
        triangle: Number of its triangle.
        in_mean: Whether the mean field is singular there. Close pairs of opposite index are often smoothed away in the
            mean, though most draws have them.
    """

    location: Array
    index: int
    probability: float
    triangle: int
    in_mean: bool = True


@dataclass(frozen=True, eq=False)
class Singularities:
    """Singular points of a field and their posterior probabilities.

    Attributes:
        found: Those of the mean field, and those that draws alone have, most probable first.
        triangles: (T, 3) node numbers, oriented.
        centres: (T, D).
        mean_index: Index of the mean field by triangle, (T,).
        probability: Share of posterior draws with a singularity in each triangle, (T,).
        total: Sum of the indices of the mean field.
        draw_totals: The same for each draw.
        euler_characteristic: Of the triangulated surface.
        closed: Whether every edge has two triangles, so that the total must equal the Euler characteristic.
        radius: Distance within which draws count as having the same singularity.
    """

    found: tuple[Singularity, ...]
    triangles: Integers
    centres: Array
    mean_index: Integers
    probability: Array
    total: int
    draw_totals: Integers
    euler_characteristic: int
    closed: bool
    radius: float

    def __len__(self) -> int:
        return len(self.found)

    def at_least(self, probability: float) -> tuple[Singularity, ...]:
        """Those of at least a probability, most probable first."""
        return tuple(s for s in self.found if s.probability >= probability)

    def __repr__(self) -> str:
        closed = "closed" if self.closed else "open"
        words = ", ".join(f"{s.index:+d} (p = {s.probability:.2f})" for s in self.found[:8])
        more = f", ... {len(self) - 8} more" if len(self) > 8 else ""
        return (
            f"Singularities({len(self)}{': ' if words else ''}{words}{more}; indices add up to {self.total}, "
            f"{closed} surface of Euler characteristic {self.euler_characteristic})"
        )


def _wrap(angle: Array) -> Array:
    return angle - 2.0 * np.pi * np.ceil((angle - np.pi) / (2.0 * np.pi))


def _rotation_angles(manifold: Manifold, start: Integers, end: Integers) -> Array:
    """Angle by which coordinates at ``start`` are turned by transport to ``end``; frames are oriented alike."""
    b = np.einsum("eDa,eDb->eab", manifold.frames[end], manifold.frames[start])
    return np.arctan2(b[:, 1, 0] - b[:, 0, 1], b[:, 0, 0] + b[:, 1, 1])


def triangle_indices(manifold: Manifold, triangles: Integers, coordinates: Array) -> Integers:
    """Index of fields in each triangle.

    Args:
        manifold: An oriented surface.
        triangles: (T, 3), positively oriented.
        coordinates: Tangent coordinates at all nodes, (..., n, 2).

    Returns:
        (..., T).
    """
    theta = np.arctan2(coordinates[..., 1], coordinates[..., 0])
    winding = np.zeros((*coordinates.shape[:-2], len(triangles)))
    holonomy = np.zeros(len(triangles))
    for k in range(3):
        i, j = triangles[:, k], triangles[:, (k + 1) % 3]
        rho = _rotation_angles(manifold, i, j)
        winding += _wrap(theta[..., j] - theta[..., i] - rho)
        holonomy += rho
    return np.rint((winding + _wrap(holonomy)) / (2.0 * np.pi)).astype(np.int64)


def find_singularities(
    manifold: Manifold,
    mean: Array,
    draw: Callable[[int, int], Array],
    *,
    draws: int = 200,
    seed: int = 0,
    radius: float | None = None,
    least: float = 0.1,
) -> Singularities:
    """Singular points of a mean field and of posterior draws, with the share of draws that have them.

    Args:
        manifold: An oriented surface.
        mean: Tangent coordinates of the mean at all nodes, (n, 2).
        draw: Makes joint draws (count, n, 2) of the coordinates from a count and a seed.
        draws: Number of posterior draws.
        seed: Of the draws.
        radius: Distance within which a draw's singularity is the same one; 3 median sides of triangles if not given.
        least: Share of half of the draws from which places are reported where these are singular, but the mean is not.

    Raises:
        InvalidDataError: not an oriented surface, no draw, or no probability.
    """
    if draws < 1:
        raise InvalidDataError(f"probabilities need at least one draw, got {draws}")
    if not 0.0 < least <= 1.0:
        raise InvalidDataError(f"least is a probability in (0, 1], got {least}")
    triangles = surface_triangles(manifold)
    centres = manifold.points[triangles].mean(1)
    index = triangle_indices(manifold, triangles, mean)
    counts = np.zeros(len(triangles))
    sides = manifold.points[triangles] - manifold.points[np.roll(triangles, 1, axis=1)]
    side = float(np.median(np.linalg.norm(sides, axis=2))) if len(triangles) else 0.0
    reach = 3.0 * side if radius is None else float(radius)
    near = _pairs_within(centres, reach)
    totals, drawn = [], []
    for first in range(0, draws, _AT_ONCE):
        found = triangle_indices(manifold, triangles, draw(min(_AT_ONCE, draws - first), seed + first))
        counts += (found != 0).sum(0)
        totals.append(found.sum(1))
        drawn.append(sparse.csc_matrix(found.T))
    euler, closed = euler_characteristic(triangles)
    return Singularities(
        found=_reported(manifold, triangles, near, mean, index, sparse.hstack(drawn, format="csc"), least),
        triangles=triangles,
        centres=centres,
        mean_index=index,
        probability=counts / draws,
        total=int(index.sum()),
        draw_totals=np.concatenate(totals),
        euler_characteristic=euler,
        closed=closed,
        radius=reach,
    )


def _pairs_within(centres: Array, reach: float) -> Any:
    """Sparse (T, T): ones where two triangles are within reach."""
    if not len(centres):
        return sparse.csr_matrix((0, 0))
    pairs = cKDTree(centres).query_pairs(reach, output_type="ndarray")
    upper = sparse.csr_matrix((np.ones(len(pairs)), pairs.T), shape=(len(centres), len(centres)))
    return (upper + upper.T + sparse.identity(len(centres))).tocsr()


def _reported(
    manifold: Manifold, triangles: Integers, near: Any, mean: Array, index: Integers, drawn: Any, least: float
) -> tuple[Singularity, ...]:
    """Singular points of the mean; then, of what draws have away from them, the most probable place, and so on.

    Args:
        manifold: The surface.
        triangles: (T, 3).
        near: Sparse (T, T), ones within reach.
        mean: Coordinates of the mean field, (n, 2).
        index: Of the mean field, (T,).
        drawn: Indices of the draws, sparse (T, draws).
        least: Share of the choosing half of the draws below which places that the mean does not have are left out.
    """
    length = np.linalg.norm(mean, axis=1)
    floor = 1e-12 * max(float(length.max(initial=0.0)), 1e-300)
    draws = drawn.shape[1]
    # Draws are in the order of their kernels: halves by turns.
    halves = (np.arange(0, draws, 2), np.arange(1, draws, 2)) if draws > 1 else (np.arange(1), np.arange(1))
    out = []

    def add(triangle: int, value: int, share: float) -> None:
        corners = triangles[triangle]
        weight = 1.0 / np.maximum(length[corners], floor)
        location = (weight[:, None] * manifold.points[corners]).sum(0) / weight.sum()
        out.append(Singularity(location, value, share, triangle, bool(index[triangle])))

    for sign in (1, -1):
        left = (sign * drawn > 0).astype(np.float64)
        share = _share(near, left)
        own = np.flatnonzero(sign * index > 0)
        for triangle in own.tolist():
            add(int(triangle), int(index[triangle]), float(share[triangle] / draws))
        explained = np.unique(near[own].indices)
        choosing, judging = (left[:, half].tocsr() for half in halves)
        while True:
            # What a place explains is not counted at the next one: one singular point is found at slightly different
            # places in different draws.
            keep = np.ones(len(triangles))
            keep[explained] = 0.0
            choosing, judging = sparse.diags(keep) @ choosing, sparse.diags(keep) @ judging
            share = _share(near, choosing)
            if not len(share) or share.max() < max(least * len(halves[0]), 1.0):
                break
            # Many triangles have the same share around a place that draws agree on: the middle of what they have.
            best = int(share.argmax())
            around = near[best].indices
            weight = np.asarray(choosing[around].sum(1)).ravel()
            centres = manifold.points[triangles[around]].mean(1)
            triangle = int(around[np.linalg.norm(centres - weight @ centres / weight.sum(), axis=1).argmin()])
            found = float(_share(near[triangle], judging)[0] / len(halves[1]))
            if found > 0.0:
                add(triangle, sign, found)
            explained = np.union1d(near[best].indices, near[triangle].indices)
    return tuple(sorted(out, key=lambda s: (-s.probability, not s.in_mean)))


def _share(near: Any, left: Any) -> Array:
    """Number of draws (T,) that are singular within reach of each triangle; ``left`` (T, draws) says where."""
    return np.asarray((near @ left > 0.0).sum(1), dtype=np.float64).ravel()
