"""The local residual: what main effects and the low-rank part leave, as a full-rank process over all modes jointly.

Two members are combined. In the first, a nearest-neighbour process models the targets themselves, main effects
included, as a sum of products over the modes; in the second, it models what is left of predictions of the low-rank part
for rows that this part has not seen. Rows are predicted without themselves throughout, so that the weight of the
members, and the law of the noise, are fitted to honest errors. A process that does not raise the density of these
rows by more than its own parameters could by chance takes no part: where noise is as large as what varies, its mean
would be fitted noise.

Rows that are predicted without themselves have neighbours nearly always. Where a query has none (a month without data,
beyond the end of a mode) the variance that the first member claims is beyond what was judged: its weight in the mean
falls as the standard deviation rises, that in the variance as the variance does, to which the low-rank part's belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.nearest_neighbours import NearestNeighbourProcess
from gpkit.inference.threads import one_blas_thread
from gpkit.models.functional_tensor.noise_law import NoiseLaw
from gpkit.models.functional_tensor.predictions import TensorPrediction
from gpkit.models.functional_tensor.unseen_rows import EVIDENCE, JUDGED, UnseenRows

__all__ = ["LocalResidual"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_DEGREES = 4.0
"""Of freedom, where the processes are learned: the law of the noise, normal or not, is fitted afterwards."""


@dataclass(eq=False)
class LocalResidual:
    """Two nearest-neighbour processes, their weights and the law of the noise.

    Attributes:
        points: the data's coordinates as numbers, (N, D).
        targets: what each process is conditioned on, (2, N): y, and y minus the low-rank part.
        processes: of the targets themselves, and of what the low-rank part leaves.
        weight: of the first member where it was judged, in [0, 1].
        belief: one, or zero where the second member is the low-rank part alone.
        reach: variances of y that the members claimed there, at most but for one row in twenty, (2,).
        law: of the noise.
    """

    points: Array
    targets: Array
    processes: tuple[NearestNeighbourProcess, NearestNeighbourProcess]
    weight: float
    belief: float
    reach: Array
    law: NoiseLaw

    @classmethod
    def fit(cls, table: UnseenRows, *, heavy: bool) -> LocalResidual:
        """Learn both processes, then the weight and the noise from rows predicted without themselves.

        Args:
            table: the rows.
            heavy: Student-t noise.
        """
        points, y, rows = table.points, table.y, table.judging
        targets = np.stack([y, y - table.mean])
        one = np.ones_like(y)
        with one_blas_thread():
            first, second = (table.process(target) for target in targets)
            for process, target in zip((first, second), targets, strict=True):
                process.learn(points, target, one, degrees=_DEGREES, seed=table.seed)
            low_rank = table.mean[rows]
            found = [table.left_out(*pair, one, _DEGREES) for pair in zip((first, second), targets, strict=True)]
            means, left = [found[0][0], low_rank + found[1][0]], [own[1] + own[2] for own in found]
            belief = 1.0 if _gain(y[rows], low_rank, means[1]) > EVIDENCE else 0.0
            means[1] = means[1] if belief else low_rank
            gap = means[0] - means[1]
            square = float(gap @ gap)
            weight = float(np.clip((gap @ (y[rows] - means[1])) / square, 0.0, 1.0)) if square > 0.0 else 1.0
            mean = weight * means[0] + (1.0 - weight) * means[1]
            if _gain(y[rows], means[1], mean) <= EVIDENCE:
                weight, mean = 0.0, means[1]
            features = _features(left[0], left[1], gap)
            law = NoiseLaw.fit(y[rows] - mean, mean, features, heavy=heavy)
            reach = np.quantile([features[0], features[1] + table.variance[rows]], JUDGED, axis=1)
        return cls(points, targets, (first, second), weight, belief, reach, law)

    @cached_property
    def left_out(self) -> TensorPrediction:
        """Predictions of the rows without themselves."""
        low_rank = self.targets[0] - self.targets[1]
        return self.predict(self.points, low_rank, np.zeros_like(low_rank), np.arange(len(self.points)))

    def extended(self, points: Array, more: Array, y: Array, low_rank: Array) -> LocalResidual:
        """With more rows that can be neighbours; everything learned stays.

        Args:
            points: coordinates of the old rows, perhaps in new codes, (N, D).
            more: those of the new ones, (M, D).
            y: targets of the new rows, (M,).
            low_rank: predictions of the low-rank part for them, made before it saw them, (M,).
        """
        targets = np.hstack([self.targets, np.stack([y, y - low_rank])])
        return replace(self, points=np.vstack([points, more]), targets=targets)

    def shrunk(self, keep: int) -> LocalResidual:
        """With the newest rows only as possible neighbours."""
        return replace(self, points=self.points[-keep:].copy(), targets=self.targets[:, -keep:].copy())

    def rebased(self, low_rank: Array) -> LocalResidual:
        """What is left of other predictions (N,) of the low-rank part at the rows."""
        return replace(self, targets=np.stack([self.targets[0], self.targets[0] - low_rank]))

    def predict(self, points: Array, low_rank: Array, variance: Array, own: Rows | None = None) -> TensorPrediction:
        """Predictive law at points (M, D), given the low-rank part there.

        Args:
            points: of the queries.
            low_rank: mean of that part, (M,).
            variance: of that part, (M,).
            own: the row that each query is, which is left out, or -1 (M,); None for new points.
        """
        means, left = _members(self.processes, self.points, self.targets, points, low_rank, own)
        means[1] = means[1] if self.belief else low_rank
        first, second = self.processes
        features = _features(left[0] + first.noise, left[1] + second.noise, means[0] - means[1])
        claims = features[0], features[1] + variance
        trust = np.minimum(1.0, self.reach[0] / claims[0])
        share = self.weight * np.sqrt(trust)
        mean = share * means[0] + (1.0 - share) * means[1]
        weight = self.weight * trust  # its variance is what a process with few distant rows knows least about
        usual = self.weight * self.reach[0] + (1.0 - self.weight) * self.reach[1]
        claimed = weight * claims[0] + (1.0 - weight) * claims[1]
        scale, degrees = self.law.widened(self.law.scale(mean, features), claimed, float(usual))
        latent = weight * left[0] + (1.0 - weight) * (self.belief * left[1] + variance)
        return TensorPrediction(mean[None], scale[None], degrees, latent)


def _members(
    processes: Sequence[NearestNeighbourProcess],
    points: Array,
    targets: Array,
    queries: Array,
    low_rank: Array,
    own: Rows | None,
) -> tuple[list[Array], list[Array]]:
    """Means of y and variances of the processes, (M,) each, by both members."""
    one = np.ones(len(points))
    found = [p.predict(points, target, one, queries, own) for p, target in zip(processes, targets, strict=True)]
    return [found[0][0], low_rank + found[1][0]], [left for _, left in found]


def _gain(y: Array, before: Array, after: Array) -> float:
    """Rise of the normal log-density of rows (M,) with other means, each with its own variance."""
    squares = (float(np.square(y - mean).sum()) for mean in (before, after))
    old, new = (max(square, 1e-300) for square in squares)
    return 0.5 * len(y) * float(np.log(old / new))


def _features(first: Array, second: Array, gap: Array) -> list[Array]:
    """Variances that the members claim, and the first with their disagreement: none is small where they agree."""
    return [first, second, gap**2 + first]
