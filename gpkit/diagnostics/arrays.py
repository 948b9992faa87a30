"""What comes into the diagnostics: vectors of float64, with the rows that cannot be used counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpkit.errors import InvalidDataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def as_vector(values: npt.ArrayLike, name: str) -> FloatArray:
    """Take values as a vector of float64.

    Args:
        values: Array, ``n``.
        name: What they are, for the message.

    Raises:
        InvalidDataError: If they do not have exactly one dimension.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise InvalidDataError(f"{name} must have one dimension, not shape {vector.shape}")
    return vector


def same_length(**vectors: FloatArray) -> int:
    """Length of vectors that must have the same one.

    Raises:
        InvalidDataError: If they do not.
    """
    lengths = {name: len(vector) for name, vector in vectors.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InvalidDataError(f"these must have the same length, but have {told}")
    return next(iter(lengths.values()))


def finite_part(values: npt.ArrayLike, name: str) -> tuple[FloatArray, int]:
    """The finite entries of a vector and the number of the others."""
    vector = as_vector(values, name)
    keep = np.isfinite(vector)
    return vector[keep], int(len(vector) - keep.sum())
