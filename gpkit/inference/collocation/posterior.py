"""What every engine returns: a posterior over fields that can be differentiated and evaluated anywhere in the box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gpkit.inference.collocation.forms import Jet

__all__ = ["FieldDraws", "FieldPosterior", "GridVariances"]


@runtime_checkable
class FieldDraws(Protocol):
    """Joint draws of the fields: functions, not values at fixed points."""

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of n draws of a jet at points (m, d)."""
        ...


@runtime_checkable
class GridVariances(Protocol):
    """A posterior whose variance on a tensor grid uses the product structure."""

    def variance_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior variance (N_1, ..., N_d) of a jet on a tensor grid."""
        ...


@runtime_checkable
class FieldPosterior(Protocol):
    """Posterior of F fields given equations, conditions and observations.

    Attributes:
        diagnostics: Everything that the engine knows about its answer: method, effective rank, condition numbers,
            iterations, residual norms, jitter used, log evidence; JSON-compatible but for tensors.
    """

    diagnostics: dict[str, Any]

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean (m,) of a jet at points (m, d)."""
        ...

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) of a jet on a tensor grid, using the product structure where there is one."""
        ...

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance (m,) of a jet at points (m, d)."""
        ...

    def sample(self, n: int, generator: torch.Generator) -> FieldDraws:
        """N joint draws."""
        ...
