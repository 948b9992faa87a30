"""The small real light curves that come with gpkit, so that a first fit needs no download.

They are package data (``gpkit/datasets/examples``): a clone and an installed wheel find them in the same place. Where
they come from, their licence and their checksums are in ``data/README.md`` of the repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gpkit.datasets.light_curve import LightCurve
from gpkit.datasets.reading import read_light_curve
from gpkit.errors import InvalidDataError


@dataclass(frozen=True)
class Example:
    """A light curve that ships with gpkit.

    Attributes:
        name: What to give to :func:`load_example`.
        description: One line about the data.
        file: Name of the file in ``gpkit/datasets/examples``.
        sha256: Checksum of that file.
        band: Band of all its rows.
    """

    name: str
    description: str
    file: str
    sha256: str
    band: str


_EXAMPLES = (
    Example(
        name="macho-58.6272.729-B",
        description="MACHO survey, star 58.6272.729, blue band: 364 points in 7.0 years, slow irregular variation",
        file="lc_58.6272.729.B.mjd",
        sha256="18b554ab8d5f37e46a655893fd32601f152c7970d0bcc21a526833319b0cbe53",
        band="B",
    ),
    Example(
        name="macho-10.4279.1493-B",
        description="MACHO survey, star 10.4279.1493, blue band: 844 points in 7.5 years, high signal-to-noise",
        file="lc_10.4279.1493.B.mjd",
        sha256="b20d7d80b0a621d1858a0654ef103ab188540a55cce5e822fb4fbb0d8d1e1eb2",
        band="B",
    ),
    Example(
        name="macho-2.4907.2086-B",
        description="MACHO survey, star 2.4907.2086, blue band: 64 points in 6.6 years, for quick trials",
        file="lc_2.4907.2086.B.mjd",
        sha256="3ac4ec291d76fd193f46e0445752ecb1ba1b533b9f921b14bb93e6e329b6db9f",
        band="B",
    ),
)


def list_examples() -> tuple[Example, ...]:
    """The light curves that ship with gpkit."""
    return _EXAMPLES


def example_path(name: str) -> Path:
    """Where the file of an example is, for tools that take a path.

    Raises:
        InvalidDataError: If there is no such example.
    """
    return Path(str(files("gpkit.datasets").joinpath("examples", _find(name).file)))


def load_example(name: str = "macho-58.6272.729-B") -> LightCurve:
    """Read a light curve that ships with gpkit.

    Args:
        name: One of the names in :func:`list_examples`.

    Returns:
        The light curve: times in days (MJD), values and errors in instrumental magnitudes.

    Raises:
        InvalidDataError: If there is no such example.

    Example:
        >>> load_example("macho-2.4907.2086-B").n
        64
    """
    example = _find(name)
    return read_light_curve(example_path(name), format="table", name=example.name, meta={"band": example.band})


def _find(name: str) -> Example:
    for example in _EXAMPLES:
        if example.name == name:
            return example
    raise InvalidDataError(f"no example {name!r}; there are: {', '.join(example.name for example in _EXAMPLES)}")
