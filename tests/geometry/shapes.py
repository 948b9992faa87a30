"""Point sets and meshes with known geometry."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull


def fibonacci(n: int) -> np.ndarray:
    i = np.arange(n)
    z = 1.0 - (2 * i + 1) / n
    angle = np.pi * (1.0 + 5.0**0.5) * (i + 0.5)
    r = np.sqrt(1.0 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], 1)


def sphere_mesh(n: int) -> tuple[np.ndarray, np.ndarray]:
    points = fibonacci(n)
    faces = ConvexHull(points).simplices.astype(np.int64)
    inwards = np.linalg.det(points[faces]) < 0.0
    faces[inwards] = faces[inwards, ::-1]
    return points, faces


def torus(n: int, seed: int = 0, big: float = 1.0, small: float = 0.4) -> np.ndarray:
    """Uniform in area."""
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(0, 2 * np.pi, (2, 4 * n))
    keep = rng.uniform(0, big + small, 4 * n) < big + small * np.cos(v)
    u, v = u[keep][:n], v[keep][:n]
    r = big + small * np.cos(v)
    return np.stack([r * np.cos(u), r * np.sin(u), small * np.sin(v)], 1)


def flat_torus(n: int, seed: int = 0) -> np.ndarray:
    a, b = np.random.default_rng(seed).uniform(0, 2 * np.pi, (2, n))
    return np.stack([np.cos(a), np.sin(a), np.cos(b), np.sin(b)], 1)


def moebius(rows: int = 7, columns: int = 60) -> tuple[np.ndarray, np.ndarray]:
    u = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    t = np.linspace(-0.3, 0.3, rows)
    uu, tt = np.meshgrid(u, t, indexing="ij")
    r = 1.0 + tt * np.cos(uu / 2)
    points = np.stack([r * np.cos(uu), r * np.sin(uu), tt * np.sin(uu / 2)], -1).reshape(-1, 3)
    faces = []
    for i in range(columns):
        for j in range(rows - 1):
            k = (i + 1) % columns
            a, b = i * rows + j, i * rows + j + 1
            c, d = (k * rows + j, k * rows + j + 1) if k else (rows - 1 - j, rows - 2 - j)
            faces += [[a, c, b], [b, c, d]]
    return points, np.array(faces)


def random_rotation(d: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
