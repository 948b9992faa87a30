"""Additive tables with one interaction: products over many modes have to be constant in nearly all of them."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.models import Continuous, FunctionalTensor

ROWS = 800


def interaction(x: np.ndarray) -> np.ndarray:
    """Friedman's first function; what comes after the fifth mode does not matter."""
    return 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]


def additive(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Least squares of polynomials of each mode alone."""

    def basis(z: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(z)), *(z**power for power in range(1, 5))])

    return basis(new) @ np.linalg.lstsq(basis(x), y, rcond=None)[0]


@pytest.mark.parametrize(
    ("form", "rank", "modes", "seeds"),
    [("cp", 3, 5, (0, 1)), ("cp", 4, 6, (0,)), ("tucker", 2, 5, (0,)), ("tensor-train", 2, 5, (0,))],
)
def test_an_interaction_of_two_of_many_modes(form, rank, modes, seeds):
    rng = np.random.default_rng(modes)
    x = rng.integers(0, 41, (ROWS, modes)) / 40.0
    y = interaction(x) + rng.standard_normal(ROWS)
    new = rng.uniform(size=(1000, modes))
    truth = interaction(new)
    baseline = np.sqrt(np.mean((additive(x, y, new) - truth) ** 2))
    for seed in seeds:
        model = FunctionalTensor([Continuous(f"x{k}") for k in range(modes)], form=form, rank=rank)
        model.fit(x, y, restarts=1, seed=seed, progress=False)
        assert np.sqrt(np.mean((model.predict(new).mean - truth) ** 2)) < 0.35 * baseline


def test_heavy_tailed_noise_does_not_explain_rough_functions():
    """A level of its own for every few days, three rows each: no outliers, whatever length scale a fit begins with."""
    rng = np.random.default_rng(0)
    level = np.cumsum(rng.standard_normal(400)) * 0.2 + np.where(rng.uniform(size=400) < 0.1, 2.0, 0.0)
    day = rng.integers(0, 400, 1200)
    x = np.column_stack([rng.uniform(size=1200), day])
    y = level[day] * (1.0 + x[:, 0]) + 0.1 * rng.standard_normal(1200)
    model = FunctionalTensor([Continuous("x"), Continuous("day")], rank=1, likelihood="student-t")
    model.fit(x[:1000], y[:1000], restarts=1, progress=False)
    seen = np.isin(day[1000:], day[:1000])
    error = (model.predict(x[1000:]).mean - y[1000:])[seen]
    assert np.sqrt(np.mean(error**2)) < 0.35 * y.std()
