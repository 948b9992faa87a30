"""GP-HM: free values on a grid and a mixture kernel per axis; Adam on their joint density, or Gauss-Newton.

It is here for comparison. As published it learns slowly and has no uncertainty; for a given kernel Gauss-Newton finds
the values at once, and precisions of largest evidence give them a posterior. Where data are noisy the kernel keeps the
components that they pay for, and the posterior is averaged over the kernels that they leave likely.

References:
    Fang, Cooley, Long, Li, Kirby & Zhe (2024), Solving High Frequency and Multi-Scale PDEs with Gaussian Processes,
    ICLR.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.exact.averaging import MixturePosterior
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.exact.problem import collocation_axes
from gpkit.inference.collocation.forms import Data, Problem
from gpkit.inference.collocation.gphm.averaging import likely_posteriors
from gpkit.inference.collocation.gphm.laplace import Laplace, add_gram, refuse_if_too_large
from gpkit.inference.collocation.gphm.learning import LEFT_OUT
from gpkit.inference.collocation.gphm.newton import Optimum, optimise
from gpkit.inference.collocation.gphm.objective import GphmObjective, GphmState
from gpkit.inference.collocation.gphm.posterior import GphmPosterior
from gpkit.inference.collocation.gphm.roots import Roots
from gpkit.inference.collocation.posterior import FieldPosterior

__all__ = ["solve", "start"]

Watch = Callable[[int, float, Callable[[], GphmPosterior]], None]
_UNCONVERGED = 0.1
"""Of a standard deviation: values that are further from their optimum are not the middle of their posterior."""


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


def solve(
    problem: Problem,
    grid: Sequence[int],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    kernel: str = "student-t",
    optimiser: str = "adam",
    learn: bool = True,
    iterations: int | None = None,
    mixtures: int = 30,
    highest_frequency: float | Sequence[float] | None = None,
    boundary_weight: float = 200.0,
    learning_rate: float = 0.01,
    jitter: float | None = None,
    change_point: float | None = None,
    seed: int = 0,
    progress: bool = False,
    watch: Watch | None = None,
) -> FieldPosterior:
    """Optimise the published objective for a given number of iterations, or for a given kernel to its end.

    With "gauss-newton" the values are at their optimum for the kernel, equations without stated noise and the kernel's
    scale have the precision of largest evidence, and stated noise is what it is; noisy data also choose how many
    components the kernel has, and what they leave open of it is in the variance. With "adam" everything is where Adam
    has left it, noise is learned even where it is stated, and so are the posterior's precisions;
    ``diagnostics["uncertainty"]``, made with the first standard deviation, says what that is worth.

    Args:
        problem: Equations and conditions. Observations and periodic axes are not part of the method.
        grid: Points along each axis, ends included.
        parameters: Values of unknown coefficients.
        kernel: Spectrum of the mixtures: "student-t" (5 degrees of freedom) or "gaussian".
        optimiser: "adam", as published, or "gauss-newton".
        learn: Whether Gauss-Newton's kernel is moved to the largest evidence; else only its scale is.
        iterations: Steps of Adam, 2000 if not given; the paper makes 10^5 to 3 10^6. Before Gauss-Newton they only
            train the kernel, and none are made if not asked for.
        mixtures: Components of each axis' kernel.
        highest_frequency: Where the linearly spaced frequencies begin to end, one number or one an axis, in cycles per
            unit; by default 0.6 times the grid's Nyquist frequency.
        boundary_weight: Weight of the conditions; the paper has 200, and 500 for advection.
        learning_rate: Of Adam.
        jitter: Absolute, on the covariance of each axis: 1e-6 as published, or 1e-10 for Gauss-Newton, which keeps its
            digits.
        change_point: Fraction of the iterations after which values and kernel are frozen and a second process with one
            Matern-5/2 component is trained on what is left over; None for no second process. Linear problems only.
        seed: Unused: the method is deterministic. Kept so that every engine is called alike.
        progress: Whether to show a bar.
        watch: Called with the number of each step, the objective before it, and a function that gives the posterior
            after it.

    Raises:
        InvalidDataError: Periodic axes, observations, another kernel or optimiser, values on another grid, or more
            values than Gauss-Newton can factorise.
        ConvergenceError: The objective stops being a number, or Gauss-Newton does not converge.
    """
    if kernel not in ("student-t", "gaussian"):
        raise InvalidDataError(f"gphm knows the kernels 'student-t' and 'gaussian', got {kernel!r}")
    if optimiser not in ("adam", "gauss-newton"):
        raise InvalidDataError(f"gphm knows the optimisers 'adam' and 'gauss-newton', got {optimiser!r}")
    if optimiser == "gauss-newton" and change_point is not None:
        raise InvalidDataError("a second process (change_point) is trained with Adam: use optimiser='adam'")
    if problem.periodic or problem.observations:
        raise InvalidDataError("gphm takes neither periodic axes nor observations: use method='exact' or 'spectral'")
    axes = collocation_axes(problem.box, grid)
    if highest_frequency is None:
        frequencies = [0.3 * (len(x) - 1) / float(x[-1] - x[0]) for x in axes]
    elif isinstance(highest_frequency, Sequence):
        frequencies = [float(f) for f in highest_frequency]
    else:
        frequencies = [float(highest_frequency)] * len(axes)
    if jitter is None:
        jitter = 1e-6 if optimiser == "adam" else 1e-10
    objective = GphmObjective(problem, axes, kernel, boundary_weight, jitter, parameters)
    state = start(problem, grid, mixtures, frequencies)
    if optimiser == "gauss-newton":
        refuse_if_too_large(state.values.numel())
        trace = _adam(objective, state, iterations or 0, learning_rate, progress, watch, 0, None)
        return _by_newton(objective, state, trace, frequencies, learn, progress)
    iterations = 2000 if iterations is None else iterations
    first = iterations if change_point is None else max(1, round(change_point * iterations))
    trace = _adam(objective, state, first, learning_rate, progress, watch, 0, None)
    diagnostics: dict[str, Any] = {
        "method": f"gphm: the published objective with Adam, stopped after {len(trace)} steps as asked",
        "iterations": len(trace),
        "objective": trace,
        "highest_frequency": list(frequencies),
        "log_boundary_precision": float(state.log_boundary_precision),
        "log_equation_precision": [float(v) for v in state.log_equation_precision],
        "jitter": objective.jitter,
    }
    posterior = _of_state(objective, state, diagnostics)
    if change_point is None or first >= iterations:
        return posterior
    rest = _residual_problem(problem, axes, objective, posterior)
    second = GphmObjective(rest, axes, "student-t", boundary_weight, jitter, parameters)
    extra = start(rest, grid, 1, [0.0] * len(axes))
    more = _adam(second, extra, iterations - first, learning_rate, progress, watch, first, posterior)
    diagnostics |= {"objective": trace + more, "iterations": iterations, "change_point": first}
    return _of_state(objective, state, diagnostics, _of_state(second, extra, {}))


def _kernels(objective: GphmObjective, state: GphmState) -> tuple[list[list[MixtureAxis]], Roots]:
    """Covariances of every field and axis, and the whitened coordinates of their values on the grid."""
    # The optimiser goes on to change the state in place.
    kernel = [t.detach().clone() for t in state.kernel()]
    fields, d = len(objective.problem.fields), len(objective.axes)
    kernels = [[objective.mixture(kernel, f, j) for j in range(d)] for f in range(fields)]
    return kernels, Roots.of_covariances(objective.covariances(kernel))


@torch.no_grad()
def _of_state(
    objective: GphmObjective,
    state: GphmState,
    diagnostics: dict[str, Any],
    correction: GphmPosterior | None = None,
) -> GphmPosterior:
    """Posterior around the values that Adam has left."""
    kernels, roots = _kernels(objective, state)
    weights, precisions = roots.weights(state.values), objective.precisions(state)
    scales = [1.0] * len(kernels)

    def around() -> Laplace:
        rows = objective.linear_rows(roots.jets(objective.all_jets, weights))
        laplace = Laplace(roots, rows, precisions, scales)
        diagnostics["uncertainty"] = _judged(laplace, weights, len(objective.problem.equations))
        return laplace

    axes, jitter = objective.axes, objective.jitter
    return GphmPosterior(axes, kernels, jitter, roots, weights, scales, around, diagnostics, correction)


def _watched(objective: GphmObjective, state: GphmState, base: GphmPosterior | None) -> GphmPosterior:
    now = _of_state(objective, state, {})
    return now if base is None else base.plus(now)


def _noise_levels(laplace: Laplace, rows: int) -> list[tuple[float, float]]:
    """Noise that each of the first rows is taken to have, and what its residuals say for the numbers that are left."""
    inverse = laplace.inverse()
    found = []
    for r, v in list(zip(laplace.rows, laplace.precisions, strict=True))[:rows]:
        gram = torch.zeros_like(inverse)
        add_gram(gram, laplace.roots, r, v)
        left = max(r.residual.numel() - float((inverse * gram).sum()), 1e-3)
        found.append((v**-0.5, math.sqrt(max(float((r.residual**2).sum()) / left, 1e-300))))
    return found


def _judged(laplace: Laplace, weights: Tensor, equations: int) -> str:
    """What speaks against the posterior around values that an iteration has left, in a sentence."""
    gradient = laplace.gradient(weights)
    length = math.sqrt(max(float(gradient @ laplace.solve(gradient)), 0.0) / len(weights))
    doubts = []
    if length > _UNCONVERGED:
        doubts.append(
            f"the values are {length:.2g} standard deviations from their optimum, so the intervals are around the "
            "wrong place"
        )
    for i, (learned, implied) in enumerate(_noise_levels(laplace, equations)):
        if not 0.8 < learned / implied < 1.25:
            doubts.append(
                f"the noise that was learned for equation {i + 1}, {learned:.2g}, is {learned / implied:.2g} times "
                f"what its residuals say, so the intervals are too {'narrow' if learned < implied else 'wide'}"
            )
    if not doubts:
        return "Laplace, for the kernel and the noise that were learned"
    return f"Laplace, not to be relied on: {'; '.join(doubts)}"


def _by_newton(
    objective: GphmObjective,
    state: GphmState,
    trace: list[float],
    frequencies: Sequence[float],
    learn: bool,
    progress: bool,
) -> FieldPosterior:
    """Values at their optimum, for a kernel and with precisions of largest evidence."""
    found = optimise(objective, state, learn, progress)
    kernels, roots = _kernels(objective, found.state)
    trained = f"after {len(trace)} steps of Adam for the kernel" if trace else "from the published start"
    if learn:
        trained += f", {len(found.evidence)} steps of L-BFGS on the evidence of kernel and precisions"
    else:
        trained += ", precisions and scale of largest evidence"
    diagnostics: dict[str, Any] = {
        "method": f"gphm: {len(found.steps)} Gauss-Newton steps {trained}, and the Laplace posterior at the last",
        "iterations": len(trace),
        "objective": [*trace, *found.objective],
        "newton_steps": list(found.steps),
        "highest_frequency": list(frequencies),
        "log_equation_precision": [math.log(v) for v in found.precisions.rows[: len(objective.problem.equations)]],
        "log_scale": [math.log(s) for s in found.precisions.scales],
        "log_evidence": found.log_evidence,
        "components": (found.state.log_weights > LEFT_OUT).sum(-1).tolist(),
        "jitter": objective.jitter,
        "uncertainty": _judged_noise(found, objective),
    }
    scales, laplace = found.precisions.scales, found.laplace
    posterior = GphmPosterior(
        objective.axes, kernels, objective.jitter, roots, found.weights, scales, lambda: laplace, diagnostics
    )
    if not (learn and objective.is_noisy):
        return posterior
    likely = likely_posteriors(objective, found)
    diagnostics["kernels"] = len(likely)
    # The mean of several linearisations would not solve equations that are not linear.
    centre = None if objective.problem.is_linear else posterior
    mixture = MixturePosterior([p for _, p in likely], [share for share, _ in likely], centre)
    mixture.diagnostics = diagnostics
    return mixture


def _judged_noise(found: Optimum, objective: GphmObjective) -> str:
    problem = objective.problem
    names = [f"equation {k + 1}" for k in range(len(problem.equations))]
    names += [f"the {c.kind} data of condition {k + 1}" for k, c in enumerate(problem.conditions)]
    levels = _noise_levels(found.laplace, len(names))
    for i, (name, noisy, (used, implied)) in enumerate(zip(names, objective.noisy_rows, levels, strict=True)):
        # A few numbers say little of their noise.
        most = max(math.log(1.25), 3.0 / math.sqrt(2.0 * found.laplace.rows[i].residual.numel()))
        if noisy and i not in found.precisions.free and abs(math.log(used / implied)) > most:
            return (
                f"Laplace, not to be relied on: {name} is stated to have noise {used:.2g}, its residuals say "
                f"{implied:.2g}"
            )
    noise = "noise of largest evidence" if found.precisions.free else "noise as stated"
    if not found.evidence:
        return f"Laplace, for a kernel that was not learned but for its scale, and {noise}"
    if objective.is_noisy:
        return f"Laplace, averaged over kernels that the evidence leaves likely, for {noise}"
    return f"Laplace, for a kernel of largest evidence and {noise}"


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
    if iterations == 0:
        return []
    tensors = state.tensors()
    # The second process has one component of fixed weight and no frequency.
    frozen = set() if base is None else {id(state.log_weights), id(state.frequencies)}
    optimiser = torch.optim.Adam([t for t in tensors if id(t) not in frozen], lr=learning_rate, fused=True)
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
            watch(offset + i + 1, value, partial(_watched, objective, state, base))
    return trace


def _residual_problem(
    problem: Problem, axes: Sequence[Tensor], objective: GphmObjective, posterior: GphmPosterior
) -> Problem:
    """The same linear operators with what a posterior's mean leaves over on their right sides.

    Raises:
        InvalidDataError: The problem is nonlinear.
    """
    if not problem.is_linear:
        raise InvalidDataError("a second process (change_point) is possible for linear problems only")
    jets = posterior.jets(objective.all_jets)
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
