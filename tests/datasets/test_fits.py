"""FITS and ECSV, through astropy."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpkit.datasets import read_light_curve
from gpkit.errors import InvalidDataError, MissingDependencyError

fits = pytest.importorskip("astropy.io.fits", reason="astropy (extra astro) is not installed")
table = pytest.importorskip("astropy.table")
units = pytest.importorskip("astropy.units")

NAN = np.nan


def kepler(
    folder: Path, *, pdcsap: Any = (10.0, NAN, 12.0, 13.0, 14.0), name: str = "curve.fits", **header: Any
) -> Path:
    """A file in the layout of the Kepler archive: big-endian single-precision fluxes beside double-precision times."""
    n = len(pdcsap)
    columns = [
        fits.Column("TIME", "D", unit="BJD - 2454833", array=[1.0, 2.0, NAN, 4.0, 5.0][:n]),
        fits.Column("SAP_FLUX", "E", unit="e-/s", array=np.arange(n) + 20.0),
        fits.Column("SAP_FLUX_ERR", "E", unit="e-/s", array=np.full(n, 0.5)),
        fits.Column("PDCSAP_FLUX", "E", unit="e-/s", array=pdcsap),
        fits.Column("PDCSAP_FLUX_ERR", "E", unit="e-/s", array=np.where(np.isnan(pdcsap), NAN, 0.25)),
        fits.Column("SAP_QUALITY", "J", array=[0, 0, 0, 128, 3][:n]),
        fits.Column("POS", "2E", array=np.zeros((n, 2))),
    ]
    hdu = fits.BinTableHDU.from_columns(columns, name="LIGHTCURVE")
    hdu.header.update(
        {"BJDREFI": 2454833, "BJDREFF": 0.5, "TIMESYS": "TDB", "OBJECT": "KIC 1", "TIMEDEL": 0.02} | header
    )
    path = folder / name
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2))), hdu]).writeto(path)
    return path


def test_kepler_layout(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 5 rows were excluded"):
        curve = read_light_curve(kepler(tmp_path))
    assert curve.time.tolist() == [1, 4, 5] and curve.value.tolist() == [10, 13, 14]
    assert curve.exclusions == {"time not finite": 1, "no measurement": 1}
    for column in (curve.time, curve.value, curve.error):
        assert column.dtype == np.float64 and column.dtype.isnative
    assert (curve.name, curve.time_unit, curve.value_unit) == ("KIC 1", "d", "e-/s")
    assert curve.half_width is not None and curve.half_width[0] == 0.01
    assert (curve.meta["time_reference"], curve.meta["time_scale"]) == (2454833.5, "tdb")
    assert curve.meta["columns"]["value"] == "PDCSAP_FLUX"


@pytest.mark.filterwarnings("ignore::gpkit.errors.DataWarning")  # of flagged rows, tested above
def test_columns_quality_and_compression(tmp_path: Path) -> None:
    path = kepler(tmp_path)
    assert read_light_curve(path, value="SAP_FLUX").value.tolist() == [20, 21, 23, 24]
    assert read_light_curve(path, value="sap_flux", error=1.5).error.tolist() == [1.5] * 4
    flagged = read_light_curve(path, quality_mask=128)
    assert flagged.time.tolist() == [1, 5] and flagged.exclusions["quality flag"] == 1
    assert read_light_curve(path, quality_mask=-1).time.tolist() == [1]
    packed = tmp_path / "packed.bin"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_light_curve(packed) == read_light_curve(path)


@pytest.mark.filterwarnings("ignore::gpkit.errors.DataWarning")  # of flagged rows, tested above
def test_falls_back_to_sap_flux_where_the_pipeline_gave_nothing(tmp_path: Path) -> None:
    assert read_light_curve(kepler(tmp_path, pdcsap=[NAN] * 5)).meta["columns"]["value"] == "SAP_FLUX"


def test_tess_and_high_energy_layouts(tmp_path: Path) -> None:
    columns = [
        fits.Column("TIME", "D", unit="s", array=[10.0, 20.0]),
        fits.Column("RATE", "E", unit="count/s", array=[1.0, 2.0]),
        fits.Column("ERROR", "E", unit="count/s", array=[0.1, 0.2]),
    ]
    hdu = fits.BinTableHDU.from_columns(columns, name="RATE")
    hdu.header.update({"MJDREFI": 51910, "MJDREFF": 0.25, "TIMEUNIT": "s"})
    path = tmp_path / "rate.lc"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    curve = read_light_curve(path)
    assert (curve.time_unit, curve.value_unit, curve.name) == ("s", "count/s", "rate")
    assert curve.meta["time_reference"] == 51910.25 and curve.meta["time_reference_system"] == "MJD"
    assert curve.half_width is None


def test_bad_fits(tmp_path: Path) -> None:
    image = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(image)
    with pytest.raises(InvalidDataError, match="no table in the FITS file has a time column; columns: none"):
        read_light_curve(image)
    catalogue = tmp_path / "catalogue.fits"
    fits.BinTableHDU.from_columns([fits.Column("RA", "D", array=[1.0])]).writeto(catalogue)
    with pytest.raises(InvalidDataError, match="columns: 'RA'"):
        read_light_curve(catalogue)
    broken = tmp_path / "broken.fits"
    broken.write_bytes(kepler(tmp_path).read_bytes()[:9000])
    with pytest.raises(InvalidDataError, match="broken.fits: ") as problem:
        read_light_curve(broken)
    assert "\n" not in str(problem.value)
    with pytest.raises(InvalidDataError, match="no column 'flx' for 'value'.*did you mean"):
        read_light_curve(kepler(tmp_path, name="b.fits"), value="flx")
    with pytest.raises(InvalidDataError, match="no column 'QUALITY' for 'quality_mask'"):
        columns = [fits.Column(name, "D", array=[1.0]) for name in ("TIME", "FLUX", "FLUX_ERR")]
        fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "plain.fits")
        read_light_curve(tmp_path / "plain.fits", quality_mask=1)


def test_ecsv(tmp_path: Path) -> None:
    rows = table.Table({"mjd": [3.0, 1.0], "flux": [30.0, 10.0], "flux_err": [3.0, 1.0], "band": ["g", "r"]})
    rows["flux"].unit = units.mJy
    rows.meta["name"] = "X-1"
    path = tmp_path / "curve.txt"
    rows.write(path, format="ascii.ecsv")
    curve = read_light_curve(path)
    assert curve.time.tolist() == [1, 3] and curve.bands == ("g", "r")
    assert (curve.name, curve.value_unit, curve.meta["format"]) == ("X-1", "mJy", "ecsv")
    with pytest.raises(InvalidDataError, match="no column 'mag' for 'value'"):
        read_light_curve(path, value="mag")


@pytest.mark.parametrize("kind", ["fits", "ecsv"])
def test_without_astropy_the_extra_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kepler(tmp_path)
    if kind == "ecsv":
        path.write_text("# %ECSV 1.0\n# ---\n")
    for module in [module for module in sys.modules if module == "astropy" or module.startswith("astropy.")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"needs astropy.*pip install 'gpkit-bayes\[astro\]'") as problem:
        read_light_curve(path)
    assert "\n" not in str(problem.value)
