"""Bases and constrained axes against numpy's polynomials, quadrature and dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import legendre

from gpkit.inference.collocation.axes import Axis, EndCondition, along
from gpkit.inference.collocation.bases import FourierBasis, LegendreBasis, gauss_legendre
from gpkit.inference.collocation.noisy.lattice import LatticeBasis
from gpkit.inference.collocation.spectral.parity import Folded, Split, Unfolded

VALUE, SLOPE = ((0, 1.0),), ((1, 1.0),)
PAIRS = {
    "dirichlet": ((0, VALUE), (1, VALUE)),
    "neumann": ((0, SLOPE), (1, SLOPE)),
    "robin": ((0, ((0, 2.0), (1, -1.0))), (1, ((0, 1.0), (1, 3.0)))),
    "initial": ((0, VALUE), (0, SLOPE)),
    "clamped": ((0, VALUE), (0, SLOPE), (1, VALUE), (1, SLOPE)),
    "inflow": ((0, VALUE),),
}


def axis(name, size=20, lower=-1.0, upper=2.0):
    return Axis(LegendreBasis(lower, upper, size), tuple(EndCondition(*c) for c in PAIRS[name]))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 63, 64, 301])
def test_gauss_nodes_are_those_of_numpy(count):
    nodes, weights = gauss_legendre(count)
    expected = legendre.leggauss(count)
    np.testing.assert_allclose(nodes, expected[0], atol=1e-14)
    np.testing.assert_allclose(weights, expected[1], atol=1e-13)


@pytest.mark.parametrize("order", range(5))
def test_legendre_derivatives_are_those_of_numpy(order):
    basis, x = LegendreBasis(-1.0, 2.0, 9), np.linspace(-1.0, 2.0, 13)
    tau, scale = 2.0 * (x + 1.0) / 3.0 - 1.0, 2.0 / 3.0
    for k in range(9):
        series = np.zeros(9)
        series[k] = np.sqrt((2 * k + 1) / 3.0)
        expected = legendre.legval(tau, legendre.legder(series, order)) * scale**order
        np.testing.assert_allclose(basis.evaluate(x, order)[:, k], expected, atol=1e-10)


@pytest.mark.parametrize(
    "basis",
    [
        LegendreBasis(-1.0, 2.0, 14),
        LegendreBasis(0.0, 1.0, 1),
        FourierBasis(-1.0, 2.0, 13),
        LatticeBasis.around(-1.0, 2.0, [1.3], 4, 2, 40, False),
    ],
    ids=["legendre", "one", "fourier", "lattice"],
)
@pytest.mark.parametrize("order", range(1, 5))
def test_derivatives_of_coefficients_are_derivatives_of_functions(basis, order):
    x = np.linspace(basis.lower, basis.upper, 17)
    coefficients = np.random.default_rng(0).standard_normal((3, basis.size, 2))
    moved = along(basis.evaluate(x), basis.differentiate(coefficients, 1, order), 1)
    expected = along(basis.evaluate(x, order), coefficients, 1)
    np.testing.assert_allclose(moved, expected, atol=1e-11 * max(1.0, np.abs(expected).max()))
    dense = basis.derivative(order)
    dense = dense if isinstance(dense, np.ndarray) else dense.toarray()
    np.testing.assert_allclose(basis.evaluate(x) @ dense, basis.evaluate(x, order), atol=1e-9 * np.abs(dense).max())


@pytest.mark.parametrize(
    "basis", [LegendreBasis(0.0, 5.0, 40), FourierBasis(0.0, 5.0, 40)], ids=["legendre", "fourier"]
)
def test_functions_are_orthonormal_at_the_nodes(basis):
    x, w = basis.nodes(basis.size)
    table = basis.at_nodes(basis.size)
    np.testing.assert_allclose(table, basis.evaluate(x), atol=1e-12)
    np.testing.assert_allclose((table.T * w) @ table, np.eye(basis.size), atol=1e-12)


def test_a_lattice_keeps_low_multiples_and_neighbours_of_picks():
    basis = LatticeBasis.around(0.0, 2.0, [10.0], 2, 1, 100, periodic=True)
    assert basis.tones == pytest.approx((0.0, 0.5, 1.0, 9.5, 10.0, 10.5))
    assert basis.size == 11
    assert basis.frequencies.max() == pytest.approx(10.5)
    free = LatticeBasis.around(0.0, 2.0, [10.1], 2, 1, 100, periodic=False)
    assert 10.1 in free.tones  # a picked frequency is there itself
    with pytest.raises(ValueError, match="no version"):
        basis.resized(5)


@pytest.mark.parametrize("name", PAIRS)
def test_constrained_functions_satisfy_conditions_and_lifts_fulfil_them(name):
    one = axis(name)
    rows = one.functional
    assert np.abs(rows @ one.constrained).max() < 1e-11 * np.abs(rows).max()
    np.testing.assert_allclose(rows @ one.lift, np.eye(len(rows)), atol=1e-9)
    assert np.linalg.matrix_rank(one.constrained.toarray()) == one.free == 20 - len(rows)
    assert one.is_determined


def test_contradicting_conditions_are_noticed():
    basis = LegendreBasis(0.0, 1.0, 12)
    assert not Axis(basis, (EndCondition(0, VALUE), EndCondition(0, ((0, 3.0),)))).is_determined


@pytest.mark.parametrize("name", PAIRS)
def test_the_banded_matrices_are_the_dense_ones(name):
    one = axis(name)
    order = len(one.conditions)
    symbol = {order: 1.3, max(0, order - 1): -0.4, 0: 2.0}
    operator, mass = one.petrov(symbol)
    test = one.test(order).toarray()
    dense = test @ np.asarray(one.symbol(symbol)) @ one.constrained.toarray()
    np.testing.assert_allclose(operator.toarray(), dense, atol=1e-10 * np.abs(dense).max())
    np.testing.assert_allclose(mass.toarray(), test @ one.constrained.toarray(), atol=1e-14)
    offsets = np.subtract(*np.nonzero(np.abs(operator.toarray()) > 1e-12))
    assert np.ptp(offsets) <= 4 * order + 2  # banded, whatever the size


@pytest.mark.parametrize("count", [11, 12])
def test_folding_is_the_dense_product(count):
    basis = LegendreBasis(0.0, 1.0, 9)
    x, w = basis.nodes(count)
    table, values = basis.evaluate(x), np.random.default_rng(1).standard_normal((count, 3))
    np.testing.assert_allclose(Folded(table, w) @ values, (table.T * w) @ values, atol=1e-13)
    coefficients = values[:9]
    np.testing.assert_allclose(Unfolded(table) @ coefficients, table @ coefficients, atol=1e-13)


def test_a_split_matrix_is_its_dense_one():
    rng = np.random.default_rng(2)
    split = Split(
        (rng.standard_normal((4, 3)), rng.standard_normal((3, 2))),
        (slice(0, None, 2), slice(1, None, 2)),
        (slice(0, 3), slice(3, 5)),
        (7, 5),
    )
    x = rng.standard_normal((5, 2))
    np.testing.assert_allclose(split @ x, split.to_dense() @ x)
    np.testing.assert_allclose(split.T.to_dense(), split.to_dense().T)
