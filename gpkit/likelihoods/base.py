"""What a likelihood tells an engine: Gaussian sites in place of its data, and a bound on what they cost.

An engine holds a Gaussian q(f_n) = N(mean, variance) for every datum. :meth:`Likelihood.site` answers with the
Gaussian factor ``exp(information * f - precision * f^2 / 2)`` that stands for ``p(y_n | f_n)`` there, and with
``expected``, E_q log p(y_n | f_n) or a lower bound of it. A new likelihood is one small class that gives these.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.operators.structured import common_batch

__all__ = ["Likelihood", "Site", "checked_counts", "expectation", "finite", "positive", "quadrature_site"]

_ORDER = 48
_NARROW = 1e-10


class Site(NamedTuple):
    """A Gaussian factor for each datum, all of the shape of the data.

    Args:
        precision: not negative.
        information: precision times the factor's mean.
        expected: E_q log p(y | f), or a lower bound of it whose derivatives the factor has.
    """

    precision: Tensor
    information: Tensor
    expected: Tensor


class Likelihood(ABC):
    """p(y | f) of one datum given one value of a latent function; parameters in natural units."""

    monotone: bool = False
    """Whether taking a full step to its sites never lowers the evidence bound, so that no damping is needed."""
    log_concave: bool = True
    """Whether log p(y | f) is concave in f, so that a posterior under a Gaussian prior has one mode."""

    @abstractmethod
    def check(self, y: Any) -> Tensor:
        """Data as a float64 tensor.

        Raises:
            InvalidDataError: for values that the likelihood cannot give, naming the first.
        """

    @abstractmethod
    def log_density(self, y: Tensor, f: Tensor) -> Tensor:
        """Log p(y | f), differentiable in f."""

    def site(self, y: Tensor, mean: Tensor, variance: Tensor) -> Site:
        """Sites for data given q(f) = N(mean, variance), elementwise: by quadrature, for log-concave likelihoods."""
        return quadrature_site(lambda f: self.log_density(y, f), lambda f: self.derivatives(y, f), mean, variance)

    @abstractmethod
    def derivatives(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """First derivative of log p(y | f) in f, and minus the second."""

    @abstractmethod
    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a new y where f ~ N(mean, variance)."""

    @abstractmethod
    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of y for every f."""

    def fitted(self, y: Tensor, mean: Tensor, variance: Tensor, count: Tensor | None = None) -> Likelihood:
        """The likelihood with those of its parameters that raise the bound for q(f) the most; itself if it has none.

        Args:
            y: data.
            mean: of q(f).
            variance: of q(f).
            count: how often each datum counts; once if not given.
        """
        return self

    def reordered(self, order: Tensor) -> Likelihood:
        """The likelihood of data in another order: parameters of single data are taken along, (*batch, N) indices."""
        new = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.dim() and value.shape[-1] == order.shape[-1] > 1:
                batch = common_batch(value.shape[:-1], order.shape[:-1])
                wide = (*batch, order.shape[-1])
                setattr(new, name, value.expand(wide).gather(-1, order.expand(wide)))
        return new

    def log_predictive(self, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Log of the density of a new y where f ~ N(mean, variance), by Gauss-Hermite quadrature."""
        values, log_weights = _at_nodes(lambda f: self.log_density(y, f), mean, variance)
        return torch.logsumexp(values + log_weights, 0)


@cache
def _rule() -> tuple[Tensor, Tensor]:
    """Nodes and logarithms of weights of the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_ORDER)
    return torch.from_numpy(nodes), torch.from_numpy(np.log(weights / math.sqrt(2.0 * math.pi)))


def _at_nodes(function: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Values at the nodes of a quadrature, along a new first dimension, and logarithms of its weights."""
    nodes, log_weights = (t.reshape(-1, *([1] * mean.dim())) for t in _rule())
    return function(mean + variance.clamp_min(0.0).sqrt() * nodes), log_weights


def expectation(function: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor) -> Tensor:
    """E function(f) for f ~ N(mean, variance), by quadrature; ``function`` gets one more dimension, first."""
    values, log_weights = _at_nodes(function, mean, variance)
    return (values * log_weights.exp()).sum(0)


def quadrature_site(
    log_density: Callable[[Tensor], Tensor],
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor]],
    mean: Tensor,
    variance: Tensor,
) -> Site:
    """The site of E log p(y | f), and the expectation, by Gauss-Hermite quadrature.

    The precision is minus twice the derivative of the rule's own value with respect to the variance, not a rule for
    the second derivative: a bound and its gradient that disagree by the rule's error cannot both converge.
    """
    nodes, log_weights = (t.reshape(-1, *([1] * mean.dim())) for t in _rule())
    weights = log_weights.exp()
    sd = variance.clamp_min(_NARROW).sqrt()
    f = mean + sd * nodes
    slopes = derivatives(f)[0]
    precision = -(weights * nodes * slopes).sum(0) / sd
    slope = (weights * slopes).sum(0)
    precision = torch.where(variance > _NARROW, precision, derivatives(mean)[1]).clamp_min(0.0)
    return Site(precision, slope + precision * mean, (weights * log_density(f)).sum(0))


def finite(y: Any, name: str = "y") -> Tensor:
    """Data as a finite float64 tensor.

    Raises:
        InvalidDataError: naming the first value that is not finite.
    """
    tensor = torch.as_tensor(y, dtype=torch.float64)
    bad = ~torch.isfinite(tensor)
    if bool(bad.any()):
        raise InvalidDataError(f"{name} must be finite, the value at {bad.nonzero()[0].tolist()} is not")
    return tensor


def checked_counts(y: Any) -> Tensor:
    """Counts as a float64 tensor.

    Raises:
        InvalidDataError: naming the first value that is not a non-negative integer.
    """
    tensor = finite(y)
    bad = (tensor < 0.0) | (tensor != tensor.round())
    if bool(bad.any()):
        where = bad.nonzero()[0].tolist()
        value = float(tensor[tuple(where)])
        raise InvalidDataError(f"counts must be non-negative integers, the value at {where} is {value:g}")
    return tensor


def positive(value: Any, name: str) -> Tensor:
    """A parameter as a positive, finite float64 tensor.

    Raises:
        InvalidDataError: if it is not positive and finite.
    """
    tensor = torch.as_tensor(value, dtype=torch.float64)
    good = (tensor > 0.0) & torch.isfinite(tensor)
    if not bool(good.all()):
        raise InvalidDataError(f"{name} must be positive and finite, got {tensor.tolist()}")
    return tensor
