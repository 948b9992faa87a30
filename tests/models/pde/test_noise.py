"""Noise in stated problems: found where it is not stated, judged by what it explains, refused where it cannot be."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Noisy, Observe, Unknown, d, dt, laplacian

LINE, STRIP = Box(x=(0, 1)), Box(x=(0, 1), t=(0, 1))


def test_noise_that_is_not_stated_is_found_and_used() -> None:
    u, x, rng = Field("u", LINE), np.linspace(0, 1, 120), np.random.default_rng(0)
    values = -36 * np.sin(6 * x) + 0.8 * rng.normal(size=120)
    ends = [Dirichlet(u.on("x=0"), 0), Dirichlet(u.on("x=1"), math.sin(6))]
    found = PDE(laplacian(u) == Noisy(values, None), ends).solve(120, progress=False)
    (level,) = found.diagnostics["noise_levels"]
    assert level == pytest.approx(0.8, rel=0.2)
    assert found.residuals.standardised[0] == pytest.approx(1.0, abs=0.2) and not found.findings
    given = PDE(laplacian(u) == Noisy(values, level), ends).solve(120, progress=False)
    at = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(found.mean(at), given.mean(at), atol=3e-3, rtol=0)
    torch.testing.assert_close(found.std(at), given.std(at), atol=0, rtol=0.2)
    assert float(((found.mean(at) - torch.sin(6 * at)) / found.std(at)).abs().max()) < 4.0
    assert "noise unknown" in repr(PDE(laplacian(u) == Noisy(values, None), ends))


def test_a_rod_whose_initial_state_is_only_observed() -> None:
    """Conditions that are too few are made up for by noisy observations, whatever the data of the others are."""
    u, rng = Field("u", STRIP), np.random.default_rng(0)
    points = rng.uniform(size=(60, 2))

    def truth(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.exp(-0.1 * np.pi**2 * t) * np.sin(np.pi * x)

    values = truth(*points.T) + 0.05 * rng.normal(size=60)
    sides = [Dirichlet(u.on("x=0"), 0), Dirichlet(u.on("x=1"), 0)]
    at = rng.uniform(0.05, 0.95, size=(50, 2))
    for noise in (0.05, None):
        solution = PDE(dt(u) == 0.1 * laplacian(u), [*sides, Observe(u, points, values, noise)]).solve(
            24, progress=False
        )
        z = (solution.mean(at).numpy() - truth(*at.T)) / solution.std(at).numpy()
        assert np.sqrt(np.mean(z**2)) < 2.0 and not solution.findings
        assert 1e-3 < float(solution.std(at).median()) < 0.05
    assert solution.diagnostics["noise_levels"] == [pytest.approx(0.05, rel=0.35)]


def test_equations_that_few_functions_cannot_follow_get_more() -> None:
    """Large weights that cancel would meet the equation at its nodes and miss it between them, by a tenth and more."""
    u, rng = Field("u", STRIP), np.random.default_rng(1)
    points = rng.uniform(size=(25, 2))

    def truth(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        slow = np.exp(-0.1 * np.pi**2 * t) * np.sin(np.pi * x)
        return slow + 0.5 * np.exp(-0.9 * np.pi**2 * t) * np.sin(3 * np.pi * x)

    seen = Observe(u, points, truth(*points.T) + 0.05 * rng.normal(size=25), 0.05)
    sides = [Dirichlet(u.on("x=0"), 0), Dirichlet(u.on("x=1"), 0)]
    solution = PDE(dt(u) == 0.1 * laplacian(u), [*sides, seen]).solve(40, progress=False)
    assert solution.diagnostics["residual"] < 1e-3 and not solution.findings
    at = rng.uniform(0.05, 0.95, size=(50, 2))
    assert np.sqrt(np.mean(((solution.mean(at).numpy() - truth(*at.T)) / solution.std(at).numpy()) ** 2)) < 2.0


def test_noise_that_cannot_be_found_or_used() -> None:
    u, k = Field("u", LINE), Unknown("k", prior=torch.distributions.LogNormal(0.0, 1.0))
    with pytest.raises(InvalidDataError, match="or None; got -0.1"):
        Noisy([1.0, 2.0], -0.1)
    seen = Observe(u, [0.2, 0.5, 0.7], [0.1, 0.2, 0.1], None)
    with pytest.raises(InvalidDataError, match="whose noise is stated"):
        PDE(k * d(u, "x", 2) + 1 == 0, [Dirichlet(u, 0), seen]).infer()
    noisy = Noisy(np.zeros(9), None)
    with pytest.raises(InvalidDataError, match="k must be given|all that is unknown"):
        PDE(k * d(u, "x", 2) == noisy, [Dirichlet(u, 0)]).solve(20, progress=False)


def test_the_table_of_coverage_is_printed() -> None:
    script = Path(__file__).parents[3] / "benchmarks" / "pde_coverage.py"
    command = [sys.executable, str(script), "--smoke", "--part", "noisy", "--only", "observations, no conditions"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    row = next(line for line in finished.stdout.splitlines() if "no conditions" in line).split()
    coverage, baseline, ours = float(row[-8]), float(row[-3]), float(row[-5])
    assert row[-11] == "2" and 0.5 <= coverage <= 1.0 and ours < baseline
