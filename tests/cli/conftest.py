"""Small light curves in files, and the command run in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpkit.cli import main

N = 24


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(name="gpkit")
def _gpkit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@dataclass
class Columns:
    """Columns of a small light curve, to be spoiled before they are written."""

    time: list[Any]
    value: list[Any]
    error: list[Any]

    def write(self, path: Path, rows: Sequence[int] | None = None) -> Path:
        chosen = range(len(self.time)) if rows is None else rows
        lines = [f"{self.time[k]!r},{self.value[k]!r},{self.error[k]!r}".replace("'", "") for k in chosen]
        path.write_text("\n".join(["time,value,error", *lines]) + "\n")
        return path


@pytest.fixture
def columns() -> Columns:
    """24 points of a random walk, values near 7."""
    rng = np.random.default_rng(2)
    time = np.sort(rng.uniform(0.0, 100.0, N)).round(4)
    value = (7.0 + np.cumsum(rng.normal(0.0, 0.3, N))).round(4)
    return Columns(time.tolist(), value.tolist(), [0.1] * N)


@pytest.fixture
def rendered() -> None:
    """Asked for by tests that look at figures; all others do without drawing them, which takes most of the time."""


@pytest.fixture(autouse=True)
def _drawn_only_if_asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "rendered" not in request.fixturenames:
        for encoder in ("_pixels", "_scalable"):
            monkeypatch.setattr(f"gpkit.reports.document.{encoder}", lambda _: b"")
