"""The rows that a local residual is fitted to: predicted by what had not seen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.nearest_neighbours import NearestNeighbourProcess

__all__ = ["EVIDENCE", "JUDGED", "UnseenRows"]

Array = NDArray[np.float64]
_JUDGING = 5000
JUDGED = 0.95
"""Share of the rows whose claimed variances were judged: larger ones count as the largest of these."""
EVIDENCE = 4.0
"""Nats that a process has to add to take part."""


@dataclass(frozen=True, eq=False)
class UnseenRows:
    """Rows of a table with the low-rank part's predictions, each by a start that has not seen it.

    Attributes:
        points: coordinates as numbers, codes for categories, (N, D).
        category: which columns are categories, (D,).
        y: targets (N,), of mean zero where they are real numbers.
        mean: of the low-rank part, (N,).
        variance: of the same, (N,).
        neighbours: how many rows each conditional distribution uses.
        seed: of the rows that are looked at.
    """

    points: Array
    category: NDArray[np.bool_]
    y: Array
    mean: Array
    variance: Array
    neighbours: int = 40
    seed: int = 0

    @property
    def everywhere(self) -> NDArray[np.int64]:
        """All rows, by number."""
        return np.arange(len(self.y))

    @property
    def judging(self) -> NDArray[np.int64]:
        """Rows that decide about the handful of numbers of a law: all, or a random part of a large table, in order."""
        if len(self.y) <= _JUDGING:
            return self.everywhere
        return np.sort(np.random.default_rng(self.seed).permutation(len(self.y))[:_JUDGING])

    def process(self, target: Array) -> NearestNeighbourProcess:
        """A process of targets (N,) at the rows, before it has learned anything."""
        return NearestNeighbourProcess.start(self.points, target, self.category, neighbours=self.neighbours)
