"""Scaled kernels, sums and products of state-space kernels: state-space kernels again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gpytorch
import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.priors import Prior
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.base import StateSpaceKernel
from gpkit.kernels.state_space import StateSpace, block_diagonal, kronecker
from gpkit.operators.covariances import FACTOR_PARAMETERS, GIVEN, Structure

__all__ = ["ProductKernel", "ScaleKernel", "SumKernel", "as_state_space"]


def as_state_space(kernel: Any) -> StateSpaceKernel | None:
    """A kernel as a state-space kernel, sharing its parameters; None if it has no state space.

    GPyTorch's own ``ScaleKernel``, ``AdditiveKernel`` and ``ProductKernel`` of state-space kernels are recognised.
    """
    if isinstance(kernel, StateSpaceKernel):
        return kernel
    if isinstance(kernel, gpytorch.kernels.ScaleKernel):
        base = as_state_space(kernel.base_kernel)
        if base is None:
            return None
        scaled = ScaleKernel(
            base,
            outputscale_prior=getattr(kernel, "outputscale_prior", None),
            outputscale_constraint=kernel.raw_outputscale_constraint,
            active_dims=kernel.active_dims,
            batch_shape=kernel.batch_shape,
        )
        scaled.raw_outputscale = kernel.raw_outputscale
        return scaled
    if isinstance(kernel, gpytorch.kernels.AdditiveKernel | gpytorch.kernels.ProductKernel):
        parts = [as_state_space(part) for part in kernel.kernels]
        if any(part is None for part in parts):
            return None
        combine = SumKernel if isinstance(kernel, gpytorch.kernels.AdditiveKernel) else ProductKernel
        return combine(*(part for part in parts if part is not None))
    return None


def _prefixed(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries below a prefix, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _term_slices(structure: Structure) -> list[slice]:
    """Where each term's parameters are in the parameter list."""
    slices = []
    at = 0
    for term in structure:
        width = 1 + sum(FACTOR_PARAMETERS[name] for name in term)
        slices.append(slice(at, at + width))
        at += width
    return slices


class ScaleKernel(StateSpaceKernel):
    """``outputscale * base``: the amplitude (a variance) of a unit-variance kernel.

    Args:
        base_kernel: a state-space kernel.
        outputscale: start value of the variance.
        outputscale_prior: prior on the variance.
        outputscale_constraint: default positive.
    """

    def __init__(
        self,
        base_kernel: StateSpaceKernel,
        outputscale: Any = 1.0,
        outputscale_prior: Prior | None = None,
        outputscale_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(base_kernel, StateSpaceKernel):
            raise InvalidDataError(
                f"ScaleKernel scales kernels with a state space; scale {type(base_kernel).__name__} with "
                "gpytorch.kernels.ScaleKernel, which keeps its structure"
            )
        kwargs.setdefault("active_dims", base_kernel.active_dims)
        given = kwargs.get("batch_shape")
        kwargs["batch_shape"] = torch.broadcast_shapes(given or torch.Size(), base_kernel.batch_shape)
        super().__init__(**kwargs)
        self.base_kernel = base_kernel
        self.add_parameter("outputscale", outputscale, outputscale_constraint or Positive(), outputscale_prior)

    @property
    def structure(self) -> Structure:  # type: ignore[override]  # of its parts, where others have a constant
        """Sum of products of factor names."""
        return self.base_kernel.structure

    @property
    def isotropic(self) -> bool:  # type: ignore[override]  # of its parts, where others have a constant
        """Whether the kernel of the distance is a covariance in several dimensions."""
        return self.base_kernel.isotropic

    def natural_parameters(self) -> dict[str, Tensor]:
        """The variance and the base kernel's parameters."""
        base = {f"base_kernel.{k}": v for k, v in self.base_kernel.natural_parameters().items()}
        return {**super().natural_parameters(), **base}

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        entries = self.base_kernel.structure_parameters(_prefixed(values, "base_kernel."), ops)
        return self._scaled(entries, values["outputscale"])

    def _entries(self) -> list[Any]:
        return self._scaled(self.base_kernel._entries(), self.outputscale)

    def _scaled(self, entries: list[Any], scale: Any) -> list[Any]:
        """The entries with every term's variance scaled; a unit variance, a plain number, is not multiplied."""
        out = list(entries)
        for term in _term_slices(self.structure):
            variance = out[term.start]
            out[term.start] = scale if isinstance(variance, float) and variance == 1.0 else scale * variance
        return out

    def state_space(self) -> StateSpace:
        """The base kernel's state space with a scaled stationary covariance."""
        base = self.base_kernel.state_space()
        scale = self.outputscale[..., None, None]
        return StateSpace(base.feedback, base.stationary_covariance * scale, base.observation)

    def timescales(self) -> dict[str, Any]:
        """Those of the base kernel."""
        return self.base_kernel.timescales()


class _CompositeKernel(StateSpaceKernel):
    """Shared parts of sums and products."""

    def __init__(self, *kernels: StateSpaceKernel) -> None:
        if len(kernels) < 1:
            raise ValueError(f"{type(self).__name__} needs at least one kernel")
        dims = {None if k.active_dims is None else tuple(k.active_dims.tolist()) for k in kernels}
        if len(dims) > 1:
            raise ValueError("the parts of a state-space kernel must see the same input dimension (active_dims)")
        flat: list[StateSpaceKernel] = []
        for kernel in kernels:
            same = type(kernel) is type(self)
            flat.extend(kernel.kernels if same else [kernel])
        batch = torch.broadcast_shapes(*(k.batch_shape for k in flat))
        super().__init__(batch_shape=batch, active_dims=flat[0].active_dims)
        self.kernels = torch.nn.ModuleList(flat)

    @property
    def _parts(self) -> list[StateSpaceKernel]:
        return [part for part in self.kernels if isinstance(part, StateSpaceKernel)]

    def natural_parameters(self) -> dict[str, Tensor]:
        """The parameters of all parts, prefixed "kernels.<i>."."""
        return {
            f"kernels.{i}.{k}": v for i, part in enumerate(self._parts) for k, v in part.natural_parameters().items()
        }

    def _part_parameters(self, values: Mapping[str, Any], ops: Any) -> list[list[Any]]:
        return [
            list(part.structure_parameters(_prefixed(values, f"kernels.{i}."), ops))
            for i, part in enumerate(self._parts)
        ]

    def timescales(self) -> dict[str, Any]:
        """Those of all parts, prefixed "kernels.<i>."."""
        return {f"kernels.{i}.{k}": v for i, part in enumerate(self._parts) for k, v in part.timescales().items()}


class SumKernel(_CompositeKernel):
    """Sum of state-space kernels: independent processes added, states stacked."""

    @property
    def structure(self) -> Structure:  # type: ignore[override]  # of its parts, where others have a constant
        """Sum of products of factor names."""
        parts = [part.structure for part in self._parts]
        return GIVEN if GIVEN in parts else tuple(term for part in parts for term in part)

    @property
    def isotropic(self) -> bool:  # type: ignore[override]  # of its parts, where others have a constant
        """Whether the kernel of the distance is a covariance in several dimensions."""
        return all(part.isotropic for part in self._parts)

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        return [entry for part in self._part_parameters(values, ops) for entry in part]

    def state_space(self) -> StateSpace:
        """Block-diagonal state space."""
        spaces = [part.state_space() for part in self._parts]
        return StateSpace(
            block_diagonal([s.feedback for s in spaces]),
            block_diagonal([s.stationary_covariance for s in spaces]),
            _concatenate([s.observation for s in spaces]),
        )


class ProductKernel(_CompositeKernel):
    """Product of state-space kernels: Kronecker products of states."""

    @property
    def structure(self) -> Structure:  # type: ignore[override]  # of its parts, where others have a constant
        """Sum of products of factor names."""
        structure: Structure = ((),)
        for part in self._parts:
            if part.structure == GIVEN:
                return GIVEN
            structure = tuple(left + right for left in structure for right in part.structure)
        return structure

    @property
    def isotropic(self) -> bool:  # type: ignore[override]  # of its parts, where others have a constant
        """Whether the kernel of the distance is a covariance in several dimensions."""
        return all(part.isotropic for part in self._parts)

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        parts = self._part_parameters(values, ops)
        terms = [parts[0][term] for term in _term_slices(self._parts[0].structure)]
        for part, entries in zip(self._parts[1:], parts[1:], strict=True):
            factors = [entries[term] for term in _term_slices(part.structure)]
            terms = [[left[0] * right[0], *left[1:], *right[1:]] for left in terms for right in factors]
        return [entry for term in terms for entry in term]

    def state_space(self) -> StateSpace:
        """Kronecker-sum generator, Kronecker-product covariance."""
        first, *rest = [part.state_space() for part in self._parts]
        feedback, covariance, h = first.feedback, first.stationary_covariance, first.observation
        for space in rest:
            left = torch.eye(feedback.shape[-1], dtype=feedback.dtype)
            right = torch.eye(space.dimension, dtype=feedback.dtype)
            feedback = kronecker(feedback, right) + kronecker(left, space.feedback)
            covariance = kronecker(covariance, space.stationary_covariance)
            h = kronecker(h.unsqueeze(-2), space.observation.unsqueeze(-2)).squeeze(-2)
        return StateSpace(feedback, covariance, h)


def _concatenate(vectors: list[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(*(v.shape[:-1] for v in vectors))
    return torch.cat([v.expand(*batch, v.shape[-1]) for v in vectors], dim=-1)
