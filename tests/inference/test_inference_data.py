"""Posteriors as ArviZ objects, in memory and in files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gpkit.errors import InvalidDataError
from gpkit.inference.inference_data import load_inference_data, provenance, save_inference_data, to_inference_data
from gpkit.inference.nuts import sample_nuts
from tests.inference.models import matern_potential


@pytest.fixture(scope="module")
def data():
    spec = matern_potential(30)
    z, statistics = sample_nuts(spec, draws=25, tune=50, chains=2, progress=False)
    rng = np.random.default_rng(0)
    return to_inference_data(
        spec.to_natural(z),
        statistics,
        groups={
            "log_likelihood": {"leave_one_out": rng.normal(size=(2, 25, 30))},
            "posterior_predictive": {"y": rng.normal(size=(2, 25, 30))},
            "observed_data": {"y": spec.y},
            "constant_data": {"t": spec.t, "variance": spec.variance},
            "prior": {},
        },
        coords={"time": spec.t},
        dims={"leave_one_out": ["time"], "y": ["time"], "t": ["time"], "variance": ["time"]},
        attrs=provenance(seed=5, command="gpkit lightcurve x.csv", kernel={"name": "matern32"}),
    )


def test_groups_and_named_dimensions(data):
    assert data.groups() == [
        "posterior", "posterior_predictive", "log_likelihood", "sample_stats", "observed_data", "constant_data",
    ]  # fmt: skip
    assert dict(data.posterior.sizes) == {"chain": 2, "draw": 25}
    assert list(data.posterior.data_vars) == ["variance", "rate", "jitter", "mean"]
    assert data.log_likelihood["leave_one_out"].dims == ("chain", "draw", "time")
    assert data.observed_data["y"].dims == ("time",)
    assert data.sample_stats["diverging"].dtype == bool
    assert data.constant_data["time"].values.tolist() == matern_potential(30).t.tolist()


def test_attributes_allow_the_run_to_be_repeated(data):
    for attributes in (data.attrs, data.posterior.attrs, data.observed_data.attrs):
        assert attributes["seed"] == 5
        assert attributes["command"] == "gpkit lightcurve x.csv"
        assert attributes["inference_library"] == "gpkit"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", attributes["created_at"])
        assert {"python", "numpy", "nutpie", "gpkit-bayes"} <= set(json.loads(attributes["versions"]))
        assert json.loads(attributes["kernel"]) == {"name": "matern32"}
    assert "command" in provenance() and "seed" not in provenance()
    assert provenance(flag=True)["flag"] == "true"


def test_files_give_back_what_was_written(data, tmp_path):
    path = save_inference_data(data, tmp_path / "posterior.nc")
    again = load_inference_data(path)
    assert set(again.groups()) == set(data.groups())
    for group in data.groups():
        assert again[group].equals(data[group])
        assert again[group].attrs["seed"] == 5
    assert again.attrs["command"] == data.attrs["command"]
    path.unlink()  # nothing is read later
    assert float(again.posterior["rate"].mean()) == float(data.posterior["rate"].mean())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(data, tmp_path, monkeypatch):
    path = tmp_path / "posterior.nc"
    path.write_text("old")

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(data), "to_netcdf", fail)
    with pytest.raises(KeyboardInterrupt):
        save_inference_data(data, path)
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]
    assert path.read_text() == "old"


def test_bad_input(tmp_path):
    with pytest.raises(InvalidDataError, match=r"unknown groups \['posterior_pred'\]"):
        to_inference_data({"a": np.zeros((2, 3))}, groups={"posterior_pred": {"y": np.zeros((2, 3))}})
    with pytest.raises(InvalidDataError, match="must be \\(chain, draw"):
        to_inference_data({"a": np.zeros((2, 3)), "b": np.zeros((2, 4))})
    with pytest.raises(InvalidDataError, match="must be \\(chain, draw"):
        to_inference_data({"a": np.zeros(3)})
    (tmp_path / "text.nc").write_text("t,y\n")
    with pytest.raises(InvalidDataError, match="is not a posterior in netCDF"):
        load_inference_data(tmp_path / "text.nc")
    with pytest.raises(FileNotFoundError):
        load_inference_data(tmp_path / "absent.nc")
