"""Text of table cells into numbers: limits such as ``< 1.05e-7``, dashes for nothing, and what is neither."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from gpkit.datasets.cleaning import BoolArray, FloatArray, RowLabel
from gpkit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

#: Texts that stand for a missing number.
MISSING = (
    "", "-", "--", "---", ".", "..", "...", "nan", "NaN", "NAN", "-nan", "-NaN", "NA", "N/A", "n/a", "#N/A", "<NA>",
    "none", "None", "null", "NULL", "NaT", "INDEF",
)  # fmt: skip

_LIMIT = re.compile(r"^\s*([<>])=?\s*(.*)$")


def number_or_none(text: str, *, decimal: str = ".") -> float | None:
    """The number that a cell holds, or None if it holds none; python's underscores are not numbers."""
    stripped = text.strip().strip("\"'").strip()
    if decimal != ".":
        stripped = stripped.replace(decimal, ".")
    if "_" in stripped:
        return None
    try:
        return float(re.sub(r"(?<=\d)[dD](?=[+-]?\d)", "e", stripped))
    except ValueError:
        return None


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no number."""
    return text.strip().strip("\"'").strip() in MISSING


def is_numeric(text: str, *, decimal: str = ".") -> bool:
    """Whether a cell holds a number or a limit."""
    limit = _LIMIT.match(text.strip().strip("\"'"))
    return number_or_none(limit.group(2) if limit else text, decimal=decimal) is not None


def parse_column(
    column: pd.Series, *, name: str, row_label: RowLabel, decimal: str = "."
) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Read a column of a table as numbers.

    Args:
        column: Cells, ``n``: numbers already, or texts.
        name: Name of the column, for messages.
        row_label: Names the i-th row in messages.
        decimal: Decimal mark of the texts.

    Returns:
        The numbers (NaN where missing), where the cell was ``< x``, and where it was ``> x``; each ``n``.

    Raises:
        InvalidDataError: If a cell is neither a number, a limit nor a sign for nothing.
    """
    n = len(column)
    below, above = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    if column.dtype.kind in "biuf":
        return column.to_numpy(dtype=np.float64), below, above
    numbers = np.full(n, np.nan)
    for index, cell in enumerate(column.to_numpy(dtype=object)):
        if cell is None or isinstance(cell, float):
            numbers[index] = np.nan if cell is None else cell
            continue
        text = str(cell)
        if is_missing(text):
            continue
        limit = _LIMIT.match(text.strip().strip("\"'"))
        number = number_or_none(limit.group(2) if limit else text, decimal=decimal)
        if number is None:
            raise InvalidDataError(f"{row_label(index)}, column {name!r}: {text[:40]!r} is not a number")
        numbers[index] = number
        if limit:
            (below if limit.group(1) == "<" else above)[index] = True
    return numbers, below, above
