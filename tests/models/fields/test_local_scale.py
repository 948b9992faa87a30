"""Factors of variances by place: where errors of left-out places ask for them, and how large they are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpkit.models import VectorFieldGP
from gpkit.models.fields.local_scale import local_scale
from tests.models.fields.conftest import Surface

Array = NDArray[np.float64]


def errors(rng: np.random.Generator, scale: Array, share: float) -> Array:
    """Squared errors of two coordinates in units of a predicted variance of which the field has a share."""
    field = np.sqrt(share * scale)[:, None] * rng.standard_normal((len(scale), 2))
    return np.asarray(np.square(field + np.sqrt(1.0 - share) * rng.standard_normal((len(scale), 2))).sum(1))


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_factors_of_a_field_that_is_rougher_on_one_side(share: float) -> None:
    """The noise's share of the errors is not the field's: factors are those of the field alone."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-1.0, 1.0, (600, 2))
    true = np.where(places[:, 0] > 0.0, 4.0, 0.25)
    found = local_scale(places, errors(rng, true, share), np.full(600, share), 2)
    assert found is not None and found.gain > 30.0 and found.spare >= 1.0
    for side, factor in ((-0.6, 0.25), (0.6, 4.0)):
        inside = np.stack([np.full(9, side), np.linspace(-0.8, 0.8, 9)], axis=1)
        # Noise hides some of what a small factor says, which leaves it closer to 1.
        assert 0.55 * factor < np.median(found.at(inside)) < (1.9 if share == 1.0 else 2.4) * factor
    np.testing.assert_allclose(found.at(np.array([[50.0, 0.0]])), 1.0, atol=1e-12)
    assert "variances times" in repr(found)


def test_none_where_the_kernel_is_right() -> None:
    rng = np.random.default_rng(1)
    made = []
    for _ in range(10):
        places = rng.uniform(-1.0, 1.0, (200, 2))
        made.append(local_scale(places, errors(rng, np.ones(200), 0.8), np.full(200, 0.8), 2))
    assert sum(found is None for found in made) >= 8
    few = rng.uniform(-1.0, 1.0, (20, 2))
    assert local_scale(few, errors(rng, np.full(20, 9.0), 1.0), np.ones(20), 2) is None, "too few places"


@pytest.fixture(scope="module")
def lopsided(sphere: Surface) -> tuple[VectorFieldGP, Array]:
    """A field that is smooth on one half of the sphere and has speckle on the other."""
    rng = np.random.default_rng(2)
    rough = np.where(sphere.cloud.points[:, :1] > 0.0, 0.5, 0.01) * rng.standard_normal((200, 2))
    vectors = sphere.cloud.to_ambient(sphere.cloud.to_tangent(sphere.vectors)[0] + rough)
    model = VectorFieldGP(sphere.cloud, "projected:matern52", uncertainty="calibrated")
    model.fit(np.arange(0, 200, 2), vectors[::2], noise=0, progress=False)
    return model, np.asarray(vectors)


def test_regions_fit_both_halves(lopsided: tuple[VectorFieldGP, Array], sphere: Surface) -> None:
    model, vectors = lopsided
    rest = np.arange(1, 200, 2)
    smooth = sphere.cloud.points[rest, 0] < -0.2
    found = model.predict(rest)
    assert model.calibration is not None
    model.uncertainty = "jackknife"
    plain = model.predict(rest)
    assert model.calibration is None
    model.uncertainty = "calibrated"
    np.testing.assert_allclose(found.mean, plain.mean, atol=1e-12)
    assert found.log_density(vectors[rest]).mean() > plain.log_density(vectors[rest]).mean() + 0.3
    assert found.standard_deviation[smooth].mean() < 0.6 * plain.standard_deviation[smooth].mean()
    assert 0.88 < found.covers(vectors[rest]).mean() <= 1.0


def test_draws_and_functionals_have_the_same_factors(lopsided: tuple[VectorFieldGP, Array]) -> None:
    model, _ = lopsided
    found, divergence = model.predict(np.arange(1, 60, 2)), model.divergence()
    draws = found.sample(4000, seed=1)
    np.testing.assert_allclose(draws.var(0).sum(1), found.variance.sum(1), rtol=0.15)
    mixture = model._mixed()
    sites = model.sites()
    fields = mixture.components()[0].sampler(sites)(3000, np.random.default_rng(3))
    spread = (divergence.operator @ fields.T).std(1)
    np.testing.assert_allclose(spread, divergence.standard_deviation, rtol=0.1)
    mean = mixture.components()[0].moments(sites)[0].ravel()
    np.testing.assert_allclose(divergence.mean, divergence.operator @ mean, atol=1e-9)
