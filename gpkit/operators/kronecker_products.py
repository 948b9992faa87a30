"""Products with Kronecker-structured matrices, one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

__all__ = ["kronecker_dense", "kronecker_matmul", "mode_multiply", "outer_product", "outer_sum"]


def mode_multiply(matrix: Tensor, values: Tensor, sizes: Sequence[int], axis: int) -> Tensor:
    """Multiply one axis of a grid by a matrix.

    Args:
        matrix: (*batch, p, n_axis).
        values: (*batch, prod(sizes), C), the first axis of the grid varies slowest.
        sizes: (n_1, ..., n_d).
        axis: which one.

    Returns:
        (*batch, prod(sizes) / n_axis * p, C).
    """
    count = values.shape[-1]
    left, right = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :]) * count
    lead = values.shape[:-2]
    out_rows = left * matrix.shape[-2] * math.prod(sizes[axis + 1 :])
    if left == 1:
        out = matrix @ values.reshape(*lead, sizes[axis], right)
    elif right == 1:
        out = values.reshape(*lead, left, sizes[axis]) @ matrix.mT
    else:
        # One large product; a batch of small ones would copy the matrix for each.
        front = values.reshape(*lead, left, sizes[axis], right).transpose(-3, -2)
        front = front.reshape(*lead, sizes[axis], left * right)
        out = matrix @ front
        out = out.reshape(*out.shape[:-1], left, right).transpose(-3, -2)
        return out.reshape(*out.shape[:-3], out_rows, count)
    return out.reshape(*out.shape[:-2], out_rows, count)


def kronecker_matmul(factors: Sequence[Tensor], values: Tensor) -> Tensor:
    """``(F_1 x ... x F_d) values`` without forming the product.

    Args:
        factors: (*batch, p_j, n_j) each.
        values: (*batch, prod n_j, C).

    Returns:
        (*batch, prod p_j, C).
    """
    sizes = [factor.shape[-1] for factor in factors]
    for axis, factor in enumerate(factors):
        values = mode_multiply(factor, values, sizes, axis)
        sizes[axis] = factor.shape[-2]
    return values


def kronecker_dense(factors: Sequence[Tensor]) -> Tensor:
    """The Kronecker product itself, (*batch, prod p_j, prod n_j)."""
    out = factors[0]
    for factor in factors[1:]:
        rows, columns = out.shape[-2] * factor.shape[-2], out.shape[-1] * factor.shape[-1]
        product = out[..., :, None, :, None] * factor[..., None, :, None, :]
        out = product.reshape(*product.shape[:-4], rows, columns)
    return out


def outer_product(vectors: Sequence[Tensor]) -> Tensor:
    """Products of one entry of each vector, (*batch, prod n_j), in grid order."""
    out = vectors[0]
    for vector in vectors[1:]:
        out = (out.unsqueeze(-1) * vector.unsqueeze(-2)).flatten(-2)
    return out


def outer_sum(vectors: Sequence[Tensor]) -> Tensor:
    """Sums of one entry of each vector, (*batch, prod n_j), in grid order."""
    out = vectors[0]
    for vector in vectors[1:]:
        out = (out.unsqueeze(-1) + vector.unsqueeze(-2)).flatten(-2)
    return out
