"""The exact marginal likelihood of product priors on several axes, with its gradient.

In the space of weights ``A`` is the design of all rows divided by their noise, ``K = A A^T + I``, and

    d log p / d A = (y - A m) m^T - A C

with the mean m and the covariance C of the weights' posterior: what a Cholesky factor of weights times weights gives on
a grid of any size. Above some hundreds of weights the evidence is that of a part of the rows, in blocks of neighbours
all over the grid, so that both short and long distances are in it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact.dense import assemble, factorise
from gpkit.inference.collocation.exact.features import AxisFeatures, FieldFeatures
from gpkit.inference.collocation.exact.lbfgs import (
    JITTER,
    Evidence,
    Scale,
    at_scale,
    gradients,
    tracked_mixtures,
)
from gpkit.inference.collocation.exact.priors import FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact.rows import Rows, RowTerm, prior_variance

__all__ = ["blocks_of_rows", "part_evidence", "weight_evidence"]

_ROUNDING = 1e-6
_TRIM = 1e-9
_LARGEST = 1e16
"""Variance of a row in units of its noise, above which the noise rounds away."""
_SEEN = 0.01
"""Jitter in units of the smallest noise."""
_WHOLE = 3000
"""Rows whose design is formed whole."""


class _Axis:
    """Waves of one axis of one field with fixed rotations, as a function of their variances."""

    def __init__(self, mixture: MixtureAxis, tracked: MixtureAxis, length: float, seen: dict[int, Tensor]) -> None:
        with torch.enable_grad():
            waves = WaveAxis.of_mixture(tracked, length)
        assert waves is not None
        self.waves = waves
        self.plain = WaveAxis(waves.frequencies, waves.powers.detach())
        self.features = AxisFeatures(self.plain)
        every = torch.unique(torch.cat(list(seen.values())))
        self.spread = self.features.trimmed(every, sorted(seen), _TRIM)

    def powers(self) -> Tensor:
        """Standard deviations relative to the present ones: ones, with a gradient; one per weight."""
        ratio = (self.waves.powers / self.plain.powers).sqrt()
        return torch.cat([ratio, ratio[int(self.plain.has_constant) :]])

    def table(self, x: Tensor, order: int) -> Tensor:
        """Functions at points, as functions of the standard deviations, (m, r)."""
        assert self.features.rotation is not None
        return (self.plain.features(x, order) * self.powers()) @ self.features.rotation


def weight_evidence(
    rows: Sequence[Rows],
    start: Sequence[MixtureAxis],
    lengths: Sequence[float],
    limit: int,
    scale: Scale = "given",
    careful: bool = False,
) -> Evidence | None:
    """Evidence of all rows in the space of weights, for Gaussian mixtures.

    Rows without noise have one of 1e-6 of what they are at the start, in the data or in the prior. Mixtures are one per
    axis of every field, axes fastest.

    Args:
        rows: With values; those on grids with constant coefficients are projected on what the waves can be.
        start: Where learning will start.
        lengths: Of the axes.
        limit: Of weights.
        scale: Of the priors, at which the evidence is taken.
        careful: Whether nothing is squared: where exact rows and noisy ones are differences of larger numbers.

    Returns:
        None where the other rows are too many.
    """
    if sum(len(r) for r in rows if not _is_projected(r)) > _WHOLE:
        return None
    d, fields = len(lengths), len(start) // len(lengths)
    seen: list[dict[int, Tensor]] = [{} for _ in range(fields * d)]
    for r in rows:
        for t in r.terms:
            for j, o in enumerate(t.jet.orders):
                own = seen[t.jet.field * d + j]
                own[o] = r.coordinates[j] if o not in own else torch.cat([own[o], r.coordinates[j]])
    priors = [FieldPrior(tuple(start[f * d : (f + 1) * d])) for f in range(fields)]
    deviations = []
    for r in rows:
        square = 0.0 if r.values is None else float(r.values.pow(2).mean())
        square = max(square, r.size**2, float(prior_variance(r, priors).mean()))
        deviations.append(r.noise.clamp_min(max(_ROUNDING**2 * square, 1e-300)).sqrt())

    def evaluate(mixtures: Sequence[MixtureAxis]) -> tuple[float, Sequence[Sequence[Tensor]]]:
        tracked, leaves = tracked_mixtures(mixtures)
        axes = [_Axis(m, t, lengths[k % d], seen[k]) for k, (m, t) in enumerate(zip(mixtures, tracked, strict=True))]
        features = [_products(axes[f * d : (f + 1) * d]) for f in range(fields)]
        if sum(len(f) for f in features) > limit:
            raise NotPositiveDefiniteError(f"more than {limit} weights")
        with torch.enable_grad():
            parts = [_projected(r, axes, features, s) for r, s in zip(rows, deviations, strict=True)]
            design = torch.cat([a for a, _, _ in parts])
        a, y = design.detach(), torch.cat([v for _, v, _ in parts])
        rest = sum(part[2] for part in parts)
        factor, mean, square = _by_orthogonal(a, y) if careful else _by_normal(a, y)
        residual = y - a @ mean
        count = sum(len(r) for r in rows)
        quadratic = rest + square
        logdet = 2.0 * float(factor.diagonal().log().sum())
        logdet += sum(2.0 * float(s.expand(len(r)).log().sum()) for r, s in zip(rows, deviations, strict=True))
        value, weight, has_logdet = at_scale(quadratic, logdet, count, scale)
        slope = weight * torch.outer(residual, mean)
        if has_logdet:
            slope -= torch.cholesky_solve(a.T, factor).T
        return value, gradients((slope * design).sum(), leaves)

    return evaluate


def _by_normal(a: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Lower factor of ``A^T A + I``, the weights' mean, and the quadratic form of the values."""
    normal = a.T @ a
    normal.diagonal().add_(1.0)
    factor, info = torch.linalg.cholesky_ex(normal)
    if int(info):
        raise NotPositiveDefiniteError("the normal matrix of the weights is not definite", row=int(info) - 1)
    mean = torch.cholesky_solve((a.T @ y)[:, None], factor)[:, 0]
    residual = y - a @ mean
    return factor, mean, float(residual @ residual + mean @ mean)


def _by_orthogonal(a: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """The same by orthogonal transformations of (A y; I 0), whose corner is the root of the quadratic form."""
    if not float(a.pow(2).sum(1).max()) < _LARGEST:
        raise NotPositiveDefiniteError("the noise of exact rows rounds away beside their prior")
    size = a.shape[1]
    below = torch.eye(size, size + 1, dtype=torch.float64)
    triangle = torch.linalg.qr(torch.cat([torch.cat([a, y[:, None]], dim=1), below]), mode="r").R
    inside, right = triangle[:size, :size], triangle[:size, size:]
    mean = torch.linalg.solve_triangular(inside, right, upper=True)[:, 0]
    return inside.T * inside.diagonal().sign(), mean, float(triangle[size, size]) ** 2


def _products(axes: Sequence[_Axis]) -> FieldFeatures:
    size = axes[0].spread
    for axis in axes[1:]:
        size = (size[:, None] * axis.spread).reshape(-1)
    every = torch.tensor(list(itertools.product(*[range(len(a.spread)) for a in axes])), dtype=torch.long)
    return FieldFeatures([a.features for a in axes], every[size > _TRIM])


def _is_projected(rows: Rows) -> bool:
    return rows.is_grid and not rows.noise.dim() and not any(t.coefficient.dim() for t in rows.terms)


def _whole(
    rows: Rows, axes: Sequence[_Axis], features: Sequence[FieldFeatures], deviation: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Design and values of all rows in units of their noise."""
    d, blocks = len(rows.coordinates), []
    for f, own_features in enumerate(features):
        total = torch.zeros(len(rows), len(own_features), dtype=torch.float64)
        for t in rows.terms:
            if t.jet.field != f:
                continue
            out: Tensor | None = None
            for j, (x, order) in enumerate(zip(rows.coordinates, t.jet.orders, strict=True)):
                factor = axes[f * d + j].table(x, order)[:, own_features.index[:, j]]
                if out is None:
                    out = factor
                elif rows.is_grid:
                    out = (out[:, None] * factor[None]).reshape(-1, factor.shape[1])
                else:
                    out = out * factor
            assert out is not None
            scale = t.coefficient.expand(rows.shape).reshape(-1, 1) if t.coefficient.dim() else t.coefficient
            total = total + out * scale
        blocks.append(total)
    assert rows.values is not None
    units = deviation.expand(len(rows))
    return torch.cat(blocks, dim=1) / units[:, None], rows.values / units, 0.0


def _projected(
    rows: Rows, axes: Sequence[_Axis], features: Sequence[FieldFeatures], deviation: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Design and values of rows in bases of what their functions can be, in units of their noise, and the rest."""
    if not _is_projected(rows):
        return _whole(rows, axes, features, deviation)
    d = len(rows.coordinates)
    bases = []
    for j, x in enumerate(rows.coordinates):
        own = sorted({(t.jet.field, t.jet.orders[j]) for t in rows.terms})
        values = [axes[f * d + j].features(x, o) for f, o in own]
        stacked = torch.cat([v / v.norm().clamp_min(1e-300) for v in values], dim=1)
        basis, sizes, _ = torch.linalg.svd(stacked, full_matrices=False)
        bases.append(basis[:, sizes > 1e-13 * float(sizes[0])])
    blocks = []
    for f, own_features in enumerate(features):
        shape = math.prod(b.shape[1] for b in bases)
        total = torch.zeros(shape, len(own_features), dtype=torch.float64)
        for t in rows.terms:
            if t.jet.field != f:
                continue
            out: Tensor | None = None
            for j, (x, order) in enumerate(zip(rows.coordinates, t.jet.orders, strict=True)):
                factor = (bases[j].T @ axes[f * d + j].table(x, order))[:, own_features.index[:, j]]
                out = factor if out is None else (out[:, None] * factor[None]).reshape(-1, factor.shape[1])
            assert out is not None
            total = total + t.coefficient * out
        blocks.append(total)
    assert rows.values is not None
    tensor = rows.values.reshape(rows.shape)
    for j, basis in enumerate(bases):
        tensor = torch.tensordot(basis.T, tensor, dims=([1], [j])).movedim(0, j)
    inside = tensor
    for j, basis in enumerate(bases):
        tensor = torch.tensordot(basis, tensor, dims=([1], [j])).movedim(0, j)
    rest = float(((rows.values.reshape(rows.shape) - tensor) ** 2).sum() / deviation**2)
    return torch.cat(blocks, dim=1) / deviation, inside.reshape(-1) / deviation, rest


def part_evidence(rows: Sequence[Rows], fields: int, dim: int, scale: Scale) -> Evidence:
    """Evidence of rows through the Cholesky factor of their covariance, for any mixtures.

    Args:
        rows: With values.
        fields: Number of fields.
        dim: Number of axes.
        scale: Of the priors, at which the evidence is taken.
    """
    values = torch.cat([r.values if r.values is not None else torch.zeros(len(r)) for r in rows])
    noise = torch.cat([r.noise.expand(len(r)) for r in rows])

    def evaluate(mixtures: Sequence[MixtureAxis]) -> tuple[float, Sequence[Sequence[Tensor]]]:
        tracked, leaves = tracked_mixtures(mixtures)
        with torch.enable_grad():
            gram = assemble(rows, [FieldPrior(tuple(tracked[f * dim : (f + 1) * dim])) for f in range(fields)])
        factor = factorise(gram.detach(), JITTER)
        if bool((noise > 0.0).any()) and float((gram.detach().diagonal() / noise)[noise > 0.0].max()) > _SEEN / JITTER:
            raise NotPositiveDefiniteError("the noise of the data rounds away beside their prior")
        weights = factor.solve(values[:, None])[:, 0]
        n, quadratic = len(values), float(values @ weights)
        value, weight, has_logdet = at_scale(quadratic, float(factor.logdet()), n, scale)
        slope = 0.5 * weight * torch.outer(weights, weights)
        if has_logdet:
            slope -= 0.5 * torch.cholesky_inverse(factor.factor) * factor.scale[:, None] * factor.scale
        return value, gradients((slope * gram).sum(), leaves)

    return evaluate


def blocks_of_rows(rows: Rows, count: int, side: int, generator: torch.Generator) -> Rows:
    """About ``count`` rows of a grid, in cubes of ``side`` neighbours along every axis at random places."""
    shape = rows.shape
    sides = [min(side, n) for n in shape]
    chosen: set[int] = set()
    strides = [math.prod(shape[j + 1 :]) for j in range(len(shape))]
    while len(chosen) < min(count, len(rows)):
        starts = [int(torch.randint(0, n - s + 1, (), generator=generator)) for n, s in zip(shape, sides, strict=True)]
        cube = itertools.product(*[range(a, a + s) for a, s in zip(starts, sides, strict=True)])
        chosen |= {sum(i * s for i, s in zip(index, strides, strict=True)) for index in cube}
    index = torch.tensor(sorted(chosen), dtype=torch.long)
    mesh = torch.meshgrid(*rows.coordinates, indexing="ij")
    terms = tuple(
        RowTerm(t.jet, t.coefficient.expand(shape).reshape(-1)[index] if t.coefficient.dim() else t.coefficient)
        for t in rows.terms
    )
    assert rows.values is not None
    return dataclasses.replace(
        rows,
        terms=terms,
        coordinates=tuple(m.reshape(-1)[index] for m in mesh),
        is_grid=len(shape) == 1,
        values=rows.values[index],
        noise=rows.noise[index] if rows.noise.dim() else rows.noise,
    )
