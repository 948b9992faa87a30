"""Prior paths of several Markov functions at given coordinates: what both backends of the engine run on.

The state of R independent functions is stacked from blocks of one size b; function r is the sum of the first
components of its blocks. Blocks that follow the same kernel share their transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, NamedTuple

import gpytorch
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError, NotSortedError
from gpkit.kernels import BinAveragedKernel, StateSpace, StateSpaceKernel, as_state_space
from gpkit.kernels.state_space import state_space_of
from gpkit.operators.covariances import GIVEN, Structure
from gpkit.operators.structured import common_batch

__all__ = ["KernelBlocks", "MarkovPaths", "kernel_blocks", "markov_paths"]


class KernelBlocks(NamedTuple):
    """One function's prior at N nodes, in blocks of one size.

    Attributes:
        transitions: from each node to the next, (*batch, N, nb, b, b); the last is not used.
        covariance: prior covariance of each block, (*batch, 1 or N, nb, b, b): one, or one for each node.
    """

    transitions: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class MarkovPaths:
    """Prior of R stacked functions at N nodes.

    Attributes:
        transitions: distinct transitions from each node to the next, (*batch, N, nb, b, b); the last is not used.
        covariance: prior covariance of each distinct block, (*batch, 1 or N, nb, b, b).
        which: for every block of the state, which of the distinct ones it follows.
        owner: for every block of the state, the function that it belongs to.
    """

    transitions: Tensor
    covariance: Tensor
    which: tuple[int, ...]
    owner: tuple[int, ...]

    @property
    def nodes(self) -> int:
        """Number of nodes N."""
        return int(self.transitions.shape[-4])

    @property
    def block(self) -> int:
        """Block size b."""
        return int(self.transitions.shape[-1])

    @property
    def functions(self) -> int:
        """Number of functions R."""
        return max(self.owner) + 1

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the prior."""
        return common_batch(self.transitions.shape[:-4], self.covariance.shape[:-4])

    def function_covariance(self) -> Tensor:
        """Prior covariance of the functions at every node, (*batch, 1 or N, R, R), diagonal."""
        corner = self.covariance[..., 0, 0]
        total = [
            torch.stack([corner[..., w] for w, o in zip(self.which, self.owner, strict=True) if o == r]).sum(0)
            for r in range(self.functions)
        ]
        return torch.diag_embed(torch.stack(total, -1))


class _Transitions(torch.autograd.Function):
    """Compiled closed-form transitions (*batch, N, nb, b, b) from sorted times and structure parameters."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, params: Tensor, structure: Structure) -> Tensor:
        from gpkit.recursions import linear
        from gpkit.recursions.structure import block_shape, marker

        batch = common_batch(times.shape[:-1], params.shape[:-1])
        nb, b = block_shape(structure)
        n = times.shape[-1]
        count = batch.numel()
        t = times.detach().expand(*batch, n).reshape(count, n).contiguous().numpy()
        p = params.detach().expand(*batch, params.shape[-1]).reshape(count, params.shape[-1]).contiguous().numpy()
        out = torch.empty(count, n, nb, b, b, dtype=torch.float64)
        for i in range(count):
            out[i] = torch.from_numpy(linear.transition_blocks(marker(structure), p[i], t[i], nb, b)[0])
        ctx.save_for_backward(times, params)
        ctx.arrays, ctx.structure = (t, p, out.numpy()), structure
        return out.reshape(*batch, n, nb, b, b)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        import numpy as np

        from gpkit.recursions import linear
        from gpkit.recursions.structure import marker

        times, params = ctx.saved_tensors
        t, p, blocks = ctx.arrays
        n, nb, b = blocks.shape[1:4]
        bars = np.ascontiguousarray(grad.reshape(len(t), n, nb, b, b).numpy())
        to_params, to_times = np.empty_like(p), np.empty_like(t)
        none = np.zeros(nb * b)
        for i in range(len(t)):
            to_params[i], to_times[i] = linear.pull_back(
                marker(ctx.structure), p[i], t[i], nb, b, blocks[i], bars[i], none
            )
        batch = grad.shape[:-4]
        return (
            torch.from_numpy(to_times).reshape(*batch, n).sum_to_size(times.shape),
            torch.from_numpy(to_params).reshape(*batch, p.shape[-1]).sum_to_size(params.shape),
            None,
        )


def _padded(tensor: Tensor, size: int) -> Tensor:
    """Square matrices with zeros up to (size, size)."""
    extra = size - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, extra, 0, extra)) if extra else tensor


def _steps(coordinates: Tensor) -> Tensor:
    """Steps (*batch, N) to the next node; the last is zero.

    Raises:
        NotSortedError: for coordinates that decrease.
    """
    steps = coordinates.diff(dim=-1)
    if bool((steps.detach() < 0.0).any()):
        where = (steps < 0.0).nonzero()[0].tolist()
        raise NotSortedError(f"coordinates must not decrease along a path, that at {where} exceeds the next; sort them")
    return torch.nn.functional.pad(steps, (0, 1 if coordinates.shape[-1] else 0))


def _given_blocks(space: StateSpace, coordinates: Tensor) -> KernelBlocks:
    """One block in the basis in which the function is the first component."""
    j = space.dimension
    h = space.observation
    pivot = int(h.detach().reshape(-1, j)[0].abs().argmax())
    rest = [k for k in range(j) if k != pivot]
    eye = torch.eye(j, dtype=space.feedback.dtype, device=space.feedback.device)
    basis = torch.cat([h.unsqueeze(-2), eye[rest].expand(*h.shape[:-1], -1, -1)], -2)
    feedback = basis @ torch.linalg.solve(basis, space.feedback, left=False)
    covariance = basis @ space.stationary_covariance @ basis.mT
    steps = _steps(coordinates)
    transitions = torch.matrix_exp(feedback.unsqueeze(-3) * steps[..., None, None])
    return KernelBlocks(transitions.unsqueeze(-3), covariance.unsqueeze(-3).unsqueeze(-3))


@singledispatch
def kernel_blocks(kernel: Any, coordinates: Tensor) -> KernelBlocks:
    """The prior of one function with this kernel at sorted coordinates (*batch, N).

    Raises:
        InvalidDataError: if the kernel has no state space.
    """
    converted = as_state_space(kernel) if isinstance(kernel, gpytorch.kernels.Kernel) else None
    if converted is None:
        raise InvalidDataError(
            f"{type(kernel).__name__} has no state space: the engine takes gpkit.kernels.StateSpaceKernel, sums, "
            "products and scalings of them, or a StateSpace"
        )
    return kernel_blocks(converted, coordinates)


@kernel_blocks.register
def _(kernel: StateSpace, coordinates: Tensor) -> KernelBlocks:
    return _given_blocks(kernel, coordinates)


@kernel_blocks.register
def _(kernel: StateSpaceKernel, coordinates: Tensor) -> KernelBlocks:
    structure = kernel.structure
    if structure == GIVEN:
        return _given_blocks(kernel.state_space(), coordinates)
    params = kernel._closed_form_params()
    if params.dtype != torch.float64:
        raise InvalidDataError(
            f"{type(kernel).__name__} has {str(params.dtype).removeprefix('torch.')} parameters; the engine works in "
            "float64: cast the kernel with .double()"
        )
    terms = _terms(structure, params)
    covariances = [space.stationary_covariance for space in terms]
    size = max(c.shape[-1] for c in covariances)
    covariance = torch.stack([_padded(c, size) for c in covariances], -3).unsqueeze(-4)
    steps = _steps(coordinates)
    if coordinates.device.type == "cpu":
        transitions = _Transitions.apply(coordinates, params, structure)
    else:
        # The same on any device, by matrix exponentials.
        blocks = [torch.matrix_exp(space.feedback.unsqueeze(-3) * steps[..., None, None]) for space in terms]
        transitions = torch.stack([_padded(block, size) for block in blocks], -3)
    return KernelBlocks(transitions, covariance)


@kernel_blocks.register
def _(kernel: BinAveragedKernel, coordinates: Tensor) -> KernelBlocks:
    states = kernel.binned_states(coordinates)
    return KernelBlocks(states.transitions.unsqueeze(-3), states.covariance.unsqueeze(-3))


def _terms(structure: Structure, params: Tensor) -> list[StateSpace]:
    """State spaces of the terms of a closed-form structure."""
    from gpkit.recursions.structure import parameter_count

    spaces = []
    at = 0
    for term in structure:
        spaces.append(state_space_of((term,), params[..., at:]))
        at += parameter_count((term,))
    return spaces


def _checked(coordinates: Any) -> Tensor:
    if not isinstance(coordinates, Tensor) or coordinates.dtype != torch.float64:
        kind = str(coordinates.dtype) if isinstance(coordinates, Tensor) else type(coordinates).__name__
        raise InvalidDataError(f"coordinates must be a float64 tensor (*batch, N), got {kind}")
    finite = torch.isfinite(coordinates.detach())
    if not bool(finite.all()):
        where = (~finite).nonzero()[0].tolist()
        raise InvalidDataError(f"coordinates must be finite, the one at {where} is not")
    checked: Tensor = coordinates
    return checked


def markov_paths(kernels: Any, coordinates: Any, functions: int) -> MarkovPaths:
    """Prior paths of R functions at sorted coordinates.

    Args:
        kernels: one state-space kernel (or :class:`~gpkit.kernels.StateSpace`) that all functions share, or a sequence
            of one for each function; or ready-made :class:`MarkovPaths`, which are returned.
        coordinates: (*batch, N), not decreasing. Kernels of bins take (*batch, N, 2): centre and width.
        functions: R.

    Raises:
        InvalidDataError: for a kernel without a state space, a wrong number of kernels, or coordinates
            that are not finite.
        NotSortedError: for coordinates that decrease.
    """
    if isinstance(kernels, MarkovPaths):
        if kernels.functions != functions:
            raise InvalidDataError(f"paths of {kernels.functions} functions do not fit sites of {functions}")
        return kernels
    coordinates = _checked(coordinates)
    shared = isinstance(kernels, str) or not isinstance(kernels, Sequence)
    parts = [kernels] if shared else list(kernels)
    if not shared and len(parts) != functions:
        raise InvalidDataError(
            f"{len(parts)} kernels for {functions} functions: give one kernel that all share, or one for each function"
        )
    distinct: list[KernelBlocks] = []
    index: dict[int, int] = {}
    for part in parts:
        if id(part) not in index:
            index[id(part)] = len(distinct)
            distinct.append(kernel_blocks(part, coordinates))
    size = max(blocks.transitions.shape[-1] for blocks in distinct)
    starts = [0]
    for blocks in distinct:
        starts.append(starts[-1] + blocks.transitions.shape[-3])
    which: list[int] = []
    owner: list[int] = []
    for r in range(functions):
        k = 0 if shared else index[id(parts[r])]
        which += range(starts[k], starts[k + 1])
        owner += [r] * (starts[k + 1] - starts[k])
    transitions = _joined([_padded(blocks.transitions, size) for blocks in distinct])
    covariance = _joined([_padded(blocks.covariance, size) for blocks in distinct])
    return MarkovPaths(transitions, covariance, tuple(which), tuple(owner))


def _joined(tensors: list[Tensor]) -> Tensor:
    """Concatenated along the blocks, batches and numbers of nodes made equal."""
    if len(tensors) == 1:
        return tensors[0]
    batch = common_batch(*(t.shape[:-3] for t in tensors))
    return torch.cat([t.expand(*batch, *t.shape[-3:]) for t in tensors], -3)
