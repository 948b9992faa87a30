"""Kernels of graphs by sparse features of random walks: a named approximation, with products in O(walks) per node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.operators.conjugate_gradients import ConjugateGradients
from gpkit.operators.conjugate_gradients import conjugate_gradients as iterate
from gpkit.operators.structured import StructuredLinearOperator, refuse_gradient

__all__ = ["IterativeSolution", "RandomFeatureLinearOperator", "WalkFeatures", "conjugate_gradients"]

Array = NDArray[np.float64]
_CHUNK = 50_000
_SPREAD_STEPS = 4


def _lattice(dimensions: int) -> Array:
    """Generators of a Kronecker lattice: powers of the inverse root of ``x^(d+1) = x + 1``."""
    root = 2.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    return np.asarray((1.0 / root) ** np.arange(1, dimensions + 1) % 1.0, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class WalkFeatures:
    """Sparse features of random walks from some nodes of a graph of n nodes.

    Attributes:
        pointers, nodes, lengths, loads: deposits of each row; no lengths where the modulation is built in.
        size: number n of nodes.
        longest: length at which walks are cut.
        cut: share of the walks that were.
    """

    pointers: NDArray[np.int64]
    nodes: NDArray[np.int32]
    lengths: NDArray[np.int16]
    loads: Array
    size: int
    longest: int
    cut: float = 0.0

    @classmethod
    def of(
        cls,
        matrix: Any,
        walks: int = 100,
        *,
        stop: float = 0.1,
        longest: int = 64,
        quasi: bool = True,
        modulation: Array | None = None,
        seed: int = 0,
    ) -> WalkFeatures:
        """Walk from every node.

        Args:
            matrix: U (n, n), scipy csr: edge weights of the series ``sum_r alpha_r U^r``.
            walks: walks from each node.
            stop: probability to stop at each step.
            longest: steps after which a walk is cut.
            quasi: spread the first steps of the walks of a node evenly (quasi-Monte-Carlo), which lowers the variance
                at no cost; False for independent walks.
            modulation: (longest + 1,) weights f of lengths to build in; None to keep lengths apart.
            seed: of the walks.

        Raises:
            InvalidDataError: numbers out of range.
        """
        from gpkit.recursions.random_walks import walk

        if walks < 1 or longest < 1 or not 0.0 < stop < 1.0:
            raise InvalidDataError(
                f"walks and longest must be at least 1 and stop between 0 and 1, got {walks}, {longest}, {stop}"
            )
        n = matrix.shape[0]
        weights = np.ones(longest + 1) if modulation is None else np.asarray(modulation, dtype=np.float64)
        if weights.shape != (longest + 1,):
            raise InvalidDataError(f"modulation must have longest + 1 = {longest + 1} entries, got {weights.shape}")
        lattice = _lattice(2 * _SPREAD_STEPS) if quasi else np.zeros(0)
        pieces, cut = [], 0
        graph = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), np.asarray(matrix.data, np.float64))
        for first in range(0, n, _CHUNK):
            last = min(first + _CHUNK, n)
            *found, lost = walk(
                *graph, first, last, walks, stop, longest, lattice, modulation is None, weights, np.uint64(seed)
            )
            pieces.append(found)
            cut += lost
        offset, pointers = 0, [np.zeros(1, dtype=np.int64)]
        for piece in pieces:
            pointers.append(piece[0][1:] + offset)
            offset += int(piece[0][-1])
        nodes, lengths, loads = (np.concatenate([piece[part] for piece in pieces]) for part in (1, 2, 3))
        return cls(np.concatenate(pointers), nodes, lengths, loads, n, longest, cut / max(1, n * walks))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.pointers) - 1

    def take(self, rows: NDArray[np.int64]) -> WalkFeatures:
        """The features of some rows."""
        counts = np.diff(self.pointers)[rows]
        pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.arange(pointers[-1]) + np.repeat(self.pointers[rows] - pointers[:-1], counts)
        lengths = self.lengths[places] if self.lengths.size else self.lengths
        return WalkFeatures(
            pointers, self.nodes[places], lengths, self.loads[places], self.size, self.longest, self.cut
        )

    def matrix(self, modulation: Array) -> sparse.csr_matrix:
        """Phi (rows, n), scipy sparse."""
        values = self.loads * modulation[self.lengths if self.lengths.size else 0]
        places = (self.nodes.copy(), self.pointers.copy())  # merged in place below
        matrix = sparse.csr_matrix((values.copy(), *places), shape=(self.rows, self.size))
        matrix.sum_duplicates()
        return matrix

    def arrays(self) -> tuple[Any, ...]:
        """Pointers, nodes, lengths, loads."""
        return self.pointers, self.nodes, self.lengths, self.loads


class _Product(torch.autograd.Function):
    """``Phi(f) values`` or its transpose, differentiable in the modulation f and in the values."""

    @staticmethod
    def forward(ctx: Any, modulation: Tensor, values: Tensor, features: WalkFeatures, transposed: bool) -> Tensor:
        ctx.features, ctx.transposed = features, transposed
        ctx.save_for_backward(modulation, values)
        return _apply(features, modulation, values, transposed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from gpkit.recursions.random_walks import modulation_gradient

        modulation, values = ctx.saved_tensors
        features, transposed = ctx.features, ctx.transposed
        by_modulation = by_values = None
        if ctx.needs_input_grad[0]:
            left, right = (values, grad) if transposed else (grad, values)
            found = modulation_gradient(*features.arrays(), _numbers(left), _numbers(right), len(modulation))
            by_modulation = torch.as_tensor(found).to(modulation)
        if ctx.needs_input_grad[1]:
            by_values = _apply(features, modulation, grad, not transposed)
        return by_modulation, by_values, None, None


def _numbers(values: Tensor) -> Array:
    return np.ascontiguousarray(values.detach().cpu().double().numpy())


def _apply(features: WalkFeatures, modulation: Tensor, values: Tensor, transposed: bool) -> Tensor:
    from gpkit.recursions.random_walks import multiply, multiply_transposed

    f, numbers = _numbers(modulation), _numbers(values)
    if transposed:
        out = multiply_transposed(*features.arrays(), f, numbers, features.size)
    else:
        out = multiply(*features.arrays(), f, numbers)
    return torch.as_tensor(out).to(values)


class RandomFeatureLinearOperator(StructuredLinearOperator):
    """``Phi_1 Phi_2^T`` made symmetric, plus a diagonal, for features of random walks.

    With one set (``second`` None) it is positive semidefinite, and only its diagonal is biased. With two independent
    sets every entry is unbiased, but the matrix is not positive semidefinite in general: products only.

    There is no exact solve below cubic cost: :func:`conjugate_gradients` solves by name and reports its residual, and
    :meth:`to_dense` gives the matrix.

    Args:
        modulation: (L + 1,) weights f of walk lengths; one factor of all loads where the weights are built into them.
        diagonal: (m,) absorbed diagonal.
        first: features of the m rows.
        second: independent features of the same rows, or None.
    """

    def __init__(
        self, modulation: Tensor, diagonal: Tensor, *, first: WalkFeatures, second: WalkFeatures | None = None
    ) -> None:
        super().__init__(modulation, diagonal, first=first, second=second)
        self.modulation = modulation
        self.diagonal_values = diagonal
        self.first = first
        self.second = second

    def _size(self) -> torch.Size:
        m = self.first.rows
        return torch.Size((*self.diagonal_values.shape[:-1], m, m))

    def _transpose_nonbatch(self) -> RandomFeatureLinearOperator:
        return self

    def _rebuild(self, modulation: Tensor, diagonal: Tensor) -> RandomFeatureLinearOperator:
        return type(self)(modulation, diagonal, first=self.first, second=self.second)

    def _expand_batch(self, batch_shape: torch.Size) -> LinearOperator:
        if not batch_shape:
            return self
        return to_linear_operator(self.to_dense().expand(*batch_shape, *self.shape[-2:]))

    def _forward(self, features: WalkFeatures, values: Tensor, transposed: bool) -> Tensor:
        out: Tensor = _Product.apply(self.modulation, values, features, transposed)
        return out

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        if columns.dim() > 2:
            flat = columns.movedim(-2, 0).reshape(columns.shape[-2], -1)
            out = self._matmul(flat).reshape(columns.shape[-2], *columns.shape[:-2], columns.shape[-1]).movedim(0, -2)
            return out
        if self.second is None:
            out = self._forward(self.first, self._forward(self.first, columns, True), False)
        else:
            one = self._forward(self.first, self._forward(self.second, columns, True), False)
            two = self._forward(self.second, self._forward(self.first, columns, True), False)
            out = 0.5 * (one + two)
        out = out + self.diagonal_values.unsqueeze(-1) * columns
        return out.squeeze(-1) if vector else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def to_dense(self) -> Tensor:
        """The matrix itself (m, m)."""
        if torch.is_grad_enabled() and any(t.requires_grad for t in self._args):
            dense = self._matmul(torch.eye(self.shape[-1], dtype=self.dtype))
            return 0.5 * (dense + dense.mT)
        left = self.first.matrix(_numbers(self.modulation))
        right = left if self.second is None else self.second.matrix(_numbers(self.modulation))
        dense = torch.as_tensor((left @ right.T).toarray()).to(self.dtype)
        return 0.5 * (dense + dense.mT) + torch.diag_embed(self.diagonal_values)

    def _diagonal(self) -> Tensor:
        if self.second is None and not (torch.is_grad_enabled() and self.modulation.requires_grad):
            squares = self.first.matrix(_numbers(self.modulation)).power(2).sum(1)
            return torch.as_tensor(np.asarray(squares).ravel()).to(self.diagonal_values) + self.diagonal_values
        return self.to_dense().diagonal()

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.to_dense()[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if isinstance(row_index, slice) and isinstance(col_index, slice) and row_index == col_index:
            rows = np.arange(self.shape[-1])[row_index]
            second = None if self.second is None else self.second.take(rows)
            return type(self)(
                self.modulation, self.diagonal_values[row_index], first=self.first.take(rows), second=second
            )
        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])

    def _add_diagonal_values(self, values: Tensor) -> LinearOperator:
        if values.dim() > 1:
            return self._expand_batch(values.shape[:-1]).add_diagonal(values)
        return self._rebuild(self.modulation, self.diagonal_values + values)

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype)
        if factor.numel() > 1:
            raise self._lose_structure("a product with a batch of factors", "use one kernel for each of them")
        factor = factor.reshape(())
        return self._rebuild(self.modulation * factor.sqrt(), self.diagonal_values * factor)

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        raise self._lose_structure(
            "an exact solve", "call conjugate_gradients(operator, rhs), or to_dense() for a matrix that fits"
        )

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """Refused: there is no exact solve with the structure.

        Raises:
            StructureLostError: always.
        """
        return self._solve(right_tensor)

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """Refused: there is no exact determinant with the structure.

        Raises:
            StructureLostError: always.
        """
        raise self._lose_structure("an exact quadratic form or determinant", "call to_dense() for a matrix that fits")

    def logdet(self) -> Tensor:
        """Refused: there is no exact determinant with the structure.

        Raises:
            StructureLostError: always.
        """
        return self.inv_quad_logdet(logdet=True)[1]

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, m) of the positive semidefinite variant: ``Phi g`` plus noise.

        Raises:
            StructureLostError: the unbiased variant, which is no covariance.
        """
        if self.second is not None:
            raise self._lose_structure("drawing from two independent sets of walks", "use the positive variant")
        with torch.no_grad():
            noise = torch.randn(self.first.size, num_samples, dtype=self.dtype)
            white = torch.randn(self.shape[-1], num_samples, dtype=self.dtype)
            draws = self._forward(self.first, noise, False) + self.diagonal_values.sqrt().unsqueeze(-1) * white
        return refuse_gradient(draws.mT, "draws from a random-feature covariance", self._args)


@dataclass(frozen=True, eq=False)
class IterativeSolution:
    """An iterative solution with what it is worth.

    Attributes:
        solution: (m, C).
        residual: largest ``|K x - b| / |b|`` over the columns, computed anew at the end.
        iterations: number of products with K.
    """

    solution: Tensor
    residual: float
    iterations: int


def conjugate_gradients(
    operator: LinearOperator, rhs: Tensor, tol: float = 1e-8, max_iterations: int = 1000
) -> IterativeSolution:
    """Solve ``K x = b`` by conjugate gradients preconditioned by the diagonal.

    Args:
        operator: positive definite.
        rhs: (m,) or (m, C).
        tol: relative residual to reach.
        max_iterations: limit.

    Raises:
        ConvergenceError: the residual was not reached, or the matrix is not positive definite (the unbiased variant of
            random features is none).
    """
    with torch.no_grad():
        columns = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
        scale = operator.diagonal(dim1=-1, dim2=-2).unsqueeze(-1)
        request = ConjugateGradients(tol, max_iterations)
        found, residual, iterations = iterate(lambda x: operator @ x, columns, lambda r: r / scale, request)
    return IterativeSolution(found.squeeze(-1) if rhs.dim() == 1 else found, residual, iterations)
