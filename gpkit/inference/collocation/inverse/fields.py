"""Fields as functions of unknown numbers and unknown coefficient fields: dense collocation with exact sensitivities.

Equations at Gauss nodes and conditions at nodes of faces are one overdetermined system F(c, p) = 0 in the coefficients
c of the fields, where p holds the unknowns. It is solved by Gauss-Newton with QR factors; the same factors give the
derivatives dc/dp = -J^+ dF/dp, exactly as far as F vanishes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array, FourierBasis, LegendreBasis
from gpkit.inference.collocation.forms import Condition, Data, Jet, Problem, Term, evaluate
from gpkit.inference.collocation.inverse.system import Block, Frame, System
from gpkit.inference.collocation.spectral import engine as spectral

__all__ = ["EliminatedFields", "FieldPrior", "State"]

_STEPS = 60
_SAME = 1e-12  # share of a Jacobian by which it may change and be the same
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
        coefficients: Of every field that equations determine, in the functions of the axes, (r,).
        system: That was solved.
        factors: QR factors of its scaled Jacobian.
        columns: Scale of its columns.
        rows: Scale of its rows, (m,).
        left: What is left of it, scaled, (m,).
        by_unknowns: Its derivatives by numbers and whitened coordinates, (m, p + q).
    """

    coefficients: Array
    system: System
    factors: tuple[Array, Array]
    columns: Array
    rows: Array
    left: Array
    by_unknowns: Array

    @property
    def residual(self) -> float:
        """Norm of what is left of the scaled system."""
        return float(np.linalg.norm(self.left))

    def sensitivities(self) -> Array:
        """Derivatives of the coefficients with respect to numbers and whitened coordinates, (r, p + q)."""
        return self.system.lifted(-_least_squares(self.factors, self.columns, self.by_unknowns * self.rows[:, None]))

    def influence(self, readings: Array) -> Array:
        """By how much readings (n, r) of the coefficients are off per gradient of half the squared residual, (n, r)."""
        qr = self.factors[0]
        upper = qr[: qr.shape[1]]
        half = linalg.solve_triangular(upper, (readings * self.columns).T, trans="T")
        return np.asarray((linalg.solve_triangular(upper, half) * self.columns[:, None]).T)


class EliminatedFields:
    """The fields of a problem on tensor bases, as a function of its unknowns.

    Args:
        problem: The problem; its sources and conditions must be exact.
        sizes: Functions per axis.
        priors: Of the free fields, by number.

    Attributes:
        names: Unknown numbers, in the order in which parameter vectors hold them.
        whitened: Number of independent standard normal coordinates of each free field, by number.
        system: Equations and conditions.

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
        self._free = {k: self._free_field(prior) for k, prior in self.priors.items()}
        self.whitened = {k: form[1].shape[1] for k, form in self._free.items()}
        frame = Frame(self.names, tuple(self.determined), self._free)
        self.system = System((*self._equations(frame), *(self._condition(frame, c) for c in problem.conditions)))
        self._row_scales: Array | None = None

    def table(self, orders: Sequence[int], points: Sequence[Array]) -> Array:
        """Derivatives of all functions at points, (m, r)."""
        return _product([b.evaluate(x, o) for b, x, o in zip(self.bases, points, orders, strict=True)])

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

    def _equations(self, frame: Frame) -> list[Block]:
        nodes = [b.nodes(b.size)[0] for b in self.bases]
        points = [np.ascontiguousarray(m.ravel()) for m in np.meshgrid(*nodes, indexing="ij")]
        coordinates = [torch.from_numpy(p) for p in points]
        tables: dict[tuple[int, ...], Array] = {}

        def table(orders: tuple[int, ...]) -> Array:
            if orders not in tables:
                tables[orders] = self.table(orders, points)
            return tables[orders]

        found = []
        for e in self.problem.equations:
            value = _fixed_part(e.source, coordinates, "the source")
            found.append(Block.of(frame, coordinates, table, e.terms, value, e.source.parametric, e.jets, e.remainder))
        return found

    def _condition(self, frame: Frame, condition: Condition) -> Block:
        box, grid = self.problem.box, []
        for j, basis in enumerate(self.bases):
            end = (box.upper if condition.side else box.lower)[j]
            grid.append(np.array([end]) if j == condition.axis else basis.nodes(basis.size)[0])
        points = [np.ascontiguousarray(m.ravel()) for m in np.meshgrid(*grid, indexing="ij")]
        coordinates = [torch.from_numpy(p) for p in points]
        value = _fixed_part(condition.value, coordinates, f"the {condition.kind} condition", condition.axis)

        def table(orders: tuple[int, ...]) -> Array:
            return self.table(orders, points)

        return Block.of(frame, coordinates, table, condition.terms, value, condition.value.parametric)

    def field_coefficients(self, number: int, coefficients: Array, white: Array) -> Array:
        """Coefficients (r,) of one field, from those of the determined ones and the whitened coordinates (q,)."""
        if number not in self._free:
            at = self.determined.index(number) * self.size
            return coefficients[at : at + self.size]
        mean, directions = self._free[number]
        at = sum(n for k, n in self.whitened.items() if k < number)
        return np.asarray(mean + directions @ white[at : at + self.whitened[number]])

    def directions(self, number: int) -> Array:
        """Whitened directions (r, q) of a free field."""
        return self._free[number][1]

    # ------------------------------------------------------------------------------------------------- solution

    def solve(self, theta: Array, white: Array, start: Array | None = None, system: System | None = None) -> State:
        """The fields at given unknowns.

        Args:
            theta: Values of the unknown numbers.
            white: Whitened coordinates of the free fields, one field after the other.
            start: Coefficients to begin with; zero if not given.
            system: Equations in fewer functions, from `System.projected`; those of the axes if not given.

        Raises:
            ConvergenceError: Gauss-Newton does not converge.
        """
        try:
            return self._iterated(theta, white, start, system)
        except ConvergenceError:
            if start is not None or system is not None or self.problem.is_linear or self.problem.free:
                raise
        return self._iterated(theta, white, self._solved_forwards(theta), None)

    def _solved_forwards(self, theta: Array) -> Array:
        """Coefficients of what the spectral engine finds, which refines its functions and marches in time."""
        problem = dataclasses.replace(self.problem, observations=())
        given = {name: torch.tensor(float(t), dtype=torch.float64) for name, t in zip(self.names, theta, strict=True)}
        found = spectral.solve(problem, tuple(max(24, 2 * b.size) for b in self.bases), parameters=given)
        nodes = [b.nodes(2 * b.size) for b in self.bases]
        axes, still = [torch.from_numpy(x) for x, _ in nodes], (0,) * len(nodes)
        parts = []
        for k in self.determined:
            values = found.mean_on_grid(Jet(k, still), axes).numpy()
            for j, (basis, (x, weights)) in enumerate(zip(self.bases, nodes, strict=True)):
                values = along(basis.evaluate(x).T * weights, values, j)
            parts.append(values.ravel())
        return np.concatenate(parts)

    def _iterated(self, theta: Array, white: Array, start: Array | None, system: System | None) -> State:
        own = self.system if system is None else system
        c = np.zeros(own.columns) if start is None else own.lowered(start)
        value, jacobian, other = own.derivatives(c, theta, white, by_unknowns=False)  # those of the solution count
        rows = self._scales(jacobian)
        previous = math.inf
        steps: list[float] = []
        for _ in range(_STEPS):
            factors = _factorised(jacobian, rows)
            step = -_least_squares(*factors, value * rows)
            size = float(np.linalg.norm(step)) / max(float(np.linalg.norm(c + step)), 1e-300)
            before, share, last = float(np.linalg.norm(value * rows)), 1.0, jacobian
            while True:
                trial = own.derivatives(c + share * step, theta, white)
                norm = float(np.linalg.norm(trial[0] * rows))
                linear = share == 1.0 and _is_same(trial[1], last)  # in the fields, or as good as
                if np.isfinite(norm) and (linear or norm <= (1.0 - 1e-4 * share) * before or size < 1e-9):
                    break
                if size < 1e-3 and norm <= (1.0 + 1e-6) * before:
                    break  # what is left is what the functions cannot follow
                share *= 0.5
                if share < 1e-4:
                    if previous < 1e-6:
                        return State(own.lifted(c), own, *factors, rows, value * rows, other)
                    raise ConvergenceError(f"Gauss-Newton does not converge at these unknowns: steps {steps}")
            c = c + share * step
            steps.append(float(f"{size * share:.1e}"))
            value, jacobian, other = trial
            if linear:  # a second step would be none
                return State(own.lifted(c), own, *factors, rows, value * rows, other)
            if share == 1.0 and (size < 1e-10 or (size < 1e-6 and previous < 1e-2)):
                # The square of a step of 1e-6 is beyond rounding.
                return State(own.lifted(c), own, *_factorised(jacobian, rows), rows, value * rows, other)
            previous = size
        raise ConvergenceError(f"Gauss-Newton did not converge at these unknowns in {_STEPS} steps: {steps[-5:]}")

    def _scales(self, jacobian: Array) -> Array:
        """One scale per equation and condition, kept from the first state on so that residuals stay comparable."""
        if self._row_scales is None:
            parts, at = [], 0
            for block in self.system.blocks:
                count = len(block.offset)
                size = math.sqrt(float((jacobian[at : at + count] ** 2).sum(1).mean())) or 1.0
                parts.append(np.full(count, 1.0 / size))
                at += count
            self._row_scales = np.concatenate(parts)
        return self._row_scales

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


def _is_same(jacobian: Array, before: Array) -> bool:
    return jacobian is before or float(np.abs(jacobian - before).max()) <= _SAME * float(np.abs(before).max())


def _factorised(jacobian: Array, rows: Array) -> tuple[tuple[Array, Array], Array]:
    """QR factors of a Jacobian with scaled rows and columns, and the scales of the columns."""
    scaled = jacobian * rows[:, None]
    columns = 1.0 / np.maximum(np.sqrt(np.einsum("ij,ij->j", scaled, scaled)), 1e-300)
    qr, tau, _, info = linalg.lapack.dgeqrf(np.asfortranarray(scaled * columns), overwrite_a=1)
    diagonal = np.abs(np.diagonal(qr))
    if info or len(qr) < qr.shape[1] or not diagonal.min() >= 1e-13 * diagonal.max():
        raise InvalidDataError("the equations and conditions do not determine the fields at given unknowns")
    return (qr, tau), columns


def _least_squares(factors: tuple[Array, Array], columns: Array, right: Array) -> Array:
    """Least-squares solution of J x = right, both scaled, for a vector or columns."""
    qr, tau = factors
    r = qr.shape[1]
    wide = right.reshape(len(right), -1)
    turned, _, _ = linalg.lapack.dormqr("L", "T", qr, tau, np.asfortranarray(wide), max(1, 64 * wide.shape[1]))
    found, _ = linalg.lapack.dtrtrs(qr[:r], turned[:r])
    found = found * columns[:, None]
    return np.asarray(found[:, 0] if right.ndim == 1 else found)
