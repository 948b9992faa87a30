"""Predictions of fields: ambient means, tangent covariances, intervals, regions and joint draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from gpkit.checks import positive_integer
from gpkit.errors import InvalidDataError

__all__ = ["FieldPrediction", "ScalarPrediction", "mixture_quantile"]

Array = NDArray[np.float64]


def mixture_quantile(means: Array, variances: Array, weights: Array, probability: float) -> Array:
    """Quantiles (...) of mixtures of normals (S, ...): exact for one component, else by bisection.

    Raises:
        InvalidDataError: unless 0 < probability < 1.
    """
    if not 0.0 < probability < 1.0:
        raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
    deviations = np.sqrt(np.maximum(variances, 0.0))
    each = means + special.ndtri(probability) * deviations
    if len(each) == 1:
        return np.asarray(each[0])
    low, high = each.min(0), each.max(0)
    safe = np.maximum(deviations, 1e-300)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = np.tensordot(weights, special.ndtr((middle - means) / safe), 1) < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(0.5 * (low + high))


def _tail(probability: float) -> float:
    """What a central interval leaves out at each end."""
    if not 0.0 < probability < 1.0:
        raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
    return 0.5 * (1.0 - probability)


@dataclass(frozen=True, eq=False)
class FieldPrediction:
    """A tangent vector field at m places: a mixture of S normal distributions (S = 1 for one kernel, one fit).

    Attributes:
        frames: Orthonormal tangent frames, (m, D, d).
        component_means: Tangent coordinates, (S, m, d).
        component_covariances: Of the field without noise, (S, m, d, d).
        noise: Standard deviation of the noise of an observation, (S,); NaN where it was given per place.
        far: Places too far from the nodes to be predicted: the prior is returned there, (m,).
        distance: To the nearest node (or surface), (m,).
        weights: Of the components, (S,).
    """

    frames: Array
    component_means: Array
    component_covariances: Array
    noise: Array
    far: NDArray[np.bool_]
    distance: Array
    weights: Array = field(default_factory=lambda: np.ones(1))
    _draw: Callable[[int, int], Array] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        kind = f"{len(self.weights)} components" if len(self.weights) > 1 else "one component"
        far = f", {int(self.far.sum())} far from the nodes" if self.far.any() else ""
        return f"FieldPrediction({len(self)} places, {kind}{far})"

    @property
    def tangent_mean(self) -> Array:
        """Mean in the frames, (m, d)."""
        return np.tensordot(self.weights, self.component_means, 1)

    @property
    def mean(self) -> Array:
        """Mean vectors in the ambient space, (m, D)."""
        return np.einsum("mad,md->ma", self.frames, self.tangent_mean)

    @property
    def covariance(self) -> Array:
        """Covariance of the tangent coordinates, (m, d, d)."""
        shift = self.component_means - self.tangent_mean
        within = np.tensordot(self.weights, self.component_covariances, 1)
        return within + np.einsum("s,smi,smj->mij", self.weights, shift, shift)

    @property
    def variance(self) -> Array:
        """Variances of the ambient coordinates, (m, D)."""
        return np.einsum("mai,mij,maj->ma", self.frames, self.covariance, self.frames)

    @property
    def standard_deviation(self) -> Array:
        """Root of the mean variance of the tangent coordinates, (m,)."""
        return np.sqrt(np.trace(self.covariance, axis1=1, axis2=2) / self.frames.shape[2])

    def interval(self, probability: float = 0.95) -> tuple[Array, Array]:
        """Central intervals (low, high) of each ambient coordinate, each (m, D).

        Raises:
            InvalidDataError: unless 0 < probability < 1.
        """
        tail = _tail(probability)
        means = np.einsum("mad,smd->sma", self.frames, self.component_means)
        variances = np.einsum("mai,smij,maj->sma", self.frames, self.component_covariances, self.frames)
        low, high = (mixture_quantile(means, variances, self.weights, p) for p in (tail, 1.0 - tail))
        return low, high

    def region(self, probability: float = 0.95) -> tuple[Array, Array]:
        """Elliptical regions of the tangent coordinates: semi-axes (m, d), largest last, and directions (m, D, d).

        Raises:
            InvalidDataError: unless 0 < probability < 1.
        """
        radius = np.sqrt(self._threshold(probability))
        values, vectors = np.linalg.eigh(self.covariance)
        return radius * np.sqrt(np.maximum(values, 0.0)), self.frames @ vectors

    def covers(self, vectors: Array, probability: float = 0.95, *, noisy: bool = False) -> NDArray[np.bool_]:
        """Whether the regions hold given ambient vectors (m, D), one answer per place.

        Args:
            vectors: (m, D).
            probability: Of the regions.
            noisy: Whether the vectors are new observations, whose noise widens the regions.

        Raises:
            InvalidDataError: unless 0 < probability < 1.
        """
        rest = np.einsum("mad,ma->md", self.frames, vectors) - self.tangent_mean
        covariance = self._observed(noisy)
        distance = np.einsum("md,md->m", rest, np.linalg.solve(covariance, rest[..., None])[..., 0])
        return np.asarray(distance <= self._threshold(probability))

    def log_density(self, vectors: Array, *, noisy: bool = True) -> Array:
        """Log densities (m,) of ambient vectors (m, D) in the tangent spaces."""
        rest = np.einsum("mad,ma->md", self.frames, vectors) - self.component_means
        added = np.square(self.noise) if noisy else np.zeros(len(self.noise))
        d = self.frames.shape[2]
        covariance = self.component_covariances + added[:, None, None, None] * np.eye(d)
        quadratic = np.einsum("smd,smd->sm", rest, np.linalg.solve(covariance, rest[..., None])[..., 0])
        each = -0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + d * np.log(2.0 * np.pi))
        top = each.max(0)
        return top + np.log(np.tensordot(self.weights, np.exp(each - top), 1))

    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Joint draws (n, m, D) of the field.

        Raises:
            InvalidDataError: the prediction has no joint distribution, or no number of draws.
        """
        if self._draw is None:
            raise InvalidDataError("this prediction has no joint distribution to draw from")
        n = positive_integer(n, "the number of draws")
        return np.einsum("mad,nmd->nma", self.frames, self._draw(n, seed))

    def _observed(self, noisy: bool) -> Array:
        extra = float(self.weights @ np.square(self.noise)) if noisy else 0.0
        return self.covariance + extra * np.eye(self.frames.shape[2])

    def _threshold(self, probability: float) -> float:
        if not 0.0 < probability < 1.0:
            raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
        return float(stats.chi2(self.frames.shape[2]).ppf(probability))


@dataclass(frozen=True, eq=False)
class ScalarPrediction:
    """A function (or a flow) at m places: a mixture of S normal distributions per place.

    Attributes:
        field: The same as a field of one component.
    """

    field: FieldPrediction

    def __len__(self) -> int:
        return len(self.field)

    def __repr__(self) -> str:
        return repr(self.field).replace("FieldPrediction", "ScalarPrediction")

    @property
    def mean(self) -> Array:
        """Mean (m,)."""
        return self.field.tangent_mean[:, 0]

    @property
    def variance(self) -> Array:
        """Variance (m,), noise not included."""
        return self.field.covariance[:, 0, 0]

    @property
    def noise(self) -> Array:
        """Standard deviation of the noise of an observation, (S,)."""
        return self.field.noise

    @property
    def far(self) -> NDArray[np.bool_]:
        """Places too far from the nodes to be predicted, (m,)."""
        return self.field.far

    @property
    def distance(self) -> Array:
        """To the nearest node, (m,)."""
        return self.field.distance

    def quantile(self, probability: float) -> Array:
        """Quantile (m,) of the mixture.

        Raises:
            InvalidDataError: unless 0 < probability < 1.
        """
        means, variances = self.field.component_means[..., 0], self.field.component_covariances[..., 0, 0]
        return mixture_quantile(means, variances, self.field.weights, probability)

    def interval(self, probability: float = 0.95) -> tuple[Array, Array]:
        """Central interval (low, high), each (m,)."""
        tail = _tail(probability)
        return self.quantile(tail), self.quantile(1.0 - tail)

    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Joint draws (n, m)."""
        return self.field.sample(n, seed)[:, :, 0]
