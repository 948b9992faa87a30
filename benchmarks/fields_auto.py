"""kernel="auto" of vector fields beside every single kernel in hindsight, and the coverage of its regions; one thread.

python benchmarks/fields_auto.py [--smoke] [--sets rough,swiss,...] [--seeds 0,1,2] [--n 300]
python benchmarks/fields_auto.py --coverage [--sets sphere,wind,...] [--seeds 0,1,2,3,4]
python benchmarks/fields_auto.py --singularities [--seeds 0,1,2]

Fields are smooth, rough and discontinuous, with and without noise, on round, thin, folded and one-sided surfaces; none
was made by a kernel or a Laplacian of this package. A ratio above 1 says how much better a single kernel would have
been: "ratio" is to the kernel that is best on the set, over all splits (geometric means of angles); "worst split" is to
the kernel that happens to be best on that split.

The second table is of regions of the truth at places that were not observed, on the surfaces of the model zoo, with
noise (learnt) and without (``noise=0``). Errors at neighbouring places are alike, so that one split covers by chance
more or less than 95 %: "by chance" is the range that 90 % of the model's own posterior draws have. Meshes and wind are
looked up as ``models/rvgp/run.py`` does.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models" / "rvgp"))

import baselines  # noqa: E402
import truth  # noqa: E402

from gpkit.errors import DataWarning  # noqa: E402
from gpkit.geometry import Manifold, PointCloud, furthest_point_sample  # noqa: E402
from gpkit.models import VectorFieldGP  # noqa: E402
from gpkit.models.fields.singularities import triangle_indices  # noqa: E402

Rng = np.random.Generator
Surface = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """Points and true vectors by a maker of (n, rng), the share of points observed, and the noise."""

    make: Callable[[int, Rng], Surface]
    share: float
    noise: float


def spread(points: np.ndarray, n: int) -> np.ndarray:
    return points[furthest_point_sample(points, count=n, start=0)]


def sphere(n: int, rng: Rng) -> np.ndarray:
    x = rng.standard_normal((6 * n, 3))
    return spread(x / np.linalg.norm(x, axis=1, keepdims=True), n)


def torus(n: int, rng: Rng, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of a torus around a circle of radius 1."""
    u, v = rng.uniform(0.0, 2.0 * math.pi, (2, 8 * n))
    normal = np.stack([np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), np.sin(v)], axis=1)
    points = np.stack([np.cos(u), np.sin(u), np.zeros_like(u)], axis=1) + radius * normal
    chosen = furthest_point_sample(points, count=n, start=0)
    return points[chosen], normal[chosen]


def tangent(vectors: np.ndarray, normals: np.ndarray) -> np.ndarray:
    return truth.unit(vectors - normals * (vectors * normals).sum(1, keepdims=True))


def smooth_sphere(n: int, rng: Rng) -> Surface:
    x = sphere(n, rng)
    return x, truth.potential_flow(x, x, rng)


def still_sphere(n: int, rng: Rng) -> Surface:
    """A turn about one axis and a pull along another: as smooth as fields on a sphere can be."""
    x = sphere(n, rng)
    axis, pull = rng.standard_normal((2, 3))
    return x, tangent(np.cross(axis, x) + 0.5 * pull, x)


def rough_sphere(n: int, rng: Rng) -> Surface:
    """Ambient coordinates whose wave numbers have heavy tails: differentiable once, at most."""
    x = sphere(n, rng)
    waves = rng.standard_normal((400, 3)) / np.sqrt(rng.gamma(1.5, 1.0 / 1.5, 400))[:, None] / 0.5
    phase, weight = rng.uniform(0.0, 2.0 * math.pi, 400), rng.standard_normal((400, 3))
    return x, tangent(np.cos(x @ waves.T + phase) @ weight, x)


def broken_sphere(n: int, rng: Rng) -> Surface:
    """Two turns that meet without continuity at a tilted circle."""
    x = sphere(n, rng)
    first, second, cut = rng.standard_normal((3, 3))
    side = x @ cut > 0.2 * np.linalg.norm(cut)
    return x, tangent(np.where(side[:, None], np.cross(first, x), np.cross(second, x)), x)


def ellipsoid(n: int, rng: Rng) -> Surface:
    """Strongly curved at its ends, and thinner than the field is smooth."""
    axes = np.array([1.0, 0.45, 0.2])
    x = spread(sphere(2 * n, rng) * axes, n)
    normals = x / axes**2
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return x, truth.potential_flow(x, normals, rng, 0.5)


def thin_torus(n: int, rng: Rng) -> Surface:
    x, normals = torus(n, rng, 0.15)
    return x, truth.potential_flow(x, normals, rng, 0.5)


def fat_torus(n: int, rng: Rng) -> Surface:
    x, normals = torus(n, rng, 0.4)
    return x, truth.potential_flow(x, normals, rng)


def waves(n: int, rng: Rng) -> Surface:
    """A corrugated sheet with a flow of the flat plan, carried up to the sheet."""
    plan = spread(rng.uniform(0.0, 2.0, (8 * n, 2)), n)
    height, k = 0.2, 5.0
    z = height * np.sin(k * plan[:, 0]) * np.sin(k * plan[:, 1])
    slope = (
        height
        * k
        * np.stack(
            [np.cos(k * plan[:, 0]) * np.sin(k * plan[:, 1]), np.sin(k * plan[:, 0]) * np.cos(k * plan[:, 1])], axis=1
        )
    )
    omega = rng.standard_normal((100, 2)) / 0.5
    flow = np.cos(plan @ omega.T + rng.uniform(0.0, 2.0 * math.pi, 100)) @ rng.standard_normal((100, 2))
    lifted = np.concatenate([flow, (slope * flow).sum(1, keepdims=True)], axis=1)
    return np.concatenate([plan, z[:, None]], axis=1), truth.unit(lifted)


def moebius(n: int, rng: Rng) -> Surface:
    """A one-sided strip with a flow along it and across it."""
    u, v = rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-0.4, 0.4, 8 * n)
    half = 0.5 * u
    x = np.stack([(1 + v * np.cos(half)) * np.cos(u), (1 + v * np.cos(half)) * np.sin(u), v * np.sin(half)], axis=1)
    across = np.stack([np.cos(half) * np.cos(u), np.cos(half) * np.sin(u), np.sin(half)], axis=1)
    along = np.stack([-x[:, 1], x[:, 0], np.zeros_like(u)], axis=1)
    along += 0.5 * v[:, None] * np.stack([-np.sin(half) * np.cos(u), -np.sin(half) * np.sin(u), np.cos(half)], axis=1)
    a, b = rng.uniform(0.0, 2.0 * math.pi, 2)
    field = (1.0 + 0.7 * np.cos(2.0 * u + a))[:, None] * along + np.sin(1.5 * u + b)[:, None] * across
    chosen = furthest_point_sample(x, count=n, start=0)
    return x[chosen], truth.unit(field[chosen])


def sheet(make: Callable[..., truth.Set]) -> Callable[[int, Rng], Surface]:
    def points_and_vectors(n: int, rng: Rng) -> Surface:
        found = make(n, rng)
        return found.points, found.vectors

    return points_and_vectors


CASES = {
    "smooth": Case(smooth_sphere, 0.25, 0.1),
    "smooth, few data": Case(smooth_sphere, 0.05, 0.05),
    "smooth, noisy": Case(smooth_sphere, 0.4, 0.5),
    "still": Case(still_sphere, 0.25, 0.1),
    "harmonics": Case(sheet(truth.harmonic_set), 0.3, 0.0),
    "rough": Case(rough_sphere, 0.3, 0.0),
    "broken": Case(broken_sphere, 0.3, 0.05),
    "ellipsoid": Case(ellipsoid, 0.25, 0.0),
    "thin torus": Case(thin_torus, 0.3, 0.1),
    "fat torus": Case(fat_torus, 0.3, 0.0),
    "waves": Case(waves, 0.3, 0.1),
    "moebius": Case(moebius, 0.2, 0.1),
    "swiss roll": Case(sheet(truth.swiss_roll), 0.35, 0.1),
    "hairpin": Case(sheet(truth.hairpin), 0.3, 0.0),
    "hairpin, few data": Case(sheet(truth.hairpin), 0.1, 0.1),
}


def experiment(case: Case, n: int, seed: int) -> dict:
    """One split: auto, the best single kernel in hindsight by angle and by RMSE, and the coverage of regions."""
    rng = np.random.default_rng([seed, 17])
    points, vectors = case.make(n, rng)
    cloud = PointCloud(points, dim=2)
    coordinates, _ = cloud.to_tangent(vectors)
    vectors = cloud.to_ambient(coordinates)
    observed = cloud.to_ambient(coordinates + case.noise * rng.standard_normal(coordinates.shape))
    order = rng.permutation(n)
    count = max(12, round(case.share * n))
    train, test = order[:count], np.sort(order[count:])
    begun = time.process_time()
    model = VectorFieldGP(cloud)
    result = model.fit(train, observed[train], noise=None if case.noise else 0, seed=seed, progress=False)
    seconds = time.process_time() - begun
    found = model.predict(test)
    weights = result.comparison.weights
    angles, errors = {}, {}
    for candidate in result.comparison.candidates:
        if "+" not in candidate.name:
            model.use(candidate.name)
            mean = model.predict(test).mean
            angles[candidate.name] = baselines.angular_error(mean, vectors[test])
            errors[candidate.name] = baselines.rmse(mean, vectors[test])
    angle, error = baselines.angular_error(found.mean, vectors[test]), baselines.rmse(found.mean, vectors[test])
    return {
        "angles": angles,
        "angle": angle,
        "best": min(angles.values()),
        "which": min(angles, key=lambda name: angles[name]),
        "used": max(weights, key=lambda name: weights[name]),
        "angle ratio": angle / min(angles.values()),
        "rmse ratio": error / min(errors.values()),
        "covers": float(found.covers(vectors[test]).mean()),
        "nearest": baselines.angular_error(baselines.nearest(cloud, train, observed[train], test), vectors[test]),
        "seconds": seconds,
    }


def surface(name: str, rng: Rng) -> tuple[Manifold, np.ndarray, np.ndarray, np.ndarray] | None:
    """Manifold, the nodes that count, true vectors at all nodes, and normals; None where real data are absent."""
    root = Path(os.environ.get("GPKIT_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    folder = root / "vector_fields"
    if name != "swiss roll" and not folder.is_dir():
        return None
    if name == "bunny":
        data, mesh, nodes = truth.whole_mesh(folder, name, 300, rng)
        return mesh, nodes, data.vectors, data.normals
    if name == "wind":
        data = truth.wind_set(folder)
    elif name == "swiss roll":
        data = truth.swiss_roll(500, rng)
    else:
        data = truth.mesh_set(folder, name, 300, rng)
    return PointCloud(data.points, dim=2), np.arange(len(data.points)), data.vectors, data.normals


def covered(name: str, noise: float, share: float, seed: int) -> tuple[float, ...] | None:
    """Of one split: coverage of 95 % regions by the fit and by "laplace", its range by chance, the angular error."""
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
    prediction = model.predict(test)
    model.uncertainty = "laplace"
    wider = float(model.predict(test).covers(exact[test]).mean())
    draws = [float(prediction.covers(draw).mean()) for draw in prediction.sample(40, seed)]
    low, high = np.quantile(draws, [0.05, 0.95])
    angle = baselines.angular_error(prediction.mean, exact[test])
    return float(prediction.covers(exact[test]).mean()), wider, float(low), float(high), angle


def coverage(names: list[str], seeds: list[int]) -> None:
    """Print the second table."""
    print("| set, noise | regions | least, most | by chance | laplace | angle |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in names:
        for noise in (0.0, 0.1):
            runs = [covered(name, noise, 0.1 if name == "wind" else 0.3, seed) for seed in seeds]
            rows = np.array([run for run in runs if run is not None])
            if not len(rows):
                print(f"| {name}, {noise:g} | absent |  |  |  |  |")
                continue
            mean, least, most = rows[:, 0].mean(), rows[:, 0].min(), rows[:, 0].max()
            wider, low, high, angle = rows[:, 1:].mean(0)
            print(
                f"| {name}, {noise:g} | {mean:.3f} | {least:.3f}, {most:.3f} | {low:.2f} to {high:.2f} "
                f"| {wider:.3f} | {angle:.2f} |",
                flush=True,
            )


def singular(seeds: list[int]) -> None:
    """Which singular points of the wind are found with their index within three sides of triangles, and which not.

    Two of opposite index that are closer to each other than the observed places cannot be told from none: the third
    column counts those that are not. "posterior" is the number of singular triangles that draws have, on average,
    within reach of a point that the mean field misses.
    """
    print(
        "| seed, share | true | found | of those apart by a data spacing | data spacing, sides | posterior at misses |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for share in (0.1, 0.3):
        for seed in seeds:
            rng = np.random.default_rng(seed)
            made = surface("wind", rng)
            if made is None:
                print("| wind is absent |  |  |  |  |  |")
                return
            manifold, nodes, vectors, _ = made
            train = rng.permutation(nodes)[: round(share * len(nodes))]
            model = VectorFieldGP(manifold, "helmholtz:matern92")
            model.fit(train, vectors[train], progress=False)
            found = model.singularities(draws=50)
            true = triangle_indices(manifold, found.triangles, manifold.to_tangent(vectors)[0])
            centres, spots = found.centres, np.flatnonzero(true)
            spacing = float(np.median(cKDTree(manifold.points[train]).query(manifold.points[train], 2)[0][:, 1]))
            hit, apart, chance = [], [], []
            for spot in spots:
                away = np.linalg.norm(centres - centres[spot], axis=1)
                hit.append(bool((away[found.mean_index == true[spot]] <= found.radius).any()))
                apart.append(bool(away[spots[true[spots] == -true[spot]]].min() > spacing))
                chance.append(float(found.probability[away <= found.radius].sum()))
            hits, resolved = np.array(hit), np.array(apart)
            missed = f"{np.mean(np.array(chance)[~hits]):.2f}" if not hits.all() else "-"
            print(
                f"| {seed}, {share:g} | {len(hits)} | {hits.mean():.2f} | {hits[resolved].mean():.2f} of "
                f"{resolved.sum()} | {3.0 * spacing / found.radius:.2f} | {missed} |",
                flush=True,
            )


SURFACES = ("sphere", "torus", "bunny", "swiss roll", "wind")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="two small sets, for a test")
    parser.add_argument("--sets", help=f"comma-separated beginnings of names, of {'; '.join(CASES)}")
    parser.add_argument("--coverage", action="store_true", help="the second table")
    parser.add_argument("--singularities", action="store_true", help="singular points of the wind")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--n", type=int, default=300)
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    torch.set_num_threads(1)
    seeds = [0] if options.smoke else [int(seed) for seed in options.seeds.split(",")]
    n = 80 if options.smoke else options.n
    starts = (options.sets or "").split(",") if options.sets else ["smooth, few", "hairpin, few"] * options.smoke
    names = [name for name in CASES if not starts or any(name.startswith(start) for start in starts)]
    if options.singularities:
        singular(seeds)
        return
    if options.coverage:
        print(f"Python {platform.python_version()}, one thread; seeds {seeds}\n")
        coverage([s for s in SURFACES if not starts or any(s.startswith(start) for start in starts)], seeds)
        return
    versions = {p: metadata.version(p) for p in ("numpy", "scipy", "torch")}
    print(f"Python {platform.python_version()}, {versions}, one thread; n = {n}, seeds {seeds}\n")
    columns = ["angle", "best single", "ratio", "worst split", "worst split, RMSE", "regions", "nearest"]
    print("| set | " + " | ".join(columns) + " | CPU s | used; best in hindsight |")
    print("|---|" + "---:|" * (len(columns) + 1) + "---|")
    worst = []
    for name in names:
        runs = [experiment(CASES[name], n, seed) for seed in seeds]
        words = ("which", "used", "angles")
        mean = {key: np.mean([float(run[key]) for run in runs]) for key in runs[0] if key not in words}
        shared = set.intersection(*(set(run["angles"]) for run in runs))
        known = min(np.mean([math.log(run["angles"][kernel]) for run in runs]) for kernel in shared)
        typical = math.exp(np.mean([math.log(float(run["angle"])) for run in runs]) - known)
        high = [max(float(run[key]) for run in runs) for key in ("angle ratio", "rmse ratio")]
        worst.append([typical, *high])
        used, which = (", ".join(sorted({str(run[key]) for run in runs})) for key in ("used", "which"))
        print(
            f"| {name} | {mean['angle']:.2f} | {mean['best']:.2f} | {typical:.3f} | {high[0]:.3f} | {high[1]:.3f} "
            f"| {mean['covers']:.3f} | {mean['nearest']:.1f} | {mean['seconds']:.1f} "
            f"| {used}; {which} |",
            flush=True,
        )
    over_set, over_angle, over_rmse = np.max(worst, axis=0)
    print(
        f"\nworst ratio of auto to the best single kernel: {over_set:.3f} by set, {over_angle:.3f} (angle) and "
        f"{over_rmse:.3f} (RMSE) by split; asked: 1.05"
    )


if __name__ == "__main__":
    main()
