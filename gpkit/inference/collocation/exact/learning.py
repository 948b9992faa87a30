"""Hyper-parameters of exact conditioning: where learning starts, and which evidence it climbs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.covariance_evidence import covariance_evidence
from gpkit.inference.collocation.exact.forms import Conditioner
from gpkit.inference.collocation.exact.kernels import Mixtures, Start
from gpkit.inference.collocation.exact.lbfgs import (
    Evidence,
    Learned,
    feature_evidence,
    learn,
    line_evidence,
)
from gpkit.inference.collocation.exact.priors import NO_FACTOR, FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact.rows import Rows, blocks_of_rows, prior_variance
from gpkit.inference.collocation.exact.start import broadband, is_uniform, lines_along
from gpkit.inference.collocation.exact.wave_evidence import wave_evidence
from gpkit.kernels.stationary import GaussianEnvelope

__all__ = ["Learner", "sized"]

_EVIDENCE_WEIGHTS = 300
_REFINED_WEIGHTS = 900
_REFINEMENTS = 15
_PART = 360
_PART_OF_FACE = 30
_SIDE = 6


def sized(mixtures: Mixtures, rows: Sequence[Rows]) -> Mixtures:
    """The same mixtures with variances multiplied by what the size of the rows' values asks for."""
    priors = [FieldPrior(m) for m in mixtures]
    ratios = []
    for r in rows:
        if r.values is None or not len(r):
            continue
        prior = float(prior_variance(r, priors).mean())
        square = float((r.values**2).mean())
        if square > 0.0 and prior > 0.0:
            ratios.append(square / prior)
    size = max(ratios, default=1.0) ** (1.0 / len(mixtures[0]))
    return [tuple(a.times(size) for a in m) for m in mixtures]


class Learner:
    """Learns the mixtures of every field and axis from exact equations and conditions.

    Args:
        conditioner: Of the problem; has its rows of conditions.
        start: Where learning starts.
        guides: Rows of an approximate solution, from which lines are taken first.

    Attributes:
        learned: Results of the optimiser, in order.
        how: What the hyper-parameters were learned from.
    """

    def __init__(self, conditioner: Conditioner, start: Start, guides: Sequence[Rows]) -> None:
        """Nothing is learned yet."""
        self.problem, self.start, self._guides = conditioner.problem, start, list(guides)
        self._conditioner, self._axes = conditioner, conditioner.axes
        self._conditions = conditioner.conditions
        self.mixtures: Mixtures = list(start.mixtures)
        self.learned: list[Learned] = []
        self.how: dict[str, Any] = {}

    def learn(self, rows: Sequence[Rows]) -> Mixtures:
        """From the exact evidence on one axis; from lines of the guide or of the data, axis by axis, on several."""
        box = self.problem.box
        if box.dim == 1:
            every = [*self._conditions, *rows]
            length, step = box.lengths[0], box.lengths[0] / max(len(self._axes[0]) - 1, 1)
            size = float(self.mixtures[0][0].weights.sum() / self.start.mixtures[0][0].weights.sum())
            tried = [[c.times(size)] * len(self.mixtures) for c in self.start.candidates[0]]
            best = max(tried, key=lambda m: self._evidence(every, m)(m, slopes=False)[0])
            result = learn(self._evidence(every, best), best, length, step)
            self.learned = [result]
            rows_seen = sum(len(r) for r in every)
            self.how = {"evidence": "exact, of all rows", "points": rows_seen, "value": result.after}
            self.mixtures = [(m,) for m in result.mixtures]
            return self.mixtures
        blind = [set(range(box.dim)) for _ in self.problem.fields]
        for r in [*self._guides, *rows]:
            self._learn_axes(r, blind)
        for r in self._conditions:
            self._learn_axes(r, blind)
        self._choose_blind(rows, blind)
        lines = "the spectral solution" if self._guides else "sources and boundary data"
        self.how = {"evidence": f"of lines of {lines}, axis by axis", "points": max(len(x) for x in self._axes)}
        return self.mixtures

    def refine(self, rows: Sequence[Rows], start: Mixtures) -> tuple[Mixtures, dict[str, Any]] | None:
        """From there to a maximum of the exact evidence of all rows, over all axes together, in the space of weights.

        Args:
            rows: Of the equations.
            start: Hyper-parameters learned axis by axis.

        Returns:
            Hyper-parameters, and what the evidence was of; None where there are no or too many weights.
        """
        every = [*rows, *self._conditions]
        flat = [m for own in sized(start, every) for m in own]
        if not all(isinstance(m.envelope, GaussianEnvelope) for m in flat):
            return None
        if any(not r.is_grid or any(t.coefficient.dim() for t in r.terms) for r in every):
            return None
        found = wave_evidence(every, flat, self.problem.box.lengths, _REFINED_WEIGHTS)
        said = {"evidence": "exact, of all rows, in the space of weights", "points": sum(len(r) for r in every)}
        return None if found is None else self._climb(found, flat, said)

    def refine_part(
        self, rows: Sequence[Rows], start: Mixtures, rougher: bool
    ) -> tuple[Mixtures, dict[str, Any]] | None:
        """From there to a maximum of the exact evidence of some hundreds of the rows, in blocks of neighbours.

        Args:
            rows: Of the equations.
            start: Hyper-parameters learned axis by axis.
            rougher: Whether Student spectra take the place of Gaussian ones before learning.
        """
        generator = torch.Generator().manual_seed(0)
        parts = [blocks_of_rows(r, _PART, _SIDE, generator) if r.is_grid else r for r in rows]
        parts += [blocks_of_rows(r, _PART_OF_FACE, _SIDE, generator) for r in self._conditions]
        mixtures = self._conditioner.rougher(start, self._smoothness(rows)) if rougher else start
        found = covariance_evidence([], len(self.problem.fields), self.problem.box.dim, parts, profiled=True)
        many = sum(len(r) for r in parts)
        said = {"evidence": f"exact, of {many} of the rows, in blocks of neighbours", "points": many}
        return self._climb(found, [m for own in mixtures for m in own], said)

    def _climb(
        self, evidence: Evidence, start: list[MixtureAxis], said: dict[str, Any]
    ) -> tuple[Mixtures, dict[str, Any]] | None:
        try:
            value, _ = evidence(start, slopes=False)
        except NO_FACTOR:
            return None
        if not math.isfinite(value):
            return None
        box, d = self.problem.box, self.problem.box.dim
        count = len(start) // d
        steps = [n / max(len(x) - 1, 1) for n, x in zip(box.lengths, self._axes, strict=True)]
        result = learn(evidence, start, list(box.lengths) * count, steps * count, _REFINEMENTS, 1e-9)
        self.learned = [*self.learned, result]
        return [tuple(result.mixtures[f * d : (f + 1) * d]) for f in range(count)], {**said, "value": result.after}

    def _smoothness(self, rows: Sequence[Rows]) -> float:
        """Of the smoothest Student spectrum."""
        highest = max(o for r in rows for t in r.terms for o in t.jet.orders)
        return max(4.5, highest + 0.5)

    def _evidence(self, rows: Sequence[Rows], mixtures: Sequence[MixtureAxis]) -> Evidence:
        """On one axis: in the space of weights if there are few, else by the covariance of the rows."""
        length = self.problem.box.lengths[0]
        waves = [WaveAxis.of_mixture(m, length) for m in mixtures]
        if all(w is not None for w in waves) and sum(2 * len(w.powers) for w in waves if w) <= _EVIDENCE_WEIGHTS:
            return feature_evidence(rows, length, True)
        return covariance_evidence([], len(mixtures), 1, rows, profiled=True)

    def _learn_axes(self, rows: Rows, blind: list[set[int]]) -> None:
        """Learn the axes of a field, one after another, from lines of the values of rows that are about it alone.

        Args:
            rows: Of an equation or a condition.
            blind: By field, the axes that nothing was learned about so far; those learned are taken out.
        """
        fields = rows.fields()
        if rows.values is None or float(rows.values.abs().max()) == 0.0 or len(fields) != 1:
            return
        f = next(iter(fields))
        for j, x in enumerate(rows.coordinates):
            if len(x) < 8 or j not in blind[f] or not is_uniform(x):
                continue
            lines = lines_along(rows.values.reshape(rows.shape), j)
            moments = self._moments(rows, f, j)
            if not float(moments.diagonal().max()) > 0.0:
                continue
            length, step = self.problem.box.lengths[j], float(x[-1] - x[0]) / (len(x) - 1)
            evidence = line_evidence(x, lines, moments, float(rows.noise.mean()))
            size = float(self.mixtures[f][j].weights.sum())
            tried = [c.times(size) for c in self.start.candidates[j]]
            best = max(tried, key=lambda m: evidence([m], slopes=False)[0])
            result = learn(evidence, [best], length, step, iterations=20)
            self.learned.append(result)
            self._set_axis(f, j, result.mixtures[0])
            blind[f].discard(j)

    def _set_axis(self, field: int, axis: int, mixture: MixtureAxis) -> None:
        axes = list(self.mixtures[field])
        axes[axis] = mixture
        self.mixtures[field] = tuple(axes)

    def _choose_blind(self, rows: Sequence[Rows], blind: list[set[int]]) -> None:
        """Axes along which there are no data, such as time after an initial state: the best of a few by evidence."""
        for f, axes in enumerate(blind):
            for j in sorted(axes):
                length, points = self.problem.box.lengths[j], len(self._axes[j])
                envelope = self.mixtures[f][j].envelope
                tried = [self.mixtures[f][j]]
                tried += [broadband(envelope, length, points, components=6, cut=cut) for cut in (0.05, 0.12, 0.25)]
                scores = []
                for mixture in tried:
                    self._set_axis(f, j, mixture)
                    scores.append(self._score(rows))
                self._set_axis(f, j, tried[scores.index(max(scores))])

    def _score(self, rows: Sequence[Rows]) -> float:
        """Log evidence of the present mixtures, minus infinity where it cannot be had."""
        waves = self._conditioner.wave_priors(self.mixtures)
        found = None if waves is None else self._conditioner.by_weights(rows, waves)
        return -math.inf if found is None else found.evidence(False)[0]

    def _moments(self, rows: Rows, field: int, axis: int) -> Tensor:
        """How strongly each pair of derivatives along an axis enters the variance of a row."""
        highest = max(t.jet.orders[axis] for t in rows.terms)
        moments = torch.zeros(highest + 1, highest + 1, dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        for s in rows.terms:
            for t in rows.terms:
                value = float((s.coefficient * t.coefficient).mean())
                for k, other in enumerate(self.mixtures[field]):
                    if k != axis:
                        pair = (s.jet.orders[k], t.jet.orders[k])
                        value *= float(other.variances(zero, [pair])[pair][0])
                moments[s.jet.orders[axis], t.jet.orders[axis]] += value
        return moments
