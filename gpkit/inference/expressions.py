"""Symbolic numbers: Python code that is run on them once becomes a tape for compiled code.

    >>> from gpkit.inference.expressions import Expression, ops, record
    >>> sigma, tau = Expression.inputs(2)
    >>> tape = record([ops.exp(2.0 * sigma), 1.0 / tau], 2)
    >>> values, gradient = tape.evaluate([[0.0, 4.0]], [[1.0, 0.0]])
    >>> values.tolist(), gradient.tolist()
    ([[1.0, 0.25]], [[2.0, 0.0]])

The same code runs on torch tensors when ``ops`` is the torch module: :class:`Operations` uses torch's names. What
depends on values (``if x > 0``) cannot be recorded and raises ``TypeError``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpkit.recursions import tape as _tape
from gpkit.recursions.tape import Code

__all__ = ["Expression", "Operations", "Tape", "ops", "record"]

Number = float | int


def _fold(code: Code, left: float, right: float) -> float:
    """Value of an operation on constants, by the same interpreter that will run the others."""
    registers, results = np.empty((1, 3)), np.empty((1, 1))
    words = np.array([code, 0, 1], dtype=np.int64)
    _tape.forward_rows(words, np.empty(0), np.array([2]), np.array([[left, right]]), registers, results)
    return float(results[0, 0])


class Expression:
    """A number that is not known yet: an input, a constant or an operation on other expressions.

    Attributes:
        code: The operation, or None for inputs and constants.
        operands: Operands of the operation.
        index: Number of the input, or None.
        value: The constant, or None.
    """

    __slots__ = ("code", "index", "operands", "value")
    __array_ufunc__ = None  # numpy scalars on the left leave the operation to this class

    def __init__(
        self,
        code: Code | None = None,
        operands: tuple[Expression, ...] = (),
        *,
        index: int | None = None,
        value: float | None = None,
    ) -> None:
        """Use :meth:`inputs`, arithmetic and :data:`ops` instead."""
        self.code = code
        self.operands = operands
        self.index = index
        self.value = value

    @classmethod
    def inputs(cls, count: int) -> list[Expression]:
        """The inputs number 0 to ``count - 1``."""
        return [cls(index=k) for k in range(count)]

    @classmethod
    def constant(cls, value: Any) -> Expression:
        """An expression of a plain number (or a one-element tensor); expressions are returned as they are."""
        if isinstance(value, Expression):
            return value
        return cls(value=float(value.detach() if hasattr(value, "detach") else value))

    @classmethod
    def _apply(cls, code: Code, left: Any, right: Any = None) -> Expression:
        a = cls.constant(left)
        b = a if right is None else cls.constant(right)
        if a.value is not None and b.value is not None:
            return cls(value=_fold(code, a.value, b.value))
        if code in (Code.ADD, Code.SUBTRACT) and b.value == 0.0:
            return a
        if code == Code.ADD and a.value == 0.0:
            return b
        if code in (Code.MULTIPLY, Code.DIVIDE) and b.value == 1.0:
            return a
        if code == Code.MULTIPLY and a.value == 1.0:
            return b
        if code == Code.LOG and a.code == Code.EXP:
            return a.operands[0]  # the logarithm of a positive parameter, which exp(z) may have rounded to zero
        return cls(code, (a,) if _tape.ARITY[code] == 1 else (a, b))

    def __add__(self, other: Any) -> Expression:
        return self._apply(Code.ADD, self, other)

    def __radd__(self, other: Any) -> Expression:
        return self._apply(Code.ADD, other, self)

    def __sub__(self, other: Any) -> Expression:
        return self._apply(Code.SUBTRACT, self, other)

    def __rsub__(self, other: Any) -> Expression:
        return self._apply(Code.SUBTRACT, other, self)

    def __mul__(self, other: Any) -> Expression:
        return self._apply(Code.MULTIPLY, self, other)

    def __rmul__(self, other: Any) -> Expression:
        return self._apply(Code.MULTIPLY, other, self)

    def __truediv__(self, other: Any) -> Expression:
        return self._apply(Code.DIVIDE, self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return self._apply(Code.DIVIDE, other, self)

    def __neg__(self) -> Expression:
        return self._apply(Code.NEGATE, self)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return self._apply(Code.ABS, self)

    def __pow__(self, exponent: Any) -> Expression:
        power = self.constant(exponent)
        if power.value == 2.0:
            return self * self
        if power.value == 0.5:
            return self._apply(Code.SQRT, self)
        if power.value == 1.0:
            return self
        if power.value == -1.0:
            return 1.0 / self
        return self._apply(Code.POWER, self, power)

    def __rpow__(self, base: Any) -> Expression:
        if isinstance(base, (int, float)) and base > 0.0:
            return self._apply(Code.EXP, self * math.log(base))
        return self._apply(Code.POWER, base, self)

    def __bool__(self) -> NoReturn:
        raise TypeError("the value of a symbolic expression is not known: write the model without branches on it")

    __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: self.__bool__()

    def __float__(self) -> float:
        if self.value is None:
            raise TypeError("the value of a symbolic expression is not known, so it is not a float")
        return self.value

    def __repr__(self) -> str:
        if self.index is not None:
            return f"z[{self.index}]"
        if self.code is None:
            return repr(self.value)
        return f"{self.code.name.lower()}({', '.join(map(repr, self.operands))})"


def _function(code: Code) -> Any:
    def apply(self: Operations, *operands: Any) -> Expression:
        if len(operands) != _tape.ARITY[code]:
            raise TypeError(f"{code.name.lower()} takes {_tape.ARITY[code]} argument(s), got {len(operands)}")
        return Expression._apply(code, *operands)

    apply.__name__ = code.name.lower()
    apply.__doc__ = f"As ``torch.{code.name.lower()}``."
    return apply


class Operations:
    """Functions of expressions under the names that torch gives them."""

    sqrt, exp, log, log1p, expm1 = (_function(c) for c in (Code.SQRT, Code.EXP, Code.LOG, Code.LOG1P, Code.EXPM1))
    sin, cos, tan, atan = (_function(c) for c in (Code.SIN, Code.COS, Code.TAN, Code.ATAN))
    sinh, cosh, tanh, sigmoid = (_function(c) for c in (Code.SINH, Code.COSH, Code.TANH, Code.SIGMOID))
    softplus, abs, maximum, minimum = (_function(c) for c in (Code.SOFTPLUS, Code.ABS, Code.MAXIMUM, Code.MINIMUM))

    def square(self, x: Any) -> Expression:
        """As ``torch.square``."""
        return Expression.constant(x) ** 2

    def reciprocal(self, x: Any) -> Expression:
        """As ``torch.reciprocal``."""
        return 1.0 / Expression.constant(x)

    def rsqrt(self, x: Any) -> Expression:
        """As ``torch.rsqrt``."""
        return 1.0 / self.sqrt(x)

    def lgamma(self, x: Any) -> Expression:
        """As ``torch.lgamma``, of constants only."""
        return Expression(value=math.lgamma(float(x)))


ops = Operations()
"""The operations to hand to code that takes ``ops`` and is to be recorded."""


@dataclass(frozen=True, eq=False)
class Tape:
    """A recorded function from D inputs to M outputs.

    Attributes:
        dimension: D.
        codes: (3 * count,) operations, see :mod:`gpkit.recursions.tape`.
        constants: (C,).
        outputs: (M,) registers that hold the outputs.
    """

    dimension: int
    codes: NDArray[np.int64]
    constants: NDArray[np.float64]
    outputs: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of registers."""
        return self.dimension + self.constants.shape[0] + self.codes.shape[0] // 3

    def forward(self, inputs: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Outputs (B, M) at inputs (B, D), and the registers that :meth:`reverse` takes."""
        rows = np.ascontiguousarray(inputs, dtype=np.float64)
        registers = np.empty((rows.shape[0], self.size))
        results = np.empty((rows.shape[0], self.outputs.shape[0]))
        _tape.forward_rows(self.codes, self.constants, self.outputs, rows, registers, results)
        return results, registers

    def reverse(self, registers: NDArray[np.float64], cotangents: ArrayLike) -> NDArray[np.float64]:
        """Derivatives (B, D) of ``sum(cotangents * outputs)`` with the registers of :meth:`forward`."""
        gradient = np.empty((registers.shape[0], self.dimension))
        weights = np.ascontiguousarray(cotangents, dtype=np.float64)
        _tape.reverse_rows(self.codes, self.outputs, registers, weights, gradient)
        return gradient

    def evaluate(self, inputs: ArrayLike, cotangents: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Outputs (B, M) and derivatives (B, D) in one call."""
        results, registers = self.forward(inputs)
        return results, self.reverse(registers, cotangents)


def record(outputs: Sequence[Any], dimension: int) -> Tape:
    """Flatten expressions into a tape; equal subexpressions are evaluated once, unused ones not at all.

    Args:
        outputs: M expressions or plain numbers.
        dimension: Number of inputs D, used or not.
    """
    constants: dict[float, int] = {}
    operations: dict[tuple[Any, ...], int] = {}
    # Registers of constants start at D and of operations after all constants, whose number is known only at the end:
    # until then the two are told apart by a pair (kind, number).
    places: dict[int, tuple[int, int]] = {}

    def place(root: Expression) -> tuple[int, int]:
        stack = [root]
        while stack:
            node = stack[-1]
            if id(node) in places:
                stack.pop()
                continue
            waiting = [operand for operand in node.operands if id(operand) not in places]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if node.index is not None:
                if node.index >= dimension:
                    raise IndexError(f"input {node.index} of a tape that has {dimension}")
                places[id(node)] = (0, node.index)
            elif node.code is None:
                assert node.value is not None
                places[id(node)] = (1, constants.setdefault(node.value, len(constants)))
            else:
                key = (node.code, *(places[id(operand)] for operand in node.operands))
                places[id(node)] = (2, operations.setdefault(key, len(operations)))
        return places[id(root)]

    roots = [Expression.constant(output) for output in outputs]
    ends = [place(root) for root in roots]
    offset = (0, dimension, dimension + len(constants))
    words: list[int] = []
    for code, *operands in operations:
        registers = [offset[kind] + number for kind, number in operands]
        words += [int(code), registers[0], registers[-1]]
    return Tape(
        dimension,
        np.array(words, dtype=np.int64),
        np.array(list(constants), dtype=np.float64),
        np.array([offset[kind] + number for kind, number in ends], dtype=np.int64),
    )
