"""Where the real data sets are that are not shipped; tests that need them are skipped where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]


def real_data_root() -> Path:
    """The folder named by the environment variable GPKIT_REAL_DATA, else ``../shared/data`` beside the repository."""
    return Path(os.environ.get("GPKIT_REAL_DATA") or _ROOT.parent / "shared" / "data")


def real_data_path(*parts: str) -> Path:
    """A file or folder of the real data; skips the calling test if it is not there."""
    path = real_data_root().joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real data {'/'.join(parts)} not found; set GPKIT_REAL_DATA to the folder that holds it")
    return path
