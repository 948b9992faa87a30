"""Tables that are larger than memory: read once, in chunks, and kept on disk as the numbers that sweeps need."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.models.functional_tensor.modes import Categorical, Encoding, ModeSpec
from gpkit.models.functional_tensor.table import check_spread, read_target

__all__ = ["Spool", "is_chunked"]

Array = NDArray[np.float64]
Index = NDArray[np.int32]


def is_chunked(source: Any) -> bool:
    """Whether a table comes in chunks: the path of a CSV file, a function that returns chunks, or an iterator."""
    return isinstance(source, str | Path) or callable(source) or isinstance(source, Iterator)


def _chunks(source: Any, columns: Sequence[str], rows: int) -> Iterable[Any]:
    if not isinstance(source, str | Path):
        return source() if callable(source) else source
    import pandas as pd

    if not Path(source).exists():
        raise InvalidDataError(f"there is no file {source}")
    try:
        return iter(pd.read_csv(source, usecols=list(columns), chunksize=rows))
    except ValueError as error:
        raise InvalidDataError(f"{source} has no such columns: {error}") from None


class Spool:
    """Indices of coordinates and targets of a table in temporary files; the table itself is read once.

    Memory holds one chunk and the distinct coordinates. The files are gone after :meth:`close`.

    Args:
        source: see :func:`is_chunked`; chunks are anything that has columns by name.
        target: name of the column of targets.
        modes: of the table.
        rows: rows of a chunk of a CSV file.
        check: called with the targets of each chunk.

    Attributes:
        encodings: of the modes.
        index: coordinates of the entries in every mode, memory maps (N,).
        y: targets, a memory map (N,).
        exclusions: rows that were left out, by reason.

    Raises:
        InvalidDataError: as for tables in memory; the message says in which chunk.
    """

    def __init__(
        self, source: Any, target: Any, modes: Sequence[ModeSpec], rows: int, check: Callable[[Array], Any]
    ) -> None:
        if not isinstance(target, str):
            raise InvalidDataError("with a table in chunks y must be the name of its column")
        self._folder = tempfile.TemporaryDirectory(prefix="gpkit-table-")
        self._path = Path(self._folder.name)
        self.exclusions: dict[str, int] = {}
        try:
            self._read(source, target, modes, rows, check)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()

    def _read(
        self, source: Any, target: str, modes: Sequence[ModeSpec], rows: int, check: Callable[[Array], Any]
    ) -> None:
        names = [*(column for mode in modes for column in mode.columns), target]
        readers = [_Column(mode) for mode in modes]
        total, first = 0, 0
        with (self._path / "y").open("wb") as values:
            for chunk in _chunks(source, names, rows):
                try:
                    table = read_target(chunk, target, modes, least=0)
                    check(table.y)
                except InvalidDataError as error:
                    raise InvalidDataError(f"in the chunk that begins at row {first}: {error}") from None
                for reader, columns in zip(readers, table.columns, strict=True):
                    reader.write(columns, self._path)
                values.write(np.ascontiguousarray(table.y).data)
                _count(self.exclusions, table.exclusions)
                total += table.n
                first += table.n + sum(table.exclusions.values())
        if total < 2:
            raise InvalidDataError(f"{total} of {first} rows have a target: a fit needs at least two")
        self.y: Array = np.memmap(self._path / "y", np.float64, "r+", shape=(total,))
        self.encodings: list[Encoding] = []
        self.index: list[Index] = []
        for k, (reader, mode) in enumerate(zip(readers, modes, strict=True)):
            self.encodings.append(mode.encode(reader.labels()))
            self.index.append(self._indices(k, reader, self.encodings[-1], total, rows))

    def _indices(self, k: int, reader: _Column, encoding: Encoding, total: int, rows: int) -> Index:
        out: Index = np.memmap(self._path / f"index{k}", np.int32, "w+", shape=(total,))
        for begin in range(0, total, rows):
            piece = slice(begin, min(begin + rows, total))
            out[piece] = encoding.index(encoding.numbers(reader.read(self._path, piece, total)))
        reader.remove(self._path)
        return out

    def standardise(self, centred: bool) -> tuple[float, float]:
        """Scale the targets in place, centred or not; returns what was taken off, and the unit."""
        step = 1 << 18
        pieces = [slice(begin, begin + step) for begin in range(0, len(self.y), step)]
        most = max(float(np.abs(self.y[piece]).max()) for piece in pieces) or 1.0
        mean = most * sum(float((self.y[piece] / most).sum()) for piece in pieces) / len(self.y) if centred else 0.0
        square = sum(float((((self.y[piece] - mean) / most) ** 2).sum()) for piece in pieces) / len(self.y)
        unit = most * float(np.sqrt(square))
        check_spread(unit, most, mean)
        for piece in pieces:
            self.y[piece] = (self.y[piece] - mean) / unit
        return mean, unit


def _count(total: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, count in more.items():
        total[reason] = total.get(reason, 0) + count


class _Column:
    """Values of one mode on disk, with the distinct ones."""

    def __init__(self, mode: ModeSpec) -> None:
        self._category = isinstance(mode, Categorical)
        self._width = len(mode.columns)
        self._name = mode.columns[0]
        self._codes: dict[Any, int] = {}
        self._distinct: Array = np.empty((0, self._width))
        self._type = np.int32 if self._category else np.float64

    def _file(self, folder: Path) -> Path:
        return folder / f"raw-{abs(hash(self._name))}-{self._width}"

    def write(self, columns: Sequence[Any], folder: Path) -> None:
        """Append a chunk."""
        if self._category:
            levels, inverse = np.unique(np.asarray(columns[0]), return_inverse=True)
            known = np.array([self._codes.setdefault(level, len(self._codes)) for level in levels.tolist()], np.int32)
            values: NDArray[Any] = known[inverse.reshape(-1)]
        else:
            values = np.ascontiguousarray(np.stack([np.asarray(c, dtype=np.float64) for c in columns], 1))
            self._distinct = np.unique(np.concatenate([self._distinct, values]), axis=0)
        with self._file(folder).open("ab") as file:
            file.write(values.data)

    def labels(self) -> list[NDArray[Any]]:
        """Distinct values, column by column."""
        return [np.array(list(self._codes))] if self._category else list(self._distinct.T)

    def read(self, folder: Path, piece: slice, total: int) -> list[NDArray[Any]]:
        """Values of some rows, column by column."""
        shape = (total,) if self._category else (total, self._width)
        values = np.asarray(np.memmap(self._file(folder), self._type, "r", shape=shape)[piece])
        return [self.labels()[0][values]] if self._category else list(values.T)

    def remove(self, folder: Path) -> None:
        """The values are not needed any more."""
        self._file(folder).unlink()
