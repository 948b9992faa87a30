"""The exact marginal likelihood of rows through one Cholesky factor of their covariance, with its gradient.

Entry (i, j) of the covariance is ``sum_o C_o[i, j] prod_k T_k[o_k](|x_ik - x_jk|)`` with the derivatives T of the
covariance of every axis k: the coefficients C and the places of distinct lags do not change while hyper-parameters do.
An evaluation fills a table per axis and gathers from it; its gradient scatters back into the tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact.dense import factorise
from gpkit.inference.collocation.exact.lbfgs import JITTER, Evidence, Slopes, gradients, profile_gain, tracked_mixtures
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.exact.rows import Rows, scattered
from gpkit.inference.collocation.forms import Jet

__all__ = ["covariance_evidence"]

_SEEN = 0.01
"""Jitter in units of the smallest noise."""
_SAME = 1e-12
"""Relative to the longest lag, differences of lags that are rounding."""


@dataclass(frozen=True, eq=False)
class _Lags:
    """Distinct lags along one axis.

    Attributes:
        values: (L,), not negative.
        places: Which of them belongs to every pair of rows, (P,).
        signs: Of the difference of coordinates, (P,).
    """

    values: Tensor
    places: Tensor
    signs: Tensor

    @classmethod
    def of(cls, x: Tensor, first: Tensor, second: Tensor) -> _Lags:
        """Of pairs of coordinates."""
        difference = x[first] - x[second]
        lag = difference.abs()
        unit = _SAME * max(float(lag.max()) if len(lag) else 0.0, 1e-300)
        _, index, places = np.unique(np.round(lag.numpy() / unit), return_index=True, return_inverse=True)
        signs = torch.where(difference < 0.0, -1.0, 1.0).to(torch.float64)
        return cls(lag[torch.from_numpy(index)], torch.from_numpy(places.reshape(-1)), signs)


class _Covariance:
    """Covariance of rows as a function of hyper-parameters.

    Args:
        rows: Whose covariance.
        fields: Number of fields.
        dim: Number of axes.
    """

    def __init__(self, rows: Sequence[Rows], fields: int, dim: int) -> None:
        """Find distinct lags and the coefficients of every product of derivatives, for the pairs with i <= j."""
        flat = [scattered(r) for r in rows]
        n = sum(len(r) for r in flat)
        first, second = torch.triu_indices(n, n)
        self.size, self.dim, self.fields = n, dim, fields
        self._first, self._second = first, second
        place = torch.empty(n, n, dtype=torch.long)
        place[first, second] = torch.arange(len(first))
        place[second, first] = place[first, second]
        self._place = place
        self.lags = [_Lags.of(torch.cat([r.coordinates[k] for r in flat]), first, second) for k in range(dim)]
        self.products = self._products(flat)
        self.orders = [
            [max((o[k] for g, o in self.products if g == f), default=0) for k in range(dim)] for f in range(fields)
        ]

    def _products(self, flat: Sequence[Rows]) -> dict[tuple[int, tuple[int, ...]], Tensor]:
        """Coefficients (P,) by field and by order of differentiation along every axis."""
        columns: dict[Jet, Tensor] = {}
        start = 0
        for r in flat:
            for t in r.terms:
                column = columns.setdefault(t.jet, torch.zeros(self.size, dtype=torch.float64))
                column[start : start + len(r)] += t.coefficient
            start += len(r)
        out: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        for (own, left), (jet, right) in itertools.product(columns.items(), repeat=2):
            if own.field != jet.field:
                continue
            orders = tuple(a + b for a, b in zip(own.orders, jet.orders, strict=True))
            part = (-1.0) ** sum(jet.orders) * left[self._first] * right[self._second]
            if not bool(part.any()):
                continue
            for lags, order in zip(self.lags, orders, strict=True):
                if order % 2:
                    part = part * lags.signs
            key = (own.field, orders)
            out[key] = out[key] + part if key in out else part
        return out

    def tables(self, mixtures: Sequence[MixtureAxis]) -> list[list[Tensor]]:
        """Derivatives of the covariance at the lags of every axis of every field, (orders, L)."""
        d = self.dim
        return [
            [mixtures[f * d + k].table(lags.values, self.orders[f][k]) for k, lags in enumerate(self.lags)]
            for f in range(self.fields)
        ]

    def gathered(self, tables: Sequence[Sequence[Tensor]]) -> dict[tuple[int, int, int], Tensor]:
        """By field, axis and order, the factors of every pair (P,)."""
        wanted = {(f, k, o) for f, orders in self.products for k, o in enumerate(orders)}
        return {(f, k, o): tables[f][k][o].index_select(0, self.lags[k].places) for f, k, o in sorted(wanted)}

    def matrix(self, factors: dict[tuple[int, int, int], Tensor]) -> Tensor:
        """The covariance (n, n)."""
        total = torch.zeros(len(self._first), dtype=torch.float64)
        for (f, orders), coefficient in self.products.items():
            part = coefficient
            for k, o in enumerate(orders[:-1]):
                part = part * factors[f, k, o]
            total.addcmul_(part, factors[f, self.dim - 1, orders[-1]])
        return total[self._place]

    def adjoint(self, slope: Tensor, factors: dict[tuple[int, int, int], Tensor]) -> dict[tuple[int, int, int], Tensor]:
        """From a symmetric derivative in the covariance to those in the tables, (L,) by field, axis and order."""
        pairs = slope[self._first, self._second] * torch.where(self._first == self._second, 1.0, 2.0)
        sums: dict[tuple[int, int, int], Tensor] = {}
        for (f, orders), coefficient in self.products.items():
            weighted = pairs * coefficient
            for k, own in enumerate(orders):
                part = weighted
                for other, o in enumerate(orders):
                    if other != k:
                        part = part * factors[f, other, o]
                sums[f, k, own] = sums[f, k, own] + part if (f, k, own) in sums else part
        return {
            (f, k, o): torch.bincount(self.lags[k].places, part, minlength=len(self.lags[k].values))
            for (f, k, o), part in sums.items()
        }


def covariance_evidence(
    rows: Sequence[Rows], fields: int, dim: int, given: Sequence[Rows] = (), profiled: bool = False
) -> Evidence:
    """Log density of rows given others, for any mixtures, one per axis of every field with axes fastest.

    Both come from one Cholesky factor, whose first rows are those of the rows that are given.

    Args:
        rows: With values.
        fields: Number of fields.
        dim: Number of axes.
        given: Rows that are conditioned on, with values.
        profiled: Whether the density of the given rows at the best scale of the priors is added.
    """
    ordered = [*given, *rows]
    covariance = _Covariance(ordered, fields, dim)
    values = torch.cat([r.values if r.values is not None else torch.zeros(len(r)) for r in ordered])
    noise = torch.cat([r.noise.expand(len(r)) for r in ordered])
    n, m = len(values), sum(len(r) for r in given)

    def evaluate(mixtures: Sequence[MixtureAxis], slopes: bool = True) -> tuple[float, Slopes]:
        tracked, leaves = tracked_mixtures(mixtures) if slopes else (list(mixtures), [])
        with torch.set_grad_enabled(slopes):
            tables = covariance.tables(tracked)
        factors = covariance.gathered([[t.detach() for t in own] for own in tables])
        gram = covariance.matrix(factors)
        gram.diagonal().add_(noise)
        factor = factorise(gram, JITTER)
        if bool((noise > 0.0).any()) and float((gram.diagonal() / noise)[noise > 0.0].max()) > _SEEN / JITTER:
            raise NotPositiveDefiniteError("the noise of the data rounds away beside their prior")
        white = factor.whiten(values[:, None])[:, 0]
        logs = 2.0 * (factor.factor.diagonal().log() - factor.scale.log()) + math.log(2.0 * math.pi)
        value = -0.5 * (float(white[m:].square().sum()) + float(logs[m:].sum()))
        square, kept = float(white[:m].square().sum()), 1.0
        if profiled:
            gain, kept = profile_gain(square, m)
            value += gain - 0.5 * (square + float(logs[:m].sum()))
        if not slopes:
            return value, []
        slope = 0.5 * _slope(factor.factor, factor.scale, white, 1.0, n)
        if m:
            slope[:m, :m] -= 0.5 * _slope(
                factor.factor[:m, :m], factor.scale[:m], white[:m], kept, 0 if profiled else m
            )
        total = torch.zeros((), dtype=torch.float64)
        for (f, k, o), part in covariance.adjoint(slope, factors).items():
            total = total + tables[f][k][o] @ part
        return value, gradients(total, leaves)

    return evaluate


def _slope(factor: Tensor, scale: Tensor, white: Tensor, share: float, inverted: int) -> Tensor:
    """``share alpha alpha^T - G^-1`` for ``alpha = G^-1 y``, or without the inverse where ``inverted`` is zero."""
    alpha = scale * torch.linalg.solve_triangular(factor.T, white[:, None], upper=True)[:, 0]
    out = share * torch.outer(alpha, alpha)
    return out - torch.cholesky_inverse(factor) * scale[:, None] * scale if inverted else out
