"""``gpkit tensor``: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gpkit.inference.structured_vb import LowRankPosterior
from gpkit.models import FunctionalTensor

WORDS = ("--modes", "x:continuous,kind:categorical", "--target", "y", "--rank", "1", "--restarts", "2", "--sweeps", "6")


@pytest.fixture
def csv(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.uniform(0, 3, 80).round(1), "kind": rng.choice(["1", "2"], 80)})
    frame["y"] = np.sin(frame.x) * (frame.kind == "1") + 0.1 * rng.standard_normal(80)
    frame.loc[3, "y"] = np.nan
    frame["label"] = "low"
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


def test_results(gpkit, csv, tmp_path):
    out = tmp_path / "out"
    done = gpkit("tensor", csv, *WORDS, "--predict", csv, "--out", out)
    assert done.code == 0, done.err
    assert "79 entries, 1 left out (no target)" in done.out
    found = json.loads((out / "summary.json").read_text())
    assert found["entries"] == 79 and found["exclusions"] == {"no target": 1}
    assert found["modes"]["kind"]["coordinates"] == 2
    assert set(found["coverage"]) == {"0.5", "0.8", "0.9", "0.95"}
    assert found["scores"]["gpkit"]["rmse"] < found["scores"]["mean of the table"]["rmse"]
    table = pd.read_csv(out / "predictions.csv")
    assert len(table) == 79 and np.sqrt(np.mean((table.y - table["mean"]) ** 2)) == pytest.approx(
        found["scores"]["gpkit"]["rmse"]
    )
    assert len(pd.read_csv(out / "predictions_new.csv")) == 80
    model = FunctionalTensor.load(out / "model.gpkit")
    assert model.elbo == pytest.approx(max(found["elbo"]))
    assert (out / "posterior.nc").exists() and not (out / "fit.part").exists()
    page = (out / "report.html").read_text()
    assert "Calibration" in page and "mean at the same kind" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--modes", "x"), "is not NAME:KIND"),
        (("--modes", "x:cubic"), "choose continuous"),
        (("--modes", "z:continuous"), "no column 'z'"),
        (("--target", "z"), "no column 'z'"),
        (("--target", "label"), "row 0 of the target 'label' is 'low', which is not a number"),
        (("--rank", "many"), "is not a number"),
        (("--residual", "local", "--restarts", "1"), "--residual local needs --restarts of 2 or more"),
        (("--likelihood", "poisson"), "counts must be non-negative integers"),
    ],
)
def test_bad_input(gpkit, csv, tmp_path, words, said):
    done = gpkit("tensor", csv, *WORDS, *words, "--out", tmp_path / "out", "--quiet")
    assert done.code == 2 and done.err.startswith("gpkit: ") and said in done.err
    assert done.err.count("\n") == 1


def test_no_such_table(gpkit, tmp_path):
    done = gpkit("tensor", tmp_path / "none.csv", *WORDS)
    assert done.code == 2 and "there is no file" in done.err
    assert gpkit("tensor", tmp_path, *WORDS).code == 2


def test_rows_to_predict_are_looked_at_before_the_fit(gpkit, csv, tmp_path, monkeypatch):
    monkeypatch.setattr(FunctionalTensor, "fit", None)
    frame, new = pd.read_csv(csv).head(3), tmp_path / "new.csv"
    for rows, said in (
        (frame.drop(columns="x"), "no column 'x'"),
        (frame.assign(kind="7"), "row 0 of 'kind' is 7, which the data of the fit did not have (1, 2)"),
        (frame.assign(x="warm"), "row 0 of 'x' is 'warm', which is not a number"),
    ):
        rows.to_csv(new, index=False)
        done = gpkit("tensor", csv, *WORDS, "--predict", new, "--out", tmp_path / "out", "--quiet")
        assert done.code == 2 and f"--predict {new}" in done.err and said in done.err


def test_what_follows_the_fit_can_be_interrupted_too(gpkit, csv, tmp_path, monkeypatch):
    """The next run makes no sweep."""
    report = FunctionalTensor.report

    def killed(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(FunctionalTensor, "report", killed)
    words = ("tensor", csv, *WORDS, "--draws", "10", "--out", tmp_path / "out")
    done = gpkit(*words)
    assert done.code == 130 and (tmp_path / "out" / "fit.part").exists()
    monkeypatch.setattr(FunctionalTensor, "report", report)
    monkeypatch.setattr(LowRankPosterior, "sweep", None)
    assert gpkit(*words).code == 0
    assert (tmp_path / "out" / "report.html").exists() and not (tmp_path / "out" / "fit.part").exists()
