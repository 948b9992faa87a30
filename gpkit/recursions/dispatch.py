"""Selection of the recursion by state dimension, resolved while compiling.

Compiled drivers take an ``order`` marker. A tuple of one to four zeros selects a single closed-form kernel by its kind
(see :mod:`gpkit.recursions.transitions`); ``(block, program, given, given_bar)`` the general recursion (see
:mod:`gpkit.recursions.program`). The functions here choose the implementation from the marker's type while compiling,
so that only what is used is compiled; every implementation takes the marker as its first argument.
"""

from __future__ import annotations

from typing import Any

from numba import types

from gpkit.recursions import blockwise, compositions, order1, order2, ordern, program, transitions
from gpkit.recursions.compilation import selector, uncounted

__all__ = [
    "SPARE_ROWS",
    "backward",
    "combine",
    "combine_adjoint",
    "contract",
    "contract_prior",
    "diagonal",
    "dimension",
    "element",
    "fill",
    "forward",
    "inverse_slot",
    "load_rows",
    "pack_transition",
    "set_prior",
    "sizes",
    "store_rows",
    "total_variance",
    "transition_slot",
    "unpack_transition",
]


SPARE_ROWS = 2
"""Rows that a workspace holds after those it is used for; the general recursion keeps temporaries there."""


def _by_kind(name: str, doc: str, exponential: Any, sho: Any, matern32: Any, celerite: Any, general: Any) -> Any:
    choices = (general, exponential, sho, matern32, celerite)
    return selector(name, doc, lambda args: choices[args[0].count if isinstance(args[0], types.UniTuple) else 0])


def _by_order(name: str, doc: str, one: Any, two: Any, general: Any) -> Any:
    return _by_kind(name, doc, one, two, two, two, general)


sizes = _by_order(
    "sizes",
    "``(slots, state, element, adjoint, prior)``: words per row and of each record; see :data:`SPARE_ROWS`.",
    order1.sizes1,
    order2.sizes2,
    blockwise.sizes_n,
)
dimension = _by_order("dimension", "State dimension J.", order1.dimension1, order2.dimension2, blockwise.dimension_n)
total_variance = _by_order(
    "total_variance", "k(0) of one lane.", order1.total_variance1, order2.total_variance2, blockwise.total_variance_n
)
diagonal = _by_order(
    "diagonal",
    "Words of the diagonal entries of a component.",
    order1.diagonal1,
    order2.diagonal2,
    blockwise.diagonal_n,
)
inverse_slot = _by_order(
    "inverse_slot",
    "Slot that holds the reciprocal innovation variance.",
    order1.inverse_slot1,
    order2.inverse_slot2,
    blockwise.inverse_slot_n,
)
transition_slot = _by_order(
    "transition_slot",
    "First slot of the transition.",
    order1.transition_slot1,
    order2.transition_slot2,
    blockwise.transition_slot_n,
)
forward = _by_order("forward", "Filter rows.", order1.forward1, order2.forward2, ordern.forward_n)
element = _by_order(
    "element", "Associative element of a block of rows.", order1.element1, order2.element2, ordern.element_n
)
combine = _by_order(
    "combine",
    "State after a block, given the one before it.",
    order1.combine1,
    compositions.combine2,
    compositions.combine_n,
)
combine_adjoint = _by_order(
    "combine_adjoint",
    "Adjoint before a block, given the one after it.",
    order1.combine_adjoint1,
    compositions.combine_adjoint2,
    compositions.combine_adjoint_n,
)
reverse = _by_order("reverse", "Adjoint of rows.", order1.reverse1, order2.reverse2, ordern.reverse_n)
smooth = _by_order("smooth", "Posterior mean and variance of rows.", order1.smooth1, order2.smooth2, ordern.smooth_n)
unpack_transition = _by_order(
    "unpack_transition", "Write a row's transition as dense blocks.", order1.unpack1, order2.unpack2, ordern.unpack_n
)
pack_transition = _by_order(
    "pack_transition",
    "Write dense blocks and their derivatives into a row.",
    order1.pack1,
    order2.pack2,
    ordern.pack_n,
)
load_rows = _by_order(
    "load_rows",
    "Copy transitions that are given as data into one lane.",
    transitions.nothing,
    transitions.nothing,
    program.load_given,
)
store_rows = _by_order(
    "store_rows",
    "Copy derivatives with respect to given transitions out of one lane.",
    transitions.nothing,
    transitions.nothing,
    program.store_given,
)
fill = _by_kind(
    "fill",
    "Transitions of rows.",
    transitions.fill_exponential,
    transitions.fill_sho,
    transitions.fill_matern32,
    transitions.fill_celerite,
    program.fill_n,
)
contract = _by_kind(
    "contract",
    "Pull transition derivatives back to parameters.",
    transitions.contract_exponential,
    transitions.contract_sho,
    transitions.contract_matern32,
    transitions.contract_celerite,
    program.contract_n,
)
set_prior = _by_kind(
    "set_prior",
    "p and P_inf of one lane.",
    transitions.prior1,
    transitions.prior2,
    transitions.prior2,
    transitions.prior_celerite,
    program.set_prior_n,
)
contract_prior = _by_kind(
    "contract_prior",
    "Pull the derivative with respect to p back to parameters.",
    transitions.contract_prior_variance,
    transitions.contract_prior_variance,
    transitions.contract_prior_variance,
    transitions.contract_prior_celerite,
    program.contract_prior_n,
)


@uncounted
def _derivatives(order, task, ws, steps, prior, par, weights, adjoint, grad_p, grad, like):
    reverse(order, ws, steps, weights, adjoint, grad_p, like)
    contract(order, ws, steps, par, grad, like)


@uncounted
def _posterior(order, task, ws, steps, prior, par, weights, adjoint, grad_p, grad, like):
    smooth(order, ws, steps, prior, adjoint, like)


backward = selector(
    "backward",
    "What a task asks of the backward sweep: ``(0,)`` derivatives, ``(0, 0)`` the posterior of every row.",
    lambda args: _posterior if args[1].count > 1 else _derivatives,
)
