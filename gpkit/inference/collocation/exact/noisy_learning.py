"""Hyper-parameters of exact conditioning where some data are noisy: evidence of the noisy rows given the exact ones.

Noisy data say little: few components are offered, along each axis one at every frequency that stands out of the noise,
and those that are not worth their parameters are left out again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from gpkit.inference.collocation.exact.averaging import likely_mixtures
from gpkit.inference.collocation.exact.covariance_evidence import covariance_evidence
from gpkit.inference.collocation.exact.forms import Conditioner
from gpkit.inference.collocation.exact.kernels import Mixtures, Start
from gpkit.inference.collocation.exact.lbfgs import Evidence, Learned, Slopes, learn
from gpkit.inference.collocation.exact.learning import sized
from gpkit.inference.collocation.exact.priors import NO_FACTOR, MixtureAxis
from gpkit.inference.collocation.exact.rows import Rows, blocks_of_rows
from gpkit.inference.collocation.exact.wave_evidence import wave_evidence
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
        evidence, _ = self._evidence(every, flat)
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
        found = likely_mixtures(
            evidence, flat, *self._units(), spread=_AROUND, value=lambda m: evidence(m, slopes=False)[0]
        )
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
                value = self._evidence(every, trial)[1] - _OCCAM * len(_components(trial))
                if value > score:
                    best, score, kept = trial, value, option
                    chosen[j] = kept
        return best

    def _all(self, axes: Sequence[MixtureAxis], every: Sequence[Rows]) -> list[MixtureAxis]:
        """The same mixtures for every field, in the size of the data."""
        return [m for own in sized([tuple(axes)] * self._fields, every) for m in own]

    def _evidence(self, every: Sequence[Rows], start: Sequence[MixtureAxis]) -> tuple[Evidence, float]:
        """By the covariance of all rows if these are few, in the space of weights if those are, else by a part.

        Returns:
            The evidence, and its value at the start.
        """
        if sum(len(r) for r in every) <= _ROWS:
            found = self._tried(self._by_covariance(every), start)
            if found is not None:
                self._say("by their covariance", every)
                return found
        if all(isinstance(m.envelope, GaussianEnvelope) for m in start):
            found = self._tried(noisy_evidence(every, start, self._box.lengths), start)
            if found is not None:
                self._say("in the space of weights", every)
                return found
        generator = torch.Generator().manual_seed(0)
        parts = [blocks_of_rows(r, _PART, _SIDE, generator) if r.is_grid and len(r) > _PART else r for r in every]
        self._say("in blocks of neighbours", parts)
        evidence = _preferring(self._by_covariance(parts), self._units()[0])
        return evidence, _value(evidence, start)

    def _tried(self, likelihood: Evidence | None, start: Sequence[MixtureAxis]) -> tuple[Evidence, float] | None:
        """With the preference for length scales, and what it is at the start; None where there is none."""
        if likelihood is None:
            return None
        evidence = _preferring(likelihood, self._units()[0])
        value = _value(evidence, start)
        return (evidence, value) if math.isfinite(value) else None

    def _by_covariance(self, every: Sequence[Rows]) -> Evidence:
        noisy, exact, tells = _split(every)
        return covariance_evidence(noisy, self._fields, self._box.dim, exact, tells)

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

    def evaluate(mixtures: Sequence[MixtureAxis], slopes: bool = True) -> tuple[float, Slopes]:
        value, found = evidence(mixtures, slopes)
        offs = [(m.lengthscales / (_TYPICAL * n)).log() / _SPREAD for m, n in zip(mixtures, lengths, strict=True)]
        value -= 0.5 * sum(float(off.square().sum()) for off in offs)
        if not slopes:
            return value, []
        triples = zip(mixtures, found, offs, strict=True)
        return value, [[own[0], own[1] - off / (_SPREAD * m.lengthscales), own[2]] for m, own, off in triples]

    return evaluate


def noisy_evidence(rows: Sequence[Rows], start: Sequence[MixtureAxis], lengths: Sequence[float]) -> Evidence | None:
    """Evidence of noisy rows given the exact ones in the space of weights; None where there would be too many.

    Args:
        rows: Of equations, conditions and observations, with values.
        start: Gaussian mixtures where learning will start, one per axis of every field.
        lengths: Of the axes.
    """
    noisy, exact, tells = _split(rows)
    return wave_evidence(noisy, start, lengths, _WEIGHTS, exact, tells, careful=True)


def _split(rows: Sequence[Rows]) -> tuple[list[Rows], list[Rows], bool]:
    """Noisy rows, exact rows, and whether the exact ones tell more than constraints do.

    Beside noisy data exact rows are constraints and no data. Counted as data, equations without a source would reward
    any prior that makes fields small, since a residual of zero at many places is then no surprise. Sources and values
    that are not zero still tell length scales and frequencies, whatever the size of the fields is: of them their
    density at the best scale of the priors is added.
    """
    exact = [r for r in rows if not float(r.noise.max()) > 0.0]
    noisy = [r for r in rows if float(r.noise.max()) > 0.0]
    return noisy, exact, any(r.values is not None and bool((r.values != 0.0).any()) for r in exact)


def _value(evidence: Evidence, mixtures: Sequence[MixtureAxis]) -> float:
    try:
        value = evidence(mixtures, slopes=False)[0]
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
