"""From moments of the function under every restart to predictive laws of y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb import SiteObservation
from gpkit.likelihoods import NegativeBinomial, StudentT
from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.fitting import Parts, left_out_moments, noise_variance
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.predictions import DiscretePrediction, TensorPrediction
from gpkit.models.functional_tensor.settings import CONTINUOUS
from gpkit.models.functional_tensor.state import TensorState

__all__ = ["UnseenEntries", "joint_draws", "member_moments", "mixture_law", "rescaled"]

Array = NDArray[np.float64]
_NODES = 7


def member_moments(members: Sequence[Member], numbers: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Means and variances (S, M) of the function at coordinates, and noise variances (S, 1), of every member."""
    moments = [member.posterior.moments_at(numbers) for member in members]
    mean = np.stack([first for first, _ in moments])
    variance = np.stack([np.maximum(square - first**2, 0.0) for first, square in moments])
    return mean, variance, np.array([noise_variance(member) for member in members])[:, None]


def mixture_law(
    state: TensorState,
    likelihood: str,
    mean: Array,
    variance: Array,
    noise: Array,
    draw: Callable[[int, int], Array] | None = None,
) -> TensorPrediction | DiscretePrediction:
    """Law of y.

    Args:
        state: of the fit.
        likelihood: its name.
        mean: of the function, (S, M), in the unit of the fit; S is one where every entry has a member of its own.
        variance: of the function, (S, M).
        noise: variance of normal noise, (S, 1) or (S, M).
        draw: of joint draws.
    """
    weights = state.weights if len(mean) == len(state.weights) else np.ones(1)
    if likelihood not in CONTINUOUS:
        dispersion, largest = _dispersion(state.members), _largest(state.members)
        return DiscretePrediction(mean, np.sqrt(variance), likelihood, dispersion, weights, largest)
    location = state.centre + state.unit * mean
    average = weights @ mean
    function_variance = state.unit**2 * (weights @ (variance + (mean - average) ** 2))
    if likelihood == "gaussian":
        scale = state.unit * np.sqrt(variance + noise)
        return TensorPrediction(location, scale, np.inf, function_variance, draw, weights)
    # Student-t noise around a normal function: nodes of a Gauss-Hermite rule for the function, the noise itself exact.
    nodes, rule = np.polynomial.hermite_e.hermegauss(_NODES)
    spread = location[:, None] + state.unit * np.sqrt(variance)[:, None] * nodes[:, None]
    own = [
        m.posterior.observation.likelihood
        for m in state.members
        if isinstance(m.posterior.observation, SiteObservation)
    ]
    scales = np.array([float(law.scale) for law in own if isinstance(law, StudentT)])
    degrees = float(np.mean([float(law.df) for law in own if isinstance(law, StudentT)]))
    each = scales[:, None, None] if len(mean) == len(scales) else np.full((1, 1, 1), scales.mean())
    scale = np.broadcast_to(state.unit * each, spread.shape)
    shape = (-1, spread.shape[-1])
    joint = (weights[:, None] * (rule / rule.sum())).reshape(-1)
    return TensorPrediction(spread.reshape(shape), scale.reshape(shape), degrees, function_variance, draw, joint)


def _dispersion(members: Sequence[Member]) -> float:
    found = [m.posterior.observation for m in members]
    own = [o.likelihood for o in found if isinstance(o, SiteObservation)]
    sizes = [float(law.size) for law in own if isinstance(law, NegativeBinomial)]
    return float(np.mean(sizes)) if sizes else 1.0


def _largest(members: Sequence[Member]) -> float:
    """Observation that any member has seen."""
    found = [m.posterior.observation for m in members]
    return max(o.largest for o in found if isinstance(o, SiteObservation))


def rescaled(state: TensorState, law: TensorPrediction) -> TensorPrediction:
    """From the unit of the fit to that of y."""
    location, scale = state.centre + state.unit * law.location, state.unit * law.scale
    return TensorPrediction(location, scale, law.degrees, state.unit**2 * law.function_variance)


def joint_draws(state: TensorState, numbers: Sequence[Array], n: int, seed: int) -> Array:
    """Draws (n, M) of functions and core with normal noise: members in the proportion of their weights."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, state.weights / state.weights.sum())
    parts = []
    for member, count in zip(state.members, counts, strict=True):
        if count:
            noise = np.sqrt(noise_variance(member)) * rng.standard_normal((int(count), len(numbers[0])))
            parts.append(member.posterior.sample(numbers, int(count), rng) + noise)
    return state.centre + state.unit * rng.permutation(np.concatenate(parts))


@dataclass(frozen=True, eq=False)
class UnseenEntries:
    """The entries of a fit, to be predicted by what had not seen them.

    Attributes:
        state: of the fit.
        likelihood: its name.
        parts: which start has not seen which entry.
    """

    state: TensorState
    likelihood: str
    parts: Parts

    def predict(self) -> TensorPrediction | DiscretePrediction:
        """Their laws, with a local residual after it was fitted to them."""
        residual = self.state.residual
        if residual is None:
            moments = left_out_moments(self.state.members, self.state.index, self.parts)
            return mixture_law(self.state, self.likelihood, *moments)
        if isinstance(residual, LatentResidual):
            return residual.left_out
        return rescaled(self.state, residual.left_out)
