"""Saving and loading field models: one file with the manifold, the data, the fits and the draws, written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpkit.errors import InvalidDataError
from gpkit.models.payload import PayloadFormat

__all__ = ["load_field", "save_field"]

_FILE = PayloadFormat("gpkit field model", 3, "a gpkit field model", oldest=3)


def save_field(model: Any, path: str | Path) -> Path:
    """Write a fitted or unfitted field model; what can be made again (factors, bases at data) is left out."""
    return _FILE.write(path, {"model": model})


def load_field(path: str | Path, kind: type) -> Any:
    """Read what :func:`save_field` wrote. Files hold Python objects: load only those that you trust.

    Raises:
        InvalidDataError: the file is not such a model, or one of another kind.
    """
    payload = _FILE.read(path)
    if not isinstance(payload["model"], kind):
        raise InvalidDataError(f"{path} holds a {type(payload['model']).__name__}, not a {kind.__name__}")
    return payload["model"]
