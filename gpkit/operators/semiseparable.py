"""The covariance of a state-space process at arbitrary times, plus a diagonal: exact linear algebra in O(N).

``K_ij = k(|t_i - t_j|)`` for a sum of products of Markovian kernels is a semiseparable matrix: every operation below
is a sweep of a small state along the sorted times. The operator sorts internally, so times may come in any order and
may repeat; products, solves, determinants, factors and samples come back in the order of the input.
"""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators import generators as sweeps
from gpkit.operators.covariances import (
    GIVEN,
    Structure,
    autocovariance,
    scale_variances,
    split_parameters,
    stationary_variance,
)
from gpkit.operators.factors import CholeskyFactorLinearOperator
from gpkit.operators.generators import Factors, Generators
from gpkit.operators.structured import StructuredLinearOperator, at_entries, common_batch, in_batch, refuse_gradient

__all__ = ["SemiseparableLinearOperator"]


def _same_index(row: Any, column: Any) -> bool:
    """Whether rows and columns select the same points, each once: a covariance matrix again."""
    if torch.is_tensor(row) and torch.is_tensor(column):
        return bool(torch.equal(row, column)) and row.unique().numel() == row.numel()
    return isinstance(row, slice) and isinstance(column, slice) and row == column


class SemiseparableLinearOperator(StructuredLinearOperator):
    """``K(t, t) + diag(diagonal)`` for a state-space kernel.

    Args:
        times: (*batch, N), any order.
        params: (*batch, P), parameters of the structure (see :mod:`gpkit.recursions.structure`).
        diagonal: (*batch, N), absorbed diagonal (noise); ``inf`` marks a row without information.
        feedback: (*batch, J, J), the generator F of a state space, for ``structure=GIVEN`` only; ``params`` then
            holds p (J) and P_inf (J * J).
        structure: sum of products of factor names, or GIVEN.

    References:
        Foreman-Mackey et al. (2017), AJ 154, 220 (the O(N) factorisation); Sarkka & Solin (2019), Applied Stochastic
        Differential Equations (state-space form); docs, "The semiseparable operator".
    """

    def __init__(
        self,
        times: Tensor,
        params: Tensor,
        diagonal: Tensor,
        feedback: Tensor | None = None,
        *,
        structure: Structure,
    ) -> None:
        tensors = (times, params, diagonal) if feedback is None else (times, params, diagonal, feedback)
        super().__init__(*tensors, structure=structure)
        self.times = times
        self.params = params
        self.diagonal_values = diagonal
        self.feedback = feedback
        self.structure = structure
        self.has_diagonal = True
        """False where the diagonal is known to be zero, so that one that is added can take its place."""
        self._sorting: tuple[Tensor | None, Tensor | None] | None = None
        self._factor_cache: Factors | None = None

    # -- shape, entries -------------------------------------------------------------------------------------------

    def _size(self) -> torch.Size:
        return torch.Size((*self.times.shape, self.times.shape[-1]))

    def _transpose_nonbatch(self) -> SemiseparableLinearOperator:
        return self

    def _rebuild(self, times: Tensor, params: Tensor, diagonal: Tensor) -> SemiseparableLinearOperator:
        return type(self)(times, params, diagonal, self.feedback, structure=self.structure)

    def _variance(self) -> Tensor:
        """k(0), shape (*batch,)."""
        return stationary_variance(self.structure, self.params)

    def _diagonal(self) -> Tensor:
        return self._variance().unsqueeze(-1) + self.diagonal_values

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        t_row = self.times[(*batch_indices, row_index)]
        t_col = self.times[(*batch_indices, col_index)]
        params, feedback = at_entries(self.params, self.feedback, batch_indices, t_row.shape)
        noise = self.diagonal_values[(*batch_indices, row_index)]
        return autocovariance(self.structure, params, (t_row - t_col).abs(), feedback) + torch.where(
            row_index == col_index, noise, torch.zeros_like(noise)
        )

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, N, N): quadratic memory, for small N and for tests."""
        lag = (self.times.unsqueeze(-1) - self.times.unsqueeze(-2)).abs()
        covariance = autocovariance(self.structure, self.params, lag, self.feedback)
        return covariance + torch.diag_embed(self.diagonal_values)

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        from gpkit.operators.cross import CrossSemiseparableLinearOperator

        if any(torch.is_tensor(index) for index in batch_indices):
            return super()._getitem(row_index, col_index, *batch_indices)
        params, feedback = in_batch(self.params, self.feedback, batch_indices)
        t_row = self.times[(*batch_indices, row_index)]
        if _same_index(row_index, col_index):
            noise = self.diagonal_values[(*batch_indices, row_index)]
            return type(self)(t_row, params, noise, feedback, structure=self.structure)
        t_col = self.times[(*batch_indices, col_index)]
        cross = CrossSemiseparableLinearOperator(t_row, t_col, params, feedback, structure=self.structure)
        rows = torch.arange(self.shape[-1], device=self.device)
        overlap = rows[row_index].unsqueeze(-1) == rows[col_index]
        if not overlap.any():
            return cross
        noise = self.diagonal_values[(*batch_indices, row_index)].unsqueeze(-1)
        return to_linear_operator(cross.to_dense() + torch.where(overlap, noise, torch.zeros_like(noise)))

    def _expand_batch(self, batch_shape: torch.Size) -> SemiseparableLinearOperator:
        tensors = [t.expand(*batch_shape, *t.shape[len(self.batch_shape) :]) for t in self._args]
        return type(self)(*tensors, structure=self.structure)

    def repeat(self, *sizes: Any) -> LinearOperator:
        """Repeat along batch dimensions (the last two sizes must be 1)."""
        flat = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
        if tuple(flat[-2:]) != (1, 1):
            raise RuntimeError("repeat along the matrix dimensions would not be a covariance matrix")
        padded = (*(1 for _ in range(len(flat) - self.dim())), *self.batch_shape)
        if all(p == 1 for p in padded):
            return self._expand_batch(torch.Size(flat[:-2]))
        tensors = [t.repeat(*flat[:-2], *(1 for _ in t.shape[len(self.batch_shape) :])) for t in self._args]
        return type(self)(*tensors, structure=self.structure)

    # -- sorting --------------------------------------------------------------------------------------------------

    def _order(self) -> tuple[Tensor | None, Tensor | None]:
        """Permutation that sorts the times and its inverse, (*batch, N); None where they are sorted."""
        if self._sorting is None:
            times = self.times.detach()
            if self.shape[-1] < 2 or bool((times[..., 1:] >= times[..., :-1]).all()):
                self._sorting = (None, None)
            else:
                order = torch.argsort(times, dim=-1, stable=True)
                self._sorting = (order, torch.argsort(order, dim=-1))
        return self._sorting

    def _sorted(self) -> Generators:
        order, _ = self._order()
        times, diagonal = self.times, self.diagonal_values
        if order is not None:
            times, diagonal = times.gather(-1, order), diagonal.gather(-1, order)
        transitions = None
        if self.feedback is not None:
            steps = torch.nn.functional.pad(times.diff(dim=-1), (0, min(1, times.shape[-1])))
            transitions = torch.matrix_exp(self.feedback.unsqueeze(-3) * steps[..., None, None])
        return Generators(times, self.params, diagonal, transitions, self.structure)

    def _permute(self, rhs: Tensor, order: Tensor | None) -> Tensor:
        """Reorder the rows of (*b, N, C)."""
        if order is None:
            return rhs
        batch = common_batch(order.shape[:-1], rhs.shape[:-2])
        index = order.unsqueeze(-1).expand(*batch, *rhs.shape[-2:])
        return rhs.expand(*batch, *rhs.shape[-2:]).gather(-2, index)

    # -- algebra --------------------------------------------------------------------------------------------------

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        order, inverse = self._order()
        out = self._permute(sweeps.multiply(self._sorted(), self._permute(columns, order)), inverse)
        return out.squeeze(-1) if vector else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def _bilinear_derivative(self, left_vecs: Tensor, right_vecs: Tensor) -> tuple[Tensor | None, ...]:
        left, right = (v.unsqueeze(-1) if v.dim() == 1 else v for v in (left_vecs, right_vecs))
        with torch.enable_grad():
            args = [t.detach().requires_grad_(t.requires_grad) for t in self._args]
            if not any(a.requires_grad for a in args):
                return (None,) * len(args)
            value = (left * type(self)(*args, structure=self.structure)._matmul(right)).sum()
            found = iter(torch.autograd.grad(value, [a for a in args if a.requires_grad], allow_unused=True))
        return tuple(next(found) if a.requires_grad else None for a in args)

    def _add_diagonal_values(self, values: Tensor) -> SemiseparableLinearOperator:
        batch = common_batch(self.batch_shape, values.shape[:-1])
        base = self if batch == self.batch_shape else self._expand_batch(batch)
        shape = self.times.shape if base is self else (*batch, self.shape[-1])
        added = values if values.shape == shape else values.expand(shape)
        return base._rebuild(base.times, base.params, base.diagonal_values + added if base.has_diagonal else added)

    def _add_same(self, other: LinearOperator) -> LinearOperator | None:
        pair = self._aligned(other)
        if pair is None:
            return None
        a, b = pair
        params = torch.cat([a.params, b.params], dim=-1)
        diagonal = a.diagonal_values + b.diagonal_values
        return type(self)(a.times, params, diagonal, structure=a.structure + b.structure)

    def _aligned(self, other: Any) -> tuple[SemiseparableLinearOperator, SemiseparableLinearOperator] | None:
        """Both operators with one batch shape, if they are closed forms at the same times."""
        if not isinstance(other, SemiseparableLinearOperator) or GIVEN in (self.structure, other.structure):
            return None
        if self.shape[-1] != other.shape[-1]:
            return None
        batch = common_batch(self.batch_shape, other.batch_shape)
        a = self if self.batch_shape == batch else self._expand_batch(batch)
        b = other if other.batch_shape == batch else other._expand_batch(batch)
        same = a.times is b.times or a.times.data_ptr() == b.times.data_ptr() or torch.equal(a.times, b.times)
        return (a, b) if same else None

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = common_batch(self.batch_shape, factor.shape)
        base = self if batch == self.batch_shape else self._expand_batch(batch)
        factor = factor.expand(batch)
        params = scale_variances(self.structure, base.params, factor)
        return base._rebuild(base.times, params, base.diagonal_values * factor.unsqueeze(-1))

    def _mul_matrix(self, other: Any) -> LinearOperator:
        pair = self._aligned(other)
        if pair is None:
            return super()._mul_matrix(other)
        a, b = pair
        structure: list[tuple[str, ...]] = []
        pieces: list[Tensor] = []
        for (va, fa), term_a in zip(split_parameters(a.structure, a.params), a.structure, strict=True):
            for (vb, fb), term_b in zip(split_parameters(b.structure, b.params), b.structure, strict=True):
                structure.append(term_a + term_b)
                pieces.append(va * vb)
                pieces += [value for _, arguments in (*fa, *fb) for value in arguments]
        zero_a, zero_b = (op._variance().unsqueeze(-1) for op in (a, b))
        diagonal = (zero_a + a.diagonal_values) * (zero_b + b.diagonal_values) - zero_a * zero_b
        return type(self)(a.times, torch.stack(pieces, dim=-1), diagonal, structure=tuple(structure))

    # -- solves, determinants, factors, samples -------------------------------------------------------------------

    def _factors(self, semidefinite: bool = False) -> Factors:
        if semidefinite:
            return sweeps.factorise(self._sorted(), semidefinite=True)
        if self._factor_cache is None:
            self._factor_cache = sweeps.factorise(self._sorted())
        return self._factor_cache

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        order, inverse = self._order()
        return self._permute(sweeps.solve(self._sorted(), self._permute(rhs, order), self._factors()), inverse)

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T (K + D)^-1 rhs, log det (K + D))``, exact; one compiled sweep each way.

        Rows of a single right-hand side that are NaN count as missing.
        """
        order, _ = self._order()
        sorted_self = self._sorted()
        if inv_quad_rhs is not None and inv_quad_rhs.dim() == 1 and logdet and (order is None or order.dim() == 1):
            # What training asks for at every step: one vector, with nothing around the one node of the graph.
            vector = inv_quad_rhs if order is None else inv_quad_rhs.gather(-1, order)
            quad, determinant = sweeps.inv_quad_logdet(sorted_self, vector)
            return (quad if reduce_inv_quad else quad.unsqueeze(-1)), determinant
        empty = torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)
        if inv_quad_rhs is None:
            values = torch.zeros_like(sorted_self.times)
            return torch.zeros(0, dtype=self.dtype), sweeps.inv_quad_logdet(sorted_self, values)[1] if logdet else empty
        rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
        rhs = self._permute(rhs, order)
        columns = rhs.movedim(-1, 0)
        quads = []
        value = empty
        for index in range(columns.shape[0]):
            quad, determinant = sweeps.inv_quad_logdet(sorted_self, columns[index])
            quads.append(quad)
            if index == 0 and logdet:
                value = determinant
        if logdet and not quads:
            value = sweeps.inv_quad_logdet(sorted_self, torch.zeros_like(sorted_self.times))[1]
        stacked = torch.stack(quads, dim=-1) if quads else rhs.new_zeros(*self.batch_shape, 0)
        if not reduce_inv_quad:
            return stacked, value
        return (stacked.squeeze(-1) if stacked.shape[-1] == 1 else stacked.sum(-1)), value

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        return self.inv_quad_logdet(logdet=True)[1]

    def _cholesky(self, upper: bool = False) -> Any:
        if self._order()[0] is not None:
            raise self._lose_structure(
                "the triangular factor at unsorted times", "sort the times, or use root_decomposition"
            )
        root = self._root()
        return root._transpose_nonbatch() if upper else root

    def cholesky(self, upper: bool = False) -> Any:
        """Exact triangular factor L with ``L L^T = K + D`` as an operator; the times must be sorted."""
        return self._cholesky(upper=upper)

    def diagonalization(self, method: str | None = None) -> Any:
        """Eigenvalues and eigenvectors by the dense solver: no structure survives, and nothing is approximated."""
        return super().diagonalization(method="symeig")

    def _root(self, semidefinite: bool = False) -> CholeskyFactorLinearOperator:
        order, inverse = self._order()
        factors = self._factors(semidefinite)
        return CholeskyFactorLinearOperator.from_factors(factors, self.batch_shape, inverse, self.times)

    def root_decomposition(self, method: str | None = None) -> Any:
        """Exact root (the Cholesky factor, in input order)."""
        from linear_operator.operators import RootLinearOperator

        return RootLinearOperator(self._root())

    def root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None, method: Any = None) -> Any:
        """Exact root of the inverse."""
        from linear_operator.operators import RootLinearOperator

        return RootLinearOperator(self._root().inverse_transpose())

    def _root_decomposition(self) -> Any:
        return self._root()

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        return self._root().inverse_transpose()

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, N) in O(N) each; zero noise and repeated times are allowed."""
        noise = torch.randn(*self.batch_shape, self.shape[-1], num_samples, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            draws = self._root(semidefinite=True)._matmul(noise).movedim(-1, 0)
        return refuse_gradient(draws, "draws from a semiseparable covariance", self._args)

    def without_diagonal(self) -> SemiseparableLinearOperator:
        """The same covariance with no absorbed diagonal."""
        return self._rebuild(self.times, self.params, torch.zeros_like(self.diagonal_values))

    def to(self, *args: Any, **kwargs: Any) -> SemiseparableLinearOperator:
        """Change dtype; the recursions run on the CPU in float64 and convert at their edge."""
        return type(self)(*(t.to(*args, **kwargs) for t in self._args), structure=self.structure)
