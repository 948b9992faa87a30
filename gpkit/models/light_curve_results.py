"""Kernels of light curves by name, and what fits of them return."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.kernels import DRWKernel, MaternKernel, ScaleKernel, SHOKernel, StateSpaceKernel, as_state_space
from gpkit.models.parameters import has_amplitude
from gpkit.operators.covariances import GIVEN

__all__ = ["KERNELS", "FitResult", "LeaveOneOut", "light_curve_kernel"]

Array = NDArray[np.float64]

KERNELS = {
    "sho": (
        "SHO",
        "Damped harmonic oscillator (SHO)",
        "k(τ) = σ² exp(−ω₀τ/2Q) [cos(rω₀τ) + sin(rω₀τ)/(2Qr)],  r² = 1 − 1/(4Q²)",
    ),
    "drw": ("DRW", "Damped random walk (DRW)", "k(τ) = σ² exp(−τ/τ_d)"),
    "matern32": ("Matérn-3/2", "Matérn-3/2", "k(τ) = σ² (1 + x) exp(−x),  x = √3 τ/ρ"),
    "matern52": ("Matérn-5/2", "Matérn-5/2", "k(τ) = σ² (1 + x + x²/3) exp(−x),  x = √5 τ/ρ"),
}
"""Kernels by name: label, title, formula."""


def light_curve_kernel(kernel: Any) -> tuple[str, StateSpaceKernel]:
    """A kernel with an amplitude, and its short name, from a name of :data:`KERNELS` or from a kernel (copied).

    Raises:
        InvalidDataError: There is none of this name; the kernel has no state space, has batch dimensions, or cannot
            be compiled.
    """
    if isinstance(kernel, str):
        makers: dict[str, Callable[[], StateSpaceKernel]] = {
            "sho": SHOKernel,
            "drw": DRWKernel,
            "matern32": lambda: MaternKernel(1.5),
            "matern52": lambda: MaternKernel(2.5),
        }
        if kernel not in makers:
            raise InvalidDataError(
                f"unknown kernel {kernel!r}; choose one of {', '.join(KERNELS)} or pass a kernel object"
            )
        name, base = kernel, makers[kernel]()
    else:
        converted = as_state_space(kernel)
        if converted is None:
            raise InvalidDataError(f"{type(kernel).__name__} has no state space; gpkit.models.ExactGP takes any kernel")
        base = copy.deepcopy(converted)
        name = type(base).__name__.removesuffix("Kernel").lower()
    if base.batch_shape.numel() != 1 or len(base.batch_shape):
        raise InvalidDataError("a light-curve kernel must not have batch dimensions")
    if base.structure == GIVEN:
        raise InvalidDataError(
            f"{type(kernel).__name__} is known by its state space only, which light-curve "
            "models cannot compile: give it a structure, or use gpkit.models.ExactGP"
        )
    return name, base if has_amplitude(base) else ScaleKernel(base)


@dataclass(frozen=True, eq=False)
class FitResult:
    """Outcome of a fit.

    Attributes:
        parameters: best values, natural units.
        log_likelihood: of the values as measured (a transform's Jacobian included).
        n_parameters: number of free parameters.
        n: number of fitted points.
        converged: whether the best start ended at a maximum.
        at_bound: parameters whose best value is a bound: the data give a limit only.
        agreeing: starts (out of ``starts``) that reached the same maximum.
        starts: number of starts.
        trace: objective after each iteration of the best start.
        method: "ml" (maximum likelihood) or "map" (maximum a posteriori).
        seconds: wall time.
    """

    parameters: dict[str, float]
    log_likelihood: float
    n_parameters: int
    n: int
    converged: bool
    at_bound: tuple[str, ...]
    agreeing: int
    starts: int
    trace: Array
    method: str
    seconds: float

    @property
    def aicc(self) -> float:
        """Akaike's criterion with the small-sample correction; NaN for n <= k + 1."""
        k, n = self.n_parameters, self.n
        return math.nan if n <= k + 1 else 2.0 * k - 2.0 * self.log_likelihood + 2.0 * k * (k + 1) / (n - k - 1)

    @property
    def bic(self) -> float:
        """Schwarz's criterion."""
        return self.n_parameters * math.log(self.n) - 2.0 * self.log_likelihood

    def __repr__(self) -> str:
        values = ", ".join(f"{k}={v:.4g}" for k, v in self.parameters.items())
        state = "converged" if self.converged else "NOT CONVERGED"
        return f"FitResult({self.method}, {state}, ln L = {self.log_likelihood:.2f}, AICc = {self.aicc:.2f}; {values})"


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """Exact leave-one-out predictions, each (N,), or (S, N) of S sets of parameters.

    Attributes:
        mean, variance: of the observation given all others, on the scale of the model.
        log_density: of the values as measured (Jacobian included).
        pit: predictive distribution function at the observation.
    """

    mean: Array
    variance: Array
    log_density: Array
    pit: Array
