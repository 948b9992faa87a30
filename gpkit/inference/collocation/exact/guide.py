"""An approximate solution as a guide: where Newton starts, and what the hyper-parameters are first learned from.

The spectral engine finds it in a fraction of the time of exact conditioning. It is never part of the answer: the
posterior is that of the equations, conditions and observations on the grid, whatever the guide was.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpkit.errors import GpkitError
from gpkit.inference.collocation.exact.rows import Rows, RowTerm, grid_rows
from gpkit.inference.collocation.forms import Jet, Parameters, Problem
from gpkit.inference.collocation.posterior import FieldPosterior
from gpkit.inference.collocation.spectral import engine as spectral

__all__ = ["approximate_solution", "guide_rows"]

_FINEST = 400
_USABLE = 0.1


def approximate_solution(problem: Problem, axes: Sequence[Tensor], parameters: Parameters) -> FieldPosterior | None:
    """The spectral solution on the same grid; None where that engine has none."""
    try:
        return spectral.solve(problem, tuple(len(x) for x in axes), parameters=parameters)
    except (GpkitError, ArithmeticError, ValueError):
        return None


def guide_rows(problem: Problem, axes: Sequence[Tensor], guide: FieldPosterior | None) -> list[Rows]:
    """Values of every field on a grid up to twice as fine, as rows; none where the guide does not meet the equations.

    Args:
        problem: For its fields and box.
        axes: Of the collocation grid.
        guide: Approximate solution.
    """
    if guide is None or not float(guide.diagnostics.get("residual", float("inf"))) < _USABLE:
        return []
    box = problem.box
    fine = []
    for j, x in enumerate(axes):
        count = max(len(x), min(2 * len(x) - 1, _FINEST))
        if j in problem.periodic:
            fine.append(torch.linspace(box.lower[j], box.upper[j], count + 1, dtype=torch.float64)[:-1])
        else:
            fine.append(torch.linspace(box.lower[j], box.upper[j], count, dtype=torch.float64))
    one = torch.ones((), dtype=torch.float64)
    rows = []
    for f in range(len(problem.fields)):
        jet = Jet(f, (0,) * box.dim)
        values = guide.mean_on_grid(jet, fine)
        if not bool(torch.isfinite(values).all()):
            return []
        rows.append(grid_rows([RowTerm(jet, one)], fine, values, label="the spectral solution"))
    return rows
