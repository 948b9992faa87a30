"""Slopes by local polynomials against analysis: flat discs, spheres, tori, meshes, noisy and poor neighbourhoods."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpkit.errors import DataWarning
from gpkit.geometry import Manifold, Mesh, PointCloud
from gpkit.models.fields.calculus import FieldFunctional, curl_operator, divergence_operator, gradient_operator
from gpkit.models.fields.local_slopes import LocalSlopes

Array = NDArray[np.float64]


def random_sphere(n: int, seed: int = 0) -> Array:
    x = np.random.default_rng(seed).standard_normal((n, 3))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def harmonics(x: Array) -> tuple[Array, Array]:
    """Gradients along the sphere of a harmonic of degree two and one of degree three, and their Laplacians."""
    first, second, third = x.T
    flat = np.stack([second + first**2 - second**2, first - 2.0 * first * second, 2.0 * third], axis=1)
    flat -= x * (flat * x).sum(1, keepdims=True)
    values = -6.0 * (first * second + third**2 - 1.0 / 3.0) - 12.0 * (first**3 / 3.0 - first * second**2)
    return flat, values


def relative(found: Array, true: Array) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def errors_on_the_sphere(cloud: Manifold) -> tuple[float, float, float]:
    """Of the divergence of a gradient, of the curl of the turned one, and what curl the gradient is said to have."""
    gradient, laplacian = harmonics(cloud.points)
    straight = cloud.to_tangent(gradient)[0].ravel()
    turned = cloud.to_tangent(np.cross(cloud.normals, gradient))[0].ravel()
    curl = curl_operator(cloud)
    none = float(np.linalg.norm(curl @ straight) / np.linalg.norm(laplacian))
    return relative(divergence_operator(cloud) @ straight, laplacian), relative(curl @ turned, laplacian), none


def test_cubic_fields_of_flat_discs_are_exact() -> None:
    """Wherever a node lies, on the border too, and however the frames are turned."""
    rng = np.random.default_rng(0)
    radius, angle = np.sqrt(rng.uniform(size=300)), rng.uniform(0.0, 2.0 * np.pi, 300)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    cloud = PointCloud(np.stack([x, y], axis=1), dim=2)
    slopes = LocalSlopes.of(cloud)
    assert (slopes.degree == 3).mean() > 0.98 and slopes.degree.min() >= 2
    cubic = slopes.degree == 3
    field = cloud.to_tangent(np.stack([x * y**2 - 3.0 * x, x**3 + x * y + 1.0], axis=1))[0].ravel()
    handed = np.sign(np.linalg.det(cloud.frames[0]))
    np.testing.assert_allclose((slopes.divergence() @ field)[cubic], (y**2 - 3.0 + x)[cubic], atol=1e-9)
    curl = handed * (3.0 * x**2 + y - 2.0 * x * y)
    np.testing.assert_allclose((slopes.curl() @ field)[cubic], curl[cubic], atol=1e-9)
    constant = cloud.to_tangent(np.tile([0.7, -2.0], (300, 1)))[0].ravel()
    np.testing.assert_allclose(slopes.divergence() @ constant, 0.0, atol=1e-10)
    gradient = (slopes.gradient() @ (x * y - y**2)).reshape(-1, 2)
    np.testing.assert_allclose(cloud.to_ambient(gradient), np.stack([y, x - 2.0 * y], axis=1), atol=1e-9)


def test_order_on_random_clouds() -> None:
    """Linear fits have 13 % at a thousand nodes, and half of it at four thousand."""
    coarse, fine = (errors_on_the_sphere(PointCloud(random_sphere(n), dim=2)) for n in (500, 2000))
    assert max(coarse) < 0.02
    for before, after in zip(coarse, fine, strict=True):
        assert before / after > 5.0, "third order would be 8, second 4"


def test_rotations_have_no_divergence() -> None:
    cloud = PointCloud(random_sphere(800, 3), dim=2)
    field = np.cross([0.3, -1.0, 0.5], cloud.points)
    coordinates = cloud.to_tangent(field)[0].ravel()
    assert np.abs(divergence_operator(cloud) @ coordinates).max() < 0.02
    assert np.abs(curl_operator(cloud) @ coordinates - 2.0 * cloud.points @ [0.3, -1.0, 0.5]).max() < 0.02


def test_torus() -> None:
    """Both curvatures, of either sign."""
    rng = np.random.default_rng(1)
    u, v, keep = rng.uniform(0.0, 2.0 * np.pi, (3, 4000))
    u, v = (angle[keep / (2.0 * np.pi) * 1.4 < 1.0 + 0.4 * np.cos(v)][:1500] for angle in (u, v))
    s = 1.0 + 0.4 * np.cos(v)
    cloud = PointCloud(np.stack([s * np.cos(u), s * np.sin(u), 0.4 * np.sin(v)], axis=1), dim=2)
    along = np.stack([-np.sin(u), np.cos(u), 0.0 * u], axis=1)
    around = np.stack([-np.sin(v) * np.cos(u), -np.sin(v) * np.sin(u), np.cos(v)], axis=1)
    field = np.cos(2.0 * u + v)[:, None] * along + np.sin(u - v)[:, None] * around
    divergence = (-2.0 * np.sin(2.0 * u + v) - np.sin(v) * np.sin(u - v)) / s - np.cos(u - v) / 0.4
    curl = (np.cos(u - v) + np.sin(v) * np.cos(2.0 * u + v)) / s + np.sin(2.0 * u + v) / 0.4
    coordinates = cloud.to_tangent(field)[0].ravel()
    assert relative(divergence_operator(cloud) @ coordinates, divergence) < 0.02
    assert relative(curl_operator(cloud) @ coordinates, curl) < 0.02


def test_meshes_take_neighbours_of_neighbours() -> None:
    pytest.importorskip("robust_laplacian", reason="mesh Laplacians need the extra manifold")
    from scipy.spatial import ConvexHull

    x = random_sphere(600, 1)
    faces = ConvexHull(x).simplices
    inwards = np.linalg.det(x[faces]) < 0.0
    faces[inwards] = faces[inwards, ::-1]
    mesh = Mesh(x, faces)
    slopes = LocalSlopes.of(mesh)
    assert (slopes.degree == 3).all() and np.bincount(slopes.rows).min() >= 18
    assert max(errors_on_the_sphere(mesh)) < 0.05


def test_noisy_points_have_larger_neighbourhoods() -> None:
    """Noise of places is noise of differences: more of them even it out, as they do for the frames."""
    x = random_sphere(1500, 2)
    gradient, laplacian = harmonics(x)
    noise = 0.01 * np.random.default_rng(3).standard_normal(x.shape)
    cloud = PointCloud(x + noise, dim=2, frame_neighbors=60)
    wide = LocalSlopes.of(cloud)
    assert np.bincount(wide.rows).min() == 60
    coordinates = cloud.to_tangent(gradient)[0].ravel()
    error = relative(wide.divergence() @ coordinates, laplacian)
    cloud.frame_neighbors = 15
    assert error < 0.6 * relative(divergence_operator(cloud) @ coordinates, laplacian)


def test_poor_neighbourhoods_have_lower_degrees() -> None:
    """Three rows of nodes know no third derivative across; three neighbours allow a linear fit; none, nothing."""
    x = np.stack(np.meshgrid(np.arange(20.0), np.arange(3.0)), axis=-1).reshape(-1, 2)
    strip = PointCloud(x, dim=2, n_neighbors=8)
    slopes = LocalSlopes.of(strip)
    assert (slopes.degree == 2).all()
    field = strip.to_tangent(np.stack([x[:, 0] ** 2 + x[:, 0] * x[:, 1], x[:, 1] ** 2], axis=1))[0].ravel()
    np.testing.assert_allclose(slopes.divergence() @ field, 2.0 * x[:, 0] + 3.0 * x[:, 1], atol=1e-9)
    few = PointCloud(np.random.default_rng(0).standard_normal((4, 2)), dim=2, n_neighbors=3)
    assert LocalSlopes.of(few).degree.tolist() == [1, 1, 1, 1]
    with pytest.warns(DataWarning):
        lonely = PointCloud(np.concatenate([x, [[900.0, 900.0]]]), dim=2, n_neighbors=8, components="keep")
    slopes = LocalSlopes.of(lonely)
    assert slopes.degree[-1] == 0 and not gradient_operator(lonely)[-2:].count_nonzero()
    found = FieldFunctional(np.zeros(61), np.ones(61), None, "curl", "1/s", slopes.degree)
    assert repr(found).endswith("median sd 1 1/s, 1 by polynomials below degree 2)")


def test_large_neighbourhoods_are_cut_to_the_nearest() -> None:
    rng = np.random.default_rng(4)
    cloud = PointCloud(rng.uniform(size=(200, 3)), dim=3, n_neighbors=30)
    slopes = LocalSlopes.of(cloud)
    assert np.bincount(slopes.rows).max() <= 60 and (slopes.degree == 3).mean() > 0.9
    distance = np.linalg.norm(cloud.points - cloud.points[0], axis=1)
    assert set(slopes.columns[slopes.rows == 0]) == set(np.argsort(distance)[1:61])
