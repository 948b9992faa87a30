"""Products of kernels over axes, structured wherever the inputs are cells of a grid."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gpytorch
import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.kernels.spectral_mixture import SpectralMixtureKernel
from gpkit.kernels.structured import StructuredKernel
from gpkit.operators.conjugate_gradients import ConjugateGradients
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.grid_cells import GridCells
from gpkit.operators.kronecker import KroneckerLinearOperator
from gpkit.operators.kronecker_cross import KroneckerCrossLinearOperator
from gpkit.operators.structured import StructuredLinearOperator, common_batch

__all__ = ["GridKernel"]

_LARGEST_FILL = 64
"""Inputs whose grid has more than this many times as many cells are not a grid: scattered points."""


class GridKernel(StructuredKernel):
    """``k(x, x') = prod_j k_j(x_j, x'_j)`` with its own kernel for each axis.

    Inputs are ordinary rows (N, d). Where they are cells of a grid, all of them or some, in any order, the covariance
    is a :class:`~gpkit.operators.KroneckerLinearOperator`; axes may have any lengths and spacings. The grid is found
    from coordinates that are exactly equal. Inputs that form no grid are evaluated densely, with the same values. An
    axis may be several columns of the input, such as sites in the plane times instants.

    Every axis sees its coordinates as inputs of its own, so that a scale inside one axis' kernel counts once, in the
    covariance of the grid and in the covariance with new points alike.

    Args:
        kernels: one kernel per axis, any kernel of GPyTorch or gpkit.
        dims: input columns of each axis; one column each, in order, if None.
        active_dims: input columns that the whole kernel sees.
        solver: for data whose matrix has no exact structured factorisation (many gaps, noise of its own in every cell):
            None factors it densely, ``ConjugateGradients()`` solves to a stated residual, without determinants.

    Raises:
        InvalidDataError: for inputs of another number of columns.
    """

    def __init__(
        self,
        kernels: Sequence[gpytorch.kernels.Kernel],
        dims: Sequence[Sequence[int] | int] | None = None,
        active_dims: Any = None,
        solver: ConjugateGradients | None = None,
    ) -> None:
        if not len(kernels):
            raise InvalidDataError("a grid kernel needs at least one axis")
        batch = torch.broadcast_shapes(*(k.batch_shape for k in kernels))
        super().__init__(batch_shape=batch, active_dims=active_dims)
        self.kernels = torch.nn.ModuleList(kernels)
        groups = range(len(kernels)) if dims is None else dims
        self.dims = tuple((g,) if isinstance(g, int) else tuple(g) for g in groups)
        if len(self.dims) != len(kernels):
            raise InvalidDataError(f"there are {len(kernels)} kernels but dims describe {len(self.dims)} axes")
        self.solver = solver
        self._located: tuple[Any, ...] | None = None

    @property
    def is_stationary(self) -> bool:
        """Whether all axes are."""
        return all(bool(k.is_stationary) for k in self._axes)

    @property
    def _axes(self) -> list[gpytorch.kernels.Kernel]:
        return [k for k in self.kernels if isinstance(k, gpytorch.kernels.Kernel)]

    def __getstate__(self) -> dict[str, Any]:
        # A copy must not recognise inputs by an address that it does not keep alive.
        return {**super().__getstate__(), "_located": None}

    def _with_axes(self, change: Callable[[gpytorch.kernels.Kernel], gpytorch.kernels.Kernel]) -> GridKernel:
        new = copy.deepcopy(self)
        for axis, kernel in enumerate(self._axes):
            new.kernels[axis] = change(kernel)
        new.batch_shape = torch.broadcast_shapes(*(k.batch_shape for k in new._axes))
        return new

    def __getitem__(self, index: Any) -> GridKernel:
        """The kernel of the selected batch elements, with its own copy of the parameters."""
        return self._with_axes(lambda kernel: kernel[index])

    def expand_batch(self, *sizes: Any) -> GridKernel:
        """The kernel with the parameters of every axis expanded to a batch shape."""
        return self._with_axes(lambda kernel: kernel.expand_batch(*sizes))

    # -- the grid -------------------------------------------------------------------------------------------------

    def axes_of(self, x: Tensor) -> tuple[list[Tensor], GridCells]:
        """Coordinates of the axes, (n_j, d_j) sorted, and the cell of each row of inputs (*batch, N, d).

        Raises:
            InvalidDataError: if a batch of inputs has different grids, or the number of columns is wrong.
        """
        width = sum(len(g) for g in self.dims)
        if x.shape[-1] != width:
            raise InvalidDataError(f"the grid kernel has {width} input columns, but the inputs have {x.shape[-1]}")
        key = (x.data_ptr(), x.shape, x.stride(), x._version)
        if self._located is not None and self._located[0] == key:
            return self._located[2], self._located[3]
        rows = x.detach().reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
        if rows.shape[0] > 1 and not bool((rows == rows[:1]).all()):
            raise InvalidDataError("a batch of grids must be the same grid in every element; use separate models")
        rows = rows[0] if rows.shape[0] else rows.reshape(*x.shape[-2:])
        axes, positions = [], []
        for group in self.dims:
            columns = rows[:, list(group)]
            if len(group) == 1:
                values, where = torch.unique(columns[:, 0], return_inverse=True)
                values = values.unsqueeze(-1)
            else:
                values, where = torch.unique(columns, dim=0, return_inverse=True)
            axes.append(values)
            positions.append(where)
        sizes = [a.shape[0] for a in axes]
        flat = torch.zeros(rows.shape[0], dtype=torch.long)
        for size, where in zip(sizes, positions, strict=True):
            flat = flat * size + where
        cells = GridCells(sizes, flat)
        # The inputs are kept with the answer, so that their memory cannot be used for other values meanwhile.
        self._located = (key, x, axes, cells)
        return axes, cells

    def is_grid(self, x: Tensor) -> bool:
        """Whether inputs (*batch, N, d) are a grid, or enough cells of one to be treated as such.

        Inputs that need gradients are not: the coordinates of a cell are shared by many rows.
        """
        if x.requires_grad and torch.is_grad_enabled():
            return False
        if x.dim() > 2 and not bool((x == x[(slice(0, 1),) * (x.dim() - 2)]).all()):
            return False
        cells = self.axes_of(x)[1]
        return cells.count <= _LARGEST_FILL * max(cells.rows, 1)

    def _warn_of_rounding(self, x: Tensor) -> None:
        """Say so where inputs would be a grid if coordinates that differ by rounding only were equal."""
        if x.dim() != 2 or x.requires_grad or x.shape[0] < 2:
            return
        extent = (x.amax(0) - x.amin(0)).clamp_min(torch.finfo(x.dtype).tiny)
        rounded = ((x - x.amin(0)) / extent * 1e9).round()
        located, self._located = self._located, None
        if self.is_grid(rounded):
            warnings.warn(
                "the inputs are a grid but for rounding errors, and are treated as scattered points; make coordinates "
                "of the same row or column exactly equal, by torch.cartesian_prod of the axes or by rounding",
                DataWarning,
                stacklevel=2,
            )
        self._located = located

    def _factor(self, axis: int, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Covariance (*batch, m, n) along one axis between coordinates."""
        operator = self._axes[axis](x1, x1 if x2 is None else x2)
        return operator.to_dense() if isinstance(operator, LinearOperator) else operator

    def _in_batch(self, factors: list[Tensor], x: Tensor) -> list[Tensor]:
        batch = common_batch(*(f.shape[:-2] for f in factors), x.shape[:-2])
        return [f if f.shape[:-2] == batch else f.expand(*batch, *f.shape[-2:]) for f in factors]

    # -- covariances ----------------------------------------------------------------------------------------------

    def gram(self, x: Tensor) -> StructuredLinearOperator:
        """Covariance operator of inputs (*batch, N, d) with themselves."""
        if not self.is_grid(x):
            self._warn_of_rounding(x)
            return DenseCovarianceLinearOperator.from_matrix(self._dense(x, x))
        axes, cells = self.axes_of(x)
        factors = self._in_batch([self._factor(j, a) for j, a in enumerate(axes)], x)
        zero = torch.zeros(*factors[0].shape[:-2], cells.rows, dtype=factors[0].dtype, device=factors[0].device)
        return KroneckerLinearOperator(zero, *factors, cells=cells, solver=self.solver)

    def cross(self, x1: Tensor, x2: Tensor) -> LinearOperator:
        """Covariance operator between inputs (*batch, M, d) and (*batch, N, d)."""
        differentiated = x1.requires_grad and torch.is_grad_enabled()
        if differentiated or not self.is_grid(x2) or x1.shape[:-2].numel() > 1:
            return to_linear_operator(self._dense(x1, x2))
        axes, columns = self.axes_of(x2)
        located = self._located
        points, rows = self.axes_of(x1)
        # The grid of the data is asked for again and again, new points once.
        self._located = located
        factors = [self._factor(j, p, a) for j, (p, a) in enumerate(zip(points, axes, strict=True))]
        return KroneckerCrossLinearOperator(*self._in_batch(factors, x2), rows=rows, columns=columns)

    def pairwise(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Covariance of paired inputs (*batch, N, d), (*batch, N)."""
        parts = [k(x1[..., list(g)], x2[..., list(g)], diag=True) for k, g in zip(self._axes, self.dims, strict=True)]
        out = parts[0]
        for part in parts[1:]:
            out = out * part
        return out

    def _dense(self, x1: Tensor, x2: Tensor) -> Tensor:
        out: Tensor | None = None
        for axis, group in enumerate(self.dims):
            part = self._factor(axis, x1[..., list(group)], x2[..., list(group)])
            out = part if out is None else out * part
        assert out is not None
        return out

    # -- data -----------------------------------------------------------------------------------------------------

    def initialize_from_data(self, x: Tensor, y: Tensor) -> None:
        """Start values of the axes that can read them off data (``SpectralMixtureKernel``), along each axis in turn.

        Args:
            x: (N, d) cells of a grid, in any order.
            y: (N,) values.

        Raises:
            InvalidDataError: if the inputs are not a grid.
        """
        if not self.is_grid(x):
            raise InvalidDataError("start values are read along the axes of a grid, but the inputs are scattered")
        axes, cells = self.axes_of(x)
        table = y.new_full((cells.count,), torch.nan)
        table[cells.flat] = y.detach()
        table = (table - table.nanmean()).reshape(cells.sizes)
        variance = float(table.square().nanmean())
        first = True
        for axis, kernel in enumerate(self._axes):
            if not isinstance(kernel, SpectralMixtureKernel):
                continue
            kernel.initialize_from_data(axes[axis], table.movedim(axis, 0).flatten(1))
            # The axes multiply: one of them holds the variance.
            kernel.weights = kernel.weights.detach() / kernel.weights.detach().sum() * (variance if first else 1.0)
            first = False
