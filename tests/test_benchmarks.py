"""The benchmarks run and report; nothing is asserted about speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PARTS = ("evidence", "sums", "posterior", "training", "accuracy", "sampling", "chains", "startup", "fleet")


def run(
    *arguments: str, script: str = "light_curves.py", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    target = tmp_path_factory.mktemp("benchmarks") / "rows.json"
    # The fleet is simulated, so that the test does not depend on data that are not shipped.
    absent = {"GPKIT_REAL_DATA": str(target.parent / "absent")}
    finished = run("--smoke", "--json", str(target), environment=absent)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout, json.loads(target.read_text())


@pytest.mark.slow
def test_every_part_gives_rows(report):
    text, found = report
    sections = {row["section"] for row in found["rows"]}
    assert text.count("### ") == len(sections) >= len(PARTS)
    for row in found["rows"]:
        assert row["value"] is None or row["value"] == row["value"]
        assert row["what"] in text


@pytest.mark.slow
def test_absent_peers_are_said_to_be_absent(report):
    text, found = report
    versions = found["header"]["versions"]
    assert versions["torch"] in text
    for row in found["rows"]:
        if "celerite2 C++" in row["what"]:
            missing = versions["celerite2"] == "not installed"
            assert (row["value"] is None) == missing
            assert (row["verdict"] == "not installed") == missing


@pytest.mark.slow
def test_accuracy_is_measured_against_dense_matrices(report):
    _, found = report
    errors = [row["value"] for row in found["rows"] if row["section"] == "Accuracy" and "comparison" not in row["what"]]
    assert len(errors) == 3
    assert max(errors) < 1e-6


@pytest.mark.slow
def test_state_space_engine_agrees_with_its_peers_before_it_is_timed(tmp_path):
    finished = run("--smoke", "--json", str(tmp_path / "rows.json"), script="state_space.py")
    assert finished.returncode == 0, finished.stderr[-2000:]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["section"].split(",")[0] for row in rows} >= {"Filter and smoother", "Growth with the number of nodes"}
    assert any("numpy" in row["what"] and row["value"] > 0.0 for row in rows)


@pytest.mark.slow
def test_fields_beside_every_single_kernel(tmp_path):
    absent = {"GPKIT_REAL_DATA": str(tmp_path)}
    finished = run("--smoke", script="fields_auto.py", environment=absent)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.count("few data") == 2
    assert all(f"\n{label}: worst" in finished.stdout for label in ("set", "split", "left-out"))
    for table in ("--coverage", "--singularities"):
        finished = run(table, "--sets", "sphere", script="fields_auto.py", environment=absent)
        assert finished.returncode == 0 and "absent" in finished.stdout


@pytest.mark.slow
def test_tensors_give_every_part(tmp_path):
    absent = {"GPKIT_REAL_DATA": str(tmp_path)}
    target = tmp_path / "rows.json"
    parts = ("--only", "sweeps,fits,real,simulated,gaps,growth")
    finished = run("--smoke", *parts, "--json", str(target), script="functional_tensor.py", environment=absent)
    assert finished.returncode == 0, finished.stderr[-2000:]
    rows = json.loads(target.read_text())["rows"]
    assert {row["section"] for row in rows} == {
        "Sweeps",
        "Complete fits",
        "Complete fits, real table",
        "Simulated tables",
        "Gaps",
        "Growth",
    }
    assert all((row["value"] is None) == ("absent" in row["what"]) for row in rows)
    noise = [row["value"] for row in rows if "noise off by" in row["what"]]
    assert noise and max(noise) < 0.05


@pytest.mark.slow
def test_pieces_of_tensor_tables_agree(tmp_path):
    target = tmp_path / "rows.json"
    finished = run("--smoke", "--only", "pieces", "--json", str(target), script="functional_tensor_agreement.py")
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = {row["what"]: row["value"] for row in json.loads(target.read_text())["rows"]}
    assert found["pieces of 300, no stochastic pass: gap"] < 1e-6
    assert found["two stochastic passes, then to convergence: gap"] < 0.5


def test_unknown_parts_are_refused():
    finished = run("--only", "nonsense")
    assert finished.returncode == 2
    assert "no such part: nonsense" in finished.stderr


def test_verdicts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _measure import Row, slope

    assert Row("s", "w", 4.0, 3.0, 5.0).verdict == "reached"
    assert Row("s", "w", 6.0, 3.0, 5.0).verdict == "reached (stretch)"
    assert Row("s", "w", 2.0, 3.0, 5.0).verdict == "MISSED"
    assert Row("s", "w", 2.0, 3.0, upper=True).verdict == "reached"
    assert Row("s", "w", 4.0, 3.0, upper=True).verdict == "MISSED"
    assert Row("s", "w", None, 3.0).verdict == "not installed"
    assert Row("s", "w", 4.0).verdict == ""
    assert slope([10, 100, 1000], [2.0, 20.0, 200.0]) == pytest.approx(1.0)


@pytest.mark.slow
def test_grids_beside_their_peers():
    command = [sys.executable, str(BENCHMARKS / "grids.py"), "--quick", "--only", "exactness,toeplitz"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.count("### ") == 2 and "MISSED" not in finished.stdout


@pytest.mark.slow
def test_geometry_has_the_spectra_and_invariances_that_it_is_timed_with(tmp_path):
    finished = run("--smoke", "--json", str(tmp_path / "rows.json"), script="geometry.py")
    assert finished.returncode == 0, finished.stderr[-2000:]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    sections = {row["section"] for row in rows}
    assert finished.stdout.count("### ") == len(sections) == 8
    named = {row["what"]: row["value"] for row in rows}
    assert all(value is not None and value == value for value in named.values())
    turned = next(value for what, value in named.items() if what.startswith("rotation"))
    assert turned < 1e-9
    spheres = [row["value"] for row in rows if "l <= 4" in row["what"]]
    assert len(spheres) == 2 and max(spheres) < 5.0, "per cent, at the small size"
    walks = {what: value for what, value in named.items() if "relative error" in what}
    spread, independent = (next(v for k, v in walks.items() if word in k) for word in ("spread", "independent"))
    assert spread < independent < 0.5


@pytest.mark.slow
def test_exact_conditioning_on_equations_beside_its_peers():
    finished = run("--small", script="pde_exact.py")
    assert finished.returncode == 0, finished.stderr[-2000:]
    for table in ("iterations to 1e-8", "a point of posterior variances", "relative L2 error off the grid", "GP-HM"):
        assert table in finished.stdout
