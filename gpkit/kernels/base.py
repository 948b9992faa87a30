"""State-space kernels: ordinary GPyTorch kernels that become semiseparable operators at one-dimensional inputs.

A new kernel is one class that registers its parameters and says which structure it is, for example::

    class ThreeHalves(StateSpaceKernel):
        structure = (("matern32",),)

        def __init__(self, rate=1.0, **kwargs):
            super().__init__(**kwargs)
            self.add_parameter("rate", rate)

        def structure_parameters(self, values, ops):
            return [1.0, values["rate"]]

or, for a process that is not made of the built-in factors, one that overrides :meth:`StateSpaceKernel.state_space`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import gpytorch
import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.priors import Prior
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.state_space import StateSpace, state_space_of
from gpkit.operators import CrossSemiseparableLinearOperator, SemiseparableLinearOperator
from gpkit.operators.covariances import GIVEN, Structure, autocovariance
from gpkit.operators.structured import common_batch

__all__ = ["StateSpaceKernel"]


def _read_natural(module: StateSpaceKernel, name: str) -> Tensor:
    return module._natural(name)


def _write_natural(name: str, module: StateSpaceKernel, value: Any) -> None:
    module._set_natural(name, value)


class StateSpaceKernel(gpytorch.kernels.Kernel):
    """Base class of kernels with a finite-dimensional state space in time.

    Evaluated at one-dimensional inputs it returns :class:`~gpkit.operators.SemiseparableLinearOperator` (same inputs
    on both sides) or :class:`~gpkit.operators.CrossSemiseparableLinearOperator`; both are exact for inputs in any
    order. Inputs of several dimensions are evaluated densely as a function of distance, where that is a valid
    covariance (``isotropic``).

    Parameters are float64 unless the kernel is cast; base kernels have unit variance (scale with ``ScaleKernel``).

    Args:
        batch_shape: shape of independent copies of the parameters.
        active_dims: input dimensions that the kernel sees.
    """

    structure: Structure = GIVEN
    """Sum of products of factor names (see :mod:`gpkit.recursions.structure`), or GIVEN."""
    isotropic = False
    """Whether the kernel of the Euclidean distance is a covariance in several dimensions."""

    def __init__(self, batch_shape: torch.Size | None = None, active_dims: Any = None) -> None:
        super().__init__(batch_shape=torch.Size() if batch_shape is None else batch_shape, active_dims=active_dims)
        self._parameter_names: list[str] = []

    # -- parameters -----------------------------------------------------------------------------------------------

    def add_parameter(
        self, name: str, value: Any, constraint: Interval | None = None, prior: Prior | None = None, real: bool = False
    ) -> None:
        """Register ``raw_<name>`` of the batch shape, its constraint (positive by default), prior and start value.

        ``self.<name>`` then reads and sets the natural value. With ``real`` there is no constraint.
        """
        start = torch.as_tensor(value, dtype=torch.float64).expand(self.batch_shape).clone()
        self.register_parameter(f"raw_{name}", torch.nn.Parameter(torch.zeros_like(start)))
        if not real:
            self.register_constraint(f"raw_{name}", Positive() if constraint is None else constraint)
        self._parameter_names.append(name)
        if prior is not None:
            # Module-level functions, not lambdas: a kernel with priors can be pickled.
            read, write = functools.partial(_read_natural, name=name), functools.partial(_write_natural, name)
            self.register_prior(f"{name}_prior", prior, read, write)
        self._set_natural(name, start)

    def _natural(self, name: str) -> Tensor:
        key = f"raw_{name}"
        # Looked up where they are stored, which is done at every training step; a sampled value is an attribute.
        raw = self._parameters.get(key)
        if raw is None:
            raw = getattr(self, key)
        constraint: Any = self._modules.get(f"{key}_constraint")
        natural: Tensor = raw if constraint is None else constraint.transform(raw)
        return natural

    def _set_natural(self, name: str, value: Any) -> None:
        raw = getattr(self, f"raw_{name}")
        value = torch.as_tensor(value, dtype=raw.dtype, device=raw.device)
        constraint = self.constraint_for_parameter_name(f"raw_{name}")
        if constraint is None:
            self.initialize(**{f"raw_{name}": value})
            return
        if not bool(constraint.check(value)):
            lower, upper = float(constraint.lower_bound), float(constraint.upper_bound)
            raise ValueError(f"{type(self).__name__}.{name} must lie in ({lower:g}, {upper:g}), got {value.tolist()}")
        self.initialize(**{f"raw_{name}": constraint.inverse_transform(value)})

    def __getattr__(self, name: str) -> Any:
        names = self.__dict__.get("_parameter_names")
        if names and name in names:
            return self._natural(name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        names = self.__dict__.get("_parameter_names")
        if names and name in names:
            self._set_natural(name, value)
        else:
            super().__setattr__(name, value)

    def natural_parameters(self) -> dict[str, Tensor]:
        """Natural values by name, each of the batch shape; names of parts are prefixed ("kernels.0.quality")."""
        return {name: self._natural(name) for name in self._parameter_names}

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values.

        Written once for every kind of number: ``values`` may hold tensors or symbolic expressions, and ``ops`` provides
        the functions (``sqrt``, ``exp``, ``log``) that fit them. Constants may be plain floats.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither structure_parameters nor state_space")

    def _entries(self) -> list[Any]:
        """Structure parameters as they are now."""
        return self.structure_parameters(self.natural_parameters(), torch)

    def _closed_form_params(self) -> Tensor:
        """Structure parameters, (*batch_shape, P)."""
        entries = self._entries()
        batch = self.batch_shape
        like = next((e for e in entries if isinstance(e, Tensor)), None)
        kind = {"dtype": torch.float64} if like is None else {"dtype": like.dtype, "device": like.device}
        tensors = (e if isinstance(e, Tensor) else torch.as_tensor(e, **kind) for e in entries)
        return torch.stack([t if t.shape == batch else t.expand(batch) for t in tensors], dim=-1)

    def _generators(self) -> tuple[Tensor, Tensor | None]:
        """Operator parameters and, for a given state space, its generator in the basis where h is the first vector."""
        if self.structure != GIVEN:
            return self._closed_form_params(), None
        space = self.state_space()
        j = space.dimension
        h = space.observation.detach().reshape(-1, j)[0]
        pivot = int(h.abs().argmax())
        rest = [k for k in range(j) if k != pivot]
        eye = torch.eye(j, dtype=space.feedback.dtype)
        basis = torch.cat(
            [space.observation.unsqueeze(-2), eye[rest].expand(*space.observation.shape[:-1], -1, -1)], -2
        )
        feedback = basis @ torch.linalg.solve(basis, space.feedback, left=False)
        covariance = basis @ space.stationary_covariance @ basis.mT
        params = torch.cat([covariance[..., 0], covariance.flatten(-2)], dim=-1)
        return params, feedback

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the parameters; composite kernels know theirs, so nothing is searched."""
        return self._batch_shape

    @batch_shape.setter
    def batch_shape(self, value: torch.Size) -> None:
        self._batch_shape = value

    def __getitem__(self, index: Any) -> StateSpaceKernel:
        """The kernel of the selected batch elements, with its own copy of the parameters."""
        batch = self.batch_shape
        if not len(batch):
            return self
        new = copy.deepcopy(self)
        shape = torch.empty(batch, device="meta")[index].shape
        done: set[int] = set()
        for part in new.modules():
            if not isinstance(part, StateSpaceKernel):
                continue
            for name in part._parameter_names:
                raw = getattr(part, f"raw_{name}")
                if id(raw) not in done:
                    raw.data = raw.detach().expand(batch)[index].clone()
                    done.add(id(raw))
            part.batch_shape = shape
        return new

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _times(self, x: Tensor) -> Tensor:
        """Times (*batch, N) of one-dimensional inputs (*batch, N, 1), checked against the parameters' precision."""
        return x[..., 0]

    def _expanded(self, *inputs: Tensor) -> tuple[list[Tensor], Tensor, Tensor | None]:
        params, feedback = self._generators()
        if params.dtype != inputs[0].dtype and inputs[0].dtype == torch.float64:
            raise InvalidDataError(
                f"{type(self).__name__} has {str(params.dtype).removeprefix('torch.')} parameters but the inputs are "
                "float64; cast the kernel with .double()"
            )
        batch = common_batch(params.shape[:-1], *(t.shape[:-1] for t in inputs))
        times = [t if t.shape[:-1] == batch else t.expand(*batch, t.shape[-1]) for t in inputs]
        params = params if params.shape[:-1] == batch else params.expand(*batch, params.shape[-1])
        if feedback is not None:
            feedback = feedback.expand(*batch, *feedback.shape[-2:])
        return times, params, feedback

    def gram(self, x: Tensor) -> SemiseparableLinearOperator:
        """Covariance operator at inputs (*batch, N, 1) against themselves."""
        (times,), params, feedback = self._expanded(self._times(x))
        zeros = torch.zeros_like(times)
        operator = SemiseparableLinearOperator(times, params, zeros, feedback, structure=self.structure)
        operator.has_diagonal = False
        return operator

    def cross(self, x1: Tensor, x2: Tensor) -> CrossSemiseparableLinearOperator:
        """Covariance operator between inputs (*batch, M, 1) and (*batch, N, 1)."""
        (rows, columns), params, feedback = self._expanded(self._times(x1), self._times(x2))
        return CrossSemiseparableLinearOperator(rows, columns, params, feedback, structure=self.structure)

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between inputs; an operator for one-dimensional inputs, else a dense tensor."""
        if last_dim_is_batch:
            raise NotImplementedError("last_dim_is_batch is not supported; use active_dims or a grid kernel")
        if x1.shape[-1] == 1:
            if diag:
                times, parameters, feedback = self._expanded(self._times(x1), self._times(x2))
                return autocovariance(self.structure, parameters, (times[0] - times[1]).abs(), feedback)
            if x1.shape == x2.shape and (x1 is x2 or torch.equal(x1, x2)):
                return self.gram(x1)
            return self.cross(x1, x2)
        if not self.isotropic:
            raise InvalidDataError(
                f"{type(self).__name__} is a covariance of one-dimensional inputs, got {x1.shape[-1]} dimensions; "
                "choose one with active_dims"
            )
        distance = (x1 - x2).norm(dim=-1) if diag else torch.cdist(x1, x2, compute_mode="donot_use_mm_for_euclid_dist")
        parameters, feedback = self._generators()
        batch = common_batch(parameters.shape[:-1], distance.shape[: -1 if diag else -2])
        parameters = parameters.expand(*batch, parameters.shape[-1])
        distance = distance.expand(*batch, *distance.shape[-1 if diag else -2 :])
        return autocovariance(self.structure, parameters, distance, feedback)

    @property
    def is_stationary(self) -> bool:
        """State-space kernels of this package are stationary."""
        return True

    # -- what time-series users ask -------------------------------------------------------------------------------

    def state_space(self) -> StateSpace:
        """The linear-Gaussian state space: F, P_inf and h."""
        return state_space_of(self.structure, self._closed_form_params())

    def autocovariance(self, lag: Tensor) -> Tensor:
        """k at lags (*s) of either sign: (*batch_shape, *s)."""
        params, feedback = self._generators()
        lag = torch.as_tensor(lag, dtype=params.dtype).abs()
        return autocovariance(self.structure, params, lag.expand((*self.batch_shape, *lag.shape)), feedback)

    def psd(self, frequency: Tensor, convention: str = "one-sided") -> Tensor:
        """Power spectral density at ordinary frequencies; see :meth:`gpkit.kernels.StateSpace.psd`."""
        space = self.state_space()
        return space.psd(torch.as_tensor(frequency, dtype=space.feedback.dtype), convention)

    def timescales(self) -> dict[str, Any]:
        """Characteristic times by name, in units of the input; parts of composite kernels are prefixed."""
        return {}

    # -- algebra --------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> gpytorch.kernels.Kernel:
        from gpkit.kernels.composite import SumKernel, as_state_space

        partner = as_state_space(other)
        return super().__add__(other) if partner is None else SumKernel(self, partner)

    def __mul__(self, other: Any) -> gpytorch.kernels.Kernel:
        from gpkit.kernels.composite import ProductKernel, as_state_space

        partner = as_state_space(other)
        return super().__mul__(other) if partner is None else ProductKernel(self, partner)
