"""Entries that are read in pieces: exact sweeps without anything of the size of the table, and stochastic steps.

References:
    Hoffman, Blei, Wang & Paisley (2013), JMLR 14, 1303 (stochastic variational inference).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb.layout import Entries, Grouping, Index

if TYPE_CHECKING:
    from gpkit.inference.structured_vb.engine import LowRankPosterior
    from gpkit.inference.structured_vb.forms import Form, Statistics

__all__ = ["Minibatches", "Pieces"]

Array = NDArray[np.float64]
Rows = slice | NDArray[np.int64]
_LEARNING_ROWS = 65_536
_BLOCKS = 2**20


class Pieces(Entries):
    """Entries whose columns are read piece by piece, from memory or from a file.

    A sweep has the same result as with :class:`~gpkit.inference.structured_vb.layout.Layout`; entries are grouped again
    in every pass. Parameters of likelihoods other than the Gaussian one are learned from 65,536 entries at equal
    distances where there are more.

    Args:
        index: coordinate of each entry in each mode, K arrays (N,), which may be memory maps.
        sizes: number of coordinates of each mode.
        y: observations (N,).
        rows: entries in a piece.
        seen: which of given rows take part; all if not given.
        scratch: makes arrays (N,) for targets and weights; in memory if not given.
    """

    def __init__(
        self,
        index: Sequence[Index],
        sizes: Sequence[int],
        y: Array,
        rows: int,
        *,
        seen: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
        scratch: Callable[[int], Array] | None = None,
    ) -> None:
        self.index, self.sizes, self.y, self.rows, self.seen = list(index), list(sizes), y, rows, seen
        self.length = len(y)
        self.target: Array = y
        self.weight: Array = np.ones(1)
        self._scratch = np.empty if scratch is None else scratch
        self.entries, self._squares = 0, 0.0
        for part in self.parts():
            values = np.asarray(y[part])
            self.entries += len(values)
            self._squares += float(values @ values)
        self.squares = self._squares
        self.count = float(self.entries)

    def parts(self) -> Iterator[Rows]:
        """Rows of each piece that take part."""
        for begin in range(0, self.length, self.rows):
            end = min(begin + self.rows, self.length)
            if self.seen is None:
                yield slice(begin, end)
            else:
                rows = np.arange(begin, end)
                yield rows[self.seen(rows)]

    def grouping(self, part: Rows, mode: int) -> Grouping:
        """Some rows in the order of one mode."""
        weight = self.weight if self.weight.size == 1 else np.asarray(self.weight[part])
        index = [np.asarray(column[part]) for column in self.index]
        return Grouping(index, mode, self.sizes[mode], np.asarray(self.target[part]), weight)

    def statistics_of(self, form: Form, mode: int, parts: Iterator[Rows]) -> Statistics:
        """Sum over pieces."""
        total = None
        for part in parts:
            own = form.statistics(mode, self.grouping(part, mode))
            if total is None:
                total = own
            else:
                total.add(own)
        assert total is not None
        return total

    def begin(self, posterior: LowRankPosterior) -> None:
        """The model's own expansion, or that at the posterior of sweeps that were made."""
        if not posterior.observation.needs_moments:
            # Another model may have been here.
            self.target, self.weight, self.squares = self.y, np.ones(1), self._squares
            return
        if self.target is self.y:
            self.target, self.weight = self._scratch(self.length), self._scratch(self.length)
        self.squares = 0.0
        for part in self.parts():
            if posterior.sweeps:  # No weights yet: the first sites are not damped.
                self.target[part] = self.weight[part] = 0.0
            else:
                target, weight = posterior.observation.start(np.asarray(self.y[part]))
                self.target[part], self.weight[part] = target, weight
                self.squares += float(np.einsum("n,n,n->", np.broadcast_to(weight, target.shape), target, target))
        if posterior.sweeps:
            self.renew_all(posterior)

    def prepare(self, posterior: LowRankPosterior) -> None:
        """Nothing."""

    def statistics(self, form: Form, mode: int) -> Statistics:
        """One pass over all pieces."""
        return self.statistics_of(form, mode, self.parts())

    def shares(self) -> list[Array]:
        """One pass over all pieces."""
        counts = [np.zeros(size) for size in self.sizes]
        for part in self.parts():
            for count, column in zip(counts, self.index, strict=True):
                count += np.bincount(np.asarray(column[part]), minlength=len(count))
        return [count / max(self.entries, 1) for count in counts]

    def finish(self, posterior: LowRankPosterior) -> None:
        """Parameters of the likelihood, then sites of all entries at their moments."""
        if posterior.observation.needs_moments:
            self.learn(posterior)
            self.renew_all(posterior)

    def renew_all(self, posterior: LowRankPosterior) -> None:
        """Sites of all entries."""
        posterior.observation.expected = self.squares = 0.0
        for part in self.parts():
            posterior.observation.expected += self.renew(posterior, part)

    def learn(self, posterior: LowRankPosterior) -> None:
        """Parameters of the likelihood from a part of the entries."""
        rows = np.arange(0, self.length, max(1, self.length // _LEARNING_ROWS))
        y = np.asarray(self.y[rows])
        posterior.observation.learn(y, *self.moments(posterior, rows), np.ones(1))

    def moments(self, posterior: LowRankPosterior, part: Rows) -> tuple[Array, Array]:
        """E[f] and E[f^2] of some rows."""
        return posterior.node_moments([np.asarray(column[part]) for column in self.index])

    def renew(self, posterior: LowRankPosterior, part: Rows) -> float:
        """New targets and weights of some rows; returns their expected log-likelihood."""
        mean, square = self.moments(posterior, part)
        old = np.asarray(self.target[part]), np.asarray(self.weight[part])
        target, weight, expected = posterior.observation.sites(np.asarray(self.y[part]), mean, square, *old)
        self.target[part], self.weight[part] = target, weight
        self.squares += float(np.einsum("n,n,n->", weight, target, target))
        return float(expected.sum())


class Minibatches(Entries):
    """Stochastic steps: statistics of random batches, averaged with a decreasing rate, stand for those of all entries.

    The average moves by ``(1 + t)^-decay`` in step t towards the batch's statistics times N over the batch's size,
    which is a step of the natural gradient of all sites. A sweep over this object is one such step; the bound that it
    returns is an estimate. Beyond 2^20 entries a batch consists of short blocks of neighbouring rows.

    Args:
        pieces: the entries.
        size: entries in a batch.
        seed: of the batches.
        decay: of the rate, between a half and one.
    """

    exact = False

    def __init__(self, pieces: Pieces, size: int, *, seed: int = 0, decay: float = 0.7) -> None:
        self.pieces, self.size, self.decay = pieces, min(size, max(pieces.entries, 1)), decay
        self.entries, self.count, self.squares = pieces.entries, pieces.count, 0.0
        self.step = 0
        self._rng = np.random.default_rng(seed)
        self._block = -(-pieces.length // _BLOCKS)
        self._queue: NDArray[np.int64] = np.empty(0, np.int64)
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)
        self._average: dict[int, Statistics] = {}

    @property
    def steps(self) -> int:
        """Number of batches that cover the entries once."""
        return -(-self.pieces.length // self.size)

    @property
    def rate(self) -> float:
        """Of the present step; the first replaces."""
        return float((1.0 + self.step) ** -self.decay)

    @property
    def scale(self) -> float:
        """Entries over those of the batch."""
        return self.entries / max(len(self._rows), 1)

    def begin(self, posterior: LowRankPosterior) -> None:
        """As for the pieces."""
        self.pieces.begin(posterior)

    def _draw(self) -> NDArray[np.int64]:
        count = -(-self.size // self._block)
        if len(self._queue) < count:
            blocks = self._rng.permutation(-(-self.pieces.length // self._block))
            self._queue = np.concatenate([self._queue, blocks])
        chosen, self._queue = np.sort(self._queue[:count]), self._queue[count:]
        rows = (chosen[:, None] * self._block + np.arange(self._block)).reshape(-1)
        rows = rows[rows < self.pieces.length]
        if self.pieces.seen is not None:
            rows = rows[self.pieces.seen(rows)]
        return rows

    def prepare(self, posterior: LowRankPosterior) -> None:
        """Draw a batch; targets and weights are renewed where they follow from the posterior."""
        self._rows = self._draw()
        observation, pieces = posterior.observation, self.pieces
        if observation.needs_moments and posterior.sweeps:
            y = np.asarray(pieces.y[self._rows])
            observation.learn(y, *pieces.moments(posterior, self._rows), np.ones(1))
            observation.expected = self.scale * pieces.renew(posterior, self._rows)
        target = np.asarray(pieces.target[self._rows])
        weight = pieces.weight if pieces.weight.size == 1 else np.asarray(pieces.weight[self._rows])
        squares = float((weight * target**2).sum())
        self.squares = (1.0 - self.rate) * self.squares + self.rate * self.scale * squares

    def statistics(self, form: Form, mode: int) -> Statistics:
        """The average after this batch."""
        new = self.pieces.statistics_of(form, mode, iter((self._rows,)))
        if mode not in self._average:
            new.scale(self.scale)
            self._average[mode] = new
        else:
            self._average[mode].blend(new, self.rate, self.scale)
        return self._average[mode]

    def shares(self) -> list[Array]:
        """Of all pieces."""
        return self.pieces.shares()

    def finish(self, posterior: LowRankPosterior) -> None:
        """The next step has another batch."""
        self.step += 1
