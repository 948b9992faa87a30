"""Single series in time blocks, batches in SIMD lanes and the sequential recursion give the same answer.

The sequential driver is held to the dense oracle elsewhere and to a dense oracle at N = 800 here; everything else is
compared with it, at lengths around every threshold.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.recursions import evidence as compiled
from gpkit.recursions.series import Evidence, evidence, log_likelihood, smooth
from tests import oracles
from tests.recursions.cases import CASES, CLOSED, FEW, Data, close, make, sequential

LENGTHS = [1, 2, 7, 8, 9, 47, 48, 49, 63, 64, 65, 799, 801, 2047, 2048, 2049, 5000]
TOLERANCE = 1e-10


def compare(found: Evidence, b: int, expected: Evidence, params: object, n: int, gradient: bool = True) -> None:
    """Row b of a batch against a series evaluated sequentially."""
    assert found.failed[b] == expected.failed[0] == -1
    assert found.inv_quad[b] == pytest.approx(expected.inv_quad[0], rel=1e-12)
    assert found.logdet[b] == pytest.approx(expected.logdet[0], rel=1e-12, abs=1e-12)
    if not gradient:
        return
    close(found.alpha[b, :n], expected.alpha[0], TOLERANCE, "alpha")
    close(found.kappa[b, :n], expected.kappa[0], TOLERANCE, "kappa")
    close(found.params[b] * params, expected.params[0] * params, TOLERANCE, "parameters")
    close(found.times[b, :n], expected.times[0], TOLERANCE, "times")
    for rest in (found.alpha, found.kappa, found.times):
        assert not rest[b, n:].any()


@pytest.mark.parametrize("name", FEW)
def test_sequential_driver_matches_dense(name: str) -> None:
    structure, params = CASES[name]
    data = make(800, seed=21)
    dense = oracles.evidence(structure, params, data.times, data.values, data.noise, (0.3, 2.0))
    found = sequential(structure, params, data, (0.3, 2.0))
    assert found.inv_quad[0] == pytest.approx(dense.inv_quad, rel=1e-12)
    assert found.logdet[0] == pytest.approx(dense.logdet, rel=1e-12)
    close(found.alpha[0], dense.alpha, 1e-12, "alpha")
    close(found.kappa[0], dense.kappa, 1e-12, "kappa")
    close(found.params[0] * params, dense.params * params, 1e-11, "parameters")
    close(found.times[0], dense.times, 1e-11, "times")


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("name", [*CLOSED, "product-j6", "mixed-j10"])
def test_single_series(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=22)
    weights = (0.7, 1.9)
    expected = sequential(structure, params, data, weights)
    found = evidence(structure, params, data.times, data.values, data.noise, weights=weights)
    compare(found, 0, expected, params, n)
    value_only = evidence(structure, params, data.times, data.values, data.noise, gradient=False)
    compare(value_only, 0, expected, params, n, gradient=False)
    assert value_only.alpha.shape == (1, 0)


@pytest.mark.parametrize("step", [0.05, 0.5, 3.0])
def test_inaccurate_compositions_are_noticed(step: float) -> None:
    """Almost without noise the joined blocks lose half of the digits: the series must be run sequentially."""
    structure, params = CASES["rotation-j4"]
    rng = np.random.default_rng(33)
    for _ in range(5):
        times = np.cumsum(step * rng.uniform(0.5, 1.5, 200))
        data = Data(times, rng.normal(size=200), np.full(200, 1e-12))
        expected = sequential(structure, params, data)
        found = evidence(structure, params, data.times, data.values, data.noise)
        assert found.inv_quad[0] == pytest.approx(expected.inv_quad[0], rel=1e-10)
        assert found.logdet[0] == pytest.approx(expected.logdet[0], rel=1e-10)
        close(found.alpha[0], expected.alpha[0], 1e-8, "alpha")
        close(found.kappa[0], expected.kappa[0], 1e-8, "kappa")


@pytest.mark.parametrize(("name", "noise"), [("sho-under", 1e-8), ("matern32", 1e-6), ("matern52", 1e-6)])
def test_derivatives_at_high_signal_to_noise(name: str, noise: float) -> None:
    """Errors of a thousandth of the signal: the sequential recursion and dense algebra agree to 1e-8 here."""
    structure, params = CASES[name]
    rng = np.random.default_rng(32)
    for step in (0.02, 0.2) * 12:
        n = int(rng.integers(48, 300))
        times = np.cumsum(step * rng.uniform(0.5, 1.5, n))
        variances = noise * rng.uniform(0.5, 2.0, n)
        root = np.linalg.cholesky(oracles.covariance(structure, params, times, times) + np.diag(variances))
        data = Data(times, root @ rng.normal(size=n), variances)
        dense = oracles.evidence(structure, params, data.times, data.values, data.noise)
        expected = sequential(structure, params, data)
        close(expected.params[0] * params, dense.params * params, 1e-7, "sequential")
        found = evidence(structure, params, data.times, data.values, data.noise)
        close(found.params[0] * params, dense.params * params, 2e-7, "blocks")


@pytest.mark.parametrize("n", [1, 2, 47, 48, 255, 256, 257, 513, 801])
@pytest.mark.parametrize("batch", [7, 8, 9, 20])
@pytest.mark.parametrize("name", FEW)
def test_ragged_batches(name: str, batch: int, n: int) -> None:
    """Everything differs between series: lengths, times, values, noise, parameters and weights."""
    structure, params = CASES[name]
    rng = np.random.default_rng((23, batch, n))
    series = [make(n, seed=100 + b) for b in range(batch)]
    lengths = rng.integers(1, n + 1, batch)
    lengths[rng.integers(batch)] = n
    chain = np.asarray(params) * rng.uniform(0.8, 1.25, (batch, len(params)))
    if name == "celerite":
        chain[:, 1:] = params[1:]
    weights = rng.uniform(0.5, 2.0, (batch, 2))
    # What lies beyond the end of a series must not matter.
    times, values, noise = (
        np.stack([getattr(data, key).copy() for data in series]) for key in ("times", "values", "noise")
    )
    for b in range(batch):
        values[b, lengths[b] :] = np.nan
        noise[b, lengths[b] :] = -1.0
    found = evidence(structure, chain, times, values, noise, lengths=lengths, weights=weights)
    for b in range(batch):
        m = int(lengths[b])
        data = Data(times[b, :m], values[b, :m], noise[b, :m])
        compare(found, b, sequential(structure, chain[b], data, tuple(weights[b])), chain[b], m)


@pytest.mark.parametrize("batch", [1, 7, 8, 9, 20])
@pytest.mark.parametrize("shared", ["times", "values", "noise", "params", "all but params", "all but values"])
@pytest.mark.parametrize("name", ["sho-under", "mixed-j10"])
def test_shared_rows(name: str, shared: str, batch: int) -> None:
    structure, params = CASES[name]
    n = 60
    rng = np.random.default_rng((24, batch))
    arrays = {
        "params": np.asarray(params) * rng.uniform(0.9, 1.1, (batch, len(params))),
        "times": np.sort(rng.uniform(0, 30, (batch, n)), axis=1),
        "values": rng.normal(size=(batch, n)),
        "noise": rng.uniform(0.1, 0.5, (batch, n)),
    }
    if shared.startswith("all but"):
        keep = shared.removeprefix("all but ")
        arrays = {key: array if key == keep else array[0] for key, array in arrays.items()}
    else:
        arrays[shared] = arrays[shared][:1]
    found = evidence(structure, arrays["params"], arrays["times"], arrays["values"], arrays["noise"])
    assert found.inv_quad.shape == (batch,)
    assert found.params.shape == (batch, len(params))
    for b in range(batch):
        row = {key: array if array.ndim == 1 else array[b % array.shape[0]] for key, array in arrays.items()}
        expected = sequential(structure, row["params"], Data(row["times"], row["values"], row["noise"]))
        compare(found, b, expected, row["params"], n)


def test_quality_on_both_sides_of_one_half_in_one_group() -> None:
    structure = (("sho",),)
    n = 90
    data = make(n, seed=25)
    quality = np.array([0.01, 0.3, 0.4999, 0.5, 0.5 + 1e-9, 0.7, 5.0, 300.0])
    chain = np.stack([np.full(8, 1.2), np.full(8, 0.9), quality], axis=1)
    found = evidence(structure, chain, data.times, data.values, data.noise)
    for b in range(8):
        compare(found, b, sequential(structure, chain[b], data), chain[b], n)


def test_lengths_of_zero() -> None:
    structure, params = CASES["sho-under"]
    data = make(50, seed=26)
    lengths = np.array([0, 50, 0, 3, 0, 0, 0, 1, 0, 0])
    values = np.tile(data.values, (10, 1))
    found = evidence(structure, params, data.times, values, data.noise, lengths=lengths)
    for b, m in enumerate(lengths):
        cut = Data(data.times[:m], data.values[:m], data.noise[:m])
        if m == 0:
            assert (found.inv_quad[b], found.logdet[b], found.failed[b]) == (0.0, 0.0, -1)
            assert not found.params[b].any()
        else:
            compare(found, b, sequential(structure, params, cut), params, int(m))
    likelihood = log_likelihood(structure, params, data.times, values, data.noise, lengths=lengths)
    assert likelihood[0] == 0.0
    expected = oracles.evidence(structure, params, data.times[:3], data.values[:3], data.noise[:3])
    assert likelihood[3] == pytest.approx(expected.log_likelihood, rel=1e-13)


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("name", FEW)
def test_same_call_same_bits(name: str, batch: int) -> None:
    structure, params = CASES[name]
    data = make(400, seed=27)
    values = np.tile(data.values, (batch, 1))
    first = evidence(structure, params, data.times, values, data.noise)
    again = evidence(structure, params, data.times, values, data.noise)
    for key in ("inv_quad", "logdet", "alpha", "kappa", "params", "times"):
        assert np.array_equal(getattr(first, key), getattr(again, key)), key


@pytest.mark.parametrize("n", [5, 49, 600])
@pytest.mark.parametrize("name", FEW)
def test_smoothing_agrees_between_paths(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=28)
    noise = data.noise.copy()
    noise[::3] = np.inf
    one_mean, one_variance, failed = smooth(structure, params, data.times, data.values, noise)
    assert failed.tolist() == [-1]
    many_mean, many_variance, failed = smooth(structure, params, data.times, np.tile(data.values, (9, 1)), noise)
    assert failed.tolist() == [-1] * 9
    for b in range(9):
        close(many_mean[b], one_mean[0], 1e-11, "mean")
        close(many_variance[b], one_variance[0], 1e-11, "variance")


def test_inputs_are_left_alone() -> None:
    structure, params = CASES["mixed-j10"]
    data = make(64, seed=29)
    arrays = [np.array(params), data.times, data.values, data.noise]
    copies = [array.copy() for array in arrays]
    evidence(structure, *arrays)
    smooth(structure, *arrays)
    for array, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(array, copy)


def test_read_only_inputs_compile_nothing_new() -> None:
    structure, params = CASES["drw"]
    data = make(20, seed=30)
    arrays = [np.array(params), data.times, data.values, data.noise]
    evidence(structure, *arrays)
    before = len(compiled.sequential_evidence.signatures)
    for array in arrays:
        array.setflags(write=False)
    evidence(structure, *arrays)
    assert len(compiled.sequential_evidence.signatures) == before


def test_strided_and_integer_inputs() -> None:
    structure, params = CASES["sho-under"]
    data = make(40, seed=30)
    plain = log_likelihood(structure, params, data.times, data.values, data.noise)
    doubled = [np.repeat(x, 2)[::2] for x in (data.times, data.values, data.noise)]
    assert np.array_equal(log_likelihood(structure, params, *doubled), plain)
    whole = np.arange(40)
    assert np.array_equal(
        log_likelihood(structure, params, whole, data.values, data.noise),
        log_likelihood(structure, params, whole.astype(float), data.values, data.noise),
    )
