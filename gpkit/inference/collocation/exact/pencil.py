"""Preconditioner of sums of one-variable operators applied to a product Gaussian process.

Let ``L = L_1 + ... + L_d`` with L_j acting on axis j. On a grid, with ``V_j = cov(u, u)``, ``C_j = cov(L_j u, u)`` and
``W_j = cov(L_j u, L_j u)`` of axis j, and everything whitened by ``V_j = G_j G_j^T``,

    cov(L u, L u) = (x)G_j [ sum_j W_j + sum_{j != k} T_j (x) T_k^T ] (x)G_j^T,   T_j = G_j^-1 C_j G_j^-T.

T_j is the part of L_j u that the values of u on the grid determine: it is a contraction of ``W_j^(1/2)``, nearly
orthogonal where the grid resolves the process. Replacing it by the nearest ``S_j = W_j^(1/2) Q_j``, Q_j the orthogonal
polar factor of ``W_j^(-1/2) T_j``, makes the sum a square,

    P = (x)G_j (S_1 + ... + S_d)(S_1 + ... + S_d)^T (x)G_j^T,

with the right diagonal terms W_j and nearly the right cross terms. It is inverted by two Sylvester equations. No two of
the matrices are assumed to be diagonal in a common basis, which is what fails for oscillating kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError

__all__ = ["AxisPencil", "SylvesterPreconditioner", "axis_pencil"]

_LARGEST_EIGENVECTOR_CONDITION = 1e6


@dataclass(frozen=True, eq=False)
class AxisPencil:
    """What one axis contributes.

    Attributes:
        root: G, (n, n), lower triangular, ``V = G G^T``.
        operator: S, (n, n).
        contraction: Singular values of ``W^(-1/2) T``: 1 where the grid determines the operator, 0 where it does not.
    """

    root: Tensor
    operator: Tensor
    contraction: Tensor


def axis_pencil(values: Tensor, cross: Tensor, both: Tensor) -> AxisPencil:
    """Whiten an axis and find its square root S.

    Args:
        values: ``V = cov(u, u)``, (n, n).
        cross: ``C = cov(L u, u)``.
        both: ``W = cov(L u, L u)``.

    Raises:
        NotPositiveDefiniteError: ``V`` has no Cholesky factor; a nugget is needed.
    """
    root, info = torch.linalg.cholesky_ex(values)
    if int(info):
        raise NotPositiveDefiniteError("the covariance of an axis is numerically singular", row=int(info) - 1)

    def whiten(matrix: Tensor) -> Tensor:
        left = torch.linalg.solve_triangular(root, matrix, upper=False)
        return torch.linalg.solve_triangular(root, left.T, upper=False).T

    t, w = whiten(cross), whiten(both)
    eigenvalues, vectors = torch.linalg.eigh(0.5 * (w + w.T))
    size = eigenvalues.clamp_min(1e-15 * float(eigenvalues[-1])).sqrt()
    left, singular, right = torch.linalg.svd(vectors / size @ vectors.T @ t)
    return AxisPencil(root, (vectors * size) @ vectors.T @ (left @ right), singular)


class SylvesterPreconditioner:
    """``P^-1`` of the module's formula.

    Args:
        pencils: One per axis.

    Attributes:
        eigenvector_condition: Largest condition number of the eigenvectors of S_j; infinite where Schur forms are used.
    """

    def __init__(self, pencils: Sequence[AxisPencil]) -> None:
        """Diagonalise every S_j, or bring two of them to Schur form where that is not stable."""
        self._roots = [p.root for p in pencils]
        self._operators = [p.operator for p in pencils]
        eyes = [torch.eye(len(g), dtype=g.dtype) for g in self._roots]
        self._whitening = [
            torch.linalg.solve_triangular(g, e, upper=False) for g, e in zip(self._roots, eyes, strict=True)
        ]
        n = len(pencils)
        decompositions = [torch.linalg.eig(p.operator) for p in pencils]
        self.eigenvector_condition = max(float(torch.linalg.cond(v)) for _, v in decompositions)
        self._schur: list[tuple[Tensor, Tensor]] | None = None
        if n == 2 and not self.eigenvector_condition < _LARGEST_EIGENVECTOR_CONDITION:
            self.eigenvector_condition = math.inf
            self._schur = []
            for p in pencils:
                form, basis = scipy.linalg.schur(p.operator.numpy(), output="real")
                self._schur.append((torch.from_numpy(form), torch.from_numpy(basis)))
            return
        total = torch.zeros([1] * n, dtype=torch.complex128)
        for j, (values, _) in enumerate(decompositions):
            total = total + values.reshape([-1 if k == j else 1 for k in range(n)])
        self._total = total
        real = all(float(e.imag.abs().max()) == 0.0 for e, _ in decompositions)
        self._vectors = [v.real.contiguous() if real else v for _, v in decompositions]
        # A preconditioner, applied as products to grids of columns: rounding in it costs iterations, and no digits.
        self._inverses = [torch.linalg.inv(v) for v in self._vectors]
        self._inverse_total = 1.0 / (total.real if real else total)

    def solve(self, residual: Tensor) -> Tensor:
        """``P^-1 r`` for r of shape (n_1, ..., n_d, k)."""
        inner = self._modes(self._whitening, residual)
        outer = self._sum_inverse(self._sum_inverse(inner, False), True)
        return self._modes([g.T for g in self._whitening], outer)

    @staticmethod
    def _modes(factors: Sequence[Tensor], tensor: Tensor) -> Tensor:
        for j, m in enumerate(factors):
            tensor = torch.tensordot(m, tensor, dims=([1], [j])).movedim(0, j)
        return tensor

    def _sum_inverse(self, tensor: Tensor, transposed: bool) -> Tensor:
        """``(S_1 + ... + S_d)^-1`` or its transpose."""
        if self._schur is not None:
            return self._bartels_stewart(tensor, transposed)
        first = [v.T for v in self._vectors] if transposed else self._inverses
        second = [v.T for v in self._inverses] if transposed else self._vectors
        modes = self._modes(first, tensor.to(first[0].dtype))
        return self._modes(second, modes * self._inverse_total[..., None]).real

    def _bartels_stewart(self, tensor: Tensor, transposed: bool) -> Tensor:
        assert self._schur is not None
        (a, qa), (b, qb) = self._schur
        out = torch.empty_like(tensor)
        solve = scipy.linalg.lapack.dtrsyl
        for k in range(tensor.shape[-1]):
            g = (qa.T @ tensor[..., k] @ qb).numpy()
            # S E + E S'^T = G, or S^T E + E S' = G.
            kinds = ("T", "N") if transposed else ("N", "T")
            x, scale, _ = solve(a.numpy(), b.numpy(), g, trana=kinds[0], tranb=kinds[1])
            out[..., k] = qa @ torch.from_numpy(scale * x) @ qb.T
        return out

    def root(self, white: Tensor) -> Tensor:
        """``B e`` with ``P = B B^T``, for e of shape (n_1, ..., n_d, k)."""
        total = torch.zeros_like(white)
        for j, s in enumerate(self._operators):
            total = total + torch.tensordot(s, white, dims=([1], [j])).movedim(0, j)
        return self._modes(self._roots, total)

    def logdet(self) -> float:
        """``log |P|``."""
        sizes = [len(g) for g in self._roots]
        cells = math.prod(sizes)
        total = 0.0
        for n, g in zip(sizes, self._roots, strict=True):
            total += 2.0 * cells / n * float(g.diagonal().log().sum())
        if self._schur is None:
            return total + 2.0 * float(self._total.abs().log().sum())
        eigenvalues = [torch.linalg.eigvals(s) for s in self._operators]
        return total + 2.0 * float((eigenvalues[0][:, None] + eigenvalues[1]).abs().log().sum())
