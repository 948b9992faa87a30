"""Coordinates of unknown numbers: inverses, slopes and densities against those of torch, far out too."""

from __future__ import annotations

import math

import gpytorch
import numpy as np
import pytest
import torch
from torch import distributions

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.inverse.coordinates import coordinate_of

PRIORS = {
    "normal": distributions.Normal(torch.tensor(1.0).double(), torch.tensor(2.0).double()),
    "lognormal": distributions.LogNormal(torch.tensor(-1.0).double(), torch.tensor(0.5).double()),
    "halfnormal": distributions.HalfNormal(torch.tensor(0.7).double()),
    "halfcauchy": distributions.HalfCauchy(torch.tensor(0.7).double()),
    "exponential": distributions.Exponential(torch.tensor(3.0).double()),
    "uniform": distributions.Uniform(torch.tensor(-1.0).double(), torch.tensor(2.5).double()),
    "gamma": distributions.Gamma(torch.tensor(2.0).double(), torch.tensor(4.0).double()),
    "gpytorch": gpytorch.priors.LogNormalPrior(0.3, 0.5),
}


@pytest.mark.parametrize("name", PRIORS)
def test_coordinates_carry_the_density_of_their_prior(name: str) -> None:
    prior, own = PRIORS[name], coordinate_of(PRIORS[name])
    for z in (-2.5, -0.4, 0.1, 1.3, 2.2):
        x = float(own.number(np.array(z)))
        assert own.inverse(x) == pytest.approx(z, abs=1e-7)
        step = 1e-5
        ends = own.number(np.array([z - step, z + step]))
        assert own.slope(z) == pytest.approx(float(ends[1] - ends[0]) / (2 * step), rel=1e-6)
        value, first, second = own.prior(z, curved=True)
        density = -float(prior.log_prob(torch.tensor(x, dtype=torch.float64))) - math.log(own.slope(z))
        assert value == pytest.approx(density, abs=1e-6)
        low, high = own.prior(z - step, curved=True), own.prior(z + step, curved=True)
        assert first == pytest.approx((high[0] - low[0]) / (2 * step), rel=1e-5, abs=1e-6)
        assert second == pytest.approx((high[1] - low[1]) / (2 * step), rel=1e-5, abs=1e-6)
        assert own.prior(z, curved=False)[:2] == (value, first)


@pytest.mark.parametrize("name", ["halfnormal", "halfcauchy", "exponential", "uniform"])
def test_numbers_far_out_stay_in_their_support(name: str) -> None:
    prior, own = PRIORS[name], coordinate_of(PRIORS[name])
    z = np.array([-12.0, -8.0, -6.0, 6.0, 8.0, 12.0])
    x = own.number(z)
    assert np.isfinite(x).all() and (np.diff(x) >= 0.0).all()
    assert bool(prior.support.check(torch.from_numpy(np.clip(x, None, 2.5 - 1e-12) if name == "uniform" else x)).all())
    assert all(math.isfinite(own.slope(float(t))) for t in z)
    if name == "halfnormal":  # twelve standard deviations out, where probabilities round to one
        assert math.log(0.5 * math.erfc(12.0 / math.sqrt(2))) == pytest.approx(
            math.log(math.erfc(x[-1] / float(prior.scale) / math.sqrt(2))), rel=1e-9
        )


def test_no_prior_and_no_distribution() -> None:
    own = coordinate_of(None)
    assert own.number(np.array(3.0)) == 3.0 and own.prior(3.0, curved=True) == (0.0, 0.0, 0.0)
    with pytest.raises(InvalidDataError, match="float is not a prior"):
        coordinate_of(3.0)
    with pytest.raises(InvalidDataError, match="not one of a real number in an interval"):
        coordinate_of(distributions.Poisson(torch.tensor(3.0)))
