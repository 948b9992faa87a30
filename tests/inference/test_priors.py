"""Densities of priors against torch's own, and Jacobians against finite differences."""

from __future__ import annotations

import math

import gpytorch.priors as gp
import numpy as np
import pytest
import torch
from torch import distributions as td

from gpkit.errors import InvalidDataError
from gpkit.inference.bijections import Bijection
from gpkit.inference.expressions import Expression, record
from gpkit.inference.priors import UnsupportedPriorError, log_density, register, support

PRIORS = {
    "NormalPrior": lambda: gp.NormalPrior(0.3, 1.7),
    "HalfNormalPrior": lambda: gp.HalfNormalPrior(1.7),
    "LogNormalPrior": lambda: gp.LogNormalPrior(0.3, 1.7),
    "UniformPrior": lambda: gp.UniformPrior(-1.0, 2.5),
    "HalfCauchyPrior": lambda: gp.HalfCauchyPrior(2.5),
    "GammaPrior": lambda: gp.GammaPrior(2.5, 0.7),
    "SmoothedBoxPrior": lambda: gp.SmoothedBoxPrior(-0.5, 0.4, 0.3),
    "HorseshoePrior": lambda: gp.HorseshoePrior(0.6),
    "Normal": lambda: td.Normal(-0.4, 0.2),
    "HalfNormal": lambda: td.HalfNormal(0.2),
    "LogNormal": lambda: td.LogNormal(-0.4, 0.2),
    "Gamma": lambda: td.Gamma(0.7, 3.0),
    "Chi2": lambda: td.Chi2(3.0),
    "InverseGamma": lambda: td.InverseGamma(torch.tensor(2.0), torch.tensor(3.0)),
    "Exponential": lambda: td.Exponential(3.0),
    "Cauchy": lambda: td.Cauchy(0.2, 3.0),
    "HalfCauchy": lambda: td.HalfCauchy(3.0),
    "StudentT": lambda: td.StudentT(4.0, 0.2, 3.0),
    "Laplace": lambda: td.Laplace(0.2, 3.0),
    "Beta": lambda: td.Beta(2.0, 3.5),
    "Weibull": lambda: td.Weibull(torch.tensor(2.0), torch.tensor(1.3)),
    "Uniform": lambda: td.Uniform(0.2, 3.0),
}


@pytest.mark.parametrize("name", PRIORS)
def test_density_and_gradient_are_torchs(name, rng):
    prior = PRIORS[name]()
    (z,) = Expression.inputs(1)
    bijection = Bijection(*support(prior))
    points = rng.uniform(-2.0, 2.0, (30, 1))
    x, _ = record([bijection.forward(z)], 1).forward(points)
    values, gradient = record([log_density(prior, z)], 1).evaluate(x, np.ones((30, 1)))
    natural = torch.tensor(x, requires_grad=True)
    expected = prior.log_prob(natural).reshape(-1)
    np.testing.assert_allclose(values[:, 0], expected.detach(), rtol=1e-12, atol=1e-12)
    if expected.requires_grad:
        (slope,) = torch.autograd.grad(expected.sum(), natural)
        np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-12)
    else:
        assert not gradient.any()


@pytest.mark.parametrize("name", sorted(set(PRIORS) - {"HorseshoePrior"}))
def test_densities_integrate_to_one_over_the_unconstrained_line(name):
    """Prior and Jacobian together; quadrature on z also proves that the map covers the support."""
    prior = PRIORS[name]()
    (z,) = Expression.inputs(1)
    bijection = Bijection(*support(prior))
    log = log_density(prior, bijection.forward(z)) + bijection.log_jacobian(z)
    heavy = bijection.kind == "real"
    # z = sinh(s) reaches far into the tails of densities on the whole line.
    s = np.linspace(-12.0, 12.0, 40001) if heavy else np.linspace(-35.0, 35.0, 40001)
    grid, weight = (np.sinh(s), np.cosh(s)) if heavy else (s, 1.0)
    values = record([log], 1).forward(grid[:, None])[0][:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        density = np.where(np.isfinite(values), np.exp(values), 0.0) * weight
    assert np.trapezoid(density, s) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize(("lower", "upper"), [(-math.inf, math.inf), (2.0, math.inf), (-math.inf, 2.0), (-1.0, 3.0)])
def test_bijections(lower, upper, rng):
    bijection = Bijection(lower, upper)
    (z,) = Expression.inputs(1)
    tape = record([bijection.forward(z), bijection.log_jacobian(z)], 1)
    points = np.concatenate([rng.uniform(-3.0, 3.0, (20, 1)), [[-30.0], [30.0]]])
    (values, registers), step = tape.forward(points), 1e-6
    x, log_jacobian = values.T
    assert np.all((x >= lower) & (x <= upper))
    np.testing.assert_allclose(bijection.inverse(x[:-2]), points[:-2, 0], rtol=1e-9, atol=1e-12)
    numeric = (tape.forward(points + step)[0] - tape.forward(points - step)[0])[:-2, 0] / (2.0 * step)
    np.testing.assert_allclose(np.exp(log_jacobian[:-2]), np.abs(numeric), rtol=1e-7)
    slope = tape.reverse(registers, np.tile([0.0, 1.0], (22, 1)))[:-2, 0]
    numeric = (tape.forward(points + step)[0] - tape.forward(points - step)[0])[:-2, 1] / (2.0 * step)
    np.testing.assert_allclose(slope, numeric, atol=1e-7)


def test_values_outside_an_interval_are_refused():
    with pytest.raises(InvalidDataError, match=r"quality must be in \(0\.0, inf\), got -1"):
        Bijection(0.0).inverse(-1.0, "quality")
    with pytest.raises(InvalidDataError, match="empty"):
        Bijection(1.0, 1.0)


class OwnDensity(gp.NormalPrior):
    def log_prob(self, x):
        return super().log_prob(x) - x**4


class SameDensity(gp.NormalPrior):
    pass


def test_an_unknown_prior_is_named():
    (z,) = Expression.inputs(1)
    with pytest.raises(UnsupportedPriorError, match=r"Gumbel .*method='pyro'"):
        log_density(td.Gumbel(0.0, 1.0), z)
    with pytest.raises(UnsupportedPriorError, match="OwnDensity has a density of its own"):
        log_density(OwnDensity(0.0, 1.0), z)
    with pytest.raises(UnsupportedPriorError, match="NormalPrior with a transform"):
        log_density(gp.NormalPrior(0.0, 1.0, transform=torch.exp), z)
    with pytest.raises(UnsupportedPriorError, match="3 values of loc"):
        log_density(gp.NormalPrior(torch.zeros(3), torch.ones(3)), z)
    with pytest.raises(UnsupportedPriorError, match="not a prior of one real number"):
        support(gp.MultivariateNormalPrior(torch.zeros(2), torch.eye(2)))
    assert issubclass(UnsupportedPriorError, TypeError)


def test_a_subclass_with_the_same_density_is_accepted():
    (z,) = Expression.inputs(1)
    values, _ = record([log_density(SameDensity(0.5, 2.0), z)], 1).forward([[1.0]])
    assert values[0, 0] == pytest.approx(float(td.Normal(0.5, 2.0).log_prob(torch.tensor(1.0))))


def test_a_new_prior_can_be_registered():
    class Logistic(td.Normal):
        def log_prob(self, x):
            return -x - 2.0 * torch.nn.functional.softplus(-x)

    from gpkit.inference.expressions import ops

    @register(Logistic)
    def logistic(prior, x):
        return -x - 2.0 * ops.softplus(-x)

    (z,) = Expression.inputs(1)
    values, _ = record([log_density(Logistic(0.0, 1.0), z)], 1).forward([[1.0]])
    assert values[0, 0] == pytest.approx(float(Logistic(0.0, 1.0).log_prob(torch.tensor(1.0))))


def test_no_prior_is_flat():
    (z,) = Expression.inputs(1)
    assert float(log_density(None, z)) == 0.0
    assert support(None) == (-math.inf, math.inf)
