"""Grid kernels and spectral mixtures: values, grids found and not found, GPyTorch's suite, start values, pruning."""

from __future__ import annotations

import copy
import math
import pickle
import unittest

import gpytorch
import pytest
import torch
from gpytorch.kernels import RBFKernel
from gpytorch.kernels import ScaleKernel as GPyTorchScale
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.kernels import GridKernel, JeffreysPrior, MaternKernel, SpectralMixtureKernel
from gpkit.kernels.structured import cross_of, gram_of, is_structured
from gpkit.kernels.uniform_grid import uniform_cells
from gpkit.models import ExactGP
from gpkit.operators import KroneckerCrossLinearOperator, KroneckerLinearOperator, ToeplitzLinearOperator
from gpkit.operators.dense import DenseCovarianceLinearOperator


def grid_kernel(**k):
    kernel = GridKernel([RBFKernel(), MaternKernel(1.5, lengthscale=0.7), SpectralMixtureKernel(2)], **k).double()
    kernel.kernels[0].lengthscale = 0.6
    return kernel


def mixture_of_three():
    return SpectralMixtureKernel(3, "student-t", 5.0)


def axes():
    return [torch.linspace(0.0, 1.0, 4), torch.tensor([0.0, 0.3, 1.7]), 0.1 * torch.arange(5.0)]


class TestGridKernelLibrary(BaseKernelTestCase, unittest.TestCase):
    def create_kernel_no_ard(self, **k):
        dims = k.pop("active_dims", None)
        active = None if dims is None else list(dims)[:2]
        return GridKernel([RBFKernel(**k) for _ in range(2)], active_dims=active).double()

    def test_active_dims_list(self):
        x = self.create_data_no_batch()
        got = self.create_kernel_no_ard(active_dims=[4, 7])(x).to_dense()
        torch.testing.assert_close(got, self.create_kernel_no_ard()(x[:, [4, 7]]).to_dense())

    test_active_dims_range = test_active_dims_list


class TestSpectralMixtureLibrary(BaseKernelTestCase, unittest.TestCase):
    def create_kernel_no_ard(self, **k):
        dims = k.pop("active_dims", None)
        active = None if dims is None else list(dims)[:1]
        return SpectralMixtureKernel(3, "student-t", 4.2, active_dims=active, **k)

    def create_data_no_batch(self):
        return torch.randn(20, 10)

    def create_data_single_batch(self):
        return torch.randn(2, 3, 1)

    def create_data_double_batch(self):
        return torch.randn(3, 2, 7, 1)

    def test_active_dims_list(self):
        x = self.create_data_no_batch()
        got = self.create_kernel_no_ard(active_dims=[4])(x).to_dense()
        torch.testing.assert_close(got, self.create_kernel_no_ard()(x[:, [4]]).to_dense())

    test_active_dims_range = test_active_dims_list


# --------------------------------------------------------------------------------------------- grid kernel


@pytest.mark.parametrize("which", ["all", "shuffled", "gaps"])
def test_gram_and_cross_agree_with_products_of_kernels(which):
    kernel, parts = grid_kernel(), axes()
    x = torch.cartesian_prod(*parts)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    x = {"all": x, "shuffled": x[order], "gaps": x[order[:50]]}[which]
    want = torch.ones(len(x), len(x))
    for k, part in enumerate(kernel.kernels):
        want = want * part(x[:, k : k + 1]).to_dense()
    gram = kernel.gram(x)
    assert isinstance(gram, KroneckerLinearOperator)
    torch.testing.assert_close(gram.to_dense(), want)
    # The same points as "new" points: neither the covariance nor its scale depends on who asks.
    for asked in (kernel.cross(x, x), kernel.cross(x[:7], x), kernel.cross(x.flip(0)[:7], x)):
        assert isinstance(asked, KroneckerCrossLinearOperator)
    torch.testing.assert_close(kernel.cross(x, x).to_dense(), want)
    torch.testing.assert_close(kernel.cross(x[:7], x).to_dense(), want[:7])
    torch.testing.assert_close(kernel(x[:7], x).to_dense(), want[:7])
    torch.testing.assert_close(kernel(x, diag=True), want.diagonal())
    new = torch.rand(6, 3)
    want = torch.ones(6, len(x))
    for k, part in enumerate(kernel.kernels):
        want = want * part(new[:, k : k + 1], x[:, k : k + 1]).to_dense()
    torch.testing.assert_close(kernel.cross(new, x).to_dense(), want)


def test_scattered_inputs_are_dense_with_the_same_values():
    kernel, x = grid_kernel(), torch.rand(30, 3)
    gram = kernel.gram(x)
    assert isinstance(gram, DenseCovarianceLinearOperator)
    one_by_one = torch.stack([kernel(x, x[k : k + 1]).to_dense()[:, 0] for k in range(30)], 1)
    torch.testing.assert_close(gram.to_dense(), one_by_one)


def test_grids_that_are_none_for_rounding_are_pointed_out():
    x = torch.cartesian_prod(torch.linspace(0.0, 1.0, 20), torch.linspace(0.0, 1.0, 20), torch.linspace(0.0, 1.0, 5))
    kernel = GridKernel([RBFKernel(), RBFKernel(), RBFKernel()]).double()
    generator = torch.Generator().manual_seed(1)
    with pytest.warns(DataWarning, match="grid but for rounding errors"):
        gram = kernel.gram(x * (1.0 + 1e-14 * torch.randn(x.shape, generator=generator)))
    assert isinstance(gram, DenseCovarianceLinearOperator)
    torch.testing.assert_close(gram.to_dense(), kernel.gram(x).to_dense())


def test_an_axis_may_be_several_columns():
    sites, instants = torch.rand(6, 2), torch.tensor([0.0, 1.0, 1.5])
    x = torch.cat([sites.repeat_interleave(3, 0), instants.repeat(6)[:, None]], 1)
    kernel = GridKernel([RBFKernel(), MaternKernel(0.5)], dims=[(0, 1), 2]).double()
    gram = kernel.gram(x)
    assert isinstance(gram, KroneckerLinearOperator) and gram.cells.sizes == (6, 3)
    want = kernel.kernels[0](x[:, :2]).to_dense() * kernel.kernels[1](x[:, 2:]).to_dense()
    torch.testing.assert_close(gram.to_dense(), want)


def test_scale_counts_once():
    """A scale around the grid kernel, and one inside an axis: once each, in every covariance."""
    x = torch.cartesian_prod(*axes())
    inner = GPyTorchScale(RBFKernel()).double()
    inner.outputscale = 3.0
    kernel = GPyTorchScale(GridKernel([inner, RBFKernel(), RBFKernel()])).double()
    kernel.outputscale = 2.0
    assert is_structured(kernel)
    for value in (gram_of(kernel, x), cross_of(kernel, x, x), kernel(x).evaluate_kernel(), kernel(x[:9], x)):
        torch.testing.assert_close(value.to_dense().diagonal(), torch.full((min(value.shape),), 6.0))
    assert isinstance(gram_of(kernel, x), KroneckerLinearOperator)
    torch.testing.assert_close(kernel(x, diag=True), torch.full((len(x),), 6.0))


def test_sums_and_products_of_grid_kernels():
    x, new = torch.cartesian_prod(*axes()), torch.rand(5, 3)
    one, two = grid_kernel(), GPyTorchScale(GridKernel([RBFKernel(), RBFKernel(), MaternKernel(0.5)])).double()
    for kernel, combine in ((one + two, torch.add), (one * two, torch.mul)):
        for args in ((x,), (new, x)):
            want = combine(one(*args).to_dense(), two(*args).to_dense())
            got = gram_of(kernel, *args) if len(args) == 1 else cross_of(kernel, *args)
            torch.testing.assert_close(got.to_dense(), want)
    assert isinstance(gram_of(one * two, x), KroneckerLinearOperator)
    # A part without structure: exact, and dense.
    mixed = one + GPyTorchScale(RBFKernel().double()).double()
    assert is_structured(mixed) and not is_structured(RBFKernel() + RBFKernel())
    torch.testing.assert_close(gram_of(mixed, x).to_dense(), mixed(x).to_dense())
    torch.testing.assert_close(cross_of(mixed, new, x).to_dense(), mixed(new, x).to_dense())
    assert isinstance(gram_of(mixed, x), DenseCovarianceLinearOperator)


def test_parameters_that_change_are_seen_in_eval_mode():
    kernel, x = grid_kernel().eval(), torch.cartesian_prod(*axes())
    before = kernel(x).to_dense()
    kernel.kernels[0].lengthscale = 5.0
    assert (kernel(x).to_dense() - before).abs().max() > 0.1


def test_copies_forget_which_inputs_they_have_seen():
    kernel, x = grid_kernel(), torch.cartesian_prod(*axes())
    want = kernel.gram(x).to_dense()
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert other._located is None
        torch.testing.assert_close(other.gram(x).to_dense(), want)
    x += 1.0
    x[:, 0] *= 2.0
    assert (kernel.gram(x).to_dense() - want).abs().max() > 0.1


@pytest.mark.parametrize("make", [grid_kernel, mixture_of_three])
def test_gradients_with_respect_to_inputs(make):
    kernel = make()
    width = 3 if make is grid_kernel else 1
    x = torch.cartesian_prod(*axes()) if width == 3 else torch.linspace(0.0, 1.0, 20)[:, None]
    new = torch.rand(3, width).requires_grad_(True)
    moving = x.clone().requires_grad_(True)
    for value, inputs in ((kernel(new, x), new), (kernel(moving), moving)):
        weights = torch.randn(value.shape)
        (got,) = torch.autograd.grad((value.to_dense() * weights).sum(), inputs)
        direction = torch.randn(inputs.shape)
        ends = [(inputs + s * direction).detach() for s in (1e-5, -1e-5)]
        above, below = (kernel(e, x if inputs is new else e).to_dense().detach() for e in ends)
        torch.testing.assert_close(
            (got * direction).sum(), ((above - below) * weights).sum() / 2e-5, rtol=1e-5, atol=1e-6
        )


def test_bad_grids_are_refused():
    with pytest.raises(InvalidDataError, match="float32 parameters but the inputs are float64"):
        GridKernel([RBFKernel().float()])(torch.rand(4, 1)).to_dense()
    with pytest.raises(InvalidDataError, match="at least one axis"):
        GridKernel([])
    with pytest.raises(InvalidDataError, match="2 kernels but dims describe 1"):
        GridKernel([RBFKernel(), RBFKernel()], dims=[(0, 1)])
    with pytest.raises(InvalidDataError, match="3 input columns, but the inputs have 2"):
        grid_kernel().gram(torch.rand(4, 2))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_points(n):
    for kernel, width in ((grid_kernel(), 3), (SpectralMixtureKernel(2), 1)):
        x = torch.rand(n, width)
        gram = kernel.gram(x)
        assert gram.shape == (n, n)
        torch.testing.assert_close(gram.to_dense().diagonal(), kernel(x, diag=True))
        assert kernel.cross(torch.rand(4, width), x).to_dense().shape == (4, n)
        assert torch.isfinite(gram.add_diagonal(torch.tensor(0.1)).logdet())


# ------------------------------------------------------------------------------------- spectral mixtures


@pytest.mark.parametrize(("envelope", "dof"), [("gaussian", 5.0), ("student-t", 5.0), ("student-t", 3.3)])
def test_spectral_mixture_values(envelope, dof):
    kernel = SpectralMixtureKernel(2, envelope, dof)
    kernel.weights, kernel.lengthscales, kernel.frequencies = [0.7, 0.4], [1.5, 0.6], [0.0, 1.3]
    x, irregular = 0.2 * torch.arange(9.0)[:, None], torch.rand(8, 1)
    assert isinstance(kernel.gram(x), ToeplitzLinearOperator)
    assert isinstance(kernel.gram(x[torch.tensor([7, 0, 3, 4])]), ToeplitzLinearOperator)
    assert isinstance(kernel.gram(irregular), DenseCovarianceLinearOperator)
    for points in (x, irregular):
        lag = points - points.mT
        base = RBFKernel().double() if envelope == "gaussian" else gpytorch.kernels.MaternKernel(nu=2.5).double()
        if dof == 3.3:
            want = kernel.autocovariance(lag)
        else:
            want = 0.0
            for w, scale, mu in zip((0.7, 0.4), (1.5, 0.6), (0.0, 1.3), strict=True):
                base.lengthscale = scale
                want = want + w * base(points).to_dense() * torch.cos(2.0 * math.pi * mu * lag)
        torch.testing.assert_close(kernel.gram(points).to_dense(), want)
        torch.testing.assert_close(kernel.cross(points, points).to_dense(), want)
    frequency = torch.linspace(0.0, 60.0, 200001)
    torch.testing.assert_close(
        torch.trapezoid(kernel.psd(frequency), frequency), torch.tensor(1.1), atol=2e-3, rtol=0.0
    )


def test_limits_of_the_degrees_of_freedom():
    lag = torch.linspace(0.0, 3.0, 20)
    gaussian = SpectralMixtureKernel(2).autocovariance(lag)
    torch.testing.assert_close(SpectralMixtureKernel(2, "student-t", math.inf).autocovariance(lag), gaussian)
    torch.testing.assert_close(
        SpectralMixtureKernel(2, "student-t", 2e7).autocovariance(lag), gaussian, atol=1e-5, rtol=0.0
    )


def test_bad_mixtures_are_refused():
    for build, message in (
        (lambda: SpectralMixtureKernel(0), "at least one line"),
        (lambda: SpectralMixtureKernel(envelope="cauchy"), "'gaussian' or 'student-t'"),
        (lambda: SpectralMixtureKernel(envelope="student-t", degrees_of_freedom=0.0), "positive"),
        (lambda: SpectralMixtureKernel(weights_prior="flat"), "'jeffreys'"),
        (lambda: setattr(SpectralMixtureKernel(2), "weights", [1.0, -1.0]), "positive"),
        (lambda: SpectralMixtureKernel(2).gram(torch.rand(3, 2)), "GridKernel"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            build()


@pytest.mark.parametrize("spacing", ["uniform", "irregular"])
def test_lines_are_found(spacing):
    generator = torch.Generator().manual_seed(4)
    x = (
        torch.linspace(0.0, 10.0, 300)
        if spacing == "uniform"
        else (10.0 * torch.rand(300, generator=generator)).sort().values
    )
    y = (
        2.0 * torch.sin(6.6 * math.pi * x)
        + 0.5 * torch.cos(22.54 * math.pi * x)
        + 0.1 * torch.randn(300, generator=generator)
    )
    kernel = SpectralMixtureKernel(6)
    lines = kernel.initialize_from_data(x, y + 3.0)
    assert lines.frequencies.size == 2
    torch.testing.assert_close(kernel.frequencies[1:3].detach(), torch.tensor([3.3, 11.27]), rtol=0.0, atol=0.02)
    torch.testing.assert_close(kernel.weights[1:3].detach(), torch.tensor([2.0, 0.125]), rtol=0.15, atol=0.0)
    assert SpectralMixtureKernel(4).initialize_from_data(x, torch.randn(300, generator=generator)).frequencies.size == 0
    assert kernel.weights_prior.floor < 1e-7
    with pytest.raises(InvalidDataError, match="at least 4 points"):
        kernel.initialize_from_data(x[:3], y[:3])
    with pytest.raises(InvalidDataError, match="differ"):
        kernel.initialize_from_data(torch.ones(9), torch.ones(9))


def test_lines_along_each_axis_of_a_grid():
    parts = [torch.linspace(0.0, 4.0, 40), torch.linspace(0.0, 2.0, 30)]
    x = torch.cartesian_prod(*parts)
    y = 3.0 * torch.sin(4.0 * math.pi * x[:, 0]) * torch.cos(7.0 * math.pi * x[:, 1])
    kernel = GridKernel([SpectralMixtureKernel(3), SpectralMixtureKernel(3)])
    keep = torch.randperm(1200, generator=torch.Generator().manual_seed(1))[:1100]
    kernel.initialize_from_data(x[keep], y[keep])
    found = [float(k.frequencies.detach()[k.weights.argmax()]) for k in kernel.kernels]
    assert abs(found[0] - 2.0) < 0.05 and abs(found[1] - 3.5) < 0.1
    total = kernel(x[:1], diag=True)
    torch.testing.assert_close(total.detach(), y.square().mean().expand(1), rtol=0.1, atol=0.0)
    with pytest.raises(InvalidDataError, match="scattered"):
        kernel.initialize_from_data(torch.rand(100, 2), torch.rand(100))


def test_jeffreys_prior_prunes():
    generator = torch.Generator().manual_seed(2)
    x = torch.linspace(0.0, 5.0, 60)
    y = torch.sin(2.6 * math.pi * x) + 0.1 * torch.randn(60, generator=generator)
    kept = {}
    for prior in ("jeffreys", None):
        kernel = SpectralMixtureKernel(3, weights_prior=prior)
        kernel.initialize_from_data(x, y)
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        model = ExactGP(x, y, likelihood, kernel)
        objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
        optimiser = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", max_iter=40)

        def loss(model=model, objective=objective, optimiser=optimiser):
            optimiser.zero_grad()
            value = -objective(model(x), y)
            value.backward()
            return value

        optimiser.step(loss)
        kept[prior] = kernel.pruned(1e-6)
    assert kept["jeffreys"].num_mixtures == 1 < kept[None].num_mixtures
    assert abs(kept["jeffreys"].frequencies.detach().abs().item() - 1.3) < 0.02
    assert isinstance(kept["jeffreys"].weights_prior, JeffreysPrior)
    with pytest.raises(NotImplementedError, match="improper"):
        JeffreysPrior().rsample()


def test_uniform_grids_are_recognised_to_rounding():
    x = torch.linspace(3.0, 4.0, 50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))[:44]
    step, cells = uniform_cells(x[order])
    assert math.isclose(step, 1.0 / 49.0) and cells.rows == 44 and cells.count <= 50
    assert uniform_cells(x + 1e-9 * torch.randn(50)) is None
    assert uniform_cells(torch.tensor([0.0, 1.0, 1000.0])) is None
    assert uniform_cells(torch.stack([x, x + 1.0])) is None
    assert uniform_cells(torch.stack([x, x]))[1].count == 50
    assert uniform_cells(torch.tensor([2.0, 2.0]))[1].repeated
