"""Fractional powers as sums of poles."""

from __future__ import annotations

import numpy as np
from scipy.optimize import lsq_linear

from gpkit.errors import InvalidDataError

__all__ = ["rational_power"]


def rational_power(exponent: float, reach: float, order: int) -> tuple[list[tuple[float, float]], float]:
    r"""Weights and poles with :math:`x^{-s}\approx\sum_i r_i/(x+p_i)+r_0` on [1, reach], all of them not negative.

    Poles follow the trapezoidal rule of :math:`x^{-s}\propto\int e^{(1-s)t}/(e^t+x)\,dt`, spread over the range;
    weights minimise the relative error at many places, by non-negative least squares.

    Args:
        exponent: s in (0, 1).
        reach: end of the range.
        order: number of poles.

    Returns:
        Pairs (weight, pole), the pole infinite for the constant r_0; and the largest relative error.

    Raises:
        InvalidDataError: the exponent or the order is out of range.

    References:
        Bonito & Pasciak (2015), Math. Comp. 84, 2083.
    """
    if not 0.0 < exponent < 1.0 or order < 1 or not reach > 1.0:
        raise InvalidDataError(f"a fractional power needs 0 < s < 1, order >= 1 and reach > 1, got {exponent}, {order}")
    x = np.exp(np.linspace(0.0, np.log(reach), 600))
    target = x**-exponent
    best: tuple[float, list[tuple[float, float]]] = (np.inf, [])
    # Poles evenly spaced in log; their ends are chosen by the error that they leave.
    for low in np.linspace(-2.5, 0.5, 7):
        for high in np.linspace(0.5, 1.1, 7):
            poles = np.exp(np.linspace(low, high * np.log(reach), order)) if order > 1 else np.exp([low])
            columns = np.concatenate([1.0 / (x[:, None] + poles), np.ones((len(x), 1))], 1) / target[:, None]
            weights = lsq_linear(columns, np.ones(len(x)), (0.0, np.inf), method="bvls").x
            error = float(np.abs(columns @ weights - 1.0).max())
            if error < best[0]:
                names = [*poles.tolist(), np.inf]
                best = (error, [(float(w), float(p)) for w, p in zip(weights, names, strict=True) if w > 0.0])
    return best[1], best[0]
