"""Frequencies picked from grids, and functions made from gridded values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.frequencies import clean
from gpkit.inference.collocation.gridded import Interpolant

X = np.linspace(0.0, 2.0 * math.pi, 400)


def test_a_few_sinusoids_are_found():
    found = clean(X, 3.0 * np.sin(106 * X) - np.sin(94 * X))
    assert found.complete and found.residual < 1e-8
    np.testing.assert_allclose(sorted(found.frequencies), np.array([94, 106]) / (2 * math.pi), atol=5e-5)


def test_a_varying_amplitude_is_one_frequency():
    found = clean(X, 400 * np.cos(50 * X) - 1e4 * X * np.sin(50 * X))
    assert len(found.frequencies) == 1
    assert found.frequencies[0] == pytest.approx(50 / (2 * math.pi), abs=1e-3)


def test_noise_is_not_picked():
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = 0.5 * rng.standard_normal(400)
        assert clean(X, noise, noise=0.5).frequencies == ()
        found = clean(X, np.sin(20 * X) + noise, noise=0.5)
        assert len(found.frequencies) == 1 and found.complete


def test_a_chirp_is_not_a_few_sinusoids():
    assert not clean(X, np.sin(8 * X**2)).complete


@pytest.mark.parametrize("values", [np.zeros(400), np.ones(400)])
def test_nothing_to_pick(values):
    assert clean(X, values).frequencies == ()


@pytest.mark.parametrize(
    ("function", "how", "tolerance"),
    [
        (lambda x: np.sin(100 * x) * (1 + x), "picked", 1e-11),
        (lambda x: np.exp(np.sin(x)) * x, "extension", 1e-9),
        (lambda x: np.sin(5 * x**2), "extension", 1e-8),
    ],
    ids=["sinusoid", "smooth", "chirp"],
)
def test_functions_from_values(function, how, tolerance):
    made = Interpolant([X], function(X), [(0.0, 2.0 * math.pi)])
    at = np.random.default_rng(1).uniform(0.0, 2.0 * math.pi, 300)
    error = np.abs(made.on_grid([at]) - function(at)).max() / np.abs(function(X)).max()
    assert error < tolerance and made.defect < 1e-8
    if how == "picked":
        assert made.how == how and made.picks[0]
    np.testing.assert_allclose(made.at(at[:, None]), made.on_grid([at]))


def test_values_that_no_grid_of_theirs_resolves_have_a_defect():
    made = Interpolant([X], np.sign(np.sin(7 * X) + 0.1), [(0.0, 2.0 * math.pi)])
    assert made.defect > 1e-2


def test_two_dimensions():
    y = np.linspace(-1.0, 1.0, 60)

    def function(x, y):
        return np.exp(-((x - 3.0) ** 2) - 2.0 * y**2) * np.cos(8 * x + 5 * y)

    made = Interpolant([X, y], function(X[:, None], y), [(0.0, 2.0 * math.pi), (-1.0, 1.0)])
    at = np.random.default_rng(2).uniform([0.0, -1.0], [6.0, 1.0], (200, 2))
    np.testing.assert_allclose(made.at(at), function(*at.T), atol=1e-7)


@pytest.mark.parametrize(
    ("axes", "values", "match"),
    [
        ([X], np.zeros(3), "shape"),
        ([X], np.full(400, np.nan), "not finite"),
        ([X[:3]], np.zeros(3), "four points"),
        ([X[::-1]], np.zeros(400), "increase"),
    ],
)
def test_bad_values_are_refused(axes, values, match):
    with pytest.raises(InvalidDataError, match=match):
        Interpolant(axes, values, [(0.0, 2.0 * math.pi)])
