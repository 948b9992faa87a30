"""Names of the closed-form structures and the markers that compiled code takes for them.

A structure is a sum of products of factors, for example ``(("sho",), ("exponential", "celerite"))``. Its parameter
vector lists, per term, the variance followed by the parameters of each factor:

=============  ==================================
factor         parameters
=============  ==================================
exponential    rate
sho            frequency, quality
matern32       rate
matern52       rate
celerite       a, b, c, d
=============  ==================================

``GIVEN`` marks a state space whose transitions are passed as data; its parameters are ``p`` and ``P_inf`` (J + J^2
words, the covariance by rows).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.recursions.factors import FACTOR_DIMENSIONS, FACTOR_PARAMETERS
from gpkit.recursions.transitions import CELERITE, EXPONENTIAL, MATERN32, MATERN52, SHO

__all__ = ["FACTORS", "GIVEN", "Structure", "block_shape", "marker", "parameter_count", "state_dimension"]

Structure = tuple[tuple[str, ...], ...]
"""Sum (outer tuple) of products (inner tuples) of factor names."""

FACTORS: dict[str, int] = {
    "exponential": EXPONENTIAL,
    "sho": SHO,
    "matern32": MATERN32,
    "celerite": CELERITE,
    "matern52": MATERN52,
}
GIVEN: Structure = (("given",),)

_EMPTY = np.zeros((1, 0, 0))


def parameter_count(structure: Structure) -> int:
    """Length of the parameter vector of a closed-form structure."""
    return sum(1 + sum(FACTOR_PARAMETERS[FACTORS[name]] for name in term) for term in structure)


@cache
def _sizes(structure: Structure) -> tuple[int, ...]:
    sizes = []
    for term in structure:
        size = 1
        for name in term:
            size *= FACTOR_DIMENSIONS[FACTORS[name]]
        sizes.append(size)
    return tuple(sizes)


def state_dimension(structure: Structure) -> int:
    """State dimension J of a closed-form structure, padding not counted."""
    return sum(_sizes(structure))


def block_shape(structure: Structure) -> tuple[int, int]:
    """Number of diagonal blocks and their common (padded) size."""
    return len(structure), max(_sizes(structure))


@cache
def _closed_form_marker(structure: Structure) -> Any:
    if len(structure) == 1 and len(structure[0]) == 1 and structure[0][0] != "matern52":
        return (0,) * FACTORS[structure[0][0]]
    program = [len(structure)]
    for term in structure:
        program += [len(term), *(FACTORS[name] for name in term)]
    return block_shape(structure)[1], np.array(program, dtype=np.int64), _EMPTY, _EMPTY


def marker(structure: Structure, given: NDArray[Any] | None = None, given_bar: NDArray[Any] | None = None) -> Any:
    """Order marker of a structure; ``given`` are transitions (S, N, J * J) and ``given_bar`` room for derivatives."""
    if structure != GIVEN:
        return _closed_form_marker(structure)
    if given is None:
        raise ValueError("a given state space needs its transitions")
    size = round(given.shape[-1] ** 0.5)
    given = np.ascontiguousarray(given, dtype=np.float64)
    return size, np.array([1, -1], dtype=np.int64), given, _EMPTY if given_bar is None else given_bar
