"""Well-spread subsets of points."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpkit.checks import positive_integer
from gpkit.errors import InvalidDataError
from gpkit.geometry.checks import Integers, as_points

__all__ = ["furthest_point_sample"]


def furthest_point_sample(
    points: Any, count: int | None = None, spacing: float | None = None, start: int = 0
) -> Integers:
    """Indices of points, each the one furthest from those before it: O(n) memory, O(n) time per pick.

    Args:
        points: (n, D).
        count: stop after this many.
        spacing: stop when no point is further than this from those taken, in units of the data.
        start: the first point.

    Raises:
        InvalidDataError: neither or both of count and spacing, more points wanted than there are different ones.
    """
    coordinates = as_points(points)
    n = len(coordinates)
    if (count is None) == (spacing is None):
        raise InvalidDataError("give either count or spacing")
    limit = n if count is None else positive_integer(count, "count")
    if limit > n:
        raise InvalidDataError(f"{limit} of {n} points were asked for")
    if spacing is not None and not spacing > 0.0:
        raise InvalidDataError(f"spacing must be positive, got {spacing}")
    if not 0 <= start < n:
        raise InvalidDataError(f"start must be a point from 0 to {n - 1}, got {start}")
    taken = [start]
    nearest = ((coordinates - coordinates[start]) ** 2).sum(1)
    while len(taken) < limit:
        pick = int(nearest.argmax())
        if nearest[pick] == 0.0 or (spacing is not None and nearest[pick] <= spacing**2):
            break
        taken.append(pick)
        np.minimum(nearest, ((coordinates - coordinates[pick]) ** 2).sum(1), out=nearest)
    if count is not None and len(taken) < count:
        raise InvalidDataError(f"there are only {len(taken)} different points, {count} were asked for")
    return np.asarray(taken, dtype=np.int64)
