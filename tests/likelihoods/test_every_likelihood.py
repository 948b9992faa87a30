"""What every likelihood must satisfy: densities, sites, moments and draws against sums and integrals."""

from __future__ import annotations

import math

import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Gaussian,
    NegativeBinomial,
    Poisson,
    StudentT,
    likelihood_named,
)

CASES = {
    "gaussian": lambda: Gaussian(0.6),
    "student-t": lambda: StudentT(0.7, 3.0),
    "poisson": lambda: Poisson(1.5),
    "bernoulli": lambda: Bernoulli(),
    "bernoulli, local": lambda: Bernoulli(bound="local"),
    "negative binomial": lambda: NegativeBinomial(2.5, 1.5),
    "negative binomial, local": lambda: NegativeBinomial(2.5, 1.5, bound="local"),
}
MEAN = torch.tensor([-1.3, 0.0, 0.4, 1.1], dtype=torch.float64)
VARIANCE = torch.tensor([0.3, 0.05, 1.2, 0.6], dtype=torch.float64)


def values(likelihood):
    """All data that matter, and the weight of each in a sum or integral over them."""
    if isinstance(likelihood, Bernoulli):
        return torch.tensor([0.0, 1.0]), 1.0
    if isinstance(likelihood, Gaussian | StudentT):
        # y = sinh(u): heavy tails need no fine grid.
        u = torch.linspace(-14.0, 14.0, 8001)
        return u.sinh(), u.cosh() * float(u[1] - u[0])
    return torch.arange(0.0, 1500.0), 1.0


def some_data(likelihood):
    if isinstance(likelihood, Bernoulli):
        return torch.tensor([0.0, 1.0, 1.0, 0.0])
    return torch.tensor([0.0, 2.0, 1.0, 5.0])


def normal_grid(mean, variance):
    """Nodes along a new first dimension and their weights under N(mean, variance)."""
    x = torch.linspace(-10.0, 10.0, 4001).reshape(-1, *([1] * mean.dim()))
    weight = torch.exp(-0.5 * x.square()) / math.sqrt(2.0 * math.pi) * float(x[1] - x[0])
    return mean + variance.sqrt() * x, weight


@pytest.mark.parametrize("name", CASES)
def test_densities_add_up_to_one(name):
    likelihood = CASES[name]()
    y, weight = values(likelihood)
    for f in (-1.0, 0.3, 1.7):
        total = (likelihood.log_density(y, torch.full_like(y, f)).exp() * weight).sum()
        torch.testing.assert_close(total, torch.tensor(1.0), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name):
    likelihood = CASES[name]()
    y = some_data(likelihood)
    f = MEAN.clone().requires_grad_()
    first = torch.autograd.grad(likelihood.log_density(y, f).sum(), f, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), f)[0]
    slope, curvature = likelihood.derivatives(y, MEAN)
    torch.testing.assert_close(slope, first.detach())
    torch.testing.assert_close(curvature, -second)
    assert likelihood.log_concave == ("student-t" not in name)
    wide = torch.linspace(-30.0, 30.0, 400)
    for value in y:
        assert bool((likelihood.derivatives(value, wide)[1] >= 0.0).all()) == likelihood.log_concave


@pytest.mark.parametrize("name", CASES)
def test_sites_have_the_derivatives_of_the_bound(name):
    likelihood = CASES[name]()
    y = some_data(likelihood)
    mean, variance = MEAN.clone().requires_grad_(), VARIANCE.clone().requires_grad_()
    site = likelihood.site(y, mean, variance)
    to_mean, to_variance = torch.autograd.grad(site.expected.sum(), (mean, variance))
    torch.testing.assert_close(site.precision.detach(), -2.0 * to_variance, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        site.information.detach(), to_mean + (site.precision * mean).detach(), rtol=1e-8, atol=1e-10
    )
    assert bool((site.precision >= 0.0).all())


@pytest.mark.parametrize("name", CASES)
def test_bounds_are_below_the_expectation(name):
    likelihood = CASES[name]()
    y = some_data(likelihood)
    f, weight = normal_grid(MEAN, VARIANCE)
    truth = (likelihood.log_density(y, f) * weight).sum(0)
    found = likelihood.site(y, MEAN, VARIANCE).expected
    if name == "student-t" or "local" in name:
        assert bool((found <= truth).all())
        assert bool((found > truth - 0.6 * VARIANCE).all())
        # Tight where q has no width.
        narrow = likelihood.site(y, MEAN, 0.0 * VARIANCE).expected
        torch.testing.assert_close(narrow, likelihood.log_density(y, MEAN), rtol=1e-9, atol=1e-12)
    else:
        torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_local_bounds_have_derivatives_at_zero(name):
    likelihood = CASES[name]()
    y = some_data(likelihood)
    mean, variance = torch.zeros(4, requires_grad=True), torch.full((4,), 1e-8, requires_grad=True)
    site = likelihood.site(y, mean, variance)
    to_mean, to_variance = torch.autograd.grad(site.expected.sum(), (mean, variance))
    torch.testing.assert_close(site.precision.detach(), -2.0 * to_variance, rtol=1e-6, atol=1e-9)
    assert torch.isfinite(to_mean).all()


@pytest.mark.parametrize("name", CASES)
def test_moments_of_new_data(name):
    likelihood = CASES[name]()
    mean, variance = 0.5 * MEAN, 0.3 * VARIANCE
    y, weight = values(likelihood)
    density = likelihood.log_predictive(y.unsqueeze(-1), mean.expand(len(y), 4), variance.expand(len(y), 4)).exp()
    density = density * (weight if isinstance(weight, float) else weight.unsqueeze(-1))
    torch.testing.assert_close(density.sum(0), torch.ones(4), rtol=1e-5, atol=0.0)
    first, second = likelihood.moments(mean, variance)
    torch.testing.assert_close((density * y.unsqueeze(-1)).sum(0), first.expand(4), rtol=1e-4, atol=1e-6)
    wanted = (density * (y.unsqueeze(-1) - first).square()).sum(0)
    # The tails of Student's distribution beyond the grid carry a little of its variance.
    torch.testing.assert_close(wanted, second.expand(4), rtol=2e-3 if "student-t" in name else 1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_predictive_densities(name):
    likelihood = CASES[name]()
    y = some_data(likelihood)
    f, weight = normal_grid(MEAN, VARIANCE)
    truth = (likelihood.log_density(y, f).exp() * weight).sum(0).log()
    torch.testing.assert_close(likelihood.log_predictive(y, MEAN, VARIANCE), truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_moments(name, generator):
    likelihood = CASES[name]() if "student-t" not in name else StudentT(0.7, 9.0)
    count = 40_000
    f = torch.full((count,), 0.3)
    draws = likelihood.check(likelihood.sample(f, generator))
    first, second = likelihood.moments(torch.tensor(0.3), torch.tensor(0.0))
    assert abs(draws.mean() - first) < 5.0 * (second / count).sqrt()
    assert abs(draws.var() / second - 1.0) < 0.08
    again = likelihood.sample(f, torch.Generator().manual_seed(3))
    assert torch.equal(again, likelihood.sample(f, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("truth", "start", "names"),
    [
        (Gaussian(0.3), Gaussian(2.0), ("variance",)),
        (StudentT(0.5, 3.0), StudentT(2.0, 20.0), ("scale", "df")),
        (NegativeBinomial(1.7), NegativeBinomial(20.0), ("size",)),
    ],
)
def test_learned_parameters(truth, start, names, generator):
    f = torch.randn(4_000, generator=generator)
    y = truth.sample(f, generator)
    still = torch.zeros_like(f)
    likelihood, bound = start, start.site(y, f, still).expected.sum()
    for _ in range(12):
        likelihood = likelihood.fitted(y, f, still)
        higher = likelihood.site(y, f, still).expected.sum()
        assert higher >= bound - 1e-9 * abs(bound)
        bound = higher
    for name in names:
        assert float(getattr(likelihood, name)) == pytest.approx(float(getattr(truth, name)), rel=0.15)
    for fixed in (Poisson(), Bernoulli(), Gaussian(torch.ones(3))):
        data = torch.ones(3)
        assert fixed.fitted(data, data, data) is fixed


def test_student_t_weights_fall_for_outliers():
    weights = StudentT(1.0, 4.0).weights(torch.tensor([0.0, 1.0, 10.0]), torch.zeros(3), torch.full((3,), 0.1))
    assert weights[0] > 1.0 > weights[1] > weights[2]
    assert weights[2] < 0.1


def test_limits():
    f, y = torch.tensor([0.3, -0.2]), torch.tensor([1.0, 4.0])
    torch.testing.assert_close(
        StudentT(0.8, 1e8).log_density(y, f), Gaussian(0.64).log_density(y, f), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        NegativeBinomial(1e9).log_density(y, f), Poisson().log_density(y, f), rtol=1e-5, atol=1e-5
    )
    assert torch.isinf(StudentT(1.0, 1.5).moments(f, y)[1]).all()
    assert torch.isfinite(Poisson().log_density(y, torch.tensor([800.0, -800.0]))).all()


def test_parameters_of_single_data_follow_them():
    order = torch.tensor([2, 0, 1])
    exposure = torch.tensor([1.0, 2.0, 3.0])
    assert Poisson(exposure).reordered(order).exposure.tolist() == [3.0, 1.0, 2.0]
    assert float(Poisson(2.0).reordered(order).exposure) == 2.0


def test_names():
    assert set(LIKELIHOODS) == {"gaussian", "student-t", "poisson", "bernoulli", "negative-binomial"}
    assert isinstance(likelihood_named("student-t"), StudentT)
    given = Poisson(2.0)
    assert likelihood_named(given) is given
    with pytest.raises(InvalidDataError, match="must be one of gaussian"):
        likelihood_named("normal")


def test_bad_values_are_refused():
    with pytest.raises(InvalidDataError, match="value at \\[1\\] is not"):
        Gaussian().check([1.0, float("nan")])
    with pytest.raises(InvalidDataError, match="non-negative integers, the value at \\[1\\] is 1.5"):
        Poisson().check([1.0, 1.5])
    with pytest.raises(InvalidDataError, match="the value at \\[0\\] is -1"):
        NegativeBinomial().check([-1.0])
    with pytest.raises(InvalidDataError, match="binary data are 0 or 1, the value at \\[0, 1\\] is 2"):
        Bernoulli().check([[0, 2]])
    assert Bernoulli().check([True, False]).tolist() == [1.0, 0.0]
    for build in (lambda: Gaussian(0.0), lambda: StudentT(-1.0), lambda: Poisson(float("inf"))):
        with pytest.raises(InvalidDataError, match="must be positive and finite"):
            build()
    with pytest.raises(InvalidDataError, match="one number each"):
        StudentT(torch.ones(3))
    with pytest.raises(InvalidDataError, match="'expectation' or 'local'"):
        Bernoulli(bound="tight")
