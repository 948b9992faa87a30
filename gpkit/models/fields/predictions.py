"""Predictions of fields: ambient means, tangent covariances, intervals, regions and joint draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gpkit.errors import InvalidDataError
from gpkit.models.predictions import Prediction

__all__ = ["FieldPrediction", "ScalarPrediction", "as_scalar"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FieldPrediction:
    """A tangent vector field at m places: an equal mixture of S normal distributions (S = 1 for a point fit).

    Attributes:
        frames: Orthonormal tangent frames, (m, D, d).
        component_means: Tangent coordinates, (S, m, d).
        component_covariances: Of the field without noise, (S, m, d, d).
        noise: Standard deviation of the noise of an observation, (S,); NaN where it was given per place.
        far: Places too far from the nodes to be predicted: the prior is returned there, (m,).
        distance: To the nearest node (or surface), (m,).
    """

    frames: Array
    component_means: Array
    component_covariances: Array
    noise: Array
    far: NDArray[np.bool_]
    distance: Array
    _draw: Callable[[int, int], Array] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        kind = "posterior mixture" if len(self.component_means) > 1 else "point fit"
        far = f", {int(self.far.sum())} far from the nodes" if self.far.any() else ""
        return f"FieldPrediction({len(self)} places, {kind}{far})"

    @property
    def tangent_mean(self) -> Array:
        """Mean in the frames, (m, d)."""
        return self.component_means.mean(0)

    @property
    def mean(self) -> Array:
        """Mean vectors in the ambient space, (m, D)."""
        return np.einsum("mad,md->ma", self.frames, self.tangent_mean)

    @property
    def covariance(self) -> Array:
        """Covariance of the tangent coordinates, (m, d, d)."""
        shift = self.component_means - self.tangent_mean
        return self.component_covariances.mean(0) + np.einsum("smi,smj->mij", shift, shift) / len(shift)

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
        means = np.einsum("mad,smd->sma", self.frames, self.component_means)
        variances = np.einsum("mai,smij,maj->sma", self.frames, self.component_covariances, self.frames)
        flat = Prediction(
            np.arange(means[0].size, dtype=np.float64),
            means.reshape(len(means), -1),
            np.maximum(variances.reshape(len(means), -1), 0.0),
        )
        low, high = flat.interval(probability)
        return low.reshape(means.shape[1:]), high.reshape(means.shape[1:])

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
        return top + np.log(np.exp(each - top).mean(0))

    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Joint draws (n, m, D) of the field.

        Raises:
            InvalidDataError: the prediction has no joint distribution.
        """
        if self._draw is None:
            raise InvalidDataError("this prediction has no joint distribution to draw from")
        return np.einsum("mad,nmd->nma", self.frames, self._draw(n, seed))

    def _observed(self, noisy: bool) -> Array:
        extra = float(np.square(self.noise).mean()) if noisy else 0.0
        return self.covariance + extra * np.eye(self.frames.shape[2])

    def _threshold(self, probability: float) -> float:
        if not 0.0 < probability < 1.0:
            raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
        return float(stats.chi2(self.frames.shape[2]).ppf(probability))


@dataclass(frozen=True, eq=False)
class ScalarPrediction(Prediction):
    """A function at m places; ``time`` counts the places.

    Attributes:
        noise: Standard deviation of the noise of an observation, (S,).
        far: Places too far from the nodes to be predicted, (m,).
        distance: To the nearest node, (m,).
    """

    noise: Array = field(default_factory=lambda: np.zeros(1))
    far: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    distance: Array = field(default_factory=lambda: np.zeros(0))

    def __repr__(self) -> str:
        kind = "posterior mixture" if len(self.component_means) > 1 else "point fit"
        return f"ScalarPrediction({self.time.size} places, {kind})"


def as_scalar(prediction: FieldPrediction) -> ScalarPrediction:
    """The prediction of a field of one component, as one of a function."""
    draw = prediction._draw
    return ScalarPrediction(
        time=np.arange(len(prediction), dtype=np.float64),
        component_means=prediction.component_means[:, :, 0],
        component_variances=prediction.component_covariances[:, :, 0, 0],
        _draw=None if draw is None else lambda n, seed: draw(n, seed)[:, :, 0],
        noise=prediction.noise,
        far=prediction.far,
        distance=prediction.distance,
    )
