"""Prediction by conditioning with any operator that has an exact solve."""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.errors import GpkitError
from gpkit.operators.conditioned import ConditionedLinearOperator
from gpkit.operators.factorised import FactorisedLinearOperator

__all__ = ["ConditioningPredictionStrategy", "StructuredPredictionStrategy"]


class StructuredPredictionStrategy(DefaultPredictionStrategy):
    """The noisy covariance of the data, of one kind of operator, and the residuals.

    Training targets that are NaN count as missing.
    """

    kind: type[Any]

    def __init__(self, train_inputs: Any, train_prior_dist: Any, train_labels: Tensor, likelihood: Any) -> None:
        super().__init__(train_inputs, train_prior_dist, train_labels, likelihood)
        noisy = self.lik_train_train_covar.evaluate_kernel()
        if not isinstance(noisy, self.kind):
            raise GpkitError(f"the likelihood turned a structured covariance into {type(noisy).__name__}")
        residual = train_labels - train_prior_dist.mean
        missing = torch.isnan(residual)
        if bool(missing.any()):
            noisy = noisy.add_diagonal(torch.zeros_like(residual).masked_fill(missing, torch.inf))
        batch = torch.broadcast_shapes(noisy.batch_shape, residual.shape[:-1])
        self.covariance: Any = noisy if noisy.batch_shape == batch else noisy._expand_batch(batch)
        self.residual = residual.masked_fill(missing, 0.0).expand(*batch, noisy.shape[-1])


class ConditioningPredictionStrategy(StructuredPredictionStrategy):
    """Mean and lazy covariance from one factorisation of the data, kept between predictions."""

    kind = FactorisedLinearOperator

    def __init__(self, train_inputs: Any, train_prior_dist: Any, train_labels: Tensor, likelihood: Any) -> None:
        super().__init__(train_inputs, train_prior_dist, train_labels, likelihood)
        self.alpha = self.covariance.solve(self.residual.unsqueeze(-1))

    def exact_prediction(
        self, *, test_mean: Tensor, test_test_covar: Any, test_train_covar: Any
    ) -> tuple[Tensor, LinearOperator]:
        """Predictive mean (*batch, M) and lazy posterior covariance."""
        cross = test_train_covar.evaluate_kernel()
        mean = test_mean + (cross @ self.alpha).squeeze(-1)
        data = self.covariance
        batch = torch.broadcast_shapes(cross.batch_shape, data.batch_shape, test_test_covar.batch_shape)
        parts = [p if p.batch_shape == batch else p.expand(*batch, *p.shape[-2:]) for p in (cross, data)]
        diagonal = torch.zeros(*batch, cross.shape[-2], dtype=mean.dtype, device=mean.device)
        return mean, ConditionedLinearOperator(diagonal, test_test_covar, *parts)

    def get_fantasy_strategy(self, *args: Any, **kwargs: Any) -> Any:
        """Not used: a structured model is conditioned again, see ``gpkit.models.ExactGP``."""
        raise GpkitError("call get_fantasy_model of gpkit.models.ExactGP, which conditions again")
