"""Covariance terms against finite differences of potentials, brute-force formulas, and changes of gauge."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.models.fields.ambient_terms import HelmholtzTerm, ProjectedTerm
from gpkit.models.fields.radial import RADIALS, correlation, gradient_correlation
from gpkit.models.fields.sites import Sites, node_sites
from gpkit.models.fields.spectral_term import MaternResponse, SpectralPart, SpectralTerm, heat_response
from gpkit.models.fields.speed_term import SpeedTerm
from gpkit.models.fields.terms import ConstantTerm, Scales, Term
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]
SCALES = Scales(1.0, 1.0)
SMOOTH = ["matern52", "matern72", "matern92", "rbf"]


def _terms(surface: Surface) -> dict[str, Term]:
    basis = surface.cloud.connection_basis(60)
    part = SpectralPart.of("connection", basis)
    return {
        "heat": SpectralTerm("heat", part, heat_response, SCALES),
        "matern": SpectralTerm("matern", part, MaternResponse(1.5, 2), SCALES),
        "projected": ProjectedTerm("matern52", SCALES),
        "oriented": HelmholtzTerm("matern72", SCALES, oriented=True),
        "unoriented": HelmholtzTerm("rbf", SCALES, oriented=False),
        "speed": SpeedTerm(HelmholtzTerm("rbf", SCALES, oriented=True), surface.cloud.points[::40]),
        "intrinsic speed": SpeedTerm(SpectralTerm("heat", part, heat_response, SCALES), surface.cloud.points[::40]),
    }


NAMES = ["heat", "matern", "projected", "oriented", "unoriented", "speed", "intrinsic speed"]


def _sites(surface: Surface, count: int) -> Sites:
    bases = {"connection": surface.cloud.connection_basis(60)}
    return node_sites(surface.cloud.frames, surface.cloud.points, bases, np.arange(count))


def _theta(term: Term) -> torch.Tensor:
    values = [math.log(0.6), -0.2, 0.3, 0.8, -0.5, 0.4, -1.1, 0.2]
    return torch.tensor(values[: len(term.parameters)], dtype=torch.float64)


@pytest.mark.parametrize("name", ["matern12", "matern32", "matern52", "rbf"])
def test_correlations_are_those_of_gpytorch(name: str) -> None:
    r = torch.linspace(0.0, 4.0, 9, dtype=torch.float64)
    peer = RBFKernel() if name == "rbf" else MaternKernel(nu=RADIALS[name])
    peer = peer.double()
    peer.lengthscale = 0.7
    expected = peer(r[:, None], torch.zeros(1, 1, dtype=torch.float64)).to_dense()[:, 0]
    found = correlation(name, r, torch.tensor(0.7, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), atol=1e-7)  # gpytorch works with r^2


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_covariance_is_the_derivative_of_the_potentials(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(3), rng.standard_normal(3)
    ell = torch.tensor(1.3, dtype=torch.float64)
    at = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    k = correlation(name, (at[0] - at[1]).norm(), ell)
    (first,) = torch.autograd.grad(k, at[0], create_graph=True)
    expected = torch.stack([torch.autograd.grad(first[i], at[1], retain_graph=True)[0] for i in range(3)]).numpy()
    a, b = gradient_correlation(name, torch.tensor(np.linalg.norm(x - y)), ell)
    h = x - y
    found = float(a) * np.eye(3) - float(b) * np.outer(h, h)
    np.testing.assert_allclose(found * expected[0, 1] / found[0, 1], expected, rtol=1e-8)
    assert float(gradient_correlation(name, torch.zeros(()), ell)[0]) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_consistent(sphere: Surface, name: str) -> None:
    term, sites = _terms(sphere)[name], _sites(sphere, 40)
    theta = _theta(term)
    full = term.evaluate(theta, term.prepare(sites, sites)).numpy()
    np.testing.assert_allclose(full, full.T, atol=1e-12)
    assert np.linalg.eigvalsh(full).min() > -1e-9
    part = term.evaluate(theta, term.prepare(sites.take(slice(0, 7)), sites.take(slice(5, 40)))).numpy()
    np.testing.assert_allclose(part, full[:14, 10:], atol=1e-12)
    own = term.marginal(theta, sites).numpy()
    for place in range(40):
        np.testing.assert_allclose(own[place], full[2 * place : 2 * place + 2, 2 * place : 2 * place + 2], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(sphere: Surface, name: str) -> None:
    term, sites = _terms(sphere)[name], _sites(sphere, 4)
    prepared = term.prepare(sites, sites)
    assert torch.autograd.gradcheck(lambda t: term.evaluate(t, prepared), _theta(term).requires_grad_())


@pytest.mark.parametrize("name", ["projected", "oriented", "unoriented"])
def test_ambient_covariance_does_not_see_the_frames(sphere: Surface, name: str) -> None:
    """Rotated frames and a rotated space change nothing but the coordinates."""
    term, sites = _terms(sphere)[name], _sites(sphere, 30)
    rng = np.random.default_rng(1)
    angle = rng.uniform(0.0, 2.0 * np.pi, 30)
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], 1), np.stack([np.sin(angle), np.cos(angle)], 1)], 1)
    space, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    space *= np.sign(np.linalg.det(space))
    moved = dataclasses.replace(
        sites,
        frames=torch.from_numpy(space @ sites.frames.numpy() @ turn),
        points=torch.from_numpy(np.asarray(sites.points) @ space.T),
    )
    theta = _theta(term)

    def ambient(places: Sites) -> Array:
        block = term.evaluate(theta, term.prepare(places, places)).numpy().reshape(30, 2, 30, 2)
        frames = places.frames.numpy()
        return np.einsum("iDa,iajb,jEb->iDjE", frames, block, frames)

    expected = np.einsum("FD,iDjE,GE->iFjG", space, ambient(sites), space)
    np.testing.assert_allclose(ambient(moved), expected, atol=1e-9)


def test_rotational_flow_is_the_turned_gradient(sphere: Surface) -> None:
    sites = _sites(sphere, 25)
    term = HelmholtzTerm("rbf", SCALES, oriented=True)
    gradient = term.evaluate(torch.tensor([0.0, 0.0, -30.0]).double(), term.prepare(sites, sites)).numpy()
    turned = term.evaluate(torch.tensor([0.0, -30.0, 0.0]).double(), term.prepare(sites, sites)).numpy()
    quarter = np.kron(np.eye(25), np.array([[0.0, -1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(turned, quarter @ gradient @ quarter.T, atol=1e-12)


def test_spectrum_sums_to_the_variance(sphere: Surface) -> None:
    for name in ("heat", "matern"):
        term = _terms(sphere)[name]
        assert isinstance(term, SpectralTerm)
        spectrum = torch.exp(term.log_spectrum(torch.tensor([math.log(0.3), math.log(2.0)]).double()))
        assert float(spectrum.sum()) == pytest.approx(4.0)
        assert bool((spectrum.diff() <= 0.0).all())


def test_far_places_keep_the_prior(sphere: Surface) -> None:
    term, sites = _terms(sphere)["heat"], _sites(sphere, 3)
    far = dataclasses.replace(
        sites,
        far=np.array([False, True, False]),
        features={"connection": sites.features["connection"] * torch.tensor([1.0, 0.0, 1.0]).double()[:, None, None]},
    )
    theta = _theta(term)
    block = term.evaluate(theta, term.prepare(far, far)).numpy()
    np.testing.assert_allclose(block[2:4, 2:4], math.exp(-0.4) * np.eye(2), rtol=1e-12)
    assert not block[2:4, [0, 1, 4, 5]].any()
    np.testing.assert_allclose(term.marginal(theta, far).numpy()[1], block[2:4, 2:4])


def test_constant_and_refusals(sphere: Surface) -> None:
    scalar = dataclasses.replace(_sites(sphere, 3), frames=torch.ones(3, 1, 1).double())
    constant = ConstantTerm(20.0)
    np.testing.assert_allclose(constant.evaluate(torch.zeros(0), constant.prepare(scalar, scalar)).numpy(), 400.0)
    with pytest.raises(InvalidDataError, match="matern52, matern72"):
        HelmholtzTerm("matern32", SCALES, oriented=True)
    with pytest.raises(InvalidDataError, match="unknown radial"):
        ProjectedTerm("cubic", SCALES)
    with pytest.raises(InvalidDataError, match="too rough"):
        gradient_correlation("matern32", torch.zeros(1), torch.ones(()))
    with pytest.raises(InvalidDataError, match="coordinates"):
        nowhere = dataclasses.replace(scalar, points=None)
        ProjectedTerm("rbf", SCALES).prepare(nowhere, nowhere)
