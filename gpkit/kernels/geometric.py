"""Spaces of GeometricKernels (sphere, SO(n), SPD, hyperbolic, ...) as gpkit kernels with structured operators."""

from __future__ import annotations

import math
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

_REMEMBERED = 4


class GeometricKernel(gpytorch.kernels.Kernel):
    """A Matern or heat kernel on a space of the GeometricKernels package, of unit variance.

    Without ``features`` the covariance is dense, with exact algebra: the package's truncated series on compact spaces.
    With ``features`` it has low rank:

    * spaces with explicit eigenfunctions (circle, low-dimensional spheres, graphs, meshes, products of them): the
      first ``features`` levels of the spectrum. The eigenfunctions do not depend on hyper-parameters, so that a fit
      evaluates them once and costs O(k^3) per step, as with gpkit's own spectral kernels.
    * other compact spaces (SO(n), SU(n)) and spaces that are not compact (hyperbolic, SPD matrices): ``features``
      random phases, a Monte Carlo estimate whose error falls like one over the square root of their number. Spaces
      that are not compact have no other kernel, and ``features`` must be given.

    Args:
        space: a space of ``geometric_kernels.spaces``; points are given as the package wants them, matrices flattened.
        nu: smoothness; infinity is the heat kernel.
        lengthscale: start value, in the space's own units.
        features: levels or random phases of a low-rank kernel, or None.
        levels: levels of the series where that number is not ``features``; the package's choice by default.
        point_shape: shape of a point, for spaces of matrices; what the space says by default.
        seed: of random phases.

    Raises:
        MissingDependencyError: geometric-kernels cannot be imported.
        InvalidDataError: nu, lengthscale, features or levels out of range, or a space whose kernels take other
            parameters.

    References:
        Mostowsky et al. (2024), The GeometricKernels package, arXiv 2407.08086; Azangulov et al. (2024), JMLR 25
        (random phases).
    """

    has_lengthscale = False

    def __init__(
        self,
        space: Any,
        nu: float = 2.5,
        lengthscale: float = 1.0,
        features: int | None = None,
        *,
        levels: int | None = None,
        point_shape: tuple[int, ...] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        package = _package()
        if not nu > 0.0 or not 0.0 < lengthscale < math.inf:
            raise InvalidDataError(f"nu and lengthscale must be positive, got {nu} and {lengthscale}")
        for name, value in (("features", features), ("levels", levels)):
            if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
                raise InvalidDataError(f"{name} must be an integer of at least 1, got {value!r}")
        self.space = space
        self.nu = float(nu)
        self.seed = seed
        self.point_shape = _shape_of(space) if point_shape is None else tuple(point_shape)
        self._kernel: Any = None
        self._map: Any = None
        self._eigenfunctions: Any = None
        self._remembered: list[tuple[Tensor, Tensor]] = []
        if not isinstance(space, package.spaces.DiscreteSpectrumSpace):
            self._without_series(package, space, features, levels)
        elif isinstance(space, package.spaces.HodgeDiscreteSpectrumSpace):
            raise InvalidDataError(
                f"kernels on {type(space).__name__} have a length scale for each Hodge part: use gpkit.kernels."
                "HodgeKernel on a CellComplex"
            )
        else:
            self._with_series(package, space, features, levels)
        constraint = Positive()
        start = constraint.inverse_transform(torch.tensor(float(lengthscale), dtype=torch.float64))
        self.register_parameter("raw_lengthscale", torch.nn.Parameter(start))
        self.register_constraint("raw_lengthscale", constraint)

    def _without_series(self, package: Any, space: Any, features: int | None, levels: int | None) -> None:
        name = type(space).__name__
        if features is None:
            raise InvalidDataError(f"kernels on {name} are made of random phases: say how many with features=")
        if levels is not None:
            raise InvalidDataError(f"{name} has no levels: its spectrum is continuous")
        self._map = package.default_feature_map(space=space, num=int(features))

    def _with_series(self, package: Any, space: Any, features: int | None, levels: int | None) -> None:
        if features is None:
            self._kernel = package.MaternGeometricKernel(space, levels)
        elif isinstance(space, package.spaces.CompactMatrixLieGroup | package.spaces.HammingGraph):
            count = package.default_num(space) if levels is None else int(levels)
            self._map = package.RandomPhaseFeatureMapCompact(space, count, int(features))
        else:
            if levels is not None:
                raise InvalidDataError(
                    f"{type(space).__name__} has explicit eigenfunctions: features is the number of levels"
                )
            self._spectrum_of = package.MaternKarhunenLoeveKernel.spectrum
            self._eigenvalues = torch.as_tensor(space.get_repeated_eigenvalues(int(features)), dtype=torch.float64)
            self._eigenfunctions = space.get_eigenfunctions(int(features))
            try:  # high levels of high-dimensional spheres are not tabulated, which only shows when they are evaluated
                self._eigenfunctions(torch.as_tensor(space.random(torch.Generator().manual_seed(0), 1)[1]))
            except ValueError as error:
                raise InvalidDataError(
                    f"{type(space).__name__} does not know its eigenfunctions up to {features} levels; use fewer, or "
                    f"none ({error})"
                ) from None

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

    def spectrum(self) -> Tensor:
        """Variance of each feature (k,); they sum to 1 where the features are eigenfunctions.

        Raises:
            InvalidDataError: the kernel was made without features.
        """
        if self._eigenfunctions is not None:
            values = self._spectrum_of(
                self._eigenvalues, dimension=self.space.dimension, **self._parameters_of_space(self._eigenvalues)
            ).reshape(-1)
            return torch.as_tensor(values / values.sum())
        if self._map is None:
            raise InvalidDataError("this kernel has no features: pass features=")
        return torch.ones(1, dtype=torch.float64)

    def features(self, x: Tensor) -> Tensor:
        """Features (m, k) at points (m, size): eigenfunctions, or random ones for the present length scale.

        Raises:
            InvalidDataError: the kernel was made without features.
        """
        if self._eigenfunctions is not None:
            return self._modes(x)
        if self._map is None:
            raise InvalidDataError("this kernel has no features: pass features=")
        # The same phases at every call: the random state starts anew.
        key = torch.Generator(device=x.device).manual_seed(self.seed)
        _, found = self._map(self._points(x), self._parameters_of_space(x), normalize=True, key=key)
        return torch.as_tensor(found)

    def _modes(self, x: Tensor) -> Tensor:
        """Eigenfunctions at points; the same tensor for the same inputs, so that what depends on it is kept."""
        if x.requires_grad:
            return torch.as_tensor(self._eigenfunctions(self._points(x)))
        for inputs, kept in self._remembered:
            if inputs.shape == x.shape and inputs.dtype == x.dtype and torch.equal(inputs, x):
                return kept
        found = torch.as_tensor(self._eigenfunctions(self._points(x))).to(x.dtype).detach()
        self._remembered = [(x.detach().clone(), found), *self._remembered[: _REMEMBERED - 1]]
        return found

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between points (m, size of a point)."""
        if last_dim_is_batch or x1.dim() != 2 or x2.dim() != 2:
            raise NotImplementedError("kernels of GeometricKernels take points (m, size), not a batch of them")
        same = x1 is x2 or (x1.shape == x2.shape and torch.equal(x1, x2))
        if self._kernel is None:
            return self._of_features(x1, x2, same, diag)
        values = self._parameters_of_space(x1)
        if diag and same:
            return torch.as_tensor(self._kernel.K_diag(values, self._points(x1)))
        matrix = torch.as_tensor(self._kernel.K(values, self._points(x1), self._points(x2)))
        if diag:
            return matrix.diagonal()
        return (
            DenseCovarianceLinearOperator.from_matrix(0.5 * (matrix + matrix.mT))
            if same
            else to_linear_operator(matrix)
        )

    def _of_features(self, x1: Tensor, x2: Tensor, same: bool, diag: bool) -> Tensor | LinearOperator:
        left = self.features(x1)
        right = left if same else self.features(x2)
        spectrum = self.spectrum().to(left.dtype).expand(left.shape[-1])
        if diag:
            return (left * spectrum * right).sum(-1)
        if same:
            # One stored zero, so that a constant noise added to it is known to be constant.
            zero = torch.zeros(1, dtype=left.dtype, device=left.device).expand(left.shape[0])
            return EigenbasisLinearOperator(left, spectrum, zero)
        return CrossEigenbasisLinearOperator(left, right, spectrum)


class _Package:
    """What is used of GeometricKernels, imported when it is first needed."""

    def __init__(self) -> None:
        import geometric_kernels.torch  # noqa: F401 - registers the backend
        from geometric_kernels import feature_maps, kernels, spaces
        from geometric_kernels.kernels.matern_kernel import default_num

        self.spaces = spaces
        self.MaternGeometricKernel = kernels.MaternGeometricKernel
        self.MaternKarhunenLoeveKernel = kernels.MaternKarhunenLoeveKernel
        self.default_feature_map = kernels.default_feature_map
        self.default_num = default_num
        self.RandomPhaseFeatureMapCompact = feature_maps.RandomPhaseFeatureMapCompact


def _package() -> _Package:
    try:
        return _Package()
    except ImportError as error:
        raise MissingDependencyError(
            "kernels on the spaces of GeometricKernels need geometric-kernels, which cannot be imported "
            f"({error}): pip install 'gpkit-bayes[geometric]', which needs a numpy below 2.4"
        ) from None


def _shape_of(space: Any) -> tuple[int, ...] | None:
    """Shape of a point, for spaces of matrices."""
    shape = getattr(space, "element_shape", None)
    return tuple(shape) if isinstance(shape, list | tuple) and len(shape) > 1 else None
