"""Saving and loading models: one file with data, settings, fits and draws, written atomically."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpkit.errors import InvalidDataError
from gpkit.models.payload import PayloadFormat

if TYPE_CHECKING:
    from gpkit.models.light_curve_gp import LightCurveGP

__all__ = ["load_model", "model_from_payload", "read_payload", "save_model"]

_ENTRIES = ("light_curve", "arguments", "name", "fits", "draws", "posterior", "extra")
_FILE = PayloadFormat("gpkit light-curve model", 1, "a gpkit model", _ENTRIES)


def save_model(
    model: LightCurveGP, path: str | Path, *, posterior_file: str | Path | None = None, **extra: Any
) -> Path:
    """Write a model to one file.

    Args:
        model: the model.
        path: where to write.
        posterior_file: netCDF file that already holds the posterior; it is then only referred to, by name, and must
            stay beside the model. By default the posterior is written into the file.
        extra: entries that come back from :func:`read_payload`.
    """
    from gpkit.inference.inference_data import save_inference_data

    posterior: bytes | str | None = None if posterior_file is None else Path(posterior_file).name
    if model.posterior is not None and posterior is None:
        with tempfile.TemporaryDirectory() as folder:
            posterior = save_inference_data(model.posterior, Path(folder) / "posterior.nc").read_bytes()
    payload = {
        "light_curve": model.light_curve,
        "arguments": model._arguments,
        "name": model.name,
        "fits": model.fits,
        "draws": model._draws,
        "posterior": posterior,
        "extra": extra,
    }
    return _FILE.write(path, payload)


def read_payload(path: str | Path) -> dict[str, Any]:
    """What :func:`save_model` wrote. Files hold Python objects: load only those that you trust.

    Raises:
        InvalidDataError: if the file is not a gpkit model.
    """
    return _FILE.read(path)


def model_from_payload(payload: dict[str, Any], folder: Path) -> LightCurveGP:
    """Rebuild a model whose file was in ``folder``.

    Raises:
        InvalidDataError: if the posterior is in another file, which is missing or damaged.
    """
    from gpkit.inference.inference_data import load_inference_data
    from gpkit.models.light_curve_gp import LightCurveGP

    model = LightCurveGP(payload["light_curve"], **payload["arguments"])
    model.name = payload["name"]
    model.fits = dict(payload["fits"])
    model._draws = None if payload["draws"] is None else np.asarray(payload["draws"])
    if isinstance(payload["posterior"], str):
        try:
            model.posterior = load_inference_data(folder / payload["posterior"])
        except FileNotFoundError as error:
            raise InvalidDataError(f"the posterior {error.filename} is missing") from None
    elif payload["posterior"] is not None:
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / "posterior.nc"
            file.write_bytes(payload["posterior"])
            model.posterior = load_inference_data(file)
    if model.fits:
        model.set_parameters(model._fitted().parameters)
    return model


def load_model(path: str | Path) -> LightCurveGP:
    """Read a model written by :func:`save_model`."""
    return model_from_payload(read_payload(path), Path(path).parent)
