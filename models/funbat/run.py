"""Functional tensor decomposition of air quality: gpkit beside trivial baselines, a dense process and the paper.

python models/funbat/run.py [--quick] [--folds 0,1] [--pollutant pm25] [--modes three] [--keep FILE [--again]]

The Beijing tables are looked up in the folder that the environment variable GPKIT_REAL_DATA names, else in
../shared/data beside the repository. A simulated table takes their place where they are absent.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from gpkit.files import write_atomic
from gpkit.kernels import MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor

HERE = Path(__file__).resolve().parent
MODES = {"three": "temperature, pressure, day", "station": "temperature, pressure, day, station"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    parser.add_argument("--folds", help="comma-separated (default: of config.toml)")
    parser.add_argument("--pollutant", choices=("pm25", "pm10"))
    parser.add_argument("--modes", choices=tuple(MODES))
    parser.add_argument("--keep", metavar="FILE", help="scores that are done stay there and are not made again")
    parser.add_argument("--again", action="store_true", help="make the kept scores of gpkit again, those of peers not")
    options = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
    if options.quick:
        config.update({k: v for k, v in config["quick"].items() if k in config})
        for part in ("simulated", "tensorly"):
            config[part].update({k: v for k, v in config["quick"].items() if k in config[part]})
    folds = [int(f) for f in options.folds.split(",")] if options.folds else config["folds"]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("gpkit-bayes", "torch", "numpy", "numba"))
    versions += f", tensorly {metadata.version('tensorly') if find_spec('tensorly') else 'not installed'}"
    print(f"{versions}; threads: {os.environ.get('OMP_NUM_THREADS', 'not limited')}; CPU seconds, compilation apart")
    kept = Kept(options.keep, config, again=options.again)
    folder = real_data()
    if folder is None or options.quick:
        table = simulated(config)
        table["fold0"] = (np.arange(len(table)) % 5 == 0).astype(int)
        warm_up(table)
        for modes in [options.modes] if options.modes else list(MODES):
            compare("simulated", modes, table, [0], config, kept)
        return
    parts = pd.read_csv(folder / "folds.csv")
    for pollutant in [options.pollutant] if options.pollutant else ["pm25", "pm10"]:
        table = pd.concat([pd.read_csv(folder / f"beijing_{pollutant}.csv"), parts], axis=1)
        warm_up(table.iloc[:600])
        for modes in [options.modes] if options.modes else list(MODES):
            compare(pollutant, modes, table, folds, config, kept)


def real_data() -> Path | None:
    """The folder of the tables, or None, said on the screen."""
    root = Path(os.environ.get("GPKIT_REAL_DATA") or HERE.parents[2] / "shared" / "data")
    folder = root / "tensor"
    if folder.is_dir():
        return folder
    print("The Beijing tables are absent: a simulated one takes their place (GPKIT_REAL_DATA names their folder).")
    return None


def simulated(config: dict) -> pd.DataFrame:
    """Stations that share days: a skewed day level, weather, stations, and noise that grows with the level.

    Nothing in it is low rank or a Gaussian process of the model.
    """
    rng = np.random.default_rng(config["seed"])
    rows, days = config["simulated"]["rows"], config["simulated"]["days"]
    level = np.zeros(days)
    for day in range(1, days):
        level[day] = 0.7 * level[day - 1] + 0.5 * rng.standard_normal()
    stations = rng.normal(0.0, 0.2, 12)
    day, station = rng.integers(days, size=rows), rng.integers(12, size=rows)
    season = np.cos(2 * np.pi * day / 365.25)
    temperature = np.round(
        13.0 - 14.0 * season + 2.0 * rng.standard_normal(days)[day] + 0.7 * rng.standard_normal(rows), 1
    )
    pressure = np.round(1012.0 + 10.0 * season + 2.0 * rng.standard_normal(days)[day] + rng.standard_normal(rows), 1)
    signal = level[day] + stations[station] * (1.0 + 0.5 * season) + 0.03 * np.abs(temperature - 10.0)
    y = np.exp(0.7 * signal) * (1.0 + 0.08 * rng.standard_t(4, rows))
    names = np.array([f"station {k:02d}" for k in range(12)])
    columns = {"temperature": temperature, "pressure": pressure, "day": day.astype(float), "station": names[station]}
    return pd.DataFrame({**columns, "y": (y - y.mean()) / y.std()})


# -------------------------------------------------------------------------------------------------- trivial baselines


def day_mean(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    means = train.groupby("day").y.mean()
    return test.day.map(means).fillna(train.y.mean()).to_numpy()


def same_triple(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    """Mean of the training rows with exactly the same temperature, pressure and day, else of the day."""
    keys = ["temperature", "pressure", "day"]
    means = train.groupby(keys).y.mean().rename("triple")
    found = test[keys].join(means, on=keys).triple.to_numpy()
    return np.where(np.isnan(found), day_mean(train, test), found)


def day_and_station(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    """Least squares of two effects, by turns."""
    day, station = pd.Series(0.0, index=train.day.unique()), pd.Series(0.0, index=train.station.unique())
    for _ in range(50):
        day = (train.y - train.station.map(station)).groupby(train.day).mean()
        station = (train.y - train.day.map(day)).groupby(train.station).mean()
    return test.day.map(day).fillna(train.y.mean()).to_numpy() + test.station.map(station).fillna(0.0).to_numpy()


# ------------------------------------------------------------------------------------- completion on a coarsened grid


def tensorly_rows(train: pd.DataFrame, test: pd.DataFrame, modes: str, config: dict) -> dict[str, dict[str, float]]:
    """CP and Tucker completion of the package tensorly: continuous columns in quantile bins, a mask of seen cells."""
    if find_spec("tensorly") is None:
        return {}
    from tensorly import cp_to_tensor, tucker_to_tensor
    from tensorly.decomposition import parafac, tucker

    settings = config["tensorly"]
    coarse = settings[modes]
    edges = {name: np.quantile(train[name], np.linspace(0.0, 1.0, n + 1)[1:-1]) for name, n in coarse.items()}
    columns = {name: np.searchsorted(edge, train[name]) for name, edge in edges.items()}
    asked = {name: np.searchsorted(edge, test[name]) for name, edge in edges.items()}
    for name in ["day", "station"] if modes == "station" else ["day"]:
        levels = np.union1d(train[name], test[name])
        coarse = {**coarse, name: len(levels)}
        columns[name], asked[name] = np.searchsorted(levels, train[name]), np.searchsorted(levels, test[name])
    shape = tuple(coarse.values())
    place = np.ravel_multi_index(tuple(columns.values()), shape)
    count = np.bincount(place, minlength=int(np.prod(shape)))
    centre = train.y.mean()
    total = np.bincount(place, train.y - centre, minlength=len(count))
    seen = (count > 0).astype(float).reshape(shape)
    values = (total / np.maximum(count, 1)).reshape(shape)
    share, sizes = float(seen.mean()), " x ".join(map(str, shape))
    rank, options = config["rank"], {"init": "random", "tol": 1e-8, "random_state": config["seed"]}
    rows = {}
    for name, fit in (
        ("CP", lambda n: cp_to_tensor(parafac(values, rank, mask=seen, n_iter_max=n, **options))),
        ("Tucker", lambda n: tucker_to_tensor(tucker(values, [rank] * len(shape), mask=seen, n_iter_max=n, **options))),
    ):
        begun = time.process_time()
        filled = fit(settings["iterations"])
        found = centre + filled[tuple(asked.values())]
        rows[f"tensorly {name}, coarsened grid"] = scores(test, found, seconds=time.process_time() - begun)
    print(f"tensorly's grid: {sizes} cells, {100 * share:.2g} % seen, {settings['iterations']} iterations", flush=True)
    return rows


# ------------------------------------------------------------------------------------------------------------- models


def model_of(modes: str, config: dict, residual: str | None) -> FunctionalTensor:
    parts = [
        Continuous("temperature", MaternKernel(2.5)),
        Continuous("pressure", MaternKernel(2.5)),
        Continuous("day", MaternKernel(1.5)),
    ]
    if modes == "station":
        parts.append(Categorical("station"))
    return FunctionalTensor(
        parts,
        residual=residual,
        likelihood="gaussian" if residual is None else "student-t",
        **config["model"],
    )


def warm_up(table: pd.DataFrame) -> None:
    """Compile everything on a few rows, so that seconds are those of the work."""
    for modes in MODES:
        model = model_of(modes, {"model": {"neighbours": 10}}, "local")
        model.fit(table.iloc[:200], "y", restarts=2, sweeps=5, progress=False)
        model.predict(table.iloc[:20])


def scores(
    test: pd.DataFrame, mean: np.ndarray, law: object | None = None, seconds: float | None = None
) -> dict[str, float]:
    y = test.y.to_numpy()
    out = {"RMSE": float(np.sqrt(np.mean((y - mean) ** 2))), "MAE": float(np.mean(np.abs(y - mean)))}
    if law is not None:
        out["NLL"] = -float(law.log_density(y).mean())
        for p in (0.9, 0.5):
            low, high = law.interval(p)
            out[f"{100 * p:.0f} %"] = float(np.mean((y >= low) & (y <= high)))
    if seconds is not None:
        out["CPU s"] = seconds
    return out


class Kept:
    """Scores of finished models on every fold, in a file, for the same settings."""

    def __init__(self, path: str | None, config: dict, *, again: bool) -> None:
        self.path = None if path is None else Path(path)
        self.settings = {k: config[k] for k in ("seed", "rank", "model", "fit", "tensorly")}
        self.folds: dict[str, dict[str, dict[str, float]]] = {}
        self.again = again
        self.made: set[tuple[str, str]] = set()
        if self.path is not None and self.path.exists():
            before = json.loads(self.path.read_text(encoding="utf-8"))
            if before["settings"] == self.settings:
                self.folds = before["folds"]

    def missing(self, fold: str, label: str) -> bool:
        """Whether a model has to be run on a fold."""
        stale = self.again and "gpkit" in label and (fold, label) not in self.made
        return stale or label not in self.folds.get(fold, {})

    def add(self, fold: str, rows: dict[str, dict[str, float]]) -> None:
        """Scores of models on a fold; they are in the file when this returns."""
        self.folds.setdefault(fold, {}).update(rows)
        self.made |= {(fold, label) for label in rows}
        if self.path is not None:
            write_atomic(self.path, json.dumps({"settings": self.settings, "folds": self.folds}, indent=1))


PEERS = ("tensorly CP, coarsened grid", "tensorly Tucker, coarsened grid")
OURS = {"gpkit, low rank alone": None, "**gpkit**": "local"}


def one_fold(
    fold: str, train: pd.DataFrame, test: pd.DataFrame, modes: str, config: dict, kept: Kept
) -> dict[str, dict[str, float]]:
    """Scores of every model by name; those of gpkit hold errors of rows with and without their triple in training."""
    rows = {
        "day mean": scores(test, day_mean(train, test)),
        "mean of the same triple, else day mean": scores(test, same_triple(train, test)),
    }
    if modes == "station":
        rows["day + station, least squares"] = scores(test, day_and_station(train, test))
    if any(kept.missing(fold, label) for label in PEERS):
        kept.add(fold, tensorly_rows(train, test, modes, config))
    keys = ["temperature", "pressure", "day"]
    seen = test[keys].apply(tuple, axis=1).isin(set(train[keys].apply(tuple, axis=1))).to_numpy()
    for label, residual in OURS.items():
        if not kept.missing(fold, label):
            continue
        begun = time.process_time()
        model = model_of(modes, config, residual)
        model.fit(train, "y", seed=config["seed"], progress=False, **config["fit"])
        law = model.predict(test)
        row = scores(test, law.mean, law, time.process_time() - begun)
        square = (test.y - law.mean).to_numpy() ** 2
        row |= {
            name: float(np.sqrt(square[part].mean())) for name, part in (("seen", seen), ("new", ~seen)) if part.any()
        }
        kept.add(fold, {label: row})
    have = kept.folds.get(fold, {})
    return rows | {label: have[label] for label in (*PEERS, *OURS) if label in have}


def compare(name: str, modes: str, table: pd.DataFrame, folds: list[int], config: dict, kept: Kept) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    for fold in folds:
        held = table[f"fold{fold}"] == 1
        rows = one_fold(f"{name}, {modes}, fold {fold}", table[~held], table[held], modes, config, kept)
        for label, row in rows.items():
            found.setdefault(label, []).append(row)
    first_only = folds[0] == 0
    columns = ["RMSE", "MAE", "NLL", "90 %", "50 %", "CPU s"]
    rows: list[list[str]] = []
    for label, per_fold in found.items():
        rows.append(
            [label, *(f"{per_fold[0][c]:.{2 if c == 'CPU s' else 4}f}" if c in per_fold[0] else "-" for c in columns)]
        )
    if first_only and name in config["published"]:
        rows += published(config["published"][name], modes)
    title = f"{name}, {MODES[modes]}: fold {folds[0]}" if name != "simulated" else f"Simulated table, {MODES[modes]}"
    show(title, ["model", *columns], rows)
    if len(folds) > 1:
        rows = []
        for label, per_fold in found.items():
            cells = []
            for c in columns:
                values = np.array([one[c] for one in per_fold if c in one])
                cells.append(f"{values.mean():.4f} ± {values.std():.4f}" if len(values) else "-")
            rows.append([label, *cells])
        show(f"{name}, {MODES[modes]}: mean and spread over folds {folds}", ["model", *columns], rows)
    split = np.array([[row["seen"], row["new"]] for row in found["**gpkit**"] if {"seen", "new"} <= row.keys()])
    if len(split):
        print(f"gpkit, RMSE of test rows with / without their triple in training: {split.mean(0).round(4)}", flush=True)
    if first_only and name in config["asked"]:
        verdicts(found["**gpkit**"][0], config["asked"], config["asked"][name][modes])


def published(numbers: dict, modes: str) -> list[list[str]]:
    rmse, nll, nine, half = numbers[f"dense_{modes}"]
    rows = [
        ["dense process, 27-36 s on two threads", f"{rmse:.4f}", "-", f"{nll:.4f}", f"{nine:.4f}", f"{half:.4f}", "-"]
    ]
    if modes == "three":
        rows.append(["paper's public code, rank 3", f"{numbers['paper_code']:.4f}", "-", "-", "-", "-", "-"])
        rows.append(["paper, own splits", f"{numbers['paper']:.3f}", "-", "-", "-", "-", "-"])
    return rows


def verdicts(ours: dict[str, float], asked: dict, limits: dict[str, float]) -> None:
    rows = [
        ["RMSE", f"<= {limits['rmse']}", f"{ours['RMSE']:.4f}", ours["RMSE"] <= limits["rmse"]],
        ["NLL", f"<= {limits['nll']}", f"{ours['NLL']:.4f}", ours["NLL"] <= limits["nll"]],
    ]
    for p in ("90", "50"):
        low, high = asked[f"coverage_{p}"]
        value = ours[f"{p} %"]
        rows.append([f"coverage of {p} % intervals", f"{low} to {high}", f"{value:.3f}", low <= value <= high])
    show(
        "Asked on fold 0, and reached",
        ["what", "asked", "reached", "verdict"],
        [[*r[:3], "reached" if r[3] else "MISSED"] for r in rows],
    )


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [columns, *rows]) for k in range(len(columns))]
    lines = [
        [c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        for row in [columns, *rows]
    ]
    rule = ["-" * w if k == 0 else "-" * (w - 1) + ":" for k, w in enumerate(widths)]
    print(f"\n{title}\n")
    for row in (lines[0], rule, *lines[1:]):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


if __name__ == "__main__":
    main()
