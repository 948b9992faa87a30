"""What a vector-field model has to beat, and the numbers by which that is judged."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from gpkit.geometry import Manifold
from gpkit.models import ScalarFieldGP

Z95 = 1.959963984540054


def angular_error(found: np.ndarray, true: np.ndarray) -> float:
    """Mean angle in degrees; a vector of zero length counts as 90 degrees."""
    size = np.linalg.norm(found, axis=1) * np.linalg.norm(true, axis=1)
    cosine = np.where(size > 0.0, (found * true).sum(1) / np.where(size > 0.0, size, 1.0), 0.0)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean())


def rmse(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - true).sum(1).mean()))


def coverage(frames: np.ndarray, mean: np.ndarray, variance: np.ndarray, noise: float, targets: np.ndarray) -> float:
    """Share of noisy tangent coordinates inside their 95 % intervals."""
    rest = np.einsum("mad,ma->md", frames, targets - mean)
    return float((np.abs(rest) <= Z95 * np.sqrt(variance + noise**2)).mean())


def project(manifold: Manifold, nodes: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return manifold.to_ambient(manifold.to_tangent(vectors, nodes)[0], nodes)


def channel_gp(manifold: Manifold, train: np.ndarray, targets: np.ndarray, test: np.ndarray, kernel: str) -> np.ndarray:
    """An independent Gaussian process for each coordinate of the space, the mean projected afterwards."""
    columns = []
    for axis in range(targets.shape[1]):
        model = ScalarFieldGP(manifold, f"projected:{kernel}", mean="zero")
        model.fit(train, targets[:, axis], progress=False)
        columns.append(model.predict(test).mean)
    return project(manifold, test, np.stack(columns, axis=1))


def linear_interpolation(
    manifold: Manifold, train: np.ndarray, targets: np.ndarray, test: np.ndarray, neighbours: int = 8
) -> np.ndarray:
    """Local linear fits in the tangent plane to the nearest observed vectors, tricube weights."""
    count = min(neighbours, len(train))
    distance, near = cKDTree(manifold.points[train]).query(manifold.points[test], count)
    distance, near = distance.reshape(len(test), count), near.reshape(len(test), count)
    out = np.zeros((len(test), targets.shape[1]))
    for row, node in enumerate(test):
        step = (manifold.points[train[near[row]]] - manifold.points[node]) @ manifold.frames[node]
        weight = np.sqrt(np.maximum(1.0 - (distance[row] / (1.1 * distance[row, -1] + 1e-300)) ** 3, 1e-3))
        design = np.concatenate([np.ones((count, 1)), step], axis=1) * weight[:, None]
        ridge = 1e-3 * np.diag([0.0] + [float(np.square(design[:, 1:]).mean()) + 1e-12] * step.shape[1])
        solution = np.linalg.lstsq(
            design.T @ design + ridge, design.T @ (targets[near[row]] * weight[:, None]), rcond=None
        )
        out[row] = solution[0][0]
    return project(manifold, test, out)


def nearest(manifold: Manifold, train: np.ndarray, targets: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The vector of the nearest observed node: the trivial baseline."""
    _, near = cKDTree(manifold.points[train]).query(manifold.points[test])
    return project(manifold, test, targets[near])
