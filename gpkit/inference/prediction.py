"""Prediction for exact Gaussian processes, chosen by the type of the evaluated covariance operator.

GPyTorch chooses by kernel, and wrappers lose the choice; here :func:`strategy_for` looks at what the kernel became.
A structured strategy keeps the evaluated noisy covariance and answers with the operator's own algebra: nothing is
densified, and nothing changes with the number of points.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.errors import GpkitError
from gpkit.inference.conditioning import ConditioningPredictionStrategy
from gpkit.inference.latent_prediction import EigenbasisPredictionStrategy, SparsePrecisionPredictionStrategy
from gpkit.operators import CrossSemiseparableLinearOperator, SemiseparableLinearOperator
from gpkit.operators import generators as sweeps
from gpkit.operators.eigenbasis import EigenbasisLinearOperator
from gpkit.operators.factorised import FactorisedLinearOperator
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from gpkit.operators.sparse_precision import SparsePrecisionLinearOperator

__all__ = ["SemiseparablePredictionStrategy", "strategy_for"]


@functools.singledispatch
def strategy_for(operator: Any) -> type[DefaultPredictionStrategy]:
    """Prediction strategy class for an evaluated (noise-free) train covariance."""
    return DefaultPredictionStrategy


class SemiseparablePredictionStrategy(DefaultPredictionStrategy):
    """Mean and variance at M new times in O(N + M), exact at any N.

    Training targets that are NaN count as missing.
    """

    def __init__(self, train_inputs: Any, train_prior_dist: Any, train_labels: Tensor, likelihood: Any) -> None:
        super().__init__(train_inputs, train_prior_dist, train_labels, likelihood)
        noisy = self.lik_train_train_covar.evaluate_kernel()
        if not isinstance(noisy, SemiseparableLinearOperator):
            raise GpkitError(f"the likelihood turned a semiseparable covariance into {type(noisy).__name__}")
        residual = train_labels - train_prior_dist.mean
        missing = torch.isnan(residual)
        batch = torch.broadcast_shapes(noisy.batch_shape, residual.shape[:-1])
        if bool(missing.any()):
            noise = noisy.diagonal_values.expand(*batch, noisy.shape[-1])
            noise = torch.where(missing, torch.full_like(noise, torch.inf), noise)
            expanded = noisy._expand_batch(batch)
            noisy = expanded._rebuild(expanded.times, expanded.params, noise)
        self.covariance = noisy if noisy.batch_shape == batch else noisy._expand_batch(batch)
        self.residual = torch.where(missing, torch.zeros_like(residual), residual).expand(*batch, noisy.shape[-1])
        self.alpha = self.covariance.solve(self.residual.unsqueeze(-1))

    def exact_prediction(
        self, *, test_mean: Tensor, test_test_covar: Any, test_train_covar: Any
    ) -> tuple[Tensor, LinearOperator]:
        """Predictive mean (*batch, M) and lazy posterior covariance."""
        cross = test_train_covar.evaluate_kernel() if isinstance(test_train_covar, LinearOperator) else test_train_covar
        if not isinstance(cross, CrossSemiseparableLinearOperator):
            raise GpkitError(f"the cross covariance is {type(cross).__name__}, not semiseparable")
        noisy = self.covariance
        batch = torch.broadcast_shapes(cross.batch_shape, noisy.batch_shape)
        cross = cross if cross.batch_shape == batch else cross._expand_batch(batch)
        noisy = noisy if noisy.batch_shape == batch else noisy._expand_batch(batch)
        covariance = PosteriorCovarianceLinearOperator(
            cross.rows,
            noisy.times,
            noisy.params,
            noisy.diagonal_values,
            torch.zeros_like(cross.rows),
            noisy.feedback,
            structure=noisy.structure,
        )
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*cross._args, *noisy._args)):
            mean = cross._matmul(self.alpha).squeeze(-1)
        else:
            # One smoothing sweep gives mean and variance together; the operator keeps the variance.
            joint = covariance._joint(torch.full_like(cross.rows, torch.inf))
            order, inverse = joint._order()
            values = torch.cat([self.residual.expand(*batch, -1), torch.zeros_like(cross.rows)], dim=-1)
            if order is not None:
                values = values.gather(-1, order)
            mean, variance = sweeps.smooth(joint._sorted(), values)
            if inverse is not None:
                mean, variance = mean.gather(-1, inverse), variance.gather(-1, inverse)
            n = noisy.shape[-1]
            mean = mean[..., n:]
            covariance.remember_variance(variance[..., n:])
        return test_mean + mean, covariance

    def get_fantasy_strategy(self, *args: Any, **kwargs: Any) -> Any:
        """Not used: a semiseparable model is conditioned again in O(N), see ``gpkit.models.ExactGP``."""
        raise GpkitError("call get_fantasy_model of gpkit.models.ExactGP, which conditions again in O(N)")


@strategy_for.register
def _(operator: SemiseparableLinearOperator) -> type[DefaultPredictionStrategy]:
    return SemiseparablePredictionStrategy


@strategy_for.register
def _(operator: FactorisedLinearOperator) -> type[DefaultPredictionStrategy]:
    return ConditioningPredictionStrategy


@strategy_for.register
def _(operator: EigenbasisLinearOperator) -> type[DefaultPredictionStrategy]:
    return EigenbasisPredictionStrategy


@strategy_for.register
def _(operator: SparsePrecisionLinearOperator) -> type[DefaultPredictionStrategy]:
    return SparsePrecisionPredictionStrategy
