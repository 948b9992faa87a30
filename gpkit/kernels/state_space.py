"""Linear-Gaussian state space of a stationary kernel: generator, stationary covariance, observation vector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpkit.operators.covariances import Structure, split_parameters

__all__ = ["PSD_CONVENTIONS", "StateSpace", "block_diagonal", "kronecker", "state_space_of"]

PSD_CONVENTIONS = ("one-sided", "two-sided", "celerite")


@dataclass(frozen=True)
class StateSpace:
    """``dx = F x dt + noise``, ``f = h . x``, with stationary covariance ``P_inf``.

    The transition convention is ``x(t2) = A(t1, t2) x(t1)`` with ``A = exp(F (t2 - t1))``, so that
    ``k(t2, t1) = h^T A(t1, t2) P_inf h`` for ``t2 >= t1``.

    Attributes:
        feedback: F, (*batch, J, J), per unit time.
        stationary_covariance: P_inf, (*batch, J, J).
        observation: h, (*batch, J).
    """

    feedback: Tensor
    stationary_covariance: Tensor
    observation: Tensor

    @property
    def dimension(self) -> int:
        """State dimension J."""
        return int(self.feedback.shape[-1])

    def transition(self, step: Tensor) -> Tensor:
        """A over non-negative time steps (*s): (*batch, *s, J, J)."""
        lead = self.feedback.dim() - 2
        feedback = self.feedback.reshape(*self.feedback.shape[:lead], *([1] * step.dim()), *self.feedback.shape[-2:])
        return torch.matrix_exp(feedback * step[..., None, None])

    def process_noise(self, step: Tensor) -> Tensor:
        """Covariance ``P_inf - A P_inf A^T`` of the noise that enters over each step, (*batch, *s, J, J)."""
        a = self.transition(step)
        p = self.stationary_covariance
        p = p.reshape(*p.shape[:-2], *([1] * step.dim()), *p.shape[-2:])
        return p - a @ p @ a.mT

    def autocovariance(self, lag: Tensor) -> Tensor:
        """k at lags (*s) of either sign: (*batch, *s)."""
        a = self.transition(lag.abs())
        left = self.observation.reshape(*self.observation.shape[:-1], *([1] * lag.dim()), 1, self.dimension)
        right = (self.stationary_covariance @ self.observation.unsqueeze(-1)).squeeze(-1)
        right = right.reshape(*right.shape[:-1], *([1] * lag.dim()), self.dimension, 1)
        return (left @ a @ right)[..., 0, 0]

    def psd(self, frequency: Tensor, convention: str = "one-sided") -> Tensor:
        """Power spectral density at ordinary frequencies (*s), in cycles per unit time: (*batch, *s).

        Args:
            frequency: non-negative frequencies f.
            convention: "one-sided" integrates to the variance over f in (0, inf); "two-sided" over all f;
                "celerite" is ``S(omega) = (2 pi)^(-1/2) int k e^(-i omega tau) d tau`` at omega = 2 pi f.

        Raises:
            ValueError: for another convention.
        """
        if convention not in PSD_CONVENTIONS:
            raise ValueError(f"convention must be one of {', '.join(PSD_CONVENTIONS)}, got {convention!r}")
        j = self.dimension
        omega = 2.0 * math.pi * frequency
        feedback = self.feedback.reshape(*self.feedback.shape[:-2], *([1] * omega.dim()), j, j).to(torch.complex128)
        eye = torch.eye(j, dtype=torch.complex128)
        resolvent = 1j * omega[..., None, None] * eye - feedback
        # S = h R Q R^H h with the noise's spectral matrix Q: a sum of squares, while 2 Re(h R P h) cancels far out.
        drift = self.feedback @ self.stationary_covariance
        noise = -(drift + drift.mT)
        noise = noise.reshape(*noise.shape[:-2], *([1] * omega.dim()), j, j).to(torch.complex128)
        left = self.observation.reshape(*self.observation.shape[:-1], *([1] * omega.dim()), j, 1).to(torch.complex128)
        solved, singular = torch.linalg.solve_ex(resolvent.mT, left.expand(*resolvent.shape[:-1], 1))
        two_sided = (solved.mT @ noise @ solved.conj())[..., 0, 0].real.clamp_min(0.0)
        # An undamped oscillation has all its power at one frequency.
        two_sided = two_sided.masked_fill(singular > 0, math.inf)
        scale = {"one-sided": 2.0, "two-sided": 1.0, "celerite": 1.0 / math.sqrt(2.0 * math.pi)}[convention]
        return scale * two_sided


def _stack(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _celerite_corner(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Corner of P_inf that makes a celerite term's process noise positive semidefinite (its spectral factor)."""
    root = ((c * c + d * d) * (c * c * a * a - d * d * b * b).clamp_min(0.0)).sqrt()
    below = c * c * a + root
    safe = torch.where(below > 0, below, torch.ones_like(below))
    return a + torch.where(below > 0, 2.0 * (b * b * (c * c + d * d) - c * c * a * a) / safe, torch.zeros_like(a))


def _factor(name: str, arguments: list[Tensor]) -> tuple[Tensor, Tensor]:
    """F and unit-variance P_inf of one factor; h is the first unit vector."""
    first = arguments[0]
    zero, one = torch.zeros_like(first), torch.ones_like(first)
    if name == "exponential":
        return _stack([[-first]]), _stack([[one]])
    if name == "matern52":
        feedback = _stack([[zero, first, zero], [zero, zero, first], [-first, -3.0 * first, -3.0 * first]])
        return feedback, _stack([[one, zero, -one / 3.0], [zero, one / 3.0, zero], [-one / 3.0, zero, one]])
    if name == "celerite":
        a, b, c, d = arguments
        return _stack([[-c, d], [-d, -c]]), _stack([[a, b], [b, _celerite_corner(a, b, c, d)]])
    damping = one * 2.0 if name == "matern32" else 1.0 / arguments[1]
    return _stack([[zero, first], [-first, -damping * first]]), _stack([[one, zero], [zero, one]])


def state_space_of(structure: Structure, params: Tensor) -> StateSpace:
    """State space of a sum of products: block-diagonal sums of Kronecker sums of generators."""
    blocks_f: list[Tensor] = []
    blocks_p: list[Tensor] = []
    for variance, factors in split_parameters(structure, params):
        feedback: Tensor | None = None
        covariance = variance[..., None, None]
        for name, arguments in factors:
            f, p = _factor(name, arguments)
            if feedback is None:
                feedback = f
            else:
                eye_left = torch.eye(feedback.shape[-1], dtype=f.dtype)
                eye_right = torch.eye(f.shape[-1], dtype=f.dtype)
                feedback = kronecker(feedback, eye_right) + kronecker(eye_left, f)
            covariance = kronecker(covariance, p)
        assert feedback is not None
        blocks_f.append(feedback)
        blocks_p.append(covariance)
    first = torch.cat([torch.nn.functional.one_hot(torch.zeros((), dtype=torch.long), b.shape[-1]) for b in blocks_f])
    batch = params.shape[:-1]
    observation = first.to(params.dtype).expand(*batch, first.shape[0])
    return StateSpace(block_diagonal(blocks_f), block_diagonal(blocks_p), observation)


def kronecker(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker product of the last two dimensions, with broadcast batches."""
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    return product.reshape(*batch, a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1])


def block_diagonal(blocks: list[Tensor]) -> Tensor:
    """Block-diagonal matrix (*batch, J, J) of square blocks with broadcastable batches."""
    batch = torch.broadcast_shapes(*(block.shape[:-2] for block in blocks))
    blocks = [block.expand(*batch, *block.shape[-2:]) for block in blocks]
    size = sum(block.shape[-1] for block in blocks)
    rows = []
    at = 0
    for block in blocks:
        width = block.shape[-1]
        rows.append(torch.nn.functional.pad(block, (at, size - at - width)))
        at += width
    return torch.cat(rows, dim=-2)
