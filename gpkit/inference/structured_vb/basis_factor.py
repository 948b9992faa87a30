"""The functions of a place: Gaussian processes with learned kernels in the basis of their principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg

from gpkit.inference.structured_vb.factors import KernelFactor

__all__ = ["BasisFactor"]

Array = NDArray[np.float64]


class BasisFactor(KernelFactor):
    """Functions of a place: a Gaussian process over sites in the basis of its principal components.

    With all components it is the exact process at the sites; with fewer, what is left out is added to the variance.

    Args:
        kernel: a GPyTorch kernel of the places; it is copied.
        places: (J, D).
        rank: R.
        components: number of principal components; None keeps all above 1e-10 of the largest.
        learn: whether length scales are learned; they then start at a fifth of the range.
    """

    def __init__(
        self, kernel: Any, places: Array, rank: int, *, components: int | None = None, learn: bool = True
    ) -> None:
        self.places = np.ascontiguousarray(places, dtype=np.float64)
        self.components = components
        span = float(np.ptp(self.places, axis=0).max()) or 1.0
        super().__init__(kernel, len(places), rank, least=1e-3 * span, most=20.0 * span, begin=0.2 * span, learn=learn)
        self._decompose()

    def _decompose(self) -> None:
        values, vectors = np.linalg.eigh(self._gram(self.places, self.places))
        keep = np.flatnonzero(values > 1e-10 * values[-1])[::-1]
        keep = keep if self.components is None else keep[: self.components]
        self._values, self._vectors = values[keep], vectors[:, keep]
        self._weights_mean: Array = np.zeros((len(keep), self.rank))
        self._weights_covariance: Array = np.eye(len(keep) * self.rank)

    def _degrees(self) -> int:
        return len(self._values)

    def _evidence(self) -> float:
        self._decompose()
        return self._posterior(self.precision, self.information)[0]

    def _follow(self) -> None:
        self._decompose()

    def _gram(self, a: Array, b: Array) -> Array:
        with torch.no_grad():
            dense: Array = self.kernel(torch.from_numpy(a), torch.from_numpy(b)).to_dense().numpy()
        return dense

    def _basis(self, places: Array) -> tuple[Array, Array]:
        """Values (M, C) of the components and the variance (M,) that they leave out."""
        basis = self._gram(places, self.places) @ (self._vectors / np.sqrt(self._values))
        with torch.no_grad():
            prior = self.kernel(torch.from_numpy(places), diag=True).numpy()
        return basis, np.maximum(prior - (basis**2).sum(1), 0.0)

    def _posterior(self, precision: Array, information: Array) -> tuple[float, Array, Array]:
        basis = self._vectors * np.sqrt(self._values)
        size = basis.shape[1] * self.rank
        matrix = np.einsum("jc,jab,jd->cadb", basis, precision, basis, optimize=True).reshape(size, size)
        matrix += np.eye(size)
        linear = np.einsum("jc,ja->ca", basis, information).reshape(size)
        root = linalg.cholesky(matrix, lower=True, check_finite=False)
        whitening = linalg.solve_triangular(root, np.eye(size), lower=True, check_finite=False)
        self._weights_covariance = whitening.T @ whitening
        weights = whitening.T @ (whitening @ linear)
        self._weights_mean = weights.reshape(-1, self.rank)
        evidence = 0.5 * linear @ weights - np.log(np.diag(root)).sum()
        mean, covariance = self._project(basis)
        return float(evidence), mean, covariance

    def _project(self, basis: Array) -> tuple[Array, Array]:
        c, r = basis.shape[1], self.rank
        v = self._weights_covariance.reshape(c, r, c, r)
        return basis @ self._weights_mean, np.einsum("jc,cadb,jd->jab", basis, v, basis, optimize=True)

    def at(self, coordinates: Array) -> tuple[Array, Array]:
        """Kriging from the sites; the variance that the components leave out is added."""
        basis, left = self._basis(coordinates)
        mean, covariance = self._project(basis)
        return mean, covariance + left[:, None, None] * np.eye(self.rank)

    def prior_covariance(self, coordinates: Array) -> Array:
        """Of the components, with what they leave out on the diagonal."""
        basis, left = self._basis(coordinates)
        return basis @ basis.T + np.diag(left)

    def sample(self, coordinates: Array, n: int, rng: np.random.Generator) -> Array:
        """Joint draws of the components' weights; what they leave out is drawn independently."""
        basis, left = self._basis(coordinates)
        root = np.linalg.cholesky(self._weights_covariance)
        weights = self._weights_mean.reshape(-1) + rng.standard_normal((n, len(root))) @ root.T
        drawn = np.einsum("jc,ncr->njr", basis, weights.reshape(n, -1, self.rank))
        return drawn + np.sqrt(left)[:, None] * rng.standard_normal(drawn.shape)
