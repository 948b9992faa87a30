"""What sparse-precision covariances with the same unknowns share: the pattern of Q, and which unknowns rows observe."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.operators.sparse_symmetric import SparsePattern

__all__ = ["PrecisionLayout", "entry_pairs"]


@dataclass(frozen=True, eq=False)
class PrecisionLayout:
    """What does not depend on hyper-parameters: the pattern of Q and how rows observe the unknowns.

    Args:
        pattern: of the precision matrix Q (N, N).
        selection: E (m, N), scipy sparse; few entries per row.
    """

    pattern: SparsePattern
    selection: Any

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InvalidDataError: the selection has another number of columns than the precision.
        """
        if self.selection.shape[1] != self.pattern.size:
            raise InvalidDataError(
                f"the selection has {self.selection.shape[1]} columns, the precision {self.pattern.size}"
            )

    @functools.cached_property
    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and values of E."""
        entries = self.selection.tocoo()
        rows, columns = (torch.as_tensor(index.astype(np.int64)) for index in (entries.row, entries.col))
        return rows, columns, torch.as_tensor(np.asarray(entries.data, dtype=np.float64))

    @functools.cached_property
    def posterior(self) -> tuple[SparsePattern, Tensor, Tensor, Tensor, Tensor]:
        """Pattern of ``Q + E^T D^-1 E``, where Q goes, and place, row and weight of every product of E's entries."""
        matrix = self.selection.tocsr().copy()
        matrix.sum_duplicates()  # sorted now: products below would sort it in place, behind the places found here
        every = np.arange(matrix.shape[0])
        row, first, second = entry_pairs(matrix, every, every)
        columns, rows = matrix.indices[first].astype(np.int64), matrix.indices[second].astype(np.int64)
        own = self.pattern
        keys = own.columns * own.size + own.rows
        wanted = columns * own.size + rows
        at = np.minimum(np.searchsorted(keys, wanted), own.nnz - 1)
        pattern, places = own, np.arange(own.nnz)
        if not np.array_equal(keys[at], wanted):
            union = own.matrix(np.ones(own.nnz)) + abs(matrix).T @ abs(matrix)
            pattern = SparsePattern.of(union, own.block)
            keys = pattern.columns * pattern.size + pattern.rows
            places = np.searchsorted(keys, own.columns * own.size + own.rows)
            at = np.searchsorted(keys, wanted)
        weight = matrix.data[first] * matrix.data[second]
        tensors = (torch.as_tensor(np.asarray(v)) for v in (places, at, row, weight))
        return (pattern, *tensors)  # type: ignore[return-value]  # mypy knows no star in fixed tuples

    def up(self, values: Tensor) -> Tensor:
        """``E values``, (N, C) to (m, C)."""
        rows, columns, data = self.entries
        out = values.new_zeros(self.selection.shape[0], values.shape[1])
        return out.index_add(0, rows, data.to(values.dtype).unsqueeze(-1) * values[columns])

    def down(self, values: Tensor) -> Tensor:
        """``E^T values``, (m, C) to (N, C)."""
        rows, columns, data = self.entries
        out = values.new_zeros(self.selection.shape[1], values.shape[1])
        return out.index_add(0, columns, data.to(values.dtype).unsqueeze(-1) * values[rows])


def entry_pairs(matrix: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """All pairs of an entry of row a_i and one of row b_i of a CSR matrix: i, and the places of both entries."""
    counts_a, counts_b = (np.diff(matrix.indptr)[rows].astype(np.int64) for rows in (a, b))
    total = counts_a * counts_b
    place = np.repeat(np.arange(len(total)), total)
    offset = np.arange(len(place)) - np.repeat(np.cumsum(total) - total, total)
    width = counts_b[place]
    return place, matrix.indptr[a][place] + offset // width, matrix.indptr[b][place] + offset % width
