"""Closed forms from the literature against the kernels: spectra, time scales, conversions, critical damping."""

from __future__ import annotations

import math

import gpytorch
import numpy as np
import pytest
import torch

from gpkit.kernels import (
    CeleriteKernel,
    CosineKernel,
    DRWKernel,
    LorentzianKernel,
    MaternKernel,
    RotationKernel,
    ScaleKernel,
    SHOKernel,
)
from tests import oracles

W = torch.logspace(-3, 3, 60, dtype=torch.float64)
ROOT = math.sqrt(2.0 / math.pi)


def celerite_psd(w, a, b, c, d):
    square = c * c + d * d
    return ROOT * ((a * c + b * d) * square + (a * c - b * d) * w**2) / (w**4 + 2 * (c * c - d * d) * w**2 + square**2)


def sho_psd(w, s0, w0, q):
    return ROOT * s0 * w0**4 / ((w**2 - w0**2) ** 2 + (w0 * w / q) ** 2)


def matern_rate(nu, rho):
    return math.sqrt(2.0 * nu) / rho


SPECTRA = {
    "drw": (lambda: DRWKernel(0.7), lambda w: ROOT * 0.7 / (1.0 + (0.7 * w) ** 2)),
    "matern 1/2": (lambda: MaternKernel(0.5, 0.7), lambda w: ROOT * 0.7 / (1.0 + (0.7 * w) ** 2)),
    "matern 3/2": (
        lambda: MaternKernel(1.5, 0.7),
        lambda w: ROOT * 2 * matern_rate(1.5, 0.7) ** 3 / (matern_rate(1.5, 0.7) ** 2 + w**2) ** 2,
    ),
    "matern 5/2": (
        lambda: MaternKernel(2.5, 0.7),
        lambda w: ROOT * 8 / 3 * matern_rate(2.5, 0.7) ** 5 / (matern_rate(2.5, 0.7) ** 2 + w**2) ** 3,
    ),
    **{
        f"sho {q}": (
            lambda q=q: ScaleKernel(SHOKernel(1.3, q), outputscale=2.0),
            lambda w, q=q: sho_psd(w, 2.0 / (1.3 * q), 1.3, q),
        )
        for q in (0.01, 0.3, 0.5, 0.51, 8.0)
    },
    "celerite": (lambda: CeleriteKernel(1.2, 0.2, 0.4, 1.7), lambda w: celerite_psd(w, 1.2, 0.2, 0.4, 1.7)),
    "celerite, b < 0": (lambda: CeleriteKernel(1.2, -0.28, 0.4, 1.7), lambda w: celerite_psd(w, 1.2, -0.28, 0.4, 1.7)),
    "celerite, at the edge": (
        lambda: CeleriteKernel(1.7, 0.4, 0.4, 1.7),
        lambda w: celerite_psd(w, 1.7, 0.4, 0.4, 1.7),
    ),
    "lorentzian": (lambda: LorentzianKernel(2.0, 3.0), lambda w: celerite_psd(w, 1.0, 0.0, 2.0 / 6.0, 2.0)),
}


@pytest.mark.parametrize("name", list(SPECTRA))
def test_spectra_in_the_celerite_convention(name):
    kernel, formula = SPECTRA[name]
    got = kernel().psd(W / (2.0 * math.pi), "celerite").detach()
    torch.testing.assert_close(got, formula(W), rtol=1e-9, atol=1e-14)


def test_an_undamped_oscillation_has_a_line_spectrum():
    kernel = CosineKernel(period=1.0)
    line = float((1.0 / kernel.period).detach())
    got = kernel.psd(torch.tensor([0.0, 0.5, line])).detach()
    assert got[0] == 0.0 and got[1] == 0.0 and not torch.isnan(got).any()


def half_power(kernel):
    """Angular frequency at which the PSD is half its value at zero, by bisection."""
    zero = float(kernel.psd(torch.tensor(0.0), "celerite").detach())
    low, high = 1e-8, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        value = float(kernel.psd(torch.tensor(middle / (2.0 * math.pi)), "celerite").detach())
        low, high = (middle, high) if value > 0.5 * zero else (low, middle)
    return low


@pytest.mark.parametrize(
    "kernel",
    [SHOKernel(1.7, q) for q in (0.004, 0.4, 0.5, 0.6, 0.7)]
    + [DRWKernel(3.0)]
    + [MaternKernel(nu, 2.5) for nu in (0.5, 1.5, 2.5)],
    ids=lambda k: type(k).__name__,
)
def test_break_is_the_half_power_point(kernel):
    assert half_power(kernel) == pytest.approx(1.0 / kernel.timescales()["break"].item(), rel=1e-6)


@pytest.mark.parametrize(
    "kernel",
    [SHOKernel(1.7, q) for q in (0.1, 0.5, 2.0)] + [MaternKernel(nu, 2.5) for nu in (0.5, 1.5, 2.5)],
    ids=lambda k: type(k).__name__,
)
def test_integral_time_scale(kernel):
    lag = torch.linspace(0.0, 120.0, 240001)
    integral = float(torch.trapezoid(kernel.autocovariance(lag).detach(), lag))
    assert integral == pytest.approx(kernel.timescales()["integral"].item(), rel=1e-5)


def test_overdamped_oscillator_is_two_exponentials():
    kernel = SHOKernel(1.3, 0.4)
    times = kernel.timescales()
    assert times["regime"] == "overdamped"
    assert times["slow"].item() == pytest.approx(2.0 / 1.3) and times["fast"].item() == pytest.approx(0.5 / 1.3)
    slow, fast = times["slow"].item(), times["fast"].item()
    lag = torch.tensor([0.0, 0.3, 2.0, 9.0])
    want = (slow * torch.exp(-lag / slow) - fast * torch.exp(-lag / fast)) / (slow - fast)
    torch.testing.assert_close(kernel.autocovariance(lag).detach(), want, rtol=1e-12, atol=1e-14)
    assert math.isinf(times["period"].item())


def test_underdamped_oscillator_has_a_period():
    kernel = SHOKernel(1.3, 5.0)
    times = kernel.timescales()
    assert times["regime"] == "underdamped" and SHOKernel(1.0, 0.5).timescales()["regime"] in ("critical", "overdamped")
    period, damping = times["period"].item(), times["damping"].item()
    assert times["slow"].item() == times["fast"].item() == pytest.approx(damping)
    one = float(kernel.autocovariance(torch.tensor(period)).detach())
    assert one == pytest.approx(math.exp(-period / damping), rel=1e-10)


def test_quality_one_half_is_matern_three_halves():
    x = torch.tensor([[0.0], [0.1], [3.0], [11.0]])
    sho, matern = SHOKernel(math.sqrt(3.0) / 0.7, 0.5), MaternKernel(1.5, 0.7)
    torch.testing.assert_close(sho(x).to_dense(), matern(x).to_dense(), rtol=1e-13, atol=1e-15)


def test_small_quality_is_a_damped_random_walk():
    lag = torch.tensor([0.0, 0.5, 3.0, 20.0])
    tau, q = 2.0, 1e-5
    got = SHOKernel(1.0 / (q * tau), q).autocovariance(lag).detach()
    torch.testing.assert_close(got, torch.exp(-lag / tau), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e-12, -1e-9, 1e-7, -1e-5, 1e-4, -1e-3])
def test_gradient_through_critical_damping(offset):
    """Evidence and its derivative in Q are smooth at Q = 1/2, where published packages are wrong."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(40, generator=generator).sort().values.unsqueeze(-1) * 20.0
    y = torch.randn(40, generator=generator)
    q0 = 0.5 + offset

    def numpy_evidence(q):
        return oracles.evidence((("sho",),), [1.0, 1.3, q], x[:, 0].numpy(), y.numpy(), np.full(40, 0.1)).log_likelihood

    kernel = SHOKernel(1.3, q0)
    operator = kernel(x).evaluate_kernel().add_diagonal(torch.tensor(0.1))
    quad, logdet = operator.inv_quad_logdet(y.unsqueeze(-1), logdet=True)
    value = -0.5 * (quad + logdet + 40 * math.log(2 * math.pi))
    quality = kernel.quality
    slope = (
        torch.autograd.grad(value, kernel.raw_quality, retain_graph=True)[0]
        / torch.autograd.grad(quality, kernel.raw_quality)[0]
    )
    assert value.item() == pytest.approx(numpy_evidence(quality.item()), rel=1e-12)
    want = oracles.finite_difference(numpy_evidence, q0, 1e-3)
    assert float(slope) == pytest.approx(want, rel=1e-7)
    dense = -0.5 * (y @ torch.linalg.solve(operator.to_dense(), y) + torch.logdet(operator.to_dense()))
    slope = (
        torch.autograd.grad(dense, kernel.raw_quality)[0] / torch.autograd.grad(kernel.quality, kernel.raw_quality)[0]
    )
    assert float(slope) == pytest.approx(want, rel=1e-7)


def test_celerite_parameters_there_and_back():
    kernel = SHOKernel.from_celerite(0.3, 1.7, 0.8)
    assert kernel.outputscale.item() == pytest.approx(0.3 * 1.7 * 0.8)
    for got, want in zip(SHOKernel.to_celerite(kernel), (0.3, 1.7, 0.8), strict=True):
        assert got.item() == pytest.approx(want)
    s0, _, _ = SHOKernel.to_celerite(SHOKernel(2.0, 4.0))
    assert s0.item() == pytest.approx(1.0 / 8.0)
    batch = SHOKernel.from_celerite(torch.tensor([0.3, 0.5]), 1.7, 0.8, batch_shape=torch.Size([2]))
    torch.testing.assert_close(SHOKernel.to_celerite(batch)[0].detach(), torch.tensor([0.3, 0.5]))


def test_rotation_is_the_published_pair_of_oscillators():
    """The parametrisation of celerite2's RotationTerm, written out."""
    sigma, period, q0, dq, f = 1.3, 3.5, 1.2, 0.4, 0.7
    amplitude = sigma**2 / (1.0 + f)
    q1, q2 = 0.5 + q0 + dq, 0.5 + q0
    w1 = 4 * math.pi * q1 / (period * math.sqrt(4 * q1**2 - 1))
    w2 = 8 * math.pi * q2 / (period * math.sqrt(4 * q2**2 - 1))
    kernel = ScaleKernel(RotationKernel(period, q0, dq, f), outputscale=sigma**2)
    lag = np.array([0.0, 0.2, 1.7, 3.5, 30.0])
    params = [amplitude, w1, q1, f * amplitude, w2, q2]
    want = oracles.autocovariance((("sho",), ("sho",)), params, lag)
    np.testing.assert_allclose(kernel.autocovariance(torch.as_tensor(lag)).detach(), want, rtol=1e-12, atol=1e-14)


def test_a_celerite_term_must_be_a_covariance():
    with pytest.raises(ValueError, match=r"\|b d\| <= a c"):
        CeleriteKernel(1.0, 1.0, 0.1, 3.0)


def test_matern_takes_half_integers_only():
    with pytest.raises(ValueError, match="0.5, 1.5 or 2.5.*got 2"):
        MaternKernel(2.0)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_matern_is_gpytorchs(nu):
    x, z = torch.randn(9, 3), torch.randn(4, 3)
    ours, theirs = MaternKernel(nu, 0.7), gpytorch.kernels.MaternKernel(nu).double()
    theirs.lengthscale = 0.7
    for dims in (1, 3):
        torch.testing.assert_close(
            ours(x[:, :dims], z[:, :dims]).to_dense(),
            theirs(x[:, :dims], z[:, :dims]).to_dense(),
            rtol=1e-9,
            atol=1e-11,
        )
