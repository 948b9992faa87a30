"""Maxima against an independent optimiser, and the Laplace approximation against known curvature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from torch import distributions as td

from gpkit.errors import ConvergenceError
from gpkit.inference.maximise import laplace, maximise
from gpkit.inference.potential import ParameterSpec, build_potential
from tests.inference.models import MATERN32, matern_potential, prior_only, simulate, two_parameter_potential


@pytest.mark.parametrize(("prior", "jacobian"), [(False, False), (True, False), (True, True)])
def test_the_maximum_is_that_of_another_optimiser(prior, jacobian):
    spec = two_parameter_potential()
    result = maximise(spec, prior=prior, jacobian=jacobian)
    other = optimize.minimize(
        lambda z: -spec.log_density(z, prior=prior, jacobian=jacobian)[0],
        np.zeros(2),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
    )
    assert result.converged and not result.at_bound
    assert result.log_density == pytest.approx(-other.fun, abs=1e-8)
    np.testing.assert_allclose(result.z, other.x, atol=1e-4)
    assert result.values == {name: float(x) for name, x in spec.to_natural(result.z).items()}
    assert result.agreeing >= 4
    assert result.reason.startswith("Convergence")


def test_starts_are_ordered_traced_and_repeatable():
    spec = matern_potential()
    first, second = maximise(spec, starts=6, seed=5), maximise(spec, starts=6, seed=5)
    assert np.array_equal(first.z, second.z)
    assert [s.log_density for s in first.starts] == [s.log_density for s in second.starts]
    heights = [s.log_density for s in first.starts]
    assert len(heights) == 6 and heights == sorted(heights, reverse=True)
    assert np.all(np.diff(first.trace) > -1e-9)
    assert first.trace[-1] == pytest.approx(first.log_density, rel=1e-12)
    assert np.array_equal([s.initial for s in first.starts if np.array_equal(s.initial, spec.start)][0], spec.start)
    other = maximise(spec, starts=6, seed=6)
    assert not np.array_equal(first.starts[-1].initial, other.starts[-1].initial)
    assert other.log_density == pytest.approx(first.log_density, abs=1e-5)


def test_given_starts_are_used():
    spec = two_parameter_potential()
    points = np.array([[0.0, 0.0], [1.0, -1.0]])
    result = maximise(spec, init=points)
    assert sorted(s.initial.tolist() for s in result.starts) == points.tolist()
    assert len(maximise(spec, init=points[0], starts=1).starts) == 1


def test_a_parameter_without_a_maximum_is_named():
    """White noise: the variance of the correlated part runs to zero."""
    rng = np.random.default_rng(0)
    t = np.arange(80.0)
    spec = build_potential(
        MATERN32,
        lambda v, ops: [v["variance"], 0.05],
        [ParameterSpec("variance", lower=0.0, init=1.0), ParameterSpec("jitter", lower=0.0, init=1.0)],
        t,
        rng.standard_normal(80) * np.where(np.arange(80) % 2, 1.0, -1.0),
        noise=lambda v, ops: [v["jitter"] ** 2],
    )
    result = maximise(spec, prior=False)
    assert np.isfinite(result.log_density)
    assert result.at_bound == ("variance",) or result.values["variance"] < 1e-3


def test_no_finite_density_is_an_error():
    t, y, _ = simulate(10)
    spec = build_potential(
        MATERN32, lambda v, ops: [1.0, 1.0], [ParameterSpec("a")], t, y, noise=lambda v, ops: [-2.0 - v["a"] ** 2]
    )
    with pytest.raises(ConvergenceError, match="none of 3 starts"):
        maximise(spec, starts=3)


def test_walls_are_stepped_back_from():
    """Half of the line has no density; the maximum is beside the wall."""
    t, y, variance = simulate(60)
    spec = build_potential(
        MATERN32,
        lambda v, ops: [1.0, 0.6],
        [ParameterSpec("white", init=2.0)],
        t,
        y,
        variance,
        noise=lambda v, ops: [v["white"]],
    )
    result = maximise(spec, prior=False, starts=8)
    grid = np.linspace(-0.03, 2.0, 400)
    best = spec.log_density_batch(grid[:, None])[0].max()
    assert result.converged and result.log_density >= best - 1e-9


def test_nothing_to_optimise():
    t, y, variance = simulate(10)
    spec = build_potential(MATERN32, lambda v, ops: [1.0, 1.0], [], t, y, variance + 0.1)
    result = maximise(spec)
    assert result.converged and result.values == {} and np.isfinite(result.log_density)


def test_laplace_of_independent_priors():
    """In z: a normal's own variance, and 1 / shape for the logarithm of a Gamma variable."""
    spec = prior_only()
    mode = maximise(spec, jacobian=True)
    approximation = laplace(spec, mode.z)
    assert approximation.exact
    assert approximation.covariance[0, 0] == pytest.approx(4.0, rel=1e-6)
    assert approximation.covariance[1, 1] == pytest.approx(1.0 / 3.0, rel=1e-4)
    assert np.abs(approximation.covariance[0, 1:]).max() < 1e-6
    np.testing.assert_allclose(approximation.factor @ approximation.factor.T, approximation.covariance, rtol=1e-10)


def test_laplace_of_correlated_parameters():
    spec = build_potential(
        MATERN32,
        lambda v, ops: [1.0, 1.0],
        [ParameterSpec("a", td.Normal(0.0, 100.0)), ParameterSpec("b", td.Normal(0.0, 1e-3))],
        [],
        [],
        log_density=lambda v, ops: -0.5 * (v["a"] / 100.0 - 1e3 * v["b"]) ** 2 * 8.0,
    )
    approximation = laplace(spec, [0.0, 0.0])
    scales = np.array([100.0, 1e-3])
    expected = np.linalg.inv(np.array([[9.0, -8.0], [-8.0, 9.0]])) * np.outer(scales, scales)
    np.testing.assert_allclose(approximation.covariance, expected, rtol=1e-6)


def test_laplace_without_curvature_is_wide_but_finite():
    spec = build_potential(
        MATERN32,
        lambda v, ops: [1.0, 1.0],
        [ParameterSpec("flat"), ParameterSpec("bump")],
        [],
        [],
        log_density=lambda v, ops: 0.5 * v["bump"] ** 2,
    )
    approximation = laplace(spec, [0.0, 0.0])
    assert not approximation.exact
    assert np.all(np.linalg.eigvalsh(approximation.covariance) > 0.0)
    assert np.sqrt(np.diag(approximation.covariance)).max() < 1e3
