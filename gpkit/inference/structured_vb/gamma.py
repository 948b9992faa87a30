"""Gamma-distributed precisions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["GammaPosterior"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GammaPosterior:
    """Gamma posteriors (shape, rate) of precisions with one gamma prior.

    Attributes:
        shape, rate: of the posterior, (*s).
        prior_shape, prior_rate: of the prior.
    """

    shape: Array
    rate: Array
    prior_shape: float
    prior_rate: float

    @cached_property
    def mean(self) -> Array:
        """E[precision]."""
        return self.shape / self.rate

    @cached_property
    def mean_log(self) -> Array:
        """E[ln precision]."""
        out: Array = special.digamma(self.shape) - np.log(self.rate)
        return out

    @property
    def mean_inverse(self) -> Array:
        """E[1 / precision], a variance; infinite unless the shape is above one."""
        return np.where(self.shape > 1.0, self.rate / np.maximum(self.shape - 1.0, 1e-300), np.inf)

    def divergence(self) -> float:
        """Kullback-Leibler divergence from the prior, summed."""
        a, b, a0, b0 = self.shape, self.rate, self.prior_shape, self.prior_rate
        each = (
            (a - a0) * special.digamma(a)
            - special.gammaln(a)
            + special.gammaln(a0)
            + a0 * (np.log(b) - np.log(b0))
            + a * (b0 - b) / b
        )
        return float(np.sum(each))
