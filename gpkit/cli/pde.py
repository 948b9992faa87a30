"""``gpkit pde``: solve a differential equation that is stated in a file."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpkit import __version__
from gpkit.cli.common import results_folder, whole_number
from gpkit.errors import InvalidDataError
from gpkit.files import write_atomic

__all__ = ["ADVICE", "INTERRUPTED", "add_parser", "run"]

ADVICE = (("use infer(), or give one", "give it a prior under [unknowns] and an [[observation]]"),)
INTERRUPTED = "interrupted; run the same command again: what was finished is kept"


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parser of the command."""
    pde = commands.add_parser(
        "pde",
        help="solve a differential equation, or infer its unknowns; write a report",
        description="Solve the boundary value problem that a TOML file states, by conditioning Gaussian processes, and "
        "write DIR/report.html, DIR/summary.json and DIR/solution.npz; with unknowns, also DIR/posterior.nc. A "
        "solution that an earlier, interrupted run of the same problem has finished is kept.",
    )
    pde.add_argument("path", metavar="PROBLEM.toml", help="equation, domain, boundary, grid")
    pde.add_argument("--out", metavar="DIR", help="folder of the results (default: <name of PROBLEM>_gpkit)")
    pde.add_argument("--method", choices=("auto", "spectral", "exact", "gphm"), help="default: the file's, or auto")
    pde.add_argument("--basis", choices=("auto", "picked", "broadband"), help="of the spectral method (default: auto)")
    pde.add_argument("--grid", metavar="N[xN...]", help="points along each axis, such as 400x400")
    pde.add_argument("--inference", choices=("laplace", "nuts"), help="of unknowns (default: the file's, or laplace)")
    pde.add_argument("--draws", type=whole_number(4), help="posterior draws per chain, with unknowns")
    pde.add_argument("--seed", type=whole_number(0), help="of everything random (default: the file's, or 0)")
    pde.add_argument("--json", action="store_true", help="print summary.json instead of a summary")
    pde.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _grid(text: str | None) -> tuple[int, ...] | int | None:
    if text is None:
        return None
    try:
        sizes = tuple(int(part) for part in text.lower().replace(",", "x").split("x"))
    except ValueError:
        raise InvalidDataError(f"--grid {text!r} is not a grid such as 400 or 400x400") from None
    return sizes[0] if len(sizes) == 1 else sizes


def run(options: argparse.Namespace, command: str) -> int:
    """Solve or infer, and write the results; returns the exit code."""
    from gpkit.models.pde.files import read_problem

    stated = read_problem(options.path)
    settings: dict[str, Any] = {"grid": None, "method": "auto", "basis": "auto", "seed": 0, **stated.solve}
    given = {"grid": _grid(options.grid), "method": options.method, "basis": options.basis, "seed": options.seed}
    settings |= {name: value for name, value in given.items() if value is not None}
    settings["inference"] = options.inference or stated.inference
    settings["sampling"] = {**stated.sampling, **({"draws": options.draws} if options.draws else {})}
    folder = results_folder(options.out or f"{Path(options.path).stem}_gpkit")
    solution, inference = _solved(stated, settings, folder, options)
    from gpkit.models.pde.reporting import write_report

    _write_arrays(solution, folder / "solution.npz")
    html, numbers = write_report(
        solution,
        folder,
        exact=stated.exact,
        command=command,
        seed=settings["seed"],
        settings={name: str(value) for name, value in _flat(settings).items() if value is not None},
        title=stated.title,
        inference=inference,
    )
    if options.json:
        sys.stdout.write(numbers.read_text(encoding="utf-8"))
    elif not options.quiet:
        _print(json.loads(numbers.read_text(encoding="utf-8")), html)
    return 0


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in settings.items() if name != "sampling"}, **settings["sampling"]}


def _fingerprint(path: Path, settings: dict[str, Any]) -> str:
    """Of everything that determines a solution; data files are taken in by their content."""
    digest = hashlib.sha256(path.read_bytes())
    for file in sorted(path.parent.glob("*.npy")) + sorted(path.parent.glob("*.csv")):
        if file.name in path.read_text(encoding="utf-8"):
            digest.update(file.read_bytes())
    digest.update(json.dumps([__version__, settings], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _solved(stated: Any, settings: dict[str, Any], folder: Path, options: argparse.Namespace) -> tuple[Any, Any]:
    """The solution, and the inference that it comes from; or what an earlier run with the same settings finished."""
    from gpkit.inference.inference_data import save_inference_data
    from gpkit.models.pde.inverse import Inference
    from gpkit.models.pde.noise import with_levels

    fingerprint = _fingerprint(Path(options.path), settings)
    file, posterior = folder / "solution.gpkit", folder / "posterior.nc"
    pde, progress = stated.pde, not options.quiet
    inverse = bool(pde.form.unknowns or pde.form.free)
    kept = _kept(file, posterior if inverse else None, fingerprint)
    if kept is not None:
        solution, data = kept
        solution = replace(solution, problem=with_levels(pde, solution.diagnostics.get("noise_levels", ())))
        if not options.quiet:
            print("gpkit: solution kept from an earlier run", file=sys.stderr)
        return solution, None if data is None else Inference.from_posterior(solution, data)
    inference = None
    if inverse:
        keywords = {"method": settings["inference"], "seed": settings["seed"], **settings["sampling"]}
        inference = pde.infer(settings["grid"], progress=progress, **keywords)
        solution = inference.solution
        save_inference_data(inference.posterior, posterior)
    else:
        keywords = {name: settings[name] for name in ("method", "basis", "hidden", "seed") if name in settings}
        solution = pde.solve(settings["grid"], progress=progress, **keywords)
    solution.diagnostics["fingerprint"] = fingerprint
    solution.save(file)  # last, so that its presence says that everything before it is there
    return solution, inference


def _kept(file: Path, posterior: Path | None, fingerprint: str) -> tuple[Any, Any] | None:
    from gpkit.inference.inference_data import load_inference_data
    from gpkit.models.pde.solution import Solution

    if not file.exists():
        return None
    try:
        solution = Solution.load(file)
        if solution.diagnostics.get("fingerprint") != fingerprint:
            return None
        return solution, None if posterior is None else load_inference_data(posterior)
    except Exception:  # Whatever is wrong with an earlier result, the answer is to make it again.
        return None


def _write_arrays(solution: Any, file: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **solution.as_arrays())
    write_atomic(file, buffer.getvalue())


def _print(numbers: dict[str, Any], html: Path) -> None:
    print(numbers["equations"])
    print(f"grid {' x '.join(map(str, numbers['grid']))}, {numbers['seconds']:.3g} CPU s")
    print(numbers["diagnostics"].get("method", ""))
    error = numbers["relative_error"]
    known = f", error against the known solution {error:.1e}" if error is not None else ""
    print(f"residual {numbers['residual']:.1e}, conditions {numbers['boundary_residual']:.1e}{known}")
    for unknown in numbers["unknowns"]:
        print(f"{unknown['name']} = {unknown['mean']:.5g} +- {unknown['std']:.2g}")
    for finding in numbers["findings"]:
        print(f"not to be trusted: {finding}")
    print(f"report: {html}")
