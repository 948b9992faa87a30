"""Modes: factors with constant components beside the random ones, and the tables that the statistics are made from."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb.factors import Factor
from gpkit.recursions import tensor_statistics

__all__ = ["Mode", "fold_index", "packed_size", "upper_pairs"]

Array = NDArray[np.float64]


def packed_size(rank: int) -> int:
    """Distinct entries of a symmetric matrix."""
    return rank * (rank + 1) // 2


@cache
def upper_pairs(rank: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns (P,) of the packed entries of a symmetric matrix."""
    rows, columns = (part.astype(np.int64) for part in np.triu_indices(rank))
    rows.setflags(write=False)
    columns.setflags(write=False)
    return rows, columns


@cache
def fold_index(rank: int) -> NDArray[np.int64]:
    """Position (rank, rank) of each entry of a symmetric matrix in its packed form."""
    out = np.empty((rank, rank), np.int64)
    rows, columns = upper_pairs(rank)
    out[rows, columns] = out[columns, rows] = np.arange(len(rows))
    out.setflags(write=False)
    return out


class Mode:
    """A factor whose functions are some of the components of its mode; the others are the constant one.

    Args:
        factor: the random functions.
        free: which components they are, increasing.
        rank: number of components.
    """

    def __init__(self, factor: Factor, free: NDArray[np.int64], rank: int) -> None:
        self.factor = factor
        self.free = free
        self.rank = rank
        self.constant = np.setdiff1d(np.arange(rank), free)
        self.table: Array = np.empty((factor.size, rank + packed_size(rank)))
        self._fold = fold_index(rank)

    def refresh(self) -> None:
        """Rebuild the table after the factor has changed."""
        self.fill(self.factor.mean, self.factor.covariance, self.table)

    def fill(self, mean: Array, covariance: Array, table: Array) -> None:
        """Rows ``[means, packed second moments]`` of the components from the moments of the functions."""
        if len(self.free) == self.rank:
            tensor_statistics.pack_moments(np.ascontiguousarray(mean), np.ascontiguousarray(covariance), table)
            return
        full = np.ones((len(mean), self.rank))
        full[:, self.free] = mean
        spread = np.zeros((len(mean), self.rank, self.rank))
        spread[:, self.free[:, None], self.free] = covariance
        tensor_statistics.pack_moments(full, spread, table)

    def means(self) -> Array:
        """Means (J, rank) of all components."""
        return self.table[:, : self.rank]

    def seconds(self) -> Array:
        """Second moments (J, rank, rank) of all components."""
        return self.table[:, self.rank :][:, self._fold]

    def reduce(self, precision: Array, information: Array) -> tuple[Array, Array]:
        """Sites of the functions from sites of all components: the constant ones move to the information."""
        if len(self.free) == self.rank:
            return precision, information
        free = self.free
        cross = precision[:, free[:, None], self.constant].sum(-1)
        return np.ascontiguousarray(precision[:, free[:, None], free]), information[:, free] - cross
