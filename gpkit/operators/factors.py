"""Exact triangular factors of semiseparable matrices as operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.operators.generators import Factors

__all__ = ["CholeskyFactorLinearOperator"]


class CholeskyFactorLinearOperator(LinearOperator):
    """``P L D^(1/2)``, its transpose, or the inverse of either, for ``L D L^T`` from the O(N) factorisation.

    Args:
        blocks: (*batch, N, nb, b, b) transitions.
        gains: (*batch, N, J).
        pivots: (*batch, N), the innovation variances D.
        order: (*batch, N) row of the sorted factor behind each output row (integers).
        kind: "lower", "upper" (transposed), "inverse_transpose" (``P L^-T D^(-1/2)``) or "inverse".
    """

    def __init__(self, blocks: Tensor, gains: Tensor, pivots: Tensor, order: Tensor, *, kind: str = "lower") -> None:
        super().__init__(blocks, gains, pivots, order, kind=kind)
        self.blocks = blocks
        self.gains = gains
        self.pivots = pivots
        self.order = order
        self.kind = kind

    @classmethod
    def from_factors(
        cls, factors: Factors, batch_shape: torch.Size, order: Tensor | None, like: Tensor
    ) -> CholeskyFactorLinearOperator:
        """Wrap a factorisation; ``order`` None means that input and sorted order agree."""

        def stack(arrays: list[Any]) -> Tensor:
            array = np.stack(arrays)
            return torch.from_numpy(array).reshape(*batch_shape, *array.shape[1:]).to(like.dtype)

        n = like.shape[-1]
        index = torch.arange(n).expand(*batch_shape, n) if order is None else order
        return cls(stack(factors.blocks), stack(factors.gains), stack(factors.pivots), index)

    def _size(self) -> torch.Size:
        return torch.Size((*self.pivots.shape, self.pivots.shape[-1]))

    def _with_kind(self, kind: str) -> CholeskyFactorLinearOperator:
        return type(self)(self.blocks, self.gains, self.pivots, self.order, kind=kind)

    def _transpose_nonbatch(self) -> CholeskyFactorLinearOperator:
        swap = {"lower": "upper", "upper": "lower", "inverse": "inverse_transpose", "inverse_transpose": "inverse"}
        return self._with_kind(swap[self.kind])

    def inverse_transpose(self) -> CholeskyFactorLinearOperator:
        """Root of the inverse matrix."""
        return self._with_kind("inverse_transpose")

    def _expand_batch(self, batch_shape: torch.Size) -> CholeskyFactorLinearOperator:
        lead = len(self.batch_shape)
        tensors = [t.expand(*batch_shape, *t.shape[lead:]) for t in self._args]
        return type(self)(*tensors, kind=self.kind)

    def to(self, *args: Any, **kwargs: Any) -> CholeskyFactorLinearOperator:
        """Change dtype or device; the index stays integer."""
        blocks, gains, pivots = (t.to(*args, **kwargs) for t in self._args[:-1])
        return type(self)(blocks, gains, pivots, self.order, kind=self.kind)

    def _gather(self, columns: Tensor, inverse: bool) -> Tensor:
        order = self.order.argsort(-1) if inverse else self.order
        return columns.gather(-2, order.unsqueeze(-1).expand(columns.shape))

    def _matmul(self, rhs: Tensor) -> Tensor:
        from gpkit.recursions import linear

        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        batch = torch.broadcast_shapes(self.batch_shape, columns.shape[:-2])
        if batch != self.batch_shape:
            return self._expand_batch(batch)._matmul(rhs)
        columns = columns.expand(*batch, *columns.shape[-2:])
        scale = self.pivots.sqrt().unsqueeze(-1)
        sweep = {
            "lower": linear.lower_multiply,
            "upper": linear.upper_multiply,
            "inverse": linear.lower_solve,
            "inverse_transpose": linear.upper_solve,
        }[self.kind]
        if self.kind in ("upper", "inverse"):
            columns = self._gather(columns, inverse=True)
        elif self.kind == "lower":
            columns = columns * scale
        else:
            columns = columns / scale
        count = batch.numel()
        flat = columns.detach().reshape(count, *columns.shape[-2:]).numpy().astype(np.float64)
        blocks = self.blocks.reshape(count, *self.blocks.shape[-4:]).numpy().astype(np.float64)
        gains = self.gains.reshape(count, *self.gains.shape[-2:]).numpy().astype(np.float64)
        out = np.stack([sweep(blocks[k], gains[k], np.ascontiguousarray(flat[k])) for k in range(flat.shape[0])])
        result = torch.from_numpy(out).reshape(columns.shape).to(columns.dtype)
        if self.kind == "upper":
            result = result * scale
        elif self.kind == "inverse":
            result = result / scale
        else:
            result = self._gather(result, inverse=False)
        return result.squeeze(-1) if vector else result

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """Exact solve with the factor itself, one sweep."""
        inverse = {
            "lower": "inverse", "upper": "inverse_transpose", "inverse": "lower", "inverse_transpose": "upper"
        }  # fmt: skip
        out = self._with_kind(inverse[self.kind])._matmul(right_tensor)
        return out if left_tensor is None else left_tensor @ out

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        return self.solve(rhs)

    def _cholesky_solve(self, rhs: Tensor, upper: bool = False) -> Tensor:
        """``(L L^T)^-1 rhs`` for a lower factor (``(U^T U)^-1 rhs`` for an upper one)."""
        first, second = (self.mT, self) if upper else (self, self.mT)
        return second.solve(first.solve(rhs))

    def logdet(self) -> Tensor:
        """Logarithm of the absolute determinant."""
        half = 0.5 * self.pivots.log().sum(-1)
        return half if self.kind in ("lower", "upper") else -half

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T F^-1 rhs, log abs det F)`` for the factor F itself."""
        determinant = self.logdet() if logdet else torch.zeros(self.batch_shape, dtype=self.dtype)
        if inv_quad_rhs is None:
            return torch.zeros(0, dtype=self.dtype), determinant
        rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
        quad = (rhs * self.solve(rhs)).sum(-2)
        return (quad.sum(-1) if reduce_inv_quad else quad), determinant

    def _diagonal(self) -> Tensor:
        return torch.diagonal(self.to_dense(), dim1=-2, dim2=-1)

    def to_dense(self) -> Tensor:
        """The factor as a matrix; quadratic memory, for small N and for tests."""
        eye = torch.eye(self.shape[-1], dtype=self.dtype)
        return self._matmul(eye.expand(*self.batch_shape, *eye.shape))

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.to_dense()[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> Any:
        from linear_operator.operators import to_linear_operator

        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])
