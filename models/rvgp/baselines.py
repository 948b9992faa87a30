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


def channel_gp(
    manifold: Manifold, train: np.ndarray, targets: np.ndarray, test: np.ndarray, kernel: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An independent Gaussian process for each coordinate of the space: means, variances and variances of the noise."""
    means, variances, noise = [], [], []
    for axis in range(targets.shape[1]):
        model = ScalarFieldGP(manifold, f"projected:{kernel}", mean="zero")
        model.fit(train, targets[:, axis], progress=False)
        found = model.predict(test)
        means.append(found.mean)
        variances.append(found.variance)
        noise.append(float(found.noise[0]) ** 2)
    return np.stack(means, axis=1), np.stack(variances, axis=1), np.array(noise)


def all_scores(
    manifold: Manifold, train: np.ndarray, observed: np.ndarray, test: np.ndarray, vectors: np.ndarray
) -> dict[str, float]:
    """Angular errors of all baselines, and what else they can say, by name."""
    out: dict[str, float] = {}
    frames = manifold.frames[test]
    for kernel in ("rbf", "matern52"):
        mean, variance, noise = channel_gp(manifold, train, observed[train], test, kernel)
        projected = project(manifold, test, mean)
        error = angular_error(projected, vectors[test])
        if error > out.get("channel", np.inf):  # the better one in hindsight
            continue
        spread = np.einsum("mai,ma,maj->mij", frames, variance + noise, frames)
        out |= {
            "channel": error,
            "channel rmse": rmse(projected, vectors[test]),
            "channel nlpd": negative_log_density(frames, projected, spread, observed[test]),
            "channel coverage": coverage(frames, projected, np.einsum("mii->mi", spread), 0.0, observed[test]),
        }
    for label, method in {"linear": linear_interpolation, "nearest": nearest}.items():
        found = method(manifold, train, observed[train], test)
        out |= {label: angular_error(found, vectors[test]), f"{label} rmse": rmse(found, vectors[test])}
    # Knowing the size of the vectors and nothing else.
    size = np.square(manifold.to_tangent(observed[train], train)[0]).mean()
    constant = np.broadcast_to(size * np.eye(frames.shape[2]), (len(test), frames.shape[2], frames.shape[2]))
    return out | {
        "constant nlpd": negative_log_density(frames, np.zeros_like(observed[test]), constant, observed[test])
    }


def negative_log_density(frames: np.ndarray, mean: np.ndarray, covariance: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative log density of tangent coordinates under normal distributions with covariances (m, d, d)."""
    rest = np.einsum("mad,ma->md", frames, targets - mean)
    quadratic = np.einsum("md,md->m", rest, np.linalg.solve(covariance, rest[..., None])[..., 0])
    d = frames.shape[2]
    return float(0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + d * np.log(2.0 * np.pi)).mean())


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
