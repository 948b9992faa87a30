"""Spectra of Laplacians against closed forms, on even, random and uneven points, clouds and meshes."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.geometry import Laplacian, Mesh, PointCloud, SpectralBasis
from tests.geometry.shapes import fibonacci, flat_torus, sphere_mesh


def groups(values, sizes):
    edges = np.cumsum([0, *sizes])
    return [values[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def check(values, sizes, want, tolerance, spread):
    """Group means near the closed form (after one scale for all), groups narrow and apart."""
    found = groups(values, sizes)
    ratios = np.array([g.mean() / w for g, w in zip(found, want, strict=True)])
    assert np.abs(ratios - 1.0).max() < tolerance, ratios
    assert np.abs(ratios / ratios.mean() - 1.0).max() < spread, ratios
    for one, two in zip(found[:-1], found[1:], strict=True):
        assert two.min() - one.max() > 0.3 * (two.mean() - one.mean())


DEGREES = np.arange(1, 5)
VECTOR = (2 * (2 * DEGREES + 1), DEGREES * (DEGREES + 1) - 1)
SCALAR = (2 * DEGREES + 1, DEGREES * (DEGREES + 1))


def test_vector_fields_on_the_sphere():
    cloud = PointCloud(fibonacci(4000), dim=2)
    basis = cloud.connection_basis(48, cut=None)
    check(basis.eigenvalues, *VECTOR, 0.025, 0.02)
    assert basis.k == 48 and basis.solver == "shift-invert" and basis.residual < 1e-9
    functions = cloud.scalar_basis(25, cut=None)
    assert functions.null_modes == 1
    check(functions.eigenvalues[1:], *SCALAR, 0.025, 0.02)
    # Eigenvalues have the units of the points.
    doubled = PointCloud(2.0 * fibonacci(4000), dim=2).connection_basis(6, cut=None)
    np.testing.assert_allclose(4.0 * doubled.eigenvalues, basis.eigenvalues[:6], rtol=1e-6)


def test_uneven_points_have_the_spectrum_of_even_ones():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((8000, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    points = points[rng.uniform(size=len(points)) < 0.1 + 0.45 * (1.0 + points[:, 2])][:2500]
    cloud = PointCloud(points, dim=2, n_neighbors=30)
    check(cloud.connection_basis(48, cut=None).eigenvalues, *VECTOR, 0.14, 0.035)
    # Without the mass of each node the same weights see the density: multiplets fall apart.
    stiffness = cloud.laplacian().stiffness
    plain = SpectralBasis.of(Laplacian(stiffness, np.ones(stiffness.shape[0])), 6, components=2, cut=None)
    corrected = cloud.connection_basis(6, cut=None)
    spreads = [b.eigenvalues.std() / b.eigenvalues.mean() for b in (plain, corrected)]
    assert spreads[0] > 5.0 * spreads[1]


@pytest.mark.parametrize("laplacian", ["robust", "cotangent"])
def test_meshes_of_the_sphere(laplacian):
    if laplacian == "robust":
        pytest.importorskip("robust_laplacian", reason="robust Laplacians need the extra 'manifold'")
    mesh = Mesh(*sphere_mesh(1500), laplacian=laplacian)
    check(mesh.connection_basis(48, cut=None).eigenvalues, *VECTOR, 0.03, 0.02)
    check(mesh.scalar_basis(25, cut=None).eigenvalues[1:], *SCALAR, 0.03, 0.02)
    assert mesh.area == pytest.approx(4 * np.pi, rel=0.01) and mesh.euler_characteristic == 2


def test_flat_torus_in_four_dimensions():
    basis = PointCloud(flat_torus(3000), dim=2, n_neighbors=30).connection_basis(26, cut=None)
    assert basis.eigenvalues[:2].max() < 0.01
    check(basis.eigenvalues[2:], (8, 8, 8), (1.0, 2.0, 4.0), 0.14, 0.03)


def test_three_sphere():
    rng = np.random.default_rng(1)
    points = rng.standard_normal((1500, 4))
    points /= np.linalg.norm(points, axis=1)[:, None]
    basis = PointCloud(points, dim=3, n_neighbors=30).connection_basis(19, cut=None)
    check(basis.eigenvalues, (4, 6, 9), (1.0, 2.0, 6.0), 0.2, 0.04)


def test_circle():
    angle = np.sort(np.random.default_rng(2).uniform(0, 2 * np.pi, 400))
    cloud = PointCloud(np.stack([np.cos(angle), np.sin(angle)], 1), dim=1)
    check(cloud.scalar_basis(7, cut=None).eigenvalues[1:], (2, 2, 2), (1.0, 4.0, 9.0), 0.2, 0.05)
    check(cloud.connection_basis(7, cut=None).eigenvalues[1:], (2, 2, 2), (1.0, 4.0, 9.0), 0.2, 0.05)


def test_solvers_agree():
    pytest.importorskip("pyamg", reason="lobpcg needs the extra 'manifold'")
    cloud = PointCloud(fibonacci(500), dim=2)
    dense = cloud.connection_basis(30, solver="dense", cut=None)
    for solver, tolerance in (("shift-invert", 1e-10), ("lobpcg", 1e-6)):
        other = cloud.connection_basis(30, solver=solver, cut=None)
        assert other.solver == solver
        np.testing.assert_allclose(other.eigenvalues, dense.eigenvalues, rtol=tolerance)
        one, two = (b.truncate(6).features() for b in (dense, other))
        np.testing.assert_allclose(two @ two.T, one @ one.T, atol=1e3 * tolerance)
