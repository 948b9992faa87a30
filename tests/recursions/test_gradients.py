"""Every derivative: parameters, values, noise, times and weights, against three kinds of oracle."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from gpkit.recursions.series import evidence, log_likelihood
from tests import oracles
from tests.recursions.cases import CASES, FEW, NAMES, close, make


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 3, 25, 120])
def test_all_derivatives_match_the_dense_complex_step(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=11)
    dense = oracles.evidence(structure, params, data.times, data.values, data.noise)
    found = evidence(structure, params, data.times, data.values, data.noise)
    assert found.failed.tolist() == [-1]
    close(found.alpha[0], dense.alpha, 1e-12, "alpha")
    close(found.kappa[0], dense.kappa, 1e-12, "kappa")
    close(found.params[0] * params, dense.params * params, 1e-11, "parameters")
    close(found.times[0], dense.times, 1e-11, "times")


@pytest.mark.parametrize("name", NAMES)
def test_parameter_derivatives_match_finite_differences(name: str) -> None:
    structure, params = CASES[name]
    data = make(60, seed=12)
    found = evidence(structure, params, data.times, data.values, data.noise)
    for k, at in enumerate(params):

        def value(x: float, k: int = k) -> float:
            moved = [*params[:k], x, *params[k + 1 :]]
            return float(log_likelihood(structure, moved, data.times, data.values, data.noise)[0])

        # Not across Q = 1/2 by chance: the step is relative, and crossing it is harmless (the function is smooth).
        expected = oracles.finite_difference(value, at, 1e-2 * abs(at))
        assert found.params[0, k] == pytest.approx(expected, rel=1e-6, abs=1e-6), f"parameter {k}"


@pytest.mark.parametrize("name", FEW)
def test_derivatives_with_respect_to_data_match_finite_differences(name: str) -> None:
    structure, params = CASES[name]
    data = make(24, seed=13)
    found = evidence(structure, params, data.times, data.values, data.noise)
    noise_bar = 0.5 * (found.alpha[0] ** 2 - found.kappa[0])
    arrays = {"values": data.values, "noise": data.noise, "times": data.times}
    expected_all = {"values": -found.alpha[0], "noise": noise_bar, "times": found.times[0]}
    tied = {11, 12}  # moving one of two equal times would change their order
    assert data.times[11] == data.times[12]
    for what, array in arrays.items():
        for k in range(24):
            if what == "times" and k in tied:
                continue
            gap = np.min(np.abs(np.delete(data.times, k) - data.times[k]))
            step = min(1e-3, 0.3 * gap) if what == "times" else 2e-3

            def value(x: float, what: str = what, array: np.ndarray = array, k: int = k) -> float:
                moved = {**arrays, what: np.concatenate([array[:k], [x], array[k + 1 :]])}
                return float(log_likelihood(structure, params, moved["times"], moved["values"], moved["noise"])[0])

            expected = oracles.finite_difference(value, float(array[k]), step)
            assert expected_all[what][k] == pytest.approx(expected, rel=3e-6, abs=3e-6), f"{what} {k}"


@pytest.mark.parametrize("name", FEW)
def test_parameter_derivatives_match_high_precision(name: str) -> None:
    structure, params = CASES[name]
    data = make(8, seed=14)
    found = evidence(structure, params, data.times, data.values, data.noise)
    with mpmath.workdps(45):
        for k, at in enumerate(params):

            def value(x: object, k: int = k) -> object:
                moved = [*params[:k], x, *params[k + 1 :]]
                return oracles.mp_log_likelihood(structure, moved, data.times, data.values, data.noise)

            exact = float(oracles.mp_derivative(value, at))
            assert found.params[0, k] == pytest.approx(exact, rel=1e-12, abs=1e-13), f"parameter {k}"


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (-0.7, 2.5)])
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("n", [20, 150])
def test_weights_are_the_cotangents_of_the_two_parts(name: str, n: int, weights: tuple[float, float]) -> None:
    structure, params = CASES[name]
    data = make(n, seed=15)
    dense = oracles.evidence(structure, params, data.times, data.values, data.noise, weights)
    found = evidence(structure, params, data.times, data.values, data.noise, weights=weights)
    assert found.inv_quad[0] == pytest.approx(dense.inv_quad, rel=1e-12)
    close(found.alpha[0], dense.alpha, 1e-12, "alpha")
    close(found.kappa[0], dense.kappa, 1e-12, "kappa")
    close(found.params[0] * params, dense.params * params, 1e-11, "parameters")
    close(found.times[0], dense.times, 1e-11, "times")


@pytest.mark.parametrize("name", FEW)
def test_weights_per_series(name: str) -> None:
    structure, params = CASES[name]
    data = make(30, seed=16)
    rng = np.random.default_rng(17)
    weights = rng.normal(size=(11, 2))
    found = evidence(
        structure, params, data.times, np.tile(data.values, (11, 1)), data.noise, weights=weights, gradient=True
    )
    for b in range(11):
        dense = oracles.evidence(structure, params, data.times, data.values, data.noise, tuple(weights[b]))
        close(found.params[b] * params, dense.params * params, 1e-11, f"parameters of series {b}")
        close(found.times[b], dense.times, 1e-11, f"times of series {b}")


@pytest.mark.parametrize("name", FEW)
def test_shifting_and_stretching_time(name: str) -> None:
    """Two identities: the sum of the time derivatives is zero; stretching time is scaling the rates."""
    structure, params = CASES[name]
    data = make(300, seed=18)
    found = evidence(structure, params, data.times, data.values, data.noise)
    size = np.abs(found.times).sum()
    assert abs(found.times.sum()) <= 1e-13 * size
    stretch = float(found.times[0] @ data.times)
    at, expected = 0, 0.0
    for _, factors in oracles.terms(structure, params):
        at += 1
        for factor, values in factors:
            rates = {"sho": [0], "celerite": [2, 3]}.get(factor, [0])
            expected += sum(found.params[0, at + k] * values[k] for k in rates)
            at += len(values)
    assert stretch == pytest.approx(expected, abs=1e-12 * float(np.abs(found.times[0]) @ data.times))


@pytest.mark.parametrize("name", NAMES)
def test_scaling_identity(name: str) -> None:
    """Scaling all variances and the noise by s: d/ds of the log-likelihood is (inv_quad - N) / 2."""
    structure, params = CASES[name]
    data = make(700, seed=19)
    found = evidence(structure, params, data.times, data.values, data.noise)
    at, total = 0, 0.0
    for variance, factors in oracles.terms(structure, params):
        total += found.params[0, at] * variance
        at += 1 + sum(len(values) for _, values in factors)
    total += 0.5 * float((found.alpha[0] ** 2 - found.kappa[0]) @ data.noise)
    assert total == pytest.approx(0.5 * (found.inv_quad[0] - 700), rel=1e-10)
