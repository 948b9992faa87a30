"""Many light curves at once, where one bad file must not stop the others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpkit.datasets.light_curve import LightCurve
from gpkit.datasets.reading import read_light_curve
from gpkit.errors import InvalidDataError


@dataclass(frozen=True)
class Fleet:
    """Light curves that could be read, and what was wrong with the other files.

    Attributes:
        curves: The curves, in the order of the files.
        errors: The error of each file that could not be read, by path.
    """

    curves: list[LightCurve] = field(default_factory=list)
    errors: dict[str, InvalidDataError] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of curves."""
        return len(self.curves)

    def __iter__(self) -> Iterator[LightCurve]:
        """Go through the curves."""
        return iter(self.curves)

    def __getitem__(self, index: int) -> LightCurve:
        """The curve at a position."""
        return self.curves[index]


def read_fleet(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    pattern: str = "*",
    on_error: Literal["collect", "raise"] = "collect",
    progress: bool = True,
    **options: Any,
) -> Fleet:
    """Read many light curves.

    Args:
        paths: A directory, or the files themselves.
        pattern: Which files of the directory to read, such as ``"agn_*.csv"``; hidden files are never read.
        on_error: "collect" keeps each file's error beside the curves, "raise" stops at the first.
        progress: Show a bar if it takes more than a second and stderr is a terminal.
        options: As for :func:`read_light_curve`, the same for all files.

    Returns:
        The curves and the errors.

    Raises:
        InvalidDataError: If there is no file, none can be read, or, with ``on_error="raise"``, one cannot be read.
        MissingDependencyError: If a format needs a package that is not installed.
    """
    from tqdm import tqdm

    files = _files(paths, pattern)
    fleet = Fleet()
    for file in tqdm(files, desc="reading", unit="file", delay=1.0, disable=None if progress else True):
        try:
            fleet.curves.append(read_light_curve(file, **options))
        except InvalidDataError as problem:
            if on_error == "raise":
                raise
            fleet.errors[str(file)] = problem
    if not fleet.curves:
        first = fleet.errors[str(files[0])]
        raise InvalidDataError(f"none of the {len(files)} files is a light curve; the first: {first}")
    return fleet


def _files(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], pattern: str) -> list[Path]:
    """The files to read, those of a directory in alphabetical order."""
    if not isinstance(paths, str | os.PathLike):
        files = [Path(path) for path in paths]
        if not files:
            raise InvalidDataError("the list of files is empty: give at least one path")
        return files
    directory = Path(paths)
    if directory.is_file():
        return [directory]
    if not directory.is_dir():
        raise InvalidDataError(f"{directory}: no such directory")
    files = sorted(path for path in directory.glob(pattern) if path.is_file() and not path.name.startswith("."))
    if not files:
        raise InvalidDataError(f"{directory}: no file matches {pattern!r}")
    return files
