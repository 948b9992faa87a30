"""Matern fields by sparse precision as terms: all modes, none of which is ever computed."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.markov import MarkovKernel
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.terms import Prepared, Scales, Term, between
from gpkit.operators.markov_posterior import MarkovPosterior
from gpkit.operators.sparse_symmetric import SparseMatrix, SparsePattern

__all__ = ["MarkovTerm"]

Array = NDArray[np.float64]

_RANGE = (0.04, 8.0)
_KNOTS = 8


class MarkovTerm(Term):
    """A :class:`gpkit.kernels.markov.MarkovKernel` with a length scale and an amplitude.

    The amplitude is the standard deviation of a coordinate, on average over the nodes: the mean variance of the kernel
    is computed exactly at a few length scales and interpolated between them, which changes the meaning of the amplitude
    by less than a per cent and the model not at all.

    Args:
        name: Of the term.
        kernel: The kernel; its own length scale is where the range of a rational power was fitted.
        scales: Units of the problem.
    """

    def __init__(self, name: str, kernel: MarkovKernel, scales: Scales) -> None:
        self.name = name
        self.kernel = kernel
        self.scales = scales
        self.parameters = (scales.lengthscale("lengthscale"), scales.amplitude("amplitude"))
        self._prior_at: tuple[bytes, MarkovPosterior] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but factorisations."""
        return {**self.__dict__, "_prior_at": None}

    @property
    def pattern(self) -> SparsePattern:
        """Of the precision matrix."""
        return self.kernel.pattern

    @functools.cached_property
    def _log_variance(self) -> tuple[Array, Array]:
        """Knots and coefficients of a cubic spline: log mean variance before scaling by log length scale."""
        x = math.log(self.scales.length) + np.linspace(math.log(_RANGE[0]), math.log(_RANGE[1]), _KNOTS)
        y = [self.kernel.log_mean_variance(math.exp(at)) for at in x]
        return x, CubicSpline(x, y).c

    def _log_scale(self, log_lengthscale: Tensor) -> Tensor:
        """Log mean variance before scaling, a smooth function that goes on linearly outside of its knots."""
        x, c = self._log_variance
        inside = log_lengthscale.clamp(float(x[0]), float(x[-1]))
        piece = min(max(int(np.searchsorted(x, float(inside.detach()))) - 1, 0), len(x) - 2)
        step = inside - float(x[piece])
        c3, c2, c1, c0 = (float(row[piece]) for row in c)
        value = ((c3 * step + c2) * step + c1) * step + c0
        slope = ((3.0 * c3 * step + 2.0 * c2) * step + c1).detach()
        return value + slope * (log_lengthscale - inside)

    def precision(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the precision matrix on the pattern, and the logarithm of its determinant."""
        lengthscale = torch.exp(theta[0])
        log_factor = self._log_scale(theta[0]) - 2.0 * theta[1]
        values = self.kernel.unscaled_values(lengthscale) * torch.exp(log_factor)
        return values, self.kernel.unscaled_log_determinant(lengthscale) + self.pattern.size * log_factor

    def selection(self, sites: Sites) -> Any:
        """How values at places follow from the unknowns; sparse (m d, N)."""
        if (sites.nodes >= 0).all():
            return self.kernel.selection(torch.from_numpy(sites.nodes)[:, None].double())
        if sites.points is None:
            raise InvalidDataError(f"places of {self.name} must be nodes: these nodes have no coordinates")
        return self.kernel.selection(sites.points)

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """Dense selections of both sides, and the places between the nodes where they are the same."""
        first, second = (torch.from_numpy(self.selection(sites).toarray()) for sites in (left, right))
        return first, second, between(left, right)

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """E Q^-1 E'^T, with the variance that is lost between the nodes on the diagonal."""
        left, right, inside = prepared
        values, _ = self.precision(theta)
        block = left @ SparseMatrix(self.pattern, values).solve(right.mT)
        if not inside.numel():
            return block
        own = block.diagonal().reshape(len(inside), -1)
        lost = inside * (self.mean_variance(theta) - own.mean(1)).clamp_min(0.0)
        return block + torch.diag(lost.repeat_interleave(own.shape[1]))

    def _prior(self, theta: Tensor) -> MarkovPosterior:
        """The unknowns without data, factorised once for the same parameters."""
        key = theta.detach().numpy().tobytes()
        if self._prior_at is None or self._prior_at[0] != key:
            values, _ = self.precision(theta.detach())
            self._prior_at = (key, MarkovPosterior(np.zeros(self.pattern.size), SparseMatrix(self.pattern, values)))
        return self._prior_at[1]

    def mean_variance(self, theta: Tensor) -> Tensor:
        """The squared amplitude."""
        return torch.exp(2.0 * theta[1])

    def _own(self, theta: Tensor, sites: Sites) -> Tensor:
        return torch.from_numpy(self._prior(theta).covariances(self.selection(sites), sites.d))

    def unresolved(self, theta: Tensor, sites: Sites) -> Tensor:
        """What is left of the mean variance between the nodes; all of it at far places."""
        inside = between(sites, sites)
        if not inside.numel():
            return torch.zeros(len(sites), dtype=torch.float64)
        own = self._own(theta, sites).diagonal(dim1=1, dim2=2).mean(1)
        return inside * (self.mean_variance(theta) - own).clamp_min(0.0)

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """Prior covariances at each place."""
        eye = torch.eye(sites.d, dtype=torch.float64)
        return self._own(theta, sites) + self.unresolved(theta, sites)[:, None, None] * eye
