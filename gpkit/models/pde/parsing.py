"""Numbers, expressions and equations from text: a small language, read with `ast` and never evaluated as Python."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

from gpkit.errors import InvalidDataError

__all__ = ["equation_from_text", "expression_from_text", "number_from_text"]

_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
_LONGEST = 4000
_DEEPEST = 80


def number_from_text(text: str) -> float:
    """A number such as ``2*pi`` or ``-0.5``.

    Raises:
        InvalidDataError: The text is something else, or not finite.
    """
    value = _evaluate(text, {})
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidDataError(f"{text!r} is not a finite number")
    return float(value)


def expression_from_text(text: str, names: Mapping[str, Any]) -> Any:
    """An expression such as ``laplacian(u) + u*(u**2 - 1)``.

    Args:
        text: The expression: numbers, names, + - * / **, brackets, and calls of the functions in ``names`` and of the
            usual elementary ones.
        names: What names stand for: fields, coordinates, unknowns, functions.

    Raises:
        InvalidDataError: The text is not such an expression; the place is named.
    """
    return _evaluate(text, {**_functions(), **names})


def equation_from_text(text: str, names: Mapping[str, Any]) -> tuple[Any, Any]:
    """Both sides of an equation such as ``dt(u) - 0.1*d(u, "x", 2) = 0``; ``==`` and ``=`` mean the same.

    Raises:
        InvalidDataError: There is not exactly one equals sign, or a side is not an expression.
    """
    parts = text.replace("==", "=").split("=")
    if len(parts) != 2:
        raise InvalidDataError(f"an equation has one equals sign, {text!r} has {len(parts) - 1}")
    return expression_from_text(parts[0], names), expression_from_text(parts[1], names)


def _functions() -> dict[str, Any]:
    from gpkit.models.pde import calculus

    return {
        name: getattr(calculus, name)
        for name in (
            *("biharmonic", "cos", "d", "divergence", "dot", "dt", "exp", "gradient", "laplacian", "log", "sin"),
            *("sqrt", "tanh"),
        )
    }


_OPERATORS: dict[type[Any], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: _power(a, b),
}


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int | float) and isinstance(exponent, int | float):
        return float(base) ** exponent  # floats overflow; whole numbers would grow without end
    return base**exponent


def _evaluate(text: str, names: Mapping[str, Any]) -> Any:
    if not isinstance(text, str):
        raise InvalidDataError(f"an expression is a text, got {type(text).__name__}")
    if len(text) > _LONGEST:
        raise InvalidDataError(f"an expression of {len(text)} characters is too long (at most {_LONGEST})")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f" at column {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise InvalidDataError(f"{_shown(text)} is not an expression{place}") from None
    try:
        return _value(tree.body, names, text, 0)
    except (ZeroDivisionError, OverflowError) as error:
        raise InvalidDataError(f"{text!r} cannot be computed: {error}") from None
    except TypeError as error:
        raise InvalidDataError(f"{text!r} does not fit together: {error}") from None


def _shown(text: str) -> str:
    """A text in a message: its beginning, where it is long."""
    return repr(text) if len(text) <= 120 else f"{text[:60]!r}..."


def _value(node: ast.expr, names: Mapping[str, Any], text: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise InvalidDataError(f"{_shown(text)} is nested too deeply")

    def inner(part: ast.expr) -> Any:
        return _value(part, names, text, depth + 1)

    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float | str)
        and not isinstance(node.value, bool)
    ):
        return node.value
    if isinstance(node, ast.Name):
        if node.id in names:
            return names[node.id]
        if node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        known = ", ".join(sorted(n for n in (*names, *_CONSTANTS) if not n.startswith("_")))
        raise InvalidDataError(f"there is no {node.id!r} in {text!r}: known are {known}")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -inner(node.operand) if isinstance(node.op, ast.USub) else inner(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = inner(node.left), inner(node.right)
        if any(isinstance(side, str) or (callable(side) and not hasattr(side, "walk")) for side in (left, right)):
            raise InvalidDataError(f"{ast.unparse(node)!r} in {text!r} joins something that is not an expression")
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = inner(node.func)
        if not callable(function) or hasattr(function, "walk"):
            raise InvalidDataError(f"{node.func.id!r} in {text!r} is not a function")
        return function(*(inner(a) for a in node.args))
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(inner(e) for e in node.elts)
    raise InvalidDataError(f"{ast.unparse(node)[:60]!r} may not stand in an expression")
