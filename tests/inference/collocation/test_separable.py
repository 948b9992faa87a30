"""The direct solver against dense matrices of the same equations."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.axes import Axis, EndCondition
from gpkit.inference.collocation.bases import FourierBasis, LegendreBasis
from gpkit.inference.collocation.spectral.separable import SeparableSolver

VALUE, SLOPE = ((0, 1.0),), ((1, 1.0),)
DIRICHLET, NEUMANN = ((0, VALUE), (1, VALUE)), ((0, SLOPE), (1, SLOPE))
ROBIN = ((0, ((0, 2.0), (1, -1.0))), (1, VALUE))
START, REST = ((0, VALUE),), ((0, VALUE), (0, SLOPE))
CLAMPED = ((0, VALUE), (0, SLOPE), (1, VALUE), (1, SLOPE))
SUPPORTED = ((0, VALUE), (0, ((2, 1.0),)), (1, VALUE), (1, ((2, 1.0),)))


def make(size, conditions, periodic=False, upper=1.7):
    basis = FourierBasis(0.0, upper, size) if periodic else LegendreBasis(0.0, upper, size)
    return Axis(basis, tuple(EndCondition(*c) for c in conditions))


def tau_error(axes, symbols, shift, solution, rhs):
    """Largest residual of the equations that are imposed: tested by all but the highest functions of each axis."""
    total = shift * solution
    for j, (axis, symbol) in enumerate(zip(axes, symbols, strict=True)):
        for order, value in symbol.items():
            total = total + value * axis.basis.differentiate(solution, j, order)
    return total - rhs


CASES = {
    "poisson": ([(14, DIRICHLET), (11, DIRICHLET)], [{2: 1.0}, {2: 2.5}], 0.0, ("diagonal", "diagonal")),
    "helmholtz with robin": ([(14, ROBIN), (11, NEUMANN)], [{2: 1.0}, {2: 1.0}], -3.0, ("diagonal", "diagonal")),
    "heat": ([(12, DIRICHLET), (13, START)], [{2: -1.0}, {1: 1.0}], 0.3, ("diagonal", "banded")),
    "wave": ([(12, DIRICHLET), (13, REST)], [{2: -4.0}, {2: 1.0}], 0.0, ("diagonal", "banded")),
    "transport": ([(9, START), (13, START)], [{1: 2.0}, {1: 1.0}], 0.0, ("triangular", "banded")),
    "convection": ([(14, DIRICHLET), (11, DIRICHLET)], [{2: -1.0, 1: 3.0}, {2: -1.0}], 1.0, ("banded", "diagonal")),
    "plate strips": ([(14, CLAMPED), (15, SUPPORTED)], [{4: 1.0}, {4: 1.0}], 0.0, ("diagonal", "diagonal")),
}


@pytest.mark.parametrize("name", CASES)
def test_solutions_are_those_of_the_dense_system(name):
    parts, symbols, shift, kinds = CASES[name]
    axes = [make(*part) for part in parts]
    solver = SeparableSolver(axes, symbols, shift)
    assert solver.kinds == kinds
    # A right side of low degree, so that the tau equations of every variant have the same solution to rounding.
    rng = np.random.default_rng(0)
    free = [rng.standard_normal((axis.free, 1)) * 0.2 ** np.arange(axis.free)[:, None] for axis in axes]
    exact = np.einsum("i,j->ij", *[axis.constrained @ f[:, 0] for axis, f in zip(axes, free, strict=True)])
    rhs = tau_error(axes, symbols, shift, exact, 0.0)
    np.testing.assert_allclose(solver.solve(rhs), exact, atol=1e-7 * np.abs(exact).max())


def test_the_solver_is_exact_for_its_own_range():
    axes = [make(12, DIRICHLET), make(13, START)]
    solver = SeparableSolver(axes, [{2: -1.0}, {1: 1.0}], 0.0)
    rhs = np.random.default_rng(1).standard_normal((12, 13))
    solution = solver.solve(rhs)
    left = tau_error(axes, [{2: -1.0}, {1: 1.0}], 0.0, solution, rhs)
    # Galerkin along x, test functions of the order along t: the residual has no part along any of them.
    tested = axes[0].constrained.T @ left @ axes[1].test(1).T.toarray()
    assert np.abs(tested).max() < 1e-10 * np.abs(rhs).max()


@pytest.mark.parametrize("symbol", [{2: 1.0}, {1: 1.0}, {3: 0.1, 1: 1.0}], ids=["even", "odd", "dispersive"])
def test_periodic_axes(symbol):
    axes = [make(11, (), periodic=True), make(10, START)]
    sign = -1.0 if 2 in symbol else 1.0
    symbols = [{o: sign * v for o, v in symbol.items()}, {1: 1.0}]
    solver = SeparableSolver(axes, symbols, 0.5)
    assert solver.kinds == ("diagonal", "banded")
    exact = np.random.default_rng(3).standard_normal((11, axes[1].free)) * 0.1 ** np.arange(axes[1].free)
    exact = exact @ axes[1].constrained.T.toarray()
    rhs = tau_error(axes, symbols, 0.5, exact, 0.0)
    np.testing.assert_allclose(solver.solve(rhs), exact, atol=1e-9)


@pytest.mark.parametrize("last", [DIRICHLET, START], ids=["space", "time"])
def test_three_axes(last):
    axes = [make(8, DIRICHLET), make(9, NEUMANN), make(10, last)]
    symbols = [{2: -1.0}, {2: -0.7}, {2: -0.3} if last is DIRICHLET else {1: 1.0}]
    solver = SeparableSolver(axes, symbols, 0.9)
    rng = np.random.default_rng(4)
    vectors = [axis.constrained @ (rng.standard_normal(axis.free) * 0.05 ** np.arange(axis.free)) for axis in axes]
    exact = np.einsum("i,j,k->ijk", *vectors)
    rhs = tau_error(axes, symbols, 0.9, exact, 0.0)
    np.testing.assert_allclose(solver.solve(rhs), exact, atol=1e-8 * np.abs(exact).max())


def test_advection_in_two_directions():
    axes = [make(8, START), make(9, START), make(10, START)]
    symbols = [{1: 1.0}, {1: 2.0}, {1: 1.0}]
    solver = SeparableSolver(axes, symbols)
    assert sorted(solver.kinds) == ["banded", "triangular", "triangular"]
    rng = np.random.default_rng(4)
    vectors = [axis.constrained @ (rng.standard_normal(axis.free) * 0.05 ** np.arange(axis.free)) for axis in axes]
    exact = np.einsum("i,j,k->ijk", *vectors)
    rhs = tau_error(axes, symbols, 0.0, exact, 0.0)
    np.testing.assert_allclose(solver.solve(rhs), exact, atol=1e-8 * np.abs(exact).max())


def test_singular_and_resonant_operators_are_refused():
    axis = make(12, NEUMANN)
    with pytest.raises(InvalidDataError, match="singular"):
        SeparableSolver([axis, axis], [{2: 1.0}, {2: 1.0}])
    box = make(16, DIRICHLET, upper=1.0)
    with pytest.raises(InvalidDataError, match="singular"):
        SeparableSolver([box, box], [{2: 1.0}, {2: 1.0}], 2.0 * np.pi**2)
    near = SeparableSolver([box, box], [{2: 1.0}, {2: 1.0}], 2.0 * np.pi**2 * (1.0 + 1e-6))
    assert 1e-9 < near.gap < 1e-5
