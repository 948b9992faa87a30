"""Search over the parameters of a kernel, one at a time, by any evidence that depends on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["ParameterSearch"]

_FIXED = ("period", "frequency")  # named by the user, in the unit of the coordinate
_LENGTHS = ("lengthscale", "timescale")
_WIDEST, _NARROWEST = math.log(2.0), 0.01
_LONGEST_PAUSE = 8
_EDGE = 1e-3  # of a constraint, where its transform is flat


class ParameterSearch:
    """Multiplies one parameter in turn by a factor that grows with success and shrinks without.

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

    def advance(self, evidence: Callable[[], float]) -> None:
        """Try the next parameter up and down; keep what has the largest evidence."""
        if not self._limits:
            return
        path = list(self._limits)[self._turn % len(self._limits)]
        self._turn += 1
        if self._waits[path]:
            self._waits[path] -= 1
            return
        now, (low, high) = self._get(path), self._limits[path]
        best, kept = evidence(), now
        moved = False
        for sign in (1.0, -1.0):
            trial = min(max(now * math.exp(sign * self._step[path]), low), high)
            self._set(path, trial)
            value = evidence()
            if value > best:
                best, kept, moved = value, trial, True
                break
        self._set(path, kept)
        self._step[path] = min(max(self._step[path] * (1.4 if moved else 0.5), _NARROWEST), _WIDEST)
        self._pause[path] = 0 if moved else min(max(2 * self._pause[path], 1), _LONGEST_PAUSE)
        self._waits[path] = self._pause[path]
