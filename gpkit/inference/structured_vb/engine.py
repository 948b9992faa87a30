"""Structured variational Bayes for low-rank tensor models: sweeps of exact coordinate updates of one bound.

The posterior is ``q(coefficients) q(noise) prod_k q(paths of mode k)``: a full covariance of the coefficients, one
joint Gaussian of all functions along each mode. Each update is the exact maximum of the bound over its block, so that
the bound never decreases. A sweep costs O(N) with nothing of size R^(2K) for an entry.

References:
    Fang et al. (2024), Functional Bayesian Tucker Decomposition for Continuous-indexed Tensor Data, ICLR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb.factors import Factor
from gpkit.inference.structured_vb.forms import CP, Form, Statistics, Tucker
from gpkit.inference.structured_vb.layout import Grouping, Layout
from gpkit.inference.structured_vb.modes import Mode
from gpkit.inference.structured_vb.observations import Observation

__all__ = ["LowRankPosterior", "SweepTrace", "component_layout"]

Array = NDArray[np.float64]
_LEARN_FROM = 3
_LEARN_ALWAYS_UNTIL = 30
_LEARN_EVERY = 3
_LEAST_SWEEPS = 10


@dataclass(frozen=True)
class SweepTrace:
    """What the sweeps did.

    Attributes:
        elbo: bound after each sweep, (sweeps,).
        converged: whether the last change was below the tolerance.
    """

    elbo: Array
    converged: bool


def component_layout(form: str, ranks: Sequence[int], main_effects: bool) -> list[tuple[NDArray[np.int64], int]]:
    """For each mode: which of its components are random functions, and how many components it has.

    Tucker with main effects has a constant component in every mode, so that the core holds an intercept, main effects
    and interactions of every order. CP with main effects has a component for the intercept and one for each mode.
    """
    if form == "tucker":
        shift = 1 if main_effects else 0
        return [(np.arange(shift, rank + shift), rank + shift) for rank in ranks]
    rank = max(ranks)
    if not main_effects:
        return [(np.arange(rank), rank) for _ in ranks]
    total = rank + len(ranks) + 1
    return [(np.append(np.arange(rank), rank + k), total) for k in range(len(ranks))]


class LowRankPosterior:
    """The variational posterior of a low-rank tensor and its updates.

    Args:
        factors: of each mode; their ranks are those of ``component_layout``'s random components.
        components: from :func:`component_layout`.
        form: "tucker" or "cp".
        observation: the observation model.
        ard: whether precisions of the coefficients are learned.
        seed: of the random start.
    """

    def __init__(
        self,
        factors: Sequence[Factor],
        components: Sequence[tuple[NDArray[np.int64], int]],
        form: str,
        observation: Observation,
        *,
        ard: bool = True,
        seed: int = 0,
    ) -> None:
        self.modes = [Mode(f, free, rank) for f, (free, rank) in zip(factors, components, strict=True)]
        self.form: Form = Tucker(self.modes, ard) if form == "tucker" else CP(self.modes, ard)
        self.observation = observation
        self.sweeps = 0
        self._last: Statistics | None = None
        self.squared_error = 0.0
        rng = np.random.default_rng(seed)
        for mode in self.modes:
            mode.factor.start(rng)
            mode.refresh()
        self.form.start(rng)

    def sweep(self, layout: Layout) -> float:
        """Update everything once; returns the bound."""
        learn = self.sweeps >= _LEARN_FROM and (self.sweeps < _LEARN_ALWAYS_UNTIL or self.sweeps % _LEARN_EVERY == 0)
        if self.observation.needs_moments and self.sweeps:
            layout.set_observations(*self.observation.update_entries(*self.entry_moments(layout)))
        for k in range(len(self.modes)):
            self._last = self._update_mode(k, layout.groupings[k], learn)
        assert self._last is not None
        square, linear = self.form.coefficient_statistics(self._last)
        self.form.update_coefficients(square, linear, self.observation.precision)
        self.form.update_precisions()
        self.squared_error = self.form.squared_error(layout.squares, square, linear)
        self.observation.update_noise(layout.entries, self.squared_error)
        self.sweeps += 1
        return self.bound(layout)

    def _update_mode(self, k: int, grouping: Grouping, learn: bool) -> Statistics:
        statistics = self.form.statistics(k, grouping)
        mode = self.modes[k]
        precision, information = mode.reduce(*self.form.sites(statistics))
        factor, scale = mode.factor, self.observation.precision
        factor.precision = np.ascontiguousarray(scale * precision)
        factor.information = np.ascontiguousarray(scale * information)
        if learn:
            factor.learn()
        factor.update(factor.precision, factor.information)
        mode.refresh()
        return statistics

    def bound(self, layout: Layout) -> float:
        """The evidence lower bound with the present targets and weights."""
        divergences = self.form.divergence() + sum(mode.factor.divergence() for mode in self.modes)
        return self.observation.bound(layout.entries, self.squared_error, layout.squares) - divergences

    def fit(
        self,
        layout: Layout,
        *,
        sweeps: int = 40,
        tolerance: float = 1e-5,
        before: Sequence[float] = (),
        after: Callable[[list[float]], None] | None = None,
    ) -> SweepTrace:
        """Sweep until the bound changes by less than ``tolerance`` per entry.

        Args:
            layout: the entries.
            sweeps: at most this many, those before included.
            tolerance: change of the bound per entry.
            before: bounds of sweeps that were made already, of a fit that goes on.
            after: called with all bounds after each sweep.
        """
        trace = list(before)
        converged = False
        while len(trace) < sweeps and not converged:
            trace.append(self.sweep(layout))
            converged = len(trace) >= _LEAST_SWEEPS and abs(trace[-1] - trace[-2]) < tolerance * max(layout.entries, 1)
            if after is not None:
                after(trace)
        return SweepTrace(np.array(trace), converged)

    def _evaluate(self, index: Sequence[NDArray[np.int32]], tables: Sequence[Array]) -> tuple[Array, Array]:
        last = len(self.modes) - 1
        grouping = Grouping(index, last, len(tables[last]), np.zeros(len(index[0])), np.ones(1))
        return self._ungrouped(grouping, tables)

    def _ungrouped(self, grouping: Grouping, tables: Sequence[Array]) -> tuple[Array, Array]:
        mean, square = self.form.evaluate(len(self.modes) - 1, grouping, tables)
        out_mean, out_square = np.empty_like(mean), np.empty_like(square)
        out_mean[grouping.order], out_square[grouping.order] = mean, square
        return out_mean, out_square

    def entry_moments(self, layout: Layout) -> tuple[Array, Array]:
        """E[f] and E[f^2] (N,) at the entries, in their own order."""
        return self._ungrouped(layout.groupings[-1], [mode.table for mode in self.modes])

    def node_moments(self, index: Sequence[NDArray[np.int32]]) -> tuple[Array, Array]:
        """E[f] and E[f^2] (M,) at combinations of the factors' own coordinates."""
        return self._evaluate(index, [mode.table for mode in self.modes])

    def moments_at(self, coordinates: Sequence[Array]) -> tuple[Array, Array]:
        """E[f] and E[f^2] (M,) at any coordinates, one array (M,) or (M, D) per mode; exact given the posterior."""
        index, tables = [], []
        for mode, column in zip(self.modes, coordinates, strict=True):
            distinct, inverse = np.unique(column, axis=0, return_inverse=True)
            mean, covariance = mode.factor.at(distinct)
            table = np.empty((len(distinct), mode.table.shape[1]))
            mode.fill(mean, covariance, table)
            tables.append(table)
            index.append(inverse.reshape(-1).astype(np.int32))
        return self._evaluate(index, tables)

    def sample(self, coordinates: Sequence[Array], n: int, rng: np.random.Generator) -> Array:
        """Joint draws (n, M) of f."""
        root = np.linalg.cholesky(
            self.form.covariance + 1e-14 * np.trace(self.form.covariance) * np.eye(len(self.form.mean))
        )
        coefficients = self.form.mean + rng.standard_normal((n, len(root))) @ root.T
        parts = []
        for mode, column in zip(self.modes, coordinates, strict=True):
            distinct, inverse = np.unique(column, axis=0, return_inverse=True)
            full = np.ones((n, len(distinct), mode.rank))
            full[:, :, mode.free] = mode.factor.sample(distinct, n, rng)
            parts.append((full, inverse.reshape(-1)))
        out = np.empty((n, len(parts[0][1])))
        for i in range(n):
            product = coefficients[i]
            term = np.ones((out.shape[1], len(product)))
            for k, (full, inverse) in enumerate(parts):
                term *= full[i][inverse][:, self.form.coupling[:, k]]
            out[i] = term @ product
        return out
