"""GP-HM as published: free values on a grid, a mixture kernel per axis, and Adam on their joint density.

It is here for comparison. It learns slowly, its uncertainty is that of the values for a fixed kernel, and the other
methods solve the same problems directly.

References:
    Fang, Cooley, Long, Li, Kirby & Zhe (2024), Solving High Frequency and Multi-Scale PDEs with Gaussian Processes,
    ICLR.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.exact.problem import collocation_axes
from gpkit.inference.collocation.exact.rows import contract
from gpkit.inference.collocation.forms import Data, Jet, Problem
from gpkit.inference.collocation.gphm.axes import AxisColumns
from gpkit.inference.collocation.gphm.objective import GphmObjective, GphmState
from gpkit.kernels.stationary import mixture_derivatives

__all__ = ["GphmPosterior", "solve", "start"]

Watch = Callable[[int, float, "GphmPosterior"], None]


def start(problem: Problem, shape: Sequence[int], mixtures: int, highest_frequency: Sequence[float]) -> GphmState:
    """The published start: equal weights, unit inverse lengths, frequencies from 0 upwards, values of zero.

    Args:
        problem: For the number of fields and equations.
        shape: Of the grid.
        mixtures: Components of each kernel.
        highest_frequency: Of each axis, in cycles per unit.
    """
    fields, d = len(problem.fields), len(shape)
    lines = [torch.linspace(0.0, float(f), mixtures, dtype=torch.float64) for f in highest_frequency]

    def full(value: float) -> Tensor:
        return torch.full((fields, d, mixtures), value, dtype=torch.float64)

    return GphmState(
        values=torch.zeros(fields, *shape, dtype=torch.float64),
        log_weights=full(-math.log(mixtures)),
        log_inverse_lengths=full(0.0),
        frequencies=torch.stack(lines).expand(fields, d, mixtures).clone(),
        log_boundary_precision=torch.zeros((), dtype=torch.float64),
        log_equation_precision=torch.zeros(len(problem.equations), dtype=torch.float64),
    )


class GphmPosterior:
    """Fields given the optimised values on the grid.

    The variance is that of the values around their optimum for the optimised kernel (Laplace), in one dimension and
    for linear problems; the published method has none.

    Args:
        objective: What was optimised.
        state: Where the optimisation ended.
        diagnostics: Of the optimisation.
        correction: A second posterior that is added: the published "extra" process.
    """

    def __init__(
        self,
        objective: GphmObjective,
        state: GphmState,
        diagnostics: dict[str, Any],
        correction: GphmPosterior | None = None,
    ) -> None:
        """Solve for the weights of the kernel functions."""
        self.diagnostics = diagnostics
        self._objective = objective
        self._state = state
        self._correction = correction
        d = len(objective.axes)
        self._covariances = [
            [AxisColumns(objective.columns(state, f, j).detach(), objective.jitter) for j in range(d)]
            for f in range(len(objective.problem.fields))
        ]
        self._weights = [
            contract([a.inverse for a in axes], u.detach()[..., None], True)
            for axes, u in zip(self._covariances, state.values, strict=True)
        ]

    def parts(self) -> tuple[GphmObjective, GphmState]:
        """What was optimised, and where it ended."""
        return self._objective, self._state

    def jets_on_grid(self) -> dict[Jet, Tensor]:
        """Every jet of the problem at the collocation points."""
        return self._objective.jets(self._state.values.detach(), self._covariances)

    def _factors(self, jet: Jet, coordinates: Sequence[Tensor]) -> list[Tensor]:
        factors = []
        for j, (x, nodes, order) in enumerate(zip(coordinates, self._objective.axes, jet.orders, strict=True)):
            state, f = self._state, jet.field
            weights, length = state.log_weights[f, j].detach().exp(), self._objective.lengthscales(state, f, j).detach()
            mu = state.frequencies[f, j].detach()
            lag = x[:, None] - nodes[None, :]
            factors.append(mixture_derivatives(self._objective.envelope, lag, weights, length, mu, order)[order])
        return factors

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Mean of a jet at points (m, d)."""
        coordinates = [points[:, j] for j in range(points.shape[1])]
        mean = contract(self._factors(jet, coordinates), self._weights[jet.field], points.shape[1] == 1)[..., 0]
        return mean if self._correction is None else mean + self._correction.mean(jet, points)

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Mean of a jet on a tensor grid."""
        mean = contract(self._factors(jet, axes), self._weights[jet.field], True)[..., 0]
        return mean if self._correction is None else mean + self._correction.mean_on_grid(jet, axes)

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Variance of a jet at points (m, 1), for a fixed kernel.

        Raises:
            InvalidDataError: The problem has more axes than one, more fields than one, or is nonlinear.
        """
        factor = self._laplace()
        left = self._factors(jet, [points[:, 0]])[0]
        state, f = self._state, jet.field
        zero = torch.zeros(1, dtype=torch.float64)
        at_zero = mixture_derivatives(
            self._objective.envelope,
            zero,
            state.log_weights[f, 0].detach().exp(),
            self._objective.lengthscales(state, f, 0).detach(),
            state.frequencies[f, 0].detach(),
            2 * jet.orders[0],
        )[-1, 0]
        weights = left @ self._covariances[f][0].inverse
        spread = torch.linalg.solve_triangular(factor, weights.T, upper=False)
        between = at_zero * (-1.0) ** jet.orders[0] - (weights * left).sum(1)
        variance = between.clamp_min(0.0) + (spread**2).sum(0)
        return variance if self._correction is None else variance + self._correction.variance(jet, points)

    def sample(self, n: int, generator: torch.Generator) -> Callable[[Jet, Tensor], Tensor]:
        """N draws of the values on the grid, carried elsewhere by the kernel."""
        factor = self._laplace()
        size = len(factor)
        noise = torch.randn(size, n, generator=generator, dtype=torch.float64)
        weights = self._covariances[0][0].inverse @ torch.linalg.solve_triangular(factor.T, noise, upper=True)

        def draws(jet: Jet, points: Tensor) -> Tensor:
            left = self._factors(jet, [points[:, 0]])[0]
            return (self.mean(jet, points)[:, None] + left @ weights).T

        return draws

    def _laplace(self) -> Tensor:
        """Cholesky factor of the precision of the values at the optimum."""
        problem, objective = self._objective.problem, self._objective
        if len(objective.axes) > 1 or len(problem.fields) > 1 or not problem.is_linear:
            raise InvalidDataError(
                "the gphm method has an uncertainty only for linear problems of one field on one axis: "
                "use method='exact' or 'spectral'"
            )
        cov, state = self._covariances[0][0], self._state
        precision = cov.inverse.clone()
        eye = torch.eye(len(precision), dtype=torch.float64)
        for i, equation in enumerate(problem.equations):
            jets = {j: cov.matrix(j.orders[0]) @ cov.inverse if j.orders[0] else eye for j in equation.all_jets}
            column = [c[:, None] for c in objective.coordinates]
            rows = equation.left_side(column, jets, objective.parameters)
            precision += float(state.log_equation_precision[i].exp()) * rows.T @ rows
        strength = objective.boundary_weight * float(state.log_boundary_precision.exp())
        for condition in problem.conditions:
            end = 0 if condition.side == 0 else len(eye) - 1
            row = torch.zeros(len(eye), dtype=torch.float64)
            for t in condition.terms:
                order = t.jet.orders[0]
                line = cov.matrix(order)[end] @ cov.inverse if order else eye[end]
                row = row + t.coefficient([objective.axes[0][end]], objective.parameters) * line
            precision += strength * torch.outer(row, row)
        factor, info = torch.linalg.cholesky_ex(0.5 * (precision + precision.T))
        if int(info):
            raise ConvergenceError("the precision of the values is not positive definite: gphm has not converged")
        return factor


def solve(
    problem: Problem,
    grid: Sequence[int],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    kernel: str = "student-t",
    iterations: int = 2000,
    mixtures: int = 30,
    highest_frequency: float | Sequence[float] | None = None,
    boundary_weight: float = 200.0,
    learning_rate: float = 0.01,
    jitter: float = 1e-6,
    change_point: float | None = None,
    seed: int = 0,
    progress: bool = False,
    watch: Watch | None = None,
) -> GphmPosterior:
    """Optimise the published objective with Adam for a given number of iterations.

    Args:
        problem: Equations and conditions. Observations and periodic axes are not part of the method.
        grid: Points along each axis, ends included.
        parameters: Values of unknown coefficients.
        kernel: Spectrum of the mixtures: "student-t" (5 degrees of freedom) or "gaussian".
        iterations: Steps of Adam. The paper makes 10^5 to 3 10^6.
        mixtures: Components of each axis' kernel.
        highest_frequency: Where the linearly spaced frequencies begin to end, one number or one an axis, in cycles per
            unit; by default 0.6 times the grid's Nyquist frequency.
        boundary_weight: Weight of the conditions; the paper has 200, and 500 for advection.
        learning_rate: Of Adam.
        jitter: Absolute, on the covariance of each axis.
        change_point: Fraction of the iterations after which values and kernel are frozen and a second process with one
            Matern-5/2 component is trained on what is left over; None for no second process. Linear problems only.
        seed: Unused: the method is deterministic. Kept so that every engine is called alike.
        progress: Whether to show a bar.
        watch: Called with the number of each step, the objective before it, and the posterior after it (which is only
            built where ``watch`` is given).

    Raises:
        InvalidDataError: Periodic axes, observations, or another kernel.
        ConvergenceError: The objective stops being a number.
    """
    if kernel not in ("student-t", "gaussian"):
        raise InvalidDataError(f"gphm knows the kernels 'student-t' and 'gaussian', got {kernel!r}")
    if problem.periodic or problem.observations:
        raise InvalidDataError("gphm takes neither periodic axes nor observations: use method='exact' or 'spectral'")
    axes = collocation_axes(problem.box, grid)
    if highest_frequency is None:
        frequencies = [0.3 * (len(x) - 1) / float(x[-1] - x[0]) for x in axes]
    elif isinstance(highest_frequency, Sequence):
        frequencies = [float(f) for f in highest_frequency]
    else:
        frequencies = [float(highest_frequency)] * len(axes)
    objective = GphmObjective(problem, axes, kernel, boundary_weight, jitter, parameters)
    first = iterations if change_point is None else max(1, round(change_point * iterations))
    state = start(problem, grid, mixtures, frequencies)
    trace = _adam(objective, state, first, learning_rate, progress, watch, 0, None)
    posterior = _finish(objective, state, trace, frequencies)
    if change_point is None or first >= iterations:
        return posterior
    rest = _residual_problem(problem, axes, posterior)
    second = GphmObjective(rest, axes, "student-t", boundary_weight, jitter, parameters)
    extra = start(rest, grid, 1, [0.0] * len(axes))
    more = _adam(second, extra, iterations - first, learning_rate, progress, watch, first, posterior)
    diagnostics = posterior.diagnostics | {"objective": trace + more, "iterations": iterations, "change_point": first}
    return GphmPosterior(objective, state, diagnostics, GphmPosterior(second, extra, {}))


def _adam(
    objective: GphmObjective,
    state: GphmState,
    iterations: int,
    learning_rate: float,
    progress: bool,
    watch: Watch | None,
    offset: int,
    base: GphmPosterior | None,
) -> list[float]:
    tensors = state.tensors()
    optimiser = torch.optim.Adam(tensors, lr=learning_rate)
    if base is not None:
        # The second process has one component of fixed weight and no frequency.
        frozen = {id(state.log_weights), id(state.frequencies)}
        optimiser = torch.optim.Adam([t for t in tensors if id(t) not in frozen], lr=learning_rate)
    trace: list[float] = []
    for i in tqdm(range(iterations), desc="GP-HM steps", disable=None if progress else True):
        value, gradients = objective(state)
        if not math.isfinite(value):
            raise ConvergenceError(f"the objective of GP-HM is {value} at step {offset + i}")
        trace.append(value)
        for t, g in zip(tensors, gradients, strict=True):
            t.grad = g
        optimiser.step()
        if watch is not None:
            now = GphmPosterior(objective, state, {})
            watch(offset + i + 1, value, now if base is None else GphmPosterior(*base.parts(), {}, now))
    return trace


def _finish(
    objective: GphmObjective, state: GphmState, trace: list[float], frequencies: Sequence[float]
) -> GphmPosterior:
    diagnostics: dict[str, Any] = {
        "method": f"gphm: the published objective with Adam, stopped after {len(trace)} steps as asked",
        "iterations": len(trace),
        "objective": trace,
        "highest_frequency": list(frequencies),
        "log_boundary_precision": float(state.log_boundary_precision),
        "log_equation_precision": [float(v) for v in state.log_equation_precision],
        "jitter": objective.jitter,
    }
    return GphmPosterior(objective, state, diagnostics)


def _residual_problem(problem: Problem, axes: Sequence[Tensor], posterior: GphmPosterior) -> Problem:
    """The same linear operators with what a posterior's mean leaves over on their right sides.

    Raises:
        InvalidDataError: The problem is nonlinear.
    """
    if not problem.is_linear:
        raise InvalidDataError("a second process (change_point) is possible for linear problems only")
    jets = posterior.jets_on_grid()
    objective = posterior.parts()[0]
    equations = []
    for equation, source in zip(problem.equations, objective.sources, strict=True):
        left = source - equation.left_side(objective.coordinates, jets, objective.parameters)
        equations.append(dataclasses.replace(equation, source=Data(values=left, axes=tuple(axes))))
    conditions = []
    for condition, (index, coordinates, target) in zip(problem.conditions, objective.faces, strict=True):
        found: Tensor = -target
        for t in condition.terms:
            found = found + t.coefficient(coordinates, objective.parameters) * jets[t.jet][index]
        conditions.append(dataclasses.replace(condition, value=Data(values=-found)))
    return dataclasses.replace(problem, equations=tuple(equations), conditions=tuple(conditions))
