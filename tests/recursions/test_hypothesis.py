"""Nasty inputs, drawn: ties, gaps from 1e-12 to 1e12, noise from 1e-4 to infinity, parameters over decades."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpkit.recursions.series import evidence, log_likelihood, posterior
from gpkit.recursions.structure import Structure
from tests import oracles
from tests.recursions.cases import Data, sequential

COMMON = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)

rates = st.floats(-3.0, 2.0).map(lambda x: 10.0**x)
qualities = st.one_of(st.just(0.5), st.floats(-3.0, 3.0).map(lambda x: 10.0**x), st.floats(0.499999, 0.500001))
gaps = st.one_of(st.sampled_from([0.0, 0.0, 1e-12, 1e-9, 1e-3, 0.1, 1.0, 1.0, 3.0, 1e3, 1e12]), st.floats(0.0, 5.0))
noises = st.one_of(st.sampled_from([1e-4, 1e-2, 1.0, 1e6, np.inf]), st.floats(0.01, 2.0))
observed = st.one_of(st.sampled_from([0.0, 1e-300, -3.0, 1e3]), st.floats(-3.0, 3.0))


@st.composite
def factors(draw: st.DrawFn) -> tuple[str, list[float]]:
    name = draw(st.sampled_from(sorted(oracles.PARAMETERS)))
    if name == "sho":
        return name, [draw(rates), draw(qualities)]
    if name == "celerite":
        c, d, a = draw(rates), draw(rates), draw(st.floats(0.1, 3.0))
        return name, [a, draw(st.floats(-0.99, 0.99)) * a * c / d, c, d]
    return name, [draw(rates)]


@st.composite
def models(draw: st.DrawFn) -> tuple[Structure, list[float]]:
    structure, params = [], []
    for _ in range(draw(st.integers(1, 3))):
        term, numbers = [], [draw(st.floats(0.1, 3.0))]
        for _ in range(draw(st.integers(1, 2))):
            name, values = draw(factors())
            term.append(name)
            numbers += values
        structure.append(tuple(term))
        params += numbers
    return tuple(structure), params


@st.composite
def series(draw: st.DrawFn, maximum: int = 14) -> Data:
    n = draw(st.integers(0, maximum))
    steps = draw(st.lists(gaps, min_size=n, max_size=n))
    return Data(
        np.cumsum(np.array([0.0, *steps]))[:n],
        np.array(draw(st.lists(observed, min_size=n, max_size=n)), dtype=float),
        np.array(draw(st.lists(noises, min_size=n, max_size=n)), dtype=float),
    )


def allowance(structure: Structure, params: list[float], noise: np.ndarray) -> float:
    """Rounding, times the condition number of the matrix."""
    signal = float(oracles.autocovariance(structure, params, np.array(0.0)))
    smallest = min(float(np.min(noise, initial=np.inf)), 1.0)
    return 1e-12 + 1e-15 * noise.size * signal / smallest


@COMMON
@given(models(), series())
def test_evidence_is_that_of_the_dense_matrix(model: tuple[Structure, list[float]], data: Data) -> None:
    structure, params = model
    dense = oracles.evidence(structure, params, data.times, data.values, data.noise)
    found = evidence(structure, params, data.times, data.values, data.noise)
    assert found.failed.tolist() == [-1]
    slack = allowance(structure, params, data.noise)
    assert abs(found.inv_quad[0] - dense.inv_quad) <= slack * max(1.0, dense.inv_quad)
    assert abs(found.logdet[0] - dense.logdet) <= slack * max(1.0, np.abs(dense.logdet))
    value = log_likelihood(structure, params, data.times, data.values, data.noise)[0]
    assert abs(value - dense.log_likelihood) <= slack * max(1.0, dense.inv_quad, abs(dense.logdet))
    size = np.max(np.abs(dense.alpha), initial=1.0)
    assert np.max(np.abs(found.alpha[0] - dense.alpha), initial=0.0) <= slack * size
    size = np.max(np.abs(dense.kappa), initial=1.0)
    assert np.max(np.abs(found.kappa[0] - dense.kappa), initial=0.0) <= slack * size


@COMMON
@given(models(), series())
def test_derivatives_are_those_of_the_dense_matrix(model: tuple[Structure, list[float]], data: Data) -> None:
    structure, params = model
    dense = oracles.evidence(structure, params, data.times, data.values, data.noise)
    found = evidence(structure, params, data.times, data.values, data.noise)
    # Sums of alpha alpha^T - K^-1 over all pairs, weighted by slopes of at most `steepest` per unit of time.
    pairs = np.sum(np.abs(dense.alpha)) ** 2 + np.sum(dense.kappa) + 1.0
    slack = 10.0 * allowance(structure, params, data.noise) * pairs
    signal = float(oracles.autocovariance(structure, params, np.array(0.0)))
    at = 0
    steepest = 0.0
    for _, named in oracles.terms(structure, params):
        at += 1
        for name, values in named:
            error = np.abs(found.params[0, at : at + len(values)] - dense.params[at : at + len(values)])
            for k, value in enumerate(values):
                # b alone may be near zero, where its unit is the a of its term.
                unit = values[0] if name == "celerite" and k == 1 else abs(value)
                assert error[k] * unit <= slack * max(1.0, signal), (name, k)
            if name == "celerite":
                steepest += 2.0 * values[2] + values[3]
            else:
                steepest += values[0] / (min(values[1], 1.0) if name == "sho" else 1.0)
            at += len(values)
    assert np.max(np.abs(found.times[0] - dense.times), initial=0.0) <= slack * signal * max(steepest, 1.0)


@COMMON
@given(models(), series(), st.lists(gaps, max_size=8), st.integers(0, 13))
def test_posterior_is_that_of_the_dense_matrix(
    model: tuple[Structure, list[float]], data: Data, steps: list[float], start: int
) -> None:
    structure, params = model
    first = data.times[start] if start < data.times.size else -1.0
    new_times = np.cumsum(np.array([first, *steps]))
    mean, covariance = oracles.posterior(structure, params, data.times, data.values, data.noise, new_times)
    found_mean, found_variance, failed = posterior(structure, params, data.times, data.values, data.noise, new_times)
    assert failed.tolist() == [-1]
    signal = float(oracles.autocovariance(structure, params, np.array(0.0)))
    slack = allowance(structure, params, data.noise) * max(1.0, signal)
    size = 1.0 + np.max(np.abs(data.values), initial=0.0)
    assert np.max(np.abs(found_mean[0] - mean)) <= slack * size * max(1.0, data.times.size)
    assert np.max(np.abs(found_variance[0] - np.diag(covariance))) <= slack
    assert np.all(found_variance >= 0.0)


@COMMON
@given(models(), st.lists(series(30), min_size=8, max_size=10))
def test_lanes_agree_with_the_sequential_recursion(model: tuple[Structure, list[float]], batch: list[Data]) -> None:
    structure, params = model
    lengths = np.array([data.times.size for data in batch])
    n = int(lengths.max())

    def padded(key: str) -> np.ndarray:
        rows = [getattr(data, key) for data in batch]
        return np.stack([np.concatenate([row, np.zeros(n - row.size)]) for row in rows])

    found = evidence(structure, params, padded("times"), padded("values"), padded("noise"), lengths=lengths)
    for b, data in enumerate(batch):
        if data.times.size == 0:
            continue
        expected = sequential(structure, params, data)
        assert found.failed[b] == expected.failed[0] == -1
        slack = allowance(structure, params, data.noise)
        assert abs(found.inv_quad[b] - expected.inv_quad[0]) <= slack * max(1.0, expected.inv_quad[0])
        assert abs(found.logdet[b] - expected.logdet[0]) <= slack * max(1.0, abs(expected.logdet[0]))
        size = np.max(np.abs(expected.alpha), initial=1.0)
        assert np.max(np.abs(found.alpha[b, : lengths[b]] - expected.alpha[0])) <= slack * size
        assert not found.alpha[b, lengths[b] :].any()


@COMMON
@given(models(), st.lists(st.floats(-2.0, 1.0), min_size=48, max_size=140), st.integers(0, 2**32 - 1))
def test_blocks_agree_with_the_sequential_recursion(
    model: tuple[Structure, list[float]], steps: list[float], key: int
) -> None:
    structure, params = model
    rng = np.random.default_rng(key)
    n = len(steps)
    noise = 10.0 ** rng.uniform(-4, 2, n)
    noise[rng.random(n) < 0.1] = np.inf
    data = Data(np.cumsum(10.0 ** np.array(steps)), rng.normal(size=n), noise)
    expected = sequential(structure, params, data)
    found = evidence(structure, params, data.times, data.values, data.noise)
    assert found.failed.tolist() == expected.failed.tolist() == [-1]
    slack = allowance(structure, params, data.noise)
    assert abs(found.inv_quad[0] - expected.inv_quad[0]) <= slack * max(1.0, expected.inv_quad[0])
    assert abs(found.logdet[0] - expected.logdet[0]) <= slack * max(1.0, abs(expected.logdet[0]))
    for what in ("alpha", "kappa", "params", "times"):
        a, b = getattr(found, what)[0], getattr(expected, what)[0]
        # Blocks are accepted when the states at their edges agree to 1e-9.
        assert np.max(np.abs(a - b)) <= 1e-8 * max(1.0, np.max(np.abs(b))), what
