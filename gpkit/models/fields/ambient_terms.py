"""Ambient summands of the covariance of a field: projected processes, potential and rotational flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.models.fields.radial import RADIALS, correlation, gradient_correlation
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.terms import Prepared, Scales, Term

__all__ = ["HelmholtzTerm", "ProjectedTerm"]


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
