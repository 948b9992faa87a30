"""Fitted tensor models in one file, written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpkit.models.payload import PayloadFormat

if TYPE_CHECKING:
    from gpkit.models.functional_tensor.model import FunctionalTensor

__all__ = ["load_tensor", "save_tensor"]

_FILE = PayloadFormat("gpkit functional tensor", 1, "a gpkit tensor model")
_SETTINGS = ("rank", "form", "core_prior", "main_effects", "residual", "likelihood", "neighbours")


def save_tensor(model: FunctionalTensor, path: str | Path) -> Path:
    """Write settings, data, posteriors and the result of the fit."""
    payload = {
        "modes": model.modes,
        "settings": {name: getattr(model, name) for name in _SETTINGS},
        "state": model._fitted(),
        "result": model.fitted,
    }
    return _FILE.write(path, payload)


def load_tensor(path: str | Path) -> FunctionalTensor:
    """Read what :func:`save_tensor` wrote.

    Raises:
        InvalidDataError: if the file is not a fitted tensor model.
    """
    from gpkit.models.functional_tensor.model import FunctionalTensor

    payload = _FILE.read(path)
    model = FunctionalTensor(payload["modes"], **payload["settings"])
    model._state, model.result = payload["state"], payload["result"]
    return model
