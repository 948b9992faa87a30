"""Noise, boundaries, parts, touching surfaces, few points: what geometry makes of data that are not ideal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import Graph, Mesh, PointCloud, SpectralBasis, connected_parts
from gpkit.kernels import ConnectionLaplacianKernel, GraphKernel
from gpkit.models import ScalarFieldGP
from tests.geometry.shapes import fibonacci, random_rotation, sphere_mesh, torus

# ------------------------------------------------------------------------------------------------------------ dimension


def noisy(kind, n, ambient, noise):
    rng = np.random.default_rng(4)
    if kind == "sphere":
        shape = rng.standard_normal((n, 3))
        shape /= np.linalg.norm(shape, axis=1)[:, None]
    else:
        angle = rng.uniform(0.0, 2.0 * np.pi, n)
        shape = np.stack([np.cos(angle), np.sin(angle), np.zeros(n)], 1)
    points = np.zeros((n, ambient))
    points[:, :3] = shape
    return points @ random_rotation(ambient, 1) + noise * rng.standard_normal((n, ambient))


@pytest.mark.parametrize(
    ("kind", "ambient", "noise", "dim"),
    [
        ("sphere", 3, 0.0, 2),
        ("sphere", 3, 0.05, 2),
        ("sphere", 10, 0.02, 2),
        ("sphere", 10, 0.05, 2),
        ("circle", 3, 0.0, 1),
        ("circle", 3, 0.05, 1),
        ("circle", 10, 0.02, 1),
    ],
)
def test_dimension_of_noisy_shapes(kind, ambient, noise, dim):
    cloud = PointCloud(noisy(kind, 800, ambient, noise), components="keep")
    evidence = cloud.dimension_evidence
    assert cloud.dim == dim == evidence.dim and evidence.agrees
    assert evidence.neighbors >= 20 and (noise == 0.0 or evidence.neighbors > 20)
    assert f"({evidence.neighbors} neighbours)" in str(cloud.diagnostics())


def test_outliers_are_no_part_of_the_manifold():
    points = fibonacci(300)
    for outliers in ([[30.0, 0.0, 0.0]], [[30.0, 0.0, 0.0], [30.0, 0.1, 0.0], [30.0, 0.0, 0.1]]):
        cluttered = np.concatenate([points, outliers])
        count = len(outliers)
        with pytest.raises(InvalidDataError, match=f"2 disconnected parts of 300, {count} nodes .*drop outliers"):
            PointCloud(cluttered, dim=2)
        assert [len(part) for part in connected_parts(cluttered)] == [300, count]
    with pytest.warns(DataWarning, match=r"1 points are further from the others .*\(points 300\)"):
        cloud = PointCloud(np.concatenate([points, [[30.0, 0.0, 0.0]]]), dim=2, components="keep")
    alone = cloud.laplacian("scalar").stiffness[[300]]
    assert cloud.components == 2 and cloud.mass[300] == pytest.approx(1.0, abs=0.01) and not alone.count_nonzero()
    clean = PointCloud(points, dim=2).scalar_basis(9, cut=None).eigenvalues
    np.testing.assert_allclose(cloud.scalar_basis(10, cut=None).eigenvalues, [0.0, *clean], rtol=0.02, atol=1e-9)
    with pytest.warns(DataWarning, match="drop outliers"):
        assert PointCloud(np.concatenate([points, [[3.0, 0.0, 0.0]]]), dim=2).components == 1


def test_a_doubtful_dimension_is_announced():
    flat = np.random.default_rng(0).uniform(size=(500, 3)) @ np.eye(3, 10)
    with pytest.warns(DataWarning, match=r"dimension is uncertain: 10 .* suggest 4\.\d+; pass dim="):
        cloud = PointCloud(flat + 0.05 * np.random.default_rng(1).standard_normal(flat.shape), components="keep")
    assert not cloud.dimension_evidence.agrees


def test_frames_of_noisy_points_are_made_of_more_neighbours():
    points = noisy("sphere", 800, 3, 0.05)
    centre = points / np.linalg.norm(points, axis=1)[:, None]

    def angle(cloud):
        return np.degrees(np.arccos(np.clip(np.abs((cloud.normals * centre).sum(1)), 0.0, 1.0))).mean()

    automatic = PointCloud(points)
    assert automatic.frame_neighbors == automatic.dimension_evidence.neighbors
    with pytest.warns(DataWarning, match="too noisy"):
        small = PointCloud(points, dim=2)
    assert angle(automatic) < 6.0 < 12.0 < angle(small)
    assert PointCloud(fibonacci(800)).frame_neighbors == 15


# ----------------------------------------------------------------------------------------------- curvature, noise, ends


def test_curvature_that_is_not_resolved_is_announced():
    thin = torus(1500, small=0.03)
    with pytest.warns(DataWarning, match="vectors cannot be transported: nodes are too few"):
        cloud = PointCloud(thin, dim=2)
    assert "more than 60 degrees" in str(cloud.diagnostics())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PointCloud(torus(1500, small=0.2), dim=2)


def test_tori_that_are_long_and_thin_have_their_spectrum():
    """Cosines along the ring and across the tube: p^2 / a^2 + q^2, whatever the aspect a."""
    angles = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, (2, 1500))
    for aspect in (2.0, 5.0):
        ring = [aspect * np.cos(angles[0]), aspect * np.sin(angles[0]), np.cos(angles[1]), np.sin(angles[1])]
        found = PointCloud(np.stack(ring, 1), dim=2).scalar_basis(8, cut=None).eigenvalues
        orders = [p * p / aspect**2 + q * q for p in range(-30, 31) for q in range(-3, 4)]
        np.testing.assert_allclose(found[1:], np.sort(orders)[1:8], rtol=0.2)
        np.testing.assert_allclose(found[1:] / found[1], np.sort(orders)[1:8] / np.sort(orders)[1], rtol=0.12)


def square(n):
    """A triangulated unit square."""
    along, up = np.meshgrid(np.linspace(0.0, 1.0, n), np.linspace(0.0, 1.0, n), indexing="ij")
    points = np.stack([along.ravel(), up.ravel(), np.zeros(n * n)], 1)
    number = np.arange(n * n).reshape(n, n)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    return points, np.concatenate([np.stack([x.ravel() for x in three], 1) for three in ((a, b, c), (a, c, d))])


@pytest.mark.parametrize("laplacian", ["cotangent", "robust"])
def test_meshes_with_a_boundary(laplacian):
    """A flat square whose edges nothing flows across: pi^2 (p^2 + q^2), twice each for vectors."""
    if laplacian == "robust":
        pytest.importorskip("robust_laplacian", reason="laplacian='robust' needs the extra 'manifold'")
    mesh = Mesh(*square(24), laplacian=laplacian)
    assert mesh.winding.boundary_edges == 92 and mesh.euler_characteristic == 1
    want = np.sort([np.pi**2 * (p * p + q * q) for p in range(8) for q in range(8)])[:10]
    np.testing.assert_allclose(mesh.scalar_basis(10, cut=None).eigenvalues[1:], want[1:], rtol=0.02)
    vectors = mesh.connection_basis(20, cut=None)
    assert vectors.null_modes == 2
    np.testing.assert_allclose(vectors.eigenvalues[2:], np.repeat(want, 2)[2:], rtol=0.02)


def test_surfaces_that_touch_in_a_point():
    points, faces = sphere_mesh(120)
    other = np.where(faces == 0, 0, faces + 119)[:, ::-1]
    both = np.concatenate([points, 2.0 * points[:1] - points[1:]])
    with pytest.warns(DataWarning, match=r"touch at 1 vertices \(0\) without sharing an edge"):
        mesh = Mesh(both, np.concatenate([faces, other]), laplacian="cotangent")
    np.testing.assert_array_equal(mesh.winding.pinched, [0])
    assert Mesh(points, faces, laplacian="cotangent").winding.pinched.size == 0
    assert Mesh(*square(5), laplacian="cotangent").winding.pinched.size == 0
    fin = np.concatenate([points, [[2.0, 2.0, 2.0]]])
    with pytest.warns(DataWarning, match="1 edges have more than two faces"):
        crowded = Mesh(fin, np.concatenate([faces, [[*faces[0, :2], 120]]]), laplacian="cotangent")
    assert crowded.winding.pinched.size == 0 and np.isfinite(crowded.connection_basis(10).eigenvalues).all()


# ------------------------------------------------------------------------------------------------- parts and few points


def two_parts():
    rng = np.random.default_rng(1)
    blocks = []
    for size in (12, 9):
        half = np.triu(rng.uniform(size=(size, size)) < 0.6, 1) * rng.uniform(0.5, 2.0, (size, size))
        blocks.append(half + half.T)
    return blocks


@pytest.mark.parametrize("method", ["spectral", "precision", "grf"])
def test_parts_of_a_graph_know_nothing_of_each_other(method):
    graph = Graph(sparse.block_diag(two_parts()), components="keep")
    assert graph.components == 2
    options = {"rank": 21} if method == "spectral" else {"walks": 200} if method == "grf" else {}
    found = GraphKernel(graph, method=method, **options)(torch.arange(21.0, dtype=torch.float64)[:, None]).to_dense()
    assert float(found.detach()[:12, 12:].abs().max()) == 0.0 < float(found.detach()[:12, :12].abs().min())
    for operator in ("normalised", "combinatorial"):
        assert graph.basis(21, operator=operator).null_modes == 2


def test_isolated_vertices_of_weighted_graphs():
    weighted = two_parts()[0]
    graph = Graph(sparse.block_diag([weighted, np.zeros((1, 1))]), components="keep")
    x = torch.arange(13.0, dtype=torch.float64)[:, None]
    laplacian = np.diag(weighted.sum(0)) - weighted
    for kernel in (
        GraphKernel(graph, "heat", operator="combinatorial", lengthscale=0.5),
        GraphKernel(graph, operator="combinatorial", method="precision", lengthscale=0.5),
    ):
        found = kernel(x).to_dense().detach().numpy()
        assert np.abs(found[12, :12]).max() == 0.0 < found[12, 12] and found.trace() == pytest.approx(13.0)
    values, vectors = np.linalg.eigh(laplacian)
    heat = (vectors * np.exp(-0.125 * values)) @ vectors.T
    whole = GraphKernel(graph, "heat", operator="combinatorial", lengthscale=0.5)(x).to_dense().detach().numpy()
    np.testing.assert_allclose(whole[:12, :12], heat * 13.0 / (heat.trace() + 1.0), atol=1e-10)
    # The normalised Laplacian has a row of zeros there, as the other one has; walks stay where they are.
    roots = np.sqrt(weighted.sum(0))
    assert graph.laplacian(True).stiffness.toarray()[12].any() == 0
    np.testing.assert_allclose(graph.laplacian(True).stiffness.toarray()[:12, :12], laplacian / np.outer(roots, roots))
    assert graph.basis(13).null_modes == 2
    for arguments in ({"spectral_filter": "heat"}, {"method": "precision"}, {"method": "grf", "walks": 50}):
        found = GraphKernel(graph, **arguments)(x).to_dense().detach().numpy()
        assert np.abs(found[12, :12]).max() == 0.0 < found[12, 12] < np.inf
    field = ScalarFieldGP(graph, "intrinsic:matern2")
    field.fit(np.arange(0, 12, 2), np.cos(np.arange(6.0)), progress=False)
    assert field.predict().variance.argmax() == 12  # nobody knows anything of it


def test_three_points_are_a_surface():
    corners = PointCloud([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dim=2, n_neighbors=2)
    basis = corners.connection_basis(6)
    assert basis.complete and basis.null_modes == 2
    covariance = ConnectionLaplacianKernel(basis)(torch.arange(3.0, dtype=torch.float64)[:, None]).to_dense()
    assert float(torch.linalg.eigvalsh(covariance.detach()).min()) > 0.0
    single = Mesh(np.eye(3), [[0, 1, 2]], laplacian="cotangent")
    np.testing.assert_allclose(single.connection_basis(6).eigenvalues, [0, 0, 3, 3, 3, 3], atol=1e-12)
    for points, n_neighbors in ((np.eye(3)[:1], 1), (fibonacci(20), 20), (fibonacci(20), 25)):
        with pytest.raises(InvalidDataError, match="give more points or a smaller n_neighbors"):
            PointCloud(points, n_neighbors=n_neighbors)
    with pytest.warns(DataWarning, match="vectors cannot be transported"):
        everyone = PointCloud(fibonacci(120), dim=2, n_neighbors=119).scalar_basis(4, cut=None).eigenvalues
    np.testing.assert_allclose(everyone[1:], everyone[1], rtol=0.05)  # the three coordinates, whatever the weights


def test_single_precision_is_computed_in_double():
    narrow = PointCloud(fibonacci(200).astype(np.float32), dim=2)
    assert narrow.points.dtype == narrow.connection_basis(6).functions.dtype == np.float64
    wide = PointCloud(fibonacci(200), dim=2)
    np.testing.assert_allclose(narrow.connection_basis(6).eigenvalues, wide.connection_basis(6).eigenvalues, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- cache


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path):
    cloud = PointCloud(fibonacci(120), dim=2)
    occupied = tmp_path / "occupied"
    occupied.write_text("a file where a folder should be")
    with pytest.warns(DataWarning, match="could not be kept in .*occupied"):
        basis = cloud.connection_basis(10, cache=occupied)
    np.testing.assert_allclose(basis.eigenvalues, cloud.connection_basis(10).eigenvalues)


def test_a_cache_that_cannot_be_written_is_still_read(tmp_path, monkeypatch):
    cloud = PointCloud(fibonacci(120), dim=2)
    first = cloud.connection_basis(10, cache=tmp_path)

    def refused(*_):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(SpectralBasis, "save", refused)
    monkeypatch.setattr("gpkit.geometry.spectral_basis.smallest_eigenpairs", refused)
    again = PointCloud(fibonacci(120), dim=2).connection_basis(10, cache=tmp_path)
    np.testing.assert_array_equal(again.functions, first.functions)
    assert again.manifold is not None
    monkeypatch.undo()
    monkeypatch.setattr(SpectralBasis, "save", refused)
    with pytest.warns(DataWarning, match="read-only file system"):
        assert cloud.connection_basis(8, cache=tmp_path).k > 0
