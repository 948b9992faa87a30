"""Tensor trains: the value at an entry is a product of matrices, one of each mode, whose entries are functions.

``f = G_1(x_1) diag(g_1) G_2(x_2) diag(g_2) ... G_K(x_K)`` with unit-variance functions in the matrices and normal
weights g on every bond, whose precisions switch unneeded states of a bond off. The functions of a mode are one joint
Gaussian path, the weights of a bond one Gaussian; statistics are moments of the products to the left and to the right,
so that cost and memory grow linearly with the number of modes.

With main effects the bonds have two more states, *before* and *after*: products may begin after the first mode, end
before the last, and leave modes out between, so that the train also sums an intercept, main effects, and interactions
of any modes.

References:
    Oseledets (2011), SIAM J. Sci. Comput. 33, 2295.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb.coefficients import Coefficients
from gpkit.inference.structured_vb.forms import ARD_RATE, ARD_SHAPE, ROOM, Draws, Form, Statistics, ard_prior
from gpkit.inference.structured_vb.gamma import GammaPosterior
from gpkit.inference.structured_vb.layout import Grouping
from gpkit.inference.structured_vb.modes import Mode, fold_index, packed_size
from gpkit.recursions import tensor_trains

__all__ = ["Links", "TensorTrain", "train_links"]

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Links:
    """How the components of one mode join the states of two bonds.

    Attributes:
        left: state of the bond before, (C,).
        right: state of the bond after, (C,).
        weight: which of the mode's weights multiplies the component, -1 for one, (C,).
        functions: the first so many components are functions, the others are constant.
        weights: number of weights; the first are those of the bond after the mode.
        before: number of states of the bond before.
        after: number of states of the bond after.
    """

    left: Codes
    right: Codes
    weight: Codes
    functions: int
    weights: int
    before: int
    after: int


def train_links(ranks: Sequence[int], modes: int, main_effects: bool) -> list[Links]:
    """Components of every mode.

    Args:
        ranks: of the bonds between modes, (K - 1,).
        modes: K.
        main_effects: whether products may begin after the first mode, end before the last and leave modes out between,
            so that there are an intercept, main effects and interactions of every order.
    """
    if not main_effects:
        inner = [1, *ranks, 1]
        return [_plain(inner[k], inner[k + 1], weighted=k < modes - 1 or modes == 1) for k in range(modes)]
    if modes == 1:
        return [_links([(0, 0, 0), (0, 0, 1)], [(0, 0, 2)], 1, 1)]
    out = [_first(ranks[0])]
    out += [_middle(a, b) for a, b in itertools.pairwise(ranks)]
    a = ranks[-1]
    functions = [(i, 0, -1) for i in range(a)] + [(a, 0, 0)]
    return [*out, _links(functions, [(a + 1, 0, -1)], a + 2, 1)]


def _links(functions: list[tuple[int, int, int]], constants: list[tuple[int, int, int]], a: int, b: int) -> Links:
    left, right, weight = (np.array(column, np.int64) for column in zip(*functions, *constants, strict=True))
    return Links(left, right, weight, len(functions), int(weight.max(initial=-1)) + 1, a, b)


def _plain(a: int, b: int, weighted: bool) -> Links:
    """A full matrix; the last mode needs no weight of its own, unless it is the first one too."""
    return _links([(i, j, j if weighted else -1) for i in range(a) for j in range(b)], [], a, b)


def _first(b: int) -> Links:
    """Products that begin, the main effect, products that are still to begin, the intercept."""
    functions = [(0, j, j) for j in range(b)] + [(0, b + 1, b)]
    return _links(functions, [(0, b, -1), (0, b + 1, b + 1)], 1, b + 2)


def _middle(a: int, b: int) -> Links:
    """Products that go on, begin and end here, the main effect; products that leave this mode out."""
    functions = [(i, j, j) for i in range(a) for j in range(b)]
    functions += [(a, j, j) for j in range(b)] + [(i, b + 1, b + i) for i in range(a)] + [(a, b + 1, b + a)]
    constants = [(i, i, b + a + 1 + i) for i in range(min(a, b))] + [(a, b, -1), (a + 1, b + 1, -1)]
    return _links(functions, constants, a + 2, b + 2)


class TensorTrain(Form):
    """A train of matrices of functions with weights on its bonds.

    Args:
        modes: with as many components as the links say.
        ard: see the base class.
        ranks: of the bonds, (K - 1,).
        main_effects: see :func:`train_links`.

    Attributes:
        links: of every mode.
        weights: posterior of the weights of every mode.
    """

    def __init__(self, modes: Sequence[Mode], ard: bool, ranks: Sequence[int], main_effects: bool) -> None:
        super().__init__(modes, ard)
        self.ranks = tuple(ranks)
        self.links = train_links(ranks, len(modes), main_effects)
        self.weights = [Coefficients(own.weights) for own in self.links]
        self.precisions = [ard_prior(own.weights) for own in self.links] if ard else []
        self._folds = [fold_index(mode.rank) for mode in modes]
        self._plan = _plan(self.links)

    # -- weights ---------------------------------------------------------------------------------------------------

    def _weight_moments(self, k: int) -> tuple[Array, Array]:
        """E[h] (C,) and E[h h^T] (C, C) of what multiplies the components of a mode."""
        own = self.weights[k]
        mean = np.append(own.mean, 1.0)
        second = np.outer(mean, mean)
        second[:-1, :-1] += own.covariance
        which = self.links[k].weight
        return mean[which], second[np.ix_(which, which)]

    def expected_precision(self, k: int) -> tuple[Array, Array]:
        """E[alpha] and E[ln alpha] of the weights of a mode, (I,) each."""
        size = self.links[k].weights
        if not self.ard:
            return np.ones(size), np.zeros(size)
        return self.precisions[k].mean, self.precisions[k].mean_log

    def start(self, rng: np.random.Generator) -> None:
        """Uniform weights."""
        for own in self.weights:
            own.mean = rng.uniform(0.0, 1.0, own.size)

    def take_over(self, other: Form) -> None:
        """Weights and precisions."""
        assert isinstance(other, TensorTrain)
        self.weights, self.precisions = copy.deepcopy(other.weights), list(other.precisions)

    def _effective(self, tables: Sequence[Array]) -> tuple[Array, Codes]:
        """Tables of the weighted components, one after the other, and where each begins."""
        parts = []
        for k, table in enumerate(tables):
            mean, second = self._weight_moments(k)
            rows, columns = np.triu_indices(len(mean))
            parts.append((table * np.concatenate([mean, second[rows, columns]])).reshape(-1))
        base = np.cumsum([0, *(part.size for part in parts[:-1])])
        return np.concatenate(parts), base.astype(np.int64)

    # -- statistics ------------------------------------------------------------------------------------------------

    def statistics(self, mode: int, grouping: Grouping) -> Statistics:
        """Moments of the products on both sides."""
        own, size = self.links[mode], self.modes[mode].factor.size
        packed = (packed_size(own.before), packed_size(own.after))
        if size * packed[0] * packed[1] > ROOM:
            raise InvalidDataError(
                f"the statistics of {size} coordinates of a tensor train of these ranks do not fit into memory: lower "
                "the rank"
            )
        second, first = np.empty((size, *packed)), np.empty((size, own.before, own.after))
        flat, base = self._effective([m.table for m in self.modes])
        tensor_trains.accumulate_train(
            grouping.starts,
            grouping.others,
            grouping.target,
            grouping.weight,
            mode,
            flat,
            base,
            self._plan,
            second,
            first,
        )
        return Statistics(mode, second, first)

    def _spread(self, statistics: Statistics) -> tuple[Array, Array]:
        """Statistics of pairs (J, C, C) and of single components (J, C), for weights of one."""
        own = self.links[statistics.mode]
        left = fold_index(own.before)[own.left[:, None], own.left]
        right = fold_index(own.after)[own.right[:, None], own.right]
        return statistics.second[:, left, right], statistics.first[:, own.left, own.right]

    def sites(self, statistics: Statistics) -> tuple[Array, Array]:
        """Statistics times moments of the weights."""
        mean, second = self._weight_moments(statistics.mode)
        pairs, single = self._spread(statistics)
        return pairs * second, single * mean

    def _products(self, statistics: Statistics) -> tuple[Array, Array]:
        """``sum w z z^T`` (C, C) and ``sum w y z`` (C,) of what the weights of a mode multiply."""
        own = self.modes[statistics.mode]
        pairs, single = self._spread(statistics)
        square = np.einsum("jab,jab->ab", own.seconds(), pairs)
        return square, np.einsum("ja,ja->a", own.means(), single)

    def _by_weight(self, statistics: Statistics) -> tuple[Array, Array]:
        """The same summed over the components that share a weight; those without one move to the linear term."""
        own = self.links[statistics.mode]
        square, linear = self._products(statistics)
        gather = np.zeros((len(own.left), own.weights + 1))
        gather[np.arange(len(gather)), own.weight] = 1.0
        square, linear = gather.T @ square @ gather, linear @ gather
        return square[:-1, :-1], linear[:-1] - square[:-1, -1]

    def update(self, statistics: Statistics, noise_precision: float) -> None:
        """Weights of the bond after this mode, of its main effect and, with the first mode, the intercept."""
        k = statistics.mode
        if not self.weights[k].size:
            return
        square, linear = self._by_weight(statistics)
        self.weights[k].update(noise_precision * square, noise_precision * linear, self.expected_precision(k)[0])
        if self.ard:
            squares = self.weights[k].squares
            shape = np.full(len(squares), ARD_SHAPE + 0.5)
            self.precisions[k] = GammaPosterior(shape, ARD_RATE + 0.5 * squares, ARD_SHAPE, ARD_RATE)

    def sums(self, statistics: Statistics) -> tuple[float, float]:
        """From the products that weights multiply."""
        mean, second = self._weight_moments(statistics.mode)
        square, linear = self._products(statistics)
        return float(mean @ linear), float((second * square).sum())

    def divergence(self) -> float:
        """Of all weights and precisions."""
        own = sum(w.divergence(*self.expected_precision(k)) for k, w in enumerate(self.weights) if w.size)
        return own + sum(p.divergence() for p in self.precisions)

    def evaluate(self, mode: int, grouping: Grouping, tables: Sequence[Array]) -> tuple[Array, Array]:
        """One chain over all modes for every entry."""
        flat, base = self._effective(tables)
        mean, square = np.empty(len(grouping.others)), np.empty(len(grouping.others))
        tensor_trains.evaluate_train(grouping.starts, grouping.others, mode, flat, base, self._plan, mean, square)
        return mean, square

    def carry(self, statistics: Statistics, noise_precision: float) -> None:
        """Weights of this mode."""
        k = statistics.mode
        if self.weights[k].size:
            square, linear = self._by_weight(statistics)
            self.weights[k].carry(noise_precision * square, noise_precision * linear)

    def forget(self, factor: float) -> None:
        """Of all weights."""
        for own in self.weights:
            own.forget(factor)

    # -- pictures and draws ----------------------------------------------------------------------------------------

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draws (n, I) of the weights of all modes, one after the other."""
        return np.concatenate([own.sample(n, rng) for own in self.weights], 1)

    def _multipliers(self, coefficients: Array) -> list[Array]:
        """What multiplies the components of every mode, (n, C) each."""
        ends = np.cumsum([own.weights for own in self.links])[:-1]
        ones = np.ones((len(coefficients), 1))
        parts = np.split(coefficients, ends, axis=1)
        return [np.hstack([part, ones])[:, own.weight] for part, own in zip(parts, self.links, strict=True)]

    def combine(self, coefficients: Array, parts: Draws) -> Array:
        """Products of matrices, draw by draw."""
        scaled = self._multipliers(coefficients)
        out = np.empty((len(coefficients), len(parts[0][1])))
        for i in range(len(out)):
            state = np.ones((out.shape[1], 1))
            for own, multiplier, (values, where) in zip(self.links, scaled, parts, strict=True):
                following = np.zeros((out.shape[1], own.after))
                weighted = values[i] * multiplier[i]
                for c, (a, b) in enumerate(zip(own.left, own.right, strict=True)):
                    following[:, b] += state[:, a] * weighted[where, c]
                state = following
            out[i] = state[:, 0]
        return out

    def reduce(self, coefficients: Array, mode: int, averages: Sequence[Array]) -> Array:
        """Products of the matrices on both sides."""
        scaled = [m * average for m, average in zip(self._multipliers(coefficients), averages, strict=True)]
        own, n = self.links[mode], len(coefficients)
        left, right = np.ones((n, 1)), np.ones((n, 1))
        for k in range(mode):
            left = _carried(self.links[k].left, self.links[k].right, self.links[k].after, left, scaled[k])
        for k in range(len(self.links) - 1, mode, -1):
            right = _carried(self.links[k].right, self.links[k].left, self.links[k].before, right, scaled[k])
        return self._multipliers(coefficients)[mode] * left[:, own.left] * right[:, own.right]

    def _chains(self, mode: int, seconds: Sequence[Array]) -> Array:
        """Second moments of the products on both sides, for pairs of components (C, C)."""
        left, right = np.ones((1, 1)), np.ones((1, 1))
        for k in range(mode):
            left = _carried_second(self.links[k].left, self.links[k].right, self.links[k].after, left, seconds[k])
        for k in range(len(self.links) - 1, mode, -1):
            right = _carried_second(self.links[k].right, self.links[k].left, self.links[k].before, right, seconds[k])
        own = self.links[mode]
        return left[np.ix_(own.left, own.left)] * right[np.ix_(own.right, own.right)]

    def reduced_moments(self, mode: int, averages: Sequence[Array]) -> tuple[Array, Array]:
        """Exact: weights of different modes are independent."""
        means = np.concatenate([own.mean for own in self.weights])[None]
        mean = self.reduce(means, mode, averages)[0]
        moments = [self._weight_moments(k)[1] for k in range(len(self.links))]
        seconds = [moment * np.outer(a, a) for moment, a in zip(moments, averages, strict=True)]
        return mean, moments[mode] * self._chains(mode, seconds) - np.outer(mean, mean)

    def energy(self, mode: int, seconds: Sequence[Array]) -> Array:
        """Chains of second moments on both sides."""
        means = [self._weight_moments(k)[0] for k in range(len(self.links))]
        scaled = [np.outer(h, h) * second for h, second in zip(means, seconds, strict=True)]
        return np.outer(means[mode], means[mode]) * self._chains(mode, scaled)

    def mean_matrices(self, means: Sequence[Array]) -> list[Array]:
        """The train's matrices (J, before, after) of every mode at the posterior mean, weights multiplied in.

        Args:
            means: of the components of every mode, (J, C) each.
        """
        out = []
        for k, (own, mean) in enumerate(zip(self.links, means, strict=True)):
            multiplier, matrix = self._weight_moments(k)[0], np.zeros((len(mean), own.before, own.after))
            for c, (i, j) in enumerate(zip(own.left, own.right, strict=True)):
                matrix[:, i, j] += mean[:, c] * multiplier[c]
            out.append(matrix)
        return out

    def bond_grams(self, seconds: Sequence[Array]) -> list[tuple[Array, Array]]:
        """Second moments (r, r) of the products to the left and to the right of every bond, over all its states.

        Args:
            seconds: second moments (C, C) of the components of every mode over the entries.
        """
        means = [self._weight_moments(k)[0] for k in range(len(self.links))]
        scaled = [np.outer(h, h) * second for h, second in zip(means, seconds, strict=True)]
        left, right = np.ones((1, 1)), np.ones((1, 1))
        lefts, rights = [], []
        for own, back, forth, backward in zip(self.links, self.links[::-1], scaled, scaled[::-1], strict=True):
            left = _carried_second(own.left, own.right, own.after, left, forth)
            right = _carried_second(back.right, back.left, back.before, right, backward)
            lefts.append(left)
            rights.append(right)
        return list(zip(lefts[:-1], rights[-2::-1], strict=True))


def _carried(enter: Codes, leave: Codes, size: int, state: Array, values: Array) -> Array:
    """Products (n, size) with one more mode, for values (n, C) of its components."""
    out = np.zeros((len(state), size))
    for c, (a, b) in enumerate(zip(enter, leave, strict=True)):
        out[:, b] += state[:, a] * values[:, c]
    return out


def _carried_second(enter: Codes, leave: Codes, size: int, state: Array, second: Array) -> Array:
    """Second moments (size, size) of products with one more mode."""
    pairs = state[np.ix_(enter, enter)] * second
    out = np.zeros((size, size))
    np.add.at(out, (leave[:, None], leave[None]), pairs)
    return out


def _plan(links: Sequence[Links]) -> tuple[NDArray[np.int64] | Array, ...]:
    """What the compiled chains follow; see :mod:`gpkit.recursions.tensor_trains`."""
    left_pair, right_pair, to_right, to_left = [], [], [], []
    for own in links:
        rows, columns = np.triu_indices(len(own.left))
        left_pair.append(fold_index(own.before)[own.left[rows], own.left[columns]])
        right_pair.append(fold_index(own.after)[own.right[rows], own.right[columns]])
        different = rows != columns
        to_right.append(np.where(different & (own.right[rows] == own.right[columns]), 2.0, 1.0))
        to_left.append(np.where(different & (own.left[rows] == own.left[columns]), 2.0, 1.0))
    count = np.array([len(own.left) for own in links], np.int64)
    pairs = np.array([packed_size(int(c)) for c in count], np.int64)
    return (
        count,
        np.cumsum(np.append(0, count[:-1])),
        np.cumsum(np.append(0, pairs[:-1])),
        np.concatenate([own.left for own in links]),
        np.concatenate([own.right for own in links]),
        np.concatenate(left_pair),
        np.concatenate(right_pair),
        np.concatenate(to_right),
        np.concatenate(to_left),
        np.array([1, *(own.after for own in links)], np.int64),
    )
