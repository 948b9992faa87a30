"""Which form of exact conditioning a linear problem gets, and its hyper-parameters.

All forms have the same posterior. In the space of weights where the prior is, to rounding, a finite sum of waves; by
conjugate gradients where equations are on a grid and conditions on whole faces; by one Cholesky factorisation else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.evidence import (
    Evidence,
    Learned,
    dense_evidence,
    feature_evidence,
    learn,
    line_evidence,
)
from gpkit.inference.collocation.exact_conditions import Separated, conditioned, lift_of, separate
from gpkit.inference.collocation.exact_dense import DensePosterior
from gpkit.inference.collocation.exact_features import field_features, projections
from gpkit.inference.collocation.exact_grid import GridPosterior
from gpkit.inference.collocation.exact_kernels import Mixtures, Start, mixtures_for
from gpkit.inference.collocation.exact_lift import Lift
from gpkit.inference.collocation.exact_priors import AxisPrior, FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact_problem import (
    condition_rows,
    equation_axes,
    equation_rows,
    observation_rows,
)
from gpkit.inference.collocation.exact_rows import Rows, RowTerm, prior_variance
from gpkit.inference.collocation.exact_start import broadband, is_uniform, lines_along
from gpkit.inference.collocation.exact_weights import FeaturePosterior
from gpkit.inference.collocation.forms import Jet, Problem
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope

__all__ = ["LinearEngine", "States"]

_CHOLESKY = "exact: one Cholesky factorisation of the covariance of all rows"
_DENSE_ROWS = 6000
_WEIGHTS = 3000
_DESIGN = 4e7
_EVIDENCE_WEIGHTS = 300

States = Sequence[Mapping[Jet, Tensor]]
"""Jets of a state at the collocation points of each equation."""


class LinearEngine:
    """Conditions fields on equations, linearised where they are not linear.

    Args:
        problem: In normal form.
        axes: Of the collocation grid.
        parameters: Values of unknown coefficients.
        kernel: See `exact.solve`.
        learn_kernel: Whether to learn.
        progress: Whether to show bars.
    """

    def __init__(
        self,
        problem: Problem,
        axes: Sequence[Tensor],
        parameters: Mapping[str, Tensor],
        kernel: Any,
        learn_kernel: bool,
        progress: bool,
    ) -> None:
        """Evaluate sources and data, and find where learning starts."""
        self.problem = problem
        self.axes = tuple(axes)
        self.parameters = parameters
        self.progress = progress
        self.learn_kernel = learn_kernel
        self.equation_axes = [equation_axes(e, axes) for e in problem.equations]
        self.conditions = [condition_rows(c, problem.box, axes, parameters) for c in problem.conditions]
        self.observations = observation_rows(problem, parameters)
        self.separated = separate(problem)
        linear = self.equation_rows(None)
        self.start: Start = mixtures_for(problem, kernel, [*linear, *self.conditions])
        self.mixtures: Mixtures = self._sized(self.start.mixtures, linear)
        self.learned: list[Learned] = []
        self._is_learned = False

    def equation_rows(self, states: States | None) -> list[Rows]:
        """Rows of all equations, linearised at a state where it is given."""
        rows = []
        for i, (e, axes) in enumerate(zip(self.problem.equations, self.equation_axes, strict=True)):
            label = f"equation {i + 1}" if len(self.problem.equations) > 1 else "the equation"
            rows.append(equation_rows(e, axes, self.parameters, states[i] if states else None, label))
        return rows

    @property
    def is_exact(self) -> bool:
        """Whether no data have noise, so that the scale of the prior can be fitted afterwards."""
        noisy = [e.source.noise for e in self.problem.equations] + [c.value.noise for c in self.problem.conditions]
        return not any(n > 0.0 for n in noisy) and not self.problem.observations

    def _sized(self, mixtures: Mixtures, rows: Sequence[Rows]) -> Mixtures:
        """Multiply the variances by what the size of the data asks for."""
        if self.start.fixed:
            return mixtures
        priors = [FieldPrior(m) for m in mixtures]
        ratios = []
        for r in [*rows, *self.conditions, *self.observations]:
            if r.values is None or not len(r):
                continue
            prior = float(prior_variance(r, priors).mean())
            square = float((r.values**2).mean())
            if square > 0.0 and prior > 0.0:
                ratios.append(square / prior)
        size = max(ratios, default=1.0) ** (1.0 / self.problem.box.dim)
        return [tuple(a.times(size) for a in m) for m in mixtures]

    def condition(self, states: States | None = None) -> Any:
        """The posterior given all rows."""
        rows = self.equation_rows(states)
        if not self._is_learned:
            self._learn(rows)
            self._is_learned = True
        posterior, method = self._posterior(rows)
        posterior.diagnostics["method"] = method
        posterior.diagnostics["kernel"] = self._describe()
        if self.learned:
            posterior.diagnostics["learning"] = [
                {"before": r.before, "after": r.after, "evaluations": r.evaluations, "message": r.message}
                for r in self.learned
            ]
        return posterior

    def _describe(self) -> list[list[dict[str, Any]]]:
        """Hyper-parameters by field and axis."""
        return [
            [
                {
                    "envelope": str(a.envelope),
                    "weights": a.weights.tolist(),
                    "lengthscales": a.lengthscales.tolist(),
                    "frequencies": [] if a.frequencies is None else a.frequencies.tolist(),
                }
                for a in axes
            ]
            for axes in self.mixtures
        ]

    def _learn(self, rows: Sequence[Rows]) -> None:
        if not self.learn_kernel or self.start.fixed:
            return
        box = self.problem.box
        if box.dim == 1:
            every = [*self.conditions, *rows, *self.observations]
            length, step = box.lengths[0], box.lengths[0] / max(len(self.axes[0]) - 1, 1)
            size = float(self.mixtures[0][0].weights.sum() / self.start.mixtures[0][0].weights.sum())
            tried = [[c.times(size)] * len(self.mixtures) for c in self.start.candidates[0]]
            best = max(tried, key=lambda m: self._evidence(every, m)(m)[0])
            result = learn(self._evidence(every, best), best, length, step)
            self.learned = [result]
            self.mixtures = [(m,) for m in result.mixtures]
            return
        blind = [set(range(box.dim)) for _ in self.problem.fields]
        for r in rows:
            self._learn_axes(r, blind)
        for r in self.conditions:
            self._learn_axes(r, blind)
        self._choose_blind(rows, blind)

    def _evidence(self, rows: Sequence[Rows], mixtures: Sequence[MixtureAxis]) -> Evidence:
        """On one axis: in the space of weights if there are few, else by the covariance of the rows."""
        length = self.problem.box.lengths[0]
        waves = [WaveAxis.of_mixture(m, length) for m in mixtures]
        if all(w is not None for w in waves) and sum(2 * len(w.powers) for w in waves if w) <= _EVIDENCE_WEIGHTS:
            return feature_evidence(rows, length, self.is_exact)
        return dense_evidence(rows, self.is_exact)

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
            best = max(tried, key=lambda m: evidence([m])[0])
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
                length, points = self.problem.box.lengths[j], len(self.axes[j])
                envelope = self.mixtures[f][j].envelope
                tried = [self.mixtures[f][j]]
                tried += [broadband(envelope, length, points, components=6, cut=cut) for cut in (0.05, 0.12, 0.25)]
                scores = []
                for mixture in tried:
                    self._set_axis(f, j, mixture)
                    waves = self._wave_priors()
                    found = None if waves is None else self._by_weights(rows, waves)
                    scores.append(float("-inf") if found is None else found.diagnostics["log_evidence"])
                self._set_axis(f, j, tried[scores.index(max(scores))])

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

    def _posterior(self, rows: list[Rows]) -> tuple[Any, str]:
        dim = self.problem.box.dim
        waves = self._wave_priors()
        if waves is not None:
            found = self._by_weights(rows, waves)
            if found is not None:
                return found, "exact: in the space of weights, since the prior is a finite sum of waves to rounding"
        total = sum(len(r) for r in [*rows, *self.conditions, *self.observations])
        priors = [FieldPrior(m) for m in self.mixtures]
        if dim == 1 or (total <= _DENSE_ROWS and (self.separated is None or self.observations)):
            self._require_dense(total)
            return self._dense(rows, priors), _CHOLESKY
        if self.separated is not None and not self.observations and not self.problem.periodic:
            posterior = self._by_gradients(rows, priors, self.separated)
            if isinstance(posterior, DensePosterior):
                return posterior, f"{_CHOLESKY}, since conjugate gradients did not converge"
            return posterior, (
                "exact: conjugate gradients with a Sylvester preconditioner, conditions in the prior of each axis"
            )
        self._require_dense(total)
        return self._dense(rows, priors), _CHOLESKY

    def _require_dense(self, total: int) -> None:
        if total > 2 * _DENSE_ROWS:
            size = 3 * 8 * total**2 / 1e9
            raise InvalidDataError(
                f"exact conditioning on {total} rows that are not on whole faces would take {size:.0f} GB: "
                "use a coarser grid or method='spectral'"
            )

    def _wave_priors(self) -> list[FieldPrior] | None:
        """Priors as finite sums of waves, where all axes are."""
        box = self.problem.box
        priors = []
        for mixtures in self.mixtures:
            axes: list[AxisPrior] = []
            for j, m in enumerate(mixtures):
                if j in self.problem.periodic:
                    axes.append(self._on_circle(m, j))
                    continue
                waves = WaveAxis.of_mixture(m, box.lengths[j])
                if waves is None:
                    return None
                axes.append(waves)
            priors.append(FieldPrior(tuple(axes)))
        return priors

    def _on_circle(self, mixture: MixtureAxis, axis: int) -> WaveAxis:
        length, points = self.problem.box.lengths[axis], len(self.axes[axis])
        return WaveAxis.wrapped(mixture, length, 1.0 * points / length)

    def _by_weights(self, rows: Sequence[Rows], priors: list[FieldPrior]) -> FeaturePosterior | None:
        lifts: list[Lift] | None = None
        every = [*rows, *self.observations]
        # Exact rows beside noisy ones would have weights that differ by more digits than there are.
        if self.separated is not None and (self.problem.box.dim > 1 or not self.is_exact):
            own = self.separated
            priors = [conditioned(p, own.constraints[f]) for f, p in enumerate(priors)]
            lifts = [lift_of(self.problem, f, p, own, self.parameters) for f, p in enumerate(priors)]
            every = [_minus_lift(r, lifts) for r in every]
        else:
            every += self.conditions
        limit = 20_000 if self.problem.box.dim == 1 else _WEIGHTS
        fields = []
        for f, p in enumerate(priors):
            features = field_features(p, every, f, limit)
            if features is None:
                return None
            fields.append(features)
        weights = sum(len(f) for f in fields)
        if weights > limit or any(projections(r, fields) is None and len(r) * weights > _DESIGN for r in every):
            return None
        return FeaturePosterior(every, fields, lifts, fit_scale=self.is_exact)

    def _dense(self, rows: list[Rows], priors: list[FieldPrior]) -> DensePosterior:
        if self.problem.periodic:
            priors = self._with_circles(priors)
        return DensePosterior([*self.conditions, *rows, *self.observations], priors, fit_scale=self.is_exact)

    def _with_circles(self, priors: list[FieldPrior]) -> list[FieldPrior]:
        return [
            FieldPrior(
                tuple(
                    self._on_circle(m, j) if j in self.problem.periodic else m for j, m in enumerate(self.mixtures[f])
                )
            )
            for f, _ in enumerate(priors)
        ]

    def _by_gradients(
        self, rows: list[Rows], priors: list[FieldPrior], own: Separated
    ) -> GridPosterior | DensePosterior:
        """With the mixture's own envelope if it was given; else with the smoothest Student spectrum that converges."""
        if self.start.fixed:
            return self._on_grid(rows, priors, own)
        highest = max(o for r in rows for t in r.terms for o in t.jet.orders)
        smoothness = [nu for nu in (4.5, 3.5, 2.5) if 2 * highest <= 2.0 * nu - 1.0]
        for nu in smoothness:
            lengths = self.problem.box.lengths
            rougher = [
                FieldPrior(tuple(_rougher(a, nu, 0.5 * n) for a, n in zip(m, lengths, strict=True)))
                for m in self.mixtures
            ]
            try:
                posterior = self._on_grid(rows, rougher, own)
            except ConvergenceError:
                if nu > smoothness[-1]:
                    continue
                if sum(len(r) for r in rows) > _DENSE_ROWS:
                    raise
                return self._dense(rows, rougher)
            posterior.diagnostics["smoothness"] = nu
            return posterior
        raise InvalidDataError(f"no kernel of these methods has the derivatives of order {2 * highest} that are needed")

    def _on_grid(self, rows: list[Rows], priors: list[FieldPrior], own: Separated) -> GridPosterior:
        priors = [conditioned(p, own.constraints[f]) for f, p in enumerate(priors)]
        lifts = [lift_of(self.problem, f, p, own, self.parameters) for f, p in enumerate(priors)]
        inner = [_minus_lift(_inside(r, own, self.problem), lifts) for r in rows]
        return GridPosterior(inner, priors, lifts, fit_scale=self.is_exact)


def _rougher(axis: MixtureAxis, smoothness: float, longest: float) -> MixtureAxis:
    """The same mixture with a Student spectrum and not too long scales: not numerically singular on a grid."""
    if not isinstance(axis.envelope, GaussianEnvelope):
        return axis
    lengths = axis.lengthscales.clamp_max(longest)
    return dataclasses.replace(axis, envelope=MaternEnvelope(smoothness), lengthscales=lengths)


def _minus_lift(rows: Rows, lifts: Sequence[Lift]) -> Rows:
    """The same rows for what the lift leaves over."""
    total = torch.zeros(rows.shape, dtype=torch.float64)
    size = rows.size
    for t in rows.terms:
        lift = lifts[t.jet.field]
        if rows.is_grid:
            values = lift.on_grid(t.jet, rows.coordinates)
        else:
            values = lift.at(t.jet, torch.stack(rows.coordinates, dim=1))
        total = total + t.coefficient * values
        size = max(size, float((t.coefficient * values).pow(2).mean().sqrt()))
    assert rows.values is not None
    size = max(size, float(rows.values.pow(2).mean().sqrt()))
    return dataclasses.replace(rows, values=rows.values - total.reshape(-1), size=size)


def _inside(rows: Rows, own: Separated, problem: Problem) -> Rows:
    """Without the points on faces where the main field's value is given: the prior does not vary there."""
    fields = rows.fields()
    index: list[Tensor] = []
    for j, x in enumerate(rows.coordinates):
        keep = torch.ones(len(x), dtype=torch.bool)
        for f in fields:
            for c in own.constraints[f][j]:
                if c.orders == (0,):
                    keep &= (x - c.points[0]).abs() > 1e-12 * problem.box.lengths[j]
        index.append(torch.nonzero(keep)[:, 0])
    if all(len(i) == len(x) for i, x in zip(index, rows.coordinates, strict=True)):
        return rows
    coordinates = tuple(x[i] for x, i in zip(rows.coordinates, index, strict=True))
    mesh = torch.meshgrid(*index, indexing="ij")
    assert rows.values is not None
    values = rows.values.reshape(rows.shape)[mesh].reshape(-1)
    terms = tuple(
        RowTerm(t.jet, t.coefficient.expand(rows.shape)[mesh] if t.coefficient.dim() else t.coefficient)
        for t in rows.terms
    )
    return Rows(terms, coordinates, True, values, rows.noise, rows.label)
