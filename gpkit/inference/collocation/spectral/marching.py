"""Nonlinear evolution in time slabs: each slab is a small problem that starts from the end of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.forms import Box, Condition, Data, Jet, Problem
from gpkit.inference.collocation.posterior import FieldDraws, FieldPosterior

__all__ = ["MarchedPosterior", "evolution_axis", "march"]

_SHORTEST = 1.0 / 512.0

Solver = Callable[[Problem, tuple[int, ...]], FieldPosterior]


def evolution_axis(problem: Problem) -> int | None:
    """The axis along which a problem can be solved slab by slab, or None.

    Data are given at its lower end and not at its upper one, and everything that depends on it is a function, so that
    it can be evaluated in any slab.
    """
    if problem.observations or problem.free:
        return None
    sources = [e.source for e in problem.equations] + [c.value for c in problem.conditions]
    if any(s.values is not None or s.noise for s in sources):
        return None
    for axis in range(problem.box.dim):
        sides = {c.side for c in problem.conditions if c.axis == axis}
        starts = [c for c in problem.conditions if c.axis == axis]
        simple = all(len(c.terms) == 1 and c.terms[0].coefficient.constant is not None for c in starts)
        if sides == {0} and axis not in problem.periodic and simple:
            return axis
    return None


def march(problem: Problem, grid: tuple[int, ...], axis: int, solve: Solver, tolerance: float) -> MarchedPosterior:
    """Solve slab by slab; a slab that fails, or whose residual is large, is halved.

    Args:
        problem: With :func:`evolution_axis` ``axis``.
        grid: Points along each axis of the whole box; a slab takes its share along ``axis``, and at least 12.
        axis: Axis of the evolution.
        solve: Of one slab.
        tolerance: Relative residual above which a slab is halved while it can be.

    Raises:
        ConvergenceError: The shortest slab does not converge.
    """
    start, end = problem.box.lower[axis], problem.box.upper[axis]
    length, width = end - start, 0.25 * (end - start)
    now, slabs, edges = start, list[FieldPosterior](), [start]
    while now < end - 1e-12 * length:
        width = min(width, end - now)
        if end - now - width < 0.2 * width:
            width = end - now
        piece = _slab(problem, axis, now, now + width, slabs[-1] if slabs else None)
        share = tuple(
            min(n, max(12, int(np.ceil(4 * n * width / length)))) if k == axis else n for k, n in enumerate(grid)
        )
        try:
            found = solve(piece, share)
        except ConvergenceError as error:
            if width <= _SHORTEST * length:
                raise ConvergenceError(
                    f"the solution cannot be continued beyond {problem.box.names[axis]} = {now:.6g}: {error}"
                ) from error
            width *= 0.5
            continue
        if width > _SHORTEST * length and _too_long(found, axis, tolerance):
            width *= 0.5
            continue
        slabs.append(found)
        now += width
        edges.append(now)
        width *= 1.5
    return MarchedPosterior(slabs, edges, axis)


def _too_long(found: FieldPosterior, axis: int, tolerance: float) -> bool:
    """Whether a residual is large for want of functions of time: a shorter slab mends nothing else."""
    if float(found.diagnostics["residual"]) <= tolerance:
        return False
    tails = found.diagnostics["coefficient_tails"]
    return float(tails[axis]) >= max((float(t) for k, t in enumerate(tails) if k != axis), default=0.0)


def _slab(problem: Problem, axis: int, start: float, end: float, before: FieldPosterior | None) -> Problem:
    """The problem between two instants, from where the solution before ended."""
    box = problem.box
    ends = [(start, end) if k == axis else e for k, e in enumerate(zip(box.lower, box.upper, strict=True))]
    conditions = [_continued(c, before) if before is not None and c.axis == axis else c for c in problem.conditions]
    return dataclasses.replace(
        problem,
        box=Box(box.names, tuple(a for a, _ in ends), tuple(b for _, b in ends)),
        conditions=tuple(conditions),
    )


def _continued(condition: Condition, before: FieldPosterior) -> Condition:
    term = condition.terms[0]

    def value(*coordinates: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(*(c.shape for c in coordinates))
        points = torch.stack([c.expand(shape).reshape(-1) for c in coordinates], dim=1)
        return float(term.coefficient.constant or 0.0) * before.mean(term.jet, points).reshape(shape)

    return dataclasses.replace(condition, value=Data(function=value))


class MarchedPosterior:
    """Posterior of a solution that was found slab by slab.

    The error at the end of a slab enters the next as a variance of its own: it is neither damped nor amplified.

    Args:
        slabs: Posteriors, in order.
        edges: Ends of the slabs, one more than these.
        axis: Axis of the evolution.
    """

    def __init__(self, slabs: Sequence[FieldPosterior], edges: Sequence[float], axis: int) -> None:
        self.slabs, self.edges, self.axis = list(slabs), np.asarray(edges), axis
        own = [s.diagnostics for s in slabs]
        self.diagnostics: dict[str, Any] = {
            **own[-1],
            "method": f"{own[-1]['method']}; in {len(slabs)} slabs of time, each from the end of the one before",
            "slabs": [float(e) for e in edges],
            "residual": max(float(d["residual"]) for d in own),
            "newton_steps": [s for d in own for s in d["newton_steps"]],
            "krylov_iterations": [s for d in own for s in d["krylov_iterations"]],
        }
        self._inherited: list[dict[Jet, float]] = [{} for _ in slabs]

    def _number(self, times: Tensor) -> Any:
        return np.clip(np.searchsorted(self.edges, times.numpy(), side="left") - 1, 0, len(self.slabs) - 1)

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean (m,) of a jet at points (m, d)."""
        number, out = self._number(points[:, self.axis]), torch.empty(len(points), dtype=torch.float64)
        for k in np.unique(number):
            mine = torch.from_numpy(number == k)
            out[mine] = self.slabs[k].mean(jet, points[mine])
        return out

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) of a jet on a tensor grid."""
        number = self._number(axes[self.axis])
        out = torch.empty(tuple(len(x) for x in axes), dtype=torch.float64)
        for k in np.unique(number):
            mine = torch.from_numpy(np.flatnonzero(number == k))
            own = [x[mine] if j == self.axis else x for j, x in enumerate(axes)]
            out.index_copy_(self.axis, mine, self.slabs[k].mean_on_grid(jet, own))
        return out

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance (m,) of a jet at points (m, d)."""
        number, out = self._number(points[:, self.axis]), torch.empty(len(points), dtype=torch.float64)
        for k in np.unique(number):
            mine = torch.from_numpy(number == k)
            out[mine] = self.slabs[k].variance(jet, points[mine]) + self._before(int(k), jet, points[mine])
        return out

    def _before(self, slab: int, jet: Jet, points: Tensor) -> Tensor:
        """Variance of a jet at the ends of the slabs before, at the same places."""
        total = torch.zeros(len(points), dtype=torch.float64)
        for k in range(slab):
            at = points.clone()
            at[:, self.axis] = float(self.edges[k + 1])
            total = total + self.slabs[k].variance(jet, at)
        return total

    def sample(self, n: int, generator: torch.Generator) -> FieldDraws:
        """N draws, each slab's error added to that of the next."""
        draws = [s.sample(n, generator) for s in self.slabs]
        return _MarchedDraws(self, draws, n)


class _MarchedDraws:
    def __init__(self, posterior: MarchedPosterior, draws: Sequence[FieldDraws], n: int) -> None:
        self._posterior, self._draws, self._n = posterior, draws, n

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        own = self._posterior
        number = own._number(points[:, own.axis])
        out = torch.empty(self._n, len(points), dtype=torch.float64)
        for k in np.unique(number):
            mine = torch.from_numpy(number == k)
            values = self._draws[k](jet, points[mine])
            for j in range(k):
                at = points[mine].clone()
                at[:, own.axis] = float(own.edges[j + 1])
                values = values + self._draws[j](jet, at) - own.slabs[j].mean(jet, at)
            out[:, mine] = values
        return out
