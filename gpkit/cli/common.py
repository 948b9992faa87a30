"""What every subcommand shares: exit codes, number parsers, one-line errors, the folder of the results."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gpkit.errors import InvalidDataError

__all__ = [
    "BAD_INPUT",
    "FAILURE",
    "INTERRUPTED",
    "Parser",
    "column_name",
    "complain",
    "count",
    "input_file",
    "results_folder",
    "whole_number",
]

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130


class Parser(argparse.ArgumentParser):
    """Errors on one line, with the exit code of bad input."""

    def error(self, message: str) -> NoReturn:
        """Exit with the code of bad input."""
        self.exit(BAD_INPUT, f"gpkit: {message} (see {self.prog} --help)\n")


def whole_number(least: int, most: int = 2**32 - 1) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return parse


def complain(error: object, code: int) -> int:
    """Print an error on one line; returns ``code``."""
    print(f"gpkit: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    return code


def column_name(text: str | None) -> str | int | None:
    """A column by name, or by number where the text is one."""
    return int(text) if text is not None and text.isdigit() else text


def count(number: int, what: str) -> str:
    """Such as "3 rows"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def input_file(path: str | Path) -> Path:
    """A file that was named, before it is read.

    Raises:
        InvalidDataError: There is none, or it is a folder.
    """
    file = Path(path)
    if file.is_dir():
        raise InvalidDataError(f"{file} is a folder: name a file")
    if not file.exists():
        raise InvalidDataError(f"there is no file {file}")
    return file


def results_folder(path: str | Path) -> Path:
    """The folder of the results, made if it is not there.

    Raises:
        InvalidDataError: It is a file.
        PermissionError: It cannot be written to.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InvalidDataError(f"--out {folder} is a file: name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this folder cannot be written to", str(folder))
    return folder
