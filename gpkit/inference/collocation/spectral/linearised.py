"""Residual of the equations in coefficient space, their linearisation, and its solution by preconditioned Krylov.

The preconditioner is the direct solver of the constant separable part of the same operator (means of what varies), so
that GMRES works on the identity plus what that part leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.linalg import LinearOperator, gmres

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.layout import open_grid
from gpkit.inference.collocation.picked.basis import PickedBasis
from gpkit.inference.collocation.spectral.discretisation import Discretisation
from gpkit.inference.collocation.spectral.separable import SeparableSolver

__all__ = ["Collocation", "KrylovReport", "Linearisation"]

Fields = list[Array]

_OPERATOR_ROUNDING = 1e-14  # relative error of a small eigenvalue of the discrete operator, in units of the next ones


@dataclass(frozen=True)
class KrylovReport:
    """One linear solve.

    Attributes:
        iterations: Matrix-vector products.
        residual: Relative, of the preconditioned system.
        converged: Whether it reached what was asked.
        rounding: Relative error of the solution if the right side is wrong by rounding; large near resonance.
    """

    iterations: int
    residual: float
    converged: bool
    rounding: float = 0.0


class Collocation:
    """The equations of a layout at the nodes of a discretisation.

    Args:
        disc: Bases and nodes.

    Attributes:
        sources: Values of the right sides on the nodes.
        strength: Factor of the nonlinear terms, for continuation.
        is_closed: Whether derivatives of the functions are such functions, so that a direct solution leaves nothing.
    """

    def __init__(self, disc: Discretisation) -> None:
        self.disc, self.layout = disc, disc.layout
        self.strength = 1.0
        self.sources = [s.on_grid(disc.nodes) for s in self.layout.sources]
        self.coordinates = open_grid(disc.nodes)
        self.shape = tuple(len(x) for x in disc.nodes)
        # Only derivatives that a basis has exactly are taken in coefficients.
        self.is_closed = closed = not any(isinstance(b, PickedBasis) for b in disc.bases)
        self._fixed: list[dict[Jet, float]] = [dict(part.constant) if closed else {} for part in self.layout.linear]
        self._variable: list[list[tuple[Jet, float | Array]]] = [
            [(jet, c(self.coordinates).expand(self.shape).numpy()) for jet, c in part.variable]
            + ([] if closed else list(part.constant.items()))
            for part in self.layout.linear
        ]
        for terms in self._variable:
            for jet, values in terms:
                if not np.isfinite(values).all():
                    raise InvalidDataError(f"the coefficient of the derivative {jet.orders} is not finite on the box")

    def jets(self, state: Fields, wanted: Sequence[Jet]) -> dict[Jet, Array]:
        """Values of jets of a state on the nodes."""
        return {jet: self.disc.values(jet.orders, state[jet.field]) for jet in dict.fromkeys(wanted)}

    def _constant(self, i: int, state: Fields) -> Array:
        """Constant terms of an equation, as coefficients."""
        total = np.zeros(self.disc.sizes)
        for jet, c in self._fixed[i].items():
            term = state[jet.field]
            for j, order in enumerate(jet.orders):
                term = self.disc.bases[j].differentiate(term, j, order)
            total += c * term
        return total

    def _varying(self, i: int, state: Fields) -> Array:
        """Right side minus the terms of an equation whose coefficients are not constant, on the nodes."""
        equation = self.layout.equations[i]
        values = self.sources[i]
        wanted = [jet for jet, _ in self._variable[i]] + list(equation.jets)
        if not wanted:
            return values
        values, jets = values.copy(), self.jets(state, wanted)
        for jet, c in self._variable[i]:
            values -= c * jets[jet]
        if equation.remainder is not None and self.strength != 0.0:
            tensors = [torch.from_numpy(np.ascontiguousarray(jets[j])) for j in equation.jets]
            left = equation.remainder(self.coordinates, tensors, self.layout.parameters)
            values -= self.strength * left.detach().expand(self.shape).numpy()
        return values

    def residual(self, state: Fields) -> list[Array]:
        """Right minus left side of each equation, as coefficients."""
        count = len(self.layout.equations)
        return [self.disc.analyse(self._varying(i, state)) - self._constant(i, state) for i in range(count)]

    def residual_values(self, state: Fields) -> list[Array]:
        """Right minus left side of each equation on the nodes."""
        zero, count = (0,) * self.layout.dim, len(self.layout.equations)
        return [self._varying(i, state) - self.disc.values(zero, self._constant(i, state)) for i in range(count)]

    def linearise(self, state: Fields) -> Linearisation:
        """The linear operator at a state."""
        slopes: list[dict[Jet, float | Array]] = []
        for i, equation in enumerate(self.layout.equations):
            own: dict[Jet, float | Array] = dict(self._fixed[i])
            for jet, c in self._variable[i]:
                own[jet] = own.get(jet, 0.0) + c
            if equation.remainder is not None:
                jets = self.jets(state, equation.jets)
                with torch.enable_grad():
                    leaves = [torch.from_numpy(np.ascontiguousarray(jets[j])).requires_grad_() for j in equation.jets]
                    total = equation.remainder(self.coordinates, leaves, self.layout.parameters).sum()
                    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
                for jet, gradient in zip(equation.jets, gradients, strict=True):
                    if gradient is not None:
                        own[jet] = own.get(jet, 0.0) + self.strength * gradient.numpy()
            slopes.append(own)
        return Linearisation(self.disc, slopes)


class Linearisation:
    """A linear operator with varying coefficients between fields and equations.

    Args:
        disc: Bases and nodes.
        slopes: Per equation the coefficient of every jet: a number, or values on the nodes.
    """

    def __init__(self, disc: Discretisation, slopes: list[dict[Jet, float | Array]]) -> None:
        self.disc, self.slopes = disc, slopes
        self.assignment = self._assign()

    def _assign(self) -> list[int] | None:
        """The equation that each field is solved from: its derivatives match the field's conditions."""
        disc = self.disc
        fields, dim = len(disc.axes), len(disc.bases)
        if len(self.slopes) != fields:
            return None
        cost = np.full((fields, fields), 1e3)
        for f in range(fields):
            counts = [len(axis.conditions) for axis in disc.axes[f]]
            for i, slopes in enumerate(self.slopes):
                top = [max((jet.orders[j] for jet in slopes if jet.field == f), default=-1) for j in range(dim)]
                fits = all(
                    t == c or (j in disc.layout.problem.periodic and t >= 0)
                    for j, (t, c) in enumerate(zip(top, counts, strict=True))
                )
                if fits:
                    cost[f, i] = abs(i - f)
        rows, columns = linear_sum_assignment(cost)
        if cost[rows, columns].max() >= 1e3:
            return None
        return [int(c) for c in columns]

    @staticmethod
    def _is_single(orders: Sequence[int]) -> bool:
        return sum(o > 0 for o in orders) <= 1

    def preconditioners(self) -> list[SeparableSolver]:
        """Direct solver of the separable mean part of each field."""
        assert self.assignment is not None
        dim = len(self.disc.bases)
        found = []
        for f, i in enumerate(self.assignment):
            symbols: list[dict[int, float]] = [{} for _ in range(dim)]
            shift = 0.0
            for jet, c in self.slopes[i].items():
                if jet.field != f or not self._is_single(jet.orders):
                    continue
                mean = float(np.mean(c))
                axis = next((j for j, o in enumerate(jet.orders) if o), None)
                if axis is None:
                    shift += mean
                else:
                    symbols[axis][jet.orders[axis]] = mean
            for j in range(dim):
                for k in range(j):  # equal symbols are one object to the solver, so that equal axes are reduced once
                    if symbols[j] == symbols[k]:
                        symbols[j] = symbols[k]
            found.append(SeparableSolver(self.disc.axes[f], symbols, shift))
        return found

    def solve(self, rhs: list[Array], rtol: float, limit: int) -> tuple[Fields, KrylovReport]:
        """Correction of the fields for residuals, under homogeneous conditions.

        Args:
            rhs: Coefficients of the right side of each equation.
            rtol: Relative tolerance of the preconditioned residual.
            limit: Largest number of products.
        """
        assert self.assignment is not None
        direct = self.preconditioners()
        assignment, sizes, fields = self.assignment, self.disc.sizes, len(self.disc.axes)
        span = int(np.prod(sizes))
        extra: list[list[tuple[Jet, Array]]] = []
        for i, slopes in enumerate(self.slopes):
            own = assignment.index(i)
            left = []
            for jet, c in slopes.items():
                in_direct = jet.field == own and self._is_single(jet.orders)
                rest = np.asarray(c - np.mean(c)) if in_direct else np.asarray(c)
                if rest.ndim or float(rest) != 0.0:
                    if not (in_direct and np.abs(rest).max() <= 1e-15 * np.abs(np.mean(c))):
                        left.append((jet, rest))
            extra.append(left)

        def precondition(parts: list[Array]) -> Array:
            return np.concatenate([direct[f].solve(parts[assignment[f]]).ravel() for f in range(fields)])

        start = precondition(rhs)
        rounding = 0.0
        if not all(p.is_diagonal for p in direct):  # where it is, the solver has looked at its eigenvalues
            probe = [np.random.default_rng(5).standard_normal(sizes) for _ in rhs]
            answer = precondition(probe)
            gain = float(np.linalg.norm(answer) / np.linalg.norm(probe))
            size = float(np.linalg.norm(start))
            if size > 0.0:
                rounding = np.finfo(float).eps * gain * float(np.linalg.norm(rhs)) / size
                # At resonance every answer is the same function, whatever is asked: its size is that of rounding.
                apart = np.linalg.norm(answer - (start @ answer) / size**2 * start) / np.linalg.norm(answer)
                rounding = max(rounding, _OPERATOR_ROUNDING / max(float(apart), 1e-300))
        if not any(extra):
            return self._split(start, sizes), KrylovReport(0, 0.0, True, rounding)

        def apply(vector: Array) -> Array:
            state = self._split(vector, sizes)
            parts, jets = [], {}
            for left in extra:
                values = np.zeros([len(x) for x in self.disc.nodes])
                for jet, c in left:
                    if jet not in jets:
                        jets[jet] = self.disc.values(jet.orders, state[jet.field])
                    values += c * jets[jet]
                parts.append(self.disc.analyse(values) if left else np.zeros(sizes))
            return vector + precondition(parts)

        history: list[float] = []
        operator = LinearOperator((fields * span, fields * span), matvec=apply, dtype=np.float64)
        solution, info = gmres(
            operator, start, x0=start, rtol=rtol, atol=0.0, restart=min(limit, 60), maxiter=max(1, limit // 60),
            callback=history.append, callback_type="pr_norm",
        )  # fmt: skip
        last = history[-1] if history else 0.0
        return self._split(solution, sizes), KrylovReport(len(history), float(last), info == 0, rounding)

    @staticmethod
    def _split(vector: Array, sizes: Sequence[int]) -> Fields:
        span = int(np.prod(sizes))
        return [part.reshape(sizes) for part in vector.reshape(-1, span)]
