"""Hyper-parameters of exact conditioning where some data are noisy: evidence of the noisy rows given the exact ones.

Noisy data say little: few components are offered, along each axis one at every frequency that stands out of the noise,
and those that are not worth their parameters are left out again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpkit.inference.collocation.exact.averaging import likely_mixtures
from gpkit.inference.collocation.exact.evidence import blocks_of_rows, part_evidence, weight_evidence
from gpkit.inference.collocation.exact.forms import Conditioner
from gpkit.inference.collocation.exact.kernels import Mixtures, Start
from gpkit.inference.collocation.exact.lbfgs import Evidence, Learned, Scale, evidence_given, learn
from gpkit.inference.collocation.exact.learning import sized
from gpkit.inference.collocation.exact.priors import NO_FACTOR, MixtureAxis
from gpkit.inference.collocation.exact.rows import Rows
from gpkit.kernels.stationary import GaussianEnvelope

__all__ = ["NoisyLearner", "noisy_evidence"]

_WEIGHTS = 900
_ITERATIONS = 40
_SCALES = (0.3, 2.5)
"""Length scales to begin with, relative to half of the interval."""
_OCCAM = 2.0
"""Nats a component has to be worth: the logarithm of prior range over posterior range of its weight."""
_IDLE = 0.01
"""Nats below which components are left out together."""
_TYPICAL = 0.32
"""Length scale that is thought likely, relative to the interval: a spectrum half a cycle wide."""
_SPREAD = 1.0
"""Standard deviation of the logarithm of length scales around it."""
_AROUND = 0.25
"""Of what is thought of hyper-parameters before there are data, where posteriors are averaged over them: components
that are not needed were left out, and the others are not made larger than they are by a prior that hardly is one."""
_ROWS = 200
_PART = 360
_SIDE = 6


class NoisyLearner:
    """Learns the mixtures of every field and axis.

    Args:
        conditioner: Of the problem; has its rows of conditions and observations.
        start: Where learning starts.

    Attributes:
        mixtures: The present ones, by field and axis.
        learned: Results of the optimiser, in order.
        how: What the hyper-parameters were learned from.
    """

    def __init__(self, conditioner: Conditioner, start: Start) -> None:
        """Nothing is learned yet."""
        self.mixtures: Mixtures = list(start.mixtures)
        self.learned: list[Learned] = []
        self.how: dict[str, Any] = {}
        self._start, self._box, self._axes = start, conditioner.problem.box, conditioner.axes
        self._fields = len(conditioner.problem.fields)
        self._data = [*conditioner.conditions, *conditioner.observations]

    def learn(self, rows: Sequence[Rows]) -> Mixtures:
        """From the best of a few starts to a maximum of the evidence, and without what that does not need.

        Args:
            rows: Of the equations.
        """
        every = [*rows, *self._data]
        flat = self._best_start(every)
        evidence = self._evidence(every, flat)
        flat = self._climb(evidence, flat)
        pruned = self._pruned(evidence, flat)
        if len(_components(pruned)) < len(_components(flat)):
            flat = self._climb(evidence, pruned)
        self.how["value"] = self.learned[-1].after
        self._at = evidence, flat
        self.mixtures = self._by_field(flat)
        return self.mixtures

    def likely(self) -> list[tuple[float, Mixtures]]:
        """Mixtures that stand for all that are likely after what was learned, each with its share."""
        evidence, flat = self._at
        found = likely_mixtures(evidence, flat, *self._units(), spread=_AROUND)
        return [(share, self._by_field(mixtures)) for share, mixtures in found]

    def _by_field(self, flat: Sequence[MixtureAxis]) -> Mixtures:
        d = self._box.dim
        return [tuple(flat[f * d : (f + 1) * d]) for f in range(self._fields)]

    def _units(self) -> tuple[list[float], list[float]]:
        """Lengths of the intervals and steps of the grids of all mixtures."""
        steps = [n / max(len(x) - 1, 1) for n, x in zip(self._box.lengths, self._axes, strict=True)]
        return list(self._box.lengths) * self._fields, steps * self._fields

    def _options(self, axis: int) -> list[MixtureAxis]:
        first, *others = self._start.candidates[axis]
        if not others:
            return [first]
        scaled = [dataclasses.replace(first, lengthscales=s * first.lengthscales) for s in _SCALES]
        return [first, *scaled, others[0]]

    def _best_start(self, every: Sequence[Rows]) -> list[MixtureAxis]:
        """Axis by axis the best of the options, whose number of components counts against them."""
        options = [self._options(j) for j in range(self._box.dim)]
        chosen = [o[0] for o in options]
        best, score = self._all(chosen, every), -math.inf
        for j, own in enumerate(options):
            for option in own if j == 0 else own[1:]:
                trial = self._all([option if k == j else c for k, c in enumerate(chosen)], every)
                value = _value(self._evidence(every, trial), trial) - _OCCAM * len(_components(trial))
                if value > score:
                    best, score, kept = trial, value, option
                    chosen[j] = kept
        return best

    def _all(self, axes: Sequence[MixtureAxis], every: Sequence[Rows]) -> list[MixtureAxis]:
        """The same mixtures for every field, in the size of the data."""
        return [m for own in sized([tuple(axes)] * self._fields, every) for m in own]

    def _evidence(self, every: Sequence[Rows], start: Sequence[MixtureAxis]) -> Evidence:
        return _preferring(self._likelihood(every, start), self._units()[0])

    def _likelihood(self, every: Sequence[Rows], start: Sequence[MixtureAxis]) -> Evidence:
        """By the covariance of all rows if these are few, in the space of weights if those are, else by a part."""
        if sum(len(r) for r in every) <= _ROWS:
            found = _given(every, lambda part, scale: part_evidence(part, self._fields, self._box.dim, scale))
            if found is not None and math.isfinite(_value(found, start)):
                self._say("by their covariance", every)
                return found
        if all(isinstance(m.envelope, GaussianEnvelope) for m in start):
            found = noisy_evidence(every, start, self._box.lengths)
            if found is not None and math.isfinite(_value(found, start)):
                self._say("in the space of weights", every)
                return found
        generator = torch.Generator().manual_seed(0)
        parts = [blocks_of_rows(r, _PART, _SIDE, generator) if r.is_grid and len(r) > _PART else r for r in every]
        found = _given(parts, lambda part, scale: part_evidence(part, self._fields, self._box.dim, scale))
        assert found is not None
        self._say("in blocks of neighbours", parts)
        return found

    def _say(self, how: str, rows: Sequence[Rows]) -> None:
        many = sum(len(r) for r in rows)
        self.how = {"evidence": f"exact, of the noisy rows given the exact ones, {how}", "points": many}

    def _climb(self, evidence: Evidence, start: list[MixtureAxis]) -> list[MixtureAxis]:
        result = learn(evidence, start, *self._units(), _ITERATIONS)
        self.learned.append(result)
        return list(result.mixtures)

    @staticmethod
    def _pruned(evidence: Evidence, mixtures: list[MixtureAxis]) -> list[MixtureAxis]:
        """Without the components that are worth less than their parameters cost, the least worthy first."""
        value = _value(evidence, mixtures)
        while True:
            places = [(k, q) for k, q in _components(mixtures) if len(mixtures[k].weights) > 1]
            if not places:
                return mixtures
            lost = {place: value - _value(evidence, _without(mixtures, {place})) for place in places}
            idle = {place for place, loss in lost.items() if loss < _IDLE}
            # Each axis keeps its most worthy component.
            idle -= {max((p for p in places if p[0] == k), key=lambda p: lost[p]) for k in {p[0] for p in places}}
            for chosen in (idle, {min(places, key=lambda p: lost[p])}):
                trial = _without(mixtures, chosen)
                left = _value(evidence, trial)
                if chosen and left > value - _OCCAM:
                    value, mixtures = left, trial
                    break
            else:
                return mixtures


def _preferring(evidence: Evidence, lengths: Sequence[float]) -> Evidence:
    """With a weak preference for length scales of a third of the interval.

    Beside exact equations noisy data may say nothing of how long some scales are; those that are too short for the grid
    then hold no equation between its points.
    """

    def evaluate(mixtures: Sequence[MixtureAxis]) -> tuple[float, Sequence[Sequence[torch.Tensor]]]:
        value, slopes = evidence(mixtures)
        moved = []
        for m, own, length in zip(mixtures, slopes, lengths, strict=True):
            off = (m.lengthscales / (_TYPICAL * length)).log() / _SPREAD
            value -= 0.5 * float(off.square().sum())
            moved.append([own[0], own[1] - off / (_SPREAD * m.lengthscales), own[2]])
        return value, moved

    return evaluate


def noisy_evidence(rows: Sequence[Rows], start: Sequence[MixtureAxis], lengths: Sequence[float]) -> Evidence | None:
    """Evidence of noisy rows given the exact ones in the space of weights; None where there would be too many.

    Args:
        rows: Of equations, conditions and observations, with values.
        start: Gaussian mixtures where learning will start, one per axis of every field.
        lengths: Of the axes.
    """
    return _given(rows, lambda part, scale: weight_evidence(part, start, lengths, _WEIGHTS, scale, careful=True))


def _given(rows: Sequence[Rows], make: Callable[[Sequence[Rows], Scale], Evidence | None]) -> Evidence | None:
    """Evidence of noisy rows given the exact ones; None where there is none of a kind."""
    exact = [r for r in rows if not float(r.noise.max()) > 0.0]
    if not exact:
        return make(rows, "given")
    tells = any(r.values is not None and bool((r.values != 0.0).any()) for r in exact)
    every, plain = make(rows, "given"), make(exact, "given")
    taken = make(exact, "excess") if tells else plain
    if every is None or plain is None or taken is None:
        return None
    variances = torch.cat([r.noise.expand(len(r)) for r in rows])
    most = -0.5 * float((2.0 * math.pi * variances[variances > 0.0]).log().sum())
    return evidence_given(every, taken, plain, most)


def _value(evidence: Evidence, mixtures: Sequence[MixtureAxis]) -> float:
    try:
        value = evidence(mixtures)[0]
    except NO_FACTOR:
        return -math.inf
    return value if math.isfinite(value) else -math.inf


def _components(mixtures: Sequence[MixtureAxis]) -> list[tuple[int, int]]:
    return [(k, q) for k, m in enumerate(mixtures) for q in range(len(m.weights))]


def _without(mixtures: Sequence[MixtureAxis], components: set[tuple[int, int]]) -> list[MixtureAxis]:
    out = []
    for k, m in enumerate(mixtures):
        keep = torch.tensor([(k, q) not in components for q in range(len(m.weights))])
        frequencies = None if m.frequencies is None else m.frequencies[keep]
        out.append(MixtureAxis(m.envelope, m.weights[keep], m.lengthscales[keep], frequencies))
    return out
