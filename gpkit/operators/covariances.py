"""Closed-form autocovariances of the state-space factors in torch, differentiable and smooth everywhere.

They serve wherever a covariance is needed entry by entry: dense evaluation at arbitrary inputs, single entries of an
operator, plots. The compiled recursions never use them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "FACTOR_PARAMETERS",
    "GIVEN",
    "Structure",
    "autocovariance",
    "scale_variances",
    "split_parameters",
    "stationary_variance",
]

Structure = tuple[tuple[str, ...], ...]
"""Sum (outer tuple) of products (inner tuples) of factor names; see :mod:`gpkit.recursions.structure`."""

GIVEN: Structure = (("given",),)
"""A state space given by its generator: parameters p (J) and P_inf (J * J, by rows); h is the first unit vector."""

FACTOR_PARAMETERS = {"exponential": 1, "sho": 2, "matern32": 1, "matern52": 1, "celerite": 4}


def _exponential(lag: Tensor, rate: Tensor) -> Tensor:
    return torch.exp(-rate * lag)


def _matern32(lag: Tensor, rate: Tensor) -> Tensor:
    x = rate * lag
    return (1.0 + x) * torch.exp(-x)


def _matern52(lag: Tensor, rate: Tensor) -> Tensor:
    x = rate * lag
    return (1.0 + x + x * x / 3.0) * torch.exp(-x)


def _celerite(lag: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    angle = d * lag
    return torch.exp(-c * lag) * (a * torch.cos(angle) + b * torch.sin(angle))


def _sho(lag: Tensor, frequency: Tensor, quality: Tensor) -> Tensor:
    """Unit-variance oscillator; one smooth function of quality, exact at critical damping (quality 1/2).

    With beta = 1/(2Q), mu = beta^2 - 1 and z = mu x^2 the correlation is ``e^(-beta x) (cosh sqrt(z) + beta x
    sinh(sqrt(z)) / sqrt(z))``. Both functions of z are entire: near z = 0 their series is used, so that neither the
    value nor its derivatives see the square root.
    """
    x = frequency * lag
    beta = 0.5 / quality
    mu = (beta - 1.0) * (beta + 1.0)
    z = mu * x * x
    small = z.abs() < 1e-2
    over = ~small & (z > 0.0)
    under = ~small & (z < 0.0)
    # Branches that are not taken get arguments for which values and derivatives are finite.
    one = torch.ones_like(z)
    root = torch.where(over, mu, one).sqrt()
    slow = 1.0 / (beta + root)
    decay = torch.exp(-slow * x)
    lost = torch.expm1(-2.0 * torch.where(over, root * x, one))
    overdamped = decay - slow * decay * lost / (2.0 * root)
    root = torch.where(under, -mu, one).sqrt()
    phase = torch.where(under, root * x, one)
    underdamped = torch.exp(-beta * x) * (torch.cos(phase) + beta * torch.sin(phase) / root)
    z = torch.where(small, z, torch.zeros_like(z))
    cosh = 1.0 + z / 2.0 * (1.0 + z / 12.0 * (1.0 + z / 30.0 * (1.0 + z / 56.0 * (1.0 + z / 90.0))))
    sinhc = 1.0 + z / 6.0 * (1.0 + z / 20.0 * (1.0 + z / 42.0 * (1.0 + z / 72.0 * (1.0 + z / 110.0))))
    critical = torch.exp(-beta * x) * (cosh + beta * x * sinhc)
    return torch.where(over, overdamped, torch.where(under, underdamped, critical))


_FACTORS: dict[str, Callable[..., Tensor]] = {
    "exponential": _exponential,
    "sho": _sho,
    "matern32": _matern32,
    "matern52": _matern52,
    "celerite": _celerite,
}


def split_parameters(
    structure: Structure, params: Float[Tensor, "*batch p"]
) -> list[tuple[Tensor, list[tuple[str, list[Tensor]]]]]:
    """Per term the variance and, per factor, its name and parameters; each parameter has the batch shape."""
    terms = []
    at = 0
    for term in structure:
        variance = params[..., at]
        at += 1
        factors = []
        for name in term:
            count = FACTOR_PARAMETERS[name]
            factors.append((name, [params[..., at + k] for k in range(count)]))
            at += count
        terms.append((variance, factors))
    return terms


def autocovariance(structure: Structure, params: Tensor, lag: Tensor, feedback: Tensor | None = None) -> Tensor:
    """Covariance at non-negative lags.

    Args:
        structure: sum of products of factors, or GIVEN.
        params: (*batch, P).
        lag: (*batch, ...) absolute time differences; its leading dimensions broadcast with the batch.
        feedback: (*batch, J, J), the generator F of a given state space, else None.

    Returns:
        Covariance of the shape of ``lag`` broadcast with the batch.
    """
    extra = lag.dim() - (params.dim() - 1)
    if structure == GIVEN:
        assert feedback is not None
        j = feedback.shape[-1]
        lead = feedback.shape[:-2]
        generator = feedback.reshape(*lead, *([1] * extra), j, j)
        column = params[..., :j].reshape(*lead, *([1] * extra), j, 1)
        return (torch.matrix_exp(generator * lag[..., None, None]) @ column)[..., 0, 0]
    total: Tensor | None = None
    for variance, factors in split_parameters(structure, params):
        value = variance.reshape((*variance.shape, *([1] * extra)))
        for name, arguments in factors:
            value = value * _FACTORS[name](lag, *(a.reshape((*a.shape, *([1] * extra))) for a in arguments))
        total = value if total is None else total + value
    assert total is not None
    return total


def scale_variances(structure: Structure, params: Tensor, factor: Tensor) -> Tensor:
    """Parameters (*batch, P) of the covariance times ``factor`` (*batch,)."""
    column = factor.unsqueeze(-1)
    if structure == GIVEN:
        return params * column
    pieces = []
    at = 0
    for term in structure:
        width = 1 + sum(FACTOR_PARAMETERS[name] for name in term)
        pieces += [params[..., at : at + 1] * column, params[..., at + 1 : at + width]]
        at += width
    return torch.cat(pieces, dim=-1)


def stationary_variance(structure: Structure, params: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch"]:
    """Covariance at lag zero."""
    if structure == GIVEN:
        return params[..., 0]
    total: Tensor | None = None
    for variance, factors in split_parameters(structure, params):
        value = variance
        for name, arguments in factors:
            if name == "celerite":
                value = value * arguments[0]
        total = value if total is None else total + value
    assert total is not None
    return total
