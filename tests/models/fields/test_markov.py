"""Fields with all modes by sparse precision: against dense formulas, against the complete basis, end to end."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse, stats

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import CellComplex, Graph, PointCloud
from gpkit.inference.markov_evidence import MarkovStatistics
from gpkit.kernels.markov import MarkovKernel
from gpkit.models import EdgeFlowGP, ScalarFieldGP, VectorFieldGP
from gpkit.models.fields.markov_algebra import MarkovAlgebra
from gpkit.models.fields.markov_term import MarkovTerm
from gpkit.models.fields.regression import FieldRegression
from gpkit.models.fields.sites import Sites, node_sites, point_sites
from gpkit.models.fields.terms import ConstantTerm, Scales, Term
from gpkit.operators.sparse_symmetric import SparsePattern
from tests.models.fields.conftest import Surface, fibonacci, field

Array = NDArray[np.float64]
SCALES = Scales(1.0, 1.0)
ALPHAS = [2.0, 2.5, 3.0]


@pytest.fixture(scope="module")
def coarse() -> Surface:
    """A hundred nodes: every answer is compared with a dense one, to rounding, so that more would prove no more."""
    nodes = fibonacci(100)
    others = fibonacci(37)[:12]
    return Surface(PointCloud(nodes, dim=2), field(nodes), others, field(others))


@pytest.fixture(scope="module", params=ALPHAS)
def term(request: pytest.FixtureRequest, coarse: Surface) -> MarkovTerm:
    """A term of each kind of power; its normalisation is computed once."""
    return MarkovTerm("markov", MarkovKernel.on(coarse.cloud, "connection", request.param, 1.0, order=2), SCALES)


def build(surface: Surface, term: MarkovTerm, noise: Array | None = None) -> FieldRegression:
    sites = node_sites(surface.cloud.frames, surface.cloud.points, {}, np.arange(0, 100, 4))
    values = np.einsum("mDa,mD->ma", sites.frames.numpy(), surface.vectors[sites.nodes])
    return FieldRegression([term], sites, values, SCALES, noise)


def _point(regression: FieldRegression) -> Array:
    return np.log([p.start * 1.2 for p in regression.parameters])


def _block(terms: tuple[Term, ...], parts: list[torch.Tensor], left: Sites, right: Sites) -> Array:
    blocks = [t.evaluate(p, t.prepare(left, right)).numpy() for t, p in zip(terms, parts, strict=True)]
    return np.asarray(np.sum(blocks, axis=0))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_covariance_is_that_of_all_modes(sphere: Surface, alpha: float) -> None:
    """(2 nu / l^2 + L)^-alpha by eigenvectors, of mean variance 1 up to the spline of the normalisation."""
    kernel = MarkovKernel.on(sphere.cloud, "connection", alpha, 1.0, order=6)
    term = MarkovTerm("markov", kernel, SCALES)
    nodes = node_sites(sphere.cloud.frames, sphere.cloud.points, {}, np.arange(200))
    laplacian = sphere.cloud.laplacian("connection")
    values, vectors = np.linalg.eigh(laplacian.symmetric.toarray())
    for lengthscale in (0.2, 0.7, 3.0):
        theta = torch.tensor([np.log(lengthscale), np.log(1.5)])
        spectrum = (2.0 * kernel.nu / lengthscale**2 + values) ** -alpha
        expected = 1.5**2 * (vectors * spectrum / spectrum.mean()) @ vectors.T
        expected /= np.sqrt(np.outer(laplacian.mass, laplacian.mass))
        found = _block((term,), [theta], nodes, nodes)
        np.testing.assert_allclose(found, expected * found[0, 0] / expected[0, 0], atol=2e-4 if alpha == 2.5 else 1e-9)
        assert (found * np.diag(laplacian.mass)).sum() / 400.0 == pytest.approx(1.5**2, rel=0.02)
        if not kernel.poles:  # a sum of processes has a determinant of its own, which is no power
            log_det = -np.linalg.slogdet(found)[1] - np.log(laplacian.mass).sum()
            assert float(term.precision(theta)[1]) == pytest.approx(log_det, rel=1e-9)


@pytest.mark.parametrize("known", [False, True])
def test_evidence(coarse: Surface, term: MarkovTerm, known: bool) -> None:
    noise = np.linspace(0.05, 0.3, 25) if known else None
    regression = build(coarse, term, noise)
    assert isinstance(regression.algebra, MarkovAlgebra)
    theta = _point(regression)
    log_noise, parts = regression.split(torch.from_numpy(theta))
    covariance = _block(regression.terms, parts, regression.sites, regression.sites)
    variance = np.exp(2.0 * float(log_noise)) * np.ones(50) if noise is None else np.repeat(noise, 2) ** 2
    y = regression.values.ravel()
    value, gradient = regression.value_and_gradient(theta)
    expected = stats.multivariate_normal(np.zeros(50), covariance + np.diag(variance)).logpdf(y)
    assert value == pytest.approx(expected, rel=1e-9)
    for k in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[k]
        ends = [regression.value_and_gradient(theta + sign * step)[0] for sign in (1.0, -1.0)]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("known", [False, True])
def test_posterior(coarse: Surface, term: MarkovTerm, known: bool) -> None:
    noise = np.linspace(0.05, 0.3, 25) if known else None
    regression = build(coarse, term, noise)
    theta = _point(regression)
    posterior = regression.posterior(theta)
    log_noise, parts = regression.split(torch.from_numpy(theta))
    variance = np.exp(2.0 * float(log_noise)) * np.ones(50) if noise is None else np.repeat(noise, 2) ** 2
    data = _block(regression.terms, parts, regression.sites, regression.sites) + np.diag(variance)
    y = regression.values.ravel()
    nodes = node_sites(coarse.cloud.frames, coarse.cloud.points, {}, np.arange(30))
    for places in (nodes, point_sites(coarse.cloud, {}, coarse.others)):
        cross = _block(regression.terms, parts, places, regression.sites)
        mean = cross @ np.linalg.solve(data, y)
        joint = _block(regression.terms, parts, places, places) - cross @ np.linalg.solve(data, cross.T)
        found_mean, found = posterior.moments(places)
        np.testing.assert_allclose(found_mean.ravel(), mean, atol=1e-8)
        for place in range(len(places)):
            own = slice(2 * place, 2 * place + 2)
            np.testing.assert_allclose(found[place], joint[own, own], atol=1e-8)
        joint_mean, root = posterior.joint(places)
        np.testing.assert_allclose(joint_mean, mean, atol=1e-8)
        np.testing.assert_allclose(root @ root.T, joint, atol=1e-8)
        operator = sparse.random(5, 2 * len(places), density=0.3, random_state=0, format="csr")
        values, deviations = posterior.functional(operator, places)
        np.testing.assert_allclose(values, operator @ mean, atol=1e-8)
        expected = np.sqrt(np.diag(operator @ joint @ operator.T.toarray()))
        np.testing.assert_allclose(deviations, expected, atol=1e-6)
        np.testing.assert_allclose(posterior.part_moments(places, 0)[1], found, atol=1e-12)
        draws = posterior.sampler(places)(4000, np.random.default_rng(0))
        scatter = np.cov(draws.T)
        assert np.abs(scatter - joint).max() < 0.12 * np.abs(joint).max()
    means, covariances = posterior.leave_one_out()
    for place in (0, 24):
        out = np.array([2 * place, 2 * place + 1])
        rest = np.setdiff1d(np.arange(50), out)
        gain = np.linalg.solve(data[np.ix_(rest, rest)], data[np.ix_(rest, out)]).T
        np.testing.assert_allclose(means[place], gain @ y[rest], atol=1e-8)
        left = data[np.ix_(out, out)] - gain @ data[np.ix_(rest, out)]
        np.testing.assert_allclose(covariances[place], left, atol=1e-8)


def test_constant_beside_a_markov_term(sphere: Surface) -> None:
    """The constant is one more unknown; the whole is what the dense algebra says."""
    term = MarkovTerm("markov", MarkovKernel.on(sphere.cloud, "scalar", 2.0, 1.0), SCALES)
    sites = node_sites(np.ones((200, 1, 1)), sphere.cloud.points, {}, np.arange(0, 200, 8))
    regression = FieldRegression([term, ConstantTerm(10.0)], sites, 5.0 + sphere.vectors[::8, :1], SCALES)
    theta = _point(regression)
    assert isinstance(regression.algebra, MarkovAlgebra)
    noise, parts = regression.split(torch.from_numpy(theta))
    covariance = _block(regression.terms, parts, sites, sites) + np.exp(2.0 * float(noise)) * np.eye(25)
    expected = stats.multivariate_normal(np.zeros(25), covariance).logpdf(regression.values.ravel())
    assert regression.value_and_gradient(theta)[0] == pytest.approx(expected, rel=1e-9)


def test_same_answers_as_the_complete_basis(sphere: Surface) -> None:
    """Two algebras of one model; they differ by masses that the basis counts as one."""
    train = np.arange(0, 200, 2)
    fits = {}
    for kernel in ("markov:matern2", "intrinsic:matern2"):
        model = VectorFieldGP(sphere.cloud, kernel)
        result = model.fit(train, sphere.vectors[train], progress=False)
        fits[kernel] = (result.log_likelihood, model.predict(np.arange(1, 200, 2)).mean)
    (first, mean), (second, other) = fits.values()
    assert first == pytest.approx(second, abs=2.0)
    assert np.abs(mean - other).max() < 0.02


def test_auto_goes_on_where_modes_are_too_few(coarse: Surface) -> None:
    rng = np.random.default_rng(3)
    waves, phase = 6.0 * rng.standard_normal((40, 3)), rng.uniform(0.0, 6.3, 40)
    x = coarse.cloud.points
    rough = np.cos(x @ waves.T + phase) @ rng.standard_normal((40, 3))
    rough -= x * (rough * x).sum(1, keepdims=True)
    where = np.arange(0, 100, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        result = VectorFieldGP(coarse.cloud, "intrinsic", rank=12, full_below=0).fit(
            where, rough[where], progress=False
        )
        assert result.kernel.startswith("markov:")
        enough = VectorFieldGP(coarse.cloud, "intrinsic", rank=60, full_below=0)
        smooth = enough.fit(where, coarse.vectors[where], progress=False)
    assert not any(name.startswith("markov") for name in smooth.comparison.table.index)
    small = VectorFieldGP(coarse.cloud, "intrinsic", rank=12, full_below=0, sparse_unknowns=100)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        left_out = small.fit(where, rough[where], progress=False).comparison.left_out
    assert set(left_out) == {"markov:matern1", "markov:matern2"}
    assert any("sparse_unknowns=100" in str(w.message) for w in told)
    assert any("raise rank, or take a 'markov' kernel" in str(w.message) for w in told)


def test_vector_model_end_to_end(sphere: Surface) -> None:
    """Places, derived quantities, draws and sums with ambient kernels, from a kernel given as an object."""
    train = np.arange(0, 200, 2)
    kernel = MarkovKernel.on(sphere.cloud, "connection", 3.0)
    model = VectorFieldGP(sphere.cloud, kernel)
    result = model.fit(train, sphere.vectors[train], progress=False)
    assert set(result.parameters) == {"noise", "lengthscale", "amplitude"} and result.converged
    rest = np.arange(1, 200, 2)
    assert np.abs(model.predict(rest).mean - sphere.vectors[rest]).max() < 0.15
    between = model.predict(sphere.others)
    assert np.abs(between.mean - sphere.other_vectors).mean() < 0.1
    found = model.singularities(draws=10)
    assert found.total == 2 == found.euler_characteristic
    assert model.divergence().standard_deviation.shape == (200,)
    few = fibonacci(90)
    both = VectorFieldGP(PointCloud(few, dim=2), "projected:rbf + markov:matern2")
    both.fit(np.arange(0, 90, 2), field(few)[::2], progress=False)
    assert np.abs(both.predict(np.arange(1, 90, 2)).mean - field(few)[1::2]).max() < 0.3


def _terms_at(model: EdgeFlowGP) -> tuple[tuple[Term, ...], list[torch.Tensor]]:
    best = model._fitted()
    return best.regression.terms, best.regression.split(torch.from_numpy(best.fit.theta))[1]


def test_functions_on_graphs_and_flows_on_edges() -> None:
    side = 8
    number = np.arange(side * side).reshape(side, side)
    pairs = np.concatenate(
        [
            np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1),
            np.stack([number[:-1].ravel(), number[1:].ravel()], 1),
        ]
    )
    adjacency = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(64, 64)).tocsr()
    graph = Graph(adjacency + adjacency.T)
    x, y = np.divmod(np.arange(64), side)
    values = np.sin(0.5 * x) + 0.2 * y
    model = ScalarFieldGP(graph, "markov:matern1")
    model.fit(np.arange(0, 64, 2), values[::2], progress=False)
    assert np.abs(model.predict().mean - values).mean() < 0.35 * np.abs(values - values.mean()).mean()
    weights = 1.0 + 0.5 * np.cos(np.arange(len(pairs)))
    complex_ = CellComplex(64, pairs, edge_weights=weights)
    flow = values[pairs[:, 1]] - values[pairs[:, 0]]
    where, rest = np.arange(0, len(pairs), 2), np.arange(1, len(pairs), 2)
    edges = EdgeFlowGP(complex_, "markov:matern1")
    result = edges.fit(where, flow[where], noise=0.1, progress=False)
    # The same by eigenvectors: flows are symmetric coordinates over the root of the weights.
    eigenvalues, vectors = np.linalg.eigh(complex_.l1.toarray())
    dense = (vectors * (2.0 / result.parameters["lengthscale"] ** 2 + eigenvalues) ** -2.0) @ vectors.T
    dense /= np.sqrt(np.outer(weights, weights))
    assert result.converged
    model_covariance = edges.predict().variance
    prior = _block(*_terms_at(edges), edges.sites(), edges.sites())
    np.testing.assert_allclose(prior, dense * prior[0, 0] / dense[0, 0], atol=1e-10)
    gain = np.linalg.solve(prior[np.ix_(where, where)] + 0.01 * np.eye(len(where)), prior[where]).T
    np.testing.assert_allclose(edges.predict(rest).mean, gain[rest] @ flow[where], atol=1e-9)
    np.testing.assert_allclose(model_covariance, np.diag(prior - gain @ prior[where]), atol=1e-9)
    with pytest.raises(InvalidDataError, match="does not tell the parts"):
        edges.decompose()
    with pytest.raises(InvalidDataError, match="needs a Laplacian"):
        ScalarFieldGP(graph.basis(10), "markov")


def test_curve_has_half_integer_smoothness() -> None:
    t = np.linspace(0.0, 2.0 * np.pi, 80, endpoint=False)
    cloud = PointCloud(np.stack([np.cos(t), np.sin(t)], axis=1), dim=1, n_neighbors=6)
    vectors = np.cos(t)[:, None] * np.stack([-np.sin(t), np.cos(t)], axis=1)
    model = VectorFieldGP(cloud, "markov")
    result = model.fit(np.arange(0, 80, 4), vectors[::4], progress=False)
    assert set(result.comparison.table.index) == {"markov:matern12", "markov:matern32"}
    assert np.abs(model.predict().mean - vectors).max() < 0.1


def test_bad_input(sphere: Surface) -> None:
    pattern = SparsePattern.of(sparse.identity(3, format="csc"))
    with pytest.raises(InvalidDataError, match="targets must be"):
        MarkovStatistics.of(pattern, sparse.identity(3, format="csr"), np.ones(2))
    with pytest.raises(InvalidDataError, match="finite"):
        MarkovStatistics.of(pattern, sparse.identity(3, format="csr"), np.full(3, np.nan))
    other = MarkovKernel.on(sphere.cloud, "scalar", 2.0)
    with pytest.raises(InvalidDataError, match="200 nodes, the field has 100"):
        ScalarFieldGP(PointCloud(sphere.cloud.points[:100], dim=2, components="keep"), other)
