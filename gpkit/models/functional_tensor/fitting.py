"""Restarts of the low-rank part: each leaves out its own part of the rows, goes on where it was interrupted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb import (
    GaussianNoise,
    Layout,
    Pieces,
    observation_named,
)
from gpkit.models.functional_tensor.checkpoint import Checkpoint, Member
from gpkit.models.functional_tensor.modes import Encoding
from gpkit.models.functional_tensor.settings import LowRankSettings, check_ranks, new_posterior
from gpkit.models.functional_tensor.starts import first_start, revived

__all__ = [
    "Parts",
    "all_entries",
    "fit_members",
    "left_out_moments",
    "noise_variance",
]

Array = NDArray[np.float64]
Index = NDArray[np.int32]

_STARTING_ROWS = 100_000


@dataclass(frozen=True)
class Parts:
    """Which start leaves out which row, by the row's number: no array of the size of the table is needed.

    Attributes:
        count: number of parts; zero leaves nothing out.
        seed: of the assignment.
    """

    count: int
    seed: int

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Part of each row, -1 without parts."""
        if not self.count:
            return np.full(len(rows), -1)
        # Each run of rows of the length of ``count`` is a permutation of the parts, which mixes the bits of its number.
        run, place = np.divmod(rows, self.count)
        with np.errstate(over="ignore"):  # a hash is taken modulo two to the 64
            bits = (run.astype(np.uint64) + np.uint64(self.seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits ^= bits >> np.uint64(27)
        return (place + (bits % np.uint64(self.count)).astype(np.int64)) % self.count


def fit_members(
    encodings: Sequence[Encoding],
    index: Sequence[Index],
    y: Array,
    settings: LowRankSettings,
    *,
    restarts: int,
    leave_out: bool,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> list[Member]:
    """Fit all restarts.

    Args:
        encodings: of the modes.
        index: coordinates of the entries.
        y: targets.
        settings: of the model.
        restarts: number of starts.
        leave_out: whether each start leaves out its own part of the rows.
        seed: of starts and parts.
        checkpoint: what is there already, and where to keep more.
        progress: whether a bar is shown.

    Raises:
        InvalidDataError: for a rank above the number of coordinates of its mode.
    """
    check_ranks(encodings, settings)
    keep = Checkpoint(None) if checkpoint is None else checkpoint
    parts = Parts(restarts if leave_out else 0, seed)
    from tqdm import tqdm

    with tqdm(total=restarts * settings.sweeps, unit="sweep", disable=None if progress else True) as bar:
        for start in range(len(keep.finished), restarts):
            bar.n = start * settings.sweeps

            def after(bounds: list[float], start: int = start) -> None:
                bar.set_description(f"start {start + 1} of {restarts}, ELBO {bounds[-1]:.1f}", refresh=False)
                bar.update()

            keep.finished.append(_fit_one(encodings, index, y, settings, parts, start, seed + start, keep, after))
            keep.current, keep.begun = None, False
            keep.save()
    return keep.finished


def _fit_one(
    encodings: Sequence[Encoding],
    index: Sequence[Index],
    y: Array,
    settings: LowRankSettings,
    parts: Parts,
    start: int,
    seed: int,
    keep: Checkpoint,
    after: Callable[[list[float]], None],
) -> Member:
    """One start on the entries that it may see, from where it was interrupted if it was."""
    if keep.current is not None:
        posterior, before = keep.current
    else:
        some = y if settings.batch_size is None else np.asarray(y[:: max(1, len(y) // _STARTING_ROWS)])
        posterior, before = new_posterior(encodings, settings, observation_named(settings.likelihood, some), seed), []
        if keep.finished:  # kernels go on where the first start ended; functions begin at random
            posterior.inherit(keep.finished[0].posterior)
    sizes = [encoding.size for encoding in encodings]

    def step(bounds: list[float]) -> None:
        keep.current = (posterior, list(bounds))
        keep.save()
        after(bounds)

    seen = (lambda rows: parts.of(rows) != start) if parts.count else None
    entries = all_entries(index, sizes, y, settings, seen)
    if not posterior.sweeps:
        posterior, before = first_start(posterior, encodings, settings, entries, seed)
    if not keep.begun:
        posterior, before = revived(posterior, before, encodings, settings, entries, seed, step)
        keep.begun = True
    trace = posterior.fit(entries, sweeps=settings.sweeps, tolerance=settings.tolerance, before=before, after=step)
    return Member(posterior, trace, start if parts.count else -1, seed)


def all_entries(
    index: Sequence[Index],
    sizes: Sequence[int],
    y: Array,
    settings: LowRankSettings,
    seen: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
) -> Layout | Pieces:
    """The entries in memory, or in pieces where the settings say so.

    Args:
        index: coordinates of the entries.
        sizes: number of coordinates of each mode.
        y: targets.
        settings: of the model.
        seen: which of given rows take part; all if not given.
    """
    if settings.batch_size is not None:
        return Pieces(index, sizes, y, settings.batch_size, seen=seen, scratch=_scratch(y))
    own = slice(None) if seen is None else np.flatnonzero(seen(np.arange(len(y))))
    return Layout([column[own] for column in index], sizes, y[own])


def _scratch(y: Array) -> Callable[[int], Array]:
    """Arrays in memory for a table in memory, temporary files for one on disk."""
    if not isinstance(y, np.memmap):
        return np.empty

    def create(n: int) -> Array:
        with tempfile.TemporaryFile() as file:  # the map keeps it until it is gone itself
            file.truncate(8 * n)
            return np.memmap(file, np.float64, "r+", shape=(n,))

    return create


def noise_variance(member: Member) -> float:
    """Variance of the noise of a continuous likelihood, else zero."""
    observation = member.posterior.observation
    return observation.variance if isinstance(observation, GaussianNoise) else 0.0


def left_out_moments(members: Sequence[Member], index: Sequence[Index], parts: Parts) -> tuple[Array, Array, Array]:
    """Mean and variance of the function, and noise variance, (1, N) each, by the member that has not seen the entry."""
    part = parts.of(np.arange(len(index[0])))
    mean, variance, noise = (np.empty((1, len(part))) for _ in range(3))
    for member in members:
        rows = np.flatnonzero(part == member.part)
        first, square = member.posterior.node_moments([column[rows] for column in index])
        mean[0, rows], variance[0, rows] = first, np.maximum(square - first**2, 0.0)
        noise[0, rows] = noise_variance(member)
    return mean, variance, noise
