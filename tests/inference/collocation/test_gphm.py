"""GP-HM against the published code's trajectory, finite differences and a plain port of its objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Condition, Data, Equation, Jet, Problem
from gpkit.inference.collocation.gphm import engine as gphm
from gpkit.inference.collocation.gphm.axes import AxisColumns, diagonal_sums, fold, toeplitz, unfold
from gpkit.inference.collocation.gphm.columns import MixtureColumns, lengthscales, log_inverse_lengths
from gpkit.inference.collocation.gphm.objective import GphmObjective
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope, mixture_derivatives
from tests.inference.collocation import problems
from tests.inference.collocation.problems import UNIT, box, face, term

PUBLISHED = {1: 0.9872, 2: 0.9751, 4: 0.9508, 7: 0.9142, 11: 0.8670, 17: 0.7989, 26: 0.7050, 40: 0.5795}
PUBLISHED_OBJECTIVE = {1: 9.651e9, 4: 8.671e9, 17: 5.392e9, 40: 2.366e9}


def test_the_published_trajectory_is_reproduced_digit_for_digit():
    case = problems.published()["P1"]
    errors = {}
    found = gphm.solve(
        case.problem,
        case.grid,
        iterations=41,
        highest_frequency=20.0,
        watch=lambda i, value, now: errors.update({i: case.error(now())}) if i in PUBLISHED else None,
    )
    assert {i: round(e, 4) for i, e in errors.items()} == PUBLISHED
    objective = found.diagnostics["objective"]
    for i, expected in PUBLISHED_OBJECTIVE.items():
        assert objective[i] == pytest.approx(expected, rel=6e-4)


@pytest.mark.parametrize("order", [0, 1])
def test_sums_along_diagonals_are_the_adjoint_of_the_toeplitz_matrix(order):
    generator = torch.Generator().manual_seed(0)
    column = torch.randn(7, generator=generator, dtype=torch.float64)
    matrix = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    left = (toeplitz(column, order) * matrix).sum()
    right = (column * diagonal_sums(matrix, order)).sum()
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize("order", [0, 1])
def test_gradients_of_blocks_come_back_to_the_column(n, order, generator):
    columns = torch.randn(2, n, generator=generator, dtype=torch.float64)
    columns[0, 0] += 5.0
    axis = AxisColumns(columns, 1.0)
    left, right = torch.randn(2, n, 3, generator=generator, dtype=torch.float64)
    axis.add_gradient(order, fold(left, 0), fold(right, 0), 0, 2.0)
    expected = torch.zeros_like(columns)
    expected[order] = diagonal_sums(2.0 * left @ right.T, order)
    expected[1, 0] = 0.0  # an odd function is zero there
    torch.testing.assert_close(axis.gradient(), expected)


@pytest.mark.parametrize("envelope", [GaussianEnvelope(), MaternEnvelope(2.5)])
@pytest.mark.parametrize("orders", [(0,), (0, 2), (0, 1, 3)])
def test_columns_and_their_adjoint_are_those_of_the_closed_forms(envelope, orders, generator):
    lags = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    kernel = [torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    kernel[2].data[0] = 0.0
    lengths = lengthscales(envelope, kernel[1])
    torch.testing.assert_close(log_inverse_lengths(envelope, lengths), kernel[1])
    expected = mixture_derivatives(envelope, lags, kernel[0].exp(), lengths, kernel[2], max(orders))
    columns = MixtureColumns(envelope, lags, [t.detach() for t in kernel], orders)
    torch.testing.assert_close(columns.values[list(orders)], expected.detach()[list(orders)])
    seeds = torch.zeros_like(expected)
    seeds[list(orders)] = torch.randn(len(orders), 5, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(expected, kernel, seeds)
    for found, wanted in zip(columns.gradient(seeds), gradients, strict=True):
        torch.testing.assert_close(found, wanted)


CASES = {
    "one axis": ("A2", (12,)),
    "two axes": ("A3", (6, 5)),
    "transport": ("V1", (5, 6)),
    "three axes": (None, (3, 4, 3)),
}


def oblique():
    """Derivatives along one, two and three axes, of a jet and of its square, and a coefficient that varies."""
    terms = (term(1.0, 2, 0, 0), term(0.5, 1, 1, 1), term(lambda x, y, z: x + y * z, 0, 2, 1), term(2.0, 0, 0, 0))
    u = lambda x, y, z: torch.sin(x + 2 * y - z)
    square = lambda x, j, p: j[0] ** 2 * j[1]
    equation = Equation(terms, Data(u), (Jet(0, (0, 1, 0)), Jet(0, (0, 0, 0))), square)
    slanted = Condition("robin", 1, 0, (term(1.0, 0, 1, 0), term(2.0, 0, 0, 0)), Data(u))
    return Problem(box(UNIT, UNIT, UNIT), ("u",), (equation,), (face(0, 0, u, 3), slanted))


@pytest.mark.parametrize(
    ("name", "envelope"),
    [(n, e) for n in CASES for e in ("student-t", "gaussian") if n != "three axes" or e == "gaussian"],
)
def test_gradients_are_those_of_the_objective(name, envelope):
    key, shape = CASES[name]
    problem = problems.published()[key].problem if key else oblique()
    axes = [torch.linspace(0.0, 1.0, n, dtype=torch.float64) for n in shape]
    objective = GphmObjective(problem, axes, envelope, 200.0, 1e-3)
    state = gphm.start(problem, shape, 3, [2.0] * len(shape))
    generator = torch.Generator().manual_seed(1)
    for t in state.tensors():
        t += 0.2 * torch.randn(t.shape, generator=generator, dtype=torch.float64)
    _, gradients = objective(state)
    for t, g in zip(state.tensors(), gradients, strict=True):
        assert g.shape == t.shape
        flat = t.view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 5)):
            kept, step = float(flat[i]), 1e-5 * max(1.0, abs(float(flat[i])))
            flat[i] = kept + step
            up, _ = objective(state)
            flat[i] = kept - step
            down, _ = objective(state)
            flat[i] = kept
            numeric = (up - down) / (2.0 * step)
            scale = float(g.abs().max())
            assert float(g.reshape(-1)[i]) == pytest.approx(numeric, rel=2e-4, abs=1e-5 * scale)


def test_a_second_process_takes_what_the_first_leaves():
    problem = problems.published()["P1"]
    found = gphm.solve(problem.problem, (40,), iterations=20, mixtures=4, change_point=0.5)
    assert len(found.diagnostics["objective"]) == 20
    alone = gphm.solve(problem.problem, (40,), iterations=10, mixtures=4)
    jet = Jet(0, (0,))
    points = torch.linspace(0, 6, 7, dtype=torch.float64)[:, None]
    assert not torch.allclose(found.mean(jet, points), alone.mean(jet, points))
    assert bool((found.variance(jet, points) > 0).all())


def test_what_the_method_cannot_do_is_refused():
    cases = problems.published()
    with pytest.raises(InvalidDataError, match="kernel"):
        gphm.solve(cases["P1"].problem, (20,), kernel="matern52")
    with pytest.raises(InvalidDataError, match="periodic"):
        gphm.solve(problems.others()["periodic"].problem, (10, 10))
    with pytest.raises(InvalidDataError, match="optimisers 'adam' and 'gauss-newton', got 'sgd'"):
        gphm.solve(cases["P1"].problem, (20,), optimiser="sgd")
    line = cases["P1"].problem
    uneven = Data(values=torch.zeros(20), axes=(torch.linspace(0, 1, 20) ** 2,))
    for given in (uneven, Data(values=torch.zeros(19), axes=(torch.linspace(0, 1, 19),))):
        wrong = replace(line, equations=(replace(line.equations[0], source=given),))
        with pytest.raises(InvalidDataError, match="gphm takes values at the points of its own equispaced grid"):
            gphm.solve(wrong, (20,))
    with pytest.raises(InvalidDataError, match="second process"):
        gphm.solve(cases["P1"].problem, (20,), optimiser="gauss-newton", change_point=0.5)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_even_and_odd_parts_are_orthogonal_coordinates(n):
    eye = torch.eye(n, dtype=torch.float64)
    folded = fold(eye, 0)
    torch.testing.assert_close(folded @ folded.T, eye)
    torch.testing.assert_close(unfold(folded, 0), eye)


@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_of_an_axis_are_its_matrices(n, order, transposed):
    lag = torch.linspace(0, 1, n, dtype=torch.float64)
    columns = torch.stack([torch.exp(-lag), -lag.sin(), lag.cos() - 2, lag**3 - lag])
    axis = AxisColumns(columns, 1e-3)
    dense = toeplitz(columns[order], order)
    torch.testing.assert_close(axis.matrix(order), dense)
    covariance = toeplitz(columns[0], 0) + 1e-3 * torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(axis.inverse, torch.linalg.inv(covariance))
    assert axis.half_log_det == pytest.approx(0.5 * float(torch.linalg.slogdet(covariance)[1]))
    x = torch.randn(3, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = x @ (dense if transposed else dense.T)
    found = unfold(axis.apply(order, fold(x, 1), 1, transposed), 1)
    torch.testing.assert_close(found, expected)
