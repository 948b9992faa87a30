"""Light curves in FITS and ECSV files, read by astropy."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from gpkit.datasets.adapters import from_astropy_table, from_pandas, plain_column
from gpkit.datasets.cleaning import BoolArray
from gpkit.datasets.columns import ColumnChoice, find_column, guess_columns, is_time_name
from gpkit.datasets.light_curve import LightCurve
from gpkit.errors import InvalidDataError, MissingDependencyError

_QUALITY_NAMES = ("SAP_QUALITY", "QUALITY", "DQUALITY", "FLAGS")


def read_ecsv(text: str, *, source: str, **options: Any) -> LightCurve:
    """Read an ECSV table.

    Args:
        text: The whole file.
        source: Name of the file, for messages.
        options: As for :func:`gpkit.datasets.adapters.from_pandas`.

    Raises:
        InvalidDataError: If it is not a readable ECSV table, or a column is missing.
        MissingDependencyError: If astropy is not installed.
    """
    try:
        from astropy.table import Table
    except ImportError as problem:
        raise MissingDependencyError.for_extra("astropy", extra="astro", purpose="reading ECSV files") from problem
    try:
        table = Table.read(text.splitlines(), format="ascii.ecsv")
    except Exception as problem:  # astropy and its YAML reader raise many kinds
        raise InvalidDataError(f"{source}: cannot be read as ECSV: {_first_line(problem)}") from problem
    return from_astropy_table(table, source=source, **options)


def read_fits(
    content: bytes,
    *,
    source: str,
    value: ColumnChoice = None,
    quality_mask: int | None = None,
    meta: dict[str, Any] | None = None,
    **options: Any,
) -> LightCurve:
    """Read a light curve from the first FITS table that has one.

    In the layout of Kepler and TESS, ``PDCSAP_FLUX`` is preferred to ``SAP_FLUX``; the exposure gives the half-width of
    the bins; times stay as they are (BJD less an offset) and the offset goes to ``meta["time_reference"]``.

    Args:
        content: The whole file, unpacked.
        source: Name of the file, for messages.
        value: Column of values, if not the preferred one.
        quality_mask: Take out, and count, rows whose quality flags have any bit of this mask; None keeps all.
        meta: Anything to keep beside the data.
        options: As for :func:`gpkit.datasets.adapters.from_pandas`.

    Raises:
        InvalidDataError: If the file is damaged, or no table in it is a light curve.
        MissingDependencyError: If astropy is not installed.
    """
    try:
        from astropy.io import fits
    except ImportError as problem:
        raise MissingDependencyError.for_extra("astropy", extra="astro", purpose="reading FITS files") from problem
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # standards that the file breaks without harm
            with fits.open(io.BytesIO(content), memmap=False) as hdus:
                binary = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
                tables = [(dict(hdu.header), _columns_of(hdu.data)) for hdu in binary]
                primary = dict(hdus[0].header)
    except Exception as problem:  # a damaged file can fail anywhere inside astropy
        raise InvalidDataError(f"{source}: cannot be read as FITS: {_first_line(problem)}") from problem
    header, columns = _light_curve_table(tables, source)
    return _from_columns(
        columns, header, primary, source=source, value=value, quality_mask=quality_mask, meta=meta or {}, **options
    )


def _columns_of(data: Any) -> dict[str, Any]:
    """The one-dimensional columns of a FITS table, in native byte order."""
    return {name: plain_column(data[name]) for name in data.names if data[name].ndim == 1}


def _light_curve_table(
    tables: list[tuple[dict[str, Any], dict[str, Any]]], source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first table with a time column."""
    for header, columns in tables:
        if any(is_time_name(name) for name in columns):
            return header, columns
    names = [name for _, columns in tables for name in columns]
    listed = ", ".join(repr(name) for name in names[:12]) or "none"
    raise InvalidDataError(f"{source}: no table in the FITS file has a time column; columns: {listed}")


def _from_columns(
    columns: dict[str, Any],
    header: dict[str, Any],
    primary: dict[str, Any],
    *,
    source: str,
    value: ColumnChoice,
    quality_mask: int | None,
    meta: dict[str, Any],
    **options: Any,
) -> LightCurve:
    """Build the curve from columns and what the headers say about them."""
    import pandas as pd

    if value is None and "PDCSAP_FLUX" in columns and not np.isfinite(columns["PDCSAP_FLUX"]).any():
        value = "SAP_FLUX" if "SAP_FLUX" in columns else None
    names = list(columns)
    roles = ("time", "error", "upper_limit", "half_width", "band")
    chosen = {role: options[role] for role in roles if isinstance(options.get(role), str | int)}
    found = guess_columns(names, source=source, value=value, **chosen)
    positions = {str(text).strip(): key[5:] for key, text in header.items() if key.startswith("TTYPE")}
    units = {name: header.get(f"TUNIT{position}") for name, position in positions.items()}
    for key, text in (("value_unit", units.get(found.value)), ("name", header.get("OBJECT") or primary.get("OBJECT"))):
        if options.get(key) is None and text:
            options[key] = str(text)
    if options.get("time_unit") is None:
        said = str(units.get(found.time) or header.get("TIMEUNIT") or "d").strip()
        options["time_unit"] = "d" if "JD" in said.upper() or said.lower() in {"day", "days"} else said
    if options.get("half_width") is None and "BJDREFI" in header and float(header.get("TIMEDEL") or 0) > 0:
        options["half_width"] = float(header["TIMEDEL"]) / 2
    used = found.used()
    frame = pd.DataFrame({name: columns[name] for name in dict.fromkeys(used.values())})
    for role in (*chosen, "value"):  # positions count the columns of the file, not of the frame
        options[role] = used[role]
    return from_pandas(
        frame,
        source=source,
        exclude=_flagged(columns, quality_mask, source),
        meta=_time_reference(header, primary) | meta,
        **options,
    )


def _flagged(columns: dict[str, Any], quality_mask: int | None, source: str) -> dict[str, BoolArray]:
    """Mask of the rows whose quality flags are not wanted."""
    if quality_mask is None:
        return {}
    name = next((name for name in _QUALITY_NAMES if name in columns), None)
    if name is None:
        name = find_column("QUALITY", list(columns), role="quality_mask", source=source)
    flags = np.nan_to_num(columns[name]).astype(np.int64)
    return {"quality flag": (flags & quality_mask) != 0}


def _time_reference(header: dict[str, Any], primary: dict[str, Any]) -> dict[str, Any]:
    """What the times count from, and in which scale, as entries for `meta`."""
    kept: dict[str, Any] = {}
    for system in ("BJD", "MJD"):
        if f"{system}REFI" in header or f"{system}REF" in header:
            whole, part = header.get(f"{system}REFI", header.get(f"{system}REF")), header.get(f"{system}REFF", 0.0)
            kept |= {"time_reference": float(whole or 0.0) + float(part or 0.0), "time_reference_system": system}
    scale, telescope = header.get("TIMESYS"), header.get("TELESCOP") or primary.get("TELESCOP")
    if scale:
        kept["time_scale"] = str(scale).strip().lower()
    if telescope:
        kept["telescope"] = str(telescope).strip()
    return kept


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
