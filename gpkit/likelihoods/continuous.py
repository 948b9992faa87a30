"""Real-valued data: Gaussian noise and heavy-tailed noise."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy import optimize
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.likelihoods.base import Likelihood, Site, finite, positive

__all__ = ["Gaussian", "StudentT"]

_LOG_2PI = math.log(2.0 * math.pi)
_DF_BOUNDS = (0.2, 1e4)


class Gaussian(Likelihood):
    """``y ~ N(f, variance)``.

    Args:
        variance: of the noise; one value, or one for each datum.
    """

    monotone = True

    def __init__(self, variance: Any = 1.0) -> None:
        self.variance = positive(variance, "the noise variance")

    def check(self, y: Any) -> Tensor:
        """Finite values; see the base class."""
        return finite(y)

    def log_density(self, y: Tensor, f: Tensor) -> Tensor:
        """Log-density; see the base class."""
        return -0.5 * (_LOG_2PI + self.variance.log() + (y - f).square() / self.variance)

    def site(self, y: Tensor, mean: Tensor, variance: Tensor) -> Site:
        """The exact site; see the base class."""
        precision = (1.0 / self.variance).expand_as(mean)
        expected = self.log_density(y, mean) - 0.5 * variance * precision
        return Site(precision, precision * y, expected)

    def derivatives(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives in f; see the base class."""
        return (y - f) / self.variance, (1.0 / self.variance).expand_as(f)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of a new datum; see the base class."""
        return mean, variance + self.variance

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """Draws; see the base class."""
        return f + self.variance.sqrt() * torch.randn(f.shape, generator=generator, dtype=f.dtype)

    def log_predictive(self, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Exact; see the base class."""
        total = variance + self.variance
        return -0.5 * (_LOG_2PI + total.log() + (y - mean).square() / total)

    def fitted(self, y: Tensor, mean: Tensor, variance: Tensor, count: Tensor | None = None) -> Likelihood:
        """With the variance that q(f) calls for; variances of single data are left as they are."""
        if self.variance.numel() > 1 or not y.numel():
            return self
        square = (y - mean).square() + variance
        share = torch.ones_like(square) if count is None else count.expand_as(square)
        return Gaussian(((share * square).sum() / share.sum()).reshape(self.variance.shape))


class StudentT(Likelihood):
    r"""``y = f + scale * t`` with t of Student's distribution: a Gaussian whose precision is gamma distributed.

    Sites come from that scale mixture. Given q(f), with ``e = E (y - f)^2``, the precision of a datum has the mean
    ``(df + 1) / (df scale^2 + e)``, and the bound on the expected log-likelihood is the log-density at ``e`` in place
    of ``(y - f)^2``. Sites are never negative, and full steps never lower the bound. The precisions are taken as
    independent of f, so that intervals of f are somewhat too narrow where tails are heavy.

    Args:
        scale: of the noise; its standard deviation is ``scale sqrt(df / (df - 2))``.
        df: degrees of freedom.

    References:
        Tipping & Lawrence (2005), Neurocomputing 69, 123.
    """

    monotone = True
    log_concave = False

    def __init__(self, scale: Any = 1.0, df: Any = 4.0) -> None:
        self.scale = positive(scale, "the noise scale")
        self.df = positive(df, "the degrees of freedom")
        if self.scale.numel() > 1 or self.df.numel() > 1:
            raise InvalidDataError("the scale and the degrees of freedom of Student-t noise are one number each")

    def check(self, y: Any) -> Tensor:
        """Finite values; see the base class."""
        return finite(y)

    def _log_density_at(self, square: Tensor) -> Tensor:
        """Log-density where the squared residual is ``square``."""
        half = 0.5 * (self.df + 1.0)
        constant = torch.lgamma(half) - torch.lgamma(0.5 * self.df) - 0.5 * (math.pi * self.df).log() - self.scale.log()
        return constant - half * torch.log1p(square / (self.df * self.scale.square()))

    def log_density(self, y: Tensor, f: Tensor) -> Tensor:
        """Log-density; see the base class."""
        return self._log_density_at((y - f).square())

    def weights(self, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Expected precisions of single data relative to ``1 / scale^2``; small ones are outliers."""
        square = (y - mean).square() + variance
        return (self.df + 1.0) / (self.df + square / self.scale.square())

    def site(self, y: Tensor, mean: Tensor, variance: Tensor) -> Site:
        """Site of the scale mixture; see the base class."""
        precision = self.weights(y, mean, variance) / self.scale.square()
        return Site(precision, precision * y, self._log_density_at((y - mean).square() + variance))

    def derivatives(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives in f; see the base class. The second is negative in the tails."""
        residual, spread = y - f, self.df * self.scale.square()
        below = spread + residual.square()
        first = (self.df + 1.0) * residual / below
        return first, (self.df + 1.0) * (spread - residual.square()) / below.square()

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of a new datum; the variance is infinite for df <= 2."""
        excess = torch.where(self.df > 2.0, self.df / (self.df - 2.0).clamp_min(1e-300), math.inf)
        return mean, variance + self.scale.square() * excess

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """Draws; see the base class."""
        white = torch.randn(f.shape, generator=generator, dtype=f.dtype)
        shape = (0.5 * self.df).expand(f.shape).contiguous()
        chi = torch._standard_gamma(shape, generator=generator) / shape
        return f + self.scale * white / chi.sqrt()

    def fitted(self, y: Tensor, mean: Tensor, variance: Tensor, count: Tensor | None = None) -> Likelihood:
        """With scale and degrees of freedom that raise the bound, by conditional maximisation."""
        if not y.numel():
            return self
        square = ((y - mean).square() + variance).detach()
        share = torch.ones_like(square) if count is None else count.expand_as(square)
        new = self
        for _ in range(2):
            weights = (new.df + 1.0) / (new.df + square / new.scale.square())
            scale = ((share * weights * square).sum() / share.sum()).sqrt().clamp_min(1e-150)

            def loss(log_df: float, scale: Tensor = scale) -> float:
                return -float((share * StudentT(scale, math.exp(log_df))._log_density_at(square)).sum())

            found = optimize.minimize_scalar(
                loss, bounds=tuple(map(math.log, _DF_BOUNDS)), method="bounded", options={"xatol": 1e-3}
            )
            df = math.exp(found.x) if found.fun < loss(math.log(float(new.df))) else new.df
            new = StudentT(scale, df)
        return new
