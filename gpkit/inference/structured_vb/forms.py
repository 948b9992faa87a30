"""Forms: how the components of the modes are multiplied and summed, with the posterior of the coefficients.

Everything the engine needs from a form is linear algebra on sufficient statistics: sites of a mode, posteriors of the
coefficients, the expected squared error. Everything that pictures of a fit need follows from moments of its components.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb.coefficients import Coefficients
from gpkit.inference.structured_vb.gamma import GammaPosterior
from gpkit.inference.structured_vb.layout import Grouping
from gpkit.inference.structured_vb.modes import Mode

__all__ = ["ARD_RATE", "ARD_SHAPE", "CoreForm", "Form", "Statistics", "ard_prior"]

Array = NDArray[np.float64]
Draws = Sequence[tuple[Array, NDArray[np.intp]]]
ARD_SHAPE = ARD_RATE = 1e-2
ROOM = 2**28
"""Numbers in the largest array of statistics."""


def ard_prior(size: int) -> GammaPosterior:
    """Precisions as they are before anything is seen."""
    return GammaPosterior(np.full(size, ARD_SHAPE), np.full(size, ARD_SHAPE), ARD_SHAPE, ARD_RATE)


class Statistics:
    """Packed statistics of a mode: ``second`` (J, ...) and ``first`` (J, ...), with the mode that they are of."""

    def __init__(self, mode: int, second: Array, first: Array) -> None:
        self.mode, self.second, self.first = mode, second, first

    def add(self, other: Statistics) -> None:
        """Those of more entries."""
        self.second += other.second
        self.first += other.first

    def scale(self, factor: float) -> None:
        """Multiply by a factor."""
        self.second *= factor
        self.first *= factor

    def blend(self, other: Statistics, rate: float, scale: float) -> None:
        """Move by a step of size ``rate`` towards ``scale`` times the others."""
        self.scale(1.0 - rate)
        other.scale(rate * scale)
        self.add(other)


class Form(ABC):
    """A multilinear function of components of the modes and of normal coefficients.

    Args:
        modes: of the table.
        ard: whether precisions of the coefficients have gamma posteriors; they are one otherwise.
    """

    precisions: list[GammaPosterior]

    def __init__(self, modes: Sequence[Mode], ard: bool) -> None:
        self.modes = list(modes)
        self.ard = ard

    # -- inference -------------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, rng: np.random.Generator) -> None:
        """A random start."""

    @abstractmethod
    def take_over(self, other: Form) -> None:
        """Begin with the posterior of another form of the same shape."""

    @abstractmethod
    def statistics(self, mode: int, grouping: Grouping) -> Statistics:
        """One pass over the entries."""

    @abstractmethod
    def sites(self, statistics: Statistics) -> tuple[Array, Array]:
        """Sites (J, R, R) and (J, R) of all components of the mode, for unit noise precision."""

    def rotate(self, mode: int) -> None:
        """Change coefficients as a better basis of the functions of the mode asks, whose update has to follow.

        The bound with that update is no lower than with the update alone after the change of both.
        """
        return None

    @abstractmethod
    def update(self, statistics: Statistics, noise_precision: float) -> None:
        """Posteriors of those coefficients, and of their precisions, that follow from the statistics of this mode."""

    @abstractmethod
    def sums(self, statistics: Statistics) -> tuple[float, float]:
        """``sum w y E[f]`` and ``sum w E[f^2]``, from the statistics of the last mode."""

    @abstractmethod
    def divergence(self) -> float:
        """Divergence of coefficients and their precisions from their priors, less what carried information says."""

    @abstractmethod
    def evaluate(self, mode: int, grouping: Grouping, tables: Sequence[Array]) -> tuple[Array, Array]:
        """Means and second moments (N,) of f at the grouped entries, for tables of the modes."""

    @abstractmethod
    def carry(self, statistics: Statistics, noise_precision: float) -> None:
        """Keep what entries that will be gone say about the coefficients, from their statistics of this mode."""

    @abstractmethod
    def forget(self, factor: float) -> None:
        """Multiply carried information by a factor."""

    def error(self, squares: float, statistics: Statistics) -> float:
        """Expected ``sum w (y - f)^2``, at least a rounding error of ``sum w y^2``."""
        linear, square = self.sums(statistics)
        return max(squares - 2.0 * linear + square, 1e-14 * squares)

    # -- what pictures and draws need --------------------------------------------------------------------------------

    @abstractmethod
    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draws (n, I) of all coefficients."""

    @abstractmethod
    def combine(self, coefficients: Array, parts: Draws) -> Array:
        """Values (n, M) of f.

        Args:
            coefficients: draws (n, I).
            parts: for every mode, draws (n, J, R) of its components and which coordinate (M,) an entry has.
        """

    @abstractmethod
    def reduce(self, coefficients: Array, mode: int, averages: Sequence[Array]) -> Array:
        """What multiplies the components of a mode where those of the others have given values, (n, R).

        Args:
            coefficients: draws (n, I).
            mode: which mode.
            averages: values (R,) of the components of every mode.
        """

    @abstractmethod
    def reduced_moments(self, mode: int, averages: Sequence[Array]) -> tuple[Array, Array]:
        """Mean (R,) and covariance (R, R) of :meth:`reduce` under the posterior."""

    @abstractmethod
    def energy(self, mode: int, seconds: Sequence[Array]) -> Array:
        """Second moments (R, R) of what multiplies the components, for mean coefficients.

        Args:
            mode: which mode.
            seconds: second moments (R, R) of the components of every mode.
        """


class CoreForm(Form):
    """``f = sum_i g_i prod_k u^k_(r_k(i))`` with one vector of coefficients.

    Attributes:
        coefficients: posterior of g.
        coupling: components (I, K) that each coefficient multiplies.
    """

    def __init__(self, modes: Sequence[Mode], ard: bool) -> None:
        super().__init__(modes, ard)
        self.coupling = self._coupling()
        self.coefficients = Coefficients(len(self.coupling))
        self.precisions = self._prior_precisions()

    @abstractmethod
    def _coupling(self) -> NDArray[np.int64]: ...

    @abstractmethod
    def _prior_precisions(self) -> list[GammaPosterior]: ...

    @abstractmethod
    def expected_precision(self) -> tuple[Array, Array]:
        """E[alpha] and E[ln alpha] of every coefficient, (I,) each."""

    @abstractmethod
    def update_precisions(self) -> None:
        """Posterior of the precisions given that of the coefficients."""

    @abstractmethod
    def coefficient_statistics(self, statistics: Statistics) -> tuple[Array, Array]:
        """``sum w z z^T`` (I, I) and ``sum w y z`` (I,) in expectation, z the products of components."""

    @property
    def mean(self) -> Array:
        """E[g], (I,)."""
        return self.coefficients.mean

    @property
    def covariance(self) -> Array:
        """Of g, (I, I)."""
        return self.coefficients.covariance

    @property
    def second_moment(self) -> Array:
        """E[g g^T], (I, I)."""
        return self.coefficients.second_moment

    def _final(self, statistics: Statistics) -> bool:
        return statistics.mode == len(self.modes) - 1

    def start(self, rng: np.random.Generator) -> None:
        """Uniform means."""
        self.coefficients.mean = rng.uniform(0.0, 1.0, self.coefficients.size)

    def take_over(self, other: Form) -> None:
        """Coefficients and precisions."""
        assert isinstance(other, CoreForm)
        self.coefficients, self.precisions = copy.deepcopy(other.coefficients), list(other.precisions)

    def update(self, statistics: Statistics, noise_precision: float) -> None:
        """All coefficients after the last mode."""
        if self._final(statistics):
            square, linear = self.coefficient_statistics(statistics)
            prior, _ = self.expected_precision()
            self.coefficients.update(noise_precision * square, noise_precision * linear, prior)
            self.update_precisions()

    def sums(self, statistics: Statistics) -> tuple[float, float]:
        """From the products that the coefficients multiply."""
        square, linear = self.coefficient_statistics(statistics)
        return float(self.mean @ linear), float((square * self.second_moment).sum())

    def divergence(self) -> float:
        """Of one vector of coefficients and all precisions."""
        return self.coefficients.divergence(*self.expected_precision()) + sum(p.divergence() for p in self.precisions)

    def carry(self, statistics: Statistics, noise_precision: float) -> None:
        """After the last mode."""
        if self._final(statistics):
            square, linear = self.coefficient_statistics(statistics)
            self.coefficients.carry(noise_precision * square, noise_precision * linear)

    def forget(self, factor: float) -> None:
        """Of one vector of coefficients."""
        self.coefficients.forget(factor)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draws (n, I) of g."""
        return self.coefficients.sample(n, rng)

    def combine(self, coefficients: Array, parts: Draws) -> Array:
        """Products of components, draw by draw."""
        out = np.empty((len(coefficients), len(parts[0][1])))
        for i, own in enumerate(coefficients):
            term = np.ones((out.shape[1], len(own)))
            for k, (values, where) in enumerate(parts):
                term *= values[i][where][:, self.coupling[:, k]]
            out[i] = term @ own
        return out

    def _selection(self, mode: int) -> Array:
        """Which component of the mode each coefficient multiplies, (I, R) of zeros and ones."""
        out = np.zeros((len(self.coupling), self.modes[mode].rank))
        out[np.arange(len(out)), self.coupling[:, mode]] = 1.0
        return out

    def _others(self, mode: int, averages: Sequence[Array]) -> Array:
        """Product (I,) of the values of the other modes' components."""
        out = np.ones(len(self.coupling))
        for k, average in enumerate(averages):
            if k != mode:
                out *= average[self.coupling[:, k]]
        return out

    def reduce(self, coefficients: Array, mode: int, averages: Sequence[Array]) -> Array:
        """Sums of coefficients over the other modes."""
        return (coefficients * self._others(mode, averages)) @ self._selection(mode)

    def reduced_moments(self, mode: int, averages: Sequence[Array]) -> tuple[Array, Array]:
        """Linear in the coefficients."""
        pick = self._others(mode, averages)[:, None] * self._selection(mode)
        return self.mean @ pick, pick.T @ self.covariance @ pick

    def energy(self, mode: int, seconds: Sequence[Array]) -> Array:
        """Sums over pairs of coefficients."""
        inner = np.outer(self.mean, self.mean)
        for k, matrix in enumerate(seconds):
            if k != mode:
                inner = inner * matrix[np.ix_(self.coupling[:, k], self.coupling[:, k])]
        select = self._selection(mode)
        return select.T @ inner @ select
