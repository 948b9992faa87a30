"""From solutions to reports: everything that a report shows is computed here, once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from gpkit.diagnostics import Finding
from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Problem
from gpkit.models.pde.probing import face_name, jet_name
from gpkit.models.pde.report_fields import field_section, residual_maps

if TYPE_CHECKING:
    from gpkit.models.pde.solution import Solution

__all__ = ["report_content", "write_report"]


def write_report(solution: Solution, path: str | Path, *, exact: Any = None, **run: Any) -> tuple[Path, Path]:
    """Write the HTML report and the JSON beside it; returns both paths."""
    from gpkit.reports import pde_report

    return pde_report(report_content(solution, exact=exact, **run), path)


def report_content(
    solution: Solution,
    *,
    exact: Any = None,
    command: str = "",
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    title: str = "",
    inference: Any = None,
) -> Any:
    """Everything that a report shows, as plain data (a ``gpkit.reports.PDEContent``).

    Args:
        solution: What to report.
        exact: The true solution of the first field, where it is known: a function of one tensor per axis.
        command: How it was made, to record.
        seed: Likewise.
        settings: Likewise.
        title: Of the report.
        inference: The inference that the solution came from, for unknown numbers.
    """
    from gpkit.inference.inference_data import provenance
    from gpkit.reports import PDEContent, RunSection

    versions = json.loads(provenance()["versions"])
    versions["gpkit"] = versions.pop("gpkit-bayes", "unknown")
    problem = None if solution.problem is None else solution.problem.form
    fields = tuple(field_section(solution, k, exact if k == 0 else None) for k in range(len(solution.names)))
    box = solution.box
    ends = zip(box.names, box.lower, box.upper, strict=True)
    return PDEContent(
        title=title or f"{', '.join(solution.names)}: solution of a differential equation",
        equations=tuple(solution.text.split("; ")),
        domain=", ".join(f"{name} from {a:.6g} to {b:.6g}" for name, a, b in ends),
        conditions=() if problem is None else _condition_texts(problem),
        grid=solution.grid,
        method=str(solution.diagnostics.get("method", "")),
        fields=fields,
        residuals=residual_maps(solution),
        facts=_facts(solution, fields[0].relative_error),
        checks=_checks(solution),
        histories=_histories(solution.diagnostics),
        unknowns=_unknowns(solution, inference),
        findings=tuple(Finding("error", f"solution-{k}", _sentence(f)) for k, f in enumerate(solution.findings)),
        run=RunSection(
            command=command,
            seed=seed,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            versions=versions,
            settings=dict(settings or {}),
        ),
        numbers=numbers_of(solution, fields[0].relative_error, inference),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def numbers_of(solution: Solution, relative_error: float = math.nan, inference: Any = None) -> dict[str, Any]:
    """The numbers of a solution as plain data."""
    return {
        "equations": solution.text,
        "fields": list(solution.names),
        "grid": list(solution.grid),
        "residual": solution.residuals.equation,
        "boundary_residual": solution.residuals.condition,
        "relative_error": None if math.isnan(relative_error) else relative_error,
        "trustworthy": solution.is_trustworthy,
        "findings": list(solution.findings),
        "seconds": solution.seconds,
        "unknowns": [vars(u) for u in _unknowns(solution, inference)],
        "diagnostics": plain(solution.diagnostics),
    }


def plain(value: Any) -> Any:
    """What JSON can hold of diagnostics: long arrays by their shape, what it does not know as text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Tensor | np.ndarray):
        return plain(value.tolist()) if math.prod(value.shape) <= 1000 else f"array of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | str | np.integer | np.floating | np.bool_):
        return value
    return str(value)


def _condition_texts(problem: Problem) -> tuple[str, ...]:
    """One for each expression that is given: on which faces, and what is observed."""
    faces: dict[str, list[str]] = {}
    for condition in problem.conditions:
        what = ", ".join(dict.fromkeys(jet_name(problem, t.jet) for t in condition.terms))
        kind = {"dirichlet": "", "initial": "initial "}.get(condition.kind, f"{condition.kind.capitalize()} ")
        faces.setdefault(f"{kind}{what}", []).append(face_name(problem, (condition.axis, condition.side)))
    texts = [f"{what} given at {', '.join(where)}" for what, where in faces.items()]
    texts += [f"periodic along {problem.box.names[k]}" for k in sorted(problem.periodic)]
    texts += [f"{len(o.values)} observations of {jet_name(problem, o.terms[0].jet)}" for o in problem.observations]
    return tuple(texts)


def _facts(solution: Solution, relative_error: float) -> tuple[tuple[str, str], ...]:
    facts = [
        ("Residual off the grid", f"{solution.residuals.equation:.1e}"),
        ("Residual of the conditions", f"{solution.residuals.condition:.1e}"),
        ("Grid", " × ".join(map(str, solution.grid))),
    ]
    if not math.isnan(relative_error):
        facts.insert(0, ("Error, relative", f"{relative_error:.1e}"))
    if math.isfinite(solution.seconds):
        facts.append(("CPU time", f"{solution.seconds:.3g} s"))
    facts += [(name, f"{value:.5g}") for name, value in solution.parameters.items()]
    return tuple(facts)


def _checks(solution: Solution) -> tuple[tuple[str, str, str], ...]:
    from gpkit.models.pde.solution import LARGE_RESIDUAL

    residuals, diagnostics = solution.residuals, solution.diagnostics
    rows = []
    # Where data are noisy, what is far below the uncertainty is small enough.
    small = max(LARGE_RESIDUAL, float(diagnostics.get("residual_tolerance", 0.0)))
    for k, (rms, top) in enumerate(zip(residuals.equations, residuals.largest, strict=True)):
        which = f" of equation {k + 1}" if len(residuals.equations) > 1 else ""
        noisy = not math.isnan(residuals.standardised[k])  # then it is as large as the noise
        rows.append((f"Residual{which}, root mean square", f"{rms:.1e}", "" if noisy else f"below {small:.0e}"))
        rows.append((f"Residual{which}, largest", f"{top:.1e}", "" if noisy else f"below {10.0 * small:.0e}"))
    rows += [(f"Residual: {name}", f"{value:.1e}", f"below {small:.0e}") for name, value in residuals.conditions]
    for k, value in enumerate(residuals.standardised):
        if not math.isnan(value):
            rows.append((f"Residual of noisy right side {k + 1}, in standard deviations", f"{value:.2f}", "about 1"))
    for k, value in enumerate(residuals.observations):
        rows.append((f"Misfit of measured values {k + 1}, in standard deviations", f"{value:.2f}", "about 1"))
    if solution.problem is not None:
        rows.append(("Held-out collocation, median |z|", _held_out(solution), "about 1 or below"))
    periods = diagnostics.get("points_per_period")
    if periods is not None:
        for name, value in zip(solution.box.names, np.atleast_1d(np.asarray(periods, dtype=float)), strict=False):
            rows.append((f"Points per period along {name}", f"{value:.3g}", "2.5 or more"))
    rows += _basis_rows(diagnostics.get("basis"))
    for key, what in (
        ("effective_rank", "Effective rank"),
        ("condition", "Condition number"),
        ("jitter", "Jitter used"),
        ("log_evidence", "Log evidence"),
        ("log_marginal_likelihood", "Log evidence"),
        ("sizes", "Functions along each axis"),
        ("coefficient_tails", "Last coefficients, relative"),
        ("refinement_error", "Change on a finer basis, relative"),
    ):
        if key in diagnostics and diagnostics[key] is not None:
            rows.append((what, _short(diagnostics[key]), ""))
    return (*rows, *_noise_checks(diagnostics), *_sampling_checks(diagnostics))


def _noise_checks(diagnostics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = [("Noise that was found", _short(level), "") for level in diagnostics.get("noise_levels", ())]
    components = diagnostics.get("components")
    if components:
        kept = f"{components['kept']} of {components['offered']}"
        rows.append(("Components of the prior's spectrum that the data ask for", kept, ""))
        if components.get("averaged", 0.0) > 0.0:
            rows.append(("Smooth part that was averaged over, expected size", _short(components["averaged"]), ""))
        elif components["hidden"] > 0.0:
            rows.append(("Smooth part that the noise could hide, standard deviation", _short(components["hidden"]), ""))
    return rows


def _sampling_checks(diagnostics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    if "r_hat" in diagnostics:
        rows.append(("Worst r-hat of the chains", f"{diagnostics['r_hat']:.3f}", "below 1.05"))
        rows.append(("Effective draws, least", f"{diagnostics['effective_draws']:.0f}", "100 or more"))
        rows.append(("Divergent draws", str(diagnostics.get("divergences", 0)), "0"))
    if "mode_agreeing" in diagnostics:
        same, starts = diagnostics["mode_agreeing"]
        rows.append(("Starts that reached the same maximum", f"{same} of {starts}", "all"))
    if diagnostics.get("priors_without_quantiles"):
        names = ", ".join(diagnostics["priors_without_quantiles"])
        rows.append(("Priors without quantiles, starts drawn around the middle", names, ""))
    return rows


def _basis_rows(basis: Any) -> list[tuple[str, str, str]]:
    """Which bases of the spectral method were tried, what came of each, and why one was kept."""
    if not isinstance(basis, Mapping):
        return []
    rows = []
    for tried in basis["tried"]:
        kept = "kept" if tried["basis"] == basis["chosen"] else "not kept"
        if "failed" in tried:
            rows.append((f"Basis tried: {tried['basis']}", "failed", _sentence(tried["failed"])))
            continue
        functions = _short(tried["kept"])
        if tuple(tried["offered"]) != tuple(tried["kept"]):
            functions += f" of {_short(tried['offered'])}"
        rounds = f", {len(tried['rounds'])} rounds" if len(tried.get("rounds", ())) > 1 else ""
        rows.append((f"Basis tried: {tried['basis']}, {functions} functions{rounds}", f"{tried['residual']:.1e}", kept))
    rows.append(("Basis kept", basis["chosen"], _sentence(basis["why"])))
    return rows


def _held_out(solution: Solution) -> str:
    try:
        return f"{float(solution.held_out_scores().abs().median()):.2g}"
    except InvalidDataError:  # the method has no uncertainty
        return "–"


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " × ".join(_short(v) for v in value)
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def _histories(diagnostics: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    known = {
        "newton_steps": "Newton step",
        "newton": "Newton step",
        "pcg_history": "PCG residual",
        "krylov_history": "GMRES residual",
        "gauss_newton": "Gauss-Newton step",
    }
    found: dict[str, Sequence[float]] = {}
    for key, name in known.items():
        values = diagnostics.get(key)
        if isinstance(values, list | tuple) and values and all(isinstance(v, int | float) for v in values):
            found[name] = [float(v) for v in values]
    return found


def _unknowns(solution: Solution, inference: Any) -> tuple[Any, ...]:
    from gpkit.reports import UnknownNumber

    if inference is None:
        return tuple(UnknownNumber(name, value) for name, value in solution.parameters.items())
    found = []
    for name, value in solution.parameters.items():
        low, high = inference.interval(name)
        found.append(UnknownNumber(name, value, inference.mean(name), inference.std(name), low, high))
    return tuple(found)


# ------------------------------------------------------------------------------------------------------- fields
