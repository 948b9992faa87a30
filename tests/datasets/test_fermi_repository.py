"""Exports of the Fermi-LAT Light Curve Repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpkit.datasets import read_light_curve
from gpkit.errors import InvalidDataError

HEADER = (
    '"Date(UTC)","Julian Date","MET","TS","{flux} [0.1-100 GeV]({unit})","{flux} Error({unit})",'
    '"Photon Index","Photon Index Error","Sun Distance","Fit Tolerance","MINUIT Return Code","Analysis Log"'
)
ROW = '"Aug 08 2008","{day}","239889601","{ts}","{flux}","{error}","-2.2","-","58.82","1e-8","0","bin1.log"'


def export(folder: Path, rows: list[tuple[float, str, str]], flux: str = "Photon Flux") -> Path:
    unit = "photons cm-2 s-1" if flux == "Photon Flux" else "MeV cm-2 s-1"
    lines = [HEADER.format(flux=flux, unit=unit)]
    lines += [ROW.format(day=day, ts=50 if error != "-" else 3, flux=value, error=error) for day, value, error in rows]
    path = folder / "4FGL_J0000.0+0000_weekly.csv"
    path.write_text("\n".join(lines))
    return path


def test_detections_limits_and_bins(tmp_path: Path) -> None:
    rows = [(2454687, "2.67e-7", "4.00e-8"), (2454694, "< 1.05e-7", "-"), (2454701, "4.48e-7", "4.50e-8")]
    rows += [(2454715.999976852, "< 9.24e-8", "-"), (2454722.999976852, "3.8e-7", "3.7e-8")]
    curve = read_light_curve(export(tmp_path, rows))
    assert (curve.n_detections, curve.n_upper_limits, curve.n_dropped) == (3, 2, 0)
    assert curve.value.tolist() == [2.67e-7, 1.05e-7, 4.48e-7, 9.24e-8, 3.8e-7]
    np.testing.assert_array_equal(curve.error, [4e-8, np.nan, 4.5e-8, np.nan, 3.7e-8])
    assert curve.half_width is not None and (curve.half_width == 3.5).all(), "half of the usual step, gaps or not"
    assert (curve.time_unit, curve.value_unit) == ("d", "photons cm-2 s-1")
    assert (curve.name, curve.meta["format"]) == ("4FGL_J0000.0+0000_weekly", "fermi_lcr")


def test_energy_flux_and_own_half_width(tmp_path: Path) -> None:
    rows = [(2454687 + 3 * k, "2.0e-5", "4.0e-6") for k in range(4)]
    curve = read_light_curve(export(tmp_path, rows, flux="Energy Flux"), half_width=1.0)
    assert curve.value_unit == "MeV cm-2 s-1"
    assert curve.half_width is not None and (curve.half_width == 1.0).all()


def test_one_bin_has_no_known_width(tmp_path: Path) -> None:
    assert read_light_curve(export(tmp_path, [(2454687, "2e-7", "4e-8")])).half_width is None


def test_a_detection_without_error_is_counted(tmp_path: Path) -> None:
    rows = [(2454687 + 7 * k, "2.0e-7", "4.0e-8") for k in range(20)] + [(2454687 + 140, "2.0e-7", "-")]
    assert read_light_curve(export(tmp_path, rows)).exclusions == {"error not finite": 1}


def test_all_upper_limits_are_refused_where_a_fit_begins(tmp_path: Path) -> None:
    curve = read_light_curve(export(tmp_path, [(2454687 + 7 * k, "< 1e-7", "-") for k in range(3)]))
    with pytest.raises(InvalidDataError, match="all 3 points are upper limits"):
        curve.detections()


def test_a_damaged_cell_is_named_with_its_line(tmp_path: Path) -> None:
    rows = [(2454687, "2.67e-7", "4.00e-8"), (2454694, "n.d.", "4e-8")]
    with pytest.raises(InvalidDataError, match="line 3 of 4FGL.*column 'Photon Flux.*'n.d.' is not a number"):
        read_light_curve(export(tmp_path, rows))
