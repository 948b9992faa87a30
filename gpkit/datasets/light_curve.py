"""The light curve: one source, observed at irregular times, with a known error per point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gpkit.datasets.cleaning import (
    BadErrors,
    BoolArray,
    CleanRows,
    FloatArray,
    IntArray,
    RowLabel,
    StrArray,
    clean_rows,
    row_from_zero,
)
from gpkit.datasets.description import as_html, as_text, warn_of_what_would_be_missed
from gpkit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd


class LightCurve:
    """Times, values and errors of one source, checked once and then read-only.

    Rows whose time, value or error is not a finite number are taken out and counted in `exclusions`; the others are put
    in time order. Points at the same time are allowed (several bands or telescopes do that) and counted.

    Args:
        time: Observation times, ``n``; datetime64 stamps become Modified Julian Dates.
        value: Flux, magnitude or any other quantity, ``n``; for an upper limit, the limit.
        error: One-sigma measurement errors, ``n``, or one positive number for all; ignored for upper limits.
        upper_limit: True where `value` is an upper limit, ``n``.
        half_width: Half the width of each time bin in units of `time`, ``n`` or one number; None for instants.
        band: Label of the band of each row, ``n``, or one label for all.
        time_unit: Unit of `time`, "d" for days.
        value_unit: Unit of `value`, as text.
        name: Name of the source, for tables and reports.
        meta: Anything else worth keeping (origin, columns used, time reference).
        exclude: Masks of rows to take out, each ``n``, by the reason under which they are counted ("cloud", "flare").
        exclusions: Counts of rows that were taken out earlier, by reason; new counts are added to them.
        bad_errors: "raise" refuses errors that are zero or negative, "drop" takes those rows out and counts them.
        row_label: Names an input row in error messages; readers of files give line numbers.

    Raises:
        InvalidDataError: If the columns disagree in length, hold no numbers, leave no row, or an error is not positive.

    Attributes:
        time: Increasing times, ``n``, float64.
        value: Values, ``n``, float64.
        error: Errors, ``n``, float64; positive for detections, may be NaN for upper limits.
        upper_limit: Mask of upper limits, ``n``.
        half_width: Half-widths of the bins, ``n``, or None.
        band: Band labels, ``n``, or None.
        input_row: Position (from 0) of each point in the input: the sorting permutation, after exclusions.

    Example:
        >>> curve = LightCurve([2.0, 0.0, 1.0], [5.1, 4.9, 5.3], 0.1, value_unit="mJy", name="toy")
        >>> curve
        LightCurve('toy', 3 detections, baseline: 2 d, unit: mJy)
        >>> curve.time.tolist(), curve.input_row.tolist()
        ([0.0, 1.0, 2.0], [1, 2, 0])
    """

    time: FloatArray
    value: FloatArray
    error: FloatArray
    upper_limit: BoolArray
    half_width: FloatArray | None
    band: StrArray | None
    input_row: IntArray

    def __init__(
        self,
        time: Any,
        value: Any,
        error: Any,
        *,
        upper_limit: Any = None,
        half_width: Any = None,
        band: Any = None,
        time_unit: str = "d",
        value_unit: str = "",
        name: str = "",
        meta: Mapping[str, Any] | None = None,
        exclude: Mapping[str, Any] | None = None,
        exclusions: Mapping[str, int] | None = None,
        bad_errors: BadErrors = "raise",
        row_label: RowLabel = row_from_zero,
    ) -> None:
        """Check the columns, take out and count unusable rows, and sort."""
        rows = clean_rows(
            time,
            value,
            error,
            upper_limit=upper_limit,
            half_width=half_width,
            band=band,
            exclude=exclude,
            bad_errors=bad_errors,
            row_label=row_label,
        )
        counts = dict(exclusions or {})
        for reason, count in rows.exclusions.items():
            counts[reason] = counts.get(reason, 0) + count
        self._fill(rows, counts, time_unit=time_unit, value_unit=value_unit, name=name, meta=meta or {})
        unasked = sum(count for reason, count in rows.exclusions.items() if reason not in (exclude or {}))
        warn_of_what_would_be_missed(self, n_excluded_unasked=unasked, given_time=time)

    def _fill(
        self,
        rows: CleanRows,
        exclusions: Mapping[str, int],
        *,
        time_unit: str,
        value_unit: str,
        name: str,
        meta: Mapping[str, Any],
    ) -> None:
        """Take over rows that are already clean, and make them read-only."""
        self.time, self.value, self.error, self.upper_limit = rows.time, rows.value, rows.error, rows.upper_limit
        self.half_width, self.band, self.input_row = rows.half_width, rows.band, rows.input_row
        for column in (*self._columns().values(), self.input_row):
            column.setflags(write=False)
        self._exclusions = {reason: int(count) for reason, count in exclusions.items() if count}
        self.time_unit, self.value_unit, self.name = str(time_unit), str(value_unit), str(name)
        self.meta: dict[str, Any] = dict(meta)

    @classmethod
    def from_arrays(cls, time: Any, value: Any, error: Any, **options: Any) -> LightCurve:
        """Build from arrays, taking units from astropy quantities if they are given; see the class for the options."""
        for key, column in (("time_unit", time), ("value_unit", value)):
            if key not in options and hasattr(column, "unit") and column.unit is not None:
                options[key] = str(column.unit)
        return cls(time, value, error, **options)

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame, **options: Any) -> LightCurve:
        """Build from a data frame, finding its columns by name; see :func:`gpkit.datasets.adapters.from_pandas`."""
        from gpkit.datasets.adapters import from_pandas

        return from_pandas(frame, **options)

    @classmethod
    def from_astropy_table(cls, table: Any, **options: Any) -> LightCurve:
        """Build from an astropy Table or TimeSeries; see :func:`gpkit.datasets.adapters.from_astropy_table`."""
        from gpkit.datasets.adapters import from_astropy_table

        return from_astropy_table(table, **options)

    @classmethod
    def from_lightkurve(cls, light_curve: Any, **options: Any) -> LightCurve:
        """Build from a lightkurve light curve; see :func:`gpkit.datasets.adapters.from_lightkurve`."""
        from gpkit.datasets.adapters import from_lightkurve

        return from_lightkurve(light_curve, **options)

    @property
    def exclusions(self) -> Mapping[str, int]:
        """How many input rows were taken out, by reason."""
        return MappingProxyType(self._exclusions)

    @property
    def n(self) -> int:
        """Number of points, upper limits included."""
        return len(self.time)

    @property
    def n_upper_limits(self) -> int:
        """Number of upper limits."""
        return int(self.upper_limit.sum())

    @property
    def n_detections(self) -> int:
        """Number of points that are not upper limits."""
        return self.n - self.n_upper_limits

    @property
    def n_dropped(self) -> int:
        """Number of input rows that were taken out, for all reasons together."""
        return sum(self.exclusions.values())

    @property
    def n_repeated_times(self) -> int:
        """Number of points at exactly the same time as the point before them."""
        return int((self.time[1:] == self.time[:-1]).sum())

    @property
    def n_duplicates(self) -> int:
        """Number of points that repeat an earlier one exactly: same time, value, error, limit and band."""
        return int(self.to_pandas().duplicated().sum()) if self.n_repeated_times else 0

    @property
    def baseline(self) -> float:
        """Time from the first point to the last, in `time_unit`."""
        return float(self.time[-1] - self.time[0])

    @property
    def median_cadence(self) -> float:
        """Median time between neighbouring points, repeated times left out, in `time_unit`; NaN if there is none."""
        steps = np.diff(self.time)
        steps = steps[steps > 0]
        return float(np.median(steps)) if len(steps) else float("nan")

    @property
    def is_constant(self) -> bool:
        """Whether all detections have exactly the same value, so that there is no variability to fit."""
        values = self.value[~self.upper_limit]
        return bool(len(values) == 0 or (values == values[0]).all())

    @property
    def bands(self) -> tuple[str, ...]:
        """The distinct band labels, in alphabetical order; empty where the rows have none."""
        return () if self.band is None else tuple(str(label) for label in np.unique(self.band))

    def require_at_least(self, n: int, *, purpose: str = "this model") -> LightCurve:
        """Return the curve itself if it has enough detections.

        Args:
            n: Smallest number of detections that will do.
            purpose: What needs them, for the message.

        Raises:
            InvalidDataError: If there are fewer than `n` detections.
        """
        if self.n_detections < n:
            had = f"all {self.n} points are upper limits" if not self.n_detections else f"it has {self.n_detections}"
            raise InvalidDataError(f"{self._label()}: {purpose} needs at least {n} detections, but {had}")
        return self

    def select(self, mask: Any) -> LightCurve:
        """Keep some points.

        Args:
            mask: Boolean mask, ``n``, or a slice. Points that are left out are a choice, not an exclusion: not counted.

        Raises:
            InvalidDataError: If the mask has another shape or leaves nothing.
        """
        if isinstance(mask, slice):
            chosen = np.zeros(self.n, dtype=np.bool_)
            chosen[mask] = True
        else:
            chosen = np.asarray(mask)
            if chosen.dtype != np.bool_ or chosen.shape != (self.n,):
                raise InvalidDataError(f"{self._label()}: select() needs a boolean mask of {self.n} entries")
        if not chosen.any():
            raise InvalidDataError(f"{self._label()}: the selection leaves none of the {self.n} points")
        return self._with_rows(
            CleanRows(
                time=self.time[chosen],
                value=self.value[chosen],
                error=self.error[chosen],
                upper_limit=self.upper_limit[chosen],
                half_width=None if self.half_width is None else self.half_width[chosen],
                band=None if self.band is None else self.band[chosen],
                input_row=self.input_row[chosen],
                exclusions={},
            )
        )

    def detections(self) -> LightCurve:
        """Keep the points that are not upper limits.

        Raises:
            InvalidDataError: If all points are upper limits.
        """
        if not self.n_detections:
            raise InvalidDataError(
                f"{self._label()}: all {self.n} points are upper limits: a Gaussian fit needs detections with errors"
            )
        return self.select(~self.upper_limit) if self.n_upper_limits else self

    def in_band(self, band: str) -> LightCurve:
        """Keep the points of one band.

        Raises:
            InvalidDataError: If no point has that label.
        """
        if self.band is None or band not in self.bands:
            known = ", ".join(repr(label) for label in self.bands) or "none"
            raise InvalidDataError(f"{self._label()}: no band {band!r}; bands: {known}")
        return self.select(self.band == band)

    def to_log(self) -> LightCurve:
        """Natural logarithm of the values, with errors propagated to first order, ``error / value``.

        Raises:
            InvalidDataError: If a value, or an upper limit, is not positive.
        """
        bad = np.flatnonzero(~(self.value > 0))
        if len(bad):
            first = int(bad[0])
            raise InvalidDataError(
                f"{self._label()}: {len(bad)} of {self.n} values are not positive, first {self.value[first]:g} at "
                f"point {first} (time {self.time[first]:.10g}, input row {self.input_row[first]}, counted from 0): a "
                "log transform needs positive values; fit the values themselves (transform=None)"
            )
        log = self._with_rows(
            CleanRows(
                time=self.time,
                value=np.log(self.value),
                error=self.error / self.value,
                upper_limit=self.upper_limit,
                half_width=self.half_width,
                band=self.band,
                input_row=self.input_row,
                exclusions={},
            )
        )
        log.value_unit = f"ln({self.value_unit})" if self.value_unit else "ln"
        log.meta["transform"] = "log"
        return log

    def in_input_order(self, values: Any) -> Any:
        """Put an array that runs over the points into the order in which the points were given.

        Args:
            values: Array, ``* n``, in time order.

        Returns:
            The same array with its last axis in the order of the input (excluded rows have no entry).
        """
        return np.asarray(values)[..., np.argsort(self.input_row)]

    def to_pandas(self) -> pd.DataFrame:
        """Convert to a data frame with columns time, value, error, upper_limit and, if present, half_width and band."""
        from gpkit.datasets.adapters import to_pandas

        return to_pandas(self)

    def write_csv(self, path: str | Path) -> Path:
        """Write a CSV file that `read_light_curve` reads back exactly; see :func:`gpkit.datasets.writing.write_csv`."""
        from gpkit.datasets.writing import write_csv

        return write_csv(self, path)

    def __len__(self) -> int:
        """Number of points, upper limits included."""
        return self.n

    def __eq__(self, other: object) -> bool:
        """Same points, units and name; `meta`, `input_row` and `exclusions` tell their history and do not count."""
        if not isinstance(other, LightCurve):
            return NotImplemented
        mine, theirs = self._columns(), other._columns()
        return (
            (self.name, self.time_unit, self.value_unit) == (other.name, other.time_unit, other.value_unit)
            and mine.keys() == theirs.keys()
            and all(np.array_equal(mine[key], theirs[key], equal_nan=key != "band") for key in mine)
        )

    __hash__ = None  # type: ignore[assignment]  # Python's way of saying unhashable

    def __repr__(self) -> str:
        """One line with the counts."""
        return as_text(self)

    def _repr_html_(self) -> str:
        """Small table for notebooks."""
        return as_html(self)

    def _label(self) -> str:
        return f"light curve {self.name!r}" if self.name else "the light curve"

    def _columns(self) -> dict[str, Any]:
        columns = {"time": self.time, "value": self.value, "error": self.error, "upper_limit": self.upper_limit}
        optional = {"half_width": self.half_width, "band": self.band}
        return columns | {key: column for key, column in optional.items() if column is not None}

    def _with_rows(self, rows: CleanRows) -> LightCurve:
        """A curve with other rows and everything else kept."""
        other = LightCurve.__new__(LightCurve)
        other._fill(
            rows,
            self.exclusions,
            time_unit=self.time_unit,
            value_unit=self.value_unit,
            name=self.name,
            meta=self.meta,
        )
        return other
