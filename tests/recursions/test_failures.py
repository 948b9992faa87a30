"""Matrices that are not positive definite are reported with their row, and never as a number."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from gpkit.recursions.series import evidence, log_likelihood, posterior, smooth
from gpkit.recursions.structure import Structure
from tests import oracles
from tests.recursions.cases import CASES, CLOSED, FEW, close, make


def first_bad_row(structure: Structure, params: object, times: np.ndarray, noise: np.ndarray) -> int:
    """First leading minor of the dense matrix that is not positive."""
    matrix = oracles.covariance(structure, params, times, times) + np.diag(noise)
    for k in range(times.size):
        if np.linalg.eigvalsh(matrix[: k + 1, : k + 1])[0] <= 0.0:
            return k
    return -1


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("row", [0, 1, 17, 31, 47])
@pytest.mark.parametrize("n", [48, 49, 300])
@pytest.mark.parametrize("name", FEW)
def test_negative_noise_names_its_row(name: str, n: int, row: int, gradient: bool) -> None:
    structure, params = CASES[name]
    data = make(n, seed=61)
    noise = data.noise.copy()
    noise[row] = -50.0
    assert first_bad_row(structure, params, data.times[: row + 1], noise[: row + 1]) == row
    found = evidence(structure, params, data.times, data.values, noise, gradient=gradient)
    assert found.failed.tolist() == [row]
    assert np.isnan(log_likelihood(structure, params, data.times, data.values, noise)[0])


@pytest.mark.parametrize("row", [0, 5, 299, 300, 700])
@pytest.mark.parametrize("name", FEW)
def test_late_rows_of_long_series(name: str, row: int) -> None:
    """Past the first segment too; all innovations before the bad row are fine."""
    structure, params = CASES[name]
    data = make(701, seed=62)
    noise = data.noise.copy()
    noise[row] = -50.0
    assert evidence(structure, params, data.times, data.values, noise).failed.tolist() == [row]


@pytest.mark.parametrize("n", [20, 90, 600])
@pytest.mark.parametrize("name", FEW)
def test_bad_series_do_not_disturb_their_neighbours(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=63)
    batch = 19
    rng = np.random.default_rng(64)
    rows = np.where(rng.random(batch) < 0.4, rng.integers(0, n, batch), -1)
    rows[[0, 9, 18]] = [0, n - 1, -1]
    noise = np.tile(data.noise, (batch, 1))
    noise[np.flatnonzero(rows >= 0), rows[rows >= 0]] = -50.0
    found = evidence(structure, params, data.times, data.values, noise)
    assert found.failed.tolist() == rows.tolist()
    dense = oracles.evidence(structure, params, data.times, data.values, data.noise)
    likelihood = log_likelihood(structure, params, data.times, data.values, noise)
    for b in range(batch):
        if rows[b] >= 0:
            assert np.isnan(likelihood[b])
            continue
        assert likelihood[b] == pytest.approx(dense.log_likelihood, rel=1e-12)
        close(found.alpha[b], dense.alpha, 1e-12, "alpha")
        close(found.kappa[b], dense.kappa, 1e-12, "kappa")
        close(found.params[b] * params, dense.params * params, 1e-11, "parameters")


def draws(name: str, count: int) -> np.ndarray:
    """Parameters near those of a case: rounding decides about a singular pivot, so that one draw proves nothing."""
    structure, params = CASES[name]
    factors = np.random.default_rng(68).uniform(0.8, 1.25, (count, len(params)))
    if any("celerite" in term for term in structure):
        factors[:, 1:] = 1.0
    return factors * params


@pytest.mark.parametrize("name", [*FEW, "matern52", "sum-j2", "sum-j8"])
def test_ties_without_noise(name: str) -> None:
    """The second of two noise-free values at one time makes the matrix singular, whatever the values."""
    structure, _ = CASES[name]
    rng = np.random.default_rng(69)
    for params in draws(name, 150):
        times = np.cumsum(rng.uniform(1.0, 8.0, 8))
        times[4] = times[3]
        found = evidence(structure, params, times, rng.normal(size=8), np.zeros(8), gradient=False)
        assert found.failed.tolist() == [4]


@pytest.mark.parametrize("name", ["sho-under", "sho-over", "matern32", "matern52", "product-j4"])
def test_points_too_near_to_tell_apart_without_noise(name: str) -> None:
    """Smooth processes: three noise-free points 1e-7 apart are singular to rounding; refused, or right."""
    structure, _ = CASES[name]
    times = np.array([0.0, 1e-7, 2e-7, 3.0])
    values = np.array([0.3, 0.3, 0.3, -0.2])
    for params in draws(name, 20):
        found = log_likelihood(structure, params, times, values, np.zeros(4))[0]
        if np.isnan(found):
            continue
        with mpmath.workdps(60):
            exact = float(oracles.mp_log_likelihood(structure, params, times, values, np.zeros(4)))
        assert found == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("structure", [(("exponential",),), (("sho",),), (("matern32",), ("exponential",))])
def test_zero_variance_needs_noise(structure: Structure) -> None:
    params = {1: [0.0, 1.0], 2: [0.0, 1.0, 0.0, 2.0]}[len(structure)]
    if structure == (("sho",),):
        params = [0.0, 1.0, 2.0]
    data = make(10, seed=65)
    with_noise = evidence(structure, params, data.times, data.values, data.noise)
    assert with_noise.logdet[0] == pytest.approx(np.log(data.noise).sum(), rel=1e-13)
    assert with_noise.inv_quad[0] == pytest.approx((data.values**2 / data.noise).sum(), rel=1e-13)
    without = evidence(structure, params, data.times, data.values, np.zeros(10))
    assert without.failed.tolist() == [0]


@pytest.mark.parametrize("what", ["values", "noise", "params"])
@pytest.mark.parametrize("n", [10, 80])
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("name", FEW)
def test_not_a_number_never_becomes_one(name: str, batch: int, n: int, what: str) -> None:
    structure, params = CASES[name]
    data = make(n, seed=66)
    arrays = {
        "params": np.tile(params, (batch, 1)),
        "values": np.tile(data.values, (batch, 1)),
        "noise": np.tile(data.noise, (batch, 1)),
    }
    arrays[what][0, 0] = np.nan
    likelihood = log_likelihood(structure, arrays["params"], data.times, arrays["values"], arrays["noise"])
    assert np.isnan(likelihood[0])
    assert np.isfinite(likelihood[1:]).all()


@pytest.mark.parametrize("n", [10, 80])
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name in CLOSED for place in range(1, len(CASES[name][1]))],
)
def test_parameters_that_are_not_a_number(name: str, place: int, batch: int, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=66)
    chain = np.tile(params, (batch, 1))
    chain[0, place] = np.nan
    likelihood = log_likelihood(structure, chain, data.times, data.values, data.noise)
    assert np.isnan(likelihood[0])
    assert np.isfinite(likelihood[1:]).all()


@pytest.mark.parametrize("n", [12, 90])
@pytest.mark.parametrize("name", FEW)
def test_smoothing_reports_the_row(name: str, n: int) -> None:
    structure, params = CASES[name]
    data = make(n, seed=67)
    noise = data.noise.copy()
    noise[9] = -50.0
    assert smooth(structure, params, data.times, data.values, noise)[2].tolist() == [9]
    # In the merged series of data and new times, the bad datum stands behind the three new times before it.
    new_times = data.times[[0, 1, 2]] - 1.0
    failed = posterior(structure, params, data.times, data.values, noise, new_times)[2]
    assert failed.shape == (1,)
    assert failed[0] >= 0


def test_indefinite_celerite_term() -> None:
    """A term with a c < |b d| is no covariance: refused where the dense matrix is, right where the noise saves it."""
    structure, params = (("celerite",),), [1.0, 1.0, 8.0, 0.05, 1.0]
    times = np.linspace(0.0, 12.0, 60)
    values = np.sin(times)
    bad = first_bad_row(structure, params, times, np.full(60, 1e-3))
    assert bad >= 0
    assert evidence(structure, params, times, values, np.full(60, 1e-3)).failed.tolist() == [bad]
    noise = np.full(60, 200.0)
    assert first_bad_row(structure, params, times, noise) == -1
    dense = oracles.evidence(structure, params, times, values, noise)
    found = evidence(structure, params, times, values, noise)
    assert found.failed.tolist() == [-1]
    assert found.inv_quad[0] == pytest.approx(dense.inv_quad, rel=1e-11)
    assert found.logdet[0] == pytest.approx(dense.logdet, rel=1e-11)
    close(found.params[0], dense.params, 1e-10, "parameters")
