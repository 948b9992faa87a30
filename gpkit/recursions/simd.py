"""A vector of float64 lanes as a numba type, so that one source compiles to scalar and to SIMD code.

The recursions of this package are chains of dependent operations: a single series leaves a processor's vector
units idle. Written over a *lane type* the same step runs on several series, or several blocks of one series, at
once. Functions written with the operators and helpers below accept either ``float64`` scalars or ``Lanes(width)``
vectors, which map to LLVM's fixed vectors (AVX-512, AVX2 or NEON registers, whatever the processor has).

Scalars and lanes mix freely in ``+ - * /``; loads and stores are unaligned and unchecked. Everything is lowered
directly to LLVM instructions (no wrapper functions), which keeps compilation short.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model, type_callable
from numba.np.arrayobj import populate_array

__all__ = [
    "LANES",
    "Lanes",
    "aligned_start",
    "broadcast",
    "exponent_and_mantissa",
    "load",
    "root",
    "round_even",
    "row_view",
    "scale_by_power_of_two",
    "select_less",
    "store",
    "view",
    "width_of",
    "zero_lanes",
]

LANES = 8
"""Number of float64 lanes that the drivers use (one AVX-512 register)."""


class Lanes(types.Type):
    """Numba type of ``width`` float64 values held in one LLVM vector."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.DoubleType(), fe_type.width))


_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_F64 = ir.DoubleType()
_NUMBER = (types.Float, types.Integer)
_FIRST = {"target": "cpu"}
"""Marks a typing template as specific to the processor, so that it is tried before the dozens that are generic."""


def _splat(builder: Any, value: Any, width: int) -> Any:
    vector = ir.VectorType(_F64, width)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    mask = ir.Constant(ir.VectorType(_I32, width), [0] * width)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)


def _unify(args: Any) -> Lanes | None:
    return next((a for a in args if isinstance(a, Lanes)), None)


def _as_lanes(context: Any, builder: Any, value: Any, numba_type: Any, lanes: Lanes) -> Any:
    if isinstance(numba_type, Lanes):
        return value
    return _splat(builder, context.cast(builder, value, numba_type, types.float64), lanes.width)


def _as_float(context: Any, builder: Any, value: Any, numba_type: Any) -> Any:
    return value if isinstance(numba_type, Lanes) else context.cast(builder, value, numba_type, types.float64)


def _register_operator(op: Any, instruction: str) -> None:
    @infer_global(op)
    class LaneOperator(AbstractTemplate):
        metadata = _FIRST

        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) != 2:
                return None
            lanes = _unify(args)
            if lanes is None:
                # What numba would find too, after asking dozens of templates: index arithmetic compiles much faster.
                same = op is not operator.truediv and args[0] == args[1] and args[0] in (types.int64, types.float64)
                return signature(args[0], *args) if same else None
            return signature(lanes, *args)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (_as_lanes(context, builder, v, t, sig.return_type) for v, t in zip(args, sig.args, strict=True))
        # "contract" lets a*b+c become one fused operation; nothing else is relaxed.
        return getattr(builder, instruction)(x, y, flags=("contract",))

    lower_builtin(op, Lanes, Lanes)(lower)
    for scalar in _NUMBER:
        lower_builtin(op, Lanes, scalar)(lower)
        lower_builtin(op, scalar, Lanes)(lower)


for _op, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _register_operator(_op, _name)


@infer_global(operator.neg)
class _LaneNegate(AbstractTemplate):
    metadata = _FIRST

    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], args[0]) if isinstance(args[0], Lanes) else None


@lower_builtin(operator.neg, Lanes)
def _lower_negate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])


def _compiled_only(function: Callable[..., Any]) -> Callable[..., Any]:
    def stub(*args: Any) -> Any:
        raise TypeError(f"{function.__name__} is only available inside compiled code")

    stub.__name__ = function.__name__
    stub.__qualname__ = function.__qualname__
    stub.__doc__ = function.__doc__
    return stub


@_compiled_only
def load(array: Any, index: int, like: Any) -> Any:
    """Entry ``index`` of memory that is read as a sequence of values of the type of ``like``; unchecked."""


@_compiled_only
def store(array: Any, index: int, value: Any) -> None:
    """Write entry ``index`` of memory that is a sequence of values of the type of ``value``; unchecked."""


@_compiled_only
def view(array: Any, start: int) -> Any:
    """The memory of a contiguous array from flat entry ``start`` on, borrowed: ``array`` must outlive the result.

    A slice without bounds checks and reference counts. Argument arrays of compiled functions outlive the call.
    """


@_compiled_only
def row_view(array: Any, index: int) -> Any:
    """Row ``index`` of a contiguous two-dimensional array, borrowed as by ``view``; one row serves all indices."""


@_compiled_only
def aligned_start(array: Any) -> int:
    """First entry on a boundary of 64 bytes, which a vector of eight lanes then does not cross."""


@_compiled_only
def broadcast(value: float, like: Any) -> Any:
    """The scalar ``value`` in every lane of the type of ``like``."""


@_compiled_only
def select_less(a: Any, b: Any, x: Any, y: Any) -> Any:
    """``x`` where ``a < b`` else ``y``, lane by lane."""


@_compiled_only
def round_even(a: Any) -> Any:
    """Nearest integer, ties to even."""


@_compiled_only
def root(a: Any) -> Any:
    """Square root."""


@_compiled_only
def scale_by_power_of_two(a: Any, n: Any) -> Any:
    """``a * 2**n`` for integral ``n`` in [-1022, 1023]."""


@_compiled_only
def exponent_and_mantissa(a: Any) -> Any:
    """``(e, m)`` with ``a = m 2**e`` and ``1 <= m < 2``, for positive normal ``a``."""


@_compiled_only
def width_of(like: Any) -> int:
    """Number of lanes of a value: 1 for a scalar; a compile-time constant."""


@_compiled_only
def zero_lanes() -> Any:
    """A vector of ``LANES`` zeros; pass it as ``like`` to compile the SIMD variant of a function."""


def _pointer(context: Any, builder: Any, sig: Any, args: Any, value_type: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    return builder.gep(builder.bitcast(data, context.get_value_type(value_type).as_pointer()), [index])


@type_callable(load)
def _type_load(context: Any) -> Any:
    return lambda array, index, like: like if isinstance(array, types.Array) else None


@lower_builtin(load, types.Array, types.Integer, types.Any)
def _lower_load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value = builder.load(_pointer(context, builder, sig, args, sig.return_type))
    value.align = 8
    return value


@type_callable(store)
def _type_store(context: Any) -> Any:
    return lambda array, index, value: types.void if isinstance(array, types.Array) else None


@lower_builtin(store, types.Array, types.Integer, types.Any)
def _lower_store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    value_type = sig.args[2] if isinstance(sig.args[2], Lanes) else types.float64
    value = _as_float(context, builder, args[2], sig.args[2])
    builder.store(value, _pointer(context, builder, sig, args, value_type)).align = 8
    return context.get_dummy_value()


def _borrow(context: Any, builder: Any, sig: Any, source: Any, start: Any, size: Any) -> Any:
    out = context.make_array(sig.return_type)(context, builder)
    data = builder.gep(source.data, [start])
    populate_array(out, data, shape=[size], strides=[source.itemsize], itemsize=source.itemsize, meminfo=None)
    return out._getvalue()


@type_callable(view)
def _type_view(context: Any) -> Any:
    return lambda array, start: types.Array(array.dtype, 1, "C") if isinstance(array, types.Array) else None


@lower_builtin(view, types.Array, types.Integer)
def _lower_view(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    source = context.make_array(sig.args[0])(context, builder, args[0])
    start = context.cast(builder, args[1], sig.args[1], types.intp)
    return _borrow(context, builder, sig, source, start, builder.sub(source.nitems, start))


@type_callable(row_view)
def _type_row_view(context: Any) -> Any:
    return lambda array, index: types.Array(array.dtype, 1, "C") if isinstance(array, types.Array) else None


@lower_builtin(row_view, types.Array, types.Integer)
def _lower_row_view(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    source = context.make_array(sig.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    rows, columns = cgutils.unpack_tuple(builder, source.shape, 2)
    start = builder.mul(builder.srem(index, rows), columns)
    return _borrow(context, builder, sig, source, start, columns)


@type_callable(aligned_start)
def _type_aligned(context: Any) -> Any:
    return lambda array: types.intp if isinstance(array, types.Array) else None


@lower_builtin(aligned_start, types.Array)
def _lower_aligned(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = builder.ptrtoint(context.make_array(sig.args[0])(context, builder, args[0]).data, _I64)
    past = builder.lshr(address, ir.Constant(_I64, 3))
    return builder.and_(builder.neg(past), ir.Constant(_I64, LANES - 1))


@type_callable(broadcast)
def _type_broadcast(context: Any) -> Any:
    return lambda value, like: like


@lower_builtin(broadcast, types.Any, types.Any)
def _lower_broadcast(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if isinstance(sig.return_type, Lanes):
        return _as_lanes(context, builder, args[0], sig.args[0], sig.return_type)
    return context.cast(builder, args[0], sig.args[0], sig.return_type)


@type_callable(select_less)
def _type_select(context: Any) -> Any:
    return lambda a, b, x, y: _unify((a, b, x, y)) or types.float64


@lower_builtin(select_less, types.Any, types.Any, types.Any, types.Any)
def _lower_select(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pairs = list(zip(args, sig.args, strict=True))
    if isinstance(sig.return_type, Lanes):
        a, b, x, y = (_as_lanes(context, builder, v, t, sig.return_type) for v, t in pairs)
    else:
        a, b, x, y = (_as_float(context, builder, v, t) for v, t in pairs)
    return builder.select(builder.fcmp_ordered("<", a, b), x, y)


def _register_unary(stub: Any, intrinsic_name: str) -> None:
    @type_callable(stub)
    def typer(context: Any) -> Any:
        return lambda a: a if isinstance(a, Lanes) else types.float64

    @lower_builtin(stub, types.Any)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = _as_float(context, builder, args[0], sig.args[0])
        suffix = f"v{value.type.count}f64" if isinstance(value.type, ir.VectorType) else "f64"
        function_type = ir.FunctionType(value.type, [value.type])
        function = cgutils.get_or_insert_function(builder.module, function_type, f"{intrinsic_name}.{suffix}")
        return builder.call(function, [value])


_register_unary(round_even, "llvm.roundeven")
_register_unary(root, "llvm.sqrt")


def _int_like(value: Any) -> tuple[Any, Any]:
    """Integer type with the shape of an LLVM value, and a function that makes its constants."""
    if isinstance(value.type, ir.VectorType):
        vector = ir.VectorType(_I64, value.type.count)
        return vector, lambda c: ir.Constant(vector, [c] * value.type.count)
    return _I64, lambda c: ir.Constant(_I64, c)


@type_callable(scale_by_power_of_two)
def _type_scale(context: Any) -> Any:
    return lambda a, n: a


@lower_builtin(scale_by_power_of_two, types.Any, types.Any)
def _lower_scale(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    integer, constant = _int_like(args[1])
    biased = builder.add(builder.fptosi(args[1], integer), constant(1023))
    return builder.fmul(args[0], builder.bitcast(builder.shl(biased, constant(52)), args[0].type))


@type_callable(exponent_and_mantissa)
def _type_exponent(context: Any) -> Any:
    return lambda a: types.UniTuple(a, 2)


@lower_builtin(exponent_and_mantissa, types.Any)
def _lower_exponent(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    integer, constant = _int_like(args[0])
    bits = builder.bitcast(args[0], integer)
    field = builder.and_(builder.lshr(bits, constant(52)), constant(0x7FF))
    exponent = builder.sitofp(builder.sub(field, constant(1023)), args[0].type)
    mantissa = builder.or_(builder.and_(bits, constant(0x000FFFFFFFFFFFFF)), constant(0x3FF0000000000000))
    return context.make_tuple(builder, sig.return_type, [exponent, builder.bitcast(mantissa, args[0].type)])


@type_callable(width_of)
def _type_width(context: Any) -> Any:
    return lambda like: types.intp


@lower_builtin(width_of, types.Any)
def _lower_width(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    like = sig.args[0]
    return context.get_constant(types.intp, like.width if isinstance(like, Lanes) else 1)


@type_callable(zero_lanes)
def _type_zero(context: Any) -> Any:
    return lambda: Lanes(LANES)


@lower_builtin(zero_lanes)
def _lower_zero(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(ir.VectorType(_F64, LANES), [0.0] * LANES)
