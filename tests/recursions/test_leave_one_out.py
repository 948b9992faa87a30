"""Leave-one-out predictions from alpha and kappa, and one-step-ahead innovations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpkit.recursions import linear
from gpkit.recursions.series import evidence, log_likelihood
from gpkit.recursions.structure import block_shape, marker
from tests import oracles
from tests.recursions.cases import CASES, FEW, NAMES, close, make


@pytest.mark.parametrize("name", NAMES)
def test_leave_one_out_against_deletion(name: str) -> None:
    structure, params = CASES[name]
    n = 35
    data = make(n, seed=71)
    found = evidence(structure, params, data.times, data.values, data.noise)
    alpha, kappa = found.alpha[0], found.kappa[0]
    for k in range(n):
        rest = np.delete(np.arange(n), k)
        mean, covariance = oracles.posterior(
            structure, params, data.times[rest], data.values[rest], data.noise[rest], data.times[k : k + 1]
        )
        variance = covariance[0, 0] + data.noise[k]
        assert data.values[k] - alpha[k] / kappa[k] == pytest.approx(mean[0], rel=1e-11, abs=1e-11)
        assert 1.0 / kappa[k] == pytest.approx(variance, rel=1e-11)
        density = 0.5 * (math.log(kappa[k]) - alpha[k] ** 2 / kappa[k] - math.log(2 * math.pi))
        expected = -0.5 * ((data.values[k] - mean[0]) ** 2 / variance + math.log(2 * math.pi * variance))
        assert density == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", FEW)
def test_density_of_one_value_given_the_rest(name: str, batch: int) -> None:
    """ln p(y) - ln p(y without k) equals the leave-one-out density, all computed with the library."""
    structure, params = CASES[name]
    n = 200
    data = make(n, seed=72)
    values = np.tile(data.values, (batch, 1))
    found = evidence(structure, params, data.times, values, data.noise)
    whole = log_likelihood(structure, params, data.times, data.values, data.noise)[0]
    for k in (0, 1, 99, 100, n - 1):
        noise = data.noise.copy()
        noise[k] = np.inf
        rest = log_likelihood(structure, params, data.times, data.values, noise)[0]
        for b in range(batch):
            alpha, kappa = found.alpha[b, k], found.kappa[b, k]
            density = 0.5 * (math.log(kappa) - alpha**2 / kappa - math.log(2 * math.pi))
            assert density == pytest.approx(whole - rest, abs=1e-11 * abs(whole))


@pytest.mark.parametrize("n", [20, 130])
@pytest.mark.parametrize("name", FEW)
def test_kappa_keeps_its_accuracy_at_outliers(name: str, n: int) -> None:
    """kappa does not depend on the values; computed as alpha^2 minus something it would lose digits here."""
    structure, params = CASES[name]
    data = make(n, seed=73)
    values = data.values.copy()
    values[[3, n // 2]] = [1e5, -3e6]
    calm = evidence(structure, params, data.times, data.values, data.noise).kappa[0]
    wild = evidence(structure, params, data.times, values, data.noise).kappa[0]
    close(wild, calm, 1e-14, "kappa")


@pytest.mark.parametrize("name", NAMES)
def test_innovations_match_the_kalman_filter(name: str) -> None:
    structure, params = CASES[name]
    data = make(50, seed=74)
    filtered = oracles.kalman(oracles.state_space(structure, params), data.times, data.values, data.noise)
    blocks, p = linear.transition_blocks(marker(structure), np.array(params), data.times, *block_shape(structure))
    gains, variances, bad = linear.factor(blocks, p, data.noise, False)
    assert bad == -1
    innovations = linear.lower_solve(blocks, gains, data.values[:, None])[:, 0]
    close(variances, filtered.variances, 1e-11, "variances")
    close(innovations, filtered.innovations, 1e-11, "innovations")
    terms = innovations**2 / variances + np.log(2 * np.pi * variances)
    value = log_likelihood(structure, params, data.times, data.values, data.noise)[0]
    assert -0.5 * terms.sum() == pytest.approx(value, rel=1e-12)
