"""Boxes as a user writes them."""

from __future__ import annotations

import math
import numbers
from typing import Any

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation import forms

__all__ = ["Box"]

_MOST_AXES = 3


class Box(forms.Box):
    """A product of one to three intervals: ``Box(x=(0, 2 * pi), t=(0, 1))``.

    An axis called ``t`` is time: Laplacians, gradients and divergences leave it out.

    Args:
        **axes: The ends of each axis, by name.

    Raises:
        InvalidDataError: There is no axis, there are more than three, or ends are not two increasing finite numbers.
    """

    def __init__(self, **axes: Any) -> None:
        if not 1 <= len(axes) <= _MOST_AXES:
            raise InvalidDataError(f"a box has one to three axes, such as Box(x=(0, 1), y=(0, 1)); got {len(axes)}")
        lower, upper = [], []
        for name, ends in axes.items():
            try:
                low, high = ends
            except (TypeError, ValueError):
                raise InvalidDataError(
                    f"axis {name!r} needs its two ends, such as {name}=(0, 1); got {ends!r}"
                ) from None
            if any(isinstance(e, bool) or not isinstance(e, numbers.Real) or not math.isfinite(e) for e in (low, high)):
                raise InvalidDataError(f"the ends of axis {name!r} must be finite numbers, got {ends!r}")
            if not float(low) < float(high):
                raise InvalidDataError(f"axis {name!r} must run from a smaller to a larger number, got {ends!r}")
            lower.append(float(low))
            upper.append(float(high))
        super().__init__(tuple(axes), tuple(lower), tuple(upper))

    def __repr__(self) -> str:
        ends = zip(self.names, self.lower, self.upper, strict=True)
        return f"Box({', '.join(f'{name}=({a:.6g}, {b:.6g})' for name, a, b in ends)})"
