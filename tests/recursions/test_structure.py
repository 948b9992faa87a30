"""Names, sizes and transitions of structures."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from gpkit.recursions import linear
from gpkit.recursions.series import log_likelihood
from gpkit.recursions.structure import FACTORS, GIVEN, block_shape, marker, parameter_count, state_dimension
from tests import oracles
from tests.recursions.cases import CASES, NAMES, make


def test_factors_are_those_of_the_oracle() -> None:
    assert set(FACTORS) == set(oracles.PARAMETERS)
    for name in FACTORS:
        assert parameter_count(((name,),)) == 1 + oracles.PARAMETERS[name]
        assert state_dimension(((name,),)) == oracles.DIMENSIONS[name]


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name: str) -> None:
    structure, params = CASES[name]
    assert parameter_count(structure) == len(params)
    sizes = [int(np.prod([oracles.DIMENSIONS[factor] for factor in term])) for term in structure]
    assert state_dimension(structure) == sum(sizes)
    assert block_shape(structure) == (len(structure), max(sizes))
    if "-j" in name:
        assert state_dimension(structure) == int(name.split("-j")[1].split("-")[0])
    assert oracles.state_space(structure, params).h.size == sum(sizes)


def test_markers_are_cached_and_distinct() -> None:
    assert marker((("sho",),)) is marker((("sho",),))
    single = {marker(((name,),)) for name in ("exponential", "sho", "matern32", "celerite")}
    assert len(single) == 4
    with pytest.raises(ValueError, match="transitions"):
        marker(GIVEN)


@pytest.mark.parametrize("name", NAMES)
def test_transitions_decay_to_zero_and_start_at_identity(name: str) -> None:
    structure, params = CASES[name]
    blocks, _ = linear.transition_blocks(
        marker(structure), np.array(params), np.array([0.0, 0.0, 1e9]), *block_shape(structure)
    )
    for index, term in enumerate(structure):
        size = int(np.prod([oracles.DIMENSIONS[factor] for factor in term]))
        assert np.array_equal(blocks[0, index, :size, :size], np.eye(size))
        # The last one is that of a zero step.
        assert np.array_equal(blocks[2, index, :size, :size], np.eye(size))
        assert not blocks[1, index, :size, :size].any()


@pytest.mark.parametrize("name", NAMES)
def test_transitions_compose(name: str) -> None:
    """A(t1, t3) = A(t2, t3) A(t1, t2), and their spectrum is that of the oracle's drift."""
    structure, params = CASES[name]
    times = np.array([0.0, 0.4, 1.3])
    shape = block_shape(structure)
    steps, _ = linear.transition_blocks(marker(structure), np.array(params), times, *shape)
    whole, _ = linear.transition_blocks(marker(structure), np.array(params), times[::2].copy(), *shape)
    drift = scipy.linalg.expm(oracles.state_space(structure, params).drift * 1.3)
    at = 0
    for index, term in enumerate(structure):
        size = int(np.prod([oracles.DIMENSIONS[factor] for factor in term]))
        first, second = steps[0, index, :size, :size], steps[1, index, :size, :size]
        both = whole[0, index, :size, :size]
        assert np.max(np.abs(second @ first - both)) <= 1e-14 * max(1.0, np.max(np.abs(both)))
        block = drift[at : at + size, at : at + size]
        assert np.trace(both) == pytest.approx(np.trace(block), abs=1e-12)
        assert np.linalg.det(both) == pytest.approx(np.linalg.det(block), rel=1e-9, abs=1e-14)
        at += size


def test_order_of_terms_and_factors_does_not_matter() -> None:
    data = make(80, seed=131)
    one = log_likelihood(
        (("sho", "exponential"), ("matern52",)), [1.0, 0.8, 2.0, 0.3, 0.6, 1.1], data.times, data.values, data.noise
    )
    two = log_likelihood(
        (("matern52",), ("exponential", "sho")), [0.6, 1.1, 1.0, 0.3, 0.8, 2.0], data.times, data.values, data.noise
    )
    assert one == pytest.approx(two, rel=1e-13)


def test_products_of_exponentials_add_their_rates() -> None:
    data = make(80, seed=132)
    one = log_likelihood((("exponential",),), [1.4, 0.9], data.times, data.values, data.noise)
    two = log_likelihood(
        (("exponential", "exponential", "exponential"),), [1.4, 0.2, 0.3, 0.4], data.times, data.values, data.noise
    )
    assert one == pytest.approx(two, rel=1e-13)
