"""Draws of unknowns by the No-U-turn sampler."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.inverse.engine import InverseDensity, Mode
from gpkit.inference.collocation.inverse.ridge import Ridge
from gpkit.inference.collocation.inverse.table import Table

__all__ = ["sample_unknowns"]

_OFTEN = 50  # points outside of the table after which it grows
_GROWTHS = 5  # at most
_ACCEPTED = 0.9  # of proposals; posteriors have corners that no map takes away
_AHEAD = 0.5  # share of the way that it was left by, further on


class _Whitened:
    """The density around a mode, for the sampler."""

    def __init__(self, density: InverseDensity, mode: Mode, bar: Any) -> None:
        self._density, self._mode, self._bar = density, mode, bar
        sizes, axes = np.linalg.eigh(mode.covariance)
        self.factor: Array = np.asarray((axes * np.sqrt(sizes))[:, ::-1], dtype=np.float64)
        self.ridge = Ridge.of(density, mode, self.factor)
        self.table = Table.around(density, mode.z, self.factor)
        self._outside: list[Array] = []
        self._growths = 0

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return self._density.dimension

    def natural(self, u: Array) -> Array:
        """Coordinates z of the density (..., D) at those of the sampler."""
        return np.asarray(self._mode.z + self.ridge.straight(u) @ self.factor.T)

    def rows(self, points: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Values, gradients and status at points (S, D)."""
        values, gradients = np.zeros(len(points)), np.zeros(points.shape)
        status = np.zeros(len(points), dtype=np.int64)
        for k, u in enumerate(points):
            if self._bar is not None:
                self._bar.update(1)
            straight = self.ridge.straight(u)
            known = self.table(straight) if self.table is not None else None
            if known is not None:
                values[k], gradients[k] = -known[0], -self.ridge.pulled(u, known[1])
                continue
            self._grow(straight)
            try:
                value, gradient, *_ = self._density.evaluate(self.natural(u), curved=False)
                values[k], gradients[k] = -value, -self.ridge.pulled(u, self.factor.T @ gradient)
                status[k] = 0 if math.isfinite(value) else 1
            except (ConvergenceError, InvalidDataError):
                status[k] = 1
        return values, gradients, status

    def _grow(self, u: Array) -> None:
        """Where the sampler often goes outside, along the tails of a skewed posterior, tabulate there too."""
        if self.table is None or self._growths >= _GROWTHS:
            return
        self._outside.append(u)
        if len(self._outside) < _OFTEN:
            return
        reached = np.stack(self._outside)
        self._outside = []
        low, high = np.minimum(reached.min(0), self.table.lower), np.maximum(reached.max(0), self.table.upper)
        lower = np.where(low < self.table.lower, low - _AHEAD * (self.table.lower - low), low)
        upper = np.where(high > self.table.upper, high + _AHEAD * (high - self.table.upper), high)
        wider = Table.on(self._density, self._mode.z, self.factor, lower, upper)
        self._growths = _GROWTHS if wider is None else self._growths + 1
        self.table = self.table if wider is None else wider


def sample_unknowns(
    density: InverseDensity,
    mode: Mode,
    *,
    draws: int = 500,
    tune: int = 300,
    chains: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Array, dict[str, NDArray[Any]]]:
    """Draw from the posterior of the unknowns by NUTS, in coordinates whitened by the Laplace approximation.

    The coordinates follow the ridge of the density along its widest axis, where it is bent.

    Args:
        density: Of the unknowns; best `InverseDensity.reduced`, since it is asked often.
        mode: Where it is largest.
        draws: Kept of each chain.
        tune: Before them.
        chains: Independent ones.
        seed: Of starts and draws.
        progress: Whether a bar counts evaluations.

    Returns:
        Draws of z (chains, draws, D), and statistics (chains, draws) under ArviZ's names.
    """
    from tqdm import tqdm

    from gpkit.inference.nuts import sample_rows

    shown = progress and sys.stderr.isatty()
    bar = tqdm(unit="density", desc="sampling") if shown else None
    target = _Whitened(density, mode, bar)
    u, statistics = sample_rows(target, draws=draws, tune=tune, chains=chains, seed=seed, target_accept=_ACCEPTED)
    if bar is not None:
        bar.close()
    return target.natural(u), statistics
