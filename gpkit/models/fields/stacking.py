r"""Weights of a mixture of fitted kernels, by how well they predict observed places that are left out.

Two mixtures are averaged. The first has the weights whose mixed densities of the left-out values are highest; most of
that sum is what the many well-predicted places say about variances. The second has the weights whose mixed *means* are
closest to the left-out values, in the sense of a Student-t law of the distances with one scale for all places, so that
places that no kernel predicts (beside a jump) do not decide alone, and neither do those that all predict. A kernel may
have better densities nearly everywhere and a worse mean where it matters: a field with a jump is the common case.
Predictions are means first of all, so that the second mixture counts three times.

Both have a Dirichlet prior, centred on tempered evidences and left-out densities: dependent places would otherwise put
all weight on what they happen to favour. A few noisy places hardly tell kernels apart by leaving one out, where the
evidence still uses all of them: the fewer places there are, the more stacking gives way to powers of the evidence and
of the likelihood of the left-out directions. No kernel is right, and the one that seems so by a few nats is often not
the one that predicts best: the powers are small. Evidences and densities are about the large vectors of a field; the
directions (von Mises, with a concentration that is not known) are about the small ones as much.

Kernels that the data cannot tell apart are not alike in what their means cost: a rough one carries more of the noise
from observed places to others than a smooth one, and says so by its variances. All priors therefore have the precision
with which left-out places are known as a factor; no kernel is preferred for its name.

References:
    Breiman, L., Stacked regressions, Machine Learning 24, 49 (1996).
    Genest, C. and Zidek, J. V., Combining probability distributions, Statistical Science 1, 114 (1986).
    Gruenwald, P. and van Ommen, T., Bayesian Analysis 12, 1069 (2017).
    Yao, Y., Vehtari, A., Simpson, D. and Gelman, A., Bayesian Analysis 13, 917 (2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["EVIDENCE_POWER", "stacking_weights"]

Array = NDArray[np.float64]

_LEAST_PLACES = 5
_STEPS = 500
_TINY = 1e-300
_ROUNDING = 1e-12
_SMALLEST = 0.02
_FREEDOM = 8.0
"""Degrees of freedom of the distances between left-out values and mixed means."""
_TEMPER = 0.1
"""Power of evidences and left-out densities in the prior of the weights."""
_PRIOR_SHARE = 0.05
"""Places that the prior of the weights is worth, as a share of the observed ones."""
_MEAN_SHARE = 0.75
"""Share of the mixture of means in what is stacked."""
EVIDENCE_POWER = 0.4
"""Of evidences where places are few, and in what kernels say together about the noise."""
_DIRECTION_POWER = 0.2
"""Of likelihoods of the left-out directions where places are few."""
_ENOUGH = 60.0
"""Places for which stacking and powers of the evidence count the same."""
_ENOUGH_EXACT = 15.0
"""The same of places that were observed without noise, which tell kernels apart sooner."""


def stacking_weights(
    densities: Array, values: Array, means: Array, variances: Array, evidences: Array, *, exact: bool = False
) -> Array:
    """Weights (K,) of K kernels, which add up to one; small ones are zero.

    Args:
        densities: Log densities of the left-out places, (K, m); kernels with one that is not finite get no weight.
        values: What was observed there, (m, d).
        means: Predictions of each place from the others, (K, m, d).
        variances: Mean variances of a coordinate of the field in these, noise not included, (K,), above zero.
        evidences: Log evidences, (K,); what the first kernel is used for alone if there are too few places.
        exact: Whether observations have no noise.
    """
    size, places = densities.shape
    usable: NDArray[np.bool_] = np.all(np.isfinite(densities), axis=1)
    weights = np.zeros(size)
    if size == 1 or places < _LEAST_PLACES or not usable[0]:
        weights[0] = 1.0
        return weights
    densities, means, evidences = densities[usable], means[usable], evidences[usable]
    precise = -np.log(variances[usable])
    counts = _PRIOR_SHARE * places * _softmax(_TEMPER * (evidences + densities.sum(1)) + precise)
    stacked = (1.0 - _MEAN_SHARE) * _by_density(densities, counts) + _MEAN_SHARE * _by_mean(values - means, counts)
    likely = _softmax(EVIDENCE_POWER * evidences + _DIRECTION_POWER * _directions(values, means) + precise)
    few = 1.0 / (1.0 + (places / (_ENOUGH_EXACT if exact else _ENOUGH)) ** 2)
    found = few * likely + (1.0 - few) * stacked
    found = np.where(found < _SMALLEST, 0.0, found)
    weights[usable] = found / found.sum()
    return weights


def _softmax(values: Array) -> Array:
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def _directions(values: Array, means: Array) -> Array:
    """Log likelihoods (K,) of the directions of values, up to a constant; those of functions say nothing."""
    places, d = values.shape
    sizes = np.linalg.norm(values, axis=1) * np.linalg.norm(means, axis=2)
    cosines = np.einsum("md,kmd->km", values, means) / np.maximum(sizes, _TINY)
    return np.asarray(-0.5 * (d - 1) * places * np.log(np.maximum(1.0 - cosines.mean(1), _ROUNDING)))


def _by_density(densities: Array, counts: Array) -> Array:
    """Expectation maximisation: every step improves the concave objective."""
    density = np.exp(densities - densities.max(0))
    weights = np.full(len(density), 1.0 / len(density))
    for _ in range(_STEPS):
        share = weights[:, None] * density
        weights = (share / share.sum(0)).sum(1) + counts
        weights /= weights.sum()
    return weights


def _by_mean(residuals: Array, counts: Array) -> Array:
    """Exponentiated gradients, with the scale and the places' weights of the Student-t law updated in between."""
    _, places, d = residuals.shape
    products = np.einsum("kmd,lmd->klm", residuals, residuals)
    weights = counts / counts.sum()
    variance = 0.0
    for _ in range(_STEPS):
        distance = np.einsum("k,klm,l->m", weights, products, weights)
        variance = max(variance or float(np.median(distance)) / d, _TINY)
        trust = (_FREEDOM + d) / (_FREEDOM + distance / variance)
        variance = max(float((trust * distance).mean()) / d, _TINY)
        slope = np.einsum("klm,l,m->k", products, weights, trust) / variance
        step = 0.5 / (places * d) * (counts / np.maximum(weights, 1e-12) - slope)
        weights = weights * np.exp(np.clip(step, -1.0, 1.0))
        weights /= weights.sum()
    return weights
