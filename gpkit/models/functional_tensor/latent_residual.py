"""The local residual of counts and binary tables: a full-rank process on the linear predictor.

Every datum is replaced by the Gaussian site that its likelihood gives at the prediction of what has not seen it: a
pseudo-observation of the linear predictor with a known precision. What the low-rank part leaves of these is a
nearest-neighbour process; sites are then taken once more at its predictions of rows without themselves. How far these
predictions are to be believed, and how wide they are, is fitted to the probabilities of the rows. A process that does
not raise these, and the quasi-likelihood of counts, by more than its own parameters could by chance takes no part.

Counts that vary more than their likelihood says ask for wider laws, and the mean of an exponential rises with the width
of what is exponentiated. What is wrong about the width says nothing about the mean: laws that are widened are moved so
that it stays, and all are moved so that their means add up to the counts of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import xlogy

from gpkit.inference.nearest_neighbours import NearestNeighbourProcess
from gpkit.inference.threads import one_blas_thread
from gpkit.likelihoods import Likelihood, NegativeBinomial
from gpkit.models.functional_tensor.predictions import DiscretePrediction
from gpkit.models.functional_tensor.unseen_rows import EVIDENCE, JUDGED, UnseenRows

__all__ = ["LatentResidual"]

Array = NDArray[np.float64]
_FLATTEST = 1e-8
_STEPS = 2


@dataclass(frozen=True)
class LatentLaw:
    """The law of counts or binary values around a linear predictor whose variance may be claimed wrongly.

    Attributes:
        family: name of the likelihood.
        largest: count that was seen.
        dispersion: of the negative binomial; one for others.
        width: what standard deviations of the predictor are multiplied by.
        reach: variance that was claimed where it was judged, at most but for one row in twenty.
        shift: of the predictor of counts.
    """

    family: str
    largest: float
    dispersion: float
    width: float = 1.0
    reach: float = math.inf
    shift: float = 0.0

    @classmethod
    def start(cls, family: str, likelihood: Likelihood, largest: float) -> LatentLaw:
        """As the likelihood says."""
        return cls(family, largest, float(likelihood.size) if isinstance(likelihood, NegativeBinomial) else 1.0)

    def around(self, mean: Array, variance: Array, weights: Array | None = None) -> DiscretePrediction:
        """Mixture of laws (S, M) around predictors with these moments, each (S, M), with weights (S,)."""
        if self.family != "bernoulli":  # exp(f) has the mean exp(m + v / 2), whatever the width.
            mean = mean + self.shift - 0.5 * max(self.width**2 - 1.0, 0.0) * np.minimum(variance, self.reach)
        spread = self.width * np.sqrt(variance)
        return DiscretePrediction(mean, spread, self.family, self.dispersion, weights, self.largest)

    def _adding_up(self, y: Array, mean: Array, variance: Array) -> LatentLaw:
        """With the shift that makes means (N,) add up to the counts."""
        law, total = self, float(y.sum())
        if self.family == "bernoulli" or total == 0.0:
            return law
        for _ in range(_STEPS):  # one would do if no rates were cut
            off = math.log(total / float(law.around(mean[None], variance[None]).mean.sum()))
            law = replace(law, shift=law.shift + off)
        return law

    def judged(self, y: Array, mean: Array, found: Array, variance: Array) -> tuple[float, LatentLaw, float]:
        """The belief in what a process has found, the law of largest probability, and the log-probability.

        Args:
            y: of rows that were predicted without themselves, (N,).
            mean: of the low-rank part, (N,).
            found: by the process, (N,); zero everywhere for none.
            variance: of both, (N,).
        """
        reach = float(np.quantile(variance, JUDGED))

        def settings(z: Array) -> tuple[float, LatentLaw]:
            belief = 1.0 / (1.0 + math.exp(-z[0]))
            own = self.dispersion * math.exp(z[2]) if len(z) > 2 else self.dispersion
            law = replace(self, width=math.exp(z[1]), dispersion=own, reach=reach)
            return belief, law._adding_up(y, mean + belief * found, variance)

        def loss(z: Array) -> float:
            belief, law = settings(z)
            return -float(law.around((mean + belief * found)[None], variance[None]).log_density(y).mean())

        count = 3 if self.family == "negative-binomial" else 2
        bounds, begin = [(-6.0, 6.0), (-3.0, 1.5), (-2.0, 4.0)][:count], [1.0, 0.0, 0.0][:count]
        best = minimize(loss, begin, method="Nelder-Mead", bounds=bounds, options={"maxfev": 40 * count, "xatol": 0.02})
        return *settings(best.x), -len(y) * float(best.fun)

    def gain(self, y: Array, before: Array, after: Array) -> float:
        """Rise of the quasi-log-likelihood of counts (N,) with other means, in units of their own dispersion.

        Counts that vary more than their law says make scatter look like structure to it; what is left of a mean's
        deviance knows how much they vary. It is the log-likelihood's own judgement for binary values.
        """
        if self.family == "bernoulli":
            return math.inf
        deviances = (float(2.0 * (xlogy(y, y / mean) - (y - mean)).sum()) for mean in (before, after))
        old, new = (max(deviance, 1e-300) for deviance in deviances)
        return 0.5 * len(y) * math.log(old / new)


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
        belief: what the process's predictions are multiplied by, in [0, 1]; zero if it takes no part.
        law: of the data around the predictions.
        left_out: predictions of the rows without themselves.
    """

    points: Array
    target: Array
    base: Array
    relative: Array
    process: NearestNeighbourProcess
    likelihood: Likelihood
    belief: float
    law: LatentLaw
    left_out: DiscretePrediction

    @classmethod
    def fit(cls, table: UnseenRows, *, family: str, likelihood: Likelihood) -> LatentResidual:
        """Learn the process, belief and the law.

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
            unseen, unknown, _ = table.left_out(process, target, relative)
        start = LatentLaw.start(family, likelihood, float(y.max(initial=0.0)))
        counts, base, both, none = y[some], mean[some], variance[some] + unknown, np.zeros(len(some))
        belief, law, with_it = start.judged(counts, base, unseen, both)
        _, plain, without = start.judged(counts, base, none, both)
        old, new = (
            plain.around(base[None], both[None]).mean,
            law.around((base + belief * unseen)[None], both[None]).mean,
        )
        if min(with_it - without, law.gain(counts, old, new)) <= EVIDENCE:  # Variance alone is what the width is for.
            found = left = np.zeros_like(y)
            belief, (_, law, _) = 0.0, start.judged(counts, base, none, variance[some])
        left_out = law.around((mean + belief * found)[None], (variance + left)[None])
        return cls(points, target, mean, relative, process, likelihood, belief, law, left_out)

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
            law=replace(self.law, largest=max(self.law.largest, float(y.max(initial=0.0)))),
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

    def predict(self, points: Array, mean: Array, variance: Array, weights: Array) -> DiscretePrediction:
        """Predictive law at new points (M, D): the mixture of what the starts say, the process on top of each.

        Args:
            points: of the queries.
            mean: of the linear predictor by the low-rank part of every start, (S, M).
            variance: the same, (S, M).
            weights: of the starts, (S,).
        """
        if self.belief == 0.0:
            return self.law.around(mean, variance, weights)
        found, left = self._conditioned(points)
        return self.law.around(mean + self.belief * found, variance + left, weights)


def _pseudo(likelihood: Likelihood, y: Array, mean: Array, variance: Array, low_rank: Array) -> tuple[Array, Array]:
    """Pseudo-observations less the low-rank part, and their variances, from sites at these moments."""
    arrays = (np.require(values, requirements=["C", "W"]) for values in (y, mean, variance))
    with torch.no_grad():
        site = likelihood.site(*map(torch.from_numpy, arrays))
    precision = np.maximum(site.precision.expand(y.shape).numpy(), _FLATTEST)
    target: Array = site.information.numpy() / precision - low_rank
    return target, 1.0 / precision
