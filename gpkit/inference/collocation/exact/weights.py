"""Exact conditioning in the space of weights: the same posterior as with covariances, without their condition number.

With ``y = A w + e``, ``w ~ N(0, I)``, ``e ~ N(0, N)`` and ``N^(-1/2) A = U S V^T``, the posterior of w has the mean
``V S / (1 + S^2) U^T N^(-1/2) y`` and the covariance ``V / (1 + S^2) V^T``, also where S spans sixteen digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact.features import FieldFeatures, projections
from gpkit.inference.collocation.exact.lift import Lift
from gpkit.inference.collocation.exact.rows import Rows, chunks, contract, jet_rows
from gpkit.inference.collocation.forms import Jet

__all__ = ["ROUNDING", "FeaturePosterior", "SeenRows", "design", "project"]

ROUNDING = 1e-13
_CHOLESKY_ROUNDING = 1e-7
_LIFT_ROUNDING = 1e-11
_LARGEST_SVD = 600
_LARGEST_DUAL = 1500
_LARGEST_BASIS = 2500
_LARGEST_QR = 1.2e11
_CHUNK = 8_000_000


@dataclass(frozen=True, eq=False)
class SeenRows:
    """Rows divided by the standard deviation of their noise.

    Attributes:
        design: (m, W).
        values: (m,).
        log_noise: Sum of the logarithms of the noise variances of all rows, also those projected out.
        rest: Sum of squares of what was projected out of the values.
        count: Number of rows.
        prior: Their mean prior variance, for priors of scale one.
        deviation: Standard deviation of their noise, a number where it is the same for all.
    """

    design: Tensor
    values: Tensor
    log_noise: float
    rest: float
    count: int
    prior: float
    deviation: float | Tensor


def design(rows: Rows, fields: Sequence[FieldFeatures], onto: Sequence[Tensor] | None = None) -> Tensor:
    """Rows, or their projections, as functions of all weights, (m, W)."""
    parts = []
    for f, features in enumerate(fields):
        size = len(rows) if onto is None else math.prod(q.shape[1] for q in onto)
        total = torch.zeros(size, len(features), dtype=torch.float64)
        for t in rows.terms:
            if t.jet.field == f:
                values = features.of_jet(t.jet, rows.coordinates, rows.is_grid, onto)
                total += values * (
                    t.coefficient.expand(rows.shape).reshape(-1, 1) if t.coefficient.dim() else t.coefficient
                )
        parts.append(total)
    return torch.cat(parts, dim=1)


def project(values: Tensor, onto: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Values on a grid in orthonormal bases along its axes, and the sum of squares of what is left over.

    Args:
        values: One mode per axis.
        onto: Bases, of orthonormal columns.
    """
    inside = contract([q.T for q in onto], values[..., None], True)
    # The difference of two squares would lose what rounding leaves: the rest is measured on the grid.
    back = contract(list(onto), inside, True)[..., 0]
    return inside.reshape(-1), float((values - back).square().sum())


class FeaturePosterior:
    """Posterior of the weights of all fields.

    Args:
        rows: What is conditioned on, with values and noise.
        fields: Features of every field.
        lifts: Added to the mean, one per field; None for none.
        fit_scale: Whether the priors are multiplied by the scale of largest likelihood.
        rounding: Standard deviation of what arithmetic does to values without noise, relative to their prior.
        like: A posterior of nearly the same rows: its scale and rounding are tried first.
    """

    def __init__(
        self,
        rows: Sequence[Rows],
        fields: Sequence[FieldFeatures],
        lifts: Sequence[Lift] | None = None,
        fit_scale: bool = True,
        rounding: float = ROUNDING,
        like: FeaturePosterior | None = None,
    ) -> None:
        """Factorise."""
        self.fields = tuple(fields)
        self.lifts = lifts
        self.rounding: float = rounding
        self._like, self._fits_scale = like, fit_scale
        weights = sum(len(f) for f in fields)
        self.scale = 1.0
        if like is not None and fit_scale:
            self.scale, rounding = like.scale, max(rounding, like.rounding)
        used = self._condition(rows, weights, rounding)
        # What the scale of the prior is, what the rows determine, and how well they are met depend on each other.
        floor = 0.0
        for _ in range(5 if fit_scale else 0):
            fitted = float((self.mean_weights**2).sum()) / max(self._determined, 1e-3)
            spare = self._count - self._determined
            misfit = self._misfit / spare if spare > 0.05 * self._count else 0.0
            settled = 0.5 < fitted < 2.0 or fitted == 0.0 or (fitted < 1.0 and self.scale <= floor)
            if settled and misfit < 2.0:
                break
            self.scale *= fitted if fitted > 0.0 else 1.0
            if misfit >= 2.0:
                # No function of the prior meets the equations to rounding: what is left is treated as their noise,
                rounding *= math.sqrt(misfit)
                # and the prior stays as wide as the values, so that "all is noise" does not end as a certain zero.
                floor = self._data_scale
            self.scale = max(self.scale, floor)
            used = self._condition(rows, weights, rounding)
        n = self._count
        self.diagnostics: dict[str, Any] = {
            "rows": n,
            "weights": weights,
            "effective_rank": self._rank,
            "rounding": used,
            "output_scale": self.scale,
            "quadratic_form_per_row": self._quadratic / max(n, 1),
            **self._own_diagnostics(),
        }
        self.rounding, self._like = rounding, None

    def _own_diagnostics(self) -> dict[str, Any]:
        return {"log_evidence": self.evidence(False)[0]}

    def _condition(self, rows: Sequence[Rows], weights: int, rounding: float) -> float:
        """Condition on the rows at the present scale of the prior; returns the rounding that was assumed."""
        self._seen = seen = [self._see(r, rounding) for r in rows]
        a, y = torch.cat([p.design for p in seen]), torch.cat([p.values for p in seen])
        self._count_rows(rows, seen)
        dual = len(a) < weights and len(a) <= _LARGEST_DUAL
        # Singular values tell what the rows determine, by which the prior's scale is fitted; a triangle costs less.
        is_small = weights <= _LARGEST_SVD or dual
        if is_small and (self._fits_scale or weights > max(_LARGEST_SVD, 2 * len(a))):
            self._by_singular_values(a, y)
        elif 2.0 * (len(a) + weights) * weights**2 <= _LARGEST_QR:
            self._by_triangle(a, y)
        else:
            rounding = max(rounding, _CHOLESKY_ROUNDING)
            self._by_cholesky(a, y)
        return rounding

    def _count_rows(self, rows: Sequence[Rows], seen: Sequence[SeenRows]) -> None:
        self._quadratic = sum(p.rest for p in seen)
        self._logdet = sum(p.log_noise for p in seen)
        self._count = sum(p.count for p in seen)
        square = sum(float(r.values.pow(2).mean()) for r in rows if r.values is not None)
        self._data_scale = square / max(sum(p.prior for p in seen), 1e-300)

    def evidence(self, profile: bool) -> tuple[float, float]:
        """Log marginal likelihood and the scale of the priors at which it is taken.

        Args:
            profile: Whether that is the best one; else it is 1.
        """
        n = self._count
        scale = max(self._quadratic / max(n, 1), 1e-300) if profile else 1.0
        value = self._quadratic / scale + self._logdet + n * math.log(scale) + n * math.log(2.0 * math.pi)
        return -0.5 * value, scale

    def second_moments(self, scale: float) -> Tensor:
        """Posterior mean square of every weight for priors of a scale, in units of that scale, (W,)."""
        root = self._spread(torch.eye(len(self.mean_weights), dtype=torch.float64))
        return self.mean_weights**2 / scale + (root**2).sum(1)

    def _see(self, r: Rows, rounding: float) -> SeenRows:
        onto = projections(r, self.fields) if r.noise.dim() == 0 else None
        a = math.sqrt(self.scale) * design(r, self.fields, onto)
        values = torch.zeros(len(r), dtype=torch.float64) if r.values is None else r.values
        if onto is None:
            prior = (a * a).sum(1)
            size = torch.maximum(prior, prior.mean()).clamp_min(max(r.size, float(values.pow(2).mean().sqrt())) ** 2)
            noise = r.noise.expand(len(r)) + rounding**2 * size
            sd = noise.clamp_min(1e-300).sqrt()
            mean = float(prior.mean()) / self.scale
            return SeenRows(a / sd[:, None], values / sd, 2.0 * float(sd.log().sum()), 0.0, len(r), mean, sd)
        prior_mean = float((a * a).sum()) / len(r)
        one = self._deviation(r, prior_mean, rounding)
        inside, rest = project(values.reshape(r.shape), onto)
        log_noise = 2.0 * len(r) * math.log(one)
        return SeenRows(a / one, inside / one, log_noise, rest / one**2, len(r), prior_mean / self.scale, one)

    @staticmethod
    def _deviation(r: Rows, prior: float, rounding: float) -> float:
        """Standard deviation of noise and rounding, the same for all rows of a block."""
        square = 0.0 if r.values is None else float(r.values.pow(2).mean())
        return math.sqrt(max(float(r.noise) + rounding**2 * max(prior, r.size**2, square), 1e-300))

    def _by_singular_values(self, a: Tensor, y: Tensor) -> None:
        if a.shape[0] > 2 * a.shape[1]:
            # Rows first to a triangle: the decomposition of a square matrix is the cheaper one.
            basis, triangle = torch.linalg.qr(a)
            left, sizes, right = torch.linalg.svd(triangle, full_matrices=True)
            left = basis @ left
        else:
            complete = a.shape[0] < a.shape[1] <= _LARGEST_BASIS
            left, sizes, right = torch.linalg.svd(a, full_matrices=complete)
            left = left[:, : len(sizes)]
        inside = left.T @ y
        outside = y - left @ inside
        self._rotation = right.T
        full = torch.zeros(right.shape[0], dtype=torch.float64)
        full[: len(sizes)] = sizes
        self._has_complement = right.shape[0] < right.shape[1]
        self._shrinkage = 1.0 / (1.0 + full**2)
        self.mean_weights = right[: len(sizes)].T @ (sizes / (1.0 + sizes**2) * inside)
        self._misfit = self._quadratic + float((outside**2).sum() + (inside**2 / (1.0 + sizes**2) ** 2).sum())
        self._quadratic += float((inside**2 / (1.0 + sizes**2)).sum() + (outside**2).sum())
        self._logdet += float(torch.log1p(sizes**2).sum())
        self._rank = int((sizes > 1.0).sum())
        self._determined = float((sizes**2 / (1.0 + sizes**2)).sum())
        self._factor: Tensor | None = None

    def _by_triangle(self, a: Tensor, y: Tensor) -> None:
        """``A^T A + I = R^T R`` by orthogonal transformations of (A; I), without squaring."""
        size = a.shape[1]
        stacked = torch.cat([torch.cat([a, y[:, None]], dim=1), torch.eye(size, size + 1, dtype=torch.float64)])
        triangle = torch.linalg.qr(stacked, mode="r").R[:size]
        root = triangle[:, :size]
        self.mean_weights = torch.linalg.solve_triangular(root, triangle[:, size:], upper=True)[:, 0]
        outside = y - a @ self.mean_weights
        # At the optimum |y - A w|^2 + |w|^2 is the quadratic form of the values.
        self._misfit = self._quadratic + float((outside**2).sum())
        self._quadratic = self._misfit + float((self.mean_weights**2).sum())
        self._finish_factor(root.T * root.diagonal().sign())

    def _by_cholesky(self, a: Tensor, y: Tensor) -> None:
        """The same by the normal matrix, with as much ridge as squaring needs."""
        normal = a.T @ a
        ridge = 1.0 + _CHOLESKY_ROUNDING**2 * float(normal.diagonal().max())
        normal.diagonal().add_(ridge)
        factor, info = torch.linalg.cholesky_ex(normal)
        if int(info):
            raise NotPositiveDefiniteError("the normal matrix of the weights is not definite", row=int(info) - 1)
        self.mean_weights = torch.cholesky_solve((a.T @ y)[:, None], factor)[:, 0]
        outside = y - a @ self.mean_weights
        self._misfit = self._quadratic + float((outside**2).sum())
        self._quadratic = self._misfit + float((self.mean_weights**2).sum())
        self._finish_factor(factor)

    def _finish_factor(self, factor: Tensor) -> None:
        self._factor = factor
        pivots = factor.diagonal().abs()
        self._logdet += 2.0 * float(pivots.log().sum())
        inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor), dtype=factor.dtype), upper=False)
        self._determined = len(factor) - float((inverse**2).sum())
        self._rank = round(self._determined)

    def _evaluate(self, at: Rows, action: Any) -> Tensor:
        """Apply a function of the design in chunks of rows; only for points or one axis."""
        weights = max(1, len(self.mean_weights))
        step = max(1, _CHUNK // weights)
        parts = [action(design(part, self.fields)) for _, part in chunks(at, step)] if len(at) else []
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean of a jet at points (m, d)."""
        weights = math.sqrt(self.scale) * self.mean_weights
        if points.shape[1] == 1:
            mean = self.fields[jet.field].on_line(jet, points[:, 0], self._own(jet.field, weights))
        else:
            mean = self._evaluate(jet_rows(jet, points), lambda a: a @ weights)
        return mean if self.lifts is None else mean + self.lifts[jet.field].at(jet, points)

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean of a jet on a tensor grid."""
        if len(axes) == 1:
            return self.mean(jet, axes[0][:, None])
        features, weights = self.fields[jet.field], self._own(jet.field, self.mean_weights)
        tensor = torch.zeros([int(i) + 1 for i in features.index.max(0).values], dtype=torch.float64)
        tensor[tuple(features.index.T)] = math.sqrt(self.scale) * weights
        for j, (axis, x, order) in enumerate(zip(features.axes, axes, jet.orders, strict=True)):
            factor = axis(x, order)[:, : tensor.shape[j]]
            tensor = torch.tensordot(factor, tensor, dims=([1], [j])).movedim(0, j)
        return tensor if self.lifts is None else tensor + self.lifts[jet.field].on_grid(jet, axes)

    def _own(self, field: int, weights: Tensor) -> Tensor:
        """Weights of one field."""
        return torch.split(weights, [len(f) for f in self.fields])[field]

    def _spread(self, a: Tensor) -> Tensor:
        """Rows times a square root of the weights' posterior covariance."""
        if self._factor is not None:
            return torch.linalg.solve_triangular(self._factor, a.T, upper=False).T
        inside = a @ self._rotation
        if not self._has_complement:
            return inside * self._shrinkage.sqrt()
        # The complement of the rows' span keeps its prior variance.
        rest = a - inside @ self._rotation.T
        return torch.cat([inside * self._shrinkage.sqrt(), rest], dim=1)

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance of a jet at points (m, d)."""
        around = self.row_variance(jet_rows(jet, points))
        if self.lifts is None or any(jet.orders):
            return around
        # The lift is a sum of products whose factors are known to some digits fewer than the data.
        return around + (_LIFT_ROUNDING * self.lifts[jet.field].size) ** 2

    def row_variance(self, at: Rows) -> Tensor:
        """Posterior variance of linear functionals at points or on one axis, (m,)."""
        return self.scale * self._evaluate(at, lambda a: (self._spread(a) ** 2).sum(1))

    def covariance(self, a: Rows, b: Rows) -> Tensor:
        """Posterior covariance of rows a with rows b."""
        return self.scale * self._spread(design(a, self.fields)) @ self._spread(design(b, self.fields)).T

    def sample(self, n: int, generator: torch.Generator) -> FeatureDraws:
        """N joint draws: functions of drawn weights."""
        white = torch.randn(len(self.mean_weights), n, generator=generator, dtype=torch.float64)
        return FeatureDraws(self, math.sqrt(self.scale) * self._move(white))

    def _move(self, white: Tensor) -> Tensor:
        """A square root of the weights' posterior covariance times (W, n)."""
        if self._factor is not None:
            return torch.linalg.solve_triangular(self._factor.T, white, upper=True)
        inside = self._rotation.T @ white
        move = self._rotation @ (self._shrinkage.sqrt()[:, None] * inside)
        return move + white - self._rotation @ inside if self._has_complement else move


class FeatureDraws:
    """Draws as functions of drawn weights.

    Args:
        posterior: Of the fields.
        moves: Drawn weights minus their mean, (W, n).
    """

    def __init__(self, posterior: FeaturePosterior, moves: Tensor) -> None:
        """Keep both."""
        self._posterior = posterior
        self._moves = moves

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        around = self._posterior._evaluate(jet_rows(jet, points), lambda a: a @ self._moves)
        return (self._posterior.mean(jet, points)[:, None] + around).T
