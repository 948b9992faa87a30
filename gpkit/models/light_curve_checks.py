"""What a fitted light-curve model says of each datum: whitened residuals and exact leave-one-out predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gpkit.errors import NotPositiveDefiniteError
from gpkit.models.light_curve_results import LeaveOneOut
from gpkit.recursions import linear, series
from gpkit.recursions.structure import block_shape, marker

__all__ = ["leave_one_out", "whitened_residuals"]

Array = NDArray[np.float64]


def whitened_residuals(structure: Any, parameters: Array, time: Array, residual: Array, noise: Array) -> Array:
    """One-step-ahead residuals (N,) over their standard deviations.

    Args:
        structure: of the kernel.
        parameters: of the structure, one set.
        time: (N,), sorted.
        residual: (N,) values less the mean.
        noise: (N,) variances.

    Raises:
        NotPositiveDefiniteError: if the covariance is not positive definite.
    """
    nb, b = block_shape(structure)
    blocks, p = linear.transition_blocks(marker(structure), parameters, time, nb, b)
    gains, pivots, bad = linear.factor(blocks, p, noise, False)
    if bad >= 0:
        raise NotPositiveDefiniteError("the covariance of the data is not positive definite at the fit", row=int(bad))
    whitened: Array = linear.lower_solve(blocks, gains, np.ascontiguousarray(residual[:, None]))[:, 0]
    return whitened / np.sqrt(pivots)


def leave_one_out(
    structure: Any, parameters: Array, time: Array, values: Array, mean: Array, noise: Array, log_jacobian: Array
) -> LeaveOneOut:
    """Exact leave-one-out predictions at S sets of parameters, from one evaluation of value and gradient of each.

    With alpha = K^-1 (y - mean) and kappa = diag(K^-1), a datum given all others is normal with mean
    y - alpha / kappa and variance 1 / kappa.

    Args:
        structure: of the kernel.
        parameters: of the structure, (S, P).
        time: (N,), sorted.
        values: (N,).
        mean: (S, N).
        noise: variances, (S, N).
        log_jacobian: (N,) added to the log densities.

    Returns:
        Arrays of shape (S, N).

    Raises:
        NotPositiveDefiniteError: if a covariance is not positive definite.
    """
    out = series.evidence(structure, parameters, time, values - mean, noise)
    if (out.failed >= 0).any():
        raise NotPositiveDefiniteError("the covariance of the data is not positive definite at these parameters")
    alpha, kappa = out.alpha, out.kappa
    density = 0.5 * np.log(kappa) - 0.5 * alpha**2 / kappa - 0.5 * math.log(2.0 * math.pi) + log_jacobian
    return LeaveOneOut(values - alpha / kappa, 1.0 / kappa, density, special.ndtr(alpha / np.sqrt(kappa)))
