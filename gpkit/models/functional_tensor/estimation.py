"""The steps of a fit: encode the table, fit the restarts, then what they leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpkit.checks import positive_integer
from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb import SiteObservation, observation_named
from gpkit.models.functional_tensor.checkpoint import Checkpoint, Member, fingerprint
from gpkit.models.functional_tensor.fitting import Parts, fit_members, left_out_moments
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.laws import UnseenEntries
from gpkit.models.functional_tensor.local_residual import LocalResidual
from gpkit.models.functional_tensor.memory import Memory
from gpkit.models.functional_tensor.modes import Encoding
from gpkit.models.functional_tensor.rank_choice import choose_rank
from gpkit.models.functional_tensor.settings import CONTINUOUS, LowRankSettings, ranks_of
from gpkit.models.functional_tensor.spool import Spool, is_chunked
from gpkit.models.functional_tensor.state import Index, TensorState
from gpkit.models.functional_tensor.table import check_spread, read_target
from gpkit.models.functional_tensor.unseen_rows import UnseenRows

if TYPE_CHECKING:
    from gpkit.models.functional_tensor.model import FunctionalTensor

__all__ = ["FitOptions", "estimate", "low_rank_settings"]

Array = NDArray[np.float64]
_CHUNK = 100_000


@dataclass(frozen=True)
class FitOptions:
    """Arguments of a fit; see :meth:`gpkit.models.FunctionalTensor.fit`."""

    restarts: int
    combine: str
    sweeps: int
    tolerance: float
    batch_size: int | None
    epochs: int
    keep: int
    seed: int
    progress: bool
    checkpoint: str | Path | None
    keep_checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.combine not in ("stack", "best"):
            raise InvalidDataError(f"combine must be 'stack' or 'best', got {self.combine!r}")
        for name, least in (("restarts", 1), ("sweeps", 1), ("keep", 1), ("epochs", 0), ("seed", 0)):
            positive_integer(getattr(self, name), name, least)
        if self.batch_size is not None:
            positive_integer(self.batch_size, "batch_size")
        if not 0.0 <= self.tolerance < np.inf:
            raise InvalidDataError(f"tolerance must be a number that is not negative, got {self.tolerance}")


@dataclass(frozen=True, eq=False)
class _Data:
    """Entries in the numbers of the modes, targets in the unit of the fit."""

    encodings: list[Encoding]
    index: list[Index]
    y: Array
    centre: float
    unit: float
    exclusions: Mapping[str, int]
    points: Array | None
    source: Spool | None


def low_rank_settings(
    model: FunctionalTensor, ranks: tuple[int, ...], sweeps: int, tolerance: float, **more: Any
) -> LowRankSettings:
    """Settings of the low-rank part.

    With a local residual the law of continuous noise is fitted afterwards: the low-rank part below it has normal noise.
    """
    heavy = model.residual == "local" and model.likelihood == "student-t"
    likelihood = "gaussian" if heavy else model.likelihood
    ard = model.core_prior == "ard"
    return LowRankSettings(model.form, ranks, ard, model.main_effects, likelihood, sweeps, tolerance, **more)


def _read(model: FunctionalTensor, coordinates: Any, y: Any, options: FitOptions) -> _Data:
    continuous = model.likelihood in CONTINUOUS
    # Without main effects there is no intercept: a shift would be one more component.
    centred = model.main_effects or model.residual is not None
    if is_chunked(coordinates):
        if model.residual is not None:
            raise InvalidDataError("residual='local' needs the table in memory: it is fitted to rows left out")
        rows = options.batch_size or _CHUNK
        spool = Spool(coordinates, y, model.modes, rows, lambda part: observation_named(model.likelihood, part))
        try:
            _check(spool.encodings)
        except InvalidDataError:
            spool.close()
            raise
        centre, unit = spool.standardise(centred) if continuous else (0.0, 1.0)
        return _Data(spool.encodings, spool.index, spool.y, centre, unit, spool.exclusions, None, spool)
    table = read_target(coordinates, y, model.modes)
    encodings = [mode.encode(columns) for mode, columns in zip(model.modes, table.columns, strict=True)]
    _check(encodings)
    numbers = [e.numbers(columns) for e, columns in zip(encodings, table.columns, strict=True)]
    index = [e.index(x) for e, x in zip(encodings, numbers, strict=True)]
    centre, unit = _origin(table.y, centred) if continuous else (0.0, 1.0)
    target = (table.y - centre) / unit if continuous else table.y
    if not continuous:
        observation_named(model.likelihood, target)
    points = np.column_stack(numbers) if model.residual is not None else None
    return _Data(encodings, index, target, centre, unit, table.exclusions, points, None)


def _origin(y: Array, centred: bool) -> tuple[float, float]:
    """What is taken off the targets, and the root mean square of the rest."""
    most = float(np.abs(y).max()) or 1.0  # squares of very large or small numbers are out of range
    centre = most * float((y / most).mean()) if centred else 0.0
    unit = most * float(np.sqrt(np.mean(((y - centre) / most) ** 2)))
    check_spread(unit, most, centre)
    return centre, unit


def _check(encodings: Sequence[Encoding]) -> None:
    for encoding in encodings:
        if encoding.size < 2:
            raise InvalidDataError(
                f"{encoding.spec.name!r} has one distinct value in the data: a mode needs two, leave it out"
            )


@dataclass(frozen=True, eq=False)
class Estimate:
    """What :func:`estimate` found.

    Attributes:
        state: of the model.
        members: all restarts.
        ranks: of the modes or bonds.
        unseen: predicts the entries by what had not seen them; None if no start left anything out.
        exclusions: rows that were left out, by reason.
    """

    state: TensorState
    members: list[Member]
    ranks: tuple[int, ...]
    unseen: UnseenEntries | None
    exclusions: Mapping[str, int]


def estimate(model: FunctionalTensor, coordinates: Any, y: Any, options: FitOptions) -> Estimate:
    """Fit a model.

    Args:
        model: what to fit.
        coordinates: see :meth:`gpkit.models.FunctionalTensor.fit`.
        y: the same.
        options: of the fit.

    Raises:
        InvalidDataError: for data that cannot be used.
    """
    data = _read(model, coordinates, y, options)
    try:
        return _estimated(model, data, options)
    finally:
        if data.source is not None:
            data.source.close()


def _estimated(model: FunctionalTensor, data: _Data, options: FitOptions) -> Estimate:
    n = len(data.y)
    if options.restarts > n // 2:
        raise InvalidDataError(f"{options.restarts} restarts for {n} entries: leave fewer parts")
    batch = options.batch_size if data.source is None else options.batch_size or _CHUNK
    sizes = [encoding.size for encoding in data.encodings]
    first = ranks_of(1, sizes, model.form) if isinstance(model.rank, str) else model.rank
    epochs = options.epochs if batch is not None else 0
    settings = low_rank_settings(model, first, options.sweeps, options.tolerance, batch_size=batch, epochs=epochs)
    stack = options.combine == "stack" and options.restarts > 1 and data.source is None
    keep = Checkpoint(None if options.checkpoint is None else Path(options.checkpoint))
    keep.load(
        fingerprint(
            data.y, data.encodings, data.index, settings, model.rank, options.restarts, options.combine, options.seed
        )
    )
    if isinstance(model.rank, str):
        if keep.chosen is None:
            found = choose_rank(data.encodings, data.index, data.y, settings, options.seed, keep)
            keep.candidates, keep.chosen = {}, found.ranks
            if not stack:  # The first start goes on from here; one that leaves rows out must not have seen them.
                keep.current = (found.posterior, [])
            keep.save(now=True)
        settings = replace(settings, ranks=keep.chosen)
    members = fit_members(
        data.encodings,
        data.index,
        data.y,
        settings,
        restarts=options.restarts,
        leave_out=stack,
        seed=options.seed,
        checkpoint=keep,
        progress=options.progress,
    )
    chosen = [max(members, key=lambda m: m.elbo)] if options.combine == "best" else members
    parts = Parts(options.restarts if stack else 0, options.seed)
    state = _state(data, chosen, parts, options.keep)
    if model.residual is not None:
        _fit_residual(model, data, state, parts, options.seed)
    if options.keep_checkpoint:
        keep.save(now=True)
    else:
        keep.remove()
    unseen = UnseenEntries(state, model.likelihood, parts) if stack else None
    return Estimate(state, members, settings.ranks, unseen, data.exclusions)


def _state(data: _Data, members: list[Member], parts: Parts, keep: int) -> TensorState:
    n = len(data.y)
    counts = TensorState.count(data.index, data.encodings)
    weights = np.full(len(members), 1.0 / len(members))
    ones = np.ones(1)
    kept = n if data.source is None else min(keep, n)
    newest = slice(n - kept, n)
    index = [np.array(column[newest]) for column in data.index] if data.source is not None else data.index
    y = np.array(data.y[newest]) if data.source is not None else data.y
    part = parts.of(np.arange(n - kept, n)).astype(np.int16) if parts.count else np.full(kept, -1, np.int16)
    gone, memory = n - kept, Memory.empty([e.size for e in data.encodings])
    for begin in range(0, gone, _CHUNK):
        rows = slice(begin, min(begin + _CHUNK, gone))
        its_part = parts.of(np.arange(rows.start, rows.stop)).astype(np.int16)
        columns = [np.asarray(column[rows]) for column in data.index]
        memory = memory.joined(columns, np.asarray(data.y[rows]), its_part, ones, keep, seed=0)
    if not memory.complete:
        _carry(data, members, gone)
    return TensorState(
        data.encodings, index, y, part, ones, data.centre, data.unit, members, weights, None, n, counts, memory
    )


def _carry(data: _Data, members: list[Member], gone: int) -> None:
    """The members keep what rows say that will not be in memory."""
    from gpkit.inference.structured_vb import Pieces

    sizes = [encoding.size for encoding in data.encodings]
    for member in members:
        pieces = Pieces([column[:gone] for column in data.index], sizes, data.y[:gone], _CHUNK)
        member.posterior.carry(pieces)


def _fit_residual(model: FunctionalTensor, data: _Data, state: TensorState, parts: Parts, seed: int) -> None:
    """Fit the local residual to what the members leave of entries that they have not seen."""
    mean, variance, _ = left_out_moments(state.members, data.index, parts)
    assert data.points is not None
    category = np.concatenate([[e.categorical] * len(e.spec.columns) for e in data.encodings]).astype(bool)
    table = UnseenRows(data.points, category, data.y, mean[0], variance[0], model.neighbours, seed)
    observation = state.members[0].posterior.observation
    if isinstance(observation, SiteObservation):
        state.residual = LatentResidual.fit(table, family=model.likelihood, likelihood=observation.likelihood)
    else:
        state.residual = LocalResidual.fit(table, heavy=model.likelihood == "student-t")
