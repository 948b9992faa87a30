"""Operators that answer from one factorisation, with gradients by the adjoint of the product.

A subclass gives a differentiable ``_matmul`` and ``to_dense`` and one :class:`Factorisation`; solves, determinants and
their gradients follow: ``d(A^-1 b) = -A^-1 dA A^-1 b`` needs the product only, ``d log|A| = tr(A^-1 dA)`` is asked from
the factorisation. No gradient passes through an eigen-decomposition, so that equal eigenvalues do no harm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from linear_operator.operators import DenseLinearOperator, LinearOperator, RootLinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.memory import require_memory
from gpkit.operators.structured import StructuredLinearOperator, common_batch, refuse_gradient

__all__ = ["DenseFactorisation", "FactorisedLinearOperator", "Factorisation", "exact_cholesky"]

_CHUNK = 256


def exact_cholesky(matrix: Tensor, what: str = "the covariance matrix") -> Tensor:
    """Lower Cholesky factor of (*batch, N, N), without jitter.

    Raises:
        NotPositiveDefiniteError: with the first row whose pivot is not positive.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    failed = info.reshape(-1)
    if bool((failed > 0).any()):
        raise NotPositiveDefiniteError(
            f"{what} is not positive definite: add noise to the diagonal, or remove repeated points",
            row=int(failed[failed > 0][0]) - 1,
        )
    return factor


def _dense(matrix: Tensor) -> LinearOperator:
    """A covariance whose structure is lost."""
    from gpkit.operators.dense import DenseCovarianceLinearOperator  # one of the subclasses of what is defined here

    return DenseCovarianceLinearOperator.from_matrix(matrix)


class Factorisation(ABC):
    """What is computed once for a positive definite matrix A (*batch, N, N); knows no gradients."""

    @abstractmethod
    def solve(self, rhs: Tensor) -> Tensor:
        """``A^-1 rhs`` for (*batch2, N, C)."""

    @abstractmethod
    def logdet(self) -> Tensor:
        """(*batch,)."""

    def explained(self, cross: LinearOperator) -> Tensor:
        """``diag(C A^-1 C^T)`` (*batch, M) for a rectangular covariance C (*batch, M, N), some rows at a time."""
        pieces = []
        lead = (slice(None),) * len(cross.batch_shape)
        for start in range(0, cross.shape[-2], _CHUNK):
            rows = cross[(*lead, slice(start, start + _CHUNK), slice(None))].to_dense().mT
            pieces.append((rows * self.solve(rows)).sum(-2))
        return torch.cat(pieces, dim=-1) if pieces else torch.zeros(cross.shape[:-1], dtype=cross.dtype)

    @abstractmethod
    def logdet_gradients(self) -> tuple[Tensor | None, ...]:
        """``d log|A|`` with respect to each tensor of the operator's constructor, of its shape."""


class DenseFactorisation(Factorisation):
    """Cholesky factorisation of the matrix itself, rows of infinite noise left out.

    Args:
        operator: gives the matrix by ``to_dense``; its diagonal may be infinite in rows without information.
        remedy: what to do about a matrix too large for memory, the end of a sentence.

    Raises:
        NotPositiveDefiniteError: naming the row.
        MemoryEstimateError: if three such matrices do not fit.
    """

    def __init__(self, operator: FactorisedLinearOperator, remedy: str) -> None:
        self.operator = operator
        self.remedy = remedy
        n = operator.shape[-1]
        require_memory(
            3 * 8 * n * n * max(operator.batch_shape.numel(), 1), f"the dense factorisation of {n} points", remedy
        )
        self.hidden = torch.isinf(operator._diagonal().detach())
        self.factor = exact_cholesky(operator.detach()._visible_dense(self.hidden))

    def _masked(self, values: Tensor) -> Tensor:
        return values.masked_fill(self.hidden.unsqueeze(-1), 0.0)

    def solve(self, rhs: Tensor) -> Tensor:
        """``A^-1 rhs``, zero in rows without information."""
        return self._masked(torch.cholesky_solve(self._masked(rhs), self.factor))

    def logdet(self) -> Tensor:
        """Over the rows with information."""
        return 2.0 * self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def logdet_gradients(self) -> tuple[Tensor | None, ...]:
        """By the chain rule through the dense matrix."""
        inverse = torch.cholesky_inverse(self.factor)
        outside = self.hidden.unsqueeze(-1) | self.hidden.unsqueeze(-2)
        inverse = inverse.masked_fill(outside, 0.0)
        with torch.enable_grad():
            args = [t.detach().requires_grad_(True) for t in self.operator._args]
            dense = self.operator._like(*args)._visible_dense(self.hidden)
            return torch.autograd.grad((inverse * dense).sum(), args, allow_unused=True)


class _Solve(torch.autograd.Function):
    """``A^-1 rhs``."""

    @staticmethod
    def forward(ctx: Any, operator: FactorisedLinearOperator, rhs: Tensor, *args: Tensor) -> Tensor:
        out = operator.factorisation.solve(rhs)
        ctx.operator, ctx.shape = operator, rhs.shape
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        adjoint = ctx.operator.factorisation.solve(grad)
        args = ctx.operator._bilinear_derivative(-adjoint, out) if any(ctx.needs_input_grad[2:]) else ()
        args = args or (None,) * len(ctx.operator._args)
        return None, adjoint.sum_to_size(ctx.shape), *args


class _Evidence(torch.autograd.Function):
    """``(rhs^T A^-1 rhs per column, log|A|)``."""

    @staticmethod
    def forward(ctx: Any, operator: FactorisedLinearOperator, rhs: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
        solved = operator.factorisation.solve(rhs)
        ctx.operator, ctx.shape = operator, rhs.shape
        ctx.save_for_backward(solved)
        return (rhs * solved).sum(-2), operator.factorisation.logdet()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_quad: Tensor, grad_logdet: Tensor) -> tuple[Tensor | None, ...]:
        (solved,) = ctx.saved_tensors
        weighted = solved * grad_quad.unsqueeze(-2)
        grads: list[Tensor | None] = [None] * len(ctx.operator._args)
        if any(ctx.needs_input_grad[2:]):
            if solved.shape[-1]:
                grads = list(ctx.operator._bilinear_derivative(-weighted, solved))
            if bool((grad_logdet != 0.0).any()):
                for k, part in enumerate(ctx.operator.factorisation.logdet_gradients()):
                    if part is not None and ctx.needs_input_grad[2 + k]:
                        own = part.dim() - grad_logdet.dim()
                        term = part * grad_logdet.reshape(*grad_logdet.shape, *([1] * own))
                        grads[k] = term if grads[k] is None else grads[k] + term
        return None, (2.0 * weighted).sum_to_size(ctx.shape), *grads


class FactorisedLinearOperator(StructuredLinearOperator):
    """Base of the operators with one factorisation.

    The first tensor of a subclass's constructor is ``diagonal`` (*batch, N), the absorbed diagonal, where ``inf`` marks
    a row without information; the others have the same leading batch dimensions.
    """

    diagonal_values: Tensor
    _cache: Factorisation | None = None

    # -- to be given by the subclass ------------------------------------------------------------------------------

    def _factorise(self) -> Factorisation:
        raise NotImplementedError

    def _draw(self, num_samples: int) -> Tensor:
        """Draws (num_samples, *batch, N) without the absorbed diagonal."""
        raise NotImplementedError

    def _dense_covariance(self) -> Tensor:
        """The differentiable matrix without the absorbed diagonal, (*batch, N, N)."""
        raise NotImplementedError

    # -- what follows from it -------------------------------------------------------------------------------------

    def _like(self, *args: Any) -> Any:
        """An operator of the same kind from other tensors."""
        return type(self)(*args, **self._kwargs)

    @property
    def factorisation(self) -> Factorisation:
        """Computed when first asked for, without gradients."""
        if self._cache is None:
            with torch.no_grad():
                self._cache = self._factorise()
        return self._cache

    def evaluate_kernel(self) -> FactorisedLinearOperator:
        """Itself, with its factorisation; the base class would build another one."""
        return self

    def _size(self) -> torch.Size:
        return torch.Size((*self.diagonal_values.shape, self.diagonal_values.shape[-1]))

    def _transpose_nonbatch(self) -> FactorisedLinearOperator:
        return self

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, N, N): quadratic memory, for small N and for tests."""
        return self._dense_covariance() + torch.diag_embed(self.diagonal_values)

    def _visible_dense(self, hidden: Tensor) -> Tensor:
        """The matrix with the hidden rows and columns (*batch, N) replaced by those of the identity."""
        matrix = self._dense_covariance()
        diagonal = self.diagonal_values
        if bool(hidden.any()):
            matrix = matrix.masked_fill(hidden.unsqueeze(-1) | hidden.unsqueeze(-2), 0.0)
            diagonal = diagonal.masked_fill(hidden, 1.0)
        return matrix + torch.diag_embed(diagonal)

    def _expand_batch(self, batch_shape: torch.Size) -> Any:
        lead = len(self.batch_shape)
        return self._like(*(t.expand(*batch_shape, *t.shape[lead:]) for t in self._args))

    def repeat(self, *sizes: Any) -> LinearOperator:
        """Repeat along batch dimensions (the last two sizes must be 1)."""
        flat = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
        if tuple(flat[-2:]) != (1, 1):
            raise RuntimeError("repeat along the matrix dimensions would not be a covariance matrix")
        lead = len(self.batch_shape)
        return self._like(*(t.repeat(*flat[:-2], *(1 for _ in t.shape[lead:])) for t in self._args))

    def _in_batch(self, batch: torch.Size) -> Any:
        return self if batch == self.batch_shape else self._expand_batch(batch)

    def _add_diagonal_values(self, values: Tensor) -> Any:
        base = self._in_batch(common_batch(self.batch_shape, values.shape[:-1]))
        diagonal = base.diagonal_values + values.expand(base.diagonal_values.shape)
        return base._like(diagonal, *base._args[1:])

    def _mul_matrix(self, other: Any) -> LinearOperator:
        """Elementwise product, dense where no subclass knows better: GPyTorch's lazy one multiplies low-rank roots."""
        n = self.shape[-1]
        require_memory(
            3 * 8 * n * n * max(self.batch_shape.numel(), 1),
            f"the elementwise product of two covariances of {n} points",
            "multiply the kernels of each axis instead",
        )
        return _dense(self.to_dense() * to_linear_operator(other).to_dense())

    def _prod_batch(self, dim: int) -> LinearOperator:
        """Elementwise product along a batch dimension, dense: the base class assumes square roots."""
        return _dense(self.to_dense().prod(dim))

    def without_diagonal(self) -> Any:
        """The same covariance with no absorbed diagonal."""
        return self._like(torch.zeros_like(self.diagonal_values), *self._args[1:])

    def _bilinear_derivative(self, left_vecs: Tensor, right_vecs: Tensor) -> tuple[Tensor | None, ...]:
        left, right = (v.unsqueeze(-1) if v.dim() == 1 else v for v in (left_vecs, right_vecs))
        with torch.enable_grad():
            args = [t.detach().requires_grad_(t.requires_grad) for t in self._args]
            if not any(a.requires_grad for a in args):
                return (None,) * len(args)
            value = (left * self._like(*args)._product(right)).sum()
            found = iter(torch.autograd.grad(value, [a for a in args if a.requires_grad], allow_unused=True))
        return tuple(next(found) if a.requires_grad else None for a in args)

    def _product(self, rhs: Tensor) -> Tensor:
        """The product where rows without information have zero right-hand sides."""
        finite = self.diagonal_values.masked_fill(torch.isinf(self.diagonal_values), 0.0)
        return self._covariance_matmul(rhs) + finite.unsqueeze(-1) * rhs

    def _covariance_matmul(self, rhs: Tensor) -> Tensor:
        """The product without the absorbed diagonal, differentiable, (*batch2, N, C)."""
        raise NotImplementedError

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
        out = self._covariance_matmul(columns) + self.diagonal_values.unsqueeze(-1) * columns
        return out.squeeze(-1) if rhs.dim() == 1 else out

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """``[left] A^-1 right``, exact."""
        vector = right_tensor.dim() == 1
        rhs = right_tensor.unsqueeze(-1) if vector else right_tensor
        out: Tensor = _Solve.apply(self, rhs, *self._args)
        if left_tensor is not None:
            out = left_tensor @ out
        return out.squeeze(-1) if vector else out

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        return self.solve(rhs)

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """``(rhs^T A^-1 rhs, log|A|)``, exact; rows of infinite noise count as missing."""
        nothing = torch.zeros(0, dtype=self.dtype, device=self.device)
        if inv_quad_rhs is None:
            rhs = torch.zeros(*self.shape[:-1], 0, dtype=self.dtype, device=self.device)
        else:
            rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
        if logdet:
            quad, determinant = _Evidence.apply(self, rhs, *self._args)
        else:
            quad = (rhs * self.solve(rhs)).sum(-2)
            determinant = torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)
        if inv_quad_rhs is None:
            return nothing, determinant
        return (quad.sum(-1) if reduce_inv_quad else quad), determinant

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        return self.inv_quad_logdet(logdet=True)[1]

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, N)."""
        with torch.no_grad():
            draws = self._draw(num_samples)
            draws = draws + self.diagonal_values.sqrt() * torch.randn_like(draws)
        return refuse_gradient(draws, "draws from a structured covariance", tuple(self._args))

    def _dense_spectrum(self) -> tuple[Tensor, Tensor]:
        n = self.shape[-1]
        require_memory(
            4 * 8 * n * n * max(self.batch_shape.numel(), 1),
            f"the dense decomposition of {n} points",
            "ask for draws or solves, which keep the structure",
        )
        return torch.linalg.eigh(self.to_dense())

    def _dense_root(self, inverse: bool) -> LinearOperator:
        values, vectors = self._dense_spectrum()
        values = refuse_gradient(values.detach(), "a root of a structured covariance", tuple(self._args))
        vectors = vectors.detach()
        if inverse:
            if bool((values <= 0.0).any()):
                raise NotPositiveDefiniteError("the covariance matrix is singular: its inverse has no root; add noise")
            return DenseLinearOperator(vectors * values.rsqrt().unsqueeze(-2))
        return DenseLinearOperator(vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2))

    def _root_decomposition(self) -> Any:
        return self._dense_root(inverse=False)

    def _root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None) -> Any:
        return self._dense_root(inverse=True)

    def root_decomposition(self, method: str | None = None) -> Any:
        """Exact root R with ``R R^T = A``."""
        return RootLinearOperator(self._root_decomposition())

    def root_inv_decomposition(self, initial_vectors: Any = None, test_vectors: Any = None, method: Any = None) -> Any:
        """Exact root of the inverse."""
        return RootLinearOperator(self._root_inv_decomposition())

    def sqrt_inv_matmul(self, rhs: Tensor, lhs: Tensor | None = None) -> Any:
        """``A^-1/2 rhs`` with the symmetric root; with ``lhs`` also ``diag(lhs A^-1 lhs^T)``. Dense and exact."""
        values, vectors = self._dense_spectrum()
        columns = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
        out = vectors @ ((vectors.mT @ columns) * values.rsqrt().unsqueeze(-1))
        out = out.squeeze(-1) if rhs.dim() == 1 else out
        if lhs is None:
            return out
        return lhs @ out, ((lhs @ vectors) ** 2 / values.unsqueeze(-2)).sum(-1)

    def diagonalization(self, method: str | None = None) -> Any:
        """Eigenvalues and eigenvectors of the dense matrix: nothing is approximated."""
        return super().diagonalization(method="symeig")

    def _cholesky(self, upper: bool = False) -> Any:
        raise self._lose_structure("a triangular factor", "use root_decomposition, draw samples, or factor to_dense()")

    def cholesky(self, upper: bool = False) -> Any:
        """Triangular factor, where the structure has one."""
        return self._cholesky(upper=upper)
