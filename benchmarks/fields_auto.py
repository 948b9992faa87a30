"""kernel="auto" of vector fields beside every single kernel in hindsight, and the coverage of its regions; one thread.

python benchmarks/fields_auto.py [--smoke] [--held-out] [--sets "rough;swiss"] [--seeds 0,1,2] [--n 300]
python benchmarks/fields_auto.py --coverage [--sets "sphere;wind"] [--seeds 0,1,2,3,4]
python benchmarks/fields_auto.py --singularities [--sets "sphere;wind"] [--seeds 0,1,2,3,4]

With ``--keep DIR`` every split is kept in a file as soon as it is done: a command that was stopped (or that
``--minutes`` ends) goes on where it was, and prints its table when it is complete.

Fields are smooth, rough and discontinuous, with and without noise, on round, thin, folded and one-sided surfaces; none
was made by a kernel or a Laplacian of this package. Rules were compared on the sets that are run without options;
those of ``--held-out`` were made afterwards. A ratio above 1 says how much better a single kernel would have been:
"set" is what is asked to be below 1.05: to the kernel that is best on the set, over all splits (geometric means of
angles, and of RMSE), with its standard error over splits. The kernel is picked by the very errors that it is judged by;
"others" is free of that: each split is compared with the kernel that is best on the set's other splits. "Split" is to
the kernel that happens to be best on the worst split: the luckiest of thirteen, which no rule can name beforehand;
"one speed" is as "set", of what ``auto`` is without kernels whose amplitude varies, and "directions" of angles of
``model.directions()``, which is fitted to unit vectors.
"left-out" is the worst split beside a choice that could have been made: the single kernel that predicts left-out
observed places best, by exact leave-one-out log densities. Sets have five splits, those with few noisy places 24.

The second table is of regions of the truth at places that were not observed, on the surfaces of the model zoo, with
noise (learnt) and without (``noise=0``). Errors at neighbouring places are alike, so that one split covers by chance
more or less than 95 %: "by chance" is the range that 90 % of the model's own posterior draws have. "without" is the
same without the factors by place that left-out places ask for (``uncertainty="jackknife"``), and log densities of the
truth, nats a place, are beside each other. Meshes and wind are looked up as ``models/rvgp/run.py`` does.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import Delaunay

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models" / "rvgp"))

import _field_sets
import _field_sets_blind
import _field_sets_fifth
import _field_sets_fresh
import _field_sets_held_out
import _field_sets_later
import _field_singularities
import baselines
from _field_surfaces import DENSE_WIND, FLOWS, MADE, SURFACES, surface

from gpkit.errors import DataWarning
from gpkit.files import write_atomic
from gpkit.geometry import CellComplex, PointCloud
from gpkit.models import EdgeFlowGP, VectorFieldGP
from gpkit.models.fields.predictions import ScalarPrediction
from gpkit.models.fields.selection import Candidate, KernelComparison

HELD_OUT = {**_field_sets_held_out.HELD_OUT, **_field_sets_fresh.FRESH, **_field_sets_blind.BLIND}
SETS = {**_field_sets_later.SETS, **_field_sets_fifth.SETS, **HELD_OUT}
_SPLITS = 5


def experiment(case: _field_sets.Case, n: int, seed: int) -> dict:
    """One split: auto, the best single kernel in hindsight by angle and by RMSE, and the coverage of regions."""
    rng = np.random.default_rng([seed, 17])
    points, vectors = case.make(n, rng)
    cloud = PointCloud(points, dim=2, components="keep")
    coordinates, _ = cloud.to_tangent(vectors)
    vectors = cloud.to_ambient(coordinates)
    noisy, order = case.observed(points, coordinates, rng)
    observed = cloud.to_ambient(noisy)
    count = max(12, round(case.share * n))
    train, test = order[:count], np.sort(order[count:])
    begun = time.process_time()
    model = VectorFieldGP(cloud)
    result = model.fit(train, observed[train], noise=None if case.noise else 0, seed=seed, progress=False)
    seconds = time.process_time() - begun
    found = model.predict(test)
    weights = result.comparison.weights
    covers = float(found.covers(vectors[test]).mean())
    turned = model.directions(seed=seed, progress=False).predict(test).mean
    singles = [c for c in result.comparison.candidates if "+" not in c.name]
    even = [c for c in result.comparison.candidates if not c.regression.flexible]
    model.uncertainty = "map"
    means = {}
    for candidate in result.comparison.candidates:
        model.use(candidate.name)
        means[candidate.name] = model.predict(test).mean
    angles = {_label(c): baselines.angular_error(means[c.name], vectors[test]) for c in singles}
    errors = {_label(c): baselines.rmse(means[c.name], vectors[test]) for c in singles}
    shares = KernelComparison(tuple(even), {}, not case.noise).weights
    plain = sum(share * means[name] for name, share in shares.items())
    return {
        "angles": angles,
        "errors": errors,
        "angle": baselines.angular_error(found.mean, vectors[test]),
        "directions": baselines.angular_error(turned, vectors[test]),
        "rmse": baselines.rmse(found.mean, vectors[test]),
        "plain": baselines.angular_error(plain, vectors[test]),
        "plain, RMSE": baselines.rmse(plain, vectors[test]),
        "known": _label(max(singles, key=lambda candidate: candidate.elpd)),
        "used": max(weights, key=lambda name: weights[name]),
        "covers": covers,
        "nearest": baselines.angular_error(baselines.nearest(cloud, train, observed[train], test), vectors[test]),
        "seconds": seconds,
    }


def _label(candidate: Candidate) -> str:
    """Its name, but for a kernel whose amplitude varies: that is of another kernel on every split."""
    return "speed" if candidate.regression.flexible else candidate.name


class Kept:
    """Results of splits in a folder, one file each, and a time after which no further split is begun."""

    def __init__(self, folder: Path | None, minutes: float) -> None:
        self.folder, self.end, self.missing = folder, time.monotonic() + 60.0 * minutes, 0

    def of(self, key: str, make: Callable[[], Any]) -> Any:
        """The result of a key (what JSON can hold); None if there is no time to make it."""
        if self.folder is None:
            return make()
        file = self.folder / (re.sub(r"[^a-z0-9.]+", "-", key.lower()) + ".json")
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))
        if time.monotonic() > self.end:
            self.missing += 1
            return None
        found = make()
        write_atomic(file, json.dumps(found).encode())
        return found


def over_set(runs: list[dict], score: str, scores: str) -> tuple[float, float]:
    """Geometric mean of auto's score over that of the single kernel that is best on the set, and its standard error."""
    shared = sorted(set.intersection(*(set(run[scores]) for run in runs)))
    table = np.log([[run[scores][kernel] for kernel in shared] for run in runs])
    rest = np.log([run[score] for run in runs]) - table[:, table.mean(0).argmin()]
    return math.exp(rest.mean()), float(rest.std(ddof=1) / math.sqrt(len(rest))) if len(rest) > 1 else math.nan


def over_others(runs: list[dict], score: str, scores: str) -> float:
    """The same to the kernel that is best on the other splits."""
    if len(runs) < 3:
        return math.nan
    shared = sorted(set.intersection(*(set(run[scores]) for run in runs)))
    table = np.log([[run[scores][kernel] for kernel in shared] for run in runs])
    others = (table.sum(0) - table) / (len(runs) - 1)
    rest = np.log([run[score] for run in runs]) - table[np.arange(len(runs)), others.argmin(1)]
    return math.exp(rest.mean())


def row_of(runs: list[dict]) -> dict[str, float]:
    """Numbers of a set."""
    return {
        "angle": np.mean([run["angle"] for run in runs]),
        "best": np.mean([min(run["angles"].values()) for run in runs]),
        "splits": len(runs),
        "set": over_set(runs, "angle", "angles")[0],
        "±": over_set(runs, "angle", "angles")[1],
        "set, RMSE": over_set(runs, "rmse", "errors")[0],
        "one speed": over_set(runs, "plain", "angles")[0],
        "one speed, RMSE": over_set(runs, "plain, RMSE", "errors")[0],
        "directions": over_set(runs, "directions", "angles")[0],
        "others": over_others(runs, "angle", "angles"),
        "others, RMSE": over_others(runs, "rmse", "errors"),
        "split": max(run["angle"] / min(run["angles"].values()) for run in runs),
        "split, RMSE": max(run["rmse"] / min(run["errors"].values()) for run in runs),
        "left-out": max(run["angle"] / run["angles"][run["known"]] for run in runs),
        "left-out, RMSE": max(run["rmse"] / run["errors"][run["known"]] for run in runs),
        "regions": np.mean([run["covers"] for run in runs]),
        "nearest": np.mean([run["nearest"] for run in runs]),
        "CPU s": np.mean([run["seconds"] for run in runs]),
    }


def covered(name: str, noise: float, share: float, seed: int) -> tuple[float, ...] | None:
    """Of one split: what :func:`judged` says, and the error."""
    rng = np.random.default_rng([seed, 29])
    found = surface(name, rng)
    if found is None:
        return None
    manifold, nodes, vectors, _ = found
    coordinates, _ = manifold.to_tangent(vectors)
    exact = manifold.to_ambient(coordinates)
    observed = manifold.to_ambient(coordinates + noise * math.sqrt(0.5) * rng.standard_normal(coordinates.shape))
    order = rng.permutation(len(nodes))
    count = round(share * len(nodes))
    train, test = nodes[order[:count]], np.sort(nodes[order[count : count + 250]])
    model = VectorFieldGP(manifold)
    model.fit(train, observed[train], noise=None if noise else 0, seed=seed, progress=False)
    return *judged(model, test, exact[test], seed), baselines.angular_error(model.predict(test).mean, exact[test])


def covered_flows(noise: float, share: float, seed: int) -> tuple[float, ...]:
    """The same of flows along the edges of a random triangulation: line integrals of a planar field, and their RMSE."""
    rng = np.random.default_rng([seed, 31])
    places = rng.uniform(0.0, 1.0, (90, 2))
    triangles = Delaunay(places).simplices
    pairs = np.unique(
        np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]])), axis=0
    )
    network = CellComplex(len(places), pairs.tolist(), triangles.tolist())
    ends = places[network.edges]
    waves, phase = 3.0 * rng.standard_normal((30, 2)), rng.uniform(0.0, 2.0 * math.pi, 30)
    weight = rng.standard_normal((30, 2))
    step = ends[:, 1] - ends[:, 0]
    between = [ends[:, 0] + t * step for t in (np.arange(8) + 0.5) / 8]
    exact = np.mean([((np.cos(x @ waves.T + phase) @ weight) * step).sum(1) for x in between], axis=0)
    exact /= np.sqrt(np.square(exact).mean())
    observed = exact + noise * rng.standard_normal(exact.shape)
    order = rng.permutation(len(exact))
    count = round(share * len(exact))
    train, test = order[:count], np.sort(order[count:])
    model = EdgeFlowGP(network)
    model.fit(train, observed[train], noise=None if noise else 0, seed=seed, progress=False)
    rmse = float(np.sqrt(np.square(model.predict(test).mean - exact[test]).mean()))
    return *judged(model, test, exact[test, None], seed), rmse


def judged(model: VectorFieldGP | EdgeFlowGP, test: np.ndarray, exact: np.ndarray, seed: int) -> tuple[float, ...]:
    """Coverage of the truth: by default, without factors by place, with parameters taken for known; the range that
    posterior draws have; log densities of the truth by default and without factors.
    """
    predictions = {}
    for uncertainty in (None, "jackknife", "map"):
        model.uncertainty = uncertainty
        found = model.predict(test)
        predictions[uncertainty] = found.field if isinstance(found, ScalarPrediction) else found
    model.uncertainty = None
    draws = [predictions[None].covers(draw).mean() for draw in predictions[None].sample(40, seed)]
    low, high = np.quantile(draws, [0.05, 0.95])
    covers = [float(prediction.covers(exact).mean()) for prediction in predictions.values()]
    densities = [float(predictions[u].log_density(exact, noisy=False).mean()) for u in (None, "jackknife")]
    return *covers, float(low), float(high), *densities


def coverage(names: list[str], seeds: list[int], kept: Kept) -> None:
    """Print the second table."""
    print(
        "| set, noise | splits | regions | least, most | by chance | without | parameters taken for known "
        "| log density | without | angle (flows: RMSE) |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in names:
        for noise in (0.0,) if name == DENSE_WIND else (0.0, 0.1):
            if name != FLOWS and surface(name, np.random.default_rng(0)) is None:
                print(f"| {name}, {noise:g} | absent |")
                continue
            share = {"wind": 0.1, FLOWS: 0.4}.get(name, 0.3)
            run = functools.partial(covered_flows if name == FLOWS else functools.partial(covered, name), noise, share)
            made = [kept.of(f"coverage {name} {noise} {seed}", functools.partial(run, seed)) for seed in seeds]
            rows = np.array([row for row in made if row is not None])
            if not len(rows):
                continue
            mean, least, most = rows[:, 0].mean(), rows[:, 0].min(), rows[:, 0].max()
            without, known, low, high, density, plain, error = rows[:, 1:].mean(0)
            print(
                f"| {name}, {noise:g} | {len(rows)} | {mean:.3f} | {least:.3f}, {most:.3f} | {low:.2f} to {high:.2f} "
                f"| {without:.3f} | {known:.3f} | {density:.2f} | {plain:.2f} | {error:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="two small sets, for a test")
    parser.add_argument("--sets", help=f"beginnings of names, separated by semicolons, of {'; '.join(SETS)}")
    parser.add_argument("--held-out", action="store_true", help="sets that no rule was chosen by")
    parser.add_argument("--coverage", action="store_true", help="the second table")
    parser.add_argument("--singularities", action="store_true", help="the third table")
    parser.add_argument("--seeds", help="of the splits; five or 24 by default")
    parser.add_argument("--keep", type=Path, help="folder of finished splits")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no split after these; needs --keep")
    parser.add_argument("--n", type=int, default=300)
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    torch.set_num_threads(1)
    given = [0] if options.smoke else [int(seed) for seed in (options.seeds or "").split(",") if seed]
    seeds = given or list(range(_SPLITS))
    n = 80 if options.smoke else options.n
    starts = re.split(";|,(?! )", options.sets) if options.sets else ["smooth, few", "hairpin, few"] * options.smoke
    offered = HELD_OUT if options.held_out else _field_sets.DEVELOPMENT
    names = list(offered) if not starts else [n for n in SETS if any(n.startswith(s) for s in starts)]
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.keep, options.minutes)
    if options.coverage or options.singularities:
        print(f"Python {platform.python_version()}, one thread; seeds {seeds}\n")
        of = [s for s in SURFACES if not starts or any(s.startswith(start) for start in starts)]
        if options.singularities:
            _field_singularities.table([s for s in of if s not in (*MADE, FLOWS)], seeds, kept.of)
        else:
            coverage(of, seeds, kept)
        print(f"\n{kept.missing} splits are left" if kept.missing else "")
        return
    versions = {p: metadata.version(p) for p in ("numpy", "scipy", "torch")}
    print(f"Python {platform.python_version()}, {versions}, one thread; n = {n} where a set has no own\n")
    print("set ratios are over splits; split and left-out ones are those of the worst split\n")
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        case = SETS[name]
        size = n if case.n is None or options.smoke else case.n
        splits = given or range(case.splits or _SPLITS)
        made = [kept.of(f"auto {name} {size} {s}", functools.partial(experiment, case, size, s)) for s in splits]
        runs = [run for run in made if run is not None]
        if not runs:
            continue
        row = row_of(runs)
        if not rows:
            print("| set | " + " | ".join(row) + " | used |\n|---|" + "---:|" * len(row) + "---|")
        rows[name] = row
        used = ", ".join(sorted({run["used"] for run in runs}))
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row.values()) + f" | {used} |", flush=True)
    if kept.missing:
        print(f"\n{kept.missing} splits are left")
    for label in ("set", "one speed", "others", "split", "left-out") if rows else ():
        pair = [np.array([row[column] for row in rows.values()]) for column in (label, f"{label}, RMSE")]
        worst = [f"{values.max():.3f} (mean {values.mean():.3f}, {(values > 1.05).sum()} above)" for values in pair]
        print(f"{'' if label != 'set' else chr(10)}{label}: worst {worst[0]} by angle, {worst[1]} by RMSE")


if __name__ == "__main__":
    main()
