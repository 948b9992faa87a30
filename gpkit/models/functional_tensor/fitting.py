"""Restarts of the low-rank part: each leaves out its own part of the rows, goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.files import write_atomic
from gpkit.inference.structured_vb import (
    Bernoulli,
    GaussianNoise,
    Layout,
    LowRankPosterior,
    NegativeBinomial,
    Observation,
    Poisson,
    StudentTNoise,
    SweepTrace,
    component_layout,
)
from gpkit.models.functional_tensor.modes import Encoding

__all__ = [
    "CONTINUOUS",
    "OBSERVATIONS",
    "Checkpoint",
    "LowRankSettings",
    "Member",
    "choose_rank",
    "fingerprint",
    "fit_members",
    "left_out_moments",
    "new_posterior",
    "noise_variance",
]

Array = NDArray[np.float64]
Index = NDArray[np.int32]

OBSERVATIONS: dict[str, Callable[[Array], Observation]] = {
    "gaussian": GaussianNoise,
    "student-t": StudentTNoise,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "negative-binomial": NegativeBinomial,
}
CONTINUOUS = ("gaussian", "student-t")
"""Likelihoods of real numbers, which are centred and scaled for the fit."""
_BETWEEN_SAVES = 5.0  # seconds
_LARGEST_AUTO_RANK = 8


@dataclass(frozen=True)
class LowRankSettings:
    """What determines a fit besides the data.

    Attributes:
        form, ranks, ard, main_effects, likelihood: of the model.
        sweeps, tolerance: when a restart ends.
    """

    form: str
    ranks: tuple[int, ...]
    ard: bool
    main_effects: bool
    likelihood: str
    sweeps: int = 40
    tolerance: float = 1e-5


@dataclass(eq=False)
class Member:
    """A finished restart.

    Attributes:
        posterior: of the low-rank part.
        trace: of its sweeps.
        left_out: rows that it has not seen, (n,).
        seed: of its start.
    """

    posterior: LowRankPosterior
    trace: SweepTrace
    left_out: NDArray[np.int64]
    seed: int

    @property
    def elbo(self) -> float:
        """The last bound."""
        return float(self.trace.elbo[-1])


@dataclass
class Checkpoint:
    """Where a fit keeps what it has, so that it can go on after it was killed.

    Attributes:
        path: of the file; None keeps nothing.
        fingerprint: of data and settings: a file of another fit is not used.
        finished: members that are ready.
        current: posterior and bounds of the one that is not.
    """

    path: Path | None
    fingerprint: str = ""
    finished: list[Member] = field(default_factory=list)
    current: tuple[LowRankPosterior, list[float]] | None = None
    _saved: float = field(default_factory=time.monotonic)

    def load(self, fingerprint: str) -> None:
        """Take over what an earlier run with the same data and settings, of this fingerprint, left."""
        self.fingerprint = fingerprint
        if self.path is None or not self.path.exists():
            return
        try:
            content = pickle.loads(self.path.read_bytes())
            if content["fingerprint"] == self.fingerprint:
                self.finished, self.current = content["finished"], content["current"]
        except Exception:  # Whatever is wrong with an earlier result, the answer is to make it again.
            return

    def save(self, *, now: bool = False) -> None:
        """Write, but not more often than every few seconds."""
        if self.path is None or (not now and time.monotonic() - self._saved < _BETWEEN_SAVES):
            return
        content = {"fingerprint": self.fingerprint, "finished": self.finished, "current": self.current}
        write_atomic(self.path, pickle.dumps(content))
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The fit is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def fingerprint(y: Array, encodings: Sequence[Encoding], index: Sequence[Index], *settings: Any) -> str:
    """Of everything that determines a fit: data, modes with their kernels, settings."""
    digest = hashlib.sha256(y.tobytes())
    for encoding, column in zip(encodings, index, strict=True):
        digest.update(column.tobytes())
        digest.update(encoding.points.tobytes())
        kernel = getattr(encoding.spec, "kernel", None)
        parameters = [] if kernel is None else [(name, value.tolist()) for name, value in kernel.named_parameters()]
        digest.update(repr((type(encoding.spec).__name__, encoding.spec.columns, str(kernel), parameters)).encode())
    digest.update(repr(settings).encode())
    return digest.hexdigest()


def new_posterior(
    encodings: Sequence[Encoding], settings: LowRankSettings, observation: Observation, seed: int
) -> LowRankPosterior:
    """A posterior at its random start."""
    components = component_layout(settings.form, settings.ranks, settings.main_effects)
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
    for encoding, rank in zip(encodings, settings.ranks, strict=True):
        if rank > encoding.size:
            raise InvalidDataError(
                f"rank {rank} for {encoding.spec.name!r}, which has {encoding.size} distinct coordinates: the rank can "
                "be no larger"
            )
    keep = Checkpoint(None) if checkpoint is None else checkpoint
    part = np.random.default_rng(seed).permutation(len(y)) % restarts if leave_out else np.full(len(y), -1)
    from tqdm import tqdm

    with tqdm(total=restarts * settings.sweeps, unit="sweep", disable=None if progress else True) as bar:
        for start in range(len(keep.finished), restarts):
            bar.n = start * settings.sweeps

            def after(bounds: list[float], start: int = start) -> None:
                bar.set_description(f"start {start + 1} of {restarts}, ELBO {bounds[-1]:.1f}", refresh=False)
                bar.update()

            keep.finished.append(_fit_one(encodings, index, y, settings, part != start, seed + start, keep, after))
            keep.current = None
            keep.save()
    return keep.finished


def _fit_one(
    encodings: Sequence[Encoding],
    index: Sequence[Index],
    y: Array,
    settings: LowRankSettings,
    seen: NDArray[np.bool_],
    seed: int,
    keep: Checkpoint,
    after: Callable[[list[float]], None],
) -> Member:
    """One start on the entries that it may see, from where it was interrupted if it was."""
    some = not bool(seen.all())
    own_y = y[seen] if some else y
    own_index = [column[seen] for column in index] if some else list(index)
    if keep.current is not None:
        posterior, before = keep.current
        targets, weights = _resumed(posterior)
    else:
        posterior, before = new_posterior(encodings, settings, OBSERVATIONS[settings.likelihood](own_y), seed), []
        targets, weights = posterior.observation.start()
    layout = Layout(own_index, [e.size for e in encodings], targets, weights)

    def step(bounds: list[float]) -> None:
        keep.current = (posterior, list(bounds))
        keep.save()
        after(bounds)

    trace = posterior.fit(layout, sweeps=settings.sweeps, tolerance=settings.tolerance, before=before, after=step)
    return Member(posterior, trace, np.flatnonzero(~seen), seed)


def choose_rank(
    encodings: Sequence[Encoding], index: Sequence[Index], y: Array, settings: LowRankSettings, seed: int
) -> LowRankSettings:
    """The settings with the rank at which the bound of two starts is largest, from one upwards."""
    best, bound = replace(settings, ranks=(1,) * len(encodings)), -np.inf
    for rank in range(1, _LARGEST_AUTO_RANK + 1):
        trial = replace(settings, ranks=tuple(min(rank, e.size) for e in encodings))
        try:
            members = fit_members(encodings, index, y, trial, restarts=2, leave_out=False, seed=seed)
        except InvalidDataError:  # The core is too large: what is smaller has been compared.
            break
        value = max(member.elbo for member in members)
        if value <= bound:
            break
        best, bound = trial, value
    return best


def _resumed(posterior: LowRankPosterior) -> tuple[Array, Array]:
    """Any targets and weights: a sweep that is not the first sets them from the posterior where they change."""
    observation = posterior.observation
    return observation.y, np.ones_like(observation.y) if observation.needs_moments else np.ones(1)


def noise_variance(member: Member) -> float:
    """Variance of the noise of a continuous likelihood, else zero."""
    observation = member.posterior.observation
    return observation.variance if isinstance(observation, GaussianNoise) else 0.0


def left_out_moments(members: Sequence[Member], index: Sequence[Index], n: int) -> tuple[Array, Array, Array]:
    """Mean and variance of the function, and noise variance, (1, N) each, by the member that has not seen the entry."""
    mean, variance, noise = np.empty((1, n)), np.empty((1, n)), np.empty((1, n))
    for member in members:
        rows = member.left_out
        first, square = member.posterior.node_moments([column[rows] for column in index])
        mean[0, rows], variance[0, rows] = first, np.maximum(square - first**2, 0.0)
        noise[0, rows] = noise_variance(member)
    return mean, variance, noise
