"""Kernels that become a structured operator, and combinations of them under GPyTorch's own wrappers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gpytorch
import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators.dense_factorised import DenseFactorisedLinearOperator
from gpkit.operators.structured import StructuredLinearOperator

__all__ = ["StructuredKernel", "cross_of", "gram_of", "is_structured"]

_COMPOSITES = (gpytorch.kernels.AdditiveKernel, gpytorch.kernels.ProductKernel)


class StructuredKernel(gpytorch.kernels.Kernel):
    """A kernel that says which operator it becomes, at one set of inputs and between two.

    Scaled by ``gpytorch.kernels.ScaleKernel``, added and multiplied it keeps its structure where the operators close.
    """

    @abstractmethod
    def gram(self, x: Tensor) -> StructuredLinearOperator:
        """Covariance operator of inputs (*batch, N, d) with themselves."""

    @abstractmethod
    def cross(self, x1: Tensor, x2: Tensor) -> LinearOperator:
        """Covariance operator between inputs (*batch, M, d) and (*batch, N, d)."""

    @abstractmethod
    def pairwise(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Covariance of paired inputs (*batch, N, d), (*batch, N)."""

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between inputs; equal inputs give the square operator."""
        if last_dim_is_batch:
            raise NotImplementedError("last_dim_is_batch is not supported; use active_dims or a grid kernel")
        if diag:
            return self.pairwise(x1, x2)
        if x1.shape == x2.shape and (x1 is x2 or torch.equal(x1, x2)):
            return self.gram(x1)
        return self.cross(x1, x2)


def is_structured(kernel: Any) -> bool:
    """Whether a kernel is a :class:`StructuredKernel`, or GPyTorch's scaled kernel, sum or product of such."""
    if isinstance(kernel, gpytorch.kernels.ScaleKernel):
        return is_structured(kernel.base_kernel)
    if isinstance(kernel, _COMPOSITES):
        return len(kernel.kernels) > 0 and all(is_structured(part) for part in kernel.kernels)
    return isinstance(kernel, StructuredKernel)


def gram_of(kernel: Any, x: Tensor) -> StructuredLinearOperator:
    """Covariance operator of inputs (*batch, N, d) with themselves, for a kernel that :func:`is_structured`."""
    operator = _evaluate(kernel, (x,))
    if isinstance(operator, StructuredLinearOperator):
        return operator
    # A sum or product whose structure does not close: exact, and dense.
    return DenseFactorisedLinearOperator.from_matrix(operator.to_dense())


def cross_of(kernel: Any, x1: Tensor, x2: Tensor) -> LinearOperator:
    """Covariance operator between inputs (*batch, M, d) and (*batch, N, d); never mistaken for a square one."""
    return _evaluate(kernel, (x1, x2))


def _evaluate(kernel: Any, inputs: tuple[Tensor, ...]) -> LinearOperator:
    if kernel.active_dims is not None and not isinstance(kernel, gpytorch.kernels.ScaleKernel):
        inputs = tuple(x.index_select(-1, kernel.active_dims) for x in inputs)
    if isinstance(kernel, StructuredKernel):
        return kernel.gram(*inputs) if len(inputs) == 1 else kernel.cross(*inputs)
    if isinstance(kernel, gpytorch.kernels.ScaleKernel):
        base: LinearOperator = _evaluate(kernel.base_kernel, inputs)
        return base * kernel.outputscale[..., None, None] if kernel.outputscale.dim() else base * kernel.outputscale
    first, *rest = (_evaluate(part, inputs) for part in kernel.kernels)
    for part in rest:
        first = first + part if isinstance(kernel, gpytorch.kernels.AdditiveKernel) else _product(first, part)
    return to_linear_operator(first)


def _product(a: LinearOperator, b: LinearOperator) -> LinearOperator:
    """Elementwise product; dense where the structure does not close, since GPyTorch's lazy product is approximate."""
    if type(a) is type(b) and isinstance(a, StructuredLinearOperator):
        return a._mul_matrix(b)
    return to_linear_operator(a.to_dense() * b.to_dense())
