"""The engine of exact conditioning: its rows, its hyper-parameters, and the form that meets the equations best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.collocation.exact.averaging import MixturePosterior
from gpkit.inference.collocation.exact.forms import Conditioner, Form
from gpkit.inference.collocation.exact.guide import approximate_solution, guide_rows
from gpkit.inference.collocation.exact.held_out import (
    CoveringPosterior,
    held_out_points,
    held_out_scores,
    off_grid_residual,
)
from gpkit.inference.collocation.exact.kernels import Mixtures, Start, mixtures_for
from gpkit.inference.collocation.exact.lbfgs import Learned
from gpkit.inference.collocation.exact.learning import Learner, sized
from gpkit.inference.collocation.exact.noisy_learning import NoisyLearner
from gpkit.inference.collocation.exact.problem import (
    collocation_axes,
    condition_rows,
    equation_axes,
    equation_rows,
    observation_rows,
)
from gpkit.inference.collocation.exact.rows import Rows
from gpkit.inference.collocation.forms import Jet, Problem
from gpkit.inference.collocation.posterior import FieldPosterior

__all__ = ["LinearEngine", "States"]

_RESOLVED = 1e-4
_GOOD = 0.03
_PATIENCE = 3
_SCORED = 32
_HELPFUL = 0.3
_SMALLEST_FACTOR = 0.01
_FORESEEN = 0.05
_SURPRISING = 2.0
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
        self.mixtures: Mixtures = list(self.start.mixtures)
        if not self.start.fixed:
            self.mixtures = sized(self.mixtures, [*linear, *self.conditions, *self.observations])
        self.learner = Learner(self.conditioner, self.start, self._guides)
        self.learner.mixtures = self.mixtures
        self.learned: list[Learned] = []
        self.how: dict[str, Any] = {}
        self.form: Form | None = None
        self._noisy: NoisyLearner | None = None
        self._rows: list[Rows] = []
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

    def condition(self, states: States | None = None, like: Any = None) -> Any:
        """The posterior given all rows.

        Args:
            states: Where the equations are linearised.
            like: The posterior at a state near it, from which iterations start.
        """
        self._rows = rows = self.equation_rows(states)
        if self.form is None:
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
        learned = self.learned or self.learner.learned
        if learned:
            posterior.diagnostics["hyperparameters"] = self.how
            posterior.diagnostics["learning"] = [
                {"before": r.before, "after": r.after, "evaluations": r.evaluations, "message": r.message}
                for r in learned
            ]
        return posterior

    def _priors(self, rows: list[Rows]) -> Iterator[tuple[Mixtures, dict[str, Any]]]:
        """Hyper-parameters to try, one after another, and what they were learned from."""
        if not self.learn_kernel or self.start.fixed:
            yield self.mixtures, {}
            return
        if not self.is_exact:
            learner = NoisyLearner(self.conditioner, self.start)
            mixtures = learner.learn(rows)
            self.learned, self._noisy = learner.learned, learner
            yield mixtures, learner.how
            return
        first = self.learner.learn(rows)
        if self.problem.box.dim == 1:
            yield first, self.learner.how
            return
        how = self.learner.how
        refined = self.learner.refine(rows, first)
        if refined is not None:
            yield refined
        yield first, how
        for rougher in (True, False):
            # Only where no form met the equations with those.
            refined = self.learner.refine_part(rows, first, rougher)
            if refined is not None:
                yield refined

    def _choose(self, rows: list[Rows]) -> tuple[Form, Any]:
        """The first prior and form whose posterior meets the equations off the grid, or those that meet them best."""
        best: tuple[Form, Any] | None = None
        least, error, failures, useless = float("inf"), None, 0, set[str]()
        for mixtures, how in self._priors(rows):
            hopeless = set[str]()
            for form in self.conditioner.forms(mixtures, rows, self.start.fixed):
                if form.kind in hopeless | useless:
                    continue
                try:
                    posterior = self.conditioner.posterior(form, mixtures, rows)
                except (ConvergenceError, InvalidDataError, NotPositiveDefiniteError) as failure:
                    error, failures = failure, failures + (form.kind == "gradients")
                    if failures >= _PATIENCE:
                        useless.add("gradients")
                    continue
                if posterior is None:
                    continue
                residual = off_grid_residual(self.problem, posterior, self.parameters, self._points)
                judged = self.is_exact and residual is not None
                size = residual if judged and residual is not None else 0.0
                if best is not None and size > least:
                    hopeless.add(form.kind)
                if best is None or size < 0.5 * least:
                    best, least = (form, posterior), size
                    self.mixtures, self.how = mixtures, {**how, "held_out_residual": residual if judged else None}
                if size < (_RESOLVED if form.kind == "weights" else _GOOD):
                    return best
        if best is None:
            raise error or ConvergenceError("the problem is too large for every form of exact conditioning")
        return best

    def covering(self, posterior: Any) -> FieldPosterior:
        """The posterior with deviations that cover its discretisation error, where no data have noise."""
        diagnostics = posterior.diagnostics
        scored = self._points[:: max(1, len(self._points) // _SCORED)]
        if not self.is_exact:
            averaged = self._averaged(posterior)
            diagnostics["residual_tolerance"] = self._tolerance(averaged, scored)
            return averaged
        residual = off_grid_residual(self.problem, posterior, self.parameters, self._points)
        if residual is None:
            return posterior
        square = held_out_scores(self.problem, posterior, self.parameters, scored)
        guide = self.guide or approximate_solution(self.problem, self.axes, self.parameters)
        guide_residual = self._residual_of(guide)
        if guide_residual > _HELPFUL * residual:
            refined = self._refined(posterior)
            refined_residual = self._residual_of(refined)
            if refined_residual < guide_residual:
                guide, guide_residual = refined, refined_residual
        inflation = max(1.0, square if square is not None else 1.0)
        if square is not None and not self.start.fixed and guide_residual < _HELPFUL * residual:
            # Where the error is known the prior's amplitude may also turn out to be too large.
            inflation = max(square, _SMALLEST_FACTOR)
        diagnostics |= {
            "held_out_residual": residual,
            "held_out_score": square,
            "variance_inflation": inflation,
            "guide_residual": guide_residual,
        }
        usable = guide if guide_residual < float("inf") else None
        return CoveringPosterior(posterior, usable, residual, guide_residual, inflation, self._points)

    def _averaged(self, posterior: Any) -> FieldPosterior:
        """Over the hyper-parameters that noisy data leave likely, at the last linearisation."""
        if self._noisy is None or self.form is None:
            return posterior
        parts, shares, asked = [], [], 0
        met = max(self._between(posterior), _FORESEEN)
        for share, mixtures in self._noisy.likely():
            asked += 1
            try:
                part = self.conditioner.posterior(self.form, mixtures, self._rows)
            except (ConvergenceError, InvalidDataError, NotPositiveDefiniteError):
                continue
            # A prior too rough for the grid holds the equations at its points alone.
            if part is not None and self._between(part) <= met:
                parts.append(part)
                shares.append(share)
        posterior.diagnostics["hyperparameters"]["averaged_over"] = {"asked": asked, "used": len(parts)}
        if not parts:
            return posterior
        total = sum(shares)
        centre = None if self.problem.is_linear else posterior
        found = MixturePosterior(parts, [s / total for s in shares], centre)
        found.diagnostics = posterior.diagnostics
        return found

    def discretisation(self, posterior: FieldPosterior) -> float:
        """Relative residual of exact equations between the points of the grid; zero where data have noise."""
        return self._between(posterior) if self.is_exact else 0.0

    def _between(self, posterior: FieldPosterior) -> float:
        """Relative residual of the equations between the points of the grid; zero where it is not known."""
        return off_grid_residual(self.problem, posterior, self.parameters, self._points) or 0.0

    def _tolerance(self, posterior: Any, points: Tensor) -> float:
        """Residual of exact equations between the points that is small beside what the noise leaves uncertain."""
        relative = []
        for f in range(len(self.problem.fields)):
            jet = Jet(f, (0,) * self.problem.box.dim)
            size = float(posterior.mean(jet, self._points).pow(2).mean().sqrt())
            relative.append(float(posterior.variance(jet, points).median().sqrt()) / max(size, 1e-300))
        tolerance = 0.1 * min([*relative, 1.0])
        residual = off_grid_residual(self.problem, posterior, self.parameters, self._points)
        if residual is not None and tolerance < residual < _FORESEEN:
            square = held_out_scores(self.problem, posterior, self.parameters, points)
            if square is not None and square < _SURPRISING:
                # What the posterior deviations of the equations foresee is in those of the fields.
                tolerance = 2.0 * residual
        return tolerance

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
