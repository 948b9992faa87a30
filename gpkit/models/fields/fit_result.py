"""Outcome of the fit of a field model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.models.fields.selection import KernelComparison
from gpkit.models.fields.speed_term import speeds_among

__all__ = ["FieldFit"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FieldFit:
    """Outcome of a fit.

    Attributes:
        kernel: Name of the kernel that is used.
        parameters: Best values, natural units.
        log_likelihood: Of the tangent coordinates.
        log_evidence: Laplace's approximation of the marginal likelihood.
        n: Number of observed places.
        converged: Whether the optimiser ended at a maximum.
        at_bound: Parameters that ended at a bound.
        trace: Log posterior after each iteration.
        comparison: All kernels that were tried.
        notes: What the reader should know.
        seconds: Wall time of the chosen kernel's fit.
    """

    kernel: str
    parameters: dict[str, float]
    log_likelihood: float
    log_evidence: float
    n: int
    converged: bool
    at_bound: tuple[str, ...]
    trace: Array
    comparison: KernelComparison
    notes: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        speeds = speeds_among(self.parameters)
        values = ", ".join(f"{k}={v:.4g}" for k, v in self.parameters.items() if k not in speeds)
        if speeds:
            values += f", {len(speeds)} speeds {min(speeds.values()):.3g} to {max(speeds.values()):.3g}"
        state = "converged" if self.converged else "NOT CONVERGED"
        return f"FieldFit({self.kernel}, {state}, ln evidence = {self.log_evidence:.2f}; {values})"
