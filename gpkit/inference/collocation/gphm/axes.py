"""Covariances of GP-HM along one axis: Toeplitz, hence with blocks for even and odd vectors, at half the cost.

A symmetric Toeplitz matrix keeps vectors that are even about the middle of the axis even, and odd ones odd; that of an
odd function of the lag turns one kind into the other. In coordinates of even and odd parts (``fold``, orthogonal) a
matrix is two blocks of half the size: products, factors and gradients take half the operations or fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError

__all__ = ["AxisColumns", "Blocks", "along_axes", "diagonal_sums", "fold", "toeplitz", "unfold"]

Blocks = tuple[Tensor, Tensor]
"""Rows of even and of odd parts; of an odd function they act on the odd and on the even parts."""

_HALF = math.sqrt(0.5)


def toeplitz(column: Tensor, order: int) -> Tensor:
    """Matrix of an even or odd function of the lag from its values at lags 0, h, 2 h, ..."""
    n = len(column)
    both = torch.cat([column.flip(0)[:-1] * (-1.0) ** order, column])
    # Row i holds lags i, i - 1, ..., i - n + 1: a window of the reversed sequence that moves by one.
    reverse = both.flip(0).contiguous()
    return reverse.unfold(0, n, 1).flip(0)


def diagonal_sums(matrix: Tensor, order: int) -> Tensor:
    """Adjoint of :func:`toeplitz`: the gradient of the column from that of the matrix."""
    n = len(matrix)
    padded = torch.zeros(n * (2 * n + 1), dtype=matrix.dtype)
    padded[: 2 * n * n].view(n, 2 * n)[:, :n] = matrix
    # Read in rows that are one longer, row i has moved i places to the left: entries of one lag share a column.
    sums = padded.view(n, 2 * n + 1).sum(0)
    lower = torch.cat([sums[:1], sums[n + 2 :].flip(0)])
    upper = sums[:n].clone()
    upper[0] = 0.0
    return lower + upper * (-1.0) ** order


def fold(x: Tensor, axis: int) -> Tensor:
    """Even parts about the middle of an axis, the middle itself where there is one, and odd parts; orthogonal."""
    out, n = torch.empty_like(x, memory_format=torch.contiguous_format), x.shape[axis]
    # Numpy's views run backwards, where torch would copy.
    given, found = np.moveaxis(x.numpy(), axis, 0), np.moveaxis(out.numpy(), axis, 0)
    h = n // 2
    top, bottom = given[:h], given[n - h :][::-1]
    np.add(top, bottom, out=found[:h])
    np.subtract(top, bottom, out=found[n - h :])
    found[h : n - h] = given[h : n - h] / _HALF
    return out.mul_(_HALF)


def unfold(x: Tensor, axis: int) -> Tensor:
    """Inverse of :func:`fold`."""
    out, n = torch.empty_like(x, memory_format=torch.contiguous_format), x.shape[axis]
    given, found = np.moveaxis(x.numpy(), axis, 0), np.moveaxis(out.numpy(), axis, 0)
    h = n // 2
    even, odd = given[:h], given[n - h :]
    np.add(even, odd, out=found[:h])
    np.subtract(even, odd, out=found[n - h :][::-1])
    found[h : n - h] = given[h : n - h] / _HALF
    return out.mul_(_HALF)


def along_axes(turn: Callable[[Tensor, int], Tensor], x: Tensor, dim: int | None = None) -> Tensor:
    """Something done along the first axes of a tensor, or all of them."""
    for axis in range(x.dim() if dim is None else dim):
        x = turn(x, axis)
    return x


def _blocks_of(column: Tensor, order: int) -> Blocks:
    """Of the Toeplitz matrix of an even or odd function of the lag: sum and difference of it and its mirror image."""
    n, h = len(column), len(column) // 2
    direct = toeplitz(column[: n - h], order)
    mirrored = column.flip(0).unfold(0, n - h, 1)[: n - h]  # k(n - 1 - i - j)
    first, second = direct + mirrored, direct - mirrored
    for block in (first, second):
        # The middle of an odd number of points is its own mirror image.
        block[h:] *= _HALF
        block[:, h:] *= _HALF
    if order % 2:
        return first[:, :h].contiguous(), second[:h].contiguous()
    return first, second[:h, :h].contiguous()


def _sums_of(blocks: Blocks, order: int, n: int) -> Tensor:
    """Adjoint of :func:`_blocks_of`: gradient of the column (n,) from that of the blocks."""
    m = n - n // 2
    first, second = (torch.zeros(m, m, dtype=torch.float64) for _ in range(2))
    for padded, block in zip((first, second), blocks, strict=True):
        padded[: block.shape[0], : block.shape[1]] = block
        padded[n // 2 :] *= _HALF
        padded[:, n // 2 :] *= _HALF
    out = torch.zeros(n, dtype=torch.float64)
    out[:m] = diagonal_sums(first + second, order)
    # In rows that are one shorter, row i has moved i places to the right: entries of one i + j share a column.
    padded = torch.zeros(2 * m * m, dtype=torch.float64)
    padded.view(m, 2 * m)[:, :m] = first - second
    sums = padded[: m * (2 * m - 1)].view(m, 2 * m - 1).sum(0)
    out[n - len(sums) :] += sums.flip(0)
    if order % 2:
        out[0] = 0.0  # as the function
    return out


def _apply(blocks: Blocks, x: Tensor, axis: int, swapped: bool) -> Tensor:
    """The first block applied to even parts along an axis and the second to odd ones, or the other way round.

    Args:
        blocks: Rows of even and of odd parts of the result.
        x: Folded.
        axis: Along which.
        swapped: Whether even parts of the result come from odd ones.
    """
    n, h = x.shape[axis], x.shape[axis] // 2
    before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    given = x.reshape(before, n, after)
    out = torch.empty_like(given, memory_format=torch.contiguous_format)
    even, odd = given[:, : n - h], given[:, n - h :]
    rows = out[:, : n - h], out[:, n - h :]
    for block, part, row in zip(blocks, (odd, even) if swapped else (even, odd), rows, strict=True):
        # Products are written to their place.
        if before == 1:
            torch.mm(block, part[0], out=row[0])
        elif after == 1:
            torch.mm(part[..., 0], block.T, out=row[..., 0])
        else:
            row.copy_(torch.matmul(block, part))
    return out.reshape(x.shape)


def _parts(x: Tensor, axis: int) -> Blocks:
    n = x.shape[axis]
    return x.narrow(axis, 0, n - n // 2), x.narrow(axis, n - n // 2, n // 2)


def _rows(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def _dense(blocks: Blocks, order: int) -> Tensor:
    """A matrix, in the coordinates of the grid, from its blocks."""
    even, odd = blocks
    out = even.new_zeros(even.shape[0] + odd.shape[0], even.shape[0] + odd.shape[0])
    cut = even.shape[0]
    if order % 2:
        out[:cut, cut:], out[cut:, :cut] = even, odd
    else:
        out[:cut, :cut], out[cut:, cut:] = even, odd
    return unfold(unfold(out, 0), 1)


class AxisColumns:
    """Covariance of one axis of one field: blocks of Toeplitz matrices, and what their gradients add up to.

    Args:
        columns: Derivatives 0..order of the kernel at the lags of the grid, (order + 1, N).
        jitter: Added to the diagonal of the covariance of values.

    Attributes:
        half_log_det: Half the logarithm of the determinant of the covariance.

    Raises:
        NotPositiveDefiniteError: The covariance with its jitter is not definite.
    """

    def __init__(self, columns: Tensor, jitter: float) -> None:
        """Factorise."""
        self._columns, self._jitter = columns, jitter
        self._blocks: dict[int, Blocks] = {}
        self._gradients: dict[int, Blocks] = {}
        self.half_log_det, inverses = 0.0, []
        for block in self.blocks(0):
            covariance = block.clone()
            covariance.diagonal().add_(jitter)
            factor, info = torch.linalg.cholesky_ex(covariance)
            if int(info):
                raise NotPositiveDefiniteError("the covariance of the grid's values is not definite", row=int(info) - 1)
            self.half_log_det += float(factor.diagonal().log().sum())
            inverses.append(torch.cholesky_inverse(factor))
        self._inverse: Blocks = (inverses[0], inverses[1])

    def __len__(self) -> int:
        return self._columns.shape[1]

    def blocks(self, order: int) -> Blocks:
        """Of the matrix of the derivative of an order."""
        if order not in self._blocks:
            self._blocks[order] = _blocks_of(self._columns[order], order)
        return self._blocks[order]

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (N,) of the covariance with its jitter, and eigenvectors (N, N), even ones first."""
        values, vectors = zip(*[torch.linalg.eigh(block) for block in self.blocks(0)], strict=True)
        folded = torch.block_diag(*vectors)
        # Without its jitter the covariance is a limit of positive ones: what is negative is rounding.
        return torch.cat(values).clamp_min(0.0) + self._jitter, unfold(folded, 0)

    @property
    def inverse(self) -> Tensor:
        """Of the covariance, (N, N)."""
        return _dense(self._inverse, 0)

    def matrix(self, order: int) -> Tensor:
        """Of the derivative of an order, (N, N)."""
        return _dense(self.blocks(order), order)

    def solve(self, folded: Tensor, axis: int) -> Tensor:
        """Covariance inverse along an axis of a folded tensor."""
        return _apply(self._inverse, folded, axis, False)

    def apply(self, order: int, folded: Tensor, axis: int, transposed: bool = False) -> Tensor:
        """Matrix of a derivative, or its transpose, along an axis of a folded tensor."""
        first, second = self.blocks(order)
        if transposed:
            first, second = (second.T, first.T) if order % 2 else (first.T, second.T)
        return _apply((first, second), folded, axis, order % 2 == 1)

    def add_gradient(self, order: int, left: Tensor, right: Tensor, axis: int, scale: float = 1.0) -> None:
        """Add ``scale left right^T``, of folded tensors laid out along an axis, to the gradient of a matrix."""
        (le, lo), (re, ro) = _parts(_rows(left, axis), 0), _parts(_rows(right, axis), 0)
        if order % 2:
            re, ro = ro, re
        self._add(order, (scale * (le @ re.T), scale * (lo @ ro.T)))

    def _add(self, order: int, blocks: Blocks) -> None:
        before = self._gradients.get(order)
        self._gradients[order] = blocks if before is None else (before[0] + blocks[0], before[1] + blocks[1])

    def add_inverse_gradient(self, scale: float) -> None:
        """Add a multiple of the inverse to the gradient of the covariance."""
        self._add(0, (scale * self._inverse[0], scale * self._inverse[1]))

    def gradient(self) -> Tensor:
        """With respect to the columns, (order + 1, N)."""
        out = torch.zeros_like(self._columns)
        for order, blocks in self._gradients.items():
            out[order] += _sums_of(blocks, order, len(self))
        return out
