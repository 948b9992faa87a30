r"""Places left out of a fit: their densities, and how much wider posteriors are if parameters are estimates.

The parameters that a fit without place i would have are, to first order,

.. math:: \theta_{-i} = \hat\theta - \Sigma g_i, \qquad g_i = \nabla \ln p(y_i \mid y_{-i}, \hat\theta),

with Laplace's covariance :math:`\Sigma`: the likelihood of the other places is that of all over the density of the
left-out one, which is known in closed form. The scatter of the :math:`\theta_{-i}` (the infinitesimal jackknife) says
how well the parameters are known whether or not the kernel is right; Laplace's covariance says it for a kernel that
is. Variances of smooth fields without noise change by a large factor with a small change of the length scale, so that
there the difference is seen in the coverage of regions.

Where a kernel has dozens of parameters, the density of a place under parameters that have seen it says little: what
counts is that of each place with :math:`\theta_{-i}`, by the same first-order argument.

References:
    Efron, B., The Jackknife, the Bootstrap and Other Resampling Plans, SIAM (1982).
    Giordano, R. et al., A Swiss army infinitesimal jackknife, AISTATS (2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.log_parameters import LogFit
from gpkit.models.fields.regression import FieldRegression

__all__ = ["LeftOut", "inflation_of", "predict_left_out", "predict_refitted"]

Array = NDArray[np.float64]

_STEP = 0.02
"""Step of the differences, of logarithms of the parameters."""
_TINY = 1e-300
_FURTHEST = 1.0
"""Change of the logarithm of a parameter by one place beyond which a first-order argument is not believed."""
_LARGEST = 4.0
"""Factor of a variance, at one place or of a parameter, beyond which a first-order argument is not believed."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Each place given all others.

    Attributes:
        density: Log densities, (m,), -inf where rounding leaves no variance.
        mean: (m, d).
        variance: Mean variance of a coordinate of the field, noise not included; no mean is better known than a
            constant would be, from the data of all places.
        root: Of the covariance of the parameters by their scatter, (P, P); None where it was not asked for.
        factor: Of the field's variances that the errors ask for, at least 1.
        inflation: What :func:`inflation_of` says; None where it was not asked for.
    """

    density: Array
    mean: Array
    variance: float
    root: Array | None = None
    factor: float = 1.0
    inflation: float | None = None


def predict_left_out(regression: FieldRegression, theta: Array) -> LeftOut:
    """Each place given all others, at given parameters.

    Raises:
        NotPositiveDefiniteError: the covariance of the data has no factor.
    """
    return _left_out(regression, theta, *_predictions(regression, theta))


def _left_out(regression: FieldRegression, theta: Array, mean: Array, covariance: Array) -> LeftOut:
    noise = _mean_variance(_noise(regression, theta))
    own = max(_mean_variance(covariance) - noise, 0.0)
    variance = max(own + noise / max(len(mean), 1), _TINY)
    return LeftOut(_density(regression.values, mean, covariance), mean, variance)


def predict_refitted(regression: FieldRegression, fit: LogFit, *, exact: bool = False) -> LeftOut:
    """Each place given all others, by the parameters that a fit without it would have, to first order.

    Costs two posteriors a parameter.

    Args:
        regression: Data and terms.
        fit: Its maximum a posteriori.
        exact: Whether what was learnt as noise belongs to the field.

    Raises:
        NotPositiveDefiniteError: the covariance of the data has no factor at the fit.
    """
    mean, covariance = _predictions(regression, fit.theta)
    known = _left_out(regression, fit.theta, mean, covariance)
    if not np.isfinite(known.density).all():
        return known
    slope, shift, growth, own_growth = _slopes(regression, fit.theta)
    moved = np.clip(-fit.covariance @ slope, -_FURTHEST, _FURTHEST)
    mean = mean + np.einsum("pm,pmi->mi", moved, shift)
    wider = np.exp(np.clip((moved * growth).sum(0), -math.log(_LARGEST), math.log(_LARGEST)))
    density = _density(regression.values, mean, wider[:, None, None] * covariance)
    noise = _noise(regression, fit.theta)
    factor = _factor(regression.values - mean, covariance, noise)
    own, growth = (covariance, growth) if exact else (covariance - noise, own_growth)
    inflation = _inflation(own, slope, shift, growth, fit.covariance)
    return LeftOut(density, mean, known.variance, _scatter(slope, fit.covariance, _LARGEST), factor, inflation)


def _factor(rest: Array, covariance: Array, noise: Array) -> float:
    """Factor of the field's variances, from 1 on, under which errors (m, d) of left-out places are likeliest."""
    distances = np.einsum("mi,mi->m", rest, np.linalg.solve(covariance, rest[..., None])[..., 0]) / rest.shape[1]
    share = 1.0 - np.trace(noise, axis1=1, axis2=2) / np.trace(covariance, axis1=1, axis2=2)
    factors = np.geomspace(1.0, _LARGEST, 41)
    total = 1.0 + (factors[:, None] - 1.0) * np.clip(share, 0.0, 1.0)
    return float(factors[(np.log(total) + distances / total).sum(1).argmin()])


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
    if not len(fit.theta) or len(mean) < 2 or not np.isfinite(_density(regression.values, mean, covariance)).all():
        return 1.0
    slope, shift, growth, own_growth = _slopes(regression, fit.theta)
    own = covariance if exact else covariance - _noise(regression, fit.theta)
    return _inflation(own, slope, shift, growth if exact else own_growth, fit.covariance)


def _slopes(regression: FieldRegression, theta: Array) -> tuple[Array, Array, Array, Array]:
    """Derivatives of what left-out places are predicted to be; zero for a parameter that has none.

    Args:
        regression: Data and terms.
        theta: Logarithms of the parameters, (P,).

    Returns:
        Those of the log densities (P, m), of the means (P, m, d), of the mean logarithms of the principal variances
        (P, m), and of the same without the noise (P, m).
    """
    shape = (len(theta), *regression.values.shape)
    slope, shift, growth, own = np.zeros(shape[:2]), np.zeros(shape), np.zeros(shape[:2]), np.zeros(shape[:2])
    for k in range(len(theta)):
        ends = []
        for sign in (1.0, -1.0):
            there = theta.copy()
            there[k] += sign * _STEP
            try:
                mean, spread = _predictions(regression, there)
            except NotPositiveDefiniteError:
                break
            volumes = (_log_volume(spread), _log_volume(spread - _noise(regression, there)))
            ends.append((_density(regression.values, mean, spread), mean, *volumes))
        if len(ends) == 2 and all(np.isfinite(end[0]).all() for end in ends):
            slope[k], shift[k], growth[k], own[k] = ((a - b) / (2.0 * _STEP) for a, b in zip(*ends, strict=True))
    return slope, shift, growth, own


def _inflation(own: Array, slope: Array, shift: Array, growth: Array, laplace: Array) -> float:
    """Mean over the places of the factor that the scatter of the parameters has on a variance.

    A variance whose logarithm is normal has a mean that is larger than its median; the mean of the prediction moves
    with the parameters too.
    """
    half = _scatter(slope, laplace)
    level = 0.5 * np.square(half.T @ growth).sum(0)
    moved = np.einsum("pq,pmi->qmi", half, shift)
    d = own.shape[1]
    positive = np.linalg.eigvalsh(own)[:, 0] > 0.0
    safe = np.where(positive[:, None, None], own, np.eye(d))
    standard = np.linalg.solve(safe, moved.transpose(1, 2, 0))
    distance = np.einsum("qmi,miq->m", moved, standard) / d
    factor = np.exp(np.minimum(level, math.log(_LARGEST))) + distance
    return float(np.minimum(factor[positive], _LARGEST).mean()) if positive.any() else 1.0


def _scatter(slope: Array, laplace: Array, most: float = math.inf) -> Array:
    """Root (P, P) of the covariance of the parameters by their scatter, nowhere less than Laplace's.

    Args:
        slope: Derivatives of the log densities of left-out places, (P, m).
        laplace: Laplace's covariance, (P, P).
        most: Times Laplace's variance it is at most.
    """
    root = np.linalg.cholesky(laplace + 1e-12 * np.diag(np.diag(laplace)))
    scatter, vectors = np.linalg.eigh(root.T @ slope @ slope.T @ root)
    return np.asarray(root @ vectors * np.sqrt(np.clip(scatter, 1.0, most)))


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
