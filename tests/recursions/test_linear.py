"""Solves, products, factors and their derivatives on generators, against dense matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.linalg

from gpkit.recursions import linear
from gpkit.recursions.structure import block_shape, marker, parameter_count
from tests import oracles
from tests.recursions.cases import CASES, FEW, NAMES, Array, close, make

SIZES = [1, 2, 17, 70]


@dataclass(frozen=True)
class Problem:
    """Generators and the dense matrix they stand for."""

    blocks: Array
    p: Array
    noise: Array
    kernel: Array
    rhs: Array

    @property
    def matrix(self) -> Array:
        return self.kernel + np.diag(self.noise)


def problem(name: str, n: int, columns: int = 3) -> Problem:
    structure, params = CASES[name]
    data = make(n, seed=101)
    blocks, p = linear.transition_blocks(marker(structure), np.array(params), data.times, *block_shape(structure))
    kernel = oracles.covariance(structure, params, data.times, data.times)
    return Problem(blocks, p, data.noise, kernel, np.random.default_rng(102).normal(size=(n, columns)))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_generators_give_the_covariance(name: str, n: int) -> None:
    """K_ij = h^T A_(i-1) ... A_j p, with h the first unit vector of every block."""
    structure, _ = CASES[name]
    given = problem(name, n)
    count, size = block_shape(structure)
    assert given.blocks.shape == (n, count, size, size)
    assert given.p.shape == (count * size,)
    h = np.tile(np.eye(size)[0], count)
    for j in range(n):
        state = given.p
        for i in range(j, n):
            assert h @ state == pytest.approx(given.kernel[i, j], abs=1e-13 * given.kernel[0, 0])
            state = np.concatenate([a @ s for a, s in zip(given.blocks[i], state.reshape(count, size), strict=True)])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_factor_is_that_of_cholesky(name: str, n: int) -> None:
    given = problem(name, n)
    gains, d, bad = linear.factor(given.blocks, given.p, given.noise, False)
    assert bad == -1
    lower = np.linalg.cholesky(given.matrix)
    close(d, np.diag(lower) ** 2, 1e-12, "D")
    unit = lower / np.diag(lower)
    close(linear.lower_multiply(given.blocks, gains, np.eye(n)), unit, 1e-12, "L")
    close(linear.upper_multiply(given.blocks, gains, np.eye(n)), unit.T, 1e-12, "L^T")
    inverse = scipy.linalg.solve_triangular(unit, np.eye(n), lower=True, unit_diagonal=True)
    close(linear.lower_solve(given.blocks, gains, np.eye(n)), inverse, 1e-11, "L^-1")
    close(linear.upper_solve(given.blocks, gains, np.eye(n)), inverse.T, 1e-11, "L^-T")
    solved = linear.upper_solve(given.blocks, gains, linear.lower_solve(given.blocks, gains, given.rhs) / d[:, None])
    close(solved, np.linalg.solve(given.matrix, given.rhs), 1e-11, "solve")


@pytest.mark.parametrize("columns", [0, 1, 5])
@pytest.mark.parametrize("name", FEW)
def test_any_number_of_columns(name: str, columns: int) -> None:
    given = problem(name, 20, columns)
    gains, d, _ = linear.factor(given.blocks, given.p, given.noise, False)
    unit = np.linalg.cholesky(given.matrix)
    unit = unit / np.diag(unit)
    close(linear.lower_multiply(given.blocks, gains, given.rhs), unit @ given.rhs, 1e-12)
    close(linear.upper_multiply(given.blocks, gains, given.rhs), unit.T @ given.rhs, 1e-12)
    close(linear.lower_solve(given.blocks, gains, given.rhs), np.linalg.solve(unit, given.rhs), 1e-12)
    close(linear.upper_solve(given.blocks, gains, given.rhs), np.linalg.solve(unit.T, given.rhs), 1e-12)
    close(linear.multiply(given.blocks, given.p, given.noise, given.rhs), given.matrix @ given.rhs, 1e-12)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_multiply(name: str, n: int) -> None:
    given = problem(name, n)
    close(linear.multiply(given.blocks, given.p, given.noise, given.rhs), given.matrix @ given.rhs, 1e-12, "K + R")
    zero = np.zeros(n)
    close(linear.multiply(given.blocks, given.p, zero, np.eye(n)), given.kernel, 1e-13, "K")


@pytest.mark.parametrize("name", FEW)
def test_infinite_noise_in_the_factor(name: str) -> None:
    given = problem(name, 30)
    noise = given.noise.copy()
    gone = np.arange(30) % 3 == 1
    noise[gone] = np.inf
    gains, d, bad = linear.factor(given.blocks, given.p, noise, False)
    assert bad == -1
    assert np.isinf(d[gone]).all()
    assert not gains[gone].any()
    rest = np.linalg.cholesky(given.matrix[np.ix_(~gone, ~gone)])
    close(d[~gone], np.diag(rest) ** 2, 1e-12, "D")
    white = linear.lower_solve(given.blocks, gains, given.rhs)
    expected = np.linalg.solve(rest / np.diag(rest), given.rhs[~gone])
    close(white[~gone], expected, 1e-12, "innovations")


@pytest.mark.parametrize("name", FEW)
def test_factor_names_the_bad_row(name: str) -> None:
    given = problem(name, 30)
    for row in (0, 11, 29):
        noise = given.noise.copy()
        noise[row] = -50.0
        for floor in (True, False):
            bad = linear.factor(given.blocks, given.p, noise, floor)[2]
            if floor:
                # The floor forgives what is zero to rounding, not what is negative.
                assert bad in (-1, row)
            else:
                assert bad == row


@pytest.mark.parametrize("name", NAMES)
def test_semidefinite_factor(name: str) -> None:
    """Repeated times without noise: zero pivots, and L D L^T is still the covariance."""
    structure, params = CASES[name]
    times = np.sort(np.repeat(np.cumsum(np.random.default_rng(103).uniform(1.0, 3.0, 9)), 3))
    kernel = oracles.covariance(structure, params, times, times)
    blocks, p = linear.transition_blocks(marker(structure), np.array(params), times, *block_shape(structure))
    gains, d, bad = linear.factor(blocks, p, np.zeros(27), True)
    assert bad == -1
    repeated = np.arange(27) % 3 > 0
    assert not d[repeated].any()
    assert not gains[repeated].any()
    assert np.all(d[~repeated] > 0.0)
    root = linear.lower_multiply(blocks, gains, np.diag(np.sqrt(d)))
    close(root @ root.T, kernel, 1e-12, "L D L^T")


@pytest.mark.parametrize("name", ["sho-under", "matern32", "matern52", "product-j6", "mixed-j10"])
def test_semidefinite_factor_of_a_fine_grid(name: str) -> None:
    """Noise-free prior draws: neighbours so near that pivots drown in rounding."""
    structure, params = CASES[name]
    times = np.linspace(0.0, 1e-2, 120)
    kernel = oracles.covariance(structure, params, times, times)
    blocks, p = linear.transition_blocks(marker(structure), np.array(params), times, *block_shape(structure))
    gains, d, bad = linear.factor(blocks, p, np.zeros(120), True)
    assert bad == -1
    assert np.all(d >= 0.0)
    root = linear.lower_multiply(blocks, gains, np.diag(np.sqrt(d)))
    # A skipped pivot of a few ulp takes with it covariances of at most the root of that, by Cauchy-Schwarz.
    assert np.max(np.abs(root @ root.T - kernel)) <= np.sqrt(8.0 * 2.3e-16) * kernel[0, 0]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_bilinear_and_pull_back(name: str, n: int) -> None:
    """Derivatives of sum_c left_c^T K right_c down to parameters and times, against the complex step."""
    structure, params = CASES[name]
    data = make(n, seed=101)
    given = problem(name, n)
    left = np.random.default_rng(104).normal(size=given.rhs.shape)
    blocks_bar, p_bar = linear.bilinear(given.blocks, given.p, left, given.rhs)
    assert blocks_bar.shape == given.blocks.shape
    assert p_bar.shape == given.p.shape
    grad, times_bar = linear.pull_back(
        marker(structure), np.array(params), data.times, *block_shape(structure), given.blocks, blocks_bar, p_bar
    )
    assert grad.shape == (parameter_count(structure),)
    cotangent = left @ given.rhs.T
    lag = np.abs(data.times[:, None] - data.times[None, :])
    expected = np.zeros(len(params))
    for k in range(len(params)):
        moved = np.asarray(params, dtype=complex)
        moved[k] += 1e-30j
        expected[k] = np.sum(cotangent * np.imag(oracles.autocovariance(structure, moved, lag)) / 1e-30)
    slope = np.imag(oracles.autocovariance(structure, np.array(params), lag + 1e-30j)) / 1e-30
    later = np.sign(np.arange(n)[:, None] - np.arange(n)[None, :])
    expected_times = np.sum((cotangent + cotangent.T) * slope * later, axis=1)
    close(grad * params, expected * params, 1e-12, "parameters")
    close(times_bar, expected_times, 1e-12, "times")


@pytest.mark.parametrize("name", FEW)
def test_bilinear_against_finite_differences_of_the_generators(name: str) -> None:
    given = problem(name, 6)
    left = np.random.default_rng(105).normal(size=given.rhs.shape)
    blocks_bar, p_bar = linear.bilinear(given.blocks, given.p, left, given.rhs)

    def value(blocks: Array, p: Array) -> float:
        return float(np.sum(left * linear.multiply(blocks, p, np.zeros(6), given.rhs)))

    for place in np.ndindex(given.blocks.shape):
        blocks = given.blocks.copy()

        def along(x: float, place: tuple[int, ...] = place, blocks: Array = blocks) -> float:
            blocks[place] = x
            return value(blocks, given.p)

        expected = oracles.finite_difference(along, float(given.blocks[place]), 1e-2)
        assert blocks_bar[place] == pytest.approx(expected, abs=1e-9)
    for k in range(given.p.size):
        p = given.p.copy()

        def along_p(x: float, k: int = k, p: Array = p) -> float:
            p[k] = x
            return value(given.blocks, p)

        assert p_bar[k] == pytest.approx(oracles.finite_difference(along_p, float(given.p[k]), 1e-2), abs=1e-9)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("n", [255, 256, 257, 600])
def test_lengths_around_the_chunk(name: str, n: int) -> None:
    """Transitions are written, and pulled back, in chunks."""
    structure, params = CASES[name]
    data = make(n, seed=106)
    rng = np.random.default_rng(107)
    shape = block_shape(structure)
    blocks, p = linear.transition_blocks(marker(structure), np.array(params), data.times, *shape)
    bar, p_bar = rng.normal(size=blocks.shape), rng.normal(size=p.shape)
    grad, times_bar = linear.pull_back(
        marker(structure), np.array(params), data.times, *shape, blocks, bar, np.zeros(p.shape)
    )
    total, total_times = np.zeros(len(params)), np.zeros(n)
    for k in range(n - 1):
        pair = data.times[k : k + 2]
        one, _ = linear.transition_blocks(marker(structure), np.array(params), pair, *shape)
        assert np.array_equal(one[0], blocks[k])
        part, part_times = linear.pull_back(
            marker(structure), np.array(params), pair, *shape, one, bar[k : k + 2].copy(), np.zeros(p.shape)
        )
        total += part
        total_times[k : k + 2] += part_times
    close(grad, total, 1e-12, "parameters")
    close(times_bar, total_times, 1e-12, "times")
    prior, _ = linear.pull_back(
        marker(structure), np.array(params), data.times, *shape, blocks, np.zeros(blocks.shape), p_bar
    )
    once, _ = linear.pull_back(
        marker(structure), np.array(params), data.times[:1], *shape, blocks[:1], np.zeros(blocks[:1].shape), p_bar
    )
    close(prior, once, 1e-14, "p")
