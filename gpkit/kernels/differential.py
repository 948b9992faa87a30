"""Linear differential operators and the covariances that they make of a kernel.

If u is a process with kernel k, ``L u`` is one with covariance ``L_x M_x' k(x, x')`` with ``M u``. For products of
stationary kernels over axes every such covariance is a sum of products of one-dimensional derivatives in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gpytorch
import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.grid import GridKernel
from gpkit.kernels.stationary_derivatives import highest_order, kernel_derivatives
from gpkit.operators.kronecker_cross import KroneckerCrossLinearOperator

__all__ = ["DifferentialOperator", "derivative_covariance", "derivative_variance"]

Coefficient = float | Callable[[Tensor], Tensor]
Order = tuple[int, ...]


class DifferentialOperator:
    """``sum_a c_a(x) d^a`` with multi-indices a; coefficients are numbers or functions of the points.

    Operators are added, subtracted and multiplied by numbers; constant ones can be composed with ``@``::

        heat = DifferentialOperator.partial(0, dims=2) - 0.1 * DifferentialOperator.partial(1, order=2, dims=2)

    Args:
        terms: coefficient of each multi-index (orders per axis); a function takes points (N, d) and returns (N,).

    Raises:
        InvalidDataError: for no terms, or multi-indices of different lengths or with negative orders.
    """

    def __init__(self, terms: Mapping[Order, Coefficient]) -> None:
        if not terms:
            raise InvalidDataError("a differential operator needs at least one term")
        widths = {len(order) for order in terms}
        if len(widths) > 1 or min(min(order, default=0) for order in terms) < 0:
            raise InvalidDataError(f"multi-indices must have one length and no negative order, got {sorted(terms)}")
        self.terms: dict[Order, Coefficient] = dict(terms)

    @property
    def dims(self) -> int:
        """Number of axes d."""
        return len(next(iter(self.terms)))

    @property
    def order(self) -> Order:
        """Highest order along each axis."""
        return tuple(max(a) for a in zip(*self.terms, strict=True))

    @property
    def constant(self) -> bool:
        """Whether all coefficients are numbers."""
        return not any(callable(c) for c in self.terms.values())

    @classmethod
    def identity(cls, dims: int = 1) -> DifferentialOperator:
        """``u -> u``."""
        return cls({(0,) * dims: 1.0})

    @classmethod
    def partial(cls, axis: int = 0, order: int = 1, dims: int = 1) -> DifferentialOperator:
        """``d^order / d x_axis^order``."""
        return cls({tuple(order if k == axis else 0 for k in range(dims)): 1.0})

    @classmethod
    def laplacian(cls, dims: int = 1) -> DifferentialOperator:
        """Sum of the second derivatives."""
        return cls({tuple(2 if k == axis else 0 for k in range(dims)): 1.0 for axis in range(dims)})

    def __add__(self, other: DifferentialOperator) -> DifferentialOperator:
        terms = dict(self.terms)
        for order, coefficient in other.terms.items():
            terms[order] = _add(terms[order], coefficient) if order in terms else coefficient
        return DifferentialOperator(terms)

    def __mul__(self, factor: Coefficient) -> DifferentialOperator:
        return DifferentialOperator({order: _multiply(c, factor) for order, c in self.terms.items()})

    __rmul__ = __mul__

    def __neg__(self) -> DifferentialOperator:
        return self * -1.0

    def __sub__(self, other: DifferentialOperator) -> DifferentialOperator:
        return self + (-other)

    def __matmul__(self, other: DifferentialOperator) -> DifferentialOperator:
        if not other.constant:
            raise InvalidDataError("only operators with constant coefficients can be applied to the result of another")
        total: DifferentialOperator | None = None
        for a, c in self.terms.items():
            for b, e in other.terms.items():
                index = tuple(i + j for i, j in zip(a, b, strict=True))
                part = DifferentialOperator({index: _multiply(c, e)})
                total = part if total is None else total + part
        assert total is not None
        return total

    def __repr__(self) -> str:
        def name(c: Coefficient) -> str:
            return getattr(c, "__name__", "c(x)") if callable(c) else f"{c:g}"

        return "DifferentialOperator(" + " + ".join(f"{name(c)} d^{a}" for a, c in self.terms.items()) + ")"


def _add(a: Coefficient, b: Coefficient) -> Coefficient:
    if callable(a) or callable(b):
        return lambda x: _values(a, x) + _values(b, x)
    return a + b


def _multiply(a: Coefficient, b: Coefficient) -> Coefficient:
    if callable(a) or callable(b):
        return lambda x: _values(a, x) * _values(b, x)
    return a * b


def _values(coefficient: Coefficient, x: Tensor) -> Tensor:
    if callable(coefficient):
        values = torch.as_tensor(coefficient(x), dtype=x.dtype)
        if values.dim() and values.shape != x.shape[:-1]:
            raise InvalidDataError(f"a coefficient returned shape {tuple(values.shape)} for {x.shape[-2]} points")
        return values.expand(x.shape[:-1])
    return x.new_full(x.shape[:-1], coefficient)


def _axes(kernel: Any, dims: int) -> tuple[Tensor | None, list[Any]]:
    """Variance factor, and one stationary kernel per axis, of scaled grid kernels and kernels of one input."""
    if isinstance(kernel, gpytorch.kernels.ScaleKernel) and not _one_dimensional(kernel, dims):
        scale, parts = _axes(kernel.base_kernel, dims)
        return (kernel.outputscale if scale is None else scale * kernel.outputscale), parts
    if isinstance(kernel, GridKernel):
        parts = list(kernel.kernels)
        if len(parts) != dims or any(len(group) != 1 for group in kernel.dims):
            raise InvalidDataError(f"the operator has {dims} axes, but the grid kernel has {len(parts)} of its own")
        return None, parts
    if _one_dimensional(kernel, dims):
        return None, [kernel]
    raise InvalidDataError(
        f"{type(kernel).__name__} has no derivatives in {dims} dimensions; use a GridKernel with a kernel for each axis"
    )


def _one_dimensional(kernel: Any, dims: int) -> bool:
    return (
        dims == 1
        and not isinstance(kernel, GridKernel)
        and not isinstance(getattr(kernel, "base_kernel", None), GridKernel)
    )


def _check(kernels: list[Any], left: Order, right: Order) -> None:
    for axis, (kernel, a, b) in enumerate(zip(kernels, left, right, strict=True)):
        highest = highest_order(kernel)
        if highest is not None and a + b > highest:
            raise InvalidDataError(
                f"the covariance needs the derivative of order {a + b} along axis {axis}, but that of "
                f"{type(kernel).__name__} exists to order {highest}; choose a smoother kernel"
            )


def derivative_covariance(
    kernel: Any, left: DifferentialOperator, x1: Tensor, right: DifferentialOperator, x2: Tensor
) -> LinearOperator:
    """Covariance of ``L u`` at x1 with ``M u`` at x2.

    Args:
        kernel: a stationary kernel of one input, or a :class:`GridKernel` of such, either of them scaled, added or
            multiplied within an axis.
        left: L.
        x1: (M, d) points.
        right: M.
        x2: (N, d) points.

    Returns:
        (*batch, M, N). For a grid kernel, constant coefficients and x2 on a grid it is a
        :class:`~gpkit.operators.KroneckerCrossLinearOperator`, else it is dense.

    Raises:
        InvalidDataError: if a derivative does not exist, or dimensions do not fit.
    """
    dims = left.dims
    if right.dims != dims or x1.shape[-1] != dims or x2.shape[-1] != dims:
        raise InvalidDataError(
            f"the operators have {left.dims} and {right.dims} axes, the points {x1.shape[-1]} and {x2.shape[-1]}"
        )
    scale, kernels = _axes(kernel, dims)
    _check(kernels, left.order, right.order)
    top = [a + b for a, b in zip(left.order, right.order, strict=True)]
    grid = GridKernel([gpytorch.kernels.RBFKernel()] * dims)
    structured = left.constant and right.constant and dims > 1 and not x1.requires_grad and grid.is_grid(x2)
    if structured:
        points, rows = grid.axes_of(x1)
        axes, columns = grid.axes_of(x2)
        lags = [(p - a.mT) for p, a in zip(points, axes, strict=True)]
    else:
        lags = [x1[:, k : k + 1] - x2[:, k] for k in range(dims)]
    tables = [kernel_derivatives(k, lag, n) for k, lag, n in zip(kernels, lags, top, strict=True)]
    factors: list[Tensor] = []
    dense: Tensor | None = None
    for a, c in left.terms.items():
        for b, e in right.terms.items():
            parts = [(-1.0) ** j * table[i + j] for i, j, table in zip(a, b, tables, strict=True)]
            if structured:
                factors += [parts[0] * (c * e), *parts[1:]]  # type: ignore[operator]  # the first part is a tensor
                continue
            product = parts[0]
            for part in parts[1:]:
                product = product * part
            product = _values(c, x1).unsqueeze(-1) * product * _values(e, x2)
            dense = product if dense is None else dense + product
    operator: LinearOperator
    if structured:
        batch = torch.broadcast_shapes(*(f.shape[:-2] for f in factors))
        factors = [f.expand(*batch, *f.shape[-2:]) for f in factors]
        operator = KroneckerCrossLinearOperator(*factors, rows=rows, columns=columns)
    else:
        assert dense is not None
        operator = to_linear_operator(dense)
    return operator if scale is None else operator * (scale[..., None, None] if scale.dim() else scale)


def derivative_variance(kernel: Any, operator: DifferentialOperator, x: Tensor) -> Tensor:
    """Prior variance (*batch, N) of ``L u`` at points (N, d).

    Raises:
        InvalidDataError: if a derivative does not exist, or dimensions do not fit.
    """
    scale, kernels = _axes(kernel, operator.dims)
    _check(kernels, operator.order, operator.order)
    zero = torch.zeros(1, dtype=x.dtype)
    tables = [kernel_derivatives(k, zero, 2 * n)[..., 0] for k, n in zip(kernels, operator.order, strict=True)]
    total: Tensor | None = None
    for a, c in operator.terms.items():
        for b, e in operator.terms.items():
            value = torch.ones((), dtype=x.dtype)
            for i, j, table in zip(a, b, tables, strict=True):
                value = value * (-1.0) ** j * table[i + j]
            part = value.unsqueeze(-1) * _values(c, x) * _values(e, x)
            total = part if total is None else total + part
    assert total is not None
    return total if scale is None else total * scale.unsqueeze(-1)
