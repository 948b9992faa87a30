"""Log densities of torch and GPyTorch priors as expressions, so that they can be compiled with the likelihood.

Every univariate prior of GPyTorch and the usual distributions of torch are known. :func:`register` adds another; a
subclass of a known one is compared with its own ``log_prob`` before it is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from gpytorch.priors import (
    GammaPrior,
    HalfCauchyPrior,
    HalfNormalPrior,
    HorseshoePrior,
    LogNormalPrior,
    NormalPrior,
    SmoothedBoxPrior,
    UniformPrior,
)
from torch import distributions as td
from torch.distributions import constraints

from gpkit.errors import GpkitError
from gpkit.inference.bijections import Bijection
from gpkit.inference.expressions import Expression, ops, record

__all__ = ["UnsupportedPriorError", "log_density", "register", "support"]

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class UnsupportedPriorError(GpkitError, TypeError):
    """A prior has no expression that could be compiled."""

    @classmethod
    def of(cls, prior: Any, reason: str = "is not known to the compiled sampler") -> UnsupportedPriorError:
        """The one-line message for a prior."""
        return cls(
            f"{type(prior).__name__} {reason}: use method='pyro', or give its density with "
            "gpkit.inference.priors.register"
        )


def _scalar(prior: Any, name: str) -> float:
    value = torch.as_tensor(getattr(prior, name)).detach()
    if value.numel() != 1:
        raise UnsupportedPriorError.of(prior, f"has {value.numel()} values of {name} where one parameter is described")
    return float(value.reshape(()))


@singledispatch
def _density(prior: Any, x: Expression) -> Expression:
    raise UnsupportedPriorError.of(prior)


_trusted: set[type] = {
    GammaPrior,
    HalfCauchyPrior,
    HalfNormalPrior,
    HorseshoePrior,
    LogNormalPrior,
    NormalPrior,
    SmoothedBoxPrior,
    UniformPrior,
}


def register(
    kind: type,
) -> Callable[[Callable[[Any, Expression], Expression]], Callable[[Any, Expression], Expression]]:
    """Decorate a function ``(prior, x) -> expression`` that writes the log density of priors of a class.

    Example:
        >>> import torch
        >>> from gpkit.inference.priors import register
        >>> @register(torch.distributions.Laplace)
        ... def laplace(prior, x):
        ...     scale = float(prior.scale)
        ...     return -abs(x - float(prior.loc)) / scale - math.log(2.0 * scale)
    """

    def decorate(function: Callable[[Any, Expression], Expression]) -> Callable[[Any, Expression], Expression]:
        _density.register(kind)(function)
        _trusted.add(kind)
        return function

    return decorate


def _normal_density(x: Expression, loc: float, scale: float) -> Expression:
    return -0.5 * ((x - loc) / scale) ** 2 - (math.log(scale) + _HALF_LOG_2PI)


@register(td.Normal)
def _normal(prior: td.Normal, x: Expression) -> Expression:
    return _normal_density(x, _scalar(prior, "loc"), _scalar(prior, "scale"))


@register(td.HalfNormal)
def _half_normal(prior: td.HalfNormal, x: Expression) -> Expression:
    return _normal_density(x, 0.0, _scalar(prior, "scale")) + math.log(2.0)


@register(td.LogNormal)
def _log_normal(prior: td.LogNormal, x: Expression) -> Expression:
    log = ops.log(x)
    return _normal_density(log, _scalar(prior, "loc"), _scalar(prior, "scale")) - log


@register(td.Gamma)
def _gamma(prior: td.Gamma, x: Expression) -> Expression:
    shape, rate = _scalar(prior, "concentration"), _scalar(prior, "rate")
    return (shape - 1.0) * ops.log(x) - rate * x + (shape * math.log(rate) - math.lgamma(shape))


@register(td.InverseGamma)
def _inverse_gamma(prior: td.InverseGamma, x: Expression) -> Expression:
    shape, rate = _scalar(prior, "concentration"), _scalar(prior, "rate")
    return -(shape + 1.0) * ops.log(x) - rate / x + (shape * math.log(rate) - math.lgamma(shape))


@register(td.Exponential)
def _exponential(prior: td.Exponential, x: Expression) -> Expression:
    rate = _scalar(prior, "rate")
    return math.log(rate) - rate * x


@register(td.Cauchy)
def _cauchy(prior: td.Cauchy, x: Expression) -> Expression:
    scale = _scalar(prior, "scale")
    return -ops.log1p(((x - _scalar(prior, "loc")) / scale) ** 2) - math.log(math.pi * scale)


@register(td.HalfCauchy)
def _half_cauchy(prior: td.HalfCauchy, x: Expression) -> Expression:
    scale = _scalar(prior, "scale")
    return -ops.log1p((x / scale) ** 2) - math.log(0.5 * math.pi * scale)


@register(td.StudentT)
def _student_t(prior: td.StudentT, x: Expression) -> Expression:
    df, loc, scale = _scalar(prior, "df"), _scalar(prior, "loc"), _scalar(prior, "scale")
    constant = math.lgamma(0.5 * df + 0.5) - math.lgamma(0.5 * df) - 0.5 * math.log(df * math.pi) - math.log(scale)
    return -0.5 * (df + 1.0) * ops.log1p(((x - loc) / scale) ** 2 / df) + constant


@register(td.Laplace)
def _laplace(prior: td.Laplace, x: Expression) -> Expression:
    scale = _scalar(prior, "scale")
    return -abs(x - _scalar(prior, "loc")) / scale - math.log(2.0 * scale)


@register(td.Beta)
def _beta(prior: td.Beta, x: Expression) -> Expression:
    a, b = _scalar(prior, "concentration1"), _scalar(prior, "concentration0")
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return (a - 1.0) * ops.log(x) + (b - 1.0) * ops.log1p(-x) + constant


@register(td.Weibull)
def _weibull(prior: td.Weibull, x: Expression) -> Expression:
    scale, shape = _scalar(prior, "scale"), _scalar(prior, "concentration")
    log = ops.log(x) - math.log(scale)
    return math.log(shape / scale) + (shape - 1.0) * log - ops.exp(shape * log)


@register(td.Uniform)
def _uniform(prior: td.Uniform, x: Expression) -> Expression:
    # The support is in the bijection: x is never outside.
    return Expression.constant(-math.log(_scalar(prior, "high") - _scalar(prior, "low")))


@register(SmoothedBoxPrior)
def _smoothed_box(prior: Any, x: Expression) -> Expression:
    low, high, sigma = _scalar(prior, "a"), _scalar(prior, "b"), _scalar(prior, "sigma")
    outside = ops.maximum(abs(x - 0.5 * (low + high)) - 0.5 * (high - low), 0.0)
    mass = math.log1p((high - low) / (math.sqrt(2.0 * math.pi) * sigma))
    return _normal_density(outside, 0.0, sigma) - mass


@register(HorseshoePrior)
def _horseshoe(prior: Any, x: Expression) -> Expression:
    ratio = (_scalar(prior, "scale") / x) ** 2
    bounds = 0.5 * ops.log1p(4.0 * ratio) + ops.log1p(2.0 * ratio)
    return ops.log(bounds) + math.log(0.5 / math.sqrt(2.0 * math.pi**3))


def support(prior: Any) -> tuple[float, float]:
    """Ends of the interval on which a prior has density, infinite where it has none.

    Raises:
        UnsupportedPriorError: if the prior is not one of a single real number.
    """
    if prior is None:
        return -math.inf, math.inf
    constraint = getattr(prior, "support", None)
    if isinstance(constraint, constraints.independent) and constraint.reinterpreted_batch_ndims == 0:
        constraint = constraint.base_constraint
    if constraint is constraints.real:
        return -math.inf, math.inf
    if isinstance(constraint, (constraints.interval, constraints.half_open_interval)):
        return float(constraint.lower_bound), float(constraint.upper_bound)
    if isinstance(constraint, (constraints.greater_than, constraints.greater_than_eq)):
        return float(constraint.lower_bound), math.inf
    if isinstance(constraint, constraints.less_than):
        return -math.inf, float(constraint.upper_bound)
    raise UnsupportedPriorError.of(prior, "is not a prior of one real number")


def log_density(prior: Any, x: Expression) -> Expression:
    """Expression of ``prior.log_prob(x)``; zero for None (a flat, improper prior).

    Raises:
        UnsupportedPriorError: if the prior is not known, transforms its argument, describes several parameters, or is
            of a subclass whose ``log_prob`` differs from that of the known class.
    """
    if prior is None:
        return Expression.constant(0.0)
    if getattr(prior, "_transform", None) is not None:
        raise UnsupportedPriorError.of(prior, "with a transform is not known to the compiled sampler")
    if type(prior) not in _trusted:
        _compare(prior)
    return _density(prior, x)


def _compare(prior: Any) -> None:
    """Refuse a prior whose expression is not its own density, as that of a subclass may not be."""
    (z,) = Expression.inputs(1)
    x = Bijection(*support(prior)).forward(z)
    points = np.array([[-1.7], [-0.4], [0.3], [1.1]])
    results, _ = record([x, _density(prior, x)], 1).forward(points)
    own = [float(prior.log_prob(torch.tensor(value, dtype=torch.float64)).sum()) for value in results[:, 0]]
    if not np.allclose(results[:, 1], own, rtol=1e-5, atol=1e-5):
        raise UnsupportedPriorError.of(prior, "has a density of its own, which is not known to the compiled sampler")
