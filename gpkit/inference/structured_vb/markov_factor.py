"""The functions of an ordered coordinate: Markov processes with learned kernels, by the state-space engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.inference import state_space
from gpkit.inference.structured_vb.factors import KernelFactor

__all__ = ["MarkovFactor"]

Array = NDArray[np.float64]
_HOLD = 1e6  # precision of observations that hold a function


class MarkovFactor(KernelFactor):
    """Functions of an ordered coordinate, by the state-space engine.

    Args:
        kernel: any kernel with a state space; it is copied.
        coordinates: distinct, increasing, (J,).
        rank: R.
        learn: whether length scales and variances are learned; they then start at a tenth of the range.
        width: of the bins around the coordinates, which do not overlap, for kernels of bins; None for others.
    """

    def __init__(
        self, kernel: Any, coordinates: Array, rank: int, *, learn: bool = True, width: float | None = None
    ) -> None:
        self.coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
        self._width = width
        size = len(self.coordinates)
        span = float(np.ptp(self.coordinates)) if size > 1 else 1.0
        gap = float(np.median(np.diff(self.coordinates))) if size > 1 else 1.0
        super().__init__(kernel, size, rank, least=0.05 * gap, most=20.0 * span, begin=0.1 * span, learn=learn)
        self._path = state_space.RepeatedPath(self._inputs(self.coordinates), max(rank, 1))
        self._single = state_space.RepeatedPath(self._inputs(self.coordinates), 1)
        self._norm: tuple[tuple[float, ...], float] | None = None
        self._filtered: tuple[float, ...] | None = None  # parameters of the last evidence with the sites that are set

    def _inputs(self, coordinates: Array) -> Array:
        """What the kernel takes: coordinates (M,), or bins (M, 2)."""
        if self._width is None:
            return np.ascontiguousarray(coordinates)
        return np.stack([coordinates, np.full(len(coordinates), self._width)], 1)

    def _evidence(self) -> float:
        self._filtered = self._search.state()
        return self._path.evidence(self.kernel, self.precision, self.information)

    def set_sites(self, precision: Array, information: Array) -> None:
        """What was filtered is of other sites."""
        super().set_sites(precision, information)
        self._filtered = None

    def _constant(self) -> float:
        """From the posterior of one function that nearly exact observations hold at one."""
        key = self._search.state()
        if self._norm is None or self._norm[0] != key:
            precision = np.full((self.size, 1, 1), _HOLD)
            _, mean, _ = self._single.smooth(self.kernel, precision, precision[:, :, 0].copy())
            self._norm = (key, float(_HOLD * (1.0 - mean).sum()))
        return self._norm[1]

    def _posterior(self, precision: Array, information: Array) -> tuple[float, Array, Array]:
        same = precision is self.precision and self._path.filtered and self._filtered == self._search.state()
        if same:
            return self._path.smooth_again()
        return self._path.smooth(self.kernel, precision, information)

    def _merged(self, coordinates: Array) -> tuple[Array, Array, Array, NDArray[np.int64]]:
        """Old and new coordinates in order, their sites (none at new ones), and where the new ones went."""
        nodes, inverse = np.unique(np.concatenate([self.coordinates, coordinates]), return_inverse=True)
        precision = np.zeros((len(nodes), self.rank, self.rank))
        information = np.zeros((len(nodes), self.rank))
        precision[inverse[: self.size]] = self.precision
        information[inverse[: self.size]] = self.information
        return nodes, precision, information, inverse[self.size :].astype(np.int64)

    def at(self, coordinates: Array) -> tuple[Array, Array]:
        """New coordinates are nodes without information: interpolation and extrapolation are exact."""
        nodes, precision, information, where = self._merged(coordinates)
        with torch.no_grad():
            found = state_space.smooth(
                self.kernel,
                torch.from_numpy(self._inputs(nodes)),
                torch.from_numpy(precision),
                torch.from_numpy(information),
            )
        return found.mean.numpy()[where], found.covariance.numpy()[where]

    def prior_covariance(self, coordinates: Array) -> Array:
        """The kernel's own."""
        with torch.no_grad():
            dense: Array = self.kernel(torch.from_numpy(self._inputs(coordinates))).to_dense().numpy()
        return dense

    def sample(self, coordinates: Array, n: int, rng: np.random.Generator) -> Array:
        """Joint draws along the path."""
        nodes, precision, information, where = self._merged(coordinates)
        drawn = state_space.sample(
            self.kernel,
            torch.from_numpy(self._inputs(nodes)),
            torch.from_numpy(precision),
            torch.from_numpy(information),
            n,
            seed=int(rng.integers(2**31)),
        )
        return drawn.numpy()[:, where]
