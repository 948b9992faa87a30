"""The calculus of expressions against autograd, and the normal form against direct evaluation."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Jet
from gpkit.models import pde
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Noisy, Unknown, apply, coordinates, d, divergence, gradient
from gpkit.models.pde.evaluation import PlainFunction
from gpkit.models.pde.expressions import Expression
from gpkit.models.pde.gridded import Gridded
from gpkit.models.pde.normal import separate

BOX = Box(x=(0.2, 1.0), y=(0.0, 2.0))
POINTS = [torch.tensor(p, dtype=torch.float64) for p in ((0.3, 0.5, 0.9), (0.1, 1.2, 1.7))]


def field_values(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(2.0 * x + 0.3) * torch.exp(0.4 * y) + x * y**2


def derivative(function, orders: tuple[int, ...], points: list[Tensor]) -> Tensor:
    """By nested autograd, the oracle of everything here."""
    leaves = [p.clone().requires_grad_() for p in points]
    value = function(*leaves)
    for leaf, order in zip(leaves, orders, strict=True):
        for _ in range(order):
            if not value.requires_grad:
                return torch.zeros_like(leaf)
            (found,) = torch.autograd.grad(value.sum(), leaf, create_graph=True, allow_unused=True)
            value = torch.zeros_like(leaf) if found is None else found
    return value.detach()


def with_field(expression: Expression, points: list[Tensor] = POINTS) -> Tensor:
    """An expression with ``field_values`` in place of its field."""
    from gpkit.models.pde.evaluation import Remainder

    keys = tuple((j.field.name, j.orders) for j in expression.jets)
    values = [derivative(field_values, orders, points) for _, orders in keys]
    return Remainder(expression, BOX, keys=keys)(points, values, {}).detach()


@pytest.mark.parametrize("orders", [(1, 0), (0, 1), (2, 0), (1, 1), (2, 1)])
def test_derivatives_of_composed_expressions_match_autograd(orders: tuple[int, ...]) -> None:
    u = Field("u", BOX)
    x, y = coordinates(u)

    def direct(a: Tensor, b: Tensor) -> Tensor:
        v = field_values(a, b)
        return (
            torch.sin(a * v) * v**2 + torch.exp(-b) / (1.0 + v**2) + torch.log(2.0 + a) * torch.tanh(v) * torch.cos(b)
        )

    e = pde.sin(x * u) * u**2 + pde.exp(-y) / (1.0 + u**2) + pde.log(2.0 + x) * pde.tanh(u) * pde.cos(y)
    along = [part for name, order in zip("xy", orders, strict=True) if order for part in (name, order)]
    torch.testing.assert_close(with_field(d(e, *along)), derivative(direct, orders, POINTS), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["sin", "cos", "exp", "log", "tanh", "sqrt"])
def test_functions_of_expressions_are_functions_of_tensors_too(name: str) -> None:
    x = torch.linspace(0.1, 2.0, 5, dtype=torch.float64)
    assert torch.equal(getattr(pde, name)(x), getattr(torch, name)(x))
    assert not isinstance(getattr(pde, name)(2.0), Tensor)


def test_given_functions_are_differentiated_by_autograd() -> None:
    u = Field("u", BOX)

    def conductivity(x: Tensor, y: Tensor) -> Tensor:
        return 1.0 + x**2 * torch.sin(y)

    flux = divergence(conductivity * gradient(u))
    first = derivative(conductivity, (1, 0), POINTS) * derivative(field_values, (1, 0), POINTS)
    second = derivative(conductivity, (0, 1), POINTS) * derivative(field_values, (0, 1), POINTS)
    laplacian = derivative(field_values, (2, 0), POINTS) + derivative(field_values, (0, 2), POINTS)
    torch.testing.assert_close(with_field(flux), first + second + conductivity(*POINTS) * laplacian)


def test_functions_that_are_not_differentiable_are_refused_where_that_matters() -> None:
    u = Field("u", BOX)

    def tabulated(x: Tensor, y: Tensor) -> Tensor:
        return torch.from_numpy(np.sin(x.detach().numpy()))

    assert PDE(tabulated * pde.laplacian(u) == 1.0, Dirichlet(u, 0))  # only its values are needed
    with pytest.raises(InvalidDataError, match="does not keep gradients"):
        PDE(divergence(tabulated * gradient(u)) == 1.0, Dirichlet(u, 0))


def test_user_functions_have_partial_derivatives_even_where_arguments_share_a_field() -> None:
    u = Field("u", BOX)
    e = d(apply(lambda a, b: a**2 * torch.sin(b), u, u**2), "x")
    expected = derivative(lambda x, y: field_values(x, y) ** 2 * torch.sin(field_values(x, y) ** 2), (1, 0), POINTS)
    torch.testing.assert_close(with_field(e), expected)


def test_torch_and_numpy_mix_with_expressions_from_either_side() -> None:
    u = Field("u", BOX)
    values = field_values(*POINTS)
    cases = {
        "tensor times": (torch.tensor(2.0) * u, 2.0 * values),
        "numpy scalar plus": (np.float64(1.5) + u, 1.5 + values),
        "torch function": (torch.cos(u), torch.cos(values)),
        "subtraction": (3 - u, 3 - values),
        "division": (1 / u, 1 / values),
        "negation": (-u, -values),
        "power": (u**-2, values**-2),
    }
    for name, (expression, expected) in cases.items():
        torch.testing.assert_close(with_field(expression), expected, msg=name)


def test_operators_leave_time_out() -> None:
    v = Field("v", Box(x=(0, 1), t=(0, 1)))
    assert repr(pde.laplacian(v)) == "v_xx"
    assert repr(pde.dt(v, 2)) == "v_tt"
    assert len(gradient(v)) == 1
    x, t = coordinates(v)
    assert pde.laplacian(x**2 * t).jets == ()


polynomials = st.recursive(
    st.sampled_from(["u", "ux", "x", "two"]),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner),
    max_leaves=7,
)


@settings(max_examples=60, deadline=None)
@given(tree=polynomials)
def test_separation_changes_no_value(tree) -> None:
    u = Field("u", BOX)
    x, _ = coordinates(u)
    leaves = {"u": u, "ux": d(u, "x"), "x": x, "two": pde.expressions.Number(2.0)}

    def build(node) -> Expression:
        if isinstance(node, str):
            return leaves[node]
        sign, a, b = node
        left, right = build(a), build(b)
        return left + right if sign == "+" else left - right if sign == "-" else left * right

    e = build(tree)
    form = separate(e)
    total = with_field(form.free).expand(3).clone() if form.free is not None else torch.zeros(3)
    for jet, coefficient in form.linear.items():
        total = total + with_field(coefficient * jet)
    if form.nonlinear is not None:
        total = total + with_field(form.nonlinear)
        assert form.nonlinear.jets
    torch.testing.assert_close(total, with_field(e).expand(3), rtol=1e-9, atol=1e-9)
    assert not form.free.jets


def test_the_linear_part_of_a_polynomial_is_found() -> None:
    u = Field("u", BOX)
    form = PDE(pde.laplacian(u) + u * (u**2 - 1) == 1.0, Dirichlet(u, 0)).form.equations[0]
    coefficients = {t.jet: t.coefficient.constant for t in form.terms}
    assert coefficients == {Jet(0, (2, 0)): 1.0, Jet(0, (0, 2)): 1.0, Jet(0, (0, 0)): -1.0}
    assert form.jets == (Jet(0, (0, 0)),) and form.source.constant == 1.0
    state = {jet: torch.full((3,), 0.5) for jet in form.all_jets}
    assert torch.allclose(form.linearised(POINTS, state)[Jet(0, (0, 0))], torch.tensor(3 * 0.25 - 1.0))


def test_constants_fold_and_terms_move_to_the_source() -> None:
    u = Field("u", BOX)
    x, y = coordinates(u)
    form = PDE(2 * (pde.laplacian(u) + x) - 3 == 3 * u - 1, Dirichlet(u, 0)).form.equations[0]
    assert {t.coefficient.constant for t in form.terms} == {2.0, -3.0}
    torch.testing.assert_close(form.source.function(*POINTS), 2.0 - 2.0 * POINTS[0])
    cancelled = PDE(pde.laplacian(u) + u - u == 0, Dirichlet(u, 0)).form.equations[0]
    assert len(cancelled.terms) == 2


def test_unknowns_stay_symbols() -> None:
    u = Field("u", BOX)
    k = Unknown("k")
    form = PDE(k**2 * pde.laplacian(u) == 3 * k, Dirichlet(u, 0)).form
    assert set(form.unknowns) == {"k"}
    term = form.equations[0].terms[0]
    assert term.coefficient.unknowns == {"k"}
    at = {"k": torch.tensor(3.0)}
    assert float(term.coefficient(POINTS, at)) == 9.0
    assert form.equations[0].source.parametric is not None
    assert float(form.equations[0].source.parametric(POINTS, at)) == 9.0


def test_arrays_are_coefficients_through_splines() -> None:
    u = Field("u", BOX)
    axes = [torch.linspace(a, b, 41) for a, b in zip(BOX.lower, BOX.upper, strict=True)]
    values = field_values(*torch.meshgrid(*axes, indexing="ij"))
    form = PDE(values * pde.laplacian(u) == 1.0, Dirichlet(u, 0)).form.equations[0]
    found = form.terms[0].coefficient(POINTS, {})
    torch.testing.assert_close(found, field_values(*POINTS), rtol=1e-7, atol=1e-7)
    slope = PlainFunction(d(pde.expressions.convert(values), "x"), BOX)(*POINTS)
    torch.testing.assert_close(slope, derivative(field_values, (1, 0), POINTS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_splines_interpolate_few_points(count: int) -> None:
    axis = torch.linspace(0.0, 1.0, count)
    spline = Gridded.of(axis**1.0).spline(Box(x=(0, 1)))
    torch.testing.assert_close(spline([torch.tensor([0.37])], (0,)), torch.tensor([0.37]))


def test_functions_that_do_not_broadcast_work_on_open_meshes() -> None:
    u = Field("u", BOX)

    def masked(x: Tensor, y: Tensor) -> Tensor:
        out = torch.zeros(x.shape)
        out[x + y > 1.0] = 1.0
        return out + 1.0

    form = PDE(masked * pde.laplacian(u) == 1.0, Dirichlet(u, 0)).form.equations[0]
    axes = [torch.linspace(0.2, 1.0, 11), torch.linspace(0.0, 2.0, 12)]
    found = form.terms[0].coefficient([axes[0][:, None], axes[1][None, :]], {})
    torch.testing.assert_close(found, masked(*torch.meshgrid(*axes, indexing="ij")))


def test_functions_made_of_expressions_survive_pickling() -> None:
    u = Field("u", BOX)
    x, y = coordinates(u)
    function = PDE(pde.laplacian(u) == pde.sin(x) * y, Dirichlet(u, 0)).form.equations[0].source.function
    again = pickle.loads(pickle.dumps(function))
    torch.testing.assert_close(again(*POINTS), torch.sin(POINTS[0]) * POINTS[1])


def test_texts_read_as_they_were_written() -> None:
    u = Field("u", BOX)
    source = math.pi
    assert repr(pde.laplacian(u) + u * (u**2 - 1) == source) == "u_xx + u_yy + u*(u**2 - 1) = 3.141592653589793"
    assert repr(d(u, "x", 2, "y") - 2 * u) == "u_xxy - 2*u"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda u: d(u, "z"), "no axis 'z'"),
        (lambda u: d(u), "needs the name of an axis"),
        (lambda u: d(u, "x", 9), "from 0 to 8"),
        (lambda u: d(u, 2), "before 2"),
        (lambda u: u ** "a", "exponent"),
        (lambda u: u + "a", "cannot stand in an equation"),
        (lambda u: u + True, "truth value"),
        (lambda u: u * float("nan"), "must be finite"),
        (lambda u: u * torch.tensor([1.0, float("inf")]), "entry \\(1,\\) is inf"),
        (lambda u: u / 0, "not a finite real number"),
        (lambda u: Field("two words", u.box), "needs a name"),
        (lambda u: Field("v", (0, 1)), "needs a Box"),
        (lambda u: Box(), "one to three axes"),
        (lambda u: Box(x=(1, 0)), "from a smaller to a larger"),
        (lambda u: Box(x=(0, float("inf"))), "finite numbers"),
        (lambda u: Box(x=3), "two ends"),
        (lambda u: apply(3, u), "needs a function"),
        (lambda u: torch.sum(u, dim=0), "no keywords"),
        (lambda u: Noisy([1.0, 2.0], -1.0), "zero or more"),
        (lambda u: pde.dot((1.0, 2.0, 3.0), gradient(u)), "do not go together"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str) -> None:
    with pytest.raises(InvalidDataError, match=message):
        make(Field("u", BOX))
