"""Small sparse tensors whose sums can be done by brute force."""

from __future__ import annotations

import numpy as np

from gpkit.inference.structured_vb import (
    BasisFactor,
    GaussianNoise,
    IndependentFactor,
    Layout,
    LowRankPosterior,
    MarkovFactor,
    Observation,
    component_layout,
)
from gpkit.kernels import MaternKernel, PeriodicKernel

SIZES = (7, 5, 6, 3)


def factor_of(kind: int, size: int, rank: int):
    """Markov, categorical, spatial and periodic factors in turn."""
    import gpytorch

    grid = np.linspace(0.0, 3.0, size) ** 1.2
    if kind == 0:
        return MarkovFactor(MaternKernel(1.5), grid, rank)
    if kind == 1:
        return IndependentFactor(size, rank)
    if kind == 2:
        places = np.random.default_rng(size).uniform(size=(size, 2))
        return BasisFactor(gpytorch.kernels.MaternKernel(nu=1.5), places, rank)
    return MarkovFactor(MaternKernel(0.5) + PeriodicKernel(1.7, terms=3), grid, rank)


def posterior_of(
    form: str,
    modes: int,
    *,
    entries: int = 40,
    main_effects: bool = True,
    rank: int = 2,
    observation: Observation | None = None,
    seed: int = 0,
) -> tuple[LowRankPosterior, Layout, list[np.ndarray]]:
    """A posterior at its start with random entries."""
    rng = np.random.default_rng(seed)
    sizes = SIZES[:modes]
    index = [rng.integers(size, size=entries).astype(np.int32) for size in sizes]
    observation = observation or GaussianNoise(rng.standard_normal(entries), rng.uniform(0.5, 2.0, entries))
    components = component_layout(form, [rank] * modes, main_effects)
    factors = [factor_of(k, size, len(free)) for k, (size, (free, _)) in enumerate(zip(sizes, components, strict=True))]
    posterior = LowRankPosterior(factors, components, form, observation, seed=seed)
    return posterior, Layout(index, sizes, *observation.start()), index


def products(posterior: LowRankPosterior, index: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """E[z] (N, I) and E[z z^T] (N, I, I) of the products of components that the coefficients multiply."""
    n = len(index[0])
    size = len(posterior.form.mean)
    first, second = np.ones((n, size)), np.ones((n, size, size))
    for k, mode in enumerate(posterior.modes):
        column = posterior.form.coupling[:, k]
        first *= mode.means()[index[k]][:, column]
        second *= mode.seconds()[index[k]][:, column[:, None], column]
    return first, second
