"""Regression on a field: the evidence of a sum of terms, and the posterior at given parameters.

Sums of spectral terms are reduced to a triangular factor once and cost O(k^3) per evaluation; any other sum has a dense
covariance. Which it is follows from the terms, never from the number of data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.dense_evidence import DenseFactor, dense_log_likelihood, semidefinite_root
from gpkit.inference.eigenbasis_evidence import EigenbasisStatistics
from gpkit.inference.log_parameters import LogParameter
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.terms import ConstantTerm, Scales, SpectralTerm, Term

__all__ = ["FieldPosterior", "FieldRegression"]

Array = NDArray[np.float64]

_CHUNK = 2048


class FieldRegression:
    """The likelihood of observed tangent coordinates under a sum of terms and white noise.

    Args:
        terms: The summands.
        sites: Where it was observed, m places.
        values: Tangent coordinates, (m, d).
        scales: Units of the problem.
        noise: None to learn one standard deviation; or a standard deviation for every place, (m,).

    Raises:
        InvalidDataError: no term, or values that do not fit.
    """

    def __init__(
        self, terms: Sequence[Term], sites: Sites, values: Array, scales: Scales, noise: Array | None = None
    ) -> None:
        if not terms:
            raise InvalidDataError("a field needs at least one term")
        if values.shape != (len(sites), sites.d):
            raise InvalidDataError(f"values must be ({len(sites)}, {sites.d}), got {values.shape}")
        self.terms = tuple(terms)
        self.sites = sites
        self.values = values
        self.scales = scales
        self.noise = noise
        self._targets = np.ascontiguousarray(values.reshape(-1))
        # Rows are divided by the known noise; a learnt one stays a factor.
        self._rows = np.ones(sites.rows) if noise is None else np.repeat(noise, sites.d)
        self.spectral = all(isinstance(term, SpectralTerm | ConstantTerm) for term in terms)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what can be made again."""
        made_again = ("_prepared", "features", "statistics")
        return {name: value for name, value in self.__dict__.items() if name not in made_again}

    @functools.cached_property
    def parameters(self) -> tuple[LogParameter, ...]:
        """Noise first (if it is learnt), then those of the terms, prefixed where there are several terms."""
        noise = () if self.noise is not None else (self.scales.noise(),)
        prefixed = sum(bool(term.parameters) for term in self.terms) > 1
        out = list(noise)
        for term in self.terms:
            for p in term.parameters:
                name = f"{term.name}.{p.name}" if prefixed else p.name
                out.append(LogParameter(name, p.start, p.low, p.high, p.centre, p.width, p.unit))
        return tuple(out)

    def split(self, theta: Any) -> tuple[Any, list[Any]]:
        """Logarithm of the noise's standard deviation, and the parameters of each term."""
        at = 0 if self.noise is not None else 1
        noise = 0.0 if self.noise is not None else theta[0]
        parts = []
        for term in self.terms:
            parts.append(theta[at : at + len(term.parameters)])
            at += len(term.parameters)
        return noise, parts

    # -- evidence -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def features(self) -> Tensor:
        """Basis functions of all terms at the data, (m d, k); spectral sums only."""
        return self._features(self.sites)

    def _features(self, sites: Sites) -> Tensor:
        return torch.cat([term.features(sites) for term in self.terms], dim=1)  # type: ignore[attr-defined]

    @functools.cached_property
    def statistics(self) -> EigenbasisStatistics:
        """The triangular factor of features and data, both divided by the known noise."""
        return EigenbasisStatistics.of(self.features.numpy() / self._rows[:, None], self._targets / self._rows)

    def log_spectrum(self, parts: Sequence[Tensor]) -> Tensor:
        """Logarithms of the variances (k,) of all weights; spectral sums only."""
        out = []
        for term, part in zip(self.terms, parts, strict=True):
            if isinstance(term, SpectralTerm):
                out.append(term.log_spectrum(part))
            elif isinstance(term, ConstantTerm):
                out.append(torch.tensor([math.log(term.variance)], dtype=torch.float64))
        return torch.cat(out)

    @functools.cached_property
    def _prepared(self) -> list[tuple[Tensor, ...]]:
        return [term.prepare(self.sites, self.sites) for term in self.terms]

    def covariance(self, theta: Tensor) -> Tensor:
        """Covariance of the data (m d, m d), noise included, in units of the known noise."""
        noise, parts = self.split(theta)
        total = self._sum(parts, self._prepared)
        rows = torch.from_numpy(self._rows)
        if self.noise is not None:
            return total / rows[:, None] / rows + torch.eye(len(rows), dtype=torch.float64)
        return total + torch.exp(2.0 * noise) * torch.eye(len(rows), dtype=torch.float64)

    def _sum(self, parts: Sequence[Tensor], prepared: Sequence[tuple[Tensor, ...]]) -> Tensor:
        blocks = [t.evaluate(p, made) for t, p, made in zip(self.terms, parts, prepared, strict=True)]
        return functools.reduce(torch.add, blocks)

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Log likelihood and its gradient at logarithms of the parameters.

        Raises:
            NotPositiveDefiniteError: the covariance of the data has no factor.
        """
        at = torch.tensor(np.asarray(theta, dtype=np.float64), requires_grad=True)
        jacobian = -float(np.log(self._rows).sum())
        if self.spectral:
            log_spectrum = self.log_spectrum(self.split(at)[1])
            value, slope, noise_slope = self.statistics.log_likelihood(
                log_spectrum.detach().numpy(), 2.0 * (0.0 if self.noise is not None else float(theta[0]))
            )
            if log_spectrum.requires_grad:  # not with nothing but a constant
                (log_spectrum * torch.from_numpy(slope)).sum().backward()
            gradient = np.zeros(len(theta)) if at.grad is None else at.grad.numpy().copy()
            if self.noise is None:
                gradient[0] += 2.0 * noise_slope
            return value + jacobian, gradient
        targets = torch.from_numpy(self._targets / self._rows)
        result = dense_log_likelihood(self.covariance(at), targets)
        result.backward()
        gradient = np.zeros(len(theta)) if at.grad is None else at.grad.numpy().copy()
        return float(result.detach()) + jacobian, gradient

    def starts(self) -> list[Array]:
        """Points worth trying: the terms' length scales together from short to long."""
        noise = [] if self.noise is not None else [math.log(self.scales.noise().start)]
        grids = [term.scan() for term in self.terms]
        longest = max(len(grid) for grid in grids)
        out = []
        for k in range(longest):
            point = list(noise)
            for grid in grids:
                point += grid[min(k, len(grid) - 1)]
            out.append(np.array(point))
        return out

    def posterior(self, theta: Array) -> FieldPosterior:
        """The posterior at given parameters.

        Raises:
            NotPositiveDefiniteError: the covariance of the data has no factor.
        """
        return FieldPosterior(self, np.asarray(theta, dtype=np.float64))


class FieldPosterior:
    """The field given the data and the parameters.

    Args:
        regression: Data and terms.
        theta: Logarithms of the parameters.
    """

    def __init__(self, regression: FieldRegression, theta: Array) -> None:
        self.regression = regression
        self.theta = theta
        noise, self._parts = regression.split(torch.from_numpy(theta))
        self.noise = 1.0 if regression.noise is not None else math.exp(float(noise))
        if regression.spectral:
            self._log_spectrum = regression.log_spectrum(self._parts).numpy()
            self.weights = regression.statistics.posterior(self._log_spectrum, 2.0 * math.log(self.noise))
        else:
            rows = torch.from_numpy(regression._rows)
            self._factor = DenseFactor.of(
                regression.covariance(torch.from_numpy(theta)), torch.from_numpy(regression._targets) / rows
            )
            self._rows = rows

    def lost_share(self, sites: Sites) -> float:
        """Median share of spectral terms' variance that is missing between the nodes, where fast modes are damped."""
        shares = [0.0]
        for term, part in zip(self.regression.terms, self._parts, strict=True):
            if isinstance(term, SpectralTerm) and len(sites):
                own = term.marginal(part, sites).diagonal(dim1=1, dim2=2).mean(1)
                shares.append(1.0 - float(own.median() / torch.exp(term.log_spectrum(part)).sum()))
        return max(shares)

    @property
    def prior_variance(self) -> float:
        """Largest prior variance of a coordinate: the size against which rounding is judged."""
        first = self.regression.sites.take(slice(0, 64))
        return float(self._marginal(first).diagonal(dim1=1, dim2=2).max())

    def _marginal(self, sites: Sites) -> Tensor:
        blocks = [t.marginal(p, sites) for t, p in zip(self.regression.terms, self._parts, strict=True)]
        return functools.reduce(torch.add, blocks)

    def _cross(self, sites: Sites, parts: Sequence[int] | None = None) -> Tensor:
        """Covariance of the field at places with the data, (m' d, m d), in units of the known noise."""
        blocks = []
        for index, (term, part) in enumerate(zip(self.regression.terms, self._parts, strict=True)):
            if parts is None or index in parts:
                blocks.append(term.evaluate(part, term.prepare(sites, self.regression.sites)))
        return functools.reduce(torch.add, blocks) / self._rows

    def _far_variance(self, sites: Sites) -> Array:
        """Prior variance (m,) that spectral terms have at far places, where their features are zero."""
        total = 0.0
        for term, part in zip(self.regression.terms, self._parts, strict=True):
            if isinstance(term, SpectralTerm):
                total += float(torch.exp(term.log_spectrum(part)).sum())
        return np.where(sites.far, total, 0.0)

    def moments(self, sites: Sites) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) at each place by itself, noise not included."""
        means, covariances = [], []
        for piece in sites.chunks(_CHUNK):
            mean, covariance = self._moments(piece)
            means.append(mean)
            covariances.append(covariance)
        return np.concatenate(means), np.concatenate(covariances)

    def _moments(self, sites: Sites) -> tuple[Array, Array]:
        m, d = len(sites), sites.d
        if self.regression.spectral:
            phi = self.regression._features(sites).numpy()
            half = (phi @ self.weights.root).reshape(m, d, -1)
            covariance = np.einsum("mik,mjk->mij", half, half)
            covariance += self._far_variance(sites)[:, None, None] * np.eye(d)
            return (phi @ self.weights.mean).reshape(m, d), covariance
        cross = self._cross(sites)
        white = torch.linalg.solve_triangular(self._factor.lower, cross.mT, upper=False).reshape(-1, m, d)
        dense = self._marginal(sites) - torch.einsum("kmi,kmj->mij", white, white)
        return (cross @ self._factor.alpha).reshape(m, d).numpy(), _floored(dense.numpy())

    def joint(self, sites: Sites) -> tuple[Array, Array]:
        """Mean (m d,) and a root (m d, r) of the joint covariance at places, noise not included."""
        if self.regression.spectral:
            phi = self.regression._features(sites).numpy()
            root = phi @ self.weights.root
            if sites.far.any():
                own = np.diag(np.repeat(np.sqrt(self._far_variance(sites)), sites.d))
                root = np.concatenate([root, own[:, np.repeat(sites.far, sites.d)]], axis=1)
            return phi @ self.weights.mean, root
        cross = self._cross(sites)
        white = torch.linalg.solve_triangular(self._factor.lower, cross.mT, upper=False)
        prior = [
            t.evaluate(p, t.prepare(sites, sites)) for t, p in zip(self.regression.terms, self._parts, strict=True)
        ]
        covariance = functools.reduce(torch.add, prior) - white.mT @ white
        root = semidefinite_root(covariance.numpy(), self.prior_variance)
        return (cross @ self._factor.alpha).numpy(), root

    def functional(self, operator: Any, sites: Sites) -> tuple[Array, Array]:
        """Means and standard deviations (q,) of linear functionals of the field.

        Args:
            operator: Sparse (q, m d), of the field's values at the sites.
            sites: m places.
        """
        operator = sparse.csr_matrix(operator)
        if self.regression.spectral:
            phi = operator @ self.regression._features(sites).numpy()
            half = phi @ self.weights.root
            extra = operator.power(2) @ np.repeat(self._far_variance(sites), sites.d)
            return phi @ self.weights.mean, np.sqrt(np.square(half).sum(1) + extra)
        means, deviations = [], []
        step = max(1, _CHUNK // 8)
        for first in range(0, operator.shape[0], step):
            part = operator[first : first + step]
            used = np.unique(part.indices // sites.d)
            local = sites.take(used)
            columns = (used[:, None] * sites.d + np.arange(sites.d)).ravel()
            small = part[:, columns]
            cross = self._cross(local).numpy()
            white = (
                small
                @ torch.linalg.solve_triangular(self._factor.lower, torch.from_numpy(cross.T.copy()), upper=False)
                .numpy()
                .T
            )
            prior = [
                t.evaluate(p, t.prepare(local, local)) for t, p in zip(self.regression.terms, self._parts, strict=True)
            ]
            spread = small @ functools.reduce(torch.add, prior).numpy()
            before = np.asarray(small.multiply(spread).sum(1)).ravel()
            means.append(small @ (cross @ self._factor.alpha.numpy()))
            deviations.append(np.sqrt(np.maximum(before - np.square(white).sum(1), 0.0)))
        return np.concatenate(means), np.concatenate(deviations)

    def part_moments(self, sites: Sites, index: int) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) of one term's share of the field."""
        m, d = len(sites), sites.d
        term, part = self.regression.terms[index], self._parts[index]
        if self.regression.spectral:
            sizes = [t.features(sites).shape[1] for t in self.regression.terms]  # type: ignore[attr-defined]
            first = sum(sizes[:index])
            chosen = slice(first, first + sizes[index])
            phi = term.features(sites).numpy()  # type: ignore[attr-defined]
            half = (phi @ self.weights.root[chosen]).reshape(m, d, -1)
            return (phi @ self.weights.mean[chosen]).reshape(m, d), np.einsum("mik,mjk->mij", half, half)
        cross = self._cross(sites, [index])
        white = torch.linalg.solve_triangular(self._factor.lower, cross.mT, upper=False).reshape(-1, m, d)
        covariance = term.marginal(part, sites) - torch.einsum("kmi,kmj->mij", white, white)
        return (cross @ self._factor.alpha).reshape(m, d).numpy(), _floored(covariance.numpy())

    def leave_one_out(self) -> tuple[Array, Array]:
        """Predictions of each observed place from all the others: means (m, d), covariances (m, d, d) with noise.

        Places observed twice are left out one observation at a time.
        """
        regression = self.regression
        d, rows = regression.sites.d, regression._rows.reshape(-1, regression.sites.d)
        if not regression.spectral:
            mean, covariance = self._factor.leave_out(d)
            return mean * rows, covariance * rows[:, :, None] * rows[:, None, :]
        # C^-1 = (I - Psi Psi^T / s2) / s2 with Psi = Phi root: blocks of the hat matrix leave one place out.
        phi = regression.features.numpy() / regression._rows[:, None]
        hat = ((phi @ self.weights.root) / self.noise).reshape(-1, d, len(self.weights.mean))
        fitted = (phi @ self.weights.mean).reshape(-1, d)
        y = (regression._targets / regression._rows).reshape(-1, d)
        inverse = np.linalg.inv(np.eye(d) - np.einsum("mik,mjk->mij", hat, hat))
        mean = y - np.einsum("mij,mj->mi", inverse, y - fitted)
        covariance = self.noise**2 * 0.5 * (inverse + inverse.transpose(0, 2, 1))
        return mean * rows, covariance * rows[:, :, None] * rows[:, None, :]


def _floored(covariances: Array) -> Array:
    """Symmetric blocks whose variances are not below zero by rounding."""
    blocks = 0.5 * (covariances + covariances.transpose(0, 2, 1))
    diagonal = np.einsum("mii->mi", blocks)
    diagonal[:] = np.maximum(diagonal, 0.0)
    return blocks
