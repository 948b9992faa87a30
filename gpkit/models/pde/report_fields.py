"""What reports show of fields: values, errors, standard deviations, spectra and residuals, on grids to be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Jet, evaluate, evaluate_on_grid
from gpkit.models.pde.residuals import off_grid_axes, residual_on

if TYPE_CHECKING:
    from gpkit.models.pde.solution import Solution

__all__ = ["field_section", "residual_maps"]

_PLOTTED = {1: 3001, 2: 241, 3: 121}
_STD = {1: 301, 2: 33, 3: 25}
_LINES = 6


def _axes(solution: Solution, count: int) -> list[Tensor]:
    box = solution.box
    return [torch.linspace(a, b, count, dtype=torch.float64) for a, b in zip(box.lower, box.upper, strict=True)]


def _sliced(solution: Solution, axes: list[Tensor]) -> tuple[list[Tensor], str]:
    """At most two axes, the third held in its middle."""
    if solution.box.dim < 3:
        return axes, ""
    middle = 0.5 * (solution.box.lower[2] + solution.box.upper[2])
    return [*axes[:2], torch.tensor([middle], dtype=torch.float64)], f"{solution.box.names[2]} = {middle:.4g}"


def _function(solution: Solution, axes: Sequence[Tensor], values: Tensor, note: str) -> Any:
    from gpkit.reports import GridFunction

    shown = [k for k, a in enumerate(axes) if len(a) > 1]
    array = values.detach().numpy().reshape([len(axes[k]) for k in shown])
    return GridFunction(tuple(axes[k].numpy() for k in shown), array, tuple(solution.box.names[k] for k in shown), note)


def field_section(solution: Solution, index: int, exact: Any) -> Any:
    """Mean, deviation, error and spectra of one field (a ``gpkit.reports.FieldSection``).

    Args:
        solution: What to report.
        index: Of the field.
        exact: The true solution, or None: a function of one tensor per axis.
    """
    from gpkit.reports import FieldSection

    name, d = solution.names[index], solution.box.dim
    axes, note = _sliced(solution, _axes(solution, _PLOTTED[d]))
    field = solution[name]
    mean = field.on_grid(axes)
    error, relative = None, math.nan
    if exact is not None:
        truth = evaluate_on_grid(exact, axes, "the known solution")
        error = _function(solution, axes, mean - truth, note)
        relative = float((mean - truth).norm() / truth.norm().clamp_min(1e-300))
    spectra = tuple(_spectrum(solution, index, k) for k in range(d))
    detail = None
    if d == 1:
        detail = _detail(solution, field, spectra[0])
    noisy = bool(solution.residuals.observations) or any(not math.isnan(z) for z in solution.residuals.standardised)
    draws = np.empty((0, 0))
    if d == 1 and noisy:
        draws = solution.sample(5, 0)(axes[0], name).numpy()
    unknown = name in solution.diagnostics.get("unknown_fields", ())
    return FieldSection(
        name=name,
        mean=_function(solution, axes, mean, note),
        std=_std(solution, name, note),
        error=error,
        detail=detail,
        spectra=() if unknown else spectra,
        draws=draws,
        relative_error=relative,
        is_unknown=unknown,
    )


def _std(solution: Solution, name: str, note: str) -> Any:
    axes, _ = _sliced(solution, _axes(solution, _STD[solution.box.dim]))
    mesh = torch.stack([m.reshape(-1) for m in torch.meshgrid(*axes, indexing="ij")], -1)
    try:
        std = solution[name].std(mesh)
    except InvalidDataError:  # of more values than the method has an uncertainty for
        return None
    return _function(solution, axes, std.reshape([len(a) for a in axes]), note)


def _detail(solution: Solution, field: Any, spectrum: Any) -> Any:
    """A dozen periods of the highest strong frequency, where the whole shows more than forty of them."""
    strong = np.flatnonzero(spectrum.solution > 1e-4 * spectrum.solution.max())
    highest = float(spectrum.frequency[strong[-1]]) if len(strong) else 0.0
    length = solution.box.lengths[0]
    if highest * length < 40.0:
        return None
    start = solution.box.lower[0] + 0.4 * length
    axis = torch.linspace(start, start + 12.0 / highest, 600, dtype=torch.float64)
    return _function(solution, [axis], field.on_grid([axis]), "")


def _spectrum(solution: Solution, index: int, axis: int) -> Any:
    """Power of field and source along an axis, under a Blackman window, on four times the points of the grid."""
    from gpkit.reports import LineSpectrum

    box, d = solution.box, solution.box.dim
    n = min(4 * solution.grid[axis], 8192)
    length = box.lengths[axis]
    generator = np.random.default_rng(5)
    axes = []
    for k in range(d):
        if k == axis:
            axes.append(torch.linspace(box.lower[k], box.upper[k], n, dtype=torch.float64))
        else:
            shares = np.sort(generator.uniform(0.05, 0.95, _LINES if d == 2 else 3))
            axes.append(torch.from_numpy(box.lower[k] + box.lengths[k] * shares))
    frequency = np.fft.rfftfreq(n, length / (n - 1))
    mean = solution.posterior.mean_on_grid(Jet(index, (0,) * d), axes)
    top = min(len(frequency), int(2.2 * solution.grid[axis] / 2) + 2)
    source = np.empty(0)
    problem = None if solution.problem is None else solution.problem.form
    if problem is not None and index < len(problem.equations):
        data = problem.equations[index].source
        if data.function is not None:
            mesh = [m.contiguous() for m in torch.meshgrid(*axes, indexing="ij")]
            source = _power(evaluate(data.function, mesh, "the source"), axis)[:top]
    picked = solution.diagnostics.get("frequencies") or ()
    own = picked[axis] if len(picked) > axis and isinstance(picked[axis], list | tuple) else ()
    return LineSpectrum(
        axis=box.names[axis],
        frequency=np.asarray(frequency[:top], dtype=np.float64),
        solution=_power(mean, axis)[:top],
        source=source,
        nyquist=0.5 * (solution.grid[axis] - 1) / length,
        picked=tuple(float(f) for f in own),
    )


def _power(values: Tensor, axis: int) -> np.ndarray:
    lines = np.moveaxis(values.numpy(), axis, -1)
    lines = lines.reshape(-1, lines.shape[-1])
    window = np.blackman(lines.shape[-1])
    power = (np.abs(np.fft.rfft(lines * window)) ** 2).mean(0)
    return np.asarray(power / max(float(power.max()), 1e-300))


def residual_maps(solution: Solution) -> tuple[Any, ...]:
    """Residual of every equation between the collocation points, relative to the size of its terms."""
    if solution.problem is None or "r_hat" in solution.diagnostics:
        return ()  # the mean over draws of unknowns solves the equations of none of them
    problem = solution.problem.form
    axes, note = _sliced(solution, off_grid_axes(problem, solution.grid))
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in solution.parameters.items()}
    maps = []
    for equation in problem.equations:
        own, where = axes, note
        if equation.source.noise and equation.source.values is not None and len(axes) < 3:
            own, where = list(equation.source.axes), ""
        residual, size = residual_on(problem, equation, solution.posterior, own, given)
        scale = float(torch.sqrt((size**2).mean())) or 1.0
        maps.append(_function(solution, own, residual / scale, where))
    return tuple(maps)
