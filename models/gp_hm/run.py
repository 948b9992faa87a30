"""High-frequency and multi-scale differential equations: gpkit beside the paper's method and classical solvers.

python models/gp_hm/run.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
import tomllib
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
import torch
from peers import chebyshev, finite_differences, on_grid
from problems import PROBLEMS, Known

from gpkit import __version__
from gpkit.errors import ConvergenceWarning, GpkitError

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS), help="problems of the table")
    parser.add_argument("--without-gphm", action="store_true", help="leave the paper's method out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)  # the paper's method has not converged when it is stopped
    config = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
    grids = {}
    if options.quick:
        small = config["quick"]
        grids = small.pop("grids")
        config.update(small)
    if options.without_gphm:
        config["gphm_iterations"] = config["gphm_iterations_2d"] = 0
    rows, methods = [], []
    for name in options.only:
        settings = config["problem"][name]
        settings["grid"] = grids.get(name, settings["grid"])
        row, method = compare(name, PROBLEMS[name], settings, config)
        rows.append(row)
        methods.append([name, PROBLEMS[name].text, method])
    print(
        f"gpkit {__version__}, torch {torch.__version__}, scipy {scipy.__version__}, {torch.get_num_threads()} thread"
    )
    show(
        "1. Relative L2 error off the grid, and CPU seconds of one solution",
        [
            "problem",
            "grid",
            "asked",
            "gpkit",
            "residual",
            "largest std",
            "gphm, bounded",
            "2nd-order FD",
            "Chebyshev",
            "zero",
        ],
        rows,
    )
    show("2. How gpkit solved them", ["problem", "solution", "method"], methods)


def compare(name: str, known: Known, settings: dict, config: dict) -> tuple[list[str], str]:
    """A row of the table: error and time of every solver on one problem."""
    grid = settings["grid"]
    targets = [np.linspace(*ends, config["test_points"]) for ends in known.ends]
    truth = on_grid(known.exact, targets)
    solution, seconds = timed(lambda: known.problem().solve(tuple(grid), progress=False), config["repeats"])
    ours = solution.on_grid(targets).numpy()
    largest = float(solution.std(_some_points(known)).max())
    size = config["chebyshev_1d" if len(grid) == 1 else "chebyshev_2d"]
    fd, fd_seconds = timed(lambda: finite_differences(known, grid, targets), 1)
    ch, ch_seconds = timed(lambda: chebyshev(known, size, targets), 0)
    error, asked = relative(ours, truth), settings["target"]
    cells = [
        name,
        " x ".join(map(str, grid)),
        f"{asked[0]:.0e}, {asked[1]:g} s",
        f"{error:.1e}, {seconds:.3f} s",
        f"{solution.residuals.worst:.0e}",
        f"{largest:.0e}",
        papers_method(known, settings, config, targets, truth),
        f"{relative(fd, truth):.1e}, {fd_seconds:.3f} s",
        f"{relative(ch, truth):.1e}, {ch_seconds:.3f} s",
        "1.0",
    ]
    basis = solution.diagnostics.get("basis", {}).get("why", "")
    return cells, "; ".join(part for part in (solution.diagnostics.get("method", ""), basis) if part)


def papers_method(known: Known, settings: dict, config: dict, targets: list[np.ndarray], truth: np.ndarray) -> str:
    """The objective of the paper for a bounded number of its iterations."""
    count = config["gphm_iterations" if len(settings["grid"]) == 1 else "gphm_iterations_2d"]
    if not count:
        return "left out"
    stamps: list[float] = []
    try:
        solution = known.problem().solve(
            tuple(settings["grid"]), method="gphm", iterations=count, progress=False,
            highest_frequency=float(settings["frequency"]), boundary_weight=float(settings.get("weight", 200.0)),
            watch=lambda *_: stamps.append(time.process_time()),
        )  # fmt: skip
    except GpkitError as error:
        return f"refused: {error}"
    each = (stamps[-1] - stamps[0]) / max(count - 1, 1)
    return f"{relative(solution.on_grid(targets).numpy(), truth):.1e}, {count} its, {each:.3f} s each"


def _some_points(known: Known) -> np.ndarray:
    """A hundred points, in no step with any grid."""
    shares = np.mod(np.outer(np.arange(1, 101), [0.7548776662, 0.5698402910]), 1.0)[:, : len(known.ends)]
    lower, upper = np.array(known.ends).T
    return lower + (upper - lower) * shares


def timed(function, repeats: int):
    """The result, and the least CPU seconds of some repetitions after a first one, or those of the only one."""
    begun = time.process_time()
    result = function()
    best = np.inf if repeats else time.process_time() - begun
    for _ in range(repeats):
        begun = time.process_time()
        result = function()
        best = min(best, time.process_time() - begun)
    return result, best


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A Markdown table with aligned columns."""
    widths = [max(len(row[k]) for row in [columns, *rows]) for k in range(len(columns))]
    print(f"\n**{title}**\n")
    for row in [columns, ["-" * w for w in widths], *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")


if __name__ == "__main__":
    main()
