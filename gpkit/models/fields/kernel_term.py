"""GPyTorch kernels as terms of a field's covariance: structured where ``gpkit.kernels`` has a structure, else dense."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gpytorch
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.geometry import SpectralBasis
from gpkit.kernels.graph import GraphKernel, HodgeKernel, WalkKernel
from gpkit.kernels.markov import MarkovKernel
from gpkit.kernels.spectral import SpectralKernel
from gpkit.models.fields.filter_term import FilterTerm, positive_parameters, raw_values
from gpkit.models.fields.markov_term import MarkovTerm
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.spectral_term import SpectralPart
from gpkit.models.fields.terms import Prepared, Scales, Term

__all__ = ["KernelTerm", "bases_of_terms", "terms_of_kernel"]

Terms = Callable[[Scales], list[Term]]


@dataclass(frozen=True)
class StructuredKernel:
    """A kernel that becomes terms when the units of a problem are known.

    Attributes:
        name: In results.
        make: The terms.
        bases: Spectral bases that the terms need at the places, by name.
    """

    name: str
    make: Terms
    bases: dict[str, SpectralBasis]


def terms_of_kernel(
    kernel: gpytorch.kernels.Kernel, nodes: int, components: int, label: str = ""
) -> list[Term | StructuredKernel]:
    """How a GPyTorch kernel enters a field model.

    Sums are taken apart; :class:`gpkit.kernels.SpectralKernel` and its relatives (with any filter) are fitted by the
    cached statistics of their basis, :class:`gpkit.kernels.HodgeKernel` as its parts, and
    :class:`gpkit.kernels.markov.MarkovKernel` by its sparse precision, each with an amplitude of its own; a
    ``ScaleKernel`` around them gives its start. Random walks on a graph (``GraphKernel(..., method="grf")``) get an
    amplitude, too. These and anything else are a dense :class:`KernelTerm`.

    Args:
        kernel: Without batch dimensions.
        nodes: Number of nodes of the field.
        components: Values per node.
        label: Put behind names, where there are several.

    Raises:
        InvalidDataError: a kernel with batch dimensions, one of another number of nodes, or estimated entries that are
            no covariance.
    """
    kernels = gpytorch.kernels
    if isinstance(kernel, kernels.AdditiveKernel):
        summands = enumerate(kernel.kernels)
        return [t for k, part in summands for t in terms_of_kernel(part, nodes, components, f" {k + 1}")]
    scaled = isinstance(kernel, kernels.ScaleKernel) and not kernel.outputscale.numel() > 1
    inner = kernel.base_kernel if scaled else kernel
    start = float(kernel.outputscale.detach().sqrt()) if scaled else None
    inner = inner.part if isinstance(inner, GraphKernel) else inner
    if len(inner.batch_shape):
        raise InvalidDataError(f"a field needs a kernel without batch dimensions, got {tuple(inner.batch_shape)}")
    if isinstance(inner, MarkovKernel) and inner.components == components:
        _same_nodes(inner.laplacian.size // components, nodes, "MarkovKernel")
        name = f"markov{label}"
        return [StructuredKernel(name, lambda scales: [_started(MarkovTerm(name, inner, scales), start)], {})]
    parts: dict[str, Any] = {}
    if isinstance(inner, SpectralKernel) and inner.basis.components == components:
        parts = {f"{inner.basis.kind}:{_filter_name(inner)}{label}": inner}
    elif isinstance(inner, HodgeKernel):
        parts = {f"{name}{label}": part for name, part in inner.parts.items()}
    for name, part in parts.items():
        _same_nodes(part.basis.n, nodes, name)
    if parts:
        return [
            StructuredKernel(" + ".join(parts), _spectral_terms(parts, start), {k: v.basis for k, v in parts.items()})
        ]
    if isinstance(inner, WalkKernel):
        _same_nodes(inner.graph.n, nodes, "GraphKernel")
        if len(inner.walk_features) > 1:
            raise InvalidDataError("unbiased random features are no covariance: make the kernel with variant='psd'")
        return [KernelTerm(kernel if scaled else kernels.ScaleKernel(inner), f"grf{label}")]
    return [KernelTerm(kernel)]


def _same_nodes(found: int, nodes: int, name: str) -> None:
    if found != nodes:
        raise InvalidDataError(f"kernel {name} knows {found} nodes, the field has {nodes}: make both on one manifold")


def _filter_name(kernel: SpectralKernel) -> str:
    return type(kernel.spectral_filter).__name__.removesuffix("Filter").lower()


def _spectral_terms(kernels: Mapping[str, SpectralKernel], start: float | None) -> Terms:
    def make(scales: Scales) -> list[Term]:
        out: list[Term] = []
        for name, kernel in kernels.items():
            part = SpectralPart.of(name, kernel.basis, name)
            out.append(_started(FilterTerm(name, part, kernel.spectral_filter, scales), start))
        return out

    return make


def _started(term: Term, start: float | None) -> Term:
    """The term with another start value of its amplitude, inside of its range."""
    if start is not None:
        *others, last = term.parameters
        at = min(max(start, last.low), last.high)
        term.parameters = (*others, dataclasses.replace(last, start=at))
    return term


def bases_of_terms(terms: Sequence[Any]) -> dict[str, SpectralBasis]:
    """Bases that the structured kernels among terms need."""
    return {k: v for term in terms if isinstance(term, StructuredKernel) for k, v in term.bases.items()}


class _Block(torch.nn.Module):
    """The dense block of a kernel, as a module, so that its parameters can be replaced for one call."""

    def __init__(self, kernel: gpytorch.kernels.Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """The block (m d, m' d)."""
        dense: Tensor = self.kernel(left, right).to_dense()
        return dense


class KernelTerm(Term):
    """A GPyTorch kernel between places: node numbers (m, 1) at nodes, coordinates (m, D) between them.

    Kernels of vector fields, such as :class:`gpkit.kernels.ConnectionLaplacianKernel` and
    :class:`gpkit.kernels.ProjectedKernel`, their sums and ``ScaleKernel`` of them, give d values a place; a kernel that
    gives one is taken as a kernel of space between tangent projections.

    Args:
        kernel: The kernel; its parameters with positive constraints are fitted, from where they are.
        name: In results; that of the class by default.

    Raises:
        InvalidDataError: not a kernel, or one with batch dimensions.
    """

    def __init__(self, kernel: gpytorch.kernels.Kernel, name: str | None = None) -> None:
        if not isinstance(kernel, gpytorch.kernels.Kernel) or len(kernel.batch_shape):
            raise InvalidDataError(
                f"a term needs a GPyTorch kernel without batch dimensions, got {type(kernel).__name__}"
            )
        self.name = type(kernel).__name__.removesuffix("Kernel").lower() if name is None else name
        self._block = _Block(kernel.double())
        found, self._constraints = positive_parameters(kernel, "kernel.")
        self.parameters = tuple(found)

    def scan(self) -> list[tuple[float, ...]]:
        """The values that the kernel came with."""
        return [tuple(torch.log(torch.tensor([p.start for p in self.parameters])).tolist())]

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """Inputs of both sides, and products of frames for kernels of one value a place."""
        nodes = bool((left.nodes >= 0).all() and (right.nodes >= 0).all())
        products = torch.einsum("aDi,bDj->aibj", left.frames, right.frames)
        return (*(self._inputs(sites, nodes) for sites in (left, right)), products)

    def _inputs(self, sites: Sites, nodes: bool) -> Tensor:
        if self._takes_nodes and nodes:
            return torch.from_numpy(sites.nodes)[:, None].double()
        if sites.points is None:
            raise InvalidDataError(f"kernel {self.name!r} needs coordinates, and these nodes have none")
        return sites.points

    @property
    def _takes_nodes(self) -> bool:
        """Whether the kernel knows the manifold or graph, so that node numbers mean something to it."""
        known = ("manifold", "basis", "graph")
        return any(hasattr(part, name) for part in self._block.kernel.modules() for name in known)

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The block of covariance."""
        left, right, products = prepared
        values = raw_values(theta, self._constraints)
        block: Tensor = torch.func.functional_call(self._block, values, (left, right))
        m, d, n, _ = products.shape
        if block.shape == (m, n) and d > 1:
            return (block[:, None, :, None] * products).reshape(m * d, n * d)
        if block.shape != (m * d, n * d):
            raise InvalidDataError(
                f"kernel {self.name!r} gave {tuple(block.shape)} for {m} and {n} places of {d} values"
            )
        return block

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """Prior covariances at each place, from blocks of a few places."""
        out = []
        for first in range(0, len(sites), 64):
            part = sites.take(slice(first, first + 64))
            block = self.evaluate(theta, self.prepare(part, part)).reshape(len(part), sites.d, len(part), sites.d)
            out.append(torch.diagonal(block, dim1=0, dim2=2).permute(2, 0, 1))
        return torch.cat(out) if out else torch.zeros(0, sites.d, sites.d, dtype=torch.float64)
