"""Tucker's and the canonical polyadic form: one vector of coefficients, a core or one for each component."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb.forms import ARD_RATE, ARD_SHAPE, ROOM, CoreForm, Statistics, ard_prior
from gpkit.inference.structured_vb.gamma import GammaPosterior
from gpkit.inference.structured_vb.layout import Grouping
from gpkit.inference.structured_vb.modes import fold_index, fold_pairs, packed_size, upper_pairs
from gpkit.recursions import tensor_statistics

__all__ = ["CP", "Tucker"]

Array = NDArray[np.float64]


class Tucker(CoreForm):
    """A core over all combinations of components, with precisions for the slices of every mode."""

    def _coupling(self) -> NDArray[np.int64]:
        ranks = [mode.rank for mode in self.modes]
        if math.prod(ranks) > 4096:
            raise InvalidDataError(
                f"a Tucker core of {' x '.join(map(str, ranks))} coefficients is too large for a full covariance: "
                "lower the rank or use form='cp'"
            )
        return np.stack([axis.reshape(-1) for axis in np.meshgrid(*map(np.arange, ranks), indexing="ij")], 1)

    def _prior_precisions(self) -> list[GammaPosterior]:
        return [ard_prior(mode.rank) for mode in self.modes] if self.ard else []

    def expected_precision(self) -> tuple[Array, Array]:
        """Products over the modes of the precisions of slices."""
        size = len(self.coupling)
        mean, log_mean = np.ones(size), np.zeros(size)
        for k, slices in enumerate(self.precisions):
            mean = mean * slices.mean[self.coupling[:, k]]
            log_mean = log_mean + slices.mean_log[self.coupling[:, k]]
        return mean, log_mean

    def update_precisions(self) -> None:
        """One mode after the other, each an exact maximum."""
        second = self.mean**2 + np.diag(self.covariance)
        size = len(second)
        for k in range(len(self.precisions)):
            mean, _ = self.expected_precision()
            column = self.coupling[:, k]
            rest = mean / self.precisions[k].mean[column]
            rank = self.modes[k].rank
            rate = (ARD_RATE + 0.5 * np.bincount(column, rest * second, rank)).astype(np.float64)
            shape = np.full(rank, ARD_SHAPE + 0.5 * size / rank)
            self.precisions[k] = GammaPosterior(shape, rate, ARD_SHAPE, ARD_RATE)

    def _rest(self, mode: int) -> tuple[list[int], int]:
        """The other modes, and how many of them are in the left group."""
        others = [k for k in range(len(self.modes)) if k != mode]
        return others, (len(others) + 1) // 2

    def _tables(self, others: list[int], tables: Sequence[Array]) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
        flat = np.concatenate([tables[k].reshape(-1) for k in others]) if others else np.ones(1)
        base = np.cumsum([0, *(tables[k].size for k in others[:-1])])[: len(others)]
        return flat, base.astype(np.int64), np.array([self.modes[k].rank for k in others], np.int64)

    def _shapes(self, others: list[int], split: int) -> tuple[tuple[int, int], tuple[int, int]]:
        ranks = [self.modes[k].rank for k in others]
        packed = [packed_size(rank) for rank in ranks]
        return (
            (math.prod(packed[:split]), math.prod(packed[split:])),
            (math.prod(ranks[:split]), math.prod(ranks[split:])),
        )

    def statistics(self, mode: int, grouping: Grouping) -> Statistics:
        """Packed outer products of the other modes' moments."""
        others, split = self._rest(mode)
        flat, base, rank = self._tables(others, [m.table for m in self.modes])
        size = self.modes[mode].factor.size
        packed, full = self._shapes(others, split)
        if size * math.prod(packed) > ROOM:
            raise InvalidDataError(
                f"the statistics of {size} coordinates of a Tucker model of these ranks do not fit into memory: lower "
                "the rank or use form='cp'"
            )
        second, first = np.empty((size, *packed)), np.empty((size, *full))
        tensor_statistics.accumulate(
            grouping.starts, grouping.others, grouping.target, grouping.weight, flat, base, rank, split, second, first
        )
        return Statistics(mode, second.reshape(size, -1), first.reshape(size, -1))

    def _folded(self, mode: int) -> Array:
        """E[g g^T] with the pairs of the other modes packed: (R, R, P)."""
        k_modes = len(self.modes)
        ranks = [m.rank for m in self.modes]
        others, _ = self._rest(mode)
        tensor = self.second_moment.reshape(*ranks, *ranks)
        order = [mode, mode + k_modes]
        for other in others:
            order += [other, other + k_modes]
        tensor = tensor.transpose(order)
        out = tensor.reshape(ranks[mode] ** 2, *[ranks[k] ** 2 for k in others])
        for axis, other in enumerate(others, start=1):
            out = fold_pairs(out, axis, ranks[other])
        return np.ascontiguousarray(out.reshape(ranks[mode], ranks[mode], -1))

    def _unfolded_mean(self, mode: int) -> Array:
        ranks = [m.rank for m in self.modes]
        return np.moveaxis(self.mean.reshape(ranks), mode, 0).reshape(ranks[mode], -1)

    def sites(self, statistics: Statistics) -> tuple[Array, Array]:
        """One product over all coordinates with the folded second moment of the core."""
        mode = statistics.mode
        rank = self.modes[mode].rank
        rows, columns = upper_pairs(rank)
        packed = statistics.second @ self._folded(mode)[rows, columns].T
        return packed[:, fold_index(rank)], statistics.first @ self._unfolded_mean(mode).T

    def coefficient_statistics(self, statistics: Statistics) -> tuple[Array, Array]:
        """Unpacked products of the mode's second moments with the statistics."""
        mode = statistics.mode
        others, _ = self._rest(mode)
        ranks = [m.rank for m in self.modes]
        own = self.modes[mode]
        packed = own.table[:, own.rank :].T @ statistics.second
        square = packed[fold_index(own.rank).reshape(-1)].reshape(-1, *[packed_size(ranks[k]) for k in others])
        for axis, other in enumerate(others, start=1):
            square = np.take(square, fold_index(ranks[other]).reshape(-1), axis=axis)
        arranged = [mode, *others]
        square = square.reshape([r for k in arranged for r in (ranks[k], ranks[k])])
        place = [arranged.index(k) for k in range(len(ranks))]
        square = square.transpose([2 * p for p in place] + [2 * p + 1 for p in place])
        linear = (own.means().T @ statistics.first).reshape([ranks[k] for k in arranged]).transpose(place)
        size = len(self.mean)
        return np.ascontiguousarray(square).reshape(size, size), linear.reshape(-1)

    def evaluate(self, mode: int, grouping: Grouping, tables: Sequence[Array]) -> tuple[Array, Array]:
        """The grouping mode is contracted with the core first, then two bilinear forms per entry."""
        others, split = self._rest(mode)
        flat, base, rank = self._tables(others, tables)
        packed, full = self._shapes(others, split)
        own = self.modes[mode]
        table = tables[mode]
        folded = self._folded(mode)
        rows, columns = upper_pairs(own.rank)
        twice = np.where(rows == columns, 1.0, 2.0)[:, None]
        second = table[:, own.rank :] @ (twice * folded[rows, columns])
        first = table[:, : own.rank] @ self._unfolded_mean(mode)
        mean, square = np.empty(len(grouping.others)), np.empty(len(grouping.others))
        tensor_statistics.evaluate(
            grouping.starts,
            grouping.others,
            flat,
            base,
            rank,
            split,
            first.reshape(-1, *full),
            second.reshape(-1, *packed),
            mean,
            square,
        )
        return mean, square


class CP(CoreForm):
    """One coefficient for each component, which all modes share."""

    def _coupling(self) -> NDArray[np.int64]:
        rank = self.modes[0].rank
        return np.tile(np.arange(rank)[:, None], (1, len(self.modes)))

    def _prior_precisions(self) -> list[GammaPosterior]:
        return [ard_prior(self.modes[0].rank)] if self.ard else []

    def expected_precision(self) -> tuple[Array, Array]:
        """The component's own."""
        if not self.precisions:
            return np.ones(len(self.mean)), np.zeros(len(self.mean))
        return self.precisions[0].mean, self.precisions[0].mean_log

    def update_precisions(self) -> None:
        """One gamma for each component."""
        if self.precisions:
            second = self.mean**2 + np.diag(self.covariance)
            shape = np.full(len(second), ARD_SHAPE + 0.5)
            self.precisions[0] = GammaPosterior(shape, ARD_RATE + 0.5 * second, ARD_SHAPE, ARD_RATE)

    def _flat(self, mode: int, tables: Sequence[Array]) -> tuple[Array, NDArray[np.int64]]:
        others = [k for k in range(len(self.modes)) if k != mode]
        flat = np.concatenate([tables[k].reshape(-1) for k in others]) if others else np.ones(1)
        base = np.cumsum([0, *(tables[k].size for k in others[:-1])])[: len(others)]
        return flat, base.astype(np.int64)

    def statistics(self, mode: int, grouping: Grouping) -> Statistics:
        """Elementwise products of the other modes' moments."""
        flat, base = self._flat(mode, [m.table for m in self.modes])
        rank, size = self.modes[mode].rank, self.modes[mode].factor.size
        second, first = np.empty((size, packed_size(rank))), np.empty((size, rank))
        tensor_statistics.accumulate_diagonal(
            grouping.starts, grouping.others, grouping.target, grouping.weight, flat, base, rank, second, first
        )
        return Statistics(mode, second, first)

    def sites(self, statistics: Statistics) -> tuple[Array, Array]:
        """Statistics times the second moment of the coefficients."""
        fold = fold_index(self.modes[statistics.mode].rank)
        return statistics.second[:, fold] * self.second_moment, statistics.first * self.mean

    def coefficient_statistics(self, statistics: Statistics) -> tuple[Array, Array]:
        """Sums over coordinates."""
        own = self.modes[statistics.mode]
        packed = (own.table[:, own.rank :] * statistics.second).sum(0)
        return packed[fold_index(own.rank)], (own.means() * statistics.first).sum(0)

    def evaluate(self, mode: int, grouping: Grouping, tables: Sequence[Array]) -> tuple[Array, Array]:
        """Sums over components of products."""
        flat, base = self._flat(mode, tables)
        rank = self.modes[mode].rank
        rows, columns = upper_pairs(rank)
        twice = np.where(rows == columns, 1.0, 2.0)
        table = tables[mode]
        first = np.ascontiguousarray(table[:, :rank] * self.mean)
        second = np.ascontiguousarray(table[:, rank:] * (twice * self.second_moment[rows, columns]))
        mean, square = np.empty(len(grouping.others)), np.empty(len(grouping.others))
        tensor_statistics.evaluate_diagonal(
            grouping.starts, grouping.others, flat, base, rank, first, second, mean, square
        )
        return mean, square
