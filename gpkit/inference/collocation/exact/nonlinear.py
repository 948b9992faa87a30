"""Gauss-Newton: nonlinear equations as a sequence of linear ones, and the Laplace posterior at its end.

References:
    Chen, Hosseini, Owhadi & Stuart (2021), J. Comput. Phys. 447, 110668.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.exact.linear import LinearEngine
from gpkit.inference.collocation.exact.problem import data_values, open_mesh
from gpkit.inference.collocation.forms import Jet

__all__ = ["gauss_newton"]

_STEPS = 60
_TOLERANCE = 1e-10
_SMALL = 1e-6
_SHARE = 1e-4
"""Of the relative residual between the points of the grid, which steps need not be smaller than."""
State = list[Mapping[Jet, Tensor]]


def gauss_newton(engine: LinearEngine, progress: bool) -> Any:
    """Condition on the linearised equations until the state does not move.

    Steps are shortened where the residual of the equations grows.

    Args:
        engine: Of the problem.
        progress: Whether to show a bar.

    Raises:
        ConvergenceError: The residual does not fall, with its history.
    """
    state = _zero(engine) if engine.guide is None else _state_of(engine, engine.guide)
    residual = _residual(engine, state)
    history: list[float] = [residual]
    steps: list[float] = []
    posterior: Any = None
    bar = tqdm(range(_STEPS), desc="Gauss-Newton steps", disable=None if progress else True)
    for _ in bar:
        posterior = engine.condition(state, posterior)
        target = _state_of(engine, posterior)
        factor, moved, found = 1.0, target, _residual(engine, target)
        while not found <= max(2.0 * residual, 1e-12) and factor > 1e-3 and len(steps) > 0:
            factor *= 0.5
            moved = _between(state, target, factor)
            found = _residual(engine, moved)
        change = _distance(state, moved)
        state, residual = moved, found
        history.append(residual)
        steps.append(change)
        if not math.isfinite(residual):
            break
        # Once steps are those of rounding they neither shrink nor lower the residual.
        settled = len(steps) > 3 and change < 1e-6 and change > 0.3 * steps[-2]
        # Steps shrink by about the same factor: what they leave is told by the last two.
        left = change * change / steps[-2] if len(steps) > 1 and change < steps[-2] else change
        small = change < _SMALL and left < _SHARE * engine.discretisation(posterior)
        done = change < _TOLERANCE or small
        if (factor == 1.0 and done) or settled:
            posterior.diagnostics |= {"newton_steps": steps, "newton_residuals": history, "newton_residual": residual}
            posterior.diagnostics["method"] += f"; {len(steps)} Gauss-Newton steps, Laplace posterior at the last"
            return posterior
    tail = ", ".join(f"{r:.1e}" for r in history[-5:])
    raise ConvergenceError(f"Gauss-Newton did not converge in {len(steps)} steps; relative residuals ended with {tail}")


def _zero(engine: LinearEngine) -> State:
    state: State = []
    for e, axes in zip(engine.problem.equations, engine.equation_axes, strict=True):
        shape = [len(x) for x in axes]
        state.append({j: torch.zeros(shape, dtype=torch.float64) for j in e.all_jets})
    return state


def _state_of(engine: LinearEngine, posterior: Any) -> State:
    pairs = zip(engine.problem.equations, engine.equation_axes, strict=True)
    return [{j: posterior.mean_on_grid(j, axes) for j in e.all_jets} for e, axes in pairs]


def _between(a: State, b: State, factor: float) -> State:
    return [{j: (1.0 - factor) * u[j] + factor * v[j] for j in u} for u, v in zip(a, b, strict=True)]


def _distance(a: State, b: State) -> float:
    square = sum(float(((u[j] - v[j]) ** 2).sum()) for u, v in zip(a, b, strict=True) for j in u if not any(j.orders))
    size = sum(float((v[j] ** 2).sum()) for v in b for j in v if not any(j.orders))
    if size == 0.0:
        square = sum(float(((u[j] - v[j]) ** 2).sum()) for u, v in zip(a, b, strict=True) for j in u)
        size = sum(float((v[j] ** 2).sum()) for v in b for j in v) or 1.0
    return math.sqrt(square / size)


def _residual(engine: LinearEngine, state: State) -> float:
    """Root mean square of what the equations leave over, relative to their largest part."""
    worst = 0.0
    for e, axes, jets in zip(engine.problem.equations, engine.equation_axes, state, strict=True):
        coordinates = open_mesh(axes)
        source = data_values(e.source, axes, engine.parameters, "the source")
        left = e.left_side(coordinates, jets, engine.parameters)
        size = max(float(source.pow(2).mean()), *(float(v.pow(2).mean()) for v in jets.values()), 1e-300)
        worst = max(worst, math.sqrt(float((left - source).pow(2).mean()) / size))
    return worst
