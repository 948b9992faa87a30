"""Jeffreys' prior of a scale, which removes what the data do not ask for."""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.priors import Prior
from torch import Tensor
from torch.distributions import constraints
from torch.nn import Module

__all__ = ["JeffreysPrior"]


class JeffreysPrior(Prior):
    """``p(w) = 1 / (w + floor)`` for w > 0: Jeffreys' prior of a scale, finite at zero.

    A maximum a posteriori estimate of w sends components to zero whose contribution to the log evidence is below about
    ``log(w / floor)``. The prior is improper: it has no draws, and evidences with it are known up to a constant.

    Args:
        floor: what counts as zero, in units of w.

    References:
        Figueiredo & Jain (2002), IEEE Trans. PAMI 24, 381 (mixtures that lose components this way).
    """

    arg_constraints = {"floor": constraints.positive}
    support = constraints.positive
    has_rsample = False

    def __init__(self, floor: float | Tensor = 1e-8) -> None:
        Module.__init__(self)
        value = torch.as_tensor(floor, dtype=torch.float64)
        self.register_buffer("floor", value)
        self._batch_shape, self._event_shape = value.shape, torch.Size()
        self._validate_args = False

    def log_prob(self, value: Tensor) -> Tensor:
        """``-log(w + floor)``, of the shape of the value."""
        return -torch.log(value + self.floor)

    def expand(self, batch_shape: Any, _instance: Any = None) -> JeffreysPrior:
        """The prior of a batch of scales."""
        return JeffreysPrior(self.floor.expand(torch.Size(batch_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Refused: the prior is improper."""
        raise NotImplementedError("Jeffreys' prior is improper and has no draws")

    def __repr__(self) -> str:
        return f"JeffreysPrior(floor={float(self.floor.flatten()[0]):g})"
