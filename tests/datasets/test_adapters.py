"""Light curves from and to the objects of other packages."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gpkit.datasets import LightCurve
from gpkit.errors import DataWarning, InvalidDataError

EXPECTED = LightCurve([1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [0.5, 0.5, 0.25])


def test_pandas_round_trip() -> None:
    curve = LightCurve(
        EXPECTED.time,
        EXPECTED.value,
        EXPECTED.error,
        upper_limit=[0, 1, 0],
        half_width=0.5,
        band="g",
        name="n",
        value_unit="Jy",
    )
    frame = curve.to_pandas()
    assert list(frame) == ["time", "value", "error", "upper_limit", "half_width", "band"]
    back = LightCurve.from_pandas(frame, value_unit=frame.attrs["value_unit"])
    assert back == curve
    frame.loc[0, "value"] = -1.0
    assert curve.value[0] == 10.0, "the frame is a copy"


def test_pandas_columns_types_and_rows() -> None:
    frame = pd.DataFrame(
        {"MJD": [1, 2, 3], "Mag": ["10", "20", " 30 "], "MagErr": pd.array([0.5, 0.5, 0.25], dtype="Float64")}
    )
    curve = LightCurve.from_pandas(frame)
    assert (curve.time.tolist(), curve.value.tolist(), curve.error.tolist()) == (
        [1, 2, 3],
        [10, 20, 30],
        [0.5, 0.5, 0.25],
    )
    assert curve.value_unit == "mag"
    with pytest.raises(InvalidDataError, match="no column 'flux' for 'value'; columns: 'MJD', 'Mag', 'MagErr'"):
        LightCurve.from_pandas(frame, value="flux")
    with pytest.raises(InvalidDataError, match=r"row 1 \(counted from 0\) of the data frame, column 'Mag': 'x' is not"):
        LightCurve.from_pandas(frame.assign(Mag=["1", "x", "2"]))
    with pytest.raises(InvalidDataError, match="column 'MJD' is there twice"):
        LightCurve.from_pandas(pd.concat([frame, frame[["MJD"]]], axis=1))
    with pytest.warns(DataWarning, match="1 of 3 rows"):
        missing = LightCurve.from_pandas(frame.assign(Mag=pd.array([1, pd.NA, 3], dtype="Int64")))
    assert missing.exclusions == {"value not finite": 1}


def test_pandas_calendar_times() -> None:
    frame = pd.DataFrame({"date": pd.to_datetime(["2000-01-01", "2000-01-03"]), "flux": [1.0, 2.0], "err": [0.1, 0.1]})
    curve = LightCurve.from_pandas(frame)
    assert curve.time.tolist() == [51544.0, 51546.0] and curve.time_unit == "d"


def test_astropy_tables() -> None:
    table = pytest.importorskip("astropy.table", reason="astropy (extra astro) is not installed")
    units = pytest.importorskip("astropy.units")
    time = pytest.importorskip("astropy.time")
    timeseries = pytest.importorskip("astropy.timeseries")
    plain = table.Table(
        {"time": [1.0, 2.0, 3.0], "flux": [10, 20, 30], "flux_err": [0.5, 0.5, 0.25], "v": np.zeros((3, 2))}
    )
    assert LightCurve.from_astropy_table(plain) == EXPECTED
    assert LightCurve.from_astropy_table(plain, error=0.5).error.tolist() == [0.5] * 3
    quantities = table.QTable(plain)
    quantities["flux"] = [10, 20, 30] * units.Jy
    curve = LightCurve.from_astropy_table(quantities, name="q")
    assert (curve.value_unit, curve.name, curve.value.tolist()) == ("Jy", "q", [10, 20, 30])
    series = timeseries.TimeSeries(
        time=time.Time([54000.0, 54001.0, 54002.5], format="mjd"),
        data={"flux": [10, 20, 30] * units.Jy, "flux_err": [0.5, 0.5, 0.25] * units.Jy},
    )
    curve = LightCurve.from_astropy_table(series)
    assert curve.time.tolist() == [54000, 54001, 54002.5]
    assert (curve.meta["time_format"], curve.meta["time_scale"], curve.time_unit) == ("mjd", "utc", "d")
    calendar = table.Table(
        {"time": time.Time(["2000-01-01", "2000-01-02", "2000-01-04"]), "flux": [1, 2, 3], "err": [1, 1, 1]}
    )
    assert LightCurve.from_astropy_table(calendar).time.tolist() == [51544, 51545, 51547]
    masked = table.Table({"time": np.arange(20.0), "flux": np.arange(20.0), "err": np.ones(20)}, masked=True)
    masked["flux"].mask[4] = True
    assert LightCurve.from_astropy_table(masked).exclusions == {"value not finite": 1}
    with pytest.raises(InvalidDataError, match="no column is known to be the value"):
        LightCurve.from_astropy_table(plain[["time", "v"]])


def test_from_arrays_takes_units() -> None:
    units = pytest.importorskip("astropy.units", reason="astropy (extra astro) is not installed")
    curve = LightCurve.from_arrays([1, 2] * units.s, [3, 4] * units.Jy, [1, 1] * units.Jy)
    assert (curve.time_unit, curve.value_unit, curve.value.tolist()) == ("s", "Jy", [3, 4])
    assert LightCurve.from_arrays([1, 2] * units.s, [3, 4], 1.0, time_unit="ks").time_unit == "ks"


def test_lightkurve_objects_are_known_by_what_they_offer() -> None:
    fake = SimpleNamespace(
        time=SimpleNamespace(value=np.array([1.0, 2.0, 3.0]), format="btjd", scale="tdb"),
        flux=SimpleNamespace(value=np.array([10, 20, 30], dtype=">f4"), unit="electron / s"),
        flux_err=SimpleNamespace(value=np.array([0.5, 0.5, 0.25], dtype=">f4")),
        label="TIC 1",
    )
    curve = LightCurve.from_lightkurve(fake)
    assert curve.value.tolist() == [10, 20, 30] and curve.value.dtype.isnative
    assert (curve.name, curve.value_unit) == ("TIC 1", "electron / s")
    assert curve.meta == {"time_format": "btjd", "time_scale": "tdb"}
    assert LightCurve.from_lightkurve(fake, name="other").name == "other"
    with pytest.raises(InvalidDataError, match="has no 'flux_err'"):
        LightCurve.from_lightkurve(SimpleNamespace(time=fake.time, flux=fake.flux))


def test_lightkurve_masked_quantities() -> None:
    units = pytest.importorskip("astropy.units", reason="astropy (extra astro) is not installed")
    masked = pytest.importorskip("astropy.utils.masked")
    mask = np.arange(20) == 2
    flux = masked.Masked(np.arange(20.0) * units.Jy, mask=mask)
    fake = SimpleNamespace(time=SimpleNamespace(value=np.arange(20.0)), flux=flux, flux_err=np.full(20, 0.1) * units.Jy)
    assert LightCurve.from_lightkurve(fake).exclusions == {"value not finite": 1}
