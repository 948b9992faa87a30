"""Gaussian posterior of grid values around an optimum: the curvature of the objective without second derivatives.

The rows of equations and conditions, linearised at the optimum, are sums of products along the axes of whitened
coordinates. The precision of the weights is ``P = I + sum_i v_i J_i^T J_i``; its blocks are contracted axis by axis,
and in eigenvectors of the covariances it is nearly diagonal: factorised in units of its diagonal it keeps the digits
that a precision of grid values, with inverses of covariances, would lose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.gphm.roots import Roots

__all__ = ["Laplace", "LinearRows", "add_gram", "refuse_if_too_large"]

_LARGEST = 8000
"""Weights of a dense factorisation: half a gigabyte a matrix, and some 20 seconds."""


@dataclass(frozen=True, eq=False)
class LinearRows:
    """An equation on the grid, or a condition on a face of it, at a state.

    Attributes:
        slopes: Coefficient of every jet in its linearisation, broadcastable to the residual.
        residual: What its left side has too much, on the grid or the face.
        face: Part of the grid that it is about.
    """

    slopes: dict[Jet, Tensor]
    residual: Tensor
    face: tuple[slice, ...]


def refuse_if_too_large(size: int) -> None:
    """Check that a dense factorisation of so many weights is possible.

    Raises:
        InvalidDataError: It would take too long.
    """
    if size > _LARGEST:
        raise InvalidDataError(
            f"the uncertainty of gphm factorises a matrix of {size} grid values ({8e-9 * size**2:.1f} GB), at most "
            f"{_LARGEST} are possible: choose a smaller grid, or method='spectral'"
        )


class Laplace:
    """Precision of the weights, factorised.

    Args:
        roots: Of the fields.
        rows: Linearised at the optimum.
        precisions: Of the rows, one number each.
        scales: Variance of the weights of each field.
        grams: ``J_i^T J_i`` of the rows, where they have been made.

    Attributes:
        log_determinant: Of the precision; half of it, subtracted from the log density, is the log evidence.

    Raises:
        InvalidDataError: There are too many weights for a dense factorisation.
        ConvergenceError: The precision is not positive definite.
    """

    def __init__(
        self,
        roots: Roots,
        rows: Sequence[LinearRows],
        precisions: Sequence[float],
        scales: Sequence[float],
        grams: Sequence[Tensor] | None = None,
    ) -> None:
        """Assemble and factorise."""
        refuse_if_too_large(len(roots))
        self.roots, self.rows, self.precisions, self.scales = roots, tuple(rows), tuple(precisions), tuple(scales)
        matrix = torch.zeros(len(roots), len(roots), dtype=torch.float64)
        if grams is None:
            for r, v in zip(rows, precisions, strict=True):
                add_gram(matrix, roots, r, v)
        else:
            for gram, v in zip(grams, precisions, strict=True):
                matrix.add_(gram, alpha=v)
        self._prior = torch.cat(
            [
                torch.full((math.prod(f.shape),), 1.0 / s, dtype=torch.float64)
                for f, s in zip(roots.fields, scales, strict=True)
            ]
        )
        matrix.diagonal().add_(self._prior)
        self._scale = matrix.diagonal().rsqrt()
        matrix *= self._scale[:, None]
        matrix *= self._scale
        self._factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) or not bool(torch.isfinite(self._factor.diagonal()).all()):
            raise ConvergenceError(
                "the precision of the values is not positive definite within rounding: the precision of the equations, "
                f"{max(precisions, default=0.0):.1e}, is too high for this kernel"
            )
        self.log_determinant = 2.0 * float((self._factor.diagonal().log() - self._scale.log()).sum())

    def gradient(self, weights: Tensor) -> Tensor:
        """Of half the weights' squares and the rows' weighted squares, at the state of the rows, (W,)."""
        out = self._prior * weights
        for r, v in zip(self.rows, self.precisions, strict=True):
            for jet, c in r.slopes.items():
                out[self.roots.span(jet.field)] += v * self._adjoint(jet, c * r.residual, r.face)
        return out

    def _adjoint(self, jet: Jet, values: Tensor, face: tuple[slice, ...]) -> Tensor:
        for j, table in enumerate(self.roots.fields[jet.field].tables(jet, face)):
            values = torch.tensordot(table.T, values, dims=([1], [j])).movedim(0, j)
        return values.reshape(-1)

    def solve(self, right: Tensor) -> Tensor:
        """The precision's inverse times (W,) or (W, k)."""
        columns = right.reshape(len(right), -1) * self._scale[:, None]
        return (torch.cholesky_solve(columns, self._factor) * self._scale[:, None]).reshape(right.shape)

    def spread(self, jet: Jet, factors: Sequence[Tensor]) -> Tensor:
        """Variance (m,) of a jet at points because of the weights.

        Args:
            jet: The derivative.
            factors: Along each axis, in weights (m, N_j).
        """
        own = factors[0]
        for f in factors[1:]:
            own = (own[:, :, None] * f[:, None, :]).reshape(len(own), -1)
        span = self.roots.span(jet.field)
        columns = torch.zeros(len(self.roots), len(own), dtype=torch.float64)
        columns[span] = (own * self._scale[span]).T
        # Rows before the field's own stay zero: the triangle begins there.
        start = span.start
        moved = torch.linalg.solve_triangular(self._factor[start:, start:], columns[start:], upper=False)
        return (moved**2).sum(0)

    def draw(self, white: Tensor) -> Tensor:
        """Weights (W, n) with the posterior covariance, from standard normal numbers."""
        return torch.linalg.solve_triangular(self._factor.T, white, upper=True) * self._scale[:, None]

    def inverse(self) -> Tensor:
        """Covariance of the weights, (W, W)."""
        out = torch.cholesky_inverse(self._factor)
        out *= self._scale[:, None]
        out *= self._scale
        return out


def _gram(left: Sequence[Tensor], right: Sequence[Tensor], weight: Tensor) -> Tensor:
    """``sum_x weight(x) prod_j left_j[x_j, r_j] right_j[x_j, s_j]``, (r_1 r_2 ..., s_1 s_2 ...)."""
    d = len(left)
    if d == 1:
        return (left[0] * weight.reshape(-1, 1)).T @ right[0]
    if weight.dim() < d:
        weight = weight.reshape([1] * (d - weight.dim()) + list(weight.shape))
    out = weight
    for a, b in zip(left, right, strict=True):
        # The leading axis of the weight goes, a pair of weights comes at the end; one value counts for all points.
        if out.shape[0] == 1:
            pairs = (a.T @ b).reshape(1, -1)
        else:
            pairs = (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
        out = torch.tensordot(out, pairs, dims=([0], [0]))
    shape = [n for a, b in zip(left, right, strict=True) for n in (a.shape[1], b.shape[1])]
    order = [*range(0, 2 * d, 2), *range(1, 2 * d, 2)]
    return out.reshape(shape).permute(order).reshape(math.prod(shape[0::2]), math.prod(shape[1::2]))


def add_gram(matrix: Tensor, roots: Roots, rows: LinearRows, precision: float) -> None:
    """Add ``precision J^T J`` of rows in place."""
    for (a, c), (b, e) in itertools.combinations_with_replacement(rows.slopes.items(), 2):
        left, right = roots.fields[a.field].tables(a, rows.face), roots.fields[b.field].tables(b, rows.face)
        block = _gram(left, right, precision * torch.as_tensor(c * e))
        one, two = roots.span(a.field), roots.span(b.field)
        matrix[one, two] += block
        if a != b:
            matrix[two, one] += block.T
