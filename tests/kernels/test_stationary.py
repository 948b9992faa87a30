"""Envelopes, their derivatives and Toeplitz columns against mpmath, finite differences and each other."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz

from gpkit.errors import InvalidDataError
from gpkit.kernels import GaussianEnvelope, MaternEnvelope
from gpkit.kernels.stationary import grid_columns, mixture_derivatives, require_order
from gpkit.operators import toeplitz_dense, toeplitz_matmul

LAGS = [0.003, 0.1, 0.7, 2.0, -1.3]
LENGTH = 0.8
SMOOTHNESS = [0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 2.7, 3.5, 4.5, 5.3, 9.5, 10.5, 29.3, 31.0, 60.5]


def _bessel_reference(nu, lag, order):
    """Derivative of the Matern correlation from the recurrence of h_nu, in 40 digits."""
    with mpmath.workdps(40):
        nu = mpmath.mpf(nu)
        q = mpmath.sqrt(2 * nu) * abs(mpmath.mpf(lag)) / LENGTH
        total = mpmath.mpf(0)
        for i in range((order + 1) // 2, order + 1):
            weight = (-1) ** i * mpmath.factorial(order)
            weight /= mpmath.factorial(2 * i - order) * mpmath.factorial(order - i) * mpmath.mpf(2) ** (order - i)
            total += weight * q ** (2 * i - order) * q ** (nu - i) * mpmath.besselk(nu - i, q)
        scale = mpmath.mpf(2) ** (1 - nu) / mpmath.gamma(nu) * (mpmath.sqrt(2 * nu) / LENGTH) ** order
        return float(total * scale) * (1.0 if lag > 0 else (-1.0) ** order)


@pytest.mark.parametrize("nu", SMOOTHNESS)
def test_matern_derivatives_against_mpmath(nu):
    envelope = MaternEnvelope(nu)
    top = min(envelope.highest_order, 8)
    values = envelope.derivatives(torch.tensor(LAGS), torch.tensor(LENGTH), top)
    for order in range(top + 1):
        want = torch.tensor([_bessel_reference(nu, lag, order) for lag in LAGS])
        assert (values[order] - want).abs().max() <= 2e-12 * want.abs().max()


def test_reference_is_a_derivative():
    """The oracle itself, by mpmath's numerical differentiation of the definition."""

    def correlation(z):
        q = mpmath.sqrt(5.4) * abs(z) / LENGTH
        return mpmath.mpf(2) ** (1 - mpmath.mpf(2.7)) / mpmath.gamma(2.7) * q**2.7 * mpmath.besselk(2.7, q)

    with mpmath.workdps(40):
        for order in (1, 2, 4):
            assert math.isclose(
                float(mpmath.diff(correlation, 0.7, order)), _bessel_reference(2.7, 0.7, order), rel_tol=1e-9
            )


def test_gaussian_derivatives_are_hermite_polynomials():
    z = torch.tensor(LAGS)
    values = GaussianEnvelope().derivatives(z, torch.tensor(LENGTH), 8)
    s = (z / LENGTH).numpy()
    for order in range(9):
        hermite = np.polynomial.hermite_e.hermeval(s, np.eye(9)[order])
        want = (-1.0) ** order * hermite * np.exp(-0.5 * s * s) / LENGTH**order
        torch.testing.assert_close(values[order], torch.from_numpy(want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("nu", "even"),
    [
        (2.5, lambda a: [1.0, -(a**2) / 3.0, a**4]),
        (3.5, lambda a: [1.0, -(a**2) / 5.0, a**4 / 5.0, -(a**6)]),
        (4.5, lambda a: [1.0, -(a**2) / 7.0, 3.0 * a**4 / 35.0]),
    ],
)
def test_values_at_zero(nu, even):
    want = even(math.sqrt(2.0 * nu) / LENGTH)
    got = MaternEnvelope(nu).derivatives(torch.zeros(1), torch.tensor(LENGTH), 2 * len(want) - 1)[:, 0]
    torch.testing.assert_close(got[::2], torch.tensor(want))
    assert (got[1::2] == 0.0).all()


@pytest.mark.parametrize("nu", [2.5, 3.5, 2.7, 35.0])
def test_nothing_special_near_zero_and_far_away(nu):
    envelope = MaternEnvelope(nu)
    z = torch.tensor([0.0, 1e-300, 1e-30, 1e-9, 1e300])
    values = envelope.derivatives(z, torch.tensor(LENGTH), 4)
    assert torch.isfinite(values).all() and (values[:, -1] == 0.0).all()
    torch.testing.assert_close(values[0::2, :4], values[0::2, :1].expand(3, 4), rtol=1e-7, atol=0.0)


def test_the_smoothness_is_continuous():
    """Closed forms, Bessel functions and the uniform expansion meet."""
    z = torch.linspace(-3.0, 3.0, 31)
    for nu in (2.5, 9.5, 30.0):
        sides = [MaternEnvelope(nu + d).derivatives(z, torch.tensor(LENGTH), 4) for d in (-1e-9, 0.0, 1e-9)]
        for side in (sides[0], sides[2]):
            assert (side - sides[1]).abs().amax() <= 1e-5 * sides[1].abs().amax()
    limit = GaussianEnvelope().derivatives(z, torch.tensor(LENGTH), 4)
    assert (MaternEnvelope(1e7).derivatives(z, torch.tensor(LENGTH), 4) - limit).abs().max() < 1e-4


@pytest.mark.parametrize("envelope", [GaussianEnvelope(), MaternEnvelope(4.5), MaternEnvelope(3.2)])
def test_gradients_of_any_order(envelope):
    z = torch.tensor([0.0, 0.3, -0.4, 1.2], requires_grad=True)
    scale = torch.tensor(0.7, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: envelope.derivatives(*a, 4), (z, scale))
    assert torch.autograd.gradgradcheck(lambda *a: envelope.derivatives(*a, 2), (z, scale))


@pytest.mark.parametrize(
    "envelope", [MaternEnvelope(1.2), MaternEnvelope(2.5), MaternEnvelope(4.0), GaussianEnvelope()]
)
def test_spectra_are_fourier_transforms(envelope):
    scale = torch.tensor(LENGTH)
    frequency = torch.linspace(0.0, 200.0, 400001)
    density = envelope.spectral_density(frequency, scale)
    for lag in (0.0, 0.6, 1.5):
        got = 2.0 * torch.trapezoid(density * torch.cos(2.0 * math.pi * frequency * lag), frequency)
        torch.testing.assert_close(got, envelope.derivatives(torch.tensor(lag), scale, 0)[0], rtol=0.0, atol=1e-6)


def test_mixtures_in_batches():
    generator = torch.Generator().manual_seed(1)
    w, scale, mu = (0.3 + torch.rand(2, 3, generator=generator) for _ in range(3))
    z = torch.randn(2, 5, generator=generator)
    envelope = MaternEnvelope(3.5)
    values = mixture_derivatives(envelope, z, w, scale, mu, 4)
    assert values.shape == (5, 2, 5)
    step = 1e-5
    for order in range(4):
        above, below = (mixture_derivatives(envelope, z + s, w, scale, mu, 4)[order] for s in (step, -step))
        torch.testing.assert_close((above - below) / (2 * step), values[order + 1], rtol=1e-6, atol=1e-4)
    inputs = tuple(t.clone().requires_grad_(True) for t in (z, w, scale, mu))
    assert torch.autograd.gradcheck(lambda *a: mixture_derivatives(envelope, *a, 4), inputs)
    plain = mixture_derivatives(envelope, z, w, scale, None, 2)
    torch.testing.assert_close(plain, mixture_derivatives(envelope, z, w, scale, 0.0 * mu, 2))


@pytest.mark.parametrize("envelope", [GaussianEnvelope(), MaternEnvelope(2.5)])
def test_many_lags_in_pieces_are_the_same(envelope, monkeypatch, generator):
    lags = torch.randn(7, 5, generator=generator)
    w, scale, mu = (torch.rand(3, generator=generator) + 0.1 for _ in range(3))
    whole = mixture_derivatives(envelope, lags, w, scale, mu, 4)
    monkeypatch.setattr("gpkit.kernels.stationary._PIECE", 10)
    torch.testing.assert_close(mixture_derivatives(envelope, lags, w, scale, mu, 4), whole, rtol=0, atol=0)
    w.requires_grad_()
    assert mixture_derivatives(envelope, lags, w, scale, mu, 4).requires_grad


def test_columns_make_toeplitz_matrices():
    w, scale, mu = torch.tensor([0.4, 0.6]), torch.tensor([0.5, 2.0]), torch.tensor([0.0, 1.5])
    x = 0.13 * torch.arange(9.0)
    columns = grid_columns(GaussianEnvelope(), 0.13, 9, w, scale, mu, 3)
    want = mixture_derivatives(GaussianEnvelope(), x[:, None] - x, w, scale, mu, 3)
    right = torch.randn(9, 2)
    for order in range(4):
        row = (-1.0) ** order * columns[order]
        torch.testing.assert_close(toeplitz_dense(columns[order], row), want[order], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            toeplitz_matmul(columns[order], row, right), want[order] @ right, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize(("m", "n"), [(5, 7), (7, 5), (1, 1), (1, 4), (0, 3)])
def test_rectangular_toeplitz(m, n):
    column, row = torch.randn(2, m), torch.randn(2, n)
    if m and n:
        row[:, 0] = column[:, 0]
        torch.testing.assert_close(toeplitz_dense(column, row)[0], torch.from_numpy(toeplitz(column[0], row[0])))
    dense, right = toeplitz_dense(column, row), torch.randn(2, n, 3)
    assert dense.shape == (2, m, n)
    torch.testing.assert_close(toeplitz_matmul(column, row, right), dense @ right)


def test_orders_that_do_not_exist_are_refused():
    require_order(MaternEnvelope(2.5), 4, "the plate equation")
    require_order(GaussianEnvelope(), 40, "anything")
    assert [MaternEnvelope(nu).highest_order for nu in (0.5, 1.0, 2.5, 2.6, 4.5)] == [0, 1, 4, 5, 8]
    with pytest.raises(InvalidDataError, match="order 4.*above 2"):
        require_order(MaternEnvelope(1.5), 4, "the plate equation")
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidDataError, match="positive"):
            MaternEnvelope(bad)
