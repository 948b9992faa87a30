"""Interactive pictures: written whole or not at all, refused with a reason."""

from __future__ import annotations

import builtins
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpkit.diagnostics.interactive_fields import write_interactive_field
from gpkit.errors import InvalidDataError, MissingDependencyError

POINTS = np.random.default_rng(0).standard_normal((20, 3))


def test_without_pyvista(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "pyvista":
            raise ImportError(name)
        return genuine(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependencyError, match="manifold"):
        write_interactive_field(tmp_path / "field.html", POINTS, POINTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # of vtk and trame about themselves
def test_with_pyvista(tmp_path: Path) -> None:
    pytest.importorskip("pyvista", reason="interactive pictures need the extra manifold")
    with pytest.raises(InvalidDataError, match=r"\(n, 3\)"):
        write_interactive_field(tmp_path / "field.html", POINTS[:, :2], POINTS[:, :2])
    if importlib.util.find_spec("trame") is None:
        with pytest.raises(MissingDependencyError, match="trame"):
            write_interactive_field(tmp_path / "field.html", POINTS, POINTS)
        assert not list(tmp_path.iterdir())
        return
    path = write_interactive_field(
        tmp_path / "field.html", POINTS, POINTS, triangles=[[0, 1, 2], [1, 2, 3]], value=POINTS[:, 0]
    )
    assert "<html" in path.read_text(encoding="utf-8").lower()
