"""Ridges of posteriors are followed: what is sampled is as round as the density allows, and the same density."""

from __future__ import annotations

import math

import arviz
import numpy as np
import pytest
import torch

from gpkit.inference.collocation.inverse.engine import InverseDensity, find_mode
from gpkit.inference.collocation.inverse.fields import EliminatedFields
from gpkit.inference.collocation.inverse.ridge import Ridge
from gpkit.inference.collocation.inverse.sampling import _Whitened, sample_unknowns
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Observe, Unknown, d


def lognormal(median: float, spread: float) -> torch.distributions.LogNormal:
    return torch.distributions.LogNormal(torch.tensor(math.log(median)).double(), torch.tensor(spread).double())


@pytest.fixture(scope="module")
def bent() -> InverseDensity:
    """A source over a reaction: data tell hardly more than how large the field is."""
    u, rng = Field("u", Box(x=(0, 1))), np.random.default_rng(0)
    s, a = Unknown("s", prior=lognormal(3.0, 0.5)), Unknown("a", prior=lognormal(2.0, 0.8))
    at, root = rng.uniform(size=15), math.sqrt(3.0)
    y = 4.0 / 3.0 * (1 - np.cosh(root * (at - 0.5)) / math.cosh(0.5 * root)) + 0.005 * rng.normal(size=15)
    problem = PDE(d(u, "x", 2) - a * u + s == 0, [Dirichlet(u, 0), Observe(u, at, y, 0.005)])
    return InverseDensity(EliminatedFields(problem.form, (16,)))


def test_the_crest_is_where_the_density_is_largest_across(bent: InverseDensity) -> None:
    mode = find_mode(bent)
    target = _Whitened(bent, mode, None)
    for first in (-2.0, -0.8, 0.6, 1.9):
        across = np.linspace(-0.4, 0.4, 9)
        values = [bent.evaluate(target.natural(np.array([first, v])), curved=False)[0] for v in across]
        curve = np.polynomial.Polynomial.fit(across, values, 4)
        least = across[np.argmin(curve(across))]
        assert abs(least) <= 0.2
    # Without following, the crest is elsewhere by more than it is wide.
    straight = Ridge(2).straight(np.array([2.0, 0.0]))
    assert abs(target.ridge.straight(np.array([2.0, 0.0])) - straight).max() > 1.0


def test_the_map_keeps_volume_and_its_gradient_is_exact(bent: InverseDensity) -> None:
    mode = find_mode(bent)
    target = _Whitened(bent, mode, None)
    for u in (np.array([0.7, -0.4]), np.array([-1.9, 0.8]), np.array([3.5, 0.2])):
        _, gradient, status = target.rows(u[None])
        assert status[0] == 0
        jacobian = []
        for k in range(2):
            step = 1e-4 * np.eye(2)[k]
            ends = target.rows(np.stack([u + step, u - step]))[0]
            assert gradient[0, k] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=2e-3, abs=2e-3)
            jacobian.append((target.ridge.straight(u + step) - target.ridge.straight(u - step)) / 2e-4)
        assert np.linalg.det(np.array(jacobian)) == pytest.approx(1.0, abs=1e-6)


def test_draws_mix_along_a_bent_ridge_and_are_of_the_density(bent: InverseDensity) -> None:
    """Beside the density integrated on a grid."""
    mode = find_mode(bent)
    z, statistics = sample_unknowns(bent.reduced(), mode, draws=120, tune=60, chains=2, seed=1, progress=False)
    assert statistics["diverging"].sum() <= 1
    assert min(float(arviz.ess(z[..., k])) for k in range(2)) > 90
    grid = mode.z[1] + math.sqrt(mode.covariance[1, 1]) * np.linspace(-5.0, 5.0, 31)
    marginal = []
    for log_a in grid:  # the source's strength enters linearly: one Gaussian integral each, by its curvature
        start = np.array([mode.z[0], log_a])
        for _ in range(8):
            _, gradient, gauss, *_ = bent.evaluate(start)
            start[0] -= gradient[0] / gauss[0, 0]
        value, _, gauss, *_ = bent.evaluate(start)
        marginal.append(-value - 0.5 * math.log(gauss[0, 0]))
    weights = np.exp(np.array(marginal) - max(marginal))
    weights /= weights.sum()
    mean = float(weights @ grid)
    deviation = math.sqrt(float(weights @ (grid - mean) ** 2))
    drawn = z[..., 1].ravel()
    assert drawn.mean() == pytest.approx(mean, abs=0.2 * deviation)
    assert drawn.std() == pytest.approx(deviation, rel=0.12)


def test_what_is_straight_or_cannot_be_followed_is_left_alone() -> None:
    u = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_array_equal(Ridge(3).straight(u), u)
    np.testing.assert_array_equal(Ridge(3).pulled(u[0], u[1]), u[1])
    np.testing.assert_array_equal(Ridge(1).straight(u[:, :1]), u[:, :1])
