"""gpkit beside its public peers: the table of what was asked for and what was reached.

    python benchmarks/light_curves.py [--sizes 1000,10000,100000,1000000] [--quick] [--json FILE] [--only PART,...]

Everything runs in one process on one thread; peer and gpkit take turns, and the least CPU time per call over several
rounds counts, so that the ratios hold on a busy machine too. Peers that are not installed are said to be so
(``pip install "gpkit-bayes[bench]"`` installs them).
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_ENABLE_X64"] = "True"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import sys
import time
import warnings
from dataclasses import dataclass, replace

import _accuracy
import _fleet
import _measure
import _peers
import _samplers
import _startup
import _training
import numpy as np
import torch
from _measure import Row, duration, timings

from gpkit.recursions import series

EVIDENCE = "Value + gradient, recursion level"
KERNELS = {
    "SHO": (_peers.SHO, (3.0, 5.0), (8.0, 12.0)),
    "Matern-3/2": (_peers.MATERN32, (3.0, 5.0), (6.0, None)),
    "DRW": (_peers.DRW, (3.0, 5.0), (7.0, None)),
}
VALUE = "Our value + gradient against celerite2's value alone"
SUMS = "Sums of oscillators, value + gradient, everything included"
POSTERIOR = "Posterior mean + variance at M = N new points"
CHAINS = "64 chains in one call, N = 500"


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    sum_sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    posterior: tuple[int, int] = (1_000, 100_000)
    training: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    dense: int = 500
    accuracy: int = 1_000
    rounds: int = 9
    sampling: tuple[int, int, int, int] = (1_000, 500, 2_000, 3)
    starts: int = 5
    fleet: int | None = None
    structures: int | None = None
    judged: bool = True


QUICK = Scale(rounds=3, sampling=(1_000, 500, 500, 1), starts=3, structures=2)
SMOKE = Scale((60,), (60,), (50, 80), (60, 90), 40, 60, 1, (20, 20, 40, 1), 1, 3, 1, judged=False)


def _against(section, what, ours, peer, asked, stretch):
    if peer is None:
        return Row(section, what, None, asked, stretch, ours=duration(ours))
    return Row(section, what, peer / ours, asked, stretch, duration(ours), duration(peer))


def evidence(scale):
    """SHO, Matern-3/2 and DRW: from (t, y, R) to every derivative; and against celerite2's value alone."""
    out, values = [], []
    for name, (structure, cpp, jax) in KERNELS.items():
        params = _peers.PARAMETERS[structure]
        for n in scale.sizes:
            t, y, r = _peers.simulate(n)
            functions = {"ours": lambda s=structure, a=(params, t, y, r): series.evidence(s, *a)}
            pair = _peers.celerite(structure, params, t, y, r)
            if pair is not None:
                functions["value"], functions["c++"] = pair
            compiled = _peers.celerite_jax(structure, params, t, y, r)
            if compiled is not None:
                functions["jax"] = compiled
            best = timings(functions, scale.rounds)
            asked = n >= 10_000
            for peer, key, (least, stretch) in (("C++ backprop", "c++", cpp), ("jax", "jax", jax)):
                limits = (least, stretch) if asked else (None, None)
                label = f"{name}, N = {n:,}, celerite2 {peer}"
                out.append(_against(EVIDENCE, label, best["ours"], best.get(key), *limits))
            values.append(_against(VALUE, f"{name}, N = {n:,}", best["ours"], best.get("value"), 1.0, None))
    return out + values


def sums(scale):
    """J = 4 and J = 8."""
    out = []
    for count, least, stretch in ((2, 1.2, 2.0), (4, 2.0, 3.0)):
        structure, params = _peers.oscillators(count)
        for n in scale.sum_sizes:
            t, y, r = _peers.simulate(n)
            functions = {"ours": lambda s=structure, a=(params, t, y, r): series.evidence(s, *a)}
            pair = _peers.celerite(structure, params, t, y, r)
            if pair is not None:
                functions["c++"] = pair[1]
            peers = [("celerite2 C++ backprop", "c++", least, stretch)]
            if n <= 10_000:
                for label, make in (("celerite2 jax", _peers.celerite_jax), ("tinygp", _peers.tinygp)):
                    compiled = make(structure, params, t, y, r)
                    if compiled is not None:
                        functions[label] = compiled
                    peers.append((label, label, None, None))
            best = timings(functions, scale.rounds)
            for label, key, *limits in peers:
                what = f"J = {2 * count}, N = {n:,}, {label}"
                out.append(_against(SUMS, what, best["ours"], best.get(key), *limits))
    return out


def posterior(scale):
    """Mean and variance at as many new points as there are data."""
    small, large = scale.posterior
    params = _peers.PARAMETERS[_peers.SHO]

    def problem(n):
        t, y, r = _peers.simulate(n)
        return t, y, r, np.sort(np.random.default_rng(2).uniform(0.0, n / 5, n))

    one, two = problem(small), problem(large)
    functions = {
        "small": lambda: series.posterior(_peers.SHO, params, *one),
        "large": lambda: series.posterior(_peers.SHO, params, *two),
    }
    peer = _peers.celerite_prediction(_peers.SHO, params, *one)
    if peer is not None:
        functions["peer"] = peer
    best = timings(functions, scale.rounds)
    out = [_against(POSTERIOR, f"SHO, N = {small:,}, celerite2 predict", best["small"], best.get("peer"), 500.0, None)]
    seconds = best["large"]
    what = f"SHO, N = {large:,}"
    out.append(Row(POSTERIOR, what, 1e3 * seconds, 10.0, ours=duration(seconds), unit="ms", upper=True))
    return out


def chains(scale):
    """Joint value and gradient of 64 parameter vectors against 64 calls with one."""
    n = min(500, scale.sizes[0])
    t, y, r = _peers.simulate(n)
    rng = np.random.default_rng(3)
    out = []
    for name, (structure, *_) in KERNELS.items():
        params = _peers.PARAMETERS[structure] * np.exp(0.2 * rng.normal(size=(64, _peers.PARAMETERS[structure].size)))
        noise = r + rng.uniform(0.0, 0.01, (64, 1))

        def single(s=structure, p=params, noise=noise):
            for k in range(64):
                series.evidence(s, p[k], t, y, noise[k])

        def joint(s=structure, p=params, noise=noise):
            return series.evidence(s, p, t, y, noise)

        best = timings({"joint": joint, "single": single}, scale.rounds)
        value = best["joint"] / best["single"]
        peer = f"{duration(best['single'])} in 64 calls"
        out.append(Row(CHAINS, name, value, 1.3, 0.5, duration(best["joint"]), peer, upper=True))
    return out


def training(scale):
    """ExactGP with ExactMarginalLogLikelihood."""
    return _training.rows(scale.training, scale.dense, scale.rounds)


def accuracy(scale):
    """Against dense float64."""
    return _accuracy.rows(scale.accuracy)


def sampling(scale):
    """NUTS and its peers."""
    draws, tune, steps, repeats = scale.sampling
    return _samplers.rows(draws, tune, steps, repeats)


def startup(scale):
    """Imports and compilation."""
    chosen = dict(list(_startup.STRUCTURES.items())[: scale.structures])
    return _startup.rows(scale.starts, chosen)


def fleet(scale):
    """207 damped random walks."""
    return _fleet.rows(scale.fleet, min(scale.rounds, 3))


# Training first: Python code that runs between calls is a quarter slower in a process that holds JAX and its programs.
PARTS = {
    "training": training,
    "evidence": evidence,
    "sums": sums,
    "posterior": posterior,
    "accuracy": accuracy,
    "sampling": sampling,
    "chains": chains,
    "startup": startup,
    "fleet": fleet,
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", help="numbers of points of the recursion rows, such as 1000,10000")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and seeds; a few minutes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only that everything runs")
    parser.add_argument("--only", help=f"comma-separated parts: {', '.join(PARTS)}")
    parser.add_argument("--json", metavar="FILE", help="also write the rows here")
    options = parser.parse_args(arguments)
    scale = SMOKE if options.smoke else QUICK if options.quick else Scale()
    if options.sizes:
        sizes = tuple(int(size) for size in options.sizes.split(","))
        scale = Scale(**{**scale.__dict__, "sizes": sizes})
    parts = options.only.split(",") if options.only else list(PARTS)
    unknown = set(parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return scale, parts, options.json


def main(arguments=None):
    scale, parts, target = parse(arguments)
    warnings.simplefilter("ignore")  # of peers about their own dependencies
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    facts = _measure.header()
    print(_measure.markdown_header(facts), flush=True)
    rows = []
    for part in parts:
        begun = time.perf_counter()
        found = PARTS[part](scale)
        if not scale.judged:
            found = [replace(row, asked=None, stretch=None) for row in found]
        rows += found
        for section in dict.fromkeys(row.section for row in found):
            print("\n" + _measure.markdown([row for row in found if row.section == section], section), flush=True)
        print(f"{part}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print("\n" + _measure.summary(rows) + ".")
    if target:
        _measure.write_json(target, facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
