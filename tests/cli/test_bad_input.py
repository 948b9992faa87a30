"""Every bad input ends in one line on stderr and exit code 2 or 1, or in a counted exclusion; never in a traceback."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Columns, N, Outcome

Run = Callable[..., Outcome]


def _spoiled(columns: Columns, what: str, row: int, entry: Any) -> Columns:
    getattr(columns, what)[row] = entry
    return columns


def _every(columns: Columns, what: str, entry: Any) -> Columns:
    setattr(columns, what, [entry] * N)
    return columns


def _scaled(columns: Columns, **factors: float) -> Columns:
    for what, factor in factors.items():
        setattr(columns, what, [x * factor for x in getattr(columns, what)])
    return columns


REFUSED: dict[str, tuple[Callable[[Columns], Columns], str]] = {
    "zero error": (lambda c: _spoiled(c, "error", 3, 0.0), "zero or negative.*line 5.*--bad-errors drop"),
    "negative error": (lambda c: _spoiled(c, "error", 3, -0.1), "zero or negative.*line 5"),
    "constant": (lambda c: _every(c, "value", 2.0), "constant"),
    "constant but for rounding": (
        lambda c: _spoiled(_every(c, "value", 2.0), "value", 3, 2.0 + 4e-16),
        "differ only by rounding",
    ),
    "one time": (lambda c: _every(c, "time", 3.0), "three different times"),
    "no finite value": (lambda c: _every(c, "value", "nan"), "none of the 24 rows"),
    "words as values": (lambda c: _every(c, "value", "bright"), "line 2.*'bright' is not a number"),
    "huge values": (lambda c: _scaled(c, value=1e300, error=1e300), "another unit"),
    "tiny values": (lambda c: _scaled(c, value=1e-300, error=1e-300), "another unit"),
    "huge errors": (lambda c: _scaled(c, error=1e200), "another unit"),
    "huge times": (lambda c: _scaled(c, time=1e200), "give them in a unit"),
}


def _refused(outcome: Outcome, code: int = 2) -> None:
    assert outcome.code == code and outcome.out == ""
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("gpkit: "), outcome.err


@pytest.mark.parametrize("case", REFUSED)
def test_refused_content(gpkit: Run, columns: Columns, tmp_path: Path, case: str) -> None:
    spoil, said = REFUSED[case]
    path = spoil(columns).write(tmp_path / "curve.csv")
    outcome = gpkit("lightcurve", path, "--no-sample", "--out", tmp_path / "out")
    _refused(outcome)
    assert pytest.approx(1) == len([line for line in outcome.err.splitlines() if _matches(said, line)])
    assert not (tmp_path / "out").exists(), "nothing is written for bad input"


def _matches(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text) is not None


@pytest.mark.parametrize(("rows", "said"), [(0, "not a table"), (1, "at least 3 detections"), (2, "at least 3")])
def test_too_few_rows(gpkit: Run, columns: Columns, tmp_path: Path, rows: int, said: str) -> None:
    path = columns.write(tmp_path / "curve.csv", range(rows))
    outcome = gpkit("lightcurve", path, "--no-sample", "--out", tmp_path / "out")
    _refused(outcome)
    assert said in outcome.err


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "prose": (b"It was a dark and stormy night.\nThe rain fell in torrents.\n" * 20, "not a table"),
    "binary": (bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)), "binary"),
    "zeros": (b"\0" * 4000, "binary"),
    "broken FITS": (b"SIMPLE  =                    T" + b"\0" * 3000, "FITS"),
    "upper limits": (
        b"time,value,error,upper_limit\n" + b"".join(b"%d,%d.5,0.1,1\n" % (k, k % 5) for k in range(20)),
        "upper limits",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_refused_file(gpkit: Run, tmp_path: Path, case: str) -> None:
    content, said = FILES[case]
    path = tmp_path / "curve.dat"
    path.write_bytes(content)
    outcome = gpkit("lightcurve", path, "--no-sample", "--out", tmp_path / "out")
    _refused(outcome)
    assert said in outcome.err and not (tmp_path / "out").exists()


def test_missing_file_and_folder(gpkit: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.csv", tmp_path):
        outcome = gpkit("lightcurve", path)
        _refused(outcome)
        assert str(path) in outcome.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kernels", "sho,rbf"), "unknown kernel 'rbf'"),
        (("--kernels", ","), "unknown kernel"),
        (("--kernels", "sho,SHO"), "named twice"),
        (("--format", "xml"), "xml"),
        (("--transform", "sqrt"), "sqrt"),
        (("--value", "flux"), "flux"),
        (("--value", "7"), "7"),
        (("--band", "r"), "band 'r'"),
        (("--draws", "-5"), "-5 is not between"),
        (("--draws", "3"), "3 is not between"),
        (("--chains", "0"), "0 is not between"),
        (("--tune", "many"), "'many' is not a whole number"),
        (("--seed", "-1"), "-1 is not between"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_refused_options(gpkit: Run, columns: Columns, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    outcome = gpkit("lightcurve", columns.write(tmp_path / "curve.csv"), "--out", tmp_path / "out", *options)
    _refused(outcome)
    assert said in outcome.err and not (tmp_path / "out").exists()


def test_log_of_flux_that_is_not_positive(gpkit: Run, columns: Columns, tmp_path: Path) -> None:
    path = _spoiled(columns, "value", 4, -1.0).write(tmp_path / "curve.csv")
    outcome = gpkit("lightcurve", path, "--transform", "log", "--out", tmp_path / "out")
    _refused(outcome)
    assert "1 of 24 values are not positive" in outcome.err and "--transform none" in outcome.err


def test_folder_that_cannot_be_used(gpkit: Run, columns: Columns, tmp_path: Path, monkeypatch: Any) -> None:
    path = columns.write(tmp_path / "curve.csv")
    taken = tmp_path / "taken"
    taken.write_text("mine")
    _refused(gpkit("lightcurve", path, "--no-sample", "--out", taken))
    assert taken.read_text() == "mine"
    _refused(gpkit("lightcurve", path, "--no-sample", "--out", taken / "below"), code=1)
    monkeypatch.setattr("gpkit.cli.common.os.access", lambda *_: False)
    outcome = gpkit("lightcurve", path, "--no-sample", "--out", tmp_path / "out")
    _refused(outcome, code=1)
    assert "cannot be written" in outcome.err


def test_full_disk_leaves_no_part_of_a_file(
    gpkit: Run, columns: Columns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "model_drw.gpkit")

    monkeypatch.setattr("gpkit.files.os.replace", fail)
    out = tmp_path / "out"
    words = ("lightcurve", columns.write(tmp_path / "c.csv"), "--no-sample", "--kernels", "drw", "--out", out)
    outcome = gpkit(*words)
    _refused(outcome, code=1)
    assert "No space left on device" in outcome.err and list(out.iterdir()) == []


def test_unexpected_errors_are_one_line(gpkit: Run, columns: Columns, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("over\nmany lines")

    monkeypatch.setattr("gpkit.models.light_curve_gp.LightCurveGP.fit", fail)
    path = columns.write(tmp_path / "curve.csv")
    outcome = gpkit("lightcurve", path, "--no-sample", "--out", tmp_path / "out")
    _refused(outcome, code=1)
    assert "ZeroDivisionError: over many lines" in outcome.err


def _numbers(data: Any) -> list[float]:
    if isinstance(data, dict):
        return [x for entry in data.values() for x in _numbers(entry)]
    return [float(data)] if isinstance(data, int | float) else []


@pytest.mark.parametrize(
    ("spoil", "n_dropped", "options"),
    [
        (lambda c: _spoiled(_spoiled(c, "value", 3, "nan"), "value", 9, "inf"), 2, ()),
        (lambda c: _spoiled(c, "time", 3, "nan"), 1, ()),
        (lambda c: _spoiled(c, "error", 3, 0.0), 1, ("--bad-errors", "drop")),
    ],
)
def test_exclusions_are_counted_everywhere(
    gpkit: Run, columns: Columns, tmp_path: Path, spoil: Any, n_dropped: int, options: tuple[str, ...]
) -> None:
    path, out = spoil(columns).write(tmp_path / "curve.csv"), tmp_path / "out"
    outcome = gpkit("lightcurve", path, "--no-sample", "--kernels", "drw", "--out", out, *options)
    assert outcome.code == 0, outcome.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["light_curve"]["n_dropped"] == n_dropped and summary["light_curve"]["n"] == N - n_dropped
    rows = f"{n_dropped} row{'s' * (n_dropped > 1)} dropped"
    assert rows in outcome.out and "rows-dropped" in {warning["code"] for warning in summary["warnings"]}
    assert "Rows dropped: " in (out / "report.html").read_text()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: Columns(c.time[::-1], c.value[::-1], c.error),
        lambda c: Columns([t for t in c.time[:12] for _ in (0, 1)], c.value, c.error),
        lambda c: _spoiled(_spoiled(c, "time", 6, c.time[5] + 1e-12), "time", 11, c.time[10] + 1e-12),
        lambda c: _scaled(c, error=1e-200),
    ],
    ids=["unsorted", "repeated times", "times differing by 1e-12", "errors that vanish"],
)
def test_awkward_content_is_fitted(gpkit: Run, columns: Columns, tmp_path: Path, spoil: Any) -> None:
    path = spoil(columns).write(tmp_path / "curve.csv")
    outcome = gpkit(
        "lightcurve", path, "--no-sample", "--kernels", "drw", "--starts", 3, "--out", tmp_path / "out", "--json"
    )
    assert outcome.code == 0, outcome.err
    numbers = _numbers(json.loads(outcome.out)["kernels"])
    assert len(numbers) > 8 and all(math.isfinite(number) for number in numbers)


def test_three_points_are_the_fewest(gpkit: Run, columns: Columns, tmp_path: Path) -> None:
    path = columns.write(tmp_path / "curve.csv", range(3))
    outcome = gpkit("lightcurve", path, "--no-sample", "--kernels", "drw,sho", "--out", tmp_path / "out")
    assert outcome.code == 0 and "nan" not in outcome.out.lower()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["best"]["aicc"] is None and summary["kernels"]["sho"]["aicc"] is None
    assert "aicc-undefined" in {warning["code"] for warning in summary["warnings"]}


def test_no_traceback_from_a_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpkit.cli", "lightcurve", str(tmp_path / "nowhere.csv")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
