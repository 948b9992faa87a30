"""The law of what a prediction leaves: normal or Student-t, with a scale that follows the prediction.

Its parameters are fitted to rows that were predicted without themselves. Noise that grows with the level, and tails
heavier than a normal law's, are what makes intervals of a constant normal noise too wide in the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import minimize

__all__ = ["NoiseLaw"]

Array = NDArray[np.float64]
_KNOTS = (0.1, 0.5, 0.9)
_RIDGE, _PRIOR = 1e-4, 8.0
"""Least penalty on the coefficients' squares, and that of one row: a prior deviation of one quarter."""


@dataclass(frozen=True, eq=False)
class NoiseLaw:
    """``ln scale`` is linear in logarithms of model variances and piecewise linear in the predicted mean.

    Attributes:
        coefficients: of the standardised features and one.
        degrees: of freedom; infinite for the normal law.
        knots: where the slope in the mean changes.
        centre, width: of the features.
        low, high: range of the features in the fit; outside it the scale is constant.
    """

    coefficients: Array
    degrees: float
    knots: Array
    centre: Array
    width: Array
    low: Array
    high: Array

    @staticmethod
    def _features(mean: Array, variances: list[Array], knots: Array) -> Array:
        columns = [np.log(v) for v in variances] + [mean] + [np.maximum(mean - knot, 0.0) for knot in knots]
        return np.stack(columns, 1)

    @classmethod
    def fit(cls, error: Array, mean: Array, variances: list[Array], *, heavy: bool) -> NoiseLaw:
        """Maximum likelihood, with a small penalty on the coefficients.

        Args:
            error: of rows predicted without themselves, (N,).
            mean: their predictions, (N,).
            variances: variances that the model itself claims, (N,) each, positive.
            heavy: Student-t instead of normal.
        """
        knots = np.quantile(mean, _KNOTS)
        raw = cls._features(mean, variances, knots)
        low, high = raw.min(0), raw.max(0)
        centre, width = raw.mean(0), np.maximum(raw.std(0), 1e-12)
        x = np.column_stack([np.ones(len(raw)), (raw - centre) / width])
        ridge = max(_RIDGE, _PRIOR / len(raw))

        def objective(z: Array) -> tuple[float, Array]:
            log_scale = x @ z[:-1]
            square = (error * np.exp(-log_scale)) ** 2
            penalty = ridge * float(z[1:-1] @ z[1:-1])
            if not heavy:
                value = float((log_scale + 0.5 * square).mean()) + penalty
                slope = x.T @ (1.0 - square) / len(x)
                last = 0.0
            else:
                nu = 2.0 + math.exp(z[-1])
                tail = np.log1p(square / nu)
                constant = special.gammaln(0.5 * nu) - special.gammaln(0.5 * (nu + 1.0)) + 0.5 * math.log(nu)
                value = float((log_scale + 0.5 * (nu + 1.0) * tail).mean()) + float(constant) + penalty
                slope = x.T @ (1.0 - (nu + 1.0) * square / (nu + square)) / len(x)
                by_nu = 0.5 * (special.digamma(0.5 * nu) - special.digamma(0.5 * (nu + 1.0)) + 1.0 / nu)
                by_nu += float((0.5 * tail - 0.5 * (nu + 1.0) * square / (nu * (nu + square))).mean())
                last = float(by_nu) * (nu - 2.0)
            slope[1:] += 2.0 * ridge * z[1:-1]
            return value, np.append(slope, last)

        begin = np.zeros(x.shape[1] + 1)
        begin[0] = 0.5 * math.log(max(float((error**2).mean()), 1e-300))
        begin[-1] = math.log(3.0)
        bounds = [(None, None)] * x.shape[1] + [(math.log(0.1), math.log(200.0))]
        found = minimize(objective, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200})
        degrees = 2.0 + math.exp(found.x[-1]) if heavy else math.inf
        coefficients = found.x[:-1]
        # p scales fitted to N errors are too small by 2 p / N of their squares, to first order, at new rows.
        information = np.linalg.eigvalsh(x[:, 1:].T @ x[:, 1:]) / len(x)
        used = 1.0 + float((information / (information + ridge)).sum())
        coefficients[0] += 0.5 * math.log1p(2.0 * used / len(x))
        return cls(coefficients, degrees, knots, centre, width, low, high)

    def scale(self, mean: Array, variances: list[Array]) -> Array:
        """Scale (M,) of the law at predictions (M,)."""
        raw = np.clip(self._features(mean, variances, self.knots), self.low, self.high)
        out: Array = np.exp(self.coefficients[0] + ((raw - self.centre) / self.width) @ self.coefficients[1:])
        return out

    def widened(self, scale: Array, claimed: Array, usual: float) -> tuple[Array, Array | float]:
        """Scale (M,) and degrees of freedom, one or (M,), where a model claims more variance than rows could show.

        Far from all rows the features are outside their range in the fit, and the variance of the law is not what it
        would have been there. The sum of the law and of normal errors with the missing variance stands in for it.

        Args:
            scale: of the law, (M,).
            claimed: variance of y by the model, (M,).
            usual: largest of these that the law was fitted to.
        """
        heavy = math.isfinite(self.degrees)
        own = scale**2 * (self.degrees / (self.degrees - 2.0) if heavy else 1.0)
        total = own + np.maximum(claimed - np.maximum(own, usual), 0.0)
        if not np.any(total > own):
            return scale, self.degrees
        if not heavy:
            return np.sqrt(total), self.degrees
        degrees = self.degrees * (total / own) ** 2  # a sum has the share of its heavy part, squared, of the tails
        return np.sqrt(total * (degrees - 2.0) / degrees), degrees
