"""Fields as functions of unknown numbers and unknown coefficient fields: dense collocation with exact sensitivities.

Equations at Gauss nodes and conditions at nodes of faces are one overdetermined system F(c, p) = 0 in the coefficients
c of the fields, where p holds the unknowns. It is solved by Gauss-Newton with QR factors; the same factors give the
derivatives dc/dp = -J^+ dF/dp, exactly as far as F vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import linalg
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import Array, FourierBasis, LegendreBasis
from gpkit.inference.collocation.forms import Condition, Data, Equation, Jet, Problem, Term, evaluate

__all__ = ["EliminatedFields", "FieldPrior", "State"]

_STEPS = 60
_MOST_COEFFICIENTS = 2600
_KEPT = 1e-7


@dataclass(frozen=True)
class FieldPrior:
    """Gaussian process prior of an unknown coefficient field: squared-exponential along every axis.

    Attributes:
        mean: Its mean.
        amplitude: Its standard deviation.
        lengthscale: Length scale as a fraction of each axis.
    """

    mean: float = 0.0
    amplitude: float = 1.0
    lengthscale: float = 0.3


@dataclass
class State:
    """Fields at given unknowns.

    Attributes:
        coefficients: Of every field that equations determine, (r,).
        factors: QR factors of the scaled Jacobian.
        columns: Scale of its columns, (r,).
        rows: Scale of its rows, (m,).
        residual: Norm of what is left of the scaled system.
    """

    coefficients: Array
    factors: tuple[Array, Array]
    columns: Array
    rows: Array
    residual: float


@dataclass
class _Face:
    """A condition at the nodes of its face, and what no unknown changes of its right side."""

    condition: Condition
    coordinates: list[Tensor]
    value: Tensor
    tables: dict[tuple[int, ...], Array] = field(default_factory=dict)


class EliminatedFields:
    """The fields of a problem on tensor bases, as a function of its unknowns.

    Args:
        problem: The problem; its sources and conditions must be exact.
        sizes: Functions per axis.
        priors: Of the free fields, by number.

    Attributes:
        names: Unknown numbers, in the order in which parameter vectors hold them.
        whitened: Number of independent standard normal coordinates of each free field, by number.

    Raises:
        InvalidDataError: There are too many coefficients for dense factors, or a source is noisy.
    """

    def __init__(self, problem: Problem, sizes: Sequence[int], priors: Mapping[int, FieldPrior] | None = None) -> None:
        self.problem = problem
        self.names = tuple(problem.unknowns)
        self.priors = {k: (priors or {}).get(k, FieldPrior()) for k in sorted(problem.free)}
        self.determined = [k for k in range(len(problem.fields)) if k not in problem.free]
        self.bases = [_basis(problem, j, n) for j, n in enumerate(sizes)]
        self.size = math.prod(b.size for b in self.bases)
        if self.size * len(self.determined) > _MOST_COEFFICIENTS:
            raise InvalidDataError(
                f"{self.size * len(self.determined)} coefficients are too many for an inverse problem (at most "
                f"{_MOST_COEFFICIENTS}): choose a smaller grid"
            )
        if any(e.source.noise for e in problem.equations) or any(c.value.noise for c in problem.conditions):
            raise InvalidDataError("unknowns are inferred from observations: state noisy values as Observe(...)")
        nodes = [b.nodes(b.size)[0] for b in self.bases]
        self._points = [m.ravel() for m in np.meshgrid(*nodes, indexing="ij")]
        self._coordinates = [torch.from_numpy(np.ascontiguousarray(p)) for p in self._points]
        self._tables: dict[tuple[int, ...], Array] = {}
        self._free = {k: self._free_field(prior) for k, prior in self.priors.items()}
        self.whitened = {k: form[1].shape[1] for k, form in self._free.items()}
        self._sources = [_fixed_part(e.source, self._coordinates, "the source") for e in problem.equations]
        self._faces = [self._face(c) for c in problem.conditions]
        self._row_scales: Array | None = None

    def table(self, orders: Sequence[int], points: Sequence[Array]) -> Array:
        """Derivatives of all functions at points, (m, r)."""
        return _product([b.evaluate(x, o) for b, x, o in zip(self.bases, points, orders, strict=True)])

    def _at_nodes(self, orders: tuple[int, ...]) -> Array:
        if orders not in self._tables:
            self._tables[orders] = self.table(orders, self._points)
        return self._tables[orders]

    def _free_field(self, prior: FieldPrior) -> tuple[Array, Array]:
        """Mean (r,) and whitened directions (r, q) of a free field's coefficients."""
        spectra, means = [], []
        for basis in self.bases:
            x, w = basis.nodes(max(2 * basis.size, 24))
            analysis = basis.evaluate(x).T * w
            length = basis.upper - basis.lower
            lag = (x[:, None] - x[None, :]) / length
            if isinstance(basis, FourierBasis):
                lag = np.sin(np.pi * lag) / np.pi
            correlation = np.exp(-0.5 * (lag / prior.lengthscale) ** 2)
            values, vectors = np.linalg.eigh(analysis @ correlation @ analysis.T)
            spectra.append((np.maximum(values[::-1], 0.0), vectors[:, ::-1]))
            means.append(analysis.sum(1))
        variances = _product([v[None, :] for v, _ in spectra])[0]
        vectors, mean = spectra[0][1], means[0]
        for (_, other), one in zip(spectra[1:], means[1:], strict=True):
            vectors, mean = np.kron(vectors, other), np.kron(mean, one)
        kept = variances > _KEPT * variances.max()
        return prior.mean * mean, prior.amplitude * vectors[:, kept] * np.sqrt(variances[kept])

    def _face(self, condition: Condition) -> _Face:
        box, grid = self.problem.box, []
        for j, basis in enumerate(self.bases):
            end = (box.upper if condition.side else box.lower)[j]
            grid.append(np.array([end]) if j == condition.axis else basis.nodes(basis.size)[0])
        points = [np.ascontiguousarray(m.ravel()) for m in np.meshgrid(*grid, indexing="ij")]
        coordinates = [torch.from_numpy(p) for p in points]
        value = _fixed_part(condition.value, coordinates, f"the {condition.kind} condition", condition.axis)
        orders = {term.jet.orders for term in condition.terms}
        return _Face(condition, coordinates, value, {o: self.table(o, points) for o in orders})

    # --------------------------------------------------------------------------------------------------- system

    def _split(self, coefficients: Array, white: Mapping[int, Array]) -> dict[int, Array]:
        fields = dict(zip(self.determined, coefficients.reshape(-1, self.size), strict=True))
        for k, (mean, directions) in self._free.items():
            fields[k] = mean + directions @ white[k]
        return fields

    def field_coefficients(self, number: int, coefficients: Array, white: Mapping[int, Array]) -> Array:
        """Coefficients (r,) of one field."""
        return self._split(coefficients, white)[number]

    def directions(self, number: int) -> Array:
        """Whitened directions (r, q) of a free field."""
        return self._free[number][1]

    def _values(self, coefficients: Array, theta: Array, white: Mapping[int, Array]) -> Array:
        """F alone, (m,)."""
        fields = self._split(coefficients, white)
        pairs = zip(self.problem.equations, self._sources, strict=True)
        values = [self._equation(e, s, fields, theta, False)[0] for e, s in pairs]
        return np.concatenate(values + [self._condition(f, fields, theta)[0] for f in self._faces])

    def _derivatives(self, coefficients: Array, theta: Array, white: Mapping[int, Array]) -> tuple[Array, Array, Array]:
        """F (m,), its derivatives by coefficients (m, r), and by theta and then the whitened fields (m, p + q)."""
        fields = self._split(coefficients, white)
        values, jacobian, sensitivity = [], [], []
        for equation, source in zip(self.problem.equations, self._sources, strict=True):
            value, slopes, by_theta = self._equation(equation, source, fields, theta, True)
            rows, other = self._empty(len(value), by_theta)
            for jet, slope in slopes.items():
                self._place(jet.field, slope[:, None] * self._at_nodes(jet.orders), rows, other, len(theta))
            values.append(value)
            jacobian.append(rows)
            sensitivity.append(other)
        for face in self._faces:
            value, coefficients_of, by_theta = self._condition(face, fields, theta)
            rows, other = self._empty(len(value), by_theta)
            for jet, coefficient in coefficients_of:
                self._place(jet.field, coefficient[:, None] * face.tables[jet.orders], rows, other, len(theta))
            values.append(value)
            jacobian.append(rows)
            sensitivity.append(other)
        return np.concatenate(values), np.concatenate(jacobian), np.concatenate(sensitivity)

    def _empty(self, m: int, by_theta: Array) -> tuple[Array, Array]:
        other = np.zeros((m, by_theta.shape[1] + sum(self.whitened.values())))
        other[:, : by_theta.shape[1]] = by_theta
        return np.zeros((m, len(self.determined) * self.size)), other

    def _place(self, number: int, part: Array, rows: Array, other: Array, scalars: int) -> None:
        if number in self._free:
            at = scalars + sum(n for k, n in self.whitened.items() if k < number)
            other[:, at : at + self.whitened[number]] += part @ self._free[number][1]
        else:
            at = self.determined.index(number) * self.size
            rows[:, at : at + self.size] += part

    def _unknowns(self, theta: Array, m: int) -> dict[str, Tensor]:
        """One copy of each unknown per point: everything is pointwise, so that one sweep gives all derivatives."""
        pairs = zip(self.names, theta, strict=True)
        return {name: torch.full((m,), float(t), dtype=torch.float64).requires_grad_() for name, t in pairs}

    def _equation(
        self, equation: Equation, source: Tensor, fields: Mapping[int, Array], theta: Array, slopes: bool
    ) -> tuple[Array, dict[Jet, Array], Array]:
        """Residual at the nodes, its slope in every jet, and in every unknown number, (m, p)."""
        m = len(source)
        unknown = self._unknowns(theta, m)
        with torch.set_grad_enabled(slopes):
            values = {
                jet: torch.from_numpy(self._at_nodes(jet.orders) @ fields[jet.field]).requires_grad_(slopes)
                for jet in equation.all_jets
            }
            total = equation.left_side(self._coordinates, values, unknown) - source
            if equation.source.parametric is not None:
                total = total - equation.source.parametric(self._coordinates, unknown)
            if not slopes:
                return total.numpy(), {}, np.zeros((m, 0))
            leaves = [*values.values(), *unknown.values()]
            gradients: Any = torch.autograd.grad(total.sum(), leaves, allow_unused=True)
        arrays = [np.zeros(m) if g is None else g.numpy() for g in gradients]
        by_theta = np.stack(arrays[len(values) :], -1) if unknown else np.zeros((m, 0))
        return total.detach().numpy(), dict(zip(values, arrays[: len(values)], strict=True)), by_theta

    def _condition(
        self, face: _Face, fields: Mapping[int, Array], theta: Array
    ) -> tuple[Array, list[tuple[Jet, Array]], Array]:
        """Residual on the face, the coefficient of every jet, and the slope in every unknown number."""
        m = len(face.value)
        fixed = face.condition.value.parametric is None and not any(
            t.coefficient.unknowns for t in face.condition.terms
        )
        unknown = {} if fixed else self._unknowns(theta, m)
        coefficients = []
        with torch.set_grad_enabled(not fixed):
            total: Any = -face.value
            if face.condition.value.parametric is not None:
                total = total - face.condition.value.parametric(face.coordinates, unknown)
            for term in face.condition.terms:
                at = torch.from_numpy(face.tables[term.jet.orders] @ fields[term.jet.field])
                coefficient = torch.as_tensor(term.coefficient(face.coordinates, unknown)).expand(m)
                coefficients.append((term.jet, coefficient.detach().numpy()))
                total = total + coefficient * at
            by_theta = np.zeros((m, len(theta)))
            if total.requires_grad:
                gradients = torch.autograd.grad(total.sum(), list(unknown.values()), allow_unused=True)
                for k, gradient in enumerate(gradients):
                    if gradient is not None:
                        by_theta[:, k] = gradient.numpy()
        return total.detach().numpy(), coefficients, by_theta

    # ------------------------------------------------------------------------------------------------- solution

    def solve(self, theta: Array, white: Mapping[int, Array], start: Array | None = None) -> State:
        """The fields at given unknowns.

        Args:
            theta: Values of the unknown numbers.
            white: Whitened coordinates of the free fields.
            start: Coefficients to begin with; zero if not given.

        Raises:
            ConvergenceError: Gauss-Newton does not converge.
        """
        c = np.zeros(len(self.determined) * self.size) if start is None else start
        value, jacobian, _ = self._derivatives(c, theta, white)
        previous = math.inf
        steps: list[float] = []
        for _ in range(_STEPS):
            rows = self._scales(jacobian)
            state = self._factorised(c, jacobian, rows)
            step = -self._apply_inverse(state, value)
            if self._is_linear:
                norm = float(np.linalg.norm((value + jacobian @ step) * rows))
                return State(c + step, state.factors, state.columns, rows, norm)
            size = float(np.linalg.norm(step)) / max(float(np.linalg.norm(c + step)), 1e-300)
            before, share = float(np.linalg.norm(value * rows)), 1.0
            while True:
                norm = float(np.linalg.norm(self._values(c + share * step, theta, white) * rows))
                if np.isfinite(norm) and (norm <= (1.0 - 1e-4 * share) * before or size < 1e-9):
                    break
                share *= 0.5
                if share < 1e-4:
                    if previous < 1e-6:
                        return self._factorised(c, jacobian, rows, before)
                    raise ConvergenceError(f"Gauss-Newton does not converge at these unknowns: steps {steps}")
            c = c + share * step
            steps.append(float(f"{size * share:.1e}"))
            value, jacobian, _ = self._derivatives(c, theta, white)
            if share == 1.0 and (size < 1e-10 or (size < 1e-6 and previous < 1e-2)):
                # The square of a step of 1e-6 is beyond rounding.
                return self._factorised(c, jacobian, self._scales(jacobian), norm)
            previous = size
        raise ConvergenceError(f"Gauss-Newton did not converge at these unknowns in {_STEPS} steps: {steps[-5:]}")

    @property
    def _is_linear(self) -> bool:
        """Whether the equations are linear in the determined fields for given unknowns, as far as is known."""
        return self.problem.is_linear

    def _scales(self, jacobian: Array) -> Array:
        """One scale per equation and condition, kept from the first state on so that residuals stay comparable."""
        if self._row_scales is None:
            parts, at = [], 0
            blocks = [len(self._points[0])] * len(self.problem.equations) + [len(f.value) for f in self._faces]
            for count in blocks:
                size = math.sqrt(float((jacobian[at : at + count] ** 2).sum(1).mean())) or 1.0
                parts.append(np.full(count, 1.0 / size))
                at += count
            self._row_scales = np.concatenate(parts)
        return self._row_scales

    def _factorised(self, c: Array, jacobian: Array, rows: Array, residual: float = math.nan) -> State:
        scaled = jacobian * rows[:, None]
        columns = 1.0 / np.maximum(np.sqrt((scaled**2).sum(0)), 1e-300)
        qr, tau, _, info = linalg.lapack.dgeqrf(np.asfortranarray(scaled * columns), overwrite_a=1)
        diagonal = np.abs(np.diagonal(qr))
        if info or len(qr) < qr.shape[1] or diagonal.min() < 1e-13 * diagonal.max():
            raise InvalidDataError("the equations and conditions do not determine the fields at given unknowns")
        return State(c, (qr, tau), columns, rows, residual)

    @staticmethod
    def _apply_inverse(state: State, right: Array) -> Array:
        """Least-squares solution of J x = right, for a vector or columns."""
        qr, tau = state.factors
        r = qr.shape[1]
        columns = right.reshape(len(right), -1) * state.rows[:, None]
        work = max(1, 64 * columns.shape[1])
        turned, _, _ = linalg.lapack.dormqr("L", "T", qr, tau, np.asfortranarray(columns), work)
        found = linalg.solve_triangular(qr[:r], turned[:r]) * state.columns[:, None]
        return np.asarray(found[:, 0] if right.ndim == 1 else found)

    def sensitivities(self, state: State, theta: Array, white: Mapping[int, Array]) -> Array:
        """Derivatives of the coefficients with respect to theta and the whitened fields, (r, p + q)."""
        return -self._apply_inverse(state, self._derivatives(state.coefficients, theta, white)[2])

    def observed(self, terms: Sequence[Term], points: Tensor) -> dict[int, Array]:
        """Rows that take an observed expression from the coefficients of each field, (m, r) by field."""
        found: dict[int, Array] = {}
        coordinates = list(points.T)
        for term in terms:
            if term.coefficient.unknowns:
                raise InvalidDataError("an observed expression must not hold unknown numbers")
            coefficient = term.coefficient(coordinates, {}).expand(len(points)).numpy()
            part = coefficient[:, None] * self.table(term.jet.orders, list(points.numpy().T))
            found[term.jet.field] = found[term.jet.field] + part if term.jet.field in found else part
        return found


def _fixed_part(data: Data, coordinates: Sequence[Tensor], what: str, leave_out: int | None = None) -> Tensor:
    """What no unknown changes of a right side, at points (m,)."""
    if data.values is not None:
        kept = [c for k, c in enumerate(coordinates) if k != leave_out]
        method = "quintic" if min(len(a) for a in data.axes) > 5 else "linear"
        interpolant = RegularGridInterpolator([a.numpy() for a in data.axes], data.values.numpy(), method=method)
        return torch.from_numpy(interpolant(torch.stack(kept, -1).numpy()))
    if data.function is not None:
        return evaluate(data.function, coordinates, what)
    return torch.full(coordinates[0].shape, data.constant, dtype=torch.float64)


def _basis(problem: Problem, axis: int, size: int) -> LegendreBasis | FourierBasis:
    ends = problem.box.lower[axis], problem.box.upper[axis]
    if axis in problem.periodic:
        return FourierBasis(*ends, int(size))
    return LegendreBasis(*ends, int(size))


def _product(tables: Sequence[Array]) -> Array:
    """Row-wise Kronecker product, (m, r_1 ... r_d)."""
    total = tables[0]
    for table in tables[1:]:
        total = (total[:, :, None] * table[:, None, :]).reshape(len(total), -1)
    return total
