"""GP-HM: Adam on the published objective beside Gauss-Newton and evidence; coverage of the Laplace posterior.

    python benchmarks/pde_gphm.py [--seeds 20] [--part errors|coverage] [--noise stated|learned] [--only "1-D wave;..."]
        [--quick]

One process, one thread, CPU seconds of a whole solve. Errors are relative, in L2, off the grid. Coverage is the share
of 200 random points whose true value lies in the 95 % interval, averaged over sets of noisy sources (5 % noise), with
the noise stated, and found by evidence; ``z2`` is the mean square of errors in standard deviations, 1 where these are
right. A set is "doubted" where ``diagnostics["uncertainty"]`` says that its intervals are not to be relied on.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import cos, sin

from benchmarks import _measure
from gpkit.inference.collocation.forms import Data, Jet
from gpkit.inference.collocation.gphm import engine as gphm
from tests.inference.collocation import problems

NEWTON = {"optimiser": "gauss-newton", "kernel": "gaussian"}


def noisy_cases():
    """Name, problem and options."""
    wave = problems.poisson(lambda x: sin(20 * x), lambda x: -400 * sin(20 * x), (0.0, 6.0), 100)
    two = problems.poisson(
        lambda x: sin(3 * x) + 0.3 * sin(20 * x), lambda x: -9 * sin(3 * x) - 120 * sin(20 * x), (0.0, 6.0), 100
    )

    def plane(x, y):
        return sin(6 * x) * cos(5 * y)

    def cubic(x, y):
        return -61 * plane(x, y) + plane(x, y) * (plane(x, y) ** 2 - 1)

    def bump(x, y):
        return 16 * x * (1 - x) * y * (1 - y) * sin(7 * x + 4 * y)

    def line(x):
        return torch.exp(-30 * (x - 0.4) ** 2) * sin(25 * x)

    inside = problems.smooth(bump, problems.laplacian(2), problems.dirichlet(bump, 2), [(0.0, 1.0)] * 2, (12, 12))
    packet = problems.smooth(line, problems.laplacian(1), problems.dirichlet(line, 1), [(0.0, 1.0)], (80,))
    return {
        "1-D packet": (packet, {"mixtures": 20}),
        "2-D, zero on the boundary": (inside, {"mixtures": 6}),
        "1-D wave": (wave, {"mixtures": 20}),
        "1-D two waves": (two, {"mixtures": 20}),
        "2-D Poisson": (problems.poisson(plane, lambda x, y: -61 * plane(x, y), (0.0, 1.0), 12, 2), {"mixtures": 6}),
        "2-D Allen-Cahn": (problems.poisson(plane, cubic, (0.0, 1.0), 12, 2, cubic=True), {"mixtures": 6}),
    }


def noisy(case, seed, stated):
    """The problem with a noisy source on its own grid."""
    axes = gphm.collocation_axes(case.problem.box, case.grid)
    (equation,) = case.problem.equations
    values = equation.source.function(*torch.meshgrid(*axes, indexing="ij"))
    sd = 0.05 * float(values.std())
    generator = torch.Generator().manual_seed(seed)
    measured = values + sd * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    source = Data(values=measured, axes=tuple(axes), noise=sd if stated else float("nan"))
    return replace(case.problem, equations=(replace(equation, source=source),)), sd


def coverage(seeds, only, noises=(True, False)):
    """A row for each case, with stated noise and without."""
    for name, (case, options) in noisy_cases().items():
        if only and name not in only:
            continue
        for stated in noises:
            held, square, error, level, doubts = [], [], [], [], 0
            begun = time.process_time()
            for seed in range(seeds):
                problem, sd = noisy(case, seed, stated)
                found = gphm.solve(problem, case.grid, **NEWTON, **options)
                x, value = problems.points_of(case, 200, seed), Jet(0, (0,) * len(case.grid))
                z = (found.mean(value, x) - case.exact(*x.T)) / found.variance(value, x).sqrt()
                held.append(float((z.abs() < 1.96).double().mean()))
                square.append(float((z**2).mean()))
                error.append(case.error(found, 60))
                level.append(float(torch.tensor(-0.5 * found.diagnostics["log_equation_precision"][0]).exp()) / sd)
                doubts += "not to be relied on" in found.diagnostics["uncertainty"]
            averages = [sum(v) / len(v) for v in (held, square, error, level)]
            numbers = "{:.3f} | {:.2f} | {:.1e} | {:.2f}".format(*averages)
            seconds = (time.process_time() - begun) / seeds
            print(
                f"| {name} | {'stated' if stated else 'learned'} | {numbers} | {doubts} of {seeds} | {seconds:.2f} |",
                flush=True,
            )


def errors(quick):
    """Adam and Gauss-Newton on published problems."""
    for name in ("P1",) if quick else ("P1", "P3", "A2"):
        case = problems.published()[name]
        for label, options in (("Adam, 300 steps", {"iterations": 300}), ("Gauss-Newton, evidence", NEWTON)):
            begun = time.process_time()
            found = gphm.solve(case.problem, case.grid, highest_frequency=20.0, **options)
            seconds = time.process_time() - begun
            print(f"| {name} | {label} | {case.error(found):.1e} | {seconds:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--part", choices=("errors", "coverage"))
    parser.add_argument("--only", help="names of noisy cases, separated by semicolons")
    parser.add_argument("--noise", choices=("stated", "learned"), help="only such rows")
    parser.add_argument("--quick", action="store_true", help="one problem, two seeds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(_measure.markdown_header(_measure.header()) + "\n", flush=True)
    if options.part in (None, "errors"):
        print("| problem | method | error | CPU s |\n|---|---|---|---|")
        errors(options.quick)
    if options.part in (None, "coverage"):
        print("\n| problem | noise | coverage | z2 | error | noise / true | doubted | CPU s |\n" + "|---" * 8 + "|")
        only = set(options.only.split(";")) if options.only else None
        noises = (True, False) if options.noise is None else (options.noise == "stated",)
        coverage(2 if options.quick else options.seeds, only, noises)


if __name__ == "__main__":
    main()
