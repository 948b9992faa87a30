"""Products with Toeplitz matrices, symmetric or not, by the fast Fourier transform."""

from __future__ import annotations

import torch
from scipy import fft as scipy_fft
from torch import Tensor

__all__ = ["toeplitz_dense", "toeplitz_matmul"]


def toeplitz_dense(column: Tensor, row: Tensor | None = None) -> Tensor:
    """The matrix itself.

    Args:
        column: first column c, (*batch, M).
        row: first row r, (*batch, N), with ``r[0] = c[0]``; None for the symmetric matrix (r = c).

    Returns:
        (*batch, M, N), entry (i, j) is ``c[i - j]`` on and below the diagonal and ``r[j - i]`` above.
    """
    row = column if row is None else row
    m, n = column.shape[-1], row.shape[-1]
    if not m or not n:
        return column.new_zeros(*torch.broadcast_shapes(column.shape[:-1], row.shape[:-1]), m, n)
    i = torch.arange(m, device=column.device).unsqueeze(-1)
    j = torch.arange(n, device=column.device)
    batch = torch.broadcast_shapes(column.shape[:-1], row.shape[:-1])
    # One line from the last entry of the row to the last of the column, so that one gather makes the matrix.
    line = torch.cat([row[..., 1:].flip(-1).expand(*batch, n - 1), column.expand(*batch, m)], dim=-1)
    return line[..., i - j + n - 1]


def toeplitz_matmul(column: Tensor, row: Tensor | None, rhs: Tensor) -> Tensor:
    """Product with a vector or with columns, O(N log N) each.

    Args:
        column: first column, (*batch, M).
        row: first row, (*batch, N), or None for the symmetric matrix.
        rhs: (N) or (*batch, N, C).

    Returns:
        (M) or (*batch, M, C), accurate to rounding relative to the norms of matrix and right-hand side.
    """
    vector = rhs.dim() == 1
    columns = rhs.unsqueeze(-1) if vector else rhs
    row = column if row is None else row
    m, n = column.shape[-1], row.shape[-1]
    if not m or not n or not columns.shape[-1]:
        batch = torch.broadcast_shapes(column.shape[:-1], row.shape[:-1], columns.shape[:-2])
        out = columns.new_zeros(*batch, m, columns.shape[-1])
        return out.squeeze(-1) if vector else out
    length = scipy_fft.next_fast_len(m + n - 1, real=True)
    batch = torch.broadcast_shapes(column.shape[:-1], row.shape[:-1])
    circulant = torch.cat(
        [
            column.expand(*batch, m),
            column.new_zeros(*batch, length - m - n + 1),
            row[..., 1:].flip(-1).expand(*batch, n - 1),
        ],
        dim=-1,
    )
    spectrum = torch.fft.rfft(circulant).unsqueeze(-2)
    transformed = torch.fft.rfft(columns.mT, n=length)
    out = torch.fft.irfft(spectrum * transformed, n=length)[..., :m].mT
    return out.squeeze(-1) if vector else out
