r"""Periodograms of unevenly sampled series, and the conventions in which power spectra are written.

Everything here is **one-sided in frequency f and normalised to the variance**: the integral of P over f > 0 is the
variance, and P has the unit value^2 / frequency. The celerite convention is two-sided in the angular frequency,
``S(w) = (2 pi)^(-1/2) * integral k(t) exp(-i w t) dt``, so that ``P(f) = 2 sqrt(2 pi) S(2 pi f)``.

References:
    Zechmeister, M. and Kuerster, M., Astronomy and Astrophysics 496, 577 (2009), the periodogram with a floating mean.
    Vaughan, S. et al., Monthly Notices of the Royal Astronomical Society 345, 1271 (2003), noise level, normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpkit.diagnostics.arrays import FloatArray, IntArray, as_vector, same_length
from gpkit.errors import InvalidDataError

ComplexArray = npt.NDArray[np.complex128]

WORK = 200_000_000
"""Points times frequencies above which `frequency_grid` turns from a uniform to a logarithmic grid."""
N_LOGARITHMIC = 400
"""Most frequencies of that grid."""


@dataclass(frozen=True)
class Periodogram:
    """A periodogram, one-sided in f and normalised to the variance.

    Attributes:
        frequency: Frequencies, ``f``, increasing.
        power: P(f), ``f``, in value^2 per frequency.
    """

    frequency: FloatArray
    power: FloatArray


@dataclass(frozen=True)
class BinnedPeriodogram:
    """Means of a periodogram in logarithmic bins.

    Attributes:
        frequency: Geometric mean of the frequencies in each bin, ``b``.
        power: Mean power in each bin, ``b``.
        error: Standard error of that mean for a noise process, ``power / sqrt(count)``, ``b``.
        count: Number of frequencies in each bin, ``b``.
    """

    frequency: FloatArray
    power: FloatArray
    error: FloatArray
    count: IntArray


def power_from_celerite(spectrum: npt.ArrayLike) -> FloatArray:
    """P(f) from S(2 pi f): celerite's two-sided density in angular frequency to one-sided in f."""
    return 2 * np.sqrt(2 * np.pi) * np.asarray(spectrum, dtype=np.float64)


def celerite_from_power(power: npt.ArrayLike) -> FloatArray:
    """S(2 pi f) from P(f): the other way."""
    return np.asarray(power, dtype=np.float64) / (2 * np.sqrt(2 * np.pi))


def noise_floor(error: npt.ArrayLike, span: float) -> float:
    """Expected power of white measurement noise, ``2 <error^2> T / N``.

    Args:
        error: Standard deviations of the measurements, ``n``; entries that are not finite are left out.
        span: Time from the first to the last point, T.
    """
    sigma = as_vector(error, "error")
    sigma = sigma[np.isfinite(sigma)]
    return float(2 * np.mean(sigma**2) * span / len(sigma)) if len(sigma) else float("nan")


def frequency_limits(time: npt.ArrayLike) -> tuple[float, float]:
    """Lowest and highest frequency that a series can tell about: 1 / T and 1 / (2 median dt), repeated times left out.

    Raises:
        InvalidDataError: If there are not at least two different times.
    """
    t = np.unique(as_vector(time, "time"))
    if len(t) < 2:
        raise InvalidDataError("a spectrum needs at least two different times")
    low = 1.0 / float(t[-1] - t[0])
    return low, max(low, 1.0 / (2.0 * float(np.median(np.diff(t)))))


def frequency_grid(time: npt.ArrayLike) -> FloatArray:
    """Frequencies k / T up to 1 / (2 median dt); logarithmic where that would be too much work for the points."""
    t = as_vector(time, "time")
    low, high = frequency_limits(t)
    count = int(np.floor(high / low * (1 + 1e-12)))
    if count * len(t) > WORK:
        return np.geomspace(low, high, int(np.clip(WORK // len(t), N_LOGARITHMIC // 4, N_LOGARITHMIC)))
    return low * np.arange(1, count + 1, dtype=np.float64)


def periodogram(time: npt.ArrayLike, value: npt.ArrayLike, frequency: npt.ArrayLike | None = None) -> Periodogram:
    """Lomb-Scargle periodogram with a floating mean, of points of equal weight.

    The power is the reduction of the mean squared residual by a sinusoid, times T: one-sided and normalised to the
    variance, with the expectation `noise_floor` for white noise. It is biased by the window: steep spectra leak.

    Args:
        time: Times, ``n``, in any order.
        value: Values, ``n``.
        frequency: Frequencies, ``f``; None: `frequency_grid`. On multiples of the first one the sinusoids come from a
            recurrence, which is some twenty times faster.

    Raises:
        InvalidDataError: If lengths differ, there are fewer than four points, or a number is not finite.
    """
    t, y = as_vector(time, "time"), as_vector(value, "value")
    n = same_length(time=t, value=y)
    if n < 4:
        raise InvalidDataError(f"a periodogram needs at least four points, not {n}")
    if not (np.isfinite(t).all() and np.isfinite(y).all()):
        raise InvalidDataError("a periodogram needs finite times and values")
    f = frequency_grid(t) if frequency is None else as_vector(frequency, "frequency")
    return Periodogram(f, _power(t, y[:, None], f)[:, 0])


def expected_periodogram(time: npt.ArrayLike, simulations: npt.ArrayLike) -> Periodogram:
    """What the periodogram of a model is expected to be at these times: the mean over simulated series.

    It contains the leakage and aliasing of the sampling, so that the periodogram of the data can be compared with it.

    Args:
        time: Times, ``n``.
        simulations: Series simulated from the model at these times, with noise, ``s n``.

    Returns:
        The mean at some of the frequencies of `frequency_grid`, at most `N_LOGARITHMIC`.

    Raises:
        InvalidDataError: If the simulations do not have one value per time.
    """
    t, y = as_vector(time, "time"), np.asarray(simulations, dtype=np.float64)
    if y.ndim != 2 or y.shape[1] != len(t) or len(y) == 0:
        raise InvalidDataError(f"simulations must have shape (s, {len(t)}), not {y.shape}")
    f = frequency_grid(t)
    if len(f) > N_LOGARITHMIC:
        f = f[np.unique(np.geomspace(1, len(f), N_LOGARITHMIC).astype(np.int64)) - 1]
    return Periodogram(f, np.asarray(_power(t, y.T, f).mean(axis=1)))


def _power(t: FloatArray, y: FloatArray, f: FloatArray) -> FloatArray:
    """Power of the columns of `y`, ``f s``."""
    n = len(t)
    span = float(np.ptp(t))
    t, y = t - t.min(), y - y.mean(axis=0)
    uniform = len(f) > 1 and np.allclose(f, f[0] * np.arange(1, len(f) + 1), rtol=1e-9, atol=0)
    step = np.exp(2j * np.pi * f[0] * t) if uniform else np.empty(0)
    wave = np.ones(n, dtype=np.complex128)
    parts = np.empty((2, n))  # real and imaginary part in rows, so that the products with many columns are fast
    z, zz = np.empty((2, len(f), 1), dtype=np.complex128)
    yz = np.empty((len(f), y.shape[1]), dtype=np.complex128)
    for k, frequency_k in enumerate(f):
        wave = wave * step if uniform else np.exp(2j * np.pi * frequency_k * t)
        parts[0], parts[1] = wave.real, wave.imag
        z[k], zz[k] = wave.sum(), wave @ wave
        real, imaginary = parts @ y
        yz[k] = real + 1j * imaginary
    return span * _explained(z / n, yz / n, zz / n)


def _explained(z: ComplexArray, yz: ComplexArray, zz: ComplexArray) -> FloatArray:
    """Reduction of the mean square by cosine, sine and constant, from the means of z, y z and z^2."""
    cc = 0.5 * (1 + zz.real) - z.real**2
    ss = 0.5 * (1 - zz.real) - z.imag**2
    cs = 0.5 * zz.imag - z.real * z.imag
    determinant = cc * ss - cs**2
    trace = cc + ss
    # At the Nyquist frequency of an even grid the sine vanishes: the matrix has rank one and its only direction counts.
    full_rank = determinant > 1e-10 * trace**2
    with np.errstate(divide="ignore", invalid="ignore"):  # of each place only one of both is taken
        two = (ss * yz.real**2 + cc * yz.imag**2 - 2 * cs * yz.real * yz.imag) / determinant
        one = np.where(trace > 1e-10, (yz.real**2 + yz.imag**2) / trace, 0.0)
    return np.asarray(np.where(full_rank, two, one), dtype=np.float64)


def bin_periodogram(spectrum: Periodogram, per_decade: int = 10, smallest: int = 1) -> BinnedPeriodogram:
    """Average a periodogram in logarithmic bins.

    Args:
        spectrum: The periodogram.
        per_decade: Bins per factor of ten in frequency.
        smallest: Bins with fewer frequencies are left out.
    """
    f, p = spectrum.frequency, spectrum.power
    index = np.floor(per_decade * np.log10(f / f[0]) + 1e-9).astype(np.int64)
    count = np.bincount(index)
    keep = count >= max(1, smallest)
    with np.errstate(divide="ignore", invalid="ignore"):  # empty bins are not kept
        centre = np.exp(np.bincount(index, np.log(f)) / count)[keep]
        power = (np.bincount(index, p) / count)[keep]
    return BinnedPeriodogram(centre, power, power / np.sqrt(count[keep]), count[keep].astype(np.int64))
