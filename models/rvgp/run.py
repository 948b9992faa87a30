"""Vector fields on surfaces: gpkit beside RVGP's numbers and simple baselines.

python models/rvgp/run.py [--quick] [--sets sphere,torus,...] [--seeds 0,1] [--tables sets,circular,singular]

Meshes and the wind field are looked up in the folder that the environment variable GPKIT_REAL_DATA names, else in
../shared/data beside the repository; sets that need them are left out where they are absent.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import tomllib
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy
import torch
from scipy.sparse.linalg import expm_multiply
from scipy.spatial import cKDTree

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import baselines  # noqa: E402
import truth  # noqa: E402

from gpkit.errors import DataWarning  # noqa: E402
from gpkit.geometry import PointCloud, furthest_point_sample  # noqa: E402
from gpkit.models import VectorFieldGP  # noqa: E402
from gpkit.models.fields.singularities import triangle_indices  # noqa: E402

MESHES = ("sphere", "torus", "bunny")
FOLDED = {"swiss roll": truth.swiss_roll, "hairpin": truth.hairpin}
ALL = (*MESHES, "harmonics", *FOLDED, "wind, month 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    parser.add_argument("--sets", help=f"comma-separated, of {', '.join(ALL)} (wind: 'wind')")
    parser.add_argument("--seeds", help="comma-separated")
    parser.add_argument("--tables", default="sets,circular,singular", help="which tables to print")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    torch.set_num_threads(1)
    config = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
    if options.quick:
        for section in ("sets", "folded", "wind"):
            config[section].update({k: v for k, v in config["quick"].items() if k in (*config[section], "seeds")})
        config["circular"]["spacing"] = {"sphere": 0.15}
    if options.seeds:
        for section in ("sets", "folded", "wind"):
            config[section]["seeds"] = [int(seed) for seed in options.seeds.split(",")]
    folder = real_data()
    wanted = [
        name.strip().replace("wind", "wind, month 0")
        for name in (options.sets or ",".join(ALL).replace("wind, month 0", "wind")).split(",")
    ]
    if options.quick and not options.sets:
        wanted = ["sphere", "harmonics", "hairpin"]
    names = [name for name in wanted if folder is not None or name in FOLDED or name == "harmonics"]
    tables = options.tables.split(",")
    versions = {p: metadata.version(p) for p in ("numpy", "scipy", "torch")}
    print(f"Python {platform.python_version()}, {versions}, one thread\n")
    if "sets" in tables or "singular" in tables:
        sets(names, folder, config, tables)
    if "circular" in tables and folder is not None:
        circular(folder, config, [name for name in wanted if name in MESHES])


def real_data() -> Path | None:
    """The folder of meshes and wind, or None, said on the screen."""
    root = Path(os.environ.get("GPKIT_REAL_DATA") or HERE.parents[2] / "shared" / "data")
    folder = root / "vector_fields"
    if folder.is_dir():
        return folder
    print("Meshes and wind are absent: their sets are left out (GPKIT_REAL_DATA names their folder).")
    return None


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [columns, *rows]) for k in range(len(columns))]
    print(f"**{title}**\n")
    for number, row in enumerate([columns, ["-" * w for w in widths], *rows]):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        if number == 1:
            cells = [widths[0] * "-", *("-" * (w - 1) + ":" for w in widths[1:])]
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def make_set(name: str, folder: Path | None, config: dict, rng: np.random.Generator) -> truth.Set:
    if name in FOLDED:
        return FOLDED[name](config["folded"]["n"], rng)
    if name == "harmonics":
        return truth.harmonic_set(config["sets"]["n"], rng)
    assert folder is not None
    if name == "wind, month 0":
        return truth.wind_set(folder, config["wind"]["n"])
    return truth.mesh_set(folder, name, config["sets"]["n"], rng)


def sets(names: list[str], folder: Path | None, config: dict, tables: list[str]) -> None:
    """Tables 1 to 3: every set, every training share, means over seeds."""
    errors, details, singular = [], [], []
    for name in names:
        section = config["wind"] if name.startswith("wind") else config["folded"] if name in FOLDED else config["sets"]
        seeds = section.get("seeds", config["sets"]["seeds"])
        noise = 0.0 if name.startswith("wind") else config["sets"]["noise"]
        for share in section["train"]:
            runs = [experiment(name, folder, config, share, noise, seed) for seed in seeds]
            mean = {
                key: float(np.mean([run[key] for run in runs])) for key in runs[0] if isinstance(runs[0][key], float)
            }
            worst = max(run["auto"] / run["best single"] for run in runs)
            label = f"{name} {share:g}"
            published = config["published"]
            errors.append(
                [label]
                + [
                    f"{mean[k]:.2f}"
                    for k in ("auto", "intrinsic", "projected", "helmholtz", "channel", "linear", "nearest")
                ]
                + [f"{worst:.3f}"]
                + [str(published["independent"].get(label, "-")), str(published["ambient"].get(label, "-"))]
            )
            winners = ", ".join(sorted({run["winner"] for run in runs}))
            details.append(
                [
                    label,
                    f"{mean['rmse']:.3f}",
                    f"{mean['nlpd']:.2f}",
                    f"{mean['coverage']:.3f}",
                    f"{mean['region']:.3f}",
                ]
                + [f"{mean['seconds']:.0f}", winners]
            )
            if "index" in mean:
                singular.append(
                    [
                        label,
                        f"{mean['index']:.0f}",
                        f"{mean['euler']:.0f}",
                        f"{mean['true']:.1f}",
                        f"{mean['recall']:.2f}",
                    ]
                    + [f"{mean[k]:.2f}" for k in ("precision", "recall nearest", "precision nearest")]
                )
    if "sets" in tables:
        columns = ["set, training share", "auto", "intrinsic", "projected", "helmholtz", "channel GP", "local linear"]
        show(
            "Table 1. Angular error of the mean at all other points, degrees; RVGP, ambient: measured by others",
            [*columns, "nearest", "auto / best single, worst seed", "RVGP", "ambient"],
            errors,
        )
        show(
            "Table 2. kernel='auto': other scores (coverage: intervals of noisy coordinates; regions: of the truth)",
            ["set, training share", "vector RMSE", "NLPD", "coverage", "regions", "CPU s", "kernels chosen"],
            details,
        )
    if "singular" in tables and singular:
        show(
            "Table 3. Singularities: sum of indices, and those of the truth found with their index within 3 sides",
            ["set, training share", "sum", "Euler", "true", "recall", "precision", "nearest: recall", "precision"],
            singular,
        )


def experiment(name: str, folder: Path | None, config: dict, share: float, noise: float, seed: int) -> dict:
    """One split of one set: all kernels of ``auto``, and the baselines."""
    rng = np.random.default_rng(seed)
    if (
        name == "bunny"
    ):  # thin ears, which points alone do not resolve: a mesh with faces, observed at n of its vertices
        assert folder is not None
        data, manifold, nodes = truth.whole_mesh(folder, name, config["sets"]["n"], rng)
    else:
        data = make_set(name, folder, config, rng)
        manifold, nodes = PointCloud(data.points, dim=2), np.arange(len(data.points))
    order = rng.permutation(len(nodes))
    count = max(10, round(share * len(nodes)))
    train, test = nodes[order[:count]], np.sort(nodes[order[count:]])
    white = rng.standard_normal(data.vectors.shape)
    white -= data.normals * (white * data.normals).sum(1, keepdims=True)
    observed = data.vectors + noise * white
    begun = time.process_time()
    model = VectorFieldGP(manifold)
    result = model.fit(train, observed[train], seed=seed, progress=False)
    seconds = time.process_time() - begun
    weights = result.comparison.weights
    out: dict = {"winner": max(weights, key=lambda kernel: weights[kernel]), "seconds": seconds}
    found = model.predict(test)
    out["auto"] = baselines.angular_error(found.mean, data.vectors[test])
    out["rmse"] = baselines.rmse(found.mean, data.vectors[test])
    out["nlpd"] = -float(found.log_density(observed[test]).mean())
    variance = np.einsum("mii->mi", found.covariance)
    frames = found.frames
    out["coverage"] = baselines.coverage(
        frames, found.mean, variance, float(np.sqrt(found.weights @ np.square(found.noise))), observed[test]
    )
    out["region"] = float(found.covers(data.vectors[test]).mean())
    if manifold.orientable and model.manifold.dim == 2:
        out |= singular_scores(model, data, manifold, train, observed)
    singles: dict[str, float] = {}
    for candidate in result.comparison.candidates:
        if "+" not in candidate.name:
            model.use(candidate.name)
            singles[candidate.name] = baselines.angular_error(model.predict(test).mean, data.vectors[test])
    for family in ("intrinsic", "projected", "helmholtz"):
        chosen = next(c.name for c in result.comparison.candidates if c.name.startswith(family) and "+" not in c.name)
        out[family] = singles[chosen]
    out["best single"] = min(singles.values())
    out["channel"] = min(
        baselines.angular_error(
            baselines.channel_gp(manifold, train, observed[train], test, kernel), data.vectors[test]
        )
        for kernel in ("rbf", "matern52")
    )
    simple = {"linear": baselines.linear_interpolation, "nearest": baselines.nearest}
    for label, method in simple.items():
        out[label] = baselines.angular_error(method(manifold, train, observed[train], test), data.vectors[test])
    return out


def singular_scores(
    model: VectorFieldGP, data: truth.Set, manifold: PointCloud, train: np.ndarray, observed: np.ndarray
) -> dict[str, float]:
    """Recall and precision of singular points; closed surfaces also have a known sum of indices."""
    found = model.singularities(draws=50)
    if not found.closed:
        return {}
    coordinates = manifold.to_tangent(data.vectors)[0]
    true = triangle_indices(manifold, found.triangles, coordinates)
    everywhere = baselines.nearest(manifold, train, observed[train], np.arange(manifold.n))
    rough = triangle_indices(manifold, found.triangles, manifold.to_tangent(everywhere)[0])

    def matched(first: np.ndarray, second: np.ndarray) -> float:
        """Share of singular triangles of the first with one of the same index in the second nearby."""
        hits, total = 0, 0
        for sign in (1, -1):
            mine, others = np.flatnonzero(first * sign > 0), np.flatnonzero(second * sign > 0)
            total += len(mine)
            if len(mine) and len(others):
                distance, _ = cKDTree(found.centres[others]).query(found.centres[mine])
                hits += int((distance <= found.radius).sum())
        return hits / max(total, 1)

    return {
        "index": float(found.total),
        "euler": float(found.euler_characteristic),
        "true": float(np.abs(true).sum()),
        "recall": matched(true, found.mean_index),
        "precision": matched(found.mean_index, true),
        "recall nearest": matched(true, rough),
        "precision nearest": matched(rough, true),
    }


def circular(folder: Path, config: dict, names: list[str]) -> None:
    """Table 4: the published protocol, whose truth is a smoothed random field of a connection Laplacian itself."""
    rows = []
    for name in names:
        spacing = config["circular"]["spacing"].get(name)
        if spacing is None:
            continue
        rng = np.random.default_rng(0)
        points, _, _ = truth.load_mesh(folder / f"{name}.obj")
        points = points[furthest_point_sample(points, spacing=spacing, start=int(rng.integers(len(points))))]
        manifold = PointCloud(points, dim=2, n_neighbors=10, weights="binary")
        i, j = manifold.edges.T
        n = manifold.n
        blocks = -manifold.transports
        degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
        rows_, cols = np.meshgrid(np.arange(2), np.arange(2), indexing="ij")
        r = (2 * i[:, None, None] + rows_).ravel()
        c = (2 * j[:, None, None] + cols).ravel()
        upper = scipy.sparse.csr_matrix((blocks.ravel(), (r, c)), shape=(2 * n, 2 * n))
        laplacian = upper + upper.T + scipy.sparse.diags(np.repeat(degree, 2).astype(float))
        field = expm_multiply(-100.0 * laplacian, rng.standard_normal(2 * n)).reshape(n, 2)
        field /= np.linalg.norm(field, axis=1, keepdims=True)
        vectors = manifold.to_ambient(field)
        train = np.unique(rng.integers(0, n, n // 2))
        test = np.setdiff1d(np.arange(n), train)
        own = {}
        for label, cloud in (("20 neighbours, Gaussian", PointCloud(points, dim=2)), ("their graph", manifold)):
            for kernel in ("auto", "intrinsic"):
                model = VectorFieldGP(cloud, kernel)
                model.fit(train, vectors[train], progress=False)
                own[f"{kernel}, {label}"] = baselines.angular_error(model.predict(test).mean, vectors[test])
        rough = baselines.angular_error(baselines.nearest(manifold, train, vectors[train], test), vectors[test])
        rows.append([f"{name}, {len(train)} of {n}", *(f"{v:.2f}" for v in own.values()), f"{rough:.2f}"])
        rows[-1].append(str(config["published"]["circular"].get(name, "-")))
        labels = list(own)
    if rows:
        show(
            "Table 4. The published protocol (truth made by the connection Laplacian of 10 neighbours), degrees",
            ["mesh", *labels, "nearest", "RVGP"],
            rows,
        )


if __name__ == "__main__":
    main()
