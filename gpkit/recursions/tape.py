"""A small register machine that evaluates a recorded expression and its adjoint inside compiled code.

A tape is what is left of ordinary Python code that was run once on symbolic numbers: a list of operations whose
operands are numbered registers. Interpreting a few dozen of them costs less than one point of a light curve, and a
new model needs no compilation. Registers hold the inputs, then the constants, then one result per operation; an
operation is three words ``(code, left, right)``, and a unary one repeats its operand.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numba
import numpy as np

from gpkit.recursions.compilation import ENTRY, inner

__all__ = ["ARITY", "Code", "forward", "forward_rows", "reverse", "reverse_rows"]


class Code(IntEnum):
    """Operation codes; the numbers are internal, names follow numpy and torch."""

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    DIVIDE = 3
    POWER = 4
    MAXIMUM = 5
    MINIMUM = 6
    NEGATE = 7
    SQRT = 8
    EXP = 9
    LOG = 10
    LOG1P = 11
    EXPM1 = 12
    SIN = 13
    COS = 14
    TAN = 15
    ATAN = 16
    SINH = 17
    COSH = 18
    TANH = 19
    SIGMOID = 20
    SOFTPLUS = 21
    ABS = 22


ARITY = {code: 2 if code <= Code.MINIMUM else 1 for code in Code}

# Members of an enumeration are boxed objects: compiled code reads plain integers.
_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _POWER, _MAXIMUM, _MINIMUM = (int(c) for c in Code if c <= Code.MINIMUM)
_NEGATE, _SQRT, _EXP, _LOG, _LOG1P, _EXPM1, _SIN, _COS, _TAN, _ATAN = (
    int(c) for c in Code if Code.MINIMUM < c <= Code.ATAN
)
_SINH, _COSH, _TANH, _SIGMOID, _SOFTPLUS, _ABS = (int(c) for c in Code if c > Code.ATAN)


@inner
def _sigmoid(x):
    """Logistic function without overflow and without cancellation in either tail."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


@inner
def forward(codes, registers):
    """Fill the last ``codes.size // 3`` registers; inputs and constants are in place."""
    count = codes.shape[0] // 3
    first = registers.shape[0] - count
    for k in range(count):
        code = codes[3 * k]
        a = registers[codes[3 * k + 1]]
        b = registers[codes[3 * k + 2]]
        if code == _ADD:
            v = a + b
        elif code == _SUBTRACT:
            v = a - b
        elif code == _MULTIPLY:
            v = a * b
        elif code == _DIVIDE:
            v = a / b
        elif code == _POWER:
            v = a**b
        elif code == _MAXIMUM:
            v = a if a >= b else b
        elif code == _MINIMUM:
            v = a if a <= b else b
        elif code == _NEGATE:
            v = -a
        elif code == _SQRT:
            v = math.sqrt(a)
        elif code == _EXP:
            v = math.exp(a)
        elif code == _LOG:
            v = math.log(a)
        elif code == _LOG1P:
            v = math.log1p(a)
        elif code == _EXPM1:
            v = math.expm1(a)
        elif code == _SIN:
            v = math.sin(a)
        elif code == _COS:
            v = math.cos(a)
        elif code == _TAN:
            v = math.tan(a)
        elif code == _ATAN:
            v = math.atan(a)
        elif code == _SINH:
            v = math.sinh(a)
        elif code == _COSH:
            v = math.cosh(a)
        elif code == _TANH:
            v = math.tanh(a)
        elif code == _SIGMOID:
            v = _sigmoid(a)
        elif code == _SOFTPLUS:
            v = max(a, 0.0) + math.log1p(math.exp(-abs(a)))
        else:
            v = abs(a)
        registers[first + k] = v


@inner
def reverse(codes, registers, bars):
    """Pull the derivatives in ``bars`` (one per register) back to the inputs, in place."""
    count = codes.shape[0] // 3
    first = registers.shape[0] - count
    for back in range(count):
        k = count - 1 - back
        g = bars[first + k]
        if g == 0.0:
            # Besides saving time this keeps 0 * inf of a branch that was not taken out of the result.
            continue
        code = codes[3 * k]
        left = codes[3 * k + 1]
        right = codes[3 * k + 2]
        a = registers[left]
        b = registers[right]
        v = registers[first + k]
        if code == _ADD:
            bars[left] += g
            bars[right] += g
        elif code == _SUBTRACT:
            bars[left] += g
            bars[right] -= g
        elif code == _MULTIPLY:
            bars[left] += g * b
            bars[right] += g * a
        elif code == _DIVIDE:
            bars[left] += g / b
            bars[right] -= g * v / b
        elif code == _POWER:
            bars[left] += g * b * a ** (b - 1.0)
            if a > 0.0:
                bars[right] += g * v * math.log(a)
        elif code == _MAXIMUM:
            bars[left if a >= b else right] += g
        elif code == _MINIMUM:
            bars[left if a <= b else right] += g
        elif code == _NEGATE:
            bars[left] -= g
        elif code == _SQRT:
            bars[left] += 0.5 * g / v
        elif code == _EXP:
            bars[left] += g * v
        elif code == _LOG:
            bars[left] += g / a
        elif code == _LOG1P:
            bars[left] += g / (1.0 + a)
        elif code == _EXPM1:
            bars[left] += g * (v + 1.0)
        elif code == _SIN:
            bars[left] += g * math.cos(a)
        elif code == _COS:
            bars[left] -= g * math.sin(a)
        elif code == _TAN:
            bars[left] += g * (1.0 + v * v)
        elif code == _ATAN:
            bars[left] += g / (1.0 + a * a)
        elif code == _SINH:
            bars[left] += g * math.cosh(a)
        elif code == _COSH:
            bars[left] += g * math.sinh(a)
        elif code == _TANH:
            bars[left] += g * (1.0 - v * v)
        elif code == _SIGMOID:
            # sigma(-a) instead of 1 - sigma(a), which is zero too early.
            bars[left] += g * v * _sigmoid(-a)
        elif code == _SOFTPLUS:
            bars[left] += g * _sigmoid(a)
        elif a > 0.0:
            bars[left] += g
        elif a < 0.0:
            bars[left] -= g


@numba.njit(**ENTRY)
def forward_rows(codes, constants, outputs, inputs, registers, results):
    """Evaluate a tape at every row of ``inputs`` (B, D).

    ``registers`` (B, D + C + count) keeps what :func:`reverse_rows` needs; ``results`` (B, len(outputs)).
    """
    dimension = inputs.shape[1]
    for row in range(inputs.shape[0]):
        for k in range(dimension):
            registers[row, k] = inputs[row, k]
        for k in range(constants.shape[0]):
            registers[row, dimension + k] = constants[k]
        forward(codes, registers[row])
        for k in range(outputs.shape[0]):
            results[row, k] = registers[row, outputs[k]]


@numba.njit(**ENTRY)
def reverse_rows(codes, outputs, registers, cotangents, gradient):
    """Derivatives (B, D) of ``sum(cotangents * results)``, with the registers of :func:`forward_rows`."""
    bars = np.empty(registers.shape[1])
    for row in range(registers.shape[0]):
        for k in range(bars.shape[0]):
            bars[k] = 0.0
        for k in range(outputs.shape[0]):
            bars[outputs[k]] += cotangents[row, k]
        reverse(codes, registers[row], bars)
        for k in range(gradient.shape[1]):
            gradient[row, k] = bars[k]
