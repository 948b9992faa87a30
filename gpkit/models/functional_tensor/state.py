"""What a fitted tensor model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb import Layout
from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.local_residual import LocalResidual
from gpkit.models.functional_tensor.memory import Memory
from gpkit.models.functional_tensor.modes import Encoding

__all__ = ["TensorState"]

Array = NDArray[np.float64]
Index = NDArray[np.int32]


@dataclass(eq=False)
class TensorState:
    """Everything that predictions and updates need.

    Attributes:
        encodings: of the modes.
        index: coordinates of the kept entries in every mode, (N,) each.
        y: targets of the kept entries (N,): centred and scaled where they are real numbers.
        part: which start has not seen the entry, -1 where all have, (N,).
        power: how often each counts, (N,), or (1,) for all.
        centre, unit: of the targets.
        members: restarts that predictions use.
        weights: of the restarts in the mixture, (S,).
        residual: the local residual, or None.
        entries: number of all entries, those that are no longer kept included.
        counts: number of all entries at each coordinate of every mode, (J_k,) each.
        memory: a sample of those that are no longer kept.
    """

    encodings: list[Encoding]
    index: list[Index]
    y: Array
    part: NDArray[np.int16]
    power: Array
    centre: float
    unit: float
    members: list[Member]
    weights: Array
    residual: LocalResidual | LatentResidual | None
    entries: int
    counts: list[Array]
    memory: Memory

    def layout(self, member: Member, rows: slice = slice(None)) -> Layout:
        """Some of the kept entries, as far as a member may see them."""
        power = np.broadcast_to(self.power, self.y.shape)[rows]
        return self._layout(member, [column[rows] for column in self.index], self.y[rows], self.part[rows], power)

    def remembered(self, member: Member) -> Layout:
        """The sample of gone entries, each as often as it stands for others, as far as a member may see them."""
        own = self.memory
        return self._layout(member, own.index, own.y, own.part, own.weight)

    def everything(self, member: Member) -> Layout:
        """Kept entries and the sample of gone ones, as far as a member may see them."""
        own = self.memory
        index = [np.concatenate(pair) for pair in zip(own.index, self.index, strict=True)]
        power = np.concatenate([own.weight, np.broadcast_to(self.power, self.y.shape)])
        return self._layout(
            member, index, np.concatenate([own.y, self.y]), np.concatenate([own.part, self.part]), power
        )

    def _layout(
        self, member: Member, index: Sequence[Index], y: Array, part: NDArray[np.int16], power: Array
    ) -> Layout:
        own = np.flatnonzero(part != member.part) if member.part >= 0 else slice(None)
        every = np.array(power[own]) if power.size and np.ptp(power) else np.full(1, power[0] if power.size else 1.0)
        return Layout([column[own] for column in index], [e.size for e in self.encodings], y[own], every)

    def shrink(self, keep: int) -> None:
        """Keep the newest entries, and a sample of as many others; what all gone ones say stays with the members."""
        gone = len(self.y) - keep
        if gone <= 0:
            return
        rows, before = slice(0, gone), self.memory
        power = np.broadcast_to(self.power, self.y.shape)
        self.memory = before.joined(
            [column[rows] for column in self.index], self.y[rows], self.part[rows], power[rows], keep, seed=0
        )
        if not self.memory.complete:
            for member in self.members:
                if before.complete and before.gone:
                    member.posterior.carry(replace(self, memory=before).remembered(member))
                member.posterior.carry(self.layout(member, rows))
        self.index = [np.array(column[gone:]) for column in self.index]
        self.y, self.part = self.y[gone:].copy(), self.part[gone:].copy()
        self.power = self.power[gone:].copy() if self.power.size > 1 else self.power
        if self.residual is not None:
            self.residual = self.residual.shrunk(keep)

    @staticmethod
    def count(index: Sequence[Index], encodings: Sequence[Encoding]) -> list[Array]:
        """Entries at each coordinate of every mode."""
        sizes = [encoding.size for encoding in encodings]
        return [np.bincount(i, minlength=n).astype(np.float64) for i, n in zip(index, sizes, strict=True)]
