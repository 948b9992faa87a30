"""The exact marginal likelihood of rows in the space of weights, for Gaussian mixtures, with its gradient.

In the space of weights ``A`` is the design of all rows divided by their noise and ``y = A w + e`` with standard normal
w and e. With the mean m and the covariance C of the weights' posterior the derivative of the log density by the
logarithm of the standard deviation of a wave is its share in

    M = m m^T + C - I,

so that nothing as large as the design is differentiated: a triangle of weights times weights gives all, on a grid of
any size. Rows that are given come first into the triangle, and the density of the others given these is read off what
the others change in it: no large numbers are subtracted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact.features import AxisFeatures, FieldFeatures, projections
from gpkit.inference.collocation.exact.lbfgs import Evidence, Slopes, gradients, profile_gain, tracked_mixtures
from gpkit.inference.collocation.exact.priors import FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact.rows import Rows, prior_variance
from gpkit.inference.collocation.exact.weights import design, project

__all__ = ["wave_evidence"]

_ROUNDING = 1e-6
_TRIM = 1e-9
_LARGEST = 1e16
"""Variance of a row in units of its noise, above which the noise rounds away."""
_WHOLE = 3000
"""Rows whose design is formed whole."""


class _Places:
    """Where the derivatives of a field are seen along one axis.

    Args:
        rows: That see them.
        field: Number of the field.
        axis: Number of the axis.
    """

    def __init__(self, rows: Sequence[Rows], field: int, axis: int) -> None:
        """Points that several rows share are one."""
        self.orders = sorted({t.jet.orders[axis] for r in rows for t in r.terms if t.jet.field == field})
        self._coordinates = [r.coordinates[axis] for r in rows if field in r.fields()]
        self.points, places = torch.unique(torch.cat(self._coordinates), return_inverse=True)
        parts = torch.split(places, [len(x) for x in self._coordinates])
        self.where = {id(x): part for x, part in zip(self._coordinates, parts, strict=True)}


class _SeenAxis(AxisFeatures):
    """Waves of one axis of one field, and what they are at the places of the rows.

    Args:
        waves: With variances that record no gradient.
        places: Where they are seen.
        is_trimmed: Whether only the directions that rows see are kept.
    """

    def __init__(self, waves: WaveAxis, places: _Places, is_trimmed: bool) -> None:
        """Evaluate the waves."""
        super().__init__(waves)
        self._places = places
        self._tables = waves.derivatives(places.points, places.orders)
        self.spread = torch.ones(waves.count, dtype=torch.float64)
        if is_trimmed:
            self.spread = self.trim(list(self._tables.values()), _TRIM)
            rotation = self.rotation
            assert rotation is not None
            self._tables = {o: table @ rotation for o, table in self._tables.items()}

    def __call__(self, x: Tensor, order: int) -> Tensor:
        """See :class:`AxisFeatures`; for coordinates of the rows."""
        return self._tables[order].index_select(0, self._places.where[id(x)])


class _Weights:
    """Weights of all fields at some hyper-parameters.

    Args:
        mixtures: Which may record gradients.
        lengths: Of the axes.
        places: Where derivatives are seen, by field and axis.
        limit: Of weights.
    """

    def __init__(
        self, mixtures: Sequence[MixtureAxis], lengths: Sequence[float], places: Sequence[_Places], limit: int
    ) -> None:
        """On one axis all waves are weights if they are not too many: finding what rows see of them costs more."""
        d = len(lengths)
        found = [WaveAxis.of_mixture(m, lengths[k % d]) for k, m in enumerate(mixtures)]
        self.waves = [w for w in found if w is not None]
        fixed = [WaveAxis(w.frequencies, w.powers.detach()) for w in self.waves]
        is_trimmed = d > 1 or sum(w.count for w in fixed) > limit
        self.axes = [_SeenAxis(w, own, is_trimmed) for w, own in zip(fixed, places, strict=True)]
        self.fields = [_products(self.axes[f : f + d]) for f in range(0, len(self.axes), d)]
        self._dim = d

    def __len__(self) -> int:
        return sum(len(f) for f in self.fields)

    def objective(self, moments: Tensor) -> Tensor:
        """What has the derivative that M (W, W) says, as a function of the variances of the waves."""
        total, position = torch.zeros((), dtype=torch.float64), 0
        for f, features in enumerate(self.fields):
            inside = slice(position, position + len(features))
            position += len(features)
            for j in range(self._dim):
                k = f * self._dim + j
                waves, rotation = self.waves[k], self.axes[k].rotation
                if rotation is None:
                    change = moments[inside, inside].diagonal()
                else:
                    own = _along(moments[inside, inside], features.index, j, rotation.shape[1])
                    change = ((rotation @ own) * rotation).sum(1)
                pairs, constant = len(waves.frequencies), int(waves.has_constant)
                slope = change[:pairs].clone()
                slope[constant:] += change[pairs:]
                # A variance changes by twice what its root does.
                total = total + (0.5 * slope / waves.powers.detach() * waves.powers).sum()
        return total


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Standard normal weights given rows, ``R^T R = A^T A + I`` and ``R m = r``.

    Attributes:
        triangle: (R r), (W, W + 1).
        square: Quadratic form of the values of the rows added last, given those before them.
    """

    triangle: Tensor
    square: float = 0.0

    @classmethod
    def prior(cls, size: int) -> _Posterior:
        """Of weights that nothing is known of."""
        return cls(torch.eye(size, size + 1, dtype=torch.float64))

    def given(self, a: Tensor, y: Tensor, careful: bool) -> _Posterior:
        """Given more rows with unit noise, by orthogonal transformations if careful, else by the normal matrix."""
        size = len(self.triangle)
        if careful:
            stacked = torch.cat([torch.cat([a, y[:, None]], dim=1), self.triangle])
            triangle = torch.linalg.qr(stacked, mode="r").R
            corner = triangle[size:, size]
            return _Posterior(triangle[:size], float(corner.square().sum()))
        root, right = self.triangle[:, :size], self.triangle[:, size]
        factor, info = torch.linalg.cholesky_ex(a.T @ a + root.T @ root)
        if int(info):
            raise NotPositiveDefiniteError("the normal matrix of the weights is not definite", row=int(info) - 1)
        column = torch.linalg.solve_triangular(factor, (a.T @ y + root.T @ right)[:, None], upper=False)
        mean = torch.linalg.solve_triangular(factor.T, column, upper=True)[:, 0]
        square = float((y - a @ mean).square().sum() + (right - root @ mean).square().sum())
        return _Posterior(torch.cat([factor.T, column], dim=1), square)

    def logdet(self) -> float:
        """``log |A A^T + I|``."""
        return 2.0 * float(self.triangle.diagonal().abs().log().sum())

    def moments(self, share: float, has_covariance: bool) -> Tensor:
        """``share m m^T``, plus ``C - I`` if asked for, (W, W)."""
        size = len(self.triangle)
        root = self.triangle[:, :size]
        mean = torch.linalg.solve_triangular(root, self.triangle[:, size:], upper=True)
        out = share * mean @ mean.T
        if has_covariance:
            out += torch.cholesky_inverse(root, upper=True)
            out.diagonal().sub_(1.0)
        return out


def wave_evidence(
    rows: Sequence[Rows],
    start: Sequence[MixtureAxis],
    lengths: Sequence[float],
    limit: int,
    given: Sequence[Rows] = (),
    profiled: bool = False,
    careful: bool = False,
) -> Evidence | None:
    """Log density of rows given others in the space of weights, for Gaussian mixtures.

    Rows without noise have one of 1e-6 of what they are at the start, in the data or in the prior. Mixtures are one per
    axis of every field, axes fastest.

    Args:
        rows: With values; those on grids with constant coefficients are projected on what the waves can be.
        start: Where learning will start.
        lengths: Of the axes.
        limit: Of weights.
        given: Rows that are conditioned on, with values.
        profiled: Whether the density of the given rows at the best scale of the priors is added.
        careful: Whether nothing is squared: where exact rows stand beside noisy ones.

    Returns:
        None where the rows that cannot be projected are too many.
    """
    ordered, first = [*given, *rows], len(given)
    if sum(len(r) for r in ordered if not _is_projected(r)) > _WHOLE:
        return None
    d, fields = len(lengths), len(start) // len(lengths)
    places = [_Places(ordered, f, j) for f in range(fields) for j in range(d)]
    priors = [FieldPrior(tuple(start[f * d : (f + 1) * d])) for f in range(fields)]
    deviations = [_deviation(r, priors) for r in ordered]
    logs = [
        2.0 * float(s.expand(len(r)).log().sum()) + len(r) * math.log(2.0 * math.pi)
        for r, s in zip(ordered, deviations, strict=True)
    ]
    known_count = sum(len(r) for r in given)

    def evaluate(mixtures: Sequence[MixtureAxis], slopes: bool = True) -> tuple[float, Slopes]:
        tracked, leaves = tracked_mixtures(mixtures) if slopes else (list(mixtures), [])
        with torch.set_grad_enabled(slopes):
            weights = _Weights(tracked, lengths, places, limit)
        if len(weights) > limit:
            raise NotPositiveDefiniteError(f"more than {limit} weights")
        parts = [_seen(r, weights.fields, s) for r, s in zip(ordered, deviations, strict=True)]
        if careful and not max(float(a.square().sum(1).max()) for a, _, _ in parts) < _LARGEST:
            raise NotPositiveDefiniteError("the noise of exact rows rounds away beside their prior")
        known = _Posterior.prior(len(weights))
        if given:
            known = known.given(*_together(parts[:first]), careful)
        found = known.given(*_together(parts[first:]), careful)
        square = found.square + sum(rest for _, _, rest in parts[first:])
        value = -0.5 * (square + found.logdet() - known.logdet() + sum(logs[first:]))
        kept = 1.0
        if profiled:
            square = known.square + sum(rest for _, _, rest in parts[:first])
            gain, kept = profile_gain(square, known_count)
            value += gain - 0.5 * (square + known.logdet() + sum(logs[:first]))
        if not slopes:
            return value, []
        moments = found.moments(1.0, True)
        if given:
            moments -= known.moments(kept, not profiled)
        return value, gradients(weights.objective(moments), leaves)

    return evaluate


def _together(parts: Sequence[tuple[Tensor, Tensor, float]]) -> tuple[Tensor, Tensor]:
    return torch.cat([a for a, _, _ in parts]), torch.cat([y for _, y, _ in parts])


def _deviation(rows: Rows, priors: Sequence[FieldPrior]) -> Tensor:
    """Standard deviation of the noise, or of what stands for it."""
    square = 0.0 if rows.values is None else float(rows.values.pow(2).mean())
    square = max(square, rows.size**2, float(prior_variance(rows, priors).mean()))
    return rows.noise.clamp_min(max(_ROUNDING**2 * square, 1e-300)).sqrt()


def _seen(rows: Rows, fields: Sequence[FieldFeatures], deviation: Tensor) -> tuple[Tensor, Tensor, float]:
    """Design and values of rows in units of their noise, and the square of what was projected out of the values."""
    assert rows.values is not None
    onto = projections(rows, fields) if _is_projected(rows) else None
    a = design(rows, fields, onto)
    if onto is None:
        units = deviation.expand(len(rows))
        return a / units[:, None], rows.values / units, 0.0
    inside, rest = project(rows.values.reshape(rows.shape), onto)
    return a / deviation, inside / deviation, rest / float(deviation) ** 2


def _is_projected(rows: Rows) -> bool:
    return rows.is_grid and not rows.noise.dim() and not any(t.coefficient.dim() for t in rows.terms)


def _products(axes: Sequence[_SeenAxis]) -> FieldFeatures:
    size = axes[0].spread
    for axis in axes[1:]:
        size = (size[:, None] * axis.spread).reshape(-1)
    every = torch.tensor(list(itertools.product(*[range(len(a.spread)) for a in axes])), dtype=torch.long)
    return FieldFeatures(axes, every[size > _TRIM])


def _along(moments: Tensor, index: Tensor, axis: int, size: int) -> Tensor:
    """Sums of M over weights that share their functions of all other axes, (r, r) by those of one axis."""
    count = len(index)
    others = index.clone()
    others[:, axis] = 0
    _, group = torch.unique(others, dim=0, return_inverse=True)
    # Weights that were left out are beyond the last one, where M is zero.
    place = torch.full((int(group.max()) + 1, size), count, dtype=torch.long)
    place[group, index[:, axis]] = torch.arange(count)
    padded = torch.nn.functional.pad(moments, (0, 1, 0, 1))
    return padded[place[:, :, None], place[:, None, :]].sum(0)
