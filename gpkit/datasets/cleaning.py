"""Checks that the rows of a light curve pass once, on their way in.

Nothing below the data edge looks at its inputs again, so this is where columns become native float64, where rows
without a usable number are taken out and counted, where errors are refused that no likelihood could use, and where rows
are put in time order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpkit.errors import InvalidDataError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
StrArray = npt.NDArray[Any]  # of texts; the width of a text is part of its dtype, so np.str_ would not match it

#: Names the i-th input row in a message: "row 3" for arrays, "line 17" for files.
RowLabel = Callable[[int], str]

BadErrors = Literal["raise", "drop"]

_MJD_EPOCH = np.datetime64("1858-11-17T00:00:00", "ns")


def row_from_zero(index: int) -> str:
    """Name a row of an array in a message."""
    return f"row {index} (counted from 0)"


@dataclass(frozen=True)
class CleanRows:
    """Rows that passed, in time order.

    Attributes:
        time: Times, increasing, ``n``.
        value: Values, or the limit where `upper_limit` is set, ``n``.
        error: One-sigma errors, ``n``; positive for detections, NaN allowed for upper limits.
        upper_limit: True where the value is an upper limit, ``n``.
        half_width: Half of each bin's width, ``n``, or None.
        band: Label of each row's band, ``n``, or None.
        input_row: The position that each row had in the input, ``n``.
        exclusions: How many rows were taken out, by reason.
    """

    time: FloatArray
    value: FloatArray
    error: FloatArray
    upper_limit: BoolArray
    half_width: FloatArray | None
    band: StrArray | None
    input_row: IntArray
    exclusions: dict[str, int]


def as_float_column(values: Any, column: str) -> FloatArray:
    """Copy a column into a native, contiguous float64 array; masked entries become NaN.

    Args:
        values: Anything array-like of one dimension: list, numpy (any byte order), masked array, pandas, torch.
        column: The column's name, for messages.

    Returns:
        A new array, ``n``.

    Raises:
        InvalidDataError: If it has not one dimension or does not hold real numbers.
    """
    if hasattr(values, "detach"):  # a torch tensor, which refuses numpy while it needs a gradient
        values = values.detach().cpu().numpy()
    array = np.ma.getdata(values) if np.ma.isMaskedArray(values) else np.asarray(values)
    if array.ndim != 1:
        raise InvalidDataError(f"column {column!r} must have one dimension, but its shape is {array.shape}")
    if array.dtype.kind == "M":
        numbers = _days_since_mjd_epoch(array)
    elif array.dtype.kind in "biufOUS":
        if array.dtype == object:  # pandas' missing value has no float
            array = np.array([np.nan if str(entry) == "<NA>" else entry for entry in array], dtype=object)
        try:
            numbers = array.astype(np.float64)
        except (TypeError, ValueError) as problem:
            raise InvalidDataError(_first_not_a_number(array, column)) from problem
    else:
        raise InvalidDataError(f"column {column!r} must hold real numbers, but its type is {array.dtype}")
    if np.ma.isMaskedArray(values):
        numbers[np.ma.getmaskarray(values)] = np.nan
    return np.ascontiguousarray(numbers)


def _days_since_mjd_epoch(stamps: npt.NDArray[Any]) -> FloatArray:
    """Modified Julian Dates of calendar stamps; NaT becomes NaN."""
    days: FloatArray = (stamps.astype("datetime64[ns]") - _MJD_EPOCH).astype(np.float64) / 86_400e9
    days[np.isnat(stamps)] = np.nan
    return days


def _first_not_a_number(array: npt.NDArray[Any], column: str) -> str:
    """Say which entry of a column could not be read as a number."""
    for index, entry in enumerate(array):
        try:
            float(entry)
        except (TypeError, ValueError):
            return f"column {column!r}, {row_from_zero(index)}: {str(entry)[:40]!r} is not a number"
    return f"column {column!r} must hold real numbers"


def clean_rows(
    time: Any,
    value: Any,
    error: Any,
    *,
    upper_limit: Any = None,
    half_width: Any = None,
    band: Any = None,
    exclude: Mapping[str, Any] | None = None,
    bad_errors: BadErrors = "raise",
    row_label: RowLabel = row_from_zero,
) -> CleanRows:
    """Check, filter and sort the rows of a light curve.

    Args:
        time: Times, ``n``; calendar stamps (datetime64) become Modified Julian Dates.
        value: Values, ``n``.
        error: One-sigma errors, ``n``, or one number for all rows.
        upper_limit: Mask of upper limits, ``n``, or None for no limits.
        half_width: Half of each bin's width, ``n``, one number, or None.
        band: Band of each row, ``n``, one label, or None.
        exclude: Masks of rows to take out, each ``n``, by the reason under which they are counted.
        bad_errors: "raise" refuses errors that are zero or negative; "drop" takes those rows out and counts them.
        row_label: Names an input row in messages.

    Returns:
        The rows that can be used, and what became of the others.

    Raises:
        InvalidDataError: If the columns disagree, no row is left, or an error or half-width is not positive.
    """
    times = as_float_column(time, "time")
    values = as_float_column(value, "value")
    n = len(times)
    if n == 0:
        raise InvalidDataError("the light curve has no rows: give at least one time, value and error")
    if error is None:
        raise InvalidDataError("the light curve has no errors: give one per row, or one positive number for all rows")
    errors = _full_column(error, n, "error")
    limits = np.zeros(n, dtype=np.bool_) if upper_limit is None else _mask_column(upper_limit, n, "upper_limit")
    widths = None if half_width is None else _full_column(half_width, n, "half_width")
    bands = None if band is None else _label_column(band, n)
    _same_length(values, n, "value")

    keep = np.ones(n, dtype=np.bool_)
    exclusions: dict[str, int] = {}

    def take_out(bad: BoolArray, reason: str) -> None:
        """Count each row once, under the first reason that applies."""
        fresh = bad & keep
        if fresh.any():
            exclusions[reason] = int(fresh.sum())
            keep[fresh] = False

    take_out(~np.isfinite(times), "time not finite")
    for reason, mask in (exclude or {}).items():
        take_out(_mask_column(mask, n, f"exclude[{reason!r}]"), reason)
    take_out(np.isnan(values) & np.isnan(errors), "no measurement")
    take_out(~np.isfinite(values), "value not finite")
    take_out(~np.isfinite(errors) & ~limits, "error not finite")
    not_positive = keep & ~limits & ~(errors > 0)
    if not_positive.any() and bad_errors == "raise":
        first = int(np.flatnonzero(not_positive)[0])
        raise InvalidDataError(
            f"{int(not_positive.sum())} of {n} errors are zero or negative, first {errors[first]:g} at "
            f"{row_label(first)}: errors of detections must be positive (bad_errors='drop' takes such rows out)"
        )
    take_out(not_positive, "error not positive")
    if widths is not None:
        bad_width = keep & ~(np.isfinite(widths) & (widths > 0))
        if bad_width.any():
            first = int(np.flatnonzero(bad_width)[0])
            raise InvalidDataError(
                f"half_width is {widths[first]:g} at {row_label(first)}: half-widths must be finite and positive, "
                "or half_width=None for instantaneous points"
            )
    if not keep.any():
        counts = ", ".join(f"{count} with {reason}" for reason, count in exclusions.items())
        raise InvalidDataError(f"none of the {n} rows can be used: {counts}")

    kept = np.flatnonzero(keep)
    order = kept if _increasing(times[kept]) else kept[np.argsort(times[kept], kind="stable")]
    sorted_errors = errors[order]
    sorted_errors[limits[order] & ~(np.isfinite(sorted_errors) & (sorted_errors > 0))] = np.nan
    return CleanRows(
        time=times[order],
        value=values[order],
        error=sorted_errors,
        upper_limit=limits[order],
        half_width=None if widths is None else widths[order],
        band=None if bands is None else bands[order],
        input_row=order.astype(np.int64),
        exclusions=exclusions,
    )


def _increasing(times: FloatArray) -> bool:
    return bool(np.all(times[1:] >= times[:-1]))


def _same_length(column: npt.NDArray[Any], n: int, name: str) -> None:
    if column.shape != (n,):
        raise InvalidDataError(f"column {name!r} has {len(column)} rows, but 'time' has {n}: they must be equal")


def _full_column(values: Any, n: int, column: str) -> FloatArray:
    """A column, or one number repeated for every row."""
    if np.ndim(values) == 0 and not hasattr(values, "detach"):
        return np.full(n, as_float_column([values], column)[0])
    array = as_float_column(values, column)
    _same_length(array, n, column)
    return array


def _mask_column(values: Any, n: int, column: str) -> BoolArray:
    array = np.asarray(values)
    if array.ndim != 1 or not (array.dtype == np.bool_ or np.isin(array, (0, 1)).all()):
        raise InvalidDataError(f"column {column!r} must be a one-dimensional mask of True and False")
    _same_length(array, n, column)
    return array.astype(np.bool_)


def _label_column(values: Any, n: int) -> StrArray:
    array = np.asarray(values)
    if array.ndim == 0:
        array = np.full(n, str(array))
    if array.ndim != 1:
        raise InvalidDataError(f"column 'band' must have one dimension, but its shape is {array.shape}")
    _same_length(array, n, "band")
    return array.astype(np.str_)
