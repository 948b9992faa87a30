"""The rows that a local residual is fitted to: predicted by what had not seen them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.nearest_neighbours import NearestNeighbourProcess

__all__ = ["EVIDENCE", "JUDGED", "UnseenRows"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_JUDGING = 5000
_FEW, _FOLDS = 1000, 4
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
    def everywhere(self) -> Rows:
        """All rows, by number."""
        return np.arange(len(self.y))

    @property
    def judging(self) -> Rows:
        """Rows that decide about the handful of numbers of a law: all, or a random part of a large table, in order."""
        if len(self.y) <= _JUDGING:
            return self.everywhere
        return np.sort(np.random.default_rng(self.seed).permutation(len(self.y))[:_JUDGING])

    def process(self, target: Array, rows: Rows | None = None) -> NearestNeighbourProcess:
        """A process of targets at all rows or some (M,), before it has learned anything."""
        points = self.points if rows is None else self.points[rows]
        return NearestNeighbourProcess.start(points, target, self.category, neighbours=self.neighbours)

    def left_out(
        self, process: NearestNeighbourProcess, target: Array, relative: Array, degrees: float = math.inf
    ) -> tuple[Array, Array, Array]:
        """What the rows that judge get without themselves: mean, variance left, and noise variance, (M,) each.

        Dozens of parameters that were learned from few rows make predictions of these very rows look better than they
        are, even without themselves. Up to a thousand rows, each is predicted by a process that has learned from
        others: all of them as neighbours, three quarters of them for its parameters.

        Args:
            process: of all rows, learned.
            target: of all rows, (N,).
            relative: their relative noise variances, (N,).
            degrees: of freedom, as it has learned.
        """
        n, rows = len(self.y), self.judging
        if not _FOLDS <= n <= _FEW:
            found, left = process.predict(self.points, target, relative, self.points[rows], rows)
            return found, left, np.full(len(rows), process.noise)
        out = np.empty((3, n))
        order = np.random.default_rng(self.seed).permutation(n)
        for k in range(_FOLDS):
            fold, others = order[k::_FOLDS], np.delete(order, np.s_[k::_FOLDS])
            own = self.process(target[others], others)
            own.learn(self.points[others], target[others], relative[others], degrees=degrees, seed=self.seed)
            out[:2, fold] = own.predict(self.points, target, relative, self.points[fold], fold)
            out[2, fold] = own.noise
        return out[0], out[1], out[2]
