"""What a light curve says about itself: in one line, as a small table, and in warnings on the way in."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from gpkit.datasets.notices import warn_about_data

if TYPE_CHECKING:
    from gpkit.datasets.light_curve import LightCurve

# Above this share of excluded rows, the counts in `exclusions` are also said aloud.
_MANY_EXCLUDED = 0.1


def summary(curve: LightCurve) -> list[tuple[str, str]]:
    """The facts that both representations show, as label (may be empty) and text."""
    points = f"{curve.n_detections} detections"
    if curve.n_upper_limits:
        points += f" + {curve.n_upper_limits} upper limits"
    facts = [("", repr(curve.name))] if curve.name else []
    facts += [("", points), ("baseline", f"{curve.baseline:.6g} {curve.time_unit}".rstrip())]
    if curve.value_unit:
        facts.append(("unit", curve.value_unit))
    if curve.bands:
        facts.append(("bands", " ".join(curve.bands)))
    if curve.n_repeated_times:
        facts.append(("repeated times", str(curve.n_repeated_times)))
    if curve.n_dropped:
        facts.append(("excluded", exclusion_text(curve)))
    return facts


def exclusion_text(curve: LightCurve) -> str:
    """The counts of excluded rows with their reasons, such as "80 time not finite; 3 error not finite"."""
    return "; ".join(f"{count} {reason}" for reason, count in curve.exclusions.items())


def as_text(curve: LightCurve) -> str:
    """One line for a terminal."""
    return f"LightCurve({', '.join(f'{label}: {text}' if label else text for label, text in summary(curve))})"


def as_html(curve: LightCurve) -> str:
    """A table for a notebook."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th><td>{html.escape(text)}</td></tr>"
        for label, text in summary(curve)
    )
    return f"<table><caption>LightCurve</caption>{rows}</table>"


def warn_of_what_would_be_missed(curve: LightCurve, *, n_excluded_unasked: int, given_time: Any) -> None:
    """Warn of accepted data that their owner would want to know about.

    Args:
        curve: The light curve that was built.
        n_excluded_unasked: How many rows were taken out that the caller did not name.
        given_time: The times as they were given, for their precision.
    """
    label = f"light curve {curve.name!r}" if curve.name else "light curve"
    if n_excluded_unasked > _MANY_EXCLUDED * (curve.n + n_excluded_unasked):
        n_given = curve.n + curve.n_dropped
        warn_about_data(f"{label}: {curve.n_dropped} of {n_given} rows were excluded ({exclusion_text(curve)})")
    if curve.n_duplicates:
        warn_about_data(f"{label}: {curve.n_duplicates} rows repeat an earlier row exactly and count twice in any fit")
    dtype = getattr(given_time, "dtype", None)
    if dtype in (np.float32, np.float16) and curve.n > 1:
        resolution = float(np.spacing(np.abs(curve.time).max().astype(dtype)))
        if not curve.median_cadence > 10 * resolution:
            digits = f"good to {resolution:.2g} {curve.time_unit} only"
            warn_about_data(f"{label}: times came as {dtype}, {digits}: give float64 times")
