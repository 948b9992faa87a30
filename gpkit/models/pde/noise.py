"""Noise that is not stated: found before a problem is solved, which then is as if it had been stated."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.noisy.engine import solve_noisy
from gpkit.inference.collocation.noisy.levels import has_unknown_noise, with_noise
from gpkit.models.pde.solving import grid_of

if TYPE_CHECKING:
    from gpkit.models.pde.problem import PDE

__all__ = ["noise_found", "with_levels"]


def noise_found(pde: PDE, grid: Any, parameters: Mapping[str, float] | None) -> tuple[PDE, list[float]]:
    """A problem in which every noise is stated, and the levels that were found.

    They maximise the marginal likelihood together with the spectrum of the prior.

    Args:
        pde: The problem; itself if it states all its noise.
        grid: As for `PDE.solve`.
        parameters: Values of unknown numbers.

    Raises:
        InvalidDataError: Numbers or coefficients are unknown too.
    """
    problem = pde.form
    if not has_unknown_noise(problem):
        return pde, []
    if problem.free or (problem.unknowns and parameters is None):
        raise InvalidDataError("noise is found where it is all that is unknown: state it to infer numbers or fields")
    given = {name: torch.tensor(float(value), dtype=torch.float64) for name, value in (parameters or {}).items()}
    if missing := sorted(set(problem.unknowns) - set(given)):
        raise InvalidDataError(f"{', '.join(missing)} must be given in parameters for the noise to be found")
    found = solve_noisy(Layout(problem, given), grid_of(grid, problem))
    levels = [float(level) for level in found.diagnostics["noise_levels"]]
    return with_levels(pde, levels), levels


def with_levels(pde: PDE, levels: Sequence[float]) -> PDE:
    """A problem with the noise that was found for it, in the order of `noise_found`."""
    stated = copy.copy(pde)
    stated.form = with_noise(pde.form, levels)
    return stated
