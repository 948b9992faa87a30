"""A mixture kernel and its derivatives at the lags of one axis, with the adjoint to its parameters.

Every derivative of ``g(z) cos(m z)`` is a sum of products of a derivative of the envelope with a cosine or a sine. The
products are made once: values are then a product of a small matrix with them, gradients a product of them with another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gpkit.kernels.stationary import Envelope, GaussianEnvelope

__all__ = ["MixtureColumns", "lengthscales", "log_inverse_lengths"]

_SIGNS = (1.0, -1.0, -1.0, 1.0)
"""Derivatives of the cosine are the cosine, minus the sine, minus the cosine and the sine."""


def lengthscales(envelope: Envelope, log_inverse: Tensor) -> Tensor:
    """Length scales from the published parameter: ``exp(-z^2 e^l)`` there is ``exp(-z^2 / (2 s^2))`` here."""
    if isinstance(envelope, GaussianEnvelope):
        return torch.exp(-0.5 * log_inverse) / math.sqrt(2.0)
    return torch.exp(-log_inverse)


def log_inverse_lengths(envelope: Envelope, lengths: Tensor) -> Tensor:
    """Inverse of :func:`lengthscales`."""
    if isinstance(envelope, GaussianEnvelope):
        return -2.0 * torch.log(math.sqrt(2.0) * lengths)
    return -torch.log(lengths)


class MixtureColumns:
    """Derivatives of ``sum_q w_q g(z; l_q) cos(2 pi mu_q z)`` at lags.

    Args:
        envelope: g.
        lags: z, (N,).
        kernel: Log weights, log inverse lengths and frequencies, (Q,) each.
        orders: Of the derivatives that are needed.

    Attributes:
        values: (highest order + 1, N); orders that are not needed are zero.
    """

    def __init__(self, envelope: Envelope, lags: Tensor, kernel: Sequence[Tensor], orders: Sequence[int]) -> None:
        """Evaluate."""
        log_weights, log_inverse, frequencies = kernel
        self._lags, self._orders, highest = lags, tuple(sorted(set(orders))), max(orders, default=0)
        self._weights, self._rate = torch.exp(log_weights), 2.0 * math.pi * frequencies
        # d length / d parameter = -slope * length.
        self._slope = 0.5 if isinstance(envelope, GaussianEnvelope) else 1.0
        g = envelope.derivatives(lags, lengthscales(envelope, log_inverse)[:, None], highest + 1)
        phase = self._rate[:, None] * lags
        # Of envelope, cosine or sine, component and lag, (O + 2, 2, Q, N).
        self._products = g[:, None] * torch.stack([torch.cos(phase), torch.sin(phase)])
        self._powers = self._rate ** torch.arange(highest + 1, dtype=torch.float64)[:, None]
        mixed = torch.zeros(highest + 1, *self._products.shape[:3], dtype=torch.float64)
        weighted = self._weights * self._powers
        for o, j, factor in self._terms():
            mixed[o, o - j, j % 2] = factor * weighted[j]
        self.values = mixed.reshape(highest + 1, -1) @ self._products.reshape(-1, len(lags))

    def _terms(self) -> Iterator[tuple[int, int, float]]:
        """Order, order of the cosine's derivative in it, and factor of every term of Leibniz' rule."""
        for o in self._orders:
            for j in range(o + 1):
                yield o, j, math.comb(o, j) * _SIGNS[j % 4]

    def gradient(self, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients with respect to the kernel's parameters, (Q,) each, from that with respect to the values."""
        both = torch.cat([seeds, self._lags * seeds])
        sums = self._products.reshape(-1, len(self._lags)) @ both.T
        plain, lagged = sums.reshape(*self._products.shape[:3], 2, len(seeds)).unbind(3)
        weight, length, rate = (torch.zeros_like(self._rate) for _ in range(3))
        for o, j, factor in self._terms():
            own = plain[o - j, j % 2, :, o]
            weight += factor * self._powers[j] * own
            length += factor * self._powers[j] * ((o - j) * own + lagged[o - j + 1, j % 2, :, o])
            # The phase is rate times lag: another derivative of the cosine, and that of the power before it.
            turned = factor * _SIGNS[j % 4] * _SIGNS[(j + 1) % 4]
            rate += turned * self._powers[j] * lagged[o - j, (j + 1) % 2, :, o]
            if j:
                rate += factor * j * self._powers[j - 1] * own
        return self._weights * weight, self._slope * self._weights * length, 2.0 * math.pi * self._weights * rate
