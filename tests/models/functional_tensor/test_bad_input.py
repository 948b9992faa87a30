"""Bad tables and settings: one sentence that says what, where and what would be right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpkit.errors import InvalidDataError
from gpkit.kernels import BinAveragedKernel, MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor, Spatial
from tests.models.functional_tensor.tables import fitted, modes, table


def refused(change, match, **options):
    frame = change(table(60).astype({"kind": object}))
    with pytest.raises(InvalidDataError, match=match):
        FunctionalTensor(modes(), **{"rank": 2, **options}).fit(frame, "y", restarts=1, progress=False)


def put(column, row, value):
    def change(frame):
        frame = frame.astype({column: object}) if isinstance(value, str) else frame
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("x", 3, np.nan), "row 3 of 'x' is nan: coordinates must be finite"),
        (put("t", 5, np.inf), "row 5 of 't' is inf"),
        (put("x", 7, "warm"), "row 7 of 'x' is 'warm', which is not a number"),
        (put("kind", 2, None), "row 2 of 'kind' is missing"),
        (put("y", 4, np.inf), "row 4 of the target 'y' is inf"),
        (put("y", 6, "high"), "row 6 of the target 'y' is 'high', which is not a number"),
        (lambda f: f.assign(y=pd.Timestamp("2020-01-01")), "the target 'y' holds dates: what is modelled"),
        (lambda f: f.assign(y=np.nan), "0 of 60 rows have a target"),
        (lambda f: f.assign(y=3.0), "every target is 3: there is nothing to model"),
        (lambda f: f.assign(y=1e200 * f.y), "the targets spread by .*: use a unit"),
        (lambda f: f.assign(y=1j * f.y), "the target 'y' holds complex numbers"),
        (lambda f: f.assign(x=1.0), "'x' has one distinct value"),
        (lambda f: f.drop(columns="t"), "no column 't'"),
        (lambda f: f.drop(columns="y"), "no column 'y'"),
    ],
)
def test_bad_tables(change, match):
    refused(change, match)


def test_bad_settings():
    refused(lambda f: f, "rank 6 for 'kind', which has 5", rank=6)
    refused(lambda f: f, "counts must be non-negative integers", likelihood="poisson")
    for options, match in (
        ({"rank": 0}, "rank must be"),
        ({"rank": (1, 2)}, "one for each of 3 modes, got"),
        ({"neighbours": 0}, "neighbours must be an integer of at least 1"),
        ({"form": "hosvd"}, "form must be one of"),
    ):
        with pytest.raises(InvalidDataError, match=match):
            FunctionalTensor(modes(), **options)
    with pytest.raises(InvalidDataError, match="same column"):
        FunctionalTensor([Continuous("x"), Categorical("x")])
    with pytest.raises(InvalidDataError, match="must be a GPyTorch kernel, got 'matern'"):
        Continuous("x", "matern")
    with pytest.raises(InvalidDataError, match="two columns or more"):
        Spatial("place", ("u",))
    for options, match in (
        ({"restarts": 0}, "restarts must be an integer of at least 1, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"tolerance": np.nan}, "tolerance must be"),
    ):
        with pytest.raises(InvalidDataError, match=match):
            FunctionalTensor(modes()).fit(table(60), "y", progress=False, **options)
    with pytest.raises(InvalidDataError, match="restarts >= 2"):
        FunctionalTensor(modes(), residual="local").fit(table(60), "y", restarts=1)
    with pytest.raises(InvalidDataError, match="not been fitted"):
        FunctionalTensor(modes()).predict(table(3))


def test_missing_targets_are_counted_and_repeated_rows_are_used():
    frame = table(60)
    frame.loc[[1, 5], "y"] = np.nan
    frame.loc[10] = frame.loc[11]
    fit = fitted(frame, fit={"restarts": 1}).fitted
    assert fit.n == 58 and fit.exclusions == {"no target": 2} and fit.repeated >= 1
    masked = np.ma.masked_array(frame.y.fillna(0.0), mask=frame.y.isna())
    again = FunctionalTensor(modes(), rank=2).fit(frame, masked, restarts=1, sweeps=25, progress=False)
    assert again.exclusions == {"no target": 2}
    np.testing.assert_array_equal(again.elbo, fit.elbo)


def test_predictions_and_updates_of_other_modes():
    model = fitted(table(80), fit={"restarts": 1})
    new = table(3, seed=1)
    with pytest.raises(InvalidDataError, match="row 0 of 'kind' is z, which the data of the fit did not have"):
        model.predict(new.assign(kind="z"))
    with pytest.raises(InvalidDataError, match="no column 'x'"):
        model.update(new.drop(columns="x"), new.y)
    with pytest.raises(InvalidDataError, match="has levels such as 'a' in the data of the fit, got 1"):
        model.update(new.assign(kind=1), new.y)
    with pytest.raises(InvalidDataError, match="number of draws must be an integer"):
        model.predict(new).sample(0)
    with pytest.raises(InvalidDataError, match="forgetting"):
        model.update(new, new.y, forgetting=0.0)
    with pytest.raises(InvalidDataError, match="no mode 'z'"):
        model.functions("z")
    with pytest.raises(InvalidDataError, match="is not a gpkit tensor model"):
        FunctionalTensor.load(__file__)


def test_bins_need_a_width_and_room():
    binned = BinAveragedKernel(MaternKernel(1.5))
    for kernel, width, said in ((binned, None, "go together"), (MaternKernel(1.5), 1.0, "go together")):
        with pytest.raises(InvalidDataError, match=said):
            Continuous("t", kernel, width=width)
    with pytest.raises(InvalidDataError, match="must not be negative"):
        Continuous("t", binned, width=-1.0)
    frame = table(60).assign(t=lambda f: f.t.round())
    model = FunctionalTensor([Continuous("t", binned, width=1.0), Categorical("kind")], rank=1)
    model.fit(frame, "y", restarts=1, sweeps=3, progress=False)
    with pytest.raises(InvalidDataError, match="overlap"):
        model.predict(frame.assign(t=frame.t + 0.5))
