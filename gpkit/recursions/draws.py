"""Joint draws of semiseparable processes, with numpy's generators: O(N + M) per draw."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.recursions import linear
from gpkit.recursions.series import merge_times
from gpkit.recursions.structure import Structure, block_shape, marker

__all__ = ["posterior_draws", "prior_draws"]

Array = NDArray[np.float64]


def prior_draws(structure: Structure, params: Array, times: Array, n: int, rng: np.random.Generator) -> Array:
    """Draws (n, N) of the noise-free process at sorted times (N,)."""
    nb, b = block_shape(structure)
    blocks, p = linear.transition_blocks(marker(structure), params, times, nb, b)
    gains, pivots, _ = linear.factor(blocks, p, np.zeros(times.size), True)
    white = np.sqrt(pivots)[:, None] * rng.standard_normal((times.size, n))
    return np.ascontiguousarray(linear.lower_multiply(blocks, gains, white).T)


def posterior_draws(
    structure: Structure,
    params: Array,
    times: Array,
    residual: Array,
    noise: Array,
    new_times: Array,
    n: int,
    rng: np.random.Generator,
) -> tuple[Array, int]:
    """Joint draws (n, M) of the process at sorted new times given residuals (N,) with noise variances (N,).

    Prior draws at all times are conditioned by Matheron's rule. Returns the draws and the first row at which the
    covariance of the data is not positive definite, or -1.
    """
    union, old, new = merge_times(times, new_times)
    seen = np.isfinite(noise)
    latent = prior_draws(structure, params, union, n, rng)
    order = marker(structure)
    nb, b = block_shape(structure)
    blocks, p = linear.transition_blocks(order, params, times, nb, b)
    gains, pivots, bad = linear.factor(blocks, p, noise, False)
    if bad >= 0:
        return np.full((n, new_times.size), np.nan), int(bad)
    spread = np.sqrt(np.where(seen, noise, 0.0))
    data = latent[:, old] + spread * rng.standard_normal((n, times.size))
    misfit = np.ascontiguousarray(np.where(seen, residual - data, 0.0).T)
    alpha = linear.upper_solve(blocks, gains, linear.lower_solve(blocks, gains, misfit) / pivots[:, None])
    padded: Any = np.zeros((union.size, n))
    padded[old] = alpha
    all_blocks, _ = linear.transition_blocks(order, params, union, nb, b)
    update = linear.multiply(all_blocks, p, np.zeros(union.size), padded)
    return latent[:, new] + update[new].T, -1
