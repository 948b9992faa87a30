"""The table of methods and problems: every cell has a mean, a standard deviation and draws, or a sentence why not."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Noisy, laplacian

SIZES = {1: (16,), 2: (8, 7), 3: (5, 6, 5)}
METHODS = {
    "spectral": {"method": "spectral"},
    "picked": {"basis": "picked"},
    "exact": {"method": "exact"},
    "gphm": {"method": "gphm", "iterations": 3, "mixtures": 4},
    "gauss-newton": {"method": "gphm", "optimiser": "gauss-newton", "mixtures": 4, "learn": False},
}
NOISE = 0.3


def truth(which: int, *x: Tensor) -> Tensor:
    return math.prod((torch.sin((2 + which) * c + 0.4) for c in x), start=torch.ones(()))


def stated(dim: int, fields: int, nonlinear: bool, source: str, generator: torch.Generator) -> PDE:
    box = Box(**dict.fromkeys("xyz"[:dim], (0, 1)))
    names = [Field(name, box) for name in "uv"[:fields]]
    axes = [torch.linspace(0, 1, n, dtype=torch.float64) for n in SIZES[dim]]
    equations = []
    for k, u in enumerate(names):
        left = laplacian(u) + (u**3 if nonlinear else 0) + (0.5 * names[1 - k] if fields == 2 else 0)

        def right(*x: Tensor, k: int = k) -> Tensor:
            total = -dim * (2 + k) ** 2 * truth(k, *x) + (truth(k, *x) ** 3 if nonlinear else 0.0)
            return total + (0.5 * truth(1 - k, *x) if fields == 2 else 0.0)

        values = right(*torch.meshgrid(*axes, indexing="ij"))
        noise = NOISE * torch.randn(values.shape, generator=generator, dtype=torch.float64)
        given = {"callable": right, "gridded": values, "noisy": None}[source]
        equations.append(left == (Noisy(values + noise, NOISE) if given is None else given))
    return PDE(equations, [Dirichlet(u, lambda *x, k=k: truth(k, *x)) for k, u in enumerate(names)])


def cells():
    for method, dim, fields, nonlinear, source in itertools.product(
        METHODS, (1, 2, 3), (1, 2), (False, True), ("callable", "gridded", "noisy")
    ):
        # What is dense in three dimensions takes seconds on any grid, and is tested elsewhere.
        dense = method == "exact" or (method == "spectral" and source == "noisy")
        refused = method == "picked" and source == "noisy"
        few = dim + fields + nonlinear
        three = (dim, few) == (3, 4) and not refused and (method != "exact" or source == "callable")
        if few < (3 if refused else 4 if dense else 5) or three:
            name = f"{method}, {dim}-D, {fields} fields, {'non' * nonlinear}linear, {source}"
            yield pytest.param(method, dim, fields, nonlinear, source, id=name)


@pytest.mark.filterwarnings("ignore::gpkit.errors.ConvergenceWarning")  # sizes are small; errors are compared below
@pytest.mark.parametrize(("method", "dim", "fields", "nonlinear", "source"), list(cells()))
def test_every_cell_answers_or_says_why_not(method, dim, fields, nonlinear, source, generator):
    problem = stated(dim, fields, nonlinear, source, generator)
    if method == "picked" and source == "noisy":
        with pytest.raises(InvalidDataError, match='basis="picked" is for exact equations'):
            problem.solve(SIZES[dim], progress=False, **METHODS[method])
        return
    solution = problem.solve(SIZES[dim], progress=False, **METHODS[method])
    points = torch.rand(4, dim, generator=generator, dtype=torch.float64)
    draws = solution.sample(3, seed=0)
    for k, name in enumerate(solution.names):
        error = (solution[name].mean(points) - truth(k, *points.T)).abs()
        std = solution[name].std(points)
        assert bool(torch.isfinite(std).all()) and bool((std > 0).all())
        assert draws(points, name).shape == (3, 4) and bool(torch.isfinite(draws(points, name)).all())
        assert solution[name].gradient(points).shape == (4, dim)
        if not method.startswith("g"):
            assert bool((error <= 5.0 * std + 1e-12).all()) or not solution.is_trustworthy
        else:
            assert not solution.is_trustworthy  # a few steps, or four components that nobody has trained
            assert "Laplace" in solution.diagnostics["uncertainty"]


def test_a_noisy_function_is_refused() -> None:
    with pytest.raises(InvalidDataError, match="noisy values are measurements, and a function has none"):
        Noisy(torch.sin, 0.1)
