"""Problems that are not well posed are refused with a sentence; those that are well posed are not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.models.pde import (
    PDE,
    Box,
    Dirichlet,
    Field,
    Initial,
    Neumann,
    Noisy,
    Observe,
    Periodic,
    Robin,
    apply,
    biharmonic,
    d,
    divergence,
    dt,
    gradient,
    laplacian,
)

SQUARE = Box(x=(0, 1), y=(0, 1))
SPACETIME = Box(x=(0, 1), t=(0, 1))


LINE = Field("u", Box(x=(0, 1)))
PLANE, OTHER_PLANE = Field("u", SQUARE), Field("u", SQUARE)
MOVING, MOVING_TOO = Field("u", SPACETIME), Field("v", SPACETIME)
V_PLANE, V_WIDE = Field("v", SQUARE), Field("v", Box(x=(0, 2), y=(0, 1)))


def sine(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return torch.sin(math.pi * x)


ACCEPTED = {
    "Poisson": lambda u=PLANE: PDE(laplacian(u) == 1, Dirichlet(u, 0)),
    "Poisson, mixed": lambda u=PLANE: PDE(
        laplacian(u) == 1,
        [Neumann(u.on("x=0"), 0), Robin(u.on("x=1"), 1, 1, 0), Dirichlet(u.on("y=0"), 0), Dirichlet(u.on("y=1"), 0)],
    ),
    "periodic Helmholtz": lambda u=PLANE: PDE(laplacian(u) - u == 1, Periodic("x", "y")),
    "Neumann with gauge": lambda u=PLANE: PDE(laplacian(u) == 0, [Neumann(u, 0), Observe(u, [[0.0, 0.0]], [0.0], 0)]),
    "heat": lambda u=MOVING: PDE(dt(u) == laplacian(u), [Initial(u, "t=0", sine), Dirichlet(u, 0)]),
    "backward heat, backwards": lambda u=MOVING: PDE(
        dt(u) == -laplacian(u), [Dirichlet(u.on("t=1"), 0), Dirichlet(u.on("x=0"), 0), Dirichlet(u.on("x=1"), 0)]
    ),
    "wave": lambda u=MOVING: PDE(dt(u, 2) == laplacian(u), [Initial(u, "t=0", sine, velocity=0), Dirichlet(u, 0)]),
    "Burgers": lambda u=MOVING: PDE(
        dt(u) + u * d(u, "x") == 0.01 * laplacian(u), [Initial(u, "t=0", sine), Dirichlet(u, 0)]
    ),
    "advection": lambda u=MOVING: PDE(dt(u) + 3 * d(u, "x") == 0, [Initial(u, "t=0", 0), Dirichlet(u.on("x=0"), 0)]),
    "advection to the left": lambda u=MOVING: PDE(
        dt(u) - 3 * d(u, "x") == 0, [Initial(u, "t=0", 0), Dirichlet(u.on("x=1"), 0)]
    ),
    "flow that turns round": lambda u=MOVING: PDE(
        dt(u) + (lambda x, t: 0.5 - x) * d(u, "x") == 0, [Initial(u, "t=0", 0), Dirichlet(u, 0)]
    ),
    "advection on a ring": lambda u=MOVING: PDE(dt(u) + d(u, "x") == 0, [Initial(u, "t=0", 0), Periodic("x")]),
    "clamped beam": lambda u=LINE: PDE(d(u, "x", 4) == 1, [Dirichlet(u, 0), Neumann(u, 0)]),
    "hinged beam": lambda u=LINE: PDE(d(u, "x", 4) == 1, [Dirichlet(u, 0), Dirichlet(d(u, "x", 2), 0)]),
    "condition written as an equation": lambda u=LINE: PDE(
        d(u, "x", 2) == 1, [u.on("x=0") == 0, (u + 2 * d(u, "x")).on("x=1") == 3]
    ),
    "plate": lambda u=PLANE: PDE(biharmonic(u) == 1, [Dirichlet(u, 0), Neumann(u, 0)]),
    "initial value problem": lambda u=LINE: PDE(d(u, "x", 2) + u == 0, [Initial(u, "x=0", 1, velocity=0)]),
    "wave as a system": lambda u=MOVING, v=MOVING_TOO: PDE(
        [dt(u) - v == 0, dt(v) == laplacian(u)], [Initial(u, "t=0", sine), Initial(v, "t=0", 0), Dirichlet(u, 0)]
    ),
    "observations in place of conditions": lambda u=LINE: PDE(
        d(u, "x", 2) == 1, Observe(u, [0.1, 0.5], [0.0, 1.0], 0.1)
    ),
    "coefficient that vanishes on the boundary": lambda u=LINE: PDE(
        (lambda x: x) * d(u, "x", 2) + d(u, "x") == 1, [Dirichlet(u, 0)]
    ),
    "noisy data that disagree at corners": lambda u=PLANE: PDE(
        laplacian(u) == 0, [Dirichlet(u.on("x=0"), Noisy(np.ones(9), 0.1)), Dirichlet(u.on("x=1"), 0)]
        + [Dirichlet(u.on("y=0"), 0), Dirichlet(u.on("y=1"), 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_well_posed_problems_are_accepted(name: str) -> None:
    assert "condition" in repr(ACCEPTED[name]())


def nan_source(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0.5, float("nan"), x)


REFUSED = {
    "no data": (lambda u=PLANE: PDE(laplacian(u) == 1), "no boundary data"),
    "too few": (lambda u=PLANE: PDE(laplacian(u) == 1, Dirichlet(u.on("x=0"), 0)), "order 2 along x, which needs 2"),
    "one axis without": (
        lambda u=PLANE: PDE(laplacian(u) == 1, [Dirichlet(u.on("x=0"), 0), Dirichlet(u.on("x=1"), 0)]),
        "order 2 along y, which needs 2 conditions .* there are 0",
    ),
    "too many": (lambda u=PLANE: PDE(laplacian(u) == 1, [Dirichlet(u, 0), Neumann(u, 0)]), "there are 4"),
    "given twice": (
        lambda u=PLANE: PDE(laplacian(u) == 1, [Dirichlet(u, 0), u.on("x=0") == 0]),
        "given twice on x=0",
    ),
    "all sides of advection": (
        lambda u=MOVING: PDE(dt(u) + d(u, "x") == 0, Dirichlet(u, lambda x, t: torch.sin(x - t))),
        "leave that on t=1 out",
    ),
    "outflow": (
        lambda u=MOVING: PDE(dt(u) + d(u, "x") == 0, [Initial(u, "t=0", 0), Dirichlet(u, 0)]),
        "x=1 is where the solution flows out",
    ),
    "no inflow": (
        lambda u=MOVING: PDE(dt(u) + d(u, "x") == 0, [Initial(u, "t=0", 0)]),
        "x=0 is where the solution flows in",
    ),
    "backward heat": (
        lambda u=MOVING: PDE(dt(u) == -laplacian(u), [Initial(u, "t=0", sine), Dirichlet(u, 0)]),
        "runs backwards from t=0",
    ),
    "wave without velocity": (
        lambda u=MOVING: PDE(dt(u, 2) == laplacian(u), [Initial(u, "t=0", sine), Dirichlet(u, 0)]),
        "order 2 along t, which needs 2",
    ),
    "Cauchy data of Laplace": (
        lambda u=PLANE: PDE(
            laplacian(u) == 0,
            [Dirichlet(u.on("x=0"), 0), Dirichlet(u.on("x=1"), 0), Initial(u, "y=0", 0, velocity=sine)],
        ),
        "both conditions along y are on y=0",
    ),
    "Neumann without gauge": (lambda u=PLANE: PDE(laplacian(u) == 0, Neumann(u, 0)), "up to a constant"),
    "periodic without gauge": (lambda u=PLANE: PDE(laplacian(u) == 0, Periodic("x", "y")), "up to a constant"),
    "system with too many": (
        lambda u=MOVING, v=MOVING_TOO: PDE(
            [dt(u) == d(v, "x"), dt(v) == d(u, "x")],
            [Initial(u, "t=0", 0), Initial(v, "t=0", 0), Dirichlet(u, 0), Dirichlet(v, 0)],
        ),
        "together of order 2 along x, which allows 2",
    ),
    "more equations than fields": (
        lambda u=LINE: PDE([d(u, "x", 2) == 1, d(u, "x") == 1], Dirichlet(u, 0)),
        "2 equations for 1 fields",
    ),
    "corner": (
        lambda u=PLANE: PDE(
            laplacian(u) == 0, [Dirichlet(u.on("x=0"), 1.0)] + [Dirichlet(u.on(f), 0) for f in ("x=1", "y=0", "y=1")]
        ),
        "disagree at the corner x=0, y=0: 1 and 0",
    ),
    "corner with the initial values": (
        lambda u=MOVING: PDE(dt(u) == laplacian(u), [Initial(u, "t=0", 1.0), Dirichlet(u, 0)]),
        "disagree at the corner x=0, t=0",
    ),
    "vanishing coefficient": (
        lambda u=LINE: PDE((lambda x: x - 0.4) * d(u, "x", 2) == 1, Dirichlet(u, 0)),
        "coefficient of u_xx vanishes inside the box, near x=0.4",
    ),
    "vanishing conductivity": (
        lambda u=PLANE: PDE(divergence((lambda x, y: torch.sin(7 * x)) * gradient(u)) == 1, Dirichlet(u, 0)),
        "vanishes inside",
    ),
    "condition on a periodic axis": (
        lambda u=PLANE: PDE(laplacian(u) - u == 0, [Periodic("x"), Dirichlet(u.on("x=0"), 0)]),
        "x is periodic",
    ),
    "no such axis": (lambda u=PLANE: PDE(laplacian(u) == 0, Dirichlet(u.on("z=0"), 0)), "no axis 'z'"),
    "no such face": (lambda u=PLANE: PDE(laplacian(u) == 0, Dirichlet(u.on("x=0.5"), 0)), "x ends at 0 and 1"),
    "face that is no face": (lambda u=PLANE: u.on("x"), "named like 'x=0'"),
    "initial at the end": (
        lambda u=MOVING: PDE(dt(u) == laplacian(u), [Initial(u, "t=1", 0), Dirichlet(u, 0)]),
        "where an axis begins",
    ),
    "text as a source": (lambda u=PLANE: PDE(laplacian(u) == "hello", Dirichlet(u, 0)), "cannot stand"),
    "NaN": (lambda u=PLANE: PDE(laplacian(u) == nan_source, Dirichlet(u, 0)), "the source is nan at"),
    "wrong arity": (lambda u=PLANE: PDE(laplacian(u) == (lambda x: x), Dirichlet(u, 0)), "the source failed"),
    "wrong shape": (
        lambda u=PLANE: PDE(laplacian(u) == (lambda x, y: torch.ones(3)), Dirichlet(u, 0)),
        "returned shape \\(3,\\)",
    ),
    "NaN in the boundary values": (
        lambda u=PLANE: PDE(laplacian(u) == 0, Dirichlet(u, lambda x, y: torch.sqrt(x - 2))),
        "the dirichlet condition on x=0 is nan",
    ),
    "array of the wrong dimension": (lambda u=PLANE: PDE(laplacian(u) == np.ones(9), Dirichlet(u, 0)), "\\(9,\\)"),
    "array with NaN": (
        lambda u=LINE: PDE(d(u, "x", 2) == np.array([1.0, np.nan, 2.0]), Dirichlet(u, 0)),
        "entry \\(1,\\) is nan",
    ),
    "nonlinearity that is not pointwise": (
        lambda u=PLANE: PDE(laplacian(u) + apply(lambda v: v[:3], u) == 0, Dirichlet(u, 0)),
        "pointwise",
    ),
    "nonlinear condition": (lambda u=LINE: PDE(d(u, "x", 2) == 1, Dirichlet(u**2, 0)), "must be linear"),
    "two boxes": (
        lambda u=PLANE, v=V_WIDE: PDE([laplacian(u) == v, laplacian(v) == u], []),
        "same box",
    ),
    "two fields of one name": (
        lambda u=PLANE, v=OTHER_PLANE: PDE([laplacian(u) == v, laplacian(v) == u], []),
        "two different fields are called 'u'",
    ),
    "field of no equation in a condition": (
        lambda u=PLANE, v=V_PLANE: PDE(laplacian(u) == 1, [Dirichlet(u, 0), v.on("x=0") == 0]),
        "in no equation",
    ),
    "not an equation": (lambda u=PLANE: PDE(laplacian(u), Dirichlet(u, 0)), "PDE needs an equation"),
    "not a condition": (lambda u=PLANE: PDE(laplacian(u) == 1, [3.0]), "float is not a condition"),
    "no field": (lambda u=PLANE: PDE(u - u == 1, Dirichlet(u, 0)), "holds no field"),
    "observation outside": (
        lambda u=LINE: PDE(d(u, "x", 2) == 1, Observe(u, [0.5, 2.0], [0.0, 1.0], 0.1)),
        "observation 1 lies outside the box, at \\(2\\)",
    ),
    "observations of the wrong shape": (
        lambda u=PLANE: PDE(laplacian(u) == 1, [Dirichlet(u, 0), Observe(u, [0.5, 0.2], [0.0, 1.0], 0.1)]),
        "shape \\(2, 2\\)",
    ),
    "negative noise": (lambda u=LINE: Observe(u, [0.5], [0.0], -0.1), "zero or more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_ill_posed_problems_are_refused(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(InvalidDataError, match=message) as refusal:
        build()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (1, "grid of 1 point along x is too small"),
        ((3, 3), "too small for derivatives of order 2"),
        ((20,), "2 axes needs 2 whole numbers"),
        ("many", "whole number"),
        ((20, 20.5), "whole numbers"),
        ((10**6, 10**6), "GiB"),
    ],
)
def test_grids_that_cannot_be(grid, message: str) -> None:
    u = PLANE
    with pytest.raises(InvalidDataError, match=message):
        PDE(laplacian(u) == 1, Dirichlet(u, 0)).solve(grid)


def test_methods_and_parameters_that_are_not_there() -> None:
    u = PLANE
    problem = PDE(laplacian(u) == 1, Dirichlet(u, 0))
    with pytest.raises(InvalidDataError, match="no method 'finite'"):
        problem.solve(20, method="finite")
    with pytest.raises(InvalidDataError, match="no unknown 'D'"):
        problem.solve(20, parameters={"D": 1.0})


@pytest.mark.parametrize("size", [1e74, 1e-74])
def test_data_of_any_size_whose_squares_exist_are_solved(size):
    """Warnings are errors here: nothing overflows on the way."""
    u, x = Field("u", Box(x=(0, 1))), torch.linspace(0, 1, 40, dtype=torch.float64)
    noisy = Noisy(size * torch.sin(5 * x), 0.1 * size)
    solution = PDE(d(u, "x", 2) == noisy, [Dirichlet(u, 0.0)]).solve(40, method="spectral", progress=False)
    expected = (math.sin(5.0) * 0.4 - math.sin(2.0)) / 25.0
    assert float(solution.mean([[0.4]])) / size == pytest.approx(expected, abs=0.01)


def test_data_beyond_that_are_refused_with_the_place_and_a_remedy():
    u = Field("u", Box(x=(0, 1)))
    for source in (lambda x: 1e150 * torch.sin(5 * x), np.full(40, 1e150)):
        with pytest.raises(InvalidDataError, match="squares .* other units"):
            PDE(d(u, "x", 2) == source, [Dirichlet(u, 0.0)]).solve(40, progress=False)
    with pytest.raises(InvalidDataError, match=r"entry \(0,\) .* other units"):
        Noisy(np.full(40, -1e150), 1e149)
