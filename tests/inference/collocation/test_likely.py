"""Points that stand for what an evidence leaves likely, and walls that a search for its maximum steps back from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact.averaging import MixturePosterior, likely_mixtures
from gpkit.inference.collocation.exact.lbfgs import learn
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.likely import likely_points
from gpkit.kernels.stationary import GaussianEnvelope

COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]])


def normal(at):
    precision = np.linalg.inv(COVARIANCE)
    return -0.5 * float(at @ precision @ at), -precision @ at


def skewed(at):
    """Exp(x - e^x / 2) has the moments of the logarithm of a chi-square of two degrees."""
    x = at[0]
    return float(x - 0.5 * np.exp(x)), np.array([1.0 - 0.5 * np.exp(x)])


def test_points_have_the_moments_of_a_normal_evidence_times_its_prior():
    widths = np.array([1.0, 2.0])
    found = likely_points(normal, np.zeros(2), widths, lambda at: at, 256)
    expected = np.linalg.inv(np.linalg.inv(COVARIANCE) + np.diag(widths**-2.0))
    assert found.shares.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found.shares @ found.points, 0.0, atol=0.02)
    np.testing.assert_allclose((found.points.T * found.shares) @ found.points, expected, rtol=0.05, atol=0.01)
    determinant = np.linalg.det(expected) / np.prod(widths**2)
    assert found.log_volume == pytest.approx(0.5 * np.log(determinant), abs=1e-6)


def test_weights_mend_what_is_not_normal():
    """The mean of a skewed evidence lies 0.58 below its maximum; its normal approximation has it there."""
    centre, widths = np.array([np.log(2.0)]), np.array([8.0])
    found = likely_points(skewed, centre, widths, lambda at: at, 1024)
    assert found.shares @ found.points[:, 0] == pytest.approx(np.log(2.0) - np.euler_gamma, abs=0.2)
    # The integral of 1/2 exp(x - e^x / 2) is one.
    top = skewed(centre)[0]
    volume = found.log_volume + top - np.log(2.0) + np.log(8.0 * np.sqrt(2.0 * np.pi))
    assert volume == pytest.approx(0.0, abs=0.1)


def test_parameters_without_a_width_stay_and_those_that_nothing_tells_have_their_prior():
    flat = likely_points(lambda at: (0.0, np.zeros(2)), np.ones(2), np.array([0.0, 3.0]), lambda at: at, 256)
    assert np.all(flat.points[:, 0] == 1.0) and flat.log_volume == pytest.approx(0.0)
    assert flat.shares @ (flat.points[:, 1] - 1.0) ** 2 == pytest.approx(9.0, rel=0.05)


def test_points_are_drawn_in_where_there_is_no_evidence():
    def walled(at):
        return None if at[0] > 0.4 else normal(at)

    found = likely_points(walled, np.zeros(2), np.array([5.0, 5.0]), lambda at: at, 32)
    assert len(found.points) > 25 and found.points[:, 0].max() <= 0.4
    alone = likely_points(lambda at: None, np.zeros(2), np.ones(2), lambda at: at, 32)
    assert alone.points.tolist() == [[0.0, 0.0]] and alone.shares.tolist() == [1.0]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def towards(goal, wall):
    """An evidence of one component that is largest at a length scale, and is refused below another."""

    def evidence(mixtures):
        (m,) = mixtures
        length, weight = float(m.lengthscales.log()), float(m.weights.log())
        if length < wall:
            raise NotPositiveDefiniteError("too many weights")
        off = length - goal + 0.5 * weight
        value = -20.0 * off**2 - 0.5 * (weight - 1.0) ** 2
        by_length, by_weight = -40.0 * off, -20.0 * off - (weight - 1.0)
        return value, [[by_weight / m.weights, by_length / m.lengthscales, torch.zeros(1)]]

    return evidence


def test_learning_steps_back_from_a_wall():
    """The way to the maximum leads along the wall; its first step goes beyond it."""
    start = [MixtureAxis(GaussianEnvelope(), tensor(3.0), tensor(0.2), tensor(0.0))]
    found = learn(towards(-2.2, np.log(0.06)), start, 1.0, 0.01, 60, 1e-9)
    assert found.after > -0.01
    (m,) = found.mixtures
    assert float(m.weights.log()) == pytest.approx(1.0, abs=0.1)


def test_mixtures_of_an_evidence_are_as_uncertain_as_it_leaves_them():
    found = [MixtureAxis(GaussianEnvelope(), tensor(np.e), tensor(np.exp(-1.5)), tensor(0.0))]
    likely = likely_mixtures(towards(-1.0, -5.0), found, [1.0], [0.01], 64)
    shares = np.array([share for share, _ in likely])
    logs = np.array([float(m[0].weights.log()) for _, m in likely])
    assert shares @ logs == pytest.approx(1.0, abs=0.1)
    # A variance of one by the evidence, beside a prior of nine.
    assert shares @ (logs - 1.0) ** 2 == pytest.approx(0.9, abs=0.15)


class Constant:
    """A posterior of one value with one deviation."""

    def __init__(self, value, deviation):
        self.value, self.deviation, self.diagnostics = value, deviation, {}

    def mean(self, jet, points):
        return torch.full((len(points),), self.value, dtype=torch.float64)

    def mean_on_grid(self, jet, axes):
        return torch.full([len(x) for x in axes], self.value, dtype=torch.float64)

    def variance(self, jet, points):
        return torch.full((len(points),), self.deviation**2, dtype=torch.float64)

    row_variance = None

    def sample(self, n, generator):
        draws = self.value + self.deviation * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        return lambda jet, points: draws.expand(n, len(points))


@pytest.mark.parametrize("centred", [False, True])
def test_a_mixture_has_the_moments_of_its_parts(centred, generator):
    parts, shares, jet = [Constant(1.0, 0.5), Constant(3.0, 1.0)], [0.75, 0.25], Jet(0, (0,))
    mixture = MixturePosterior(parts, shares, parts[0] if centred else None)
    points, centre = torch.zeros(3, 1, dtype=torch.float64), 1.0 if centred else 1.5
    second = 0.75 * (0.25 + (1.0 - centre) ** 2) + 0.25 * (1.0 + (3.0 - centre) ** 2)
    assert mixture.mean(jet, points).tolist() == [centre] * 3
    assert mixture.mean_on_grid(jet, [points[:, 0]]).tolist() == [centre] * 3
    assert mixture.variance(jet, points).tolist() == pytest.approx([second] * 3)
    draws = mixture.sample(20_000, generator)(jet, points)
    assert draws.shape == (20_000, 3)
    assert float(draws.mean()) == pytest.approx(1.5, abs=0.03)
    assert float((draws - centre).pow(2).mean()) == pytest.approx(second, rel=0.05)
