"""Frames, transport, Laplacians and places between the nodes: invariances, analytic fields, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import Mesh, PointCloud, connected_parts, furthest_point_sample
from gpkit.geometry.laplacian import connection_laplacian
from gpkit.geometry.transport import polar
from tests.geometry.shapes import fibonacci, moebius, random_rotation, sphere_mesh, torus


@pytest.fixture(scope="module")
def sphere():
    return PointCloud(fibonacci(1200), dim=2)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_polar_factors(d):
    rng = np.random.default_rng(d)
    matrices = rng.standard_normal((200, d, d))
    left, singular, right = np.linalg.svd(matrices)
    found, smallest = polar(matrices)
    np.testing.assert_allclose(found, left @ right, atol=1e-9)
    np.testing.assert_allclose(smallest, singular[:, -1], atol=1e-12)
    if d == 2:
        assert (np.linalg.det(polar(matrices, proper=True)[0]) > 0.0).all()


def test_connection_laplacian_against_dense_blocks(sphere):
    laplacian = sphere.laplacian("connection")
    n, d = 1200, 2
    dense = np.zeros((n * d, n * d))
    for (i, j), w, rotation in zip(sphere.edges, sphere.edge_weights, sphere.transports, strict=True):
        for a in (i, j):
            dense[a * d : a * d + d, a * d : a * d + d] += w * np.eye(d)
        dense[i * d : i * d + d, j * d : j * d + d] -= w * rotation
        dense[j * d : j * d + d, i * d : i * d + d] -= w * rotation.T
    np.testing.assert_allclose(laplacian.stiffness.toarray(), dense, atol=1e-12)
    values = np.random.default_rng(0).standard_normal((n, d))
    i, j = sphere.edges.T
    steps = values[i] - np.einsum("eab,eb->ea", sphere.transports, values[j])
    assert laplacian.energy(values.ravel()) == pytest.approx(float((sphere.edge_weights * (steps**2).sum(1)).sum()))
    assert laplacian.mass.mean() == pytest.approx(1.0)
    ones = sphere.laplacian("scalar").stiffness @ np.ones(n)
    np.testing.assert_allclose(ones, 0.0, atol=1e-9)


def test_gauges_do_not_matter(sphere):
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.standard_normal((1200, 2, 2)))[0]
    frames = sphere.frames @ turn
    i, j = sphere.edges.T
    rotations = np.swapaxes(turn[i], 1, 2) @ sphere.transports @ turn[j]
    other = connection_laplacian(sphere.edges, sphere.edge_weights, rotations, sphere.mass)
    from gpkit.geometry import SpectralBasis

    one = sphere.connection_basis(47)
    two = SpectralBasis.of(other, one.k, components=2, kind="connection", manifold=sphere, cut=None)
    np.testing.assert_allclose(two.eigenvalues, one.eigenvalues, rtol=1e-9)
    spectrum = 1.0 / (2.0 + one.eigenvalues) ** 2
    ambient = [b.reshape(-1, one.k) for b in (one.ambient(), frames @ two.functions)]
    kernels = [(b * spectrum) @ b.T for b in ambient]
    assert np.abs(kernels[0] - kernels[1]).max() < 1e-9 * np.abs(kernels[0]).max()


def test_kernels_turn_with_the_points(sphere):
    rotation = random_rotation(3)
    shift = np.array([3.0, -1.0, 0.5])
    turned = PointCloud(sphere.points @ rotation.T + shift, dim=2)
    one, two = sphere.connection_basis(47), turned.connection_basis(47)
    assert one.k == two.k
    spectrum = np.exp(-0.1 * one.eigenvalues)
    a = np.einsum("xy,nyk->nxk", rotation, one.ambient()).reshape(-1, one.k)
    b = two.ambient().reshape(-1, two.k)
    kernels = [(f * spectrum) @ f.T for f in (a, b)]
    assert np.abs(kernels[0] - kernels[1]).max() < 1e-9 * np.abs(kernels[0]).max()


def test_frames_and_orientation(sphere):
    assert sphere.orientable
    np.testing.assert_allclose(
        np.swapaxes(sphere.frames, 1, 2) @ sphere.frames, np.tile(np.eye(2), (1200, 1, 1)), atol=1e-12
    )
    cosine = (sphere.normals * sphere.points).sum(1)
    assert cosine.min() > 0.995  # outwards, and within 6 degrees
    assert (np.linalg.det(sphere.transports) > 0.0).all()
    with pytest.warns(DataWarning, match="negative cotangent weights"):
        strip = Mesh(*moebius(), laplacian="cotangent")
    assert not strip.orientable and not strip.winding.orientable
    points, faces = sphere_mesh(300)
    faces[::3] = faces[::3, ::-1]
    with pytest.warns(DataWarning, match="turned over"):
        mesh = Mesh(points, faces, laplacian="cotangent")
    assert mesh.orientable and ((mesh.normals * mesh.points).sum(1) > 0.99).all()
    report = str(sphere.diagnostics())
    assert "1200 nodes" in report and "orientable" in report


def test_tangent_coordinates(sphere):
    field = np.cross(np.array([0.0, 0.0, 1.0]), sphere.points)
    coordinates, normal = sphere.to_tangent(field)
    assert normal.max() < 0.1
    np.testing.assert_allclose(sphere.to_ambient(coordinates), field, atol=0.1)
    _, normal = sphere.to_tangent(sphere.points[:5], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(normal, 1.0, atol=0.01)
    with pytest.raises(InvalidDataError, match="3 vectors were given for 2 nodes"):
        sphere.to_tangent(np.ones((3, 3)), [0, 1])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_dimension_is_found_and_a_given_one_honoured(dim):
    rng = np.random.default_rng(dim)
    flat = rng.uniform(size=(800, dim)) @ random_rotation(6, dim)[:dim]
    cloud = PointCloud(flat + 1e-4 * rng.standard_normal((800, 6)), n_neighbors=15, components="keep")
    assert cloud.dim == dim and cloud.dimension_evidence.agrees
    if dim == 1:
        assert PointCloud(flat, dim=1, components="keep").dim == 1
    else:  # honoured, but the directions taken do not fit together
        with pytest.warns(DataWarning, match="vectors cannot be transported"):
            assert PointCloud(flat, dim=1, components="keep").dim == 1


def test_new_points_see_analytic_fields():
    cloud = PointCloud(fibonacci(1500), dim=2)
    basis = cloud.connection_basis(48)
    new = np.random.default_rng(5).standard_normal((300, 3))
    new /= np.linalg.norm(new, axis=1)[:, None]
    extension = basis.extend(new)
    assert not extension.far.any() and extension.ratio.max() < 0.5
    axis = np.array([0.3, -0.5, 0.8])

    def field(x):
        return np.cross(axis, x) + x[:, [1]] * (np.eye(3)[0] - x[:, [0]] * x)

    nodes, _ = cloud.to_tangent(field(cloud.points))
    weights = np.linalg.lstsq(basis.features(), nodes.ravel(), rcond=None)[0]
    found = np.einsum("mad,mdk,k->ma", extension.frames, extension.features, weights)
    assert np.sqrt(((found - field(new)) ** 2).sum(1).mean()) < 0.03
    # At nodes the extension is the basis itself.
    same = basis.extend(cloud.points[:20])
    np.testing.assert_array_equal(same.features, basis.functions[:20])
    np.testing.assert_array_equal(same.frames, cloud.frames[:20])
    scalar = cloud.scalar_basis(40)
    height = np.linalg.lstsq(scalar.features(), cloud.points[:, 2], rcond=None)[0]
    assert np.abs(scalar.extend(new).features[:, 0] @ height - new[:, 2]).max() < 0.02


def test_new_points_on_meshes():
    mesh = Mesh(*sphere_mesh(1200), laplacian="cotangent")
    basis = mesh.connection_basis(48)
    new = np.random.default_rng(5).standard_normal((200, 3))
    new /= np.linalg.norm(new, axis=1)[:, None]
    extension = basis.extend(new)
    field, _ = mesh.to_tangent(np.cross([0.0, 0.0, 1.0], mesh.points))
    weights = np.linalg.lstsq(basis.features(), field.ravel(), rcond=None)[0]
    found = np.einsum("mad,mdk,k->ma", extension.frames, extension.features, weights)
    assert np.sqrt(((found - np.cross([0.0, 0.0, 1.0], new)) ** 2).sum(1).mean()) < 0.05
    np.testing.assert_allclose(mesh.locate(1.05 * new).distance, 0.05, atol=0.01)
    # The nearest face among all, by brute force.
    location = mesh.locate(new[:10] * 0.5)
    dense = mesh.points[mesh.faces].mean(1)
    assert (location.distance <= np.linalg.norm(new[:10, None] * 0.5 - dense, axis=2).min(1) + 1e-12).all()


def test_places_far_away_are_flagged():
    cloud = PointCloud(fibonacci(400), dim=2)
    basis = cloud.connection_basis(20)
    with pytest.warns(DataWarning, match="1 of 2 places are far from the nodes"):
        extension = basis.extend([[0.0, 0.0, 1.0], [0.0, 0.0, 5.0]])
    np.testing.assert_array_equal(extension.far, [False, True])
    assert extension.distance[1] == pytest.approx(4.0, abs=0.1)
    assert np.abs(extension.features[1]).max() == 0.0 < np.abs(extension.features[0]).max()
    assert basis.extend(np.zeros((0, 3))).features.shape == (0, 2, basis.k)
    # Above the surface less is far than along it.
    up, along = np.array([[0.0, 0.0, 1.5]]), np.array([[0.0, 0.0, 1.05]])
    assert cloud.locate(up).far.all() and not cloud.locate(along).far.any()
    cap = PointCloud(cloud.points[cloud.points[:, 2] > 0.0], dim=2)
    assert not cap.locate([[np.cos(-0.3), 0.0, np.sin(-0.3)]]).far.any()


def test_furthest_points():
    points = torus(900)
    chosen = furthest_point_sample(points, count=50)
    gaps = np.linalg.norm(points[chosen][:, None] - points[chosen][None], axis=2) + 9.0 * np.eye(50)
    away = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(1)
    assert gaps.min() >= away.max() - 1e-12
    spaced = furthest_point_sample(points, spacing=0.3)
    assert np.linalg.norm(points[:, None] - points[spaced][None], axis=2).min(1).max() <= 0.3
    for bad in ({}, {"count": 3, "spacing": 0.1}, {"count": 901}, {"spacing": -1.0}, {"count": 2, "start": 900}):
        with pytest.raises(InvalidDataError):
            furthest_point_sample(points, **bad)
    with pytest.raises(InvalidDataError, match="only 1 different"):
        furthest_point_sample(np.ones((4, 2)), count=2)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_indices_of_every_kind(sphere):
    mask = np.zeros(1200, dtype=bool)
    mask[[3, 7]] = True
    for index in (mask, [3, 7], np.array([3, 7], np.int32), np.array([[3], [7]]), np.array([3.0, 7.0]), (3, -1193)):
        np.testing.assert_array_equal(sphere.where(index), [3, 7])
    assert sphere.where([]).size == 0 and sphere.where(None).size == 1200
    for index, message in (
        ([1200], "node 1200"),
        (mask[:5], "mask of 5"),
        ([0.5], "whole"),
        (np.ones((2, 2)), "shape"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            sphere.where(index)


def test_clouds_that_are_refused():
    points = fibonacci(200)
    two = np.concatenate([points, points + 10.0])
    with pytest.raises(InvalidDataError, match="2 disconnected parts of 200, 200 nodes"):
        PointCloud(two)
    assert PointCloud(two, dim=2, components="keep").components == 2
    np.testing.assert_array_equal([len(part) for part in connected_parts(two)], [200, 200])
    broken = points.copy()
    broken[17, 1] = np.nan
    for bad, message in (
        (broken, "row 17, column 1 is nan"),
        (points[:10], "20 neighbours were asked for, but 10 points"),
        (points[:, 0], "shape"),
        ([["a", "b"]], "numeric"),
        ([[0.0, 1.0j]], "complex"),
        ([[0.0, 1e200]], r"row 0, column 1 is 1e\+200"),
        (np.zeros((0, 3)), "at least one point"),
        (np.ones((60, 3)), "coincide"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            PointCloud(bad)
    with pytest.raises(InvalidDataError, match="exceeds the 3 coordinates"):
        PointCloud(points, dim=4)
    line = np.linspace(0, 1, 100)[:, None] * np.ones((1, 3))
    with pytest.raises(InvalidDataError, match="fewer than dim = 2 directions"):
        PointCloud(line, dim=2)
    for arguments in ({"dim": "two"}, {"weights": "cubic"}, {"n_neighbors": 0}, {"components": "drop"}):
        with pytest.raises(InvalidDataError):
            PointCloud(points, **arguments)


def test_repairs_are_announced():
    points = fibonacci(300)
    doubled = np.concatenate([points, points[:40]])
    with pytest.warns(DataWarning, match="80 points coincide"):
        cloud = PointCloud(doubled, dim=2)
    assert cloud.n == 340 and np.isfinite(cloud.laplacian().stiffness.data).all() and "80 points" in cloud.repairs[0]
    # A point whose nearest 15 neighbours are on a line needs more of them.
    rng = np.random.default_rng(0)
    plane = np.concatenate([np.stack([np.linspace(0, 0.01, 17), np.zeros(17)], 1), rng.uniform(0.05, 1, (400, 2))])
    with pytest.warns(DataWarning, match="were enlarged"):
        PointCloud(np.c_[plane, np.zeros(len(plane))], dim=2, components="keep")


def test_meshes_that_are_refused_or_repaired():
    points, faces = sphere_mesh(200)
    for vertices, triangles, message in (
        (points, faces[:, :2], "shape"),
        (points, faces + 1, "names vertices"),
        (points, faces + 0.5, "whole"),
        (np.concatenate([points, [[2.0, 0.0, 0.0]]]), faces, "vertices 200 belong to no face"),
        (points, np.concatenate([faces, [[0, 0, 1]]]), "name a vertex twice"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            Mesh(vertices, triangles, laplacian="cotangent")
    extra = np.concatenate([points, points[:3], [[2.0, 0.0, 0.0]]])
    spoiled = np.where(faces == 1, 201, faces)
    spoiled = np.concatenate([spoiled, spoiled[:2], [[5, 5, 6]]])
    with pytest.warns(DataWarning, match="3 vertices that coincide.*1 faces without area.*2 repeated.*1 vertices"):
        mesh = Mesh(extra, spoiled, laplacian="cotangent", repair=True)
    assert mesh.n == 200 and len(mesh.faces) == len(faces) and mesh.node_of[203] == -1
    np.testing.assert_array_equal(mesh.node_of[[1, 201]], [1, 1])
    fin = np.concatenate([faces, [[faces[0, 0], faces[0, 1], 200]]])
    with pytest.warns(DataWarning, match="1 edges have more than two faces"):
        Mesh(np.concatenate([points, [[0.0, 0.0, 2.0]]]), fin, laplacian="cotangent")
    with pytest.raises(InvalidDataError, match="disconnected"):
        Mesh(np.concatenate([points, points + 5.0]), np.concatenate([faces, faces + 200]), laplacian="cotangent")
    with pytest.raises(InvalidDataError, match="no mesh file"):
        pytest.importorskip("potpourri3d", reason="mesh files need the extra 'manifold'")
        Mesh.load("nowhere.obj")


def test_mesh_files(tmp_path):
    pytest.importorskip("potpourri3d", reason="mesh files need the extra 'manifold'")
    points, faces = sphere_mesh(150)
    lines = [f"v {x} {y} {z}" for x, y, z in points] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    (tmp_path / "ball.obj").write_text("\n".join(lines) + "\n")
    mesh = Mesh.load(tmp_path / "ball.obj", laplacian="cotangent")
    assert mesh.n == 150 and mesh.euler_characteristic == 2
    (tmp_path / "empty.obj").write_text("# nothing\n")
    with pytest.raises(InvalidDataError):
        Mesh.load(tmp_path / "empty.obj", laplacian="cotangent")
