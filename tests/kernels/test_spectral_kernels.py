"""Kernels on spectral bases, projected and full-rank kernels, against dense algebra."""

from __future__ import annotations

import copy
import pickle

import gpytorch
import numpy as np
import pytest
import torch

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import PointCloud, SpectralBasis
from gpkit.geometry.spectral_basis import cut_at_gap
from gpkit.kernels import ConnectionLaplacianKernel, MarkovKernel, ProjectedKernel, SpectralKernel
from gpkit.kernels.rational import rational_power
from gpkit.kernels.spectral_filters import FunctionFilter, HeatFilter, MaternFilter, MonotoneFilter, PStepFilter
from gpkit.operators import CrossEigenbasisLinearOperator, DenseCovarianceLinearOperator, EigenbasisLinearOperator
from tests.geometry.shapes import fibonacci


@pytest.fixture(scope="module")
def cloud():
    return PointCloud(fibonacci(160), dim=2, n_neighbors=12)


@pytest.fixture(scope="module")
def basis(cloud):
    return cloud.connection_basis(40)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


def test_covariances_at_nodes(cloud, basis):
    kernel = ConnectionLaplacianKernel(basis, "matern", nu=1.5, lengthscale=0.6)
    x, z = numbers(3, 7, 1, 100), numbers(5, 3)
    operator, cross = kernel(x).evaluate_kernel(), kernel(x, z).evaluate_kernel()
    assert isinstance(operator, EigenbasisLinearOperator) and isinstance(cross, CrossEigenbasisLinearOperator)
    phi = (2 * 1.5 / 0.36 + basis.eigenvalues) ** -2.5
    rows = [basis.features([int(i) for i in v]) for v in (x, z)]
    want = [(rows[0] * (phi / phi.sum())) @ other.T for other in rows]
    np.testing.assert_allclose(operator.to_dense().detach().numpy(), want[0], atol=1e-12)
    np.testing.assert_allclose(cross.to_dense().detach().numpy(), want[1], atol=1e-12)
    torch.testing.assert_close(kernel(x, diag=True), operator.diagonal())
    everywhere = kernel(torch.arange(160.0).unsqueeze(-1), diag=True)
    assert float((torch.as_tensor(cloud.mass).repeat_interleave(2) * everywhere.detach()).mean()) == pytest.approx(1.0)
    assert kernel.features(x) is kernel.features(x.clone())
    scaled = gpytorch.kernels.ScaleKernel(kernel).double()
    scaled.outputscale = 2.5
    torch.testing.assert_close(scaled(x).to_dense(), 2.5 * operator.to_dense())
    both = (kernel + ConnectionLaplacianKernel(basis, "heat"))(x).evaluate_kernel()
    assert isinstance(both, EigenbasisLinearOperator)
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        torch.testing.assert_close(other(x).to_dense(), operator.to_dense())


def test_covariances_at_points(cloud, basis):
    kernel = ConnectionLaplacianKernel(basis)
    places = torch.as_tensor(cloud.points[[3, 50]])
    torch.testing.assert_close(kernel(places).to_dense(), kernel(numbers(3, 50)).to_dense())
    far = torch.cat([places, torch.tensor([[0.0, 0.0, 9.0]])])
    with pytest.warns(DataWarning, match="far from the nodes"):
        dense = kernel(far).to_dense()
    torch.testing.assert_close(dense[4:, 4:], torch.eye(2))
    assert dense[:4, 4:].abs().max() == 0.0
    mixed = kernel.forward(places, numbers(3, 50)).to_dense()
    torch.testing.assert_close(mixed, kernel(places).to_dense())
    assert kernel(torch.stack([places, places.flip(0)])).to_dense().shape == (2, 4, 4)


def test_batches_of_parameters(basis):
    scale = torch.tensor([0.3, 0.6, 1.2])
    for filters in (
        lambda s, b: MaternFilter(1.5, s, batch_shape=b),
        lambda s, b: HeatFilter(s, batch_shape=b),
        lambda s, b: MonotoneFilter(4, 50.0, 1.0, s.unsqueeze(-1) if s.dim() else s, batch_shape=b),
    ):
        kernel = SpectralKernel(basis, filters(scale, torch.Size([3])))
        assert kernel.batch_shape == torch.Size([3])
        dense = kernel(numbers(1, 9)).to_dense()
        for k in range(3):
            single = SpectralKernel(basis, filters(scale[k], torch.Size()))
            torch.testing.assert_close(dense[k], single(numbers(1, 9)).to_dense())


def test_filters_refuse_what_they_cannot_do(basis):
    for bad in (
        lambda: MaternFilter(-1.0),
        lambda: MaternFilter(1.5, -2.0),
        lambda: PStepFilter(0),
        lambda: MonotoneFilter(0),
        lambda: SpectralKernel(basis, "nothing"),
        lambda: SpectralKernel(basis, PStepFilter(2, 1.0)).spectrum(),
        lambda: SpectralKernel(basis, FunctionFilter(lambda x: x[:2])).spectrum(),
        lambda: ConnectionLaplacianKernel(basis.manifold.scalar_basis(5)),
    ):
        with pytest.raises(InvalidDataError):
            bad()
    values = torch.as_tensor(basis.eigenvalues)
    for given in (FunctionFilter(lambda x: -0.3 * x), lambda x: -0.3 * x):
        torch.testing.assert_close(SpectralKernel(basis, given).spectrum(), torch.softmax(-0.3 * values, 0))
    # Those for normalised Laplacians go to where other spectra end.
    assert values[-1] > 2.0
    end = float(basis.next_eigenvalue)
    for name, response in (("p-step", (end - values) ** 2), ("cosine", torch.cos(0.5 * torch.pi * values / end))):
        torch.testing.assert_close(ConnectionLaplacianKernel(basis, name).spectrum(), response / response.sum())
    learned = MaternFilter(1.5, learn_nu=True)
    learned.log_response(torch.linspace(0, 9, 5)).sum().backward()
    assert learned.raw_nu.grad.abs() > 0.0 and learned.raw_lengthscale.grad.abs() > 0.0


def test_too_few_modes_are_announced(basis):
    kernel = ConnectionLaplacianKernel(basis, lengthscale=0.1)
    assert kernel.check_rank(30)
    with pytest.warns(DataWarning, match="modes may be too few for 300 observed coordinates"):
        assert not kernel.check_rank(300)
    assert kernel.check_rank(300, expected_noise=0.1, noise=0.1)
    assert not kernel.check_rank(300, expected_noise=0.1, noise=0.3)  # said once


def test_projected_kernels(cloud):
    base = gpytorch.kernels.MaternKernel(2.5).double()
    kernel = ProjectedKernel(base, cloud)
    x, z = numbers(*range(20)), numbers(30, 3)
    operator = kernel(x).evaluate_kernel()
    assert isinstance(operator, DenseCovarianceLinearOperator)
    for rows, columns in ((x, x), (x, z)):
        i, j = ([int(v) for v in part] for part in (rows, columns))
        values = base(torch.as_tensor(cloud.points[i]), torch.as_tensor(cloud.points[j])).to_dense().detach().numpy()
        overlap = np.einsum("mai,naj->minj", cloud.frames[i], cloud.frames[j])
        want = (values[:, None, :, None] * overlap).reshape(2 * len(i), 2 * len(j))
        np.testing.assert_allclose(kernel(rows, columns).to_dense().detach().numpy(), want, atol=1e-12)
    torch.testing.assert_close(kernel(x, diag=True), operator.diagonal())
    assert torch.linalg.eigvalsh(operator.to_dense()).min() > 0.0
    places = torch.as_tensor(cloud.points[:20])
    torch.testing.assert_close(kernel(places).to_dense(), operator.to_dense())
    total = kernel(x) + ConnectionLaplacianKernel(cloud.connection_basis(30))(x)
    assert torch.isfinite(total.to_dense()).all()
    summed = (kernel + ConnectionLaplacianKernel(cloud.connection_basis(30)))(x).evaluate_kernel()
    assert isinstance(summed, DenseCovarianceLinearOperator)


@pytest.mark.parametrize("alpha", [2.0, 3.0, 1.5])
def test_markov_kernels_have_all_modes(cloud, alpha):
    assert MarkovKernel.on(cloud, alpha=alpha, lengthscale=0.5).power_error < 0.01
    kernel = MarkovKernel.on(cloud, alpha=alpha, lengthscale=0.5, order=6)
    laplacian = cloud.laplacian()
    values, vectors = np.linalg.eigh(laplacian.symmetric.toarray())
    response = (2.0 * (alpha - 1.0) / 0.25 + values) ** -alpha
    modes = vectors / np.sqrt(laplacian.mass)[:, None]
    want = torch.as_tensor((modes * (320.0 * response / response.sum())) @ modes.T)
    tolerance = 1e-9 if alpha % 1 == 0 else 5.0 * kernel.power_error
    assert (kernel.power_error == 0.0) == (alpha % 1 == 0) and kernel.power_error < 2e-3
    x = torch.arange(160.0).unsqueeze(-1)
    dense = kernel(x).to_dense()
    torch.testing.assert_close(dense, want, rtol=0, atol=tolerance)
    torch.testing.assert_close(kernel(numbers(4, 90), x).to_dense(), dense[[8, 9, 180, 181]])
    torch.testing.assert_close(kernel(torch.as_tensor(cloud.points[[4]])).to_dense(), dense[8:10, 8:10])
    noisy = kernel(x).evaluate_kernel().add_diagonal(torch.tensor(0.1))
    logdet, known = (3.0 * noisy).logdet(), torch.logdet(3.0 * (dense + 0.1 * torch.eye(320)))
    torch.testing.assert_close(logdet, known, rtol=1e-9, atol=0)
    gradient, direct = (torch.autograd.grad(value, kernel.raw_lengthscale)[0] for value in (logdet, known))
    torch.testing.assert_close(gradient, direct, rtol=1e-7, atol=0)


def test_determinants_of_several_length_scales(cloud):
    kernel = MarkovKernel.on(cloud, alpha=2.5, lengthscale=[0.4, 0.7], batch_shape=torch.Size([2]))
    precisions = [kernel.pattern.matrix(values).toarray() for values in kernel.precision_values().detach().numpy()]
    want = torch.as_tensor([np.linalg.slogdet(precision)[1] for precision in precisions])
    torch.testing.assert_close(kernel.log_determinant(), want, rtol=1e-10, atol=0)


def test_markov_kernels_refuse(cloud):
    for arguments in ({"alpha": 1.0}, {"alpha": 9.0}, {"lengthscale": -1.0}):
        with pytest.raises(InvalidDataError):
            MarkovKernel.on(cloud, **arguments)
    with pytest.raises(InvalidDataError, match="batch"):
        MarkovKernel.on(cloud)(torch.zeros(2, 3, 1)).to_dense()


@pytest.mark.parametrize("exponent", [0.2, 0.5, 0.8])
def test_fractional_powers(exponent):
    errors = [rational_power(exponent, 1e3, order)[1] for order in (2, 4, 6)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 2e-3
    poles, error = rational_power(exponent, 1e3, 6)
    x = np.exp(np.random.default_rng(0).uniform(0.0, np.log(1e3), 200))
    found = sum(w / (x + p) if np.isfinite(p) else w * np.ones_like(x) for w, p in poles)
    assert np.abs(found * x**exponent - 1.0).max() <= 1.01 * error
    assert all(w > 0.0 and p > 0.0 for w, p in poles)


# -------------------------------------------------------------------------------------------------------------- bases


def test_cuts_at_gaps():
    values = np.repeat([1.0, 5.0, 11.0, 19.0], [6, 10, 14, 18])
    assert cut_at_gap(values[:33], 32) == 30
    assert cut_at_gap(values[:31], 30) == 30
    assert cut_at_gap(values, 60) == 48
    assert cut_at_gap(np.array([0.0, 1.0]), 1) == 1


def test_files_and_cache(cloud, basis, tmp_path):
    basis.save(tmp_path / "basis.npz")
    again = SpectralBasis.load(tmp_path / "basis.npz", cloud)
    np.testing.assert_array_equal(again.functions, basis.functions)
    assert again.dim == 2 and again.kind == "connection" and again.solver == basis.solver
    first = cloud.connection_basis(10, cache=tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    second = cloud.connection_basis(10, cache=tmp_path / "kept")
    np.testing.assert_array_equal(first.functions, second.functions)
    assert second.manifold is cloud
    cloud.connection_basis(11, cache=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    file.write_bytes(b"cut short")
    np.testing.assert_allclose(cloud.connection_basis(10, cache=tmp_path / "kept").eigenvalues, first.eigenvalues)
    for bad in (file.with_name("absent.npz"), tmp_path):
        with pytest.raises(InvalidDataError):
            SpectralBasis.load(bad)
    with pytest.raises(InvalidDataError, match="160 nodes, the manifold 100"):
        SpectralBasis.load(tmp_path / "basis.npz", PointCloud(fibonacci(100), dim=2))
