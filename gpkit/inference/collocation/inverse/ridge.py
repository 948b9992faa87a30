"""Bent ridges of posterior densities, straightened for samplers.

Where data tell one combination of unknowns and hardly another, as a source's strength over a rate of decay, the density
is a long thin ridge, and over its length it bends by many times its width. No linear map makes it round: steps are as
short as it is thin, and diverge where it turns. Its crest, where the density is largest across the widest axis, is
found at a few places and taken off the other coordinates. That map is a shear, of determinant one.
"""

from __future__ import annotations

import numpy as np

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.inverse.engine import InverseDensity, Mode

__all__ = ["Ridge"]

_PLACES = (1.25, 2.5)  # standard deviations along the widest axis, on both sides
_STRAIGHT = 0.3  # standard deviations across that a crest may lie off the axis and still be taken for straight
_ROUND = 12  # coordinates above which crests are not searched
_STEPS = 12
_SMALL = 1e-3


class Ridge:
    """Crest of a density along the first of its whitened coordinates.

    Args:
        dimension: Number of coordinates, D.
        coefficients: Of the powers 2, 3, ... of the first coordinate, (K, D - 1); beyond the places where the crest was
            looked for it goes on along its tangent.
    """

    def __init__(self, dimension: int, coefficients: Array | None = None) -> None:
        self._powers = np.arange(2, 2 + (0 if coefficients is None else len(coefficients)))
        self._coefficients = np.zeros((0, dimension - 1)) if coefficients is None else coefficients

    @classmethod
    def of(cls, density: InverseDensity, mode: Mode, factor: Array) -> Ridge:
        """The crest through a mode; a straight one where it cannot be followed, or does not bend.

        Args:
            density: Of the unknowns.
            mode: Where it is largest.
            factor: Of the covariance of its normal approximation, the widest axis first, (D, D).
        """
        dimension = len(mode.z)
        if not 2 <= dimension <= _ROUND:
            return cls(dimension)
        places, crests = [], []
        try:
            for side in (1.0, -1.0):
                across = np.zeros(dimension - 1)
                for place in _PLACES:
                    across = _crest(density, mode, factor, side * place, across)
                    places.append(side * place)
                    crests.append(across)
        except (ConvergenceError, InvalidDataError):
            return cls(dimension)
        if np.abs(crests).max() < _STRAIGHT:
            return cls(dimension)
        powers = np.array(places)[:, None] ** np.arange(2, 2 + len(places))
        return cls(dimension, np.linalg.solve(powers, np.array(crests)))

    def _bend(self, first: Array) -> tuple[Array, Array]:
        """Crest (..., D - 1) at first coordinates (..., 1), and its derivative."""
        held = np.clip(first, -_PLACES[-1], _PLACES[-1])
        value = held**self._powers @ self._coefficients
        slope = (self._powers * held ** (self._powers - 1)) @ self._coefficients
        return value + slope * (first - held), slope

    def straight(self, u: Array) -> Array:
        """Whitened coordinates (..., D) at those relative to the crest."""
        return np.concatenate([u[..., :1], u[..., 1:] + self._bend(u[..., :1])[0]], axis=-1)

    def pulled(self, u: Array, gradient: Array) -> Array:
        """The gradient in the coordinates relative to the crest, from that in the whitened ones, (D,)."""
        out = gradient.copy()
        out[0] += self._bend(u[:1])[1] @ gradient[1:]
        return out


def _crest(density: InverseDensity, mode: Mode, factor: Array, first: float, across: Array) -> Array:
    """Where the density is largest at a place along the widest axis, by Gauss-Newton steps that do not climb."""
    at, damping = across, 1e-3

    def evaluated(other: Array) -> tuple[float, Array, Array]:
        value, gradient, gauss, *_ = density.evaluate(mode.z + factor @ np.concatenate([[first], other]))
        return value, (factor.T @ gradient)[1:], (factor.T @ gauss @ factor)[1:, 1:]

    value, gradient, gauss = evaluated(at)
    for _ in range(_STEPS):
        step = -np.linalg.solve(gauss + damping * np.diag(np.maximum(np.diagonal(gauss), _SMALL)), gradient)
        trial = evaluated(at + step)
        if trial[0] <= value:
            at, (value, gradient, gauss), damping = at + step, trial, 0.3 * damping
            if np.abs(step).max() < _SMALL:
                return at
        else:
            damping = max(10.0 * damping, 1e-2)
    raise ConvergenceError("the crest of the posterior density cannot be followed")
