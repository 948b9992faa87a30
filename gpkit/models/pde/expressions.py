"""Expressions of fields, coordinates, given functions and unknowns: what a user writes and the calculus reads.

Expressions are immutable trees; fields and their derivatives, leaves too, are in `fields`. Arithmetic folds numbers and
flattens sums and products, nothing more: derivatives are in `calculus`, the separation into linear and nonlinear parts
in `normal`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gpkit.errors import InvalidDataError

if TYPE_CHECKING:
    from gpkit.models.pde.fields import Derivative

__all__ = [
    "Apply",
    "Coordinate",
    "Equation",
    "Expression",
    "Given",
    "Number",
    "OnFace",
    "Power",
    "Product",
    "Sum",
    "Unknown",
    "add",
    "convert",
    "multiply",
    "power",
]

Orders = tuple[tuple[str, int], ...]


class Expression:
    """A term that can be added, multiplied, raised to powers, differentiated, and set equal to something.

    ``==`` makes an `Equation`; expressions are told apart by identity, so that they can be keys of dictionaries.
    """

    __array_ufunc__ = None  # numpy arrays and scalars leave arithmetic with expressions to the expressions
    __hash__ = object.__hash__

    @property
    def children(self) -> tuple[Expression, ...]:
        """The expressions that this one is made of."""
        return ()

    def walk(self) -> Iterator[Expression]:
        """This expression and all that it is made of."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def jets(self) -> tuple[Derivative, ...]:
        """The derivatives of fields in it, each once."""
        from gpkit.models.pde.fields import Derivative

        return tuple({(id(j.field), j.orders): j for j in self.walk() if isinstance(j, Derivative)}.values())

    def on(self, face: str | None = None, **coordinate: float) -> OnFace:
        """This expression on one face of the box: ``u.on("x=0")`` or ``u.on(x=0.0)``."""
        return OnFace.of(self, face, coordinate)

    def __add__(self, other: Any) -> Expression:
        return add(self, convert(other))

    def __radd__(self, other: Any) -> Expression:
        return add(convert(other), self)

    def __sub__(self, other: Any) -> Expression:
        return add(self, multiply(Number(-1.0), convert(other)))

    def __rsub__(self, other: Any) -> Expression:
        return add(convert(other), multiply(Number(-1.0), self))

    def __mul__(self, other: Any) -> Expression:
        return NotImplemented if hasattr(other, "components") else multiply(self, convert(other))

    def __rmul__(self, other: Any) -> Expression:
        return multiply(convert(other), self)

    def __truediv__(self, other: Any) -> Expression:
        return multiply(self, power(convert(other), -1.0))

    def __rtruediv__(self, other: Any) -> Expression:
        return multiply(convert(other), power(self, -1.0))

    def __pow__(self, exponent: Any) -> Expression:
        if not isinstance(exponent, numbers.Real):
            raise InvalidDataError(f"an exponent must be a real number, not {type(exponent).__name__}")
        return power(self, float(exponent))

    def __neg__(self) -> Expression:
        return multiply(Number(-1.0), self)

    def __pos__(self) -> Expression:
        return self

    def __eq__(self, other: object) -> Equation:  # type: ignore[override]  # an equation, not a comparison
        return Equation(self, other)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Torch functions of expressions are expressions: ``torch.sin(u)``."""
        name = getattr(function, "__name__", "")
        if kwargs and name not in _ARITHMETIC:
            raise InvalidDataError(f"torch.{name} of an expression takes no keywords: use apply(lambda u: ..., u)")
        if name in _ARITHMETIC:
            return _ARITHMETIC[name](convert(args[0]), convert(args[1]))
        if name in ("neg", "__neg__"):
            return -convert(args[0])
        if name in ("__eq__", "eq"):
            expression, other = (args[1], args[0]) if not isinstance(args[0], Expression) else args
            return Equation(expression, other)
        return Apply(function, tuple(convert(a) for a in args), name)


@dataclass(frozen=True, eq=False)
class Number(Expression):
    """A number."""

    value: float

    def __repr__(self) -> str:
        return f"{self.value:.6g}"


@dataclass(frozen=True, eq=False, repr=False)
class Coordinate(Expression):
    """A coordinate of the box, which has the axes ``axes``."""

    name: str
    axes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Given(Expression):
    """A known function of the coordinates, or a derivative of one.

    Attributes:
        function: Called with one float64 tensor per axis; or a `gridded.Gridded` interpolant.
        orders: Axes and orders of the derivative.
        label: Name for texts.
    """

    function: Any
    orders: Orders = ()
    label: str = ""

    def __repr__(self) -> str:
        name = self.label or getattr(self.function, "__name__", "f")
        name = "f" if name == "<lambda>" else name
        return name + "".join(f"_{axis * order}" for axis, order in self.orders)


@dataclass(frozen=True, eq=False, repr=False)
class Unknown(Expression):
    """An unknown number, inferred from observations: ``Unknown("D", prior=LogNormal(0.0, 1.0))``.

    Attributes:
        name: Its name in results.
        prior: A torch or GPyTorch distribution over one real number, or None for a flat one.
    """

    name: str
    prior: Any = None

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Sum(Expression):
    """A sum of two or more."""

    parts: tuple[Expression, ...]

    @property
    def children(self) -> tuple[Expression, ...]:
        """Its parts."""
        return self.parts

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts)).replace("+ -", "- ")


@dataclass(frozen=True, eq=False, repr=False)
class Product(Expression):
    """A product of two or more."""

    parts: tuple[Expression, ...]

    @property
    def children(self) -> tuple[Expression, ...]:
        """Its factors."""
        return self.parts

    def __repr__(self) -> str:
        first, *rest = self.parts
        if isinstance(first, Number) and first.value == -1.0:
            return "-" + "*".join(map(_bracketed, rest))
        return "*".join(map(_bracketed, self.parts))


@dataclass(frozen=True, eq=False, repr=False)
class Power(Expression):
    """A real power."""

    base: Expression
    exponent: float

    @property
    def children(self) -> tuple[Expression, ...]:
        """Its base."""
        return (self.base,)

    def __repr__(self) -> str:
        text = _bracketed(self.base) if not isinstance(self.base, Product | Power) else f"({self.base!r})"
        return f"{text}**{self.exponent:.6g}"


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Expression):
    """A pointwise function of expressions, or a partial derivative of it.

    Attributes:
        function: Takes and returns tensors, in torch operations.
        arguments: What it is applied to.
        label: Name for texts.
        path: Numbers of the arguments with respect to which it is differentiated, in turn.
    """

    function: Callable[..., Tensor]
    arguments: tuple[Expression, ...]
    label: str = ""
    path: tuple[int, ...] = ()

    @property
    def children(self) -> tuple[Expression, ...]:
        """Its arguments."""
        return self.arguments

    def __repr__(self) -> str:
        name = self.label or getattr(self.function, "__name__", "f")
        name = "f" if name == "<lambda>" else name
        return f"{name}{chr(39) * len(self.path)}({', '.join(map(repr, self.arguments))})"


@dataclass(frozen=True, eq=False)
class Equation:
    """``left == right``; the right side may be an expression, a number, a function, an array, or `Noisy` values."""

    left: Expression
    right: Any

    def __repr__(self) -> str:
        shown = self.right
        if isinstance(shown, Tensor) or hasattr(shown, "shape"):
            shown = f"values {tuple(shown.shape)}"
        elif not isinstance(shown, Expression | numbers.Real) and callable(shown):
            shown = repr(Given(shown))
        return f"{self.left!r} = {shown}"


@dataclass(frozen=True, eq=False)
class OnFace:
    """An expression on one face of the box."""

    expression: Expression
    axis: str
    at: float

    @classmethod
    def of(cls, expression: Expression, face: str | None, coordinate: Mapping[str, float]) -> OnFace:
        """From ``"x=0"`` or from ``x=0.0``."""
        if face is None and len(coordinate) == 1:
            ((axis, at),) = coordinate.items()
            return cls(expression, axis, float(at))
        if not isinstance(face, str) or coordinate or face.count("=") != 1:
            raise InvalidDataError(f"a face is named like 'x=0', got {face!r}{dict(coordinate) or ''}")
        from gpkit.models.pde.parsing import number_from_text

        axis, text = (part.strip() for part in face.split("="))
        return cls(expression, axis, number_from_text(text))

    def __eq__(self, other: object) -> Any:
        from gpkit.models.pde.conditions import Condition

        return Condition(self, other)

    __hash__ = object.__hash__


def convert(value: Any) -> Expression:
    """An expression from a number, a function of the coordinates, an array on a grid of the box, or an expression.

    Raises:
        InvalidDataError: It is something else, or not finite.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, bool):
        raise InvalidDataError("a truth value is not a term of an equation")
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise InvalidDataError(f"a number in an equation must be finite, got {value}")
        return Number(float(value))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if len(value.shape) == 0:
            return convert(float(value))
        from gpkit.models.pde.gridded import Gridded

        return Given(Gridded.of(value), label="values")
    if callable(value):
        return Given(value)
    raise InvalidDataError(
        f"{type(value).__name__} {str(value)[:40]!r} cannot stand in an equation: use numbers, functions of the "
        "coordinates, arrays on the grid, or expressions"
    )


def add(*parts: Expression) -> Expression:
    """Their sum, flattened, with numbers added up."""
    number, rest = 0.0, []
    for part in parts:
        for p in part.parts if isinstance(part, Sum) else (part,):
            if isinstance(p, Number):
                number += p.value
            else:
                rest.append(p)
    if number or not rest:
        rest.append(Number(number))
    return rest[0] if len(rest) == 1 else Sum(tuple(rest))


def multiply(*parts: Expression) -> Expression:
    """Their product, flattened, with numbers multiplied up and zero absorbing."""
    number, rest = 1.0, []
    for part in parts:
        for p in part.parts if isinstance(part, Product) else (part,):
            if isinstance(p, Number):
                number *= p.value
            else:
                rest.append(p)
    if number == 0.0 or not rest:
        return Number(number)
    if number != 1.0:
        rest.insert(0, Number(number))
    return rest[0] if len(rest) == 1 else Product(tuple(rest))


def power(base: Expression, exponent: float) -> Expression:
    """A power, with numbers computed and powers of powers joined where that is the same for every sign.

    Raises:
        InvalidDataError: A number has no such power.
    """
    if exponent == 1.0:
        return base
    if exponent == 0.0:
        return Number(1.0)
    if isinstance(base, Number):
        try:
            value = base.value**exponent
        except (ZeroDivisionError, OverflowError):
            value = math.inf
        if isinstance(value, complex) or not math.isfinite(value):
            raise InvalidDataError(f"{base.value:g} to the power {exponent:g} is not a finite real number")
        return Number(value)
    if isinstance(base, Power) and base.exponent == int(base.exponent) and exponent == int(exponent):
        return power(base.base, base.exponent * exponent)
    return Power(base, exponent)


def _bracketed(expression: Expression) -> str:
    return f"({expression!r})" if isinstance(expression, Sum) else repr(expression)


_ARITHMETIC: dict[str, Callable[[Expression, Expression], Any]] = {
    **dict.fromkeys(("add", "__add__"), lambda a, b: a + b),
    **dict.fromkeys(("__radd__",), lambda a, b: b + a),
    **dict.fromkeys(("sub", "__sub__"), lambda a, b: a - b),
    **dict.fromkeys(("rsub", "__rsub__"), lambda a, b: b - a),
    **dict.fromkeys(("mul", "__mul__"), lambda a, b: a * b),
    **dict.fromkeys(("__rmul__",), lambda a, b: b * a),
    **dict.fromkeys(("div", "true_divide", "__truediv__"), lambda a, b: a / b),
    **dict.fromkeys(("__rtruediv__", "__rdiv__"), lambda a, b: b / a),
}
