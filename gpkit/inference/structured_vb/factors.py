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
import torch
from numpy.typing import NDArray

from gpkit.inference import state_space
from gpkit.inference.structured_vb.coefficients import nonnegative
from gpkit.inference.structured_vb.rotations import SpreadOfFunctions
from gpkit.inference.structured_vb.search import ParameterSearch

__all__ = ["BasisFactor", "Factor", "IndependentFactor", "MarkovFactor"]

Array = NDArray[np.float64]
_HOLD = 1e6  # precision of observations that hold a function


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
            precision, information = nonnegative(precision + self.carried[0]), information + self.carried[1]
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
        second = self.covariance + self.mean[:, :, None] * self.mean[:, None, :]
        return float((information * self.mean).sum() - 0.5 * (precision * second).sum())

    def spread(self) -> SpreadOfFunctions | None:
        """What the prior sees of the posterior of the last update; None where sites are carried or not of this prior.

        ``K^-1 m = eta - Lam m`` and ``K^-1 V = 1 - Lam V`` need blocks of the diagonal only.
        """
        if not self.settled or self.carried is not None or not self.rank:
            return None
        slope = self.information - (self.precision * self.mean[:, None, :]).sum(2)
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


class MarkovFactor(Factor):
    """Functions of an ordered coordinate, by the state-space engine.

    Args:
        kernel: any kernel with a state space; it is copied.
        coordinates: distinct, increasing, (J,).
        rank: R.
        learn: whether length scales and variances are learned; they then start at a tenth of the range.
    """

    def __init__(self, kernel: Any, coordinates: Array, rank: int, *, learn: bool = True) -> None:
        super().__init__(len(coordinates), rank)
        self.kernel = copy.deepcopy(kernel).double()
        self.coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
        self._path = state_space.RepeatedPath(self.coordinates, max(rank, 1))
        self._single = state_space.RepeatedPath(self.coordinates, 1)
        self._norm: tuple[tuple[float, ...], float] | None = None
        self._filtered: tuple[float, ...] | None = None  # parameters of the last evidence with the sites that are set
        span = float(np.ptp(self.coordinates)) if self.size > 1 else 1.0
        gap = float(np.median(np.diff(self.coordinates))) if self.size > 1 else 1.0
        self._search = ParameterSearch(self.kernel, least=0.05 * gap, most=20.0 * span, learn=learn)
        if learn:
            self._search.begin(0.1 * span)

    def _evidence(self) -> float:
        self._filtered = self._search.state()
        return self._path.evidence(self.kernel, self.precision, self.information)

    def set_sites(self, precision: Array, information: Array) -> None:
        """What was filtered is of other sites."""
        super().set_sites(precision, information)
        self._filtered = None

    def learn(self) -> None:
        """One parameter in turn, by its evidence."""
        if self.rank and self.size > 1:
            self._search.advance(self._evidence)

    def _constant(self) -> float:
        """From the posterior of one function that nearly exact observations hold at one."""
        key = self._search.state()
        if self._norm is None or self._norm[0] != key:
            precision = np.full((self.size, 1, 1), _HOLD)
            _, mean, _ = self._single.smooth(self.kernel, precision, precision[:, :, 0].copy())
            self._norm = (key, float(_HOLD * (1.0 - mean).sum()))
        return self._norm[1]

    def parameters(self) -> dict[str, float]:
        """Natural values of all parameters of the kernel."""
        return self._search.values()

    def _posterior(self, precision: Array, information: Array) -> tuple[float, Array, Array]:
        same = precision is self.precision and self._path.filtered and self._filtered == self._search.state()
        if same:
            return self._path.smooth_again()
        return self._path.smooth(self.kernel, precision, information)

    def take_over(self, other: Factor, coordinates: Array, places: NDArray[np.int32]) -> None:
        """The kernel with its search, too."""
        super().take_over(other, coordinates, places)
        self.inherit(other)

    def inherit(self, other: Factor) -> None:
        """The kernel with its search."""
        if isinstance(other, MarkovFactor):
            self._search = copy.deepcopy(other._search)
            self.kernel = self._search.kernel

    def _merged(self, coordinates: Array) -> tuple[Array, Array, Array, NDArray[np.int64]]:
        """Old and new coordinates in order, their sites (none at new ones), and where the new ones went."""
        nodes, inverse = np.unique(np.concatenate([self.coordinates, coordinates]), return_inverse=True)
        precision = np.zeros((len(nodes), self.rank, self.rank))
        information = np.zeros((len(nodes), self.rank))
        precision[inverse[: self.size]] = self.precision
        information[inverse[: self.size]] = self.information
        return nodes, precision, information, inverse[self.size :].astype(np.int64)

    def at(self, coordinates: Array) -> tuple[Array, Array]:
        """New coordinates are nodes without information: interpolation and extrapolation are exact."""
        nodes, precision, information, where = self._merged(coordinates)
        with torch.no_grad():
            found = state_space.smooth(
                self.kernel, torch.from_numpy(nodes), torch.from_numpy(precision), torch.from_numpy(information)
            )
        return found.mean.numpy()[where], found.covariance.numpy()[where]

    def prior_covariance(self, coordinates: Array) -> Array:
        """The kernel's own."""
        with torch.no_grad():
            dense: Array = self.kernel(torch.from_numpy(np.ascontiguousarray(coordinates))).to_dense().numpy()
        return dense

    def sample(self, coordinates: Array, n: int, rng: np.random.Generator) -> Array:
        """Joint draws along the path."""
        nodes, precision, information, where = self._merged(coordinates)
        drawn = state_space.sample(
            self.kernel,
            torch.from_numpy(nodes),
            torch.from_numpy(precision),
            torch.from_numpy(information),
            n,
            seed=int(rng.integers(2**31)),
        )
        return drawn.numpy()[:, where]


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


class BasisFactor(Factor):
    """Functions of a place: a Gaussian process over sites in the basis of its principal components.

    With all components it is the exact process at the sites; with fewer, what is left out is added to the variance.

    Args:
        kernel: a GPyTorch kernel of the places; it is copied.
        places: (J, D).
        rank: R.
        components: number of principal components; None keeps all above 1e-10 of the largest.
        learn: whether length scales are learned; they then start at a fifth of the range.
    """

    def __init__(
        self, kernel: Any, places: Array, rank: int, *, components: int | None = None, learn: bool = True
    ) -> None:
        super().__init__(len(places), rank)
        self.kernel = copy.deepcopy(kernel).double()
        self.places = np.ascontiguousarray(places, dtype=np.float64)
        self.components = components
        span = float(np.ptp(self.places, axis=0).max()) or 1.0
        self._search = ParameterSearch(self.kernel, least=1e-3 * span, most=20.0 * span, learn=learn)
        if learn:
            self._search.begin(0.2 * span)
        self._decompose()

    def _decompose(self) -> None:
        values, vectors = np.linalg.eigh(self._gram(self.places, self.places))
        keep = np.flatnonzero(values > 1e-10 * values[-1])[::-1]
        keep = keep if self.components is None else keep[: self.components]
        self._values, self._vectors = values[keep], vectors[:, keep]
        self._weights_mean: Array = np.zeros((len(keep), self.rank))
        self._weights_covariance: Array = np.eye(len(keep) * self.rank)

    def _degrees(self) -> int:
        return len(self._values)

    def _evidence(self) -> float:
        self._decompose()
        return self._posterior(self.precision, self.information)[0]

    def learn(self) -> None:
        """One parameter in turn, by its evidence."""
        if self.rank and self.size > 1:
            self._search.advance(self._evidence)
            self._decompose()

    def parameters(self) -> dict[str, float]:
        """Natural values of all parameters of the kernel."""
        return self._search.values()

    def _gram(self, a: Array, b: Array) -> Array:
        with torch.no_grad():
            dense: Array = self.kernel(torch.from_numpy(a), torch.from_numpy(b)).to_dense().numpy()
        return dense

    def _basis(self, places: Array) -> tuple[Array, Array]:
        """Values (M, C) of the components and the variance (M,) that they leave out."""
        basis = self._gram(places, self.places) @ (self._vectors / np.sqrt(self._values))
        with torch.no_grad():
            prior = self.kernel(torch.from_numpy(places), diag=True).numpy()
        return basis, np.maximum(prior - (basis**2).sum(1), 0.0)

    def _posterior(self, precision: Array, information: Array) -> tuple[float, Array, Array]:
        basis = self._vectors * np.sqrt(self._values)
        size = basis.shape[1] * self.rank
        matrix = np.einsum("jc,jab,jd->cadb", basis, precision, basis, optimize=True).reshape(size, size)
        matrix += np.eye(size)
        linear = np.einsum("jc,ja->ca", basis, information).reshape(size)
        root = np.linalg.cholesky(matrix)
        inverse = np.linalg.inv(root)
        self._weights_covariance = inverse.T @ inverse
        weights = self._weights_covariance @ linear
        self._weights_mean = weights.reshape(-1, self.rank)
        evidence = 0.5 * linear @ weights - np.log(np.diag(root)).sum()
        mean, covariance = self._project(basis)
        return float(evidence), mean, covariance

    def take_over(self, other: Factor, coordinates: Array, places: NDArray[np.int32]) -> None:
        """The kernel with its search, too."""
        super().take_over(other, coordinates, places)
        self.inherit(other)

    def inherit(self, other: Factor) -> None:
        """The kernel with its search."""
        if isinstance(other, BasisFactor):
            self._search = copy.deepcopy(other._search)
            self.kernel = self._search.kernel
            self._decompose()

    def _project(self, basis: Array) -> tuple[Array, Array]:
        c, r = basis.shape[1], self.rank
        v = self._weights_covariance.reshape(c, r, c, r)
        return basis @ self._weights_mean, np.einsum("jc,cadb,jd->jab", basis, v, basis, optimize=True)

    def at(self, coordinates: Array) -> tuple[Array, Array]:
        """Kriging from the sites; the variance that the components leave out is added."""
        basis, left = self._basis(coordinates)
        mean, covariance = self._project(basis)
        return mean, covariance + left[:, None, None] * np.eye(self.rank)

    def prior_covariance(self, coordinates: Array) -> Array:
        """Of the components, with what they leave out on the diagonal."""
        basis, left = self._basis(coordinates)
        return basis @ basis.T + np.diag(left)

    def sample(self, coordinates: Array, n: int, rng: np.random.Generator) -> Array:
        """Joint draws of the components' weights; what they leave out is drawn independently."""
        basis, left = self._basis(coordinates)
        root = np.linalg.cholesky(self._weights_covariance)
        weights = self._weights_mean.reshape(-1) + rng.standard_normal((n, len(root))) @ root.T
        drawn = np.einsum("jc,ncr->njr", basis, weights.reshape(n, -1, self.rank))
        return drawn + np.sqrt(left)[:, None] * rng.standard_normal(drawn.shape)
