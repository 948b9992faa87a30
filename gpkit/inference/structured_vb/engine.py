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

from gpkit.inference.structured_vb.cores import CP, Tucker
from gpkit.inference.structured_vb.factors import Factor
from gpkit.inference.structured_vb.forms import Form, Statistics
from gpkit.inference.structured_vb.layout import Entries, Grouping, Layout
from gpkit.inference.structured_vb.modes import Mode
from gpkit.inference.structured_vb.observations import Observation
from gpkit.inference.structured_vb.trains import TensorTrain, train_links
from gpkit.inference.threads import one_blas_thread

__all__ = ["LowRankPosterior", "SweepTrace", "component_layout"]

Array = NDArray[np.float64]
_LEARN_FROM = 1
_LEARN_FROM_SITES = 8  # sites have to find the outliers first
_LEARN_ALWAYS_UNTIL = 6
_TURN = 2  # sweeps: priors of the functions are learned in one and their basis changes in the next
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


def component_layout(
    form: str, ranks: Sequence[int], main_effects: bool, modes: int | None = None
) -> list[tuple[NDArray[np.int64], int]]:
    """For each mode: which of its components are random functions, and how many components it has.

    Tucker with main effects has a constant component in every mode, so that the core holds an intercept, main effects
    and interactions of every order. CP with main effects has a component for the intercept and one for each mode. A
    tensor train has the entries of a matrix in every mode; see :func:`~gpkit.inference.structured_vb.train_links`.

    Args:
        form: "tucker", "cp" or "tensor-train".
        ranks: of the modes; of the bonds between them for a tensor train.
        main_effects: whether main effects are components of their own.
        modes: their number, where it is not that of the ranks.
    """
    if form == "tensor-train":
        links = train_links(ranks, len(ranks) + 1 if modes is None else modes, main_effects)
        return [(np.arange(own.functions), len(own.left)) for own in links]
    if form == "tucker":
        shift = 1 if main_effects else 0
        return [(np.arange(shift, rank + shift), rank + shift) for rank in ranks]
    rank = max(ranks)
    if not main_effects:
        return [(np.arange(rank), rank) for _ in ranks]
    total = rank + len(ranks) + 1
    return [(np.append(np.arange(rank), rank + k), total) for k in range(len(ranks))]


def _build(form: str, modes: Sequence[Mode], ard: bool) -> Form:
    if form == "tucker":
        return Tucker(modes, ard)
    if form == "cp":
        return CP(modes, ard)
    main_effects = len(modes[0].free) < modes[0].rank
    extra = 1 if main_effects else 0
    ranks: list[int] = []
    for mode in modes[:-1]:
        ranks.append(len(mode.free) // (ranks[-1] + extra) - extra if ranks else len(mode.free) - extra)
    return TensorTrain(modes, ard, ranks, main_effects)


def _settled(trace: Sequence[float], least: float) -> bool:
    """Whether the bound changes by less in a sweep."""
    return len(trace) >= _LEAST_SWEEPS and abs(trace[-1] - trace[-1 - _TURN]) / _TURN < least


class LowRankPosterior:
    """The variational posterior of a low-rank tensor and its updates.

    Args:
        factors: of each mode; their ranks are those of ``component_layout``'s random components.
        components: from :func:`component_layout`.
        form: "tucker", "cp" or "tensor-train".
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
        self.form = _build(form, self.modes, ard)
        self.observation = observation
        self.sweeps = 0
        self.squared_error = 0.0
        rng = np.random.default_rng(seed)
        for mode in self.modes:
            mode.factor.start(rng)
            mode.refresh()
        self.form.start(rng)

    def inherit(self, other: LowRankPosterior) -> None:
        """Begin with what another posterior of the same modes has learned of the priors of the functions."""
        for mode, own in zip(self.modes, other.modes, strict=True):
            mode.factor.inherit(own.factor)

    def sweep(self, entries: Entries) -> float:
        """Update everything once; returns the bound."""
        begin = _LEARN_FROM_SITES if self.observation.needs_moments else _LEARN_FROM
        learn = self.sweeps >= begin and (self.sweeps < _LEARN_ALWAYS_UNTIL or self.sweeps % _TURN == 0)
        entries.prepare(self)
        for k in range(len(self.modes)):
            statistics = entries.statistics(self.form, k)
            if entries.exact and self.sweeps % _TURN:
                self.form.rotate(k)
            self._update_mode(k, statistics, learn)
            self.form.update(statistics, self.observation.precision)
        self.squared_error = self.form.error(entries.squares, statistics)
        self.observation.update_noise(entries.count, self.squared_error)
        self.sweeps += 1
        entries.finish(self)
        return self.bound(entries)

    def _sites(self, k: int, statistics: Statistics) -> tuple[Array, Array]:
        """What the entries of the statistics say about the functions of a mode."""
        precision, information = self.modes[k].reduce(*self.form.sites(statistics))
        scale = self.observation.precision
        return scale * precision, scale * information

    def _update_mode(self, k: int, statistics: Statistics, learn: bool) -> None:
        precision, information = self._sites(k, statistics)
        mode = self.modes[k]
        factor = mode.factor
        factor.set_sites(precision, information)
        if learn:
            factor.learn()
        factor.update()
        mode.refresh()

    def bound(self, entries: Entries) -> float:
        """The evidence lower bound with the present targets and weights."""
        divergences = self.form.divergence() + sum(mode.factor.divergence() for mode in self.modes)
        return self.observation.bound(entries.count, self.squared_error) - divergences

    def carry(self, entries: Entries) -> None:
        """Keep what these entries say as sites, so that they can go: the posterior is the prior of what follows."""
        entries.begin(self)
        for k, mode in enumerate(self.modes):
            statistics = entries.statistics(self.form, k)
            mode.factor.carry(*self._sites(k, statistics))
            self.form.carry(statistics, self.observation.precision)
        self.observation.carry(entries.count, self.form.error(entries.squares, statistics))

    def forget(self, factor: float) -> None:
        """Multiply what is carried by a factor, a power of its likelihood."""
        for mode in self.modes:
            mode.factor.forget(factor)
        self.form.forget(factor)
        self.observation.forget(factor)

    def fit(
        self,
        layout: Entries,
        *,
        sweeps: int = 25,
        tolerance: float = 1e-5,
        before: Sequence[float] = (),
        after: Callable[[list[float]], None] | None = None,
    ) -> SweepTrace:
        """Sweep until the bound changes by less than ``tolerance`` per entry, on average over two sweeps.

        Args:
            layout: the entries.
            sweeps: at most this many, those before included.
            tolerance: change of the bound per entry.
            before: bounds of sweeps that were made already, of a fit that goes on.
            after: called with all bounds after each sweep.
        """
        trace, least = list(before), tolerance * max(layout.entries, 1)
        with one_blas_thread():
            layout.begin(self)
            while len(trace) < sweeps and not _settled(trace, least):
                trace.append(self.sweep(layout))
                if after is not None:
                    after(trace)
        return SweepTrace(np.array(trace), _settled(trace, least))

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
        coefficients = self.form.draw(n, rng)
        parts = []
        for mode, column in zip(self.modes, coordinates, strict=True):
            distinct, inverse = np.unique(column, axis=0, return_inverse=True)
            full = np.ones((n, len(distinct), mode.rank))
            full[:, :, mode.free] = mode.factor.sample(distinct, n, rng)
            parts.append((full, inverse.reshape(-1)))
        return self.form.combine(coefficients, parts)
