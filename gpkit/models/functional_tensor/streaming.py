"""More entries for a fitted model, in memory that does not grow with their number.

The newest entries are kept, up to a limit, and a sample of as many older ones; what older ones say is carried as
Gaussian sites: of the functions at every distinct coordinate, of the coefficients, and of the noise. An update makes
sweeps over the entries that are kept, with carried sites as part of the prior, corrected by the sample
(:mod:`gpkit.models.functional_tensor.memory`): exact while all older ones are in the sample, streaming variational
Bayes afterwards. Forgetting is a power of the likelihood of everything earlier.

References:
    Broderick, Boyd, Wibisono, Wilson & Jordan (2013), NIPS 26 (streaming variational Bayes).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.laws import member_moments
from gpkit.models.functional_tensor.modes import Encoding
from gpkit.models.functional_tensor.settings import LowRankSettings, check_ranks, new_posterior
from gpkit.models.functional_tensor.state import Index, TensorState
from gpkit.models.functional_tensor.table import TensorTable

__all__ = ["updated"]

Array = NDArray[np.float64]


def updated(
    state: TensorState, new: TensorTable, settings: LowRankSettings, *, keep: int, forgetting: float
) -> TensorState:
    """The state after more entries; the old one stays as it was.

    Args:
        state: before.
        new: entries, targets in the unit of the table.
        settings: of the model; as many sweeps as they say.
        keep: number of entries that are kept.
        forgetting: power of the likelihood of everything before.
    """
    encodings, places = _joined(state.encodings, new)
    numbers = [e.numbers(columns) for e, columns in zip(encodings, new.columns, strict=True)]
    index = [e.index(x) for e, x in zip(encodings, numbers, strict=True)]
    y = (new.y - state.centre) / state.unit
    residual = state.residual
    if residual is not None:
        # What the low-rank part says about rows before it sees them: the residual is of honest errors here, too.
        old = [e.numbers_of(union) for e, union in zip(state.encodings, encodings, strict=True)]
        asked = [own[at] for own, at in zip(old, index, strict=True)]
        means, variances, _ = member_moments(state.members, asked)
        low_rank = state.weights @ means
        points, more = _recoded(residual.points, encodings, places), np.column_stack(numbers)
        if isinstance(residual, LatentResidual):
            spread = state.weights @ (variances + (means - low_rank) ** 2)
            residual = residual.extended(points, more, y, low_rank, spread)
        else:
            residual = residual.extended(points, more, y, low_rank)
    after = TensorState(
        encodings,
        [np.concatenate([at[old], fresh]) for at, old, fresh in zip(places, state.index, index, strict=True)],
        np.concatenate([state.y, y]),
        np.concatenate([state.part, np.full(new.n, -1, np.int16)]),
        _powers(state, new.n, forgetting),
        state.centre,
        state.unit,
        [],
        state.weights,
        residual,
        state.entries + new.n,
        _added(state, index, encodings, places),
        state.memory.forgotten(forgetting, places, [e.size for e in encodings]),
    )
    check_ranks(encodings, settings)
    after.members = [_continued(member, state, after, places, settings, forgetting) for member in state.members]
    after.shrink(keep)
    if after.residual is not None:
        after.residual = after.residual.rebased(_low_rank(after))
    return after


def _low_rank(state: TensorState) -> Array:
    """Mean at the kept entries, of the member that has not seen one where there is one."""
    means = [member.posterior.node_moments(state.index)[0] for member in state.members]
    out: Array = state.weights @ np.stack(means)
    for member, mean in zip(state.members, means, strict=True):
        if member.part >= 0:
            out = np.where(state.part == member.part, mean, out)
    return out


def _powers(state: TensorState, more: int, forgetting: float) -> Array:
    if forgetting == 1.0 and state.power.size == 1 and state.power[0] == 1.0:
        return state.power
    return np.concatenate([np.broadcast_to(forgetting * state.power, state.y.shape), np.ones(more)])


def _joined(old: Sequence[Encoding], new: TensorTable) -> tuple[list[Encoding], list[Index]]:
    """Encodings of old and new coordinates together, and where the old ones are among them."""
    encodings, places = [], []
    for before, columns in zip(old, new.columns, strict=True):
        before.check(columns[0])
        labels = before.labels()
        own = [labels] if labels.ndim == 1 else list(labels.T)
        joined = before.spec.encode([np.concatenate([a, b]) for a, b in zip(own, columns, strict=True)])
        encodings.append(joined)
        places.append(joined.index(joined.numbers(own)))
    return encodings, places


def _added(
    state: TensorState, index: Sequence[Index], encodings: Sequence[Encoding], places: Sequence[Index]
) -> list[Array]:
    counts = TensorState.count(index, encodings)
    for total, before, at in zip(counts, state.counts, places, strict=True):
        total[at] += before
    return counts


def _recoded(points: Array, encodings: Sequence[Encoding], places: Sequence[Index]) -> Array:
    """Points of the local residual with the new codes of categories."""
    out, column = points.copy(), 0
    for encoding, at in zip(encodings, places, strict=True):
        if encoding.categorical:
            out[:, column] = at[points[:, column].astype(np.int64)]
        column += len(encoding.spec.columns)
    return out


def _continued(
    member: Member,
    before: TensorState,
    after: TensorState,
    places: Sequence[Index],
    settings: LowRankSettings,
    forgetting: float,
) -> Member:
    """Sweeps from the posterior that is there; new coordinates begin with their exact predictions."""
    old = member.posterior
    posterior = new_posterior(after.encodings, settings, copy.deepcopy(old.observation), member.seed)
    posterior.form.take_over(old.form)
    posterior.sweeps = old.sweeps
    for k, mode in enumerate(posterior.modes):
        coordinates = before.encodings[k].numbers_of(after.encodings[k])
        mode.factor.take_over(old.modes[k].factor, coordinates, places[k])
        mode.refresh()
    posterior.forget(forgetting)
    whole = after.memory.complete
    if not whole:
        # The sample's own sites are taken off what is carried: they will follow the posterior in the sweeps.
        sample = after.remembered(member)
        posterior.forget(-1.0)
        posterior.carry(sample)
        posterior.forget(-1.0)
    precision = posterior.observation.precision
    trace = posterior.fit(after.everything(member), sweeps=settings.sweeps, tolerance=0.0)
    if not whole:
        posterior.form.forget(posterior.observation.precision / precision)
        for mode in posterior.modes:
            mode.factor.forget(posterior.observation.precision / precision)
        posterior.carry(sample)
    return Member(posterior, trace, member.part, member.seed)
