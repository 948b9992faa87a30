"""Observations anywhere in the box beside equations on a tensor grid: a border around the structured covariance.

With G the covariance of the equations' rows, solved by conjugate gradients, and B that with m observations, the
posterior given the equations has the covariance ``K - B^T G^-1 B`` at the observations: m systems are solved once, and
a factor of size m conditions on them. It is the same posterior as that of all rows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.dense import assemble, factorise
from gpkit.inference.collocation.exact.grid import GridPosterior
from gpkit.inference.collocation.exact.rows import Rows, RowTerm, apply, dense, grid_rows, jet_rows
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.posterior import FieldDraws

__all__ = ["BorderedPosterior"]

_BLOCK = 16
_ROUNDING = 1e-14


class BorderedPosterior:
    """A posterior on a grid, conditioned on scattered observations as well.

    Args:
        inner: Given the equations; its priors keep their scale.
        observations: Scattered rows with values and noise.

    Attributes:
        inner: Given the equations alone.
        diagnostics: Those of ``inner``, with the number of observations.

    Raises:
        ConvergenceError: A system of the border was not solved.
        NotPositiveDefiniteError: Two observations without noise say the same.
    """

    def __init__(self, inner: GridPosterior, observations: Sequence[Rows]) -> None:
        """Solve the border's systems and factorise what is left."""
        self.inner, self._observations = inner, tuple(observations)
        cross = torch.cat([torch.cat([dense(r, o, inner.priors) for o in observations], dim=1) for r in inner.rows])
        self._solved = torch.cat([inner.solve(part) for part in cross.split(_BLOCK, dim=1)], dim=1)
        given = assemble(observations, inner.priors, noise=False) - cross.T @ self._solved
        noise = torch.cat([o.noise.expand(len(o)) for o in observations])
        self._factor = factorise(0.5 * inner.scale * (given + given.T) + torch.diag(noise))
        self._noise = noise
        self._values = torch.cat([o.values for o in observations if o.values is not None])
        means = torch.cat([self._of_rows(inner.mean, o) for o in observations])
        self._weights = inner.scale * self._factor.solve((self._values - means)[:, None])
        self.diagnostics: dict[str, Any] = {**inner.diagnostics, "observations": len(self._values)}

    @staticmethod
    def _of_rows(function: Any, rows: Rows) -> Tensor:
        """Scattered functionals of a function of (jet, points), the points in its last dimension."""
        points = torch.stack(rows.coordinates, dim=1)
        parts = [t.coefficient.expand(len(rows)) * function(t.jet, points) for t in rows.terms]
        return torch.stack(parts).sum(0)

    def _moved(self, at: Rows, weights: Tensor) -> Tensor:
        """Covariance of rows with the observations given the equations, times weights (m, k); (p, k)."""
        priors, rows = self.inner.priors, self.inner.rows
        parts = torch.split(weights, [len(o) for o in self._observations])
        out = torch.zeros(len(at), weights.shape[1], dtype=torch.float64)
        for o, part in zip(self._observations, parts, strict=True):
            out += apply(at, o, priors, part)
        for r, part in zip(rows, torch.split(self._solved @ weights, [len(r) for r in rows]), strict=True):
            out -= apply(at, r, priors, part)
        return out

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean of a jet at points (m, d)."""
        return self.inner.mean(jet, points) + self._moved(jet_rows(jet, points), self._weights)[:, 0]

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean of a jet on a tensor grid."""
        at = grid_rows([RowTerm(jet, torch.ones((), dtype=torch.float64))], axes)
        return self.inner.mean_on_grid(jet, axes) + self._moved(at, self._weights).reshape(at.shape)

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance of a jet at points (m, d)."""
        return self.row_variance(jet_rows(jet, points))

    def row_variance(self, rows: Rows) -> Tensor:
        """Posterior variance of linear functionals at points, (m,)."""
        before = self.inner.row_variance(rows)
        cross = self.inner.scale * self._moved(rows, torch.eye(len(self._values), dtype=torch.float64))
        left = before - (self._factor.whiten(cross.T) ** 2).sum(0)
        # What cancels to rounding is not certainty.
        return torch.maximum(left, _ROUNDING * before)

    def sample(self, n: int, generator: torch.Generator) -> FieldDraws:
        """N joint draws: those given the equations, corrected by what the observations say they are off."""
        draws = self.inner.sample(n, generator)
        drawn = torch.cat([self._of_rows(draws, o) for o in self._observations], dim=1)
        noise = self._noise.sqrt() * torch.randn(drawn.shape, generator=generator, dtype=torch.float64)
        weights = self.inner.scale * self._factor.solve((self._values - drawn - noise).T)
        return _BorderedDraws(self, draws, weights)


class _BorderedDraws:
    def __init__(self, posterior: BorderedPosterior, draws: FieldDraws, weights: Tensor) -> None:
        self._posterior, self._draws, self._weights = posterior, draws, weights

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        return self._draws(jet, points) + self._posterior._moved(jet_rows(jet, points), self._weights).T
