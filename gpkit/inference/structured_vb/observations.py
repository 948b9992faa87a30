"""Observation models of the engine: normal noise of unknown precision, and sites of any likelihood.

The engine sees the data as ``w_n tau (y_n - f_n)^2 / 2`` with targets y, weights w and a noise precision tau. Normal
noise has the observations as targets and learns tau; any other likelihood (:mod:`gpkit.likelihoods`) gives a Gaussian
site for every entry at the moments of f, which is the same thing with tau one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.inference.structured_vb.gamma import GammaPosterior
from gpkit.likelihoods import Bernoulli, Likelihood, NegativeBinomial, StudentT, likelihood_named

__all__ = ["GaussianNoise", "Observation", "SiteObservation", "observation_named"]

Array = NDArray[np.float64]
_SHAPE = _RATE = 1e-3
_FLATTEST = 1e-12
_LEAST = 0.1  # of the squared error of entries, where what is carried is a difference


class Observation(ABC):
    """What the engine asks of an observation model.

    Attributes:
        needs_moments: whether targets and weights follow from the moments of f.
        expected: expected log-likelihood of all entries, where it does.
    """

    needs_moments = True
    expected = 0.0

    @abstractmethod
    def start(self, y: Array) -> tuple[Array, Array]:
        """Targets (N,) and weights (N,) or (1,) to begin with."""

    def learn(self, y: Array, mean: Array, square: Array, power: Array) -> None:
        """Parameters of the model given E[f] and E[f^2] of entries."""
        return None

    def sites(self, y: Array, mean: Array, square: Array, target: Array, weight: Array) -> tuple[Array, Array, Array]:
        """New targets and weights of entries, and their expected log-likelihoods, given E[f] and E[f^2].

        Args:
            y: observations (N,).
            mean: E[f], (N,).
            square: E[f^2], (N,).
            target: targets in use, (N,).
            weight: weights in use, (N,) or (1,); zero where there are none yet.
        """
        raise NotImplementedError

    @property
    @abstractmethod
    def precision(self) -> float:
        """E[tau]."""

    def update_noise(self, count: float, squared_error: float) -> None:
        """Posterior of tau given the expected ``sum w (y - f)^2`` of so many entries."""
        return None

    @abstractmethod
    def bound(self, count: float, squared_error: float) -> float:
        """Expected log-likelihood (or its bound) minus divergences of the model's own variables.

        Args:
            count: number of entries, by their weights.
            squared_error: expected ``sum w (y - f)^2`` with the targets and weights in use.
        """

    def carry(self, count: float, squared_error: float) -> None:
        """Keep what entries that will be gone say about the noise."""
        return None

    def forget(self, factor: float) -> None:
        """Multiply carried information by a factor."""
        return None

    def parameters(self) -> dict[str, float]:
        """What was learned."""
        return {}


class GaussianNoise(Observation):
    """Noise of one variance, whose precision has a gamma posterior.

    Args:
        variance: to begin with.

    Attributes:
        noise: posterior of tau.
        carried: count and squared error of entries that are gone.
    """

    needs_moments = False

    def __init__(self, variance: float = 1.0) -> None:
        self.noise = GammaPosterior(np.ones(1), np.array([max(variance, 1e-300)]), _SHAPE, _RATE)
        self.carried = (0.0, 0.0)

    def start(self, y: Array) -> tuple[Array, Array]:
        """The observations as they are."""
        return y, np.ones(1)

    @property
    def precision(self) -> float:
        """E[tau]."""
        return float(self.noise.mean[0])

    @property
    def variance(self) -> float:
        """E[1 / tau]."""
        return float(self.noise.mean_inverse[0])

    def update_noise(self, count: float, squared_error: float) -> None:
        """Gamma posterior."""
        shape = _SHAPE + 0.5 * (count + self.carried[0])
        rate = _RATE + 0.5 * max(squared_error + self.carried[1], _LEAST * squared_error)
        self.noise = GammaPosterior(np.array([shape]), np.array([rate]), _SHAPE, _RATE)

    def bound(self, count: float, squared_error: float) -> float:
        """Expected Gaussian log-density minus the divergence of tau."""
        count, squared_error = count + self.carried[0], squared_error + self.carried[1]
        expected = 0.5 * count * (float(self.noise.mean_log[0]) - math.log(2.0 * math.pi))
        return expected - 0.5 * self.precision * squared_error - self.noise.divergence()

    def carry(self, count: float, squared_error: float) -> None:
        """Counts and errors add."""
        self.carried = (self.carried[0] + count, self.carried[1] + squared_error)

    def forget(self, factor: float) -> None:
        """Of counts and errors."""
        self.carried = (factor * self.carried[0], factor * self.carried[1])

    def parameters(self) -> dict[str, float]:
        """Noise variance."""
        return {"noise_variance": self.variance}


def _tensor(values: Array) -> torch.Tensor:
    """The same numbers; columns of a frame may not be writable, which torch asks for, and are copied."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))


class SiteObservation(Observation):
    """Any likelihood, by the Gaussian sites that it gives at the moments of f.

    Where the sites are those of a local bound (Student-t by scale mixture, Bernoulli and negative binomial by the
    Polya-Gamma bound) the evidence bound never decreases. Otherwise they are those of the expectation under a *normal*
    f, which low rank makes f only nearly, and steps to them are damped.

    Args:
        likelihood: to begin with; its parameters are learned.
        damping: part of the old site that a step keeps, for likelihoods whose full steps may overshoot.

    Attributes:
        largest: of all observations that parameters were learned from.
    """

    def __init__(self, likelihood: Likelihood, damping: float = 0.5) -> None:
        self.likelihood = likelihood
        self.largest = 0.0
        self.keep = 0.0 if likelihood.monotone else damping

    @property
    def precision(self) -> float:
        """One: the weights are precisions."""
        return 1.0

    def start(self, y: Array) -> tuple[Array, Array]:
        """The expansion at the observations themselves; at zero for zeros and ones."""
        mean, square = self._saturated(y)
        target, weight, _ = self._sites(y, mean, square)
        return target, weight

    def _saturated(self, y: Array) -> tuple[Array, Array]:
        if isinstance(self.likelihood, StudentT):
            return y, y**2 + float(self.likelihood.scale) ** 2
        if isinstance(self.likelihood, Bernoulli):
            return np.zeros_like(y), np.zeros_like(y)
        level = np.log(y + 0.5)
        return level, level**2

    def _sites(self, y: Array, mean: Array, square: Array) -> tuple[Array, Array, Array]:
        variance = np.maximum(square - mean**2, 0.0)
        with torch.no_grad():
            site = self.likelihood.site(*map(_tensor, (y, mean, variance)))
        precision = np.maximum(site.precision.expand(y.shape).numpy(), _FLATTEST)
        target: Array = site.information.numpy() / precision
        return target, precision, site.expected.numpy()

    def learn(self, y: Array, mean: Array, square: Array, power: Array) -> None:
        """Parameters of the likelihood that raise the bound."""
        self.largest = max(self.largest, float(y.max(initial=0.0)))
        variance = np.maximum(square - mean**2, 0.0)
        with torch.no_grad():
            self.likelihood = self.likelihood.fitted(*map(_tensor, (y, mean, variance, power)))

    def sites(self, y: Array, mean: Array, square: Array, target: Array, weight: Array) -> tuple[Array, Array, Array]:
        """Damped in the natural parameters; see the base class."""
        new, precision, expected = self._sites(y, mean, square)
        if self.keep:
            keep = np.where(weight > 0.0, self.keep, 0.0)
            blended = keep * weight + (1.0 - keep) * precision
            new = (keep * weight * target + (1.0 - keep) * precision * new) / blended
            precision = blended
        return new, precision, expected

    def bound(self, count: float, squared_error: float) -> float:
        """Expected log-likelihood, or the local bound, at the posterior."""
        return self.expected

    def parameters(self) -> dict[str, float]:
        """Of the likelihood."""
        if isinstance(self.likelihood, StudentT):
            return {"noise_scale": float(self.likelihood.scale), "degrees_of_freedom": float(self.likelihood.df)}
        if isinstance(self.likelihood, NegativeBinomial):
            return {"dispersion": float(self.likelihood.size)}
        return {}


def observation_named(name: str, y: Array) -> Observation:
    """The observation model of this likelihood with parameters to begin with, for observations like these.

    Raises:
        InvalidDataError: for values that the likelihood cannot give.
    """
    mean, variance = (float(y.mean()), float(y.var())) if y.size else (0.0, 1.0)
    if name == "gaussian":
        return GaussianNoise(variance)
    likelihood: Likelihood
    if name == "student-t":
        likelihood = StudentT(math.sqrt(variance) or 1.0, 5.0)
    elif name == "bernoulli":
        likelihood = Bernoulli("local")
    elif name == "negative-binomial":
        size = float(np.clip(mean**2 / max(variance - mean, 1e-3 * max(mean, 1e-3)), 0.1, 100.0))
        likelihood = NegativeBinomial(size, bound="local")
    else:
        likelihood = likelihood_named(name)
    likelihood.check(np.array(y))
    return SiteObservation(likelihood)
