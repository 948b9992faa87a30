"""Exact conditioning on equations on a tensor grid: conjugate gradients with a Sylvester preconditioner.

Conditions on whole faces are in the priors of the axes (`ConditionedAxis`) and in a lift, so that only the equations
are rows and no saddle point appears. Nothing of the size of the grid squared is formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.exact.draws import GridDraws
from gpkit.inference.collocation.exact.krylov import KrylovResult, conjugate_gradients, preconditioned_logdet
from gpkit.inference.collocation.exact.lift import Lift
from gpkit.inference.collocation.exact.pencil import SylvesterPreconditioner, axis_pencil
from gpkit.inference.collocation.exact.priors import NO_FACTOR, FieldPrior, NuggetAxis
from gpkit.inference.collocation.exact.rows import (
    Rows,
    RowTerm,
    apply,
    chunks,
    contract,
    dense,
    grid_rows,
    jet_rows,
    prior_variance,
)
from gpkit.inference.collocation.forms import Jet

__all__ = ["GridOperator", "GridPosterior", "RowsPreconditioner"]

_NUGGETS = (0.0, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8)
_BLOCK = 16
_ROUNDING = 1e-14
_LIMIT = 200

Product = Callable[[Tensor], Tensor]


class GridOperator:
    """Covariance of rows on tensor grids, multiplied without being formed.

    Args:
        rows: On grids.
        priors: One per field.
    """

    def __init__(self, rows: Sequence[Rows], priors: Sequence[FieldPrior]) -> None:
        """Form the matrices of every axis."""
        self.rows = tuple(rows)
        self._sizes = [len(r) for r in rows]
        self._terms: list[tuple[int, int, Tensor, Tensor, list[Tensor]]] = []
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                cache: dict[tuple[int, int, tuple[int, int]], Tensor] = {}
                for s in a.terms:
                    for t in b.terms:
                        if s.jet.field == t.jet.field:
                            factors = _factors(cache, priors[s.jet.field], a, b, s.jet, t.jet)
                            self._terms.append((i, j, s.coefficient, t.coefficient, factors))

    def __call__(self, v: Tensor) -> Tensor:
        """The covariance times (n, k)."""
        parts = torch.split(v, self._sizes)
        out = [r.noise.expand(len(r))[:, None] * p for r, p in zip(self.rows, parts, strict=True)]
        for i, j, left, right, factors in self._terms:
            tensor = _times(parts[j].reshape(*self.rows[j].shape, -1), right)
            out[i] = out[i] + _times(contract(factors, tensor, True), left).reshape(out[i].shape)
        return torch.cat(out)


def _factors(
    cache: dict[tuple[int, int, tuple[int, int]], Tensor], prior: FieldPrior, a: Rows, b: Rows, left: Jet, right: Jet
) -> list[Tensor]:
    factors = []
    for axis, pair in enumerate(zip(left.orders, right.orders, strict=True)):
        key = (left.field, axis, pair)
        if key not in cache:
            cache[key] = prior.axes[axis].blocks(a.coordinates[axis], b.coordinates[axis], [pair])[pair]
        factors.append(cache[key])
    return factors


def _times(tensor: Tensor, coefficient: Tensor) -> Tensor:
    if coefficient.dim():
        return tensor * coefficient[..., None]
    return tensor if float(coefficient) == 1.0 else tensor * coefficient


class RowsPreconditioner:
    """One Sylvester preconditioner per block of rows, for the field that dominates the block.

    Terms that differentiate along one axis are kept, with their mean coefficients; mixed ones are left out.

    Args:
        rows: On grids.
        priors: One per field.
    """

    def __init__(self, rows: Sequence[Rows], priors: Sequence[FieldPrior]) -> None:
        """Factorise every block."""
        self._shapes = [r.shape for r in rows]
        self._sizes = [len(r) for r in rows]
        self.blocks = [SylvesterPreconditioner(_pencils(r, priors)) for r in rows]

    def solve(self, v: Tensor) -> Tensor:
        """Approximate solution for (n, k)."""
        return self._each(v, [b.solve for b in self.blocks])

    def root(self, v: Tensor) -> Tensor:
        """A square root of the preconditioner times (n, k)."""
        return self._each(v, [b.root for b in self.blocks])

    def logdet(self) -> float:
        """Of the preconditioner."""
        return sum(b.logdet() for b in self.blocks)

    def _each(self, v: Tensor, actions: Sequence[Product]) -> Tensor:
        parts = zip(torch.split(v, self._sizes), self._shapes, actions, strict=True)
        return torch.cat([action(p.reshape(*shape, -1)).reshape(p.shape) for p, shape, action in parts])


def _pencils(rows: Rows, priors: Sequence[FieldPrior]) -> list[Any]:
    """Whitened one-variable operators of the field with the largest share of the rows' variance."""
    shares = {f: float(prior_variance(_only(rows, f), priors).mean()) for f in rows.fields()}
    main = max(shares, key=lambda f: shares[f])
    d = len(rows.coordinates)
    operators: list[dict[int, float]] = [{} for _ in range(d)]
    for t in rows.terms:
        moving = [j for j, o in enumerate(t.jet.orders) if o]
        if t.jet.field != main or len(moving) > 1:
            continue
        axis = moving[0] if moving else 0
        order = t.jet.orders[axis]
        operators[axis][order] = operators[axis].get(order, 0.0) + float(t.coefficient.mean())
    if d > 1 and not all(operators):
        # An axis that no term differentiates along shares the others' operator.
        operators = [o or {0: 0.0} for o in operators]
    pencils = []
    for j, (operator, x) in enumerate(zip(operators, rows.coordinates, strict=True)):
        orders = sorted(operator)
        pairs = sorted({(a, b) for a in [0, *orders] for b in [0, *orders]})
        table = priors[main].axes[j].blocks(x, x, pairs)
        cross = sum((operator[a] * table[a, 0] for a in orders), torch.zeros_like(table[0, 0]))
        both = sum(
            (operator[a] * operator[b] * table[a, b] for a in orders for b in orders), torch.zeros_like(table[0, 0])
        )
        pencils.append(axis_pencil(table[0, 0], cross, both))
    return pencils


def _only(rows: Rows, field: int) -> Rows:
    return Rows(tuple(t for t in rows.terms if t.jet.field == field), rows.coordinates, rows.is_grid)


class GridPosterior:
    """Posterior given equations on tensor grids and conditions in the priors and the lift.

    Args:
        rows: The equations, with the lift already subtracted from their values.
        priors: One per field, conditioned on homogeneous conditions.
        lifts: Mean that the conditions' values give, one per field.
        tolerance: Relative residual of the linear systems.
        fit_scale: Whether the priors are multiplied by the scale of largest likelihood; only without noise.
        like: Posterior of nearly the same rows: its weights and nugget are where iterations start.

    Raises:
        ConvergenceError: No nugget up to 1e-8 let the iteration converge.
    """

    def __init__(
        self,
        rows: Sequence[Rows],
        priors: Sequence[FieldPrior],
        lifts: Sequence[Lift],
        tolerance: float = 1e-10,
        fit_scale: bool = True,
        like: GridPosterior | None = None,
    ) -> None:
        """Solve for the mean."""
        self.rows = tuple(rows)
        self.priors = tuple(priors)
        self.lifts = tuple(lifts)
        self.tolerance = tolerance
        self.nugget: float = _NUGGETS[0]
        self._preconditioner: RowsPreconditioner
        values = torch.cat([r.values for r in rows if r.values is not None])
        self.diagnostics: dict[str, Any] = {}
        result = self._converge(values[:, None], like)
        self.weights = result.solution[:, 0]
        self._parts = torch.split(self.weights, [len(r) for r in rows])
        quadratic = float(values @ self.weights)
        self.scale = max(quadratic / len(values), 1e-300) if fit_scale else 1.0
        condition = max(b.eigenvector_condition for b in self._preconditioner.blocks)
        self.diagnostics |= {
            "rows": len(values),
            "nugget": self.nugget,
            "pcg_iterations": result.iterations,
            "pcg_residuals": result.residuals,
            "pcg_residual": result.residual,
            "quadratic_form_per_row": quadratic / len(values),
            "output_scale": self.scale,
            "preconditioner_eigenvector_condition": condition,
            "corner_mismatch": max((lift.corner_mismatch for lift in lifts), default=0.0),
            "trace_tail": max((lift.tail for lift in lifts), default=0.0),
        }
        self._quadratic = quadratic

    def _converge(self, right: Tensor, like: GridPosterior | None) -> KrylovResult:
        """Find the least nugget with which the iteration converges."""
        best: KrylovResult | None = None
        start = None if like is None or len(like.weights) != len(right) else like.weights[:, None]
        for nugget in [n for n in _NUGGETS if like is None or n >= like.nugget]:
            priors = self._with_nugget(nugget)
            try:
                preconditioner = RowsPreconditioner(self._nodes_rows, priors)
            except NO_FACTOR:
                continue
            operator = GridOperator(self._nodes_rows, priors)
            result = conjugate_gradients(operator, preconditioner.solve, right, self.tolerance, _LIMIT, start=start)
            if best is None or result.residual < best.residual:
                best = result
                self._operator, self._preconditioner, self.nugget = operator, preconditioner, nugget
            if result.residual <= self.tolerance:
                return result
        if best is None or not best.residual <= 1e4 * self.tolerance:
            reached = (
                "no nugget made it factorisable" if best is None else f"the residual stayed at {best.residual:.1e}"
            )
            raise ConvergenceError(f"conjugate gradients on the equations' covariance did not converge: {reached}")
        return best

    def _with_nugget(self, nugget: float) -> list[FieldPrior]:
        """Priors whose axes carry the nugget at the nodes of the first rows."""
        self._nodes_rows = self.rows
        nodes = self.rows[0].coordinates
        return [
            FieldPrior(tuple(NuggetAxis(a, x, nugget) for a, x in zip(p.axes, nodes, strict=True))) for p in self.priors
        ]

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior mean of a jet at points (m, d)."""
        return self._mean(jet_rows(jet, points)) + self.lifts[jet.field].at(jet, points)

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Posterior mean of a jet on a tensor grid."""
        rows = grid_rows([RowTerm(jet, torch.ones((), dtype=torch.float64))], axes)
        return self._mean(rows).reshape(rows.shape) + self.lifts[jet.field].on_grid(jet, axes)

    def _mean(self, at: Rows) -> Tensor:
        total = torch.zeros(len(at), 1, dtype=torch.float64)
        for r, part in zip(self.rows, self._parts, strict=True):
            total += apply(at, r, self.priors, part[:, None])
        return total[:, 0]

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Posterior variance of a jet at points (m, d): one linear system a point, solved in blocks."""
        return self.row_variance(jet_rows(jet, points))

    def row_variance(self, rows: Rows) -> Tensor:
        """Posterior variance of linear functionals at points, (m,)."""
        parts = []
        for _, at in chunks(rows, _BLOCK) if len(rows) else ():
            cross = torch.cat([dense(r, at, self.priors) for r in self.rows])
            solved = self.solve(cross)
            prior = prior_variance(at, self.priors)
            # Below rounding and the nugget nothing is resolved: what cancels there is not certainty.
            parts.append(torch.maximum(prior - (cross * solved).sum(0), max(self.nugget, _ROUNDING) * prior))
        return self.scale * (torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64))

    def solve(self, right: Tensor) -> Tensor:
        """The inverse covariance of the rows times (n, k), to the tolerance.

        Raises:
            ConvergenceError: The residual stays above ten thousand times the tolerance.
        """
        result = conjugate_gradients(self._operator, self._preconditioner.solve, right, self.tolerance, _LIMIT)
        if not result.residual <= 1e4 * self.tolerance:
            raise ConvergenceError(f"conjugate gradients for a variance stopped at a residual of {result.residual:.1e}")
        return result.solution

    def sample(self, n: int, generator: torch.Generator) -> GridDraws:
        """N joint draws, one linear system each."""
        return GridDraws(self.rows, self.priors, self.solve, self.mean, self.scale, n, generator)

    def log_evidence(self, probes: int = 8, steps: int = 25, seed: int = 0) -> tuple[float, float]:
        """Log marginal likelihood of the rows and its standard error.

        The log-determinant is that of the preconditioner, exact, plus a stochastic Lanczos estimate of the rest.
        """
        n = len(self.weights)
        generator = torch.Generator().manual_seed(seed)
        solve, root = self._preconditioner.solve, self._preconditioner.root
        rest, error = preconditioned_logdet(self._operator, solve, root, n, probes, steps, generator)
        logdet = self._preconditioner.logdet() + rest + n * math.log(self.scale)
        return -0.5 * (self._quadratic / self.scale + logdet + n * math.log(2.0 * math.pi)), 0.5 * error
