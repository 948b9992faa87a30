r"""Spectral filters: how much variance a kernel gives to each eigenvalue of a Laplacian.

A filter is a positive function :math:`\phi(\lambda)`, given by its logarithm so that nothing overflows: kernels
normalise :math:`S_l=\phi(\lambda_l)/\sum_m\phi(\lambda_m)` by a softmax. Length scales have the units in which the
eigenvalues are 1 / length^2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gpytorch
import torch
from gpytorch.constraints import Interval, Positive
from torch import Tensor

from gpkit.errors import InvalidDataError

__all__ = [
    "FILTERS",
    "CommunicabilityFilter",
    "CosineFilter",
    "FunctionFilter",
    "HeatFilter",
    "MaternFilter",
    "MonotoneFilter",
    "PStepFilter",
    "RegularisedLaplacianFilter",
    "SpectralFilter",
]


class SpectralFilter(gpytorch.Module):
    """Base class of filters: register parameters, and say what log phi is.

    Args:
        batch_shape: shape of independent copies of the parameters.
    """

    def __init__(self, batch_shape: torch.Size | None = None) -> None:
        super().__init__()
        self.batch_shape = torch.Size() if batch_shape is None else torch.Size(batch_shape)

    def add_positive(self, name: str, value: Any, bounds: tuple[float, float] | None = None, size: int = 0) -> None:
        """Register ``raw_<name>`` (*batch_shape, or *batch_shape, size) with a positive or bounded natural value."""
        shape = (*self.batch_shape, size) if size else self.batch_shape
        start = torch.as_tensor(value, dtype=torch.float64).expand(shape).clone()
        constraint = Positive() if bounds is None else Interval(*bounds)
        if not bool(constraint.check(start)):
            allowed = "positive" if bounds is None else f"between {bounds[0]:g} and {bounds[1]:g}"
            raise InvalidDataError(f"{type(self).__name__}: {name} must be {allowed}, got {start.tolist()}")
        self.register_parameter(f"raw_{name}", torch.nn.Parameter(constraint.inverse_transform(start)))
        self.register_constraint(f"raw_{name}", constraint)

    def natural(self, name: str) -> Tensor:
        """The natural value of a parameter."""
        constraint = getattr(self, f"raw_{name}_constraint")
        value: Tensor = constraint.transform(getattr(self, f"raw_{name}"))
        return value

    def set_natural(self, name: str, value: Any) -> None:
        """Set a parameter to a natural value."""
        raw, constraint = getattr(self, f"raw_{name}"), getattr(self, f"raw_{name}_constraint")
        value = torch.as_tensor(value, dtype=raw.dtype, device=raw.device).expand(raw.shape)
        if not bool(constraint.check(value)):
            raise InvalidDataError(f"{type(self).__name__}: {name} = {value.tolist()} is out of bounds")
        self.initialize(**{f"raw_{name}": constraint.inverse_transform(value)})

    def _with(self, change: Callable[[Tensor], Tensor]) -> SpectralFilter:
        """A copy whose parameters were changed along their batch dimensions."""
        new = copy.deepcopy(self)
        shape = change(torch.zeros(self.batch_shape)).shape
        for parameter in new.parameters():
            own = parameter.shape[len(self.batch_shape) :]
            flat = parameter.data.reshape((*self.batch_shape, -1))
            pieces = [change(piece) for piece in flat.unbind(-1)]
            parameter.data = torch.stack(pieces, -1).reshape((*shape, *own)).clone()
        new.batch_shape = shape
        return new

    def __getitem__(self, index: Any) -> SpectralFilter:
        """The filter of some batch elements."""
        return self._with(lambda values: values[index])

    def expand_batch(self, batch_shape: torch.Size) -> SpectralFilter:
        """Copies of the filter along new batch dimensions."""
        return self._with(lambda values: values.expand(batch_shape))

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """log phi (*batch_shape, k) at eigenvalues (k,), up to a constant."""
        raise NotImplementedError

    def forward(self, eigenvalues: Tensor) -> Tensor:
        """The same as :meth:`log_response`."""
        return self.log_response(eigenvalues)


class _LengthscaleFilter(SpectralFilter):
    """A filter with one length scale."""

    def __init__(self, lengthscale: Any = 1.0, batch_shape: torch.Size | None = None) -> None:
        super().__init__(batch_shape)
        self.add_positive("lengthscale", lengthscale)

    @property
    def lengthscale(self) -> Tensor:
        """Length scale (*batch_shape,), in units of the data."""
        return self.natural("lengthscale")

    @lengthscale.setter
    def lengthscale(self, value: Any) -> None:
        self.set_natural("lengthscale", value)


class MaternFilter(_LengthscaleFilter):
    r"""Matern: :math:`\phi=(2\nu/\ell^2+\lambda)^{-\nu-d/2}`.

    Args:
        nu: smoothness; hardly identified by data, so fixed unless asked for.
        lengthscale: in units of the data.
        dim: dimension d of the manifold.
        learn_nu: make nu a parameter between 0.2 and 20.
        batch_shape: of the parameters.

    References:
        Borovitskiy et al. (2020), NeurIPS 33 (Matern processes on manifolds).
    """

    def __init__(
        self,
        nu: float = 1.5,
        lengthscale: Any = 1.0,
        dim: int = 2,
        learn_nu: bool = False,
        batch_shape: torch.Size | None = None,
    ) -> None:
        super().__init__(lengthscale, batch_shape)
        if not 0.0 < nu < float("inf"):
            raise InvalidDataError(f"nu must be positive and finite, got {nu}; the limit of large nu is HeatFilter")
        self.dim = dim
        self.learn_nu = learn_nu
        if learn_nu:
            self.add_positive("nu", nu, (0.2, 20.0))
        else:
            self.fixed_nu = float(nu)

    @property
    def nu(self) -> Tensor:
        """Smoothness (*batch_shape,)."""
        if self.learn_nu:
            return self.natural("nu")
        return torch.full_like(self.raw_lengthscale, self.fixed_nu)

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k)."""
        nu, scale = self.nu.unsqueeze(-1), self.lengthscale.unsqueeze(-1)
        # Relative to phi(0), so that the derivative with respect to nu does not carry a constant.
        return -(nu + 0.5 * self.dim) * torch.log1p(eigenvalues * scale.square() / (2.0 * nu))


class HeatFilter(_LengthscaleFilter):
    r"""Heat (squared exponential): :math:`\phi=e^{-\ell^2\lambda/2}`."""

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k)."""
        return -0.5 * self.lengthscale.unsqueeze(-1).square() * eigenvalues


class RegularisedLaplacianFilter(_LengthscaleFilter):
    r"""Regularised Laplacian: :math:`\phi=(1+\ell^2\lambda)^{-p}`.

    Args:
        lengthscale: in units of the data.
        power: p.
        batch_shape: of the parameters.

    References:
        Smola & Kondor (2003), COLT.
    """

    def __init__(self, lengthscale: Any = 1.0, power: float = 1.0, batch_shape: torch.Size | None = None) -> None:
        super().__init__(lengthscale, batch_shape)
        if not power > 0.0:
            raise InvalidDataError(f"power must be positive, got {power}")
        self.power = float(power)

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k)."""
        return -self.power * torch.log1p(self.lengthscale.unsqueeze(-1).square() * eigenvalues)


class PStepFilter(SpectralFilter):
    r"""Random walk of p steps: :math:`\phi=(a-\lambda)^p` with a no smaller than the largest eigenvalue.

    Args:
        steps: p.
        offset: a; 2 suits normalised Laplacians.
        batch_shape: of the parameters.
        learn_steps: make p a positive parameter, no longer a whole number.

    References:
        Smola & Kondor (2003), COLT.
    """

    def __init__(
        self,
        steps: int | float = 2,
        offset: float = 2.0,
        batch_shape: torch.Size | None = None,
        learn_steps: bool = False,
    ) -> None:
        super().__init__(batch_shape)
        if steps < 1:
            raise InvalidDataError(f"steps must be at least 1, got {steps}")
        self.learn_steps = learn_steps
        if learn_steps:
            self.add_positive("steps", steps)
        else:
            self.fixed_steps = float(steps)
        self.offset = float(offset)

    @property
    def steps(self) -> Tensor:
        """Number of steps (*batch_shape,)."""
        if self.learn_steps:
            return self.natural("steps")
        return torch.full(self.batch_shape, self.fixed_steps, dtype=torch.float64)

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k).

        Raises:
            InvalidDataError: an eigenvalue exceeds the offset.
        """
        room = self.offset - eigenvalues
        if bool((room < -1e-9 * self.offset).any()):
            raise InvalidDataError(
                f"the offset {self.offset:g} is below the largest eigenvalue {float(eigenvalues.max()):g}: raise it, "
                "or normalise the Laplacian"
            )
        tiny = torch.finfo(eigenvalues.dtype).tiny
        return self.steps.to(room).unsqueeze(-1) * room.clamp_min(tiny).log()


class CosineFilter(SpectralFilter):
    r"""Cosine: :math:`\phi=\cos(\pi\lambda/2b)`, with b the largest eigenvalue: 2 for normalised Laplacians.

    Args:
        largest: b, no smaller than any eigenvalue.
        batch_shape: of copies of the filter, which has no parameters.

    References:
        Smola & Kondor (2003), COLT (there the inverse cosine regulariser).
    """

    def __init__(self, largest: float = 2.0, batch_shape: torch.Size | None = None) -> None:
        super().__init__(batch_shape)
        if not 0.0 < largest < float("inf"):
            raise InvalidDataError(f"largest must be positive and finite, got {largest}")
        self.largest = float(largest)

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k).

        Raises:
            InvalidDataError: an eigenvalue exceeds the largest.
        """
        if bool((eigenvalues > self.largest * (1.0 + 1e-9)).any()):
            raise InvalidDataError(
                f"the cosine filter is for eigenvalues up to {self.largest:g}, got {float(eigenvalues.max()):g}: pass "
                "largest=, or normalise the Laplacian"
            )
        tiny = torch.finfo(eigenvalues.dtype).tiny
        return (
            torch.cos(0.5 * torch.pi * eigenvalues / self.largest).clamp_min(tiny).log().expand(*self.batch_shape, -1)
        )


class CommunicabilityFilter(SpectralFilter):
    r"""Communicability :math:`e^{tA}` of an adjacency matrix, whose basis holds :math:`\lambda=\rho(A)-\mu(A)`.

    Args:
        time: t.
        batch_shape: of the parameters.

    References:
        Estrada & Hatano (2008), PRE 77, 036111.
    """

    def __init__(self, time: Any = 1.0, batch_shape: torch.Size | None = None) -> None:
        super().__init__(batch_shape)
        self.add_positive("time", time)

    @property
    def time(self) -> Tensor:
        """Time t (*batch_shape,)."""
        return self.natural("time")

    @time.setter
    def time(self, value: Any) -> None:
        self.set_natural("time", value)

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k)."""
        return -self.time.unsqueeze(-1) * eigenvalues


class FunctionFilter(SpectralFilter):
    """A filter that a user gives, without parameters: ``log_phi(eigenvalues (k,)) -> (k,)`` in torch.

    Subclass :class:`SpectralFilter` for one with parameters.
    """

    def __init__(self, log_phi: Callable[[Tensor], Tensor], batch_shape: torch.Size | None = None) -> None:
        super().__init__(batch_shape)
        self.log_phi = log_phi

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k).

        Raises:
            InvalidDataError: the function returns another shape, or values that are not numbers.
        """
        values: Any = self.log_phi(eigenvalues)
        if not isinstance(values, Tensor) or values.shape != eigenvalues.shape or bool(torch.isnan(values).any()):
            raise InvalidDataError(
                f"the filter function must return a tensor of log phi of shape {tuple(eigenvalues.shape)} without nan"
            )
        return values.expand(*self.batch_shape, -1)


class MonotoneFilter(SpectralFilter):
    r"""A learned filter that never increases: log phi falls piecewise linearly in :math:`\log(1+\lambda\ell^2)`.

    Args:
        knots: number of pieces, each with its own drop.
        largest: largest eigenvalue that matters (that of the basis); above it the last slope goes on.
        unit: length that separates slow from fast, in units of the data.
        drop: start value of each drop of log phi.
        batch_shape: of the parameters.
    """

    def __init__(
        self,
        knots: int = 8,
        largest: float = 1.0,
        unit: float = 1.0,
        drop: Any = 1.0,
        batch_shape: torch.Size | None = None,
    ) -> None:
        super().__init__(batch_shape)
        if knots < 1 or not largest > 0.0 or not unit > 0.0:
            raise InvalidDataError(
                "a monotone filter needs at least one knot, and a positive largest eigenvalue and unit"
            )
        self.unit = float(unit)
        self.step = float(torch.log1p(torch.tensor(largest * unit**2, dtype=torch.float64))) / knots
        self.knots = knots
        self.add_positive("drops", drop, size=knots)

    @property
    def drops(self) -> Tensor:
        """Fall of log phi over each piece (*batch_shape, knots)."""
        return self.natural("drops")

    @drops.setter
    def drops(self, value: Any) -> None:
        self.set_natural("drops", value)

    def log_response(self, eigenvalues: Tensor) -> Tensor:
        """Log phi (*batch_shape, k)."""
        place = torch.log1p(eigenvalues * self.unit**2) / self.step
        knots = torch.arange(self.knots, dtype=place.dtype, device=place.device)
        covered = (place.unsqueeze(-1) - knots).clamp(0.0, 1.0)
        beyond = (place.unsqueeze(-1) - self.knots).clamp_min(0.0)
        covered = torch.cat([covered[..., :-1], covered[..., -1:] + beyond], -1)
        return -(self.drops.unsqueeze(-2) * covered).sum(-1)


FILTERS: dict[str, type[SpectralFilter]] = {
    "matern": MaternFilter,
    "heat": HeatFilter,
    "regularised-laplacian": RegularisedLaplacianFilter,
    "p-step": PStepFilter,
    "cosine": CosineFilter,
    "communicability": CommunicabilityFilter,
    "monotone": MonotoneFilter,
}
"""Filters that can be asked for by name."""
