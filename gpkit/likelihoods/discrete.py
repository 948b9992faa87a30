"""Counts and binary data, with a logarithmic or logistic link."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy import optimize
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from gpkit.errors import InvalidDataError
from gpkit.likelihoods.base import Likelihood, Site, checked_counts, expectation, positive

__all__ = ["Bernoulli", "NegativeBinomial", "Poisson"]

_LARGEST = 700.0


def _exp(x: Tensor) -> Tensor:
    """The exponential function, kept finite."""
    return x.clamp_max(_LARGEST).exp()


class Poisson(Likelihood):
    """Counts ``y ~ Poisson(exposure * exp(f))``; expectations are exact.

    Args:
        exposure: what the rate is multiplied by (time, area); one value, or one for each datum.
    """

    def __init__(self, exposure: Any = 1.0) -> None:
        self.exposure = positive(exposure, "the exposure")

    def check(self, y: Any) -> Tensor:
        """Counts; see the base class."""
        return checked_counts(y)

    def log_density(self, y: Tensor, f: Tensor) -> Tensor:
        """Log-probability; see the base class."""
        return y * (f + self.exposure.log()) - self.exposure * _exp(f) - torch.lgamma(y + 1.0)

    def site(self, y: Tensor, mean: Tensor, variance: Tensor) -> Site:
        """Site of the exact expectation; see the base class."""
        rate = self.exposure * _exp(mean + 0.5 * variance)
        expected = y * (mean + self.exposure.log()) - rate - torch.lgamma(y + 1.0)
        return Site(rate, y - rate + rate * mean, expected)

    def derivatives(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives in f; see the base class."""
        rate = self.exposure * _exp(f)
        return y - rate, rate

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of a new count: those of a log-normal rate, plus Poisson noise."""
        rate = self.exposure * _exp(mean + 0.5 * variance)
        return rate, rate + rate.square() * torch.expm1(variance)

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """Draws; see the base class."""
        return torch.poisson((self.exposure * _exp(f)).expand(f.shape), generator=generator)


def _local_logistic_site(count: Tensor, successes: Tensor, mean: Tensor, variance: Tensor) -> Site:
    """Site of ``successes * g - count * log(1 + e^g)``, g ~ N(mean, variance), from its Polya-Gamma lower bound.

    The bound, Jaakkola and Jordan's, is tight at ``c^2 = E g^2``.
    """
    square = mean.square() + variance
    small = square < 1e-3
    # Even functions of c: series near zero, where the square root has no derivative.
    c = torch.where(small, 1.0, square).sqrt()
    slope = torch.where(small, 0.25 - square / 48.0 + square.square() / 480.0, torch.tanh(0.5 * c) / (2.0 * c))
    series = math.log(2.0) + square / 8.0 - square.square() / 192.0 + square**3 / 2880.0
    log_cosh = torch.where(small, series, 0.5 * c - logsigmoid(c))
    excess = successes - 0.5 * count
    return Site(count * slope, excess, excess * mean - count * log_cosh)


class _Logistic(Likelihood):
    """Likelihoods ``successes * g - count * log(1 + e^g)`` of a shifted function.

    Args:
        bound: "expectation", E log p(y | f), by quadrature; or "local", the Polya-Gamma bound of it: quicker, monotone
            without damping, and over-confident.
    """

    def __init__(self, bound: str) -> None:
        if bound not in ("expectation", "local"):
            raise InvalidDataError(f"bound must be 'expectation' or 'local', got {bound!r}")
        self.bound = bound

    @property
    def monotone(self) -> bool:  # type: ignore[override]  # of its bound, where others have a constant
        """Full steps to sites of the local bound never lower it."""
        return self.bound == "local"


class Bernoulli(_Logistic):
    """Binary data, ``P(y = 1) = 1 / (1 + exp(-f))``.

    Args:
        bound: "expectation", E log p(y | f) itself, by quadrature; or "local", the Polya-Gamma bound of it: quicker,
            monotone without damping, a little over-confident.

    References:
        Jaakkola & Jordan (2000), Statistics and Computing 10, 25; Polson, Scott & Windle (2013), JASA 108, 1339.
    """

    def __init__(self, bound: str = "expectation") -> None:
        super().__init__(bound)

    def check(self, y: Any) -> Tensor:
        """Zeros and ones, or booleans; see the base class."""
        tensor = checked_counts(y)
        bad = tensor > 1.0
        if bool(bad.any()):
            where = bad.nonzero()[0].tolist()
            raise InvalidDataError(f"binary data are 0 or 1, the value at {where} is {float(tensor[tuple(where)]):g}")
        return tensor

    def log_density(self, y: Tensor, f: Tensor) -> Tensor:
        """Log-probability; see the base class."""
        return logsigmoid((2.0 * y - 1.0) * f)

    def site(self, y: Tensor, mean: Tensor, variance: Tensor) -> Site:
        """Site; see the base class."""
        if self.bound == "local":
            return _local_logistic_site(torch.ones_like(mean), y, mean, variance)
        return super().site(y, mean, variance)

    def derivatives(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives in f; see the base class."""
        p = torch.sigmoid(f)
        return y - p, p * torch.sigmoid(-f)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of a new one, and its variance p (1 - p)."""
        p = expectation(torch.sigmoid, mean, variance)
        return p, p * (1.0 - p)

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """Draws; see the base class."""
        return torch.bernoulli(torch.sigmoid(f), generator=generator)


class NegativeBinomial(_Logistic):
    """Over-dispersed counts with mean ``m = exposure * exp(f)`` and variance ``m + m^2 / size``.

    Args:
        size: the number of failures r; small for strong over-dispersion, infinite for Poisson noise.
        exposure: what the rate is multiplied by; one value, or one for each datum.
        bound: see :class:`Bernoulli`.
    """

    def __init__(self, size: Any = 1.0, exposure: Any = 1.0, bound: str = "expectation") -> None:
        super().__init__(bound)
        self.size = positive(size, "the size of a negative binomial distribution")
        self.exposure = positive(exposure, "the exposure")

    def check(self, y: Any) -> Tensor:
        """Counts; see the base class."""
        return checked_counts(y)

    @property
    def _shift(self) -> Tensor:
        """Difference of the logistic function's argument and f."""
        return (self.exposure / self.size).log()

    def _constant(self, y: Tensor) -> Tensor:
        return torch.lgamma(y + self.size) - torch.lgamma(self.size) - torch.lgamma(y + 1.0)

    def log_density(self, y: Tensor, f: Tensor) -> Tensor:
        """Log-probability; see the base class."""
        g = f + self._shift
        return self._constant(y) + y * g - (y + self.size) * softplus(g)

    def site(self, y: Tensor, mean: Tensor, variance: Tensor) -> Site:
        """Site; see the base class."""
        if self.bound == "expectation":
            return super().site(y, mean, variance)
        shift = self._shift
        precision, information, expected = _local_logistic_site(y + self.size, y, mean + shift, variance)
        # The site is a factor of g = f + shift.
        return Site(precision, information - precision * shift, expected + self._constant(y))

    def expected(self, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """The bound on its own."""
        if self.bound == "local":
            return self.site(y, mean, variance).expected
        g = mean + self._shift
        return self._constant(y) + y * g - (y + self.size) * expectation(softplus, g, variance)

    def derivatives(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives in f; see the base class."""
        p = torch.sigmoid(f + self._shift)
        return y - (y + self.size) * p, (y + self.size) * p * (1.0 - p)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of a new count."""
        rate = self.exposure * _exp(mean + 0.5 * variance)
        second = rate.square() * _exp(variance)
        return rate, rate + second / self.size + second - rate.square()

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """Draws: Poisson with a gamma distributed rate."""
        shape = self.size.expand(f.shape).contiguous()
        rate = self.exposure * _exp(f) * torch._standard_gamma(shape, generator=generator) / self.size
        return torch.poisson(rate, generator=generator)

    def fitted(self, y: Tensor, mean: Tensor, variance: Tensor, count: Tensor | None = None) -> Likelihood:
        """With the size that raises the bound; sizes of single data are left as they are."""
        if self.size.numel() > 1 or not y.numel():
            return self

        def loss(log_size: float) -> float:
            trial = NegativeBinomial(math.exp(log_size), self.exposure, self.bound)
            each = trial.expected(y, mean, variance)
            return -float((each if count is None else count * each).sum())

        here = float(self.size.log())
        with torch.no_grad():
            found = optimize.minimize_scalar(loss, bounds=(here - 2.0, here + 2.0), method="bounded")
            better = found.fun < loss(here)
        return NegativeBinomial(math.exp(found.x), self.exposure, self.bound) if better else self
