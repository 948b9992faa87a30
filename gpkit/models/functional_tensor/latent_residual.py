"""The local residual of counts and binary tables: a full-rank process on the linear predictor.

Every datum is replaced by the Gaussian site that its likelihood gives at the prediction of what has not seen it: a
pseudo-observation of the linear predictor with a known precision. What the low-rank part leaves of these is a
nearest-neighbour process; sites are then taken once more at its predictions of rows without themselves. How far these
predictions are to be believed, and how wide they are, is fitted to the probabilities of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from gpkit.inference.nearest_neighbours import NearestNeighbourProcess
from gpkit.inference.threads import one_blas_thread
from gpkit.likelihoods import Likelihood, NegativeBinomial
from gpkit.models.functional_tensor.predictions import DiscretePrediction
from gpkit.models.functional_tensor.unseen_rows import UnseenRows

__all__ = ["LatentResidual"]

Array = NDArray[np.float64]
_FLATTEST = 1e-8


@dataclass(eq=False)
class LatentResidual:
    """A nearest-neighbour process of what the low-rank part leaves of the linear predictor.

    Attributes:
        points: the data's coordinates as numbers, (N, D).
        target: pseudo-observations less the low-rank part, (N,).
        base: the low-rank part's mean that was taken off, (N,).
        relative: their variances, (N,).
        process: of the residual.
        family: name of the likelihood.
        likelihood: of the data.
        belief: what the process's predictions are multiplied by, in [0, 1].
        width: what standard deviations are multiplied by.
        dispersion: of the negative binomial around these predictions; one for others.
        left_out: predictions of the rows without themselves.
        largest: of the targets.
    """

    points: Array
    target: Array
    base: Array
    relative: Array
    process: NearestNeighbourProcess
    family: str
    likelihood: Likelihood
    belief: float
    width: float
    dispersion: float
    left_out: DiscretePrediction
    largest: float

    @classmethod
    def fit(cls, table: UnseenRows, *, family: str, likelihood: Likelihood) -> LatentResidual:
        """Learn the process, belief and width.

        Args:
            table: the rows; moments are of the linear predictor.
            family: name of the likelihood.
            likelihood: of the data.
        """
        points, y, mean, variance = table.points, table.y, table.mean, table.variance
        rows, some = table.everywhere, table.judging
        with one_blas_thread():
            target, relative = _pseudo(likelihood, y, mean, variance, mean)
            process = table.process(target)
            for _ in range(2):
                process.learn(points, target, relative, seed=table.seed)
                found, left = process.predict(points, target, relative, points, rows)
                target, relative = _pseudo(likelihood, y, mean + found, left, mean)
            found, left = process.predict(points, target, relative, points, rows)
        total, largest = variance + left, float(y.max(initial=0.0))
        before = float(likelihood.size) if isinstance(likelihood, NegativeBinomial) else 1.0

        def settings(z: Array) -> tuple[float, float, float]:
            return 1.0 / (1.0 + math.exp(-z[0])), math.exp(z[1]), before * math.exp(z[2] if len(z) > 2 else 0.0)

        def law(z: Array, part: NDArray[np.int64]) -> DiscretePrediction:
            belief, width, dispersion = settings(z)
            spread = width * np.sqrt(total[part])
            return _law(mean[part] + belief * found[part], spread, family, dispersion, largest)

        def loss(z: Array) -> float:
            return -float(law(z, some).log_density(y[some]).mean())

        count = 3 if isinstance(likelihood, NegativeBinomial) else 2
        bounds, begin = [(-6.0, 6.0), (-3.0, 1.5), (-2.0, 4.0)][:count], [1.0, 0.0, 0.0][:count]
        best = minimize(loss, begin, method="Nelder-Mead", bounds=bounds, options={"maxfev": 40 * count, "xatol": 0.02})
        left_out = law(best.x, rows)
        return cls(points, target, mean, relative, process, family, likelihood, *settings(best.x), left_out, largest)

    def extended(self, points: Array, more: Array, y: Array, mean: Array, variance: Array) -> LatentResidual:
        """With more rows that can be neighbours; everything learned stays.

        Args:
            points: coordinates of the old rows, perhaps in new codes, (N, D).
            more: those of the new ones, (M, D).
            y: of the new rows, (M,).
            mean: of the linear predictor by the low-rank part, before it saw them, (M,).
            variance: the same, (M,).
        """
        before = replace(self, points=points)
        found, left = before._conditioned(more)
        target, relative = _pseudo(self.likelihood, y, mean + found, left, mean)
        return replace(
            self,
            points=np.vstack([points, more]),
            target=np.append(self.target, target),
            base=np.append(self.base, mean),
            relative=np.append(self.relative, relative),
            largest=max(self.largest, float(y.max(initial=0.0))),
        )

    def shrunk(self, keep: int) -> LatentResidual:
        """With the newest rows only as possible neighbours."""
        return replace(
            self,
            points=self.points[-keep:].copy(),
            target=self.target[-keep:].copy(),
            base=self.base[-keep:].copy(),
            relative=self.relative[-keep:].copy(),
        )

    def rebased(self, mean: Array) -> LatentResidual:
        """What is left of another mean (N,) of the low-rank part at the rows."""
        return replace(self, target=self.target + self.base - mean, base=mean)

    def _conditioned(self, points: Array) -> tuple[Array, Array]:
        return self.process.predict(self.points, self.target, self.relative, points)

    def predict(self, points: Array, mean: Array, variance: Array) -> DiscretePrediction:
        """Predictive law at new points (M, D), given moments (M,) of the linear predictor by the low-rank part."""
        found, left = self._conditioned(points)
        spread = self.width * np.sqrt(variance + left)
        return _law(mean + self.belief * found, spread, self.family, self.dispersion, self.largest)


def _law(location: Array, spread: Array, family: str, dispersion: float, largest: float) -> DiscretePrediction:
    return DiscretePrediction(location[None], spread[None], family, dispersion, largest=largest)


def _pseudo(likelihood: Likelihood, y: Array, mean: Array, variance: Array, low_rank: Array) -> tuple[Array, Array]:
    """Pseudo-observations less the low-rank part, and their variances, from sites at these moments."""
    arrays = (np.require(values, requirements=["C", "W"]) for values in (y, mean, variance))
    with torch.no_grad():
        site = likelihood.site(*map(torch.from_numpy, arrays))
    precision = np.maximum(site.precision.expand(y.shape).numpy(), _FLATTEST)
    target: Array = site.information.numpy() / precision - low_rank
    return target, 1.0 / precision
