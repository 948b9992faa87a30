"""Entries of a sparse tensor in an order in which each coordinate's statistics have one writer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpkit.recursions import tensor_statistics

if TYPE_CHECKING:
    from gpkit.inference.structured_vb.engine import LowRankPosterior
    from gpkit.inference.structured_vb.forms import Form, Statistics

__all__ = ["Entries", "Grouping", "Layout"]

Array = NDArray[np.float64]
Index = NDArray[np.int32]


class Grouping:
    """The entries in the order of one mode.

    Attributes:
        starts: where each coordinate's entries begin, (J + 1,).
        others: coordinates in the other modes, ascending, (N, K - 1).
        target: y in this order.
        weight: w in this order, or (1,) for all.
        order: which entry comes where, (N,) int32.
    """

    def __init__(self, index: Sequence[Index], mode: int, size: int, target: Array, weight: Array) -> None:
        order, self.starts = tensor_statistics.group_entries(index[mode], size)
        rest = [column for k, column in enumerate(index) if k != mode]
        self.others = np.empty((len(target), len(rest)), np.int32)
        for at, column in enumerate(rest):
            self.others[:, at] = column[order]
        self.order = order
        self.set_observations(target, weight)

    def set_observations(self, target: Array, weight: Array) -> None:
        """New targets and weights, in the order of the entries."""
        self.target: Array = target[self.order]
        self.weight: Array = weight[self.order] if weight.size > 1 else weight


class Entries(ABC):
    """What sweeps ask of the entries.

    Attributes:
        entries: their number N.
        count: their total weight, by which the noise is learned.
        squares: ``sum w y^2`` of the targets and weights in use.
        exact: whether statistics are those of all entries at the present posterior.
    """

    exact = True
    entries: int
    count: float
    squares: float

    @abstractmethod
    def begin(self, posterior: LowRankPosterior) -> None:
        """Targets and weights for a fit that begins, or goes on."""

    @abstractmethod
    def prepare(self, posterior: LowRankPosterior) -> None:
        """Called before each sweep."""

    @abstractmethod
    def statistics(self, form: Form, mode: int) -> Statistics:
        """Of all entries."""

    @abstractmethod
    def shares(self) -> list[Array]:
        """Part of the entries at each coordinate of every mode, (J_k,) each."""

    @abstractmethod
    def finish(self, posterior: LowRankPosterior) -> None:
        """Called after each sweep: new targets and weights where they depend on the posterior."""


class Layout(Entries):
    """N entries in memory, grouped once for every mode.

    Args:
        index: coordinate of each entry in each mode, K arrays (N,) int32.
        sizes: number of coordinates of each mode.
        y: observations (N,).
        power: how often each entry counts, (N,), or (1,) for all.
    """

    def __init__(self, index: Sequence[Index], sizes: Sequence[int], y: Array, power: Array | None = None) -> None:
        self.index = index
        self.entries = len(y)
        self.y = y
        self.power: Array = np.ones(1) if power is None else power
        self.count = float(self.power.sum()) if self.power.size > 1 else float(self.power[0]) * self.entries
        self.groupings = [Grouping(index, k, size, y, self.power) for k, size in enumerate(sizes)]
        self._take(y, self.power)

    def set_observations(self, target: Array, weight: Array) -> None:
        """New targets and weights of the entries."""
        for grouping in self.groupings:
            grouping.set_observations(target, weight)
        self._take(target, weight)

    def _take(self, target: Array, weight: Array) -> None:
        self.target, self.weight = target, weight
        each = weight if weight.size > 1 else np.broadcast_to(weight, target.shape)
        self.squares = float(np.einsum("n,n,n->", each, target, target, optimize=False))

    def begin(self, posterior: LowRankPosterior) -> None:
        """The model's own expansion, or that at the posterior of sweeps that were made."""
        observation = posterior.observation
        if not observation.needs_moments:
            if self.target is not self.y:  # another model has been here
                self.set_observations(self.y, self.power)
            return
        if posterior.sweeps == 0:
            target, precision = observation.start(self.y)
            self.set_observations(target, self.power * precision)
        else:
            self._renew(posterior, *posterior.entry_moments(self), np.zeros(1))

    def prepare(self, posterior: LowRankPosterior) -> None:
        """Nothing."""

    def statistics(self, form: Form, mode: int) -> Statistics:
        """One pass."""
        return form.statistics(mode, self.groupings[mode])

    def shares(self) -> list[Array]:
        """From the groupings."""
        return [np.diff(grouping.starts) / max(self.entries, 1) for grouping in self.groupings]

    def finish(self, posterior: LowRankPosterior) -> None:
        """Parameters of the likelihood, then sites of all entries at their moments."""
        if posterior.observation.needs_moments:
            moments = posterior.entry_moments(self)
            posterior.observation.learn(self.y, *moments, self.power)
            self._renew(posterior, *moments, self.weight / self.power)

    def _renew(self, posterior: LowRankPosterior, mean: Array, square: Array, weight: Array) -> None:
        observation = posterior.observation
        old = np.broadcast_to(weight, self.y.shape)
        target, precision, expected = observation.sites(self.y, mean, square, self.target, old)
        observation.expected = float((self.power * expected).sum())
        self.set_observations(target, self.power * precision)
