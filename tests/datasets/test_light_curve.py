"""The container: what it checks, counts, keeps and refuses."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpkit.datasets import LightCurve
from gpkit.errors import DataWarning, GpkitError, InvalidDataError


def one_line(problem: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which must be one line without a full stop's worth of padding."""
    message = str(problem.value)
    assert "\n" not in message and message == message.strip() and len(message) > 20
    return message


@pytest.fixture
def curve() -> LightCurve:
    """Unsorted, with a repeated time, two upper limits, bins and bands."""
    return LightCurve(
        [3.0, 1.0, 2.0, 2.0, 5.0],
        [0.3, 0.1, 0.2, 0.25, 0.5],
        [0.03, 0.01, np.nan, 0.02, np.nan],
        upper_limit=[False, False, True, False, True],
        half_width=0.5,
        band=["g", "r", "g", "r", "g"],
        value_unit="mJy",
        name="toy",
        meta={"origin": "made up"},
    )


def test_sorts_and_keeps_the_permutation(curve: LightCurve) -> None:
    assert curve.time.tolist() == [1, 2, 2, 3, 5]
    assert curve.input_row.tolist() == [1, 2, 3, 0, 4], "ties stay in the order in which they came"
    assert curve.value.tolist() == [0.1, 0.2, 0.25, 0.3, 0.5]
    assert curve.band is not None and curve.band.tolist() == ["r", "g", "r", "g", "g"]
    assert curve.in_input_order(curve.time).tolist() == [3, 1, 2, 2, 5]
    assert curve.in_input_order(np.stack([curve.time, -curve.time]))[1].tolist() == [-3, -1, -2, -2, -5]


def test_counts(curve: LightCurve) -> None:
    assert (curve.n, len(curve), curve.n_detections, curve.n_upper_limits) == (5, 5, 3, 2)
    assert (curve.n_repeated_times, curve.n_duplicates, curve.n_dropped) == (1, 0, 0)
    assert (curve.baseline, curve.median_cadence) == (4.0, 1.0)
    assert curve.bands == ("g", "r")


def test_arrays_are_private_and_read_only() -> None:
    times = np.array([0.0, 1.0])
    curve = LightCurve(times, [1.0, 2.0], 0.1)
    times[0] = 99.0
    assert curve.time[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        curve.value[0] = 3.0


def test_rows_without_numbers_are_counted_once_by_reason() -> None:
    nan, inf = np.nan, np.inf
    with pytest.warns(DataWarning, match="5 of 7 rows were excluded"):
        curve = LightCurve([0, nan, inf, 3, 4, 5, 6], [1, 2, nan, inf, nan, 5, 6], [1, 1, 1, 1, nan, nan, 1])
    assert dict(curve.exclusions) == {
        "time not finite": 2,
        "no measurement": 1,
        "value not finite": 1,
        "error not finite": 1,
    }
    assert curve.n_dropped == 5
    assert curve.input_row.tolist() == [0, 6]


def test_few_exclusions_are_counted_without_a_warning() -> None:
    values = np.ones(50)
    values[7] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = LightCurve(np.arange(50.0), values, 0.1)
    assert curve.exclusions == {"value not finite": 1}
    assert "1 value not finite" in repr(curve)


def test_excluding_by_mask_counts_under_the_given_reason() -> None:
    mask = np.zeros(20, dtype=bool)
    mask[3] = True
    curve = LightCurve(
        np.arange(20.0), np.arange(20.0), 1.0, exclude={"cloud": mask}, exclusions={"cloud": 2, "moon": 1}
    )
    assert curve.exclusions == {"cloud": 3, "moon": 1}
    assert 3.0 not in curve.time
    with pytest.raises(InvalidDataError, match="exclude\\['cloud'\\]"):
        LightCurve([1.0, 2.0], [1.0, 2.0], 1.0, exclude={"cloud": [True]})


def test_exact_duplicates_are_reported() -> None:
    with pytest.warns(DataWarning, match="1 rows repeat an earlier row exactly"):
        curve = LightCurve([1.0, 1.0, 1.0, 2.0], [5.0, 5.0, 6.0, 5.0], 0.1)
    assert (curve.n_duplicates, curve.n_repeated_times) == (1, 2)


def test_times_that_differ_by_1e_12_are_different_points() -> None:
    curve = LightCurve([1.0, 1.0 + 1e-12], [1.0, 2.0], 0.1)
    assert (curve.n, curve.n_repeated_times) == (2, 0)
    assert 0 < curve.baseline < 2e-12


def test_one_row_is_a_light_curve_but_not_enough_for_a_model() -> None:
    curve = LightCurve([1.0], [2.0], [0.1])
    assert curve.baseline == 0.0 and np.isnan(curve.median_cadence) and curve.is_constant
    assert curve.require_at_least(1) is curve
    with pytest.raises(InvalidDataError, match="needs at least 3 detections, but it has 1") as problem:
        curve.require_at_least(3, purpose="a DRW fit")
    one_line(problem)


def test_all_upper_limits() -> None:
    curve = LightCurve([1.0, 2.0], [2.0, 3.0], np.nan, upper_limit=[True, True], name="faint")
    assert curve.n_upper_limits == 2
    for attempt in (curve.detections, lambda: curve.require_at_least(2)):
        with pytest.raises(InvalidDataError, match="'faint'.*all 2 points are upper limits") as problem:
            attempt()
        one_line(problem)


@pytest.mark.parametrize("bad", [0.0, -0.1])
def test_errors_that_are_not_positive(bad: float) -> None:
    with pytest.raises(
        InvalidDataError, match=r"1 of 3 errors are zero or negative.*row 1 \(counted from 0\)"
    ) as problem:
        LightCurve([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [0.1, bad, 0.1])
    assert "bad_errors='drop'" in one_line(problem)
    with pytest.warns(DataWarning):
        kept = LightCurve([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [0.1, bad, 0.1], bad_errors="drop")
    assert kept.exclusions == {"error not positive": 1}
    limit = LightCurve([0.0, 1.0], [1.0, 2.0], [0.1, bad], upper_limit=[False, True])
    assert np.isnan(limit.error[1]), "the error of an upper limit has no meaning and is not kept"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], [], []), {}, "has no rows"),
        (([1.0], [np.nan], [0.1]), {}, "none of the 1 rows can be used: 1 with value not finite"),
        (([1.0, 2.0], [1.0], 0.1), {}, "'value' has 1 rows, but 'time' has 2"),
        (([1.0, 2.0], [1.0, 2.0], [0.1]), {}, "'error' has 1 rows"),
        (([1.0, 2.0], [1.0, 2.0], None), {}, "has no errors"),
        (([1.0, 2.0], ["1.0", "bright"], 0.1), {}, "'value', row 1 .*'bright' is not a number"),
        (([1.0, 2.0], [1.0, 2j], 0.1), {}, "'value' must hold real numbers"),
        (([[1.0, 2.0]], [1.0, 2.0], 0.1), {}, "'time' must have one dimension"),
        (([1.0, 2.0], [1.0, 2.0], 0.1), {"half_width": [0.5, 0.0]}, "half_width is 0 at row 1"),
        (([1.0, 2.0], [1.0, 2.0], 0.1), {"half_width": np.nan}, "half_width is nan at row 0"),
        (([1.0, 2.0], [1.0, 2.0], 0.1), {"upper_limit": [True]}, "'upper_limit' has 1 rows"),
        (([1.0, 2.0], [1.0, 2.0], 0.1), {"upper_limit": [0, 2]}, "'upper_limit' must be .* mask"),
        (([1.0, 2.0], [1.0, 2.0], 0.1), {"band": ["g"]}, "'band' has 1 rows"),
        (([1.0, 2.0], [1.0, 2.0], 0.1), {"band": [["g", "r"]]}, "'band' must have one dimension"),
    ],
)
def test_refusals_are_typed_and_one_line(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(InvalidDataError, match=message) as problem:
        LightCurve(*arguments, **options)
    one_line(problem)
    assert isinstance(problem.value, GpkitError) and isinstance(problem.value, ValueError)


def test_accepts_what_users_have_in_memory() -> None:
    expected = LightCurve([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], 0.1)
    tensor = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    assert LightCurve(range(3), tensor, np.full(3, 0.1)) == expected
    assert LightCurve(np.arange(3, dtype=">i4"), np.array([1, 2, 3], dtype=">f8"), 0.1) == expected
    assert LightCurve.from_arrays((0, 1, 2), ("1", "2", "3"), 0.1) == expected
    with pytest.warns(DataWarning):
        masked = LightCurve(range(4), np.ma.MaskedArray([1, 2, 3, 4], mask=[0, 0, 0, 1]), 0.1)
    assert masked == expected and masked.exclusions == {"value not finite": 1}


def test_calendar_stamps_become_mjd() -> None:
    stamps = np.array(["2000-01-01T12:00", "2000-01-02", "NaT"], dtype="datetime64[s]")
    with pytest.warns(DataWarning):
        curve = LightCurve(stamps, [1.0, 2.0, 3.0], 0.1)
    assert curve.time.tolist() == [51544.5, 51545.0]
    assert curve.exclusions == {"time not finite": 1}


def test_single_precision_times_warn_only_when_it_matters() -> None:
    with pytest.warns(DataWarning, match="float32, good to 0.0039 d"):
        LightCurve(np.array([54000.0, 54000.01], dtype=np.float32), [1.0, 2.0], 0.1)
    LightCurve(np.array([0.0, 1.0], dtype=np.float32), [1.0, 2.0], 0.1)


def test_select_and_bands(curve: LightCurve) -> None:
    red = curve.in_band("r")
    assert red.time.tolist() == [1, 2] and red.name == "toy" and red.meta == curve.meta
    assert red.half_width is not None and red.half_width.tolist() == [0.5, 0.5]
    assert curve.select(slice(0, 2)).n == 2
    assert curve.detections().n == 3 and curve.detections().input_row.tolist() == [1, 3, 0]
    assert curve.detections().detections().n == 3
    with pytest.raises(InvalidDataError, match="no band 'z'; bands: 'g', 'r'"):
        curve.in_band("z")
    with pytest.raises(InvalidDataError, match="leaves none"):
        curve.select(np.zeros(5, dtype=bool))
    with pytest.raises(InvalidDataError, match="boolean mask of 5"):
        curve.select([0, 1])


def test_to_log_propagates_errors_and_keeps_the_original(curve: LightCurve) -> None:
    log = curve.to_log()
    np.testing.assert_allclose(log.value, np.log(curve.value))
    np.testing.assert_allclose(log.error, curve.error / curve.value)
    assert log.value_unit == "ln(mJy)" and log.meta["transform"] == "log"
    assert curve.value_unit == "mJy" and "transform" not in curve.meta


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_to_log_refuses_and_names_the_row(bad: float) -> None:
    curve = LightCurve([5.0, 4.0, 3.0], [1.0, bad, 2.0], 0.1)
    with pytest.raises(
        InvalidDataError, match=r"1 of 3 values are not positive.*point 1 \(time 4, input row 1"
    ) as problem:
        curve.to_log()
    assert "transform=None" in one_line(problem)


def test_constant() -> None:
    assert LightCurve([1.0, 2.0, 3.0], [5.0, 5.0, 9.0], 0.1, upper_limit=[False, False, True]).is_constant
    assert not LightCurve([1.0, 2.0], [5.0, 5.1], 0.1).is_constant


def test_equality_is_about_the_data(curve: LightCurve) -> None:
    same = curve.select(slice(None))
    same.meta["origin"] = "elsewhere"
    assert same == curve and curve.meta["origin"] == "made up"
    assert curve != curve.detections()
    assert curve != LightCurve(curve.time, curve.value, 1.0)
    assert curve != "a curve"
    with pytest.raises(TypeError, match="unhashable"):
        hash(curve)


def test_pickles(curve: LightCurve) -> None:
    assert pickle.loads(pickle.dumps(curve)) == curve


def test_representations(curve: LightCurve) -> None:
    text = repr(curve)
    for part in ("'toy'", "3 detections + 2 upper limits", "baseline: 4 d", "mJy", "bands: g r", "repeated times: 1"):
        assert part in text
    assert "\n" not in text
    curve.name = "<b>"
    assert "&lt;b&gt;" in curve._repr_html_() and "<b>" not in curve._repr_html_()


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(
    times=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(width=64)),
    data=st.data(),
)
def test_every_input_row_is_kept_or_counted(times: np.ndarray, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(np.float64, times.shape, elements=st.floats(width=64)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # of rows left out, which are counted below
            curve = LightCurve(times, values, 1.0)
    except InvalidDataError:
        assert not (np.isfinite(times) & np.isfinite(values)).any()
        return
    assert curve.n + curve.n_dropped == len(times)
    assert (np.diff(curve.time) >= 0).all() and np.isfinite(curve.value).all()
    np.testing.assert_array_equal(times[curve.input_row], curve.time)
    np.testing.assert_array_equal(values[curve.input_row], curve.value)
