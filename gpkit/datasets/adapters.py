"""Light curves to and from the objects of other packages: pandas, astropy, lightkurve.

None of those packages is imported before it is needed, and astropy and lightkurve objects are recognised by what they
offer, so that neither has to be installed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gpkit.datasets.cells import parse_column
from gpkit.datasets.cleaning import BadErrors, RowLabel, as_float_column, row_from_zero
from gpkit.datasets.columns import ColumnChoice, guess_columns
from gpkit.datasets.light_curve import LightCurve
from gpkit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd


def from_pandas(
    frame: pd.DataFrame,
    *,
    time: ColumnChoice = None,
    value: ColumnChoice = None,
    error: ColumnChoice | float = None,
    upper_limit: ColumnChoice = None,
    half_width: ColumnChoice | float = None,
    band: ColumnChoice = None,
    time_unit: str | None = None,
    value_unit: str | None = None,
    name: str | None = None,
    meta: dict[str, Any] | None = None,
    exclude: dict[str, Any] | None = None,
    exclusions: dict[str, int] | None = None,
    bad_errors: BadErrors = "raise",
    source: str = "the data frame",
    row_label: RowLabel = row_from_zero,
    decimal: str = ".",
) -> LightCurve:
    """Build a light curve from a data frame.

    Args:
        frame: One row per point. Values ``< x`` are upper limits; values ``> x`` are excluded and counted.
        time: Column of times, by name or position from 0; found by common names if None. Times that are the index need
            ``frame.reset_index()``.
        value: Column of values, likewise.
        error: Column of errors, likewise; a float is one error for all rows.
        upper_limit: Column that marks upper limits, likewise.
        half_width: Column of half bin widths, likewise; a float is one half-width for all rows.
        band: Column of band labels, likewise.
        time_unit: Unit of the times; by default what the column name says, else days.
        value_unit: Unit of the values; by default what the column name says.
        name: Name of the source; by default ``frame.attrs["name"]``.
        meta: Anything to keep beside the data.
        exclude: Masks of rows to take out, by reason.
        exclusions: Counts of rows that were taken out before, by reason.
        bad_errors: "raise" or "drop", for errors that are zero or negative.
        source: What the messages call the data frame.
        row_label: Names a row in messages.
        decimal: Decimal mark in cells that are text.

    Raises:
        InvalidDataError: If a column is missing or not recognised, or a cell is not a number.
    """
    frame = frame.set_axis([str(label) for label in frame.columns], axis="columns")
    if not frame.columns.is_unique:
        twice = str(frame.columns[frame.columns.duplicated()][0])
        raise InvalidDataError(f"{source}: column {twice!r} is there twice: names must differ")
    columns = guess_columns(
        list(frame.columns),
        source=source,
        time=time,
        value=value,
        error=None if isinstance(error, float) else error,
        upper_limit=upper_limit,
        half_width=None if isinstance(half_width, float) else half_width,
        band=band,
    )
    if columns.error is None and not isinstance(error, float):
        raise InvalidDataError(
            f"{source}: no column of errors beside {columns.value!r}: name one with error='...', or give one number "
            "for all rows, such as error=0.1"
        )
    label = _in_source(row_label, source)

    def numbers(column: str) -> Any:
        """One column as numbers; cells that are limits have no meaning here."""
        if frame[column].dtype.kind == "M":
            return as_float_column(frame[column].to_numpy(), column)
        return parse_column(frame[column], name=column, row_label=label, decimal=decimal)[0]

    values, below, above = parse_column(frame[columns.value], name=columns.value, row_label=label, decimal=decimal)
    if columns.upper_limit is not None:
        below = below | _marks(frame[columns.upper_limit], columns.upper_limit, source)
    return LightCurve(
        numbers(columns.time),
        values,
        error if isinstance(error, float) else numbers(str(columns.error)),
        upper_limit=below,
        half_width=half_width if isinstance(half_width, float) else _optional(columns.half_width, numbers),
        band=None if columns.band is None else _texts(frame[columns.band]).to_numpy(dtype=np.str_),
        time_unit=columns.time_unit if time_unit is None else time_unit,
        value_unit=columns.value_unit if value_unit is None else value_unit,
        name=str(frame.attrs.get("name", "")) if name is None else name,
        meta={"columns": columns.used(), **(meta or {})},
        exclude={"lower limit": above, **(exclude or {})},
        exclusions=exclusions,
        bad_errors=bad_errors,
        row_label=label,
    )


def _in_source(row_label: RowLabel, source: str) -> RowLabel:
    return lambda index: f"{row_label(index)} of {source}"


def _optional(column: str | None, read: Any) -> Any:
    return None if column is None else read(column)


def _texts(column: pd.Series) -> pd.Series:
    """Cells as texts, missing ones empty."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _marks(column: pd.Series, name: str, source: str) -> Any:
    """A column of marks (booleans, 0/1, true/false, yes/no, t/f, ``<``) as a mask."""
    if column.dtype.kind == "b":
        return column.to_numpy(dtype=np.bool_)
    words = _texts(column).str.strip().str.lower()
    yes = words.isin(["1", "1.0", "true", "yes", "y", "t", "<", "ul"])
    no = words.isin(["0", "0.0", "false", "no", "n", "f", "", "nan", "-", "=", "<na>", "none"])
    if not (yes | no).all():
        odd = str(column[~(yes | no)].iloc[0])
        raise InvalidDataError(f"{source}: column {name!r} must mark limits with 0/1 or true/false, not {odd[:40]!r}")
    return yes.to_numpy(dtype=np.bool_)


def to_pandas(curve: LightCurve) -> pd.DataFrame:
    """Convert a light curve to a data frame; name and units go into ``attrs``."""
    import pandas as pd

    columns = {key: np.array(column) for key, column in curve._columns().items()}
    frame = pd.DataFrame(columns)
    frame.attrs = {"name": curve.name, "time_unit": curve.time_unit, "value_unit": curve.value_unit}
    return frame


def from_astropy_table(table: Any, *, source: str = "the table", **options: Any) -> LightCurve:
    """Build a light curve from an astropy Table, QTable or TimeSeries.

    Args:
        table: The table. Time columns keep the numbers of their format (calendar formats become MJD), quantities their
            unit.
        source: What messages call the table.
        options: As for :func:`from_pandas`.

    Raises:
        InvalidDataError: If a column is missing or not recognised, has several dimensions, or holds no numbers.
    """
    import pandas as pd

    flat = [column for column in table.colnames if getattr(table[column], "ndim", 1) == 1]
    roles = ("time", "value", "error", "upper_limit", "half_width", "band")
    chosen = {role: options[role] for role in roles if isinstance(options.get(role), str | int)}
    columns = guess_columns(flat, source=source, **chosen)
    frame = pd.DataFrame({name: plain_column(table[name]) for name in columns.used().values()})
    for role in chosen:  # positions count the columns of the table, not of the frame
        options[role] = columns.used()[role]
    for role, key in (("time", "time_unit"), ("value", "value_unit")):
        unit = getattr(table[columns.used()[role]], "unit", None)
        if options.get(key) is None and unit is not None and str(unit):
            options[key] = str(unit)
    meta = dict(options.pop("meta", None) or {})
    times = table[columns.time]
    if hasattr(times, "mjd"):
        meta.setdefault("time_format", str(times.format) if _is_numeric_time(times) else "mjd")
        meta.setdefault("time_scale", str(times.scale))
    if options.get("name") is None:
        keys = {str(key).upper(): text for key, text in dict(table.meta).items() if isinstance(text, str)}
        options["name"] = next((keys[key] for key in ("NAME", "LABEL", "OBJECT") if key in keys), "")
    return from_pandas(frame, meta=meta, source=source, **options)


def _is_numeric_time(times: Any) -> bool:
    return np.asarray(times.value).dtype.kind in "fiu"


def plain_column(column: Any) -> Any:
    """The numbers (masked ones as NaN) or texts of an astropy column, Quantity or Time."""
    if hasattr(column, "mjd"):
        column = column.value if _is_numeric_time(column) else column.mjd
    array = getattr(column, "value", column)
    if hasattr(array, "unmasked"):  # astropy's own masked arrays, of quantities and times
        array = np.ma.MaskedArray(np.asarray(array.unmasked), mask=np.asarray(array.mask))
    if np.ma.isMaskedArray(array) and array.dtype.kind in "biuf":
        return as_float_column(array, "column")
    array = np.asarray(array)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    return as_float_column(array, "column") if array.dtype.kind in "iuf" else array


def from_lightkurve(light_curve: Any, **options: Any) -> LightCurve:
    """Build a light curve from a lightkurve object (anything with ``time``, ``flux`` and ``flux_err``).

    Args:
        light_curve: The object; the numbers of its time format are kept (BTJD, BKJD, ...).
        options: As for :class:`LightCurve`.

    Raises:
        InvalidDataError: If the object does not have those three.
    """
    missing = [part for part in ("time", "flux", "flux_err") if getattr(light_curve, part, None) is None]
    if missing:
        kind = type(light_curve).__name__
        raise InvalidDataError(f"a {kind} has no {missing[0]!r}: a light curve needs time, flux and flux_err")
    unit = getattr(light_curve.flux, "unit", None)
    meta = {key: str(getattr(light_curve.time, key)) for key in ("format", "scale") if hasattr(light_curve.time, key)}
    kept = getattr(light_curve, "meta", None) or {}
    label = getattr(light_curve, "label", None) or kept.get("LABEL") or kept.get("OBJECT") or ""
    defaults: dict[str, Any] = {
        "time_unit": "d",
        "value_unit": re.sub(r"\s+", " ", str(unit)) if unit is not None else "",
        "name": str(label),
        "meta": {f"time_{key}": text for key, text in meta.items()},
    }
    return LightCurve(
        plain_column(light_curve.time.value),
        plain_column(light_curve.flux),
        plain_column(light_curve.flux_err),
        **(defaults | options),
    )
