"""Outcome of a fit of a tensor model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.laws import UnseenEntries
from gpkit.models.functional_tensor.modes import ModeSpec
from gpkit.models.functional_tensor.predictions import DiscretePrediction, TensorPrediction
from gpkit.models.functional_tensor.state import TensorState

__all__ = ["OVERDISPERSED", "TensorFit", "describe"]

Array = NDArray[np.float64]
OVERDISPERSED = 1.5
"""From this :meth:`TensorFit.overdispersion` on counts are said not to be Poisson counts."""


@dataclass(frozen=True, eq=False)
class TensorFit:
    """Outcome of a fit.

    Attributes:
        elbo: last bound of every start, of the low-rank part alone where there is a local residual.
        traces: bounds after each sweep of every start.
        converged: whether each start ended by its tolerance.
        ranks: of the modes, or of the bonds of a tensor train.
        n: entries, those that are no longer kept included.
        exclusions: rows that were left out, by reason.
        repeated: kept entries whose coordinates an earlier one has.
        parameters: learned parameters of the start with the largest bound, natural units.
        unseen: what predicts the entries by what had not seen them; None if no start left anything out.
        seconds: CPU seconds.
    """

    elbo: Array
    traces: tuple[Array, ...]
    converged: tuple[bool, ...]
    ranks: tuple[int, ...]
    n: int
    exclusions: Mapping[str, int]
    repeated: int
    parameters: Mapping[str, float]
    unseen: UnseenEntries | None
    seconds: float

    @cached_property
    def left_out(self) -> TensorPrediction | DiscretePrediction | None:
        """Predictions of the N entries by what had not seen them; None if no start left anything out.

        They are computed when they are asked for: below a local residual they cost as much as predictions.
        """
        return None if self.unseen is None else self.unseen.predict()

    def overdispersion(self, y: Array) -> float:
        """Mean of squared errors over predicted variances, of the N entries left out: one where these are right.

        Args:
            y: the entries, (N,).

        Raises:
            InvalidDataError: if no start left anything out.
        """
        if self.left_out is None:
            raise InvalidDataError("no entries were left out: use combine='stack' with two starts or more")
        return float(np.mean((y - self.left_out.mean) ** 2 / self.left_out.variance))

    def __repr__(self) -> str:
        done = sum(self.converged)
        bounds = ", ".join(f"{value:.1f}" for value in self.elbo)
        return f"TensorFit({self.n} entries, ranks {self.ranks}, ELBO {bounds}; {done} of {len(self.elbo)} converged)"


def describe(
    modes: Sequence[ModeSpec],
    members: Sequence[Member],
    state: TensorState,
    exclusions: Mapping[str, int],
    ranks: tuple[int, ...],
    unseen: UnseenEntries | None,
    seconds: float,
) -> TensorFit:
    """Put the outcome together from all restarts."""
    best = max(members, key=lambda member: member.elbo)
    parameters = {
        f"{mode.name}.{name}": value
        for mode, own in zip(modes, best.posterior.modes, strict=True)
        for name, value in own.factor.parameters().items()
    }
    power = {"noise_variance": 2, "noise_scale": 1}
    for name, value in best.posterior.observation.parameters().items():
        parameters[name] = value * state.unit ** power.get(name, 0)
    return TensorFit(
        elbo=np.array([member.elbo for member in members]),
        traces=tuple(member.trace.elbo for member in members),
        converged=tuple(member.trace.converged for member in members),
        ranks=ranks,
        n=state.entries,
        exclusions=dict(exclusions),
        repeated=_repeated(state.index),
        parameters=parameters,
        unseen=unseen,
        seconds=seconds,
    )


def _repeated(index: Sequence[NDArray[np.int32]]) -> int:
    """Number of entries whose coordinates an earlier one has; in place, for tables that just fit into memory."""
    joined = index[0].astype(np.int64)
    for column in index[1:]:
        joined *= int(column.max()) + 1
        joined += column
    joined.sort()
    return int(np.count_nonzero(joined[1:] == joined[:-1]))
