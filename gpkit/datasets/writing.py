"""Light curves into files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gpkit.datasets.text_tables import METADATA_MARK
from gpkit.files import atomic_path

if TYPE_CHECKING:
    from gpkit.datasets.light_curve import LightCurve


def write_csv(curve: LightCurve, path: str | Path) -> Path:
    """Write a light curve as CSV; `read_light_curve` gives an equal curve back.

    Name, units, counts of exclusions and `meta` go into one comment line at the top, as JSON; what JSON cannot hold is
    written as text. The file appears under its name only when it is complete.

    Args:
        curve: The light curve.
        path: Where to write; a file that is there is replaced.

    Returns:
        The path.
    """
    target = Path(path)
    kept = {
        "name": curve.name,
        "time_unit": curve.time_unit,
        "value_unit": curve.value_unit,
        "exclusions": dict(curve.exclusions),
        "meta": curve.meta,
    }
    frame = curve.to_pandas()
    if curve.n_upper_limits:
        frame["upper_limit"] = frame["upper_limit"].astype(int)
    else:
        frame = frame.drop(columns="upper_limit")
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(METADATA_MARK + json.dumps(kept, default=str) + "\n")
        frame.to_csv(file, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return target
