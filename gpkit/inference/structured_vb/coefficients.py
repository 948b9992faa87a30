"""Gaussian posterior of a vector of coefficients that enter the model linearly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

__all__ = ["Coefficients", "nonnegative"]

Array = NDArray[np.float64]


def nonnegative(precision: Array, information: Array, mean: Array) -> tuple[Array, Array]:
    """Sites that a difference of statistics may have made improper, as sites that some data could have.

    Information along a direction without precision would be a mean without bounds. Along eigenvectors of negative
    precision a site of the same size holds the mean where it is.

    Args:
        precision: (..., n, n).
        information: precision times mean, (..., n).
        mean: of the posterior before, (..., n).
    """
    values, vectors = np.linalg.eigh(0.5 * (precision + np.swapaxes(precision, -1, -2)))
    if not values.size or values.min() >= 0.0:
        return precision, information
    size, turned = np.abs(values), np.swapaxes(vectors, -1, -2)
    along, held = (np.einsum("...ij,...j->...i", turned, v) for v in (information, mean))
    along = np.where(values < 0.0, size * held, along)
    return (vectors * size[..., None, :]) @ turned, np.einsum("...ij,...j->...i", vectors, along)


class Coefficients:
    """Coefficients g with independent normal priors of mean zero; full posterior covariance.

    Attributes:
        mean: (I,).
        covariance: (I, I).
        carried: information of entries that are gone, a precision (I, I) and a vector (I,); None if there is none.
    """

    def __init__(self, size: int) -> None:
        self.mean: Array = np.ones(size)
        self.covariance: Array = 0.1 * np.eye(size)
        self.carried: tuple[Array, Array] | None = None
        self._log_determinant = size * math.log(0.1)

    @property
    def size(self) -> int:
        """Number of coefficients I."""
        return len(self.mean)

    @property
    def second_moment(self) -> Array:
        """E[g g^T], (I, I)."""
        return self.covariance + np.outer(self.mean, self.mean)

    @property
    def squares(self) -> Array:
        """E[g^2], (I,)."""
        return self.mean**2 + np.diag(self.covariance)

    def update(self, precision: Array, information: Array, prior: Array) -> None:
        """Exact maximum of the bound.

        Args:
            precision: of the data, (I, I).
            information: the same, (I,).
            prior: expected prior precisions, (I,).
        """
        matrix = precision.copy()
        if self.carried is not None:
            matrix, information = nonnegative(matrix + self.carried[0], information + self.carried[1], self.mean)
        matrix[np.diag_indices_from(matrix)] += prior
        root = linalg.cholesky(matrix, lower=True, check_finite=False)
        half = linalg.lapack.dpotri(root, lower=True)[0] if self.size else root  # its other triangle is zero
        self.covariance = half + half.T
        self.covariance[np.diag_indices_from(half)] = np.diag(half)
        self.mean = self.covariance @ information
        self._log_determinant = -2.0 * float(np.log(np.diag(root)).sum())

    def change(self, matrix: Array, log_determinant: float, axis: int, shape: Sequence[int]) -> None:
        """Multiply along one axis of coefficients that are a tensor of this shape.

        Args:
            matrix: what multiplies, (shape[axis], shape[axis]).
            log_determinant: of its absolute determinant.
            axis: which.
            shape: of the tensor.
        """
        before, own, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
        self.mean = np.matmul(matrix, self.mean.reshape(before, own, after)).reshape(-1)
        half = np.matmul(matrix, self.covariance.reshape(before, own, -1)).reshape(self.size, self.size)
        self.covariance = np.matmul(matrix, half.T.reshape(before, own, -1)).reshape(self.size, self.size)
        self._log_determinant += 2.0 * before * after * log_determinant

    def divergence(self, precision: Array, log_precision: Array) -> float:
        """Expected divergence from the prior, less what carried information says.

        Args:
            precision: expected prior precisions, (I,).
            log_precision: expected logarithms of prior precisions, (I,).
        """
        own = 0.5 * (float(precision @ self.squares) - self.size - float(log_precision.sum()) - self._log_determinant)
        if self.carried is not None:
            own -= float(self.carried[1] @ self.mean) - 0.5 * float((self.carried[0] * self.second_moment).sum())
        return own

    def carry(self, precision: Array, information: Array) -> None:
        """Add the information of entries that will be gone."""
        before = self.carried or (np.zeros_like(self.covariance), np.zeros_like(self.mean))
        self.carried = (before[0] + precision, before[1] + information)

    def forget(self, factor: float) -> None:
        """Multiply carried information by a factor."""
        if self.carried is not None:
            self.carried = (factor * self.carried[0], factor * self.carried[1])

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draws (n, I)."""
        if not self.size:
            return np.empty((n, 0))
        root = np.linalg.cholesky(self.covariance + 1e-14 * np.trace(self.covariance) * np.eye(self.size))
        return self.mean + rng.standard_normal((n, self.size)) @ root.T
