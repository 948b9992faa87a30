"""Every error and warning that gpkit raises on purpose.

An error of this package is always a :class:`GpkitError`, and also the built-in exception that a Python programmer would
have expected in its place, so that ``except ValueError`` keeps working. Messages are one line: what was wrong, where
(row, column, name) and what would be right.
"""

from __future__ import annotations

__all__ = [
    "ConvergenceError",
    "ConvergenceWarning",
    "DataWarning",
    "GpkitError",
    "InvalidDataError",
    "MemoryEstimateError",
    "MissingDependencyError",
    "NotPositiveDefiniteError",
    "NotSortedError",
    "StructureLostError",
]


class GpkitError(Exception):
    """Base of every error that gpkit raises on purpose."""


class InvalidDataError(GpkitError, ValueError):
    """Data that came in from a user or a file cannot be used as they are."""


class NotSortedError(InvalidDataError):
    """Inputs that must increase do not, at a place where gpkit may not sort them itself."""


class NotPositiveDefiniteError(GpkitError, ArithmeticError):
    """A covariance matrix has no Cholesky factor.

    Args:
        message: What was being factorised and what would help.
        row: The first row (counted from 0) whose pivot is not positive, where it is known; it is added to the message.

    Attributes:
        row: The same row, or None.
    """

    def __init__(self, message: str = "the matrix is not positive definite", *, row: int | None = None) -> None:
        """Keep the row beside the message."""
        super().__init__(message if row is None else f"{message} (row {row})")
        self.row = row


class StructureLostError(GpkitError, TypeError):
    """An operation would have turned a structured operator into a dense matrix without being asked to."""


class MemoryEstimateError(GpkitError, MemoryError):
    """Work was refused before it began, because it would not fit in memory."""


class MissingDependencyError(GpkitError, ImportError):
    """A feature needs a package that is not installed."""

    @classmethod
    def for_extra(cls, package: str, *, extra: str, purpose: str) -> MissingDependencyError:
        """Build the one-line message that names the extra to install.

        Args:
            package: The package that could not be imported.
            extra: The extra of the gpkit distribution that brings it.
            purpose: What was being done, as the start of a sentence ("reading FITS files").
        """
        return cls(f"{purpose} needs {package}, which is not installed: pip install 'gpkit-bayes[{extra}]'")


class ConvergenceError(GpkitError, RuntimeError):
    """An iteration ended without any usable answer."""


class ConvergenceWarning(UserWarning):
    """An iteration ended early: the answer is usable only with care."""


class DataWarning(UserWarning):
    """Data were accepted, with a decision that their owner would want to know about."""
