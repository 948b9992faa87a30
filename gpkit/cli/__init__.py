"""The ``gpkit`` command: parses, calls, prints."""

from __future__ import annotations

import importlib
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from gpkit import __version__
from gpkit.cli.common import BAD_INPUT, FAILURE, INTERRUPTED, Parser, complain
from gpkit.errors import GpkitError, InvalidDataError

__all__ = ["main"]

# One module a subcommand, with `add_parser(commands)`, `run(options, command) -> exit code`, `ADVICE` (what the library
# says -> what the command calls it) and `INTERRUPTED` (what to do after ctrl-C).
_COMMANDS = ("lightcurve", "pde", "tensor", "vectorfield")


def _parser(modules: dict[str, Any]) -> Parser:
    parser = Parser(prog="gpkit", description="Gaussian processes with structured covariances.")
    parser.add_argument("--version", action="version", version=f"gpkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for module in modules.values():
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for bad input, 1 for a failure, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    modules = {name: importlib.import_module(f"gpkit.cli.{name}") for name in _COMMANDS}
    parser = _parser(modules)
    chosen: Any = None
    try:
        options = parser.parse_args(words)
        if options.command is None:
            parser.print_help()
            return BAD_INPUT
        chosen = modules[options.command]
        with warnings.catch_warnings():
            warnings.showwarning = _note
            return int(chosen.run(options, shlex.join(["gpkit", *words])))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    except InvalidDataError as error:
        message = str(error)
        for said, meant in chosen.ADVICE:
            message = message.replace(said, meant)
        return complain(message, BAD_INPUT)
    except OSError as error:
        reason = error.strerror or str(error)
        return complain(f"{error.filename}: {reason}" if error.filename else reason, FAILURE)
    except MemoryError:
        return complain("out of memory", FAILURE)
    except GpkitError as error:
        return complain(error, FAILURE)
    except KeyboardInterrupt:
        return complain("interrupted" if chosen is None else chosen.INTERRUPTED, INTERRUPTED)
    except Exception as error:  # A traceback helps no user of a command; the type says what to report.
        return complain(f"unexpected {type(error).__name__}: {error}", FAILURE)


def _note(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Show a warning on one line; those of other libraries are about their code, not about the user's data."""
    if issubclass(category, UserWarning):
        complain(f"note: {message}", 0)
