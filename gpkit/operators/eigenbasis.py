r"""Covariances with few modes: ``Phi diag(S) Phi^T + diag(D)``, exact in O(N k^2) once and O(k^3) per spectrum.

Everything goes through the k x k matrix :math:`A = I + S^{1/2}\Phi^T D^{-1}\Phi S^{1/2}`. Where the diagonal is one
constant its data-sized part is the Gram matrix :math:`\Phi^T\Phi`, which stays with the features: the next operator
that is built on the same tensor, for other hyper-parameters, does not compute it again.
"""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import DenseLinearOperator, LinearOperator, RootLinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.factorised import exact_cholesky
from gpkit.operators.structured import StructuredLinearOperator, common_batch, refuse_gradient

__all__ = ["CrossEigenbasisLinearOperator", "EigenbasisLinearOperator", "gram_of", "projection_of"]


def gram_of(features: Tensor) -> Tensor:
    """``Phi^T Phi`` (*batch, k, k), kept on a features tensor that needs no gradient as long as that is unchanged."""
    if features.requires_grad:
        return features.mT @ features
    kept = getattr(features, "_gpkit_gram", None)
    if kept is None or kept[0] != features._version:
        kept = (features._version, features.mT @ features)
        features._gpkit_gram = kept  # type: ignore[attr-defined]  # kept with the tensor
    gram: Tensor = kept[1]
    return gram


def projection_of(features: Tensor, rhs: Tensor) -> Tensor:
    """``Phi^T rhs`` (*batch, k, C), kept with the features for the last right-hand side."""
    if features.requires_grad or rhs.requires_grad:
        return features.mT @ rhs
    kept = getattr(features, "_gpkit_projection", None)
    if kept is None or kept[0] is not rhs or kept[1] != (features._version, rhs._version):
        kept = (rhs, (features._version, rhs._version), features.mT @ rhs)
        features._gpkit_projection = kept  # type: ignore[attr-defined]  # kept with the tensor
    value: Tensor = kept[2]
    return value


def _same_index(row: Any, column: Any) -> bool:
    if torch.is_tensor(row) and torch.is_tensor(column):
        return bool(torch.equal(row, column)) and row.unique().numel() == row.numel()
    return isinstance(row, slice) and isinstance(column, slice) and row == column


class CrossEigenbasisLinearOperator(LinearOperator):
    """``Phi_1 diag(S) Phi_2^T``, rectangular.

    Args:
        left: (*batch, M, k).
        right: (*batch, N, k).
        spectrum: (*batch, k), not negative.
    """

    def __init__(self, left: Tensor, right: Tensor, spectrum: Tensor) -> None:
        super().__init__(left, right, spectrum)
        self.left = left
        self.right = right
        self.spectrum = spectrum

    def _size(self) -> torch.Size:
        return torch.Size((*self.left.shape[:-1], self.right.shape[-2]))

    def _transpose_nonbatch(self) -> CrossEigenbasisLinearOperator:
        return type(self)(self.right, self.left, self.spectrum)

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        out = self.left @ (self.spectrum.unsqueeze(-1) * (self.right.mT @ columns))
        return out.squeeze(-1) if vector else out

    def _diagonal(self) -> Tensor:
        return torch.einsum("...nk,...k,...nk->...n", self.left, self.spectrum, self.right)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, M, N)."""
        return (self.left * self.spectrum.unsqueeze(-2)) @ self.right.mT

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        left = self.left[(*batch_indices, row_index)]
        right = self.right[(*batch_indices, col_index)]
        spectrum = self.spectrum[batch_indices] if batch_indices else self.spectrum
        return (left * spectrum * right).sum(-1)

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if any(torch.is_tensor(index) for index in batch_indices):
            return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])
        left, right = self.left[(*batch_indices, row_index)], self.right[(*batch_indices, col_index)]
        spectrum = self.spectrum[batch_indices] if batch_indices else self.spectrum
        return type(self)(left, right, spectrum)

    def _expand_batch(self, batch_shape: torch.Size) -> CrossEigenbasisLinearOperator:
        lead = len(self.batch_shape)
        return type(self)(*(t.expand(*batch_shape, *t.shape[lead:]) for t in self._args))

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = common_batch(self.batch_shape, factor.shape)
        base = self if batch == self.batch_shape else self._expand_batch(batch)
        return type(self)(base.left, base.right, base.spectrum * factor.expand(batch).unsqueeze(-1))

    def __add__(self, other: Any) -> Any:
        if isinstance(other, CrossEigenbasisLinearOperator) and other.shape[-2:] == self.shape[-2:]:
            batch = common_batch(self.batch_shape, other.batch_shape)
            a, b = self._expand_batch(batch), other._expand_batch(batch)
            pieces = [torch.cat([x, y], -1) for x, y in zip(a._args, b._args, strict=True)]
            return type(self)(*pieces)
        return super().__add__(other)


class EigenbasisLinearOperator(StructuredLinearOperator):
    """``Phi diag(S) Phi^T + diag(D)``.

    Solves and determinants need a positive diagonal, or as many modes as rows; draws do not.

    Args:
        features: (*batch, N, k). Pass the same tensor object again and again: what depends on it alone is kept with it.
        spectrum: (*batch, k), not negative.
        diagonal: (*batch, N), absorbed diagonal (noise), not negative; ``inf`` marks a row without information.

    References:
        Solin & Sarkka (2020), Statistics and Computing 30, 419 (reduced-rank Gaussian processes);
        docs, "Spectral bases".
    """

    def __init__(self, features: Tensor, spectrum: Tensor, diagonal: Tensor) -> None:
        super().__init__(features, spectrum, diagonal)
        self.features = features
        self.spectrum = spectrum
        self.diagonal_values = diagonal
        self._capacitance: tuple[Tensor, ...] | None = None

    # -- shape, entries -------------------------------------------------------------------------------------------

    def _size(self) -> torch.Size:
        return torch.Size((*self.features.shape[:-1], self.features.shape[-2]))

    def _transpose_nonbatch(self) -> EigenbasisLinearOperator:
        return self

    def _expand_batch(self, batch_shape: torch.Size) -> EigenbasisLinearOperator:
        if batch_shape == self.batch_shape:
            return self
        lead = len(self.batch_shape)
        return type(self)(*(t.expand(*batch_shape, *t.shape[lead:]) for t in self._args))

    def _weighted(self) -> Tensor:
        """``Phi S^1/2`` (*batch, N, k)."""
        return self.features * self.spectrum.sqrt().unsqueeze(-2)

    def _diagonal(self) -> Tensor:
        return (self.features.square() @ self.spectrum.unsqueeze(-1)).squeeze(-1) + self.diagonal_values

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        out = self.features @ (self.spectrum.unsqueeze(-1) * (self.features.mT @ columns))
        out = out + self.diagonal_values.unsqueeze(-1) * columns
        return out.squeeze(-1) if vector else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, N, N): quadratic memory, for small N and for tests."""
        smooth = (self.features * self.spectrum.unsqueeze(-2)) @ self.features.mT
        return 0.5 * (smooth + smooth.mT) + torch.diag_embed(self.diagonal_values)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        spectrum = self.spectrum[batch_indices] if batch_indices else self.spectrum
        rows, columns = (self.features[(*batch_indices, index)] for index in (row_index, col_index))
        noise = self.diagonal_values[(*batch_indices, row_index)]
        return (rows * spectrum * columns).sum(-1) + torch.where(row_index == col_index, noise, torch.zeros_like(noise))

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if any(torch.is_tensor(index) for index in batch_indices):
            return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])
        spectrum = self.spectrum[batch_indices] if batch_indices else self.spectrum
        rows = self.features[(*batch_indices, row_index)]
        if _same_index(row_index, col_index):
            return type(self)(rows, spectrum, self.diagonal_values[(*batch_indices, row_index)])
        cross = CrossEigenbasisLinearOperator(rows, self.features[(*batch_indices, col_index)], spectrum)
        numbers = torch.arange(self.shape[-1], device=self.device)
        overlap = numbers[row_index].unsqueeze(-1) == numbers[col_index]
        if not overlap.any():
            return cross
        noise = self.diagonal_values[(*batch_indices, row_index)].unsqueeze(-1)
        return to_linear_operator(cross.to_dense() + torch.where(overlap, noise, torch.zeros_like(noise)))

    # -- closure --------------------------------------------------------------------------------------------------

    def _add_diagonal_values(self, values: Tensor) -> EigenbasisLinearOperator:
        batch = common_batch(self.batch_shape, values.shape[:-1])
        base = self._expand_batch(batch)
        # A constant stays one stored number per batch element, which is how it is recognised.
        constant = _constant(self.diagonal_values)
        if values.shape[-1] == 1 or _constant(values) is not None:
            added = values[..., :1]
            if constant is not None:
                total = (constant + added).expand(*batch, 1)
                return type(self)(base.features, base.spectrum, total.expand(*batch, self.shape[-1]))
        return type(self)(base.features, base.spectrum, base.diagonal_values + values)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, DenseLinearOperator):
            return DenseCovarianceLinearOperator.from_matrix(self.to_dense() + other.to_dense())
        return super().__add__(other)

    def _add_same(self, other: LinearOperator) -> LinearOperator | None:
        if isinstance(other, DenseCovarianceLinearOperator):
            return other._add_same(self)
        if not isinstance(other, EigenbasisLinearOperator) or other.shape[-1] != self.shape[-1]:
            return None
        batch = common_batch(self.batch_shape, other.batch_shape)
        a, b = self._expand_batch(batch), other._expand_batch(batch)
        diagonal = a.diagonal_values + b.diagonal_values
        if self.features is other.features:
            return type(self)(a.features, a.spectrum + b.spectrum, diagonal)
        features = torch.cat([a.features, b.features], -1)
        return type(self)(features, torch.cat([a.spectrum, b.spectrum], -1), diagonal)

    def _mul_constant(self, other: Any) -> LinearOperator:
        factor = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        batch = common_batch(self.batch_shape, factor.shape)
        base = self._expand_batch(batch)
        factor = factor.expand(batch).unsqueeze(-1)
        constant = _constant(base.diagonal_values)
        diagonal = base.diagonal_values * factor
        if constant is not None:
            diagonal = (constant * factor).expand(*batch, self.shape[-1])
        return type(self)(base.features, base.spectrum * factor, diagonal)

    def _mul_matrix(self, other: Any) -> LinearOperator:
        """Elementwise product: every pair of modes is one of the product."""
        if not isinstance(other, EigenbasisLinearOperator):
            return super()._mul_matrix(other)
        batch = common_batch(self.batch_shape, other.batch_shape)
        a, b = self._expand_batch(batch), other._expand_batch(batch)
        features = (a.features.unsqueeze(-1) * b.features.unsqueeze(-2)).flatten(-2)
        spectrum = (a.spectrum.unsqueeze(-1) * b.spectrum.unsqueeze(-2)).flatten(-2)
        own = a._diagonal() - a.diagonal_values
        diagonal = own * b.diagonal_values + a.diagonal_values * b._diagonal()
        return type(self)(features, spectrum, diagonal)

    def _prod_batch(self, dim: int) -> LinearOperator:
        """Elementwise product along a batch dimension, dense: ranks would multiply."""
        return DenseCovarianceLinearOperator.from_matrix(self.to_dense().prod(dim))

    # -- algebra --------------------------------------------------------------------------------------------------

    def _precision(self) -> Tensor:
        """``1 / D`` (*batch, N), zero on rows without information."""
        diagonal = self.diagonal_values
        bad = ~(diagonal > 0.0)
        if bool(bad.any()):
            row = int(bad.any(0).nonzero()[0, 0]) if diagonal.dim() > 1 else int(bad.nonzero()[0, 0])
            raise NotPositiveDefiniteError(
                f"{self.features.shape[-1]} modes span fewer than the {self.shape[-1]} rows, and the diagonal is not "
                "positive: add noise, or use as many modes as rows",
                row=row,
            )
        return 1.0 / diagonal

    def _inner(self) -> tuple[Tensor, Tensor, Tensor]:
        """``1 / D``, ``S^1/2`` and the Cholesky factor of ``A = I + S^1/2 Phi^T D^-1 Phi S^1/2``."""
        if self._capacitance is None:
            precision = self._precision()
            constant = _constant(self.diagonal_values)
            if constant is not None:
                gram = gram_of(self.features) * (1.0 / constant).unsqueeze(-1)
            else:
                gram = self.features.mT @ (precision.unsqueeze(-1) * self.features)
            root = self.spectrum.sqrt()
            matrix = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
            matrix = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
            self._capacitance = (precision, root, exact_cholesky(matrix, "I + S^1/2 Phi^T D^-1 Phi S^1/2"))
        precision, root, factor = self._capacitance
        return precision, root, factor

    @property
    def _few_rows(self) -> bool:
        """Whether there are no more rows than modes: then the matrix itself is the smaller one to factor."""
        few: bool = self.shape[-1] <= self.features.shape[-1]
        return few and not bool(torch.isinf(self.diagonal_values).any())

    def _dense_factor(self) -> Tensor:
        if self._capacitance is None:
            self._capacitance = (exact_cholesky(self.to_dense()),)
        return self._capacitance[0]

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        if self._few_rows:
            return torch.cholesky_solve(rhs, self._dense_factor())
        precision, root, factor = self._inner()
        scaled = precision.unsqueeze(-1) * rhs
        inner = torch.cholesky_solve(root.unsqueeze(-1) * (self.features.mT @ scaled), factor)
        return scaled - precision.unsqueeze(-1) * (self.features @ (root.unsqueeze(-1) * inner))

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T K^-1 rhs, log det K)``, exact; the determinant of the informative rows where some are not."""
        empty = torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)
        quad: Tensor = torch.zeros(0, dtype=self.dtype, device=self.device)
        if inv_quad_rhs is not None:
            rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
            each = self._quadratic(rhs)
            quad = each.sum(-1) if reduce_inv_quad else each
        return quad, self.logdet() if logdet else empty

    def _quadratic(self, rhs: Tensor) -> Tensor:
        """``rhs^T K^-1 rhs`` (*batch, C) as a sum of squares, which loses nothing at small noise."""
        if self._few_rows:
            white = torch.linalg.solve_triangular(self._dense_factor(), rhs, upper=False)
            return white.square().sum(-2)
        precision, root, factor = self._inner()
        constant = _constant(self.diagonal_values)
        if constant is None:
            data = self.features.mT @ (precision.unsqueeze(-1) * rhs)
        else:
            data = projection_of(self.features, rhs) / constant.unsqueeze(-1)
        projected = root.unsqueeze(-1) * data
        coefficients = torch.cholesky_solve(projected, factor)
        misfit = rhs - self.features @ (root.unsqueeze(-1) * coefficients)
        return (precision.unsqueeze(-1) * misfit.square()).sum(-2) + coefficients.square().sum(-2)

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        if self._few_rows:
            return 2.0 * self._dense_factor().diagonal(dim1=-2, dim2=-1).log().sum(-1)
        _, _, factor = self._inner()
        inner = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = _constant(self.diagonal_values)
        if constant is not None and bool(torch.isfinite(constant).all()):
            return inner + self.shape[-1] * constant.squeeze(-1).log()
        diagonal = self.diagonal_values
        return inner + torch.where(torch.isinf(diagonal), torch.ones_like(diagonal), diagonal).log().sum(-1)

    def root_decomposition(self, method: str | None = None) -> Any:
        """An exact root R (*batch, N, k + N or k), ``R R^T = K``; without a diagonal the k weighted modes suffice."""
        return RootLinearOperator(self._root_decomposition())

    def _root_decomposition(self) -> Any:
        modes = self._weighted()
        if not bool((self.diagonal_values != 0.0).any()):
            return to_linear_operator(modes)
        return to_linear_operator(torch.cat([modes, torch.diag_embed(self.diagonal_values.sqrt())], -1))

    def root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None, method: Any = None) -> Any:
        """The symmetric root of the inverse, dense (*batch, N, N)."""
        return RootLinearOperator(self._root_inv_decomposition())

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        eye = torch.eye(self.shape[-1], dtype=self.dtype, device=self.device).expand(*self.batch_shape, -1, -1)
        inverse = self.solve(eye)
        values, vectors = torch.linalg.eigh(0.5 * (inverse + inverse.mT))
        return to_linear_operator(vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2))

    def _cholesky(self, upper: bool = False) -> Any:
        from linear_operator.operators import TriangularLinearOperator

        factor = TriangularLinearOperator(exact_cholesky(self.to_dense()))
        return factor._transpose_nonbatch() if upper else factor

    def cholesky(self, upper: bool = False) -> Any:
        """The dense triangular factor: asked for by name, since no structure survives in it."""
        return self._cholesky(upper=upper)

    def diagonalization(self, method: str | None = None) -> Any:
        """Eigenvalues and eigenvectors by the dense solver: nothing is approximated."""
        return super().diagonalization(method="symeig")

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, N) in O(N k) each; a zero diagonal is allowed."""
        options: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        batch, (n, k) = self.batch_shape, self.features.shape[-2:]
        with torch.no_grad():
            modes = torch.randn(*batch, k, num_samples, **options)
            noise = torch.randn(*batch, n, num_samples, **options)
            draws = self._weighted() @ modes + self.diagonal_values.sqrt().unsqueeze(-1) * noise
        return refuse_gradient(draws.movedim(-1, 0), "draws from an eigenbasis covariance", self._args)


def _constant(diagonal: Tensor) -> Tensor | None:
    """The value (*batch, 1) of a diagonal that is stored once and expanded, else None."""
    return diagonal[..., :1] if diagonal.shape[-1] and diagonal.stride(-1) == 0 else None
