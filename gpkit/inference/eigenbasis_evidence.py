r"""Exact evidence of Gaussian-process regression on k basis functions, at O(k^3) per step whatever the number of data.

The model is y = Phi w + e with w ~ N(0, diag(S)) and e ~ N(0, s2 I). Everything that the likelihood needs from the data
is the triangular factor of [Phi y], made once in O(N k^2): with Phi = Q B and z = Q^T y,

    -ln p(y) = 1/2 [ rss / s2 + z^T C^-1 z + ln|C| + (N - p) ln s2 + N ln 2 pi ],    C = B diag(S) B^T + s2 I

where p = min(N, k) and rss is what lies outside the span. Orthogonal factors instead of Phi^T Phi keep the residual
free of cancellation when the noise is small. Factors add over batches: :meth:`EigenbasisStatistics.update`.

References:
    Rasmussen, C. E. and Williams, C. K. I., Gaussian Processes for Machine Learning (2006), section 2.1.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular

from gpkit.errors import InvalidDataError, NotPositiveDefiniteError

__all__ = ["EigenbasisStatistics", "WeightPosterior"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightPosterior:
    """Posterior of the basis functions' weights.

    Attributes:
        mean: (k,), or (k, T) for T data sets at the same rows.
        root: (k, k) with covariance ``root @ root.T``, the same for every data set.
    """

    mean: Array
    root: Array

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draws of the weights (n, k), or (n, k, T)."""
        noise = rng.standard_normal((n, *self.mean.shape))
        out: Array = self.mean + np.einsum("kl,nl...->nk...", self.root, noise)
        return out


@dataclass(frozen=True, eq=False)
class EigenbasisStatistics:
    """What the likelihood needs of the data: a triangular factor of features and targets.

    Attributes:
        factor: B, (p, k).
        projected: z, (p, T).
        residual: Squared length of what the features cannot reach, (T,).
        n_rows: N.
    """

    factor: Array
    projected: Array
    residual: Array
    n_rows: int

    @classmethod
    def of(cls, features: ArrayLike, targets: ArrayLike) -> EigenbasisStatistics:
        """Reduce features (N, k) and targets (N,) or (N, T).

        Raises:
            InvalidDataError: shapes disagree, or a number is not finite.
        """
        phi, y = _checked(features, targets)
        return cls(phi[:0], y[:0], np.zeros(y.shape[1]), 0)._with(phi, y)

    def update(self, features: ArrayLike, targets: ArrayLike) -> EigenbasisStatistics:
        """The statistics of these and more rows; the result does not depend on how rows are split into batches.

        Raises:
            InvalidDataError: shapes disagree, or a number is not finite.
        """
        phi, y = _checked(features, targets)
        if phi.shape[1] != self.n_features or y.shape[1] != self.n_sets:
            raise InvalidDataError(
                f"a batch must have {self.n_features} features and {self.n_sets} targets per row, "
                f"got {phi.shape[1]} and {y.shape[1]}"
            )
        return self._with(phi, y)

    def _with(self, phi: Array, y: Array) -> EigenbasisStatistics:
        k = phi.shape[1]
        stacked = np.concatenate([self.factor, phi])
        targets = np.concatenate([self.projected, y])
        n = self.n_rows + len(phi)
        if len(stacked) <= k:
            return EigenbasisStatistics(stacked, targets, self.residual, n)
        # The factor of [Phi y] in chunks: a tall matrix is never copied whole.
        chunk = max(2 * k, 4096)
        top, below = np.zeros((0, k)), np.zeros((0, y.shape[1]))
        rss = self.residual.copy()
        for first in range(0, len(stacked), chunk):
            block = np.concatenate([top, stacked[first : first + chunk]])
            values = np.concatenate([below, targets[first : first + chunk]])
            if len(block) <= k:
                top, below = block, values
                continue
            q, top = np.linalg.qr(block)
            below = q.T @ values
            rss = rss + np.square(values - q @ below).sum(0)
        return EigenbasisStatistics(top, below, rss, n)

    @property
    def n_features(self) -> int:
        """Number of basis functions, k."""
        return int(self.factor.shape[1])

    @property
    def n_sets(self) -> int:
        """Number of data sets at the same rows, T."""
        return int(self.projected.shape[1])

    def log_likelihood(self, log_spectrum: Array, log_noise: float) -> tuple[float, Array, float]:
        """Log likelihood, and its derivatives with respect to ln S (k,) and ln s2.

        Args:
            log_spectrum: ln S, (k,).
            log_noise: ln s2.

        Raises:
            NotPositiveDefiniteError: rounding leaves no Cholesky factor, at a noise too small for the spectrum.
        """
        s2, sets = math.exp(log_noise), self.n_sets
        root = np.exp(0.5 * np.asarray(log_spectrum, dtype=np.float64))
        scaled = self.factor * root
        p = len(scaled)
        covariance = scaled @ scaled.T
        covariance[np.diag_indices(p)] += s2
        lower = _cholesky(covariance)
        white = solve_triangular(lower, scaled, lower=True, check_finite=False)
        z = solve_triangular(lower, self.projected, lower=True, check_finite=False)
        quadratic = float(np.square(z).sum()) + float(self.residual.sum()) / s2
        log_det = 2.0 * float(np.log(np.diag(lower)).sum()) + (self.n_rows - p) * log_noise
        value = -0.5 * (quadratic + sets * (log_det + self.n_rows * math.log(2.0 * math.pi)))
        alpha = solve_triangular(lower, z, lower=True, trans=1, check_finite=False)
        gain = np.square(white).sum(0)
        slope = 0.5 * (np.square(scaled.T @ alpha).sum(1) - sets * gain)
        # tr C^-1 from tr(C^-1 B S B^T) = p - s2 tr C^-1 would cancel; the inverse factor is exact.
        inverse = lapack.dtrtri(lower, lower=1)[0]
        trace = float(np.square(np.tril(inverse)).sum()) * s2 + (self.n_rows - p)
        noise_slope = 0.5 * (s2 * float(np.square(alpha).sum()) + float(self.residual.sum()) / s2 - sets * trace)
        return value, slope, noise_slope

    def posterior(self, log_spectrum: Array, log_noise: float) -> WeightPosterior:
        """Posterior of the weights; its covariance is a product of a root with itself, so never indefinite.

        Raises:
            NotPositiveDefiniteError: as for :meth:`log_likelihood`.
        """
        s2 = math.exp(log_noise)
        root = np.exp(0.5 * np.asarray(log_spectrum, dtype=np.float64))
        scaled = self.factor * root
        precision = scaled.T @ scaled / s2
        precision[np.diag_indices(len(root))] += 1.0
        lower = _cholesky(precision)
        half = root[:, None] * solve_triangular(lower, np.eye(len(root)), lower=True, check_finite=False).T
        mean = root[:, None] * cho_solve((lower, True), scaled.T @ self.projected / s2, check_finite=False)
        return WeightPosterior(mean[:, 0] if mean.shape[1] == 1 else mean, half)


def _checked(features: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    phi = np.asarray(features, dtype=np.float64)
    y = np.asarray(targets, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if phi.ndim != 2 or y.ndim != 2 or len(phi) != len(y):
        raise InvalidDataError(f"features must be (N, k) and targets (N,) or (N, T), got {phi.shape} and {y.shape}")
    if not (np.isfinite(phi).all() and np.isfinite(y).all()):
        raise InvalidDataError("features and targets must be finite")
    return phi, y


def _cholesky(matrix: Array) -> Array:
    try:
        lower: Array = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError as error:
        raise NotPositiveDefiniteError(
            f"the covariance of the data has no Cholesky factor ({error}); the noise is too small for its spectrum"
        ) from None
    if not np.isfinite(lower[-1, -1] if len(lower) else 0.0):
        raise NotPositiveDefiniteError("the covariance of the data is not finite")
    return lower
