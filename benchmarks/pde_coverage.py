"""Do intervals of differential equations hold what they promise: noisy sources and observations, unknown coefficients.

    python benchmarks/pde_coverage.py [--smoke] [--part noisy|exact|inverse|nuts|all] [--only NAME] [--seeds N]
        [--first SEED] [--minutes M] [--resume FILE]

Asked: 95 % intervals cover 90-98 %, averaged over points and seeds. Every row stands beside a trivial baseline of the
same data (of the first five seeds): for noisy sources the same equation solved with the noisy values taken as exact,
for observations a smoothing spline of them (a thin-plate spline in two dimensions, its smoothing by leave-one-out), for
unknown numbers the prior. One thread, CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._pde_inverse import Inverse, field_problem, inverse_problems
from benchmarks._pde_noisy import Noise, noisy_problems
from gpkit.errors import ConvergenceWarning
from gpkit.models.pde import PDE, Box, Solution, Unknown

LEVELS = (0.5, 0.9, 0.95)
QUANTILES = (0.67449, 1.64485, 1.95996)
ASKED = (0.90, 0.98)
BY_EXACT = (
    "P1, 1 % noise",
    "P2, 1 %",
    "P3, 1 %",
    "chirp, 5 %",
    "smooth 1-D, 5 %",
    "P3, 10 %",
    "smooth 2-D, 10 %",
    "heat, noisy initial state",
    "u'' = f from observations, no conditions",
    "heat, observed inside, no initial state",
)
# Of the sampler: enough for 200 effective draws of every unknown.
SHORT = {"draws": 250, "tune": 100, "chains": 4}
SAMPLING: dict[str, dict[str, int]] = defaultdict(
    lambda: SHORT,
    {"field": {"draws": 120, "tune": 60, "chains": 3}},
)  # fmt: skip
BASELINE = 5  # seeds of the baseline, often the slower of the two


def points_in(box: Box, count: int = 200) -> np.ndarray:
    lower, upper = np.array(box.lower), np.array(box.upper)
    return lower + (upper - lower) * np.random.default_rng(9).uniform(0.01, 0.99, size=(count, len(lower)))


def score(solution: Solution, truth: np.ndarray, points: np.ndarray) -> tuple[list[float], float, float, float]:
    """Coverage at each level, mean square of standardised errors, of errors, and the mean width."""
    mean, std = solution.mean(points).numpy(), solution.std(points).numpy()
    z = np.abs(mean - truth) / std
    return (
        [float(np.mean(z <= q)) for q in QUANTILES],
        float(np.mean(z**2)),
        float(np.mean((mean - truth) ** 2)),
        float(np.mean(std)),
    )


def kept_in(resume: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in resume.read_text().splitlines()] if resume and resume.exists() else []


def keep(resume: Path | None, rows: list[dict[str, Any]]) -> None:
    if resume:
        with resume.open("a") as stream:
            stream.writelines(json.dumps(r) + "\n" for r in rows)


def solved(case: Noise, seed: int, method: str) -> dict[str, Any]:
    """One data set: its scores, and the square of the baseline's error for the first seeds."""
    points = points_in(case.box)
    truth = case.truth(*torch.from_numpy(points.T)).numpy()
    problem, baseline = case.state(np.random.default_rng([seed, 17]))
    begun = time.process_time()
    solution = problem.solve(case.grid, method=method, progress=False, **case.options)
    inside, z, square, width = score(solution, truth, points)
    return {
        "case": case.name, "method": method, "seed": seed, "inside": inside, "z": z, "square": square, "width": width,
        "warned": bool(solution.findings), "spent": time.process_time() - begun,
        "simple": float(np.mean((baseline(points) - truth) ** 2)) if seed % 1000 < BASELINE else None,
    }  # fmt: skip


def run_noisy(
    only: str,
    seeds: int | None,
    smoke: bool,
    resume: Path | None,
    method: str = "auto",
    first: int = 0,
    minutes: float = math.inf,
) -> list[str]:
    missed, kept = [], kept_in(resume)
    cases = [
        case
        for case in noisy_problems()
        if only in case.name and not (smoke and case.slow) and (method != "exact" or case.name in BY_EXACT)
    ]
    print(f"\nnoisy sources and observations, method={method}: share of points inside central intervals, averaged over "
          "seeds")  # fmt: skip
    print(f"{'problem':44s} {'seeds':>5s} {'50 %':>6s} {'90 %':>6s} {'95 %':>6s} {'+-':>5s} {'z^2':>5s} {'rmse':>8s} "
          f"{'std':>8s} {'baseline':>9s} {'warned':>6s} {'CPU s':>7s}")  # fmt: skip
    for case in cases:
        most = 2 if smoke else seeds or (24 if method == "exact" else case.seeds)
        rows: list[dict[str, Any]] = []
        begun = time.process_time()
        for seed in range(first, first + most):
            if len(rows) > 1 and time.process_time() - begun > 60.0 * minutes / len(cases):
                break
            own = [r for r in kept if (r["case"], r["method"], r["seed"]) == (case.name, method, seed)]
            if not own:
                own = [solved(case, seed, method)]
                keep(resume, own)
            rows += own
        count, shares = len(rows), np.array([r["inside"] for r in rows])
        error = shares[:, 2].std(ddof=1) / math.sqrt(count)
        inside = shares.mean(0)
        z, square, width, spent = (float(np.mean([r[k] for r in rows])) for k in ("z", "square", "width", "spent"))
        compared = [r["simple"] for r in rows if r["simple"] is not None]
        simple = np.mean(compared) if compared else math.nan
        print(f"{case.name:44s} {count:5d} {inside[0]:6.3f} {inside[1]:6.3f} {inside[2]:6.3f} {error:5.3f} {z:5.2f} "
              f"{math.sqrt(square):8.1e} {width:8.1e} {math.sqrt(simple):9.1e} {sum(r['warned'] for r in rows):6d} "
              f"{spent:7.2f}", flush=True)  # fmt: skip
        if not ASKED[0] <= inside[2] <= ASKED[1]:
            missed.append(f"{case.name}, {method}: {inside[2]:.3f}")
    return missed


def stated(case: Inverse | None, seed: int) -> tuple[PDE, dict[str, float], Callable[[np.ndarray], np.ndarray] | None]:
    """A problem of a seed, its truths, and that of its field if it has one; without a case the unknown coefficient."""
    if case is None:
        problem, field = field_problem(np.random.default_rng([seed, 31]))
        return problem, {}, field
    rng = np.random.default_rng([seed, 23])
    truth = {name: float(prior.icdf(torch.tensor(rng.uniform()).double())) for name, prior in case.priors.items()}
    return case.state(rng, truth, {name: Unknown(name, prior=p) for name, p in case.priors.items()}), truth, None


def run_inverse(only: str, seeds: int | None, smoke: bool, first: int = 0) -> list[str]:
    missed = []
    print("\nunknown numbers, truths drawn from the prior (normal approximation at the mode); width: posterior over "
          "prior standard deviation")  # fmt: skip
    print(f"{'problem':36s} {'unknown':8s} {'seeds':>5s} {'50 %':>6s} {'90 %':>6s} {'95 %':>6s} {'+-':>5s} "
          f"{'width':>6s} {'rank':>5s} {'CPU s':>7s}")  # fmt: skip
    for case in inverse_problems():
        if only not in case.name:
            continue
        count = 2 if smoke else seeds or 80
        inside: dict[str, list[list[bool]]] = {name: [] for name in case.priors}
        ranks: dict[str, list[float]] = {name: [] for name in case.priors}
        widths: dict[str, list[float]] = {name: [] for name in case.priors}
        spent = 0.0
        for seed in range(first, first + count):
            problem, truth, _ = stated(case, seed)
            begun = time.process_time()
            result = problem.infer(case.grid, seed=seed, progress=False)
            spent += time.process_time() - begun
            for name, value in truth.items():
                draws = result.draws[name].ravel()
                ranks[name].append(float(np.mean(draws < value)))
                inside[name].append([abs(2 * ranks[name][-1] - 1) <= level for level in LEVELS])
                widths[name].append(float(draws.std() / case.priors[name].stddev))
        for name in case.priors:
            shares = np.mean(inside[name], axis=0)
            print(f"{case.name:36s} {name:8s} {count:5d} {shares[0]:6.3f} {shares[1]:6.3f} {shares[2]:6.3f} "
                  f"{math.sqrt(0.95 * 0.05 / count):5.3f} {np.mean(widths[name]):6.3f} {np.mean(ranks[name]):5.2f} "
                  f"{spent / count:7.2f}", flush=True)  # fmt: skip
            if not ASKED[0] <= shares[2] <= ASKED[1]:
                missed.append(f"{case.name}, {name}: {shares[2]:.3f}")
    return missed


def sampled(case: Inverse | None, seed: int) -> list[dict[str, Any]]:
    """One data set by NUTS: for every unknown where its truth lies among the draws, and how the chains mixed."""
    import arviz

    problem, truth, field = stated(case, seed)
    settings = SAMPLING["field" if case is None else case.name]
    begun = time.process_time()
    result = problem.infer(case.grid if case else None, method="nuts", seed=seed, progress=False, **settings)
    spent = time.process_time() - begun
    at = np.linspace(0.03, 0.97, 40)
    rows = []
    posterior = result.posterior.posterior
    for name in [*truth] or ["log_k"]:
        draws = posterior[name].interp(x=at) if field is not None else posterior[name]
        target = field(at) if field is not None else np.array([truth[name]])
        below = (draws.values.reshape(-1, len(target)) < target).mean(0)
        prior = 0.7 if case is None else float(case.priors[name].stddev)
        rows.append({
            "case": "field" if case is None else case.name, "name": name, "seed": seed,
            "inside": [float(np.mean(np.abs(2 * below - 1) <= level)) for level in LEVELS],
            "rank": float(below.mean()), "width": float(draws.std(("chain", "draw")).mean() / prior),
            "bulk": float(arviz.ess(posterior)[name].min()),
            "tail": float(arviz.ess(posterior, method="tail")[name].min()),
            "r_hat": float(arviz.rhat(posterior)[name].max()),
            "divergences": int(result.posterior.sample_stats["diverging"].sum()),
            "draws": int(draws.sizes["chain"] * draws.sizes["draw"]), "spent": spent,
        })  # fmt: skip
    return rows


def run_sampled(only: str, seeds: int | None, smoke: bool, resume: Path | None, first: int = 0) -> list[str]:
    """NUTS over data sets; finished ones are kept in a file of JSON lines, so that a run can go on where it ended."""
    missed, kept = [], kept_in(resume)
    print("\nNo-U-turn sampling, truths drawn from the prior; smallest effective sizes, largest r-hat and all "
          "divergences over the data sets")  # fmt: skip
    print(f"{'problem':36s} {'unknown':8s} {'seeds':>5s} {'50 %':>6s} {'90 %':>6s} {'95 %':>6s} {'+-':>5s} "
          f"{'width':>6s} {'rank':>5s} {'draws':>6s} {'bulk':>5s} {'tail':>5s} {'r-hat':>6s} {'div.':>5s} "
          f"{'CPU s':>7s}")  # fmt: skip
    for case in [*inverse_problems(), None]:
        name = "field" if case is None else case.name
        if only not in name or (smoke and "growth" not in name):
            continue
        rows = []
        for seed in range(first, first + (2 if smoke else seeds or 40)):
            own = [r for r in kept if r["case"] == name and r["seed"] == seed]
            if not own:
                own = sampled(case, seed)
                keep(resume, own)
            rows += own
        for unknown in dict.fromkeys(r["name"] for r in rows):
            own = [r for r in rows if r["name"] == unknown]
            inside = np.array([r["inside"] for r in own])
            shares, count = inside.mean(0), len(own)
            error = math.sqrt(0.95 * 0.05 / count) if case else inside[:, 2].std(ddof=1) / math.sqrt(count)
            print(f"{name:36s} {unknown:8s} {count:5d} {shares[0]:6.3f} {shares[1]:6.3f} {shares[2]:6.3f} {error:5.3f} "
                  f"{np.mean([r['width'] for r in own]):6.3f} {np.mean([r['rank'] for r in own]):5.2f} "
                  f"{own[0]['draws']:6d} {min(r['bulk'] for r in own):5.0f} {min(r['tail'] for r in own):5.0f} "
                  f"{max(r['r_hat'] for r in own):6.3f} {sum(r['divergences'] for r in own):5d} "
                  f"{np.mean([r['spent'] for r in own]):7.2f}", flush=True)  # fmt: skip
            if not ASKED[0] <= shares[2] <= ASKED[1]:
                missed.append(f"{name}, {unknown} by sampling: {shares[2]:.3f}")
    return missed


def run_field(seeds: int | None, smoke: bool, first: int = 0) -> list[str]:
    count = 2 if smoke else seeds or 60
    where = np.linspace(0.03, 0.97, 40)
    shares, errors, widths, spent = [], [], [], 0.0
    for seed in range(first, first + count):
        problem, _, truth = stated(None, seed)
        assert truth is not None
        begun = time.process_time()
        result = problem.infer(progress=False)
        spent += time.process_time() - begun
        mean, std = (getattr(result.solution["log_k"], what)(where).numpy() for what in ("mean", "std"))
        z = np.abs(mean - truth(where)) / std
        shares.append([float(np.mean(z <= q)) for q in QUANTILES])
        errors.append(float(np.mean((mean - truth(where)) ** 2)))
        widths.append(float(np.mean(std)))
    inside = np.mean(shares, axis=0)
    error = np.std(shares, axis=0, ddof=1)[2] / math.sqrt(count)
    print(f"\nunknown coefficient field, truths drawn from the prior (amplitude 0.7): {count} seeds, coverage "
          f"{inside[0]:.3f} / {inside[1]:.3f} / {inside[2]:.3f} +- {error:.3f}, rmse {math.sqrt(np.mean(errors)):.3f} "
          f"(of the prior's mean 0.7), mean std {np.mean(widths):.3f}, {spent / count:.2f} CPU s")  # fmt: skip
    return [] if ASKED[0] <= inside[2] <= ASKED[1] else [f"unknown field: {inside[2]:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="two seeds, the quick problems only")
    parser.add_argument("--part", choices=("noisy", "exact", "inverse", "nuts", "all"), default="all")
    parser.add_argument("--only", default="", help="problems whose name holds this")
    parser.add_argument("--seeds", type=int, help="instead of the number of each problem")
    parser.add_argument("--first", type=int, default=0, help="first seed, for sets nobody saw")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="CPU minutes after which noisy rows are printed"
    )
    parser.add_argument("--resume", type=Path, help="file that keeps finished data sets of noisy rows and of NUTS")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)  # doubted solutions are counted like others
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, "
          f"scipy {metadata.version('scipy')}, one thread; asked: 95 % intervals cover 90-98 %")  # fmt: skip
    missed = []
    for part, method in (("noisy", "auto"), ("exact", "exact")):
        if options.part in (part, "all"):
            chosen = (options.only, options.seeds, options.smoke, options.resume, method)
            missed += run_noisy(*chosen, options.first, options.minutes)
    if options.part in ("inverse", "all"):
        missed += run_inverse(options.only, options.seeds, options.smoke, options.first)
        if options.only in "unknown coefficient field":
            missed += run_field(options.seeds, options.smoke, options.first)
    if options.part in ("nuts", "all"):
        missed += run_sampled(options.only, options.seeds, options.smoke, options.resume, options.first)
    if not options.smoke:
        print("\noutside what was asked: " + ("; ".join(missed) or "nothing"))


if __name__ == "__main__":
    main()
