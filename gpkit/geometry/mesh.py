"""Triangle meshes: frames from face normals, cotangent or robust Laplacians, places on the surface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from gpkit.errors import InvalidDataError, MissingDependencyError
from gpkit.geometry.checks import Floats, Integers, as_points, some
from gpkit.geometry.faces import (
    as_faces,
    cotangent_edges,
    face_areas,
    nearest_on_triangles,
    repaired,
    vertex_normals,
    wind,
)
from gpkit.geometry.frames import frames_of_normals
from gpkit.geometry.manifold import Location, Manifold
from gpkit.geometry.transport import polar

__all__ = ["Mesh"]

_FAR = 2.0
"""A place is far from a mesh if it is further away than this many median edge lengths."""


class Mesh(Manifold):
    """A surface in space made of triangles.

    Frames span the planes across area-weighted vertex normals; Laplacians are those of finite elements, so length
    scales have the units of the vertices. Faces are turned to one side where that is possible, outwards on closed
    surfaces.

    Args:
        vertices: (n, 3).
        faces: (F, 3), vertex numbers.
        laplacian: "robust" (intrinsic Delaunay triangulation on a tufted cover: weights that are never negative, also
            for triangles of poor shape and meshes that are not manifolds; needs robust-laplacian) or "cotangent".
        repair: merge copies of vertices, drop degenerate faces and vertices without a face, and say so; nodes are then
            numbered anew, see ``original``.
        components: "refuse" or "keep" a mesh that falls into disconnected parts.

    Attributes:
        faces: (F, 3).
        areas: (F,).
        original: (n,), the row of ``vertices`` behind each node.
        node_of: (rows of ``vertices``,), the node of each, -1 where it was dropped.
        winding: what turning the faces found.

    Raises:
        InvalidDataError: vertices that are not finite, faces out of range or without area, isolated vertices,
            disconnected parts.
        MissingDependencyError: the robust Laplacian is asked for and robust-laplacian is not installed.

    References:
        Sharp & Crane (2020), Computer Graphics Forum 39, 69 (robust Laplacians); Sharp, Soliman & Crane (2019), ACM
        TOG 38, 24 (connection Laplacians of meshes).
    """

    kind = "mesh"

    def __init__(
        self,
        vertices: Any,
        faces: Any,
        *,
        laplacian: str = "robust",
        repair: bool = False,
        components: str = "refuse",
    ) -> None:
        if laplacian not in ("robust", "cotangent"):
            raise InvalidDataError(f"laplacian must be 'robust' or 'cotangent', got {laplacian!r}")
        given = as_points(vertices, "vertices", 3)
        triangles = as_faces(faces, len(given))
        repairs: list[str] = []
        self.original = np.arange(len(given))
        self.node_of = np.arange(len(given))
        if repair:
            self.original, self.node_of, triangles, repairs = repaired(given, triangles)
        points = given[self.original]
        if not len(triangles):
            raise InvalidDataError("no face of the mesh has an area")
        isolated = np.setdiff1d(np.arange(len(points)), triangles)
        if isolated.size:
            raise InvalidDataError(
                f"vertices {some(isolated)} belong to no face: drop them, or pass repair=True to have it done"
            )
        twice = (np.sort(triangles, 1)[:, 1:] == np.sort(triangles, 1)[:, :-1]).any(1)
        if twice.any():
            raise InvalidDataError(
                f"faces {some(np.flatnonzero(twice))} name a vertex twice: drop them, or repair=True"
            )
        self.winding = wind(triangles)
        if self.winding.flipped:
            repairs.append(f"{self.winding.flipped} faces were turned over to face the same side as their neighbours")
        if self.winding.crowded_edges:
            repairs.append(f"{self.winding.crowded_edges} edges have more than two faces: no manifold there")
        if self.winding.pinched.size:
            repairs.append(
                f"parts of the surface touch at {self.winding.pinched.size} vertices ({some(self.winding.pinched)}) "
                "without sharing an edge: no manifold there"
            )
        self.faces = self._outwards(points)
        self.areas = face_areas(points, self.faces)
        self.laplacian_kind = laplacian
        normals = vertex_normals(points, self.faces, self.winding.orientable)
        build = _robust_edges if laplacian == "robust" else cotangent_edges
        edges, weights, mass = build(points, self.faces)
        unit = float(mass.mean())
        negative = weights < -1e-5 * np.median(np.abs(weights))  # robust weights are zero to rounding in places
        if negative.any():
            repairs.append(f"{int(negative.sum())} edges have negative cotangent weights; laplacian='robust' has none")
        super().__init__(
            points,
            frames_of_normals(normals),
            edges,
            weights / unit,
            mass / unit,
            components=components,
            repairs=tuple(repairs),
            oriented=self.winding.orientable,
        )
        self._announce()

    @classmethod
    def load(cls, path: str | Path, *, laplacian: str = "robust", repair: bool = True, **kwargs: Any) -> Mesh:
        """Read a mesh file (OBJ, PLY, OFF, STL) through potpourri3d.

        Raises:
            MissingDependencyError: potpourri3d is not installed.
            InvalidDataError: the file cannot be read as a triangle mesh.
        """
        try:
            import potpourri3d
        except ImportError:
            raise MissingDependencyError.for_extra(
                "potpourri3d", extra="manifold", purpose="reading mesh files"
            ) from None
        if not Path(path).is_file():
            raise InvalidDataError(f"there is no mesh file {path}")
        try:
            vertices, faces = potpourri3d.read_mesh(str(path))
        except (RuntimeError, ValueError, IndexError) as error:  # what its C++ throws at words in place of numbers
            raise InvalidDataError(f"{path} is not a triangle mesh that can be read: {error}") from None
        return cls(vertices, faces, laplacian=laplacian, repair=repair, **kwargs)

    def _outwards(self, points: Floats) -> Integers:
        faces = self.winding.faces
        closed = self.winding.orientable and not self.winding.boundary_edges
        if closed:
            corners = points[faces] - points.mean(0)
            if np.einsum("fx,fx->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() < 0.0:
                return np.ascontiguousarray(faces[:, ::-1])
        return faces

    @property
    def area(self) -> float:
        """Surface area, in squared units of the vertices."""
        return float(self.areas.sum())

    @property
    def euler_characteristic(self) -> int:
        """Vertices - edges + faces: 2 for spheres, 0 for tori."""
        sides = np.sort(np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]]), axis=1)
        return self.n - len(np.unique(sides, axis=0)) + len(self.faces)

    def locate(self, points: Any) -> Location:
        """The nearest places on the surface, seen from the corners of their triangles.

        Places further from the surface than two median edge lengths are flagged as far.
        """
        places = as_points(points, columns=3) if np.size(points) else np.zeros((0, 3))
        face, weights, distance = nearest_on_triangles(places, self.points, self.faces)
        corners = self.faces[face]
        # The plane across the interpolated normal, turned like the corner that weighs most.
        normal = np.cross(self.frames[..., 0], self.frames[..., 1])[corners]
        lead = np.take_along_axis(corners, weights.argmax(1)[:, None], 1)[:, 0]
        reference = np.cross(self.frames[lead, :, 0], self.frames[lead, :, 1])
        sign = np.where((normal * reference[:, None]).sum(2) < 0.0, -1.0, 1.0)
        mean = (weights[..., None] * sign[..., None] * normal).sum(1)
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        mean = np.where(length > 1e-8, mean / np.where(length > 0.0, length, 1.0), reference)
        frames = frames_of_normals(mean)
        on_node = weights.max(1) >= 1.0 - 1e-12
        on_node &= distance <= 1e-12 * self.scale
        frames[on_node] = self.frames[lead[on_node]]
        rotations, _ = polar(np.einsum("mai,mkaj->mkij", frames, self.frames[corners]).reshape(-1, 2, 2))
        lengths = np.linalg.norm(self.points[self.edges[:, 0]] - self.points[self.edges[:, 1]], axis=1)
        return Location(
            points=places,
            neighbours=corners,
            weights=np.clip(weights, 0.0, 1.0),
            frames=frames,
            transports=rotations.reshape(-1, 3, 2, 2),
            mass=np.zeros(len(places)),
            distance=distance,
            far=distance > _FAR * np.median(lengths),
            nodes=np.where(on_node, lead, -1),
        )


def _robust_edges(vertices: Floats, faces: Integers) -> tuple[Integers, Floats, Floats]:
    """Edges, weights and masses of the robust Laplacian; its edges may cross those of the mesh."""
    try:
        import robust_laplacian
    except ImportError:
        raise MissingDependencyError.for_extra(
            "robust-laplacian", extra="manifold", purpose="laplacian='robust' (there is also 'cotangent')"
        ) from None
    stiffness, mass = robust_laplacian.mesh_laplacian(vertices, faces)
    upper = sparse.triu(stiffness, k=1).tocoo()
    kept = upper.data != 0.0
    edges = np.stack([upper.row[kept], upper.col[kept]], 1).astype(np.int64)
    return edges, -upper.data[kept], np.asarray(mass.diagonal(), dtype=np.float64)
