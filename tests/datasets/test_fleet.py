"""Many files at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpkit.datasets import read_fleet
from gpkit.errors import InvalidDataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.csv").write_text("time,value,error\n1,2,0.1\n2,3,0.1\n")
    (tmp_path / "notes.txt").write_text("nothing to see here\n")
    (tmp_path / ".hidden").write_text("1 2 3\n")
    (tmp_path / "deeper").mkdir()
    return tmp_path


def test_directory(folder: Path) -> None:
    fleet = read_fleet(folder)
    assert [curve.name for curve in fleet] == ["a", "b", "c"]
    assert len(fleet) == 3 and fleet[1].name == "b"
    assert list(fleet.errors) == [str(folder / "notes.txt")]
    assert "is not a table" in str(fleet.errors[str(folder / "notes.txt")])


def test_pattern_paths_and_options(folder: Path) -> None:
    assert not read_fleet(folder, pattern="*.csv").errors
    fleet = read_fleet([folder / "c.csv", str(folder / "a.csv")], error=0.5, progress=False)
    assert [curve.name for curve in fleet] == ["c", "a"] and fleet[0].error.tolist() == [0.5, 0.5]
    assert len(read_fleet(folder / "a.csv")) == 1


def test_refusals(folder: Path) -> None:
    with pytest.raises(InvalidDataError, match="notes.txt: is not a table"):
        read_fleet(folder, on_error="raise")
    with pytest.raises(InvalidDataError, match="none of the 1 files is a light curve; the first: notes.txt"):
        read_fleet(folder, pattern="*.txt")
    with pytest.raises(InvalidDataError, match="no file matches '\\*.fits'"):
        read_fleet(folder, pattern="*.fits")
    with pytest.raises(InvalidDataError, match="no such directory"):
        read_fleet(folder / "nowhere")
    with pytest.raises(InvalidDataError, match="list of files is empty"):
        read_fleet([])
