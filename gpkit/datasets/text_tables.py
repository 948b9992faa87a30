"""Plain text tables: their delimiter, comments and header are found out, then pandas reads them."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from statistics import mode
from typing import TYPE_CHECKING, Any

from gpkit.datasets.cells import MISSING, is_missing, is_numeric
from gpkit.datasets.cleaning import RowLabel
from gpkit.datasets.columns import is_time_name
from gpkit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

#: Starts the comment in which `write_csv` keeps what a CSV table has no place for.
METADATA_MARK = "# gpkit light curve: "

_COMMENT_MARKS = "#%!"
_SAMPLE_LINES = 400
_SCORED_LINES = 50

# Delimiter (None: any white space) and decimal mark, in order of preference.
_LAYOUTS: tuple[tuple[str | None, str], ...] = (
    (",", "."), (";", "."), ("|", "."), ("\t", "."), (None, "."), (";", ","), ("\t", ","), (None, ","),
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a text table is written.

    Attributes:
        delimiter: Between cells; None for any white space.
        decimal: Decimal mark.
        names: Column names, or None without a header.
        n_columns: Number of columns.
        first_line: Number (from 0) of the first line of data.
        comment: The character that starts a comment.
        header_problem: Why what looks like a header is not used, empty if there is none or it is used.
        metadata: What `write_csv` kept, empty for other files.
    """

    delimiter: str | None
    decimal: str
    names: tuple[str, ...] | None
    n_columns: int
    first_line: int
    comment: str
    header_problem: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def column_names(self) -> list[str]:
        """The names in the header, or "column 0", "column 1", ... without one."""
        return list(self.names or (f"column {index}" for index in range(self.n_columns)))


def split(line: str, delimiter: str | None) -> list[str]:
    """The cells of a line, quotes removed."""
    if delimiter is None:
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:  # a cell of more than 128 kB: no table of numbers
        return [line]


def sniff(text: str, *, source: str) -> Layout:
    """Find out how a table is written from its first lines.

    Raises:
        InvalidDataError: If the lines do not look like a table of numbers with at least two columns.
    """
    lines = text[: 400 * _SAMPLE_LINES].splitlines()[:_SAMPLE_LINES]
    comments = [line for line in lines if line.lstrip()[:1] and line.lstrip()[0] in _COMMENT_MARKS]
    comment = comments[0].lstrip()[0] if comments else "#"
    body = [(i, line) for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(comment)]
    if not body:
        raise InvalidDataError(f"{source}: there is no data, only comments")
    sample = [_without_comment(line, comment) for _, line in body]
    delimiter, decimal = max(_LAYOUTS, key=lambda layout: _score(sample, *layout))

    counts = [_count(line, delimiter, decimal) for line in sample]
    data = [k for k, (numbers, others) in enumerate(counts) if numbers >= 2 or (numbers and not others)]
    if not data or 4 * len(data) < len(sample) - data[0]:
        raise InvalidDataError(
            f"{source}: is not a table: of the first {len(sample)} lines, {len(data)} hold two or more numbers; a "
            "light curve has one row per point with time, value and error"
        )
    rows = [cells for cells in (split(sample[k], delimiter) for k in data) if len(cells) > 1]
    if not rows:
        raise InvalidDataError(f"{source}: has one column of numbers: a light curve needs times, values and errors")
    width = mode(len(cells) for cells in rows)
    filled = mode(max(k for k, cell in enumerate(cells, 1) if cell) for cells in rows)

    above = [split(line, delimiter) for line in sample[: data[0]]]
    names = _header(above, filled, width if delimiter is None else None)
    problem = ""
    if names is None and any(is_time_name(cell) for cells in above for cell in cells):
        problem = f"the header does not fit the rows, which have {filled} columns"
    if names is None and not above:  # a comment may name the columns, with blanks where the table has commas
        marked = [line.lstrip()[1:].strip() for line in comments]
        names = next(filter(None, (_header([split(line, mark) for line in marked], filled, width, named=True)
                                   for mark in (delimiter, None))), None)  # fmt: skip
    return Layout(
        delimiter=delimiter,
        decimal=decimal,
        names=None if names is None else (*names, *(f"column {index}" for index in range(len(names), width))),
        n_columns=max(width, len(names or ())),
        first_line=body[data[0]][0],
        comment=comment,
        header_problem=problem,
        metadata=_metadata(comments),
    )


def _score(sample: list[str], delimiter: str | None, decimal: str) -> int:
    """Cells that are numbers, less those that are something else, over the lines where numbers prevail."""
    counts = [_count(line, delimiter, decimal) for line in sample[:_SCORED_LINES]]
    return sum(max(numbers - others, 0) for numbers, others in counts)


def _count(line: str, delimiter: str | None, decimal: str) -> tuple[int, int]:
    """How many cells of a line are numbers, and how many are neither numbers nor missing."""
    numbers = others = 0
    for cell in split(line, delimiter):
        if is_numeric(cell, decimal=decimal) and cell not in MISSING:
            numbers += 1
        elif not is_missing(cell):
            others += 1
    return numbers, others


def _header(
    candidates: list[list[str]], least: int, most: int | None, *, named: bool = False
) -> tuple[str, ...] | None:
    """The line that names the columns: the last that has a usual name of a time, else the last that fits.

    Args:
        candidates: Cells of the lines that may be it.
        least: Fewest names that fit.
        most: Most names that fit; None if rows may leave out cells at their end.
        named: Whether the name of a time is required.
    """
    fitting = [cells for cells in candidates if least <= len(cells) and (most is None or len(cells) <= most)]
    with_time = [cells for cells in fitting if any(is_time_name(cell) for cell in cells)]
    chosen = with_time or ([] if named else [cells for cells in fitting if most is not None or len(cells) == least])
    return tuple(cell or f"column {index}" for index, cell in enumerate(chosen[-1])) if chosen else None


def _metadata(comments: list[str]) -> dict[str, Any]:
    """What `write_csv` kept in the comments."""
    for line in comments:
        if line.startswith(METADATA_MARK):
            try:
                kept = json.loads(line[len(METADATA_MARK) :])
            except json.JSONDecodeError:
                return {}
            return kept if isinstance(kept, dict) else {}
    return {}


def _without_comment(line: str, comment: str) -> str:
    return line.split(comment, 1)[0] if comment in line and '"' not in line else line


def read_table(text: str, layout: Layout, *, source: str, labels: Collection[str] = ()) -> pd.DataFrame:
    """Read all rows; rows that are too short are filled with missing cells.

    Args:
        text: The whole file.
        layout: How it is written.
        source: Name of the file, for messages.
        labels: Columns whose cells are texts even where they look like numbers or like nothing.

    Raises:
        InvalidDataError: If a row has more cells than there are columns, or quotes do not match.
    """
    import pandas as pd

    names = layout.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidDataError(f"{source}: the header names column {twice!r} twice: names must differ")
    # From pandas 3.1 on, all digits always count, and asking for that is deprecated.
    recent = tuple(int(part) for part in pd.__version__.split(".")[:2]) >= (3, 1)
    exact: dict[str, Any] = {} if recent else {"float_precision": "round_trip"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # said as an error below
            return pd.read_csv(
                io.StringIO(text),
                sep=r"\s+" if layout.delimiter is None else layout.delimiter,
                decimal=layout.decimal,
                header=None,
                names=names,
                index_col=False,
                skiprows=layout.first_line,
                comment=layout.comment,
                na_values={name: list(MISSING) for name in names if name not in labels},
                keep_default_na=False,
                dtype=dict.fromkeys(labels, str),
                skipinitialspace=True,
                low_memory=False,
                **exact,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, ValueError) as problem:
        for number, line in data_lines(text, layout):
            cells = split(line, layout.delimiter)
            if len(cells) > layout.n_columns:
                raise InvalidDataError(
                    f"{source}, line {number}: {len(cells)} cells, but the table has {layout.n_columns} columns"
                ) from problem
        raise InvalidDataError(f"{source}: cannot be read as a table: {str(problem).splitlines()[0]}") from problem


def data_lines(text: str, layout: Layout) -> Iterator[tuple[int, str]]:
    """The lines that hold data, with their numbers in the file, counted from 1."""
    for index, line in enumerate(io.StringIO(text)):
        if index >= layout.first_line and _without_comment(line, layout.comment).strip():
            yield index + 1, _without_comment(line.rstrip("\n"), layout.comment)


def line_label(text: str, layout: Layout) -> RowLabel:
    """Name rows of data by their line in the file; the file is only gone through when a message needs it."""

    def label(index: int) -> str:
        """Line of the row at `index`, counted from 0."""
        number = next((number for k, (number, _) in enumerate(data_lines(text, layout)) if k == index), None)
        return f"row {index}" if number is None else f"line {number}"

    return label
