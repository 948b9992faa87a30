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
    "check_ranks",
    "choose_rank",
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
_LARGEST_AUTO_RANK = 8
_STARTING_ROWS = 100_000
_WARM = 15  # sweeps with components before a tensor train
_SPARE = 2  # components more than a bond has states


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
    sweeps: int = 40
    tolerance: float = 1e-5
    batch_size: int | None = None
    epochs: int = 0


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
    sizes = [encoding.size for encoding in encodings]

    def step(bounds: list[float]) -> None:
        keep.current = (posterior, list(bounds))
        keep.save()
        after(bounds)

    entries: Entries
    batches, stochastic = None, 0
    if settings.batch_size is None:
        own = np.flatnonzero(parts.of(np.arange(len(y))) != start) if parts.count else slice(None)
        entries = Layout([column[own] for column in index], sizes, y[own])
    else:
        seen = (lambda rows: parts.of(rows) != start) if parts.count else None
        entries = Pieces(index, sizes, y, settings.batch_size, seen=seen, scratch=_scratch(y))
        batches = Minibatches(entries, settings.batch_size, seed=seed)
        stochastic = settings.epochs * batches.steps
    train = settings.form == "tensor-train" and len(sizes) > 1
    if not posterior.sweeps and batches is not None and stochastic:
        if train:
            posterior = _components_start(posterior, encodings, settings, batches, stochastic, seed)
            batches = Minibatches(batches.pieces, batches.size, seed=seed)
        batches.begin(posterior)
        for _ in range(stochastic):
            posterior.sweep(batches)
    elif not posterior.sweeps and train:
        posterior, before = _better_start(posterior, encodings, settings, entries, seed)
    trace = posterior.fit(entries, sweeps=settings.sweeps, tolerance=settings.tolerance, before=before, after=step)
    return Member(posterior, trace, start if parts.count else -1, seed)


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


def _better_start(
    posterior: LowRankPosterior,
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    seed: int,
) -> tuple[LowRankPosterior, list[float]]:
    """A train from random matrices or from components, whichever has the larger bound after some sweeps; its bounds."""
    trains = [posterior, _components_start(posterior, encodings, settings, entries, _WARM, seed)]
    sweeps = min(_WARM, settings.sweeps)
    bounds = [train.fit(entries, sweeps=sweeps, tolerance=0.0).elbo.tolist() for train in trains]
    best = int(np.argmax([trace[-1] for trace in bounds]))
    return trains[best], bounds[best]


def _scratch(y: Array) -> Callable[[int], Array]:
    """Arrays in memory for a table in memory, temporary files for one on disk."""
    if not isinstance(y, np.memmap):
        return np.empty

    def create(n: int) -> Array:
        with tempfile.TemporaryFile() as file:  # the map keeps it until it is gone itself
            file.truncate(8 * n)
            return np.memmap(file, np.float64, "r+", shape=(n,))

    return create


def choose_rank(
    encodings: Sequence[Encoding], index: Sequence[Index], y: Array, settings: LowRankSettings, seed: int
) -> LowRankSettings:
    """The settings with the rank at which the bound of two starts is largest, from one upwards."""
    sizes = [encoding.size for encoding in encodings]
    best, bound = replace(settings, ranks=ranks_of(1, sizes, settings.form)), -np.inf
    for rank in range(1, _LARGEST_AUTO_RANK + 1):
        trial = replace(settings, ranks=ranks_of(rank, sizes, settings.form))
        try:
            members = fit_members(encodings, index, y, trial, restarts=2, leave_out=False, seed=seed)
        except InvalidDataError:  # The core is too large: what is smaller has been compared.
            break
        value = max(member.elbo for member in members)
        if value <= bound:
            break
        best, bound = trial, value
    return best


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
