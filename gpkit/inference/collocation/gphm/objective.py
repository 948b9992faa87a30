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

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.exact.problem import data_values, open_mesh
from gpkit.inference.collocation.forms import Condition, Data, Equation, Jet, Parameters, Problem
from gpkit.inference.collocation.gphm.adjoints import along_axes, chain, pull_determinant, pull_jet, pull_quadratic
from gpkit.inference.collocation.gphm.axes import AxisColumns, fold, unfold
from gpkit.inference.collocation.gphm.laplace import LinearRows
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope, mixture_derivatives

__all__ = ["GphmObjective", "GphmState"]


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
        return [self.values, *self.kernel(), self.log_boundary_precision, self.log_equation_precision]

    def kernel(self) -> list[Tensor]:
        """Log weights, log inverse lengths and frequencies."""
        return [self.log_weights, self.log_inverse_lengths, self.frequencies]


class GphmObjective:
    """Minus the log of the joint density, up to constants.

    Args:
        problem: Equations and conditions; observations are not part of the published objective.
        axes: Of the collocation grid, uniform along each axis.
        envelope: Of the mixtures: "student-t" (Matern-5/2) or "gaussian".
        boundary_weight: The weight of the conditions' part.
        jitter: Absolute, added to each axis' covariance.
        parameters: Of unknown coefficients.

    Raises:
        InvalidDataError: Values are given elsewhere than on this grid, or are not finite.
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
        for i, e in enumerate(problem.equations):
            _require_grid(e.source, axes, f"the source of equation {i + 1}")
        self.sources = [
            data_values(e.source, axes, self.parameters, f"the source of equation {i + 1}")
            for i, e in enumerate(problem.equations)
        ]
        self.faces = [self._face(c) for c in problem.conditions]
        orders = [o for e in problem.equations for j in e.all_jets for o in j.orders]
        orders += [o for c in problem.conditions for t in c.terms for o in t.jet.orders]
        self.highest_order = max(orders, default=0)
        self._lags = [torch.arange(len(x), dtype=torch.float64) * (x[-1] - x[0]) / (len(x) - 1) for x in axes]

    def _face(self, condition: Condition) -> tuple[tuple[slice, ...], list[Tensor], Tensor]:
        """Index of a face in the grid, its coordinates, and its values."""
        j = condition.axis
        end = 0 if condition.side == 0 else len(self.axes[j]) - 1
        face = [x[end : end + 1] if k == j else x for k, x in enumerate(self.axes)]
        if condition.value.values is not None:
            others = [x for k, x in enumerate(self.axes) if k != j]
            _require_grid(condition.value, others, f"the {condition.kind} data")
            values = condition.value.values.reshape([len(x) for x in face])
        else:
            values = data_values(condition.value, face, self.parameters, f"the {condition.kind} data")
        index = tuple(slice(end, end + 1) if k == j else slice(None) for k in range(len(self.axes)))
        return index, open_mesh(face), values

    def columns(self, kernel: Sequence[Tensor], field: int, axis: int) -> Tensor:
        """Kernel and its derivatives at the lags of an axis, (order + 1, N), differentiable in what they depend on."""
        mixture = self.mixture(kernel, field, axis)
        return mixture_derivatives(
            self.envelope,
            self._lags[axis],
            mixture.weights,
            mixture.lengthscales,
            mixture.frequencies,
            self.highest_order,
        )

    def mixture(self, kernel: Sequence[Tensor], field: int, axis: int) -> MixtureAxis:
        """Covariance of an axis from log weights, log inverse lengths and frequencies, each (F, d, Q)."""
        log_weights, log_inverse_lengths, frequencies = (t[field, axis] for t in kernel)
        if isinstance(self.envelope, GaussianEnvelope):
            # exp(-z^2 e^l) there is exp(-z^2 / (2 s^2)) here.
            lengths = torch.exp(-0.5 * log_inverse_lengths) / math.sqrt(2.0)
        else:
            lengths = torch.exp(-log_inverse_lengths)
        return MixtureAxis(self.envelope, torch.exp(log_weights), lengths, frequencies)

    def log_inverse_length(self, length: float) -> float:
        """The published parameter of a length scale."""
        return (
            -2.0 * math.log(math.sqrt(2.0) * length)
            if isinstance(self.envelope, GaussianEnvelope)
            else -math.log(length)
        )

    def covariances(self, kernel: Sequence[Tensor]) -> list[list[AxisColumns]]:
        """Of every field and axis."""
        fields, d = len(self.problem.fields), len(self.axes)
        return [[AxisColumns(self.columns(kernel, f, j), self.jitter) for j in range(d)] for f in range(fields)]

    def __call__(self, state: GphmState) -> tuple[float, list[Tensor]]:
        """Value of the objective that is minimised, and its gradient in the order of ``state.tensors()``."""
        d, fields = len(self.axes), len(self.problem.fields)
        leaves = [t.detach().requires_grad_() for t in state.kernel()]
        with torch.enable_grad():
            graph = [[self.columns(leaves, f, j) for j in range(d)] for f in range(fields)]
        with torch.no_grad():
            covariances = [[AxisColumns(c.detach(), self.jitter) for c in line] for line in graph]
            value, gradients = self._value(state, covariances)
        outputs = [c for line in graph for c in line]
        seeds = [a.gradient() for line in covariances for a in line]
        kernel_gradients = torch.autograd.grad(outputs, leaves, seeds)
        return value, [gradients[0], *kernel_gradients, gradients[1], gradients[2]]

    def _value(self, state: GphmState, covariances: list[list[AxisColumns]]) -> tuple[float, list[Tensor]]:
        cells = math.prod(self.shape)
        folded = [along_axes(fold, u) for u in state.values]
        once = [[a.solve(u, j) for j, a in enumerate(line)] for u, line in zip(folded, covariances, strict=True)]
        slope = [torch.zeros_like(u) for u in folded]
        total = 0.0
        for f, line in enumerate(covariances):
            total += pull_quadratic(folded[f], once[f], slope[f], line) + pull_determinant(line, cells)
        jets = self._jets(state.values, folded, once, covariances)
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
            f = jet.field
            pull_jet(jet, along_axes(fold, g), folded[f], once[f], slope[f], covariances[f])
        return total, [torch.stack([along_axes(unfold, g) for g in slope]), boundary_slope[0], equation_slope]

    def precisions(self, state: GphmState) -> list[float]:
        """What the squares of every equation and then of every condition are weighted with."""
        equations = [float(v) for v in state.log_equation_precision.exp()]
        strength = self.boundary_weight * float(state.log_boundary_precision.exp())
        return equations + [strength] * len(self.faces)

    def linear_rows(self, jets: Mapping[Jet, Tensor]) -> list[LinearRows]:
        """Equations and then conditions, linearised where the jets on the grid are these."""
        everything = (slice(None),) * len(self.axes)
        rows = []
        for equation, source in zip(self.problem.equations, self.sources, strict=True):
            residual = equation.left_side(self.coordinates, jets, self.parameters) - source
            slopes = equation.linearised(self.coordinates, jets, self.parameters)
            rows.append(LinearRows(slopes, residual.expand(self.shape), everything))
        for condition, (index, coordinates, target) in zip(self.problem.conditions, self.faces, strict=True):
            found: Tensor = -target
            own: dict[Jet, Tensor] = {}
            for t in condition.terms:
                c = t.coefficient(coordinates, self.parameters)
                found = found + c * jets[t.jet][index]
                own[t.jet] = own[t.jet] + c if t.jet in own else c
            rows.append(LinearRows(own, found, index))
        return rows

    @property
    def all_jets(self) -> tuple[Jet, ...]:
        """Of equations and conditions, each once."""
        wanted = [j for e in self.problem.equations for j in e.all_jets]
        return tuple(dict.fromkeys([*wanted, *[t.jet for c in self.problem.conditions for t in c.terms]]))

    def _jets(
        self, values: Tensor, folded: list[Tensor], once: list[list[Tensor]], covariances: list[list[AxisColumns]]
    ) -> dict[Jet, Tensor]:
        jets: dict[Jet, Tensor] = {}
        for jet in self.all_jets:
            if any(jet.orders):
                # Cheaper as two products of a vector than as one with the matrix K C^-1.
                *_, (solved, j) = chain(jet, folded[jet.field], once[jet.field], covariances[jet.field])
                out = covariances[jet.field][j].apply(jet.orders[j], solved, j)
                jets[jet] = along_axes(unfold, out)
            else:
                jets[jet] = values[jet.field]
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


def _require_grid(data: Data, axes: Sequence[Tensor], what: str) -> None:
    """Check that values, where they are given, are at the points of the grid.

    Raises:
        InvalidDataError: They are not.
    """
    if data.values is None:
        return
    shape = tuple(len(x) for x in axes)
    own = data.axes or axes
    same = data.values.numel() == math.prod(shape) and len(own) == len(axes)
    if not same or any(
        len(x) != len(y) or not torch.allclose(x, y, rtol=0.0, atol=1e-9 * float(y[-1] - y[0]))
        for x, y in zip(own, axes, strict=True)
    ):
        raise InvalidDataError(
            f"{what} is given at {' x '.join(str(n) for n in data.values.shape)} points; gphm takes values at the "
            f"points of its own equispaced grid only, {' x '.join(map(str, shape))} here: use that grid, or "
            "method='exact' or 'spectral'"
        )
