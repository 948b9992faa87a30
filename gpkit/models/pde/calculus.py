"""Derivatives of expressions, and the operators that mathematicians write with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Box
from gpkit.models.pde.expressions import (
    Apply,
    Coordinate,
    Expression,
    Given,
    Number,
    Power,
    Product,
    Sum,
    Unknown,
    add,
    convert,
    multiply,
    power,
)
from gpkit.models.pde.fields import Derivative

__all__ = [
    "TIME",
    "Vector",
    "apply",
    "biharmonic",
    "coordinates",
    "cos",
    "d",
    "divergence",
    "dot",
    "dt",
    "exp",
    "gradient",
    "laplacian",
    "log",
    "sin",
    "sqrt",
    "tanh",
]

TIME = "t"
"""The axis that Laplacians, gradients and divergences leave out."""
HIGHEST_ORDER = 8


def d(expression: Any, *along: Any) -> Expression:
    """Partial derivatives: ``d(u, "x")``, ``d(u, "x", 2)``, ``d(u, "x", 1, "y", 2)``.

    Args:
        expression: What is differentiated.
        *along: Names of axes, each with the order of the derivative after it, 1 if there is none.

    Raises:
        InvalidDataError: No axis is given, an order is not a whole number from 0 to 8, or the box has no such axis.
    """
    result, index = convert(expression), 0
    if not along:
        raise InvalidDataError("d needs the name of an axis: d(u, 'x') or d(u, 'x', 2)")
    while index < len(along):
        axis = along[index]
        order: Any = 1
        if not isinstance(axis, str):
            raise InvalidDataError(f"d needs the name of an axis before {axis!r}: d(u, 'x', 2)")
        index += 1
        if index < len(along) and not isinstance(along[index], str):
            order = along[index]
            index += 1
        if not isinstance(order, int) or not 0 <= order <= HIGHEST_ORDER:
            raise InvalidDataError(
                f"the order of a derivative is a whole number from 0 to {HIGHEST_ORDER}, got {order!r}"
            )
        for _ in range(order):
            result = _differentiated(result, axis)
    return result


def dt(expression: Any, order: int = 1) -> Expression:
    """Derivative with respect to time, the axis ``"t"``."""
    return d(expression, TIME, order)


def laplacian(expression: Any, axes: Sequence[str] | None = None) -> Expression:
    """Sum of the second derivatives along every axis but ``"t"``, or along the given ones."""
    e = convert(expression)
    return add(*(d(e, axis, 2) for axis in _spatial(e, axes)))


def biharmonic(expression: Any, axes: Sequence[str] | None = None) -> Expression:
    """The Laplacian of the Laplacian."""
    return laplacian(laplacian(expression, axes), axes)


class Vector:
    """A vector of expressions, one component per axis.

    Attributes:
        components: The components.
        axes: Names of their axes.
    """

    __array_ufunc__ = None

    def __init__(self, components: Sequence[Any], axes: Sequence[str]) -> None:
        if len(components) != len(axes) or not components:
            raise InvalidDataError(f"a vector needs one component per axis, got {len(components)} for {list(axes)}")
        self.components = tuple(convert(c) for c in components)
        self.axes = tuple(axes)

    def __iter__(self) -> Iterator[Expression]:
        return iter(self.components)

    def __len__(self) -> int:
        return len(self.components)

    def __getitem__(self, index: int) -> Expression:
        return self.components[index]

    def __mul__(self, factor: Any) -> Vector:
        f = convert(factor)
        return Vector([f * c for c in self.components], self.axes)

    __rmul__ = __mul__

    def __add__(self, other: Vector) -> Vector:
        return Vector([a + b for a, b in zip(self.components, _like(self, other), strict=True)], self.axes)

    def __sub__(self, other: Vector) -> Vector:
        return self + (-1.0) * other

    def __neg__(self) -> Vector:
        return self * (-1.0)

    def __repr__(self) -> str:
        return f"Vector({', '.join(map(repr, self.components))})"


def gradient(expression: Any, axes: Sequence[str] | None = None) -> Vector:
    """First derivatives along every axis but ``"t"``, or along the given ones."""
    e = convert(expression)
    names = _spatial(e, axes)
    return Vector([d(e, name) for name in names], names)


def divergence(vector: Vector | Sequence[Any], axes: Sequence[str] | None = None) -> Expression:
    """Sum of the derivatives of components along their axes: ``divergence(a * gradient(u))``."""
    if not isinstance(vector, Vector):
        components = [convert(c) for c in vector]
        if axes is None:
            axes = _spatial(add(*components), None)
        vector = Vector(components, axes)
    return add(*(d(c, axis) for c, axis in zip(vector.components, axes or vector.axes, strict=True)))


def dot(a: Vector | Sequence[Any], b: Vector | Sequence[Any]) -> Expression:
    """Scalar product, one of both a `Vector`: ``dot((1.0, velocity), gradient(u))``."""
    if not isinstance(a, Vector):
        a, b = b, a
    if not isinstance(a, Vector):
        raise InvalidDataError("dot needs a vector, such as gradient(u)")
    return add(*(x * y for x, y in zip(a.components, _like(a, b), strict=True)))


def coordinates(of: Any) -> tuple[Coordinate, ...]:
    """Axes of a box, or of a field's box, as expressions that may stand in equations."""
    box = getattr(of, "box", of)
    if not isinstance(box, Box):
        raise InvalidDataError(f"coordinates needs a Box or a Field, not {type(of).__name__}")
    return tuple(Coordinate(name, box.names) for name in box.names)


def apply(function: Any, *arguments: Any, label: str = "") -> Expression:
    """A pointwise function of expressions: ``apply(lambda u, ux: u * ux**2, u, d(u, "x"))``.

    Args:
        function: Takes one tensor per argument and returns one of the same shape, in differentiable torch operations.
        *arguments: Expressions, numbers or functions of the coordinates.
        label: Its name in texts.

    Raises:
        InvalidDataError: It is not callable, or there is no argument.
    """
    if not callable(function) or not arguments:
        raise InvalidDataError("apply needs a function and what it is applied to: apply(torch.sin, u)")
    return Apply(function, tuple(convert(a) for a in arguments), label)


def sin(x: Any) -> Any:
    """Sine of an expression, or of a tensor."""
    return _pointwise(torch.sin, x)


def cos(x: Any) -> Any:
    """Cosine of an expression, or of a tensor."""
    return _pointwise(torch.cos, x)


def exp(x: Any) -> Any:
    """Exponential of an expression, or of a tensor."""
    return _pointwise(torch.exp, x)


def log(x: Any) -> Any:
    """Natural logarithm of an expression, or of a tensor."""
    return _pointwise(torch.log, x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent of an expression, or of a tensor."""
    return _pointwise(torch.tanh, x)


def sqrt(x: Any) -> Any:
    """Square root of an expression, or of a tensor."""
    return x.sqrt() if isinstance(x, torch.Tensor) else power(convert(x), 0.5)


def _pointwise(function: Callable[[torch.Tensor], torch.Tensor], x: Any) -> Any:
    """The same name serves in equations and in the functions of coordinates that are given with them."""
    return function(x) if isinstance(x, torch.Tensor) else Apply(function, (convert(x),), function.__name__)


def _spatial(expression: Expression, axes: Sequence[str] | None) -> tuple[str, ...]:
    if axes is not None:
        return tuple(axes)
    for node in expression.walk():
        names = node.field.box.names if isinstance(node, Derivative) else getattr(node, "axes", ())
        if names:
            return tuple(name for name in names if name != TIME)
    raise InvalidDataError("which axes? there is no field in this expression: name them with axes=('x', 'y')")


def _like(vector: Vector, other: Any) -> tuple[Expression, ...]:
    components = other.components if isinstance(other, Vector) else tuple(convert(c) for c in other)
    if len(components) != len(vector):
        raise InvalidDataError(f"vectors of {len(vector)} and {len(components)} components do not go together")
    return components


# The derivatives of functions that have simple ones; all others are differentiated by autograd at evaluation.
_KNOWN: dict[Any, Callable[[Expression], Expression]] = {
    torch.sin: cos,
    torch.cos: lambda x: -sin(x),
    torch.exp: exp,
    torch.log: lambda x: power(x, -1.0),
    torch.tanh: lambda x: 1.0 - tanh(x) ** 2,
}


def _differentiated(e: Expression, axis: str) -> Expression:
    """First derivative along an axis."""
    if isinstance(e, Number | Unknown):
        return Number(0.0)
    if isinstance(e, Coordinate):
        return Number(1.0 if e.name == axis else 0.0)
    if isinstance(e, Derivative):
        names = e.field.box.names
        if axis not in names:
            raise InvalidDataError(f"field {e.field.name!r} has no axis {axis!r}: its axes are {', '.join(names)}")
        at = names.index(axis)
        return Derivative(e.field, tuple(o + (k == at) for k, o in enumerate(e.orders)))
    if isinstance(e, Given):
        orders = dict(e.orders)
        orders[axis] = orders.get(axis, 0) + 1
        return Given(e.function, tuple(sorted(orders.items())), e.label)
    if isinstance(e, Sum):
        return add(*(_differentiated(p, axis) for p in e.parts))
    if isinstance(e, Product):
        parts = []
        for k, part in enumerate(e.parts):
            parts.append(multiply(*e.parts[:k], _differentiated(part, axis), *e.parts[k + 1 :]))
        return add(*parts)
    if isinstance(e, Power):
        return multiply(Number(e.exponent), power(e.base, e.exponent - 1.0), _differentiated(e.base, axis))
    if isinstance(e, Apply):
        parts = []
        for k, argument in enumerate(e.arguments):
            inner = _differentiated(argument, axis)
            if isinstance(inner, Number) and inner.value == 0.0:
                continue
            known = _KNOWN.get(e.function) if not e.path else None
            outer = known(argument) if known else Apply(e.function, e.arguments, e.label, (*e.path, k))
            parts.append(multiply(outer, inner))
        return add(*parts) if parts else Number(0.0)
    raise InvalidDataError(f"{type(e).__name__} cannot be differentiated")
