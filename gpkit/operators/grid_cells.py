"""Which cells of a product grid the rows of an operator are."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["GridCells"]


class GridCells:
    """Rows of an operator as cells of a grid ``sizes``, the first axis varying slowest.

    Args:
        sizes: (n_1, ..., n_d).
        index: (N) flat cell of each row, in any order, possibly repeated; None for all cells in grid order.
    """

    def __init__(self, sizes: Sequence[int], index: Tensor | None = None) -> None:
        self.sizes = tuple(int(n) for n in sizes)
        self.count = math.prod(self.sizes)
        if index is not None and index.shape[0] == self.count and torch.equal(index, torch.arange(self.count)):
            index = None
        self.index = index

    @property
    def rows(self) -> int:
        """N."""
        return self.count if self.index is None else int(self.index.shape[0])

    @functools.cached_property
    def flat(self) -> Tensor:
        """(N) flat cells."""
        return torch.arange(self.count) if self.index is None else self.index

    @functools.cached_property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Per axis the position (N) of each row."""
        out: list[Tensor] = []
        rest = self.flat
        for n in reversed(self.sizes):
            out.append(rest % max(n, 1))
            rest = rest // max(n, 1)
        return tuple(reversed(out))

    @functools.cached_property
    def repeated(self) -> bool:
        """Whether a cell occurs more than once."""
        return self.index is not None and int(self.index.unique().numel()) < self.rows

    @functools.cached_property
    def unseen(self) -> Tensor:
        """Flat cells that no row is."""
        if self.index is None:
            return torch.empty(0, dtype=torch.long)
        seen = torch.zeros(self.count, dtype=torch.bool)
        seen[self.index] = True
        return (~seen).nonzero().squeeze(-1)

    def scatter(self, rows: Tensor) -> Tensor:
        """(*batch, N, C) to the whole grid (*batch, count, C): repeated rows are added, other cells are zero."""
        if self.index is None:
            return rows
        out = rows.new_zeros(*rows.shape[:-2], self.count, rows.shape[-1])
        return out.index_add(-2, self.index, rows)

    def gather(self, values: Tensor) -> Tensor:
        """(*batch, count, C) to the rows (*batch, N, C)."""
        return values if self.index is None else values.index_select(-2, self.index)

    def select(self, which: Any) -> GridCells:
        """The rows ``which`` (slice or index tensor)."""
        return GridCells(self.sizes, self.flat[which])

    def same_as(self, other: GridCells) -> bool:
        """Whether the rows are the same cells in the same order."""
        if self.sizes != other.sizes or self.rows != other.rows:
            return False
        return self.index is other.index or torch.equal(self.flat, other.flat)
