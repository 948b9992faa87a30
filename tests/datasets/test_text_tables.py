"""Text tables of many shapes, and files that are not tables."""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpkit.datasets import LightCurve, read_light_curve
from gpkit.errors import DataWarning, InvalidDataError

TIMES, VALUES, ERRORS = [1.0, 2.5, 4.0], [10.0, 11.5, -9.0], [0.5, 0.25, 0.125]

GOOD_TABLES = {
    "csv with header": "time,value,error\n1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125\n",
    "csv without header": "1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125\n",
    "csv with blanks and CRLF": "Time, Flux, Flux_Err\r\n1, 10, 0.5\r\n2.5, 11.5, 0.25\r\n4, -9, 0.125\r\n",
    "blanks": "1 10 0.5\n  2.5   11.5  0.25\n4 -9 0.125",
    "blanks with trailing blanks": "1 10 0.5  \n2.5 11.5 0.25 \n4 -9 0.125\t\n",
    "tabs": "mjd\tmag\tmag_err\n1\t10\t0.5\n2.5\t11.5\t0.25\n4\t-9\t0.125\n",
    "tabs and blanks": "1.0\t 10 \t 0.5 \n2.5\t 11.5 \t 0.25 \n4.0\t -9 \t 0.125 \n",
    "semicolons": "t;y;yerr\n1;10;0.5\n2.5;11.5;0.25\n4;-9;0.125\n",
    "decimal commas": "t;y;yerr\n1,0;10,0;0,5\n2,5;11,5;0,25\n4,0;-9,0;0,125\n",
    "decimal commas and blanks": "t y yerr\n1,0 10,0 0,5\n2,5 11,5 0,25\n4,0 -9,0 0,125\n",
    "pipes": "|hjd|mag|magerr|\n|1|10|0.5|\n|2.5|11.5|0.25|\n|4|-9|0.125|\n",
    "commented header": "# MJD Mag Err\n1 10 0.5\n2.5 11.5 0.25\n4 -9 0.125\n",
    "commented header after prose": "# from the archive, 2 files\n# time,y,dy\n1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125\n",
    "blank-separated comment over commas": "# time y dy\n1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125\n",
    "comments and empty lines": "# a\n\ntime,value,error\n# b\n1,10,0.5\n\n2.5,11.5,0.25 # c\n\n4,-9,0.125\n\n",
    "percent comments": "% t y e\n1 10 0.5\n2.5 11.5 0.25\n4 -9 0.125\n",
    "line of units": "time,flux,flux_err\nd,mJy,mJy\n1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125\n",
    "prose before the header": "Light curve of X\nTime,Flux,Error\n1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125\n",
    "quoted": '"Time","Flux (mJy)","Flux error (mJy)"\n"1","10","0.5"\n"2.5","11.5","0.25"\n"4","-9","0.125"\n',
    "other order and columns": "id,error,time,comment,value\na,0.5,1,x y,10\nb,0.25,2.5,,11.5\nc,0.125,4,z,-9\n",
    "empty cells between tabs": "t\tnote\ty\tdy\n1\t\t10\t0.5\n2.5\t\t11.5\t0.25\n4\tx\t-9\t0.125\n",
    "fortran exponents": "1.0D0 1.0d1 5.0D-1\n2.5D0 1.15D1 2.5d-1\n4.0D0 -9D0 1.25D-1\n",
    "trailing delimiter": "time,value,error\n1,10,0.5,\n2.5,11.5,0.25,\n4,-9,0.125,\n",
    "cells left out at the end": "time,value,error,note\n1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125,x\n",
    "unsorted": "4,-9,0.125\n1,10,0.5\n2.5,11.5,0.25\n",
    "byte-order mark": "\ufefftime,value,error\n1,10,0.5\n2.5,11.5,0.25\n4,-9,0.125\n",
}


def write(folder: Path, text: str | bytes, name: str = "curve.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("kind", GOOD_TABLES)
def test_tables(kind: str, tmp_path: Path) -> None:
    curve = read_light_curve(write(tmp_path, GOOD_TABLES[kind]))
    assert curve.time.tolist() == TIMES
    assert curve.value.tolist() == VALUES
    assert curve.error.tolist() == ERRORS
    assert (curve.n_dropped, curve.n_upper_limits) == (0, 0)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_are_known_by_content(pack: object, tmp_path: Path) -> None:
    path = write(tmp_path, pack(GOOD_TABLES["blanks"].encode()), "curve.dat")  # type: ignore[operator]
    assert read_light_curve(path).time.tolist() == TIMES


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    text = "# Beobachter: Müller\n" + GOOD_TABLES["csv with header"]
    assert read_light_curve(write(tmp_path, text.encode(encoding))).value.tolist() == VALUES


def test_names_and_units(tmp_path: Path) -> None:
    curve = read_light_curve(write(tmp_path, GOOD_TABLES["quoted"], "NGC 4.5.csv"))
    assert (curve.name, curve.value_unit, curve.time_unit) == ("NGC 4.5", "mJy", "d")
    assert curve.meta["columns"] == {"time": "Time", "value": "Flux (mJy)", "error": "Flux error (mJy)"}
    assert curve.meta["file"] == "NGC 4.5.csv", "no path: it would end up in reports"
    assert read_light_curve(write(tmp_path, GOOD_TABLES["tabs"], "a.tsv.gz"), name="b").name == "b"
    assert read_light_curve(write(tmp_path, GOOD_TABLES["tabs"])).value_unit == "mag"
    assert read_light_curve(write(tmp_path, "time (s),rate,error\n1,2,3\n2,3,4\n")).time_unit == "s"
    assert read_light_curve(write(tmp_path, GOOD_TABLES["quoted"]), time_unit="yr", value_unit="Jy").value_unit == "Jy"


def test_columns_can_be_chosen_by_name_and_position(tmp_path: Path) -> None:
    path = write(tmp_path, "when,a,b,sa\n1,10,7,0.5\n2,11,8,0.5\n")
    by_name = read_light_curve(path, time="when", value="B", error="sa")
    assert by_name.value.tolist() == [7, 8]
    assert read_light_curve(path, time=0, value=2, error=-1) == by_name
    assert read_light_curve(path, time=0, value="b", error=0.5) == by_name
    misfit = write(tmp_path, "Julian Date Flux Error\n1 10 0.5\n2 11 0.5\n", "misfit.dat")
    assert read_light_curve(misfit, time=0, value=1, error=2).value.tolist() == [10, 11]
    bare = write(tmp_path, "1 10 7 0.5\n2 11 8 0.5\n", "bare.dat")
    assert read_light_curve(bare, value=2, error=3).value.tolist() == [7, 8]


def test_more_than_three_columns_without_header_say_what_was_taken(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="took the first three of 4 columns"):
        curve = read_light_curve(write(tmp_path, "1 10 0.5 7\n2 11 0.5 8\n"))
    assert curve.value.tolist() == [10, 11]


def test_fluxes_are_preferred_to_magnitudes_and_it_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "HJD,mag,mag_err,flux(mJy),flux_err\n1,15,0.1,2,0.2\n2,16,0.1,1,0.3\n")
    with pytest.warns(DataWarning, match="took 'flux\\(mJy\\)'.*value='mag'"):
        flux = read_light_curve(path)
    assert (flux.value.tolist(), flux.error.tolist()) == ([2, 1], [0.2, 0.3])
    assert read_light_curve(path, value="mag").error.tolist() == [0.1, 0.1]


def test_limits_bins_bands_and_missing_cells(tmp_path: Path) -> None:
    rows = ["t,flux,err,half_width,filter", "1,< 3e-7,-,0.5,NA", "2,4e-7,1e-7,0.5,01", "3,>5e-7,-,0.5,01", "4,,,0.5,NA"]
    rows += [f"{day},5e-7,1e-7,0.5,g" for day in range(5, 30)]
    curve = read_light_curve(write(tmp_path, "\n".join(rows)))
    assert curve.n_upper_limits == 1 and curve.value[0] == 3e-7 and np.isnan(curve.error[0])
    assert curve.half_width is not None and (curve.half_width == 0.5).all()
    assert curve.bands == ("01", "NA", "g"), "labels stay texts"
    assert curve.exclusions == {"lower limit": 1, "no measurement": 1}


@pytest.mark.parametrize("marks", [("0", "1"), ("False", "True"), ("f", "t"), ("no", "YES"), ("", "<")])
def test_columns_that_mark_upper_limits(marks: tuple[str, str], tmp_path: Path) -> None:
    path = write(tmp_path, f"t,y,dy,upper_limit\n1,2,0.1,{marks[0]}\n2,3,0.1,{marks[1]}\n3,4,0.1,{marks[0]}\n")
    assert read_light_curve(path).upper_limit.tolist() == [False, True, False]


def test_rows_with_only_a_time_are_counted(tmp_path: Path) -> None:
    rows = [f"{day}\t 1.5 \t 0.5 " if day % 20 else f"{day}\t" for day in range(100)]
    curve = read_light_curve(write(tmp_path, "\n".join(rows)))
    assert curve.n == 95 and curve.exclusions == {"no measurement": 5}
    assert 0 not in curve.time and 1 in curve.time


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256))
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "file is empty"),
    "only blanks": (" \n\n\t\n", "file is empty"),
    "only comments": ("# time value error\n# nothing\n", "no data, only comments"),
    "only a header": ("time,value,error\n", "is not a table"),
    "prose": (
        "It was a dark and stormy night;\nthe rain fell in torrents,\nexcept at 2 or 3 intervals.\n",
        "is not a table",
    ),
    "code": ("import os\n\ndef f(x, y):\n    return x + 1\n", "is not a table"),
    "json": ('{"time": [1, 2, 3],\n "value": [2, 3, 4]}\n', "is not a table"),
    "web page": ("\n<!DOCTYPE html>\n<html><body>404</body></html>\n", "web page"),
    "picture": (PNG, "is a binary file"),
    "random bytes": (bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8)), "is a binary file"),
    "spreadsheet": (b"PK\x03\x04 xl/workbook.xml", "export the sheet as CSV"),
    "truncated gzip": (gzip.compress(b"1 2 3\n" * 1000)[:40], "damaged or incomplete"),
    "one long line": ("word 12 " * 20000, "curve.csv"),
    "one long word": ("x" * 200_000 + ",1,2\n1,2,3\n", "curve.csv"),
    "one column": ("1\n2\n3\n", "one column of numbers"),
    "two columns": ("1 2\n2 3\n3 4\n", "only two columns.*error=0.1"),
    "two named columns": ("time,flux\n1,2\n2,3\n", "no column of errors beside 'flux'.*error=0.1"),
    "no time column": (
        "ra,flux,flux_err\n1,2,3\n2,3,4\n",
        "no column is known to be the time; give time=... from: 'ra'",
    ),
    "unknown columns": ("a,b,c\n1,2,3\n2,3,4\n", "the time or the value; give time=..., value=... from: 'a', 'b', 'c'"),
    "a word in a row": (
        "# x\ntime,value,error\n1,2,3\n\n2,cloudy,3\n",
        "line 5 of curve.csv, column 'value': 'cloudy'",
    ),
    "zero error": ("# x\ntime,value,error\n1,2,3\n\n2,3,0\n", "zero or negative, first 0 at line 5 of curve.csv"),
    "negative error": ("1,2,3\n2,3,-1\n", "first -1 at line 2 of curve.csv"),
    "too many cells": ("time,value,error\n1,2,3\n2,3,4\n3,4,5,6,7\n4,5,6\n" + "5,6,7\n" * 500, "line 4: 5 cells"),
    "too many cells, late": ("1 2 3\n" * 1000 + "1 2 3 4\n", "line 1001: 4 cells, but the table has 3 columns"),
    "header with fewer names": (
        "time,value,error\n0,1,2,3\n1,2,3,4\n",
        "header does not fit.*4 columns: give positions",
    ),
    "header with blanks in names": ("Julian Date Flux Error\n1 2 3\n2 3 4\n", "header does not fit.*3 columns"),
    "column named twice": ("time,flux,flux,error\n1,2,3,4\n2,3,4,5\n", "names column 'flux' twice"),
    "bad mark of a limit": ("t,y,dy,ul\n1,2,3,maybe\n", "not 'maybe'"),
    "nothing usable": ("t,y,dy\n1,nan,nan\n2,nan,nan\n", "none of the 2 rows can be used: 2 with no measurement"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_give_one_typed_line(kind: str, tmp_path: Path) -> None:
    content, message = BAD_FILES[kind]
    with pytest.raises(InvalidDataError, match=message) as problem:
        read_light_curve(write(tmp_path, content))
    text = str(problem.value)
    assert "\n" not in text and "Traceback" not in text and len(text) < 300
    if kind != "nothing usable":
        assert "curve.csv" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "flx"}, "no column 'flx' for 'value'; columns: 'time', 'flux', 'err' \\(did you mean 'flux'\\?\\)"),
        ({"time": "qqq"}, "no column 'qqq' for 'time'; columns: 'time', 'flux', 'err'$"),
        ({"error": 7}, "no column 7 for 'error'; there are 3: 'time'"),
        ({"band": "filter"}, "no column 'filter' for 'band'"),
        ({"format": "xls"}, "unknown format 'xls'; there are: auto, table"),
        ({"format": "fits"}, "cannot be read as FITS"),
        ({"format": "ecsv"}, "cannot be read as ECSV"),
        ({"quality_mask": 1}, "quality_mask is for FITS files"),
    ],
)
def test_bad_requests(options: dict, message: str, tmp_path: Path) -> None:
    if options.get("format") in {"fits", "ecsv"}:
        pytest.importorskip("astropy")
    path = write(tmp_path, "time,flux,err\n1,2,3\n2,3,4\n")
    with pytest.raises(InvalidDataError, match=message) as problem:
        read_light_curve(path, **options)
    assert "\n" not in str(problem.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match="no such file"):
        read_light_curve(tmp_path / "nothing.csv")
    with pytest.raises(InvalidDataError, match="is a directory; read_fleet"):
        read_light_curve(tmp_path)


def test_one_row(tmp_path: Path) -> None:
    assert read_light_curve(write(tmp_path, "1.0 2.0 0.1\n")).n == 1
    assert read_light_curve(write(tmp_path, "time,value,error\n1.0,2.0,0.1\n")).n == 1


def test_a_million_rows(tmp_path: Path) -> None:
    n = 1_000_000
    text = "".join(f"{n - row},{row % 7}.5,0.25\n" for row in range(n))
    curve = read_light_curve(write(tmp_path, text))
    assert curve.n == n and curve.time[0] == 1 and curve.input_row[0] == n - 1


numbers = st.floats(allow_nan=False, allow_infinity=False)
errors = st.floats(min_value=1e-300, max_value=1e300)
labels = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="\"'\\"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(-1e9, 1e9), numbers, errors, st.booleans(), labels), min_size=1, max_size=12),
    optional=st.tuples(st.booleans(), st.booleans()),
    name=st.text(max_size=12),
)
def test_written_curves_come_back_exactly(
    rows: list[tuple[float, float, float, bool, str]],
    optional: tuple[bool, bool],
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    time, value, error, limit, band = (list(column) for column in zip(*rows, strict=True))
    if len({row[:3] for row in rows}) < len(rows):
        return  # exact duplicates warn, which is tested elsewhere
    curve = LightCurve(
        time,
        value,
        error,
        upper_limit=limit,
        half_width=[abs(number) + 1e-3 for number in time] if optional[0] else None,
        band=band if optional[1] else None,
        time_unit="s",
        value_unit="erg s$^{-1}$, #",
        name=name,
        meta={"number": 1.5, "list": [1, "a"]},
        exclusions={"cloud": 3},
    )
    path = tmp_path_factory.mktemp("round_trip") / "curve.csv"
    assert curve.write_csv(path) == path
    back = read_light_curve(path)
    back.name = name  # an empty name is filled from the file's
    assert back == curve
    assert back.exclusions == {"cloud": 3} and back.meta["list"] == [1, "a"]


rubbish = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.text("0123456789.,;|\t \n\n\r#%-+eE<>nanifxt_\"'", max_size=200).map(str.encode),
    st.lists(
        st.lists(st.sampled_from(["1", "2.5", "nan", "<3", "-", "inf", "1e999", "x", ""]), max_size=4).map(",".join)
    )
    .map("\n".join)
    .map(str.encode),
)


@settings(max_examples=300, deadline=None)
@given(content=rubbish)
def test_no_content_gives_anything_but_a_curve_or_a_typed_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rubbish") / "curve.csv"
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DataWarning)  # any other warning fails
            curve = read_light_curve(path)
    except InvalidDataError as problem:
        assert "\n" not in str(problem) and len(str(problem)) < 500
    else:
        assert np.isfinite(curve.time).all() and np.isfinite(curve.value).all()
        assert (curve.error[~curve.upper_limit] > 0).all()


def test_writing_replaces_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curve.csv"
    LightCurve([1.0], [2.0], 0.1).write_csv(path)
    before = path.read_bytes()
    assert path.stat().st_mode & 0o444 == 0o444

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pandas.DataFrame.to_csv", interrupt)
    with pytest.raises(KeyboardInterrupt):
        LightCurve([1.0, 2.0], [2.0, 3.0], 0.1).write_csv(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve.csv"], "no partial file is left"
