"""Covariances of GP-HM along one axis: Toeplitz, hence with blocks for even and odd vectors, at half the cost.

A symmetric Toeplitz matrix keeps vectors that are even about the middle of the axis even, and odd ones odd; that of an
odd function of the lag turns one kind into the other. In coordinates of even and odd parts (``fold``, orthogonal) a
matrix is two blocks of half the size: products, factors and gradients take half the operations or fewer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError

__all__ = ["AxisColumns", "Blocks", "diagonal_sums", "fold", "toeplitz", "unfold"]

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
    n = x.shape[axis]
    h = n // 2
    top, bottom = x.narrow(axis, 0, h), x.narrow(axis, n - h, h).flip(axis)
    return torch.cat([(top + bottom) * _HALF, x.narrow(axis, h, n - 2 * h), (top - bottom) * _HALF], axis)


def unfold(x: Tensor, axis: int) -> Tensor:
    """Inverse of :func:`fold`."""
    n = x.shape[axis]
    h = n // 2
    even, odd = x.narrow(axis, 0, h), x.narrow(axis, n - h, h)
    parts = [(even + odd) * _HALF, x.narrow(axis, h, n - 2 * h), ((even - odd) * _HALF).flip(axis)]
    return torch.cat(parts, axis)


def _parts(x: Tensor, axis: int) -> Blocks:
    n = x.shape[axis]
    return x.narrow(axis, 0, n - n // 2), x.narrow(axis, n - n // 2, n // 2)


def _mode(matrix: Tensor, tensor: Tensor, axis: int) -> Tensor:
    return torch.tensordot(matrix, tensor, dims=([1], [axis])).movedim(0, axis)


def _rows(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def _blocks(matrix: Tensor, order: int) -> Blocks:
    """Of a matrix in folded coordinates."""
    (ee, eo), (oe, oo) = (_parts(half, 1) for half in _parts(matrix, 0))
    return (eo, oe) if order % 2 else (ee, oo)


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
            folded = fold(fold(toeplitz(self._columns[order], order), 0), 1)
            even, odd = _blocks(folded, order)
            self._blocks[order] = (even.contiguous(), odd.contiguous())
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
        even, odd = _parts(folded, axis)
        return torch.cat([_mode(self._inverse[0], even, axis), _mode(self._inverse[1], odd, axis)], axis)

    def apply(self, order: int, folded: Tensor, axis: int, transposed: bool = False) -> Tensor:
        """Matrix of a derivative, or its transpose, along an axis of a folded tensor."""
        first, second = self.blocks(order)
        even, odd = _parts(folded, axis)
        if order % 2:
            even, odd = odd, even
            if transposed:
                first, second = second, first
        if transposed:
            first, second = first.T, second.T
        return torch.cat([_mode(first, even, axis), _mode(second, odd, axis)], axis)

    def add_gradient(self, order: int, left: Tensor, right: Tensor, axis: int, scale: float = 1.0) -> None:
        """Add ``scale left right^T``, of folded tensors laid out along an axis, to the gradient of a matrix."""
        (le, lo), (re, ro) = _parts(_rows(left, axis), 0), _parts(_rows(right, axis), 0)
        if order % 2:
            re, ro = ro, re
        blocks = (scale * (le @ re.T), scale * (lo @ ro.T))
        if order in self._gradients:
            before = self._gradients[order]
            blocks = (before[0] + blocks[0], before[1] + blocks[1])
        self._gradients[order] = blocks

    def add_inverse_gradient(self, scale: float) -> None:
        """Add a multiple of the inverse to the gradient of the covariance."""
        before = self._gradients.get(0, (torch.zeros(()), torch.zeros(())))
        self._gradients[0] = (before[0] + scale * self._inverse[0], before[1] + scale * self._inverse[1])

    def gradient(self) -> Tensor:
        """With respect to the columns, (order + 1, N)."""
        out = torch.zeros_like(self._columns)
        for order, blocks in self._gradients.items():
            out[order] += diagonal_sums(_dense(blocks, order), order)
        return out
