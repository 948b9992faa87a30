"""Real files of each format, where they are present."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.datasets import read_fleet, read_light_curve
from tests.realdata import real_data_path

pytestmark = pytest.mark.realdata


@pytest.mark.parametrize(("name", "detections", "limits"), [("3c454.3", 819, 35), ("3c279", 833, 20)])
def test_weekly_exports_of_the_fermi_repository(name: str, detections: int, limits: int) -> None:
    curve = read_light_curve(real_data_path("light_curves", f"{name}_fermi_lcr_weekly.csv"))
    assert (curve.n_detections, curve.n_upper_limits, curve.n_dropped) == (detections, limits, 0)
    assert curve.meta["format"] == "fermi_lcr" and curve.value_unit == "photons cm-2 s-1"
    assert curve.half_width is not None and np.allclose(curve.half_width, 3.5)
    snr = (curve.value / curve.error)[~curve.upper_limit]
    assert 1 < snr.min() < snr.max() < 125
    assert curve.detections().to_log().n == detections


def test_daily_curve_with_days_without_a_measurement() -> None:
    curve = read_light_curve(real_data_path("light_curves", "oj287_fermi_daily.dat"))
    assert (curve.n, curve.n_dropped) == (4250, 160)
    assert curve.exclusions == {"no measurement": 160}
    assert (curve.value > 0).all()


def test_kepler_quarter() -> None:
    pytest.importorskip("astropy", reason="astropy (extra astro) is not installed")
    path = real_data_path("light_curves", "zw229-15_kepler_q7.fits")
    curve = read_light_curve(path)
    assert curve.n + curve.n_dropped == 4375
    assert curve.exclusions["time not finite"] == 80
    assert (curve.n, curve.name, curve.value_unit) == (4226, "KIC 6932990", "e-/s")
    assert curve.meta["time_reference"] == 2454833.0
    assert curve.value.dtype == np.float64 and curve.value.dtype.isnative
    np.testing.assert_allclose(curve.median_cadence * 24 * 60, 29.4, atol=0.1)
    good = read_light_curve(path, quality_mask=-1)
    assert 0 < good.exclusions["quality flag"] <= 624 and good.n < curve.n


@pytest.mark.filterwarnings("ignore:.*repeat an earlier row exactly:gpkit.errors.DataWarning")
def test_fleet_of_agn() -> None:
    fleet = read_fleet(real_data_path("light_curves", "agn_burke2021"), progress=False)
    assert len(fleet) == 207
    assert [path.rpartition("/")[2] for path in fleet.errors] == ["index.csv"]
    assert sum(curve.n_repeated_times > 0 for curve in fleet) == 51
    assert (min(map(len, fleet)), max(map(len, fleet))) == (5, 1479)
    assert all(curve.n_dropped == 0 and (np.diff(curve.time) >= 0).all() for curve in fleet)
