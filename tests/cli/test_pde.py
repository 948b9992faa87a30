"""``gpkit pde``: problems in files, their results, and what is wrong with them on one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gpkit.cli import main
from gpkit.cli.common import BAD_INPUT, INTERRUPTED

BEAM = """
title = "A beam"
equations = ["d(u, 'x', 4) = d(g, 'x', 4)"]
exact = "g"

[domain]
x = [0, "pi"]

[definitions]
g = "sin(x)**2 * exp(x / 3)"

[[condition]]
type = "dirichlet"

[[condition]]
type = "neumann"

[solve]
grid = 60
"""

ROD = """
equations = ["dt(u) = k*laplacian(u)"]

[domain]
x = [0, 1]
t = [0, 0.5]

[unknowns]
k = {prior = "lognormal", mean_log = -1, sd_log = 1}

[[condition]]
type = "initial"
value = "sin(pi*x)"

[[condition]]
type = "dirichlet"

[[observation]]
file = "measured.csv"
noise = 0.01
"""


@pytest.fixture
def beam(tmp_path: Path) -> Path:
    path = tmp_path / "beam.toml"
    path.write_text(BEAM, encoding="utf-8")
    return path


@pytest.fixture
def rod(tmp_path: Path) -> Path:
    points = np.array([[0.5, 0.1], [0.3, 0.3], [0.6, 0.4], [0.2, 0.2]])
    values = np.exp(-0.3 * np.pi**2 * points[:, 1]) * np.sin(np.pi * points[:, 0]) + [0.004, -0.003, 0.006, 0.0]
    np.savetxt(tmp_path / "measured.csv", np.column_stack([points, values]), delimiter=",")
    path = tmp_path / "rod.toml"
    path.write_text(ROD, encoding="utf-8")
    return path


def test_a_problem_gives_a_report_numbers_and_arrays(
    beam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert main(["pde", str(beam), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "u_xxxx" in printed and "error against the known solution" in printed
    numbers = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert numbers["relative_error"] < 1e-8 and numbers["trustworthy"] and numbers["grid"] == [60]
    with np.load(out / "solution.npz") as arrays:
        truth = np.sin(arrays["x"]) ** 2 * np.exp(arrays["x"] / 3)
        np.testing.assert_allclose(arrays["u_mean"], truth, atol=1e-8)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "A beam" in html and "Residual" in html and "gpkit pde" in html


def test_unknowns_are_inferred_from_a_data_file_and_kept(
    rod: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    arguments = ["pde", str(rod), "--out", str(out), "--grid", "14x12", "--draws", "50"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    first = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    (unknown,) = first["unknowns"]
    # Four values of noise 0.01: the truth is in the interval, and the interval is about as wide as they allow.
    assert unknown["low"] < 0.3 < unknown["high"] and 0.005 < unknown["high"] - unknown["low"] < 0.05
    said = re.search(r"k = ([0-9.]+) \+- ([0-9.]+)", printed)
    assert said and float(said[1]) == pytest.approx(unknown["mean"], abs=1e-4)
    assert abs(float(said[1]) - 0.3) < 3.0 * float(said[2]) < 0.05
    assert (out / "posterior.nc").exists()
    assert main([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert "kept from an earlier run" in said.err
    assert json.loads(said.out)["unknowns"] == first["unknowns"]
    assert main([*arguments[:-2], "--draws", "60", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out == said.err == ""  # other settings: computed again


def test_an_interruption_loses_nothing(beam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("gpkit.models.pde.reporting.report_content", interrupted)
        assert main(["pde", str(beam), "--out", str(out)]) == INTERRUPTED
    assert sorted(p.name for p in out.iterdir()) == ["solution.gpkit", "solution.npz"]
    with monkeypatch.context() as patched:
        patched.setattr("gpkit.models.pde.problem.PDE.solve", interrupted)
        assert main(["pde", str(beam), "--out", str(out), "--quiet"]) == 0  # nothing is solved again


PLATE = """
equation = "laplacian(u) = -2*sin(x)*sin(y)"
exact = "sin(x)*sin(y)"
grid = [30, 24]

[domain]
x = [0, "pi"]
y = [0, "pi"]

[boundary]
type = "dirichlet"
value = 0
"""


def test_the_four_words_of_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plate.toml"
    out = tmp_path / "out"
    for grid in ("[30, 24]", "{y = 24, x = 30}"):
        path.write_text(PLATE.replace("[30, 24]", grid), encoding="utf-8")
        assert main(["pde", str(path), "--out", str(out)]) == 0
        numbers = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        assert numbers["grid"] == [30, 24] and numbers["relative_error"] < 1e-8
    assert main(["pde", str(path), "--out", str(out), "--grid", "20", "--basis", "broadband", "--quiet"]) == 0
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["grid"] == [20, 20]


def test_noise_that_the_file_calls_unknown(tmp_path: Path) -> None:
    x = np.linspace(0, np.pi, 120)
    values = -9 * np.sin(3 * x) + 0.5 * np.random.default_rng(0).normal(size=120)
    np.save(tmp_path / "f.npy", values)
    path = tmp_path / "noisy.toml"
    path.write_text(
        'equation = "laplacian(u) = f"\ngrid = 120\n[domain]\nx = [0, "pi"]\n'
        '[data]\nf = {file = "f.npy", noise = "unknown"}\n[[boundary]]\ntype = "dirichlet"\n',
        encoding="utf-8",
    )
    assert main(["pde", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    numbers = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert numbers["diagnostics"]["noise_levels"] == [pytest.approx(0.5, rel=0.2)]
    with np.load(tmp_path / "out" / "solution.npz") as arrays:
        np.testing.assert_allclose(arrays["u_mean"], np.sin(3 * arrays["x"]), atol=0.15)
    assert "Noise that was found" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_sampling_is_asked_for_in_the_file(rod: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampling = '\n[solve]\ngrid = [10, 8]\ninference = "nuts"\ndraws = 200\ntune = 100\nchains = 2\n'
    rod.write_text(ROD + sampling, encoding="utf-8")
    assert main(["pde", str(rod), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "No-U-turn" in printed
    numbers = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert numbers["unknowns"][0]["low"] < 0.3 < numbers["unknowns"][0]["high"]
    assert numbers["diagnostics"]["r_hat"] < 1.1 and numbers["diagnostics"]["effective_draws"] > 15
    assert "Worst r-hat of the chains" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


SEEN = ROD.replace('file = "measured.csv"', "points = [[0.5, 0.1]]\nvalues = [0.7]")

WRONG = {
    "no domain": ('equations = ["laplacian(u) = 0"]', "'domain' is missing"),
    "unknown entry": (BEAM + "\n[solver]\nn = 3\n", "no entry 'solver'"),
    "not TOML": ("equations = [", "is not a TOML file"),
    "code": (BEAM.replace("sin(x)**2", "__import__('os').system('true')"), "may not stand in an expression"),
    "attribute": (BEAM.replace("sin(x)**2", "x.real"), "may not stand in an expression"),
    "unknown name": (BEAM.replace("sin(x)**2", "sinus(x)"), "there is no 'sinus'"),
    "two equals signs": (BEAM.replace("= d(g", "= 0 = d(g"), "one equals sign"),
    "unfinished": (BEAM.replace("sin(x)**2", "sin(x"), "is not an expression"),
    "bad domain": (BEAM.replace('[0, "pi"]', '[0, "pie"]'), "domain.x"),
    "reversed domain": (BEAM.replace('[0, "pi"]', '["pi", 0]'), "from a smaller to a larger"),
    "condition type": (BEAM.replace('"neumann"', '"newman"'), "no type 'newman'"),
    "condition entry": (BEAM.replace('type = "neumann"', 'type = "neumann"\nvelocity = 1'), "no entry 'velocity'"),
    "too few conditions": (BEAM.replace('[[condition]]\ntype = "neumann"', ""), "needs 4 conditions"),
    "grid": (BEAM.replace("grid = 60", "grid = 2"), "too small"),
    "field in the solution": (BEAM.replace('exact = "g"', 'exact = "u"'), "exact must not hold fields"),
    "name used twice": (BEAM.replace("g = ", "x = "), "used twice"),
    "missing data": (ROD, "no file measured.csv beside"),
    "prior": (ROD.replace('"lognormal"', '"cauchy"'), "no prior 'cauchy'"),
    "prior argument": (ROD.replace("sd_log = 1", "low = 1"), "needs mean_log and sd_log"),
    "huge power": (BEAM.replace("sin(x)**2", "9**9**9"), "cannot be computed"),
    "close word": (BEAM.replace("[domain]", "[domian]"), "did you mean 'domain'?"),
    "two words": (BEAM + '\n[[boundary]]\ntype = "neumann"\n', "two words for the same"),
    "two grids": ("grid = 30\n" + BEAM, "given twice"),
    "grid of an axis": (PLATE.replace("[30, 24]", "{x = 30}"), "grid needs the entry 'y'"),
    "close type": (BEAM.replace('"neumann"', '"neuman"'), "did you mean 'neumann'?"),
    "close prior": (ROD.replace('"lognormal"', '"lognormall"'), "did you mean 'lognormal'?"),
    "method": (BEAM + 'method = "spectrall"\n', "did you mean 'spectral'?"),
    "sampler": (BEAM + 'inference = "hmc"\n', "no inference 'hmc': choose from laplace, nuts"),
    "hidden": (BEAM + 'hidden = "yes"\n', "hidden is true or false"),
    "unused unknown": (SEEN.replace("k*laplacian(u)", "laplacian(u)"), "unknowns.k stands in no equation"),
    "method of unknowns": (SEEN + '[solve]\nmethod = "exact"\n', "method is for problems without unknowns"),
    "negative noise": (SEEN.replace("noise = 0.01", "noise = -0.01"), "zero or more; got -0.01"),
    "gain": (SEEN.replace("noise = 0.01", 'of = "k*u"\nnoise = 0.01'), "observed expression holds no unknown numbers"),
    "draws": (BEAM + 'draws = "many"\n', "draws must be a whole number"),
    "equation": (PLATE.replace('"laplacian(u) = -2*sin(x)*sin(y)"', "3"), "equation must be a text, or a list"),
    "equations": (PLATE.replace('equation = "laplacian(u) = -2*sin(x)*sin(y)"', "equations = [1]"), "a text, got int"),
    "four axes": (
        PLATE.replace("[domain]", "[domain]\nz = [0, 1]\nw = [0, 1]"),
        "problem.toml: domain: a box has one to",
    ),
    "too deep": (BEAM.replace("sin(x)**2", "(" * 300 + "x" + ")" * 300), "'... is not an expression at column"),
    "deep": (BEAM.replace("sin(x)**2", "(" * 90 + "x" + ")" * 90 + "+" + "-" * 90 + "x"), "nested too deeply"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_on_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = WRONG[name]
    path = tmp_path / "problem.toml"
    path.write_text(text, encoding="utf-8")
    assert main(["pde", str(path), "--out", str(tmp_path / "out")]) == BAD_INPUT
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and said.startswith("gpkit: ")
    assert not (tmp_path / "out" / "report.html").exists()


def test_options_that_cannot_be(beam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pde", str(tmp_path / "nothing.toml")]) == BAD_INPUT
    assert "there is no file" in capsys.readouterr().err
    assert main(["pde", str(tmp_path)]) == BAD_INPUT
    assert "is a folder" in capsys.readouterr().err
    assert main(["pde", str(beam), "--grid", "many", "--out", str(tmp_path / "o")]) == BAD_INPUT
    assert "--grid 'many'" in capsys.readouterr().err
