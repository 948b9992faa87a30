"""Fields found in few functions, and densities as polynomials: they are those of all functions, or are not used."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from gpkit.inference.collocation.inverse.engine import InverseDensity, find_mode
from gpkit.inference.collocation.inverse.fields import EliminatedFields
from gpkit.inference.collocation.inverse.reduced import ReducedFields
from gpkit.inference.collocation.inverse.table import Table
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Initial, Observe, Unknown, d, dt, exp, laplacian, sin

WIDE = torch.distributions.LogNormal(torch.tensor(-1.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
STRIP = Box(x=(0, 1), t=(0, 0.5))


def rod(unknowns: int, cubic: bool = False, sizes: tuple[int, int] = (10, 9), noise: float = 0.05) -> InverseDensity:
    """One to three unknowns of a heated rod: diffusivity, drift, source; with a reaction it is not linear."""
    u, rng = Field("u", STRIP), np.random.default_rng(2)
    k, c, s = (Unknown(name, prior=WIDE) for name in "kcs")
    left = dt(u) - k * laplacian(u)
    left = left + c * d(u, "x") if unknowns > 1 else left
    left = left - s * sin(3 * u) if cubic else left
    right = s * (lambda x, t: torch.exp(-x)) if unknowns > 2 and not cubic else 0.0
    at = rng.uniform(size=(15, 2)) * [1.0, 0.5]
    y = np.exp(-0.3 * np.pi**2 * at[:, 1]) * np.sin(np.pi * at[:, 0]) + noise * rng.normal(size=15)
    start = Initial(u, "t=0", lambda x, t: torch.sin(math.pi * x))
    problem = PDE(left == right, [start, Dirichlet(u, 0), Observe(u, at, y, noise)])
    return InverseDensity(EliminatedFields(problem.form, sizes))


@pytest.mark.parametrize(("unknowns", "cubic"), [(1, False), (3, False), (3, True)])
def test_few_functions_give_what_all_of_them_give(unknowns: int, cubic: bool) -> None:
    full = rod(unknowns, cubic, (14, 12))
    fast, rng = full.reduced(), np.random.default_rng(0)
    for _ in range(20):
        z = full.start() + 0.1 * rng.normal(size=full.dimension)
        expected, found = full.evaluate(z), fast.evaluate(z, curved=False)
        assert found[0] == pytest.approx(expected[0], abs=1e-2)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-2 * max(1.0, float(np.abs(expected[1]).max())))
        np.testing.assert_allclose(found[3].coefficients, expected[3].coefficients, atol=1e-5)
    counted = fast.solved
    assert counted["reduced"] >= 8 and counted["in all functions"] >= 2


def test_the_error_of_a_prediction_is_known_before_it_is_computed() -> None:
    """The estimate bounds the truth, to within a factor that is not large, at unknowns where nothing was solved."""
    full = rod(2)
    (rows,) = full._observed.values()
    readings = rows / full._noise[:, None]
    fields = ReducedFields(full.model, readings)
    fields.solve(full.natural(full.start()), np.zeros(0))
    for shift in (0.3, 0.8, -0.5):
        theta = full.natural(full.start() + shift)
        state = full.model.solve(theta, np.zeros(0), None, fields._system)
        off = np.abs(readings @ (state.coefficients - full.model.solve(theta, np.zeros(0)).coefficients)).max()
        assert off > 1e-4  # the span of one solution is not enough
        assert 0.9 * off < fields.error(state, theta, np.zeros(0)) < 100.0 * off


def test_a_span_that_grows_too_large_is_given_up() -> None:
    full = rod(3)
    fast, rng = full.reduced(), np.random.default_rng(1)
    for _ in range(25):
        z = full.start() + 3.0 * rng.normal(size=3)
        assert fast.evaluate(z, curved=False)[0] == pytest.approx(full.evaluate(z)[0], rel=1e-6, abs=1e-3)
    assert fast.solved["in all functions"] > 8


@pytest.mark.parametrize("unknowns", [1, 2])
def test_tables_give_the_density_and_its_gradient(unknowns: int) -> None:
    density = rod(unknowns, sizes=(7, 6), noise=0.01)
    mode = find_mode(density, starts=1)
    factor = np.linalg.cholesky(mode.covariance)
    table = Table.around(density.reduced(), mode.z, factor)
    assert table is not None and float(table.upper.min()) >= 2.5
    for u in np.random.default_rng(0).uniform(table.lower, table.upper, size=(6, unknowns)):
        value, gradient, *_ = density.evaluate(mode.z + factor @ u)
        known = table(u)
        assert known is not None and known[0] == pytest.approx(value, abs=1e-3)
        np.testing.assert_allclose(known[1], factor.T @ gradient, atol=2e-3 * max(1.0, float(np.abs(gradient).max())))
    assert table(1.01 * table.upper) is None
    corner = table(table.upper)
    assert corner is not None and np.isfinite(corner[1]).all()
    value = density.evaluate(mode.z + factor @ table.upper)[0]
    assert corner[0] == pytest.approx(value, abs=1e-2)


def test_what_no_polynomial_follows_is_not_tabulated() -> None:
    """A reading that jumps: the last coefficients do not fall, whatever the width."""
    density = rod(1)

    jumping = copy.copy(density)
    jumping.misfits = lambda z: np.append(np.sign(z - 0.123), 0.5 * z @ z)  # type: ignore[method-assign]
    assert Table.around(jumping, np.zeros(1), np.eye(1)) is None
    assert Table.around(density, np.zeros(3), np.eye(3)) is None  # more unknowns than are tabulated


def test_a_field_between_equations_is_eliminated_with_them() -> None:
    """Two coupled fields and a free coefficient: spans hold both of the fields."""
    u, v, q = Field("u", STRIP), Field("v", STRIP), Field("q", STRIP, amplitude=0.3, lengthscale=0.8)
    k = Unknown("k", prior=WIDE)
    at = np.random.default_rng(0).uniform(size=(8, 2)) * [1.0, 0.5]
    conditions = [Initial(f, "t=0", lambda x, t: torch.sin(math.pi * x)) for f in (u, v)]
    conditions += [Dirichlet(f, 0) for f in (u, v)]
    problem = PDE(
        [dt(u) == exp(q) * laplacian(u) + v, dt(v) == k * laplacian(v) - u],
        [*conditions, Observe(u, at, np.zeros(8), 0.1), Observe(v, at, np.zeros(8), 0.1)],
    )
    full = InverseDensity(EliminatedFields(problem.form, (8, 7)))
    fast, rng = full.reduced(), np.random.default_rng(3)
    z = np.zeros(full.dimension)
    for _ in range(6):
        z = full.start() + 0.01 * rng.normal(size=full.dimension)
        expected, found = full.evaluate(z), fast.evaluate(z, curved=False)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-3 * float(np.abs(expected[1]).max()))
