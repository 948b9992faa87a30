"""Covariance of a state-space process at new times given noisy data: lazy, never formed, O(N + M) per question."""

from __future__ import annotations

from typing import Any

import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.operators import generators as sweeps
from gpkit.operators.covariances import Structure
from gpkit.operators.cross import CrossSemiseparableLinearOperator
from gpkit.operators.semiseparable import SemiseparableLinearOperator
from gpkit.operators.structured import (
    StructuredLinearOperator,
    common_batch,
    in_batch,
    refuse_gradient,
    warn_of_borrowed_noise,
)

__all__ = ["PosteriorCovarianceLinearOperator"]

_CHUNK = 64


class _LatentVariance(torch.autograd.Function):
    """Variance by a sweep, O(N + M); only a backward pass, if one is asked for, costs O(N M)."""

    @staticmethod
    def forward(ctx: Any, operator: PosteriorCovarianceLinearOperator, *tensors: Tensor) -> Tensor:
        ctx.structure = operator.structure
        ctx.save_for_backward(*tensors)
        remembered = operator._latent_variance
        return operator._smoothed_variance() if remembered is None else remembered.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            tensors = [t.detach().requires_grad_(w) for t, w in zip(ctx.saved_tensors, wanted, strict=True)]
            variance = PosteriorCovarianceLinearOperator(*tensors, structure=ctx.structure)._differentiable_diagonal()
            sources = [t for t in tensors if t.requires_grad]
            found = iter(torch.autograd.grad(variance, sources, grad, allow_unused=True))
        return (None, *(next(found) if w else None for w in wanted))


class PosteriorCovarianceLinearOperator(StructuredLinearOperator):
    """``K(s, s) - K(s, t) (K(t, t) + R)^-1 K(t, s) + diag(diagonal)`` for a state-space kernel.

    The diagonal costs one smoothing sweep over data and new times together; products, samples, determinants and
    quadratic forms are sweeps as well (the determinant is the ratio of the joint and the data evidence).

    Args:
        new_times: (*batch, M) times s, any order.
        times: (*batch, N) data times t.
        params: (*batch, P).
        noise: (*batch, N) noise variances R, ``inf`` for missing data.
        diagonal: (*batch, M) absorbed diagonal (noise of the new observations).
        feedback: (*batch, J, J) for ``structure=GIVEN``, else None.
        structure: sum of products of factor names, or GIVEN.
    """

    def __init__(
        self,
        new_times: Tensor,
        times: Tensor,
        params: Tensor,
        noise: Tensor,
        diagonal: Tensor,
        feedback: Tensor | None = None,
        *,
        structure: Structure,
    ) -> None:
        tensors = (new_times, times, params, noise, diagonal)
        super().__init__(*(tensors if feedback is None else (*tensors, feedback)), structure=structure)
        self.feedback = feedback
        self.new_times = new_times
        self.times = times
        self.params = params
        self.noise = noise
        self.diagonal_values = diagonal
        self.structure = structure
        self._train: SemiseparableLinearOperator | None = None
        self._latent_variance: Tensor | None = None
        self.training_noise: Tensor | None = None

    def _size(self) -> torch.Size:
        return torch.Size((*self.new_times.shape, self.new_times.shape[-1]))

    def _transpose_nonbatch(self) -> PosteriorCovarianceLinearOperator:
        return self

    def _expand_batch(self, batch_shape: torch.Size) -> PosteriorCovarianceLinearOperator:
        lead = len(self.batch_shape)
        return type(self)(*(t.expand(*batch_shape, *t.shape[lead:]) for t in self._args), structure=self.structure)

    def _data(self) -> SemiseparableLinearOperator:
        """``K(t, t) + R``, with its factorisation once computed."""
        if self._train is None:
            self._train = SemiseparableLinearOperator(
                self.times, self.params, self.noise, self.feedback, structure=self.structure
            )
        return self._train

    def _prior(self) -> SemiseparableLinearOperator:
        zeros = torch.zeros_like(self.new_times)
        return SemiseparableLinearOperator(self.new_times, self.params, zeros, self.feedback, structure=self.structure)

    def _cross(self) -> CrossSemiseparableLinearOperator:
        return CrossSemiseparableLinearOperator(
            self.new_times, self.times, self.params, self.feedback, structure=self.structure
        )

    def _joint(self, new_diagonal: Tensor) -> SemiseparableLinearOperator:
        """Covariance of data and new points together, data first."""
        times = torch.cat([self.times, self.new_times], dim=-1)
        diagonal = torch.cat([self.noise, new_diagonal], dim=-1)
        return SemiseparableLinearOperator(times, self.params, diagonal, self.feedback, structure=self.structure)

    def _diagonal(self) -> Tensor:
        if torch.is_grad_enabled() and any(t.requires_grad for t in self._args):
            return _LatentVariance.apply(self, *self._args) + self.diagonal_values
        if self._latent_variance is not None:
            return self._latent_variance + self.diagonal_values
        variance = self._smoothed_variance()
        self.remember_variance(variance)
        return variance + self.diagonal_values

    def _smoothed_variance(self) -> Tensor:
        """Latent variance (*batch, M) from one sweep over data and new times together."""
        joint = self._joint(torch.full_like(self.new_times, torch.inf))
        _, inverse = joint._order()
        ordered = joint._sorted()
        _, variance = sweeps.smooth(ordered, torch.zeros_like(ordered.times))
        if inverse is not None:
            variance = variance.gather(-1, inverse)
        return variance[..., self.times.shape[-1] :]

    def remember_variance(self, variance: Tensor) -> None:
        """Keep the latent variance (*batch, M) that a smoothing sweep has just computed."""
        self._latent_variance = variance

    def _differentiable_diagonal(self) -> Tensor:
        """The same from solves with chunks of columns: O(N M) time, O(N) memory, with gradients."""
        prior, cross, data = self._prior(), self._cross(), self._data()
        pieces = []
        for start in range(0, self.shape[-1], _CHUNK):
            rows = cross._getitem(slice(start, start + _CHUNK), slice(None), *[slice(None)] * len(self.batch_shape))
            block = rows.to_dense().mT
            pieces.append((block * data.solve(block)).sum(-2))
        explained = torch.cat(pieces, dim=-1) if pieces else torch.zeros_like(self.new_times)
        return prior._diagonal() - explained

    def _matmul(self, rhs: Tensor) -> Tensor:
        vector = rhs.dim() == 1
        columns = rhs.unsqueeze(-1) if vector else rhs
        cross = self._cross()
        explained = cross._matmul(self._data().solve(cross._transpose_nonbatch()._matmul(columns)))
        out = self._prior()._matmul(columns) - explained + self.diagonal_values.unsqueeze(-1) * columns
        return out.squeeze(-1) if vector else out

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def to_dense(self) -> Tensor:
        """The matrix itself, (*batch, M, M): quadratic memory, on request only."""
        eye = torch.eye(self.shape[-1], dtype=self.dtype, device=self.device)
        dense = self._matmul(eye.expand(*self.batch_shape, *eye.shape))
        return 0.5 * (dense + dense.mT)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        return self.to_dense()[(*batch_indices, row_index, col_index)]

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        same = isinstance(row_index, slice) and isinstance(col_index, slice) and row_index == col_index
        if same and not any(torch.is_tensor(index) for index in batch_indices):
            new = [t[(*batch_indices, row_index)] for t in (self.new_times, self.diagonal_values)]
            params, feedback = in_batch(self.params, self.feedback, batch_indices)
            times, noise = (t[batch_indices] if batch_indices else t for t in (self.times, self.noise))
            return type(self)(new[0], times, params, noise, new[1], feedback, structure=self.structure)
        return to_linear_operator(self.to_dense()[(*batch_indices, row_index, col_index)])

    def __add__(self, other: Any) -> Any:
        """Absorb a diagonal; warn where a fixed-noise likelihood took the training points' noise for new points."""
        if not torch.equal(self.new_times, self.times):
            warn_of_borrowed_noise(self.training_noise, other)
        return super().__add__(other)

    def _add_diagonal_values(self, values: Tensor) -> PosteriorCovarianceLinearOperator:
        batch = common_batch(self.batch_shape, values.shape[:-1])
        base = self if batch == self.batch_shape else self._expand_batch(batch)
        diagonal = base.diagonal_values + values.expand(*batch, self.shape[-1])
        data = (base.times, base.params, base.noise)
        out = type(self)(base.new_times, *data, diagonal, base.feedback, structure=self.structure)
        if base is self and self._latent_variance is not None:
            out.remember_variance(self._latent_variance)
        return out

    def _mul_constant(self, other: Any) -> LinearOperator:
        scale = torch.as_tensor(other, dtype=self.dtype, device=self.device)
        prior = self._data()._mul_constant(scale)
        assert isinstance(prior, SemiseparableLinearOperator)
        column = scale.expand(prior.batch_shape).unsqueeze(-1)
        lead = len(self.batch_shape)
        new, diagonal = (t.expand(*prior.batch_shape, *t.shape[lead:]) for t in (self.new_times, self.diagonal_values))
        data = (prior.times, prior.params, prior.diagonal_values)
        return type(self)(new, *data, diagonal * column, prior.feedback, structure=self.structure)

    def inv_quad_logdet(
        self, inv_quad_rhs: Tensor | None = None, logdet: bool | None = False, reduce_inv_quad: bool | None = True
    ) -> tuple[Tensor, Tensor]:
        """Quadratic form and log-determinant: the joint evidence of data and new points over that of the data."""
        joint, data = self._joint(self.diagonal_values), self._data()
        zeros = torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)
        determinant = zeros
        if logdet:
            determinant = joint.logdet() - data.logdet()
        if inv_quad_rhs is None:
            return torch.zeros(0, dtype=self.dtype), determinant
        rhs = inv_quad_rhs.unsqueeze(-1) if inv_quad_rhs.dim() == 1 else inv_quad_rhs
        padding = rhs.new_zeros(*rhs.shape[:-2], self.times.shape[-1], rhs.shape[-1])
        padded = torch.cat([padding, rhs], dim=-2)
        quad, _ = joint.inv_quad_logdet(padded, logdet=False, reduce_inv_quad=reduce_inv_quad)
        return quad, determinant

    def logdet(self) -> Tensor:
        """Log-determinant, exact."""
        return self.inv_quad_logdet(logdet=True)[1]

    def solve(self, right_tensor: Tensor, left_tensor: Tensor | None = None) -> Tensor:
        """Exact solve: the new rows of a solve with the joint matrix (zero data)."""
        vector = right_tensor.dim() == 1
        rhs = right_tensor.unsqueeze(-1) if vector else right_tensor
        padding = rhs.new_zeros(*rhs.shape[:-2], self.times.shape[-1], rhs.shape[-1])
        out = self._joint(self.diagonal_values).solve(torch.cat([padding, rhs], dim=-2))[..., -self.shape[-1] :, :]
        out = out.squeeze(-1) if vector else out
        return out if left_tensor is None else left_tensor @ out

    def _solve(self, rhs: Tensor, preconditioner: Any = None, num_tridiag: int | None = 0) -> Tensor:
        return self.solve(rhs)

    def _cholesky(self, upper: bool = False) -> Any:
        raise self._lose_structure("a triangular factor", "draw samples directly, or factor to_dense()")

    def zero_mean_mvn_samples(self, num_samples: int) -> Tensor:
        """Exact draws (num_samples, *batch, M) by conditioning joint prior draws (Matheron's rule), O(N + M) each."""
        with torch.no_grad():
            draws = self._draw(num_samples)
        return refuse_gradient(draws, "draws from a posterior", self._args)

    def _draw(self, num_samples: int) -> Tensor:
        n = self.times.shape[-1]
        joint = self._joint(torch.zeros_like(self.new_times))
        latent = joint.without_diagonal().zero_mean_mvn_samples(num_samples).movedim(0, -1)
        seen = torch.isfinite(self.noise)
        spread = torch.where(seen, self.noise, torch.zeros_like(self.noise)).sqrt().unsqueeze(-1)
        data = latent[..., :n, :] + spread * torch.randn_like(latent[..., :n, :])
        update = self._cross()._matmul(self._data().solve(data))
        draws = latent[..., n:, :] - update
        draws = draws + self.diagonal_values.sqrt().unsqueeze(-1) * torch.randn_like(draws)
        return draws.movedim(-1, 0)
