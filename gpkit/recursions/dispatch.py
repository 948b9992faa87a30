"""Selection of the recursion by state dimension, resolved while compiling.

Compiled drivers take an ``order`` marker. A tuple of one to four zeros selects a single closed-form kernel by its kind
(see :mod:`gpkit.recursions.transitions`); ``(block, program, given, given_bar)`` the general recursion (see
:mod:`gpkit.recursions.program`). The functions here choose the implementation from the marker's type while compiling,
so that only what is used is compiled.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from gpkit.recursions import order1, order2, ordern, program, transitions

__all__ = [
    "backward",
    "combine",
    "combine_adjoint",
    "contract",
    "contract_prior",
    "dimension",
    "element",
    "fill",
    "forward",
    "inverse_slot",
    "load_rows",
    "pack_transition",
    "reverse",
    "set_prior",
    "sizes",
    "smooth",
    "store_rows",
    "transition_slot",
    "unpack_transition",
]


def _order(marker: Any) -> int:
    return int(marker.count) if isinstance(marker, types.UniTuple) else 0


def _stub(name: str, doc: str) -> Any:
    def function(*args: Any) -> Any:
        raise TypeError(f"{name} is only available inside compiled code")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


sizes = _stub("sizes", "``(slots, state, element, adjoint, prior)``: words per row and of each record.")
dimension = _stub("dimension", "State dimension J.")
inverse_slot = _stub("inverse_slot", "Slot that holds the reciprocal innovation variance.")
forward = _stub("forward", "Filter rows.")
element = _stub("element", "Associative element of a block of rows.")
backward = _stub("backward", "What a task asks of the backward sweep: derivatives, or the posterior of every row.")
combine = _stub("combine", "State after a block, given the one before it.")
combine_adjoint = _stub("combine_adjoint", "Adjoint before a block, given the one after it.")
reverse = _stub("reverse", "Adjoint of rows.")
smooth = _stub("smooth", "Posterior mean and variance of rows.")
fill = _stub("fill", "Transitions of rows.")
contract = _stub("contract", "Pull transition derivatives back to parameters.")
set_prior = _stub("set_prior", "p and P_inf of one lane.")
contract_prior = _stub("contract_prior", "Pull the derivative with respect to p back to parameters.")
load_rows = _stub("load_rows", "Copy transitions that are given as data into one lane.")
transition_slot = _stub("transition_slot", "First slot of the transition.")
unpack_transition = _stub("unpack_transition", "Write a row's transition as dense blocks.")
pack_transition = _stub("pack_transition", "Write dense blocks and their derivatives into a row.")
store_rows = _stub("store_rows", "Copy derivatives with respect to given transitions out of one lane.")


_FAMILY = {
    transitions.EXPONENTIAL: order1,
    transitions.SHO: order2,
    transitions.MATERN32: order2,
    transitions.CELERITE: order2,
}


@overload(sizes, strict=False)
def _sizes(order: Any) -> Any:
    if _order(order) == 0:
        sizes_n = ordern.sizes_n
        return lambda order: sizes_n(order[1][0], order[0])
    module = _FAMILY[_order(order)]
    values = (module.SLOTS, module.STATE, module.ELEMENT, module.ADJOINT, module.PRIOR)
    return lambda order: values


@overload(dimension, strict=False)
def _dimension(order: Any) -> Any:
    if _order(order) == 0:
        return lambda order: order[1][0] * order[0]
    value = 1 if _FAMILY[_order(order)] is order1 else 2
    return lambda order: value


@overload(inverse_slot, strict=False)
def _inverse_slot(order: Any) -> Any:
    slot = ordern.SLOT_INVD if _order(order) == 0 else _FAMILY[_order(order)].SLOT_INVD
    return lambda order: slot


def _register(stub: Any, one: Any, two: Any, general: Any) -> None:
    @overload(stub, strict=False)
    def choose(order: Any, *args: Any) -> Any:
        number = _order(order)
        if number == 0:
            return lambda order, *args: general(order[0], order[1][0], *args)
        chosen = one if _FAMILY[number] is order1 else two
        return lambda order, *args: chosen(*args)


def _register_kinds(stub: Any, exponential: Any, sho: Any, matern32: Any, celerite: Any, general: Any) -> None:
    """As ``_register``, for functions that differ by kind and whose general form reads the program."""

    @overload(stub, strict=False)
    def choose(order: Any, *args: Any) -> Any:
        number = _order(order)
        if number == 0:
            return lambda order, *args: general(order[0], order[1], *args)
        chosen = (exponential, sho, matern32, celerite)[number - 1]
        return lambda order, *args: chosen(*args)


_register(forward, order1.forward1, order2.forward2, ordern.forward_n)
_register(element, order1.element1, order2.element2, ordern.element_n)
_register(combine, order1.combine1, order2.combine2, ordern.combine_n)
_register(combine_adjoint, order1.combine_adjoint1, order2.combine_adjoint2, ordern.combine_adjoint_n)
_register(reverse, order1.reverse1, order2.reverse2, ordern.reverse_n)
_ADJOINT, _POSTERIOR = 1, 2


def _is_posterior(task: Any) -> bool:
    return bool(task.count == _POSTERIOR)


@overload(backward, strict=False)
def _backward(order: Any, task: Any, ws: Any, steps: Any, prior: Any, par: Any, weights: Any, adjoint: Any, grad_p: Any, grad: Any, like: Any) -> Any:  # fmt: skip
    if _is_posterior(task):
        return lambda order, task, ws, steps, prior, par, weights, adjoint, grad_p, grad, like: smooth(
            order, ws, steps, prior, adjoint, like
        )

    def both(order, task, ws, steps, prior, par, weights, adjoint, grad_p, grad, like):  # type: ignore[no-untyped-def]
        reverse(order, ws, steps, weights, adjoint, grad_p, like)
        contract(order, ws, steps, par, grad, like)

    return both


_register(smooth, order1.smooth1, order2.smooth2, ordern.smooth_n)
_register_kinds(
    fill,
    transitions.fill_exponential,
    transitions.fill_sho,
    transitions.fill_matern32,
    transitions.fill_celerite,
    program.fill_n,
)
_register_kinds(
    contract,
    transitions.contract_exponential,
    transitions.contract_sho,
    transitions.contract_matern32,
    transitions.contract_celerite,
    program.contract_n,
)
_register_kinds(
    set_prior,
    transitions.prior1,
    transitions.prior2,
    transitions.prior2,
    transitions.prior_celerite,
    program.set_prior_n,
)
_register_kinds(
    contract_prior,
    transitions.contract_prior_variance,
    transitions.contract_prior_variance,
    transitions.contract_prior_variance,
    transitions.contract_prior_celerite,
    program.contract_prior_n,
)


@overload(load_rows, strict=False)
def _load_rows(order: Any, *args: Any) -> Any:
    if _order(order):
        return lambda order, *args: None
    load_given = program.load_given
    return lambda order, *args: load_given(order[0], order[1], order[2], *args)


@overload(store_rows, strict=False)
def _store_rows(order: Any, *args: Any) -> Any:
    if _order(order):
        return lambda order, *args: None
    store_given = program.store_given
    return lambda order, *args: store_given(order[0], order[1], order[3], *args)


@overload(transition_slot, strict=False)
def _transition_slot(order: Any) -> Any:
    slot = ordern.SLOT_A if _order(order) == 0 else _FAMILY[_order(order)].SLOT_A
    return lambda order: slot


_register(unpack_transition, order1.unpack1, order2.unpack2, ordern.unpack_n)
_register(pack_transition, order1.pack1, order2.pack2, ordern.pack_n)
