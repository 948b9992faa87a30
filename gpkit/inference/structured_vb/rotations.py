"""Changes of basis of the functions of a mode, undone in the coefficients: steps along which coordinate updates crawl.

``f = sum_i g_i prod_k z^k_(r_k(i))`` stays as it is when the components ``z = (1, u)`` of a mode become
``(1, A u + c)`` and the coefficients what undoes this. The priors of functions and coefficients do not: the bound as a
function of (A, c) has its maximum in closed form for c = 0, and in a few steps for c. Coordinate updates reach the same
point only in hundreds of sweeps, since functions and coefficients hold each other.

With J coordinates, n coefficients for each component, ``Psi = E[U^T K^-1 U]`` and Phi the second moment of the
coefficients of the mode's components, weighted by the other modes' expected precisions, the part of the bound is

    (J - n) ln|A| - tr(A Psi A^T) / 2 - c^T A E[U^T K^-1 1] - c^T c 1^T K^-1 1 / 2 - h(L^-T Phi L^-1)

where L = [[1, 0], [c, A]] and h is half the trace, or with precisions that are learned (and follow at once) the sum of
``(c0 + n / 2) ln(d0 + x / 2)`` over the diagonal.

References:
    Luttinen & Ilin (2010), Neurocomputing 73, 1093; Qi & Jaakkola (2006), NIPS 19 (parameter-expanded variational
    Bayes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rotation", "SpreadOfFunctions", "best_rotation"]

Array = NDArray[np.float64]
Places = NDArray[np.int64]
_SHIFTS = 6
_SINGULAR = 1e-9


@dataclass(frozen=True, eq=False)
class SpreadOfFunctions:
    """What the prior of a mode's functions sees of their posterior.

    Attributes:
        degrees: J, or the rank of the prior covariance.
        square: E[U^T K^-1 U], (R, R).
        sum: E[U^T K^-1 1], (R,).
        constant: 1^T K^-1 1; infinite where a constant cannot be added.
    """

    degrees: int
    square: Array
    sum: Array
    constant: float


@dataclass(frozen=True, eq=False)
class Rotation:
    """``u -> A u + c``.

    Attributes:
        inverse: A^-1, (R, R).
        shift: c, (R,).
        log_determinant: ln|A|.
    """

    inverse: Array
    shift: Array
    log_determinant: float

    def of_coefficients(self, free: Places, constant: Places) -> Array:
        """L^-T, which multiplies the coefficients of all components: the functions and the constant one, if any."""
        out = np.eye(len(free) + len(constant))
        out[free[:, None], free] = self.inverse.T
        if len(constant):
            out[constant[0], free] = -self.inverse @ self.shift
        return out


def best_rotation(
    spread: SpreadOfFunctions,
    second: Array,
    count: int,
    free: Places,
    constant: Places,
    ard: tuple[float, float] | None,
) -> Rotation | None:
    """The change of basis that raises the bound, or None where there is nothing to gain.

    Args:
        spread: of the functions.
        second: Phi, (components, components).
        count: n.
        free: components that are functions.
        constant: the constant component, if there is one.
        ard: c0 and d0 of the precisions; None where they are one.
    """
    values, vectors = np.linalg.eigh(spread.square)
    if not np.isfinite(values).all() or values[0] <= _SINGULAR * values[-1]:
        return None
    root = vectors * np.sqrt(values)
    size, directions = np.linalg.eigh(root.T @ second[free[:, None], free] @ root)
    size = np.maximum(size, 0.0)
    if ard is None:  # S = Psi^1/2 A^T A Psi^1/2 solves S^2 - (J - n) S = Psi^1/2 Phi Psi^1/2
        half = 0.5 * (spread.degrees - count)
        scale = half + np.sqrt(half**2 + size)
        if scale.min() <= _SINGULAR * scale.max():
            return None
    else:
        scale = np.full(len(free), float(spread.degrees))
    turned = directions.T / np.sqrt(values)
    inverse = (root @ directions) / np.sqrt(scale)
    squares = size / scale  # of the new coefficients, whose second moment is diagonal
    shift, gain = np.zeros(len(free)), 0.0
    if len(constant):
        cross, own = inverse.T @ second[free, constant[0]], float(second[constant[0], constant[0]])
        slope = np.sqrt(scale) * (turned @ (vectors.T @ spread.sum))
        shift = _best_shift(spread.constant, slope, squares, cross, own, count, ard)
        after = max(own - 2.0 * float(shift @ cross) + float((shift**2 * squares).sum()), 0.0)
        gain = -float(shift @ slope) - 0.5 * (spread.constant * float(shift @ shift) if shift.any() else 0.0)
        gain -= _penalty(np.array([after]), count, ard) - _penalty(np.array([own]), count, ard)
    log_determinant = 0.5 * float(np.log(scale).sum() - np.log(values).sum())
    gain += (spread.degrees - count) * log_determinant - 0.5 * float(scale.sum() - values.sum())
    gain -= _penalty(squares, count, ard) - _penalty(np.diag(second)[free], count, ard)
    return Rotation(inverse, shift, log_determinant) if gain > 0.0 else None


def _best_shift(
    constant: float, slope: Array, squares: Array, cross: Array, own: float, count: int, ard: tuple[float, float] | None
) -> Array:
    """c for given A: each step is the maximum of a quadratic bound from below."""
    shift = np.zeros(len(slope))
    if not np.isfinite(constant):
        return shift
    weight = 1.0
    for _ in range(_SHIFTS if ard is not None else 1):
        if ard is not None:
            square = max(own - 2.0 * float(shift @ cross) + float((shift**2 * squares).sum()), 0.0)
            weight = (ard[0] + 0.5 * count) / (ard[1] + 0.5 * square)
        shift = (weight * cross - slope) / (weight * squares + constant)
    return shift


def _penalty(squares: Array, count: int, ard: tuple[float, float] | None) -> float:
    """h of diagonal entries."""
    if ard is None:
        return 0.5 * float(squares.sum())
    return (ard[0] + 0.5 * count) * float(np.log(ard[1] + 0.5 * np.maximum(squares, 0.0)).sum())
