"""Weights of mixtures of kernels, and what the scatter of parameters does to variances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from gpkit.models import VectorFieldGP
from gpkit.models.fields.jackknife import inflation_of, predict_left_out
from gpkit.models.fields.regression import FieldRegression
from gpkit.models.fields.stacking import stacking_weights
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]


def gaussian(residuals: Array, variance: float = 1.0) -> Array:
    """Log densities (K, m) of residuals (K, m, d)."""
    d = residuals.shape[2]
    return np.asarray(-0.5 * np.square(residuals).sum(2) / variance - 0.5 * d * np.log(2.0 * np.pi * variance))


def weights_of(
    densities: Array, residuals: Array, evidences: Sequence[float] = (), variances: Sequence[float] = ()
) -> Array:
    """Weights where values are zero, which have no directions."""
    alike = np.zeros(len(densities))
    values = np.zeros(residuals.shape[1:])
    known = np.array(variances) if len(variances) else alike + 1.0
    return stacking_weights(densities, values, -residuals, known, np.array(evidences) if len(evidences) else alike)


def test_weights_go_to_what_predicts() -> None:
    rng = np.random.default_rng(0)
    noise, extra = rng.standard_normal((2, 200, 2))
    residuals = np.stack([noise, noise + 2.0 * extra, noise + 2.0 * extra[::-1]])
    weights = weights_of(gaussian(residuals), residuals)
    assert weights.sum() == pytest.approx(1.0) and weights[0] > 0.9
    # Two kernels whose errors cancel share the weight; one of them alone would be half as good.
    sign = np.where(np.arange(200) % 2, 1.0, -1.0)[:, None]
    noise, extra = (np.repeat(values[::2], 2, axis=0) for values in (noise, extra))
    pair = np.stack([noise + sign * extra, noise - sign * extra])
    both = weights_of(gaussian(pair, 2.0), pair)
    np.testing.assert_allclose(both, 0.5, atol=1e-6)
    # The order of kernels does not matter.
    turned = weights_of(gaussian(residuals)[::-1], residuals[::-1])
    np.testing.assert_allclose(turned[::-1], weights, atol=1e-12)


def test_means_count_where_densities_hide_them() -> None:
    """The first kernel has the smaller variances at nine places in ten, the second the better means at the tenth."""
    rng = np.random.default_rng(1)
    errors = rng.standard_normal((200, 2))
    jump = np.arange(200) % 10 == 0
    residuals = np.stack([np.where(jump[:, None], 6.0, 0.1) * errors, np.where(jump[:, None], 1.0, 0.1) * errors])
    densities = np.stack([np.where(jump, -4.0, 3.0), np.where(jump, -3.0, 1.0)])
    weights = weights_of(densities, residuals, [50.0, 0.0])
    assert 0.3 < weights[1] < 0.7


def test_few_places_leave_it_to_the_evidence() -> None:
    """What left-out places say is chance where there are few of them, and decides where there are many."""
    rng = np.random.default_rng(4)
    shares = []
    for places in (6, 600):
        noise, extra = rng.standard_normal((2, places, 2))
        residuals = np.stack([noise + 1.5 * extra, noise])
        shares.append(weights_of(gaussian(residuals), residuals, [5.0, 0.0])[0])
    assert shares[0] > 0.75 and shares[1] < 0.1


def test_exact_places_tell_kernels_apart_sooner() -> None:
    rng = np.random.default_rng(6)
    noise, extra = rng.standard_normal((2, 30, 2))
    means = -np.stack([noise + 1.5 * extra, noise])
    shares = [
        stacking_weights(gaussian(-means), np.zeros((30, 2)), means, np.ones(2), np.array([8.0, 0.0]), exact=exact)[1]
        for exact in (False, True)
    ]
    assert shares[0] < 0.35 and shares[1] > 0.7


def test_of_kernels_alike_the_more_precise_weighs_more() -> None:
    rng = np.random.default_rng(4)
    for places, most in ((6, np.exp(1.0) / (1.0 + np.exp(1.0)) + 1e-9), (600, 1.0)):
        same = np.repeat(rng.standard_normal((1, places, 2)), 2, axis=0)
        preferred = weights_of(gaussian(same), same, variances=[np.exp(1.0), 1.0])
        assert 0.65 < preferred[1] < most


def test_directions_count_where_vectors_are_small() -> None:
    """The first kernel is a little better where vectors are large, the second has the directions of the small ones."""
    rng = np.random.default_rng(5)
    size = np.where(np.arange(24) % 4, 0.2, 3.0)[:, None]
    values = size * rng.standard_normal((24, 2))
    off = rng.standard_normal((24, 2))
    means = np.stack([values + np.where(size < 1.0, 0.25, 0.2) * off, values + np.where(size < 1.0, 0.05, 0.3) * off])
    densities = np.zeros((2, 24))
    found = stacking_weights(densities, values, means, np.ones(2), np.array([2.0, 0.0]))
    assert found[1] > 0.8
    # Functions have no directions: what is left is the evidence.
    first = values[:6, :1]
    line = stacking_weights(densities[:, :6], first, np.stack([0.9 * first, -first]), np.ones(2), np.array([2.0, 0.0]))
    assert line[0] > 0.6


def test_weights_of_unusual_data() -> None:
    rng = np.random.default_rng(2)
    residuals = rng.standard_normal((2, 4, 1))
    few = weights_of(gaussian(residuals), residuals, [1.0, 0.0])
    assert few.tolist() == [1.0, 0.0], "too few places: the highest evidence"
    more = rng.standard_normal((3, 20, 1))
    densities = gaussian(more)
    densities[1, 3] = -np.inf
    assert weights_of(densities, more)[1] == 0.0
    exact = weights_of(np.zeros((2, 9)), np.zeros((2, 9, 2)))
    np.testing.assert_allclose(exact, 0.5)


@pytest.fixture(scope="module")
def fitted(sphere: Surface) -> VectorFieldGP:
    model = VectorFieldGP(sphere.cloud, "helmholtz:rbf", uncertainty="jackknife")
    model.fit(np.arange(0, 200, 9), sphere.vectors[::9], noise=0, progress=False)
    return model


def test_variances_know_that_parameters_are_estimates(fitted: VectorFieldGP) -> None:
    """The mean is that of the fit; regions, derivatives and draws are wider by one factor, less so with more data."""
    rest = np.setdiff1d(np.arange(200), np.arange(0, 200, 9))
    wide, curl = fitted.predict(rest), fitted.curl()
    fitted.uncertainty = "map"
    narrow, flat = fitted.predict(rest), fitted.curl()
    fitted.uncertainty = "jackknife"
    np.testing.assert_allclose(wide.mean, narrow.mean, atol=1e-12)
    ratio = wide.covariance / np.where(narrow.covariance == 0.0, 1.0, narrow.covariance)
    factor = float(np.median(ratio))
    assert 1.0 < factor <= 4.0
    np.testing.assert_allclose(wide.covariance, factor * narrow.covariance, rtol=1e-8)
    np.testing.assert_allclose(curl.standard_deviation, np.sqrt(factor) * flat.standard_deviation, rtol=1e-8)
    draws = wide.sample(3000, seed=2)
    np.testing.assert_allclose(draws.var(0).sum(), wide.variance.sum(), rtol=0.1)


def test_places_left_out_are_those_of_a_fit_without_them(fitted: VectorFieldGP) -> None:
    assert fitted.result is not None
    candidate = fitted.result.comparison.best
    regression, theta = candidate.regression, candidate.fit.theta
    found = predict_left_out(regression, theta)
    density, mean, variance = found.density, found.mean, found.variance
    keep = np.arange(1, len(regression.values))
    without = FieldRegression(
        regression.terms, regression.sites.take(keep), regression.values[keep], regression.scales, regression.noise
    )
    first, _ = without.posterior(theta).moments(regression.sites.take(np.array([0])))
    np.testing.assert_allclose(mean[0], first[0], atol=1e-6)
    covariances = regression.posterior(theta).leave_one_out()[1]
    noise = np.exp(2.0 * theta[0])
    assert variance == pytest.approx(0.5 * np.trace(covariances, axis1=1, axis2=2).mean() - noise * (1.0 - 1.0 / 23))
    # ln p(y_0 | y_rest) = ln p(y) - ln p(y_rest).
    whole, rest = regression.value_and_gradient(theta)[0], without.value_and_gradient(theta)[0]
    assert density[0] == pytest.approx(whole - rest, abs=1e-5)


def test_much_data_leave_nothing_to_count(sphere: Surface) -> None:
    rng = np.random.default_rng(3)
    vectors = sphere.cloud.to_ambient(sphere.cloud.to_tangent(sphere.vectors)[0] + 0.3 * rng.standard_normal((200, 2)))
    model = VectorFieldGP(sphere.cloud, "projected:rbf")
    best = model.fit(np.arange(0, 200, 2), vectors[::2], progress=False).comparison.best
    assert 1.0 <= inflation_of(best.regression, best.fit) < 1.15
