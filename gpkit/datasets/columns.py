"""Which column is the time, which the value and which its error, judged by their names.

Names are compared without case, units in brackets and punctuation, so that ``Flux (mJy)`` and ``flux`` are the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpkit.datasets.notices import warn_about_data
from gpkit.errors import InvalidDataError

#: A column given by the user: its name, or its position counted from 0.
ColumnChoice = str | int | None

# Best first.
_TIME_NAMES = (
    "time", "mjd", "bjd", "hjd", "jd", "btjd", "bkjd", "rjd", "hmjd", "tmjd", "julian_date", "modified_julian_date",
    "t", "time_day", "time_days", "time_mjd", "time_jd", "time_bjd", "time_hjd", "bjd_tdb", "mjd_obs", "obsmjd",
    "obs_mjd", "obs_time", "obstime", "date_mjd", "date_jd", "epoch", "day", "days", "date",
)  # fmt: skip
_VALUE_NAMES = (
    "value", "pdcsap_flux", "flux", "photon_flux", "energy_flux", "flux_density", "rate", "count_rate", "sap_flux",
    "cal_flux", "rel_flux", "flux_mjy", "flux_jy", "psf_flux", "psfflux", "magnitude", "mag", "psf_mag", "psfmag",
    "magpsf", "det_flux", "luminosity", "brightness", "counts", "y", "x_ray_flux", "signal", "measurement",
)  # fmt: skip
_ERROR_NAMES = (
    "error", "err", "yerr", "y_err", "uncertainty", "unc", "sigma", "sig", "stddev", "std", "dy", "flux_err",
    "flux_error", "fluxerr", "e_flux", "flux_unc", "mag_err", "mag_error", "magerr", "e_mag", "sigmapsf",
    "rate_err", "error_rate", "value_err", "e_value", "photometric_error", "statistical_error", "staterr", "e",
)  # fmt: skip
_ERROR_OF_VALUE = (
    "{}_err", "{}_error", "{}err", "{}error", "e_{}", "{}_unc", "{}_uncertainty", "{}_sigma", "err_{}", "error_{}",
    "sigma_{}", "d{}", "{}_std", "{}_e", "sigma{}",
)  # fmt: skip
_LIMIT_NAMES = ("upper_limit", "upperlimit", "is_upper_limit", "is_ul", "ul", "upper_lim", "uplim")
_WIDTH_NAMES = ("half_width", "halfwidth", "time_half_width", "time_err", "time_error", "mjd_err")
_BAND_NAMES = ("band", "filter", "passband", "filtername", "filt", "fid")

_DAY_NAMES = re.compile(r"(^|_)(mjd|jd|bjd|hjd|btjd|bkjd|rjd|hmjd|tmjd|julian_date|days?)(_|$)|(mjd|jd)$")
_BRACKETS = re.compile(r"\s*[\[({][^\])}]*[\])}]")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that a light curve is made of; None where there is none."""

    time: str
    value: str
    error: str | None
    upper_limit: str | None
    half_width: str | None
    band: str | None
    time_unit: str
    value_unit: str

    def used(self) -> dict[str, str]:
        """The columns that were found, by role."""
        roles = ("time", "value", "error", "upper_limit", "half_width", "band")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}


def plain_name(name: str) -> str:
    """Lower case, without units in brackets, words joined by underscores."""
    return re.sub(r"[^0-9a-z]+", "_", _BRACKETS.sub(" ", str(name)).lower()).strip("_")


def unit_in_name(name: str) -> str:
    """The unit in the last pair of brackets of a column name, or an empty text."""
    found = re.findall(r"[\[({]([^\])}]*)[\])}]", str(name))
    return found[-1].strip() if found else ""


def time_unit_of(name: str) -> str:
    """Unit of a time column by its name; days unless the name says otherwise."""
    bracketed = unit_in_name(name).lower()
    if bracketed in {"s", "sec", "second", "seconds"}:
        return "s"
    if bracketed in {"yr", "year", "years", "h", "hr", "hour", "hours", "min", "minutes", "ms"}:
        return bracketed
    return "s" if re.search(r"(^|_)(sec|seconds|met)(_|$)", plain_name(name)) else "d"


def is_time_name(name: str) -> bool:
    """Whether a name is one that a time column usually has."""
    return plain_name(name) in _TIME_NAMES or bool(_DAY_NAMES.search(plain_name(name)))


def is_band_name(name: str) -> bool:
    """Whether a name is one that a column of band labels usually has."""
    return plain_name(name) in _BAND_NAMES


def find_column(choice: str | int, names: Sequence[str], *, role: str, source: str) -> str:
    """Look up a column that was asked for.

    Args:
        choice: Its name (case does not matter if that leaves one) or its position from 0.
        names: The names that there are.
        role: What the column is for, for the message.
        source: The file or object that is read, for the message.

    Raises:
        InvalidDataError: If there is no such column; the message lists those there are.
    """
    listed = ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
    if isinstance(choice, int):
        if -len(names) <= choice < len(names):
            return names[choice]
        raise InvalidDataError(f"{source}: no column {choice} for {role!r}; there are {len(names)}: {listed}")
    if choice in names:
        return choice
    alike = [name for name in names if plain_name(name) == plain_name(choice)]
    if len(alike) == 1:
        return alike[0]
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(choice.lower(), list(by_lower), n=1, cutoff=0.5)
    hint = f" (did you mean {by_lower[close[0]]!r}?)" if close else ""
    raise InvalidDataError(f"{source}: no column {choice!r} for {role!r}; columns: {listed}{hint}")


def guess_columns(
    names: Sequence[str],
    *,
    source: str,
    time: ColumnChoice = None,
    value: ColumnChoice = None,
    error: ColumnChoice = None,
    upper_limit: ColumnChoice = None,
    half_width: ColumnChoice = None,
    band: ColumnChoice = None,
) -> Columns:
    """Decide which column plays which role; those that are given are taken, the others are found by their names.

    Args:
        names: Column names, in file order.
        source: The file or object that is read, for messages.
        time: The time column, if it is not to be guessed.
        value: The value column, likewise.
        error: The error column, likewise.
        upper_limit: The column that marks upper limits, likewise.
        half_width: The column with half the bin widths, likewise.
        band: The column with band labels, likewise.

    Raises:
        InvalidDataError: If a given column does not exist, or the time or the value is not recognised.
    """
    names = [str(name) for name in names]
    choices = {"time": time, "value": value, "error": error, "upper_limit": upper_limit}
    choices |= {"half_width": half_width, "band": band}
    asked = {role: choice for role, choice in choices.items() if choice is not None}
    given = {role: find_column(choice, names, role=role, source=source) for role, choice in asked.items()}
    free = [name for name in names if name not in given.values()]

    def best(known: Sequence[str]) -> str | None:
        """The free column whose name comes first in a list of known names."""
        plain = {plain_name(name): name for name in reversed(free)}
        return next((plain[candidate] for candidate in known if candidate in plain), None)

    found_time = given.get("time") or best(_TIME_NAMES) or next((name for name in free if is_time_name(name)), None)
    if found_time in free:
        free.remove(str(found_time))
    found_value = given.get("value") or best(_VALUE_NAMES)
    missing = [role for role, name in (("time", found_time), ("value", found_value)) if name is None]
    if found_time is None or found_value is None:
        listed = ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
        say = ", ".join(f"{role}=..." for role in missing)
        what = " or the ".join(missing)
        raise InvalidDataError(f"{source}: no column is known to be the {what}; give {say} from: {listed}")
    if "value" not in given:
        _warn_of_rivals(found_value, free, source)
    if found_value in free:
        free.remove(found_value)
    base = plain_name(found_value)
    own = [pattern.format(base) for pattern in _ERROR_OF_VALUE]
    found_error = given.get("error") or best([*own, *_ERROR_NAMES])
    return Columns(
        time=found_time,
        value=found_value,
        error=found_error,
        upper_limit=given.get("upper_limit") or best(_LIMIT_NAMES),
        half_width=given.get("half_width") or best(_WIDTH_NAMES),
        band=given.get("band") or best(_BAND_NAMES),
        time_unit=time_unit_of(found_time),
        value_unit=unit_in_name(found_value) or ("mag" if re.search(r"(^|_)mag", base) else ""),
    )


def _warn_of_rivals(chosen: str, free: Sequence[str], source: str) -> None:
    """Say so if a flux was taken where there is a magnitude too."""
    is_magnitude = re.search(r"(^|_)mag", plain_name(chosen)) is not None
    rivals = [name for name in free if plain_name(name) in {"mag", "magnitude"}]
    if rivals and not is_magnitude:
        warn_about_data(f"{source}: took {chosen!r} as the value; for the magnitudes give value={rivals[0]!r}")
