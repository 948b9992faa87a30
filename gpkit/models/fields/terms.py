"""Summands of the covariance of a field: spectral (intrinsic), ambient and projected, potential and rotational flows.

A term knows its parameters, prepares once what does not depend on them, and evaluates its block of covariance as a
differentiable function of their logarithms. Fields are stacks of tangent coordinates, place by place.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.geometry import SpectralBasis
from gpkit.inference.log_parameters import LogParameter
from gpkit.models.fields.radial import RADIALS, correlation, gradient_correlation
from gpkit.models.fields.sites import Sites
from gpkit.operators.sparse_symmetric import SparsePattern

__all__ = [
    "ConstantTerm",
    "HelmholtzTerm",
    "MaternResponse",
    "ProjectedTerm",
    "Scales",
    "SpectralPart",
    "SpectralTerm",
    "Term",
    "between",
    "heat_response",
]

Prepared = tuple[Tensor, ...]
Response = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scales:
    """Units of a problem: priors and ranges of parameters are multiples of these.

    Attributes:
        length: Size of the manifold, its root mean square radius.
        value: Root mean square of a coordinate of the data.
    """

    length: float
    value: float

    def lengthscale(self, name: str, start: float = 0.5) -> LogParameter:
        """A length scale; ``start`` in units of the size."""
        u = self.length
        return LogParameter(name, start * u, 0.005 * u, 100.0 * u, 0.5 * u, 1.5, "length")

    def amplitude(self, name: str, start: float = 1.0) -> LogParameter:
        """A standard deviation; ``start`` in units of the data."""
        u = self.value
        return LogParameter(name, start * u, 1e-4 * u, 1e4 * u, u, 1.5, "value")

    def noise(self) -> LogParameter:
        """The standard deviation of the noise per coordinate."""
        u = self.value
        return LogParameter("noise", 0.1 * u, 1e-6 * u, 5.0 * u, 0.1 * u, 2.0, "value")


class Term(ABC):
    """One summand.

    Attributes:
        name: What results call it.
        parameters: Its parameters.
    """

    name: str
    parameters: tuple[LogParameter, ...]

    @abstractmethod
    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """What does not depend on the parameters."""

    @abstractmethod
    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The block of covariance (m d, m' d) at logarithms of the parameters (P,)."""

    @abstractmethod
    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """Prior covariances (m, d, d) at each place by itself."""

    def mean_variance(self, theta: Tensor) -> Tensor | None:
        """Prior variance of a coordinate, the mean over the nodes; None for terms that know places by coordinates."""
        return None

    def unresolved(self, theta: Tensor, sites: Sites) -> Tensor:
        """Prior variance (m,) of a coordinate between the nodes about which the nodes say nothing."""
        return torch.zeros(len(sites), dtype=torch.float64)

    def scan(self) -> list[tuple[float, ...]]:
        """Starting points (logarithms) among which a fit chooses the best; length scales vary, the rest is as given."""
        start = [math.log(p.start) for p in self.parameters]
        out = []
        for factor in (0.15, 0.4, 1.0, 2.5):
            point = [
                min(max(s + math.log(factor), math.log(p.low)), math.log(p.high)) if p.unit == "length" else s
                for s, p in zip(start, self.parameters, strict=True)
            ]
            out.append(tuple(point))
        return list(dict.fromkeys(out))


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


def between(left: Sites, right: Sites) -> Tensor:
    """Ones (m,) where a place is not a node and both sides are the same; nothing where there is no such place."""
    inside = (left.nodes < 0) | left.far
    return torch.as_tensor(inside).double() if left is right and inside.any() else torch.zeros(0)


def _distances(left: Sites, right: Sites) -> Tensor:
    if left.points is None or right.points is None:
        raise InvalidDataError("an ambient kernel needs coordinates, and these nodes have none")
    return torch.cdist(left.points, right.points, compute_mode="donot_use_mm_for_euclid_dist")


def _frame_products(left: Sites, right: Sites) -> Tensor:
    """T^T T' (m, d, m', d)."""
    return torch.einsum("aDi,bDj->aibj", left.frames, right.frames)


class ProjectedTerm(Term):
    """A radial kernel of the ambient space between tangent projections: k(|x - x'|) T_x^T T_x'.

    Args:
        radial: One of :data:`gpkit.models.fields.radial.RADIALS`.
        scales: Units of the problem.
    """

    def __init__(self, radial: str, scales: Scales) -> None:
        if radial not in RADIALS:
            raise InvalidDataError(f"unknown radial kernel {radial!r}; choose from {', '.join(RADIALS)}")
        self.radial = radial
        self.name = f"projected:{radial}"
        self.parameters = (scales.lengthscale("lengthscale"), scales.amplitude("amplitude"))

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """Distances and products of frames."""
        return _distances(left, right), _frame_products(left, right)

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The block of covariance."""
        distance, products = prepared
        values = torch.exp(2.0 * theta[1]) * correlation(self.radial, distance, torch.exp(theta[0]))
        block = values[:, None, :, None] * products
        return block.reshape(block.shape[0] * block.shape[1], block.shape[2] * block.shape[3])

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """The variance times the identity: frames are orthonormal."""
        return (torch.exp(2.0 * theta[1]) * torch.eye(sites.d, dtype=torch.float64)).expand(len(sites), -1, -1)


class HelmholtzTerm(Term):
    r"""Tangent projections of a potential flow and of a rotational one, each with its own amplitude.

    The potential flow is the projected gradient of an ambient Gaussian process; the rotational one is such a gradient
    turned by a right angle in the oriented tangent plane (a stream function). Where there is no such plane (other
    dimensions, surfaces that have no orientation) the second is a projected process without structure.

    Args:
        radial: Covariance of the potentials: "rbf", or Matern with nu of at least 5/2.
        scales: Units of the problem.
        oriented: Whether the frames are those of an oriented surface.
    """

    def __init__(self, radial: str, scales: Scales, *, oriented: bool) -> None:
        if radial not in RADIALS or RADIALS[radial] < 2.5:
            smooth = [name for name, nu in RADIALS.items() if nu >= 2.5]
            raise InvalidDataError(f"a potential must be one of {', '.join(smooth)}, not {radial!r}")
        self.radial = radial
        self.oriented = oriented
        self.name = f"helmholtz:{radial}"
        second = "rotational_amplitude" if oriented else "unstructured_amplitude"
        half = math.sqrt(0.5)
        self.parameters = (
            scales.lengthscale("lengthscale", 1.0),
            scales.amplitude("potential_amplitude", half),
            scales.amplitude(second, half),
        )

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """Distances, products of frames, and products of the tangent parts of the separation."""
        distance, products = _distances(left, right), _frame_products(left, right)
        assert left.points is not None and right.points is not None
        h = left.points[:, None] - right.points[None]
        u = torch.einsum("abD,aDi->aib", h, left.frames)
        v = torch.einsum("abD,bDj->abj", h, right.frames)
        return distance, products, u[:, :, :, None] * v[:, None, :, :]

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The block of covariance."""
        distance, products, outer = prepared
        a, b = gradient_correlation(self.radial, distance, torch.exp(theta[0]))
        flow = a[:, None, :, None] * products - b[:, None, :, None] * outer
        # J M J'^T of 2 x 2 blocks M, J a right angle: the transposed adjugate.
        other = (
            torch.flip(flow, (1, 3)) * _QUARTER[None, :, None, :]
            if self.oriented
            else correlation(self.radial, distance, torch.exp(theta[0]))[:, None, :, None] * products
        )
        block = torch.exp(2.0 * theta[1]) * flow + torch.exp(2.0 * theta[2]) * other
        return block.reshape(block.shape[0] * block.shape[1], block.shape[2] * block.shape[3])

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """The sum of the variances times the identity."""
        variance = torch.exp(2.0 * theta[1]) + torch.exp(2.0 * theta[2])
        return (variance * torch.eye(sites.d, dtype=torch.float64)).expand(len(sites), -1, -1)


_QUARTER = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)


class ConstantTerm(Term):
    """An unknown constant of a scalar field, with a wide normal prior.

    Args:
        width: Standard deviation of the prior.
    """

    def __init__(self, width: float) -> None:
        self.name = "constant"
        self.parameters = ()
        self.variance = width**2

    def scan(self) -> list[tuple[float, ...]]:
        """Nothing to scan."""
        return [()]

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """The block itself."""
        return (torch.full((left.rows, right.rows), self.variance, dtype=torch.float64),)

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The variance everywhere."""
        return prepared[0]

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """The variance at each place."""
        return torch.full((len(sites), 1, 1), self.variance, dtype=torch.float64)

    def features(self, sites: Sites) -> Tensor:
        """One column of ones."""
        return torch.ones((sites.rows, 1), dtype=torch.float64)

    @property
    def pattern(self) -> SparsePattern:
        """Of the precision of one unknown."""
        return SparsePattern.of(sparse.identity(1, format="csc"))

    def precision(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The precision and its logarithm."""
        value = torch.tensor([1.0 / self.variance], dtype=torch.float64)
        return value, value.log().squeeze()

    def selection(self, sites: Sites) -> Any:
        """The unknown is in every row; sparse (m d, 1)."""
        return sparse.csr_matrix(np.ones((sites.rows, 1)))
