"""The objective of GP-HM and its gradient, without differentiating through matrices.

The covariance of every axis is Toeplitz: the objective depends on the kernel through one column per order of
derivative. Gradients with respect to the matrices are summed along their diagonals, which gives the gradient with
respect to the columns; from there closed forms lead to the parameters. Linear terms with constant coefficients are
added up in folded coordinates, which are orthogonal: a linear equation never leaves them.

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
from gpkit.inference.collocation.forms import Condition, Data, Jet, Parameters, Problem
from gpkit.inference.collocation.gphm.columns import lengthscales
from gpkit.inference.collocation.gphm.covariances import Covariances
from gpkit.inference.collocation.gphm.jets import FoldedEquation, GridJets
from gpkit.inference.collocation.gphm.laplace import LinearRows
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope

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
        self._equations = [
            FoldedEquation(e, s, self.coordinates, self.parameters)
            for e, s in zip(problem.equations, self.sources, strict=True)
        ]
        self.faces = [self._face(c) for c in problem.conditions]
        self._orders = [(0, *[jet.orders[j] for jet in self.all_jets]) for j in range(len(axes))]
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

    @property
    def is_noisy(self) -> bool:
        """Whether an equation or a condition has noise, which a kernel could follow."""
        return any(self.noisy_rows)

    @property
    def noisy_rows(self) -> list[bool]:
        """Of every equation and then of every condition, whether it has noise."""
        data = [*[e.source for e in self.problem.equations], *[c.value for c in self.problem.conditions]]
        return [d.noise != 0.0 for d in data]

    def mixture(self, kernel: Sequence[Tensor], field: int, axis: int) -> MixtureAxis:
        """Covariance of an axis from log weights, log inverse lengths and frequencies, each (F, d, Q)."""
        log_weights, log_inverse, frequencies = (t[field, axis] for t in kernel)
        lengths = lengthscales(self.envelope, log_inverse)
        return MixtureAxis(self.envelope, torch.exp(log_weights), lengths, frequencies)

    def covariances(self, kernel: Sequence[Tensor]) -> Covariances:
        """Of every field and axis."""
        return Covariances(self.envelope, self._lags, self._orders, kernel, self.jitter)

    @torch.no_grad()
    def __call__(self, state: GphmState) -> tuple[float, list[Tensor]]:
        """Value of the objective that is minimised, and its gradient in the order of ``state.tensors()``."""
        cells = math.prod(self.shape)
        covariances = self.covariances(state.kernel())
        jets = GridJets.of_values(state.values, covariances)
        total = jets.pull_quadratic() + covariances.pull_determinant()
        equation_slope = torch.zeros_like(state.log_equation_precision)
        for i, equation in enumerate(self._equations):
            log_precision = float(state.log_equation_precision[i])
            square = equation.pull(jets, math.exp(log_precision))
            total += 0.5 * square - 0.5 * cells * log_precision
            equation_slope[i] = 0.5 * square - 0.5 * cells
        value, boundary_slope = self._conditions(state, jets)
        values_slope = jets.gradient()
        return total + value, [values_slope, *covariances.gradient(), boundary_slope, equation_slope]

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

    def _conditions(self, state: GphmState, jets: GridJets) -> tuple[float, Tensor]:
        log_precision = float(state.log_boundary_precision)
        strength, square, count = self.boundary_weight * math.exp(log_precision), 0.0, 0
        for condition, (index, coordinates, target) in zip(self.problem.conditions, self.faces, strict=True):
            found: Tensor = -target
            factors = [t.coefficient(coordinates, self.parameters) for t in condition.terms]
            for t, c in zip(condition.terms, factors, strict=True):
                found = found + c * jets.on_grid(t.jet)[index]
            square += float((found**2).sum())
            count += found.numel()
            for t, c in zip(condition.terms, factors, strict=True):
                jets.slope_on_grid(t.jet)[index] += strength * found * c
        value = 0.5 * strength * square - 0.5 * self.boundary_weight * count * log_precision
        slope = 0.5 * strength * square - 0.5 * self.boundary_weight * count
        return value, torch.tensor(slope, dtype=torch.float64)


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
