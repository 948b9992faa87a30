"""Every entry of the model zoo runs at a small size and prints a table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = sorted(path.parent.name for path in ROOT.glob("models/*/run.py"))


def _run(entry: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(ROOT / "models" / entry / "run.py"), "--quick"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _tables(text: str) -> list[list[list[str]]]:
    """Rows of cells of each Markdown table, its head and rule left out."""
    blocks = re.findall(r"(?:^\|.*\|\n){3,}", text, flags=re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in b.splitlines()[2:]] for b in blocks]


def test_there_are_entries() -> None:
    assert ENTRIES


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_has_a_card_and_a_configuration(entry: str) -> None:
    card = (ROOT / "models" / entry / "README.md").read_text(encoding="utf-8")
    assert f"models/{entry}/run.py" in card and "tolerance" in card.lower()
    assert (ROOT / "models" / entry / "config.toml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_prints_tables_without_the_real_data(entry: str, tmp_path: Path) -> None:
    tables = _tables(_run(entry, GPKIT_REAL_DATA=str(tmp_path)))
    assert tables and all(any(re.search(r"\d", cell) for cell in row) for rows in tables for row in rows)
    assert not any("nan" in cell.lower().split() for rows in tables for row in rows for cell in row)


@pytest.mark.slow
@pytest.mark.realdata
def test_weekly_blazars_have_the_expected_differences() -> None:
    from tests.realdata import real_data_path

    real_data_path("light_curves", "3c454.3_fermi_lcr_weekly.csv")
    text = _run("blazar_flares")
    cells = re.findall(r"(-?[\d.]+) \((-?[\d.]+)\)", text.split("Largest deviation")[0])
    assert len(cells) == 8
    assert all(abs(float(ours) - float(expected)) <= 0.5 for ours, expected in cells)
