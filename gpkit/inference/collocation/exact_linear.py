"""The engine of exact conditioning: its rows, its hyper-parameters, and the form that meets the equations best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.collocation.evidence import (
    Evidence,
    Learned,
    dense_evidence,
    feature_evidence,
    learn,
    line_evidence,
)
from gpkit.inference.collocation.exact_forms import Conditioner, Form
from gpkit.inference.collocation.exact_guide import approximate_solution, guide_rows
from gpkit.inference.collocation.exact_held_out import (
    CoveringPosterior,
    held_out_points,
    held_out_scores,
    off_grid_residual,
)
from gpkit.inference.collocation.exact_kernels import Mixtures, Start, mixtures_for
from gpkit.inference.collocation.exact_priors import FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact_problem import (
    collocation_axes,
    condition_rows,
    equation_axes,
    equation_rows,
    observation_rows,
)
from gpkit.inference.collocation.exact_rows import Rows, prior_variance
from gpkit.inference.collocation.exact_start import broadband, is_uniform, lines_along
from gpkit.inference.collocation.forms import Jet, Problem
from gpkit.inference.collocation.posterior import FieldPosterior

__all__ = ["LinearEngine", "States"]

_EVIDENCE_WEIGHTS = 300
_RESOLVED = 1e-4
_GOOD = 0.03
_SCORED = 32
_HELPFUL = 0.3
_FINEST = 40_000
_FINEST_SOURCE = 400_000

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
        self.conditioner = Conditioner(problem, axes, parameters, self.conditions, self.observations, self.is_exact)
        linear = self.equation_rows(None)
        self.guide, self._guides = self._find_guide(kernel)
        points = [len(x) for x in axes]
        self.start: Start = mixtures_for(problem, kernel, self._guides or self._finer_rows(linear), points)
        self.mixtures: Mixtures = self._sized(self.start.mixtures, linear)
        self.learned: list[Learned] = []
        self.form: Form | None = None
        self._points = held_out_points(problem.box, axes)

    def _find_guide(self, kernel: Any) -> tuple[FieldPosterior | None, list[Rows]]:
        """The spectral solution where Newton needs a start or two and more axes have hyper-parameters to learn."""
        if not self.is_exact or (self.problem.is_linear and self.problem.box.dim == 1):
            return None, []
        learns = self.learn_kernel and isinstance(kernel, str)
        guide = approximate_solution(self.problem, self.axes, self.parameters)
        return guide, guide_rows(self.problem, self.axes, guide) if learns else []

    def equation_rows(self, states: States | None) -> list[Rows]:
        """Rows of all equations, linearised at a state where it is given."""
        rows = []
        for i, (e, axes) in enumerate(zip(self.problem.equations, self.equation_axes, strict=True)):
            label = f"equation {i + 1}" if len(self.problem.equations) > 1 else "the equation"
            rows.append(equation_rows(e, axes, self.parameters, states[i] if states else None, label))
        return rows

    def _finer_rows(self, rows: list[Rows]) -> list[Rows]:
        """Sources and boundary data as they are between the points as well, so that no frequency has an alias."""
        box, periodic = self.problem.box, self.problem.periodic
        grid = [2 * len(x) if j in periodic else 2 * len(x) - 1 for j, x in enumerate(self.axes)]
        if math.prod(grid) > _FINEST_SOURCE or any(e.source.values is not None for e in self.problem.equations):
            return [*rows, *self.conditions]
        axes = collocation_axes(box, grid, periodic)
        finer = [equation_rows(e, axes, self.parameters) for e in self.problem.equations]
        return [*finer, *(condition_rows(c, box, axes, self.parameters) for c in self.problem.conditions)]

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

    def condition(self, states: States | None = None, like: Any = None) -> Any:
        """The posterior given all rows.

        Args:
            states: Where the equations are linearised.
            like: The posterior at a state near it, from which iterations start.
        """
        rows = self.equation_rows(states)
        if self.form is None:
            self._learn(rows)
            self.form, posterior = self._choose(rows)
        else:
            posterior = self.conditioner.posterior(self.form, self.mixtures, rows, like)
            if posterior is None:
                raise ConvergenceError(
                    "least squares with the factor at the state before did not converge, and the whole design "
                    "does not fit: use a coarser grid"
                )
        posterior.diagnostics["method"] = self.form.text
        posterior.diagnostics["kernel"] = self._describe()
        if self.learned:
            posterior.diagnostics["learning"] = [
                {"before": r.before, "after": r.after, "evaluations": r.evaluations, "message": r.message}
                for r in self.learned
            ]
        return posterior

    def _choose(self, rows: list[Rows]) -> tuple[Form, Any]:
        """The first form whose posterior meets the equations off the grid, or the one that meets them best."""
        best: tuple[Form, Any] | None = None
        least, error, hopeless = float("inf"), None, set[str]()
        for form in self.conditioner.forms(self.mixtures, rows, self.start.fixed):
            if best is not None and form.kind in hopeless:
                continue
            try:
                posterior = self.conditioner.posterior(form, self.mixtures, rows)
            except (ConvergenceError, InvalidDataError, NotPositiveDefiniteError) as failure:
                error = failure
                continue
            if posterior is None:
                continue
            residual = off_grid_residual(self.problem, posterior, self.parameters, self._points)
            if not self.is_exact or residual is None:
                return form, posterior
            if best is not None and residual > least:
                hopeless.add(form.kind)
            if best is None or residual < 0.5 * least:
                best, least = (form, posterior), residual
            if residual < (_RESOLVED if form.kind == "weights" else _GOOD):
                break
        if best is None:
            raise error or ConvergenceError("the problem is too large for every form of exact conditioning")
        return best

    def covering(self, posterior: Any) -> FieldPosterior:
        """The posterior with deviations that cover its discretisation error, where no data have noise."""
        diagnostics = posterior.diagnostics
        residual = off_grid_residual(self.problem, posterior, self.parameters, self._points)
        if not self.is_exact or residual is None:
            return posterior
        scored = self._points[:: max(1, len(self._points) // _SCORED)]
        square = held_out_scores(self.problem, posterior, self.parameters, scored)
        guide = self.guide or approximate_solution(self.problem, self.axes, self.parameters)
        guide_residual = self._residual_of(guide)
        if guide_residual > _HELPFUL * residual:
            refined = self._refined(posterior)
            refined_residual = self._residual_of(refined)
            if refined_residual < guide_residual:
                guide, guide_residual = refined, refined_residual
        inflation = max(1.0, square if square is not None else 1.0)
        diagnostics |= {
            "held_out_residual": residual,
            "held_out_score": square,
            "variance_inflation": inflation,
            "guide_residual": guide_residual,
        }
        usable = guide if guide_residual < float("inf") else None
        return CoveringPosterior(posterior, usable, residual, guide_residual, inflation, self._points)

    def _residual_of(self, guide: FieldPosterior | None) -> float:
        if guide is None:
            return float("inf")
        found = off_grid_residual(self.problem, guide, self.parameters, self._points)
        return float("inf") if found is None else found

    def _refined(self, posterior: Any) -> FieldPosterior | None:
        """The same prior and form on a grid twice as fine, linearised at the posterior's mean."""
        box, periodic = self.problem.box, self.problem.periodic
        grid = [2 * len(x) if j in periodic else 2 * len(x) - 1 for j, x in enumerate(self.axes)]
        if self.form is None or math.prod(grid) > _FINEST:
            return None
        axes = collocation_axes(box, grid, periodic)
        rows = []
        for e in self.problem.equations:
            state = None if e.is_linear else {j: posterior.mean_on_grid(j, axes) for j in e.all_jets}
            rows.append(equation_rows(e, axes, self.parameters, state))
        conditions = [condition_rows(c, box, axes, self.parameters) for c in self.problem.conditions]
        conditioner = Conditioner(self.problem, axes, self.parameters, conditions, [], self.is_exact)
        try:
            if self.form not in conditioner.forms(self.mixtures, rows, self.start.fixed):
                return None
            return conditioner.posterior(self.form, self.mixtures, rows)
        except (ConvergenceError, InvalidDataError, NotPositiveDefiniteError):
            return None

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
        for r in [*self._guides, *rows]:
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
                    waves = self.conditioner.wave_priors(self.mixtures)
                    found = None if waves is None else self.conditioner.by_weights(rows, waves)
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
