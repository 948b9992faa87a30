"""The canonical periodic kernel as a finite sum of undamped oscillations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from gpytorch.constraints import GreaterThan, Interval
from gpytorch.priors import Prior
from scipy.special import ive
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.base import StateSpaceKernel
from gpkit.operators.covariances import Structure

__all__ = ["PeriodicKernel", "harmonics_for"]

_EPSILON = 2.220446049250313e-16
_EXTRA = 24


def harmonics_for(lengthscale: float, tolerance: float = _EPSILON) -> int:
    """Number of harmonics that a periodic kernel needs for its covariance to be right to ``tolerance``."""
    x = lengthscale**-2.0
    count = 1
    # The error is at most twice the sum of what is left out, a geometric series at the least.
    while 4.0 * float(ive(count + 1, x)) > tolerance:
        count += 1
    return count


class PeriodicKernel(StateSpaceKernel):
    r"""Periodic kernel ``exp(-2 sin^2(pi tau / period) / lengthscale^2)``, unit variance.

    Its Fourier series is a sum of undamped oscillations at the multiples of ``1 / period``,

    .. math:: k(\tau) = \sum_{j=0}^{M} q_j^2 \cos(2\pi j\tau/T),
        \quad q_0^2 = e^{-1/\ell^2} I_0(1/\ell^2),\ q_j^2 = 2 e^{-1/\ell^2} I_j(1/\ell^2),

    each of which has a state of two numbers. Coefficients fall faster than any power. By default there are as many as
    make the covariance right to rounding errors at every length scale above ``shortest``, which bounds the length
    scale. With ``terms`` that many harmonics are kept, and rescaled to unit variance: a periodic kernel of its own,
    whose distance from the full one is :meth:`truncation_error`.

    Args:
        period: T, in units of the input.
        lengthscale: l, dimensionless: relative to the period over 2 pi, for small l.
        terms: number of harmonics M besides the constant; None for rounding errors.
        shortest: smallest length scale that must be exact, half the start value by default; not with ``terms``.
        period_prior, lengthscale_prior: priors on the natural values.
        period_constraint, lengthscale_constraint: default positive, and greater than ``shortest``.

    Raises:
        InvalidDataError: if ``terms`` is not positive or given together with ``shortest``.

    References:
        Solin & Sarkka (2014), AISTATS, PMLR 33, 904.
    """

    def __init__(
        self,
        period: Any = 1.0,
        lengthscale: Any = 1.0,
        terms: int | None = None,
        shortest: float | None = None,
        period_prior: Prior | None = None,
        lengthscale_prior: Prior | None = None,
        period_constraint: Interval | None = None,
        lengthscale_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if terms is None:
            if shortest is None:
                shortest = 0.5 * float(torch.as_tensor(lengthscale, dtype=torch.float64).min())
            if not shortest > 0.0:
                raise InvalidDataError(f"the shortest length scale must be positive, got {shortest}")
            terms = harmonics_for(shortest)
            lengthscale_constraint = lengthscale_constraint or GreaterThan(shortest)
        elif shortest is not None:
            raise InvalidDataError("give the number of terms or the shortest length scale, not both")
        elif terms < 1:
            raise InvalidDataError(f"a periodic kernel needs at least one harmonic, got terms={terms}")
        self.terms = int(terms)
        self.add_parameter("period", period, period_constraint, period_prior)
        self.add_parameter("lengthscale", lengthscale, lengthscale_constraint, lengthscale_prior)

    @property
    def lengthscale(self) -> Tensor:
        """Length scale, of the batch shape (hides the property of that name of GPyTorch's base class)."""
        return self._natural("lengthscale")

    @property
    def structure(self) -> Structure:  # type: ignore[override]  # of a parameter, where others have a constant
        """A constant and the harmonics."""
        return (("exponential",), *((("celerite",),) * self.terms))

    def _weights(self, lengthscale: Any, ops: Any) -> list[Any]:
        """Variances q_0^2, ..., q_M^2 of the harmonics, which add up to one.

        The ratio ``I_j / I_j-1`` is ``1 / (2 j l^2 + I_j+1 / I_j)``: downwards the recursion forgets where it
        started, and it has no cancellation.
        """
        squared = lengthscale * lengthscale
        start = self.terms + _EXTRA
        slope = (start + 1.0) * squared
        ratio = 1.0 / (slope + ops.sqrt(slope * slope + 1.0))
        ratios = []
        for j in range(start, 0, -1):
            ratio = 1.0 / (2.0 * j * squared + ratio)
            if j <= self.terms:
                ratios.append(ratio)
        relative = []
        total: Any = 1.0
        weight: Any = 2.0
        for ratio in reversed(ratios):
            weight = weight * ratio
            relative.append(weight)
            total = total + weight
        first = 1.0 / total
        return [first, *(weight * first for weight in relative)]

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        frequency = 2.0 * math.pi / values["period"]
        first, *rest = self._weights(values["lengthscale"], ops)
        entries = [first, 0.0]
        for j, weight in enumerate(rest, 1):
            entries += [weight, 1.0, 0.0, 0.0, j * frequency]
        return entries

    def exact_autocovariance(self, lag: Tensor) -> Tensor:
        """The full kernel, of which no harmonic is left out, at lags (*s): (*batch_shape, *s)."""
        lag = torch.as_tensor(lag, dtype=torch.float64)
        period, lengthscale = (
            v.reshape(*self.batch_shape, *([1] * lag.dim())) for v in (self.period, self.lengthscale)
        )
        return torch.exp(-2.0 * (torch.sin(math.pi * lag / period) / lengthscale).square())

    def truncation_error(self) -> float:
        """Largest difference between the covariance and that of the full kernel, over all elements of the batch."""
        lags = torch.linspace(0.0, 0.5, 8 * self.terms + 17, dtype=torch.float64)
        with torch.no_grad():
            lags = lags * self.period.reshape(*self.batch_shape, 1)
            ours = torch.stack(
                [
                    w.unsqueeze(-1) * torch.cos(2.0 * math.pi * j * lags / self.period.unsqueeze(-1))
                    for j, w in enumerate(self._weights(self.lengthscale, torch))
                ]
            ).sum(0)
            full = torch.exp(
                -2.0 * (torch.sin(math.pi * lags / self.period.unsqueeze(-1)) / self.lengthscale.unsqueeze(-1)).square()
            )
            return float((ours - full).abs().max())

    def timescales(self) -> dict[str, Any]:
        """The ``period``."""
        return {"period": self.period}
