"""Parameters, constraints, priors, algebra and what users may write themselves."""

from __future__ import annotations

import copy
import pickle
import unittest

import gpytorch
import pytest
import torch
from gpytorch.constraints import GreaterThan, Interval
from gpytorch.priors import GammaPrior, LogNormalPrior
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase

from gpkit.kernels import (
    CeleriteKernel,
    DRWKernel,
    MaternKernel,
    ProductKernel,
    ScaleKernel,
    SHOKernel,
    SumKernel,
    as_state_space,
)
from gpkit.operators import SemiseparableLinearOperator
from tests.factories import DriverResponse

X = torch.linspace(0.0, 5.0, 7, dtype=torch.float64).unsqueeze(-1)


def test_natural_values_are_read_and_set():
    kernel = SHOKernel(frequency=2.0, quality=0.7)
    assert kernel.frequency.item() == pytest.approx(2.0)
    kernel.quality = 3.0
    assert kernel.quality.item() == pytest.approx(3.0)
    kernel.initialize(quality=0.25)
    assert kernel.quality.item() == pytest.approx(0.25)
    kernel.initialize(raw_quality=torch.tensor(0.0))
    assert kernel.quality.item() == pytest.approx(0.6931471805599453)
    celerite = CeleriteKernel(b=-0.5)
    assert celerite.b.item() == -0.5
    scaled = ScaleKernel(kernel)
    scaled.initialize(outputscale=4.0, **{"base_kernel.quality": 1.5})
    assert scaled.outputscale.item() == pytest.approx(4.0) and kernel.quality.item() == pytest.approx(1.5)


def test_values_outside_a_constraint_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"SHOKernel.quality must lie in \(0, inf\), got -1") as error:
        SHOKernel(quality=-1.0)
    assert "\n" not in str(error.value)
    kernel = SHOKernel(quality=1.0, quality_constraint=Interval(0.5, 10.0))
    with pytest.raises(ValueError, match="must lie in"):
        kernel.quality = 0.1
    assert kernel.quality.item() == pytest.approx(1.0)


def test_a_parameter_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="colour"):
        SHOKernel().colour


def test_constraints_are_kept():
    kernel = DRWKernel(5.0, timescale_constraint=GreaterThan(1.0))
    kernel.raw_timescale.data.fill_(-50.0)
    assert kernel.timescale.item() >= 1.0


def kernel_with_priors():
    base = SHOKernel(quality_prior=LogNormalPrior(-0.7, 1.0), frequency_prior=GammaPrior(2.0, 1.0))
    return ScaleKernel(base, outputscale_prior=GammaPrior(3.0, 2.0)).double()


@pytest.mark.parametrize("change", [lambda k: k, copy.deepcopy, lambda k: pickle.loads(pickle.dumps(k))])
def test_priors(change):
    kernel = change(kernel_with_priors())
    found = {name: (module, prior, read, write) for name, module, prior, read, write in kernel.named_priors()}
    assert set(found) == {"outputscale_prior", "base_kernel.quality_prior", "base_kernel.frequency_prior"}
    module, _, read, write = found["base_kernel.quality_prior"]
    assert module is kernel.base_kernel
    write(module, torch.tensor(0.9))
    assert read(module).item() == pytest.approx(0.9) == pytest.approx(kernel.base_kernel.quality.item())
    drawn = kernel.pyro_sample_from_prior()
    assert drawn is not kernel and torch.isfinite(drawn(X).to_dense()).all()
    kernel.sample_from_prior("outputscale_prior")


def test_gpytorch_wrappers_keep_priors_dimensions_and_batches():
    wrapped = gpytorch.kernels.ScaleKernel(
        SHOKernel(quality_prior=GammaPrior(2.0, 1.0)),
        outputscale_prior=GammaPrior(3.0, 2.0),
        active_dims=(1,),
        batch_shape=torch.Size([2]),
    ).double()
    wrapped.outputscale = torch.tensor([1.0, 4.0])
    ours = as_state_space(wrapped)
    assert len(list(ours.named_priors())) == 2 and ours.batch_shape == torch.Size([2])
    assert ours.raw_outputscale is wrapped.raw_outputscale
    x = torch.randn(5, 2)
    torch.testing.assert_close(ours(x).to_dense(), wrapped(x).to_dense())
    torch.testing.assert_close(ours[1](x).to_dense(), wrapped(x).to_dense()[1])


def test_selecting_from_a_batch_copies_and_broadcasts():
    kernel = ScaleKernel(SHOKernel(), outputscale=torch.tensor([1.0, 2.0, 3.0]), batch_shape=torch.Size([3]))
    part = kernel[1:]
    assert part.batch_shape == part.base_kernel.batch_shape == torch.Size([2])
    part.outputscale = 9.0
    assert kernel.outputscale.tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert kernel.base_kernel.batch_shape == torch.Size() and kernel.base_kernel.raw_quality.shape == torch.Size()
    assert kernel[torch.tensor([2, 0])].outputscale.tolist() == pytest.approx([3.0, 1.0])


def test_sums_and_products_stay_state_space_kernels():
    sho, drw, matern = SHOKernel(2.0, 3.0), DRWKernel(4.0), MaternKernel(1.5)
    assert isinstance(sho + drw, SumKernel) and isinstance(sho * drw, ProductKernel)
    total = sho + drw + matern
    assert len(total.kernels) == 3 and total.kernels[0] is sho
    torch.testing.assert_close(total(X).to_dense(), sho(X).to_dense() + drw(X).to_dense() + matern(X).to_dense())
    mixed = sho * (drw + matern)
    torch.testing.assert_close(mixed(X).to_dense(), sho(X).to_dense() * (drw(X).to_dense() + matern(X).to_dense()))
    wrapped = gpytorch.kernels.ScaleKernel(drw).double()
    assert isinstance(sho + wrapped, SumKernel) and isinstance(sho * wrapped, ProductKernel)
    foreign = gpytorch.kernels.RBFKernel().double()
    dense = sho(X).to_dense() + foreign(X).to_dense()
    torch.testing.assert_close((sho + foreign)(X).to_dense(), dense)
    torch.testing.assert_close((foreign + sho)(X).to_dense(), dense)
    torch.testing.assert_close((sho * foreign)(X).to_dense(), sho(X).to_dense() * foreign(X).to_dense())


def test_gpytorchs_kernel_on_the_left():
    wrapped = gpytorch.kernels.ScaleKernel(DRWKernel(4.0)).double()
    total = wrapped + SHOKernel(2.0, 3.0)
    converted = as_state_space(total)
    assert isinstance(converted(X).evaluate_kernel(), SemiseparableLinearOperator)
    torch.testing.assert_close(converted(X).to_dense(), total(X).to_dense())


def test_parts_must_see_the_same_time():
    with pytest.raises(ValueError, match="same input dimension"):
        SHOKernel(active_dims=(0,)) + SHOKernel(active_dims=(1,))


def test_timescales_of_composites_name_their_part():
    total = ScaleKernel(SHOKernel(2.0, 3.0)) + DRWKernel(4.0)
    times = total.timescales()
    assert times["kernels.1.decorrelation"].item() == pytest.approx(4.0)
    assert times["kernels.0.regime"] == "underdamped"


def test_a_kernel_known_by_its_state_space_is_not_symmetric_in_the_transition():
    """The oracle of the transition convention: A and its transpose give different covariances here."""
    space = DriverResponse().state_space()
    a = space.transition(torch.tensor(0.7))
    h, p = space.observation, space.stationary_covariance
    right, wrong = h @ a @ p @ h, h @ a.mT @ p @ h
    assert abs((right - wrong).item()) > 0.05
    got = DriverResponse()(torch.tensor([[0.0], [0.7]])).evaluate_kernel()
    assert got.to_dense()[0, 1].item() == pytest.approx(right.item())
    assert (got @ torch.eye(2))[0, 1].item() == pytest.approx(right.item())


def test_a_kernel_without_either_definition_says_so():
    from gpkit.kernels import StateSpaceKernel

    class Nothing(StateSpaceKernel):
        structure = (("sho",),)

    with pytest.raises(NotImplementedError, match="Nothing defines neither structure_parameters nor state_space"):
        Nothing()(X).evaluate_kernel()


class _Library(BaseKernelTestCase):
    """GPyTorch's own suite at one-dimensional inputs."""

    def create_data_no_batch(self):
        return torch.randn(50, 1)

    def create_data_single_batch(self):
        return torch.randn(2, 3, 1)

    def create_data_double_batch(self):
        return torch.randn(3, 2, 50, 1)

    def test_active_dims_list(self):
        x = torch.randn(50, 10)
        kernel, plain = self.create_kernel_no_ard(active_dims=[4]), self.create_kernel_no_ard()
        self.assertAllClose(kernel(x).to_dense(), plain(x[:, [4]]).to_dense())

    def test_active_dims_range(self):
        x = torch.randn(50, 10)
        kernel, plain = self.create_kernel_no_ard(active_dims=range(3, 4)), self.create_kernel_no_ard()
        self.assertAllClose(kernel(x).to_dense(), plain(x[:, [3]]).to_dense())


class TestSHO(_Library, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs):
        return SHOKernel(**kwargs)


class TestDRW(_Library, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs):
        return DRWKernel(**kwargs)


class TestScaledSum(_Library, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs):
        return ScaleKernel(SHOKernel(**kwargs) + DRWKernel(**kwargs))


class TestStateSpaceOnly(_Library, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs):
        return DriverResponse(**kwargs)


class TestMaternSeveralDimensions(BaseKernelTestCase, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs):
        return MaternKernel(1.5, **kwargs)
