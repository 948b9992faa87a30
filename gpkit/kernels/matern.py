"""Matern kernels of half-integer smoothness and the damped random walk, exact in state-space form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpytorch.constraints import Interval
from gpytorch.priors import Prior
from torch import Tensor

from gpkit.kernels.base import StateSpaceKernel
from gpkit.operators.covariances import Structure

__all__ = ["DRWKernel", "MaternKernel"]

_FACTORS = {0.5: "exponential", 1.5: "matern32", 2.5: "matern52"}


class DRWKernel(StateSpaceKernel):
    """Damped random walk (Ornstein-Uhlenbeck) ``exp(-|tau| / timescale)``, unit variance.

    Args:
        timescale: decorrelation time, in units of the input.
        timescale_prior: prior on it.
        timescale_constraint: default positive.

    References:
        Kelly, Bechtold & Siemiginowska (2009), ApJ 698, 895.
    """

    structure = (("exponential",),)
    isotropic = True

    def __init__(
        self,
        timescale: Any = 1.0,
        timescale_prior: Prior | None = None,
        timescale_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.add_parameter("timescale", timescale, timescale_constraint, timescale_prior)

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        return [1.0, 1.0 / values["timescale"]]

    def timescales(self) -> dict[str, Any]:
        """``decorrelation`` time and ``break`` (1 over the angular break frequency), which agree for this kernel."""
        return {"decorrelation": self.timescale, "break": self.timescale}


class MaternKernel(StateSpaceKernel):
    """Matern kernel with smoothness 1/2, 3/2 or 5/2, unit variance.

    With ``x = sqrt(2 nu) |tau| / lengthscale``: ``exp(-x)``, ``(1 + x) exp(-x)``, ``(1 + x + x^2/3) exp(-x)``.

    Args:
        nu: smoothness.
        lengthscale: in units of the input.
        lengthscale_prior: prior on it.
        lengthscale_constraint: default positive.

    Raises:
        ValueError: for another smoothness.
    """

    isotropic = True

    def __init__(
        self,
        nu: float = 1.5,
        lengthscale: Any = 1.0,
        lengthscale_prior: Prior | None = None,
        lengthscale_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        if nu not in _FACTORS:
            raise ValueError(f"nu must be 0.5, 1.5 or 2.5 for an exact state space, got {nu}")
        super().__init__(**kwargs)
        self.nu = float(nu)
        self.add_parameter("lengthscale", lengthscale, lengthscale_constraint, lengthscale_prior)

    @property
    def lengthscale(self) -> Tensor:
        """Lengthscale, of the batch shape (hides the property of that name of GPyTorch's base class)."""
        return self._natural("lengthscale")

    @property
    def structure(self) -> Structure:  # type: ignore[override]  # of a parameter, where others have a constant
        """Sum of products of factor names."""
        return ((_FACTORS[self.nu],),)

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        return [1.0, math.sqrt(2.0 * self.nu) / values["lengthscale"]]

    def timescales(self) -> dict[str, Any]:
        """``lengthscale``, ``integral`` of the autocorrelation, and ``break`` (half-power point of the PSD)."""
        rate = math.sqrt(2.0 * self.nu) / self.lengthscale
        integral = {0.5: 1.0, 1.5: 2.0, 2.5: 8.0 / 3.0}[self.nu] / rate
        half_power = math.sqrt(2.0 ** (1.0 / (self.nu + 0.5)) - 1.0) * rate
        return {"lengthscale": self.lengthscale, "integral": integral, "break": 1.0 / half_power}
