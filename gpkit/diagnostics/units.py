"""Units and powers of ten as people write them."""

from __future__ import annotations

import math
import re

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_EXPONENT = re.compile(r"(?<=[A-Za-zµΜμΩ°)])(?:\*\*|\^)?\(?(-?\d+)\)?(?![\w.])")
_LEADING_POWER = re.compile(r"^(?:1(?:\.0*)?[eE]([-+]?\d+)|10(?:\*\*|\^)?\(?([-+]\d+)\)?)\s*(?:\*\s*)?")
SMALLEST, LARGEST = 1e-3, 1e5
"""Numbers between these are written without a power of ten."""


def superscript(power: int) -> str:
    """A whole number as an exponent: ⁻⁶."""
    return str(power).translate(_SUPERSCRIPTS)


def pretty_unit(unit: str, power: int = 0) -> str:
    """A unit with real exponents: "photons cm-2 s-1" becomes "photons cm⁻² s⁻¹", "1e-6 ph" becomes "10⁻⁶ ph".

    Args:
        unit: The unit as it stands in a file.
        power: A power of ten to put in front of it; that of the unit itself is added.
    """
    leading = _LEADING_POWER.match(unit)
    if leading:
        power += int(leading[1] or leading[2])
        unit = unit[leading.end() :]
    text = _EXPONENT.sub(lambda found: superscript(int(found[1])), unit)
    return " ".join(part for part in (f"10{superscript(power)}" if power else "", text) if part)


def power_of_ten(low: float, high: float) -> int:
    """The power to take out of numbers of which the largest in size is at `low` or `high`; 0 for handy numbers."""
    largest = max(abs(low), abs(high))
    if not 0.0 < largest < math.inf or SMALLEST <= largest < LARGEST:
        return 0
    return math.floor(math.log10(largest) + 1e-9)


def round_offset(low: float, high: float) -> float:
    """A round number to subtract from large numbers that differ by little, such as Julian Dates; 0 for others."""
    span = high - low
    if not math.isfinite(span) or min(abs(low), abs(high)) < LARGEST or low * high <= 0 or span > 0.3 * abs(low):
        return 0.0
    step = 10.0 ** max(4, math.ceil(math.log10(span)) if span > 0.0 else 4)
    return math.floor(low / step) * step
