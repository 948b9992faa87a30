"""The bytes of a file: unpacked, and recognised by what is in them rather than by what the file is called."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from pathlib import Path

from gpkit.errors import InvalidDataError

#: Formats that are read; "table" is any plain text table.
FORMATS = ("table", "fermi_lcr", "ecsv", "fits")

_UNPACKERS = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}
_BINARY_KINDS = {
    b"PK\x03\x04": "a zip archive or spreadsheet (export the sheet as CSV)",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy file (use numpy.load and LightCurve(time, value, error))",
    b"%PDF": "a PDF document",
    b"PAR1": "a parquet file (use pandas.read_parquet and LightCurve.from_pandas)",
    b"\x80\x04": "a pickle",
}


def read_bytes(path: Path) -> bytes:
    """Read a whole file, unpacked if it is compressed with gzip, bzip2 or xz.

    Raises:
        InvalidDataError: If the file is missing, a directory, unreadable, empty, or damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as problem:
        raise InvalidDataError(f"{path}: no such file") from problem
    except IsADirectoryError as problem:
        raise InvalidDataError(f"{path}: is a directory; read_fleet reads all files of one") from problem
    except OSError as problem:
        raise InvalidDataError(f"{path}: cannot be read: {problem.strerror or problem}") from problem
    for magic, unpack in _UNPACKERS.items():
        if content.startswith(magic):
            try:
                content = unpack(content)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as problem:
                raise InvalidDataError(f"{path.name}: the compressed file is damaged or incomplete") from problem
    if not content.strip():
        raise InvalidDataError(f"{path.name}: the file is empty")
    return content


def detect_format(content: bytes, *, source: str) -> str:
    """Tell the format of a file from its content.

    Args:
        content: The unpacked bytes.
        source: Name of the file, for messages.

    Returns:
        One of `FORMATS`.

    Raises:
        InvalidDataError: If the content is binary, but not FITS, or a web page.
    """
    if content.startswith(b"SIMPLE  ="):
        return "fits"
    head = decode(content[:65536], source=source)
    first = next(line.strip() for line in [*head.splitlines(), "-"] if line.strip())
    if first.startswith("# %ECSV"):
        return "ecsv"
    if first.lower().startswith(("<!doctype", "<html", "<?xml", "<votable")):
        raise InvalidDataError(f"{source}: is a web page or XML, not a table of times, values and errors")
    lowered = first.lower()
    if "julian date" in lowered and "met" in lowered and ("photon flux" in lowered or "energy flux" in lowered):
        return "fermi_lcr"
    return "table"


def decode(content: bytes, *, source: str) -> str:
    """Decode text: UTF-8 or UTF-16 with a byte-order mark, otherwise Latin-1.

    Raises:
        InvalidDataError: If the content is binary.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    kind = next((text for magic, text in _BINARY_KINDS.items() if content.startswith(magic)), None)
    control = sum(content[:4096].count(byte) for byte in range(32) if byte not in b"\t\n\r\f\v\x1a")
    if kind or b"\x00" in content[:65536] or control > 0.01 * min(len(content), 4096):
        raise InvalidDataError(f"{source}: is {kind or 'a binary file'}, not a text table or a FITS file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
