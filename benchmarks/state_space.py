"""The state-space engine beside its peers: time per node of filter and smoother, gradients, likelihoods, growth with N.

    python benchmarks/state_space.py [--nodes 2000] [--quick] [--json FILE]

Everything runs in one process on one thread; peers and gpkit take turns, and the least CPU time over several rounds
counts. All answers are compared with those of a textbook loop in numpy before they are timed. dynamax, which brings
many packages with it, is not part of the ``bench`` extra; it is measured where it is installed.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_ENABLE_X64"] = "True"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
from dataclasses import dataclass
from typing import Any

import _measure
import _state_space_peers as peers
import numpy as np
import torch
from _measure import Row, duration, timings

from gpkit.inference import state_space
from gpkit.kernels import MaternKernel

_measure.PACKAGES |= {"statsmodels": "statsmodels", "dynamax": "dynamax"}

CASES = {"3": (3, 0.5, 0.5), "6": (3, 1.5, 1.4), "15": (5, 2.5, 5.0)}
"""By dimension of the state: functions, smoothness, and the microseconds per node that were asked for."""
NODE = "Filter and smoother, per node"
GRADIENT = "Gradient of the evidence, of everything (kernel, coordinates, sites)"
GROWTH = "Growth with the number of nodes"
LIKELIHOODS = "Posteriors under other likelihoods (variational, to convergence)"


@dataclass
class Problem:
    """R functions that share a kernel, at n nodes with full-rank sites."""

    functions: int
    kernel: Any
    x: np.ndarray
    precision: np.ndarray
    information: np.ndarray

    def __post_init__(self) -> None:
        paths = state_space.markov_paths(self.kernel, torch.from_numpy(self.x), self.functions)
        self.block = paths.block
        self.blocks = paths.transitions[:, 0].detach().numpy()
        self.prior = paths.covariance[0, 0].detach().numpy()

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.x), torch.from_numpy(self.precision), torch.from_numpy(self.information)


def problem(functions: int, nu: float, n: int, seed: int = 1) -> Problem:
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0.0, n / 20.0, n))
    root = rng.normal(size=(n, functions, functions))
    precision = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(functions)
    return Problem(functions, MaternKernel(nu, lengthscale=1.5), x, precision, rng.normal(size=(n, functions)))


def recursion(case: Problem) -> Any:
    """The compiled passes as the engine runs them, transitions at hand."""
    from gpkit.inference.state_space import sequential

    with torch.no_grad():
        paths = state_space.markov_paths(case.kernel, torch.from_numpy(case.x), case.functions)
        sites = (torch.from_numpy(case.precision), torch.from_numpy(case.information))
        arrays = sequential._arrays((paths.transitions, paths.covariance[..., 0]), sites, torch.Size())
        layout = sequential._layout(paths)
    return lambda: sequential._smooth(layout, arrays, 1, False, False)


def call(case: Problem, backend: str = "sequential") -> Any:
    x, precision, information = case.tensors()

    def run() -> Any:
        with torch.no_grad():
            return state_space.smooth(case.kernel, x, precision, information, backend=backend)

    return run


def prepared(case: Problem) -> Any:
    x, precision, information = case.tensors()
    with torch.no_grad():
        paths = state_space.markov_paths(case.kernel, x, case.functions)

    def run() -> Any:
        with torch.no_grad():
            return state_space.smooth(paths, x, precision, information)

    return run


def gradient(case: Problem, backend: str = "sequential") -> Any:
    x, precision, information = (t.requires_grad_() for t in case.tensors())
    wanted = [*case.kernel.parameters(), x, precision, information] if backend == "sequential" else [precision]

    def run() -> Any:
        value = state_space.smooth(case.kernel, x, precision, information, backend=backend).log_evidence
        return torch.autograd.grad(value, wanted)

    return run


def compare(case: Problem, functions: dict[str, Any]) -> None:
    """All answers agree with the textbook's; the evidence up to the sites' own normalisation."""
    value, mean, covariance = functions["numpy"]()
    noise = np.linalg.inv(case.precision)
    y = (noise @ case.information[..., None])[..., 0]
    constant = 0.5 * (case.information * y).sum() + 0.5 * np.linalg.slogdet(2.0 * np.pi * noise)[1].sum()
    for name, function in functions.items():
        out = function()
        if name in ("statsmodels", "dynamax", "numpy"):
            found = out
        elif name == "recursion":
            found = (out.evidence[0] - constant, out.means[0], out.covariances[0])
        else:
            found = (out.log_evidence.item() - constant, out.mean.numpy(), out.covariance.numpy())
        # dynamax adds 1e-9 to diagonals.
        close = 1e-4 if name == "dynamax" else 1e-6
        for ours, theirs in zip(found, (value, mean, covariance), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=close, atol=close, err_msg=name)


def nodes(n: int, rounds: int) -> list[Row]:
    rows = []
    for dimension, (functions, nu, asked) in CASES.items():
        case = problem(functions, nu, n)
        runs = {
            "recursion": recursion(case),
            "call": call(case),
            "prepared": prepared(case),
            "scan": call(case, "scan"),
            "numpy": peers.numpy_loop(case),
            "statsmodels": peers.statsmodels_smoother(case),
            "dynamax": peers.dynamax_smoother(case),
        }
        compare(case, {name: run for name, run in runs.items() if run is not None})
        took = timings({name: run for name, run in runs.items() if run is not None}, rounds=rounds)
        each = {name: seconds / n for name, seconds in took.items()}
        what = f"state {dimension} ({functions} functions), {n} nodes"
        ours = duration(each["recursion"])
        rows.append(Row(NODE, what, 1e6 * each["recursion"], asked, ours=ours, unit="µs", upper=True))
        rows.append(Row(NODE, f"{what}, public call, from the kernel", 1e6 * each["call"], unit="µs", upper=True))
        # Peers are given transitions, as the prepared call is.
        mine = each["prepared"]
        for peer in ("numpy", "statsmodels", "dynamax"):
            label = f"{what}, {peer}"
            if peer in each:
                rows.append(Row(NODE, label, each[peer] / mine, None, None, duration(mine), duration(each[peer])))
            else:
                rows.append(Row(NODE, label, None, ours=duration(mine)))
        label = f"{what}, own scan backend on the CPU"
        rows.append(
            Row(NODE, label, each["scan"] / each["call"], None, None, duration(each["call"]), duration(each["scan"]))
        )
    return rows


def gradients(n: int, rounds: int) -> list[Row]:
    rows = []
    for dimension, (functions, nu, _) in CASES.items():
        case = problem(functions, nu, n)
        took = timings({"value": call(case), "gradient": gradient(case)}, rounds=rounds)
        scan = timings({"scan": gradient(case, "scan")}, rounds=max(rounds // 3, 1))["scan"]
        what = f"state {dimension}, {n} nodes"
        rows.append(
            Row(
                GRADIENT,
                f"{what}: times the cost of filter and smoother",
                took["gradient"] / took["value"],
                ours=duration(took["gradient"] / n),
            )
        )
        rows.append(
            Row(
                GRADIENT,
                f"{what}: autograd through the scan",
                scan / took["gradient"],
                None,
                None,
                duration(took["gradient"] / n),
                duration(scan / n),
            )
        )
    return rows


def growth(sizes: tuple[int, ...], rounds: int) -> list[Row]:
    rows = []
    for dimension, (functions, nu, _) in CASES.items():
        runs = {n: call(problem(functions, nu, n)) for n in sizes}
        took = timings({str(n): run for n, run in runs.items()}, rounds=rounds)
        seconds = [took[str(n)] for n in sizes]
        each = ", ".join(f"{n}: {duration(s / n)}" for n, s in zip(sizes, seconds, strict=True))
        rows.append(
            Row(
                GROWTH,
                f"state {dimension}: exponent of N, asked 0.9 to 1.1",
                _measure.slope(sizes, seconds),
                1.1,
                ours=each,
                unit="",
                upper=True,
            )
        )
    return rows


def likelihoods(n: int) -> list[Row]:
    from gpkit.likelihoods import Bernoulli, NegativeBinomial, Poisson, StudentT

    rng = np.random.default_rng(3)
    x = torch.from_numpy(np.sort(rng.uniform(0.0, n / 20.0, n)))
    kernel = MaternKernel(1.5, lengthscale=2.0)
    with torch.no_grad():
        f = state_space.sample(kernel, x, torch.zeros(n, 1, 1).double(), torch.zeros(n, 1).double(), 1, seed=5)[0, :, 0]
    rows = []
    for name, likelihood in {
        "Poisson": Poisson(2.0),
        "Bernoulli": Bernoulli(),
        "Bernoulli, local bound": Bernoulli("local"),
        "negative binomial": NegativeBinomial(2.0, 2.0),
        "Student-t": StudentT(0.3, 3.0),
    }.items():
        y = likelihood.sample(f, torch.Generator().manual_seed(7))
        fit = state_space.approximate_posterior(kernel, x, y, likelihood)
        inside = ((f - fit.mean).abs() < 1.6449 * fit.variance.sqrt()).double().mean().item()
        flat = (f - f.mean()).square().mean().sqrt().item()
        error = (f - fit.mean).square().mean().sqrt().item()
        took = timings(
            {"fit": lambda y=y, likelihood=likelihood: state_space.approximate_posterior(kernel, x, y, likelihood)},
            rounds=1,
            settle=0,
        )["fit"]
        words = (
            f"{duration(took)}, {len(fit.trace) - 1} iterations; 90 % intervals of f cover {100 * inside:.1f} %; "
            f"RMSE of f {error:.3f}, of a constant {flat:.3f}"
        )
        rows.append(Row(LIKELIHOODS, f"{name}, {n} data", 1e6 * took / n, ours=words, unit="µs per datum", upper=True))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--json", help="also write the rows here")
    options = parser.parse_args()
    n, rounds, sizes, data = options.nodes, 9, (10_000, 100_000, 1_000_000), 50_000
    if options.quick:
        rounds, sizes, data = 5, (10_000, 100_000), 5_000
    if options.smoke:
        n, rounds, sizes, data = 40, 1, (30, 60), 50
    facts = _measure.header()
    rows = [*nodes(n, rounds), *gradients(n, rounds), *growth(sizes, min(rounds, 3)), *likelihoods(data)]
    print(_measure.markdown_header(facts))
    for section in dict.fromkeys(row.section for row in rows):
        print("\n" + _measure.markdown([row for row in rows if row.section == section], section))
    print("\n" + _measure.summary(rows))
    if options.json:
        _measure.write_json(options.json, facts, rows)


if __name__ == "__main__":
    main()
