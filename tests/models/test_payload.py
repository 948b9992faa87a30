"""Files of models: complete, of one kind, and refused with a sentence otherwise."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.models.payload import PayloadFormat

FORMAT = PayloadFormat("gpkit test", 2, "a test file", ("a",), oldest=2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = FORMAT.write(tmp_path / "x.gpkit", {"a": 1, "b": torch.arange(3)})
    entries = FORMAT.read(path)
    assert set(entries) == {"a", "b"} and entries["a"] == 1
    assert torch.equal(entries["b"], torch.arange(3))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no file"),
        (b"not a file of torch", "is not a test file"),
        ({"format": "another", "version": 1, "a": 1}, "is not a test file"),
        ([1, 2], "is not a test file"),
        ({"format": "gpkit test", "version": 3, "a": 1}, "newer gpkit"),
        ({"format": "gpkit test", "version": 2}, "not complete.*'a'"),
        ({"format": "gpkit test", "version": 1, "a": 1}, r"older gpkit \(format 1\).*formats 2 to 2\): fit and save"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "x.gpkit"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InvalidDataError, match=says):
        FORMAT.read(path)


def test_what_no_file_can_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = FORMAT.write(tmp_path / "x.gpkit", {"a": 1})
    with pytest.raises(InvalidDataError, match="holds something that no file can"):
        FORMAT.write(path, {"a": threading.Lock()})
    assert FORMAT.read(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.gpkit"]
