"""Every filter in the field models, by name and as a kernel: fitted by the cached statistics of the basis."""

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse, stats

from gpkit.errors import InvalidDataError
from gpkit.geometry import CellComplex, Graph
from gpkit.kernels import ConnectionLaplacianKernel, SpectralKernel
from gpkit.kernels.graph import HodgeKernel
from gpkit.kernels.spectral_filters import FunctionFilter, MaternFilter, PStepFilter
from gpkit.models import EdgeFlowGP, ScalarFieldGP, VectorFieldGP
from gpkit.models.fields.filter_term import NAMED_FILTERS
from gpkit.models.fields.spectral_algebra import SpectralAlgebra
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]
TRAIN = np.arange(0, 200, 2)
PARAMETERS = {
    "regularised-laplacian": {"lengthscale"},
    "p-step": {"steps"},
    "cosine": set(),
    "communicability": {"time"},
    "monotone": {f"drops[{k}]" for k in range(6)},
}


@pytest.mark.parametrize("name", NAMED_FILTERS)
def test_filters_by_name(sphere: Surface, name: str) -> None:
    model = VectorFieldGP(sphere.cloud, f"intrinsic:{name}")
    result = model.fit(TRAIN, sphere.vectors[TRAIN], noise=0.02, progress=False)
    assert set(result.parameters) == {"amplitude"} | PARAMETERS[name] and np.isfinite(result.log_evidence)
    regression = model._fitted().regression
    assert isinstance(regression.algebra, SpectralAlgebra)
    # The fit is at a maximum of the dense likelihood too.
    theta = model._fitted().fit.theta
    _, parts = regression.split(torch.from_numpy(theta))
    sites = regression.sites
    dense = regression.terms[0].evaluate(parts[0], regression.terms[0].prepare(sites, sites)).detach().numpy()
    expected = stats.multivariate_normal(np.zeros(200), dense + 4e-4 * np.eye(200)).logpdf(regression.values.ravel())
    assert regression.value_and_gradient(theta)[0] == pytest.approx(expected, rel=1e-7)
    value, gradient = regression.value_and_gradient(theta + 0.1)
    for k in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[k]
        ends = [regression.value_and_gradient(theta + 0.1 + sign * step)[0] for sign in (1.0, -1.0)]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-4, abs=2e-3)
    if name != "cosine":  # which cannot adapt
        rest = np.arange(1, 200, 2)
        assert np.abs(model.predict(rest).mean - sphere.vectors[rest]).mean() < 0.1


def test_filters_as_kernels(sphere: Surface) -> None:
    """The same fit by name and by a kernel; scale, sums and functions of the user."""
    named = VectorFieldGP(sphere.cloud, "intrinsic:matern32")
    by_name = named.fit(TRAIN, sphere.vectors[TRAIN], progress=False)
    basis = named.basis
    given = VectorFieldGP(sphere.cloud, ConnectionLaplacianKernel(basis, MaternFilter(1.5, 0.5, basis.dim)))
    by_kernel = given.fit(TRAIN, sphere.vectors[TRAIN], progress=False)
    assert by_kernel.kernel == "connection:matern"
    assert by_kernel.log_likelihood == pytest.approx(by_name.log_likelihood, abs=0.3)
    np.testing.assert_allclose(given.predict([1]).mean, named.predict([1]).mean, atol=0.01)
    learnt = ConnectionLaplacianKernel(basis, MaternFilter(1.5, 0.5, basis.dim, learn_nu=True))
    both = gpytorch.kernels.ScaleKernel(learnt) + SpectralKernel(basis, FunctionFilter(lambda x: -0.1 * x))
    model = VectorFieldGP(sphere.cloud, both)
    result = model.fit(TRAIN, sphere.vectors[TRAIN], progress=False)
    assert set(result.parameters) == {
        "noise",
        "connection:matern 1.lengthscale",
        "connection:matern 1.nu",
        "connection:matern 1.amplitude",
        "connection:function 2.amplitude",
    }
    assert isinstance(model._fitted().regression.algebra, SpectralAlgebra)
    assert result.log_likelihood > by_name.log_likelihood - 1.0
    with pytest.raises(InvalidDataError, match="below the largest eigenvalue"):
        bad = VectorFieldGP(sphere.cloud, ConnectionLaplacianKernel(basis, PStepFilter(2, 1.0)))
        bad.fit(TRAIN, sphere.vectors[TRAIN], progress=False)


def test_graphs_and_edges() -> None:
    """Communicability of a graph is that of its adjacency matrix; a Hodge kernel is taken apart."""
    ring = np.stack([np.arange(40), (np.arange(40) + 1) % 40], axis=1)
    adjacency = sparse.coo_matrix((np.ones(40), ring.T), shape=(40, 40)).tocsr()
    graph = Graph(adjacency + adjacency.T)
    values = np.cos(2.0 * np.pi * np.arange(40) / 40.0)
    model = ScalarFieldGP(graph, "intrinsic:communicability", mean="zero")
    result = model.fit(np.arange(0, 40, 2), values[::2], noise=0.01, progress=False)
    found = model.sites().features["adjacency"].numpy()[:, 0]
    assert found.shape == (40, 40) and "adjacency" in model._bases
    dense = 2.0 * np.eye(40) - (adjacency + adjacency.T).toarray()
    eigenvalues = model._bases["adjacency"].eigenvalues
    np.testing.assert_allclose(np.sort(eigenvalues), np.linalg.eigvalsh(dense), atol=1e-9)
    assert np.abs(model.predict().mean - values).max() < 0.1 and "time" in result.parameters
    complex_ = CellComplex(40, ring)
    flow = values[ring[:, 1]] - values[ring[:, 0]] + 0.3
    edges = EdgeFlowGP(complex_, HodgeKernel(complex_.hodge_basis(), "heat"))
    fitted = edges.fit(np.arange(0, 40, 2), flow[::2], progress=False)
    assert {"gradient.amplitude", "harmonic.amplitude"} <= set(fitted.parameters)
    assert np.abs(edges.predict().mean - flow).max() < 0.05
    assert set(edges.decompose()) == {"gradient", "harmonic"}
