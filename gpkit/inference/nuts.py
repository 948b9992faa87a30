"""No-U-turn sampling of compiled posteriors, chains in threads.

nutpie drives the trajectories; every gradient is one call of compiled code. Coordinates are whitened by the Laplace
approximation at the mode, after which nutpie adapts a diagonal metric.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from gpkit.errors import InvalidDataError
from gpkit.inference import _nutpie
from gpkit.inference.maximise import Laplace, laplace, maximise
from gpkit.inference.potential import PotentialSpec

__all__ = ["sample_nuts", "sample_rows"]

Array = NDArray[np.float64]

_NAMES = {
    "diverging": "diverging",
    "energy": "energy",
    "energy_error": "energy_error",
    "depth": "tree_depth",
    "maxdepth_reached": "reached_max_treedepth",
    "step_size": "step_size",
    "logp": "lp",
    "mean_tree_accept": "acceptance_rate",
    "n_steps": "n_steps",
}
"""nutpie's statistics that are kept, and ArviZ's names for them."""


def sample_nuts(
    spec: PotentialSpec,
    *,
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    seed: int = 0,
    init: ArrayLike | Laplace | None = None,
    progress: bool = True,
    cores: int | None = None,
    target_accept: float = 0.8,
    max_depth: int = 10,
    low_rank: bool = False,
) -> tuple[Array, dict[str, NDArray[Any]]]:
    """Draw from a posterior; the same seed gives the same draws, whatever the number of cores.

    Args:
        spec: The posterior.
        draws: Per chain, after tuning.
        tune: Draws per chain that adapt step size and metric, and are discarded.
        chains: Number of chains.
        seed: Of everything random.
        init: A Laplace approximation (found by multi-start optimisation if not given) that whitens the coordinates and
            around which chains start, uniformly within two standard deviations; or unconstrained coordinates (D,),
            around which they start within one unit, without whitening.
        progress: Whether a bar is shown where stderr is a terminal.
        cores: Number of threads; all processors, at most one per chain, if not given.
        target_accept: Acceptance rate to which the step size is adapted.
        max_depth: Largest depth of a trajectory's tree.
        low_rank: Whether nutpie's low-rank metric is used instead of the diagonal one.

    Returns:
        Draws of z (chains, draws, D), and statistics (chains, draws) under ArviZ's names.

    Raises:
        InvalidDataError: if there is nothing to sample.
        ConvergenceError: if no point with a finite density was found.
    """
    if spec.dimension == 0 or min(draws, chains) < 1 or tune < 0:
        raise InvalidDataError(
            f"sampling needs a parameter, a chain and a draw: got {spec.dimension} parameters, {chains} chains, "
            f"{draws} draws after {tune}"
        )
    if init is None:
        init = laplace(spec, maximise(spec, seed=seed, jacobian=True).z)
    if isinstance(init, Laplace):
        centre, factor, width = init.centre, init.factor, 2.0
    else:
        centre, factor, width = np.asarray(init, dtype=np.float64), np.eye(spec.dimension), 1.0
        if centre.shape != (spec.dimension,):
            raise InvalidDataError(f"init must have shape ({spec.dimension},), got {centre.shape}")
    compiled = spec.compiled(centre=centre, factor=factor)

    def initial_point(chain_seed: int) -> Array:
        return np.random.default_rng([seed, chain_seed]).uniform(-width, width, spec.dimension)

    cores = min(chains, cores or os.cpu_count() or 1)
    with _bar(chains * (draws + tune), progress) as bar:
        if _nutpie.has_compiled_interface():
            model = _nutpie.compiled_model(compiled, initial_point, _follow(bar))
        else:
            model = _nutpie.python_model(compiled, initial_point)
        u, raw = _nutpie.run(
            model,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            seed=seed,
            low_rank=low_rank,
            settings={"target_accept": target_accept, "maxdepth": max_depth},
        )
        if bar is not None:
            bar.update(bar.total - bar.n)
    statistics = {name: raw[key] for key, name in _NAMES.items() if key in raw}
    return centre + u @ factor.T, statistics


def sample_rows(
    compiled: _nutpie.Rows, *, draws: int, tune: int, chains: int, seed: int, target_accept: float = 0.8
) -> tuple[Array, dict[str, NDArray[Any]]]:
    """No-U-turn draws of a density in coordinates in which it is about standard normal.

    One chain at a time: what the density keeps between evaluations is not shared among threads.

    Args:
        compiled: The density.
        draws: Per chain, after tuning.
        tune: Before them.
        chains: Number of chains.
        seed: Of starts and draws.
        target_accept: Acceptance probability that step sizes are tuned to.

    Returns:
        Draws (chains, draws, D), and statistics (chains, draws) under ArviZ's names.
    """

    def initial_point(chain_seed: int) -> Array:
        return np.random.default_rng([seed, chain_seed]).uniform(-1.0, 1.0, compiled.dimension)

    u, raw = _nutpie.run(
        _nutpie.python_model(compiled, initial_point),
        draws=draws,
        tune=tune,
        chains=chains,
        cores=1,
        seed=seed,
        low_rank=False,
        settings={"target_accept": target_accept, "maxdepth": 8},
    )
    return u, {name: raw[key] for key, name in _NAMES.items() if key in raw}


def _bar(total: int, progress: bool) -> AbstractContextManager[Any]:
    if not progress or not sys.stderr.isatty():
        return nullcontext()
    bar: AbstractContextManager[Any] = tqdm(total=total, unit="draw", desc="sampling")
    return bar


def _follow(bar: Any) -> Callable[[str], None] | None:
    """What nutpie calls now and then with the number of finished draws."""
    if bar is None:
        return None

    def update(finished: str) -> None:
        if finished.strip().isdigit():
            bar.update(int(finished) - bar.n)

    return update
