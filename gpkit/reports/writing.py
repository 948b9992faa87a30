"""Reports as files, and JSON that any reader accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpkit.files import write_atomic

__all__ = ["to_json", "write_report"]


def to_json(data: Any) -> str:
    """Strict JSON: numbers that are not finite become null, numpy scalars and arrays become numbers and lists.

    Raises:
        TypeError: If something has no counterpart in JSON; nothing is turned into text unasked.
    """
    return json.dumps(_plain(data), allow_nan=False, ensure_ascii=False, indent=2) + "\n"


def write_report(html: str, numbers: Any, path: str | Path) -> tuple[Path, Path]:
    """Write a report and the numbers in it.

    Args:
        html: The report.
        numbers: Plain data.
        path: The HTML file to write, or a folder (made if needed) for ``report.html``; the JSON file is written beside
            it, ``summary.json`` or ``<name>.json``.

    Returns:
        The paths of both files; they appear only when they are complete.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        target = target / "report.html"
    beside = target.with_name("summary.json") if target.stem == "report" else target.with_suffix(".json")
    text = to_json(numbers)
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_atomic(target, html), write_atomic(beside, text)


def _plain(data: Any) -> Any:
    if data is None or isinstance(data, bool | str):
        return data
    if isinstance(data, np.bool_):
        return bool(data)
    if isinstance(data, int | np.integer):
        return int(data)
    if isinstance(data, float | np.floating):
        return float(data) if math.isfinite(data) else None
    if isinstance(data, Mapping):
        if not all(isinstance(key, str) for key in data):
            raise TypeError(f"keys must be texts, not {[key for key in data if not isinstance(key, str)][0]!r}")
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, np.ndarray):
        return _plain(data.tolist())
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    raise TypeError(f"{type(data).__name__} has no counterpart in JSON")
