"""Arrays on a tensor grid of the box: as right sides, with noise or without, and as smooth coefficients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.interpolate import BSpline, NdBSpline, make_interp_spline
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import TOO_LARGE, Box, first_unusable

__all__ = ["Gridded", "Noisy", "Spline", "is_open_mesh", "orders_on", "uniform_axes", "values_tensor"]

_DEGREE = 5


def values_tensor(values: Any, what: str) -> Tensor:
    """A float64 tensor of finite numbers.

    Raises:
        InvalidDataError: It holds something else; the first place is named.
    """
    try:
        owned = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
        tensor = owned.detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidDataError(f"{what} are not an array of numbers: {error}") from None
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise InvalidDataError(f"{what} must be real numbers, got {tensor.dtype}")
    tensor = tensor.to(torch.float64)
    if (where := first_unusable(tensor)) is not None:
        value = float(tensor[where])
        if math.isfinite(value):
            raise InvalidDataError(f"entry {where} of {what} is {value:.6g}: {TOO_LARGE}")
        raise InvalidDataError(f"{what} must be finite: entry {where} is {value}")
    return tensor


def uniform_axes(box: Box, shape: Sequence[int], leave_out: int | None = None) -> tuple[Tensor, ...]:
    """Equispaced coordinates with both ends, along every axis of a box but one.

    Raises:
        InvalidDataError: The number of axes does not fit.
    """
    kept = [k for k in range(box.dim) if k != leave_out]
    if len(shape) != len(kept):
        names = ", ".join(box.names[k] for k in kept)
        raise InvalidDataError(f"values of shape {tuple(shape)} do not lie on a grid of the axes ({names})")
    return tuple(
        torch.linspace(box.lower[k], box.upper[k], n, dtype=torch.float64) for k, n in zip(kept, shape, strict=True)
    )


def _checked_axes(axes: Sequence[Any] | None, values: Tensor, what: str) -> tuple[Tensor, ...] | None:
    if axes is None:
        return None
    tensors = tuple(values_tensor(a, f"the axes of {what}") for a in axes)
    sizes = tuple(t.numel() for t in tensors)
    if any(t.dim() != 1 for t in tensors) or sizes != tuple(values.shape):
        raise InvalidDataError(f"{what} have shape {tuple(values.shape)}, their axes have {sizes} points")
    for t in tensors:
        if bool((t.diff() <= 0.0).any()):
            raise InvalidDataError(f"the axes of {what} must increase")
    return tensors


@dataclass(frozen=True, eq=False, repr=False)
class Gridded:
    """Values on a tensor grid.

    Attributes:
        values: Of shape (N_1, ..., N_d).
        axes: Their coordinates; None: equispaced with both ends of the box.
        noise: Standard deviation of the independent Gaussian noise on them; 0: they are exact; nan: it is not known.
    """

    values: Tensor
    axes: tuple[Tensor, ...] | None = None
    noise: float = 0.0

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.values.shape))
        if not self.noise:
            return f"({shape} values)"
        return f"({shape} values, noise {'unknown' if math.isnan(self.noise) else format(self.noise, '.4g')})"

    @classmethod
    def of(cls, values: Any, axes: Sequence[Any] | None = None, what: str = "the values") -> Gridded:
        """Checked; see `values_tensor` for errors."""
        tensor = values_tensor(values, what)
        return cls(tensor, _checked_axes(axes, tensor, what))

    def axes_on(self, box: Box, leave_out: int | None = None) -> tuple[Tensor, ...]:
        """The coordinates of the values on a box, or on a face of it.

        Raises:
            InvalidDataError: They do not fit the box, or do not reach its ends.
        """
        if self.axes is None:
            if min(self.values.shape, default=2) < 2:
                raise InvalidDataError(
                    f"values of shape {tuple(self.values.shape)} do not span the box: give their axes"
                )
            return uniform_axes(box, self.values.shape, leave_out)
        kept = [k for k in range(box.dim) if k != leave_out]
        if len(kept) != len(self.axes):
            raise InvalidDataError(f"values with {len(self.axes)} axes do not lie on a grid of {len(kept)} axes")
        for k, axis in zip(kept, self.axes, strict=True):
            slack = 1e-9 * box.lengths[k]
            if float(axis[0]) < box.lower[k] - slack or float(axis[-1]) > box.upper[k] + slack:
                raise InvalidDataError(
                    f"values lie outside the box: {box.names[k]} runs from {float(axis[0]):g} to {float(axis[-1]):g}, "
                    f"the box from {box.lower[k]:g} to {box.upper[k]:g}"
                )
        return self.axes

    def spline(self, box: Box) -> Spline:
        """An interpolant that covers the box.

        Raises:
            InvalidDataError: The values do not reach the ends of the box, or carry noise.
        """
        if self.noise:
            raise InvalidDataError("noisy values can be the right side of an equation, not a coefficient")
        axes = self.axes_on(box)
        for k, axis in enumerate(axes):
            slack = 1e-9 * box.lengths[k]
            if float(axis[0]) > box.lower[k] + slack or float(axis[-1]) < box.upper[k] - slack:
                raise InvalidDataError(f"values of a coefficient must reach both ends of the box along {box.names[k]}")
        return Spline(self.values, axes)


class Noisy(Gridded):
    """Measured values of a right side on a grid: ``laplacian(u) == Noisy(values, noise=0.1)``.

    Args:
        values: Array of shape (N_1, ..., N_d); of a condition, without the axis of its face.
        noise: Standard deviation of their independent Gaussian noise, in their unit; None: it is found from the values.
        axes: Coordinates along each axis; equispaced with both ends of the box if not given.

    Raises:
        InvalidDataError: The values are not finite numbers, or the noise is negative.
    """

    def __init__(self, values: Any, noise: Any, axes: Sequence[Any] | None = None) -> None:
        if noise is None:
            noise = math.nan
        number = isinstance(noise, int | float) and not isinstance(noise, bool)
        if not number or noise < 0.0 or math.isinf(noise):
            raise InvalidDataError(f"the noise of values is one number, zero or more, or None; got {noise!r}")
        if callable(values) and not isinstance(values, torch.Tensor):
            raise InvalidDataError(
                "noisy values are measurements, and a function has none: give their array, and their axes where these "
                "are not the box divided evenly"
            )
        tensor = values_tensor(values, "noisy values")
        super().__init__(tensor, _checked_axes(axes, tensor, "noisy values"), float(noise))


class Spline:
    """The quintic tensor-product spline through values on a grid, with its derivatives.

    Args:
        values: (N_1, ..., N_d).
        axes: Their coordinates.
    """

    def __init__(self, values: Tensor, axes: Sequence[Tensor]) -> None:
        self.values = values
        self.axes = tuple(axes)

    @cached_property
    def _form(self) -> tuple[list[Any], Any, list[int]]:
        coefficients = self.values.numpy()
        knots, degrees = [], []
        for k, axis in enumerate(self.axes):
            degree = min(_DEGREE, len(axis) - 1)
            degree -= degree % 2 == 0 and degree > 0  # even degrees have no natural place for their knots
            spline = make_interp_spline(axis.numpy(), np.moveaxis(coefficients, k, 0), k=degree)
            coefficients = np.moveaxis(spline.c, 0, k)
            knots.append(spline.t)
            degrees.append(degree)
        return knots, coefficients, degrees

    def __call__(self, coordinates: Sequence[Tensor], orders: Sequence[int]) -> Tensor:
        """Derivatives at coordinates of shapes that broadcast; an open mesh is evaluated axis by axis."""
        knots, coefficients, degrees = self._form
        dimension = len(knots)
        if any(o > k for o, k in zip(orders, degrees, strict=True)):
            return torch.zeros(np.broadcast_shapes(*(c.shape for c in coordinates)), dtype=torch.float64)
        if is_open_mesh(coordinates):
            values = coefficients
            for k, c in enumerate(coordinates):
                spline = BSpline(knots[k], np.moveaxis(values, k, 0), degrees[k])
                values = np.moveaxis(spline(c.detach().reshape(-1).numpy(), nu=orders[k]), 0, k)
            return torch.from_numpy(np.ascontiguousarray(values))
        points = torch.stack(torch.broadcast_tensors(*coordinates), -1).detach().reshape(-1, dimension)
        found = NdBSpline(tuple(knots), coefficients, degrees)(points.numpy(), nu=list(orders))
        return torch.from_numpy(found).reshape(np.broadcast_shapes(*(c.shape for c in coordinates)))


def is_open_mesh(coordinates: Sequence[Tensor]) -> bool:
    """Whether coordinate k varies along dimension k only."""
    dimension = len(coordinates)
    return dimension > 1 and all(
        c.dim() == dimension and all(n == 1 for j, n in enumerate(c.shape) if j != k) for k, c in enumerate(coordinates)
    )


def orders_on(box: Box, orders: Sequence[tuple[str, int]] | Mapping[str, int]) -> tuple[int, ...]:
    """Orders along every axis of a box, from those by name.

    Raises:
        InvalidDataError: The box has no such axis.
    """
    given = dict(orders)
    for name in given:
        if name not in box.names:
            raise InvalidDataError(f"there is no axis {name!r}: the axes are {', '.join(box.names)}")
    return tuple(given.get(name, 0) for name in box.names)
