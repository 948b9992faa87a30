"""Frequencies of a function on a uniform grid, picked one after another (CLEAN).

Each pass fits what was picked so far, with amplitudes that may vary quadratically along the axis, and looks for the
highest peak in the spectrum of what is left.

References:
    Högbom, J. A. (1974). Aperture synthesis with a non-regular distribution of interferometer baselines.
        Astronomy and Astrophysics Supplement 15, 417-426.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpkit.inference.collocation.bases import Array

__all__ = ["Picks", "clean"]

_PADDING = 16


@dataclass(frozen=True)
class Picks:
    """Frequencies in cycles per unit, in the order in which they were found.

    Attributes:
        frequencies: (n,).
        residual: Norm of what they do not explain, relative to the data.
        complete: Whether the residual is below what was asked, or nothing stands out of it.
    """

    frequencies: tuple[float, ...]
    residual: float
    complete: bool


def _design(x: Array, centre: float, length: float, frequencies: list[float]) -> Array:
    t = (x - centre) / length
    powers = np.stack([np.ones_like(t), t, t * t], axis=1)
    columns = [powers]
    for mu in frequencies:
        phase = 2.0 * math.pi * mu * x
        columns += [powers * np.cos(phase)[:, None], powers * np.sin(phase)[:, None]]
    return np.concatenate(columns, axis=1)


def clean(x: Array, values: Array, *, tolerance: float = 1e-4, most: int = 12, noise: float = 0.0) -> Picks:
    """Pick frequencies that lines of values have in common.

    Args:
        x: Uniform grid, (N,).
        values: One column per line, (N, M).
        tolerance: Relative residual at which to stop.
        most: Largest number of picks.
        noise: Standard deviation of white noise on the values: peaks that it explains are not picked.

    Returns:
        The picks; frequencies closer than a quarter of a period over the grid count as one.
    """
    values = values.reshape(len(x), -1)
    size = float(np.linalg.norm(values))
    if size == 0.0 or len(x) < 8:
        return Picks((), 0.0, True)
    spacing = (x[-1] - x[0]) / (len(x) - 1)
    length, centre = spacing * len(x), 0.5 * (x[0] + x[-1])
    window = np.blackman(len(x))[:, None]
    # Power of white noise in a bin is chi-squared around this; 12 is beyond what thousands of bins reach by chance.
    floor = 12.0 * noise**2 * float(np.sum(window**2)) * values.shape[1]
    picked: list[float] = []
    while True:
        design = _design(x, centre, length, picked)
        rest = values - design @ np.linalg.lstsq(design, values, rcond=1e-12)[0]
        residual = float(np.linalg.norm(rest)) / size
        if residual < tolerance:
            return Picks(tuple(picked), residual, True)
        if len(picked) >= most or 6 * (len(picked) + 1) + 3 > len(x):
            return Picks(tuple(picked), residual, False)
        power = np.sum(np.abs(np.fft.rfft(rest * window, _PADDING * len(x), axis=0)) ** 2, axis=1)
        at = int(np.argmax(power))
        if noise > 0.0 and power[at] < floor:
            return Picks(tuple(picked), residual, True)
        shift = 0.0
        if 0 < at < len(power) - 1:
            a, b, c = np.log(np.maximum(power[at - 1 : at + 2], 1e-300))
            curvature = a - 2.0 * b + c
            shift = float(np.clip(0.5 * (a - c) / curvature, -0.5, 0.5)) if curvature != 0.0 else 0.0
        mu = (at + shift) / (_PADDING * len(x) * spacing)
        if any(abs(mu - other) < 0.25 / length for other in picked):
            return Picks(tuple(picked), residual, False)
        picked.append(float(mu))
