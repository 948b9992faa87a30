"""What the engine returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["FilterResult", "SmoothResult"]


@dataclass(frozen=True)
class FilterResult:
    """Moments of R functions at N nodes given the sites up to each node.

    Attributes:
        log_evidence: logarithm of the integral of prior times sites, (*batch,).
        mean: given the sites up to and including the node, (*batch, N, R).
        covariance: the same, (*batch, N, R, R).
        predicted_mean: given the sites before the node only, (*batch, N, R).
        predicted_covariance: the same, (*batch, N, R, R).
    """

    log_evidence: Tensor
    mean: Tensor
    covariance: Tensor
    predicted_mean: Tensor
    predicted_covariance: Tensor


@dataclass(frozen=True)
class SmoothResult:
    """Posterior moments of R functions at N nodes given all sites.

    Attributes:
        log_evidence: logarithm of the integral of prior times sites, (*batch,).
        mean: (*batch, N, R).
        covariance: of the functions at one node, (*batch, N, R, R).
        lag_one: ``Cov(u_j, u_j+1)``, (*batch, N - 1, R, R); None unless it was asked for.
    """

    log_evidence: Tensor
    mean: Tensor
    covariance: Tensor
    lag_one: Tensor | None = None

    @property
    def variance(self) -> Tensor:
        """Variance of each function at each node, (*batch, N, R)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)
