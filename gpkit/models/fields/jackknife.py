r"""Places left out of a fit: their densities, and how much wider posteriors are if parameters are estimates.

The parameters that a fit without place i would have are, to first order,

.. math:: \theta_{-i} = \hat\theta - \Sigma g_i, \qquad g_i = \nabla \ln p(y_i \mid y_{-i}, \hat\theta),

with Laplace's covariance :math:`\Sigma`: the likelihood of the other places is that of all over the density of the
left-out one, which is known in closed form. The scatter of the :math:`\theta_{-i}` (the infinitesimal jackknife) says
how well the parameters are known whether or not the kernel is right; Laplace's covariance says it for a kernel that
is. Variances of smooth fields without noise change by a large factor with a small change of the length scale, so that
there the difference is seen in the coverage of regions.

References:
    Efron, B., The Jackknife, the Bootstrap and Other Resampling Plans, SIAM (1982).
    Giordano, R. et al., A Swiss army infinitesimal jackknife, AISTATS (2019).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.log_parameters import LogFit
from gpkit.models.fields.regression import FieldRegression

__all__ = ["inflation_of", "predict_left_out"]

Array = NDArray[np.float64]

_STEP = 0.02
"""Step of the differences, of logarithms of the parameters."""
_TINY = 1e-300
_LARGEST = 4.0
"""Factor of the variance at one place beyond which a first-order argument is not believed."""


def predict_left_out(regression: FieldRegression, theta: Array) -> tuple[Array, Array, float]:
    """Each place given all others: log densities, means, and how well the field is known.

    Returns:
        Log densities (m,), -inf where rounding leaves no variance; means (m, d); and the mean variance of a coordinate
        of the field, noise not included. No mean is better known than a constant would be, from the data of all places.

    Raises:
        NotPositiveDefiniteError: the covariance of the data has no factor.
    """
    mean, covariance = _predictions(regression, theta)
    noise = _mean_variance(_noise(regression, theta))
    own = max(_mean_variance(covariance) - noise, 0.0)
    return _density(regression.values, mean, covariance), mean, max(own + noise / max(len(mean), 1), _TINY)


def inflation_of(regression: FieldRegression, fit: LogFit, *, exact: bool = False) -> float:
    """Factor by which variances grow when it is counted that the parameters are estimates; at least 1.

    Costs two posteriors a parameter.

    Args:
        regression: Data and terms.
        fit: Its maximum a posteriori.
        exact: Whether what was learnt as noise belongs to the field.

    Raises:
        NotPositiveDefiniteError: the covariance of the data has no factor at the fit.
    """
    mean, covariance = _predictions(regression, fit.theta)
    size = len(fit.theta)
    if not size or len(mean) < 2 or not np.isfinite(_density(regression.values, mean, covariance)).all():
        return 1.0
    own = covariance if exact else covariance - _noise(regression, fit.theta)
    slope = np.zeros((size, len(mean)))
    shift = np.zeros((size, *mean.shape))
    growth = np.zeros((size, len(mean)))
    for k in range(size):
        ends = []
        for sign in (1.0, -1.0):
            theta = fit.theta.copy()
            theta[k] += sign * _STEP
            try:
                there, spread = _predictions(regression, theta)
            except NotPositiveDefiniteError:
                break
            volume = _log_volume(spread if exact else spread - _noise(regression, theta))
            ends.append((_density(regression.values, there, spread), there, volume))
        if len(ends) == 2 and all(np.isfinite(end[0]).all() for end in ends):
            slope[k], shift[k], growth[k] = ((a - b) / (2.0 * _STEP) for a, b in zip(*ends, strict=True))
    return _inflation(own, slope, shift, growth, fit.covariance)


def _inflation(own: Array, slope: Array, shift: Array, growth: Array, laplace: Array) -> float:
    """Mean over the places of the factor that the scatter of the parameters has on a variance.

    A variance whose logarithm is normal has a mean that is larger than its median; the mean of the prediction moves
    with the parameters too. Nothing is narrower than Laplace's covariance says.
    """
    root = np.linalg.cholesky(laplace + 1e-12 * np.diag(np.diag(laplace)))
    scatter, vectors = np.linalg.eigh(root.T @ slope @ slope.T @ root)
    half = root @ vectors * np.sqrt(np.maximum(scatter, 1.0))
    level = 0.5 * np.square(half.T @ growth).sum(0)
    moved = np.einsum("pq,pmi->qmi", half, shift)
    d = own.shape[1]
    positive = np.linalg.eigvalsh(own)[:, 0] > 0.0
    safe = np.where(positive[:, None, None], own, np.eye(d))
    standard = np.linalg.solve(safe, moved.transpose(1, 2, 0))
    distance = np.einsum("qmi,miq->m", moved, standard) / d
    factor = np.exp(np.minimum(level, math.log(_LARGEST))) + distance
    return float(np.minimum(factor[positive], _LARGEST).mean()) if positive.any() else 1.0


def _predictions(regression: FieldRegression, theta: Array) -> tuple[Array, Array]:
    return regression.posterior(theta).leave_one_out()


def _noise(regression: FieldRegression, theta: Array) -> Array:
    """Variances of the observations' noise as diagonal blocks, (m, d, d)."""
    d = regression.values.shape[1]
    level = math.exp(2.0 * float(regression.split(theta)[0]))
    rows = np.square(regression.rows).reshape(-1, d) * level
    return np.asarray(rows[:, :, None] * np.eye(d))


def _mean_variance(blocks: Array) -> float:
    """Of a coordinate, over places whose prediction rounding has not spoilt."""
    each = np.trace(blocks, axis1=1, axis2=2) / blocks.shape[1]
    each = each[np.isfinite(each)]
    return float(each.mean()) if len(each) else 0.0


def _log_volume(blocks: Array) -> Array:
    """Mean logarithm of the principal variances (m,); zero where rounding has left none."""
    sign, log_det = np.linalg.slogdet(blocks)
    return np.where(sign > 0, log_det, 0.0) / blocks.shape[1]


def _density(values: Array, mean: Array, covariance: Array) -> Array:
    rest = values - mean
    sign, log_det = np.linalg.slogdet(covariance)
    quadratic = np.einsum("mi,mi->m", rest, np.linalg.solve(covariance, rest[..., None])[..., 0])
    each = -0.5 * (quadratic + log_det + rest.shape[1] * math.log(2.0 * math.pi))
    return np.where(sign > 0, each, -np.inf)
