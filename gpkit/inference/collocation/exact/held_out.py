"""What the equations say of a posterior between the points of its grid, and deviations that cover what they say.

With exact data nothing is random but the discretisation. The evidence of the values on the grid fixes the amplitude of
a stationary prior, and neither fronts nor frequencies that the grid does not hold are draws of it. The equations hold
between the points as well: their residual there, which no row has seen, says how wrong the posterior is, and the
difference to a solution that meets them better says where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.rows import Rows, RowTerm
from gpkit.inference.collocation.forms import Box, Jet, Parameters, Problem, evaluate
from gpkit.inference.collocation.posterior import FieldDraws, FieldPosterior

__all__ = ["CoveringPosterior", "held_out_points", "held_out_scores", "off_grid_residual"]

_INSIDE = 160
_NEAR_FACES = 96
_SAFETY = 1.5


def held_out_points(box: Box, axes: Sequence[Tensor], seed: int = 0) -> Tensor:
    """Points (m, d) between those of a grid: in the whole box, and some in the outermost cells of every axis."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(_INSIDE + _NEAR_FACES, box.dim, generator=generator, dtype=torch.float64)
    for k in range(_NEAR_FACES):
        axis, side = k % box.dim, (k // box.dim) % 2
        share = float(points[_INSIDE + k, axis]) / max(len(axes[axis]) - 1, 1)
        points[_INSIDE + k, axis] = share if side == 0 else 1.0 - share
    lower, lengths = torch.tensor(box.lower, dtype=torch.float64), torch.tensor(box.lengths, dtype=torch.float64)
    return lower + lengths * points


def _residuals(
    problem: Problem, posterior: FieldPosterior, parameters: Parameters, points: Tensor
) -> list[tuple[Tensor, Tensor, dict[Jet, Tensor]]] | None:
    """Of every equation: its residual, its source and the jets at points; None where a source is known on a grid."""
    if any(e.source.values is not None for e in problem.equations):
        return None
    coordinates = [points[:, j].contiguous() for j in range(points.shape[1])]
    found = []
    for e in problem.equations:
        source = torch.full((len(points),), float(e.source.constant), dtype=torch.float64)
        if e.source.function is not None:
            source = evaluate(e.source.function, coordinates, "the source")
        if e.source.parametric is not None:
            source = source + e.source.parametric(coordinates, parameters)
        jets = {j: posterior.mean(j, points) for j in e.all_jets}
        found.append((source - e.left_side(coordinates, jets, parameters), source, jets))
    return found


def off_grid_residual(
    problem: Problem, posterior: FieldPosterior, parameters: Parameters, points: Tensor
) -> float | None:
    """Root mean square of the equations' residuals at points, relative to their largest term.

    Returns:
        None where a source is known on a grid only.
    """
    found = _residuals(problem, posterior, parameters, points)
    if found is None:
        return None
    coordinates = [points[:, j].contiguous() for j in range(points.shape[1])]
    worst = 0.0
    for e, (residual, source, jets) in zip(problem.equations, found, strict=True):
        sizes = [source.pow(2).mean()]
        sizes += [(t.coefficient(coordinates, parameters) * jets[t.jet]).pow(2).mean() for t in e.terms]
        ratio = float(residual.pow(2).mean().sqrt()) / math.sqrt(max(float(max(sizes)), 1e-300))
        worst = max(worst, ratio if math.isfinite(ratio) else math.inf)
    return worst


def held_out_scores(problem: Problem, posterior: Any, parameters: Parameters, points: Tensor) -> float | None:
    """Mean square of the residuals at points in units of their posterior deviations.

    Args:
        problem: With its equations.
        posterior: Has ``row_variance``, the variance of linear functionals.
        parameters: Of unknown coefficients.
        points: (m, d).

    Returns:
        None where a source is known on a grid only.
    """
    found = _residuals(problem, posterior, parameters, points)
    if found is None:
        return None
    coordinates = tuple(points[:, j].contiguous() for j in range(points.shape[1]))
    squares, count = 0.0, 0
    for e, (residual, _, jets) in zip(problem.equations, found, strict=True):
        slopes = e.linearised(coordinates, jets, parameters)
        terms = tuple(RowTerm(j, c.expand(len(points)).contiguous()) for j, c in slopes.items())
        variance = posterior.row_variance(Rows(terms, coordinates, len(coordinates) == 1))
        squares += float((residual**2 / variance.clamp_min(1e-300)).sum())
        count += len(points)
    return squares / max(count, 1)


class CoveringPosterior:
    """A posterior with deviations that cover its error.

    The covariance is that of the posterior, times what the held-out scores ask for, plus that of one random multiple of
    the difference to a guide, plus that of a random constant as large as the error that the guide itself may have.

    Args:
        inner: Posterior with exact data.
        guide: Another solution, or None.
        residual: Off the grid, of the posterior.
        guide_residual: Off the grid, of the guide.
        inflation: Factor on the variances.
        points: Where sizes of differences are taken.
    """

    def __init__(
        self,
        inner: FieldPosterior,
        guide: FieldPosterior | None,
        residual: float,
        guide_residual: float,
        inflation: float,
        points: Tensor,
    ) -> None:
        """Nothing is computed before it is asked for."""
        self.inner, self.guide, self._points = inner, guide, points
        self.inflation = inflation
        self.diagnostics: dict[str, Any] = inner.diagnostics
        # A guide that meets the equations no better says how large errors are, not where.
        self.share = min(1.0, residual / guide_residual) if guide_residual > 0.0 else 1.0
        self.doubt = min(1.0, guide_residual / residual) if residual > 0.0 else 1.0
        self._floors: dict[Jet, float] = {}

    def _difference(self, jet: Jet, points: Tensor) -> Tensor:
        assert self.guide is not None
        return _SAFETY * self.share * (self.guide.mean(jet, points) - self.inner.mean(jet, points))

    def _floor(self, jet: Jet) -> float:
        if jet not in self._floors:
            size = float(self._difference(jet, self._points).pow(2).mean().sqrt())
            self._floors[jet] = self.doubt * size
        return self._floors[jet]

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean (m,) of a jet at points (m, d)."""
        return self.inner.mean(jet, points)

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) of a jet on a tensor grid."""
        return self.inner.mean_on_grid(jet, axes)

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance (m,) of a jet at points (m, d)."""
        own = self.inflation * self.inner.variance(jet, points)
        if self.guide is None:
            return own
        return own + self._difference(jet, points) ** 2 + self._floor(jet) ** 2

    def sample(self, n: int, generator: torch.Generator) -> FieldDraws:
        """N joint draws."""
        draws = self.inner.sample(n, generator)
        multiples = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return _CoveringDraws(self, draws, multiples)


class _CoveringDraws:
    def __init__(self, posterior: CoveringPosterior, draws: FieldDraws, multiples: Tensor) -> None:
        self._posterior, self._draws, self._multiples = posterior, draws, multiples

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        own, mean = self._posterior, self._posterior.mean(jet, points)
        values = mean + math.sqrt(own.inflation) * (self._draws(jet, points) - mean)
        if own.guide is None:
            return values
        first, second = self._multiples[:, :1], self._multiples[:, 1:]
        return values + first * own._difference(jet, points) + second * own._floor(jet)
