"""Recognising points of a uniform grid."""

from __future__ import annotations

import torch
from torch import Tensor

from gpkit.operators.grid_cells import GridCells

__all__ = ["uniform_cells"]

_LARGEST_FILL = 8
"""Points that would leave more than this many cells per point empty are not treated as a grid with gaps."""


def uniform_cells(points: Tensor) -> tuple[float, GridCells] | None:
    """Step and cells if points lie on a uniform grid to rounding.

    Args:
        points: (*batch, N), any order; every element of the batch must hold the same points.

    Returns:
        The step and the cell of each point on the smallest such grid, or None; None as well for points that need
        gradients, which the step alone could not give.
    """
    if points.requires_grad and torch.is_grad_enabled():
        return None
    if points.dim() > 1:
        flat = points.detach().reshape(-1, points.shape[-1])
        if flat.shape[0] != 1 and not bool((flat == flat[:1]).all()):
            return None
        points = flat[0] if flat.shape[0] else points.new_empty(0)
    points = points.detach()
    n = points.shape[0]
    if n == 0:
        return 1.0, GridCells((0,))
    ordered = points.unique()
    first, extent = ordered[0], float(ordered[-1] - ordered[0])
    if ordered.shape[0] == 1:
        return 1.0, GridCells((1,), torch.zeros(n, dtype=torch.long))
    smallest = float(ordered.diff().min())
    count = round(extent / smallest) + 1
    if count > _LARGEST_FILL * n:
        return None
    step = extent / (count - 1)
    index = ((points - first) / step).round()
    off = (points - (first + index * step)).abs().max()
    rounding = 8.0 * torch.finfo(points.dtype).eps * float(points.abs().max())
    if float(off) > rounding:
        return None
    return step, GridCells((count,), index.long())
