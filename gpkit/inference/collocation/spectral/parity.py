"""Matrices that keep even and odd apart, applied at half the cost: Legendre polynomials are even or odd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpkit.inference.collocation.bases import Array

__all__ = ["Folded", "Split", "Unfolded"]


@dataclass(frozen=True)
class Split:
    """A matrix with two blocks that are not zero: one of even, one of odd functions.

    Attributes:
        blocks: Even and odd block.
        rows: Where the outputs of each block go.
        columns: Where its inputs come from.
        shape: Of the whole matrix.
    """

    blocks: tuple[Array, Array]
    rows: tuple[slice, slice]
    columns: tuple[slice, slice]
    shape: tuple[int, int]

    def __matmul__(self, x: Array) -> Array:
        out = np.empty((self.shape[0], *x.shape[1:]), dtype=x.dtype)
        for block, to, at in zip(self.blocks, self.rows, self.columns, strict=True):
            out[to] = block @ x[at]
        return out

    @property
    def T(self) -> Split:  # noqa: N802 (as numpy's)
        """The transpose."""
        even, odd = self.blocks
        return Split((even.T, odd.T), self.columns, self.rows, (self.shape[1], self.shape[0]))

    def to_dense(self) -> Array:
        """All entries."""
        out = np.zeros(self.shape)
        for block, to, at in zip(self.blocks, self.rows, self.columns, strict=True):
            out[to, at] = block
        return out


class Folded:
    """Weighted transpose of values at nodes that are symmetric about the middle: (size, nodes).

    Args:
        table: Values at the nodes, (nodes, size), of functions that are even and odd in turn.
        weights: Of the nodes, or None for ones.
    """

    def __init__(self, table: Array, weights: Array) -> None:
        count, size = table.shape
        self.shape = (size, count)
        self._half = count // 2
        upper = table[self._half :] * weights[self._half :, None]
        if count % 2:
            upper[0] *= 0.5  # the middle node is its own mirror image, and is added to itself
        self._even, self._odd = np.ascontiguousarray(upper[:, 0::2].T), np.ascontiguousarray(upper[:, 1::2].T)

    def __matmul__(self, x: Array) -> Array:
        upper, lower = x[self._half :], x[: self.shape[1] - self._half][::-1]
        out = np.empty((self.shape[0], *x.shape[1:]), dtype=x.dtype)
        out[0::2] = self._even @ (upper + lower)
        out[1::2] = self._odd @ (upper - lower)
        return out


class Unfolded:
    """Values at symmetric nodes from coefficients: (nodes, size)."""

    def __init__(self, table: Array) -> None:
        count, _ = table.shape
        self.shape = table.shape
        self._half = count // 2
        self._even = np.ascontiguousarray(table[self._half :, 0::2])
        self._odd = np.ascontiguousarray(table[self._half :, 1::2])

    def __matmul__(self, x: Array) -> Array:
        even, odd = self._even @ x[0::2], self._odd @ x[1::2]
        out = np.empty((self.shape[0], *x.shape[1:]), dtype=x.dtype)
        out[self._half :] = even + odd
        out[: self.shape[0] - self._half] = (even - odd)[::-1]
        return out
