r"""Radial covariances of the ambient space, with the derivatives that gradient fields need.

For k a function of s = |h|^2 / 2, the gradient of a Gaussian process with covariance k has the covariance
:math:`-k'(s) I - k''(s) h h^T`. Both functions of a Matern covariance are again Matern covariances, of lower
smoothness at the same rate, so that no formula is singular at h = 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError

__all__ = ["RADIALS", "correlation", "gradient_correlation"]

RADIALS: dict[str, float] = {
    "matern12": 0.5,
    "matern32": 1.5,
    "matern52": 2.5,
    "matern72": 3.5,
    "matern92": 4.5,
    "rbf": math.inf,
}
"""Smoothness nu by name."""

_POLYNOMIALS = {
    0.5: (1.0,),
    1.5: (1.0, 1.0),
    2.5: (1.0, 1.0, 1.0 / 3.0),
    3.5: (1.0, 1.0, 0.4, 1.0 / 15.0),
    4.5: (1.0, 1.0, 3.0 / 7.0, 2.0 / 21.0, 1.0 / 105.0),
}


def _matern(nu: float, s: Tensor) -> Tensor:
    """Matern correlation at rate times distance s."""
    total = torch.zeros_like(s)
    for coefficient in reversed(_POLYNOMIALS[nu]):
        total = total * s + coefficient
    return total * torch.exp(-s)


def correlation(name: str, distance: Tensor, lengthscale: Tensor) -> Tensor:
    """k(r) with k(0) = 1.

    Args:
        name: One of :data:`RADIALS`.
        distance: r, any shape.
        lengthscale: Positive, in the units of the distance.
    """
    nu = RADIALS[name]
    if math.isinf(nu):
        return torch.exp(-0.5 * (distance / lengthscale) ** 2)
    return _matern(nu, math.sqrt(2.0 * nu) * distance / lengthscale)


def gradient_correlation(name: str, distance: Tensor, lengthscale: Tensor) -> tuple[Tensor, Tensor]:
    r"""Functions a and b with covariance :math:`a I - b h h^T` of a gradient field of unit variance per coordinate.

    Args:
        name: Of the potential's covariance: "rbf", or Matern with nu of at least 5/2.
        distance: |h|, any shape.
        lengthscale: Of the potential.

    Raises:
        InvalidDataError: the potential is too rough to have a gradient with finite curvature at h = 0.

    References:
        Narcowich, F. J. and Ward, J. D., Mathematics of Computation 63, 661 (1994): matrix-valued kernels without
        divergence or curl.
    """
    nu = RADIALS[name]
    if math.isinf(nu):
        a = torch.exp(-0.5 * (distance / lengthscale) ** 2)
        return a, a / lengthscale**2
    if nu < 2.5:
        raise InvalidDataError(f"a potential of smoothness {nu} is too rough; choose matern52 or smoother")
    rate = math.sqrt(2.0 * nu) / lengthscale
    s = rate * distance
    return _matern(nu - 1.0, s), rate**2 / (2.0 * (nu - 2.0)) * _matern(nu - 2.0, s)
