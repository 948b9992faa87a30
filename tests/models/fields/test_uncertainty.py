"""What predictions say about their own errors: parameters that are not known, exact observations, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gpkit.errors import InvalidDataError
from gpkit.inference.log_parameters import LogParameter, laplace_points, maximise_log
from gpkit.models import ScalarFieldGP, VectorFieldGP
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]


class _Skewed:
    """A density of two parameters that is known in closed form: a gamma law of exp(theta), twice."""

    def __init__(self) -> None:
        # So wide that the prior does not matter.
        self.parameters = tuple(LogParameter(n, 1.0, 1e-6, 1e6, 1.0, 1e3) for n in "ab")

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        shape = np.array([3.0, 5.0])
        return float((shape * theta - np.exp(theta)).sum()), shape - np.exp(theta)


def test_points_around_a_fit_have_the_moments_of_the_posterior() -> None:
    density = _Skewed()
    fit = maximise_log(density)
    points, weights = laplace_points(density, fit, 256)
    assert weights.sum() == pytest.approx(1.0)
    for k, shape in enumerate((3.0, 5.0)):  # theta is the logarithm of a gamma variable
        mean = weights @ points[:, k]
        exact = stats.loggamma(shape)
        assert mean == pytest.approx(exact.mean(), abs=0.03)
        assert weights @ (points[:, k] - mean) ** 2 == pytest.approx(exact.var(), rel=0.15)
    again, _ = laplace_points(density, fit, 256)
    np.testing.assert_array_equal(points, again)
    single, one = laplace_points(density, fit, 1)
    np.testing.assert_array_equal(single[0], fit.theta)
    assert one.tolist() == [1.0]


def test_unknown_parameters_widen_predictions(sphere: Surface) -> None:
    """With few data they matter; a sampler's draws agree with the few points."""
    train = np.arange(0, 200, 14)
    deviations = {}
    for uncertainty in ("map", "laplace"):
        model = VectorFieldGP(sphere.cloud, "helmholtz:rbf", uncertainty=uncertainty)
        # Known noise: one that is learned from exact vectors goes to zero, where a sampler takes long.
        model.fit(train, sphere.vectors[train], noise=0.05, progress=False)
        found = model.predict()
        deviations[uncertainty] = found.standard_deviation.mean()
        assert len(found.weights) == (1 if uncertainty == "map" else 8) or uncertainty == "laplace"
        assert found.weights.sum() == pytest.approx(1.0)
    model.sample(50, 40, 1, seed=1, progress=False)
    drawn = model.predict(draws=40).standard_deviation.mean()
    assert deviations["map"] < deviations["laplace"]
    assert deviations["laplace"] == pytest.approx(drawn, rel=0.35)
    with pytest.raises(InvalidDataError, match="uncertainty must be"):
        VectorFieldGP(sphere.cloud, uncertainty="none")


def test_exact_observations(sphere: Surface) -> None:
    """What was observed is known; elsewhere the unexplained part is the field's own."""
    rng = np.random.default_rng(0)
    speckled = sphere.cloud.to_ambient(sphere.cloud.to_tangent(sphere.vectors)[0] + 0.2 * rng.standard_normal((200, 2)))
    train, rest = np.arange(0, 200, 2), np.arange(1, 200, 2)
    exact, noisy = (VectorFieldGP(sphere.cloud, "helmholtz:rbf") for _ in range(2))
    exact.fit(train, speckled[train], noise=0, progress=False)
    noisy.fit(train, speckled[train], progress=False)
    known = exact.predict(train)
    np.testing.assert_allclose(known.mean, speckled[train], atol=1e-12)
    assert known.standard_deviation.max() < 1e-6 and known.covers(speckled[train]).all()
    # The speckle of this field is no noise: regions of the field must hold it.
    assert noisy.predict(rest).covers(speckled[rest]).mean() < 0.7
    assert 0.88 < exact.predict(rest).covers(speckled[rest]).mean() <= 1.0
    np.testing.assert_allclose(exact.predict(rest).mean, noisy.predict(rest).mean, atol=1e-9)
    both = exact.predict(np.array([0, 1]))
    draws = both.sample(2000, seed=3)
    np.testing.assert_allclose(draws[:, 0], np.broadcast_to(speckled[0], (2000, 3)), atol=1e-12)
    assert np.trace(np.cov(draws[:, 1].T)) == pytest.approx(both.variance[1].sum(), rel=0.15)
    points = exact.predict(sphere.cloud.points[:2])
    np.testing.assert_allclose(points.mean, both.mean, atol=1e-8)
    with pytest.raises(InvalidDataError, match="repeats a place with another value"):
        exact.fit([3, 3], np.stack([speckled[3], 1.1 * speckled[3]]), noise=0)


def test_exact_values_of_functions(sphere: Surface) -> None:
    values = np.sin(3.0 * sphere.cloud.points[:, 0])
    model = ScalarFieldGP(sphere.cloud, "projected:matern52")
    model.fit(sphere.cloud.points[::2], values[::2], noise=0.0, progress=False)
    found = model.predict(sphere.cloud.points[::2])
    np.testing.assert_allclose(found.mean, values[::2], atol=1e-12)
    assert np.abs(model.predict(np.arange(1, 200, 2)).mean - values[1::2]).max() < 0.05


def test_what_one_kernel_alone_calls_noise_is_the_fields(sphere: Surface) -> None:
    """Kernels that are mixed share the noise; what one of them has learnt beyond that widens its regions."""
    rng = np.random.default_rng(4)
    noisy = sphere.cloud.to_ambient(sphere.cloud.to_tangent(sphere.vectors)[0] + 0.3 * rng.standard_normal((200, 2)))
    train, rest = np.arange(0, 200, 7), np.arange(1, 200, 7)
    model = VectorFieldGP(sphere.cloud, "intrinsic", uncertainty="jackknife")
    comparison = model.fit(train, noisy[train], progress=False).comparison
    weights = comparison.weights
    assert len(weights) > 1
    found = model.predict(rest)
    learnt, fields = [], []
    for name in weights:
        model.use(name)
        alone = model.predict(rest)
        learnt.append(float(alone.noise[0]))
        fields.append(alone.component_covariances[0])
    model.use()
    compared = [np.exp(candidate.fit.theta[0]) for candidate in comparison.candidates]
    powers = np.exp(0.4 * (comparison.table["log_evidence"] - comparison.best.fit.log_evidence))
    mixed = np.exp(np.average(np.log(learnt), weights=list(weights.values())))
    common = min(mixed, float(np.average(compared, weights=powers)))
    assert max(learnt) > 1.001 * common
    np.testing.assert_allclose(found.noise, np.minimum(learnt, common), rtol=1e-9)
    for noise, own, mixed in zip(learnt, fields, found.component_covariances, strict=True):
        extra = mixed - own
        assert np.abs(extra[:, 0, 1]).max() < 1e-12
        # The field's part has the factor of its other variances, which is at least 1.
        assert extra[:, 0, 0].min() >= max(noise**2 - common**2, 0.0) - 1e-12
        assert extra[:, 0, 0].max() <= 4.0 * max(noise**2 - common**2, 0.0) + 1e-12
    draws = found.sample(3000, seed=2)
    np.testing.assert_allclose(draws.var(0).sum(), found.variance.sum(), rtol=0.1)
    model.uncertainty = "map"
    np.testing.assert_allclose(model.predict(rest).noise, learnt, rtol=1e-12)
