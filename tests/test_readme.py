"""The Python code of the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_there_is_code() -> None:
    assert BLOCKS and len(BLOCKS[0].splitlines()) <= 20


@pytest.mark.slow
@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_code_runs(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(BLOCKS[block], f"README.md, block {block}", "exec"), names)  # noqa: S102
    if "report" in BLOCKS[block]:
        assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    elif "PDE" in BLOCKS[block]:
        error = names["solution"].mean(names["points"]) - names["exact"](*names["points"].T)
        assert float(error.abs().max()) < 1e-10
    else:
        loss, gp = names["loss"], names["gp"]
        assert float(loss.detach()) < 10.0 and all(p.grad is not None for p in gp.parameters())
