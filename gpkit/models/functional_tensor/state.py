"""What a fitted tensor model keeps, and how it goes on with more entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb import GaussianNoise, Layout
from gpkit.models.functional_tensor.fitting import LowRankSettings, Member, new_posterior
from gpkit.models.functional_tensor.local_residual import LocalResidual
from gpkit.models.functional_tensor.modes import Encoding
from gpkit.models.functional_tensor.table import TensorTable

__all__ = ["TensorState", "continued", "joined_table"]

Array = NDArray[np.float64]


@dataclass(eq=False)
class TensorState:
    """Everything that predictions need, and the data that updates need.

    Attributes:
        encodings: of the modes.
        index: coordinates of the entries in every mode, (N,) each.
        y: targets of the fit (N,): centred and scaled where they are real numbers.
        centre, unit: of the targets.
        members: restarts that predictions use.
        residual: the local residual, or None.
        weight: relative precisions of the entries, (N,) or (1,).
    """

    encodings: list[Encoding]
    index: list[NDArray[np.int32]]
    y: Array
    centre: float
    unit: float
    members: list[Member]
    residual: LocalResidual | None
    weight: Array = field(default_factory=lambda: np.ones(1))

    def counts(self) -> list[Array]:
        """Number of entries at each coordinate of every mode."""
        sizes = [encoding.size for encoding in self.encodings]
        return [np.bincount(i, minlength=n).astype(np.float64) for i, n in zip(self.index, sizes, strict=True)]


def joined_table(state: TensorState, new: TensorTable) -> TensorTable:
    """Old and new entries as one table, targets in the unit of the fit."""
    columns = []
    for encoding, index, more in zip(state.encodings, state.index, new.columns, strict=True):
        values = encoding.labels()[index]
        old = [values] if values.ndim == 1 else list(values.T)
        columns.append(tuple(np.concatenate([a, b]) for a, b in zip(old, more, strict=True)))
    target = np.concatenate([state.y, (new.y - state.centre) / state.unit])
    return TensorTable(tuple(columns), target, new.exclusions)


def continued(
    member: Member,
    state: TensorState,
    encodings: Sequence[Encoding],
    index: Sequence[NDArray[np.int32]],
    y: Array,
    weight: Array,
    settings: LowRankSettings,
) -> Member:
    """Sweeps over all entries from the posterior that is there; new coordinates begin with their exact predictions.

    Args:
        member: the restart to go on with; what it left out stays left out.
        state: of the old entries.
        encodings: of the modes, for old and new entries together.
        index: coordinates of all entries.
        y: targets of all.
        weight: relative precisions of all.
        settings: of the model; as many sweeps as they say.
    """
    old = member.posterior
    seen = np.ones(len(y), bool)
    seen[member.left_out] = False
    observation = GaussianNoise(y[seen], weight[seen])
    posterior = new_posterior(encodings, settings, observation, member.seed)
    posterior.form.take_over(old.form)
    posterior.sweeps = old.sweeps
    if isinstance(old.observation, GaussianNoise):
        observation.noise = old.observation.noise
    for mine, theirs, encoding, before in zip(posterior.modes, old.modes, encodings, state.encodings, strict=True):
        mine.factor.take_over(theirs.factor, before.numbers_of(encoding))
        mine.refresh()
    layout = Layout([column[seen] for column in index], [e.size for e in encodings], *observation.start())
    trace = posterior.fit(layout, sweeps=settings.sweeps, tolerance=0.0)
    return Member(posterior, trace, member.left_out, member.seed)
