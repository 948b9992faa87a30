"""Intrinsic summands of the covariance of a field: modes of a Laplacian with variances by a filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpkit.geometry import SpectralBasis
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.terms import Prepared, Scales, Term, between

__all__ = ["MaternResponse", "Response", "SpectralPart", "SpectralTerm", "heat_response"]

Response = Callable[[Tensor, Tensor], Tensor]


def heat_response(eigenvalues: Tensor, lengthscale: Tensor) -> Tensor:
    """Logarithm of the heat filter exp(-lengthscale^2 lam / 2)."""
    return -0.5 * lengthscale**2 * eigenvalues


@dataclass(frozen=True)
class MaternResponse:
    """Logarithm of the Matern filter (2 nu / lengthscale^2 + lam)^(-nu - dim/2), relative to lam = 0.

    Attributes:
        nu: Smoothness.
        dim: Dimension of the manifold.
    """

    nu: float
    dim: int

    def __call__(self, eigenvalues: Tensor, lengthscale: Tensor) -> Tensor:
        """At eigenvalues (k,)."""
        return -(self.nu + 0.5 * self.dim) * torch.log1p(eigenvalues * lengthscale**2 / (2.0 * self.nu))


@dataclass(frozen=True, eq=False)
class SpectralPart:
    """Modes of one basis that share an amplitude and a length scale.

    Attributes:
        basis: Name of the basis in :class:`Sites`.
        eigenvalues: (k,), in 1 / length^2.
        label: What the part is, where there are several.
        size: Number of modes that there would be without a cut.
        dim: Dimension of the manifold, for the growth of the eigenvalues that were cut.
        bound: At least the largest eigenvalue that there is, cut or not; 0 if nothing is known.
    """

    basis: str
    eigenvalues: Tensor
    label: str = ""
    size: int = 0
    dim: int = 2
    bound: float = 0.0

    @classmethod
    def of(cls, name: str, basis: SpectralBasis, label: str = "") -> SpectralPart:
        """The part made of all modes of a basis."""
        whole = basis.kind in ("connection", "scalar")
        size = basis.n * basis.components if whole else basis.k
        bound = 0.0
        if whole and basis.manifold is not None and not basis.complete:
            # Gershgorin's circles.
            bound = float(abs(basis.manifold.laplacian(basis.kind).symmetric).sum(1).max())
        values = torch.from_numpy(np.maximum(basis.eigenvalues, 0.0))
        return cls(name, values, label, size, max(basis.dim, 1), bound)


class SpectralTerm(Term):
    """Basis functions with independent weights, whose variances are a filter of the Laplacian's eigenvalues.

    Args:
        name: Of the term.
        part: The basis; it has a length scale if it has more than one eigenvalue.
        response: Logarithm of the filter.
        scales: Units of the problem.
    """

    def __init__(self, name: str, part: SpectralPart, response: Response, scales: Scales) -> None:
        self.name = name
        self.part = part
        self.response = response
        values = part.eigenvalues
        self._flat = not (len(values) and float(values.max() - values.min()) > 0.0)
        lengthscale = () if self._flat else (scales.lengthscale("lengthscale"),)
        self.parameters = (*lengthscale, scales.amplitude("amplitude"))

    def log_response(self, theta: Tensor, eigenvalues: Tensor) -> Tensor:
        """Log of the filter (k,) at eigenvalues (k,)."""
        return torch.zeros_like(eigenvalues) if self._flat else self.response(eigenvalues, torch.exp(theta[0]))

    def log_spectrum(self, theta: Tensor) -> Tensor:
        """Logarithms of the weights' variances (k,), which sum to the variance of the field."""
        response = self.log_response(theta, self.part.eigenvalues)
        return 2.0 * theta[-1] + response - torch.logsumexp(response, 0)

    def tail(self, theta: Tensor) -> float:
        """Share of the variance that modes beyond the basis would have.

        The eigenvalues that were cut are taken to grow as Weyl's law says, lam ~ number^(2 / dim), from the last one.
        """
        values, k = self.part.eigenvalues, len(self.part.eigenvalues)
        if not k or k >= self.part.size:
            return 0.0
        number = torch.arange(k + 1, self.part.size + 1, dtype=torch.float64)
        beyond = values[-1] * (number / k) ** (2.0 / self.part.dim)
        if self.part.bound:
            beyond = beyond.clamp_max(max(self.part.bound, float(values[-1])))
        log_all = self.log_response(theta, torch.cat([values, beyond]))
        return float(torch.exp(torch.logsumexp(log_all[k:], 0) - torch.logsumexp(log_all, 0)))

    def features(self, sites: Sites) -> Tensor:
        """Values (m d, k) of the basis functions."""
        return sites.features[self.part.basis].flatten(0, 1)

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """Features of both sides, and the places between the nodes where they are the same."""
        return self.features(left), self.features(right), between(left, right)

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """Phi diag(S) Phi'^T, with the variance that is lost between the nodes on the diagonal."""
        left, right, inside = prepared
        spectrum = torch.exp(self.log_spectrum(theta))
        block = (left * spectrum) @ right.mT
        if not inside.numel():
            return block
        own = block.diagonal().reshape(len(inside), -1)
        lost = inside * (spectrum.sum() - own.mean(1)).clamp_min(0.0)
        return block + torch.diag(lost.repeat_interleave(own.shape[1]))

    def mean_variance(self, theta: Tensor) -> Tensor:
        """The sum of the spectrum."""
        return torch.exp(self.log_spectrum(theta)).sum()

    def unresolved(self, theta: Tensor, sites: Sites) -> Tensor:
        """What is left of the mean variance where modes are damped between the nodes; all of it at far places."""
        inside = between(sites, sites)
        if not inside.numel():
            return torch.zeros(len(sites), dtype=torch.float64)
        spectrum = torch.exp(self.log_spectrum(theta))
        own = (self.features(sites).square() @ spectrum).reshape(len(sites), -1).mean(1)
        return inside * (spectrum.sum() - own).clamp_min(0.0)

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """Prior covariances at each place."""
        spectrum = torch.exp(self.log_spectrum(theta))
        features = self.features(sites)
        features = features.reshape(len(sites), sites.d, features.shape[-1])
        eye = torch.eye(sites.d, dtype=torch.float64)
        return (features * spectrum) @ features.mT + self.unresolved(theta, sites)[:, None, None] * eye
