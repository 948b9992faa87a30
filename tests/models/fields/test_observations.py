"""What is given to a field model: numbers are taken in any container, anything else is refused in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.models.fields.observations import as_numbers, as_places, check_noise, check_values


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("a", "got text"),
        (["a", "b"], "got text"),
        ("0", "got text"),
        (True, "got truth values"),
        (1 + 2j, "got complex numbers"),
        ([[0.1, 0.2], [0.3]], "got rows of different lengths"),
        ({"sd": 1.0}, "entries that are no numbers, in a dict"),
        (np.array([0.1, "b"], dtype=object), "entries that are no numbers"),
        ([0.1, None], r"noise\[1\] is nan"),
        ([0.1, np.inf], r"noise\[1\] is inf"),
        ([0.1, 0.0], r"noise\[1\] is 0"),
        ([0.1] * 3, "one for each of 2 places, got 3"),
        (torch.tensor([0.1], requires_grad=True), "requires grad"),
    ],
)
def test_noise_that_is_refused(noise: Any, message: str) -> None:
    with pytest.raises(InvalidDataError, match=message) as caught:
        check_noise(noise, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "noise",
    [0.5, np.float32(0.5), [0.5, 0.5], np.full((2, 1), 0.5), np.array([0.5, 0.5], dtype=object), torch.tensor(0.5)],
)
def test_noise_in_any_container(noise: Any) -> None:
    np.testing.assert_array_equal(check_noise(noise, 2), [0.5, 0.5])


@pytest.mark.parametrize("noise", [None, 0, 0.0, -0.0, np.float64(0.0), torch.tensor(0.0)])
def test_no_noise_that_is_known(noise: Any) -> None:
    assert check_noise(noise, 2) is None


def test_rows_of_different_lengths() -> None:
    with pytest.raises(InvalidDataError, match="where must be node numbers, a mask or points, got rows of different"):
        as_places([[0, 1], [2]], 3, 3, None)
    with pytest.raises(InvalidDataError, match="flows must be one row per place, got rows of different lengths"):
        check_values([[0, 1], [2]], 2, 1, "flows")


def test_missing_numbers_are_nan() -> None:
    np.testing.assert_array_equal(as_numbers([1, None], "times", "numbers"), [1.0, np.nan])
