"""Posteriors as ArviZ objects: the only module that constructs, writes or reads them.

ArviZ 1.x replaces ``InferenceData`` by xarray's ``DataTree``; the move is an edit of this file.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.files import atomic_path

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
    posterior: Mapping[str, Any],
    sample_stats: Mapping[str, Any] | None = None,
    *,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
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
    if unknown := sorted(set(groups or {}) - set(GROUPS)):
        raise InvalidDataError(f"unknown groups {unknown}: the known ones are {list(GROUPS)}")
    content = {"posterior": posterior, "sample_stats": sample_stats or {}, **(groups or {})}
    datasets = {}
    for group, variables in content.items():
        if variables:
            leading = () if group.endswith("_data") else ("chain", "draw")
            datasets[group] = _dataset(group, variables, leading, coords or {}, dims or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arviz warns of groups that it does not know yet
        data = _arviz().InferenceData(**datasets)
    attributes = dict(provenance() if attrs is None else attrs)
    data.attrs.update(attributes)
    for name in data.groups():
        data[name].attrs = attributes.copy()
    return data


def _dataset(
    group: str,
    variables: Mapping[str, Any],
    leading: tuple[str, ...],
    coords: Mapping[str, Any],
    dims: Mapping[str, Sequence[str]],
) -> xr.Dataset:
    """One group; names of dimensions are used where their number fits, since groups may share names of variables."""
    arrays = {name: np.asarray(value) for name, value in variables.items()}
    if leading and (any(a.ndim < 2 for a in arrays.values()) or len({a.shape[:2] for a in arrays.values()}) > 1):
        shapes = {name: array.shape for name, array in arrays.items()}
        raise InvalidDataError(f"every variable of {group} must be (chain, draw, ...), got {shapes}")
    content: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        rest = array.ndim - len(leading)
        given = tuple(dims.get(name, ()))
        own = given if len(given) == rest else tuple(f"{name}_dim_{k}" for k in range(rest))
        content[name] = (leading + own, array)
        sizes.update(zip(leading + own, array.shape, strict=True))
    labels = {name: np.asarray(coords[name]) if name in coords else np.arange(size) for name, size in sizes.items()}
    return xr.Dataset(content, coords=labels)


def save_inference_data(data: Any, path: str | Path) -> Path:
    """Write netCDF; the file appears under its name only when it is complete."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xarray and h5netcdf about each other's versions
        data.to_netcdf(str(temporary), engine="h5netcdf")
    return Path(path)


def load_inference_data(path: str | Path) -> Any:
    """Read what :func:`save_inference_data` wrote, into memory.

    Raises:
        InvalidDataError: if the file is not one.
    """
    arviz = _arviz()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same
            with arviz.rc_context({"data.load": "eager"}):
                return arviz.from_netcdf(str(path), engine="h5netcdf")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidDataError(f"{path} is not a posterior in netCDF: {error}") from None
