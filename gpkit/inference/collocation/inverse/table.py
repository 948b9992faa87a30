"""Densities of one or two unknowns as polynomials around their mode, for samplers.

Predictions of observations are smooth in the unknowns: a few dozen values at Chebyshev points give them everywhere
within some standard deviations of the mode, to a ten thousandth of the observations' noise. Whether they do is seen
from the last coefficients and from points in between; outside, and where they do not, the density itself is asked.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.inverse.engine import InverseDensity

__all__ = ["Table"]

_ALLOWED = 1e-4  # of a misfit, in standard deviations of the noise, and of the log prior
_TAIL = 0.1 * _ALLOWED  # of the last coefficients
_RADII = (6.0, 4.0, 2.5)  # standard deviations of the normal approximation
_FIRST = 10  # points along an axis
_MOST = {1: 150, 2: 900}  # points together; of more unknowns the sampler asks for fewer itself
_CHECKED = 8  # points in between


class Table:
    """Misfits in units of noise and minus the log prior, polynomials on a box of whitened coordinates.

    Args:
        lower: Corner of the box, (D,).
        upper: The opposite one, (D,).
        coefficients: Of products of Chebyshev polynomials, (n_1, ..., n_D, n + 1); the prior is last.
        evaluations: Of the density that it took.
    """

    def __init__(self, lower: Array, upper: Array, coefficients: Array, evaluations: int) -> None:
        self.lower, self.upper, self.evaluations = lower, upper, evaluations
        self._coefficients = coefficients

    @classmethod
    def around(cls, density: InverseDensity, centre: Array, factor: Array) -> Table | None:
        """The widest cube around the mode that is exact enough, or None.

        Args:
            density: What is tabulated.
            centre: Its mode, (D,).
            factor: Of the covariance of its normal approximation, (D, D).
        """
        for radius in _RADII:
            corner = np.full(len(centre), radius)
            found = cls.on(density, centre, factor, -corner, corner, share=0.5)
            if found is not None:
                return found
        return None

    @classmethod
    def on(
        cls, density: InverseDensity, centre: Array, factor: Array, lower: Array, upper: Array, share: float = 1.0
    ) -> Table | None:
        """On a box of whitened coordinates, or None where it would not be exact enough.

        Args:
            density: What is tabulated.
            centre: Its mode, (D,).
            factor: Of the covariance of its normal approximation, (D, D).
            lower: Corner of the box, (D,).
            upper: The opposite one, (D,).
            share: Of the points that may be used.
        """
        if len(centre) not in _MOST:
            return None
        try:
            return cls._fitted(density, centre, factor, lower, upper, int(share * _MOST[len(centre)]))
        except (ConvergenceError, InvalidDataError):
            return None  # there are no fields at some of the points

    @classmethod
    def _fitted(
        cls, density: InverseDensity, centre: Array, factor: Array, lower: Array, upper: Array, most: int
    ) -> Table | None:
        sizes, used = [_FIRST] * len(centre), 0
        middle, half = 0.5 * (lower + upper), 0.5 * (upper - lower)
        while int(np.prod(sizes)) <= most:
            nodes = [np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in sizes]
            values = np.array(
                [density.misfits(centre + factor @ (middle + half * u)) for u in itertools.product(*nodes)]
            )
            used += len(values)
            if not np.isfinite(values).all():
                return None
            coefficients = values.reshape(*sizes, -1)
            for j, x in enumerate(nodes):
                analysis = np.polynomial.chebyshev.chebvander(x, len(x) - 1).T * (2.0 / len(x))
                analysis[0] *= 0.5
                coefficients = np.moveaxis(np.tensordot(analysis, coefficients, (1, j)), 0, j)
            wanted = [_wanted(np.moveaxis(coefficients, j, 0)) for j in range(len(sizes))]
            if wanted == sizes:
                table = cls(lower, upper, coefficients, used + _CHECKED)
                return table if table._is_right(density, centre, factor) else None
            sizes = wanted
        return None

    def _is_right(self, density: InverseDensity, centre: Array, factor: Array) -> bool:
        for u in np.random.default_rng(0).uniform(self.lower, self.upper, size=(_CHECKED, len(centre))):
            if not np.abs(self._values(u)[0] - density.misfits(centre + factor @ u)).max() <= _ALLOWED:
                return False
        return True

    def _values(self, u: Array) -> tuple[Array, list[Array]]:
        """Misfits and prior at a point of the box, and their derivatives."""
        polynomials, slopes = [], []
        half = 0.5 * (self.upper - self.lower)
        scaled = np.clip((u - self.lower) / half - 1.0, -1.0, 1.0)
        for n, x, unit in zip(self._coefficients.shape, scaled, half, strict=False):
            angle, k = np.arccos(x), np.arange(n)
            sine = np.sin(angle)
            polynomials.append(np.cos(k * angle))
            slopes.append((k * np.sin(k * angle) / sine if sine > 1e-6 else x ** (k + 1) * k**2) / unit)
        derivatives = []
        for j in range(-1, len(u)):
            found = self._coefficients
            for axis, own in enumerate(polynomials):
                found = np.tensordot(slopes[axis] if axis == j else own, found, (0, 0))
            derivatives.append(found)
        return derivatives[0], derivatives[1:]

    def __call__(self, u: Array) -> tuple[float, Array] | None:
        """Minus the log density and its gradient at whitened coordinates (D,); None outside of the box."""
        if not ((u >= self.lower) & (u <= self.upper)).all():
            return None
        values, slopes = self._values(u)
        misfit = values[:-1]
        return (
            0.5 * float(misfit @ misfit) + float(values[-1]),
            np.array([float(misfit @ s[:-1] + s[-1]) for s in slopes]),
        )


def _wanted(coefficients: Array) -> int:
    """Points along the first axis from which on coefficients are small, if they fall as they did; as it is if they are.

    Args:
        coefficients: (n, ...).
    """
    n, largest = len(coefficients), float(np.abs(coefficients).max())
    tail = float(np.abs(coefficients[-2:]).max())
    if tail <= _TAIL:
        return n
    rate = math.log(min(tail / largest, 0.9)) / (n - 2)
    return max(n + 2, 2 + math.ceil(math.log(_TAIL / largest) / rate))
