"""Frequencies, powers and their widths read off data, as start values."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gpkit.errors import InvalidDataError

__all__ = ["SpectralLines", "pick_lines"]

Array = NDArray[np.float64]

_PADDING = 8
_LARGEST_TRANSFORM = 2**22


class SpectralLines:
    """Lines in the spectrum of a series.

    Attributes:
        frequencies: (K,) in cycles per unit, strongest first.
        variances: (K,) of the sinusoids at these frequencies.
        remainder: variance of what is left.
        length: extent of the data.
        nyquist: largest frequency that was looked at.
    """

    def __init__(self, frequencies: Array, variances: Array, remainder: float, length: float, nyquist: float) -> None:
        self.frequencies = frequencies
        self.variances = variances
        self.remainder = remainder
        self.length = length
        self.nyquist = nyquist


def pick_lines(x: Array, y: Array, count: int, significance: float = 4.0) -> SpectralLines:
    """Take the strongest sinusoids out of the data one after the other (CLEAN with joint refits).

    The periodogram is that of the data put on a fine uniform grid, so that it costs O(n log n) for any spacing; the
    frequencies are refined by a parabola through the logarithm of the power at its peak.

    Args:
        x: (N,) positions, any order and spacing.
        y: (N,) or (N, M) values; M series share the frequencies. NaN marks missing values.
        count: largest number of lines K.
        significance: a line is taken while its power is so many times the mean power of the remainder, beyond what
            the strongest of n exponential deviates reaches by chance.

    Returns:
        The lines.

    Raises:
        InvalidDataError: for fewer than four points, or positions that are all equal.

    References:
        Roberts, Lehar & Dreher (1987), AJ 93, 968 (CLEAN of periodograms); Scargle (1982), ApJ 263, 835.
    """
    x = np.asarray(x, dtype=np.float64).reshape(-1)
    values = np.asarray(y, dtype=np.float64).reshape(x.size, -1)
    if x.size < 4:
        raise InvalidDataError(f"a periodogram needs at least 4 points, got {x.size}")
    length = float(np.ptp(x))
    if not length > 0.0:
        raise InvalidDataError("a periodogram needs positions that differ")
    weight = np.isfinite(values)
    center = np.where(weight, values, 0.0).sum(0) / np.maximum(weight.sum(0), 1)
    values = np.where(weight, values - center, 0.0)
    gaps = np.diff(np.unique(x))
    nyquist = 0.5 / float(np.median(gaps))
    # Four cells to the smallest wave that is looked for, so that it is not confused with its neighbours.
    uniform = np.ptp(gaps) <= 1e-6 * length / x.size
    cells = x.size if uniform else int(min(math.ceil(8.0 * nyquist * length) + 1, _LARGEST_TRANSFORM // _PADDING))
    step = length / max(cells - 1, 1)
    place = np.rint((x - x.min()) / step).astype(np.int64)
    size = fft.next_fast_len(_PADDING * cells, real=True)
    frequency = np.arange(size // 2 + 1) / (size * step)
    looked_at = (frequency > 0.75 / length) & (frequency <= nyquist * (1.0 + 1e-9))
    total = float((values**2).sum() / max(weight.sum(), 1))
    picked: list[float] = []
    residual = values
    threshold = significance + math.log(max(int(looked_at.sum()) / _PADDING, 1.0))
    while len(picked) < count and looked_at.any():
        power = _power(residual, place, cells, size)
        inside = np.where(looked_at, power, 0.0)
        peak = int(inside.argmax())
        level = float(inside[looked_at].mean())
        if not (inside[peak] > threshold * level and (residual**2).sum() > 1e-12 * (values**2).sum()):
            break
        candidate = _refined(power, peak) / (size * step)
        if picked and min(abs(candidate - f) for f in picked) < 0.25 / length:
            # What is left beside a line already taken is its width, not another line.
            near = np.abs(frequency - candidate) < 0.75 / length
            looked_at &= ~near
            continue
        picked = _polished(x, values, weight, [*picked, candidate], length)
        residual = values - _fit(x, values, weight, picked)[0]
    amplitudes = _fit(x, values, weight, picked)[1] if picked else np.zeros(0)
    order = np.argsort(-amplitudes)
    remainder = float((residual**2).sum() / max(weight.sum(), 1))
    return SpectralLines(np.array(picked)[order], amplitudes[order], min(remainder, total), length, nyquist)


def _power(values: Array, place: NDArray[np.int64], cells: int, size: int) -> Array:
    """Summed periodogram of the columns on the fine grid."""
    window = np.blackman(cells + 2)[1:-1]
    power = np.zeros(size // 2 + 1)
    for column in values.T:
        grid = np.bincount(place, weights=column, minlength=cells)
        power += np.abs(fft.rfft(window * grid, n=size)) ** 2
    return power


def _refined(power: Array, peak: int) -> float:
    """Bin of the peak, to a fraction, from a parabola through the logarithms."""
    if not 0 < peak < power.size - 1:
        return float(peak)
    a, b, c = np.log(np.maximum(power[peak - 1 : peak + 2], 1e-300))
    curvature = a - 2.0 * b + c
    return peak + (float(np.clip(0.5 * (a - c) / curvature, -0.5, 0.5)) if curvature < 0.0 else 0.0)


def _design(x: Array, frequencies: list[float]) -> Array:
    """Columns 1, cos and sin of each frequency, (N, 2 K + 1)."""
    phase = 2.0 * np.pi * np.outer(x - x.mean(), frequencies)
    return np.concatenate([np.ones((x.size, 1)), np.cos(phase), np.sin(phase)], axis=1)


def _coefficients(design: Array, values: Array, weight: NDArray[np.bool_]) -> Array:
    """Least-squares coefficients (2 K + 1, M) over the values that are there."""
    if weight.all():
        return np.asarray(np.linalg.lstsq(design, values, rcond=1e-10)[0], dtype=np.float64)
    columns = [np.linalg.lstsq(design[w], v[w], rcond=1e-10)[0] for w, v in zip(weight.T, values.T, strict=True)]
    return np.stack(columns, axis=1)


def _fit(x: Array, values: Array, weight: NDArray[np.bool_], frequencies: list[float]) -> tuple[Array, Array]:
    """Least-squares sinusoids at given frequencies: their sum (N, M) and the variance of each, averaged over series."""
    design = _design(x, frequencies)
    coefficients = _coefficients(design, values, weight)
    k = len(frequencies)
    square = coefficients[1 : k + 1] ** 2 + coefficients[k + 1 :] ** 2
    return np.where(weight, design @ coefficients, 0.0), 0.5 * square.mean(1)


def _polished(
    x: Array, values: Array, weight: NDArray[np.bool_], frequencies: list[float], length: float
) -> list[float]:
    """Gauss-Newton steps of all frequencies together, kept while the fit improves."""
    current, k = frequencies, len(frequencies)
    misfit = float(((values - _fit(x, values, weight, current)[0]) ** 2).sum())
    time = 2.0 * np.pi * (x - x.mean())
    for _ in range(3):
        design = _design(x, current)
        coefficients = _coefficients(design, values, weight)
        residual = np.where(weight, values - design @ coefficients, 0.0)
        basis = np.linalg.qr(design)[0]
        slopes = []
        for q in range(k):
            cos, sin = design[:, 1 + q, None], design[:, 1 + k + q, None]
            slope = time[:, None] * (coefficients[1 + k + q] * cos - coefficients[1 + q] * sin)
            slope = np.where(weight, slope, 0.0)
            slopes.append((slope - basis @ (basis.T @ slope)).ravel())
        step = np.linalg.lstsq(np.stack(slopes, 1), residual.ravel(), rcond=1e-8)[0]
        moved = [f + float(np.clip(s, -0.5 / length, 0.5 / length)) for f, s in zip(current, step, strict=True)]
        better = float(((values - _fit(x, values, weight, moved)[0]) ** 2).sum())
        if not better < misfit or min(moved) <= 0.25 / length:
            break
        current, misfit = moved, better
    return current
