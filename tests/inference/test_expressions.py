"""Recorded expressions against torch, which runs the same code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpkit.inference.expressions import Expression, ops, record
from gpkit.recursions.tape import Code

UNARY = {
    "sqrt": (0.1, 4.0),
    "exp": (-30.0, 30.0),
    "log": (1e-3, 50.0),
    "log1p": (-0.9, 50.0),
    "expm1": (-3.0, 3.0),
    "sin": (-9.0, 9.0),
    "cos": (-9.0, 9.0),
    "tan": (-1.0, 1.0),
    "atan": (-9.0, 9.0),
    "sinh": (-3.0, 3.0),
    "cosh": (-3.0, 3.0),
    "tanh": (-3.0, 3.0),
    "sigmoid": (-50.0, 50.0),
    "abs": (-2.0, 2.0),
    "square": (-2.0, 2.0),
    "reciprocal": (0.2, 2.0),
    "rsqrt": (0.2, 2.0),
}
BINARY = {
    "add": lambda o, a, b: a + b,
    "radd": lambda o, a, b: 1.5 + a * b,
    "sub": lambda o, a, b: a - b,
    "rsub": lambda o, a, b: 1.5 - a * b,
    "mul": lambda o, a, b: a * b,
    "rmul": lambda o, a, b: 1.5 * a * b,
    "div": lambda o, a, b: a / b,
    "rdiv": lambda o, a, b: 1.5 / (a * b),
    "neg": lambda o, a, b: -a + +b,
    "pow": lambda o, a, b: a**b,
    "pow 3": lambda o, a, b: a**3 + b**-2.5,
    "pow 2": lambda o, a, b: a**2 + b**0.5 + a**-1 + b**1,
    "rpow": lambda o, a, b: 2.0**a + b,
    "maximum": lambda o, a, b: o.maximum(a, b),
    "minimum": lambda o, a, b: o.minimum(a, b),
}


def against_torch(function, points, ops_torch=torch):
    """Values and gradients of the recorded and of torch's evaluation."""
    points = np.asarray(points, dtype=float)
    inputs = Expression.inputs(points.shape[1])
    tape = record([function(ops, *inputs)], points.shape[1])
    values, gradient = tape.evaluate(points, np.ones((len(points), 1)))
    z = torch.tensor(points, requires_grad=True)
    expected = function(ops_torch, *z.unbind(1))
    (expected_gradient,) = torch.autograd.grad(expected.sum(), z)
    np.testing.assert_allclose(values[:, 0], expected.detach(), rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", UNARY)
def test_unary(name, rng):
    low, high = UNARY[name]
    against_torch(lambda o, x: getattr(o, name)(x), rng.uniform(low, high, (20, 1)))


def test_every_code_is_tested():
    named = {code.name.lower() for code in Code}
    arithmetic = {"add", "subtract", "multiply", "divide", "power", "negate", "maximum", "minimum", "softplus"}
    assert named == arithmetic | (set(UNARY) & named)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name, rng):
    against_torch(BINARY[name], rng.uniform(0.3, 2.0, (20, 2)))


def test_softplus_has_no_overflow_and_no_cancellation():
    points = np.array([[-800.0], [-40.0], [-1.0], [0.0], [2.0], [40.0], [800.0]])
    tape = record([ops.softplus(Expression.inputs(1)[0])], 1)
    values, gradient = tape.evaluate(points, np.ones((7, 1)))
    np.testing.assert_allclose(values[:, 0], np.logaddexp(0.0, points[:, 0]), rtol=1e-15)
    np.testing.assert_allclose(gradient[:, 0], torch.sigmoid(torch.tensor(points[:, 0])), rtol=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_random_programs_agree_with_torch(data):
    """Chains of operations on a growing pool of numbers, all of them bounded."""
    steps = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(["add", "mul", "div", "tanh", "sin", "exp"]), st.integers(0, 99), st.integers(0, 99)
            ),
            min_size=1,
            max_size=25,
        )
    )

    def function(o, *inputs):
        pool = list(inputs)
        for name, i, j in steps:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            pool.append(
                {
                    "add": lambda a, b: a + 0.5 * b,
                    "mul": lambda a, b: a * b,
                    "div": lambda a, b: a / (2.0 + b * b),
                    "tanh": lambda a, b: o.tanh(a),
                    "sin": lambda a, b: o.sin(a - b),
                    "exp": lambda a, b: o.exp(-a * a),
                }[name](a, b)
            )
        return o.tanh(sum(o.tanh(x) for x in pool))

    points = np.array(data.draw(st.lists(st.tuples(*[st.floats(-1.5, 1.5)] * 3), min_size=1, max_size=3)))
    inputs = Expression.inputs(3)
    values, gradient = record([function(ops, *inputs)], 3).evaluate(points, np.ones((len(points), 1)))
    z = torch.tensor(points, requires_grad=True)
    expected = function(torch, *z.unbind(1))
    (slope,) = torch.autograd.grad(expected.sum(), z)
    np.testing.assert_allclose(values[:, 0], expected.detach(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-7, atol=1e-10)


def test_equal_subexpressions_are_recorded_once_and_unused_ones_never():
    a, b = Expression.inputs(2)
    ops.exp(a * 3.0)
    tape = record([ops.sqrt(a + b) + 1.0, ops.sqrt(a + b) * 2.0, 2.0], 2)
    assert tape.codes.size // 3 == 4
    assert sorted(tape.constants) == [1.0, 2.0]
    assert tape.forward([[1.0, 3.0]])[0].tolist() == [[3.0, 4.0, 2.0]]


def test_constants_are_folded():
    (a,) = Expression.inputs(1)
    half = Expression.constant(0.25) ** 0.5
    assert float(half) == 0.5
    assert record([ops.log(ops.exp(a)) + 0.0], 1).codes.size == 0
    assert record([a * 1.0 + 0.0, a / 1.0 - 0.0, ops.lgamma(4.0)], 1).codes.size == 0
    assert float(ops.lgamma(4.0)) == pytest.approx(np.log(6.0), rel=1e-15)


def test_numpy_and_torch_numbers_are_constants():
    (a,) = Expression.inputs(1)
    tape = record([np.float64(2.0) * a, a * torch.tensor(3.0)], 1)
    assert tape.forward([[2.0]])[0].tolist() == [[4.0, 6.0]]


def test_a_gradient_that_is_not_asked_for_does_not_spoil_the_others():
    (a,) = Expression.inputs(1)
    tape = record([ops.log(a), a * 2.0], 1)
    _, gradient = tape.evaluate([[0.0]], [[0.0, 1.0]])
    assert gradient.tolist() == [[2.0]]


def test_values_cannot_be_branched_on():
    a, b = Expression.inputs(2)
    with pytest.raises(TypeError, match="without branches"):
        _ = 1 if a > b else 2
    with pytest.raises(TypeError, match="without branches"):
        bool(a)
    with pytest.raises(TypeError, match="not a float"):
        float(a + 1.0)
    with pytest.raises(TypeError, match="takes 1 argument"):
        ops.exp(a, b)
    with pytest.raises(IndexError, match="input 1"):
        record([b], 1)


def test_expressions_print_what_they_are():
    a, b = Expression.inputs(2)
    assert repr(ops.exp(a) - 2.0 * b) == "subtract(exp(z[0]), multiply(2.0, z[1]))"
