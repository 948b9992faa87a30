"""Light curves from files of any of the formats that gpkit knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from gpkit.datasets.adapters import from_pandas
from gpkit.datasets.cleaning import BadErrors
from gpkit.datasets.columns import ColumnChoice, find_column, is_band_name
from gpkit.datasets.content import FORMATS, decode, detect_format, read_bytes
from gpkit.datasets.light_curve import LightCurve
from gpkit.datasets.notices import warn_about_data
from gpkit.datasets.text_tables import Layout, line_label, read_table, sniff
from gpkit.errors import InvalidDataError

_EXTENSIONS = {".gz", ".bz2", ".xz", ".csv", ".dat", ".txt", ".tsv", ".ecsv", ".fits", ".fit", ".lc", ".mjd"}


def read_light_curve(
    path: str | os.PathLike[str],
    format: str = "auto",
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
    quality_mask: int | None = None,
    bad_errors: BadErrors = "raise",
    meta: dict[str, Any] | None = None,
) -> LightCurve:
    """Read one light curve.

    Args:
        path: The file; it may be compressed with gzip, bzip2 or xz.
        format: "auto" looks at the content. "table" is any text table (commas, semicolons, tabs or blanks; comments;
            with or without header); "fermi_lcr" an export of the Fermi-LAT Light Curve Repository; "ecsv" and "fits"
            need astropy (extra ``astro``).
        time: Column of times, by name or position from 0. By default it is found by its name, as are the others;
            without a header the first three columns are time, value and error.
        value: Column of values. Cells ``< x`` are upper limits.
        error: Column of errors; a float is one error for all rows.
        upper_limit: Column that marks upper limits (0/1, true/false).
        half_width: Column of half the bin widths, or one float for all rows.
        band: Column of band labels.
        time_unit: Unit of the times; by default what the file says, else days.
        value_unit: Unit of the values; by default what the file says.
        name: Name of the source; by default what the file says, else the file's name.
        quality_mask: For FITS: take out, and count, rows whose quality flags have any bit of this mask.
        bad_errors: "raise" refuses errors that are zero or negative, "drop" takes those rows out and counts them.
        meta: Anything to keep beside the data.

    Returns:
        The light curve; ``exclusions`` says which rows were left out and why, ``meta`` which columns were used.

    Raises:
        InvalidDataError: If the file cannot be used; the message says what was wrong, in which line or column.
        MissingDependencyError: If the format needs a package that is not installed.

    Example:
        >>> from gpkit.datasets import example_path
        >>> read_light_curve(example_path("macho-58.6272.729-B")).n
        364
    """
    file = Path(path)
    if format not in ("auto", *FORMATS):
        raise InvalidDataError(f"unknown format {format!r}; there are: auto, {', '.join(FORMATS)}")
    content = read_bytes(file)
    if format == "auto":
        format = detect_format(content, source=file.name)
    options: dict[str, Any] = {
        "time": time,
        "value": value,
        "error": error,
        "upper_limit": upper_limit,
        "half_width": half_width,
        "band": band,
        "time_unit": time_unit,
        "value_unit": value_unit,
        "name": name,
        "bad_errors": bad_errors,
        "meta": {"file": file.name, "format": format, **(meta or {})},
    }
    if format == "fits":
        from gpkit.datasets.fits import read_fits

        curve = read_fits(content, source=file.name, quality_mask=quality_mask, **options)
    elif quality_mask is not None:
        raise InvalidDataError(f"{file.name}: quality_mask is for FITS files, and this is {format!r}")
    elif format == "ecsv":
        from gpkit.datasets.fits import read_ecsv

        curve = read_ecsv(decode(content, source=file.name), source=file.name, **options)
    else:
        text = decode(content, source=file.name)
        curve = _read_text(text, source=file.name, stem=_stem(file), is_lcr=format == "fermi_lcr", **options)
    if not curve.name and name is None:
        curve.name = _stem(file)
    return curve


def _stem(file: Path) -> str:
    """The file's name without the extensions of known formats; dots may be part of a source's name."""
    while file.suffix.lower() in _EXTENSIONS:
        file = file.with_suffix("")
    return file.name


def _read_text(text: str, *, source: str, stem: str, is_lcr: bool, **options: Any) -> LightCurve:
    """Read a text table, and what is particular to the repository's exports and to our own files."""
    layout = sniff(text, source=source)
    names = layout.column_names
    if layout.names is None:
        options |= _by_position(layout, options, source)
    labels = [label for label in names if is_band_name(label)]
    if options["band"] is not None:
        labels.append(find_column(options["band"], names, role="band", source=source))
    frame = read_table(text, layout, source=source, labels=labels)
    if is_lcr and options["half_width"] is None:
        options["half_width"] = _half_step(frame)
    if layout.metadata:
        options |= _kept_metadata(layout.metadata, options)
    if options["name"] is None:
        options["name"] = stem
    return from_pandas(frame, source=source, row_label=line_label(text, layout), decimal=layout.decimal, **options)


def _by_position(layout: Layout, options: dict[str, Any], source: str) -> dict[str, Any]:
    """Roles of the columns of a table without a header: time, value, error, in that order."""
    roles = {role: options[role] for role in ("time", "value", "error")}
    if layout.header_problem and any(choice is None for choice in roles.values()):
        raise InvalidDataError(f"{source}: {layout.header_problem}: give positions, such as time=0, value=1, error=2")
    if all(choice is None for choice in roles.values()) and layout.n_columns > 3:
        warn_about_data(
            f"{source}: no header; took the first three of {layout.n_columns} columns as time, value and error; say "
            "otherwise with time=0, value=1, error=2"
        )
    if roles["error"] is None and layout.n_columns < 3:
        raise InvalidDataError(
            f"{source}: has only two columns, time and value: a light curve needs a column of errors, or one number "
            "for all rows, such as error=0.1"
        )
    return {role: position if choice is None else choice for position, (role, choice) in enumerate(roles.items())}


def _half_step(frame: Any) -> float | None:
    """Half of the usual step between bins of a repository export, in days."""
    steps = np.diff(np.sort(frame["Julian Date"].to_numpy(dtype=np.float64)))
    return float(np.median(steps)) / 2 if len(steps) else None


def _kept_metadata(kept: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What our own files say beside the table, where the caller does not say otherwise."""
    said = {key: kept[key] for key in ("name", "time_unit", "value_unit") if key in kept and options[key] is None}
    return said | {
        "exclusions": {str(reason): int(count) for reason, count in dict(kept.get("exclusions", {})).items()},
        "meta": options["meta"] | dict(kept.get("meta", {})),
    }
