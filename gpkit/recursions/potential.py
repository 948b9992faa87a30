"""Log posterior density and its gradient in one compiled call, parameters to derivative.

The map from unconstrained coordinates to kernel parameters, noise, mean and prior is a tape (see
:mod:`gpkit.recursions.tape`); the likelihood is that of :mod:`gpkit.recursions.evidence`. All that a call reads lies in
two arrays, so that a sampler written in another language needs one pointer: ``integers`` starts with its own length,
the address of ``reals`` and its length, then sizes and offsets (see :func:`pack`). The likelihood's entry points are
called by their addresses: what is compiled here serves every kernel and every model, and what is compiled for a kernel
is shared with all other users of it. Nothing holds the interpreter lock or writes to shared memory, so that chains may
run in threads.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils, typing
from numba.extending import intrinsic
from numpy.typing import NDArray

from gpkit.recursions import tape
from gpkit.recursions.compilation import ENTRY, inner
from gpkit.recursions.evidence import BLOCKS_MINIMUM, sequential_evidence, singles_evidence

__all__ = ["NOT_FINITE", "NOT_POSITIVE_DEFINITE", "callback", "copy_callback", "evaluate_rows", "pack"]

NOT_FINITE = 1
"""Return code: a parameter, the density or its gradient overflowed."""
NOT_POSITIVE_DEFINITE = 2
"""Return code: the covariance has no Cholesky factor at this point."""

_LENGTH, _REALS_ADDRESS, _REALS_LENGTH, _BLOCK = 0, 1, 2, 3
_D, _N, _P, _W, _K, _CONSTANTS, _OPERATIONS = 4, 5, 6, 7, 8, 9, 10
_OUTPUTS_AT, _CODES_AT, _PROGRAM_AT, _PROGRAM_LENGTH = 11, 12, 13, 14
_CONSTANTS_AT, _T, _Y, _VARIANCE, _NOISE_BASIS, _MEAN_BASIS = 15, 16, 17, 18, 19, 20
_CENTRE, _FACTOR, _WEIGHTS, _OFFSET = 21, 22, 23, 24
_KIND, _SINGLES, _SEQUENTIAL = 25, 26, 27
_HEADER = 28

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


def pack(
    marker: Any,
    codes: Integers,
    constants: Reals,
    outputs: Integers,
    dimension: int,
    n_parameters: int,
    t: Reals,
    y: Reals,
    variance: Reals,
    noise_basis: Reals,
    mean_basis: Reals,
    centre: Reals,
    factor: Reals,
    weights: tuple[float, float],
) -> tuple[Integers, Reals]:
    """Lay out everything that :func:`evaluate` reads.

    Args:
        marker: order marker of the structure.
        codes: (3 * count,) operations of the tape.
        constants: (C,) of the tape.
        outputs: (P + W + K + 2,) registers of the structure parameters, the coefficients of the noise variances, those
            of the mean, the log prior and the log Jacobian.
        dimension: D.
        n_parameters: P.
        t: (N,) sorted.
        y: (N,).
        variance: (N,) of the measurement errors; ``inf`` carries no information.
        noise_basis: (N, W) variances added per unit coefficient.
        mean_basis: (N, K).
        centre: (D,) and
        factor: (D, D) of the coordinates u of a call: ``z = centre + factor u``.
        weights: of the log prior and of the log Jacobian.

    Returns:
        ``(integers, reals)``; the second must live as long as the first is used.
    """
    program = marker[1] if is_program(marker) else np.empty(0, dtype=np.int64)
    header = np.zeros(_HEADER, dtype=np.int64)
    blocks = [constants, t, y, variance, noise_basis, mean_basis, centre, factor, np.asarray(weights)]
    informative = int(np.isfinite(variance).sum())
    blocks += [np.array([-0.5 * informative * math.log(2.0 * math.pi)])]
    flat = [np.ascontiguousarray(block, dtype=np.float64).ravel() for block in blocks]
    reals = np.concatenate(flat)
    starts = np.cumsum([0] + [block.size for block in flat])
    header[_CONSTANTS_AT : _OFFSET + 1] = starts[:-1]
    header[_BLOCK] = marker[0]
    header[_KIND] = 0 if is_program(marker) else len(marker)
    header[_SINGLES], header[_SEQUENTIAL] = _addresses(marker)
    header[_D : _OPERATIONS + 1] = (
        dimension, t.size, n_parameters, noise_basis.shape[1], mean_basis.shape[1], constants.size, codes.size // 3,
    )  # fmt: skip
    header[_OUTPUTS_AT] = _HEADER
    header[_CODES_AT] = _HEADER + outputs.size
    header[_PROGRAM_AT] = _HEADER + outputs.size + codes.size
    header[_PROGRAM_LENGTH] = program.size
    integers = np.concatenate([header, outputs, codes, program]).astype(np.int64)
    integers[_LENGTH] = integers.size
    integers[_REALS_ADDRESS] = reals.ctypes.data
    integers[_REALS_LENGTH] = reals.size
    return integers, reals


def is_program(marker: Any) -> bool:
    """Whether an order marker is the general one, that carries a program."""
    return len(marker) == 4 and isinstance(marker[1], np.ndarray)


def _addresses(marker: Any) -> tuple[int, int]:
    """Machine addresses of the two entry points of the likelihood, compiled or loaded for a marker."""
    row, words = types.float64[:, ::1], types.int64[::1]
    reals = types.float64[::1]
    arguments = (
        numba.typeof(marker), types.UniTuple(types.int64, 1), row, row, row, row, words, words, row, types.boolean, row,
        row, row, row, reals, reals, words,
    )  # fmt: skip
    addresses = []
    for dispatcher in (singles_evidence, sequential_evidence):
        dispatcher.compile(arguments)
        compiled = dispatcher.overloads[arguments]
        addresses.append(int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)))
    return addresses[0], addresses[1]


def _caller(result: Any) -> Any:
    """For compiled code: ``(kind, address, order, *arguments)`` calls the function at an address.

    It was compiled to return ``result`` and to take the marker of ``kind`` zeros, or ``order`` where the kind is 0.
    """

    @intrinsic
    def call(typing_context, kind, address, order, *arguments):
        given = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], tuple) else arguments
        taken = [types.unliteral(argument) for argument in given]

        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            convention = context.call_conv
            unpacked = [builder.extract_value(values[3], k) for k in range(len(taken))]
            returned = cgutils.alloca_once(builder, context.get_value_type(result))
            end = builder.append_basic_block("called")
            choice = builder.switch(values[0], end)
            for count in range(_KINDS + 1):
                block = builder.append_basic_block(f"kind{count}")
                choice.add_case(context.get_constant(types.int64, count), block)
                builder.position_at_end(block)
                zeros = types.UniTuple(types.int64, count)
                marker_type = zeros if count else types.unliteral(order)
                marker = context.get_constant_generic(builder, zeros, (0,) * count) if count else values[2]
                function_type = convention.get_function_type(result, [marker_type, *taken])
                pointer = builder.inttoptr(values[1], function_type.as_pointer())
                status, value = convention.call_function(
                    builder, pointer, result, [marker_type, *taken], [marker, *unpacked]
                )
                with cgutils.if_unlikely(builder, status.is_error):
                    convention.return_status_propagate(builder, status)
                builder.store(value, returned)
                builder.branch(end)
            builder.position_at_end(end)
            return builder.load(returned)

        return typing.signature(result, types.int64, types.int64, order, types.StarArgTuple.from_types(taken)), lower

    return call


_KINDS = 4
_call_singles = _caller(types.boolean)
_call_sequential = _caller(types.none)


@inner
def _part(array, start, length):
    return array[start : start + length]


@inner
def _row(array, start, length):
    return array[start : start + length].reshape((1, length))


@inner
def _likelihood(integers, order, params, t, y, r, bar, alpha, kappa, tbar, scalars):
    """``-(inv_quad + logdet) / 2`` and whether the covariance is positive definite; time blocks where they serve."""
    lengths = np.full(1, t.shape[1], dtype=np.int64)
    failed = np.zeros(1, dtype=np.int64)
    single = np.zeros(1, dtype=np.int64)
    quad, logdet = _part(scalars, 0, 1), _part(scalars, 1, 1)
    weights = np.ones((1, 2))
    task = (0,)
    left = True
    kind = integers[_KIND]
    if t.shape[1] >= BLOCKS_MINIMUM:
        left = _call_singles(
            kind, integers[_SINGLES], order, task, params, t, y, r, lengths, single, weights, True, bar, alpha, kappa,
            tbar, quad, logdet, failed,
        )  # fmt: skip
    if left:
        _call_sequential(
            kind, integers[_SEQUENTIAL], order, task, params, t, y, r, lengths, single, weights, True, bar, alpha,
            kappa, tbar, quad, logdet, failed,
        )  # fmt: skip
    return -0.5 * (quad[0] + logdet[0]), failed[0] < 0


@inner
def evaluate(integers, reals, u, gradient):
    """``(log density, return code)`` at ``u`` (D,); fills ``gradient`` (D,), with zeros where the code is not 0."""
    d, n, p, w, k = integers[_D], integers[_N], integers[_P], integers[_W], integers[_K]
    n_constants = integers[_CONSTANTS]
    codes = _part(integers, integers[_CODES_AT], 3 * integers[_OPERATIONS])
    outputs = _part(integers, integers[_OUTPUTS_AT], p + w + k + 2)
    factor, noise_basis, mean_basis = integers[_FACTOR], integers[_NOISE_BASIS], integers[_MEAN_BASIS]
    registers = np.empty(d + n_constants + integers[_OPERATIONS])
    for i in range(d):
        gradient[i] = 0.0
        registers[i] = reals[integers[_CENTRE] + i]
        for j in range(d):
            registers[i] += reals[factor + i * d + j] * u[j]
    for i in range(n_constants):
        registers[d + i] = reals[integers[_CONSTANTS_AT] + i]
    tape.forward(codes, registers)
    for i in range(outputs.shape[0]):
        if not math.isfinite(registers[outputs[i]]):
            return -np.inf, NOT_FINITE

    # Residuals, noise, the derivatives with respect to both and to the times, the structure parameters and theirs.
    work = np.zeros(5 * n + 2 * p)
    params = _row(work, 5 * n, p)
    for i in range(p):
        params[0, i] = registers[outputs[i]]
    for i in range(n):
        noise = reals[integers[_VARIANCE] + i]
        for j in range(w):
            noise += reals[noise_basis + i * w + j] * registers[outputs[p + j]]
        residual = reals[integers[_Y] + i]
        for j in range(k):
            residual -= reals[mean_basis + i * k + j] * registers[outputs[p + w + j]]
        work[i] = residual
        work[n + i] = noise
    value = reals[integers[_OFFSET]]
    if n > 0:
        scalars = np.zeros(2)
        t = _row(reals, integers[_T], n)
        y, r = _row(work, 0, n), _row(work, n, n)
        alpha, kappa, tbar = _row(work, 2 * n, n), _row(work, 3 * n, n), _row(work, 4 * n, n)
        bar = _row(work, 5 * n + p, p)
        program = _part(integers, integers[_PROGRAM_AT], integers[_PROGRAM_LENGTH])
        order = (integers[_BLOCK], program, np.empty((1, 0, 0)), np.empty((1, 0, 0)))
        fit, regular = _likelihood(integers, order, params, t, y, r, bar, alpha, kappa, tbar, scalars)
        if not regular:
            return -np.inf, NOT_POSITIVE_DEFINITE
        value += fit

    bars = np.zeros(registers.shape[0])
    for i in range(p):
        bars[outputs[i]] += work[5 * n + p + i]
    for j in range(w):
        total = 0.0
        for i in range(n):
            alpha_i = work[2 * n + i]
            total += reals[noise_basis + i * w + j] * (alpha_i * alpha_i - work[3 * n + i])
        bars[outputs[p + j]] += 0.5 * total
    for j in range(k):
        total = 0.0
        for i in range(n):
            total += reals[mean_basis + i * k + j] * work[2 * n + i]
        bars[outputs[p + w + j]] += total
    for j in range(2):
        # A weight of zero leaves the term out, also where it is infinite.
        weight = reals[integers[_WEIGHTS] + j]
        value += weight * registers[outputs[p + w + k + j]]
        bars[outputs[p + w + k + j]] += weight
    tape.reverse(codes, registers, bars)
    finite = math.isfinite(value)
    for j in range(d):
        finite = finite and math.isfinite(bars[j])
    if not finite:
        return -np.inf, NOT_FINITE
    for j in range(d):
        for i in range(d):
            gradient[j] += reals[factor + i * d + j] * bars[i]
    return value, 0


@numba.njit(**ENTRY)
def evaluate_rows(integers, reals, points, values, gradients, status):
    """Log density (B,), gradient (B, D) and return code (B,) at every row of ``points`` (B, D)."""
    for b in range(points.shape[0]):
        values[b], status[b] = evaluate(integers, reals, points[b], gradients[b])


@intrinsic
def _pointer(typing_context, address):
    """The address in an integer as a ``void *``."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), lower


def _log_density(dimension, u, gradient, value, data):
    length = numba.carray(data, (1,), np.int64)[0]
    integers = numba.carray(data, (length,), np.int64)
    reals = numba.carray(_pointer(integers[_REALS_ADDRESS]), (integers[_REALS_LENGTH],), np.float64)
    point, slope = numba.carray(u, (dimension,)), numba.carray(gradient, (dimension,))
    result, code = evaluate(integers, reals, point, slope)
    value[0] = result
    return code


def _copy(dimension, expanded, source, target, data):
    for i in range(dimension):
        target[i] = source[i]
    return 0


_POINTER = types.CPointer(types.float64)


@cache
def callback() -> Any:
    """A C function ``(dim, u*, gradient*, value*, data*) -> code``; ``data`` is the address of ``integers``."""
    signature = types.int64(types.uint64, _POINTER, _POINTER, _POINTER, types.voidptr)
    return numba.cfunc(signature, cache=True, error_model="numpy")(_log_density)


@cache
def copy_callback() -> Any:
    """A C function ``(dim, expanded, from*, to*, data*) -> 0`` that copies a point."""
    signature = types.int64(types.uint64, types.uint64, _POINTER, _POINTER, types.voidptr)
    return numba.cfunc(signature, cache=True)(_copy)
