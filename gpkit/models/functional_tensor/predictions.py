"""Predictive distributions of tensor entries: mixtures of location-scale laws, and of laws of counts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from scipy import special, stats

from gpkit.checks import positive_integer
from gpkit.errors import InvalidDataError

__all__ = ["DiscretePrediction", "TensorPrediction"]

Array = NDArray[np.float64]
_NODES = 24
_FAR = 30.0
_ABOVE = 2.0
_STEPS = 100


class _Predictive(ABC):
    """What the predictive distributions of M entries answer."""

    @property
    @abstractmethod
    def mean(self) -> Array:
        """Mean (M,)."""

    @property
    @abstractmethod
    def variance(self) -> Array:
        """Variance (M,) of y: coefficients, functions, noise and their products."""

    @abstractmethod
    def cdf(self, y: npt.ArrayLike) -> Array:
        """Distribution function at values (M,)."""

    @abstractmethod
    def log_density(self, y: npt.ArrayLike) -> Array:
        """Logarithm of the density, or of the probability of counts, at values (M,)."""

    @abstractmethod
    def quantile(self, probability: float) -> Array:
        """Quantile (M,) of y."""

    @abstractmethod
    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Draws (n, M) of y."""

    @property
    def sd(self) -> Array:
        """Standard deviation (M,)."""
        return np.sqrt(self.variance)

    def interval(self, probability: float = 0.95) -> tuple[Array, Array]:
        """Central interval (low, high) of y, each (M,)."""
        tail = 0.5 * (1.0 - _checked(probability))
        return self.quantile(tail), self.quantile(1.0 - tail)

    def to_dict(self) -> dict[str, Array]:
        """Columns mean, sd, and the central 90 % interval, for tables."""
        low, high = self.interval(0.9)
        return {"mean": self.mean, "sd": self.sd, "low_90": low, "high_90": high}


def _checked(probability: float) -> float:
    if not 0.0 < probability < 1.0:
        raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
    return probability


@dataclass(frozen=True, eq=False)
class TensorPrediction(_Predictive):
    """A mixture of S normal or Student-t laws at each of M entries.

    Attributes:
        location: (S, M).
        scale: (S, M); the standard deviation of a normal law.
        degrees: of freedom of every law, or of those of each entry (M,); infinite for normal ones.
        function_variance: posterior variance (M,) of the noise-free value.
        weights: of the laws, (S,), summing to one; equal if not given.
    """

    location: Array
    scale: Array
    degrees: float | Array
    function_variance: Array
    _draw: Callable[[int, int], Array] | None = field(default=None, repr=False)
    weights: Array | None = None

    @property
    def _shares(self) -> Array:
        return np.full(len(self.location), 1.0 / len(self.location)) if self.weights is None else self.weights

    @property
    def _normal(self) -> bool:
        return not np.all(np.isfinite(self.degrees))

    @property
    def mean(self) -> Array:
        """Mean (M,)."""
        return self._shares @ self.location

    @property
    def variance(self) -> Array:
        """Variance (M,) of y; infinite for two degrees of freedom or fewer."""
        factor: float | Array = 1.0
        if not self._normal:
            beyond = np.asarray(self.degrees) - 2.0
            factor = np.where(beyond > 0.0, self.degrees / np.where(beyond > 0.0, beyond, 1.0), np.inf)
        return self._shares @ (factor * self.scale**2 + (self.location - self.mean) ** 2)

    def _some(self, entries: NDArray[np.intp]) -> TensorPrediction:
        """The same laws of some of the entries."""
        degrees = self.degrees if np.ndim(self.degrees) == 0 else np.asarray(self.degrees)[entries]
        location, scale = self.location[:, entries], self.scale[:, entries]
        return TensorPrediction(location, scale, degrees, self.function_variance[entries], None, self.weights)

    def _standard_cdf(self, z: Array) -> Array:
        out: Array = special.ndtr(z) if self._normal else special.stdtr(self.degrees, z)
        return out

    def cdf(self, y: npt.ArrayLike) -> Array:
        """Distribution function at values (M,)."""
        return self._shares @ self._standard_cdf((np.asarray(y) - self.location) / self.scale)

    def log_density(self, y: npt.ArrayLike) -> Array:
        """Logarithm of the density at values (M,)."""
        z = (np.asarray(y) - self.location) / self.scale
        each = stats.norm.logpdf(z) if self._normal else stats.t.logpdf(z, self.degrees)
        out: Array = special.logsumexp(each - np.log(self.scale), axis=0, b=self._shares[:, None])
        return out

    def quantile(self, probability: float) -> Array:
        """Quantile (M,): exact for one law, else by safeguarded Newton steps to 1e-10 of the narrowest."""
        p = _checked(probability)
        standard = special.ndtri(p) if self._normal else special.stdtrit(self.degrees, p)
        each = self.location + standard * self.scale
        if len(each) == 1:
            return each[0]
        low, high, at = each.min(0), each.max(0), self._shares @ each
        width = 1e-10 * self.scale.min(0) + 1e-15 * np.abs(each).max(0)
        left, last = np.arange(len(at)), high - low
        for _ in range(_STEPS):
            here, own = at[left], self._some(left)
            gap = own.cdf(here) - p
            below, above = np.where(gap < 0.0, here, low[left]), np.where(gap > 0.0, here, high[left])
            with np.errstate(over="ignore", invalid="ignore"):  # between laws that are far apart there is no density
                step = here - gap * np.exp(-own.log_density(here))
            settled = (np.abs(step - here) <= width[left]) | (above - below <= width[left])
            shrinks = (step > below) & (step < above) & (2.0 * np.abs(step - here) < last[left])
            at[left] = np.where(settled, here, np.where(shrinks, step, 0.5 * (below + above)))
            low[left], high[left], last[left] = below, above, np.abs(at[left] - here)
            left = left[~settled]
            if not left.size:
                break
        return at

    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Draws (n, M) of y: joint over entries where the functions are drawn, else independent between entries."""
        n, seed = positive_integer(n, "the number of draws"), positive_integer(seed, "seed", 0)
        if self._draw is not None:
            return self._draw(n, seed)
        rng = np.random.default_rng(seed)
        count, entries = self.location.shape
        which = rng.choice(count, size=(n, 1), p=self._shares)
        at = np.arange(entries)
        white = rng.standard_normal((n, entries)) if self._normal else rng.standard_t(self.degrees, (n, entries))
        return self.location[which, at] + self.scale[which, at] * white

    def __repr__(self) -> str:
        law = "normal" if self._normal else f"Student-t ({np.min(self.degrees):.3g} degrees)"
        return f"TensorPrediction({self.location.shape[1]} entries, {len(self.location)} x {law})"


@dataclass(frozen=True, eq=False)
class DiscretePrediction(_Predictive):
    """Counts or zeros and ones whose linear predictor is a mixture of S normal laws, by Gauss-Hermite nodes.

    Attributes:
        location: mean of the linear predictor, (S, M).
        spread: its standard deviation, (S, M).
        family: "poisson", "bernoulli" or "negative-binomial".
        dispersion: of the negative binomial, whose variance is ``mean + mean^2 / dispersion``.
        weights: of the laws, (S,), summing to one; equal if not given.
        largest: count that was seen. Rates above twice as many count as that: they are exponentials of
            extrapolations, and one such law would be the whole mean of a mixture.
    """

    location: Array
    spread: Array
    family: str
    dispersion: float = 1.0
    weights: Array | None = None
    largest: float = math.inf

    @property
    def _ceiling(self) -> float:
        """Of the linear predictor."""
        return _FAR if self.family == "bernoulli" else min(math.log(_ABOVE * (self.largest + 1.0)), _FAR)

    @property
    def _shares(self) -> Array:
        return np.full(len(self.location), 1.0 / len(self.location)) if self.weights is None else self.weights

    def _nodes(self) -> tuple[Array, Array]:
        """Linear predictors (S Q, M) and weights (S Q, 1)."""
        x, w = np.polynomial.hermite_e.hermegauss(_NODES)
        f = self.location[:, None] + self.spread[:, None] * x[:, None]
        weight = (self._shares[:, None] * (w / w.sum())).reshape(-1, 1)
        return np.clip(f.reshape(-1, f.shape[-1]), -_FAR, self._ceiling), weight

    def _law(self, f: Array) -> Any:
        if self.family == "poisson":
            return stats.poisson(np.exp(f))
        if self.family == "bernoulli":
            return stats.bernoulli(special.expit(f))
        return stats.nbinom(self.dispersion, 1.0 / (1.0 + np.exp(f) / self.dispersion))

    @property
    def mean(self) -> Array:
        """Mean (M,): expected count, or probability of a one."""
        f, w = self._nodes()
        return (w * self._law(f).mean()).sum(0)

    @property
    def variance(self) -> Array:
        """Variance (M,) of y."""
        f, w = self._nodes()
        law = self._law(f)
        mean = law.mean()
        total = (w * mean).sum(0)
        return (w * (law.var() + mean**2)).sum(0) - total**2

    def cdf(self, y: npt.ArrayLike) -> Array:
        """Probability of at most y."""
        f, w = self._nodes()
        return (w * self._law(f).cdf(np.asarray(y))).sum(0)

    def log_density(self, y: npt.ArrayLike) -> Array:
        """Logarithm of the probability of y."""
        f, w = self._nodes()
        out: Array = special.logsumexp(self._law(f).logpmf(np.asarray(y)) + np.log(w), axis=0)
        return out

    def quantile(self, probability: float) -> Array:
        """Smallest count whose probability of not being exceeded reaches ``probability``."""
        p = _checked(probability)
        high = np.ones(self.location.shape[1])
        while np.any(short := self.cdf(high) < p):
            high = np.where(short, 2.0 * high + 1.0, high)
        low = np.full_like(high, -1.0)
        while np.any(high - low > 1.0):
            middle = np.floor(0.5 * (low + high))
            below = self.cdf(middle) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high

    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Draws (n, M) of y, independent between entries."""
        n, seed = positive_integer(n, "the number of draws"), positive_integer(seed, "seed", 0)
        rng = np.random.default_rng(seed)
        which = rng.choice(len(self.location), size=(n, 1), p=self._shares)
        at = np.arange(self.location.shape[1])
        f = self.location[which, at] + self.spread[which, at] * rng.standard_normal((n, len(at)))
        drawn: Array = np.asarray(self._law(np.clip(f, -_FAR, self._ceiling)).rvs(random_state=rng), dtype=np.float64)
        return drawn
