"""Maps from the real line to the interval that a parameter may take, as expressions.

A sampler and an optimiser move in unconstrained coordinates z. Bounded below: ``x = lower + exp(z)``; bounded above:
``x = upper - exp(z)``; an interval: ``x = lower + (upper - lower) sigmoid(z)``; unbounded: ``x = z``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.expressions import Expression, ops

__all__ = ["Bijection"]


@dataclass(frozen=True)
class Bijection:
    """Increasing or decreasing map of the real line to the open interval (lower, upper).

    Attributes:
        lower: Lower end, or -inf.
        upper: Upper end, or inf.
    """

    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        """Refuse an empty interval."""
        if not self.lower < self.upper:
            raise InvalidDataError(f"the interval ({self.lower}, {self.upper}) is empty")

    @property
    def kind(self) -> str:
        """``"real"``, ``"lower"``, ``"upper"`` or ``"interval"``: which ends are finite."""
        if math.isinf(self.lower):
            return "real" if math.isinf(self.upper) else "upper"
        return "lower" if math.isinf(self.upper) else "interval"

    def forward(self, z: Expression) -> Expression:
        """The constrained value."""
        if self.kind == "real":
            return z
        if self.kind == "lower":
            return ops.exp(z) + self.lower
        if self.kind == "upper":
            return self.upper - ops.exp(z)
        return self.lower + (self.upper - self.lower) * ops.sigmoid(z)

    def log_jacobian(self, z: Expression) -> Expression:
        """``log |dx/dz|``."""
        if self.kind == "real":
            return Expression.constant(0.0)
        if self.kind in ("lower", "upper"):
            return z
        return math.log(self.upper - self.lower) - ops.softplus(z) - ops.softplus(-z)

    def inverse(self, x: Any, name: str = "a parameter") -> NDArray[np.float64]:
        """Unconstrained coordinates of values of any shape.

        Args:
            x: Values inside the open interval.
            name: What the error message calls them.

        Raises:
            InvalidDataError: where a value is outside.
        """
        value = np.asarray(x, dtype=np.float64)
        if not np.all((value > self.lower) & (value < self.upper)):
            raise InvalidDataError(f"{name} must be in ({self.lower}, {self.upper}), got {x}")
        if self.kind == "lower":
            value = np.log(value - self.lower)
        elif self.kind == "upper":
            value = np.log(self.upper - value)
        elif self.kind == "interval":
            value = np.log(value - self.lower) - np.log(self.upper - value)
        return np.asarray(value)
