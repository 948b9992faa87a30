"""The data edge: tables of any kind, checked once, become columns, coordinates and counted exclusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.models.functional_tensor.modes import Categorical, ModeSpec

__all__ = ["TensorTable", "check_new_rows", "check_spread", "read_columns", "read_target"]

Array = NDArray[np.float64]
_ROUNDING, _LARGEST = 1e-14, 1e150
_DATES = "convert them to numbers in the unit of the kernel's length scales"
_TARGET_DATES = "what is modelled must be numbers"


@dataclass(frozen=True, eq=False)
class TensorTable:
    """Entries of a sparse tensor, checked.

    Attributes:
        columns: values of every mode's columns, without excluded rows.
        y: targets (N,).
        exclusions: rows that were left out, by reason.
    """

    columns: tuple[tuple[NDArray[Any], ...], ...]
    y: Array
    exclusions: Mapping[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of entries."""
        return len(self.y)


def _column(coordinates: Any, name: str, position: int) -> Any:
    """One column of a frame, a mapping, a structured array or a two-dimensional array."""
    if hasattr(coordinates, "columns") or isinstance(coordinates, Mapping):
        if name not in coordinates:
            raise InvalidDataError(f"the coordinates have no column {name!r}: there are {list(map(str, coordinates))}")
        return np.asarray(coordinates[name])
    array = coordinates.detach().cpu().numpy() if isinstance(coordinates, torch.Tensor) else np.asarray(coordinates)
    if array.dtype.names is not None:
        if name not in array.dtype.names:
            raise InvalidDataError(f"the coordinates have no column {name!r}: there are {list(array.dtype.names)}")
        return array[name]
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or position >= array.shape[1]:
        raise InvalidDataError(
            f"coordinates must have a column for every column of the modes: column {position} ({name!r}) of an array "
            f"of shape {tuple(array.shape)} is missing"
        )
    return array[:, position]


def _numbers(values: Any, name: str, dates: str = _DATES) -> Array:
    """Values of what is called so in errors, as numbers; missing ones as NaN."""
    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        if isinstance(values, np.ma.MaskedArray):
            return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
        return array.astype(np.float64, copy=False)
    if array.dtype.kind == "c":
        raise InvalidDataError(f"{name} holds complex numbers: they must be real")
    if array.dtype.kind == "M":
        raise InvalidDataError(f"{name} holds dates: {dates}")
    import pandas as pd

    found = pd.to_numeric(pd.Series(array), errors="coerce").to_numpy(dtype=np.float64)
    unknown = np.flatnonzero(np.isnan(found))
    for row in unknown:
        value = array[row]
        if value is not None and str(value).strip().lower() not in ("", "nan", "none", "<na>", "nat"):
            raise InvalidDataError(f"row {row} of {name} is {value!r}, which is not a number")
    return found


def _levels(values: Any, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidDataError(
            f"row {int(np.flatnonzero(~np.isfinite(array))[0])} of {name!r} is missing: name a level"
        )
    if array.dtype.kind == "O":
        import pandas as pd

        gone = pd.isna(array)
        if gone.any():
            raise InvalidDataError(f"row {int(np.flatnonzero(gone)[0])} of {name!r} is missing: name a level")
        array = array.astype(str)
    return array


def check_spread(unit: float, most: float, centre: float) -> None:
    """Refuse targets that do not vary, or whose squares are no numbers.

    Args:
        unit: root mean square of what is modelled.
        most: the largest size of a target.
        centre: what was taken off.

    Raises:
        InvalidDataError: for a spread of rounding errors, or one that is not between 1e-150 and 1e150.
    """
    if unit <= _ROUNDING * most:
        raise InvalidDataError(f"every target is {centre:.6g}: there is nothing to model")
    if not 1.0 / _LARGEST < unit < _LARGEST:
        raise InvalidDataError(f"the targets spread by {unit:.3g}: use a unit in which that is nearer to one")


def read_columns(coordinates: Any, modes: Sequence[ModeSpec]) -> tuple[tuple[NDArray[Any], ...], ...]:
    """Columns of every mode, numbers checked to be finite, levels to be there.

    Args:
        coordinates: a pandas frame, a mapping or a structured array, by name; or an array or tensor (n, columns) in
            the order of the modes.
        modes: the modes.

    Raises:
        InvalidDataError: for a missing column, a value that is not a number, or one that is not finite.
    """
    out: list[tuple[NDArray[Any], ...]] = []
    position = 0
    for mode in modes:
        columns = []
        for name in mode.columns:
            values = _column(coordinates, name, position)
            position += 1
            if isinstance(mode, Categorical):
                columns.append(_levels(values, name))
                continue
            numbers = _numbers(values, repr(name))
            bad = np.flatnonzero(~np.isfinite(numbers))
            if bad.size:
                raise InvalidDataError(f"row {bad[0]} of {name!r} is {numbers[bad[0]]}: coordinates must be finite")
            columns.append(numbers)
        out.append(tuple(columns))
    lengths = {len(column) for columns in out for column in columns}
    if len(lengths) > 1:
        raise InvalidDataError(f"the columns have different lengths: {sorted(lengths)}")
    return tuple(out)


def read_target(coordinates: Any, y: Any, modes: Sequence[ModeSpec], least: int = 2) -> TensorTable:
    """Coordinates with targets; rows without a target are left out and counted.

    Args:
        coordinates: see :func:`read_columns`.
        y: targets, or the name of a column of the coordinates.
        modes: the modes.
        least: number of rows with a target that there must be.

    Raises:
        InvalidDataError: as :func:`read_columns`; also for infinite targets, or too few of them.
    """
    columns = read_columns(coordinates, modes)
    name = "the target"
    if isinstance(y, str):
        name, y = f"the target {y!r}", _column(coordinates, y, 0)
    target = _numbers(y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y, name, _TARGET_DATES).reshape(-1)
    rows = len(columns[0][0])
    if len(target) != rows:
        raise InvalidDataError(f"{rows} rows of coordinates but {len(target)} targets")
    bad = np.flatnonzero(np.isinf(target))
    if bad.size:
        raise InvalidDataError(
            f"row {bad[0]} of {name} is {target[bad[0]]}: targets must be finite, or NaN where missing"
        )
    there = ~np.isnan(target)
    count = int(there.sum())
    if count < least:
        raise InvalidDataError(f"{count} of {rows} rows have a target: a fit needs at least two")
    if count == rows:  # without copies: ten million rows fit into memory once
        return TensorTable(columns, target)
    columns = tuple(tuple(column[there] for column in mode) for mode in columns)
    return TensorTable(columns, target[there], {"no target": rows - count})


def check_new_rows(new: Any, table: TensorTable, modes: Sequence[ModeSpec]) -> None:
    """Refuse rows that a fit to a table could not predict, before it is made.

    Args:
        new: rows to be predicted, see :func:`read_columns`.
        table: of the fit.
        modes: the modes.

    Raises:
        InvalidDataError: as predictions would.
    """
    for mode, known, asked in zip(modes, table.columns, read_columns(new, modes), strict=True):
        mode.encode(known).numbers(asked)
