"""Reports of solutions: what they say, and that they say so when a solution should not be used."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest
import torch

from gpkit.errors import ConvergenceWarning
from gpkit.models.pde import PDE, Box, Dirichlet, Field, Solution, d, laplacian
from gpkit.models.pde.reporting import report_content


@pytest.fixture(autouse=True)
def _not_drawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Encoding figures takes most of the time; one test draws them."""
    if "drawn" not in request.node.name:
        for encoder in ("_pixels", "_scalable"):
            monkeypatch.setattr(f"gpkit.reports.document.{encoder}", lambda _: b"")


def plane(n: int = 30) -> tuple[Solution, object]:
    u = Field("u", Box(x=(0, 1), y=(0, 1)))

    def exact(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(4 * x) * torch.cos(3 * y)

    return PDE(laplacian(u) == (lambda x, y: -25 * exact(x, y)), Dirichlet(u, exact)).solve((n, n)), exact


def test_a_drawn_report_has_fields_error_spectra_and_checks(tmp_path: Path) -> None:
    solution, exact = plane()
    html, numbers = solution.report(tmp_path / "plane.html", exact=exact, command="a command", seed=3)
    text = html.read_text(encoding="utf-8")
    for expected in ("u_xx + u_yy", "u given at x=0, x=1, y=0, y=1", "|error|", "Power along"):
        assert expected in text
    assert text.count("data:image/") >= 4 and "a command" in text
    assert "Nothing that was checked speaks against this solution" in text
    content = json.loads(numbers.read_text(encoding="utf-8"))
    assert content["trustworthy"] and content["relative_error"] < 1e-8
    assert numbers.name == "plane.json"


def test_a_solution_that_should_not_be_used_says_so_first(tmp_path: Path) -> None:
    u = Field("u", Box(x=(0, 2 * math.pi)))
    problem = PDE(d(u, "x", 2) == (lambda x: -1e4 * torch.sin(100 * x)), Dirichlet(u, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report has to say the same
        solution = problem.solve(120, method="spectral")
    html, numbers = solution.report(tmp_path)
    text = html.read_text(encoding="utf-8")
    assert "should not be used" in text and "points per period" in text
    content = json.loads(numbers.read_text(encoding="utf-8"))
    assert not content["trustworthy"] and content["findings"]


def test_three_dimensions_are_shown_in_a_slice() -> None:
    u = Field("u", Box(x=(0, 1), y=(0, 1), z=(0, 2)))

    def exact(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.sin(x + y) * torch.exp(0.5 * z)

    problem = PDE(laplacian(u) == (lambda x, y, z: -1.75 * exact(x, y, z)), Dirichlet(u, exact))
    solution = problem.solve((14, 14, 14))
    content = report_content(solution)
    assert content.fields[0].mean.note == "z = 1" and content.fields[0].mean.values.shape == (121, 121)


def test_a_solution_without_its_problem_is_reported_too(tmp_path: Path) -> None:
    solution, _ = plane(24)
    again = Solution.load(solution.save(tmp_path / "solution.gpkit"))
    html, _ = again.report(tmp_path / "report.html")
    assert "u_xx + u_yy" in html.read_text(encoding="utf-8")
