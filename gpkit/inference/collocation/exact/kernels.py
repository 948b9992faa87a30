"""Priors from what a user says about the kernel, or from what the problem's data contain.

GPyTorch kernels are read for their families and hyper-parameters; "auto" makes a spectral mixture from the
frequencies of sources and boundary data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.exact.bridge import kernel_axes
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.exact.rows import Rows
from gpkit.inference.collocation.exact.start import (
    Picked,
    broadband,
    is_uniform,
    lines_along,
    pick_frequencies,
    picked_mixture,
)
from gpkit.inference.collocation.forms import Problem
from gpkit.kernels.stationary import Envelope, GaussianEnvelope, MaternEnvelope

__all__ = ["Mixtures", "Start", "mixtures_for"]

Mixtures = list[tuple[MixtureAxis, ...]]
"""By field, then by axis."""

_NAMES: dict[str, Envelope] = {
    "gaussian": GaussianEnvelope(),
    "matern52": MaternEnvelope(2.5),
    "matern72": MaternEnvelope(3.5),
    "matern92": MaternEnvelope(4.5),
}


@dataclass(eq=False)
class Start:
    """Priors before learning.

    Attributes:
        mixtures: By field and axis.
        picked: By axis, the frequencies found and what they leave unexplained; empty where a kernel was given.
        fixed: Whether the user gave the hyper-parameters.
        candidates: By axis, mixtures to choose from by their evidence; the first is in ``mixtures``.
    """

    mixtures: Mixtures
    picked: list[Picked] = field(default_factory=list)
    fixed: bool = False
    candidates: list[list[MixtureAxis]] = field(default_factory=list)


def mixtures_for(problem: Problem, kernel: Any, rows: Sequence[Rows], points: Sequence[int] | None = None) -> Start:
    """Priors of every field and axis.

    Args:
        problem: For its box and fields.
        kernel: "auto", the name of an envelope, a `MixtureAxis` for all axes, one per axis, a GPyTorch kernel, or a
            mapping from the names of fields to any of these.
        rows: Of the problem, whose values are looked at for frequencies.
        points: Of the collocation grid along each axis; those of the finest rows by default.

    Raises:
        InvalidDataError: The kernel is of none of these kinds, or a field has none.
    """
    if isinstance(kernel, Mapping):
        missing = [name for name in problem.fields if name not in kernel]
        if missing:
            raise InvalidDataError(f"no kernel is given for the field {missing[0]!r}")
        parts = [mixtures_for(problem, kernel[name], rows, points) for name in problem.fields]
        mixtures = [part.mixtures[f] for f, part in enumerate(parts)]
        return Start(mixtures, parts[0].picked, all(part.fixed for part in parts))
    if kernel == "auto" or isinstance(kernel, str):
        if kernel != "auto" and kernel not in _NAMES:
            raise InvalidDataError(f"the kernel {kernel!r} is unknown: use 'auto', {', '.join(map(repr, _NAMES))}")
        return _from_data(problem, _NAMES.get(kernel, GaussianEnvelope()), rows, points)
    axes = _given(kernel, problem.box.dim)
    return Start([axes for _ in problem.fields], fixed=True)


def _from_data(problem: Problem, envelope: Envelope, rows: Sequence[Rows], points: Sequence[int] | None) -> Start:
    picked, candidates = [], []
    for j, length in enumerate(problem.box.lengths):
        found = _frequencies(rows, j)
        count = max(len(r.coordinates[j]) for r in rows if r.is_grid) if points is None else points[j]
        lines, band = picked_mixture(envelope, found, length), broadband(envelope, length, count)
        picked.append(found)
        candidates.append([band] if found.residual > 0.3 else [lines, band, lines.plus(band, 1e-6)])
    first = tuple(c[0] for c in candidates)
    return Start([first for _ in problem.fields], picked, candidates=candidates)


def _frequencies(rows: Sequence[Rows], axis: int) -> Picked:
    """Of sources and boundary data along one axis; the strongest set explains most lines."""
    every: list[float] = []
    worst = 0.0
    for r in rows:
        if not r.is_grid or r.values is None:
            continue
        x = r.coordinates[axis]
        if len(x) < 16 or not is_uniform(x):
            continue
        size = float(r.values.abs().max())
        if size == 0.0:
            continue
        noise = math.sqrt(float(r.noise.mean())) / size
        found = pick_frequencies(x, lines_along(r.values.reshape(r.shape), axis) / size, tolerance=1e-6, noise=noise)
        worst = max(worst, found.residual)
        spacing = 0.25 / float(x[-1] - x[0])
        every += [f for f in found.frequencies if all(abs(f - e) >= spacing for e in every)]
    return Picked(tuple(every[:16]), worst)


def _given(kernel: Any, dim: int) -> tuple[MixtureAxis, ...]:
    if isinstance(kernel, MixtureAxis):
        return (kernel,) * dim
    if isinstance(kernel, Sequence) and not isinstance(kernel, str):
        if len(kernel) != dim:
            raise InvalidDataError(f"a kernel per axis needs {dim} mixtures, got {len(kernel)} entries")
        return tuple(_given(k, 1)[0] for k in kernel)
    return kernel_axes(kernel, dim)
