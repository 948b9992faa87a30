"""Fields seen from one side: directions to look from, what hides what, and light on surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpkit.diagnostics.arrays import BoolArray, FloatArray, IntArray
from gpkit.errors import InvalidDataError

__all__ = ["View", "Horizon", "in_space", "lit"]

_EDGE = 0.05
"""Cosine between a normal and the direction to the eye below which a place is on the far side."""
_PIXELS = 160
"""Of the picture on whose depths hidden places are found, along its longer side."""
_SAMPLES = 8
"""Places along each side of a triangle that are put into that picture."""


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


def in_space(points: npt.ArrayLike, *vectors: npt.ArrayLike) -> list[FloatArray]:
    """Points and vectors in three dimensions: padded with zeros, or on the three widest directions of the cloud."""
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] < 2:
        raise InvalidDataError(f"points must be (n, D) with D of at least 2, got {x.shape}")
    centred = x - x.mean(0)
    basis = np.eye(3, x.shape[1]) if x.shape[1] <= 3 else np.linalg.svd(centred, full_matrices=False)[2][:3]
    return [centred @ basis.T] + [np.asarray(v, dtype=np.float64) @ basis.T for v in vectors]


class Horizon:
    """What can be seen of a surface from a direction: what faces the eye and has nothing in front of it.

    Args:
        seen: Nodes (n, 3) as (right, up, towards the eye).
        triangles: Node numbers (T, 3), which hide what is behind them; nothing does without them.
        normals: Outward normals (n, 3) of the nodes in the same axes; without them every place faces the eye.
    """

    def __init__(self, seen: FloatArray, triangles: IntArray | None, normals: FloatArray | None) -> None:
        self.facing = np.ones(len(seen), dtype=np.bool_) if normals is None else np.asarray(normals[:, 2] > _EDGE)
        self._depths: FloatArray | None = None
        if triangles is None or normals is None or not len(triangles):
            return
        self._corner = seen[:, :2].min(0)
        self._pixel = max(float(np.ptp(seen[:, :2], axis=0).max()), 1e-300) / _PIXELS
        sides = seen[triangles[:, 1]] - seen[triangles[:, 0]]
        # As far as a surface falls away within a pixel or two, and half a triangle for curved ones.
        self._slack = 0.5 * float(np.median(np.linalg.norm(sides, axis=1))) + 2.0 * self._pixel
        first, second = (w.ravel() for w in np.meshgrid(*2 * [np.linspace(0.0, 1.0, _SAMPLES)], indexing="ij"))
        inside = first + second <= 1.0 + 1e-12
        weights = np.stack([1.0 - first - second, first, second], axis=1)[inside]
        self._depths = np.full((_PIXELS + 2) ** 2, -np.inf)
        for part in np.array_split(np.asarray(triangles), max(1, len(triangles) // 20_000)):
            places = np.einsum("sc,tcx->tsx", weights, seen[part]).reshape(-1, 3)
            np.maximum.at(self._depths, self._number(places), places[:, 2])

    def _number(self, places: FloatArray) -> IntArray:
        """Numbers of the pixels of places."""
        at = np.clip(((places[:, :2] - self._corner) / self._pixel).astype(np.int64), 0, _PIXELS + 1)
        return np.asarray(at[:, 0] * (_PIXELS + 2) + at[:, 1])

    def shows(self, places: FloatArray, nearest: IntArray) -> BoolArray:
        """Which of places (m, 3) can be seen, where ``nearest`` (m,) are the nodes whose normals count."""
        visible = self.facing[nearest]
        if self._depths is not None:
            visible = visible & (places[:, 2] > self._depths[self._number(places)] - self._slack)
        return np.asarray(visible)


def lit(colours: FloatArray, corners: FloatArray, darkest: float) -> FloatArray:
    """Colours (T, 3 or 4) of triangles (T, 3 corners, 3), as the eye sees them, under light from its upper left.

    Both sides of a triangle are lit alike, so that open surfaces have no dark back. What the light does not reach has
    ``darkest`` of its brightness.
    """
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    normal *= np.where(normal[:, 2:] < 0.0, -1.0, 1.0)
    light = np.array([-0.4, 0.5, 0.77])
    shade = darkest + (1.0 - darkest) * np.clip(normal @ light, 0.0, 1.0)
    out = np.asarray(colours, dtype=np.float64).copy()
    out[:, :3] *= shade[:, None]
    return out
