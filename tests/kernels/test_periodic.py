"""The periodic kernel against the function that it is the Fourier series of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ive

from gpkit.errors import InvalidDataError
from gpkit.inference.expressions import Expression, ops, record
from gpkit.kernels import PeriodicKernel
from gpkit.kernels.periodic import harmonics_for

LAGS = torch.linspace(-7.0, 7.0, 301, dtype=torch.float64)


@pytest.mark.parametrize("lengthscale", [0.15, 0.4, 1.0, 3.0, 20.0])
def test_exact_to_rounding_at_every_permitted_length_scale(lengthscale):
    kernel = PeriodicKernel(2.3, lengthscale)
    for factor in (1.0, 0.51, 4.0):
        kernel.lengthscale = factor * lengthscale
        torch.testing.assert_close(
            kernel.autocovariance(LAGS), kernel.exact_autocovariance(LAGS), rtol=0.0, atol=1e-15 + 5e-15 / lengthscale
        )
        assert kernel.truncation_error() < 1e-15 + 5e-15 / lengthscale
    with pytest.raises(ValueError, match="must lie in"):
        kernel.lengthscale = 0.49 * lengthscale


def test_exact_is_the_canonical_periodic_kernel():
    import gpytorch

    kernel = PeriodicKernel(2.3, 0.8)
    theirs = gpytorch.kernels.PeriodicKernel().double()
    theirs.period_length, theirs.lengthscale = 2.3, 0.8**2  # their length scale is the square of the usual one
    want = theirs(torch.zeros(1, 1), LAGS.unsqueeze(-1)).to_dense()[0]
    torch.testing.assert_close(kernel.exact_autocovariance(LAGS), want)
    torch.testing.assert_close(kernel(torch.zeros(1, 1), LAGS.unsqueeze(-1)).to_dense()[0], want)


@pytest.mark.parametrize("terms", [1, 3, 6])
def test_stated_number_of_terms(terms):
    kernel = PeriodicKernel(2.3, 0.6, terms=terms)
    weights = np.array([ive(0, 0.6**-2), *(2.0 * ive(j, 0.6**-2) for j in range(1, terms + 1))])
    found = torch.stack(kernel._weights(kernel.lengthscale, torch)).detach().numpy()
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-12)
    torch.testing.assert_close(kernel.autocovariance(torch.zeros(1)), torch.ones(1))
    error = (kernel.autocovariance(LAGS) - kernel.exact_autocovariance(LAGS)).detach().abs().max()
    assert kernel.truncation_error() == pytest.approx(error.item(), rel=0.02)
    assert kernel.state_space().dimension == 2 * terms + 1


def test_number_of_harmonics_is_the_least():
    for lengthscale in (0.3, 1.0, 2.0):
        count = harmonics_for(lengthscale)
        left_out = sum(2.0 * ive(j, lengthscale**-2.0) for j in range(count + 1, count + 50))
        one_less = sum(2.0 * ive(j, lengthscale**-2.0) for j in range(count, count + 50))
        assert left_out < 2.3e-16 < 4.0 * one_less


def test_symbolic_weights_are_those_of_tensors():
    kernel = PeriodicKernel(2.3, 0.6, terms=4)
    symbols = Expression.inputs(2)
    entries = kernel.structure_parameters({"period": symbols[0], "lengthscale": symbols[1]}, ops)
    tape = record(entries, 2)
    values, _ = tape.evaluate([[2.3, 0.6]], np.ones((1, len(entries))))
    want = kernel._closed_form_params().detach().numpy()
    np.testing.assert_allclose(values[0], want, rtol=1e-13)


def test_repeats_and_derivatives():
    kernel = PeriodicKernel(2.3, 0.9)
    torch.testing.assert_close(kernel.autocovariance(LAGS + 2.3), kernel.autocovariance(LAGS), rtol=0.0, atol=1e-13)
    weights = torch.cos(LAGS)
    ours = torch.autograd.grad((weights * kernel.autocovariance(LAGS)).sum(), list(kernel.parameters()))
    full = torch.autograd.grad((weights * kernel.exact_autocovariance(LAGS)).sum(), list(kernel.parameters()))
    torch.testing.assert_close(ours, full, rtol=1e-10, atol=1e-12)


def test_bad_arguments():
    with pytest.raises(InvalidDataError, match="at least one harmonic"):
        PeriodicKernel(1.0, 1.0, terms=0)
    with pytest.raises(InvalidDataError, match="not both"):
        PeriodicKernel(1.0, 1.0, terms=3, shortest=0.5)
    with pytest.raises(InvalidDataError, match="must be positive"):
        PeriodicKernel(1.0, 1.0, shortest=-1.0)
