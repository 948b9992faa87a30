"""Prediction where the data are seen through few unknowns: weights of modes, or values with a sparse precision.

The posterior of the unknowns is again of the kind that the prior was, and so is the covariance of predictions: it is an
operator of the same type, whose variances, products and draws cost what those of the prior cost.
"""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.errors import GpkitError
from gpkit.inference.conditioning import StructuredPredictionStrategy
from gpkit.operators.eigenbasis import CrossEigenbasisLinearOperator, EigenbasisLinearOperator
from gpkit.operators.precision_layout import PrecisionLayout
from gpkit.operators.sparse_precision import SparsePrecisionLinearOperator

__all__ = ["EigenbasisPredictionStrategy", "SparsePrecisionPredictionStrategy"]


class _LatentPredictionStrategy(StructuredPredictionStrategy):
    """What both strategies here refuse."""

    def get_fantasy_strategy(self, *args: Any, **kwargs: Any) -> Any:
        """Not used: a structured model is conditioned again on all data."""
        raise GpkitError("condition again: give all data, old and new, to a new model")


class EigenbasisPredictionStrategy(_LatentPredictionStrategy):
    """Posterior weights of k modes, O(N k^2 + k^3) once and O(k^2) per new point."""

    kind = EigenbasisLinearOperator

    def exact_prediction(
        self, *, test_mean: Tensor, test_test_covar: Any, test_train_covar: Any
    ) -> tuple[Tensor, LinearOperator]:
        """Predictive mean (*batch, M) and covariance of rank k."""
        cross, prior = (_evaluated(covariance) for covariance in (test_train_covar, test_test_covar))
        if not isinstance(cross, CrossEigenbasisLinearOperator):
            if not isinstance(cross, EigenbasisLinearOperator):  # the same points twice give the square operator
                raise GpkitError(f"the cross covariance is {type(cross).__name__}, not one of modes")
            cross = CrossEigenbasisLinearOperator(cross.features, cross.features, cross.spectrum)
        precision, root, factor = self.covariance._inner()
        data = self.covariance.features.mT @ (precision * self.residual).unsqueeze(-1)
        white = torch.linalg.solve_triangular(factor, root.unsqueeze(-1) * data, upper=False)
        eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        features = (cross.left * root.unsqueeze(-2)) @ inverse.mT
        mean = test_mean + (features @ white).squeeze(-1)
        ones = torch.ones_like(features[..., 0, :])
        lost = prior.diagonal_values if isinstance(prior, EigenbasisLinearOperator) else torch.zeros_like(mean)
        return mean, EigenbasisLinearOperator(features, ones, lost.expand(features.shape[:-1]))


class SparsePrecisionPredictionStrategy(_LatentPredictionStrategy):
    """Posterior of all N unknowns by one sparse factorisation; the cross covariance is never formed."""

    kind = SparsePrecisionLinearOperator

    def exact_prediction(
        self, *, test_mean: Tensor, test_test_covar: Any, test_train_covar: Any
    ) -> tuple[Tensor, LinearOperator]:
        """Predictive mean (*batch, M) and the covariance ``E A^-1 E^T`` with the posterior's sparse precision A."""
        prior = _evaluated(test_test_covar)
        if not isinstance(prior, SparsePrecisionLinearOperator):
            raise GpkitError(f"the covariance at new points is {type(prior).__name__}, not one of a sparse precision")
        data = self.covariance
        residual = self.residual.reshape(-1, self.residual.shape[-1])
        pairs = list(zip(data._noisy_pairs(), data._each(), residual, strict=True))
        (_, first), _, _ = pairs[0]
        layout = PrecisionLayout(first.pattern, prior.layout.selection)
        means = [
            layout.up(posterior.solve(data.layout.down((row / diagonal).unsqueeze(-1)))).squeeze(-1)
            for (_, posterior), (_, diagonal), row in pairs
        ]
        values = torch.stack([posterior.values for (_, posterior), _, _ in pairs])
        batch = data.batch_shape
        mean = test_mean + torch.stack(means).reshape(*batch, -1)
        zeros = torch.zeros(*batch, mean.shape[-1], dtype=mean.dtype)
        return mean, SparsePrecisionLinearOperator(values.reshape(*batch, -1), zeros, layout=layout)


def _evaluated(covariance: Any) -> Any:
    return covariance.evaluate_kernel() if isinstance(covariance, LinearOperator) else covariance
