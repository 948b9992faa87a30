"""One file of Python objects with a format and a version: what every model's `save` and `load` stand on."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gpkit.errors import InvalidDataError
from gpkit.files import write_atomic

__all__ = ["PayloadFormat"]


class PayloadFormat(NamedTuple):
    """A kind of file.

    Attributes:
        name: Written into the file, so that files of other kinds are told apart.
        version: Of the entries; newer files are refused.
        noun: What the file holds, with its article, for messages.
        entries: Names that must be there.
        oldest: Version of the oldest files that can still be read.
    """

    name: str
    version: int
    noun: str
    entries: Collection[str] = ()
    oldest: int = 1

    def write(self, path: str | Path, entries: Mapping[str, Any]) -> Path:
        """Write the entries, complete or not at all.

        Raises:
            InvalidDataError: An entry cannot be written.
        """
        buffer = io.BytesIO()
        try:
            torch.save({"format": self.name, "version": self.version, **entries}, buffer)
        except OSError:
            raise
        except Exception as error:  # pickle raises what the objects raise
            raise InvalidDataError(f"{self.noun} holds something that no file can: {error}".splitlines()[0]) from None
        return write_atomic(path, buffer.getvalue())

    def read(self, path: str | Path) -> dict[str, Any]:
        """The entries of a file. Files hold Python objects: load only those that you trust.

        Raises:
            InvalidDataError: The file is not there, damaged, of another kind, or its format is too new or too old.
        """
        try:
            payload = torch.load(str(path), weights_only=False)
        except FileNotFoundError:
            raise InvalidDataError(f"there is no file {path}") from None
        except OSError:
            raise
        except Exception as error:  # unpickling damaged bytes may raise anything
            raise InvalidDataError(f"{path} is not {self.noun}: {error}".splitlines()[0]) from None
        if not isinstance(payload, dict) or payload.get("format") != self.name:
            raise InvalidDataError(f"{path} is not {self.noun}")
        version = payload.get("version", 0)
        if version > self.version:
            raise InvalidDataError(f"{path} was written by a newer gpkit (format {version})")
        if version < self.oldest:
            raise InvalidDataError(
                f"{path} was written by an older gpkit (format {version}), whose files this one cannot read (formats "
                f"{self.oldest} to {self.version}): fit and save again"
            )
        missing = [entry for entry in self.entries if entry not in payload]
        if missing:
            raise InvalidDataError(f"{path} is not complete: {self.noun} has an entry {missing[0]!r}")
        return {name: value for name, value in payload.items() if name not in ("format", "version")}
