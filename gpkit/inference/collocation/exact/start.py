"""Where learning starts: frequencies that a source contains, and mixtures of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.frequencies import clean
from gpkit.kernels.stationary import Envelope

__all__ = ["Picked", "broadband", "is_uniform", "lines_along", "pick_frequencies", "picked_mixture"]

_MOST = 12


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


def pick_frequencies(
    x: Tensor, lines: Tensor, tolerance: float = 1e-4, most: int = _MOST, noise: float = 0.0
) -> Picked:
    """Find frequencies one after another, each with an amplitude that is a quadratic of x.

    Args:
        x: Uniform grid, (N,).
        lines: (N, M), all of which share the frequencies.
        tolerance: Relative residual at which nothing more is looked for.
        most: Number of frequencies at most.
        noise: Standard deviation of the lines' noise; what it explains is not picked, and no residual.
    """
    length = len(x) * float(x[-1] - x[0]) / (len(x) - 1) if len(x) > 1 else 1.0
    found = clean(x.numpy(), lines.numpy(), tolerance=tolerance, most=most, noise=noise, lowest=0.75 / length)
    return Picked(found.frequencies, 0.0 if noise > 0.0 and found.complete else found.residual)


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
