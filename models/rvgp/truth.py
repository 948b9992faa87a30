"""Fields that no model of this package has made: potential flows, harmonics, flows on folded sheets, wind.

Every set is a cloud of points on a surface, its normals, and a tangent field of unit root mean square. None of them
uses a graph Laplacian.
"""

from __future__ import annotations

import csv
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import sph_harm_y

from gpkit.errors import DataWarning
from gpkit.geometry import Mesh, furthest_point_sample


@dataclass(frozen=True)
class Set:
    """Points (n, 3), unit normals (n, 3) and true vectors (n, 3)."""

    name: str
    points: np.ndarray
    normals: np.ndarray
    vectors: np.ndarray


def load_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and vertex normals of an OBJ file; repeated vertices are merged, those without normal dropped."""
    vertices, faces = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if line.startswith("v "):
            vertices.append([float(word) for word in words[1:4]])
        elif line.startswith("f "):
            corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
            faces += [[corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1)]
    x, f = np.array(vertices), np.array(faces)
    x -= x.mean(0)
    _, kept, merged = np.unique(np.round(x, 9), axis=0, return_index=True, return_inverse=True)
    x, f = x[kept], merged.ravel()[f]
    f = f[(f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 0] != f[:, 2])]
    areas = np.cross(x[f[:, 1]] - x[f[:, 0]], x[f[:, 2]] - x[f[:, 0]])
    normals = np.zeros_like(x)
    for corner in range(3):
        np.add.at(normals, f[:, corner], areas)
    length = np.linalg.norm(normals, axis=1)
    good = np.flatnonzero(length > 0.0)
    renumber = np.full(len(x), -1)
    renumber[good] = np.arange(len(good))
    f = renumber[f]
    return x[good], f[(f >= 0).all(1)], normals[good] / length[good, None]


def diameter(points: np.ndarray) -> float:
    """The largest distance between points, by going to the furthest one until that is no longer further."""
    at, found = 0, 0.0
    while True:
        distance = np.linalg.norm(points - points[at], axis=1)
        if distance.max() <= found:
            return found
        at, found = int(distance.argmax()), float(distance.max())


def unit(field: np.ndarray) -> np.ndarray:
    return field / np.sqrt(np.square(field).sum(1).mean())


def potential_flow(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator, ell: float = 0.6) -> np.ndarray:
    """Projected gradient of one random potential of the surrounding space, plus a rotated one of another."""
    radius = math.sqrt(np.square(points - points.mean(0)).sum(1).mean())

    def gradient(waves: int = 200) -> np.ndarray:
        a, b = rng.standard_normal(waves), rng.uniform(0.0, 2.0 * math.pi, waves)
        w = rng.standard_normal((waves, 3)) / (ell * radius)
        return -math.sqrt(2.0 / waves) * (np.sin(points @ w.T + b) * a) @ w

    first, second = gradient(), gradient()
    flow = first - normals * (first * normals).sum(1, keepdims=True) + np.cross(normals, second)
    return unit(flow)


def mesh_set(folder: Path, name: str, n: int, rng: np.random.Generator, ell: float = 0.6) -> Set:
    """A potential flow at vertices of a mesh that are chosen far from each other."""
    x, _, normals = load_mesh(folder / f"{name}.obj")
    flow = potential_flow(x, normals, rng, ell)
    chosen = furthest_point_sample(x, count=n, start=int(rng.integers(len(x))))
    return Set(name, x[chosen], normals[chosen], unit(flow[chosen]))


def whole_mesh(folder: Path, name: str, n: int, rng: np.random.Generator) -> tuple[Set, Mesh, np.ndarray]:
    """The same on all vertices of a mesh, with the mesh, and the numbers of n vertices far from each other."""
    x, faces, _ = load_mesh(folder / f"{name}.obj")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        mesh = Mesh(x, faces)
    normals = mesh.normals
    chosen = furthest_point_sample(mesh.points, count=n, start=int(rng.integers(mesh.n)))
    flow = potential_flow(mesh.points, normals, rng)
    return Set(name, mesh.points, normals, flow / np.sqrt(np.square(flow[chosen]).sum(1).mean())), mesh, np.sort(chosen)


def fibonacci(n: int) -> np.ndarray:
    i = np.arange(n)
    z = 1.0 - (2.0 * i + 1.0) / n
    angle, r = math.pi * (1.0 + math.sqrt(5.0)) * (i + 0.5), np.sqrt(1.0 - z**2)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


def harmonic_set(n: int, rng: np.random.Generator, degree: int = 6) -> Set:
    """A sum of vector spherical harmonics up to a degree, on random points of the sphere."""
    x = rng.standard_normal((n, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def function(at: np.ndarray, weights: dict[tuple[int, int], complex]) -> np.ndarray:
        at = at / np.linalg.norm(at, axis=1, keepdims=True)
        colatitude, longitude = np.arccos(np.clip(at[:, 2], -1, 1)), np.arctan2(at[:, 1], at[:, 0])
        return sum((w * sph_harm_y(k[0], k[1], colatitude, longitude)).real for k, w in weights.items())

    parts = []
    for _ in range(2):
        weights = {
            (order, m): complex(*rng.standard_normal(2)) / (1 + order) ** 1.5
            for order in range(1, degree + 1)
            for m in range(order + 1)
        }
        step = 1e-5
        parts.append(
            np.stack(
                [(function(x + step * e, weights) - function(x - step * e, weights)) / (2 * step) for e in np.eye(3)], 1
            )
        )
    return Set("harmonics", x, x, unit(parts[0] + np.cross(x, parts[1])))


def harmonic_torus(n: int, rng: np.random.Generator, big: float = 1.0, small: float = 0.4) -> Set:
    """A field without divergence or curl on a torus of revolution, at points far from each other.

    With angles u along the ring and v around the tube, and w = big + small cos v, the harmonic forms are du and dv / w.
    """
    u, v = rng.uniform(0.0, 2.0 * math.pi, (2, 16 * n))
    kept = rng.uniform(0.0, big + small, 16 * n) < big + small * np.cos(v)  # uniform in area
    u, v = u[kept], v[kept]

    def at(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        w = big + small * np.cos(v)
        return np.stack([w * np.cos(u), w * np.sin(u), small * np.sin(v)], axis=1)

    chosen = furthest_point_sample(at(u, v), count=n, start=0)
    u, v = u[chosen], v[chosen]
    w = (big + small * np.cos(v))[:, None]
    along = np.stack([-np.sin(u), np.cos(u), np.zeros(n)], axis=1)
    around = np.stack([-np.sin(v) * np.cos(u), -np.sin(v) * np.sin(u), np.cos(v)], axis=1)
    a, b = rng.standard_normal(2)
    return Set("harmonic torus", at(u, v), np.cross(along, around), unit(a * along / w + b * around / (small * w)))


def _sheet(name: str, n: int, rng: np.random.Generator, ell: float, curve, length: float, width: float) -> Set:
    """A strip (arc length s, height v) rolled along a planar curve, with a flow of the flat strip on it."""
    plan = np.stack([rng.uniform(0.0, length, 8 * n), rng.uniform(0.0, width, 8 * n)], axis=1)
    plan = plan[furthest_point_sample(plan, count=n, start=0)]
    s, v = plan.T
    xy, tangent = curve(s)
    points = np.stack([xy[:, 0], v, xy[:, 1]], axis=1)
    along = np.stack([tangent[:, 0], np.zeros(n), tangent[:, 1]], axis=1)
    up = np.tile([0.0, 1.0, 0.0], (n, 1))

    def gradient(waves: int = 200) -> np.ndarray:
        a, b = rng.standard_normal(waves), rng.uniform(0.0, 2.0 * math.pi, waves)
        w = rng.standard_normal((waves, 2)) / ell
        return -math.sqrt(2.0 / waves) * (np.sin(plan @ w.T + b) * a) @ w

    first, second = gradient(), gradient()
    flat = first + np.stack([-second[:, 1], second[:, 0]], axis=1)
    return Set(name, points, np.cross(along, up), unit(flat[:, :1] * along + flat[:, 1:] * up))


def swiss_roll(n: int, rng: np.random.Generator, ell: float = 1.0, turns: float = 2.0, gap: float = 0.35) -> Set:
    """A rolled-up sheet: neighbouring windings are close in space and far along the sheet."""
    angle = np.linspace(0.0, 2.0 * math.pi * turns, 20001)
    radius = 0.4 + gap * angle / (2.0 * math.pi)
    curve = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _sheet("swiss roll", n, rng, ell, *_by_arc(curve), width=2.0)


def hairpin(n: int, rng: np.random.Generator, ell: float = 0.8, gap: float = 0.3) -> Set:
    """A sheet folded back on itself: two arms that nearly touch."""
    straight = np.linspace(0.0, 2.5, 5001)[:-1]
    bend = np.linspace(-0.5 * math.pi, 0.5 * math.pi, 2001)
    curve = np.concatenate(
        [
            np.stack([straight, np.zeros_like(straight)], 1),
            np.stack([2.5 + 0.5 * gap * np.cos(bend), 0.5 * gap + 0.5 * gap * np.sin(bend)], 1),
            np.stack([straight[::-1], np.full_like(straight, gap)], 1),
        ]
    )
    return _sheet("hairpin", n, rng, ell, *_by_arc(curve), width=1.5)


def _by_arc(curve: np.ndarray):
    steps = np.linalg.norm(np.diff(curve, axis=0), axis=1)
    arc = np.concatenate([[0.0], np.cumsum(steps)])

    def at(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        xy = np.stack([np.interp(s, arc, curve[:, k]) for k in range(2)], axis=1)
        ahead = np.stack([np.interp(np.minimum(s + 1e-3, arc[-1]), arc, curve[:, k]) for k in range(2)], axis=1)
        behind = np.stack([np.interp(np.maximum(s - 1e-3, 0.0), arc, curve[:, k]) for k in range(2)], axis=1)
        tangent = ahead - behind
        return xy, tangent / np.linalg.norm(tangent, axis=1, keepdims=True)

    return at, float(arc[-1])


def wind_set(folder: Path, n: int = 1500) -> Set:
    """Monthly mean wind at the grid nodes next to n Fibonacci points."""
    with (folder / "wind_month0.csv").open(encoding="utf-8") as file:
        rows = np.array([[float(r[k]) for k in ("lat", "lon", "u", "v")] for r in csv.DictReader(file)])
    latitude, longitude = np.radians(rows[:, 0]), np.radians(rows[:, 1])
    x = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1)
    east = np.stack([-np.sin(longitude), np.cos(longitude), np.zeros_like(longitude)], axis=1)
    north = np.stack(
        [-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)], axis=1
    )
    field = rows[:, 2:3] * east + rows[:, 3:4] * north
    away = np.abs(latitude) < 1.55
    x, field = x[away], field[away]
    chosen = np.unique(cKDTree(x).query(fibonacci(n))[1])
    return Set("wind, month 0", x[chosen], x[chosen], unit(field[chosen]))
