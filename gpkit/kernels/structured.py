"""Kernels that become a structured operator, and combinations of them under GPyTorch's own wrappers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gpytorch
import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.operators.dense import DenseCovarianceLinearOperator
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
        for parameter in self.parameters():
            if parameter.dtype != x1.dtype and x1.dtype == torch.float64:
                raise InvalidDataError(
                    f"{type(self).__name__} has {str(parameter.dtype).removeprefix('torch.')} parameters but the "
                    "inputs are float64; cast the kernel with .double()"
                )
        if diag:
            return self.pairwise(x1, x2)
        if x1.shape == x2.shape and (x1 is x2 or torch.equal(x1, x2)):
            return self.gram(x1)
        return self.cross(x1, x2)


def is_structured(kernel: Any) -> bool:
    """Whether a kernel is a :class:`StructuredKernel`, or GPyTorch's scaled kernel, sum or product with such a part."""
    if isinstance(kernel, gpytorch.kernels.ScaleKernel):
        return is_structured(kernel.base_kernel)
    if isinstance(kernel, _COMPOSITES):
        return any(is_structured(part) for part in kernel.kernels)
    return isinstance(kernel, StructuredKernel)


def gram_of(kernel: Any, x: Tensor) -> StructuredLinearOperator:
    """Covariance operator of inputs (*batch, N, d) with themselves, for a kernel that :func:`is_structured`."""
    operator = _evaluate(kernel, (x,))
    if isinstance(operator, StructuredLinearOperator):
        return operator
    # A sum or product whose structure does not close: exact, and dense.
    return DenseCovarianceLinearOperator.from_matrix(operator.to_dense())


def cross_of(kernel: Any, x1: Tensor, x2: Tensor) -> LinearOperator:
    """Covariance operator between inputs (*batch, M, d) and (*batch, N, d); never mistaken for a square one."""
    return _evaluate(kernel, (x1, x2))


def _evaluate(kernel: Any, inputs: tuple[Tensor, ...]) -> LinearOperator:
    # A kernel that is called selects its dimensions itself; a scale kernel has a copy of those of its base.
    selects = isinstance(kernel, StructuredKernel | _COMPOSITES[0] | _COMPOSITES[1])
    if selects and kernel.active_dims is not None:
        inputs = tuple(x.index_select(-1, kernel.active_dims) for x in inputs)
    if isinstance(kernel, StructuredKernel):
        return kernel.gram(*inputs) if len(inputs) == 1 else kernel.cross(*inputs)
    if isinstance(kernel, gpytorch.kernels.ScaleKernel):
        base: LinearOperator = _evaluate(kernel.base_kernel, inputs)
        return base * kernel.outputscale[..., None, None] if kernel.outputscale.dim() else base * kernel.outputscale
    if not isinstance(kernel, _COMPOSITES):
        return _dense(kernel, inputs)
    first, *rest = (_evaluate(part, inputs) for part in kernel.kernels)
    for part in rest:
        first = first + part if isinstance(kernel, gpytorch.kernels.AdditiveKernel) else _product(first, part)
    return to_linear_operator(first)


def _dense(kernel: Any, inputs: tuple[Tensor, ...]) -> LinearOperator:
    """A part without structure of a structured kernel: exact, and dense."""
    matrix: Tensor = kernel(inputs[0], inputs[-1]).to_dense()
    return DenseCovarianceLinearOperator.from_matrix(matrix) if len(inputs) == 1 else to_linear_operator(matrix)


def _product(a: LinearOperator, b: LinearOperator) -> LinearOperator:
    """Elementwise product; dense where the structure does not close, since GPyTorch's lazy product is approximate."""
    if type(a) is type(b) and isinstance(a, StructuredLinearOperator):
        return a._mul_matrix(b)
    return to_linear_operator(a.to_dense() * b.to_dense())
