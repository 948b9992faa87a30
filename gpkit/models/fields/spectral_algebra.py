"""Sums of basis functions: everything is reduced to a triangular factor once, and costs O(k^3) per evaluation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.inference.eigenbasis_evidence import EigenbasisStatistics
from gpkit.models.fields.posterior import FieldPosterior
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.spectral_term import SpectralTerm
from gpkit.models.fields.terms import ConstantTerm

if TYPE_CHECKING:
    from gpkit.models.fields.regression import FieldRegression

__all__ = ["SpectralAlgebra", "SpectralPosterior"]

Array = NDArray[np.float64]


class SpectralAlgebra:
    """Evidence of sums of spectral terms (and a constant).

    Args:
        regression: Data and terms.
    """

    def __init__(self, regression: FieldRegression) -> None:
        self.regression = regression

    @functools.cached_property
    def features(self) -> Tensor:
        """Basis functions of all terms at the data, (m d, k)."""
        return self.features_at(self.regression.sites)

    def features_at(self, sites: Sites) -> Tensor:
        """Basis functions of all terms at places, (m' d, k)."""
        # Type: terms of this algebra have it; torch.nn.ModuleList knows modules only.
        return torch.cat([term.features(sites) for term in self.regression.terms], dim=1)  # type: ignore[attr-defined]

    @functools.cached_property
    def statistics(self) -> EigenbasisStatistics:
        """The triangular factor of features and data, both divided by the known noise."""
        rows = self.regression.rows
        return EigenbasisStatistics.of(self.features.numpy() / rows[:, None], self.regression.targets / rows)

    def log_spectrum(self, parts: Sequence[Tensor]) -> Tensor:
        """Logarithms of the variances (k,) of all weights."""
        out = []
        for term, part in zip(self.regression.terms, parts, strict=True):
            if isinstance(term, SpectralTerm):
                out.append(term.log_spectrum(part))
            elif isinstance(term, ConstantTerm):
                out.append(torch.tensor([math.log(term.variance)], dtype=torch.float64))
        return torch.cat(out)

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Log likelihood of the data in units of the known noise, and its gradient."""
        at = torch.tensor(theta, requires_grad=True)
        learnt = self.regression.noise is None
        log_spectrum = self.log_spectrum(self.regression.split(at)[1])
        value, slope, noise_slope = self.statistics.log_likelihood(
            log_spectrum.detach().numpy(), 2.0 * float(theta[0]) if learnt else 0.0
        )
        if log_spectrum.requires_grad:  # not with nothing but a constant
            (log_spectrum * torch.from_numpy(slope)).sum().backward()
        gradient = np.zeros(len(theta)) if at.grad is None else at.grad.numpy().copy()
        if learnt:
            gradient[0] += 2.0 * noise_slope
        return value, gradient

    def posterior(self, theta: Array) -> SpectralPosterior:
        """The posterior at given parameters."""
        return SpectralPosterior(self, theta)


class SpectralPosterior(FieldPosterior):
    """Normal weights of basis functions.

    Args:
        algebra: Of the terms.
        theta: Logarithms of the parameters.
    """

    def __init__(self, algebra: SpectralAlgebra, theta: Array) -> None:
        super().__init__(algebra.regression, theta)
        self.algebra = algebra
        log_spectrum = algebra.log_spectrum(self._parts).numpy()
        self.weights = algebra.statistics.posterior(log_spectrum, 2.0 * math.log(self.noise))

    def _moments(self, sites: Sites) -> tuple[Array, Array]:
        m, d = len(sites), sites.d
        phi = self.algebra.features_at(sites).numpy()
        half = (phi @ self.weights.root).reshape(m, d, self.weights.root.shape[1])
        covariance = np.einsum("mik,mjk->mij", half, half)
        covariance += self._unresolved(sites)[:, None, None] * np.eye(d)
        return (phi @ self.weights.mean).reshape(m, d), covariance

    def joint(self, sites: Sites) -> tuple[Array, Array]:
        """Mean (m d,) and a root (m d, r) of the joint covariance at places, noise not included."""
        phi = self.algebra.features_at(sites).numpy()
        root = phi @ self.weights.root
        own = np.repeat(np.sqrt(self._unresolved(sites)), sites.d)
        if own.any():
            root = np.concatenate([root, np.diag(own)[:, own > 0.0]], axis=1)
        return phi @ self.weights.mean, root

    def functional(self, operator: Any, sites: Sites) -> tuple[Array, Array]:
        """Means and standard deviations (q,) of linear functionals of the field."""
        operator = sparse.csr_matrix(operator)
        phi = operator @ self.algebra.features_at(sites).numpy()
        half = phi @ self.weights.root
        extra = operator.power(2) @ np.repeat(self._unresolved(sites), sites.d)
        return phi @ self.weights.mean, np.sqrt(np.square(half).sum(1) + extra)

    def part_moments(self, sites: Sites, index: int) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) of one term's share of the field."""
        m, d = len(sites), sites.d
        terms: Any = self.regression.terms
        sizes = [term.features(sites).shape[1] for term in terms]
        first = sum(sizes[:index])
        chosen = slice(first, first + sizes[index])
        phi = terms[index].features(sites).numpy()
        half = (phi @ self.weights.root[chosen]).reshape(m, d, self.weights.root.shape[1])
        covariance = np.einsum("mik,mjk->mij", half, half)
        covariance += self._unresolved(sites, [index])[:, None, None] * np.eye(d)
        return (phi @ self.weights.mean[chosen]).reshape(m, d), covariance

    def leave_one_out(self) -> tuple[Array, Array]:
        """Predictions of each observed place from all the others: means (m, d), covariances (m, d, d) with noise."""
        # C^-1 = (I - Psi Psi^T / s2) / s2 with Psi = Phi root: blocks of the hat matrix leave one place out.
        regression, d = self.regression, self.regression.sites.d
        phi = self.algebra.features.numpy() / regression.rows[:, None]
        half = ((phi @ self.weights.root) / self.noise).reshape(-1, d, len(self.weights.mean))
        return self._from_hat((phi @ self.weights.mean).reshape(-1, d), np.einsum("mik,mjk->mij", half, half))
