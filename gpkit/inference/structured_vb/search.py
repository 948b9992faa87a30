"""Search over the parameters of a kernel, one at a time, by any evidence that depends on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["ParameterSearch"]

_FIXED = ("period", "frequency")  # named by the user, in the unit of the coordinate
_LENGTHS = ("lengthscale", "timescale")
_WIDEST, _NARROWEST = math.log(2.0), 0.1
_LONGEST_PAUSE = 8
_REACH = math.log(4.0)  # of one turn: sites of a fit that has just begun mislead
_EDGE = 1e-3  # of a constraint, where its transform is flat


class ParameterSearch:
    """Maximises over one parameter in turn, with a first step as long as the last move.

    A parameter that was right in its turn is left alone for one turn, then for two, four and eight: near the end of a
    fit nearly all of the evidences would only confirm it.

    Args:
        kernel: changed in place; periods and frequencies are left as they are.
        least: smallest length scale.
        most: largest length scale.
        learn: whether anything is searched.
    """

    def __init__(self, kernel: Any, *, least: float, most: float, learn: bool = True) -> None:
        self.kernel = kernel
        self._limits: dict[str, tuple[float, float]] = {}
        self._lengths: list[str] = []
        for path, parameter in kernel.named_parameters():
            name = path.rpartition(".")[2].removeprefix("raw_")
            if not learn or parameter.numel() != 1 or not parameter.requires_grad or name in _FIXED:
                continue
            if name in _LENGTHS and not self._within_period(path):
                self._lengths.append(path)
                self._limits[path] = self._allowed(path, least, most)
            else:
                self._limits[path] = self._allowed(path, 1e-4, 1e4)
        self._step = dict.fromkeys(self._limits, _WIDEST)
        self._pause = dict.fromkeys(self._limits, 0)
        self._waits = dict.fromkeys(self._limits, 0)
        self._turn = 0

    def _allowed(self, path: str, low: float, high: float) -> tuple[float, float]:
        """The part of a range that lies within the parameter's own constraint, its ends excluded."""
        _, constraint = self._parameter(path)
        if constraint is None:
            return low, high
        least, most = float(constraint.lower_bound), float(constraint.upper_bound)
        if math.isfinite(most):
            inside = _EDGE * (most - least)
            return min(max(low, least + inside), most - inside), max(min(high, most - inside), least + inside)
        return max(low, least + _EDGE * max(abs(least), low)), high

    def _within_period(self, path: str) -> bool:
        module = self.kernel.get_submodule(path.rpartition(".")[0])
        return any(name.removeprefix("raw_") == "period" for name, _ in module.named_parameters(recurse=False))

    def _parameter(self, path: str) -> tuple[Any, Any]:
        owner, _, leaf = path.rpartition(".")
        module = self.kernel.get_submodule(owner)
        return getattr(module, leaf), module.constraint_for_parameter_name(leaf)

    def _get(self, path: str) -> float:
        raw, constraint = self._parameter(path)
        return float((raw.detach() if constraint is None else constraint.transform(raw.detach())).reshape(()))

    def _set(self, path: str, value: float) -> None:
        raw, constraint = self._parameter(path)
        natural = torch.full_like(raw.detach(), value)
        with torch.no_grad():
            raw.copy_(natural if constraint is None else constraint.inverse_transform(natural))

    def begin(self, length: float) -> None:
        """Set all length scales, as far as their limits allow."""
        for path in self._lengths:
            low, high = self._limits[path]
            self._set(path, min(max(length, low), high))

    def values(self) -> dict[str, float]:
        """Natural values of all scalar parameters by path."""
        return {p.replace("raw_", ""): self._get(p) for p, t in self.kernel.named_parameters() if t.numel() == 1}

    def state(self) -> tuple[float, ...]:
        """What changes when a searched parameter does."""
        return tuple(self._parameter(path)[0].item() for path in self._limits)

    def advance(self, evidence: Callable[[], float]) -> None:
        """Move the next parameter uphill: steps that double while the evidence rises, then the top of a parabola."""
        if not self._limits:
            return
        path = list(self._limits)[self._turn % len(self._limits)]
        self._turn += 1
        if self._waits[path]:
            self._waits[path] -= 1
            return
        begin, step = math.log(self._get(path)), self._step[path]
        low, high = (math.log(limit) for limit in self._limits[path])
        low, high = max(low, begin - _REACH), min(high, begin + _REACH)
        found: dict[float, float] = {}

        def value(at: float) -> float:
            if at not in found:
                self._set(path, math.exp(at))
                found[at] = evidence()
            return found[at]

        best, move = begin, step
        value(begin)
        trial = min(max(begin + move, low), high)
        if value(trial) <= value(best):  # the step turns round where its first direction is wrong
            move = -move
            trial = min(max(begin + move, low), high)
        while value(trial) > value(best):
            best, move = trial, 2.0 * move
            trial = min(max(best + move, low), high)
        top = _top(found, best)
        if top is not None and value(top) > value(best):
            best = top
        self._set(path, math.exp(best))
        moved = abs(best - begin)
        self._step[path] = math.copysign(
            min(max(moved if moved else 0.3 * abs(step), _NARROWEST), _WIDEST), best - begin if moved else step
        )
        self._pause[path] = 0 if moved > _NARROWEST else min(max(2 * self._pause[path], 1), _LONGEST_PAUSE)
        self._waits[path] = self._pause[path]


def _top(found: dict[float, float], best: float) -> float | None:
    """Where the parabola through the best point and its neighbours is highest; None at an end."""
    points = sorted(found)
    i = points.index(best)
    if i in (0, len(points) - 1):
        return None
    below, above = best - points[i - 1], points[i + 1] - best
    falls_below, falls_above = found[best] - found[points[i - 1]], found[best] - found[points[i + 1]]
    curvature = below * falls_above + above * falls_below
    if not curvature > 0.0:
        return None
    return best + 0.5 * (above**2 * falls_below - below**2 * falls_above) / curvature
