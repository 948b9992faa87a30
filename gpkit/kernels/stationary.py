"""Stationary covariances of one variable with all their derivatives in closed form.

A covariance is a mixture ``k(z) = sum_q w_q g(z; l_q) cos(2 pi mu_q z)`` of an envelope g, which is Gaussian or Matern
of any smoothness, moved to the frequency mu. Everything is a function of the signed lag ``z = x - x'``, so that
``cov(u^(a)(x), u^(b)(x')) = (-1)^b k^(a + b)(z)``. Values are exact at z = 0, where automatic differentiation of
``|z|`` is not, and the gradient of one order is the next order: it can be taken as often as the order exists.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.bessel import matern_derivatives

__all__ = ["Envelope", "GaussianEnvelope", "MaternEnvelope", "grid_columns", "mixture_derivatives", "require_order"]

_LARGEST_CLOSED_FORM = 9.5
"""Half-integer smoothness up to which the polynomial is used; its alternating terms cost digits beyond."""

_PIECE = 65536
"""Lags times components that are evaluated together where no gradient is asked: the intermediate rows stay in cache."""


class _EnvelopeDerivatives(torch.autograd.Function):
    """Orders 0..n of an envelope; the derivative with respect to the lag is the next order."""

    @staticmethod
    def forward(ctx: Any, envelope: Envelope, order: int, lag: Tensor, lengthscale: Tensor) -> Tensor:
        ctx.envelope, ctx.order = envelope, order
        ctx.save_for_backward(lag, lengthscale)
        # torch.broadcast_shapes, written in Python, would take longer than what is evaluated, and its first call 0.3 s.
        lag, lengthscale = torch.broadcast_tensors(lag, lengthscale)
        return envelope._evaluate(lag, lengthscale, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lag, lengthscale = ctx.saved_tensors
        values = ctx.envelope.derivatives(lag, lengthscale, ctx.order + 1)
        by_lag = (grad * values[1:]).sum(0)
        grad_lag = by_lag.sum_to_size(lag.shape) if ctx.needs_input_grad[2] else None
        grad_lengthscale = None
        if ctx.needs_input_grad[3]:
            # g^(o) = l^-o G^(o)(z / l), hence d g^(o) / dl = -(o g^(o) + z g^(o+1)) / l.
            orders = torch.arange(ctx.order + 1, dtype=lag.dtype, device=lag.device)
            inner = torch.tensordot(orders, grad * values[:-1], dims=1)
            grad_lengthscale = (-(inner + lag * by_lag) / lengthscale).sum_to_size(lengthscale.shape)
        return None, None, grad_lag, grad_lengthscale


class Envelope(ABC):
    """An even, positive definite function g(z; l) with g(0) = 1."""

    @property
    @abstractmethod
    def highest_order(self) -> int | None:
        """The last derivative that is continuous at z = 0; None if all are."""

    @abstractmethod
    def spectral_density(self, frequency: Tensor, lengthscale: Tensor) -> Tensor:
        """Two-sided density S(f), f in cycles per unit, ``g(z) = integral S(f) cos(2 pi f z) df``."""

    @abstractmethod
    def _evaluate(self, lag: Tensor, lengthscale: Tensor, order: int) -> Tensor:
        """Orders 0..order, (order + 1, *shape), for arguments of one shape; zero where an order is undefined."""

    def derivatives(self, lag: Tensor, lengthscale: Tensor, order: int) -> Tensor:
        """All derivatives with respect to z up to an order.

        Args:
            lag: z, any shape (*s), of either sign.
            lengthscale: l > 0, broadcastable with z.
            order: the last order n. Orders above :attr:`highest_order` are given for z != 0 and zero at z = 0
                (see :func:`require_order` for a check).

        Returns:
            (n + 1, *s), differentiable any number of times in z and l.
        """
        return _EnvelopeDerivatives.apply(self, order, lag, lengthscale)


@dataclass(frozen=True)
class GaussianEnvelope(Envelope):
    """``exp(-z^2 / (2 l^2))``: the squared exponential; its spectrum is a normal density of scale 1 / (2 pi l)."""

    @property
    def highest_order(self) -> None:
        """All derivatives exist."""
        return None

    def spectral_density(self, frequency: Tensor, lengthscale: Tensor) -> Tensor:
        """Normal density with standard deviation 1 / (2 pi l)."""
        return math.sqrt(2.0 * math.pi) * lengthscale * torch.exp(-2.0 * (math.pi * lengthscale * frequency) ** 2)

    def _evaluate(self, lag: Tensor, lengthscale: Tensor, order: int) -> Tensor:
        # g^(n) = (-1)^n He_n(s) exp(-s^2 / 2) / l^n with the probabilists' Hermite polynomials.
        s = (lag / lengthscale).clamp(-50.0, 50.0)
        rows = [torch.exp(-0.5 * s * s)]
        if order:
            rows.append(-s * rows[0])
        for n in range(1, order):
            rows.append(-s * rows[n] - n * rows[n - 1])
        return _over_powers(rows, lengthscale)


@dataclass(frozen=True)
class MaternEnvelope(Envelope):
    """``2^(1-nu) / Gamma(nu) q^nu K_nu(q)``, ``q = sqrt(2 nu) |z| / l``, of any smoothness nu > 0.

    Its spectrum is Student's t density with 2 nu degrees of freedom and scale 1 / (2 pi l). Half-integers are
    polynomials times ``exp(-q)``, every other smoothness is evaluated through Bessel functions.

    Attributes:
        smoothness: nu. The covariance has derivatives up to the largest integer below 2 nu.

    References:
        Stein (1999), Interpolation of Spatial Data, section 2.7; Abramowitz & Stegun (1964), 9.6.28.
    """

    smoothness: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.smoothness) and self.smoothness > 0.0):
            raise InvalidDataError(f"the smoothness of a Matern envelope is positive, got {self.smoothness}")

    @property
    def highest_order(self) -> int:
        """The largest integer below 2 nu: 4 for nu = 5/2, 6 for 7/2, 8 for 9/2."""
        return math.ceil(2.0 * self.smoothness) - 1

    def spectral_density(self, frequency: Tensor, lengthscale: Tensor) -> Tensor:
        """Student's t density with 2 nu degrees of freedom and scale 1 / (2 pi l)."""
        dof = 2.0 * self.smoothness
        t = 2.0 * math.pi * lengthscale * frequency
        log_norm = math.lgamma(0.5 * (dof + 1.0)) - math.lgamma(0.5 * dof) - 0.5 * math.log(dof * math.pi)
        shape = torch.exp(log_norm - 0.5 * (dof + 1.0) * torch.log1p(t * t / dof))
        return 2.0 * math.pi * lengthscale * shape

    def _evaluate(self, lag: Tensor, lengthscale: Tensor, order: int) -> Tensor:
        twice = 2.0 * self.smoothness
        if not (twice == round(twice) and round(twice) % 2 == 1 and self.smoothness <= _LARGEST_CLOSED_FORM):
            scaled = math.sqrt(twice) * lag / lengthscale
            return _over_powers(list(matern_derivatives(self.smoothness, scaled, order)), lengthscale, math.sqrt(twice))
        rate = math.sqrt(twice)
        signed = rate * lag / lengthscale
        # The exponential is zero beyond 745; the polynomial must not become infinite there.
        q = signed.abs().clamp_max(800.0)
        decay = torch.exp(-q)
        sign = signed.sign()
        rows = []
        for n in range(order + 1):
            coefficients = _matern_polynomial(round(self.smoothness - 0.5), n)
            value = torch.full_like(q, coefficients[-1])
            for coefficient in reversed(coefficients[:-1]):
                value = value * q + coefficient
            value = value * decay
            if n % 2:
                value = value * sign
            elif n > self.highest_order:
                value = value * sign.abs()
            rows.append(value)
        return _over_powers(rows, lengthscale, rate)


@functools.lru_cache(maxsize=256)
def _matern_polynomial(p: int, order: int) -> tuple[float, ...]:
    """Coefficients in q of ``e^q (d/dq)^order`` of the Matern correlation with nu = p + 1/2, exact before rounding."""
    scale = Fraction(math.factorial(p), math.factorial(2 * p))
    exact = [
        scale * Fraction(math.factorial(2 * p - k) * 2**k, math.factorial(p - k) * math.factorial(k))
        for k in range(p + 1)
    ]
    for _ in range(order):
        slopes = [(k + 1) * c for k, c in enumerate(exact[1:])] + [Fraction(0)]
        exact = [slope - c for slope, c in zip(slopes, exact, strict=True)]
    return tuple(float(c) for c in exact)


def _over_powers(rows: list[Tensor], lengthscale: Tensor, rate: float = 1.0) -> Tensor:
    """Stack row n times (rate / l)^n."""
    step = rate / lengthscale
    scale = torch.ones_like(step)
    out = torch.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype, device=rows[0].device)
    for n, row in enumerate(rows):
        torch.mul(row, scale, out=out[n])
        scale = scale * step
    return out


def require_order(envelope: Envelope, order: int, purpose: str) -> None:
    """Check that a derivative of the covariance exists.

    Raises:
        InvalidDataError: if ``order`` is above ``envelope.highest_order``.
    """
    highest = envelope.highest_order
    if highest is not None and order > highest:
        raise InvalidDataError(
            f"{purpose} needs the derivative of order {order} of the covariance, but {envelope} has only {highest}; "
            f"choose a smoothness above {order / 2:g}"
        )


def mixture_derivatives(
    envelope: Envelope,
    lag: Tensor,
    weights: Tensor,
    lengthscales: Tensor,
    frequencies: Tensor | None = None,
    order: int = 0,
) -> Tensor:
    """``d^o/dz^o sum_q w_q g(z; l_q) cos(2 pi mu_q z)`` for o = 0..order.

    Args:
        envelope: g.
        lag: z, (*batch, *s); the leading dimensions broadcast with the batch of the parameters.
        weights: w, (*batch, Q).
        lengthscales: l > 0, (*batch, Q), in units of z.
        frequencies: mu, (*batch, Q), in cycles per unit of z; None for none (a sum of envelopes).
        order: the last order.

    Returns:
        (order + 1, *batch, *s), differentiable in every tensor.
    """
    tensors = [t for t in (lag, weights, lengthscales, frequencies) if t is not None]
    tracked = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    pieces = math.ceil(lag.numel() * weights.shape[-1] / _PIECE)
    if weights.dim() > 1 or tracked or pieces < 2:
        return _mixture_derivatives(envelope, lag, weights, lengthscales, frequencies, order)
    rows = [
        _mixture_derivatives(envelope, piece, weights, lengthscales, frequencies, order)
        for piece in lag.reshape(-1).tensor_split(pieces)
    ]
    return torch.cat(rows, dim=1).reshape(order + 1, *lag.shape)


def _mixture_derivatives(
    envelope: Envelope,
    lag: Tensor,
    weights: Tensor,
    lengthscales: Tensor,
    frequencies: Tensor | None,
    order: int,
) -> Tensor:
    """:func:`mixture_derivatives` of all lags at once: some 10 (order + 1) Q numbers for each are alive together."""
    extra = lag.dim() - (weights.dim() - 1)
    w, scale = (_spread(t, extra) for t in (weights, lengthscales))
    z = lag.unsqueeze(-1)
    g = envelope.derivatives(z, scale, order)
    if frequencies is None:
        return (g * w).sum(-1)
    m = 2.0 * math.pi * _spread(frequencies, extra)
    phase = m * z
    cos, sin = torch.cos(phase), torch.sin(phase)
    # Derivatives of the cosine: m^j {cos, -sin, -cos, sin}, weighted once.
    waves = [w * cos]
    power = w
    for j in range(1, order + 1):
        power = power * m
        waves.append(power * (-sin, -cos, sin, cos)[(j - 1) % 4])
    rows = []
    for o in range(order + 1):
        row = g[o] * waves[0]
        for j in range(1, o + 1):
            row = row + math.comb(o, j) * g[o - j] * waves[j]
        rows.append(row.sum(-1))
    return torch.stack(rows)


def grid_columns(
    envelope: Envelope,
    step: float | Tensor,
    count: int,
    weights: Tensor,
    lengthscales: Tensor,
    frequencies: Tensor | None = None,
    order: int = 0,
) -> Tensor:
    """First columns of the Toeplitz matrices ``k^(o)(x_i - x_j)`` on a uniform grid ``x_i = x_0 + i step``.

    The first row of order o is ``(-1)^o`` times the first column (see ``gpkit.operators.toeplitz_matmul``).

    Args:
        envelope: g.
        step: distance of neighbours.
        count: number of points N.
        weights: (*batch, Q), see :func:`mixture_derivatives`.
        lengthscales: (*batch, Q).
        frequencies: (*batch, Q) or None.
        order: the last order.

    Returns:
        (order + 1, *batch, N).
    """
    lag = step * torch.arange(count, dtype=weights.dtype, device=weights.device)
    lag = lag.expand(*weights.shape[:-1], count)
    return mixture_derivatives(envelope, lag, weights, lengthscales, frequencies, order)


def _spread(parameter: Tensor, extra: int) -> Tensor:
    """(*batch, Q) as (*batch, 1, ..., 1, Q) with ``extra`` ones."""
    return parameter.reshape(*parameter.shape[:-1], *([1] * extra), parameter.shape[-1])
