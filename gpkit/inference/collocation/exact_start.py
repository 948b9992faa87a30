"""Where learning starts: frequencies that a source contains, and mixtures of them.

References:
    Hogbom (1974), Astronomy and Astrophysics Supplement 15, 417 (CLEAN).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.inference.collocation.exact_priors import MixtureAxis
from gpkit.kernels.stationary import Envelope

__all__ = ["Picked", "broadband", "is_uniform", "lines_along", "pick_frequencies", "picked_mixture"]

_MOST = 12
_PADDING = 16


@dataclass(frozen=True)
class Picked:
    """Frequencies of a set of lines.

    Attributes:
        frequencies: In cycles per unit, strongest first; without zero.
        residual: What they and slow amplitudes leave unexplained, relative.
    """

    frequencies: tuple[float, ...]
    residual: float


def lines_along(values: Tensor, axis: int, most: int = 40) -> Tensor:
    """Up to ``most`` lines of a grid of values along an axis, (N, M)."""
    lines = values.movedim(axis, 0).reshape(values.shape[axis], -1)
    step = max(1, lines.shape[1] // most)
    return lines[:, ::step]


def is_uniform(x: Tensor) -> bool:
    """Whether points are equispaced."""
    steps = x.diff()
    return bool((steps - steps.mean()).abs().max() < 1e-6 * steps.mean())


def pick_frequencies(x: Tensor, lines: Tensor, tolerance: float = 1e-4, most: int = _MOST) -> Picked:
    """Find frequencies one after another, each with an amplitude that is a quadratic of x.

    Args:
        x: Uniform grid, (N,).
        lines: (N, M), all of which share the frequencies.
        tolerance: Relative residual at which nothing more is looked for.
        most: Number of frequencies at most.
    """
    n, step = len(x), float(x[-1] - x[0]) / (len(x) - 1)
    length = n * step
    norm = float(lines.norm())
    if norm == 0.0 or n < 8:
        return Picked((), 0.0)
    t = (x - x.mean()) / length
    window = torch.blackman_window(n, periodic=False, dtype=torch.float64)[:, None]
    found: list[float] = []
    while True:
        design = _design(x, t, found)
        residual = lines - design @ torch.linalg.lstsq(design, lines, rcond=1e-12, driver="gelsd").solution
        relative = float(residual.norm()) / norm
        if relative < tolerance or len(found) == most or design.shape[1] + 6 > n:
            return Picked(tuple(found), relative)
        power = torch.fft.rfft(window * residual, n=_PADDING * n, dim=0).abs().pow(2).sum(1)
        peak = int(power.argmax())
        offset = 0.0
        if 0 < peak < len(power) - 1:
            a, b, c = (math.log(max(float(power[peak + i]), 1e-300)) for i in (-1, 0, 1))
            curvature = a - 2.0 * b + c
            offset = min(max(0.5 * (a - c) / curvature, -0.5), 0.5) if curvature else 0.0
        frequency = (peak + offset) / (_PADDING * n * step)
        if frequency < 0.75 / length or any(abs(frequency - f) < 0.25 / length for f in found):
            return Picked(tuple(found), relative)
        found.append(frequency)


def _design(x: Tensor, t: Tensor, frequencies: Sequence[float]) -> Tensor:
    powers = torch.stack([torch.ones_like(t), t, t**2], dim=1)
    columns = [powers]
    for f in frequencies:
        phase = 2.0 * math.pi * f * x[:, None]
        columns += [powers * torch.cos(phase), powers * torch.sin(phase)]
    return torch.cat(columns, dim=1)


def picked_mixture(envelope: Envelope, picked: Picked, length: float, share: float = 0.5) -> MixtureAxis:
    """One component at zero and one at every picked frequency, with long envelopes.

    Args:
        envelope: Of the components.
        picked: Frequencies.
        length: Of the interval.
        share: Length scale of the envelopes relative to it.
    """
    frequencies = torch.tensor([0.0, *picked.frequencies], dtype=torch.float64)
    weights = torch.full_like(frequencies, 1.0 / len(frequencies))
    return MixtureAxis(envelope, weights, torch.full_like(frequencies, share * length), frequencies)


def broadband(envelope: Envelope, length: float, points: int, components: int = 8, cut: float = 0.3) -> MixtureAxis:
    """Components side by side from zero to a fraction of the sampling frequency, weaker the higher.

    Args:
        envelope: Of the components.
        length: Of the interval.
        points: Of the grid.
        components: How many.
        cut: Highest frequency in cycles per grid step.
    """
    highest = cut * points / length
    frequencies = torch.linspace(0.0, highest, components, dtype=torch.float64)
    width = highest / max(components - 1, 1)
    lengthscale = 1.0 / (2.0 * math.pi * 0.6 * width)
    weights = (1.0 + frequencies / width) ** -4.0
    return MixtureAxis(envelope, weights / weights.sum(), torch.full_like(frequencies, lengthscale), frequencies)
