"""Rectangular covariance of a state-space process between two sets of times: products in O(N + M)."""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import LinearOperator, ZeroLinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators.covariances import GIVEN, Structure, autocovariance, scale_variances
from gpkit.operators.structured import at_entries, common_batch, in_batch

__all__ = ["CrossSemiseparableLinearOperator"]


class CrossSemiseparableLinearOperator(LinearOperator):
    """``K(rows, columns)`` for a state-space kernel.

    Args:
        rows: (*batch, M) times, any order.
        columns: (*batch, N) times, any order.
        params: (*batch, P).
        feedback: (*batch, J, J) for ``structure=GIVEN``, else None.
        structure: sum of products of factor names, or GIVEN.
    """

    def __init__(
        self, rows: Tensor, columns: Tensor, params: Tensor, feedback: Tensor | None = None, *, structure: Structure
    ) -> None:
        tensors = (rows, columns, params) if feedback is None else (rows, columns, params, feedback)
        super().__init__(*tensors, structure=structure)
        self.feedback = feedback
        self.rows = rows
        self.columns = columns
        self.params = params
        self.structure = structure

    def _size(self) -> torch.Size:
        return torch.Size((*self.rows.shape, self.columns.shape[-1]))

    def _transpose_nonbatch(self) -> CrossSemiseparableLinearOperator:
        return type(self)(self.columns, self.rows, self.params, self.feedback, structure=self.structure)

    def _expand_batch(self, batch_shape: torch.Size) -> CrossSemiseparableLinearOperator:
        lead = len(self.batch_shape)
        tensors = [t.expand(*batch_shape, *t.shape[lead:]) for t in self._args]
        return type(self)(*tensors, structure=self.structure)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, M, N)."""
        lag = (self.rows.unsqueeze(-1) - self.columns.unsqueeze(-2)).abs()
        return autocovariance(self.structure, self.params, lag, self.feedback)

    def _matmul(self, rhs: Tensor) -> Tensor:
        from gpkit.operators.semiseparable import SemiseparableLinearOperator

        vector = rhs.dim() == 1
        block = rhs.unsqueeze(-1) if vector else rhs
        batch = common_batch(self.batch_shape, block.shape[:-2])
        m, n = self.shape[-2:]
        times = torch.cat([self.rows, self.columns], dim=-1)
        zeros = torch.zeros_like(times)
        joint = SemiseparableLinearOperator(times, self.params, zeros, self.feedback, structure=self.structure)
        padded = torch.cat(
            [block.new_zeros(*batch, m, block.shape[-1]), block.expand(*batch, n, block.shape[-1])], dim=-2
        )
        out = joint._matmul(padded)[..., :m, :]
        return out.squeeze(-1) if vector else out

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        rows = self.rows[(*batch_indices, row_index)]
        columns = self.columns[(*batch_indices, col_index)]
        params, feedback = at_entries(self.params, self.feedback, batch_indices, rows.shape)
        return autocovariance(self.structure, params, (rows - columns).abs(), feedback)

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if any(torch.is_tensor(index) for index in batch_indices):
            return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])
        params, feedback = in_batch(self.params, self.feedback, batch_indices)
        rows, columns = self.rows[(*batch_indices, row_index)], self.columns[(*batch_indices, col_index)]
        return type(self)(rows, columns, params, feedback, structure=self.structure)

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = common_batch(self.batch_shape, factor.shape)
        base = self if batch == self.batch_shape else self._expand_batch(batch)
        params = scale_variances(self.structure, base.params, factor.expand(batch))
        return type(self)(base.rows, base.columns, params, base.feedback, structure=self.structure)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, ZeroLinearOperator):
            return self
        closed = isinstance(other, CrossSemiseparableLinearOperator) and GIVEN not in (self.structure, other.structure)
        if closed and self.shape[-2:] == other.shape[-2:]:
            batch = common_batch(self.batch_shape, other.batch_shape)
            a = self if self.batch_shape == batch else self._expand_batch(batch)
            b = other if other.batch_shape == batch else other._expand_batch(batch)
            if torch.equal(a.rows, b.rows) and torch.equal(a.columns, b.columns):
                params = torch.cat([a.params, b.params], dim=-1)
                return type(self)(a.rows, a.columns, params, structure=a.structure + b.structure)
        return super().__add__(other)
