"""The field given data and parameters: what all algebras of field regression answer."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.models.fields.sites import Sites

if TYPE_CHECKING:
    from gpkit.models.fields.regression import FieldRegression

__all__ = ["FieldPosterior", "floored"]

Array = NDArray[np.float64]

_CHUNK = 2048


class FieldPosterior(ABC):
    """The field given the data and the parameters.

    Args:
        regression: Data and terms.
        theta: Logarithms of the parameters.
    """

    def __init__(self, regression: FieldRegression, theta: Array) -> None:
        self.regression = regression
        self.theta = theta
        noise, parts = regression.split(torch.from_numpy(theta))
        self._parts: list[Tensor] = parts
        self.noise = 1.0 if regression.noise is not None else math.exp(float(noise))

    # -- what algebras differ in ----------------------------------------------------------------------------------

    @abstractmethod
    def _moments(self, sites: Sites) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) at a few places."""

    @abstractmethod
    def joint(self, sites: Sites) -> tuple[Array, Array]:
        """Mean (m d,) and a root (m d, r) of the joint covariance at places, noise not included."""

    @abstractmethod
    def functional(self, operator: Any, sites: Sites) -> tuple[Array, Array]:
        """Means and standard deviations (q,) of linear functionals of the field.

        Args:
            operator: Sparse (q, m d), of the field's values at the sites.
            sites: m places.
        """

    @abstractmethod
    def part_moments(self, sites: Sites, index: int) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) of one term's share of the field."""

    @abstractmethod
    def leave_one_out(self) -> tuple[Array, Array]:
        """Predictions of each observed place from all the others: means (m, d), covariances (m, d, d) with noise.

        Places observed twice are left out one observation at a time.
        """

    # -- what follows ---------------------------------------------------------------------------------------------

    def moments(self, sites: Sites) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) at each place by itself, noise not included."""
        found = [self._moments(piece) for piece in sites.chunks(_CHUNK)]
        return np.concatenate([mean for mean, _ in found]), np.concatenate([covariance for _, covariance in found])

    def sampler(self, sites: Sites, inflation: float | Array = 1.0) -> Callable[[int, np.random.Generator], Array]:
        """Makes joint draws (count, m d) from a count and a generator; what they share is computed once.

        Args:
            sites: m places.
            inflation: Factor of all variances, or one of each value, (m d,).
        """
        mean, root = self.joint(sites)
        scale = np.sqrt(inflation)

        def draw(count: int, rng: np.random.Generator) -> Array:
            return np.asarray(mean + scale * (rng.standard_normal((count, root.shape[1])) @ root.T))

        return draw

    def lost_share(self, sites: Sites) -> float:
        """Median share of a term's variance that the nodes cannot tell between them, the largest of all terms."""
        shares = [0.0]
        for term, part in zip(self.regression.terms, self._parts, strict=True):
            total = term.mean_variance(part)
            if total is not None and len(sites):
                shares.append(float((term.unresolved(part, sites) / total).median()))
        return max(shares)

    @property
    def prior_variance(self) -> float:
        """Largest prior variance of a coordinate: the size against which rounding is judged."""
        first = self.regression.sites.take(slice(0, 64))
        return float(self._marginal(first).diagonal(dim1=1, dim2=2).max())

    def _marginal(self, sites: Sites) -> Tensor:
        blocks = [t.marginal(p, sites) for t, p in zip(self.regression.terms, self._parts, strict=True)]
        return functools.reduce(torch.add, blocks)

    def _unresolved(self, sites: Sites, parts: Sequence[int] | None = None) -> Array:
        """Prior variance (m,) of a coordinate that the basis functions or nodes of some terms know nothing of."""
        total = torch.zeros(len(sites), dtype=torch.float64)
        for index, (term, part) in enumerate(zip(self.regression.terms, self._parts, strict=True)):
            if parts is None or index in parts:
                total = total + term.unresolved(part, sites)
        return np.asarray(total.numpy())

    def _from_hat(self, fitted: Array, hat: Array) -> tuple[Array, Array]:
        """Leave-one-out predictions from fits (m, d) and blocks (m, d, d) of the hat matrix, in units of the noise."""
        rows = self.regression.rows.reshape(fitted.shape)
        y = self.regression.targets.reshape(fitted.shape) / rows
        # Blocks of a few coordinates; the inverse itself is the covariance that is returned.
        inverse = np.linalg.inv(np.eye(fitted.shape[1]) - hat)
        mean = y - np.einsum("mij,mj->mi", inverse, y - fitted)
        covariance = self.noise**2 * 0.5 * (inverse + inverse.transpose(0, 2, 1))
        return mean * rows, covariance * rows[:, :, None] * rows[:, None, :]


def floored(covariances: Array) -> Array:
    """Symmetric blocks whose variances are not below zero by rounding."""
    blocks = 0.5 * (covariances + covariances.transpose(0, 2, 1))
    diagonal = np.einsum("mii->mi", blocks)
    diagonal[:] = np.maximum(diagonal, 0.0)
    return blocks
