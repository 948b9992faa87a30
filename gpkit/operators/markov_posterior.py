"""Unknowns with a sparse precision matrix given noisy data: marginal variances, covariances of rows, joint draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from gpkit.operators.precision_layout import entry_pairs
from gpkit.operators.sparse_symmetric import SparseMatrix

__all__ = ["MarkovPosterior"]

Array = NDArray[np.float64]

_SOLVED = 1 << 24
"""Numbers held at once while places are solved for."""
_LOOKUP = 50
"""Cost of looking a pair up, in entries of the factor that are passed while a place is solved for."""
_PAIRS = 1 << 21
"""Pairs of entries looked up at once."""


@dataclass(frozen=True, eq=False)
class MarkovPosterior:
    """All N unknowns given noisy data: sparse precision A and mean.

    Args:
        mean: (N,).
        matrix: A.
    """

    mean: Array
    matrix: SparseMatrix

    @property
    def variance(self) -> Array:
        """Marginal variances (N,), from the selected inverse."""
        nodes = np.arange(self.matrix.pattern.size)
        return self.matrix.factor.inverse_entries(nodes, nodes)

    def blocks(self, size: int) -> Array:
        """Marginal covariances (N / size, size, size) of consecutive unknowns, from the selected inverse."""
        return self.covariances(sparse.identity(self.matrix.pattern.size, format="csr"), size)

    def covariances(self, selection: Any, size: int) -> Array:
        """Covariances (m / size, size, size) of consecutive rows of ``E w``.

        Entries of the inverse on the factor's pattern are combined; places that need others, or so many that solving
        costs less, are solved for, with the same result.

        Args:
            selection: E, sparse (m, N).
            size: rows that belong together.
        """
        matrix = selection.tocsr()
        columns = matrix.indices.astype(np.int64)
        count = matrix.shape[0] // size
        out = np.zeros((count, size, size))
        pairs = np.square(np.diff(matrix.indptr)[: count * size : max(size, 1)].astype(np.float64))
        many = pairs * _LOOKUP > self.matrix.pattern.supernodes.nonzeros
        out[many] = np.nan
        pieces = np.array_split(np.flatnonzero(~many), 1 + int(pairs[~many].sum() // _PAIRS))
        for chosen in pieces:
            for a in range(size):
                for b in range(a + 1):
                    place, first, second = entry_pairs(matrix, chosen * size + a, chosen * size + b)
                    entries = self.matrix.factor.inverse_entries(columns[first], columns[second])
                    weights = matrix.data[first] * matrix.data[second] * entries
                    out[chosen, a, b] = out[chosen, b, a] = np.bincount(place, weights, len(chosen))
        unknown = np.flatnonzero(np.isnan(out).any((1, 2)))
        step = max(1, _SOLVED // (max(self.matrix.pattern.size, 1) * size))
        for start in range(0, len(unknown), step):
            chosen = unknown[start : start + step]
            rows = (chosen[:, None] * size + np.arange(size)).ravel()
            half = self.whitened(matrix[rows]).reshape(-1, len(chosen), size)
            out[chosen] = np.einsum("kmi,kmj->mij", half, half)
        return out

    def whitened(self, selection: Any) -> Array:
        """``B = L^-1 P E^T`` (N, m) of rows E (m, N): ``B^T B = E A^-1 E^T``, the covariance of what E observes."""
        return self.matrix.factor.whiten(selection.toarray().T)

    def sample(self, n: int, generator: torch.Generator) -> Array:
        """Exact joint draws (n, N)."""
        noise = torch.randn(self.matrix.pattern.size, n, generator=generator, dtype=torch.float64).numpy()
        return self.mean + self.matrix.factor.draw(noise).T
