"""Both algebras of field regression against plain formulas, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse, stats

from gpkit.errors import InvalidDataError
from gpkit.inference.log_parameters import log_prior, maximise_log
from gpkit.models.fields.ambient_terms import HelmholtzTerm, ProjectedTerm
from gpkit.models.fields.regression import FieldRegression
from gpkit.models.fields.sites import Sites, node_sites, point_sites
from gpkit.models.fields.spectral_term import SpectralPart, SpectralTerm, heat_response
from gpkit.models.fields.terms import Scales
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]
SCALES = Scales(1.0, 1.0)


def build(surface: Surface, terms: str, m: int = 25, noise: Array | None = None) -> FieldRegression:
    basis = surface.cloud.connection_basis(40)
    sites = node_sites(surface.cloud.frames, surface.cloud.points, {"connection": basis}, np.arange(0, 8 * m, 8))
    values = np.einsum("mDa,mD->ma", sites.frames.numpy(), surface.vectors[sites.nodes])
    made = {
        "intrinsic": SpectralTerm("intrinsic", SpectralPart.of("connection", basis), heat_response, SCALES),
        "projected": ProjectedTerm("matern52", SCALES),
        "helmholtz": HelmholtzTerm("rbf", SCALES, oriented=True),
    }
    return FieldRegression([made[name] for name in terms.split("+")], sites, values, SCALES, noise)


CASES = ["intrinsic", "projected", "helmholtz+intrinsic"]


def _point(regression: FieldRegression) -> Array:
    return np.log([p.start * 1.2 for p in regression.parameters])


def _dense(regression: FieldRegression, theta: Array) -> Array:
    """Covariance of the observed coordinates with noise, in their own units."""
    noise, parts = regression.split(torch.from_numpy(theta))
    sites = regression.sites
    total = sum(t.evaluate(p, t.prepare(sites, sites)) for t, p in zip(regression.terms, parts, strict=True))
    variance = np.exp(2.0 * float(noise)) * np.ones(regression.sites.rows)
    if regression.noise is not None:
        variance = np.repeat(regression.noise, 2) ** 2
    assert isinstance(total, torch.Tensor)
    return np.asarray(total.numpy() + np.diag(variance))


@pytest.mark.parametrize("terms", CASES)
@pytest.mark.parametrize("known", [False, True])
def test_evidence(sphere: Surface, terms: str, known: bool) -> None:
    noise = np.linspace(0.05, 0.3, 25) if known else None
    regression = build(sphere, terms, noise=noise)
    theta = _point(regression)
    y = regression.values.ravel()
    value, gradient = regression.value_and_gradient(theta)
    expected = stats.multivariate_normal(np.zeros(len(y)), _dense(regression, theta)).logpdf(y)
    assert value == pytest.approx(expected, rel=1e-10)
    for k in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[k]
        ends = [regression.value_and_gradient(theta + sign * step)[0] for sign in (1.0, -1.0)]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("terms", CASES)
@pytest.mark.parametrize("known", [False, True])
def test_posterior(sphere: Surface, terms: str, known: bool) -> None:
    noise = np.linspace(0.05, 0.3, 25) if known else None
    regression = build(sphere, terms, noise=noise)
    theta = _point(regression)
    posterior = regression.posterior(theta)
    basis = sphere.cloud.connection_basis(40)
    places = point_sites(sphere.cloud, {"connection": basis}, sphere.others[:12])
    covariance, y = _dense(regression, theta), regression.values.ravel()
    _, parts = regression.split(torch.from_numpy(theta))

    def block(left: Sites, right: Sites) -> Array:
        pairs = zip(regression.terms, parts, strict=True)
        total = sum(t.evaluate(p, t.prepare(left, right)) for t, p in pairs)
        assert isinstance(total, torch.Tensor)
        return total.numpy()

    cross = block(places, regression.sites)
    mean = cross @ np.linalg.solve(covariance, y)
    joint = block(places, places) - cross @ np.linalg.solve(covariance, cross.T)
    found_mean, found = posterior.moments(places)
    np.testing.assert_allclose(found_mean.ravel(), mean, atol=1e-8)
    for place in range(12):
        np.testing.assert_allclose(found[place], joint[2 * place : 2 * place + 2, 2 * place : 2 * place + 2], atol=1e-8)
    joint_mean, root = posterior.joint(places)
    np.testing.assert_allclose(joint_mean, mean, atol=1e-8)
    np.testing.assert_allclose(root @ root.T, joint, atol=1e-8)
    operator = sparse.random(5, 24, density=0.3, random_state=0, format="csr")
    values, deviations = posterior.functional(operator, places)
    np.testing.assert_allclose(values, operator @ mean, atol=1e-8)
    np.testing.assert_allclose(deviations, np.sqrt(np.diag(operator @ joint @ operator.T.toarray())), atol=1e-6)
    shares = [posterior.part_moments(places, k) for k in range(len(regression.terms))]
    np.testing.assert_allclose(sum(share[0] for share in shares).ravel(), mean, atol=1e-8)


@pytest.mark.parametrize("terms", CASES)
@pytest.mark.parametrize("known", [False, True])
def test_leave_one_out(sphere: Surface, terms: str, known: bool) -> None:
    noise = np.linspace(0.05, 0.3, 25) if known else None
    regression = build(sphere, terms, noise=noise)
    theta = _point(regression)
    covariance, y = _dense(regression, theta), regression.values.ravel()
    means, covariances = regression.posterior(theta).leave_one_out()
    for place in (0, 7, 24):
        out = np.array([2 * place, 2 * place + 1])
        rest = np.setdiff1d(np.arange(50), out)
        gain = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[np.ix_(rest, out)]).T
        np.testing.assert_allclose(means[place], gain @ y[rest], atol=1e-8)
        left = covariance[np.ix_(out, out)] - gain @ covariance[np.ix_(rest, out)]
        np.testing.assert_allclose(covariances[place], left, atol=1e-8)


def test_sum_is_at_least_as_good_as_its_parts(sphere: Surface) -> None:
    one, two = build(sphere, "helmholtz"), build(sphere, "helmholtz+intrinsic")
    single, both = maximise_log(one), maximise_log(two, starts=2)
    # The part is the sum with nothing of the other term.
    none = {"intrinsic.amplitude": 1e-4, "intrinsic.lengthscale": 0.5}
    nested = np.log([none.get(p.name) or single.values[p.name.split(".")[-1]] for p in two.parameters])
    assert two.value_and_gradient(nested)[0] > single.log_likelihood - 0.5
    # The fit maximises the posterior, and finds at least as much of it as at the part.
    assert both.log_posterior > two.value_and_gradient(nested)[0] + log_prior(two.parameters, nested)[0]


def test_bad_input(sphere: Surface) -> None:
    regression = build(sphere, "projected")
    with pytest.raises(InvalidDataError, match="at least one term"):
        FieldRegression([], regression.sites, regression.values, SCALES)
    with pytest.raises(InvalidDataError, match="values must be"):
        FieldRegression(regression.terms, regression.sites, regression.values[:3], SCALES)
