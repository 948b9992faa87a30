"""Unconstrained coordinates of unknown numbers, in which their priors are short-tailed.

Priors of the normal family keep their own coordinate, or its logarithm. Others with quantiles are mapped to a standard
normal one by these: the logarithm of a number whose prior does not vanish at zero has a long tail towards minus
infinity, along which neither normal approximations nor samplers find their way. What is left takes the map of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy import special
from torch import distributions

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.bases import Array

__all__ = ["Coordinate", "coordinate_of"]

Map = Callable[[Array], Array]


@runtime_checkable
class Coordinate(Protocol):
    """One coordinate z of a number x."""

    def number(self, z: Array) -> Array:
        """X at any number of coordinates."""
        ...

    def slope(self, z: float) -> float:
        """Derivative dx/dz."""
        ...

    def inverse(self, x: float) -> float:
        """Z of a number."""
        ...

    def prior(self, z: float, curved: bool) -> tuple[float, float, float]:
        """Minus the log density of z, its first and, if asked for, its second derivative."""
        ...


class _Flat:
    """No prior: the number itself."""

    def number(self, z: Array) -> Array:
        return z

    def slope(self, z: float) -> float:
        return 1.0

    def inverse(self, x: float) -> float:
        return x

    def prior(self, z: float, curved: bool) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0


class _Normal:
    """The number, or its logarithm, is normal."""

    def __init__(self, loc: Any, scale: Any, log: bool) -> None:
        self._loc, self._scale, self._log = _number(loc), _number(scale), log

    def number(self, z: Array) -> Array:
        with np.errstate(over="ignore"):  # a number beyond the floats is infinite, and refused
            return np.asarray(np.exp(z)) if self._log else z

    def slope(self, z: float) -> float:
        return math.exp(min(z, 700.0)) if self._log else 1.0

    def inverse(self, x: float) -> float:
        return math.log(x) if self._log else x

    def prior(self, z: float, curved: bool) -> tuple[float, float, float]:
        off = (z - self._loc) / self._scale
        value = 0.5 * off * off + math.log(self._scale) + 0.5 * math.log(2.0 * math.pi)
        return value, off / self._scale, 1.0 / self._scale**2


class _Quantile:
    """The number is a quantile of its prior, the coordinate the same quantile of a standard normal distribution.

    Args:
        upper: X from the probabilities to lie below and above it, whichever is the more exact.
        density: Of x.
        below: Probability to lie below x.
    """

    def __init__(self, upper: Callable[[Array, Array], Array], density: Map, below: Map) -> None:
        self._upper, self._density, self._below = upper, density, below

    def number(self, z: Array) -> Array:
        return np.asarray(self._upper(special.ndtr(z), special.ndtr(-z)))

    def slope(self, z: float) -> float:
        normal = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        return normal / max(float(self._density(self.number(np.array(z)))), 1e-300)

    def inverse(self, x: float) -> float:
        return float(special.ndtri(self._below(np.array(x))))

    def prior(self, z: float, curved: bool) -> tuple[float, float, float]:
        return 0.5 * z * z + 0.5 * math.log(2.0 * math.pi), z, 1.0


class _Torch:
    """Torch's map from the real line to the support of a prior, with autograd."""

    def __init__(self, prior: Any) -> None:
        constraint = getattr(prior, "support", None)
        if constraint is None:
            raise InvalidDataError(f"{type(prior).__name__} is not a prior: use a torch or GPyTorch distribution")
        try:
            self._map = distributions.biject_to(constraint)
        except NotImplementedError:
            name = type(prior).__name__
            raise InvalidDataError(f"the prior {name} is not one of a real number in an interval") from None
        self._prior = prior

    def number(self, z: Array) -> Array:
        with torch.no_grad():
            return np.asarray(self._map(torch.from_numpy(np.array(z, dtype=np.float64))).numpy())

    def slope(self, z: float) -> float:
        with torch.no_grad():
            t = torch.tensor(z, dtype=torch.float64)
            log_slope = self._map.log_abs_det_jacobian(t, self._map(t))
        return float(self._map.sign * math.exp(float(log_slope)))

    def inverse(self, x: float) -> float:
        with torch.no_grad():
            return float(self._map.inv(torch.tensor(x, dtype=torch.float64)))

    def prior(self, z: float, curved: bool) -> tuple[float, float, float]:
        with torch.enable_grad():
            t = torch.tensor(z, dtype=torch.float64, requires_grad=True)
            x = self._map(t)
            total = -torch.as_tensor(self._map.log_abs_det_jacobian(t, x), dtype=torch.float64)
            total = total - torch.as_tensor(self._prior.log_prob(x), dtype=torch.float64).sum()
            first = second = torch.zeros((), dtype=torch.float64)
            if total.requires_grad:
                (first,) = torch.autograd.grad(total, t, create_graph=curved)
                if curved and first.requires_grad:
                    (second,) = torch.autograd.grad(first, t)
        return float(total.detach()), float(first.detach()), float(second.detach())


def coordinate_of(prior: Any) -> Coordinate:
    """The coordinate of a number with a prior, a torch or GPyTorch distribution, or None.

    Raises:
        InvalidDataError: It is no distribution of a real number in an interval.
    """
    if prior is None:
        return _Flat()
    if isinstance(prior, distributions.LogNormal):
        return _Normal(prior.loc, prior.scale, log=True)
    if isinstance(prior, distributions.HalfNormal | distributions.HalfCauchy | distributions.Exponential):
        return _positive(prior)
    if isinstance(prior, distributions.Normal):
        return _Normal(prior.loc, prior.scale, log=False)
    if isinstance(prior, distributions.Uniform):
        low, high = _number(prior.low), _number(prior.high)
        return _Quantile(
            lambda p, q: np.where(p < q, low + (high - low) * p, high - (high - low) * q),
            lambda x: np.full_like(x, 1.0 / (high - low)),
            lambda x: (x - low) / (high - low),
        )
    return _Torch(prior)


def _positive(prior: Any) -> Coordinate:
    if isinstance(prior, distributions.Exponential):
        rate = _number(prior.rate)
        return _Quantile(
            lambda p, q: np.where(p < q, -np.log1p(-np.minimum(p, 0.9)), -np.log(np.maximum(q, 1e-300))) / rate,
            lambda x: rate * np.exp(-rate * x),
            lambda x: -np.expm1(-rate * x),
        )
    scale = _number(prior.scale)
    if isinstance(prior, distributions.HalfNormal):
        return _Quantile(
            lambda p, q: (
                scale * np.where(p < 1e-6, math.sqrt(0.5 * math.pi) * p, -special.ndtri(0.5 * np.maximum(q, 1e-300)))
            ),
            lambda x: math.sqrt(2.0 / math.pi) / scale * np.exp(-0.5 * (x / scale) ** 2),
            lambda x: special.erf(x / (scale * math.sqrt(2.0))),
        )
    return _Quantile(
        lambda p, q: (
            np.where(p < q, np.tan(0.5 * np.pi * p), 1.0 / np.tan(0.5 * np.pi * np.maximum(q, 1e-300))) * scale
        ),
        lambda x: 2.0 / (math.pi * scale) / (1.0 + (x / scale) ** 2),
        lambda x: 2.0 / math.pi * np.arctan(x / scale),
    )


def _number(parameter: Any) -> float:
    return float(torch.as_tensor(parameter).detach())
