"""Tucker's and the canonical polyadic form: one vector of coefficients, a core or one for each component."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, reduce

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb.forms import ARD_RATE, ARD_SHAPE, ROOM, CoreForm, Statistics, ard_prior
from gpkit.inference.structured_vb.gamma import GammaPosterior
from gpkit.inference.structured_vb.layout import Grouping
from gpkit.inference.structured_vb.modes import fold_index, packed_size, upper_pairs
from gpkit.inference.structured_vb.rotations import best_rotation
from gpkit.recursions import tensor_statistics

__all__ = ["CP", "Tucker"]

Array = NDArray[np.float64]
Places = NDArray[np.int64]


@cache
def _packed_places(ranks: tuple[int, ...], first: int) -> tuple[Places, Places]:
    """Packed places of pairs of components, one mode before the others, of the first half of the modes and of the rest.

    The place of a pair of coefficients is the sum of both.
    """
    strides, step = [0] * len(ranks), 1
    for k in [*(k for k in reversed(range(len(ranks))) if k != first), first]:
        strides[k], step = step, step * packed_size(ranks[k])
    halves = []
    for modes in np.array_split(np.arange(len(ranks)), 2):
        places = np.zeros((1, 1), np.int64)
        for k in modes:
            own = strides[k] * fold_index(ranks[k])
            size = len(places) * len(own)
            places = (places[:, None, :, None] + own[None, :, None, :]).reshape(size, size)
        places.setflags(write=False)
        halves.append(places)
    return halves[0], halves[1]


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
        if not self.precisions:
            return np.ones(size), np.zeros(size)
        log_mean = reduce(np.add.outer, [slices.mean_log for slices in self.precisions])
        return self._weights().reshape(-1), log_mean.reshape(-1)

    def _weights(self, left_out: int | None = None) -> Array:
        """Expected precisions of the coefficients, (R_1, ..., R_K); those of one mode may be left out."""
        ones = [np.ones(mode.rank) for mode in self.modes]
        each = [own.mean if k != left_out else ones[k] for k, own in enumerate(self.precisions)] or ones
        return reduce(np.multiply.outer, each)

    def update_precisions(self) -> None:
        """One mode after the other, each an exact maximum."""
        for k in range(len(self.precisions)):
            self._update_slices(k)

    def _update_slices(self, mode: int) -> None:
        rank = self.modes[mode].rank
        energy = self._weights(mode) * self.coefficients.squares.reshape([m.rank for m in self.modes])
        rate = ARD_RATE + 0.5 * np.moveaxis(energy, mode, 0).reshape(rank, -1).sum(1)
        shape = np.full(rank, ARD_SHAPE + 0.5 * energy.size / rank)
        self.precisions[mode] = GammaPosterior(shape, rate, ARD_SHAPE, ARD_RATE)

    def rotate(self, mode: int) -> None:
        """All components of the mode; the precisions follow."""
        own = self.modes[mode]
        spread = own.factor.spread()
        if spread is None or self.coefficients.carried is not None:
            return
        ranks = [m.rank for m in self.modes]
        others = math.prod(ranks) // own.rank
        weight = np.moveaxis(self._weights(mode), mode, 0)[0].reshape(-1)
        mean = np.moveaxis(self.mean.reshape(ranks), mode, 0).reshape(own.rank, others)
        left, right = math.prod(ranks[:mode]), math.prod(ranks[mode + 1 :])
        blocks = self.covariance.reshape(left, own.rank, right, left, own.rank, right)
        second = np.einsum("iajibj,ij->ab", blocks, weight.reshape(left, right)) + (mean * weight) @ mean.T
        ard = (ARD_SHAPE, ARD_RATE) if self.precisions else None
        found = best_rotation(spread, second, others, own.free, own.constant, ard)
        if found is not None:
            change = found.of_coefficients(own.free, own.constant)
            self.coefficients.change(change, -found.log_determinant, mode, ranks)
            if self.precisions:
                self._update_slices(mode)

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

    def _places(self, first: int) -> tuple[Places, Places]:
        return _packed_places(tuple(mode.rank for mode in self.modes), first)

    def _folded(self, mode: int) -> Array:
        """E[g g^T] with the pairs of all modes packed, that of the mode first: (P_mode, P_others)."""
        rank = self.modes[mode].rank
        out = np.empty(math.prod(packed_size(m.rank) for m in self.modes))
        tensor_statistics.fold_core(self.mean, self.covariance, *self._places(mode), out)
        rows, columns = upper_pairs(rank)
        return out.reshape(packed_size(rank), -1) * np.where(rows == columns, 1.0, 0.5)[:, None]

    def _unfolded_mean(self, mode: int) -> Array:
        ranks = [m.rank for m in self.modes]
        return np.moveaxis(self.mean.reshape(ranks), mode, 0).reshape(ranks[mode], -1)

    def sites(self, statistics: Statistics) -> tuple[Array, Array]:
        """One product over all coordinates with the folded second moment of the core."""
        mode = statistics.mode
        packed = self._folded(mode) @ statistics.second.T  # long rows: several times faster than the transpose
        return packed.T[:, fold_index(self.modes[mode].rank)], statistics.first @ self._unfolded_mean(mode).T

    def coefficient_statistics(self, statistics: Statistics) -> tuple[Array, Array]:
        """Unpacked products of the mode's second moments with the statistics."""
        mode = statistics.mode
        others, _ = self._rest(mode)
        ranks = [m.rank for m in self.modes]
        own = self.modes[mode]
        packed = own.table[:, own.rank :].T @ statistics.second
        arranged = [mode, *others]
        square = np.empty((len(self.mean), len(self.mean)))
        tensor_statistics.unfold_core(packed.reshape(-1), *self._places(mode), square)
        place = [arranged.index(k) for k in range(len(ranks))]
        linear = (own.means().T @ statistics.first).reshape([ranks[k] for k in arranged]).transpose(place)
        return square, linear.reshape(-1)

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
        second = table[:, own.rank :] @ (twice * folded)
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
