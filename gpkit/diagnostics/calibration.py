"""Are predictive distributions as wide as they should be?

References:
    Gneiting, T. and Raftery, A. E., Journal of the American Statistical Association 102, 359 (2007), CRPS.
    Talts, S., Betancourt, M., Simpson, D., Vehtari, A. and Gelman, A., arXiv:1804.06788 (2018), simulation-based
    calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpkit.diagnostics.arrays import FloatArray, IntArray, as_vector, same_length
from gpkit.errors import InvalidDataError

PROBABILITIES = (0.5, 0.8, 0.9, 0.95)
"""Central intervals whose coverage is counted by default."""


@dataclass(frozen=True)
class Coverage:
    """How often a central interval held the value.

    Attributes:
        probability: What it should have been.
        observed: Fraction of the points inside.
        low: Lower end of the range in which 95 % of perfectly calibrated models would fall by chance.
        high: Upper end of that range.
        n: Number of points.
    """

    probability: float
    observed: float
    low: float
    high: float
    n: int

    @property
    def within_chance(self) -> bool:
        """Whether the observed fraction is inside the range."""
        return self.low <= self.observed <= self.high


@dataclass(frozen=True)
class RankHistogram:
    """Histogram of ranks or PIT values, flat if calibrated.

    Attributes:
        edges: Edges of the bins, ``bins + 1``.
        counts: Number in each bin, ``bins``.
        expected: Number expected in each bin.
        low: Lower end of the pointwise 95 % range of a count under uniformity.
        high: Upper end of that range.
        p_value: Chi-squared test of uniformity.
    """

    edges: FloatArray
    counts: IntArray
    expected: float
    low: float
    high: float
    p_value: float


def pit(value: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> FloatArray:
    """Probability integral transform of Gaussian predictions, ``n``: uniform on (0, 1) if they are calibrated."""
    from scipy.special import ndtr

    return np.asarray(ndtr(_standardised(value, mean, sd)), dtype=np.float64)


def coverage(pit_values: npt.ArrayLike, probabilities: Sequence[float] = PROBABILITIES) -> list[Coverage]:
    """Coverage of central intervals.

    Args:
        pit_values: PIT values, ``n``; NaN are left out. Points are taken as independent, which leave-one-out values of
            a correlated series are only nearly: the ranges are then somewhat narrow.
        probabilities: Probabilities of the intervals.

    Returns:
        One entry per probability; NaN if there is no point.
    """
    from scipy.stats import binom

    u = as_vector(pit_values, "pit_values")
    u = u[np.isfinite(u)]
    n = len(u)
    entries = []
    for p in probabilities:
        if n == 0:
            entries.append(Coverage(p, float("nan"), float("nan"), float("nan"), 0))
            continue
        inside = float(np.mean(np.abs(u - 0.5) <= p / 2))
        low, high = binom.ppf([0.025, 0.975], n, p) / n
        entries.append(Coverage(p, inside, float(low), float(high), n))
    return entries


def crps_gaussian(value: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> FloatArray:
    """Continuous ranked probability score of Gaussian predictions, ``n``, in the units of the value; small is good."""
    from scipy.special import ndtr

    z = _standardised(value, mean, sd)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    score = as_vector(sd, "sd") * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.asarray(score, dtype=np.float64)


def sbc_ranks(truth: npt.ArrayLike, draws: npt.ArrayLike) -> IntArray:
    """Ranks of true values among posterior draws: simulation-based calibration.

    Args:
        truth: True values that the data were simulated from, ``s``.
        draws: Posterior draws, ``s l``, thinned so that they are nearly independent.

    Returns:
        Number of draws below each true value, ``s``, from 0 to l.
    """
    values, samples = as_vector(truth, "truth"), np.asarray(draws, dtype=np.float64)
    if samples.ndim != 2 or len(samples) != len(values):
        raise InvalidDataError(f"draws must have shape ({len(values)}, l), not {samples.shape}")
    return np.asarray((samples < values[:, None]).sum(axis=1), dtype=np.int64)


def rank_histogram(ranks: npt.ArrayLike, n_draws: int, bins: int | None = None) -> RankHistogram:
    """Histogram of ranks with the range expected of a calibrated sampler.

    Args:
        ranks: Ranks from 0 to `n_draws`, ``s``.
        n_draws: Number of draws, l.
        bins: Number of bins; must divide ``l + 1``; None: the largest such number with at least 5 expected per bin.
    """
    values = as_vector(ranks, "ranks")
    n_ranks = n_draws + 1
    if len(values) and (values.min() < 0 or values.max() > n_draws):
        raise InvalidDataError(f"ranks must lie between 0 and {n_draws}")
    if bins is None:
        fitting = [b for b in range(1, n_ranks + 1) if n_ranks % b == 0 and len(values) / b >= 5]
        bins = max(fitting, default=1)
    if n_ranks % bins:
        raise InvalidDataError(f"{bins} bins do not divide the {n_ranks} possible ranks evenly")
    return _histogram(values + 0.5, np.linspace(0, n_ranks, bins + 1))


def pit_histogram(pit_values: npt.ArrayLike, bins: int = 10) -> RankHistogram:
    """Histogram of PIT values with the range expected of calibrated predictions."""
    u = as_vector(pit_values, "pit_values")
    return _histogram(u[np.isfinite(u)], np.linspace(0, 1, bins + 1))


def _histogram(values: FloatArray, edges: FloatArray) -> RankHistogram:
    from scipy.special import chdtrc
    from scipy.stats import binom

    n, bins = len(values), len(edges) - 1
    counts = np.histogram(values, edges)[0].astype(np.int64)
    expected = n / bins
    low, high = binom.ppf([0.025, 0.975], n, 1 / bins) if n else (0.0, 0.0)
    testable = bins > 1 and n > 0
    p_value = float(chdtrc(bins - 1, ((counts - expected) ** 2 / expected).sum())) if testable else float("nan")
    return RankHistogram(edges, counts, expected, float(low), float(high), p_value)


def _standardised(value: npt.ArrayLike, mean: npt.ArrayLike, sd: npt.ArrayLike) -> FloatArray:
    y, mu, sigma = as_vector(value, "value"), as_vector(mean, "mean"), as_vector(sd, "sd")
    same_length(value=y, mean=mu, sd=sigma)
    return (y - mu) / sigma
