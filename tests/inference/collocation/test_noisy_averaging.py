"""Averages over a smooth component that noise may hide: moments of mixtures, when they are taken, what they cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.noisy.averaging import _mixture
from gpkit.inference.collocation.noisy.evidence import Posterior
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Noisy, Solution, d


@pytest.mark.parametrize("centre", [None, np.array([0.3, -1.0, 2.0])])
@pytest.mark.parametrize("columns", [1, 3])
def test_moments_of_a_mixture(centre: np.ndarray | None, columns: int) -> None:
    rng = np.random.default_rng(0)
    parts = [
        (w, Posterior(rng.normal(size=3), rng.normal(size=(3, columns)), np.ones(3), 3.0, 0.0)) for w in (0.2, 0.5, 0.3)
    ]
    mean, root = _mixture(parts, centre)
    expected = sum(w * p.mean for w, p in parts) if centre is None else centre
    second = sum(w * (p.root @ p.root.T + np.outer(p.mean - expected, p.mean - expected)) for w, p in parts)
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    np.testing.assert_allclose(root @ root.T, second, rtol=1e-12, atol=1e-12)


def wave_and_bump(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(37 * x) + torch.exp(-100 * (x - 0.4) ** 2)


def its_second_derivative(x: torch.Tensor) -> torch.Tensor:
    return -(37**2) * torch.sin(37 * x) + ((200 * (x - 0.4)) ** 2 - 200) * torch.exp(-100 * (x - 0.4) ** 2)


def solved(seed: int, bump: bool) -> Solution:
    u = Field("u", Box(x=(0, 1)))
    x = torch.linspace(0, 1, 200, dtype=torch.float64)
    source = its_second_derivative(x) if bump else -(37**2) * torch.sin(37 * x)
    noise = 0.02 * float(source.std())
    values = source + noise * torch.from_numpy(np.random.default_rng(seed).normal(size=200))
    truth = wave_and_bump if bump else (lambda x: torch.sin(37 * x))
    return PDE(d(u, "x", 2) == Noisy(values, noise), [Dirichlet(u, truth)]).solve(grid=200, progress=False)


def test_a_wave_alone_is_taken_for_a_wave() -> None:
    solution = solved(0, bump=False)
    assert solution.diagnostics["components"]["averaged"] == 0.0


def test_slow_parts_of_a_bump_are_counted_on() -> None:
    """The slowest part of the bump is as large as what noise makes of it: the likeliest spectrum may leave it out."""
    points = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)[:, None]
    covered, sizes = [], []
    for seed in range(12):
        solution = solved(seed, bump=True)
        sizes.append(solution.diagnostics["components"]["averaged"])
        off = (solution.mean(points) - wave_and_bump(points[:, 0])).abs()
        covered.append(float((off <= 1.96 * solution.std(points)).double().mean()))
    assert np.count_nonzero(sizes) >= 7 and max(sizes) < 2.0
    assert 0.80 <= np.mean(covered) <= 0.99


def half_a_bump(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(37 * x) + 0.5 * torch.exp(-100 * (x - 0.4) ** 2)


def test_what_noise_hides_is_counted_on_where_it_is_asked_for() -> None:
    """Half of the bump under a fifth of noise leaves the spectrum of a wave alone, whose intervals are too narrow."""
    points, x = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)[:, None], torch.linspace(0, 1, 200).double()
    u = Field("u", Box(x=(0, 1)))
    source = -(37**2) * torch.sin(37 * x) + 0.5 * (its_second_derivative(x) + 37**2 * torch.sin(37 * x))
    noise = 0.2 * float(source.std())
    covered: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(8):
        values = source + noise * torch.from_numpy(np.random.default_rng(seed).normal(size=200))
        problem = PDE(d(u, "x", 2) == Noisy(values, noise), [Dirichlet(u, half_a_bump)])
        for hidden, own in covered.items():
            solution = problem.solve(grid=200, progress=False, hidden=hidden)
            off = (solution.mean(points) - half_a_bump(points[:, 0])).abs()
            own.append(float((off <= 1.96 * solution.std(points)).double().mean()))
    assert np.mean(covered[False]) < 0.8 and 0.87 <= np.mean(covered[True]) <= 0.995
    with pytest.raises(InvalidDataError, match='hidden=True is an option of method="spectral"'):
        problem.solve(grid=200, progress=False, hidden=True, method="exact")
