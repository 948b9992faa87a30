"""Sums with a dense covariance: one Cholesky factorisation per evaluation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.inference.dense_evidence import DenseFactor, dense_log_likelihood, semidefinite_root
from gpkit.models.fields.posterior import FieldPosterior, floored
from gpkit.models.fields.sites import Sites

if TYPE_CHECKING:
    from gpkit.models.fields.regression import FieldRegression

__all__ = ["DenseAlgebra", "DensePosterior"]

Array = NDArray[np.float64]

_ROWS = 256


class DenseAlgebra:
    """Evidence of any sum of terms.

    Args:
        regression: Data and terms.
    """

    def __init__(self, regression: FieldRegression) -> None:
        self.regression = regression

    @functools.cached_property
    def _prepared(self) -> list[tuple[Tensor, ...]]:
        sites = self.regression.sites
        return [term.prepare(sites, sites) for term in self.regression.terms]

    def covariance(self, theta: Tensor) -> Tensor:
        """Covariance of the data (m d, m d), noise included, in units of the known noise."""
        noise, parts = self.regression.split(theta)
        blocks = [t.evaluate(p, made) for t, p, made in zip(self.regression.terms, parts, self._prepared, strict=True)]
        total = functools.reduce(torch.add, blocks)
        rows = torch.from_numpy(self.regression.rows)
        if self.regression.noise is not None:
            return total / rows[:, None] / rows + torch.eye(len(rows), dtype=torch.float64)
        return total + torch.exp(2.0 * noise) * torch.eye(len(rows), dtype=torch.float64)

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Log likelihood of the data in units of the known noise, and its gradient."""
        at = torch.tensor(theta, requires_grad=True)
        targets = torch.from_numpy(self.regression.targets / self.regression.rows)
        result = dense_log_likelihood(self.covariance(at), targets)
        result.backward()
        gradient = np.zeros(len(theta)) if at.grad is None else at.grad.numpy().copy()
        return float(result.detach()), gradient

    def posterior(self, theta: Array) -> DensePosterior:
        """The posterior at given parameters."""
        return DensePosterior(self, theta)


class DensePosterior(FieldPosterior):
    """A field conditioned by the factor of the data's covariance.

    Args:
        algebra: Of the terms.
        theta: Logarithms of the parameters.
    """

    def __init__(self, algebra: DenseAlgebra, theta: Array) -> None:
        super().__init__(algebra.regression, theta)
        self._rows = torch.from_numpy(self.regression.rows)
        targets = torch.from_numpy(self.regression.targets) / self._rows
        self._factor = DenseFactor.of(algebra.covariance(torch.from_numpy(theta)), targets)

    def _cross(self, sites: Sites, parts: Sequence[int] | None = None) -> Tensor:
        """Covariance of the field at places with the data, (m' d, m d), in units of the known noise."""
        blocks = []
        for index, (term, part) in enumerate(zip(self.regression.terms, self._parts, strict=True)):
            if parts is None or index in parts:
                blocks.append(term.evaluate(part, term.prepare(sites, self.regression.sites)))
        return functools.reduce(torch.add, blocks) / self._rows

    def _white(self, cross: Tensor) -> Tensor:
        """``C^-1/2`` times the covariance with the data, (m d, m' d)."""
        return torch.linalg.solve_triangular(self._factor.lower, cross.mT, upper=False)

    def _prior(self, sites: Sites) -> Tensor:
        pairs = zip(self.regression.terms, self._parts, strict=True)
        return functools.reduce(torch.add, [t.evaluate(p, t.prepare(sites, sites)) for t, p in pairs])

    def _conditioned(self, sites: Sites, cross: Tensor, marginal: Tensor) -> tuple[Array, Array]:
        m, d = len(sites), sites.d
        white = self._white(cross)
        white = white.reshape(len(white), m, d)
        covariance = marginal - torch.einsum("kmi,kmj->mij", white, white)
        return (cross @ self._factor.alpha).reshape(m, d).numpy(), floored(covariance.numpy())

    def _moments(self, sites: Sites) -> tuple[Array, Array]:
        return self._conditioned(sites, self._cross(sites), self._marginal(sites))

    def part_moments(self, sites: Sites, index: int) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) of one term's share of the field."""
        own = self.regression.terms[index].marginal(self._parts[index], sites)
        return self._conditioned(sites, self._cross(sites, [index]), own)

    def joint(self, sites: Sites) -> tuple[Array, Array]:
        """Mean (m d,) and a root (m d, r) of the joint covariance at places, noise not included."""
        cross = self._cross(sites)
        white = self._white(cross)
        prior = self._prior(sites)
        # Amplitudes may vary: what is rounding depends on the largest variance that is taken from, here or observed.
        scale = max(self.prior_variance, float(prior.diagonal().max()) if len(prior) else 0.0)
        root = semidefinite_root((prior - white.mT @ white).numpy(), scale)
        return (cross @ self._factor.alpha).numpy(), root

    def functional(self, operator: Any, sites: Sites) -> tuple[Array, Array]:
        """Means and standard deviations (q,) of linear functionals of the field."""
        operator = sparse.csr_matrix(operator)
        means, deviations = [], []
        for first in range(0, operator.shape[0], _ROWS):
            part = operator[first : first + _ROWS]
            used = np.unique(part.indices // sites.d)
            local = sites.take(used)
            columns = (used[:, None] * sites.d + np.arange(sites.d)).ravel()
            small = part[:, columns]
            cross = self._cross(local)
            white = small @ self._white(cross).numpy().T
            spread = small @ self._prior(local).numpy()
            before = np.asarray(small.multiply(spread).sum(1)).ravel()
            means.append(small @ (cross @ self._factor.alpha).numpy())
            deviations.append(np.sqrt(np.maximum(before - np.square(white).sum(1), 0.0)))
        return np.concatenate(means), np.concatenate(deviations)

    def leave_one_out(self) -> tuple[Array, Array]:
        """Predictions of each observed place from all the others: means (m, d), covariances (m, d, d) with noise."""
        d = self.regression.sites.d
        rows = self.regression.rows.reshape(-1, d)
        mean, covariance = self._factor.leave_out(d)
        return mean * rows, covariance * rows[:, :, None] * rows[:, None, :]
