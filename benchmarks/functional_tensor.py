"""Functional tensor decomposition: sweeps, complete fits, growth with the number of entries, calibration.

OMP_NUM_THREADS=1 python benchmarks/functional_tensor.py [--smoke] [--only sweeps,fits,growth] [--json FILE]
    OMP_NUM_THREADS=1 python benchmarks/functional_tensor.py --only large

CPU seconds of one thread, compilation apart. Tables are synthetic: a rank-3 (or 5) Tucker tensor of smooth functions
over 2000 coordinates per mode, noise of a fifth of the signal. The peer of the statistics is the way a tensor library
would do it: gathered rows, outer products, and torch's index_add.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import Row, duration, header, markdown, markdown_header, slope, summary, timings, write_json

from gpkit.inference.structured_vb import GaussianNoise, Layout, LowRankPosterior, MarkovFactor, component_layout
from gpkit.kernels import MaternKernel
from gpkit.models import Continuous, FunctionalTensor

PARTS = ("sweeps", "fits", "growth")
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
    sizes = [(13_572, 800, 2.0), (1_000_000, 2000, 20.0)]
    return complete(sizes[:1] if smoke else sizes)


def large(smoke: bool) -> list[Row]:
    rows = complete([(20_000, 200, 180.0) if smoke else (10_000_000, 2000, 180.0)])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [*rows, Row("Complete fits", "peak of memory, data included", memory, 2.0, unit="GiB", upper=True)]


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
    sizes = [2000, 20_000] if smoke else [100_000, 1_000_000]
    seconds = []
    for entries in sizes:
        x, y, _ = tensor(entries, 3, 200 if smoke else 2000)
        posterior, layout = posterior_of(x, y, 3)
        statistics = timings({"one": lambda p=posterior, q=layout: p.form.statistics(0, q.groupings[0])}, rounds=2)
        seconds.append(statistics["one"])
    return [
        Row(
            "Growth",
            f"statistics, exponent of entries from {sizes[0]:.0e} to {sizes[-1]:.0e}",
            slope(sizes, seconds),
            unit="",
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for a test")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated parts")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = [part for part in wanted if part not in PARTS + ALONE]
    if unknown:
        parser.error(f"no such part: {unknown[0]}; choose from {', '.join(PARTS + ALONE)}")
    torch.set_num_threads(1)
    facts = header()
    print(markdown_header(facts), "\n")
    rows: list[Row] = []
    for part in wanted:
        found = {"sweeps": sweeps, "fits": fits, "growth": growth, "large": large}[part](options.smoke)
        rows += found
        print(markdown(found, found[0].section), "\n", flush=True)
    print(summary(rows))
    if options.json:
        write_json(options.json, facts, rows)


if __name__ == "__main__":
    main()
