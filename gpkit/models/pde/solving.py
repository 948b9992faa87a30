"""Solving: the method is chosen, its answer is judged off the grid, and what speaks against it is said."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, ConvergenceWarning, GpkitError, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.collocation.forms import Problem
from gpkit.inference.collocation.posterior import FieldPosterior
from gpkit.models.pde.residuals import Residuals, measure
from gpkit.models.pde.solution import LARGE_RESIDUAL, Solution

if TYPE_CHECKING:
    from gpkit.models.pde.problem import PDE

__all__ = ["METHODS", "findings_of", "grid_of", "solve"]

METHODS = ("auto", "spectral", "exact", "gphm")
BASES = ("auto", "picked", "broadband")
FEWEST_POINTS_PER_PERIOD = 2.5
_GRIDS = {1: 400, 2: 200, 3: 64}


def grid_of(grid: Any, problem: Problem) -> tuple[int, ...]:
    """Number of points along each axis.

    Raises:
        InvalidDataError: It is not a whole number per axis, or too small for the order of the equations.
    """
    d = problem.box.dim
    if grid is None:
        return (_GRIDS[d],) * d
    numbers = (grid,) * d if isinstance(grid, int) and not isinstance(grid, bool) else grid
    try:
        sizes = tuple(int(n) for n in numbers)
        whole = all(int(n) == n and not isinstance(n, bool) for n in numbers)
    except (TypeError, ValueError):
        raise InvalidDataError(
            f"a grid is a whole number, or one for each axis, such as (400, 400); got {grid!r}"
        ) from None
    if len(sizes) != d or not whole:
        raise InvalidDataError(f"a grid on {d} axes needs {d} whole numbers, got {grid!r}")
    for k, n in enumerate(sizes):
        order = max(jet.orders[k] for e in problem.equations for jet in e.all_jets)
        if n < max(order + 2, 3):
            raise InvalidDataError(
                f"a grid of {n} point{'s' * (n != 1)} along {problem.box.names[k]} is too small for derivatives of "
                f"order {order}: at least {max(order + 2, 3)} are needed"
            )
    return sizes


def _does_not_fit(problem: Problem, grid: Sequence[int]) -> str | None:
    """Before anything is allocated: the fields and their jets on the grid against the memory of the machine."""
    jets = {jet for e in problem.equations for jet in e.all_jets}
    needed = 8.0 * math.prod(grid) * (len(jets) + 4)
    try:
        available = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
        total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return None
    if needed <= max(available, 0.8 * total):
        return None
    return (
        f"a grid of {' x '.join(map(str, grid))} points needs at least {needed / 2**30:.3g} GiB, this machine has "
        f"{total / 2**30:.3g} GiB: choose a smaller grid"
    )


def _engine(method: str) -> Callable[..., FieldPosterior]:
    import importlib

    return importlib.import_module(f"gpkit.inference.collocation.{method}.engine").solve


def solve(
    pde: PDE,
    grid: Any = None,
    *,
    kernel: Any = "auto",
    method: str = "auto",
    parameters: Mapping[str, float] | None = None,
    progress: bool = True,
    seed: int = 0,
    basis: str = "auto",
    **options: Any,
) -> Solution:
    """Solve a problem; see `PDE.solve`."""
    problem = pde.form
    if method not in METHODS:
        raise InvalidDataError(f"there is no method {method!r}: choose from {', '.join(METHODS)}")
    if basis not in BASES:
        raise InvalidDataError(f"there is no basis {basis!r}: choose from {', '.join(BASES)}")
    if basis != "auto" or options.get("hidden"):
        if method not in ("auto", "spectral"):
            option = f'basis="{basis}"' if basis != "auto" else "hidden=True"
            raise InvalidDataError(f'{option} is an option of method="spectral", and method="{method}" was asked for')
        method = "spectral"
    if problem.free or (problem.unknowns and parameters is None and problem.observations):
        return pde.infer(grid, seed=seed, progress=progress).solution
    sizes = grid_of(grid, problem)
    given = _parameters(problem, parameters)
    begun = time.process_time()
    if too_large := _does_not_fit(problem, sizes):
        posterior, residuals = _on_few_waves(problem, sizes, given, method, basis, too_large)
    elif method == "auto":
        posterior, residuals = _automatic(problem, sizes, given, kernel, progress, options)
    else:
        keywords = _keywords(method, given, kernel, progress, seed)
        if method == "spectral":
            keywords["basis"] = basis
        posterior = _engine(method)(problem, sizes, **keywords, **options)
        residuals = measure(problem, posterior, sizes, given)
    seconds = time.process_time() - begun
    if not math.isfinite(residuals.worst):
        raise ConvergenceError("no finite solution was found: the problem may be singular, or have no solution")
    diagnostics = posterior.diagnostics  # to which the engine adds what it finds out when it is asked for more
    diagnostics["residuals"] = residuals.as_dict()
    diagnostics["residual"], diagnostics["boundary_residual"] = residuals.equation, residuals.condition
    findings = findings_of(problem, residuals, diagnostics)
    if findings:
        warnings.warn("; ".join(findings), ConvergenceWarning, stacklevel=3)
    return Solution(
        posterior=posterior,
        box=problem.box,
        names=problem.fields,
        grid=sizes,
        residuals=residuals,
        diagnostics=diagnostics,
        parameters={name: float(value) for name, value in given.items()},
        text="; ".join(e.text for e in problem.equations),
        seconds=seconds,
        findings=tuple(findings),
        problem=pde,
    )


def _parameters(problem: Problem, parameters: Mapping[str, float] | None) -> dict[str, Tensor]:
    given = dict(parameters or {})
    if missing := sorted(set(problem.unknowns) - set(given)):
        raise InvalidDataError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} unknown: use infer(), or solve with "
            f"parameters={{{missing[0]!r}: ...}}"
        )
    if extra := sorted(set(given) - set(problem.unknowns)):
        raise InvalidDataError(f"there is no unknown {extra[0]!r} in this problem")
    return {name: torch.tensor(float(value), dtype=torch.float64) for name, value in given.items()}


def _keywords(method: str, given: dict[str, Tensor], kernel: Any, progress: bool, seed: int) -> dict[str, Any]:
    keywords: dict[str, Any] = {"progress": progress, "parameters": given}
    if method == "gphm":
        keywords["seed"] = seed
    if kernel != "auto":
        keywords["kernel"] = kernel
    return keywords


def _is_noisy(problem: Problem) -> bool:
    noisy = any(e.source.noise for e in problem.equations) or any(c.value.noise for c in problem.conditions)
    return noisy or any(bool((o.noise > 0.0).any()) for o in problem.observations)


_EXACT_UNKNOWNS = {1: 1500, 2: 32**2, 3: 10**3}


def _automatic(
    problem: Problem,
    grid: tuple[int, ...],
    given: dict[str, Tensor],
    kernel: Any,
    progress: bool,
    options: Mapping[str, Any],
) -> tuple[FieldPosterior, Residuals]:
    """The spectral engine; where its answer does not satisfy the problem, the exact one too, and the better of both."""
    tried: list[tuple[float, FieldPosterior, Residuals]] = []
    failures: list[GpkitError] = []
    methods = ["spectral"]
    if math.prod(grid) * len(problem.fields) <= _EXACT_UNKNOWNS[problem.box.dim]:
        methods.append("exact")
    history = []
    for method in methods:
        if tried and tried[0][0] <= _limit(problem, tried[0][1].diagnostics):
            break
        try:
            posterior = _engine(method)(problem, grid, **_keywords(method, given, kernel, progress, 0), **options)
            residuals = measure(problem, posterior, grid, given)
        except (ConvergenceError, NotPositiveDefiniteError) as error:
            failures.append(error)
            history.append(f"{method} failed: {error}")
            continue
        score = _score(residuals)
        history.append(f"{method}: residual {residuals.equation:.1e}, conditions {residuals.condition:.1e}")
        tried.append((score, posterior, residuals))
        tried.sort(key=lambda t: t[0])
    if not tried:
        raise failures[0]
    _, posterior, residuals = tried[0]
    posterior.diagnostics["tried"] = history
    return posterior, residuals


def _on_few_waves(
    problem: Problem, grid: tuple[int, ...], given: dict[str, Tensor], method: str, basis: str, too_large: str
) -> tuple[FieldPosterior, Residuals]:
    """A grid that does not fit may stand for high frequencies, and these may be few.

    Raises:
        InvalidDataError: They are not, or something else than waves was asked for.
    """
    from gpkit.inference.collocation.spectral import engine as spectral

    if method not in ("auto", "spectral") or basis == "broadband" or not spectral.shows_waves(problem, grid, given):
        raise InvalidDataError(too_large)
    try:
        posterior = spectral.solve(problem, grid, parameters=given, basis="picked")
        residuals = measure(problem, posterior, grid, given)
    except GpkitError as error:
        raise InvalidDataError(too_large) from error
    if not residuals.worst <= _limit(problem):
        raise InvalidDataError(too_large)
    posterior.diagnostics["basis"]["why"] = "the grid does not fit into memory, and the data are few waves"
    return posterior, residuals


def _limit(problem: Problem, diagnostics: Mapping[str, Any] | None = None) -> float:
    """Residual of an equation that is still small; where data are noisy, beside what is uncertain."""
    order = max(sum(jet.orders) for e in problem.equations for jet in e.all_jets)
    limit = LARGE_RESIDUAL if order <= 2 else 10.0 * LARGE_RESIDUAL
    return max(limit, float((diagnostics or {}).get("residual_tolerance", 0.0)))


def _score(residuals: Residuals) -> float:
    """What decides between two answers: residuals that noise does not explain; infinite where there is no answer."""
    if not math.isfinite(residuals.worst):
        return math.inf
    exact = [r for r, z in zip(residuals.equations, residuals.standardised, strict=True) if math.isnan(z)]
    noisy = [z for z in (*residuals.standardised, *residuals.observations) if not math.isnan(z)]
    excess = max((z - 2.0 for z in noisy), default=0.0)
    return max([*exact, residuals.condition, excess, 0.0])


def findings_of(problem: Problem, residuals: Residuals, diagnostics: Mapping[str, Any]) -> list[str]:
    """What speaks against a solution, worst first."""
    found = []
    exact = [
        (r, k)
        for k, (r, z) in enumerate(zip(residuals.equations, residuals.standardised, strict=True))
        if math.isnan(z)
    ]
    if exact and not max(exact)[0] <= _limit(problem, diagnostics):
        size, number = max(exact)
        which = f" of equation {number + 1}" if len(problem.equations) > 1 else ""
        place = ", ".join(f"{n}={x:.4g}" for n, x in zip(problem.box.names, residuals.at[number], strict=True))
        found.append(f"the residual{which} is {size:.1e} of its terms off the grid, largest at {place}")
    if not residuals.condition <= max(LARGE_RESIDUAL, float(diagnostics.get("residual_tolerance", 0.0))):
        name, size = max(residuals.conditions, key=lambda c: c[1])
        found.append(f"the {name} is missed by {size:.1e}")
    for what, values in (("right side", residuals.standardised), ("observations", residuals.observations)):
        worst = max((z for z in values if not math.isnan(z)), default=0.0)
        if worst > 2.0:
            found.append(f"the solution is {worst:.1f} standard deviations away from the measured {what}")
    periods = diagnostics.get("points_per_period")
    if periods is not None:
        for name, count in zip(problem.box.names, torch.as_tensor(periods).reshape(-1).tolist(), strict=False):
            if count < FEWEST_POINTS_PER_PERIOD:
                found.append(
                    f"the grid has {count:.3g} points per period along {name}, fewer than {FEWEST_POINTS_PER_PERIOD}"
                )
    return found
