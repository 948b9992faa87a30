"""Exact conditioning on differential equations and GP-HM: iterations, errors, intervals, cost per step.

    python benchmarks/pde_exact.py [--small] [--part iterations|variances|borders|solves|grids|steps]

One thread, CPU seconds. Peers run in the same process: plain conjugate gradients, the pencil that takes both sides as
diagonal, and GP-HM's objective with derivatives by automatic differentiation over all pairs of points.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._gphm_port import Port
from gpkit.inference.collocation.exact import engine as exact
from gpkit.inference.collocation.exact.bordered import BorderedPosterior
from gpkit.inference.collocation.exact.dense import DensePosterior
from gpkit.inference.collocation.exact.grid import GridOperator, GridPosterior
from gpkit.inference.collocation.exact.krylov import conjugate_gradients
from gpkit.inference.collocation.exact.lift import Lift
from gpkit.inference.collocation.exact.priors import ConditionedAxis, Constraint, FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact.rows import RowTerm, grid_rows, jet_rows
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.gphm import engine as gphm
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope
from tests.inference.collocation import problems

SMALL = ("P1", "heat")
NAMES = ("P1", "P2", "P3", "P4", "P5", "A1", "A2", "P6", "P7", "V1", "chirp", "front", "packet", "beam") + (
    "coupled",
    "wave",
    "heat",
    "mixed conditions",
    "oblique",
)
GRIDS = (
    ("A3", (60, 60)),
    ("A3", (126, 126)),
    ("A3", (400, 400)),
    ("burgers", (30, 30)),
    ("burgers", (60, 60)),
    ("burgers", (126, 126)),
    ("front 2-D", (60, 60)),
    ("packet 2-D", (60, 60)),
    ("P6", (126, 126)),
    ("chirp", (60,)),
    ("front", (60,)),
    ("packet", (40,)),
)
ONE = torch.ones((), dtype=torch.float64)
ENDS = (Constraint((0.0,), (0,), (1.0,)), Constraint((1.0,), (0,), (1.0,)))


def cpu(function, *arguments, **keywords):
    begun = time.process_time()
    value = function(*arguments, **keywords)
    return value, time.process_time() - begun


def axis(envelope, lengthscale, *frequencies):
    n = len(frequencies)
    full = torch.full((n,), lengthscale, dtype=torch.float64)
    return MixtureAxis(
        envelope, torch.ones(n, dtype=torch.float64), full, torch.tensor(frequencies, dtype=torch.float64)
    )


def diagonal_pencil(prior, x):
    """The preconditioner that takes the three matrices of an axis as diagonal in one basis."""
    blocks = prior.blocks(x, x, [(0, 0), (2, 2)])
    values, both = blocks[0, 0], blocks[2, 2]
    both = both + 1e-12 * both.diagonal().max() * torch.eye(len(x), dtype=x.dtype)
    root = torch.linalg.cholesky(both)
    inverse = torch.linalg.inv(root)
    mu, vectors = torch.linalg.eigh(inverse @ values @ inverse.T)
    mu = mu.clamp_min(1e-16 * float(mu[-1])).sqrt()
    white = vectors.T @ inverse
    weight = (mu[:, None] + mu) ** 2
    weight = weight + 1e-10 * weight.max()
    return lambda v: (white.T @ ((white @ v.reshape(len(x), len(x)) @ white.T) / weight) @ white).reshape(-1, 1)


def _nothing(v):
    return v


def iterations(sizes):
    print("\nPoisson with conditioned axes: iterations to 1e-8 (asked: <= 20 for Matern-5/2 on 126 x 126)")
    print(f"{'kernel':26s} {'n':>4s} {'here':>6s} {'CPU s':>7s} {'nugget':>7s} {'pencil':>7s} {'plain CG':>9s}")
    kernels = {
        "Matern-5/2, l = 0.3": axis(MaternEnvelope(2.5), 0.3, 0.0),
        "Matern-5/2, l = 1": axis(MaternEnvelope(2.5), 1.0, 0.0),
        "Matern-9/2, l = 0.3": axis(MaternEnvelope(4.5), 0.3, 0.0),
        "Matern-5/2 x cos, l = 1": axis(MaternEnvelope(2.5), 1.0, 0.0, 3.0),
        "Gaussian x cos, l = 0.3": axis(GaussianEnvelope(), 0.3, 0.0, 3.0),
    }
    for name, base in kernels.items():
        for n in sizes:
            if n > 62 and isinstance(base.envelope, GaussianEnvelope):
                continue
            x = torch.linspace(0, 1, n + 2, dtype=torch.float64)[1:-1].contiguous()
            own = ConditionedAxis(base, ENDS)
            mesh = torch.meshgrid(x, x, indexing="ij")
            values = torch.sin(6 * math.pi * mesh[0]) * torch.sin(6 * math.pi * mesh[1]) * (1 + mesh[0] * mesh[1])
            rows = grid_rows([RowTerm(Jet(0, o), ONE) for o in ((2, 0), (0, 2))], (x, x), values)
            prior = FieldPrior((own, own))
            found, seconds = cpu(GridPosterior, [rows], [prior], [Lift((), 0.0, 0.0)], 1e-8)
            operator, right = GridOperator([rows], [prior]), rows.values[:, None]
            limit = 200
            try:
                pencil = conjugate_gradients(operator, diagonal_pencil(own, x), right, 1e-8, limit, patience=limit)
            except torch.linalg.LinAlgError:
                pencil = None
            plain = conjugate_gradients(operator, _nothing, right, 1e-8, limit, patience=limit)
            show = [f"{r.iterations}" if r and r.residual <= 1e-8 else "failed" for r in (pencil, plain)]
            d = found.diagnostics
            mine = f"{d['pcg_iterations']:6d} {seconds:7.2f} {d['nugget']:7.0e}"
            print(f"{name:26s} {n:4d} {mine} {show[0]:>7s} {show[1]:>9s}")


def variances(sizes, count):
    """Cost of posterior variances on a grid: systems are solved in blocks."""
    print("\nPoisson, Matern-5/2, l = 0.3: CPU seconds a point of posterior variances, one by one and together")
    for n in sizes:
        x = torch.linspace(0, 1, n + 2, dtype=torch.float64)[1:-1].contiguous()
        own = ConditionedAxis(axis(MaternEnvelope(2.5), 0.3, 0.0), ENDS)
        values = torch.ones(n, n, dtype=torch.float64)
        rows = grid_rows([RowTerm(Jet(0, o), ONE) for o in ((2, 0), (0, 2))], (x, x), values)
        found = GridPosterior([rows], [FieldPrior((own, own))], [Lift((), 0.0, 0.0)], 1e-8)
        points = torch.rand(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        jet = Jet(0, (0, 0))
        alone, single = cpu(_one_by_one, found, jet, points)
        together, block = cpu(found.variance, jet, points)
        worst = float((alone / together - 1.0).abs().max())
        costs = f"{single / count:.4f} and {block / count:.4f}, ratio {single / block:.1f}"
        print(f"{n:4d} x {n}: {costs}, they differ by {worst:.0e}")


def borders(sizes, count=40):
    """Noisy observations beside a structured solve, on a square and on a cylinder, beside one dense factorisation."""
    print(f"\nEquation on a grid and {count} noisy observations, Matern-5/2: border of the structured solve and dense")
    jet, generator = Jet(0, (0, 0)), torch.Generator().manual_seed(0)
    seen, at = (torch.rand(m, 2, generator=generator, dtype=torch.float64) for m in (count, 50))
    noise = torch.full((), 1e-4, dtype=torch.float64)
    observed = dataclasses.replace(jet_rows(jet, seen), values=torch.sin(3 * seen).sum(1), noise=noise)
    base = axis(MaternEnvelope(2.5), 0.3, 0.0)
    for n in sizes:
        x = torch.linspace(0, 1, n + 2, dtype=torch.float64)[1:-1].contiguous()
        around = torch.linspace(0, 1, n + 1, dtype=torch.float64)[:-1].contiguous()
        conditioned, circle = ConditionedAxis(base, ENDS), WaveAxis.wrapped(base, 1.0, 1.0 * n)
        cases = {"square": ((x, x), (conditioned, conditioned)), "cylinder": ((around, x), (circle, conditioned))}
        for name, (axes, own) in cases.items():
            rows = grid_rows(
                [RowTerm(Jet(0, o), ONE) for o in ((2, 0), (0, 2))], axes, torch.ones(n, n, dtype=ONE.dtype)
            )
            prior, lift = FieldPrior(own), Lift((), 0.0, 0.0)
            begun = time.process_time()
            found = BorderedPosterior(GridPosterior([rows], [prior], [lift], 1e-10, fit_scale=False), [observed])
            mean, deviation = found.mean(jet, at), found.variance(jet, at).sqrt()
            mine = time.process_time() - begun
            line = f"{n:4d} x {n:<4d} {name:9s}: {mine:6.2f} s, {found.diagnostics['pcg_iterations']:3d} iterations"
            if n <= 62:
                whole, theirs = cpu(DensePosterior, [rows, observed], [prior])
                (other, spread), more = cpu(lambda w=whole: (w.mean(jet, at), w.variance(jet, at).sqrt()))
                off = float(((mean - other).abs() / spread).max()), float((deviation / spread - 1.0).abs().max())
                line += (
                    f"; dense {theirs + more:6.2f} s; means are {off[0]:.0e} deviations apart, deviations {off[1]:.0e}"
                )
            print(line)


def _one_by_one(posterior, jet, points):
    return torch.cat([posterior.variance(jet, points[k : k + 1]) for k in range(len(points))])


def solves(names):
    """Problems by name, on their own grid or on a given one."""
    print("\nexact, kernel='auto': relative L2 error off the grid, |error| / deviation, CPU seconds")
    print(
        f"{'problem':24s} {'grid':>12s} {'error':>9s} {'max ratio':>10s} {'within 2':>9s} {'weights':>8s} {'CPU s':>7s}"
    )
    cases = {**problems.published(), **problems.others()}
    for name, grid in names:
        case = cases[name] if grid is None else dataclasses.replace(cases[name], grid=grid)
        found, seconds = cpu(exact.solve, case.problem, case.grid)
        low, high = (torch.tensor(v, dtype=torch.float64) for v in (case.problem.box.lower, case.problem.box.upper))
        uniform = torch.rand(100, len(case.grid), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        points = low + (high - low) * uniform
        u = case.exact[0] if isinstance(case.exact, list | tuple) else case.exact
        jet = Jet(0, (0,) * len(case.grid))
        error = (found.mean(jet, points) - u(*points.T)).abs()
        ratios = error / found.variance(jet, points).sqrt()
        ratio, covered = float(ratios.max()), float((ratios <= 2.0).double().mean())
        weights = found.diagnostics.get("weights", "-")
        grid = "x".join(map(str, case.grid))
        print(
            f"{name:24s} {grid:>12s} {case.error(found):9.1e} {ratio:10.2f} {covered:9.2f} {weights:>8} {seconds:7.2f}"
        )


def steps(points, count):
    """GP-HM per step, beside the port of its objective: P1, and P6 with as many points on each axis."""
    print("\nGP-HM: CPU seconds a step (asked: 100 times less than a direct port)")
    x = torch.linspace(0, 2 * math.pi, points, dtype=torch.float64)
    ends = [(slice(0, 1), torch.sin(100 * x[:1])), (slice(-1, None), torch.sin(100 * x[-1:]))]
    z = torch.linspace(0, 2 * math.pi, points, dtype=torch.float64)
    truth = torch.sin(100 * z)[:, None] * torch.sin(100 * z)
    index = [(slice(0, 1),), (slice(-1, None),), (slice(None), slice(0, 1)), (slice(None), slice(-1, None))]
    sides = [(i, truth[i]) for i in index]
    cases = {"P1": ([x], -1e4 * torch.sin(100 * x), ends), "P6": ([z, z], -2e4 * truth, sides)}
    for name, (axes, source, boundary) in cases.items():
        case, grid = problems.published()[name], tuple(map(len, axes))
        for envelope in ("gaussian", "student-t"):
            port = Port(axes, source, boundary, envelope)
            first = port.step()
            _, theirs = cpu(port.step)
            options = {"highest_frequency": 20.0, "kernel": envelope}
            gphm.solve(case.problem, grid, iterations=2, **options)
            found, ours = cpu(gphm.solve, case.problem, grid, iterations=count, **options)
            mine = found.diagnostics["objective"][0]
            print(
                f"{name}, {' x '.join(map(str, grid))}, {envelope:10s}: port {theirs:.3f}, here {ours / count:.4f}, "
                f"ratio {theirs / ours * count:.0f}; objective at the start {first:.6e} and {mine:.6e}"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small sizes, for a test")
    parser.add_argument(
        "--part", choices=("iterations", "variances", "borders", "solves", "grids", "steps"), help="only one table"
    )
    arguments = parser.parse_args()
    small, part = arguments.small, arguments.part
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread, CPU seconds")
    if part in (None, "iterations"):
        iterations((14,) if small else (30, 62, 126))
    if part in (None, "variances"):
        variances((14,) if small else (30, 62, 126), 4 if small else 48)
    if part in (None, "borders"):
        borders((14,) if small else (30, 62, 126))
    if part in (None, "solves"):
        solves([(name, None) for name in (SMALL if small else NAMES)])
    if part in (None, "grids"):
        solves([("front", (30,))] if small else GRIDS)
    if part in (None, "steps"):
        steps(30 if small else 400, 2 if small else 20)


if __name__ == "__main__":
    main()
