"""What a report about a differential equation is made of, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.findings import Finding
from gpkit.reports.content import RunSection

NAN = float("nan")


@dataclass(frozen=True)
class GridFunction:
    """A function on a tensor grid of one or two axes.

    Attributes:
        axes: Coordinates along each axis.
        values: (N,) or (N, M).
        names: Names of the axes.
        note: Where the other axes are held, such as "z = 0.5".
    """

    axes: tuple[FloatArray, ...]
    values: FloatArray
    names: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class LineSpectrum:
    """Power along one axis, averaged over the others.

    Attributes:
        axis: Its name.
        frequency: In cycles per unit.
        solution: Power of the solution, relative to its largest.
        source: That of the source, empty where there is none.
        nyquist: Half the collocation points per unit.
        picked: Frequencies that the method picked.
    """

    axis: str
    frequency: FloatArray
    solution: FloatArray
    source: FloatArray
    nyquist: float
    picked: tuple[float, ...] = ()


@dataclass(frozen=True)
class FieldSection:
    """One field.

    Attributes:
        name: Its name.
        mean: Posterior mean.
        std: Posterior standard deviation, or None where it was not computed.
        error: Mean minus the known solution, or None.
        detail: A piece of the mean, enlarged, or None.
        spectra: One per axis.
        draws: Some draws along the only axis, (n, N), or empty.
        relative_error: Against the known solution, root mean square; NaN where it is not known.
        is_unknown: Whether it is an unknown coefficient.
    """

    name: str
    mean: GridFunction
    std: GridFunction | None = None
    error: GridFunction | None = None
    detail: GridFunction | None = None
    spectra: tuple[LineSpectrum, ...] = ()
    draws: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    relative_error: float = NAN
    is_unknown: bool = False


@dataclass(frozen=True)
class UnknownNumber:
    """An inferred number: its name, the mode, mean and standard deviation, and the central 95 % interval."""

    name: str
    mode: float
    mean: float = NAN
    std: float = NAN
    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class PDEContent:
    """A whole report about a differential equation.

    Attributes:
        title: Its title.
        equations: As text.
        domain: As text.
        conditions: As text, one each.
        grid: Collocation points along each axis.
        method: What was chosen and why, a sentence.
        fields: At least one.
        residuals: Map of the residual of each equation, relative to its terms.
        facts: Numbers that a reader looks for first: label and value.
        checks: Rows of the table of checks: what, value, what is good.
        histories: Sequences of numbers by name, such as steps of Newton's iteration.
        unknowns: Inferred numbers.
        findings: What speaks against the solution.
        run: How it was made.
    """

    title: str
    equations: tuple[str, ...]
    domain: str
    conditions: tuple[str, ...]
    grid: tuple[int, ...]
    method: str
    fields: tuple[FieldSection, ...]
    residuals: tuple[GridFunction, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    checks: tuple[tuple[str, str, str], ...] = ()
    histories: Mapping[str, Sequence[float]] = field(default_factory=dict)
    unknowns: tuple[UnknownNumber, ...] = ()
    findings: tuple[Finding, ...] = ()
    run: RunSection = field(default_factory=RunSection)
    numbers: Mapping[str, Any] = field(default_factory=dict)
