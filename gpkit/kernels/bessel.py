"""Matern correlations of any smoothness and their derivatives, through modified Bessel functions.

With ``h_nu(q) = q^nu K_nu(q)`` the derivative is ``h_nu' = -q h_(nu-1)``, so that every order is a short sum of powers
times ``h_(nu-i)``. SciPy evaluates K below order 30; above, where it would overflow near zero, the uniform (Debye)
expansion divided by Stirling's is accurate to rounding.

References:
    Abramowitz & Stegun (1964), Handbook of Mathematical Functions, 9.6.28 (recurrence), 9.7.8 (uniform expansion);
    NIST Digital Library of Mathematical Functions, section 10.41.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

__all__ = ["matern_derivatives"]

Array = NDArray[np.float64]

_UNIFORM_FROM = 30.0
_UNIFORM_TERMS = 14


@functools.lru_cache(maxsize=1)
def _uniform_polynomials() -> tuple[Array, ...]:
    """Coefficients (lowest first) of u_k(t) in the uniform expansion of K, DLMF 10.41.9."""
    polynomials = [[Fraction(1)]]
    for _ in range(_UNIFORM_TERMS - 1):
        u = polynomials[-1]
        new = [Fraction(0)] * (len(u) + 3)
        for power, c in enumerate(u):
            # u_(k+1) = t^2 (1 - t^2) u_k' / 2 + (1/8) int_0^t (1 - 5 s^2) u_k ds
            new[power + 1] += Fraction(power, 2) * c + c / (8 * (power + 1))
            new[power + 3] -= Fraction(power, 2) * c + 5 * c / (8 * (power + 3))
        polynomials.append(new)
    return tuple(np.array([float(c) for c in p]) for p in polynomials)


def _uniform(nu: float, q: Array) -> Array:
    """``h_nu(q) / h_nu(0)`` for large nu: a Gaussian-like main term times two short series."""
    z = q / nu
    s = np.hypot(1.0, z)
    t = 1.0 / s
    excess = z * (z / (1.0 + s))  # s - 1 without cancellation
    series = np.zeros_like(q)
    for k in reversed(range(_UNIFORM_TERMS)):
        series = np.polynomial.polynomial.polyval(t, _uniform_polynomials()[k]) - series / nu
    return np.exp(nu * (np.log1p(0.5 * excess) - excess) - _stirling(nu)) / np.sqrt(s) * series


def _stirling(nu: float) -> float:
    """``log Gamma(nu) - [(nu - 1/2) log nu - nu + log(2 pi) / 2]``."""
    x = 1.0 / (nu * nu)
    return (1.0 / 12 - x * (1.0 / 360 - x * (1.0 / 1260 - x * (1.0 / 1680 - x / 1188)))) / nu


def _normalised(nu: float, q: Array) -> Array:
    """``h_nu(q) / h_nu(0)``, nu > 0, q >= 0."""
    if nu >= _UNIFORM_FROM:
        return _uniform(nu, q)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is replaced below
        value = np.exp((1.0 - nu) * math.log(2.0) - math.lgamma(nu) + nu * np.log(q) - q) * special.kve(nu, q)
    # Where K overflows, or at zero, the correlation is one to rounding.
    return np.where(np.isfinite(value), value, np.where(q < 1.0, 1.0, 0.0))


def matern_derivatives(smoothness: float, scaled_lag: Tensor, order: int) -> Tensor:
    """Derivatives of the Matern correlation with respect to ``q = sqrt(2 nu) z / l``.

    Args:
        smoothness: nu > 0.
        scaled_lag: q, (*s), of either sign.
        order: the last order n.

    Returns:
        (n + 1, *s) float64, not differentiable; an order that does not exist at q = 0 is zero there.
    """
    signed = scaled_lag.detach().cpu().to(torch.float64).numpy().reshape(-1)
    sign = np.sign(signed)
    q = np.minimum(np.abs(signed), 1e8)
    out = np.zeros((order + 1, *q.shape))
    log_head = (1.0 - smoothness) * math.log(2.0) - math.lgamma(smoothness)
    # Bessel functions of the orders that diverge at zero are kept inside the range of the exponent.
    log_q = np.log(np.maximum(q, 1e-30))
    for i in range(order + 1):
        mu = smoothness - i
        # 2^(1-nu) / Gamma(nu) h_mu(q), with h_mu(0) = 2^(mu-1) Gamma(mu) for mu > 0.
        if mu > 0.0:
            head = _normalised(mu, q) / math.prod(2.0 * (smoothness - k) for k in range(1, i + 1))
        else:
            log_bessel = log_head + mu * log_q - q + np.log(special.kve(-mu, np.maximum(q, 1e-30)))
        for n in range(i, min(2 * i, order) + 1):
            power = 2 * i - n
            weight = (-1.0) ** i * math.factorial(n) / (math.factorial(power) * math.factorial(n - i) * 2.0 ** (n - i))
            if mu > 0.0:
                out[n] += weight * head * q**power
            else:
                out[n] += np.where(q > 0.0, weight * np.exp(log_bessel + power * log_q), 0.0)
    for n in range(order + 1):
        if n % 2:
            out[n] *= sign
        elif n >= 2.0 * smoothness:
            out[n] *= np.abs(sign)
    return torch.from_numpy(out).reshape(order + 1, *scaled_lag.shape).to(scaled_lag)
