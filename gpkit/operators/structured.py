"""What every structured operator of gpkit has in common: exact algebra, absorbed diagonals, no silent fallback."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from linear_operator.operators import (
    DiagLinearOperator,
    LinearOperator,
    ZeroLinearOperator,
)
from torch import Tensor

from gpkit.errors import DataWarning, GpkitError, StructureLostError

__all__ = [
    "StructuredLinearOperator",
    "at_entries",
    "common_batch",
    "in_batch",
    "refuse_gradient",
    "warn_of_borrowed_noise",
]


def common_batch(*shapes: torch.Size) -> torch.Size:
    """Broadcast batch shapes; equal shapes, the common case, skip torch's slow general function."""
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    return torch.broadcast_shapes(*shapes)


def in_batch(params: Tensor, feedback: Tensor | None, index: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """Parameters and generator of the selected batch elements."""
    if not index:
        return params, feedback
    return params[index], None if feedback is None else feedback[index]


def at_entries(
    params: Tensor, feedback: Tensor | None, index: tuple[Any, ...], shape: torch.Size
) -> tuple[Tensor, Tensor | None]:
    """Parameters (*shape, P) and generator (*shape, J, J) that belong to single matrix entries."""
    params, feedback = in_batch(params, feedback, index)
    if not index:
        params = params.expand(*shape, params.shape[-1])
        feedback = None if feedback is None else feedback.expand(*shape, *feedback.shape[-2:])
    return params, feedback


class _Undifferentiable(torch.autograd.Function):
    """Values whose gradient is refused, not silently zero."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, what: str, *tensors: Tensor) -> Tensor:
        ctx.what = what
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise GpkitError(f"{ctx.what} cannot be differentiated with respect to parameters or inputs")


def refuse_gradient(values: Tensor, what: str, tensors: tuple[Tensor, ...]) -> Tensor:
    """Return ``values``; a backward pass through them raises if any of ``tensors`` needs gradients."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _Undifferentiable.apply(values, what, *tensors)
    return values


def warn_of_borrowed_noise(training: Any, added: Any) -> None:
    """Say so where a fixed-noise likelihood adds the training points' own noise to predictions at other points."""
    if isinstance(added, DiagLinearOperator) and torch.is_tensor(training):
        if added._diagonal().data_ptr() == training.data_ptr():
            warnings.warn(
                "the noise of the training points was used for new points, because there are as many; give the "
                "likelihood noise=, the variances of the new observations",
                DataWarning,
                stacklevel=3,
            )


class StructuredLinearOperator(LinearOperator):
    """A square positive (semi)definite operator that answers every question exactly from its structure.

    Subclasses give ``_add_diagonal_values``, ``_add_same`` and the exact solves. A diagonal that is added is absorbed;
    nothing is ever solved by conjugate gradients, Lanczos or stochastic quadrature, and no jitter is added unasked.
    """

    def _add_diagonal_values(self, values: Tensor) -> LinearOperator:
        """The operator plus ``diag(values)``, values broadcastable to (*batch, N)."""
        raise NotImplementedError

    def _add_same(self, other: LinearOperator) -> LinearOperator | None:
        """Sum with an operator of the same family, or None where the structure does not close."""
        return None

    def __add__(self, other: Any) -> Any:
        if isinstance(other, ZeroLinearOperator):
            return self
        if isinstance(other, DiagLinearOperator):
            return self._add_diagonal_values(other._diagonal())
        if isinstance(other, StructuredLinearOperator):
            total = self._add_same(other)
            if total is not None:
                return total
        return super().__add__(other)

    def add_diagonal(self, diag: Tensor) -> LinearOperator:
        """Add a scalar, a (*batch, 1) constant or a (*batch, N) diagonal; the structure is kept."""
        if diag.dim() and diag.shape[-1] not in (1, self.shape[-1]):
            raise RuntimeError(
                f"add_diagonal expects a diagonal of {self.shape[-1]} entries (or 1), got shape {tuple(diag.shape)}"
            )
        return self._add_diagonal_values(diag if diag.dim() else diag[None])

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``[left] K^-1 right``, exact: (N,) or (*batch, N, R) through the subclass's ``_solve``."""
        vector = right_tensor.dim() == 1
        out: Tensor = self._solve(right_tensor.unsqueeze(-1) if vector else right_tensor)
        if left_tensor is not None:
            out = left_tensor @ out
        return out.squeeze(-1) if vector else out

    def inv_quad(self, inv_quad_rhs: Tensor, reduce_inv_quad: bool = True) -> Tensor:
        """``rhs^T K^-1 rhs``; the base class would ask for a dense Cholesky factor or conjugate gradients."""
        quad: Tensor = self.inv_quad_logdet(inv_quad_rhs, logdet=False, reduce_inv_quad=reduce_inv_quad)[0]
        return quad

    def _preconditioner(self) -> tuple[None, None, None]:
        return None, None, None

    def _lose_structure(self, operation: str, remedy: str) -> StructureLostError:
        return StructureLostError(f"{operation} has no structured form for {type(self).__name__}; {remedy}")
