"""What a successful run writes: files, the schema of ``summary.json``, the same numbers for the same seed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arviz
import pytest

import gpkit as package
from tests.cli.conftest import Columns, N, Outcome

Run = Callable[..., Outcome]
SAMPLED = ("--kernels", "drw,sho", "--draws", 60, "--tune", 60, "--chains", 2, "--starts", 2)
KERNEL = {
    "log_likelihood", "n_parameters", "aicc", "bic", "elpd_loo", "elpd_loo_se", "parameters", "timescales",
    "divergences", "converged", "seconds",
}  # fmt: skip
INTERVAL = {"map", "median", "hdi_low", "hdi_high"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def sampled(gpkit: Run, columns: Columns, folder: Path, rendered: None) -> tuple[Path, dict[str, Any]]:
    """The folder of one sampled run, made once."""
    out = folder / "out"
    if not (out / "summary.json").exists():
        outcome = gpkit("lightcurve", columns.write(folder / "walk.csv"), "--out", out, "--seed", 3, *SAMPLED)
        assert outcome.code == 0, outcome.err
    return out, json.loads((out / "summary.json").read_text())


def test_schema(sampled: tuple[Path, dict[str, Any]]) -> None:
    _, summary = sampled
    assert set(summary) == {"light_curve", "kernels", "best", "warnings"}
    assert set(summary["light_curve"]) == {"name", "n", "n_upper_limits", "n_dropped", "baseline"}
    assert summary["light_curve"]["name"] == "walk" and summary["light_curve"]["n"] == N
    assert set(summary["kernels"]) == {"drw", "sho"}
    assert set(summary["best"]) == {"aicc", "elpd_loo"} and set(summary["best"].values()) <= {"drw", "sho"}
    names = {"drw": {"amplitude", "timescale", "jitter", "mean"}}
    names["sho"] = {"amplitude", "frequency", "quality", "jitter", "mean"}
    for name, kernel in summary["kernels"].items():
        assert set(kernel) == KERNEL and set(kernel["parameters"]) == names[name]
        assert kernel["n_parameters"] == len(names[name]) and kernel["seconds"] > 0
        assert isinstance(kernel["divergences"], int) and isinstance(kernel["converged"], bool)
        for entry in kernel["parameters"].values():
            assert set(entry) == INTERVAL | {"rhat", "ess"} and entry["hdi_low"] <= entry["median"] <= entry["hdi_high"]
        for entry in kernel["timescales"].values():
            assert set(entry) == INTERVAL and entry["hdi_low"] <= entry["hdi_high"]
    for warning in summary["warnings"]:
        assert set(warning) == {"level", "code", "kernel", "message"}
    assert "sampler-not-converged" in {warning["code"] for warning in summary["warnings"]}, "120 draws are too few"
    assert not any(kernel["converged"] for kernel in summary["kernels"].values())


def test_posterior_file(sampled: tuple[Path, dict[str, Any]]) -> None:
    out, summary = sampled
    for kernel in ("drw", "sho"):
        data = arviz.from_netcdf(str(out / f"posterior_{kernel}.nc"))
        groups = {"posterior", "sample_stats", "log_likelihood", "posterior_predictive", "observed_data"}
        assert set(data.groups()) == groups | {"constant_data"}
        assert dict(data.posterior.sizes) == {"chain": 2, "draw": 60}
        assert data.log_likelihood["y"].dims == ("chain", "draw", "time")
        assert data.posterior_predictive["y"].dims == ("chain", "draw", "time")
        assert data.observed_data["y"].dims == data.constant_data["error"].dims == ("time",)
        assert data.posterior.attrs["seed"] == 3 and data.posterior.attrs["tune"] == 60
        median = float(data.posterior["amplitude"].median())
        assert median == pytest.approx(summary["kernels"][kernel]["parameters"]["amplitude"]["median"])


def test_report_needs_nothing_else(sampled: tuple[Path, dict[str, Any]]) -> None:
    html = (sampled[0] / "report.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html) and "<script" not in html
    assert not list(sampled[0].glob(".*")), "temporary files are gone"


def _without_seconds(summary: dict[str, Any]) -> dict[str, Any]:
    for kernel in summary["kernels"].values():
        del kernel["seconds"]
    return summary


def _figures(folder: Path) -> list[str]:
    return re.findall(r"data:image/[^\"]+", (folder / "report.html").read_text())


def test_same_seed_same_numbers_and_figures(
    gpkit: Run, columns: Columns, tmp_path: Path, sampled: tuple[Path, dict[str, Any]]
) -> None:
    path = columns.write(tmp_path / "walk.csv")
    outcome = gpkit("lightcurve", path, "--out", tmp_path / "out", "--seed", 3, "--json", *SAMPLED)
    assert outcome.code == 0 and outcome.err == ""
    assert _without_seconds(json.loads(outcome.out)) == _without_seconds(sampled[1])
    assert _figures(tmp_path / "out") == _figures(sampled[0])


def test_other_settings_are_not_reused(gpkit: Run, columns: Columns, tmp_path: Path) -> None:
    path, out = columns.write(tmp_path / "walk.csv"), tmp_path / "out"
    words = ("lightcurve", path, "--out", out, "--kernels", "drw", "--no-sample", "--json")
    first = gpkit(*words)
    again = gpkit(*words)
    assert "drw: kept from an earlier run" in again.err and json.loads(again.out) == json.loads(first.out)
    for other in (("--seed", "4"), ("--transform", "log"), ("--mean", "linear"), ("--name", "x"), ("--starts", "2")):
        changed = gpkit(*words, *other)
        assert changed.code == 0 and "kept" not in changed.err, other


def test_printed_table(gpkit: Run, columns: Columns, tmp_path: Path) -> None:
    path = columns.write(tmp_path / "walk.csv")
    outcome = gpkit("lightcurve", path, "--out", tmp_path / "out", "--kernels", "drw,matern32", "--no-sample")
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.startswith(f"walk: {N} points over ") and "delta_aicc" in outcome.out
    assert outcome.out.rstrip().endswith("report.html")
    quiet = gpkit("lightcurve", path, "--out", tmp_path / "out", "--kernels", "drw,matern32", "--no-sample", "--quiet")
    assert quiet == Outcome(0, "", "")


def test_version_and_help(gpkit: Run) -> None:
    assert gpkit("--version") == Outcome(0, f"gpkit {package.__version__}\n", "")
    assert "lightcurve" in gpkit("--help").out
    assert gpkit().code == 2 and gpkit("lightcurve").code == 2
