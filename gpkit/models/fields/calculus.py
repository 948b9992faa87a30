"""Derivatives of fields: values at nodes with their uncertainty, and the operators of gradient, divergence and curl.

All are linear in the field, so that posterior means and standard deviations follow exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold
from gpkit.models.fields.local_slopes import LocalSlopes

__all__ = ["FieldFunctional", "curl_operator", "divergence_operator", "gradient_operator"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FieldFunctional:
    """A derived quantity at nodes.

    Attributes:
        mean: Posterior mean, (n,).
        standard_deviation: Posterior standard deviation, (n,).
        operator: Sparse (n, N) operator from the field's values at all nodes.
        name: What it is, in a word.
        unit: Of mean and standard deviation, where the units of the model are known.
        degree: Of the local polynomials whose slopes derivatives are, (n,); None for sums of values.
    """

    mean: Array
    standard_deviation: Array
    operator: Any
    name: str = "functional"
    unit: str = ""
    degree: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        if not len(self.mean):
            return f"FieldFunctional({self.name}, no values)"
        unit = f" {self.unit}" if self.unit else ""
        lower = "" if self.degree is None else _lower_degrees(self.degree)
        return (
            f"FieldFunctional({self.name}, {len(self.mean)} values, mean {self.mean.min():.4g} to "
            f"{self.mean.max():.4g}{unit}, median sd {np.median(self.standard_deviation):.2g}{unit}{lower})"
        )

    def interval(self, probability: float = 0.95) -> tuple[Array, Array]:
        """Central interval (low, high), each (n,).

        Raises:
            InvalidDataError: unless 0 < probability < 1.
        """
        if not 0.0 < probability < 1.0:
            raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
        from scipy.special import ndtri

        half = ndtri(0.5 + 0.5 * probability) * self.standard_deviation
        return self.mean - half, self.mean + half


def _lower_degrees(degree: NDArray[np.int64]) -> str:
    """Of how many nodes the derivatives have fewer orders than those of the others, in words."""
    lower = int((degree < degree.max()).sum())
    return f", {lower} by polynomials below degree {degree.max()}" if lower else ""


def gradient_operator(manifold: Manifold) -> Any:
    """Sparse (n d, n): tangent coordinates of the gradient of a function given at all nodes."""
    return LocalSlopes.of(manifold).gradient()


def divergence_operator(manifold: Manifold) -> Any:
    """Sparse (n, n d): divergence of a field of tangent coordinates given at all nodes."""
    return LocalSlopes.of(manifold).divergence()


def curl_operator(manifold: Manifold) -> Any:
    """Sparse (n, 2 n): curl of a field of tangent coordinates on an oriented surface.

    Raises:
        InvalidDataError: not a surface, or one without orientation.
    """
    return LocalSlopes.of(manifold).curl()
