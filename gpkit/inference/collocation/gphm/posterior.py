"""Fields given the optimised values on the grid, and what is not known of these (Laplace)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.exact.draws import AxisDraws
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.exact.rows import contract
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.gphm.laplace import Laplace
from gpkit.inference.collocation.gphm.roots import Roots

__all__ = ["GphmDraws", "GphmPosterior"]

_CHUNK = 8_000_000
"""Numbers in the functions of the weights at the points that are looked at together."""


class GphmPosterior:
    """Gaussian fields: values on the grid, carried elsewhere by the kernel.

    The variance is that of the values around their optimum for fixed kernels and precisions, and what the kernel leaves
    open between the points of the grid. The published method has none.

    Args:
        axes: Of the grid.
        kernels: Of each field and axis.
        jitter: On the covariance of each axis' values.
        roots: Of the values.
        weights: Of their mean, (W,).
        scales: Of each field's kernel.
        laplace: Makes the distribution of the weights when it is first asked for.
        diagnostics: Of the optimisation.
        correction: A second posterior that is added: the published "extra" process.
    """

    def __init__(
        self,
        axes: Sequence[Tensor],
        kernels: Sequence[Sequence[MixtureAxis]],
        jitter: float,
        roots: Roots,
        weights: Tensor,
        scales: Sequence[float],
        laplace: Callable[[], Laplace],
        diagnostics: dict[str, Any],
        correction: GphmPosterior | None = None,
    ) -> None:
        """Keep what the fields are made of."""
        self.diagnostics = diagnostics
        self._axes, self._kernels, self._jitter = tuple(axes), kernels, jitter
        self._roots, self._weights, self._scales = roots, weights, tuple(scales)
        self._make = laplace
        self._made: Laplace | str | None = None
        self._correction = correction

    def __getstate__(self) -> dict[str, Any]:
        """For files: the distribution is made first, since what makes it holds the problem's functions."""
        try:
            made: Any = self.laplace
        except InvalidDataError as error:
            made = str(error)
        return {**self.__dict__, "_made": made, "_make": None}

    @property
    def laplace(self) -> Laplace:
        """Distribution of the weights.

        Raises:
            InvalidDataError: There are too many of them for a dense factorisation.
        """
        if isinstance(self._made, str):
            raise InvalidDataError(self._made)
        if self._made is None:
            self._made = self._make()
        return self._made

    def plus(self, correction: GphmPosterior) -> GphmPosterior:
        """The sum with another one that is independent of it."""
        both = copy.copy(self)
        both._correction = correction
        return both

    def jets(self, wanted: Sequence[Jet]) -> dict[Jet, Tensor]:
        """Means of jets at the points of the grid, as the equations see them."""
        return self._roots.jets(wanted, self._weights)

    def _factors(self, jet: Jet, coordinates: Sequence[Tensor]) -> list[Tensor]:
        """Functions of the weights along each axis."""
        covariances = []
        for axis, x, nodes, order in zip(self._kernels[jet.field], coordinates, self._axes, jet.orders, strict=True):
            covariances.append(axis.blocks(x, nodes, [(order, 0)])[order, 0])
        return self._roots.fields[jet.field].carried(covariances)

    def _contracted(self, jet: Jet, coordinates: Sequence[Tensor], weights: Tensor, is_grid: bool) -> Tensor:
        own = weights[self._roots.span(jet.field)]
        return contract(self._factors(jet, coordinates), own.reshape(*self._roots.fields[jet.field].shape, -1), is_grid)

    def mean(self, jet: Jet, points: Tensor) -> Tensor:
        """Mean of a jet at points (m, d)."""
        mean = self._contracted(jet, points.unbind(1), self._weights, points.shape[1] == 1)[..., 0]
        return mean if self._correction is None else mean + self._correction.mean(jet, points)

    def mean_on_grid(self, jet: Jet, axes: Sequence[Tensor]) -> Tensor:
        """Mean of a jet on a tensor grid."""
        mean = self._contracted(jet, axes, self._weights, True)[..., 0]
        return mean if self._correction is None else mean + self._correction.mean_on_grid(jet, axes)

    def variance(self, jet: Jet, points: Tensor) -> Tensor:
        """Variance of a jet at points (m, d), for fixed kernels and precisions.

        Raises:
            InvalidDataError: There are too many values for a dense factorisation, or the kernel has not twice as many
                derivatives.
        """
        laplace = self.laplace
        pairs = [(o, o) for o in jet.orders]
        zero = torch.zeros(1, dtype=torch.float64)
        prior = math.prod(
            float(axis.variances(zero, [pair])[pair])
            for axis, pair in zip(self._kernels[jet.field], pairs, strict=True)
        )
        step = max(1, _CHUNK // len(self._roots))
        parts = []
        for start in range(0, len(points), step):
            factors = self._factors(jet, points[start : start + step].unbind(1))
            seen = torch.ones((), dtype=torch.float64)
            for f in factors:
                seen = seen * (f**2).sum(1)
            between = self._scales[jet.field] * (prior - seen).clamp_min(0.0)
            parts.append(between + laplace.spread(jet, factors))
        variance = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
        return variance if self._correction is None else variance + self._correction.variance(jet, points)

    def sample(self, n: int, generator: torch.Generator) -> GphmDraws:
        """N joint draws, as functions.

        Raises:
            InvalidDataError: There are too many values for a dense factorisation.
        """
        return GphmDraws(self, n, generator)


class GphmDraws:
    """Joint draws of all fields, as functions.

    A draw is the values' posterior carried by the kernel, plus a draw of the prior minus what its own values on the
    grid say of it: that is what the kernel leaves open between the points.

    Args:
        posterior: Of the fields.
        n: Number of draws.
        generator: Source of randomness.

    References:
        Wilson, Borovitskiy, Terenin, Mostowsky & Deisenroth (2021), Pathwise Conditioning of Gaussian Processes, JMLR.
    """

    def __init__(self, posterior: GphmPosterior, n: int, generator: torch.Generator) -> None:
        """Draw weights of the values and of the priors."""
        self._posterior = posterior
        roots, jitter = posterior._roots, posterior._jitter
        white = torch.randn(len(roots), n, generator=generator, dtype=torch.float64)
        moved = posterior.laplace.draw(white)
        self._priors, self._white, seen = [], [], []
        for kernels, root, scale in zip(posterior._kernels, roots.fields, posterior._scales, strict=True):
            axes = [AxisDraws(k, nodes, [0]) for k, nodes in zip(kernels, posterior._axes, strict=True)]
            # Each axis has its process and, on the grid, the jitter.
            own = torch.randn(
                *[a.size + len(x) for a, x in zip(axes, posterior._axes, strict=True)],
                n,
                generator=generator,
                dtype=torch.float64,
            )
            own *= math.sqrt(scale)
            tables = [
                torch.cat([a(x, 0), math.sqrt(jitter) * torch.eye(len(x), dtype=torch.float64)], 1)
                for a, x in zip(axes, posterior._axes, strict=True)
            ]
            values = contract(tables, own, True)
            seen.append(torch.stack([root.weights(v) for v in values.unbind(-1)], -1).reshape(-1, n))
            self._priors.append(axes)
            self._white.append(own[tuple(slice(0, a.size) for a in axes)])
        self._weights = posterior._weights[:, None] + moved - torch.cat(seen)
        self._correction = None if posterior._correction is None else GphmDraws(posterior._correction, n, generator)

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        coordinates, one_axis = points.unbind(1), points.shape[1] == 1
        tables = [a(x, o) for a, x, o in zip(self._priors[jet.field], coordinates, jet.orders, strict=True)]
        values = contract(tables, self._white[jet.field], one_axis)
        values = values + self._posterior._contracted(jet, coordinates, self._weights, one_axis)
        return values.T if self._correction is None else values.T + self._correction(jet, points)
