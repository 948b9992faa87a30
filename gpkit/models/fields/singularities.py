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


@dataclass(frozen=True)
class Singularity:
    """A singular point of the mean field.

    Attributes:
        location: (D,), centre of its triangle, weighted towards the corner where the field is smallest.
        index: Of the mean field: +1 for sources, sinks and vortices, -1 for saddles.
        probability: Share of posterior draws whose indices around it (in triangles within ``radius``) add up to this
            index.
        triangle: Number of its triangle.
    """

    location: Array
    index: int
    probability: float
    triangle: int


@dataclass(frozen=True, eq=False)
class Singularities:
    """Singular points of a field and their posterior probabilities.

    Attributes:
        found: Those of the mean field, most probable first.
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
) -> Singularities:
    """Singular points of a mean field, with the share of posterior draws that have them too.

    Args:
        manifold: An oriented surface.
        mean: Tangent coordinates of the mean at all nodes, (n, 2).
        draw: Makes joint draws (count, n, 2) of the coordinates from a count and a seed.
        draws: Number of posterior draws.
        seed: Of the draws.
        radius: Distance within which a draw's singularity is the same one; 3 median sides of triangles if not given.

    Raises:
        InvalidDataError: not an oriented surface, or no draw.
    """
    if draws < 1:
        raise InvalidDataError(f"probabilities need at least one draw, got {draws}")
    triangles = surface_triangles(manifold)
    centres = manifold.points[triangles].mean(1)
    index = triangle_indices(manifold, triangles, mean)
    counts = np.zeros(len(triangles))
    sides = manifold.points[triangles] - manifold.points[np.roll(triangles, 1, axis=1)]
    side = float(np.median(np.linalg.norm(sides, axis=2))) if len(triangles) else 0.0
    reach = 3.0 * side if radius is None else float(radius)
    singular = np.flatnonzero(index)
    # Sums of indices over the triangles around each singular point, for all draws at once.
    near = cKDTree(centres).query_ball_point(centres[singular], reach) if len(singular) else []
    rows = np.repeat(np.arange(len(singular)), [len(found) for found in near])
    columns = np.concatenate([np.asarray(found, dtype=np.int64) for found in near]) if len(singular) else rows
    around = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(singular), len(triangles)))
    totals, agreeing = [], np.zeros(len(singular))
    target = around @ index
    step = 25
    for first in range(0, draws, step):
        fields = draw(min(step, draws - first), seed + first)
        found = triangle_indices(manifold, triangles, fields)
        counts += (found != 0).sum(0)
        totals.append(found.sum(1))
        agreeing += (np.asarray(around @ found.T) == target[:, None]).sum(1)
    euler, closed = euler_characteristic(triangles)
    points = []
    length = np.linalg.norm(mean, axis=1)
    for position, triangle in enumerate(singular):
        corners = triangles[triangle]
        weight = 1.0 / np.maximum(length[corners], 1e-12 * max(float(length.max()), 1e-300))
        location = (weight[:, None] * manifold.points[corners]).sum(0) / weight.sum()
        points.append(Singularity(location, int(index[triangle]), float(agreeing[position] / draws), int(triangle)))
    points.sort(key=lambda s: -s.probability)
    return Singularities(
        found=tuple(points),
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
