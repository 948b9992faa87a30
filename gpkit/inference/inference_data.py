"""Posteriors as ArviZ objects: the only module that constructs, writes or reads them.

ArviZ 1.x replaces ``InferenceData`` by xarray's ``DataTree``; the move is an edit of this file.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpkit.errors import InvalidDataError

__all__ = ["GROUPS", "load_inference_data", "provenance", "save_inference_data", "to_inference_data"]

GROUPS = (
    "log_likelihood",
    "posterior_predictive",
    "predictions",
    "prior",
    "prior_predictive",
    "observed_data",
    "constant_data",
    "predictions_constant_data",
)
"""Groups that may accompany ``posterior`` and ``sample_stats``."""

_PACKAGES = ("gpkit-bayes", "arviz", "gpytorch", "nutpie", "numba", "numpy", "pyro-ppl", "scipy", "torch")


def _arviz() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # arviz announces its next major version when it is imported
        import arviz
    return arviz


def provenance(*, seed: int | None = None, command: str | None = None, **extra: Any) -> dict[str, Any]:
    """Attributes that say how a result came about, so that it can be made again.

    Args:
        seed: Of everything random.
        command: What was run; the command line of this process if not given.
        extra: More attributes; what files cannot hold (dictionaries, None) is written as JSON.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    attributes = {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "creation_library": "gpkit",
        "inference_library": "gpkit",
        "inference_library_version": versions.get("gpkit-bayes", "unknown"),
        "command": command if command is not None else shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions,
        **({} if seed is None else {"seed": seed}),
        **extra,
    }
    plain = (str, int, float)
    return {k: v if isinstance(v, plain) and not isinstance(v, bool) else json.dumps(v) for k, v in attributes.items()}


def to_inference_data(
    posterior: Mapping[str, ArrayLike],
    sample_stats: Mapping[str, ArrayLike] | None = None,
    *,
    groups: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    coords: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Make an ``arviz.InferenceData``.

    Args:
        posterior: Draws in natural units, each (chain, draw, ...).
        sample_stats: Statistics of the sampler under ArviZ's names, each (chain, draw).
        groups: More groups by name (see :data:`GROUPS`); those of draws have the leading dimensions chain and draw.
        coords: Coordinates of named dimensions.
        dims: Names of the dimensions of variables, other than chain and draw, for every group that has them.
        attrs: Attributes of the whole and of every group, such as those of :func:`provenance`.

    Raises:
        InvalidDataError: if a group is unknown, or a variable does not begin with (chain, draw) like the others.
    """
    arviz = _arviz()
    extra = {name: {k: np.asarray(v) for k, v in group.items()} for name, group in (groups or {}).items() if group}
    if unknown := sorted(set(extra) - set(GROUPS)):
        raise InvalidDataError(f"unknown groups {unknown}: the known ones are {list(GROUPS)}")
    draws = {name: np.asarray(value) for name, value in posterior.items()}
    if len({value.shape[:2] for value in draws.values()}) > 1 or any(value.ndim < 2 for value in draws.values()):
        shapes = {name: value.shape for name, value in draws.items()}
        raise InvalidDataError(f"every variable of the posterior must be (chain, draw, ...), got {shapes}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arviz and xarray warn about each other, and of more chains than draws
        data = arviz.from_dict(
            draws,
            sample_stats=None if sample_stats is None else {k: np.asarray(v) for k, v in sample_stats.items()},
            coords=None if coords is None else {k: np.asarray(v) for k, v in coords.items()},
            dims=None if dims is None else {k: list(v) for k, v in dims.items()},
            **extra,
        )
    attributes = dict(provenance() if attrs is None else attrs)
    data.attrs.update(attributes)
    for name in data.groups():
        data[name].attrs = attributes.copy()
    return data


def save_inference_data(data: Any, path: str | Path) -> Path:
    """Write netCDF; the file appears under its name only when it is complete."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data.to_netcdf(temporary, engine="h5netcdf")
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def load_inference_data(path: str | Path) -> Any:
    """Read what :func:`save_inference_data` wrote, into memory.

    Raises:
        InvalidDataError: if the file is not one.
    """
    arviz = _arviz()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with arviz.rc_context({"data.load": "eager"}):
                return arviz.from_netcdf(str(path), engine="h5netcdf")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidDataError(f"{path} is not a posterior in netCDF: {error}") from None
