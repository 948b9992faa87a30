"""What a report about a tensor is made of, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.findings import Finding
from gpkit.errors import InvalidDataError
from gpkit.reports.content import RunSection

__all__ = ["ModeSection", "ScoreRow", "TensorContent"]


def _empty() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True)
class ModeSection:
    """One mode.

    Attributes:
        name: Its name.
        kind: "continuous", "categorical" or "spatial".
        coordinates: Distinct coordinates, ``j``, or ``j d``.
        main: Main effect, ``j``, in the unit of the target, and its standard deviation.
        main_sd: See above.
        functions: Principal functions, ``j r``, unit mean square over the entries.
        functions_sd: Their standard deviations.
        share: Part of the low-rank variance that each carries, ``r``.
        parameters: Learned parameters by name.
    """

    name: str
    kind: str
    coordinates: NDArray[Any]
    main: FloatArray
    main_sd: FloatArray
    functions: FloatArray
    functions_sd: FloatArray
    share: FloatArray
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class ScoreRow:
    """Errors of one predictor for entries that it has not seen."""

    name: str
    rmse: float
    mae: float
    log_density: float = float("nan")


@dataclass(frozen=True)
class TensorContent:
    """A whole report.

    Attributes:
        title: Name of the data.
        target: Name of what was predicted.
        form: "tucker", "cp" or "tensor-train".
        likelihood: Of the noise.
        residual: Name of the residual, or empty.
        entries: Number of entries.
        exclusions: Rows that were left out, by reason.
        repeated: Entries whose coordinates an earlier one has.
        modes: The modes.
        core: Posterior mean of the core, one axis per mode, or of the weights of components; singular values of a
            tensor train, a row per bond, filled up with zeros.
        traces: Bounds after each sweep of every start.
        converged: Whether each start ended by its tolerance.
        scores: The model and trivial predictors.
        pit: Probability integral transforms of entries predicted unseen, ``n``; empty if there are none.
        predicted: Their predictions, ``n``.
        standardised: Their errors as normal scores, ``n``.
        parameters: Noise and residual, by name.
        seconds: CPU seconds of the fit.
        findings: What the reader should know.
        run: How it was made.
    """

    title: str
    target: str
    form: str
    likelihood: str
    residual: str
    entries: int
    exclusions: Mapping[str, int]
    repeated: int
    modes: Sequence[ModeSection]
    core: FloatArray
    traces: Sequence[FloatArray]
    converged: Sequence[bool]
    scores: Sequence[ScoreRow]
    pit: FloatArray = field(default_factory=_empty)
    predicted: FloatArray = field(default_factory=_empty)
    standardised: FloatArray = field(default_factory=_empty)
    parameters: Mapping[str, float] = field(default_factory=dict)
    seconds: float = float("nan")
    findings: Sequence[Finding] = ()
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        """Check lengths, so that a report is not half written when it fails."""
        if not self.modes or not self.traces:
            raise InvalidDataError("a report needs at least one mode and one start")
        if not len(self.pit) == len(self.predicted) == len(self.standardised):
            raise InvalidDataError("pit, predicted and standardised must have the same length")
