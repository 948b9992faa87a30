"""Parameters of light-curve models: names that users read, priors that scale with the data, and how they enter.

A model's free parameters are those of its kernel (amplitudes as standard deviations), the coefficients of its mean and
the jitter. Defaults are weakly informative and scale with the data, so that units do not matter:

=============================  ==============================================================================
parameter                      default prior
=============================  ==============================================================================
amplitude                      LogNormal(ln sd(y), 1)
timescale, lengthscale, ...    LogNormal(ln sqrt(cadence baseline), max(1, ln(baseline / cadence) / 3))
frequency (angular)            the same of its reciprocal
quality                        LogNormal(ln 1/2, 1.5)
other dimensionless            LogNormal(0, 1)
jitter                         HalfNormal(max(median error, sd(y) / 2))
mean                           Normal(mean(y), 2 sd(y)); slopes Normal(0, 2 sd(y) / baseline)
=============================  ==============================================================================

cadence is the median step between different times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.priors import HalfNormalPrior, LogNormalPrior, NormalPrior
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.potential import ParameterSpec
from gpkit.kernels import CeleriteKernel, ScaleKernel, StateSpaceKernel
from gpkit.models.kernel_values import module_at

__all__ = ["DataScale", "KernelParameter", "MeanModel", "has_amplitude", "kernel_parameters", "mean_model"]

_TIMES = frozenset({"timescale", "lengthscale", "period"})
_RATES = frozenset({"frequency", "c", "d"})


@dataclass(frozen=True)
class DataScale:
    """What default priors know about the data: the scale of times and values."""

    cadence: float
    baseline: float
    center: float
    spread: float
    error: float

    @classmethod
    def of(cls, time: NDArray[np.float64], value: NDArray[np.float64], error: NDArray[np.float64]) -> DataScale:
        """Measure times (N,), increasing, values (N,) and errors (N,).

        Raises:
            InvalidDataError: if the numbers leave nothing to model, or no room for squares in double precision.
        """
        _check_range(time, value, error)
        steps = np.diff(np.unique(time))
        baseline = float(time[-1] - time[0]) if len(time) > 1 else 1.0
        cadence = float(np.median(steps)) if len(steps) else 1.0
        spread = float(np.std(value))
        return cls(cadence, max(baseline, cadence), float(np.mean(value)), spread, float(np.median(error)))

    @property
    def log_time(self) -> tuple[float, float]:
        """Centre and width of ln(time scale)."""
        centre = 0.5 * (math.log(self.cadence) + math.log(self.baseline))
        return centre, max(1.0, math.log(self.baseline / self.cadence) / 3.0)


_LARGEST_TIME, _LARGEST_VALUE = 1e15, 1e100


def _check_range(time: NDArray[np.float64], value: NDArray[np.float64], error: NDArray[np.float64]) -> None:
    """Refuse data without a time scale or a variance, and units in which variances overflow."""
    different = np.unique(time)
    if len(different) < 3:
        times = "one time" if len(different) == 1 else f"{len(different)} different times"
        raise InvalidDataError(
            f"the {len(time)} points are at {times}: at least three different times are needed to fit a time scale"
        )
    reach, size = float(np.ptp(value)), float(np.abs(value).max())
    if reach <= 1e-14 * size:
        raise InvalidDataError(
            f"the values differ only by rounding ({reach:.2g} at {size:.4g}): there is no variability to model"
        )
    baseline, step = float(different[-1] - different[0]), float(np.median(np.diff(different)))
    if baseline > _LARGEST_TIME or step < 1.0 / _LARGEST_TIME:
        raise InvalidDataError(
            f"the times span {baseline:.2g} in steps of {step:.2g}: give them in a unit in which both lie between "
            f"{1.0 / _LARGEST_TIME:.0e} and {_LARGEST_TIME:.0e}"
        )
    largest = max(size, float(error.max()))
    if largest > _LARGEST_VALUE or reach < 1.0 / _LARGEST_VALUE:
        raise InvalidDataError(
            f"values and errors up to {largest:.2g} that differ by {reach:.2g} cannot be squared in double precision: "
            "give them in another unit"
        )


@dataclass(frozen=True)
class KernelParameter:
    """One free parameter of a kernel.

    Attributes:
        path: its natural name inside the kernel ("base_kernel.quality").
        name: what users read ("quality").
        squared: whether the user's parameter is the square root (an amplitude) of the kernel's (a variance).
        spec: prior, bounds and start.
        unit: "time", "rate", "value" or "".
    """

    path: str
    name: str
    squared: bool
    spec: ParameterSpec
    unit: str


def has_amplitude(kernel: StateSpaceKernel) -> bool:
    """Whether a kernel has its own amplitude somewhere."""
    return any(isinstance(part, ScaleKernel | CeleriteKernel) for part in kernel.modules())


def _readable(path: str, several: bool) -> str:
    """``kernels.1.base_kernel.quality`` becomes ``quality_1``."""
    *steps, leaf = path.split(".")
    numbers = [step for step in steps if step.isdigit()]
    leaf = "amplitude" if leaf == "outputscale" else leaf
    return "_".join([leaf, *numbers]) if several and numbers else leaf


def _default(leaf: str, scale: DataScale) -> tuple[Any, str, float, float]:
    """Prior, unit, start and spread of the unconstrained coordinate."""
    centre, width = scale.log_time
    if leaf in _TIMES:
        return LogNormalPrior(centre, width), "time", math.exp(centre), width
    if leaf in _RATES:
        return LogNormalPrior(-centre, width), "rate", math.exp(-centre), width
    if leaf == "quality":
        return LogNormalPrior(math.log(0.5), 1.5), "", 0.5, 1.0
    if leaf == "b":
        return NormalPrior(0.0, 1.0), "value", 0.0, 0.3
    if leaf == "a":
        return LogNormalPrior(2.0 * math.log(scale.spread), 2.0), "value", scale.spread**2, 1.0
    return LogNormalPrior(0.0, 1.0), "", 1.0, 1.0


def kernel_parameters(
    kernel: StateSpaceKernel, scale: DataScale, priors: Mapping[str, Any]
) -> tuple[KernelParameter, ...]:
    """Describe the free parameters of a kernel.

    Args:
        kernel: any state-space kernel without batch dimensions.
        scale: of the data.
        priors: priors by readable name, which win over those registered with the kernel and over the defaults.

    Raises:
        InvalidDataError: for a prior of an unknown parameter.
    """
    paths = list(kernel.natural_parameters())
    leaves = [path.rsplit(".", 1)[-1] for path in paths]
    several = len(set(leaves)) < len(leaves)
    found = []
    for path, leaf in zip(paths, leaves, strict=True):
        module, attribute = module_at(kernel, path)
        name = _readable(path, several)
        registered = getattr(module, f"{attribute}_prior", None)
        constraint = module.constraint_for_parameter_name(f"raw_{attribute}")
        lower = -math.inf if constraint is None else float(constraint.lower_bound)
        upper = math.inf if constraint is None else float(constraint.upper_bound)
        squared = leaf == "outputscale" and registered is None
        if squared:
            lower, upper = math.sqrt(max(lower, 0.0)), math.sqrt(upper)
            default = (LogNormalPrior(math.log(scale.spread), 1.0), "value", scale.spread, 1.0)
        elif leaf == "outputscale":
            default = (registered, "value", scale.spread**2, 1.0)
        else:
            default = _default(leaf, scale)
        prior, unit, start, spread = default
        prior = priors.get(name, prior if registered is None else registered)
        start = min(
            max(start, lower + 1e-6 * max(abs(lower), 1e-6)), upper if math.isinf(upper) else upper * (1 - 1e-6)
        )
        spec = ParameterSpec(name, prior, lower, upper, start, spread)
        found.append(KernelParameter(path, name, squared, spec, unit))
    return tuple(found)


@dataclass(frozen=True)
class MeanModel:
    """A mean function that is linear in its coefficients.

    Attributes:
        names: readable names of the K coefficients.
        specs: their priors and starts.
        module: the GPyTorch module behind it, or None for the built-in ones.
        degree: -1 for zero, 0 for a constant, 1 for a line; ignored where there is a module.
        middle: time at which the line is centred.
    """

    names: tuple[str, ...]
    specs: tuple[ParameterSpec, ...]
    module: Any
    degree: int
    middle: float

    def basis(self, time: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, K) at times (N,)."""
        if self.module is not None:
            return _jacobian(self.module, time)[0]
        columns = [np.ones_like(time), time - self.middle][: self.degree + 1]
        return np.stack(columns, axis=-1) if columns else np.empty((time.size, 0))


def _jacobian(module: Any, time: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives (N, K) of a mean module with respect to its parameters, and its value (N,) with all of them zero."""
    names, tensors = zip(*module.named_parameters(), strict=True)
    x = torch.as_tensor(time, dtype=torch.float64).unsqueeze(-1)

    def evaluate(*flat: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, dict(zip(names, flat, strict=True)), (x,)).double()

    zeros = tuple(torch.zeros_like(t, dtype=torch.float64) for t in tensors)
    jacobian = torch.func.jacrev(evaluate, argnums=tuple(range(len(zeros))))(*zeros)
    columns = [j.reshape(time.size, -1) for j in jacobian]
    return torch.cat(columns, dim=-1).detach().numpy(), evaluate(*zeros).detach().numpy()


def mean_model(mean: Any, time: NDArray[np.float64], scale: DataScale, priors: Mapping[str, Any]) -> MeanModel:
    """Describe a mean: "constant", "linear", "zero"/None, or a GPyTorch mean that is linear in its parameters.

    Raises:
        InvalidDataError: for another name, or a module that is not linear in its parameters.
    """
    middle = float(0.5 * (time[0] + time[-1]))
    level = ParameterSpec("mean", priors.get("mean", NormalPrior(scale.center, 2.0 * scale.spread)), init=scale.center)
    width = 2.0 * scale.spread / scale.baseline
    slope = ParameterSpec("slope", priors.get("slope", NormalPrior(0.0, width)), init=0.0)
    if mean is None or mean == "zero":
        return MeanModel((), (), None, -1, middle)
    if mean == "constant":
        return MeanModel(("mean",), (level,), None, 0, middle)
    if mean == "linear":
        return MeanModel(("mean", "slope"), (level, slope), None, 1, middle)
    if not isinstance(mean, gpytorch.means.Mean):
        raise InvalidDataError(f"mean must be 'constant', 'linear', 'zero' or a gpytorch mean module, got {mean!r}")
    module = mean.double()
    if not list(module.parameters()):
        if bool((module(torch.as_tensor(time).unsqueeze(-1)) != 0).any()):
            raise InvalidDataError("a fixed mean that is not zero: subtract it from the values instead")
        return MeanModel((), (), None, -1, middle)
    basis, offset = _jacobian(module, time)
    # Values without a pattern: a product of parameters may look linear where all of them are zero or one.
    trial = np.random.default_rng(0).uniform(0.5, 2.0, basis.shape[-1])
    parts = torch.as_tensor(trial).split([t.numel() for t in module.parameters()])
    tried = torch.func.functional_call(
        module,
        {name: part.reshape(t.shape) for part, (name, t) in zip(parts, module.named_parameters(), strict=True)},
        (torch.as_tensor(time).unsqueeze(-1),),
    )
    if np.abs(offset).max() > 0.0 or not np.allclose(tried.detach().numpy(), basis @ trial, rtol=1e-9, atol=1e-12):
        raise InvalidDataError(
            f"{type(mean).__name__} is not linear in its parameters; LightCurveGP needs a linear mean, "
            "gpkit.models.ExactGP takes any"
        )
    names = []
    for name, tensor in module.named_parameters():
        leaf = name.removeprefix("raw_").replace(".", "_")
        names += [leaf] if tensor.numel() == 1 else [f"{leaf}_{k}" for k in range(tensor.numel())]
    specs = []
    for k, name in enumerate(names):
        size = max(float(np.abs(basis[:, k]).max()), 1e-300)
        width = 2.0 * (scale.spread + abs(scale.center)) / size
        specs.append(ParameterSpec(name, priors.get(name, NormalPrior(0.0, width)), init=0.0))
    return MeanModel(tuple(names), tuple(specs), module, 0, middle)


def jitter_spec(scale: DataScale, priors: Mapping[str, Any]) -> ParameterSpec:
    """The additional white noise, a standard deviation."""
    width = max(scale.error, 0.5 * scale.spread)
    return ParameterSpec(
        "jitter",
        priors.get("jitter", HalfNormalPrior(width)),
        lower=0.0,
        init=0.5 * max(scale.error, 0.02 * width),
        spread=1.5,
    )
