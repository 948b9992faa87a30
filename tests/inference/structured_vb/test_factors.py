"""Factors at new coordinates against dense Gaussian processes with the same sites."""

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch

from gpkit.inference.structured_vb import IndependentFactor, MarkovFactor
from gpkit.kernels import BinAveragedKernel, MaternKernel, PeriodicKernel
from tests.inference.structured_vb.problems import factor_of

KERNELS = {
    "matern12": lambda: MaternKernel(0.5, lengthscale=0.8),
    "matern52": lambda: MaternKernel(2.5, lengthscale=1.3),
    "sum": lambda: MaternKernel(1.5, lengthscale=0.7) + PeriodicKernel(1.1, terms=4),
    "product": lambda: MaternKernel(1.5, lengthscale=3.0) * PeriodicKernel(0.9, terms=3),
}


def dense(gram_all, sites, information, old, new, rank):
    prior = np.kron(gram_all, np.eye(rank))
    a = (old[:, None] * rank + np.arange(rank)).reshape(-1)
    b = (new[:, None] * rank + np.arange(rank)).reshape(-1)
    inner = np.linalg.solve(np.eye(len(a)) + sites @ prior[np.ix_(a, a)], np.eye(len(a)))
    mean = prior[np.ix_(b, a)] @ inner @ information.reshape(-1)
    covariance = prior[np.ix_(b, b)] - prior[np.ix_(b, a)] @ inner @ sites @ prior[np.ix_(a, b)]
    return mean.reshape(-1, rank), covariance


@pytest.mark.parametrize("name", KERNELS)
def test_new_coordinates_are_exact(name):
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0.0, 5.0, 9))
    new = np.array([-2.0, 0.0, x[3], 0.5 * (x[4] + x[5]), 4.9, 9.0])
    factor = MarkovFactor(KERNELS[name](), x, 2, learn=False)
    root = rng.standard_normal((9, 2, 1))  # singular sites
    root[4] = 0.0
    information = (root * rng.standard_normal((9, 1, 1)))[:, :, 0]
    factor.set_sites(root @ root.transpose(0, 2, 1), information)
    factor.update()
    mean, covariance = factor.at(new)
    with torch.no_grad():
        gram = factor.kernel(torch.from_numpy(np.concatenate([x, new])))
        gram = gram.to_dense().numpy()
    sites = np.zeros((18, 18))
    for j in range(9):
        sites[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = factor.precision[j]
    want_mean, want = dense(gram, sites, information, np.arange(9), np.arange(9, 15), 2)
    np.testing.assert_allclose(mean, want_mean, atol=1e-8)
    for m in range(len(new)):
        np.testing.assert_allclose(covariance[m], want[2 * m : 2 * m + 2, 2 * m : 2 * m + 2], atol=1e-8)
    drawn = factor.sample(new, 4000, np.random.default_rng(1)).reshape(4000, -1)
    spread = np.cov(drawn.T)
    np.testing.assert_allclose(spread, want, atol=6.0 * np.abs(want).max() / np.sqrt(4000))


def test_bins_are_averages():
    """Posteriors of bins that were seen and of others between and beyond them, against dense algebra."""
    rng = np.random.default_rng(0)
    x, new = np.array([0.0, 1.0, 2.5, 4.0]), np.array([-3.0, 1.0, 5.0, 5.7])
    factor = MarkovFactor(BinAveragedKernel(MaternKernel(1.5)), x, 1, learn=False, width=0.7)
    precision, information = rng.uniform(0.5, 2.0, (4, 1, 1)), rng.standard_normal((4, 1))
    factor.set_sites(precision, information)
    factor.update()
    mean, covariance = factor.at(new)
    bins = np.stack([np.concatenate([x, new]), np.full(8, 0.7)], 1)
    with torch.no_grad():
        gram = factor.kernel(torch.from_numpy(bins)).to_dense().numpy()
    assert gram[0, 0] < 0.99  # averages vary less than points
    want_mean, want = dense(gram, np.diag(precision.ravel()), information, np.arange(4), np.arange(4, 8), 1)
    np.testing.assert_allclose(mean, want_mean, atol=1e-10)
    np.testing.assert_allclose(covariance.ravel(), np.diag(want), atol=1e-10)
    drawn = factor.sample(new, 4000, rng)[:, :, 0]
    np.testing.assert_allclose(np.cov(drawn.T), want, atol=0.1)


def test_unseen_levels_have_the_prior():
    factor = IndependentFactor(3, 2)
    factor.set_sites(np.tile(4.0 * np.eye(2), (3, 1, 1)), np.ones((3, 2)))
    factor.update()
    mean, covariance = factor.at(np.array([1.0, 7.0]))
    np.testing.assert_allclose(mean, [[0.2, 0.2], [0.0, 0.0]])
    np.testing.assert_allclose(covariance, [0.2 * np.eye(2), np.eye(2)])


@pytest.mark.parametrize("kind", range(4))
def test_learning_never_lowers_the_evidence(kind):
    rng = np.random.default_rng(kind)
    factor = factor_of(kind, 6, 2)
    factor.set_sites(np.tile(np.eye(2), (6, 1, 1)), rng.standard_normal((6, 2)))
    factor.update()
    last = factor.log_evidence
    for _ in range(8):
        factor.learn()
        factor.update()
        assert factor.log_evidence >= last - 1e-10
        last = factor.log_evidence


def test_periods_are_kept():
    factor = factor_of(3, 6, 1)
    factor.set_sites(np.tile(np.eye(1), (6, 1, 1)), np.ones((6, 1)))
    factor.update()
    for _ in range(10):
        factor.learn()
    assert [v for k, v in factor.parameters().items() if k.endswith("period")] == [pytest.approx(1.7)]


def test_learning_stays_within_constraints():
    """Functions rougher than any length scale that the constraint allows: without its limit the search leaves it."""
    x = np.linspace(0.0, 4.0, 9)
    bounds = gpytorch.constraints.Interval(0.6, 0.9)
    kernel = PeriodicKernel(7.0) + MaternKernel(0.5, lengthscale=0.7, lengthscale_constraint=bounds)
    factor = MarkovFactor(kernel, x, 1)
    factor.set_sites(np.full((9, 1, 1), 100.0), 100.0 * (-1.0) ** np.arange(9)[:, None])
    for _ in range(24):
        factor.learn()
        factor.update()
    found = factor.parameters()
    assert np.isfinite(list(found.values())).all()
    assert 0.6 < found["kernels.1.lengthscale"] < 0.61
    assert found["kernels.0.lengthscale"] > float(kernel.kernels[0].raw_lengthscale_constraint.lower_bound)


def test_a_factor_takes_over_another():
    old = factor_of(0, 7, 2)
    sites = np.tile(2.0 * np.eye(2), (7, 1, 1)), np.random.default_rng(0).standard_normal((7, 2))
    old.set_sites(*sites)
    old.update()
    old.carry(*sites)
    old.learn()
    old.update()
    grid = np.sort(np.append(old.coordinates, [0.01, 9.0]))
    new = MarkovFactor(MaternKernel(1.5), grid, 2)
    places = np.searchsorted(grid, old.coordinates).astype(np.int32)
    new.take_over(old, grid, places)
    np.testing.assert_allclose(new.mean, old.at(grid)[0])
    new.set_sites(np.zeros((9, 2, 2)), np.zeros((9, 2)))
    new.update()
    np.testing.assert_allclose(new.mean, old.at(grid)[0], atol=1e-10)
    assert new.log_evidence == pytest.approx(old.log_evidence)
    assert new.parameters() == old.parameters()
