"""Gradients of quadratic forms in grid values, and of what they say of derivatives, by the axes' covariances.

Values are folded (see :func:`gpkit.inference.collocation.gphm.axes.fold`) along the axes of the grid; further axes at
their end are a batch, over which gradients are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.gphm.axes import AxisColumns

__all__ = ["along_axes", "chain", "pull_determinant", "pull_jet", "pull_quadratic"]


def along_axes(turn: Callable[[Tensor, int], Tensor], x: Tensor, dim: int | None = None) -> Tensor:
    """Something done along the first axes of a tensor, or all of them."""
    for axis in range(x.dim() if dim is None else dim):
        x = turn(x, axis)
    return x


def chain(jet: Jet, values: Tensor, once: list[Tensor], axes: Sequence[AxisColumns]) -> Iterator[tuple[Tensor, int]]:
    """What the matrix of each axis that a jet differentiates along is applied to, and the axis, in turn."""
    given: Tensor | None = None
    for j, order in enumerate(jet.orders):
        if order:
            solved = once[j] if given is None else axes[j].solve(given, j)
            yield solved, j
            if any(jet.orders[j + 1 :]):
                given = axes[j].apply(order, solved, j)


def pull_quadratic(values: Tensor, once: list[Tensor], slope: Tensor, axes: Sequence[AxisColumns]) -> float:
    """Half the prior's quadratic form of folded values; its gradients are added to the slope and to the axes.

    Args:
        values: (N_1, ..., N_d, *batch).
        once: ``C_j^-1`` applied to them along each axis j.
        slope: Gradient with respect to the values.
        axes: Covariances.
    """
    solved = once[0]
    for j, a in enumerate(axes[1:], start=1):
        solved = a.solve(solved, j)
    slope += solved
    for j, a in enumerate(axes):
        # d/dC of the quadratic form is -(C^-1 U)(C^-1 U (x) C'^-1 ...)^T.
        a.add_gradient(0, solved, once[j], j, -0.5)
    return 0.5 * float((solved * values).sum())


def pull_determinant(axes: Sequence[AxisColumns], cells: int) -> float:
    """Half the log determinant of the covariance of a grid of so many values; its gradient is added to the axes."""
    total = 0.0
    for a in axes:
        share = cells / len(a)
        total += share * a.half_log_det
        a.add_inverse_gradient(0.5 * share)
    return total


def pull_jet(
    jet: Jet, gradient: Tensor, values: Tensor, once: list[Tensor], slope: Tensor, axes: Sequence[AxisColumns]
) -> None:
    """Gradient of a jet to the folded values and to the matrices of the axes that it differentiates along."""
    # Inputs of each axis' K C^-1, from the values upwards, then adjoints downwards.
    for solved, j in reversed(list(chain(jet, values, once, axes))):
        a, order = axes[j], jet.orders[j]
        a.add_gradient(order, gradient, solved, j)
        back = a.solve(a.apply(order, gradient, j, transposed=True), j)
        a.add_gradient(0, back, solved, j, -1.0)
        gradient = back
    slope += gradient
