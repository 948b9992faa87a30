"""The objective of GP-HM and its gradient, without differentiating through matrices.

The covariance of every axis is Toeplitz: the objective depends on the kernel through one column per order of
derivative. Gradients with respect to the matrices are summed along their diagonals, which gives the gradient with
respect to the columns; from there closed forms lead to the parameters.

References:
    Fang, Cooley, Long, Li, Kirby & Zhe (2024), Solving High Frequency and Multi-Scale PDEs with Gaussian Processes,
    ICLR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.exact_problem import data_values, open_mesh
from gpkit.inference.collocation.forms import Condition, Equation, Jet, Parameters, Problem
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope, mixture_derivatives

__all__ = ["AxisColumns", "GphmObjective", "GphmState", "diagonal_sums", "toeplitz"]


@dataclass(eq=False)
class GphmState:
    """Everything that is optimised; U and the noise precisions are of one problem, kernels of each field and axis.

    Attributes:
        values: U, one grid a field, (F, N_1, ..., N_d).
        log_weights: (F, d, Q).
        log_inverse_lengths: (F, d, Q).
        frequencies: (F, d, Q), in cycles per unit.
        log_boundary_precision: log tau.
        log_equation_precision: log v, one an equation.
    """

    values: Tensor
    log_weights: Tensor
    log_inverse_lengths: Tensor
    frequencies: Tensor
    log_boundary_precision: Tensor
    log_equation_precision: Tensor

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        return [
            self.values,
            self.log_weights,
            self.log_inverse_lengths,
            self.frequencies,
            self.log_boundary_precision,
            self.log_equation_precision,
        ]


def toeplitz(column: Tensor, order: int) -> Tensor:
    """Matrix of an even or odd function of the lag from its values at lags 0, h, 2 h, ..."""
    n = len(column)
    both = torch.cat([column.flip(0)[:-1] * (-1.0) ** order, column])
    # Row i holds lags i, i - 1, ..., i - n + 1: a window of the reversed sequence that moves by one.
    reverse = both.flip(0).contiguous()
    return reverse.unfold(0, n, 1).flip(0)


def diagonal_sums(matrix: Tensor, order: int) -> Tensor:
    """Adjoint of :func:`toeplitz`: the gradient of the column from that of the matrix."""
    n = len(matrix)
    padded = torch.zeros(n * (2 * n + 1), dtype=matrix.dtype)
    padded[: 2 * n * n].view(n, 2 * n)[:, :n] = matrix
    # Read in rows that are one longer, row i has moved i places to the left: entries of one lag share a column.
    sums = padded.view(n, 2 * n + 1).sum(0)
    lower = torch.cat([sums[:1], sums[n + 2 :].flip(0)])
    upper = sums[:n].clone()
    upper[0] = 0.0
    return lower + upper * (-1.0) ** order


class AxisColumns:
    """Covariance of one axis of one field: Toeplitz matrices, Cholesky factor, and what their gradients add up to.

    Args:
        columns: Derivatives 0..order of the kernel at the lags of the grid, (order + 1, N).
        jitter: Added to the diagonal of the covariance of values.

    Raises:
        NotPositiveDefiniteError: The covariance with its jitter is not definite.
    """

    def __init__(self, columns: Tensor, jitter: float) -> None:
        """Factorise."""
        self._columns = columns
        self.matrices: dict[int, Tensor] = {}
        covariance = toeplitz(columns[0], 0).contiguous()
        covariance.diagonal().add_(jitter)
        self.factor, info = torch.linalg.cholesky_ex(covariance)
        if int(info):
            raise NotPositiveDefiniteError("the covariance of the grid's values is not definite", row=int(info) - 1)
        self.inverse = torch.cholesky_inverse(self.factor)
        self.covariance_gradient = torch.zeros_like(covariance)
        self.matrix_gradients: dict[int, Tensor] = {}

    def matrix(self, order: int) -> Tensor:
        """Of the derivative of an order."""
        if order not in self.matrices:
            self.matrices[order] = toeplitz(self._columns[order], order)
        return self.matrices[order]

    def gradient(self) -> Tensor:
        """With respect to the columns, (order + 1, N)."""
        out = torch.zeros_like(self._columns)
        out[0] += diagonal_sums(self.covariance_gradient, 0)
        for order, g in self.matrix_gradients.items():
            out[order] += diagonal_sums(g, order)
        return out


class GphmObjective:
    """Minus the log of the joint density, up to constants.

    Args:
        problem: Equations and conditions; observations are not part of the published objective.
        axes: Of the collocation grid, uniform along each axis.
        envelope: Of the mixtures: "student-t" (Matern-5/2) or "gaussian".
        boundary_weight: The weight of the conditions' part.
        jitter: Absolute, added to each axis' covariance.
        parameters: Of unknown coefficients.
    """

    def __init__(
        self,
        problem: Problem,
        axes: Sequence[Tensor],
        envelope: str = "student-t",
        boundary_weight: float = 200.0,
        jitter: float = 1e-6,
        parameters: Parameters | None = None,
    ) -> None:
        """Evaluate sources and boundary data once."""
        self.problem = problem
        self.axes = tuple(axes)
        self.envelope = GaussianEnvelope() if envelope == "gaussian" else MaternEnvelope(2.5)
        self.boundary_weight = boundary_weight
        self.jitter = jitter
        self.parameters: Parameters = parameters or {}
        self.coordinates = open_mesh(axes)
        self.shape = tuple(len(x) for x in axes)
        self.sources = [
            data_values(e.source, axes, self.parameters, f"the source of equation {i + 1}")
            for i, e in enumerate(problem.equations)
        ]
        self.faces = [self._face(c) for c in problem.conditions]
        orders = [o for e in problem.equations for j in e.all_jets for o in j.orders]
        orders += [o for c in problem.conditions for t in c.terms for o in t.jet.orders]
        self.highest_order = max(orders, default=0)
        self._lags = [torch.arange(len(x), dtype=torch.float64) * (x[-1] - x[0]) / (len(x) - 1) for x in axes]

    def _face(self, condition: Condition) -> tuple[tuple[slice | int, ...], list[Tensor], Tensor]:
        """Index of a face in the grid, its coordinates, and its values."""
        j = condition.axis
        end = 0 if condition.side == 0 else len(self.axes[j]) - 1
        face = [x[end : end + 1] if k == j else x for k, x in enumerate(self.axes)]
        if condition.value.values is not None:
            values = condition.value.values.reshape([len(x) for x in face])
        else:
            values = data_values(condition.value, face, self.parameters, f"the {condition.kind} data")
        index: tuple[slice | int, ...] = tuple(
            slice(end, end + 1) if k == j else slice(None) for k in range(len(self.axes))
        )
        return index, open_mesh(face), values

    def columns(self, state: GphmState, field: int, axis: int) -> Tensor:
        """Kernel and its derivatives at the lags of an axis, differentiable in the state."""
        lengths = self.lengthscales(state, field, axis)
        weights = torch.exp(state.log_weights[field, axis])
        lag = self._lags[axis]
        mu = state.frequencies[field, axis]
        return mixture_derivatives(self.envelope, lag, weights, lengths, mu, self.highest_order)

    def lengthscales(self, state: GphmState, field: int, axis: int) -> Tensor:
        """Length scales of the components: the published parameter is the log of an inverse."""
        if isinstance(self.envelope, GaussianEnvelope):
            # exp(-z^2 e^l) there is exp(-z^2 / (2 s^2)) here.
            return torch.exp(-0.5 * state.log_inverse_lengths[field, axis]) / math.sqrt(2.0)
        return torch.exp(-state.log_inverse_lengths[field, axis])

    def __call__(self, state: GphmState) -> tuple[float, list[Tensor]]:
        """Value of the objective that is minimised, and its gradient in the order of ``state.tensors()``."""
        d, fields = len(self.axes), len(self.problem.fields)
        kernel = [state.log_weights, state.log_inverse_lengths, state.frequencies]
        leaves = [t.detach().requires_grad_() for t in kernel]
        inner = GphmState(
            state.values, leaves[0], leaves[1], leaves[2], state.log_boundary_precision, state.log_equation_precision
        )
        with torch.enable_grad():
            graph = [[self.columns(inner, f, j) for j in range(d)] for f in range(fields)]
        with torch.no_grad():
            covariances = [[AxisColumns(c.detach(), self.jitter) for c in line] for line in graph]
            value, gradients = self._value(state, covariances)
        outputs = [c for line in graph for c in line]
        seeds = [a.gradient() for line in covariances for a in line]
        kernel_gradients = torch.autograd.grad(outputs, leaves, seeds)
        return value, [gradients[0], *kernel_gradients, gradients[1], gradients[2]]

    def _value(self, state: GphmState, covariances: list[list[AxisColumns]]) -> tuple[float, list[Tensor]]:
        values, cells = state.values, math.prod(self.shape)
        slope = torch.zeros_like(values)
        total = 0.0
        for f, axes in enumerate(covariances):
            total += _add_prior(values[f], slope[f], axes, cells)
        jets = self.jets(values, covariances)
        jet_slopes: dict[Jet, Tensor] = {j: torch.zeros(self.shape, dtype=torch.float64) for j in jets}
        equation_slope = torch.zeros_like(state.log_equation_precision)
        for i, (equation, source) in enumerate(zip(self.problem.equations, self.sources, strict=True)):
            precision = float(state.log_equation_precision[i].exp())
            residual = equation.left_side(self.coordinates, jets, self.parameters) - source
            square = float((residual**2).sum())
            total += 0.5 * precision * square - 0.5 * cells * float(state.log_equation_precision[i])
            equation_slope[i] = 0.5 * precision * square - 0.5 * cells
            self._pull(equation, jets, precision * residual, jet_slopes)
        boundary_slope = self._conditions(state, jets, jet_slopes)
        total += boundary_slope[1]
        for jet, g in jet_slopes.items():
            _pull_jet(jet, g, values[jet.field], slope[jet.field], covariances[jet.field])
        return total, [slope, boundary_slope[0], equation_slope]

    def jets(self, values: Tensor, covariances: list[list[AxisColumns]]) -> dict[Jet, Tensor]:
        """Every jet of the problem on the grid."""
        wanted = [j for e in self.problem.equations for j in e.all_jets]
        wanted += [t.jet for c in self.problem.conditions for t in c.terms]
        jets: dict[Jet, Tensor] = {}
        for jet in dict.fromkeys(wanted):
            out = values[jet.field]
            for axis, order in enumerate(jet.orders):
                if order:
                    # Cheaper as two products of a vector than as one with the matrix K C^-1.
                    out = _mode(covariances[jet.field][axis].inverse, out, axis)
                    out = _mode(covariances[jet.field][axis].matrix(order), out, axis)
            jets[jet] = out
        return jets

    def _pull(self, equation: Equation, jets: Mapping[Jet, Tensor], weight: Tensor, slopes: dict[Jet, Tensor]) -> None:
        for jet, derivative in equation.linearised(self.coordinates, jets, self.parameters).items():
            slopes[jet] += weight * derivative

    def _conditions(
        self, state: GphmState, jets: Mapping[Jet, Tensor], slopes: dict[Jet, Tensor]
    ) -> tuple[Tensor, float]:
        log_precision = float(state.log_boundary_precision)
        precision, weight = math.exp(log_precision), self.boundary_weight
        square, count = 0.0, 0
        for condition, (index, coordinates, target) in zip(self.problem.conditions, self.faces, strict=True):
            found: Tensor = -target
            factors = [t.coefficient(coordinates, self.parameters) for t in condition.terms]
            for t, c in zip(condition.terms, factors, strict=True):
                found = found + c * jets[t.jet][index]
            square += float((found**2).sum())
            count += found.numel()
            for t, c in zip(condition.terms, factors, strict=True):
                slopes[t.jet][index] += weight * precision * found * c
        value = weight * (0.5 * precision * square - 0.5 * count * log_precision)
        return torch.tensor(weight * 0.5 * (precision * square - count), dtype=torch.float64), value


def _mode(matrix: Tensor, tensor: Tensor, axis: int) -> Tensor:
    return torch.tensordot(matrix, tensor, dims=([1], [axis])).movedim(0, axis)


def _unfold(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def _add_prior(values: Tensor, slope: Tensor, axes: Sequence[AxisColumns], cells: int) -> float:
    """Minus the log prior of a grid of values; its gradients are added to the slope and to the axes."""
    total = 0.0
    solved = values
    for j, a in enumerate(axes):
        solved = _mode(a.inverse, solved, j)
    slope += solved
    total += 0.5 * float((solved * values).sum())
    for j, a in enumerate(axes):
        share = cells / values.shape[j]
        total += share * float(a.factor.diagonal().log().sum())
        others = values
        for k, b in enumerate(axes):
            if k == j:
                others = _mode(b.inverse, others, k)
        # d/dC of the quadratic form is -(C^-1 U)(C^-1 U (x) C'^-1 ...)^T, of the determinant C^-1.
        quadratic = _unfold(solved, j) @ _unfold(others, j).T
        a.covariance_gradient += 0.5 * (share * a.inverse - quadratic)
    return total


def _pull_jet(jet: Jet, gradient: Tensor, values: Tensor, slope: Tensor, axes: Sequence[AxisColumns]) -> None:
    """Gradient of a jet to the values and to the matrices of the axes that it differentiates along."""
    moving = [j for j, o in enumerate(jet.orders) if o]
    if not moving:
        slope += gradient
        return
    # Inputs of each axis' K C^-1, from the values upwards, then adjoints downwards.
    inputs = [values]
    for j in moving[:-1]:
        step = _mode(axes[j].inverse, inputs[-1], j)
        inputs.append(_mode(axes[j].matrix(jet.orders[j]), step, j))
    for j, given in zip(reversed(moving), reversed(inputs), strict=True):
        a, order = axes[j], jet.orders[j]
        solved = _mode(a.inverse, given, j)
        back = _mode(a.inverse, _mode(a.matrix(order).T, gradient, j), j)
        outer = _unfold(gradient, j) @ _unfold(solved, j).T
        a.matrix_gradients[order] = a.matrix_gradients.get(order, 0.0) + outer
        a.covariance_gradient -= _unfold(back, j) @ _unfold(solved, j).T
        gradient = back
    slope += gradient
