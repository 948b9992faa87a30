"""What determines the low-rank part besides the data, and the posteriors that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb import LowRankPosterior, Observation, component_layout
from gpkit.models.functional_tensor.modes import Encoding

__all__ = ["CONTINUOUS", "LIKELIHOODS", "LowRankSettings", "check_ranks", "new_posterior", "ranks_of", "read_rank"]

CONTINUOUS = ("gaussian", "student-t")
"""Likelihoods of real numbers, which are centred and scaled for the fit."""
LIKELIHOODS = (*CONTINUOUS, "poisson", "bernoulli", "negative-binomial")


@dataclass(frozen=True)
class LowRankSettings:
    """What determines a fit besides the data.

    Attributes:
        form, ranks, ard, main_effects, likelihood: of the model; ranks of the bonds for a tensor train.
        sweeps, tolerance: when a restart ends.
        batch_size: entries that are read at a time; None groups all of them in memory.
        epochs: stochastic passes before the sweeps, where there are batches.
    """

    form: str
    ranks: tuple[int, ...]
    ard: bool
    main_effects: bool
    likelihood: str
    sweeps: int = 25
    tolerance: float = 1e-5
    batch_size: int | None = None
    epochs: int = 0


def read_rank(rank: Any, modes: int, form: str) -> tuple[int, ...] | str:
    """What a user says about ranks: one for each mode, or each bond of a tensor train, or "auto".

    Args:
        rank: one number, one for each, or "auto".
        modes: number of modes.
        form: of the model.

    Raises:
        InvalidDataError: for anything else.
    """
    if isinstance(rank, str):
        if rank != "auto":
            raise InvalidDataError(f"rank must be a number, one for each mode, or 'auto', got {rank!r}")
        return rank
    count = modes - (1 if form == "tensor-train" else 0)
    each = not isinstance(rank, Iterable)
    ranks: tuple[Any, ...] = (rank,) * max(count, 1) if each else tuple(rank)
    whole = all(isinstance(r, int | np.integer) and not isinstance(r, bool) and r >= 1 for r in ranks)
    if not whole or (not each and len(ranks) != count):
        what = "bonds between modes" if form == "tensor-train" else "modes"
        raise InvalidDataError(f"rank must be a positive number or one for each of {count} {what}, got {rank}")
    return tuple(int(r) for r in ranks[:count])


def ranks_of(rank: int, sizes: Sequence[int], form: str) -> tuple[int, ...]:
    """One rank for all modes, or all bonds of a tensor train, where they have room for it."""
    return tuple(min(rank, room) for room in _rooms(sizes, form))


def _rooms(sizes: Sequence[int], form: str) -> list[int]:
    """Largest rank of every mode or bond."""
    if form != "tensor-train":
        return list(sizes)
    left, right = np.cumprod(np.array(sizes, float)), np.cumprod(np.array(sizes[::-1], float))[::-1]
    return [int(min(a, b, 1e9)) for a, b in zip(left[:-1], right[1:], strict=True)]


def check_ranks(encodings: Sequence[Encoding], settings: LowRankSettings) -> None:
    """Refuse ranks that the data cannot have.

    Raises:
        InvalidDataError: for a rank above the number of coordinates of its mode, or on one side of its bond.
    """
    rooms = _rooms([encoding.size for encoding in encodings], settings.form)
    for k, (rank, room) in enumerate(zip(settings.ranks, rooms, strict=True)):
        if rank > room:
            name = repr(encodings[k].spec.name)
            where = (
                f"{name}, which has"
                if settings.form != "tensor-train"
                else f"the bond after {name}, on a side of which are"
            )
            raise InvalidDataError(f"rank {rank} for {where} {room} distinct coordinates: the rank can be no larger")


def new_posterior(
    encodings: Sequence[Encoding], settings: LowRankSettings, observation: Observation, seed: int
) -> LowRankPosterior:
    """A posterior at its random start."""
    components = component_layout(settings.form, settings.ranks, settings.main_effects, len(encodings))
    factors = [e.factor(len(free)) for e, (free, _) in zip(encodings, components, strict=True)]
    return LowRankPosterior(factors, components, settings.form, observation, ard=settings.ard, seed=seed)
