"""The local residual: what main effects and the low-rank part leave, as a full-rank process over all modes jointly.

Two members are combined. In the first, a nearest-neighbour process models the targets themselves, main effects
included, as a sum of products over the modes; in the second, it models what is left of predictions of the low-rank part
for rows that this part has not seen. Rows are predicted without themselves throughout, so that the weight of the
members, and the law of the noise, are fitted to honest errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.nearest_neighbours import NearestNeighbourProcess, krige
from gpkit.inference.threads import one_blas_thread
from gpkit.models.functional_tensor.noise_law import NoiseLaw
from gpkit.models.functional_tensor.predictions import TensorPrediction

__all__ = ["LocalResidual"]

Array = NDArray[np.float64]
_DEGREES = 4.0
"""Of freedom, where the processes are learned: the law of the noise, normal or not, is fitted afterwards."""


@dataclass(eq=False)
class LocalResidual:
    """Two nearest-neighbour processes, their weights and the law of the noise.

    Attributes:
        points: the data's coordinates as numbers, (N, D).
        targets: what each process is conditioned on, (2, N): y, and y minus the low-rank part.
        processes: of the targets themselves, and of what the low-rank part leaves.
        weight: of the first member, in [0, 1].
        law: of the noise.
        left_out: predictions of the rows without themselves.
    """

    points: Array
    targets: Array
    processes: tuple[NearestNeighbourProcess, NearestNeighbourProcess]
    weight: float
    law: NoiseLaw
    left_out: TensorPrediction

    @classmethod
    def fit(
        cls,
        points: Array,
        category: NDArray[np.bool_],
        y: Array,
        low_rank: Array,
        *,
        heavy: bool,
        neighbours: int = 40,
        seed: int = 0,
    ) -> LocalResidual:
        """Learn both processes, the weight and the noise.

        Args:
            points: (N, D); codes for categories.
            category: which columns are categories, (D,).
            y: targets (N,) of mean zero.
            low_rank: predictions (N,) of the low-rank part for rows that it has not seen.
            heavy: Student-t noise.
            neighbours: how many rows each conditional distribution uses.
            seed: of the rows that learning looks at.
        """
        with one_blas_thread():
            targets = np.stack([y, y - low_rank])
            base = np.stack([np.zeros_like(y), low_rank])
            one = np.ones_like(y)
            processes, means, variances = [], [], []
            for target, start in zip(targets, base, strict=True):
                process = NearestNeighbourProcess.start(points, target, category, neighbours=neighbours)
                process.learn(points, target, one, degrees=_DEGREES, seed=seed)
                near, weights, left = process.condition(points, one, points, np.arange(len(points)))
                processes.append(process)
                means.append(start + krige(near, weights, target))
                variances.append(left + process.noise)
            gap = means[0] - means[1]
            square = float(gap @ gap)
            weight = float(np.clip((gap @ (y - means[1])) / square, 0.0, 1.0)) if square > 0.0 else 1.0
            mean = weight * means[0] + (1.0 - weight) * means[1]
            features = _features(variances, gap)
            law = NoiseLaw.fit(y - mean, mean, features, heavy=heavy)
            scale = law.scale(mean, features)
            inner = weight * (variances[0] - processes[0].noise) + (1.0 - weight) * (variances[1] - processes[1].noise)
            left_out = TensorPrediction(mean[None], scale[None], law.degrees, inner)
            return cls(points, targets, (processes[0], processes[1]), weight, law, left_out)

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

    def predict(self, points: Array, low_rank: Array) -> TensorPrediction:
        """Predictive law at new points (M, D), given the low-rank part's mean (M,) there."""
        one = np.ones(len(self.points))
        means, variances, inner = [], [], []
        for process, target, start in zip(self.processes, self.targets, (np.zeros(len(points)), low_rank), strict=True):
            near, weights, left = process.condition(self.points, one, points)
            means.append(start + krige(near, weights, target))
            variances.append(left + process.noise)
            inner.append(left)
        gap = means[0] - means[1]
        mean = self.weight * means[0] + (1.0 - self.weight) * means[1]
        scale = self.law.scale(mean, _features(variances, gap))
        latent = self.weight * inner[0] + (1.0 - self.weight) * inner[1]
        return TensorPrediction(mean[None], scale[None], self.law.degrees, latent)


def _features(variances: list[Array], gap: Array) -> list[Array]:
    """Variances that the members claim, and the first with their disagreement: none is small where they agree."""
    return [*variances, gap**2 + variances[0]]
