"""Spaces of GeometricKernels: structured operators, closed forms, invariances; the package itself where it can be.

Its present version and the numpy of the test environment exclude each other: then a stand-in with the same interface is
used, and what only the package can answer is skipped. ``make geometric`` runs all of it in an environment of its own.
"""

from __future__ import annotations

import importlib
import math
import sys
import warnings

import gpytorch
import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError, MissingDependencyError
from gpkit.kernels import GeometricKernel
from gpkit.operators import CrossEigenbasisLinearOperator, DenseCovarianceLinearOperator, EigenbasisLinearOperator
from tests.kernels import geometric_stand_in


def _genuine():
    """The spaces of the package, or the reason why they cannot be had."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the package imports
            importlib.import_module("geometric_kernels.torch")
            return importlib.import_module("geometric_kernels.spaces"), ""
    except ImportError as error:
        return None, f"geometric-kernels cannot be imported ({error}): make geometric runs this in its own environment"


SPACES, REASON = _genuine()
pytestmark = [  # what the package warns of about itself
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Casting complex values to real:UserWarning"),
    pytest.mark.filterwarnings("ignore:Fundamental system for dimension 10:RuntimeWarning"),
]
needs_package = pytest.mark.skipif(SPACES is None, reason=REASON)


@pytest.fixture
def spaces(monkeypatch):
    if SPACES is not None:
        return SPACES
    geometric_stand_in.install(monkeypatch)
    return sys.modules["geometric_kernels.spaces"]


def angles(n, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, (n, 1)))


def circle_kernel(x, y, lengthscale, nu=math.inf, levels=200):
    """Matern kernels of the circle as Fourier series."""
    level = np.arange(levels)
    weight = np.exp(-0.5 * (lengthscale * level) ** 2)
    if not math.isinf(nu):
        weight = (2.0 * nu / lengthscale**2 + level**2) ** (-nu - 0.5)
    weight *= np.where(level > 0, 2.0, 1.0)
    return np.cos((x.numpy() - y.numpy().T)[..., None] * level) @ weight / weight.sum()


@pytest.mark.parametrize("nu", [2.5, math.inf])
@pytest.mark.parametrize("features", [None, 25])
def test_circle_has_its_closed_form(spaces, nu, features):
    kernel = GeometricKernel(spaces.Circle(), nu, 0.8, features)
    x, y = angles(9), angles(5, 1)
    operator = kernel(x).evaluate_kernel()
    assert isinstance(operator, DenseCovarianceLinearOperator if features is None else EigenbasisLinearOperator)
    want = circle_kernel(x, x, 0.8, nu)
    np.testing.assert_allclose(operator.to_dense().detach(), want, atol=3e-5)
    np.testing.assert_allclose(kernel(x, y).to_dense().detach(), circle_kernel(x, y, 0.8, nu), atol=3e-5)
    np.testing.assert_allclose(kernel(x, diag=True).detach(), 1.0, atol=1e-12)
    if features is not None:
        assert isinstance(kernel(x, y).evaluate_kernel(), CrossEigenbasisLinearOperator)
        assert float(kernel.spectrum().detach().sum()) == pytest.approx(1.0) and kernel.features(x).shape == (9, 49)


def test_eigenfunctions_are_evaluated_once_for_a_whole_fit(spaces):
    kernel = GeometricKernel(spaces.Circle(), 2.5, 0.8, features=12)
    x = angles(60)
    first = kernel(x).evaluate_kernel()
    kernel.lengthscale = 0.3
    second = kernel(x.clone()).evaluate_kernel()
    assert first.features is second.features  # and with it the Gram matrix that the operators keep
    assert not torch.equal(first.spectrum, second.spectrum)
    noisy = second.add_diagonal(torch.tensor([0.1], dtype=torch.float64))
    right = torch.as_tensor(np.random.default_rng(1).standard_normal((60, 1)))
    quad, logdet = noisy.inv_quad_logdet(right, logdet=True)
    dense = noisy.to_dense()
    torch.testing.assert_close(logdet, torch.logdet(dense))
    torch.testing.assert_close(quad, (right.mT @ torch.linalg.solve(dense, right)).squeeze())
    (slope,) = torch.autograd.grad(quad + logdet, kernel.raw_lengthscale)
    step, values, data = 1e-5, [], right[:, 0].numpy()
    for side in (1.0, -1.0):
        with torch.no_grad():
            kernel.raw_lengthscale += side * step
            k = circle_kernel(x, x, float(kernel.lengthscale), 2.5, levels=12) + 0.1 * np.eye(60)
            values.append(np.linalg.slogdet(k)[1] + float(data @ np.linalg.solve(k, data)))
            kernel.raw_lengthscale -= side * step
    assert float(slope) == pytest.approx((values[0] - values[1]) / (2.0 * step), rel=1e-5)


def test_a_model_of_gpytorch_takes_it(spaces):
    x = angles(40)
    y = torch.sin(2.0 * x[:, 0]) + 0.05 * torch.as_tensor(np.random.default_rng(2).standard_normal(40))

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(GeometricKernel(spaces.Circle(), 2.5, 0.8, features=15))

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    model = Model().double()
    model.likelihood.noise = 0.0025
    model.eval()
    new = angles(20, 7)
    with torch.no_grad():
        mean = model(new).mean
    assert float((mean - torch.sin(2.0 * new[:, 0])).abs().max()) < 0.15


def test_what_is_refused(spaces, monkeypatch):
    circle = spaces.Circle()
    for arguments, message in (
        ({"nu": 0.0}, "nu and lengthscale"),
        ({"lengthscale": -1.0}, "nu and lengthscale"),
        ({"lengthscale": math.inf}, "nu and lengthscale"),
        ({"features": 0}, "features must be an integer"),
        ({"features": True}, "features must be an integer"),
        ({"features": 5, "levels": 5}, "explicit eigenfunctions"),
        ({"levels": -1}, "levels must be an integer"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            GeometricKernel(circle, **arguments)
    with pytest.raises(InvalidDataError, match="pass features"):
        GeometricKernel(circle).features(angles(3))
    with pytest.raises(NotImplementedError, match="not a batch"):
        GeometricKernel(circle)(angles(6).reshape(2, 3, 1)).to_dense()
    for name in [name for name in sys.modules if name.partition(".")[0] == "geometric_kernels"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "geometric_kernels", None)
    with pytest.raises(MissingDependencyError, match=r"gpkit-bayes\[geometric\].*numpy below"):
        GeometricKernel(circle)


@pytest.mark.skipif(SPACES is not None, reason="spaces of the stand-in")
def test_random_phases_of_the_stand_in(spaces):
    group = geometric_stand_in.Rotations()
    _, points = group.random(torch.Generator().manual_seed(3), 6)
    rows = points.reshape(6, 4)
    estimate = GeometricKernel(group, lengthscale=0.7, features=4000, levels=10)(rows).evaluate_kernel()
    exact = GeometricKernel(group, lengthscale=0.7, levels=10)(rows).to_dense()
    assert isinstance(estimate, EigenbasisLinearOperator) and estimate.features.shape == (6, 40000)
    assert float((estimate.to_dense() - exact).detach().abs().max()) < 0.05
    line = torch.linspace(-1.0, 1.0, 7, dtype=torch.float64)[:, None]
    kernel = GeometricKernel(geometric_stand_in.Line(), math.inf, 0.5, features=20_000)
    found = kernel(line).to_dense().detach()
    torch.testing.assert_close(found, torch.exp(-0.5 * ((line - line.mT) / 0.5) ** 2), rtol=0.0, atol=0.03)
    for arguments, message in (({}, "say how many"), ({"features": 5, "levels": 3}, "continuous")):
        with pytest.raises(InvalidDataError, match=message):
            GeometricKernel(geometric_stand_in.Line(), **arguments)
    with pytest.raises(InvalidDataError, match="HodgeKernel"):
        GeometricKernel(geometric_stand_in.GraphEdges())
    with pytest.raises(InvalidDataError, match="up to 300 levels"):
        GeometricKernel(spaces.Circle(), features=300)


# ------------------------------------------------------------------------------------------------- the package itself


def sample(space, n, seed=0):
    points = torch.as_tensor(np.asarray(space.random(np.random.RandomState(seed), n)[1]))  # its interface
    return points.to(torch.float64)


@needs_package
def test_spheres_are_zonal_series():
    """k(x, y) = sum_l S_l (2 l + 1) P_l(x . y), checked with scipy's Legendre polynomials."""
    from scipy.special import eval_legendre

    x = sample(SPACES.Hypersphere(2), 8)
    cosine = np.clip((x @ x.mT).numpy(), -1.0, 1.0)
    level = np.arange(15)
    weight = (2.0 * 2.5 / 0.6**2 + level * (level + 1.0)) ** (-2.5 - 1.0) * (2 * level + 1)
    want = eval_legendre(level, cosine[..., None]) @ weight / weight.sum()
    for arguments in ({"features": 15}, {"levels": 15}):
        found = GeometricKernel(SPACES.Hypersphere(2), 2.5, 0.6, **arguments)(x).to_dense().detach()
        np.testing.assert_allclose(found, want, atol=1e-10)
    with pytest.raises(InvalidDataError, match="up to 12 levels"):
        GeometricKernel(SPACES.Hypersphere(9), features=12)


@needs_package
@pytest.mark.parametrize("name", ["SpecialOrthogonal", "Hyperbolic", "SymmetricPositiveDefiniteMatrices"])
def test_matrix_and_noncompact_spaces(name):
    space = getattr(SPACES, name)(3 if name == "SpecialOrthogonal" else 2)
    x = sample(space, 7).reshape(7, -1)
    kernel = GeometricKernel(space, 2.5, 0.7, features=400)
    operator = kernel(x).evaluate_kernel()
    assert isinstance(operator, EigenbasisLinearOperator)
    dense = operator.to_dense().detach()
    torch.testing.assert_close(dense.diagonal(), torch.ones(7, dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(dense).min()) > -1e-12
    torch.testing.assert_close(kernel(x[:3], x).to_dense().detach(), dense[:3])  # the same phases at every call
    noisy = operator.add_diagonal(torch.tensor([0.1], dtype=torch.float64))
    torch.testing.assert_close(noisy.logdet(), torch.logdet(noisy.to_dense()))
    noisy.logdet().backward()
    assert float(kernel.raw_lengthscale.grad.abs()) > 0.0
    if name == "SpecialOrthogonal":
        exact = GeometricKernel(space, 2.5, 0.7)(x).to_dense().detach()
        assert float((dense - exact).abs().max()) < 0.15
        turn = sample(space, 1, seed=5)[0]
        turned = (turn @ x.reshape(7, 3, 3)).reshape(7, 9)
        torch.testing.assert_close(GeometricKernel(space, 2.5, 0.7)(turned).to_dense().detach(), exact)
    else:
        with pytest.raises(InvalidDataError, match="say how many"):
            GeometricKernel(space)


@needs_package
def test_graph_edges_are_left_to_the_hodge_kernel():
    with pytest.raises(InvalidDataError, match="HodgeKernel"):
        GeometricKernel(object.__new__(SPACES.GraphEdges))
