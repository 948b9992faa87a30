"""Vector fields on surfaces: gpkit beside RVGP's numbers and simple baselines.

python models/rvgp/run.py [--smoke] [--sets sphere,torus,...] [--seeds 0,1] [--tables sets,circular] [--keep DIR]

Meshes and the wind field are looked up in the folder that the environment variable GPKIT_REAL_DATA names, else in
../shared/data beside the repository; sets that need them are left out where they are absent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tomllib
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import experiments

from gpkit.errors import DataWarning
from gpkit.files import write_atomic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", "--quick", action="store_true", help="small sizes, for a test")
    parser.add_argument("--sets", help=f"comma-separated, of {', '.join(experiments.ALL)} ('wind' will do)")
    parser.add_argument("--seeds", help="comma-separated")
    parser.add_argument("--tables", default="sets,circular,singular", help="which tables to print")
    parser.add_argument("--keep", type=Path, help="folder in which finished splits are kept and looked for")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    torch.set_num_threads(1)
    config = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
    if options.smoke:
        for section in ("sets", "folded", "wind"):
            config[section] |= config["smoke"]
        config["circular"] |= {"spacing": {"sphere": [0.12]}, "seeds": [0]}
        config["published"] = {"independent": {}, "ambient": {}, "circular": {}}  # of other sizes
    if options.seeds:
        for section in ("sets", "circular"):
            config[section]["seeds"] = [int(seed) for seed in options.seeds.split(",")]
    folder = real_data()
    names = chosen(options.sets, options.smoke)
    tables = options.tables.split(",")
    versions = {p: metadata.version(p) for p in ("numpy", "scipy", "torch")}
    print(f"Python {platform.python_version()}, {versions}, one thread\n")
    if "sets" in tables or "singular" in tables:
        here = [name for name in names if folder is not None or name in experiments.SHIPPED]
        sets(here, folder, config, tables, options.keep)
    if "circular" in tables and folder is not None:
        circular(folder, config, [name for name in names if name in experiments.MESHES], options.keep)


def chosen(words: str | None, smoke: bool) -> list[str]:
    """The sets that were asked for: the beginning of a name is enough where it is the only one."""
    if words is None:
        return ["sphere", "harmonics", "hairpin"] if smoke else list(experiments.ALL)
    names = []
    for word in words.split(","):
        fitting = [name for name in experiments.ALL if name == word.strip()]
        fitting = fitting or [name for name in experiments.ALL if name.startswith(word.strip())]
        if len(fitting) != 1:
            sys.exit(f"there is no set {word.strip()!r}; there are {'; '.join(experiments.ALL)}")
        names += fitting
    return names


def real_data() -> Path | None:
    """The folder of meshes and wind, or None, said on the screen."""
    root = Path(os.environ.get("GPKIT_REAL_DATA") or HERE.parents[2] / "shared" / "data")
    folder = root / "vector_fields"
    if folder.is_dir():
        return folder
    print("Meshes and wind are absent: their sets are left out (GPKIT_REAL_DATA names their folder).")
    return None


def kept(folder: Path | None, what: list, compute: Callable[[], dict]) -> dict:
    """A result from the folder, or a new one, which is put there as soon as it is finished."""
    if folder is None:
        return compute()
    file = folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))["scores"]
    scores = compute()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps({"of": what, "scores": scores}))
    return scores


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [columns, *rows]) for k in range(len(columns))]
    print(f"**{title}**\n")
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        for row in [columns, *rows]
    ]
    lines.insert(1, [widths[0] * "-", *("-" * (w - 1) + ":" for w in widths[1:])])
    for cells in lines:
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def summarised(runs: list[dict], key: str, digits: int, spread: bool = False) -> str:
    """Mean over seeds, with the standard deviation between them where it is asked for and known."""
    values = [run[key] for run in runs if key in run]
    if not values:
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if spread and len(values) > 1 else mean


def splits(count: int) -> str:
    """What the numbers of a table are, in words."""
    return f"mean ± standard deviation over {count} splits" if count > 1 else "one split"


def sets(names: list[str], folder: Path | None, config: dict, tables: list[str], keep: Path | None) -> None:
    """Tables 1 to 3: every set, every training share, over seeds."""
    errors, details, singular = [], [], []
    for name in names:
        size = experiments.sizes(name, config)
        for share in size["train"]:
            runs = []
            for seed in size["seeds"]:
                what = [name, size["n"], size["noise"], share, seed]
                runs.append(
                    kept(keep, what, lambda: experiments.experiment(name, folder, config, share, seed))  # noqa: B023
                )
            label = f"{name}, {runs[0]['train']} of {runs[0]['n']}"
            key = f"{name} {share:g}"
            worst = max(run["auto"] / run["best single"] for run in runs)
            total = sum(run["auto"] for run in runs) / sum(run["best single"] for run in runs)
            errors.append([label, summarised(runs, "auto", 2, spread=True)])
            errors[-1] += [summarised(runs, k, 2, spread=True) for k in ("intrinsic", "projected", "helmholtz")]
            errors[-1] += [summarised(runs, "channel", 2, spread=True)]
            errors[-1] += [summarised(runs, k, 2) for k in ("linear", "nearest")]
            errors[-1] += [f"{total:.3f}", f"{worst:.3f}"]
            errors[-1] += [str(config["published"][k].get(key, "-")) for k in ("independent", "ambient")]
            details.append([label, summarised(runs, "rmse", 3, spread=True)])
            details[-1] += [summarised(runs, f"{k} rmse", 3) for k in ("channel", "linear", "nearest")]
            details[-1] += [summarised(runs, k, 2) for k in ("nlpd", "channel nlpd", "constant nlpd")]
            details[-1] += [summarised(runs, k, 3, spread=k == "region") for k in ("coverage", "region")]
            details[-1] += [summarised(runs, "channel coverage", 3)]
            details[-1] += [summarised(runs, "seconds", 0), ", ".join(sorted({run["winner"] for run in runs}))]
            if any("recall" in run for run in runs):
                singular.append([label, *(summarised(runs, k, 0) for k in ("index", "euler"))])
                singular[-1] += [summarised(runs, "true", 1)]
                for recall, *false in (
                    ("recall",),
                    ("recall likely", "false likely", "false expected"),
                    ("recall reported", "false reported", "reported expected"),
                    ("recall nearest", "false nearest"),
                ):
                    singular[-1] += [summarised(runs, recall, 2, spread=recall == "recall likely")]
                    singular[-1] += [summarised(runs, k, 1) for k in false]
    seeds = splits(len(config["sets"]["seeds"]))
    first = "set, observed"
    if "sets" in tables:
        columns = [first, "auto", "intrinsic", "projected", "helmholtz", "channel GP", "local linear", "nearest"]
        show(
            f"Table 1. Angular error at all other points, degrees, {seeds}; RVGP, ambient: measured by others",
            [*columns, "auto / best single", "worst split", "RVGP", "ambient"],
            errors,
        )
        columns = [first, "RMSE", "channel GP", "linear", "nearest", "NLPD", "channel GP", "constant"]
        show(
            "Table 2. auto beside baselines (coverage of 95 % intervals: of noisy coordinates; regions: of the truth)",
            [*columns, "coverage", "regions", "channel GP", "CPU s", "kernels that weigh most"],
            details,
        )
    if "singular" in tables and singular:
        columns = [first, "sum", "Euler", "true", "of the mean: recall", "p >= .5: recall", "false", "expected"]
        columns += ["p >= .1: recall", "false", "expected", "nearest: recall", "false"]
        show(
            "Table 3. Singular points: sum of indices; share of the true ones that have one of the same sign within 3 "
            "sides, and false ones, beside the number that their probabilities make expect",
            columns,
            singular,
        )


def circular(folder: Path, config: dict, names: list[str], keep: Path | None) -> None:
    """Table 4: the published protocol, whose truth is a smoothed random field of a connection Laplacian itself."""
    rows, seeds = [], config["circular"]["seeds"]
    graphs = ("20 neighbours, Gaussian", "their graph")
    columns = [f"{kernel}, {graph}" for graph in graphs for kernel in ("auto", "intrinsic")]
    for name in names:
        for spacing in config["circular"]["spacing"].get(name, []):
            runs = []
            for seed in seeds:
                what = ["published protocol", name, spacing, seed]
                runs.append(
                    kept(keep, what, lambda: experiments.published_protocol(name, folder, spacing, seed))  # noqa: B023
                )
            rows.append([f"{name}, {spacing}: {runs[0]['train']} of {runs[0]['n']}"])
            rows[-1] += [summarised(runs, k, 2, spread=True) for k in columns]
            rows[-1] += [summarised(runs, k, 2) for k in ("channel", "linear", "nearest")]
            rows[-1] += [str(config["published"]["circular"].get(f"{name} {spacing:g}", "-"))]
    if rows:
        show(
            "Table 4. The published protocol (truth made by the connection Laplacian of 10 neighbours), degrees, "
            f"{splits(len(seeds))}; RVGP: measured by others",
            ["mesh, spacing: observed", *columns, "channel GP", "local linear", "nearest", "RVGP"],
            rows,
        )


if __name__ == "__main__":
    main()
