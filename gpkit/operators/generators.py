"""Autograd bridge between tensors and the compiled recursions.

:class:`Generators` names what a semiseparable matrix is made of; the functions below are single nodes of the torch
graph whose derivatives are the hand-written adjoints of :mod:`gpkit.recursions`. Times must be sorted. Batches are
flattened to one leading dimension; a row that is shared by the whole batch is passed once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.covariances import Structure
from gpkit.operators.structured import common_batch

__all__ = ["Factors", "Generators", "factorise", "inv_quad_logdet", "multiply", "smooth", "solve"]


class Generators(NamedTuple):
    """Sorted times (*b, N), parameters (*b, P), diagonal (*b, N), transitions (*b, N, J, J) or None, and structure.

    For a given state space the parameters are ``p`` (J) followed by ``P_inf`` (J * J, by rows) and ``h`` is the first
    unit vector.
    """

    times: Tensor
    params: Tensor
    diagonal: Tensor
    transitions: Tensor | None
    structure: Structure

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions."""
        return self.times.shape[:-1]

    def expand(self, batch: torch.Size) -> Generators:
        """The same with more leading dimensions."""
        lead = len(self.batch_shape)

        def wide(tensor: Tensor) -> Tensor:
            return tensor.expand(*batch, *tensor.shape[lead:])

        transitions = None if self.transitions is None else wide(self.transitions)
        return Generators(wide(self.times), wide(self.params), wide(self.diagonal), transitions, self.structure)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What can carry gradients."""
        return self.times, self.params, self.diagonal, self.transitions


class Factors(NamedTuple):
    """Per batch element: transitions, p, gains, pivots of ``L D L^T`` (numpy arrays)."""

    blocks: list[Any]
    p: list[Any]
    gains: list[Any]
    pivots: list[Any]


def _flat(tensor: Tensor, keep: int = 1) -> Any:
    """Numpy view (B, ...) of a tensor with leading batch dimensions; one row if all of them are the same memory."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    lead = tensor.dim() - keep
    if not lead:
        return np.ascontiguousarray(tensor.numpy(), dtype=np.float64)[None]
    if all(size == 1 or stride == 0 for size, stride in zip(tensor.shape[:lead], tensor.stride()[:lead], strict=True)):
        tensor = tensor[(0,) * lead][None] if tensor.shape[:lead].numel() else tensor.reshape(0, *tensor.shape[lead:])
    else:
        tensor = tensor.reshape(tensor.shape[:lead].numel(), *tensor.shape[lead:])
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float64)


def _tensor(array: Any, like: Tensor, shape: Any) -> Tensor:
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy()).reshape(shape).to(like)


def _plain(tensor: Tensor) -> bool:
    """Whether numpy can share the tensor's memory as it is."""
    return tensor.dtype == torch.float64 and tensor.device.type == "cpu"


def _fail(failed: Any) -> None:
    if failed.max(initial=-1) >= 0:
        bad = np.flatnonzero(failed >= 0)
        row = int(failed[bad[0]])
        series = f" of series {bad[0]}" if failed.size > 1 else ""
        raise NotPositiveDefiniteError(
            f"the covariance matrix is not positive definite at row {row}{series} (counted in sorted order): "
            "repeated times need a positive noise variance, and every variance must be positive",
            row=row,
        )


class _InvQuadLogdet(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        times: Tensor,
        params: Tensor,
        diagonal: Tensor,
        transitions: Tensor | None,
        values: Tensor,
        structure: Structure,
        batch: torch.Size,
        want_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        from gpkit.recursions import series

        arrays = (_flat(params), _flat(times), _flat(values), _flat(diagonal))
        given = None if transitions is None else _flat(transitions, 3)
        if given is not None:
            given = given.reshape(*given.shape[:2], given.shape[-1] ** 2)
        out = series.evidence(structure, *arrays, gradient=want_gradient, given=given)
        _fail(out.failed)
        if want_gradient:
            # The derivatives for equal cotangents, which a log-density has, are already at hand; the operator's
            # arrays are kept for the rare other case.
            ctx.out, ctx.arrays, ctx.given, ctx.structure = out, arrays, given, structure
            ctx.save_for_backward(times, params, diagonal, transitions, values)
        ctx.batch = batch
        ctx.single = not batch and transitions is None and _plain(values)
        if ctx.single:
            return torch.from_numpy(out.inv_quad)[0], torch.from_numpy(out.logdet)[0]
        count = batch.numel()
        quad, logdet = (
            _tensor(v if len(v) == count else np.broadcast_to(v, count), values, batch)
            for v in (out.inv_quad, out.logdet)
        )
        return quad, logdet

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_quad: Tensor, grad_logdet: Tensor) -> tuple[Tensor | None, ...]:
        from gpkit.recursions import series

        batch, out = ctx.batch, ctx.out
        if ctx.single:
            factor = float(grad_quad)
            if factor == float(grad_logdet):
                # One series and a log-density: what training does at every step.
                needs = ctx.needs_input_grad
                return (
                    torch.from_numpy((-2.0 * factor) * out.times[0]) if needs[0] else None,
                    torch.from_numpy((-2.0 * factor) * out.params[0]) if needs[1] else None,
                    torch.from_numpy(factor * (out.kappa[0] - out.alpha[0] ** 2)) if needs[2] else None,
                    None,
                    torch.from_numpy((2.0 * factor) * out.alpha[0]) if needs[4] else None,
                    None,
                    None,
                    None,
                )
        times, params, diagonal, transitions, like = ctx.saved_tensors
        gq = grad_quad.detach().numpy().reshape(-1)
        gd = grad_logdet.detach().numpy().reshape(-1)
        if np.array_equal(gq, gd):
            scale = -2.0 * gq
        else:
            weights = np.stack([-2.0 * gq, -2.0 * gd], axis=-1)
            out = series.evidence(ctx.structure, *ctx.arrays, weights=weights, given=ctx.given)
            scale = np.ones_like(gq)
        n = out.alpha.shape[-1]

        def back(array: Any, target: Tensor, tail: tuple[int, ...]) -> Tensor:
            count = batch.numel()
            full = array if len(array) == count else np.broadcast_to(array, (count, *array.shape[1:]))
            out = _tensor(full, like, (*batch, *tail))
            return out if out.shape == target.shape else out.sum_to_size(target.shape)

        alpha = out.alpha
        grads: list[Tensor | None] = [None] * 8
        # Times enter a given state space through its transitions, which carry their own derivative.
        if ctx.needs_input_grad[0] and transitions is None:
            grads[0] = back(scale[:, None] * out.times, times, (n,))
        if ctx.needs_input_grad[1]:
            grads[1] = back(scale[:, None] * out.params, params, (params.shape[-1],))
        if ctx.needs_input_grad[2]:
            grads[2] = back(gd[:, None] * out.kappa - gq[:, None] * alpha**2, diagonal, (n,))
        if transitions is not None and ctx.needs_input_grad[3]:
            assert out.given is not None
            grads[3] = back(scale[:, None, None] * out.given, transitions, (n, *transitions.shape[-2:]))
        if ctx.needs_input_grad[4]:
            grads[4] = back(2.0 * gq[:, None] * alpha, like, (n,))
        return tuple(grads)


def inv_quad_logdet(generators: Generators, values: Tensor) -> tuple[Tensor, Tensor]:
    """``y^T K^-1 y`` and ``log det K`` for values (*b, N), each (*b); one graph node.

    Raises:
        NotPositiveDefiniteError: naming the row.
    """
    batch = common_batch(generators.batch_shape, values.shape[:-1])
    times, params, diagonal, transitions = generators.tensors()
    want = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*generators.tensors(), values))
    quad, logdet = _InvQuadLogdet.apply(times, params, diagonal, transitions, values, generators.structure, batch, want)
    return quad, logdet


def _blocks(generators: Generators, index: int) -> tuple[Any, Any]:
    """Transitions (N, nb, b, b) and p of one batch element."""
    from gpkit.recursions import linear
    from gpkit.recursions.structure import block_shape, marker

    params = _flat(generators.params)
    params = params[index % len(params)]
    if generators.transitions is not None:
        given = _flat(generators.transitions, 3)
        block = given[index % len(given)]
        return np.ascontiguousarray(block[:, None]), params[: block.shape[-1]].copy()
    times = _flat(generators.times)
    nb, b = block_shape(generators.structure)
    blocks, p = linear.transition_blocks(marker(generators.structure), params, times[index % len(times)], nb, b)
    return blocks, p


def factorise(generators: Generators, semidefinite: bool = False) -> Factors:
    """``L D L^T`` of every batch element; O(N J^2) each.

    Args:
        generators: the matrix.
        semidefinite: treat pivots of a few units in the last place as zero instead of failing.

    Raises:
        NotPositiveDefiniteError: naming the row.
    """
    from gpkit.recursions import linear

    diagonal = _flat(generators.diagonal)
    factors = Factors([], [], [], [])
    for index in range(generators.batch_shape.numel()):
        blocks, p = _blocks(generators, index)
        gains, pivots, bad = linear.factor(blocks, p, diagonal[index % len(diagonal)], semidefinite)
        _fail(np.array([bad]))
        for store, value in zip(factors, (blocks, p, gains, pivots), strict=True):
            store.append(value)
    return factors


def _pull_back(generators: Generators, index: int, blocks: Any, blocks_bar: Any, p_bar: Any) -> tuple[Any, Any, Any]:
    """Derivatives with respect to parameters, times and given transitions of one batch element."""
    from gpkit.recursions import linear
    from gpkit.recursions.structure import marker

    params = _flat(generators.params)
    params = params[index % len(params)]
    times = _flat(generators.times)
    times = times[index % len(times)]
    nb, b = blocks.shape[1:3]
    if generators.transitions is not None:
        grad = np.zeros(params.shape[0])
        grad[: nb * b] = p_bar
        return grad, np.zeros(times.shape[0]), blocks_bar[:, 0]
    grad, tbar = linear.pull_back(marker(generators.structure), params, times, nb, b, blocks, blocks_bar, p_bar)
    return grad, tbar, None


def _bilinear_gradients(generators: Generators, left: Tensor, right: Tensor) -> list[Tensor | None]:
    """Derivatives of ``sum(left * (K right))`` with respect to times, params, diagonal and transitions."""
    from gpkit.recursions import linear

    batch = common_batch(generators.batch_shape, left.shape[:-2], right.shape[:-2])
    left = left.expand(*batch, *left.shape[-2:]).reshape(batch.numel(), *left.shape[-2:])
    right = right.expand(*batch, *right.shape[-2:]).reshape(batch.numel(), *right.shape[-2:])
    expanded = generators.expand(batch)
    results: list[list[Any]] = [[], [], []]
    for index in range(batch.numel()):
        blocks, p = _blocks(expanded, index)
        one, two = (np.ascontiguousarray(m[index].detach().numpy(), dtype=np.float64) for m in (left, right))
        gradients = _pull_back(expanded, index, blocks, *linear.bilinear(blocks, p, one, two))
        for store, value in zip(results, gradients, strict=True):
            store.append(value)

    def gather(arrays: list[Any], target: Tensor) -> Tensor:
        tail = target.shape[len(generators.batch_shape) :]
        return _tensor(np.stack(arrays), target, (*batch, *tail)).sum_to_size(target.shape)

    diagonal = (left * right).sum(-1).reshape(*batch, -1).sum_to_size(generators.diagonal.shape)
    transitions = None if generators.transitions is None else gather(results[2], generators.transitions)
    return [gather(results[1], generators.times), gather(results[0], generators.params), diagonal, transitions]


def _apply_columns(batch: torch.Size, rhs: Tensor, function: Any) -> Tensor:
    """Apply ``function(index, (N, C) array)`` to every batch element of a right-hand side."""
    full = rhs.detach().expand(*batch, *rhs.shape[-2:]).reshape(batch.numel(), *rhs.shape[-2:]).numpy()
    full = np.ascontiguousarray(full, dtype=np.float64)
    out = np.empty_like(full)
    for index in range(full.shape[0]):
        out[index] = function(index, full[index])
    return _tensor(out, rhs, (*batch, *rhs.shape[-2:]))


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        times: Tensor,
        params: Tensor,
        diagonal: Tensor,
        transitions: Tensor | None,
        rhs: Tensor,
        structure: Structure,
    ) -> Tensor:
        from gpkit.recursions import linear

        generators = Generators(times, params, diagonal, transitions, structure)
        ctx.save_for_backward(times, params, diagonal, transitions, rhs)
        ctx.structure = structure
        batch = common_batch(times.shape[:-1], rhs.shape[:-2])
        noise = _flat(diagonal)
        count = max(times.shape[:-1].numel(), 1)

        def one(index: int, columns: Any) -> Any:
            blocks, p = _blocks(generators, index % count)
            return linear.multiply(blocks, p, noise[index % count % len(noise)], columns)

        return _apply_columns(batch, rhs, one)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        times, params, diagonal, transitions, rhs = ctx.saved_tensors
        generators = Generators(times, params, diagonal, transitions, ctx.structure)
        grads: list[Tensor | None] = [None] * 4
        if any(ctx.needs_input_grad[:4]):
            grads = _bilinear_gradients(generators, grad, rhs)
        rhs_grad = None
        if ctx.needs_input_grad[4]:
            rhs_grad = multiply(generators, grad).sum_to_size(rhs.shape)
        return (*grads, rhs_grad, None)


def multiply(generators: Generators, rhs: Tensor) -> Tensor:
    """``K rhs`` for (*b, N, C), O(N J b) per column."""
    return _Multiply.apply(*generators.tensors(), rhs, generators.structure)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        times: Tensor,
        params: Tensor,
        diagonal: Tensor,
        transitions: Tensor | None,
        rhs: Tensor,
        structure: Structure,
        factors: Factors,
    ) -> Tensor:
        ctx.structure, ctx.factors, ctx.rhs_shape = structure, factors, rhs.shape
        solution = solve_with(factors, common_batch(times.shape[:-1], rhs.shape[:-2]), rhs)
        ctx.save_for_backward(times, params, diagonal, transitions, solution)
        return solution

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        back = solve_with(ctx.factors, grad.shape[:-2], grad)
        grads: list[Tensor | None] = [None] * 4
        if any(ctx.needs_input_grad[:4]):
            times, params, diagonal, transitions, solution = ctx.saved_tensors
            generators = Generators(times, params, diagonal, transitions, ctx.structure)
            grads = _bilinear_gradients(generators, -back, solution)
        return (*grads, back.sum_to_size(ctx.rhs_shape) if ctx.needs_input_grad[4] else None, None, None)


def solve_with(factors: Factors, batch: torch.Size, rhs: Tensor) -> Tensor:
    """``K^-1 rhs`` from a factorisation; right-hand sides (*b, N, C)."""
    from gpkit.recursions import linear

    count = len(factors.gains)

    def one(index: int, columns: Any) -> Any:
        k = index % count
        v = linear.lower_solve(factors.blocks[k], factors.gains[k], columns)
        return linear.upper_solve(factors.blocks[k], factors.gains[k], v / factors.pivots[k][:, None])

    return _apply_columns(batch, rhs, one)


def solve(generators: Generators, rhs: Tensor, factors: Factors) -> Tensor:
    """``K^-1 rhs`` for (*b, N, C), differentiable in everything; ``factors`` come from :func:`factorise`."""
    return _Solve.apply(*generators.tensors(), rhs, generators.structure, factors)


def smooth(generators: Generators, values: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and variance at every row, each (*b, N), without gradients; infinite noise marks predictions."""
    from gpkit.recursions import series

    batch = common_batch(generators.batch_shape, values.shape[:-1])
    given = None if generators.transitions is None else _flat(generators.transitions, 3)
    if given is not None:
        given = given.reshape(*given.shape[:2], given.shape[-1] ** 2)
    mean, variance, failed = series.smooth(
        generators.structure,
        _flat(generators.params),
        _flat(generators.times),
        _flat(values),
        _flat(generators.diagonal),
        given=given,
    )
    _fail(failed)
    shape = (batch.numel(), mean.shape[-1])
    full = (*batch, mean.shape[-1])
    return (
        _tensor(np.broadcast_to(mean, shape), values, full),
        _tensor(np.maximum(np.broadcast_to(variance, shape), 0.0), values, full),
    )
