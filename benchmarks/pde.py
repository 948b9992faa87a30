"""Differential equations: the spectral solver beside finite differences and Chebyshev collocation, and its two bases.

    python benchmarks/pde.py [--only P1,P6,...] [--quick] [--json FILE]

One process, one thread. Errors are relative, in L2, on a 300-point (300 x 300) grid that is not the collocation grid;
CPU seconds are those of a whole solve from the statement of the problem, the least of several. The peers get as many
points as the problem's grid has. --quick leaves out what takes long.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import time
import tracemalloc
import warnings

import _measure
import _pde_peers
import _pde_problems
import torch
from _measure import Row, duration

from gpkit.errors import GpkitError
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.spectral.engine import solve

FEW = "Few waves, however fast: the chosen basis beside the broadband one"


def _cpu(function, rounds):
    best, result = float("inf"), None
    for _ in range(rounds):
        begun = time.process_time()
        result = function()
        best = min(best, time.process_time() - begun)
    return best, result


def _peer(task, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ill-conditioned matrices are what is being compared
        seconds, values = _cpu(lambda: method(task), 1)
    return "not run" if values is None else f"{task.relative_error(values):.1e} in {duration(seconds)}"


def rows(task, section, rounds, peers=True):
    """Error and time of one task."""
    seconds, posterior = _cpu(lambda: solve(task.problem, task.grid), rounds)
    value = Jet(0, (0,) * len(task.grid))
    error = task.relative_error(lambda axes: posterior.mean_on_grid(value, axes))
    sizes = " x ".join(str(n) for n in posterior.diagnostics["sizes"])
    grid = " x ".join(str(n) for n in task.grid)
    peer = "not run"
    if peers:
        differences = _peer(task, _pde_peers.finite_differences)
        collocation = _peer(task, _pde_peers.chebyshev_collocation)
        peer = f"differences {differences}; Chebyshev {collocation}"
    basis = posterior.diagnostics["basis"]["chosen"]
    ours = f"{error:.1e} in {duration(seconds)}, {sizes} functions, {basis}"
    return [
        Row(section, f"{task.name} ({grid}): error", error, task.error, ours=ours, peer=peer, unit="", upper=True),
        Row(section, f"{task.name}: CPU seconds", seconds, task.seconds, ours=ours, unit="s", upper=True),
    ]


def against_broadband(task, section, rounds):
    """Error and time of one task, and how many times as long the broadband basis takes in the same run."""
    found = rows(task, section, rounds, peers=False)
    try:
        seconds, posterior = _cpu(lambda: solve(task.problem, task.grid, basis="broadband"), 1)
    except GpkitError as error:
        found[-1].peer = f"broadband: refused, {error}"
        return found
    value = Jet(0, (0,) * len(task.grid))
    error = task.relative_error(lambda axes: posterior.mean_on_grid(value, axes))
    found[-1].peer = f"broadband: {error:.1e} in {duration(seconds)}"
    found.append(Row(section, f"{task.name}: broadband / chosen", seconds / found[-1].value, ours="ratio of seconds"))
    return found


def memory(task, section, limit):
    """Peak of what one solve allocates."""
    tracemalloc.start()
    solve(task.problem, task.grid)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return Row(section, f"{task.name}: memory", peak, limit, ours="peak of a solve", unit="MB", upper=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of problems, separated by commas")
    parser.add_argument("--quick", action="store_true", help="one round, smaller sizes, no peers in two dimensions")
    parser.add_argument("--json", help="write the rows to this file too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only = set(options.only.split(",")) if options.only else None
    rounds = 1 if options.quick else 5
    facts = _measure.header()
    print(_measure.markdown_header(facts) + "\n", flush=True)
    found: list[Row] = []
    side, cube = (200, 30) if options.quick else (1000, 100)
    parts = {
        "Published problems": _pde_problems.published(),
        "Not a few sinusoids": _pde_problems.broadband(),
        "Large": _pde_problems.large(side, cube),
    }
    for section, tasks in parts.items():
        kept = [task for task in tasks if only is None or task.name in only]
        own: list[Row] = []
        for task in kept:
            with_peers = section != "Large" and not (options.quick and len(task.grid) > 1)
            own += rows(task, section, rounds, with_peers)
            if section == "Large":
                own.append(memory(task, section, 300.0))
        if own:
            print(_measure.markdown(own, section) + "\n", flush=True)
        found += own
    tasks = [t for t in _pde_problems.few_waves(3e2 if options.quick else 1e4) if only is None or t.name in only]
    own = [row for task in tasks for row in against_broadband(task, FEW, rounds)]
    if own:
        print(_measure.markdown(own, FEW) + "\n", flush=True)
    found += own
    print(_measure.summary(found))
    if options.json:
        _measure.write_json(options.json, facts, found)


if __name__ == "__main__":
    main()
