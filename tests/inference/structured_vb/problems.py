"""Small sparse tensors whose sums can be done by brute force."""

from __future__ import annotations

import itertools

import numpy as np

from gpkit.inference.structured_vb import (
    BasisFactor,
    IndependentFactor,
    Layout,
    LowRankPosterior,
    MarkovFactor,
    TensorTrain,
    component_layout,
    observation_named,
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
    y: np.ndarray | None = None,
    likelihood: str = "gaussian",
    ard: bool = True,
    seed: int = 0,
) -> tuple[LowRankPosterior, Layout, list[np.ndarray]]:
    """A posterior at its start with random entries."""
    rng = np.random.default_rng(seed)
    sizes = SIZES[:modes]
    index = [rng.integers(size, size=entries).astype(np.int32) for size in sizes]
    power = rng.uniform(0.5, 2.0, entries)
    if y is None:
        y = rng.standard_normal(entries)
    ranks = [rank] * (modes - 1 if form == "tensor-train" else modes)
    components = component_layout(form, ranks, main_effects, modes)
    factors = [factor_of(k, size, len(free)) for k, (size, (free, _)) in enumerate(zip(sizes, components, strict=True))]
    posterior = LowRankPosterior(factors, components, form, observation_named(likelihood, y), ard=ard, seed=seed)
    layout = Layout(index, sizes, y, power)
    layout.begin(posterior)
    return posterior, layout, index


def coupling_of(posterior: LowRankPosterior) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every product of components with the moments of what multiplies it: components (I, K), E[g] (I,), E[g g^T].

    A tensor train's products are its paths through the states of the bonds, and g the products of the weights on them.
    """
    form = posterior.form
    if not isinstance(form, TensorTrain):
        return form.coupling, form.mean, form.second_moment
    paths = [[c] for c in range(len(form.links[0].left))]
    for before, after in itertools.pairwise(form.links):
        paths = [p + [c] for p in paths for c in range(len(after.left)) if after.left[c] == before.right[p[-1]]]
    coupling = np.array(paths)
    mean, second = np.ones(len(paths)), np.ones((len(paths), len(paths)))
    for k, own in enumerate(form.links):
        g = np.append(form.weights[k].mean, 1.0)
        moment = np.outer(g, g)
        moment[:-1, :-1] += form.weights[k].covariance
        which = own.weight[coupling[:, k]]
        mean, second = mean * g[which], second * moment[np.ix_(which, which)]
    return coupling, mean, second


def products(posterior: LowRankPosterior, index: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """E[z] (N, I) and E[z z^T] (N, I, I) of the products of components."""
    n = len(index[0])
    coupling, _, _ = coupling_of(posterior)
    size = len(coupling)
    first, second = np.ones((n, size)), np.ones((n, size, size))
    for k, mode in enumerate(posterior.modes):
        column = coupling[:, k]
        first *= mode.means()[index[k]][:, column]
        second *= mode.seconds()[index[k]][:, column[:, None], column]
    return first, second
