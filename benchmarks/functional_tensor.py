"""Functional tensor decomposition: sweeps, complete fits, simulated tables of known rank, growth, memory.

OMP_NUM_THREADS=1 python benchmarks/functional_tensor.py [--smoke] [--only sweeps,fits,real,simulated,ranks,gaps,growth]
    OMP_NUM_THREADS=1 python benchmarks/functional_tensor.py --only large

CPU seconds of one thread, compilation apart. Tables are synthetic: a rank-3 (or 5) Tucker tensor of smooth functions
over 2000 coordinates per mode, noise of a fifth of the signal. The real table is that of models/funbat/, in the folder
that GPKIT_REAL_DATA names, else in ../shared/data beside the repository. The peer of the statistics is the way a tensor
library would do it: gathered rows, outer products, and torch's index_add.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _command import run_parts
from _measure import Row, duration, slope, timings
from _tensor_gaps import gaps
from _tensor_tables import ranked_table

from gpkit.inference.structured_vb import GaussianNoise, Layout, LowRankPosterior, MarkovFactor, component_layout
from gpkit.kernels import MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor

ALONE = ("large",)  # in a process of its own, so that the peak of memory is its own


def tensor(entries: int, rank: int, coordinates: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (N, 3), noisy values and noise-free values (N,)."""
    rng = np.random.default_rng(seed)
    grid = np.sort(rng.uniform(0.0, 10.0, (3, coordinates)), axis=1)
    index = rng.integers(0, coordinates, (3, entries))
    phases = rng.uniform(0.0, 6.3, (3, rank))
    factors = [np.cos(grid[k][:, None] * (0.4 + 0.5 * np.arange(rank)) + phases[k]) for k in range(3)]
    core = rng.standard_normal((rank, rank, rank))
    f = np.zeros(entries)
    for begin in range(0, entries, 500_000):  # so that the peak of memory is that of the fit
        part = slice(begin, begin + 500_000)
        u, v, w = (factors[k][index[k, part]] for k in range(3))
        f[part] = np.einsum("na,nb,nc,abc->n", u, v, w, core, optimize=True)
    y = f + 0.2 * f.std() * rng.standard_normal(entries)
    return np.stack([grid[k][index[k]] for k in range(3)], 1), y, f


def posterior_of(x: np.ndarray, y: np.ndarray, rank: int) -> tuple[LowRankPosterior, Layout]:
    found = [np.unique(x[:, k], return_inverse=True) for k in range(3)]
    components = component_layout("tucker", [rank] * 3, False)
    factors = [MarkovFactor(MaternKernel(1.5), grid, rank) for grid, _ in found]
    observation = GaussianNoise()
    posterior = LowRankPosterior(factors, components, "tucker", observation)
    index = [inverse.reshape(-1).astype(np.int32) for _, inverse in found]
    return posterior, Layout(index, [len(grid) for grid, _ in found], (y - y.mean()) / y.std())


def library_statistics(posterior: LowRankPosterior, layout: Layout) -> None:
    """The first mode's statistics with torch: gather, outer products, index_add."""
    one, two = (torch.from_numpy(mode.table) for mode in posterior.modes[1:])
    rank = posterior.modes[0].rank
    left, right = one[torch.from_numpy(layout.index[1]).long()], two[torch.from_numpy(layout.index[2]).long()]
    outer = (left[:, rank:, None] * right[:, None, rank:]).reshape(len(left), -1)
    target = torch.zeros(posterior.modes[0].factor.size, outer.shape[1], dtype=torch.float64)
    target.index_add_(0, torch.from_numpy(layout.index[0]).long(), outer)


def sweeps(smoke: bool) -> list[Row]:
    rows = []
    entries, coordinates = (20_000, 200) if smoke else (1_000_000, 2000)
    for rank, asked in ((3, 5e6), (5, 2e6)):
        x, y, _ = tensor(entries, rank, coordinates)
        posterior, layout = posterior_of(x, y, rank)
        times = []
        for _ in range(5 if smoke else 7):  # length scales are learned from the fourth sweep on
            begun = time.process_time()
            posterior.sweep(layout)
            times.append(time.process_time() - begun)
        speed = entries / min(times[1:])
        rows.append(
            Row(
                "Sweeps",
                f"Tucker rank {rank}, {entries:.0e} entries, entries a second",
                speed / 1e6,
                asked / 1e6,
                ours=f"{duration(min(times[1:]))}, with learning {duration(times[-1])}",
                unit="million/s",
            )
        )
        best = timings(
            {
                "ours": lambda p=posterior, q=layout: p.form.statistics(0, q.groupings[0]),
                "torch": lambda p=posterior, q=layout: library_statistics(p, q),
            },
            rounds=2,
        )
        rows.append(
            Row(
                "Sweeps",
                f"statistics of one mode, rank {rank}, against torch index_add",
                best["torch"] / best["ours"],
                ours=duration(best["ours"]),
                peer=duration(best["torch"]),
            )
        )
    return rows


def one_fit(entries: int, coordinates: int, sweep_limit: int) -> tuple[float, FunctionalTensor, np.ndarray, np.ndarray]:
    x, y, f = tensor(entries, 3, coordinates)
    model = FunctionalTensor([Continuous(name, MaternKernel(1.5)) for name in "abc"], rank=3, main_effects=False)
    begun = time.process_time()
    model.fit(x, y, restarts=1, sweeps=sweep_limit, tolerance=1e-4, progress=False)
    return time.process_time() - begun, model, x, f


def fits(smoke: bool) -> list[Row]:
    sizes = [(13_572, 1461, 2.0), (1_000_000, 2000, 20.0)]
    return complete(sizes[:1] if smoke else sizes)


def large(smoke: bool) -> list[Row]:
    rows = complete([(20_000, 200, 180.0) if smoke else (10_000_000, 2000, 180.0)])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return [*rows, Row("Complete fits", "peak of memory, data included", memory, 2.0, unit="GB", upper=True)]


def complete(sizes: list[tuple[int, int, float]]) -> list[Row]:
    one_fit(2000, 100, 12)  # compiles
    rows = []
    for entries, coordinates, asked in sizes:
        seconds, model, x, f = one_fit(entries, coordinates, 40 if entries < 1e6 else 20)
        rows.append(
            Row(
                "Complete fits",
                f"{entries:.3g} entries, one start, to 1e-4 per entry",
                seconds,
                asked,
                ours=f"{len(model.fitted.traces[0])} sweeps",
                unit="s",
                upper=True,
            )
        )
        part = slice(0, 20_000)
        law = model.predict(x[part])
        error = np.sqrt(np.mean((law.mean - f[part]) ** 2)) / f.std()
        noise = model.fitted.parameters["noise_variance"] / (0.2 * f.std()) ** 2
        rows.append(Row("Complete fits", f"{entries:.3g} entries, noise-free error over signal", float(error), unit=""))
        rows.append(
            Row("Complete fits", f"{entries:.3g} entries, noise off by", abs(noise - 1.0), 0.02, unit="", upper=True)
        )
    return rows


def growth(smoke: bool) -> list[Row]:
    """A whole fit, reading and grouping of the table included, with the same number of sweeps for every size.

    What filters and searches over length scales cost depends on the coordinates alone, of which there are as many in
    every table. A fit to as many entries as there are coordinates shows how much that is.
    """
    coordinates = 200 if smoke else 2000
    sizes = [20_000, 80_000] if smoke else [100_000, 300_000, 1_000_000, 10_000_000]
    one_fit(2000, 100, 12)  # compiles

    def ten_sweeps(entries: int) -> float:
        x, y, _ = tensor(entries, 3, coordinates)
        model = FunctionalTensor([Continuous(name, MaternKernel(1.5)) for name in "abc"], rank=3, main_effects=False)
        begun = time.process_time()
        model.fit(x, y, restarts=1, sweeps=10, tolerance=0.0, progress=False)
        return time.process_time() - begun

    fixed = min(ten_sweeps(3 * coordinates) for _ in range(3))
    seconds = [min(ten_sweeps(entries) for _ in range(3 if entries < 1e6 else 1)) for entries in sizes]
    told = ", ".join(f"{entries:.0e}: {duration(taken)}" for entries, taken in zip(sizes, seconds, strict=True))
    above = [max(taken - fixed, 1e-6) for taken in seconds]  # small tables can cost less than what is taken off
    exponent, rest = slope(sizes, seconds), slope(sizes, above)
    apart = f"{3 * coordinates} entries: {duration(fixed)}"
    rows = [
        Row("Growth", "whole fit of ten sweeps, exponent of entries", exponent, 1.1, ours=told, unit="", upper=True),
        Row("Growth", "the same, at least", exponent, 0.9, unit=""),
        Row("Growth", "without the cost of the coordinates", rest, 1.1, ours=apart, unit="", upper=True),
        Row("Growth", "the same, at least", rest, 0.9, unit=""),
    ]
    if len(sizes) > 2:
        rows.append(Row("Growth", f"whole fit from {sizes[1]:.0e} on", slope(sizes[1:], seconds[1:]), unit=""))
    return rows


def real(smoke: bool) -> list[Row]:
    """The table of air quality, fold 0, with the default arguments, with a local residual and without."""
    folder = (
        Path(os.environ.get("GPKIT_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data") / "tensor"
    )
    if not folder.is_dir():
        return [Row("Complete fits, real table", "the table is absent (GPKIT_REAL_DATA names its folder)", None)]
    table = pd.concat([pd.read_csv(folder / name) for name in ("beijing_pm25.csv", "folds.csv")], axis=1)
    held = table.fold0 == 1
    train, test = table[~held], table[held]
    modes = [
        Continuous("temperature", MaternKernel(2.5)),
        Continuous("pressure", MaternKernel(2.5)),
        Continuous("day", MaternKernel(1.5)),
    ]
    rows = []
    for name, own in (("three modes", modes), ("with station", [*modes, Categorical("station")])):
        for residual in (None, "local"):

            def fit(part: pd.DataFrame, own=own, residual=residual, **options: int) -> FunctionalTensor:
                likelihood = "student-t" if residual else "gaussian"
                model = FunctionalTensor(own, residual=residual, likelihood=likelihood)
                model.fit(part, "y", progress=False, **options)
                return model

            begun = time.process_time()
            fit(train[:300], sweeps=4)
            compiled = time.process_time() - begun
            part = train[:2000] if smoke else train
            taken = []
            for _ in range(1 if smoke else 3):  # the least: other work on the machine only adds
                begun = time.process_time()
                model = fit(part, **({"sweeps": 5} if smoke else {}))
                taken.append(time.process_time() - begun)
            seconds = min(taken)
            error = np.sqrt(np.mean((model.predict(test).mean - test.y) ** 2))
            what = f"{len(part)} rows, {name}, {'low rank and local residual' if residual else 'low rank'}, four starts"
            told = f"RMSE {error:.4f}; {compiled:.1f} s before it for a first small fit"
            rows.append(Row("Complete fits, real table", what, seconds, 2.0, ours=told, unit="s", upper=True))
    return rows


def simulated(smoke: bool) -> list[Row]:
    """Tables that no operator of the model made: rank by the bound, noise, coverage of new rows."""
    seeds, entries = (1, 3000) if smoke else (6, 20_000)
    found: dict[int, list[tuple[bool, bool, float, float, float]]] = {}
    for rank in (2, 3):
        for seed in range(seeds):
            x, y, f = tensor(entries + 4000, rank, 200, seed)
            model = FunctionalTensor(
                [Continuous(name, MaternKernel(2.5)) for name in "abc"], rank="auto", main_effects=False
            )
            model.fit(x[:entries], y[:entries], restarts=4, combine="best", seed=seed, progress=False)
            drawn = float(np.mean((y[:entries] - f[:entries]) ** 2))
            noise = model.fitted.parameters["noise_variance"] / drawn - 1.0
            law = model.predict(x[entries:])
            low, high = law.interval(0.9)
            covered = float(np.mean((y[entries:] >= low) & (y[entries:] <= high)))
            error = float(np.sqrt(np.mean((law.mean - f[entries:]) ** 2)) / f.std())
            carried = set(model.effective_rank.values()) == {rank}
            found.setdefault(rank, []).append((carried, model.fitted.ranks == (rank,) * 3, noise, covered, error))
    rows = []
    for rank, each in found.items():
        carried, chosen, noise, covered, error = (np.array(column, float) for column in zip(*each, strict=True))
        name = f"rank {rank}, {entries} entries, {len(each)} seeds"
        told = f"{covered.min():.3f} to {covered.max():.3f}"
        rows += [
            Row(
                "Simulated tables",
                f"{name}: share with the right effective rank",
                float(carried.mean()),
                1.0,
                ours=f"rank='auto'; the bound itself chose it in {chosen.mean():.2f}, else more",
                unit="",
            ),
            Row(
                "Simulated tables",
                f"{name}: noise variance off by, mean",
                float(np.abs(noise).mean()),
                0.02,
                ours=f"at most {np.abs(noise).max():.4f}",
                unit="",
                upper=True,
            ),
            Row("Simulated tables", f"{name}: coverage of 90 %", float(covered.mean()), 0.88, ours=told, unit=""),
            Row("Simulated tables", f"{name}: the same, at most", float(covered.mean()), 0.92, unit="", upper=True),
            Row("Simulated tables", f"{name}: noise-free error over signal, mean", float(error.mean()), unit=""),
        ]
    return rows


def ranks(smoke: bool) -> list[Row]:
    """Ranks that differ between modes, found by the bound, beside the effective ranks of the same fits."""
    cases = 3 if smoke else 30
    chosen, effective = 0, 0
    begun = time.process_time()
    for case in range(cases):
        table = ranked_table(case)
        modes = [Continuous(name) for name in "abc"[: table.x.shape[1]]]
        model = FunctionalTensor(modes, rank="auto", form=table.form, main_effects=False)
        fit = model.fit(table.x, table.y, restarts=2, combine="best", seed=case, progress=False)
        bonds = table.form == "tensor-train"
        carried = tuple(rank for name, rank in model.effective_rank.items() if ("|" in name) == bonds)
        chosen, effective = chosen + (fit.ranks == table.ranks), effective + (carried == table.ranks)
    told = f"{chosen} of {cases}, {duration((time.process_time() - begun) / cases)} each"
    name = f"{cases} tables of three forms, ranks 1 to 4"
    return [
        Row("Ranks", f"{name}: share with every rank as drawn", chosen / cases, 0.9, ours=told, unit=""),
        Row("Ranks", f"{name}: the same for effective ranks", effective / cases, unit=""),
    ]


MEASURES = {
    "sweeps": sweeps,
    "fits": fits,
    "real": real,
    "simulated": simulated,
    "ranks": ranks,
    "gaps": gaps,
    "growth": growth,
    "large": large,
}


if __name__ == "__main__":
    run_parts(__doc__.splitlines()[0], MEASURES, ALONE)
