"""Graphs, complexes, proximities, and their kernels, against dense algebra."""

from __future__ import annotations

import gpytorch
import networkx
import numpy as np
import pytest
import scipy.linalg
import torch
from scipy import sparse
from scipy.spatial import Delaunay

from gpkit.errors import ConvergenceError, DataWarning, InvalidDataError, StructureLostError
from gpkit.geometry import CellComplex, Graph, log_distances, proximity, repair
from gpkit.kernels import GraphKernel, HodgeKernel, SpectralKernel, walk_modulation
from gpkit.operators import EigenbasisLinearOperator, RandomFeatureLinearOperator, WalkFeatures, conjugate_gradients


@pytest.fixture(scope="module")
def club():
    return Graph(networkx.karate_club_graph())


@pytest.fixture(scope="module")
def holes():
    """A triangulated square with two holes, all weights different."""
    rng = np.random.default_rng(0)
    points = rng.random((220, 2))
    faces = Delaunay(points).simplices
    centres = points[faces].mean(1)
    away = np.minimum(*(np.linalg.norm(centres - place, axis=1) for place in ([0.3, 0.3], [0.7, 0.7])))
    faces = faces[away > 0.12]
    names, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(sides, 1), axis=0)
    weights = [rng.uniform(0.5, 2.0, count) for count in (len(names), len(edges), len(faces))]
    keys = ("node_weights", "edge_weights", "face_weights")
    return CellComplex(len(names), edges, faces, **dict(zip(keys, weights, strict=True)))


def nodes(graph):
    return torch.arange(float(graph.n)).unsqueeze(-1)


def test_laplacians_and_bases(club):
    dense = networkx.laplacian_matrix(networkx.karate_club_graph(), weight="weight").toarray()
    np.testing.assert_allclose(club.laplacian().stiffness.toarray(), dense)
    normalised = networkx.normalized_laplacian_matrix(networkx.karate_club_graph(), weight="weight").toarray()
    basis = club.basis(34)
    assert basis.complete and basis.null_modes == 1
    modes = basis.features() / np.sqrt(34)
    np.testing.assert_allclose((modes * basis.eigenvalues) @ modes.T, normalised, atol=1e-12)
    assert Graph(club.adjacency.toarray()).n == 34 and len(club.edges) == 78


def test_filters_are_functions_of_the_matrix(club):
    values, vectors = scipy.linalg.eigh(club.laplacian(True).stiffness.toarray())
    adjacency = club.adjacency.toarray()
    want = {
        "matern": (vectors * (2 * 1.5 / 0.49 + values) ** -1.5) @ vectors.T,
        "heat": (vectors * np.exp(-0.5 * 0.49 * values)) @ vectors.T,
        "regularised-laplacian": np.linalg.inv(np.eye(34) + 0.49 * club.laplacian(True).stiffness.toarray()),
        "p-step": np.linalg.matrix_power(2.0 * np.eye(34) - club.laplacian(True).stiffness.toarray(), 2),
        "cosine": (vectors * np.cos(np.pi * values / 4.0)) @ vectors.T,
        "communicability": scipy.linalg.expm(adjacency - 5.0 * np.eye(34)),
    }
    for name, matrix in want.items():
        kernel = GraphKernel(club, name, rank=34, lengthscale=0.7)
        found = kernel(nodes(club)).to_dense().detach().numpy()
        np.testing.assert_allclose(found, 34.0 * matrix / np.trace(matrix), atol=1e-10, err_msg=name)
    learned = GraphKernel(club, "monotone", rank=34)
    spectrum = learned.part.spectrum()
    assert (spectrum.diff() <= 0.0).all()
    spectrum[3].backward()
    assert torch.isfinite(learned.part.spectral_filter.raw_drops.grad).all()


def test_precision_has_every_mode(club):
    kernel = GraphKernel(club, method="precision", alpha=2.0, lengthscale=0.7)
    laplacian = club.laplacian(True).stiffness.toarray()
    power = np.linalg.inv(np.linalg.matrix_power(2 * 2.0 / 0.49 * np.eye(34) + laplacian, 2))
    found = kernel(nodes(club)).to_dense().detach().numpy()
    np.testing.assert_allclose(found, 34.0 * power / np.trace(power), rtol=1e-10)


def test_walks_are_unbiased(club):
    u = club.walk_matrix(0.6)
    exact = np.linalg.inv(np.eye(34) - u.toarray())
    exact = exact @ exact
    f = walk_modulation("regularised-laplacian-2", 64)
    errors = {}
    for quasi in (True, False):
        found, one_set = np.zeros((34, 34)), np.zeros((34, 34))
        for seed in range(20):
            sets = [WalkFeatures.of(u, 60, quasi=quasi, modulation=f, seed=2 * seed + s) for s in (0, 1)]
            zeros = torch.zeros(34)
            pair = RandomFeatureLinearOperator(torch.ones(1), zeros, first=sets[0], second=sets[1]).to_dense()
            errors[quasi] = float(np.linalg.norm(pair.numpy() - exact) / np.linalg.norm(exact))
            found += pair.numpy() / 20
            single = RandomFeatureLinearOperator(torch.ones(1), zeros, first=sets[0]).to_dense()
            assert torch.linalg.eigvalsh(single).min() > -1e-10
            one_set += single.numpy() / 20
        scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        assert np.abs((found - exact) / scale).max() < 0.05
        off = ~np.eye(34, dtype=bool)
        assert np.abs(((one_set - exact) / scale)[off]).max() < 0.05
        assert np.diag(one_set).mean() > np.diag(exact).mean() - 0.005
    assert errors[True] < errors[False] < 0.3


@pytest.mark.parametrize("series", ["regularised-laplacian", "regularised-laplacian-2", "diffusion"])
def test_modulations_are_square_roots_of_series(series):
    f = walk_modulation(series, 12, 0.8)
    alpha = np.convolve(f, f)[:13]
    factorial = np.cumprod([1.0, *range(1, 13)])
    want = {"regularised-laplacian": np.ones(13), "regularised-laplacian-2": np.arange(1.0, 14.0)}
    np.testing.assert_allclose(alpha, want.get(series, 0.8 ** np.arange(13) / factorial), rtol=1e-10)


@pytest.mark.parametrize("variant", ["psd", "unbiased"])
def test_learned_modulation_has_gradients(club, variant):
    features = [WalkFeatures.of(club.walk_matrix(0.6), 5, longest=6, seed=s) for s in (0, 1)]
    second = features[1] if variant == "unbiased" else None
    f = torch.as_tensor(walk_modulation("diffusion", 6)).requires_grad_(True)
    right = torch.randn(34, 2, requires_grad=True)

    def product(modulation, values):
        operator = RandomFeatureLinearOperator(modulation, torch.ones(34), first=features[0], second=second)
        return operator._matmul(values)

    assert torch.autograd.gradcheck(product, (f, right))
    operator = RandomFeatureLinearOperator(f.detach(), torch.ones(34), first=features[0], second=second)
    dense = operator.to_dense()
    torch.testing.assert_close(operator @ right.detach(), dense @ right.detach())
    torch.testing.assert_close(operator.diagonal(), dense.diagonal())
    torch.testing.assert_close(operator[3:9, 3:9].to_dense(), dense[3:9, 3:9])


def test_iterative_solves_are_named_and_report(club):
    kernel = GraphKernel(club, method="grf", walks=30)
    operator = kernel(nodes(club)).evaluate_kernel().add_diagonal(torch.tensor(0.2))
    for question in (lambda: operator.solve(torch.ones(34, 1)), operator.logdet):
        with pytest.raises(StructureLostError, match="to_dense"):
            question()
    right = torch.randn(34, 3)
    found = conjugate_gradients(operator, right, 1e-9)
    torch.testing.assert_close(found.solution, torch.linalg.solve(operator.to_dense(), right), rtol=1e-6, atol=1e-7)
    assert found.residual <= 1e-8 and 0 < found.iterations < 60
    scale = gpytorch.kernels.ScaleKernel(kernel)
    scale.outputscale = 2.0
    scaled = scale(nodes(club)).evaluate_kernel()
    with pytest.raises(StructureLostError, match="to_dense"):  # an amplitude does not hide the walks
        scaled.add_diagonal(torch.tensor(0.2)).inv_quad_logdet(right, logdet=True)
    torch.testing.assert_close(scaled @ right, 2.0 * (operator.to_dense() - 0.2 * torch.eye(34)) @ right)
    with pytest.raises(ConvergenceError, match="relative residual"):
        conjugate_gradients(operator, right, 1e-9, max_iterations=2)
    with pytest.raises(ConvergenceError, match="negative curvature"):
        conjugate_gradients(operator.add_diagonal(torch.tensor(-3.0)), right)
    cross = kernel(nodes(club)[:4], nodes(club)).to_dense()
    torch.testing.assert_close(cross, (operator.to_dense() - 0.2 * torch.eye(34))[:4])
    draws = operator.zero_mean_mvn_samples(20000)
    got = draws.mT @ draws / 20000
    assert ((got - operator.to_dense()) / operator.diagonal().mean()).abs().max() < 0.06


def test_graphs_that_are_refused():
    path = sparse.diags([np.ones(4), np.ones(4)], [-1, 1], format="lil")
    for change, message in (
        ((0, 1, 2.0), "directed: edge"),
        ((0, 1, -1.0), "negative"),
        ((0, 1, np.nan), "not finite"),
    ):
        bad = path.copy()
        bad[change[0], change[1]] = change[2]
        with pytest.raises(InvalidDataError, match=message):
            Graph(bad.tocsr())
    with pytest.raises(InvalidDataError, match="directed"):
        Graph(networkx.path_graph(4, create_using=networkx.DiGraph))
    apart = sparse.block_diag([path, sparse.csr_matrix((1, 1))])
    with pytest.raises(InvalidDataError, match="nodes 5 have no edge"):
        Graph(apart)
    kept = Graph(apart, components="keep")
    assert kept.components == 2
    assert kept.laplacian(True).stiffness[5].nnz == 0
    with pytest.raises(InvalidDataError, match="square"):
        Graph(np.ones((2, 3)))
    loops = Graph(np.ones((3, 3)))
    assert "3 loops" in loops.repairs[0] and loops.adjacency.diagonal().sum() == 0.0
    for arguments in ({"method": "magic"}, {"spectral_filter": "magic"}, {"method": "spectral", "walks": 3}):
        with pytest.raises(InvalidDataError):
            GraphKernel(loops, **arguments)
    with pytest.raises(InvalidDataError, match="decay"):
        loops.walk_matrix(1.0)
    for make, message in (
        (lambda: HodgeKernel(loops), "on a CellComplex or a basis of one, got Graph"),
        (lambda: GraphKernel(loops.basis(2)), "needs a gpkit.geometry.Graph, got SpectralBasis"),
        (lambda: SpectralKernel(loops), "needs a SpectralBasis"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            make()


# ---------------------------------------------------------------------------------------------------------- complexes


def test_hodge_decomposition(holes):
    assert abs(holes.d1 @ holes.d0).max() < 1e-14
    dense = holes.l1.toarray()
    values = np.linalg.eigvalsh(dense)
    assert holes.harmonic_dimension == int((values < 1e-9).sum()) >= 2
    flow = np.random.default_rng(1).standard_normal((holes.n_edges, 2))
    parts = holes.decompose(flow)
    np.testing.assert_allclose(sum(parts.values()), flow, atol=1e-12)
    weights = holes.edge_weights[:, None]
    for one in parts:
        for two in parts:
            if one != two:
                assert abs((weights * parts[one] * parts[two]).sum()) < 1e-9
    scale = np.sqrt(weights)
    gradient = holes.d0.toarray() @ np.linalg.lstsq(holes.d0.toarray(), scale * flow, rcond=None)[0]
    np.testing.assert_allclose(scale * parts["gradient"], gradient, atol=1e-9)
    np.testing.assert_allclose(dense @ (scale * parts["harmonic"]), 0.0, atol=1e-9)


@pytest.mark.parametrize("solver", ["dense", "shift-invert"])
def test_hodge_bases(holes, solver):
    basis = holes.hodge_basis(30, 25, solver=solver, cut=None)
    dense = holes.l1.toarray()
    spectrum = np.linalg.eigvalsh(dense)
    for name, part in basis.parts.items():
        modes = part.functions[:, 0] * np.sqrt(part.mass)[:, None] / np.sqrt(holes.n_edges)
        np.testing.assert_allclose(modes.T @ modes, np.eye(part.k), atol=1e-8)
        np.testing.assert_allclose(dense @ modes, modes * part.eigenvalues, atol=1e-7, err_msg=name)
        assert np.abs(spectrum[:, None] - part.eigenvalues).min(0).max() < 1e-8
    assert [part.k for part in basis.parts.values()] == [30, 25, holes.harmonic_dimension]


def test_hodge_kernel_is_one_eigenbasis_with_three_amplitudes(holes):
    basis = holes.hodge_basis(20, 15)
    kernel = HodgeKernel(basis)
    kernel.variances = torch.tensor([1.0, 0.5, 0.25])
    x = torch.arange(float(holes.n_edges)).unsqueeze(-1)
    operator = kernel(x).evaluate_kernel()
    assert isinstance(operator, EigenbasisLinearOperator)
    mass = torch.as_tensor(basis.gradient.mass)
    assert float((mass * operator.diagonal().detach()).mean()) == pytest.approx(1.75)
    torch.testing.assert_close(kernel(x, diag=True), operator.diagonal())
    scaled = gpytorch.kernels.ScaleKernel(kernel).double()
    evidence = scaled(x).evaluate_kernel().add_diagonal(torch.tensor(0.1)).logdet()
    evidence.backward()
    assert kernel.raw_variances.grad.abs().min() > 0.0
    gradient = torch.as_tensor(holes.decompose(np.eye(holes.n_edges)[:, :3])["gradient"])
    assert gradient.shape == (holes.n_edges, 3)


def test_complexes_that_are_refused():
    edges = [[0, 1], [1, 2], [0, 2]]
    for arguments, message in (
        ((3, [[0, 0]]), "loops"),
        ((3, [[0, 1], [1, 0]]), "more than once"),
        ((3, [[0, 3]]), "node 3"),
        ((4, edges, [[0, 1, 3]]), "not an edge"),
        ((3, edges, [[0, 1, 1]]), "3 different nodes"),
        ((3, [[0, 1, 2]]), "shape"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            CellComplex(*arguments)
    for weights in (np.array([1.0, 1.0, -1.0]), np.array([1.0, np.nan, 1.0]), np.ones(2)):
        with pytest.raises(InvalidDataError, match="edge_weights"):
            CellComplex(3, edges, edge_weights=weights)
    tree = CellComplex(3, edges[:2])
    assert tree.harmonic_dimension == 0 and tree.hodge_basis(2).parts.keys() == {"gradient"}
    ring = CellComplex(3, edges)
    assert ring.harmonic_dimension == 1
    with pytest.raises(InvalidDataError, match="2 harmonic flows"):
        ring.hodge_basis(2, harmonic=2)


# -------------------------------------------------------------------------------------------------------- proximities


@pytest.mark.parametrize(("measure", "t"), [("walk", 0.5), ("forest", 1.0), ("heat", 0.3), ("communicability", 0.5)])
def test_proximities_and_their_logarithms(club, measure, t):
    adjacency, laplacian = club.adjacency.toarray(), club.laplacian().stiffness.toarray()
    top = np.abs(np.linalg.eigvalsh(adjacency)).max()
    want = {
        "walk": lambda: np.linalg.inv(np.eye(34) - t * adjacency / top),
        "forest": lambda: np.linalg.inv(np.eye(34) + t * laplacian),
        "heat": lambda: scipy.linalg.expm(-t * laplacian),
        "communicability": lambda: scipy.linalg.expm(t * adjacency),
    }[measure]()
    found = proximity(club, measure, t)
    np.testing.assert_allclose(found / found.max(), want / want.max(), atol=1e-10)
    distances = log_distances(club, measure, t)
    h = np.log(want)
    np.testing.assert_allclose(distances, 0.5 * (np.diag(h)[:, None] + np.diag(h) - h - h.T), atol=1e-7)
    centre = np.eye(34) - 1.0 / 34
    if measure == "forest":  # a logarithm that happens to be a kernel: nothing to repair, nothing said
        repaired = repair(distances)
        assert repaired.clipped == 0 == repaired.distance
    else:
        with pytest.warns(DataWarning, match="eigenvalues were negative") as caught:
            repaired = repair(distances)
        assert repaired.clipped > 0 and str(repaired.clipped) in str(caught[0].message)
    assert np.linalg.eigvalsh(repaired.matrix).min() > -1e-10
    original = -centre @ distances @ centre
    assert np.linalg.norm(repaired.matrix - original) == pytest.approx(
        repaired.distance * np.linalg.norm(original), abs=1e-9
    )


def test_proximities_that_are_refused(club):
    for measure, t in (("magic", 1.0), ("walk", 1.5), ("heat", -1.0)):
        with pytest.raises(InvalidDataError):
            proximity(club, measure, t)
    distances = log_distances(club)
    for bad, message in (
        (np.log(proximity(club)), "zero on the diagonal"),
        (np.triu(distances), "symmetric"),
        (distances * np.nan, "finite"),
        (distances[:5], "shape"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            repair(bad)
    apart = Graph(sparse.block_diag([np.ones((3, 3)), np.ones((3, 3))]), components="keep")
    with pytest.raises(InvalidDataError, match="2 disconnected parts"):
        log_distances(apart)
