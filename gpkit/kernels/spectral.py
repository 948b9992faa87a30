"""Kernels on spectral bases: functions and vector fields on manifolds, nodes and edges of graphs."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import gpytorch
import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import Manifold, SpectralBasis
from gpkit.kernels.spectral_filters import (
    FILTERS,
    CommunicabilityFilter,
    CosineFilter,
    FunctionFilter,
    HeatFilter,
    MaternFilter,
    MonotoneFilter,
    PStepFilter,
    RegularisedLaplacianFilter,
    SpectralFilter,
)
from gpkit.operators.eigenbasis import CrossEigenbasisLinearOperator, EigenbasisLinearOperator
from gpkit.operators.structured import common_batch

__all__ = ["ConnectionLaplacianKernel", "SpectralKernel", "make_filter"]

LogResponse = Callable[[Tensor], Tensor]

_REMEMBERED = 4


def make_filter(
    spectral_filter: str | SpectralFilter | LogResponse,
    basis: SpectralBasis,
    lengthscale: Any = None,
    nu: float = 1.5,
    batch_shape: torch.Size | None = None,
) -> SpectralFilter:
    """A filter by name, with start values that suit a basis, or the one given.

    Args:
        spectral_filter: one of ``FILTERS``, a filter, or a function of eigenvalues (k,) that gives log phi (k,).
        basis: the basis it is for.
        lengthscale: start value in units of the data; that of the middle of the spectrum by default.
        nu: smoothness of a Matern filter.
        batch_shape: of the parameters.

    Raises:
        InvalidDataError: an unknown name.
    """
    if isinstance(spectral_filter, SpectralFilter):
        return spectral_filter
    if callable(spectral_filter):
        return FunctionFilter(spectral_filter, batch_shape)
    if spectral_filter not in FILTERS:
        raise InvalidDataError(
            f"filter must be one of {', '.join(FILTERS)}, a SpectralFilter or a function, got {spectral_filter!r}"
        )
    largest = float(basis.eigenvalues[-1]) if basis.k and basis.eigenvalues[-1] > 0.0 else 1.0
    # The length of the slowest mode that varies decides what is long.
    varying = basis.eigenvalues[basis.eigenvalues > 1e-6 * largest]
    longest = float(varying[0]) ** -0.5 if varying.size else 1.0
    scale = 0.5 * longest if lengthscale is None else lengthscale
    if spectral_filter == "matern":
        return MaternFilter(nu, scale, basis.dim, batch_shape=batch_shape)
    if spectral_filter == "heat":
        return HeatFilter(scale, batch_shape)
    if spectral_filter == "monotone":
        return MonotoneFilter(8, largest, longest, batch_shape=batch_shape)
    if spectral_filter == "regularised-laplacian":
        return RegularisedLaplacianFilter(scale, batch_shape=batch_shape)
    if spectral_filter == "communicability":
        return CommunicabilityFilter(batch_shape=batch_shape)
    # Both are for eigenvalues up to 2, or to where this basis ends.
    top = max(2.0, largest if math.isnan(basis.next_eigenvalue) else basis.next_eigenvalue)
    if spectral_filter == "cosine":
        return CosineFilter(top, batch_shape)
    return PStepFilter(offset=top, batch_shape=batch_shape)


class SpectralKernel(gpytorch.kernels.Kernel):
    """``k(x, x') = sum_l S_l phi_l(x) phi_l(x')`` with a spectrum from a filter, normalised to mean variance 1.

    Inputs with one column are node numbers; inputs with as many columns as the space around the manifold are points, to
    which the basis is extended. For vector fields every input stands for d rows, its tangent coordinates (in the frame
    of the node, or in the frame that the extension chose: see :meth:`extension`).

    Args:
        basis: the modes.
        spectral_filter: a filter or its name (see ``gpkit.kernels.spectral_filters``), or a function of eigenvalues
            (k,) that gives the logarithm (k,) of the variances, up to a constant.
        lengthscale: start value, in units of the data.
        nu: smoothness of a Matern filter.
        batch_shape: of the parameters.
        active_dims: input columns that the kernel sees.
    """

    has_lengthscale = False

    def __init__(
        self,
        basis: SpectralBasis | Any,
        spectral_filter: str | SpectralFilter | LogResponse = "matern",
        *,
        lengthscale: Any = None,
        nu: float = 1.5,
        batch_shape: torch.Size | None = None,
        active_dims: Any = None,
    ) -> None:
        if not isinstance(basis, SpectralBasis):
            raise InvalidDataError(
                f"a spectral kernel needs a SpectralBasis, such as manifold.scalar_basis(), got {type(basis).__name__}"
            )
        shape = torch.Size() if batch_shape is None else torch.Size(batch_shape)
        if isinstance(spectral_filter, SpectralFilter):
            shape = spectral_filter.batch_shape
        super().__init__(batch_shape=shape, active_dims=active_dims)
        self.basis = basis
        self.spectral_filter = make_filter(spectral_filter, basis, lengthscale, nu, shape)
        self._remembered: list[tuple[Tensor, Tensor, Tensor]] = []
        self._warned = False

    def _like(self, spectral_filter: SpectralFilter) -> SpectralKernel:
        """The same kernel with another filter; the basis is shared."""
        new = copy.deepcopy(self, {id(self.basis): self.basis})
        new.spectral_filter = spectral_filter
        new.batch_shape = spectral_filter.batch_shape
        return new

    def __getitem__(self, index: Any) -> SpectralKernel:
        """The kernel of some batch elements."""
        return self._like(self.spectral_filter[index]) if len(self.batch_shape) else self

    def expand_batch(self, *sizes: Any) -> SpectralKernel:
        """Copies of the kernel along new batch dimensions."""
        shape = torch.Size(sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes)
        return self if shape == self.batch_shape else self._like(self.spectral_filter.expand_batch(shape))

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """Rows per input: the dimension for vector fields, else 1."""
        return self.basis.components

    @property
    def is_stationary(self) -> bool:
        """Not a function of differences of inputs."""
        return False

    def spectrum(self) -> Tensor:
        """Variance of each mode (*batch_shape, k); they sum to 1, the mean variance over the nodes."""
        like = next(self.spectral_filter.parameters(), None)
        options = {} if like is None else {"dtype": like.dtype, "device": like.device}
        eigenvalues = torch.as_tensor(self.basis.eigenvalues, **{"dtype": torch.float64, **options})
        return torch.softmax(self.spectral_filter.log_response(eigenvalues), dim=-1)

    def features(self, x: Tensor | None = None) -> Tensor:
        """Modes (*batch, m d, k) at inputs (*batch, m, 1 or D), or all nodes; the same tensor for the same inputs."""
        nodes = torch.arange(self.basis.n, dtype=torch.float64).unsqueeze(-1) if x is None else x
        return self._modes(nodes)[0]

    def _modes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and rows (*batch, m d) that are 1 for places far from all nodes (prior variance only), else 0."""
        for inputs, features, far in self._remembered:
            if inputs is x or (inputs.shape == x.shape and inputs.device == x.device and torch.equal(inputs, x)):
                return features, far
        batch, (m, columns) = x.shape[:-2], x.shape[-2:]
        d, k = self.basis.components, self.basis.k
        flat = x.detach().cpu().reshape(-1, columns).double().numpy()
        if columns == 1:
            values = self.basis.features(flat[:, 0])
            lost = torch.zeros(len(flat), dtype=torch.float64)
        else:
            extension = self.basis.extend(flat)
            values = extension.features.reshape(-1, k)
            lost = torch.as_tensor(extension.far, dtype=torch.float64)
        options: dict[str, Any] = {"dtype": x.dtype if x.is_floating_point() else torch.float64, "device": x.device}
        features = torch.as_tensor(values).reshape(*batch, m * d, k).to(**options)
        far = lost.repeat_interleave(d).reshape(*batch, m * d).to(**options)
        self._remembered = [(x.detach().clone(), features, far), *self._remembered[: _REMEMBERED - 1]]
        return features, far

    def check_rank(self, rows: int, expected_noise: float | None = None, noise: float | None = None) -> bool:
        """Warn if the modes are too few for the data; True if they are enough.

        Args:
            rows: number of observed coordinates.
            expected_noise: noise standard deviation that is known, if any.
            noise: noise standard deviation that was fitted.

        Warns:
            DataWarning: fewer modes than observations while the fitted noise exceeds the expected one (or, where
                nothing is known of it, while the last mode has a thousandth of the mean variance of a mode).
        """
        if self.basis.complete or self.basis.k >= rows:
            return True
        if noise is not None and expected_noise is not None:
            short = noise > 1.2 * expected_noise
        else:
            spectrum = self.spectrum().detach()
            short = bool((spectrum[..., -1] > 1e-3 / self.basis.k).any())
        if short and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.basis.k} modes may be too few for {rows} observed coordinates: what they cannot express counts "
                "as noise; use more modes, or a MarkovKernel, which has all of them",
                DataWarning,
                stacklevel=2,
            )
        return not short

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between inputs; an operator, or (*batch, m d) with ``diag``."""
        if last_dim_is_batch:
            raise NotImplementedError("last_dim_is_batch is not supported by spectral kernels")
        same = x1 is x2 or (x1.shape == x2.shape and torch.equal(x1, x2))
        left, far = self._modes(x1)
        right, _ = (left, far) if same else self._modes(x2)
        spectrum = self.spectrum()
        batch = common_batch(spectrum.shape[:-1], left.shape[:-2], right.shape[:-2])
        spectrum = spectrum.to(left.dtype).expand(*batch, -1)
        if left.shape[:-2] != batch:
            left, far = left.expand(*batch, *left.shape[-2:]), far.expand(*batch, -1)
        if right.shape[:-2] != batch:
            right = right.expand(*batch, *right.shape[-2:])
        if diag:
            values = torch.einsum("...nk,...k,...nk->...n", left, spectrum, right)
            return values + far if same else values
        if same:
            # Nothing far: one stored zero, so that a constant noise added to it is known to be constant.
            lost = far if bool(far.any()) else torch.zeros(*batch, 1, dtype=left.dtype, device=left.device)
            return EigenbasisLinearOperator(left, spectrum, lost.expand(*batch, left.shape[-2]))
        return CrossEigenbasisLinearOperator(left, right, spectrum)


class ConnectionLaplacianKernel(SpectralKernel):
    """Gaussian vector fields on a manifold: modes are eigenfields of the connection Laplacian.

    The kernel does not depend on the choice of frames, and moves with the manifold.

    Args:
        manifold: a point cloud or mesh, or a connection basis of one.
        spectral_filter: a filter, its name or a function.
        rank: number of modes to solve for, where a manifold is given.
        solver: of the eigenproblem; see :meth:`SpectralBasis.of`.
        cache: folder that keeps bases by their content.
        **kwargs: as of :class:`SpectralKernel`.

    References:
        Singer & Wu (2012), CPAM 65, 1067; Peach et al. (2024), ICLR (vector fields over latent manifolds).
    """

    def __init__(
        self,
        manifold: Manifold | SpectralBasis,
        spectral_filter: str | SpectralFilter | LogResponse = "matern",
        *,
        rank: int = 300,
        solver: str = "auto",
        cache: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(manifold, Manifold):
            basis = manifold.connection_basis(rank, solver=solver, cache=cache)
        else:
            basis = manifold
        if getattr(basis, "kind", "connection") != "connection":
            raise InvalidDataError(f"a connection kernel needs a basis of vector fields, got a {basis.kind} basis")
        super().__init__(basis, spectral_filter, **kwargs)
