"""Amplitudes that vary from place to place: the factor itself, what a fit makes of it, and what it is refused for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpkit.errors import DataWarning, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.log_parameters import LogFit, LogParameter, maximise_log, normal_draws
from gpkit.models import ScalarFieldGP, VectorFieldGP
from gpkit.models.fields.ambient_terms import ProjectedTerm
from gpkit.models.fields.averaged_posterior import averaged_posterior
from gpkit.models.fields.jackknife import inflation_of, predict_left_out, predict_refitted
from gpkit.models.fields.regression import FieldPosterior, FieldRegression
from gpkit.models.fields.report_common import shared_content
from gpkit.models.fields.selection import fit_regression
from gpkit.models.fields.sites import node_sites
from gpkit.models.fields.speed_term import SpeedTerm, landmarks_of, speeds_among
from gpkit.models.fields.terms import Scales
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]


def _uneven(surface: Surface, where: Array) -> Array:
    """A current around the z axis that is forty times as fast in a belt as at the poles, and turns north-east."""
    speed = 0.05 + 2.0 * np.exp(-0.5 * np.square(where[:, 2] / 0.35))
    east = np.cross([0.0, 0.0, 1.0], where)
    return np.asarray(speed[:, None] * (east + 0.5 * np.cross(where, east)))


@pytest.fixture(scope="module")
def observed(sphere: Surface) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    coordinates, _ = sphere.cloud.to_tangent(_uneven(sphere, sphere.cloud.points))
    train = rng.permutation(200)[:80]
    noisy = sphere.cloud.to_ambient(coordinates + 0.03 * rng.standard_normal(coordinates.shape))
    return train, noisy[train]


@pytest.fixture(scope="module")
def fitted(sphere: Surface, observed: tuple[Array, Array]) -> VectorFieldGP:
    model = VectorFieldGP(sphere.cloud)
    model.fit(*observed, progress=False)
    return model


def test_factors_are_those_of_the_amplitude(sphere: Surface) -> None:
    """Beside a landmark the factor is nearly its own; between two it is their geometric mean."""
    ends = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    term = SpeedTerm(ProjectedTerm("rbf", Scales(1.0, 1.0)), ends)
    places = np.array([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    sites = node_sites(np.tile(np.eye(3)[:, 1:], (3, 1, 1)), places, {}, np.arange(3))
    theta = torch.tensor([0.0, 0.0, math.log(4.0), math.log(0.25)], dtype=torch.float64)
    np.testing.assert_allclose(term.speed(theta, sites).numpy(), [4.0, 0.25, 1.0], rtol=0.2)
    np.testing.assert_allclose(term.marginal(theta, sites)[:, 0, 0].numpy(), term.speed(theta, sites).numpy() ** 2)
    assert float(term.speed(theta, sites)[2]) == pytest.approx(1.0, rel=1e-12)


def test_auto_finds_that_speeds_differ(fitted: VectorFieldGP, sphere: Surface) -> None:
    """The kernel with speeds has the evidence, a lower error than every kernel of one amplitude, and honest regions."""
    assert fitted.result is not None
    assert "* speed" in fitted.result.kernel
    rest = np.setdiff1d(np.arange(200), fitted.observations.where)
    truth = _uneven(sphere, sphere.cloud.points)[rest]

    def angle(mean: Array) -> float:
        cosine = (mean * truth).sum(1) / np.linalg.norm(mean, axis=1) / np.linalg.norm(truth, axis=1)
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean())

    prediction = fitted.predict(rest)
    found = angle(prediction.mean)
    assert 0.9 < prediction.covers(truth).mean() <= 1.0
    others = []
    for candidate in fitted.result.comparison.candidates:
        if not candidate.regression.flexible:
            fitted.use(candidate.name)
            others.append(angle(fitted.predict(rest).mean))
    fitted.use()
    assert found < 0.9 * min(others)


def test_speeds_follow_the_field(fitted: VectorFieldGP) -> None:
    best = fitted._fitted()
    speeds = np.log(list(speeds_among(best.fit.values).values()))
    term = next(term for term in best.regression.terms if isinstance(term, SpeedTerm))
    assert len(speeds) == len(term.landmarks) == 24
    assert np.corrcoef(speeds, -np.abs(term.landmarks.numpy()[:, 2]))[0, 1] > 0.8
    assert "24 speeds" in repr(fitted.result)


def test_speeds_are_estimates(fitted: VectorFieldGP) -> None:
    """They widen predictions of values and derivatives, whose means stay as they are; draws have the same moments."""
    wide, curl = fitted.predict(), fitted.curl()
    fitted.uncertainty = "map"
    narrow, flat = fitted.predict(), fitted.curl()
    fitted.uncertainty = None
    np.testing.assert_allclose(wide.mean, narrow.mean, atol=1e-12)
    np.testing.assert_allclose(curl.mean, flat.mean, atol=1e-10)
    assert wide.variance.sum() > 1.1 * narrow.variance.sum()
    assert np.median(curl.standard_deviation / flat.standard_deviation) > 1.0
    draws = wide.sample(3000, seed=1)
    np.testing.assert_allclose(draws.var(0).sum(), wide.variance.sum(), rtol=0.1)
    spread = np.sqrt(wide.variance.sum() / len(wide.mean) / 3000)
    assert np.abs(draws.mean(0) - wide.mean).mean() < 2.0 * spread


def test_inflation_is_found_with_the_fit(fitted: VectorFieldGP) -> None:
    """Differences that left-out places need say it too: nothing is differentiated twice."""
    assert fitted.result is not None
    best = fitted.result.comparison.best
    assert best.left_out.inflation == pytest.approx(inflation_of(best.regression, best.fit), rel=1e-9)
    assert best.left_out.inflation is not None and best.left_out.inflation > 1.0


def test_draws_without_a_factor_are_left_out(fitted: VectorFieldGP) -> None:
    assert fitted.result is not None
    best = fitted.result.comparison.best
    draws = np.stack([best.fit.theta, best.fit.theta + 0.1, best.fit.theta - 0.1])

    def posterior_at(theta: Array) -> FieldPosterior:
        if theta[0] > best.fit.theta[0]:
            raise NotPositiveDefiniteError("no factor")
        return best.regression.posterior(theta)

    centre = posterior_at(best.fit.theta)
    with pytest.warns(DataWarning, match="1 of 3 draws of the parameters of this kernel have a covariance without"):
        found = averaged_posterior("this kernel", centre, draws, posterior_at)
    assert len(found.around) == 2
    with pytest.warns(DataWarning, match="1 of 1 draws"):
        assert averaged_posterior("this kernel", centre, draws[1:2], posterior_at).around == [centre]


def test_report_shows_the_ends_of_the_speeds(fitted: VectorFieldGP) -> None:
    content = shared_content(fitted, title="", command="", seed=0, settings=None)
    names = [row["name"] for row in content["parameters"] if "speed" in row["name"]]
    assert sorted(name.partition(", ")[2] for name in names) == ["the largest of 24", "the least of 24"]


def test_files(fitted: VectorFieldGP, tmp_path: Path) -> None:
    again = VectorFieldGP.load(fitted.save(tmp_path / "field.gpkit"))
    np.testing.assert_array_equal(again.predict([3, 5]).mean, fitted.predict([3, 5]).mean)


def test_full_names(sphere: Surface, observed: tuple[Array, Array]) -> None:
    """Named kernels start at one speed; blanks around the product do not matter; places in between are predicted."""
    model = VectorFieldGP(sphere.cloud, "projected:rbf*speed + intrinsic:heat")
    result = model.fit(*observed, progress=False)
    assert result.kernel == "projected:rbf * speed + intrinsic:heat"
    between = model.predict(sphere.others)
    model.uncertainty = "map"  # which one kernel with few parameters has; that of dozens counts them as estimates
    assert between.variance.sum() > model.predict(sphere.others).variance.sum()


def test_landmarks() -> None:
    rng = np.random.default_rng(0)
    places = rng.standard_normal((100, 3))
    found = landmarks_of(places)
    assert found is not None and found.shape == (24, 3)
    some = landmarks_of(places[:14])
    assert some is not None and len(some) == 4
    assert landmarks_of(places[:11]) is None
    assert landmarks_of(np.repeat(places[:11], 9, axis=0)) is None  # of repeated places each counts once


@pytest.mark.parametrize(
    ("kernel", "message"),
    [("projected:rbf * size", "times speed"), ("projected * speed", "times speed"), ("* speed", "unknown kernel")],
)
def test_bad_names(sphere: Surface, kernel: str, message: str) -> None:
    with pytest.raises(InvalidDataError, match=message):
        VectorFieldGP(sphere.cloud, kernel)


def test_refused(sphere: Surface, observed: tuple[Array, Array]) -> None:
    with pytest.raises(InvalidDataError, match="vector fields"):
        ScalarFieldGP(sphere.cloud, "projected:rbf * speed")
    train, vectors = observed
    with pytest.raises(InvalidDataError, match="a dozen observed places"):
        VectorFieldGP(sphere.cloud, "projected:rbf * speed").fit(train[:8], vectors[:8], progress=False)
    with pytest.raises(InvalidDataError, match="two landmarks"):
        SpeedTerm(ProjectedTerm("rbf", Scales(1.0, 1.0)), np.zeros((1, 3)))


def test_places_left_out_are_those_of_fits_without_them(sphere: Surface, observed: tuple[Array, Array]) -> None:
    """To first order: densities of refitted parameters are nearer to those of real refits than densities at the fit."""
    train, vectors = observed[0][:30], observed[1][:30]
    coordinates = np.einsum("mDd,mD->md", sphere.cloud.frames[train], vectors)
    sites = node_sites(sphere.cloud.frames, sphere.cloud.points, {}, train)
    scales = Scales(1.0, float(np.sqrt(np.square(coordinates).mean())))
    regression = FieldRegression([ProjectedTerm("matern52", scales)], sites, coordinates, scales)
    fit = fit_regression(regression)
    at_fit, moved = predict_left_out(regression, fit.theta), predict_refitted(regression, fit)
    truth = []
    for place in range(30):
        keep = np.delete(np.arange(30), place)
        without = FieldRegression(regression.terms, sites.take(keep), coordinates[keep], scales)
        own = fit_regression(without, init=fit.theta).theta
        truth.append(regression.value_and_gradient(own)[0] - without.value_and_gradient(own)[0])
    errors, before = np.abs(moved.density - truth), np.abs(at_fit.density - truth)
    assert np.median(errors) < 0.1 * np.median(before)
    assert errors.mean() < 0.5 * before.mean()  # the places that matter most are beyond first order
    assert moved.density.sum() < at_fit.density.sum()


class _Normal:
    """A normal density of three logarithms."""

    parameters = tuple(LogParameter(name, 1.0, 1e-3, 1e3, 1.0, 1.0) for name in "abc")
    precision = np.array([[9.0, 2.0, 0.0], [2.0, 4.0, -1.0], [0.0, -1.0, 20.0]])

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        rest = theta - 0.5
        return float(-0.5 * rest @ self.precision @ rest), -self.precision @ rest


def test_draws_have_the_moments_of_the_approximation() -> None:
    density = _Normal()
    fit: LogFit = maximise_log(density)
    root = np.linalg.cholesky(fit.covariance)
    draws = normal_draws(density, fit.theta, root, 1024)
    np.testing.assert_allclose(draws.mean(0), fit.theta, atol=1e-12)  # pairs are opposite
    np.testing.assert_allclose(np.cov(draws.T), fit.covariance, atol=0.02 * fit.covariance.max())
    np.testing.assert_array_equal(draws, normal_draws(density, fit.theta, root, 1024))
