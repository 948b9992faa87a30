"""Exact evidence of Gaussian-process regression with a dense covariance, and what follows from its factor.

One Cholesky factorisation per evaluation; the gradient with respect to the covariance is closed form, so that whatever
made the covariance is differentiated by torch and the algebra is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError

__all__ = ["DenseFactor", "dense_log_likelihood", "semidefinite_root"]

Array = NDArray[np.float64]


def _factor(covariance: Tensor) -> Tensor:
    lower, info = torch.linalg.cholesky_ex(covariance)
    failed = int(info)
    if failed or not bool(torch.isfinite(covariance).all()):
        raise NotPositiveDefiniteError(
            "the covariance of the data has no Cholesky factor: the noise is too small, or observations repeat",
            row=failed - 1 if failed else None,
        )
    return lower


class _Evidence(torch.autograd.Function):
    """ln N(y; 0, C), with its derivative (alpha alpha^T - C^-1) / 2 with respect to C."""

    @staticmethod
    def forward(ctx: Any, covariance: Tensor, targets: Tensor) -> Tensor:
        lower = _factor(covariance)
        alpha = torch.cholesky_solve(targets, lower)
        ctx.save_for_backward(lower, alpha)
        sets = targets.shape[1]
        log_det = 2.0 * lower.diagonal().log().sum()
        return -0.5 * ((targets * alpha).sum() + sets * (log_det + len(lower) * math.log(2.0 * math.pi)))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor]:
        lower, alpha = ctx.saved_tensors
        (grad,) = cotangents
        slope = alpha @ alpha.mT - alpha.shape[1] * torch.cholesky_inverse(lower)
        return 0.5 * grad * slope, -grad * alpha


def dense_log_likelihood(covariance: Tensor, targets: Tensor) -> Tensor:
    """ln N(y; 0, C), summed over T data sets; first derivatives only.

    Args:
        covariance: C, (N, N), noise included.
        targets: y, (N,) or (N, T).

    Raises:
        NotPositiveDefiniteError: C has no Cholesky factor.
    """
    y = targets[:, None] if targets.dim() == 1 else targets
    value: Tensor = _Evidence.apply(covariance, y)
    return value


@dataclass(frozen=True, eq=False)
class DenseFactor:
    """A factorised covariance of data, with the data solved.

    Attributes:
        lower: Cholesky factor of C, (N, N).
        alpha: C^-1 y, (N,).
        targets: y, (N,).
    """

    lower: Tensor
    alpha: Tensor
    targets: Tensor

    @classmethod
    def of(cls, covariance: Tensor, targets: Tensor) -> DenseFactor:
        """Factorise.

        Raises:
            NotPositiveDefiniteError: C has no Cholesky factor.
        """
        lower = _factor(covariance)
        return cls(lower, torch.cholesky_solve(targets[:, None], lower)[:, 0], targets)

    def leave_out(self, size: int) -> tuple[Array, Array]:
        """Predictions of each block of ``size`` rows from all the others: means (N/size, size), covariances.

        References:
            Sundararajan, S. and Keerthi, S. S., Neural Computation 13, 1103 (2001).
        """
        n = len(self.targets)
        inverse = torch.cholesky_inverse(self.lower).reshape(n // size, size, n // size, size)
        blocks = torch.diagonal(inverse, dim1=0, dim2=2).permute(2, 0, 1)
        factors = torch.linalg.cholesky(blocks)
        off = torch.cholesky_solve(self.alpha.reshape(-1, size, 1), factors)[..., 0]
        return (self.targets.reshape(-1, size) - off).numpy(), torch.cholesky_inverse(factors).numpy()


def semidefinite_root(covariance: Array, scale: float) -> Array:
    """A root (M, r) of a positive semidefinite matrix (M, M), by Cholesky with complete pivoting.

    Columns stop where what is left is rounding of numbers of the size ``scale``: nothing is added to the diagonal.

    Raises:
        NotPositiveDefiniteError: what is left is negative by more than rounding.
    """
    m = len(covariance)
    if not m:
        return np.zeros((0, 0))
    tolerance = 4.0 * m * np.finfo(np.float64).eps * scale
    packed, pivot, rank, _ = lapack.dpstrf(np.array(covariance, order="F"), tol=tolerance, lower=1)
    root = np.zeros((m, int(rank)))
    root[pivot - 1] = np.tril(packed)[:, : int(rank)]
    left = np.diag(covariance) - np.square(root).sum(1)
    if float(left.min()) < -1e-6 * scale:
        raise NotPositiveDefiniteError(
            "the covariance of the predictions is not positive semidefinite", row=int(left.argmin())
        )
    return root
