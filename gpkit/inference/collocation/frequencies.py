"""Frequencies of a function on a uniform grid, picked one after another (CLEAN) and refined together.

Each pass fits what was picked so far, with amplitudes that may vary quadratically along the axis, and looks for the
highest peak in the spectrum of what is left. A frequency that is a little off shows in its own fit: the phase of its
amplitude turns along the axis, and the rate at which it turns is the correction.

References:
    Högbom, J. A. (1974). Aperture synthesis with a non-regular distribution of interferometer baselines.
        Astronomy and Astrophysics Supplement 15, 417-426.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from gpkit.inference.collocation.bases import Array

__all__ = ["Picks", "clean"]

_PADDING = 16
_LONG = 4096  # points above which a spectrum is padded less; refinement makes up for it
_REFINEMENTS = 4


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


@dataclass(frozen=True)
class _Fit:
    """Least squares of lines on picked frequencies.

    Attributes:
        rest: What is left of the lines.
        turning: Rate at which the phase of each frequency's amplitude turns, in cycles per unit.
    """

    rest: Array
    turning: Array

    @classmethod
    def of(cls, x: Array, length: float, frequencies: Sequence[float], values: Array) -> _Fit:
        t = (x - 0.5 * (x[0] + x[-1])) / length
        powers = np.stack([np.ones_like(t), t, t * t], axis=1)
        columns = [powers]
        for mu in frequencies:
            phase = 2.0 * math.pi * mu * (x - x[0])
            columns += [powers * np.cos(phase)[:, None], powers * np.sin(phase)[:, None]]
        design = np.concatenate(columns, axis=1)
        fitted = np.asarray(linalg.lstsq(design, values, cond=1e-12, lapack_driver="gelsy", check_finite=False)[0])
        waves = fitted[3:].reshape(len(frequencies), 2, 3, values.shape[1])
        amplitude = waves[:, 0] - 1j * waves[:, 1]  # of exp(i phase): constant, linear and quadratic, per line
        size = np.sum(np.abs(amplitude[:, 0]) ** 2, axis=-1)
        turned = np.sum((amplitude[:, 0].conj() * amplitude[:, 1]).imag, axis=-1)
        return cls(values - design @ fitted, turned / np.maximum(size, 1e-300) / (2.0 * math.pi * length))


def clean(
    x: Array,
    values: Array,
    *,
    tolerance: float = 1e-4,
    most: int = 12,
    noise: float = 0.0,
    lowest: float = 0.0,
    refine: bool = False,
) -> Picks:
    """Pick frequencies that lines of values have in common.

    Args:
        x: Uniform grid, (N,).
        values: One column per line, (N, M).
        tolerance: Relative residual at which to stop.
        most: Largest number of picks.
        noise: Standard deviation of white noise on the values: peaks that it explains are not picked.
        lowest: Frequency below which the highest peak ends the search: what is left is a trend.
        refine: Whether all picks are improved together after each new one, to the accuracy of the data.

    Returns:
        The picks; frequencies closer than a quarter of a period over the grid count as one.
    """
    values = values.reshape(len(x), -1)
    size = float(np.linalg.norm(values))
    if size == 0.0 or len(x) < 8:
        return Picks((), 0.0, True)
    spacing = (x[-1] - x[0]) / (len(x) - 1)
    length = spacing * len(x)
    window = np.blackman(len(x))[:, None]
    # Power of white noise in a bin is chi-squared around this; 12 is beyond what thousands of bins reach by chance.
    floor = 12.0 * noise**2 * float(np.sum(window**2)) * values.shape[1]
    padded = (_PADDING if len(x) <= _LONG else 4) * len(x)
    picked: list[float] = []
    while True:
        fit = _Fit.of(x, length, picked, values)
        if refine and picked:
            picked, fit = _refined(x, length, picked, fit, values)
        residual = float(np.linalg.norm(fit.rest)) / size
        if residual < tolerance:
            return Picks(tuple(picked), residual, True)
        if len(picked) >= most or 6 * (len(picked) + 1) + 3 > len(x):
            return Picks(tuple(picked), residual, False)
        power = np.sum(np.abs(np.fft.rfft(fit.rest * window, padded, axis=0)) ** 2, axis=1)
        at = int(np.argmax(power))
        if noise > 0.0 and power[at] < floor:
            return Picks(tuple(picked), residual, True)
        shift = 0.0
        if 0 < at < len(power) - 1:
            a, b, c = np.log(np.maximum(power[at - 1 : at + 2], 1e-300))
            curvature = a - 2.0 * b + c
            shift = float(np.clip(0.5 * (a - c) / curvature, -0.5, 0.5)) if curvature != 0.0 else 0.0
        mu = (at + shift) / (padded * spacing)
        if mu < lowest:
            return Picks(tuple(picked), residual, True)
        if any(abs(mu - other) < 0.25 / length for other in picked):
            return Picks(tuple(picked), residual, False)
        picked.append(float(mu))


def _refined(x: Array, length: float, picked: list[float], fit: _Fit, values: Array) -> tuple[list[float], _Fit]:
    """Frequencies moved by the turning of their phases while that leaves less."""
    for _ in range(_REFINEMENTS):
        moved = np.clip(fit.turning, -0.25 / length, 0.25 / length)
        if np.abs(moved).max() < 1e-13 / length:
            break
        candidate = [max(mu + float(m), 0.0) for mu, m in zip(picked, moved, strict=True)]
        better = _Fit.of(x, length, candidate, values)
        if np.linalg.norm(better.rest) >= np.linalg.norm(fit.rest):
            break
        picked, fit = candidate, better
    return picked, fit
