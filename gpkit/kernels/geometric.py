"""Spaces of GeometricKernels (sphere, SO(n), SPD, hyperbolic, ...) as gpkit kernels with structured operators."""

from __future__ import annotations

from typing import Any

import gpytorch
import torch
from gpytorch.constraints import Positive
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import InvalidDataError, MissingDependencyError
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.eigenbasis import CrossEigenbasisLinearOperator, EigenbasisLinearOperator

__all__ = ["GeometricKernel"]


class GeometricKernel(gpytorch.kernels.Kernel):
    """A Matern or heat kernel on a space of the GeometricKernels package.

    With ``features`` the kernel is that of the package's finite feature map: a low-rank operator, exact for that map
    (deterministic on compact spaces with known eigenfunctions). Otherwise it is dense, with exact algebra.

    Args:
        space: a space of ``geometric_kernels.spaces``; points are given as the package wants them, matrices flattened.
        nu: smoothness; infinity is the heat kernel.
        lengthscale: start value, in the space's own units.
        features: number of levels (or of random phases) of a feature map, or None.
        point_shape: shape of a point, for spaces of matrices; inputs are rows.
        seed: of random feature maps.

    Raises:
        MissingDependencyError: geometric-kernels is not installed.
        InvalidDataError: nu or lengthscale out of range.

    References:
        Mostowsky et al. (2024), The GeometricKernels package, arXiv 2407.08086.
    """

    has_lengthscale = False

    def __init__(
        self,
        space: Any,
        nu: float = 2.5,
        lengthscale: float = 1.0,
        features: int | None = None,
        point_shape: tuple[int, ...] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        try:
            import geometric_kernels.torch  # noqa: F401 - registers the backend
            from geometric_kernels.kernels import MaternGeometricKernel, default_feature_map
        except ImportError:
            raise MissingDependencyError(
                "kernels on the spaces of GeometricKernels need geometric-kernels, which cannot be imported: "
                "pip install geometric-kernels (as of its version 1.0 together with a numpy below 2.4)"
            ) from None
        if not nu > 0.0 or not lengthscale > 0.0:
            raise InvalidDataError(f"nu and lengthscale must be positive, got {nu} and {lengthscale}")
        self.space = space
        self.nu = float(nu)
        self.point_shape = point_shape
        self.seed = seed
        self.geometric = MaternGeometricKernel(space) if features is None else MaternGeometricKernel(space, features)
        self.feature_map = None if features is None else default_feature_map(kernel=self.geometric)
        constraint = Positive()
        start = constraint.inverse_transform(torch.tensor(float(lengthscale), dtype=torch.float64))
        self.register_parameter("raw_lengthscale", torch.nn.Parameter(start))
        self.register_constraint("raw_lengthscale", constraint)

    @property
    def lengthscale(self) -> Tensor:
        """Length scale, in the space's own units."""
        value: Tensor = self.raw_lengthscale_constraint.transform(self.raw_lengthscale)
        return value

    @lengthscale.setter
    def lengthscale(self, value: Any) -> None:
        natural = torch.as_tensor(value, dtype=self.raw_lengthscale.dtype)
        self.initialize(raw_lengthscale=self.raw_lengthscale_constraint.inverse_transform(natural))

    @property
    def is_stationary(self) -> bool:
        """Not a function of differences of inputs."""
        return False

    def _parameters_of_space(self, like: Tensor) -> dict[str, Tensor]:
        return {
            "nu": torch.tensor([self.nu], dtype=like.dtype, device=like.device),
            "lengthscale": self.lengthscale.reshape(1).to(like.dtype),
        }

    def _points(self, x: Tensor) -> Tensor:
        return x if self.point_shape is None else x.reshape(*x.shape[:-1], *self.point_shape)

    def features(self, x: Tensor) -> Tensor:
        """Features (m, k) of the map, for the present length scale.

        Raises:
            InvalidDataError: the kernel was made without a feature map.
        """
        if self.feature_map is None:
            raise InvalidDataError("this kernel has no feature map: pass features=")
        key = torch.Generator(device=x.device).manual_seed(self.seed)
        _, found = self.feature_map(self._points(x), self._parameters_of_space(x), normalize=True, key=key)
        return torch.as_tensor(found)

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between points (m, size of a point)."""
        if last_dim_is_batch or x1.dim() != 2 or x2.dim() != 2:
            raise NotImplementedError("kernels of GeometricKernels take points (m, size), not a batch of them")
        same = x1 is x2 or (x1.shape == x2.shape and torch.equal(x1, x2))
        if self.feature_map is not None:
            left = self.features(x1)
            right = left if same else self.features(x2)
            if diag:
                return (left * right).sum(-1)
            ones = torch.ones(left.shape[-1], dtype=left.dtype, device=left.device)
            if same:
                zero = torch.zeros(1, dtype=left.dtype, device=left.device).expand(left.shape[0])
                return EigenbasisLinearOperator(left, ones, zero)
            return CrossEigenbasisLinearOperator(left, right, ones)
        values = self._parameters_of_space(x1)
        if diag and same:
            return torch.as_tensor(self.geometric.K_diag(values, self._points(x1)))
        matrix = torch.as_tensor(self.geometric.K(values, self._points(x1), self._points(x2)))
        if diag:
            return matrix.diagonal()
        return DenseCovarianceLinearOperator(0.5 * (matrix + matrix.mT)) if same else to_linear_operator(matrix)
