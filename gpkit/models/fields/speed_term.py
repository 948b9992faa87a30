r"""A summand whose amplitude varies from place to place: :math:`s(x)\, K(x, x')\, s(x')`.

A kernel of one amplitude follows the fast places of a field; where it is slow, errors that are small beside the fast
vectors turn its directions. With a factor of the speed at landmarks, whose logarithms are independent and normal a
priori and are averaged in between with weights that fall with the distance, directions are shared by places of all
speeds, and variances are those of the place.

References:
    Gibbs, M. N., Bayesian Gaussian Processes for Regression and Classification, PhD thesis, Cambridge (1997).
    Paciorek, C. J. and Schervish, M. J., Environmetrics 17, 483 (2006).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.geometry import furthest_point_sample
from gpkit.inference.log_parameters import LogParameter
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.terms import Prepared, Term

__all__ = ["SPEED", "SpeedTerm", "landmarks_of", "speeds_among"]

Array = NDArray[np.float64]

SPEED = " * speed"
"""What the name of a kernel whose amplitude varies ends with."""

_LANDMARKS = 24
_PLACES_EACH = 3
_LEAST = 4
"""Landmarks below which there is nothing to vary."""
_REACH = 0.7
"""Width of the weights, in units of the median distance between neighbouring landmarks."""
_RANGE = 1e3


def speeds_among(parameters: Mapping[str, float]) -> dict[str, float]:
    """Those parameters of a fit that are factors of speed at landmarks."""
    return {name: value for name, value in parameters.items() if re.search(r"(^|\.)speed_\d+$", name)}


def landmarks_of(places: Array) -> Array | None:
    """Observed places (K, D), spread evenly over all (m, D): one for three places; None if that is too few."""
    different = np.unique(places, axis=0)
    count = min(_LANDMARKS, len(different) // _PLACES_EACH)
    if count < _LEAST:
        return None
    middle = int(np.square(different - different.mean(0)).sum(1).argmin())
    return np.asarray(different[furthest_point_sample(different, count, start=middle)])


class SpeedTerm(Term):
    """Another term with a factor of its amplitude at every place.

    Args:
        inner: The term that is multiplied.
        landmarks: Where factors are parameters, (K, D) with K of at least 2.

    Raises:
        InvalidDataError: fewer than two landmarks.
    """

    flexible = True

    def __init__(self, inner: Term, landmarks: Array) -> None:
        if len(landmarks) < 2:
            raise InvalidDataError(f"speeds need two landmarks or more, got {len(landmarks)}")
        self.inner = inner
        self.name = inner.name + SPEED
        self.landmarks = torch.from_numpy(np.array(landmarks, dtype=np.float64))
        away = torch.cdist(self.landmarks, self.landmarks).fill_diagonal_(torch.inf)
        self._width = _REACH * float(away.min(1).values.median())
        self._own = len(inner.parameters)
        speeds = (
            LogParameter(f"speed_{k + 1}", 1.0, 1.0 / _RANGE, _RANGE, 1.0, 1.0, "") for k in range(len(landmarks))
        )
        self.parameters = (*inner.parameters, *speeds)

    def _weights(self, sites: Sites) -> Tensor:
        """Weights (m, K) of the landmarks, which add up to one."""
        if sites.points is None:
            raise InvalidDataError(f"kernel {self.name!r} needs coordinates, and these nodes have none")
        return torch.softmax(-0.5 * torch.square(torch.cdist(sites.points, self.landmarks) / self._width), 1)

    def speed(self, theta: Tensor, sites: Sites) -> Tensor:
        """Factors (m,) of the amplitude at places."""
        return torch.exp(self._weights(sites) @ theta[self._own :])

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """Weights of the landmarks for all rows, and what the inner term prepares."""
        sides = (self._weights(sites).repeat_interleave(sites.d, 0) for sites in (left, right))
        return (*sides, *self.inner.prepare(left, right))

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The block of covariance."""
        rows, columns = (torch.exp(weights @ theta[self._own :]) for weights in prepared[:2])
        return rows[:, None] * self.inner.evaluate(theta[: self._own], prepared[2:]) * columns

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """The inner term's covariances times squared factors."""
        return self._squared(theta, sites)[:, None, None] * self.inner.marginal(theta[: self._own], sites)

    def mean_variance(self, theta: Tensor) -> Tensor | None:
        """That of the inner term, times the landmarks' mean squared factor."""
        found = self.inner.mean_variance(theta[: self._own])
        return None if found is None else found * torch.exp(2.0 * theta[self._own :]).mean()

    def unresolved(self, theta: Tensor, sites: Sites) -> Tensor:
        """That of the inner term times squared factors."""
        return self._squared(theta, sites) * self.inner.unresolved(theta[: self._own], sites)

    def scan(self) -> list[tuple[float, ...]]:
        """The inner term's starting points, with one speed."""
        return [(*point, *(0.0,) * len(self.landmarks)) for point in self.inner.scan()]

    def _squared(self, theta: Tensor, sites: Sites) -> Tensor:
        return torch.square(self.speed(theta, sites))
