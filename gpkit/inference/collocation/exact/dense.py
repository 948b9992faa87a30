"""Exact conditioning on any rows by one dense Cholesky factorisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact.priors import FieldPrior
from gpkit.inference.collocation.exact.rows import (
    Rows,
    RowTerm,
    apply,
    chunks,
    dense,
    grid_rows,
    jet_rows,
    prior_variance,
)
from gpkit.inference.collocation.forms import Jet

__all__ = ["DensePosterior", "ScaledCholesky", "assemble", "factorise"]

_FIRST_JITTER = 1e-14
_LAST_JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class ScaledCholesky:
    """``D G D + jitter I = R R^T`` with D such that the diagonal of D G D is one.

    Attributes:
        factor: R, lower triangular.
        scale: Diagonal of D.
        jitter: What had to be added to the unit diagonal.
    """

    factor: Tensor
    scale: Tensor
    jitter: float

    def solve(self, b: Tensor) -> Tensor:
        """``G^-1 b`` for b of shape (n, k)."""
        d = self.scale[:, None]
        return d * torch.cholesky_solve(d * b, self.factor)

    def whiten(self, b: Tensor) -> Tensor:
        """``R^-1 D b``: its columns' inner products are ``b^T G^-1 b``."""
        return torch.linalg.solve_triangular(self.factor, self.scale[:, None] * b, upper=False)

    def logdet(self) -> Tensor:
        """``log |G|``."""
        return 2.0 * (self.factor.diagonal().log().sum() - self.scale.log().sum())


def factorise(gram: Tensor, least: float = _FIRST_JITTER) -> ScaledCholesky:
    """Scale a covariance matrix to a unit diagonal and factorise it with the least jitter that works.

    Args:
        gram: (n, n), symmetric.
        least: The jitter to begin with, relative to the unit diagonal; it grows by factors of 10 up to 1e-6.

    Raises:
        NotPositiveDefiniteError: A variance is not positive, or no jitter up to 1e-6 is enough.
    """
    diagonal = gram.diagonal()
    if len(diagonal) and not bool((diagonal > 0.0).all()):
        row = int(torch.nonzero(~(diagonal > 0.0))[0])
        raise NotPositiveDefiniteError(
            f"the prior variance of a row is {float(diagonal[row]):.3g}: two conditions may say the same", row=row
        )
    scale = diagonal.rsqrt()
    scaled = gram * scale[:, None] * scale
    jitter = least
    while True:
        matrix = scaled.clone()
        matrix.diagonal().add_(jitter)
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) == 0 and bool(torch.isfinite(factor.diagonal()).all()):
            return ScaledCholesky(factor, scale, jitter)
        jitter *= 10.0
        if jitter > _LAST_JITTER * 1.01:
            raise NotPositiveDefiniteError(
                "the covariance of equations and conditions is not positive definite even with a jitter of 1e-6",
                row=int(info) - 1,
            )


def assemble(rows: Sequence[Rows], priors: Sequence[FieldPrior], noise: bool = True) -> Tensor:
    """Covariance of all rows, (n, n), with the variances of their noise on the diagonal."""
    blocks: list[list[Tensor]] = [[torch.empty(0)] * len(rows) for _ in rows]
    for i, a in enumerate(rows):
        for j in range(i, len(rows)):
            block = dense(a, rows[j], priors)
            blocks[i][j] = block
            if j > i:
                blocks[j][i] = block.T
    gram = torch.cat([torch.cat(line, dim=1) for line in blocks])
    if noise:
        gram = gram + torch.diag(torch.cat([r.noise.expand(len(r)) for r in rows]))
    return gram


class DensePosterior:
    """Posterior of fields given rows, through the Cholesky factor of the rows' covariance.

    Args:
        rows: What is conditioned on, with values and noise.
        priors: One per field.
        fit_scale: Whether the priors are multiplied by the scale of largest likelihood.
        jitter: The least jitter to try, see :func:`factorise`.

    Attributes:
        diagnostics: Jitter, condition number estimate, log evidence, number of rows.
    """

    def __init__(
        self,
        rows: Sequence[Rows],
        priors: Sequence[FieldPrior],
        fit_scale: bool = False,
        jitter: float = _FIRST_JITTER,
    ) -> None:
        """Factorise."""
        self.rows = tuple(rows)
        self.priors = tuple(priors)
        self.factor = factorise(assemble(rows, priors), jitter)
        values = torch.cat([_values(r) for r in rows])
        self.weights = self.factor.solve(values[:, None])[:, 0]
        self._parts = torch.split(self.weights, [len(r) for r in rows])
        pivots = self.factor.factor.diagonal()
        quadratic = float(values @ self.weights)
        n = len(values)
        self.scale = max(quadratic / max(n, 1), 1e-300) if fit_scale else 1.0
        logdet = float(self.factor.logdet()) + n * math.log(self.scale)
        evidence = -0.5 * (quadratic / self.scale + logdet + n * math.log(2.0 * math.pi))
        self.diagnostics: dict[str, Any] = {
            "rows": n,
            "jitter": self.factor.jitter,
            "output_scale": self.scale,
            "pivot_ratio": float(pivots.max() / pivots.min()) ** 2,
            "log_evidence": evidence,
            "quadratic_form_per_row": quadratic / max(n, 1),
        }

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean of a jet at points (m, d)."""
        return self._mean(jet_rows(jet, points))

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean of a jet on a tensor grid."""
        rows = grid_rows([RowTerm(jet, torch.ones((), dtype=torch.float64))], axes)
        return self._mean(rows).reshape(rows.shape)

    def _mean(self, at: Rows) -> Tensor:
        total = torch.zeros(len(at), 1, dtype=torch.float64)
        for r, part in zip(self.rows, self._parts, strict=True):
            total += apply(at, r, self.priors, part[:, None])
        return total[:, 0]

    def cross(self, at: Rows) -> Tensor:
        """Covariance of the rows conditioned on with other rows, (n, m)."""
        return torch.cat([dense(r, at, self.priors) for r in self.rows])

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance of a jet at points (m, d)."""
        return self.row_variance(jet_rows(jet, points))

    def row_variance(self, rows: Rows) -> Tensor:
        """Posterior variance of linear functionals at points or on one axis, (m,)."""
        parts = []
        for _, at in chunks(rows, max(1, 8_000_000 // max(1, len(self.weights)))) if len(rows) else ():
            white = self.factor.whiten(self.cross(at))
            prior = prior_variance(at, self.priors)
            # Below the jitter nothing is resolved: what cancels there is not certainty.
            parts.append(torch.maximum(prior - (white * white).sum(0), self.factor.jitter * prior))
        return self.scale * (torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64))

    def sample(self, n: int, generator: torch.Generator) -> DenseDraws:
        """N joint draws, exact at any points in any order of asking."""
        return DenseDraws(self, n, generator)


class DenseDraws:
    """Draws of a posterior that remember what they have shown: each call is conditioned on all earlier ones.

    Args:
        posterior: Of the fields.
        n: Number of draws.
        generator: Source of randomness.
    """

    def __init__(self, posterior: DensePosterior, n: int, generator: torch.Generator) -> None:
        """Nothing is drawn before it is asked for."""
        self._posterior = posterior
        self._n = n
        self._generator = generator
        self._seen: list[Rows] = []
        self._white: list[Tensor] = []
        self._factor = torch.zeros(0, 0, dtype=torch.float64)
        self._normal = torch.zeros(0, n, dtype=torch.float64)

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        posterior = self._posterior
        at = jet_rows(jet, points)
        white = posterior.factor.whiten(posterior.cross(at))
        own = dense(at, at, posterior.priors)
        covariance = own - white.T @ white
        if self._seen:
            old = torch.cat([dense(r, at, posterior.priors) for r in self._seen])
            cross = old - torch.cat(self._white, dim=1).T @ white
            left = torch.linalg.solve_triangular(self._factor, cross, upper=False)
            covariance = covariance - left.T @ left
        else:
            left = torch.zeros(0, len(points), dtype=torch.float64)
        # What is left of a variance that conditioning has cancelled is rounding of the prior variance.
        floor = 1e-15 * own.diagonal().max() if len(points) else torch.zeros(())
        root = _root(covariance, float(floor))
        normal = torch.randn(len(points), self._n, generator=self._generator, dtype=torch.float64)
        draw = left.T @ self._normal + root @ normal
        size = len(self._factor)
        grown = torch.zeros(size + len(points), size + len(points), dtype=torch.float64)
        grown[:size, :size] = self._factor
        grown[size:, :size] = left.T
        grown[size:, size:] = root
        self._factor, self._normal = grown, torch.cat([self._normal, normal])
        self._seen.append(at)
        self._white.append(white)
        return (posterior.mean(jet, points)[:, None] + math.sqrt(posterior.scale) * draw).T


def _root(covariance: Tensor, floor: float) -> Tensor:
    """Cholesky factor with the least addition, from rounding level upwards, that makes the matrix definite."""
    addition = max(floor, 1e-300)
    for _ in range(24):
        matrix = covariance.clone()
        matrix.diagonal().add_(addition)
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) == 0:
            return factor
        addition *= 10.0
    raise NotPositiveDefiniteError("the posterior covariance of the points asked for is not positive definite")


def _values(rows: Rows) -> Tensor:
    if rows.values is None:
        return torch.zeros(len(rows), dtype=torch.float64)
    return rows.values
