"""Small surfaces with fields that no model has made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from gpkit.geometry import PointCloud

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """A cloud, and a tangent field at its nodes and at other points of the surface."""

    cloud: PointCloud
    vectors: Array
    others: Array
    other_vectors: Array


def fibonacci(n: int) -> Array:
    i = np.arange(n)
    z = 1.0 - (2.0 * i + 1.0) / n
    angle, r = np.pi * (1.0 + np.sqrt(5.0)) * (i + 0.5), np.sqrt(1.0 - z**2)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


def field(x: Array) -> Array:
    """Gradient of x y + z^2 along the sphere, plus a rotation about the y axis: one source, sinks and saddles."""
    flow = np.stack([x[:, 1], x[:, 0], 2.0 * x[:, 2]], axis=1)
    flow += np.cross([0.0, 1.0, 0.0], x)
    return np.asarray(flow - x * (flow * x).sum(1, keepdims=True))


@pytest.fixture(scope="session")
def sphere() -> Surface:
    nodes = fibonacci(200)
    others = np.random.default_rng(5).standard_normal((60, 3))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    return Surface(PointCloud(nodes, dim=2), field(nodes), others, field(others))
