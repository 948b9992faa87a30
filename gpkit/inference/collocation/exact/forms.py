"""The forms of exact conditioning on a linear problem, and which of them a problem can have.

In the space of weights where the prior is, to rounding, a finite sum of waves; by conjugate gradients where equations
are on a grid and conditions on whole faces; by one Cholesky factorisation else. All condition on the same rows, but for
the equations on faces where values are given: conjugate gradients leave these out. A prior that is learned and not
given has rougher versions of itself, which are tried as well.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.exact.bordered import BorderedPosterior
from gpkit.inference.collocation.exact.conditions import Separated, conditioned, lift_of, separate
from gpkit.inference.collocation.exact.dense import DensePosterior
from gpkit.inference.collocation.exact.features import field_features, projections
from gpkit.inference.collocation.exact.grid import GridPosterior
from gpkit.inference.collocation.exact.iterated import IteratedPosterior
from gpkit.inference.collocation.exact.kernels import Mixtures
from gpkit.inference.collocation.exact.lift import Lift
from gpkit.inference.collocation.exact.priors import AxisPrior, FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact.rows import Rows, RowTerm
from gpkit.inference.collocation.exact.weights import FeaturePosterior
from gpkit.inference.collocation.forms import Parameters, Problem
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope

__all__ = ["Conditioner", "Form", "dense_refusal"]

_COPIES = 4
"""Of a covariance that are in memory while it is factorised."""
_SPEED = 2e10
"""Operations a second of a factorisation on one core."""
_SECONDS = 60.0
_FEW = 5000
_WEIGHTS = 3000
_MANY = 1500
_DESIGN = 4e7
_FEW_ROWS = 5
_ROUNDINGS = (1e-13, 1e-10, 1e-8)
_SMOOTHNESS = (4.5, 3.5, 2.5)


@dataclass(frozen=True)
class Form:
    """A way to condition.

    Attributes:
        kind: "weights", "gradients" or "covariance".
        rounding: Of weights: what arithmetic and the prior's smoothness are taken to do to exact values.
        smoothness: Of the Student spectra that replace Gaussian ones; None leaves the prior as it is.
    """

    kind: str
    rounding: float = _ROUNDINGS[0]
    smoothness: float | None = None

    @property
    def text(self) -> str:
        """For the diagnostics."""
        if self.kind == "weights":
            said = "exact: in the space of weights, since the prior is a finite sum of waves to rounding"
            return said if self.rounding == _ROUNDINGS[0] else f"{said} (values taken to {self.rounding:.0e})"
        if self.kind == "gradients":
            return "exact: conjugate gradients with a Sylvester preconditioner, conditions in the prior of each axis"
        return "exact: one Cholesky factorisation of the covariance of all rows"


def dense_refusal(rows: int) -> str | None:
    """Why the covariance of so many rows is not factorised, in a sentence with the numbers; None where it is."""
    size, seconds = _COPIES * 8.0 * rows**2, rows**3 / (3.0 * _SPEED)
    try:
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        free = math.inf
    if size <= 0.8 * free and seconds <= _SECONDS:
        return None
    short = "" if size <= 0.8 * free else f", of which {free / 2**30:.3g} GiB are free"
    return (
        f"exact conditioning on {rows} rows without a structure would take {size / 2**30:.3g} GiB of memory{short} and "
        f"about {seconds:.0f} s for each factorisation (at most {_SECONDS:.0f} s): use a coarser grid or "
        "method='spectral'"
    )


class Conditioner:
    """Conditions priors on rows.

    Args:
        problem: In normal form.
        axes: Of the collocation grid.
        parameters: Values of unknown coefficients.
        conditions: Rows of the conditions.
        observations: Rows of the observations.
        is_exact: Whether no data have noise, so that the scale of the prior can be fitted.
    """

    def __init__(
        self,
        problem: Problem,
        axes: Sequence[Tensor],
        parameters: Parameters,
        conditions: Sequence[Rows],
        observations: Sequence[Rows],
        is_exact: bool,
    ) -> None:
        """See whether conditions separate."""
        self.problem, self.axes, self.parameters = problem, tuple(axes), parameters
        self.conditions, self.observations, self.is_exact = list(conditions), list(observations), is_exact
        self.separated = separate(problem)

    def forms(self, mixtures: Mixtures, rows: Sequence[Rows], fixed: bool) -> list[Form]:
        """What can be tried, the most accurate first.

        Args:
            mixtures: Priors.
            rows: Of the equations.
            fixed: Whether the priors are the user's and may not be replaced by rougher ones.
        """
        found: list[Form] = []
        weights = self._count_weights(mixtures, rows)
        if weights is not None:
            found += [Form("weights", rounding) for rounding in (_ROUNDINGS if self.is_exact else _ROUNDINGS[:1])]
        gaussian = any(isinstance(a.envelope, GaussianEnvelope) for axes in mixtures for a in axes)
        highest = max(o for r in rows for t in r.terms for o in t.jet.orders)
        rougher: list[float | None] = [nu for nu in _SMOOTHNESS if 2 * highest <= 2.0 * nu - 1.0]
        rougher = rougher if gaussian and not fixed else []
        total = sum(len(r) for r in [*rows, *self.conditions, *self.observations])
        if self._has_grid_form():
            kinds = ["gradients", "covariance"] if dense_refusal(total) is None else ["gradients"]
            if total <= _FEW and not fixed:
                kinds = ["covariance"]  # a factorisation costs less than an iteration, and never fails
            others = [Form(kind, smoothness=nu) for kind in kinds for nu in rougher or [None]]
            # So many waves mean that the solution is none of a few, and their factor costs more than the covariance's.
            is_cheap = kinds[0] == "covariance" and weights is not None and weights > max(_MANY, 0.4 * total)
            return others + found if is_cheap else found + others
        refusal = dense_refusal(total)
        if refusal is not None and not found:
            raise InvalidDataError(refusal)
        if refusal is None:
            found.append(Form("covariance"))
            found += [Form("covariance", smoothness=nu) for nu in rougher if self.is_exact]
        return found

    def _count_weights(self, mixtures: Mixtures, rows: Sequence[Rows]) -> int | None:
        """How many weights all fields have; None where axes have no finite basis or there are too many."""
        priors = self.wave_priors(mixtures)
        if priors is None:
            return None
        if self.separated is not None and (self.problem.box.dim > 1 or not self.is_exact):
            priors = [conditioned(p, own) for p, own in zip(priors, self.separated.constraints, strict=True)]
        every = [*rows, *self.observations, *self.conditions]
        limit = 20_000 if self.problem.box.dim == 1 else _WEIGHTS
        fields = [field_features(p, every, f, limit) for f, p in enumerate(priors)]
        return None if any(f is None for f in fields) else sum(len(f) for f in fields if f is not None)

    def _has_grid_form(self) -> bool:
        return self.problem.box.dim > 1 and self.separated is not None

    def posterior(self, form: Form, mixtures: Mixtures, rows: list[Rows], like: Any = None) -> Any:
        """The posterior of a form, or None where it would be too large.

        Args:
            form: One of :meth:`forms`.
            mixtures: Priors.
            rows: Of the equations.
            like: Posterior of the same form of nearly the same rows.

        Raises:
            ConvergenceError: An iteration found no answer.
            NotPositiveDefiniteError: A covariance has no factor.
        """
        if form.kind == "weights":
            waves = self.wave_priors(mixtures)
            return None if waves is None else self.by_weights(rows, waves, form.rounding, like)
        if form.smoothness is not None:
            mixtures = self.rougher(mixtures, form.smoothness)
        circles = self.problem.periodic
        priors = [
            FieldPrior(tuple(self._on_circle(m, j) if j in circles else m for j, m in enumerate(own)))
            for own in mixtures
        ]
        found: Any
        if form.kind == "covariance":
            found = self._dense(rows, priors)
        else:
            assert self.separated is not None
            found = self._on_grid(rows, priors, self.separated, like)
        if form.smoothness is not None:
            found.diagnostics["smoothness"] = form.smoothness
        return found

    def wave_priors(self, mixtures: Mixtures) -> list[FieldPrior] | None:
        """Priors as finite sums of waves, where all axes are."""
        box = self.problem.box
        priors = []
        for own in mixtures:
            axes: list[AxisPrior] = []
            for j, m in enumerate(own):
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

    def by_weights(
        self, rows: Sequence[Rows], priors: list[FieldPrior], rounding: float = _ROUNDINGS[0], like: Any = None
    ) -> FeaturePosterior | None:
        """In the space of weights; None where there are too many."""
        lifts: list[Lift] | None = None
        every = [*rows, *self.observations]
        if isinstance(like, FeaturePosterior):
            return self._near(every, like)
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
        if weights > limit:
            return None
        whole = max((len(r) for r in every if projections(r, fields) is None), default=0)
        if whole > _FEW_ROWS * weights and self.problem.box.dim > 1:
            try:
                return IteratedPosterior(every, fields, lifts, self.is_exact, rounding)
            except ConvergenceError:
                pass  # the whole design is factorised if it fits
        if whole * weights > _DESIGN:
            return None
        return FeaturePosterior(every, fields, lifts, self.is_exact, rounding)

    def _near(self, every: list[Rows], like: FeaturePosterior) -> FeaturePosterior | None:
        """From the factor of a posterior at a state nearby."""
        lifts, whole = like.lifts, max(len(r) for r in every)
        every = [*every, *self.conditions] if lifts is None else [_minus_lift(r, lifts) for r in every]
        if self.problem.box.dim > 1:
            try:
                return IteratedPosterior(every, like.fields, lifts, self.is_exact, like.rounding, like)
            except ConvergenceError:
                pass  # the direct factor below takes over where it fits
        if whole * len(like.mean_weights) > _DESIGN:
            return None
        return FeaturePosterior(every, like.fields, lifts, self.is_exact, like.rounding, like)

    def _dense(self, rows: list[Rows], priors: list[FieldPrior]) -> DensePosterior:
        return DensePosterior([*self.conditions, *rows, *self.observations], priors, fit_scale=self.is_exact)

    def rougher(self, mixtures: Mixtures, smoothness: float) -> Mixtures:
        """With Student spectra in place of Gaussian ones."""
        lengths = self.problem.box.lengths
        return [tuple(_rougher(a, smoothness, 0.5 * n) for a, n in zip(own, lengths, strict=True)) for own in mixtures]

    def _on_grid(self, rows: list[Rows], priors: list[FieldPrior], own: Separated, like: Any) -> Any:
        priors = [conditioned(p, own.constraints[f]) for f, p in enumerate(priors)]
        lifts = [lift_of(self.problem, f, p, own, self.parameters) for f, p in enumerate(priors)]
        inner = [_minus_lift(_inside(r, own, self.problem), lifts) for r in rows]
        before = like.inner if isinstance(like, BorderedPosterior) else like
        before = before if isinstance(before, GridPosterior) else None
        found = GridPosterior(inner, priors, lifts, fit_scale=self.is_exact, like=before)
        return BorderedPosterior(found, self.observations) if self.observations else found


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
