"""Warnings about data, attributed to the line of the caller's own code that brought the data in."""

from __future__ import annotations

import sys
import warnings

from gpkit.errors import DataWarning


def warn_about_data(message: str) -> None:
    """Issue a DataWarning that points at the first frame outside gpkit."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("gpkit."):
        frame = frame.f_back
        level += 1
    warnings.warn(message, DataWarning, stacklevel=level)
