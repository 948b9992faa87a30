"""Averages of a process over bins: exposure times, light-curve bins, monthly means."""

from __future__ import annotations

from typing import Any, NamedTuple

import gpytorch
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.base import StateSpaceKernel
from gpkit.kernels.composite import as_state_space
from gpkit.kernels.state_space import StateSpace

__all__ = ["BinAveragedKernel", "BinnedStates"]


class BinnedStates(NamedTuple):
    """State space of bins that follow each other: the bin's average, then the base kernel's state at its end.

    Attributes:
        transitions: from the end of each bin to the end of the next, (*batch, N, J + 1, J + 1); the last is not used.
        covariance: stationary covariance at the end of each bin, (*batch, N, J + 1, J + 1).
    """

    transitions: Tensor
    covariance: Tensor


class _Integrals(NamedTuple):
    """Over widths w: ``A(w)``, ``int_0^1 A(w u) du`` and ``int_0^1 (1 - u) A(w u) du``, each (*batch, *s, J, J)."""

    transition: Tensor
    once: Tensor
    twice: Tensor


def _integrals(feedback: Tensor, width: Tensor) -> _Integrals:
    """From one exponential of a block matrix, which has no singular point at width zero."""
    j = feedback.shape[-1]
    scaled = feedback * width[..., None, None]
    matrix = scaled.new_zeros(*scaled.shape[:-2], 3 * j, 3 * j)
    eye = torch.eye(j, dtype=feedback.dtype, device=feedback.device)
    matrix[..., :j, :j] = scaled
    matrix[..., :j, j : 2 * j] = eye
    matrix[..., j : 2 * j, 2 * j :] = eye
    full = torch.matrix_exp(matrix)
    return _Integrals(full[..., :j, :j], full[..., :j, j : 2 * j], full[..., :j, 2 * j :])


class BinAveragedKernel(gpytorch.kernels.Kernel):
    r"""Covariance of averages of a process over bins.

    .. math:: \bar k(i, j) = \frac{1}{w_i w_j}\int_{B_i}\int_{B_j} k(s - t)\,ds\,dt

    Inputs have two columns, the centre of a bin and its width; a bin of width zero is a point. Evaluated as a kernel it
    is dense and exact for any bins. In :mod:`gpkit.inference.state_space`, where coordinates are (*batch, N, 2), bins
    that do not overlap are exact in O(N): the state is augmented by the integral over the current bin. The integral
    over a bin is its average times its width.

    Args:
        base_kernel: a state-space kernel of the process.

    Raises:
        InvalidDataError: if the base kernel has no state space.
    """

    has_lengthscale = False

    def __init__(self, base_kernel: gpytorch.kernels.Kernel, **kwargs: Any) -> None:
        converted = as_state_space(base_kernel)
        if converted is None:
            raise InvalidDataError(
                f"{type(base_kernel).__name__} has no state space, so that bins cannot be integrated"
            )
        kwargs.setdefault("batch_shape", converted.batch_shape)
        super().__init__(**kwargs)
        self.base_kernel = converted

    @property
    def is_stationary(self) -> bool:
        """Widths are part of the inputs."""
        return False

    def _space(self, extra: int) -> StateSpace:
        """The base kernel's state space, with ``extra`` dimensions after its batch."""
        base: StateSpaceKernel = self.base_kernel
        space = base.state_space()
        j, batch = space.dimension, space.feedback.shape[:-2]
        ones = [1] * extra
        return StateSpace(
            space.feedback.reshape(*batch, *ones, j, j),
            space.stationary_covariance.reshape(*batch, *ones, j, j),
            space.observation.reshape(*batch, *ones, j),
        )

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """Covariance between bins (*batch, N, 2) and (*batch, M, 2), dense.

        Raises:
            InvalidDataError: for inputs that are not centre and width, and widths that are negative.
        """
        for x in (x1, x2):
            _checked(x)
        centre1, width1 = x1.unbind(-1)
        centre2, width2 = x2.unbind(-1)
        if not diag:
            centre1, width1 = centre1.unsqueeze(-1), width1.unsqueeze(-1)
            centre2, width2 = centre2.unsqueeze(-2), width2.unsqueeze(-2)
        space = self._space(1 if diag else 2)
        gap = (centre1 - centre2).abs() - 0.5 * (width1 + width2)
        apart = _apart(space, gap.clamp_min(0.0), width1, width2)
        if bool((gap >= 0.0).all()):
            return apart
        return torch.where(gap >= 0.0, apart, _overlapping(space, (centre1 - centre2).abs(), width1, width2))

    def binned_states(self, bins: Tensor) -> BinnedStates:
        """State space of bins (*batch, N, 2) in the order of time.

        Raises:
            InvalidDataError: for inputs that are not centre and width, widths that are negative, and bins that overlap
                or are not in the order of time.
        """
        _checked(bins)
        centre, width = bins.unbind(-1)
        start, end = centre - 0.5 * width, centre + 0.5 * width
        gap = start[..., 1:] - end[..., :-1]
        # Edges that were meant to touch may differ by a rounding error.
        slack = 4.0 * torch.finfo(bins.dtype).eps * (centre.abs()[..., 1:] + width[..., 1:] + width[..., :-1])
        bad = (gap < -slack).detach()
        if bool(bad.any()):
            where = bad.nonzero()[0].tolist()
            raise InvalidDataError(
                f"bins must follow each other: bins {where[-1]} and {where[-1] + 1} overlap, or are not in "
                "the order of time"
            )
        gap = torch.nn.functional.pad(gap.clamp_min(0.0), (1 if centre.shape[-1] else 0, 0))
        space = self._space(1)
        j = space.dimension
        integrals = _integrals(space.feedback, width)
        h, p = space.observation, space.stationary_covariance
        first = p @ h.unsqueeze(-1)
        average = 2.0 * (h.unsqueeze(-2) @ integrals.twice @ first)
        shared = integrals.once @ first
        wide = p.expand(*shared.shape[:-2], j, j)
        covariance = torch.cat([torch.cat([average, shared.mT], -1), torch.cat([shared, wide], -1)], -2)
        across = torch.matrix_exp(space.feedback * gap[..., None, None])
        rows = torch.cat([h.unsqueeze(-2) @ integrals.once @ across, integrals.transition @ across], -2)
        transitions = torch.nn.functional.pad(rows, (1, 0))
        # Those computed lead into each bin; those wanted lead out of it.
        return BinnedStates(torch.roll(transitions, -1, -3), covariance)


def _checked(bins: Tensor) -> None:
    if bins.dim() < 2 or bins.shape[-1] != 2:
        raise InvalidDataError(f"bins must be (*batch, N, 2), centre and width, got shape {tuple(bins.shape)}")
    bad = (bins[..., 1] < 0.0).detach()
    if bool(bad.any()):
        where = bad.nonzero()[0].tolist()
        raise InvalidDataError(f"widths of bins must not be negative, that of bin {where} is")


def _apart(space: StateSpace, gap: Tensor, width1: Tensor, width2: Tensor) -> Tensor:
    """Covariance of bins with a gap between them: both integrals factor through the states at its ends."""
    h = space.observation.unsqueeze(-2)
    p = space.stationary_covariance @ h.mT
    left, right = _integrals(space.feedback, width1).once, _integrals(space.feedback, width2).once
    across = torch.matrix_exp(space.feedback * gap[..., None, None])
    value: Tensor = (h @ left @ across @ right @ p)[..., 0, 0]
    return value


def _overlapping(space: StateSpace, distance: Tensor, width1: Tensor, width2: Tensor) -> Tensor:
    """Covariance of overlapping bins, by differences of the second antiderivative of the covariance."""
    h = space.observation.unsqueeze(-2)
    p = space.stationary_covariance @ h.mT

    def antiderivative(lag: Tensor) -> Tensor:
        value: Tensor = lag.square() * (h @ _integrals(space.feedback, lag.abs()).twice @ p)[..., 0, 0]
        return value

    def point(lag: Tensor) -> Tensor:
        value: Tensor = (h @ torch.matrix_exp(space.feedback * lag.abs()[..., None, None]) @ p)[..., 0, 0]
        return value

    def line(start: Tensor, length: Tensor) -> Tensor:
        """Average of the covariance over lags from start to start + length, which may include zero."""
        end = start + length
        both = []
        for edge in (start, end):
            mean = (h @ _integrals(space.feedback, edge.abs()).once @ p)[..., 0, 0]
            both.append(edge * mean)
        return (both[1] - both[0]) / torch.where(length > 0.0, length, 1.0)

    outer, inner = 0.5 * (width1 + width2), 0.5 * (width1 - width2)
    product = width1 * width2
    whole = (
        antiderivative(distance + outer)
        + antiderivative(distance - outer)
        - antiderivative(distance + inner)
        - antiderivative(distance - inner)
    )
    # A point in a bin is a single integral.
    longer = torch.maximum(width1, width2)
    thin = torch.where(longer > 0.0, line(distance - 0.5 * longer, longer), point(distance))
    return torch.where(product > 0.0, whole / torch.where(product > 0.0, product, 1.0), thin)
