"""Predictions: means, variances, intervals and draws of a function at new times, posterior uncertainty included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from gpkit.errors import InvalidDataError

__all__ = ["Prediction"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictive distribution at M times: an equal mixture of S normal distributions per time (S = 1 for a point fit).

    With ``transform="log"`` the normals are those of ln(value); everything reported is on the scale of the values.

    Attributes:
        time: (M,).
        component_means: (S, M), on the scale of the model.
        component_variances: (S, M), on the scale of the model.
        transform: "log" or None.
    """

    time: Array
    component_means: Array
    component_variances: Array
    transform: str | None = None
    _draw: Callable[[int, int], Array] | None = field(default=None, repr=False)

    @property
    def mean(self) -> Array:
        """Mean (M,) on the scale of the values."""
        if self.transform == "log":
            return np.exp(self.component_means + 0.5 * self.component_variances).mean(0)
        return self.component_means.mean(0)

    @property
    def variance(self) -> Array:
        """Variance (M,) on the scale of the values."""
        m, v = self.component_means, self.component_variances
        if self.transform == "log":
            second = np.exp(2.0 * m + 2.0 * v).mean(0)
        else:
            second = (v + m**2).mean(0)
            return np.maximum(v.mean(0) + m.var(0), 0.0)
        return np.maximum(second - self.mean**2, 0.0)

    @property
    def median(self) -> Array:
        """Median (M,)."""
        return self.quantile(0.5)

    def quantile(self, probability: float) -> Array:
        """Quantile (M,) of the mixture, exact for one component, else by bisection to 1e-9 of its width.

        Raises:
            InvalidDataError: unless 0 < probability < 1.
        """
        if not 0.0 < probability < 1.0:
            raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
        sd = np.sqrt(self.component_variances)
        each = self.component_means + special.ndtri(probability) * sd
        if len(each) == 1:
            out = each[0]
        else:
            low, high = each.min(0), each.max(0)
            safe = np.where(sd > 0.0, sd, 1e-300)
            for _ in range(60):
                middle = 0.5 * (low + high)
                below = special.ndtr((middle - self.component_means) / safe).mean(0) < probability
                low, high = np.where(below, middle, low), np.where(below, high, middle)
                if np.all(high - low <= 1e-9 * (np.abs(high) + sd.mean(0))):
                    break
            out = 0.5 * (low + high)
        return np.exp(out) if self.transform == "log" else out

    def interval(self, probability: float = 0.95) -> tuple[Array, Array]:
        """Central interval (low, high), each (M,)."""
        tail = 0.5 * (1.0 - probability)
        return self.quantile(tail), self.quantile(1.0 - tail)

    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Joint draws (n, M) of the function, on the scale of the values."""
        if self._draw is None:
            raise InvalidDataError("this prediction has no joint distribution to draw from")
        draws = self._draw(n, seed)
        return np.exp(draws) if self.transform == "log" else draws

    def __repr__(self) -> str:
        kind = "posterior mixture" if len(self.component_means) > 1 else "point fit"
        return f"Prediction({self.time.size} times, {kind})"

    def to_dict(self) -> dict[str, Any]:
        """Columns time, mean, sd, low (2.5 %), high (97.5 %) for tables."""
        low, high = self.interval(0.95)
        return {"time": self.time, "mean": self.mean, "sd": np.sqrt(self.variance), "low_95": low, "high_95": high}
