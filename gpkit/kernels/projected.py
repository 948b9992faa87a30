"""Ambient kernels made intrinsic by projection to the tangent spaces."""

from __future__ import annotations

from typing import Any

import gpytorch
import torch
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.geometry import Manifold
from gpkit.operators.dense import DenseCovarianceLinearOperator

__all__ = ["ProjectedKernel"]

_REMEMBERED = 4


class ProjectedKernel(gpytorch.kernels.Kernel):
    r"""Vector fields by an ambient kernel: ``k(x, x') T_x^T T_x'`` in tangent coordinates.

    It is the covariance of a vector-valued process with independent coordinates in the space around the manifold,
    projected to the tangent spaces: positive semidefinite, independent of the choice of frames, and known wherever
    there is a frame. Strong where the manifold is smooth and well embedded; misled where sheets come close.

    Args:
        base: any kernel of points (m, D), in units of the data.
        manifold: gives the frames.

    References:
        Hutchinson et al. (2021), NeurIPS 34 (projected, gauge-independent kernels).
    """

    def __init__(self, base: gpytorch.kernels.Kernel, manifold: Manifold) -> None:
        super().__init__()  # the batch shape is that of the base kernel
        self.base_kernel = base
        self.manifold = manifold
        self._remembered: list[tuple[Tensor, Tensor, Tensor]] = []

    def __getitem__(self, index: Any) -> ProjectedKernel:
        """The kernel of some batch elements."""
        new = super().__getitem__(index)
        new._batch_shape = torch.Size()  # GPyTorch resets it only where a kernel has parameters of its own
        return new

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """The dimension of the manifold."""
        return self.manifold.dim

    @property
    def is_stationary(self) -> bool:
        """Not a function of differences of inputs."""
        return False

    def _place(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points (*batch, m, D) and frames (*batch, m, D, d) at node numbers or points."""
        for inputs, points, frames in self._remembered:
            if inputs is x or (inputs.shape == x.shape and inputs.device == x.device and torch.equal(inputs, x)):
                return points, frames
        flat = x.detach().cpu().reshape(-1, x.shape[-1]).double().numpy()
        if x.shape[-1] == 1:
            nodes = self.manifold.where(flat[:, 0])
            coordinates, bases = self.manifold.points[nodes], self.manifold.frames[nodes]
        else:
            location = self.manifold.locate(flat)
            coordinates, bases = location.points, location.frames
        options: dict[str, Any] = {"dtype": x.dtype if x.is_floating_point() else torch.float64, "device": x.device}
        points = torch.as_tensor(coordinates).reshape(*x.shape[:-1], -1).to(**options)
        frames = torch.as_tensor(bases).reshape(*x.shape[:-1], *bases.shape[-2:]).to(**options)
        self._remembered = [(x.detach().clone(), points, frames), *self._remembered[: _REMEMBERED - 1]]
        return points, frames

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between inputs: (*batch, m d, m' d), exact at every size; (*batch, m d) with ``diag``."""
        if last_dim_is_batch:
            raise NotImplementedError("last_dim_is_batch is not supported by projected kernels")
        same = x1 is x2 or (x1.shape == x2.shape and torch.equal(x1, x2))
        points, frames = self._place(x1)
        others, turned = (points, frames) if same else self._place(x2)
        if diag:
            variance = self.base_kernel(points, others, diag=True).unsqueeze(-1)
            return (variance * (frames * turned).sum(-2)).flatten(-2)
        values = self.base_kernel(points, others).to_dense()
        overlap = torch.einsum("...mai,...naj->...minj", frames, turned)
        matrix = (values[..., :, None, :, None] * overlap).flatten(-2).flatten(-3, -2)
        return (
            DenseCovarianceLinearOperator.from_matrix(0.5 * (matrix + matrix.mT))
            if same
            else to_linear_operator(matrix)
        )
