"""Conditioning in the space of weights where coefficients vary over the grid, as they do in every step of Newton's.

Rows with varying coefficients have no projections that keep them small, and a design matrix A of the grid times the
weights is too large to factorise. It is a sum of products with diagonal factors, so that it can be multiplied with.
The rows on a part of the grid's lines, A_0, tell all weights apart and can be factorised,
``A_0^T A_0 + I = S^-T S^-1``. In the coordinates ``w = S v``

    min |A S v - y|^2 + |S v|^2

is well conditioned, and nothing is squared that is not near one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.exact.features import FieldFeatures
from gpkit.inference.collocation.exact.rows import Rows, RowTerm, contract
from gpkit.inference.collocation.exact.weights import FeaturePosterior, SeenRows, design

__all__ = ["IteratedPosterior", "VaryingDesign"]

_LIMIT = 300
_MANY = 150
_ACCURACY = 1e-3
_USABLE = 0.5
_BLOCK = 4_000_000
_LINES = 1.5
"""Lines of the grid per function along an axis that the factor is made of."""


class VaryingDesign:
    """Rows on a grid as functions of all weights, multiplied without being formed.

    Args:
        rows: With coefficients of any shape that broadcasts to the grid.
        fields: Features of every field.
        factor: Of all rows.
    """

    def __init__(self, rows: Rows, fields: Sequence[FieldFeatures], factor: float) -> None:
        """Evaluate the functions of every axis."""
        self._rows, self._fields, self._factor = rows, fields, factor
        self._tables = [
            [axis(x, o) for axis, x, o in zip(fields[t.jet.field].axes, rows.coordinates, t.jet.orders, strict=True)]
            for t in rows.terms
        ]
        self._shapes = [[int(i) + 1 for i in f.index.max(0).values] for f in fields]
        self._starts = [sum(len(f) for f in fields[:k]) for k in range(len(fields) + 1)]

    def __call__(self, w: Tensor) -> Tensor:
        """Values (m, k) of the rows for weights (W, k)."""
        tensors = []
        for f, features in enumerate(self._fields):
            tensor = torch.zeros(*self._shapes[f], w.shape[1], dtype=torch.float64)
            tensor[tuple(features.index.T)] = w[self._starts[f] : self._starts[f + 1]]
            tensors.append(tensor)
        total: Tensor | None = None
        for t, tables in zip(self._rows.terms, self._tables, strict=True):
            f = t.jet.field
            own = [table[:, : self._shapes[f][j]] for j, table in enumerate(tables)]
            part = _scaled(contract(own, tensors[f], True), t)
            total = part if total is None else total + part
        assert total is not None
        return self._factor * total.reshape(len(self._rows), -1)

    def transposed(self, r: Tensor) -> Tensor:
        """Weights (W, k) for values (m, k)."""
        out = torch.zeros(self._starts[-1], r.shape[1], dtype=torch.float64)
        values = self._factor * r.reshape(*self._rows.shape, -1)
        for t, tables in zip(self._rows.terms, self._tables, strict=True):
            f = t.jet.field
            own = [table[:, : self._shapes[f][j]].T for j, table in enumerate(tables)]
            image = contract(own, _scaled(values, t), True)
            out[self._starts[f] : self._starts[f + 1]] += image[tuple(self._fields[f].index.T)]
        return out


def _scaled(tensor: Tensor, term: RowTerm) -> Tensor:
    return tensor * (term.coefficient[..., None] if term.coefficient.dim() else term.coefficient)


def _is_varying(rows: Rows) -> bool:
    return any(t.coefficient.dim() > 0 for t in rows.terms)


def _reduced(rows: Rows, fields: Sequence[FieldFeatures]) -> Rows:
    """The rows on as many of the grid's lines as tell all products of functions apart."""
    index: list[Tensor] = []
    for j, x in enumerate(rows.coordinates):
        functions = max(int(fields[f].index[:, j].max()) + 1 for f in rows.fields())
        count = min(len(x), math.ceil(_LINES * functions) + 4)
        index.append(torch.linspace(0, len(x) - 1, count, dtype=torch.float64).round().long())
    mesh = torch.meshgrid(*index, indexing="ij")
    assert rows.values is not None
    terms = tuple(
        RowTerm(t.jet, t.coefficient.expand(rows.shape)[mesh] if t.coefficient.dim() else t.coefficient)
        for t in rows.terms
    )
    coordinates = tuple(x[i] for x, i in zip(rows.coordinates, index, strict=True))
    values = rows.values.reshape(rows.shape)[mesh].reshape(-1)
    return dataclasses.replace(rows, terms=terms, coordinates=coordinates, values=values)


class IteratedPosterior(FeaturePosterior):
    """Posterior of the weights of all fields; arguments as for :class:`FeaturePosterior`.

    Raises:
        ConvergenceError: The factor of a part of the rows says too little about all of them.
    """

    iterations = 0
    _has_factor = False
    _inner_logdet = 0.0

    def _condition(self, rows: Sequence[Rows], weights: int, rounding: float) -> float:
        """Condition on a part of the rows and iterate from there; a factor is used as long as it is a good one."""
        had_factor = self._has_factor or self._like is not None
        before = self.iterations
        try:
            used = self._condition_from(rows, weights, rounding)
        except ConvergenceError:
            if not had_factor:
                raise
            self._has_factor, self._like = False, None
            used = self._condition_from(rows, weights, rounding)
        self._has_factor = self.iterations - before < _MANY
        return used

    def _condition_from(self, rows: Sequence[Rows], weights: int, rounding: float) -> float:
        self.__dict__.pop("_normal_factor", None)
        if not self._has_factor and self._like is not None:
            self._take_factor(self._like)
        if self._has_factor:
            # Another scale or rounding only changes how well the factor fits.
            seen = self._seen = [self._see(r, rounding) for r in rows]
            self._count_rows(rows, seen)
            self._logdet += self._inner_logdet
            used = rounding
        else:
            used = super()._condition(rows, weights, rounding)
            self._inner_logdet = self._logdet - sum(p.log_noise for p in self._seen)
            self._has_factor = True
        root = math.sqrt(self.scale)
        self._designs: list[VaryingDesign | Tensor] = []
        self._values: list[Tensor] = []
        self._rest = 0.0
        for r, own in zip(rows, self._seen, strict=True):
            if _is_varying(r) and r.values is not None and isinstance(own.deviation, float):
                self._designs.append(VaryingDesign(r, self.fields, root / own.deviation))
                self._values.append(r.values / own.deviation)
            else:
                self._designs.append(own.design)
                self._values.append(own.values)
                self._rest += own.rest
        self.mean_weights = self._iterate(self.mean_weights)
        self._misfit = self._rest + sum(float((r**2).sum()) for r in self._residuals(self.mean_weights))
        self._quadratic = self._misfit + float((self.mean_weights**2).sum())
        return used

    def _take_factor(self, like: FeaturePosterior) -> None:
        """Use the factor and the mean of a posterior of nearly the same rows, with the same functions and scale."""
        self._factor = like._factor
        if like._factor is None:
            self._rotation, self._shrinkage = like._rotation, like._shrinkage
            self._has_complement = like._has_complement
        self._determined, self._rank = like._determined, like._rank
        self.mean_weights = like.mean_weights
        own = like._inner_logdet if isinstance(like, IteratedPosterior) else None
        self._inner_logdet = like._logdet - sum(p.log_noise for p in like._seen) if own is None else own
        self._has_factor = True

    def _see(self, r: Rows, rounding: float) -> SeenRows:
        if not _is_varying(r) or r.noise.dim() or r.values is None:
            return super()._see(r, rounding)
        part = _reduced(r, self.fields)
        assert part.values is not None
        a = math.sqrt(self.scale) * design(part, self.fields)
        prior = float((a * a).sum()) / len(part)
        one = self._deviation(r, prior, rounding)
        # A part of the rows stands for all of them.
        factor = math.sqrt(len(r) / len(part)) / one
        log_noise = 2.0 * len(r) * math.log(one)
        return SeenRows(factor * a, factor * part.values, log_noise, 0.0, len(r), prior / self.scale, one)

    def _residuals(self, w: Tensor) -> list[Tensor]:
        return [y - a for y, a in zip(self._values, self._images(w[:, None]), strict=True)]

    def _images(self, w: Tensor) -> list[Tensor]:
        images = [d @ w if isinstance(d, Tensor) else d(w) for d in self._designs]
        return [i[:, 0] for i in images] if w.shape[1] == 1 else images

    def _transposed(self, parts: Sequence[Tensor]) -> Tensor:
        flat = [p[:, None] if p.dim() == 1 else p for p in parts]
        pairs = zip(self._designs, flat, strict=True)
        return sum(
            (d.T @ p if isinstance(d, Tensor) else d.transposed(p) for d, p in pairs),
            torch.zeros(len(self.mean_weights), flat[0].shape[1], dtype=torch.float64),
        )

    def _iterate(self, start: Tensor) -> Tensor:
        """Conjugate gradients on the least squares problem, in units of posterior standard deviations.

        References:
            Bjorck (1996), Numerical Methods for Least Squares Problems, section 7.4 (CGLS).
        """
        w = start.clone()
        residuals = self._residuals(w)
        gradient = self._by_root_transposed(self._transposed(residuals)[:, 0] - w)
        direction, energy = gradient.clone(), float(gradient @ gradient)
        first = energy
        target = max(_ACCURACY**2 * len(w), 1e-22 * first)
        best, lowest, since = w, energy, 0
        for k in range(_LIMIT):
            if energy <= target or since > 25:
                break
            step_w = self._by_root(direction)
            images = self._images(step_w[:, None])
            curvature = float(step_w @ step_w) + sum(float(i @ i) for i in images)
            alpha = energy / curvature
            w = w + alpha * step_w
            # The residual is computed anew now and then: its rounding is that of the values, not of the solution.
            residuals = [r - alpha * i for r, i in zip(residuals, images, strict=True)]
            if k % 10 == 9:
                residuals = self._residuals(w)
            gradient = self._by_root_transposed(self._transposed(residuals)[:, 0] - w)
            new = float(gradient @ gradient)
            if not math.isfinite(new):
                break
            direction = gradient + new / energy * direction
            energy = new
            self.iterations += 1
            if energy < 0.9 * lowest:
                best, lowest, since = w, energy, 0
            else:
                since += 1
        if not math.sqrt(lowest) <= max(_USABLE * math.sqrt(len(w)), 1e-6 * math.sqrt(first)):
            raise ConvergenceError(
                "least squares with the factor of a part of the rows did not converge: the gradient is "
                f"{math.sqrt(lowest / len(w)):.1e} posterior deviations per weight"
            )
        return best

    def _by_root(self, v: Tensor) -> Tensor:
        """``S v`` for (W,) or (W, k)."""
        if self._factor is None:
            return self._symmetric_root(v)
        columns = v if v.dim() == 2 else v[:, None]
        return torch.linalg.solve_triangular(self._factor.T, columns, upper=True).reshape(v.shape)

    def _by_root_transposed(self, v: Tensor) -> Tensor:
        if self._factor is None:
            return self._symmetric_root(v)
        columns = v if v.dim() == 2 else v[:, None]
        return torch.linalg.solve_triangular(self._factor, columns, upper=False).reshape(v.shape)

    def _symmetric_root(self, v: Tensor) -> Tensor:
        inside = self._rotation.T @ v
        change = self._shrinkage.sqrt() - 1.0
        return v + self._rotation @ (inside * (change if v.dim() == 1 else change[:, None]))

    @cached_property
    def _normal_factor(self) -> Tensor:
        """Lower Cholesky factor of ``S^T (A^T A + I) S``, near one; formed when a variance is first asked for."""
        size = len(self.mean_weights)
        normal = torch.empty(size, size, dtype=torch.float64)
        step = max(1, _BLOCK // max(len(v) for v in self._values))
        eye = torch.eye(size, dtype=torch.float64)
        for k in range(0, size, step):
            columns = self._by_root(eye[:, k : k + step].contiguous())
            images = self._images(columns)
            normal[:, k : k + step] = self._by_root_transposed(self._transposed(images) + columns)
        return torch.linalg.cholesky(0.5 * (normal + normal.T))

    def evidence(self, profile: bool) -> tuple[float, float]:
        """See :class:`FeaturePosterior`; needs the normal matrix."""
        value, scale = super().evidence(profile)
        return value - float(self._normal_factor.diagonal().log().sum()), scale

    def _own_diagnostics(self) -> dict[str, Any]:
        """The evidence is computed when it is asked for."""
        return {"iterations": self.iterations}

    def _spread(self, a: Tensor) -> Tensor:
        inside = self._by_root_transposed(a.T.contiguous())
        return torch.linalg.solve_triangular(self._normal_factor, inside, upper=False).T

    def _move(self, white: Tensor) -> Tensor:
        return self._by_root(torch.linalg.solve_triangular(self._normal_factor.T, white, upper=True))
