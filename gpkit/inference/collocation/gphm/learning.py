"""Kernels of largest evidence, and which of their components the data pay for.

A mixture of twenty components has sixty numbers an axis; the most likely values of all of them follow the noise. With
noisy data a component is kept where it gains more than ``3/2 log n`` in log evidence, what its weight, length scale and
frequency cost where n values determine them.

References:
    Schwarz (1978), Estimating the Dimension of a Model, Annals of Statistics 6, 461.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor
from tqdm import tqdm

from gpkit.errors import ConvergenceError, NotPositiveDefiniteError
from gpkit.inference.collocation.gphm.columns import lengthscales, log_inverse_lengths
from gpkit.inference.collocation.gphm.evidence import KernelEvidence, Precisions, precision_bounds, with_rows
from gpkit.inference.collocation.gphm.laplace import LinearRows
from gpkit.inference.collocation.gphm.objective import GphmObjective, GphmState

__all__ = ["LEFT_OUT", "KernelSearch"]

Array = NDArray[np.float64]

_REFUSED = 1e30
_LONGEST, _LONGEST_NOISY = 100.0, 5.0
"""Length scales in intervals. Longer ones are single waves, which noisy data cannot tell from waves that change."""
_REACH, _LEG_STEPS, _GAIN = 3.0, 40, 0.1
LEFT_OUT = -60.0
"""Log weight of a component that is left out."""
_AGAIN = 30
_HOPELESS = 10.0
"""Nats above its cost that a component is worth before anything else is moved, and is not tried to be left out."""


class KernelSearch:
    """Minus the log evidence as a function of one vector: what is learned of kernels and precisions.

    Args:
        objective: Of the problem.
        state: To start from.
        rows: Linearised; slopes and targets stay.
        targets: What each row's linear part should be.
        given: Precisions to start from.
        progress: Whether to show a bar.

    Attributes:
        trace: Log evidence after every step.
    """

    def __init__(
        self,
        objective: GphmObjective,
        state: GphmState,
        rows: Sequence[LinearRows],
        targets: Sequence[Tensor],
        given: Precisions,
        progress: bool,
    ) -> None:
        """Start where the state is."""
        self._envelope = objective.envelope
        self._evidence, self._state, self._given = KernelEvidence(objective, rows, targets, given), state, given
        self._count, self._progress = sum(r.residual.numel() for r in rows), progress
        lengths = [float(x[-1] - x[0]) for x in objective.axes]
        # Frequencies in cycles of the axis: a unit of each parameter then is a change of similar weight.
        self._units = torch.tensor(lengths, dtype=torch.float64)[None, :, None].expand_as(state.frequencies)
        kernel = [state.log_weights, state.log_inverse_lengths, state.frequencies * self._units]
        logs = [math.log(given.rows[i]) for i in given.free]
        self._at: Array = np.concatenate([*[t.reshape(-1).numpy() for t in kernel], logs])
        self._size = state.log_weights.numel()
        self._alive = np.array(state.log_weights.reshape(-1).numpy() > LEFT_OUT)
        self._value = math.inf
        self._lower, self._upper = self._box(objective, lengths)
        self.trace: list[float] = []

    def _box(self, objective: GphmObjective, lengths: Sequence[float]) -> tuple[Array, Array]:
        fields, _, mixtures = self._state.log_weights.shape
        bounds = [(v - 30.0, v + 20.0) for v in self._at[: self._size]]
        intervals = _LONGEST_NOISY if objective.is_noisy else _LONGEST
        ends: list[tuple[float, float]] = []
        for n, length in zip(objective.shape, lengths, strict=True):
            extremes = torch.tensor([intervals * length, 0.5 * length / (n - 1)], dtype=torch.float64)
            longest, shortest = (float(v) for v in log_inverse_lengths(objective.envelope, extremes))
            ends += [(longest, shortest)] * mixtures
        nyquist = [(0.0, 0.5 * (n - 1)) for n in objective.shape for _ in range(mixtures)]
        bounds += ends * fields + nyquist * fields + precision_bounds(self._given)
        return np.array([b[0] for b in bounds]), np.array([b[1] for b in bounds])

    def _split(self, x: Array) -> tuple[list[Tensor], list[float]]:
        shape = self._state.log_weights.shape
        tensors = [torch.from_numpy(p.copy()).reshape(shape) for p in np.split(x[: 3 * self._size], 3)]
        tensors[2] = tensors[2] / self._units
        return tensors, [float(v) for v in x[3 * self._size :]]

    def _function(self, x: Array) -> tuple[float, Array]:
        tensors, logs = self._split(x)
        try:
            value, gradients, slopes = self._evidence(tensors, logs)
        except (NotPositiveDefiniteError, ConvergenceError):
            return _REFUSED, np.zeros_like(x)
        gradients[2] = gradients[2] / self._units
        return value, np.concatenate([*[g.reshape(-1).numpy() for g in gradients], slopes])

    def _only_value(self, x: Array) -> float:
        try:
            return self._evidence.value(*self._split(x))
        except (NotPositiveDefiniteError, ConvergenceError):
            return _REFUSED

    def found(self) -> tuple[GphmState, Precisions]:
        """The state with the kernel that was found, and the precisions."""
        tensors, logs = self._split(self._at)
        learned = replace(self._state, log_weights=tensors[0], log_inverse_lengths=tensors[1], frequencies=tensors[2])
        return learned, with_rows(self._given, logs)

    def _alive_parameters(self) -> NDArray[np.bool_]:
        return np.concatenate([np.tile(self._alive, 3), np.ones(len(self._at) - 3 * self._size, dtype=bool)])

    def maximise(self, steps: int) -> None:
        """Go on by L-BFGS with all that is not left out, so many steps at most."""
        kept = self._alive_parameters()
        begun = len(self.trace)
        with tqdm(total=steps, desc="Evidence of the kernel", disable=None if self._progress else True) as bar:

            def function(x: Array) -> tuple[float, Array]:
                whole = self._at.copy()
                whole[kept] = x
                value, gradient = self._function(whole)
                return value, gradient[kept]

            def watch(intermediate_result: optimize.OptimizeResult) -> None:
                self.trace.append(-float(intermediate_result.fun))
                bar.update()

            # A long step may end where covariances are not definite, and L-BFGS with it: later legs have boxes.
            at, value, reach = self._at[kept], math.inf, math.inf
            while len(self.trace) - begun < steps:
                box = optimize.Bounds(
                    np.maximum(self._lower[kept], at - reach), np.minimum(self._upper[kept], at + reach)
                )
                options = {
                    "maxiter": min(_LEG_STEPS, steps - len(self.trace) + begun),
                    "maxfun": 2 * _LEG_STEPS,
                    "gtol": 0.02,
                    "ftol": 1e-9,
                }
                found = optimize.minimize(
                    function, at, jac=True, method="L-BFGS-B", bounds=box, callback=watch, options=options
                )
                gained, at, value = value - float(found.fun), found.x, float(found.fun)
                if gained < _GAIN:
                    break
                reach = _REACH
        self._at[kept], self._value = at, value

    def _without(self, components: Sequence[int]) -> Array:
        x = self._at.copy()
        x[list(components)] = LEFT_OUT
        return x

    def _worth(self) -> list[tuple[float, int]]:
        """What every component that can be left out is worth while nothing else moves, least first."""
        mixtures = self._state.log_weights.shape[-1]
        alone = np.repeat(self._alive.reshape(-1, mixtures).sum(1) < 2, mixtures)
        candidates = np.flatnonzero(self._alive & ~alone)
        return sorted((self._only_value(self._without([int(i)])) - self._value, int(i)) for i in candidates)

    def prune(self) -> None:
        """Leave out components that gain less evidence than they cost, and let broad ones take the place of several."""
        self._leave_out()
        if self._merge():
            self._leave_out()

    def _tried(self, x: Array, out: Sequence[int]) -> bool:
        """Whether what is gained without components is worth it, from a vector on; what was before if not."""
        before = self._at, self._alive, self._value, len(self.trace)
        self._at, self._alive = x, self._alive.copy()
        self._alive[list(out)] = False
        self.maximise(_AGAIN)
        if self._value < before[2] + 1.5 * math.log(self._count) * len(out):
            return True
        self._at, self._alive, self._value = before[:3]
        del self.trace[before[3] :]
        return False

    def _leave_out(self) -> None:
        """As many components at a time as can be."""
        cost, mixtures = 1.5 * math.log(self._count), self._state.log_weights.shape[-1]
        count = 1
        while count:
            worth = self._worth()
            if not worth or worth[0][0] > cost + _HOPELESS:
                break
            count = max(1, sum(w < 0.5 * cost for w, _ in worth))
            while count:
                out = _one_left([i for _, i in worth[:count]], self._alive, mixtures)
                if self._tried(self._without(out), out):
                    break
                count //= 2

    def _merge(self) -> bool:
        """Whether one component took the place of all of an axis, or of two that are neighbours."""
        mixtures, any_merged = self._state.log_weights.shape[-1], False
        for line in range(self._size // mixtures):
            merged = True
            while merged:
                members = line * mixtures + np.flatnonzero(self._alive[line * mixtures : (line + 1) * mixtures])
                members = members[np.argsort(np.abs(self._at[2 * self._size + members]))]
                groups = [members[i : i + 2] for i in range(len(members) - 1)]
                groups = [members, *groups] if len(members) > 2 else groups
                merged = any(self._tried(self._merged(g), [int(i) for i in g[1:]]) for g in groups)
                any_merged = any_merged or merged
        return any_merged

    def _merged(self, group: NDArray[np.int64]) -> Array:
        """The first of a group with the weight, the mean and the variance of the spectrum of all of it."""
        tensors, _ = self._split(self._at)
        log_weights, log_inverse, frequencies = (t.reshape(-1)[torch.from_numpy(group)] for t in tensors)
        share = torch.softmax(log_weights, 0)
        mean = (share * frequencies.abs()).sum()
        # The spectrum of one component has the standard deviation 1 / (2 pi l).
        widths = 1.0 / (2.0 * math.pi * lengthscales(self._envelope, log_inverse))
        variance = (share * (widths**2 + (frequencies.abs() - mean) ** 2)).sum()
        length = 1.0 / (2.0 * math.pi * variance.sqrt())
        x, first = self._without([int(i) for i in group[1:]]), int(group[0])
        where = first + self._size * np.arange(3)
        cycles = mean * self._units.reshape(-1)[first]
        moved = torch.stack([log_weights.logsumexp(0), log_inverse_lengths(self._envelope, length), cycles]).numpy()
        x[where] = np.clip(moved, self._lower[where], self._upper[where])
        return x


def _one_left(components: Sequence[int], alive: NDArray[np.bool_], mixtures: int) -> list[int]:
    """Those of the components without which every axis has one left."""
    left = alive.reshape(-1, mixtures).sum(1)
    out = []
    for i in components:
        if left[i // mixtures] > 1:
            left[i // mixtures] -= 1
            out.append(i)
    return out
