"""Movies against dense covariances in space and time, for fixed and for changing places."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.inference.log_parameters import LogFit
from gpkit.kernels import DRWKernel
from gpkit.models import VectorMovieGP
from gpkit.models.fields.ambient_terms import HelmholtzTerm
from gpkit.models.fields.movie_regression import MovieRegression, TimeKernel
from gpkit.models.fields.sites import Sites, node_sites, point_sites
from gpkit.models.fields.spectral_term import SpectralPart, SpectralTerm, heat_response
from gpkit.models.fields.terms import Scales
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]
SCALES = Scales(1.0, 1.0)
TIMES = np.array([0.0, 0.4, 1.5, 1.6, 3.0])


def build(surface: Surface, kind: str, missing: bool = False) -> tuple[MovieRegression, Sites, Sites]:
    basis = surface.cloud.connection_basis(12, cut=None)
    bases = {"connection": basis}
    sites = node_sites(surface.cloud.frames, surface.cloud.points, bases, np.arange(0, 200, 20))
    others = point_sites(surface.cloud, bases, surface.others[:4])
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 10, 2))
    if missing:
        values[rng.uniform(size=(5, 10)) < 0.4] = np.nan
    term: Any = (
        SpectralTerm("intrinsic", SpectralPart.of("connection", basis), heat_response, SCALES)
        if kind == "intrinsic"
        else HelmholtzTerm("rbf", SCALES, oriented=True)
    )
    time = TimeKernel.of(DRWKernel(timescale=1.0), 3.0, 0.1)
    return MovieRegression([term], sites, TIMES, values, SCALES, time), sites, others


def dense(regression: MovieRegression, theta: Array, left: Sites, t_left: Array, right: Sites, t_right: Array) -> Array:
    """Covariance of places and times, times outermost."""
    _, time, parts = regression.split(torch.from_numpy(theta))
    pairs = zip(regression.terms, parts, strict=True)
    space = functools.reduce(torch.add, [t.evaluate(p, t.prepare(left, right)) for t, p in pairs]).numpy()
    k = np.exp(-np.abs(t_left[:, None] - t_right[None]) / np.exp(float(time[0])))
    return np.asarray(np.kron(k, space))


CASES = [("intrinsic", False), ("helmholtz", False), ("intrinsic", True)]


@pytest.mark.parametrize(("kind", "missing"), CASES)
def test_evidence_and_gradient(sphere: Surface, kind: str, missing: bool) -> None:
    regression, sites, _ = build(sphere, kind, missing)
    theta = np.log([p.start for p in regression.parameters]) + 0.1
    seen = np.repeat(regression.seen.ravel(), 2)
    y = regression.values.ravel()[seen]
    covariance = dense(regression, theta, sites, TIMES, sites, TIMES)[np.ix_(seen, seen)]
    covariance += np.exp(2.0 * theta[0]) * np.eye(len(y))
    value, gradient = regression.value_and_gradient(theta)
    assert value == pytest.approx(stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(y), rel=1e-8)
    for k in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[k]
        ends = [regression.value_and_gradient(theta + sign * step)[0] for sign in (1.0, -1.0)]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-4), regression.parameters[k]


@pytest.mark.parametrize(("kind", "missing"), CASES)
def test_posterior(sphere: Surface, kind: str, missing: bool) -> None:
    regression, sites, others = build(sphere, kind, missing)
    theta = np.log([p.start for p in regression.parameters]) + 0.1
    seen = np.repeat(regression.seen.ravel(), 2)
    y = regression.values.ravel()[seen]
    covariance = dense(regression, theta, sites, TIMES, sites, TIMES)[np.ix_(seen, seen)]
    covariance += np.exp(2.0 * theta[0]) * np.eye(len(y))
    new = np.array([2.2, -0.5, 1.5])
    cross = dense(regression, theta, others, new, sites, TIMES)[:, seen]
    mean = cross @ np.linalg.solve(covariance, y)
    joint = dense(regression, theta, others, new, others, new) - cross @ np.linalg.solve(covariance, cross.T)
    posterior = regression.posterior(theta)
    found_mean, found = posterior.moments(new, others)
    np.testing.assert_allclose(found_mean.ravel(), mean, atol=1e-7)
    for t in range(3):
        for place in range(4):
            at = slice(8 * t + 2 * place, 8 * t + 2 * place + 2)
            np.testing.assert_allclose(found[t, place], joint[at, at], atol=1e-7)
    draws = posterior.draw(new, others, 4000, 3).reshape(4000, -1)
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.12 * np.sqrt(joint.max()))
    np.testing.assert_allclose(np.cov(draws.T), joint, atol=0.12 * joint.max())


def _movie(surface: Surface) -> tuple[Array, Array]:
    """A field that turns around the axis as time goes by."""
    times = np.linspace(0.0, 2.0, 9)
    frames = np.stack(
        [np.cos(t) * surface.vectors + np.sin(t) * np.cross(surface.cloud.points, surface.vectors) for t in times]
    )
    return times, frames + 0.01 * np.random.default_rng(9).standard_normal(frames.shape)


def test_fills_gaps_in_time_and_space(sphere: Surface) -> None:
    times, frames = _movie(sphere)
    train = np.arange(0, 200, 4)
    rest = np.setdiff1d(np.arange(200), train)
    model = VectorMovieGP(sphere.cloud, "helmholtz:rbf", temporal="matern52")
    known = np.array([0, 1, 2, 3, 5, 6, 7, 8])
    order = np.random.default_rng(0).permutation(len(known))
    fit = model.fit(times[known][order], train, frames[known][order][:, train])
    assert fit.converged and set(fit.values) >= {"noise", "time.lengthscale"}
    found = model.predict([times[4]], rest)
    error = np.linalg.norm(found.mean[0] - frames[4, rest], axis=1).mean()
    nearest = np.linalg.norm(frames[3, rest] - frames[4, rest], axis=1).mean()
    assert error < 0.2 * nearest
    assert 0.8 <= found.at(0).covers(frames[4, rest]).mean() <= 1.0
    assert found.sample(3).shape == (3, 1, 150, 3)


def test_places_that_change(sphere: Surface) -> None:
    times, frames = _movie(sphere)
    masked = frames[:, ::2].copy()
    masked[np.random.default_rng(1).uniform(size=masked.shape[:2]) < 0.3] = np.nan
    model = VectorMovieGP(sphere.cloud, rank=30)
    fit = model.fit(times, np.arange(0, 200, 2), masked)
    assert model.best.startswith("intrinsic") and len(model.fits) == 2 and np.isfinite(fit.log_evidence)
    found = model.predict(times, np.arange(1, 200, 2)).mean
    assert np.linalg.norm(found - frames[:, 1::2], axis=2).mean() < 0.15 * np.linalg.norm(frames, axis=2).mean()
    with pytest.raises(InvalidDataError, match="places differ"):
        VectorMovieGP(sphere.cloud, "projected:rbf").fit(times, np.arange(0, 200, 2), masked)


def test_doubtful_fits_are_told(sphere: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modes under a rough field, by an optimiser that has not come to an end."""
    module = "gpkit.models.fields.vector_movie_gp.maximise_log"

    def stopped(regression: MovieRegression, **_: Any) -> LogFit:
        theta = np.log([p.start for p in regression.parameters])
        return LogFit({}, theta, 0.0, 0.0, 0.0, np.eye(len(theta)), False, (), 0, 1, 1, np.zeros(1), 0.0)

    monkeypatch.setattr(module, stopped)
    model = VectorMovieGP(sphere.cloud, "intrinsic:matern1", rank=2)
    with pytest.warns(DataWarning) as caught:
        model.fit([0.0, 1.0], [0, 1, 2], np.random.default_rng(0).standard_normal((2, 3, 3)))
    assert tuple(str(warning.message) for warning in caught) == model.notes
    assert "2 modes are too few for intrinsic:matern1" in model.notes[0]
    assert "the fit of intrinsic:matern1 did not converge" in model.notes[1]


@pytest.mark.parametrize(
    ("times", "vectors", "message"),
    [
        ([0.0, 0.0], np.ones((2, 1, 3)), "two frames have the time 0"),
        ([0.0, np.nan], np.ones((2, 1, 3)), "finite"),
        (["noon"], np.ones((1, 1, 3)), "times must be finite numbers .*, got text"),
        ([0.0], np.ones((1, 1, 3), dtype=complex), "vectors must be .*, got complex numbers"),
        ([0.0], np.ones((2, 1, 3)), r"vectors must be \(1, 1, 3\)"),
        ([0.0], np.array([[[1.0, np.nan, 0.0]]]), "place 0 in frame 0"),
        ([0.0], np.full((1, 1, 3), np.nan), "no vector"),
    ],
)
def test_bad_data(sphere: Surface, times: Any, vectors: Array, message: str) -> None:
    with pytest.raises(InvalidDataError, match=message):
        VectorMovieGP(sphere.cloud, "projected:rbf").fit(times, [0], vectors)


def test_bad_settings(sphere: Surface) -> None:
    with pytest.raises(InvalidDataError, match="temporal"):
        VectorMovieGP(sphere.cloud, temporal="rbf")
    with pytest.raises(InvalidDataError, match="rank must be an integer"):
        VectorMovieGP(sphere.cloud, rank=0)
    with pytest.raises(InvalidDataError, match="unknown kernel"):
        VectorMovieGP(sphere.cloud, "cubic")
    with pytest.raises(InvalidDataError, match="call fit"):
        VectorMovieGP(sphere.cloud, "projected:rbf").predict([0.0])
