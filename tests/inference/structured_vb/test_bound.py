"""The bound: it never decreases, its parts are divergences of dense Gaussians, seeds decide everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb import GammaPosterior, observation_named
from tests.inference.structured_vb.problems import factor_of, posterior_of

RNG = np.random.default_rng(5)
OBSERVATIONS = {
    "gaussian": RNG.standard_normal(120),
    "student-t": RNG.standard_t(3, 120),
    "bernoulli": (RNG.uniform(size=120) < 0.4).astype(float),
    "negative-binomial": RNG.negative_binomial(3, 0.4, 120).astype(float),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.parametrize("form", ["tucker", "cp", "tensor-train"])
@pytest.mark.parametrize("main", [False, True])
def test_bound_never_decreases(form, main, name):
    posterior, layout, _ = posterior_of(form, 4, entries=120, main_effects=main, y=OBSERVATIONS[name], likelihood=name)
    bounds = posterior.fit(layout, sweeps=14, tolerance=0.0).elbo
    assert np.all(np.diff(bounds) >= -1e-8 * np.abs(bounds[:-1]).max())
    assert bounds[-1] > bounds[0] + 1.0


def test_poisson_finds_the_rates():
    rng = np.random.default_rng(0)
    level = rng.normal(1.0, 0.7, 7)
    _, _, index = posterior_of("tucker", 2, entries=800, rank=1)
    y = rng.poisson(np.exp(level[index[0]])).astype(float)
    posterior, layout, _ = posterior_of("tucker", 2, entries=800, rank=1, y=y, likelihood="poisson")
    posterior.fit(layout, sweeps=60)
    mean, _ = posterior.entry_moments(layout)
    by_group = np.array([np.log(y[index[0] == j].mean()) for j in range(7)])
    got = np.array([mean[index[0] == j].mean() for j in range(7)])
    np.testing.assert_allclose(got, by_group, atol=0.12)


def test_divergence_of_a_path_is_that_of_dense_gaussians():
    rng = np.random.default_rng(2)
    for kind in range(4):
        factor = factor_of(kind, 6, 2)
        root = rng.standard_normal((6, 2, 1))
        factor.set_sites(root @ root.transpose(0, 2, 1), rng.standard_normal((6, 2)))
        factor.update()
        if kind == 1:
            gram = np.eye(6)
        else:
            at = factor.places if kind == 2 else factor.coordinates
            with torch.no_grad():
                gram = factor.kernel(torch.from_numpy(at)).to_dense().numpy()
        prior = np.kron(gram, np.eye(2)) + 1e-11 * np.eye(12)
        sites = np.zeros((12, 12))
        for j in range(6):
            sites[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = factor.precision[j]
        covariance = prior - prior @ sites @ np.linalg.solve(np.eye(12) + prior @ sites, prior)
        mean = covariance @ factor.information.reshape(-1)
        want = 0.5 * (
            np.trace(np.linalg.solve(prior, covariance))
            + mean @ np.linalg.solve(prior, mean)
            - 12
            + np.linalg.slogdet(prior)[1]
            - np.linalg.slogdet(covariance)[1]
        )
        np.testing.assert_allclose(factor.mean.reshape(-1), mean, atol=1e-7)
        assert factor.divergence() == pytest.approx(want, rel=1e-5)


def test_gamma_divergence():
    own = GammaPosterior(np.array([2.5]), np.array([1.3]), 0.7, 0.4)
    x = np.linspace(1e-6, 40.0, 400_001)
    p = stats.gamma.pdf(x, 2.5, scale=1 / 1.3)
    log_ratio = stats.gamma.logpdf(x, 2.5, scale=1 / 1.3) - stats.gamma.logpdf(x, 0.7, scale=1 / 0.4)
    assert own.divergence() == pytest.approx(np.trapezoid(p * log_ratio, x), rel=1e-6)
    assert own.mean_inverse[0] == pytest.approx(np.trapezoid(p / x, x), rel=1e-4)


def test_bernoulli_bound_is_below_and_touches():
    """Jaakkola and Jordan's bound against the expected log-likelihood by quadrature."""
    y = np.array([0.0, 1.0, 1.0])
    observation = observation_named("bernoulli", y)
    mean, variance = np.array([0.3, -1.2, 2.0]), np.array([0.5, 0.1, 1e-12])
    square = mean**2 + variance
    target, weight, expected = observation.sites(y, mean, square, y, np.ones(3))
    # The site is the quadratic bound: with its constant it has the value and touches where it was made.
    constant = expected + 0.5 * weight * (square - 2.0 * target * mean)
    other = np.array([1.0, 0.2, -0.5])
    quadratic = constant + weight * target * other - 0.5 * weight * other**2
    assert np.all(quadratic <= y * other - np.logaddexp(0.0, other) + 1e-9)
    nodes, quadrature = np.polynomial.hermite_e.hermegauss(60)
    f = mean[:, None] + np.sqrt(variance)[:, None] * nodes
    truth = ((y[:, None] * f - np.logaddexp(0.0, f)) @ quadrature / quadrature.sum()).sum()
    assert expected.sum() <= truth + 1e-9
    assert expected.sum() > truth - 0.05


def test_seed_decides_the_start():
    bounds = []
    for seed in (0, 0, 1):
        posterior, layout, _ = posterior_of("tucker", 3, seed=0)
        posterior.form.start(np.random.default_rng(seed))
        bounds.append(posterior.fit(layout, sweeps=3).elbo)
    np.testing.assert_array_equal(bounds[0], bounds[1])
    assert not np.array_equal(bounds[0], bounds[2])


@pytest.mark.parametrize(("name", "bad"), [("poisson", 1.5), ("negative-binomial", -1.0), ("bernoulli", 2.0)])
def test_counts_that_are_not_counts(name, bad):
    with pytest.raises(InvalidDataError, match=r"the value at \[1\] is"):
        observation_named(name, np.array([0.0, bad, 1.0]))
