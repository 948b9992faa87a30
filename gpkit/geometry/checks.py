"""What enters the geometry is checked here, once: finite numbers of the right shape, indices in any usual form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError

__all__ = ["Floats", "Integers", "as_indices", "as_matrix", "as_points", "some"]

_LARGEST = 1e75

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def some(indices: Any, limit: int = 5) -> str:
    """The first few of a list of row numbers, for messages."""
    values = np.asarray(indices).ravel()
    text = ", ".join(str(int(v)) for v in values[:limit])
    return text if values.size <= limit else f"{text}, ... ({values.size} in all)"


def as_matrix(values: Any, name: str, columns: int | None = None) -> Floats:
    """A finite float64 matrix (m, columns), contiguous and independent of what came in.

    Raises:
        InvalidDataError: other shapes, or entries that are not finite, with their row and column.
    """
    try:
        array = np.asarray(values)  # tensors are viewed first: their own conversion knows no copies
        if np.iscomplexobj(array):
            raise TypeError("the entries are complex numbers")
        matrix = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidDataError(f"{name} must be a numeric table, one row per point: {error}") from None
    if matrix.ndim != 2 or (columns is not None and matrix.shape[1] != columns):
        wanted = "(m, D)" if columns is None else f"(m, {columns})"
        raise InvalidDataError(f"{name} must have shape {wanted}, got {matrix.shape}")
    finite = np.isfinite(matrix)
    if not finite.all():
        rows, cols = np.nonzero(~finite)
        raise InvalidDataError(
            f"{name} must be finite: row {rows[0]}, column {cols[0]} is {matrix[rows[0], cols[0]]} "
            f"({np.unique(rows).size} rows of {len(matrix)} are affected); drop or repair these rows first"
        )
    return matrix


def as_points(points: Any, name: str = "points", columns: int | None = None) -> Floats:
    """Coordinates (n, D) of at least one point in at least one dimension."""
    matrix = as_matrix(points, name, columns)
    if not matrix.shape[0] or not matrix.shape[1]:
        raise InvalidDataError(f"{name} must hold at least one point of at least one coordinate, got {matrix.shape}")
    largest = np.unravel_index(int(np.abs(matrix).argmax()), matrix.shape)
    if not abs(matrix[largest]) < _LARGEST:
        raise InvalidDataError(
            f"{name}: row {largest[0]}, column {largest[1]} is {matrix[largest]:g}, of which no squares can be taken: "
            "choose another unit of length"
        )
    return matrix


def as_indices(where: Any, n: int, name: str = "where", what: str = "node") -> Integers:
    """Node numbers (m,) from a boolean mask, integers of any width or sign convention, a list, or a single column.

    Args:
        where: mask of n entries; or node numbers, negative ones counted from the end; None for all nodes.
        n: number of nodes.
        name: for messages.
        what: what is numbered, for messages.

    Raises:
        InvalidDataError: a mask of another length, numbers out of range or with a fraction, or another shape.
    """
    if where is None:
        return np.arange(n)
    array = np.asarray(where)
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim == 0:
        array = array[None]
    if array.ndim != 1:
        raise InvalidDataError(
            f"{name} must be a mask or a list of {what} numbers, got an array of shape {array.shape}"
        )
    if array.dtype == np.bool_:
        if array.size != n:
            raise InvalidDataError(f"{name} is a mask of {array.size} entries, but there are {n} {what}s")
        return np.flatnonzero(array)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise InvalidDataError(f"{name} must hold {what} numbers, got {array.dtype}")
    numbers = array.astype(np.int64) if np.isfinite(array).all() else None
    if numbers is None or not np.array_equal(numbers, array):
        raise InvalidDataError(f"{name} must hold whole {what} numbers, got {array[:5].tolist()}")
    outside = (numbers < -n) | (numbers >= n)
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise InvalidDataError(f"{name}[{at}] is {what} {int(numbers[at])}, but {what}s are numbered 0 to {n - 1}")
    return np.where(numbers < 0, numbers + n, numbers)
