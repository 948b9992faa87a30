"""Fits, evidence and draws of a density whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from gpkit.errors import ConvergenceError, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.log_parameters import LogParameter, log_prior, maximise_log, sample_log

Array = NDArray[np.float64]
WIDE = {"low": 1e-6, "high": 1e6, "centre": 1.0, "width": 2.0}


class Normal:
    """A log likelihood that is quadratic in the logarithms."""

    parameters = (LogParameter("a", 0.3, **WIDE), LogParameter("b", 3.0, **WIDE))
    mean = np.array([0.5, -1.0])
    precision = np.array([[9.0, 3.0], [3.0, 4.0]])

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        shift = theta - self.mean
        return -0.5 * float(shift @ self.precision @ shift), -self.precision @ shift


class Forbidden(Normal):
    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        if theta[0] < 0.0:
            raise NotPositiveDefiniteError
        return super().value_and_gradient(theta)


class Hopeless(Normal):
    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        raise NotPositiveDefiniteError


def _exact() -> tuple[Array, Array, float]:
    total = Normal.precision + np.eye(2) / 4.0
    covariance = np.linalg.inv(total)
    mode = covariance @ (Normal.precision @ Normal.mean)
    value = Normal().value_and_gradient(mode)[0] + log_prior(Normal.parameters, mode)[0]
    return mode, covariance, value + math.log(2 * math.pi) + 0.5 * math.log(np.linalg.det(covariance))


def test_mode_and_evidence_of_a_normal_are_exact() -> None:
    mode, covariance, evidence = _exact()
    fit = maximise_log(Normal(), starts=3, seed=1)
    np.testing.assert_allclose(fit.theta, mode, atol=1e-5)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-5)
    assert fit.log_evidence == pytest.approx(evidence, abs=1e-6)
    assert fit.converged and fit.agreeing == fit.starts == 3 and fit.at_bound == ()
    assert list(fit.values) == ["a", "b"] and fit.values["a"] == pytest.approx(math.exp(mode[0]), rel=1e-4)


def test_walls_and_bounds() -> None:
    fit = maximise_log(Forbidden(), init=[np.array([2.0, 2.0])])
    np.testing.assert_allclose(fit.theta, _exact()[0], atol=1e-3)
    tight = Normal()
    tight.parameters = (LogParameter("a", 1.0, low=0.5, high=1.2, centre=1.0, width=2.0), Normal.parameters[1])
    assert maximise_log(tight).at_bound == ("a",)
    with pytest.raises(ConvergenceError, match="none of 2 starts"):
        maximise_log(Hopeless(), starts=2)
    with pytest.raises(InvalidDataError, match="low <= start"):
        LogParameter("a", 2.0, low=0.5, high=1.2, centre=1.0, width=2.0)


def test_draws_have_the_moments_and_the_seed_decides() -> None:
    mode, covariance, _ = _exact()
    fit = maximise_log(Normal())
    draws, stats = sample_log(Normal(), fit, draws=600, tune=200, chains=2, seed=3, progress=False)
    assert draws.shape == (2, 600, 2) and stats["diverging"].sum() == 0
    flat = draws.reshape(-1, 2)
    np.testing.assert_allclose(flat.mean(0), mode, atol=0.12)
    np.testing.assert_allclose(np.cov(flat.T), covariance, atol=0.12)
    again, _ = sample_log(Normal(), fit, draws=600, tune=200, chains=2, seed=3, progress=False)
    np.testing.assert_array_equal(draws, again)
    with pytest.raises(InvalidDataError, match="chain"):
        sample_log(Normal(), fit, draws=5, tune=5, chains=0)
