"""Full-rank covariances by sparse precision: ``E Q^-1 E^T + diag(D)`` with a sparse Q, exact by sparse Cholesky."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from linear_operator.operators import DenseLinearOperator, LinearOperator, RootLinearOperator, to_linear_operator
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.errors import InvalidDataError, StructureLostError
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.sparse_symmetric import SparseMatrix, SparsePattern
from gpkit.operators.structured import StructuredLinearOperator, common_batch, refuse_gradient

__all__ = ["MarkovPosterior", "PrecisionLayout", "SparsePrecisionLinearOperator"]

Array = NDArray[np.float64]

_SOLVED = 1 << 24
"""Numbers held at once while places are solved for."""
_LOOKUP = 50
"""Cost of looking a pair up, in entries of the factor that are passed while a place is solved for."""
_PAIRS = 1 << 21
"""Pairs of entries looked up at once."""


@dataclass(frozen=True, eq=False)
class PrecisionLayout:
    """What does not depend on hyper-parameters: the pattern of Q and how rows observe the unknowns.

    Args:
        pattern: of the precision matrix Q (N, N).
        selection: E (m, N), scipy sparse; few entries per row.
    """

    pattern: SparsePattern
    selection: Any

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InvalidDataError: the selection has another number of columns than the precision.
        """
        if self.selection.shape[1] != self.pattern.size:
            raise InvalidDataError(
                f"the selection has {self.selection.shape[1]} columns, the precision {self.pattern.size}"
            )

    @functools.cached_property
    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and values of E."""
        entries = self.selection.tocoo()
        rows, columns = (torch.as_tensor(index.astype(np.int64)) for index in (entries.row, entries.col))
        return rows, columns, torch.as_tensor(np.asarray(entries.data, dtype=np.float64))

    @functools.cached_property
    def posterior(self) -> tuple[SparsePattern, Tensor, Tensor, Tensor, Tensor]:
        """Pattern of ``Q + E^T D^-1 E``, where Q goes, and place, row and weight of every product of E's entries."""
        matrix = self.selection.tocsr().copy()
        matrix.sum_duplicates()  # sorted now: products below would sort it in place, behind the places found here
        every = np.arange(matrix.shape[0])
        row, first, second = _entry_pairs(matrix, every, every)
        columns, rows = matrix.indices[first].astype(np.int64), matrix.indices[second].astype(np.int64)
        own = self.pattern
        keys = own.columns * own.size + own.rows
        wanted = columns * own.size + rows
        at = np.minimum(np.searchsorted(keys, wanted), own.nnz - 1)
        pattern, places = own, np.arange(own.nnz)
        if not np.array_equal(keys[at], wanted):
            union = own.matrix(np.ones(own.nnz)) + abs(matrix).T @ abs(matrix)
            pattern = SparsePattern.of(union, own.block)
            keys = pattern.columns * pattern.size + pattern.rows
            places = np.searchsorted(keys, own.columns * own.size + own.rows)
            at = np.searchsorted(keys, wanted)
        weight = matrix.data[first] * matrix.data[second]
        tensors = (torch.as_tensor(np.asarray(v)) for v in (places, at, row, weight))
        return (pattern, *tensors)  # type: ignore[return-value]

    def up(self, values: Tensor) -> Tensor:
        """``E values``, (N, C) to (m, C)."""
        rows, columns, data = self.entries
        out = values.new_zeros(self.selection.shape[0], values.shape[1])
        return out.index_add(0, rows, data.to(values.dtype).unsqueeze(-1) * values[columns])

    def down(self, values: Tensor) -> Tensor:
        """``E^T values``, (m, C) to (N, C)."""
        rows, columns, data = self.entries
        out = values.new_zeros(self.selection.shape[1], values.shape[1])
        return out.index_add(0, columns, data.to(values.dtype).unsqueeze(-1) * values[rows])


def _entry_pairs(matrix: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """All pairs of an entry of row a_i and one of row b_i of a CSR matrix: i, and the places of both entries."""
    counts_a, counts_b = (np.diff(matrix.indptr)[rows].astype(np.int64) for rows in (a, b))
    total = counts_a * counts_b
    place = np.repeat(np.arange(len(total)), total)
    offset = np.arange(len(place)) - np.repeat(np.cumsum(total) - total, total)
    width = counts_b[place]
    return place, matrix.indptr[a][place] + offset // width, matrix.indptr[b][place] + offset % width


@dataclass(frozen=True, eq=False)
class MarkovPosterior:
    """All N unknowns given noisy data: sparse precision A and mean.

    Args:
        mean: (N,).
        matrix: A.
    """

    mean: Array
    matrix: SparseMatrix

    @property
    def variance(self) -> Array:
        """Marginal variances (N,), from the selected inverse."""
        nodes = np.arange(self.matrix.pattern.size)
        return self.matrix.factor.inverse_entries(nodes, nodes)

    def blocks(self, size: int) -> Array:
        """Marginal covariances (N / size, size, size) of consecutive unknowns, from the selected inverse."""
        return self.covariances(sparse.identity(self.matrix.pattern.size, format="csr"), size)

    def covariances(self, selection: Any, size: int) -> Array:
        """Covariances (m / size, size, size) of consecutive rows of ``E w``.

        Entries of the inverse on the factor's pattern are combined; places that need others, or so many that solving
        costs less, are solved for, with the same result.

        Args:
            selection: E, sparse (m, N).
            size: rows that belong together.
        """
        matrix = selection.tocsr()
        columns = matrix.indices.astype(np.int64)
        count = matrix.shape[0] // size
        out = np.zeros((count, size, size))
        pairs = np.square(np.diff(matrix.indptr)[: count * size : max(size, 1)].astype(np.float64))
        many = pairs * _LOOKUP > self.matrix.pattern.supernodes.nonzeros
        out[many] = np.nan
        pieces = np.array_split(np.flatnonzero(~many), 1 + int(pairs[~many].sum() // _PAIRS))
        for chosen in pieces:
            for a in range(size):
                for b in range(a + 1):
                    place, first, second = _entry_pairs(matrix, chosen * size + a, chosen * size + b)
                    entries = self.matrix.factor.inverse_entries(columns[first], columns[second])
                    weights = matrix.data[first] * matrix.data[second] * entries
                    out[chosen, a, b] = out[chosen, b, a] = np.bincount(place, weights, len(chosen))
        unknown = np.flatnonzero(np.isnan(out).any((1, 2)))
        step = max(1, _SOLVED // (max(self.matrix.pattern.size, 1) * size))
        for start in range(0, len(unknown), step):
            chosen = unknown[start : start + step]
            rows = (chosen[:, None] * size + np.arange(size)).ravel()
            half = self.whitened(matrix[rows]).reshape(-1, len(chosen), size)
            out[chosen] = np.einsum("kmi,kmj->mij", half, half)
        return out

    def whitened(self, selection: Any) -> Array:
        """``B = L^-1 P E^T`` (N, m) of rows E (m, N): ``B^T B = E A^-1 E^T``, the covariance of what E observes."""
        return self.matrix.factor.whiten(selection.toarray().T)

    def sample(self, n: int, generator: torch.Generator) -> Array:
        """Exact joint draws (n, N)."""
        noise = torch.randn(self.matrix.pattern.size, n, generator=generator, dtype=torch.float64).numpy()
        return self.mean + self.matrix.factor.draw(noise).T


class SparsePrecisionLinearOperator(StructuredLinearOperator):
    """``E Q^-1 E^T + diag(D)`` for a sparse precision matrix Q.

    Solves and determinants factor ``Q + E^T D^-1 E`` and Q, and need a positive diagonal. Gradients come from the
    inverse on the pattern, at the cost of about one more factorisation.

    Args:
        values: (*batch, nnz), Q on the layout's pattern.
        diagonal: (*batch, m), absorbed diagonal (noise).
        layout: pattern and selection; one object for all operators that share them, so that the elimination order is
            found once.

    References:
        Rue & Held (2005), Gaussian Markov Random Fields; Lindgren, Rue & Lindstrom (2011), JRSS B 73, 423.
    """

    def __init__(self, values: Tensor, diagonal: Tensor, *, layout: PrecisionLayout) -> None:
        super().__init__(values, diagonal, layout=layout)
        self.values = values
        self.diagonal_values = diagonal
        self.layout = layout
        self._matrices: list[tuple[SparseMatrix, SparseMatrix]] | None = None

    # -- shape, entries -------------------------------------------------------------------------------------------

    def _size(self) -> torch.Size:
        m = self.layout.selection.shape[0]
        return torch.Size((*self.diagonal_values.shape[:-1], m, m))

    def _transpose_nonbatch(self) -> SparsePrecisionLinearOperator:
        return self

    def _rebuild(self, values: Tensor, diagonal: Tensor) -> SparsePrecisionLinearOperator:
        return type(self)(values, diagonal, layout=self.layout)

    def _expand_batch(self, batch_shape: torch.Size) -> SparsePrecisionLinearOperator:
        if batch_shape == self.batch_shape:
            return self
        return self._rebuild(*(t.expand(*batch_shape, t.shape[-1]) for t in self._args))

    def _each(self) -> list[tuple[Tensor, Tensor]]:
        """Values and diagonal of every batch element."""
        count = self.batch_shape.numel()
        values = self.values.reshape(count, self.values.shape[-1])
        diagonal = self.diagonal_values.reshape(count, self.diagonal_values.shape[-1])
        return list(zip(values.unbind(0), diagonal.unbind(0), strict=True))

    def _pairs(self) -> list[tuple[SparseMatrix, SparseMatrix]]:
        """Q and ``Q + E^T D^-1 E`` of every batch element."""
        if self._matrices is None:
            pattern, places, at, row, weight = self.layout.posterior
            self._matrices = []
            for values, diagonal in self._each():
                precision = 1.0 / diagonal
                total = values.new_zeros(pattern.nnz).index_add(0, places, values)
                total = total.index_add(0, at, weight.to(values.dtype) * precision[row])
                self._matrices.append((SparseMatrix(self.layout.pattern, values), SparseMatrix(pattern, total)))
        return self._matrices

    def _noisy_pairs(self) -> list[tuple[SparseMatrix, SparseMatrix]]:
        if not bool((self.diagonal_values > 0.0).all()):
            raise StructureLostError(
                "solves and determinants of a sparse-precision covariance need a positive diagonal: add noise"
            )
        return self._pairs()

    def _stack(self, pieces: list[Tensor]) -> Tensor:
        return torch.stack(pieces).reshape((*self.batch_shape, *pieces[0].shape))

    def _columns(self, rhs: Tensor) -> list[Tensor]:
        batch = self.batch_shape
        return list(rhs.expand(*batch, *rhs.shape[-2:]).reshape(batch.numel(), *rhs.shape[-2:]).unbind(0))

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        base = self._expand_batch(common_batch(self.batch_shape, columns.shape[:-2]))
        out = base._stack(
            [
                self.layout.up(SparseMatrix(self.layout.pattern, values).solve(self.layout.down(right)))
                + diagonal.unsqueeze(-1) * right
                for (values, diagonal), right in zip(base._each(), base._columns(columns), strict=True)
            ]
        )
        return out.squeeze(-1) if vector else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, m, m)."""
        eye = torch.eye(self.shape[-1], dtype=self.dtype)
        dense = self._matmul(eye.expand(*self.batch_shape, *eye.shape))
        return 0.5 * (dense + dense.mT)

    def _diagonal(self) -> Tensor:
        if torch.is_grad_enabled() and self.values.requires_grad:
            return self.to_dense().diagonal(dim1=-2, dim2=-1)
        pattern, places, at, row, weight = self.layout.posterior
        pieces = []
        for values, diagonal in self._each():
            total = values.new_zeros(pattern.nnz).index_add(0, places, values.detach())
            inverse = SparseMatrix(pattern, total).factor.inverse_entries(
                pattern.rows[at.numpy()], pattern.columns[at.numpy()]
            )
            pieces.append(diagonal.index_add(0, row, weight.to(values.dtype) * torch.as_tensor(inverse).to(values)))
        return self._stack(pieces)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.to_dense()[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        same = isinstance(row_index, slice) and isinstance(col_index, slice) and row_index == col_index
        if same and not any(torch.is_tensor(index) for index in batch_indices):
            values = self.values[batch_indices] if batch_indices else self.values
            layout = self.layout
            if row_index != slice(None):
                layout = PrecisionLayout(layout.pattern, layout.selection.tocsr()[row_index])
            return type(self)(values, self.diagonal_values[(*batch_indices, row_index)], layout=layout)
        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])

    # -- closure --------------------------------------------------------------------------------------------------

    def _add_diagonal_values(self, values: Tensor) -> SparsePrecisionLinearOperator:
        base = self._expand_batch(common_batch(self.batch_shape, values.shape[:-1]))
        return base._rebuild(base.values, base.diagonal_values + values)

    def _add_same(self, other: LinearOperator) -> LinearOperator | None:
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense() + other.to_dense())

    def __add__(self, other: Any) -> Any:
        if isinstance(other, DenseLinearOperator):
            return DenseCovarianceLinearOperator.from_matrix(self.to_dense() + other.to_dense())
        return super().__add__(other)

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = common_batch(self.batch_shape, factor.shape)
        base = self._expand_batch(batch)
        factor = factor.expand(batch).unsqueeze(-1)
        return base._rebuild(base.values / factor, base.diagonal_values * factor)

    def _mul_matrix(self, other: Any) -> LinearOperator:
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense() * to_linear_operator(other).to_dense())

    # -- algebra --------------------------------------------------------------------------------------------------

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        base = self._expand_batch(common_batch(self.batch_shape, rhs.shape[:-2]))
        pieces = []
        for (_, posterior), (_, diagonal), right in zip(
            base._noisy_pairs(), base._each(), base._columns(rhs), strict=True
        ):
            scaled = right / diagonal.unsqueeze(-1)
            inner = self.layout.up(posterior.solve(self.layout.down(scaled)))
            pieces.append(scaled - inner / diagonal.unsqueeze(-1))
        return base._stack(pieces)

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T K^-1 rhs, log det K)``, exact."""
        quad: Tensor = torch.zeros(0, dtype=self.dtype, device=self.device)
        if inv_quad_rhs is not None:
            rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
            base = self._expand_batch(common_batch(self.batch_shape, rhs.shape[:-2]))
            pieces = [
                self._quadratic(pair, diagonal, right)
                for pair, (_, diagonal), right in zip(
                    base._noisy_pairs(), base._each(), base._columns(rhs), strict=True
                )
            ]
            each = base._stack(pieces)
            quad = each.sum(-1) if reduce_inv_quad else each
        empty = torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)
        return quad, self.logdet() if logdet else empty

    def _quadratic(self, pair: tuple[SparseMatrix, SparseMatrix], diagonal: Tensor, right: Tensor) -> Tensor:
        """A sum of squares: misfit in units of the noise, plus the prior's energy of the fit; (C,)."""
        prior, posterior = pair
        fit = posterior.solve(self.layout.down(right / diagonal.unsqueeze(-1)))
        misfit = right - self.layout.up(fit)
        rows, columns = torch.as_tensor(prior.pattern.rows), torch.as_tensor(prior.pattern.columns)
        energy = (prior.values.unsqueeze(-1) * fit[rows] * fit[columns]).sum(0)
        return (misfit.square() / diagonal.unsqueeze(-1)).sum(0) + energy

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        pieces = [
            posterior.logdet() - prior.logdet() + diagonal.log().sum()
            for (prior, posterior), (_, diagonal) in zip(self._noisy_pairs(), self._each(), strict=True)
        ]
        return self._stack(pieces)

    def condition(self, targets: Tensor) -> MarkovPosterior:
        """All N unknowns given targets (m,); no batch.

        Raises:
            InvalidDataError: a batch of operators.
        """
        if self.batch_shape:
            raise InvalidDataError(f"condition one operator at a time, not a batch of shape {tuple(self.batch_shape)}")
        ((_, posterior),) = self._noisy_pairs()
        scaled = (targets.detach() / self.diagonal_values.detach()).unsqueeze(-1)
        mean = posterior.factor.solve(self.layout.down(scaled).numpy())[:, 0]
        return MarkovPosterior(mean, posterior)

    def _dense(self) -> DenseCovarianceLinearOperator:
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense())

    def _cholesky(self, upper: bool = False) -> Any:
        return self._dense()._cholesky(upper)

    def cholesky(self, upper: bool = False) -> Any:
        """The dense triangular factor: asked for by name, since no structure survives in it."""
        return self._cholesky(upper=upper)

    def diagonalization(self, method: str | None = None) -> Any:
        """Eigenvalues and eigenvectors by the dense solver."""
        return super().diagonalization(method="symeig")

    def root_decomposition(self, method: str | None = None) -> Any:
        """The dense Cholesky factor as a root."""
        return RootLinearOperator(self._cholesky())

    def _root_decomposition(self) -> Any:
        return self._cholesky()

    def root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None, method: Any = None) -> Any:
        """Dense root of the inverse."""
        return self._dense().root_inv_decomposition()

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        return self._dense()._root_inv_decomposition()

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, m), from the sparse factor of Q; a zero diagonal is allowed."""
        pieces = []
        with torch.no_grad():
            for values, diagonal in self._each():
                noise = torch.randn(self.layout.pattern.size, num_samples, dtype=torch.float64)
                draw = SparseMatrix(self.layout.pattern, values).factor.draw(noise.numpy())
                white = torch.randn(diagonal.shape[-1], num_samples, dtype=self.dtype)
                pieces.append(self.layout.up(torch.as_tensor(draw)).to(self.dtype) + diagonal.sqrt()[:, None] * white)
            draws = self._stack(pieces).movedim(-1, 0)
        return refuse_gradient(draws, "draws from a sparse-precision covariance", self._args)


def selection_of(rows: NDArray[np.int64], size: int, weights: Array | None = None) -> Any:
    """E that picks unknowns (m,), each times a weight; scipy sparse (m, size)."""
    data = np.ones(len(rows)) if weights is None else weights
    return sparse.csr_matrix((data, (np.arange(len(rows)), rows)), shape=(len(rows), size))
