"""A function that takes the given values on the faces of a box, with all its derivatives.

Conditioning a product process on values of functionals of whole faces moves its mean by the Boolean sum of
one-variable interpolations: sums over sets of faces, with alternating signs, of products of the axes' interpolating
functions with the traces. Traces are functions of the remaining axes and are differentiated as Chebyshev series, or,
where they are given on a grid, as the mean of the axes' processes.

References:
    Gordon (1971), SIAM J. Numer. Anal. 8, 158 (Boolean sums, transfinite interpolation).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gpkit.inference.collocation.exact.dense import factorise
from gpkit.inference.collocation.exact.priors import AxisPrior, ConditionedAxis, Constraint
from gpkit.inference.collocation.exact.rows import contract
from gpkit.inference.collocation.forms import Jet

__all__ = ["ChebyshevBasis", "KernelBasis", "Lift", "Trace", "boolean_sum", "chebyshev_trace", "gridded_trace"]

_DEGREES = (8, 16, 32, 64, 128, 256, 512, 1024)
_TAIL = 1e-13


@runtime_checkable
class Basis(Protocol):
    """Functions of one variable."""

    def matrix(self, x: Tensor, order: int) -> Tensor:
        """Derivatives of every function at points, (m, s)."""
        ...


@dataclass(frozen=True)
class ChebyshevBasis:
    """Chebyshev polynomials on an interval.

    Attributes:
        lower: Its left end.
        upper: Its right end.
        degree: The highest.
    """

    lower: float
    upper: float
    degree: int

    def nodes(self) -> Tensor:
        """Chebyshev points of the second kind, degree + 1 of them."""
        if self.degree == 0:
            return torch.tensor([0.5 * (self.lower + self.upper)], dtype=torch.float64)
        t = torch.cos(torch.pi * torch.arange(self.degree + 1, dtype=torch.float64) / self.degree)
        return 0.5 * (self.lower + self.upper) + 0.5 * (self.upper - self.lower) * t

    def matrix(self, x: Tensor, order: int) -> Tensor:
        """See :class:`Basis`."""
        t = (2.0 * x.numpy() - self.lower - self.upper) / (self.upper - self.lower)
        values = np.polynomial.chebyshev.chebvander(t, self.degree)
        slope = np.zeros((self.degree + 1, self.degree + 1))
        for k in range(1, self.degree + 1):
            # T_k' = 2 k (T_{k-1} + T_{k-3} + ...), with half of the last term if it is T_0.
            slope[k - 1 :: -2, k] = 2.0 * k
            if k % 2:
                slope[0, k] = k
        for _ in range(order):
            values = values @ slope * (2.0 / (self.upper - self.lower))
        return torch.from_numpy(values)

    def coefficients(self, values: Tensor, mode: int) -> Tensor:
        """Series along one mode of values at the nodes."""
        n = self.degree
        if n == 0:
            return values
        matrix = torch.from_numpy(np.polynomial.chebyshev.chebvander(np.cos(np.pi * np.arange(n + 1) / n), n))
        weight = torch.full((n + 1,), 2.0 / n, dtype=torch.float64)
        weight[[0, n]] *= 0.5
        scale = torch.ones(n + 1, dtype=torch.float64)
        scale[[0, n]] = 0.5
        inverse = scale[:, None] * matrix.T * weight * 1.0
        return torch.tensordot(inverse, values, dims=([1], [mode])).movedim(0, mode)


@dataclass(frozen=True, eq=False)
class KernelBasis:
    """Functions by which the mean of a process depends on its values at nodes.

    Attributes:
        prior: The process.
        nodes: (s,).
        noise: Variance of the values.
    """

    prior: AxisPrior
    nodes: Tensor
    noise: float = 0.0

    def matrix(self, x: Tensor, order: int) -> Tensor:
        """See :class:`Basis`."""
        gram = self.prior.blocks(self.nodes, self.nodes, [(0, 0)])[0, 0]
        factor = factorise(gram + self.noise * torch.eye(len(gram), dtype=gram.dtype))
        cross = self.prior.blocks(x, self.nodes, [(order, 0)])[order, 0]
        return factor.solve(cross.T).T


@dataclass(frozen=True, eq=False)
class _ConstraintBasis:
    axis: ConditionedAxis

    def matrix(self, x: Tensor, order: int) -> Tensor:
        return self.axis.interpolation(x, [order])[order]


@dataclass(frozen=True, eq=False)
class Trace:
    """A function of some axes as a tensor of coefficients.

    Attributes:
        bases: By axis number.
        coefficients: One mode per axis, in increasing order of their numbers.
        tail: Size of the last coefficients relative to the largest: what the series leaves out.
    """

    bases: dict[int, Basis]
    coefficients: Tensor
    tail: float

    def functional(self, axis: int, constraint: Constraint) -> Trace:
        """The trace of this trace: a linear functional of one of its axes."""
        x = torch.tensor(constraint.points, dtype=torch.float64)
        row = sum(
            (
                c * self.bases[axis].matrix(x[i : i + 1], o)[0]
                for i, (o, c) in enumerate(zip(constraint.orders, constraint.coefficients, strict=True))
            ),
            torch.zeros((), dtype=torch.float64),
        )
        mode = sorted(self.bases).index(axis)
        rest = {j: b for j, b in self.bases.items() if j != axis}
        return Trace(rest, torch.tensordot(row, self.coefficients, dims=([0], [mode])), self.tail)


def chebyshev_trace(
    function: Callable[[Sequence[Tensor]], Tensor], axes: Sequence[int], intervals: Sequence[tuple[float, float]]
) -> Trace:
    """Chebyshev series of a function on a box, of a degree at which its coefficients have decayed.

    Args:
        function: Takes the nodes along each axis and returns values on their tensor grid.
        axes: Numbers of the axes.
        intervals: Their ends.
    """
    if not axes:
        return Trace({}, function([]), 0.0)
    degrees = [_DEGREES[0]] * len(axes)
    limit = _DEGREES[-1] if len(axes) == 1 else _DEGREES[-1] // 4
    while True:
        bases = [ChebyshevBasis(a, b, n) for (a, b), n in zip(intervals, degrees, strict=True)]
        coefficients = function([b.nodes() for b in bases])
        for mode, b in enumerate(bases):
            coefficients = b.coefficients(coefficients, mode)
        largest = float(coefficients.abs().max()) or 1.0
        tails = []
        for mode, n in enumerate(degrees):
            last = coefficients.narrow(mode, n + 1 - max(3, n // 8), max(3, n // 8))
            tails.append(float(last.abs().max()) / largest)
        grow = [t > _TAIL and n < limit for t, n in zip(tails, degrees, strict=True)]
        if not any(grow):
            return Trace(dict(zip(axes, bases, strict=True)), coefficients, max(tails))
        degrees = [2 * n if g else n for n, g in zip(degrees, grow, strict=True)]


def gridded_trace(values: Tensor, nodes: dict[int, Tensor], priors: dict[int, AxisPrior], noise: float) -> Trace:
    """The mean of the axes' processes given values on a tensor grid.

    Args:
        values: One mode per axis.
        nodes: Of the grid, by axis.
        priors: By axis.
        noise: Variance of the values relative to the prior variance.
    """
    bases: dict[int, Basis] = {j: KernelBasis(priors[j], nodes[j], noise) for j in sorted(nodes)}
    return Trace(bases, values, 0.0)


@dataclass(frozen=True, eq=False)
class Lift:
    """A sum of products of one-variable functions: one term per set of faces.

    Attributes:
        terms: Tensor of coefficients, and a basis for each of its modes.
        corner_mismatch: Largest disagreement between two faces at a common edge, in units of the data.
        tail: Largest relative tail of the traces' series.
        size: Largest coefficient: the data's magnitude.
    """

    terms: tuple[tuple[Tensor, tuple[Basis, ...]], ...]
    corner_mismatch: float
    tail: float
    size: float = 0.0

    def on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """A jet on a tensor grid."""
        total = torch.zeros([len(x) for x in axes], dtype=torch.float64)
        for tensor, bases in self.terms:
            factors = [b.matrix(x, o) for b, x, o in zip(bases, axes, jet.orders, strict=True)]
            total = total + contract(factors, tensor[..., None], True)[..., 0]
        return total

    def at(self, jet: Jet, points: Tensor) -> Tensor:
        """A jet at points (m, d)."""
        total = torch.zeros(len(points), dtype=torch.float64)
        for tensor, bases in self.terms:
            factors = [
                b.matrix(points[:, j].contiguous(), o) for j, (b, o) in enumerate(zip(bases, jet.orders, strict=True))
            ]
            total = total + contract(factors, tensor[..., None], False)[..., 0]
        return total


def boolean_sum(axes: Sequence[AxisPrior], traces: dict[tuple[int, int], Trace]) -> Lift:
    """The lift of traces.

    Args:
        axes: Priors; those that are a :class:`ConditionedAxis` have constraints.
        traces: Values of constraint c of axis j, by (j, c); missing ones are zero.
    """
    constrained = [j for j, a in enumerate(axes) if isinstance(a, ConditionedAxis) and a.constraints]
    terms: list[tuple[Tensor, tuple[Basis, ...]]] = []
    mismatch, size = 0.0, 1e-300
    for count in range(1, len(constrained) + 1):
        for chosen in itertools.combinations(constrained, count):
            ranges = [range(len(_constraints(axes[j]))) for j in chosen]
            for picks in itertools.product(*ranges):
                versions = [
                    v for first in range(count) if (v := _reduce(chosen, picks, first, axes, traces)) is not None
                ]
                if not versions:
                    continue
                # Faces that have no data are zero: they take part in what two faces say about their edge.
                trace = versions[0]
                size = max(size, float(trace.coefficients.abs().max()))
                if count > 1:
                    values = [_edge_values(v) for v in versions]
                    if len(versions) < count:
                        values.append(torch.zeros_like(values[0]))
                    for other in values[1:]:
                        if other.shape == values[0].shape:
                            mismatch = max(mismatch, float((other - values[0]).abs().max()))
                terms.append(_term(chosen, picks, trace, axes, (-1.0) ** (count + 1)))
    tail = max((t.tail for t in traces.values()), default=0.0)
    return Lift(tuple(terms), mismatch / size, tail, size)


def _constraints(axis: AxisPrior) -> tuple[Constraint, ...]:
    assert isinstance(axis, ConditionedAxis)
    return axis.constraints


def _reduce(
    chosen: tuple[int, ...],
    picks: tuple[int, ...],
    first: int,
    axes: Sequence[AxisPrior],
    traces: dict[tuple[int, int], Trace],
) -> Trace | None:
    """The trace of the face ``chosen[first]`` at the other chosen faces."""
    trace = traces.get((chosen[first], picks[first]))
    if trace is None:
        return None
    for k, (j, c) in enumerate(zip(chosen, picks, strict=True)):
        if k != first:
            trace = trace.functional(j, _constraints(axes[j])[c])
    return trace


def _edge_values(trace: Trace) -> Tensor:
    """Values at a few points of each remaining axis, for comparing two traces in different bases."""
    tensor = trace.coefficients
    for mode, j in enumerate(sorted(trace.bases)):
        basis = trace.bases[j]
        assert isinstance(basis, ChebyshevBasis | KernelBasis)
        ends = (basis.lower, basis.upper) if isinstance(basis, ChebyshevBasis) else basis.nodes[[0, -1]].tolist()
        x = torch.linspace(ends[0], ends[1], 7, dtype=torch.float64)
        tensor = torch.tensordot(basis.matrix(x, 0), tensor, dims=([1], [mode])).movedim(0, mode)
    return tensor


def _term(
    chosen: tuple[int, ...], picks: tuple[int, ...], trace: Trace, axes: Sequence[AxisPrior], sign: float
) -> tuple[Tensor, tuple[Basis, ...]]:
    tensor = sign * trace.coefficients
    bases: list[Basis] = []
    for j, axis in enumerate(axes):
        if j not in chosen:
            bases.append(trace.bases[j])
            continue
        c = picks[chosen.index(j)]
        tensor = tensor.unsqueeze(j)
        wide = torch.zeros(
            [len(_constraints(axis)) if k == j else n for k, n in enumerate(tensor.shape)], dtype=torch.float64
        )
        wide.narrow(j, c, 1).copy_(tensor)
        tensor = wide
        assert isinstance(axis, ConditionedAxis)
        bases.append(_ConstraintBasis(axis))
    return tensor, tuple(bases)
