"""Restarts of the low-rank part: each leaves out its own part of the rows, goes on where it was interrupted."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb import (
    Entries,
    GaussianNoise,
    Layout,
    LowRankPosterior,
    Minibatches,
    Observation,
    Pieces,
    begin_resized,
    begin_with_components,
    component_layout,
    observation_named,
)
from gpkit.models.functional_tensor.checkpoint import Checkpoint, Member
from gpkit.models.functional_tensor.modes import Encoding

__all__ = [
    "CONTINUOUS",
    "LIKELIHOODS",
    "LowRankSettings",
    "Parts",
    "all_entries",
    "check_ranks",
    "fit_members",
    "left_out_moments",
    "new_posterior",
    "noise_variance",
    "ranks_of",
]

Array = NDArray[np.float64]
Index = NDArray[np.int32]

CONTINUOUS = ("gaussian", "student-t")
"""Likelihoods of real numbers, which are centred and scaled for the fit."""
LIKELIHOODS = (*CONTINUOUS, "poisson", "bernoulli", "negative-binomial")
_STARTING_ROWS = 100_000
_WARM = 15  # sweeps with components before a tensor train, with fewer functions, or to compare starts
_PILOT = 4  # sweeps after which a start may have died
_LIVES = 4  # starts of which all must die
_NOTHING = 0.999  # of the squares left: nothing is explained
_FAR = 7919  # between seeds
_SPARE = 2  # components more than a bond has states


@dataclass(frozen=True)
class LowRankSettings:
    """What determines a fit besides the data.

    Attributes:
        form, ranks, ard, main_effects, likelihood: of the model; ranks of the bonds for a tensor train.
        sweeps, tolerance: when a restart ends.
        batch_size: entries that are read at a time; None groups all of them in memory.
        epochs: stochastic passes before the sweeps, where there are batches.
        grow: whether a start is also tried that begins with one function and takes up the others one after the other.
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
    grow: bool = False


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
        with np.errstate(over="ignore"):
            bits = (run.astype(np.uint64) + np.uint64(self.seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits ^= bits >> np.uint64(27)
        return (place + (bits % np.uint64(self.count)).astype(np.int64)) % self.count


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
            keep.current = None
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
    batches, stochastic = None, 0
    if isinstance(entries, Pieces):
        batches = Minibatches(entries, entries.rows, seed=seed)
        stochastic = settings.epochs * batches.steps
    train = settings.form == "tensor-train" and len(sizes) > 1
    if not posterior.sweeps and batches is not None and stochastic:
        if train:
            posterior = _components_start(posterior, encodings, settings, batches, stochastic, seed)
            batches = Minibatches(batches.pieces, batches.size, seed=seed)
        batches.begin(posterior)
        for _ in range(stochastic):
            posterior.sweep(batches)
    elif not posterior.sweeps and (train or settings.grow):
        trains = [_components_start(posterior, encodings, settings, entries, _WARM, seed)] if train else []
        grown = [_grown_start(posterior, encodings, settings, entries, seed)] if settings.grow else []
        posterior, before = _best_start([posterior, *trains, *grown], settings, entries)
    elif not posterior.sweeps:
        posterior, before = _living_start(posterior, encodings, settings, entries, seed)
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


def _components_start(
    posterior: LowRankPosterior,
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    sweeps: int,
    seed: int,
) -> LowRankPosterior:
    """A train at the strongest components of a CP model after some sweeps."""
    rank = max(settings.ranks) + _SPARE
    own = replace(settings, form="cp", ranks=(rank,) * len(encodings), main_effects=False)
    components = new_posterior(encodings, own, copy.deepcopy(posterior.observation), seed)
    entries.begin(components)
    for _ in range(sweeps):
        components.sweep(entries)
    train = copy.deepcopy(posterior)
    begin_with_components(train, components, np.random.default_rng(seed))
    return train


def _living_start(
    posterior: LowRankPosterior, encodings: Sequence[Encoding], settings: LowRankSettings, entries: Entries, seed: int
) -> tuple[LowRankPosterior, list[float]]:
    """The first sweeps of a start, or of others where all of its functions die at once; their bounds.

    Random products may begin with the wrong sign everywhere. Precisions then switch them off before they turn.
    """
    sweeps = min(_PILOT, settings.sweeps)
    bounds = posterior.fit(entries, sweeps=sweeps, tolerance=0.0).elbo.tolist()
    for again in range(1, _LIVES):
        if posterior.squared_error < _NOTHING * entries.squares:
            break
        other = new_posterior(encodings, settings, copy.deepcopy(posterior.observation), seed + again * _FAR)
        trace = other.fit(entries, sweeps=sweeps, tolerance=0.0).elbo.tolist()
        if trace[-1] > bounds[-1]:
            posterior, bounds = other, trace
    return posterior, bounds


def _grown_start(
    posterior: LowRankPosterior, encodings: Sequence[Encoding], settings: LowRankSettings, entries: Entries, seed: int
) -> LowRankPosterior:
    """From rank one upwards, a fit at each: less often in a poor maximum than all functions at once."""
    grown, rng = posterior, np.random.default_rng(seed)
    for rank in range(1, max(settings.ranks, default=1) + 1):
        own = replace(settings, ranks=tuple(min(rank, most) for most in settings.ranks))
        after = new_posterior(encodings, own, copy.deepcopy(posterior.observation), seed)
        if rank > 1:
            begin_resized(after, grown, entries, rng)
        grown = after
        if rank < max(settings.ranks, default=1):
            grown.fit(entries, sweeps=settings.sweeps, tolerance=settings.tolerance)
    return grown


def _best_start(
    starts: Sequence[LowRankPosterior], settings: LowRankSettings, entries: Entries
) -> tuple[LowRankPosterior, list[float]]:
    """The start with the largest bound after some sweeps; its bounds."""
    sweeps = min(_WARM, settings.sweeps)
    bounds = [start.fit(entries, sweeps=sweeps, tolerance=0.0).elbo.tolist() for start in starts]
    best = int(np.argmax([trace[-1] for trace in bounds]))
    return starts[best], bounds[best]


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
