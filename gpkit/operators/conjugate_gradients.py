"""Preconditioned conjugate gradients: only where a user has asked for them, with the residual they reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, GpkitError
from gpkit.operators.factorised import Factorisation

if TYPE_CHECKING:
    from gpkit.operators.grid import GridLinearOperator

__all__ = ["ConjugateGradients", "IterativeFactorisation", "conjugate_gradients"]


@dataclass(frozen=True)
class ConjugateGradients:
    """The request for iterative solves, an argument named ``solver``.

    Attributes:
        tolerance: Euclidean norm of the residual of every column, relative to that of its right-hand side.
        max_iterations: after which the solve is given up with an error.
    """

    tolerance: float = 1e-10
    max_iterations: int = 1000


def conjugate_gradients(
    matmul: Callable[[Tensor], Tensor],
    rhs: Tensor,
    precondition: Callable[[Tensor], Tensor],
    solver: ConjugateGradients,
) -> tuple[Tensor, float, int]:
    """Solve ``A x = rhs`` for a positive definite A, all columns together.

    Args:
        matmul: product with A, (*batch, N, C) to the same.
        rhs: (*batch, N, C).
        precondition: product with a positive definite approximation of the inverse.
        solver: tolerance and limit.

    Returns:
        The solution, the largest relative residual over all columns (computed from the solution, not carried along),
        and the number of iterations.

    Raises:
        ConvergenceError: if the tolerance is not reached, or the matrix is not positive definite.

    References:
        Hestenes & Stiefel (1952), J. Res. Natl. Bur. Stand. 49, 409.
    """
    size = rhs.norm(dim=-2, keepdim=True)
    size = torch.where(size > 0.0, size, torch.ones_like(size))
    out = torch.zeros_like(rhs)
    residual = rhs.clone()
    iterations = 0
    for _restart in range(3):
        # A restart from the true residual takes back what rounding has added to the one that was carried along.
        direction = precondition(residual)
        inner = (residual * direction).sum(-2, keepdim=True)
        while iterations < solver.max_iterations:
            if bool((residual.norm(dim=-2, keepdim=True) <= solver.tolerance * size).all()):
                break
            image = matmul(direction)
            curvature = (direction * image).sum(-2, keepdim=True)
            if bool((curvature < 0.0).any()):
                raise ConvergenceError(
                    "conjugate gradients met a direction of negative curvature: the matrix is not positive definite"
                )
            step = torch.where(curvature > 0.0, inner / curvature, torch.zeros_like(inner))
            out = out + step * direction
            residual = residual - step * image
            better = precondition(residual)
            next_inner = (residual * better).sum(-2, keepdim=True)
            ratio = torch.where(inner > 0.0, next_inner / inner, torch.zeros_like(inner))
            direction, inner = better + ratio * direction, next_inner
            iterations += 1
        residual = rhs - matmul(out)
        reached = float((residual.norm(dim=-2, keepdim=True) / size).max()) if rhs.numel() else 0.0
        if reached <= solver.tolerance:
            return out, reached, iterations
    raise ConvergenceError(
        f"conjugate gradients reached a relative residual of {reached:.1e} after {iterations} iterations, not "
        f"{solver.tolerance:.1e}; allow more, ask for less, or add noise"
    )


class IterativeFactorisation(Factorisation):
    """Solves by conjugate gradients, preconditioned by the matrix of equal noise on the whole grid. No determinant.

    Args:
        operator: the covariance; rows of infinite noise count as missing.
        precondition: product with an approximate inverse, (*batch, N, C) to the same.
        solver: tolerance and limit.

    Attributes:
        residual: Largest relative residual of any solve so far.
        iterations: Of the last solve.
    """

    def __init__(
        self, operator: GridLinearOperator, precondition: Callable[[Tensor], Tensor], solver: ConjugateGradients
    ) -> None:
        self.operator = operator.detach()
        self.hidden = torch.isinf(operator.diagonal_values.detach()).unsqueeze(-1)
        self.precondition = precondition
        self.solver = solver
        self.residual = 0.0
        self.iterations = 0

    def _masked(self, values: Tensor) -> Tensor:
        return values.masked_fill(self.hidden, 0.0)

    def solve(self, rhs: Tensor) -> Tensor:
        """To the tolerance asked for."""
        batch = torch.broadcast_shapes(self.operator.batch_shape, rhs.shape[:-2])
        rhs = self._masked(rhs.expand(*batch, *rhs.shape[-2:]))
        out, residual, self.iterations = conjugate_gradients(
            lambda v: self._masked(self.operator._product(v)),
            rhs,
            lambda v: self._masked(self.precondition(v)),
            self.solver,
        )
        self.residual = max(self.residual, residual)
        return out

    def logdet(self) -> Tensor:
        """Refused."""
        raise self._refusal()

    def logdet_gradients(self) -> tuple[Tensor | None, ...]:
        """Refused."""
        raise self._refusal()

    @staticmethod
    def _refusal() -> GpkitError:
        return GpkitError(
            "conjugate gradients give no determinant: keep the hyper-parameters fixed, or train on cells with equal "
            "noise, whose determinant is exact"
        )
