"""What a user gives to a field model, checked once: where it was observed, the values, their noise."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import Manifold
from gpkit.models.fields.sites import Sites

__all__ = [
    "Observations",
    "as_numbers",
    "as_places",
    "check_noise",
    "check_values",
    "observe_values",
    "observe_vectors",
]

Array = NDArray[np.float64]

_NO_NUMBERS = {"U": "text", "S": "text", "b": "truth values", "c": "complex numbers", "M": "dates", "m": "durations"}
"""Kinds of array that are refused where numbers are asked for, in words."""
_NORMAL = 0.05
"""Share of tangent vectors outside of the tangent spaces, or of normal ones inside, that errors of frames explain."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Values of a field.

    Attributes:
        where: Node numbers (m,), or points (m, D).
        coordinates: Tangent coordinates, (m, d).
        noise: Known standard deviations (m,), or None.
        exact: Whether there is no noise, and what no kernel explains is the field's own.
        normal: Root mean square of what was outside of the tangent spaces.
        normal_share: The same, as a share of the root mean square length of the vectors.
        repeated: Number of observations at a node that was observed before.
    """

    where: NDArray[np.int64] | Array
    coordinates: Array
    noise: Array | None
    normal: float = 0.0
    normal_share: float = 0.0
    repeated: int = 0
    exact: bool = False

    @property
    def at_nodes(self) -> bool:
        """Whether the places are nodes."""
        return self.where.ndim == 1

    def __len__(self) -> int:
        return len(self.coordinates)

    def known_at(self, sites: Sites) -> tuple[NDArray[np.int64], Array]:
        """Positions among places that were observed, and the values there; for exact observations."""
        places: Any = sites.nodes if self.at_nodes else sites.points
        rows = {row.tobytes(): k for k, row in enumerate(self.where)}
        found = np.array([rows.get(row.tobytes(), -1) for row in np.asarray(places)], dtype=np.int64)
        if self.at_nodes:
            found[sites.nodes < 0] = -1
        return np.flatnonzero(found >= 0), self.coordinates[found[found >= 0]]


def as_numbers(values: Any, name: str, wanted: str) -> Array:
    """Real numbers of any shape as float64; None inside an array becomes NaN.

    Args:
        values: Anything that numpy makes an array of.
        name: For messages.
        wanted: What would be right, for messages.

    Raises:
        InvalidDataError: text, truth values, complex numbers, rows of different lengths, other objects.
    """
    array = _as_array(values, name, wanted)
    said = _NO_NUMBERS.get(array.dtype.kind, "")
    if not said:
        try:
            return np.asarray(array, dtype=np.float64)
        except (TypeError, ValueError):
            said = f"entries that are no numbers, in a {type(values).__name__}"
    raise InvalidDataError(f"{name} must be {wanted}, got {said}")


def _as_array(values: Any, name: str, wanted: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:
        raise InvalidDataError(f"{name} must be {wanted}, got rows of different lengths") from None
    except RuntimeError as error:  # tensors that want gradients
        raise InvalidDataError(f"{name} must be {wanted}: {error}") from None


def as_places(
    where: Any, n: int, ambient_dim: int, manifold: Manifold | None, what: str = "node"
) -> NDArray[np.int64] | Array:
    """Node numbers (m,) or points (m, D), whichever was given.

    A floating-point table with as many columns as the space has dimensions holds points; masks, integers, lists of
    them and single columns hold node numbers.

    Raises:
        InvalidDataError: neither, or points without a manifold.
    """
    from gpkit.geometry.checks import as_indices, as_matrix

    array = None if where is None else _as_array(where, "where", f"{what} numbers, a mask or points")
    is_table = array is not None and array.ndim == 2 and array.dtype.kind == "f"
    if is_table and (array is not None) and array.shape[1] == ambient_dim and ambient_dim > 1:
        if manifold is None:
            raise InvalidDataError(f"these {what}s have no places between them: give {what} numbers or a mask")
        return as_matrix(array, "points", ambient_dim)
    if is_table and array is not None and array.shape[1] != 1 and not ambient_dim:
        raise InvalidDataError(f"{what}s have no coordinates here: give {what} numbers or a mask, not points")
    if is_table and array is not None and array.shape[1] != 1:
        raise InvalidDataError(
            f"points must have {ambient_dim} columns, as the nodes have, got a table of shape {array.shape}"
        )
    if array is not None and array.dtype.kind == "f" and array.shape == (ambient_dim,) and (array % 1.0 != 0.0).any():
        raise InvalidDataError(f"one point is a table of one row, of shape (1, {ambient_dim}), not {array.shape}")
    return as_indices(where, n, what=what)


def check_values(values: Any, rows: int, columns: int, name: str) -> Array:
    """A finite table (rows, columns) with something in it.

    Raises:
        InvalidDataError: other shapes, no row, entries that are not finite, or nothing but zeros.
    """
    from gpkit.geometry.checks import as_matrix

    array = _as_array(values, name, "one row per place")
    if columns == 1 and array.ndim == 1:
        array = array[:, None]
    table = as_matrix(array, name, columns)
    if len(table) != rows:
        raise InvalidDataError(f"{len(table)} {name} were given for {rows} places")
    if not rows:
        raise InvalidDataError(f"a fit needs {name} at one place at least")
    if not table.any():
        raise InvalidDataError(f"all {name} are zero: there is no field to model")
    return table


def check_noise(noise: Any, rows: int) -> Array | None:
    """Standard deviations (rows,) from one number or one per place; None stays None, and so does a single zero.

    Raises:
        InvalidDataError: no numbers, not positive and finite, or another number of them.
    """
    if noise is None:
        return None
    array = as_numbers(noise, "noise", "None, 0, one standard deviation or one for each place").ravel()
    if _is_exact(noise):
        return None
    if array.size not in (1, rows):
        raise InvalidDataError(
            f"noise must be one standard deviation or one for each of {rows} places, got {array.size}"
        )
    bad = ~(np.isfinite(array) & (array > 0.0))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InvalidDataError(
            f"noise[{at}] is {array[at]:g}: standard deviations must be positive (noise=None learns one, noise=0 says "
            "that all observations are exact)"
        )
    return np.broadcast_to(array, (rows,)).copy()


def _is_exact(noise: Any) -> bool:
    """Whether noise is the number zero."""
    array = np.asarray(noise)
    return array.ndim == 0 and array.dtype.kind in "iuf" and float(array) == 0.0


def _refuse_contradictions(places: NDArray[Any], table: Array, exact: bool) -> None:
    _, first, number = np.unique(places, axis=0, return_index=True, return_inverse=True)
    differs = (table != table[first][number.ravel()]).any(1)
    if exact and differs.any():
        at = int(np.flatnonzero(differs)[0])
        raise InvalidDataError(
            f"row {at} repeats a place with another value, which exact observations (noise=0) do not"
        )


def _refuse_normal(coordinates: Array, size: float, noise: Array | None) -> None:
    """Refuse vectors whose tangent part is what errors of the frames, or the noise, make of normal ones."""
    tangent = float(np.sqrt(np.square(coordinates).sum(1).mean()))
    noisy = 0.0 if noise is None else float(np.sqrt(coordinates.shape[1] * np.square(noise).mean()))
    # Tangent vectors that are all noise are a field of which little is known; normal ones are none.
    for floor, why in ((_NORMAL * size, "errors of the tangent frames"), (noisy, "the given noise")):
        if tangent <= floor and tangent < 0.5 * size:
            raise InvalidDataError(
                f"the vectors are normal to the manifold: their tangent part has {100 * tangent / size:.2g} % of their "
                f"root mean square length, which {why} would explain; give the tangent part alone if it is meant"
            )


def observe_values(
    where: Any,
    values: Any,
    noise: Any,
    name: str,
    n: int,
    ambient_dim: int = 0,
    manifold: Manifold | None = None,
    what: str = "node",
) -> Observations:
    """Numbers at nodes (or edges), or at points of a manifold.

    Args:
        where: Node numbers, a mask, or points (m, D).
        values: (m,).
        noise: See :func:`check_noise`.
        name: What the values are, for messages.
        n: Number of nodes.
        ambient_dim: Coordinates of a node, 0 if it has none.
        manifold: Where places between nodes are.
        what: What carries a value, for messages.

    Raises:
        InvalidDataError: anything that cannot be used, with its row.
    """
    places = as_places(where, n, ambient_dim, manifold, what)
    table = check_values(values, len(places), 1, name)
    repeated = len(places) - len(np.unique(places)) if places.ndim == 1 else 0
    known = check_noise(noise, len(places))
    _refuse_contradictions(places, table, _is_exact(noise))
    return Observations(places, table, known, repeated=repeated, exact=_is_exact(noise))


def observe_vectors(manifold: Manifold, where: Any, vectors: Any, noise: Any = None) -> Observations:
    """Vectors of the ambient space at nodes or points, projected to the tangent spaces.

    Args:
        manifold: Where the nodes are.
        where: Node numbers, a mask, or points (m, D).
        vectors: (m, D).
        noise: See :func:`check_noise`.

    Raises:
        InvalidDataError: anything that cannot be used, with its row; or vectors that are normal to the manifold, up to
            what errors of the frames and a known noise explain.

    Warns:
        DataWarning: vectors have components outside of the tangent spaces, which are left out; or places are far.
    """
    places = as_places(where, manifold.n, manifold.ambient_dim, manifold)
    table = check_values(vectors, len(places), manifold.ambient_dim, "vectors")
    if places.ndim == 1:
        frames = manifold.frames[places]
        repeated = len(places) - len(np.unique(places))
    else:
        location = manifold.locate(places)
        if location.far.any():
            at = int(np.flatnonzero(location.far)[0])
            raise InvalidDataError(
                f"{int(location.far.sum())} of {len(places)} observed places are far from the manifold (place {at} by "
                f"{location.distance[at]:.4g}): leave them out"
            )
        frames, repeated = location.frames, 0
    coordinates = np.einsum("mad,ma->md", frames, table)
    normal = np.linalg.norm(table - np.einsum("mad,md->ma", frames, coordinates), axis=1)
    size = float(np.sqrt(np.square(table).sum(1).mean()))
    rms = float(np.sqrt(np.square(normal).mean()))
    known = check_noise(noise, len(places))
    exact = _is_exact(noise)
    _refuse_normal(coordinates, size, known)
    if rms > _NORMAL * size:
        warnings.warn(
            f"vectors have components normal to the manifold, which are left out: {100 * rms / size:.3g} % of their "
            f"root mean square length (largest {normal.max():.3g}, at row {int(normal.argmax())})",
            DataWarning,
            stacklevel=3,
        )
    _refuse_contradictions(places, coordinates, exact)
    return Observations(places, coordinates, known, rms, rms / size, repeated, exact)
