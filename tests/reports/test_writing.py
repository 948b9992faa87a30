"""Files appear whole or not at all; JSON is strict."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from gpkit.files import write_atomic
from gpkit.reports import to_json


def test_writes_text_and_bytes(tmp_path: Path) -> None:
    assert write_atomic(tmp_path / "a.txt", "Kozłowski").read_text(encoding="utf-8") == "Kozłowski"
    assert write_atomic(str(tmp_path / "a.txt"), b"new").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_leaves_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, step: str, failure: BaseException
) -> None:
    target = tmp_path / "report.html"
    if existing:
        target.write_text("old")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(failure)):
        write_atomic(target, "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == (["old"] if existing else [])


def test_numbers_that_are_not_finite_become_null() -> None:
    data = {"a": float("nan"), "b": [np.inf, np.float64(1.5)], "c": np.array([1.0, -np.inf]), "d": np.int64(3)}
    text = to_json(data | {"e": np.bool_(True), "f": None, "g": (1, "ł")})
    expected = {"a": None, "b": [None, 1.5], "c": [1.0, None], "d": 3, "e": True, "f": None, "g": [1, "ł"]}
    assert json.loads(text, parse_constant=pytest.fail) == expected
    assert "ł" in text


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError, match="set"):
        to_json({"a": {1}})
    with pytest.raises(TypeError, match="keys"):
        to_json({1: 2})
