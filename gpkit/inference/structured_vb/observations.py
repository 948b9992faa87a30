"""Observation models of the engine: each turns expected errors into weights, a noise precision and a part of the bound.

The engine sees the data as ``w_n tau (y_n - f_n)^2 / 2`` with targets y, weights w and a noise precision tau. An
observation model chooses them so that the bound is at its maximum given the posterior of f.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb.gamma import GammaPosterior

__all__ = ["Bernoulli", "GaussianNoise", "NegativeBinomial", "Observation", "Poisson", "StudentTNoise"]

Array = NDArray[np.float64]
_SHAPE = _RATE = 1e-3


class Observation(ABC):
    """What the engine asks of an observation model.

    Attributes:
        y: observations (N,).
        needs_moments: whether :meth:`update_entries` needs E[f] and E[f^2] of every entry.
    """

    needs_moments = True

    def __init__(self, y: Array) -> None:
        self.y = y

    @abstractmethod
    def start(self) -> tuple[Array, Array]:
        """Targets (N,) and weights (N,) or (1,) to begin with."""

    def update_entries(self, mean: Array, square: Array) -> tuple[Array, Array]:
        """New targets and weights given E[f] and E[f^2]."""
        raise NotImplementedError

    @property
    @abstractmethod
    def precision(self) -> float:
        """E[tau]."""

    def update_noise(self, entries: int, squared_error: float) -> None:
        """Posterior of tau given the expected ``sum w (y - f)^2``."""
        return None

    @abstractmethod
    def bound(self, entries: int, squared_error: float, squares: float) -> float:
        """Expected log-likelihood (or its bound) minus divergences of the model's own variables.

        Args:
            entries: N.
            squared_error: expected ``sum w (y - f)^2`` with the targets and weights in use.
            squares: ``sum w y^2`` of the same.
        """

    def parameters(self) -> dict[str, float]:
        """What was learned."""
        return {}


class GaussianNoise(Observation):
    """Noise of one variance, whose precision has a gamma posterior.

    Args:
        y: observations.
        weight: relative precisions of the observations, (N,), known.
    """

    needs_moments = False

    def __init__(self, y: Array, weight: Array | None = None) -> None:
        super().__init__(y)
        self.weight = np.ones(1) if weight is None else weight
        if self.weight.size == 1:
            self._log_weights = y.size * float(np.log(self.weight[0]))
            typical, variance = float(self.weight[0]), float(y.var()) if y.size else 1.0
        else:
            self._log_weights = float(np.log(self.weight).sum())
            typical = float(self.weight.mean())
            variance = float(np.average((y - np.average(y, weights=self.weight)) ** 2, weights=self.weight))
        self.noise = GammaPosterior(np.ones(1), np.array([max(variance, 1e-300) * typical]), _SHAPE, _RATE)

    def start(self) -> tuple[Array, Array]:
        """The observations as they are."""
        return self.y, self.weight

    @property
    def precision(self) -> float:
        """E[tau]."""
        return float(self.noise.mean[0])

    @property
    def variance(self) -> float:
        """E[1 / tau]."""
        return float(self.noise.mean_inverse[0])

    def update_noise(self, entries: int, squared_error: float) -> None:
        """Gamma posterior."""
        self.noise = GammaPosterior(
            np.array([_SHAPE + 0.5 * entries]), np.array([_RATE + 0.5 * squared_error]), _SHAPE, _RATE
        )

    def bound(self, entries: int, squared_error: float, squares: float) -> float:
        """Expected Gaussian log-density minus the divergence of tau."""
        expected = 0.5 * entries * (float(self.noise.mean_log[0]) - math.log(2.0 * math.pi)) + 0.5 * self._log_weights
        return expected - 0.5 * self.precision * squared_error - self.noise.divergence()

    def parameters(self) -> dict[str, float]:
        """Noise variance."""
        return {"noise_variance": self.variance}


class StudentTNoise(GaussianNoise):
    """Student-t noise as a gamma mixture of normals, with learned degrees of freedom."""

    needs_moments = True

    def __init__(self, y: Array, degrees: float = 5.0) -> None:
        super().__init__(y)
        self.degrees = degrees
        self._shape = 0.5 * (degrees + 1.0)
        self._rate = np.full(y.shape, self._shape)

    def start(self) -> tuple[Array, Array]:
        """All weights one."""
        return self.y, np.ones_like(self.y)

    def update_entries(self, mean: Array, square: Array) -> tuple[Array, Array]:
        """Weights given the expected squared errors, then degrees of freedom given the weights."""
        error = np.maximum(self.y**2 - 2.0 * self.y * mean + square, 0.0)
        self._shape = 0.5 * (self.degrees + 1.0)
        self._rate = 0.5 * (self.degrees + self.precision * error)
        weight = self._shape / self._rate
        gap = float(np.mean(special.digamma(self._shape) - np.log(self._rate) - weight)) if weight.size else -1.0

        def slope(log_half: float) -> float:
            half = math.exp(log_half)
            return log_half + 1.0 - float(special.digamma(half)) + gap

        low, high = math.log(1.05), math.log(50.0)
        if slope(low) <= 0.0:
            best = low
        elif slope(high) >= 0.0:
            best = high
        else:
            best = float(optimize.brentq(slope, low, high, xtol=1e-10))
        self.degrees = 2.0 * math.exp(best)
        return self.y, weight

    def bound(self, entries: int, squared_error: float, squares: float) -> float:
        """The Gaussian bound with the weights' expected logarithms and divergences."""
        mean_log = special.digamma(self._shape) - np.log(self._rate)
        half = 0.5 * self.degrees
        own = GammaPosterior(np.full_like(self._rate, self._shape), self._rate, half, half).divergence()
        return super().bound(entries, squared_error, squares) + 0.5 * float(mean_log.sum()) - own

    @property
    def variance(self) -> float:
        """Variance of the noise; infinite at two degrees of freedom."""
        return float(self.noise.mean_inverse[0]) * self.degrees / (self.degrees - 2.0)

    @property
    def scale(self) -> float:
        """Scale of the t distribution."""
        return math.sqrt(float(self.noise.mean_inverse[0]))

    def parameters(self) -> dict[str, float]:
        """Scale and degrees of freedom."""
        return {"noise_scale": self.scale, "degrees_of_freedom": self.degrees}


class _PolyaGamma(Observation):
    """Logistic likelihoods ``exp(kappa f) / (2 cosh(f / 2))^b`` up to a constant, by Polya-Gamma augmentation."""

    def __init__(self, y: Array, kappa: Array, count: Array, constant: float) -> None:
        super().__init__(y)
        self._kappa, self._count, self._constant = kappa, count, constant
        self._tilt = np.zeros_like(y)

    @property
    def precision(self) -> float:
        """One: the weights are precisions."""
        return 1.0

    def start(self) -> tuple[Array, Array]:
        """The expansion at zero."""
        return self._from_tilt(np.zeros_like(self.y))

    def _from_tilt(self, tilt: Array) -> tuple[Array, Array]:
        self._tilt = tilt
        small = tilt < 1e-6
        safe = np.where(small, 1.0, tilt)
        weight = self._count * np.where(small, 0.25, np.tanh(0.5 * safe) / (2.0 * safe))
        return self._kappa / weight, weight

    def update_entries(self, mean: Array, square: Array) -> tuple[Array, Array]:
        """The tilt of the best bound is the root mean square of f."""
        return self._from_tilt(np.sqrt(np.maximum(square, 0.0)))

    def bound(self, entries: int, squared_error: float, squares: float) -> float:
        """Jaakkola and Jordan's bound: ``kappa f - w f^2 / 2 + w c^2 / 2 - b ln(2 cosh(c / 2))``."""
        c = self._tilt
        _, weight = self._from_tilt(c)
        log_cosh = np.logaddexp(0.5 * c, -0.5 * c)
        tilted = float((0.5 * weight * c**2 - self._count * log_cosh).sum())
        return self._constant - 0.5 * (squared_error - squares) + tilted


class Bernoulli(_PolyaGamma):
    """Zeros and ones with log-odds f.

    References:
        Jaakkola & Jordan (2000), Statistics and Computing 10, 25; Polson, Scott & Windle (2013), JASA 108, 1339.
    """

    def __init__(self, y: Array) -> None:
        bad = np.flatnonzero((y != 0.0) & (y != 1.0))
        if bad.size:
            raise InvalidDataError(f"a Bernoulli observation is 0 or 1, row {bad[0]} is {y[bad[0]]:g}")
        super().__init__(y, y - 0.5, np.ones_like(y), 0.0)


def _require_counts(y: Array, name: str) -> None:
    bad = np.flatnonzero((y < 0.0) | (y != np.round(y)))
    if bad.size:
        raise InvalidDataError(f"a {name} observation is a count 0, 1, 2, ..., row {bad[0]} is {y[bad[0]]:g}")


class NegativeBinomial(_PolyaGamma):
    """Counts with mean ``r exp(f)`` and dispersion r, learned by moments at the start.

    References:
        Polson, Scott & Windle (2013), JASA 108, 1339.
    """

    def __init__(self, y: Array, dispersion: float | None = None) -> None:
        _require_counts(y, "negative binomial")
        if dispersion is None:
            mean, variance = (float(y.mean()), float(y.var())) if y.size else (1.0, 1.0)
            dispersion = float(np.clip(mean**2 / max(variance - mean, 1e-3 * max(mean, 1e-3)), 0.1, 100.0))
        self.dispersion = dispersion
        r = dispersion
        constant = float((special.gammaln(y + r) - special.gammaln(r) - special.gammaln(y + 1.0)).sum())
        super().__init__(y, 0.5 * (y - r), y + r, constant)

    def parameters(self) -> dict[str, float]:
        """The dispersion."""
        return {"dispersion": self.dispersion}


class Poisson(Observation):
    """Counts with mean ``exp(f)``; the curvature is that of the expected rate under a normal f.

    The targets are Newton steps on the expected log-likelihood, damped in their natural parameters; the bound is the
    expected log-likelihood with f normal, which low rank makes f only nearly.
    """

    def __init__(self, y: Array, damping: float = 0.5) -> None:
        _require_counts(y, "Poisson")
        super().__init__(y)
        self._damping = damping
        self._constant = float(special.gammaln(y + 1.0).sum())
        level = np.log(y + 0.5)
        self._weight: Array = y + 0.5
        self._linear: Array = self._weight * level
        self._expected = 0.0

    @property
    def precision(self) -> float:
        """One: the weights are precisions."""
        return 1.0

    def start(self) -> tuple[Array, Array]:
        """The expansion at the counts themselves."""
        return self._linear / self._weight, self._weight

    def update_entries(self, mean: Array, square: Array) -> tuple[Array, Array]:
        """A damped step."""
        variance = np.maximum(square - mean**2, 0.0)
        rate = np.exp(np.clip(mean + 0.5 * variance, -30.0, 30.0))
        self._expected = float((self.y * mean - rate).sum()) - self._constant
        keep = self._damping
        self._weight = keep * self._weight + (1.0 - keep) * rate
        self._linear = keep * self._linear + (1.0 - keep) * (rate * mean + self.y - rate)
        return self._linear / self._weight, self._weight

    def bound(self, entries: int, squared_error: float, squares: float) -> float:
        """Expected log-likelihood at the last step."""
        return self._expected
