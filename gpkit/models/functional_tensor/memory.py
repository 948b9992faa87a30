"""A bounded sample of entries that have left memory, which tells how what they say depends on the posterior.

What gone entries say is carried as sites of every block of the posterior, made while the other blocks were where they
were. When an intercept moves, the sites of a main effect do not know, and both follow a change that the old entries
forbid. The sample, weighted to stand for half of them, corrects this: its own sites at the old posterior are taken off
what is carried, and it takes part in the sweeps. At the old posterior this changes nothing; away from it the sites of
the gone entries move as the sample says. The other half stays as carried: were the sample to stand for all, carried
sites would be a difference of either sign, and where no entry holds the posterior (functions that grow while
coefficients shrink) updates would run away. While all gone entries fit into the sample nothing is approximated.

References:
    Efraimidis & Spirakis (2006), Information Processing Letters 97, 181 (weighted samples of a stream);
    Johnson & Zhang (2013), NIPS 26 (control variates of this form).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_SAMPLE", "Memory"]

Array = NDArray[np.float64]
LEAST_SAMPLE = 10_000
"""Entries in the sample, however few are kept: they cost little beside the paths, and a small one disturbs."""
_SHARE = 0.5
Index = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Memory:
    """Entries drawn in proportion to their powers from all that are gone.

    Attributes:
        index: coordinates in every mode, (M,) each.
        y: targets (M,).
        part: which start has not seen the entry, -1 where all have, (M,).
        power: how often each counted, (M,).
        key: by which entries are kept: the largest of ``ln(uniform) / power``, (M,).
        covered: powers of all gone entries at each coordinate of every mode, (J_k,) each.
        gone: number of all entries that are gone.
        total: sum of their powers.
    """

    index: list[Index]
    y: Array
    part: NDArray[np.int16]
    power: Array
    key: Array
    covered: list[Array]
    gone: int = 0
    total: float = 0.0

    @classmethod
    def empty(cls, sizes: Sequence[int]) -> Memory:
        """Nothing has gone; numbers of coordinates of the modes."""
        none, index = np.zeros(0), [np.zeros(0, np.int32) for _ in sizes]
        return cls(index, none, np.zeros(0, np.int16), none, none, [np.zeros(size) for size in sizes])

    @property
    def complete(self) -> bool:
        """Whether all gone entries are in it."""
        return len(self.y) == self.gone

    @property
    def weight(self) -> Array:
        """How many gone entries each stands for, (M,): never more than have gone at any of its coordinates.

        Half of them take part where some are missing.
        """
        if self.complete:
            return self.power
        out = np.full(len(self.y), self.total / max(len(self.y), 1))
        for column, covered in zip(self.index, self.covered, strict=True):
            out = np.minimum(out, (covered / np.maximum(np.bincount(column, minlength=len(covered)), 1))[column])
        return _SHARE * out

    def joined(
        self, index: Sequence[Index], y: Array, part: NDArray[np.int16], power: Array, room: int, seed: int
    ) -> Memory:
        """After more entries have gone, with at most ``room`` of all, or the least size of a sample."""
        own = np.broadcast_to(power, y.shape)
        draws = np.log(np.random.default_rng([seed, self.gone]).uniform(size=len(y)))
        key = np.concatenate([self.key, draws / np.maximum(own, 1e-300)])
        kept = np.sort(np.argsort(key)[::-1][: max(room, LEAST_SAMPLE)])
        return Memory(
            [np.concatenate([old, new])[kept] for old, new in zip(self.index, index, strict=True)],
            np.concatenate([self.y, y])[kept],
            np.concatenate([self.part, part])[kept],
            np.concatenate([self.power, own])[kept],
            key[kept],
            [old + np.bincount(new, own, len(old)) for old, new in zip(self.covered, index, strict=True)],
            self.gone + len(y),
            self.total + float(own.sum()),
        )

    def forgotten(self, factor: float, places: Sequence[Index], sizes: Sequence[int]) -> Memory:
        """With powers times a factor, and coordinates in new places of so many."""
        covered = [np.zeros(size) for size in sizes]
        for new, old, at in zip(covered, self.covered, places, strict=True):
            new[at] = factor * old
        return replace(
            self,
            index=[at[old] for at, old in zip(places, self.index, strict=True)],
            power=factor * self.power,
            key=self.key / factor,
            covered=covered,
            total=factor * self.total,
        )
