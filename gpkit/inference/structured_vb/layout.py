"""Entries of a sparse tensor, grouped once for every mode, so that each coordinate's statistics have one writer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpkit.recursions import tensor_statistics

__all__ = ["Grouping", "Layout"]

Array = NDArray[np.float64]
Index = NDArray[np.int32]


class Grouping:
    """The entries in the order of one mode.

    Attributes:
        starts: where each coordinate's entries begin, (J + 1,).
        others: coordinates in the other modes, ascending, (N, K - 1).
        target: y in this order.
        weight: w in this order, or (1,) for all.
        order: which entry comes where, (N,) int32.
    """

    def __init__(self, index: Sequence[Index], mode: int, size: int, target: Array, weight: Array) -> None:
        order, self.starts = tensor_statistics.group_entries(index[mode], size)
        rest = [column for k, column in enumerate(index) if k != mode]
        self.others = np.empty((len(target), len(rest)), np.int32)
        for at, column in enumerate(rest):
            self.others[:, at] = column[order]
        self.order = order.astype(np.int32)
        self.set_observations(target, weight)

    def set_observations(self, target: Array, weight: Array) -> None:
        """New targets and weights, in the order of the entries."""
        self.target: Array = target[self.order]
        self.weight: Array = weight[self.order] if weight.size > 1 else weight


class Layout:
    """Groupings of N entries for all K modes.

    Args:
        index: coordinate of each entry in each mode, K arrays (N,) int32.
        sizes: number of coordinates of each mode.
        target: y (N,).
        weight: w (N,), or (1,) for all.
    """

    def __init__(self, index: Sequence[Index], sizes: Sequence[int], target: Array, weight: Array) -> None:
        self.index = index
        self.entries = len(target)
        self.groupings = [Grouping(index, k, size, target, weight) for k, size in enumerate(sizes)]
        self.set_observations(target, weight)

    def set_observations(self, target: Array, weight: Array) -> None:
        """New targets and weights of the entries."""
        self.target, self.weight = target, weight
        for grouping in self.groupings:
            grouping.set_observations(target, weight)
        each = weight if weight.size > 1 else np.broadcast_to(weight, target.shape)
        self.total_weight = float(each.sum())
        self.squares = float(np.einsum("n,n,n->", each, target, target, optimize=False))
