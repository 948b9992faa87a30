"""Fields on a box and their partial derivatives: the unknown functions in expressions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gpkit.errors import InvalidDataError
from gpkit.models.pde.expressions import Expression

if TYPE_CHECKING:
    from gpkit.inference.collocation.forms import Box

__all__ = ["Derivative", "Field"]


class Derivative(Expression):
    """A partial derivative of a field.

    Attributes:
        field: The field.
        orders: Order along each axis of the field's box.
    """

    def __init__(self, field: Field, orders: tuple[int, ...]) -> None:
        self.field = field
        self.orders = orders

    def __repr__(self) -> str:
        axes = "".join(name * order for name, order in zip(self.field.box.names, self.orders, strict=True))
        return f"{self.field.name}_{axes}" if axes else self.field.name

    @property
    def order(self) -> int:
        """Its total order."""
        return sum(self.orders)


class Field(Derivative):
    """An unknown function on a box.

    A field that no equation determines is an unknown coefficient, with a Gaussian process prior of the given mean,
    amplitude and length scale.

    Args:
        name: Its name, in results too.
        box: The domain.
        mean: Prior mean, used for an unknown coefficient only.
        amplitude: Prior standard deviation, likewise.
        lengthscale: Prior length scale as a fraction of each axis, likewise.

    Raises:
        InvalidDataError: The name is not an identifier, or a number is not finite and positive.
    """

    def __init__(
        self, name: Any, box: Any, *, mean: float = 0.0, amplitude: float = 1.0, lengthscale: float = 0.3
    ) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidDataError(f"a field needs a name such as 'u', not {name!r}")
        if not hasattr(box, "names"):
            raise InvalidDataError(f"field {name!r} needs a Box as its domain, not {type(box).__name__}")
        for what, value in (("amplitude", amplitude), ("lengthscale", lengthscale)):
            if not (math.isfinite(value) and value > 0.0):
                raise InvalidDataError(f"the {what} of field {name!r} must be positive and finite, got {value}")
        self.name: str = name
        self.box: Box = box
        self.mean, self.amplitude, self.lengthscale = float(mean), float(amplitude), float(lengthscale)
        super().__init__(self, (0,) * len(box.names))
