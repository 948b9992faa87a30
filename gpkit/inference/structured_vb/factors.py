"""Factors: the latent functions of one mode, with their prior and their Gaussian posterior given sites.

A factor holds R functions of the J distinct coordinates of its mode. Sites (a precision (J, R, R) and an information
(J, R)) come from the data and the other factors; the posterior is exact given them.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb.coefficients import nonnegative
from gpkit.inference.structured_vb.rotations import SpreadOfFunctions
from gpkit.inference.structured_vb.search import ParameterSearch

__all__ = ["Factor", "IndependentFactor", "KernelFactor"]

Array = NDArray[np.float64]


class Factor(ABC):
    """Posterior of R functions at J coordinates.

    Attributes:
        rank: R.
        mean: (J, R).
        covariance: (J, R, R).
        precision: sites of the last update, (J, R, R), carried ones included.
        information: the same, (J, R).
        carried: sites of entries that are gone, a precision (J, R, R) and an information (J, R); None without any.
        log_evidence: of the prior and these sites.
        settled: whether posterior, sites and prior belong together, as after an update.
    """

    def __init__(self, size: int, rank: int) -> None:
        self.rank = rank
        self.settled = False
        self.mean: Array = np.zeros((size, rank))
        self.covariance: Array = np.tile(np.eye(rank), (size, 1, 1))
        self.precision: Array = np.zeros((size, rank, rank))
        self.information: Array = np.zeros((size, rank))
        self.carried: tuple[Array, Array] | None = None
        self.log_evidence = 0.0

    @property
    def size(self) -> int:
        """Number of distinct coordinates J."""
        return len(self.mean)

    def start(self, rng: np.random.Generator) -> None:
        """Random means and a small covariance, from which a sweep can begin."""
        self.mean = rng.uniform(0.0, 1.0, (self.size, self.rank))
        self.covariance = np.tile(0.1 * np.eye(self.rank), (self.size, 1, 1))

    def set_sites(self, precision: Array, information: Array) -> None:
        """Sites of the entries, to which carried ones are added."""
        if self.carried is not None:
            total = precision + self.carried[0], information + self.carried[1]
            precision, information = nonnegative(*total, self.mean)
        self.precision, self.information = np.ascontiguousarray(precision), np.ascontiguousarray(information)

    def update(self) -> None:
        """Compute the posterior for the sites that are set."""
        if self.rank and self.size:
            self.log_evidence, self.mean, self.covariance = self._posterior(self.precision, self.information)
            self.settled = True

    def carry(self, precision: Array, information: Array) -> None:
        """Add sites of entries that will be gone."""
        if self.carried is not None:
            precision, information = precision + self.carried[0], information + self.carried[1]
        self.carried = (precision, information)

    def forget(self, factor: float) -> None:
        """Multiply carried sites by a factor."""
        if self.carried is not None:
            self.carried = (factor * self.carried[0], factor * self.carried[1])

    def divergence(self) -> float:
        """Divergence of the posterior of the last update from the prior, over whole paths.

        What carried sites say, up to a constant, is taken off.
        """
        if not self.rank or not self.size:
            return 0.0
        own = self._expected(self.precision, self.information) - self.log_evidence
        return own if self.carried is None else own - self._expected(*self.carried)

    def _expected(self, precision: Array, information: Array) -> float:
        """Expected logarithm of sites."""
        drawn = information - 0.5 * np.matmul(precision, self.mean[:, :, None])[:, :, 0]
        return float(np.vdot(drawn, self.mean)) - 0.5 * float(np.vdot(precision, self.covariance))

    def spread(self) -> SpreadOfFunctions | None:
        """What the prior sees of the posterior of the last update; None where sites are carried or not of this prior.

        ``K^-1 m = eta - Lam m`` and ``K^-1 V = 1 - Lam V`` need blocks of the diagonal only.
        """
        if not self.settled or self.carried is not None or not self.rank:
            return None
        slope = self.information - np.matmul(self.precision, self.mean[:, :, None])[:, :, 0]
        degrees, rank = self._degrees(), self.rank
        trace = self.covariance.transpose(1, 0, 2).reshape(rank, -1) @ self.precision.reshape(-1, rank)
        square = self.mean.T @ slope - trace
        square = 0.5 * (square + square.T) + degrees * np.eye(self.rank)
        return SpreadOfFunctions(degrees, square, slope.sum(0), self._constant())

    def _degrees(self) -> int:
        """Rank of the prior covariance."""
        return self.size

    def _constant(self) -> float:
        """``1^T K^-1 1``, infinite where it is not known."""
        return math.inf

    def learn(self) -> None:
        """Move prior parameters where the evidence with the present sites is higher; the posterior is left as it was.

        With the sites fixed the evidence is the bound as a function of the prior and the posterior of this factor
        together, so that the update which follows cannot lower the bound.
        """
        return None

    def take_over(self, other: Factor, coordinates: Array, places: NDArray[np.int32]) -> None:
        """Begin with the prior, the posterior and the carried sites of another factor.

        Args:
            other: whose coordinates are among this factor's.
            coordinates: this factor's coordinates in the other's numbers.
            places: where the other's coordinates are among this factor's.
        """
        self.mean, self.covariance = other.at(coordinates)
        if other.carried is not None:
            precision, information = np.zeros_like(self.precision), np.zeros_like(self.information)
            precision[places], information[places] = other.carried
            self.carried = (precision, information)

    def inherit(self, other: Factor) -> None:
        """Take over what another factor at the same coordinates has learned of the prior."""
        return None

    def parameters(self) -> dict[str, float]:
        """Learned parameters of the prior by name, natural units."""
        return {}

    @abstractmethod
    def _posterior(self, precision: Array, information: Array) -> tuple[float, Array, Array]:
        """Log-evidence, means (J, R) and covariances (J, R, R)."""

    @abstractmethod
    def at(self, coordinates: Array) -> tuple[Array, Array]:
        """Posterior means (M, R) and covariances (M, R, R) at any coordinates, exact given the sites."""

    @abstractmethod
    def prior_covariance(self, coordinates: Array) -> Array:
        """Prior covariance (M, M) of one function at distinct coordinates, increasing for ordered modes."""

    @abstractmethod
    def sample(self, coordinates: Array, n: int, rng: np.random.Generator) -> Array:
        """Joint draws (n, M, R) of the functions at any coordinates."""


class KernelFactor(Factor):
    """Functions whose prior is a kernel with learned parameters.

    Args:
        kernel: it is copied.
        size: J.
        rank: R.
        least, most: length scales to be searched.
        begin: length scales at the start of a search.
        learn: whether length scales and variances are learned.
    """

    def __init__(
        self, kernel: Any, size: int, rank: int, *, least: float, most: float, begin: float, learn: bool
    ) -> None:
        super().__init__(size, rank)
        self.kernel = copy.deepcopy(kernel).double()
        self._search = ParameterSearch(self.kernel, least=least, most=most, learn=learn)
        if learn:
            self._search.begin(begin)

    @abstractmethod
    def _evidence(self) -> float:
        """With the sites that are set, for the parameters that the kernel has."""

    def _follow(self) -> None:
        """Called when the kernel has changed."""
        return None

    def learn(self) -> None:
        """One parameter in turn, by its evidence."""
        if self.rank and self.size > 1:
            self._search.advance(self._evidence)
            self._follow()

    def parameters(self) -> dict[str, float]:
        """Natural values of all parameters of the kernel."""
        return self._search.values()

    def take_over(self, other: Factor, coordinates: Array, places: NDArray[np.int32]) -> None:
        """The kernel with its search, too."""
        super().take_over(other, coordinates, places)
        self.inherit(other)

    def inherit(self, other: Factor) -> None:
        """The kernel with its search."""
        if isinstance(other, KernelFactor):
            self._search = copy.deepcopy(other._search)
            self.kernel = self._search.kernel
            self._follow()


class IndependentFactor(Factor):
    """Functions of a category: independent standard normal values at each level.

    Coordinates are codes from 0; codes that are not there (unseen levels) have the prior.
    """

    def _constant(self) -> float:
        return float(self.size)

    def _posterior(self, precision: Array, information: Array) -> tuple[float, Array, Array]:
        matrix = precision + np.eye(self.rank)
        lower = np.linalg.cholesky(matrix)
        whitening = np.linalg.solve(lower, np.broadcast_to(np.eye(self.rank), matrix.shape))
        covariance = whitening.transpose(0, 2, 1) @ whitening
        mean = np.einsum("jab,jb->ja", covariance, information)
        evidence = 0.5 * (information * mean).sum() - np.log(np.diagonal(lower, axis1=1, axis2=2)).sum()
        return float(evidence), mean, covariance

    def at(self, coordinates: Array) -> tuple[Array, Array]:
        """Posterior of seen levels, prior of others."""
        code = coordinates.astype(np.int64)
        seen = (code >= 0) & (code < self.size)
        safe = np.where(seen, code, 0)
        mean = np.where(seen[:, None], self.mean[safe], 0.0)
        covariance = np.where(seen[:, None, None], self.covariance[safe], np.eye(self.rank))
        return mean, covariance

    def prior_covariance(self, coordinates: Array) -> Array:
        """The identity."""
        return np.eye(len(coordinates))

    def sample(self, coordinates: Array, n: int, rng: np.random.Generator) -> Array:
        """Draws; equal codes have equal values."""
        levels, inverse = np.unique(coordinates, return_inverse=True)
        mean, covariance = self.at(levels)
        root = np.linalg.cholesky(covariance + 1e-14 * np.eye(self.rank))
        white = rng.standard_normal((n, len(levels), self.rank))
        return (mean + np.einsum("jab,njb->nja", root, white))[:, inverse]
