"""The oscillator through critical damping, and from Q = 1e-3 to 1e3."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from gpkit.recursions import linear
from gpkit.recursions.series import evidence, log_likelihood
from gpkit.recursions.structure import marker
from tests import oracles
from tests.recursions.cases import Data, close, make, sequential

SHO = (("sho",),)
PRODUCT = (("sho", "exponential"),)
OFFSETS = [0.0, *(sign * 10.0**-k for k in (16, 14, 12, 10, 8, 7, 6, 5, 4, 3) for sign in (1, -1))]
QUALITIES = [1e-3, 3e-3, 0.05, 0.3, 0.4, 0.5, 0.7, 2.0, 20.0, 300.0, 1e3]


def exact_slope(structure: tuple[tuple[str, ...], ...], params: list[float], data: Data) -> float:
    """The derivative with respect to the quality, to double precision."""
    with mpmath.workdps(60):

        def value(quality: object) -> object:
            moved = [*params[:2], quality, *params[3:]]
            return oracles.mp_log_likelihood(structure, moved, data.times, data.values, data.noise)

        return float(oracles.mp_derivative(value, params[2]))


@pytest.mark.parametrize("offset", OFFSETS)
def test_near_critical_damping(offset: float) -> None:
    data = make(12, seed=31)
    params = [1.3, 0.8, 0.5 + offset]
    expected = exact_slope(SHO, params, data)
    with mpmath.workdps(40):
        value = float(oracles.mp_log_likelihood(SHO, params, data.times, data.values, data.noise))
    for found in (
        evidence(SHO, params, data.times, data.values, data.noise),
        sequential(SHO, params, data),
        evidence(SHO, params, data.times, np.tile(data.values, (8, 1)), data.noise),
    ):
        assert found.params[0, 2] == pytest.approx(expected, rel=1e-12)
    assert log_likelihood(SHO, params, data.times, data.values, data.noise)[0] == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("offset", [0.0, 1e-12, -1e-12, 1e-6, -1e-6])
def test_near_critical_damping_inside_a_product(offset: float) -> None:
    data = make(12, seed=32)
    params = [1.3, 0.8, 0.5 + offset, 0.3]
    expected = exact_slope(PRODUCT, params, data)
    found = evidence(PRODUCT, params, data.times, data.values, data.noise)
    assert found.params[0, 2] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("frequency", [1e-3, 0.6, 40.0])
def test_quality_from_far_over_to_far_under(quality: float, frequency: float) -> None:
    data = make(10, seed=33)
    params = [0.9, frequency, quality]
    exact = exact_slope(SHO, params, data)
    found = evidence(SHO, params, data.times, data.values, data.noise)
    with mpmath.workdps(50):
        value = float(oracles.mp_log_likelihood(SHO, params, data.times, data.values, data.noise))
    assert -0.5 * (found.inv_quad[0] + found.logdet[0] + 10 * math.log(2 * math.pi)) == pytest.approx(value, rel=2e-14)
    # The slope per unit of ln Q, against the size of the log-likelihood.
    assert found.params[0, 2] * quality == pytest.approx(exact * quality, rel=1e-9, abs=1e-13 * abs(value))


@pytest.mark.parametrize("quality", QUALITIES)
def test_long_series_over_quality(quality: float) -> None:
    data = make(500, seed=34)
    params = [0.9, 1.4, quality]
    dense = oracles.evidence(SHO, params, data.times, data.values, data.noise)
    found = evidence(SHO, params, data.times, data.values, data.noise)
    assert found.inv_quad[0] == pytest.approx(dense.inv_quad, rel=1e-12)
    assert found.logdet[0] == pytest.approx(dense.logdet, rel=1e-12)
    close(found.params[0] * params, dense.params * params, 1e-10, "parameters")
    close(found.times[0], dense.times, 1e-10, "times")


def test_slope_is_continuous_across_critical_damping() -> None:
    """Fourth differences of dlnL/dQ over a fine grid are rounding, with no step and no kink."""
    data = make(400, seed=35)
    grid = 0.5 + np.arange(-20, 21) * 1e-4
    chain = np.stack([np.full(41, 1.2), np.full(41, 0.7), grid], axis=1)
    slopes = evidence(SHO, chain, data.times, data.values, data.noise).params[:, 2]
    assert np.max(np.abs(np.diff(slopes, 4))) <= 1e-11 * np.max(np.abs(slopes))


def test_matern32_is_the_critically_damped_oscillator() -> None:
    data = make(300, seed=36)
    rate = 1.3
    matern = evidence((("matern32",),), [1.1, rate], data.times, data.values, data.noise)
    oscillator = evidence(SHO, [1.1, rate, 0.5], data.times, data.values, data.noise)
    assert matern.inv_quad[0] == pytest.approx(oscillator.inv_quad[0], rel=1e-13)
    assert matern.logdet[0] == pytest.approx(oscillator.logdet[0], rel=1e-13)
    assert matern.params[0] == pytest.approx(oscillator.params[0, :2], rel=1e-11)


def test_overdamped_limit_is_the_damped_random_walk() -> None:
    """Q -> 0 at fixed frequency * Q: the difference falls in proportion to Q^2."""
    data = make(80, seed=37)
    walk = log_likelihood((("exponential",),), [1.2, 0.5], data.times, data.values, data.noise)[0]
    gaps = []
    for quality in (1e-2, 1e-3, 1e-4):
        found = log_likelihood(SHO, [1.2, 0.5 / quality, quality], data.times, data.values, data.noise)[0]
        gaps.append(abs(found - walk))
    assert gaps[0] < 0.1
    assert gaps[1] < 0.03 * gaps[0]
    assert gaps[2] < 0.03 * gaps[1]


@pytest.mark.parametrize("quality", [*QUALITIES, 0.5 - 1e-9, 0.5 + 1e-9, 0.4999, 0.5001])
def test_transition_matches_high_precision(quality: float) -> None:
    """As accurate as an error of one unit in the last place of Q and x allows, for steps from 1e-8 to 1e3."""
    beta = 0.5 / quality
    r = math.sqrt(abs(beta - 1.0) * (beta + 1.0))
    for x in np.concatenate([[0.0], np.logspace(-8, 3, 45)]):
        # From zero, so that the step is exactly x.
        blocks, p = linear.transition_blocks(marker(SHO), np.array([2.0, 1.0, quality]), np.array([0.0, x]), 1, 2)
        assert p.tolist() == [2.0, 0.0]
        with mpmath.workdps(60):
            exact = oracles.mp_sho_transition(x, quality)
            size = max(abs(entry) for entry in exact)
            if size < 1e-290:  # flushed to zero on purpose
                continue
            error = max(
                float(abs(exact[i, j] - mpmath.mpf(float(blocks[0, 0, i, j]))) / size) for i in (0, 1) for j in (0, 1)
            )
        sensitivity = x + beta * x * (x if r == 0.0 else min(x, 1.0 / r))
        assert error <= 1e-15 + 2.3e-16 * sensitivity, f"step {x}"
