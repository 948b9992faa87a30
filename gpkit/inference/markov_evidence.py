r"""Exact evidence of Gaussian-process regression with a sparse precision matrix: full rank, no eigenvectors.

The model is y = E w + e with w ~ N(0, Q^-1) and e ~ N(0, s2 I); Q and E are sparse. With A = Q + E^T E / s2 and
mu = A^-1 E^T y / s2,

    -ln p(y) = 1/2 [ |y - E mu|^2 / s2 + mu^T Q mu + ln|A| - ln|Q| + n ln s2 + n ln 2 pi ],

sums of squares that lose nothing when the noise is small. Derivatives need the inverse of A on its own pattern only.

References:
    Rue, H. and Held, L., Gaussian Markov Random Fields (2005), section 2.3; Takahashi, K., Fagan, J. and Chin, M.,
    PICA (1973), for the inverse on the pattern.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gpkit.errors import InvalidDataError
from gpkit.operators.markov_posterior import MarkovPosterior
from gpkit.operators.precision_layout import PrecisionLayout
from gpkit.operators.sparse_symmetric import SparseMatrix, SparsePattern

__all__ = ["MarkovStatistics"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MarkovStatistics:
    """What the likelihood needs of the data, and the order of elimination, found once.

    Attributes:
        layout: Pattern of Q, (N, N), and selection E, (n, N).
        targets: y, (n,).
    """

    layout: PrecisionLayout
    targets: Array

    @classmethod
    def of(cls, pattern: SparsePattern, selection: Any, targets: ArrayLike) -> MarkovStatistics:
        """Prepare data (n,) at the rows of a selection (n, N), scipy sparse.

        Raises:
            InvalidDataError: shapes disagree, or a number is not finite.
        """
        y = np.asarray(targets, dtype=np.float64)
        if y.ndim != 1 or selection.shape[0] != len(y):
            raise InvalidDataError(f"targets must be ({selection.shape[0]},), got {y.shape}")
        if not (np.isfinite(y).all() and np.isfinite(selection.data).all()):
            raise InvalidDataError("targets and selection must be finite")
        return cls(PrecisionLayout(pattern, selection.tocsr()), y)

    @functools.cached_property
    def _gram(self) -> tuple[SparsePattern, NDArray[np.int64], Array]:
        """Pattern of A, the places of Q on it, and E^T E on it."""
        pattern, places, at, _, weight = self.layout.posterior
        gram = np.bincount(at.numpy(), weight.numpy(), pattern.nnz)
        return pattern, places.numpy(), np.asarray(gram, dtype=np.float64)

    def _conditioned(self, values: Array, log_noise: float) -> MarkovPosterior:
        pattern, places, gram = self._gram
        s2 = math.exp(log_noise)
        total = gram / s2
        total[places] += values
        matrix = SparseMatrix(pattern, torch.from_numpy(total))
        return MarkovPosterior(matrix.factor.solve(self.layout.selection.T @ self.targets / s2), matrix)

    def log_likelihood(self, values: Array, log_determinant: float, log_noise: float) -> tuple[float, Array, float]:
        """Log likelihood, and its derivatives with respect to the values of Q (ln|Q| held) and ln s2.

        Args:
            values: Q on its pattern, (nnz,).
            log_determinant: ln|Q|, whose own derivative is 1/2.
            log_noise: ln s2.

        Raises:
            NotPositiveDefiniteError: Q + E^T E / s2 has no Cholesky factor.
        """
        s2, n = math.exp(log_noise), len(self.targets)
        posterior = self._conditioned(values, log_noise)
        pattern, places, gram = self._gram
        own, mean = self.layout.pattern, posterior.mean
        rest = self.targets - self.layout.selection @ mean
        products = mean[own.rows] * mean[own.columns]
        misfit = float(rest @ rest) / s2
        quadratic = misfit + float(values @ products)
        log_det = posterior.matrix.factor.logdet() - log_determinant + n * log_noise
        inverse = posterior.matrix.factor.inverse_entries(pattern.rows, pattern.columns)
        slope = -0.5 * (inverse[places] + products)
        noise_slope = -0.5 * (n - float(inverse @ gram) / s2 - misfit)
        return -0.5 * (quadratic + log_det + n * math.log(2.0 * math.pi)), slope, noise_slope

    def posterior(self, values: Array, log_noise: float) -> MarkovPosterior:
        """All unknowns given the data.

        Raises:
            NotPositiveDefiniteError: as for :meth:`log_likelihood`.
        """
        return self._conditioned(values, log_noise)
