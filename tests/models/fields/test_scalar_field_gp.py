"""Functions on clouds and graphs."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

from gpkit.errors import InvalidDataError
from gpkit.geometry.graph import Graph
from gpkit.kernels import GraphKernel
from gpkit.models import ScalarFieldGP
from tests.models.fields.conftest import Surface

TRAIN = np.arange(0, 200, 4)


def height(x: np.ndarray) -> np.ndarray:
    return 3.0 + x[:, 0] * x[:, 1] + np.sin(2.0 * x[:, 2])


def test_cloud(sphere: Surface) -> None:
    true = height(sphere.cloud.points)
    model = ScalarFieldGP(sphere.cloud)
    noise = 0.02 * np.random.default_rng(0).standard_normal(50)
    result = model.fit(TRAIN, true[TRAIN] + noise, progress=False)
    assert not any("helmholtz" in name for name in result.comparison.table.index)
    found = model.predict(sphere.others)
    assert np.abs(found.mean - height(sphere.others)).mean() < 0.2 * true.std()
    low, high = found.interval(0.95)
    assert ((low <= height(sphere.others)) & (height(sphere.others) <= high)).mean() > 0.8
    assert found.sample(4).shape == (4, 60)
    draws = model.sample(20, 20, 2, progress=False)
    assert set(draws.posterior.data_vars) == set(result.parameters)


def test_mean_matters_far_from_zero(sphere: Surface) -> None:
    """A constant far from zero is no burden for the amplitude."""
    true = height(sphere.cloud.points) + 100.0
    constant, zero = (ScalarFieldGP(sphere.cloud, "projected:matern32", mean=mean) for mean in ("constant", "zero"))
    first, second = (model.fit(TRAIN, true[TRAIN], progress=False) for model in (constant, zero))
    assert first.log_evidence > second.log_evidence + 5.0
    assert first.parameters["amplitude"] < 20.0 < second.parameters["amplitude"]
    assert np.abs(constant.predict().mean - true).mean() < 0.2


def test_graph() -> None:
    graph = networkx.grid_2d_graph(9, 9)
    places = np.array(sorted(graph.nodes), dtype=np.float64)
    domain = Graph(networkx.to_scipy_sparse_array(graph, nodelist=sorted(graph.nodes)))
    true = np.sin(places[:, 0] / 2.0) + np.cos(places[:, 1] / 3.0)
    train = np.random.default_rng(0).permutation(81)[:40]
    model = ScalarFieldGP(domain)
    result = model.fit(train, true[train] + 0.01, progress=False)
    assert all(name.startswith("intrinsic") for name in result.comparison.table.index)
    rest = np.setdiff1d(np.arange(81), train)
    assert np.abs(model.predict(rest).mean - true[rest]).mean() < 0.35 * true.std()
    with pytest.raises(InvalidDataError, match="coordinates"):
        ScalarFieldGP(domain, "projected:rbf")


def test_networkx_graphs_and_adjacency_matrices_become_graphs() -> None:
    path = networkx.path_graph(["c", "a", "b", "d"])
    for given in (path, networkx.to_scipy_sparse_array(path), networkx.to_scipy_sparse_array(path, format="coo")):
        model = ScalarFieldGP(given, "intrinsic:heat")
        assert isinstance(model.domain, Graph) and model.n == 4
        np.testing.assert_array_equal(model.domain.edges, [[0, 1], [1, 2], [2, 3]])
    assert ScalarFieldGP(path, "intrinsic:heat").domain.labels == ["c", "a", "b", "d"]
    for directed in (path.to_directed(), networkx.to_scipy_sparse_array(networkx.DiGraph([(0, 1), (1, 2)]))):
        with pytest.raises(InvalidDataError, match="the graph is directed"):
            ScalarFieldGP(directed)
    with pytest.raises(InvalidDataError, match="the graph has no nodes"):
        ScalarFieldGP(networkx.Graph())


def test_random_walks_on_a_graph() -> None:
    """Nodes without coordinates suffice; kernels of walks get an amplitude of their own."""
    domain = Graph(networkx.to_scipy_sparse_array(networkx.grid_2d_graph(6, 6)))
    true = np.sin(np.arange(36) / 6.0)
    model = ScalarFieldGP(domain, GraphKernel(domain, method="grf", walks=200))
    result = model.fit(np.arange(0, 36, 2), true[::2])
    assert set(result.parameters) == {"noise", "outputscale"}
    assert np.abs(model.predict(np.arange(1, 36, 2)).mean - true[1::2]).mean() < 0.35 * np.abs(true).mean()
    with pytest.raises(InvalidDataError, match="variant='psd'"):
        ScalarFieldGP(domain, GraphKernel(domain, method="grf", walks=5, variant="unbiased"))
    with pytest.raises(InvalidDataError, match="knows 36 nodes, the field has 35"):
        ScalarFieldGP(Graph(networkx.to_scipy_sparse_array(networkx.path_graph(35))), model.kernel[0]._block.kernel)


def test_bad_input(sphere: Surface) -> None:
    with pytest.raises(InvalidDataError, match="mean must be"):
        ScalarFieldGP(sphere.cloud, mean="linear")
    with pytest.raises(InvalidDataError, match="manifold, a graph or a basis"):
        ScalarFieldGP(np.zeros((5, 3)))
    with pytest.raises(InvalidDataError, match="finite"):
        ScalarFieldGP(sphere.cloud, "projected:rbf").fit([0, 1], [1.0, np.nan])
    with pytest.raises(InvalidDataError, match="vector fields"):
        ScalarFieldGP(sphere.cloud, "helmholtz:rbf")
