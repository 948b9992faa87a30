"""GPyTorch kernels as terms of a field's covariance: whatever a user wrote, or ``gpkit.kernels`` has."""

from __future__ import annotations

from typing import Any

import gpytorch
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.log_parameters import LogParameter
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.terms import Prepared, Term

__all__ = ["KernelTerm"]

_REACH = 1e3


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
        kernel: The kernel; its scalar parameters with positive constraints are fitted, from where they are.
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
        self._constraints: dict[str, Any] = {}
        found = []
        for full, raw, constraint in kernel.named_parameters_and_constraints():
            if constraint is None or raw.numel() != 1 or not raw.requires_grad:
                continue
            value = float(constraint.transform(raw.detach()))
            if value <= 0.0:
                continue
            low = max(value / _REACH, float(constraint.lower_bound) * (1.0 + 1e-6) if constraint.lower_bound else 0.0)
            high = min(value * _REACH, float(constraint.upper_bound) * (1.0 - 1e-6))
            found.append(LogParameter(full.replace("raw_", ""), value, min(low, value), max(high, value), value, 1.5))
            self._constraints[full] = (constraint, raw.shape)
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
        """Whether the kernel knows the manifold, so that node numbers mean something to it."""
        return any(hasattr(part, "manifold") or hasattr(part, "basis") for part in self._block.kernel.modules())

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The block of covariance."""
        left, right, products = prepared
        values = {
            f"kernel.{name}": constraint.inverse_transform(torch.exp(theta[k])).reshape(shape)
            for k, (name, (constraint, shape)) in enumerate(self._constraints.items())
        }
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
