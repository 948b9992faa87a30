"""Where a fit keeps what it has, so that it can go on after it was killed."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.files import write_atomic
from gpkit.inference.structured_vb import LowRankPosterior, SweepTrace
from gpkit.models.functional_tensor.modes import Encoding

__all__ = ["Checkpoint", "Member", "RankCandidate", "fingerprint"]

Array = NDArray[np.float64]
Index = NDArray[np.int32]
_BETWEEN_SAVES = 5.0  # seconds
_KEPT = ("finished", "current", "begun", "candidates", "chosen")


@dataclass(eq=False)
class Member:
    """A finished restart.

    Attributes:
        posterior: of the low-rank part.
        trace: of its sweeps.
        part: of the rows, which it has not seen; -1 where it has seen all.
        seed: of its start.
    """

    posterior: LowRankPosterior
    trace: SweepTrace
    part: int
    seed: int

    @property
    def elbo(self) -> float:
        """The last bound."""
        return float(self.trace.elbo[-1])


@dataclass(eq=False)
class RankCandidate:
    """A fit to all rows in a search for the rank.

    Attributes:
        ranks: of modes or bonds.
        posterior: of the low-rank part.
        bound: the last one.
    """

    ranks: tuple[int, ...]
    posterior: LowRankPosterior
    bound: float


@dataclass
class Checkpoint:
    """Where a fit keeps what it has, so that it can go on after it was killed.

    Attributes:
        path: of the file; None keeps nothing.
        fingerprint: of data and settings: a file of another fit is not used.
        finished: members that are ready.
        current: posterior and bounds of the one that is not.
        begun: whether that one has been looked at for functions that died.
        candidates: fits of a search for the rank that is not finished.
        chosen: the ranks that it ended with.
    """

    path: Path | None
    fingerprint: str = ""
    finished: list[Member] = field(default_factory=list)
    current: tuple[LowRankPosterior, list[float]] | None = None
    begun: bool = False
    candidates: dict[Any, RankCandidate] = field(default_factory=dict)
    chosen: tuple[int, ...] | None = None
    _saved: float = field(default_factory=time.monotonic)

    def load(self, fingerprint: str) -> None:
        """Take over what an earlier run with the same data and settings, of this fingerprint, left."""
        self.fingerprint = fingerprint
        if self.path is None or not self.path.exists():
            return
        try:
            content = pickle.loads(self.path.read_bytes())
            if content["fingerprint"] == self.fingerprint:
                for name in _KEPT:
                    setattr(self, name, content[name])
        except Exception:  # Whatever is wrong with an earlier result, the answer is to make it again.
            return

    def save(self, *, now: bool = False) -> None:
        """Write, but not more often than every few seconds."""
        if self.path is None or (not now and time.monotonic() - self._saved < _BETWEEN_SAVES):
            return
        content = {"fingerprint": self.fingerprint, **{name: getattr(self, name) for name in _KEPT}}
        write_atomic(self.path, pickle.dumps(content))
        self._saved = time.monotonic()

    def remove(self) -> None:
        """The fit is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def fingerprint(y: Array, encodings: Sequence[Encoding], index: Sequence[Index], *settings: Any) -> str:
    """Of everything that determines a fit: data, modes with their kernels, settings."""
    digest = hashlib.sha256(np.ascontiguousarray(y).data)
    for encoding, column in zip(encodings, index, strict=True):
        digest.update(np.ascontiguousarray(column).data)
        digest.update(np.ascontiguousarray(encoding.points).data)
        kernel = getattr(encoding.spec, "kernel", None)
        parameters = [] if kernel is None else [(name, value.tolist()) for name, value in kernel.named_parameters()]
        digest.update(repr((type(encoding.spec).__name__, encoding.spec.columns, str(kernel), parameters)).encode())
    digest.update(repr(settings).encode())
    return digest.hexdigest()
