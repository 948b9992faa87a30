"""Derivatives on the sphere against analysis; indices against Euler's number for any field whatever."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.geometry import PointCloud, furthest_point_sample
from gpkit.models.fields.calculus import curl_operator, divergence_operator, gradient_operator
from gpkit.models.fields.singularities import find_singularities, triangle_indices
from gpkit.models.fields.triangulation import euler_characteristic, surface_triangles
from tests.models.fields.conftest import fibonacci

Array = NDArray[np.float64]


def torus(n: int, rng: np.random.Generator) -> Array:
    u, v = rng.uniform(0.0, 2.0 * np.pi, (2, 8 * n))
    r = 1.0 + 0.4 * np.cos(v)
    x = np.stack([r * np.cos(u), r * np.sin(u), 0.4 * np.sin(v)], axis=1)
    return np.asarray(x[furthest_point_sample(x, count=n)])


def sheet(n: int, rng: np.random.Generator) -> Array:
    x = rng.uniform(0.0, 1.0, (8 * n, 2))
    x = x[furthest_point_sample(x, count=n)]
    return np.concatenate([x, 0.1 * np.sin(3.0 * x[:, :1])], axis=1)


def test_derivatives_on_the_sphere() -> None:
    """f = x y + z^2 is a harmonic of degree two and a constant: its Laplacian is -6 (f - 1/3)."""
    x = fibonacci(1500)
    cloud = PointCloud(x, dim=2)
    f = x[:, 0] * x[:, 1] + x[:, 2] ** 2
    exact = np.stack([x[:, 1], x[:, 0], 2.0 * x[:, 2]], axis=1)
    exact -= x * (exact * x).sum(1, keepdims=True)
    found = cloud.to_ambient((gradient_operator(cloud) @ f).reshape(-1, 2))
    assert np.linalg.norm(found - exact) < 0.03 * np.linalg.norm(exact)
    laplacian = -6.0 * (f - 1.0 / 3.0)
    coordinates = cloud.to_tangent(exact)[0].ravel()
    turned = cloud.to_tangent(np.cross(cloud.normals, exact))[0].ravel()
    for operator, values in ((divergence_operator(cloud), coordinates), (curl_operator(cloud), turned)):
        assert np.linalg.norm(operator @ values - laplacian) < 0.03 * np.linalg.norm(laplacian)
    assert np.linalg.norm(curl_operator(cloud) @ coordinates) < 0.02 * np.linalg.norm(laplacian)


@pytest.mark.parametrize(("kind", "euler"), [("fibonacci", 2), ("random sphere", 2), ("torus", 0)])
def test_indices_of_any_field_add_up(kind: str, euler: int) -> None:
    rng = np.random.default_rng(1)
    if kind == "torus":
        points = torus(700, rng)
    else:
        points = fibonacci(500) if kind == "fibonacci" else rng.standard_normal((500, 3))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    cloud = PointCloud(points, dim=2)
    triangles = surface_triangles(cloud)
    assert euler_characteristic(triangles) == (euler, True)
    fields = rng.standard_normal((6, cloud.n, 2))
    assert (triangle_indices(cloud, triangles, fields).sum(1) == euler).all()


def test_known_singularities() -> None:
    """Rotation about an axis turns around both poles; a dipole's gradient has a source and a sink."""
    x = fibonacci(400)
    cloud = PointCloud(x, dim=2)
    vectors = np.cross([0.0, 0.0, 1.0], x)
    coordinates = cloud.to_tangent(vectors)[0]

    def draw(count: int, seed: int) -> Array:
        noise = np.random.default_rng(seed).standard_normal((count, *coordinates.shape))
        return np.asarray(coordinates + 0.01 * noise)

    found = find_singularities(cloud, coordinates, draw, draws=30)
    assert sorted(round(float(s.location[2])) for s in found.found) == [-1, 1]
    assert [s.index for s in found.found] == [1, 1] and min(s.probability for s in found.found) > 0.9
    assert found.total == 2 and (found.draw_totals == 2).all() and "+1" in repr(found)
    assert all(s.in_mean for s in found.found) and found.at_least(1.01) == ()
    nothing = find_singularities(cloud, coordinates, draw, draws=1, radius=0.5)
    assert nothing.radius == 0.5
    with pytest.raises(InvalidDataError, match="at least one draw"):
        find_singularities(cloud, coordinates, draw, draws=0)
    with pytest.raises(InvalidDataError, match="least is a probability"):
        find_singularities(cloud, coordinates, draw, least=0.0)


def test_pairs_that_the_mean_does_not_have() -> None:
    """A saddle and a vortex that two draws of three have, each once; the mean has neither, and no sum shows them."""
    x = fibonacci(1200)
    cloud = PointCloud(x, dim=2)
    axis = np.array([0.0, 0.0, 1.0])
    turn = np.cross(axis, x)
    centre = np.array([1.0, 0.0, 0.0])
    # A turn around a place of the equator: where it runs against the large one, there are a vortex and a saddle.
    spot = np.exp(-0.5 * np.square((x - centre) / 0.18).sum(1))[:, None] * np.cross(centre, x) / 0.18
    smooth, paired = (cloud.to_tangent(turn + strength * spot)[0] for strength in (0.0, 4.0))

    def draw(count: int, seed: int) -> Array:
        return np.stack([smooth if (seed + row) % 3 == 0 else paired for row in range(count)])

    found = find_singularities(cloud, smooth, draw, draws=30)
    poles, others = ([s for s in found.found if s.in_mean is known] for known in (True, False))
    assert [s.index for s in poles] == [1, 1] and min(s.probability for s in poles) == 1.0
    assert sorted(s.index for s in others) == [-1, 1] and found.total == 2
    assert all(s.probability == pytest.approx(2.0 / 3.0) for s in others)
    exact = find_singularities(cloud, paired, draw, draws=3)
    for pair in others:
        there = next(s for s in exact.found if s.index == pair.index and abs(s.location[2]) < 0.5)
        assert np.linalg.norm(there.location - pair.location) < found.radius
    assert len(found.at_least(0.7)) == 2
    assert len(find_singularities(cloud, smooth, draw, draws=30, least=0.7)) == 2


def test_chance_is_not_believed() -> None:
    """Noise has singular points anywhere: where draws happen to agree, new draws have as few as elsewhere."""
    cloud = PointCloud(fibonacci(100), dim=2, n_neighbors=8)

    def draw(count: int, seed: int) -> Array:
        return np.random.default_rng(seed).standard_normal((count, cloud.n, 2))

    axis = np.array([0.0, 0.0, 1.0])
    turn = cloud.to_tangent(np.cross(axis, cloud.points))[0]
    found = find_singularities(cloud, turn, draw, draws=60, radius=1e-6, least=0.2)
    others = [s for s in found.found if not s.in_mean]
    fresh = triangle_indices(cloud, found.triangles, draw(400, 10**6))
    rates = [float((np.sign(s.index) * fresh[:, s.triangle] > 0).mean()) for s in others]
    assert len(others) > 30
    assert np.mean([s.probability for s in others]) == pytest.approx(np.mean(rates), abs=0.03)


def test_open_surfaces_have_a_border() -> None:
    cloud = PointCloud(sheet(300, np.random.default_rng(2)), dim=2)
    triangles = surface_triangles(cloud)
    euler, closed = euler_characteristic(triangles)
    assert euler == 1 and not closed
    constant = cloud.to_tangent(np.tile([1.0, 0.3, 0.0], (300, 1)))[0]
    assert not triangle_indices(cloud, triangles, constant).any()


def test_not_a_surface() -> None:
    t = np.linspace(0.0, 6.0, 50)
    curve = PointCloud(np.stack([np.cos(t), np.sin(t)], axis=1), dim=1, n_neighbors=4)
    with pytest.raises(InvalidDataError, match="dimension 1"):
        surface_triangles(curve)
    with pytest.raises(InvalidDataError, match="surfaces only"):
        curl_operator(curve)
    assert euler_characteristic(np.zeros((0, 3), dtype=np.int64)) == (0, False)
