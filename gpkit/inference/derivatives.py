"""Derivatives of a Gaussian process given data: posterior of ``L u`` for a linear differential operator L."""

from __future__ import annotations

from typing import Any

import gpytorch
import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.conditioning import ConditioningPredictionStrategy
from gpkit.kernels.differential import DifferentialOperator, derivative_covariance
from gpkit.operators.conditioned import ConditionedLinearOperator

__all__ = ["derivative_posterior"]


def derivative_posterior(model: Any, operator: DifferentialOperator, x: Tensor) -> tuple[Tensor, LinearOperator]:
    """Mean and lazy covariance of ``L u`` at points, given the training data of a model.

    Args:
        model: a fitted :class:`gpkit.models.ExactGP` in eval mode with a structured kernel and a constant or zero mean.
        operator: L; its derivatives of the kernel must exist.
        x: (M, d) points.

    Returns:
        The mean (*batch, M) and the covariance (*batch, M, M); ``covariance.diagonal()`` is the variance.

    Raises:
        InvalidDataError: if the model is in training mode, has another mean, or a derivative does not exist.
    """
    if model.training:
        raise InvalidDataError("derivatives are predicted from data: call model.eval() first")
    if not isinstance(model.mean_module, gpytorch.means.ConstantMean | gpytorch.means.ZeroMean):
        name = type(model.mean_module).__name__
        raise InvalidDataError(f"the derivative of a {name} is not known; use a constant mean")
    x = x.unsqueeze(-1) if x.dim() == 1 else x
    # The call makes the strategy, or makes it again if a parameter has changed.
    model(x[:1])
    strategy = model.prediction_strategy
    if not isinstance(strategy, ConditioningPredictionStrategy):
        raise InvalidDataError(f"{type(model.covar_module).__name__} has no registered derivatives")
    kernel, (train,) = model.covar_module, model.train_inputs
    value = DifferentialOperator.identity(operator.dims)
    cross = derivative_covariance(kernel, operator, x, value, train)
    mean = (cross @ strategy.alpha).squeeze(-1)
    constant = operator.terms.get((0,) * operator.dims, 0.0)
    level = constant(x) if callable(constant) else constant
    mean = mean + level * model.mean_module(x)
    prior = derivative_covariance(kernel, operator, x, operator, x)
    diagonal = torch.zeros_like(mean)
    return mean, ConditionedLinearOperator(diagonal, prior, cross, strategy.covariance)
