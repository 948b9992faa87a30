"""Writing natural parameter values into kernels, by dotted path."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.kernels import StateSpaceKernel

__all__ = ["batched_kernel", "module_at", "write_values"]


def module_at(kernel: StateSpaceKernel, path: str) -> tuple[Any, str]:
    """The module that holds the parameter ``path``, such as ``kernels.0.lengthscale``, and the parameter's name."""
    *steps, leaf = path.split(".")
    module: Any = kernel
    for step in steps:
        module = module[int(step)] if step.isdigit() else getattr(module, step)
    return module, leaf


def write_values(kernel: StateSpaceKernel, values: Mapping[str, Any]) -> None:
    """Set parameters in place, each a number or what its setter takes."""
    for path, value in values.items():
        module, leaf = module_at(kernel, path)
        setattr(module, leaf, value)


def batched_kernel(kernel: StateSpaceKernel, values: Mapping[str, NDArray[np.float64]], size: int) -> StateSpaceKernel:
    """A copy of a kernel of batch shape (size,) with the given parameters, each (size,) or a number."""
    batch = copy.deepcopy(kernel)
    for path, value in values.items():
        module, leaf = module_at(batch, path)
        raw = f"raw_{leaf}"
        constraint = module.constraint_for_parameter_name(raw)
        tensor = torch.as_tensor(np.broadcast_to(value, (size,)).copy())
        tensor = tensor if constraint is None else constraint.inverse_transform(tensor)
        setattr(module, raw, torch.nn.Parameter(tensor, requires_grad=False))
    for module in batch.modules():
        if isinstance(module, StateSpaceKernel):
            module.batch_shape = torch.Size([size])
    return batch
