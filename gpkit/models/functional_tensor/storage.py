"""Fitted tensor models in one file, written atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpkit.errors import InvalidDataError
from gpkit.files import write_atomic

if TYPE_CHECKING:
    from gpkit.models.functional_tensor.model import FunctionalTensor

__all__ = ["load_tensor", "save_tensor"]

_FORMAT, _VERSION = "gpkit functional tensor", 1
_SETTINGS = ("rank", "form", "core_prior", "main_effects", "residual", "likelihood", "neighbours")


def save_tensor(model: FunctionalTensor, path: str | Path) -> Path:
    """Write settings, data, posteriors and the result of the fit."""
    payload = {
        "format": _FORMAT,
        "version": _VERSION,
        "modes": model.modes,
        "settings": {name: getattr(model, name) for name in _SETTINGS},
        "state": model._fitted(),
        "result": model.fitted,
    }
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return write_atomic(path, buffer.getvalue())


def load_tensor(path: str | Path) -> FunctionalTensor:
    """Read what :func:`save_tensor` wrote.

    Raises:
        InvalidDataError: if the file is not a fitted tensor model.
    """
    from gpkit.models.functional_tensor.model import FunctionalTensor

    try:
        payload = torch.load(str(path), weights_only=False)
    except FileNotFoundError:
        raise InvalidDataError(f"there is no file {path}") from None
    except OSError:
        raise
    except Exception as error:  # Unpickling damaged bytes may raise anything.
        raise InvalidDataError(f"{path} is not a gpkit tensor model: {error}".splitlines()[0]) from None
    if not isinstance(payload, dict) or payload.get("format") != _FORMAT:
        raise InvalidDataError(f"{path} is not a gpkit tensor model")
    if payload.get("version", 0) > _VERSION:
        raise InvalidDataError(f"{path} was written by a newer gpkit (format {payload['version']})")
    model = FunctionalTensor(payload["modes"], **payload["settings"])
    model._state, model.result = payload["state"], payload["result"]
    return model
