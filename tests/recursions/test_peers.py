"""Against celerite2, away from critical damping where it is right, and at it where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpkit.recursions.series import evidence, log_likelihood, posterior
from tests import oracles
from tests.recursions.cases import CELERITE, Data, make

celerite2 = pytest.importorskip("celerite2", reason="celerite2 is not installed")


def peer(kernel: Any, data: Data) -> Any:
    process = celerite2.GaussianProcess(kernel)
    process.compute(data.times, diag=data.noise)
    return process


@pytest.mark.parametrize("quality", [0.05, 0.3, 0.45, 0.6, 3.0, 40.0])
def test_oscillator(quality: float) -> None:
    data = make(300, seed=141)
    frequency, variance = 1.1, 1.4
    kernel = celerite2.terms.SHOTerm(S0=variance / (frequency * quality), w0=frequency, Q=quality)
    found = log_likelihood((("sho",),), [variance, frequency, quality], data.times, data.values, data.noise)[0]
    assert found == pytest.approx(peer(kernel, data).log_likelihood(data.values), rel=1e-11)


def test_sums_and_products() -> None:
    data = make(200, seed=142)
    oscillator = celerite2.terms.SHOTerm(sigma=1.0, w0=1.3, Q=4.0)
    real = celerite2.terms.RealTerm(a=0.5, c=0.4)
    term = celerite2.terms.ComplexTerm(**dict(zip("abcd", CELERITE, strict=True)))
    found = log_likelihood(
        (("sho",), ("exponential",)), [1.0, 1.3, 4.0, 0.5, 0.4], data.times, data.values, data.noise
    )[0]
    assert found == pytest.approx(peer(oscillator + real, data).log_likelihood(data.values), rel=1e-11)
    found = log_likelihood((("celerite", "sho"),), [1.0, *CELERITE, 1.3, 4.0], data.times, data.values, data.noise)
    assert found[0] == pytest.approx(peer(term * oscillator, data).log_likelihood(data.values), rel=1e-11)


def test_prediction() -> None:
    data = make(60, seed=143)
    process = peer(celerite2.terms.SHOTerm(sigma=1.2, w0=0.9, Q=2.0), data)
    new_times = np.linspace(-2.0, data.times[-1] + 2.0, 31)
    expected, expected_variance = process.predict(data.values, t=new_times, return_var=True)
    mean, variance, _ = posterior((("sho",),), [1.44, 0.9, 2.0], data.times, data.values, data.noise, new_times)
    assert np.max(np.abs(mean[0] - expected)) <= 1e-10
    assert np.max(np.abs(variance[0] - expected_variance)) <= 1e-10


def test_the_hole_at_critical_damping() -> None:
    """The peer's value is off where ours agrees with the dense matrix, and our slope there is the dense one."""
    data = make(500, seed=144)
    params = [1.0, 0.9, 0.5]
    dense = oracles.evidence((("sho",),), params, data.times, data.values, data.noise)
    found = evidence((("sho",),), params, data.times, data.values, data.noise)
    value = log_likelihood((("sho",),), params, data.times, data.values, data.noise)[0]
    theirs = peer(celerite2.terms.SHOTerm(sigma=1.0, w0=0.9, Q=0.5), data).log_likelihood(data.values)
    assert value == pytest.approx(dense.log_likelihood, rel=1e-12)
    assert found.params[0, 2] == pytest.approx(dense.params[2], rel=1e-10)
    assert abs(theirs - dense.log_likelihood) > 1e-8
