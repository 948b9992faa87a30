"""Starts: functions that die at first are found later, with heavy-tailed noise as with normal noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpkit.kernels import MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor

_TIMES, _SERIES = np.arange(150) / 10.0, np.array(list("abcdefghij"))


def walks() -> tuple[pd.DataFrame, np.ndarray]:
    """Some entries of a table of ten series, which are sums of five random walks, and all of them without noise."""
    paths = [0.15 * np.cumsum(np.random.default_rng(k).standard_normal(len(_TIMES))) for k in range(5)]
    rng = np.random.default_rng(0)
    grid = np.stack(paths, 1) @ rng.standard_normal((len(_SERIES), 5)).T
    i, j = rng.integers(len(_TIMES), size=1200), rng.integers(len(_SERIES), size=1200)
    y = grid[i, j] + 0.05 * rng.standard_normal(1200)
    return pd.DataFrame({"time": _TIMES[i], "series": _SERIES[j], "y": y}), grid


@pytest.mark.parametrize("likelihood", ["gaussian", "student-t"])
def test_functions_that_died_are_taken_up_again(likelihood):
    """All five at once, one dies: an error of .144."""
    frame, grid = walks()
    model = FunctionalTensor([Continuous("time", MaternKernel(1.5)), Categorical("series")], 5, likelihood=likelihood)
    model.fit(frame, "y", restarts=1, progress=False)
    assert model.effective_rank == {"time": 5, "series": 5}
    assert np.all(np.diff(model.fitted.traces[0]) > -1e-6)
    i, j = (places.reshape(-1) for places in np.indices(grid.shape))
    mean = model.predict({"time": _TIMES[i], "series": _SERIES[j]}).mean
    assert np.sqrt(np.mean((mean - grid.reshape(-1)) ** 2)) < 0.11


def test_overdispersion_does_not_take_up_a_cycle():
    """Alone, negative-binomial noise does: a constant with dispersion one."""
    rng = np.random.default_rng(0)
    years = np.sort(rng.permutation(300)[:225]).astype(float)
    rate = np.exp(3.0 + 1.5 * np.sin(2.0 * np.pi * years / 11.0))
    counts = rng.negative_binomial(20, 1.0 / (1.0 + rate / 20.0))
    model = FunctionalTensor([Continuous("year", MaternKernel(1.5))], 1, likelihood="negative-binomial")
    fit = model.fit(years, counts, restarts=1, progress=False)
    assert np.median(np.abs(np.log(model.predict(years).mean / rate))) < 0.2
    assert 8.0 < fit.parameters["dispersion"] < 50.0
