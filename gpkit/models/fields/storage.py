"""Saving and loading field models: one file with the manifold, the data, the fits and the draws, written atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from gpkit.errors import InvalidDataError
from gpkit.files import write_atomic

__all__ = ["load_field", "save_field"]

_FORMAT = "gpkit field model"
_VERSION = 1


def save_field(model: Any, path: str | Path) -> Path:
    """Write a fitted or unfitted field model; what can be made again (factors, bases at data) is left out."""
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "version": _VERSION, "model": model}, buffer)
    return write_atomic(path, buffer.getvalue())


def load_field(path: str | Path, kind: type) -> Any:
    """Read what :func:`save_field` wrote. Files hold Python objects: load only those that you trust.

    Raises:
        InvalidDataError: the file is not such a model, or one of another kind.
    """
    try:
        payload = torch.load(str(path), weights_only=False)
    except FileNotFoundError:
        raise InvalidDataError(f"there is no file {path}") from None
    except OSError:
        raise
    except Exception as error:  # Unpickling damaged bytes may raise anything.
        raise InvalidDataError(f"{path} is not a gpkit model: {error}".splitlines()[0]) from None
    if not isinstance(payload, dict) or payload.get("format") != _FORMAT:
        raise InvalidDataError(f"{path} is not a gpkit field model")
    if payload.get("version", 0) > _VERSION:
        raise InvalidDataError(f"{path} was written by a newer gpkit (format {payload['version']})")
    if not isinstance(payload["model"], kind):
        raise InvalidDataError(f"{path} holds a {type(payload['model']).__name__}, not a {kind.__name__}")
    return payload["model"]
