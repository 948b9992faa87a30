"""Compiled exponentials and sines against mpmath, in units in the last place, over scalars and lanes."""

from __future__ import annotations

from typing import Any

import mpmath
import numba
import numpy as np
import pytest

from gpkit.recursions.elementary import exp_and_expm1, sine_cosine
from gpkit.recursions.simd import LANES, load, store, zero_lanes


@numba.njit
def _exp(x: float) -> Any:
    return exp_and_expm1(x)


@numba.njit
def _sine(x: float) -> Any:
    return sine_cosine(x)


@numba.njit
def _lanes(source: Any, first: Any, second: Any, trigonometric: bool) -> None:
    """One vector of arguments."""
    x = load(source, 0, zero_lanes())
    if trigonometric:
        a, b = sine_cosine(x)
    else:
        a, b = exp_and_expm1(x)
    store(first, 0, a)
    store(second, 0, b)


def units(found: float, exact: Any) -> float:
    """Error in units in the last place of the exact value."""
    with mpmath.workdps(60):
        return float(abs(mpmath.mpf(found) - exact) / mpmath.mpf(float(np.spacing(abs(float(exact))))))


def exponents() -> np.ndarray:
    rng = np.random.default_rng(121)
    small = 10.0 ** rng.uniform(-300, 0, 300)
    halves = (np.arange(-40, 41) + 0.5) * np.log(2.0)
    return np.concatenate(
        [rng.uniform(-707.9, 708.9, 1500), rng.uniform(-3, 3, 1500), small, -small, halves, np.nextafter(halves, 0.0)]
    )


def test_exp_within_two_units() -> None:
    with mpmath.workdps(60):
        worst = max((units(_exp(x)[0], mpmath.exp(mpmath.mpf(x))), x) for x in exponents())
    assert worst[0] <= 2.0, f"{worst[0]:.2f} ulp at {worst[1]!r}"


def test_expm1_within_two_units() -> None:
    with mpmath.workdps(60):
        worst = max((units(_exp(x)[1], mpmath.expm1(mpmath.mpf(x))), x) for x in exponents())
    assert worst[0] <= 2.0, f"{worst[0]:.2f} ulp at {worst[1]!r}"


def test_exp_at_the_ends() -> None:
    assert _exp(0.0) == (1.0, 0.0)
    assert _exp(-0.0) == (1.0, 0.0)
    for x in (-708.5, -1e3, -1e308, -np.inf):
        value, less_one = _exp(x)
        assert value == 0.0  # never subnormal
        assert less_one == -1.0
    for x in (1e3, 1e308, np.inf):
        assert _exp(x)[0] > 8e307


def test_exp_of_nan() -> None:
    assert np.isnan(_exp(np.nan)).all()


def test_sine_and_cosine_of_nan() -> None:
    assert np.isnan(_sine(np.nan)).all()


@pytest.mark.parametrize("limit", [0.8, 10.0, 1e4, 1e6, 1e9])
def test_sine_and_cosine_to_rounding_of_one(limit: float) -> None:
    rng = np.random.default_rng(122)
    points = np.concatenate([rng.uniform(-limit, limit, 800), limit * 10.0 ** rng.uniform(-20, 0, 200)])
    worst = 0.0
    with mpmath.workdps(60):
        for x in points:
            sine, cosine = _sine(x)
            exact = mpmath.mpf(float(x))
            worst = max(worst, float(abs(sine - mpmath.sin(exact))), float(abs(cosine - mpmath.cos(exact))))
            assert abs(sine) <= 1.0 + 2.3e-16
            assert abs(cosine) <= 1.0 + 2.3e-16
    assert worst <= 2.3e-16


def test_sine_keeps_its_relative_accuracy_near_zero() -> None:
    with mpmath.workdps(60):
        for x in 10.0 ** np.random.default_rng(123).uniform(-300, -0.2, 400):
            assert units(_sine(x)[0], mpmath.sin(mpmath.mpf(x))) <= 1.5
            assert _sine(-x)[0] == -_sine(x)[0]
            assert _sine(-x)[1] == _sine(x)[1]
    assert _sine(0.0) == (0.0, 1.0)


def test_every_quadrant_and_its_borders() -> None:
    with mpmath.workdps(60):
        for k in range(-2000, 2001):
            for x in (k * np.pi / 4, np.nextafter(k * np.pi / 4, np.inf), np.nextafter(k * np.pi / 4, -np.inf)):
                sine, cosine = _sine(x)
                exact = mpmath.mpf(float(x))
                assert abs(sine - mpmath.sin(exact)) <= 2.3e-16, x
                assert abs(cosine - mpmath.cos(exact)) <= 2.3e-16, x


@pytest.mark.parametrize("trigonometric", [False, True])
def test_lanes_equal_scalars(trigonometric: bool) -> None:
    points = np.concatenate([exponents(), [-1e3, -710.0, 710.0, 0.0, -708.0, 709.0]])
    points = points[: points.size // LANES * LANES].copy()
    first, second = np.empty(points.size), np.empty(points.size)
    for k in range(0, points.size, LANES):
        part = slice(k, k + LANES)
        _lanes(points[part], first[part], second[part], trigonometric)
    scalar = np.array([(_sine if trigonometric else _exp)(x) for x in points])
    # Rounding may differ where the compiler contracts differently; a wrong lane would differ by far more.
    assert np.all(np.abs(first - scalar[:, 0]) <= 4e-16 * np.maximum(np.abs(scalar[:, 0]), 1e-300))
    assert np.all(np.abs(second - scalar[:, 1]) <= 4e-16 * np.maximum(np.abs(scalar[:, 1]), 1e-300))
