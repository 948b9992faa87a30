"""Kernels on the nodes of graphs and on the edges of complexes."""

from __future__ import annotations

from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.constraints import Positive
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.geometry.cell_complex import CellComplex, HodgeBasis
from gpkit.geometry.graph import Graph
from gpkit.kernels.markov import MarkovKernel
from gpkit.kernels.spectral import LogResponse, SpectralKernel
from gpkit.kernels.spectral_filters import SpectralFilter
from gpkit.operators.random_features import RandomFeatureLinearOperator, WalkFeatures

__all__ = ["GraphKernel", "HodgeKernel", "WalkKernel", "walk_modulation"]

_SERIES = ("regularised-laplacian", "regularised-laplacian-2", "diffusion")


def walk_modulation(series: str, longest: int, time: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Weights f (longest + 1,) of walk lengths with ``f * f = alpha`` (convolution) for ``K = sum_r alpha_r U^r``.

    Args:
        series: "regularised-laplacian" ``(I - U)^-1``, "regularised-laplacian-2" ``(I - U)^-2`` or "diffusion"
            ``exp(time U)``.
        longest: length at which walks are cut.
        time: of the diffusion.

    Raises:
        InvalidDataError: another series.
    """
    f = np.ones(longest + 1)
    for length in range(1, longest + 1):
        if series == "regularised-laplacian":
            f[length] = f[length - 1] * (2 * length - 1) / (2 * length)
        elif series == "diffusion":
            f[length] = f[length - 1] * 0.5 * time / length
        elif series != "regularised-laplacian-2":
            raise InvalidDataError(f"series must be one of {', '.join(_SERIES)}, got {series!r}")
    return f


class WalkKernel(gpytorch.kernels.Kernel):
    r"""Graph random features: ``K = sum_r alpha_r U^r`` of a decayed adjacency matrix, estimated by random walks.

    A named approximation whose error falls like one over the square root of the number of walks (faster with spread
    walks); products cost O(walks) per node at any size. Kernels are not normalised: the variance of a node depends on
    its surroundings, as that of the exact series does.

    Args:
        graph: where to walk.
        walks: walks from each node.
        series: start value of the modulation, see :func:`walk_modulation`.
        decay: spectral radius of U.
        learn_modulation: make the weights of walk lengths parameters (signs are kept).
        variant: "psd" (one set of walks; a covariance, the diagonal is biased upwards by 1 / walks) or "unbiased" (two
            sets; every entry is right on average, but the matrix is no covariance).
        quasi: spread the walks evenly.
        stop: probability to stop at each step.
        longest: steps after which walks are cut.
        time: of the diffusion series.
        seed: of the walks.

    References:
        Choromanski (2023), NeurIPS 36; Reid et al. (2024), ICLR.
    """

    has_lengthscale = False

    def __init__(
        self,
        graph: Graph,
        walks: int = 100,
        *,
        series: str = "regularised-laplacian-2",
        decay: float = 0.7,
        learn_modulation: bool = False,
        variant: str = "psd",
        quasi: bool = True,
        stop: float = 0.1,
        longest: int = 64,
        time: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if variant not in ("psd", "unbiased"):
            raise InvalidDataError(f"variant must be 'psd' or 'unbiased', got {variant!r}")
        weights = walk_modulation(series, longest, time)
        matrix = graph.walk_matrix(decay)
        built_in = None if learn_modulation else weights
        sets = [
            WalkFeatures.of(
                matrix, walks, stop=stop, longest=longest, quasi=quasi, modulation=built_in, seed=2 * seed + which
            )
            for which in range(1 if variant == "psd" else 2)
        ]
        self.walk_features = tuple(sets)
        self.graph = graph
        self.learn_modulation = learn_modulation
        if learn_modulation:
            start = torch.as_tensor(weights).clamp_min(1e-12)
            constraint = Positive()
            self.register_parameter("raw_modulation", torch.nn.Parameter(constraint.inverse_transform(start)))
            self.register_constraint("raw_modulation", constraint)

    @property
    def modulation(self) -> Tensor:
        """Weights of walk lengths; ones where they are built into the features."""
        if not self.learn_modulation:
            return torch.ones(1, dtype=torch.float64)
        value: Tensor = self.raw_modulation_constraint.transform(self.raw_modulation)
        return value

    @property
    def is_stationary(self) -> bool:
        """Not a function of differences of inputs."""
        return False

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between node numbers (m, 1): an operator for equal inputs, else dense."""
        if last_dim_is_batch or x1.dim() != 2 or x2.dim() != 2:
            raise NotImplementedError("graph random features take one set of node numbers (m, 1), not a batch of them")
        same = x1 is x2 or (x1.shape == x2.shape and torch.equal(x1, x2))
        rows = self._rows(x1 if same else torch.cat([x1, x2]))
        zeros = torch.zeros(rows[0].rows, dtype=torch.float64)
        operator = RandomFeatureLinearOperator(
            self.modulation, zeros, first=rows[0], second=rows[1] if len(rows) > 1 else None
        )
        if same:
            return operator._diagonal() if diag else operator
        dense = operator.to_dense()[: len(x1), len(x1) :]
        return dense.diagonal() if diag else to_linear_operator(dense)

    def _rows(self, x: Tensor) -> list[WalkFeatures]:
        nodes = self.graph.where(x.detach().cpu().double().numpy())
        everything = len(nodes) == self.graph.n and bool((nodes == np.arange(self.graph.n)).all())
        return [features if everything else features.take(nodes) for features in self.walk_features]


class GraphKernel(gpytorch.kernels.Kernel):
    """Gaussian processes on the nodes of a graph; inputs are node numbers (m, 1).

    Args:
        graph: a :class:`~gpkit.geometry.Graph`.
        spectral_filter: a filter, its name or a function of eigenvalues, for the spectral method.
        method: "spectral" (the first ``rank`` modes), "precision" (a Matern of integer or rational ``alpha`` with all
            modes) or "grf" (random walks; the arguments of :class:`WalkKernel` are passed on).
        rank: number of modes.
        operator: "normalised" or "combinatorial" Laplacian; communicability takes the adjacency matrix.
        alpha: power, for "precision".
        lengthscale: start value.
        nu: smoothness of a Matern filter.
        **kwargs: of :class:`WalkKernel`, for "grf".

    Attributes:
        part: the kernel that does the work.

    Raises:
        InvalidDataError: an unknown method, or not a graph.
    """

    has_lengthscale = False

    def __init__(
        self,
        graph: Graph | Any,
        spectral_filter: str | SpectralFilter | LogResponse = "matern",
        *,
        method: str = "spectral",
        rank: int = 300,
        operator: str = "normalised",
        alpha: float = 2.0,
        lengthscale: Any = None,
        nu: float = 1.5,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.method = method
        if not isinstance(graph, Graph):
            raise InvalidDataError(f"a graph kernel needs a gpkit.geometry.Graph, got {type(graph).__name__}")
        if kwargs and method != "grf":
            raise InvalidDataError(f"method={method!r} does not take {', '.join(kwargs)}")
        part: gpytorch.kernels.Kernel
        if method == "spectral":
            chosen = "adjacency" if spectral_filter == "communicability" else operator
            part = SpectralKernel(graph.basis(rank, chosen), spectral_filter, lengthscale=lengthscale, nu=nu)
        elif method == "precision":
            start = 1.0 if lengthscale is None else lengthscale
            part = MarkovKernel(graph.laplacian(operator == "normalised"), 0, alpha, start)
        elif method == "grf":
            part = WalkKernel(graph, **kwargs)
        else:
            raise InvalidDataError(f"method must be 'spectral', 'precision' or 'grf', got {method!r}")
        self.part = part

    @property
    def is_stationary(self) -> bool:
        """Not a function of differences of inputs."""
        return False

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Any:
        """Covariance between node numbers."""
        return self.part.forward(x1, x2, diag=diag, **params)


class HodgeKernel(gpytorch.kernels.Kernel):
    """Flows on the edges of a complex: gradient, curl and harmonic parts, each with its own amplitude and filter.

    Inputs are edge numbers (m, 1). The spectra of the parts are put side by side: the operator is one eigenbasis.

    Args:
        basis: of a complex, as its ``hodge_basis`` makes it; or the complex, for the default numbers of modes.
        spectral_filter: name of the filter of the gradient and of the curl part.
        lengthscale: start value for both.
        nu: smoothness of Matern filters.

    Raises:
        InvalidDataError: neither a complex nor a basis of one.

    References:
        Yang et al. (2024), AISTATS.
    """

    has_lengthscale = False

    def __init__(
        self,
        basis: HodgeBasis | CellComplex | Any,
        spectral_filter: str = "matern",
        *,
        lengthscale: Any = None,
        nu: float = 1.5,
    ) -> None:
        super().__init__()
        basis = basis.hodge_basis() if isinstance(basis, CellComplex) else basis
        if not isinstance(basis, HodgeBasis):
            raise InvalidDataError(f"edge flows live on a CellComplex or a basis of one, got {type(basis).__name__}")
        self.basis = basis
        parts = {}
        for name, part in basis.parts.items():
            kernel = SpectralKernel(
                part, "heat" if name == "harmonic" else spectral_filter, lengthscale=lengthscale, nu=nu
            )
            if name == "harmonic":  # a single eigenvalue, zero: a filter has nothing to choose
                kernel.spectral_filter.raw_lengthscale.requires_grad_(False)
            parts[name] = kernel
        self.parts = torch.nn.ModuleDict(parts)
        constraint = Positive()
        start = constraint.inverse_transform(torch.full((len(parts),), 1.0 / len(parts), dtype=torch.float64))
        self.register_parameter("raw_variances", torch.nn.Parameter(start))
        self.register_constraint("raw_variances", constraint)

    @property
    def variances(self) -> Tensor:
        """Mean variance of each part, in the order of ``parts``."""
        value: Tensor = self.raw_variances_constraint.transform(self.raw_variances)
        return value

    @variances.setter
    def variances(self, value: Any) -> None:
        raw = torch.as_tensor(value, dtype=self.raw_variances.dtype).expand(self.raw_variances.shape)
        self.initialize(raw_variances=self.raw_variances_constraint.inverse_transform(raw))

    @property
    def is_stationary(self) -> bool:
        """Not a function of differences of inputs."""
        return False

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Any:
        """Covariance between edge numbers: one eigenbasis operator, or (*batch, m) with ``diag``."""
        pieces = zip(self.variances, self.parts.values(), strict=True)
        if diag:
            return sum(v * kernel.forward(x1, x2, diag=True, **params) for v, kernel in pieces)
        terms = [kernel.forward(x1, x2, **params) * v for v, kernel in pieces]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
