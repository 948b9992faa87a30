"""Filter, smoother and joint draws of Markov Gaussian processes given Gaussian sites."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.state_space import scan, sequential
from gpkit.inference.state_space.paths import MarkovPaths, markov_paths
from gpkit.inference.state_space.results import FilterResult, SmoothResult
from gpkit.operators.structured import common_batch

__all__ = ["filter", "sample", "smooth"]

_BACKENDS = {"sequential": sequential, "scan": scan}


def _problem(
    kernels: Any, coordinates: Any, precision: Any, information: Any
) -> tuple[MarkovPaths, Tensor, Tensor, torch.Size]:
    """Prior paths, symmetric precision, information and the common batch shape, checked."""
    for name, tensor, shape in (
        ("precision", precision, "(*batch, N, R, R)"),
        ("information", information, "(*batch, N, R)"),
    ):
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float64:
            kind = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InvalidDataError(f"{name} must be a float64 tensor {shape}, got {kind}")
        finite = torch.isfinite(tensor.detach())
        if not bool(finite.all()):
            where = (~finite).nonzero()[0].tolist()
            raise InvalidDataError(f"{name} must be finite, the entry at {where} is not")
    functions = information.shape[-1] if information.dim() >= 2 else 0
    nodes = information.shape[-2] if information.dim() >= 2 else -1
    if functions < 1 or precision.shape[-3:] != (nodes, functions, functions):
        raise InvalidDataError(
            f"precision (*batch, N, R, R) and information (*batch, N, R) do not fit: got {tuple(precision.shape)} and "
            f"{tuple(information.shape)}"
        )
    paths = markov_paths(kernels, coordinates, functions)
    if paths.nodes != nodes:
        raise InvalidDataError(f"{paths.nodes} coordinates but sites at {nodes} nodes")
    batch = common_batch(paths.batch_shape, precision.shape[:-3], information.shape[:-2])
    if functions > 1:
        precision = 0.5 * (precision + precision.mT)
    return paths, precision, information, batch


def _backend(name: str) -> Any:
    if name not in _BACKENDS:
        raise InvalidDataError(f"backend must be 'sequential' or 'scan', got {name!r}")
    return _BACKENDS[name]


def filter(
    kernels: Any, coordinates: Tensor, precision: Tensor, information: Tensor, *, backend: str = "sequential"
) -> FilterResult:
    """Moments of the functions given the sites up to each node; O(N) time.

    Args:
        kernels: see :func:`smooth`.
        coordinates: see :func:`smooth`.
        precision: see :func:`smooth`.
        information: see :func:`smooth`.
        backend: see :func:`smooth`; the moments have gradients with "scan", the evidence with both.

    Raises:
        InvalidDataError: for wrong shapes, types or values.
        NotSortedError: for coordinates that decrease.
        NotPositiveDefiniteError: for a precision that is not positive semidefinite.
    """
    engine = _backend(backend)
    return FilterResult(*engine.filter_sites(*_problem(kernels, coordinates, precision, information)))


def smooth(
    kernels: Any,
    coordinates: Tensor,
    precision: Tensor,
    information: Tensor,
    *,
    lag_one: bool = False,
    backend: str = "sequential",
) -> SmoothResult:
    r"""Posterior of R independent Markov Gaussian processes given Gaussian sites, exactly, in O(N) time.

    With functions u_1, ..., u_R and sites at the nodes x_j the posterior is

    .. math:: p(u) \prod_j \exp(\eta_j^\top u(x_j) - \tfrac12 u(x_j)^\top \Lambda_j u(x_j)) / Z.

    A site may be singular, and zero: a node without information is a prediction, which changes neither the evidence
    nor the posterior elsewhere. Coordinates may repeat.

    Args:
        kernels: one kernel with a state space, which all functions share, or a sequence of one for each function;
            batches of kernels broadcast with those of the sites.
        coordinates: x, (*batch, N) float64, not decreasing; (*batch, N, 2) for a kernel of bins.
        precision: Lambda, (*batch, N, R, R), positive semidefinite; its symmetric part is used.
        information: eta = Lambda times the site's mean, (*batch, N, R).
        lag_one: also return covariances of consecutive nodes.
        backend: "sequential", compiled loops (CPU), or "scan", an associative scan of torch operations, whose results
            can be differentiated any number of times and which runs where its inputs are.

    Returns:
        Evidence and moments. Evidence, means and covariances can be differentiated with respect to kernel parameters,
        coordinates and sites.

    Raises:
        InvalidDataError: for wrong shapes, types or values.
        NotSortedError: for coordinates that decrease.
        NotPositiveDefiniteError: for a precision that is not positive semidefinite.

    References:
        Solin, Hensman & Turner (2018), NeurIPS 31; Wilkinson, Sarkka & Solin (2023), JMLR 24(83).
    """
    engine = _backend(backend)
    return SmoothResult(*engine.smooth_sites(*_problem(kernels, coordinates, precision, information), lag_one))


def sample(
    kernels: Any,
    coordinates: Tensor,
    precision: Tensor,
    information: Tensor,
    n: int = 1,
    *,
    seed: int | torch.Generator = 0,
) -> Tensor:
    """Joint draws of the functions at all nodes given all sites, exact; with zero sites draws from the prior.

    Args:
        kernels: see :func:`smooth`.
        coordinates: see :func:`smooth`.
        precision: see :func:`smooth`.
        information: see :func:`smooth`.
        n: number of draws.
        seed: a number or a generator on the CPU.

    Returns:
        (n, *batch, N, R), without gradients.

    Raises:
        InvalidDataError: for wrong shapes, types or values.
        NotSortedError: for coordinates that decrease.
        NotPositiveDefiniteError: for a precision that is not positive semidefinite.
    """
    if n < 0:
        raise InvalidDataError(f"the number of draws must not be negative, got {n}")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return sequential.draw(*_problem(kernels, coordinates, precision, information), n, generator)
