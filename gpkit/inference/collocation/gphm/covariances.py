"""Covariances of all fields along all axes of a grid, and the way of gradients through them to the kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpkit.inference.collocation.gphm.axes import AxisColumns
from gpkit.inference.collocation.gphm.columns import MixtureColumns
from gpkit.kernels.stationary import Envelope

__all__ = ["Covariances"]


class Covariances:
    """Made from the kernels' parameters; what is added to the gradients of its axes can be asked of these.

    Args:
        envelope: Of the mixtures.
        lags: Of each axis, (N_j,).
        orders: Of the derivatives that are needed along each axis.
        kernel: Log weights, log inverse lengths and frequencies, (F, d, Q) each.
        jitter: Added to the diagonal of every covariance.

    Attributes:
        fields: Of each field, one an axis.
    """

    def __init__(
        self,
        envelope: Envelope,
        lags: Sequence[Tensor],
        orders: Sequence[Sequence[int]],
        kernel: Sequence[Tensor],
        jitter: float,
    ) -> None:
        """Evaluate and factorise."""
        self._columns = [
            [
                MixtureColumns(envelope, z, [t[f, j] for t in kernel], o)
                for j, (z, o) in enumerate(zip(lags, orders, strict=True))
            ]
            for f in range(kernel[0].shape[0])
        ]
        self._cells = math.prod(len(z) for z in lags)
        self.fields = [[AxisColumns(c.values, jitter) for c in line] for line in self._columns]

    def pull_determinant(self) -> float:
        """Half the log determinant of the covariance of all values; its gradient is added to the axes."""
        total = 0.0
        for line in self.fields:
            for a in line:
                share = self._cells / len(a)
                total += share * a.half_log_det
                a.add_inverse_gradient(0.5 * share)
        return total

    def gradient(self) -> list[Tensor]:
        """With respect to the kernels' parameters, (F, d, Q) each, of all that was added to the axes."""
        lines = [
            [c.gradient(a.gradient()) for c, a in zip(columns, axes, strict=True)]
            for columns, axes in zip(self._columns, self.fields, strict=True)
        ]
        return [torch.stack([torch.stack([g[k] for g in line]) for line in lines]) for k in range(3)]
