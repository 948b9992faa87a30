"""The rank of every mode, or bond, by the evidence bound: grown from one, then taken back where it is not needed.

Of every rank two starts are compared: one at random, one at the functions that are there with a new one in every mode,
until neither helps. One larger rank that does not is no reason to stop, since a start may end in a worse maximum; two
in a row are. From the best fit the functions that carry least are then taken away, mode by mode, and the smaller
model begins at what is left: its bound decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb import Entries, begin_resized
from gpkit.models.functional_tensor.checkpoint import Checkpoint, RankCandidate
from gpkit.models.functional_tensor.fitting import all_entries, fit_members
from gpkit.models.functional_tensor.modes import Encoding
from gpkit.models.functional_tensor.settings import LowRankSettings, new_posterior, ranks_of

__all__ = ["choose_rank"]

Array = NDArray[np.float64]
Index = NDArray[np.int32]
_LARGEST = 8
_PATIENCE = 2


@dataclass(eq=False)
class _Search:
    """Fits of one table at different ranks; those that an interrupted search has made are not made again."""

    encodings: Sequence[Encoding]
    index: Sequence[Index]
    y: Array
    settings: LowRankSettings
    seed: int
    entries: Entries
    keep: Checkpoint

    def _at(self, rank: int | tuple[int, ...]) -> LowRankSettings:
        if isinstance(rank, int):
            rank = ranks_of(rank, [e.size for e in self.encodings], self.settings.form)
        return replace(self.settings, ranks=rank)

    def _once(self, name: Any, make: Callable[[], RankCandidate]) -> RankCandidate:
        if name not in self.keep.candidates:
            self.keep.candidates[name] = make()
            self.keep.save()
        return self.keep.candidates[name]

    def random(self, rank: int) -> RankCandidate:
        """From a random start."""

        def make() -> RankCandidate:
            own = self._at(rank)
            (member,) = fit_members(
                self.encodings, self.index, self.y, own, restarts=1, leave_out=False, seed=self.seed + rank
            )
            return RankCandidate(own.ranks, member.posterior, member.elbo)

        return self._once(rank, make)

    def resized(self, ranks: int | tuple[int, ...], other: RankCandidate) -> RankCandidate:
        """From the functions of another."""

        def make() -> RankCandidate:
            own = self._at(ranks)
            posterior = new_posterior(self.encodings, own, other.posterior.observation, self.seed)
            begin_resized(posterior, other.posterior, self.entries, np.random.default_rng(self.seed))
            trace = posterior.fit(self.entries, sweeps=own.sweeps, tolerance=own.tolerance)
            return RankCandidate(own.ranks, posterior, float(trace.elbo[-1]))

        return self._once((other.ranks, ranks), make)

    def grown(self) -> RankCandidate:
        """The best of equal ranks."""
        best = self.random(1)
        for rank in range(2, _LARGEST + 1):
            if self._at(rank).ranks == self._at(rank - 1).ranks:  # No mode has room for more.
                break
            try:
                last = max(self.random(rank), self.resized(rank, best), key=lambda found: found.bound)
            except InvalidDataError:  # The core is too large: what is smaller has been compared.
                break
            if last.bound > best.bound:
                best = last
            elif rank >= max(best.ranks) + _PATIENCE:
                break
        return best

    def shrunk(self, best: RankCandidate) -> RankCandidate:
        """Without what is not needed, one function of one mode (or one component of all) after the other."""
        while True:
            modes = range(len(best.ranks))
            groups = [tuple(modes)] if self.settings.form == "cp" else [(k,) for k in modes]
            trials = [
                self.resized(tuple(rank - (k in group) for k, rank in enumerate(best.ranks)), best)
                for group in groups
                if best.ranks[group[0]] > 1
            ]
            top = max(trials, key=lambda found: found.bound, default=best)
            if top.bound <= best.bound:
                return best
            best = top


def choose_rank(
    encodings: Sequence[Encoding],
    index: Sequence[Index],
    y: Array,
    settings: LowRankSettings,
    seed: int,
    keep: Checkpoint,
) -> RankCandidate:
    """The fit of the largest bound that was found.

    Args:
        encodings: of the modes.
        index: coordinates of the entries.
        y: targets.
        settings: of the model, at any rank.
        seed: of starts.
        keep: what an interrupted search has made, and where to keep more.
    """
    entries = all_entries(index, [e.size for e in encodings], y, settings)
    search = _Search(encodings, index, y, settings, seed, entries, keep)
    return search.shrunk(search.grown())
