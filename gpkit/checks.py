"""Checks of settings that every layer makes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpkit.errors import InvalidDataError

__all__ = ["positive_integer"]


def positive_integer(value: Any, name: str, least: int = 1) -> int:
    """An integer that is at least ``least``.

    Raises:
        InvalidDataError: for anything else.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidDataError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)
