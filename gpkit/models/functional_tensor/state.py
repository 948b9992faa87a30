"""What a fitted tensor model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb import Layout
from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.local_residual import LocalResidual
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
    residual: LocalResidual | None
    entries: int
    counts: list[Array]

    def layout(self, member: Member, rows: slice = slice(None)) -> Layout:
        """Some of the kept entries, as far as a member may see them."""
        own = np.flatnonzero(self.part[rows] != member.part) if member.part >= 0 else slice(None)
        index = [column[rows][own] for column in self.index]
        power = self.power[rows][own] if self.power.size > 1 else self.power
        return Layout(index, [e.size for e in self.encodings], self.y[rows][own], power)

    def shrink(self, keep: int) -> None:
        """Keep the newest entries; what the others say stays as sites of the members."""
        gone = len(self.y) - keep
        if gone <= 0:
            return
        for member in self.members:
            member.posterior.carry(self.layout(member, slice(0, gone)))
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
